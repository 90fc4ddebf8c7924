"""The claims of the two sources: contrasts that are fixed, pairs over splits, and runs that are lost."""

import math

import numpy as np
import pytest
from scipy import stats

from ncbook.experiments import TABLES, claims, comparison, write_rows
from ncbook.experiments.claims import CLAIMS, SPREAD, decide
from ncbook.experiments.intervals import Interval, spread_interval


def row(recipe, split, seed=0, **numbers):
    own = {key: str(number) for key, number in numbers.items()}
    return {"recipe": recipe, "split": str(split), "seed": str(seed), "epoch": "1"} | own


def contrast(claim):
    (found,) = (each for each in CLAIMS if claim in each.claim)
    return found


def test_every_contrast_is_of_a_table_that_is_run():
    assert {each.table for each in CLAIMS} <= set(TABLES) and len({each.claim for each in CLAIMS}) == len(CLAIMS) == 8


def test_accuracies_are_paired_over_splits_and_a_lost_run_counts_as_chance(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.normal(94, 1, (10, 2)), rng.normal(93, 1, (10, 2))
    rows = [row(name, split, seed, test_accuracy=table[split, seed]) for name, table in
            (("sliding", first), ("constant", second)) for split in range(10) for seed in range(2)]
    write_rows(tmp_path / "comparison.csv", rows)
    found = decide(contrast("beats constant"), tmp_path, comparisons=1)
    low, high = stats.ttest_rel(first.mean(1), second.mean(1)).confidence_interval(0.95)
    assert found.interval[1:] == pytest.approx((low, high), rel=1e-6) and found[1:] == (10, 10)
    wide = decide(contrast("beats constant"), tmp_path).interval
    assert wide.low < low < high < wide.high
    rows[0] |= {"diverged": "yes", "test_accuracy": "0"}
    write_rows(tmp_path / "comparison.csv", rows)
    lost = decide(contrast("beats constant"), tmp_path, 1).interval.mean
    assert lost == pytest.approx(found.interval.mean - (first[0, 0] - 10) / 20, rel=1e-6)


def test_factors_are_geometric_and_leave_out_what_has_no_logarithm(tmp_path):
    rows = [row(name, split, train_nc3=value * (1 + 0.1 * split), train_accuracy=100)
            for name, value in (("sliding_080", 0.5), ("linear_clouds_080", 0.25)) for split in range(5)]
    write_rows(tmp_path / "comparison_length.csv", rows)
    found = decide(contrast("duality"), tmp_path)
    assert found.interval == pytest.approx((2, 2, 2)) and found[1:] == (5, 5)
    rows[0]["train_nc3"], rows[7]["train_nc3"] = "nan", "0"
    write_rows(tmp_path / "comparison_length.csv", rows)
    assert decide(contrast("duality"), tmp_path)[1:] == (3, 5)
    for each in rows[:4]:
        each["train_nc3"] = "inf"
    write_rows(tmp_path / "comparison_length.csv", rows)
    assert decide(contrast("duality"), tmp_path) == (None, 1, 5)


def test_the_lengths_of_tuned_linear_are_those_that_learn_all_images(tmp_path):
    rows = [row(f"linear_shuffled_{length:03d}", split, test_accuracy=90 + length / 100,
                train_accuracy=100 if length > 10 + 30 * (split == 2) else 99.6)
            for length in (10, 20, 40, 80, 300) for split in range(5)]
    rows += [row("linear_clouds_080", split, test_accuracy=0, train_accuracy=100) for split in range(5)]
    assert claims.learned_lengths(rows) == {"shortest": "linear_shuffled_080", "longest": "linear_shuffled_300"}
    write_rows(tmp_path / "comparison_length.csv", rows)
    assert decide(contrast("rises with collapse"), tmp_path).interval == pytest.approx((2.2, 2.2, 2.2))
    with pytest.raises(ValueError, match="learn all"):
        claims.learned_lengths(rows[:5])


def test_the_spread_over_seeds_is_that_of_two_variances(tmp_path):
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 0.3, (10, 2)) + np.arange(10)[:, None], rng.normal(0, 0.6, (10, 2))
    ratio, low, high = spread_interval(first, second)
    assert ratio == pytest.approx(math.sqrt((np.diff(first) ** 2).mean() / (np.diff(second) ** 2).mean()))
    assert low < ratio < high and stats.f.cdf((ratio / low) ** 2, 10, 10) == pytest.approx(0.975)
    assert spread_interval(first, second, 8).low < low
    with pytest.raises(ValueError, match="two seeds"):
        spread_interval(first[:, :1], second)
    rows = [row(name, split, seed, test_accuracy=table[split, seed]) for name, table in
            (("nearest_etf", first), ("unit_rows", second)) for split in range(10) for seed in range(2)]
    write_rows(tmp_path / "comparison.csv", rows)
    assert decide(SPREAD, tmp_path, 1).interval == pytest.approx((ratio, low, high))
    rows[3]["diverged"] = "yes"
    write_rows(tmp_path / "comparison.csv", rows)
    assert decide(SPREAD, tmp_path).interval is None


def test_rows_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="comparison_start"):
        decide(contrast("too early"), tmp_path)
    write_rows(tmp_path / "comparison.csv", [row("sliding", 0, test_accuracy=90)])
    with pytest.raises(KeyError, match="constant"):
        decide(contrast("beats constant"), tmp_path)


def test_a_verdict_needs_an_interval_on_one_side():
    up, down = contrast("beats constant"), contrast("duality")
    for interval, difference, factor in ((Interval(2, 1.5, 3), "supported", "contradicted"),
                                         (Interval(0.5, 0.2, 0.9), "supported", "supported"),
                                         (Interval(-1, -2, -0.1), "contradicted", "supported"),
                                         (Interval(1, -0.1, 3), "not decided", "not decided"),
                                         (None, "not decided", "not decided")):
        decision = claims.Decision(interval, 5, 5)
        assert (claims.verdict(up, decision), claims.verdict(down, decision)) == (difference, factor)


def test_who_collapses_first():
    rows = [row(name, split, step=step, train_nc1=nc1) for name, course in {
        "nearest": (0.5, 0.05, 0.01), "fixed": (0.5, 0.09, 0.2), "standard": (0.5, 0.3, 0.09)}.items()
        for split in range(2) for step, nc1 in zip((10, 20, 30), course)]
    rows += [row("never", split, step=10, train_nc1="nan") for split in range(2)]
    rows[0] |= {"train_nc1": "0.02"}
    first = claims.first_below(rows)
    assert claims.first_below(rows, clock="epoch")["nearest"] == {("0", "0"): 1, ("1", "0"): 1}
    assert first["nearest"] == {("0", "0"): 10, ("1", "0"): 20} and set(first["never"].values()) == {math.inf}
    assert claims.ahead(first, "nearest", ["fixed", "standard"]) == (1, 1, 2)
    assert claims.ahead(first, "never", ["never"]) == (0, 0, 2)


def test_a_setting_at_the_edge_of_what_was_tried_is_named():
    settings = comparison.tried("sliding")
    lowest = min(settings, key=lambda each: each["lr"])
    assert "lr" in claims.edges("sliding", lowest)
    assert claims.edges("sliding", settings[0]).count("length") == 1  # the published one is the longest
    middle = {key: sorted(each[key] for each in settings)[8] for key in ("lr", "weight_decay", "length")}
    assert not {"lr", "weight_decay", "length"} & set(claims.edges("sliding", settings[1] | middle))
    assert [claims.dials(name) for name in ("linear_clouds", "linear_shuffled", "sliding", "union", "nearest_etf")] == [
        3, 4, 6, 7, 5]
