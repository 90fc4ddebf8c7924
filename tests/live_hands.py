"""What the tests of the lab share: recipes that train fast, and the hands and eyes of a reader."""

import json
import time

import numpy as np

from ncbook.live import CURVES, PANELS, Plot
from ncbook.live.record import Recorder
from ncbook.schedules import SlidingSchedule
from ncbook.training.recipe import Recipe

RECIPE = Recipe(dataset="gaussians", classes=3, backbone="mlp", head="nearest", clouds=(6, 5), epochs=4, lr=0.02,
                schedule=SlidingSchedule(1.0, 0.1, 4), device="cpu")
LONG = Recipe(**(vars(RECIPE) | {"epochs": 1000, "schedule": SlidingSchedule(1.0, 0.1, 1000)}))


def record(recipe=RECIPE, curves=CURVES, steps=0):
    """A recorder after some steps, with no lab around it, and its last frame."""
    recorder = Recorder(recipe, None, {name: panel.take for name, panel in PANELS.items()}, curves, "a run", {})
    for _ in range(steps):
        recorder.trainer.step()
    return recorder, recorder.take() if steps else recorder.run.frames[-1]


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def hands(panel):
    """The widgets of a lab or an explorer, by what stands beside them."""
    rows = [row.children for row in panel.children if hasattr(row, "children")]
    return {widget.description: widget for row in rows for widget in row if hasattr(widget, "description")}


def plot_of(panel):
    return next(child for child in panel.children if isinstance(child, Plot))


def page(panel):
    """The figure that the page has: `meta` of a trace -> the trace, with what was moved last put in."""
    state = plot_of(panel).get_state()
    traces = json.loads(state["_figure"])["data"]
    for at, values in state["_moves"]["moves"].items():
        traces[int(at)] |= {key: np.frombuffer(value, np.float32) if isinstance(value, memoryview) else
                            {inner: np.frombuffer(v, np.float32) for inner, v in value.items()}
                            for key, value in values.items()}
    return {trace.get("meta"): trace for trace in traces}
