"""A recipe as the cell that makes it again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ncbook.live.drawing import Drawing
from ncbook.schedules import SCHEDULES
from ncbook.training.recipe import Recipe


def code_of(recipe: Recipe, drawing: Drawing | None = None, dials: Mapping[str, float] | None = None,
            only: Sequence[str] = ()) -> str:
    """Python that opens a lab with a recipe, its drawn points, and the dials where a hand has put them.

    A schedule that is not one of `SCHEDULES` stands there as a name that the reader has to give.
    """
    kind = type(recipe.schedule).__name__
    known = kind in SCHEDULES
    values = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    defaults = {f.name: f.default for f in dataclasses.fields(recipe)}
    given = [f"{name}={_text(value, known)}" for name, value in values.items() if value != defaults[name]]
    imports = ["Recipe", *[kind] * (known and recipe.schedule is not None), *["load_dataset"] * bool(drawing)]
    lines = [f"from ncbook import {', '.join(sorted(imports, key=str.lower))}",
             f"from ncbook.live import {'Drawing, ' * bool(drawing)}LiveLab", "", _call("recipe = Recipe(", given)]
    extra = ["recipe"]
    if drawing:
        of = ", ".join(f"{name}={values[name]!r}" for name in ("classes", "train_size", "split")
                       if values[name] != defaults[name])
        lines.append(_call("drawing = Drawing(", [f"{f.name}={getattr(drawing, f.name)!r}"
                                                  for f in dataclasses.fields(drawing) if getattr(drawing, f.name)]))
        lines.append(f"data = drawing.apply(load_dataset({recipe.dataset!r}{', ' * bool(of)}{of}))")
        extra.append("data=data")
    if only:
        extra.append(f"only={tuple(only)!r}")
    lines.append(f"lab = LiveLab({', '.join(extra)})")
    if dials:
        lines.append(f"lab.set({', '.join(f'{name}={value:g}' for name, value in dials.items())})")
    return "\n".join([*lines, "lab"]) + "\n"


def _text(value: Any, known: bool) -> str:
    if value == math.inf:
        return 'float("inf")'
    return repr(value) if known or not hasattr(value, "weight") else "schedule"


def _call(begin: str, arguments: Sequence[str], width: int = 100) -> str:
    """A call on as many lines as it needs."""
    lines, indent = [begin], " " * 4
    if len(begin) + sum(len(argument) + 2 for argument in arguments) < width:
        return begin + ", ".join(arguments) + ")"
    line = indent
    for argument in arguments:
        if len(line) + len(argument) > width and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += argument + ", "
    return "\n".join([*lines, line.rstrip(), ")"])
