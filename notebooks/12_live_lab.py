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
# # The live lab
#
# *What happens to the classes if I turn this dial now?* Run the next cell. Three handwritten digits come apart, slowly
# enough to be watched, and shrink to three points at the corners of a triangle; every slider acts on the next training
# step.
#
# Averages over seeds say what usually happens. A network under one's hand suggests what depends on what: a dial that
# is moved in the middle of a run is an experiment that no table of finished runs contains.
#
# *You will learn*
#
# - how to see which part of collapse happens when;
# - what β and the weight do to a network that is training, and how to put two runs beside each other;
# - why densification that comes too early fails, and with which classifiers it need not;
# - how to script the same lab, so that what was found by hand becomes an experiment.

# %%
from ncbook.live import LiveLab

lab = LiveLab()
lab

# %% [markdown]
# It begins by itself, with ten steps per second for the first hundred, then faster. The dots are drawn at their real
# size; while they are tiny, a lens shows what is in the spot. The line *Look now* says what there is to see; what the
# lab calls unevenness is the ETF distance. The names above the picture are scenarios: a click on one sets everything
# and starts. The bars are the death times of the last step's clouds, β is where they are wanted, and the weight says
# how strongly. Three things worth doing once:
#
# 1. *Collapse*, then *Too early*, which differs in nothing but the two dials: β is 0 and the weight 1 from the first
#    step. Before you press it: what will become of the three clouds? Then choose the first run in the menu *beside*.
# 2. *By hand*: wait until training accuracy is 1, then push β to 3, and later to 0. The bars follow.
# 3. *Standard and nearest*: two networks, step by step beside each other. Which one has its class means in place first?
#
# A click on a curve goes to that moment; *Replay* plays a run again, without training anything; in *Settings* the
# data set *gaussians* lets you drag the points that are learned. A page that only shows the notebook has a picture of
# *Sliding*, early in its run, in place of the lab; everything from here on is shown either way.

# %% [markdown]
# ## Setup
#
# The sections below use the scenario *Too early*, in fewer epochs, and beside it a slide that ends at the same
# demand.

# %% jupyter={"source_hidden": true}
# Imports, settings, and helpers that run a recipe
import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from plotly.subplots import make_subplots

from ncbook import SlidingSchedule, Trainer, plots
from ncbook.book import in_parallel, median_range, profile, table
from ncbook.live import SCENARIOS

torch.set_num_threads(1)  # as the lab does: faster for a network this small
PROFILE, CLASSES, EPOCHS, SEEDS = profile(
    dict(CLASSES="digits to tell apart", EPOCHS="epochs of a run", SEEDS="networks per classifier in section 1"),
    quick=dict(CLASSES=3, EPOCHS=3, SEEDS=1), book=dict(CLASSES=3, EPOCHS=14, SEEDS=3),
    paper=dict(CLASSES=10, EPOCHS=34, SEEDS=5),
)
EARLY = replace(SCENARIOS["Too early"].recipe, classes=CLASSES, epochs=EPOCHS, device="cpu", seed=0)
RECIPES = {"Sliding": replace(EARLY, schedule=SlidingSchedule(1.1, 1.0, EPOCHS)), "Too early": EARLY}
STEPS = EPOCHS * Trainer(EARLY).steps_per_epoch
HEADS = {"linear": dict(head="learned"), "standard": dict(head="cosine"),
         "fixed": dict(head="fixed", frame="nonnegative"),
         "fixed, centred": dict(head="fixed", frame="nonnegative", centred=True), "nearest": dict(head="nearest")}


@torch.no_grad()
def seen(trainer):
    """The training features as the loss sees them, with the statistics of the batch; then the class means."""
    features = copy.deepcopy(trainer.backbone).train()(trainer.data.train_inputs)
    targets = trainer.data.train_targets
    return features, torch.stack([features[targets == c].mean(0) for c in range(trainer.data.num_classes)])


def state(trainer):
    features, means = seen(trainer)
    own = torch.cdist(features, means).argmin(1) == trainer.data.train_targets
    shot = trainer.snapshot(keys=["accuracy"], test=False)
    return {"size": (means - means.mean(0)).square().sum(1).mean().sqrt().item(), "nearest": own.float().mean().item(),
            "spread": float((features - features.mean(0)).norm() / features.norm()), "accuracy": shot.train["accuracy"],
            "bar": shot.deaths.median().item() if trainer.steps else float("nan")}


def run(recipe, moments):
    """(trainer, state) at some steps of a training run; the trainer is a copy."""
    trainer = Trainer(recipe)
    for step in range(max(moments) + 1):
        if step in moments:
            yield copy.deepcopy(trainer), state(trainer)
        if step < max(moments):
            trainer.step()


# %% [markdown]
# ## 1. Too early
#
# *β is 0 and the weight 1 from the first step on. The loss asks that all samples of a class lie at one point. What
# does the network do?* It could send each class to a point of its own. Predict which part of this it fails at, then
# look: above a run that slides to the same demand, below the run that is asked at once.

# %% jupyter={"source_hidden": true}
# Draw five moments of sliding and of too early
MOMENTS = [0, STEPS // 20, STEPS // 5, STEPS // 2, STEPS]
stills = dict(zip(RECIPES, in_parallel(lambda recipe: list(run(recipe, MOMENTS)), zip(RECIPES.values()))))
unit = stills["Sliding"][-1][1]["size"]
fig = make_subplots(2, len(MOMENTS), horizontal_spacing=0.02, vertical_spacing=0.12, subplot_titles=[
    f"step {step}" for step in MOMENTS] + [f"magnified ×{unit / each['size']:,.3g}" for _, each in stills["Too early"]])
for row, shots in enumerate(stills.values(), start=1):
    for column, (trainer, found) in enumerate(shots, start=1):
        features, means = seen(trainer)
        at = plots.simplex_coordinates(features[:150], means) * (found["size"] / unit if row == 1 else 1)
        fig.add_scatter(**plots.xyz(at), mode="markers", showlegend=False, hoverinfo="skip", row=row, col=column,
                        marker=dict(size=4, opacity=0.6, color=[plots.class_colors(CLASSES)[c] for c in
                                                                trainer.data.train_targets[:150].tolist()]))
frame = dict(range=[-2.1, 2.1], showgrid=False, showticklabels=False, ticks="", mirror=True)
fig.update_xaxes(**frame).update_yaxes(**frame)
plots.finish(fig, "The same demand in the end: slid to (above), at once (below)",
             "training features of three digits; above on one scale, below each still magnified to the same size",
             width=720, height=400, margin=dict(l=16, r=16, b=16)).show()

# %% jupyter={"source_hidden": true}
# Table: the run too early, step by step
table(["too early, step", "median bar", "size of the means", "training accuracy", "nearest to the mean of its class"],
      [[str(trainer.steps), "none" if trainer.steps == 0 else f"{found['bar']:.2g}", f"{found['size']:.2g}",
        f"{found['accuracy']:.2f}", f"{found['nearest']:.2f}"] for trainer, found in stills["Too early"]])
last = stills["Too early"][-1][1]

# %% [markdown]
# The bars are short, as demanded. But the class means have gone with them: their *size*, the root mean square of
# their distance from their centre, falls to less than a tenth of what it was, and to less than a hundredth of where
# sliding ends. On their own scale the clouds are apart: in the end every sample is nearest to the mean of its own
# class. The classifier does not use that scale.
#
# To shrink everything is the shortest way to short bars, and this loss does not say that the means shall stay where they
# are. The logits of a linear classifier differ between two samples by no more than a row's length times their distance.
#
# *Would a classifier that looks at directions alone be safe?* The learned cosine classifier (*standard*), a fixed
# non-negative frame (*fixed*), the same with a bias that takes away the mean feature (*fixed, centred*) and the
# nearest simplex ETF, which has such a bias too, all put every feature on a sphere first. Predict what becomes of
# each, then run the same plan.

# %%
ARMS = (STEPS // 5, STEPS // 2, STEPS)
recipes = [replace(RECIPES["Too early"], seed=seed, **head) for head in HEADS.values() for seed in range(SEEDS)]
done = in_parallel(lambda recipe: [found for _, found in run(recipe, ARMS)], zip(recipes))
arms = {name: done[k * SEEDS:(k + 1) * SEEDS] for k, name in enumerate(HEADS)}

# %% jupyter={"source_hidden": true}
# Table: accuracy of five classifiers, asked too early
table(["classifier", *(f"accuracy, step {step}" for step in ARMS), "spread over norm of the features"],
      [[name, *(median_range([seed[k]["accuracy"] for seed in seeds], ".2f") for k in range(3)),
        median_range([seed[-1]["spread"] for seed in seeds], ".1g")] for name, seeds in arms.items()])
linear, standard, _, fixed, nearest = ([seed[1]["accuracy"] for seed in arms[name]] for name in HEADS)
assert PROFILE != "book" or max(linear) < 0.5 and max(standard) < 0.9 < min(max(fixed), max(nearest))
assert last["bar"] < 0.05 and last["size"] < 0.1 * unit
if PROFILE == "book":
    done = {name: [seed[-1]["accuracy"] == 1 for seed in seeds] for name, seeds in arms.items()}
    early = [seed[0]["accuracy"] > 0.9 for name in ("fixed", "fixed, centred", "nearest") for seed in arms[name]]
    assert sum(done["standard"]) == 2 and sum(done["fixed"] + done["fixed, centred"] + done["nearest"]) == 7
    assert sum(early) > len(early) / 2

# %% [markdown]
# Medians over the seeds, with their ranges. A linear classifier never gets away from chance, one in three. The sphere
# helps, sooner or later: with a frame, fixed (with or without the bias) or nearest, most networks get more than nine
# in ten after a hundred steps, perhaps since each class is pulled its own way from the start, and seven of nine tell
# all three classes apart in the end; with learned rows (*standard*) two of three do. None is safe by it: a network
# can still make all features point in one common direction (the last column is then small), and some do on the way or
# to the end. (Does a run also recover while its learning rate is still high? Give `EARLY` 40 epochs.) So what comes
# too early for a classifier that has still to be found may come in time for one with a frame. The sliding schedule
# leaves the time to find it.
#
# This is one learning rate and one weight, with three digits. [The sliding schedule](11_sliding_schedule.ipynb) asks
# the question with ten, on test images and at a smaller weight. There the fixed frame is another one, not
# non-negative, and the bias decides: without it *fixed* stays near chance.
#
# ## 2. The same lab, by script
#
# *Can what was found by hand be repeated?* `reset` begins the lab anew with a recipe, whatever a hand has done
# before, and `run` takes steps here and now instead of in the background. A run is a list of frames: one for each of
# the first two hundred steps, then for every second, from 300 on for every third, and so on.

# %%
lab.reset(RECIPES["Sliding"])
lab.run(STEPS)
sliding = lab.runs[-1]
sliding

# %% [markdown]
# A lab that no hand has touched is the trainer and nothing else. The same number of steps of `Trainer` gives the same
# network, bit for bit:

# %%
ours, theirs = lab.trainer.backbone.state_dict(), stills["Sliding"][-1][0].backbone.state_dict()
assert all((ours[name] == theirs[name]).all() for name in theirs)
print(f"{len(theirs)} tensors of the backbone are equal after {STEPS} steps")

# %% [markdown]
# A cell that trains in a loop blocks the kernel, and a blocked kernel does not hear the sliders. So the lab's cell
# returns at once and leaves a thread behind that trains, and only that thread touches the network: a slider that is
# moved leaves an order, and the thread takes all orders between two steps. Training never waits for the page. An
# exception in the thread stops it, shows in the lab and stays in `lab.error`.
#
# ## 3. Keeping a run
#
# The menu *Run …* below the picture names a run, copies the code that makes its beginning, and exports it: a page
# that replays one run, or two beside each other, without Python and without a network. By script:

# %%
lab.reset(RECIPES["Too early"])
lab.run(STEPS // 5)
with tempfile.TemporaryDirectory() as folder:
    page = lab.export(Path(folder) / "sliding_against_early.html", sliding, lab.runs[-1])
    print(f"{page.name}: {page.stat().st_size / 1000:.0f} kB")
print(lab.code())

# %% jupyter={"source_hidden": true}
# Reset the lab, and check its state
lab.reset(SCENARIOS["Collapse"].recipe)
lab.run(0)
assert lab.error is None and lab.trainer.steps == 0

# %% [markdown]
# ## Try it
#
# **1. Late is not safe.** Predict, then try: press *By hand*, wait until training accuracy has been 1 for five epochs,
# then set β to 0 and the weight to 1 at once. The classes are apart by now. Is accuracy safe? Does it depend on the
# method, and why?
#
# <details><summary>Solution</summary>
#
# With *linear*, nearly: in runs of three seeds, with the switch after five epochs of accuracy 1, it fell below 0.99
# for one epoch in two of them. With *standard* and *nearest* it is not: accuracy fell in all six, to a third in four
# of them, and one was still there after 34 epochs.
#
# Why? The weight pulls each class together, and the features shrink with it; that is harmless for the linear head.
# *Standard* and *nearest* divide features by their norm, and the gradient of the loss in $h$ is the larger the smaller
# $\lVert h \rVert$ is. In all six the mean norm fell from above 2 to below 1 within ten steps, then rose to between 2
# and 9, most of it a mean that the classes have in common: they had been thrown to one side of the sphere, where they
# are close together. With the linear head it fell as well, and nothing was thrown. By script, for one seed:
#
# ```python
# trainer = Trainer(replace(SCENARIOS["By hand"].recipe, head="nearest", device="cpu"))
# trainer.controls.beta, trainer.controls.densify_weight = 1.0, 0.1
# for epoch in range(30):
#     if epoch == 7:
#         trainer.controls.beta, trainer.controls.densify_weight = 0.0, 1.0
#     trainer.run_epoch()
#     features, means = seen(trainer)
#     accuracy = trainer.snapshot(keys=["accuracy"], test=False).train["accuracy"]
#     print(epoch, accuracy, features.norm(dim=1).mean(), means.mean(0).norm())
# ```
#
# </details>
#
# **2. Drag a class.** In *Settings* choose *gaussians*, wait until the regions stand, and drag a whole blob of one class
# across another one, slowly and then fast. When does the network follow, and when does accuracy break?
#
# <details><summary>Solution</summary>
#
# The curve of accuracy tells. Dragging changes the data and nothing else; the network follows with the learning rate
# that is left, which falls to 0 by the last epoch. Late in a run, set it anew in *Settings*, and drag again.
#
# </details>
#
# **3. A schedule of your own.** Write one and give it to the lab: β that swings, say.
#
# <details><summary>Solution</summary>
#
# A schedule is any object with `beta(epoch)` and `weight(epoch)`. It appears as *own* in the menu.
#
# ```python
# import math
#
# class Swinging:
#     def beta(self, epoch):
#         return 1 + math.sin(epoch)
#
#     def weight(self, epoch):
#         return 0.1
#
# lab = LiveLab(replace(RECIPES["Sliding"], schedule=Swinging()))
# lab
# ```
#
# </details>
#
# ## Summary
#
# - The lab shows collapse step by step, plays it again, and lets a hand act on the next step; what a hand did is
#   recorded with the run and can be written down as code.
# - β = 0 with weight 1 from the first step shrinks the whole constellation, to means more than a hundred times closer
#   together than where a slide to the same demand ends (one seed), and a linear classifier is at chance at each of
#   the three moments looked at, the last after 490 steps (three seeds of three).
# - On the sphere most classifiers get out of it: after 490 steps two of three with learned rows and seven of nine
#   with a frame, fixed or nearest, tell all digits apart.
# - By script the lab is the trainer, bit for bit.
#
# ## References
#
# - C. Hofer, F. Graf, M. Niethammer, R. Kwitt. *Topologically densified distributions.* ICML 2020.
#   [arXiv 2002.04805](https://arxiv.org/abs/2002.04805)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
#
# **Next:** [Reproduction](13_reproduction.ipynb).
