"""Moving averages that follow a target: what they are worth, and a figure with sliders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ncbook.plots.landscape import TONES, add_sliders
from ncbook.plots.style import INK, finish

AVERAGE_STYLES = {"cumulative": (TONES[4], "dash"), "ramp": (TONES[1], "solid"), "batch alone": ("#A8A8A8", "dot"),
                  "constant α = 0.1": (TONES[2], "dashdot")}  # colour, dash
_STEPS = 200


def average_weights(alpha: float | str, steps: int = _STEPS) -> np.ndarray:
    """Weights (t, s), zero for s > t, that a moving average at batch t gives to batch s, both from 1 to steps.

    alpha: "cma" (1/t), "ema" (2/(t+1)) or a constant share in (0, 1] after the first batch.
    """
    t = np.arange(1, steps + 1)
    shares = {"cma": 1 / t, "ema": 2 / (t + 1)}[alpha] if isinstance(alpha, str) else np.where(t == 1, 1.0, alpha)
    weights = np.zeros((steps, steps))
    for k, share in enumerate(shares):
        weights[k] = (1 - share) * weights[k - 1]
        weights[k, k] = share
    return weights


def tracking_error(noise: float, settling: float, alpha: float | str, steps: int = _STEPS) -> np.ndarray:
    """Root mean square error (steps,) of an average that follows 1 - exp(-t/settling) through noise of that deviation.

    alpha: as in `average_weights`.
    """
    weights, target = average_weights(alpha, steps), _target(settling, steps)
    return np.sqrt((weights @ target - target) ** 2 + noise**2 * (weights**2).sum(1))


def tracking_explorer(noises: Sequence[float], settling: Sequence[float], alphas: Sequence[float], *,
                      title: str = "Following a target that comes to rest") -> go.Figure:
    """Averages of noisy batches, one run and the expected error, with sliders for noise, speed and a constant weight.

    noises: standard deviations of a batch; settling: batches in which 63% of the way is done; alphas: constant weights.
    Traces: "target s", and for each noise n and settling time s "batches n s" and "<average> <panel> n s", the averages
    being "cumulative", "ramp" and "constant". Opens at the middle of each.
    """
    fig = make_subplots(1, 2, subplot_titles=["one run", "expected error"], horizontal_spacing=0.12)
    shown = np.arange(0, _STEPS, 4)
    draws = np.random.default_rng(3).standard_normal(_STEPS)
    weights = {name: average_weights(kind) for name, kind in (("cumulative", "cma"), ("ramp", "ema"))}
    constants = [average_weights(alpha) for alpha in alphas]
    looks = {name: AVERAGE_STYLES[name] for name in weights} | {"constant": (TONES[2], "dashdot")}

    def curves(weight: np.ndarray, n: int, s: int) -> tuple[np.ndarray, np.ndarray]:
        target = _target(settling[s], _STEPS)
        mean, spread = weight @ target, np.sqrt((weight**2).sum(1))
        run, error = mean + noises[n] * (weight @ draws), np.hypot(mean - target, noises[n] * spread)
        return run[shown].round(3), error[shown].round(3)

    pairs = [*itertools.product(range(len(noises)), range(len(settling)))]
    for n, s in pairs:
        batches = (_target(settling[s], _STEPS) + noises[n] * draws)[shown]
        fig.add_scatter(x=shown + 1, y=batches.round(3), mode="markers", name=f"batches {n} {s}", row=1, col=1,
                        marker=dict(size=4, color="#B8B8B8"))
        for name, (color, dash) in looks.items():
            for column, y in enumerate(curves(weights.get(name, constants[0]), n, s), start=1):
                fig.add_scatter(x=shown + 1, y=y, mode="lines", name=f"{name} {column} {n} {s}", row=1, col=column,
                                line=dict(color=color, dash=dash, width=2.5))
    for s, slow in enumerate(settling):
        fig.add_scatter(x=shown + 1, y=_target(slow, _STEPS)[shown].round(3), mode="lines", name=f"target {s}", row=1,
                        col=1, line=dict(color=INK, width=1.5))
    fig.update_traces(showlegend=False, hoverinfo="skip")
    for name, (color, dash) in {"target": (INK, "solid"), **looks}.items():
        fig.add_scatter(x=[None], y=[None], mode="lines", name=name, line=dict(color=color, dash=dash, width=2.5))
    names = [trace.name for trace in fig.data if trace.name[-1].isdigit()]
    by_noise = [{name: dict(visible=name.split()[-2] == str(n)) for name in names if not name.startswith("target")}
                for n in range(len(noises))]
    by_speed = [{name: dict(opacity=float(name.endswith(f" {s}"))) for name in names} for s in range(len(settling))]
    by_alpha = [{f"constant {column} {n} {s}": dict(y=y) for n, s in pairs
                 for column, y in enumerate(curves(weight, n, s), start=1)} for weight in constants]
    finish(fig, title, width=720, height=350, margin=dict(t=100, l=48, r=16), legend=dict(
        orientation="h", x=0, y=1.16, yanchor="bottom"))
    fig.update_xaxes(title="batch", range=[0, _STEPS])
    fig.update_yaxes(range=[-0.9, 2.4], dtick=1, col=1)
    fig.update_yaxes(type="log", range=[-1.85, 0.1], tickvals=[0.02, 0.05, 0.1, 0.2, 0.5, 1], col=2)
    return add_sliders(fig, {
        "noise: ": ([f"{noise:g}" for noise in noises], by_noise),
        "settling time: ": ([f"{slow:g}" for slow in settling], by_speed),
        "constant α = ": ([f"{alpha:g}" for alpha in alphas], by_alpha),
    }, widths=(1, 1, 1.6), active=[len(noises) // 2, len(settling) // 2, len(alphas) // 3])


def _target(settling: float, steps: int) -> np.ndarray:
    return 1 - np.exp(-np.arange(1, steps + 1) / settling)
