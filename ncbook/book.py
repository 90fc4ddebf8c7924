"""What every chapter needs beside its subject: profile, tables, medians with ranges, text, code, small data sets."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from IPython.display import Code, Markdown, display

from ncbook.checks import check_choice
from ncbook.training.data import Dataset, load_dataset


def profile(*, quick: Mapping[str, Any], book: Mapping[str, Any], paper: Mapping[str, Any]) -> tuple:
    """The name of the profile in the environment's NCBOOK_PROFILE, by default "book", then its values in their order.

    Shows a table of what each profile changes. Raises ValueError for another name, or profiles whose keys differ.
    """
    profiles = {"quick": quick, "book": book, "paper": paper}
    name = check_choice("NCBOOK_PROFILE", os.environ.get("NCBOOK_PROFILE", "book"), profiles)
    if not list(quick) == list(book) == list(paper):
        raise ValueError(f"profiles must have the same keys in the same order, got {[*map(list, profiles.values())]}")
    table(["profile", *(f"**{key}**" if key == name else key for key in profiles)],
          [[f"`{key}`", *(str(sizes[key]) for sizes in profiles.values())] for key in book])
    return name, *profiles[name].values()


def say(text: str) -> None:
    """Show text, in Markdown."""
    display(Markdown(text))


def table(header: Sequence, rows: Iterable[Sequence], *, text: int = 1) -> None:
    """Show a Markdown table. Floats get three digits; the first `text` columns are text, those after it numbers.

    Raises ValueError for a row of another length than the header's.
    """
    lines = [header, ["---"] * text + ["---:"] * (len(header) - text), *rows]
    if wrong := [list(line) for line in lines if len(line) != len(header)]:
        raise ValueError(f"rows must have {len(header)} cells, as the header, got {wrong[0]}")
    say("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def _cell(value: Any) -> str:
    return (f"{value:.3g}" if isinstance(value, float) else str(value)).replace("|", r"\|")


def median_range(values: Iterable[float], form: str = ".3g") -> str:
    """Median and range as text, "0.95 (0.9 to 1)", one number where all are the same; form: a format of numbers."""
    values = list(values)
    low, high = min(values), max(values)
    return f"{median(values):{form}}" + (f" ({low:{form}} to {high:{form}})" if low < high else "")


def source(*objects: Any) -> str:
    """The source of functions and classes that stand in files, one after the other. Raises ValueError for others."""
    if own := [each.__qualname__ for each in objects if each.__module__ == "__main__"]:
        raise ValueError(f"{', '.join(own)} stands in the notebook itself, whose cells show it")
    return "\n\n".join(textwrap.dedent(inspect.getsource(each)).rstrip() for each in objects)


def show_code(*objects: Any) -> None:
    """Show the source of functions and classes; the output's metadata name them, so that tests can compare the two."""
    names = [f"{each.__module__}:{each.__qualname__}" for each in objects]
    display(Code(source(*objects), language="python"), metadata={"ncbook": {"source": names}})


def few_images(name: str, train_size: int, split: int) -> Dataset:
    """`train_size` images of a data set, in its class proportions, to train on, and all the others to test on.

    The others are those of its test set as well. split: seed that chooses. Errors as those of `load_dataset`.
    """
    from sklearn.model_selection import train_test_split

    full = load_dataset(name)
    parts = (full.train_inputs, full.test_inputs), (full.train_targets, full.test_targets)
    inputs, targets = (torch.cat([part for part in both if part is not None]) for both in parts)
    some, rest = train_test_split(range(len(targets)), train_size=train_size, random_state=split, stratify=targets)
    return replace(full, train_inputs=inputs[some], train_targets=targets[some], test_inputs=inputs[rest],
                   test_targets=targets[rest])
