"""Open from outside: what is added without touching the package trains, is saved, read back, tabulated and shown."""

import dataclasses
from contextlib import closing

import pytest
import torch
from torch import nn

from ncbook import Dataset, LearnedHead, Recipe, Trainer, neural_collapse, plots, train
from ncbook.experiments import Unit, read_rows, run_table
from ncbook.heads import HEADS, HeadKind
from ncbook.live import LiveLab
from ncbook.metrics import METRICS, Metric
from ncbook.schedules import SCHEDULES
from ncbook.training.backbones import BACKBONES, Backbone
from ncbook.training.data import DATASETS, Source
from ncbook.training.regularisers import REGULARISERS, Dial, regulariser


class TemperedHead(LearnedHead):
    def forward(self, features, targets=None):
        return super().forward(features) / 2


@regulariser(Dial("pull", 0, 1, 0.0, "pull", "pull"))
def towards_mean(clouds, controls):
    return controls.pull * (clouds - clouds.mean(1, keepdim=True)).square().mean()


class Rising:
    """Pull rises from 0 with the epochs."""

    def __init__(self, slope):
        self.slope = slope

    def pull(self, epoch):
        return self.slope * epoch

    def to_dict(self):
        return {"schedule": "Rising", "slope": self.slope}

    def __eq__(self, other):
        return isinstance(other, Rising) and self.slope == other.slope


def spirals():
    angle = torch.linspace(0, 3, 60)
    arms = [torch.stack([(angle + turn).cos() * angle, (angle + turn).sin() * angle], dim=1) for turn in (0, 2, 4)]
    inputs, targets = torch.cat(arms), torch.arange(3).repeat_interleave(60)
    return Dataset("spirals", inputs[::2], targets[::2], inputs[1::2], targets[1::2], ("a", "b", "c"))


def wide(input_shape):
    return [nn.Linear(*input_shape, 32), nn.Tanh()], 32


def longest_mean(summary):
    return summary.mean.norm(dim=1).max()


@pytest.fixture
def outside(monkeypatch):
    monkeypatch.setitem(HEADS, "tempered", HeadKind(TemperedHead, "tempered", learned=True))
    monkeypatch.setitem(REGULARISERS, "towards_mean", towards_mean)
    monkeypatch.setitem(SCHEDULES, "Rising", Rising)
    monkeypatch.setitem(DATASETS, "spirals", Source(spirals))
    monkeypatch.setitem(BACKBONES, "wide", Backbone(wide))
    monkeypatch.setitem(METRICS, "longest_mean", Metric("longest_mean", "longest class mean", longest_mean))
    return Recipe(dataset="spirals", backbone="wide", head="tempered", clouds=(4, 6), regulariser="towards_mean",
                  schedule=Rising(0.1), epochs=2, device="cpu")


def test_it_trains_and_is_saved_and_goes_on(outside, tmp_path):
    last = list(train(outside, checkpoint=tmp_path / "run.pt"))[-1]
    assert last.dials == {"pull": 0.2} and last.row()["pull"] == 0.2 and last.train["longest_mean"] > 0
    assert Recipe.from_json(outside.to_json()) == outside
    again = list(train(outside, checkpoint=tmp_path / "run.pt"))
    assert len(again) == 1 and again[0].row() == last.row()


def test_its_regulariser_acts(outside):
    def scatter(slope):
        shot = list(train(dataclasses.replace(outside, schedule=Rising(slope), epochs=20), every=20))[-1]
        return float((shot.features - shot.class_means[shot.targets]).square().mean())

    assert scatter(1.0) < 0.5 * scatter(0.0)


def test_its_rows_are_kept_and_read_back(outside, tmp_path):
    unit = Unit("mine", outside)
    (row,) = run_table([unit], tmp_path / "mine.csv", jobs=1, progress=False)
    assert read_rows(tmp_path / "mine.csv") == [row]
    assert float(row["train_longest_mean"]) > 0
    again = Unit.from_settings("mine", row["settings"])
    assert dataclasses.replace(again.recipe, device="cpu") == outside


def test_its_metric_is_one_of_all(outside):
    data = spirals()
    metrics = neural_collapse(data.train_inputs, data.train_targets)
    assert list(metrics)[-1] == "longest_mean"
    assert metrics["longest_mean"] == pytest.approx(max(
        float(data.train_inputs[data.train_targets == c].double().mean(0).norm()) for c in range(3)))


def test_what_cannot_be_read_back_is_refused_before_training(outside, tmp_path, monkeypatch):
    monkeypatch.delitem(SCHEDULES, "Rising")
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("trained"))
    for begin in (lambda: next(train(outside, checkpoint=tmp_path / "run.pt")),
                  lambda: run_table([Unit("mine", outside)], tmp_path / "mine.csv", jobs=1, progress=False)):
        with pytest.raises(TypeError, match="SCHEDULES to be saved"):
            begin()
    assert not list(tmp_path.glob("*.csv")) and not (tmp_path / "run.pt").exists()


class Forgetful(Rising):
    def to_dict(self):
        return {"name": "Forgetful", "slope": self.slope}


class Unequal(Rising):
    __eq__ = object.__eq__

    def to_dict(self):
        return {"schedule": "Unequal", "slope": self.slope}


@pytest.mark.parametrize("kind", [Forgetful, Unequal])
def test_schedule_that_would_not_read_back_equal_is_refused_before_training(outside, kind, monkeypatch, tmp_path):
    monkeypatch.setitem(SCHEDULES, kind.__name__, kind)
    with pytest.raises(TypeError, match="must read back equal from its to_dict"):
        next(train(dataclasses.replace(outside, schedule=kind(0.1)), checkpoint=tmp_path / "run.pt"))
    assert not list(tmp_path.iterdir())


def put(mapping, key, value):
    return lambda monkeypatch: monkeypatch.setitem(mapping, key, value)


WRONG = [
    (put(HEADS, "mine", TemperedHead), lambda: Recipe(head="mine"), TypeError, r"HEADS\['mine'\] must be a HeadKind"),
    (put(HEADS, "mine", HeadKind(TemperedHead, "mine", ("margin",))), lambda: Recipe(head="mine"), ValueError,
     "fields of Recipe, got .'margin'"),
    (put(REGULARISERS, "mine", lambda clouds, controls: 0.0), lambda: Recipe(regulariser="mine", clouds=(2, 3)),
     TypeError, "declare it with @regulariser"),
    (put(REGULARISERS, "mine", towards_mean), lambda: Recipe(regulariser="mine"), ValueError,
     "regulariser 'mine' needs same-class clouds"),
    (put(METRICS, "mine", longest_mean), lambda: metrics(), TypeError, r"METRICS\['mine'\] must be a Metric"),
    (put(METRICS, "mine", Metric("other", "", longest_mean)), lambda: metrics(), TypeError, "a Metric of that key"),
    (put(METRICS, "mine", Metric("mine", "", lambda s: s.count)), lambda: metrics(), ValueError,
     r"metric 'mine' must be a number, got one of shape \(3,\)"),
    (lambda _: None, lambda: Metric("mine", "", longest_mean, needs=("weight",)), ValueError, "needs must be one of"),
    (lambda _: None, lambda: Metric("mine", "", longest_mean, axis="logg"), ValueError, "axis must be one of"),
    (lambda _: None, lambda: Dial("lr", 0, 1, 0.0, "lr", "lr"), ValueError, "which controls have anyway"),
]


def metrics():
    data = spirals()
    return neural_collapse(data.train_inputs, data.train_targets)


@pytest.mark.parametrize(("enter", "use", "error", "message"), WRONG)
def test_an_entry_that_cannot_work_is_named(enter, use, error, message, monkeypatch):
    enter(monkeypatch)
    with pytest.raises(error, match=message):
        use()


def test_a_share_from_outside_is_in_per_cent_too(outside, monkeypatch):
    half = Metric("half", "half", lambda summary: 0.5, share=True)
    monkeypatch.setitem(METRICS, "half", half)
    shot = Trainer(outside).snapshot()
    assert shot.train["half"] == 0.5 and shot.row()["train_half"] == 50 and plots.metric_label("half") == "half, %"


def test_its_schedule_is_drawn_and_listed_where_it_fits(outside):
    fig = plots.schedule_curves({"rising": outside.schedule}, 4, regulariser="towards_mean")
    assert [fig.data[0].y[0], fig.data[0].y[-1]] == pytest.approx([0.1, 0.4]) and len(fig.data) == 1
    with closing(LiveLab(outside)) as lab:
        lab.run(2)
        assert lab.error is None and lab.trainer.recipe == outside
        with pytest.raises(ValueError, match="schedule must be one of 'by hand', got 'sliding'"):
            lab.set(schedule="sliding")
        with pytest.raises(ValueError, match="pull must be a finite number of at least 0"):
            lab.set(pull=-1)
        assert repr(lab.runs[-1]).startswith("Run('1: spirals, 3 classes, tempered") and len(repr(lab.runs[-1])) < 100
