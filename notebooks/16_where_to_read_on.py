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
# # Further reading
#
# *What else is known about neural collapse, and what of it can be tried here?* This page lists two dozen papers by
# the question they ask, each with something to try with the tools of this book. Five of the trials are carried out on
# this page. The picture is the first: when classes are of unequal size, the simplex of the first chapters breaks, and
# the weight vectors of the small classes turn towards each other until, within a few steps of the ratio, they
# coincide.

# %% jupyter={"source_hidden": true}
# Imports; draw the angles between unequal classes
import plotly.graph_objects as go
import torch
from torch.nn.functional import cosine_similarity

import ncbook
from ncbook import Recipe, Trainer, plots, train


def angles_of_unequal_classes(small, large=200, weight_decay=5e-3):
    """Angles between the weights of two large classes, a large and a small one, and two small ones: free features."""
    targets = torch.arange(4).repeat_interleave(torch.tensor([large, large, small, small]))
    data = ncbook.Dataset("unequal", torch.arange(len(targets)), targets, None, None, tuple("abcd"))
    recipe = Recipe(dataset="unconstrained", backbone="free_features", feature_dim=16, batch_size=len(targets), lr=5,
                    lr_decay="constant", weight_decay=weight_decay, epochs=1000)
    weight = list(train(recipe, data=data, every=recipe.epochs))[-1].weight
    return cosine_similarity(weight[[0, 0, 2]], weight[[1, 2, 3]]).clamp(-1, 1).acos().rad2deg().tolist()


SMALL = (200, 100, 50, 20, 10, 7, 5, 4, 3)
unequal = torch.tensor([angles_of_unequal_classes(small) for small in SMALL])
fig = go.Figure()
for name, curve, dash, colour in zip(("two large classes", "a large and a small one", "two small classes"), unequal.T,
                                     ("solid", "dot", "solid"), ("#8C8C8C", "#8C8C8C", "#222222")):
    fig.add_scatter(x=[200 / small for small in SMALL], y=curve.numpy().round(2), name=name, mode="lines+markers",
                    line=dict(color=colour, dash=dash, width=2.5))
fig.update_xaxes(title="size of a large class / size of a small one", type="log", tickvals=[1, 2, 4, 10, 20, 40, 66.7],
                 ticktext=["1", "2", "4", "10", "20", "40", "67"])
fig.update_yaxes(title="angle, degrees", range=[-5, 185], dtick=45)
plots.finish(fig, "Minority collapse", "four classes of free features; angles between rows of W", width=720, height=380)

# %% [markdown]
# Why read further? Each chapter of this book rests on conditions: balanced classes, more dimensions than classes, a
# last layer, a training set. The papers below take these away one by one.
#
# *You will learn*
#
# - what happens with unequal, too many, and unlabelled classes;
# - what is left of the inputs in collapsed features, and what that means for transfer and for unknown inputs;
# - how collapse spreads over the layers, and where to find overviews.

# %% [markdown]
# ## Setup

# %% jupyter={"source_hidden": true}
# More imports, settings; helper: look at some epochs
from dataclasses import replace

from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score

from ncbook.book import median_range, profile, table

PROFILE, EPOCHS, SEEDS = profile({"EPOCHS": "epochs of a network", "SEEDS": "networks per trial"},
                                 quick=dict(EPOCHS=30, SEEDS=1), book=dict(EPOCHS=60, SEEDS=3),
                                 paper=dict(EPOCHS=200, SEEDS=5))
DIGITS = dict(dataset="digits", backbone="mlp", weight_decay=1e-2, lr=0.01, batch_size=128, epochs=EPOCHS)
WHEN = (0, 5, EPOCHS // 3, EPOCHS)


def visit(trainer, look):
    """What `look` returns before training and after some of the epochs, those of WHEN."""
    seen = []
    for epoch in range(EPOCHS + 1):
        if epoch in WHEN:
            trainer.backbone.eval()
            with torch.no_grad():
                seen.append(look(trainer))
        if epoch < EPOCHS:
            trainer.run_epoch()
    return seen

# %% [markdown]
# ## 1. Unequal classes
#
# - C. Fang, H. He, Q. Long, W. J. Su. *Exploring deep neural networks via layer-peeled model: minority collapse in
#   imbalanced training.* PNAS 2021. [arXiv 2101.12699](https://arxiv.org/abs/2101.12699). A model of the last layer
#   alone explains the simplex for balanced classes, and predicts that beyond a ratio of sizes small classes can no
#   longer be told apart. **Try:** the picture above is this prediction; repeat it with three small classes.
# - W. Hong, S. Ling. *Neural collapse for unconstrained feature model under cross-entropy loss with imbalanced
#   data.* 2023. [arXiv 2309.09725](https://arxiv.org/abs/2309.09725). NC1 survives imbalance, NC2 and NC3 do not, and
#   the threshold of minority collapse has a formula. **Try:** `angles_of_unequal_classes(10, weight_decay=8e-3)`: does
#   more weight decay move the threshold to milder or to stronger imbalance?
# - C. Thrampoulidis, G. R. Kini, V. Vakilian, T. Behnia. *Imbalance trouble: revisiting neural-collapse geometry.*
#   NeurIPS 2022. [arXiv 2208.05512](https://arxiv.org/abs/2208.05512). For vanishing weight decay the geometry is read
#   off the singular vectors of the centred label matrix, whatever the class sizes. **Try:** compute the angles between
#   the rows of $U S^{1/2}$ from that matrix, and compare them with those of free features at smaller and smaller weight
#   decay.
# - Y. Yang, S. Chen, X. Li, L. Xie, Z. Lin, D. Tao. *Inducing neural collapse in imbalanced learning: do we really need
#   a learnable classifier at the end of deep neural network?* NeurIPS 2022.
#   [arXiv 2203.09081](https://arxiv.org/abs/2203.09081). A classifier that is a fixed simplex ETF cannot suffer
#   minority collapse. **Try:** give the recipe in `angles_of_unequal_classes` the head "fixed" and look at the angles
#   between the class means.
#
# ## 2. What collapsed features still know
#
# - Y. Yang, J. Steinhardt, W. Hu. *Are neurons actually collapsed? On the fine-grained structure in neural
#   representations.* ICML 2023. [arXiv 2306.17105](https://arxiv.org/abs/2306.17105). Networks that were trained on
#   merged classes still hold the original ones in the little scatter that is left. **Try:** below.
# - T. Galanti, A. György, M. Hutter. *On the role of neural collapse in transfer learning.* ICLR 2022.
#   [arXiv 2112.15121](https://arxiv.org/abs/2112.15121). When collapse on training samples carries over to new samples
#   and new classes, a few labelled samples suffice for these. **Try:** train on `classes=(0, 1, 2, 3, 4)` of digits and
#   classify 5 to 9 by the nearest of five class means, each from five images.
# - X. Li, S. Liu, J. Zhou, X. Lu, C. Fernandez-Granda, Z. Zhu, Q. Qu. *Principled and efficient transfer learning of
#   deep models via neural collapse.* 2022. [arXiv 2212.12206](https://arxiv.org/abs/2212.12206). Less collapse while
#   pre-training transfers better; more collapse on the new task goes with better accuracy there. **Try:** the previous
#   trial after each tenth epoch: is the best epoch the last?
# - M. Munn, B. Dherin, J. Gonzalvo. *The impact of geometric complexity on neural collapse in transfer learning.* 2024.
#   [arXiv 2405.15706](https://arxiv.org/abs/2405.15706). What makes a network's map smoother also brings it closer to
#   collapse. **Try:** train with five weight decays and draw `nc1_quotient` against the mean norm of the features'
#   gradient with respect to the input.
#
# *If a network is told only the digit modulo 5, does it forget that 3 and 8 are different?* Group the images into
# five classes of two digits each, and train. Then ask the features of new images which of the two digits of their
# class they are: by the nearer of the two digits' means on the training set, and, without any labels, by the two
# halves into which $k$-means splits the class, matched to the two digits in whichever way fits better. Chance is one
# half for the first; for the second it is the table's last column. Guess both numbers.

# %%
digits = ncbook.load_dataset("digits")
merged = replace(digits, train_targets=digits.train_targets % 5, test_targets=digits.test_targets % 5,
                 class_names=tuple("01234"))


def recovered(trainer):
    h, new, labels = trainer.backbone(digits.train_inputs), trainer.backbone(digits.test_inputs), digits.test_targets
    means = torch.stack([h[digits.train_targets == c].mean(0) for c in range(10)])
    by_mean = by_halves = 0
    for c in range(5):
        own = labels % 5 == c
        upper = labels[own] >= 5
        by_mean += int((torch.cdist(new[own], means[[c, c + 5]]).argmin(1) == upper).sum())
        halves = torch.from_numpy(KMeans(2, n_init=10, random_state=0).fit_predict(new[own].double().numpy()))
        by_halves += max(int((halves == upper).sum()), int((halves != upper).sum()))
    return trainer.snapshot().train["nc1_quotient"], 100 * by_mean / len(labels), 100 * by_halves / len(labels)


# %% jupyter={"source_hidden": true}
# Table: digits told apart after training on merged classes
hidden = [visit(Trainer(Recipe(**DIGITS | dict(device="cpu"), seed=seed), data=merged), recovered)
          for seed in range(SEEDS)]
def better_way_round(halves, upper):
    return sum(max(int((a == b).sum()), int((a != b).sum())) for a, b in zip(halves, upper))


upper = [digits.test_targets[digits.test_targets % 5 == c] >= 5 for c in range(5)]
coins = torch.Generator().manual_seed(0)
chance = [100 / len(digits.test_targets) * better_way_round([torch.rand(len(part), generator=coins) < 0.5 for part in upper],
                                                            upper) for _ in range(100)]
by_chance = median_range(chance, ".0f")
pixels, images = digits.train_inputs.flatten(1), digits.test_inputs.flatten(1)
means = torch.stack([pixels[digits.train_targets == c].mean(0) for c in range(10)])
pair = torch.cdist(images, means).gather(1, torch.stack([digits.test_targets, (digits.test_targets + 5) % 10], 1))
by_pixels = 100 * float((pair[:, 0] < pair[:, 1]).double().mean())
table([f"epoch; median (range) of {SEEDS} networks", "NC1 quotient", "right by the nearer mean, %", "right by halves, %",
       "halves by coin, %"],
      [*([epoch, *(median_range((run[k][part] for run in hidden), form) for part, form in enumerate((".2g", ".1f", ".0f"))),
          by_chance] for k, epoch in enumerate(WHEN)), ["the images themselves", "", f"{by_pixels:.1f}", "", ""]])
lost = [run[0][1] - run[-1][1] for run in hidden]

# %% [markdown]
# The halves fall towards chance at first: what tells 3 from 8 is no longer the largest part of the scatter. But it is
# still there. Judged by the nearer mean, the partly collapsed features tell about a point less than those of the
# untrained network, in three of three networks; and that one has lost four points already, measured on the images
# themselves (last row).
#
# ## 3. Inputs of no known class
#
# - M. Ben Ammar, N. Belkhir, S. Popescu, A. Manzanera, G. Franchi. *NECO: neural collapse based out-of-distribution
#   detection.* ICLR 2024. [arXiv 2310.06823](https://arxiv.org/abs/2310.06823). Known inputs lie in the span of the
#   class means; what lies outside of it is unknown. **Try:** below.
# - L. Liu, Y. Qin. *Detecting out-of-distribution through the lens of neural collapse.* 2023.
#   [arXiv 2311.01479](https://arxiv.org/abs/2311.01479). Known features, centred, point along the weights of their
#   class and are long. **Try:** replace the score below by `cosine_similarity(h - centre, W[predicted])`, then by the
#   norm of `h - centre`.
# - M. Y. Harun, J. Gallardo, C. Kanan. *Controlling neural collapse enhances out-of-distribution detection and transfer
#   learning.* ICML 2025. [arXiv 2502.10691](https://arxiv.org/abs/2502.10691). More collapse detects unknown inputs
#   better and transfers worse, so they want it in one layer and not in another. **Try:** read the table below together
#   with that of section 2.
#
# *Does collapse help to notice what the network has never seen?* Train on the digits 0 to 7 and show it 8 and 9. The
# score is the share of a centred feature's length that lies in the span of the class means, and the number is the
# probability that a known test image scores higher than an unknown one (the area under the ROC curve).

# %%
known = ncbook.load_dataset("digits", classes=tuple(range(8)))
unknown = digits.test_inputs[digits.test_targets >= 8]


def detection(trainer):
    h, inside, outside = (trainer.backbone(x).double() for x in (known.train_inputs, known.test_inputs, unknown))
    means = torch.stack([h[known.train_targets == c].mean(0) for c in range(8)])
    span = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[:7]
    scores = [((x - means.mean(0)) @ span.T).norm(dim=1) / (x - means.mean(0)).norm(dim=1) for x in (inside, outside)]
    return trainer.snapshot().train, roc_auc_score([1] * len(inside) + [0] * len(outside), torch.cat(scores).numpy())


# %% jupyter={"source_hidden": true}
# Table: known inputs against unknown ones
foreign = [visit(Trainer(Recipe(**DIGITS | dict(device="cpu"), seed=seed), data=known), detection)
           for seed in range(SEEDS)]
table([f"epoch; median (range) of {SEEDS} networks", "training accuracy", "NC1 quotient", "known above unknown"],
      [[epoch, *(median_range((run[k][0][key] for run in foreign), ".3g") for key in ("accuracy", "nc1_quotient")),
        median_range((run[k][1] for run in foreign), ".3f")] for k, epoch in enumerate(WHEN)], text=0)

# %% [markdown]
# Detection gets better as the network learns. From the second-last row to the last, when only collapse goes on, it
# changes by at most 0.011 in any network, and by nothing in one.
#
# ## 4. Across the layers
#
# - H. He, W. J. Su. *A law of data separation in deep learning.* PNAS 2023.
#   [arXiv 2210.17020](https://arxiv.org/abs/2210.17020). In a trained network each layer divides NC1 by about the same
#   factor. **Try:** below.
# - L. Parker, E. Onal, A. Stengel, J. Intrater. *Neural collapse in the intermediate hidden layers of classification
#   neural networks.* 2023. [arXiv 2308.02760](https://arxiv.org/abs/2308.02760). Most of the scatter goes in the first
#   layers, and the angles between class means grow with depth. **Try:** add "nc2_equiangular" to the keys below.
# - P. Súkeník, M. Mondelli, C. Lampert. *Neural collapse versus low-rank bias: is deep neural collapse really
#   optimal?* 2024. [arXiv 2405.14468](https://arxiv.org/abs/2405.14468). If earlier layers are free as well, something
#   of lower rank than the simplex costs less. **Try:** `NeuralCollapse(...).spectrum()` of every layer: do $C-1$
#   eigenvalues stay equal?
# - A. Rangamani, A. Unal. *Deep neural regression collapse.* 2026.
#   [arXiv 2603.23805](https://arxiv.org/abs/2603.23805). In regression, too, features below the last layer come down to
#   the dimension of the targets. **Try:** train a backbone of `build_backbone` to output the two coordinates of
#   "gaussians", turned by 90°, and count the large singular values of each layer.

# %%
def through_layers(trainer):
    x, found = known.train_inputs, []
    for module in trainer.backbone:
        x = module(x)
        if isinstance(module, torch.nn.Flatten | torch.nn.ReLU) or module is trainer.backbone[-1]:
            found.append(ncbook.neural_collapse(x.double(), known.train_targets, keys=["nc1"])["nc1"])
    return found


# %% jupyter={"source_hidden": true}
# Draw NC1 through the layers
layers = torch.tensor([visit(Trainer(Recipe(**DIGITS | dict(device="cpu"), seed=seed), data=known), through_layers)
                       for seed in range(SEEDS)])
names = ["input", *(f"hidden {k}" for k in range(1, layers.shape[2] - 1)), "features"]
fig = go.Figure()
for k, (epoch, colour) in enumerate(zip(WHEN, ("#C4C4C4", "#9A9A9A", "#666666", "#222222"))):
    for seed, found in enumerate(layers[:, k].tolist()):
        fig.add_scatter(x=names, y=found, name=f"epoch {epoch}", legendgroup=epoch, showlegend=seed == 0, line_width=1.5,
                        mode="lines+markers", line_color=colour)
fig.update_yaxes(title="NC1", type="log", tickvals=[0.02, 0.05, 0.1, 0.2, 0.5, 1])
plots.finish(fig, "NC1 through the layers", "eight classes of digits; a line per network", width=620, height=380)

# %% [markdown]
# A straight line on this axis is a constant factor for each layer. Before training there is none; after it, the three
# hidden layers lie nearly on one. The last layer here is linear, without a nonlinearity, and adds nothing.
#
# ## 5. Many classes, and language
#
# - J. Jiang, J. Zhou, P. Wang, Q. Qu, D. G. Mixon, C. You, Z. Zhu. *Generalized neural collapse for a large number of
#   classes.* ICML 2024. [arXiv 2310.05351](https://arxiv.org/abs/2310.05351). With more classes than dimensions the features
#   maximise the smallest margin of one class against the rest. **Try:** `feature_dim=4` below: how do ten classes
#   arrange themselves now?
# - J. Alcala, R. Andreeva, V. A. Kobzar, D. G. Mixon, S. Na, S. Sule, Y. Xie. *Neural collapse in the orthoplex
#   regime.* 2026. [arXiv 2603.20587](https://arxiv.org/abs/2603.20587). For $d + 2 \le C \le 2d$ classes, where
#   [The simplex ETF](02_simplex_etf.ipynb) found right angles at best, the figures are known.
#   **Try:** below; then seven classes in five dimensions.
# - R. Wu, V. Papyan. *Linguistic collapse: neural collapse in (large) language models.* NeurIPS 2024.
#   [arXiv 2405.17767](https://arxiv.org/abs/2405.17767). Next tokens are classes: unbalanced, ambiguous, and more than
#   there are dimensions; parts of collapse still grow with scale, and go with better validation loss. **Try:** feed the
#   last hidden states of a language model of yours, with the hundred most frequent next tokens as targets, to a
#   streaming `NeuralCollapse(100, d, keep_features=False)`.
#
# *How do ten classes share five dimensions?* There is no room for a simplex. Guess the cosines, then look.

# %%
crowded = Recipe(dataset="unconstrained", backbone="free_features", feature_dim=5, batch_size=1000, lr=10,
                 lr_decay="constant", weight_decay=1e-3, epochs=1500)
crowd = list(train(crowded, every=crowded.epochs))[-1]
print(cosine_similarity(crowd.class_means[:, None], crowd.class_means, dim=-1).round().int())
print(f"training accuracy {crowd.train['accuracy']}, NC1 {crowd.train['nc1']:.0e}")

# %% [markdown]
# Each row has its own 1, one −1 and eight zeros (rounded; to three digits they are exact): every class has one
# opposite, and is at a right angle to all others. The ten class means are the two ends of five perpendicular axes,
# the *orthoplex*. (One start; it can be repeated with other seeds.)
#
# ## 6. Other losses, other targets
#
# - J. Zhou, C. You, X. Li, K. Liu, S. Liu, Q. Qu, Z. Zhu. *Are all losses created equal: a neural collapse
#   perspective.* NeurIPS 2022. [arXiv 2210.02192](https://arxiv.org/abs/2210.02192). Label smoothing, focal loss and
#   squared error have the same collapsed minima as cross-entropy. **Try:** `label_smoothing=0.1` in a recipe of
#   [Neural collapse](01_neural_collapse.ipynb): which metrics fall faster?
# - F. Graf, C. D. Hofer, M. Niethammer, R. Kwitt. *Dissecting supervised contrastive learning.* ICML 2021.
#   [arXiv 2102.08817](https://arxiv.org/abs/2102.08817). The contrastive loss, too, is smallest when every class is a
#   vertex of a simplex on the sphere. **Try:** write their loss for free features of norm 1, in a loop of your own
#   ([Your own model](15_your_own_model.ipynb)), and watch `simplex_etf_distance`.
# - G. Andriopoulos, Z. Dong, L. Guo, Z. Zhao, K. Ross. *The prevalence of neural collapse in neural multivariate
#   regression.* NeurIPS 2024. [arXiv 2409.04180](https://arxiv.org/abs/2409.04180). With $n$ real targets, features
#   collapse to $n$ dimensions; without weight decay they do not. **Try:** the regression of section 4, with and without
#   weight decay.
# - Y. Yang, H. Yuan, X. Li, Z. Lin, P. Torr, D. Tao. *Neural collapse inspired feature-classifier alignment for
#   few-shot class-incremental learning.* ICLR 2023. [arXiv 2302.03004](https://arxiv.org/abs/2302.03004). A frame with
#   a vertex for every class that will ever come keeps old classes where they are. **Try:** a `FixedETFHead` with ten
#   rows, five digits first and five later; compare with a learned head.
#
# ## 7. Overviews and doubts
#
# - V. Kothapalli. *Neural collapse: a review on modelling principles and generalization.* 2022.
#   [arXiv 2206.04041](https://arxiv.org/abs/2206.04041). The models side by side, and what they say about
#   generalisation. **Try:** find the model of section 7 of [Neural collapse](01_neural_collapse.ipynb) in it, and what
#   the others change.
# - L. Hui, M. Belkin, P. Nakkiran. *Limitations of neural collapse for understanding generalization in deep
#   learning.* 2022. [arXiv 2202.08384](https://arxiv.org/abs/2202.08384). Collapse on the training set is a fact about
#   optimisation; on test data it does not happen, and more of it can transfer worse. **Try:** the test column of
#   [Measuring collapse](03_measuring_collapse.ipynb) for more epochs, more data, other networks: does any of it go to
#   zero?

# %% jupyter={"source_hidden": true}
# Checks of what the text says
assert unequal[0].std() < 0.5 and unequal[-1, 2] < 5 < 60 < unequal[2, 2] and unequal[-1, 0] > 140
for run in hidden:
    assert run[-1][0] < 0.1 * run[0][0] and run[-1][1] > 85 and run[-1][2] < run[0][2] - 10
assert PROFILE != "book" or 0 < min(lost) < max(lost) < 2 and by_pixels > 96
assert PROFILE != "book" or max(abs(run[3][1] - run[2][1]) for run in foreign) < 0.0115
for run in foreign:
    assert run[-1][1] > run[0][1] + 0.05 and (PROFILE != "book" or run[-1][1] > 0.95)
ratios = layers[:, -1, :-2] / layers[:, -1, 1:-1]
assert ratios.min() > 1.4 and (layers[:, 0].amax(1) / layers[:, 0].amin(1)).max() < 2.5
axes = cosine_similarity(crowd.class_means[:, None], crowd.class_means, dim=-1)
assert (axes.abs().round() - axes.abs()).abs().max() < 1e-3 and ((axes + 1).abs() < 1e-3).sum(1).eq(1).all()

# %% [markdown]
# ## Try it
#
# **1. A trial that fails.** Which of the trials above would *you* expect to fail? Do that one first. A result that
# differs from the paper is worth a note: the data here are small, and the networks are smaller.
#
# **2. Noise.** In section 3, show the network noise instead of 8 and 9: `torch.rand_like(unknown)`. Is it easier or harder to
# notice?
#
# <details><summary>Solution</summary>
#
# ```python
# unknown = torch.rand_like(unknown)
# print([round(auc, 3) for _, auc in visit(Trainer(Recipe(**DIGITS), data=known), detection)])
# ```
#
# Easier: the last number is close to 1. Unknown digits share strokes with known ones, noise does not. Results for
# inputs that are this different say little about those that matter.
#
# </details>
#
# ## Summary
#
# - Without balance there is no simplex: at a ratio of some tens, and the weight decay chosen here, two small classes
#   get the same weights.
# - Partly collapsed features keep more than the labels: more than nine of ten test images can be told from the other
#   digit of their class, a point less than with an untrained network and five less than from the pixels, although the
#   network was told the digit modulo 5 only.
# - The span of the class means is a detector for unknown inputs, with an area under the curve of 0.96 (0.958 to
#   0.969) at the end here.
# - NC1 falls by a factor of two to three from each layer to the next up to the last hidden one, in three of three
#   networks.
# - Ten classes in five dimensions become an orthoplex: right angles and opposites only.
#
# ## References
#
# They are listed in the sections, each under the question it answers.
#
# **Next:** back to [Start here](00_start_here.ipynb).
