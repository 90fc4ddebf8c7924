"""The nearest-ETF head with its frame held between every k-th training call."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from ncbook.heads import NearestETFHead

DIM, CLASSES = 12, 5


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(CLASSES, (40,), generator=generator)
    return torch.randn(40, DIM, generator=generator) + 2 * F.one_hot(targets, DIM), targets


def frames(head, steps, first=0):
    found = []
    for step in range(first, first + steps):
        head(*batch(step))
        found.append(head.weight.clone())
    return found


def test_frame_is_found_in_the_first_k_calls_and_then_in_every_kth_and_the_rest_moves_on():
    head, plain = NearestETFHead(DIM, CLASSES, update_every=3), NearestETFHead(DIM, CLASSES)
    ours, theirs = frames(head, 9), frames(plain, 9)
    moved = [not torch.equal(a, b) for a, b in zip(ours, ours[1:], strict=False)]
    assert moved == [True, True, True, False, False, True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(ours[:4], theirs[:4], strict=True))
    assert torch.equal(head.averages.mean, plain.averages.mean)
    torch.testing.assert_close(head.bias, -head.weight @ head.averages.mean.mean(0))
    head.refit()
    torch.testing.assert_close(head.weight, plain.weight, atol=5e-3, rtol=0)  # but for the proximal term
    assert "update_every=3" in repr(head)


def test_a_held_frame_passes_gradient_through_features_and_bias_alone():
    head = NearestETFHead(DIM, CLASSES, update_every=4, bias=False)
    frames(head, 5)
    features, targets = batch(5)
    features.requires_grad_()
    loss = F.cross_entropy(head(features, targets), targets)
    (got,) = torch.autograd.grad(loss, features)
    loss = F.cross_entropy(head.embed(features) @ head.weight.T, targets)
    torch.testing.assert_close(got, torch.autograd.grad(loss, features)[0])


def test_evaluation_holding_and_calls_without_targets_do_not_count():
    head = NearestETFHead(DIM, CLASSES, update_every=3)
    frames(head, 5)
    before = copy.deepcopy(head)
    head(batch(0)[0])
    head.eval()(*batch(0))
    with head.train().holding():
        head(*batch(0))
    assert all(torch.equal(a, b) for a, b in zip(frames(head, 4, 5), frames(before, 4, 5), strict=True))


def test_a_saved_head_goes_on_in_step():
    head, again = (NearestETFHead(DIM, CLASSES, update_every=3) for _ in range(2))
    frames(head, 5)
    again.load_state_dict(head.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(frames(head, 4, 5), frames(again, 4, 5), strict=True))
    NearestETFHead(DIM, CLASSES).load_state_dict(head.state_dict())
    head.load_state_dict(NearestETFHead(DIM, CLASSES).state_dict())
    head.reset_parameters()
    assert head.state_dict()["calls"] == 0


@pytest.mark.parametrize("wrap", ["checkpoint", "compile"])
def test_steps_that_are_computed_again_or_compiled_agree(wrap):
    head = NearestETFHead(DIM, CLASSES, update_every=3)
    plain = copy.deepcopy(head)
    call = torch.compile(head, backend="aot_eager") if wrap == "compile" else (
        lambda x, y: checkpoint(head, x, y, use_reentrant=False))
    for step in range(8):
        gradients = []
        for run in (call, plain):
            features, targets = batch(step)
            features.requires_grad_()
            gradients += torch.autograd.grad(F.cross_entropy(run(features, targets), targets), features)
        torch.testing.assert_close(*gradients)
    for a, b in zip(head.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value, error", [(0, ValueError), (1.5, TypeError)])
def test_bad_update_every(value, error):
    with pytest.raises(error, match="update_every must be"):
        NearestETFHead(DIM, CLASSES, update_every=value)
