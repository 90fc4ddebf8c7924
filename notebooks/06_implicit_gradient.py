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
# # The gradient of the nearest ETF
#
# *The classifier is the solution of an optimisation problem over the class means. How does the loss reach the features
# through it?* By a formula as short as the solution itself. It agrees with implicit differentiation, which the
# published method uses, and keeps its precision where automatic differentiation through the singular value
# decomposition breaks down: near an exact simplex ETF, which is where training ends.

# %% jupyter={"source_hidden": true}
from statistics import median

import torch

import ncbook
from ncbook import plots


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def polar_by_svd(a):
    u, _, rt = torch.linalg.svd(a, full_matrices=False)
    return u @ rt


def polar_gradient(a, upstream, function=ncbook.polar_factor):
    leaf = a.detach().clone().requires_grad_()
    return torch.autograd.grad((function(leaf) * upstream).sum(), leaf)[0]


exact_frame = torch.linalg.qr(gaussian(12, 9, seed=8))[0]
epsilons, NOISES = [10.0 ** (-k / 2) for k in range(15)], 7
errors = {"autograd through the SVD": [], "closed form": []}
for epsilon in epsilons:
    found = {name: [] for name in errors}
    for seed in range(NOISES):
        point, upstream = (exact_frame + epsilon * gaussian(12, 9, seed=seed) / 10).float(), gaussian(12, 9, seed=99)
        truth = polar_gradient(point.double(), upstream)
        for name, function in zip(found, (polar_by_svd, ncbook.polar_factor)):
            error = polar_gradient(point, upstream.float(), function).double() - truth
            found[name].append(float(error.norm() / truth.norm()))
    for name, values in found.items():
        errors[name].append(median(values))
fig = plots.curve_panels({"": {name: (epsilons, values) for name, values in errors.items()}},
                         title="Error of the float32 gradient near an exact ETF",
                         subtitle=f"relative to float64, median of {NOISES}; a missing point is not a number",
                         x="distance from the exact ETF; training goes to the right")
fig.update_traces(mode="lines+markers").update_xaxes(type="log", autorange="reversed", exponentformat="power", dtick=1)
fig.update_yaxes(title="relative error", type="log", exponentformat="power", dtick=2)

# %% [markdown]
# Why care? A layer whose output is *defined by an optimisation problem*, in place of a chain of operations, is called a
# **declarative node** (Gould, Hartley and Campbell 2019). There are many: alignments, projections, matchings. This is
# one in which the general recipe costs terabytes, the obvious shortcut returns NaN, and half a page of algebra removes
# both problems.
#
# *You will learn*
#
# - how to differentiate the polar decomposition, and why sums of singular values appear where the SVD has differences;
# - why the result is the implicit gradient of the declarative node, and what the general formula would cost;
# - what happens where the frame is not unique, and what the pull does there;
# - how all of it becomes a classifier head that takes the place of a model's last `nn.Linear`.
#
# ## Setup

# %% jupyter={"source_hidden": true}
import math
from functools import partial

from ncbook import etf
from ncbook.book import profile, say, show_code, table

PROFILE, EPOCHS = profile(quick=dict(EPOCHS=5), book=dict(EPOCHS=20), paper=dict(EPOCHS=200))
SEED = 0

# %% [markdown]
# ## 1. Differentiate the polar decomposition
#
# The [nearest simplex ETF](05_nearest_etf.ipynb) is $W = \sqrt{C/(C-1)}\, Q P^\top$ with $P = \operatorname{polar}(A)$
# and $A = \bar H Q$; everything but the polar factor is linear or a normalisation. So let $A = U S R^\top$ be the thin
# SVD of a $(d, k)$ matrix, $P = U R^\top$, and $G = \partial L/\partial P$ the gradient that arrives. We look for
# $\partial L/\partial A$.
#
# Write $A = P K$ with $K = P^\top A = R S R^\top$, symmetric: the other half of the polar decomposition. Differentiate
# $A = PK$ and $P^\top P = I$:
#
# $$ dA = dP\, K + P\, dK, \qquad P^\top dP = \Omega \ \text{ with } \ \Omega^\top = -\Omega . $$
#
# *Inside the span of $P$:* multiply by $P^\top$ and subtract the transpose. $dK$ is symmetric and drops out:
# $\Omega K + K \Omega = P^\top dA - dA^\top P$. In the basis $R$, where $K$ is diagonal, this is solved entry by entry,
#
# $$ (R^\top \Omega R)_{ij} = \frac{(U^\top dA\, R - R^\top dA^\top U)_{ij}}{s_i + s_j} . $$
#
# *Outside:* $(I - PP^\top)\,dA = (I - PP^\top)\,dP\,K$, so $(I - UU^\top)\,dP = (I - UU^\top)\,dA\,R S^{-1} R^\top$.
#
# Both are linear in $dA$. Transposing the linear map gives the gradient: with $Y = U^\top G R$,
#
# $$ \frac{\partial L}{\partial A} = \Big[\, U B + (I - U U^\top)\, G R S^{-1} \Big] R^\top,
#    \qquad B_{ij} = \frac{Y_{ij} - Y_{ji}}{s_i + s_j} . \tag{1} $$
#
# The denominators are *sums* of singular values, and single ones. Differences appear nowhere. The code is as short:

# %%
show_code(etf._polar_gradient)

# %% [markdown]
# ## 2. It is the implicit gradient
#
# A declarative node is differentiated through its optimality conditions. For $\max \langle P, A\rangle$ subject to
# $P^\top P = I$, with a symmetric matrix $\Lambda$ of multipliers, these are
#
# $$ A = P \Lambda, \qquad P^\top P = I : $$
#
# the two equations that we have just differentiated, with $\Lambda = K$. So (1) *is* the implicit gradient, not an
# approximation of it. The general formula does not know that the equations can be taken apart. It sees a vector of $dk$
# unknowns under $k(k+1)/2$ constraints, and solves
#
# $$ \operatorname{vec} \frac{\partial L}{\partial A}
#    = \Big[ D^{-1} - D^{-1} J^\top (J D^{-1} J^\top)^{-1} J D^{-1} \Big] \operatorname{vec} G,
#    \qquad D = I_d \otimes \Lambda , $$
#
# where $\operatorname{vec}$ stacks rows and $J$ is the Jacobian of the constraints. *Do the two agree?* Here it is,
# dense, for a small problem:

# %%
def declarative_gradient(a, upstream):
    d, k = a.shape
    p = ncbook.polar_factor(a)
    hessian = torch.kron(torch.eye(d, dtype=a.dtype), (p.T @ a + a.T @ p) / 2)
    i, j = torch.triu_indices(k, k)
    jacobian, row = torch.zeros(len(i), d, k, dtype=a.dtype), torch.arange(len(i))
    jacobian[row, :, i] += p.T[j]
    jacobian[row, :, j] += p.T[i]
    jacobian = jacobian.flatten(1)
    w, t = torch.linalg.solve(hessian, upstream.flatten()), torch.linalg.solve(hessian, jacobian.T)
    return (w - t @ torch.linalg.solve(jacobian @ t, jacobian @ w)).view(d, k)


a, upstream = gaussian(7, 4, seed=3), gaussian(7, 4, seed=4)
dense, ours = declarative_gradient(a, upstream), polar_gradient(a, upstream)

# %% jupyter={"source_hidden": true}
say(f"Largest difference of an entry: {float((dense - ours).abs().max()):.0e}.")

# %% [markdown]
# Equal, but not in price. The reference code keeps $D$ as one small block, as all its blocks are the same; it does
# build $J$, and for that a commutation matrix on $\operatorname{vec}$ of $C \times C$ matrices. In float32, for
# $d = 2048$:

# %% jupyter={"source_hidden": true}
def size(entries):
    power = int(math.log10(4 * entries) / 3)
    return f"{4 * entries / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


table(["classes", "Jacobian, $\\frac{C(C+1)}2 \\times dC$", "commutation matrix, $C^2 \\times C^2$", "saved for (1)"],
      [[c, size(c * (c + 1) // 2 * 2048 * c), size(c**4), size(2048 * (c - 1) + (c - 1) + (c - 1) ** 2)]
       for c in (10, 100, 1000)], text=0)

# %% [markdown]
# At ten classes nobody would notice. At a thousand the second path needs terabytes; the authors' code has a comment for
# such cases, which switches it off and lets the gradient run through the features alone. With (1) nothing need be
# switched off.
#
# ## 3. Against finite differences
#
# Two formulas can agree and both be wrong. `gradcheck` compares every entry of the Jacobian with central differences in
# float64, here also at the awkward places: repeated singular values, an exact ETF, the whole map from class means to
# classifier.

# %%
before = ncbook.simplex_etf(4, 6, dtype=torch.float64)
repeated = torch.linalg.qr(gaussian(6, 3))[0] * torch.tensor([2.0, 1, 1], dtype=torch.float64)
pulled = partial(ncbook.nearest_simplex_etf, previous=before, proximal=0.5)
checks = {"polar factor": (ncbook.polar_factor, gaussian(6, 3)), "… square": (ncbook.polar_factor, gaussian(4, 4)),
          "… at repeated singular values": (ncbook.polar_factor, repeated),
          "nearest ETF": (ncbook.nearest_simplex_etf, gaussian(4, 6)), "… with a pull": (pulled, gaussian(4, 6)),
          "… of an exact ETF": (ncbook.nearest_simplex_etf, 3 * before + 1)}
passed = {name: torch.autograd.gradcheck(function, point.clone().requires_grad_())
          for name, (function, point) in checks.items()}

# %% jupyter={"source_hidden": true}
point = gaussian(6, 9, seed=5)
gradient = polar_gradient(point, gaussian(6, 9, seed=6), ncbook.nearest_simplex_etf)
along = {"a common shift": gradient.sum(0).abs().max(),
         "a common scale": (gradient * (point - point.mean(0))).sum().abs()}
table(["gradcheck", ""], [[name, "passed" if good else "failed"] for name, good in passed.items()], text=2)
table(["moving all class means by", "component of the gradient"],
      [[name, f"{float(x):.0e}"] for name, x in along.items()])

# %% [markdown]
# The last table is a check of another kind: the nearest ETF sees neither a common shift nor a common scale of the class
# means, so the gradient must be orthogonal to both.
#
# ## 4. Why not through the SVD?
#
# Automatic differentiation takes the steps one by one, and the derivative of the singular *vectors* has denominators
# $s_i^2 - s_j^2$. Where two singular values coincide, the vectors are not even defined. Their product $UR^\top$ is, and
# on paper the infinities cancel, but not in floating point. At an exact simplex ETF *all* singular values coincide.
# *What will autograd return there?*

# %%
at_etf, upstream = torch.eye(6, 3), gaussian(6, 3, seed=7, dtype=torch.float32)
gradients = {"autograd through the SVD": polar_gradient(at_etf, upstream, polar_by_svd),
             "formula (1)": polar_gradient(at_etf, upstream)}

# %% jupyter={"source_hidden": true}
table(["gradient at an exact ETF", "finite entries", "of"],
      [[name, int(gradient.isfinite().sum()), gradient.numel()] for name, gradient in gradients.items()])
worst = {name: max(values) for name, values in errors.items()}
say(f"On the way there, in the first picture, the largest relative error of (1) is {worst['closed form']:.0e}.")

# %% [markdown]
# NaN is the honest case. The first picture shows the other: well before it, gradients whose leading digits are wrong,
# and that nothing complains about.
#
# ## 5. Where the frame is not unique
#
# (1) has one weakness left: $s_i + s_j$ and $s_k$ can vanish, when class means coincide or lie in a line. There the
# nearest frame is not unique, and no gradient is right. *What does the way there look like?* Two of six class means are
# moved together; here is the norm of the gradient that reaches the means.

# %%
means, W_previous = gaussian(6, 9, seed=1), ncbook.simplex_etf(6, 9, dtype=torch.float64)
gaps, upstream = torch.logspace(0, -6, 25, dtype=torch.float64), gaussian(6, 9, seed=14)
norms = {}
for rho in (0, etf.PROXIMAL, 0.5):
    pulled = partial(ncbook.nearest_simplex_etf, previous=W_previous, proximal=rho)
    norms[f"ρ = {rho:g}"] = []
    for gap in gaps:
        near = torch.cat((means[:1], means[:1] + gap * (means[1:2] - means[:1]), means[2:]))
        norms[f"ρ = {rho:g}"].append(float(polar_gradient(near, upstream, pulled).norm()))

# %% jupyter={"source_hidden": true}
fig = plots.curve_panels({"": {name: (gaps, values) for name, values in norms.items()}},
                         title="Two class means run together", x="distance of two class means, relative",
                         subtitle="norm of the gradient at the class means, without and with a pull ρ")
fig.update_xaxes(type="log", autorange="reversed", exponentformat="power", dtick=1)
fig.update_yaxes(type="log", exponentformat="power", dtick=1)

# %% [markdown]
# Without a pull the gradient grows like one over the distance, and rightly so: the closer the means, the faster the
# frame swings round when they move. A pull $\rho$ lifts the smallest singular value to about $\rho$ and the gradient
# stays below a level of the order $1/\rho$. Exactly at the degenerate point, directions whose singular value is zero to
# rounding get no gradient, which keeps all others finite and right.
#
# (In the plane, where $d = C - 1$, the outer term of (1) is absent and $s_1 + s_2$ does not vanish on a line: the frame
# of [the last chapter's first picture](05_nearest_etf.ipynb) turns at a moderate speed right up to its leap.)
#
# ## 6. A classifier head
#
# In training mode the head normalises its features to length $\tau$ (5 in the paper), $f = \tau h/\lVert h\rVert$,
# updates [moving averages](07_moving_averages.ipynb) of their class means, and takes the nearest ETF $W$ to these. With
# $\mu_G$ the mean of the averaged class means, the bias $b = -W \mu_G$ makes the logits $W(f - \mu_G)$. The gradient
# runs through $f$, $W$ and $b$.

# %%
show_code(ncbook.NearestETFHead._fit)

# %% [markdown]
# It takes the place of a model's last `nn.Linear`: the same two sizes, features in, logits out, no parameters. It wants
# the targets while training; in evaluation nothing depends on the batch.

# %%
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
head = ncbook.NearestETFHead(32, 10)
digits = ncbook.load_dataset("digits")
images, labels = digits.train_inputs[:64], digits.train_targets[:64]
loss = torch.nn.functional.cross_entropy(head(model(images), labels), labels)
loss.backward()  # through the SVD that made the classifier

# %% [markdown]
# A short run on the digits. *Its classifier is an exact simplex ETF from the first step on. What is left to learn?*

# %% jupyter={"source_hidden": true}
recipe = ncbook.Recipe(backbone="mlp", head="nearest", epochs=EPOCHS, seed=SEED, device="cpu")
snapshots = list(ncbook.train(recipe, data=digits))
rows = [shot.row() | {"test_error, %": 100 - shot.row()["test_accuracy"]} for shot in snapshots]
plots.metric_curves({"nearest": [rows]}, ["error, %", "etf_distance", "nc3"], split="test",
                    title="Digits with the nearest-ETF head")

# %% jupyter={"source_hidden": true}
last, exact = snapshots[-1], max(shot.train["weight_equiangular"] for shot in snapshots)
table(["epochs", "test accuracy, %", "largest deviation of the classifier's cosines from −1/9"],
      [[last.epoch, f"{100 * last.test['accuracy']:.1f}", f"{exact:.0e}"]], text=0)

# %% [markdown]
# The features: training moves them until the class means are close to an ETF (`etf_distance`) and in line with the
# classifier (NC3). Both go down together, because each step moves the classifier to the features, and the features to
# the classifier. How this compares with other heads is the question of [guided training](08_guided_training.ipynb).

# %% jupyter={"source_hidden": true}
# Checks of what the text says.
assert (dense - ours).abs().max() < 1e-10 and all(passed.values()) and max(along.values()) < 1e-12
assert gradients["autograd through the SVD"].isnan().any() and gradients["formula (1)"].isfinite().all()
upstream = gaussian(6, 3, seed=7, dtype=torch.float32)
truth = declarative_gradient(at_etf.double(), upstream.double())
assert torch.allclose(gradients["formula (1)"].double(), truth, atol=1e-6)
assert worst["closed form"] < 1e-5
for epsilon in epsilons:  # what the first picture takes for the truth is the declarative node's gradient
    point = exact_frame + epsilon * gaussian(12, 9, seed=0) / 10
    truth = declarative_gradient(point, gaussian(12, 9, seed=99))
    assert (polar_gradient(point, gaussian(12, 9, seed=99)) - truth).norm() < 1e-9 * truth.norm()
assert not all(value < 1e-3 for value in errors["autograd through the SVD"][8:])
free, weak, strong = norms.values()
assert 0.5 < math.log10(free[16] / free[12]) < 1.5 and max(strong) < max(weak) < free[16]
low_rank = gaussian(8, 2, seed=11) @ gaussian(2, 5, seed=12)
assert polar_gradient(low_rank, gaussian(8, 5, seed=13)).isfinite().all()
at_equal = polar_gradient(means[[0, 0, 2, 3, 4, 5]], gaussian(6, 9, seed=14), ncbook.nearest_simplex_etf)
assert at_equal.isfinite().all()
assert model[1].weight.grad.isfinite().all() and model[1].weight.grad.any()
assert last.test["accuracy"] > 0.9 and exact < 1e-5
assert all(last.test[key] < snapshots[0].test[key] / 3 for key in ("etf_distance", "nc3"))

# %% [markdown]
# ## Try it
#
# **1. Jitter.** A common remedy for the SVD's gradient is to add a little noise to the matrix. At an exact ETF in
# float32, which size of noise gives the best gradient, and how good is it?
#
# <details><summary>Solution</summary>
#
# With too little noise the NaN stays; with more, the differences of singular values are mostly rounding; with much, it
# is the gradient of another point. The best, between, has an error about a thousand times that of (1).
#
# ```python
# truth = declarative_gradient(exact_frame, gaussian(12, 9, seed=99))
# for size_ in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
#     noisy = (exact_frame + size_ * gaussian(12, 9, seed=2)).float()
#     found = polar_gradient(noisy, gaussian(12, 9, seed=99).float(), polar_by_svd)
#     print(size_, float((found - truth).norm() / truth.norm()))
# ```
# </details>
#
# **2. A strong pull.** Train with $\rho = 0.5$, which is what the published $\delta = 10^{-3}$ means for a thousand
# classes. Does it show in NC3?
#
# <details><summary>Solution</summary>
#
# Hardly, on the digits: compare with a second seed before believing a difference. At a standstill the pull changes
# nothing, since a frame that is pulled towards itself stays; it only delays the classifier while the class means turn.
#
# ```python
# for rho in (etf.PROXIMAL, 0.5):
#     trainer = ncbook.Trainer(recipe, data=digits)
#     trainer.head.proximal = rho
#     while not trainer.finished:
#         trainer.step()
#     print(rho, trainer.snapshot().train["nc3"], trainer.snapshot().test["accuracy"])
# ```
# </details>
#
# **3. Twice?** Newton's method, and penalties on gradients, need the second derivative. Try it.
#
# <details><summary>Solution</summary>
#
# It is refused, in words; a wrong number would be worse. Through the SVD one gets numbers, with differences of singular
# values to a higher power in their denominators.
#
# ```python
# try:
#     torch.autograd.functional.hessian(lambda a: ncbook.polar_factor(a)[0, 0], gaussian(4, 3))
# except NotImplementedError as error:
#     print(error)
# ```
# </details>
#
# ## Summary
#
# - $\partial L/\partial A = [U B + (I - UU^\top) G R S^{-1}] R^\top$ with $B_{ij} = (Y_{ij} - Y_{ji})/(s_i + s_j)$:
#   sums of singular values in the denominators, no differences.
# - It is the implicit gradient of the declarative node: the same two equations, equal to rounding on a small problem.
#   At a thousand classes it keeps 12 MB for the backward pass where the general systems need terabytes.
# - At an exact ETF autograd through the SVD returns NaN, and near it wrong digits; (1) keeps float32 accuracy
#   throughout.
# - Where class means coincide the gradient grows like one over their distance; a pull $\rho$ bounds it at the order
#   $1/\rho$.
# - As a head, the nearest ETF is exact from the first step, and training moves the features to it.
#
# ## References
#
# - S. Gould, R. Hartley, D. Campbell. *Deep Declarative Networks: A New Hope.* 2019.
#   [arXiv 1909.04866](https://arxiv.org/abs/1909.04866)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding Neural Collapse: Optimising Towards the Nearest Simplex Equiangular Tight
#   Frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
#
# **Next:** [Moving averages of the class means](07_moving_averages.ipynb).
