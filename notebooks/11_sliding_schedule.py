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
# *At the end of training each class should be one point. Why not ask for that from the first step?*
#
# Because a network has a cheap way to obey: it makes *all* its features small. Pressed too early and too hard, it
# shrinks them several thousandfold, and its linear head then gives every image the same answer. The classes look
# merged, and at the end they are not: on the right scale the nearest class mean tells most training images apart
# again, after a fall to a third of them on the way. On test images it ends below an untrained network. A schedule
# that asks for little at first avoids this. So does one that simply waits, and in accuracy three seeds cannot tell
# the two apart.

# %% jupyter={"source_hidden": true}
# Imports, helpers; draw a demand made at once and slowly
import copy
import math
from dataclasses import replace
from statistics import mean, median
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from ncbook import Recipe, SameClassSampler, Trainer, densification_loss, load_dataset, plots
from ncbook.book import few_images, in_parallel, mean_gap, median_range, profile, say, table
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule

torch.set_num_threads(1)  # small networks train faster so
BETA0, P, SIZE, CLOUDS = 1.1, 1, 250, (8, 16)
DIGITS = Recipe(dataset="digits", backbone="small_cnn", clouds=CLOUDS, p=P, epochs=8, lr=0.1, weight_decay=0.01)
KEYS = ["accuracy", "nc1", "nc1_quotient", "etf_distance", "nc3"]


def small_set(name, split):
    """250 training images; of the digits, all others to test on."""
    return few_images(name, SIZE, split) if name == "digits" else load_dataset(name, train_size=SIZE, split=split)


@torch.no_grad()
def features(trainer):
    """Training and test features in float64; batch norm uses the statistics of the training images."""
    backbone = copy.deepcopy(trainer.backbone).train()
    for module in backbone.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    backbone(trainer.data.train_inputs)
    backbone.eval()
    return [torch.cat([backbone(x) for x in inputs.split(1000)]).double()
            for inputs in (trainer.data.train_inputs, trainer.data.test_inputs)]


def nearest_mean(trainer):
    """The spread of the training features, and the share of images nearest to the mean of their own class, in %."""
    (train, test), targets = features(trainer), trainer.data.train_targets
    means = torch.stack([train[targets == c].mean(0) for c in range(trainer.data.num_classes)])
    right = [100 * (torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1) == y).double().mean().item()
             for x, y in ((train, targets), (test, trainer.data.test_targets))]
    spread, norm = (x.norm(dim=1).mean().item() for x in (train - train.mean(0), train))
    return {"spread": spread, "relative spread": spread / norm, "nearest mean, train": right[0],
            "nearest mean, test": right[1]}


def fit(base, schedule, seed=0, watched=False):
    """Train once: the trainer and a row for each epoch, with more of the last, or of all watched."""
    trainer = Trainer(replace(base, schedule=schedule, seed=seed), data=small_set(base.dataset, seed))
    rows = []
    while True:
        full = watched or trainer.finished
        row = trainer.snapshot(keys=KEYS, test_keys=["accuracy"] if full else ()).row()
        rows.append(row | (nearest_mean(trainer) if full else {}))
        if trainer.finished:
            return SimpleNamespace(rows=rows, last=rows[-1], trainer=trainer)
        trainer.run_epoch()


pressed, slid = (run.rows for run in in_parallel(fit, [
    (DIGITS, schedule, 0, True) for schedule in (ConstantSchedule(0.0, 0.03), SlidingSchedule(BETA0, 0.03, DIGITS.epochs))]))
EPOCH = [row["epoch"] for row in pressed]
STYLES = {"linear head, train": ("#56B4E9", "solid"), "nearest mean, train": ("#222222", "solid"),
          "nearest mean, test": ("#222222", "dot"), "spread, too early": plots.method_style("too early")[:2],
          "spread, sliding": plots.method_style("sliding")[:2]}
keys = dict(zip(STYLES, ("train_accuracy", "nearest mean, train", "nearest mean, test")))
fig = plots.curve_panels(
    {"β = 0 from the first step: accuracy, %": {name: (EPOCH, [row[key] for row in pressed]) for name, key in keys.items()},
     "spread of the features": {name: (EPOCH, [row["spread"] for row in rows])
                                for name, rows in (("spread, too early", pressed), ("spread, sliding", slid))}},
    title="The same final demand, from the first step and slowly", styles=STYLES, x="epoch", height=370,
    subtitle="one seed; spread: mean distance of a training feature from their centre")
fig.update_yaxes(range=[0, 103], col=1)
fig.update_yaxes(type="log", dtick=1, exponentformat="power", tickfont_size=11, col=2)

# %% [markdown]
# Why care? Regularisers that ask for compact classes are many, and each has a weight and a moment. What goes wrong here
# can be measured, and looks at first sight like something else.
#
# *You will learn*
#
# - how constant, delayed and sliding schedules move the two dials of the densification loss;
# - what collapse demanded too early does to features and head, and how to see that it is not a merger;
# - which heads bear that demand, found by changing one thing at a time;
# - what the schedules do to accuracy and to the geometry, in pairs, and whether sliding beats merely waiting.
#
# ## Setup

# %% jupyter={"source_hidden": true}
# Sizes of the profiles, and the recipe
PROFILE, DATASET, BACKBONE, EPOCHS, SEEDS, WEIGHT, LARGE = profile(
    {"DATASET": "data set", "BACKBONE": "backbone", "EPOCHS": "epochs", "SEEDS": "networks per method",
     "WEIGHT": "weight λ₀ in section 4", "LARGE": "weight λ in sections 2 and 3"},
    quick=dict(DATASET="digits", BACKBONE="small_cnn", EPOCHS=2, SEEDS=2, WEIGHT=0.01, LARGE=0.03),
    book=dict(DATASET="digits", BACKBONE="small_cnn", EPOCHS=8, SEEDS=3, WEIGHT=0.01, LARGE=0.03),
    paper=dict(DATASET="mnist", BACKBONE="mnist_cnn", EPOCHS=310, SEEDS=10, WEIGHT=0.1, LARGE=0.3),
)
BASE = replace(DIGITS, dataset=DATASET, backbone=BACKBONE, epochs=EPOCHS)

# %% [markdown]
# ## 1. Two dials
#
# A step takes $b = 8$ clouds of $n = 16$ same-class draws, 128 images, and minimises cross-entropy over all of them plus
# $\lambda$ times the [densification loss](10_densification.ipynb) $\mathcal L_\beta$, the mean over clouds of
# $\sum_k |\ell_k - \beta|$, with $\ell_k$ the death times of the cloud. For any $\beta > 0$ a class that is one point
# pays $(n-1)\beta$: a constant β keeps a class from becoming a point, though it may well be tighter than without the
# loss. Only $\beta = 0$ asks for a point. The **sliding schedule** gets there slowly: in epoch $e$ of $E$,
#
# $$ \lambda(e) = \lambda_0\,\frac eE , \qquad \beta(e) = \beta_0 \sqrt{\frac{E-e}{E}} . $$

# %% jupyter={"source_hidden": true}
# Draw β and the weight under each schedule
TOO_EARLY, HALF = ConstantSchedule(0.0, LARGE), EPOCHS // 2 + 1
SCHEDULES = {"vanilla": None, "constant, β = 4": ConstantSchedule(4.0, WEIGHT), "constant, β = 1.1": ConstantSchedule(BETA0, WEIGHT),
             "constant, β = 0": ConstantSchedule(0.0, WEIGHT),
             "delayed": DelayedSchedule(0.0, WEIGHT, start=HALF), "sliding": SlidingSchedule(BETA0, WEIGHT, EPOCHS)}
shown = {name: schedule for name, schedule in SCHEDULES.items() if schedule} | {"too early": TOO_EARLY}
fig = plots.schedule_curves(shown, EPOCHS).update_traces(line_shape="hvh").update_layout(width=720)
fig.layout.annotations[1].text = "weight λ(e)"
fig.layout.title.subtitle.text = "at β = 0 lie three: constant, delayed, too early; the three constants have one weight"
fig.update_traces(line_width=5, opacity=0.45, selector=dict(name="constant, β = 4"))
fig

# %% [markdown]
# The idea comes from the public write-up *Topological densification and neural collapse*: let the classes find their
# places first, and collapse when they are apart. Beside it stand *vanilla* ($\lambda = 0$), *constant* (Hofer et al.)
# with the β at which sliding begins, with a larger one and with β = 0, *delayed*, which does nothing for half of the
# training and then asks for $\beta = 0$ at full weight, and *too early*, which asks for $\beta = 0$ from the first
# step and three times as hard.
#
# One word needs care. An **epoch** takes each image once as an *anchor* of a cloud; with its 15 companions every image
# is seen 16 times on average.

# %% jupyter={"source_hidden": true}
# Train too early; count steps and passes over the data
early = in_parallel(fit, [(BASE, TOO_EARLY, seed, seed == 0) for seed in range(SEEDS)])
steps = early[0].trainer.steps_per_epoch
say(f"With {SIZE} images an epoch is {steps} steps of {math.prod(CLOUDS)} images, {steps * math.prod(CLOUDS) / SIZE:.0f} passes "
    f"over the data; the {EPOCHS} epochs here are {EPOCHS * steps} steps. Test images: "
    f"{len(small_set(DATASET, 0).test_targets):,}.")

# %% [markdown]
# ## 2. Too early: what happens
#
# The left panel of the first picture can be misread. The linear head (blue) is at chance from beginning to end, so
# one might say that all classes have become the same point. *Predict what the nearest class mean, which knows no
# scale, makes of the same features.* It is the black lines. And a new linear head, trained on the very same features
# after they have been divided by their spread?

# %%
def new_head(trainer):
    """Test accuracy (%) of a new linear classifier on the features divided by their spread."""
    train, test = features(trainer)
    centre, spread = train.mean(0), (train - train.mean(0)).norm(dim=1).mean()
    head = LogisticRegression(max_iter=2000).fit(((train - centre) / spread).cpu(), trainer.data.train_targets.cpu())
    return 100 * head.score(((test - centre) / spread).cpu(), trainer.data.test_targets.cpu())

# %% jupyter={"source_hidden": true}
# Table: what a demand too early does to features and head
untrained = [Trainer(replace(BASE, seed=seed), data=small_set(DATASET, seed)) for seed in range(SEEDS)]
plain = in_parallel(fit, [(BASE, None, seed) for seed in range(SEEDS)])
before = [nearest_mean(trainer) for trainer in untrained]
COLUMNS = {"untrained": before, "too early": [run.last for run in early], "vanilla": [run.last for run in plain]}
heads = [[new_head(trainer) for trainer in trainers]
         for trainers in (untrained, [run.trainer for run in early], [run.trainer for run in plain])]
table([f"median (range) over {SEEDS} seeds", *COLUMNS], [
    ["spread of the features", *(median_range((row["spread"] for row in rows), ".2g") for rows in COLUMNS.values())],
    ["linear head as trained: test accuracy, %", "none",
     *(median_range((row["test_accuracy"] for row in COLUMNS[name]), ".0f") for name in ("too early", "vanilla"))],
    *([f"nearest class mean: {part} accuracy, %",
       *(median_range((row[f"nearest mean, {key}"] for row in rows), ".0f") for rows in COLUMNS.values())]
      for part, key in (("training", "train"), ("test", "test"))),
    ["new linear head on rescaled features: test accuracy, %", *(median_range(values, ".0f") for values in heads)]])
blind = [torch.linalg.svdvals(run.trainer.head.weight.detach())[0].item() * run.last["spread"] for run in early]
norms = [[float(p.detach().norm()) for part in (trainer.backbone, trainer.head) for name, p in part.named_parameters()
          if name.endswith("weight")] for trainer in (untrained[0], early[0].trainer, plain[0].trainer)]
(*shrunk, in_head), (*usual, usual_head) = ([a / b for a, b in zip(norms[0], after)] for after in norms[1:])
say(f"Largest singular value of the head's weight times the spread of the features: {median_range(blind, '.0e')}; by about "
    f"so little the logits of two images differ. Each of the {len(shrunk)} weights and gains of the backbone has shrunk, "
    f"by factors of {min(shrunk):.1f} to {max(shrunk):.1f}, the head's by {in_head:.1f}; in vanilla training those of the "
    f"backbone by {min(usual):.1f} to {max(usual):.1f} and the head's by {usual_head:.1f} (seed 0).")

# %% [markdown]
# On the training images the geometry comes back. It was squeezed on the way: in the first picture the nearest mean
# falls to about a third of the training images while the features shrink fastest. It comes back without the linear
# head, since the densification loss knows the labels too, and gathers the training images class by class on whatever
# scale there is. On test images it ends somewhat below an untrained network: *what is missing is what training should
# have added*. The write-up says that collapse too early keeps the classes from separating. Both halves of the table
# matter for that: the head is blind to the separation that there is (a new one gets 83% on test images), and the
# separation that training adds (98%) never comes. With logits that differ this little, cross-entropy stays at $\ln
# C$. Its gradient with respect to the head's weight vanishes with the features, so that weight decay makes the weight
# about four times smaller, where vanilla training makes it two to three times larger; then the gradient with respect
# to the features is small too. The features shrink far more, but each factor of the logit takes away the other's
# reason to grow. (In the backbone most of the shrinking is not due to the demand: vanilla's weights and gains shrink
# up to 3.9-fold, too.)
#
# ## 3. Why it can, and which heads bear it
#
# Does the loss push the classes into one another? It cannot. $\mathcal L_\beta$ is a mean over *same-class* clouds and
# depends on differences within a cloud alone, so its forces on each cloud [add up to zero](10_densification.ipynb):
# by itself it pulls no class mean anywhere. Only the network, whose weights all features share, carries the means
# along. For at $\beta = 0$ it is homogeneous, $\mathcal L_0(s\,h) = s\,\mathcal L_0(h)$, hence its derivative with
# respect to a common scale $s$ of all features is $\mathcal L_0 > 0$. Shrinking everything always helps, and a
# network can do it. (Most of its weights feed a batch norm, so that their own size sets no scale; that of the last
# gain and of the last layer does, and explains a part of the shrinking. Exercise 2 puts them back.) Cross-entropy
# resists only as far as larger features pay, and for an untrained network they hardly do. Here is its first batch.
# (The sign of the sum says where the first step goes and not where training ends: it is positive at a third of the
# weight, too, at which the head will learn.)

# %%
trainer = untrained[0]
inputs, targets = trainer.data.train_inputs, trainer.data.train_targets
generator = torch.Generator().manual_seed(0)
anchors = torch.randperm(len(targets), generator=generator)[: CLOUDS[0]]
batch = SameClassSampler(targets)(anchors, CLOUDS[1], generator).flatten()
h = trainer.backbone.train()(inputs[batch]).detach().requires_grad_()

tree_length = densification_loss(h.unflatten(0, CLOUDS), 0.0, P)
(tree_pull,) = torch.autograd.grad(tree_length, h)
(ce_pull,) = torch.autograd.grad(F.cross_entropy(trainer.head(h), targets[batch]), h)

# %% jupyter={"source_hidden": true}
# Table: derivatives with respect to a common scale
ce_scale, tree_scale = ((pull * h).sum().item() for pull in (ce_pull, tree_pull))
on_means = tree_pull.unflatten(0, CLOUDS).sum(1).abs().max().item()
table(["derivative with respect to a common scale of all features, at an untrained network", "value"],
      [["cross-entropy", f"{ce_scale:+.3f}"],
       *([f"λ L₀ at λ = {w:g}", f"{w * tree_scale:+.3f}"] for w in (WEIGHT, LARGE))])
say(f"Sum of the forces of L₀ on a cloud: 0 to rounding; largest entry of a single force: "
    f"{tree_pull.abs().max():.2f}.")

# %% [markdown]
# **Without a network.** In the unconstrained-features model every image has a feature vector of its own. The classes are
# left alone, and no layer can shrink them all.
#
# **With another head.** A head that divides each feature by its norm cannot be blinded by their scale. Is that enough?
# Predict which of these bear the same demand from the first step: *standard*, learned unit rows; *fixed*, a simplex ETF
# chosen before (the package's default frame); *fixed, centred*, the same with the bias $-W\bar f$ that takes away the
# mean feature; *nearest*, the [nearest simplex ETF](05_nearest_etf.ipynb), which has such a bias too.

# %% jupyter={"source_hidden": true}
# Table: free features and other heads, asked too early
FREE = dict(dataset="unconstrained", backbone="free_features", feature_dim=64, classes=10, train_size=SIZE, epochs=12)


def fit_free(schedule, seed):
    trainer = Trainer(replace(BASE, **FREE, schedule=schedule, seed=seed))
    while not trainer.finished:
        trainer.step()
    h = trainer.backbone.weight.detach()
    return trainer.snapshot(keys=KEYS).row() | {"relative spread": float((h - h.mean(0)).norm(dim=1).mean() / h.norm(dim=1).mean())}


HARDER = ConstantSchedule(0.0, 10 / 3 * LARGE)
HEADS = {"standard": dict(head="cosine"), "fixed": dict(head="fixed"), "fixed, centred": dict(head="fixed", centred=True),
         "nearest": dict(head="nearest")}
free, asked = ([fit_free(schedule, seed) for seed in range(SEEDS)] for schedule in (None, TOO_EARLY))
calls = [(replace(BASE, **head), TOO_EARLY, seed) for head in HEADS.values() for seed in range(SEEDS)]
calls += [(replace(BASE, head="nearest"), None, seed) for seed in range(SEEDS)]
*done, harder = in_parallel(lambda *call: fit(*call).last, [*calls, (replace(BASE, head="nearest"), HARDER, 0)])
*guided, guided_plain = (done[k:k + SEEDS] for k in range(0, len(done), SEEDS))
guided = dict(zip(HEADS, guided))
ROWS = [("free features, linear head, vanilla", 0.0, free), ("free features, linear head", LARGE, asked),
        ("network, linear head", LARGE, COLUMNS["too early"]),
        *((f"network, {name}", LARGE, rows) for name, rows in guided.items()),
        ("network, nearest, one seed", HARDER.weight(1), [harder])]
table([f"β = 0 from the first step, {SEEDS} seeds", "λ", "training accuracy, %", "test accuracy, %", "NC1 quotient",
       "spread over norm of h"],
      [[name, f"{weight:g}", median_range((row["train_accuracy"] for row in rows), ".0f"),
        median_range((row["test_accuracy"] for row in rows), ".0f") if "network" in name else "no test set",
        *(median_range((row[key] for row in rows), ".1g") for key in ("train_nc1_quotient", "relative spread"))]
       for name, weight, rows in ROWS])

# %% [markdown]
# Free features separate, and collapse further than without the demand. In the network, a head without a scale is not
# safe: *standard* and *fixed* get less than half of the images right in every seed, and are mostly at chance. The
# last column says how. The norm no longer helps, but the network can still make all features point in nearly one
# direction, and does in five of the six runs; the sixth ends at 46% of the training images. What turns *fixed* into a
# head that learns in every seed is the bias alone, which takes the common direction out of the logits; the nearest
# head has it too. At a weight about three times larger the nearest head fails as well (one seed). *Too early* is
# therefore not a moment but a moment and a weight, and the head moves the limit.
#
# ## 4. Is it enough to be late?
#
# Now with the linear head and at a third of that weight, λ₀ = 0.01 in this profile. Each seed has its own 250 images,
# its own initial network and its own batches, shared by all schedules. The table also has the two that end at β = 0
# with the larger weight. λ₀ and β₀ = 1.1 were chosen for *sliding*, on other splits of these digits; $\beta = 4$ is
# the constant that does best in [Reproduction](13_reproduction.ipynb). Predict the order.

# %% jupyter={"source_hidden": true}
# Train with each schedule and draw the test accuracies
TRIED = SCHEDULES | {f"delayed, λ = {LARGE:g}": DelayedSchedule(0.0, LARGE, start=HALF),
                     f"sliding, λ = {LARGE:g}": SlidingSchedule(BETA0, LARGE, EPOCHS)}
done = iter(in_parallel(fit, [(BASE, schedule, seed) for schedule in [*TRIED.values()][1:] for seed in range(SEEDS)]))
tried = {name: plain if name == "vanilla" else [next(done) for seed in range(SEEDS)] for name in TRIED}
runs = {name: tried[name] for name in SCHEDULES}
accuracy = {name: [run.last["test_accuracy"] for run in of_seed] for name, of_seed in tried.items()}
plots.slope_chart({name: accuracy[name] for name in runs}, "test accuracy, %", title=f"{SIZE} training images, six schedules")

# %% jupyter={"source_hidden": true}
# Table: differences in test accuracy within a seed
def gap(one, other):
    """The mean difference within a seed with its 95% t-interval, and how often it is positive."""
    gaps = [a - b for a, b in zip(accuracy[one], accuracy[other])]
    return [mean_gap(gaps), f"{sum(g > 0 for g in gaps)} of {len(gaps)}"]


rows = [*((name, "vanilla") for name in TRIED if name != "vanilla"), ("sliding", "delayed"), ("sliding", "constant, β = 1.1"),
        ("constant, β = 4", "constant, β = 1.1"), ("constant, β = 0", "constant, β = 1.1"), tuple(reversed([*TRIED][-2:]))]
table(["test accuracy, difference in points", "mean, 95% t-interval", "seeds with a gain"],
      [[f"{a} − {b}", *gap(a, b)] for a, b in rows])
tests, share = len(small_set(DATASET, 0).test_targets), median(accuracy["vanilla"]) / 100
say(f"The binomial standard error of one accuracy on {tests:,} images is {100 * math.sqrt(share * (1 - share) / tests):.2f} "
    "points.")

# %% [markdown]
# A demand from the first step costs the more the tighter it is: 0.6 points at β = 4, which three seeds cannot tell
# from nothing, 2.0 at β = 1.1 and 4.0 at β = 0. At this weight the linear head does learn even then; it is blinded by
# three times as much. For *delayed* and *sliding*, which end at the same β = 0, three seeds show neither a loss nor a
# gain, and no difference between the two, at λ₀ = 0.03 either: within a point or two, **being late is enough**. On
# MNIST with 250 images the write-up reports 92.53 ± 0.76% for vanilla, 94.10 ± 0.30% for constant β and 94.24 ± 0.47%
# for sliding, after 310 epochs. [Reproduction](13_reproduction.ipynb) repeats those.
#
# The geometry differs more:

# %% jupyter={"source_hidden": true}
# Draw the geometry under six schedules
plots.metric_curves({name: [run.rows for run in of_seed] for name, of_seed in runs.items()},
                    ["nc1_quotient", "nc1", "etf_distance"], title="The geometry under six schedules").update_layout(width=720)


# %% jupyter={"source_hidden": true}
# Table: the geometry at the end of training
SHOWN = ["train_nc1_quotient", "train_nc1", "train_etf_distance", "train_nc3"]
ENDS = {name: [run.last for run in of_seed] for name, of_seed in runs.items()} | {
    "nearest, vanilla": guided_plain, f"nearest, too early, λ = {LARGE:g}": guided["nearest"]}
table(["at the end, median (range)", *(plots.metric_label(key.removeprefix("train_")) for key in SHOWN)],
      [[name, *(median_range((row[key] for row in rows), ".2g") for key in SHOWN)] for name, rows in ENDS.items()])

# %% [markdown]
# Three things happen at once. **The clouds become small against the distances of the means:** the NC1 quotient falls
# under every schedule, most under *sliding*: more than under waiting for half of the training, in each of three seeds
# (another start was not tried). **NC1 falls less,** fourfold under *delayed* and *sliding*, and with a constant β of
# 4 or 0 not at all: it divides by the scatter between classes, direction by direction, so that one in which the means
# have come together counts much ([Reproduction](13_reproduction.ipynb)). **And the means get worse:** with a constant
# β of 1.1 or 0 they end two to three times *farther* from a simplex ETF than under cross-entropy alone, and NC3 rises
# under every schedule. That fits section 3: the loss has no term that would arrange the means, and a network that
# must make its clouds small shrinks whatever costs least, directions between classes included. A head can do what the
# loss does not (last two lines): the nearest one brings its means far nearer to a simplex ETF, even at a demand that
# blinds the linear head, though six times less near than without the demand (medians).
#
# ## 5. The dials in your hand
#
# A slower recipe with the sliding schedule: learning rate 0.03, 40 epochs. Start the run; while it goes, set β to 0
# and the weight to 1, wait until the accuracy falls, and take the weight back: does it recover? And after the classes
# have separated? (The lab needs a kernel; [The live lab](12_live_lab.ipynb) has pictures of one.)

# %% jupyter={"source_hidden": true}
# The lab, small: dials for β and the weight
from ncbook.live import LiveLab

LiveLab(Recipe(clouds=CLOUDS, train_size=SIZE, p=P, epochs=40, lr=0.03, schedule=SlidingSchedule(BETA0, LARGE, 40)),
        only=("beta", "densify_weight"))

# %% jupyter={"source_hidden": true}
# Checks of what the text says; those on trained networks were made with the sizes of the book profile.
assert on_means < 1e-4 * tree_pull.abs().max() and math.isclose(tree_scale, tree_length.item(), rel_tol=1e-4)
assert LARGE * tree_scale > max(-ce_scale, 0)
if PROFILE == "book":
    assert all(row["test_accuracy"] < 15 and row["nearest mean, train"] > 70 for row in COLUMNS["too early"])
    assert all(a["spread"] > 1000 * b["spread"] for a, b in zip(before, COLUMNS["too early"])) and max(blind) < 1e-2
    assert min(row["nearest mean, train"] for row in early[0].rows) < 40 and min(shrunk) > 2
    assert in_head > 4 and 1 / 3 < usual_head < 1 / 2 and max(usual) < 4
    assert all(a["train_accuracy"] > 99 and 10 * a["train_nc1_quotient"] < b["train_nc1_quotient"] for a, b in zip(asked, free))
    assert all(row["test_accuracy"] < 50 for name in ("standard", "fixed") for row in guided[name])
    assert all(row["test_accuracy"] > 90 for name in ("fixed, centred", "nearest") for row in guided[name])
    assert ROWS[-1][2][0]["test_accuracy"] < 20 and ROWS[-1][2][0]["relative spread"] < 0.01
    plain = ENDS["vanilla"]
    for name in [*SCHEDULES][1:]:
        assert all(a["train_nc1_quotient"] < b["train_nc1_quotient"] and a["train_nc3"] > b["train_nc3"]
                   for a, b in zip(ENDS[name], plain))
    assert all(a["train_etf_distance"] > 1.7 * b["train_etf_distance"] for a, b in zip(ENDS["constant, β = 1.1"], plain))
    assert all(a["train_nc1_quotient"] < b["train_nc1_quotient"] for a, b in zip(ENDS["sliding"], ENDS["delayed"]))
    assert all(a < b for a, b in zip(accuracy["constant, β = 1.1"], accuracy["vanilla"]))
    assert mean(accuracy["constant, β = 0"]) < mean(accuracy["constant, β = 1.1"]) < mean(accuracy["constant, β = 4"])
    assert all(abs(mean(accuracy[name]) - mean(accuracy["vanilla"])) < 1 for name in accuracy if "constant" not in name)

# %% [markdown]
# ## Try it
#
# **1. Which of the two slides matters?** Let only the weight slide, at $\beta = 0$ to the large weight. Predict
# whether the network goes blind.
#
# <details><summary>Solution</summary>
#
# A schedule is any object with `beta(epoch)` and `weight(epoch)`:
#
# ```python
# class WeightOnly:
#     beta = staticmethod(lambda epoch: 0.0)
#     weight = staticmethod(lambda epoch: LARGE * epoch / EPOCHS)
#
# for seed in range(SEEDS):
#     run = fit(BASE, WeightOnly(), seed)
#     print(run.last["test_accuracy"], run.last["train_nc1_quotient"], run.last["spread"])
# ```
#
# It does not, in three of three seeds: 95.8 to 97.6% on test images. Let only β slide, at the large weight from the
# first epoch on, and the network does not go blind either, in three of three seeds, but ends at 80 to 90%. So either
# slide protects it, and that of the weight costs far less accuracy.
# </details>
#
# **2. Hold a layer.** After each step, put the norm of the last layer's weight back to what it was before training. Does
# the network still go blind? And if the norms of all weights are put back?
#
# <details><summary>Solution</summary>
#
# ```python
# for names in (("13.weight",), ("0.weight", "1.weight", "4.weight", "5.weight", "8.weight", "9.weight", "13.weight")):
#     trainer = Trainer(replace(BASE, schedule=TOO_EARLY), data=small_set("digits", 0))
#     held = [p for name, p in trainer.backbone.named_parameters() if name in names]
#     norms = [p.detach().norm() for p in held]
#     while not trainer.finished:
#         trainer.step()
#         for p, norm in zip(held, norms):
#             p.data *= norm / p.norm()
#     print(trainer.snapshot(test_keys=["accuracy"]).test, nearest_mean(trainer))
# ```
#
# It does both times, in three of three seeds. The features end larger than without, but still hundreds of times smaller
# than untrained: weights of the same norm can be turned so that most of what goes in is lost. No one layer is to blame.
# </details>
#
# **3. Do they add up?** The nearest head arranges the means, the sliding schedule shrinks the clouds. Train with both at
# λ₀ = 0.01, and compare the NC1 quotient and the distance to an ETF with either alone.
#
# <details><summary>Solution</summary>
#
# ```python
# for seed in range(SEEDS):
#     for schedule in (None, SCHEDULES["sliding"]):
#         print(seed, fit(replace(BASE, head="nearest"), schedule, seed).last)
# ```
#
# Hardly. Sliding lowers the quotient of the nearest head by a third to two thirds, and leaves its distance to an ETF
# about where it was; but with the linear head the same schedule reaches a quotient two to four times lower. The classifier
# sees $\tau h/\lVert h\rVert$ and the loss sees $h$: much of what the loss asks for is met by a shorter $h$.
# </details>
#
# ## Summary
#
# - Constant β keeps classes from becoming points, $\beta = 0$ asks for it; the sliding schedule goes from one to the
#   other.
# - Asked for from the first step at λ = 0.03, all features shrink several thousandfold and the linear head goes
#   blind, in three of three seeds. At the end the nearest mean gets most of the training images: shrunk, not merged.
#   On test images it gets less than before training.
# - A head without a scale is not safe: learned unit rows and a fixed ETF fail as well. With the bias that takes away the
#   mean feature, fixed and nearest ETF learn in three of three seeds; at λ = 0.1 the nearest one fails too (one seed).
# - On 250 digits at λ₀ = 0.01 a constant β loses the more accuracy the smaller it is: less than a point at 4, two at
#   1.1, four at 0. *Delayed* and *sliding* cannot be told from vanilla or from each other with three seeds.
# - Every schedule lowers the NC1 quotient, *sliding* most, and raises NC3; none of them arranges the means.
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
# **Next:** [The live lab](12_live_lab.ipynb).
