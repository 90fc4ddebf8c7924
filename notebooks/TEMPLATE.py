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
# Train with a nearest-ETF head and animate the features
from ncbook import Recipe, plots, train

plots.geometry_animation(train(Recipe(dataset="gaussians", backbone="mlp", head="nearest", epochs=20)),
                         title="Three classes under a nearest-ETF head")

# %% [markdown]
# Then it says why one should care: a classifier that needs no training saves parameters, and one knows beforehand where
# the class means will lie. All of this stands on the first screen.
#
# *You will learn*
#
# - one bullet for each section: what the reader can do or explain after it;
# - how a chapter is written: copy this file, replace what it says, keep its order.

# %% [markdown]
# ## Setup
#
# Imports in one place, sizes in capitals with what each profile changes. A cell that holds plumbing is folded by
# `jupyter={"source_hidden": true}` at its head, as this one; a cell in sight shows one idea, in some ten lines.

# %% jupyter={"source_hidden": true}
# Imports and settings
import math

import torch

import ncbook
from ncbook.book import median_range, profile, show_code, table
from ncbook.heads import HEADS

PROFILE, EPOCHS, SEEDS = profile(
    {"EPOCHS": "epochs", "SEEDS": "networks per classifier"},
    quick=dict(EPOCHS=6, SEEDS=2),
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

# %% jupyter={"source_hidden": true}
# Draw accuracy, NC1 and ETF distance by epoch
plots.metric_curves(runs, ["accuracy", "nc1", "etf_distance"], title="Digits with two classifiers")

# %% [markdown]
# Then the mathematics, in the notation of [Start here](00_start_here.ipynb). With $\bar H$ the centred class means as
# columns, of Frobenius norm 1, and $Q$ the Helmert basis, the squared distance to the nearest simplex ETF is
#
# $$ 2 - \frac{2 \lVert \bar H Q \rVert_*}{\sqrt{C - 1}} . $$
#
# Then the code. What the package has is shown from the package, so that page and package cannot drift apart; a test
# compares the two.

# %%
show_code(ncbook.simplex_etf_distance)

# %% [markdown]
# Then the experiment: by hand, beside the package.

# %%
mu = runs["nearest"][0][-1].class_means.double()
H = (mu - mu.mean(0)).T
H_bar, Q = H / H.norm(), ncbook.helmert_basis(10, dtype=H.dtype)
by_hand = 2 - 2 * torch.linalg.matrix_norm(H_bar @ Q, "nuc") / math.sqrt(9)
print(f"by hand {by_hand:.6f}, package {ncbook.simplex_etf_distance(mu):.6f}")

# %% [markdown]
# Every number in the text is computed next to it, over seeds, with its range:

# %% jupyter={"source_hidden": true}
# Table: test accuracy and ETF distance at the end
last = {method: [seed[-1].row() for seed in seeds] for method, seeds in runs.items()}
table([f"head, median (range) of {SEEDS} seeds", "test accuracy, %", "distance to the nearest ETF"],
      [[method, median_range((row["test_accuracy"] for row in rows), ".1f"),
        median_range(row["train_etf_distance"] for row in rows)] for method, rows in last.items()])

# %% [markdown]
# The text around stays true in every profile, or says for which it is. What it claims is asserted in a folded cell near
# the end:

# %% jupyter={"source_hidden": true}
# Checks of what the text says
standard, nearest = ([row["train_etf_distance"] for row in rows] for rows in last.values())
assert max(nearest) < min(standard)
assert abs(by_hand - ncbook.simplex_etf_distance(mu)) < 1e-9

# %% [markdown]
# ## Try it
#
# **1.** An experiment with a surprise: give `Recipe` the head "fixed". Is the distance smaller still?
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
# - V. Papyan, X. Y. Han, D. L. Donoho. *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS 2020. [arXiv 2008.08186](https://arxiv.org/abs/2008.08186)
#
# **Next:** [Start here](00_start_here.ipynb).
