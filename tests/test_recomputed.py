"""Heads under activation checkpointing, which runs a forward again in the backward, and with other calls around it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ncbook.heads import FixedETFHead, NearestETFHead

CENTRED = partial(FixedETFHead, centred=True)
following = pytest.mark.parametrize("make", [NearestETFHead, CENTRED], ids=["nearest", "centred"])


def batch(size=60, dim=7, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % num_classes
    centres = 2 * torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[targets] + torch.randn(size, dim, generator=generator), targets


def assert_same_state(head, state):
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("observing", [False, True])
@pytest.mark.parametrize("make", [NearestETFHead, partial(FixedETFHead, centred=True)], ids=["nearest", "centred"])
def test_activation_checkpointing_changes_nothing(make, reentrant, observing):
    plain, recomputed = make(7, 4), make(7, 4)
    observing = observing and isinstance(plain, NearestETFHead)
    for t in range(4):
        features, targets = batch(seed=t)
        x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
        F.cross_entropy(plain(x, targets), targets).backward()
        checkpoint = partial(torch.utils.checkpoint.checkpoint, recomputed, use_reentrant=reentrant)
        if observing:
            with recomputed.observing(targets):
                logits = checkpoint(y)
        else:
            logits = checkpoint(y, targets)
        with torch.no_grad():
            recomputed.eval()(features)
            recomputed.train()
            if isinstance(plain, NearestETFHead):  # a training call of the other is one more batch
                recomputed(features)
        F.cross_entropy(logits, targets).backward()
        assert torch.equal(x.grad, y.grad)
        assert_same_state(recomputed, plain.state_dict())


def tiny(seed):
    features, targets = batch(seed=seed)
    return 1e-5 * features, targets


def collapsed(seed):
    noise, targets = torch.randn(60, 7, generator=torch.Generator().manual_seed(seed)), torch.arange(60) % 4
    return 2 * torch.eye(4, 7)[targets] + 1e-3 * noise, targets


@pytest.mark.parametrize("draw", [lambda seed: batch(seed=seed), tiny, collapsed], ids=["batch", "tiny", "collapsed"])
def test_checkpointing_several_batches_before_a_backward_is_refused(draw):
    head = NearestETFHead(7, 4, scale=None)
    first, second = (torch.utils.checkpoint.checkpoint(head, x.requires_grad_(), y, use_reentrant=False)
                     for x, y in (draw(1), draw(2)))
    with pytest.raises(RuntimeError, match="computes again a batch that is not the last one"):
        (first.sum() + second.sum()).backward()


def call(head, x, targets, way, reentrant=False):
    """A call whose targets are given, observed or absent, checkpointed where the way says so."""
    run = partial(torch.utils.checkpoint.checkpoint, head, use_reentrant=reentrant) if "again" in way else head
    if "observed" in way:
        with head.observing(targets):
            return run(x)
    return run(x, targets) if "given" in way else run(x)


@following
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("bare", ["bare", "bare again"])
@pytest.mark.parametrize("taught", ["given again", "observed again"])
@pytest.mark.parametrize("first", ["taught", "bare"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_call_without_targets_may_stand_beside_a_checkpointed_one(make, reentrant, bare, taught, first, order):
    plain, recomputed = make(7, 4), make(7, 4)
    for t in range(3):
        found = []
        for head, again in ((plain, ""), (recomputed, " again")):
            inputs = [batch(seed=2 * t + k)[0].requires_grad_() for k in (0, 1)]
            targets = batch()[1]
            ways = {0: taught.removesuffix(" again") + again, 1: bare if again else "bare"}
            if t == 0:
                head(*batch(seed=50))
            losses = {}
            for k in (0, 1) if first == "taught" else (1, 0):
                logits = call(head, inputs[k], targets, ways[k], reentrant)
                losses[k] = F.cross_entropy(logits, targets)
            for k in order:
                losses[k].backward()
            found.append([x.grad for x in inputs])
        for a, b in zip(*found, strict=True):
            assert torch.equal(a, b)
        assert_same_state(recomputed, plain.state_dict())


@following
@pytest.mark.parametrize("way", ["given again", "observed again"])
def test_a_training_call_before_the_last_is_refused(make, way):
    head = make(7, 4)
    first, second = (call(head, x.requires_grad_(), y, way) for x, y in (batch(seed=1), batch(seed=2)))
    with pytest.raises(RuntimeError, match="computes again a batch that is not the last one"):
        (first.sum() + second.sum()).backward()
    head(*batch(seed=3))
    logits = [call(head, batch(seed=seed)[0].requires_grad_(), None, "bare again") for seed in (4, 5)]
    with pytest.raises(RuntimeError, match="computes again a batch that is not the last one"):
        logits[0].sum().backward()


@following
@pytest.mark.parametrize("calls", [0, 1])
def test_a_forward_in_any_backward_moves_nothing(make, calls):
    head = make(7, 4)
    for _ in range(calls):
        head(*batch())
    state = {name: value.clone() for name, value in head.state_dict().items()}
    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda grad: grad + 0 * head(*batch()).sum())
    x.sum().backward()
    assert_same_state(head, state)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_backward_of_evaluation_after_a_training_call(compiled):
    torch._dynamo.reset()
    head, other = NearestETFHead(7, 4), NearestETFHead(7, 4)
    run = torch.compile(head, backend="aot_eager", fullgraph=True) if compiled else head
    head(*batch(seed=1)), other(*batch(seed=1))
    x, y = batch(seed=2)[0].requires_grad_(), batch(seed=2)[0].requires_grad_()
    head.eval(), other.eval()
    loss = run(x).square().sum()
    other(y).square().sum().backward()
    head.train()
    z, targets = batch(seed=3)
    (loss + run(z.requires_grad_(), targets).sum()).backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_compiled_evaluation_may_be_checkpointed():
    torch._dynamo.reset()
    head = NearestETFHead(7, 4)
    head(*batch())
    head.eval()
    x = batch(seed=1)[0].requires_grad_()
    (expected,) = torch.autograd.grad(head(x).square().sum(), x)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    torch.utils.checkpoint.checkpoint(compiled, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)
