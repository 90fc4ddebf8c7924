"""Methods that were run on the same splits: every split as a line, differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ncbook.plots.style import INK, MUTED, OUTLINE, finish, method_style


def slope_chart(values: Mapping[str, Sequence[float]], what: str, *, title: str,
                beside: Mapping[str, tuple[float, float]] | None = None) -> go.Figure:
    """A line a split over the methods, so that one sees on how many splits a method is ahead, and the means.

    values: method -> a number a split, in the same order for each; what: the axis; beside: method -> mean and standard
    deviation from elsewhere, drawn in grey. Raises ValueError for fewer than two methods or lists of unequal lengths.
    """
    table = [np.asarray(list(numbers), dtype=float) for numbers in values.values()]
    if len(table) < 2 or len({len(numbers) for numbers in table}) > 1:
        raise ValueError(f"values must hold two methods or more with as many numbers each, got {[*map(len, table)]}")
    fig, at = go.Figure(), np.arange(len(table))
    for split, line in enumerate(np.array(table).T):
        fig.add_scatter(x=at, y=line, mode="lines+markers", line=dict(color=OUTLINE, width=1.2), name=f"split {split}",
                        marker=dict(size=5, color=OUTLINE), hovertemplate=f"split {split}: %{{y:.2f}}<extra></extra>")
    for index, (name, numbers) in enumerate(zip(values, table)):
        color, _, symbol = method_style(name, index)
        fig.add_scatter(x=[index], y=[numbers.mean()], mode="markers+text", text=[f"{numbers.mean():.2f}"], name=name,
                        textposition="middle left", textfont=dict(color=INK, size=14),
                        marker=dict(symbol=symbol, size=14, color=color, line=dict(color="white", width=1)))
    for name, (mean, std) in (beside or {}).items():
        fig.add_scatter(x=[[*values].index(name) + 0.13], y=[mean], mode="markers", name=f"{name}, from elsewhere",
                        error_y=dict(type="data", array=[std], color=MUTED, thickness=2, width=6),
                        marker=dict(symbol="line-ew-open", size=14, color=MUTED), hovertemplate="%{y:.2f}")
    subtitle = "a grey line a split, large marks at the means" + "; bars: published mean ± std" * bool(beside)
    finish(fig, title, subtitle, width=660, height=420, showlegend=False)
    fig.update_xaxes(tickvals=at, ticktext=list(values), range=[-0.45, len(table) - 0.6], showgrid=False)
    return fig.update_yaxes(title=what)


def interval_chart(intervals: Mapping[str, tuple[float, float, float]], what: str, *, title: str,
                   subtitle: str) -> go.Figure:
    """Mean differences with their intervals, one below the other, and a line at 0.

    intervals: "method − other" or "method" -> mean, low and high ends; the colour is that of the method named first.
    Raises ValueError for none.
    """
    if not intervals:
        raise ValueError("intervals must hold at least one difference")
    fig = go.Figure()
    for index, (name, (mean, low, high)) in enumerate(reversed(list(intervals.items()))):
        color, _, symbol = method_style(name.split(" − ")[0].split(",")[0], index)
        fig.add_scatter(x=[mean], y=[name], mode="markers", marker=dict(color=color, symbol=symbol, size=12), name=name,
                        error_x=dict(type="data", symmetric=False, array=[high - mean], arrayminus=[mean - low],
                                     color=color, thickness=2, width=5))
    fig.add_vline(x=0, line=dict(color=MUTED, width=1, dash="dot"))
    finish(fig, title, subtitle, width=660, height=150 + 44 * len(intervals), showlegend=False)
    return fig.update_xaxes(title=what)
