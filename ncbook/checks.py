"""The value checks that the public doors share: each names the argument, what was given and what is accepted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def check_choice(name: str, value: Any, accepted: Iterable) -> Any:
    """Return value. Raises ValueError unless it is one of `accepted`."""
    accepted = tuple(accepted)
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")
    return value


def check_integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return value as an int. Raises TypeError for another type (bool is one), ValueError outside least..most."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if least is not None and int(value) < least or most is not None and int(value) > most:
        bounds = f"at least {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return int(value)


def check_number(name: str, value: Any, *, positive: bool = False) -> Any:
    """Return value. Raises TypeError unless it is a real number, ValueError for negative (with `positive`: or 0), NaN
    and inf."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= float(value) < math.inf or positive and value == 0:
        raise ValueError(f"{name} must be finite and {'positive' if positive else 'not negative'}, got {value}")
    return value


def check_floating(name: str, value: Any, ndim: int | None = None) -> Tensor:
    """Return value. Raises TypeError unless it is a floating-point tensor, ValueError for another number of axes."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {given}")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {tuple(value.shape)}")
    return value


def may_look(x: Tensor) -> bool:
    """Whether asking for a tensor's values costs neither a break of a compiled graph nor a wait for the device."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    try:
        x.detach().new_zeros(()).item()
    except RuntimeError:  # under torch.func.vmap a tensor has many values
        return False
    return True


def check_finite(name: str, value: Tensor, *, wait: bool = False) -> Tensor:
    """Return value. Raises ValueError for NaN or inf, where one may look; with `wait` everywhere."""
    finite = value.isfinite().all()
    if (wait or may_look(finite)) and not finite:
        raise ValueError(f"{name} must be finite, got NaN or inf")
    return value


def check_labels(name: str, targets: Tensor, num_classes: int, features: Tensor) -> None:
    """Raises ValueError for labels outside 0..num_classes-1, or NaN or inf in the features: one wait for the device."""
    low, high = targets.aminmax()
    # A finite sum rules out NaN and inf at a fraction of the price, and one that is not may just be too large.
    finite, low, high = torch.stack([features.detach().sum().isfinite().to(low), low, high]).tolist()
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name} must lie in 0..{num_classes - 1}, got {low}..{high}")
    if not finite and not features.isfinite().all():
        raise ValueError("features must be finite, got NaN or inf")
