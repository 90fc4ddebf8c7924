"""What the panels send to the page, and panels and parts from outside."""

import base64
import dataclasses

import numpy as np
import pytest
import torch
from live_hands import RECIPE, Page, record, unpack

from ncbook import plots
from ncbook.heads import HEADS, HeadKind, LearnedHead
from ncbook.live import PANELS, LiveLab, Panel
from ncbook.live import page as pages
from ncbook.live.panels import CONFIDENCE, GRID, header, pack
from ncbook.metrics import METRICS, Metric
from ncbook.schedules import ConstantSchedule
from ncbook.training.data import DATASETS, Dataset, Source
from ncbook.training.regularisers import REGULARISERS, Dial, regulariser


@pytest.fixture(scope="module")
def recorder():
    return record(steps=30)[0]


def test_the_page_reads_what_was_packed(recorder):
    run = recorder.run
    frame = run.frames[-1]
    (got,) = unpack(header(run), pack(frame))
    assert got["step"] == 30 and got["epoch"] == np.float32(frame.epoch) and not got["manual"]
    assert np.array_equal(got["metrics"], np.float32(list(frame.metrics.values())), equal_nan=True)
    assert np.array_equal(got["deaths"], frame.deaths)
    assert np.array_equal(got["dials"], np.float32([*frame.dials.values()]))
    assert np.array_equal(got["cosines"], frame.parts["cosines"], equal_nan=True)
    assert np.array_equal(got["input.regions"], frame.parts["input"]["regions"])
    message, buffers = pages.frames_message(run, run.frames[5:], 5)
    assert len(unpack(header(run), buffers[0])) == len(run.frames) - 5 == len(message["looks"])


def test_the_geometry_is_that_of_the_book(recorder):
    frame = recorder.run.frames[-1]
    shot = recorder.trainer.snapshot(data=recorder._watched)
    parts = plots.geometry_coordinates(shot.class_means, shot.features, shot.targets, shot.weight)
    for name in ("features", "class means", "weights"):
        assert np.allclose(frame.parts["geometry"][name], parts[name], atol=1e-6)
    assert np.allclose(header(recorder.run)["vertices"], plots.simplex_vertices(3))


def test_the_regions_are_the_decisions_of_the_network(recorder):
    head, regions = header(recorder.run), recorder.run.frames[-1].parts["input"]["regions"].reshape(GRID, GRID)
    left, right, low, high = head["input"]["extent"]
    x, y = np.linspace(left, right, GRID), np.linspace(high, low, GRID)
    points = torch.tensor([[x[7], y[3]], [x[30], y[33]]], dtype=torch.float32)
    winner = recorder.trainer.head(recorder.trainer.backbone(points)).argmax(1).tolist()
    assert [regions[3, 7] // CONFIDENCE, regions[33, 30] // CONFIDENCE] == winner
    assert np.allclose(head["input"]["points"], recorder.trainer.data.train_inputs, atol=1e-4)


def test_images_come_with_the_nearest_and_the_farthest_of_each_class():
    recipe = dataclasses.replace(RECIPE, dataset="digits", backbone="small_cnn", classes=3)
    recorder, frame = record(recipe, steps=3)
    shot, data = recorder.trainer.snapshot(data=recorder._watched), header(recorder.run)["input"]
    own = (shot.features - shot.class_means[shot.targets]).norm(dim=1)
    for c, (near, far) in enumerate(frame.parts["input"]["ends"].astype(int)):
        assert own[near] == own[shot.targets == c].min() and own[far] == own[shot.targets == c].max()
        assert shot.targets[near] == shot.targets[far] == c
    pixels = np.frombuffer(base64.b64decode(data["pixels"]), np.uint8).reshape(-1, 8, 8)
    assert np.allclose(pixels / 255, recorder._watched.train_inputs[:, 0], atol=1 / 255)


def test_a_panel_with_nothing_to_show_is_left_out():
    def names(**changes):
        return [panel["name"] for panel in header(record(dataclasses.replace(RECIPE, **changes))[0].run)["panels"]]

    assert names() == list(PANELS)
    assert "cosines" not in names(classes=2) and "bars" not in names(clouds=None, schedule=None)
    assert "input" not in names(dataset="unconstrained", backbone="free_features")


def test_curves_that_share_an_axis_have_colours_of_their_own(recorder):
    curves = header(record(curves=("nc1", "nc2_gram", "cdnv", "accuracy", "test_accuracy", "loss"))[0].run)["curves"]
    for axis in ("log", "linear"):
        colors = [curve["color"] for curve in curves if curve["axis"] == axis]
        assert len(set(colors)) == len(colors)
    for axis in ("log", "linear"):
        assert sum(curve["axis"] == axis for curve in header(recorder.run)["curves"]) <= 3


# From outside, in a few lines each.

NORMS = Panel("columns", lambda shot, trainer: shot.class_means.norm(dim=1).numpy(), "norms of the means")


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
    lab = LiveLab(recipe, panels=("geometry", "bars", "norms"), curves=("nc1", "spread", "accuracy", "loss"))
    page = Page(lab, monkeypatch)
    lab.run(3)
    assert lab.error is None and lab.trainer.recipe == recipe and "strength 0.25 following constant" in lab.status
    frame = lab.runs[-1].frames[-1]
    assert np.array_equal(page.last["norms"], frame.parts["norms"]) and frame.metrics["loss"] > 0
    assert page.last["metrics"][1] == np.float32(frame.metrics["spread"])
    page.set(strength=1.5)
    lab.run(1)
    assert lab.trainer.controls.strength == 1.5 and lab.runs[-1].frames[-1].dials == {"strength": 1.5}
    controls = page.state["controls"]
    assert "ring" in controls["dataset"]["options"] and "scaled linear" in controls["method"]["options"]
    lab.close()


def test_a_panel_of_an_unknown_kind_is_named(monkeypatch):
    monkeypatch.setitem(PANELS, "pie", Panel("pie"))
    with pytest.raises(ValueError, match="kind of panel 'pie' must be one of 'geometry'"):
        LiveLab(RECIPE, panels=("pie",))
