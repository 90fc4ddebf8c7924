"""Plotly figures of the geometry, the curves and the persistence: plain functions that return complete figures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from ncbook.etf import nearest_simplex_etf
from ncbook.persistence import spanning_tree

if TYPE_CHECKING:
    from ncbook.training.snapshot import Snapshot

CLASS_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#8A5A2B", "#332288", "#222222",
)
METHOD_STYLES = {  # colour, line dash, marker
    "standard": ("#4D4D4D", "solid", "circle"),
    "fixed": ("#E69F00", "dash", "square"),
    "nearest": ("#0072B2", "solid", "diamond"),
    "vanilla": ("#8A5A2B", "dot", "circle"),
    "constant": ("#D55E00", "dash", "triangle-up"),
    "delayed": ("#CC79A7", "dashdot", "triangle-down"),
    "sliding": ("#009E73", "solid", "star"),
    "union": ("#332288", "longdash", "hexagon"),
    "union on sphere": ("#882255", "longdashdot", "cross"),
    "too early": ("#999999", "dash", "x"),
    "best": ("#222222", "solid", "pentagon"),
}
METRIC_LABELS = {
    "nc1": "NC1: within-class scatter",
    "nc1_quotient": "NC1: scatter quotient",
    "cdnv": "CDNV",
    "vci": "variability collapse index",
    "nc2_equinorm": "NC2: unequal norms",
    "nc2_equiangular": "NC2: unequal angles",
    "nc2_gram": "NC2: Gram distance",
    "etf_distance": "distance to nearest ETF",
    "nc3": "NC3: weights against means",
    "nc3_gram": "NC3: Gram distance",
    "nc4": "NC4: disagreement",
    "weight_equinorm": "weights: unequal norms",
    "weight_equiangular": "weights: unequal angles",
    "bias_collapse": "bias collapse",
    "numerical_rank": "numerical rank",
    "cosine_margin": "cosine margin",
    "accuracy": "accuracy",
    "loss": "loss",
}
_LINEAR = {"accuracy", "nc4", "numerical_rank", "cosine_margin"}
_APART, _TOGETHER = "#0072B2", "#D55E00"
_INK, _MUTED, _GRID, _OUTLINE = "#222222", "#666666", "#E6E6E6", "#B5B5B5"
_MAX_FRAMES, _MAX_POINTS = 60, 200

_AXIS = dict(
    gridcolor=_GRID, gridwidth=1, linecolor=_OUTLINE, linewidth=1, showline=True, zeroline=False, ticks="outside",
    tickcolor=_OUTLINE, ticklen=4, title=dict(standoff=8), automargin=True,
)
_SCENE_AXIS = dict(
    showbackground=False, showgrid=False, showticklabels=False, zeroline=False, showspikes=False, title=""
)
TEMPLATE = go.layout.Template(
    layout=dict(
        margin=dict(l=64, r=24, t=84, b=56), paper_bgcolor="white", plot_bgcolor="white",
        font=dict(family="Open Sans, Segoe UI, Helvetica, Arial, sans-serif", size=13, color=_INK),
        title=dict(
            x=0, xanchor="left", y=1, yanchor="top", pad=dict(l=16, t=16), font=dict(size=17),
            subtitle=dict(font=dict(size=13, color=_MUTED)),
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
    means = _matrix("class_means", class_means)
    x = _matrix("points", points, columns=means.shape[1])
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
    means = _matrix("class_means", class_means)
    dims = _dims(len(means), None)
    at = simplex_coordinates(means, means)
    parts = {"class means": at.numpy(), "spokes": _segments(torch.stack((torch.zeros_like(at), at), dim=1))}
    parts["features"] = parts["weights"] = np.empty((0, dims))
    if (features is None) != (targets is None):
        raise ValueError("features and targets go together: pass both or neither")
    if features is not None:
        rows = _matrix("features", features, columns=means.shape[1])
        if targets.shape != rows.shape[:1] or targets.min() < 0 or targets.max() >= len(means):
            raise ValueError(
                f"targets must hold one class in 0..{len(means) - 1} per feature, got shape {tuple(targets.shape)} "
                f"for features {tuple(features.shape)}"
            )
        parts["features"] = simplex_coordinates(rows, means).numpy()
    if weight is not None:
        rows = _matrix("weight", weight, columns=means.shape[1])
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
    `simplex_coordinates`. Traces, in order: "nearest ETF", "features", "spokes", "weights", "class means", "labels",
    then an empty trace per legend entry, with `meta` "legend". A part that is not given stays as an empty trace.
    Raises: ValueError for shapes that do not fit together, NaN or inf, coinciding class means.
    """
    parts = geometry_coordinates(class_means, features, targets, weight)
    return _geometry_figure(parts, targets, class_names, title, _view_limit([parts]))


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
    shots = _thin(_snapshots(snapshots), _MAX_FRAMES)
    keep = _thin(range(len(shots[-1].features)), _MAX_POINTS)
    targets = shots[-1].targets[keep]
    parts = [geometry_coordinates(s.class_means, s.features[keep], s.targets[keep], s.weight) for s in shots]
    fig = _geometry_figure(parts[-1], targets, class_names, title, _view_limit(parts))
    trace = type(fig.data[0])
    moving = ("features", "spokes", "weights", "class means")
    indices = [[t.name for t in fig.data].index(name) for name in moving]
    fig.frames = [
        go.Frame(name=str(i), traces=indices, data=[trace(**_xyz(part[name])) for name in moving])
        for i, part in enumerate(parts)
    ]
    _add_player(fig, [shot.epoch for shot in shots], redraw=trace is go.Scatter3d)
    return fig


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
    rows = _matrix("vectors", vectors, min_rows=2)
    rows = rows - rows.mean(0)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if (norms == 0).any():
        where = int((norms == 0).flatten().nonzero()[0])
        raise ValueError(f"vectors has a row, {where}, equal to the mean of its rows: its cosines are undefined")
    count = len(rows)
    cosines = ((rows / norms) @ (rows / norms).T).clamp(-1, 1).fill_diagonal_(float("nan")).numpy()
    ideal = -1 / (count - 1)
    names = _names(class_names, count)
    ticks = [ideal - 0.5, ideal - 0.25, ideal, ideal + 0.25, ideal + 0.5]
    labels = [f"{t:.2f}" if t != ideal else f"<b>{ideal:.3g}</b> ideal" for t in ticks]
    fig = go.Figure(
        go.Heatmap(
            name="cosines", z=cosines, x=names, y=names, colorscale="RdBu", reversescale=True, zmid=ideal,
            zmin=ideal - 0.5, zmax=ideal + 0.5, xgap=1, ygap=1, hoverongaps=False,
            texttemplate="%{z:.2f}" if count <= 10 else None, textfont=dict(size=13 if count <= 6 else 11),
            hovertemplate="%{y}, %{x}: %{z:.4f}<extra></extra>",
            colorbar=dict(tickvals=ticks, ticktext=labels, thickness=14, outlinewidth=0),
        )
    )
    _finish(fig, title, f"white is the simplex ETF's cosine, −1/{count - 1}", width=560, height=500)
    every = dict(tickmode="linear", dtick=1) if count <= 20 else dict(nticks=10)
    fig.update_layout(plot_bgcolor="#E4E4E4")
    fig.update_xaxes(type="category", showgrid=False, constrain="domain", tickcolor="white", showline=False, **every)
    fig.update_yaxes(
        type="category", showgrid=False, autorange="reversed", scaleanchor="x", constrain="domain", tickcolor="white",
        showline=False, **every,
    )
    return fig


def metric_curves(
    runs: Mapping[str, Sequence[Sequence[Snapshot]]],
    keys: Sequence[str],
    *,
    split: str = "train",
    title: str = "Metrics over training",
) -> go.Figure:
    """Small multiples of metrics over epochs: the median over seeds as a line, the range from min to max as a band.

    runs: method name -> one sequence of snapshots per seed, all with the same epochs. keys: keys of
    `Snapshot.train`/`.test`. Every metric but accuracy, NC4, numerical rank and cosine margin gets a log
    axis, where values of 0 or less are drawn at the decade below the panel's smallest positive value.
    Traces per key and method: "<method> range" (with two seeds or more), then "<method>"; their `meta` is the key.
    Raises: ValueError for no runs or keys, an unknown key or split, seeds with different epochs.
    """
    if split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", got {split!r}')
    if not runs or not keys:
        raise ValueError("runs and keys must name at least one method and one metric")
    columns = min(3, len(keys))
    rows = math.ceil(len(keys) / columns)
    fig = make_subplots(
        rows, columns, subplot_titles=[METRIC_LABELS.get(k, k) for k in keys],
        horizontal_spacing=0.27 / columns, vertical_spacing=0.34 / rows if rows > 1 else 0,
    )
    for panel, key in enumerate(keys):
        cell = dict(row=panel // columns + 1, col=panel % columns + 1)
        curves = {method: _seed_values(method, seeds, key, split) for method, seeds in runs.items()}
        use_log = key not in _LINEAR
        floor = _log_floor([values for _, values in curves.values()]) if use_log else -math.inf
        for index, (method, (epochs, values)) in enumerate(curves.items()):
            for trace in _band_and_line(method, index, key, epochs, np.maximum(values, floor)):
                trace.showlegend = panel == 0 and trace.fill != "toself"
                fig.add_trace(trace, **cell)
        fig.update_xaxes(title="epoch" if panel + columns >= len(keys) else None, **cell)
        if use_log:
            _log_axis(fig, np.concatenate([np.maximum(v, floor).ravel() for _, v in curves.values()]), **cell)
    seeds = max(len(s) for s in runs.values())
    band = f"median of {seeds} seeds, band from min to max" if seeds > 1 else "one seed"
    where = "training set" if split == "train" else "test set"
    _finish(fig, title, f"{where}, {band}", width=[520, 720, 860][columns - 1], height=200 + 190 * rows)
    fig.update_annotations(font=dict(size=14))
    fig.update_layout(
        margin=dict(t=104, b=96), legend=dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom")
    )
    return fig


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
    _finish(fig, title, "gap to the cost of the closed form; drawn no lower than float64 can resolve", height=400)
    fig.update_xaxes(title="iteration", rangemode="tozero")
    _log_axis(fig, np.maximum(np.concatenate((cost - optimum, gradient)), floor))
    return fig


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
        fig.add_bar(x=deaths, y=height, name="bars", marker_color=_APART)
    else:
        short = deaths < beta
        for name, mask, color in (("shorter than β", short, _APART), ("longer than β", ~short, _TOGETHER)):
            fig.add_bar(x=np.where(mask, deaths, 0.0), y=height, name=name, marker_color=color)
        fig.add_scatter(x=[beta, beta], y=[0.5, len(deaths) + 0.5], **_beta_line(beta))
    gap = 0.35 if len(deaths) <= 40 else 0.1
    fig.update_traces(orientation="h", marker_line_width=0, selector=dict(type="bar"))
    _finish(fig, title, f"{len(deaths)} finite bars; the bar of the last component never ends", height=400)
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
    _finish(fig, title, f"{len(deaths)} finite H<sub>0</sub> deaths", height=380)
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
    x = _matrix("points", points, columns=2)
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
        **_xyz(_ball_outlines(x, radius, p)), name="balls", mode="lines", fill="toself", hoverinfo="skip",
        fillcolor="rgba(86,180,233,0.18)", line=dict(color="rgba(86,180,233,0.7)", width=1),
    )
    solid = dict(color=_OUTLINE if arrows else "#4D4D4D", width=2.5)
    fig.add_scatter(**_xyz(_segments(ends[merged])), name="edges", mode="lines", line=solid)
    later = dict(color=_OUTLINE, width=1.5, dash="dot")
    fig.add_scatter(**_xyz(_segments(ends[~merged])), name="later edges", mode="lines", line=later)
    short = lengths < (0.0 if beta is None else beta)
    for name, mask, sign, color in (("pushed apart", short, 1, _APART), ("pulled together", ~short, -1, _TOGETHER)):
        chosen = ends[mask & (lengths > 0)] if arrows else ends[:0]
        fig.add_scatter(
            **_xyz(_segments(_arrow_segments(chosen, p, sign * reach))), name=name, mode="lines+markers",
            line=dict(color=color, width=2), hoverinfo="skip", marker=_arrow_heads(2 * len(chosen), color),
        )
    dots = dict(size=9, color=_INK, line=dict(color="white", width=1))
    fig.add_scatter(**_xyz(x.numpy()), name="points", mode="markers", marker=dots)
    for trace in fig.data:
        trace.showlegend = trace.name != "points" and len(trace.x) > 0
    _finish(fig, title, _tree_subtitle(len(x), int(merged.sum()), radius, beta if arrows else None), height=480)
    fig.update_xaxes(title="x<sub>1</sub>")
    fig.update_yaxes(title="x<sub>2</sub>", scaleanchor="x")
    return fig


def death_times_over_epochs(
    snapshots: Iterable[Snapshot], *, title: str = "Death times over training"
) -> go.Figure:
    """Quantiles of the H0 death times over epochs, with the beta of the schedule.

    Snapshots without death times are left out. Traces: "5% to 95%", "25% to 75%", "median", "β".
    Raises: ValueError when no snapshot has death times.
    """
    shots = [s for s in _snapshots(snapshots) if s.deaths is not None]
    if not shots:
        raise ValueError("no snapshot has death times: train with Recipe(clouds=(b, n))")
    epochs = np.array([s.epoch for s in shots])
    quantiles = np.array([np.quantile(_deaths(s.deaths), (0.05, 0.25, 0.5, 0.75, 0.95)) for s in shots]).T
    fig = go.Figure()
    for name, low, high, alpha in (("5% to 95%", 0, 4, 0.16), ("25% to 75%", 1, 3, 0.32)):
        fig.add_scatter(**_band(epochs, quantiles[low], quantiles[high], f"rgba(0,114,178,{alpha})"), name=name)
    fig.add_scatter(x=epochs, y=quantiles[2], name="median", mode="lines", line=dict(color=_APART, width=2.5))
    betas = [s.beta for s in shots]
    fig.add_scatter(x=epochs, y=betas, name="β", mode="lines", line=dict(color=_INK, width=2, dash="dash"))
    _finish(fig, title, "quantiles over the clouds of the last batch", height=400)
    fig.update_xaxes(title="epoch")
    fig.update_yaxes(title="death time", rangemode="tozero")
    return fig


def schedule_curves(
    schedules: Mapping[str, object], epochs: int, *, title: str = "How β and the weight move"
) -> go.Figure:
    """beta(e) and weight(e) of schedules for e = 1..epochs, in two panels.

    schedules: name -> an object with `beta(epoch)` and `weight(epoch)`. Two traces per schedule, both called by its
    name, with `meta` "β" and "weight".
    Raises: ValueError for no schedule or fewer than one epoch.
    """
    if not schedules or epochs < 1:
        raise ValueError(f"schedules and epochs must be at least one, got {len(schedules)} and {epochs}")
    grid = np.linspace(1, epochs, max(2, min(epochs, 200)))
    fig = make_subplots(1, 2, subplot_titles=("scale β(e)", "weight w(e)"), horizontal_spacing=0.13)
    for index, (name, schedule) in enumerate(schedules.items()):
        color, dash, _ = _style(name, index)
        for col, (what, curve) in enumerate((("β", schedule.beta), ("weight", schedule.weight)), start=1):
            fig.add_scatter(
                x=grid, y=[float(curve(float(e))) for e in grid], name=name, legendgroup=name, showlegend=col == 1,
                meta=what, mode="lines", line=dict(color=color, dash=dash, width=2.5), row=1, col=col,
            )
    _finish(fig, title, None, height=360)
    fig.update_annotations(font=dict(size=14))
    fig.update_xaxes(title="epoch e")
    fig.update_yaxes(rangemode="tozero")
    return fig


def seed_summary(values: Mapping[str, Sequence[float]], ylabel: str, *, title: str = "Over seeds") -> go.Figure:
    """Every seed's value as a point, one column per method, with a bar at the median.

    values: method -> one number per seed. Traces per method: "<method>" (points), "<method> median".
    Raises: ValueError for no method, or a method without values or with NaN or inf.
    """
    if not values:
        raise ValueError("values must hold at least one method")
    fig = go.Figure()
    for index, (name, numbers) in enumerate(values.items()):
        y = np.asarray(numbers, dtype=float)
        if y.ndim != 1 or not len(y) or not np.isfinite(y).all():
            raise ValueError(f"values[{name!r}] must hold at least one finite number per seed, got {numbers!r}")
        color, _, symbol = _style(name, index)
        spread = 0.16 * np.linspace(-1, 1, len(y)) if len(y) > 1 else np.zeros(1)
        marker = dict(symbol=symbol, size=11, color=color, opacity=0.75, line=dict(color="white", width=1))
        fig.add_scatter(x=index + spread, y=y, name=name, mode="markers", marker=marker)
        median = float(np.median(y))
        fig.add_scatter(
            x=[index - 0.3, index + 0.3], y=[median, median], name=f"{name} median", mode="lines",
            line=dict(color=color, width=3), hovertemplate=f"median {median:.4g}<extra></extra>",
        )
    seeds = max(len(v) for v in values.values())
    width = max(460, 140 + 110 * len(values))
    _finish(fig, title, f"a point for each of {seeds} seeds, a bar at the median", width=width, height=400)
    fig.update_layout(showlegend=False)
    fig.update_xaxes(
        tickvals=list(range(len(values))), ticktext=list(values), range=[-0.6, len(values) - 0.4], showgrid=False
    )
    fig.update_yaxes(title=ylabel)
    return fig


def _finish(fig: go.Figure, title: str, subtitle: str | None, width: int = 760, height: int = 440) -> None:
    fig.update_layout(
        template=TEMPLATE, title=dict(text=title, subtitle=dict(text=subtitle)), width=width, height=height
    )


def _log_axis(fig: go.Figure, values: np.ndarray, **cell: int) -> None:
    positive = values[(values > 0) & np.isfinite(values)]
    decades = math.log10(positive.max() / positive.min()) if len(positive) else 0.0
    ticks = dict(dtick=math.ceil(decades / 5), exponentformat="e") if decades > 2 else dict(nticks=4, tickformat="~g")
    fig.update_yaxes(type="log", **ticks, **cell)


def _matrix(name: str, value: torch.Tensor, *, columns: int | None = None, min_rows: int = 1) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if value.ndim != 2 or len(value) < min_rows or columns not in (None, value.shape[1]):
        wanted = f"at least {min_rows} rows and {'any number of' if columns is None else columns} columns"
        raise ValueError(f"{name} must have {wanted}, got shape {tuple(value.shape)}")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or inf: check what produced it")
    return value.detach().cpu().double()


def _deaths(death_times: torch.Tensor) -> np.ndarray:
    deaths = torch.as_tensor(death_times).detach().cpu().double().flatten().numpy()
    if not len(deaths) or not np.isfinite(deaths).all() or deaths.min() < 0:
        raise ValueError("death_times must hold at least one number, all finite and at least 0")
    return deaths


def _snapshots(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    shots = list(snapshots)
    if not shots:
        raise ValueError("snapshots is empty: pass what train(recipe) yields")
    return shots


def _thin(items: Sequence, most: int) -> list:
    picked = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in picked]


def _names(class_names: Sequence[str] | None, count: int) -> list[str]:
    if class_names is None:
        return [str(c) for c in range(count)]
    if len(class_names) != count:
        raise ValueError(f"class_names must hold {count} names, one per class, got {len(class_names)}")
    return [str(name) for name in class_names]


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


def _geometry_figure(parts, targets, class_names, title, limit) -> go.Figure:
    count = len(parts["class means"])
    names, colors = _names(class_names, count), class_colors(count)
    vertices = simplex_vertices(count)
    if vertices.shape[1] == 1:
        vertices = torch.cat((vertices, torch.zeros_like(vertices)), dim=1)
    space = vertices.shape[1] == 3
    trace = go.Scatter3d if space else go.Scatter
    dot_colors = [] if targets is None else [colors[int(t)] for t in targets]
    small, large = (2, 6) if space else (5, 14)
    rim = dict(color="white", width=1.5)
    looks = {
        "nearest ETF": dict(mode="lines", line=dict(color=_OUTLINE if space else "#D2D2D2", width=4)),
        "features": dict(mode="markers", marker=dict(size=small, color=dot_colors, opacity=0.45, line_width=0)),
        "spokes": dict(mode="lines", line=dict(color=_MUTED, width=3 if space else 1.5)),
        "weights": dict(mode="markers", marker=_hollow(space, colors)),
        "class means": dict(mode="markers", marker=dict(size=large, color=colors, line=rim), text=names),
    }
    drawn = {"nearest ETF": _outline(vertices), **parts}
    fig = go.Figure()
    for name, look in looks.items():
        hover = dict(hovertemplate="%{text}<extra></extra>") if name == "class means" else dict(hoverinfo="skip")
        fig.add_trace(trace(**_xyz(drawn[name]), name=name, legendgroup=name, showlegend=False, **hover, **look))
    _add_labels(fig, trace, vertices, names, colors)
    grey = {"color": _MUTED, "line_color": _MUTED}
    for name in ("class means", "nearest ETF", "weights", "features"):
        if len(drawn[name]):
            nowhere = _xyz(np.full((1, 3 if space else 2), np.nan))
            key = trace(**nowhere, name=name, legendgroup=name, meta="legend", **looks[name])
            if key.mode == "markers":
                key.marker.update(grey if name != "features" else {"color": _MUTED})
            fig.add_trace(key)
    _finish(fig, title, _geometry_subtitle(count), height=480)
    _set_view(fig, count, limit)
    return fig


def _outline(vertices: torch.Tensor) -> np.ndarray:
    count = len(vertices)
    polygon = [(c, (c + 1) % count) for c in range(count)]
    pairs = list(itertools.combinations(range(count), 2)) if count <= 4 else polygon
    return _segments(vertices[torch.tensor(pairs)])


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
        where, side = vertices.numpy() + np.array([0, 0.5]), "middle center"
    fig.add_trace(
        trace(
            **_xyz(where), name="labels", mode="text", text=[f"<b>{n}</b>" for n in names], textposition=side,
            textfont=dict(size=14, color=colors), hoverinfo="skip", showlegend=False,
        )
    )


def _geometry_subtitle(count: int) -> str:
    if count == 2:
        return "the line through the two means, exact; features spread vertically only to be seen"
    if count <= 4:
        what = "plane" if count == 3 else "space"
        return f"the {what} of the class means, exact up to scale; features projected onto it"
    return f"projection from {count - 1} to 2 dimensions in which the ETF is a regular {count}-gon"


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
    fig.update_xaxes(title="simplex axis 1 (1 = a vertex's length)", range=span, zeroline=True, zerolinecolor=_GRID)
    if count == 2:
        fig.update_yaxes(range=[-1, 1], showticklabels=False, ticks="", showgrid=False)
        fig.update_layout(height=320)
        return
    fig.update_yaxes(title="simplex axis 2", range=span, scaleanchor="x", zeroline=True, zerolinecolor=_GRID)


def _add_player(fig: go.Figure, epochs: Sequence[float], redraw: bool) -> None:
    def options(milliseconds: int) -> dict:
        return dict(
            mode="immediate", fromcurrent=True, frame=dict(duration=milliseconds, redraw=redraw),
            transition=dict(duration=0 if redraw else milliseconds // 2, easing="linear"),
        )

    stops = [dict(label=f"{e:g}", method="animate", args=[[str(i)], options(0)]) for i, e in enumerate(epochs)]
    buttons = [
        dict(label="▶ Play", method="animate", args=[None, options(140)]),
        dict(label="❚❚ Pause", method="animate", args=[[None], options(0)]),
    ]
    fig.update_layout(
        height=fig.layout.height + 80,
        margin=dict(b=140 if not redraw else 90),
        sliders=[
            dict(
                steps=stops, active=len(stops) - 1, x=0.32, len=0.68, xanchor="left", y=0, yanchor="top",
                pad=dict(t=60 if not redraw else 10), currentvalue=dict(prefix="epoch ", font=dict(size=14)),
            )
        ],
        updatemenus=[
            dict(
                type="buttons", direction="left", buttons=buttons, x=0, xanchor="left", y=0, yanchor="top",
                pad=dict(t=76 if not redraw else 26), showactive=False,
            )
        ],
    )


def _seed_values(method: str, seeds: Sequence[Sequence[Snapshot]], key: str, split: str):
    if not seeds or not all(len(run) for run in seeds):
        raise ValueError(f"runs[{method!r}] must hold at least one seed with at least one snapshot")
    epochs = [[shot.epoch for shot in run] for run in seeds]
    if any(e != epochs[0] for e in epochs):
        raise ValueError(f"runs[{method!r}]: all seeds must have snapshots at the same epochs")
    for shot in itertools.chain(*seeds):
        if key not in getattr(shot, split):
            raise ValueError(f"{key!r} is not in Snapshot.{split}, which has {sorted(getattr(shot, split))}")
    return np.array(epochs[0]), np.array([[getattr(shot, split)[key] for shot in run] for run in seeds], dtype=float)


def _log_floor(values: Iterable[np.ndarray]) -> float:
    numbers = np.concatenate([v.ravel() for v in values])
    if (numbers > 0).all():
        return -math.inf
    positive = numbers[(numbers > 0) & np.isfinite(numbers)]
    return 10.0 ** (math.ceil(math.log10(positive.min())) - 1) if len(positive) else 1e-16


def _band_and_line(method: str, index: int, key: str, epochs: np.ndarray, values: np.ndarray) -> list[go.Scatter]:
    color, dash, _ = _style(method, index)
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    shared = dict(legendgroup=method, meta=key)
    traces = []
    if len(values) > 1:
        fill = f"rgba({red},{green},{blue},0.18)"
        traces.append(go.Scatter(**_band(epochs, values.min(0), values.max(0), fill), name=f"{method} range", **shared))
    line = dict(color=color, dash=dash, width=2)
    median = np.median(values, axis=0)
    return [*traces, go.Scatter(x=epochs, y=median, name=method, mode="lines", line=line, **shared)]


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> dict:
    finite = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[finite], low[finite], high[finite]
    return dict(
        x=np.concatenate((x, x[::-1])), y=np.concatenate((high, low[::-1])), mode="lines", fill="toself",
        fillcolor=color, line=dict(width=0), hoverinfo="skip",
    )


def _style(name: str, index: int) -> tuple[str, str, str]:
    spare = ("solid", "dash", "dot", "dashdot")
    return METHOD_STYLES.get(name, (CLASS_COLORS[index % len(CLASS_COLORS)], spare[index % len(spare)], "circle"))


def _beta_line(beta: float) -> dict:
    return dict(name="β", mode="lines", line=dict(color=_INK, width=2, dash="dash"), hovertemplate=f"β = {beta:.4g}")


def _xyz(coordinates: np.ndarray) -> dict[str, np.ndarray]:
    return {axis: column for axis, column in zip("xyz", np.asarray(coordinates, dtype=np.float32).T)}


def _segments(ends: torch.Tensor) -> np.ndarray:
    """Line segments (m, 2, k) as one polyline (3m, k) with NaN gaps."""
    gap = torch.full_like(ends[:, :1], float("nan"))
    return torch.cat((ends, gap), dim=1).flatten(0, 1).numpy()


def _ball_outlines(points: torch.Tensor, radius: float | None, p: float) -> np.ndarray:
    angle = torch.linspace(0, 2 * math.pi, 49, dtype=torch.float64)
    unit = torch.stack((torch.cos(angle), torch.sin(angle)), dim=1)
    unit = unit / torch.linalg.vector_norm(unit, ord=p, dim=1, keepdim=True)
    rings = points[:, None] + (radius or 0.0) / 2 * unit
    gap = torch.full_like(rings[:, :1], float("nan"))
    return torch.cat((rings, gap), dim=1).flatten(0, 1).numpy() if radius else np.empty((0, 2))


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
