import math
import sys
import types
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist, pdist

from ncbook import persistence
from ncbook.persistence import densification_loss, h0_death_times, spanning_tree

NORMS = {1: "cityblock", 2: "euclidean", math.inf: "chebyshev"}
rng = np.random.default_rng(0)
grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 2), -1).reshape(-1, 2)
CLOUDS = {
    "random": rng.normal(size=(3, 20, 7)),
    "random, more than 25 points": rng.normal(size=(2, 40, 5)),
    "grid with ties": np.stack([grid, grid * 0.1]),
    "clusters at distance 1e-6": rng.normal(size=(2, 3, 1, 4)).repeat(8, 2).reshape(2, 24, 4)
    + 1e-6 * rng.normal(size=(2, 24, 4)),
    "exact duplicates": rng.normal(size=(2, 6, 5))[:, rng.integers(6, size=16)],
    "one point": rng.normal(size=(2, 1, 3)),
    "two points": rng.normal(size=(2, 2, 3)),
    "three points": rng.normal(size=(2, 3, 3)),
    "all points equal": np.ones((2, 9, 4)),
    "far from the origin": 1e3 + rng.normal(size=(2, 12, 3)),
}
every_cloud = pytest.mark.parametrize("clouds", CLOUDS.values(), ids=CLOUDS.keys())
every_norm = pytest.mark.parametrize("p", NORMS)


def single_linkage(clouds, p):
    """The merge heights of single linkage, (b, n, d) -> (b, n - 1), from scipy in float64."""
    if clouds.shape[1] == 1:
        return np.empty((len(clouds), 0))
    return np.stack([np.sort(linkage(pdist(x, NORMS[p]), "single")[:, 2]) for x in clouds.astype(np.float64)])


def length_gradients(differences, p):
    """The gradient of the p-norm of each row; ties of the max-norm share it equally, and at zero it is zero."""
    lengths = np.linalg.norm(differences, p, axis=-1, keepdims=True)
    if p == 1:
        return np.sign(differences)
    if p == 2:
        return np.divide(differences, lengths, out=np.zeros_like(differences), where=lengths > 0)
    largest = np.abs(differences) == lengths
    return np.sign(differences) * largest / largest.sum(-1, keepdims=True)


def gradient_along(cloud, edges, weights, p):
    """The gradient of sum_k weights[k] * |edge k| in the points, in numpy."""
    steps = weights[:, None] * length_gradients(cloud[edges[:, 0]] - cloud[edges[:, 1]], p)
    gradient = np.zeros_like(cloud)
    np.add.at(gradient, edges[:, 0], steps)
    np.add.at(gradient, edges[:, 1], -steps)
    return gradient


def is_spanning_tree(edges, n):
    adjacency = np.zeros((n, n))
    adjacency[edges[:, 0], edges[:, 1]] = 1
    return len(edges) == n - 1 and connected_components(adjacency, directed=False)[0] == 1


@every_norm
@every_cloud
def test_death_times_are_single_linkage_heights(clouds, p):
    deaths = h0_death_times(torch.from_numpy(clouds), p)
    np.testing.assert_allclose(deaths, single_linkage(clouds, p), rtol=1e-9, atol=1e-12)
    assert (deaths.diff(dim=-1) >= 0).all()


@every_norm
@every_cloud
def test_spanning_tree_is_minimal_and_in_the_order_of_the_deaths(clouds, p):
    edges = spanning_tree(torch.from_numpy(clouds), p).numpy()
    assert edges.dtype == np.int64
    for cloud, tree, heights in zip(clouds, edges, single_linkage(clouds, p), strict=True):
        assert is_spanning_tree(tree, len(cloud))
        lengths = np.linalg.norm(cloud[tree[:, 0]] - cloud[tree[:, 1]], p, axis=-1)
        np.testing.assert_allclose(lengths, heights, rtol=1e-9, atol=1e-12)


@every_norm
@every_cloud
def test_gradient_acts_along_the_edges_of_the_tree(clouds, p):
    points = torch.from_numpy(clouds).requires_grad_()
    weights = np.linspace(1, 2, clouds.shape[1] - 1)
    # Deaths of equal length may come in any order, so they get equal weights.
    heights = single_linkage(clouds, p)
    tied = np.isclose(np.diff(heights, axis=1), 0, atol=1e-12).any()
    weights = np.ones_like(weights) if tied else weights
    (h0_death_times(points, p) * torch.from_numpy(weights)).sum().backward()
    expected = [gradient_along(x, t, weights, p) for x, t in zip(clouds, spanning_tree(points, p).numpy(), strict=True)]
    np.testing.assert_allclose(points.grad, np.stack(expected), atol=1e-9)


@every_norm
def test_gradient_equals_that_of_scipys_tree(p):
    for cloud in CLOUDS["random"]:
        tree = minimum_spanning_tree(cdist(cloud, cloud, NORMS[p])).tocoo()
        signs = np.sign(tree.data - 2.0)
        points = torch.from_numpy(cloud).requires_grad_()
        densification_loss(points[None], 2.0, p).backward()
        edges = np.stack((tree.row, tree.col), -1)
        np.testing.assert_allclose(points.grad, gradient_along(cloud, edges, signs, p), atol=1e-9)


@every_norm
def test_gradient_equals_finite_differences_of_single_linkage(p, rng):
    cloud = rng.normal(size=(1, 6, 3))
    points = torch.from_numpy(cloud).requires_grad_()
    densification_loss(points, 0.7, p).backward()
    for index in np.ndindex(*cloud.shape):
        step = np.zeros_like(cloud)
        step[index] = 1e-6
        up, down = (np.abs(single_linkage(cloud + s, p) - 0.7).sum() for s in (step, -step))
        assert points.grad[index].item() == pytest.approx((up - down) / 2e-6, abs=1e-7)


@every_norm
def test_gradcheck(p, rng):
    points = torch.from_numpy(rng.normal(size=(2, 5, 3))).requires_grad_()
    assert torch.autograd.gradcheck(partial(h0_death_times, p=p), points)
    assert torch.autograd.gradcheck(partial(densification_loss, beta=0.7, p=p), points)
    assert torch.autograd.gradgradcheck(partial(h0_death_times, p=p), points)


@every_norm
def test_coinciding_points_have_zero_gradient(p):
    points = torch.ones(2, 5, 3, requires_grad=True)
    densification_loss(points, 1.0, p).backward()
    assert torch.equal(points.grad, torch.zeros_like(points))


@every_norm
def test_float32_is_exact_on_collapsed_clouds(p, rng):
    directions = rng.normal(size=(4, 1, 64))
    centres = 10 * directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    offsets = rng.normal(size=(4, 32, 64))
    clouds = centres + 1e-3 * offsets / np.linalg.norm(offsets, axis=-1, keepdims=True) / math.sqrt(2)
    points = torch.from_numpy(clouds).float()
    deaths = h0_death_times(points, p)
    assert deaths.dtype == torch.float32
    np.testing.assert_allclose(deaths, single_linkage(points.numpy(), p), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    clouds = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    deaths = h0_death_times(clouds)
    assert deaths.dtype == densification_loss(clouds, 1.0).dtype == dtype
    expected = single_linkage(clouds.double().numpy(), 2)
    np.testing.assert_allclose(deaths.double(), expected, rtol=torch.finfo(dtype).eps)


def test_autocast_changes_nothing():
    clouds = torch.randn(2, 40, 8, requires_grad=True)
    expected = densification_loss(clouds, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = densification_loss(clouds, 1.0)
    assert torch.equal(loss, expected) and loss.dtype == torch.float32


def test_leading_dimensions(rng):
    points = torch.from_numpy(rng.normal(size=(2, 3, 5, 4)))
    deaths, edges = h0_death_times(points), spanning_tree(points)
    assert deaths.shape == (2, 3, 4) and edges.shape == (2, 3, 4, 2)
    assert torch.equal(deaths[1, 2], h0_death_times(points[1, 2]))
    assert h0_death_times(points[:0]).shape == (0, 3, 4)


@every_norm
@pytest.mark.parametrize("beta", [0, 0.7, torch.tensor(0.7)])
def test_densification_loss_is_the_mean_over_clouds(p, beta):
    clouds = CLOUDS["random"]
    expected = np.abs(single_linkage(clouds, p) - float(beta)).sum(1).mean()
    loss = densification_loss(torch.from_numpy(clouds), beta, p)
    assert loss.shape == () and loss.item() == pytest.approx(expected, rel=1e-7)


def test_single_points_have_no_loss_and_zero_gradient():
    clouds = torch.randn(3, 1, 4, requires_grad=True)
    loss = densification_loss(clouds, 1.0)
    loss.backward()
    assert loss.item() == 0 and torch.equal(clouds.grad, torch.zeros_like(clouds))


cloud_shapes = st.tuples(st.integers(1, 9), st.integers(1, 3))
cloud_strategy = arrays(np.float64, cloud_shapes, elements=st.floats(-8, 8, width=16))
norm_strategy = st.sampled_from(list(NORMS))


@settings(max_examples=60)
@given(cloud_strategy, norm_strategy, st.randoms(use_true_random=False))
def test_deaths_do_not_depend_on_order_or_place_and_scale_with_the_cloud(cloud, p, random):
    deaths = h0_death_times(torch.from_numpy(cloud), p)
    np.testing.assert_allclose(deaths.numpy()[None], single_linkage(cloud[None], p), rtol=1e-9, atol=1e-12)
    permutation = random.sample(range(len(cloud)), len(cloud))
    np.testing.assert_allclose(h0_death_times(torch.from_numpy(cloud[permutation]), p), deaths, atol=1e-12)
    np.testing.assert_allclose(h0_death_times(torch.from_numpy(cloud + 3.0), p), deaths, atol=1e-12)
    np.testing.assert_allclose(h0_death_times(torch.from_numpy(cloud * 2.5), p), 2.5 * deaths, atol=1e-12)


@settings(max_examples=60)
@given(cloud_strategy, norm_strategy)
def test_sum_of_deaths_is_the_weight_of_scipys_tree(cloud, p):
    # csgraph reads a zero as a missing edge; a common shift of all lengths keeps the tree.
    weight = minimum_spanning_tree(cdist(cloud, cloud, NORMS[p]) + 1.0).sum() - (len(cloud) - 1)
    assert h0_death_times(torch.from_numpy(cloud), p).sum().item() == pytest.approx(weight, abs=1e-9)


@settings(max_examples=60)
@given(cloud_strategy, norm_strategy)
def test_the_tree_of_other_devices_is_minimal_too(cloud, p):
    distances = cdist(cloud, cloud, NORMS[p])
    tree = persistence._minimax_tree(torch.from_numpy(distances)[None])[0].numpy()
    assert is_spanning_tree(tree, len(cloud))
    lengths = np.sort(distances[tree[:, 0], tree[:, 1]])
    np.testing.assert_allclose(lengths[None], single_linkage(cloud[None], p), atol=1e-12)


@every_norm
def test_other_devices_never_wait_for_a_value(p):
    # A meta tensor has no values: any step that asks for one fails.
    clouds = torch.empty(4, 16, 8, device="meta", requires_grad=True)
    densification_loss(clouds, torch.empty((), device="meta"), p).backward()
    assert clouds.grad.shape == clouds.shape and spanning_tree(clouds, p).shape == (4, 15, 2)
    distances = persistence._distances(clouds.detach(), p)
    assert persistence._minimax_tree(distances).shape == (4, 15, 2)


def test_nan_and_inf_reach_the_loss_on_other_devices(monkeypatch):
    def tree(clouds, p):
        return persistence._minimax_tree(persistence._distances(clouds, p))

    monkeypatch.setattr(persistence, "_tree", tree)
    for bad in (math.nan, math.inf, -math.inf):
        for p in NORMS:
            clouds = torch.randn(2, 16, 8)
            clouds[1, 5, 3] = bad
            assert not densification_loss(clouds, 1.0, p).isfinite()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@every_norm
@every_cloud
def test_cuda_gives_the_same_without_a_host_sync(clouds, p):
    on_cpu = torch.from_numpy(clouds).requires_grad_()
    on_cuda = torch.from_numpy(clouds).cuda().requires_grad_()
    expected = densification_loss(on_cpu, 0.5, p)
    expected.backward()
    torch.cuda.set_sync_debug_mode("error" if clouds.shape[1] > 1 else "default")
    try:
        loss = densification_loss(on_cuda, 0.5, p)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-9, atol=1e-12)
    if clouds is not CLOUDS["grid with ties"]:
        torch.testing.assert_close(on_cuda.grad.cpu(), on_cpu.grad, rtol=1e-9, atol=1e-9)


@every_norm
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [1, 2, 16, 40])
def test_nan_and_inf_are_errors(p, bad, n):
    for place in ((0, 0, 0), (1, n - 1, 8)):
        clouds = torch.randn(2, n, 9)
        clouds[place] = bad
        for function in (h0_death_times, spanning_tree, partial(densification_loss, beta=1.0)):
            with pytest.raises(ValueError, match="points must be finite"):
                function(clouds, p=p)


def test_distances_that_overflow_are_errors():
    with pytest.raises(ValueError, match="overflow torch.float32"):
        h0_death_times(1e30 * torch.randn(8, 3))
    large = 1e38 * torch.rand(8, 3)
    assert h0_death_times(large, math.inf).isfinite().all()


@pytest.mark.parametrize("function", [h0_death_times, spanning_tree, partial(densification_loss, beta=1.0)])
def test_bad_points_and_norms(function):
    for points in (torch.ones(2, 4, 3, dtype=torch.long), torch.ones(2, 4, 3, dtype=torch.cfloat), np.ones((2, 4, 3))):
        with pytest.raises(TypeError, match="points must be a floating-point tensor"):
            function(points)
    for shape in ((4,), (2, 0, 3), (2, 4, 0)):
        with pytest.raises(ValueError, match="must have shape"):
            function(torch.ones(shape))
    for p in (3, 0, -1, "2", None, math.nan):
        with pytest.raises(ValueError, match="p must be one of 1, 2, inf"):
            function(torch.ones(2, 4, 3), p=p)


def test_bad_clouds_beta_and_backend():
    for shape in ((4, 3), (2, 2, 4, 3), (0, 4, 3)):
        with pytest.raises(ValueError, match=r"clouds must have shape \(b, n, d\)"):
            densification_loss(torch.ones(shape), 1.0)
    for beta in (-0.1, math.nan, math.inf, torch.tensor(-1.0), torch.ones(3)):
        with pytest.raises(ValueError, match="beta must be"):
            densification_loss(torch.ones(2, 4, 3), beta)
    with pytest.raises(TypeError, match="beta must be a number"):
        densification_loss(torch.ones(2, 4, 3), "1")
    with pytest.raises(ValueError, match="backend must be one of 'auto', 'torchph', got 'gudhi'"):
        h0_death_times(torch.ones(4, 3), backend="gudhi")


def vr_persistence_stand_in(distance_matrix, max_dimension, max_ball_diameter):
    """What torchph does: float32, lower triangle only, no bars of length zero, no answer for two points."""
    assert distance_matrix.dtype == torch.float32 and (max_dimension, max_ball_diameter) == (0, 0)
    n = len(distance_matrix)
    if n == 2:
        raise RuntimeError("CUDA error: invalid configuration argument")
    lower = distance_matrix.tril(-1).numpy()
    deaths = torch.from_numpy(linkage((lower + lower.T)[np.triu_indices(n, 1)], "single")[:, 2]).float()
    deaths = deaths[deaths > 0].flip(0)
    return [[torch.stack((torch.zeros_like(deaths), deaths), 1)], [torch.zeros(1, 1)]]


def install_torchph(monkeypatch, function, prefix="torchph"):
    parts = f"{prefix}.pershom".split(".")
    for k in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:k]), types.ModuleType(".".join(parts[:k])))
    sys.modules[f"{prefix}.pershom"].vr_persistence = function
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("prefix", ["torchph", "torchph.torchph"])
@every_norm
@every_cloud
def test_torchph_gives_the_same_values_and_gradients(monkeypatch, clouds, p, prefix):
    install_torchph(monkeypatch, vr_persistence_stand_in, prefix)
    results = []
    for backend in ("auto", "torchph"):
        points = torch.from_numpy(clouds).requires_grad_()
        deaths = h0_death_times(points, p, backend)
        deaths.square().sum().backward()
        results.append((deaths.detach(), points.grad))
    torch.testing.assert_close(*(deaths for deaths, _ in results), rtol=1e-12, atol=1e-12)
    if clouds is not CLOUDS["grid with ties"]:  # there are several trees
        torch.testing.assert_close(*(gradient for _, gradient in results), rtol=1e-9, atol=1e-9)


def test_torchph_refuses_nan(monkeypatch):
    install_torchph(monkeypatch, vr_persistence_stand_in)
    with pytest.raises(ValueError, match="points must be finite"):
        h0_death_times(torch.full((4, 3), math.nan), backend="torchph")


def assert_says_why_torchph_is_unusable(reason):
    with pytest.raises(RuntimeError, match=reason) as caught:
        h0_death_times(torch.ones(4, 3), backend="torchph")
    assert "fork without its C++/CUDA sources" in str(caught.value)
    assert 'built-in backend (backend="auto")' in str(caught.value) and "needs none of it" in str(caught.value)


def test_torchph_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_says_why_torchph_is_unusable("torchph needs CUDA and torch finds none")


def test_torchph_that_cannot_be_imported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torchph", None)
    assert_says_why_torchph_is_unusable("torchph cannot be imported .*torchph.pershom")


def test_torchph_that_imports_but_was_never_compiled(monkeypatch):
    def fail(*_):
        raise ValueError("At least one source is required to build a library")

    install_torchph(monkeypatch, fail)
    assert_says_why_torchph_is_unusable("calling it failed with .*At least one source is required.*points are on cpu")
