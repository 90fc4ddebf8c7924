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
# # Fixed ETF: a classifier that is never trained
#
# *Training ends with the classifier in a simplex ETF. Can it stand there from the start, and never be trained?* It can:
# on the digits below, the features come to the vertices that they are given, no difference in accuracy to a learned
# classifier can be seen, and the class means end far closer to a simplex ETF. But a feature must be able to get there.
# This is the loss of one feature with three classes in the plane, its class's vertex on top. Started at 165°, with
# feature norm 5 it ends *opposite* to its vertex; with norm 1 it arrives.

# %% jupyter={"source_hidden": true}
# Sliders: the loss of one feature around the circle
from ncbook import plots

plots.loss_ring([1, 2, 3, 5, 8], range(-165, 181, 15), active=(3, 22),
                title="Where does gradient descent take a feature?")

# %% [markdown]
# A classifier that is not trained needs neither gradients nor optimiser state, allows the layers before it to be
# narrower, gives rare classes as much room as frequent ones, and tells us beforehand where each class will lie. Fixed
# classifiers are an older idea (Hoffer et al. 2018; Pernici et al. 2021, with a regular simplex); Zhu et al. (2021) and
# Yang et al. (2022) fixed a simplex ETF because of neural collapse.
#
# *You will learn*
#
# - what cross-entropy does with a fixed ETF: its exact minimum, its floor, and its gradient as a pull and a push;
# - the dot-regression loss, which only pulls, and what it does with rows that can move;
# - how a fixed classifier compares with a learned one on real digits;
# - where a feature can be trapped, and how many dimensions prevent it;
# - what it costs to be given somebody else's orientation, and what rare classes gain.
#
# ## Setup

# %% jupyter={"source_hidden": true}
# Imports, settings and the digits; helper for angles
import math
from dataclasses import replace
from statistics import median

import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from scipy.optimize import linear_sum_assignment

import ncbook
from ncbook.book import median_range, profile, say, table

PROFILE, SEEDS, EPOCHS, NARROW_SEEDS = profile(
    {"SEEDS": "networks per method", "EPOCHS": "epochs of each", "NARROW_SEEDS": "networks per setting in section 5"},
    quick=dict(SEEDS=2, EPOCHS=4, NARROW_SEEDS=2),
    book=dict(SEEDS=3, EPOCHS=12, NARROW_SEEDS=5),
    paper=dict(SEEDS=5, EPOCHS=100, NARROW_SEEDS=20),
)
DATA = ncbook.load_dataset("digits")
C = DATA.num_classes


def angles_between(rows, others):
    """Angles in degrees between the unit rows of two matrices, row by row."""
    return (rows * others).sum(1).clamp(-1, 1).arccos().rad2deg()


# %% [markdown]
# ## 1. Where does cross-entropy have its minimum?
#
# Let $W$ be a simplex ETF with rows $w_1, \dots, w_C \in \mathbb{R}^d$: unit norms, cosines $-1/(C-1)$, and $\sum_c w_c
# = 0$. The backbone gives $h \in \mathbb{R}^d$; the head normalises it to $f = \tau h/\lVert h\rVert$ and returns the
# logits $W f$. For a sample of class $y$ the loss is
#
# $$ L(f) = -\log p_y = \log\Big( 1 + \sum_{c \ne y} e^{\langle w_c - w_y,\, f\rangle} \Big), \qquad
#    p = \operatorname{softmax}(W f) . $$
#
# Its minimum over the sphere $\lVert f\rVert = \tau$ needs no calculus. The mean of the $C-1$ exponentials is at least
# the exponential of the mean exponent; and as the other rows add up to $-w_y$, that mean is $-\frac{C}{C-1}\langle w_y,
# f\rangle$:
#
# $$ L(f) \ \ge\ \log\Big( 1 + (C-1)\, e^{-\frac{C}{C-1} \langle w_y, f\rangle} \Big)
#    \ \ge\ \log\Big( 1 + (C-1)\, e^{-\frac{C}{C-1}\,\tau} \Big) . \tag{1} $$
#
# Both are equalities at the vertex $f = \tau w_y$, the second only there. So each sample has exactly one best place,
# *its class's vertex, whatever the other samples do*. [Neural collapse](01_neural_collapse.ipynb) is what that minimum
# looks like: no scatter within a class (NC1), class means in a simplex ETF (NC2), in line with the classifier (NC3).
#
# Features of a fixed norm cannot grow to become more certain, so the loss has a floor above 0. *With $\tau = 5$, the
# value of Markou, Ajanthan and Gould (2024), how sure can a classifier of a thousand classes become?*

# %%
def loss_floor(num_classes, scale):
    return math.log1p((num_classes - 1) * math.exp(-scale * num_classes / (num_classes - 1)))


# %% jupyter={"source_hidden": true}
# Table: lowest cross-entropy by number of classes and τ
table(["classes", *(f"τ = {scale}" for scale in (1, 5, 10, 20))],
      [[c, *(f"{loss_floor(c, scale):.3g} ({100 * math.exp(-loss_floor(c, scale)):.4g}%)" for scale in (1, 5, 10, 20))]
       for c in (10, 100, 1000)], text=0)
say("*Lowest cross-entropy and, in brackets, the highest probability of the true class.*")

# %% [markdown]
# What suits ten classes leaves a thousand with a weak prediction at best; $\tau$ should grow like $\log C$. Do features
# go to their vertices when no network stands in the way? Here are two hundred that may move freely:

# %%
head = ncbook.FixedETFHead(64, C, frame="canonical")
h = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
y = torch.arange(200) % C
optimiser = torch.optim.Adam([h], lr=0.1)
for _ in range(300):
    optimiser.zero_grad()
    reached = F.cross_entropy(head(h), y)
    reached.backward()
    optimiser.step()

# %% jupyter={"source_hidden": true}
# Table: loss reached, its floor, angle to the vertex
farthest = float(angles_between(head.embed(h.detach()) / 5, head.weight[y]).max())
table(["loss reached", "floor", "largest angle to the vertex"],
      [[f"{reached.item():.6f}", f"{loss_floor(C, 5):.6f}", f"{farthest:.2f}°"]], text=0)

# %% [markdown]
# ## 2. Pull and push
#
# Descent moves a feature in two ways,
#
# $$ -\frac{\partial L}{\partial f} = \underbrace{(1 - p_y)\, w_y}_{\text{pull to its vertex}} \ -\
#    \underbrace{\sum_{c \ne y} p_c\, w_c}_{\text{push away from the others}} , \tag{2} $$
#
# and a fixed simplex ETF holds the classes apart without the push. So Yang et al. drop it. With features of norm
# $\tau = 1$, their **dot-regression loss** of a sample and its force are
#
# $$ L_{\rm dot} = \tfrac12 \big( \langle w_y, f \rangle - 1 \big)^2 , \qquad
#    -\frac{\partial L_{\rm dot}}{\partial f} = \big(1 - \langle w_y, f\rangle\big)\, w_y . \tag{3} $$
#
# *Which of the two collapses faster?* For three classes in the plane the force turns the feature by an angle
# $\theta$. The left panel shows how much of 150° is left when the angle follows the force, $\dot\theta = -\partial
# L/\partial\theta$, the right the force itself.

# %% jupyter={"source_hidden": true}
# Draw how three losses pull a feature to its vertex
CORNERS = torch.tensor([0.0, 120.0, 240.0], dtype=torch.float64).deg2rad()


def force(angle, scale, loss):
    """Derivative of the loss by the angle to vertex 0, for class 0: positive where descent shrinks the angle."""
    angle = torch.as_tensor(angle, dtype=torch.float64).reshape(-1).requires_grad_()
    logits = scale * torch.cos(angle[:, None] - CORNERS)
    return torch.autograd.grad(loss(logits, torch.zeros(len(angle), dtype=torch.long)) * len(angle), angle)[0]


LOSSES = {"cross-entropy, τ = 1": (1.0, F.cross_entropy), "cross-entropy, τ = 5": (5.0, F.cross_entropy),
          "dot regression, τ = 1": (1.0, ncbook.dot_regression_loss)}
angles, times = torch.linspace(0, 180, 91, dtype=torch.float64), torch.logspace(-1, 2.4, 80, dtype=torch.float64)
strengths, left = {}, {}
for name, (scale, loss) in LOSSES.items():
    strengths[name] = force(angles.deg2rad(), scale, loss)
    flow = solve_ivp(lambda t, at, *of: -force(at, *of).numpy(), (0, float(times[-1])), [math.radians(150)],
                     t_eval=times.numpy(), args=(scale, loss), rtol=1e-8, atol=1e-10, method="LSODA")
    left[name] = torch.from_numpy(flow.y[0]).rad2deg()
    left[name][left[name] < 1e-3] = math.nan
fig = plots.curve_panels(
    {"angle left, degrees": {name: (times, values) for name, values in left.items()},
     "force towards the vertex": {name: (angles, values) for name, values in strengths.items()}},
    title="Pulling a feature to its vertex", subtitle="three classes in the plane; gradient flow from 150°")
fig.update_xaxes(title="time", type="log", dtick=1, exponentformat="power", col=1)
fig.update_yaxes(type="log", dtick=1, exponentformat="power", range=[-3, 2.4], col=1)
fig.update_xaxes(title="angle to the vertex, degrees", dtick=60, col=2)

# %% jupyter={"source_hidden": true}
# Table: how the force grows near the vertex
small = torch.tensor([0.01, 0.02], dtype=torch.float64)
near = {name: force(small, *LOSSES[name]) for name in LOSSES}
power = {name: float((pull[1] / pull[0]).log2()) for name, pull in near.items()}
table(["near the vertex", "force grows like", "coefficient"],
      [[name, f"$\\theta^{{{power[name]:.2f}}}$", f"{float(pull[0] / small[0] ** round(power[name])):.3g}"]
       for name, pull in near.items()])
fine = torch.linspace(120, 180, 601, dtype=torch.float64)
turns_round = fine[force(fine.deg2rad(), *LOSSES["cross-entropy, τ = 5"]) < -1e-9].min()
say(f"For τ = 5 the force is negative from {turns_round:.0f}° on.")

# %% [markdown]
# Near the vertex $L_{\rm dot} \approx \theta^4/8$: its force is cubic, and the angle left shrinks only like
# $1/\sqrt t$. Cross-entropy has a linear force and an exponential end, at a rate that depends on $\tau$: a confident
# softmax asks for little. Which loss is faster is a matter of scale and patience.
#
# And at the far side of the right panel, the force of cross-entropy with $\tau = 5$ points *away* from the vertex: the
# trap of the first picture. Section 5 comes back to it.
#
# ### With rows that move
#
# The push looked superfluous because $W$ stood still. If its rows learn and all run to one place, every term of (3) is
# zero: a perfect loss, and no classifier. *How far does training go that way?* Here is a small convolutional network
# with a learned classifier of unit rows and dot regression, for four epochs at two learning rates.

# %%
def dot_regression(seed, lr, moving=True):
    torch.manual_seed(seed)
    backbone = ncbook.build_backbone("small_cnn", DATA.input_shape)
    head = (ncbook.LearnedHead(backbone.feature_dim, C, cosine=True, scale=1.0) if moving
            else ncbook.FixedETFHead(backbone.feature_dim, C, frame="canonical", scale=1.0))
    sgd = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=lr, momentum=0.9)
    for _ in range(4):
        for batch in torch.randperm(len(DATA.train_targets)).split(64):
            sgd.zero_grad()
            logits = head(backbone(DATA.train_inputs[batch]))
            ncbook.dot_regression_loss(logits, DATA.train_targets[batch]).backward()
            sgd.step()
    return backbone.eval(), head


# %% jupyter={"source_hidden": true}
# Table: rows that move under dot regression, and rows that do not
def judged(backbone, head):
    with torch.no_grad():
        logits, cosines = head(backbone(DATA.test_inputs)), head.weight @ head.weight.T
    return (float(cosines[~torch.eye(C, dtype=torch.bool)].mean().arccos().rad2deg()),
            float(ncbook.dot_regression_loss(logits, DATA.test_targets)),
            100 * float((logits.argmax(1) == DATA.test_targets).double().mean()))


moved, held = ({lr: [*zip(*(judged(*dot_regression(seed, lr, moving)) for seed in range(SEEDS)))] for lr in (0.1, 0.5)}
               for moving in (True, False))
table(["rows", "learning rate", "mean angle between rows, degrees", "test loss", "test accuracy, %"],
      [[name, f"{lr:g}", *map(median_range, values, (".0f", ".1e", ".1f"))]
       for name, results in (("learned", moved), ("a fixed ETF", held)) for lr, values in results.items()])
say(f"*{SEEDS} seeds, median (range); the angle is that of the mean cosine. In a simplex ETF it is 96°.*")

# %% [markdown]
# Far. At the larger rate the rows are some 16° apart on average, and many digits are wrong, at a *lower* loss than at
# the smaller rate. There the rows are 31° to 36° apart, and what remains still tells most digits apart, by margins
# that the loss hardly sees. With an ETF that is held the same loss and rates leave 1% of errors, at a loss some 30
# and 60 times higher. `Recipe` refuses the combination.
#
# ## 3. The head
#
# In the package a fixed classifier is a module with buffers in place of parameters: it stands where a model's last
# `nn.Linear` stood, moves with `.to(device)`, is saved in the `state_dict`, and no optimiser ever sees it.

# %%
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, C))
model[-1] = ncbook.FixedETFHead(32, C)
print(tuple(model(DATA.test_inputs[:5]).shape), "parameters of the head:", len([*model[-1].parameters()]))

# %% [markdown]
# Its default *frame*, "nonnegative", has one block of coordinates per class, so that features behind a ReLU can reach
# it. This chapter takes the *canonical* ETF of [The simplex ETF](02_simplex_etf.ipynb), which lies in the first $C-1$
# coordinates.
#
# A learned classifier of $C \times d$ numbers is stored three times over under SGD with momentum (weight, gradient,
# momentum), a fixed one once. And an ETF needs no more than $d = C-1$:

# %% jupyter={"source_hidden": true}
# Table: memory of learned and fixed classifiers
NETWORKS = {"digits, this chapter": (10, 64), "ResNet-18, 100 classes": (100, 512),
            "ResNet-50, 1,000 classes": (1000, 2048)}
table(["float32, MiB", "learned", "fixed", "fixed, $d = C-1$"],
      [[what, *(f"{numbers / 2**18:.3g}" for numbers in (3 * c * d, c * d, c * (c - 1)))]
       for what, (c, d) in NETWORKS.items()])

# %% [markdown]
# The larger saving is in the backbone, whose last layers can be narrower: with $d = C$ and a fixed ETF, Zhu et al.
# report over 20% less memory for ResNet-18 at the same accuracy. Language models are beyond it: with more classes than
# dimensions, no simplex ETF fits.
#
# ## 4. Fixed against learned
#
# Same backbone, data and order of batches; only the head changes, and where it is said its norm or loss. *Standard*
# learns a classifier of unit rows, the baseline of this book; *fixed* has the canonical ETF; *fixed, τ = 1* the same
# with features of norm 1 in place of 5, and *fixed, dot* the latter with dot regression. *Which differs more, the
# accuracy or the geometry?*

# %%
HEADS_COMPARED = {"standard": dict(head="cosine"), "fixed": dict(head="fixed", frame="canonical"),
                  "fixed, τ = 1": dict(head="fixed", frame="canonical", scale=1.0),
                  "fixed, dot": dict(head="fixed", frame="canonical", loss="dot_regression", scale=1.0)}


def run_seeds(**options):
    recipes = [ncbook.Recipe(epochs=EPOCHS, seed=seed, **options) for seed in range(SEEDS)]
    return [list(ncbook.train(recipe, data=DATA)) for recipe in recipes]


runs = {name: run_seeds(**options) for name, options in HEADS_COMPARED.items()}

# %% jupyter={"source_hidden": true}
# Draw ETF distance, test error and NC1 of the heads
rows = {name: [[shot.row() | {"train_test error, %": 100 - shot.row()["test_accuracy"]} for shot in run]
               for run in seeds] for name, seeds in runs.items()}
plots.metric_curves(
    rows, ["etf_distance", "test error, %", "nc1"], title="Learned and fixed classifiers on digits").update_layout(
    width=720, title_subtitle_text=f"median of {SEEDS} seeds, band: range; geometry on the training set")

# %% jupyter={"source_hidden": true}
# Table: accuracy and geometry of the heads at the end
def at_end(method, column):
    return [run[-1].row()[column] for run in runs[method]]


def results_table(*methods):
    columns = {"test_accuracy": ".1f", "train_nc1": ".3f", "train_etf_distance": ".4f", "train_nc3": ".4f"}
    table(["head", "test accuracy, %", "NC1", "ETF distance", "NC3"],
          [[m, *(median_range(at_end(m, column), form) for column, form in columns.items())] for m in methods])


results_table(*runs)
nearer = [a.row()["train_etf_distance"] / b.row()["train_etf_distance"]
          for a, b in zip(*([run[-1] for run in runs[name]] for name in ("standard", "fixed")))]
say(f"*Epoch {EPOCHS}, median of {SEEDS} seeds (range), geometry on the training set. One test image of"
    f" {len(DATA.test_targets)} is {100 / len(DATA.test_targets):.1f} points. Seed by seed, the ETF distance of"
    f" standard is {median_range(nearer, '.0f')} times that of fixed.*")

# %% [markdown]
# (In the picture an error of 0% is drawn at 0.1%.) In accuracy no difference between *standard* and *fixed* can be
# seen on a task as easy as this; on 250 images of MNIST, with the settings of the learned one, the fixed ETF is
# behind ([Reproduction](13_reproduction.ipynb)). The geometry tells them apart: with a fixed ETF the (squared) ETF
# distance is many times smaller. How many times depends on the network: on a perceptron [Guided
# training](08_guided_training.ipynb) finds much less. The scatter within classes, NC1, is about as large for both.
# How tightly a class gathers depends more on loss and feature norm: with norm 1 cross-entropy leaves less than half
# of it, and dot regression at the same norm four times as much as that, as fits a force that fades near the vertex.
# In one respect the learned classifier ends ahead: it agrees better with its class means (NC3), as both sides can
# move.
#
# ## 5. No spare dimension
#
# Ten classes need nine dimensions. *Are nine enough? And two for three classes?*

# %%
runs["fixed, d = 9"] = run_seeds(head="fixed", frame="canonical", feature_dim=C - 1)
THREE = ncbook.load_dataset("digits", classes=3)
NARROW = ncbook.Recipe(head="fixed", frame="canonical", classes=3, epochs=10, lr=0.05)


def narrow_run(dim, scale, seed):
    recipe = replace(NARROW, feature_dim=dim, scale=scale, seed=seed)
    return list(ncbook.train(recipe, data=THREE, every=10))[-1].train["accuracy"]


narrow = {(d, tau): [narrow_run(d, tau, seed) for seed in range(NARROW_SEEDS)]
          for d, tau in ((2, 5.0), (3, 5.0), (2, 1.0))}

# %% jupyter={"source_hidden": true}
# Tables: digits in as few dimensions as an ETF needs
results_table("fixed", "fixed, d = 9")
solved = {key: sum(accuracy > 0.95 for accuracy in values) for key, values in narrow.items()}
table(["three classes: $d$", "τ", f"seeds of {NARROW_SEEDS} with training accuracy above 95%"],
      [[d, tau, count] for (d, tau), count in solved.items()], text=0)

# %% [markdown]
# Nine are enough for the accuracy on ten digits; the geometry is worse, in one seed much. In the plane, most runs of
# three digits with $\tau = 5$ fail, although a perfect solution exists; one more dimension cures it, and so does a
# smaller $\tau$. Here is a run that failed:

# %% jupyter={"source_hidden": true}
# Draw a failed run of three digits in the plane
stuck_seed = min(range(NARROW_SEEDS), key=narrow[2, 5.0].__getitem__)
flat = ncbook.Trainer(replace(NARROW, feature_dim=2, scale=5.0, seed=stuck_seed), data=THREE)
stills = {}
for stop in (0, 3, 8, flat.total_steps if hasattr(flat, "total_steps") else 10 * flat.steps_per_epoch):
    while flat.steps < stop:
        flat.step()
    shot = flat.snapshot(test=False)
    stills[f"step {stop}<br>accuracy {shot.train['accuracy']:.2f}"] = shot.features[:120]
plots.ring_strip(stills, shot.targets[:120], flat.head.weight, class_names=THREE.class_names,
                 title="Three digits in the plane, and a fixed simplex ETF")

# %% [markdown]
# (Points are spread off the circle a little, only to be seen.) An untrained network hardly tells its inputs apart: at
# step 0 all classes lie in nearly the same direction. Then they slide along the circle, and one of them ends
# *opposite* to its vertex, where the push of the two vertices beside it beats the pull. When does that happen? Let
# $f(\varphi) = \tau(-w_y \cos\varphi + v \sin\varphi)$ with a unit vector $v \perp w_y$, and $z = W f$ its logits. As
# $z'' = -z$, and the second derivative of the log of a sum of exponentials is a variance,
#
# $$ \frac{d^2 L}{d\varphi^2} = z_y - \sum_c p_c z_c + \operatorname{Var}_p(z') . $$
#
# At $\varphi = 0$ we have $z_y = -\tau$, all other $z_c = \frac{\tau}{C-1}$ with equal $p_c = \frac{1 - p_y}{C-1}$, and
# $z'_c = \tau \langle w_c, v\rangle$, whose sum and whose entry $y$ are 0. The first two terms are $-\tau\,(1 -
# p_y)\frac{C}{C-1}$ and the variance is $\tau^2\, \frac{1 - p_y}{C-1} \sum_c \langle w_c, v\rangle^2$. That last sum is
# $\frac{C}{C-1}$ for $v$ in the span of the frame and 0 outside it, so
#
# $$ \frac{d^2 L}{d\varphi^2} = \tau\,(1 - p_y)\, \frac{C}{C-1} \Big( \frac{\tau}{C-1} - 1 \Big) \ \text{ inside},
#    \qquad -\tau\,(1 - p_y)\, \frac{C}{C-1} \ \text{ outside.} \tag{4} $$
#
# So the wrong side is a **local minimum if there is no spare dimension, $d = C-1$, and $\tau > C - 1$**; with one,
# there is always a way down. Autograd agrees:

# %%
def curvature(num_classes, scale, inside):
    w = ncbook.simplex_etf(num_classes, num_classes, dtype=torch.float64)
    v = F.normalize(w[1] - w[2], dim=0) if inside else F.one_hot(torch.tensor(num_classes - 1)).double()

    def loss(phi):
        return F.cross_entropy((scale * (-w[0] * phi.cos() + v * phi.sin()) @ w.T)[None], torch.tensor([0]))

    return float(torch.autograd.functional.hessian(loss, torch.tensor(0.0, dtype=torch.float64)))


# %% jupyter={"source_hidden": true}
# Table: curvature opposite to the vertex
SETTINGS = ((3, 1.0), (3, 5.0), (5, 5.0), (10, 5.0))
bends = {at: (curvature(*at, True), curvature(*at, False)) for at in SETTINGS}
table(["C", "τ", "curvature inside", "outside", "if $d = C-1$"],
      [[*at, f"{within:+.2f}", f"{outside:+.2f}", "trap" if within > 0 else "no trap"]
       for at, (within, outside) in bends.items()], text=0)

# %% [markdown]
# With $\tau = 5$ up to five classes have the trap and ten do not, which fits the nine dimensions above. $d = C-1$
# suffices for the *solution*; the *way* to it may need a spare dimension or a small $\tau$.
#
# ## 6. Somebody else's orientation
#
# A fixed ETF prescribes more than a shape: which vertex belongs to which class, and how the whole is turned. *How far
# is that from an untrained network, and is the distance felt?* We start the same network towards four ETFs: the
# *canonical* one; the *best renaming*, the same vertices handed out to the classes at the least distance to the class
# means (an assignment problem); the *nearest* of all orientations; and the farthest, its *opposite*. Distance is
# throughout the squared Frobenius distance to the centred class means at norm 1, as in [The nearest simplex
# ETF](05_nearest_etf.ipynb).

# %%
def early_run(seed, orientation):
    trainer = ncbook.Trainer(ncbook.Recipe(head="fixed", frame="canonical", epochs=EPOCHS, seed=seed), data=DATA)
    means = trainer.snapshot(test=False).class_means
    centred, canonical, nearest = means - means.mean(0), trainer.head.weight.clone(), ncbook.nearest_simplex_etf(means)
    renamed = canonical[linear_sum_assignment(centred @ canonical.T, maximize=True)[1]]
    etf = {"canonical": canonical, "best renaming": renamed, "nearest": nearest, "opposite": -nearest}[orientation]
    trainer.head.weight.copy_(etf)
    losses = [trainer.step().item() for _ in range(2 * trainer.steps_per_epoch)]
    distance = (centred / centred.norm() - etf / math.sqrt(C)).square().sum()
    return float(distance), float(angles_between(F.normalize(centred, dim=1), etf).mean()), losses


early = {name: [early_run(seed, name) for seed in range(SEEDS)]
         for name in ("opposite", "canonical", "best renaming", "nearest")}

# %% jupyter={"source_hidden": true}
# Table and curves: two epochs towards four ETFs
losses = {name: torch.tensor([each[2] for each in results]) for name, results in early.items()}
half = losses["nearest"].shape[1] // 2
means_of = {name: (values[:, :half].mean(1).tolist(), values[:, -10:].mean(1).tolist())
            for name, values in losses.items()}
distances, turns = ({name: [each[k] for each in results] for name, results in early.items()} for k in (0, 1))
table(["ETF", "distance at the start", "mean angle to the vertex, degrees", "mean loss of epoch 1", "last ten steps"],
      [[name, median_range(distances[name], ".2f"), median_range(turns[name], ".0f"),
        *(median_range(values, ".2f") for values in means_of[name])] for name in early])
smooth = {name: values.quantile(0.5, dim=0).unfold(0, 3, 1).mean(1) - loss_floor(C, 5)
          for name, values in losses.items()}
fig = plots.curve_panels({"": {name: (range(2, 2 + len(curve)), curve) for name, curve in smooth.items()}},
                         title="The first two epochs, towards four orientations", x="step",
                         subtitle=f"training loss minus its floor, median of {SEEDS} seeds, mean of 3 steps")
fig.update_yaxes(type="log", tickvals=[0.02, 0.05, 0.1, 0.2, 0.5, 1, 2])

# %% [markdown]
# The canonical vertices are about 90° away, which is what chance gives: in 64 dimensions a random direction is nearly
# orthogonal to any other. Even the best of 3,628,800 ways to hand out ten vertices saves little. An ETF that may turn
# freely lies much closer, and the rest is shape. The worse the orientation, the later the loss falls; by the end of
# the second epoch most of the difference in loss is gone (above its floor, *opposite* is still half as high again as
# *nearest*). So the price is real and, on this problem, small: it would be wrong to say that a fixed ETF fails here.
# Whether it weighs more where the backbone is deep, or its features already good, is not tested here. [The nearest
# simplex ETF](05_nearest_etf.ipynb) avoids it: at each step it asks where the class means are.
#
# ## 7. Rare classes
#
# Yang et al. proposed fixed ETFs for data in which some classes have $R$ times as many samples as others. Fang et al.
# (2021) showed that a learned classifier may then let its rare classes fall together, a *minority collapse*. It takes
# no network to see it, only features that are free: minimise the cross-entropy weighted by class frequency over one
# feature $h_c$ per class and rows $W$, with $\lVert W\rVert_F^2 = C$ and $\sum_c \lVert h_c\rVert^2 = C E_H$, so that
# $E_H$ is the mean squared norm that the features may have, their *budget*. Three frequent classes and three rare ones:

# %%
def layer_peeled(ratio, energy, num_classes=6):
    """Learned rows in the unconstrained model; the first half of the classes is `ratio` times as frequent."""
    generator = torch.Generator().manual_seed(0)
    w, h = (torch.randn(num_classes, num_classes, dtype=torch.float64, generator=generator).requires_grad_()
            for _ in range(2))
    share = torch.tensor([ratio] * (num_classes // 2) + [1.0] * (num_classes // 2), dtype=torch.float64)
    lbfgs = torch.optim.LBFGS([w, h], max_iter=1500, tolerance_grad=1e-9, tolerance_change=1e-13,
                              line_search_fn="strong_wolfe")

    def closure():
        lbfgs.zero_grad()
        logits = num_classes * math.sqrt(energy) / (w.norm() * h.norm()) * h @ w.T
        loss = (share / share.sum() * F.cross_entropy(logits, torch.arange(num_classes), reduction="none")).sum()
        loss.backward()
        return loss

    lbfgs.step(closure)
    return F.normalize(w.detach(), dim=1)


# %% jupyter={"source_hidden": true}
# Draw the minority collapse of a learned classifier
RATIOS, RARE = [1, 2, 3, 5, 10, 20, 50, 100, 300, 1000], ~torch.eye(3, dtype=torch.bool)
rare = {}
for energy in (5, 10, 25):
    rows = [layer_peeled(float(ratio), energy)[3:] for ratio in RATIOS]
    rare[f"learned, E<sub>H</sub> = {energy}"] = RATIOS, [float((w @ w.T)[RARE].mean()) for w in rows]
fig = plots.curve_panels({"": rare | {"fixed": (RATIOS, [-0.2] * len(RATIOS))}}, x="imbalance ratio R",
                         title="Minority collapse of a learned classifier",
                         styles={"fixed": plots.METHOD_STYLES["fixed"][:2]},
                         subtitle="free features, six classes: mean cosine between the rows of rare classes")
fig.update_xaxes(type="log", dtick=1, exponentformat="power").update_yaxes(range=[-0.35, 1.1], dtick=0.5)

# %% [markdown]
# Balanced, the learned classifier is a simplex ETF with cosine $-1/5$. As the imbalance grows, the rows of the rare
# classes close up and, where the budget $E_H$ is tight, coincide. The fixed ETF keeps them apart by construction, and
# by (1) the best place of a sample is its own vertex *however rare its class is*. That is a statement about free
# features; a real backbone still learns less from rare classes.

# %% jupyter={"source_hidden": true}
# Checks of what the text says.
assert loss_floor(C, 5) - 1e-6 < reached.item() < loss_floor(C, 5) + 1e-4
assert [round(power[name], 1) for name in LOSSES] == [1, 1, 3] and turns_round > 120
assert plots.ring_walk(165, 5)[-1] > 175 and abs(plots.ring_walk(165, 1)[-1]) < 1
assert all(max(moved[0.5][0]) < 25 < bound < 45 for bound in moved[0.1][0]) and not list(model[-1].parameters())
assert max(moved[0.5][1]) < min(moved[0.1][1]) and max(moved[0.5][2]) < min(moved[0.1][2])
nc1, nc3 = ({m: median(at_end(m, f"train_{key}")) for m in HEADS_COMPARED} for key in ("nc1", "nc3"))
accuracies = {m: median(at_end(m, "test_accuracy")) for m in runs}
assert max(abs(accuracies[m] - accuracies["fixed"]) for m in ("standard", "fixed, d = 9")) < 6
assert PROFILE != "book" or 2 * nc1["fixed, τ = 1"] < nc1["fixed"] < nc1["fixed, dot"] > 3 * nc1["fixed, τ = 1"]
assert min(min(values[2]) for values in held.values()) > 95 and all(min(held[lr][1]) > 10 * max(moved[lr][1]) for lr in held)
assert min(nearer) > 3 and nc3["standard"] < nc3["fixed"]
assert nc1["fixed, dot"] > nc1["fixed"] and 0.5 < nc1["fixed"] / nc1["standard"] < 2
assert solved[2, 5.0] <= NARROW_SEEDS / 2 and solved[3, 5.0] == solved[2, 1.0] == NARROW_SEEDS
for (c, scale), (within, outside) in bends.items():
    slope = scale * (1 - (-scale * ncbook.simplex_etf(c, c, dtype=torch.float64) @ ncbook.simplex_etf(
        c, c, dtype=torch.float64)[0]).softmax(0)[0]) * c / (c - 1)
    assert abs(within - slope * (scale / (c - 1) - 1)) < 1e-9 > abs(outside + slope)
assert [*distances] == sorted(distances, key=lambda name: -min(distances[name]))
assert max(distances["nearest"]) < min(distances["best renaming"])
first, last = ({name: median(values[k]) for name, values in means_of.items()} for k in (0, 1))
assert all(first["opposite"] - first[name] >= 2 * (last["opposite"] - last[name]) for name in ("canonical", "nearest"))
assert abs(rare["learned, E<sub>H</sub> = 5"][1][0] + 0.2) < 1e-3 and rare["learned, E<sub>H</sub> = 5"][1][-1] > 0.999

# %% [markdown]
# ## Try it
#
# **1. How far is too far?** In the first picture, from how far away does a feature still find its vertex? As $\tau$
# grows, does the trap come to cover the whole lower half of the circle? And at $\tau = 2 = C - 1$, where (4) is zero?
#
# <details><summary>Solution</summary>
#
# What matters is the side of the highest loss on which it starts. For large $\tau$ the top is at 150°, half way between
# another vertex and the far side, and goes no lower; at $\tau = 2$ it is at 180° itself: no trap.
#
# ```python
# for tau in (2, 2.5, 3, 5, 8):
#     at = torch.arange(0, 180.1, 0.1)
#     print(tau, "highest loss at", float(at[plots.ring_loss(at, tau).argmax()]), "degrees")
# ```
#
# </details>
#
# **2. A sure thing.** A thousand classes should be able to reach 99% probability for the true class. Which $\tau$ does
# that need? Guess before you compute: more or less than 20?
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
# ## Summary
#
# - With a fixed simplex ETF and features of norm $\tau$, cross-entropy has one global minimum for each sample, its
#   class's vertex, at the floor (1): 0.034 for ten classes and $\tau = 5$.
# - Dot regression keeps the pull and drops the push. Near the vertex its force is cubic, so it ends slowly; rows that
#   learn run together under it: to a mean angle below 20° after four epochs at a learning rate of 0.5.
# - On digits no difference in accuracy to a learned classifier could be seen (one test image is 0.3 points), and in
#   three seeds the squared ETF distance was 24 to 61 times smaller: with this network, after 12 epochs.
# - At $d = C-1$ and $\tau > C-1$ the place opposite to the vertex is a local minimum: four of five runs of three digits
#   in the plane fail, and none with one more dimension.
# - The canonical vertices are about 90° from the class means of an untrained network. Here that price is paid within
#   two epochs.
#
# ## References
#
# - C. Fang, H. He, Q. Long, W. J. Su. *Exploring deep neural networks via layer-peeled model: minority collapse in
#   imbalanced training.* PNAS 2021. [arXiv 2101.12699](https://arxiv.org/abs/2101.12699)
# - E. Hoffer, I. Hubara, D. Soudry. *Fix your classifier: the marginal value of training the last weight layer.*
#   ICLR 2018. [arXiv 1801.04540](https://arxiv.org/abs/1801.04540)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - F. Pernici, M. Bruni, C. Baecchi, A. Del Bimbo. *Regular polytope networks.* IEEE Transactions on Neural Networks
#   and Learning Systems 2021. [arXiv 2103.15632](https://arxiv.org/abs/2103.15632)
# - Y. Yang, S. Chen, X. Li, L. Xie, Z. Lin, D. Tao. *Inducing neural collapse in imbalanced learning: do we really need
#   a learnable classifier at the end of deep neural network?* NeurIPS 2022.
#   [arXiv 2203.09081](https://arxiv.org/abs/2203.09081)
# - Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu. *A geometric analysis of neural collapse with
#   unconstrained features.* NeurIPS 2021. [arXiv 2105.02375](https://arxiv.org/abs/2105.02375)
#
# **Next:** [The nearest simplex ETF](05_nearest_etf.ipynb).
