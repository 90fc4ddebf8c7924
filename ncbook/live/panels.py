"""The panels of the lab, and the figures that they make up: live, beside each other, and as an animation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from ncbook import plots
from ncbook.live.record import Frame, Run
from ncbook.metrics import METRICS
from ncbook.training.regularisers import REGULARISERS
from ncbook.training.snapshot import Snapshot, in_per_cent

Moves = dict[str, dict[str, Any]]
_EXPORTED = 120
_SYMBOLS = "● class means ◇ weights · features △ ETF"
_BARS = ("shorter than β", "longer than β")
_DIAL_COLORS = ("#222222", "#C04F00", "#332288")
_GRID = "#E6E6E6"
_CURVE_STYLES = {  # colour, dash
    "nc1": ("#222222", "solid"), "nc2_equinorm": ("#882255", "dash"), "nc2_equiangular": ("#882255", "dot"),
    "nc3": ("#332288", "dashdot"), "etf_distance": ("#8A5A2B", "longdash"), "accuracy": ("#222222", "solid"),
    "test_accuracy": ("#222222", "dot"), "nc4": ("#882255", "dashdot"),
}
_SPARE_STYLES = (("#117733", "solid"), ("#0072B2", "dash"), ("#D55E00", "dot"), ("#AA4499", "dashdot"))


class Cell(NamedTuple):
    """Where a panel stands in a figure: its row and column, the run's slot 0 or 1, and whether the run is alone."""

    fig: go.Figure
    row: int
    col: int
    slot: int
    panel: str
    alone: bool

    def add(self, *traces: Any, secondary_y: bool | None = None, **changes: Any) -> None:
        """Add traces, by whose names `moves` and `lines` of the panel find them again."""
        for trace in traces:
            self.fig.add_trace(trace, row=self.row, col=self.col, secondary_y=secondary_y)
            self.fig.data[-1].update(changes, meta=meta(self.slot, self.panel, trace.name))

    def xaxis(self, **values: Any) -> None:
        self.fig.update_xaxes(**values, row=self.row, col=self.col)

    def yaxis(self, **values: Any) -> None:
        self.fig.update_yaxes(**values, row=self.row, col=self.col)

    def domain(self) -> tuple[float, float, float, float]:
        """left, right, bottom, top, as shares of the figure."""
        at = self.fig.get_subplot(self.row, self.col)
        return (*at.xaxis.domain, *at.yaxis.domain)


def _nothing(*_: Any) -> dict:
    return {}


class Panel(NamedTuple):
    """A part of the lab's figure.

    add(cell, run) adds traces with names to a `Cell`; moves(run, frame) says what a frame changes in them, lines(run,
    frames, ahead) what a stretch of frames does, with room on the axes for `ahead` more: name of a trace -> property
    -> array. take(snapshot) is what frames keep for the panel, in `frame.parts` under its name. title(run) stands
    above it, spec(run) is its cell's in `make_subplots`; beside: its share of the height when two runs are beside each
    other, 0 to be left out.
    """

    add: Callable[[Cell, Run], None]
    moves: Callable[[Run, Frame], Moves] = _nothing
    lines: Callable[[Run, Sequence[Frame], int], Moves] = _nothing
    take: Callable[[Snapshot], Any] | None = None
    title: Callable[[Run], str] = lambda run: ""
    spec: Callable[[Run], dict] = _nothing
    beside: float = 0.2


def meta(slot: int, panel: str, name: str) -> str:
    """How a trace of a panel is called in a figure."""
    return f"{slot} {panel} {name}"


def frame_moves(run: Run, frame: Frame, slot: int = 0) -> Moves:
    """What a frame changes in the figure: `meta` of a trace -> properties of the trace."""
    return {meta(slot, panel, name): values for panel in run.panels
            for name, values in PANELS[panel].moves(run, frame).items()}


def line_moves(run: Run, frames: Sequence[Frame], slot: int = 0, ahead: int = 0) -> Moves:
    """The curves of some frames, with room on the axes for `ahead` more, since a page draws those now and then only."""
    return {meta(slot, panel, name): values for panel in run.panels
            for name, values in PANELS[panel].lines(run, frames, ahead).items()}


def figure(runs: Sequence[Run]) -> go.Figure:
    """The panels of one run, or those of two beside each other, without what moves."""
    pair, names = len(runs) == 2, [name for name in runs[0].panels if len(runs) == 1 or PANELS[name].beside]
    fig, cells = _beside(runs, names) if pair else _grid(runs[0], names)
    spaces = [PANELS[name].spec(run) for run in runs for name in names]
    fig.update_layout(template=plots.TEMPLATE, width=840, font_size=11, uirevision=str(spaces),
                      margin=dict(l=40, r=92, t=60 if pair else 56, b=40))
    for slot, run in enumerate(runs):
        for name, (row, col) in zip(names, cells[slot], strict=True):
            PANELS[name].add(Cell(fig, row, col, slot, name, not pair), run)
    fig.update_annotations(font_size=12)
    fig.update_xaxes(title_standoff=2, automargin=False)
    fig.update_yaxes(automargin=False)
    return fig


def _grid(run: Run, names: Sequence[str]) -> tuple[go.Figure, list[list[tuple[int, int]]]]:
    titles, specs = [PANELS[name].title(run) for name in names], [PANELS[name].spec(run) for name in names]
    if tuple(names) == SIX:
        tall, none = {"rowspan": 2}, None
        geometry, decaying, shares, bars, cosines, schedule = specs
        grid: list = [[geometry | {"rowspan": 3}, decaying | tall, shares | tall], [none] * 3,
                [none, bars | tall, cosines | tall], [schedule, none, none]]
        fig = make_subplots(4, 3, specs=grid, subplot_titles=titles, column_widths=[0.37, 0.34, 0.29],
                            row_heights=[0.28, 0.2, 0.24, 0.28], horizontal_spacing=0.08, vertical_spacing=0.17)
        cells, height = [(1, 1), (1, 2), (1, 3), (3, 2), (3, 3), (4, 1)], 480
    else:
        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        padded = [*specs, *[None] * (rows * columns - len(names))]
        grid = [padded[k : k + columns] for k in range(0, len(padded), columns)]
        fig = make_subplots(rows, columns, specs=grid, subplot_titles=titles, horizontal_spacing=0.1,
                            vertical_spacing=0.2 / rows)
        cells, height = [(k // columns + 1, k % columns + 1) for k in range(len(names))], 150 + 240 * rows
    return fig.update_layout(height=height), [cells]


def _beside(runs: Sequence[Run], names: Sequence[str]) -> tuple[go.Figure, list[list[tuple[int, int]]]]:
    shares = [PANELS[name].beside for name in names]
    titles = [PANELS[name].title(run) for name in names for run in runs]
    titles[:2] = [f"<b>{run.label}</b><br>{title}" for run, title in zip(runs, titles[:2], strict=True)]
    fig = make_subplots(len(names), 2, specs=[[PANELS[name].spec(run) for run in runs] for name in names],
                        subplot_titles=titles, row_heights=shares, horizontal_spacing=0.09,
                        vertical_spacing=0.255 / max(1, len(names) - 1))
    fig.update_layout(height=max(480, round(900 * sum(shares))))
    return fig, [[(row, slot + 1) for row in range(1, len(names) + 1)] for slot in range(2)]


def animation(*runs: Run) -> go.Figure:
    """One recorded run, or two beside each other at the same epochs, as a figure that plays without a kernel.

    At most 120 frames, evenly spaced over the frames of the first run. Raises: ValueError for none or more than two.
    """
    if len(runs) not in (1, 2):
        raise ValueError(f"runs must be one or two, got {len(runs)}")
    fig = figure(runs)
    at = {trace.meta: i for i, trace in enumerate(fig.data)}
    picked = np.linspace(0, len(runs[0].frames) - 1, min(_EXPORTED, len(runs[0].frames)))
    stops = [runs[0].frames[k] for k in np.unique(picked.round().astype(int))]
    for k, stop in enumerate(stops):
        moves: Moves = {}
        for slot, run in enumerate(runs):
            moves |= frame_moves(run, run.at(stop.epoch), slot)
        moves = {name: values for name, values in moves.items() if name in at}
        data = [dict(values, type=fig.data[at[name]].type) for name, values in moves.items()]
        fig.frames += (go.Frame(name=str(k), traces=[at[name] for name in moves], data=data),)
    for slot, run in enumerate(runs):
        moves |= line_moves(run, run.frames, slot)
    for name, values in moves.items():
        if name in at:
            fig.data[at[name]].update(values)
    return plots.add_player(fig, [f"{stop.epoch:.1f}" for stop in stops], milliseconds=80, redraw=True, prefix="epoch ",
                            left=0.25)


def _add_geometry(cell: Cell, run: Run) -> None:
    shot, count = run.first, len(run.class_names)
    base = plots.geometry(shot.class_means, features=shot.features, targets=shot.targets, weight=shot.weight,
                          class_names=run.class_names)
    cell.add(*(trace for trace in base.data if trace.meta != "legend"), legendgroup=None)
    if count == 4:
        cell.fig.update_scenes(base.layout.scene, row=cell.row, col=cell.col)
        return
    anchor = None if count == 2 else cell.fig.get_subplot(cell.row, cell.col).xaxis.plotly_name.replace("axis", "")
    cell.xaxis(range=base.layout.xaxis.range, zeroline=True, zerolinecolor=_GRID)
    cell.yaxis(range=base.layout.yaxis.range, zeroline=True, zerolinecolor=_GRID, scaleanchor=anchor)


def _take_geometry(shot: Snapshot) -> dict[str, np.ndarray]:
    parts = plots.geometry_coordinates(shot.class_means, shot.features, shot.targets, shot.weight)
    return {name: part.astype(np.float32) for name, part in parts.items()}


def _move_geometry(run: Run, frame: Frame) -> Moves:
    return {name: plots.xyz(part) for name, part in frame.parts["geometry"].items()}


def _curves(run: Run, axis: str) -> dict[str, tuple[str, tuple[str, str]]]:
    """The run's curves on a log or a linear axis: key -> name, (colour, dash)."""
    chosen, spare = {}, 0
    for key in run.curves:
        metric = METRICS.get(key.removeprefix("test_"))  # there is none for "loss"
        if (metric.axis if metric else "log") == axis:
            name = (metric.short or metric.label) if metric else "loss"
            style = _CURVE_STYLES.get(key) or _SPARE_STYLES[spare % len(_SPARE_STYLES)]
            spare += key not in _CURVE_STYLES
            chosen[key] = "test " * key.startswith("test_") + name, style
    return chosen


def _add_curves(cell: Cell, run: Run, axis: str) -> None:
    curves = _curves(run, axis)
    left, right, bottom, top = cell.domain()
    legend, entries = ("legend", 52) if axis == "log" else ("legend2", 78)
    look: dict = dict(x=left, y=top + 0.005, yanchor="bottom", orientation="h", entrywidth=entries)
    if axis == "linear" and cell.alone:
        look = dict(x=left + 0.26 * (right - left), y=0.42 * bottom + 0.58 * top, yanchor="middle", entrywidth=52,
                    bgcolor="rgba(255,255,255,0.7)")
    if cell.slot == 0:
        cell.fig.update_layout({legend: look | dict(font_size=10)})
    cell.add(*(go.Scatter(name=name, mode="lines", line=dict(color=color, dash=dash, width=1.8))
               for name, (color, dash) in curves.values()), legend=legend, showlegend=cell.slot == 0)
    colors = [color for _, (color, _) in curves.values()]
    cell.add(go.Scatter(name="now", mode="markers", marker=dict(size=6, color=colors), showlegend=False))
    cell.xaxis(title="epoch")
    if axis == "log":
        cell.yaxis(type="log", exponentformat="power", nticks=5, tickfont_size=10)
    elif all(in_per_cent(key.removeprefix("test_")) for key in curves):
        cell.yaxis(range=[-0.03, 1.03])


def _move_curves(run: Run, frame: Frame, axis: str) -> Moves:
    keys = list(_curves(run, axis))
    return {"now": {"x": [frame.epoch] * len(keys), "y": [frame.metrics[key] for key in keys]}}


def _curve_lines(run: Run, frames: Sequence[Frame], ahead: int, axis: str) -> Moves:
    epochs = [frame.epoch for frame in frames]
    room = [2 * epochs[-1] - epochs[-min(ahead, len(epochs))]] if ahead else []
    gap = [math.nan] * len(room)
    return {name: {"x": np.array(epochs + room, dtype=np.float32),
                   "y": np.array([frame.metrics[key] for frame in frames] + gap, dtype=np.float32)}
            for key, (name, _) in _curves(run, axis).items()}


def _curve_panel(axis: str, beside: float) -> Panel:
    return Panel(partial(_add_curves, axis=axis), partial(_move_curves, axis=axis), partial(_curve_lines, axis=axis),
                 beside=beside)


def _add_bars(cell: Cell, run: Run) -> None:
    count = len(run.frames[-1].deaths)
    height = np.repeat(np.arange(1, count + 1), 3)
    width = max(1, 100 // max(1, count))
    # Lines, not bars: a browser draws these two paths ten times faster than hundreds of rectangles.
    bars = [go.Scatter(name=name, y=height, mode="lines", line=dict(color=color, width=width), hoverinfo="skip")
            for name, color in zip(_BARS, plots.CLASS_COLORS)]
    beta = go.Scatter(name="β", y=[0.5, count + 0.5], mode="lines", line=dict(color="#222222", width=2, dash="dash"))
    cell.add(*bars, beta, showlegend=False)
    cell.xaxis(title="distance", rangemode="tozero")
    cell.yaxis(range=[0.5, count + 0.5], showgrid=False)


def _move_bars(run: Run, frame: Frame) -> Moves:
    gap, short = np.full(len(frame.deaths), math.nan), frame.deaths < frame.beta
    sides = np.where(short, frame.deaths, gap), np.where(short, gap, frame.deaths)
    bars = {name: {"x": np.stack((0 * ends, ends, gap), axis=1).ravel()} for name, ends in zip(_BARS, sides)}
    return bars | {"β": {"x": [frame.beta] * 2}}


def _bars_title(run: Run) -> str:
    return "H<sub>0</sub> bars of the clouds, and β" if run.recipe.clouds else "no clouds in this recipe: no bars"


def _add_cosines(cell: Cell, run: Run) -> None:
    names, layout = np.array(run.class_names), cell.fig.layout
    count, ideal = len(names), -1 / (len(names) - 1)
    left, right, low, high = cell.domain()
    side = min((right - left) * (layout.width - layout.margin.l - layout.margin.r),
               (high - low) * (layout.height - layout.margin.t - layout.margin.b)) / count
    ticks = ideal + np.linspace(-0.5, 0.5, 5)
    bar = dict(x=right, y=(low + high) / 2, len=high - low, thickness=10, xpad=4, ypad=0, outlinewidth=0,
               tickvals=ticks, ticktext=[f"{t:.2f}" if t != ideal else f"<b>{t:.3g}</b> ideal" for t in ticks])
    rows, columns = np.nonzero(~np.eye(count, dtype=bool))
    # Squares: a heat map cannot be moved without a redraw. Pale enough for the numbers on them.
    cells = go.Scatter(
        name="cosines", x=names[columns], y=names[rows], mode="markers+text" if count <= 6 else "markers",
        texttemplate="%{marker.color:.2f}", textfont_size=10,
        hovertemplate="%{y}, %{x}: %{marker.color:.4f}<extra></extra>",
        marker=dict(symbol="square", size=max(1, side - 2), opacity=1, line=dict(color="#E4E4E4", width=1),
                    colorbar=bar, cmin=ideal - 0.5, cmax=ideal + 0.5,
                    colorscale=sample_colorscale("RdBu", [0.8, 0.65, 0.5, 0.35, 0.2])))
    cell.add(cells, showlegend=False)
    axis = dict(type="category", categoryarray=names, showgrid=False)
    cell.xaxis(range=[-0.5, count - 0.5], **axis)
    cell.yaxis(range=[count - 0.5, -0.5], **axis)


def _move_cosines(run: Run, frame: Frame) -> Moves:
    cosines = frame.parts["cosines"]
    return {"cosines": {"marker": {"color": cosines[~np.eye(len(cosines), dtype=bool)]}}}


def _add_schedule(cell: Cell, run: Run) -> None:
    ends = [*(epoch for epoch, _ in run.plans[1:]), run.recipe.epochs]
    for k, dial in enumerate(REGULARISERS[run.recipe.regulariser].dials):
        color, epochs, planned = _DIAL_COLORS[k % len(_DIAL_COLORS)], [], []
        for (begin, plan), end in zip(run.plans, ends, strict=True):
            if plan is not None:
                at = np.linspace(max(1, begin), max(1, end), 60)
                epochs += [*at, math.nan]
                planned += [*(getattr(plan, dial.schedule)(float(epoch)) for epoch in at), math.nan]
        line = go.Scatter(x=epochs[:-1], y=planned[:-1], name=f"planned {dial.name}", mode="lines",
                          line=dict(color=color, dash="dash", width=1.5))
        now = go.Scatter(name=f"now {dial.name}", mode="markers", marker=dict(size=9, color=color))
        cell.add(line, now, showlegend=False, secondary_y=k > 0)
        cell.yaxis(color=color, rangemode="tozero", showgrid=k == 0, nticks=4, tickmode="auto", secondary_y=k > 0)
    cell.xaxis(title="epoch")


def _move_schedule(run: Run, frame: Frame) -> Moves:
    return {f"now {name}": {"x": [frame.epoch], "y": [value]} for name, value in frame.dials.items()}


def _schedule_title(run: Run) -> str:
    sides = [f"{dial.label} left" if k == 0 else f'<span style="color: {_DIAL_COLORS[k % 3]}">{dial.label}</span> right'
             for k, dial in enumerate(REGULARISERS[run.recipe.regulariser].dials)]
    return f"schedule: {', '.join(sides)}"


PANELS: dict[str, Panel] = {
    "geometry": Panel(_add_geometry, _move_geometry, take=_take_geometry, title=lambda run: _SYMBOLS, beside=0.44,
                      spec=lambda run: {"type": "scene"} if len(run.class_names) == 4 else {}),
    "decaying": _curve_panel("log", 0.2),
    "shares": _curve_panel("linear", 0.14),
    "bars": Panel(_add_bars, _move_bars, title=_bars_title, beside=0.22),
    "cosines": Panel(_add_cosines, _move_cosines, title=lambda run: "cosines of class means", beside=0,
                     take=lambda shot: plots.centred_cosines(shot.class_means).float().numpy()),
    "schedule": Panel(_add_schedule, _move_schedule, title=_schedule_title, beside=0,
                      spec=lambda run: {"secondary_y": len(REGULARISERS[run.recipe.regulariser].dials) > 1}),
}
SIX = tuple(PANELS)
