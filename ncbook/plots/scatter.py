"""Features in the plane at several moments: scatter as ellipses, and what two classifiers make of the plane."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go
import torch
from plotly.colors import hex_to_rgb
from plotly.subplots import make_subplots
from torch import Tensor

from ncbook.plots.style import INK, MUTED, class_colors, finish, matrix, segments, xyz
from ncbook.training.snapshot import Snapshot

_LIMIT = 1.8  # least half the side of a panel, in units of the class means' root-mean-square distance from their mean


def scatter_ellipses(stages: Mapping[str, Snapshot], *, title: str = "Scatter within and between classes") -> go.Figure:
    """Features in the plane, an ellipse of two standard deviations for each class, and the one of the class means.

    stages: panel title -> a snapshot with features in two dimensions; each panel is centred and scaled by its class
    means, and as wide as what is drawn. Traces of each panel: "between", the ellipse of S_B at sqrt(C-1) standard
    deviations, which goes through the means of three classes; for each class "features", then "within"; "class means".
    Raises: ValueError for no stages, or features that have not two dimensions.
    """
    told = "filled: two standard deviations of a class; dashed: the ellipse through the means; own scales"
    fig = _panels(stages, title, told)
    for column, shot in enumerate(stages.values(), start=1):
        features, means, _, _ = _scaled(shot)
        reach = _reach(features)
        between = _ellipse(means.mean(0), means.T @ means / len(means), math.sqrt(len(means) - 1))
        fig.add_scatter(**xyz(between), name="between", mode="lines", line=dict(color=INK, dash="dash", width=1.5),
                        row=1, col=column)
        for c, color in enumerate(class_colors(len(means))):
            own = features[shot.targets == c]
            within = _ellipse(own.mean(0), torch.cov(own.T, correction=0), 2)
            reach = max(reach, _reach(within))
            fig.add_scatter(**xyz(own), name="features", mode="markers", row=1, col=column,
                            marker=dict(size=4, color=color, opacity=0.5, line_width=0))
            fig.add_scatter(**xyz(within), name="within", mode="lines", fill="toself", fillcolor=_pale(color, 0.18),
                            line=dict(color=color, width=2), row=1, col=column)
        _add_means(fig, means, column)
        _set_range(fig, reach, column)
    return fig


def decision_cells(stages: Mapping[str, Snapshot], *, title: str = "Classifier and nearest class mean") -> go.Figure:
    """The plane as the classifier divides it, filled, and as the nearest class mean divides it, dashed.

    stages: as in `scatter_ellipses`. Traces of each panel: for each class "classifier", a convex polygon, empty where
    the class has no cell; "nearest mean", the outlines of the other cells; "features"; "class means".
    Raises: ValueError for no stages, or features that have not two dimensions.
    """
    fig = _panels(stages, title, "filled: the class with the largest logit; dashed: cells of the means; own scales")
    for column, shot in enumerate(stages.values(), start=1):
        features, means, weight, bias = _scaled(shot)
        colors, reach = class_colors(len(means)), _reach(features)
        beyond = 1.1 * reach  # cells end outside of what is seen
        for color, cell in zip(colors, linear_cells(weight, bias, beyond)):
            fig.add_scatter(**xyz(torch.cat((cell, cell[:1]))), name="classifier", mode="lines", fill="toself",
                            fillcolor=_pale(color, 0.22), line=dict(color=color, width=1), row=1, col=column)
        nearest = [cell for cell in linear_cells(means, -means.square().sum(1) / 2, beyond) if len(cell)]
        outline = torch.cat([segments(torch.cat((cell, cell[:1]))[None]) for cell in nearest])
        fig.add_scatter(**xyz(outline), name="nearest mean", mode="lines", row=1, col=column,
                        line=dict(color=INK, dash="dash", width=2))
        dots = dict(size=4, color=[colors[int(c)] for c in shot.targets], opacity=0.7, line_width=0)
        fig.add_scatter(**xyz(features), name="features", mode="markers", marker=dots, row=1, col=column)
        _add_means(fig, means, column)
        _set_range(fig, reach, column)
    return fig


def linear_cells(weight: Tensor, bias: Tensor, limit: float) -> list[Tensor]:
    """For each class the convex polygon (m, 2) of the square |x|, |y| <= limit where its logit w.x + b is largest.

    weight (C, 2), bias (C,); a class that is nowhere the largest gets a polygon without corners.
    """
    cells = []
    for c in range(len(weight)):
        cell = limit * torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]).to(weight)
        for other in set(range(len(weight))) - {c}:
            cell = _clip(cell, weight[c] - weight[other], bias[c] - bias[other])
        cells.append(cell)
    return cells


def _clip(polygon: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """What is left of a convex polygon (m, 2) where normal.x + offset >= 0."""
    side = polygon @ normal + offset
    kept = [polygon[:0]]
    for k in range(len(polygon)):
        if (side[k - 1] >= 0) != (side[k] >= 0):
            share = side[k - 1] / (side[k - 1] - side[k])
            kept.append(torch.lerp(polygon[k - 1], polygon[k], share)[None])
        if side[k] >= 0:
            kept.append(polygon[k : k + 1])
    return torch.cat(kept)


def _scaled(shot: Snapshot) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, means, weight and bias in coordinates in which the means have mean 0 and root-mean-square norm 1."""
    means = matrix("class_means", shot.class_means, columns=2)
    features, weight = matrix("features", shot.features, columns=2), matrix("weight", shot.weight, columns=2)
    centre = means.mean(0)
    scale = torch.linalg.matrix_norm(means - centre) / math.sqrt(len(means))
    return (features - centre) / scale, (means - centre) / scale, weight * scale, shot.bias.double() + weight @ centre


def _ellipse(centre: Tensor, covariance: Tensor, deviations: float) -> Tensor:
    variances, axes = torch.linalg.eigh(covariance)
    turn = torch.linspace(0, 2 * math.pi, 61, dtype=covariance.dtype)
    circle = torch.stack((turn.cos(), turn.sin()), dim=1)
    return centre + deviations * circle * variances.clamp(min=0).sqrt() @ axes.T


def _reach(points: Tensor) -> float:
    return max(_LIMIT, 1.05 * float(points.abs().max()))


def _set_range(fig: go.Figure, reach: float, column: int) -> None:
    fig.update_xaxes(range=[-reach, reach], col=column).update_yaxes(range=[-reach, reach], col=column)


def _pale(color: str, alpha: float) -> str:
    return f"rgba{(*hex_to_rgb(color), alpha)}"


def _add_means(fig: go.Figure, means: Tensor, column: int) -> None:
    fig.add_scatter(**xyz(means), name="class means", mode="markers", row=1, col=column,
                    marker=dict(size=9, color=class_colors(len(means)), line=dict(color="white", width=1.5)))


def _panels(stages: Mapping[str, Snapshot], title: str, subtitle: str) -> go.Figure:
    if not stages:
        raise ValueError("stages must hold at least one snapshot")
    fig = make_subplots(1, len(stages), subplot_titles=list(stages), horizontal_spacing=0.06 / len(stages))
    bare = dict(showgrid=False, showticklabels=False, ticks="", mirror=True, linecolor=MUTED)
    fig.update_xaxes(**bare, constrain="domain").update_yaxes(**bare, constrain="domain")
    for k in range(1, len(stages) + 1):
        fig.update_yaxes(scaleanchor=f"x{k if k > 1 else ''}", col=k)
    fig.update_traces(hoverinfo="skip")
    side = 224
    return finish(fig, title, subtitle, width=40 + side * len(stages) if len(stages) > 1 else 400,
                  height=side + 116 if len(stages) > 1 else 470, showlegend=False, margin=dict(l=20, r=20, b=16, t=100))
