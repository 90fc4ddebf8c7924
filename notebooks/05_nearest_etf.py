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
# A fixed classifier asks the network to turn its features towards a frame that somebody chose before training began.
# Markou, Ajanthan and Gould (2024) turn the question round: of all simplex ETFs, which one is *nearest to the class
# means that the network has now*? Make that one the classifier, at every step, and let the gradient know how it moves
# with the features. They find it with a Riemannian solver inside a declarative node. This chapter follows them, watches
# the solver work, and then shows that the same point, and the same gradient, can be written down in one line each.
#
# *You will learn*
#
# - what the published problem is, and why its quadratic term is a constant;
# - why what remains is the orthogonal Procrustes problem, whose solution is a polar factor;
# - what the proximal term decides, and why its published weight means something else for each number of classes;
# - how a trust-region solver on the Stiefel manifold gets to the same ETF, and what it costs;
# - why the implicit gradient is finite at an exact ETF, where automatic differentiation through the SVD is NaN;
# - how all this becomes a classifier head that takes the place of a model's last `nn.Linear`.

# %%
import math
import timeit
from functools import partial

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

import ncbook
from ncbook import etf, live, plots
from ncbook.book import profile, show_code, table

# PROBLEM: for the solver, TIMED: problems timed with the solver, LARGE: one more without
PROFILE, PROBLEM, TIMED, LARGE, EPOCHS = profile(
    quick=dict(PROBLEM=(10, 16), TIMED=[(4, 8), (10, 32)], LARGE=(200, 256), EPOCHS=5),
    book=dict(PROBLEM=(10, 32), TIMED=[(4, 8), (10, 32), (30, 64)], LARGE=(1000, 1024), EPOCHS=20),
    paper=dict(PROBLEM=(10, 512), TIMED=[(10, 512), (100, 512)], LARGE=(1000, 2048), EPOCHS=200),
)
SEED = 0


def gaussian(*shape, seed=SEED, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# %% [markdown]
# ## 1. Which simplex ETF is nearest?
#
# Let $\mu_1, \dots, \mu_C \in \mathbb{R}^d$ be the class means of the features, $C$ classes in $d$ dimensions. In
# code they are the rows of `class_means`, shape `(C, d)`; in formulas we keep the paper's orientation and write
#
# $$ H = \frac{[\mu_1 - \bar\mu, \ \dots,\ \mu_C - \bar\mu]}{\|[\mu_1 - \bar\mu,\ \dots,\ \mu_C - \bar\mu]\|_F}
#    \in \mathbb{R}^{d \times C}, \qquad \bar\mu = \tfrac1C \textstyle\sum_c \mu_c , $$
#
# one column a class, centred and of Frobenius norm 1. A simplex ETF has $C$ unit rows in $\mathbb{R}^d$ whose cosines
# are all $-1/(C-1)$: a $(C, d)$ matrix $W$ of norm $\sqrt C$. So $W^\top/\sqrt C$ has norm 1 as well, and the two can
# be compared.
#
# Three classes in the plane can be drawn as they are. Here are the means of three classes with two ETFs: the canonical
# one, which knows nothing about them, and the nearest. The lines show what the squared distance adds up.

# %%
def normalised(class_means):
    """H^T of the text: rows centred, Frobenius norm 1."""
    centred = class_means - class_means.mean(0)
    return centred / centred.norm()


def squared_distance(class_means, frame):
    return float((normalised(class_means) - frame / math.sqrt(len(frame))).square().sum())


angles = torch.tensor([25.0, -80.0, 160.0], dtype=torch.float64).deg2rad()
lengths = torch.tensor([1.0, 0.7, 0.85], dtype=torch.float64)
triangle = lengths[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1) + 2.0
canonical, nearest = ncbook.simplex_etf(3, 2, dtype=torch.float64), ncbook.nearest_simplex_etf(triangle)
distances = [squared_distance(triangle, frame) for frame in (canonical, nearest)]
assert distances[1] < distances[0]

fig = make_subplots(1, 2, subplot_titles=["{} ETF: squared distance {:.3f}".format(*panel)
                                          for panel in zip(("canonical", "nearest"), distances)])
h, colours = normalised(triangle), plots.class_colors(3)
for column, frame in enumerate((canonical, nearest), start=1):
    vertices, cell = frame / math.sqrt(3), dict(row=1, col=column)
    fig.add_scatter(**plots.xyz(vertices[[0, 1, 2, 0]]), mode="lines", line_color="#B5B5B5", showlegend=False, **cell)
    for colour, ends in zip(colours, torch.stack([h, vertices], dim=1)):
        fig.add_scatter(**plots.xyz(ends), mode="lines", line=dict(color=colour, dash="dot"), showlegend=False, **cell)
    for name, at, symbol in (("class means, normalised", h, "circle"), ("simplex ETF / √C", vertices, "diamond-open")):
        fig.add_scatter(**plots.xyz(at), mode="markers", name=name, showlegend=column == 1,
                        marker=dict(symbol=symbol, size=14, color=colours, line=dict(color=colours, width=2)), **cell)
plots.finish(fig, "Three class means and two simplex ETFs", width=820, height=480,
             legend=dict(orientation="h", x=0, y=-0.16), margin_b=80)
fig.update_xaxes(range=[-0.75, 0.75], constrain="domain")
fig.update_yaxes(range=[-0.75, 0.6], scaleanchor="x", constrain="domain").update_yaxes(scaleanchor="x2", col=2)

# %% [markdown]
# On the left the vertices of classes 1 and 2 (orange and green) lie on the wrong sides, and no rotation mends that: the
# canonical ETF must also be mirrored. On the right each vertex is as close to its class mean as the rigid frame allows.
# What remains is not a question of turning any more: it is the amount by which the means themselves are not an ETF.
#
# With a running kernel, move a class mean and watch the ETF follow. The *pull* holds it back at where it was (section 4);
# leave it near zero at first.

# %%
live.nearest_etf_explorer()

# %% [markdown]
# ## 2. The published problem
#
# With $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, the centring matrix, the paper writes simplex ETFs as
# $X M/\sqrt{C-1}$ with $X \in \mathbb{R}^{d\times C}$, $X^\top X = I$, and solves at each step
#
# $$ \min_{X^\top X = I}\ \Big\| H - \tfrac{1}{\sqrt{C-1}}\, X M \Big\|_F^2
#    + \tfrac{\delta}{2}\, \| X - X_{\rm prev} \|_F^2 ,
#    \qquad \delta = 10^{-3}, \tag{1} $$
#
# where $X_{\rm prev}$ is the solution of the step before. The proximal term with weight $\delta$ makes the solution
# unique when $H$ alone does not. Expand the first square. $M$ is a symmetric projection of rank $C-1$, so
#
# $$ \Big\|\tfrac{1}{\sqrt{C-1}} X M\Big\|_F^2 = \tfrac{1}{C-1} \operatorname{tr}(M X^\top X M)
#    = \tfrac{\operatorname{tr} M}{C-1} = 1 $$
#
# for *every* feasible $X$. The quadratic term, in which the difficulty of (1) seems to lie, is a constant, and so is
# $\|X\|_F^2 = C$ in the proximal term. What is left is linear in $X$:
#
# $$ \max_{X^\top X = I} \ \langle X, A \rangle, \qquad
#    A = \tfrac{2}{\sqrt{C-1}}\, H M + \delta\, X_{\rm prev}. \tag{2} $$
#
# This is the **orthogonal Procrustes problem** (Schönemann 1966). Let $A = U S V^\top$ be the thin SVD, with singular
# values $s_1 \ge s_2 \ge \dots \ge 0$ on the diagonal of $S$. Then
#
# $$ \langle X, A\rangle = \operatorname{tr}(X^\top U S V^\top)
#    = \sum_i s_i\, (V^\top X^\top U)_{ii} \le \sum_i s_i , $$
#
# because $U$ and $XV$ have orthonormal columns, whose inner products are at most 1; for positive $s_i$ equality
# holds exactly when those columns are equal, $X V = U$. So the solution is the **polar factor** of $A$ (Higham 1986),
#
# $$ X^\star = \operatorname{polar}(A) = U V^\top . $$
#
# Both steps are worth a check with numbers: that the quadratic term is constant, and that no feasible point beats the
# polar factor.

# %%
C, d = 6, 9
means = gaussian(C, d, seed=1)
H = normalised(means).T
M = torch.eye(C, dtype=torch.float64) - 1 / C
Q = ncbook.helmert_basis(C, dtype=torch.float64)


def random_frame(seed):
    return torch.linalg.qr(gaussian(d, C, seed=seed))[0]


def published_objective(x, previous, delta):
    return (H - x @ M / math.sqrt(C - 1)).square().sum() + delta / 2 * (x - previous).square().sum()


quadratic = torch.stack([(random_frame(seed) @ M / math.sqrt(C - 1)).square().sum() for seed in range(100)])
previous_x, delta = random_frame(1000), 1e-3
x_star = ncbook.polar_factor(2 / math.sqrt(C - 1) * H @ M + delta * previous_x)
at_star = published_objective(x_star, previous_x, delta)
nearby = [ncbook.polar_factor(x_star + 1e-3 * gaussian(d, C, seed=seed)) for seed in range(100)]
lowest = [min(float(published_objective(x, previous_x, delta)) for x in frames)
          for frames in (map(random_frame, range(100)), nearby)]
assert torch.allclose(quadratic, torch.ones_like(quadratic), atol=1e-12) and at_star < min(lowest)
print(f"quadratic term at 100 random frames: between {quadratic.min():.12f} and {quadratic.max():.12f}")
print(f"objective at the polar factor {at_star:.6f}, lowest of 100 random frames {lowest[0]:.6f}, "
      f"of 100 close by {lowest[1]:.6f}")

# %% [markdown]
# ## 3. The dead direction
#
# Without the proximal term, (2) has a flaw that is easy to miss. Since $M\mathbf 1 = 0$, the matrix $HM$ has rank at
# most $C-1$ although it has $C$ columns: in the direction of the ones vector, $X$ may be anything. Nor does it matter,
# as the classifier is built from $XM$ only. So take that direction out. With the Helmert basis $Q$ of chapter 02, $Q
# Q^\top = M$ and $Q^\top Q = I$, put $V = XQ$, a $(d, C-1)$ matrix with orthonormal columns (here and below, $V$ is
# this frame and no longer the right singular vectors). As $X M = V Q^\top$, the problem in terms of what matters is
#
# $$ V^\star = \operatorname{polar}(H Q), \qquad W^\star = \sqrt{\tfrac{C}{C-1}}\; Q\, V^{\star\top}, \tag{3} $$
#
# unique as soon as the $C-1$ columns of $HQ$ are independent, with or without a previous solution. It also needs just
# $d \ge C-1$, where a matrix $X$ with $C$ orthonormal columns needs $d \ge C$: with (3), three classes fit in the plane
# and four in space.

# %%
published_w = math.sqrt(C / (C - 1)) * (ncbook.polar_factor(H @ M) @ M).T
clean_w = math.sqrt(C / (C - 1)) * Q @ ncbook.polar_factor(H @ Q).T
package_w = ncbook.nearest_simplex_etf(means)
for name, a in (("H M", H @ M), ("H Q", H @ Q)):
    print(f"singular values of {name}:", [round(s, 4) for s in torch.linalg.svdvals(a).tolist()])
gap = max((published_w - clean_w).abs().max(), (package_w - clean_w).abs().max())
print(f"largest difference between the three classifiers: {gap:.1e}")
assert gap < 1e-9

# %% [markdown]
# The same singular values, but for the zero. In the package, (3) takes a few lines. It also accepts the previous
# solution, which the next section explains:

# %%
show_code(etf._NearestFrame.forward)

# %% [markdown]
# Put the optimum back into the objective and the distance itself is a formula. The inner product at the polar factor is
# the sum of the singular values, the nuclear norm $\|\cdot\|_*$, so
#
# $$ \Big\| H - \tfrac{1}{\sqrt C} W^{\star\top} \Big\|_F^2 = 2 - \frac{2\, \|HQ\|_*}{\sqrt{C-1}} \in [0, 2] $$
#
# (with $\|HQ\|_F = 1$). It is `simplex_etf_distance`, one of the metrics of this book.

# %%
formula = float(2 - 2 * torch.linalg.matrix_norm(H @ Q, "nuc") / math.sqrt(C - 1))
values = [formula, squared_distance(means, package_w), float(ncbook.simplex_etf_distance(means))]
print("formula, definition, package:", [round(v, 10) for v in values])
assert max(values) - min(values) < 1e-10

# %% [markdown]
# ## 4. The proximal term, and what its weight means
#
# Suppose that two class means coincide, as they may early in training. Then $HQ$ loses a rank and (3) no longer has one
# solution. The computer still returns one, but which one depends on rounding. A pull towards the previous frame
# $V_{\rm prev}$ decides:
#
# $$ V^\star = \operatorname{polar}\!\Big(\sqrt{C-1}\,\tfrac{HQ}{\|HQ\|_F} + \rho\, V_{\rm prev}\Big). \tag{4} $$
#
# The factor $\sqrt{C-1}$ makes the singular values of an exact ETF equal to 1, whatever $C$ is, so $\rho$ is a
# *relative* pull. Multiply $A$ in (2) by $(C-1)/2$ to see what the published weight is in this unit: $\rho =
# \delta\,(C-1)/2$.

# %%
pulls = {c: 1e-3 * (c - 1) / 2 for c in (2, 10, 100, 1000)}
table(["classes $C$", "relative pull $\\rho$ of $\\delta = 10^{-3}$", "share of a turn that the classifier follows"],
      [[c, f"{100 * rho:.3g}%", f"{100 / (1 + rho):.3g}%"] for c, rho in pulls.items()], text=0)
assert math.isclose(etf.PROXIMAL, pulls[10])

# %% [markdown]
# The default here is the pull of ten classes, for every $C$. The last column is for class means that are an exact ETF turned a little away from $V_{\rm prev}$: by an angle
# $\varphi$, say, in one plane. There (4) adds up two rotations, and the result is turned by $\arctan
# \frac{\sin\varphi}{\cos\varphi + \rho} \approx \varphi/(1+\rho)$. With ten classes the published pull is hardly
# felt. With a thousand it holds the classifier back by a third of the way, and $\delta$ has become a second, hidden
# learning rate. A relative $\rho$ means the same for every $C$.
#
# To be exact: the pull in (1) also ties the dead direction $X\mathbf 1$ to its previous place, and, through $X^\top X =
# I$, this reaches $V$ a little. So (1) and (4) agree to rounding without a pull, and with one up to its order only:

# %%
previous_w = math.sqrt(C / (C - 1)) * Q @ (previous_x @ Q).T
for delta in (0.0, 1e-3, 1e-2):
    rho = delta * (C - 1) / 2
    x = ncbook.polar_factor(2 / math.sqrt(C - 1) * H @ M + delta * previous_x)
    ours = ncbook.nearest_simplex_etf(means, previous=previous_w, proximal=rho)
    difference = (math.sqrt(C / (C - 1)) * (x @ M).T - ours).norm() / ours.norm()
    print(f"delta = {delta:<6g} rho = {rho:<7g} relative difference of the classifiers {difference:.1e}")
    assert difference < (1e-9 if delta == 0 else 2 * rho)

# %% [markdown]
# Now the degenerate case. Two of the six class means are made equal, then everything is shaken by noise of a millionth,
# twenty times. How far apart are the resulting ETFs?

# %%
degenerate = means[[0, 0, 2, 3, 4, 5]]


def spread(**options):
    shaken = [ncbook.nearest_simplex_etf(degenerate + 1e-6 * gaussian(C, d, seed=s), **options) for s in range(20)]
    return max(float((a - b).norm() / math.sqrt(C)) for a in shaken for b in shaken)


free, pulled = spread(), spread(previous=previous_w)
print(f"largest distance of two solutions, relative to their size: {free:.2g} without a pull, {pulled:.2g} with one")
assert free > 0.1 and pulled < 1e-3

# %% [markdown]
# Without the pull, noise that nobody would notice throws the classifier about. With it, the direction that the means
# leave open stays where it was, and the others follow the means.
#
# ## 5. The Riemannian solver at work
#
# The set of frames $\{V : V^\top V = I\}$ is the **Stiefel manifold**, a smooth curved surface in matrix space. A
# Riemannian trust-region method (Absil, Baker and Gallivan 2007) minimises a function on it as Newton's method would
# in a flat space: at the current point it builds a quadratic model from the Riemannian gradient and Hessian, minimises
# the model among tangent vectors of limited length, and *retracts* the step onto the manifold. The paper uses it
# through pymanopt (Townsend, Koep and Weichwald 2016); so does `riemannian_nearest_etf`, in float64, on the objective
# of (4) divided by a constant.
#
# For three classes in the plane the whole manifold can be drawn. A frame is a rotation by an angle $\theta$, perhaps
# with a mirror, and the cost is a function of $\theta$ on two separate circles. The points are what the solver visits
# for the three class means of section 1.

# %%
def rotation(theta, mirrored=False):
    turn = torch.stack([theta.cos(), -theta.sin(), theta.sin(), theta.cos()], dim=-1).unflatten(-1, (2, 2))
    return turn * torch.tensor([1.0, -1.0], dtype=theta.dtype) if mirrored else turn


def etf_at(theta, mirrored):
    return math.sqrt(1.5) * ncbook.helmert_basis(3, dtype=torch.float64) @ rotation(theta, mirrored).mT


def angle_of(frame):
    v = math.sqrt(2 / 3) * frame.T @ ncbook.helmert_basis(3, dtype=torch.float64)
    return float(torch.atan2(v[1, 0], v[0, 0]).rad2deg()), bool(torch.linalg.det(v) < 0)


start_angle = torch.tensor(angle_of(nearest)[0] - 130, dtype=torch.float64)
solution = ncbook.riemannian_nearest_etf(triangle, initial=etf_at(start_angle.deg2rad(), mirrored=True))
theta = torch.linspace(-180, 180, 121, dtype=torch.float64)
curves = {m: [squared_distance(triangle, w) for w in etf_at(theta.deg2rad(), m)] for m in (False, True)}
visited = [angle_of(w) for w in solution.path]
assert all(mirrored for _, mirrored in visited) and min(curves[False]) > solution.cost[-1] + 0.1

fig = go.Figure()
for mirrored, name, colour, dash in ((False, "not mirrored", "#8A5A2B", "dash"), (True, "mirrored", "#009E73", "solid")):
    fig.add_scatter(x=theta, y=curves[mirrored], mode="lines", name=name, line=dict(color=colour, dash=dash))
fig.add_scatter(x=[a for a, _ in visited], y=solution.cost, mode="markers+text", name="solver's path",
                text=[str(i) if i < 5 else "" for i in range(len(visited))], textposition="top right",
                marker=dict(symbol="diamond", size=11, color="#0072B2"))
fig.add_scatter(x=[angle_of(nearest)[0]], y=[squared_distance(triangle, nearest)], mode="markers", name="closed form",
                marker=dict(symbol="star-open", size=20, color="#D55E00"))
plots.finish(fig, "All simplex ETFs of three classes in the plane", "numbers count the solver's iterations")
fig.update_xaxes(title="angle θ of the frame, degrees", dtick=60, range=[-180, 180])
fig.update_yaxes(title="squared distance to the class means", rangemode="tozero")

# %% [markdown]
# The solver starts far up one curve and needs a handful of iterations to the bottom, where the closed form already is.
# The other curve is a warning. For $d = C-1$ frames are square orthogonal matrices, $\det V = \pm 1$, and the manifold
# $O(d)$ falls into two components. A solver moves continuously, so it stays in the component in which it starts.
# `riemannian_nearest_etf` therefore compares determinants first and mirrors its start if need be. To see what happens
# otherwise, we hide the plane in three-dimensional space, by a third coordinate of zero, and start from the wrong side:

# %%
def in_space(x):
    return torch.nn.functional.pad(x, (0, 1))


stuck = ncbook.riemannian_nearest_etf(in_space(triangle), initial=in_space(canonical))
print(f"stops after {len(stuck.cost) - 1} iterations: gradient norm {stuck.gradient_norm[-1]:.0e}, cost "
      f"{stuck.cost[-1]:.3f}; lowest of the dashed curve {min(curves[False]):.3f}, of the solid one {min(curves[True]):.3f}")
assert stuck.gradient_norm[-1] < 1e-6 and abs(stuck.cost[-1] - min(curves[False])) < 1e-3

# %% [markdown]
# The gradient is zero, the solver is content, and the ETF is the wrong one: the bottom of the dashed curve. Inside
# the plane it is a minimum. In space, where the manifold is connected, it is a saddle, and a start that is not
# perfectly flat gets past it (exercise 3). With a spare dimension, $d \ge C$, the manifold of the frames $V$ is
# always connected. The polar factor needs no such care.
#
# On a larger problem, the trace shows how a second-order method converges: slowly while far away, and then all at once.

# %%
num_classes, dim = PROBLEM
problem = gaussian(num_classes, dim, seed=2) * torch.linspace(0.2, 2, num_classes, dtype=torch.float64)[:, None]
solved = ncbook.riemannian_nearest_etf(problem)
optimum = float(ncbook.simplex_etf_distance(problem))
assert solved.gradient_norm[-1] < 1e-6 and abs(solved.cost[-1] - optimum) < 1e-10
plots.solver_trace(dict(cost=solved.cost, gradient_norm=solved.gradient_norm), optimum=optimum,
                   title=f"Trust regions for {num_classes} classes in {dim} dimensions")

# %% [markdown]
# Is it the same ETF? Several problems, with and without the proximal pull, say yes:

# %%
worst = 0.0
for seed, (c, dimensions) in enumerate([(2, 1), (3, 2), (4, 3), (4, 9), (7, 6), (10, 20)]):
    some_means = gaussian(c, dimensions, seed=seed)
    previous = ncbook.simplex_etf(c, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for options in ({}, {"previous": previous, "proximal": 0.3}):
        by_solver = ncbook.riemannian_nearest_etf(some_means, max_iterations=500, **options).etf
        worst = max(worst, float((by_solver - ncbook.nearest_simplex_etf(some_means, **options)).abs().max()))
print(f"largest difference of an entry between solver and closed form: {worst:.1e}")
assert worst < 1e-6

# %% [markdown]
# What does the iteration cost? Both are timed here, each as the best of a few runs, the closed form with its backward
# pass. The numbers depend on the machine that built this page, so they are printed with one digit. The solver is the
# float64 reference of this book and starts cold; the paper's own runs on a GPU and starts from the previous solution,
# which saves iterations. Take it as a rough order of magnitude, not as a verdict on its implementation.

# %%
def best_time(function, class_means, repeats):
    return min(timeit.repeat(lambda: function(class_means), number=1, repeat=repeats))


def milliseconds(seconds):
    return f"{float(f'{1000 * seconds:.1g}'):,g} ms"


def closed_form_step(class_means):
    leaf = class_means.clone().requires_grad_()
    ncbook.nearest_simplex_etf(leaf)[:, 0].sum().backward()


rows = []
for c, dimensions in [*TIMED, LARGE]:
    class_means = gaussian(c, dimensions, dtype=torch.float32)
    closed = best_time(closed_form_step, class_means, 3 if c < 500 else 1)
    solver = best_time(ncbook.riemannian_nearest_etf, class_means, 1) if (c, dimensions) != LARGE else math.inf
    assert solver > closed
    rows.append([c, dimensions, milliseconds(solver) if solver < math.inf else "not tried", milliseconds(closed)])
table(["classes", "dimensions", "solver", "closed form, forward and backward"], rows, text=0)

# %% [markdown]
# ## 6. The gradient
#
# The classifier is a function of the class means, and these are functions of the network's weights. To train end to
# end we need, for $P = \operatorname{polar}(A)$ and an upstream gradient $G = \partial L/\partial P$, the gradient
# $\partial L/\partial A$.
#
# Write $A = P K$ with $K = P^\top A$ symmetric and positive semidefinite, the other half of the polar decomposition.
# Differentiate $A = PK$ and $P^\top P = I$:
#
# $$ dA = dP\, K + P\, dK, \qquad P^\top dP = \Omega, \quad \Omega^\top = -\Omega . $$
#
# *Inside the span of $P$:* multiply by $P^\top$ and subtract the transpose; $dK$, symmetric, drops out and $\Omega
# K + K \Omega = P^\top dA - dA^\top P$. With the thin SVD $A = U S V^\top$ ($V$ being singular vectors again) we have
# $P = UV^\top$, $K = V S V^\top$, and in the basis $V$ the equation is solved entry by entry:
#
# $$ (V^\top \Omega V)_{ij} = \frac{(U^\top dA\, V - V^\top dA^\top U)_{ij}}{s_i + s_j} . $$
#
# *Outside the span:* $(I - PP^\top)\,dA = (I - PP^\top)\,dP\,K$, so
# $(I - UU^\top)\,dP = (I - UU^\top)\,dA\,V S^{-1} V^\top$.
#
# Both are linear in $dA$, and transposing the linear map gives the gradient: with $X = U^\top G V$,
#
# $$ \frac{\partial L}{\partial A} = \Big[\, U B + (I - U U^\top)\, G V S^{-1} \Big] V^\top,
#    \qquad B_{ij} = \frac{X_{ij} - X_{ji}}{s_i + s_j} . \tag{5} $$
#
# Look at the denominators: sums of singular values, and single ones. Differences, $s_i - s_j$, appear nowhere. The
# code is as short as the formula:

# %%
show_code(etf._polar_gradient, etf._safe_reciprocal)

# %% [markdown]
# ### The same gradient as the declarative node
#
# A declarative node (Gould, Hartley, Campbell 2019) differentiates an optimisation problem through its optimality
# conditions. For (2) with multipliers $\Lambda$ (a symmetric matrix, as the constraint $X^\top X = I$ is) these are
#
# $$ A = X \Lambda, \qquad X^\top X = I . $$
#
# They are the two equations that we have just differentiated, with $X = P$ and $\Lambda = K$. So (5) *is* the implicit
# gradient, not an approximation of it. The node's general formula sees a vector of $dk$ unknowns
# under $k(k+1)/2$ constraints, $k$ the number of columns ($C$ in the published form). It solves for
#
# $$ \operatorname{vec} \frac{\partial L}{\partial A}
#    = \Big[ D^{-1} - D^{-1} J^\top (J D^{-1} J^\top)^{-1} J D^{-1} \Big] \operatorname{vec} G,
#    \qquad D = I_d \otimes \Lambda , $$
#
# where $\operatorname{vec}$ stacks rows, as `flatten` does, and $J$ is the Jacobian of the constraints. Here it is,
# dense, written out for a small problem:

# %%
def declarative_gradient(a, upstream):
    """Gradient of polar_factor at a (d, k) from the optimality conditions, by dense linear systems in float64."""
    a, upstream = a.double(), upstream.double()
    d, k = a.shape
    x = ncbook.polar_factor(a)
    multipliers = (x.T @ a + a.T @ x) / 2
    hessian = torch.kron(torch.eye(d, dtype=a.dtype), multipliers)
    i, j = torch.triu_indices(k, k)
    jacobian, row = torch.zeros(len(i), d, k, dtype=a.dtype), torch.arange(len(i))
    jacobian[row, :, i] += x.T[j]
    jacobian[row, :, j] += x.T[i]
    jacobian = jacobian.flatten(1)
    w = torch.linalg.solve(hessian, upstream.flatten())
    t = torch.linalg.solve(hessian, jacobian.T)
    return (w - t @ torch.linalg.solve(jacobian @ t, jacobian @ w)).view(d, k)


def polar_gradient(a, upstream, function=ncbook.polar_factor):
    leaf = a.detach().clone().requires_grad_()
    return torch.autograd.grad((function(leaf) * upstream).sum(), leaf)[0]


a, upstream = gaussian(7, 4, seed=3), gaussian(7, 4, seed=4)
difference = (declarative_gradient(a, upstream) - polar_gradient(a, upstream)).abs().max()
print(f"largest difference between the two gradients: {difference:.1e}")
assert difference < 1e-10

# %% [markdown]
# Equal, but not equal in price. The reference code keeps the Hessian as one small block, since all blocks of $D$ are
# the same. It does build $J$ (with $d\,C$ columns), and to build it a commutation matrix on $\operatorname{vec}$ of
# $C \times C$ matrices. In float32, for $d = 2048$:

# %%
def size(entries):
    power = int(math.log10(4 * entries) / 3)
    return f"{4 * entries / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


dim = 2048
table(["classes $C$", "constraint Jacobian $\\frac{C(C+1)}2 \\times dC$", "commutation matrix $C^2 \\times C^2$",
       "saved for (5): $U$, $S$, $V$"],
      [[c, size(c * (c + 1) // 2 * dim * c), size(c**4), size(dim * (c - 1) + (c - 1) + (c - 1) ** 2)]
       for c in (10, 100, 1000)], text=0)

# %% [markdown]
# At ten classes nobody would notice. At a thousand, the systems are of terabytes and formula (5) of megabytes.
#
# ### Against finite differences
#
# `torch.autograd.gradcheck` compares every entry of the Jacobian with central differences in float64. We ask at
# generic points, at an exact ETF, at repeated singular values, in the square case, and for the whole map from class
# means to classifier.

# %%
previous = ncbook.simplex_etf(4, 6, dtype=torch.float64)
exact = previous.T @ ncbook.helmert_basis(4, dtype=torch.float64)
repeated = torch.linalg.qr(gaussian(6, 3))[0] * torch.tensor([2.0, 1, 1], dtype=torch.float64)
pulled_etf = partial(ncbook.nearest_simplex_etf, previous=previous, proximal=0.5)
checks = {
    "polar factor, generic": (ncbook.polar_factor, gaussian(6, 3)),
    "polar factor, square": (ncbook.polar_factor, gaussian(4, 4)),
    "polar factor, exact ETF": (ncbook.polar_factor, exact),
    "polar factor, repeated singular values": (ncbook.polar_factor, repeated),
    "nearest ETF": (ncbook.nearest_simplex_etf, gaussian(4, 6)),
    "nearest ETF with a pull": (pulled_etf, gaussian(4, 6)),
    "nearest ETF of an exact ETF": (ncbook.nearest_simplex_etf, 3 * previous + 1),
}
for function, point in checks.values():
    assert torch.autograd.gradcheck(function, point.clone().requires_grad_())
print("gradcheck passed:", "; ".join(checks))

# %% [markdown]
# Two directions carry no gradient at all: moving all class means together, and making all of them larger. The nearest
# ETF does not see either, so the gradient must be orthogonal to both.

# %%
point = gaussian(6, 9, seed=5)
gradient = polar_gradient(point, gaussian(6, 9, seed=6), ncbook.nearest_simplex_etf)
along_shift, along_scale = gradient.sum(0).abs().max(), (gradient * (point - point.mean(0))).sum().abs()
print(f"component along a common shift {along_shift:.1e}, along a common scale {along_scale:.1e}")
assert max(along_shift, along_scale) < 1e-12

# %% [markdown]
# ### Why not let autograd differentiate the SVD?
#
# Because the derivative of the singular *vectors* has denominators $s_i^2 - s_j^2$: where two singular values
# coincide, the vectors are not even defined. Their product $UV^\top$ is, and the infinities cancel on paper, but not in
# floating point. At an exact simplex ETF all $C-1$ singular values coincide. That is where training is supposed to end.

# %%
def polar_by_svd(a):
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    return u @ vh


at_etf, upstream = torch.eye(6, 3), gaussian(6, 3, seed=7, dtype=torch.float32)
by_autograd, by_formula = polar_gradient(at_etf, upstream, polar_by_svd), polar_gradient(at_etf, upstream)
for name, gradient in (("autograd through the SVD", by_autograd), ("formula (5)", by_formula)):
    print(f"{name}: {int(gradient.isfinite().sum())} of {gradient.numel()} entries finite")
assert by_autograd.isnan().any() and by_formula.isfinite().all()
assert torch.allclose(by_formula.double(), declarative_gradient(at_etf, upstream), atol=1e-6)

# %% [markdown]
# And on the way there? Start from an exact ETF and add noise of relative size $\varepsilon$. The float32 gradients
# are compared with the dense declarative solution in float64.

# %%
exact_frame = torch.linalg.qr(gaussian(12, 9, seed=8))[0]
noise, upstream = gaussian(12, 9, seed=9) / 10, gaussian(12, 9, seed=10)
epsilons = [10.0**-k for k in range(8)]
errors = {"autograd through the SVD": [], "formula (5)": []}
for epsilon in epsilons:
    point = (exact_frame + epsilon * noise).float()
    truth = declarative_gradient(point, upstream)
    for name, function in zip(errors, (polar_by_svd, ncbook.polar_factor)):
        error = (polar_gradient(point, upstream.float(), function).double() - truth).norm() / truth.norm()
        errors[name].append(float(error))

assert max(errors["formula (5)"]) < 1e-4
assert not all(v < 100 * max(errors["formula (5)"]) for v in errors["autograd through the SVD"][3:])

fig = go.Figure()
for (name, values), (colour, dash, symbol) in zip(errors.items(), map(plots.method_style, ("constant", "nearest"))):
    fig.add_scatter(x=epsilons, y=values, name=name, mode="lines+markers", line=dict(color=colour, dash=dash),
                    marker=dict(symbol=symbol, size=9))
log = dict(type="log", exponentformat="e")
fig.update_xaxes(title="distance ε from the exact ETF (training goes to the right)", autorange="reversed", **log)
fig.update_yaxes(title="relative error", dtick=2, **log)
plots.finish(fig, "Error of the float32 gradient near an exact ETF", "relative to the declarative node's, in float64")

# %% [markdown]
# The error of formula (5) stays at the level of float32 throughout. That of autograd grows as the singular values draw
# together (a point that is missing is not a finite number). Well before the NaN there are gradients whose leading
# digits are wrong.
#
# ### When singular values vanish
#
# Sums $s_i + s_j$ have one weakness left: they vanish when both singular values do, as when class means coincide. There
# the polar factor is not unique and no gradient is right. The package gives such directions none, which keeps
# everything else finite and correct:

# %%
low_rank = gaussian(8, 2, seed=11) @ gaussian(2, 5, seed=12)
at_low_rank = polar_gradient(low_rank, gaussian(8, 5, seed=13))
at_equal = polar_gradient(degenerate, gaussian(C, d, seed=14), partial(ncbook.nearest_simplex_etf, previous=previous_w))
print(f"norm of the gradient: {at_low_rank.norm():.3g} at rank 2 of 5, "
      f"{at_equal.norm():.3g} at two equal class means, with a pull")
assert at_low_rank.isfinite().all() and at_equal.isfinite().all()

# %% [markdown]
# With a pull $\rho$ the smallest singular values are near $\rho$ instead of zero, and the gradient in those
# directions is finite but large, of order $1/\rho$: a small change of the means really does decide much there.
#
# ## 7. A classifier head
#
# In training mode the head normalises its features to length $\tau$ (5 in the paper), $f = \tau z/\|z\|$, updates
# moving averages of their class means (chapter 07), and takes the nearest ETF $W$ to these. The bias $b = -W \mu$,
# with $\mu$ the mean of the averaged class means, makes the logits $W(f - \mu)$. There is nothing to learn in the
# head: it has no parameters, just buffers.

# %%
show_code(ncbook.NearestETFHead.forward, ncbook.NearestETFHead._fit)

# %% [markdown]
# It takes the place of a model's last `nn.Linear`: the same two sizes, features in, logits out. It needs the targets
# while training, and in evaluation nothing depends on the batch. A short run on the digits shows it at work; the fair
# comparison with other heads is chapter 08.

# %%
recipe = ncbook.Recipe(dataset="digits", backbone="mlp", head="nearest", epochs=EPOCHS, seed=SEED, device="cpu")
snapshots = list(ncbook.train(recipe))
last = snapshots[-1]
print(f"test accuracy after {last.epoch} epochs {last.test['accuracy']:.3f}; largest mean deviation of the classifier's "
      f"cosines from -1/9 at any epoch {max(s.train['weight_equiangular'] for s in snapshots[1:]):.1e}")
assert last.test["accuracy"] > 0.9 and all(s.train["weight_equiangular"] < 1e-5 for s in snapshots)
assert all(last.train[key] < snapshots[0].train[key] / 3 for key in ("etf_distance", "nc3"))
plots.metric_curves({"nearest": [snapshots]}, ["accuracy", "etf_distance", "nc3"],
                    title="Digits with the nearest-ETF head")

# %% [markdown]
# The classifier is an exact simplex ETF from the first step to the last: it never has to become one. What training
# does is to move the features, until the class means are close to an ETF (`etf_distance`) and in line with the
# classifier (`nc3`). Both go down together because each step moves the classifier to the features and the features to
# the classifier. Here is the projection of chapter 02, with class means and a sample of features, at the end:

# %%
plots.geometry(last.class_means, features=last.features, targets=last.targets, weight=last.weight,
               title=f"Digits after {last.epoch} epochs with the nearest-ETF head")

# %% [markdown]
# ## Try it
#
# **1. How far can it be?** The squared distance $2 - 2\|HQ\|_*/\sqrt{C-1}$ lies in $[0, 2]$. Show that it never
# reaches 2 unless all means are equal, by finding its largest value over all other means, and which means attain it.
#
# <details><summary>Solution</summary>
#
# $\|HQ\|_* \ge \|HQ\|_F = 1$ with equality exactly for rank one. So the largest distance is $2 - 2/\sqrt{C-1}$,
# attained when all class means lie on one line. (For identical means, $H$ is not defined; the package gives 2 by
# convention.) For two classes it is 0: any two different points are, once centred and scaled, a simplex ETF.
#
# ```python
# line = torch.linspace(-1, 2, 5)[:, None] * torch.tensor([[1.0, 2.0, 0.0, 1.0]])
# print(ncbook.simplex_etf_distance(line), 2 - 2 / math.sqrt(5 - 1))
# ```
# </details>
#
# **2. Classes that count more.** A class with few samples has a noisy mean. Minimise $\sum_c n_c \|h_c - w_c/\sqrt
# C\|^2$ over simplex ETFs, where $h_c$ are the columns of $H$ and $n_c > 0$ are weights. Is it still one SVD?
#
# <details><summary>Solution</summary>
#
# Yes. The rows $w_c$ have unit norm, so $\sum_c n_c \|w_c\|^2$ is constant, and the rest is linear in $V$: with
# $N = \operatorname{diag}(n)$ maximise $\langle V, H N Q\rangle$, so $V = \operatorname{polar}(H N Q)$.
#
# ```python
# def weighted_nearest_etf(means, counts):
#     c, q = len(means), ncbook.helmert_basis(len(means), dtype=means.dtype)
#     return math.sqrt(c / (c - 1)) * q @ ncbook.polar_factor(normalised(means).T @ (counts[:, None] * q)).T
#
# counts = torch.tensor([100.0, 1, 1, 1, 1, 1], dtype=torch.float64)
# for frame in (ncbook.nearest_simplex_etf(means), weighted_nearest_etf(means, counts)):
#     print((normalised(means)[0] - frame[0] / math.sqrt(6)).norm())  # class 0 gets a closer vertex
# ```
# </details>
#
# **3. A way out of the wrong component.** In space, the wrong ETF of section 5 is a saddle of the cost. Start the
# solver at the canonical ETF again, but tilted a little out of the plane. Does it arrive, and by what way?
#
# <details><summary>Solution</summary>
#
# It does. The path leaves the plane, turns the triangle over in space, and comes back mirrored.
#
# ```python
# tilt = torch.linalg.matrix_exp(torch.tensor([[0, 0, 0.01], [0, 0, 0.02], [-0.01, -0.02, 0]], dtype=torch.float64))
# solved = ncbook.riemannian_nearest_etf(in_space(triangle), initial=in_space(canonical) @ tilt)
# print([round(float(w[:, 2].norm()), 3) for w in solved.path])  # size of the third coordinate
# print((solved.etf - in_space(nearest)).abs().max())
# ```
# </details>
#
# **4. A strong pull.** Train with the relative pull 0.5, which is what $\delta = 10^{-3}$ means for a thousand classes.
# Does it show in `nc3`?
#
# <details><summary>Solution</summary>
#
# Hardly, on the digits: compare with a second seed before believing a difference. At a standstill, (4) gives the same
# ETF for any $\rho$, since a frame that is pulled towards itself stays. The pull only delays the classifier while the
# class means turn.
#
# ```python
# for proximal in (etf.PROXIMAL, 0.5):
#     trainer = ncbook.Trainer(recipe)
#     trainer.head.proximal = proximal
#     while not trainer.finished:
#         trainer.step()
#     shot = trainer.snapshot()
#     print(proximal, shot.train["nc3"], shot.test["accuracy"])
# ```
# </details>
#
# ## Summary
#
# - The problem of the nearest simplex ETF has a constant quadratic term. It is orthogonal Procrustes, solved by a polar
#   factor: $V^\star = \operatorname{polar}(HQ)$, $W^\star = \sqrt{C/(C-1)}\, Q V^{\star\top}$.
# - The Riemannian trust-region solver converges to the same ETF. It needs iterations where the closed form needs one
#   SVD.
# - A proximal pull decides directions that the class means leave open. Relative to an exact ETF's singular values it
#   means the same for every $C$.
# - Differentiating the polar decomposition is the implicit differentiation of the declarative node: the same two
#   equations. The formula has sums of singular values in its denominators, so it is finite at an exact ETF, where
#   autograd through the SVD is NaN, and it needs no Kronecker systems.
# - As a head, it is an exact simplex ETF throughout training.
#
# ## References
#
# - E. Markou, T. Ajanthan, S. Gould (2024). *Guiding Neural Collapse: Optimising Towards the Nearest Simplex
#   Equiangular Tight Frame.* NeurIPS. arXiv 2411.01248.
# - S. Gould, R. Hartley, D. Campbell (2019). *Deep Declarative Networks: A New Hope.* arXiv 1909.04866.
# - P. H. Schönemann (1966). *A generalized solution of the orthogonal Procrustes problem.* Psychometrika 31, 1-10.
# - N. J. Higham (1986). *Computing the polar decomposition, with applications.* SIAM Journal on Scientific and
#   Statistical Computing 7, 1160-1174.
# - P.-A. Absil, C. G. Baker, K. A. Gallivan (2007). *Trust-region methods on Riemannian manifolds.* Foundations of
#   Computational Mathematics 7, 303-330.
# - J. Townsend, N. Koep, S. Weichwald (2016). *Pymanopt: A Python toolbox for optimization on manifolds using automatic
#   differentiation.* Journal of Machine Learning Research 17(137). arXiv 1603.03236.
