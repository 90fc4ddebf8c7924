import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbook.averages import ClassMeanAverage
from ncbook.etf import nearest_simplex_etf, simplex_etf
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead
from ncbook.losses import dot_regression_loss


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


def heads(dim=7, num_classes=4):
    return [LearnedHead(dim, num_classes), LearnedHead(dim, num_classes, cosine=True), FixedETFHead(dim, num_classes),
            NearestETFHead(dim, num_classes)]


@pytest.mark.parametrize("index", range(4))
def test_head_takes_the_place_of_the_last_linear(index):
    head = heads()[index]
    features, targets = batch()
    head(features, targets)
    state = {name: value.clone() for name, value in head.state_dict().items()}
    head.eval()
    model = torch.nn.Sequential(torch.nn.Identity(), head)
    bias = torch.zeros(4) if head.bias is None else head.bias
    torch.testing.assert_close(model(features), head.embed(features) @ head.weight.T + bias)
    other = heads()[index].eval()
    other.load_state_dict(state)
    assert torch.equal(other(features), head(features))


def test_plain_learned_head_is_nn_linear():
    head, linear = LearnedHead(7, 4), torch.nn.Linear(7, 4)
    linear.load_state_dict(head.state_dict())
    features, _ = batch()
    assert torch.equal(head(features), linear(features))


def test_cosine_head_has_unit_rows_and_bounded_logits():
    head = LearnedHead(7, 4, cosine=True, scale=5)
    features, _ = batch()
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(4))
    expected = 5 * F.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)


def test_fixed_head_has_nothing_to_train():
    head = FixedETFHead(7, 4)
    assert not list(head.parameters())
    torch.testing.assert_close(head.weight, simplex_etf(4, 7))


def test_nearest_head_uses_the_nearest_etf_of_its_averages():
    head = NearestETFHead(7, 4, proximal=0.0)
    features, targets = batch()
    logits = head(features, targets)
    embedded = 5 * F.normalize(features, dim=1)
    means = torch.stack([embedded[targets == c].mean(0) for c in range(4)])
    weight = nearest_simplex_etf(means)
    torch.testing.assert_close(head.weight, weight)
    torch.testing.assert_close(logits, (embedded - means.mean(0)) @ weight.T)


def test_nearest_head_gradient_equals_finite_differences():
    features, targets = batch(size=12, dim=5)
    start = {name: value.double() if value.is_floating_point() else value
             for name, value in NearestETFHead(5, 4).state_dict().items()}

    def loss(x):
        head = NearestETFHead(5, 4).double()
        head.load_state_dict(start)
        return F.cross_entropy(head(x, targets), targets)

    assert torch.autograd.gradcheck(loss, features.double().requires_grad_())


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 59))
def test_evaluation_does_not_depend_on_the_batch(seed, cut):
    head = NearestETFHead(7, 4)
    head(*batch(seed=seed))
    head.eval()
    features, targets = batch(seed=seed + 1)
    whole = head(features, targets)
    parts = torch.cat([head(features[:cut], targets[:cut]), head(features[cut:], targets[cut:])])
    torch.testing.assert_close(whole, parts)
    assert int(head.averages.count.max()) == 1


@pytest.mark.parametrize("present", [[0], [0, 1], [0, 1, 2]])
def test_classes_not_seen_yet_do_not_take_part(present):
    head = NearestETFHead(7, 4)
    features, targets = batch()
    keep = torch.isin(targets, torch.tensor(present))
    features = features[keep].requires_grad_()
    F.cross_entropy(head(features, targets[keep]), targets[keep]).backward()
    assert features.grad.isfinite().all()
    gram = head.weight @ head.weight.T
    torch.testing.assert_close(gram, (4 * torch.eye(4) - 1) / 3, rtol=0, atol=1e-5)
    if len(present) > 1:
        embedded = 5 * F.normalize(features.detach(), dim=1)
        means = torch.stack([embedded[targets[keep] == c].mean(0) for c in present])
        means = means - means.mean(0)
        ours = (head.weight[present] * means).sum()
        generator = torch.Generator().manual_seed(0)
        others = [(simplex_etf(4, 7, generator=generator)[present] * means).sum() for _ in range(200)]
        assert ours > max(others)


def test_targets_reach_a_head_inside_a_model():
    features, targets = batch()
    direct, inside = NearestETFHead(7, 4), NearestETFHead(7, 4)
    model = torch.nn.Sequential(torch.nn.Identity(), inside)
    with inside.observing(targets):
        logits = model(features)
    assert torch.equal(logits, direct(features, targets))
    model(features)
    assert int(inside.averages.count.max()) == 1


def test_autocast_leaves_the_classifier_alone():
    inside, outside = NearestETFHead(7, 4), NearestETFHead(7, 4)
    features, targets = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside(features, targets)
    outside(features, targets)
    assert torch.equal(inside.weight, outside.weight) and torch.equal(inside.bias, outside.bias)


@pytest.mark.parametrize("num_classes", [4, 7, 10])
def test_a_first_batch_of_one_class_moves_nothing(num_classes):
    head = NearestETFHead(16, num_classes)
    before = head.weight.clone()
    features = torch.randn(20, 16, requires_grad=True)
    targets = torch.full((20,), 2)
    F.cross_entropy(head(features, targets), targets).backward()
    torch.testing.assert_close(head.weight, before)
    assert float(features.grad.norm()) < 10


def test_dot_regression_is_zero_exactly_when_features_sit_on_their_vertex():
    etf = simplex_etf(4, 7)
    targets = torch.arange(4)
    assert float(dot_regression_loss(etf @ etf.T, targets)) == pytest.approx(0, abs=1e-12)
    logits = torch.tensor([[0.0, 2.0], [3.0, 0.5]])
    assert float(dot_regression_loss(logits, torch.tensor([0, 1]))) == pytest.approx((1 + 0.25) / 4)


BAD = [
    (lambda: ClassMeanAverage(4, 7, "mean"), ValueError, "method must be one of"),
    (lambda: ClassMeanAverage(1, 7), ValueError, "num_classes"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7, dtype=torch.long), torch.zeros(3).long()), TypeError, "features"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.zeros(3)), TypeError, "targets must be int64"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 6), torch.zeros(3).long()), ValueError, r"shape \(N, 7\)"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.zeros(2).long()), ValueError, "targets"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(0, 7), torch.zeros(0).long()), ValueError, "empty batch"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.tensor([0, 1, 4])), ValueError, r"0\.\.3, got 0\.\.4"),
    (lambda: ClassMeanAverage(4, 7)(torch.ones(3, 7), torch.tensor([0, -1, 2])), ValueError, "got -1"),
    (lambda: NearestETFHead(7, 4)(torch.full((3, 7), torch.nan), torch.zeros(3).long()), ValueError, "finite"),
    (lambda: NearestETFHead(2, 4), ValueError, "got in_features = 2 and out_features = 4"),
    (lambda: FixedETFHead(2, 4), ValueError, "got in_features = 2 and out_features = 4"),
    (lambda: FixedETFHead(7, 1), ValueError, "out_features >= 2"),
    (lambda: FixedETFHead(7, 4, scale=0), ValueError, "scale"),
    (lambda: LearnedHead(7, 4, cosine=True, scale=math.inf), ValueError, "scale"),
    (lambda: NearestETFHead(7, 4, proximal=-1), ValueError, "proximal"),
    (lambda: NearestETFHead(7, 4, method="mean"), ValueError, "method"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_batch_leaves_the_averages_alone():
    head = NearestETFHead(7, 4)
    head(*batch())
    before = head.averages.mean.clone()
    with pytest.raises(ValueError, match="finite"):
        head(torch.full((4, 7), torch.inf), torch.arange(4))
    assert torch.equal(head.averages.mean, before)
