"""Methods that were run on the same splits: every split as a line, differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ncbook.plots.style import INK, MUTED, OUTLINE, band, finish, method_style


def slope_chart(values: Mapping[str, Sequence[float]], what: str, *, title: str,
                beside: Mapping[str, tuple[float, float]] | None = None) -> go.Figure:
    """A line per split over the methods, so that one sees on how many splits a method is ahead, and the means.

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
    subtitle = "a grey line per split, large marks at the means" + "; bars: published mean ± std" * bool(beside)
    finish(fig, title, subtitle, width=660, height=420, showlegend=False)
    names = [name.replace(", ", ",<br>") for name in values]
    fig.update_xaxes(tickvals=at, ticktext=names, range=[-0.65, len(table) - 0.6], showgrid=False)
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


def band_panels(x: Sequence[float], curves: Mapping[str, Sequence[Sequence[float]]], what: str, *, title: str,
                subtitle: str, beside: str | None = None, columns: int = 4, floor: float | None = None) -> go.Figure:
    """A panel a method, all on one axis: its curve over x with its band, and one method's curve in grey in each.

    curves: method -> curve, low and high end of the band, each as long as x; beside: the method of the grey curve,
    which gets no panel of its own; floor: where the axis begins. Raises ValueError for a `beside` not in curves.
    """
    if beside is not None and beside not in curves:
        raise ValueError(f"beside must be one of {', '.join(map(repr, curves))}, got {beside!r}")
    shown = [name for name in curves if name != beside]
    rows = -(-len(shown) // columns)
    at_x = np.asarray(x)
    fig = make_subplots(rows, columns, shared_xaxes="all", shared_yaxes="all", subplot_titles=shown,
                        horizontal_spacing=0.03, vertical_spacing=0.12)
    for index, name in enumerate(shown):
        at = dict(row=1 + index // columns, col=1 + index % columns)
        color, _, _ = method_style(name, index)
        curve, low, high = (np.asarray(values, dtype=float) for values in curves[name])
        fig.add_scatter(**band(at_x, low, high, color), name=f"{name}, band", **at)
        if beside is not None:
            grey = dict(color=MUTED, dash="dot")
            fig.add_scatter(x=at_x, y=curves[beside][0], mode="lines", name=beside, line=grey, **at)
        fig.add_scatter(x=at_x, y=curve, mode="lines", line=dict(color=color, width=2.5), name=name, **at)
    finish(fig, title, subtitle, width=720, height=120 + 150 * rows, showlegend=False)
    top = max(np.max(curve[0]) for curve in curves.values())
    if floor is not None:
        fig.update_yaxes(range=[floor, top + 0.05 * (top - floor)])
    return fig.update_yaxes(title=what, col=1)


def against_accuracy(accuracy: Mapping[str, float], measures: Mapping[str, Mapping[str, float]], *, title: str,
                     log: Sequence[str] = ()) -> go.Figure:
    """A panel a measure: accuracy of each method against it, with Spearman's rank correlation in the panel's title.

    accuracy: method -> per cent; measures: name -> method -> number; log: names of measures on a log axis.
    """
    from scipy import stats

    rho = {name: stats.spearmanr([values[method] for method in accuracy], list(accuracy.values())).statistic
           for name, values in measures.items()}
    rows = -(-len(measures) // 3)
    fig = make_subplots(rows, 3, shared_yaxes="all", horizontal_spacing=0.05, vertical_spacing=0.3 / rows,
                        subplot_titles=[f"{name}<br>rank correlation {r:+.2f}" for name, r in rho.items()])
    for panel, (name, values) in enumerate(measures.items()):
        at = dict(row=1 + panel // 3, col=1 + panel % 3)
        for index, method in enumerate(accuracy):
            color, _, symbol = method_style(method, index)
            fig.add_scatter(x=[values[method]], y=[accuracy[method]], mode="markers", name=method, legendgroup=method,
                            marker=dict(color=color, symbol=symbol, size=11), showlegend=panel == 0, **at)
        fig.update_xaxes(type="log" if name in log else "linear", **at)
    finish(fig, title, "a mark per method, means over splits and seeds", width=720, height=170 + 220 * rows,
           legend=dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom"), margin=dict(b=110, t=120))
    return fig.update_yaxes(title="test accuracy, %", col=1)
