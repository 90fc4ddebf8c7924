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
# # The sliding schedule: when should a class collapse?
#
# The densification loss of chapter 09 pushes the death times of each class towards a length β. Hofer et al. (2020)
# keep β and the weight of the loss constant. Neural collapse suggests another wish: at the end of training each class
# should be one point, so β should be 0. Then why not ask for that from the start? This chapter does, watches the
# classes fall into one another instead of moving apart, finds out what is responsible, and turns to the sliding
# schedule, which asks for little at first and for collapse at the end. Everything is trained here, on 250 real images,
# several times, so that the size of an effect can be held against the noise.
#
# *You will learn*
#
# - the densification loss with its two dials, and how constant, delayed and sliding schedules turn them;
# - that collapse demanded too early keeps the classes from separating, from which weight on, and what it looks like;
# - why: the loss never pushes two classes together, it is the network shared by all samples that does;
# - what the schedules do to test accuracy, to NC1, to NC2 and to the distance to the simplex ETF, with paired
#   differences;
# - what happens when sliding densification meets the nearest-ETF head, and how to let the two work on the same sphere;
# - how to change β and the weight by hand in the middle of a run, and how to write a schedule of your own.
#
# ## Setup

# %%
import functools
import math
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from plotly.subplots import make_subplots

from ncbook import Controls, Recipe, SameClassSampler, Trainer, densification_loss, plots
from ncbook.book import median_range, profile, say, show_code, table
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule

DIGITS = dict(DATASET="digits", BACKBONE="small_cnn", BETA0=1.1, WEIGHT=0.01, LARGE_WEIGHT=0.03)
MNIST = dict(DATASET="mnist", BACKBONE="mnist_cnn", BETA0=1.1, WEIGHT=0.1, LARGE_WEIGHT=0.3)
PROFILE, DATASET, BACKBONE, BETA0, WEIGHT, LARGE_WEIGHT, SWEEP, EPOCHS, SEEDS = profile(
    quick=dict(DIGITS, SWEEP=(0.01, 0.03), EPOCHS=4, SEEDS=range(1)),
    book=dict(DIGITS, SWEEP=(0.01, 0.03, 0.1), EPOCHS=10, SEEDS=range(3)),
    paper=dict(MNIST, SWEEP=(0.03, 0.1, 0.3, 1.0), EPOCHS=310, SEEDS=range(10)),
)
CLOUDS, P, SCALE = (8, 16), 1, 5.0
COMMON = dict(dataset=DATASET, backbone=BACKBONE, train_size=250, clouds=CLOUDS, p=P, epochs=EPOCHS, lr=0.1,
              momentum=0.9, weight_decay=0.01, scale=SCALE)
STRICT = PROFILE == "book"  # most claims about trained networks need its epochs, and its data
torch.manual_seed(0)

# %% [markdown]
# `book` trains on 250 of scikit-learn's digits and tests on all 360 images of its test part; a seed also chooses its
# own 250 images. β0 and the weight $w_0$ were chosen for the sliding schedule with three other splits of the training
# part, judged on the training images left over, so that the test images had no say; the other schedules run at the same
# values, which need not be their best. `LARGE_WEIGHT` is what section 2 needs. `paper` is the reference setting for
# MNIST with 250 images: L1 norm, learning rate 0.1, 310 epochs. The full tables of those runs are computed separately.

# %%
class OnSphere(torch.nn.Module):
    """Features scaled to norm SCALE."""

    def forward(self, features):
        return SCALE * F.normalize(features, dim=1)


@functools.cache
def fit(schedule=None, seed=0, on_sphere=False, **changes):
    """Train once and remember: a snapshot per epoch, and the mean norm of the raw backbone features at the end."""
    trainer = Trainer(Recipe(**{**COMMON, **changes}, schedule=schedule, split=seed, seed=seed))
    network = trainer.backbone
    if on_sphere:
        trainer.backbone = torch.nn.Sequential(network, OnSphere())
    shots = [trainer.snapshot()]
    while not trainer.finished:
        trainer.run_epoch()
        shots.append(trainer.snapshot())
    with torch.no_grad():
        norm = network.eval()(trainer.data.train_inputs).norm(dim=1).mean().item()
    accuracy = shots[-1].row().get("test_accuracy", math.nan)  # in per cent
    return SimpleNamespace(shots=shots, last=shots[-1], norm=norm, accuracy=accuracy)


def curves(methods, keys, title, split="train"):
    shots = {name: [run.shots for run in of_seed] for name, of_seed in methods.items()}
    return plots.metric_curves(shots, keys, split=split, title=title)


# %% [markdown]
# ## 1. One loss, two dials
#
# A step takes $b$ anchors at random and $n - 1$ more images of the class of each, drawn with replacement: $b$
# same-class clouds of $n$ points, $z_1, \dots, z_n \in \mathbb{R}^d$ their features. Let $t_1 \le \dots \le t_{n-1}$
# be the H<sub>0</sub> death times of a cloud, the edge lengths of its minimum spanning tree. With
# $\mathcal L_{\rm CE}$ the cross-entropy over all $b\,n$ images, training minimises
#
# $$ \mathcal L = \mathcal L_{\rm CE} + w\, T_\beta, \qquad
# T_\beta = \frac1b \sum_{\text{clouds}}\ \sum_{k=1}^{n-1} |t_k - \beta| . $$
#
# The dials are the weight $w \ge 0$ and the length $\beta \ge 0$. Where should they stand? The constant setting of
# Hofer et al. has a property that matters for neural collapse: it forbids it. For any $\beta > 0$, a class that has
# become one point pays $(n-1)\,\beta$ per cloud, as much as one whose edges have all doubled.

# %%
collapsed = torch.zeros(*CLOUDS, 64)
line = torch.zeros_like(collapsed)
line[..., 0] = 2 * BETA0 * torch.arange(CLOUDS[1])
losses = [densification_loss(cloud, BETA0, P).item() for cloud in (collapsed, line / 2, line)]
print("T at beta0 for one point, for edges beta0, for edges 2 beta0:", [round(x, 3) for x in losses])
assert np.allclose(losses, [(CLOUDS[1] - 1) * BETA0, 0, (CLOUDS[1] - 1) * BETA0], rtol=1e-4, atol=1e-3)

# %% [markdown]
# Only $\beta = 0$ agrees with NC1: $T_0$ is the total length of the tree, which vanishes exactly when the cloud is
# one point. The **sliding schedule** goes there slowly. In epoch $e = 1, \dots, E$,
#
# $$ w(e) = w_0\,\frac eE , \qquad \beta(e) = \beta_0 \sqrt{\frac{E-e}{E}} . $$
#
# The idea, from the write-up *Topological densification and neural collapse*: while the classes still have to find
# their places, they should be dense but have room, and they should collapse when they are apart. We compare it with
# three others: *vanilla* ($w = 0$), *constant* ($w_0$ and $\beta_0$ throughout), and *delayed*, which waits for half
# of the training and then demands $\beta = 0$ at full weight. Delayed asks whether it is enough to be late, without
# any sliding.

# %%
show_code(SlidingSchedule)

# %%
sliding = SlidingSchedule(BETA0, WEIGHT, EPOCHS)
SCHEDULES = {"vanilla": None, "constant": ConstantSchedule(BETA0, WEIGHT),
             "delayed": DelayedSchedule(0.0, WEIGHT, start=EPOCHS // 2 + 1), "sliding": sliding}
assert math.isclose(sliding.beta(0.75 * EPOCHS), BETA0 / 2) and math.isclose(sliding.weight(EPOCHS / 2), WEIGHT / 2)
assert sliding.beta(1) > sliding.beta(2) > sliding.beta(EPOCHS) == 0 and sliding.weight(EPOCHS) == WEIGHT
plots.schedule_curves({name: s for name, s in SCHEDULES.items() if s}, EPOCHS)

# %% [markdown]
# The square root keeps β high for long: it has lost only half its value when three quarters of the training are over,
# and then falls ever more steeply, to exactly 0 in the last epoch. The weight grows evenly, so the loss is felt most
# when it asks for the most.
#
# ## 2. Too early
#
# What happens if each class is told to become one point from the first step, at a weight that the sliding schedule
# would only reach at the end? We call this *too early*; it is the constant schedule with $\beta = 0$. Beside it, on
# the same images from the same initial network, run the delayed and the sliding schedule with the same $w_0$, so that
# their final demand is the same. To see the effect at its fullest, $w_0$ is larger here (`LARGE_WEIGHT`) than it
# should be; section 3 goes through other weights.

# %%
LARGE = {"too early": ConstantSchedule(0.0, LARGE_WEIGHT),
         "delayed": DelayedSchedule(0.0, LARGE_WEIGHT, start=EPOCHS // 2 + 1),
         "sliding": SlidingSchedule(BETA0, LARGE_WEIGHT, EPOCHS), "vanilla": None}
extreme = {name: fit(schedule, 0) for name, schedule in LARGE.items()}
curves({name: [run] for name, run in extreme.items()}, ["accuracy", "nc1_quotient", "etf_distance"],
       "The same final demand, made at different times")

# %%
keys = ["loss", "nc1_quotient", "nc2_equiangular", "nc2_equinorm", "etf_distance"]
table(["schedule", "test accuracy, %", *map(plots.metric_label, keys), "feature norm"],
      [[name, run.accuracy, *(run.last.train[key] for key in keys), run.norm] for name, run in extreme.items()])
early, classes = extreme["too early"], len(extreme["too early"].last.class_means)
others = min(run.accuracy for run in extreme.values() if run is not early)
if PROFILE != "paper":
    assert early.accuracy < 25 and others > 2 * early.accuracy
    assert early.last.train["nc1_quotient"] > 5 * extreme["sliding"].last.train["nc1_quotient"]
if STRICT:
    assert others > 85 and abs(early.last.train["loss"] - math.log(classes)) < 0.1
say(f"For comparison: always naming one class would give about {100 / classes:.0f}%, and $\\ln C = {math.log(classes):.3f}$ "
    "is the cross-entropy of a classifier that knows nothing.")

# %% [markdown]
# The loss got what it asked for: every class is a point. It is the *same* point. Both schedules that wait escape, the
# plainly delayed one as well. The next picture shows it in raw units, the features of each run projected onto the two
# directions in which its own class means vary most, with one scale for all three panels.

# %%
names, colors, between = ("too early", "delayed", "sliding"), np.array(plots.class_colors(classes)), {}
fig = make_subplots(1, 3, subplot_titles=names, horizontal_spacing=0.06)
for column, name in enumerate(names, start=1):
    shot = extreme[name].last
    means = shot.class_means - shot.class_means.mean(0)
    between[name] = means.norm(dim=1).mean().item()
    axes = torch.linalg.svd(means, full_matrices=False).Vh[:2]
    fig.add_scatter(**plots.xyz((shot.features - shot.class_means.mean(0)) @ axes.T), mode="markers", name=name,
                    marker=dict(color=colors[shot.targets], opacity=0.6), showlegend=False, row=1, col=column)
fig.update_xaxes(title="direction 1", matches="x").update_yaxes(matches="y")
print("mean distance of a class mean from the centre:", {name: float(f"{x:.3g}") for name, x in between.items()})
assert between["too early"] < 0.1 * min(between["delayed"], between["sliding"])
plots.finish(fig, "Where the training features end up", "colour: class; raw units, one scale", width=860, height=420,
             yaxis_title="direction 2")

# %% [markdown]
# Is there a small picture of separated classes hidden in the dot on the left? Angles do not depend on scale, so look
# at the cosines between the class means, measured from their common centre.

# %%
shown = ("too early", "sliding", "vanilla")
plots.cosine_heatmaps({name: extreme[name].last.class_means for name in shown})

# %%
scatter, off = ({name: extreme[name].last.train[key] for name in shown} for key in ("nc1_quotient", "etf_distance"))
untrained = early.shots[0].train["etf_distance"]
if PROFILE != "paper":
    assert scatter["too early"] > 5 * scatter["sliding"] and untrained < min(off.values())
say("Taken alone, these cosines mislead. The means are at a distance from the nearest simplex ETF of "
    + ", ".join(f"{value:.2f} (*{name}*)" for name, value in off.items())
    + f", and those of the *untrained* network at {untrained:.2f}: averages of noise in many dimensions point in "
    "different directions by themselves. NC2 says little without NC1. On the left the scatter within the classes is "
    f"{scatter['too early']:.2g} times the scatter between their means, so these are not {classes} places but much the "
    f"same cloud, averaged {classes} times; with the sliding schedule the ratio is {scatter['sliding']:.1g}.")

# %% [markdown]
# And this is how the sliding schedule separates first and collapses later, on the same images (the slider needs no
# kernel). The projection shows two of the nine dimensions of the simplex, so discs that overlap here need not overlap
# there.

# %%
plots.geometry_animation(extreme["sliding"].shots, title="Sliding densification, epoch by epoch")

# %% [markdown]
# ## 3. What keeps the classes together?
#
# It is tempting to say that the loss pushes the classes into each other. It cannot. Each $T_\beta$ is a sum over
# *same-class* clouds and depends only on differences within a cloud, so moving a whole cloud does not change it.
# Differentiate that:
#
# $$ \sum_{i=1}^{n} \frac{\partial T_\beta}{\partial z_i} = 0 \quad\text{for every cloud.} $$
#
# Whatever the weight, the loss does not pull on the mean of a cloud. There is a second identity, for $\beta = 0$.
# Lengths scale with the features, $T_0(s z) = s\,T_0(z)$, and so, by Euler's theorem for homogeneous functions,
#
# $$ \sum_i \Big\langle z_i, \frac{\partial T_0}{\partial z_i}\Big\rangle = T_0 . $$
#
# The left side is the derivative with respect to a common scale $s$ of *all* features at $s = 1$. Shrinking
# everything always lowers $T_0$, and it is something that a network has at hand: its last layer need only shrink.
# Here are both sums for the first batch of an untrained network, and the same derivative of the cross-entropy.

# %%
trainer = Trainer(Recipe(**COMMON))
inputs, targets = trainer.data.train_inputs, trainer.data.train_targets
generator = torch.Generator().manual_seed(0)
anchors = torch.randperm(len(targets), generator=generator)[: CLOUDS[0]]
batch = SameClassSampler(targets)(anchors, CLOUDS[1], generator).flatten()
features = trainer.backbone(inputs[batch]).detach().requires_grad_()
cross_entropy = F.cross_entropy(trainer.head(features), targets[batch])
tree_length = densification_loss(features.unflatten(0, CLOUDS), 0.0, P)
(ce_pull,) = torch.autograd.grad(cross_entropy, features)
(tree_pull,) = torch.autograd.grad(tree_length, features)

on_means = tree_pull.unflatten(0, CLOUDS).sum(1).abs().max().item()
ce_scale, tree_scale = ((pull * features).sum().item() for pull in (ce_pull, tree_pull))
largest = tree_pull.abs().max().item()
assert on_means < 1e-4 * largest and math.isclose(tree_scale, tree_length.item(), rel_tol=1e-4)
print(f"T_0: largest entry of the sum over a cloud {on_means:.1e}, largest entry of a single gradient {largest:.2f}")
print(f"derivative with respect to the common scale: T_0 {tree_scale:.2f} (T_0 itself is {tree_length.item():.2f}), "
      f"cross-entropy {ce_scale:+.3f}; w T_0 for each weight w:", {w: f"{w * tree_scale:.3f}" for w in SWEEP})
# At the large weight, shrinking is what the sum of the two losses wants at the start.
assert LARGE_WEIGHT * tree_scale > abs(ce_scale)

# %% [markdown]
# An untrained network gives cross-entropy no reason to keep the features large, as they say nothing about the classes
# yet: here its derivative is even positive. $w\,T_0$ gives a steady reason to make them small. When they are small,
# the gradient that could teach the layers below is small too, as it passes through the last layer. This predicts two
# things that can be tested.
#
# *First*, without a shared network nothing should go wrong. In the **unconstrained-features model** each sample has a
# feature vector of its own as a free parameter; there is no last layer to shrink, and the first identity says that
# the class means are left alone.

# %%
FREE = dict(dataset="unconstrained", backbone="free_features", feature_dim=64, classes=10, epochs=12)
free = {name: fit(LARGE[name], **FREE).last.train for name in ("vanilla", "too early")}
table(["free features", "training accuracy", "NC1 quotient", "ETF distance"],
      [[name, *(last[key] for key in ("accuracy", "nc1_quotient", "etf_distance"))] for name, last in free.items()])
assert all(last["accuracy"] > 0.99 for last in free.values())
assert free["too early"]["nc1_quotient"] < free["vanilla"]["nc1_quotient"]

# %% [markdown]
# With free features the classes separate just as well, and they collapse more tightly, although the demand was there
# from the first step. The hindrance is not in the loss alone; it comes in with the weights that all samples share.
#
# *Second*, the derivative grows with $w$, so a small weight should be harmless even when it comes too early, and
# there should be a weight at which learning stops. Where it lies this one batch cannot say: $w\,T_0$ outweighs
# cross-entropy at every weight printed above. The sliding schedule starts with a weight of $w_0/E$ and a
# positive β, so it should bear a larger $w_0$.

# %%
by_weight = {"too early": {w: fit(ConstantSchedule(0.0, w), 0) for w in SWEEP},
             "sliding": {w: fit(SlidingSchedule(BETA0, w, EPOCHS), 0) for w in SWEEP}}
panels = {"test accuracy (%)": lambda run: run.accuracy, "NC1 quotient": lambda run: run.last.train["nc1_quotient"],
          "distance to nearest ETF": lambda run: run.last.train["etf_distance"]}
fig = make_subplots(1, 3, subplot_titles=list(panels), horizontal_spacing=0.1)
for column, value in enumerate(panels.values(), start=1):
    for name, runs_at in by_weight.items():
        color, dash, symbol = plots.method_style(name)
        fig.add_scatter(x=SWEEP, y=[*map(value, runs_at.values())], name=name, showlegend=column == 1, row=1, col=column,
                        mode="lines+markers", line=dict(color=color, dash=dash), marker=dict(symbol=symbol, size=10))
fig.update_xaxes(type="log", title="weight w<sub>0</sub>", tickvals=SWEEP)
fig.update_yaxes(type="log", exponentformat="e", dtick=1, col=2).update_yaxes(rangemode="tozero", col=1)
plots.finish(fig, "How much weight does it take?", "one run per point, seed 0", width=900)

# %%
if STRICT:
    at_once, slid = ({w: run.accuracy for w, run in runs_at.items()} for runs_at in by_weight.values())
    broken, fine = [w for w in SWEEP if at_once[w] < 50], [w for w in SWEEP if at_once[w] >= 50]
    best = max(fine, key=at_once.get)
    assert broken and max(fine) < min(broken) and all(slid[w] > at_once[w] + 10 for w in broken)
    assert slid[max(SWEEP)] < slid[min(SWEEP)]
    say(f"Asked too early, the network still learns at a weight of {max(fine):g} and no longer at {min(broken):g}. At "
        f"the weights that break it, the sliding schedule reaches {min(slid[w] for w in broken):.1f}% or more, though it "
        f"pays for the largest weight as well. At {best:g}, collapse from the first step gives {at_once[best]:.1f}% and "
        f"the sliding schedule {slid[best]:.1f}%, one run each. So the too-early collapse is a matter of weight and time "
        "together, and what the schedule buys is room for a larger weight.")

# %% [markdown]
# ## 4. Four schedules, several seeds
#
# How do the schedules compare once nothing is taken to an extreme? Each seed has its own 250 images, its own initial
# network and its own order of batches, which the four methods share. So the differences between methods *within* a
# seed are less noisy than the accuracies.

# %%
runs = {name: [fit(schedule, seed) for seed in SEEDS] for name, schedule in SCHEDULES.items()}
accuracy = {name: [run.accuracy for run in of_seed] for name, of_seed in runs.items()}
plots.seed_summary(accuracy, "test accuracy (%)", title="Test accuracy after the last epoch")

# %%
def compare(methods, baseline):
    """Accuracies in per cent, and differences to the baseline within each seed; returns their means."""
    gains = {name: np.subtract(values, methods[baseline]) for name, values in methods.items()}
    table(["method", "median and range", f"minus {baseline}, mean", "range of differences", "better / worse"],
          [[name, median_range(methods[name], ".1f"), f"{gain.mean():+.2f}", f"{gain.min():+.2f} to {gain.max():+.2f}",
            f"{(gain > 0).sum()} / {(gain < 0).sum()}"] for name, gain in gains.items()])
    return [gain.mean() for gain in gains.values()]


share, count = median(accuracy["vanilla"]) / 100, len(trainer.data.test_targets)
error = 100 * math.sqrt(share * (1 - share) / count)
gains = compare(accuracy, "vanilla")
say(f"{len(SEEDS)} run(s) per method and {count} test images: one image is {100 / count:.2f} percentage points, and the "
    f"binomial standard error of one accuracy is about {error:.1f}.")
if STRICT:
    assert max(gains) < 2 * error  # no schedule gains what these runs could vouch for

# %% [markdown]
# Read this table with care. With so few runs, all judged on the same few test images, differences below about two
# points (two standard errors of one accuracy) have no meaning here, in either direction and even where the seeds agree:
# on another processor, which rounds differently, the same recipes come out in another order. On digits a plain network
# is already close to what 250 images allow, so there is little for a regulariser to gain; and on MNIST with 250 images
# the public write-up reports 92.53 ± 0.76% for plain training, 94.10 ± 0.30% for a constant β and 94.24 ± 0.47% for
# sliding, after 310 epochs and over several splits.
#
# The geometry, in contrast, changes far beyond the noise.

# %%
KEYS = ["nc1_quotient", "nc1", "nc2_equiangular", "nc2_equinorm", "etf_distance", "nc3"]
curves(runs, KEYS, "Neural collapse under four schedules")

# %%
def final(methods, key, split="train"):
    """Of each method, the median over seeds of a metric at the end."""
    return {name: median(getattr(run.last, split)[key] for run in of_seed) for name, of_seed in methods.items()}


columns = [final(runs, key) for key in KEYS] + [final(runs, "nc1_quotient", "test")]
table(["median at the end", *map(plots.metric_label, KEYS), "NC1 quotient, test images"],
      [[name, *(column[name] for column in columns)] for name in runs])
if STRICT:
    for ours, vanilla in zip(*([run.last.train for run in runs[name]] for name in ("sliding", "vanilla"))):
        assert ours["nc1_quotient"] < vanilla["nc1_quotient"] / 5 and ours["etf_distance"] > vanilla["etf_distance"]
    assert columns[0]["sliding"] < columns[0]["constant"] and columns[-1]["sliding"] < columns[-1]["vanilla"]

# %% [markdown]
# Two effects, and they point in opposite directions. Sliding densification brings NC1 forward by a large factor, and
# the clouds of the test images are tighter too. It does *not* bring the means nearer to a simplex ETF: at the end of
# these short runs they are farther from one than without it. That fits section 3. The loss has no term that would
# arrange the means, and a network that must make its clouds small may make small whatever costs least, directions
# between classes included. (The pseudo-inverse in `nc1` divides by the variance between the means *in each
# direction*, and weak directions weigh heavily there; so it need not fall as far as the quotient.)
#
# Do the death times follow their β at all?

# %%
deaths = {name: round(runs[name][0].last.deaths.median().item(), 3) for name in runs}
print("median death time in the last batch:", deaths)
if STRICT:
    assert abs(deaths["constant"] - BETA0) < 0.5 * BETA0 and runs["sliding"][0].last.beta == 0
    assert 0 < deaths["sliding"] < deaths["constant"] < deaths["vanilla"]

fig = make_subplots(1, 2, subplot_titles=("constant", "sliding"), horizontal_spacing=0.09, shared_yaxes=True)
for column, name in enumerate(("constant", "sliding"), start=1):
    traces = plots.death_times_over_epochs(runs[name][0].shots).data
    fig.add_traces([trace.update(showlegend=column == 1) for trace in traces], rows=1, cols=column)
fig.update_xaxes(title="epoch").update_yaxes(rangemode="tozero")
plots.finish(fig, "Death times and their target", "quantiles over the clouds of an epoch's last batch, seed 0",
             width=860, height=420, yaxis_title="death time (L1)")

# %% [markdown]
# With constant β, the death times settle around it. With the sliding schedule they come down behind β and do not
# reach 0: the learning rate falls to 0 along with β, so in the last epochs the cloud can hardly move. (The lowest
# band contains zeros from the start: draws with replacement repeat images.)
#
# ## 5. The union with the nearest-ETF head
#
# On paper the two lines of work in this book complement each other: the nearest-ETF head of chapter 05 arranges the
# means and leaves the clouds to cross-entropy, the densification loss shrinks the clouds and leaves the means alone.
# Does training with both do both? In a `Recipe` the union is two entries. It is run here against its parts.
#
# One detail will matter. The head classifies $\tau z / \lVert z\rVert$, points on a sphere of radius $\tau = 5$; the
# densification loss sees the raw features $z$. So the length of $z$ means nothing to the classifier and everything to
# the loss. The network can satisfy the loss by making all raw features short and not change a single prediction. The
# third variant removes this way out: it puts the features on the sphere before *either* part sees them (`OnSphere`,
# in the Setup), so that both speak of the same points.

# %%
UNION = {"nearest": dict(), "union": dict(schedule=sliding), "union on sphere": dict(schedule=sliding, on_sphere=True)}
joint = {name: [fit(head="nearest", seed=seed, **options) for seed in SEEDS] for name, options in UNION.items()}
joint = {"sliding": runs["sliding"], **joint}
curves(joint, ["accuracy", "nc1_quotient", "etf_distance"], "Sliding densification, nearest-ETF head, and both", "test")

# %%
compare({name: [run.accuracy for run in of_seed] for name, of_seed in joint.items()}, "sliding")
quotient, distance, nc3 = (final(joint, key) for key in ("nc1_quotient", "etf_distance", "nc3"))
norm = {name: median(run.norm for run in of_seed) for name, of_seed in joint.items()}
columns = quotient, distance, nc3, norm, final(joint, "nc1_quotient", "test")
table(["median at the end", "NC1 quotient", "ETF distance", "NC3", "raw feature norm", "NC1 quotient, test images"],
      [[name, *(column[name] for column in columns)] for name in joint])
if STRICT:
    assert norm["union"] < norm["nearest"] and quotient["union on sphere"] < quotient["union"] / 2
    assert max(distance[name] for name in UNION) < distance["sliding"] / 2
    assert distance["nearest"] < distance["union on sphere"]

# %% [markdown]
# The plain union keeps the head's geometry, and gives way partly as foreseen: in the length of the features, where the
# classifier does not look. Put on the sphere, the same loss works on angles alone, and the classes become denser there
# than with the head alone or with the plain union; the price is some distance to the ETF. Part of this is a matter of
# units, though: on the sphere features have length 5 where the raw ones have the norms in the table, so the same $w$
# weighs an angle several times as much. These runs do not separate the two effects.
#
# In accuracy no gain from the union can be claimed from these runs. The mismatch above may be one reason in the case
# of the plain union, since there the loss does only part of its work; that is an explanation which fits these
# measurements, not a proof. Nor was β0 chosen anew for the sphere, where lengths have another unit.
#
# ## 6. The dials in your hand
#
# The trainer reads β and the weight from one small object at each step. Unless `manual` is set, it fills them in from
# the schedule; with `manual`, they are yours, and may be changed between any two steps.

# %%
show_code(Controls)

# %% [markdown]
# Here is a run in three acts: first no densification at all; then a tight β at once; then a β three times as large as
# β0. Collapse that has happened should be reversible if the loss asks for it. The learning rate is kept constant, so
# that it does not decide the answer.

# %%
third = max(2, EPOCHS // 3)
controls = Controls(manual=True)
trainer = Trainer(Recipe(**{**COMMON, "epochs": 3 * third}, lr_decay="constant"), controls=controls)
shots = []
for beta, weight in ((0.0, 0.0), (0.5 * BETA0, LARGE_WEIGHT), (3 * BETA0, LARGE_WEIGHT)):
    controls.beta, controls.densify_weight = beta, weight
    for _ in range(third):
        trainer.run_epoch()
        shots.append(trainer.snapshot())
medians = [shots[third * act - 1].deaths.median().item() for act in (1, 2, 3)]
print("median death time at the end of each act:", [round(m, 2) for m in medians])
assert medians[1] < medians[0] and (medians[1] < medians[2] or not STRICT)

fig = plots.death_times_over_epochs(shots, title="β and weight changed by hand")
for act, name in enumerate(("w = 0", "tight β", "wide β")):
    fig.add_vline(x=third * act + 0.5, line=dict(color="#B5B5B5", width=1), annotation_text=name)
fig

# %% [markdown]
# The cloud tightens when told to, and opens again when β goes back up. (The β drawn in the first act has no effect,
# as the weight is 0.) Chapter 12 puts the same two numbers on sliders.
#
# A schedule is any object with `beta(epoch)` and `weight(epoch)`. So a schedule of your own is a small class. This
# one goes down in four stairs:

# %%
class Staircase:
    """Each quarter of the training halves beta and doubles the weight; the last has beta 0 and weight `weight`."""

    def __init__(self, beta0, weight, epochs):
        self.beta0, self.final_weight, self.epochs = beta0, weight, epochs

    def stair(self, epoch):
        return min(int(4 * epoch / (self.epochs + 1)), 3)

    def beta(self, epoch):
        return 0.0 if self.stair(epoch) == 3 else self.beta0 / 2 ** self.stair(epoch)

    def weight(self, epoch):
        return self.final_weight / 2 ** (3 - self.stair(epoch))


stairs = fit(Staircase(BETA0, WEIGHT, EPOCHS))
assert stairs.last.beta == 0 and stairs.last.densify_weight == WEIGHT
table(["seed 0", "test accuracy, %", "NC1 quotient"],
      [[name, run.accuracy, run.last.train["nc1_quotient"]]
       for name, run in (("staircase", stairs), ("sliding", runs["sliding"][0]))])

# %% [markdown]
# ## Try it
#
# **1.** Show that constant β bounds NC1 away from 0: in the L2 norm, if all $n-1$ death times of a cloud equal
# $\beta$, then its scatter $\frac1n \sum_i \lVert z_i - \bar z\rVert^2$ is at least $\frac{n-1}{2n}\beta^2$.
#
# <details><summary>Solution</summary>
#
# The shortest of all pairs is always an edge of a minimum spanning tree (Kruskal's algorithm takes it first). If all
# edges have length $\beta$, no pair is closer than $\beta$. The scatter is half the mean of the squared distances
# over all $n^2$ ordered pairs, $\frac{1}{2n^2}\sum_{i,j}\lVert z_i - z_j\rVert^2$, and $n(n-1)$ of those are at least
# $\beta^2$. Together: $\frac{n(n-1)}{2n^2}\beta^2 = \frac{n-1}{2n}\beta^2$.
#
# </details>
#
# **2.** Which of the two slides matters? Write a schedule in which only the weight slides, at $\beta = 0$, and
# compare it with the too-early run and with the sliding schedule.
#
# <details><summary>Solution</summary>
#
# ```python
# class WeightOnly:
#     beta = staticmethod(lambda epoch: 0.0)
#     weight = staticmethod(lambda epoch: LARGE_WEIGHT * epoch / EPOCHS)
#
# run = fit(WeightOnly())
# print(run.accuracy, run.last.train["nc1_quotient"], run.last.train["etf_distance"])
# ```
#
# One seed says little about accuracy. Compare the geometry first, then repeat with `seed=1` and `seed=2`.
#
# </details>
#
# **3.** Repeat the too-early run in the L2 norm. Lengths in L2 are shorter than in L1, so the same weight asks for
# less. From which weight on does it fail?
#
# <details><summary>Solution</summary>
#
# ```python
# for weight in (0.03, 0.1, 0.3):
#     run = fit(ConstantSchedule(0.0, weight), p=2)
#     print(weight, run.accuracy, run.norm)
# ```
#
# In 64 dimensions the L1 length of a vector is between 1 and 8 times its L2 length. Section 3 says what to compare
# across norms: $w\,T_0$ at the start.
#
# </details>
#
# ## Summary
#
# - $T_\beta$ with $\beta > 0$ keeps a class from becoming a point; with $\beta = 0$ it asks for exactly that. The
#   sliding schedule goes from one to the other, with a weight that grows.
# - Demanded from the first step at large weight, collapse takes all classes to the same point, and the network stays
#   at chance. At small weight it does not.
# - The loss does not push on class means. It is the shared network that gives way, by shrinking all features at once;
#   free features separate unharmed.
# - On 250 digits no schedule gains more accuracy over plain training than a few runs can vouch for. Sliding lowers the
#   within-class scatter by a large factor, and leaves the means farther from a simplex ETF than cross-entropy alone.
# - Noise can look like an ETF: read NC2 together with NC1.
# - The nearest-ETF head with the plain union keeps its geometry, and part of the densification goes into the length
#   of the features. On the same sphere the two give dense classes near an ETF.
# - β and the weight are read at each step, and a schedule is any object with two methods.
#
# ## References
#
# - Christoph D. Hofer, Florian Graf, Marc Niethammer, Roland Kwitt. *Topologically Densified Distributions.* ICML
#   2020. arXiv 2002.04805.
# - *Topological Densification and Neural Collapse*: public write-up and code of the sliding schedule, GitHub
#   repository diningeachox/top_densification_nc.
# - Evan Markou, Thalaiyasingam Ajanthan, Stephen Gould. *Guiding Neural Collapse: Optimising Towards the Nearest
#   Simplex Equiangular Tight Frame.* NeurIPS 2024. arXiv 2411.01248.
# - Vardan Papyan, X. Y. Han, David L. Donoho. *Prevalence of neural collapse during the terminal phase of deep
#   learning training.* PNAS 2020. arXiv 2008.08186.
# - Dustin G. Mixon, Hans Parshall, Jianzong Pi. *Neural collapse with unconstrained features.* 2020. arXiv 2011.11619.
