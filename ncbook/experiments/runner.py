"""The long runs behind the book's tables: `python -m ncbook.experiments NAME`.

A table is a list of units (recipe, split, seed). Each finished unit is kept at once in one file, NAME.csv; a run that
was stopped, at whatever moment, goes on with the units that the file lacks.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from ncbook.metrics import METRICS
from ncbook.schedules import ConstantSchedule, SlidingSchedule
from ncbook.training.data import Dataset, data_folder, load_dataset
from ncbook.training.recipe import Recipe
from ncbook.training.snapshot import Snapshot
from ncbook.training.trainer import Trainer, joint_snapshot, resolve_device

COLUMNS = ("recipe", "head", "split", "seed", "epoch", "weight_decay", "test_accuracy", "train_accuracy", "train_loss",
           "test_loss", *(f"{part}_{key}" for part in ("train", "test") for key in METRICS if key != "accuracy"),
           "seconds", "device", "version", "settings")


@dataclass(frozen=True)
class Unit:
    """One run of a table: what the table calls the recipe, the recipe itself, and when it is measured.

    `published_split` k takes the training images of the k-th published split (`published_splits`) for the recipe's own.
    `measured`: ascending numbers of finished epochs at which a row is kept, None for the end only. `members`: how many
    networks are trained, apart from each other, with seeds seed, seed + 1000, seed + 2000 and so on, and measured side
    by side (`joint_snapshot`).
    """

    name: str
    recipe: Recipe
    published_split: int | None = None
    measured: tuple[int, ...] | None = None
    members: int = 1

    @property
    def split(self) -> int:
        return self.recipe.split if self.published_split is None else self.published_split

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, str(self.split), str(self.recipe.seed)

    @property
    def settings(self) -> str:
        """What decides the outcome, as text: the recipe but for its device, and how many members.

        Defaults are left out, so that a new field of `Recipe` does not make old rows those of another recipe.
        """
        given = [f"{field.name}={value!r}" for field in dataclasses.fields(self.recipe)
                 if (value := getattr(self.recipe, field.name)) != field.default and field.name != "device"]
        return f"{f'{self.members} x ' * (self.members > 1)}Recipe({', '.join(given)})"


def published_splits(dataset: str) -> np.ndarray:
    """The 20 published stratified splits of 250 training indices for "mnist" or "svhn": (20, 250).

    Read from splits_250.npz (arrays MNIST_train and SVHN_train) in the data folder NCBOOK_DATA.
    Raises FileNotFoundError when the file is not there.
    Source: Hofer et al. 2020, arXiv 2002.04805; the file data_train_indices.pickle of their repository.
    """
    path = data_folder() / "splits_250.npz"
    if not path.exists():
        raise FileNotFoundError(f"the published splits are read from {path}: put them there from "
                                "data_train_indices.pickle of github.com/c-hofer/topologically_densified_distributions")
    with np.load(path) as splits:
        return splits[f"{dataset.upper()}_train"]


def _densified(name: str, base: Recipe, sliding: SlidingSchedule, constant: ConstantSchedule, splits: Iterable[int],
               **changes) -> Iterator[Unit]:
    schedule = {"vanilla": None, "constant": constant, "sliding": sliding}[name.split("_")[0]]
    for split in splits:
        yield Unit(name, dataclasses.replace(base, schedule=schedule, seed=split, **changes), published_split=split)


MNIST250 = Recipe(dataset="mnist", backbone="mnist_cnn", clouds=(8, 16), p=1, epochs=310, lr=0.1, weight_decay=0.01)


def mnist250() -> list[Unit]:
    """MNIST-250 on the published splits 0 to 9, ablations on 0 to 4; one seed a split.

    "best" puts five networks side by side that share the 310 epochs; "vanilla_x5", an ablation, is the same without
    densification. "sliding_again" is sliding with other seeds, on 0 to 9; "sliding_wd0.001" has the weight decay of the
    published text and is on 0 to 9, too. With the fixed frame the network ends in a linear map, since the frame can be
    out of reach of an activation (chapter 10, section 8).
    """
    base, sliding, constant = MNIST250, SlidingSchedule(1.1, 0.1, 310), ConstantSchedule(4.0, 0.01)
    units = [unit for name in ("vanilla", "sliding", "constant")
             for unit in _densified(name, base, sliding, constant, range(10))]
    for name, schedule, splits in (("best", SlidingSchedule(1.1, 0.1, 62), 10), ("vanilla_x5", None, 5)):
        short = dataclasses.replace(base, schedule=schedule, epochs=62)
        units += [Unit(name, dataclasses.replace(short, seed=split), published_split=split, members=5)
                  for split in range(splits)]
    again = dataclasses.replace(base, schedule=sliding)
    units += [Unit("sliding_again", dataclasses.replace(again, seed=100 + split), published_split=split)
              for split in range(10)]
    for name, splits in (("vanilla", 5), ("sliding", 10), ("constant", 5)):
        units += _densified(f"{name}_wd0.001", base, sliding, constant, range(splits), weight_decay=0.001)
    for head, feature_dim in (("fixed", 128), ("nearest", None)):
        for name in ("vanilla", "sliding"):
            units += _densified(f"{name}_{head}", base, sliding, constant, range(5), head=head,
                                feature_dim=feature_dim)
    return units


def mnist250_choices() -> list[Unit]:
    """Constant schedules, numbers of networks and heads tried for `mnist250`, on the published splits 10 to 15.

    Schedules with 50 epochs on splits 10 to 15. On 10 to 12, networks side by side, which share the 310 epochs of one
    run, with seeds from 100 on, so that no network is one of those above; and heads on normalised features with two
    feature norms, 50 epochs, no densification. One seed a split.
    """
    base = dataclasses.replace(MNIST250, epochs=50)
    weights = {0.5: (0.05, 0.1), 1.1: (0.01, 0.02, 0.05, 0.1), 2.0: (0.01, 0.02, 0.05, 0.1), 4.0: (0.01, 0.02, 0.1)}
    schedules = {f"constant_beta{beta}_weight{weight}": ConstantSchedule(beta, weight)
                 for beta in weights for weight in weights[beta]}
    schedules |= {"sliding_50_epochs": SlidingSchedule(1.1, 0.1, 50), "vanilla_50_epochs": None}
    units = [Unit(name, dataclasses.replace(base, schedule=schedule, seed=split), published_split=split)
             for name, schedule in schedules.items() for split in range(10, 16)]
    for name, members in (("sliding", 1), ("sliding", 5), ("sliding", 10), ("vanilla", 1), ("vanilla", 5)):
        epochs = 310 // members
        schedule = SlidingSchedule(1.1, 0.1, epochs) if name == "sliding" else None
        recipe = dataclasses.replace(MNIST250, schedule=schedule, epochs=epochs)
        units += [Unit(f"{name}_x{members}", dataclasses.replace(recipe, seed=100 + split), published_split=split,
                       members=members) for split in range(10, 13)]
    for head in ("cosine", "nearest"):
        for scale in (5.0, 20.0):
            recipe = dataclasses.replace(base, head=head, scale=scale)
            units += [Unit(f"{head}_scale{scale:g}", dataclasses.replace(recipe, seed=split), published_split=split)
                      for split in range(10, 13)]
    return units


def svhn250() -> list[Unit]:
    """SVHN-250 on the published splits 0 to 9; one seed a split.

    The setting of "constant" has not been chosen on other splits.
    """
    base = Recipe(dataset="svhn", backbone="cnn13", clouds=(8, 16), p=2, epochs=310, lr=0.03, weight_decay=0.01)
    sliding, constant = SlidingSchedule(1.0, 0.1, 310), ConstantSchedule(1.0, 0.1)
    return [unit for name in ("vanilla", "sliding", "constant")
            for unit in _densified(name, base, sliding, constant, range(10))]


GUIDED = {"standard": "cosine", "fixed": "fixed", "nearest": "nearest"}  # row name -> head


def _guided(where: str, base: Recipe, measured: Iterable[int]) -> list[Unit]:
    """The three heads over five seeds, which also choose the training images where not all are taken."""
    return [Unit(f"{name}_{where}", dataclasses.replace(base, head=head, seed=seed, split=seed),
                 measured=tuple(measured))
            for name, head in GUIDED.items() for seed in range(5)]


def unconstrained() -> list[Unit]:
    """Unconstrained features, C = 10 and 100, d = 512, N = 1000: three heads, five seeds, full batch.

    From Markou et al. 2024, arXiv 2411.01248: the sizes, 2,000 iterations and the feature norm 5. Ours: SGD with a
    constant rate in place of automatic gradient descent.
    """
    base = Recipe(dataset="unconstrained", train_size=1000, backbone="free_features", feature_dim=512, batch_size=1000,
                  epochs=2000, lr=3.0, lr_decay="constant", weight_decay=0.0)
    measured = np.unique(np.geomspace(1, base.epochs, 41).round().astype(int)).tolist()
    return [unit for classes in (10, 100)
            for unit in _guided(f"C{classes}", dataclasses.replace(base, classes=classes), measured)]


def speed() -> list[Unit]:
    """Speed of guided training, measured at every epoch: digits, and MNIST with 10,000 images, which suit a CPU.

    From Markou et al. 2024, arXiv 2411.01248: batches of 256 and the feature norm 5. Ours: the rest. Both networks end
    in a linear map, since a fixed frame can be out of reach of an activation (chapter 10).
    """
    digits = Recipe(backbone="small_cnn", batch_size=256, epochs=30)
    mnist = Recipe(dataset="mnist", train_size=10000, backbone="mnist_cnn", feature_dim=128, batch_size=256,
                   epochs=12)
    return _guided("digits", digits, range(31)) + _guided("mnist", mnist, range(13))


# From the code of Markou et al. 2024 (github.com/evanmarkou/Guiding-Neural-Collapse): batches, 200 epochs, feature norm
# 5, and the rate and weight decay that it gives SGD. Ours: SGD with momentum and a cosine decay, where their scripts
# use automatic gradient descent; a first convolution of 3x3 and no first max-pool, where theirs is 7x7 with stride 2
# and has one after it; a linear map after the last ReLU, which our canonical simplex ETF needs; no augmentation;
# batches that are not stratified.
RESNET18 = Recipe(backbone="resnet18", feature_dim=512, batch_size=256, epochs=200, lr=0.05, weight_decay=5e-4)


def mnist_resnet18() -> list[Unit]:
    """Speed of guided training on all of MNIST with ResNet-18, measured at every epoch; wants a GPU."""
    return _guided("mnist", dataclasses.replace(RESNET18, dataset="mnist"), range(201))


def cifar10() -> list[Unit]:
    """Guided training on CIFAR-10 with ResNet-18, measured at the published epochs 50 and 200; wants a GPU."""
    return _guided("cifar10", dataclasses.replace(RESNET18, dataset="cifar10"), (50, 200))


TABLES = {"mnist250": mnist250, "mnist250_choices": mnist250_choices, "svhn250": svhn250,
          "unconstrained": unconstrained, "speed": speed, "mnist_resnet18": mnist_resnet18, "cifar10": cifar10}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table's file, none when it is absent. Raises ValueError naming a line that is not a whole row."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = list(csv.reader(lines))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError(f"{path}: line 1 does not hold the columns of a table; move the file away to start anew")
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=1):
        if len(row) != len(COLUMNS) or not line.endswith("\n"):
            raise ValueError(f"{path}: line {number} is not a whole row; remove that line, the others are sound")
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Replace a table's file in one step: a crash or a full disk leaves the old file whole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def run_unit(unit: Unit) -> list[dict[str, str]]:
    """Run one unit on one thread, so that it is the same wherever it runs; return its rows, one a measured epoch."""
    data = _published_data(unit) if unit.published_split is not None else None
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        seeds = [unit.recipe.seed + 1000 * member for member in range(unit.members)]
        trainers = [Trainer(dataclasses.replace(unit.recipe, seed=seed), data=data) for seed in seeds]
        snapshots = []
        for epoch in unit.measured or (unit.recipe.epochs,):
            for trainer in trainers:
                while trainer.epoch < epoch:
                    trainer.step()
            snapshots.append(trainers[0].snapshot() if unit.members == 1 else joint_snapshot(trainers))
    finally:
        torch.set_num_threads(before)
    seconds = time.perf_counter() - start
    device = resolve_device(unit.recipe.device)
    device = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [_row(unit, snapshot, seconds, device) for snapshot in snapshots]


def _published_data(unit: Unit) -> Dataset:
    data = load_dataset(unit.recipe.dataset)
    return data.subset(published_splits(unit.recipe.dataset)[unit.published_split])


def _row(unit: Unit, snapshot: Snapshot, seconds: float, device: str) -> dict[str, str]:
    values = {f"{part}_{key}": f"{100 * value if key == 'accuracy' else value:.6g}" for part in ("train", "test")
              for key, value in getattr(snapshot, part).items()}
    name, split, seed = unit.key
    return dict.fromkeys(COLUMNS, "") | values | {
        "recipe": name, "head": unit.recipe.head, "split": split, "seed": seed, "epoch": str(snapshot.epoch),
        "weight_decay": f"{unit.recipe.weight_decay:g}", "seconds": f"{seconds:.1f}", "device": device,
        "version": version("ncbook"), "settings": unit.settings}


def run_table(units: list[Unit], path: Path, *, jobs: int | None = None, dask: str | None = None,
              progress: bool = True) -> list[dict[str, str]]:
    """Run the units that the file at `path` lacks, as many at a time as there are GPUs or cores, keeping each at once.

    jobs: how many at a time; dask: address of a Dask scheduler, whose workers take the place of local processes.
    Returns all rows, in the order of the units. Raises ValueError for a file that is not sound, or that holds one of
    the units run with other settings.
    """
    from filelock import FileLock
    from joblib import Parallel, delayed, parallel_config
    from tqdm.auto import tqdm

    kept = _finished(path)
    for unit in units:
        if unit.key in kept and (was := kept[unit.key][0]["settings"]) != unit.settings:
            raise ValueError(f"{path}: the kept rows of {unit.key} are of other settings; remove them, or rename the "
                             f"recipe\nkept: {was}\nnow:  {unit.settings}")
    pending = [unit for unit in units if unit.key not in kept]
    jobs = jobs or torch.cuda.device_count() or os.cpu_count()
    client = nullcontext()
    config = {"backend": "loky", "n_jobs": jobs}
    if dask is not None:
        from dask.distributed import Client

        client, config = Client(dask), {"backend": "dask"}
    with client, parallel_config(**config):
        runs = (delayed(_keyed_run)(unit, index) for index, unit in enumerate(pending))
        results = Parallel(return_as="generator_unordered")(runs)
        done = len(units) - len(pending)
        for key, rows in tqdm(results, total=len(units), initial=done, unit="run", smoothing=0, disable=not progress):
            with FileLock(f"{path}.lock"):
                kept = kept | _finished(path) | {key: rows}  # another run may have added to the file meanwhile
                ranked = sorted(kept, key=lambda k: (k[0], int(k[1]), int(k[2])))
                write_rows(path, [row for k in ranked for row in kept[k]])
    return [row for unit in units for row in kept[unit.key]]


def _finished(path: Path) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    kept: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in read_rows(path):
        kept.setdefault((row["recipe"], row["split"], row["seed"]), []).append(row)
    return kept


def _keyed_run(unit: Unit, index: int) -> tuple[tuple[str, str, str], list[dict[str, str]]]:
    if torch.cuda.device_count() > 1 and unit.recipe.device == "auto":
        device = f"cuda:{index % torch.cuda.device_count()}"
        unit = dataclasses.replace(unit, recipe=dataclasses.replace(unit.recipe, device=device))
    return unit.key, run_unit(unit)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ncbook.experiments", description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="only these recipes of the table")
    parser.add_argument("--results", type=Path, default=Path("notebooks/results"), help="folder of the table's file")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: GPUs, else cores)")
    parser.add_argument("--dask", metavar="ADDRESS", help="address of a Dask scheduler to run on")
    options = parser.parse_args(arguments)
    units = TABLES[options.table]()
    names = list(dict.fromkeys(unit.name for unit in units))
    if options.recipes:
        if unknown := set(options.recipes) - set(names):
            parser.error(f"unknown recipes {sorted(unknown)}: {options.table} has {names}")
        units = [unit for unit in units if unit.name in options.recipes]
    if not options.results.is_dir():
        parser.error(f"there is no folder {options.results}")
    run_table(units, options.results / f"{options.table}.csv", jobs=options.jobs, dask=options.dask)


if __name__ == "__main__":
    sys.exit(main())
