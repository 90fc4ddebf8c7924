"""Clouds that follow the densification loss: their trees and death times at chosen steps, with a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from ncbook.persistence import h0_death_times, spanning_tree
from ncbook.plots.player import animate
from ncbook.plots.style import INK, MUTED, OUTLINE, finish, matrix, segments, xyz


def descents(paths: Mapping[float, torch.Tensor], shown: Sequence[int], *, title: str,
             subtitle: str | None = None) -> go.Figure:
    """A panel for each beta: a cloud at the steps that are shown, with its tree; below it its sorted death times.

    paths: beta -> (steps, n, 2), the same steps and n for all; hollow marks stay where a cloud began. Traces that move,
    for each beta: "tree <beta>", "points <beta>", "deaths <beta>". Raises ValueError for no paths or other shapes.
    """
    if not paths or len({tuple(path.shape) for path in paths.values()}) > 1:
        raise ValueError(f"paths must hold paths of one shape, got {[tuple(path.shape) for path in paths.values()]}")
    clouds = {beta: [matrix("paths", path[k], columns=2, min_rows=2) for k in shown] for beta, path in paths.items()}
    reach = 1.05 * max(float(cloud.abs().max()) for of_beta in clouds.values() for cloud in of_beta)
    top = 1.15 * max(*paths, *(float(h0_death_times(of_beta[-1]).max()) for of_beta in clouds.values()))
    fig = make_subplots(2, len(paths), row_heights=[0.7, 0.3], vertical_spacing=0.08, horizontal_spacing=0.05,
                        subplot_titles=[f"β = {beta}" for beta in paths], shared_yaxes=True)
    changes: list[dict] = [{} for _ in shown]
    for col, (beta, of_beta) in enumerate(clouds.items(), start=1):
        above, below, ranks = dict(row=1, col=col), dict(row=2, col=col), np.arange(1, len(of_beta[0]))
        hollow = dict(size=6, color="rgba(0,0,0,0)", line=dict(color=OUTLINE, width=1))
        fig.add_scatter(**xyz(paths[beta][0]), name="start", mode="markers", marker=hollow, hoverinfo="skip", **above)
        fig.add_scatter(name=f"tree {beta}", mode="lines", line=dict(color="#8F8F8F", width=1.5), hoverinfo="skip",
                        **above)
        fig.add_scatter(name=f"points {beta}", mode="markers", marker=dict(size=7, color=INK), **above)
        fig.add_scatter(x=ranks[[0, -1]], y=[beta, beta], mode="lines", hoverinfo="skip",
                        line=dict(color=INK, width=1.5, dash="dash"), **below)
        fig.add_scatter(x=ranks, name=f"deaths {beta}", mode="markers", marker=dict(size=5, color=MUTED), **below)
        plain = dict(range=[-reach, reach], showticklabels=False, ticks="", showgrid=False)
        fig.update_xaxes(plain, **above).update_yaxes(plain, scaleanchor=f"x{'' if col == 1 else col}", **above)
        for change, cloud in zip(changes, of_beta, strict=True):
            change |= {f"tree {beta}": xyz(segments(cloud[spanning_tree(cloud)])), f"points {beta}": xyz(cloud),
                       f"deaths {beta}": dict(y=h0_death_times(cloud).float().numpy())}
    fig.update_xaxes(title="rank", row=2).update_yaxes(range=[0, top], row=2)
    fig.update_yaxes(title="death time", row=2, col=1)
    finish(fig, title, subtitle, width=720, height=470, showlegend=False)
    return animate(fig, [str(k) for k in shown], changes, prefix="step ", below=48)
