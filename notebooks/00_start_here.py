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
# Train a deep network until it makes no more mistakes on its training set, and then go on training. Nothing seems to be
# left to learn, yet the last layer keeps changing, and it changes towards something simple: the features of each class
# gather at one point, these points arrange themselves as symmetrically as points can, and the classifier lines up with
# them. Papyan, Han and Donoho (2020) named this **neural collapse**. ncbook is a book of notebooks in which you watch
# it happen, measure it, and steer it.
#
# This page says what is in the book and how to run it, checks your environment, and then lets three classes collapse in
# the plane, where nothing has to be imagined. That takes less than a minute.
#
# *You will learn*
#
# - what each chapter is about and in which order to read them;
# - how to run a chapter in seconds, in minutes, or at the published size;
# - what neural collapse looks like when the features have just two dimensions;
# - which numbers of the coming chapters measure what you see.
#
# ## The chapters
#
# | chapter | what it is about |
# |---|---|
# | **00 Start here** | this page |
# | [01 Neural collapse](01_neural_collapse.ipynb) | what happens after the last error, and its metrics |
# | [02 Simplex ETF](02_simplex_etf.ipynb) | the shape that the class means fall into |
# | [04 Fixed ETF](04_fixed_etf.ipynb) | a classifier that is such a frame from the start |
# | [05 Nearest ETF](05_nearest_etf.ipynb) | the nearest such frame: a Riemannian problem and its closed form |
# | [07 Moving averages](07_moving_averages.ipynb) | class means that outlive a batch |
# | [08 Guided training](08_guided_training.ipynb) | learned, fixed and nearest classifiers side by side |
# | [09 Persistence](09_persistence.ipynb) | the topology of a cloud of features, and the densification loss |
# | [11 Sliding schedule](11_sliding_schedule.ipynb) | when to densify a class, and when it is too early |
# | [12 Live lab](12_live_lab.ipynb) | sliders that change a run while you watch it |
#
# Chapters 01 and 02 are the ground for all others. After them, 04 to 08 tell one story (a classifier that guides the
# features) and 09 to 11 another (a regulariser that shapes them); 12 is for playing with both.
#
# ## How to read
#
# Every page can be read as it is: numbers and figures were saved with it. In JupyterLab a saved figure becomes
# interactive when the pointer moves onto it, and animations then play without a kernel. To run a chapter yourself,
# choose *Run → Run All Cells*. Two environment variables matter, both set before JupyterLab is started:
#
# - `NCBOOK_PROFILE` is the size of the experiments. `book`, the default, takes at most about two minutes a chapter on a
#   laptop without a GPU. `quick` takes seconds, for a first look and for the tests; some effects are then only half
#   visible. `paper` uses the published sizes and wants a GPU. Each chapter's first code cell has a table of what the
#   profile changes.
# - `NCBOOK_DATA` is the folder for data sets that are downloaded on first use (MNIST, SVHN, CIFAR-10 and others); left
#   out, it is in your user's cache. The default data, scikit-learn's 1,797 handwritten digits, need neither folder nor
#   network.
#
# The code that chapters share is the package `ncbook`, thin enough to read. When a chapter introduces a piece of it, it
# shows the source as it is in the package. Exercises stand at the end of each chapter with their solutions folded away.
#
# ## Is everything there?
#
# If the next cell fails, something is not installed: `pip install -e '.[book]'` in the project's folder puts that
# right.

# %%
import os
import platform
from importlib.metadata import version

import plotly.graph_objects as go
import torch

import ncbook
from ncbook import plots
from ncbook.book import profile, table
from ncbook.training.data import data_folder
from ncbook.training.trainer import resolve_device

PROFILE, EPOCHS = profile(quick=dict(EPOCHS=30), book=dict(EPOCHS=60), paper=dict(EPOCHS=300))
SEED = 0

# %%
FILES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "svhn": "train_32x32.mat",
         "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
present = [name for name, file in FILES.items() if (data_folder() / file).exists()]
device = resolve_device("auto")
checks = {
    "Python": platform.python_version(),
    "torch": version("torch"),
    "torchvision": version("torchvision"),
    "plotly": version("plotly"),
    "training runs on": torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper(),
    "CPU cores": os.cpu_count(),
    "data sets at hand": ", ".join(["digits (embedded)", *present]),
    "downloaded on first use": ", ".join(name for name in FILES if name not in present) or "none left",
}
table(["", ""], checks.items(), text=2)

# %% [markdown]
# ## A collapse in the plane
#
# *What does a network do to its classes?* To see it without any projection we need inputs and features that both live
# in the plane. The inputs are three classes of points. Each class consists of two blobs, and the outer blob of a class
# lies behind the inner blob of the next one, so no linear classifier can tell the classes apart.

# %%
dataset = ncbook.load_dataset("gaussians")
shown = torch.arange(0, len(dataset.train_targets), 3)
points, labels = dataset.train_inputs[shown], dataset.train_targets[shown]
colours = plots.class_colors(dataset.num_classes)

fig = go.Figure()
for c, colour in enumerate(colours):
    x, y = points[labels == c].T.numpy().round(3)
    fig.add_scatter(x=x, y=y, mode="markers", name=f"class {c}", marker=dict(size=6, color=colour, opacity=0.6))
plots.finish(fig, "The inputs: three classes of points",
             f"{len(points)} of {len(dataset.train_targets)} training points, two blobs a class", width=620, height=480)
fig.update_xaxes(title="input 1", range=[-2.8, 2.8])
fig.update_yaxes(title="input 2", scaleanchor="x")
fig

# %% [markdown]
# A small multilayer perceptron maps each point $x$ to a feature $h(x) \in \mathbb{R}^2$, and a linear classifier with
# one weight vector $w_c$ and one bias $b_c$ for each class $c$ decides for the class with the largest $w_c^\top h(x) +
# b_c$. Both are trained together by stochastic gradient descent on the cross-entropy loss, with weight decay. In this
# book such a run is a `Recipe`, and `train` yields a `Snapshot` of it after each epoch:

# %%
recipe = ncbook.Recipe(dataset="gaussians", backbone="mlp", feature_dim=2, weight_decay=5e-3, epochs=EPOCHS, seed=SEED)
shots = list(ncbook.train(recipe, data=dataset))
start, end = shots[0], shots[-1]
print(f"{len(shots)} snapshots, from epoch {start.epoch} to epoch {end.epoch}")
print(f"training accuracy {start.train['accuracy']:.3f} -> {end.train['accuracy']:.3f}, "
      f"test accuracy {start.test['accuracy']:.3f} -> {end.test['accuracy']:.3f}")
assert end.train["accuracy"] > 0.99 and end.test["accuracy"] > 0.97

# %% [markdown]
# *And where are the features?* Move the pointer onto the figure and press Play. Each faint dot is the feature of a
# training point, each large dot is a **class mean**, the average feature of a class, and the open diamonds are the
# three weight vectors of the classifier, brought to a common scale with the means. The picture is centred on the mean
# of the class means. It turns with the features and is scaled with the class means, so that only the *shape* is left to
# change.

# %%
fig = plots.geometry_animation(shots, class_names=["class 0", "class 1", "class 2"],
                               title="Three classes collapse in the plane")
fig

# %% [markdown]
# Before training, the features lie about with no regard to class. Then they separate, and from there on three things
# happen at once. The dots of a class gather around their mean. The three means move into the corners of the grey
# triangle, which is equilateral. And the diamonds move onto the means.
#
# An equilateral triangle around the origin is the **simplex equiangular tight frame** (simplex ETF) of three classes:
# vectors of equal length whose angles are all equal and as large as possible. For four classes it is the tetrahedron,
# and for $C$ classes the regular simplex with $C$ corners, in which any two corners seen from the centre have the
# cosine $-1/(C-1)$. For $C = 3$ this is $-1/2$, an angle of 120°. What were the angles and the lengths in our run?

# %%
def shape(snapshot):
    centred = snapshot.class_means - snapshot.class_means.mean(0)
    cosines = plots.centred_cosines(snapshot.class_means)[[0, 1, 2], [1, 2, 0]]
    return (centred.norm(dim=1) / centred.norm(dim=1).mean()).tolist(), cosines.acos().rad2deg().tolist()


for snapshot in (start, end):
    lengths, angles = shape(snapshot)
    print(f"epoch {snapshot.epoch:3}: lengths / mean length", "  ".join(f"{v:.2f}" for v in lengths),
          "   angles", "  ".join(f"{v:.0f}°" for v in angles))
spread = [max(abs(angle - 120) for angle in shape(snapshot)[1]) for snapshot in (start, end)]
assert spread[1] < spread[0] and (PROFILE == "quick" or spread[1] < 20)

# %% [markdown]
# ## The same in numbers
#
# The next chapter defines a whole family of metrics. Here are six of them, over the epochs of the run that you have
# just watched. All six are zero in an exact collapse; the axes are logarithmic, except for NC4, which reaches zero.

# %%
fig = plots.metric_curves({"training set": [shots]},
                          ["nc1_quotient", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3", "nc4"],
                          title="Six ways to see one collapse")
fig.update_layout(showlegend=False, title_subtitle_text="measured on the training set after each epoch")
fig

# %% [markdown]
# - **NC1, the scatter quotient,** divides the spread of the features within their classes by the spread of the class
#   means: it is small when each class has become nearly a point.
# - **NC2, unequal norms,** is the standard deviation of the lengths of the centred class means, divided by their
#   average.
# - **NC2, unequal angles,** is how far the cosines between them are from $-1/(C-1)$, on average.
# - **The distance to the nearest ETF** joins the two: the squared distance of the class means from the equilateral
#   triangle that fits them best.
# - **NC3** is the squared distance between the classifier's weights and the class means, once both have been given
#   length 1.
# - **NC4** is the share of points for which the classifier and the nearest class mean would decide differently.

# %%
names = ("nc1_quotient", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3", "nc4")
table(["metric", f"epoch {start.epoch}", f"epoch {end.epoch}"],
      [[f"`{key}`", start.train[key], end.train[key]] for key in names])
assert all(end.train[key] < start.train[key] for key in names)

# %% [markdown]
# All of them end lower than they began, but not all in the same way, nor always steadily. The first epochs pull the
# classes apart, and only then does the slow part begin, which goes on long after the accuracy has nothing more to gain.
# That slow part is the subject of the book.
#
# ## Try it
#
# **1. Less weight decay.** Set `weight_decay=5e-4` in the recipe. Does the network still classify everything? Does it
# still collapse?
#
# <details><summary>Solution</summary>
#
# ```python
# from dataclasses import replace
#
# less = list(ncbook.train(replace(recipe, weight_decay=5e-4)))[-1]
# for key in ("accuracy", "loss", *names):
#     print(f"{key:16} {end.train[key]:10.3g} {less.train[key]:10.3g}")
# ```
#
# The accuracy is as high and the loss even lower, as large weights make confident predictions. But the class means stay
# further from the triangle. With the loss alone, the quickest way down is to let the weights grow; weight decay forbids
# that, and among classifiers of limited size the symmetric one is the best. Chapter 01 makes this argument exact.
#
# </details>
#
# **2. Four classes in space.** Use `classes=4` and `feature_dim=3`. Which shape do you expect, and at which angles?
#
# <details><summary>Solution</summary>
#
# ```python
# from dataclasses import replace
#
# four = list(ncbook.train(replace(recipe, classes=4, feature_dim=3)))
# plots.geometry_animation(four)
# ```
#
# A regular tetrahedron, with the cosine $-1/3$, about 109.5° between any two class means. You can turn the figure with
# the mouse.
#
# </details>
#
# **3. Too few dimensions.** A simplex ETF of $C$ classes needs $C-1$ dimensions. What can four classes do in the plane?
# Compute the four norms and the cosines between neighbours.
#
# <details><summary>Solution</summary>
#
# ```python
# from dataclasses import replace
#
# flat = list(ncbook.train(replace(recipe, classes=4)))[-1]
# centred = flat.class_means - flat.class_means.mean(0)
# print(centred.norm(dim=1))
# print(torch.nn.functional.normalize(centred) @ torch.nn.functional.normalize(centred).T)
# print(flat.train["accuracy"], flat.train["nc1_quotient"], flat.train["etf_distance"])
# ```
#
# The classes still gather around their means, and the means spread out around a circle, roughly as a square: two
# cosines in each row near 0 and one near -1. The distance to the nearest ETF cannot become small, because no simplex
# ETF fits in the plane.
#
# </details>
#
# ## Summary
#
# - Neural collapse happens in the last layer, late in training: features gather at their class means, the means form a
#   simplex ETF, and the classifier's weights line up with them.
# - With three classes and two-dimensional features all of it can be seen without a projection: the simplex ETF is an
#   equilateral triangle.
# - A `Recipe` decides a run, `train` yields its `Snapshot`s, `plots` draws them; every chapter works in this way.
#
# Next: [01 Neural collapse](01_neural_collapse.ipynb), the definitions, real images, and a reason why.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* Proceedings of the National Academy of Sciences 117 (40), 2020. [arXiv
#   2008.08186](https://arxiv.org/abs/2008.08186)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - C. D. Hofer, F. Graf, M. Niethammer, R. Kwitt. *Topologically densified distributions.* ICML 2020. [arXiv
#   2002.04805](https://arxiv.org/abs/2002.04805)
