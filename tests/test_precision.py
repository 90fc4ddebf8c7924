"""Heads in half precision, in mixed precision and in float64: the logits have the caller's dtype, and what is kept from
step to step is in float32 or better."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead
from ncbook.losses import dot_regression_loss

HEADS = {"learned": LearnedHead, "cosine": partial(LearnedHead, cosine=True), "fixed": FixedETFHead,
         "centred": partial(FixedETFHead, centred=True), "nearest": NearestETFHead}
each_head = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
prescribed = pytest.mark.parametrize("make", [HEADS["fixed"], HEADS["centred"], HEADS["nearest"]])


def network(make):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), make(16, 5))


def batches(count=5):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 6, generator=generator)
    for _ in range(count):
        targets = torch.randint(5, (40,), generator=generator)
        yield centres[targets] + 0.3 * torch.randn(40, 6, generator=generator), targets


def run(model, x, targets, head=-1):
    return model[head](model[:head](x), targets)


@each_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_model_cast_to_half_trains_with_buffers_in_float32(make, dtype):
    model = network(make).to(dtype)
    exact = copy.deepcopy(model).float()
    for x, targets in batches():
        logits, expected = run(model, x.to(dtype), targets), run(exact, x, targets)
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.2)
        F.cross_entropy(logits.float(), targets).backward()
    assert model[0].weight.grad.isfinite().all() and model[0].weight.grad.norm() > 0
    for name, buffer in model[-1].named_buffers():
        assert buffer.dtype in (torch.float32, torch.long), name
        torch.testing.assert_close(buffer, exact[-1].get_buffer(name), rtol=0.1, atol=0.1)


@prescribed
def test_frame_is_exact_to_float32_after_any_cast_and_to_float64_when_cast_to_it(make):
    ideal = (5 * torch.eye(5, dtype=torch.float64) - 1) / 4
    head = make(16, 5).half().bfloat16()
    features, targets = next(batches())
    features = F.pad(features, (0, 10))
    head(features.bfloat16(), targets)
    torch.testing.assert_close(head.weight.double() @ head.weight.double().T, ideal, rtol=0, atol=1e-6)
    head = make(16, 5, dtype=torch.float64)
    head(features.double(), targets)
    torch.testing.assert_close(head.weight @ head.weight.T, ideal, rtol=0, atol=1e-14)


def test_nearest_head_cast_to_float64_is_exact_after_a_step():
    head = NearestETFHead(16, 5).double()
    features, targets = next(batches())
    assert head(F.pad(features, (0, 10)).double(), targets).dtype == torch.float64
    ideal = (5 * torch.eye(5, dtype=torch.float64) - 1) / 4
    torch.testing.assert_close(head.weight @ head.weight.T, ideal, rtol=0, atol=1e-14)


@each_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_with_a_scaled_loss_is_close_to_float32(make, dtype):
    model = network(make)
    exact = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model, exact)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for x, targets in batches():
        for optimizer in optimizers:
            optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            logits = run(model, x, targets)
            loss = F.cross_entropy(logits, targets)
        assert logits.dtype == dtype
        scaler.scale(loss).backward()
        scaler.unscale_(optimizers[0])
        F.cross_entropy(run(exact, x, targets), targets).backward()
        a, b = model[0].weight.grad, exact[0].weight.grad
        assert (a - b).norm() < 0.05 * b.norm()
        scaler.step(optimizers[0])
        scaler.update()
        optimizers[1].step()
    for name, buffer in model[-1].named_buffers():
        assert buffer.dtype in (torch.float32, torch.long), name


def test_average_follows_means_that_move_late_in_a_bfloat16_model():
    head = NearestETFHead(16, 5).bfloat16()
    features, targets = next(batches())
    features = F.pad(features, (0, 10)).bfloat16()
    for _ in range(600):
        head(features, targets)
    turned = features.roll(10, 1)
    for _ in range(2000):
        head(turned, targets)
    fresh = NearestETFHead(16, 5)
    fresh(turned.float(), targets)
    assert F.cosine_similarity(head.weight, fresh.weight).min() > 0.9


@pytest.mark.parametrize("make", [HEADS["centred"], HEADS["nearest"]])
def test_a_state_dict_in_half_precision_is_taken_into_float32(make):
    head, other = make(16, 5), make(16, 5)
    features, targets = next(batches())
    head(F.pad(features, (0, 10)), targets)
    half = {name: value.bfloat16() if value.dtype == torch.float32 else value
            for name, value in head.state_dict().items()}
    other.load_state_dict(half, assign=True)
    for name, buffer in other.named_buffers():
        assert buffer.dtype in (torch.float32, torch.long), name
    torch.testing.assert_close(other.averages.mean, head.averages.mean, rtol=0.01, atol=0.01)
    other.bfloat16()(F.pad(features, (0, 10)).bfloat16(), targets)
    double = make(16, 5, dtype=torch.float64).state_dict()
    other.load_state_dict(double, assign=True)
    assert other.weight.dtype == other.averages.mean.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dot_regression_of_half_precision_is_that_of_float32(dtype):
    logits, targets = (100 + 20 * torch.randn(4096, 5)).to(dtype), torch.arange(4096) % 5
    x, y = logits.clone().requires_grad_(), logits.float().requires_grad_()
    loss, expected = dot_regression_loss(x, targets), dot_regression_loss(y, targets)
    loss.backward(), expected.backward()
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    torch.testing.assert_close(x.grad, y.grad.to(dtype))
