"""What the lab keeps of a run: a `Frame` for many of its steps, a bounded number of them in a `Run`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ncbook.heads import HEADS
from ncbook.live.drawing import Drawing
from ncbook.live.guide import Facts, Guide
from ncbook.schedules import SCHEDULES
from ncbook.training.data import Dataset
from ncbook.training.recipe import Recipe
from ncbook.training.regularisers import REGULARISERS, Controls
from ncbook.training.snapshot import Snapshot
from ncbook.training.trainer import Trainer

MAX_FRAMES, DENSE = 600, 100
_SPARSE = 100  # after the first DENSE steps, a frame for each per cent that a run has grown
_WATCHED, _TEST = 200, "test_"
CURVES = ("nc1", "etf_distance", "nc3", "accuracy", "test_accuracy")
_MANY_CLASSES = ("nc2_equinorm", "nc2_equiangular", "nc2_gram", "etf_distance")  # 0 for two classes, whatever they do
UNTOUCHED = Drawing()
BY_HAND, OWN = "by hand", "own"


class Frame(NamedTuple):
    """What one picture shows; some kilobytes.

    epoch, with its fraction; metrics: a curve's key -> value; dials: those of the regulariser in the last step;
    planned: where the schedule has them; manual: whether a hand leads; deaths: death times of the last step's clouds,
    ascending; parts: name of a panel -> what it keeps of a snapshot; facts: what the guide reads; look: the panel and
    the sentence of the guide.
    """

    epoch: float
    step: int
    metrics: dict[str, float]
    dials: Mapping[str, float]
    deaths: np.ndarray
    parts: dict[str, Any]
    facts: Facts = Facts()
    planned: Mapping[str, float] = {}
    manual: bool = False
    look: tuple[str, str] = ("", "")

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
    """A recorded run: each of its first steps, then fewer, at most MAX_FRAMES, and always the last.

    recipe is what it began with, data what it was trained on, drawing what a hand did to that; title, caption: of the
    scenario that it began as, "" for another beginning; name: what the reader calls it; events: (epoch, words) of what
    was changed under way; first: the snapshot at the start, of the samples that are watched; panels, curves: as in
    `LiveLab`.
    """

    number: int
    recipe: Recipe
    data: Dataset
    first: Snapshot
    panels: tuple[str, ...] = ()
    curves: tuple[str, ...] = CURVES
    frames: list[Frame] = dataclasses.field(default_factory=list)
    events: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    drawing: Drawing = UNTOUCHED
    title: str = ""
    caption: str = ""
    name: str = ""
    kept: bool = False
    _passing: bool = False
    _kept: int = -1

    def __repr__(self) -> str:
        return f"Run({self.label!r}, {len(self.frames)} frames)"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.data.class_names

    @property
    def label(self) -> str:
        """Number and name; else the scenario, or the number and what was trained, and what happened to it."""
        if self.name:
            return f"{self.number}: {self.name}"
        happened = [f"{words} from epoch {epoch:.3g}" for epoch, words in self.events]
        return ", ".join([self.title or f"{self.number}: {describe(self.recipe, self.data)}", *happened])

    def due(self, step: int) -> bool:
        """Whether a step has to be recorded: one of the first DENSE, or 1 per cent later than the one before."""
        return step <= DENSE or step - self._kept >= max(1, step // _SPARSE)

    def record(self, frame: Frame) -> None:
        """Append a frame in the place of one that was there only for being the last; thin them out past MAX_FRAMES."""
        if self.frames and (self._passing or self.frames[-1].step == frame.step):
            self.frames.pop()
        self._passing = not self.due(frame.step) and frame.step != self._kept
        if not self._passing:
            self._kept = frame.step
        self.frames.append(frame)
        if len(self.frames) > MAX_FRAMES:
            self.frames = [*self.frames[:DENSE], *self.frames[DENSE:-1:2], frame]

    def note(self, epoch: float, words: str) -> None:
        """What a hand did at an epoch; of several things of one kind, the first is kept."""
        if words not in [known for _, known in self.events]:
            self.events.append((epoch, words))

    def at(self, epoch: float) -> Frame:
        """The frame nearest to an epoch."""
        return min(self.frames, key=lambda frame: abs(frame.epoch - epoch))


class Recorder:
    """A trainer and the run that is recorded of it.

    takes: name of a panel -> function of a snapshot and the trainer to what its frames keep, or None; dials: where they
    stand at the start, if no schedule moves them; title, caption: as in `Run`. Raises what the recipe or data make
    `Trainer` or a measurement raise.
    """

    def __init__(self, recipe: Recipe, data: Dataset | None, takes: Mapping[str, Callable | None],
                 curves: tuple[str, ...], number: int = 1, dials: Mapping[str, Any] | None = None,
                 drawing: Drawing = UNTOUCHED, title: str = "", caption: str = ""):
        self.trainer = Trainer(recipe, data=data, controls=Controls(**dials or {}))
        self._takes, self._watched = takes, watched(self.trainer.data)
        if self.trainer.data.num_classes == 2:
            curves = tuple(key for key in curves if key.removeprefix(_TEST) not in _MANY_CLASSES)
        self._keys = [[key for key in curves if not key.startswith(_TEST)],
                      [key.removeprefix(_TEST) for key in curves if key.startswith(_TEST)]]
        self._keys[0] += ["accuracy"] * ("accuracy" not in self._keys[0])
        self._guide = Guide()
        self.run = Run(number, recipe, self.trainer.data, self._shot(), tuple(takes), curves, drawing=drawing,
                       title=title, caption=caption)
        self._record(self.run.first)

    def step(self) -> None:
        """One training step, recorded if the run wants it."""
        self.trainer.step()
        if self.run.due(self.trainer.steps):
            self.take()

    def take(self) -> Frame:
        """Measure the network as it stands, unless that was done, and keep the frame as the last one."""
        last = self.run.frames[-1]
        return last if last.step == self.trainer.steps else self._record(self._shot())

    def replace_data(self, data: Dataset, drawing: Drawing) -> None:
        """Go on with samples that have moved, as many as before, and draw the same ones."""
        self.trainer.data = self.run.data = data.to(self.trainer.device)
        self._watched, self.run.drawing = watched(self.trainer.data), drawing
        self._record(self._shot())

    def _shot(self) -> Snapshot:
        return self.trainer.snapshot(data=self._watched, keys=self._keys[0], test_keys=self._keys[1])

    def _record(self, shot: Snapshot) -> Frame:
        values = shot.train | {_TEST + key: value for key, value in shot.test.items()}
        trainer = self.trainer
        clouds, schedule = trainer.recipe.clouds, trainer.recipe.schedule
        deaths = np.zeros(clouds[0] * (clouds[1] - 1) if clouds else 0, dtype=np.float32)
        if shot.deaths is not None:
            deaths = shot.deaths.flatten().sort().values.numpy()
        frame = Frame(shot.step / trainer.steps_per_epoch, shot.step,
                      {key: values.get(key, math.nan) for key in self.run.curves}, shot.dials, deaths,
                      {name: take(shot, trainer) for name, take in self._takes.items() if take is not None},
                      Facts.of(shot), planned(schedule, trainer), trainer.controls.manual)
        frame = frame._replace(look=self._guide(self.run, frame))
        self.run.record(frame)
        return frame


def planned(schedule: Any, trainer: Trainer) -> dict[str, float]:
    """Where a schedule has the dials in the epoch of the last step; NaN without one."""
    epoch = max(1, math.ceil(trainer.steps / trainer.steps_per_epoch))
    return {dial.name: math.nan if schedule is None else float(getattr(schedule, dial.schedule)(epoch))
            for dial in REGULARISERS[trainer.recipe.regulariser].dials}


def watched(data: Dataset, size: int = _WATCHED) -> Dataset:
    """About `size` training and as many test samples, the first of each class, and at least one of each."""
    part = data.subset(first_of_each(data.train_targets, data.num_classes, size))
    if data.test_targets is None or data.test_inputs is None:
        return part
    at = first_of_each(data.test_targets, data.num_classes, size)
    return dataclasses.replace(part, test_inputs=data.test_inputs[at], test_targets=data.test_targets[at])


def first_of_each(targets: torch.Tensor, num_classes: int, size: int) -> torch.Tensor:
    """Indices of the first samples of each class, about `size` in all, class by class."""
    most = max(1, size // num_classes)
    return torch.cat([(targets == c).nonzero().flatten()[:most] for c in range(num_classes)])


def plan_name(schedule: Any) -> str:
    """What the menu calls a schedule."""
    if schedule is None:
        return BY_HAND
    return next((name.removesuffix("Schedule").lower() for name, kind in SCHEDULES.items() if kind is type(schedule)),
                OWN)


def describe(recipe: Recipe, data: Dataset) -> str:
    """A recipe and its data in one line: data, classes, method, schedule, norm, learning rate, length."""
    kinds = (f"classes {' '.join(map(str, recipe.classes))}" if isinstance(recipe.classes, tuple)
             else f"{data.num_classes} classes")
    parts = [data.name, kinds, HEADS[recipe.head].method]
    if recipe.clouds:
        settings = getattr(recipe.schedule, "settings", {})
        given = [f"{settings[name]:g}" for name in ("beta0", "weight") if name in settings]
        parts += [f"{plan_name(recipe.schedule)} {'/'.join(given)}".rstrip(), f"L{recipe.p:g}".replace("inf", "∞")]
    parts += [f"lr {recipe.lr:g}", f"{recipe.epochs} epochs"] + [f"seed {recipe.seed}"] * (recipe.seed > 0)
    return ", ".join(parts)
