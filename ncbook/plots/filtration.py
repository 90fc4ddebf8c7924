"""A cloud in the plane at growing scales: balls, pieces and the barcode, with a slider that needs no kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from ncbook.persistence import h0_death_times
from ncbook.plots.clouds import spanning_tree_figure
from ncbook.plots.player import animate
from ncbook.plots.style import CLASS_COLORS, INK, finish, matrix, segments, xyz


def pieces(points: torch.Tensor, scale: float, p: float = 2) -> np.ndarray:
    """For each of the points (n, d) the smallest index of a point that it is connected to by steps of at most scale."""
    near = torch.cdist(points, points, p=float(p), compute_mode="donot_use_mm_for_euclid_dist") <= scale
    labels = np.arange(len(points))
    for _ in range(len(points)):
        labels = np.where(near.numpy(), labels, len(points)).min(1)
    return labels


def filtration(points: torch.Tensor, scales: Sequence[float], *, p: float = 2, active: int = 0,
               title: str = "All scales") -> go.Figure:
    """A cloud (n, 2), n <= 10, at each of the scales: balls, all edges, those that join pieces; beside it the barcode.

    Points of one piece have one colour. active: which of the scales the figure opens with. Traces that move: "balls",
    "other edges", "joining edges", "points", "ended bars", "growing bars", "scale", "count".
    Raises ValueError for other shapes, NaN or inf, no scales.
    """
    x = matrix("points", points, columns=2, min_rows=2)
    if len(x) > len(CLASS_COLORS) or not len(scales):
        raise ValueError(f"points must be at most {len(CLASS_COLORS)} and scales at least one, "
                         f"got {len(x)} and {len(scales)}")
    deaths, top = h0_death_times(x, p).numpy(), 1.04 * max(scales)
    fig = make_subplots(1, 2, column_widths=[0.58, 0.42], horizontal_spacing=0.1,
                        subplot_titles=("balls of radius r/2", "barcode"))
    left, right = dict(row=1, col=1), dict(row=1, col=2)
    fig.add_scatter(name="balls", mode="lines", fill="toself", fillcolor="rgba(120,120,120,0.12)",
                    line=dict(color="rgba(120,120,120,0.6)", width=1), **left)
    fig.add_scatter(name="other edges", mode="lines", line=dict(color="#C4C4C4", width=1.5), **left)
    fig.add_scatter(name="joining edges", mode="lines", line=dict(color=INK, width=3), **left)
    fig.add_scatter(**xyz(x), name="points", mode="markers", marker=dict(
        size=12, line=dict(color="white", width=1), cmin=0, cmax=len(x) - 1,
        colorscale=[(i / (len(x) - 1), CLASS_COLORS[i]) for i in range(len(x))]), **left)
    for name, colour, count in (("ended bars", INK, len(deaths)), ("growing bars", "#B5B5B5", len(x))):
        fig.add_bar(name=name, y=np.arange(1, count + 1), orientation="h", marker_color=colour, **right)
    fig.add_scatter(y=[0.5, len(x) + 0.7], name="scale", mode="lines", line=dict(color=INK, width=1.5, dash="dot"),
                    **right)
    fig.add_scatter(x=[top / 2], y=[-0.3], name="count", mode="text", textfont=dict(size=15), **right)
    fig.update_traces(hoverinfo="skip", showlegend=False)
    centre, half = (x.amax(0) + x.amin(0)) / 2, float((x.amax(0) - x.amin(0)).max()) / 2 + max(scales) / 4
    plain = dict(showticklabels=False, ticks="", showgrid=False, showline=False)
    fig.update_xaxes(range=[float(centre[0]) - half, float(centre[0]) + half], **plain, **left)
    fig.update_yaxes(range=[float(centre[1]) - half, float(centre[1]) + half], scaleanchor="x", **plain, **left)
    fig.update_xaxes(range=[0, top], title="scale r", **right)
    fig.update_yaxes(range=[-0.8, len(x) + 0.8], showgrid=False, showticklabels=False, ticks="", **right)
    finish(fig, title, "grey: growing bars; black: bars that have ended, and the edges that ended them", width=720,
           height=460, barmode="overlay", bargap=0.35, margin=dict(l=16))
    return animate(fig, [f"{scale:.2f}" for scale in scales], [_at(x, scale, deaths, p) for scale in scales],
                   prefix="scale r = ", active=active, left=0.25)


def _at(x: torch.Tensor, scale: float, deaths: np.ndarray, p: float) -> dict[str, dict]:
    """What the figure shows at one scale."""
    label, ended, pairs = pieces(x, scale, p), deaths <= scale, torch.combinations(torch.arange(len(x)))
    drawn = {trace.name: dict(x=trace.x, y=trace.y) for trace in spanning_tree_figure(x, p, radius=scale).data}
    lengths = torch.linalg.vector_norm(x[pairs[:, 0]] - x[pairs[:, 1]], p, dim=1)
    count = len(set(label))
    return {
        "balls": drawn["balls"], "other edges": xyz(segments(x[pairs[lengths <= scale]])),
        "joining edges": drawn["edges"], "points": dict(marker=dict(color=label.astype(np.uint8))),
        "ended bars": dict(x=np.where(ended, deaths, 0).astype(np.float32)),
        "growing bars": dict(x=np.where([*ended, False], 0, scale).astype(np.float32)),
        "scale": dict(x=[scale, scale]), "count": dict(text=[f"<b>{count} piece{'s' * (count > 1)}</b>"]),
    }
