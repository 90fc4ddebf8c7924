"""What is run: the units of each table.

A table is a list of units, each a recipe with the place that it has in the table; `TABLES` has one function a table.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ncbook.checks import check_choice, check_integer
from ncbook.heads import HEADS
from ncbook.schedules import ConstantSchedule, SlidingSchedule
from ncbook.training.backbones import BACKBONES
from ncbook.training.data import DATASETS, data_folder
from ncbook.training.recipe import Recipe

PUBLISHED = {"mnist": "MNIST", "mnist-held-out": "MNIST", "svhn": "SVHN"}  # those of `published_splits`


@dataclass(frozen=True)
class Unit:
    """One run of a table: what the table calls the recipe, the recipe itself, and when it is measured.

    `published_split` k, 0 to 19, takes the training images of the k-th published split (`published_splits`) for the
    recipe's own. `measured`: ascending numbers of finished epochs at which a row is kept, None for the end only.
    `members`: how many networks are trained, apart from each other, with seeds seed, seed + 1000, seed + 2000 and so
    on, and measured side by side (`joint_snapshot`). Raises ValueError or TypeError for what is not accepted, and for a
    recipe that could not be read back from `settings`: names that are in no mapping, a schedule not in `SCHEDULES`.
    """

    name: str
    recipe: Recipe
    published_split: int | None = None
    measured: tuple[int, ...] | None = None
    members: int = 1

    def __post_init__(self):
        check_choice("dataset", self.recipe.dataset, DATASETS)
        check_choice("backbone", self.recipe.backbone, BACKBONES)
        check_integer("members", self.members, least=1)
        if self.published_split is not None:
            check_choice("dataset with a published_split", self.recipe.dataset, PUBLISHED)
            check_integer("published_split", self.published_split, 0, 19)
        if self.measured is not None:
            epochs = tuple(check_integer("measured", epoch, 0, self.recipe.epochs) for epoch in self.measured)
            if not epochs or list(epochs) != sorted(set(epochs)):
                raise ValueError(f"measured must be ascending epochs, or None for the last one, got {self.measured}")
            object.__setattr__(self, "measured", epochs)
        if Recipe.from_json(self.recipe.to_json()) != self.recipe:
            raise ValueError(f"recipe must read back equal from its JSON, and does not: {self.recipe}")

    @property
    def split(self) -> int:
        return self.recipe.split if self.published_split is None else self.published_split

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, str(self.split), str(self.recipe.seed)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs of which a row is kept."""
        return (self.recipe.epochs,) if self.measured is None else self.measured

    @property
    def settings(self) -> str:
        """All that decides the outcome, as JSON with every field: the unit without its name and its recipe's device."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[2:]}
        recipe = self.recipe.to_dict()
        del recipe["device"]
        return json.dumps({"recipe": recipe} | values)

    @classmethod
    def from_settings(cls, name: str, text: str) -> Unit:
        """The unit whose `settings` these are; what they lack has its default.

        Raises ValueError for a text that is not JSON, or that this version has no fields for.
        """
        try:
            values = json.loads(text)
            return cls(name, Recipe.from_dict(values.pop("recipe")), **values)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"settings are not those of a unit ({error}): {text}") from error


def published_splits(dataset: str) -> np.ndarray:
    """The 20 published stratified splits of 250 training indices for "mnist" or "svhn": (20, 250).

    Read from splits_250.npz (arrays MNIST_train and SVHN_train) in the data folder NCBOOK_DATA.
    Raises ValueError for another data set, FileNotFoundError when the file is not there.
    Source: Hofer et al. 2020, arXiv 2002.04805; the file data_train_indices.pickle of their repository.
    """
    check_choice("dataset", dataset, PUBLISHED)
    path = data_folder() / "splits_250.npz"
    if not path.exists():
        raise FileNotFoundError(f"the published splits are read from {path}: put them there from "
                                "data_train_indices.pickle of github.com/c-hofer/topologically_densified_distributions")
    with np.load(path) as splits:
        return splits[f"{PUBLISHED[dataset]}_train"]


def _densified(name: str, base: Recipe, sliding: SlidingSchedule, constant: ConstantSchedule, splits: Iterable[int],
               **changes) -> Iterator[Unit]:
    schedules: dict[str, Any] = {"vanilla": None, "constant": constant, "sliding": sliding}
    for split in splits:
        yield Unit(name, dataclasses.replace(base, schedule=schedules[name.split("_")[0]], seed=split, **changes),
                   published_split=split)


FRAME = {"fixed": "canonical"}  # what version 0.1 had, and the kept rows are of
MNIST250 = Recipe(dataset="mnist", backbone="mnist_cnn", clouds=(8, 16), p=1, epochs=310, lr=0.1, weight_decay=0.01)


def mnist250() -> list[Unit]:
    """MNIST-250 on the published splits 0 to 9, ablations on 0 to 4.

    "best" puts five networks side by side that share the 310 epochs; "vanilla_x5", an ablation, is the same without
    densification. "sliding_again" is sliding with other seeds, on 0 to 9; "sliding_wd0.001" has the weight decay of the
    published text and is on 0 to 9, too. With the fixed frame the network ends in a linear map, since the frame can be
    out of reach of an activation (chapter Reproduction).
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
                                frame=FRAME.get(head), feature_dim=feature_dim)
    return units


def mnist250_choices() -> list[Unit]:
    """What was tried to choose settings for `mnist250`, on the published splits 10 to 15.

    Schedules with 50 epochs on splits 10 to 15. On 10 to 12, networks side by side, which share the 310 epochs of one
    run, with seeds from 100 on, so that no network is one of those above; and heads on normalised features with two
    feature norms, 50 epochs, no densification. One seed a split.
    """
    base = dataclasses.replace(MNIST250, epochs=50)
    weights = {0.5: (0.05, 0.1), 1.1: (0.01, 0.02, 0.05, 0.1), 2.0: (0.01, 0.02, 0.05, 0.1), 4.0: (0.01, 0.02, 0.1)}
    schedules: dict[str, Any] = {f"constant_beta{beta}_weight{weight}": ConstantSchedule(beta, weight)
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
    """SVHN-250 on the published splits 0 to 9; one seed per split.

    The setting of "constant" has not been chosen on other splits.
    """
    base = Recipe(dataset="svhn", backbone="cnn13", clouds=(8, 16), p=2, epochs=310, lr=0.03, weight_decay=0.01)
    sliding, constant = SlidingSchedule(1.0, 0.1, 310), ConstantSchedule(1.0, 0.1)
    return [unit for name in ("vanilla", "sliding", "constant")
            for unit in _densified(name, base, sliding, constant, range(10))]


GUIDED = {HEADS[head].method: head for head in ("cosine", "fixed", "nearest")}  # row name -> head


def _guided(where: str, base: Recipe, measured: Iterable[int]) -> list[Unit]:
    """The three heads over five seeds, which also choose the training images where not all are taken."""
    return [Unit(f"{name}_{where}", dataclasses.replace(base, head=head, frame=FRAME.get(head), seed=seed, split=seed),
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
    in a linear map, since a fixed frame can be out of reach of an activation (chapter Reproduction).
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
    """Speed of guided training on all of MNIST with ResNet-18, measured at every epoch; needs a GPU."""
    return _guided("mnist", dataclasses.replace(RESNET18, dataset="mnist"), range(201))


def cifar10() -> list[Unit]:
    """Guided training on CIFAR-10 with ResNet-18, measured at the published epochs 50 and 200; needs a GPU."""
    return _guided("cifar10", dataclasses.replace(RESNET18, dataset="cifar10"), (50, 200))


TABLES = {"mnist250": mnist250, "mnist250_choices": mnist250_choices, "svhn250": svhn250,
          "unconstrained": unconstrained, "speed": speed, "mnist_resnet18": mnist_resnet18, "cifar10": cifar10}
