import math
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import helmert, polar

from ncbook.etf import (
    helmert_basis,
    nearest_simplex_etf,
    polar_factor,
    simplex_etf,
    simplex_etf_distance,
)
from ncbook.solver import riemannian_nearest_etf

shapes = st.integers(2, 12).flatmap(lambda c: st.tuples(st.just(c), st.integers(c - 1, c + 20), st.integers(0, 2**31)))


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def ideal_gram(num_classes):
    return (num_classes * torch.eye(num_classes, dtype=torch.float64) - 1) / (num_classes - 1)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_helmert_basis_equals_scipy_up_to_its_sign(num_classes):
    expected = -torch.from_numpy(helmert(num_classes)).T
    expected = expected * (expected[0].sign() * helmert_basis(num_classes, dtype=torch.float64)[0].sign())
    torch.testing.assert_close(helmert_basis(num_classes, dtype=torch.float64), expected)


@settings(max_examples=40)
@given(shapes)
def test_simplex_etf_has_the_gram_matrix_of_its_definition(shape):
    num_classes, dim, seed = shape
    for generator in (None, torch.Generator().manual_seed(seed)):
        etf = simplex_etf(num_classes, dim, generator=generator, dtype=torch.float64)
        assert etf.shape == (num_classes, dim)
        torch.testing.assert_close(etf @ etf.T, ideal_gram(num_classes), rtol=0, atol=1e-12)


def test_random_etfs_differ_and_repeat():
    first, again, other = (simplex_etf(4, 9, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


@settings(max_examples=40)
@given(shapes)
def test_polar_factor_equals_scipy(shape):
    k, d, seed = shape
    a = gaussian(d + 1, k, seed=seed)
    torch.testing.assert_close(polar_factor(a), torch.from_numpy(polar(a.numpy())[0]), rtol=0, atol=1e-9)


EXACT = simplex_etf(4, 6, dtype=torch.float64).T @ helmert_basis(4, dtype=torch.float64)
REPEATED = (torch.linalg.qr(gaussian(7, 4))[0] * torch.tensor([3.0, 3, 1, 1], dtype=torch.float64)
            @ torch.linalg.qr(gaussian(4, 4, seed=1))[0])


CASES = {"tall": gaussian(7, 3), "square": gaussian(5, 5), "batched": gaussian(2, 3, 6, 2), "exact ETF": EXACT,
         "repeated": REPEATED, "identity": torch.eye(5, 3, dtype=torch.float64)}


@pytest.mark.parametrize("a", CASES.values(), ids=CASES)
def test_polar_factor_gradient_equals_finite_differences(a):
    assert torch.autograd.gradcheck(polar_factor, a.clone().requires_grad_())


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_polar_factor_gradient_is_finite_when_singular_values_vanish(rank):
    a = (gaussian(6, rank) @ gaussian(rank, 3, seed=1)).requires_grad_()
    factor = polar_factor(a)
    (grad,) = torch.autograd.grad((factor * gaussian(6, 3, seed=2)).sum(), a)
    assert grad.isfinite().all()
    torch.testing.assert_close(factor.T @ factor, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_polar_factor_gives_no_gradient_to_directions_that_are_zero_to_rounding(seed):
    a = (gaussian(9, 2, seed=seed) @ gaussian(2, 4, seed=seed + 10)).requires_grad_()
    assert 0 < torch.linalg.svdvals(a.detach())[-1] < 1e-14
    (gradient,) = torch.autograd.grad((polar_factor(a) * gaussian(9, 4, seed=seed + 20)).sum(), a)
    assert gradient.abs().max() < 100


def test_svd_autograd_is_nan_at_an_exact_etf_where_polar_factor_is_not():
    a = torch.eye(6, 3, dtype=torch.float64)
    upstream = gaussian(6, 3)
    svd_input, our_input = a.clone().requires_grad_(), a.clone().requires_grad_()
    u, _, vh = torch.linalg.svd(svd_input, full_matrices=False)
    ((u @ vh) * upstream).sum().backward()
    (polar_factor(our_input) * upstream).sum().backward()
    assert not svd_input.grad.isfinite().all()
    assert our_input.grad.isfinite().all()


@settings(max_examples=30)
@given(shapes)
def test_float32_gradient_is_close_to_float64(shape):
    num_classes, dim, seed = shape
    means = gaussian(num_classes, dim + 3, seed=seed, dtype=torch.float32)
    upstream = gaussian(num_classes, dim + 3, seed=seed + 1, dtype=torch.float32)
    singular = torch.linalg.svdvals(means - means.mean(0))[: num_classes - 1]
    assume(singular[0] / singular[-1] < 100)
    grads = []
    for dtype in (torch.float64, torch.float32):
        x = means.to(dtype, copy=True).requires_grad_()
        (nearest_simplex_etf(x) * upstream.to(dtype)).sum().backward()
        grads.append(x.grad.double())
    assert (grads[1] - grads[0]).norm() <= 1e-4 * grads[0].norm()


@settings(max_examples=15)
@given(shapes)
def test_nearest_etf_equals_the_riemannian_solver(shape):
    num_classes, dim, seed = shape
    means = gaussian(num_classes, dim, seed=seed)
    previous = simplex_etf(num_classes, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for arguments in ({}, {"previous": previous, "proximal": 0.3}):
        solution = riemannian_nearest_etf(means, max_iterations=500, **arguments)
        torch.testing.assert_close(solution.etf, nearest_simplex_etf(means, **arguments), rtol=0, atol=1e-6)
        assert solution.gradient_norm[-1] < 1e-6
        assert solution.cost[-1] <= solution.cost[0] + 1e-12
        assert len(solution.cost) == len(solution.gradient_norm) == len(solution.path)


def test_riemannian_cost_at_the_solution_is_the_distance():
    means = gaussian(5, 8)
    assert riemannian_nearest_etf(means).cost[-1] == pytest.approx(float(simplex_etf_distance(means)), abs=1e-12)


@settings(max_examples=40)
@given(shapes, st.floats(0.01, 100))
def test_nearest_etf_of_a_moved_and_scaled_etf_is_that_etf(shape, scale):
    num_classes, dim, seed = shape
    etf = simplex_etf(num_classes, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = scale * etf + gaussian(dim, seed=seed)
    torch.testing.assert_close(nearest_simplex_etf(moved), etf, rtol=0, atol=1e-9)
    assert float(simplex_etf_distance(moved)) < 1e-20


@settings(max_examples=40)
@given(shapes)
def test_distance_equals_its_definition_and_no_other_etf_is_nearer(shape):
    num_classes, dim, seed = shape
    means = gaussian(num_classes, dim, seed=seed)
    centred = means - means.mean(0)
    centred = centred / centred.norm()

    def distance_to(etf):
        return float((centred - etf / math.sqrt(num_classes)).square().sum())

    distance = float(simplex_etf_distance(means))
    assert distance == pytest.approx(distance_to(nearest_simplex_etf(means)), abs=1e-12)
    assert 0 <= distance <= 2
    rotated = simplex_etf(num_classes, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert distance <= distance_to(rotated) + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    means = gaussian(4, 6).to(dtype)
    assert nearest_simplex_etf(means).dtype == simplex_etf_distance(means).dtype == polar_factor(means.T).dtype == dtype


def test_autocast_does_not_lower_the_precision():
    means, previous = gaussian(4, 6, dtype=torch.float32), simplex_etf(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nearest_simplex_etf(means, previous=previous, proximal=0.5), simplex_etf_distance(means)
    assert torch.equal(inside[0], nearest_simplex_etf(means, previous=previous, proximal=0.5))
    assert torch.equal(inside[1], simplex_etf_distance(means))


def test_previous_decides_what_the_means_leave_open():
    previous = simplex_etf(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(nearest_simplex_etf(torch.zeros(4, 6).double(), previous=previous), previous)
    means = gaussian(4, 6)
    means[1] = means[0]
    etf = nearest_simplex_etf(means, previous=previous)
    torch.testing.assert_close(etf @ etf.T, ideal_gram(4), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_classes", [2, 3, 7, 10, 29])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_means_are_no_direction(num_classes, dtype):
    means = gaussian(1, 30, seed=num_classes, dtype=dtype).repeat(num_classes, 1)
    assert float(simplex_etf_distance(means)) == 2
    with pytest.raises(ValueError, match="all identical"):
        nearest_simplex_etf(means)
    previous = simplex_etf(num_classes, 30, dtype=dtype)
    torch.testing.assert_close(nearest_simplex_etf(means, previous=previous), previous)
    apart = means + 1e-5 * simplex_etf(num_classes, 30, dtype=dtype)
    assert float(simplex_etf_distance(apart)) < 0.1


def test_distance_of_degenerate_means():
    assert float(simplex_etf_distance(torch.ones(3, 5))) == 2
    line = torch.tensor([[-1.0], [0.0], [1.0]])
    assert float(simplex_etf_distance(line)) == pytest.approx(2 - 2 / math.sqrt(2))


BAD = [
    (lambda: simplex_etf(1, 3), ValueError, "num_classes"),
    (lambda: simplex_etf(4, 2), ValueError, "dim must be at least num_classes - 1 = 3"),
    (lambda: helmert_basis(0), ValueError, "num_classes"),
    (lambda: nearest_simplex_etf(torch.full((3, 3), torch.nan)), ValueError, "class_means must be finite"),
    (lambda: nearest_simplex_etf(torch.full((3, 3), torch.inf)), ValueError, "class_means must be finite"),
    (lambda: nearest_simplex_etf(torch.zeros(3, 3).long()), TypeError, "class_means must be a floating-point"),
    (lambda: nearest_simplex_etf([[1.0]]), TypeError, "class_means"),
    (lambda: nearest_simplex_etf(torch.randn(3)), ValueError, r"shape \(C, d\)"),
    (lambda: nearest_simplex_etf(torch.randn(1, 3)), ValueError, "class_means must have shape .* C >= 2"),
    (lambda: nearest_simplex_etf(torch.randn(5, 3)), ValueError, "class_means must have d >= C - 1 = 4"),
    (lambda: nearest_simplex_etf(torch.zeros(3, 3)), ValueError, "class_means are all identical.*previous"),
    (lambda: nearest_simplex_etf(torch.zeros(3, 3), previous=torch.eye(3), proximal=0), ValueError, "all identical"),
    (lambda: nearest_simplex_etf(torch.eye(3), previous=torch.eye(3)[:2]), ValueError, "previous must have the shape"),
    (lambda: nearest_simplex_etf(torch.randn(3, 3), previous=torch.eye(3), proximal=-1.0), ValueError, "proximal"),
    (lambda: simplex_etf_distance(torch.full((3, 3), torch.nan)), ValueError, "class_means must be finite"),
    (lambda: riemannian_nearest_etf(torch.full((3, 3), torch.nan)), ValueError, "class_means must be finite"),
    (lambda: polar_factor(torch.randn(2, 3)), ValueError, "d >= k"),
    (lambda: polar_factor(torch.full((3, 2), torch.nan)), ValueError, "a must be finite"),
    (lambda: polar_factor(torch.ones(3, 2, dtype=torch.long)), TypeError, "a must be a floating-point"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_thousand_classes_fit_in_a_gigabyte():
    script = textwrap.dedent("""
        import resource, torch
        from ncbook.etf import nearest_simplex_etf
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        means = torch.randn(1000, 2048, requires_grad=True)
        (nearest_simplex_etf(means) * torch.randn(1000, 2048)).sum().backward()
        assert means.grad.isfinite().all() and means.grad.norm() > 0
        used = resource.getrusage(resource.RUSAGE_SELF)
        print((used.ru_maxrss - before) / 1024, used.ru_utime + used.ru_stime)
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    megabytes, cpu_seconds = map(float, result.stdout.split())
    assert megabytes < 1024 and cpu_seconds < 60
