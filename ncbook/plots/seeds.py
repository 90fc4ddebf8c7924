"""Methods with every seed in sight: curves over anything, or a mark for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ncbook.plots.style import METHOD_STYLES, MUTED, finish, method_style


def seed_curves(x: Sequence[Any], curves: Mapping[str, Sequence[Sequence[float]]], what: str, *, title: str,
                subtitle: str = "", **layout: Any) -> go.Figure:
    """A thin line for each seed and a thick one for their median, method by method.

    x: numbers, or names, at equal distances; curves: method -> seeds -> values, as long as x, in grey where
    `METHOD_STYLES` does not know the name; what: the axis; layout:
    as in `finish`. Traces per method: one per seed
    (with two seeds or more), then "<method>".
    Raises ValueError for no methods, or curves of another length than x.
    """
    values = {name: np.asarray(list(seeds), dtype=float) for name, seeds in curves.items()}
    if not values or any(each.ndim != 2 or each.shape[1] != len(x) for each in values.values()):
        raise ValueError(f"curves must hold methods with a curve of {len(x)} values for each seed")
    fig, several = go.Figure(), any(len(each) > 1 for each in values.values())
    for name, seeds in values.items():
        color, dash, symbol = METHOD_STYLES.get(name, (MUTED, "dashdot", "circle-open"))
        for seed in seeds if len(seeds) > 1 else []:
            fig.add_scatter(x=x, y=seed, mode="lines", line=dict(color=color, width=1), opacity=0.5, legendgroup=name,
                            showlegend=False, hoverinfo="skip")
        fig.add_scatter(x=x, y=np.median(seeds, axis=0), mode="lines+markers", name=name, legendgroup=name,
                        line=dict(color=color, dash=dash, width=3), marker=dict(symbol=symbol, size=8))
    said = [subtitle] * bool(subtitle) + ["thin lines: seeds, thick: median"] * several
    below = dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom")
    sizes: dict[str, Any] = dict(width=460, height=440, legend=below, margin=dict(b=110))
    return finish(fig, title, "; ".join(said), **sizes | layout).update_yaxes(title=what)


def seed_scatter(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], axes: tuple[str, str], *, title: str,
                 subtitle: str, lines: Mapping[str, float] | None = None) -> go.Figure:
    """A mark for each run, method by method, on two log axes.

    runs: method -> the runs' values on the first axis, and on the second; axes: what stands at them; lines: text ->
    where a dotted line crosses the first axis. Raises ValueError for values that are not positive.
    """
    fig = go.Figure()
    for index, (name, (x, y)) in enumerate(runs.items()):
        if not min(*x, *y) > 0:
            raise ValueError(f"runs[{name!r}] must hold positive values for log axes")
        color, _, symbol = method_style(name, index)
        fig.add_scatter(x=list(x), y=list(y), mode="markers", name=name,
                        marker=dict(color=color, symbol=symbol, size=10, opacity=0.8))
    for text, at in (lines or {}).items():
        fig.add_vline(x=at, line=dict(color=MUTED, width=1, dash="dot"))
        fig.add_annotation(x=math.log10(at), y=1, yref="paper", text=text, showarrow=False, yanchor="bottom")
    power = dict(type="log", dtick=1, exponentformat="power")
    return finish(fig, title, subtitle, width=620, height=440, xaxis=dict(title=axes[0], **power),
                  yaxis=dict(title=axes[1], **power), margin=dict(t=120))
