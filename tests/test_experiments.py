import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import dask
import pytest
import torch
from dask.distributed import LocalCluster
from filelock import FileLock, Timeout

import ncbook
from ncbook import Recipe, Trainer, joint_snapshot
from ncbook.training.data import Dataset
from ncbook.experiments import COLUMNS, TABLES, Unit, main, read_rows, run_table, run_unit, write_rows

BASE = Recipe(classes=3, train_size=30, epochs=2, batch_size=10, feature_dim=4, device="cpu")
UNITS = [Unit(name, dataclasses.replace(BASE, head=head, seed=seed, split=seed), measured=measured)
         for name, head, measured in (("standard", "cosine", None), ("nearest", "nearest", (0, 1, 2)))
         for seed in range(2)]


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_rows_say_what_was_run_and_measured():
    (row,) = run_unit(UNITS[0])
    assert set(row) == set(COLUMNS)
    assert [row[key] for key in ("recipe", "head", "split", "seed", "epoch")] == ["standard", "cosine", "0", "0", "2"]
    assert 0 <= float(row["test_accuracy"]) <= 100 and float(row["train_nc1"]) > 0 and row["device"] == "cpu"


def test_measuring_often_does_not_change_the_run():
    often = run_unit(UNITS[2])
    assert [row["epoch"] for row in often] == ["0", "1", "2"]
    assert without_seconds(run_unit(dataclasses.replace(UNITS[2], measured=None))) == without_seconds(often[-1:])


def test_members_of_a_unit_are_trained_apart_and_measured_together():
    recipe = dataclasses.replace(BASE, train_size=60)
    (row,) = run_unit(Unit("two", recipe, members=2))
    trainers = [Trainer(dataclasses.replace(recipe, seed=seed)) for seed in (0, 1000)]
    for trainer in trainers:
        while not trainer.finished:
            trainer.step()
    joint = joint_snapshot(trainers)
    assert float(row["test_accuracy"]) == pytest.approx(100 * joint.test["accuracy"], rel=1e-4)
    assert float(row["train_nc1"]) == pytest.approx(joint.train["nc1"], rel=1e-4)
    assert row["seed"] == "0" and row["train_nc1"] != f'{trainers[0].snapshot().train["nc1"]:.6g}'


def test_rows_without_test_data_are_the_same_from_the_run_and_from_the_file(tmp_path):
    free = Recipe(dataset="unconstrained", backbone="free_features", classes=3, train_size=30, epochs=1, device="cpu")
    rows = run_table([Unit("free", free)], tmp_path / "table.csv", jobs=1, progress=False)
    assert rows == read_rows(tmp_path / "table.csv")
    assert rows[0]["test_accuracy"] == "" and float(rows[0]["train_accuracy"]) >= 0


def test_stopped_table_goes_on_and_equals_an_uninterrupted_one(tmp_path):
    whole = run_table(UNITS, tmp_path / "whole.csv", jobs=1, progress=False)
    run_table([UNITS[3], UNITS[0]], tmp_path / "parts.csv", jobs=1, progress=False)
    first = read_rows(tmp_path / "parts.csv")
    rows = run_table(UNITS, tmp_path / "parts.csv", jobs=1, progress=False)
    assert without_seconds(rows) == without_seconds(whole)
    assert [row for row in read_rows(tmp_path / "parts.csv") if row in first] == first
    assert without_seconds(read_rows(tmp_path / "parts.csv")) == without_seconds(read_rows(tmp_path / "whole.csv"))


def test_two_runs_of_one_table_keep_what_the_other_finished(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"

    def slow(unit):
        if unit is UNITS[0]:
            run_table(UNITS[1:2], path, jobs=1, progress=False)
        return run_unit(unit)

    monkeypatch.setattr("ncbook.experiments.run_unit", slow)
    run_table(UNITS[:1], path, jobs=1, progress=False)
    assert without_seconds(read_rows(path)) == without_seconds([row for unit in UNITS[:2] for row in run_unit(unit)])


def test_another_process_cannot_write_the_file_between_reading_and_writing(tmp_path, monkeypatch):
    def checked(path, rows):
        with pytest.raises(Timeout):
            FileLock(f"{path}.lock").acquire(timeout=0)
        write_rows(path, rows)

    monkeypatch.setattr("ncbook.experiments.write_rows", checked)
    run_table(UNITS[:1], tmp_path / "table.csv", jobs=1, progress=False)
    assert len(read_rows(tmp_path / "table.csv")) == 1


def test_rows_of_other_settings_are_refused_and_kept(tmp_path):
    path = tmp_path / "table.csv"
    run_table(UNITS[:1], path, jobs=1, progress=False)
    before = path.read_text()
    for change in (dict(recipe=dataclasses.replace(UNITS[0].recipe, lr=0.2)), dict(members=2)):
        with pytest.raises(ValueError, match="other settings"):
            run_table([dataclasses.replace(UNITS[0], **change)], path, jobs=1, progress=False)
    assert path.read_text() == before
    elsewhere = dataclasses.replace(UNITS[0], recipe=dataclasses.replace(UNITS[0].recipe, device="auto"))
    assert run_table([elsewhere], path, jobs=1, progress=False) == read_rows(path)


def test_killed_runner_loses_and_repeats_nothing(tmp_path):
    path = tmp_path / "table.csv"
    command = [sys.executable, "-c", "import sys, pathlib, test_experiments as t; "
               "t.run_table(t.UNITS, pathlib.Path(sys.argv[1]), jobs=1, progress=False)", str(path)]
    process = subprocess.Popen(command, cwd=os.path.dirname(__file__), start_new_session=True)
    deadline = time.monotonic() + 600
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = read_rows(path)
    assert before
    run_table(UNITS, path, jobs=1, progress=False)
    after = read_rows(path)
    assert [row for row in after if row in before] == before
    whole = sorted((row for unit in UNITS for row in run_unit(unit)), key=lambda row: row["recipe"])
    assert without_seconds(after) == without_seconds(whole)


def test_local_dask_cluster_gives_the_same_table(tmp_path):
    timeouts = {"distributed.comm.timeouts.connect": "300s", "distributed.comm.timeouts.tcp": "300s"}
    workers = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp")
    with dask.config.set(timeouts), LocalCluster(**workers) as cluster:
        rows = run_table(UNITS, tmp_path / "dask.csv", dask=cluster.scheduler_address, progress=False)
    assert without_seconds(rows) == without_seconds([row for unit in UNITS for row in run_unit(unit)])


DAMAGE = {"cut": lambda text: text[:-5], "short row": lambda text: text + "standard,cosine\n",
          "other columns": lambda text: "a,b\n"}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_named_and_left_alone(tmp_path, damage):
    path = tmp_path / "table.csv"
    write_rows(path, run_unit(UNITS[0]))
    path.write_text(damage(path.read_text()))
    before = path.read_text()
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
        run_table(UNITS[:2], path, jobs=1, progress=False)
    assert read_rows(path) == rows


def test_named_tables_are_sound():
    for table in TABLES.values():
        units = table()
        assert len({unit.key for unit in units}) == len(units)
        for unit in units:
            assert Recipe.from_json(unit.recipe.to_json()) == unit.recipe
            assert eval(unit.settings.split(" x ")[-1], vars(ncbook)) == unit.recipe
            measured = list(unit.measured or [])
            assert measured == sorted(measured) and measured[-1:] in ([], [unit.recipe.epochs])


SHAPES = {"svhn250": (3, 32, 32), "cifar10": (3, 32, 32), "mnist_resnet18": (1, 28, 28)}


@pytest.mark.parametrize("table", SHAPES)
def test_recipes_of_the_tables_not_run_here_train(table, one_thread):
    images, targets = torch.rand(20, *SHAPES[table]), torch.arange(20) % 10
    for unit in {unit.name: unit for unit in TABLES[table]()}.values():
        data = Dataset(unit.recipe.dataset, images, targets, images, targets, tuple("0123456789"))
        small = {"clouds": (2, 3)} if unit.recipe.clouds else {"batch_size": 10}
        trainer = Trainer(dataclasses.replace(unit.recipe, device="cpu", **small), data=data)
        before = [parameter.clone() for parameter in trainer.backbone.parameters()]
        losses = [trainer.step() for _ in range(2)]
        assert torch.stack(losses).isfinite().all()
        assert not any(torch.equal(*pair) for pair in zip(before, trainer.backbone.parameters(), strict=True))
        assert (trainer.controls.weight > 0) == (unit.recipe.schedule is not None)
        assert set(trainer.snapshot().test) == set(trainer.snapshot().train)


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, "tiny", lambda: UNITS)
    main(["tiny", "--recipes", "nearest", "--results", str(tmp_path), "--jobs", "1"])
    with open(tmp_path / "tiny.csv") as file:
        assert {row["recipe"] for row in csv.DictReader(file)} == {"nearest"}
    for arguments in (["nothing"], ["tiny", "--recipes", "nobody"], ["tiny", "--results", str(tmp_path / "absent")]):
        with pytest.raises(SystemExit):
            main(arguments)
    capsys.readouterr()
