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
# # The simplex ETF
#
# *How far apart can $C$ directions be?* Put some unit vectors on a sphere and let them repel each other, the closest
# pair most. If the space has $C-1$ dimensions or more, they come to rest as the corners of a regular simplex seen
# from its centre, and no arrangement is better: all cosines are $-1/(C-1)$. This figure has a long name, the
# **simplex equiangular tight frame** (ETF). Here are four vectors in space, on their way to a tetrahedron. Press
# *Play*.

# %% jupyter={"source_hidden": true}
# Imports and helpers; animate four repelling vectors
import math

import torch
from torch.nn.functional import normalize

from ncbook import plots
from ncbook.book import gaussian


def pairwise_cosines(vectors):
    unit = normalize(vectors, dim=-1)
    upper = torch.triu_indices(unit.shape[-2], unit.shape[-2], 1)
    return (unit @ unit.mT)[..., upper[0], upper[1]]


def spread_out(vectors, steps):
    """Unit vectors (C, d) that repel each other, after each step: descent on the log-sum-exp of their cosines."""
    path = [vectors]
    for step in range(steps):
        cosines = (path[-1] @ path[-1].T).fill_diagonal_(-math.inf)
        push = ((3 + 200 * step / steps) * cosines).flatten().softmax(0).view_as(cosines)
        path.append(normalize(path[-1] - 0.3 * (1 - step / steps) * push @ path[-1], dim=1))
    return path


path = spread_out(normalize(torch.tensor([1.0, 0.6, 0.4]) + 0.5 * gaussian(4, 3, seed=3), dim=1), 400)
shown = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60, 100, 400]
plots.star_animation([path[k] for k in shown],
                     [f"step {k}, largest cosine {float(pairwise_cosines(path[k]).max()):+.3f}" for k in shown],
                     title="Four unit vectors that repel each other", subtitle="in space; turn it with the mouse")

# %% [markdown]
# It matters because classifiers that are trained on balanced classes well past their last mistake tend there: the
# centred class means, and the rows of the classifier, approach this figure (Papyan, Han and Donoho 2020). Once we
# know it, we can prescribe it, measure how far a network is from it, and say which part of that distance is an
# accident of having many dimensions.
#
# *You will learn*
#
# - why no $C$ directions have smaller cosines, and how few dimensions they need;
# - the construction, and how to turn it uniformly at random;
# - what "tight frame" means;
# - how to draw ten vertices on a page without lying about them;
# - the squared distance from class means to the nearest simplex ETF, and what it is for random means.

# %% [markdown]
# ## Setup

# %% jupyter={"source_hidden": true}
# More imports, and settings
import plotly.graph_objects as go
from plotly.subplots import make_subplots

import ncbook
from ncbook import live
from ncbook.book import profile, say, show_code, table

PROFILE, TRIALS, DRAWS, SAMPLES = profile(
    {"TRIALS": "random simplex ETFs tried against the formula", "DRAWS": "sets of random class means per dimension",
     "SAMPLES": "random orientations per histogram"},
    quick=dict(TRIALS=4_000, DRAWS=12, SAMPLES=4_000),
    book=dict(TRIALS=60_000, DRAWS=40, SAMPLES=20_000),
    paper=dict(TRIALS=1_000_000, DRAWS=200, SAMPLES=200_000),
)

# %% [markdown]
# ## 1. The bound
#
# *How small can the largest cosine be?* Let $w_1, \dots, w_C \in \mathbb{R}^d$ be unit vectors, the rows of a $(C, d)$
# matrix $W$. Whatever they are, the squared length of their sum is not negative:
#
# $$ 0 \le \Big\| \sum_c w_c \Big\|^2 = \sum_c \|w_c\|^2 + \sum_{i \ne j} \langle w_i, w_j \rangle
#    = C + \sum_{i \ne j} \langle w_i, w_j \rangle . $$
#
# There are $C(C-1)$ ordered pairs, so the mean of their cosines is at least $-1/(C-1)$, and the largest is no smaller
# than the mean:
#
# $$ \max_{i \ne j}\ \langle w_i, w_j \rangle \ \ge\ -\frac{1}{C-1}. \tag{1} $$
#
# A **simplex ETF** meets the bound. That takes a sum of zero and equal cosines, which says all of it in one equation
# for the Gram matrix, with $M = I - \frac1C \mathbf 1 \mathbf 1^\top$, the matrix that subtracts a mean:
#
# $$ \|w_c\| = 1, \quad \langle w_i, w_j \rangle = -\frac{1}{C-1} \quad (i \ne j) \qquad \iff \qquad
#    W W^\top = \frac{C}{C-1}\, M . \tag{2} $$
#
# $M$ is a projection of rank $C-1$: it maps the vector of ones to zero and nothing else. As a Gram matrix has no larger
# rank than the space has dimensions, $d \ge C-1$ is necessary; section 2 shows that it is enough.
#
# *And with one vector too many?* In space, $d = 3$, the bound for five vectors would be $-1/4$. Predict what five
# repelling vectors find.

# %%
for count in range(2, 7):
    ends = [spread_out(normalize(gaussian(count, 3, seed=s), dim=1), 1500)[-1] for s in range(3)]
    best = min(float(pairwise_cosines(w).max()) for w in ends)
    print(f"{count} vectors in space: largest cosine {best:+.3f}, bound {-1 / (count - 1):+.3f}")
    assert abs(best - (-1 / (count - 1) if count <= 4 else 0)) < 0.02

# %% [markdown]
# Up to four vectors the bound is met. With five, the smallest angle drops to 90° at once: Rankin (1955) proved that
# for $d + 2 \le C \le 2d$ the best largest cosine is exactly 0.
#
# ## 2. One shape, any orientation
#
# We need a matrix with the Gram matrix (2). Take an orthonormal basis of the vectors whose entries sum to zero, as the
# columns of a $(C, C-1)$ matrix $Q$: $Q^\top Q = I$ and $Q Q^\top = M$. Take any $(d, C-1)$ matrix $V$ with orthonormal
# columns, the **orientation**. Then
#
# $$ W = \sqrt{\tfrac{C}{C-1}}\; Q\, V^\top \qquad\Longrightarrow\qquad
#    W W^\top = \tfrac{C}{C-1}\, Q V^\top V Q^\top = \tfrac{C}{C-1}\, M. \tag{3} $$

# %%
C, d = 4, 6
Q = ncbook.helmert_basis(C, dtype=torch.float64)
V = torch.linalg.qr(gaussian(d, C - 1))[0]
W = math.sqrt(C / (C - 1)) * Q @ V.T
print((W @ W.T).round(decimals=3))

# %% [markdown]
# The literature (Papyan et al. 2020 and most papers after it) writes the same set as $\sqrt{C/(C-1)}\, K (I - \frac1C
# \mathbf 1 \mathbf 1^\top)$ with a $(d, C)$ matrix $K$ that has orthonormal columns, and classes as columns. Since $K M
# = (KQ) Q^\top$, this is (3) with $V = KQ$: one direction of $K$ never enters. That is why the published form asks for
# $d \ge C$ and (3) for $d \ge C-1$ only, and three classes fit in the plane.
#
# For $Q$ the package takes the **Helmert basis** (Lancaster 1965), whose column $k$ compares class $k+1$ with the mean
# of the $k$ classes before it. With the first $C-1$ unit vectors as $V$ this is the **canonical** simplex ETF:

# %%
show_code(ncbook.simplex_etf, part=("if generator is None", "etf = "))

# %% [markdown]
# Try it by hand: choose the number of classes (the dimension follows, and can be raised), turn it, and
# read its cosines. *How many dimensions are left over when you raise $d$?*

# %%
live.simplex_scrubber()

# %% [markdown]
# Of the $d$ dimensions $d - (C-1)$ are left over: no row of $W$ has a component there.
#
# ## 3. Pictures that tell the truth
#
# Two classes need a line, three a plane, four all of space. These can be drawn as they are: the coordinates are the
# rows of `simplex_etf(C, C - 1)`. The angle shrinks from 180° towards, but never to, a right angle.

# %% jupyter={"source_hidden": true}
# Draw the simplex ETFs of two, three and four classes
panels = {}
for count in (2, 3, 4):
    w = ncbook.simplex_etf(count, count - 1, dtype=torch.float64)
    angle = math.degrees(math.acos(-1 / (count - 1)))
    panels[f"C = {count}: angle {angle:.1f}°"] = torch.cat([w, 0 * w], dim=1) if count == 2 else w
plots.stars(panels, title="Simplex ETFs of two, three and four classes",
            subtitle="the rows of W on a line, in the plane and in space")

# %% [markdown]
# Ten classes need nine dimensions, and every flat picture of them is a shadow. *Which of these two shadows shows the
# same object more honestly?*

# %% jupyter={"source_hidden": true}
# Draw two shadows of one simplex ETF of ten classes
w = ncbook.simplex_etf(10, 10, dtype=torch.float64)
shadows = {"canonical coordinates 1 and 2": w[:, :2], "the projection used in this book": plots.simplex_vertices(10)}
at_centre = [c for c in range(10) if w[c, :2].norm() < 1e-12]
fig = plots.stars(shadows, title="One simplex ETF of ten classes, two shadows", edges=False, names=True, height=410,
                  subtitle="projections from nine to two dimensions")
fig.add_annotation(x=0, y=0, ax=0.7, ay=-0.75, axref="x", ayref="y", text=f"classes {at_centre[0]} to {at_centre[-1]}",
                   arrowcolor="#666666", row=1, col=1)

# %% [markdown]
# On the left seven vertices fall on the same point, though all ten are equally far from each other. On the right all
# are told apart and treated alike, at the corners of a regular 10-gon. But its angles are not the true ones: neighbours
# are 36° apart on paper and 96.4° in nine dimensions. Wherever the book draws more than four classes, it uses this
# projection and says so.
#
# ## 4. A uniformly random orientation
#
# Sometimes one needs an ETF that is turned at random, without favouring any direction: $V$ should be uniform on the
# *Stiefel manifold*, the set of all $(d, C-1)$ matrices with orthonormal columns. The recipe starts from a matrix $G$
# of independent Gaussians, whose distribution no rotation changes, so that $G = VR$, with $V$ orthonormal and $R$ upper
# triangular, should give a $V$ without favourites. But this decomposition is unique only once the signs of $R$'s
# diagonal are fixed, and libraries leave them however their algorithm happens to produce them. *How much harm can a
# sign do?*

# %%
V, R = torch.linalg.qr(gaussian(SAMPLES, 2, 2, seed=1))
frames = {"signs left as they are": V, "signs fixed": V * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]}
first = {name: frame @ ncbook.helmert_basis(3, dtype=torch.float64)[0] for name, frame in frames.items()}

# %% jupyter={"source_hidden": true}
# Draw where the first vertex points, signs fixed or not
degrees = {name: torch.atan2(vertex[:, 1], vertex[:, 0]).rad2deg() for name, vertex in first.items()}
fig = plots.direction_histograms(degrees, title="Where the first vertex of a random simplex ETF points",
                                 subtitle=f"C = 3, d = 2, {SAMPLES:,} orientations; 1 is uniform")
density = {trace.name: torch.as_tensor(trace.r) for trace in fig.data}
fig

# %% [markdown]
# Without the fix half of the directions never occur. With it, $V$ inherits the symmetry of $G$ (Mezzadri 2007): it is
# the line with the comment in `simplex_etf`. In more dimensions the fault cannot be drawn, but it can be counted.
# Here is the share of proper rotations among square $V$, which should be one half:

# %% jupyter={"source_hidden": true}
# Table: share of proper rotations in more dimensions
rows = []
for size in (2, 3, 4, 5):
    V, R = torch.linalg.qr(gaussian(SAMPLES // 2, size, size, seed=size))
    fixed = V * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    shares = [float((torch.linalg.det(frame) > 0).double().mean()) for frame in (V, fixed)]
    rows.append([f"{size} × {size}", *(f"{share:.0%}" for share in shares)])
    assert shares[0] == (size + 1) % 2 or shares[0] in (0, 1)
    assert abs(shares[1] - 0.5) < 0.03
table(["$V$", "signs left as they are", "signs fixed"], rows)

# %% [markdown]
# ## 5. Why "tight frame"?
#
# Take a direction $x$, $\|x\| = 1$, and add up how strongly the vectors see it: $\sum_c \langle w_c, x\rangle^2$. *For
# which vectors does the answer not depend on $x$?*

# %% jupyter={"source_hidden": true}
# Draw how strongly the vectors see each direction
degrees = torch.linspace(0, 360, 121, dtype=torch.float64)
directions = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()])
etf = ncbook.simplex_etf(3, 2, dtype=torch.float64)
fig = go.Figure()
for name, vectors, colour, dash, symbol in (
        ("simplex ETF", etf, "#222222", "solid", "circle"),
        ("random unit vectors", normalize(gaussian(3, 2, seed=4), dim=1), "#8C8C8C", "dash", "diamond")):
    seen, at = (vectors @ directions).square().sum(0), torch.atan2(vectors[:, 1], vectors[:, 0]).rad2deg() % 360
    fig.add_scatterpolar(theta=degrees.numpy(), r=seen.numpy().round(4), mode="lines", name=name,
                         line=dict(color=colour, width=3, dash=dash))
    fig.add_scatterpolar(theta=at.numpy().round(2), r=[1] * 3, mode="markers", showlegend=False, hoverinfo="skip",
                         marker=dict(size=12, color=colour, symbol=symbol))
plots.finish(fig, "How strongly vectors see a direction",
             "Σ⟨w, x⟩² by the angle of x; markers are the vectors", width=400, height=440,
             margin=dict(t=124, b=32, l=40, r=40), legend=dict(orientation="h", x=0, y=1.1, yanchor="bottom"))
plots.polar_grid(fig, 3)

# %% [markdown]
# The ETF sees all directions alike: a circle. In matrix form, from (3),
#
# $$ \sum_c \langle w_c, x \rangle^2 = x^\top W^\top W x, \qquad
#    W^\top W = \tfrac{C}{C-1}\, V Q^\top Q V^\top = \tfrac{C}{C-1}\, P , \qquad P = V V^\top . $$
#
# $P$ projects onto the $(C-1)$-dimensional span of the vectors. A set with $W^\top W$ proportional to the identity of
# its span is called a **tight frame**: within the span it behaves like an orthogonal basis with redundancy, $x =
# \frac{C-1}{C} \sum_c \langle w_c, x\rangle\, w_c$. Outside the span it sees nothing: a classifier with these rows
# ignores all feature directions but $C-1$.
#
# ## 6. The distance to the nearest simplex ETF
#
# *How far are given class means from such a figure?* Neither their common position nor their common size should matter,
# so centre and normalise them: $\bar H = H / \|H\|_F$ with $H = [\mu_1 - \mu_G, \dots, \mu_C - \mu_G]$. A simplex ETF
# $W_V = \sqrt{C/(C-1)}\, Q V^\top$ has norm $\sqrt C$. The **squared distance to the nearest simplex ETF** is
#
# $$ D = \min_{V^\top V = I} \Big\| \bar H - \tfrac{1}{\sqrt C} W_V^\top \Big\|_F^2
#      = 2 - \tfrac{2}{\sqrt{C-1}} \max_{V^\top V = I} \langle \bar H Q, V \rangle , \tag{4} $$
#
# as both matrices have norm 1. This is the orthogonal Procrustes problem (Schönemann 1966). Let $A = \bar H Q$ have the
# singular value decomposition $A = U S R^\top$ with singular values $s_k$. Then $\langle A, V \rangle =
# \operatorname{tr}(S\, U^\top V R) \le \operatorname{tr} S$, since no entry of $U^\top V R$ exceeds 1 in size, and $V =
# U R^\top$, the *polar factor* of $A$, attains it. With the nuclear norm $\|A\|_* = \sum_k s_k$,
#
# $$ D = 2 - \frac{2\, \|\bar H Q\|_*}{\sqrt{C-1}} . \tag{5} $$
#
# It is 0 for a simplex ETF and largest for means on a line, $2 - 2/\sqrt{C-1}$, so always below 2. As $\sum_k s_k^2 =
# \lVert \bar H \rVert_F^2 = 1$, it is also a sum of squares, which says what it measures, namely how unequal the
# singular values are:
#
# $$ D = 1 - \frac{2 \sum_k s_k}{\sqrt{C-1}} + 1
#      = \sum_{k=1}^{C-1} \Big( s_k - \tfrac{1}{\sqrt{C-1}} \Big)^2 . \tag{6} $$
#
# The book calls $D$ the **ETF distance**; it is always squared. The simplex ETF that attains it is
# `nearest_simplex_etf`, the subject of [The nearest simplex ETF](05_nearest_etf.ipynb).
#
# A derivation can be wrong, so compare (5) with (4) by brute force: try many random orientations and keep the best.

# %%
def distances_of_random_etfs(class_means, trials):
    """Squared distances (4) from class means to uniformly random simplex ETFs, and whether V is a proper rotation."""
    centred = class_means - class_means.mean(0)
    V, R = torch.linalg.qr(gaussian(trials, len(centred) - 1, len(centred) - 1, seed=17))
    V = V * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    W = ncbook.helmert_basis(len(centred), dtype=torch.float64) @ V.mT / math.sqrt(len(centred) - 1)
    return (centred / centred.norm() - W).square().sum((-2, -1)), torch.linalg.det(V) > 0


# %% jupyter={"source_hidden": true}
# Draw the formula against brute force
fig = make_subplots(1, 2, subplot_titles=["random ETFs, C = 4, d = 3", "best of n tried, less formula (5)"],
                    horizontal_spacing=0.15)
left, right = dict(row=1, col=1), dict(row=1, col=2)
smallest = {}
n = torch.tensor(sorted({int(10**(k / 4)) for k in range(4 * 7) if 10**(k / 4) <= TRIALS} | {TRIALS}))
for count in (3, 4, 6):
    means = ncbook.simplex_etf(count, count - 1, dtype=torch.float64) + 0.3 * gaussian(count, count - 1, seed=5)
    (tried, proper), formula = distances_of_random_etfs(means, TRIALS), float(ncbook.simplex_etf_distance(means))
    gap = (tried.cummin(0).values[n - 1] - formula).numpy()
    smallest[count] = float(gap[-1])
    fig.add_scatter(x=n.numpy(), y=gap, mode="lines+text", showlegend=False, textposition="middle right",
                    text=[""] * (len(n) - 1) + [f"C = {count}"],
                    line=dict(color="#222222", shape="hv", width=1.5), **right)
    if count == 4:
        for name, chosen, colour in (("proper rotations", proper, "#8C8C8C"), ("mirrored", ~proper, "#D2D2D2")):
            counts = torch.histc(tried[chosen], 60, 0, 4) / len(tried) * 15
            fig.add_bar(x=((torch.arange(60) + 0.5) / 15).numpy().round(3), y=counts.numpy().round(4), width=1 / 15,
                        name=name, marker=dict(color=colour, line=dict(color="white", width=0.5)), **left)
        fig.add_vline(x=formula, line=dict(color="#222222", width=2.5), **left)
        fig.add_annotation(x=formula, y=1, text="formula (5)", xanchor="left", xshift=4, showarrow=False, **left)
plots.finish(fig, "The formula against brute force", f"{TRIALS:,} random simplex ETFs each; d = C − 1", width=720,
             height=420, bargap=0, barmode="stack", margin_b=104,
             legend=dict(orientation="h", x=0, y=-0.28, yanchor="top"))
fig.update_xaxes(title="squared distance", range=[0, 4], **left).update_yaxes(title="density", range=[0, 1.05], **left)
fig.update_xaxes(title="n", type="log", range=[0, math.log10(TRIALS) + 1.2], exponentformat="power", dtick=1, **right)
fig.update_yaxes(type="log", exponentformat="power", dtick=2, **right)

# %% [markdown]
# No random ETF is nearer than the formula says. The histogram has two humps: an orientation may be a proper rotation
# or a mirror image, and the nearest one is found among one kind only. Here that is the kind whose hump is the
# *farther* one: only its thin tail reaches down to the line. The right panel shows why a formula is needed at all:
# orientations form a space of dimension 1, 3 and 10 in these examples, and random search gets lost in it.
#
# *And which kind is the nearest?* Below, a disturbance of fixed direction is added to an exact ETF of three classes;
# the slider sets its size. Predict what happens when one mean is pushed across the line through the other two.

# %% jupyter={"source_hidden": true}
# Slider: three class means with noise, their nearest ETF
base, noise = etf, gaussian(3, 2, seed=13)
noise = noise / noise.norm() * base.norm()
levels = [round(0.1 * k, 1) for k in range(26)]


sets = [base + level * noise for level in levels]
values = [float(ncbook.simplex_etf_distance(means)) for means in sets]
plots.etf_beside_means(sets, [f"noise {level:.1f}" for level in levels], active=levels.index(0.6),
                       title="Three class means, their nearest ETF", subtitle="in the plane, centred and normalised")

# %% jupyter={"source_hidden": true}
# Find the noise at which the distance is largest
peak = max(range(len(levels)), key=values.__getitem__)
handed = [bool(torch.linalg.det(ncbook.nearest_simplex_etf(means)[:2]) > 0) for means in sets]
assert values[0] < 1e-20 and handed[:peak] == [handed[0]] * peak and handed[-1] != handed[0]
say(f"The distance grows up to noise {levels[peak]:.1f}, to {values[peak]:.3f}; for three means on a line it is "
    f"$2 - \\sqrt 2 \\approx {2 - math.sqrt(2):.3f}$.")

# %% [markdown]
# At that point one mean crosses the line through the other two. From then on the means go round the other way, and the
# nearest ETF is suddenly the mirror image: the minimum in (4) is over *all* orientations, reflections included.
#
# A good distance between shapes ignores everything that is not shape. Here is what (5) ignores, and what it sees:

# %%
means = gaussian(6, 8, seed=7)
variants = {"as they are": means, "moved together": means + 100 * gaussian(8, seed=9), "scaled": 1e-6 * means,
            "rotated": means @ torch.linalg.qr(gaussian(8, 8, seed=8))[0],
            "classes renamed": means[[3, 0, 5, 1, 4, 2]],
            "one class scaled by 2": torch.cat([means[:2], 2 * means[2:3], means[3:]])}
for name, variant in variants.items():
    print(f"{name:22s} {float(ncbook.simplex_etf_distance(variant)):.10f}")

# %% [markdown]
# ## 7. What random class means look like
#
# In many dimensions random directions are almost orthogonal, with cosines around 0 and not around $-1/(C-1)$. *Are ten
# random class means therefore far from a simplex ETF?*

# %% jupyter={"source_hidden": true}
# Draw cosines and ETF distances of random class means
C = 10
fig = make_subplots(1, 2, subplot_titles=["cosines of random unit vectors", "their ETF distance"],
                    horizontal_spacing=0.14)
middles = torch.linspace(-1, 1, 121)[1::2].numpy().round(4)
for dim, shade in ((9, "#B5B5B5"), (64, "#808080"), (512, "#222222")):
    cosines = pairwise_cosines(gaussian(400, C, dim, seed=dim)).flatten().float()
    fig.add_scatter(x=middles, y=(torch.histc(cosines, 60, -1, 1) / len(cosines) * 30).numpy().round(3), mode="lines",
                    name=f"random, d = {dim}", line=dict(color=shade, width=2), **left)
fig.add_scatter(x=[-1 / 9] * 2, y=[0, 10], mode="lines", name="simplex ETF", line=dict(color="#222222", dash="dash"),
                **left)
grid = [9, 16, 32, 64, 128, 256, 512]
far = [torch.stack([ncbook.simplex_etf_distance(gaussian(C, dim, seed=1000 * dim + s)) for s in range(DRAWS)])
       for dim in grid]
low, middle, high = ([float(values.quantile(q)) for values in far] for q in (0.0, 0.5, 1.0))
fig.add_scatter(**plots.band(grid, low, high, "#808080"), showlegend=False, **right)
fig.add_scatter(x=grid, y=middle, mode="lines+markers", name="random means", line=dict(color="#222222"),
                showlegend=False, **right)
expected = [(C - 2) * (C + 1) / (4 * dim * (C - 1)) for dim in grid]
fig.add_scatter(x=grid, y=expected, mode="lines", name="formula (7)",
                line=dict(color="#808080", dash="dot"), **right)
fig.update_xaxes(title="cosine", range=[-0.8, 0.8], **left).update_yaxes(title="density", range=[0, 10], **left)
fig.update_xaxes(title="dimension d", type="log", tickvals=[9, 32, 128, 512], **right)
fig.update_yaxes(title="squared distance", type="log", tickvals=[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5], **right)
plots.finish(fig, "Ten random directions as the dimension grows", f"right: median and range of {DRAWS} draws",
             width=720, height=420, margin_b=124, legend=dict(orientation="h", x=0, y=-0.28, yanchor="top"))

# %% [markdown]
# They are close, and the closer the more dimensions there are. The two panels do not contradict each other: the
# distance **centres** its means first. Row $c$ of $M$ is the standard basis vector $e_c$ with its mean subtracted, and
# row $c$ of $Q$ holds its coordinates. So an orthonormal basis, centred, *is* a simplex ETF up to scale, and nearly
# orthogonal vectors, centred, nearly are one.
#
# How nearly, (6) tells. For Gaussian means the entries of the $(d, C-1)$ matrix $HQ$ (not normalised, unlike $A$ in
# section 6) are independent standard Gaussians. On the diagonal of $Q^\top H^\top H Q$ the variance is $2d$, off it
# $d$, so that its $C-1$ eigenvalues $t_k^2$ deviate from $d$ by a mean square of $\big(2d\,(C-1) +
# d\,(C-1)(C-2)\big)/(C-1) = Cd$, of which $2d/(C-1)$ is due to their mean, a common scale that (6) does not see.
# Hence $t_k \approx \sqrt d + (t_k^2 - d)/(2\sqrt d)$ deviate from their mean by a mean square of $\frac14\big(C -
# \frac{2}{C-1}\big)$, and division by $\lVert HQ \rVert_F^2 \approx (C-1)\,d$, for $C - 1$ of them, gives the dotted line
#
# $$ D \approx \frac{(C-2)(C+1)}{4d\,(C-1)} , \tag{7} $$
#
# about $C/(4d)$ if classes are many.
#
# This is a warning: ten random means in 512 dimensions lie at a squared distance of about 0.005 from a simplex ETF
# without any training. A distance has to be judged against such a level, not against 1, and with a measure of the
# scatter within classes beside it. [Measuring collapse](03_measuring_collapse.ipynb) returns to this with untrained
# networks.

# %% jupyter={"source_hidden": true}
# Checks of what the text says
orthogonal = torch.eye(C, 64, dtype=torch.float64)
assert float(ncbook.simplex_etf_distance(orthogonal)) < 1e-20
assert abs(float(pairwise_cosines(orthogonal - orthogonal.mean(0)).mean()) + 1 / 9) < 1e-12
assert abs(middle[-1] / expected[-1] - 1) < 0.1 and middle == sorted(middle, reverse=True)
assert min(smallest.values()) > -1e-12 and smallest[3] < 1e-5 and smallest[4] < 0.05
assert (density["signs left as they are"] == 0).sum() >= 10 and (density["signs fixed"] - 1).abs().max() < 0.35
assert float((etf @ directions).square().sum(0).std()) < 1e-12 and len(at_centre) == 7
kept = {name: float(ncbook.simplex_etf_distance(variant)) for name, variant in variants.items()}
assert all((abs(value - kept["as they are"]) < 1e-10) != name.startswith("one") for name, value in kept.items())
W = ncbook.simplex_etf(10, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
P = 9 / 10 * W.T @ W
assert (P @ P - P).norm() < 1e-12 and abs(P.trace() - 9) < 1e-12
assert abs(math.degrees(math.acos(float(pairwise_cosines(plots.simplex_vertices(10)[:2])))) - 36) < 1e-6

# %% [markdown]
# ## Try it
#
# **1. Eight and nine in four dimensions.** What do repelling vectors find, and what does Rankin's theorem say?
#
# <details><summary>Solution</summary>
#
# ```python
# for count in (5, 6, 8, 9):
#     ends = [spread_out(normalize(gaussian(count, 4, seed=s), dim=1), 3000)[-1] for s in range(5)]
#     print(count, min(float(pairwise_cosines(w).max()) for w in ends))
# ```
#
# Five reach $-1/4$; six and eight (up to $2d$) reach 0 and cannot do better; nine must have a pair at an acute angle.
#
# </details>
#
# **2. A common direction.** Features after a ReLU are not negative and share a large mean. Add a constant vector of
# length 100 to ten random means in 512 dimensions. Which panel of section 7 changes?
#
# <details><summary>Solution</summary>
#
# ```python
# shifted = gaussian(10, 512) + 100 / math.sqrt(512)
# print(float(pairwise_cosines(shifted).mean()), float(pairwise_cosines(shifted - shifted.mean(0)).mean()))
# print(float(ncbook.simplex_etf_distance(shifted)))
# ```
#
# Only the left one: all cosines jump to nearly 1. The distance does not notice, which is why neural collapse is
# measured on centred means.
#
# </details>
#
# **3. Turning is free.** Add small independent noise, $\sigma$ times the norm of the ETF, to a simplex ETF of $C$
# classes in $d = 64$ dimensions. Most of it can be undone by turning. How does the distance grow with $C$?
#
# <details><summary>Solution</summary>
#
# ```python
# for count in (4, 10, 40):
#     exact, sigma = ncbook.simplex_etf(count, 64, dtype=torch.float64), 0.01
#     noisy = [ncbook.simplex_etf_distance(exact + sigma / 8 * gaussian(count, 64, seed=s)) for s in range(40)]
#     k = count - 1
#     print(count, float(torch.stack(noisy).mean()), sigma**2 * (k * (k + 1) / 2 - 1) / (count * 64))
# ```
#
# With $k = C-1$, only the symmetric part of the noise in the coordinates of $\bar H Q$ counts to first order:
# $k(k+1)/2$ numbers, one of which is the common scale. So $D \approx \sigma^2 (k(k+1)/2 - 1) / (Cd)$: 0.3 of the
# squared noise at $C = 40$, and 0.02 of it at $C = 4$.
#
# </details>
#
# ## Summary
#
# - $C$ unit vectors have a largest cosine of at least $-1/(C-1)$. A simplex ETF attains it, in $C-1$ dimensions and not
#   in fewer: five vectors in space already fall back to 0.
# - All simplex ETFs are $\sqrt{C/(C-1)}\, Q V^\top$: one shape $Q$, any orientation $V$. A uniform $V$ needs the signs
#   fixed after QR; without it half of the directions never occur for $C = 3$.
# - It is a tight frame: $W^\top W = \frac{C}{C-1} P$, the same for every direction in its span and zero outside it.
# - The ETF distance, the squared distance of class means to the nearest simplex ETF, is $2 - 2\|\bar H
#   Q\|_*/\sqrt{C-1}$, 0.586 for three means on a line.
# - Gaussian class means in many dimensions are close to a simplex ETF, at a squared distance of about
#   $(C-2)(C+1)/(4d\,(C-1))$: 0.005 for ten classes in 512 dimensions.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
# - R. A. Rankin. *The closest packing of spherical caps in n dimensions.* Proceedings of the Glasgow Mathematical
#   Association 1955. [doi 10.1017/S2040618500033219](https://doi.org/10.1017/S2040618500033219)
# - H. O. Lancaster. *The Helmert matrices.* American Mathematical Monthly 72 (1), 1965.
#   [doi 10.1080/00029890.1965.11970483](https://doi.org/10.1080/00029890.1965.11970483)
# - F. Mezzadri. *How to generate random matrices from the classical compact groups.* Notices of the AMS 2007.
#   [arXiv math-ph/0609050](https://arxiv.org/abs/math-ph/0609050)
# - P. H. Schönemann. *A generalized solution of the orthogonal Procrustes problem.* Psychometrika 1966.
#   [doi 10.1007/BF02289451](https://doi.org/10.1007/BF02289451)
#
# **Next:** [Measuring collapse](03_measuring_collapse.ipynb).
