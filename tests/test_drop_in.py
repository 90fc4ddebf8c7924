"""Heads in the place of nn.Linear: shapes, arguments, state dicts, features of any size."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead


def batch(size=60, dim=7, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % num_classes
    centres = 2 * torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[targets] + torch.randn(size, dim, generator=generator), targets


HEADS = {"linear": LearnedHead, "cosine": partial(LearnedHead, cosine=True), "fixed": FixedETFHead,
         "centred": partial(FixedETFHead, centred=True), "nearest": NearestETFHead}
each_head = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)


@each_head
def test_tokens_and_pixels_are_samples(make):
    head, flat = make(7, 4), make(7, 4)
    flat.load_state_dict(head.state_dict())
    features, targets = batch(size=24)
    shaped = head(features.view(2, 3, 4, 7), targets.view(2, 3, 4))
    torch.testing.assert_close(shaped, flat(features, targets).view(2, 3, 4, 4))
    assert head.embed(features.view(2, 3, 4, 7)).shape == (2, 3, 4, 7)


@each_head
def test_head_is_made_as_nn_linear_is(make):
    head = make(7, 4, device="cpu", dtype=torch.float64)
    assert (head.in_features, head.out_features) == (7, 4) and head.weight.dtype == torch.float64
    assert f"in_features=7, out_features=4, bias={head.bias is not None}" in repr(head)
    meta = make(7, 4, device="meta")
    assert meta.weight.is_meta
    meta.to_empty(device="cpu").reset_parameters()
    features, targets = batch()
    loss = F.cross_entropy(meta(features.requires_grad_(), targets), targets)
    loss.backward()
    assert features.grad.isfinite().all() and features.grad.norm() > 0
    with pytest.raises(TypeError, match="features must be a floating-point tensor"):
        head(torch.ones(3, 7, dtype=torch.long))
    with pytest.raises(ValueError, match=r"features must have shape \(\.\.\., 7\), got \(3, 8\)"):
        head(torch.ones(3, 8))


@pytest.mark.parametrize("make", [LearnedHead, FixedETFHead, NearestETFHead])
def test_without_bias(make):
    head = make(7, 4, bias=False)
    features, targets = batch()
    assert head.bias is None
    torch.testing.assert_close(head(features, targets), head.embed(features) @ head.weight.T)


def test_repr_tells_what_a_head_is():
    assert "frame='nonnegative', centred=True" in repr(FixedETFHead(7, 4, centred=True))
    assert "cosine=True, scale=5" in repr(LearnedHead(7, 4, cosine=True))
    assert "scale=2, proximal=0.1" in repr(NearestETFHead(7, 4, scale=2, proximal=0.1))


@pytest.mark.parametrize("make", [partial(LearnedHead, cosine=True), FixedETFHead, NearestETFHead])
def test_scale_is_in_the_state_dict_and_may_be_absent_as_in_version_0_1(make):
    head, other = make(7, 4, scale=2.5), make(7, 4)
    state = head.state_dict()
    assert float(state["scale"]) == 2.5
    other.load_state_dict(state)
    assert other.scale == 2.5
    torch.testing.assert_close(other.eval()(batch()[0]), head.eval()(batch()[0]))
    del state["scale"]
    third = make(7, 4)
    torch.nn.ModuleList([third]).load_state_dict({f"0.{name}": value for name, value in state.items()})
    assert third.scale == 5


@pytest.mark.parametrize("make", [partial(LearnedHead, cosine=True), FixedETFHead, NearestETFHead])
def test_weights_of_a_plain_linear_layer_do_not_pass_silently(make):
    model = torch.nn.Sequential(torch.nn.Linear(3, 7), make(7, 4))
    plain = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.Linear(7, 4))
    with pytest.raises(RuntimeError, match="1.*Head: has a weight"):
        model.load_state_dict(plain.state_dict(), strict=False)
    model.load_state_dict({"0.weight": torch.ones(7, 3)}, strict=False)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_of_any_size_embed_to_the_same(size, dtype):
    head = NearestETFHead(7, 4, dtype=dtype)
    features = batch()[0].to(dtype)
    torch.testing.assert_close(head.embed(size * features), head.embed(features))
    x = (size * features).requires_grad_()
    (gradient,) = torch.autograd.grad(head.embed(x)[:, 0].sum(), x)
    y = features.clone().requires_grad_()
    (expected,) = torch.autograd.grad(head.embed(y)[:, 0].sum(), y)
    torch.testing.assert_close(size * gradient, expected)


def test_embedding_has_the_digits_of_normalize_and_zero_rows_no_gradient():
    features = 10 * torch.randn(100, 7) ** 3
    features[3] = 0
    x = features.requires_grad_()
    head = FixedETFHead(7, 4)
    assert torch.equal(head.embed(x), 5 * F.normalize(x, dim=1))
    head(x).square().sum().backward()
    assert torch.equal(x.grad[3], torch.zeros(7)) and x.grad.isfinite().all()
