"""Compiled, every part gives what it gives in eager mode: values, gradients, buffers, over steps of changing size."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import grad, vmap

from ncbook.averages import ClassMeanAverage
from ncbook.etf import nearest_simplex_etf, polar_factor, simplex_etf_distance
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead
from ncbook.persistence import densification_loss, h0_death_times

DIM, CLASSES = 16, 5
SIZES = (32, 9, 20, 27, 32, 9, 41, 32, 20, 33)  # classes are absent from some batches
HEADS = {
    "learned": lambda: LearnedHead(DIM, CLASSES), "cosine": lambda: LearnedHead(DIM, CLASSES, cosine=True),
    "fixed": lambda: FixedETFHead(DIM, CLASSES), "centred": lambda: FixedETFHead(DIM, CLASSES, centred=True),
    "nearest": lambda: NearestETFHead(DIM, CLASSES), "cumulative": lambda: NearestETFHead(DIM, CLASSES, method="cma"),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batches(tokens=()):
    generator = torch.Generator().manual_seed(1)
    for size in SIZES:
        targets = torch.randint(CLASSES, (size, *tokens), generator=generator)
        yield torch.randn(size, *tokens, DIM, generator=generator) + 0.5 * F.one_hot(targets, DIM), targets


class Network(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.body, self.head = torch.nn.Linear(DIM, DIM), head

    def forward(self, x, targets=None):
        return self.head(self.body(x).relu(), targets)


def step(model, parameters, x, targets, given):
    x = x.clone().requires_grad_()
    if given:
        logits = model(x, targets)
    else:
        with given_targets(model).observing(targets):
            logits = model(x)
    return logits, *torch.autograd.grad(F.cross_entropy(logits.flatten(0, -2), targets.flatten()), [x, *parameters])


def given_targets(model):
    return getattr(model, "_orig_mod", model).head


def assert_same_steps(eager, backend, given=True, tokens=()):
    """Ten steps, each from the same parameters: gradients differ by no more than rounding, nothing is compiled late."""
    counter = CompileCounterWithBackend(backend)
    ours = copy.deepcopy(eager)
    compiled = torch.compile(ours, backend=counter, fullgraph=True)
    frames = []
    for x, targets in batches(tokens):
        expected = step(eager, eager.parameters(), x, targets, given)
        for a, b in zip(step(compiled, ours.parameters(), x, targets, given), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.detach().abs().max()))
        for a, b in zip(ours.buffers(), eager.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            for a, b in zip(ours.parameters(), eager.parameters(), strict=True):
                b -= 0.1 * torch.randn_like(b)
                a.copy_(b)
        frames.append(counter.frame_count)
    assert frames[3] == frames[-1] <= 3
    eager.eval(), ours.eval()
    torch.testing.assert_close(compiled(x), eager(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_head_compiled_whole_equals_eager(name):
    assert_same_steps(Network(HEADS[name]()), "aot_eager")


def test_inductor_equals_eager():
    assert_same_steps(Network(HEADS["nearest"]()), "inductor")


def test_targets_that_a_head_observes_reach_the_compiled_model():
    assert_same_steps(Network(HEADS["nearest"]()), "aot_eager", given=False)


def test_tokens_compiled_equal_eager():
    assert_same_steps(Network(HEADS["nearest"]()), "aot_eager", tokens=(3,))


def test_compiled_under_autocast_and_while_holding_equals_eager():
    eager = Network(HEADS["nearest"]())
    ours = copy.deepcopy(eager)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for x, targets in list(batches())[:3]:
            logits, expected = compiled(x, targets), eager(x, targets)
            assert logits.dtype == torch.bfloat16
            torch.testing.assert_close(logits, expected)
            torch.testing.assert_close(ours.head.weight, eager.head.weight)
    state = copy.deepcopy(ours.head.state_dict())
    with ours.head.holding():
        compiled(x, targets)
    assert all(torch.equal(value, state[name]) for name, value in ours.head.state_dict().items())


def test_average_alone_compiled_equals_eager():
    eager, ours = ClassMeanAverage(CLASSES, DIM), ClassMeanAverage(CLASSES, DIM)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for x, targets in batches():
        x.requires_grad_()
        weights = torch.randn(CLASSES, DIM)
        found, expected = (torch.autograd.grad((f(x, targets) * weights).sum(), x)[0] for f in (compiled, eager))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(ours.mean, eager.mean)


@pytest.mark.parametrize("bad", ["features", "targets"])
def test_bad_batch_never_enters_a_compiled_head(bad):
    head = NearestETFHead(DIM, CLASSES)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    good, *_ = batches()
    compiled(*good)
    state = copy.deepcopy(head.state_dict())
    x, targets = good[0].clone(), good[1].clone()
    if bad == "features":
        x[3, 2] = torch.nan
    else:
        targets[3] = CLASSES
    compiled(x, targets)
    for key in ("averages.mean", "averages.count"):
        assert torch.equal(head.state_dict()[key], state[key])
    torch.testing.assert_close(head.weight, state["weight"], rtol=0, atol=1e-2)  # the pull to the last frame acts again
    with pytest.raises(ValueError):
        NearestETFHead(DIM, CLASSES)(x, targets)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_compiled_under_autocast_equal_eager(name, dtype):
    eager = HEADS[name]()
    ours = copy.deepcopy(eager)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for x, targets in list(batches())[:3]:
        gradients = []
        for head in (compiled, eager):
            leaf = x.clone().requires_grad_()
            with torch.autocast("cpu", dtype=dtype):
                loss = F.cross_entropy(head(leaf, targets), targets)
            gradients += torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[1].abs().max()))


@pytest.mark.parametrize("name", ["centred", "nearest"])
def test_a_head_that_trains_without_targets_says_so_when_it_is_compiled(name):
    head = HEADS[name]()
    x, targets = next(batches())
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    with pytest.warns(UserWarning, match=r"never been given targets.*head\.observing"):
        compiled(x)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            compiled(x)
        compiled(x, targets)
        compiled(x)


@pytest.mark.parametrize(("backend", "p"), [("aot_eager", 1), ("inductor", 2), ("aot_eager", math.inf),
                                            ("inductor", math.inf)])
def test_densification_loss_compiled_equals_eager(backend, p):
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(lambda clouds, beta: densification_loss(clouds, beta, p), backend=counter, fullgraph=True)
    frames = []
    for b in (4, 4, 6, 5, 4, 8, 3, 4, 4, 7):
        clouds, beta = torch.randn(b, 8, 6, requires_grad=True), torch.rand(())
        expected = densification_loss(clouds, float(beta), p)
        found = compiled(clouds, beta)
        torch.testing.assert_close(found, expected)
        (a,), (e,) = torch.autograd.grad(found, clouds), torch.autograd.grad(expected, clouds)
        torch.testing.assert_close(a, e)
        frames.append(counter.frame_count)
    assert frames[3] == frames[-1] <= 3


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_clouds_of_one_point_compile(backend, p):
    clouds = torch.randn(4, 1, 6, requires_grad=True)
    loss = torch.compile(densification_loss, backend=backend, fullgraph=True)(clouds, 1.0, p)
    loss.backward()
    assert loss.item() == 0 and torch.equal(clouds.grad, torch.zeros_like(clouds))


def test_death_times_and_a_beta_that_is_a_number_compile():
    clouds = torch.randn(4, 8, 6, requires_grad=True)
    torch.testing.assert_close(torch.compile(h0_death_times, backend="aot_eager", fullgraph=True)(clouds),
                               h0_death_times(clouds))
    compiled = torch.compile(densification_loss, backend="aot_eager", fullgraph=True)
    for beta in (1.0, 0.9, 0.8, 0.1, 0.0):
        torch.testing.assert_close(compiled(clouds, beta), densification_loss(clouds, beta))


def test_compiled_head_refuses_to_be_computed_again_in_the_backward():
    head = NearestETFHead(DIM, CLASSES)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    (x, targets), *_ = batches()
    loss = torch.utils.checkpoint.checkpoint(compiled, x.requires_grad_(), targets, use_reentrant=False).sum()
    with pytest.raises(RuntimeError, match="cannot be computed again in the backward pass"):
        loss.backward()


def clouds_of(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


POINTS, MATRICES = clouds_of(4, 3, 8, 5), clouds_of(4, 7, 3)
WEIGHTS = clouds_of(7, 7)
TRANSFORMED = {
    "densification_loss": (lambda x: densification_loss(x, 0.7), POINTS),
    "h0_death_times": (lambda x: h0_death_times(x, 1).square().sum(), POINTS),
    "polar_factor": (lambda x: (polar_factor(x) * WEIGHTS[:, :3]).sum(), MATRICES),
    "nearest_simplex_etf": (lambda x: (nearest_simplex_etf(x.mT) * WEIGHTS[:3]).sum(), MATRICES),
    "simplex_etf_distance": (lambda x: simplex_etf_distance(x.mT), MATRICES),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize(("function", "values"), TRANSFORMED.values(), ids=TRANSFORMED)
def test_torch_func_gives_the_values_and_gradients_of_autograd(function, values):
    torch.testing.assert_close(vmap(function)(values), torch.stack([function(x) for x in values]))
    x = values.clone().requires_grad_()
    (expected,) = torch.autograd.grad(sum(function(part) for part in x), x)
    torch.testing.assert_close(torch.stack([grad(function)(part) for part in values]), expected)
    torch.testing.assert_close(vmap(grad(function))(values), expected)


def test_second_derivatives_are_right_or_refused():
    function, values = TRANSFORMED["h0_death_times"]
    assert torch.autograd.gradgradcheck(function, values[0].clone().requires_grad_())
    function, values = TRANSFORMED["polar_factor"]
    with pytest.raises(NotImplementedError, match="differentiated once, not twice"):
        grad(lambda x: grad(function)(x).square().sum())(values[0])
    x = values[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(function(x), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated once, not twice"):
        first.square().sum().backward()


def test_gradient_of_the_frame_is_in_full_precision_under_autocast():
    means, weight = torch.randn(10, 64), torch.randn(10, 64)

    def gradient(frame, inside=False):
        leaf = means.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (frame(leaf) * weight).sum()
            if inside:
                loss.backward()
        return leaf.grad if inside else torch.autograd.grad(loss, leaf)[0]

    expected = gradient(nearest_simplex_etf)
    compiled = torch.compile(nearest_simplex_etf, backend="aot_eager")
    for found in (gradient(compiled), gradient(nearest_simplex_etf, True)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_compiles_where_eager_takes_it():
    head = torch.compile(FixedETFHead(8, 4).eval(), backend="aot_eager")
    assert head(torch.empty(0, 8)).shape == (0, 4)
