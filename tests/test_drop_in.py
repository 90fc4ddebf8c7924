"""Heads in the place of nn.Linear: shapes, arguments, state dicts, features of any size."""

import copy
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ncbook.averages import ClassMeanAverage
from ncbook.etf import simplex_etf
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


@pytest.mark.parametrize("kind", [FixedETFHead, NearestETFHead])
def test_features_taken_as_they_are_survive_saving(kind):
    plain, scaled = kind(8, 4, scale=None), kind(8, 4, scale=3.0)
    other = kind(8, 4, scale=None)
    scaled.load_state_dict(plain.state_dict())
    assert scaled.scale is None
    other.load_state_dict(kind(8, 4, scale=3.0).state_dict())
    assert other.scale == 3.0


def test_nearest_head_trains_after_a_load_from_meta_or_into_empty_memory():
    features, targets = torch.randn(40, 8), torch.arange(40) % 4
    meta, emptied = NearestETFHead(8, 4, device="meta"), NearestETFHead(8, 4)
    meta.load_state_dict(NearestETFHead(8, 4).state_dict(), assign=True)
    emptied.to_empty(device="cpu")
    emptied.reset_parameters()
    for head in (meta, emptied):
        head(features, targets)
        torch.testing.assert_close(head.weight @ head.weight.T, simplex_etf(4, 8) @ simplex_etf(4, 8).T)


@pytest.mark.parametrize("size", [1e38, 1e37, 1e-37])
def test_embedding_has_its_norm_at_the_ends_of_float32(size):
    assert FixedETFHead(2048, 3).embed(torch.full((1, 2048), size)).norm().item() == pytest.approx(5.0, rel=1e-5)


def test_gradients_of_the_embedding_come_in_batches():
    x = torch.randn(2, 8, requires_grad=True)
    head = FixedETFHead(8, 4)
    batched = torch.autograd.functional.jacobian(head, x, vectorize=True)
    torch.testing.assert_close(batched, torch.autograd.functional.jacobian(head, x))


def test_a_look_at_accuracy_before_the_step_is_no_forgotten_target():
    head = NearestETFHead(8, 4)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        head(torch.randn(3, 8))


each_dtype = pytest.mark.parametrize("dtype", [torch.long, torch.complex64])


@each_dtype
@pytest.mark.parametrize("make", [FixedETFHead, NearestETFHead, ClassMeanAverage])
def test_a_dtype_that_cannot_be_averaged_is_named(make, dtype):
    with pytest.raises(TypeError, match=f"dtype must be a floating-point one, got {dtype}"):
        make(7, 4, dtype=dtype)


@pytest.mark.parametrize("make", [FixedETFHead, HEADS["centred"], NearestETFHead, ClassMeanAverage])
@pytest.mark.parametrize("group", [True, 0, "world"])
def test_a_group_that_is_none_is_named(make, group):
    with pytest.raises(TypeError, match="process_group must be None .* or a process group that this process is in"):
        make(7, 4, process_group=group)


@each_head
def test_one_sample_without_a_batch_goes_through_as_through_nn_linear(make):
    head, other = make(7, 4), make(7, 4)
    other.load_state_dict(head.state_dict())
    features, targets = batch()
    logits = head(features[3], targets[3])
    assert logits.shape == (4,)
    torch.testing.assert_close(logits, other(features[3:4], targets[3:4])[0])
    head.eval(), other.eval()
    torch.testing.assert_close(head(features[0]), other(features[:1])[0])


def test_repr_names_the_frame_that_was_loaded():
    rotated = FixedETFHead(7, 4, frame=torch.Generator().manual_seed(0))
    heads = {"nonnegative": FixedETFHead(7, 4), "canonical": FixedETFHead(7, 4, frame="canonical"), "rotated": rotated}
    for head in (FixedETFHead(7, 4), FixedETFHead(7, 4, frame=torch.Generator().manual_seed(1))):
        made = head.frame
        for name, other in heads.items():
            for assign in (False, True):
                head.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
                assert head.frame == name and f"frame='{name}'" in repr(head)
        head.reset_parameters()
        assert head.frame == made
    meta = FixedETFHead(7, 4, device="meta")
    meta.load_state_dict(heads["canonical"].state_dict(), assign=True)
    assert meta.frame == "canonical"
    tight = FixedETFHead(3, 4, frame="canonical")
    tight.load_state_dict(FixedETFHead(3, 4, frame=torch.Generator().manual_seed(0)).state_dict())
    assert tight.frame == "rotated"
