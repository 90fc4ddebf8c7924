"""Curves over epochs and values over seeds, from rows: mappings as `Snapshot.row` gives, or records of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ncbook.checks import check_choice
from ncbook.metrics import METRICS
from ncbook.plots.style import METHOD_STYLES, band, finish, log_axis, method_style, metric_label
from ncbook.training.regularisers import REGULARISERS
from ncbook.training.snapshot import Snapshot

Row = Mapping[str, Any]


def as_row(item: Row | Snapshot) -> Row:
    """The row that is meant: a mapping as it is, of a snapshot its `row()` with the death times. Raises TypeError."""
    if isinstance(item, Snapshot):
        return {**item.row(), "deaths": item.deaths}
    if not isinstance(item, Mapping):
        raise TypeError(f"rows must be mappings or snapshots, got {type(item).__name__}")
    return item


def metric_curves(
    runs: Mapping[str, Sequence[Sequence[Row | Snapshot]]],
    keys: Sequence[str],
    *,
    split: str | Mapping[str, str] = "train",
    title: str = "Metrics over training",
) -> go.Figure:
    """Small multiples of metrics over epochs: the median over seeds as a line, the range from min to max as a band.

    runs: method name -> one sequence of rows or snapshots per seed, all with the same epochs. keys: of `METRICS`, or
    others, such as "loss". split: "train" or "test", or one of them for each method; columns are "<split>_<key>".
    Where `METRICS` does not say linear the axis is logarithmic; values of 0 or less are drawn there at the decade below
    the panel's smallest positive value. Traces per key and method: "<method> range" (with two seeds or more), then
    "<method>"; their `meta` is the key.
    Raises: ValueError for no runs or keys, an unknown key or split, seeds with different epochs,
        TypeError for runs that are not nested so.
    """
    splits = {method: split if isinstance(split, str) else split.get(method, "") for method in runs}
    if not set(splits.values()) <= {"train", "test"}:
        raise ValueError(f'split must be "train" or "test", or one of them for each method, got {split!r}')
    if not runs or not keys:
        raise ValueError("runs and keys must name at least one method and one metric")
    if not all(isinstance(seed, Sequence) for seeds in runs.values() for seed in seeds):
        raise TypeError('runs must map a method to one sequence of rows per seed, as {"sliding": [rows]}')
    rows = {method: [[as_row(item) for item in seed] for seed in seeds] for method, seeds in runs.items()}
    columns = min(3, len(keys))
    lines = math.ceil(len(keys) / columns)
    fig = make_subplots(
        lines, columns, subplot_titles=[metric_label(key) for key in keys],
        horizontal_spacing=0.27 / columns, vertical_spacing=0.34 / lines if lines > 1 else 0,
    )
    for panel, key in enumerate(keys):
        cell = dict(row=panel // columns + 1, col=panel % columns + 1)
        curves = {method: _seed_values(method, seeds, f"{splits[method]}_{key}") for method, seeds in rows.items()}
        use_log = key not in METRICS or METRICS[key].axis == "log"
        floor = _log_floor([values for _, values in curves.values()]) if use_log else -math.inf
        for index, (method, (epochs, values)) in enumerate(curves.items()):
            for trace in _band_and_line(method, index, key, epochs, np.maximum(values, floor)):
                trace.showlegend = panel == 0 and trace.fill != "toself"
                fig.add_trace(trace, **cell)
        fig.update_xaxes(title="epoch" if panel + columns >= len(keys) else None, **cell)
        if use_log:
            log_axis(fig, np.concatenate([np.maximum(v, floor).ravel() for _, v in curves.values()]), **cell)
    seeds = _seeds(rows.values())
    where = [{"train": "training set", "test": "test set"}[part] for part in set(splits.values())]
    said = [*(where if len(where) == 1 else []),
            "one seed" if seeds == "1 seed" else f"median of {seeds}, band from min to max"]
    return finish(
        fig, title, ", ".join(said), width=[520, 720, 860][columns - 1], height=200 + 190 * lines,
        margin=dict(t=104, b=96), legend=dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom"),
    )


def _seeds(values: Iterable[Sequence]) -> str:
    counts = sorted({len(of_method) for of_method in values})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) + " seed" + "s" * (counts[-1] > 1)


def schedule_curves(
    schedules: Mapping[str, Any], epochs: int, *, regulariser: str = "densification",
    title: str = "How β and the weight move",
) -> go.Figure:
    """beta(e) and weight(e) of schedules, or what else moves the dials of a regulariser, for e = 1..epochs.

    schedules: name -> an object with `beta(epoch)` and `weight(epoch)`. A panel and, per schedule, a trace for each
    dial, called by the schedule's name, with the dial's label as `meta`: "β" and "weight".
    Raises: ValueError for no schedule, fewer than one epoch or an unknown regulariser.
    """
    if not schedules or epochs < 1:
        raise ValueError(f"schedules and epochs must be at least one, got {len(schedules)} and {epochs}")
    grid = np.linspace(1, epochs, max(2, min(epochs, 200)))
    dials = REGULARISERS[check_choice("regulariser", regulariser, REGULARISERS)].dials
    names = {"β": "scale β(e)", "weight": "weight w(e)"}
    fig = make_subplots(1, len(dials), subplot_titles=[names.get(dial.label, dial.label) for dial in dials],
                        horizontal_spacing=0.13)
    for index, (name, schedule) in enumerate(schedules.items()):
        color, dash, _ = method_style(name, index)
        for col, dial in enumerate(dials, start=1):
            curve = getattr(schedule, dial.schedule)
            fig.add_scatter(
                x=grid, y=[float(curve(float(e))) for e in grid], name=name, legendgroup=name, showlegend=col == 1,
                meta=dial.label, mode="lines", line=dict(color=color, dash=dash, width=2.5), row=1, col=col,
            )
    finish(fig, title, height=360)
    fig.update_xaxes(title="epoch e")
    fig.update_yaxes(rangemode="tozero")
    return fig


def seed_summary(
    values: Mapping[str, Sequence[float | Row | Snapshot]], what: str, *, title: str = "Over seeds"
) -> go.Figure:
    """Every seed's value as a point, one column per method, with a bar at the median.

    values: method -> a row or snapshot per seed, of which the column `what` is drawn, or the numbers themselves; what:
    stands at the axis as well. Traces per method: "<method>" (points), "<method> median".
    Raises: ValueError for no method, or a method without values or with NaN or inf, a column that is not there.
    """
    if not values:
        raise ValueError("values must hold at least one method")
    fig = go.Figure()
    for index, (name, items) in enumerate(values.items()):
        numbers = [_cell(as_row(item), what) if isinstance(item, Mapping | Snapshot) else item for item in items]
        y = np.array(numbers, dtype=float)
        if not len(y) or not np.isfinite(y).all():
            raise ValueError(f"values[{name!r}] must hold finite numbers, at least one, got {numbers!r}")
        color, _, symbol = method_style(name, index)
        spread = 0.16 * np.linspace(-1, 1, len(y)) if len(y) > 1 else np.zeros(1)
        marker = dict(symbol=symbol, size=11, color=color, opacity=0.75, line=dict(color="white", width=1))
        fig.add_scatter(x=index + spread, y=y, name=name, mode="markers", marker=marker)
        median = float(np.median(y))
        fig.add_scatter(
            x=[index - 0.3, index + 0.3], y=[median, median], name=f"{name} median", mode="lines",
            line=dict(color=color, width=3), hovertemplate=f"median {median:.4g}<extra></extra>",
        )
    finish(fig, title, f"a point for each of {_seeds(values.values())}, a bar at the median",
           width=max(460, 140 + 110 * len(values)), height=400, showlegend=False)
    fig.update_xaxes(
        tickvals=list(range(len(values))), ticktext=list(values), range=[-0.6, len(values) - 0.4], showgrid=False
    )
    part, _, key = what.partition("_")
    return fig.update_yaxes(title=f"{part} {metric_label(key)}" if key in METRICS else what)


def solver_trace(
    trace: Mapping[str, Sequence[float]],
    *,
    optimum: float,
    title: str = "Riemannian trust regions at work",
) -> go.Figure:
    """Cost gap and Riemannian gradient norm at each iteration of a solver, on a log scale.

    trace: "cost" and "gradient_norm", one number an iteration. The gap is to `optimum`, the cost of the closed form;
    gaps below float64 resolution are drawn at it. Traces: "cost gap", "gradient norm".
    Raises: ValueError when a key is missing, empty or of another length.
    """
    missing = {"cost", "gradient_norm"} - set(trace)
    if missing:
        raise ValueError(f"trace lacks {sorted(missing)}; it has {sorted(trace)}")
    cost, gradient = (np.asarray(trace[key], dtype=float) for key in ("cost", "gradient_norm"))
    if cost.ndim != 1 or not len(cost) or cost.shape != gradient.shape:
        raise ValueError(f'trace needs equally many "cost" and "gradient_norm", got {cost.shape} and {gradient.shape}')
    floor = np.finfo(float).eps * max(1.0, abs(optimum))
    steps = np.arange(len(cost))
    fig = go.Figure()
    for name, values, style in (
        ("cost gap", cost - optimum, METHOD_STYLES["nearest"]),
        ("gradient norm", gradient, METHOD_STYLES["constant"]),
    ):
        color, dash, symbol = style
        fig.add_scatter(
            x=steps, y=np.maximum(values, floor), name=name, mode="lines+markers",
            line=dict(color=color, dash=dash, width=2), marker=dict(symbol=symbol, size=8, color=color),
        )
    finish(fig, title, "gap to the cost of the closed form; drawn no lower than float64 can resolve", height=400)
    fig.update_xaxes(title="iteration", rangemode="tozero")
    log_axis(fig, np.maximum(np.concatenate((cost - optimum, gradient)), floor))
    return fig


def _cell(row: Row, column: str) -> float:
    if column not in row:
        raise ValueError(f"{column!r} is not a column of the rows, which have {sorted(row)}")
    return row[column]


def _seed_values(method: str, seeds: Sequence[Sequence[Row]], column: str) -> tuple[np.ndarray, np.ndarray]:
    if not seeds or not all(len(run) for run in seeds):
        raise ValueError(f"runs[{method!r}] must hold at least one seed with at least one row")
    epochs = [[row["epoch"] for row in run] for run in seeds]
    if any(e != epochs[0] for e in epochs):
        raise ValueError(f"runs[{method!r}]: all seeds must have rows at the same epochs")
    return np.array(epochs[0]), np.array([[_cell(row, column) for row in run] for run in seeds], dtype=float)


def _log_floor(values: Iterable[np.ndarray]) -> float:
    numbers = np.concatenate([v.ravel() for v in values])
    if (numbers > 0).all():
        return -math.inf
    positive = numbers[(numbers > 0) & np.isfinite(numbers)]
    return 10.0 ** (math.ceil(math.log10(positive.min())) - 1) if len(positive) else 1e-16


def _band_and_line(method: str, index: int, key: str, epochs: np.ndarray, values: np.ndarray) -> list[go.Scatter]:
    color, dash, _ = method_style(method, index)
    shared = dict(legendgroup=method, meta=key)
    area = band(epochs, values.min(0), values.max(0), color)
    areas = [go.Scatter(**area, name=f"{method} range", **shared)] if len(values) > 1 else []
    line = dict(color=color, dash=dash, width=2)
    return [*areas, go.Scatter(x=epochs, y=np.median(values, axis=0), name=method, mode="lines", line=line, **shared)]
