import copy

import numpy as np
import pytest
import torch

from ncbook.averages import ClassMeanAverage
from ncbook.heads import FixedETFHead


def batch(size=60, dim=7, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % num_classes
    centres = 2 * torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[targets] + torch.randn(size, dim, generator=generator), targets


@pytest.mark.parametrize("method", ["ema", "cma"])
def test_average_follows_its_recurrence(method):
    average = ClassMeanAverage(4, 7, method)
    expected = torch.zeros(4, 7)
    for t in range(1, 6):
        features, targets = batch(seed=t)
        alpha = max(2 / (t + 1), 1e-4) if method == "ema" else 1 / t
        means = torch.stack([features[targets == c].mean(0) for c in range(4)])
        expected = (1 - alpha) * expected + alpha * means
        torch.testing.assert_close(average(features, targets), expected)
    torch.testing.assert_close(average.mean, expected)


def test_cumulative_average_of_equal_batches_is_the_mean_of_all_samples():
    average = ClassMeanAverage(4, 7, "cma")
    batches = [batch(seed=t) for t in range(5)]
    for features, targets in batches:
        average(features, targets)
    features, targets = (torch.cat(x) for x in zip(*batches, strict=True))
    torch.testing.assert_close(average.mean, torch.stack([features[targets == c].mean(0) for c in range(4)]))


def test_smoothing_never_falls_below_its_floor():
    average = ClassMeanAverage(2, 1)
    average.count.fill_(10**6)
    average(torch.ones(2, 1), torch.tensor([0, 1]))
    torch.testing.assert_close(average.mean, torch.full((2, 1), 1e-4))


def test_absent_class_keeps_its_average_and_unseen_class_is_marked():
    average = ClassMeanAverage(4, 7)
    features, targets = batch()
    average(features[targets < 2], targets[targets < 2])
    assert average.seen.tolist() == [True, True, False, False]
    kept = average.mean[0].clone()
    average(features[targets == 1] + 5, targets[targets == 1])
    assert torch.equal(average.mean[0], kept)
    assert average.count.tolist() == [1, 2, 0, 0]


def test_gradient_runs_through_the_current_batch_only():
    average = ClassMeanAverage(4, 7)
    first, targets = batch(seed=1)
    first.requires_grad_()
    average(first, targets)
    second = batch(seed=2)[0].requires_grad_()
    average(second, targets).sum().backward()
    assert first.grad is None
    torch.testing.assert_close(second.grad, torch.full_like(second, 2 / 3 / 15))


def test_features_and_targets_of_any_shape_with_ignored_positions():
    features, targets = batch(size=24)
    flat, shaped = ClassMeanAverage(4, 7), ClassMeanAverage(4, 7, ignore_index=9)
    kept = torch.arange(24) % 5 != 0
    flat(features[kept], targets[kept])
    shaped(features.view(2, 3, 4, 7), torch.where(kept, targets, 9).view(2, 3, 4))
    torch.testing.assert_close(shaped.mean, flat.mean)
    before = shaped.mean.clone()
    shaped(features, torch.full((24,), 9))
    assert torch.equal(shaped.mean, before) and shaped.count.tolist() == [1] * 4
    ClassMeanAverage(4, 7)(features, torch.where(kept, targets, -100))


def test_precision_never_falls_below_float32_and_follows_float64():
    average = ClassMeanAverage(4, 7)
    average(*batch())
    mean = average.mean.clone()
    for cast in (average.bfloat16, average.half, lambda: average.to(torch.bfloat16), average.float):
        cast()
        assert torch.equal(average.mean, mean) and average.mean.dtype == torch.float32
    assert average.double().mean.dtype == torch.float64
    assert average.half().mean.dtype == torch.float32
    assert ClassMeanAverage(4, 7, dtype=torch.bfloat16).mean.dtype == torch.float32


def test_averages_go_on_moving_under_features_of_bfloat16():
    average = ClassMeanAverage(2, 3).bfloat16()
    for sign in (1, -1):
        for _ in range(1000):
            average(sign * torch.eye(2, 3, dtype=torch.bfloat16), torch.arange(2))
    torch.testing.assert_close(average.mean, -0.5 * torch.eye(2, 3), rtol=0.01, atol=0)


def test_holding_gives_the_same_and_moves_nothing():
    average, other = ClassMeanAverage(4, 7), ClassMeanAverage(4, 7)
    for module in (average, other):
        module(*batch(seed=1))
    with average.holding():
        held = [average(*batch(seed=2)) for _ in range(2)]
        assert not copy.deepcopy(average).still
    assert torch.equal(average.mean, other.mean)
    moved = other(*batch(seed=2))
    assert torch.equal(held[0], moved) and torch.equal(held[1], moved)
    assert torch.equal(average(*batch(seed=2)), moved)


def test_from_the_meta_device():
    average = ClassMeanAverage(4, 7, device="meta").to_empty(device="cpu")
    average.reset_parameters()
    assert torch.equal(average.mean, torch.zeros(4, 7)) and not average.seen.any()


BAD = [
    (lambda: ClassMeanAverage(4, 7, "mean"), ValueError, "method must be one of"),
    (lambda: ClassMeanAverage(1, 7), ValueError, "num_classes"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7, dtype=torch.long), torch.zeros(3).long()), TypeError, "features"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.zeros(3)), TypeError, "targets must be int64.*float32"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), np.zeros(3, np.int64)), TypeError, "in a tensor, got a ndarray"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), [0, 1, 2]), TypeError, "in a tensor, got a list"),
    (lambda: ClassMeanAverage(4, 7)(np.ones((3, 7)), torch.zeros(3).long()), TypeError, "features.*got ndarray"),
    (lambda: ClassMeanAverage(4, 7)(torch.full((8, 7), 1e38), torch.zeros(8).long()), ValueError, "must be finite"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 6), torch.zeros(3).long()), ValueError, r"shape \(N, 7\)"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.zeros(2).long()), ValueError, "targets"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(0, 7), torch.zeros(0).long()), ValueError, "empty batch"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.tensor([0, 1, 4])), ValueError, r"0\.\.3, got 0\.\.4"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.tensor([0, -1, 2])), ValueError, "got -1"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_ignored_samples_may_have_the_label_of_a_class(backend):
    features, targets = torch.randn(40, 7), torch.arange(40) % 4
    averages = ClassMeanAverage(4, 7, ignore_index=0)
    call = averages if backend is None else torch.compile(averages, backend=backend)
    call(features, targets)
    assert averages.count.tolist() == [0, 1, 1, 1] and not averages.mean[0].any()
    torch.testing.assert_close(averages.mean[2], features[targets == 2].mean(0))
    centred = FixedETFHead(7, 4, centred=True, ignore_index=0)
    centred(features, targets)
    torch.testing.assert_close(centred.averages.mean[0], centred.embed(features[targets != 0]).mean(0))
