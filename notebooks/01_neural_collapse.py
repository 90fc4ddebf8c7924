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
# # Neural collapse
#
# *Which four things happen after the last mistake, and why?* Papyan, Han and Donoho (2020) trained networks far
# beyond zero training error and saw the same four things happen on every data set they tried. In the plane one sees
# the first two at a glance: each class becomes a point (NC1), and the points form a regular simplex (NC2). The
# classifier's weights line up with the points (NC3), and the classifier becomes the rule "take the nearest class
# mean" (NC4). A model of the reason is simple enough to predict where its own training ends, to five digits.

# %% jupyter={"source_hidden": true}
# Train in the plane; draw features at three stages
from ncbook import Recipe, plots, train

plane = list(train(Recipe(dataset="gaussians", backbone="mlp", feature_dim=2, weight_decay=3e-2, lr=0.005,
                          batch_size=100, epochs=150)))
faultless = 1 + max(shot.epoch for shot in plane if shot.train["accuracy"] < 1)
stages = {"before training": plane[0], f"epoch {faultless}: no mistakes": plane[faultless], "epoch 150": plane[-1]}
plots.scatter_ellipses(stages, title="Three classes of features, before, during and after")

# %% [markdown]
# It matters beyond the picture. A last layer with a known end need not be learned, the subject of five chapters; what
# collapse throws away is missing when the features are used for another task; and here a theorem and a training run
# meet.
#
# *You will learn*
#
# - NC1 to NC4: for each a picture, a formula and the lines that compute it;
# - how far a real network goes, on its training set and on new images;
# - why it happens: the unconstrained-features model, its end point, and the weight decay at which all is lost.

# %% [markdown]
# ## Setup

# %% jupyter={"source_hidden": true}
# Imports and settings; helper to draw
import math

import torch
from plotly.subplots import make_subplots

import ncbook
from ncbook.book import compare, median_range, profile, table
from ncbook.metrics import METRICS

PROFILE, DATA, EPOCHS, EVERY, SEEDS, FREE_STEPS = profile(
    {"DATA": "images", "EPOCHS": "epochs", "EVERY": "epochs from snapshot to snapshot", "SEEDS": "networks",
     "FREE_STEPS": "steps of descent on free features"},
    quick=dict(DATA="digits", EPOCHS=60, EVERY=4, SEEDS=1, FREE_STEPS=250),
    book=dict(DATA="digits", EPOCHS=200, EVERY=5, SEEDS=3, FREE_STEPS=400),
    paper=dict(DATA="mnist", EPOCHS=350, EVERY=5, SEEDS=3, FREE_STEPS=1000),
)
NETWORK = dict(dataset=DATA, batch_size=128) | {
    "digits": dict(backbone="mlp", weight_decay=1e-2, lr=0.01),
    "mnist": dict(backbone="resnet18", weight_decay=5e-4, lr=0.05),
}[DATA]


def both_sets(keys, title):
    fig = plots.metric_curves({"training set": runs, "test set": runs}, keys, title=title,
                              split={"training set": "train", "test set": "test"})
    fig.add_vline(x=terminal, line=dict(color="#666666", width=1, dash="dot"))
    about = f"median of {SEEDS} seeds, band from min to max" if SEEDS > 1 else "one seed"
    return fig.update_layout(width=720, title_subtitle_text=f"{about}; dotted: from here on no training error in any snapshot")

# %% [markdown]
# ## 1. The terminal phase
#
# As before, a **backbone** maps the input $x_i$ to a **feature** $h_i \in \mathbb{R}^d$, and a **head**, here a linear
# classifier with weights $W \in \mathbb{R}^{C \times d}$ (row $w_c$ for class $c$) and bias $b$, chooses the class of
# the largest logit $w_c^\top h_i + b_c$. The **terminal phase of training** begins at the epoch from which on the
# training error is zero.
#
# The network of this chapter is a multilayer perceptron with batch normalisation on scikit-learn's handwritten digits.
# Its weight decay is large, which packs into 200 short epochs what a small one would spread over many long ones. (In
# the `paper` profile it is a ResNet-18 on MNIST, after the original study.)

# %%
trainers = [ncbook.Trainer(Recipe(**NETWORK, epochs=EPOCHS, seed=seed)) for seed in range(SEEDS)]
runs = [[trainer.snapshot()] for trainer in trainers]
for trainer, shots in zip(trainers, runs):
    while not trainer.finished:
        trainer.run_epoch()
        if trainer.epoch % EVERY == 0:
            shots.append(trainer.snapshot())

# %% jupyter={"source_hidden": true}
# Find the terminal phase; draw accuracy and loss
clean = [max([0, *(k for k, shot in enumerate(shots) if shot.train["accuracy"] < 1)]) + 1 for shots in runs]
assert PROFILE == "paper" or all(k < len(shots) for k, shots in zip(clean, runs))
terminal = max(shots[min(k, len(shots) - 1)].epoch for k, shots in zip(clean, runs))
fig = both_sets(["accuracy", "loss"], "Accuracy, and loss without weight decay")
fig.update_yaxes(range=[90, 100.5], col=1)

# %% [markdown]
# Judged by the training error, everything to the right of the dotted line is wasted. *What do the features do there?*
# Ten class means span nine dimensions, so a picture has to be a projection. This one uses the coordinates in which the
# simplex ETF nearest to the class means stands still. It can bring together what is apart, but it cannot pull apart
# what is together.

# %% jupyter={"source_hidden": true}
# Animate ten classes in the terminal phase
names = list(trainers[0].data.class_names)
plots.geometry_animation(runs[0][::4], class_names=names, title="Ten classes in the terminal phase")

# %% [markdown]
# ## 2. NC1: each class becomes a point
#
# *How much of the spread of the features is spread within classes?* With $n_c$ samples in class $c$, the class means,
# their mean, and the matrix of centred class means are
#
# $$ \mu_c = \frac{1}{n_c} \sum_{i:\, y_i = c} h_i, \qquad \mu_G = \frac1C \sum_c \mu_c, \qquad
#    H = [\mu_1 - \mu_G, \ \dots, \ \mu_C - \mu_G] \in \mathbb{R}^{d \times C} , $$
#
# and the scatter within and between classes are the covariances
#
# $$ \Sigma_W = \frac1N \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top, \qquad
#    \Sigma_B = \frac1C \sum_c (\mu_c - \mu_G)(\mu_c - \mu_G)^\top = \frac1C H H^\top . $$
#
# In the picture at the top, $\Sigma_W$ is the average of the filled ellipses and $\Sigma_B$ the dashed one, which is
# drawn so that it goes through the three means. **Variability collapse** says $\Sigma_W \to 0$. As features can be of
# any scale, small has to mean small compared with $\Sigma_B$, direction by direction:
#
# $$ \mathrm{NC1} = \frac1C \operatorname{tr}\big(\Sigma_W \Sigma_B^+\big), $$
#
# with the pseudo-inverse $^+$, since $\Sigma_B$ has rank $C-1$ at most. A coarser measure is the quotient of the
# traces, $\operatorname{tr} \Sigma_W / \operatorname{tr} \Sigma_B$, which this book calls the **NC1 quotient**. By
# hand, for the network after training:

# %% jupyter={"source_hidden": true}
# Features, labels and classifier of the trained network
trainer = trainers[0]
trainer.backbone.eval()
with torch.no_grad():
    h = torch.cat([trainer.backbone(x) for x in trainer.data.train_inputs.split(1000)]).double().cpu()
y = trainer.data.train_targets.cpu()
W, b = (part.detach().double().cpu() for part in (trainer.head.weight, trainer.head.bias))
(N, d), C = h.shape, len(names)
package = ncbook.neural_collapse(h, y, W, b)

# %%
mu = torch.stack([h[y == c].mean(0) for c in range(C)])
mu_G = mu.mean(0)
H = (mu - mu_G).T
Sigma_W = (h - mu[y]).T @ (h - mu[y]) / N
Sigma_B = H @ H.T / C
compare(package, nc1=torch.trace(Sigma_W @ torch.linalg.pinv(Sigma_B, hermitian=True)) / C,
                 nc1_quotient=Sigma_W.trace() / Sigma_B.trace())

# %% [markdown]
# *When does it fall, and does it fall on images that the network was not trained on?*

# %% jupyter={"source_hidden": true}
# Draw NC1 and the NC1 quotient by epoch
both_sets(["nc1", "nc1_quotient"], "NC1 and the NC1 quotient")

# %% [markdown]
# On the training set NC1 goes on falling where no error is left to correct, and by another factor of about ten. On
# the test set it falls by another half, and levels off after some hundred epochs; section 6 comes back to that.
#
# ## 3. NC2: the points form a simplex ETF
#
# *Where do the points go?* **Convergence to a simplex ETF**: the centred class means acquire equal lengths, and angles
# that are equal and as large as possible,
#
# $$ \lVert \mu_c - \mu_G \rVert = \lVert \mu_{c'} - \mu_G \rVert, \qquad
#    \cos(\mu_c - \mu_G,\, \mu_{c'} - \mu_G) = -\frac{1}{C-1} \quad (c \ne c'). $$
#
# [The simplex ETF](02_simplex_etf.ipynb) proves in two lines that no $C$ directions have smaller cosines. Predict the
# colours of the right panel before you look: white is $-1/9$.

# %% jupyter={"source_hidden": true}
# Draw cosines of the class means before and after training
plots.cosine_heatmaps({"before training": runs[0][0].class_means, f"epoch {EPOCHS}": runs[0][-1].class_means},
                      class_names=names, title="Cosines between centred class means", width=640, height=390)

# %% [markdown]
# Two numbers measure the two halves of the definition, the coefficient of variation of the lengths and the mean
# deviation of the cosines. A third joins them, the **ETF distance**: the *squared* distance of $\bar H = H / \lVert H
# \rVert_F$ to the nearest of all simplex ETFs of norm 1, $2 - 2 \lVert \bar H Q \rVert_* / \sqrt{C-1}$, with the sum of
# the singular values $\lVert \cdot \rVert_*$ and an orthonormal basis $Q$ of the vectors whose entries sum to zero; the
# next chapter derives it.

# %%
lengths = H.norm(dim=0)
cosines = (H.T @ H / lengths.outer(lengths))[~torch.eye(C, dtype=torch.bool)]
H_bar, Q = H / H.norm(), ncbook.helmert_basis(C, dtype=torch.float64)
compare(package, nc2_equinorm=lengths.std(correction=0) / lengths.mean(),
                 nc2_equiangular=(cosines + 1 / (C - 1)).abs().mean(),
                 etf_distance=2 - 2 * torch.linalg.matrix_norm(H_bar @ Q, "nuc") / math.sqrt(C - 1))

# %% jupyter={"source_hidden": true}
# Draw both parts of NC2 and the ETF distance by epoch
both_sets(["nc2_equinorm", "nc2_equiangular", "etf_distance"], "NC2: from class means to a simplex ETF")

# %% [markdown]
# NC2 is not complete after these epochs: the cosines are closer to $-1/9$ than before training, but still visibly off,
# in this network most of all that between 0 and 8 (dark blue).
#
# ## 4. NC3: the classifier follows
#
# *Where do the weights go?* Means and weights are different objects, one a statistic of the features and the other a
# parameter. Yet up to a common scale they become the same matrix, which is called **self-duality**:
#
# $$ \mathrm{NC3} =
#    \left\lVert \frac{W^\top}{\lVert W \rVert_F} - \frac{H}{\lVert H \rVert_F} \right\rVert_F^2 \to 0 . $$
#
# Both matrices have norm 1, so this is $2 - 2\, \langle W^\top, H \rangle / (\lVert W \rVert_F \lVert H \rVert_F)$,
# with the sum of the products of entries $\langle \cdot, \cdot \rangle$: 2 when they have nothing to do with each
# other, 0 when they agree.

# %%
compare(package, nc3=2 - 2 * (W.T * H).sum() / (W.norm() * H.norm()))

# %% [markdown]
# ## 5. NC4: the nearest class mean decides
#
# *What does the classifier compute in the end?* Under NC2 and NC3, $w_c$ is $\mu_c - \mu_G$ times a positive factor,
# the same for all classes, and all lengths are equal. If the logits at $\mu_G$ are equal too, then
#
# $$ \operatorname*{arg\,max}_c \ w_c^\top h + b_c \;=\; \operatorname*{arg\,min}_c \ \lVert h - \mu_c \rVert : $$
#
# expand $\lVert h - \mu_c \rVert^2 = \lVert h - \mu_G \rVert^2 - 2 (\mu_c - \mu_G)^\top (h - \mu_G) + \lVert \mu_c -
# \mu_G \rVert^2$. The first term is the same for all classes, and so is the last if the lengths are equal. In the plane
# this is **simplification to the nearest class mean**: the classifier's cells become those of the class means.

# %% jupyter={"source_hidden": true}
# Draw the cells of the classifier and of the nearest mean
plots.decision_cells(stages, title="The plane, divided by classifier and by nearest class mean")

# %% [markdown]
# NC4 is the share of *samples* on which the two rules disagree. Samples are not where the borders are, so NC4 can be 0
# while the borders still differ, as in the middle panel: of the four it says least about how far collapse has gone.

# %%
by_classifier, by_mean = (h @ W.T + b).argmax(1), torch.cdist(h, mu).argmin(1)
compare(package, nc4=(by_classifier != by_mean).double().mean(), accuracy=(by_classifier == y).double().mean())

# %% jupyter={"source_hidden": true}
# Draw NC3 and NC4 by epoch
both_sets(["nc3", "nc4"], "NC3 and NC4: the classifier follows the class means")

# %% [markdown]
# ## 6. Does the test set collapse?
#
# Most new images are classified correctly, so their features must lie near the right means. But near is not *at*:

# %% jupyter={"source_hidden": true}
# Table: every metric at three moments and on the test set
KEYS = ["accuracy", "nc1", "nc1_quotient", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3", "nc4"]
turns = [shots[k] if k < len(shots) else shots[-1] for k, shots in zip(clean, runs)]
columns = [[shots[0].train for shots in runs], [shot.train for shot in turns], [shots[-1].train for shots in runs],
           [shots[-1].test for shots in runs]]
table([f"median (range), {SEEDS} seed{'s' * (SEEDS > 1)}", "before", "no mistakes left", "end", "end, test set"],
      [[METRICS[key].label, *(median_range((part[key] for part in parts), ".2g") for parts in columns)]
       for key in KEYS])

# %% [markdown]
# (The second column is the first snapshot after the last mistake.) The honest answer is: in scatter and norms not as
# the training set does, in angles, ETF distance and duality nearly. Test scatter falls for some hundred epochs, for
# most of them after the last mistake, and then levels off, several times above that of the training set. Papyan et
# al. state their findings for the training set. Hui, Belkin and Nakkiran (2022) argue that collapse on the test set
# must be distinguished from it and does not happen in general; Galanti, György and Hutter (2022) show when what is
# true of training samples carries over to new samples, and even to new classes, as the number of samples grows.
# Neural collapse is above all a fact about optimisation.
#
# ## 7. Why does it happen?
#
# A network that fits its training set could place the features in countless ways. Why this one? A deep backbone is
# flexible, so take flexibility to the limit: forget the network, and let every feature $h_i$ be a free parameter. This
# is the **unconstrained-features model** (Mixon, Parshall and Pi 2020; with other names and losses in Fang et al. 2021
# and in Lu and Steinerberger 2022). With cross-entropy, weight decay $\lambda$ and $C$ classes of $n = N/C$ samples:
#
# $$ \min_{W, b, h_1, \dots, h_N} \
#    \frac1N \sum_i \Big[ \log \sum_c e^{w_c^\top h_i + b_c} - (w_{y_i}^\top h_i + b_{y_i}) \Big]
#    + \frac\lambda2 \Big( \lVert W \rVert_F^2 + \sum_i \lVert h_i \rVert^2 + \lVert b \rVert^2 \Big) . \tag{1} $$
#
# This is not convex, yet Zhu et al. (2021) prove for $d > C$ that *every* local minimum is global, that all other
# critical points have a direction of descent, and that the global minima are exactly the collapsed configurations (all
# zero, if $\lambda$ is too large). The reason for their shape is the penalty: a given total norm should buy as large a
# margin as possible. Two steps lead to it.
#
# - *Within a class:* the loss is convex in each $h_i$ and the penalty strictly so. By Jensen's inequality (1) falls
#   when the features of a class are replaced by their mean, unless they are equal already.
# - *Between classes:* of all $W$ and means with given logits $Z = W [\mu_1, \dots, \mu_C]$ the cheapest cost $\lambda
#   \sqrt n\, \lVert Z \rVert_*$ (the nuclear norm; with the SVD of $Z$ each factor takes the roots of the singular
#   values), so that (1) becomes a convex problem in $Z$ and $b$. Renaming the classes does not change it. The average
#   of a solution over all renamings is therefore a solution too (that there is no other is in Zhu et al.), and of the
#   form $x I + y \mathbf 1 \mathbf 1^\top$ with a constant $b$. Constants that are added to all logits change no loss
#   and cost norm, which leaves a multiple of $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, the logits of a simplex ETF.
#
# Granted the shape, the size is a problem in one variable. Let $e_1, \dots, e_C$ be a simplex ETF of unit vectors, $h_i
# = a\, e_{y_i}$, $w_c = a \sqrt n\, e_c$ and $b = 0$; the factor $\sqrt n$ makes $\lVert W \rVert_F^2 = \sum_i \lVert
# h_i \rVert^2 = N a^2$, as it must be at a minimum (if not, moving scale from one factor to the other lowers the
# penalty). The logit of the right class exceeds the others by $\kappa s$, with $s = a^2$ and $\kappa = \sqrt n\,
# \frac{C}{C-1}$, and (1) becomes
#
# $$ f(s) = \underbrace{\log\!\big(1 + (C-1) e^{-\kappa s}\big)}_{\text{cross-entropy}} +
#    \underbrace{\lambda N s}_{\text{weight decay}}, \qquad f'(s) = 0 \iff
#    p := \frac{(C-1) e^{-\kappa s}}{1 + (C-1) e^{-\kappa s}} = \frac{\lambda N}{\kappa} . $$
#
# Here $p$ is the probability that the model still gives to the wrong classes. So the final cross-entropy is
# $-\log(1-p)$, and the norm of the features is
#
# $$ a = \sqrt{ \tfrac1\kappa \log \tfrac{(C-1)(1-p)}{p} } . $$
#
# *What happens as $\lambda$ grows?* Move the slider to the right and watch the minimum of the black curve. The dots
# on the right are not theory: each is the mean norm of $N = 1000$ vectors in 512 dimensions after plain gradient
# descent with momentum from a random start.

# %%
FREE_N, FREE_C = 1000, 10
kappa = math.sqrt(FREE_N / FREE_C) * FREE_C / (FREE_C - 1)


def predicted_norm(decay):
    p = decay * FREE_N / kappa
    return math.sqrt(max(0, math.log((FREE_C - 1) * (1 - p) / p)) / kappa) if p < 1 else 0.0


free = {decay: list(train(Recipe(dataset="unconstrained", backbone="free_features", batch_size=FREE_N,
                                 lr=10 if decay < 9e-3 else 3, lr_decay="constant", weight_decay=decay,
                                 epochs=FREE_STEPS), every=25))
        for decay in (3e-4, 1e-3, 3e-3, 9e-3, 1.2e-2)}
found = {decay: float(shots[-1].features.norm(dim=1).mean()) for decay, shots in free.items()}

# %% jupyter={"source_hidden": true}
# Slider: loss and feature norm as the weight decay grows
decays = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 9e-3, 1e-2, 1.2e-2, 1.5e-2]
s = torch.linspace(0, 1, 51, dtype=torch.float64)
cross_entropy = torch.log1p((FREE_C - 1) * torch.exp(-kappa * s))
fine = torch.logspace(-5, math.log10(2e-2), 120).tolist()


def at(decay):
    norm = predicted_norm(decay)
    price = decay * FREE_N * s
    low = math.log1p((FREE_C - 1) * math.exp(-kappa * norm**2)) + decay * FREE_N * norm**2
    return {"weight decay": dict(y=price.numpy().round(4)), "its minimum": dict(x=[norm**2], y=[low]),
            "their sum f": dict(y=(cross_entropy + price).numpy().round(4)), "this λ": dict(x=[decay], y=[norm])}


fig = make_subplots(1, 2, subplot_titles=["f(s), s the squared norm", "norm of a feature against λ"],
                    horizontal_spacing=0.12)
fig.add_scatter(x=s.numpy(), y=cross_entropy.numpy().round(4), name="cross-entropy",
                line=dict(color="#8C8C8C", dash="dash"))
fig.add_scatter(x=s.numpy(), name="weight decay", mode="lines", line=dict(color="#8C8C8C", dash="dot"))
fig.add_scatter(x=s.numpy(), name="their sum f", mode="lines", line=dict(color="#222222", width=3))
fig.add_scatter(name="its minimum", mode="markers", marker=dict(color="#222222", size=13, symbol="diamond"))
fig.add_scatter(x=fine, y=[round(predicted_norm(decay), 5) for decay in fine], name="predicted", mode="lines",
                line=dict(color="#8C8C8C"), row=1, col=2)
fig.add_scatter(x=list(found), y=list(found.values()), name="found by descent", mode="markers",
                marker=dict(color="#222222", size=9), row=1, col=2)
fig.add_scatter(name="this λ", mode="markers", showlegend=False, row=1, col=2,
                marker=dict(color="#222222", size=17, symbol="diamond-open", line_width=2))
fig.update_yaxes(range=[0, 3], col=1).update_yaxes(range=[-0.05, 1], col=2)
fig.update_xaxes(title="s", range=[-0.02, 1], col=1)
fig.update_xaxes(title="λ", type="log", exponentformat="power", dtick=1, col=2)
plots.finish(fig, "The size of features that weight decay leaves", "C = 10, N = 1000", width=720, height=420,
             margin_b=76, legend=dict(orientation="h", x=0, y=-0.24, yanchor="top"))
plots.animate(fig, [f"λ = {decay:g}, norm {predicted_norm(decay):.3f}" for decay in decays],
              [at(decay) for decay in decays], active=decays.index(1e-3), below=116)

# %% [markdown]
# At $\lambda = \sqrt n / N$, here 0.01, the minimum arrives at $s = 0$: above it, having no features at all is cheaper
# than being right. Below it, prediction and descent agree in every digit that is shown:

# %% jupyter={"source_hidden": true}
# Table: what is predicted and what descent finds
rows = []
for decay, shots in free.items():
    p, last = decay * FREE_N / kappa, shots[-1].train
    loss = -math.log1p(-p) if decay < 0.01 else math.log(FREE_C)
    rows.append([f"{decay:g}", *(f"{value:.5f}" for value in (predicted_norm(decay), found[decay], loss, last["loss"])),
                 *(f"{last[key]:.0e}" if decay < 0.01 else "" for key in ("nc1", "etf_distance", "nc3"))])
    assert math.isclose(predicted_norm(decay), found[decay], rel_tol=1e-3, abs_tol=1e-3)
    assert math.isclose(loss, last["loss"], rel_tol=1e-3)
    assert decay > 0.01 or max(last["nc1"], last["etf_distance"], last["nc3"]) < 1e-6
table(["$\\lambda$", "norm predicted", "found", "cross-entropy predicted", "found", "NC1", "ETF distance", "NC3"],
      rows)

# %% [markdown]
# From a random start (one for each $\lambda$), gradient descent goes where the theory says. The last columns are
# squares: relative deviations of $10^{-8}$ to $10^{-6}$ are about what parameters in float32 allow.
#
# This explains what the minimum looks like, and that it is easy to find once features can be moved freely. It does not
# say when a real network is that free. The digits' network decays all its parameters but not its features, shares
# them between samples, and has not arrived. What it shares with the model is the direction of travel.

# %% jupyter={"source_hidden": true}
# Checks of what the text says
for shots, turn in zip(runs, turns):
    start, end = shots[0].train, shots[-1].train
    assert all(end[key] < turn.train[key] < start[key] for key in ("nc1", "etf_distance", "nc3")) or PROFILE != "book"
    assert end["nc1"] < shots[-1].test["nc1"] and shots[-1].test["accuracy"] > 0.95 and end["nc4"] < 0.01
assert len({tuple(len(cell) for cell in plots.linear_cells(shot.weight, shot.bias, 9.0)) for shot in plane[-1:]}) == 1
assert plane[faultless].train["nc4"] == 0

# %% [markdown]
# ## Try it
#
# **1. Weight decay.** Train the network of section 1 with `weight_decay=5e-4`, a more usual value. Which of NC1 to NC4
# cannot tell the two runs apart?
#
# <details><summary>Solution</summary>
#
# ```python
# usual = list(train(Recipe(**NETWORK | dict(weight_decay=5e-4), epochs=EPOCHS), every=EPOCHS))[-1]
# for key in ("accuracy", "loss", *KEYS[1:]):
#     print(f"{key:16} {runs[0][-1].train[key]:10.3g} {usual.train[key]:10.3g}")
# ```
#
# The training set is fitted as well and the loss is lower, but NC1, NC2 and NC3 have all gone much less far; only NC4
# is the same.
#
# </details>
#
# **2. Unequal classes.** Take the unconstrained model with two classes of 500 and two of 10 samples. Classes still
# become points. But which points? Guess the cosine between the two small classes.
#
# <details><summary>Solution</summary>
#
# ```python
# targets = torch.arange(4).repeat_interleave(torch.tensor([500, 500, 10, 10]))
# unequal = ncbook.Dataset("unequal", torch.arange(len(targets)), targets, None, None, tuple("abcd"))
# minority = Recipe(dataset="unconstrained", backbone="free_features", feature_dim=16, lr=5, epochs=600,
#                   batch_size=len(targets), lr_decay="constant", weight_decay=1e-3)
# shot = list(train(minority, data=unequal, every=600))[-1]
# print(torch.nn.functional.cosine_similarity(shot.weight[:, None], shot.weight, dim=-1))
# ```
#
# The weights of the two large classes are about 145° apart, while the angle between the two small ones falls to about
# 90°. Make the small classes smaller and it goes on falling. In the layer-peeled model of Fang et al. (2021) it
# reaches 0 at a finite ratio of the sizes: *minority collapse*. The simplex ETF is a statement about balanced data.
# [Further reading](16_where_to_read_on.ipynb) draws the whole curve.
#
# </details>
#
# **3. Labels without meaning.** Give the images of section 1 random labels and train as long. Does nonsense collapse?
#
# <details><summary>Solution</summary>
#
# ```python
# from dataclasses import replace
# data = trainers[0].data
# shuffled = data.train_targets[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
# nonsense = replace(data, train_targets=shuffled, test_inputs=None, test_targets=None)
# recipe = Recipe(**NETWORK | dict(weight_decay=5e-4, lr=0.1), epochs=EPOCHS)
# shots = list(train(recipe, data=nonsense, every=20))
# for shot in shots:
#     print(shot.epoch, *(f"{shot.train[key]:.3g}" for key in ("accuracy", "nc1_quotient", "etf_distance", "nc3")))
# ```
#
# The labels are learned by heart, and the class means come *closer* to a simplex than with the true labels and the
# same settings (an ETF distance of 0.02 in place of 0.05 to 0.07, two seeds): no pair of these classes is more alike
# than another. The scatter is more than fifteen times that of the true classes. NC2 without NC1 is no sign of
# understanding.
#
# </details>
#
# ## Summary
#
# - In the terminal phase the training error is 0 and the last layer still changes: NC1 falls by another
#   factor of about ten here, the class means approach a simplex ETF, the weights line up with them.
# - NC4 is 0 from the last mistake on: it says little about how far collapse has gone.
# - The test set follows part of the way: its NC1 ends several times above that of the training set; in the shape of
#   the means and in NC3 it is nearly as far.
# - Free features, cross-entropy and weight decay suffice for all of it, down to rounding, with a norm and a loss that
#   one equation in one variable predicts to five digits; above $\lambda = \sqrt n / N$ everything collapses to zero.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
# - D. G. Mixon, H. Parshall, J. Pi. *Neural collapse with unconstrained features.* 2020.
#   [arXiv 2011.11619](https://arxiv.org/abs/2011.11619)
# - C. Fang, H. He, Q. Long, W. J. Su. *Exploring deep neural networks via layer-peeled model: minority collapse in
#   imbalanced training.* PNAS 2021. [arXiv 2101.12699](https://arxiv.org/abs/2101.12699)
# - Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu. *A geometric analysis of neural collapse with
#   unconstrained features.* NeurIPS 2021. [arXiv 2105.02375](https://arxiv.org/abs/2105.02375)
# - J. Lu, S. Steinerberger. *Neural collapse under cross-entropy loss.* Applied and Computational Harmonic
#   Analysis 2022. [arXiv 2012.08465](https://arxiv.org/abs/2012.08465)
# - T. Galanti, A. György, M. Hutter. *On the role of neural collapse in transfer learning.* ICLR 2022.
#   [arXiv 2112.15121](https://arxiv.org/abs/2112.15121)
# - L. Hui, M. Belkin, P. Nakkiran. *Limitations of neural collapse for understanding generalization in deep
#   learning.* 2022. [arXiv 2202.08384](https://arxiv.org/abs/2202.08384)
#
# **Next:** [The simplex ETF](02_simplex_etf.ipynb).
