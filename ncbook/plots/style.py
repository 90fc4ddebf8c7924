"""The house style: template, colours, styles of methods, and the small shapes that figures are drawn with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import ArrayLike
from plotly.colors import hex_to_rgb, sample_colorscale

from ncbook.checks import check_finite, check_floating
from ncbook.heads import HEADS
from ncbook.metrics import METRICS
from ncbook.training.snapshot import in_per_cent

CLASS_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#8A5A2B", "#332288", "#222222",
)
_HEAD_STYLES = {
    "cosine": ("#4D4D4D", "solid", "circle"),
    "fixed": ("#E69F00", "dash", "square"),
    "nearest": ("#0072B2", "solid", "diamond"),
    "learned": ("#56B4E9", "dot", "x"),
}
METHOD_STYLES = {HEADS[head].method: style for head, style in _HEAD_STYLES.items()} | {  # colour, line dash, marker
    "standard, projected": ("#9A9A9A", "dash", "circle-open"),
    "fixed, centred": ("#9E6400", "dashdot", "square-open"),
    "linear shuffled": ("#56B4E9", "dash", "circle-open"),
    "linear on clouds": ("#56B4E9", "solid", "circle"),
    "label smoothing": ("#808000", "dashdot", "square"),
    "vanilla": ("#8A5A2B", "dot", "circle"),
    "constant": ("#D55E00", "dash", "triangle-up"),
    "constant, β = 1.1": ("#D55E00", "dash", "triangle-up"),
    "constant, β = 4": ("#F2A97E", "longdashdot", "triangle-up-open"),
    "constant, β = 0": ("#7A2E00", "solid", "triangle-right"),
    "delayed": ("#CC79A7", "dashdot", "triangle-down"),
    "sliding": ("#009E73", "solid", "star"),
    "union": ("#332288", "longdash", "hexagon"),
    "union on sphere": ("#882255", "longdashdot", "cross"),
    "too early": ("#999999", "dash", "x"),
    "best": ("#222222", "solid", "pentagon"),
    "training set": ("#222222", "solid", "circle"),
    "test set": ("#8C8C8C", "dash", "square"),
}
APART, TOGETHER = "#1B7F8C", "#B83B5E"
INK, MUTED, GRID, OUTLINE = "#222222", "#666666", "#E6E6E6", "#B5B5B5"
_AXIS = dict(
    gridcolor=GRID, gridwidth=1, linecolor=OUTLINE, linewidth=1, showline=True, zeroline=False, ticks="outside",
    tickcolor=OUTLINE, ticklen=4, title=dict(standoff=8), automargin=True,
)
_SCENE_AXIS = dict(
    showbackground=False, showgrid=False, showticklabels=False, zeroline=False, showspikes=False, title=""
)
TEMPLATE = go.layout.Template(
    layout=dict(
        margin=dict(l=64, r=24, t=84, b=56), paper_bgcolor="white", plot_bgcolor="white",
        font=dict(family="Open Sans, Segoe UI, Helvetica, Arial, sans-serif", size=13, color=INK),
        title=dict(
            x=0, xanchor="left", y=1, yanchor="top", pad=dict(l=16, t=16), font=dict(size=17),
            subtitle=dict(font=dict(size=13, color=MUTED)),
        ),
        legend=dict(x=1.02, xanchor="left", y=1, yanchor="top", bgcolor="rgba(0,0,0,0)", itemsizing="constant"),
        xaxis=_AXIS, yaxis=_AXIS, colorway=CLASS_COLORS, hoverlabel=dict(font=dict(size=13)), uirevision="keep",
        scene=dict(xaxis=_SCENE_AXIS, yaxis=_SCENE_AXIS, zaxis=_SCENE_AXIS, aspectmode="cube"),
    )
)


def class_colors(num_classes: int) -> list[str]:
    """One colour per class: `CLASS_COLORS` for ten classes or fewer, else evenly spaced along Viridis."""
    if num_classes <= len(CLASS_COLORS):
        return list(CLASS_COLORS[:num_classes])
    return sample_colorscale("Viridis", np.linspace(0, 0.93, num_classes).tolist())


def method_style(name: str, index: int = 0) -> tuple[str, str, str]:
    """Colour, line dash and marker of a method; a name that is not in `METHOD_STYLES` gets a spare one by its index."""
    spare = ("solid", "dash", "dot", "dashdot")
    return METHOD_STYLES.get(name, (CLASS_COLORS[index % len(CLASS_COLORS)], spare[index % len(spare)], "circle"))


def metric_label(key: str) -> str:
    """What axes and tables call a metric of a row: its label in `METRICS`, else the key itself; with its unit."""
    return (METRICS[key].label if key in METRICS else key) + ", %" * in_per_cent(key)


def finish(fig: go.Figure, title: str, subtitle: str | None = None, *, width: int = 760, height: int = 440,
           **layout) -> go.Figure:
    """The figure in the house style, with title, size and room for titles of subplots; `layout` as in update_layout."""
    titles = dict(xref="paper", yref="paper")
    fig.update_layout(
        template=TEMPLATE, title=dict(text=title, subtitle=dict(text=subtitle)), width=width, height=height,
        margin_t=108 if next(fig.select_annotations(titles), None) else None,
    )
    return fig.update_annotations(font_size=14, selector=titles).update_layout(**layout)


def log_axis(fig: go.Figure, values: np.ndarray, **cell: int) -> None:
    positive = values[(values > 0) & np.isfinite(values)]
    decades = math.log10(positive.max() / positive.min()) if len(positive) else 0.0
    near = dict(nticks=4) if decades < 0.7 else dict(dtick="D2")  # at 1, 2, 5
    ticks = dict(dtick=math.ceil(decades / 5), exponentformat="e") if decades > 2 else near | dict(tickformat="~g")
    fig.update_yaxes(type="log", **ticks, **cell)


def matrix(name: str, value: torch.Tensor, *, columns: int | None = None, min_rows: int = 1) -> torch.Tensor:
    """Return value in float64 on the CPU. Raises TypeError and ValueError unless it is a finite matrix of that size."""
    check_finite(name, check_floating(name, value, 2))
    if len(value) < min_rows or columns not in (None, value.shape[1]):
        wanted = f"at least {min_rows} rows and {'any number of' if columns is None else columns} columns"
        raise ValueError(f"{name} must have {wanted}, got shape {tuple(value.shape)}")
    return value.detach().cpu().double()


def check_names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [str(c) for c in range(count)]
    if len(names) != count:
        raise ValueError(f"class_names must hold {count} names, one per class, got {len(names)}")
    return [str(name) for name in names]


def xyz(coordinates: np.ndarray | torch.Tensor) -> dict[str, np.ndarray]:
    """Coordinates (m, 2) or (m, 3) as the x, y (, z) of a trace, in float32."""
    return dict(zip("xyz", np.asarray(coordinates, dtype=np.float32).T))


def segments(ends: torch.Tensor) -> torch.Tensor:
    """Line segments (m, 2, k), or rings (m, j, k), as one line (m (j + 1), k) with gaps of NaN."""
    return torch.cat((ends, torch.full_like(ends[:, :1], math.nan)), dim=1).flatten(0, 1)


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, color: str, alpha: float = 0.18) -> dict:
    """What makes a scatter trace the area between two curves over x, in a colour `#rrggbb` made pale, without NaN."""
    curves = np.stack([np.asarray(values, dtype=float) for values in (x, low, high)])
    at, bottom, top = curves[:, np.isfinite(curves).all(0)]
    return dict(
        x=np.concatenate((at, at[::-1])), y=np.concatenate((top, bottom[::-1])), mode="lines", fill="toself",
        fillcolor=f"rgba{(*hex_to_rgb(color), alpha)}", line=dict(width=0), hoverinfo="skip",
    )
