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
# # The nearest simplex ETF
#
# *Of all simplex ETFs, which is nearest to the class means that the network has now?* A fixed classifier makes the
# features turn towards a frame that somebody chose before training. Markou, Ajanthan and Gould (2024) turn the question
# round and take the nearest frame, at every step. They find it with a solver on a curved space; this chapter shows that
# one singular value decomposition (SVD) gives the same frame. Press *Play*: class 0 moves across the line through the
# other two.

# %% jupyter={"source_hidden": true}
# Animate class 0 as it crosses the line
import torch

from ncbook import plots

angles = torch.tensor([25.0, -80.0, 160.0], dtype=torch.float64).deg2rad()
lengths = torch.tensor([1.0, 0.7, 0.85], dtype=torch.float64)
triangle = lengths[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
across = torch.tensor([[-0.73, -0.684], [0, 0], [0, 0]], dtype=torch.float64)
moved = [0.1 * k for k in range(26)]
plots.frame_landscape([triangle + far * across for far in moved], [f"{far:.1f}" for far in moved], active=9,
                      prefix="class 0 has moved by ")

# %% [markdown]
# The curves hold every simplex ETF of three classes in the plane: turned by $\theta$, and perhaps mirrored. The nearest
# one (star) follows the means without a leap until class 0 reaches the line. There both valleys are equally deep; then
# the other curve is the lower one, and the frame turns over.
#
# A classifier that follows the features does not ask them to turn, starts in line with the class means, and has nothing
# to train. Whether that helps is the question of [Guided training](08_guided_training.ipynb).
#
# *You will learn*
#
# - what the published problem is, and why its quadratic term is a constant;
# - why what remains is the orthogonal Procrustes problem, solved by one matrix factor;
# - what the published proximal term settles, and why its weight means something different for each number of classes;
# - how a solver on the Stiefel manifold gets to the same frame, where it can get stuck, and what it costs.
#
# ## Setup

# %% jupyter={"source_hidden": true}
# Imports and settings
import math
import timeit

import ncbook
from ncbook import etf, live
from ncbook.book import gaussian, profile, say, table

PROFILE, PROBLEM, TIMED, LARGE = profile(
    {"PROBLEM": "classes, dimensions of the problem on which the solver is watched",
     "TIMED": "number of problems on which it is timed", "LARGE": "classes, dimensions of one timed without it"},
    quick=dict(PROBLEM=(10, 16), TIMED=2, LARGE=(200, 256)),
    book=dict(PROBLEM=(10, 32), TIMED=3, LARGE=(1000, 1024)),
    paper=dict(PROBLEM=(10, 512), TIMED=4, LARGE=(1000, 2048)),
)

# %% [markdown]
# ## 1. The answer in one line
#
# Let $\mu_1, \dots, \mu_C \in \mathbb{R}^d$ be the class means and $\mu_G$ their mean. In formulas
#
# $$ H = [\mu_1 - \mu_G, \ \dots,\ \mu_C - \mu_G] \in \mathbb{R}^{d \times C}, \qquad \bar H = H / \lVert H\rVert_F $$
#
# has one column per class; in code, classes are rows. A simplex ETF has $C$ unit rows in $\mathbb{R}^d$ with cosines
# $-1/(C-1)$, so $W^\top\!/\sqrt C$ has norm 1 as well, and the two can be compared. Every simplex ETF is
# $W = \sqrt{C/(C-1)}\, Q V^\top$ ([The simplex ETF](02_simplex_etf.ipynb)), with the Helmert basis $Q$, and an
# *orientation* $V$, any $(d, C-1)$ matrix with orthonormal columns. The nearest one has
#
# $$ V^\star = \operatorname{polar}(\bar H Q) = U R^\top \quad\text{for the thin SVD}\quad
#    \bar H Q = U S R^\top . \tag{1} $$
#
# *What would convince you that nothing is nearer?* (Samples cannot; they could only refute it. The proof is section
# 2.)

# %%
def nearest_by_hand(class_means):
    C = len(class_means)
    H = (class_means - class_means.mean(0)).T
    Q = ncbook.helmert_basis(C, dtype=H.dtype)
    U, S, Rt = torch.linalg.svd(H @ Q, full_matrices=False)
    return math.sqrt(C / (C - 1)) * Q @ (U @ Rt).T


def squared_distance(class_means, W):
    centred = class_means - class_means.mean(0)
    return float((centred / centred.norm() - W / math.sqrt(len(W))).square().sum())


C, d = 6, 9
means = gaussian(C, d, seed=1)
W = nearest_by_hand(means)

# %% jupyter={"source_hidden": true}
# Table: the formula against other simplex ETFs
def some_etf(seed):
    return ncbook.simplex_etf(C, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


beside = [nearest_by_hand(W + 0.05 * gaussian(C, d, seed=seed)) for seed in range(1000, 2000)]
distances = {"by hand": squared_distance(means, W),
             "package": squared_distance(means, ncbook.nearest_simplex_etf(means)),
             "lowest of 1,000 beside it": min(squared_distance(means, other) for other in beside),
             "lowest of 1,000 at random": min(squared_distance(means, some_etf(seed)) for seed in range(1000)),
             "canonical": squared_distance(means, ncbook.simplex_etf(C, d, dtype=torch.float64))}
table(["simplex ETF", "squared distance to the class means"], [[name, f"{x:.6f}"] for name, x in distances.items()])

# %% [markdown]
# Now literally by hand. Move the class means below, and watch the frame follow; drag one across the line through the
# other two. The *pull* holds the frame back at where it was (section 4); leave it near zero at first.

# %% jupyter={"source_hidden": true}
# Move class means by hand, and watch the nearest ETF
live.nearest_etf_explorer()

# %% [markdown]
# ## 2. Why one SVD is enough
#
# With $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, the paper writes simplex ETFs as $X M/\sqrt{C-1}$, $X \in
# \mathbb{R}^{d\times C}$ with $X^\top X = I$, and solves at each step
#
# $$ \min_{X^\top X = I}\ \Big\lVert \bar H - \tfrac{1}{\sqrt{C-1}}\, X M \Big\rVert_F^2
#    + \tfrac{\delta}{2}\, \lVert X - X_{\rm prev} \rVert_F^2 ,
#    \qquad \delta = 10^{-3}, \tag{2} $$
#
# where $X_{\rm prev}$ is the solution of the step before; this *proximal* term makes the solution unique when $\bar H$
# alone does not. Expand the first square. $M$ is a symmetric projection of rank $C-1$, so
#
# $$ \Big\lVert\tfrac{1}{\sqrt{C-1}} X M\Big\rVert_F^2 = \tfrac{1}{C-1} \operatorname{tr}(M X^\top X M)
#    = \tfrac{\operatorname{tr} M}{C-1} = 1 \quad\text{for every } X^\top X = I . $$
#
# The quadratic term, in which the difficulty seems to lie, is a constant, and so is $\lVert X\rVert_F^2 = C$. What is
# left is linear in $X$:
#
# $$ \max_{X^\top X = I} \ \langle X, B \rangle, \qquad
#    B = \tfrac{2}{\sqrt{C-1}}\, \bar H M + \delta\, X_{\rm prev} . \tag{3} $$
#
# This is the orthogonal Procrustes problem of [The simplex ETF](02_simplex_etf.ipynb), whose solution is the **polar
# factor** of $B$ (Schönemann 1966; Higham 1986): $X = U R^\top$ for the thin SVD $B = U S R^\top$. Both steps in
# numbers, at frames $X$ drawn at random:

# %%
def random_frame(seed):
    return torch.linalg.qr(gaussian(d, C, seed=seed))[0]


def published_objective(X):
    return (H_bar - X @ M / math.sqrt(C - 1)).square().sum() + delta / 2 * (X - X_previous).square().sum()


M = torch.eye(C, dtype=torch.float64) - 1 / C
H_bar = ((means - means.mean(0)) / (means - means.mean(0)).norm()).T
delta, X_previous = 1e-3, random_frame(99)
X_star = ncbook.polar_factor(2 / math.sqrt(C - 1) * H_bar @ M + delta * X_previous)

# %% jupyter={"source_hidden": true}
# Table: the published objective at many frames
frames = [random_frame(seed) for seed in range(100, 300)]
quadratic = torch.stack([(X @ M).square().sum() / (C - 1) for X in frames])
close = [ncbook.polar_factor(X_star + 1e-2 * X) for X in frames]
at_star, lowest, lowest_close = (min(float(published_objective(X)) for X in some) for some in ([X_star], frames, close))
table(["frames", "quadratic term", "objective, lowest"],
      [["200 at random", f"{quadratic.min():.10f} to {quadratic.max():.10f}", f"{lowest:.6f}"],
       ["200 close to the polar factor", "", f"{lowest_close:.6f}"], ["polar factor", "", f"{at_star:.6f}"]])

# %% [markdown]
# ## 3. The dead direction
#
# Without the proximal term, (3) has a flaw that is easy to miss. As $M\mathbf 1 = 0$, the matrix $\bar HM$ has $C$
# columns and at most rank $C-1$: in the direction of the ones vector, $X$ may be anything. Nor does it matter, since
# the classifier is made of $XM$ only. Take that direction out with $V = XQ$: because $Q Q^\top = M$ and $Q^\top Q = I$,
# we have $X M = V Q^\top$, and (3) becomes (1), which is unique as soon as the $C-1$ columns of $\bar HQ$ are
# independent. It also needs just $d \ge C-1$, where $C$ orthonormal columns need $d \ge C$: three classes fit in the
# plane.
#
# Insert the optimum, and the distance itself is the formula of [The simplex ETF](02_simplex_etf.ipynb),
#
# $$ \Big\lVert \bar H - \tfrac{1}{\sqrt C} W^{\star\top} \Big\rVert_F^2
#    = 2 - \frac{2}{\sqrt{C-1}} \sum_k s_k \ \in\ \Big[\, 0,\ 2 - \tfrac{2}{\sqrt{C-1}} \Big] , \tag{4} $$
#
# which this book calls the *ETF distance*, a squared distance. In the plane, $V$ is a rotation or a rotation with a
# mirror, and the two curves of the first picture are cosines with their lowest points at $2 - \sqrt2\,(s_1 + s_2)$ and
# $2 - \sqrt2\,(s_1 - s_2)$. Three means on a line have $s_2 = 0$: two valleys of equal depth.

# %%
Q = ncbook.helmert_basis(C, dtype=torch.float64)
singular_values = {"$\\bar H M$": torch.linalg.svdvals(H_bar @ M), "$\\bar H Q$": torch.linalg.svdvals(H_bar @ Q)}
formula = 2 - 2 * singular_values["$\\bar H Q$"].sum() / math.sqrt(C - 1)

# %% jupyter={"source_hidden": true}
# Tables: singular values, and the distance in three ways
table(["singular values", *range(1, C + 1)],
      [[name, *(f"{s:.4f}" for s in values.tolist()), *[""] * (C - len(values))]
       for name, values in singular_values.items()])
table(["distance", "formula (4)", "definition", "package"],
      [["squared", *(f"{float(x):.10f}" for x in (formula, distances["by hand"], ncbook.simplex_etf_distance(means)))]])

# %% [markdown]
# ## 4. The proximal term, and what its weight means
#
# When class means coincide or lie on a line, as they may early in training, $\bar HQ$ loses a rank and (1) no longer
# has one solution. The computer still returns one, but rounding decides which. A pull towards the previous orientation
# settles the matter:
#
# $$ V^\star = \operatorname{polar}\!\big(\sqrt{C-1}\,\bar HQ + \rho\, V_{\rm prev}\big) . \tag{5} $$
#
# The factor $\sqrt{C-1}$ makes the singular values of an exact ETF equal to 1 for every $C$, so $\rho$ is a *relative*
# pull. Compare with (3) times $(C-1)/2$: the published weight is $\rho = \delta\,(C-1)/2$ in this unit. Turn an exact
# ETF away from $V_{\rm prev}$ by a small angle; by (5) the classifier follows by the share $1/(1+\rho)$. *Does a
# $\delta$ of a thousandth matter?*

# %% jupyter={"source_hidden": true}
# Table: relative pull of δ = 0.001 by number of classes
pulls = {c: 1e-3 * (c - 1) / 2 for c in (2, 10, 100, 1000)}
table(["classes", "relative pull of δ = 0.001", "share of a small turn followed", "lag in a steady turn, steps"],
      [[c, f"{100 * rho:.3g}%", f"{100 / (1 + rho):.3g}%", f"{rho:.3g}"] for c, rho in pulls.items()], text=0)


def two_pulls(weight):
    """The classifier by (2) and by (5), for the means of section 1 and a published weight."""
    x = ncbook.polar_factor(2 / math.sqrt(C - 1) * H_bar @ M + weight * X_previous)
    theirs, held = (math.sqrt(C / (C - 1)) * (frame @ M).T for frame in (x, X_previous))
    return theirs, ncbook.nearest_simplex_etf(means, previous=ncbook.nearest_simplex_etf(held), proximal=weight * (C - 1) / 2)


theirs, ours = two_pulls(delta)
say(f"For the means of section 1, δ = {delta:g} moves the classifier by {(theirs - W).norm():.4f} by (2) and by "
    f"{(ours - W).norm():.4f} by (5); the two results are {(theirs - ours).norm():.4f} apart.")

# %% [markdown]
# With ten classes it is hardly felt. With a thousand the classifier makes two thirds of a turn at once, and behind
# class means that turn steadily it stays half a step behind ($\rho$ steps, if each step makes up for $1/(1+\rho)$ of
# what is missing): more, yet little beside the lags in [Moving averages](07_moving_averages.ipynb). The package takes
# $\rho$, by default the pull of ten classes, for every $C$. (The pull in (2) also holds the dead direction in place
# and, through $X^\top X = I$, acts on $V$ in another way than (5): the two agree to rounding without a pull, and
# differ with one, for means that are far from an ETF by nearly half of what the pull does. The table is for (5).)
#
# And where the means leave a direction open? Two of the six class means are made equal, and everything is perturbed by
# noise of one part in a million, twenty times. *How far apart are the twenty frames?*

# %%
W_previous = some_etf(1)
equal = means[[0, 0, 2, 3, 4, 5]]


def spread(**options):
    shaken = [ncbook.nearest_simplex_etf(equal + 1e-6 * gaussian(C, d, seed=s), **options) for s in range(10, 30)]
    return max(float((a - b).norm() / math.sqrt(C)) for a in shaken for b in shaken)


# %% jupyter={"source_hidden": true}
# Table: how far apart the twenty frames are
spreads = {"none": spread(), f"ρ = {etf.PROXIMAL:g}": spread(previous=W_previous)}
table(["pull", "largest distance of two frames, relative to their size"],
      [[name, f"{x:.2g}"] for name, x in spreads.items()])

# %% [markdown]
# Without the pull, noise of one part in a million decides where the classifier lies. With it, what the means leave open
# stays where it was.

# %% [markdown]
# ## 5. The solver at work
#
# The orientations $\{V : V^\top V = I\}$ are the **Stiefel manifold**, a curved space. A Riemannian trust-region method
# (Absil, Baker and Gallivan 2007) minimises a function on it as Newton's method does in a flat space: it builds a
# quadratic model at the current point, minimises it among tangent vectors of limited length, and brings the step back
# onto the manifold. The paper uses it through a copy of pymanopt (Townsend, Koep and Weichwald 2016); so does
# `riemannian_nearest_etf`, in float64, on the objective of (5). For the three means of the first picture, at its start,
# these are the points that it visits:

# %%
start = plots.frame_at(torch.tensor([plots.frame_angle(nearest_by_hand(triangle))[0] - 130]), mirrored=True)[0]
solution = ncbook.riemannian_nearest_etf(triangle, initial=start)

# %% jupyter={"source_hidden": true}
# Draw the solver's path
grid = torch.linspace(-180, 180, 121, dtype=torch.float64)
curves = {name: (grid, plots.frame_distances(triangle, grid, name == "mirrored"))
          for name in ("not mirrored", "mirrored")}
fig = plots.curve_panels({"": curves}, title="The solver's path", subtitle="numbers count its iterations",
                         styles={"not mirrored": (plots.TONES[1], "dash"), "mirrored": (plots.TONES[2], "solid")})
visited = [plots.frame_angle(w) for w in solution.path]
fig.add_scatter(x=[angle for angle, _ in visited], y=solution.cost, mode="markers+text", name="visited",
                text=[str(k) if k < 5 else "" for k in range(len(visited))], textposition="middle right",
                marker=dict(symbol="diamond", size=11, color=plots.TONES[3]))
best = nearest_by_hand(triangle)
fig.add_scatter(x=[plots.frame_angle(best)[0]], y=[squared_distance(triangle, best)], mode="markers",
                name="closed form", marker=dict(symbol="star-open", size=20, color=plots.TONES[0]))
fig.update_xaxes(title="angle θ of the frame, degrees", dtick=60, range=[-180, 180])
fig.update_yaxes(title="squared distance", range=[-0.15, 4.1])

# %% [markdown]
# A handful of iterations lead to the bottom, where the closed form already is. The other curve is a warning. For $d =
# C-1$ the orientations are square orthogonal matrices, $\det V = \pm 1$, in two separate components, and a solver
# moves continuously. `riemannian_nearest_etf` therefore mirrors its start if its determinant and that of $\bar H Q$
# have different signs. To see what would happen otherwise, we embed the plane in space, with a third coordinate of
# zero, and start on the wrong curve. *Does the third dimension help?*

# %%
def in_space(x):
    return torch.nn.functional.pad(x, (0, 1))


wrong = plots.frame_at(torch.tensor([0.0]), mirrored=False)[0]
stuck = ncbook.riemannian_nearest_etf(in_space(triangle), initial=in_space(wrong))

# %% jupyter={"source_hidden": true}
# Table: where the solver stops on the wrong curve
bottoms = {name: float(curve[1].min()) for name, curve in curves.items()}
table(["iterations", "gradient norm", "distance reached", "bottom of “not mirrored”", "bottom of “mirrored”"],
      [[len(stuck.cost) - 1, f"{stuck.gradient_norm[-1]:.0e}",
        *(f"{x:.3f}" for x in (stuck.cost[-1], *bottoms.values()))]], text=0)

# %% [markdown]
# It does not. The gradient is zero, so the solver stops, at the wrong ETF. In space that point is a
# saddle, and a start that is not perfectly flat gets past it (exercise 2). The SVD needs no such care.
#
# On a larger problem a second-order method converges slowly while it is far away, and then all at once:

# %% jupyter={"source_hidden": true}
# Draw the solver's convergence on a larger problem
num_classes, dim = PROBLEM
problem = gaussian(num_classes, dim, seed=2) * torch.linspace(0.2, 2, num_classes, dtype=torch.float64)[:, None]
solved, optimum = ncbook.riemannian_nearest_etf(problem), float(ncbook.simplex_etf_distance(problem))
plots.solver_trace(dict(cost=solved.cost, gradient_norm=solved.gradient_norm), optimum=optimum,
                   title=f"Trust regions for {num_classes} classes in {dim} dimensions").update_layout(
    width=720, height=360).update_traces(line_color=plots.TONES[3], marker_color=plots.TONES[3]).update_traces(
    line_color=plots.TONES[0], marker_color=plots.TONES[0], selector=dict(name="cost gap"))

# %% jupyter={"source_hidden": true}
# Compare solver and closed form on twelve problems
worst = 0.0
for seed, (c, size) in enumerate([(2, 1), (3, 2), (4, 3), (4, 9), (7, 6), (10, 20)]):
    some_means = gaussian(c, size, seed=seed)
    before = ncbook.simplex_etf(c, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for options in ({}, {"previous": before, "proximal": 0.3}):
        by_solver = ncbook.riemannian_nearest_etf(some_means, max_iterations=500, **options).etf
        worst = max(worst, float((by_solver - ncbook.nearest_simplex_etf(some_means, **options)).abs().max()))
say(f"On twelve problems, two to ten classes, with and without a pull, no entry of the two classifiers differs by more"
    f" than {worst:.0e}.")

# %% [markdown]
# What does iterating cost? Both are timed here, the closed form with its backward pass. Take it as an order of
# magnitude: the numbers depend on the machine and are shown to one digit, and the solver is this book's float64
# reference, started cold or, as in training, at the solution for class means that
# were 1% different.

# %% jupyter={"source_hidden": true}
# Table: time of the solver and of the closed form
def best_time(function, class_means, repeats, **options):
    return min(timeit.repeat(lambda: function(class_means, **options), number=1, repeat=repeats))


def closed_form_step(class_means):
    leaf = class_means.clone().requires_grad_()
    ncbook.nearest_simplex_etf(leaf)[:, 0].sum().backward()


timed = []
for c, size in [*[(4, 8), (10, 32), (30, 64), (100, 512)][:TIMED], LARGE]:
    class_means, noise = gaussian(c, size, dtype=torch.float32), gaussian(c, size, seed=1, dtype=torch.float32)
    starts = [{}, dict(initial=ncbook.nearest_simplex_etf(class_means + 0.01 * noise))] if (c, size) != LARGE else []
    repeats = 3 if c < 500 else 1
    timed.append((c, size, [best_time(ncbook.riemannian_nearest_etf, class_means, repeats, **start) for start in starts],
                  best_time(closed_form_step, class_means, repeats)))
table(["classes", "dimensions", "solver, cold, ms", "solver, warm, ms", "closed form, forward and backward, ms"],
      [[c, size, *(f"{float(f'{1000 * x:.1g}'):,g}" if x else "not tried" for x in (*(by_solver or [0, 0]), closed))]
       for c, size, by_solver, closed in timed], text=0)

# %% [markdown]
# With a thousand classes the closed form alone takes half a second or more, and the solver was not tried; [Your own
# model](15_your_own_model.ipynb) fits the frame less often.
#
# **The published code** (`nc/models/ddn_modules.py` in the [authors'
# repository](https://github.com/evanmarkou/Guiding-Neural-Collapse)) differs from this reference in ways that matter
# for a comparison. Its solver runs on a GPU, takes at most 30 iterations, and starts from the previous solution; the
# very first step is solved without the pull. It centres the class means with the mean of the *batch*. As $M$ centres
# again, (1) stays as it is, but the norm of $\bar H$ changes, and with it the weight of the pull; so does the bias.
# And where memory runs out, as it must with many classes, a comment explains how to run forward only, without this
# gradient; [The implicit gradient](06_implicit_gradient.ipynb) shows that it can be kept.

# %% jupyter={"source_hidden": true}
# Checks of what the text says.
assert float((W - ncbook.nearest_simplex_etf(means)).abs().max()) < 1e-9
assert max(distances["by hand"], distances["package"]) < min([*distances.values()][2:]) - 1e-3
assert torch.allclose(quadratic, torch.ones_like(quadratic), atol=1e-12) and at_star < min(lowest, lowest_close)
assert singular_values["$\\bar H M$"][-1] < 1e-12 and abs(float(formula) - distances["by hand"]) < 1e-10
assert abs(float(ncbook.simplex_etf_distance(means)) - distances["by hand"]) < 1e-10
corners = triangle - triangle.mean(0)
s = torch.linalg.svdvals(corners.T / corners.norm() @ ncbook.helmert_basis(3, dtype=torch.float64))
assert abs(bottoms["mirrored"] - (2 - math.sqrt(2) * float(s.sum()))) < 2e-3
assert abs(bottoms["not mirrored"] - (2 - math.sqrt(2) * float(s[0] - s[1]))) < 2e-3
flips = [plots.frame_angle(nearest_by_hand(triangle + far * across))[1] for far in moved]
assert flips == sorted(flips, reverse=True) and flips[0] and not flips[-1]
assert math.isclose(etf.PROXIMAL, pulls[10])
for weight in (0.0, 1e-3, 1e-2):
    theirs, ours = two_pulls(weight)
    assert (theirs - ours).norm() / ours.norm() < (1e-9 if weight == 0 else weight * (C - 1))
assert [*spreads.values()][0] > 0.1 and [*spreads.values()][1] < 1e-3
assert all(mirrored for _, mirrored in visited) and bottoms["not mirrored"] > solution.cost[-1] + 0.1
assert stuck.gradient_norm[-1] < 1e-6 and abs(stuck.cost[-1] - bottoms["not mirrored"]) < 2e-3
assert solved.gradient_norm[-1] < 1e-6 and abs(solved.cost[-1] - optimum) < 1e-10 and worst < 1e-6
assert timed[-2][2][0] > timed[-2][3]  # the cold solver on its largest problem, against the closed form

# %% [markdown]
# ## Try it
#
# **1. Classes that count more.** A class with few samples has a noisy mean. Minimise $\sum_c n_c \lVert \bar h_c -
# w_c/\sqrt C\rVert^2$ over simplex ETFs, where $\bar h_c$ are the columns of $\bar H$ and $n_c > 0$ are weights. Is it
# still one SVD?
#
# <details><summary>Solution</summary>
#
# Yes. The rows $w_c$ have unit norm, so $\sum_c n_c \lVert w_c\rVert^2$ is constant, and the rest is linear in $V$:
# with $N = \operatorname{diag}(n)$ maximise $\langle V, \bar H N Q\rangle$, so $V = \operatorname{polar}(\bar H N Q)$.
#
# ```python
# counts = torch.tensor([100.0, 1, 1, 1, 1, 1], dtype=torch.float64)
# weighted = math.sqrt(C / (C - 1)) * Q @ ncbook.polar_factor(H_bar @ (counts[:, None] * Q)).T
# for frame in (W, weighted):
#     print((H_bar[:, 0] - frame[0] / math.sqrt(C)).norm())  # class 0 gets a closer vertex
# ```
# </details>
#
# **2. A way out of the wrong valley.** Start the solver of section 5 in space again, but tilted a little out of the
# plane. Does it arrive, and by which way?
#
# <details><summary>Solution</summary>
#
# It does. The path leaves the plane, turns the triangle over in space, and comes back mirrored.
#
# ```python
# tilt = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.01], [0, 0, 0.02], [-0.01, -0.02, 0]], dtype=torch.float64))
# solved = ncbook.riemannian_nearest_etf(in_space(triangle), initial=in_space(wrong) @ tilt)
# print([round(float(w[:, 2].norm()), 3) for w in solved.path])  # size of the third coordinate
# print((solved.etf - in_space(nearest_by_hand(triangle))).abs().max())
# ```
# </details>
#
# ## Summary
#
# - The published problem has a constant quadratic term. What is left is orthogonal Procrustes, solved by a polar
#   factor: $V^\star = \operatorname{polar}(\bar HQ)$, $W^\star = \sqrt{C/(C-1)}\, Q V^{\star\top}$, one SVD of a
#   $(d, C-1)$ matrix.
# - The squared distance is $2 - 2\sum_k s_k/\sqrt{C-1}$: 0 for a simplex ETF, at most $2 - 2/\sqrt{C-1}$ as long as two
#   means differ.
# - The published pull $\delta = 10^{-3}$ is 0.45% of an exact ETF's singular values at ten classes and 50% at a
#   thousand; the package's $\rho$ means the same for every $C$. Without a pull, two equal means let noise turn the
#   frame.
# - A Riemannian solver finds the same frame on twelve problems, step by step, and can stop on the wrong side of a
#   mirror, in the example at a squared distance of 1.66 instead of 0.03.
#
# ## References
#
# - P.-A. Absil, C. G. Baker, K. A. Gallivan. *Trust-region methods on Riemannian manifolds.* Foundations of
#   Computational Mathematics 2007. [doi 10.1007/s10208-005-0179-9](https://doi.org/10.1007/s10208-005-0179-9)
# - N. J. Higham. *Computing the polar decomposition, with applications.* SIAM Journal on Scientific and Statistical
#   Computing 1986. [doi 10.1137/0907079](https://doi.org/10.1137/0907079)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
# - P. H. Schönemann. *A generalized solution of the orthogonal Procrustes problem.* Psychometrika 1966. [doi
#   10.1007/BF02289451](https://doi.org/10.1007/BF02289451)
# - J. Townsend, N. Koep, S. Weichwald. *Pymanopt: A Python toolbox for optimization on manifolds using automatic
#   differentiation.* JMLR 2016. [arXiv 1603.03236](https://arxiv.org/abs/1603.03236)
#
# **Next:** [The implicit gradient](06_implicit_gradient.ipynb).
