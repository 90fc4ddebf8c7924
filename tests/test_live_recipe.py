"""The lab trains the recipe that it is given, and a control changes just what it stands for."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from live_hands import RECIPE, hands

from ncbook.live import LiveLab
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule
from ncbook.training.data import load_dataset
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer


@pytest.fixture
def lab():
    lab = LiveLab(RECIPE)
    yield lab
    lab.close()


class Swinging:
    def beta(self, epoch):
        return 5 + np.sin(epoch)

    def weight(self, epoch):
        return 0.1


@st.composite
def recipes(draw):
    dataset, backbones = draw(st.sampled_from([("digits", ("small_cnn", "mlp")), ("gaussians", ("mlp",)),
                                               ("unconstrained", ("free_features",))]))
    labels = st.lists(st.integers(0, 9), min_size=2, unique=True).map(tuple)
    classes = draw(st.one_of(st.none(), st.integers(2, 10), *[labels] * (dataset == "digits")))
    head = draw(st.sampled_from(["learned", "cosine", "fixed", "nearest"]))
    loss = draw(st.sampled_from(["cross_entropy", *["dot_regression"] * (head in ("fixed", "nearest"))]))
    clouds = draw(st.none() | st.tuples(st.integers(1, 6), st.integers(2, 5)))
    schedules = [None, ConstantSchedule(0.3, 2.0), DelayedSchedule(150.0, 0.1, 3), SlidingSchedule(1.1, 0.1, 40),
                 Swinging()] if clouds else [None]
    return Recipe(dataset=dataset, backbone=draw(st.sampled_from(backbones)), classes=classes, head=head, loss=loss,
                  clouds=clouds, schedule=draw(st.sampled_from(schedules)), p=draw(st.sampled_from([1, 2, np.inf])),
                  lr=draw(st.sampled_from([0, 1e-5, 0.05, 3])), epochs=draw(st.sampled_from([1, 2, 80, 10**7])),
                  lr_decay=draw(st.sampled_from(["cosine", "constant"])), scale=draw(st.sampled_from([1, 5.0])),
                  seed=draw(st.integers(0, 3)), device="cpu")


@settings(max_examples=20, deadline=None)
@given(recipes())
def test_any_recipe_is_the_one_that_is_trained(recipe):
    lab = LiveLab(recipe)
    assert lab.trainer.recipe is recipe and lab.runs[-1].recipe is recipe
    lab.reset()
    lab.run(2)
    assert lab.trainer.recipe == recipe and lab.trainer.lr == Trainer(recipe).lr
    lab.reset()
    lab.run(0)
    assert lab.trainer.recipe == recipe and lab.error is None and len(lab.runs[-1].frames) == 1
    lab.close()


def test_untouched_it_trains_as_the_trainer_does(lab):
    trainer = Trainer(RECIPE)
    lab.run(150, every=20)
    for _ in range(150):
        trainer.step()
    assert lab.error is None and lab.trainer.steps == 150
    for ours, theirs in zip(lab.trainer.backbone.parameters(), trainer.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [dict(dataset="none"), dict(classes=2000, dataset="digits", backbone="small_cnn"),
                                   dict(backbone="mnist_cnn")])
def test_a_recipe_that_fails_leaves_the_open_lab(lab, wrong):
    with pytest.raises(ValueError):
        LiveLab(dataclasses.replace(RECIPE, **wrong))
    lab.set(beta=2.0)
    lab.run(3)
    assert lab.error is None and lab.trainer.steps == 3 and lab.trainer.controls.beta == 2
    hands(lab)["method"].value = "cosine"
    lab.run(1)
    assert lab.trainer.recipe.head == "cosine"


@pytest.mark.parametrize(("control", "value", "changed"), [
    ("method", "cosine", dict(head="cosine")),
    ("classes", 4, dict(classes=4)),
    ("norm", np.inf, dict(p=np.inf)),
    ("learning rate", 0.1, dict(lr=0.1)),
    ("data", "unconstrained", dict(dataset="unconstrained", backbone="free_features")),
    ("epochs", 7, dict(epochs=7)),
    ("schedule", "by hand", dict(schedule=None)),
    ("β₀", 0.5, dict(schedule=SlidingSchedule(0.5, 0.1, 40))),
    ("w₀", 2.0, dict(schedule=SlidingSchedule(1.0, 2.0, 40))),
    ("schedule", "constant", dict(schedule=ConstantSchedule(1.0, 0.1))),
    ("schedule", "delayed", dict(schedule=DelayedSchedule(1.0, 0.1, 2))),
])
def test_a_hand_changes_just_what_it_touches(control, value, changed):
    recipe = dataclasses.replace(RECIPE, schedule=SlidingSchedule(1.0, 0.1, 40), seed=3, weight_decay=0.125)
    lab = LiveLab(recipe)
    hands(lab)[control].value = value
    lab.reset()
    lab.run(1)
    assert lab.error is None and lab.trainer.recipe == dataclasses.replace(recipe, **changed)
    lab.close()


def test_a_schedule_of_the_old_length_gets_the_new_one(lab):
    lab.set(epochs=9)
    lab.run(1)
    assert lab.trainer.recipe == dataclasses.replace(RECIPE, epochs=9, schedule=SlidingSchedule(1.0, 0.1, 9))


def test_another_data_set_keeps_the_number_of_classes():
    recipe = Recipe(dataset="digits", classes=(3, 8, 5, 0), clouds=(4, 4), epochs=2, device="cpu", lr=0.01)
    lab = LiveLab(recipe)
    assert hands(lab)["classes"].label == "3, 8, 5, 0"
    lab.set(dataset="gaussians")
    lab.run(1)
    assert lab.trainer.recipe == dataclasses.replace(recipe, dataset="gaussians", backbone="mlp", classes=4)
    lab.close()


def test_touching_a_slider_takes_over_and_follow_gives_back(lab):
    lab.run(3)
    assert not lab.trainer.controls.manual
    hands(lab)["β"].value = 2.5
    lab.run(1)
    assert lab.trainer.controls.manual and lab.trainer.controls.beta == 2.5 and "by hand" in lab.status
    hands(lab)["Follow schedule"].click()
    lab.run(1)
    assert not lab.trainer.controls.manual and lab.trainer.controls.beta == RECIPE.schedule.beta(1)
    assert hands(lab)["β"].value == pytest.approx(RECIPE.schedule.beta(1), abs=1 / 128)


def test_a_script_can_set_what_a_slider_shows_already(lab):
    lab.set(beta=hands(lab)["β"].value, densify_weight=7.0)
    lab.run(2)
    assert lab.trainer.controls.manual and lab.trainer.controls.densify_weight == 7 == hands(lab)["weight"].value


def test_what_a_browser_rounds_is_not_a_hand(lab):
    hands(lab)["β"].value += 1e-12
    hands(lab)["learning rate"].value *= 1.001
    lab.run(1)
    assert not lab.trainer.controls.manual and lab.trainer.lr == RECIPE.lr


def test_norm_rate_and_schedule_act_on_the_run_that_is_on(lab):
    lab.run(2)
    lab.set(p="L∞", lr=0.5, schedule="constant")
    lab.run(1)
    assert (lab.trainer.controls.p, lab.trainer.controls.lr, lab.trainer.steps) == (np.inf, 0.5, 3)
    assert lab.trainer.recipe == dataclasses.replace(RECIPE, schedule=ConstantSchedule(1.0, 0.1))


def test_a_recorded_run_keeps_the_plan_that_it_had(lab):
    lab.run(30)
    dials = [frame.dials for frame in lab.runs[-1].frames]
    lab.set(schedule="constant", beta0=0.0)
    lab.reset()
    lab.run(1)
    first, second = lab.runs
    assert first.recipe == RECIPE and first.plans[0] == (0, RECIPE.schedule) and first.plans[1][0] == 0.3
    assert [frame.dials for frame in first.frames] == dials and second.plans == [(0, ConstantSchedule(0.0, 0.1))]


def test_a_choice_that_needs_a_new_run_resets(lab):
    lab.run(5)
    hands(lab)["method"].value = "fixed"
    hands(lab)["classes"].value = 4
    lab.run(2)
    assert lab.trainer.steps == 2 and lab.trainer.recipe.head == "fixed" and lab.trainer.data.num_classes == 4
    assert [len(run.class_names) for run in lab.runs] == [3, 4]


def test_a_recipe_without_clouds_trains_with_its_sliders_off():
    lab = LiveLab(Recipe(dataset="gaussians", backbone="mlp", head="cosine", device="cpu"))
    lab.run(5)
    assert lab.error is None and lab.trainer.steps == 5 and len(lab.runs[-1].frames[-1].deaths) == 0
    assert all(hands(lab)[name].disabled for name in ("β", "weight", "schedule", "norm", "β₀"))
    assert not hands(lab)["learning rate"].disabled
    lab.close()


def test_data_of_the_readers_own_stay_beside_the_recipe():
    data = load_dataset("gaussians", classes=5).subset(range(0, 1000, 7))
    lab = LiveLab(RECIPE, data=data)
    lab.set(method="fixed")
    lab.run(1)
    assert torch.equal(lab.trainer.data.train_inputs, data.train_inputs) and lab.trainer.recipe.head == "fixed"
    assert hands(lab)["classes"].value == 5 and hands(lab)["classes"].disabled
    lab.set(dataset="unconstrained")
    lab.run(1)
    assert lab.trainer.data.name == "unconstrained" and lab.trainer.recipe.classes == 3
    lab.close()


@pytest.mark.parametrize(("values", "message"), [
    (dict(weight=1.0), "weight"), (dict(dataset="none"), "dataset"), (dict(method="none"), "head"),
    (dict(schedule="none"), "schedule"), (dict(lr=-1.0), "lr"), (dict(beta="high"), "beta"), (dict(epochs=0), "epochs"),
    (dict(p=3), "p must"), (dict(speed=0), "speed"), (dict(beta0=-1.0), "beta0"),
])
def test_a_script_hears_at_once_what_is_not_accepted(lab, values, message):
    with pytest.raises((ValueError, TypeError), match=message):
        lab.set(**values)
    lab.run(1)
    assert lab.trainer.recipe == RECIPE and not lab.trainer.controls.manual and lab.trainer.steps == 1
