"""The torchmetrics form: equal to `neural_collapse`, in collections, saved, cast and cloned. Ranks: see ranks.py."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

from ncbook.metrics import neural_collapse
from ncbook.torchmetric import CollapseMetric

CLASSES, DIM = 5, 12


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(200) % CLASSES
    means = 2 * torch.randn(CLASSES, DIM, generator=generator)
    return torch.randn(200, DIM, generator=generator) + means[targets], targets


@pytest.fixture
def head():
    return nn.Linear(DIM, CLASSES)


def filled(metric, data, size=30):
    for part in zip(data[0].split(size), data[1].split(size), strict=True):
        metric(*part)
    return metric


def assert_values(metric, expected):
    assert {key: float(value) for key, value in metric.compute().items()} == pytest.approx(expected, rel=1e-9)


def test_equals_the_functional_form_and_starts_anew_after_reset(data, head):
    expected = neural_collapse(*data, head.weight, head.bias)
    metric = filled(CollapseMetric(CLASSES, DIM, classifier=head, keep_features=True), data)
    assert_values(metric, expected)
    metric.reset()
    with torch.inference_mode():
        metric.reset()
    assert_values(filled(metric, data, 7), expected)
    with torch.inference_mode():
        metric.reset()
        filled(metric, data)
    assert_values(metric, expected)


def test_classifier_is_read_when_computed_and_no_part_of_the_state(data, head):
    metric = filled(CollapseMetric(CLASSES, DIM, classifier=head, keys=["nc3"]), data)
    with torch.no_grad():
        head.weight.mul_(-1)
    clone = metric.clone()
    assert_values(clone, {"nc3": neural_collapse(*data, head.weight)["nc3"]})
    assert list(metric.parameters()) == [] and metric.state_dict() == {}


def test_without_kept_features_the_keys_that_need_them_are_absent_and_nothing_grows(data, head):
    metric = filled(CollapseMetric(CLASSES, DIM, classifier=head), data)
    size = len(pickle.dumps(metric))
    assert {"nc4", "accuracy", "cosine_margin", "numerical_rank"}.isdisjoint(metric.compute())
    metric._computed = None
    assert len(pickle.dumps(filled(metric, data))) == size


def test_collection_names_and_updates_its_metrics_together(data, head):
    ours = {"plain": CollapseMetric(CLASSES, DIM, keys=["nc1"]),
            "head": CollapseMetric(CLASSES, DIM, classifier=head, keys=["nc1", "nc3"])}
    metrics = MetricCollection(ours, prefix="val_")
    values = filled(metrics, data).compute()
    expected = neural_collapse(*data, head.weight, head.bias)
    assert {key: float(value) for key, value in values.items()} == pytest.approx(
        {"val_plain_nc1": expected["nc1"], "val_head_nc1": expected["nc1"], "val_head_nc3": expected["nc3"]}, rel=1e-9)


def test_state_dict_goes_through_a_safe_load(data, head):
    metric = filled(CollapseMetric(CLASSES, DIM, classifier=head, keep_features=True), data)
    metric.persistent(True)
    torch.save(metric.state_dict(), file := io.BytesIO())
    file.seek(0)
    other = CollapseMetric(CLASSES, DIM, classifier=head, keep_features=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    half = data[0][:50], data[1][:50]
    other.update(*half)
    metric.update(*half)
    assert_values(other, {key: float(value) for key, value in metric.compute().items()})


def test_casts_leave_the_moments_and_copies_are_independent(data, head):
    metric = filled(CollapseMetric(CLASSES, DIM, classifier=head, keep_features=True), data)
    expected = neural_collapse(*data, head.weight, head.bias)
    for cast in (lambda m: m.half(), lambda m: m.to(torch.bfloat16), lambda m: m.set_dtype(torch.float16)):
        assert_values(cast(copy.deepcopy(metric)), expected)
    filled(copy.deepcopy(metric), (data[0] + 1, data[1]))
    assert_values(pickle.loads(pickle.dumps(metric)), expected)


def test_merge_of_states(data):
    first, second = (filled(CollapseMetric(CLASSES, DIM), (data[0][k::2], data[1][k::2])) for k in (0, 1))
    first.merge_state(second)
    assert_values(first, {key: value for key, value in neural_collapse(*data).items() if key != "numerical_rank"})


def test_bad_batches_are_refused_as_everywhere(data):
    with pytest.raises(ValueError, match=r"features must have 12 columns, got shape \(200, 11\)"):
        CollapseMetric(CLASSES, DIM).update(data[0][:, :11], data[1])
    with pytest.raises(ValueError, match=r"targets must lie in 0..3, got 0..4"):
        CollapseMetric(4, DIM).update(*data)
