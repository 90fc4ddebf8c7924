"""Intervals for methods that were run on the same splits, and what the number of tried settings is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ncbook.checks import check_choice, check_integer


class Interval(NamedTuple):
    """A mean difference with the two ends of its confidence interval."""

    mean: float
    low: float
    high: float


def by_split(rows: Iterable[Mapping[str, str]], column: str = "test_accuracy", *,
             log: bool = False) -> dict[str, np.ndarray]:
    """Recipe -> its numbers in a column, one a split in ascending order, each the mean over the seeds there.

    rows: of a table with one epoch a unit (`read_rows`). An accuracy of a run that diverged is chance, 10 per cent, any
    other number of it is NaN. log: of the numbers' logarithms, NaN where there is none that is finite. Raises
    ValueError where the recipes have not run on the same splits.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        lost = 10.0 if column == "test_accuracy" else math.nan
        value = lost if row.get("diverged") else float(row[column])
        if log:
            value = math.log(value) if 0 < value < math.inf else math.nan
        found.setdefault(row["recipe"], {}).setdefault(int(row["split"]), []).append(value)
    if len(kinds := {tuple(sorted(splits)) for splits in found.values()}) > 1:
        raise ValueError(f"recipes must have run on the same splits, got {sorted(kinds)}")
    return {name: np.array([np.mean(splits[split]) for split in sorted(splits)]) for name, splits in found.items()}


def paired_interval(differences: ArrayLike, comparisons: int = 1, level: float = 0.95) -> Interval:
    """Student's interval for the mean of paired differences (n,), n >= 2; simultaneous over so many comparisons.

    Source: Bonferroni's correction, so that all `comparisons` intervals hold together with probability `level`.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    check_integer("the number of differences", len(values), least=2)
    check_integer("comparisons", comparisons, least=1)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(1 - (1 - level) / (2 * comparisons), len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def spread_interval(first: ArrayLike, second: ArrayLike, comparisons: int = 1, level: float = 0.95) -> Interval:
    """Ratio of two standard deviations over seeds, with its interval; simultaneous over so many comparisons.

    first, second (n, k): a row for each split, a column for each of k >= 2 seeds. The variances over seeds are pooled
    over splits, n (k - 1) degrees of freedom each. Assumes normal numbers whose variance is the same on all splits; it
    is not robust. Source: the F test of two variances, with Bonferroni's correction.
    """
    from scipy import stats

    tables = [np.asarray(values, dtype=float) for values in (first, second)]
    for values in tables:
        if values.ndim != 2 or values.shape[1] < 2:
            raise ValueError(f"numbers must be a row for each split with two seeds or more, got {values.shape}")
    check_integer("comparisons", comparisons, least=1)
    variances = [values.var(axis=1, ddof=1).mean() for values in tables]
    freedom = [len(values) * (values.shape[1] - 1) for values in tables]
    tail = (1 - level) / (2 * comparisons)
    low, high = (variances[0] / variances[1] / stats.f.ppf(q, *freedom) for q in (1 - tail, tail))
    return Interval(*(math.sqrt(x) for x in (variances[0] / variances[1], low, high)))


def dunnett_intervals(values: Mapping[str, ArrayLike], control: str, level: float = 0.95) -> dict[str, Interval]:
    """Simultaneous intervals of all others minus the control, with the pooled residual of a two-way layout.

    values: method -> (n,), one a split. Methods and splits are taken off, (m - 1)(n - 1) degrees of freedom are left.
    Source: Dunnett 1955, A multiple comparison procedure for comparing several treatments with a control.
    """
    from scipy import optimize, stats

    check_choice("control", control, values)
    others = [name for name in values if name != control]
    table = np.array([np.asarray(values[name], dtype=float) for name in [control, *others]])
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    freedom = (len(table) - 1) * (table.shape[1] - 1)
    error = math.sqrt(2 * (rest**2).sum() / freedom / table.shape[1])
    correlation = np.full((len(others),) * 2, 0.5) + 0.5 * np.eye(len(others))
    joint = stats.multivariate_t(shape=correlation, df=freedom, allow_singular=False, seed=0)

    def excess(bound: float) -> float:
        ends = np.full(len(others), bound)
        return joint.cdf(ends, lower_limit=-ends, random_state=0) - level

    half = optimize.brentq(excess, 1.0, 10.0, xtol=1e-4) * error
    means = (table[1:].mean(1) - table[0].mean()).tolist()
    return {name: Interval(mean, mean - half, mean + half) for name, mean in zip(others, means, strict=True)}


def best_of(ranked: Sequence[float], scored: Sequence[float]) -> np.ndarray:
    """Expected score of the best of k settings, k = 1 to n, drawn from n without replacement: (n,).

    The best is the one with the highest number in `ranked`, on one split; what it is worth is said by `scored`, on
    another, so that no setting gains by the luck that made it win.
    """
    order = np.argsort(-np.asarray(ranked, dtype=float), kind="stable")
    worth, n = np.asarray(scored, dtype=float)[order], len(order)
    # The best of k has rank r, from 0, if the k - 1 others are among the n - 1 - r after it.
    return np.array([sum(worth[r] * math.comb(n - 1 - r, k - 1) for r in range(n)) / math.comb(n, k)
                     for k in range(1, n + 1)])


def best_of_band(first: Sequence[float], second: Sequence[float], *, draws: int = 1000, level: float = 0.95,
                 seed: int = 0) -> np.ndarray:
    """`best_of` ranked on each of two splits and scored on the other, their mean, and its band: (3, n).

    Rows: the curve, the low and the high end, which are quantiles over `draws` sets of n settings, drawn with
    replacement from the n. first, second: a number for each setting. Source: Efron's bootstrap, by percentiles.
    """
    values = np.array([first, second], dtype=float)

    def curve(chosen: np.ndarray) -> np.ndarray:
        return (best_of(chosen[0], chosen[1]) + best_of(chosen[1], chosen[0])) / 2

    rng, n = np.random.default_rng(seed), values.shape[1]
    drawn = np.array([curve(values[:, rng.integers(n, size=n)]) for _ in range(draws)])
    return np.vstack([curve(values), np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)])
