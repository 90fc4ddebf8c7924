"""The panels of the lab as figures: what they add, what moves, and panels and parts from outside."""

import dataclasses

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from live_hands import RECIPE, hands, page, record

from ncbook.heads import HEADS, HeadKind, LearnedHead
from ncbook.live import CURVES, PANELS, LiveLab, Panel, animation
from ncbook.live.panels import figure, frame_moves, line_moves
from ncbook.metrics import METRICS, Metric
from ncbook.schedules import ConstantSchedule
from ncbook.training.data import DATASETS, Dataset, Source
from ncbook.training.regularisers import REGULARISERS, Dial, regulariser


def shown(fig, moves):
    """`meta` of a trace -> the trace, with moves put in."""
    traces = {trace.meta: trace for trace in fig.data}
    for name, values in moves.items():
        traces[name].update(values)
    return traces


@pytest.fixture(scope="module")
def recorder():
    recorder, _ = record(steps=30)
    recorder.trainer.step()
    recorder.take()
    return recorder


def test_everything_that_moves_is_there(recorder):
    run = recorder.run
    fig = figure([run])
    moves = frame_moves(run, run.frames[-1]) | line_moves(run, run.frames)
    assert set(moves) < {trace.meta for trace in fig.data} and len({trace.meta for trace in fig.data}) == len(fig.data)
    assert {name.split()[1] for name in moves} == set(PANELS)


def test_bars_and_beta(recorder):
    frame = recorder.run.frames[-1]
    traces = shown(figure([recorder.run]), frame_moves(recorder.run, frame))
    assert traces["0 bars β"].x == (frame.beta,) * 2
    short, long = (np.array(traces[f"0 bars {name} than β"].x)[1::3] for name in ("shorter", "longer"))
    assert np.array_equal(np.where(np.isnan(short), long, short), frame.deaths)
    assert np.nanmax(short, initial=0) < frame.beta <= np.nanmin(long, initial=np.inf)


def test_geometry_and_cosines(recorder):
    frame = recorder.run.frames[-1]
    traces = shown(figure([recorder.run]), frame_moves(recorder.run, frame))
    assert len(traces["0 geometry features"].y) == 198
    cells = traces["0 cosines cosines"]
    assert {(y, x): color for y, x, color in zip(cells.y, cells.x, cells.marker.color, strict=True)} == {
        (a, b): frame.parts["cosines"][i, j] for i, a in enumerate("012") for j, b in enumerate("012") if i != j}


def test_curves_end_at_the_frame_or_leave_room_ahead(recorder):
    run = recorder.run
    assert {METRICS[key].axis for key in CURVES if key in METRICS} == {"log", "linear"}
    now, ahead = line_moves(run, run.frames), line_moves(run, run.frames, ahead=5)
    assert now["0 decaying NC1"]["y"][-1] == np.float32(run.frames[-1].metrics["nc1"])
    assert now["0 shares test accuracy"]["x"][-1] == np.float32(run.frames[-1].epoch)
    assert ahead["0 decaying NC1"]["x"][-1] > run.frames[-1].epoch and np.isnan(ahead["0 decaying NC1"]["y"][-1])


def test_the_schedule_panel_draws_each_plan_where_it_led():
    recorder, frame = record(steps=10)
    recorder.run.follow(ConstantSchedule(9.0, 0.9), frame.epoch)
    recorder.run.follow(ConstantSchedule(2.0, 0.3), frame.epoch)
    line = next(trace for trace in figure([recorder.run]).data if trace.meta == "0 schedule planned beta")
    x, y = np.array(line.x), np.array(line.y)
    first = int(np.isnan(x).argmax())
    assert y[:first] == pytest.approx([RECIPE.schedule.beta(e) for e in x[:first]])
    assert set(y[first + 1 :]) == {2.0} and x[-1] == RECIPE.epochs and len(set(y[:first])) == 1 == len(set(x[:first]))


def test_without_clouds_the_bars_are_empty_and_say_so():
    recorder, frame = record(dataclasses.replace(RECIPE, clouds=None, schedule=None), steps=2)
    fig = figure([recorder.run])
    assert any("no clouds" in note.text for note in fig.layout.annotations)
    assert len(shown(fig, frame_moves(recorder.run, frame))["0 bars longer than β"].x) == 0


def test_an_animation_holds_all_that_moves(recorder):
    run = recorder.run
    one, two = animation(run), animation(run, run)
    assert len(one.frames) == len(run.frames) and one.layout.sliders[0].steps[-1].label == f"{run.frames[-1].epoch:.1f}"
    assert {trace.meta.split()[0] for trace in two.data} == {"0", "1"}
    assert two.layout.legend.x < 0.1 and sum(trace.showlegend is not False for trace in two.data) == len(CURVES)
    assert next(t for t in two.data if t.meta == "1 bars β").x == (run.frames[-1].beta,) * 2
    for runs in ((), (run,) * 3):
        with pytest.raises(ValueError, match="one or two"):
            animation(*runs)


# From outside, in a few lines each.

def add_norms(cell, run):
    cell.add(go.Bar(name="norms", x=run.class_names))


NORMS = Panel(add_norms, lambda run, frame: {"norms": {"y": frame.parts["norms"]}},
              take=lambda shot: shot.class_means.norm(dim=1).numpy(), title=lambda run: "norms of the means")


class ScaledHead(LearnedHead):
    def forward(self, features, targets=None):
        return 3 * super().forward(features)


@regulariser(Dial("strength", 0, 2, 0.5, "weight", "strength"))
def shrink(clouds, controls):
    return controls.strength * clouds.square().mean()


def ring():
    angle = torch.arange(60) * 2 * torch.pi / 60
    points, targets = torch.stack((angle.cos(), angle.sin()), dim=1), torch.arange(60) // 15
    return Dataset("ring", points, targets, points, targets, tuple("abcd"))


def test_parts_from_outside_appear_in_the_lab(monkeypatch):
    monkeypatch.setitem(PANELS, "norms", NORMS)
    monkeypatch.setitem(METRICS, "spread", Metric("spread", "spread", lambda s: s.variation.sum(), axis="linear"))
    monkeypatch.setitem(HEADS, "scaled", HeadKind(ScaledHead, "scaled linear", learned=True))
    monkeypatch.setitem(REGULARISERS, "shrink", shrink)
    monkeypatch.setitem(DATASETS, "ring", Source(ring, backbone="mlp"))
    recipe = dataclasses.replace(RECIPE, dataset="ring", classes=None, head="scaled", regulariser="shrink",
                                 schedule=ConstantSchedule(0.0, 0.25))
    lab = LiveLab(recipe, panels=("geometry", "bars", "shares", "norms"), curves=("nc1", "spread", "accuracy", "loss"))
    lab.run(3, every=1)
    assert lab.error is None and lab.trainer.recipe == recipe and "strength 0.25 following constant" in lab.status
    frame, traces = lab.runs[-1].frames[-1], page(lab)
    assert np.array_equal(traces["0 norms norms"]["y"], frame.parts["norms"])
    assert traces["0 shares spread"]["y"][3] == np.float32(frame.metrics["spread"]) and frame.metrics["loss"] > 0
    hands(lab)["strength"].value = 1.5
    lab.run(1)
    assert lab.trainer.controls.strength == 1.5 and lab.runs[-1].frames[-1].dials == {"strength": 1.5}
    assert len(lab.figure().frames) == len(lab.runs[-1].frames)
    assert "ring" in hands(lab)["data"].options and ("scaled linear", "scaled") in hands(lab)["method"].options
    lab.close()
