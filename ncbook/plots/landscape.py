"""Losses and distances over the circle of features or of frames, and sliders over states computed beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from ncbook.checks import check_number
from ncbook.etf import helmert_basis, nearest_simplex_etf
from ncbook.plots.player import animate
from ncbook.plots.style import GRID, INK, MUTED, OUTLINE, class_colors, finish, matrix, segments, xyz

TONES = ("#222222", "#7B5EA7", "#7F8C1F", "#B0626B", "#5B7083", "#2F7F8F")  # of quantities; no class has one of them
_PLAIN = dict(showgrid=False, showline=False, ticks="", showticklabels=False)
_SLIDER = 76  # pixels that a row of sliders takes


def add_sliders(fig: go.Figure, sliders: Mapping[str, tuple[Sequence[str], Sequence[Mapping[str, dict]]]], *,
                widths: Sequence[float], active: Sequence[int] | None = None, below: int = 52) -> go.Figure:
    """Put a row of sliders below a figure, which act on their own, without a kernel; it grows by what they need.

    sliders: what stands before the value -> labels, and for each label trace name -> what changes in the first trace
    of that name. widths: their shares of the row. active: where each stands at first, by default at its first label;
    the figure opens so. below: pixels between plot and sliders.
    Raises ValueError unless there is one change a label, and if two sliders change the same property of a trace.
    """
    first = {trace.name: i for i, trace in reversed([*enumerate(fig.data)])}
    active, frames, drawn = list(active or [0] * len(sliders)), [], []
    owners: dict[tuple[str, str], str] = {}
    for row, (prefix, (labels, changes)) in enumerate(sliders.items()):
        if not labels or len(labels) != len(changes):
            raise ValueError(f"sliders[{prefix!r}] must have one change a label, got {len(changes)} for {len(labels)}")
        for key in {(name, key) for moves in changes for name, change in moves.items() for key in change}:
            if owners.setdefault(key, prefix) != prefix:
                raise ValueError(f"sliders {owners[key]!r} and {prefix!r} both change {key[1]} of {key[0]!r}")
        steps = []
        for k, (label, moves) in enumerate(zip(labels, changes)):
            data = [dict(change, type=fig.data[first[name]].type) for name, change in moves.items()]
            frames.append(go.Frame(name=f"{row}.{k}", traces=[first[name] for name in moves], data=data))
            options = dict(mode="immediate", frame=dict(duration=0, redraw=True), transition=dict(duration=0))
            steps.append(dict(method="animate", label=label, args=[[f"{row}.{k}"], options]))
        for name, change in changes[active[row]].items():
            fig.data[first[name]].update(change)
        left, share = (part / sum(widths) for part in (sum(widths[:row]), widths[row]))
        drawn.append(dict(steps=steps, active=active[row], x=left, len=share - 0.03, y=0, yanchor="top",
                          pad=dict(t=below, b=0, l=0, r=0), font=dict(size=11, color=MUTED), ticklen=4,
                          currentvalue=dict(prefix=prefix, font=dict(size=14, color=INK))))
    fig.frames = [*fig.frames, *frames]
    foot = below + _SLIDER
    grown = foot - (56 if fig.layout.margin.b is None else fig.layout.margin.b)
    return fig.update_layout(sliders=drawn, margin_b=foot, height=(fig.layout.height or 450) + grown)


def ring_loss(angles: ArrayLike, scale: float) -> torch.Tensor:
    """Cross-entropy of features of norm scale on the circle, at angles (m,) in degrees from the vertex of their class.

    Three classes in the plane, whose classifier is a simplex ETF. Returns (m,) in float64.
    """
    turn = torch.as_tensor(np.asarray(angles, dtype=float)).deg2rad()[:, None]
    vertices = torch.tensor([0.0, 120.0, 240.0], dtype=torch.float64).deg2rad()
    logits = check_number("scale", scale, positive=True) * torch.cos(turn - vertices)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="none")


def ring_walk(start: float, scale: float) -> np.ndarray:
    """The way downhill on `ring_loss` from an angle in degrees to the minimum that it ends in: angles, a degree apart
    at most; from the top of a hill towards smaller angles."""
    at, steps = float(start), [float(start)]
    for size in (1.0, 0.1):
        while True:
            here, *beside = ring_loss([at, at - size, at + size], scale).tolist()
            if min(beside) >= here - 1e-12:
                break
            at += -size if beside[0] <= beside[1] + 1e-9 else size
            steps.append(at)
    return np.array(steps)


def loss_ring(scales: Sequence[float], starts: Sequence[float], *, active: tuple[int, int] = (0, 0),
              title: str = "The loss of a feature on the circle") -> go.Figure:
    """`ring_loss` as the colour of a ring and as a curve, with sliders for the feature norm and for where one starts.

    scales: feature norms τ; starts: angles to the vertex in degrees; active: which of each is shown at first. Losses
    are divided by the largest on the circle. Traces: "loss on the ring", "vertices", "names", "loss", and for each
    scale k "way k" and "way on the curve k".
    """
    angles = np.arange(-180, 181, 4)
    fig = make_subplots(1, 2, column_widths=[0.5, 0.5], horizontal_spacing=0.12)
    ring, curve = dict(row=1, col=1), dict(row=1, col=2)
    losses = [ring_loss(angles, scale).numpy() for scale in scales]
    highest, colors, hue = [loss.max() for loss in losses], class_colors(3), class_colors(3)[0]
    fig.add_scatter(**_on_ring(angles, 1.0), mode="markers", name="loss on the ring", hoverinfo="skip", marker=dict(
        size=19, colorscale="Purp", line_width=0, showscale=False, cmin=0, cmax=1), **ring)
    corners = np.array([0, 120, 240])
    fig.add_scatter(**_on_ring(corners, 0.8), mode="markers", name="vertices", hoverinfo="skip", marker=dict(
        symbol="diamond-open", size=15, color=colors, line_width=2.5), **ring)
    fig.add_scatter(**_on_ring(corners, 0.44), mode="text", name="names", hoverinfo="skip", textfont=dict(color=colors),
                    text=["its vertex", "class 1", "class 2"], **ring)
    fig.add_scatter(x=angles, mode="lines", name="loss", line=dict(color=INK, width=2), hoverinfo="skip", **curve)
    for k in range(len(scales)):
        way = dict(mode="lines+markers", line=dict(color=hue, width=3), hoverinfo="skip")
        for name, cell in ((f"way {k}", ring), (f"way on the curve {k}", curve)):
            fig.add_scatter(x=[], y=[], name=name, **way, **cell)

    def walk(k: int, start: float) -> dict[str, dict]:
        path = ring_walk(start, scales[k])
        some = path[np.unique(np.linspace(0, len(path) - 1, 13).round().astype(int))]
        look = dict(marker=_ends(hue, len(some)))
        on_curve = dict(x=some.round(1), y=(ring_loss(some, scales[k]).numpy() / highest[k]).round(3))
        on_ring = {name: values.round(3) for name, values in _on_ring(some, 1.2).items()}
        return {f"way {k}": on_ring | look, f"way on the curve {k}": on_curve | look}

    ways = [f"{name} {k}" for k in range(len(scales)) for name in ("way", "way on the curve")]
    by_scale = []
    for k, values in enumerate((loss / most).round(3) for loss, most in zip(losses, highest)):
        by_scale.append({"loss on the ring": dict(marker=dict(color=values)), "loss": dict(y=values)}
                        | {name: dict(visible=name.endswith(f" {k}")) for name in ways})
    by_start = [{name: change for k in range(len(scales)) for name, change in walk(k, start).items()}
                for start in starts]
    finish(fig, title, "dark: high loss; the feature starts at the open dot and goes downhill to the full one",
           width=720, height=370, showlegend=False, margin=dict(t=70, l=16, r=16))
    fig.update_xaxes(range=[-1.3, 1.3], **_PLAIN, **ring)
    fig.update_yaxes(range=[-1.3, 1.3], scaleanchor="x", **_PLAIN, **ring)
    fig.update_xaxes(title="angle to its vertex, degrees", dtick=60, range=[-192, 192], **curve)
    fig.update_yaxes(title="cross-entropy / its maximum", range=[0, 1.08], dtick=0.25, **curve)
    return add_sliders(fig, {"feature norm τ = ": ([f"{scale:g}" for scale in scales], by_scale),
                             "start, degrees from the vertex: ": ([f"{start:g}" for start in starts], by_start)},
                       widths=(1, 2), active=active)


def ring_strip(stills: Mapping[str, torch.Tensor], targets: torch.Tensor, vertices: torch.Tensor, *,
               class_names: Sequence[str] | None = None, title: str = "Features in the plane") -> go.Figure:
    """Features in the plane at several moments, as points on a circle beside the vertices of their classes.

    stills: heading -> features (N, 2), drawn at norm 1 and spread outwards, only to be seen; targets (N,); vertices
    (C, 2). Traces: "circle", "features" and "vertices" for each still. Raises ValueError for other shapes.
    """
    corners = matrix("vertices", vertices, columns=2)
    names = [str(c) for c in range(len(corners))] if class_names is None else list(class_names)
    colors = class_colors(len(corners))
    fig = make_subplots(1, len(stills), subplot_titles=list(stills), horizontal_spacing=0.02)
    turn = torch.linspace(0, 2 * math.pi, 73)
    for column, (name, features) in enumerate(stills.items(), start=1):
        cell, at = dict(row=1, col=column), F.normalize(matrix(f"stills[{name!r}]", features, columns=2), dim=1)
        spread = 1.06 + 0.22 * ((torch.arange(len(at)) * 0.618) % 1)
        fig.add_scatter(x=turn.cos(), y=turn.sin(), mode="lines", name="circle", line_color=OUTLINE, **cell)
        fig.add_scatter(**xyz(at * spread[:, None]), mode="markers", name="features", **cell, marker=dict(
            size=5, opacity=0.6, color=[colors[int(t)] for t in targets], line_width=0))
        fig.add_scatter(**xyz(0.8 * F.normalize(corners, dim=1)), mode="markers", name="vertices", **cell, marker=dict(
            symbol="diamond-open", size=13, color=colors, line_width=2.5))
        fig.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", **cell)
    for c, color in enumerate(colors):
        fig.add_scatter(x=[None], y=[None], mode="markers", name=f"class “{names[c]}”: feature and vertex", row=1,
                        col=1, marker=dict(symbol="diamond", size=11, color=color), meta="legend")
    plain = dict(range=[-1.4, 1.4], **_PLAIN)
    fig.update_traces(showlegend=False, hoverinfo="skip").update_traces(showlegend=True, selector=dict(meta="legend"))
    finish(fig, title, width=720, height=310, legend=dict(orientation="h", x=0, y=-0.02), margin=dict(l=16, r=8, b=52))
    return fig.update_xaxes(**plain).update_yaxes(**plain)


def frame_at(angle: torch.Tensor, mirrored: bool) -> torch.Tensor:
    """The simplex ETFs (m, 3, 2) of three classes in the plane turned by angles (m,) in degrees, perhaps mirrored."""
    turn = torch.as_tensor(angle, dtype=torch.float64).deg2rad()
    frame = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], dim=-1).unflatten(-1, (2, 2))
    frame = frame * torch.tensor([1.0, -1.0], dtype=torch.float64) if mirrored else frame
    return math.sqrt(1.5) * helmert_basis(3, dtype=torch.float64) @ frame.mT


def frame_angle(etf: torch.Tensor) -> tuple[float, bool]:
    """The angle in degrees and the mirror of a simplex ETF (3, 2), as `frame_at` takes them."""
    v = math.sqrt(2 / 3) * etf.double().T @ helmert_basis(3, dtype=torch.float64)
    return float(torch.atan2(v[1, 0], v[0, 0]).rad2deg()), bool(torch.linalg.det(v) < 0)


def frame_distances(class_means: torch.Tensor, angle: torch.Tensor, mirrored: bool) -> torch.Tensor:
    """Squared distances (m,) from class means (3, 2), centred and of Frobenius norm 1, to the frames of `frame_at`."""
    means = matrix("class_means", class_means, columns=2)
    means = means - means.mean(0)
    return (means / means.norm() - frame_at(angle, mirrored) / math.sqrt(3)).square().sum((-1, -2))


def frame_landscape(path: Sequence[torch.Tensor], labels: Sequence[str], *, active: int = 0, prefix: str = "",
                    title: str = "Three class means and every simplex ETF") -> go.Figure:
    """Class means with their nearest simplex ETF, and the distance to every simplex ETF, along a path, with a player.

    path: class means (3, 2) at each stop, none on one point; labels, active, prefix: as in `add_player`. Traces:
    "line through classes 1 and 2", "nearest simplex ETF", "to its vertex", "vertices", "class means", "not mirrored",
    "mirrored", "nearest".
    """
    fig = make_subplots(1, 2, column_widths=[0.47, 0.53], horizontal_spacing=0.13)
    plane, curve, colors = dict(row=1, col=1), dict(row=1, col=2), class_colors(3)
    grid = torch.arange(-180, 181, 6, dtype=torch.float64)
    fig.add_scatter(mode="lines", name="line through classes 1 and 2", line=dict(color=GRID, width=1.5), **plane)
    fig.add_scatter(mode="lines", name="nearest simplex ETF", line_color=OUTLINE, **plane)
    fig.add_scatter(mode="lines", name="to its vertex", line=dict(color=MUTED, dash="dot", width=1.5), **plane)
    fig.add_scatter(mode="markers", name="vertices", **plane, marker=dict(
        symbol="diamond-open", size=15, color=colors, line_width=2.5))
    fig.add_scatter(mode="markers", name="class means", **plane, marker=dict(
        size=13, color=colors, line=dict(color="white", width=1)))
    for name, color, dash in (("not mirrored", TONES[1], "dash"), ("mirrored", TONES[2], "solid")):
        fig.add_scatter(x=grid, mode="lines", name=name, line=dict(color=color, dash=dash), **curve)
    fig.add_scatter(mode="markers", name="nearest", marker=dict(symbol="star", size=14, color=INK), **curve)
    changes: list[dict[str, dict]] = []
    for means in path:
        etf, centred = nearest_simplex_etf(means), means - means.mean(0)
        at, vertices, (angle, mirrored) = centred / centred.norm(), etf / math.sqrt(3), frame_angle(etf)
        curves = {m: frame_distances(means, grid, m).numpy().round(3) for m in (False, True)}
        lowest = float(frame_distances(means, torch.tensor([angle]), mirrored))
        changes.append({
            "line through classes 1 and 2": xyz((at[1] + (at[2] - at[1]) * torch.tensor([[-3.0], [4.0]])).numpy()),
            "nearest simplex ETF": xyz(vertices[[0, 1, 2, 0]].numpy().round(3)),
            "to its vertex": xyz(segments(torch.stack([at, vertices], dim=1)).numpy().round(3)),
            "vertices": xyz(vertices.numpy().round(3)), "class means": xyz(at.numpy().round(3)),
            "not mirrored": dict(y=curves[False]), "mirrored": dict(y=curves[True]),
            "nearest": dict(x=[round(angle, 1)], y=[round(lowest, 3)])})
    finish(fig, title, "left: class means (full) and their nearest simplex ETF (open); right: distance to every one",
           width=720, height=390, margin=dict(t=96, l=8, r=16, b=70), showlegend=True,
           legend=dict(x=1, xanchor="right", y=1.02, yanchor="bottom", orientation="h"))
    fig.update_traces(hoverinfo="skip").update_traces(showlegend=False, selector=dict(xaxis="x"))
    fig.update_xaxes(range=[-0.95, 0.95], **_PLAIN, **plane)
    fig.update_yaxes(range=[-0.95, 0.95], scaleanchor="x", **_PLAIN, **plane)
    fig.update_xaxes(title="angle θ of the frame, degrees", dtick=60, range=[-180, 180], **curve)
    fig.update_yaxes(title="squared distance", range=[0, 4.1], **curve)
    return animate(fig, labels, changes, active=active, prefix=prefix, milliseconds=180)


def curve_panels(panels: Mapping[str, Mapping[str, tuple]], *, title: str, subtitle: str | None = None,
                 styles: Mapping[str, tuple[str, str]] | None = None, x: str | None = None,
                 width: int = 720, height: int = 340) -> go.Figure:
    """Curves in panels side by side: heading -> name -> (x, y); a name has one style in all of them, and one key.

    styles: name -> colour and dash, by default the `TONES` in turn; x: what stands below each panel. At most 200 points
    a curve are kept.
    """
    fig = make_subplots(1, len(panels), subplot_titles=list(panels) if len(panels) > 1 else None,
                        horizontal_spacing=0.2 / len(panels))
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    dashes = ("solid", "dash", "dot", "dashdot")
    looks = {name: (TONES[k % len(TONES)], dashes[k % 4]) for k, name in enumerate(names)} | dict(styles or {})
    for column, curves in enumerate(panels.values(), start=1):
        for name, points in curves.items():
            at, values = (np.asarray(part, dtype=np.float32) for part in points)
            keep = np.unique(np.linspace(0, len(at) - 1, min(200, len(at))).round().astype(int))
            color, dash = looks[name]
            fig.add_scatter(x=at[keep], y=values[keep], mode="lines", name=name, legendgroup=name, row=1, col=column,
                            line=dict(color=color, dash=dash, width=2), showlegend=name in names)
            names = [other for other in names if other != name]
    finish(fig, title, subtitle, width=width, height=height + 24 * (len(panels) > 1) + 20 * bool(subtitle),
           legend=dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom"), margin=dict(
               t=50 + 26 * (len(panels) > 1) + 22 * bool(subtitle), b=92, l=64, r=16))
    return fig.update_xaxes(title=x)


def _ends(color: str, count: int) -> dict:
    """Markers of a way: open where it starts, full where it ends, none between."""
    sizes = [14, *[0] * (count - 2), 14] if count > 1 else [14]
    return dict(size=sizes, color=[*["white"] * (count - 1), color], line=dict(color=color, width=2), opacity=1)


def _on_ring(angles: np.ndarray, radius: float) -> dict[str, np.ndarray]:
    turn = np.deg2rad(90 - np.asarray(angles, dtype=float))
    return dict(x=radius * np.cos(turn), y=radius * np.sin(turn))
