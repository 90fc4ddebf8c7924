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
# # A classifier that is never trained
#
# If training ends with the classifier in a simplex ETF anyway, why not put it there at the start and leave it alone?
# Fixed classifiers are older (Hoffer et al. 2018; Pernici et al. 2021, with a regular simplex); Zhu et al. (2021) and
# Yang et al. (2022) fixed a simplex ETF because of neural collapse, and report that accuracy does not suffer. This
# chapter works out what
# such a network minimises, trains it on real digits beside one with a learned classifier, and then looks for the price.
# There is one, and paying less of it is what chapter 05 (after Markou, Ajanthan and Gould 2024) is about.
#
# *You will learn*
#
# - why a fixed classifier makes sense at all, and what it saves;
# - what cross-entropy does with a fixed ETF: its exact minimum, its floor, and its gradient as a pull and a push;
# - where a feature can get stuck if there is no spare dimension;
# - the dot-regression loss, which only pulls, how fast it ends, and why it must never meet a classifier that can move;
# - how the package's `FixedETFHead` replaces a model's last `nn.Linear`;
# - how fixed and learned classifiers compare on digits, over several seeds;
# - how far the features must turn to reach an orientation that somebody else chose, and why rare classes gain from it.

# %%
import math
from dataclasses import replace
from statistics import median

import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from plotly.subplots import make_subplots
from scipy.optimize import linear_sum_assignment

import ncbook
from ncbook import plots
from ncbook.book import median_range, profile, say, show_code, table

PROFILE, SEEDS, EPOCHS, NARROW_SEEDS = profile(
    quick=dict(SEEDS=2, EPOCHS=4, NARROW_SEEDS=2),
    book=dict(SEEDS=3, EPOCHS=15, NARROW_SEEDS=5),
    paper=dict(SEEDS=10, EPOCHS=200, NARROW_SEEDS=20),
)
DATA = ncbook.load_dataset("digits")
C = DATA.num_classes


def run_seeds(**options):
    """One list of snapshots per seed, each from the start to the end of training."""
    recipes = [ncbook.Recipe(epochs=EPOCHS, seed=seed, frame="canonical", **options) for seed in range(SEEDS)]
    return [list(ncbook.train(recipe, data=DATA)) for recipe in recipes]


def angles_between(rows, others):
    """Angles in degrees between the unit rows of two matrices, row by row."""
    return (rows * others).sum(1).clamp(-1, 1).arccos().rad2deg()

# %% [markdown]
# ## 1. Why learn the classifier at all?
#
# Train an ordinary network and watch the rows of its classifier. The baseline of this book has unit rows and features
# of norm $\tau = 5$ (a *cosine* classifier); both learn. A small convolutional network on 8×8 digits:

# %%
runs = {"standard": run_seeds(head="cosine")}
first, last = ({key: median(run[at].train[key] for run in runs["standard"]) for key in ("weight_equiangular", "nc3")}
               for at in (0, -1))
assert last["weight_equiangular"] < first["weight_equiangular"] and last["nc3"] < first["nc3"] / 10
say(f"Between the start and epoch {EPOCHS}, the mean deviation of the rows' cosines from the simplex ETF's"
    f" $-1/(C-1)$ falls from {first['weight_equiangular']:.3f} to {last['weight_equiangular']:.3f}, and the"
    f" distance between classifier and class means, NC3, from {first['nc3']:.2f} to {last['nc3']:.4f} (medians of"
    f" {SEEDS} seeds). The network is on its way to a classifier that we could have written down.")

# %% [markdown]
# All simplex ETFs have the same shape (chapter 02), so what is really learned is the orientation, and a network can
# turn its features to any orientation with its last layer. The idea is then: take the **canonical** simplex ETF as the
# classifier, and train the rest.
#
# ## 2. Cross-entropy against a fixed ETF
#
# Let $W$ be a simplex ETF with rows $w_1, \dots, w_C \in \mathbb{R}^d$: unit norms, cosines $-1/(C-1)$, and $\sum_c w_c
# = 0$. The backbone gives $z \in \mathbb{R}^d$, the head normalises it to the feature $f = \tau z/\|z\|$ and returns
# the logits $W f$. For one sample of class $y$, with $p = \operatorname{softmax}(W f)$,
#
# $$ L(f) = -\log p_y = \log\Big( 1 + \sum_{c \ne y} e^{\langle w_c - w_y,\, f\rangle} \Big) . $$
#
# Its minimum over the sphere $\|f\| = \tau$ can be found without calculus. The exponential is convex, so the mean of
# the $C-1$ terms is at least the exponential of the mean exponent. And since the other rows add up to $-w_y$, that mean
# is $\big(-\frac{1}{C-1} - 1\big)\langle w_y, f\rangle$:
#
# $$ L(f) \ \ge\ \log\Big( 1 + (C-1)\, e^{-\frac{C}{C-1} \langle w_y, f\rangle} \Big)
#    \ \ge\ \log\Big( 1 + (C-1)\, e^{-\frac{C}{C-1}\,\tau} \Big) =: L_\tau . \tag{1} $$
#
# The last step uses $\langle w_y, f\rangle \le \tau$, with equality only at the vertex $f = \tau w_y$, where the first
# inequality is an equality too. So each sample has exactly one best place, *its class's vertex, whatever the other
# samples do*. Neural collapse is then simply what the minimum looks like: no scatter within a class (NC1), class means
# in a simplex ETF (NC2), aligned with the classifier (NC3).
#
# Normalised features cannot grow, so the loss has a floor $L_\tau > 0$. How high is it, and how sure can such a
# classifier become?

# %%
def loss_floor(num_classes, scale):
    return math.log1p((num_classes - 1) * math.exp(-scale * num_classes / (num_classes - 1)))


floors = {c: [loss_floor(c, scale) for scale in (1, 5, 10, 20)] for c in (10, 100, 1000)}
say("Lowest cross-entropy, and in brackets the highest probability of the true class:")
table(["classes", "τ = 1", "τ = 5", "τ = 10", "τ = 20"],
      [[c, *(f"{floor:.3g} ({100 * math.exp(-floor):.3g}%)" for floor in row)] for c, row in floors.items()], text=0)
head = ncbook.FixedETFHead(64, C, frame="canonical")
z = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
y = torch.arange(200) % C
free = torch.optim.Adam([z], lr=0.1)
for _ in range(300):
    free.zero_grad()
    reached = F.cross_entropy(head(z), y)
    reached.backward()
    free.step()
print(f"free features, trained: loss {reached.item():.6f}, floor {loss_floor(C, 5):.6f}; largest angle to their vertex"
      f" {float(angles_between(head.embed(z.detach()) / 5, head.weight[y]).max()):.2f}°")
assert loss_floor(C, 5) - 1e-6 < reached.item() < loss_floor(C, 5) + 1e-4

# %% [markdown]
# The published $\tau = 5$ suits ten classes. With a thousand, the most certain prediction it allows is a weak one, and
# $\tau$ should grow like $\log C$. The check below the table lets 200 feature vectors move freely, without a network:
# they go to their vertices, as (1) says.
#
# **Pull and push.** The gradient descent direction for the feature has two parts:
#
# $$ -\frac{\partial L}{\partial f} = \underbrace{(1 - p_y)\, w_y}_{\text{pull to its vertex}} \ -\
#    \underbrace{\sum_{c \ne y} p_c\, w_c}_{\text{push away from the others}} . \tag{2} $$
#
# In a learned classifier the push does important work, as it keeps the classes apart. With a fixed simplex ETF they are
# apart already.
#
# ## 3. Dot regression: just the pull
#
# So Yang et al. drop the push. With unit features $\hat f = z/\|z\|$, that is $\tau = 1$, the **dot-regression loss**
# of one sample is
#
# $$ L_{\rm dot} = \tfrac12 \big( \langle w_y, \hat f \rangle - 1 \big)^2 , \qquad
#    -\frac{\partial L_{\rm dot}}{\partial \hat f} = \big(1 - \langle w_y, \hat f\rangle\big)\, w_y . \tag{3} $$
#
# Other classes do not occur in it. The minimum, 0, is again at the vertex, and only there. Does autograd agree with (2)
# and (3)?

# %%
show_code(ncbook.dot_regression_loss)
w, target = ncbook.simplex_etf(C, 64), torch.tensor([3])
feature = F.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(1))).requires_grad_()
ce_gradient = torch.autograd.grad(F.cross_entropy(feature @ w.T, target), feature)[0]
dot_gradient = torch.autograd.grad(ncbook.dot_regression_loss(feature @ w.T, target), feature)[0]
p = (feature @ w.T).softmax(1)[0].detach()
pull, push = (1 - p[3]) * w[3], -(p @ w - p[3] * w[3])
assert torch.allclose(-ce_gradient[0], pull + push, atol=1e-6)
assert torch.allclose(-dot_gradient[0], (1 - feature[0].detach() @ w[3]) * w[3], atol=1e-6)

# %% [markdown]
# Only the part of the gradient along the sphere moves a normalised feature. For three classes in the plane the sphere
# is a circle: let $\theta$ be the angle between the feature and its vertex. How strong is the force at each $\theta$,
# and how does a feature approach its vertex when it starts 150° away?

# %%
triangle = ncbook.simplex_etf(3, 2, dtype=torch.float64)
start = torch.atan2(triangle[0, 1], triangle[0, 0])


def force(angle, scale, loss):
    """Derivative of the loss by the angle to vertex 0, for class 0: positive where descent shrinks the angle."""
    angle = torch.as_tensor(angle, dtype=torch.float64).reshape(-1).requires_grad_()
    logits = scale * torch.stack([(start + angle).cos(), (start + angle).sin()], dim=-1) @ triangle.T
    targets = torch.zeros(len(angle), dtype=torch.long)
    return torch.autograd.grad(loss(logits, targets) * len(angle), angle)[0]


LOSSES = {
    "cross-entropy, τ = 1": (1.0, F.cross_entropy, "#E69F00", "dash"),
    "cross-entropy, τ = 5": (5.0, F.cross_entropy, "#D55E00", "solid"),
    "dot regression, τ = 1": (1.0, ncbook.dot_regression_loss, "#009E73", "solid"),
}
fig = make_subplots(1, 2, subplot_titles=["force towards the vertex", "gradient descent from 150°"],
                    horizontal_spacing=0.13)
left, right = dict(row=1, col=1), dict(row=1, col=2)
angles, steps, ends = torch.linspace(0, 180, 91, dtype=torch.float64), 2500, {}
shown = [0] + sorted({int(10**(k / 10)) for k in range(34)} | {steps})
for name, (scale, loss, colour, dash) in LOSSES.items():
    path = [math.radians(150)]
    for _ in range(steps):
        path.append(path[-1] - 0.1 * float(force(path[-1], scale, loss)))
    ends[name], look = math.degrees(path[-1]), dict(mode="lines", name=name, line=dict(color=colour, dash=dash))
    fig.add_scatter(x=angles.numpy(), y=force(angles.deg2rad(), scale, loss).numpy().round(4), **look, **left)
    fig.add_scatter(x=[0.1 * max(k, 0.5) for k in shown], y=[max(math.degrees(path[k]), 1e-5) for k in shown],
                    showlegend=False, **look, **right)
fig.update_xaxes(title="angle to the vertex, degrees", dtick=60, **left).update_yaxes(title="dL/dθ", **left)
fig.update_xaxes(title="time (0.1 × steps)", type="log", exponentformat="power", dtick=1, **right)
fig.update_yaxes(title="angle left, degrees", type="log", exponentformat="power", dtick=1, range=[-2, 2.5], **right)
assert ends["cross-entropy, τ = 1"] < 1e-2 < 1 < ends["dot regression, τ = 1"]
plots.finish(fig, "Pulling a feature to its vertex", "C = 3, d = 2; gradient descent on the angle, with steps of 0.1",
             width=900, height=430, margin=dict(b=100), legend=dict(orientation="h", x=0, y=-0.22))

# %%
small = torch.tensor([0.01, 0.02], dtype=torch.float64)
near = {name: force(small, scale, loss) for name, (scale, loss, *_) in LOSSES.items()}
powers = {name: float((pulls[1] / pulls[0]).abs().log2()) for name, pulls in near.items()}
strength = {name: float(pulls[0] / small[0]) for name, pulls in near.items()}
negative = angles[force(angles.deg2rad(), 5.0, F.cross_entropy) < -1e-9]
assert negative.min() > 120
assert abs(powers["dot regression, τ = 1"] - 3) < 0.01 and abs(powers["cross-entropy, τ = 5"] - 1) < 0.01
say("The force of dot regression is $(1-\\cos\\theta)\\sin\\theta$: never negative, strongest at 120°, gone where the"
    " feature has arrived. But look at how it ends. Near the vertex $L_{\\rm dot} \\approx \\theta^4/8$, so the force"
    f" is cubic (measured: $\\theta^{{{powers['dot regression, τ = 1']:.2f}}}$), and what is left of the angle"
    " shrinks only like $1/\\sqrt{t}$. Cross-entropy has a linear force, and so an exponential end, but with a"
    f" rate that depends on $\\tau$: {strength['cross-entropy, τ = 1']:.2f} for $\\tau = 1$ and"
    f" {strength['cross-entropy, τ = 5']:.4f} for $\\tau = 5$, where a confident softmax no longer asks for much."
    " Which loss collapses faster is a matter of scale and patience; neither wins by definition.\n\n"
    f"One more thing to remember from the left panel: beyond {float(negative.min()):.0f}° the force for $\\tau = 5$ is"
    " negative and drives the feature *away* from its vertex. Section 7 meets this again.")

# %% [markdown]
# ## 4. A trap: dot regression with rows that move
#
# The push looked superfluous because the rows of $W$ were fixed. If they learn, nothing keeps them apart: when all rows
# and all features are one and the same unit vector, every term of (3) is zero. A perfect loss, and no classifier. Does
# training really go there? Here is the same network with a learned cosine classifier and dot regression.

# %%
def mean_cosine_of(rows):
    cosines = F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T
    return float(cosines[~torch.eye(len(rows), dtype=torch.bool)].mean())


with torch.random.fork_rng():
    torch.manual_seed(0)
    backbone = ncbook.build_backbone("small_cnn", DATA.input_shape)
    learned = ncbook.LearnedHead(backbone.feature_dim, C, cosine=True, scale=1.0)
    sgd = torch.optim.SGD([*backbone.parameters(), *learned.parameters()], lr=0.1, momentum=0.9)
    mean_cosine = [mean_cosine_of(learned.weight.detach())]
    for _ in range(4):
        for batch in torch.randperm(len(DATA.train_targets)).split(64):
            sgd.zero_grad()
            logits = learned(backbone(DATA.train_inputs[batch]))
            ncbook.dot_regression_loss(logits, DATA.train_targets[batch]).backward()
            sgd.step()
        mean_cosine.append(mean_cosine_of(learned.weight.detach()))
backbone.eval()
with torch.no_grad():
    logits = learned(backbone(DATA.test_inputs))
trap = float(ncbook.dot_regression_loss(logits, DATA.test_targets))
accuracy = float((logits.argmax(1) == DATA.test_targets).double().mean())
print(f"mean cosine between rows, epoch by epoch: {', '.join(f'{c:.2f}' for c in mean_cosine)}")
print(f"test loss {trap:.5f}, test accuracy {accuracy:.3f}")
assert mean_cosine[-1] > 0.5 and trap < 0.02

# %% [markdown]
# The rows run together within an epoch, and the loss is tiny. The collapse is not complete: once the loss is almost
# zero, nothing moves any more, and the small differences that remain still tell most digits apart. But the rows are
# close together, so the margins are thin, and the loss cannot see that. The package refuses the combination:

# %%
try:
    ncbook.Recipe(head="cosine", loss="dot_regression")
except ValueError as error:
    print(error)

# %% [markdown]
# ## 5. The head
#
# In the package, the fixed classifier is a module with buffers instead of parameters. It takes the place of a model's
# last `nn.Linear`, moves with `.to(device)` and is saved in the `state_dict`, but no optimiser ever sees it. Here are
# its frames, of which this chapter takes the canonical one, and what it does with a batch.

# %%
show_code(ncbook.FixedETFHead._start, ncbook.FixedETFHead.forward)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, C))
model[-1] = ncbook.FixedETFHead(32, C, frame="canonical")
print("output", tuple(model(DATA.test_inputs[:5]).shape), "| parameters of the head:", len([*model[-1].parameters()]),
      "| buffers:", [name for name, _ in model[-1].named_buffers()])
assert not list(model[-1].parameters())

# %% [markdown]
# **What it saves.** A learned classifier of $C \times d$ numbers is kept three times under SGD with momentum: weight,
# gradient, momentum. A fixed one is kept once, and it allows $d = C - 1$, since an ETF needs no more. The canonical ETF
# need not even be stored (exercise 3).

# %%
NETWORKS = {"digits, this chapter": (10, 64), "ResNet-18, 100 classes": (100, 512),
            "ResNet-50, 1,000 classes": (1000, 2048)}
table(["classifier", "numbers", "learned, float32", "fixed", "fixed, $d = C-1$"],
      [[what, f"{c * d:,}", f"{12 * c * d / 2**20:.3g} MiB", f"{4 * c * d / 2**20:.3g} MiB",
        f"{4 * c * (c - 1) / 2**20:.2g} MiB"] for what, (c, d) in NETWORKS.items()])
try:
    ncbook.FixedETFHead(768, 50_257)
except ValueError as error:
    print("A language model's classifier:", error)

# %% [markdown]
# The classifier alone is seldom the largest part of a network. The larger saving is in the backbone, whose last layers
# can be narrower: with $d = C$ and a fixed ETF, Zhu et al. report over 20% less memory for ResNet-18 at the same
# accuracy. The last line shows the limit of the idea. With more classes than dimensions, as in a language model, no
# simplex ETF fits.
#
# ## 6. Fixed against learned, on digits
#
# Same backbone, same data, same order of batches; only the head changes: *standard* learns a cosine classifier, *fixed*
# has the canonical ETF with cross-entropy, and *fixed, dot* the canonical ETF with dot regression. What happens to
# accuracy and to the collapse metrics?

# %%
runs["fixed"] = run_seeds(head="fixed")
runs["fixed, dot"] = run_seeds(head="fixed", loss="dot_regression", scale=1.0)
plots.metric_curves(runs, ["accuracy", "nc1", "nc2_equiangular", "etf_distance", "nc3", "cosine_margin"],
                    title="Learned and fixed classifiers on digits")

# %%
def at_end(method, column):
    return [run[-1].row()[column] for run in runs[method]]


def results_table(methods):
    say(f"Epoch {EPOCHS}, median over {SEEDS} seeds (range):")
    columns = {"test_accuracy": ".1f", "train_nc1": ".3f", "train_nc2_equiangular": ".3f", "train_etf_distance": ".4f"}
    table(["head", "test accuracy, %", "NC1", "NC2, angles", "ETF distance"],
          [[m, *(median_range(at_end(m, column), form) for column, form in columns.items())] for m in methods])


nc1, nc3, etf_distance = ({method: median(at_end(method, f"train_{key}")) for method in runs}
                          for key in ("nc1", "nc3", "etf_distance"))
gap = abs(median(at_end("standard", "test_accuracy")) - median(at_end("fixed", "test_accuracy")))
assert gap < 6 and etf_distance["fixed"] < etf_distance["standard"] and nc3["standard"] < nc3["fixed"]
assert nc1["fixed, dot"] > nc1["fixed"] and 0.5 < nc1["fixed"] / nc1["standard"] < 2
results_table(runs)
say(f"The medians of *standard* and *fixed* differ by {gap:.1f} points of test accuracy, on"
    f" {len(DATA.test_targets)} test images, where a single image is {100 / len(DATA.test_targets):.1f} points.")

# %% [markdown]
# In accuracy the methods are as good as equal, as the papers found on balanced data. The geometry tells them apart.
# With a fixed ETF, the class means come much closer to a simplex ETF in the same number of epochs, because there is
# just one place where they can stop. The scatter within classes, NC1, is a different matter: it is about as large for
# both, since how tightly a class gathers depends on the backbone and the loss, and hardly on who chose the vertex. Dot
# regression, whose force fades as the feature gets near (section 3), leaves looser classes here.
#
# In one respect the learned classifier ends ahead: it is closer to its own class means (NC3), as both sides can move
# towards each other.
#
# One thing cannot be read off: the fixed network starts with a perfect classifier, so metrics of the *weights* would
# flatter it. Those shown are of features, or compare features with weights.
#
# ## 7. Exactly $C-1$ dimensions
#
# Ten classes need only nine dimensions. What if the network has no more?

# %%
runs["fixed, d = 9"] = run_seeds(head="fixed", feature_dim=C - 1)
gap = abs(median(at_end("fixed", "test_accuracy")) - median(at_end("fixed, d = 9", "test_accuracy")))
assert gap < 6
results_table(["fixed", "fixed, d = 9"])
say(f"The medians of test accuracy differ by {gap:.1f} points.")

# %% [markdown]
# Nine features are enough for ten digits, which agrees with what the papers report. It would be tempting to conclude
# that $d = C-1$ always does. Try three classes with features in the plane, where every picture is exact, and count the
# seeds that learn to tell the classes apart (training accuracy above 95% after ten epochs):

# %%
THREE = ncbook.load_dataset("digits", classes=3)
NARROW = ncbook.Recipe(head="fixed", frame="canonical", classes=3, epochs=10, lr=0.05)


def narrow_run(dim, scale, seed):
    recipe = replace(NARROW, feature_dim=dim, scale=scale, seed=seed)
    return list(ncbook.train(recipe, data=THREE, every=10))[-1].train["accuracy"]


narrow = {at: [narrow_run(*at, seed) for seed in range(NARROW_SEEDS)] for at in ((2, 5.0), (3, 5.0), (2, 1.0))}
solved = {setting: sum(a > 0.95 for a in accuracies) for setting, accuracies in narrow.items()}
say("Three classes, cross-entropy, fixed ETF:")
table(["d", "τ", f"seeds of {NARROW_SEEDS} that succeed"], [[*key, count] for key, count in solved.items()], text=0)
assert solved[2, 5.0] <= NARROW_SEEDS / 2 and solved[3, 5.0] == solved[2, 1.0] == NARROW_SEEDS

# %% [markdown]
# In the plane most runs with $\tau = 5$ fail, although a perfect solution exists. One more dimension cures it, and so
# does a smaller $\tau$. Here is one of the failed runs, step by step:

# %%
stuck_seed = min(range(NARROW_SEEDS), key=narrow[2, 5.0].__getitem__)
flat = ncbook.Trainer(replace(NARROW, feature_dim=2, scale=5.0, seed=stuck_seed), data=THREE)
shots = [flat.snapshot(test=False)]
while not flat.finished:
    flat.step()
    if flat.steps < 12 or flat.steps % flat.steps_per_epoch == 0:
        shots.append(flat.snapshot(test=False))
colours, vertices = plots.class_colors(3), flat.head.weight
spread = (1 + 0.16 * ((torch.arange(120) * 0.618) % 1))[:, None] / 5
turn = torch.linspace(0, 2 * math.pi, 73)
fig = go.Figure()
fig.add_scatter(mode="markers", name="features", marker=dict(
    size=6, opacity=0.6, color=[colours[int(t)] for t in shots[0].targets[:120]]))
fig.add_scatter(x=turn.cos(), y=turn.sin(), mode="lines", line=dict(color="#D2D2D2"), showlegend=False)
for c in range(3):
    fig.add_scatter(x=[0, float(vertices[c, 0])], y=[0, float(vertices[c, 1])], mode="lines+markers",
                    name=f"vertex of “{THREE.class_names[c]}”", line=dict(color=colours[c], width=2),
                    marker=dict(size=[0, 16], symbol="diamond-open", line=dict(width=2)))
fig.update_traces(hoverinfo="skip")
fig.update_xaxes(range=[-1.35, 1.35]).update_yaxes(range=[-1.35, 1.35], scaleanchor="x")
plots.finish(fig, "Three digits in the plane, and a fixed simplex ETF",
             "normalised features in the plane, no projection; spread outwards only to be seen", width=720, height=520)
plots.animate(fig, [f"step {shot.step}, accuracy {shot.train['accuracy']:.2f}" for shot in shots],
              [{"features": plots.xyz(shot.features[:120] * spread)} for shot in shots], milliseconds=250,
              transition=150, below=36, left=0.38)

# %%
away = angles_between(shots[-1].features / 5, vertices[shots[-1].targets])
medians = {c: float(away[shots[-1].targets == c].median()) for c in range(3)}
worst = max(medians, key=medians.get)
others = " and ".join(f"{angle:.0f}°" for c, angle in medians.items() if c != worst)
say(f"At the end the class “{THREE.class_names[worst]}” has a median angle of {medians[worst]:.0f}° to its vertex,"
    f" the other two of {others}. Accuracy: {shots[-1].train['accuracy']:.2f}.")
assert medians[worst] > 60

# %% [markdown]
# At step 0 all three classes sit in nearly the same direction, since an untrained network hardly tells its inputs
# apart. Then they slide along the circle, and one of them ends up *opposite* to its vertex and stays there. In the left
# panel of section 3 the solid cross-entropy curve shows why: beyond some angle the force for $\tau = 5$ is negative.
# The push of the two other vertices, which flank that place, beats the pull. The vertex is the only global minimum, as
# (1) says; this is a local one.
#
# When does that happen? Let $f = -\tau w_y$ and move it along a great circle, $f(\varphi) = \tau(-w_y \cos\varphi + v
# \sin\varphi)$ with a unit vector $v \perp w_y$. The gradient is zero at $\varphi = 0$. For $v$ in the span of the
# frame, the tight-frame property gives $\sum_c \langle w_c, v \rangle^2 = \frac{C}{C-1}$; outside it, that sum is 0.
# The second derivative becomes
#
# $$ \frac{d^2 L}{d\varphi^2} = \tau\,(1 - p_y)\, \frac{C}{C-1} \Big( \frac{\tau}{C-1} - 1 \Big) \ \text{ inside the span}, \qquad
#    -\tau\,(1 - p_y)\, \frac{C}{C-1} \ \text{ outside.} \tag{4} $$
#
# So the wrong side is a **local minimum exactly if the features have no spare dimension, $d = C-1$, and $\tau > C -
# 1$**. (At $\tau = C-1$ the next order decides.) With spare dimensions there is always a way down. Autograd agrees:

# %%
def curvature_at_antipode(num_classes, dim, scale, inside):
    w = ncbook.simplex_etf(num_classes, dim, dtype=torch.float64)
    v = F.normalize(w[1] - w[2], dim=0) if inside else F.one_hot(torch.tensor(dim - 1), dim).double()

    def loss(phi):
        return F.cross_entropy((scale * (-w[0] * phi.cos() + v * phi.sin()) @ w.T)[None], torch.tensor([0]))

    curvature = torch.autograd.functional.hessian(loss, torch.tensor(0.0, dtype=torch.float64))
    logits = -scale * w[0] @ w.T
    factor = scale * (1 - logits.softmax(0)[0]) * num_classes / (num_classes - 1)
    assert torch.allclose(curvature, factor * (scale / (num_classes - 1) - 1 if inside else -1), atol=1e-9)
    return float(curvature)


rows = []
for num_classes, scale in ((3, 1.0), (3, 5.0), (5, 5.0), (10, 5.0)):
    within = curvature_at_antipode(num_classes, num_classes - 1, scale, True)
    outside = curvature_at_antipode(num_classes, num_classes, scale, False)
    assert (within > 0) == (scale > num_classes - 1) and outside < 0
    rows.append([num_classes, scale, f"{within:+.2f}", f"{outside:+.2f}", "local minimum" if within > 0 else "no trap"])
say("Curvature of the loss opposite to the vertex:")
table(["C", "τ", "inside the span", "outside", "if $d = C-1$"], rows, text=0)

# %% [markdown]
# With $\tau = 5$, up to five classes have the trap, and ten do not, which is why nine dimensions were enough above. The
# lesson is that $d = C-1$ is enough for the *solution*, while the *way* to it wants a spare dimension, or a small
# $\tau$, when $C$ is small. It is also a first hint that it matters where the vertices are relative to the features.
#
# ## 8. The price: somebody else's orientation
#
# A fixed ETF does not only prescribe the shape. It also says *which* vertex belongs to which class and how the whole is
# turned in space. How far from that is an untrained network? Take its centred class means and measure, class by class,
# the angle to the vertex that they are meant to reach, for four ETFs:
#
# - **canonical**: that of `simplex_etf`, which this chapter takes;
# - **best renaming**: the same vertices, handed out to the classes so that the cosines to the means add up to the most
#   (an assignment problem, solved exactly);
# - **nearest**: the simplex ETF nearest to the initial class means, the best of *all* orientations;
# - **opposite**: minus the nearest, the worst of all.

# %%
def early_run(seed, orientation):
    """Mean angle to the target at the start, and the loss at each step of the first two epochs."""
    trainer = ncbook.Trainer(ncbook.Recipe(head="fixed", frame="canonical", epochs=EPOCHS, seed=seed), data=DATA)
    means, canonical = trainer.snapshot(test=False).class_means, trainer.head.weight.clone()
    centred, nearest = F.normalize(means - means.mean(0), dim=1), ncbook.nearest_simplex_etf(means)
    renamed = canonical[linear_sum_assignment(centred @ canonical.T, maximize=True)[1]]
    etfs = {"canonical": canonical, "best renaming": renamed, "nearest": nearest, "opposite": -nearest}
    trainer.head.weight.copy_(etfs[orientation])
    losses = [trainer.step().item() for _ in range(2 * trainer.steps_per_epoch)]
    return float(angles_between(centred, etfs[orientation]).mean()), losses


STYLES = {"canonical": ("#E69F00", "dash"), "best renaming": ("#8A5A2B", "dot"), "nearest": ("#0072B2", "solid"),
          "opposite": ("#CC79A7", "dashdot")}
early = {name: [early_run(seed, name) for seed in range(SEEDS)] for name in STYLES}
travel = {name: [angle for angle, _ in results] for name, results in early.items()}
fig = plots.seed_summary(travel, "mean angle, degrees",
                         title="How far the untrained class means are from their vertices")
for name, (colour, _) in STYLES.items():
    fig.update_traces(marker_color=colour, selector=dict(name=name))
    fig.update_traces(line_color=colour, selector=dict(name=f"{name} median"))
assert max(travel["nearest"]) < min(travel["best renaming"])
assert max(travel["best renaming"]) < min(travel["canonical"]) < min(travel["opposite"])
fig

# %%
say(f"The canonical vertices are {median(travel['canonical']):.0f}° away. That is no accident but what chance"
    " gives: in 64 dimensions a random direction is nearly orthogonal to any other. Even the best of all"
    f" {math.factorial(C):,} ways to hand out the ten vertices only saves"
    f" {median(travel['canonical']) - median(travel['best renaming']):.0f}°. An ETF that may turn freely lies"
    f" {median(travel['nearest']):.0f}° away, and the rest is shape, not orientation.")

# %% [markdown]
# Do these degrees cost anything? Train from the same initial weights, with the same batches, towards each of the four.

# %%
fig, early_loss, later_loss = go.Figure(), {}, {}
for name, (colour, dash) in STYLES.items():
    losses = torch.tensor([losses for _, losses in early[name]])
    early_loss[name], later_loss[name] = float(losses[:, :losses.shape[1] // 2].mean()), float(losses[:, -10:].mean())
    smooth = losses.quantile(0.5, dim=0).unfold(0, 3, 1).mean(1)
    fig.add_scatter(x=list(range(2, 2 + len(smooth))), y=smooth.numpy().round(4), mode="lines", name=name,
                    line=dict(color=colour, width=2.5, dash=dash))
fig.add_scatter(x=[2, len(smooth) + 1], y=[loss_floor(C, 5)] * 2, mode="lines", name="floor of the loss",
                line=dict(color="#999999", width=1, dash="dot"))
fig.update_xaxes(title="step")
fig.update_yaxes(title="cross-entropy", type="log", tickvals=[0.05, 0.1, 0.2, 0.5, 1, 2], range=[-1.65, 0.5])
assert early_loss["opposite"] - early_loss["nearest"] > 2 * (later_loss["opposite"] - later_loss["nearest"]) > 0
plots.finish(fig, "The first two epochs, towards four orientations",
             f"training loss, median of {SEEDS} seeds, mean of 3 steps", height=420)

# %%
said = [", ".join(f"{value:.2f} for *{name}*" for name, value in loss.items()) for loss in (early_loss, later_loss)]
say(f"Mean loss of the first epoch: {said[0]}. In the last ten steps of the second: {said[1]}"
    ". The worse the orientation, the later the loss falls; by the end of the second epoch, most of the"
    " difference is gone.")

# %% [markdown]
# So the price is real, and on this problem it is small: the last layer of the network is linear, and it learns a
# rotation within a few dozen steps. It would be wrong to say that a fixed ETF fails here. Where training is long, the
# backbone deep or its features already good (fine-tuning), one would rather not begin by turning everything.
#
# There is another part of the price that the picture does not show. The canonical ETF lives in the first $C-1$ of the
# $d$ coordinates and is deaf to the others, so the network must also move all its features into that subspace. And does
# a learned classifier spare the features their journey? Compare where the vertices nearest to the class means point at
# the start and at the end.

# %%
def inside(snapshot):
    return float((snapshot.features[:, :C - 1].norm(dim=1) / snapshot.features.norm(dim=1)).square().mean())


def turned(run):
    start, end = (ncbook.nearest_simplex_etf(run[at].class_means) for at in (0, -1))
    return float(angles_between(start, end).mean())


shares = [median(inside(run[at]) for run in runs["fixed"]) for at in (0, -1)]
journeys = {name: median(map(turned, runs[name])) for name in ("standard", "fixed")}
assert shares[0] < 0.5 < 0.8 < shares[1] and journeys["standard"] < journeys["fixed"]
say(f"Share of the features' squared length inside the ETF's {C - 1} coordinates: {100 * shares[0]:.0f}% at the"
    f" start ({C - 1}/64 would be {100 * (C - 1) / 64:.0f}%), {100 * shares[1]:.0f}% at the end.\n\nThe nearest"
    f" vertices turn by {journeys['fixed']:.0f}° with the fixed classifier and by {journeys['standard']:.0f}° with"
    " the learned one. The learned classifier goes to meet the features, but it too starts from a random place,"
    " and the features travel most of the way.")

# %% [markdown]
# Neither way uses what the network knows at the start: where its class means *are*. The nearest simplex ETF does, at
# each step, and this is chapter 05.
#
# ## 9. An aside: rare classes
#
# There is a setting in which the fixed classifier has a clear advantage, the one for which Yang et al. proposed it.
# Suppose that some classes have $R$ times as many samples as others. Fang et al. (2021) showed that a learned
# classifier may then let its rare classes fall together, a *minority collapse*. It takes no network to see that, only
# the unconstrained model in which the features of each class are free: minimise the cross-entropy, weighted by class
# frequency, over $W$ and $H$ with $\|W\|_F^2 = C E_W$ and $\|H\|_F^2 = C E_H$. Here, three frequent and three rare
# classes with $E_W = 1$:

# %%
def layer_peeled(ratio, feature_energy, num_classes=6):
    """Learned rows in the unconstrained model; the first half of the classes is `ratio` times as frequent."""
    generator = torch.Generator().manual_seed(0)
    w, h = (torch.randn(num_classes, num_classes, dtype=torch.float64, generator=generator).requires_grad_()
            for _ in range(2))
    share = torch.tensor([ratio] * (num_classes // 2) + [1.0] * (num_classes // 2), dtype=torch.float64)
    lbfgs = torch.optim.LBFGS([w, h], max_iter=1500, tolerance_grad=1e-9, tolerance_change=1e-13,
                              line_search_fn="strong_wolfe")

    def closure():
        lbfgs.zero_grad()
        scale = num_classes * math.sqrt(feature_energy) / (w.norm() * h.norm())
        losses = F.cross_entropy(scale * h @ w.T, torch.arange(num_classes), reduction="none")
        loss = (share / share.sum() * losses).sum()
        loss.backward()
        return loss

    lbfgs.step(closure)
    return w.detach()


ratios = [1, 2, 3, 5, 10, 20, 50, 100, 300, 1000]
fig, rare = go.Figure(), {}
for energy, colour, dash in ((5, "#D55E00", "solid"), (10, "#8A5A2B", "dash"), (25, "#CC79A7", "dot")):
    rare[energy] = [mean_cosine_of(layer_peeled(float(ratio), energy)[3:]) for ratio in ratios]
    fig.add_scatter(x=ratios, y=[round(c, 4) for c in rare[energy]], mode="lines+markers",
                    name=f"learned, E<sub>H</sub> = {energy}", line=dict(color=colour, width=2.5, dash=dash))
fig.add_scatter(x=[1, 1000], y=[-0.2, -0.2], mode="lines", name="fixed ETF", line=dict(color="#E69F00", width=3))
plots.finish(fig, "Minority collapse of a learned classifier",
             "unconstrained features, C = 6; cosine between the rows of rare classes", height=400)
fig.update_xaxes(title="imbalance ratio R", type="log", exponentformat="power", dtick=1)
fig.update_yaxes(title="cosine between rare classes", range=[-0.35, 1.1])
assert all(abs(curve[0] + 0.2) < 1e-3 for curve in rare.values()) and rare[5][-1] > 0.999
fig

# %% [markdown]
# Balanced ($R = 1$), the learned classifier is a simplex ETF, with cosine $-1/5$. With growing imbalance the rare
# classes lose their angles, and, where the energy is tight, they coincide from a finite $R$ on: the classifier can no
# longer tell them apart at all. The fixed ETF keeps them at $-1/5$ by construction, and by (1) the best place of each
# sample is its own vertex, *however rare its class is*. That is a statement about the unconstrained model. A real
# backbone still learns less from rare classes, so a fixed classifier removes one cause of trouble with imbalance, not
# all of them.
#
# ## Try it
#
# **1.** A classifier of cosines with $C = 1000$ should be able to reach 99% probability for the true class. Which
# $\tau$ does it need?
#
# <details><summary>Solution</summary>
#
# Set $1/(1 + (C-1) e^{-\tau C/(C-1)}) = 0.99$ and solve: $\tau = \frac{C-1}{C} \log\big(99\,(C-1)\big)$.
#
# ```python
# tau = 999 / 1000 * math.log(99 * 999)
# print(tau, math.exp(-loss_floor(1000, tau)))
# ```
#
# </details>
#
# **2.** Give the features of section 2 dot regression instead of cross-entropy, with gradient descent on free unit
# vectors. How large is the mean angle that is left after 100, 1,000 and 10,000 steps?
#
# <details><summary>Solution</summary>
#
# ```python
# head = ncbook.FixedETFHead(64, C, scale=1.0, frame="canonical")
# z = F.normalize(torch.randn(200, 64, generator=torch.Generator().manual_seed(0)), dim=1)
# for step in range(1, 10_001):
#     z.requires_grad_()
#     g = torch.autograd.grad(200 * ncbook.dot_regression_loss(head(z), y), z)[0]
#     z = F.normalize(z.detach() - 0.5 * g, dim=1)
#     if step in (100, 1000, 10_000):
#         print(step, float(angles_between(z, head.weight[y]).mean()))
# ```
#
# Ten times the steps shrink the angle by about $\sqrt{10}$, the $1/\sqrt t$ of section 3.
#
# </details>
#
# **3.** The canonical ETF is $\sqrt{C/(C-1)}\,Q$ with zero columns behind it, and column $k$ of the Helmert basis $Q$
# has $k$ equal entries, one more, and zeros. Compute all $C$ logits of a feature in a time proportional to $C$, without
# storing $W$.
#
# <details><summary>Solution</summary>
#
# Entry $c$ of $Q x$ (counting from 0) is $-\frac{c}{\sqrt{c(c+1)}} x_{c}$, with $x_k$ the coordinate that belongs to
# column $k$, plus the sum of $x_k/\sqrt{k(k+1)}$ over all $k > c$: a reversed cumulative sum.
#
# ```python
# def canonical_logits(features, num_classes):
#     k = torch.arange(1, num_classes, dtype=features.dtype)
#     x = features[:, : num_classes - 1] / (k * (k + 1)).sqrt()
#     later = F.pad(x.flip(1).cumsum(1).flip(1), (0, 1))
#     return math.sqrt(num_classes / (num_classes - 1)) * (later - F.pad(k * x, (1, 0)))
#
# some = torch.randn(5, 64, dtype=torch.float64)
# print((canonical_logits(some, 10) - some @ ncbook.simplex_etf(10, 64, dtype=torch.float64).T).abs().max())
# ```
#
# </details>
#
# **4.** In section 8, set the learning rate of the recipe to 0.005. Does the orientation matter for longer?
#
# <details><summary>Solution</summary>
#
# Add `lr=0.005` to the recipe in `early_run` and run the cells again. All curves fall more slowly, and the gap between
# *nearest* and *opposite* stays open for more steps: the rotation has to be learned with smaller steps.
#
# </details>
#
# ## Summary
#
# - With a fixed simplex ETF and normalised features, cross-entropy has one global minimum for each sample, its class's
#   vertex, at a loss floor that depends on $\tau$ and $C$.
# - Dot regression keeps the pull and drops the push. Near the vertex its force is cubic, so it ends slowly. With
#   learned rows, it has the trivial solution of all rows equal.
# - The head saves the classifier's parameters, gradients and optimiser state, and needs no more than $d = C-1$. At $d =
#   C-1$ and $\tau > C-1$, however, the place opposite to the vertex is a local minimum, and training may end there.
# - On digits, accuracy is about that of a learned classifier, and the class means come closer to a simplex ETF.
# - The price is an orientation that ignores the network: vertices about 90° away at the start. Here it is paid within a
#   few dozen steps.
#
# ## References
#
# - C. Fang, H. He, Q. Long, W. J. Su (2021). *Exploring deep neural networks via layer-peeled model: Minority collapse
#   in imbalanced training.* PNAS 118(43). arXiv 2101.12699.
# - E. Hoffer, I. Hubara, D. Soudry (2018). *Fix your classifier: the marginal value of training the last weight layer.*
#   ICLR. arXiv 1801.04540.
# - E. Markou, T. Ajanthan, S. Gould (2024). *Guiding Neural Collapse: Optimising Towards the Nearest Simplex
#   Equiangular Tight Frame.* NeurIPS. arXiv 2411.01248.
# - F. Pernici, M. Bruni, C. Baecchi, A. Del Bimbo (2021). *Regular Polytope Networks.* IEEE Transactions on Neural
#   Networks and Learning Systems. arXiv 2103.15632.
# - Y. Yang, S. Chen, X. Li, L. Xie, Z. Lin, D. Tao (2022). *Inducing Neural Collapse in Imbalanced Learning: Do We
#   Really Need a Learnable Classifier at the End of Deep Neural Network?* NeurIPS. arXiv 2203.09081.
# - Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu (2021). *A Geometric Analysis of Neural Collapse with
#   Unconstrained Features.* NeurIPS. arXiv 2105.02375.
