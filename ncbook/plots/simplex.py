"""Sets of vectors as stars, on their own, over time, and beside their nearest simplex ETF; directions on a circle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor
from torch.nn.functional import normalize

from ncbook.etf import nearest_simplex_etf, simplex_etf_distance
from ncbook.plots.player import animate
from ncbook.plots.style import GRID, MUTED, OUTLINE, class_colors, finish, matrix, segments, xyz

_QUIET = dict(hoverinfo="skip", showlegend=False)
_CAMERA = dict(eye=dict(x=0.2, y=1.25, z=0.75))


def star(points: Tensor, *, edges: bool = True) -> list[go.Scatter | go.Scatter3d]:
    """Traces "edges", "spokes" and "vectors" of the vectors (C, 2) or (C, 3): lines from the centre, ends by class.

    Raises ValueError for another number of dimensions.
    """
    points = matrix("points", points)
    if points.shape[1] not in (2, 3):
        raise ValueError(f"points must have 2 or 3 columns, got {points.shape[1]}")
    trace, size = (go.Scatter3d, 8) if points.shape[1] == 3 else (go.Scatter, 14)
    first, second = torch.combinations(torch.arange(len(points))).T
    ends = dict(size=size, color=class_colors(len(points)), line=dict(color="white", width=1))
    edge, spoke = (dict(mode="lines", line=dict(color=c, width=w)) for c, w in ((OUTLINE, 2), (MUTED, 4)))
    sides = [trace(**_lines(points[first], points[second]), name="edges", **edge, **_QUIET)] if edges else []
    return [*sides, trace(**_lines(0 * points, points), name="spokes", **spoke, **_QUIET),
            trace(**xyz(points), name="vectors", mode="markers", marker=ends, **_QUIET)]


def star_animation(path: Sequence[Tensor], labels: Sequence[str], *, title: str, subtitle: str) -> go.Figure:
    """Unit vectors (C, 3) in space, moment by moment, with the great circles of the sphere they lie on.

    Traces of `star`, then "sphere"; a label per moment.
    """
    fig = go.Figure(star(path[0]))
    ring = torch.cat([_circle(), torch.zeros(49, 1, dtype=torch.float64)], dim=1)
    fig.add_scatter3d(**xyz(segments(torch.stack([ring.roll(k, 1) for k in range(3)]))), mode="lines", name="sphere",
                      line=dict(color="#D8E3EC", width=2), **_QUIET)
    finish(fig, title, subtitle, width=480, height=420, margin=dict(l=8, r=8, b=8, t=64), scene=_space(0.35))
    moves = [{part.name: dict(x=part.x, y=part.y, z=part.z) for part in star(points)} for points in path]
    return animate(fig, labels, moves, redraw=True, below=10, left=0.38)


def stars(panels: Mapping[str, Tensor], *, title: str, subtitle: str, edges: bool = True, names: bool = False,
          height: int = 320) -> go.Figure:
    """Stars side by side, each under its name: vectors (C, 2) in the plane, (C, 3) in space.

    names: whether the classes are numbered, but for those at the centre.
    """
    kinds = [{"type": "scene"} if points.shape[1] == 3 else {} for points in panels.values()]
    fig = make_subplots(1, len(panels), specs=[kinds], horizontal_spacing=0.03, subplot_titles=list(panels))
    for column, points in enumerate(panels.values(), start=1):
        fig.add_traces(star(points, edges=edges), rows=1, cols=column)
        away = [c for c, point in enumerate(points) if point.norm() > 0.01] if names else []
        if away:
            trace = go.Scatter3d if points.shape[1] == 3 else go.Scatter
            fig.add_trace(trace(**xyz(points[away] + 0.18 * normalize(points[away])), mode="text", name="names",
                                text=[f"<b>{c}</b>" for c in away], **_QUIET), row=1, col=column)
    finish(fig, title, subtitle, width=680, height=height, margin=dict(l=16, r=16, b=16, t=100))
    fig.update_scenes(_space(0.75) | dict(camera=_CAMERA))
    bare = dict(range=[-1.3, 1.3], visible=False)
    fig.update_xaxes(**bare).update_yaxes(**bare)
    for axis in fig.select_yaxes():
        axis.scaleanchor = axis.anchor
    return fig


def etf_beside_means(sets: Sequence[Tensor], labels: Sequence[str], *, active: int = -1, title: str,
                     subtitle: str) -> go.Figure:
    """Sets of three class means in the plane (3, 2), each with its nearest simplex ETF and what lies between them.

    Means are centred and normalised. labels: one per set, each followed by the squared distance. Traces: "nearest
    simplex ETF", "what the distance adds up", "class means", "circle".
    """
    def moves(means: Tensor) -> dict[str, dict]:
        centred = means - means.mean(0)
        at, etf = math.sqrt(3) * centred / centred.norm(), nearest_simplex_etf(means)
        return {"nearest simplex ETF": xyz(torch.cat([etf, etf[:1]])), "what the distance adds up": _lines(etf, at),
                "class means": xyz(at)}

    colors, fig = class_colors(3), go.Figure()
    ring = [*colors, colors[0]]
    fig.add_scatter(name="nearest simplex ETF", mode="lines+markers", line=dict(color=MUTED, width=2), marker=dict(
        symbol="diamond-open", size=15, color=ring, line=dict(width=2, color=ring)))
    fig.add_scatter(name="what the distance adds up", mode="lines", line=dict(color="#999999", width=1.5, dash="dot"))
    fig.add_scatter(name="class means", mode="markers", marker=dict(size=14, color=colors))
    fig.add_scatter(**xyz(_circle()), name="circle", mode="lines", line=dict(color=GRID), showlegend=False)
    fig.update_traces(hoverinfo="skip")
    finish(fig, title, subtitle, width=480, height=430, margin=dict(l=8, r=8, t=116, b=8),
           legend=dict(orientation="h", x=0, y=1, yanchor="bottom", entrywidth=175, font_size=12))
    fig.update_xaxes(range=[-1.5, 1.5], visible=False).update_yaxes(range=[-1.5, 1.5], scaleanchor="x", visible=False)
    told = [f"{label}, squared distance {float(simplex_etf_distance(means)):.3f}" for label, means in zip(labels, sets)]
    return animate(fig, told, [moves(means) for means in sets], active=active, below=10, left=0.38)


def direction_histograms(angles: Mapping[str, Tensor], *, title: str, subtitle: str, bins: int = 24) -> go.Figure:
    """Histograms on a circle, side by side: for each name a trace of the density of angles in degrees; 1 is uniform."""
    fig = make_subplots(1, len(angles), specs=[[{"type": "polar"}] * len(angles)], subplot_titles=list(angles))
    width = 360 / bins
    for column, (name, degrees) in enumerate(angles.items(), start=1):
        density = torch.histc(degrees % 360, bins, 0, 360) / len(degrees) * bins
        fig.add_barpolar(theta=[width * (k + 0.5) for k in range(bins)], r=density.numpy().round(3), name=name,
                         width=[width] * bins, marker=dict(color="#8C8C8C", line=dict(color="white", width=1)),
                         showlegend=False, hovertemplate="%{r:.2f}<extra></extra>", row=1, col=column)
    finish(fig, title, subtitle, width=640, height=390, margin=dict(t=124, b=32))
    return polar_grid(fig, 2.3).update_annotations(yshift=20)


def polar_grid(fig: go.Figure, reach: float) -> go.Figure:
    """Polar panels of a figure in the house style, with rings at 1, 2 ... up to `reach`."""
    rings = dict(range=[0, reach], tickvals=list(range(1, int(reach) + 1)), angle=90, gridcolor=GRID)
    return fig.update_polars(bgcolor="white", angularaxis=dict(gridcolor=GRID, dtick=45), radialaxis=rings)


def _lines(starts: Tensor, ends: Tensor) -> dict:
    return xyz(segments(torch.stack([starts, ends], dim=1)))


def _circle() -> Tensor:
    turn = torch.linspace(0, 2 * math.pi, 49, dtype=torch.float64)
    return torch.stack([turn.cos(), turn.sin()], dim=1)


def _space(height: float) -> dict:
    span = dict(range=[-1.02, 1.02])
    return dict(xaxis=span, yaxis=span, zaxis=span, camera=dict(eye=dict(x=1.15, y=0.8, z=height)))
