import dataclasses
import itertools
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from ncbook import (
    ConstantSchedule,
    Controls,
    Recipe,
    SlidingSchedule,
    Snapshot,
    Trainer,
    joint_snapshot,
    load_dataset,
    train,
)
from ncbook.metrics import neural_collapse
from ncbook.training.snapshot import OF_LOGITS, Diverged, brier_score, calibration_error

SMALL = Recipe(classes=3, train_size=60, epochs=3, batch_size=20, feature_dim=8)
CLOUDS = dataclasses.replace(SMALL, clouds=(4, 5), schedule=SlidingSchedule(1.0, 0.1, 3), p=1)


def run(recipe, **arguments):
    return list(train(recipe, **arguments))


def assert_same(first, second):
    for field in dataclasses.fields(Snapshot):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


@pytest.mark.parametrize(("head", "loss", "scale"), [
    ("learned", "cross_entropy", 5.0), ("cosine", "cross_entropy", 5.0), ("fixed", "cross_entropy", 5.0),
    ("nearest", "cross_entropy", 5.0), ("fixed", "dot_regression", 1.0), ("nearest", "dot_regression", 1.0)])
def test_every_head_learns_digits(head, loss, scale):
    recipe = Recipe(classes=4, epochs=6, head=head, loss=loss, scale=scale)
    snapshots = run(recipe, every=6)
    assert [s.epoch for s in snapshots] == [0, 6]
    assert snapshots[-1].test["accuracy"] > 0.9 > snapshots[0].test["accuracy"]
    assert snapshots[-1].train["loss"] < snapshots[0].train["loss"]


def test_snapshot_holds_what_it_says():
    data = load_dataset("digits", classes=3, train_size=60)
    trainer = Trainer(SMALL, data=data)
    for _ in range(4):
        trainer.step()
    snapshot = trainer.snapshot()
    assert (snapshot.epoch, snapshot.step) == (1, 4)
    trainer.backbone.eval()
    features = trainer.backbone(data.train_inputs)
    expected = neural_collapse(features, data.train_targets, trainer.head.weight, trainer.head.bias)
    assert {k: v for k, v in snapshot.train.items() if k not in OF_LOGITS} == pytest.approx(expected)
    for c in range(3):
        torch.testing.assert_close(snapshot.class_means[c], features[data.train_targets == c].mean(0).detach())
    assert snapshot.features.shape == (60, 8) and snapshot.targets.shape == (60,)
    assert snapshot.lr == pytest.approx(0.1 * (1 + math.cos(math.pi / 3)) / 2)
    assert Trainer(SMALL, data=data).snapshot().lr == 0.1


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e25])
def test_a_network_that_has_diverged_says_so_and_is_not_moved(value):
    for recipe in (SMALL, CLOUDS, dataclasses.replace(CLOUDS, head="nearest")):
        trainer = Trainer(recipe)
        trainer.step()
        list(trainer.backbone.parameters())[-1].data.fill_(value)
        for call in (trainer.step, trainer.snapshot):
            with pytest.raises(Diverged, match="features hold NaN"):
                call()
        assert trainer.steps == 1
    trainer = Trainer(SMALL)
    trainer.head.weight.data.mul_(value)
    for call, name in ((trainer.step, "loss"), (trainer.snapshot, "logits")):
        with pytest.raises(Diverged, match=f"{name} hold NaN"):
            call()


def test_calibration_is_that_of_the_definitions():
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(400, 5), torch.randint(5, (400,))
    p = logits.double().softmax(1)
    top, right = p.max(1).values, (p.argmax(1) == targets).double()
    error = 0.0
    for low in range(15):
        here = (top * 15 >= low) & (top * 15 < low + 1)
        if here.any():
            error += float(here.double().mean() * (right[here].mean() - top[here].mean()).abs())
    assert error > 0.1 and float(calibration_error(logits, targets)) == pytest.approx(error, rel=1e-5)
    brier = sum(((p[i] - torch.eye(5)[targets[i]]) ** 2).sum().item() for i in range(400)) / 400
    assert float(brier_score(logits, targets)) == pytest.approx(brier, rel=1e-5)
    sure = 100 * torch.eye(5)
    assert calibration_error(sure, torch.arange(5)) == brier_score(sure, torch.arange(5)) == 0
    assert calibration_error(sure, torch.arange(5).roll(1)) == 1 and brier_score(sure, torch.arange(5).roll(1)) == 2


def test_calibration_is_measured_where_it_is_asked_for():
    trainer = Trainer(SMALL)
    shot = trainer.snapshot(keys=["nc1", "ece"], test_keys=["brier"])
    assert set(shot.train) == {"nc1", "ece"} and set(shot.test) == {"brier"}
    with torch.no_grad():
        logits = trainer.head(trainer.backbone(trainer.data.test_inputs))
    whole = trainer.snapshot()
    assert whole.test["brier"] == shot.test["brier"] == float(brier_score(logits, trainer.data.test_targets))
    assert whole.test["ece"] == float(calibration_error(logits, trainer.data.test_targets))


@pytest.mark.parametrize("heads", [("learned",) * 3, ("nearest",) * 3, ("cosine", "fixed", "learned")])
def test_runs_side_by_side_average_their_logits(heads):
    trainers = [Trainer(dataclasses.replace(SMALL, head=head, seed=seed)) for seed, head in enumerate(heads)]
    for trainer in trainers:
        for _ in range(5):
            trainer.step()
    state = torch.get_rng_state()
    joint, alone = joint_snapshot(trainers), [trainer.snapshot() for trainer in trainers]
    assert torch.equal(torch.get_rng_state(), state)
    inputs, targets = trainers[0].data.test_inputs, trainers[0].data.test_targets
    logits = torch.stack([trainer.head(trainer.backbone(inputs)) for trainer in trainers]).mean(0)
    assert joint.test["accuracy"] == pytest.approx(float((logits.argmax(1) == targets).float().mean()))
    loss = torch.nn.functional.cross_entropy(logits.detach(), targets)
    assert joint.test["loss"] == pytest.approx(float(loss), rel=1e-5)
    torch.testing.assert_close(joint.class_means, torch.cat([snapshot.class_means for snapshot in alone], dim=1))
    assert joint.weight.shape == (3, 24) and joint.epoch == 1
    assert_same(joint_snapshot(trainers[:1]), alone[0])
    assert_same(trainers[0].snapshot(), alone[0])


def test_runs_side_by_side_need_equal_steps():
    ahead = Trainer(SMALL)
    ahead.step()
    for trainers in ([], [Trainer(SMALL), ahead]):
        with pytest.raises(ValueError, match="side by side"):
            joint_snapshot(trainers)


RECIPES = {"plain": SMALL, "clouds": CLOUDS, "union": dataclasses.replace(CLOUDS, head="nearest")}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_same_recipe_gives_the_same_run_whatever_else_draws_random_numbers(recipe):
    first = run(recipe)
    torch.manual_seed(123)
    iterator = train(recipe)
    second = []
    for snapshot in iterator:
        torch.rand(3)
        second.append(snapshot)
    for a, b in zip(first, second, strict=True):
        assert_same(a, b)
    other = run(dataclasses.replace(recipe, seed=1))
    assert not torch.equal(other[-1].class_means, first[-1].class_means)


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_interrupted_run_continues_to_the_same_result(tmp_path):
    recipe = dataclasses.replace(CLOUDS, head="nearest", epochs=5, schedule=SlidingSchedule(1.0, 0.1, 5))
    whole = run(recipe)
    iterator = train(recipe, checkpoint=tmp_path / "run.pt")
    before = list(itertools.islice(iterator, 3))
    iterator.close()
    after = run(recipe, checkpoint=tmp_path / "run.pt")
    assert [s.epoch for s in before] == [0, 1, 2] and [s.epoch for s in after] == [2, 3, 4, 5]
    for a, b in zip(whole[2:], after, strict=True):
        assert_same(a, b)
    assert [s.epoch for s in run(recipe, checkpoint=tmp_path / "run.pt")] == [5]


def test_killed_run_continues_to_the_same_result(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        import test_training, torch
        from ncbook import train
        torch.set_num_threads(1)  # as in the process that goes on, or sums would be split differently
        for snapshot in train(test_training.CLOUDS, checkpoint=sys.argv[1]):
            if snapshot.epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    path = tmp_path / "run.pt"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parent, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert_same(run(CLOUDS, checkpoint=path)[-1], run(CLOUDS)[-1])


def test_state_dict_restores_a_trainer_in_the_middle_of_an_epoch():
    recipe = dataclasses.replace(CLOUDS, head="nearest")
    first, second = Trainer(recipe), Trainer(recipe)
    for _ in range(7):
        first.step()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.step(), second.step())
    assert_same(first.snapshot(), second.snapshot())


def test_recipe_survives_saving():
    for recipe in (SMALL, CLOUDS, Recipe(classes=(3, 1, 7), schedule=None), dataclasses.replace(CLOUDS, p=math.inf)):
        assert Recipe.from_json(recipe.to_json()) == recipe


def test_schedule_sets_beta_and_weight_of_each_epoch():
    snapshots = run(CLOUDS)
    assert [s.beta for s in snapshots] == pytest.approx([math.sqrt((3 - e) / 3) for e in (1, 1, 2, 3)])
    assert [s.densify_weight for s in snapshots] == pytest.approx([0.1 * e / 3 for e in (1, 1, 2, 3)])


class Steep:
    def beta(self, epoch):
        return 2.0 / epoch

    def weight(self, epoch):
        return 0.01 * epoch


def test_own_schedule_works_but_cannot_be_saved(tmp_path):
    recipe = dataclasses.replace(CLOUDS, schedule=Steep())
    assert [s.densify_weight for s in run(recipe)] == pytest.approx([0.01, 0.01, 0.02, 0.03])
    with pytest.raises(TypeError, match="schedule must be one of ncbook.schedules"):
        recipe.to_json()
    with pytest.raises(TypeError, match="schedule must be one of ncbook.schedules"):
        next(train(recipe, checkpoint=tmp_path / "run.pt"))


def test_controls_are_the_callers():
    controls = Controls(lr=0.02)
    trainer = Trainer(CLOUDS, controls=controls)
    assert trainer.snapshot().lr == 0.02
    trainer.step()
    assert trainer.snapshot().lr == 0.02 and controls.p is None


def test_controls_act_on_the_next_step():
    controls = Controls(manual=True)
    recipe = dataclasses.replace(CLOUDS, epochs=60, schedule=ConstantSchedule(9.0, 9.0), lr_decay="constant")
    trainer = Trainer(recipe, controls=controls)
    trainer.step()
    assert (controls.beta, controls.densify_weight) == (0.0, 0.0)
    vanilla = Trainer(dataclasses.replace(recipe, schedule=None))
    vanilla.step()
    for a, b in zip(trainer.backbone.parameters(), vanilla.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
    controls.densify_weight = 0.1
    for _ in range(100):
        trainer.step()
        vanilla.step()
    assert float(trainer.snapshot().deaths.mean()) < 0.6 * float(vanilla.snapshot().deaths.mean())
    controls.lr = 0.0
    before = trainer.backbone[0].weight.clone()
    trainer.step()
    assert torch.equal(trainer.backbone[0].weight, before)
    controls.manual = False
    trainer.step()
    assert (controls.beta, controls.densify_weight) == (9.0, 9.0)


def test_deaths_come_from_the_last_clouds():
    trainer = Trainer(CLOUDS)
    assert trainer.snapshot().deaths is None
    trainer.step()
    assert trainer.snapshot().deaths.shape == (4, 4)
    assert trainer.snapshot(test=False).test == {}


def test_unconstrained_features_collapse():
    recipe = Recipe(dataset="unconstrained", classes=4, train_size=80, backbone="free_features", feature_dim=16,
                    head="nearest", epochs=300, batch_size=80, lr=2.0, weight_decay=0.0)
    last = run(recipe, every=300)[-1]
    assert last.train["nc1"] < 0.02 and last.train["etf_distance"] < 1e-3
    assert last.test == {}


BAD = [
    ({"head": "linear"}, "head must be one of"),
    ({"loss": "mse"}, "loss must be one of"),
    ({"loss": "dot_regression"}, "needs head 'fixed' or 'nearest'"),
    ({"lr_decay": "step"}, "lr_decay must be one of"),
    ({"epochs": 0}, "epochs must be at least 1"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"seed": -1}, "seed must be at least 0, got -1"),
    ({"lr": math.nan}, "lr must be finite"),
    ({"weight_decay": -1}, "weight_decay must be finite"),
    ({"clouds": (4,)}, "clouds must be"),
    ({"clouds": 5}, "clouds must be"),
    ({"p": 3}, "p must be one of 1, 2, inf, got 3"),
    ({"scale": -1}, "scale must be finite and positive"),
    ({"clouds": (4, 1)}, "clouds must be"),
    ({"schedule": ConstantSchedule(1, 1)}, "give clouds"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_bad_recipe_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


def test_bad_calls_are_named(tmp_path):
    with pytest.raises(ValueError, match="data set name must be one of"):
        run(Recipe(dataset="imagenet"))
    with pytest.raises(ValueError, match="backbone name must be one of"):
        run(Recipe(backbone="vit"))
    with pytest.raises(ValueError, match="every"):
        run(SMALL, every=0)
    run(SMALL, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="another recipe"):
        run(CLOUDS, checkpoint=tmp_path / "run.pt")
    trainer = Trainer(SMALL)
    while not trainer.finished:
        trainer.step()
    with pytest.raises(RuntimeError, match="finished"):
        trainer.step()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_result_of_the_cpu():
    recipe = dataclasses.replace(CLOUDS, head="nearest")
    cpu, cuda = (run(dataclasses.replace(recipe, device=device))[-1] for device in ("cpu", "cuda"))
    torch.testing.assert_close(cuda.class_means, cpu.class_means, rtol=1e-2, atol=1e-2)
    assert cuda.train == pytest.approx(cpu.train, rel=0.05, abs=0.02)
