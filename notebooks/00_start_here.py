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
# classified correctly, and then go on. The training accuracy has nothing more to gain, yet the last layer keeps
# changing, and it changes towards something simple: the features of each class gather at one point, these points
# arrange themselves as symmetrically as points can, and the classifier lines up with them. Papyan, Han and Donoho
# (2020) named this **neural collapse**. Here it is for three classes in the plane, where nothing is left to the
# imagination. Press *Play*.

# %% jupyter={"source_hidden": true}
# Train on three classes and animate their collapse
from ncbook import Recipe, plots, train

recipe = Recipe(dataset="gaussians", backbone="mlp", feature_dim=2, weight_decay=3e-2, lr=0.005, batch_size=100,
                epochs=150, seed=0)
shots = list(train(recipe))
plots.geometry_animation([shot for shot in shots if shot.epoch <= 10 or shot.epoch % 10 == 0],
                         class_names=["class 0", "class 1", "class 2"], title="Three classes collapse in the plane")

# %% [markdown]
# (Diamonds are the rows of the classifier, without their mean. The slider stops at each of the first ten epochs, then
# at every tenth.) Why should one care? The scatter that disappears may be needed for another task, so collapse
# matters for *transfer*. The symmetric picture needs classes of equal size, so *imbalance* breaks it. And since the
# end is known in advance, a classifier can be *prescribed* and need not be learned. Whether collapse helps
# generalisation is an open question, and this book does not pretend otherwise: it lets you watch collapse, measure it
# and steer it.
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
# Imports and settings
import os
import platform
from dataclasses import replace
from importlib.metadata import version
from statistics import median

import plotly.graph_objects as go
import torch
from sklearn.linear_model import LogisticRegression

import ncbook
from ncbook.book import median_range, profile, say, table
from ncbook.metrics import METRICS
from ncbook.training.data import data_folder
from ncbook.training.trainer import resolve_device

PROFILE, SEEDS = profile({"SEEDS": "runs, each from its own random start"}, quick=dict(SEEDS=2), book=dict(SEEDS=3),
                         paper=dict(SEEDS=20))

# %% [markdown]
# ## 1. A task that no linear classifier solves
#
# The inputs of the run above are points in the plane, too. Each class consists of two blobs, and the outer blob of a
# class lies behind the inner blob of the next one. *Can one linear classifier tell the classes apart?*

# %% jupyter={"source_hidden": true}
# Draw the inputs and fit a linear classifier to them
data = ncbook.load_dataset("gaussians")
fig = go.Figure()
for c, colour in enumerate(plots.class_colors(data.num_classes)):
    x, y = data.train_inputs[data.train_targets == c][:100].T.numpy().round(3)
    fig.add_scatter(x=x, y=y, mode="markers", name=f"class {c}", marker=dict(size=5, color=colour, opacity=0.6))
plots.finish(fig, "The inputs", "half of the 600 training points, two blobs per class", width=400, height=400,
             margin=dict(l=16, r=16, b=16, t=104), legend=dict(orientation="h", x=0, y=1, yanchor="bottom"))
fig.update_xaxes(range=[-2.7, 2.7], visible=False).update_yaxes(scaleanchor="x", visible=False).show()
linear = LogisticRegression().fit(data.train_inputs, data.train_targets).score(data.train_inputs, data.train_targets)
say(f"Logistic regression, a linear classifier of the inputs themselves, gets {linear:.0%} of the training points "
    "right.")

# %% [markdown]
# It cannot. So a **backbone**, here a small multilayer perceptron, maps each point $x$ to a **feature** $h(x) \in
# \mathbb{R}^2$, and a **head**, a linear classifier with one weight vector $w_c$ and one bias $b_c$ for each class $c$,
# chooses the class with the largest *logit* $w_c^\top h(x) + b_c$. Both are trained together by stochastic gradient
# descent on the cross-entropy loss, with weight decay. In this book a run is a `Recipe`, and `train` yields a
# `Snapshot` of it after each epoch, that is, after each pass over the data. The run at the top is this one:

# %%
same = Recipe(dataset="gaussians", backbone="mlp", feature_dim=2, head="learned", loss="cross_entropy",
              batch_size=100, lr=0.005, weight_decay=3e-2, epochs=150, seed=0)
print(same == recipe)
for shot in shots[::50]:
    print(f"epoch {shot.epoch:3}: accuracy {shot.train['accuracy']:.0%}, NC1 quotient {shot.train['nc1_quotient']:.4f}")

# %% [markdown]
# ## 2. After the last mistake
#
# *When does the accuracy reach 100%, and what changes after that?* Guess before you look.

# %% jupyter={"source_hidden": true}
# Draw accuracy and five measures of collapse by epoch
KEYS = ["accuracy", "nc1_quotient", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3"]


def faultless(run):
    """The epoch after the last mistake; a run has a snapshot of every epoch, from 0 on."""
    return 1 + max(shot.epoch for shot in run if shot.train["accuracy"] < 1)


terminal = faultless(shots)
fig = plots.metric_curves({"training set": [shots]}, KEYS, title="Accuracy, and five ways to see one collapse")
fig.add_vline(x=terminal, line=dict(color="#666666", width=1, dash="dot"))
fig.update_layout(showlegend=False, width=720, margin_b=56, height=540,
                  title_subtitle_text=f"training set, one run; dotted: epoch {terminal}, no mistakes from here on")

# %% [markdown]
# Accuracy is perfect after a few epochs and stays so to the end: what lies to the right of the dotted line is
# invisible to it. The other five numbers are 0 in an exact collapse. At the dotted line they are still far from it,
# and they go on falling, most of them by a factor of ten or more: NC2 within some twenty epochs, after which it
# wanders, the NC1 quotient for about a hundred, NC3 to the end. (The axes are logarithmic. The learning rate decays
# to 0, so that in the end everything comes to rest.)
#
# - **The NC1 quotient** is the variance of the features within their classes divided by the variance of the **class
#   means**, the average features of the classes. It is small when every class is nearly a point.
# - **NC2, unequal norms,** is the standard deviation of the lengths of the centred class means, divided by their
#   average; **NC2, unequal angles,** is how far the cosines between them are, on average, from $-1/2$, an angle of
#   120°. Together they say that the class means form an equilateral triangle.
# - **The ETF distance** joins these two. The triangle is the simplest *simplex equiangular tight frame* (simplex ETF):
#   vectors of equal length at equal and largest possible angles. For four classes it is the tetrahedron, and for $C$
#   classes its cosines are $-1/(C-1)$. The ETF distance is the *squared* distance from the class means, centred and
#   scaled to norm 1, to the nearest simplex ETF.
# - **NC3** compares the classifier's weights with the class means, both scaled to length 1.
#
# A fourth number, **NC4**, is the share of points for which classifier and nearest class mean disagree. Here it is 0 as
# soon as there are no mistakes. [Neural collapse](01_neural_collapse.ipynb) defines all four, on real images.
#
# ## 3. Is it this run?
#
# One run proves nothing. Here are three snapshots of several runs, each from its own random start.

# %% jupyter={"source_hidden": true}
# Train more runs; table of three snapshots
def angles(shot):
    return plots.centred_cosines(shot.class_means)[[0, 1, 2], [1, 2, 0]].acos().rad2deg().tolist()


runs = [shots, *(list(train(replace(recipe, seed=seed))) for seed in range(1, SEEDS))]
stages = [[run[k] for run in runs] for k in (0, -1)]
stages.insert(1, [run[faultless(run)] for run in runs])
rows = [[f"{name} angle, degrees", *(median_range((which(angles(shot)) for shot in stage), ".0f") for stage in stages)]
        for name, which in (("smallest", min), ("largest", max))]
rows += [[METRICS[key].label, *(median_range((shot.train[key] for shot in stage), ".2g") for stage in stages)]
         for key in KEYS[1:]]
table([f"median (range) of {SEEDS} runs", "before training", "no mistakes left", f"epoch {recipe.epochs}"], rows)
after = [turn.train["nc1_quotient"] / end.train["nc1_quotient"] for turn, end in zip(stages[1], stages[2])]
say(f"From the epoch after the last mistake to the end, the NC1 quotient falls by a factor of "
    f"{median_range(after, '.0f')}.")

# %% jupyter={"source_hidden": true}
# Checks of what the text says
assert faultless(shots) < 20 and shots[-1].train["nc4"] == 0 and linear < 0.7 and median(after) > 5
for key in KEYS[1:]:
    start, turn, end = (median(shot.train[key] for shot in stage) for stage in stages)
    assert end < 0.5 * min(start, turn)
assert median(max(abs(angle - 120) for angle in angles(run[-1])) for run in runs) < 5
assert PROFILE != "book" or min(after) > 9.5 and max(after) < 45

# %% [markdown]
# Different starts, nearly the same end.
#
# ## 4. One notation
#
# You need not read this now: each line names the chapter that explains it. Come back when a letter is unfamiliar.
#
# | symbol | meaning | chapter |
# |---|---|---|
# | $C$, $d$ | number of classes, dimension of the features | 00 |
# | $N$, $n_c$, $y_i$ | number of samples, of samples of class $c$, class of sample $i$ | 01 |
# | $h_i \in \mathbb{R}^d$ | feature of sample $i$ | 00 |
# | $f_i = \tau h_i / \lVert h_i \rVert$ | feature with norm $\tau$ | 04 |
# | $\mu_c$, $\mu_G = \frac1C \sum_c \mu_c$ | mean of the features of class $c$, mean of the class means | 01 |
# | $H = [\mu_1 - \mu_G, \dots, \mu_C - \mu_G]$, $\bar H = H / \lVert H \rVert_F$ | centred class means as columns, $(d, C)$; of Frobenius norm 1 | 01, 02 |
# | $\Sigma_W$, $\Sigma_B$, $\Sigma_T$ | scatter within classes, between class means, total | 01, 03 |
# | $W$, $w_c$, $b$ | classifier $(C, d)$, its rows, its bias | 00 |
# | $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, $Q$ | the matrix that subtracts a mean; a basis of what it leaves (Helmert), $(C, C-1)$, $QQ^\top = M$ | 02 |
# | $V$ | the *orientation* of a simplex ETF: $(d, C-1)$ with orthonormal columns | 02 |
# | $W = \sqrt{C/(C-1)}\, Q V^\top$ | a simplex ETF | 02 |
# | $A = \bar H Q = U S R^\top$, $s_k$, $U R^\top$ | class means in the basis $Q$, their singular value decomposition, singular values, polar factor | 02, 05 |
# | $L$, $t$, $e$ of $E$ | loss, step, epoch of all epochs | 04 |
# | $\rho$ | pull towards the previous orientation | 05 |
# | $\alpha_t$ | share of a batch in a moving average | 07 |
# | $n$, $\ell_1 \le \dots \le \ell_{n-1}$ | points of a cloud, its death times | 09 |
# | $\beta$, $\lambda$ ($\beta_0$, $\lambda_0$) | target length and weight of the densification (at the start of a schedule) | 10, 11 |
#
# In code, classes are **rows**: class means have shape `(C, d)`, as the weights of `torch.nn.Linear` do. Some letters
# have a second meaning where no confusion is possible: $\lambda$ is the weight decay where there is no densification,
# $n$ is the size of a class in the unconstrained-features model, $W$ is a simplex ETF where the classifier is one,
# and $R$ is the triangular factor in a QR decomposition and in 04 the imbalance ratio. In 01 $s$ is a squared norm;
# in 03 $B$ is a batch size and $\delta_k$ a deviation of $s_k$; in 05 $\delta$ is the published weight of the pull,
# $B$ a matrix, and $N$ once a diagonal one. In 07 $m_t$ is the class mean of batch $t$ and $a_t$ its moving average;
# in 08 $m_c$ is the moving average of class $c$.
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
# | [16 Further reading](16_where_to_read_on.ipynb) | what else is known, and what of it can be tried here? |
#
# (Number 14 is kept for a comparison in which all methods are tuned with equal effort; its runs are under way.) The
# first four lay the ground for all the others. After them, 04 to 08 tell one story (a classifier that guides the
# features) and 09 to 11 another (a regulariser that shapes them).
#
# Every page can be read as it is: numbers and figures were saved with it, and animations play without a kernel. To
# run a chapter yourself, choose *Run → Run All Cells*. Folded cells hold what is not needed to follow the text:
# imports, drawing, checks. On a phone, wide figures, tables and formulas can be pushed sideways. Two environment
# variables matter, both set before JupyterLab is started:
#
# - `NCBOOK_PROFILE` is the size of the experiments: `book`, the default, takes about a minute per chapter on a laptop
#   without a GPU, `quick` seconds, `paper` uses the published sizes and may need a GPU. Each chapter has a table of
#   what the profile changes.
# - `NCBOOK_DATA` is the folder for data sets that are downloaded on first use; if it is not set, they go to your user
#   cache. The default data set, scikit-learn's 1,797 handwritten digits, needs neither folder nor network.
#
# If a cell fails because something is not installed, `pip install -e '.[book]'` in the project's folder puts that
# right. The machine that ran this page had:

# %% jupyter={"source_hidden": true}
# Table: the machine and the data sets at hand
FILES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "svhn": "train_32x32.mat",
         "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
present = [name for name, file in FILES.items() if (data_folder() / file).exists()]
device = resolve_device("auto")
table(["what", "here"], [
    ["Python, torch, plotly", f"{platform.python_version()}, {version('torch')}, {version('plotly')}"],
    ["training runs on", torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper()],
    ["CPU cores", os.cpu_count()],
    ["data sets at hand", ", ".join(["digits (embedded)", *present])],
    ["downloaded on first use", ", ".join(name for name in FILES if name not in present) or "none left"],
], text=2)

# %% [markdown]
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
# **2. A learning rate of 0.1.** It is a usual value. Draw the accuracy. What happens after it has reached 100%?
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
# al. 2021). A metric read off at the wrong epoch then says little, which is why this book draws the accuracy
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
# - After the last mistake the last layer goes on changing: features gather at their class means (the NC1 quotient falls
#   10- to 42-fold in the three runs of the `book` profile), the means form a simplex ETF (all angles within two degrees
#   of 120°), and the weights line up with them.
# - Accuracy sees none of this: in the first run it has been 100% since epoch 8.
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
