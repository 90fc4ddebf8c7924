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
# # Start here
#
# *What does a network still learn after its last mistake?* Train a deep classifier until every training image is
# classified correctly, and then go on. The accuracy has nothing more to gain, yet the last layer keeps changing, and it
# changes towards something simple: the features of each class gather at one point, these points arrange themselves as
# symmetrically as points can, and the classifier lines up with them. Papyan, Han and Donoho (2020) named this **neural
# collapse**. Here it is with three classes in the plane, where nothing needs to be imagined. Press *Play*.

# %% jupyter={"source_hidden": true}
from ncbook import Recipe, plots, train

recipe = Recipe(dataset="gaussians", backbone="mlp", feature_dim=2, weight_decay=3e-2, lr=0.005, batch_size=100,
                epochs=150, seed=0)
shots = list(train(recipe))
plots.geometry_animation([shot for shot in shots if shot.epoch <= 10 or shot.epoch % 10 == 0],
                         class_names=["class 0", "class 1", "class 2"], title="Three classes collapse in the plane")

# %% [markdown]
# Why should one care? The scatter that disappears may be needed for another task, so collapse matters for *transfer*.
# The symmetric picture needs equally large classes, so *imbalance* breaks it. And since the end is known in advance, a
# classifier can be *prescribed* and need not be learned. Whether collapse helps generalisation is an open question, and
# this book does not pretend otherwise: it lets you watch collapse, measure it and steer it.
#
# *You will learn*
#
# - what neural collapse looks like, and which numbers measure what you see;
# - how a run is written down, run and measured in this book;
# - the notation that all chapters share;
# - what the chapters are about, and how to run them.

# %% [markdown]
# ## Setup

# %% jupyter={"source_hidden": true}
import os
import platform
from dataclasses import replace
from importlib.metadata import version

import plotly.graph_objects as go
import torch

import ncbook
from ncbook.book import median_range, profile, table
from ncbook.metrics import METRICS
from ncbook.training.data import data_folder
from ncbook.training.trainer import resolve_device

PROFILE, SEEDS = profile(quick=dict(SEEDS=2), book=dict(SEEDS=3), paper=dict(SEEDS=20))

# %% [markdown]
# If a cell fails because something is not installed, `pip install -e '.[book]'` in the project's folder puts that
# right. What is at hand on the machine that ran this page:

# %% jupyter={"source_hidden": true}
FILES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "svhn": "train_32x32.mat",
         "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
present = [name for name, file in FILES.items() if (data_folder() / file).exists()]
device = resolve_device("auto")
table(["", ""], [
    ["Python, torch, plotly", f"{platform.python_version()}, {version('torch')}, {version('plotly')}"],
    ["training runs on", torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper()],
    ["CPU cores", os.cpu_count()],
    ["data sets at hand", ", ".join(["digits (embedded)", *present])],
    ["downloaded on first use", ", ".join(name for name in FILES if name not in present) or "none left"],
], text=2)

# %% [markdown]
# ## 1. A task that no straight line solves
#
# The inputs of the run above are points in the plane, too. Each class consists of two blobs, and the outer blob of a
# class lies behind the inner blob of the next one. *Can three straight borders separate them?*

# %% jupyter={"source_hidden": true}
data = ncbook.load_dataset("gaussians")
fig = go.Figure()
for c, colour in enumerate(plots.class_colors(data.num_classes)):
    x, y = data.train_inputs[data.train_targets == c][:100].T.numpy().round(3)
    fig.add_scatter(x=x, y=y, mode="markers", name=f"class {c}", marker=dict(size=5, color=colour, opacity=0.6))
plots.finish(fig, "The inputs", "half of the 600 training points, two blobs a class", width=560, height=420,
             margin=dict(l=16, r=16, b=16, t=84))
fig.update_xaxes(range=[-2.7, 2.7], visible=False).update_yaxes(scaleanchor="x", visible=False)

# %% [markdown]
# They cannot. So a **backbone**, here a small multilayer perceptron, maps each point $x$ to a **feature** $h(x) \in
# \mathbb{R}^2$, and a **head**, a linear classifier with one weight vector $w_c$ and one bias $b_c$ for each class $c$,
# chooses the class with the largest *logit* $w_c^\top h(x) + b_c$. Both are trained together by stochastic gradient
# descent on the cross-entropy loss, with weight decay. In this book a run is a `Recipe`, and `train` yields a
# `Snapshot` of it after each epoch, that is, after each pass over the data. The run at the top is this one:

# %%
same = Recipe(dataset="gaussians", backbone="mlp", feature_dim=2, head="learned", loss="cross_entropy",
              batch_size=100, lr=0.005, weight_decay=3e-2, epochs=150, seed=0)
print(same == recipe)
for shot in shots[::50]:
    print(f"epoch {shot.epoch:3}: accuracy {shot.train['accuracy']:.3f}, NC1 {shot.train['nc1_quotient']:.4f}")

# %% [markdown]
# ## 2. After the last mistake
#
# *When does the accuracy reach 1, and what changes after that?* Guess before you look.

# %% jupyter={"source_hidden": true}
KEYS = ["accuracy", "nc1_quotient", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3"]
terminal = next(shot.epoch for shot in shots if shot.train["accuracy"] == 1)
fig = plots.metric_curves({"training set": [shots]}, KEYS, title="Accuracy, and five ways to see one collapse")
fig.add_vline(x=terminal, line=dict(color="#666666", width=1, dash="dot"))
fig.update_layout(showlegend=False, width=720, margin_b=56, height=540,
                  title_subtitle_text=f"training set; dotted: epoch {terminal}, no mistakes from here on")

# %% [markdown]
# Accuracy is perfect after a few epochs and stays so to the end: what lies to the right of the dotted line is invisible
# to it. The other five numbers are 0 in an exact collapse. At the dotted line they are still far from it, and they go
# on falling, most of them by a factor of ten or more: NC2 within some twenty epochs, after which it wanders, NC1 and NC3
# to the end. (The axes are logarithmic.)
#
#
# - **NC1, the scatter quotient,** is the spread of the features within their classes divided by the spread of the
#   **class means**, the average features of the classes. It is small when every class is nearly a point.
# - **NC2, unequal norms,** is the standard deviation of the lengths of the centred class means, divided by their
#   average; **NC2, unequal angles,** is how far the cosines between them are, on average, from $-1/2$, an angle of
#   120°. Together they say that the class means form an equilateral triangle.
# - **The distance to the nearest ETF** joins these two. The triangle is the simplest *simplex equiangular tight frame*
#   (simplex ETF): vectors of equal length at equal and largest possible angles. For four classes it is the tetrahedron,
#   and for $C$ classes its cosines are $-1/(C-1)$.
# - **NC3** compares the classifier's weights with the class means, both scaled to length 1.
#
# A fourth number, **NC4**, is the share of points for which classifier and nearest class mean disagree. Here it is 0 as
# soon as there are no mistakes. [Neural collapse](01_neural_collapse.ipynb) defines all four, on real images.
#
# ## 3. Is it this run?
#
# One run proves nothing. Here are the first snapshot and the last of several, each from its own random start.

# %% jupyter={"source_hidden": true}
def angles(shot):
    return plots.centred_cosines(shot.class_means)[[0, 1, 2], [1, 2, 0]].acos().rad2deg().tolist()


runs = [shots, *(list(train(replace(recipe, seed=seed))) for seed in range(1, SEEDS))]
first = [next(shot.epoch for shot in run if shot.train["accuracy"] == 1) for run in runs]
rows = [["smallest angle", *(median_range((min(angles(run[k])) for run in runs), ".0f") + "°" for k in (0, -1))],
        ["largest angle", *(median_range((max(angles(run[k])) for run in runs), ".0f") + "°" for k in (0, -1))],
        *([METRICS[key].label, *(median_range((run[k].train[key] for run in runs), ".2g") for k in (0, -1))]
          for key in KEYS[1:])]
table([f"median (range) of {SEEDS} runs", "before training", f"epoch {recipe.epochs}"], rows)

# %% jupyter={"source_hidden": true}
for run, epoch in zip(runs, first):
    before, after = run[0], run[-1]
    relapses = [shot.epoch for shot in run[epoch:] if shot.train["accuracy"] < 1]
    assert epoch < 20 and after.train["accuracy"] == 1 and len(relapses) <= (0 if run is shots else 3)
    assert all(after.train[key] < 0.5 * before.train[key] for key in KEYS[1:])
    assert max(abs(angle - 120) for angle in angles(after)) < (20 if PROFILE == "paper" else 5)
    assert after.train["nc4"] == 0

# %% [markdown]
# Different starts, nearly the same end. Twenty starts, in the profile `paper`, show how nearly: NC1 ends alike in all of
# them, but in a few the angles are still some ten degrees from 120° after these epochs. NC2 takes its time.
#
# ## 4. One notation
#
# | | |
# |---|---|
# | $C$, $d$ | number of classes, dimension of the features |
# | $N$, $n_c$, $y_i$ | number of samples, of samples of class $c$, class of sample $i$ |
# | $h_i \in \mathbb{R}^d$, $f_i = \tau h_i / \lVert h_i \rVert$ | feature of sample $i$; the same with norm $\tau$ |
# | $\mu_c$, $\mu_G = \frac1C \sum_c \mu_c$ | mean of the features of class $c$, mean of the class means |
# | $H = [\mu_1 - \mu_G, \dots, \mu_C - \mu_G]$, $\bar H = H / \lVert H \rVert_F$ | centred class means as columns, $(d, C)$; of Frobenius norm 1 |
# | $\Sigma_W$, $\Sigma_B$, $\Sigma_T$ | scatter within classes, between class means, total |
# | $W$, $w_c$, $b$ | classifier $(C, d)$, its rows, its bias |
# | $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, $Q$ | the matrix that subtracts a mean; its Helmert basis $(C, C-1)$, $QQ^\top = M$ |
# | $V$ | the *orientation* of an ETF: $(d, C-1)$ with orthonormal columns |
# | $W = \sqrt{C/(C-1)}\, Q V^\top$ | a simplex ETF |
# | $A = \bar H Q = U S R^\top$, $s_k$, $U R^\top$ | aligned means and their singular value decomposition, singular values, polar factor |
# | $L$, $t$, $e$ of $E$ | loss, step, epoch of all epochs |
# | $\alpha_t$, $\rho$ | share of a batch in a moving average, pull towards the previous frame |
# | $n$, $\ell_1 \le \dots \le \ell_{n-1}$ | points of a cloud, its death times |
# | $\beta$, $\lambda$ ($\beta_0$, $\lambda_0$) | target length and weight of the densification (at the start of a schedule) |
#
# In code, classes are **rows**: class means have shape `(C, d)`, as the weights of `torch.nn.Linear` do. One letter has
# a second meaning: where there is no densification, $\lambda$ is the weight decay.
#
# ## 5. The chapters
#
# | chapter | its question |
# |---|---|
# | **Neural collapse** | |
# | 00 Start here | what does a network still learn after its last mistake? |
# | [01 Neural collapse](01_neural_collapse.ipynb) | which four things happen, and why? |
# | [02 The simplex ETF](02_simplex_etf.ipynb) | how far apart can $C$ directions be? |
# | [03 Measuring collapse](03_measuring_collapse.ipynb) | which number sees what, and which can be trusted? |
# | **Towards the nearest ETF** | |
# | [04 Fixed ETF](04_fixed_etf.ipynb) | must a classifier be learned at all? |
# | [05 The nearest simplex ETF](05_nearest_etf.ipynb) | which frame fits given class means best? |
# | [06 The implicit gradient](06_implicit_gradient.ipynb) | how does one differentiate through the best frame? |
# | [07 Moving averages](07_moving_averages.ipynb) | what are the class means when a batch shows few of them? |
# | [08 Guided training](08_guided_training.ipynb) | learned, fixed, nearest: which one guides best? |
# | **Topology** | |
# | [09 Persistence](09_persistence.ipynb) | what is the shape of a cloud of features? |
# | [10 Densification](10_densification.ipynb) | how does a loss pull a class together? |
# | [11 The sliding schedule](11_sliding_schedule.ipynb) | when should it, and when is it too early? |
# | **The lab and the evidence** | |
# | [12 The live lab](12_live_lab.ipynb) | what happens if *you* move the sliders during training? |
# | [13 Reproduction](13_reproduction.ipynb) | which published numbers hold? |
# | **Yours** | |
# | [15 Your own model](15_your_own_model.ipynb) | how do the parts fit into your code? |
# | [16 Where to read on](16_where_to_read_on.ipynb) | what else is known, and what of it can be tried here? |
#
# The first four are the ground for all others. After them, 04 to 08 tell one story (a classifier that guides the
# features) and 09 to 11 another (a regulariser that shapes them).
#
# Every page can be read as it is: numbers and figures were saved with it, and animations play without a kernel. To run
# a chapter yourself, choose *Run → Run All Cells*. Folded cells hold what is not needed to follow the text: imports,
# drawing, checks. Two environment variables matter, both set before JupyterLab is started:
#
# - `NCBOOK_PROFILE` is the size of the experiments: `book`, the default, takes about a minute a chapter on a laptop
#   without a GPU, `quick` seconds, `paper` uses the published sizes and may want a GPU. Each chapter has a table of
#   what the profile changes.
# - `NCBOOK_DATA` is the folder for data sets that are downloaded on first use; left out, it is in your user's cache.
#   The default data, scikit-learn's 1,797 handwritten digits, need neither folder nor network.
#
# ## Try it
#
# **1. A hundredth of the weight decay.** Predict: will the loss be higher or lower with `weight_decay=3e-4`? And the
# distance to the triangle?
#
# <details><summary>Solution</summary>
#
# ```python
# less = list(train(replace(recipe, weight_decay=3e-4)))[-1]
# for key in ("accuracy", "loss", *KEYS[1:]):
#     print(f"{key:16} {shots[-1].train[key]:10.2g} {less.train[key]:10.2g}")
# ```
#
# The loss is much lower, and everything else is further from collapse. With the loss alone, the quickest way down is to
# let the weights grow. Weight decay puts a price on that, and among classifiers of limited size the symmetric one is
# the best. [Neural collapse](01_neural_collapse.ipynb) makes this argument exact.
#
# </details>
#
# **2. A learning rate of 0.1.** It is a usual value. Draw the accuracy. What happens after it has reached 1?
#
# <details><summary>Solution</summary>
#
# ```python
# fast = list(train(replace(recipe, lr=0.1, weight_decay=5e-3)))
# plots.metric_curves({"training set": [fast]}, ["accuracy", "loss", "nc1_quotient"])
# ```
#
# It relapses: the network forgets a class for some epochs, learns it again, and does so several times until the
# learning rate has become small. Networks with batch normalisation *and* weight decay are known for this (Lobacheva et
# al. 2021). A metric that is read off at the wrong epoch then says little, which is why this book draws the accuracy
# beside every collapse.
#
# </details>
#
# **3. Too few dimensions.** A simplex ETF of $C$ classes needs $C-1$ dimensions. What can four classes do in the plane?
# Guess the figure, then look.
#
# <details><summary>Solution</summary>
#
# ```python
# flat = list(train(replace(recipe, classes=4)))[-1]
# print(plots.centred_cosines(flat.class_means))
# print({key: round(flat.train[key], 3) for key in ("accuracy", "nc1_quotient", "etf_distance")})
# ```
#
# The classes still become points, but the points lie around a circle, roughly as a square: two cosines in each row near
# 0 and one near $-1$. No simplex ETF fits in the plane, so the distance to it cannot become small.
#
# </details>
#
# ## Summary
#
# - After the last mistake the last layer goes on changing: features gather at their class means (here NC1 falls about a
#   hundredfold), the means form a simplex ETF (all angles within a few degrees of 120°), and the weights line up with
#   them.
# - Accuracy sees none of this: it is 1 from about epoch 10 on.
# - A `Recipe` says what a run is, `train` yields its `Snapshot`s, `plots` draws them.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
# - E. Lobacheva, M. Kodryan, N. Chirkova, A. Malinin, D. Vetrov. *On the periodic behavior of neural network training
#   with batch normalization and weight decay.* NeurIPS 2021. [arXiv 2106.15739](https://arxiv.org/abs/2106.15739)
#
# **Next:** [Neural collapse](01_neural_collapse.ipynb).
