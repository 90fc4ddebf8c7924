"""The lab trains the recipe that it is given, and a control changes just what it stands for."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from live_hands import RECIPE, Page

from ncbook.live import SCENARIOS, LiveLab
from ncbook.live.record import watched
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule
from ncbook.training.data import load_dataset
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer


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
    lab.run(150)
    for _ in range(150):
        trainer.step()
    assert lab.error is None and lab.trainer.steps == 150
    for ours, theirs in zip(lab.trainer.backbone.parameters(), trainer.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["Collapse", "Sliding"])
def test_what_the_lab_begins_with_does_not_fall_back(name):
    trainer = Trainer(dataclasses.replace(SCENARIOS[name].recipe, device="cpu"))
    part = watched(trainer.data)
    for _ in range(9):
        trainer.run_epoch()
        assert trainer.snapshot(data=part, keys=["accuracy"], test=False).train["accuracy"] > 0.9


@pytest.mark.parametrize("wrong", [dict(dataset="none"), dict(classes=2000, dataset="digits", backbone="small_cnn"),
                                   dict(backbone="mnist_cnn")])
def test_a_recipe_that_fails_leaves_the_open_lab(lab, wrong):
    with pytest.raises(ValueError):
        LiveLab(dataclasses.replace(RECIPE, **wrong))
    lab.set(beta=2.0)
    lab.run(3)
    assert lab.error is None and lab.trainer.steps == 3 and lab.trainer.controls.beta == 2
    lab.set(method="standard")
    lab.run(1)
    assert lab.trainer.recipe.head == "cosine"


@pytest.mark.parametrize(("control", "value", "changed"), [
    ("method", "standard", dict(head="cosine")),
    ("classes", "4", dict(classes=4)),
    ("p", "L∞", dict(p=np.inf)),
    ("lr", 0.1, dict(lr=0.1)),
    ("seed", 5, dict(seed=5)),
    ("dataset", "unconstrained", dict(dataset="unconstrained", backbone="free_features")),
    ("epochs", 7, dict(epochs=7)),
    ("schedule", "by hand", dict(schedule=None)),
    ("beta0", 0.5, dict(schedule=SlidingSchedule(0.5, 0.1, 40))),
    ("weight0", 2.0, dict(schedule=SlidingSchedule(1.0, 2.0, 40))),
    ("schedule", "constant", dict(schedule=ConstantSchedule(1.0, 0.1))),
    ("schedule", "delayed", dict(schedule=DelayedSchedule(1.0, 0.1, 2))),
])
def test_a_hand_changes_just_what_it_touches(control, value, changed, monkeypatch):
    recipe = dataclasses.replace(RECIPE, schedule=SlidingSchedule(1.0, 0.1, 40), seed=3, weight_decay=0.125)
    lab = LiveLab(recipe)
    page = Page(lab, monkeypatch)
    page.set(**{control: value})
    lab.reset()
    lab.run(1)
    assert lab.error is None and lab.trainer.recipe == dataclasses.replace(recipe, **changed)
    assert page.state["controls"][control]["value"] == value
    lab.close()


def test_a_schedule_of_the_old_length_gets_the_new_one(lab):
    lab.set(epochs=9)
    lab.run(1)
    assert lab.trainer.recipe == dataclasses.replace(RECIPE, epochs=9, schedule=SlidingSchedule(1.0, 0.1, 9))


def test_another_data_set_keeps_the_number_of_classes(monkeypatch):
    recipe = Recipe(dataset="digits", classes=(3, 8, 5, 0), clouds=(4, 4), epochs=2, device="cpu", lr=0.01)
    lab = LiveLab(recipe)
    page = Page(lab, monkeypatch)
    lab.run(1)
    assert page.state["controls"]["classes"]["value"] == "3, 8, 5, 0"
    lab.set(dataset="gaussians")
    lab.run(1)
    assert lab.trainer.recipe == dataclasses.replace(recipe, dataset="gaussians", backbone="mlp", classes=4)
    lab.close()


def test_touching_a_slider_takes_over_and_follow_gives_back(lab, page):
    lab.run(3)
    assert not lab.trainer.controls.manual
    page.set(beta=2.5)
    lab.run(1)
    assert lab.trainer.controls.manual and lab.trainer.controls.beta == 2.5 and "by hand" in lab.status
    assert page.state["manual"] and page.state["dials"]["beta"]["value"] == 2.5 and page.last["manual"]
    assert page.last["planned"][0] == np.float32(RECIPE.schedule.beta(1))
    page.do("follow")
    lab.run(1)
    assert not lab.trainer.controls.manual and lab.trainer.controls.beta == RECIPE.schedule.beta(1)
    assert page.state["dials"]["beta"]["value"] == RECIPE.schedule.beta(1)


def test_a_script_can_set_what_a_slider_shows_already(lab, page):
    lab.run(0)
    lab.set(beta=page.state["dials"]["beta"]["value"], densify_weight=7.0)
    lab.run(2)
    assert lab.trainer.controls.manual and lab.trainer.controls.densify_weight == 7
    assert page.state["dials"]["densify_weight"]["high"] == 7


def test_norm_rate_and_schedule_act_on_the_run_that_is_on(lab):
    lab.run(2)
    lab.set(p="L∞", lr=0.5, schedule="constant")
    lab.run(1)
    assert (lab.trainer.controls.p, lab.trainer.controls.lr, lab.trainer.steps) == (np.inf, 0.5, 3)
    assert lab.trainer.recipe == dataclasses.replace(RECIPE, schedule=ConstantSchedule(1.0, 0.1))


def test_a_recorded_run_keeps_what_was_used_and_planned(lab):
    lab.run(30)
    kept = [(frame.dials, frame.planned) for frame in lab.runs[-1].frames]
    lab.set(schedule="constant", beta0=0.0)
    lab.run(10)
    lab.reset()
    lab.run(1)
    first, second = lab.runs
    assert first.recipe == RECIPE and [(frame.dials, frame.planned) for frame in first.frames[:31]] == kept
    assert first.frames[-1].planned["beta"] == 0 == first.frames[-1].dials["beta"]
    assert "sliding 1/0.1" in first.label and "constant" in first.label.split("from epoch")[0]
    assert "constant 0/0.1" in second.label and "from epoch" not in second.label


def test_a_run_by_hand_is_not_called_after_its_schedule_alone(lab):
    lab.run(10)
    lab.set(beta=0.0)
    lab.run(10)
    assert lab.runs[-1].label.endswith("sliding 1/0.1, L2, lr 0.02, 4 epochs, by hand from epoch 0.1")


def test_reset_with_a_recipe_restores_every_control(lab, page):
    """As the scripted part of a chapter needs it, whatever a reader did before."""
    lab.set(method="fixed", classes=5, lr=0.5, beta=3.0, speed=30, schedule="by hand")
    lab.start()
    lab.reset(RECIPE)
    lab.run(20)
    assert lab.trainer.recipe == RECIPE and lab.trainer.steps == 20 and not lab.trainer.controls.manual
    assert page.state["speed"] == "slow, then fast" and page.state["doing"] == "paused"
    trainer = Trainer(RECIPE)
    for _ in range(20):
        trainer.step()
    for ours, theirs in zip(lab.trainer.backbone.parameters(), trainer.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_defaults_bring_back_the_first_recipe(lab, page):
    lab.set(method="fixed", lr=0.5, beta=3.0)
    page.do("defaults")
    lab.run(1)
    assert lab.trainer.recipe == RECIPE and not lab.trainer.controls.manual


def test_a_choice_that_needs_a_new_run_resets(lab):
    lab.run(5)
    lab.set(method="fixed")
    lab.set(classes=4)
    lab.run(2)
    assert lab.trainer.steps == 2 and lab.trainer.recipe.head == "fixed" and lab.trainer.data.num_classes == 4
    assert [len(run.class_names) for run in lab.runs] == [3, 4]


def test_a_recipe_without_clouds_trains_with_its_sliders_off(monkeypatch):
    lab = LiveLab(Recipe(dataset="gaussians", backbone="mlp", head="cosine", device="cpu"))
    page = Page(lab, monkeypatch)
    lab.run(5)
    assert lab.error is None and lab.trainer.steps == 5 and len(lab.runs[-1].frames[-1].deaths) == 0
    controls, dials = page.state["controls"], page.state["dials"]
    assert all(controls[name]["off"] for name in ("schedule", "p", "beta0")) and all(d["off"] for d in dials.values())
    assert not controls["lr"]["off"]
    lab.close()


def test_data_of_the_readers_own_stay_beside_the_recipe(monkeypatch):
    data = load_dataset("gaussians", classes=5).subset(range(0, 1000, 7))
    lab = LiveLab(RECIPE, data=data)
    page = Page(lab, monkeypatch)
    lab.set(method="fixed")
    lab.run(1)
    assert torch.equal(lab.trainer.data.train_inputs, data.train_inputs) and lab.trainer.recipe.head == "fixed"
    assert page.state["controls"]["classes"]["value"] == "5" and page.state["controls"]["classes"]["off"]
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
