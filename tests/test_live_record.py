"""What the lab keeps of a run and tells of it, without widgets or threads."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from live_hands import RECIPE, record

from ncbook.live import CURVES, MAX_FRAMES, Frame, Run
from ncbook.live.record import DENSE, watched
from ncbook.metrics import METRICS
from ncbook.training.data import load_dataset

DATA = load_dataset("gaussians")


def frame_at(step):
    return Frame(step / 10, step, {}, {}, np.empty(0, dtype=np.float32), {})


def recorded(count):
    """A run of which each step was offered, as a page would that draws all of them."""
    run = Run(1, RECIPE, DATA, None)
    for step in range(count):
        run.record(frame_at(step))
        assert run.frames[-1].step == step
    return run


@pytest.mark.parametrize("count", [1, DENSE, DENSE + 1, 3_000, 30_000])
def test_frames_are_bounded_hold_all_first_steps_cover_the_run_and_end_with_the_last(count):
    steps = [frame.step for frame in recorded(count).frames]
    assert len(steps) <= MAX_FRAMES and steps[-1] == count - 1
    assert steps[:DENSE] == list(range(min(count, DENSE)))
    gaps = np.diff(steps)
    assert (gaps > 0).all() and (gaps <= 1 + 0.1 * np.array(steps[:-1])).all()


def test_every_one_of_the_first_steps_is_recorded_whatever_is_drawn():
    recorder, _ = record(steps=60)
    assert [frame.step for frame in recorder.run.frames] == list(range(61))


def test_what_was_there_only_for_being_the_last_makes_room():
    run = recorded(DENSE + 1)
    for step in (1000, 1001, 1002, 1030):
        run.record(frame_at(step))
    assert [frame.step for frame in run.frames][-2:] == [1000, 1030]


def test_the_frame_nearest_to_an_epoch():
    run = recorded(50)
    assert run.at(2.34).step == 23 and run.at(99).step == 49


def test_a_frame_shows_what_the_trainer_knows():
    recorder, frame = record(steps=40)
    shot = recorder.trainer.snapshot(data=watched(recorder.trainer.data))
    assert frame.step == shot.step == 40 and frame.dials == shot.dials and frame.beta == shot.beta > 0
    values = shot.train | {"test_accuracy": shot.test["accuracy"]}
    assert frame.metrics == {key: values[key] for key in CURVES}
    assert np.array_equal(frame.deaths, shot.deaths.flatten().sort().values.numpy())
    assert frame.planned == {"beta": RECIPE.schedule.beta(1), "densify_weight": RECIPE.schedule.weight(1)}
    centred = shot.class_means - shot.class_means.mean(0)
    cosine = torch.cosine_similarity(centred[0], centred[1], dim=0).item()
    assert np.isclose(frame.parts["cosines"][0, 1], cosine, atol=1e-6)


def test_the_plan_of_a_frame_is_that_of_its_own_step():
    recorder, _ = record(dataclasses.replace(RECIPE, epochs=4), steps=205)
    for frame in recorder.run.frames[1:]:
        assert frame.dials == pytest.approx(frame.planned)


def test_a_frame_is_small():
    _, frame = record(steps=3)
    arrays = [*frame.parts["geometry"].values(), *frame.parts["input"].values(), frame.deaths, frame.parts["cosines"]]
    assert sum(array.nbytes for array in arrays) < 8_000


def test_only_the_metrics_that_are_shown_are_computed(monkeypatch):
    def never(summary):
        raise AssertionError("nobody asked for it")

    monkeypatch.setitem(METRICS, "vci", dataclasses.replace(METRICS["vci"], compute=never))
    assert set(record(steps=1)[1].metrics) == set(CURVES)
    with pytest.raises(AssertionError, match="nobody asked"):
        record(curves=("nc1", "vci"))


def test_with_two_classes_what_has_no_content_is_left_out():
    recorder, frame = record(dataclasses.replace(RECIPE, classes=2), (*CURVES, "nc2_gram", "test_nc2_equiangular"), 2)
    assert recorder.run.curves == tuple(frame.metrics) == ("nc1", "nc3", "accuracy", "test_accuracy")


def test_without_a_test_set_its_curves_are_empty():
    recipe = dataclasses.replace(RECIPE, dataset="unconstrained", backbone="free_features")
    metrics = record(recipe)[1].metrics
    assert np.isnan(metrics["test_accuracy"]) and metrics["accuracy"] >= 0


@pytest.mark.parametrize(("changes", "told"), [
    ({}, "digits, 3 classes, nearest, sliding 1/0.1, L2, lr 0.02, 4 epochs"), (dict(classes=(3, 5)), "classes 3 5"),
    (dict(head="cosine"), "standard"), (dict(lr=0.5), "lr 0.5"), (dict(p=math.inf), "L∞"), (dict(seed=3), "seed 3"),
    (dict(schedule=None), "by hand"), (dict(clouds=None, schedule=None), "nearest, lr 0.02"),
])
def test_a_label_says_in_what_runs_differ(changes, told):
    recipe = dataclasses.replace(RECIPE, **dict(dataset="digits", backbone="small_cnn") | changes)
    assert told in Run(7, recipe, load_dataset("digits", classes=recipe.classes), None).label


def test_a_label_says_what_a_hand_did_and_gives_way_to_a_name():
    run = Run(7, RECIPE, DATA, None)
    run.note(2.25, "by hand")
    run.note(3.0, "by hand")
    assert run.label == ("7: gaussians, 3 classes, nearest, sliding 1/0.1, L2, lr 0.02, 4 epochs, "
                         "by hand from epoch 2.25")
    run.title = "Too early (2)"
    assert run.label == "Too early (2), by hand from epoch 2.25"
    run.name = "mine"
    assert run.label == "7: mine"


@pytest.mark.parametrize(("classes", "size"), [(3, 200), (10, 200), (7, 5)])
def test_a_few_samples_of_every_class_are_watched(classes, size):
    data = load_dataset("digits", classes=classes)
    part = watched(data, size)
    each = max(1, size // classes)
    assert part.train_targets.bincount().tolist() == [each] * classes
    assert part.test_targets.bincount().tolist() == [min(each, n) for n in data.test_targets.bincount().tolist()]
    first = (data.test_targets == 2).nonzero()[0, 0]
    assert torch.equal(part.test_inputs[part.test_targets == 2][0], data.test_inputs[first])
