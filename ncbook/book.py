"""What every chapter needs beside its subject: profile, tables, text, code, small data sets, runs in parallel."""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from IPython.display import Code, Markdown, display

from ncbook.checks import check_choice
from ncbook.training.data import Dataset, load_dataset

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def profile(about: Mapping[str, str], /, *, quick: Mapping[str, Any], book: Mapping[str, Any],
            paper: Mapping[str, Any]) -> tuple:
    """The name of the profile in the environment's NCBOOK_PROFILE, by default "book", then its values in their order.

    Shows a table of what each profile changes; about: key -> what it is, in words. Raises ValueError for another name,
    profiles whose keys differ, and words for other keys.
    """
    profiles = {"quick": quick, "book": book, "paper": paper}
    name = check_choice("NCBOOK_PROFILE", _profile_name(), profiles)
    if not list(quick) == list(book) == list(paper):
        raise ValueError(f"profiles must have the same keys in the same order, got {[*map(list, profiles.values())]}")
    if set(about) != set(book):
        raise ValueError(f"about must have the keys of the profiles, {[*book]}, got {[*about]}")
    table(["profile", *(f"**{key}**" if key == name else key for key in profiles)],
          [[about[key], *(_sizes(sizes[key]) for sizes in profiles.values())] for key in book])
    return name, *profiles[name].values()


def _profile_name() -> str:
    return os.environ.get("NCBOOK_PROFILE", "book")


def _sizes(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_sizes, value))
    return f"{value:,}" if type(value) is int else str(value)


def say(text: str) -> None:
    """Show text, in Markdown; 3e-05 in it is shown as 3·10⁻⁵."""
    display(Markdown(_powers(text)))


def table(header: Sequence, rows: Iterable[Sequence], *, text: int = 1) -> None:
    """Show a Markdown table. Floats get three digits; the first `text` columns are text, those after it numbers.

    In columns of numbers no cell is broken over lines; powers of ten as in `say`.
    Raises ValueError for a row of another length than the header's.
    """
    body = [list(row) for row in rows]
    if wrong := [row for row in body if len(row) != len(header)]:
        raise ValueError(f"rows must have {len(header)} cells, as the header, got {wrong[0]}")
    body = [[_cell(value) if k < text else _number(_cell(value)) for k, value in enumerate(row)] for row in body]
    lines = [map(_cell, header), ["---"] * text + ["---:"] * (len(header) - text), *body]
    say("\n".join("| " + " | ".join(line) + " |" for line in lines))


def _cell(value: Any) -> str:
    return (f"{value:.3g}" if isinstance(value, float) else str(value)).replace("|", r"\|")


def _number(text: str) -> str:
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", text).replace(" ", "\N{NO-BREAK SPACE}")


def _powers(text: str) -> str:
    """3e-05 as 3·10⁻⁵, but for code between backticks."""
    def power(found: re.Match) -> str:
        factor, exponent = found[1], found[2]
        if factor is None:
            return found[0]
        if not float(factor) or not int(exponent):
            return factor
        return f"{factor}·".removeprefix("1·") + "10" + str(int(exponent)).translate(_RAISED)

    return re.sub(r"`[^`]*`|(?<![\w.])(\d+(?:\.\d+)?)e([+-]\d+)\b", power, text)


def median_range(values: Iterable[float], form: str = ".3g") -> str:
    """Median and range as text, "0.95 (0.9 to 1)", one number where all are the same; form: a format of numbers."""
    values = list(values)
    low, high = min(values), max(values)
    return f"{median(values):{form}}" + (f" ({low:{form}} to {high:{form}})" if low < high else "")


def mean_gap(differences: Iterable[float], form: str = ".2f") -> str:
    """The mean of paired differences with its 95% t-interval as text, "+0.35 ± 0.66"; form: a format of numbers.

    Raises ValueError for fewer than two differences.
    """
    from ncbook.experiments.intervals import paired_interval

    mean, _, high = paired_interval(list(differences))
    return f"{mean:+{form}} ± {high - mean:{form}}"


def source(*objects: Any, part: tuple[str, str] | None = None) -> str:
    """The source of functions and classes that stand in files, without docstrings, one after the other.

    part: the first line that holds one text to the next that holds the other, and no more. Raises ValueError for what
    stands in no file, and for a part that is not there.
    """
    if own := [each.__qualname__ for each in objects if each.__module__ == "__main__"]:
        raise ValueError(f"{', '.join(own)} stands in the notebook itself, whose cells show it")
    text = "\n\n".join(map(_without_docstrings, objects))
    if part is None:
        return text
    lines = text.splitlines()
    first = next((k for k, line in enumerate(lines) if part[0] in line), len(lines))
    last = next((k for k, line in enumerate(lines) if k >= first and part[1] in line), None)
    if last is None:
        raise ValueError(f"part must be texts of two lines, one after the other, got {part}")
    return textwrap.dedent("\n".join(lines[first:last + 1]))


def _without_docstrings(code: Any) -> str:
    text = textwrap.dedent(inspect.getsource(code)).rstrip()
    lines: list[str | None] = [*text.splitlines()]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) and len(node.body) > 1:
            start, end = node.body[0].lineno - 1, node.body[0].end_lineno or 0
            end += lines[end] == ""
            lines[start:end] = [None] * (end - start)
    return "\n".join(line for line in lines if line is not None)


def show_code(*objects: Any, part: tuple[str, str] | None = None) -> None:
    """Show `source`; the output's metadata say of what, so that tests can compare the two."""
    names = [f"{each.__module__}:{each.__qualname__}" for each in objects]
    shown = {"source": names} | ({} if part is None else {"part": list(part)})
    display(Code(source(*objects, part=part), language="python"), metadata={"ncbook": shown})


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Independent standard normal numbers, the same ones for the same seed."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def compare(package: Mapping[str, float], /, **by_hand: float) -> None:
    """Show numbers that a chapter computed by hand beside the package's. Raises ValueError where they differ."""
    pairs = {key: (float(value), float(package[key])) for key, value in by_hand.items()}
    rows = [[f"`{key}`", *(f"{value:.7g}" for value in pair)] for key, pair in pairs.items()]
    table(["key", "by hand", "package"], rows)
    if wrong := {key: pair for key, pair in pairs.items() if not math.isclose(*pair, rel_tol=1e-6, abs_tol=1e-12)}:
        raise ValueError(f"by hand and by the package must be the same, got {wrong}")


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


def in_parallel(function: Callable[..., Any], calls: Iterable[tuple]) -> list:
    """[function(*call) for call in calls], in one process for each core, of one thread each, and of at most eight.

    In this process where CUDA is there, and in the profile "quick", where processes cost more than they save. function,
    calls and results must be picklable by cloudpickle, which a function of a notebook is if it is not cached.
    """
    from joblib import Parallel, cpu_count, delayed, parallel_config

    here = torch.cuda.is_available() or _profile_name() == "quick"
    with parallel_config(backend="loky", n_jobs=1 if here else min(cpu_count(), 8), inner_max_num_threads=1):
        return Parallel()(delayed(function)(*call) for call in calls)
