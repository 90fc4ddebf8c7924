"""The claims of the two sources: for each the one contrast that decides it, fixed before the report was run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncbook.experiments.comparison import METHODS, RESULTS, Settings, tried
from ncbook.experiments.intervals import Interval, by_split, paired_interval, spread_interval
from ncbook.experiments.runner import read_rows

Rows = Sequence[Mapping[str, str]]
BOUND = 0.1  # of NC1: the first measured step below it is when a method has collapsed, as in chapter Reproduction


class Contrast(NamedTuple):
    """A claim and what decides it: the numbers of two recipes of a table, paired over splits, first less second.

    ratio: the factor between them, from differences of logarithms. above: whether the claim is that the difference is
    above 0, or the factor above 1, and not below. A recipe "shortest" or "longest" is that of the
    shortest or longest training of tuned linear in which all images are learned on all splits.
    """

    claim: str
    decided_by: str
    table: str
    first: str
    second: str
    column: str = "test_accuracy"
    ratio: bool = False
    above: bool = True


SPREAD = Contrast("the nearest ETF reduces the spread over seeds", "against learned unit rows, both tuned",
                  "comparison", "nearest_etf", "unit_rows", ratio=True, above=False)
CLAIMS = (
    SPREAD,
    Contrast("too early a collapse keeps classes from separating",
             "delayed as chosen, but from the first step, against from half of the epochs", "comparison_start",
             "delayed_00", "delayed_50", above=False),
    Contrast("test accuracy rises with collapse after training accuracy is 1",
             "tuned linear, the longest against the shortest training with accuracy 1", "comparison_length", "longest",
             "shortest"),
    Contrast("sliding beats constant densification", "both tuned", "comparison", "sliding", "constant"),
    Contrast("sliding speeds convergence to the ETF", "ETF distance against linear on clouds after 80 × 31 steps",
             "comparison_length", "sliding_080", "linear_clouds_080", "train_etf_distance", ratio=True, above=False),
    Contrast("sliding speeds convergence to duality", "NC3 against linear on clouds after 80 × 31 steps",
             "comparison_length", "sliding_080", "linear_clouds_080", "train_nc3", ratio=True, above=False),
    Contrast("densification brings test points nearer to their class",
             "NC1 quotient, held-out: delayed as chosen, but from the first step, against in the last tenth only",
             "comparison_start", "delayed_00", "delayed_90", "test_nc1_quotient", ratio=True, above=False),
    Contrast("densification needs a late start", "delayed against constant, both tuned", "comparison", "delayed",
             "constant"),
)


class Decision(NamedTuple):
    """What a contrast found, on how many of how many splits; no interval with fewer than two, or in SPREAD if a run of
    either is lost."""

    interval: Interval | None
    pairs: int
    of: int


def decide(contrast: Contrast, results: Path = RESULTS, comparisons: int = len(CLAIMS)) -> Decision:
    """The difference, or the factor, of a contrast with its interval, simultaneous over so many comparisons.

    The number of a split is the mean over its seeds, of logarithms for a factor. An accuracy of a run that diverged is
    chance, 10 per cent; any other number of it, and what is not finite and positive where a logarithm is taken, is left
    out together with its split. Raises FileNotFoundError and KeyError where the rows are not there.
    """
    rows = read_rows(Path(results) / f"{contrast.table}.csv")
    if not rows:
        raise FileNotFoundError(f"{contrast.table} has no rows in {results}")
    lengths = learned_lengths(rows) if "longest" in contrast else {}
    names = [lengths.get(name, name) for name in (contrast.first, contrast.second)]
    kept = [row for row in rows if row["recipe"] in names]
    found = by_split(kept, contrast.column, log=contrast.ratio and contrast is not SPREAD)
    gaps = found[names[0]] - found[names[1]]
    if contrast is SPREAD:
        one, other = ([[float(row["test_accuracy"]) for row in kept if (row["recipe"], row["split"]) == (name, split)]
                       for split in sorted({row["split"] for row in kept})] for name in names)
        lost = any(row.get("diverged") for row in kept)
        return Decision(None if lost else spread_interval(one, other, comparisons), len(gaps), len(gaps))
    whole = gaps[np.isfinite(gaps)]
    interval = paired_interval(whole, comparisons) if len(whole) > 1 else None
    if interval and contrast.ratio:
        interval = Interval(*(math.exp(end) for end in interval))
    return Decision(interval, len(whole), len(gaps))


def verdict(contrast: Contrast, decision: Decision) -> str:
    """What is said of a claim: "supported" or "contradicted" if the interval lies on one side, else "not decided"."""
    if decision.interval is None:
        return "not decided"
    null = 1 if contrast.ratio else 0
    above, below = decision.interval.low > null, decision.interval.high < null
    return "not decided" if not (above or below) else "supported" if above == contrast.above else "contradicted"


def learned_lengths(rows: Rows) -> dict[str, str]:
    """"shortest" and "longest": recipes of tuned linear in a table of lengths that learn all images on all splits.

    Tuned linear is the one with rows of more than one length. Raises ValueError where fewer than two lengths learn all.
    """
    learned: dict[str, list[bool]] = {}
    for row in rows:
        if row["recipe"].startswith("linear"):
            perfect = not row.get("diverged") and float(row["train_accuracy"]) == 100
            learned.setdefault(row["recipe"], []).append(perfect)
    base = max({name[:-4] for name in learned}, key=lambda base: sum(name[:-4] == base for name in learned))
    whole = sorted(name for name, perfect in learned.items() if name[:-4] == base and all(perfect))
    if len(whole) < 2:
        raise ValueError(f"two lengths of {base} or more must learn all training images, got {whole}")
    return {"shortest": whole[0], "longest": whole[-1]}


def first_below(rows: Iterable[Mapping[str, str]], column: str = "train_nc1", bound: float = BOUND, *,
                clock: str = "step") -> dict[str, dict]:
    """Recipe -> (split, seed) -> the first measured step, or epoch, at which a column is below the bound; inf: at none.

    clock: the column that counts, "step" or "epoch".
    """
    found: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        steps = found.setdefault(row["recipe"], {})
        run = row["split"], row["seed"]
        below = not row.get("diverged") and float(row[column] or math.nan) < bound
        steps[run] = min(steps.get(run, math.inf), int(row[clock]) if below else math.inf)
    return found


def ahead(first: Mapping[str, Mapping], name: str, others: Sequence[str]) -> tuple[int, int, int]:
    """In how many runs `name` is before all others, in how many it ties with the first of them, and of how many.

    first: what `first_below` returns. Where none of them gets below the bound, the run counts as neither.
    """
    pairs = [(steps, min(first[other][run] for other in others)) for run, steps in first[name].items()]
    return (sum(own < other for own, other in pairs), sum(own == other < math.inf for own, other in pairs), len(pairs))


def edges(method: str, settings: Settings) -> list[str]:
    """The dials whose chosen value is one of the two lowest or highest that were tried: a better one may lie outside.

    β and weight among settings of the same norm. Of 16 values 4 are such by chance.
    """
    found = []
    for dial, value in settings.items():
        if dial in ("batch", "p") or isinstance(value, bool | str):
            continue
        same = [each for each in tried(method) if dial not in ("beta0", "weight") or each["p"] == settings["p"]]
        values = sorted({each[dial] for each in same})
        if value in (*values[:2], *values[-2:]):
            found.append(dial)
    return found


def dials(method: str) -> int:
    """How many dials a method was tuned by: learning rate, weight decay, length, its own, and its batches' if any."""
    return 3 + METHODS[method].dials + (len(set(METHODS[method].batches)) > 1)
