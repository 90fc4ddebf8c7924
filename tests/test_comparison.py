"""The fair comparison: equal effort, settings that are the same at each call, and rungs that follow from kept rows."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ncbook import ConstantSchedule, Dataset, Recipe, Trainer, joint_snapshot, load_dataset, nearest_simplex_etf
from ncbook.experiments import Unit, comparison, run_table, write_rows
from ncbook.experiments.comparison import CONFIGURATIONS, METHODS, RUNGS, STEPS, UnionHead, configurations
from ncbook.training.data import DATASETS, Source


def row(unit, accuracy):
    return {"recipe": unit.name, "split": str(unit.split), "seed": str(unit.recipe.seed), "epoch": "1",
            "test_accuracy": str(accuracy), "settings": unit.settings}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_as_many_settings_the_published_one_first(method):
    recipes = configurations(method)
    assert len(set(recipes)) == CONFIGURATIONS and recipes == configurations(method)
    assert recipes[0] == comparison.recipe(method, METHODS[method].published)
    assert {recipe.dataset for recipe in recipes} == {"mnist-held-out"}
    densified = method in ("constant", "delayed", "sliding", "union")
    assert {recipe.schedule is not None for recipe in recipes} == {densified}
    for recipe in recipes:
        steps = recipe.epochs * (STEPS if recipe.clouds else 250 // recipe.batch_size)
        assert 14 * STEPS <= steps <= 201 * STEPS
        assert Unit.from_settings("", Unit("", recipe, published_split=10).settings).recipe == recipe


def length(recipe):
    return round(recipe.epochs / (1 if recipe.clouds else STEPS / (250 // recipe.batch_size)))


def test_rates_decays_and_lengths_are_the_same_for_every_method_and_fill_their_ranges():
    triples = {tuple((r.lr, r.weight_decay, length(r)) for r in configurations(method)[1:]) for method in METHODS}
    assert len(triples) == 1
    for values, low, high in zip(zip(*triples.pop(), strict=True), (0.01, 1e-4, 15), (0.3, 3e-2, 200), strict=True):
        gaps = np.diff(np.log([low, *sorted(values), high])) / np.log(high / low) * 15
        assert gaps == pytest.approx([0.5, *[1] * 14, 0.5], abs=0.25)  # lengths are whole


def test_own_dials_fill_their_ranges_beside_the_common_ones():
    for method in ("smoothing", "unit_rows", "union"):
        name = "label_smoothing" if method == "smoothing" else "scale"
        values = np.log(sorted(getattr(r, name) for r in configurations(method)[1:]))
        np.testing.assert_allclose(np.diff(values), (values[-1] - values[0]) / 14, atol=0.01)
    for method, heaviest in (("constant", 0.1), ("delayed", 0.1), ("sliding", 0.3), ("union", 0.3)):
        by_norm = {p: [r.schedule.to_dict() for r in configurations(method)[1:] if r.p == p] for p in (1, 2)}
        assert [len(schedules) for schedules in by_norm.values()] == [7, 8]
        for p, (low, high), (light, heavy) in ((1, (0.3, 12), (3e-4, heaviest)), (2, (0.05, 2), (3e-3, 1))):
            assert all(low < s["beta0"] < high and light < s["weight"] < heavy for s in by_norm[p])


def test_constant_starts_from_its_published_setting():
    first = configurations("constant")[0]
    assert (first.schedule, first.p, first.weight_decay) == (ConstantSchedule(0.7, 0.1), 2, 0.001)


def test_batches_are_a_dial_of_methods_without_densification_in_one_order():
    def batches(method):
        return [recipe.clouds or recipe.batch_size for recipe in configurations(method)[1:]]

    shared = batches("smoothing")
    assert all(batches(method) == shared for method in ("unit_rows", "fixed_etf", "nearest_etf"))
    assert [shared.count(batch) for batch in ((8, 16), 25, 50, 125)] == [8, 2, 3, 2]
    assert [batches("linear_shuffled").count(batch) for batch in (25, 50, 125)] == [5, 5, 5]
    for method in ("linear_clouds", "constant", "delayed", "sliding", "union"):
        assert batches(method) == 15 * [(8, 16)]


def test_rungs_follow_from_the_rows_and_end_in_one_setting(tmp_path):
    value = {f"{method}_{number:02d}": (7 * number) % 16 for method in METHODS for number in range(16)}
    file, sizes = tmp_path / "comparison_search.csv", []
    for _ in range(4):
        units = comparison.comparison_search(tmp_path)
        sizes.append(len(units))
        assert len({unit.key for unit in units}) == len(units)
        write_rows(file, [row(unit, value[unit.name] + 0.01 * unit.split) for unit in units])
    assert sizes == [len(METHODS) * n for n in (32, 32 + 18, 32 + 18 + 10, 32 + 18 + 10)]
    best = max(range(16), key=lambda number: (7 * number) % 16)
    assert comparison.chosen(tmp_path) == {method: configurations(method)[best] for method in METHODS}
    report = comparison.comparison(tmp_path)
    assert len(report) == 20 * len(METHODS) and {unit.recipe.dataset for unit in report} == {"mnist"}
    assert {unit.published_split for unit in report} == set(range(10))
    assert {split for _, splits in RUNGS for split in splits} == set(range(10, 20))


def test_a_method_waits_for_all_of_its_settings(tmp_path):
    units = comparison.comparison_search(tmp_path)
    write_rows(tmp_path / "comparison_search.csv", [row(unit, 90) for unit in units[:-1]])
    later = [unit for unit in comparison.comparison_search(tmp_path) if unit.split > 11]
    assert {unit.name.rpartition("_")[0] for unit in later} == set(METHODS) - {units[-1].name.rpartition("_")[0]}
    assert comparison.chosen(tmp_path) == {} and comparison.comparison(tmp_path) == []


def test_the_report_waits_for_the_choices_of_all_methods(tmp_path):
    for _ in RUNGS:
        units = comparison.comparison_search(tmp_path)
        write_rows(tmp_path / "comparison_search.csv", [row(unit, 90) for unit in units])
    assert comparison.comparison(tmp_path)
    last = [unit for unit in units if unit.name.startswith("union")][-1]
    write_rows(tmp_path / "comparison_search.csv", [row(unit, 90) for unit in units if unit is not last])
    assert set(comparison.chosen(tmp_path)) == set(METHODS) - {"union"} and comparison.comparison(tmp_path) == []


def test_a_search_with_settings_that_diverge_goes_on_to_its_end(tmp_path, monkeypatch):
    digits = load_dataset("digits")
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    splits = np.random.default_rng(0).permuted(np.tile(np.arange(1437), (20, 1)), axis=1)[:, :250]
    np.savez(tmp_path / "splits_250.npz", MNIST_train=splits)
    monkeypatch.setitem(DATASETS, "mnist-held-out", Source(lambda: digits))
    monkeypatch.setattr(comparison, "MNIST250", Recipe(clouds=(8, 16), device="cpu"))
    monkeypatch.setattr(comparison, "RUNGS", ((4, (10,)), (2, (11,))))
    monkeypatch.setattr(comparison, "METHODS", {"sliding": METHODS["sliding"]})
    short = METHODS["sliding"].published | {"length": 2, "weight": 1e-4, "weight_decay": 0.0}
    monkeypatch.setattr(comparison, "tried", lambda method: [short | {"lr": rate} for rate in (1e30, 0.1, 1e12, 1e15)])
    recipes = comparison.configurations("sliding")
    for _ in range(3):
        units = comparison.comparison_search(tmp_path)
        rows = run_table(units, tmp_path / "comparison_search.csv", jobs=1, progress=False)
    assert len(rows) == 4 + 2 and comparison.chosen(tmp_path) == {"sliding": recipes[1]}
    for kept in rows:
        sound = kept["recipe"] == "sliding_01"
        assert kept["epoch"] == "2" and (kept["diverged"] == "") == sound == (float(kept["test_accuracy"]) > 50)
        assert (kept["train_accuracy"] == "" and 0 < int(kept["step"]) < 62) != sound


def test_what_is_no_number_counts_as_nothing_right():
    units = [Unit(name, Recipe()) for name in "abcd"]
    rows = [row(unit, accuracy) for unit, accuracy in zip(units, ("nan", "", "inf", 90.0), strict=True)]
    assert [by_split[0] for by_split in comparison.scores(rows).values()] == [0, 0, 0, 90]


def test_held_out_images_are_in_no_published_split(monkeypatch):
    count = 12_000
    data = Dataset("mnist", torch.arange(count), torch.arange(count) % 10, torch.arange(5), torch.arange(5), ("a",))
    splits = np.random.default_rng(1).choice(count, (20, 60), replace=False)
    monkeypatch.setattr(comparison, "load_dataset", lambda name: data)
    monkeypatch.setattr(comparison, "published_splits", lambda name: splits)
    held = comparison.held_out()
    assert len(set(held.test_inputs.tolist())) == comparison.HELD_OUT
    assert not set(held.test_inputs.tolist()) & set(splits.ravel().tolist())
    assert torch.equal(held.test_targets, held.test_inputs % 10) and held.train_inputs is data.train_inputs
    rest = comparison.held_out(rest=True)
    assert torch.equal(rest.test_inputs, held.test_inputs) and torch.equal(rest.train_targets, rest.train_inputs % 10)
    trained = set(rest.train_inputs.tolist())
    assert trained == set(range(count)) - set(held.test_inputs.tolist()) - set(splits.ravel().tolist()) and trained


def test_union_goes_from_the_learned_rows_to_the_nearest_frame():
    torch.manual_seed(0)
    head, x, y = UnionHead(8, 3, scale=2.0), torch.randn(30, 8) + 1, torch.arange(30) % 3
    assert torch.equal(head(x, y), head.learned(x)) and torch.equal(head.weight, head.learned.weight)
    head.follow(1.0)
    means = torch.stack([x[y == c].mean(0) for c in range(3)])
    head = UnionHead(8, 3, scale=2.0)
    head.follow(0.25)
    logits = head(x, y)
    frame = nearest_simplex_etf(means, previous=UnionHead(8, 3).nearest.weight)
    weight = 0.75 * head.learned.weight + 0.25 * 2 * frame
    bias = 0.75 * head.learned.bias - 0.25 * 2 * frame @ means.mean(0)
    torch.testing.assert_close(logits, F.linear(x, weight, bias))
    torch.testing.assert_close((head.weight, head.bias), (weight, bias))
    head.eval()
    torch.testing.assert_close(head(x), logits)


def test_the_union_follows_the_epochs_and_survives_a_checkpoint():
    recipe = dataclasses.replace(configurations("union")[0], dataset="digits", train_size=60, backbone="small_cnn",
                                 clouds=(6, 4), epochs=4, device="cpu")
    trainer = Trainer(recipe)
    shares = []
    while not trainer.finished:
        trainer.run_epoch()
        shares.append(float(trainer.head.share))
    assert shares == [0.25, 0.5, 0.75, 1.0]
    again = Trainer(recipe)
    again.load_state_dict(trainer.state_dict())
    assert again.snapshot().row() == trainer.snapshot().row()
    torch.testing.assert_close(trainer.snapshot().weight, recipe.scale * trainer.head.nearest.weight)


def test_networks_of_every_method_can_be_put_side_by_side():
    for method in METHODS:
        recipe = dataclasses.replace(configurations(method)[0], dataset="digits", train_size=60, backbone="small_cnn",
                                     clouds=(6, 4), epochs=2, device="cpu")
        trainers = [Trainer(dataclasses.replace(recipe, seed=seed)) for seed in range(2)]
        for trainer in trainers:
            trainer.run_epoch()
        joint, x, y = joint_snapshot(trainers), trainers[0].data.test_inputs, trainers[0].data.test_targets
        with torch.no_grad():
            logits = torch.stack([trainer.head(trainer.backbone(x)) for trainer in trainers]).mean(0)
        assert joint.test["loss"] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-4), method


def test_label_smoothing_acts_in_training_alone():
    plain = Recipe(train_size=60, epochs=2, device="cpu")
    first, second = (Trainer(dataclasses.replace(plain, label_smoothing=value)) for value in (0.0, 0.3))
    assert first.snapshot().train["loss"] == second.snapshot().train["loss"]
    inputs, targets = first.data.train_inputs[first._draw_epoch()[0]], first.data.train_targets[first._draw_epoch()[0]]
    logits = second.head(second.backbone.train()(inputs), targets)
    smoothed = F.cross_entropy(logits, targets, label_smoothing=0.3).item()
    assert second.step().item() == pytest.approx(smoothed, rel=1e-5)
    with pytest.raises(ValueError, match="label_smoothing"):
        Recipe(label_smoothing=1.0)
    with pytest.raises(ValueError, match="label_smoothing"):
        Recipe(head="fixed", loss="dot_regression", label_smoothing=0.1)
