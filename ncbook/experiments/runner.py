"""How a table is run: its rows, its units one by one or many at a time, and what is kept of a run that is stopped.

Each finished unit is kept at once in one file, NAME.csv, and a long unit keeps a checkpoint beside it; a run that was
stopped, at whatever moment, goes on with what the file lacks.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from ncbook.checks import check_integer
from ncbook.experiments.tables import Unit, published_splits
from ncbook.heads import HEADS
from ncbook.losses import LOSSES
from ncbook.metrics import METRICS
from ncbook.schedules import SCHEDULES
from ncbook.training.backbones import BACKBONES
from ncbook.training.data import DATASETS, Dataset, load_dataset
from ncbook.training.regularisers import REGULARISERS
from ncbook.training.snapshot import OF_LOGITS, Diverged
from ncbook.training.trainer import Trainer, joint_snapshot, resolve_device, save_state

PACKAGE = Path(__file__).resolve().parents[1]
KEY = ("recipe", "split", "seed", "epoch", "settings")  # what every table's file has
COLUMNS = ("recipe", "head", "split", "seed", "members", "epoch", "step", "weight_decay", "lr", "beta",
           "densify_weight", "test_accuracy", "train_accuracy",
           *(f"{part}_{key}" for key in OF_LOGITS for part in ("train", "test")),
           *(f"{part}_{key}" for part in ("train", "test") for key in METRICS if key != "accuracy"),
           "train_spectrum", "test_spectrum", "diverged", "seconds", "device", "torch", "version", "commit", "settings")
SAVE_EVERY = 1.0  # seconds from one checkpoint to the next, at least
VOCABULARIES: tuple[dict[str, Any], ...] = (HEADS, LOSSES, METRICS, SCHEDULES, BACKBONES, DATASETS, REGULARISERS)

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """The rows of a table's file, none when it is absent: all `COLUMNS`, "" where the file lacks one, and its own.

    Raises ValueError naming a line that is not a whole row.
    """
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        lines = list(file)
    header = _fields(lines[0]) if lines else []
    if not set(KEY) <= set(header) or len(set(header)) < len(header):
        raise ValueError(f"{path}: line 1 does not hold the columns of a table; move the file away to start anew")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fields = _fields(line)
        row = dict(zip(header, fields))
        if len(fields) != len(header) or not all(row[key].isdecimal() for key in KEY[1:4]):
            raise ValueError(f"{path}: line {number} is not a whole row; remove that line, the others are sound")
        rows.append(dict.fromkeys(COLUMNS, "") | row)
    return rows


def _fields(line: str) -> list[str]:
    """The fields of a line, none of one that was cut."""
    with suppress(csv.Error, StopIteration):
        return next(csv.reader([line], strict=True)) if line.endswith("\n") else []
    return []


def write_rows(path: Path, rows: list[Row]) -> None:
    """Replace a table's file in one step: a crash or a full disk leaves the old file whole.

    Columns: `COLUMNS` and all others of the rows.
    """
    text = io.StringIO()
    columns = dict.fromkeys(COLUMNS) | dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@functools.cache
def git_commit(folder: Path) -> str:
    """The git commit of the checkout that a package's folder belongs to, with "+" when the folder has changed since.

    Asked once a process. "" without git, and where the folder's __init__.py is not one of the checkout's files.
    """
    questions = (["ls-files", "--error-unmatch", "__init__.py"], ["rev-parse", "--short=12", "HEAD"],
                 ["status", "--porcelain", "."])
    try:
        answers = [subprocess.run(["git", "--no-optional-locks", "-C", str(folder), *question], capture_output=True,
                                  text=True) for question in questions]
    except OSError:
        return ""
    if any(answer.returncode for answer in answers):
        return ""
    return answers[1].stdout.strip() + "+" * bool(answers[2].stdout)


def run_unit(unit: Unit, *, checkpoint: Path | None = None) -> list[Row]:
    """Run one unit on one thread, so that it is the same wherever it runs; return its rows, one a measured epoch.

    checkpoint: a file in which the state is kept at the end of an epoch, `SAVE_EVERY` seconds apart or more. A unit
    that finds the file goes on from it, to the same rows; where the file is damaged, or of other settings or of
    another device or version, the unit warns and starts anew. The file is the caller's to remove. A network that
    diverges ends the unit: the rows left have diverged 1, test_accuracy 0, the steps reached, and no other measurement.
    """
    made = _made(unit)
    data = None
    if unit.published_split is not None:
        data = load_dataset(unit.recipe.dataset)
        data = data.subset(published_splits(unit.recipe.dataset)[unit.published_split])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    saved = start = time.perf_counter()
    try:
        trainers, rows, spent = _begin(unit, made, data, checkpoint)
        for epoch in unit.epochs[len(rows):]:
            for trainer in trainers:
                while trainer.epoch < epoch:
                    trainer.run_epoch()
                    if checkpoint is not None and time.perf_counter() - saved >= SAVE_EVERY:
                        seconds = spent + time.perf_counter() - start
                        _save({"made": made, "rows": rows, "seconds": seconds,
                               "trainers": [trainer.state_dict() for trainer in trainers]}, checkpoint)
                        saved = time.perf_counter()
            shot = trainers[0].snapshot() if unit.members == 1 else joint_snapshot(trainers)
            rows.append({column: _text(value) for column, value in shot.row().items()})
    except Diverged:
        steps = str(max(trainer.steps for trainer in trainers))
        rows += [{"epoch": str(epoch), "step": steps, "test_accuracy": "0", "diverged": "1"}
                 for epoch in unit.epochs[len(rows):]]
    finally:
        torch.set_num_threads(before)
    made["seconds"] = f"{spent + time.perf_counter() - start:.1f}"
    return [dict.fromkeys(COLUMNS, "") | made | row for row in rows]


def _made(unit: Unit) -> Row:
    """What a row says of the run, whatever was measured."""
    device = resolve_device(unit.recipe.device)
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    name, split, seed = unit.key
    return {"recipe": name, "head": unit.recipe.head, "split": split, "seed": seed, "members": str(unit.members),
            "weight_decay": f"{unit.recipe.weight_decay:g}", "device": processor, "torch": str(torch.__version__),
            "version": version("ncbook"), "commit": git_commit(PACKAGE), "settings": unit.settings}


def _text(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _begin(unit: Unit, made: Row, data: Dataset | None,
           checkpoint: Path | None) -> tuple[list[Trainer], list[Row], float]:
    """The trainers of a unit, the rows that it has and the seconds that it took: from its checkpoint, or anew."""
    seeds = [unit.recipe.seed + 1000 * member for member in range(unit.members)]
    trainers = [Trainer(dataclasses.replace(unit.recipe, seed=seed), data=data) for seed in seeds]
    if checkpoint is None or not checkpoint.exists():
        return trainers, [], 0.0
    try:
        state = torch.load(checkpoint, map_location=trainers[0].device, weights_only=True)
        if changed := [column for column in made if state["made"].get(column) != made[column]]:
            raise ValueError(f"it was made with another {' and another '.join(changed)}")
        for trainer, part in zip(trainers, state["trainers"], strict=True):
            trainer.load_state_dict(part | {"recipe": trainer.recipe.to_json()})  # another device of the same make
        return trainers, state["rows"], state["seconds"]
    except Exception as error:  # a damaged file can fail in any way
        warnings.warn(f"{checkpoint} is not used, {unit.key} starts anew: {error}", RuntimeWarning, stacklevel=3)
        return _begin(unit, made, data, None)


def _save(state: dict, checkpoint: Path) -> None:
    from filelock import FileLock, Timeout

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(f"{checkpoint}.lock", timeout=0):  # another run of the table may be at this unit
        save_state(state, checkpoint)


def _forget(checkpoint: Path) -> None:
    for suffix in ("", ".partial", ".lock"):
        checkpoint.with_name(checkpoint.name + suffix).unlink(missing_ok=True)


def run_table(units: Sequence[Unit], path: Path, *, jobs: int | None = None, dask: str | None = None,
              progress: bool = True) -> list[Row]:
    """Run the units that the file at `path` lacks, as many at a time as there are GPUs or cores, keeping each at once.

    jobs: how many at a time; dask: address of a Dask scheduler, whose workers take the place of local processes and
    keep no checkpoints; local ones keep them in a folder beside the file (`run_unit`). Workers have the same heads,
    losses, metrics and so on, added ones too. Returns the rows of the units, in their order; of a unit that was
    measured more often, those asked for. Kept rows lack metrics that were added since. Raises, before anything is
    run, ValueError for a file that is not sound, or
    that holds one of the units run with other settings or without an epoch asked for, and OSError for a file that
    cannot be written.
    """
    from filelock import FileLock
    from joblib import Parallel, delayed, parallel_config
    from tqdm.auto import tqdm

    if jobs is not None:
        check_integer("jobs", jobs, least=1)
    if len({unit.key for unit in units}) < len(units):
        raise ValueError("units must differ in name, split or seed")
    kept = _finished(path)
    for unit in units:
        if unit.key in kept:
            _check_kept(path, unit, kept[unit.key])
    pending = [unit for unit in units if unit.key not in kept]
    if pending:
        _check_writable(path)
    client: AbstractContextManager = nullcontext()
    config: dict[str, Any] = {"backend": "loky", "n_jobs": jobs or torch.cuda.device_count() or os.cpu_count()}
    if dask is not None:
        from dask.distributed import Client

        client, config = Client(dask), {"backend": "dask"}
    folder = path.with_suffix(".checkpoints")
    checkpoints = {unit.key: folder / f"{'-'.join(quote(part, safe='') for part in unit.key)}.pt" for unit in units}
    with client, parallel_config(**config):
        runs = (delayed(_keyed_run)(unit, index, None if dask else checkpoints[unit.key], VOCABULARIES)
                for index, unit in enumerate(pending))
        results = Parallel(return_as="generator_unordered")(runs)
        done = len(units) - len(pending)
        for key, rows in tqdm(results, total=len(units), initial=done, unit="run", smoothing=0, disable=not progress):
            with FileLock(f"{path}.lock"):
                kept = kept | _finished(path) | {key: rows}  # another run may have added to the file meanwhile
                ranked = sorted(kept, key=lambda k: (k[0], int(k[1]), int(k[2])))
                write_rows(path, [row for k in ranked for row in kept[k]])
            _forget(checkpoints[key])
    for checkpoint in checkpoints.values():  # workers that outlived a killed run may have left some
        _forget(checkpoint)
    with suppress(OSError):
        folder.rmdir()
    return [row for unit in units for row in kept[unit.key] if int(row["epoch"]) in unit.epochs]


def _finished(path: Path) -> dict[tuple[str, str, str], list[Row]]:
    kept: dict[tuple[str, str, str], list[Row]] = {}
    for row in read_rows(path):
        kept.setdefault((row["recipe"], row["split"], row["seed"]), []).append(row)
    return kept


def _check_kept(path: Path, unit: Unit, rows: list[Row]) -> None:
    """Measuring more often changes no run, so kept rows need not have been measured at the same epochs, but at all that
    are asked for: to run the unit again would throw rows away."""
    for settings in {row["settings"] for row in rows}:
        try:
            units = Unit.from_settings(unit.name, settings), unit
        except ValueError as error:
            raise ValueError(f"{path}: the kept rows of {unit.key} cannot be compared: {error}") from error
        was, now = (vars(u.recipe) | vars(u) | {"recipe": None, "device": None, "measured": None} for u in units)
        if changed := [f"{name} {was[name]!r}, now {now[name]!r}" for name in now if was[name] != now[name]]:
            raise ValueError(f"{path}: the kept rows of {unit.key} are of other settings; remove them, or rename the "
                             f"recipe: {'; '.join(changed)}")
    if absent := set(unit.epochs) - {int(row["epoch"]) for row in rows}:
        raise ValueError(f"{path}: the kept rows of {unit.key} lack the epochs {sorted(absent)}; remove them to run "
                         "the unit again, or use another file")


def _check_writable(path: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"the table cannot be kept in {path}: {error}") from error


def _keyed_run(unit: Unit, index: int, checkpoint: Path | None,
               vocabularies: tuple[dict, ...]) -> tuple[tuple[str, str, str], list[Row]]:
    if vocabularies[0] is not VOCABULARIES[0]:  # in a worker
        for known, given in zip(VOCABULARIES, vocabularies, strict=True):
            known.update(given)
        torch.set_flush_denormal(True)  # a step of a network that weight decay drives to 0 takes 17 times as long else
    if torch.cuda.device_count() > 1 and unit.recipe.device == "auto":
        device = f"cuda:{index % torch.cuda.device_count()}"
        unit = dataclasses.replace(unit, recipe=dataclasses.replace(unit.recipe, device=device))
    return unit.key, run_unit(unit, checkpoint=checkpoint)
