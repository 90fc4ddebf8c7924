"""Class means in the coordinates of the simplex, still and over training, and their cosines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from ncbook.etf import nearest_simplex_etf
from ncbook.plots.player import animate
from ncbook.plots.style import MUTED, OUTLINE, check_names, class_colors, finish, matrix, segments, xyz
from ncbook.training.snapshot import Snapshot

_MAX_FRAMES, _MAX_POINTS = 60, 200


def simplex_vertices(num_classes: int, dims: int | None = None) -> torch.Tensor:
    """Where `simplex_coordinates` puts the vertices of the nearest simplex ETF: (C, dims) in float64.

    Raises: ValueError when dims is not in 1..C-1.
    """
    dims = _dims(num_classes, dims)
    return math.sqrt(num_classes / dims) * _fourier_basis(num_classes, dims)


def simplex_coordinates(points: torch.Tensor, class_means: torch.Tensor, *, dims: int | None = None) -> torch.Tensor:
    """Coordinates in which the nearest simplex ETF of the class means stands still.

    With the ETF's rows W, `(x - mu_G) W^T` sends its vertices to the same C points of R^C wherever the features have
    turned; the class means land on the rows of the square root of their centred Gram matrix. R^C is then read along
    the first `dims` real Fourier vectors orthogonal to the ones vector. That is an isometry of the span of the means
    for dims = C-1, and otherwise the projection in which the vertices form a regular C-gon (dims = 2).

    points (M, d), class_means (C, d) -> (M, dims), in units in which the vertices have root-mean-square length 1 and
    the means of an exact ETF land on `simplex_vertices`. Default dims: 1, 2, 3 for C = 2, 3, 4, then 2.
    Raises: ValueError for other shapes, NaN or inf, coinciding class means, d < C-1, dims outside 1..C-1.
    """
    means = matrix("class_means", class_means)
    x = matrix("points", points, columns=means.shape[1])
    dims = _dims(len(means), dims)
    centre = means.mean(0)
    scale = torch.linalg.matrix_norm(means - centre) / math.sqrt(len(means))
    if scale == 0:
        raise ValueError("class_means all coincide: they span no simplex; pass means of at least two distinct places")
    etf = nearest_simplex_etf(means)
    axes = etf.T @ _fourier_basis(len(means), dims) * ((len(means) - 1) / math.sqrt(len(means) * dims))
    return ((x - centre) / scale @ axes).to(points.dtype)


def geometry_coordinates(
    class_means: torch.Tensor,
    features: torch.Tensor | None = None,
    targets: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
) -> dict[str, np.ndarray]:
    """What moves in `geometry`: trace name -> coordinates (M, 2) or (M, 3), a column per x, y (, z) of the trace.

    Shapes and errors as in `geometry`. The live figures copy these into a figure that exists already.
    """
    means = matrix("class_means", class_means)
    dims = _dims(len(means), None)
    at = simplex_coordinates(means, means)
    parts = {"class means": at.numpy(), "spokes": segments(torch.stack((torch.zeros_like(at), at), dim=1)).numpy()}
    parts["features"] = parts["weights"] = np.empty((0, dims))
    if (features is None) != (targets is None):
        raise ValueError("features and targets go together: pass both or neither")
    if features is not None and targets is not None:
        rows = matrix("features", features, columns=means.shape[1])
        if targets.shape != rows.shape[:1] or targets.min() < 0 or targets.max() >= len(means):
            raise ValueError(
                f"targets must hold one class in 0..{len(means) - 1} per feature, got shape {tuple(targets.shape)} "
                f"for features {tuple(features.shape)}"
            )
        parts["features"] = simplex_coordinates(rows, means).numpy()
    if weight is not None:
        rows = matrix("weight", weight, columns=means.shape[1])
        if len(rows) != len(means):
            raise ValueError(f"weight must have {len(means)} rows, one per class, got {len(rows)}")
        rows = rows - rows.mean(0)
        ratio = torch.linalg.matrix_norm(means - means.mean(0)) / torch.linalg.matrix_norm(rows).clamp_min(1e-300)
        parts["weights"] = simplex_coordinates(rows * ratio + means.mean(0), means).numpy()
    if dims == 1:
        lane = (np.arange(len(parts["features"])) * 0.618 % 1 - 0.5) * 0.5
        parts = {name: np.column_stack((xy, np.zeros(len(xy)))) for name, xy in parts.items()}
        parts["features"][:, 1] = lane
    return parts


def geometry(
    class_means: torch.Tensor,
    *,
    features: torch.Tensor | None = None,
    targets: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "Class means and their nearest simplex ETF",
) -> go.Figure:
    """Class means in the simplex's own coordinates, with the nearest simplex ETF drawn under them.

    class_means (C, d); features (N, d) with targets (N,); weight (C, d), centred and scaled to the norm of the means.
    On a line for C = 2, in the plane for C = 3, in space for C = 4, all exact; for more classes the projection of
    `simplex_coordinates`. Traces, in order: "nearest ETF", "spokes", "class means", "features", "weights", "labels",
    then an empty trace per legend entry, with `meta` "legend". A part that is not given stays as an empty trace.
    Raises: ValueError for shapes that do not fit together, NaN or inf, coinciding class means.
    """
    parts = geometry_coordinates(class_means, features, targets, weight)
    return _geometry_figure(parts, class_means.shape[1], targets, class_names, title, _view_limit([parts]))


def geometry_animation(
    snapshots: Iterable[Snapshot],
    *,
    class_names: Sequence[str] | None = None,
    title: str = "Class means on their way to the simplex ETF",
) -> go.Figure:
    """The figure of `geometry` over training, as plotly frames with a play button and a slider: no kernel needed.

    Opens on the last snapshot; Play starts from the first. At most 60 frames of 200 points are kept, evenly spaced.
    Raises: ValueError without snapshots.
    """
    shots = _thin(list(snapshots), _MAX_FRAMES)
    if not shots:
        raise ValueError("snapshots is empty: pass what train(recipe) yields")
    keep = _thin(range(len(shots[-1].features)), _MAX_POINTS)
    targets = shots[-1].targets[keep]
    parts = [geometry_coordinates(s.class_means, s.features[keep], s.targets[keep], s.weight) for s in shots]
    fig = _geometry_figure(parts[-1], shots[-1].class_means.shape[1], targets, class_names, title, _view_limit(parts))
    fig.update_layout(width=464, height=384, margin=dict(l=8, r=8, t=108, b=8), title_pad_l=8, legend=dict(
        orientation="h", x=0, y=1, yanchor="bottom", entrywidth=64, font_size=11))
    moving = ("features", "spokes", "weights", "class means")
    space = isinstance(fig.data[0], go.Scatter3d)
    changes = [{name: xyz(part[name]) for name in moving} for part in parts]
    return animate(fig, [f"{shot.epoch:g}" for shot in shots], changes, redraw=space, transition=0 if space else 70,
                   below=10, left=0.42, prefix="epoch ")


def centred_cosines(rows: torch.Tensor) -> torch.Tensor:
    """Cosines between rows (C, d) less their mean: (C, C) in float64, NaN on the diagonal and where a row is the mean.

    Raises: TypeError and ValueError for other shapes, NaN or inf.
    """
    rows = matrix("rows", rows, min_rows=2)
    rows = rows - rows.mean(0)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return ((rows / norms) @ (rows / norms).T).clamp(-1, 1).fill_diagonal_(math.nan)


def cosine_heatmap(
    vectors: torch.Tensor,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "Cosines between class means",
) -> go.Figure:
    """Cosines between centred rows, coloured by how far they are from the ideal -1/(C-1); the diagonal is left out.

    vectors (C, d): class means or classifier weights. One trace, "cosines".
    Raises: ValueError for other shapes, NaN or inf, a row that equals the mean of the rows.
    """
    return cosine_heatmaps({"": vectors}, class_names=class_names, title=title, width=560, height=500)


def cosine_heatmaps(
    vectors: Mapping[str, torch.Tensor],
    *,
    class_names: Sequence[str] | None = None,
    title: str = "Cosines between class means",
    width: int = 900,
    height: int = 400,
) -> go.Figure:
    """`cosine_heatmap` of several sets of vectors (C, d) side by side, each under its name; C is the same in all."""
    cosines = [centred_cosines(matrix("vectors", rows, min_rows=2)) for rows in vectors.values()]
    for lost in (values.isnan().all(1) for values in cosines):
        if lost.any():
            where = int(lost.int().argmax())
            raise ValueError(f"vectors has a row, {where}, equal to the mean of its rows: its cosines are undefined")
    count, sets = len(cosines[0]), len(cosines)
    names, ideal = check_names(class_names, count), -1 / (count - 1)
    reach = max(0.5, *(float((values.nan_to_num(ideal) - ideal).abs().max()) for values in cosines))
    ticks = [ideal + share * reach for share in (-1, -0.5, 0, 0.5, 1)]
    labels = [f"{t:.2f}" if t != ideal else f"<b>{ideal:.3g}</b> ideal" for t in ticks]
    fig = make_subplots(1, sets, subplot_titles=list(vectors) if sets > 1 else None, horizontal_spacing=0.15 / sets)
    for column, values in enumerate(cosines, start=1):
        fig.add_heatmap(
            name="cosines", z=values.numpy(), x=names, y=names, colorscale="RdBu", reversescale=True, zmid=ideal,
            zmin=ideal - reach, zmax=ideal + reach, xgap=1, ygap=1, hoverongaps=False, showscale=column == sets,
            texttemplate="%{z:.2f}" if count <= (10 if sets == 1 else 6) else None,
            textfont=dict(size=13 if count <= 6 else 11 if sets == 1 else 9),
            hovertemplate="%{y}, %{x}: %{z:.4f}<extra></extra>", row=1, col=column,
            colorbar=dict(tickvals=ticks, ticktext=labels, thickness=14, outlinewidth=0),
        )
        fig.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", row=1, col=column)
    plain = dict(type="category", showgrid=False, constrain="domain", tickcolor="white", showline=False,
                 **(dict(tickmode="linear", dtick=1) if count <= 20 else dict(nticks=10)))
    finish(fig, title, f"white is the simplex ETF's cosine, −1/{count - 1}", width=width, height=height,
           plot_bgcolor="#E4E4E4")
    return fig.update_xaxes(**plain).update_yaxes(autorange="reversed", **plain)


def _thin(items: Sequence, most: int) -> list:
    if not items:
        return []
    picked = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in picked]


def _dims(num_classes: int, dims: int | None) -> int:
    if num_classes < 2:
        raise ValueError(f"class_means must have at least 2 rows (classes), got {num_classes}")
    if dims is None:
        return num_classes - 1 if num_classes <= 4 else 2
    if not 1 <= dims <= num_classes - 1:
        raise ValueError(f"dims must be in 1..{num_classes - 1} for {num_classes} classes, got {dims}")
    return dims


def _fourier_basis(num_classes: int, dims: int) -> torch.Tensor:
    angle = 2 * math.pi * torch.arange(num_classes, dtype=torch.float64) / num_classes
    columns = []
    for frequency in range(1, num_classes // 2 + 1):
        if 2 * frequency == num_classes:
            columns.append(torch.cos(frequency * angle) / math.sqrt(num_classes))
        else:
            columns += [wave(frequency * angle) * math.sqrt(2 / num_classes) for wave in (torch.cos, torch.sin)]
    return torch.stack(columns[:dims], dim=1)


def _geometry_figure(parts, dim, targets, class_names, title, limit) -> go.Figure:
    count = len(parts["class means"])
    names, colors = check_names(class_names, count), class_colors(count)
    vertices = simplex_vertices(count)
    if vertices.shape[1] == 1:
        vertices = torch.cat((vertices, torch.zeros_like(vertices)), dim=1)
    space = vertices.shape[1] == 3
    trace = go.Scatter3d if space else go.Scatter
    dot_colors = [] if targets is None else [colors[int(t)] for t in targets]
    small, large = (2, 6) if space else (5, 11)
    rim = dict(color="white", width=1.5)
    looks = {
        "nearest ETF": dict(mode="lines", line=dict(color=OUTLINE if space else "#D2D2D2", width=4)),
        "spokes": dict(mode="lines", line=dict(color=MUTED, width=3 if space else 1.5)),
        "class means": dict(mode="markers", marker=dict(size=large, color=colors, line=rim), text=names),
        "features": dict(mode="markers", marker=dict(size=small, color=dot_colors, opacity=0.45, line_width=0)),
        "weights": dict(mode="markers", marker=_hollow(space, colors)),
    }
    drawn = {"nearest ETF": _outline(vertices), **parts}
    fig = go.Figure()
    for name, look in looks.items():
        hover = dict(hovertemplate="%{text}<extra></extra>") if name == "class means" else dict(hoverinfo="skip")
        fig.add_trace(trace(**xyz(drawn[name]), name=name, legendgroup=name, showlegend=False, **hover, **look))
    _add_labels(fig, trace, vertices, names, colors)
    grey = {"color": MUTED, "line_color": MUTED}
    for name in ("class means", "nearest ETF", "weights", "features"):
        if len(drawn[name]):
            nowhere = xyz(np.full((1, 3 if space else 2), np.nan))
            key = trace(**nowhere, name=name, legendgroup=name, meta="legend", **looks[name])
            if key.mode == "markers":
                key.marker.update(grey if name != "features" else {"color": MUTED})
            fig.add_trace(key)
    finish(fig, title, _geometry_subtitle(count, dim > count - 1), height=480)
    _set_view(fig, count, limit)
    return fig


def _outline(vertices: torch.Tensor) -> np.ndarray:
    count = len(vertices)
    polygon = [(c, (c + 1) % count) for c in range(count)]
    pairs = list(itertools.combinations(range(count), 2)) if count <= 4 else polygon
    return segments(vertices[torch.tensor(pairs)]).numpy()


def _hollow(space: bool, colors: list[str]) -> dict:
    return dict(symbol="diamond-open", size=9 if space else 17, color=colors, line=dict(color=colors, width=2))


def _add_labels(fig: go.Figure, trace: type, vertices: torch.Tensor, names: list[str], colors: list[str]) -> None:
    side = []
    for x, y in vertices[:, :2].tolist():
        vertical = "middle" if abs(y) < 0.5 else "top" if y > 0 else "bottom"
        side.append(f"{vertical} {'center' if abs(x) < 0.3 else 'right' if x > 0 else 'left'}")
    where = 1.3 * vertices.numpy()
    if trace is go.Scatter3d:
        side = ["top center" if z > 0 else "bottom center" for z in vertices[:, 2].tolist()]
    elif len(names) == 2:
        where, side = vertices.numpy() + np.array([0, 0.5]), ["middle center"] * 2
    fig.add_trace(
        trace(
            **xyz(where), name="labels", mode="text", text=[f"<b>{n}</b>" for n in names], textposition=side,
            textfont=dict(size=14, color=colors), hoverinfo="skip", showlegend=False,
        )
    )


def _geometry_subtitle(count: int, projected: bool) -> str:
    if count == 2:
        return "the line through the two means, exact; features spread vertically only to be seen"
    if count <= 4:
        what = "plane" if count == 3 else "space"
        return f"the {what} of the class means, exact up to scale" + "; features projected onto it" * projected
    return f"projection from {count - 1} to 2 dimensions; the ETF is a regular {count}-gon"


def _view_limit(parts: Sequence[dict[str, np.ndarray]]) -> float:
    reach = [np.abs(part[name]).max(initial=0) for part in parts for name in ("class means", "weights")]
    spread = [np.quantile(np.abs(part["features"]).max(1), 0.99) for part in parts[-1:] if len(part["features"])]
    return float(np.clip(1.08 * max(reach + spread), 1.5, 2.2))


def _set_view(fig: go.Figure, count: int, limit: float) -> None:
    span = [-limit, limit]
    if count == 4:
        axis = dict(range=[-0.8 * limit, 0.8 * limit])
        camera = dict(eye=dict(x=1.4, y=0.51, z=0.32))
        fig.update_layout(scene=dict(xaxis=axis, yaxis=axis, zaxis=axis, camera=camera), margin=dict(l=8, r=8, b=8))
        return
    fig.update_xaxes(range=span, visible=False)
    if count == 2:
        fig.update_yaxes(range=[-1, 1], visible=False)
        fig.update_layout(height=320)
        return
    fig.update_yaxes(range=span, visible=False, scaleanchor="x")
