"""Checkpoints: those of version 0.1 are read, and what cannot be saved or read back says so before training."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ncbook import ConstantSchedule, Recipe, SlidingSchedule, Trainer, neural_collapse, train
from ncbook.training.trainer import save_state

DATA = Path(__file__).with_name("data")
SMALL = Recipe(dataset="unconstrained", classes=3, train_size=12, epochs=2, feature_dim=4, head="nearest",
               backbone="free_features", clouds=(2, 3), schedule=SlidingSchedule(1.0, 0.1, 2), device="cpu")


@pytest.mark.parametrize("head", ["nearest", "fixed"])
def test_run_of_version_0_1_goes_on_to_the_same_result(head, tmp_path):
    recipe = dataclasses.replace(SMALL, head=head, frame="canonical" if head == "fixed" else None)
    file = DATA / f"version_0_1_{head}.checkpoint"
    assert "scale" not in torch.load(file, weights_only=True)["head"]
    if head == "fixed":
        newer = Trainer(dataclasses.replace(recipe, frame=None)).head
        newer.load_state_dict(torch.load(file, weights_only=True)["head"])
        assert newer.frame == "canonical"
    (tmp_path / "run").write_bytes(file.read_bytes())
    resumed = list(train(recipe, checkpoint=tmp_path / "run"))
    whole = list(train(recipe))
    assert [shot.epoch for shot in resumed] == [1, 2]
    assert torch.equal(resumed[-1].weight, whole[-1].weight)
    assert torch.equal(resumed[-1].class_means, whole[-1].class_means)
    again = torch.load(tmp_path / "run", weights_only=True)
    assert float(again["head"]["scale"]) == 5


def test_recipe_of_version_0_1_with_a_fixed_head_was_canonical():
    old = Recipe(head="fixed").to_dict()
    del old["frame"], old["centred"], old["regulariser"]
    assert Recipe.from_dict(old) == Recipe(head="fixed", frame="canonical")
    new = Recipe(head="fixed", centred=True)
    assert Recipe.from_json(new.to_json()) == new != Recipe.from_dict(old)


def test_trainer_gives_its_head_the_frame_of_the_recipe():
    recipe = dataclasses.replace(SMALL, head="fixed", frame="canonical", centred=True)
    trainer = Trainer(recipe)
    trainer.step()
    assert trainer.head.frame == "canonical" and trainer.head.bias.any()
    assert Trainer(dataclasses.replace(recipe, frame=None)).head.frame == "nonnegative"


class OwnSchedule(SlidingSchedule):
    pass


def test_schedule_that_could_not_be_read_back_is_refused_before_training(tmp_path):
    recipe = dataclasses.replace(SMALL, schedule=OwnSchedule(1.0, 0.1, 2))
    with pytest.raises(TypeError, match="schedule must be one of ncbook.schedules"):
        next(train(recipe, checkpoint=tmp_path / "run"))


def test_run_saved_by_hand_in_mid_epoch_stops_at_its_end(tmp_path):
    recipe = dataclasses.replace(SMALL, epochs=3)
    trainer = Trainer(recipe)
    for _ in range(trainer.steps_per_epoch + 1):
        trainer.step()
    save_state(trainer.state_dict(), tmp_path / "run")
    last = list(train(recipe, checkpoint=tmp_path / "run"))[-1]
    assert last.epoch == 3 and torch.equal(last.weight, list(train(recipe))[-1].weight)


def test_folder_of_a_checkpoint_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "run"
    assert next(train(SMALL, checkpoint=path)).epoch == 0
    assert path.exists()


def test_folder_that_cannot_be_made_is_noticed_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        next(train(SMALL, checkpoint=tmp_path / "file" / "run"))


class Broken(ConstantSchedule):
    def beta(self, epoch):
        return float("nan")


BAD = [
    (lambda: Recipe(batch_size=3.5), TypeError, "batch_size must be an integer, got 3.5"),
    (lambda: Recipe(seed=1.5), TypeError, "seed must be an integer, got 1.5"),
    (lambda: Recipe(epochs=2.5), TypeError, "epochs must be an integer, got 2.5"),
    (lambda: Recipe(clouds=(2, 3), schedule="x"), TypeError, "schedule must have the methods beta, weight"),
    (lambda: Recipe(head="fixed", frame="rotated"), ValueError, "frame must be one of None, 'nonnegative'"),
    (lambda: Recipe(head="fixed", centred="yes"), ValueError, "centred must be one of False, True"),
    (lambda: Trainer(dataclasses.replace(SMALL, schedule=Broken(1.0, 1.0))), ValueError,
     r"schedule\.beta\(1\) must be finite"),
    (lambda: neural_collapse(torch.randn(8, 5), torch.arange(8) % 2, torch.randn(5, 2)), ValueError,
     r"weight must have shape \(5, 5\), got \(5, 2\)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_values_are_named_before_they_do_harm(call, error, message):
    with pytest.raises(error, match=message):
        call()
