# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reproduction: which published numbers hold?
#
# *Do the published results come out again when somebody else writes the code?* On 250 images of MNIST they do: the
# mean accuracies of training without densification (*vanilla*) and with sliding densification fall within the
# published spread, and so does constant densification, with another β and weight than published. But most of the gain
# is due to a baseline that trained too long: on six splits no difference was found between sliding and vanilla with
# 50 epochs each in place of 310 (−0.08 ± 0.79 points). Two claims about geometry do not fare as well. The table has
# every claim that this chapter tests, the picture the splits behind its first lines (sliding was run twice on each,
# and has the mean of the two).

# %% jupyter={"source_hidden": true}
# Imports; read the kept rows; table of every claim
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ncbook import plots
from ncbook.book import mean_gap, median_range, profile, say, table
from ncbook.experiments import COLUMNS, GUIDED, TABLES, Unit, run_table
from ncbook.experiments.intervals import paired_interval

RESULTS = next((folder for folder in (Path("results"), Path("notebooks/results")) if folder.is_dir()), Path("results"))
FILES = {name: RESULTS / f"{name}.csv" for name in TABLES}
KEPT = {name: pd.read_csv(file) if file.exists() else pd.DataFrame(columns=list(COLUMNS))
        for name, file in FILES.items()}
MNIST, CHOICES = KEPT["mnist250"], KEPT["mnist250_choices"]
PUBLISHED = {"vanilla": (92.53, 0.76), "constant": (94.10, 0.30), "sliding": (94.24, 0.47)}  # MNIST, mean and std
RUNS = MNIST.assign(recipe=MNIST.recipe.replace("sliding_again", "sliding"))  # two runs of sliding on each split
ACCURACY = RUNS.pivot_table(index="split", columns="recipe", values="test_accuracy")


def parted(name):
    """The kept rows of a table, with the two parts of the recipe's name as columns."""
    return KEPT[name].assign(**KEPT[name].recipe.str.extract("(?P<method>.+)_(?P<where>.+)"))


def first_epoch(rows, column, bound):
    """The first measured epoch below the bound, a row per seed and a column per method: inf where there is none."""
    return rows.epoch.where(rows[column] < bound, np.inf).groupby([rows.seed, rows.method]).min().unstack()


PAIRS = [("constant", "vanilla"), ("sliding", "vanilla"), ("sliding", "constant"), ("sliding_wd0.001", "sliding")]
differences = {pair: (ACCURACY[pair[0]] - ACCURACY[pair[1]]).dropna() for pair in PAIRS}
intervals = {pair: paired_interval(d, len(PAIRS)) for pair, d in differences.items()}
DISTANCE = {name: rows.train_etf_distance for name, rows in RUNS.groupby("recipe")}
nearer, farther = DISTANCE["sliding"] < DISTANCE["vanilla"].min(), DISTANCE["sliding"] > DISTANCE["vanilla"].max()
sooner = {where: first_epoch(rows, "train_nc1", 0.1) for where, rows in parted("speed").groupby("where")}


def ours(name):
    runs = RUNS[RUNS.recipe == name].test_accuracy
    return f"{runs.mean():.2f} ± {runs.std():.2f}"


claims = [[f"accuracy of {name}, %", "{:.2f} ± {:.2f}".format(*PUBLISHED[name]), ours(name), verdict]
          for name, verdict in (("vanilla", "reproduced"), ("constant", "reached, with another β and weight"),
                                ("sliding", "reproduced"))]
claims += [[f"{a} gains over {b}, points", f"{PUBLISHED[a][0] - PUBLISHED[b][0]:+.2f}",
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*intervals[a, b]), verdict]
           for (a, b), verdict in zip(PAIRS[1:3], (
               "reproduced, for a baseline of as many epochs (section 2)", "cannot be told from 0"))]
claims += [["sliding speeds convergence to the ETF and to duality", "no number",
            f"at the end {farther.sum()} of {len(farther)} runs farther from an ETF, {nearer.sum()} nearer",
            "speed not tested; the end is mostly the opposite (section 3)"],
           ["the nearest ETF collapses sooner than fixed and learned rows", "no number",
            "; ".join(f"{where}: in {int((first.nearest < first[['standard', 'fixed']].min(axis=1)).sum())} of "
                      f"{len(first)} seeds" for where, first in sooner.items()), "often ties on networks (section 4)"],
           ["accuracies on SVHN-250, %", "78.23 ± 1.81 (sliding)", "–", "not run"]]
table(["claim", "published", "ours", "verdict"], claims, text=4)
say(f"*In brackets: 95% intervals that hold together with those of {len(PAIRS) - 2} more comparisons (section 2).*")
assert nearer.sum() + farther.sum() == len(farther)

# %% jupyter={"source_hidden": true}
# Draw test accuracies of three methods, split by split
methods = ["vanilla", "constant", "sliding"]
plots.slope_chart({name: ACCURACY[name] for name in methods}, "test accuracy, %", title="MNIST with 250 images",
                  beside=PUBLISHED).show()

# %% [markdown]
# The first three claims are from the [public write-up](https://github.com/diningeachox/top_densification_nc) of the
# sliding schedule and from Hofer et al. (2020), the claim on the nearest ETF from Markou et al. (2024). Why repeat what
# is published? A method that is built on a number inherits what is wrong with it. And repeating shows what a number
# depends on; here that is above all the *length* of training (section 2).
#
# What this chapter does not say is which method is best. Methods are compared here as they were published, each with
# its own settings, and that is not fair. A comparison in which all are tuned with equal effort is specified in
# `notebooks/results/fair_comparison.md`.
#
# *You will learn*
#
# - how to hold a mean against a published mean and spread, and why runs on the same splits are compared in pairs;
# - how a baseline that trains for too long can make a method look better than it is;
# - what sliding densification and the nearest ETF do to collapse;
# - how a table of long runs is made, stopped, continued and checked.
#
# ## Setup
#
# The runs took hours, and their rows are kept in small files that this chapter reads. The profile decides only how far
# section 5 follows the runs that it makes again.

# %% jupyter={"source_hidden": true}
# Sizes of the profiles
PROFILE, ITERATIONS = profile(
    {"ITERATIONS": "iterations that section 5 makes again"},
    quick=dict(ITERATIONS=54), book=dict(ITERATIONS=205), paper=dict(ITERATIONS=2000),
)

# %% [markdown]
# ## 1. The published means
#
# *When does a number count as reproduced?* Let $m \pm s$ be the published mean and standard deviation. If our mean
# over ten splits is in $[m - s,\, m + s]$ it is *reproduced*, above it *better*, below it *worse*. If both sides had
# the spread $s$ and differed by luck alone, the difference of two means of ten runs would have the standard error
# $s\sqrt{2/10} = 0.45\,s$, so the rule allows about 2.2 standard errors (for the two rows of five splits 1.8). It is
# laxer than that, since the splits are the published ones, and what they contribute to both means cancels; and our
# first three means are all lower than the published ones. An accuracy is that of the last epoch, never of the best
# one; ours stand with the standard deviation of single runs.
#
# *Before you look: the published scripts use a weight decay of 0.01, the text beside them says 0.001. Which of the two
# brings sliding nearer to the published mean?*

# %% jupyter={"source_hidden": true}
# Table: our means against the published ones
lines = []
for name in [method + decay for decay in ("", "_wd0.001") for method in methods]:
    values, (mean, std) = ACCURACY[name].dropna(), PUBLISHED[name.split("_")[0]]
    gap = values.mean() - mean
    verdict = "within" if abs(gap) <= std else "better" if gap > 0 else "worse"
    lines.append([name.replace("_wd", ", decay "), verdict, f"{mean:.2f} ± {std:.2f}", ours(name), f"{gap:+.2f}",
                  len(values)])
table(["test accuracy, %", "against m ± s", "published", "ours", "difference", "splits"], lines, text=2)
assert all(line[1] == "within" for line in lines)
assert ACCURACY.sliding.mean() < PUBLISHED["sliding"][0] < ACCURACY["sliding_wd0.001"].mean()

# %% [markdown]
# Neither: sliding is a little below the published mean with the one and a little above with the other, and both are
# within its spread. Such a mean does not reveal how it was obtained. (The script writes `10e-3`, perhaps a slip for `1e-3`;
# it loops over nine splits, and we take ten.)
#
# **What is ours and what is theirs.** For vanilla and sliding the network, the batches of same-class clouds, the
# schedule, learning rate, momentum, 310 epochs and the splits are those of the published scripts (in which vanilla is
# a line that is commented out). All rows draw the same-class clouds as their batches, vanilla too, and an epoch is 31
# steps of 128 images, 16 passes over the 250. For `constant` the published mean is that of Hofer et al. with their
# training. Ours is trained like the other rows, with a β and a weight that were chosen on six other splits with 50
# epochs. Those splits have other training images, but accuracy was read on the same 10,000 test images, so that the
# choice has seen them. The number was *reached*; their setting was not repeated.

# %% jupyter={"source_hidden": true}
# Table: settings tried for constant densification
tried = CHOICES.assign(**CHOICES.recipe.str.extract("constant_beta(?P<beta>.+)_weight(?P<weight>.+)").astype(float))
grid = tried.pivot_table(index="beta", columns="weight", values="test_accuracy")
table(["constant, mean accuracy of 6 splits, %", *(f"weight {weight:g}" for weight in grid)],
      [[f"β = {beta:g}", *("–" if np.isnan(x) else f"{x:.2f}" for x in row)] for beta, row in grid.iterrows()])
ones = CHOICES[CHOICES.recipe.isin(["vanilla_50_epochs", "sliding_50_epochs"])].groupby("recipe").test_accuracy.mean()
assert grid.stack().idxmax() == (4.0, 0.01) and (grid[0.1] < ones.min() - 1).all()

# %% [markdown]
# The chosen setting is in a corner of what was tried, with the smallest weight and the largest β, so the best may lie
# outside. A constant weight of 0.1, where sliding ends, costs more than a point at every β, against 50 epochs of vanilla
# or sliding on the same splits.
#
# ## 2. In pairs, and against which baseline?
#
# *Is one method better than another, or had it better splits?* Some sets of 250 images are better than others: the grey
# lines above spread by a point or two. But all methods were given the same sets, so the question is put split by split.
# With $d_i$ the difference of two methods on split $i$ (sliding has two seeds per split, and takes their mean), the mean
# $\bar d$ has the interval
#
# $$ \bar d \;\pm\; t_{n-1}\, \frac{s_d}{\sqrt n}, \qquad s_d^2 = \frac1{n-1} \sum_i (d_i - \bar d)^2, $$
#
# and what all methods owe to the split drops out. For several comparisons at once the quantile of $t$ is taken at 5%
# over their number, so that all intervals hold together with 95%.

# %% jupyter={"source_hidden": true}
# Draw paired differences with their intervals
short = {" − ".join(pair).replace("_wd", ", decay "): found for pair, found in intervals.items()}
plots.interval_chart(short, "difference in test accuracy, points", title="Differences on the same ten splits",
                     subtitle=f"mean and simultaneous 95% intervals of {len(PAIRS)} comparisons").show()
assert intervals["sliding", "vanilla"].low > 0 and (differences["sliding", "vanilla"] > 0).all()
assert (differences["constant", "vanilla"] > 0).all() and intervals["constant", "vanilla"].low > 0 and intervals["sliding_wd0.001", "sliding"].low > 0
assert intervals["sliding", "constant"].low < 0 < intervals["sliding", "constant"].high

# %% [markdown]
# Both kinds of densification gain over vanilla, on every split. Sliding and constant cannot be told apart, where 0.14
# points were published. And for sliding, cutting the weight decay to a tenth gains more than the whole difference
# from constant.
#
# *Predict: what happens to these gains if vanilla stops after 50 epochs instead of 310?* On the splits that served to
# choose settings there are runs of both lengths.

# %% jupyter={"source_hidden": true}
# Table: vanilla and sliding, 50 and 310 epochs, and another weight decay
lengths = CHOICES.pivot(index="split", columns="recipe", values="test_accuracy")
gap = {"vanilla, 50 − vanilla, 310": lengths.vanilla_50_epochs - lengths.vanilla_x1,
       "sliding, 50 − sliding, 310": lengths.sliding_50_epochs - lengths.sliding_x1,
       "sliding, 50 − vanilla, 50": lengths.sliding_50_epochs - lengths.vanilla_50_epochs,
       "sliding, 310 − vanilla, 50": lengths.sliding_x1 - lengths.vanilla_50_epochs}
gap |= {f"{name}, 310 − vanilla, 310, decay 0.001": ACCURACY[f"{name}_wd0.001"] - ACCURACY["vanilla_wd0.001"]
        for name in ("sliding", "constant")}
gap["vanilla, 310, decay 0.001 − vanilla, 310"] = ACCURACY["vanilla_wd0.001"] - ACCURACY.vanilla
gap = {pair: d.dropna() for pair, d in gap.items()}
table(["first minus second, epochs", "mean, 95% t-interval of each, points", "range", "splits"],
      [[pair, mean_gap(d), f"{d.min():+.2f} to {d.max():+.2f}", f"{d.index.min()} to {d.index.max()}"]
       for pair, d in gap.items()])
first, second, third, *_ = gap.values()
assert first.count() == 3 and first.min() > 0 and second.max() < 0 and abs(third.mean()) < 0.5

# %% [markdown]
# **The baseline trained for too long.** Vanilla is better after 50 epochs than after 310 on each of three splits;
# sliding is a little worse. After 50 epochs no difference between the two was found on six splits, where a gain of up
# to 0.7 points is not excluded; and three splits are too few to tell long sliding from short vanilla. So at this
# weight decay densification makes long training harmless, as far as three splits show, and the length of the baseline
# is worth as much as the whole published gain. At a tenth of the decay, where it was not tried shorter, long vanilla
# is behind both kinds of densification on five splits as well. On splits 0 to 9 vanilla has not been run with 50
# epochs; five networks of 62 epochs each, averaged, beat sliding on splits 0 to 4 (next table), which mixes a shorter
# training with an average; five of sliding, of that length, gain 0.2 points more. And vanilla may prefer shuffled
# batches to same-class clouds, and for no method but constant were settings chosen.
#
# *And the heads of this book on the same images?* The table has rows of the fixed and of the nearest ETF as well, with
# the training of vanilla and sliding, 310 epochs and weight decay 0.01.

# %% jupyter={"source_hidden": true}
# Table: ETF heads and averaged networks on splits 0 to 4
OTHERS = {("vanilla_nearest", "vanilla"): "nearest ETF", ("vanilla_fixed", "vanilla"): "fixed ETF",
          ("sliding_nearest", "sliding"): "nearest ETF, sliding", ("sliding_fixed", "sliding"): "fixed ETF, sliding",
          ("vanilla_x5", "sliding"): "five of vanilla, 62 epochs", ("best", "sliding"): "five of sliding, 62 epochs",
          ("best", "vanilla_x5"): "five of sliding, 62 epochs"}
others = {pair: (ACCURACY[pair[0]] - ACCURACY[pair[1]])[:5] for pair in OTHERS}
table(["splits 0 to 4", "compared with", "test accuracy, %", "difference (95% interval of each), points", "negative on"],
      [[name, pair[1].replace("vanilla_x5", "five of vanilla"), f"{ACCURACY[pair[0]][:5].mean():.2f} ± {ACCURACY[pair[0]][:5].std():.2f}", "{:+.1f} ({:+.1f} to {:+.1f})".format(*paired_interval(others[pair])),
        f"{(others[pair] < 0).sum()} of {len(others[pair])}"] for pair, name in OTHERS.items()], text=2)
assert all(len(d) == 5 and paired_interval(d).high < 0 and (d < 0).all() for d in [*others.values()][:4])

# %% [markdown]
# A prescribed frame loses here, on every split, with and without densification. The settings are those published for
# a linear classifier, and none was chosen for these heads (two feature norms were tried with 50 epochs on splits 10
# to 12, and not used); so the rows do not say that frames are worse, but that they are no gain at somebody else's
# settings.
#
# ## 3. What sliding does to collapse
#
# *Does sliding lead to the simplex ETF faster?* It asks for smaller and smaller classes as β goes to 0, so the scatter
# within classes should fall, and the write-up says that the class means reach the ETF, and the classifier its dual,
# sooner. Only the end of training was kept, epoch 310. *Predict: where are the twenty runs of sliding in this picture,
# to the left of vanilla or to the right?*

# %% jupyter={"source_hidden": true}
# Draw every run at the end of training
lost = {text: 2 - 2 * np.sqrt((9 - k) / 9) for k, text in ((1, "one direction<br>lost"), (2, "two"))}
shown = {name: RUNS[RUNS.recipe == name] for name in methods}
plots.seed_scatter({name: (rows.train_etf_distance, rows.train_nc1) for name, rows in shown.items()},
                   ("ETF distance, training set", "NC1, training set"), title="Every run at the end of training",
                   subtitle="MNIST with 250 images; a mark per run, 10 of vanilla and constant, 20 of sliding",
                   lines=lost).show()

# %% jupyter={"source_hidden": true}
# Table: what sliding does to scatter and geometry
MEASURED = {"train_nc1_quotient": "NC1 quotient, train", "test_nc1_quotient": "NC1 quotient, test",
            "train_nc1": "NC1, train", "train_etf_distance": "ETF distance, train", "train_nc3": "NC3 (duality), train"}


def at_end(recipe, key):
    return median_range(RUNS[RUNS.recipe == recipe][key], ".2g")


table(["median (range) of all runs", "vanilla", "sliding", "vanilla, decay 0.001", "sliding, decay 0.001"],
      [[text, *(at_end(recipe, key) for recipe in ("vanilla", "sliding", "vanilla_wd0.001", "sliding_wd0.001"))]
       for key, text in MEASURED.items()])
by_recipe = {name: rows.set_index("split") for name, rows in RUNS.groupby("recipe")}
for decay in ("", "_wd0.001"):
    vanilla, sliding = by_recipe["vanilla" + decay], by_recipe["sliding" + decay]
    for key in ("train_nc1_quotient", "test_nc1_quotient"):
        assert (sliding[key].groupby("split").max().reindex(vanilla.index) < vanilla[key]).all()
    assert min(sliding[key].median() / vanilla[key].median() for key in ("train_etf_distance", "train_nc3")) > 2
sliding, vanilla = by_recipe["sliding"], by_recipe["vanilla"]
ratios = sliding.train_etf_distance / vanilla.train_etf_distance.reindex(sliding.index)
assert sorted(ratios)[3] < 0.2 and sorted(ratios)[4] > 3
assert ((sliding.train_nc3 < vanilla.train_nc3.min()).values == nearer.values).all()
assert ((sliding.train_nc3 > vanilla.train_nc3.max()).values == farther.values).all()
assert sorted(sliding[nearer.values].index) == [0, 4, 7, 9]

# %% [markdown]
# The scatter falls, on every split and on test images too: the NC1 quotient is what densification presses on. The
# geometry of the means has two outcomes. Four of the twenty runs end nearer to a simplex ETF than *every* run of
# vanilla, 6 to 20 times nearer than vanilla on their own split. The other sixteen end 3 to 38 times farther, and the
# same runs part in NC3. The seed can decide: on splits 0, 4, 7 and 9 one run is in either group. At a tenth of the
# weight decay, too, the median run ends farther away, and a few of the ten do not.
#
# The dotted lines are the distances of means that are a simplex but for one or two of their $C - 1$ directions, in
# which they do not differ at all: $2 - 2\sqrt{(C - 1 - k)/(C - 1)}$. The far runs lie around them and beyond, on an
# axis that covers much. NC1, which divides the scatter in each direction by the variance of the means there, is large
# for some of them (see [Measuring collapse](03_measuring_collapse.ipynb)). The rows do not hold those variances, so
# lost directions are a reading of this picture, not a measurement.
#
# ## 4. Does the nearest ETF collapse sooner?
#
# *With nothing in the way, which head is first?* Markou et al. report that training towards the nearest ETF converges
# faster than with a fixed one and with learned rows (*standard*). In the unconstrained-features model each sample owns
# a free vector. As published: 1,000 samples, $d = 512$, feature norm 5, full batches, 2,000 iterations. Ours: SGD with
# one constant rate for all three heads, in place of automatic gradient descent.

# %% jupyter={"source_hidden": true}
# Draw the curves of three heads on free features
CHECKED = ["train_loss", "train_nc1", "train_etf_distance", "train_nc3"]


def curves(rows):
    """The rows as `plots.metric_curves` takes runs: method -> seeds -> rows."""
    return {method: [run[["epoch", *CHECKED]].to_dict("records")
                     for _, run in rows[rows.method == method].groupby("seed")] for method in GUIDED}


FREE = {int(where[1:]): rows for where, rows in parted("unconstrained").groupby("where")}
fig = plots.metric_curves(curves(FREE[100]), ["nc1", "etf_distance", "nc3"], title="Free features, 100 classes")
fig.for_each_xaxis(lambda axis: axis.update(type="log", dtick=1, title_text=axis.title.text and "iteration"))
fig.update_layout(width=720, height=360).show()

# %% jupyter={"source_hidden": true}
# Table: how soon each head collapses, and where it ends
lines = []
for where, rows in [(f"free features, {count} classes", FREE[count]) for count in FREE] + [
        (f"network on {name}", rows) for name, rows in parted("speed").groupby("where")]:
    for bound in ((1e-1, 1e-5) if "free" in where else (1e-1,)):
        seen = first_epoch(rows, "train_nc1", bound)
        unit = "iterations" if "free" in where else "epochs"
        lines.append([f"{where}: {unit} to NC1 < {bound:g}", *(median_range(seen[method], "g") for method in GUIDED)])
for name, rows in parted("speed").groupby("where"):
    end = rows[rows.epoch == rows.epoch.max()]
    for key, text in (("test_accuracy", "test accuracy at the end, %"), ("train_etf_distance", "ETF distance at the end")):
        lines.append([f"network on {name}: {text}", *(median_range(end[key][end.method == method], ".3g")
                                                      for method in GUIDED)])
table(["median (range) of five seeds", *GUIDED], lines)

# %% jupyter={"source_hidden": true}
# Checks of which head is first
for count, rows in FREE.items():
    seen = {bound: first_epoch(rows, "train_nc1", bound) for bound in (1e-1, 1e-5)}
    assert seen[0.1].nearest.max() < seen[0.1][["standard", "fixed"]].min(axis=None), "nearest first at NC1 < 0.1"
    assert count == 10 or seen[1e-5].standard.max() < seen[1e-5].nearest.min(), "and not at NC1 < 1e-5"
for first in sooner.values():
    others = first[["standard", "fixed"]]
    assert others.ge(first.nearest, axis=0).all(axis=None) and not (first.nearest < others.min(axis=1)).all()
for _, rows in parted("speed").groupby("where"):
    end = rows[rows.epoch == rows.epoch.max()].groupby("method").train_etf_distance
    assert max(end.max().fixed, end.max().nearest) < end.min().standard

# %% [markdown]
# On free features the nearest ETF is first at NC1 < 0.1 in every seed: its first frame already fits the random means
# that it finds. With 100 classes it does not stay first: learned rows reach $10^{-5}$ one step before it on the grid
# of kept iterations, each 1.2 times the one before (ranges without width come from that grid too); the growing norm
# of free features may play a part in that, as in [Guided training](08_guided_training.ipynb).
#
# With a network, on digits and on 10,000 images of MNIST, it is never later than another head, but ahead of both in
# some seeds only. NC1 falls below 0.1 within some epochs here, and whole epochs are too coarse to separate heads. What a
# prescribed frame does change is where training ends: class means nearer to a simplex ETF, more than ten times on
# digits, about twice on MNIST. These networks end in a linear map, since the fixed frame of these rows can be out of
# reach of a ReLU. These rows neither confirm nor refute that epochs are saved on larger networks and images, as
# published.
#
# ## 5. How the tables are made, and what was not run
#
# A table is a list of *units*, runs to be made: each is a recipe, a split of the data and a seed. A finished unit is
# kept at once and a long one keeps a checkpoint besides, so a run that is killed loses at most an epoch of the units it
# was working on.

# %% jupyter={"source_hidden": true}
# Table: the commands, and how many units were run
MADE = {name: make for name, make in TABLES.items() if not name.startswith("comparison")}
DONE = {name: KEPT[name].drop_duplicates(["recipe", "split", "seed"], keep="last") for name in MADE}
table(["what it is", "command", "units run", "of"],
      [[make.__doc__.splitlines()[0].rstrip(".,:"), f"`python -m ncbook.experiments {name}`", len(DONE[name]),
        len(make())] for name, make in MADE.items()], text=2)
assert not any(len(DONE[name]) for name in ("svhn250", "mnist_resnet18", "mnist_stem", "cifar10")), "then give a verdict"

# %% [markdown]
# What was not run: SVHN with 250 images, CIFAR-10 and all of MNIST with ResNet-18, which need a GPU, and ResNet-18 with
# the published first layer on 10,000 images of MNIST, which waits for its turn. The recipes are in the
# package, and the tests run a few steps of each. For CIFAR-10 no verdict will be given: batches, feature norm and 200
# epochs are those of Markou et al., but their first convolution, optimiser, augmentation and stratified batches are not
# (the comment at `RESNET18` in `ncbook/experiments/tables.py` lists them).
#
# *Do old rows and present code agree?* Each row holds every setting, from which its unit can be made again. Here is the
# beginning of three kept runs on free features, made again in a file of its own.

# %%
units = [replace(unit, measured=tuple(step for step in unit.measured if step <= ITERATIONS))
         for unit in TABLES["unconstrained"]() if unit.recipe.classes == 10 and unit.recipe.seed == 0]
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "unconstrained.csv"
    first_call = run_table(units, file, jobs=1, progress=False)
    second_call = run_table(units, file, jobs=1, progress=False)  # finds all units done, and reads them
    again = pd.read_csv(file)

# %% jupyter={"source_hidden": true}
# Table: rows made again against kept ones
both = again.merge(KEPT["unconstrained"], on=["recipe", "split", "seed", "epoch"], suffixes=("", " kept"))
off = pd.DataFrame({key: (both[key] / both[f"{key} kept"] - 1).abs() for key in CHECKED})
worst = off.groupby(both.recipe).max()
table([f"largest relative difference, {len(both)} rows", *worst.index],
      [[plots.metric_label(key.removeprefix("train_")), *(f"{x:.1e}" for x in worst[key])] for key in CHECKED])
assert first_call == second_call and off.max(axis=None) < 0.01
assert len(both) == sum(again.epoch.isin(KEPT["unconstrained"].epoch.unique())) > 0
for name, make in MADE.items():
    made = {Unit.from_settings(*row) for row in DONE[name][["recipe", "settings"]].values}
    assert made <= set(make()), f"{name} has rows of other settings"

# %% [markdown]
# Processors round differently, so the last digits may differ. Free features forget small errors. A network trained on
# batches amplifies them: after some epochs two machines are on different paths, and its tables are reproducible to the
# digit on one machine only, elsewhere as distributions.
#
# ## Try it
#
# **1. The luck of a seed.** Sliding was run twice on each split, with other seeds (`sliding_again` in the file). Guess
# first: how much of the spread between runs is due to the seed, and how much to the images? Then estimate it.
#
# <details><summary>Solution</summary>
#
# ```python
# both = MNIST[MNIST.recipe.isin(["sliding", "sliding_again"])]
# first, other = both.pivot(index="split", columns="recipe", values="test_accuracy").values.T
# print("seed", np.sqrt(((first - other) ** 2).mean() / 2), "all", first.std(ddof=1))
# ```
#
# The difference of two runs on one split has twice the variance of a seed. The seed's standard deviation comes out at
# about 0.4 points against 0.7 in all, so more than half of the *variance* is due to the images. That is why pairs help.
# </details>
#
# **2. How many splits?** Let the paired differences of sliding and constant have the spread that they have here. How
# many splits would it take to see the published difference of 0.14 points, four times in five?
#
# <details><summary>Solution</summary>
#
# ```python
# spread = differences["sliding", "constant"].std()
# print(((1.96 + 0.84) * spread / 0.14) ** 2)
# ```
#
# The rule of thumb for 80% power is $n = ((1.96 + 0.84)\,\sigma/\delta)^2$: more than a hundred splits. With ten, a
# difference of that size is invisible, whoever publishes it.
# </details>
#
# **3. A rank test.** Five splits, and one method wins on all of them. Is that significant at 5% by Wilcoxon's
# signed-rank test?
#
# <details><summary>Solution</summary>
#
# No. If all $n$ signs agree the two-sided $p$ is $2/2^n$, which is 0.06 for five splits and 0.002 for ten.
# `scipy.stats.wilcoxon(differences["sliding", "vanilla"])` gives the latter.
# </details>
#
# ## Summary
#
# - On MNIST-250, ten splits, vanilla, constant and sliding come out within the published mean ± standard deviation;
#   constant with a β and a weight of our own.
# - Against a vanilla network of as many epochs (310) sliding gains 1.7 points (1.2 to 2.3), on ten of ten splits.
#   Against constant no difference was found (+0.04, −0.6 to +0.7). These intervals hold together with 95%.
# - That baseline trains for too long: on three splits kept for choosing, 50 epochs of vanilla beat 310 on each, by
#   2.06 ± 0.50 points, and on six no difference to 50 epochs of sliding was found (−0.08 ± 0.79).
# - At the published weight decay of the linear classifier the nearest ETF loses 6.4 points to it, the fixed one 4.5, on
#   five of five splits; these heads had no settings of their own.
# - Sliding lowers the NC1 quotient on training and test images on ten of ten splits. Of its twenty runs sixteen end
#   farther from a simplex ETF and from duality than vanilla, four nearer.
# - The nearest ETF is the first to NC1 < 0.1 on free features in five of five seeds; with networks on digits and
#   10,000 MNIST images it is never later than standard and fixed, and often ties.
# - SVHN-250, CIFAR-10 and ResNet-18 on MNIST were not run.
#
# ## References
#
# - C. Hofer, F. Graf, M. Niethammer, R. Kwitt. *Topologically densified distributions.* ICML 2020.
#   [arXiv 2002.04805](https://arxiv.org/abs/2002.04805)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - D. G. Mixon, H. Parshall, J. Pi. *Neural collapse with unconstrained features.* 2020.
#   [arXiv 2011.11619](https://arxiv.org/abs/2011.11619)
# - *Topological densification and neural collapse.* Public write-up and code of the sliding schedule.
#   [github.com/diningeachox/top_densification_nc](https://github.com/diningeachox/top_densification_nc)
#
# **Next:** [Your own model](15_your_own_model.ipynb).
