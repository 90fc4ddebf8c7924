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
# A classifier that makes no more mistakes on its training set could be left alone. It is common practice to go on: the
# loss still falls, and the test error often falls a little too. Papyan, Han and Donoho (2020) looked at what the last
# layer does in this *terminal phase of training* and found the same four things on every data set and network that they
# tried. This chapter trains a network on real images, watches the four things happen, computes each number by hand
# before it trusts the package with it, and ends with a model so simple that one can say in advance where it collapses
# to.
#
# *You will learn*
#
# - what the terminal phase is, and how within-class and between-class scatter add up;
# - NC1 to NC4: a definition, a picture, a formula and a few lines of code for each;
# - the relatives of these metrics in the literature, and what each sees that the others do not;
# - whether the test set collapses too;
# - why it happens: the unconstrained-features model, and a prediction of its end point that can be checked to four
#   digits;
# - how to measure a collapse without being fooled by rounding.

# %%
import math

import plotly.graph_objects as go
import torch

import ncbook
from ncbook import plots
from ncbook.book import profile, say, show_code, table
from ncbook.metrics import METRICS

DIGITS = dict(dataset="digits", backbone="mlp", weight_decay=1e-2, lr=0.03, batch_size=128)
MNIST = dict(dataset="mnist", backbone="resnet18", weight_decay=5e-4, lr=0.1, batch_size=128)
PROFILE, NETWORK, EPOCHS, FOUR_EPOCHS, FREE_STEPS = profile(
    quick=dict(NETWORK=DIGITS, EPOCHS=40, FOUR_EPOCHS=40, FREE_STEPS=250),
    book=dict(NETWORK=DIGITS, EPOCHS=300, FOUR_EPOCHS=150, FREE_STEPS=400),
    paper=dict(NETWORK=MNIST, EPOCHS=350, FOUR_EPOCHS=150, FREE_STEPS=400),
)
SEED = 0

# %% [markdown]
# The `paper` profile trains a ResNet-18 on MNIST for 350 epochs, after the original study (there the learning rate
# falls in two steps, here along a cosine). The others make do with a multilayer perceptron with batch normalisation on
# scikit-learn's digits and use a larger weight decay, which brings to 300 short epochs what a small one brings to many
# long ones. The classifier is a plain learned linear layer.
#
# ## 1. After the last mistake
#
# A network splits into a *backbone* and a *head*. The backbone maps the input $x_i$ to a **feature** $h_i \in
# \mathbb{R}^d$. The head, a linear classifier with weights $W \in \mathbb{R}^{C \times d}$ (row $w_c$ for class $c$)
# and bias $b \in \mathbb{R}^C$, decides for the class with the largest logit $w_c^\top h_i + b_c$. There are $N$
# samples, and $y_i \in \{1, \dots, C\}$ is the class of sample $i$.
#
# `ncbook.Trainer` runs a recipe step by step, and a snapshot holds every metric of this chapter, for the training and
# the test set. We keep all of the first 20 epochs and then each fifth.

# %%
recipe = ncbook.Recipe(**NETWORK, epochs=EPOCHS, seed=SEED)
trainer = ncbook.Trainer(recipe)


@torch.no_grad()
def features_of(inputs):
    trainer.backbone.eval()
    return torch.cat([trainer.head.embed(trainer.backbone(x)) for x in inputs.split(1000)]).double().cpu()


data = trainer.data
initial_features = features_of(data.train_inputs)
shots = [trainer.snapshot()]
while not trainer.finished:
    trainer.step()
    if trainer.steps % trainer.steps_per_epoch == 0 and (trainer.epoch <= 20 or trainer.epoch % 5 == 0):
        shots.append(trainer.snapshot())
start, end = shots[0], shots[-1]
terminal = next(shot.epoch for shot in shots if shot.train["accuracy"] > 0.9995)
print(f"training accuracy {end.train['accuracy']:.4f}, test accuracy {end.test['accuracy']:.4f}; "
      f"first recorded epoch with a training error below 0.05%: {terminal} of {EPOCHS}")
assert terminal < EPOCHS / 2 and end.train["accuracy"] > 0.99 and end.test["accuracy"] > 0.95

# %%
def on_both_sets(keys, title):
    fig = plots.metric_curves({"training set": [shots], "test set": [shots]}, keys, title=title,
                              split={"training set": "train", "test set": "test"})
    fig.add_vline(x=terminal, line=dict(color="#666666", width=1, dash="dot"))
    return fig.update_layout(title_subtitle_text="dotted: the terminal phase begins")


on_both_sets(["accuracy", "loss"], "Accuracy, and loss without weight decay")

# %% [markdown]
# Judged by the training error, everything after the dotted line is wasted. The rest of this chapter takes place to the
# right of it. Short relapses along the way are no accident of this page: networks with batch normalisation *and* weight
# decay are known for them (Lobacheva et al. 2021), and they disappear as the learning rate falls.
#
# *What do the features do meanwhile?* Ten class means span nine dimensions, so a picture has to be a projection, and it
# should be one that does not change from frame to frame. ncbook uses the coordinates in which the simplex ETF nearest
# to the class means stands still, and reads them along two fixed directions in which its ten vertices form a regular
# decagon. A projection can bring together what is apart, but it cannot pull apart what is together.

# %%
names = list(data.class_names)
plots.geometry_animation([*shots[:-1:3], end], class_names=names, title="Ten classes in the terminal phase")

# %% [markdown]
# Each class shrinks towards its mean (large dot), the means move to the corners (grey), and so do the classifier's
# weights (diamonds). This is **neural collapse**. The coming sections take it apart into four statements, NC1 to NC4.
#
# ## 2. Scatter: within, between, total
#
# *How much of the spread of the features is spread within classes?* Let $n_c$ be the number of samples of class $c$,
# and
#
# $$ \mu_c = \frac{1}{n_c} \sum_{i:\, y_i = c} h_i, \qquad \mu_G = \frac1C \sum_c \mu_c, \qquad
#    H = [\mu_1 - \mu_G, \ \dots, \ \mu_C - \mu_G] \in \mathbb{R}^{d \times C} . $$
#
# The within-class and the between-class covariance are
#
# $$ \Sigma_W = \frac1N \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top, \qquad
#    \Sigma_B = \frac1C \sum_c (\mu_c - \mu_G)(\mu_c - \mu_G)^\top = \frac1C H H^\top . $$
#
# When all classes are of the same size, $\mu_G$ is the mean of all features and the two add up to the total covariance
# around it, $\Sigma_T = \Sigma_W + \Sigma_B$: write $h_i - \mu_G = (h_i - \mu_{y_i}) + (\mu_{y_i} - \mu_G)$, and the
# cross terms vanish since deviations from a class mean sum to zero. Otherwise $\Sigma_B$ still counts each class once,
# not each sample, and the sum differs a little from the covariance of all samples. Both cases, in float64:

# %%
h, y = features_of(data.train_inputs), data.train_targets.cpu()
W, b = trainer.head.weight.detach().double().cpu(), trainer.head.bias.detach().double().cpu()
(N, d), C = h.shape, data.num_classes


def scatter(features, targets):
    means = torch.stack([features[targets == c].mean(0) for c in range(C)])
    centred, deviations = means - means.mean(0), features - means[targets]
    return deviations.T @ deviations / len(features), centred.T @ centred / C, torch.cov(features.T, correction=0)


smallest = int(torch.bincount(y).min())
balanced = torch.cat([(y == c).nonzero().flatten()[:smallest] for c in range(C)])
for name, chosen in (("equal classes", balanced), ("as they are", torch.arange(N))):
    S_W, S_B, S_T = scatter(h[chosen], y[chosen])
    gap = float((S_W + S_B - S_T).norm() / S_T.norm())
    print(f"{name:14} traces of S_W {S_W.trace():.5f}, S_B {S_B.trace():.5f}, S_T {S_T.trace():.5f}; gap {gap:.0e}")
    assert gap < (1e-12 if name == "equal classes" else 0.05)

# %% [markdown]
# From here on $\Sigma_T$ means $\Sigma_W + \Sigma_B$, with the classes as they are. In code, classes are rows: `H`
# below is the transpose $H^\top$ of the text, of shape `(C, d)`. The function `neural_collapse` computes all metrics at
# once. We do not trust it yet: `check` compares it with what we compute ourselves.

# %%
mu = torch.stack([h[y == c].mean(0) for c in range(C)])
mu_G = mu.mean(0)
H, deviations = mu - mu_G, h - mu[y]
values = ncbook.neural_collapse(h, y, W, b)


def check(**by_hand):
    for key, value in by_hand.items():
        print(f"{key:20} by hand {float(value):<12.6g} package {values[key]:.6g}")
        assert math.isclose(float(value), values[key], rel_tol=1e-6, abs_tol=1e-12), key

# %% [markdown]
# ## 3. NC1: the classes become points
#
# **Variability collapse**: $\Sigma_W \to 0$. As features can be of any scale, small has to mean small compared with
# $\Sigma_B$, direction by direction. Papyan et al. use
#
# $$ \mathrm{NC1} = \frac1C \operatorname{tr}\big(\Sigma_W \Sigma_B^+\big), $$
#
# where $^+$ is the pseudo-inverse, as $\Sigma_B$ has rank $C-1$ at most. It sees just the scatter within the span of
# the centred means, weighs each direction there by how far the means spread in it, and does not change under invertible
# linear maps of that span. The quotient of the traces is coarser and needs no inverse,
#
# $$ \frac{\operatorname{tr} \Sigma_W}{\operatorname{tr} \Sigma_B} . $$
#
# The $d \times d$ pseudo-inverse can be avoided. Let $Q \in \mathbb{R}^{C \times (C-1)}$ have orthonormal columns
# orthogonal to the ones vector (chapter 02 constructs it) and $A = HQ$. Since $H Q Q^\top = H$, we have $\Sigma_B =
# \frac1C A A^\top$, hence $\mathrm{NC1} = \operatorname{tr}(\Sigma_W (A A^\top)^+) = \frac1N \sum_i \lVert A^+ (h_i -
# \mu_{y_i}) \rVert^2$.

# %%
check(nc1=torch.trace(S_W @ torch.linalg.pinv(S_B, hermitian=True)) / C, nc1_quotient=S_W.trace() / S_B.trace())
A = H.T @ ncbook.helmert_basis(C, dtype=torch.float64)
check(nc1=(torch.linalg.pinv(A) @ deviations.T).square().sum() / N)

# %% [markdown]
# *When does it fall, and does it fall on images that the network was not trained on?*

# %%
at_terminal = next(shot for shot in shots if shot.epoch == terminal)
assert end.train["nc1"] < 0.5 * at_terminal.train["nc1"] < at_terminal.train["nc1"] < start.train["nc1"]
assert end.train["nc1"] < end.test["nc1"]
on_both_sets(["nc1", "nc1_quotient", "numerical_rank"], "Within-class scatter over training")

# %%
before, turn, after = (shot.train["nc1"] for shot in (start, at_terminal, end))
say(f"NC1 falls from {before:.2g} to {turn:.2g} before the terminal phase, and in it, with hardly an error left to "
    f"correct, by another factor of {turn / after:.0f}, to {after:.2g}. On the test set it ends at {end.test['nc1']:.2g} "
    "(section 8).")

# %% [markdown]
# The third panel is a relative of NC1, the **numerical rank** of the features $X_c \in \mathbb{R}^{n_c \times d}$ of a
# class, averaged over classes: $(\lVert X_c \rVert_* / \lVert X_c \rVert_F)^2$, with the nuclear norm (the sum of the
# singular values) over the Frobenius norm. It is 1 when all features of a class lie on one line through the origin, and
# so it is under NC1. (An untrained network can have a low rank too, when all its features point in nearly the same
# direction: a low rank alone proves nothing.)

# %%
ranks = [(torch.linalg.matrix_norm(h[y == c], "nuc") / torch.linalg.matrix_norm(h[y == c])) ** 2 for c in range(C)]
check(numerical_rank=sum(ranks) / C)

# %% [markdown]
# ## 4. NC2: the means become a simplex ETF
#
# *Where do the points go?* **Convergence to a simplex ETF**: the centred class means get equal lengths, and equal
# angles as large as possible,
#
# $$ \lVert \mu_c - \mu_G \rVert = \lVert \mu_{c'} - \mu_G \rVert, \qquad
#    \cos(\mu_c - \mu_G,\, \mu_{c'} - \mu_G) = -\frac{1}{C-1} \quad (c \ne c'). $$
#
# No set of $C$ directions has all its cosines below $-1/(C-1)$; chapter 02 proves it in two lines. Here are the
# cosines before and after training:

# %%
plots.cosine_heatmaps({"before training": start.class_means, f"after {EPOCHS} epochs": end.class_means},
                      class_names=names, title="Cosines between centred class means", width=940, height=500)

# %% [markdown]
# Two numbers measure the two halves of the definition: the coefficient of variation of the lengths, and the mean
# deviation of the cosines,
#
# $$ \frac{\operatorname{std}_c \lVert \mu_c - \mu_G \rVert}{\operatorname{mean}_c \lVert \mu_c - \mu_G \rVert}, \qquad
#    \operatorname*{mean}_{c \ne c'} \Big\lvert \cos(\mu_c - \mu_G,\, \mu_{c'} - \mu_G) + \frac1{C-1} \Big\rvert . $$
#
# Two others look at both at once. The Gram matrix of an ETF is proportional to the centring matrix $M = I - \frac1C
# \mathbf 1 \mathbf 1^\top$, whose Frobenius norm is $\sqrt{C-1}$, which gives $\lVert H^\top H / \lVert H^\top H
# \rVert_F - M / \sqrt{C-1} \rVert_F$. And the squared distance of $H / \lVert H \rVert_F$ to the nearest of all simplex
# ETFs of norm 1, turned as suits $H$ best, is $2 - 2 \lVert HQ \rVert_* / (\sqrt{C-1}\, \lVert HQ \rVert_F)$: chapter
# 02 derives it.

# %%
lengths = H.norm(dim=1)
cosines = H @ H.T / lengths.outer(lengths)
off_diagonal = ~torch.eye(C, dtype=torch.bool)
check(nc2_equinorm=lengths.std(correction=0) / lengths.mean(),
      nc2_equiangular=(cosines + 1 / (C - 1))[off_diagonal].abs().mean())

M = torch.eye(C, dtype=torch.float64) - 1 / C
gram = H @ H.T
check(nc2_gram=(gram / gram.norm() - M / math.sqrt(C - 1)).norm(),
      etf_distance=2 - 2 * torch.linalg.matrix_norm(A, "nuc") / (math.sqrt(C - 1) * A.norm()))

# %%
assert end.train["etf_distance"] < at_terminal.train["etf_distance"]
on_both_sets(["nc2_equinorm", "nc2_equiangular", "etf_distance"], "From class means to a simplex ETF")

# %%
say("The distance to the nearest ETF before training, when the terminal phase begins, and after training: "
    + ", ".join(f"{shot.train['etf_distance']:.2g}" for shot in (start, at_terminal, end))
    + f". In the end the cosines miss $-1/{C - 1}$ by {end.train['nc2_equiangular']:.2g} on average.")

# %% [markdown]
# NC2 is usually the slowest of the four, and it is not finished here. It also starts from a better place than one may
# think: *before* training, when classes are hardly apart, their means may already point in quite different directions.
# A small NC2 without a small NC1 says little.
#
# ## 5. NC3: the classifier follows
#
# *Where do the weights go?* **Self-duality**: means and weights are different objects, one a statistic of the features
# and the other a parameter, yet up to a common scale they become the same matrix,
#
# $$ \mathrm{NC3} =
#    \left\lVert \frac{W^\top}{\lVert W \rVert_F} - \frac{H}{\lVert H \rVert_F} \right\rVert_F^2 \to 0 . $$
#
# The matrices have norm 1, so this is $2 - 2$ times their inner product: 2 when they have nothing to do with each
# other, 0 when they agree. A second form takes the Gram matrix of NC2 with weights on one side, $\lVert W H / \lVert W
# H \rVert_F - M / \sqrt{C-1} \rVert_F$. The rows of $W$ have lengths and angles of their own. And for the bias there is
# $\lVert W \mu_G + b \rVert$, the size of the logits at the centre $\mu_G$: where they vanish, the centre is a point of
# perfect indecision.

# %%
check(nc3=(W / W.norm() - H / H.norm()).square().sum())
check(nc3=2 - 2 * (W * H).sum() / (W.norm() * H.norm()))

dual_gram, weight_lengths = W @ H.T, W.norm(dim=1)
weight_cosines = W @ W.T / weight_lengths.outer(weight_lengths)
check(nc3_gram=(dual_gram / dual_gram.norm() - M / math.sqrt(C - 1)).norm(),
      weight_equinorm=weight_lengths.std(correction=0) / weight_lengths.mean(),
      weight_equiangular=(weight_cosines + 1 / (C - 1))[off_diagonal].abs().mean(),
      bias_collapse=(W @ mu_G + b).norm())

# %% [markdown]
# ## 6. NC4: the nearest class mean decides
#
# *What does the classifier compute in the end?* Under NC2 and NC3, $w_c = \alpha (\mu_c - \mu_G)$ for some $\alpha > 0$
# and all lengths are equal. If the logits at $\mu_G$ are equal too, then
#
# $$ \operatorname*{arg\,max}_c \ w_c^\top h + b_c \;=\; \operatorname*{arg\,min}_c \ \lVert h - \mu_c \rVert . $$
#
# **Simplification to nearest class mean**: expand $\lVert h - \mu_c \rVert^2 = \lVert h - \mu_G \rVert^2 - 2 (\mu_c -
# \mu_G)^\top (h - \mu_G) + \lVert \mu_c - \mu_G \rVert^2$. The first term is the same for all classes, and so is the
# last if the lengths are equal. NC4 is the share of samples for which the two decisions differ.

# %%
decided = (h @ W.T + b).argmax(1)
check(nc4=(decided != torch.cdist(h, mu).argmin(1)).double().mean(), accuracy=(decided == y).double().mean())

assert end.train["nc3"] < at_terminal.train["nc3"] < start.train["nc3"] and end.train["nc4"] < 0.01
on_both_sets(["nc3", "nc4", "bias_collapse"], "The classifier follows the class means")

# %% [markdown]
# NC4 is the easiest of the four: where the classifier and the nearest class mean both decide rightly, they agree. It
# can vanish long before the other three have gone far, so it tells least about how far a collapse has come.
#
# ## 7. Four classes, without a projection
#
# Four class means span three dimensions, and these can be drawn. Here the network sees the digits 0 to 3 only; its
# features still have many dimensions, but the picture shows the space of the class means as it is. Press Play; the
# figure turns with the mouse.

# %%
four_digits = ncbook.Recipe(dataset="digits", classes=4, backbone="mlp", weight_decay=1e-2, lr=0.05, batch_size=128,
                            epochs=FOUR_EPOCHS, seed=SEED)
four = list(ncbook.train(four_digits, every=max(1, FOUR_EPOCHS // 20)))
assert four[-1].train["etf_distance"] < 0.1 * four[0].train["etf_distance"]
plots.geometry_animation(four, class_names=list("0123"), title="Four classes of digits become a tetrahedron")

# %% [markdown]
# ## 8. Does the test set collapse?
#
# The curves above show both sets. Accuracy on new images is high, so their features must lie near the right means. But
# near is not *at*:

# %%
test_h, test_y = features_of(data.test_inputs), data.test_targets.cpu()
spread = {}
for name, features, targets in (("training", h, y), ("test", test_h, test_y)):
    means = torch.stack([features[targets == c].mean(0) for c in range(C)])
    spread[name] = ((features - means[targets]).square().sum(1) / S_B.trace()).sort(descending=True).values
table(["set", "NC1", "scatter quotient", "median sample", "share of the farthest 5%"],
      [[name, metrics["nc1"], metrics["nc1_quotient"], float(spread[name].median()),
        f"{float(spread[name][:len(spread[name]) // 20].sum() / spread[name].sum()):.0%}"]
       for name, metrics in (("training", end.train), ("test", end.test))])
assert spread["test"].mean() > spread["training"].mean()
# %% [markdown]
# (*Median sample*: the squared distance of a median sample to its class mean, divided by $\operatorname{tr} \Sigma_B$
# of the training set. *Share*: the part of all within-class scatter that belongs to these samples.)
#
# So the honest answer is: not as the training set does. Test scatter falls while the network learns to separate the
# classes. Then it levels off, while on the training set it keeps falling. Two things keep it up: the median test
# image lies further from its class mean than the median training image, and a few images, farther out still, carry a
# large part of the scatter. Papyan et al. state their findings for the training set. Hui, Belkin and Nakkiran (2022)
# argue that collapse on the test set should be kept apart from it and does not happen in general, and Galanti, György
# and Hutter (2022) show when what is true of the training samples carries over to new samples and even to new classes,
# as the number of samples grows. Neural collapse is above all a fact about optimisation; what it does for
# generalisation is a question, to which chapters 08 and 11 return with experiments.
#
# ## 9. The relatives
#
# Other papers measure the same phenomenon in other ways, each with a reason.
#
# **CDNV**, the class-distance normalised variance (Galanti et al. 2022), looks at pairs of classes: with $v_c =
# \frac1{n_c} \sum_{i:\, y_i = c} \lVert h_i - \mu_c \rVert^2$,
#
# $$ \mathrm{CDNV} = \operatorname*{mean}_{c \ne c'} \frac{v_c + v_{c'}}{2 \lVert \mu_c - \mu_{c'} \rVert^2} . $$
#
# One pair of classes that stay close to each other makes it large, which the scatter quotient would average away.
#
# **VCI**, the variability collapse index (Xu and Liu 2023), is $1 - \operatorname{tr}(\Sigma_T^+ \Sigma_B) / \min(d,
# C-1)$, in $[0, 1]$. It is the mean squared error of the best linear regression onto balanced class labels, up to
# scale, and does not change under any invertible linear map of the features. Invariance has its price: directions with
# hardly any variance count as much as all others, and the smallest eigenvalues of $\Sigma_T$ can drown in the rounding
# of the largest. So we do not form $\Sigma_T$. It is $B^\top B$ for the stacked matrix $B$ with rows $(h_i -
# \mu_{y_i})^\top/\sqrt N$ and $(\mu_c - \mu_G)^\top/\sqrt C$, and with the thin SVD $B = U S V^\top$,
# $\operatorname{tr}(\Sigma_T^+ \Sigma_B)$ is the squared norm of the last $C$ rows of $U$.
#
# **The cosine margin** asks how safely samples are decided by angle alone. With $\bar w$ the mean of the rows of $W$,
#
# $$ \operatorname*{mean}_i \Big[ \cos(h_i - \mu_G,\, w_{y_i} - \bar w)
#    - \max_{c \ne y_i} \cos(h_i - \mu_G,\, w_c - \bar w) \Big] \ \to\ 1 + \frac1{C-1} = \frac{C}{C-1} . $$

# %%
v = torch.stack([deviations[y == c].square().sum(1).mean() for c in range(C)])
pairs = torch.combinations(torch.arange(C))
cdnv = torch.stack([(v[i] + v[j]) / (2 * (mu[i] - mu[j]).square().sum()) for i, j in pairs]).mean()
stacked = torch.cat([deviations / math.sqrt(N), H / math.sqrt(C)])
u, s, _ = torch.linalg.svd(stacked, full_matrices=False)
check(cdnv=cdnv, vci=1 - u[N:, s > 1e-12 * s[0]].square().sum() / min(d, C - 1))
literal = 1 - float(torch.trace(torch.linalg.pinv(S_W + S_B, hermitian=True) @ S_B)) / min(d, C - 1)
print(f"VCI by the pseudo-inverse of S_T in float64: {literal:.6g}, relative error {literal / values['vci'] - 1:.0e}")

directions = torch.nn.functional.normalize(W - W.mean(0))
angles = torch.nn.functional.normalize(h - mu_G) @ directions.T
own = angles[torch.arange(N), y]
angles[torch.arange(N), y] = -torch.inf
check(cosine_margin=(own - angles.amax(1)).mean())

# %% [markdown]
# ## 10. Why does it happen?
#
# A network that fits its training set perfectly could place the features in countless ways. Why this one? A deep
# backbone is flexible, so take flexibility to the limit: forget the network, and let every feature $h_i$ be a free
# parameter. This is the **unconstrained-features model** (Mixon, Parshall and Pi 2020; with other names and losses in
# Fang et al. 2021, Lu and Steinerberger 2022). With cross-entropy and weight decay $\lambda$, balanced classes of $n =
# N/C$ samples:
#
# $$ \min_{W, b, h_1, \dots, h_N} \
#    \frac1N \sum_i \Big[ \log \sum_c e^{w_c^\top h_i + b_c} - (w_{y_i}^\top h_i + b_{y_i}) \Big]
#    + \frac\lambda2 \Big( \lVert W \rVert_F^2 + \sum_i \lVert h_i \rVert^2 + \lVert b \rVert^2 \Big) . \tag{1} $$
#
# Not convex, yet Zhu et al. (2021) prove for $d > C$ that *every* local minimum is global, that all other critical
# points are saddles with a direction of descent, and that the global minima are exactly the collapsed configurations.
# The argument for their shape is one of thrift: size costs, so what is spent on $W$ and $h_i$ must buy as much margin
# as it can; spread within a class buys nothing, and by symmetry and convexity no class deserves more than another.
#
# Granted the shape, the size is a problem in one variable. Let $e_1, \dots, e_C$ be a simplex ETF of unit vectors. Put
# $h_i = a\, e_{y_i}$ and $w_c = a \sqrt n\, e_c$, $b = 0$; the factor $\sqrt n$ balances $\lVert W \rVert_F^2 = \sum_i
# \lVert h_i \rVert^2 = N a^2$, as it must be at a minimum (otherwise, shift scale from one to the other). The logit of
# the right class exceeds the others by $a^2 \sqrt n\, (1 + \frac{1}{C-1}) = \kappa s$ with $s = a^2$, $\kappa = \sqrt
# n\, \frac{C}{C-1}$, and (1) becomes
#
# $$ f(s) = \log\!\big(1 + (C-1) e^{-\kappa s}\big) + \lambda N s, \qquad f'(s) = 0 \iff
#    p := \frac{(C-1) e^{-\kappa s}}{1 + (C-1) e^{-\kappa s}} = \frac{\lambda N}{\kappa} . $$
#
# $f$ is convex, and $p$ is the probability that the model still gives to the wrong classes. So the final cross-entropy
# is $-\log(1-p)$, the features have the norm
#
# $$ a = \sqrt{ \tfrac1\kappa \log \tfrac{(C-1)(1-p)}{p} } , $$
#
# and everything collapses to 0 if $p \ge 1 - 1/C$, that is if $\lambda \ge \sqrt n / N$. Predictions first, then the
# experiment: $C = 10$ classes, $d = 512$, $N = 1000$ free vectors, plain gradient descent with momentum on all of them
# at once.

# %%
decay, free_N, free_C = 1e-3, 1000, 10
n = free_N // free_C
kappa = math.sqrt(n) * free_C / (free_C - 1)
p = decay * free_N / kappa
predicted_norm = math.sqrt(math.log((free_C - 1) * (1 - p) / p) / kappa)
free = list(ncbook.train(ncbook.Recipe(dataset="unconstrained", backbone="free_features", batch_size=free_N, lr=10,
                                       lr_decay="constant", weight_decay=decay, epochs=FREE_STEPS, seed=SEED), every=5))
last = free[-1]
measured = {"cross-entropy": (-math.log1p(-p), last.train["loss"]),
            "norm of a feature": (predicted_norm, float(last.features.norm(dim=1).mean())),
            "norm of a weight vector": (predicted_norm * math.sqrt(n), float(last.weight.norm(dim=1).mean()))}
for name, (predicted, found) in measured.items():
    print(f"{name:24} predicted {predicted:.5f}   found {found:.5f}")
    assert math.isclose(predicted, found, rel_tol=1e-3)

# %%
assert last.train["nc1"] < 1e-10 and last.train["etf_distance"] < 1e-10 and last.train["nc3"] < 1e-9
keys = ["nc1", "nc2_equinorm", "nc2_equiangular", "etf_distance", "nc3", "nc3_gram"]
fig = plots.metric_curves({"free": [free]}, keys, title="Collapse of the unconstrained-features model")
fig.update_layout(showlegend=False, title_subtitle_text="free features in float32; an epoch is one gradient step")

# %% [markdown]
# From a random start, gradient descent goes where the theory says, and stops when it must: features in float32 carry a
# relative rounding error of about $10^{-7}$, so the ratios of lengths settle near that, and the squared quantities
# (NC1, NC3, the distance) near its square.
#
# This explains what the minimum looks like, and that it is easy to find once features can be moved freely. It does not
# explain when a real network is that free. The digits' network is decayed in all its layers and not in its features, it
# shares its parameters between samples, and it has not arrived. What it shares with the model is the direction of
# travel.
#
# ## 11. All keys in one table
#
# Sections 3 to 9 have the formulas. The last columns are: the network before training, after it, on the test set after
# it, and the unconstrained model after its last step.

# %%
ends = (start.train, end.train, end.test, last.train)
table(["key", "metric", "limit", "before", "after", "test, after", "unconstrained"],
      [[f"`{key}`", METRICS[key].label, METRICS[key].limit(C), *(metrics[key] for metrics in ends)] for key in values],
      text=2)

# %% [markdown]
# ## 12. Measuring without being fooled
#
# A collapse is a subtraction of nearly equal numbers, the situation in which floating point is at its worst. Three
# habits keep the numbers right.
#
# **Merge centred moments.** A large training set does not fit in memory as features, so statistics must be gathered
# batch by batch. The tempting way keeps sums of $h$ and of $h h^\top$ and subtracts at the end, $\mathbb{E}[h h^\top] -
# \mathbb{E}[h]\,\mathbb{E}[h]^\top$: two numbers of size $\lVert\mu\rVert^2$ whose difference is the tiny scatter.
# Instead, keep for each class the count $n$, the mean $m$ and the scatter $S$ *around that mean*, and merge two groups
# by (Chan, Golub and LeVeque 1983)
#
# $$ m = m_1 + \frac{n_2}{n_1 + n_2} (m_2 - m_1), \qquad
#    S = S_1 + S_2 + \frac{n_1 n_2}{n_1 + n_2} (m_2 - m_1)(m_2 - m_1)^\top , $$
#
# in which nothing large is ever subtracted. The package does just this:

# %%
show_code(ncbook.NeuralCollapse._merge_moments)

# %% [markdown]
# With it, batches of any size and order give what one batch gives. `update` takes them as they come, and `merge` adds
# the state of another process.

# %%
streamed = ncbook.NeuralCollapse(C, d)
order = torch.randperm(N, generator=torch.Generator().manual_seed(SEED))
for batch in order.split(97):
    streamed.update(h[batch], y[batch])
by_stream = streamed.compute(W, b)
difference = max(abs(by_stream[key] - values[key]) / max(abs(values[key]), 1e-12) for key in values)
print(f"{len(order.split(97))} batches against one: largest relative difference of a metric {difference:.0e}")
assert difference < 1e-6

# %% [markdown]
# *How bad is the tempting way?* One cloud of 500 points around a mean of norm 1, with smaller and smaller spread,
# rounded to float32 as features are. The truth is computed with centred moments in float64.

# %%
generator = torch.Generator().manual_seed(SEED)
noise = torch.randn(500, 16, generator=generator, dtype=torch.float64)
noise = noise / noise.square().sum(1).mean().sqrt()
centre = torch.nn.functional.normalize(torch.randn(1, 16, generator=generator, dtype=torch.float64))
spreads = [10 ** (-k / 2) for k in range(13)]


def tempting(x):
    return x.square().mean(0).sum() - x.mean(0).square().sum()


def centred_moments(x):
    return (x - x.mean(0)).square().mean(0).sum()


def streamed_moments(x):
    state = ncbook.NeuralCollapse(2, 16)
    for batch in x.split(100):
        state.update(torch.cat([batch, batch + 1]), torch.arange(2).repeat_interleave(len(batch)))
    return state._variation[0] / len(x)


ways = {"E[x²] − E[x]², float32": (tempting, torch.float32), "E[x²] − E[x]², float64": (tempting, torch.float64),
        "centred, float32": (centred_moments, torch.float32), "ncbook, five batches": (streamed_moments, torch.float64)}
errors = {name: [] for name in ways}
for size in spreads:
    cloud = (centre + size * noise).float()
    truth = float(centred_moments(cloud.double()))
    for name, (way, dtype) in ways.items():
        errors[name].append(max(abs(float(way(cloud.to(dtype))) - truth) / truth, 1e-16))
assert max(errors["ncbook, five batches"]) < 1e-8 and max(errors["E[x²] − E[x]², float32"]) > 1
assert errors["E[x²] − E[x]², float64"][-1] > 100 * errors["ncbook, five batches"][-1]

fig = go.Figure()
for (name, error), dash in zip(errors.items(), ("dash", "dashdot", "dot", "solid")):
    fig.add_scatter(x=spreads, y=error, name=name, mode="lines", line_dash=dash)
fig.add_hline(y=1, line=dict(color="#666666", width=1, dash="dot"))
log = dict(type="log", exponentformat="power")
fig.update_xaxes(title="spread / norm of the mean (collapse goes to the right)", autorange="reversed", dtick=1, **log)
fig.update_yaxes(title="relative error", dtick=4, **log)
plots.finish(fig, "Error of the within-class variance as a class collapses",
             "relative; at the dotted line the error is as large as the number", width=820)

# %% [markdown]
# In float32 the tempting formula loses everything long before a class is a point. Float64 postpones that. Centred
# moments in float64 avoid it; in float32 they still lose digits, because the mean itself is rounded.
#
# **Never mix precisions around a pseudo-inverse.** $\Sigma_B$ has rank $C-1$. Computed in float32, its other $d - C +
# 1$ eigenvalues are not 0 but rounding errors of relative size $10^{-8}$. A pseudo-inverse in float64 has a cut-off
# near $10^{-14}$, takes them for signal and inverts them:

# %%
for name, features in (("before training", initial_features), ("after training", h)):
    exact = ncbook.neural_collapse(features, y)["nc1"]
    within, between, _ = (covariance.double() for covariance in scatter(features.float(), y))
    mixed = float(torch.trace(within @ torch.linalg.pinv(between, hermitian=True)) / C)
    print(f"NC1 {name:16} exact {exact:.4g}   float32 covariances, float64 pseudo-inverse {mixed:.4g}")
    assert abs(mixed - exact) > 0.1 * exact

# %% [markdown]
# The form with $A^+$ from section 3 is safe: $A$ is a $d \times (C-1)$ matrix of full rank with nothing to cut off, and
# no $d \times d$ matrix is ever inverted.
#
# **Compare in evaluation mode, on all samples.** Batch normalisation makes the features of a training-mode batch depend
# on one another, and class means of a small batch follow its noise. All metrics of this book come from features in
# evaluation mode, from the whole set, in float64.
#
# ## Try it
#
# **1. Weight decay.** Train the network of section 1 with `weight_decay=5e-4`, a more usual value, for the same number
# of epochs. Which of NC1 to NC4 change most?
#
# <details><summary>Solution</summary>
#
# ```python
# other = list(ncbook.train(replace(recipe, weight_decay=5e-4), every=EPOCHS))[-1]
# for key in ("accuracy", "loss", "nc1", "nc2_equiangular", "etf_distance", "nc3", "nc4"):
#     print(f"{key:16} {end.train[key]:10.3g} {other.train[key]:10.3g}")
# ```
#
# The training set is fitted as well and the loss is lower, but NC1, NC2 and NC3 have all come much less far; only NC4
# cannot tell the two runs apart. With a low price on size, the quickest way to a lower loss is larger logits, and
# little is gained by being symmetric. Given more time it comes closer: time and weight decay can replace each other to
# some degree.
#
# </details>
#
# **2. The threshold.** Section 10 predicts that for $\lambda \ge \sqrt n / N$ the unconstrained model collapses to
# *zero*. Check both sides of it.
#
# <details><summary>Solution</summary>
#
# ```python
# threshold = math.sqrt(n) / free_N
# for factor in (0.8, 1.2):
#     near = ncbook.Recipe(dataset="unconstrained", backbone="free_features", batch_size=free_N, lr=1, epochs=800,
#                          lr_decay="constant", weight_decay=factor * threshold)
#     decayed = list(ncbook.train(near, every=800))[-1]
#     print(factor, decayed.features.norm(dim=1).mean(), decayed.train["loss"], math.log(free_C))
# ```
#
# Above the threshold all features vanish and the loss is $\log C$, that of a guess. Below it they keep the predicted
# norm.
#
# </details>
#
# **3. Unequal classes.** Take the unconstrained model with classes of very different sizes. What happens to NC2? (Hint:
# `ncbook.Trainer(recipe, data=...)` takes a data set of your own.)
#
# <details><summary>Solution</summary>
#
# ```python
# sizes = torch.tensor([500] * 2 + [10] * 2)
# targets = torch.arange(4).repeat_interleave(sizes)
# unequal = ncbook.Dataset("unequal", torch.arange(len(targets)), targets, None, None, tuple("abcd"))
# minority = ncbook.Recipe(dataset="unconstrained", backbone="free_features", feature_dim=16, lr=5, epochs=600,
#                          batch_size=len(targets), lr_decay="constant", weight_decay=1e-3)
# shot = list(ncbook.train(minority, data=unequal, every=600))[-1]
# print({key: round(shot.train[key], 4) for key in ("nc1", "nc2_equinorm", "nc2_equiangular", "accuracy")})
# print(torch.nn.functional.cosine_similarity(shot.weight[:, None], shot.weight, dim=-1))
# ```
#
# Classes still become points, but not the corners of a regular simplex: two large classes keep almost opposite weight
# vectors, while the angle between those of the two small ones falls to about 90° or less. Make the small classes
# smaller and it goes on falling. In the layer-peeled model of Fang et al. (2021) it reaches 0 at a finite ratio of the
# sizes: *minority collapse*. The simplex ETF is a statement about balanced data.
#
# </details>
#
# ## Summary
#
# - In the terminal phase the training error is 0 and the last layer still changes: scatter within classes shrinks
#   (NC1), class means approach a simplex ETF (NC2), weights line up with means (NC3), decisions become those of the
#   nearest mean (NC4).
# - Every one of these is a few lines of linear algebra; `ncbook.neural_collapse` returns them all,
#   `ncbook.NeuralCollapse` gathers them over batches.
# - No single number proves a collapse: NC2 and the numerical rank can be small before training, NC4 long before its
#   end. Look at NC1 and NC2 together.
# - The test set follows only part of the way.
# - Free features, cross-entropy and weight decay suffice for all four, down to rounding, at a size that can be
#   predicted in closed form.
# - Measure with centred moments, in float64, and invert nothing that has no full rank.
#
# Next: [02 Simplex ETF](02_simplex_etf.ipynb), the shape itself.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* Proceedings of the National Academy of Sciences 117 (40), 2020. [arXiv
#   2008.08186](https://arxiv.org/abs/2008.08186)
# - D. G. Mixon, H. Parshall, J. Pi. *Neural collapse with unconstrained features.* 2020. [arXiv
#   2011.11619](https://arxiv.org/abs/2011.11619)
# - C. Fang, H. He, Q. Long, W. J. Su. *Exploring deep neural networks via layer-peeled model: minority collapse in
#   imbalanced training.* Proceedings of the National Academy of Sciences 118 (43), 2021. [arXiv
#   2101.12699](https://arxiv.org/abs/2101.12699)
# - Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu. *A geometric analysis of neural collapse with
#   unconstrained features.* NeurIPS 2021. [arXiv 2105.02375](https://arxiv.org/abs/2105.02375)
# - J. Lu, S. Steinerberger. *Neural collapse under cross-entropy loss.* Applied and Computational Harmonic Analysis 59,
#   2022. [arXiv 2012.08465](https://arxiv.org/abs/2012.08465)
# - T. Galanti, A. György, M. Hutter. *On the role of neural collapse in transfer learning.* ICLR 2022. [arXiv
#   2112.15121](https://arxiv.org/abs/2112.15121)
# - L. Hui, M. Belkin, P. Nakkiran. *Limitations of neural collapse for understanding generalization in deep learning.*
#   2022. [arXiv 2202.08384](https://arxiv.org/abs/2202.08384)
# - J. Xu, H. Liu. *Quantifying the variability collapse of neural networks.* ICML 2023. [arXiv
#   2306.03440](https://arxiv.org/abs/2306.03440)
# - E. Lobacheva, M. Kodryan, N. Chirkova, A. Malinin, D. Vetrov. *On the periodic behavior of neural network training
#   with batch normalization and weight decay.* NeurIPS 2021. [arXiv 2106.15739](https://arxiv.org/abs/2106.15739)
# - T. F. Chan, G. H. Golub, R. J. LeVeque. *Algorithms for computing the sample variance: analysis and
#   recommendations.* The American Statistician 37 (3), 1983.
