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
# # Guided training: standard, fixed or nearest?
#
# Three ways to end a network now stand side by side. The classifier may be *learned* with everything else; it may be a
# simplex ETF that was *fixed* before training began; or it may be, at every step, the simplex ETF *nearest* to the
# class means. All three can end in neural collapse. This chapter trains them on the same data, from the same initial
# weights and with the same batches, over several seeds, and asks metric by metric who gets further, by how much, and
# whether the seeds agree. Some of the answers favour the nearest ETF, some do not, and on accuracy digits have little
# to say.
#
# *You will learn*
#
# - how the three heads differ in one training step, and through which paths the loss reaches the features;
# - why cross-entropy on features of norm $\tau$ has a floor, what it is, and that only a collapsed simplex ETF attains
#   it;
# - how to compare training methods fairly: paired seeds, medians and ranges, and how little five seeds can prove;
# - what each head does to accuracy and to every metric of neural collapse, epoch by epoch;
# - what changes with fewer samples, with no network at all, and with the dot-regression loss;
# - how to run the same comparison at the published size.

# %%
import math
from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from plotly.subplots import make_subplots

from ncbook import FixedETFHead, LearnedHead, NearestETFHead, Recipe, Trainer, load_dataset, plots, simplex_etf, train
from ncbook.book import median_range, profile, say, show_code, table
from ncbook.heads import HEADS

PROFILE, DATASET, BACKBONE, TRAIN_SIZE, BATCH, EPOCHS, EVERY, SEEDS, FEW, FEW_BATCH, FEW_EPOCHS, FREE_EPOCHS = profile(
    quick=dict(DATASET="digits", BACKBONE="small_cnn", TRAIN_SIZE=600, BATCH=64, EPOCHS=8, EVERY=1, SEEDS=2,
               FEW=100, FEW_BATCH=25, FEW_EPOCHS=10, FREE_EPOCHS=45),
    book=dict(DATASET="digits", BACKBONE="small_cnn", TRAIN_SIZE=None, BATCH=64, EPOCHS=12, EVERY=1, SEEDS=5,
              FEW=100, FEW_BATCH=25, FEW_EPOCHS=20, FREE_EPOCHS=120),
    paper=dict(DATASET="cifar10", BACKBONE="resnet18", TRAIN_SIZE=None, BATCH=256, EPOCHS=200, EVERY=5, SEEDS=5,
               FEW=4000, FEW_BATCH=256, FEW_EPOCHS=200, FREE_EPOCHS=2000),
)
SCALE = 5.0  # the feature norm tau
MEASURED = PROFILE != "paper"  # comparisons are asserted where they have been measured
METHODS = {HEADS[head].method: head for head in ("cosine", "fixed", "nearest", "learned")}
GUIDED = tuple(METHODS)[:3]  # those with normalised features

# %% [markdown]
# ## 1. Three heads, side by side
#
# *What exactly differs between the three, in one step?* Let $z \in \mathbb{R}^d$ be what the backbone returns for an
# image of class $y \in \{1, \dots, C\}$. All three heads first put it on a sphere of radius $\tau = 5$, the published
# value,
#
# $$ f = \tau\, \frac{z}{\|z\|}, \qquad \text{logits } = W f + b, \qquad
#    \ell = -\log \frac{e^{w_y \cdot f + b_y}}{\sum_c e^{w_c \cdot f + b_c}}, $$
#
# with $W$ of shape $(C, d)$, its unit rows $w_c$, and a bias $b \in \mathbb{R}^C$. They differ in where $W$ and $b$
# come from:
#
# | | standard | fixed | nearest |
# |---|---|---|---|
# | rows of $W$ | $w_c = v_c/\lVert v_c\rVert$, any unit vectors | canonical simplex ETF | nearest ETF of the $m_c$ |
# | what decides them | SGD on $V$ | a choice before training | moving averages $m_c$ of the class means of $f$ |
# | bias $b$ | none | $0$ | $-W \bar m$, with $\bar m$ the mean of the $m_c$ |
# | trained parameters | $C d$ | none | none |
# | the loss reaches $z$ through | $f$ | $f$ | $f$ *and* $W(f)$ |
# | state in a checkpoint | $V$ | $W$ | the averages, $W$, $b$ |
#
# *Standard* is the baseline of Markou, Ajanthan and Gould (2024): a learned classifier whose rows are kept at unit
# norm, so that it differs from the other two in nothing but its freedom to choose angles. *Fixed* follows Zhu et al.
# (2021) and Yang et al. (2022). *Nearest* is the head of chapter 05 fed with the averages of chapter 07. Here are the
# three forward passes from the package, in this order. (The learned head keeps its rows at unit norm by a
# parametrisation of `weight`.)

# %%
show_code(LearnedHead.forward, FixedETFHead.forward, NearestETFHead.forward)

# %% [markdown]
# One batch tells them apart. We send the same images through the same untrained backbone to the three heads, and look
# at the rows of $W$ and at the gradient of the loss with respect to $f$'s source $z$. For the nearest head we split
# that gradient: the part through $f$ alone (recomputed with $W$ and $b$ held constant), and the rest, which arrives
# through $W$ and $b$.

# %%
data = load_dataset(DATASET, train_size=TRAIN_SIZE)
C = data.num_classes
BASE = Recipe(dataset=DATASET, train_size=TRAIN_SIZE, backbone=BACKBONE, batch_size=BATCH, epochs=EPOCHS, scale=SCALE,
              frame="canonical")


def one_batch(method):
    trainer = Trainer(replace(BASE, head=METHODS[method]), data=data)
    head, inputs, targets = trainer.head, trainer.data.train_inputs[:BATCH], trainer.data.train_targets[:BATCH]
    z = trainer.backbone(inputs).detach().requires_grad_()
    (total,) = torch.autograd.grad(F.cross_entropy(head(z, targets), targets), z)
    bias = torch.zeros(C, device=z.device) if head.bias is None else head.bias
    constant = F.linear(head.embed(z), head.weight.detach(), bias.detach())
    (through_f,) = torch.autograd.grad(F.cross_entropy(constant, targets), z)
    w = head.weight.detach()
    cosines = (F.normalize(w) @ F.normalize(w).T)[~torch.eye(C, dtype=torch.bool, device=w.device)]
    return SimpleNamespace(parameters=sum(p.numel() for p in head.parameters()), norms=w.norm(dim=1),
                           angles=(cosines + 1 / (C - 1)).abs().max(),
                           through_w=(total - through_f).norm() / through_f.norm())


batch = {method: one_batch(method) for method in GUIDED}
table(["one batch, before training", *GUIDED], [
    ["trained parameters in the head", *(b.parameters for b in batch.values())],
    ["row norms, smallest to largest", *(f"{b.norms.min():.4f} to {b.norms.max():.4f}" for b in batch.values())],
    ["largest deviation of a cosine from −1/(C−1)", *(f"{b.angles:.1e}" for b in batch.values())],
    ["gradient through W and b, relative to that through f", *(f"{b.through_w:.2f}" for b in batch.values())]])
assert batch["fixed"].parameters == batch["nearest"].parameters == 0 < batch["standard"].parameters
assert all(torch.allclose(b.norms, torch.ones_like(b.norms), atol=1e-5) for b in batch.values())
assert max(batch["fixed"].angles, batch["nearest"].angles) < 1e-5 < batch["standard"].angles
assert batch["nearest"].through_w > 0.01 and max(batch["standard"].through_w, batch["fixed"].through_w) < 1e-5

# %% [markdown]
# The nearest head is a simplex ETF from its first step, without a single trained parameter, and it is the only one with
# a second path from the loss to the features: features can lower the loss also by *turning the classifier*.
#
# How long does that second path stay open? The gradient runs through the current batch's share of the average, and
# update $t$ of the average (the ramp of chapter 07) has the share $\alpha_t = \max(2/(t+1),\, 10^{-4})$.

# %%
steps_per_epoch = len(data.train_targets) // BATCH
moments = {"first step": 1, "end of epoch 1": steps_per_epoch, f"end of epoch {EPOCHS}": EPOCHS * steps_per_epoch}
shares = [max(2 / (t + 1), 1e-4) for t in moments.values()]
table(["moment", "update t", "share of the batch in the average"],
      [[when, t, f"{share:.4f}"] for (when, t), share in zip(moments.items(), shares)])
assert shares == sorted(shares, reverse=True)

# %% [markdown]
# It closes by itself. In the first steps the nearest head looks for a frame together with the features; later it is
# close to a fixed head whose frame was chosen after a look at the data. Whether that helps or hinders, the early
# epochs are the place to look.
#
# ## 2. The floor that normalised features put under the loss
#
# *How low can the loss go?* A plain linear classifier can scale its logits without end, and its cross-entropy goes to
# 0. With $\|f\| = \tau$ and unit rows it cannot: there is a floor, and the exact simplex ETF attains it.
#
# **At an exact ETF.** Let every feature sit on its row, $f = \tau w_y$, and let $W$ be a simplex ETF. The logit of the
# true class is $\tau$, every other is $-\tau/(C-1)$, so with $b = 0$
#
# $$ \ell^\star = \log\!\Big(1 + (C-1)\, e^{-\tau C/(C-1)}\Big). \tag{1} $$
#
# **Nothing is lower.** Take any unit rows with mean $\bar w$ and $N$ features of norm $\tau$, equally many for each
# class. For one sample let $a_i$ be the mean over $c \ne y_i$ of $(w_{y_i} - w_c) \cdot f_i$, which is
# $\frac{C}{C-1}(w_{y_i} - \bar w)\cdot f_i$. The mean of exponentials is at least the exponential of the mean, so
#
# $$ \ell_i = \log\!\Big(1 + \sum_{c \neq y_i} e^{-(w_{y_i} - w_c)\cdot f_i}\Big) \;\ge\; g(a_i), \qquad
#    g(a) = \log\!\big(1 + (C-1)\, e^{-a}\big). $$
#
# The function $g$ is convex and decreasing. Averaging over the samples, then Cauchy-Schwarz twice, gives
#
# $$ \frac1N \sum_i \ell_i \;\ge\; g\Big(\frac1N\sum_i a_i\Big), \qquad
#    \frac1N\sum_i a_i \;\le\; \frac{C\tau}{C-1} \cdot \frac1C \sum_c \|w_c - \bar w\|
#    \;\le\; \frac{C\tau}{C-1} \sqrt{1 - \|\bar w\|^2} \;\le\; \frac{C\tau}{C-1}. $$
#
# (A bias changes none of this: it adds $b_{y_i}$ less the mean of the other biases to $a_i$, and over balanced classes
# these terms average to 0.)
#
# Equality throughout asks for $\bar w = 0$, for every feature on its own row (NC1 and NC3), and for equal wrong logits,
# which means equal angles between the rows (NC2). So, if there is room for a simplex ETF ($d \ge C - 1$), **the minimum
# of the loss is neural collapse**, whichever of the three heads is used, and the floor is (1). (With less room (1) is
# still a lower bound.) Graf et al. (2021) prove it for balls in place of spheres, Yaras et al. (2022) study the same
# problem as an optimisation over spheres. Digits are nearly, not exactly, balanced; section 8 has data that are.
#
# The proof can be tested: at an exact ETF, at random rows and features, and by an optimiser that starts from random
# ones.

# %%
def loss_floor(num_classes, scale=SCALE):
    """Equation (1): the least mean cross-entropy of balanced classes, in nats."""
    return math.log1p((num_classes - 1) * math.exp(-scale * num_classes / (num_classes - 1)))


def sphere_loss(rows, features, labels):
    return F.cross_entropy(SCALE * F.normalize(features, dim=1) @ F.normalize(rows, dim=1).T, labels)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def closure():
    optimiser.zero_grad()
    loss = sphere_loss(rows, points, labels)
    loss.backward()
    return loss


K, generator, labels = 10, torch.Generator().manual_seed(0), torch.arange(10).repeat(3)
etf = simplex_etf(K, 16, dtype=torch.float64)
at_etf = sphere_loss(etf, etf[labels], labels).item()
lowest_draw = min(sphere_loss(draw(K, 16), draw(len(labels), 16), labels).item() for _ in range(500))
rows, points = draw(K, 16).requires_grad_(), draw(len(labels), 16).requires_grad_()
optimiser = torch.optim.LBFGS([rows, points], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16,
                              line_search_fn="strong_wolfe")
optimiser.step(closure)
found = sphere_loss(rows, points, labels).item()
unit = F.normalize(rows.detach(), dim=1)
worst_angle = ((unit @ unit.T + 1 / (K - 1)) * (1 - torch.eye(K))).abs().max().item()
table([f"C = {K}, τ = {SCALE:g}", "cross-entropy"],
      [["floor, equation (1)", f"{loss_floor(K):.6f}"], ["exact simplex ETF", f"{at_etf:.6f}"],
       ["lowest of 500 random draws", f"{lowest_draw:.6f}"], ["free optimisation from a random start", f"{found:.6f}"]])
say(f"The optimiser found rows whose cosines differ from −1/{K - 1} by at most {worst_angle:.0e}. At "
    f"the floor the true class gets a probability of {math.exp(-loss_floor(K)):.3f}, no more.")
assert math.isclose(at_etf, loss_floor(K), rel_tol=1e-9) and lowest_draw > loss_floor(K)
assert 0 <= found - loss_floor(K) + 1e-9 < 1e-6 and worst_angle < 1e-2

# %% [markdown]
# How does the floor depend on $\tau$ and on the number of classes?

# %%
scales, fig = torch.linspace(1, 25, 49).tolist(), go.Figure()
for count, colour, dash in zip((10, 100, 1000), plots.CLASS_COLORS, ("solid", "dash", "dot")):
    fig.add_scatter(x=scales, y=[loss_floor(count, scale) for scale in scales], mode="lines",
                    name=f"{count} classes: {loss_floor(count):.3g} at τ = 5", line=dict(color=colour, dash=dash))
    fig.add_scatter(x=[SCALE], y=[loss_floor(count)], mode="markers", marker=dict(color=colour, size=10),
                    showlegend=False)
fig.add_vline(x=SCALE, line=dict(color="#666666", width=1, dash="dot")).update_xaxes(title="feature norm τ")
fig.update_yaxes(title="least cross-entropy (nats)", type="log", dtick=2, exponentformat="e", range=[-8.6, 1.4])
plots.finish(fig, "The floor of cross-entropy on features of norm τ", "points: τ = 5, the published value", height=400)

# %% [markdown]
# At $\tau = 5$ the floor is low for ten classes. For a thousand it is so high that the most collapsed network there can
# be still gives its own training images a small probability of being what they are. The loss then says little about how
# well a network fits, and a larger $\tau$ is in order (exercise 1). For training the practical advice is to look at the
# loss *above* the floor: that, and not the loss itself, goes to 0.
#
# ## 3. A fair comparison
#
# *What must be equal for the comparison to be fair?* Everything but the head. For each seed, the four runs below share
# the data, the initial weights of the backbone, the order of the samples and the learning rate schedule. So runs of one
# seed come in fours, and we may compare *within* a seed. The fourth is a plain linear classifier (weights and bias
# free, features not normalised), the usual end of a network, and the one with which neural collapse was first observed.

# %%
def run(method, seed, recipe=BASE, data=data, every=EVERY):
    return list(train(replace(recipe, head=METHODS[method], seed=seed), data=data, every=every))


def over_seeds(rows, column, form=".3g", above=0.0):
    return median_range((row[column] - above for row in rows), form)


runs = {method: [run(method, seed) for seed in range(SEEDS)] for method in METHODS}
last = {method: [shots[-1].row() for shots in runs[method]] for method in runs}
for seed in range(SEEDS):
    start, *others = (runs[method][seed][0].features for method in GUIDED)
    assert all(torch.equal(start, other) for other in others), "the same features at epoch 0"
floor = loss_floor(C)
table(["after training, median (range)", *runs], [
    ["test accuracy, %", *(over_seeds(rows, "test_accuracy", ".2f") for rows in last.values())],
    ["training accuracy, %", *(over_seeds(rows, "train_accuracy", ".2f") for rows in last.values())],
    ["training loss", *(over_seeds(rows, "train_loss", ".4f") for rows in last.values())],
    [f"training loss above {floor:.4f}", *(over_seeds(last[m], "train_loss", ".4f", floor) for m in GUIDED),
     "no floor"]])
say(f"{SEEDS} seeds, {EPOCHS} epochs of {len(data.train_targets)} training images of {DATASET}.")
assert all(row["train_loss"] > floor for method in GUIDED for row in last[method])
assert all(row["train_loss"] < floor for row in last["linear"])

# %% [markdown]
# Now the same over epochs. *Does the loss approach its floor, and how fast?*

# %%
fig = plots.metric_curves(runs, ["loss", "accuracy", "nc4"], title="Training: the loss approaches its floor")
fig.add_hline(y=floor, line=dict(color="#222222", width=1.5, dash="dot"), row=1, col=1)
fig.add_annotation(text=f"floor {floor:.4f}", x=0.02, xref="x domain", y=math.log10(floor), xanchor="left",
                   yanchor="top", showarrow=False, font_size=12, row=1, col=1)
fig

# %% [markdown]
# The three normalised heads come down to the dotted floor and stay above it, as the proof says; the plain linear head
# has nothing under it and passes. Losses of heads with and without normalisation are therefore not comparable;
# accuracies are. NC4, the share of images on which the classifier and the nearest class mean disagree, falls with the
# errors. The next figure asks what is left of the differences on images that the network has not seen.

# %%
plots.metric_curves(runs, ["accuracy", "loss", "cosine_margin"], split="test", title="On the test set")

# %% [markdown]
# After the first epochs the bands of accuracy lie on top of each other. How finely could they be told apart at all? One
# test image is a definite step in accuracy, and the whole contest happens within a few such steps.

# %%
accuracies = [[row["test_accuracy"] for row in last[method]] for method in GUIDED]
step = 100 / len(data.test_targets)
gap = max(map(median, accuracies)) - min(map(median, accuracies))
within = max(max(of_head) - min(of_head) for of_head in accuracies)
say(f"The test set has {len(data.test_targets)} images, so one image is {step:.2f} percentage points. Between the "
    f"three heads the medians of test accuracy differ by {gap:.2f} points, {gap / step:.1f} images; within one head "
    f"the seeds differ by up to {within:.2f} points, {within / step:.1f} images.")

# %% [markdown]
# ## 4. Every metric of neural collapse, over epochs
#
# The metrics are those of chapter 01, on the training set, in evaluation mode, for the three heads with normalised
# features. Features are what the classifier sees, of norm $\tau$.
#
# **NC1 and its relatives.** *Do the features of a class become one point?* All should go to 0, except the numerical
# rank, which goes to 1, and the cosine margin, whose limit is $C/(C-1)$. (The numerical rank starts low, rises when
# the classes part, and is still far from 1 at the end.)

# %%
guided = {method: runs[method] for method in GUIDED}
plots.metric_curves(guided, ["nc1", "nc1_quotient", "cdnv", "vci", "numerical_rank", "cosine_margin"],
                    title="NC1: within-class variability")

# %% [markdown]
# **NC2.** *Do the class means become a simplex ETF?* The last two panels ask the same of the classifier's rows; heads
# whose rows are an ETF, or of unit norm, by construction sit there at the rounding of float32 from beginning to end.

# %%
plots.metric_curves(guided, ["nc2_equinorm", "nc2_equiangular", "nc2_gram", "etf_distance", "weight_equiangular",
                             "weight_equinorm"], title="NC2: equal norms and equal angles")

# %% [markdown]
# **NC3.** *Does the classifier point where the means point?* The last panel is the length of $W\mu_G + b$, with $\mu_G$
# the mean of all class means: 0 when no class has an advantage. (NC4, whether the classifier decides like the nearest
# class mean, was in the figure of the losses.)

# %%
plots.metric_curves(guided, ["nc3", "nc3_gram", "bias_collapse"], title="NC3: the classifier and the means")

# %% [markdown]
# Read the figures family by family.
#
# - *Within-class variability* falls much alike for the three heads. What separates them there is less than what
#   separates them from the plain linear head (in the table below), which can lower its loss with longer features
#   instead.
# - *Angles between means* are where a prescribed ETF tells. The learned rows come near equal angles but not there; both
#   ETF heads bring the means several times closer.
# - *NC3* is the nearest head's own ground. A fixed frame waits for the means to arrive, and learned rows approach them
#   by gradient steps; the nearest ETF is moved to the means by its definition.
#
# These three impressions can be put to the test.

# %%
def at_end(key):
    return {method: median(row[f"train_{key}"] for row in last[method]) for method in last}


nc1, angles, nc3 = map(at_end, ("nc1", "etf_distance", "nc3"))
among = max(nc1[m] for m in GUIDED) / min(nc1[m] for m in GUIDED)
behind = nc1["linear"] / max(nc1[m] for m in GUIDED)
table(["training set, medians at the end", *last],
      [[plots.metric_label(key), *(f"{number:.3g}" for number in at_end(key).values())]
       for key in ("nc1", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3", "cosine_margin")])
say(f"In NC1 the three heads lie within a factor of {among:.2f} of each other; the plain linear head is a "
    f"factor of {behind:.2f} behind the last of them.")
if MEASURED:
    assert among < behind and 4 * max(angles["fixed"], angles["nearest"]) < angles["standard"]
    assert nc3["nearest"] < min(nc3["standard"], nc3["fixed"])

# %% [markdown]
# How many epochs does each head need to reach a given level?

# %%
LEVELS = [("training accuracy ≥ 0.99", "accuracy", 0.99), ("loss within 0.02 of the floor", "loss", floor + 0.02),
          ("cosine margin ≥ 0.9", "cosine_margin", 0.9), ("NC1 ≤ 0.1", "nc1", 0.1),
          ("unequal angles ≤ 0.05", "nc2_equiangular", 0.05), ("distance to nearest ETF ≤ 0.01", "etf_distance", 0.01),
          ("NC3 ≤ 0.01", "nc3", 0.01)]
HIGHER = ("accuracy", "cosine_margin")  # better when larger


def epochs_needed(method, key, level):
    """Median and range of the first evaluated epoch at which the level is reached, where all seeds reach it."""
    if key == "loss" and method not in GUIDED:
        return "no floor"
    sign = 1 if key in HIGHER else -1
    levels = [[shot.epoch for shot in shots if sign * shot.train[key] >= sign * level] for shots in runs[method]]
    reached = [epochs[0] for epochs in levels if epochs]
    if len(reached) < SEEDS:
        return f"{len(reached)} of {SEEDS} seeds" if reached else "never"
    return median_range(reached, "g")


table(["epochs to reach, median (range)", *runs],
      [[name, *(epochs_needed(method, *level) for method in runs)] for name, *level in LEVELS])

# %% [markdown]
# "Never" means not within these epochs, at whose end the learning rate goes to 0.
#
# ## 5. The geometry at the end
#
# *What do these numbers look like?* First the cosines between the centred class means of seed 0. White is the simplex
# ETF's cosine, the same for every pair; red pairs are too close, blue pairs too far.

# %%
plots.cosine_heatmaps({method: runs[method][0][-1].class_means for method in GUIDED}, class_names=data.class_names,
                      title="Cosines between class means after training, seed 0", width=860)

# %% [markdown]
# The learned head's map shows which classes it keeps too close together and which it pushes too far apart: it has found
# angles that serve this training set, not equal angles. The other two are close to blank.
#
# And on the way there? The animation below plays without a kernel: press Play. Each panel uses the coordinates of
# chapter 02, in which the nearest simplex ETF (grey) stands still, so what you see is the *shape* of the class means
# and not their rotation. Dots are features, discs class means, diamonds classifier rows.

# %%
def parts(shot):
    """What is drawn of a snapshot, with few features: the page stays small."""
    return dict(class_means=shot.class_means, features=shot.features[:40], targets=shot.targets[:40],
                weight=shot.weight)


films = {method: [*first[:6], *first[6:-1:3], first[-1]] for method, (first, *_) in guided.items()}
changes = [{} for _ in films["nearest"]]
fig = make_subplots(1, 3, subplot_titles=GUIDED, horizontal_spacing=0.03)
for column, (method, shots) in enumerate(films.items(), start=1):
    still = plots.geometry(**parts(shots[-1]), class_names=data.class_names)
    for trace in still.data:
        key = trace.meta == "legend"
        trace.update(name=trace.name + f" {method}" * (not key), showlegend=key and column == 1)
    fig.add_traces(still.data, rows=1, cols=column)
    for change, shot in zip(changes, shots, strict=True):
        change |= {f"{name} {method}": plots.xyz(at) for name, at in plots.geometry_coordinates(**parts(shot)).items()}
    fig.update_yaxes(scaleanchor="x" + str(column) * (column > 1), row=1, col=column)
plain = dict(range=[-1.8, 1.8], showticklabels=False, ticks="", constrain="domain")
fig.update_xaxes(**plain).update_yaxes(**plain)
plots.finish(fig, "Class means on their way to the simplex ETF",
             f"training set, seed 0; projection in which the ETF is a regular {C}-gon", width=900,
             margin=dict(l=24), legend=dict(orientation="h", x=0, y=-0.04, yanchor="top"))
plots.animate(fig, [f"{shot.epoch:g}" for shot in films["nearest"]], changes, prefix="epoch ", transition=70, below=70)

# %% [markdown]
# In the first epochs the three panels differ most in their diamonds. Learned rows start anywhere; the fixed frame
# starts in the right shape but unrelated to the means; from epoch 1 on the nearest frame lies close to the grey figure,
# since both are nearest ETFs, one to the averages and one to the present means. How far do the classifiers move? Here
# is the distance between $W$ at successive evaluations, per row, so that 0 is standing still and 2 is the most that a
# unit row can move.

# %%
moves = {method: [[(b.weight - a.weight).norm().item() / math.sqrt(C) for a, b in zip(shots, shots[1:])]
                  for shots in runs[method]] for method in GUIDED}
epochs = [shot.epoch for shot in runs["fixed"][0][1:]]
table(["movement of W up to epoch", *GUIDED],
      [[epochs[i], *(median_range((seed[i] for seed in moves[method]), ".2g") for method in GUIDED)]
       for i in sorted({0, 1, 2, (len(epochs) - 1) // 2, len(epochs) - 1})])
assert all(value == 0 for seed in moves["fixed"] for value in seed)
assert all(seed[0] > 5 * seed[-1] for seed in moves["nearest"])

# %% [markdown]
# The nearest frame turns in the first epoch and then slows down, as the shrinking share of the batch foretold; at the
# very end the learned rows, whose learning rate goes to 0, are stiller.
#
# ## 6. Paired over seeds
#
# *Is a difference real, or is it the seed?* Runs of the same seed share their start and their batches, so we compare
# them in pairs. For metrics that go to 0 the natural comparison is the ratio, for accuracy, margin and NC4 the
# difference. A ratio below 1 means that the first-named head is further collapsed.

# %%
CONTESTS = [("nearest", "standard"), ("nearest", "fixed"), ("fixed", "standard")]
ON_TEST = ["test_accuracy", "test_loss", "test_nc1", "test_etf_distance", "test_cosine_margin"]
ON_TRAIN = [f"train_{key}" for key in ("loss", "nc1", "nc1_quotient", "cdnv", "vci", "numerical_rank", "cosine_margin",
                                       "nc2_equinorm", "nc2_equiangular", "nc2_gram", "etf_distance", "nc3", "nc3_gram",
                                       "nc4", "bias_collapse")]
DIFFERENCES = (*HIGHER, "nc4")


def compared(row, column):
    """A metric as it is compared: the training loss above its floor, the numerical rank above 1."""
    return row[column] - (floor if column == "train_loss" else column.endswith("numerical_rank"))


def label(column):
    extra = {"train_loss": " above the floor", "train_numerical_rank": " − 1"}
    return plots.metric_label(column.split("_", 1)[1]) + extra.get(column, "")


def pairs(first, second, column, ends=last):
    return [(compared(a, column), compared(b, column)) for a, b in zip(ends[first], ends[second], strict=True)]


def show_paired(title, columns, contests=CONTESTS, ends=last):
    def said(column, contest):
        if column.endswith(DIFFERENCES):
            return median_range((a - b for a, b in pairs(*contest, column, ends)), "+.3f")
        return "×" + median_range((a / b for a, b in pairs(*contest, column, ends)), ".2f")

    table([title, *(f"{a} against {b}" for a, b in contests)],
          [[label(column), *(said(column, contest) for contest in contests)] for column in columns])


show_paired("test set", ON_TEST)
show_paired("training set", ON_TRAIN)

# %% [markdown]
# ## 7. Fewer samples: does the head matter for accuracy?
#
# On all of the digits every head is nearly perfect, so accuracy could not have told them apart. With few images there
# is room for a difference. Each seed now draws its own small stratified split, again the same for all heads.

# %%
few_data = [load_dataset(DATASET, train_size=FEW, split=seed) for seed in range(SEEDS)]
FEW_RECIPE = replace(BASE, train_size=FEW, batch_size=FEW_BATCH, epochs=FEW_EPOCHS)
few = {method: [run(method, seed, replace(FEW_RECIPE, split=seed), few_data[seed], every=FEW_EPOCHS)[-1].row()
                for seed in range(SEEDS)] for method in METHODS}
plots.seed_summary(few, "test_accuracy", title=f"{FEW} training images")

# %%
show_paired(f"{FEW} images, test set", ["test_accuracy"], [*CONTESTS, ("nearest", "linear")], few)


def wins(first, second, column, ends=last):
    """In how many seeds the first head is better than the second, equal, and worse."""
    sign, both = 1 if column.endswith(HIGHER) else -1, pairs(first, second, column, ends)
    signs = [(sign * a > sign * b) - (sign * a < sign * b) for a, b in both]
    return [signs.count(outcome) for outcome in (1, 0, -1)]


said = [f"{a} is better than {b} in {{}}, equal in {{}} and worse in {{}}".format(*wins(a, b, "test_accuracy", few))
        for a, b in CONTESTS]
columns = [[row["test_accuracy"] for row in few[m]] for m in GUIDED]
widest = max(max(numbers) - min(numbers) for numbers in columns)
say(f"Of {SEEDS} splits, " + "; ".join(said) + f". Within one head the accuracy varies by up to "
    f"{widest:.2f} points from split to split.")

# %% [markdown]
# Each column scatters, mostly because the splits differ: some sets of images teach more than others. That is why the
# *pairs* must be compared and not the columns. Where the range of a pair includes zero, these runs do not say who is
# better; where one head wins every split, they give a hint, and with so few splits no more than that.
#
# ## 8. No network at all: unconstrained features
#
# *How much of this is the head, and how much the backbone?* The unconstrained-features model takes the backbone away:
# each sample's $z$ is a free parameter (Mixon et al., 2020; Zhu et al., 2021). What a network can represent no longer
# matters, classes are exactly balanced, and the floor (1) holds to the letter. We look at two situations.
#
# First, more classes, and all the samples at every step, so that class means are never estimated from a part:

# %%
def free_runs(classes, batch_size, lr, epochs):
    """Rows of free features by head and seed, with the loss above the floor as a metric of its own."""
    recipe = Recipe(dataset="unconstrained", classes=classes, train_size=1000, backbone="free_features", feature_dim=64,
                    batch_size=batch_size, lr=lr, weight_decay=0.0, epochs=epochs, scale=SCALE, frame="canonical")
    free, least = load_dataset("unconstrained", classes=classes, train_size=1000), loss_floor(classes)
    return {m: [[s.row() | {"train_loss above the floor": s.train["loss"] - least}
                 for s in run(m, seed, recipe, free, every=max(1, epochs // 15))] for seed in range(min(SEEDS, 3))]
            for m in GUIDED}


SHOWN = ["loss above the floor", "etf_distance"]
whole = free_runs(classes=40, batch_size=1000, lr=10.0, epochs=FREE_EPOCHS)
plots.metric_curves(whole, SHOWN, title="Free features, 40 classes, all samples at every step")

# %% [markdown]
# Second, ten classes and a tenth of the samples at every step. Each sample is now touched once an epoch, and by a large
# step:

# %%
parted = free_runs(classes=10, batch_size=100, lr=20.0, epochs=max(10, FREE_EPOCHS // 5))
plots.metric_curves(parted, SHOWN, title="Free features, 10 classes, a tenth of the samples a step")

# %%
on_whole, on_parted = ({m: [rows[-1]["train_loss above the floor"] for rows in free[m]] for m in GUIDED}
                       for free in (whole, parted))
table(["loss above the floor, at the end", *GUIDED],
      [["40 classes, all samples", *(median_range(on_whole[m], ".2e") for m in GUIDED)],
       ["10 classes, a tenth", *(median_range(on_parted[m], ".2e") for m in GUIDED)]])
assert all(gap > -1e-6 for m in GUIDED for gap in on_whole[m] + on_parted[m])
if MEASURED:
    assert min(on_whole["standard"]) > max(on_whole["nearest"] + on_whole["fixed"])
    assert min(on_parted["nearest"]) > max(on_parted["standard"] + on_parted["fixed"])

# %% [markdown]
# Two situations, two orders. With all samples at each step both ETF heads end far below the learned one, whose forty
# rows are still looking for equal angles. With parts of the samples and large steps **the nearest head comes last**. A
# likely reading, not proved here: free features share no weights, so a step on one sample tells the others nothing;
# while the frame still turns, every batch is pulled towards a different frame; and by the time it rests, the large
# steps have made the features long, and long features turn slowly, because the gradient with respect to $z$ is
# proportional to $1/\|z\|$. In a network one step moves all samples at once: on the digits the nearest head was behind
# the other two in loss and accuracy only after the first epoch. The lesson for practice is modest: if the nearest head
# is slow on your data, look at the first epochs, and at the size of steps and batches there.
#
# ## 9. Another loss: dot regression
#
# *Must it be cross-entropy?* Cross-entropy at an ETF does two things: it pulls a feature towards its own row and pushes
# it from the others. When the rows are an ETF already, the pull is enough, for whoever is at $w_y$ is at equal distance
# from the rest. Yang et al. (2022) therefore propose the **dot-regression loss**; with $\tau = 1$ and the head's bias
# ($0$ for the fixed head),
#
# $$ \mathcal L_{\mathrm{DR}} = \frac{1}{2N} \sum_{i=1}^N \big(w_{y_i}\cdot f_i + b_{y_i} - 1\big)^2 . $$
#
# The wrong classes do not occur in it. That rules out the learned head: all rows equal and all features on them would
# be a perfect solution and a useless classifier, and a `Recipe` refuses the combination.

# %%
try:
    Recipe(head="cosine", loss="dot_regression")
except ValueError as error:
    refusal = str(error)
print(refusal)

DOT_SEEDS = min(SEEDS, 3)
DOT = replace(BASE, head="fixed", loss="dot_regression", scale=1.0, lr=5 * BASE.lr)
dot = {method: [run(method, seed, DOT)[-1].row() for seed in range(DOT_SEEDS)] for method in ("fixed", "nearest")}
ends = {f"{m}, {name}": group[m][:DOT_SEEDS] for m in ("fixed", "nearest")
        for name, group in (("cross-entropy", last), ("dot regression", dot))}
table(["median (range)", *ends],
      [["test accuracy, %", *(over_seeds(rows, "test_accuracy", ".2f") for rows in ends.values())]]
      + [[plots.metric_label(key), *(over_seeds(rows, f"train_{key}") for rows in ends.values())]
         for key in ("nc1", "nc2_equiangular", "etf_distance", "nc3", "cosine_margin")])
say(f"{DOT_SEEDS} seeds; training set except for the accuracy; dot regression with learning rate "
    f"{DOT.lr:g} in place of {BASE.lr:g}, because the features have norm 1 rather than {SCALE:g}.")
assert all(row["test_accuracy"] > 80 for rows in dot.values() for row in rows)

# %% [markdown]
# A loss that never mentions the wrong classes trains a classifier: the simplex ETF supplies the separation. The table
# says which loss collapses further with the learning rate that it was given here; another learning rate could change
# that, so take it as evidence that the loss works and not as a ranking of losses.
#
# ## 10. Who wins what?
#
# The verdict is computed, not written. For each metric: the head with the best median, how much better it is than the
# second, in how many seeds it beats the second in the paired comparison, and whether their ranges over seeds overlap.
# Metrics that a head gets by construction (row norms and row angles) take no part.

# %%
def verdict(column):
    numbers = {m: [compared(row, column) for row in last[m]] for m in GUIDED}
    sign = 1 if column.endswith(HIGHER) else -1
    best, second, _ = sorted(GUIDED, key=lambda m: -sign * median(numbers[m]))
    better, a, b = wins(best, second, column)[0], median(numbers[best]), median(numbers[second])
    apart = min(sign * x for x in numbers[best]) > max(sign * x for x in numbers[second])
    amount = f"{a - b:+.3f}" if column.endswith(DIFFERENCES) else f"×{a / b:.2f}"
    margin = [best, second, amount, f"{better} of {SEEDS}", "apart" if apart else "overlap"]
    return [label(column), *(f"{median(numbers[m]):.3g}" for m in GUIDED), *(["tie"] + [""] * 4 if a == b else margin)]


on_test = [verdict(f"test_{key}") for key in ("accuracy", "loss", "nc1", "nc2_equiangular", "etf_distance", "nc3",
                                              "nc4", "cosine_margin")]
on_train = [verdict(column) for column in ON_TRAIN]
HEADER = [*GUIDED, "best", "second", "best against second", "seeds won", "ranges"]
table(["test set, medians", *HEADER], on_test)
table(["training set, medians", *HEADER], on_train)


def listing(best, clear):
    chosen = [row[0] for row in on_train if row[4] == best and (row[7] == f"{SEEDS} of {SEEDS}") == clear]
    return ", ".join(chosen) or "none"


lines = [f"**{m}**, ahead of the second in every seed: {listing(m, True)}. Best median but not in every "
         f"seed: {listing(m, False)}." for m in GUIDED]
best, _, points, seeds, ranges = on_test[0][4:]
about_accuracy = "the two best heads have the same median" if best == "tie" else (
    f"{best} has the best median, with {points} points on the second; it wins {seeds} seeds, and the ranges "
    f"{'do not overlap' if ranges == 'apart' else ranges}")
say("On the training set:\n\n" + "\n".join(f"- {line}" for line in lines)
    + f"\n- tied: {listing('tie', False)}.\n\nOn test accuracy {about_accuracy}.\n\n"
    f"If each comparison were the toss of a coin, one head would win all {SEEDS} against another, one way "
    f"or the other, with probability {2 * 0.5**SEEDS:.3g}; and there are {len(ON_TRAIN)} rows in the table.")

# %% [markdown]
# The strong claims are worth asserting, since they hold in every seed and by a wide margin: both ETF heads bring the
# class means closer to a simplex ETF than the learned head does, and the nearest head's rows are closer to the means
# than the fixed head's.

# %%
if MEASURED:
    for standard, fixed, nearest in zip(*(last[method] for method in GUIDED), strict=True):
        for column in ("train_etf_distance", "train_nc2_equiangular"):
            assert max(fixed[column], nearest[column]) < standard[column]
        assert nearest["train_nc3"] < fixed["train_nc3"]
factor = {m: median(b / a for a, b in pairs(m, "standard", "train_etf_distance")) for m in ("fixed", "nearest")}
say(f"The squared distance of the class means to the nearest simplex ETF is {factor['fixed']:.0f} times "
    f"(fixed) and {factor['nearest']:.0f} times (nearest) smaller than with the learned head: medians of "
    "the paired ratios.")

# %% [markdown]
# What should one make of it?
#
# 1. **A prescribed simplex ETF buys geometry.** Equal angles come from either ETF head, and not from the learned one in
#    the same time. Choosing the *nearest* ETF adds alignment of rows and means (NC3); between fixed and nearest the
#    remaining differences are small, and the table says which of them the seeds agree on.
# 2. **It hardly buys accuracy here.** On all of the digits the heads lie within a few test images of each other. With
#    few images the counts of section 7 may hint at a gain over learned rows; five splits cannot establish it. Markou et
#    al. (2024) report faster convergence and smaller spread between runs on larger images and networks; nothing here
#    contradicts or confirms that.
# 3. **It can cost speed.** With free features, small batches and large steps, the moving frame is slower than a frame
#    that stands still.
#
# ## 11. At the published size
#
# Set `NCBOOK_PROFILE=paper` and run this chapter from the top: the cells stay the same and the table under the first
# cell changes. It trains torchvision's ResNet-18 with a stem for small images on CIFAR-10, 200 epochs with batches of
# 256, the published length and batch size, and five seeds. It wants a CUDA device and, once, a network connection for
# the data (or `NCBOOK_DATA` set to a folder that has it). Differences from the published set-up that you should know
# of: no augmentation, and this book's learning rate and weight decay. Section 3 alone makes twenty long runs, section 9
# six more and section 7 twenty on fewer images; to spread them over days or machines, give `train` a checkpoint, and an
# interrupted run goes on where it stopped:
#
# ```python
# recipe = Recipe(dataset="cifar10", backbone="resnet18", head="nearest", epochs=200, batch_size=256, seed=0)
# for shot in train(recipe, every=5, checkpoint="nearest-0.pt", progress=True):
#     print(shot.epoch, shot.test["accuracy"], shot.train["etf_distance"])
# ```
#
# The verdict cells apply to those runs as they do to these.
#
# ## Try it
#
# **1. A fair temperature.** For which $\tau$ is the floor of $C = 1000$ classes as low as that of ten classes at $\tau
# = 5$?
#
# <details><summary>Solution</summary>
#
# Solve (1) for $\tau$: with floor $\ell$, $\tau = \frac{C-1}{C} \log\frac{C-1}{e^{\ell} - 1}$.
#
# ```python
# target, many = loss_floor(10, 5.0), 1000
# tau = (many - 1) / many * math.log((many - 1) / math.expm1(target))
# print(tau, loss_floor(many, tau), target)
# ```
#
# For many classes $\tau$ grows like $\log C$: each factor of ten asks for $\log 10$ more, and at first for a little
# more than that.
# </details>
#
# **2. Cut the second path.** Let the nearest ETF follow the means, but let no gradient run through $W$ and $b$. What is
# lost on the digits? And what on the free features of section 8, a tenth at a step?
#
# <details><summary>Solution</summary>
#
# ```python
# class NearestWithoutPath(NearestETFHead):
#     def forward(self, features, targets=None):
#         if self.training and targets is not None:
#             super().forward(features.detach(), targets)  # moves W and b
#         return F.linear(self.embed(features), self.weight.clone(), self.bias.clone())
#
#
# trainer = Trainer(replace(BASE, head="nearest", seed=0), data=data)
# trainer.head = NearestWithoutPath(trainer.backbone.feature_dim, C, scale=SCALE).to(trainer.device)
# while not trainer.finished:
#     trainer.step()
# for key in ("loss", "etf_distance", "nc3"):
#     print(key, trainer.snapshot().train[key], "with the path:", last["nearest"][0][f"train_{key}"])
# ```
#
# The head has no parameters, so the optimiser need not know that it was exchanged. Compare over several seeds before
# you conclude anything: the share of the batch in the average is small after the first epoch, and so is the difference.
# On the free features the head without the path was the faster one when we tried, and still slower than the fixed head.
# </details>
#
# **3. Another fixed frame.** The fixed head uses the canonical ETF. Does a random one do better or worse?
#
# <details><summary>Solution</summary>
#
# ```python
# def random_frame_run(seed):
#     trainer = Trainer(replace(BASE, head="fixed", seed=seed), data=data)
#     frame = simplex_etf(C, trainer.backbone.feature_dim, generator=torch.Generator().manual_seed(seed))
#     trainer.head.weight.copy_(frame)
#     while not trainer.finished:
#         trainer.step()
#     return trainer.snapshot().row()
#
#
# print("random   ", over_seeds([random_frame_run(seed) for seed in range(SEEDS)], "train_loss", above=floor))
# print("canonical", over_seeds(last["fixed"], "train_loss", above=floor))
# ```
#
# The last layer of the backbone is linear and starts at random, so that no frame is special to it.
# </details>
#
# **4. Shorter features.** Train the three heads with `scale=1.0` and cross-entropy. What is the floor now, what happens
# to the gap above it, and what to NC1?
#
# <details><summary>Solution</summary>
#
# ```python
# for method in GUIDED:
#     shot = run(method, 0, replace(BASE, scale=1.0))[-1].train
#     print(method, shot["loss"], loss_floor(C, 1.0), shot["nc1"], shot["etf_distance"])
# ```
#
# The floor rises above 1 nat, although every training image may be classified correctly. With short features the
# softmax is nearly flat, every class pushes almost equally hard, and the loss resembles a linear pull towards the row.
# </details>
#
# ## Summary
#
# - Standard, fixed and nearest differ in where the unit rows $W$ come from: SGD, a choice before training, or the class
#   means. Only with the nearest ETF does the loss also reach the features through $W$, above all in the first epoch.
# - On features of norm $\tau$ cross-entropy cannot fall below $\log(1 + (C-1)e^{-\tau C/(C-1)})$, and only neural
#   collapse attains it. Watch the loss above the floor.
# - Compare in pairs, over seeds, and report ranges. On digits either ETF head gives far better angles than the learned
#   head, the nearest one better alignment than the fixed one, and nobody a difference in accuracy that these few seeds
#   could establish.
# - The nearest ETF is not always the fastest: with free features, small batches and large steps it is the slowest.
# - With an ETF classifier, the dot-regression loss trains without ever mentioning the wrong classes.
#
# ## References
#
# - F. Graf, C. Hofer, M. Niethammer, R. Kwitt. 2021. *Dissecting Supervised Contrastive Learning*. ICML.
#   arXiv:2102.08817.
# - E. Markou, T. Ajanthan, S. Gould. 2024. *Guiding Neural Collapse: Optimising Towards the Nearest Simplex Equiangular
#   Tight Frame*. NeurIPS. arXiv:2411.01248.
# - D. G. Mixon, H. Parshall, J. Pi. 2020. *Neural Collapse with Unconstrained Features*. arXiv:2011.11619.
# - V. Papyan, X. Y. Han, D. L. Donoho. 2020. *Prevalence of Neural Collapse during the Terminal Phase of Deep Learning
#   Training*. PNAS 117(40). arXiv:2008.08186.
# - Y. Yang, S. Chen, X. Li, L. Xie, Z. Lin, D. Tao. 2022. *Inducing Neural Collapse in Imbalanced Learning: Do We
#   Really Need a Learnable Classifier at the End of Deep Neural Network?* NeurIPS. arXiv:2203.09081.
# - C. Yaras, P. Wang, Z. Zhu, L. Balzano, Q. Qu. 2022. *Neural Collapse with Normalized Features: A Geometric Analysis
#   over the Riemannian Manifold*. NeurIPS. arXiv:2209.09211.
# - Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu. 2021. *A Geometric Analysis of Neural Collapse with
#   Unconstrained Features*. NeurIPS. arXiv:2105.02375.
