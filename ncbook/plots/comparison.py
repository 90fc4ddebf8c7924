"""Several methods over the same seeds: one metric at a time, chosen from a menu, and paired ratios of all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ncbook.metrics import METRICS
from ncbook.plots.curves import Row, as_row, metric_curves
from ncbook.plots.style import INK, finish, method_style, metric_label
from ncbook.training.snapshot import Snapshot


def metric_picker(runs: Mapping[str, Sequence[Sequence[Row | Snapshot]]], keys: Sequence[str], *, split: str = "train",
                  title: str = "One metric at a time") -> go.Figure:
    """The panels of `metric_curves` as one large panel with a menu: the first of the keys, or whichever is chosen.

    Every seed is a thin line, the median a thick one. runs, keys, split, errors: as in `metric_curves`. Traces per key
    and method: "<method> seed <s>", then "<method>"; their `meta` is the key.
    """
    single = [metric_curves(runs, [key], split=split) for key in keys]
    fig, owners = go.Figure(), []
    for key, panel in zip(keys, single, strict=True):
        medians = {trace.name: trace for trace in panel.data if trace.fill != "toself"}
        bottom = min(np.min(trace.y) for trace in panel.data)
        for index, (method, seeds) in enumerate(runs.items()):
            color, dash, _ = method_style(method, index)
            for s, seed in enumerate(seeds if len(seeds) > 1 else ()):
                rows = [as_row(item) for item in seed]
                values = np.maximum([row[f"{split}_{key}"] for row in rows], bottom)
                fig.add_scatter(x=[row["epoch"] for row in rows], y=values, name=f"{method} seed {s}", mode="lines",
                                line=dict(color=color, width=1), opacity=0.35, showlegend=False, legendgroup=method)
                owners.append(key)
            fig.add_trace(medians[method].update(line_width=3, showlegend=True, legendgroup=method))
            owners.append(key)
    fig.update_traces(hovertemplate="epoch %{x}: %{y:.3g}")
    for trace, key in zip(fig.data, owners):
        trace.update(meta=key, visible=key == keys[0])
    buttons = [dict(method="update", label=metric_label(key), args=[
        dict(visible=[owner == key for owner in owners]),
        {"yaxis.type": panel.layout.yaxis.type, "yaxis.dtick": panel.layout.yaxis.dtick,
         "yaxis.tickformat": panel.layout.yaxis.tickformat, "yaxis.exponentformat": panel.layout.yaxis.exponentformat,
         "yaxis.title.text": metric_label(key), "yaxis.autorange": True},
    ]) for key, panel in zip(keys, single, strict=True)]
    where = {"train": "training set", "test": "test set"}[split]
    finish(fig, title, f"{where}; thin: a seed, thick: their median; another metric: the menu below", width=720,
           height=460, margin=dict(t=116, b=96), legend=dict(orientation="h", x=0, y=0, yref="container",
                                                             yanchor="bottom"))
    fig.update_xaxes(title="epoch")
    axis = single[0].layout.yaxis
    fig.update_yaxes(title=metric_label(keys[0]), type=axis.type, dtick=axis.dtick, tickformat=axis.tickformat,
                     exponentformat=axis.exponentformat)
    return fig.update_layout(updatemenus=[dict(
        type="dropdown", buttons=buttons, x=0, xanchor="left", y=1.02, yanchor="bottom", bgcolor="white")])


def paired_ratios(ends: Mapping[str, Sequence[Row | Snapshot]], columns: Sequence[str], baseline: str, *,
                  title: str | None = None) -> go.Figure:
    """How many times as large as the baseline's each method's metric is, seed by seed, on a log axis.

    ends: method -> a row or snapshot per seed, the same seeds for all. A panel with an axis of its own for each column,
    a point for each seed and a bar at the median ratio. Traces per column and method but the baseline: "<method>",
    "<method> median".
    Raises ValueError for an unknown baseline, unequal numbers of seeds, values that are not positive.
    """
    if baseline not in ends:
        raise ValueError(f"baseline must be one of {', '.join(map(repr, ends))}, got {baseline!r}")
    if len(counts := {len(seeds) for seeds in ends.values()}) != 1:
        raise ValueError(f"ends must hold the same seeds for every method, got {sorted(counts)} of them")
    values = {method: np.array([[as_row(row)[column] for column in columns] for row in seeds], dtype=float)
              for method, seeds in ends.items()}
    if not all((of_method > 0).all() and np.isfinite(of_method).all() for of_method in values.values()):
        raise ValueError("ends must hold positive numbers: a ratio needs them")
    others = [method for method in ends if method != baseline]
    fig = make_subplots(len(columns), 1, vertical_spacing=0.4 / len(columns))
    for row, column in enumerate(columns, start=1):
        found = {method: values[method][:, row - 1] / values[baseline][:, row - 1] for method in others}
        for lane, (method, ratios) in enumerate(found.items()):
            color, _, symbol = method_style(method, lane)
            fig.add_scatter(x=ratios, y=[lane] * len(ratios), name=method, legendgroup=method, showlegend=row == 1,
                            mode="markers", row=row, col=1, marker=dict(
                                color=color, symbol=symbol, size=9, opacity=0.7, line=dict(color="white", width=1)))
            fig.add_scatter(x=[np.median(ratios)], y=[lane], name=f"{method} median", mode="markers", row=row, col=1,
                            showlegend=False, marker=dict(symbol="line-ns", size=14, line=dict(color=color, width=3)))
        fig.add_vline(x=1, line=dict(color=INK, width=1), row=row, col=1)
        _ratio_axis(fig, np.concatenate([np.ones(1), *found.values()]), row)
        metric = metric_label(column.partition("_")[2]) if column.partition("_")[0] in ("train", "test") else column
        fig.update_yaxes(tickvals=[(len(others) - 1) / 2], ticktext=[metric.replace(": ", ":<br>")], showgrid=False,
                         range=[len(others) - 0.4, -0.6], row=row, col=1)
    finish(fig, title or f"Against {baseline}, seed by seed",
           f"a point for each seed, a bar at the median; {baseline} is 1 on each axis", width=720,
           height=170 + (36 + 13 * len(others)) * len(columns), margin=dict(t=84, b=90),
           legend=dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom"))
    return fig.update_xaxes(title="ratio; left of the line is better" if _all_fall(columns) else "ratio",
                            row=len(columns), col=1)


def _ratio_axis(fig: go.Figure, ratios: np.ndarray, row: int) -> None:
    decades = float(np.log10(ratios.max() / ratios.min()))
    ticks = dict(dtick=1) if decades > 1.5 else dict(dtick="D2") if decades > 0.6 else dict(nticks=5)
    fig.update_xaxes(type="log", tickformat="~g", **ticks, row=row, col=1)


def _all_fall(columns: Sequence[str]) -> bool:
    keys = [column.partition("_")[2] for column in columns]
    return all(key not in METRICS or METRICS[key].direction == "down" for key in keys)

