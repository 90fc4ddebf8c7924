"""Small explorers: a few sliders over one figure, without training."""

from __future__ import annotations

import math
from collections.abc import Callable

import ipywidgets as widgets
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from ncbook import plots
from ncbook.etf import PROXIMAL, nearest_simplex_etf, simplex_etf, simplex_etf_distance
from ncbook.live.controls import Box
from ncbook.live.plot import Plot
from ncbook.persistence import h0_death_times


def simplex_scrubber() -> Box:
    """Sliders for classes, dimension, rotation and noise of a simplex ETF; angles, norms and distance follow."""

    def draw(classes: int, dim: int, rotation: float, noise: float) -> go.Figure:
        dim = max(dim, classes - 1)
        generator = torch.Generator().manual_seed(0)
        turn, jitter = (torch.randn(8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
        turn = turn[:dim, :dim] - turn[:dim, :dim].T
        rows = simplex_etf(classes, dim, dtype=torch.float64) @ torch.linalg.matrix_exp(rotation * turn / 2)
        rows = rows + noise * jitter[:classes, :dim]
        return _scrubbed(rows)

    return _explorer(
        draw,
        classes=widgets.IntSlider(4, min=2, max=8, description="classes"),
        dim=widgets.IntSlider(3, min=1, max=8, description="dimension"),
        rotation=widgets.FloatSlider(0, min=0, max=2, step=0.02, description="rotation"),
        noise=widgets.FloatSlider(0, min=0, max=0.6, step=0.02, description="noise"),
    )


def _scrubbed(rows: torch.Tensor) -> go.Figure:
    classes, dim = rows.shape
    fig = make_subplots(1, 2, specs=[[{"type": "scene"}, {}]], column_widths=[0.55, 0.45])
    at = torch.nn.functional.pad(rows, (0, max(0, 3 - dim)))[:, :3].numpy()
    for name, color, (x, y, z) in zip(map(str, range(classes)), plots.class_colors(classes), at):
        fig.add_scatter3d(x=[0, x], y=[0, y], z=[0, z], mode="lines+markers+text", text=["", name], showlegend=False,
                          line=dict(color=color, width=6), marker=dict(color=color, size=[0, 7]), row=1, col=1)
    heat = plots.cosine_heatmap(rows)
    fig.add_trace(heat.data[0], row=1, col=2)
    axis = dict(range=[-1.2, 1.2])
    fig.update_layout(template=plots.TEMPLATE, width=840, height=400,
                      scene=dict(xaxis=axis, yaxis=axis, zaxis=axis, camera_eye=dict(x=0.9, y=0.9, z=0.6)))
    fig.update_yaxes(autorange="reversed")
    rows = rows - rows.mean(0)
    norms = torch.linalg.vector_norm(rows, dim=1)
    angles = torch.rad2deg(torch.acos(plots.centred_cosines(rows)[~torch.eye(classes, dtype=torch.bool)]))
    ideal = math.degrees(math.acos(-1 / (classes - 1)))
    fig.update_layout(title=dict(
        text=f"{classes} classes in {dim} dimensions" + (", the first three shown" if dim > 3 else ""),
        subtitle_text=f"angles {angles.min():.1f}° to {angles.max():.1f}° (ETF: {ideal:.1f}°), norms {norms.min():.3f} "
                      f"to {norms.max():.3f}, distance to the nearest ETF {float(simplex_etf_distance(rows)):.4f}"))
    return fig


def nearest_etf_explorer() -> Box:
    """Sliders that move one of three class means in the plane; the nearest simplex ETF follows, held back by a pull."""
    start = torch.tensor([[1.0, 0.2], [-0.3, 0.8], [-0.6, -0.7]], dtype=torch.float64)
    previous = nearest_simplex_etf(start)

    def draw(moved: int, angle: float, radius: float, proximal: float) -> go.Figure:
        means = start.clone()
        means[moved] = radius * torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        etf = nearest_simplex_etf(means, previous=previous, proximal=proximal)
        fig = go.Figure()
        for name, rows, look in (("previous ETF", previous, dict(color="#999999", dash="dot", width=2)),
                                 ("nearest ETF", etf, dict(color="#222222", width=2))):
            x, y = torch.cat((rows, rows[:1])).T.numpy()
            fig.add_scatter(x=x, y=y, mode="lines", name=name, line=look)
        for name, color, mean, vertex in zip("012", plots.CLASS_COLORS, (means - means.mean(0)).numpy(), etf.numpy()):
            fig.add_scatter(x=[vertex[0], mean[0]], y=[vertex[1], mean[1]], mode="lines+markers+text",
                            name=f"class {name}", text=["", name], textposition="top center",
                            line=dict(color=color, width=1),
                            marker=dict(color=color, size=[13, 13], symbol=["diamond-open", "circle"]))
        fig.update_layout(template=plots.TEMPLATE, width=640, height=480, title=dict(
            text="Class means (dots, centred) and the ETF that follows them",
            subtitle_text=f"distance to the nearest ETF {float(simplex_etf_distance(means)):.4f}"))
        fig.update_xaxes(range=[-2.1, 2.1])
        fig.update_yaxes(range=[-1.8, 1.8], scaleanchor="x")
        return fig

    return _explorer(
        draw,
        moved=widgets.Dropdown(options=[(f"class {c}", c) for c in range(3)], description="move"),
        angle=widgets.FloatSlider(11, min=-180, max=180, step=1, description="angle (°)"),
        radius=widgets.FloatSlider(1, min=0, max=2, step=0.02, description="radius"),
        proximal=widgets.FloatSlider(PROXIMAL, min=0, max=4, step=0.05, description="pull ρ"),
    )


def radius_explorer() -> Box:
    """Sliders for the radius of growing balls, β and the norm, over a cloud, its spanning tree and its H0 barcode."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 0.0], [2.2, 0.6], [0.8, 2.0]], dtype=torch.float64).repeat_interleave(5, 0)
    cloud = centres + 0.45 * torch.randn(15, 2, dtype=torch.float64, generator=generator)

    def draw(radius: float, beta: float, p: float) -> go.Figure:
        tree = plots.spanning_tree_figure(cloud, p, radius=radius, beta=beta, arrows=True)
        deaths = h0_death_times(cloud, p)
        fig = make_subplots(1, 2, column_widths=[0.58, 0.42], horizontal_spacing=0.1)
        for col, part in ((1, tree), (2, plots.barcode(deaths, beta))):
            for trace in part.data:
                fig.add_trace(trace.update(showlegend=False), row=1, col=col)
        fig.add_scatter(x=[radius] * 2, y=[0.5, len(deaths) + 0.5], mode="lines", showlegend=False,
                        line=dict(color="#56B4E9", width=3), row=1, col=2)
        parts = 1 + int((deaths > radius).sum())
        fig.update_layout(template=plots.TEMPLATE, width=840, height=440, barmode="overlay", bargap=0.35, title=dict(
            text=f"Balls of radius {radius / 2:.2f}: {parts} component{'s' * (parts > 1)}",
            subtitle_text="blue line: the distance at which balls touch; dashed: β; arrows: where the loss pushes"))
        fig.update_xaxes(range=[-1.6, 4], row=1, col=1)
        fig.update_yaxes(range=[-1.6, 3.6], scaleanchor="x", row=1, col=1)
        fig.update_xaxes(title="distance", range=[0, 3.1], row=1, col=2)
        return fig

    return _explorer(
        draw,
        radius=widgets.FloatSlider(0.5, min=0, max=3, step=0.02, description="distance"),
        beta=widgets.FloatSlider(0.8, min=0, max=3, step=0.02, description="β"),
        p=widgets.Dropdown(options=[("L1", 1), ("L2", 2), ("L∞", math.inf)], value=2, description="norm"),
    )


def _explorer(draw: Callable[..., go.Figure], **controls: widgets.Widget) -> Box:
    def values() -> dict:
        return {name: control.value for name, control in controls.items()}

    plot = Plot(draw(**values()))
    for control in controls.values():
        control.observe(lambda _: plot.show(draw(**values())), names="value")
    rows = [widgets.HBox(list(controls.values())[k : k + 2]) for k in range(0, len(controls), 2)]
    return Box([*rows, plot])
