"""What follows the search of the fair comparison: which runs there are, and when."""

import dataclasses

import numpy as np
import pytest
import torch

from ncbook import Dataset, Trainer
from ncbook.experiments import TABLES, comparison, follow_up, write_rows

BEST = {"linear_shuffled": 93.0, "linear_clouds": 94.0, "sliding": 94.5, "union": 95.0}


def row(unit, accuracy):
    return {"recipe": unit.name, "split": str(unit.split), "seed": str(unit.recipe.seed), "epoch": "1",
            "test_accuracy": str(accuracy), "settings": unit.settings}


@pytest.fixture
def results(tmp_path):
    """A folder with a finished search, in which setting 03 is the best of every method."""
    for _ in comparison.RUNGS:
        units = comparison.comparison_search(tmp_path)
        rows = [row(unit, BEST.get(unit.name[:-3], 92) - 0.1 * abs(int(unit.name[-2:]) - 3)) for unit in units]
        write_rows(tmp_path / "comparison_search.csv", rows)
    return tmp_path


AFTER = ("comparison_five", "comparison_length", "comparison_start", "comparison_course", "comparison_sizes_search",
         "comparison_sizes")


def test_nothing_follows_before_the_search_is_finished(results):
    rows = comparison.read_rows(results / "comparison_search.csv")
    all_but_one = [each for each in rows if (each["recipe"], each["split"]) != ("fixed_etf_03", "19")]
    write_rows(results / "comparison_search.csv", all_but_one)
    assert all(TABLES[name](results) == [] for name in AFTER)


@pytest.mark.parametrize("name", AFTER)
def test_all_but_the_networks_side_by_side_are_of_held_out_images(results, name):
    datasets = {unit.recipe.dataset for unit in TABLES[name](results)}
    assert datasets <= ({"mnist"} if name == "comparison_five" else {"mnist-held-out", "mnist-rest", "digits-held-out"})
    units = TABLES[name](results)
    assert len({unit.key for unit in units}) == len(units)


def test_five_networks_are_those_of_tuned_linear_and_of_the_best_other(results):
    units = follow_up.comparison_five(results)
    assert [unit.name for unit in units] == 10 * ["linear_clouds_x5"] + 10 * ["union_x5"]
    recipes = comparison.chosen(results)
    for unit in units:
        alone = recipes[unit.name[:-3]]
        assert unit.members == 5 and unit.recipe == dataclasses.replace(alone, dataset="mnist", seed=unit.split)


def test_lengths_and_starts_change_nothing_else(results):
    recipes = comparison.chosen(results)
    for unit in follow_up.comparison_length(results):
        name, length = unit.name[:-4], int(unit.name[-3:])
        own, made = recipes[name], unit.recipe
        assert made.epochs * (31 if made.clouds else 250 // made.batch_size) == pytest.approx(31 * length, abs=5)
        assert made == dataclasses.replace(own, epochs=made.epochs, seed=unit.split, schedule=made.schedule)
    starts = [unit.recipe.schedule.to_dict()["start"] for unit in follow_up.comparison_start(results)[::5]]
    epochs = recipes["delayed"].epochs
    assert starts == [round(share * epochs) for share in follow_up.STARTS]


def test_sliding_has_linear_on_clouds_beside_it_at_equal_steps(results, monkeypatch):
    names = [unit.name for unit in follow_up.comparison_length(results)]
    assert names.count("linear_clouds_080") == names.count("sliding_080") == 5
    monkeypatch.setattr(follow_up, "tuned_linear", lambda found: "linear_shuffled")
    names = [unit.name for unit in follow_up.comparison_length(results)]
    assert names.count("linear_clouds_080") == 5 and names.count("linear_clouds_300") == 0
    assert names.count("linear_shuffled_300") == 5


def test_courses_are_measured_from_the_first_epoch_to_the_last(results):
    units = follow_up.comparison_course(results)
    assert {unit.name for unit in units} == {"linear_clouds", "linear_300", "sliding", "constant", "unit_rows",
                                             "fixed_etf", "nearest_etf"}
    assert all(unit.epochs[0] == 1 and unit.epochs[-1] == unit.recipe.epochs and len(unit.epochs) > 8 for unit in units)


def test_sizes_are_searched_and_then_reported(results):
    tried = follow_up.comparison_sizes_search(results)
    assert len(tried) == 3 * (3 + 2) * 8 * 2
    pairs = {}
    for unit in tried:
        recipe = unit.recipe
        where, size, _ = unit.name.split("_", 2)
        assert recipe.train_size == int(size) and recipe.split == recipe.seed in (10, 11)
        steps = int(size) // (8 if recipe.clouds else min(recipe.batch_size, int(size)))
        pairs.setdefault(unit.name[-2:], set()).add((recipe.weight_decay, round(recipe.epochs * steps / 31)))
    own = pairs.pop("00")
    assert len(own) <= 3 and len(pairs) == 7 and all(len({decay for decay, _ in seen}) == 1 for seen in pairs.values())
    assert comparison_sizes_names(results) == set()
    for _ in range(2):
        units = follow_up.comparison_sizes_search(results)
        write_rows(results / "comparison_sizes_search.csv", [row(unit, 90 + int(unit.name[-2:])) for unit in units])
    assert len(units) == 3 * 5 * (8 * 2 + 3 * 3)
    report = follow_up.comparison_sizes(results)
    assert len(report) == 3 * 5 * 10 and {unit.split for unit in report} == set(range(10))
    last = dict(follow_up._sized(results))["mnist_50_sliding"][7]
    assert report[10].name == "mnist_50_sliding" and report[10].recipe == dataclasses.replace(last, split=0, seed=0)
    kept = [r for r in comparison.read_rows(results / "comparison_sizes_search.csv")
            if (r["recipe"], r["split"]) != ("digits_250_sliding_07", "14")]
    write_rows(results / "comparison_sizes_search.csv", kept)
    assert {name for name in comparison_sizes_names(results) if name.startswith("digits_250")} == set()
    assert len(comparison_sizes_names(results)) == 3 * 4


def comparison_sizes_names(results):
    return {unit.name for unit in follow_up.comparison_sizes(results)}


def test_held_out_digits_are_not_trained_on_and_no_test_image_is_there():
    held, digits = follow_up.digits_held_out(), comparison.load_dataset("digits")
    assert (len(held.train_targets), len(held.test_targets)) == (737, 700)
    both = torch.cat([held.train_inputs, held.test_inputs]).flatten(1)
    assert torch.equal(both.sort(0)[0], digits.train_inputs.flatten(1).sort(0)[0])


def test_the_published_stem_trains_with_three_heads():
    images, targets = torch.rand(20, 1, 28, 28), torch.arange(20) % 10
    data = Dataset("mnist", images, targets, images, targets, tuple("0123456789"))
    units = {unit.name: unit for unit in follow_up.mnist_stem()}
    assert list(units) == ["standard", "fixed", "nearest"] and len(follow_up.mnist_stem()) == 9
    for unit in units.values():
        trainer = Trainer(dataclasses.replace(unit.recipe, batch_size=10, device="cpu"), data=data)
        assert trainer.backbone[0].conv1.kernel_size == (7, 7) and np.isfinite(float(trainer.step()))
