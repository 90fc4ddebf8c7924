"""Vietoris-Rips H0 persistence of point clouds, and the densification loss built on it.

The n - 1 finite H0 death times of n points are the edge lengths of their minimum spanning tree. The tree is found
without gradient; then just its edges are measured again, exactly and with gradient.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ncbook import torchph
from ncbook.checks import check_choice, check_floating, check_number, may_look


def h0_death_times(points: Tensor, p: float = 2, backend: str = "auto") -> Tensor:
    """The H0 death times of the Vietoris-Rips filtration of each cloud, ascending, differentiable in the points.

    Shapes: points (..., n, d) floating point -> (..., n - 1), in the units of `points` (p-norm: p = 1, 2 or inf).
        Always n - 1 of them: coinciding points give zeros, where the gradient is zero too. Where distances tie, the
        gradient is that of one minimum spanning tree.
    backend: "auto" is built in: Prim's algorithm on the CPU, and elsewhere a form that never waits for the device.
        "torchph" lets Hofer's CUDA package find the tree, one cloud at a time; values and gradients are the same.
    Raises: TypeError if `points` is not a floating-point tensor; ValueError for a wrong shape, `p` or `backend`, and
        for NaN or inf in `points` on the CPU. On other devices asking would stall them, so NaN and inf come out as
        death times that are not finite. RuntimeError if torchph is asked for and does not work here.
    Source: Hofer, Graf, Niethammer, Kwitt, Topologically Densified Distributions, ICML 2020 (arXiv 2002.04805).
    """
    clouds = _checked_clouds(points, p)
    check_choice("backend", backend, ("auto", "torchph"))
    with torch.no_grad():
        tree = _torchph_tree(clouds, p) if backend == "torchph" else _tree(clouds, p)
    deaths = _edge_lengths(clouds, tree, p).sort(-1).values
    return deaths.reshape(*points.shape[:-2], points.shape[-2] - 1).to(points.dtype)


def densification_loss(clouds: Tensor, beta: float | Tensor, p: float = 2) -> Tensor:
    """How far the H0 death times of same-class clouds are from beta: the mean over clouds of sum |death - beta|.

    Shapes: clouds (b, n, d), b >= 1 -> (). beta: a number or a 0-dim tensor, finite, >= 0, in the units of `clouds`.
    Raises: as h0_death_times; ValueError if `clouds` is not (b, n, d) or beta is negative or not finite (a beta
        tensor is not looked at where this would stall a device or break a compiled graph; compiled code takes one
        without being compiled again for each value). Compiled clouds of one point, whose loss is 0, are not looked at.
    Source: Hofer, Graf, Niethammer, Kwitt, Topologically Densified Distributions, ICML 2020 (arXiv 2002.04805).
    """
    if isinstance(clouds, Tensor) and (clouds.ndim != 3 or len(clouds) == 0):
        raise ValueError(f"clouds must have shape (b, n, d) with b >= 1, got {tuple(clouds.shape)}")
    points = _checked_clouds(clouds, p)
    _check_beta(beta)
    with torch.no_grad():
        tree = _tree(points, p)
    return (_edge_lengths(points, tree, p) - beta).abs().sum(-1).mean().to(clouds.dtype)


@torch.no_grad()
def spanning_tree(points: Tensor, p: float = 2) -> Tensor:
    """The edges of a minimum spanning tree of each cloud, shortest first, so in the order of the H0 death times.

    Shapes: points (..., n, d) -> (..., n - 1, 2), int64 indices of the points that each edge joins. No gradient.
    Raises: TypeError and ValueError as h0_death_times.
    Source: Prim, Shortest connection networks and some generalizations, 1957.
    """
    clouds = _checked_clouds(points, p)
    tree = _tree(clouds, p)
    order = _edge_lengths(clouds, tree, p).argsort(dim=-1, stable=True)
    tree = tree.gather(1, order[..., None].expand_as(tree))
    return tree.reshape(*points.shape[:-2], points.shape[-2] - 1, 2)


def _checked_clouds(points: Tensor, p: float) -> Tensor:
    """(..., n, d) -> (b, n, d) in float32 or better, after checking everything that needs no look at the values."""
    check_floating("points", points)
    if points.ndim < 2 or 0 in points.shape[-2:]:
        raise ValueError(f"points must have shape (..., n, d) with n >= 1 and d >= 1, got {tuple(points.shape)}")
    check_choice("p", p, (1, 2, math.inf))
    clouds = points if points.ndim == 3 else points.reshape(math.prod(points.shape[:-2]), *points.shape[-2:])
    return clouds if clouds.dtype in (torch.float32, torch.float64) else clouds.float()


def _check_beta(beta: float | Tensor) -> None:
    if isinstance(beta, Tensor):
        if beta.ndim != 0:
            raise ValueError(f"beta must be a number or a 0-dim tensor, got a tensor of shape {tuple(beta.shape)}")
        if not may_look(beta):
            return
        beta = float(beta)
    check_number("beta", beta)


def _check_finite(clouds: Tensor, distances: Tensor) -> None:
    # A finite sum rules out NaN and inf in one cheap pass; only a suspicious sum is worth looking at each value.
    if torch.isfinite(clouds.sum() + distances.sum()):
        return
    if not torch.isfinite(clouds).all():
        raise ValueError("points must be finite, got NaN or inf among them")
    if not torch.isfinite(distances).all():
        raise ValueError(f"points lie so far apart that distances overflow {clouds.dtype}; scale them or use float64")


@torch.library.custom_op("ncbook::spanning_trees", mutates_args=())
def _tree(clouds: Tensor, p: float) -> Tensor:
    """Minimum spanning trees, edges in no particular order: (b, n, d) -> (b, n - 1, 2). An operator, so that a compiler
    does not look inside and torch.func.vmap finds its way."""
    b, n, _ = clouds.shape
    if n == 1:
        # No edge will carry a NaN out, so it has to be found here on every device.
        _check_finite(clouds, clouds)
    if n == 1 or b == 0:
        return torch.empty(b, n - 1, 2, dtype=torch.long, device=clouds.device)
    if clouds.device.type == "cpu":
        return torch.from_numpy(np.ascontiguousarray(_prim(_cpu_distances(clouds, p))))
    return _minimax_tree(_distances(clouds, p))


@_tree.register_fake
def _(clouds: Tensor, p: float) -> Tensor:
    return clouds.new_empty(clouds.shape[0], clouds.shape[1] - 1, 2, dtype=torch.long)


@_tree.register_vmap
def _(info, in_dims, clouds: Tensor, p: float):
    return _tree(clouds.movedim(in_dims[0], 0).flatten(0, 1), p).unflatten(0, (info.batch_size, -1)), 0


def _distances(clouds: Tensor, p: float) -> Tensor:
    # The matrix-multiply form of cdist loses all digits once the points of a cloud are close to each other.
    return torch.cdist(clouds, clouds, p=float(p), compute_mode="donot_use_mm_for_euclid_dist")


def _cpu_distances(clouds: Tensor, p: float) -> np.ndarray:
    """(b, n, d) -> (b, n, n) array. On the CPU pdist is 4 to 10 times faster than the direct form of cdist."""
    b, n, _ = clouds.shape
    condensed = torch.stack([F.pdist(cloud, float(p)) for cloud in clouds])
    _check_finite(clouds, condensed)
    values, distances, start = condensed.numpy(), np.zeros((b, n, n), condensed.numpy().dtype), 0
    for i in range(n - 1):
        row = values[:, start : start + n - 1 - i]
        distances[:, i, i + 1 :] = row
        distances[:, i + 1 :, i] = row
        start += n - 1 - i
    return distances


def _prim(distances: np.ndarray) -> np.ndarray:
    """Prim's algorithm on all clouds at once, from point 0: (b, n, n) -> (b, n - 1, 2)."""
    b, n, _ = distances.shape
    rows, offset = distances.reshape(b * n, n), np.arange(b) * n
    edges = np.empty((n - 1, b, 2), dtype=np.int64)
    parent = np.zeros((b, n), dtype=np.int64)
    reach = distances[:, 0].copy()  # from each point to the tree
    taken = np.zeros_like(reach)  # inf at the points that are in the tree
    reach[:, 0] = taken[:, 0] = np.inf
    flat_reach, flat_taken = reach.reshape(-1), taken.reshape(-1)
    for k in range(n - 1):
        new = reach.argmin(1)
        at = offset + new
        edges[k, :, 0], edges[k, :, 1] = parent.take(at), new
        flat_reach[at] = flat_taken[at] = np.inf
        row = rows.take(at, 0)
        row += taken
        np.copyto(parent, new[:, None], where=row < reach)
        np.minimum(reach, row, out=reach)
    return edges.swapaxes(0, 1)


def _ranked_pairs(distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs i < j of n points, the order of their lengths, and all lengths replaced by ranks, which never tie.

    Shapes: distances (b, n, n) -> pairs (2, m), order (b, m), ranks (b, n, n) int64, 1 for the shortest,
        0 on the diagonal.
    """
    i, j = torch.triu_indices(distances.shape[1], distances.shape[1], 1, device=distances.device)
    order = distances[:, i, j].argsort(dim=-1, stable=True)
    counts = torch.arange(1, len(i) + 1, device=order.device)
    rank = torch.empty_like(order).scatter_(1, order, counts.expand_as(order))
    ranks = torch.zeros_like(distances, dtype=torch.long)
    ranks[:, i, j] = ranks[:, j, i] = rank
    return torch.stack((i, j)), order, ranks


def _minimax_tree(distances: Tensor) -> Tensor:
    """The trees without a loop that depends on the data: (b, n, n) -> (b, n - 1, 2).

    An edge is in the minimum spanning tree if and only if no path around it has only shorter edges, so if and only if
    it is as long as the minimax path between its ends (Floyd-Warshall, O(n^3) work but 2 n kernels in all).
    """
    (i, j), order, ranks = _ranked_pairs(distances)
    minimax = ranks.clone()
    for k in range(ranks.shape[1]):
        torch.minimum(minimax, torch.maximum(minimax[:, :, k, None], minimax[:, None, k]), out=minimax)
    in_tree = (minimax == ranks)[:, i, j].gather(1, order)
    edges = order.gather(1, in_tree.long().argsort(dim=-1, descending=True, stable=True)[:, : ranks.shape[1] - 1])
    return torch.stack((i[edges], j[edges]), -1)


def _torchph_tree(clouds: Tensor, p: float) -> Tensor:
    """The trees from torchph: (b, n, d) -> (b, n - 1, 2)."""
    torchph.import_torchph()
    b, n, _ = clouds.shape
    if n <= 2 or b == 0:  # torchph fails for n = 2, where there is but one tree
        return _tree(clouds, p)
    distances = _distances(clouds, p)
    if clouds.device.type == "cpu":
        _check_finite(clouds, distances)
    (i, j), order, ranks = _ranked_pairs(distances)
    edges = order.gather(1, torchph.torchph_deaths(ranks).long() - 1)
    return torch.stack((i[edges], j[edges]), -1)


class _EdgeDifferences(torch.autograd.Function):
    """The ends of each edge, one minus the other: points (b, n, d), tree (b, n - 1, 2) -> (b, n - 1, d).

    Autograd's own form of this allocates the large intermediate tensors twice; at (32, 64, 512) it takes twice as long.
    """

    @staticmethod
    def forward(points: Tensor, tree: Tensor) -> Tensor:
        (b, n, d), (i, j) = points.shape, _flat_ends(tree, points.shape[1])
        flat = points.reshape(b * n, d)
        return flat.index_select(0, i).sub_(flat.index_select(0, j)).view(b, n - 1, d)

    @staticmethod
    def setup_context(ctx, inputs, output):
        points, tree = inputs
        ctx.save_for_backward(tree)
        ctx.shape = points.shape

    @staticmethod
    def backward(ctx, grad: Tensor):
        (tree,), (b, n, d) = ctx.saved_tensors, ctx.shape
        i, j = _flat_ends(tree, n)
        grad = grad.reshape(b * (n - 1), d)
        total = grad.new_zeros(b * n, d).index_add_(0, i, grad).index_add_(0, j, grad, alpha=-1)
        return total.view(b, n, d), None

    @staticmethod
    def vmap(info, in_dims, points: Tensor, tree: Tensor):
        many = [x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
                for x, dim in zip((points, tree), in_dims, strict=True)]
        return _EdgeDifferences.apply(*(x.flatten(0, 1) for x in many)).unflatten(0, (info.batch_size, -1)), 0


def _flat_ends(tree: Tensor, n: int) -> tuple[Tensor, Tensor]:
    first = torch.arange(len(tree), device=tree.device)[:, None, None] * n
    i, j = (tree + first).reshape(-1, 2).unbind(1)
    return i, j


def _edge_lengths(clouds: Tensor, tree: Tensor, p: float) -> Tensor:
    """(b, n, d), (b, n - 1, 2) -> (b, n - 1), with gradient. vector_norm has the zero subgradient at length zero."""
    differences = _EdgeDifferences.apply(clouds, tree)
    if tree.shape[1] == 0:  # which a compiler's vector_norm does not take for p = inf
        return differences.sum(-1)
    return torch.linalg.vector_norm(differences, p, dim=-1)
