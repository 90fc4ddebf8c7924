import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import dask
import pytest
from dask.distributed import LocalCluster

from ncbook import Recipe
from ncbook.experiments import COLUMNS, TABLES, Unit, main, read_rows, run_table, run_unit, write_rows

BASE = Recipe(classes=3, train_size=30, epochs=2, batch_size=10, feature_dim=4, device="cpu")
UNITS = [Unit(name, dataclasses.replace(BASE, head=head, seed=seed, split=seed), every=every)
         for name, head, every in (("standard", "cosine", None), ("nearest", "nearest", 1)) for seed in range(2)]


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_rows_say_what_was_run_and_measured():
    (row,) = run_unit(UNITS[0])
    assert set(row) == set(COLUMNS)
    assert [row[key] for key in ("recipe", "head", "split", "seed", "epoch")] == ["standard", "cosine", "0", "0", "2"]
    assert 0 <= float(row["test_accuracy"]) <= 100 and float(row["train_nc1"]) > 0 and row["device"] == "cpu"
    assert [r["epoch"] for r in run_unit(UNITS[2])] == ["0", "1", "2"]


def test_stopped_table_goes_on_and_equals_an_uninterrupted_one(tmp_path):
    whole = run_table(UNITS, tmp_path / "whole.csv", jobs=1, progress=False)
    run_table([UNITS[3], UNITS[0]], tmp_path / "parts.csv", jobs=1, progress=False)
    first = read_rows(tmp_path / "parts.csv")
    rows = run_table(UNITS, tmp_path / "parts.csv", jobs=1, progress=False)
    assert without_seconds(rows) == without_seconds(whole)
    assert [row for row in read_rows(tmp_path / "parts.csv") if row in first] == first
    assert without_seconds(read_rows(tmp_path / "parts.csv")) == without_seconds(read_rows(tmp_path / "whole.csv"))


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


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, "tiny", lambda: UNITS)
    main(["tiny", "--recipes", "nearest", "--results", str(tmp_path), "--jobs", "1"])
    with open(tmp_path / "tiny.csv") as file:
        assert {row["recipe"] for row in csv.DictReader(file)} == {"nearest"}
    for arguments in (["nothing"], ["tiny", "--recipes", "nobody"], ["tiny", "--results", str(tmp_path / "absent")]):
        with pytest.raises(SystemExit):
            main(arguments)
    capsys.readouterr()
