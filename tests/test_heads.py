import copy
import math
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbook.etf import nearest_simplex_etf, simplex_etf
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead
from ncbook.losses import dot_regression_loss


def batch(size=60, dim=7, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % num_classes
    centres = 2 * torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[targets] + torch.randn(size, dim, generator=generator), targets


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
    gram = head.weight @ head.weight.T
    torch.testing.assert_close(gram, (4 * torch.eye(4) - 1) / 3)


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


@pytest.mark.parametrize("make", [NearestETFHead, partial(FixedETFHead, centred=True)], ids=["nearest", "centred"])
def test_autocast_leaves_the_classifier_alone(make):
    inside, outside = make(7, 4), make(7, 4)
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


def state_of(head):
    return {name: value.clone() for name, value in head.state_dict().items()}


def assert_same_state(head, state):
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


def test_call_that_fails_half_way_leaves_everything_as_it_was(monkeypatch):
    head = NearestETFHead(7, 4)
    head(*batch())
    state = state_of(head)

    def fail(*_, **__):
        raise torch.linalg.LinAlgError("did not converge")

    with monkeypatch.context() as patch, pytest.raises(torch.linalg.LinAlgError):
        patch.setattr(torch.linalg, "svd", fail)
        head(*batch(seed=1))
    assert_same_state(head, state)


def test_proximal_of_zero_with_one_class_keeps_the_frame():
    head = NearestETFHead(7, 4, proximal=0)
    before = head.weight.clone()
    features = batch()[0].requires_grad_()
    F.cross_entropy(head(features, torch.zeros(60).long()), torch.zeros(60).long()).backward()
    torch.testing.assert_close(head.weight, before)
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("frame", ["nonnegative", "canonical"])
def test_behind_a_relu_the_default_frame_reaches_every_class_and_the_canonical_one_does_not(frame):
    head = FixedETFHead(16, 5, frame=frame)
    features = torch.randn(10_000, 16).relu()
    predicted = head(features).argmax(1).unique().tolist()
    assert predicted == ([0] if frame == "canonical" else [0, 1, 2, 3, 4])


def train_behind_relu(head, steps=150):
    features, targets = batch(size=200, dim=10, num_classes=5)
    model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), head)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(features), targets).backward()
        optimizer.step()
    return float((model.eval()(features).argmax(1) == targets).float().mean())


def test_fixed_heads_learn_behind_a_relu():
    rotated = torch.Generator().manual_seed(0)
    for head in (FixedETFHead(16, 5), FixedETFHead(16, 5, frame=rotated)):
        assert train_behind_relu(head) > 0.9
    head = FixedETFHead(16, 5, frame="canonical", centred=True)
    with head.observing(batch(size=200, dim=10, num_classes=5)[1]):
        assert train_behind_relu(head) > 0.9
    assert train_behind_relu(FixedETFHead(16, 5, frame="canonical")) < 0.5


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(0, 40))
def test_nonnegative_frame_is_the_centred_form_of_orthonormal_blocks(num_classes, more):
    weight = FixedETFHead(num_classes + more, num_classes, dtype=torch.float64).weight
    gram = (num_classes * torch.eye(num_classes, dtype=torch.float64) - 1) / (num_classes - 1)
    torch.testing.assert_close(weight @ weight.T, gram, rtol=0, atol=1e-12)
    u = weight * math.sqrt((num_classes - 1) / num_classes)
    u = u - u.amin(0)  # undoes the centring, for in each coordinate that is used all other classes are zero
    torch.testing.assert_close(u @ u.T, torch.eye(num_classes, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (u > 1e-9).sum(1).tolist() == [(num_classes + more) // num_classes] * num_classes


def test_nearest_head_learns_behind_a_relu_from_its_canonical_start():
    head = NearestETFHead(16, 5)
    features, targets = batch(size=200, dim=10, num_classes=5)
    with head.observing(targets):
        assert train_behind_relu(head) > 0.9


@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead])
def test_head_on_the_meta_device_gives_shapes(make):
    features, targets = torch.empty(3, 7, device="meta"), torch.empty(3, dtype=torch.long, device="meta")
    assert make(7, 4, device="meta")(features, targets).shape == (3, 4)


def test_dot_regression_takes_tokens_and_leaves_ignored_ones_out():
    logits, targets = torch.randn(2, 3, 4), torch.tensor([[0, 1, -100], [3, -100, 2]])
    expected = [(logits[i, j, targets[i, j]] - 1) ** 2 for i, j in ((0, 0), (0, 1), (1, 0), (1, 2))]
    torch.testing.assert_close(dot_regression_loss(logits, targets), sum(expected) / 8)


def test_frames_are_named_canonical_says_so_and_rotated_repeats():
    with pytest.warns(UserWarning, match="in_features = 3 leaves no room.*behind a ReLU"):
        head = FixedETFHead(3, 4)
    assert torch.equal(head.weight, simplex_etf(4, 3)) and head.frame == "canonical"
    assert torch.equal(FixedETFHead(7, 4, frame="canonical").weight, simplex_etf(4, 7))
    first, second = (FixedETFHead(7, 4, frame=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    torch.testing.assert_close(first.weight, simplex_etf(4, 7, generator=torch.Generator().manual_seed(3)))
    again = copy.deepcopy(first).to("meta").to_empty(device="cpu")
    again.reset_parameters()
    assert torch.equal(again.weight, first.weight)


def test_centred_bias_is_minus_w_times_the_average_of_the_batch_means():
    head = FixedETFHead(7, 4, centred=True)
    average = torch.zeros(7)
    for t in range(1, 5):
        features, targets = batch(seed=t)
        logits = head(features, targets)
        average = torch.lerp(average, head.embed(features).mean(0), 2 / (t + 1))
        torch.testing.assert_close(head.bias, -head.weight @ average)
        torch.testing.assert_close(logits, head.embed(features) @ head.weight.T + head.bias)
    state = state_of(head)
    head.eval()(features)
    assert_same_state(head, state)
    ignoring, part = FixedETFHead(7, 4, centred=True), FixedETFHead(7, 4, centred=True)
    ignoring(features, torch.where(targets == 0, -100, targets))
    part(features[targets != 0], targets[targets != 0])
    torch.testing.assert_close(ignoring.bias, part.bias)


def test_centred_head_is_taught_as_the_nearest_one_is():
    head, other = FixedETFHead(7, 4, centred=True), FixedETFHead(7, 4, centred=True)
    with pytest.warns(UserWarning, match=r"FixedETFHead .* never been given targets.*head\.observing"):
        head(batch()[0])
    with head.observing(batch(seed=1)[1]):
        logits = head(batch(seed=1)[0])
    assert torch.equal(logits, other(*batch(seed=1)))
    state = state_of(head)
    assert torch.equal(head(batch(seed=2)[0]), head.eval()(batch(seed=2)[0]))
    with head.train().holding():
        held = head(*batch(seed=2))
    assert_same_state(head, state)
    assert torch.equal(held, other(*batch(seed=2)))
    with FixedETFHead(7, 4).holding() as plain:
        plain(*batch())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_embedding_can_be_differentiated_twice_and_forward():
    head = FixedETFHead(7, 4, dtype=torch.float64)
    x, direction = (batch(seed=seed)[0][:5].double() for seed in (1, 2))
    assert torch.autograd.gradcheck(head, x.requires_grad_(), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(head, x)
    _, tangent = torch.func.jvp(head.embed, (x.detach(),), (direction,))
    jacobian = torch.func.jacrev(head.embed)(x.detach())
    torch.testing.assert_close(tangent, (jacobian * direction).sum((-1, -2)))


def test_untaught_head_says_so_once():
    head = NearestETFHead(7, 4)
    features, targets = batch()
    with pytest.warns(UserWarning, match=r"never been given targets.*head\.observing"):
        head(features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head(features)
        taught = NearestETFHead(7, 4)
        taught(features, targets)
        taught(features)
        resumed = NearestETFHead(7, 4)
        resumed.load_state_dict(taught.state_dict())
        resumed(features)
        NearestETFHead(7, 4).eval()(features)


def test_observing_nests_and_is_not_copied():
    head, other = NearestETFHead(7, 4), NearestETFHead(7, 4)
    features, targets = batch()
    with head.observing(targets):
        with head.observing(targets.flip(0)):
            head(features)
        head(features)
        copied = copy.deepcopy(head)
    other(features, targets.flip(0))
    other(features, targets)
    assert_same_state(head, other.state_dict())
    copied(features)
    assert_same_state(copied, head.state_dict())


def test_holding_gives_the_logits_and_moves_nothing():
    head, other = NearestETFHead(7, 4), NearestETFHead(7, 4)
    head(*batch(seed=1)), other(*batch(seed=1))
    state = state_of(head)
    with head.holding():
        logits = head(*batch(seed=2))
    assert_same_state(head, state)
    assert torch.equal(logits, other(*batch(seed=2)))
    fresh, other = NearestETFHead(7, 4), NearestETFHead(7, 4)
    features, targets = batch()
    for kept in (targets >= 0, targets < 2):
        with fresh.holding():
            held = fresh(features[kept], targets[kept])
        torch.testing.assert_close(held, other(features[kept], targets[kept]))
        other.reset_parameters()


def test_a_class_whose_mean_is_zero_has_been_seen():
    head = NearestETFHead(7, 4, scale=None)
    features, targets = batch()
    head(features[targets < 3], targets[targets < 3])
    mean = head.averages.mean
    mean[2] = 0
    head.refit()
    torch.testing.assert_close(head.bias, -head.weight @ (mean[0] + mean[1]) / 3)


@pytest.mark.parametrize("average", [lambda old, new, n: 0.9 * old + 0.1 * new, None])
def test_refit_mends_a_head_whose_buffers_were_averaged(average):
    head = NearestETFHead(7, 4)
    mean = torch.optim.swa_utils.AveragedModel(head, avg_fn=average, use_buffers=True)
    turn = torch.ones(7, 7).triu(1) - torch.ones(7, 7).tril(-1)
    for t in range(30):
        features, targets = batch(seed=t)
        with torch.no_grad():
            head(features @ torch.linalg.matrix_exp(0.3 * t * turn), targets)
        mean.update_parameters(head)
    ideal = (4 * torch.eye(4) - 1) / 3
    averaged = mean.module
    assert (averaged.weight @ averaged.weight.T - ideal).abs().max() > 0.01
    assert averaged.refit() is averaged
    torch.testing.assert_close(averaged.weight @ averaged.weight.T, ideal)
    means = averaged.averages.mean
    torch.testing.assert_close(averaged.weight, nearest_simplex_etf(means), rtol=0, atol=0.02)
    torch.testing.assert_close(averaged.bias, -averaged.weight @ means.mean(0))
    before = head.weight.clone()
    torch.testing.assert_close(head.refit().weight, before, rtol=0, atol=0.01)
