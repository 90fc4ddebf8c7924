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
# # Measuring collapse
#
# *Which number sees what, and which can be trusted?* The literature measures neural collapse in more than a dozen
# ways. They do not all see the same. Below, an almost perfect collapse of ten classes is damaged in eight ways, one
# at a time, and each cell gives the factor by which the damage of its column moves the metric of its row away from
# its limit. White means that the metric is blind to a damage of this strength. No column is white, and no row is dark
# throughout: **one number is not enough.**

# %% jupyter={"source_hidden": true}
# Imports; damage a collapse and draw what each metric sees
import math

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch.nn.functional import normalize

import ncbook
from ncbook import plots
from ncbook.book import gaussian
from ncbook.metrics import METRICS

C, d, n = 10, 64, 50
means, labels = ncbook.simplex_etf(C, d, dtype=torch.float64), torch.arange(C).repeat_interleave(n)
noise = 1e-3 * gaussian(C * n, d)
weight, bias = means + 1e-4 * gaussian(C, d, seed=1), 1e-4 * gaussian(C, seed=2)
near = means + 1e-3 * gaussian(C, d, seed=3)
pair = near.clone()
pair[[3, 8]] = near[[3, 8]].mean(0) + 0.05 * (near[[3, 8]] - near[[3, 8]].mean(0))
lengths = 1 + 0.2 * torch.linspace(-1, 1, C, dtype=torch.float64)[:, None]
span = means.T @ torch.linalg.pinv(means.T)  # projects onto the span of the means
outside = torch.eye(d, dtype=torch.float64) - span
angled = normalize(near + 0.05 * gaussian(C, d, seed=4) @ span, dim=1)
turn = torch.linalg.matrix_exp(0.05 * (gaussian(d, d) - gaussian(d, d).T))
states = {  # features, weight, bias
    "nothing": (near[labels] + noise, weight, bias),
    "scatter in all<br>directions": (near[labels] + 30 * noise, weight, bias),
    "scatter outside<br>the means' span": (near[labels] + noise + 30 * noise @ outside, weight, bias),
    "two classes<br>close together": (pair[labels] + noise, weight, bias),
    "unequal<br>lengths": ((near * lengths)[labels] + noise, weight, bias),
    "unequal<br>angles": (angled[labels] + noise, weight, bias),
    "weights turned": (near[labels] + noise, weight @ turn, bias),
    "a mean row<br>added to W": (near[labels] + noise, weight + 0.3 * gaussian(1, d, seed=6) / 8, bias),
    "unequal biases": (near[labels] + noise, weight, bias + 0.9 * gaussian(C, seed=7)),
}
KEYS = ["nc1", "nc1_quotient", "cdnv", "vci", "numerical_rank", "nc2_equinorm", "nc2_equiangular", "nc2_gram",
        "etf_distance", "nc3", "nc3_gram", "weight_equinorm", "weight_equiangular", "bias_collapse", "cosine_margin",
        "nc4"]
gaps = {}
for name, (features, *classifier) in states.items():
    found = ncbook.neural_collapse(features, labels, *classifier)
    gaps[name] = [max(abs(found[key] - METRICS[key].limit(C)), 1 / len(labels) if key == "nc4" else 0) for key in KEYS]
gaps = torch.tensor(list(gaps.values()), dtype=torch.float64)
squared = torch.tensor([key in ("nc1", "nc1_quotient", "cdnv", "vci", "etf_distance", "nc3") for key in KEYS])
factor = (gaps[1:] / gaps[0]).T.log10().clamp(min=0) / (1 + squared[:, None].double())
fig = go.Figure(go.Heatmap(
    z=factor.numpy().round(2), x=list(states)[1:],
    y=[("√ " if root else "") + METRICS[key].label for key, root in zip(KEYS, squared)],
    zmin=0, zmax=3.5, xgap=2, ygap=2, colorscale=[[0, "#FFFFFF"], [1, "#222222"]],
    colorbar=dict(title="factor", tickvals=[0, 1, 2, 3], ticktext=["1", "10", "100", "1,000"], thickness=12),
    hovertemplate="%{y}, %{x}: 10^%{z}<extra></extra>"))
plots.finish(fig, "What each metric sees", "factor by which a damage moves a metric (√: its root) away from its limit",
             width=600, height=468, plot_bgcolor="#E6E6E6", margin=dict(l=16, r=16, t=84, b=16))
fig.update_xaxes(showgrid=False, ticks="", tickangle=-50, tickfont_size=11)
fig.update_yaxes(autorange="reversed", showgrid=False, ticks="", tickfont_size=11)

# %% [markdown]
# How dark a cell is depends also on how strong the damage is and how perfect the collapse was before it. Six metrics
# are squares of deviations and marked with a root: for these the factor is that of the root.
#
# It matters because conclusions hang on it: two methods can swap places when the metric changes, a metric can look
# collapsed before training, and a careless formula prints rounding errors as if they were results. This chapter defines
# the metrics of the book once and for all.
#
# *You will learn*
#
# - the relatives of NC1 to NC4 in the literature, and what each is for;
# - what the numbers are *before* training, against which they should be read;
# - how to compute NC1 without a $d \times d$ inverse;
# - where floating point fails as a network collapses, and what prevents it;
# - what a single batch makes of the numbers.

# %% [markdown]
# ## Setup

# %% jupyter={"source_hidden": true}
# More imports, and settings
import time
from statistics import median

from ncbook import Recipe, Trainer, build_backbone
from ncbook.book import compare, median_range, profile, table

PROFILE, EPOCHS, SEEDS, WIDE = profile(
    {"EPOCHS": "epochs of the trained network", "SEEDS": "untrained networks of each kind",
     "WIDE": "width of the wide untrained network"},
    quick=dict(EPOCHS=40, SEEDS=2, WIDE=512),
    book=dict(EPOCHS=150, SEEDS=3, WIDE=2048),
    paper=dict(EPOCHS=300, SEEDS=10, WIDE=4096),
)

# %% [markdown]
# The chapter needs one trained network, the multilayer perceptron of
# [Neural collapse](01_neural_collapse.ipynb), and its features before and after training:

# %%
trainer = Trainer(Recipe(dataset="digits", backbone="mlp", weight_decay=1e-2, lr=0.01, batch_size=128, epochs=EPOCHS))
data, y = trainer.data.to("cpu"), trainer.data.train_targets.cpu()


@torch.no_grad()
def features(inputs, backbone=trainer.backbone):
    return backbone.cpu().eval()(inputs).double()


before = features(data.train_inputs)
trainer.backbone.to(trainer.device)
while not trainer.finished:
    trainer.run_epoch()
h = features(data.train_inputs)
W, b = (part.detach().double().cpu() for part in (trainer.head.weight, trainer.head.bias))

# %% [markdown]
# ## 1. The relatives
#
# *Why are four numbers not enough?* Each relative answers a doubt about one of them. The notation is that of
# [Start here](00_start_here.ipynb).
#
# **CDNV**, the class-distance normalised variance (Galanti, György and Hutter 2022), looks at pairs of classes. With
# $v_c = \frac1{n_c} \sum_{i:\, y_i = c} \lVert h_i - \mu_c \rVert^2$,
#
# $$ \mathrm{CDNV} = \operatorname*{mean}_{c \ne c'} \frac{v_c + v_{c'}}{2 \lVert \mu_c - \mu_{c'} \rVert^2} . $$
#
# A pair of classes that are close together makes it large, where the NC1 quotient averages the pair away (column
# three of the picture; NC1 and VCI see the pair even better).
#
# **VCI**, the variability collapse index (Xu and Liu 2023), is $1 - \operatorname{tr}(\Sigma_T^+ \Sigma_B) /
# \operatorname{rank} \Sigma_B$ with $\Sigma_T = \Sigma_W + \Sigma_B$, between 0 and 1. For classes of equal size it
# is the error of the best linear regression onto class labels, up to scale, and it does not change under any
# invertible linear map of the features. (The package divides by $\min(d, C-1)$, the rank unless class means are
# linearly dependent.)
#
# Two more are those of the code that Markou, Ajanthan and Gould (2024) published with [their
# paper](https://github.com/evanmarkou/Guiding-Neural-Collapse). **The numerical rank** of the features $X_c \in
# \mathbb{R}^{n_c \times d}$ of a class is $(\lVert X_c \rVert_* / \lVert X_c \rVert_F)^2$, nuclear over Frobenius norm,
# averaged over classes. By Cauchy and Schwarz it is at most the rank, and it is 1 when all features of a class lie on
# one line through the origin.
#
# **The cosine margin** asks how safely samples are decided by angle alone. With $\bar w$ the mean of the rows of $W$,
#
# $$ \operatorname*{mean}_i \Big[ \cos(h_i - \mu_G,\, w_{y_i} - \bar w)
#    - \max_{c \ne y_i} \cos(h_i - \mu_G,\, w_c - \bar w) \Big] \ \to\ 1 + \frac1{C-1} = \frac{C}{C-1} . $$

# %%
C, d, N = 10, h.shape[1], len(h)
package = ncbook.neural_collapse(h, y, W, b)
mu = torch.stack([h[y == c].mean(0) for c in range(C)])
H, deviations = (mu - mu.mean(0)).T, h - mu[y]
Sigma_W, Sigma_B = deviations.T @ deviations / N, H @ H.T / C

v = torch.stack([deviations[y == c].square().sum(1).mean() for c in range(C)])
first, second = torch.combinations(torch.arange(C)).T
cdnv = ((v[first] + v[second]) / (2 * (mu[first] - mu[second]).square().sum(1))).mean()
vci = 1 - torch.trace(torch.linalg.pinv(Sigma_W + Sigma_B, hermitian=True) @ Sigma_B) / (C - 1)
ranks = [(torch.linalg.matrix_norm(h[y == c], "nuc") / torch.linalg.matrix_norm(h[y == c])) ** 2 for c in range(C)]
angles = normalize(h - mu.mean(0)) @ normalize(W - W.mean(0)).T
own = angles[torch.arange(N), y]
others = angles.scatter(1, y[:, None], -math.inf).amax(1)
compare(package, cdnv=cdnv, vci=vci, numerical_rank=sum(ranks) / C, cosine_margin=(own - others).mean())

# %% [markdown]
# The rest are variants. `nc2_gram` and `nc3_gram` compare the Gram matrices $H^\top H$ and $W H$, scaled to Frobenius
# norm 1, with that of a simplex ETF, $M / \sqrt{C-1}$. `weight_equinorm` and `weight_equiangular` are NC2 of the rows
# of $W$. `bias_collapse` is $\lVert W \mu_G + b \rVert$, the size of the logits at the centre; where they vanish, no
# class is preferred there. All of them, with their limits, for one network:

# %% jupyter={"source_hidden": true}
# Table: all metrics, their limits, before and after
test = ncbook.neural_collapse(features(data.test_inputs), data.test_targets, W, b)
fresh = Trainer(trainer.recipe)
untrained = (part.detach().double().cpu() for part in (fresh.head.weight, fresh.head.bias))
start = ncbook.neural_collapse(before, y, *untrained)
table(["key", "metric", "limit", "before", "after", "after, test set"],
      [[f"`{key}`", METRICS[key].label, METRICS[key].limit(C), start[key], package[key], test[key]]
       for key in package], text=2)

# %% [markdown]
# Not all of them move much: the bias collapse ends not far from where it began, and the numerical rank was low before
# training already. Section 2 comes back to that.
#
# ## 2. Where they start
#
# *Is 0.2 a small ETF distance?* [The simplex ETF](02_simplex_etf.ipynb) ends with a warning: ten *random* class means
# in many dimensions are close to a simplex ETF, at a squared distance of about $C/(4d)$. So a very wide network should
# look collapsed in NC2 before it has learned anything. Should it? Predict the last column.

# %%
def starting_point(found, shuffles=10):
    """ETF distance of features; its median under shuffled labels; effective dimension of the features."""
    labels = [y, *(y[torch.randperm(N, generator=torch.Generator().manual_seed(seed))] for seed in range(shuffles))]
    true, *chance = (ncbook.neural_collapse(found, each, keys=["etf_distance"])["etf_distance"] for each in labels)
    centred = found - found.mean(0)
    return true, median(chance), float((centred.norm() ** 2 / (centred @ centred.T).norm()) ** 2)


starts = {}
for width in (64, 256, 1024, 4096):
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        network = build_backbone("mlp", data.input_shape, feature_dim=width)
        starts.setdefault(width, []).append(starting_point(features(data.train_inputs, network)))
starts["the images themselves"] = [starting_point(data.train_inputs.flatten(1).double())]

# %% jupyter={"source_hidden": true}
# Table: ETF distances before training, with the labels and with shuffled ones
table(["width $d$", "random means, $C/(4d)$", "ETF distance, untrained", "labels shuffled", "$d_{\\rm eff}$",
       "$C/(4\\,d_{\\rm eff})$"],
      [[width, f"{C / (4 * width):.2g}" if isinstance(width, int) else "",
        *(median_range((each[k] for each in found), ".2g") for k in (0, 1)),
        median_range((each[2] for each in found), ".0f"), median_range((C / 4 / each[2] for each in found), ".2g")]
       for width, found in starts.items()])

# %% [markdown]
# It does not. That has little to do with the digits: when the labels are shuffled, so that classes mean nothing, the
# distance is about as large. The formula is for means that vary alike in all $d$ directions. Untrained features do
# not, however many dimensions they have. With the eigenvalues $\lambda_k$ of their covariance the effective dimension
# $d_{\rm eff} = (\sum_k \lambda_k)^2 / \sum_k \lambda_k^2$ is 9 to 15 at every width, and $C/(4\,d_{\rm eff})$ is
# what is found, or a little more. So a number can be read only against two levels: that of chance *in these
# features*, and that of the untrained network on these data.
#
# The numerical rank sets a similar trap. Untrained convolutional features all point in nearly the same direction, and
# their numerical rank is low with no collapse at all:

# %% jupyter={"source_hidden": true}
# Table: numerical rank of an untrained small CNN
cnn = []
for seed in range(SEEDS):
    torch.manual_seed(seed)
    network = build_backbone("small_cnn", data.input_shape)
    found = features(data.train_inputs, network)
    cnn.append(ncbook.neural_collapse(found, y, keys=["nc1_quotient", "numerical_rank"])
               | {"cosine": float(normalize(found).mean(0).square().sum())})
table(["features", "NC1 quotient", "numerical rank", "mean cosine of two features"],
      [[f"untrained small CNN, {SEEDS} seeds", *(median_range((one[key] for one in cnn), ".2f") for key in cnn[0])],
       ["trained perceptron, one seed", f"{package['nc1_quotient']:.4f}", f"{package['numerical_rank']:.2f}",
        f"{float(normalize(h).mean(0).square().sum()):.2f}"]])

# %% [markdown]
# ## 3. NC1 without a large inverse
#
# *Must one invert a $d \times d$ matrix?* The definition $\frac1C \operatorname{tr}(\Sigma_W \Sigma_B^+)$ seems to ask
# for it, and published code does it, for instance [that of Zhu et al.
# (2021)](https://github.com/tding1/Neural-Collapse) and that of Markou et al. But $\Sigma_B$ has rank $C-1$, and with
# the Helmert basis $Q$ and $A = HQ$, this once without dividing by $\lVert H \rVert_F$, a $(d, C-1)$ matrix of full
# rank, $\Sigma_B = \frac1C A A^\top$ and
#
# $$ \mathrm{NC1} = \operatorname{tr}\big(\Sigma_W (A A^\top)^+\big)
#    = \frac1N \sum_i \big\lVert A^+ (h_i - \mu_{y_i}) \big\rVert^2 . $$

# %%
A = H @ ncbook.helmert_basis(C, dtype=torch.float64)
compare(package, nc1=(torch.linalg.pinv(A) @ deviations.T).square().sum() / N)

# %% [markdown]
# That is faster, and it removes a trap. In float32 the $d - C + 1$ eigenvalues of $\Sigma_B$ that should be 0 are
# rounding errors of relative size $10^{-8}$. A pseudo-inverse in float64 has its cut-off below $10^{-12}$, takes
# them for signal, and inverts them. Here is one untrained network with a wide last layer:

# %% jupyter={"source_hidden": true}
# Table: NC1 of a wide untrained network in three ways
torch.manual_seed(0)
wide = features(data.train_inputs, build_backbone("mlp", data.input_shape, feature_dim=WIDE))


def by_inverse(features, dtype):
    features = features.to(dtype)
    centres = torch.stack([features[y == c].mean(0) for c in range(C)])
    centred, rest = centres - centres.mean(0), features - centres[y]
    within, between = rest.T @ rest / N, centred.T @ centred / C
    return float(torch.trace(within.double() @ torch.linalg.pinv(between.double(), hermitian=True)) / C)


rows = []
for name, way in {"large inverse, float64": lambda: by_inverse(wide, torch.float64),
                  "covariances in float32, inverse in float64": lambda: by_inverse(wide, torch.float32),
                  "with $A^+$": lambda: ncbook.neural_collapse(wide, y, keys=["nc1"])["nc1"]}.items():
    begun = time.perf_counter()
    rows.append([name, f"{way():.4g}", time.perf_counter() - begun])
table(["NC1", "value", "time relative to the last row"], [[*row[:2], f"{row[2] / rows[-1][2]:.1f}"] for row in rows])
assert math.isclose(float(rows[0][1]), float(rows[2][1]), rel_tol=1e-3)
assert abs(float(rows[1][1]) / float(rows[2][1]) - 1) > 0.1

# %% [markdown]
# The row of mixed precision has no correct digit.
#
# ## 4. Subtract before you square
#
# *What is left of a variance when a class has become a point?* Measuring it means subtracting nearly equal numbers,
# where floating point is at its worst. The tempting way to gather statistics batch by batch keeps sums of $h$ and $h
# h^\top$ and subtracts at the end, $\mathbb{E}[h^2] - \mathbb{E}[h]^2$: two numbers of the size of the mean whose
# difference is the tiny scatter. The same mistake hides in the ETF distance, the squared distance $2 - 2x$ with $x =
# \lVert \bar H Q \rVert_* / \sqrt{C-1}$ near 1. The cure is the same as well: subtract first, then square. With the
# singular values $s_k$ of $\bar H Q$, the distance is $\sum_k \delta_k^2$ with $\delta_k = s_k - 1/\sqrt{C-1}$
# (equation (6) of [The simplex ETF](02_simplex_etf.ipynb)). An error $\varepsilon$ in $s_k$ then changes $\delta_k^2$
# by $2\delta_k \varepsilon + \varepsilon^2$: relative to the distance, that is about $\varepsilon / \delta$ and no
# longer $\varepsilon / \delta^2$. Predict at which spread the dashed curves reach the dotted line, where the error is
# as large as the number.

# %%
def tempting(x):
    return x.square().mean(0).sum() - x.mean(0).square().sum()


def centred_moments(x):
    return (x - x.mean(0)).square().mean(0).sum()


def tempting_distance(class_means):
    centred = class_means - class_means.mean(0)
    nuclear = torch.linalg.matrix_norm(centred.T @ ncbook.helmert_basis(len(centred), dtype=centred.dtype), "nuc")
    return 2 - 2 * nuclear / centred.norm() / math.sqrt(len(centred) - 1)


# %% jupyter={"source_hidden": true}
# Draw the rounding errors as a network collapses
sizes = [10 ** (-k / 2) for k in range(1, 17)]
noise = gaussian(500, 16) / 4
centre = normalize(gaussian(1, 16, seed=1))
a = gaussian(9, seed=12)
a = a - a.mean()  # singular values 1 + size * a have the distance 2 - 2 / sqrt(1 + size^2 mean(a^2))
frame, basis = torch.linalg.qr(gaussian(32, 9, seed=13))[0], ncbook.helmert_basis(10, dtype=torch.float64)


GREY = {"tempting, float32": ("#8C8C8C", "dash"), "tempting, float64": ("#222222", "dash"),
        "subtract first, float32": ("#8C8C8C", "solid"), "subtract first, float64": ("#222222", "solid")}
errors = {panel: {name: [] for name in GREY} for panel in ("variance", "distance")}
for size in sizes:
    for dtype, name in ((torch.float32, "float32"), (torch.float64, "float64")):
        cloud, truth = (centre + size * noise).to(dtype), size**2 * float(centred_moments(noise))
        some_means = (basis @ (frame * (1 + size * a)).T).to(dtype)
        exact = -2 * math.expm1(-0.5 * math.log1p(size**2 * float(a.square().mean())))
        for panel, way, value, true in (("variance", "tempting", tempting(cloud), truth),
                                        ("variance", "subtract first", centred_moments(cloud), truth),
                                        ("distance", "tempting", tempting_distance(some_means), exact),
                                        ("distance", "subtract first", ncbook.simplex_etf_distance(some_means), exact)):
            errors[panel][f"{way}, {name}"].append(min(max(abs(float(value) - true) / true, 1e-16), 1e4))
fig = make_subplots(1, 2, subplot_titles=["variance within a class", "ETF distance"], shared_yaxes=True,
                    horizontal_spacing=0.05)
for column, curves in enumerate(errors.values(), start=1):
    for name, error in curves.items():
        fig.add_scatter(x=sizes, y=error, name=name, legendgroup=name, showlegend=column == 1, mode="lines",
                        line=dict(color=GREY[name][0], dash=GREY[name][1], width=2), row=1, col=column)
fig.add_hline(y=1, line=dict(color="#666666", width=1, dash="dot"))
power = dict(type="log", exponentformat="power")
fig.update_xaxes(autorange="reversed", dtick=2, **power).update_yaxes(dtick=4, **power)
fig.update_xaxes(title="spread of the class / norm of its mean", col=1)
fig.update_xaxes(title="deviation from an ETF", col=2)
fig.update_yaxes(title="relative error", col=1)
plots.finish(fig, "Rounding as a network collapses", "collapse goes to the right; drawn between 10⁻¹⁶ and 10⁴",
             width=720, height=430, margin_b=128, legend=dict(orientation="h", x=0, y=-0.3, yanchor="top"))

# %% [markdown]
# In float32 the tempting formulas print noise once the spread is below a few ten-thousandths; the free features of
# [Neural collapse](01_neural_collapse.ipynb) lie far to the right of that. In float64 they last twice as many digits,
# and no longer. With the subtraction first, float64 has correct digits to the end of the axis. In float32 it is not
# enough by itself: it gains three decades for the variance and nearly two for the distance, then rounding of the
# input is as large as what is left.
#
# To subtract first *and* see each batch once, keep for each class its count, its mean $m$ and the scatter $S$ *around
# that mean*, and merge two groups by (Chan, Golub and LeVeque 1983)
#
# $$ m = m_1 + \frac{n_2}{n_1 + n_2} (m_2 - m_1), \qquad
#    S = S_1 + S_2 + \frac{n_1 n_2}{n_1 + n_2} (m_2 - m_1)(m_2 - m_1)^\top . $$
#
# No large squares are subtracted. The package does this for all classes at once, and keeps the scatter *matrix*
# pooled over classes, and of each class just the trace. Four metrics need more: for NC4, accuracy, cosine margin and
# numerical rank it keeps the features themselves, unless `keep_features=False`.
#
# Batches of any size and order then give what one batch gives. `update` takes them as they come, and `merge` adds
# the state of another process.

# %%
stream = ncbook.NeuralCollapse(C, d)
for batch in torch.randperm(N, generator=torch.Generator().manual_seed(0)).split(97):
    stream.update(h[batch], y[batch])
by_stream = stream.compute(W, b)
print(max(abs(by_stream[key] - package[key]) / max(abs(package[key]), 1e-12) for key in package))

# %% [markdown]
# ## 5. What a batch makes of it
#
# *Can one save the time and measure on the batch at hand?* Suppose that the NC1 quotient is computed from each batch
# with the batch's own class means. Will it come out too low or too high?

# %%
rows, generator = [], torch.Generator().manual_seed(0)
for size in (50, 100, 400):
    found = []
    while len(found) < 100:
        batch = torch.randperm(N, generator=generator)[:size]
        if len(y[batch].unique()) == C:
            found.append(ncbook.neural_collapse(h[batch], y[batch], keys=["nc1_quotient"])["nc1_quotient"])
    shares = torch.tensor(found) / package["nc1_quotient"]
    rows.append([size, size // C, float(shares.mean()), median_range(shares.tolist(), ".2f"), 1 - C / size])
table(["batch size $B$", "samples per class, on average", "of NC1 quotient: mean", "median (range), 100 batches", "$1 - C/B$"], rows)

# %% [markdown]
# Too low on average, and a single small batch can be off by almost half: a class mean that is computed from few
# samples lies closer to just these samples, and each class loses one degree of freedom, a share of about $C/B$. A
# method that is measured on batches of 50 seems to collapse a fifth more, on average, than one that is measured on
# all data. Batch normalisation adds to it, since in training mode the features of a batch depend on one another.
# Unless a chapter says otherwise, metrics of this book come from features in evaluation mode, from the whole set, in
# float64.

# %% jupyter={"source_hidden": true}
# Checks of what the text says
assert max(abs(by_stream[key] - package[key]) / max(abs(package[key]), 1e-12) for key in package) < 1e-6
assert all(abs(row[2] - row[4]) < 0.05 for row in rows) and rows[0][2] < rows[1][2] < rows[2][2]
assert max(errors["variance"]["tempting, float32"]) > 1 and max(errors["distance"]["tempting, float32"]) > 1
assert max(errors["variance"]["subtract first, float64"]) < 1e-6
assert all(0.7 < true / chance < 1.4 and 8 < spread < 16 for found in starts.values() for true, chance, spread in found)
assert max(errors["distance"]["subtract first, float64"]) < 1e-4
assert (factor.amax(0) > 1).all() and factor.max() < 3.5 and (factor.amin(0) < 0.3).all() and (factor.amin(1) < 0.3).all()
assert max(one["numerical_rank"] for one in cnn) < 2 and min(one["nc1_quotient"] for one in cnn) > 0.5

# %% [markdown]
# ## Try it
#
# **1. What is left of NC3?** In the picture at the top, a mean row added to $W$ moves NC3 but no decision. For the
# network of this chapter, compute NC3 of $W$ and of $W - \bar w$. How much of NC3 is the mean row, and what could make
# it vanish?
#
# <details><summary>Solution</summary>
#
# ```python
# for rows_of_W in (W, W - W.mean(0)):
#     print(float((rows_of_W / rows_of_W.norm() - H.T / H.norm()).square().sum()))
# ```
#
# Part of it is. The gradient of the cross-entropy sums to zero over classes, so it never changes $\bar w$; only
# weight decay shrinks it, slowly, with momentum 0.9 by a factor of about $1 - 10\,\text{lr} \cdot \lambda$ per step.
# In the run of [Start here](00_start_here.ipynb) it is nearly all that is left of NC3.
#
# </details>
#
# **2. Invariance.** Multiply all features by an invertible matrix with singular values between 1 and 100. Which metrics
# change? Guess first.
#
# <details><summary>Solution</summary>
#
# ```python
# stretch = torch.diag(torch.logspace(0, 2, d, dtype=torch.float64)) @ torch.linalg.qr(gaussian(d, d))[0]
# mapped = ncbook.neural_collapse(h @ stretch, y)
# for key in ("nc1", "nc1_quotient", "cdnv", "vci", "nc2_equinorm", "nc2_equiangular", "numerical_rank"):
#     print(f"{key:16} {package[key]:10.4g} {mapped[key]:10.4g}")
# ```
#
# Only VCI keeps its value, by definition. NC1 would keep it if all scatter lay in the span of the class means.
# Invariance has its price: a linear classifier does not care about the map, but directions with hardly any variance now
# count as much as all others.
#
# </details>
#
# **3. The cut-off.** In section 3, give `torch.linalg.pinv` the argument `rtol=1e-6` in the mixed row. Is it safe now?
#
# <details><summary>Solution</summary>
#
# For the untrained network, yes. But a class mean that is close to the span of the others makes a true eigenvalue
# small, and then the cut-off throws away signal: try it on class means of which two are almost equal. $A^+$ has nothing
# to cut off, since it has as many columns as there are directions.
#
# </details>
#
# ## Summary
#
# - No metric sees every damage: NC1 is nearly blind to scatter outside the span of the means, the NC1 quotient to one
#   pair of close classes, NC4 to nearly all, at the strengths tried here.
# - An untrained perceptron is at an ETF distance of about 0.2 on digits, however wide it is, and so are its features
#   under shuffled labels: they vary in about ten directions. Means that vary in all of 4,096 would be at $C/(4d)$,
#   0.0006.
# - NC1 needs a $(d, C-1)$ pseudo-inverse only; covariances in float32 with an inverse in float64 were off by seven
#   orders of magnitude for one untrained network of width 2,048.
# - Subtract before you square: below a relative spread of a few ten-thousandths, $\mathbb{E}[h^2] - \mathbb{E}[h]^2$ in
#   float32 is noise. Merged centred moments in float64 are right for any batches.
# - A batch's own means make the NC1 quotient too low by a share of about $C/B$.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
# - T. Galanti, A. György, M. Hutter. *On the role of neural collapse in transfer learning.* ICLR 2022.
#   [arXiv 2112.15121](https://arxiv.org/abs/2112.15121)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu. *A geometric analysis of neural collapse with
#   unconstrained features.* NeurIPS 2021. [arXiv 2105.02375](https://arxiv.org/abs/2105.02375)
# - J. Xu, H. Liu. *Quantifying the variability collapse of neural networks.* ICML 2023.
#   [arXiv 2306.03440](https://arxiv.org/abs/2306.03440)
# - T. F. Chan, G. H. Golub, R. J. LeVeque. *Algorithms for computing the sample variance: analysis and
#   recommendations.* The American Statistician 37 (3), 1983.
#   [doi 10.1080/00031305.1983.10483115](https://doi.org/10.1080/00031305.1983.10483115)
#
# **Next:** [Fixed ETF](04_fixed_etf.ipynb).
