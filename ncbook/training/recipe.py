"""What decides a training run."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from ncbook.checks import check_choice, check_integer, check_number
from ncbook.heads import FRAMES, HEADS, SCALE, HeadKind
from ncbook.losses import LOSSES
from ncbook.schedules import SCHEDULES, schedule_from_dict
from ncbook.training.regularisers import REGULARISERS

LR_DECAYS = ("cosine", "constant")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    dataset, classes, train_size, split: as in `load_dataset`. backbone, feature_dim: as in `build_backbone`.
    head: a key of `HEADS`: "learned" (plain linear), "cosine" (learned, unit rows), "fixed", "nearest"; scale: feature
    norm of the last three; frame, centred: as in `FixedETFHead`, of "fixed" alone; loss: a key of `LOSSES`;
    label_smoothing: of cross-entropy in training, in [0, 1). batch_size: images a step, without clouds. clouds (b, n):
    a step takes b anchors and n-1 more draws of the class of each, b*n images, on which the regulariser (a key of
    `REGULARISERS`) acts; `schedule` moves its dials (None: they stay at their defaults, for "densification" off),
    p (1, 2, inf) is its norm. An epoch is N // batch_size (N // b with clouds) steps, at least one. lr_decay: "cosine"
    to 0 by epochs, or "constant".
    Raises ValueError and TypeError for a value that is not accepted.
    """

    dataset: str = "digits"
    classes: int | tuple[int, ...] | None = None
    train_size: int | None = None
    split: int = 0
    backbone: str = "small_cnn"
    feature_dim: int | None = None
    head: str = "learned"
    scale: float = SCALE
    frame: str | None = None
    centred: bool = False
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    batch_size: int = 64
    clouds: tuple[int, int] | None = None
    regulariser: str = "densification"
    schedule: Any = None
    p: float = 2
    epochs: int = 20
    lr: float = 0.1
    lr_decay: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        for name in ("classes", "clouds"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, accepted in (("head", HEADS), ("loss", LOSSES), ("lr_decay", LR_DECAYS), ("p", (1, 2, math.inf)),
                               ("regulariser", REGULARISERS), ("frame", (None, *FRAMES)), ("centred", (False, True))):
            check_choice(name, getattr(self, name), accepted)
        kind, regulariser = HEADS[self.head], REGULARISERS[self.regulariser]
        if not isinstance(kind, HeadKind):
            raise TypeError(f"HEADS[{self.head!r}] must be a HeadKind, got {kind!r}")
        if unknown := set(kind.options) - {field.name for field in dataclasses.fields(self)}:
            raise ValueError(f"options of head {self.head!r} must be fields of Recipe, got {sorted(unknown)}")
        if not isinstance(getattr(regulariser, "dials", None), tuple):
            raise TypeError(f"REGULARISERS[{self.regulariser!r}] must have dials: declare it with "
                            "@regulariser(Dial(...))")
        if self.loss == "dot_regression" and HEADS[self.head].learned:
            prescribed = " or ".join(repr(name) for name, kind in HEADS.items() if not kind.learned)
            raise ValueError(f"loss 'dot_regression' needs head {prescribed}, got {self.head!r}: rows that may move "
                             "reach loss 0 by all being the same")
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("split", 0)):
            check_integer(name, getattr(self, name), least)
        for name in ("train_size", "feature_dim"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least=1)
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))
        check_number("scale", self.scale, positive=True)
        if not 0 <= check_number("label_smoothing", self.label_smoothing) < 1:
            raise ValueError(f"label_smoothing must be below 1, got {self.label_smoothing}")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"label_smoothing is for loss 'cross_entropy', got {self.loss!r}")
        if self.clouds is not None and not (isinstance(self.clouds, tuple) and len(self.clouds) == 2
                                            and check_integer("clouds", self.clouds[0]) >= 1
                                            and check_integer("clouds", self.clouds[1]) >= 2):
            raise ValueError(f"clouds must be (b, n) with b >= 1 clouds of n >= 2 points, got {self.clouds}")
        if self.schedule is not None:
            needed = [dial.schedule for dial in regulariser.dials]
            if absent := [name for name in needed if not callable(getattr(self.schedule, name, None))]:
                raise TypeError(f"schedule must have the methods {', '.join(needed)} of the epoch, got "
                                f"{self.schedule!r} without {', '.join(absent)}")
        if self.clouds is None and (self.schedule is not None or self.regulariser != "densification"):
            raise ValueError(f"regulariser {self.regulariser!r} needs same-class clouds: give clouds=(b, n)")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a dict of plain values, which `from_dict` reads.

        Raises TypeError for a schedule that could not be read back: its class must stand in
        `ncbook.schedules.SCHEDULES` under its name.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.schedule is not None:
            kind = type(self.schedule)
            if SCHEDULES.get(kind.__name__) is not kind:
                raise TypeError("schedule must be one of ncbook.schedules.SCHEDULES to be saved and read back, "
                                f"got {kind.__name__}")
            values["schedule"] = self.schedule.to_dict() if hasattr(self.schedule, "to_dict") else {}
            again: Any
            try:
                again = schedule_from_dict(json.loads(json.dumps(values["schedule"])))
            except (TypeError, ValueError) as error:
                again = error
            if again != self.schedule:
                raise TypeError(f"schedule must read back equal from its to_dict(), {{'schedule': {kind.__name__!r}, "
                                f"**arguments}}, which needs __eq__ too, got {again!r}")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The recipe that `to_dict` gave, also through JSON; fields that are absent have their defaults.

        Version 0.1 had no `frame`, and its fixed heads were canonical.
        """
        if values.get("head") == "fixed":
            values = {"frame": "canonical"} | values
        schedule = values.get("schedule")
        return cls(**values | {"schedule": None if schedule is None else schedule_from_dict(schedule)})

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote."""
        return cls.from_dict(json.loads(text))
