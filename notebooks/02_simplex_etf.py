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
# # The simplex equiangular tight frame
#
# At the end of training, the class means of a network (Papyan, Han and Donoho 2020) point as far away from each other
# as so many directions can. The
# figure that they form has a long name, the simplex equiangular tight frame, and a short description: a regular simplex
# seen from its centre. This chapter builds it, draws it, proves that nothing does better, and defines the number that
# the rest of the book watches: the distance from given class means to the nearest one.
#
# *You will learn*
#
# - why $C$ directions cannot all have cosines below $-1/(C-1)$, and which ones reach that bound;
# - how few dimensions they need, and what happens with fewer;
# - the construction from a Helmert basis, and how to turn it uniformly at random;
# - what "tight frame" means, and how an ETF compares with orthogonal and with random directions;
# - how to draw ten vertices on a page without telling a lie about them;
# - the squared distance to the nearest simplex ETF: its formula, its invariances, and how to compute it close to zero.

# %%
import math

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch.nn.functional import normalize

import ncbook
from ncbook import live, plots
from ncbook.book import profile, say, show_code, table

# TRIALS: random ETFs tried, DRAWS: draws a noise level, SAMPLES: random frames in a histogram
PROFILE, TRIALS, DRAWS, SAMPLES = profile(
    quick=dict(TRIALS=4_000, DRAWS=12, SAMPLES=4_000),
    book=dict(TRIALS=100_000, DRAWS=40, SAMPLES=20_000),
    paper=dict(TRIALS=1_000_000, DRAWS=200, SAMPLES=200_000),
)
SEED = 0


def gaussian(*shape, seed=SEED):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairwise_cosines(vectors):
    unit = normalize(vectors, dim=-1)
    upper = torch.triu_indices(unit.shape[-2], unit.shape[-2], 1)
    return (unit @ unit.mT)[..., upper[0], upper[1]]

# %% [markdown]
# ## 1. How far apart can $C$ directions be?
#
# Put a few unit vectors on a sphere and let them repel each other. The closest pair repels the most. Where do they come
# to rest? Here are four in space. Press *Play*, or move the slider; the figure can also be turned with the mouse.

# %%
def spread_out(vectors, steps):
    """Unit vectors (C, d) that repel each other, after each step: descent on the log-sum-exp of their cosines."""
    path = [vectors]
    for step in range(steps):
        cosines = (path[-1] @ path[-1].T).fill_diagonal_(-math.inf)
        sharpness = 3 + 200 * step / steps
        push = (sharpness * cosines).flatten().softmax(0).view_as(cosines)
        path.append(normalize(path[-1] - 0.3 * (1 - step / steps) * push @ path[-1], dim=1))
    return path


def lines(starts, ends):
    return plots.xyz(plots.segments(torch.stack([starts, ends], dim=1)))


def star(points):
    """Traces of vectors (C, 2) or (C, 3): the edges between them, spokes from the centre, their ends by class."""
    trace, size = (go.Scatter3d, 7) if points.shape[1] == 3 else (go.Scatter, 14)
    pairs, quiet = torch.combinations(torch.arange(len(points))), dict(hoverinfo="skip", showlegend=False)
    ends = dict(size=size, color=plots.class_colors(len(points)), line=dict(color="white", width=1))
    edge, spoke = (dict(mode="lines", line=dict(color=c, width=w)) for c, w in (("#B5B5B5", 2), ("#666666", 4)))
    return [trace(**lines(points[pairs[:, 0]], points[pairs[:, 1]]), name="edges", **edge, **quiet),
            trace(**lines(0 * points, points), name="spokes", **spoke, **quiet),
            trace(**plots.xyz(points), name="vectors", mode="markers", marker=ends, **quiet)]


path = spread_out(normalize(torch.tensor([1.0, 0.6, 0.4]) + 0.5 * gaussian(4, 3, seed=3), dim=1), 400)
shown = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 100, 400]
turn = torch.linspace(0, 2 * math.pi, 49, dtype=torch.float64)
circle = torch.stack([turn.cos(), turn.sin(), 0 * turn], dim=1)
sphere = plots.segments(torch.stack([circle.roll(k, 1) for k in range(3)]))
fig = go.Figure(star(path[0]))
fig.add_scatter3d(**plots.xyz(sphere), mode="lines", line=dict(color="#D8E3EC", width=2), hoverinfo="skip",
                  showlegend=False)
span = dict(range=[-1.05, 1.05])
space = dict(xaxis=span, yaxis=span, zaxis=span, camera=dict(eye=dict(x=1.1, y=1.1, z=0.6)))
plots.finish(fig, "Four unit vectors that repel each other", "in space, no projection", width=620, height=520,
             margin=dict(l=8, r=8, b=8), scene=space)
assert (pairwise_cosines(path[-1]) + 1 / 3).abs().max() < 1e-3
plots.animate(fig, [f"step {k}, largest cosine {float(pairwise_cosines(path[k]).max()):+.3f}" for k in shown],
              [{part.name: dict(x=part.x, y=part.y, z=part.z) for part in star(path[k])} for k in shown], redraw=True,
              below=10)

# %% [markdown]
# They start close together and settle on the corners of a regular tetrahedron, where all six cosines equal $-1/3$. No
# later step lowers the largest cosine further, and the next section shows that none could.
#
# With a running kernel you can take such a figure in your hands. Choose the number of classes and the dimension, turn
# the simplex, and add noise: its angles, norms and distance to the nearest simplex ETF (section 8) follow.

# %%
live.simplex_scrubber()

# %% [markdown]
# ## 2. The bound, and the definition
#
# Let $w_1, \dots, w_C \in \mathbb{R}^d$ be unit vectors, the rows of a $(C, d)$ matrix $W$. Whatever they are, the
# squared length of their sum is not negative:
#
# $$ 0 \le \Big\| \sum_c w_c \Big\|^2 = \sum_c \|w_c\|^2 + \sum_{i \ne j} \langle w_i, w_j \rangle
#    = C + \sum_{i \ne j} \langle w_i, w_j \rangle . $$
#
# There are $C(C-1)$ ordered pairs, so the mean of their cosines is at least $-C/(C(C-1)) = -1/(C-1)$, and the largest
# is no smaller than the mean:
#
# $$ \max_{i \ne j}\ \langle w_i, w_j \rangle \ \ge\ -\frac{1}{C-1}. \tag{1} $$
#
# Equality needs two things at once: the sum of the vectors is zero, and all cosines are equal. A **simplex ETF** is a
# set of vectors that meets the bound:
#
# $$ \|w_c\| = 1, \qquad \langle w_i, w_j \rangle = -\frac{1}{C-1} \quad (i \ne j). $$
#
# *Equiangular* says that all angles are the same, *simplex* that they are the obtuse angles of a regular simplex;
# section 6 explains *tight frame*. It is maximal in exactly this sense: no $C$ directions have a smaller largest
# cosine. (Strohmer and Heath 2003 treat the same question for more vectors and $|\cos|$.)
#
# **How many dimensions does it take?** With $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, the matrix that subtracts a
# mean, the definition says that the Gram matrix is
#
# $$ W W^\top = \frac{C}{C-1}\, M . $$
#
# $M$ is a projection of rank $C-1$: it kills the vector of ones and nothing else. A Gram matrix has no larger rank than
# the space has dimensions, so $d \ge C-1$ is necessary. It is also enough, since every positive semidefinite matrix of
# rank $C-1$ is the Gram matrix of some vectors in $\mathbb{R}^{C-1}$; section 3 writes them down.
#
# And with fewer dimensions? Rankin (1955) found that for $d + 2 \le C \le 2d$ the best largest cosine is exactly $0$,
# far from $-1/(C-1)$: one vector too many, and the obtuse angles are lost. Repelling vectors in space ($d = 3$) agree:

# %%
rows, best = [], {}
for count in range(2, 7):
    ends = [spread_out(normalize(gaussian(count, 3, seed=s), dim=1), 1500)[-1] for s in range(3)]
    best[count] = min(float(pairwise_cosines(w).max()) for w in ends)
    rows.append([count, f"{best[count]:+.3f}", f"{-1 / (count - 1):+.3f}", "yes" if count <= 4 else "no"])
    assert abs(best[count] - (-1 / (count - 1) if count <= 4 else 0)) < 0.02 and best[count] > -1 / (count - 1) - 1e-12
table(["vectors $C$ in $\\mathbb{R}^3$", "smallest largest cosine found", "bound (1)", "$d \\ge C-1$"], rows)

# %% [markdown]
# Up to four vectors the bound is met. With five, where it would be $-1/4$, the best is a right angle.
#
# ## 3. Construction
#
# All we need is a matrix with the right Gram matrix. Take an orthonormal basis of the vectors whose entries sum to
# zero, as the columns of a $(C, C-1)$ matrix $Q$: $Q^\top Q = I$, $\mathbf 1^\top Q = 0$, and therefore $Q Q^\top = M$.
# Take any $(d, C-1)$ matrix $V$ with orthonormal columns, to place the simplex in $\mathbb{R}^d$. Then
#
# $$ W = \sqrt{\tfrac{C}{C-1}}\; Q\, V^\top \qquad\Longrightarrow\qquad
#    W W^\top = \tfrac{C}{C-1}\, Q V^\top V Q^\top = \tfrac{C}{C-1}\, M. \tag{2} $$
#
# Geometrically, row $c$ of $Q$ is the standard basis vector $e_c$ of $\mathbb{R}^C$ with its mean subtracted, in
# coordinates of the hyperplane that contains the result. So a simplex ETF is what remains of an orthonormal basis after
# centring.
#
# The **Helmert basis** (Lancaster 1965) is a choice of $Q$ with a simple pattern. Column $k$ compares class $k+1$
# with the mean of the
# $k$ classes before it: $k$ equal entries $1/\sqrt{k(k+1)}$, then $-k/\sqrt{k(k+1)}$, then zeros. For four classes:

# %%
Q = ncbook.helmert_basis(4, dtype=torch.float64)
body = r" \\ ".join(" & ".join(f"{v:.3f}" if v else "0" for v in row) for row in Q.tolist())
say(rf"$$ Q = \begin{{pmatrix}} {body} \end{{pmatrix}} $$")
assert torch.allclose(Q.T @ Q, torch.eye(3, dtype=torch.float64))
assert torch.allclose(Q @ Q.T, torch.eye(4, dtype=torch.float64) - 1 / 4)
show_code(ncbook.helmert_basis, ncbook.simplex_etf)

# %% [markdown]
# Without a generator, $V$ consists of the first $C-1$ unit vectors: this is the **canonical** simplex ETF of the book.
# Does it keep its promise for many sizes, and turned as well?

# %%
worst = 0.0
for num_classes, dim in [(2, 1), (3, 2), (4, 3), (10, 9), (10, 64), (100, 99), (100, 512)]:
    for generator in (None, torch.Generator().manual_seed(SEED)):
        w = ncbook.simplex_etf(num_classes, dim, generator=generator, dtype=torch.float64)
        target = torch.full((num_classes, num_classes), -1 / (num_classes - 1), dtype=torch.float64).fill_diagonal_(1)
        worst = max(worst, float((w @ w.T - target).abs().max()), float(w.sum(0).abs().max()))
print(f"largest error of a norm, a cosine or the sum of the rows: {worst:.1e}")
assert worst < 1e-13

# %% [markdown]
# ## 4. Two, three, four and ten classes
#
# Two classes need a line, three a plane, four the space. These can be drawn as they are: the coordinates are the rows
# of `simplex_etf(C, C - 1)`.

# %%
SIZES = (2, 3, 4)
angles = {c: math.degrees(math.acos(-1 / (c - 1))) for c in SIZES}
fig = make_subplots(1, 3, specs=[[{}, {}, {"type": "scene"}]], horizontal_spacing=0.05, subplot_titles=[
    f"C = {c}: cosine {'−1' if c == 2 else f'−1/{c - 1}'}, angle {angles[c]:.1f}°" for c in SIZES])
for column, count in enumerate(SIZES, start=1):
    w = ncbook.simplex_etf(count, count - 1, dtype=torch.float64)
    fig.add_traces(star(torch.cat([w, 0 * w], dim=1) if count == 2 else w), rows=1, cols=column)
plots.finish(fig, "Exact pictures of simplex ETFs", "the rows of W themselves; nothing is projected", width=900,
             height=380, margin=dict(l=24, r=24, b=40), scene=space | dict(camera_eye=dict(x=1.3, y=0.7, z=0.5)))
bare = dict(range=[-1.25, 1.25], showticklabels=False, ticks="", showgrid=False, showline=False)
fig.update_xaxes(**bare).update_yaxes(**bare, scaleanchor="x").update_yaxes(scaleanchor="x2", col=2)

# %% [markdown]
# The angle shrinks from 180° towards, but never to, a right angle. Ten classes need nine dimensions, and every flat
# picture of them is a shadow. Which shadow one chooses matters. Below, the same ten vectors are drawn twice.

# %%
w = ncbook.simplex_etf(10, 10, dtype=torch.float64)
shadows = {"canonical coordinates 1 and 2": w[:, :2], "the projection used in this book": plots.simplex_vertices(10)}
fig = make_subplots(1, 2, subplot_titles=list(shadows))
for column, points in enumerate(shadows.values(), start=1):
    away = [c for c, p in enumerate(points) if p.norm() > 0.01]
    fig.add_traces(star(points)[1:], rows=1, cols=column)
    fig.add_scatter(**plots.xyz(points[away] + 0.18 * normalize(points[away])), mode="text", hoverinfo="skip",
                    text=[f"<b>{c}</b>" for c in away], showlegend=False, row=1, col=column)
at_centre = [c for c in range(10) if w[c, :2].norm() < 1e-12]
assert len(at_centre) == 7
fig.add_annotation(x=0, y=0, ax=0.75, ay=-0.55, axref="x", ayref="y", text=f"classes {at_centre[0]} to {at_centre[-1]}",
                   arrowcolor="#666666", row=1, col=1)
plots.finish(fig, "One simplex ETF of ten classes, two shadows",
             "projections from 9 to 2 dimensions; lengths on the right are scaled by √(9/2)", width=860, height=490)
fig.update_xaxes(range=[-1.3, 1.3])
fig.update_yaxes(range=[-1.3, 1.3], scaleanchor="x").update_yaxes(scaleanchor="x2", col=2)

# %%
neighbours = shadows["the projection used in this book"][:2]
centred, projected = (math.degrees(math.acos(cosine)) for cosine in (-1 / 9, float(pairwise_cosines(neighbours))))
say(f"On the left, {len(at_centre)} of the 10 vertices fall on the same point, though all of them are equally far"
    " from each other. On the right, all are told apart and treated alike, at the corners of a regular 10-gon."
    f" But its angles are not the true ones: neighbours are {projected:.0f}° apart on paper and {centred:.1f}° in"
    " nine dimensions. Wherever the book draws more than four classes, it uses this projection and says so.")

# %% [markdown]
# ## 5. A uniformly random orientation
#
# Sometimes we want an ETF that is turned at random, without favouring any direction: $V$ should be uniform on the
# Stiefel manifold, the set of all $(d, C-1)$ matrices with orthonormal columns. The recipe starts from a matrix $G$ of
# independent Gaussians. Its distribution does not change when it is multiplied by a rotation, so $G = VR$, with $V$
# orthonormal and $R$ upper triangular, should give a $V$ without favourites. But the QR decomposition is only unique
# once the signs of $R$'s diagonal are fixed. Numerical libraries leave them as their algorithm makes them, and that
# couples the sign of a column of $V$ to its entries.
#
# How much harm can a sign do? Here is where the first vertex of three classes in the plane points.

# %%
v, r = torch.linalg.qr(gaussian(SAMPLES, 2, 2, seed=1))
frames = {"signs left as they are": v, "signs fixed": v * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]}
fig = make_subplots(1, 2, specs=[[{"type": "polar"}] * 2], subplot_titles=list(frames))
density, handed = {}, {}
for column, (name, frame) in enumerate(frames.items(), start=1):
    vertex = frame @ ncbook.helmert_basis(3, dtype=torch.float64)[0]
    density[name] = torch.histc(torch.atan2(vertex[:, 1], vertex[:, 0]).rad2deg() % 360, 24, 0, 360) / SAMPLES * 24
    handed[name] = float((torch.linalg.det(frame) > 0).double().mean())
    bars = go.Barpolar(theta=[15 * k + 7.5 for k in range(24)], r=density[name].numpy().round(3), width=[15] * 24,
                       marker=dict(color=["#D55E00", "#0072B2"][column - 1], line=dict(color="white", width=1)),
                       showlegend=False, hovertemplate="%{r:.2f}<extra></extra>")
    fig.add_trace(bars, row=1, col=column)
plots.finish(fig, "Direction of the first vertex of a random simplex ETF",
             "C = 3, d = 2; density relative to the uniform one", width=820, height=460, margin=dict(t=140))
plain = dict(bgcolor="white", angularaxis=dict(gridcolor="#E6E6E6", dtick=45))
fig.update_polars(**plain, radialaxis=dict(range=[0, 2.3], tickvals=[1, 2], angle=90, gridcolor="#E6E6E6"))
fig.update_annotations(yshift=24)
assert (density["signs left as they are"] == 0).sum() >= 10 and (density["signs fixed"] - 1).abs().max() < 0.35
fig

# %%
before, after = (f"{100 * value:.0f}%" for value in handed.values())
say("Without the fix, half of the directions never occur. Nor do half of the orientations: for square matrices"
    f" the share of proper rotations (determinant +1) is {before} without the fix and {after} with it."
    " Multiplying each column of $V$ by the sign of its diagonal entry of $R$"
    " makes that diagonal positive and the decomposition unique, and then $V$ inherits the symmetry of $G$"
    " (Mezzadri 2007). It is the line with the comment in `simplex_etf`.")

# %% [markdown]
# ## 6. Why "tight frame"?
#
# Take a direction $x$, $\|x\| = 1$, and add up how strongly the $C$ vectors see it: $\sum_c \langle w_c, x\rangle^2$.
# For which sets of vectors does the answer not depend on $x$?

# %%
etf = ncbook.simplex_etf(3, 2, dtype=torch.float64)
random = normalize(gaussian(3, 2, seed=4), dim=1)
degrees = torch.linspace(0, 360, 121, dtype=torch.float64)
directions = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()])
fig = go.Figure()
for name, vectors, colour, dash, symbol in (("simplex ETF", etf, "#0072B2", "solid", "circle"),
                                            ("random unit vectors", random, "#8A5A2B", "dash", "diamond")):
    seen, at = (vectors @ directions).square().sum(0), torch.atan2(vectors[:, 1], vectors[:, 0]).rad2deg() % 360
    fig.add_scatterpolar(theta=degrees.numpy(), r=seen.numpy().round(4), mode="lines", name=name,
                         line=dict(color=colour, width=3, dash=dash))
    fig.add_scatterpolar(theta=at.numpy().round(2), r=[1] * 3, mode="markers", showlegend=False, hoverinfo="skip",
                         marker=dict(size=12, color=colour, symbol=symbol))
fig.update_polars(**plain, radialaxis=dict(range=[0, 3], tickvals=[1, 2, 3], angle=90, gridcolor="#E6E6E6"))
assert float((etf @ directions).square().sum(0).std()) < 1e-12
plots.finish(fig, "How strongly three vectors see each direction",
             "Σ⟨w, x⟩² by the angle of x; markers are the vectors", width=620, height=460, margin=dict(t=110))

# %% [markdown]
# The ETF sees all directions alike: a circle. Three random vectors prefer some and nearly miss others. In matrix form,
# from (2),
#
# $$ \sum_c \langle w_c, x \rangle^2 = x^\top W^\top W x, \qquad W^\top W = \tfrac{C}{C-1}\, V Q^\top Q V^\top = \tfrac{C}{C-1}\, P ,
#    \qquad P = V V^\top . $$
#
# $P$ projects onto the $(C-1)$-dimensional span of the frame. A set of vectors with $W^\top W$ proportional to the
# identity of its span is called a **tight frame**: it behaves like an orthogonal basis with redundancy, and within the
# span $x = \frac{C-1}{C} \sum_c \langle w_c, x\rangle\, w_c$. Outside the span it sees nothing. A classifier with these
# rows is deaf to all feature directions but $C-1$.

# %%
w = ncbook.simplex_etf(10, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
P = 9 / 10 * w.T @ w
x = gaussian(32, seed=2)
print(f"P is a projection: |P² − P| = {float((P @ P - P).norm()):.1e}, trace {float(P.trace()):.6f}")
print(f"reconstruction inside the span: error {float((9 / 10 * w.T @ (w @ (P @ x)) - P @ x).norm()):.1e}")
print(f"share of a random vector's squared length inside it: {float((P @ x).norm() ** 2 / x.norm() ** 2):.2f}, on"
      f" average 9/32 = {9 / 32:.2f}")
assert (P @ P - P).norm() < 1e-12 and abs(P.trace() - 9) < 1e-12

# %% [markdown]
# ## 7. ETF, orthogonal, random
#
# In many dimensions, random directions are almost orthogonal. Are they then almost an ETF as well? Draw ten random unit
# vectors, many times, and look at their cosines; beside it, their squared distance to the nearest simplex ETF, which
# section 8 defines.

# %%
C = 10
fig = make_subplots(1, 2, subplot_titles=["cosines of random unit vectors", "distance to the nearest ETF"],
                    horizontal_spacing=0.13)
left, right, middles = dict(row=1, col=1), dict(row=1, col=2), torch.linspace(-1, 1, 121)[1::2].numpy().round(4)
for dim, shade in zip((9, 32, 128, 512), ("#A6CBE3", "#56B4E9", "#0072B2", "#003C5E")):
    cosines = pairwise_cosines(gaussian(400, C, dim, seed=dim)).flatten().float()
    fig.add_scatter(x=middles, y=(torch.histc(cosines, 60, -1, 1) / len(cosines) * 30).numpy().round(3), mode="lines",
                    name=f"random, d = {dim}", line=dict(color=shade, width=2), **left)
for name, at, colour in (("orthogonal", 0.0, "#222222"), ("simplex ETF", -1 / (C - 1), "#D55E00")):
    fig.add_scatter(x=[at, at], y=[0, 10], mode="lines", name=name, line=dict(color=colour, dash="dash"), **left)
grid = [9, 16, 32, 64, 128, 256, 512]
far = [torch.stack([ncbook.simplex_etf_distance(gaussian(C, d, seed=1000 * d + s)) for s in range(DRAWS)])
       for d in grid]
low, middle, high = ([float(values.quantile(q)) for values in far] for q in (0.0, 0.5, 1.0))
fig.add_scatter(**plots.band(grid, low, high, "#0072B2"), showlegend=False, **right)
fig.add_scatter(x=grid, y=middle, mode="lines+markers", name="random means", line=dict(color="#0072B2"), **right)
fig.add_scatter(x=grid, y=[(C - 1) / (4 * d) for d in grid], mode="lines", name="(C−1)/(4d)",
                line=dict(color="#666666", dash="dot"), **right)
fig.update_xaxes(title="cosine", range=[-0.8, 0.8], **left).update_yaxes(title="density", range=[0, 10], **left)
fig.update_xaxes(title="dimension d", type="log", tickvals=grid, **right)
fig.update_yaxes(title="squared distance", type="log", tickvals=[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5], **right)
assert abs(middle[-1] / ((C - 1) / (4 * 512)) - 1) < 0.15 and middle == sorted(middle, reverse=True)
plots.finish(fig, "Ten random directions as the dimension grows", f"right: median and range of {DRAWS} draws",
             width=900)

# %% [markdown]
# Two true statements that sound like a contradiction. On the left, random cosines gather around $0$ with a standard
# deviation of $1/\sqrt d$, and *not* around the ETF's $-1/9$. On the right, random class means come ever closer to a
# simplex ETF. The difference is that the distance **centres** its means first. Centring an orthonormal basis gives a
# simplex ETF exactly (section 3), and centring nearly orthogonal vectors nearly does.
#
# This is a warning for everyone who measures neural collapse. Ten random means in 512 dimensions are close to a simplex
# ETF without any training, just because there is so much room. (The means of an untrained network are less random than
# that, since its features share a few directions: the table of chapter 01 starts well above the dotted line.) The
# singular values of a centred Gaussian matrix spread around $\sqrt d$ with a variance of about $(C-1)/4$, which gives
# the dotted line $(C-1)/(4d)$. Collapse should be judged against such a starting level, not against 1, and with a
# metric for the scatter within classes beside it.

# %%
orthogonal = torch.eye(C, 64, dtype=torch.float64)
distance = float(ncbook.simplex_etf_distance(orthogonal))
cosine = float(pairwise_cosines(orthogonal - orthogonal.mean(0)).mean())
print(f"orthonormal means: distance {distance:.1e}; cosine {float(pairwise_cosines(orthogonal).mean()):.3f} before"
      f" centring, {cosine:.4f} after")
assert distance < 1e-20 and abs(cosine + 1 / 9) < 1e-12

# %% [markdown]
# ## 8. The distance to the nearest simplex ETF
#
# Let $\mu_1, \dots, \mu_C$ be class means. Neither their common position nor their common size should matter, so centre
# and normalise them: $H = [\mu_1 - \bar\mu, \dots, \mu_C - \bar\mu]$, a $(d, C)$ matrix, divided by its Frobenius norm.
# A simplex ETF $W$ has norm $\sqrt C$. The **squared distance to the nearest simplex ETF** is
#
# $$ D(H) = \min_{V^\top V = I} \Big\| H - \tfrac{1}{\sqrt C} W_V^\top \Big\|_F^2 , \qquad
#    W_V = \sqrt{\tfrac{C}{C-1}}\, Q V^\top . \tag{3} $$
#
# Both matrices have norm 1, so $D = 2 - 2 \max_V \langle H, \tfrac{1}{\sqrt{C}} W_V^\top\rangle = 2 -
# \tfrac{2}{\sqrt{C-1}} \max_V \langle HQ, V \rangle$. This is the orthogonal Procrustes problem (Schönemann 1966).
# Let $HQ = A S B^\top$ be the thin singular value decomposition.
# Then $\langle HQ, V \rangle = \operatorname{tr}(S\, A^\top V B) \le \operatorname{tr} S$, as no entry of $A^\top V B$
# exceeds 1 in size, and $V = A B^\top$ attains it. The sum of the singular values is the nuclear norm $\|\cdot\|_*$, so
#
# $$ D(H) = 2 - \frac{2\, \|HQ\|_*}{\sqrt{C-1}} . \tag{4} $$
#
# Since $\|HQ\|_F = \|H\|_F = 1$, the nuclear norm lies between $1$ and $\sqrt{C-1}$: between means on a single line, $D
# = 2 - 2/\sqrt{C-1}$, and an exact simplex ETF, $D = 0$. So $D \in [0, 2]$, and 2 is approached only by very many
# classes on a line. (Identical means have no shape at all; the package gives them 2 by convention.) Two means are
# always a simplex ETF, hence $D = 0$ for $C = 2$.
#
# A derivation can be wrong, so compare (4) with (3) itself, by brute force: try a great many random ETFs and keep the
# best.

# %%
def normalised(class_means):
    """H^T of the text: rows centred, Frobenius norm 1."""
    centred = class_means - class_means.mean(0)
    return centred / centred.norm()


def distances_of_random_etfs(class_means, trials, seed):
    """Squared distances from H to uniformly random simplex ETFs, by definition (3)."""
    count, dim = class_means.shape
    found = []
    for chunk in range(0, trials, 20_000):
        v, r = torch.linalg.qr(gaussian(min(20_000, trials - chunk), dim, count - 1, seed=seed + chunk))
        v = v * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
        w = math.sqrt(count / (count - 1)) * ncbook.helmert_basis(count, dtype=torch.float64) @ v.mT
        found.append((normalised(class_means) - w / math.sqrt(count)).square().sum((-2, -1)))
    return torch.cat(found)


fig = make_subplots(1, 2, subplot_titles=["random ETFs, C = 4, d = 3", "best of n random ETFs"],
                    horizontal_spacing=0.13)
smallest = {}
n = torch.tensor(sorted({int(10**(k / 4)) for k in range(4 * 7) if 10**(k / 4) <= TRIALS} | {TRIALS}))
for count, colour in {3: "#0072B2", 4: "#D55E00", 6: "#009E73"}.items():
    means = ncbook.simplex_etf(count, count - 1, dtype=torch.float64) + 0.3 * gaussian(count, count - 1, seed=5)
    tried, formula = distances_of_random_etfs(means, TRIALS, seed=17), float(ncbook.simplex_etf_distance(means))
    smallest[count] = float(tried.min()) - formula
    fig.add_scatter(x=n.numpy(), y=(tried.cummin(0).values[n - 1] - formula).numpy(), mode="lines+markers",
                    name=f"C = {count}, d = {count - 1}", line=dict(color=colour, shape="hv"), marker_size=5, **right)
    if count == 4:
        counts = torch.histc(tried, 60, 0, 4) / len(tried) * 15
        fig.add_bar(x=((torch.arange(60) + 0.5) / 15).numpy().round(3), y=counts.numpy().round(4), width=1 / 15,
                    marker=dict(color="#F0C3A5", line=dict(color="white", width=1)), showlegend=False, **left)
        fig.add_scatter(x=[formula] * 2, y=[0, 1], mode="lines", name="formula (4)",
                        line=dict(color="#222222", dash="dash"), **left)
plots.finish(fig, "The formula against brute force", f"{TRIALS:,} uniformly random simplex ETFs each", width=900,
             height=430, bargap=0)
fig.update_xaxes(title="squared distance", range=[0, 4], **left).update_yaxes(title="density", range=[0, 0.8], **left)
fig.update_xaxes(title="ETFs tried, n", type="log", exponentformat="power", dtick=1, **right)
fig.update_yaxes(title="best found minus formula", type="log", exponentformat="power", dtick=1, **right)
assert min(smallest.values()) > -1e-12 and smallest[3] < 1e-5 and smallest[4] < 0.05
fig

# %%
say(f"No random ETF is nearer than the formula says, and the best of {TRIALS:,} comes within {smallest[3]:.0e} for"
    f" three classes, {smallest[4]:.0e} for four and {smallest[6]:.1g} for six. Brute force confirms (4), and it"
    " shows why a formula is needed: orientations form a space of dimension 1, 3 and 10 in these examples, and"
    " random search gets lost in it. The ETF that attains the minimum is `nearest_simplex_etf`, the subject of"
    " chapter 05 (after Markou, Ajanthan and Gould 2024).")

# %% [markdown]
# ### What the distance does not see
#
# A good shape distance ignores everything that is not shape. Adding a vector to all means, scaling all of them,
# rotating or reflecting the space, renaming the classes, appending zero coordinates: none of these should change it.
# Scaling or moving a *single* class should.

# %%
means = gaussian(6, 8, seed=7)
variants = {
    "as it is": means, "moved together": means + 100 * gaussian(8, seed=9), "scaled": 1e-6 * means, "negated": -means,
    "rotated": means @ torch.linalg.qr(gaussian(8, 8, seed=8))[0], "classes renamed": means[[3, 0, 5, 1, 4, 2]],
    "padded with zeros": torch.cat([means, 0 * means], dim=1),
    "one class scaled by 2": torch.cat([means[:2], 2 * means[2:3], means[3:]]),
}
values = {name: float(ncbook.simplex_etf_distance(variant)) for name, variant in variants.items()}
for name, value in values.items():
    print(f"{name:22s} {value:.12f}")
    assert (abs(value - values["as it is"]) < 1e-10) != name.startswith("one class")

# %% [markdown]
# ## 9. As noise grows
#
# Start from an exact ETF and add noise. Here are three classes in the plane; the slider sets the noise level, and the
# dark triangle is the ETF nearest to the class means at that level. (The noise has one fixed direction here. Everything
# is drawn after centring and normalising.)

# %%
base, noise = ncbook.simplex_etf(3, 2, dtype=torch.float64), gaussian(3, 2, seed=13)
noise = noise / noise.norm() * base.norm()
levels = [round(0.1 * k, 1) for k in range(26)]


def plane(level):
    means = base + level * noise
    h, w = math.sqrt(3) * normalised(means), ncbook.nearest_simplex_etf(means)
    return {"nearest simplex ETF": plots.xyz(torch.cat([w, w[:1]])), "what the distance adds up": lines(w, h),
            "class means": plots.xyz(h)}


colours = plots.class_colors(3)
fig = go.Figure()
fig.add_scatter(name="nearest simplex ETF", mode="lines+markers", line=dict(color="#666666", width=2), marker=dict(
    symbol="diamond-open", size=15, color=[*colours, colours[0]], line=dict(width=2, color=[*colours, colours[0]])))
fig.add_scatter(name="what the distance adds up", mode="lines", line=dict(color="#999999", width=1.5, dash="dot"))
fig.add_scatter(name="class means", mode="markers", marker=dict(size=14, color=colours))
fig.add_scatter(**plots.xyz(circle[:, :2]), mode="lines", line=dict(color="#E6E6E6"), showlegend=False)
fig.update_traces(hoverinfo="skip")
plots.finish(fig, "Three class means and their nearest simplex ETF", "in the plane, no projection", width=640,
             height=560, margin=dict(t=116), legend=dict(orientation="h", x=0, y=1.02, yanchor="bottom"))
fig.update_xaxes(range=[-1.6, 1.6]).update_yaxes(range=[-1.6, 1.6], scaleanchor="x")
values = [float(ncbook.simplex_etf_distance(base + level * noise)) for level in levels]
handed = [bool(torch.linalg.det(ncbook.nearest_simplex_etf(base + level * noise)[:2]) > 0) for level in levels]
peak = max(range(len(levels)), key=values.__getitem__)
assert values[0] < 1e-20 and handed[:peak] == [handed[0]] * peak and handed[-1] != handed[0]
plots.animate(fig, [f"noise level {level:.1f}, squared distance {value:.4f}" for level, value in zip(levels, values)],
              [plane(level) for level in levels], active=levels.index(0.6), below=36)

# %%
say(f"The distance grows to {values[peak]:.3f} at noise level {levels[peak]:.1f}, close to $2 - \\sqrt 2 \\approx"
    f" {2 - math.sqrt(2):.3f}$, the value for three means on a line: there, the noise has pushed one of them"
    " across the line through the other two. Beyond it the means go round the other way, and the nearest ETF is"
    " suddenly the mirror image. The minimum in (3) is over *all* orientations, reflections included.")

# %% [markdown]
# Up to that point the nearest ETF turns a little with the means: turning is free, and only what cannot be turned away
# is counted. How much is that on average? Give every entry independent noise, so that the noise has $\sigma$ times the
# norm of the ETF. To first order, with $k = C-1$, only the symmetric part of $V^\top E$ counts, where $E$ is the noise
# in the coordinates of $HQ$; it has $k(k+1)/2$ free entries, and one of them is the common scale, which is normalised
# away. So
#
# $$ D \approx \sigma^2\, \frac{k(k+1)/2 - 1}{C\, d} \qquad (\sigma \to 0). \tag{5} $$

# %%
sigmas = torch.logspace(-2, 1.5, 15, dtype=torch.float64)
fig, ratios = go.Figure(), {}
for count, colour in {4: "#D55E00", 10: "#0072B2", 40: "#332288"}.items():
    exact = ncbook.simplex_etf(count, 64, dtype=torch.float64)
    d = torch.stack([torch.stack([ncbook.simplex_etf_distance(exact + s / 8 * gaussian(count, 64, seed=seed))
                                  for seed in range(DRAWS)]) for s in sigmas])
    low, middle, high = (d.quantile(q, dim=1) for q in (0.0, 0.5, 1.0))
    theory = sigmas.square() * (count * (count - 1) / 2 - 1) / (count * 64)
    ratios[count] = float(d[0].mean() / theory[0])
    fig.add_scatter(**plots.band(sigmas, low, high, colour), showlegend=False)
    fig.add_scatter(x=sigmas.numpy(), y=middle.numpy(), mode="lines", name=f"C = {count}", line_color=colour)
    fig.add_scatter(x=sigmas[:9].numpy(), y=theory[:9].numpy(), mode="lines", name="approximation (5)",
                    showlegend=count == 40, line=dict(color="#222222", width=1.5, dash="dot"))
fig.update_xaxes(title="noise level σ", type="log", exponentformat="power", dtick=1)
fig.update_yaxes(title="squared distance", type="log", exponentformat="power", dtick=1)
assert all(0.6 < ratio < 1.5 for ratio in ratios.values())
plots.finish(fig, "Distance to the nearest simplex ETF against noise", f"d = 64; median and range of {DRAWS} draws")

# %%
say("At the smallest noise, the mean distance divided by (5) is "
    + ", ".join(f"{r:.2f} for C = {c}" for c, r in ratios.items()) +
    ". On the right the curves level off: there the means are nothing but noise, and the distance is that of"
    " random directions from section 7. It does not reach 2, nor anything close to it.")

# %% [markdown]
# One number tells how far; it does not tell where. For that, look at the cosines themselves. Below, noise is added to
# an ETF of ten classes, and classes 3 and 8 are moved towards each other.

# %%
means = ncbook.simplex_etf(10, 64, dtype=torch.float64) + 0.5 / 8 * gaussian(10, 64, seed=11)
means[[3, 8]] = 0.75 * means[[3, 8]] + 0.25 * means[[8, 3]]
pairs = torch.triu_indices(10, 10, 1)
assert pairs[:, pairwise_cosines(means - means.mean(0)).argmax()].tolist() == [3, 8]
plots.cosine_heatmap(
    means, title=f"Cosines of ten class means; squared distance {float(ncbook.simplex_etf_distance(means)):.3f}")

# %% [markdown]
# The ETF would be white throughout. Pale colours are noise; the one saturated pair, 3 and 8, is what a confused network
# would show.
#
# ## 10. Close to zero
#
# Networks trained for long come so close to a simplex ETF that formula (4) fails: $2 - 2x$ with $x$ near 1 cannot be
# smaller than the rounding error of $x$, about $10^{-16}$ in double precision and $10^{-7}$ in single. Long before that
# it has no correct digit. The cure is to write (4) as a sum of squares. Let $s_1, \dots, s_{C-1}$ be the singular
# values of $HQ$, with $\sum_i s_i^2 = 1$. Then
#
# $$ \sum_{i=1}^{C-1} \Big( s_i - \tfrac{1}{\sqrt{C-1}} \Big)^2 = 1 - \frac{2 \sum_i s_i}{\sqrt{C-1}} + 1 = D , $$
#
# and nothing cancels any more but one number with a constant, *before* the square: an error of $10^{-16}$ in $s_i$
# becomes $10^{-32}$ in $D$. To check it we need means whose distance is known exactly. Take singular values $1 +
# \varepsilon a_i$ with $\sum a_i = 0$ and mean square $v = \frac{1}{C-1}\sum a_i^2$; then $D = 2 - 2/\sqrt{1 +
# \varepsilon^2 v}$, which `expm1` and `log1p` evaluate without loss.

# %%
a = gaussian(9, seed=12)
a = a - a.mean()
Q, frame = ncbook.helmert_basis(10, dtype=torch.float64), torch.linalg.qr(gaussian(32, 9, seed=13))[0]
rows = []
for exponent in (-1, -2, -4, -6, -7, -8, -9, -10):
    epsilon = 10.0**exponent
    means = Q @ (frame * (1 + epsilon * a)).T
    true = -2 * math.expm1(-0.5 * math.log1p(epsilon**2 * float(a.square().mean())))
    naive = float(2 - 2 * torch.linalg.matrix_norm(normalised(means).T @ Q, "nuc") / math.sqrt(9))
    ours, single = (float(ncbook.simplex_etf_distance(m)) for m in (means, means.float()))
    rows.append([f"$10^{{{exponent}}}$", *(f"{value:.3e}" for value in (true, naive, ours, single))])
    assert abs(ours / true - 1) < 1e-5 and (exponent > -9 or abs(naive - true) > 0.5 * true)
table(["$\\varepsilon$", "exact", "2 − 2x, float64", "`simplex_etf_distance`, float64", "the same, float32"], rows)

# %% [markdown]
# The naive column gets stuck around $10^{-16}$, and what it prints there is rounding; it may even be negative. The sum
# of squares follows the exact value far below that. In float32 it ends earlier: each singular value carries an error of
# about $10^{-7}$, and the column gets stuck near the square of that. Float32 means are better than this; convert them
# to float64 before the call. The package's function does this:

# %%
show_code(ncbook.simplex_etf_distance)

# %% [markdown]
# ## Try it
#
# **1.** Take $C$ orthonormal vectors in $\mathbb{R}^d$, subtract their mean, and scale the results to unit length. Show
# with pencil and paper that they form a simplex ETF, and find the scale factor.
#
# <details><summary>Solution</summary>
#
# Let $U$ have the orthonormal vectors as rows, $U U^\top = I$. Centring multiplies by $M$ from the left, so the new
# Gram matrix is $M U U^\top M = M M = M$: norms $\sqrt{1 - 1/C}$ and inner products $-1/C$. Dividing by the norms gives
# $\frac{C}{C-1} M$, the Gram matrix of a simplex ETF. The factor is $\sqrt{C/(C-1)}$, the one in (2).
#
# </details>
#
# **2.** Confirm that class means on a line have the distance $2 - 2/\sqrt{C-1}$, however they are spaced.
#
# <details><summary>Solution</summary>
#
# ```python
# for num_classes in (3, 10, 100):
#     means = gaussian(num_classes, 1) @ gaussian(1, 200, seed=1)
#     print(num_classes, float(ncbook.simplex_etf_distance(means)), 2 - 2 / math.sqrt(num_classes - 1))
# ```
#
# $HQ$ has rank one, so its nuclear norm equals its Frobenius norm, 1.
#
# </details>
#
# **3.** The repelling vectors of section 1 end at a cosine of 0 for five vectors in space. Run eight of them in four
# dimensions, and nine. What do you expect from Rankin's theorem?
#
# <details><summary>Solution</summary>
#
# ```python
# for count in (5, 6, 8, 9):
#     ends = [spread_out(normalize(gaussian(count, 4, seed=s), dim=1), 3000)[-1] for s in range(5)]
#     print(count, min(float(pairwise_cosines(w).max()) for w in ends))
# ```
#
# Five reach $-1/4$, six and eight (up to $2d$) reach about 0, and nine must have a pair at an acute angle.
#
# </details>
#
# **4.** In section 7, replace the Gaussian means by Gaussian means plus a constant vector of length 100. Which of the
# two panels changes, and why?
#
# <details><summary>Solution</summary>
#
# Only the left one: all cosines jump to nearly 1, as every vector points along the common one. The distance on the
# right centres the means first and does not notice. Features after a ReLU have just such a common direction, which is
# why neural collapse is measured on centred means.
#
# ```python
# shifted = gaussian(10, 512) + 100 / math.sqrt(512)
# print(float(pairwise_cosines(shifted).mean()), float(pairwise_cosines(shifted - shifted.mean(0)).mean()))
# ```
#
# </details>
#
# ## Summary
#
# - $C$ unit vectors have a largest cosine of at least $-1/(C-1)$; a simplex ETF attains it. It needs $C-1$ dimensions,
#   and no fewer will do.
# - All simplex ETFs are $\sqrt{C/(C-1)}\, Q V^\top$: one shape $Q$, any orientation $V$. A uniform orientation needs
#   the sign fix after QR.
# - It is a tight frame: $W^\top W = \frac{C}{C-1} P$, the same for every direction in its span and zero outside it.
# - Random class means in many dimensions are already close to a simplex ETF after centring, at a squared distance of
#   about $(C-1)/(4d)$.
# - The squared distance of centred, normalised means to the nearest simplex ETF is $2 - 2\|HQ\|_*/\sqrt{C-1}$, and is
#   computed as a sum of squares.
#
# ## References
#
# - H. O. Lancaster (1965). *The Helmert matrices.* American Mathematical Monthly 72(1).
# - E. Markou, T. Ajanthan, S. Gould (2024). *Guiding Neural Collapse: Optimising Towards the Nearest Simplex
#   Equiangular Tight Frame.* NeurIPS. arXiv 2411.01248.
# - F. Mezzadri (2007). *How to generate random matrices from the classical compact groups.* Notices of the AMS 54(5).
#   arXiv math-ph/0609050.
# - V. Papyan, X. Y. Han, D. L. Donoho (2020). *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 117(40). arXiv 2008.08186.
# - R. A. Rankin (1955). *The closest packing of spherical caps in n dimensions.* Proceedings of the Glasgow
#   Mathematical Association 2(3).
# - P. H. Schönemann (1966). *A generalized solution of the orthogonal Procrustes problem.* Psychometrika 31(1).
# - T. Strohmer, R. W. Heath (2003). *Grassmannian frames with applications to coding and communication.* Applied and
#   Computational Harmonic Analysis 14(3). arXiv math/0301135.
