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
# So far every experiment ran to its end before there was anything to see. Here training runs while you look, and while
# you turn the dials: the class means move in the picture as they move in the network, and a slider that you push acts
# on the very next training step. The lab is for questions that begin with *what happens if*: what if β is pulled to
# zero now, what if the weight is ten times as large for a moment, what if the classifier were not an ETF. Every run is
# recorded, so that you can go back to the moment when it went wrong and put two runs side by side.
#
# ![The live lab in JupyterLab, training on three digits](live_lab.png)
#
# *You will learn*
#
# - to read the linked pictures of a collapse: geometry, metrics, barcode, cosines;
# - to take β and the weight over by hand while a network trains, and to give them back to the schedule;
# - to replay a run, to compare two at the same epoch, and to keep one as a file that plays without Python;
# - how sliders can be live in a notebook at all, and what can go wrong there;
# - to script the same lab, step by step and reproducibly.

# %% [markdown]
# ## Setup

# %%
import tempfile
from pathlib import Path

import torch

from ncbook import Recipe, SlidingSchedule, Trainer
from ncbook.book import profile, show_code, table
from ncbook.live import LiveLab

torch.set_num_threads(1)  # as the lab does: faster for a network this small
# STEPS: training steps of the runs that are scripted below
PROFILE, CLASSES, EPOCHS, STEPS = profile(
    quick=dict(CLASSES=3, EPOCHS=40, STEPS=120), book=dict(CLASSES=3, EPOCHS=40, STEPS=160),
    paper=dict(CLASSES=10, EPOCHS=310, STEPS=2000),
)
BETA, WEIGHT = 1.1, 0.1

RECIPE = Recipe(
    dataset="digits", classes=CLASSES, head="nearest", clouds=(8, 16), epochs=EPOCHS, lr=0.05, seed=0,
    schedule=SlidingSchedule(BETA, WEIGHT, EPOCHS),
)

# %% [markdown]
# ## The lab
#
# The next cell builds it and shows it. It needs a running kernel, so in a page that only shows the notebook you will
# find one line of text in its place; everything after it is shown either way.

# %%
lab = LiveLab(RECIPE)
lab

# %% [markdown]
# Press *Start*. Then look, from left to right:
#
# - **Geometry.** The class means (dots) with a sample of their features, in coordinates in which the nearest simplex
#   ETF stands still (chapter 02): three classes in their plane, four in their space, more in a projection in which the
#   ETF is a regular polygon. The open diamonds are the rows of the classifier. Collapse is when dot, diamond and vertex
#   meet and the cloud is gone.
# - **Metrics.** NC1, the two halves of NC2, NC3 and the distance to the ETF fall on a log axis; the shares beside them
#   are the accuracies and NC4. Live values are taken on a fixed sample of about 200 training samples, and on about
#   200 test samples, which is what makes many pictures a second possible. They are not the values of chapter 01 to the
#   last digit.
# - **Barcode.** The death times of the clouds of the last training step (chapter 09), shortest at the bottom, with β as
#   the dashed line. Blue bars are shorter than β and are pushed up to it, orange ones are longer and are pulled down.
# - **Cosines** between the centred class means. White is the ideal, $-1/(C-1)$ for $C$ classes.
# - **Schedule.** The planned β and weight over the epochs as dashed lines, and where they are now as dots.
#
# While a schedule leads, the β and weight sliders move with it. Touch one of them (drag it, or give it the focus and
# press an arrow key) and both are yours; *Follow schedule* gives them back. Learning rate, norm and the schedule itself
# also change under way. Another data set, number of classes, method or number of epochs begins a new run.
#
# Three things worth doing once:
#
# 1. Start, wait until the shares reach 1, and push the weight to its right end with β near 0. The bars shrink at once.
#    Now push β up again: the clouds open.
# 2. *Reset*, set β to 0 and the weight to 1 **before** you press *Start*, and see what becomes of the three classes.
# 3. Set the speed to one step a second and watch a single step change every panel.

# %% [markdown]
# ## What makes a slider live
#
# A cell that trains in a loop blocks the kernel, and a blocked kernel does not hear the sliders. So the cell above
# returns at once and leaves a thread behind that trains. Three rules keep that thread out of trouble.
#
# *One writer.* Only the thread touches network and figure. A slider that you move leaves an order; the thread takes all
# orders between two steps, so that a step never sees half a change.
#
# *No faster than the page.* A browser needs longer for a picture than the network for a step. The page therefore says
# a few times a second how many frames it has drawn, and when it is more than a few behind, the next one is held back.
# Training does not wait, just the pictures do; without this, messages would pile up in the page and a slider would
# answer seconds late.
#
# *Errors in sight.* An exception in a thread is easily lost. The lab keeps it in `lab.error` and shows it in the status
# line; the controls stay usable and *Reset* starts anew.
#
# This is what the thread does over and over, first the orders, then one turn:

# %%
show_code(LiveLab._turn)

# %% [markdown]
# A new lab closes the one before it, so a cell that is run again leaves one thread and not two. Closing the notebook's
# kernel ends it; if only the page is closed, the thread notices that nobody draws and pauses after a minute.

# %% [markdown]
# ## The same lab, by script
#
# What a hand does can also be written down: `set` moves controls, `run` takes steps here and now instead of in the
# background. First the plan of chapter 11, β and weight sliding.

# %%
lab.run(STEPS)
sliding = lab.runs[-1]
sliding.label, sliding.frames[-1].step

# %% [markdown]
# An untouched lab is the trainer and nothing else. The same number of steps of `Trainer` gives the same network, bit by
# bit:

# %%
trainer = Trainer(RECIPE)
for _ in range(STEPS):
    trainer.step()
ours, theirs = lab.trainer.backbone.state_dict(), trainer.backbone.state_dict()
assert all((ours[name] == theirs[name]).all() for name in theirs)
print(f"{len(theirs)} tensors of the backbone are equal after {STEPS} steps")

# %% [markdown]
# Now the impatient plan: collapse at once. β is 0 and the weight is 1 from the first step on.

# %%
lab.set(schedule="constant", beta0=0.0, weight0=1.0)
lab.reset()
lab.run(STEPS)
early = lab.runs[-1]
early.label, early.frames[-1].step

# %%
table(["run", "training accuracy", "test accuracy", "longest bar", "distance to the ETF"],
      [[run.label, last.metrics["accuracy"], last.metrics["test_accuracy"], f"{last.deaths[-1]:.3g}",
        last.metrics["etf_distance"]] for run in (sliding, early) for last in run.frames[-1:]])
chance = 1 / CLASSES
assert sliding.frames[-1].metrics["accuracy"] > 0.9
assert early.frames[-1].metrics["accuracy"] < chance + 0.2
assert early.frames[-1].deaths[-1] < sliding.frames[-1].deaths[-1]

# %% [markdown]
# The impatient run did what it was told: its bars are short. But the network is one function for all samples, and the
# quickest way to make every class small is to make everything small, before the classes have come apart. Accuracy stays
# near chance. Play the two side by side; both always show the same epoch.

# %%
fig = lab.figure(sliding, early)
fig

# %% [markdown]
# The coordinates of each geometry are scaled to its class means. On the right they have lost their meaning: when all
# features nearly coincide, the picture shows what is left, magnified. In the lab itself you get the same view from the
# menus *replay* and *beside*, and the frame slider moves through both runs.
#
# ## Keep a run
#
# *Export* writes what is in view to `live_lab.html`, one file with everything in it that animates in any browser, with
# no kernel and no network. By script:

# %%
with tempfile.TemporaryDirectory() as folder:
    page = lab.export(Path(folder) / "sliding_against_early.html", sliding, early)
    size, text = page.stat().st_size, page.read_text(encoding="utf-8")
assert "addFrames" in text and "<script src" not in text
print(f"{page.name}: {size / 1e6:.1f} MB, nearly all of it plotly.js")

# %% [markdown]
# A recorded frame holds what is drawn and not the network, some kilobytes. A run keeps at most 600: when they are full,
# every second one goes and from then on half as many are kept, so that a run of any length is covered evenly. The lab
# keeps eight runs.
#
# ## By hand, by script
#
# Taking over and giving back, as the sliders do it:

# %%
lab.set(schedule="sliding", beta0=BETA, weight0=WEIGHT)
lab.reset()
lab.run(10)
assert not lab.trainer.controls.manual
lab.set(beta=2.0)
lab.run(10)
by_hand = lab.trainer.controls.beta
lab.follow()
lab.run(10)
followed = lab.trainer.controls.beta
print(f"β by hand {by_hand:g}, back on the schedule {followed:.3f}")
assert by_hand == 2.0 and abs(followed - RECIPE.schedule.beta(1)) < 1e-12

# %% [markdown]
# Last, what every scripted part of a live chapter must end with: a thread's exception does not stop a notebook, so
# somebody has to ask. Before it, the lab above is set back to step 0, ready for your hand.

# %%
lab.reset()
lab.run(0)
assert lab.error is None and lab.trainer.steps == 0

# %% [markdown]
# ## Try it
#
# 1. With method *standard* and schedule *by hand*, find the weight at β = 0 from which on three digits no longer
#    separate when it is there from the start. Is it the same when you apply it after ten epochs?
#
# <details><summary>Solution</summary>
#
# From the start, a few hundredths can be enough to slow separation and a weight of 1 prevents it. After ten epochs the
# classes are apart, and each cloud has a mean of its own to shrink to: the same weight then leaves the accuracy where it
# is and takes NC1 down. The order of events matters, which is why the sliding schedule begins with a small weight.
#
# </details>
#
# 2. Compare *standard* with *nearest* in the menus *replay* and *beside*. Which of NC1, NC2, NC3 differs most in the
#    first epochs, and why must it?
#
# <details><summary>Solution</summary>
#
# NC3, the distance between classifier and class means. The nearest-ETF head computes its rows from the averages of the
# means, so the two are close from the first steps; a learned classifier has to find its way there.
#
# </details>
#
# 3. Write a schedule of your own and give it to the lab: β that swings, say.
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
# lab = LiveLab(replace(RECIPE, schedule=Swinging()))
# lab
# ```
#
# </details>
#
# ## Summary
#
# - The lab trains in a thread, draws what the thread records, and applies what the sliders say between two steps.
# - Geometry, metrics, barcode and cosines show one and the same step; colours mean the same classes throughout.
# - Collapse that is demanded before the classes have separated keeps them from separating: short bars, chance accuracy.
# - Runs are recorded within a fixed bound, can be replayed and compared at the same epoch, and exported to one file.
# - The same object runs by script, reproduces the trainer bit by bit, and says in `error` what went wrong.
#
# ## References
#
# - C. Hofer, F. Graf, M. Niethammer, R. Kwitt. *Topologically Densified Distributions.* ICML 2020, arXiv 2002.04805.
# - E. Markou, T. Ajanthan, S. Gould. *Guiding Neural Collapse: Optimising Towards the Nearest Simplex Equiangular Tight
#   Frame.* NeurIPS 2024, arXiv 2411.01248.
# - V. Papyan, X. Y. Han, D. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning training.*
#   PNAS 117(40), 2020, arXiv 2008.08186.
