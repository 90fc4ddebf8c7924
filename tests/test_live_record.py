"""What the lab keeps of a run, without widgets or threads."""

import dataclasses

import numpy as np
import pytest
import torch
from live_hands import RECIPE, record

from ncbook.live import CURVES, MAX_FRAMES, Frame, Run
from ncbook.live.record import watched
from ncbook.metrics import METRICS
from ncbook.training.data import load_dataset


def frames(count):
    empty = np.empty(0, dtype=np.float32)
    return [Frame(k / 10, k, {}, {}, empty, {}) for k in range(count)]


@pytest.mark.parametrize("count", [1, MAX_FRAMES - 1, MAX_FRAMES, MAX_FRAMES + 1, 1501, 20_000])
def test_recorded_frames_are_bounded_cover_the_run_and_end_with_the_last(count):
    run = Run("", RECIPE, ("0", "1"), None)
    for frame in frames(count):
        run.record(frame)
        assert run.frames[-1] is frame
    steps = [frame.step for frame in run.frames]
    assert min(count, MAX_FRAMES / 2) <= len(steps) <= MAX_FRAMES
    assert steps[0] == 0 and len(set(np.diff(steps[:-1]))) <= 1 and len(set(steps)) == len(steps)


def test_the_frame_nearest_to_an_epoch():
    run = Run("", RECIPE, ("0", "1"), None)
    run.frames = frames(50)
    assert run.at(2.34).step == 23 and run.at(99).step == 49


def test_a_frame_shows_what_the_trainer_knows():
    recorder, frame = record(steps=40)
    shot = recorder.trainer.snapshot(data=watched(recorder.trainer.data))
    assert frame.step == shot.step == 40 and frame.dials == shot.dials and frame.beta == shot.beta > 0
    values = shot.train | {"test_accuracy": shot.test["accuracy"]}
    assert frame.metrics == {key: values[key] for key in CURVES}
    assert np.array_equal(frame.deaths, shot.deaths.flatten().sort().values.numpy())
    centred = shot.class_means - shot.class_means.mean(0)
    cosine = torch.cosine_similarity(centred[0], centred[1], dim=0).item()
    assert np.isclose(frame.parts["cosines"][0, 1], cosine, atol=1e-6)


def test_a_frame_is_small():
    _, frame = record(steps=3)
    arrays = [*frame.parts["geometry"].values(), frame.deaths, frame.parts["cosines"]]
    assert sum(array.nbytes for array in arrays) < 8_000


def test_only_the_metrics_that_are_shown_are_computed(monkeypatch):
    def never(summary):
        raise AssertionError("nobody asked for it")

    monkeypatch.setitem(METRICS, "vci", dataclasses.replace(METRICS["vci"], compute=never))
    assert set(record(steps=1)[1].metrics) == set(CURVES)
    with pytest.raises(AssertionError, match="nobody asked"):
        record(curves=("nc1", "vci"))


def test_without_a_test_set_its_curves_are_empty():
    recipe = dataclasses.replace(RECIPE, dataset="unconstrained", backbone="free_features")
    metrics = record(recipe)[1].metrics
    assert np.isnan(metrics["test_accuracy"]) and metrics["accuracy"] >= 0


@pytest.mark.parametrize(("classes", "size"), [(3, 200), (10, 200), (7, 5)])
def test_a_few_samples_of_every_class_are_watched(classes, size):
    data = load_dataset("digits", classes=classes)
    part = watched(data, size)
    each = max(1, size // classes)
    assert part.train_targets.bincount().tolist() == [each] * classes
    assert part.test_targets.bincount().tolist() == [min(each, n) for n in data.test_targets.bincount().tolist()]
    first = (data.test_targets == 2).nonzero()[0, 0]
    assert torch.equal(part.test_inputs[part.test_targets == 2][0], data.test_inputs[first])
