"""How beta and the weight of the densification loss move over training.

A schedule is any object with `beta(epoch)` and `weight(epoch)`, epoch = 1, ..., E (fractions of an epoch are fine); for
a regulariser of one's own, with the methods that its dials name. To be saved it needs an entry in `SCHEDULES` under its
class's name, `to_dict()`, which gives {"schedule": that name, **arguments}, and `__eq__`.
"""

from __future__ import annotations

import math
from numbers import Integral

from ncbook.checks import check_choice, check_integer, check_number


class _Schedule:
    """Keeps the settings and makes a schedule printable, comparable and storable."""

    def __init__(self, **settings: float):
        self.settings = {name: _non_negative(name, value) for name, value in settings.items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash((type(self), *self.settings.values()))

    def to_dict(self) -> dict:
        """The schedule as a dict of plain values, which schedule_from_dict reads."""
        return {"schedule": type(self).__name__, **self.settings}

    def beta(self, epoch: float) -> float:
        _non_negative("epoch", epoch)
        return self.settings["beta0"]

    def weight(self, epoch: float) -> float:
        _non_negative("epoch", epoch)
        return self.settings["weight"]


class ConstantSchedule(_Schedule):
    """beta(e) = beta0 and w(e) = weight throughout.

    Raises: TypeError if a setting or epoch is not a number, ValueError if it is negative or not finite.
    Source: Hofer, Graf, Niethammer, Kwitt, Topologically Densified Distributions, ICML 2020 (arXiv 2002.04805).
    """

    def __init__(self, beta0: float, weight: float):
        super().__init__(beta0=beta0, weight=weight)


class DelayedSchedule(_Schedule):
    """w(e) = 0 before epoch `start`, w(e) = weight from `start` on; beta(e) = beta0 throughout.

    Raises: TypeError if a setting or epoch is not a number, ValueError if it is negative or not finite.
    """

    def __init__(self, beta0: float, weight: float, start: float):
        super().__init__(beta0=beta0, weight=weight, start=start)

    def weight(self, epoch: float) -> float:
        weight = super().weight(epoch)
        return weight if epoch >= self.settings["start"] else 0.0


class SlidingSchedule(_Schedule):
    """w(e) = weight * e / E slides up while beta(e) = beta0 * sqrt((E - e) / E) slides to 0, E = `epochs`.

    Training that goes on after epoch E keeps the last values, w = weight and beta = 0.
    Raises: TypeError if a setting or epoch is not a number, or `epochs` not an integer; ValueError if a setting or
        epoch is negative or not finite, or `epochs` < 1.
    """

    def __init__(self, beta0: float, weight: float, epochs: int):
        super().__init__(beta0=beta0, weight=weight, epochs=check_integer("epochs", epochs, least=1))

    def beta(self, epoch: float) -> float:
        return super().beta(epoch) * math.sqrt(1 - self._progress(epoch))

    def weight(self, epoch: float) -> float:
        return super().weight(epoch) * self._progress(epoch)

    def _progress(self, epoch: float) -> float:
        return min(epoch / self.settings["epochs"], 1.0)


SCHEDULES: dict[str, type[_Schedule]] = {
    cls.__name__: cls for cls in (ConstantSchedule, DelayedSchedule, SlidingSchedule)
}


def schedule_from_dict(settings: dict) -> _Schedule:
    """The schedule that `to_dict` of one of `SCHEDULES` has written.

    Raises: ValueError if the dict names no known schedule or lacks or adds a setting.
    """
    arguments = dict(settings)
    name = check_choice('settings["schedule"]', arguments.pop("schedule", None), SCHEDULES)
    try:
        return SCHEDULES[name](**arguments)
    except TypeError as error:
        raise ValueError(f"settings do not fit {name}: {error}") from error


def _non_negative(name: str, value: float) -> float:
    check_number(name, value)
    return int(value) if isinstance(value, Integral) else float(value)
