"""Regularisers on same-class clouds, and the dials by which a schedule, a slider or a hand moves them.

A regulariser is a callable `loss(clouds, controls)` with an attribute `dials`. It takes b clouds (b, n, d) of features,
n samples of one class each, and `Controls`, on which each dial is an attribute, to a scalar that is added to the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from torch import Tensor

from ncbook.persistence import densification_loss


@dataclass(frozen=True)
class Dial:
    """A number of a regulariser that may move while training runs.

    low, high: the range of a slider; default: its value where no schedule sets it; schedule: the method of a schedule
    that gives its value at an epoch; label: its name on a page. Raises ValueError for a name that `Controls` has taken.
    """

    name: str
    low: float
    high: float
    default: float
    schedule: str
    label: str

    def __post_init__(self):
        if self.name in ("p", "lr", "manual"):
            raise ValueError(f"name must be none of 'p', 'lr', 'manual', which controls have anyway, got {self.name!r}")


class Controls(SimpleNamespace):
    """What may change while training runs; the trainer reads it at each step.

    Each dial of the recipe's regulariser is an attribute, of densification beta and densify_weight: the trainer itself
    sets them from the recipe's schedule unless `manual`. p: the norm of densification; lr: the learning rate before its
    decay; None stands for the recipe's value. Raises AttributeError where something else is set.
    """

    beta: float
    densify_weight: float
    p: Any
    lr: float | None
    manual: bool

    def __init__(self, beta: float = 0.0, densify_weight: float = 0.0, *, p: float | None = None,
                 lr: float | None = None, manual: bool = False, **dials: float):
        vars(self).update(beta=beta, densify_weight=densify_weight, **dials, p=p, lr=lr, manual=manual)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in vars(self):
            raise AttributeError(f"controls have {', '.join(vars(self))}, and no {name!r}")
        super().__setattr__(name, value)


class Regulariser(Protocol):
    dials: tuple[Dial, ...]

    def __call__(self, clouds: Tensor, controls: Controls) -> Tensor | float: ...


def regulariser(*dials: Dial) -> Callable[[Callable], Regulariser]:
    """Decorator: declares the dials of a function of clouds and controls."""

    def declare(function: Any) -> Regulariser:
        function.dials = dials
        return function

    return declare


@regulariser(Dial("beta", 0, 4, 0.0, "beta", "β"), Dial("densify_weight", 0, 1, 0.0, "weight", "weight"))
def densification(clouds: Tensor, controls: Controls) -> Tensor | float:
    """densify_weight times `densification_loss` at scale beta and norm p."""
    if controls.densify_weight == 0:
        return 0.0
    return controls.densify_weight * densification_loss(clouds, controls.beta, controls.p)


REGULARISERS: dict[str, Regulariser] = {"densification": densification}
