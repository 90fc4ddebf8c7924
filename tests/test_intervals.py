"""Intervals over splits, against scipy, draws and enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ncbook.experiments.intervals import best_of, best_of_band, by_split, dunnett_intervals, paired_interval

RNG = np.random.default_rng(0)


def test_one_paired_interval_is_that_of_scipy():
    differences = RNG.normal(0.3, 1, 10)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert paired_interval(differences) == pytest.approx((differences.mean(), *expected))


def test_bonferroni_intervals_hold_together():
    truth = np.linspace(-1, 1, 9)
    missed = 0
    for _ in range(400):
        samples = RNG.normal(truth[:, None], 1, (9, 10))
        found = [paired_interval(sample, 9) for sample in samples]
        missed += any(not (each.low < mean < each.high) for each, mean in zip(found, truth, strict=True))
    assert 2 <= missed <= 36  # 5% of 400 is 20


def test_dunnett_has_the_drawn_critical_value_and_leaves_splits_out():
    values = {f"m{i}": RNG.normal(size=10) for i in range(10)}
    found = dunnett_intervals(values, "m0")
    table = np.array(list(values.values()))
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    error = np.sqrt(2 * (rest**2).sum() / 81 / 10)
    halves = [(each.high - each.low) / 2 / error for each in found.values()]
    drawn, spread = RNG.normal(size=(400_000, 10)), np.sqrt(RNG.chisquare(81, 400_000) / 81)
    largest = np.abs(drawn[:, 1:] - drawn[:, :1]).max(1) / np.sqrt(2) / spread
    assert halves == pytest.approx([np.quantile(largest, 0.95)] * 9, abs=0.015)
    shifted = dunnett_intervals({name: value + 100 * np.arange(10) for name, value in values.items()}, "m0")
    for name in found:
        assert found[name].mean == pytest.approx(values[name].mean() - values["m0"].mean())
        assert shifted[name] == pytest.approx(found[name], abs=1e-6)
    with pytest.raises(ValueError, match="control"):
        dunnett_intervals(values, "m10")


def test_best_of_is_the_mean_over_all_draws():
    ranked, scored = RNG.normal(size=6), RNG.normal(size=6)
    for k, expected in enumerate(best_of(ranked, scored), start=1):
        draws = list(itertools.combinations(range(6), k))
        mean = np.mean([scored[max(draw, key=lambda i: ranked[i])] for draw in draws])
        assert expected == pytest.approx(mean)
    assert best_of(ranked, scored)[-1] == pytest.approx(scored[np.argmax(ranked)])


def test_the_band_of_best_of_holds_the_curve_of_the_population():
    truth = RNG.normal(size=4000)
    population = np.mean([np.max(truth[RNG.integers(4000, size=(5000, k))], axis=1) for k in (1, 4, 16)], axis=1)
    inside = np.zeros(3)
    for _ in range(60):
        settings = RNG.choice(truth, 16)  # a setting has the same worth on both splits
        curve, low, high = best_of_band(settings, settings, draws=300)
        assert curve == pytest.approx(best_of(settings, settings))
        inside += [low[k - 1] <= value <= high[k - 1] for k, value in zip((1, 4, 16), population, strict=True)]
    assert inside[0] >= 48 and inside[1] >= 42  # of 60; a percentile band of 16 draws is a little narrow
    one, other = RNG.normal(size=(2, 16))
    assert best_of_band(one, other)[0] == pytest.approx((best_of(one, other) + best_of(other, one)) / 2)


def test_rows_become_one_number_a_split():
    def row(recipe, split, value, diverged=""):
        return {"recipe": recipe, "split": str(split), "test_accuracy": str(value), "diverged": diverged}

    rows = [row("a", 1, 90), row("a", 0, 80), row("a", 1, 92), row("b", 0, 70), row("b", 1, 0, "1")]
    found = by_split(rows)
    assert found["a"].tolist() == [80, 91] and found["b"].tolist() == [70, 10]
    with pytest.raises(ValueError, match="same splits"):
        by_split(rows[:-1])
