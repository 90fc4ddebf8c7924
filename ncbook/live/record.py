"""What the lab keeps of a run: a `Frame` for each picture, a bounded number of them in a `Run`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ncbook.training.data import Dataset
from ncbook.training.recipe import Recipe
from ncbook.training.regularisers import Controls
from ncbook.training.snapshot import Snapshot
from ncbook.training.trainer import Trainer

MAX_FRAMES = 600
_WATCHED, _TEST = 200, "test_"
CURVES = ("nc1", "nc2_equinorm", "nc2_equiangular", "nc3", "etf_distance", "accuracy", "test_accuracy", "nc4")


class Frame(NamedTuple):
    """What one picture shows; about 5 kB.

    epoch, with its fraction; metrics: a curve's key -> value; dials: those of the regulariser in the last step; deaths:
    death times of the last step's clouds, ascending; parts: name of a panel -> what it keeps of a snapshot.
    """

    epoch: float
    step: int
    metrics: dict[str, float]
    dials: Mapping[str, float]
    deaths: np.ndarray
    parts: dict[str, Any]

    @property
    def beta(self) -> float:
        """The scale of the densification loss; NaN where the regulariser has none."""
        return self.dials.get("beta", math.nan)

    @property
    def densify_weight(self) -> float:
        """The weight of the densification loss; NaN where the regulariser has none."""
        return self.dials.get("densify_weight", math.nan)


@dataclasses.dataclass(eq=False)
class Run:
    """A recorded run: its first and its last frame and those between, at most MAX_FRAMES, evenly spaced.

    recipe is what it began with; plans: (epoch, schedule) from when each schedule led; first: the snapshot at the
    start, of the samples that are watched; panels, curves: as in `LiveLab`.
    """

    label: str
    recipe: Recipe
    class_names: tuple[str, ...]
    first: Snapshot
    panels: tuple[str, ...] = ()
    curves: tuple[str, ...] = CURVES
    frames: list[Frame] = dataclasses.field(default_factory=list)
    plans: list[tuple[float, Any]] = dataclasses.field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    def __post_init__(self):
        self.plans = self.plans or [(0.0, self.recipe.schedule)]

    def __repr__(self) -> str:
        return f"Run({self.label!r}, {len(self.frames)} frames)"

    def record(self, frame: Frame) -> None:
        """Keep a frame; when there are too many, every second one goes and from then on fewer are kept."""
        if self._seen and (self._seen - 1) % self._stride:
            self.frames.pop()  # it was there only for being the last
        self.frames.append(frame)
        self._seen += 1
        if len(self.frames) >= MAX_FRAMES:
            self.frames = [*self.frames[:-1:2], frame]
            self._stride *= 2

    def follow(self, schedule: Any, epoch: float) -> None:
        """From this epoch on another schedule leads."""
        self.plans = [*(plan for plan in self.plans if plan[0] < epoch), (epoch, schedule)]

    def at(self, epoch: float) -> Frame:
        """The frame nearest to an epoch."""
        return min(self.frames, key=lambda frame: abs(frame.epoch - epoch))


class Recorder:
    """A trainer and the run that is recorded of it.

    takes: name of a panel -> function of a snapshot to what its frames keep, or None; dials: where they stand at the
    start, if no schedule moves them. Raises what the recipe or data make `Trainer` or a measurement raise.
    """

    def __init__(self, recipe: Recipe, data: Dataset | None, takes: Mapping[str, Callable | None],
                 curves: tuple[str, ...], label: str, dials: Mapping[str, Any]):
        self.trainer = Trainer(recipe, data=data, controls=Controls(**dials))
        self._takes, self._data = takes, watched(self.trainer.data)
        self._keys = [[key for key in curves if not key.startswith(_TEST)],
                      [key.removeprefix(_TEST) for key in curves if key.startswith(_TEST)]]
        self.run = Run(label, recipe, self.trainer.data.class_names, self._shot(), tuple(takes), curves)
        self._record(self.run.first)

    def take(self) -> Frame:
        """Measure the network as it stands, and keep the frame."""
        return self._record(self._shot())

    def _shot(self) -> Snapshot:
        return self.trainer.snapshot(data=self._data, keys=self._keys[0], test_keys=self._keys[1])

    def _record(self, shot: Snapshot) -> Frame:
        values = shot.train | {_TEST + key: value for key, value in shot.test.items()}
        clouds = self.trainer.recipe.clouds
        deaths = np.zeros(clouds[0] * (clouds[1] - 1) if clouds else 0, dtype=np.float32)
        if shot.deaths is not None:
            deaths = shot.deaths.flatten().sort().values.numpy()
        frame = Frame(shot.step / self.trainer.steps_per_epoch, shot.step,
                      {key: values.get(key, math.nan) for key in self.run.curves}, shot.dials, deaths,
                      {name: take(shot) for name, take in self._takes.items() if take is not None})
        self.run.record(frame)
        return frame


def watched(data: Dataset, size: int = _WATCHED) -> Dataset:
    """About `size` training and as many test samples, the first of each class, and at least one of each."""

    def first(targets: torch.Tensor) -> torch.Tensor:
        most = max(1, size // data.num_classes)
        return torch.cat([(targets == c).nonzero().flatten()[:most] for c in range(data.num_classes)])

    part = data.subset(first(data.train_targets))
    if data.test_targets is None or data.test_inputs is None:
        return part
    at = first(data.test_targets)
    return dataclasses.replace(part, test_inputs=data.test_inputs[at], test_targets=data.test_targets[at])
