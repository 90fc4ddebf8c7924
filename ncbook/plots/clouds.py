"""Clouds of points with their H0 persistence: barcodes, death times, spanning trees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from ncbook.persistence import spanning_tree
from ncbook.plots.curves import as_row
from ncbook.plots.style import APART, INK, OUTLINE, TOGETHER, band, finish, matrix, segments, xyz
from ncbook.training.snapshot import Snapshot


def barcode(
    death_times: torch.Tensor, beta: float | None = None, *, title: str = "H<sub>0</sub> barcode"
) -> go.Figure:
    """The finite H0 bars, each from 0 to a death time, shortest at the bottom, with beta as a dashed line.

    death_times (..., n-1): the bars of all clouds are stacked. Traces: "shorter than β" and "longer than β", then
    "β"; or "bars" when beta is None. Raises: ValueError for no, negative, NaN or infinite death times.
    """
    deaths = np.sort(_deaths(death_times))
    height = np.arange(1, len(deaths) + 1)
    fig = go.Figure()
    if beta is None:
        fig.add_bar(x=deaths, y=height, name="bars", marker_color=APART)
    else:
        short = deaths < beta
        for name, mask, color in (("shorter than β", short, APART), ("longer than β", ~short, TOGETHER)):
            fig.add_bar(x=np.where(mask, deaths, 0.0), y=height, name=name, marker_color=color)
        fig.add_scatter(x=[beta, beta], y=[0.5, len(deaths) + 0.5], **_beta_line(beta))
    gap = 0.35 if len(deaths) <= 40 else 0.1
    fig.update_traces(orientation="h", marker_line_width=0, selector=dict(type="bar"))
    finish(fig, title, f"{len(deaths)} finite bars; the bar of the last component never ends", height=400)
    fig.update_layout(barmode="overlay", bargap=gap)
    fig.update_xaxes(title="distance", range=[0, 1.06 * max(deaths[-1], beta or 0) or 1])
    fig.update_yaxes(title="bar", range=[0.5, len(deaths) + 0.5], showgrid=False)
    return fig


def death_histogram(
    death_times: torch.Tensor, beta: float | None = None, *, title: str = "Death times"
) -> go.Figure:
    """Histogram of the H0 death times of all clouds, 30 bins from 0, with beta as a dashed line.

    death_times (..., n-1). Traces: "death times", then "β" when given.
    Raises: ValueError for no, negative, NaN or infinite death times.
    """
    deaths = _deaths(death_times)
    top = max(deaths.max(), beta or 0.0) or 1.0
    counts, edges = np.histogram(deaths, bins=30, range=(0, top))
    fig = go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges), name="death times", marker_color="#9DB8CC",
            marker_line=dict(color="white", width=1),
        )
    )
    if beta is not None:
        fig.add_scatter(x=[beta, beta], y=[0, 1.05 * counts.max()], **_beta_line(beta))
    finish(fig, title, f"{len(deaths)} finite H<sub>0</sub> deaths", height=380)
    fig.update_layout(bargap=0)
    fig.update_xaxes(title="death time", range=[0, 1.04 * top])
    fig.update_yaxes(title="count", range=[0, 1.08 * counts.max()])
    return fig


def spanning_tree_figure(
    points: torch.Tensor,
    p: float = 2,
    *,
    radius: float | None = None,
    beta: float | None = None,
    arrows: bool = False,
    title: str = "Minimum spanning tree",
) -> go.Figure:
    """A cloud in the plane with its minimum spanning tree, growing balls, and where the densification loss pushes.

    points (n, 2). radius: draw balls of radius/2, which touch when their centres are `radius` apart, and only the edges
    up to that length as solid. arrows (needs beta): minus the gradient of |length - beta| at both ends of each edge.
    Traces: "balls", "edges", "later edges", "pushed apart", "pulled together", "points"; unused ones are empty.
    Raises: ValueError for other shapes, NaN or inf, a negative radius, arrows without beta.
    """
    x = matrix("points", points, columns=2)
    if arrows and beta is None:
        raise ValueError("arrows needs beta: the loss pushes every edge to that length")
    if radius is not None and radius < 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    ends = x[spanning_tree(x, p)] if len(x) > 1 else x.new_zeros(0, 2, 2)
    lengths = torch.linalg.vector_norm(ends[:, 1] - ends[:, 0], ord=p, dim=-1)
    merged = lengths <= (math.inf if radius is None else radius)
    reach = 0.08 * float((x.amax(0) - x.amin(0)).max() or 1.0)
    fig = go.Figure()
    fig.add_scatter(
        **xyz(_ball_outlines(x, radius, p)), name="balls", mode="lines", fill="toself", hoverinfo="skip",
        fillcolor="rgba(86,180,233,0.18)", line=dict(color="rgba(86,180,233,0.7)", width=1),
    )
    solid = dict(color=OUTLINE if arrows else "#4D4D4D", width=2.5)
    fig.add_scatter(**xyz(segments(ends[merged])), name="edges", mode="lines", line=solid)
    later = dict(color=OUTLINE, width=1.5, dash="dot")
    fig.add_scatter(**xyz(segments(ends[~merged])), name="later edges", mode="lines", line=later)
    short = lengths < (0.0 if beta is None else beta)
    for name, mask, sign, color in (("pushed apart", short, 1, APART), ("pulled together", ~short, -1, TOGETHER)):
        chosen = ends[mask & (lengths > 0)] if arrows else ends[:0]
        fig.add_scatter(
            **xyz(segments(_arrow_segments(chosen, p, sign * reach))), name=name, mode="lines+markers",
            line=dict(color=color, width=2), hoverinfo="skip", marker=_arrow_heads(2 * len(chosen), color),
        )
    dots = dict(size=9, color=INK, line=dict(color="white", width=1))
    fig.add_scatter(**xyz(x.numpy()), name="points", mode="markers", marker=dots)
    for trace in fig.data:
        trace.showlegend = trace.name != "points" and len(trace.x) > 0
    finish(fig, title, _tree_subtitle(len(x), int(merged.sum()), radius, beta if arrows else None), height=480)
    fig.update_xaxes(title="x<sub>1</sub>")
    fig.update_yaxes(title="x<sub>2</sub>", scaleanchor="x")
    return fig


def death_times_over_epochs(
    rows: Iterable[Mapping[str, Any] | Snapshot], *, title: str = "Death times over training"
) -> go.Figure:
    """Quantiles of the H0 death times over epochs, with the beta of the schedule.

    rows: snapshots, or mappings with "epoch", "beta" and "deaths", any number of death times; those without are left
    out. Traces: "5% to 95%", "25% to 75%", "median", "β".
    Raises: ValueError when no row has death times.
    """
    rows = [row for row in map(as_row, rows) if row.get("deaths") is not None]
    if not rows:
        raise ValueError("rows have no death times: train with Recipe(clouds=(b, n))")
    epochs = [row["epoch"] for row in rows]
    quantiles = np.array([np.quantile(_deaths(row["deaths"]), (0.05, 0.25, 0.5, 0.75, 0.95)) for row in rows]).T
    fig = go.Figure()
    for name, low, high, alpha in (("5% to 95%", 0, 4, 0.16), ("25% to 75%", 1, 3, 0.32)):
        fig.add_scatter(**band(epochs, quantiles[low], quantiles[high], APART, alpha), name=name)
    fig.add_scatter(x=epochs, y=quantiles[2], name="median", mode="lines", line=dict(color=APART, width=2.5))
    betas = [row.get("beta", 0.0) for row in rows]
    fig.add_scatter(x=epochs, y=betas, name="β", mode="lines", line=dict(color=INK, width=2, dash="dash"))
    finish(fig, title, "quantiles over the clouds of the last batch", height=400)
    return fig.update_xaxes(title="epoch").update_yaxes(title="death time", rangemode="tozero")


def _deaths(death_times: torch.Tensor) -> np.ndarray:
    deaths = torch.as_tensor(death_times).detach().cpu().double().flatten().numpy()
    if not len(deaths) or not np.isfinite(deaths).all() or deaths.min() < 0:
        raise ValueError("death_times must hold at least one number, all finite and at least 0")
    return deaths


def _beta_line(beta: float) -> dict:
    return dict(name="β", mode="lines", line=dict(color=INK, width=2, dash="dash"), hovertemplate=f"β = {beta:.4g}")


def _ball_outlines(points: torch.Tensor, radius: float | None, p: float) -> torch.Tensor:
    angle = torch.linspace(0, 2 * math.pi, 49, dtype=torch.float64)
    unit = torch.stack((torch.cos(angle), torch.sin(angle)), dim=1)
    unit = unit / torch.linalg.vector_norm(unit, ord=p, dim=1, keepdim=True)
    return segments(points[:, None] + (radius or 0.0) / 2 * unit) if radius else points[:0]


def _arrow_segments(ends: torch.Tensor, p: float, reach: float) -> torch.Tensor:
    difference = (ends[:, 1] - ends[:, 0]).requires_grad_()
    length = torch.linalg.vector_norm(difference, ord=p, dim=-1).sum()
    (slope,) = torch.autograd.grad(length, difference)
    tips = torch.stack((ends[:, 0] - reach * slope, ends[:, 1] + reach * slope), dim=1)
    return torch.stack((ends, tips), dim=2).flatten(0, 1)


def _arrow_heads(count: int, color: str) -> dict:
    return dict(symbol="arrow", angleref="previous", size=np.tile([0, 9, 0], count), color=color, line_width=0)


def _tree_subtitle(count: int, merged: int, radius: float | None, beta: float | None) -> str:
    parts = [f"{count} points"]
    if radius is not None:
        parts.append(f"distance {radius:.3g}: {count - merged} component{'s' * (count - merged > 1)}")
    if beta is not None:
        parts.append(f"arrows: minus the gradient of Σ|length − β|, β = {beta:.3g}")
    return "; ".join(parts)
