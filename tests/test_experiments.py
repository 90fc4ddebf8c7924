"""How a table is run: its units, runs that are stopped, many at a time. What its file says: test_tables.py."""

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
from dask.distributed import LocalCluster
from filelock import FileLock, Timeout

from ncbook import LearnedHead, Recipe, SlidingSchedule, Trainer, joint_snapshot, load_dataset
from ncbook.experiments import COLUMNS, TABLES, Unit, git_commit, read_rows, run_table, run_unit, runner, write_rows
from ncbook.experiments.__main__ import main
from ncbook.heads import HEADS, HeadKind
from ncbook.metrics import METRICS, Metric
from ncbook.training.data import DATASETS, Dataset, Source

BASE = Recipe(classes=3, train_size=30, epochs=2, batch_size=10, feature_dim=4, device="cpu")
UNITS = [Unit(name, dataclasses.replace(BASE, head=head, seed=seed, split=seed), measured=measured)
         for name, head, measured in (("standard", "cosine", None), ("nearest", "nearest", (0, 1, 2)))
         for seed in range(2)]
EPOCHS = 5
LONG = Unit("long", Recipe(train_size=250, clouds=(8, 16), p=1, schedule=SlidingSchedule(1.1, 0.1, EPOCHS),
                           epochs=EPOCHS, device="cpu"), measured=(0, 1, EPOCHS), members=2)


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def count_steps(monkeypatch, most=None):
    """Count the steps of trainers from here on, and stop at one too many."""
    steps, step = [], Trainer.step

    def counted(trainer):
        if len(steps) == most:
            raise KeyboardInterrupt
        steps.append(trainer.recipe.seed)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", counted)
    return steps


def test_rows_say_what_was_run_and_measured():
    (row,) = run_unit(UNITS[0])
    assert set(row) == set(COLUMNS)
    assert [row[key] for key in ("recipe", "head", "split", "seed", "epoch")] == ["standard", "cosine", "0", "0", "2"]
    assert row["members"] == "1" and row["device"] == "cpu" and row["torch"] == torch.__version__ and row["version"]
    assert row["commit"] == git_commit(runner.PACKAGE)
    assert Unit.from_settings("standard", row["settings"]).recipe.head == "cosine"


def test_a_row_has_the_numbers_of_the_snapshot_with_shares_in_per_cent():
    trainer = Trainer(UNITS[2].recipe)
    trainer.run_epoch()
    row, shot = run_unit(UNITS[2])[1], trainer.snapshot()
    for part, spectrum in (("train", shot.train_spectrum), ("test", shot.test_spectrum)):
        values = getattr(shot, part)
        assert {0 < values[key] < 1 for key in ("nc4", "accuracy")} == {True}
        for key, value in values.items():
            assert row[f"{part}_{key}"] == f"{100 * value if key in ('nc4', 'accuracy') else value:.6g}"
        assert row[f"{part}_spectrum"] == " ".join(f"{value:.6g}" for value in spectrum.tolist())


def test_a_row_names_the_commit_of_the_package(tmp_path):
    package, installed = tmp_path / "parts", tmp_path / "environment" / "parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    shutil.copytree(package, installed)  # inside the checkout, but not of it
    assert git_commit(package) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in ("init -q", "add parts", "commit -qm first"):
        subprocess.run([*git, *arguments.split()], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    git_commit.cache_clear()
    (tmp_path / "notes.txt").write_text("not of the package")
    assert len(git_commit(package)) == 12 and head.startswith(git_commit(package)) and git_commit(installed) == ""
    (package / "__init__.py").write_text("x = 1")
    assert "+" not in git_commit(package), "asked once a process"
    git_commit.cache_clear()
    assert git_commit(package) == head[:12] + "+"
    git_commit.cache_clear()


def test_measuring_often_does_not_change_the_run():
    often = run_unit(UNITS[2])
    assert [row["epoch"] for row in often] == ["0", "1", "2"]
    (once,) = run_unit(dataclasses.replace(UNITS[2], measured=None))
    assert once["settings"] != often[2]["settings"]
    assert without_seconds([once | {"settings": often[2]["settings"]}]) == without_seconds(often[2:])


def test_kept_rows_serve_a_unit_that_is_measured_less_and_refuse_one_measured_more(tmp_path):
    path = tmp_path / "table.csv"
    often = run_table(UNITS[2:3], path, jobs=1, progress=False)
    for measured, kept in ((None, often[2:]), ((0, 2), often[::2])):
        assert run_table([dataclasses.replace(UNITS[2], measured=measured)], path, jobs=1, progress=False) == kept
    write_rows(path, often[:2])
    with pytest.raises(ValueError, match=r"'nearest', '0', '0'\) lack the epochs \[2\]"):
        run_table(UNITS, path, jobs=1, progress=False)
    assert read_rows(path) == often[:2]


@pytest.mark.parametrize("members", [1, 2])
def test_a_unit_that_diverges_is_rows_that_say_so(tmp_path, members):
    path, wild = tmp_path / "table.csv", dataclasses.replace(BASE, lr=1e15)
    unit = Unit("wild", wild, measured=(0, 1, 2), members=members)
    rows = run_table([unit, UNITS[0]], path, jobs=1, progress=False)
    assert [row["diverged"] for row in rows] == ["", "1", "1", ""] and [row["epoch"] for row in rows[:3]] == list("012")
    assert float(rows[0]["test_nc1"]) > 0 and float(rows[3]["test_accuracy"]) > 0
    for row in rows[1:3]:
        assert row["test_accuracy"] == "0" and 0 < int(row["step"]) < 6 and row["settings"] == unit.settings
        assert {column for column in COLUMNS if column.startswith("t") and row[column]} == {"test_accuracy", "torch"}
    assert run_table([unit], path, jobs=1, progress=False) == rows[:3] == read_rows(path)[1:]


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
    assert row["members"] == "2" and row["train_nc1"] != f'{trainers[0].snapshot().train["nc1"]:.6g}'


def test_a_unit_of_a_published_split_is_made_again_from_its_row(tmp_path, monkeypatch):
    digits = load_dataset("digits")
    monkeypatch.setitem(DATASETS, "mnist", Source(lambda: digits))
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    splits = np.random.default_rng(0).permuted(np.tile(np.arange(1437), (20, 1)), axis=1)[:, :250]
    np.savez(tmp_path / "splits_250.npz", MNIST_train=splits)
    unit = Unit("published", Recipe("mnist", epochs=1, device="cpu"), published_split=3)
    (row,) = run_unit(unit)
    trainer = Trainer(unit.recipe, data=digits.subset(splits[3]))
    trainer.run_epoch()
    assert row["split"] == "3" and row["train_nc1"] == f'{trainer.snapshot().train["nc1"]:.6g}'
    assert without_seconds(run_unit(Unit.from_settings("published", row["settings"]))) == without_seconds([row])


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

    def slow(unit, **options):
        if unit is UNITS[0]:
            run_table(UNITS[1:2], path, jobs=1, progress=False)
        return run_unit(unit, **options)

    monkeypatch.setattr(runner, "run_unit", slow)
    run_table(UNITS[:1], path, jobs=1, progress=False)
    assert without_seconds(read_rows(path)) == without_seconds([row for unit in UNITS[:2] for row in run_unit(unit)])


def test_another_process_cannot_write_the_file_between_reading_and_writing(tmp_path, monkeypatch):
    def checked(path, rows):
        with pytest.raises(Timeout):
            FileLock(f"{path}.lock").acquire(timeout=0)
        write_rows(path, rows)

    monkeypatch.setattr(runner, "write_rows", checked)
    run_table(UNITS[:1], tmp_path / "table.csv", jobs=1, progress=False)
    assert len(read_rows(tmp_path / "table.csv")) == 1


def test_rows_of_other_settings_are_refused_and_kept(tmp_path):
    path = tmp_path / "table.csv"
    run_table(UNITS[:1], path, jobs=1, progress=False)
    before = path.read_text()
    faster = dataclasses.replace(UNITS[0].recipe, lr=0.2)
    for change, said in ((dict(recipe=faster), "lr 0.1, now 0.2$"), (dict(members=2), "members 1, now 2$")):
        with pytest.raises(ValueError, match=f"other settings.*: {said}"):
            run_table([dataclasses.replace(UNITS[0], **change)], path, jobs=1, progress=False)
    assert path.read_text() == before
    elsewhere = dataclasses.replace(UNITS[0], recipe=dataclasses.replace(UNITS[0].recipe, device="auto"))
    assert run_table([elsewhere], path, jobs=1, progress=False) == read_rows(path)


def test_what_cannot_work_is_refused_before_the_first_unit(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run_unit", lambda unit, **options: pytest.fail("a unit was run"))
    file = tmp_path / "file"
    file.touch()
    for path in (file / "table.csv", tmp_path / "absent" / "table.csv"):
        with pytest.raises(OSError, match="the table cannot be kept in"):
            run_table(UNITS, path, jobs=1, progress=False)
    for jobs, error in ((0, ValueError), (-3, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="jobs must be"):
            run_table(UNITS, tmp_path / "other.csv", jobs=jobs, progress=False)
    with pytest.raises(ValueError, match="units must differ"):
        run_table(UNITS[:1] * 2, tmp_path / "other.csv", jobs=1, progress=False)
    assert list(tmp_path.iterdir()) == [file]


def start_process(path, units, save_every=runner.SAVE_EVERY):
    command = [sys.executable, "-c", "import sys, pathlib, test_experiments as t; "
               f"t.runner.SAVE_EVERY = {save_every}; "
               f"t.run_table({units}, pathlib.Path(sys.argv[1]), jobs=1, progress=False)", str(path)]
    return subprocess.Popen(command, cwd=os.path.dirname(__file__), start_new_session=True)


def kill_when(process, there):
    deadline = time.monotonic() + 600
    while not there() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_runner_loses_and_repeats_nothing(tmp_path):
    path = tmp_path / "table.csv"
    kill_when(start_process(path, "t.UNITS"), path.exists)
    before = read_rows(path)
    assert before
    run_table(UNITS, path, jobs=1, progress=False)
    after = read_rows(path)
    assert [row for row in after if row in before] == before
    whole = sorted((row for unit in UNITS for row in run_unit(unit)), key=lambda row: row["recipe"])
    assert without_seconds(after) == without_seconds(whole)


def test_unit_that_is_killed_goes_on_from_its_checkpoint_to_the_same_rows(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    checkpoint = tmp_path / "table.checkpoints" / "long-0-0.pt"
    kill_when(start_process(path, "[t.LONG]", save_every=0), checkpoint.exists)
    assert not path.exists()
    spent = torch.load(checkpoint, weights_only=True)["seconds"]
    steps = count_steps(monkeypatch)
    rows = run_table([LONG], path, jobs=1, progress=False)
    assert 0 < len(steps) < 2 * EPOCHS * (250 // 8)
    assert float(rows[0]["seconds"]) > spent > 0
    assert not checkpoint.parent.exists() and rows == read_rows(path)
    checkpoint.parent.mkdir()
    checkpoint.touch()  # as a worker does that outlives a killed run
    assert run_table([LONG], path, jobs=1, progress=False) == rows and not checkpoint.parent.exists()
    assert without_seconds(rows) == without_seconds(run_unit(LONG))


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    unit = dataclasses.replace(LONG, recipe=dataclasses.replace(LONG.recipe, epochs=3), measured=(0, 1, 3))
    checkpoint = tmp_path_factory.mktemp("stopped") / "unit.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "SAVE_EVERY", 0)
        count_steps(patch, 5 * 31 + 4)
        with pytest.raises(KeyboardInterrupt):
            run_unit(unit, checkpoint=checkpoint)
    return unit, checkpoint, without_seconds(run_unit(unit))


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A unit, its checkpoint after the second of three epochs of its second network, and the rows of the whole run."""
    unit, checkpoint, whole = stopped_once
    return unit, Path(shutil.copy(checkpoint, tmp_path)), whole


def test_a_unit_goes_on_from_its_checkpoint_and_leaves_the_file_to_the_caller(stopped, monkeypatch):
    unit, checkpoint, whole = stopped
    steps = count_steps(monkeypatch)
    assert without_seconds(run_unit(unit, checkpoint=checkpoint)) == whole
    assert steps == [1000] * 31 and checkpoint.exists()


def half_loaded(path):
    state = torch.load(path, weights_only=True)
    del state["trainers"][1]["head"]
    torch.save(state, path)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1000]),
                                    lambda path: path.write_bytes(b""), lambda path: torch.save([1], path),
                                    half_loaded], ids=["cut", "empty", "other", "in part"])
def test_a_damaged_checkpoint_is_told_and_not_used(stopped, damage):
    unit, checkpoint, whole = stopped
    damage(checkpoint)
    with pytest.warns(RuntimeWarning, match=r"unit.pt is not used, \('long', '0', '0'\) starts anew"):
        assert without_seconds(run_unit(unit, checkpoint=checkpoint)) == whole


def test_a_checkpoint_of_other_settings_or_another_version_is_told_and_not_used(stopped, monkeypatch):
    unit, checkpoint, whole = stopped
    other = dataclasses.replace(unit, recipe=dataclasses.replace(unit.recipe, lr=0.05))
    with pytest.warns(RuntimeWarning, match="not used.* another settings"):
        assert without_seconds(run_unit(other, checkpoint=checkpoint)) == without_seconds(run_unit(other))
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.warns(RuntimeWarning, match="not used.* another torch"):
        assert without_seconds(run_unit(unit, checkpoint=checkpoint)) == [row | {"torch": "1.0"} for row in whole]


def test_short_units_keep_no_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "save_state", lambda *_: pytest.fail("a checkpoint was kept"))
    run_table(UNITS[:1], tmp_path / "table.csv", jobs=1, progress=False)
    assert {path.name for path in tmp_path.iterdir()} <= {"table.csv", "table.csv.lock"}


def test_two_runs_at_one_unit_do_not_write_its_checkpoint_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SAVE_EVERY", 0)
    checkpoint = tmp_path / "unit.pt"
    with FileLock(f"{checkpoint}.lock"):
        rows = run_unit(UNITS[2], checkpoint=checkpoint)
    assert not checkpoint.exists() and len(rows) == 3
    run_unit(UNITS[2], checkpoint=checkpoint)
    assert checkpoint.exists()


def test_workers_know_what_was_added_from_outside(tmp_path, monkeypatch):
    class Doubled(LearnedHead):
        def forward(self, features, targets=None):
            return 2 * super().forward(features)

    monkeypatch.setitem(HEADS, "doubled", HeadKind(Doubled, "doubled", learned=True))
    monkeypatch.setitem(METRICS, "spread", Metric("spread", "spread", lambda summary: summary.between.norm()))
    units = [Unit("doubled", dataclasses.replace(BASE, head="doubled", seed=seed)) for seed in range(2)]
    rows = run_table(units, tmp_path / "table.csv", jobs=2, progress=False)
    assert without_seconds(rows) == without_seconds([row for unit in units for row in run_unit(unit)])
    assert all(float(row["train_spread"]) > 0 for row in rows)


def test_workers_count_denormal_numbers_as_0(tmp_path, monkeypatch):
    denormal = Metric("denormal", "denormal", lambda summary: torch.full((16,), 1e-38).mul(0.1).gt(0).float().mean())
    monkeypatch.setitem(METRICS, "denormal", denormal)
    units = [Unit("dead", dataclasses.replace(BASE, seed=seed)) for seed in range(2)]
    rows = run_table(units, tmp_path / "table.csv", jobs=2, progress=False)
    assert [float(row["train_denormal"]) for row in rows] == [0, 0]
    assert float(run_unit(units[0])[0]["train_denormal"]) == 1


def test_local_dask_cluster_gives_the_same_table(tmp_path):
    timeouts = {"distributed.comm.timeouts.connect": "300s", "distributed.comm.timeouts.tcp": "300s"}
    workers = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp")
    with dask.config.set(timeouts), LocalCluster(**workers) as cluster:
        rows = run_table(UNITS, tmp_path / "dask.csv", dask=cluster.scheduler_address, progress=False)
    assert without_seconds(rows) == without_seconds([row for unit in UNITS for row in run_unit(unit)])


SHAPES = {"svhn250": (3, 32, 32), "cifar10": (3, 32, 32), "mnist_resnet18": (1, 28, 28)}


@pytest.mark.parametrize("table", SHAPES)
def test_recipes_of_the_tables_not_run_here_train(table):
    images, targets = torch.rand(20, *SHAPES[table]), torch.arange(20) % 10
    for unit in {unit.name: unit for unit in TABLES[table]()}.values():
        data = Dataset(unit.recipe.dataset, images, targets, images, targets, tuple("0123456789"))
        small = {"clouds": (2, 3)} if unit.recipe.clouds else {"batch_size": 10}
        trainer = Trainer(dataclasses.replace(unit.recipe, device="cpu", **small), data=data)
        before = [parameter.clone() for parameter in trainer.backbone.parameters()]
        losses = [trainer.step() for _ in range(2)]
        assert torch.stack(losses).isfinite().all()
        assert not any(torch.equal(*pair) for pair in zip(before, trainer.backbone.parameters(), strict=True))
        assert (trainer.controls.densify_weight > 0) == (unit.recipe.schedule is not None)
        assert set(trainer.snapshot().test) == set(trainer.snapshot().train)


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TABLES, "tiny", lambda: UNITS)
    main(["tiny", "--recipes", "nearest", "--results", str(tmp_path), "--jobs", "1"])
    with open(tmp_path / "tiny.csv") as file:
        assert {row["recipe"] for row in csv.DictReader(file)} == {"nearest"}
    for arguments, said in ((["nothing"], "invalid choice"), (["tiny", "--recipes", "nobody"], "unknown recipes"),
                            (["tiny", "--results", str(tmp_path / "absent")], "there is no folder"),
                            (["tiny", "--jobs", "0"], "--jobs must be at least 1, got 0"),
                            (["tiny", "--jobs", "-3"], "--jobs must be at least 1, got -3")):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(arguments)
        assert said in capsys.readouterr().err


def test_the_module_is_a_command_without_a_warning(tmp_path):
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "ncbook.experiments", "--help"]
    environment = os.environ | {"PYTHONPATH": str(Path(runner.__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "unconstrained" in done.stdout and not done.stderr
