"""What the files of tables say, and that they live on: columns, settings, kept rows."""

import csv
import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import pytest

from ncbook import ConstantSchedule, DelayedSchedule, Recipe, SlidingSchedule
from ncbook.experiments import COLUMNS, TABLES, Unit, published_splits, read_rows, run_table, run_unit, write_rows
from ncbook.metrics import METRICS, Metric
from ncbook.schedules import SCHEDULES

RESULTS = Path(__file__).resolve().parent.parent / "notebooks" / "results"
BASE = Recipe(classes=3, train_size=30, epochs=2, batch_size=10, feature_dim=4, device="cpu")
UNITS = [Unit(name, BASE, measured=(0, 2)) for name in ("first", "second")]
CLOUDS = dict(clouds=(2, 3), epochs=9)


def anywhere(unit):
    return dataclasses.replace(unit, recipe=dataclasses.replace(unit.recipe, device="auto"))


@pytest.mark.parametrize("table", TABLES)
def test_settings_give_every_unit_of_the_tables_back(table):
    units = TABLES[table]()
    assert len({unit.key for unit in units}) == len(units)
    for unit in units:
        assert Unit.from_settings(unit.name, unit.settings) == unit
        assert unit.epochs[-1] == unit.recipe.epochs


@pytest.mark.parametrize("unit", [
    Unit("inf", Recipe(p=math.inf, schedule=ConstantSchedule(1, 0.3), classes=(3, 1), device="cpu", **CLOUDS)),
    Unit("delayed", Recipe(schedule=DelayedSchedule(1.5, 0.1, 3), **CLOUDS), measured=(0, 4), members=3),
    Unit("sliding", Recipe("svhn", schedule=SlidingSchedule(1.1, 1e-9, 7), lr=1 / 3, **CLOUDS), published_split=19),
], ids=lambda unit: unit.name)
def test_settings_say_all_but_the_device(unit):
    values = json.loads(unit.settings)
    assert values["recipe"].keys() == {field.name for field in dataclasses.fields(Recipe)} - {"device"}
    assert values.keys() == {"recipe", "published_split", "measured", "members"}
    assert Unit.from_settings(unit.name, unit.settings) == anywhere(unit)


def test_fields_that_settings_lack_have_their_defaults():
    assert Unit.from_settings("old", '{"recipe": {"head": "nearest"}}') == Unit("old", Recipe(head="nearest"))


@pytest.mark.parametrize("text", ["", "5 x Recipe(lr=0.2)", "[]", "3", "{}", '{"recipe": {"colour": 1}}',
                                  '{"recipe": {}, "colour": 1}', '{"recipe": {"head": "none"}}'])
def test_other_settings_are_refused(text):
    with pytest.raises(ValueError, match="settings are not those of a unit"):
        Unit.from_settings("any", text)


class Own(ConstantSchedule):
    """A schedule that is in no mapping."""


class Unequal:
    """A schedule that is never equal to the one that was written."""

    def beta(self, epoch):
        return 1.0

    def weight(self, epoch):
        return 0.1

    def to_dict(self):
        return {"schedule": "Unequal"}


@pytest.mark.parametrize(("error", "message", "changes"), [
    (ValueError, "dataset", dict(recipe=Recipe("my-data"))),
    (ValueError, "backbone", dict(recipe=Recipe(backbone="my-network"))),
    (TypeError, "schedule", dict(recipe=Recipe(schedule=Own(1, 1), **CLOUDS))),
    (TypeError, "read back", dict(recipe=Recipe(schedule=Unequal(), **CLOUDS))),
    (ValueError, "members", dict(members=0)), (TypeError, "members", dict(members=1.5)),
    (ValueError, "measured", dict(measured=())), (ValueError, "measured", dict(measured=(2, 1))),
    (ValueError, "measured", dict(measured=(1, 3))), (TypeError, "measured", dict(measured=(0.5,))),
    (ValueError, "published_split", dict(recipe=Recipe("mnist"), published_split=20)),
    (ValueError, "published_split", dict(published_split=0)),
])
def test_units_that_could_not_be_run_or_read_back_are_refused(error, message, changes, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "Unequal", Unequal)
    with pytest.raises(error, match=message):
        dataclasses.replace(UNITS[0], **changes)


def test_published_splits_are_of_two_data_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="'mnist', 'mnist-held-out', 'svhn', got 'digits'"):
        published_splits("digits")
    with pytest.raises(FileNotFoundError, match="splits_250.npz"):
        published_splits("mnist")


def test_a_table_with_fewer_and_other_columns_is_read_and_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    rows = [{key: row[key] for key in ("epoch", "recipe", "seed", "split", "train_nc1", "settings")} | {"note": "mine"}
            for row in run_unit(UNITS[0])]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert read_rows(path) == [dict.fromkeys(COLUMNS, "") | row for row in rows]
    monkeypatch.setitem(METRICS, "new", Metric("new", "new", lambda summary: summary.between.norm()))
    made = run_table(UNITS, path, jobs=1, progress=False)
    kept = read_rows(path)
    assert list(kept[0]) == [*COLUMNS, "note", "train_new", "test_new"]
    assert [row["note"] for row in kept] == [row["note"] for row in made[:2]] + ["", ""] == ["mine", "mine", "", ""]
    assert [float(row["train_new"] or 0) > 0 for row in kept] == [False, False, True, True]
    monkeypatch.undo()
    assert [row | {"note": ""} for row in run_table(UNITS, path, jobs=1, progress=False)[2:]] == kept[2:]


def test_rows_of_settings_that_lack_a_field_are_those_of_its_default(tmp_path):
    path = tmp_path / "table.csv"
    rows = run_unit(UNITS[0])
    settings = json.loads(rows[0]["settings"])
    del settings["recipe"]["regulariser"], settings["members"]
    kept = [row | {"settings": json.dumps(settings)} for row in rows]
    write_rows(path, kept)
    assert run_table(UNITS[:1], path, jobs=1, progress=False) == kept
    settings["recipe"]["tempo"] = 1
    write_rows(path, [row | {"settings": json.dumps(settings)} for row in rows])
    with pytest.raises(ValueError, match=r"'first', '0', '0'\) cannot be compared.*tempo"):
        run_table(UNITS[:1], path, jobs=1, progress=False)


DAMAGE = {"cut": lambda text: text[:-5], "short row": lambda text: text + "standard,cosine\n",
          "an open quote": lambda text: text.replace('"{', '"{""', 1).replace('}"', "}", 1),
          "an empty line": lambda text: text.replace("\n", "\n\n", 1),
          "no number": lambda text: text.replace("first,learned,0", "first,learned,x", 1),
          "other columns": lambda text: "a,b\n", "no settings": lambda text: text.replace("settings", "set", 1),
          "a column twice": lambda text: text.replace("torch", "version", 1), "nothing": lambda text: ""}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_named_and_left_alone(tmp_path, damage):
    path = tmp_path / "table.csv"
    write_rows(path, run_unit(UNITS[0]))
    whole = path.read_text()
    path.write_text(damage(whole))
    before = path.read_text()
    assert before != whole
    with pytest.raises(ValueError, match=r"table.csv: line \d"):
        run_table(UNITS, path, progress=False)
    assert path.read_text() == before


def test_full_disk_loses_no_earlier_unit(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    rows = run_unit(UNITS[0])
    write_rows(path, rows)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run_table(UNITS, path, jobs=1, progress=False)
    assert read_rows(path) == rows


@pytest.mark.parametrize("table", [path.stem for path in sorted(RESULTS.glob("*.csv"))])
def test_kept_tables_hold_what_the_tables_define(table, tmp_path):
    path = Path(shutil.copy(RESULTS / f"{table}.csv", tmp_path))
    kept = read_rows(path)
    keys = {(row["recipe"], row["split"], row["seed"]) for row in kept}
    units = [unit for unit in TABLES[table]() if unit.key in keys]
    assert len(units) == len(keys) > 0
    rows = run_table(units, path, progress=False)  # nothing is run: all is kept, with these settings and epochs
    assert sorted(map(str, rows)) == sorted(map(str, kept))
    for row in kept:
        assert Unit.from_settings(row["recipe"], row["settings"]).members == int(row["members"])


@pytest.mark.parametrize(("table", "name", "seed", "until"), [
    ("unconstrained", "nearest_C10", 0, 54), ("unconstrained", "standard_C100", 1, 21),
    ("speed", "nearest_digits", 0, 5), ("speed", "fixed_digits", 2, 5)])
def test_kept_rows_are_made_again(table, name, seed, until):
    """Accuracies and NC4 are equal, other numbers to two in the sixth digit, the last one kept, or to 1e-6.

    Processors round differently, and training amplifies that: on another make of processor many numbers differ by one
    in the last digit, and what is near 0 by the rounding of float32; how far a prescribed classifier is from an ETF,
    1e-7, is nothing else. Later networks on batches part ways, with learned rows from epoch 4 on, so the beginnings
    are compared. On one machine the rows are equal in all digits.
    """
    kept = {row["epoch"]: row for row in read_rows(RESULTS / f"{table}.csv")
            if row["recipe"] == name and row["seed"] == str(seed)}
    (unit,) = [unit for unit in TABLES[table]() if unit.name == name and unit.recipe.seed == seed]
    measured = tuple(epoch for epoch in unit.measured if epoch <= until)
    recipe = dataclasses.replace(unit.recipe, device="cpu")
    rows = run_unit(dataclasses.replace(unit, recipe=recipe, measured=measured))
    assert [int(row["epoch"]) for row in rows] == list(measured)
    for row in rows:
        then = kept[row["epoch"]]
        numbers = [column for column in COLUMNS if column.startswith(("train_", "test_")) and then[column]]
        assert len(numbers) == (36 if table == "speed" else 18)
        for column in numbers:
            if column.endswith(("accuracy", "nc4")):
                assert row[column] == then[column], (row["epoch"], column)
            else:
                was, now = float(then[column]), float(row[column])
                assert now == pytest.approx(was, rel=2e-5, abs=1e-6), (row["epoch"], column)
