"""How beta and the weight of the densification loss move over training.

A schedule is any object with `beta(epoch)` and `weight(epoch)`, epoch = 1, ..., E (fractions of an epoch are fine).
"""

from __future__ import annotations

import math
from numbers import Integral, Real


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
        if not isinstance(epochs, Integral):
            raise TypeError(f"epochs must be an integer, got {epochs!r}")
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        super().__init__(beta0=beta0, weight=weight, epochs=epochs)

    def beta(self, epoch: float) -> float:
        return super().beta(epoch) * math.sqrt(1 - self._progress(epoch))

    def weight(self, epoch: float) -> float:
        return super().weight(epoch) * self._progress(epoch)

    def _progress(self, epoch: float) -> float:
        return min(epoch / self.settings["epochs"], 1.0)


def schedule_from_dict(settings: dict) -> _Schedule:
    """The schedule that `to_dict` of a ConstantSchedule, DelayedSchedule or SlidingSchedule has written.

    Raises: ValueError if the dict names no known schedule or lacks or adds a setting.
    """
    known = {cls.__name__: cls for cls in (ConstantSchedule, DelayedSchedule, SlidingSchedule)}
    arguments = dict(settings)
    name = arguments.pop("schedule", None)
    if name not in known:
        raise ValueError(f'settings["schedule"] must be one of {", ".join(known)}, got {name!r}')
    try:
        return known[name](**arguments)
    except TypeError as error:
        raise ValueError(f"settings do not fit {name}: {error}") from error


def _non_negative(name: str, value: float) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value}")
    return int(value) if isinstance(value, Integral) else float(value)
