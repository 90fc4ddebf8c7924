"""The fair comparison on MNIST-250: every method tuned with equal effort, on images that are not those of the report.

The published setting of a method and 15 that fill its ranges evenly, with the same learning rates, weight decays and
lengths for all, are thinned out by successive halving whose rungs are splits (10 to 19); accuracy is taken on 10,000
training images outside every published split.
The report runs the chosen settings on splits 0 to 9 and the test images, which no choice has seen.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ncbook.checks import check_number
from ncbook.experiments.runner import read_rows
from ncbook.experiments.tables import MNIST250, TABLES, Unit, published_splits
from ncbook.heads import HEADS, HeadKind, LearnedHead, NearestETFHead
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule
from ncbook.training.data import DATASETS, Dataset, Source, load_dataset
from ncbook.training.recipe import Recipe

RESULTS = Path("notebooks/results")
HELD_OUT = 10_000
STEPS = 31  # of an epoch of clouds: 250 anchors, 8 at a time
CONFIGURATIONS = 16
RUNGS = ((16, (10, 11)), (6, (12, 13, 14)), (2, (15, 16, 17, 18, 19)))  # how many settings, on which further splits


class UnionHead(nn.Module):
    """From a learned classifier to the nearest simplex ETF: W = (1-s) W_learned + s scale W_nearest, and b likewise.

    On features (..., d) as they are. s is 0 until `follow` sets it; the trainer calls follow(e/E) in epoch e of E, so
    that s = e/E, like the weight of `SlidingSchedule`. scale: norm of the rows of the frame. in_features d >= C-1,
    out_features C. Raises as `NearestETFHead`.
    """

    share: Tensor

    def __init__(self, in_features: int, out_features: int, *, scale: float = 1.0):
        super().__init__()
        self.learned = LearnedHead(in_features, out_features)
        self.nearest = NearestETFHead(in_features, out_features, scale=None)
        self.scale = check_number("scale", scale, positive=True)
        self.register_buffer("share", torch.zeros(()))

    def follow(self, progress: float) -> None:
        """Set s, in [0, 1]."""
        self.share.fill_(progress)

    @property
    def weight(self) -> Tensor:
        return (1 - self.share) * self.learned.weight + self.share * self.scale * self.nearest.weight

    @property
    def bias(self) -> Tensor:
        return (1 - self.share) * self.learned.bias + self.share * self.scale * self.nearest.bias

    def embed(self, features: Tensor) -> Tensor:
        """The features as they are."""
        return features

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (..., d), targets (...) int64 in 0..C-1 -> logits (..., C)."""
        framed = self.scale * self.nearest(features, targets)
        return (1 - self.share) * self.learned(features) + self.share * framed


HEADS["union"] = HeadKind(UnionHead, "union", ("scale",), learned=True)


def held_out(*, rest: bool = False) -> Dataset:
    """MNIST with 10,000 training images outside every published split in the place of the test images.

    rest: train on the images that are neither among these nor in a published split, and not on all.
    """
    data = load_dataset("mnist")
    free = np.setdiff1d(np.arange(len(data.train_targets)), published_splits("mnist"))
    chosen = np.random.default_rng(0).choice(free, HELD_OUT, replace=False)
    trained = data.subset(torch.from_numpy(np.setdiff1d(free, chosen))) if rest else data
    return dataclasses.replace(trained, test_inputs=data.train_inputs[chosen], test_targets=data.train_targets[chosen])


DATASETS["mnist-held-out"] = Source(held_out, backbone="mnist_cnn", train_size=250)
DATASETS["mnist-rest"] = Source(functools.partial(held_out, rest=True), backbone="mnist_cnn", train_size=250)


Settings = dict[str, Any]
Rung = tuple[int, tuple[int, ...]]  # how many settings, on which further splits


@functools.cache
def latin_hypercube(seed: str, columns: int, beside: tuple[str, int] | None = None,
                    count: int = CONFIGURATIONS - 1) -> np.ndarray:
    """The best of 1,000 random Latin hypercubes: (count, columns) in [0, 1], each of `count` values once in a column.

    The best has the least centred discrepancy, together with the columns of the hypercube whose seed and columns are
    `beside`. Source: Hickernell 1998, A generalized discrepancy and quadrature error bound.
    """
    rng = np.random.default_rng([2026, *seed.encode()])
    others = np.empty((count, 0)) if beside is None else latin_hypercube(*beside)

    def discrepancy(drawn: np.ndarray) -> float:  # squared, without its constant
        points = np.hstack([drawn, others])
        off = np.abs(points - 0.5)
        pairs = 1 + (off[:, None] + off - np.abs(points[:, None] - points)) / 2
        return pairs.prod(2).mean() - 2 * (1 + (off - off**2) / 2).prod(1).mean()

    ranks = np.tile(np.arange(count), (columns, 1))
    return min(((rng.permuted(ranks, axis=1).T + 0.5) / count for _ in range(1000)), key=discrepancy)


def log(u: float, low: float, high: float) -> float:
    """The place u, in [0, 1], of a range, log-uniform, to three digits."""
    return float(f"{low * (high / low) ** u:.3g}")


def one(u: float, values: Sequence[Any]) -> Any:
    """The place u, in [0, 1), of a sequence."""
    return values[int(u * len(values))]


COMMON = ("common", 4)  # learning rate, weight decay, length, batch: the same 15 for every method
SHUFFLED = (25, 50, 125)  # images a step
CLOUDS = ("clouds",)
ANY_BATCH = CLOUDS * 8 + (25, 25, 50, 50, 50, 125, 125)


def _common(u: Sequence[float], batches: Sequence[Any]) -> Settings:
    return {"lr": log(u[0], 0.01, 0.3), "weight_decay": log(u[1], 1e-4, 3e-2), "length": round(log(u[2], 15, 200)),
            "batch": one(u[3], batches)}


def _densified(u: Sequence[float], heaviest: float = 0.1) -> Settings:
    if one(u[0], (1, 2)) == 1:
        return {"p": 1, "beta0": log(u[1], 0.3, 12), "weight": log(u[2], 3e-4, heaviest)}
    return {"p": 2, "beta0": log(u[1], 0.05, 2), "weight": log(u[2], 3e-3, 1)}


def _scaled(u: Sequence[float]) -> Settings:
    return {"scale": log(u[0], 2, 40)}


class Method(NamedTuple):
    """A method of the comparison: the published setting or the nearest to one, and where the others are taken from.

    own: places in [0, 1], one for each of the method's `dials`, to their settings; batches: what the dial "batch" goes
    over. Keys of settings: lr, weight_decay, length (in epochs of 31 steps), batch ("clouds" or images a step), beta0,
    weight, p, start (share of the epochs), and fields of `Recipe`.
    """

    published: Settings
    dials: int
    own: Callable[[Sequence[float]], Settings]
    batches: Sequence[Any] = CLOUDS
    schedule: Callable[[Settings, int], Any] | None = None


_LINEAR = {"lr": 0.1, "weight_decay": 0.01, "length": 200, "batch": "clouds"}
_FRAMED = {"lr": 0.05, "weight_decay": 5e-4, "length": 200, "batch": 125, "scale": 5.0}
_SLIDING = _LINEAR | {"beta0": 1.1, "weight": 0.1, "p": 1}
_FIXED = {"head": "fixed", "frame": "nonnegative"}


def _nothing(u: Sequence[float]) -> Settings:
    return {}


def _sliding(s: Settings, epochs: int) -> SlidingSchedule:
    return SlidingSchedule(s["beta0"], s["weight"], epochs)


METHODS: dict[str, Method] = {
    "linear_shuffled": Method(_LINEAR | {"batch": 125}, 0, _nothing, SHUFFLED),
    "linear_clouds": Method(_LINEAR, 0, _nothing),
    "smoothing": Method(_LINEAR | {"label_smoothing": 0.1}, 1, lambda u: {"label_smoothing": log(u[0], 0.01, 0.4)},
                        ANY_BATCH),
    "constant": Method(_LINEAR | {"weight_decay": 0.001, "beta0": 0.7, "weight": 0.1, "p": 2}, 3, _densified,
                       schedule=lambda s, epochs: ConstantSchedule(s["beta0"], s["weight"])),
    "delayed": Method(_SLIDING | {"start": 0.5}, 4, lambda u: _densified(u) | {"start": round(0.2 + 0.7 * u[3], 2)},
                      schedule=lambda s, epochs: DelayedSchedule(s["beta0"], s["weight"], round(s["start"] * epochs))),
    "sliding": Method(_SLIDING, 3, lambda u: _densified(u, 0.3), schedule=_sliding),
    "unit_rows": Method(_FRAMED | {"head": "cosine"}, 1, lambda u: _scaled(u) | {"head": "cosine"}, ANY_BATCH),
    "fixed_etf": Method(_FRAMED | _FIXED | {"centred": True}, 2,
                        lambda u: _scaled(u) | _FIXED | {"centred": one(u[1], (False, True))}, ANY_BATCH),
    "nearest_etf": Method(_FRAMED | {"head": "nearest"}, 1, lambda u: _scaled(u) | {"head": "nearest"}, ANY_BATCH),
    "union": Method(_SLIDING | {"head": "union", "scale": 1.0}, 4,
                    lambda u: _densified(u, 0.3) | {"head": "union", "scale": log(u[3], 0.3, 10)}, schedule=_sliding),
}


def recipe(method: str, settings: Settings, size: int = 250, **changes) -> Recipe:
    """The recipe of a method with some settings, for `size` training images and with the held-out ones as test images.

    Its steps are `length` times 31, as near as whole epochs come; changes: fields of `Recipe`, as in `replace`.
    """
    fields = dict(settings)
    length, batch = fields.pop("length"), fields.pop("batch", "clouds")
    anchors = 8 if batch == "clouds" else min(batch, size)
    fields |= {"clouds": (8, 16)} if batch == "clouds" else {"clouds": None, "batch_size": batch}
    fields["epochs"] = max(1, round(STEPS * length / (size // anchors)))
    moved: Settings = {name: fields.pop(name) for name in ("beta0", "weight", "start") if name in fields}
    make = METHODS[method].schedule
    fields["schedule"] = make(moved, fields["epochs"]) if make else None
    return dataclasses.replace(MNIST250, **{"dataset": "mnist-held-out"} | fields | changes)


def tried(method: str) -> list[Settings]:
    """The settings that a method is tried with: the published one, then 15 that fill its ranges evenly."""
    published, dials, own, batches, _ = METHODS[method]
    common, mine = latin_hypercube(*COMMON), latin_hypercube(method, dials, COMMON)
    filling = [_common(u, batches) | own(v) for u, v in zip(common.tolist(), mine.tolist(), strict=True)]
    return [published, *filling]


def configurations(method: str) -> list[Recipe]:
    """The recipes of the settings that a method is `tried` with."""
    return [recipe(method, settings) for settings in tried(method)]


def _unit(method: str, number: int, recipe: Recipe, split: int) -> Unit:
    return Unit(f"{method}_{number:02d}", dataclasses.replace(recipe, seed=split), published_split=split)


def scores(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[int, float]]:
    """Setting -> split -> accuracy on the held-out images, in per cent; 0 where there is none, or no finite one."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        accuracy = float(row["test_accuracy"] or 0)
        found.setdefault(row["recipe"], {})[int(row["split"])] = accuracy if np.isfinite(accuracy) else 0.0
    return found


def standing(method: str, found: Mapping[str, Mapping[int, float]], splits: Sequence[int]) -> dict[str, float]:
    """The settings of a method that have run on all of the splits, with their means there, the best first."""
    done = {name: float(np.mean([by_split[split] for split in splits])) for name, by_split in found.items()
            if name.rpartition("_")[0] == method and set(splits) <= set(by_split)}
    return dict(sorted(done.items(), key=lambda item: (-item[1], item[0])))


def climb(method: str, rungs: Sequence[Rung], found: Mapping[str, Mapping[int, float]]) -> list[tuple[int, int]]:
    """Successive halving: (number of a setting, split) of the rungs that can be run as what is found stands."""
    pairs: list[tuple[int, int]] = []
    before: tuple[int, ...] = ()
    left = [f"{method}_{number:02d}" for number in range(rungs[0][0])]
    for count, splits in rungs:
        ranked = [name for name in standing(method, found, before) if name in left] if before else left
        if len(ranked) < len(left):
            break
        left, before = ranked[:count], (*before, *splits)
        pairs += [(number, split) for number in sorted(int(name[-2:]) for name in left) for split in splits]
    return pairs


def winner(method: str, rungs: Sequence[Rung], found: Mapping[str, Mapping[int, float]]) -> tuple[int, float] | None:
    """The number of a method's best setting over the splits of all rungs and its mean, None before they are run."""
    last = standing(method, found, [split for _, splits in rungs for split in splits])
    return (int(next(iter(last))[-2:]), next(iter(last.values()))) if len(last) == rungs[-1][0] else None


def comparison_search(results: Path = RESULTS) -> list[Unit]:
    """The search of the fair comparison: 16 settings a method on splits 10 and 11, the best 6 on three more, 2 on all.

    Later rungs are there once the earlier ones stand in comparison_search.csv in the folder `results`.
    """
    found = scores(read_rows(Path(results) / "comparison_search.csv"))
    recipes = {method: configurations(method) for method in METHODS}
    return [_unit(method, number, recipes[method][number], split)
            for method in METHODS for number, split in climb(method, RUNGS, found)]


def searched(results: Path = RESULTS) -> dict[str, tuple[Settings, float]]:
    """Method -> its settings with the best mean over splits 10 to 19 and that mean, of methods that are finished."""
    found = scores(read_rows(Path(results) / "comparison_search.csv"))
    best = {method: winner(method, RUNGS, found) for method in METHODS}
    return {method: (tried(method)[each[0]], each[1]) for method, each in best.items() if each is not None}


def chosen(results: Path = RESULTS) -> dict[str, Recipe]:
    """Method -> the recipe with the best mean over splits 10 to 19, of the methods whose search is finished."""
    return {method: recipe(method, settings) for method, (settings, _) in searched(results).items()}


def comparison(results: Path = RESULTS) -> list[Unit]:
    """The report of the fair comparison: the chosen setting of each method, two seeds on each of splits 0 to 9.

    It is there once the search of all methods is finished. The test images are read here and nowhere else.
    """
    choices = chosen(results)
    if set(choices) != set(METHODS):
        return []
    return [Unit(method, dataclasses.replace(recipe, dataset="mnist", seed=split + 100 * seed), published_split=split)
            for method, recipe in choices.items() for split in range(10) for seed in range(2)]


TABLES["comparison_search"] = comparison_search
TABLES["comparison"] = comparison
