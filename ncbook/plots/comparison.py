"""Several methods over the same seeds: one metric at a time, chosen from a menu, and paired ratios of all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from ncbook.metrics import METRICS
from ncbook.plots.curves import Row, as_row, metric_curves
from ncbook.plots.style import INK, MUTED, finish, method_style, metric_label
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

    ends: method -> a row or snapshot per seed, the same seeds for all. A line of the figure for each column, a point
    for each seed and a bar at the median ratio. Traces per method but the baseline: "<method>", "<method> median".
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
    lanes = np.linspace(-0.24, 0.24, len(others)) if len(others) > 1 else np.zeros(1)
    fig = go.Figure()
    for index, (method, lane) in enumerate(zip(others, lanes, strict=True)):
        color, _, symbol = method_style(method, index)
        ratios = values[method] / values[baseline]
        lines = np.broadcast_to(np.arange(len(columns)) + lane, ratios.shape)
        fig.add_scatter(x=ratios.ravel(), y=lines.ravel(), name=method, mode="markers", marker=dict(
            color=color, symbol=symbol, size=9, opacity=0.7, line=dict(color="white", width=1)))
        fig.add_scatter(x=np.median(ratios, axis=0), y=lines[0], name=f"{method} median", mode="markers",
                        showlegend=False, marker=dict(symbol="line-ns", size=18, line=dict(color=color, width=3)))
    fig.add_vline(x=1, line=dict(color=INK, width=1))
    fig.add_annotation(text=f"{baseline} = 1", x=0, y=1, yref="paper", yanchor="bottom", showarrow=False,
                       font=dict(size=12, color=MUTED))
    split = {"train": "training set", "test": "test set"}
    labels = [metric_label(c.partition("_")[2]) if c.partition("_")[0] in split else c for c in columns]
    finish(fig, title or f"Against {baseline}, seed by seed", "a point for each seed, a bar at the median",
           width=720, height=170 + 58 * len(columns), margin=dict(t=100, b=90),
           legend=dict(orientation="h", x=0, y=0, yref="container", yanchor="bottom"))
    fig.update_xaxes(type="log", title="ratio; left of the line is better" if _all_fall(columns) else "ratio",
                     tickformat="~g", dtick="D2" if _decades(fig) < 1.5 else 1)
    return fig.update_yaxes(tickvals=list(range(len(columns))), ticktext=labels, range=[len(columns) - 0.5, -0.5],
                            showgrid=False)


def _all_fall(columns: Sequence[str]) -> bool:
    keys = [column.partition("_")[2] for column in columns]
    return all(key not in METRICS or METRICS[key].direction == "down" for key in keys)


def _decades(fig: go.Figure) -> float:
    drawn = np.concatenate([trace.x for trace in fig.data])
    return float(np.log10(drawn.max() / drawn.min()))
