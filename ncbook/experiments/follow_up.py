"""What follows the search of the fair comparison: five networks side by side, and when and why a method helps.

Each table is there once the search of all methods is finished; all but the networks side by side are of the held-out
images, and none of them has a part in the report.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ncbook.experiments.comparison import (
    METHODS,
    RESULTS,
    Rung,
    Settings,
    climb,
    latin_hypercube,
    log,
    recipe,
    scores,
    searched,
    winner,
)
from ncbook.experiments.runner import read_rows
from ncbook.experiments.tables import GUIDED, RESNET18, TABLES, Unit
from ncbook.training.data import DATASETS, Dataset, Source, load_dataset
from ncbook.training.recipe import Recipe

LENGTHS = (10, 20, 40, 80, 150, 200, 300)  # in epochs of 31 steps
STARTS = (0.0, 0.25, 0.5, 0.75, 0.9)  # shares of the epochs
SIZE_RUNGS: tuple[Rung, ...] = ((8, (10, 11)), (3, (12, 13, 14)))


def finished(results: Path) -> dict[str, tuple[Settings, float]]:
    """`searched`, once all methods are finished; nothing before."""
    found = searched(results)
    return found if set(found) == set(METHODS) else {}


def tuned_linear(found: dict[str, tuple[Settings, float]]) -> str:
    """The one of `linear_shuffled` and `linear_clouds` with the higher mean in the search: the report's baseline."""
    return max((name for name in found if name.startswith("linear")), key=lambda name: found[name][1])


def three(results: Path) -> dict[str, Settings]:
    """Tuned linear, sliding and nearest ETF with their settings, once the search is finished."""
    found = finished(results)
    return {name: found[name][0] for name in (tuned_linear(found), "sliding", "nearest_etf")} if found else {}


def comparison_five(results: Path = RESULTS) -> list[Unit]:
    """Five networks side by side of tuned linear and of the other method that was best in the search: splits 0 to 9,
    on the test images."""
    found = finished(results)
    if not found:
        return []
    others = (name for name in found if not name.startswith("linear"))
    names = (tuned_linear(found), max(others, key=lambda name: found[name][1]))
    return [Unit(f"{name}_x5", recipe(name, found[name][0], dataset="mnist", seed=split), published_split=split,
                 members=5) for name in names for split in range(10)]


def comparison_length(results: Path = RESULTS) -> list[Unit]:
    """Accuracy against training length, all else as chosen: 10 to 300 epochs of 31 steps, splits 0 to 4.

    Linear on clouds, where it is not tuned linear, for 80 epochs: what sliding is held against at equal steps.
    """
    methods = three(results)
    tried = [(name, settings, length) for name, settings in methods.items() for length in LENGTHS]
    if methods and "linear_clouds" not in methods:
        tried.append(("linear_clouds", finished(results)["linear_clouds"][0], 80))
    return [Unit(f"{name}_{length:03d}", recipe(name, settings | {"length": length}, seed=split), published_split=split)
            for name, settings, length in tried for split in range(5)]


def comparison_start(results: Path = RESULTS) -> list[Unit]:
    """Accuracy and collapse against the epoch that densification starts at, all else as chosen: splits 0 to 4."""
    found = finished(results)
    return [Unit(f"delayed_{round(100 * start):02d}", recipe("delayed", found["delayed"][0] | {"start": start}, seed=k),
                 published_split=k) for start in STARTS for k in range(5) if found]


def comparison_course(results: Path = RESULTS) -> list[Unit]:
    """Accuracy and collapse over the epochs: the three methods, constant densification, fixed ETF, learned unit rows,
    and linear for 300 epochs."""
    found = finished(results)
    if not found:
        return []
    names = three(results) | {name: found[name][0] for name in ("constant", "fixed_etf", "unit_rows")}
    runs = {name: recipe(name, settings) for name, settings in names.items()}
    base = tuned_linear(found)
    runs["linear_300"] = recipe(base, found[base][0] | {"length": 300})
    return [Unit(name, dataclasses.replace(run, seed=split), published_split=split, measured=_moments(run.epochs))
            for name, run in runs.items() for split in range(5)]


def _moments(epochs: int, count: int = 16) -> tuple[int, ...]:
    return tuple(np.unique(np.geomspace(1, epochs, count).round().astype(int)).tolist())


@functools.cache
def digits_held_out() -> Dataset:
    """Digits with 700 of the training images, drawn once, in the place of the test images; the others to train on."""
    data = load_dataset("digits")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data.train_targets)))
    held, rest = order[:700], order[700:]
    return dataclasses.replace(data.subset(rest), test_inputs=data.train_inputs[held],
                               test_targets=data.train_targets[held])


DATASETS["digits-held-out"] = Source(digits_held_out)


class Place(NamedTuple):
    """Where accuracy is taken against the number of training images: their data set, its network, the numbers."""

    dataset: str
    backbone: str
    sizes: tuple[int, ...]


PLACES = {"mnist": Place("mnist-rest", "mnist_cnn", (50, 250, 1000)),
          "digits": Place("digits-held-out", "small_cnn", (50, 250))}


def _sized(results: Path) -> Iterator[tuple[str, list[Recipe]]]:
    """Names with the recipes that are tried there: the method's own decay and length, then 7 of a Latin hypercube."""
    drawn = [{"weight_decay": log(u, 1e-4, 3e-2), "length": round(log(v, 15, 200))}
             for u, v in latin_hypercube("sizes", 2, count=SIZE_RUNGS[0][0] - 1).tolist()]
    for where, (dataset, backbone, sizes) in PLACES.items():
        for size in sizes:
            for name, own in three(results).items():
                yield f"{where}_{size}_{name}", [
                    recipe(name, own | changes, size, dataset=dataset, backbone=backbone, train_size=size)
                    for changes in ({}, *drawn)]


def _drawn(name: str, recipe: Recipe, draw: int) -> Unit:
    return Unit(name, dataclasses.replace(recipe, split=draw, seed=draw))


def comparison_sizes_search(results: Path = RESULTS) -> list[Unit]:
    """Decay and length at each number of images: 8 settings on draws 10 and 11, the best 3 on 12 to 14."""
    found = scores(read_rows(Path(results) / "comparison_sizes_search.csv"))
    return [_drawn(f"{name}_{number:02d}", recipes[number], draw)
            for name, recipes in _sized(results) for number, draw in climb(name, SIZE_RUNGS, found)]


def comparison_sizes(results: Path = RESULTS) -> list[Unit]:
    """Accuracy against the number of images, with the decay and length that were best there: draws 0 to 9.

    A data set's numbers are there once all three methods have been searched on it with that number of images.
    """
    found = scores(read_rows(Path(results) / "comparison_sizes_search.csv"))
    best = {name: (recipes, winner(name, SIZE_RUNGS, found)) for name, recipes in _sized(results)}
    ready = {name: recipes[number[0]] for name, (recipes, number) in best.items() if number is not None}
    whole = {name for name in ready if sum(other.split("_")[:2] == name.split("_")[:2] for other in ready) == 3}
    return [_drawn(name, ready[name], draw) for name in ready if name in whole for draw in range(10)]


def mnist_stem() -> list[Unit]:
    """Speed of guided training with ResNet-18 as published, 7x7 stem and all, on 10,000 MNIST images: three heads,
    three seeds, which also draw the images, measured at every epoch.

    From the code of Markou et al. 2024 (github.com/evanmarkou/Guiding-Neural-Collapse): network, batches, feature norm,
    rate and decay. Ours: 20 epochs, SGD with momentum and a cosine decay, images of 28x28, a fixed frame that is
    non-negative, since features behind a ReLU may not reach theirs, with their centred bias.
    """
    base = dataclasses.replace(RESNET18, dataset="mnist", train_size=10000, backbone="resnet18_7x7", feature_dim=None,
                               epochs=20)
    heads: dict[str, dict[str, Any]] = {name: {"head": head} for name, head in GUIDED.items()}
    heads["fixed"] |= {"frame": "nonnegative", "centred": True}
    return [Unit(name, dataclasses.replace(base, seed=seed, split=seed, **options), measured=tuple(range(21)))
            for name, options in heads.items() for seed in range(3)]


for table in (comparison_five, comparison_length, comparison_start, comparison_course, comparison_sizes_search,
              comparison_sizes, mnist_stem):
    TABLES[table.__name__] = table
