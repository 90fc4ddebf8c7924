"""Simplex equiangular tight frames (ETFs): building them, finding the nearest one, measuring the distance to it.

Classes are rows. A simplex ETF of C classes in d >= C-1 dimensions is W = sqrt(C/(C-1)) Q V^T, with Q the (C, C-1)
Helmert basis of the complement of the ones vector and V any (d, C-1) matrix with orthonormal columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ncbook.buffers import full_precision, working_dtype
from ncbook.checks import check_finite, check_floating, check_integer, check_number, may_look

# The published pull delta = 1e-3 at C = 10, relative to the unit singular values of an exact ETF: delta (C-1)/2.
PROXIMAL = 4.5e-3


def helmert_basis(num_classes: int, *, dtype: torch.dtype | None = None, device=None) -> Tensor:
    """Orthonormal basis Q of the complement of the ones vector: Q^T Q = I and Q Q^T = I - 11^T/C.

    Returns (C, C-1). Raises ValueError for fewer than two classes.
    """
    check_integer("num_classes", num_classes, least=2)
    k = torch.arange(1, num_classes, dtype=torch.float64)
    basis = torch.ones(num_classes, num_classes - 1, dtype=torch.float64).triu()
    basis.diagonal(-1).copy_(-k)
    return (basis / (k * (k + 1)).sqrt()).to(dtype=dtype or torch.get_default_dtype(), device=device)


def simplex_etf(num_classes: int, dim: int, *, generator: torch.Generator | None = None,
                dtype: torch.dtype | None = None, device=None) -> Tensor:
    """A simplex ETF: unit rows whose pairwise cosines are all -1/(C-1).

    Canonical (V = the first C-1 unit vectors) without a generator, uniformly rotated with one.
    Returns (C, dim). Raises ValueError for fewer than two classes or dim < C-1.
    Source: Papyan, Han, Donoho 2020, arXiv 2008.08186 (their definition, with unit rows).
    """
    check_integer("num_classes", num_classes, least=2)
    _check_dim(num_classes, dim)
    if generator is None:
        frame = torch.eye(dim, num_classes - 1, dtype=torch.float64)
    else:
        gaussian = torch.randn(dim, num_classes - 1, dtype=torch.float64, generator=generator, device=generator.device)
        frame, r = torch.linalg.qr(gaussian)
        frame = frame * r.diagonal().sign()  # without the signs QR does not sample uniformly
    basis = helmert_basis(num_classes, dtype=torch.float64, device=frame.device)
    etf = math.sqrt(num_classes / (num_classes - 1)) * basis @ frame.T
    return etf.to(dtype=dtype or torch.get_default_dtype(), device=device)


class _Once(torch.autograd.Function):
    """function(*tensors), a gradient that is not to be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function, *tensors: Tensor) -> Tensor:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad: Tensor):
        raise NotImplementedError("polar_factor and nearest_simplex_etf can be differentiated once, not twice")


def _once(function, *tensors: Tensor) -> Tensor:
    return _Once.apply(function, *tensors) if torch.is_grad_enabled() else function(*tensors)


def _exactly(function, grad: Tensor, *saved: Tensor) -> Tensor:
    """The gradient that a function computes, whatever autocast there is around the backward pass."""
    # A compiler traces this inside the forward's context, where there seems to be no autocast to switch off.
    compiled = torch.compiler.is_compiling()
    with torch.autocast(grad.device.type, enabled=False) if compiled else full_precision(grad):
        return _once(function, grad, *saved)


class _PolarFactor(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor) -> tuple[Tensor, ...]:
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return u @ vh, u, s, vh

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx, grad: Tensor, *unused):
        return None if grad is None else _exactly(_polar_gradient, grad, *ctx.saved_tensors)


def _polar_gradient(grad: Tensor, a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> Tensor:
    cutoff = s[..., :1] * torch.finfo(s.dtype).eps * u.shape[-2]
    gv = grad @ vh.mT
    x = u.mT @ gv
    b = (x - x.mT) * _safe_reciprocal(s.unsqueeze(-1) + s.unsqueeze(-2), cutoff.unsqueeze(-1))
    outside = (gv - u @ x) * _safe_reciprocal(s, cutoff).unsqueeze(-2)
    return (u @ b + outside) @ vh


def _safe_reciprocal(x: Tensor, cutoff: Tensor) -> Tensor:
    return torch.where(x > cutoff, x, torch.inf).reciprocal()


def polar_factor(a: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns: U V^T of the thin SVD a = U S V^T.

    a and result (..., d, k) with d >= k. The gradient is the implicit-differentiation gradient of the Procrustes
    problem, dA = [U B + (I - U U^T) G V S^-1] V^T with B_ij = (X_ij - X_ji)/(s_i + s_j), X = U^T G V: finite for
    repeated singular values, where autograd through the SVD is not. Directions whose singular value is zero to
    rounding get no gradient, and a second derivative is refused with NotImplementedError. Half precision is computed in
    float32. O(d k^2) time, O(d k) memory. Raises TypeError for integers, ValueError for d < k, and for NaN or inf
    where asking costs no wait: on the CPU, neither compiled nor under torch.func.vmap.
    Source: Gould, Hartley, Campbell 2019, arXiv 1909.04866 (equality-constrained nodes), for X^T X = I.
    """
    check_finite("a", check_floating("a", a))
    if a.ndim < 2 or a.shape[-2] < a.shape[-1] or a.shape[-1] == 0:
        raise ValueError(f"a must have shape (..., d, k) with d >= k >= 1, got {tuple(a.shape)}")
    with full_precision(a):
        return _PolarFactor.apply(a.to(working_dtype(a.dtype)))[0].to(a.dtype)


def nearest_simplex_etf(class_means: Tensor, *, previous: Tensor | None = None, proximal: float = PROXIMAL) -> Tensor:
    """The simplex ETF nearest to the centred, Frobenius-normalised class means H.

    W = sqrt(C/(C-1)) Q V^T with V = polar(sqrt(C-1) H^T Q / |H^T Q|_F + proximal * V_previous). The pull to the
    previous solution decides directions that the means leave open; it is relative to the unit singular values of an
    exact ETF and absent without `previous`. Differentiable in class_means.

    class_means (C, d) with d >= C-1; previous (C, d), an earlier solution, a constant; returns (C, d) with unit rows.
    Raises TypeError for integers, ValueError for wrong shapes, NaN or inf, negative proximal, or identical means
    without a previous solution to be pulled to.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248: their proximal problem, in closed form.
    """
    means, basis = _checked_means(class_means)
    if previous is not None:
        check_previous(previous, class_means)
        previous = previous.to(means.dtype)
    frame, resolved = nearest_frame(means, basis, previous, check_number("proximal", proximal))
    if (previous is None or proximal == 0) and may_look(resolved) and not resolved:
        raise ValueError("class_means are all identical, so every simplex ETF is equally near: give `previous` "
                         "and a positive proximal")
    return frame.to(class_means.dtype)


def nearest_frame(means: Tensor, basis: Tensor, previous: Tensor | None, proximal: float) -> tuple[Tensor, Tensor]:
    """`nearest_simplex_etf` without checks, with the Helmert basis given, and whether the means are not all identical;
    where they are, previous stays."""
    with full_precision(means):
        return _NearestFrame.apply(means, basis, previous, proximal)[:2]


class _NearestFrame(torch.autograd.Function):
    """In one piece, since its many small steps would each cost a node of the graph."""

    generate_vmap_rule = True

    @staticmethod
    def forward(means: Tensor, basis: Tensor, previous: Tensor | None, proximal: float) -> tuple[Tensor, ...]:
        factor = math.sqrt(len(basis) / (len(basis) - 1))
        aligned, resolved, *kept = _align(means, basis)
        if previous is not None and proximal == 0:
            aligned = torch.where(resolved, aligned, previous.T @ basis)
        elif previous is not None:
            aligned = aligned + proximal / factor * previous.T @ basis
        u, s, vh = torch.linalg.svd(aligned, full_matrices=False)
        return factor * basis @ (u @ vh).T, resolved, *kept, u, s, vh

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2], *output[1:])

    @staticmethod
    def backward(ctx, grad: Tensor, *unused):
        gradient = None if grad is None else _exactly(_frame_gradient, grad, *ctx.saved_tensors)
        return gradient, None, None, None


def _frame_gradient(grad: Tensor, means: Tensor, basis: Tensor, resolved: Tensor, product: Tensor, norm: Tensor,
                    scale: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> Tensor:
    num_classes = len(basis)
    grad = _polar_gradient(grad.T @ (math.sqrt(num_classes / (num_classes - 1)) * basis), product, u, s, vh)
    root, length = math.sqrt(num_classes - 1), torch.where(resolved, norm, 1.0)
    along = -(grad * (root * product * resolved / length / length)).sum()
    grad = grad / length * resolved * root + product / length * torch.where(resolved, along, 0.0)
    grad = basis @ grad.T / scale
    return grad - grad.sum(0) / num_classes


def simplex_etf_distance(class_means: Tensor) -> Tensor:
    """Squared Frobenius distance of the centred, Frobenius-normalised class means to the nearest simplex ETF.

    2 - 2 |H^T Q|_* / (sqrt(C-1) |H^T Q|_F), in [0, 2], summed in a form that loses no digits near 0. For d < C-1,
    where no simplex ETF fits, it is the distance after padding the means with zeros. Identical means have distance 2.
    class_means (C, d); returns (). Raises TypeError for integers, ValueError for wrong shapes, NaN or inf.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248: the value of their problem at its solution.
    """
    aligned, basis = aligned_means(class_means, any_dim=True)
    rank = len(basis) - 1
    with full_precision(aligned):
        s = torch.linalg.svdvals(aligned) / math.sqrt(rank)
        distance = (s - 1 / math.sqrt(rank)).square().sum() + max(rank - len(s), 0) / rank
        return torch.where(aligned.any(), distance, 2.0).to(class_means.dtype)


def aligned_means(class_means: Tensor, *, any_dim: bool = False) -> tuple[Tensor, Tensor]:
    """sqrt(C-1) H^T Q / |H^T Q|_F of the centred class means H, zeros when they are identical: (d, C-1), and Q."""
    means, basis = _checked_means(class_means, any_dim)
    with full_precision(means):
        return _align(means, basis)[0], basis


def _checked_means(class_means: Tensor, any_dim: bool = False) -> tuple[Tensor, Tensor]:
    """The means in float32 or better, and Q."""
    check_finite("class_means", check_floating("class_means", class_means))
    if class_means.ndim != 2 or len(class_means) < 2:
        raise ValueError(f"class_means must have shape (C, d) with C >= 2, got {tuple(class_means.shape)}")
    num_classes, dim = class_means.shape
    if not any_dim and dim < num_classes - 1:
        raise ValueError(f"class_means must have d >= C - 1 = {num_classes - 1} for a simplex ETF, got d = {dim}")
    means = class_means.to(working_dtype(class_means.dtype))
    return means, helmert_basis(num_classes, dtype=means.dtype, device=means.device)


def _align(means: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `aligned_means` gives, then whether the means differ, H^T Q / scale, its norm, and the scale."""
    # Centring first keeps the digits of means that lie far from the origin, the scale avoids under- and overflow.
    centred = means - means.mean(0)
    scale = centred.detach().abs().amax()
    scale = torch.where(scale > 0, scale, 1.0)
    product = (centred / scale).T @ basis
    norm = torch.linalg.vector_norm(product)
    # Identical means leave rounding, which is no direction.
    resolved = norm > torch.finfo(means.dtype).eps * means.detach().abs().amax() / scale
    aligned = math.sqrt(len(means) - 1) * product * resolved / torch.where(resolved, norm, 1.0)
    return aligned, resolved, product, norm, scale


def _check_dim(num_classes: int, dim: int) -> None:
    if dim < num_classes - 1:
        raise ValueError(f"dim must be at least num_classes - 1 = {num_classes - 1} for a simplex ETF, got {dim}")


def check_previous(previous: Tensor, class_means: Tensor) -> None:
    """Raises as `nearest_simplex_etf` for a previous solution that does not fit the class means."""
    check_finite("previous", check_floating("previous", previous))
    if previous.shape != class_means.shape:
        raise ValueError(f"previous must have the shape of class_means {tuple(class_means.shape)}, "
                         f"got {tuple(previous.shape)}")
