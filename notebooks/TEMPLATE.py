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
# # A title that names the subject
#
# *Does a prescribed classifier pull the class means into its own shape?* A chapter opens with its question, and does
# not keep the answer back: yes, within twenty epochs, as the picture shows. Press *Play*.

# %% jupyter={"source_hidden": true}
from ncbook import Recipe, plots, train

plots.geometry_animation(train(Recipe(dataset="gaussians", backbone="mlp", head="nearest", epochs=20)),
                         title="Three classes under a nearest-ETF head")

# %% [markdown]
# Then it says why one should care: a classifier that needs no training saves parameters, and one knows beforehand where
# the class means will lie.
#
# *You will learn*
#
# - one bullet for each section: what the reader can do or explain after it;
# - how a chapter is written: copy this file, replace what it says, keep its order.

# %% [markdown]
# ## Setup
#
# Imports in one place, sizes in capitals with what each profile changes, the seed.

# %% jupyter={"source_hidden": true}
import math

import torch

import ncbook
from ncbook.book import median_range, profile, say, show_code, table
from ncbook.heads import HEADS

PROFILE, EPOCHS, SEEDS = profile(
    quick=dict(EPOCHS=12, SEEDS=2),
    book=dict(EPOCHS=40, SEEDS=3),
    paper=dict(EPOCHS=200, SEEDS=10),
)
COMMON = dict(dataset="digits", backbone="mlp", epochs=EPOCHS)

# %% [markdown]
# ## 1. A section asks one thing
#
# *How far are the class means from a simplex ETF with a learned classifier, and with the nearest one?* Let the reader
# predict before the picture answers.

# %%
runs = {HEADS[head].method: [list(train(Recipe(head=head, seed=seed, **COMMON))) for seed in range(SEEDS)]
        for head in ("cosine", "nearest")}
plots.metric_curves(runs, ["accuracy", "nc1", "etf_distance"], title="Digits with two classifiers")

# %% [markdown]
# Then the mathematics, with the names of the other chapters. With $H$ the centred class means, of Frobenius norm 1, as
# columns, and $Q$ an orthonormal basis of the complement of the ones vector, the squared distance to the nearest simplex
# ETF is
#
# $$ 2 - \frac{2 \lVert H Q \rVert_*}{\sqrt{C - 1}} . $$
#
# Then the code. What the package has is shown from the package, so that page and package cannot drift apart; a test
# compares the two.

# %%
show_code(ncbook.simplex_etf_distance)

# %% [markdown]
# Then the experiment: by hand, beside the package.

# %%
means = runs["nearest"][0][-1].class_means.double()
H = (means - means.mean(0)).T / (means - means.mean(0)).norm()
by_hand = 2 - 2 * torch.linalg.matrix_norm(H @ ncbook.helmert_basis(10, dtype=H.dtype), "nuc") / math.sqrt(9)
print(f"by hand {by_hand:.6f}, package {ncbook.simplex_etf_distance(means):.6f}")
assert abs(by_hand - ncbook.simplex_etf_distance(means)) < 1e-9

# %% [markdown]
# Every number in the text is computed next to it, over seeds, with its spread, and the claim is asserted.

# %%
last = {method: [seed[-1].row() for seed in seeds] for method, seeds in runs.items()}
table(["head", "test accuracy, %", "distance to the nearest ETF"],
      [[method, median_range((row["test_accuracy"] for row in rows), ".1f"),
        median_range(row["train_etf_distance"] for row in rows)] for method, rows in last.items()])
standard, nearest = ([row["train_etf_distance"] for row in rows] for rows in last.values())
say(f"In {sum(b < a for a, b in zip(standard, nearest))} of {SEEDS} seeds the nearest head ends closer to a simplex ETF.")
assert max(nearest) < min(standard)

# %% [markdown]
# ## Try it
#
# **1.** Give `Recipe` the head "fixed". Is the distance smaller still?
#
# <details><summary>Solution</summary>
#
# Add "fixed" to the heads of section 1 and compare the last column of the table.
#
# </details>
#
# ## Summary
#
# - One bullet for each answer, with its number.
#
# ## References
#
# - V. Papyan, X. Y. Han, D. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning training.*
#   PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
#
# **Next:** [Start here](00_start_here.ipynb).
