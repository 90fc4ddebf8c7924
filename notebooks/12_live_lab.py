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
# step. A loss that asks for this too early prevents it: the chapter ends with why.
#
# ![The live lab: digits on their way to the simplex ETF, curves, the bars of the clouds, and the samples at the edge of each class](live_lab.png)
#
# Averages over seeds say what usually happens. A network under one's hand says what depends on what: a dial that is
# moved in the middle of a run is an experiment that no table of finished runs contains.
#
# *You will learn*
#
# - to see collapse happen, and to say at which moment which of its parts does;
# - to move β and the weight while a network trains, to replay a run and to put two beside each other;
# - why densification that comes too early fails, and with which classifier it does not;
# - to script the same lab, so that what was found by hand becomes an experiment.

# %%
from ncbook.live import LiveLab

lab = LiveLab()
lab

# %% [markdown]
# It begins by itself, with ten steps a second for the first hundred, then faster. The line *Look now* says what there
# is to see. The names above the picture are beginnings that show one thing each: a click on one sets everything and
# starts. The bars are the death times of the last step's clouds, β is where they are wanted, and the weight says how
# strongly. Three things worth doing once:
#
# 1. *Collapse*, then *Too early*, which differs in nothing but the two dials: β is 0 and the weight 1 from the first
#    step. Before you press it: what will become of the three clouds? Then choose the first run in the menu *beside*.
# 2. *By hand*: wait until training accuracy is 1, then push β to 3, and later to 0. The bars follow.
# 3. *Standard and nearest*: two networks, step by step beside each other. Which one has its class means in place first?
#
# A click on a curve goes to that moment; *Replay* plays a run again, without training anything; in *Settings* the data
# set *gaussians* lets you drag the points that are learned. In a page that only shows the notebook the cell above has
# left one line of text; everything from here on is shown either way.

# %% [markdown]
# ## Setup
#
# The sections below drive the same lab by script: `reset` begins anew with a recipe, whatever a hand has done before.

# %% jupyter={"source_hidden": true}
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from ncbook import Trainer
from ncbook.book import median_range, profile, show_code, table
from ncbook.heads import HEADS
from ncbook.live import SCENARIOS, Facts

torch.set_num_threads(1)  # as the lab does: faster for a network this small
# STEPS: training steps of the runs that are scripted below; CLASSES: of digits; SEEDS: of section 2
PROFILE, CLASSES, STEPS, SEEDS = profile(
    quick=dict(CLASSES=3, STEPS=120, SEEDS=1), book=dict(CLASSES=3, STEPS=600, SEEDS=3),
    paper=dict(CLASSES=10, STEPS=4000, SEEDS=5),
)
RECIPES = {name: replace(SCENARIOS[name].recipe, classes=CLASSES, device="cpu", seed=0)
           for name in ("Sliding", "Too early")}

# %% [markdown]
# ## 1. The same lab, by script
#
# `run` takes steps here and now instead of in the background. A run is a list of frames, one for each of the first
# hundred steps and then for each per cent by which the run has grown.

# %%
lab.reset(RECIPES["Sliding"])
lab.run(STEPS)
sliding = lab.runs[-1]
sliding

# %% [markdown]
# An untouched lab is the trainer and nothing else. The same number of steps of `Trainer` gives the same network, bit by
# bit:

# %%
trainer = Trainer(RECIPES["Sliding"])
for _ in range(STEPS):
    trainer.step()
ours, theirs = lab.trainer.backbone.state_dict(), trainer.backbone.state_dict()
assert all((ours[name] == theirs[name]).all() for name in theirs)
print(f"{len(theirs)} tensors of the backbone are equal after {STEPS} steps")

# %% [markdown]
# ## 2. Too early
#
# *β is 0 and the weight 1 from the first step on, under a learned linear classifier. The loss asks that all samples of
# a class lie at one point. What does the network do?* It could send each class to a point of its own. Predict which
# part of this it fails at, then look at the numbers.

# %%
lab.reset(RECIPES["Too early"])
lab.run(STEPS)
early = lab.runs[-1]

# %% jupyter={"source_hidden": true}
wanted = [min(early.frames, key=lambda frame: abs(frame.step - step)) for step in (1, 10, 30, 100, STEPS)]
table(["step", "longest bar", "size of the means", "training accuracy", "nearest to its own mean"],
      [[str(frame.step), float(frame.deaths[-1]), frame.facts.size, frame.facts.accuracy, frame.facts.nearest]
       for frame in wanted])
last = early.frames[-1]
assert last.facts.accuracy < 0.5 < last.facts.nearest and last.facts.size < 0.1 * sliding.frames[-1].facts.size

# %% [markdown]
# The bars are short, as demanded. But the means of the classes have gone with them: *size*, the root mean square of
# their distance from their centre, falls as well, until all that the network says about a digit lies within some
# hundredths of a unit. It is not noise: far more samples than a third are nearest to the mean of their own class. The classes are
# told apart at a scale that the classifier does not use, and accuracy stays at chance.
#
# To shrink everything is the shortest way to short bars, and this loss does not say that the means shall stay where they
# are. A linear classifier lives from their distances: its logits differ between two samples by no more than a row's
# length times how far the two lie apart.
#
# *Would a classifier that looks at directions alone be safe?* The learned cosine classifier (*standard*) and the nearest
# simplex ETF both put every feature on a sphere first. Predict what becomes of each, then run the same plan.

# %%
MOMENTS, arms = (STEPS // 6, STEPS // 2, STEPS), {}
for head in ("learned", "cosine", "nearest"):
    trainers = [Trainer(replace(RECIPES["Too early"], head=head, seed=seed)) for seed in range(SEEDS)]
    rows = []
    for trainer in trainers:
        for step in range(1, STEPS + 1):
            trainer.step()
            if step in MOMENTS:
                rows.append((step, Facts.of(trainer.snapshot(keys=["accuracy"], test=False))))
    arms[HEADS[head].method] = rows

# %% jupyter={"source_hidden": true}
def over_seeds(rows, moment, key):
    return [getattr(facts, key) for step, facts in rows if step == moment]


table(["classifier", *(f"accuracy, step {step}" for step in MOMENTS), "size of the means", "nearest to its own mean"],
      [[name, *(median_range(over_seeds(rows, step, "accuracy"), ".2f") for step in MOMENTS),
        median_range(over_seeds(rows, STEPS, "size"), ".2g"),
        median_range(over_seeds(rows, STEPS, "nearest"), ".2f")] for name, rows in arms.items()])
linear, standard, nearest = (median(over_seeds(rows, STEPS, "accuracy")) for rows in arms.values())
if PROFILE == "book":
    assert linear < 0.5 and standard < 0.9 < nearest

# %% [markdown]
# Median over the seeds, with range. A sphere is half a shelter: *standard* ends at chance, at two thirds (two classes are
# not told apart) or at 1, as the seed has it. And yet the plan is not impossible, for the nearest ETF gets through in most
# seeds, if unsteadily, on the same sphere and with the same weight. Where the other two have to learn rows from features
# that hardly differ, it computes them anew at each step from the class means, as far apart as ever, however close together
# the means lie; each class is pulled its own way from the start.
# What comes too early for a classifier that has still to be found need not be too early for one that is
# given. The sliding schedule leaves the time to find it. (One learning rate, one weight, few steps; chapter 11 asks the
# question of test accuracy.)
#
# ## 3. What makes a slider live
#
# A cell that trains in a loop blocks the kernel, and a blocked kernel does not hear the sliders. So the lab's cell
# returns at once and leaves a thread behind that trains. Three rules keep it out of trouble.
#
# *One writer.* Only the thread touches the network. A slider that you move leaves an order; the thread takes all orders
# between two steps, so that a step never sees half a change.
#
# *No faster than the page.* The page says a few times a second which picture it has drawn, and when it is more than a
# few behind, the next one is held back. Neither training nor recording waits for it.
#
# *Errors in sight.* An exception in a thread is easily lost. The lab keeps it in `lab.error` and shows it; the controls
# stay usable, and *Reset* starts anew.
#
# This is what the thread does over and over:

# %%
show_code(LiveLab._turn)

# %% [markdown]
# ## 4. Keeping a run
#
# *Run …* below the picture names a run, copies the code that makes its beginning, and exports it: a page that replays
# one run, or two beside each other, without Python and without a network. By script:

# %%
with tempfile.TemporaryDirectory() as folder:
    page = lab.export(Path(folder) / "sliding_against_early.html", sliding, early)
    print(f"{page.name}: {page.stat().st_size / 1000:.0f} kB")
print(lab.code())

# %% [markdown]
# Last, what every scripted part of a live chapter must end with: a thread's exception does not stop a notebook, so
# somebody has to ask. The lab above is back at its beginning, ready for your hand.

# %%
lab.reset(SCENARIOS["Collapse"].recipe)
lab.run(0)
assert lab.error is None and lab.trainer.steps == 0

# %% [markdown]
# ## Try it
#
# **1.** Predict, then try: press *By hand*, wait until training accuracy has been 1 for ten epochs, then set β to 0 and
# the weight to 1 at once. The classes are apart by now. Is accuracy safe?
#
# <details><summary>Solution</summary>
#
# Nearly: the same shrinking begins, but the classes are apart and stay apart. The classifier, which was made for the old
# scale, may be wrong for some dozen steps until it has followed, although nearly every sample stays nearest to the mean of
# its own class. The curve of accuracy and the scale bar show it; replay the steps after the change. Then try *nearest*.
#
# </details>
#
# **2.** In *Settings* choose *gaussians*, wait until the regions stand, and drag a whole blob of one class across
# another one, slowly and then fast. When does the network follow, and when does accuracy break?
#
# <details><summary>Solution</summary>
#
# The curve of accuracy tells. Dragging changes the data and nothing else; the network follows with the learning rate
# that is left, which falls to 0 by the last epoch. Late in a run, set it anew in *Settings*, and drag again.
#
# </details>
#
# **3.** Write a schedule of your own and give it to the lab: β that swings, say.
#
# <details><summary>Solution</summary>
#
# A schedule is any object with `beta(epoch)` and `weight(epoch)`. It appears as *own* in the menu.
#
# ```python
# import math
# from dataclasses import replace
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
# - Training accuracy reaches 1 first, then the clouds shrink while the means turn into the simplex ETF; the lab shows
#   each step of it and plays it again.
# - β = 0 with a large weight from the start shrinks the whole constellation. A linear classifier then stays at chance,
#   although most samples are still nearest to the mean of their own class; the nearest ETF gets through in most seeds.
# - What a hand does acts on the next step, is recorded with the run, and can be written down as code.
# - By script the lab is the trainer, bit by bit, and says in `error` what went wrong.
#
# ## References
#
# - C. Hofer, F. Graf, M. Niethammer, R. Kwitt. *Topologically Densified Distributions.* ICML 2020.
#   [arXiv 2002.04805](https://arxiv.org/abs/2002.04805)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding Neural Collapse: Optimising Towards the Nearest Simplex Equiangular Tight
#   Frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - V. Papyan, X. Y. Han, D. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
#
# **Next:** [Reproduction](13_reproduction.ipynb).
