"""The nearest simplex ETF by Riemannian optimisation: the published way, kept as a reference for the closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ncbook.checks import check_number
from ncbook.etf import PROXIMAL, aligned_means, check_previous, simplex_etf


class EtfSolution(NamedTuple):
    """What the Riemannian solver found: the ETF (C, d) and, per iteration, the cost, gradient norm and ETF."""

    etf: Tensor
    cost: list[float]
    gradient_norm: list[float]
    path: list[Tensor]


def riemannian_nearest_etf(class_means: Tensor, *, previous: Tensor | None = None, proximal: float = PROXIMAL,
                           initial: Tensor | None = None, max_iterations: int = 100) -> EtfSolution:
    """The problem of `nearest_simplex_etf` solved by Riemannian trust regions on the Stiefel manifold (pymanopt).

    Minimises |H^T - V Q^T/sqrt(C-1)|_F^2 + proximal/(C-1) |V - V_previous|_F^2 over V^T V = I. A slow reference in
    float64 that shows the solver at work; not differentiable. class_means (C, d); previous and initial (C, d) are
    simplex ETFs, the start is the canonical one without `initial` (mirrored for d = C-1 where need be).
    Raises as `nearest_simplex_etf`.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248: their solver and, in V, their problem.
    """
    import numpy as np
    from pymanopt.manifolds import Stiefel
    from pymanopt.optimizers import TrustRegions

    aligned, basis = aligned_means(class_means.detach().double().cpu())
    num_classes, dim = class_means.shape
    rank, scale = num_classes - 1, math.sqrt(num_classes / (num_classes - 1))
    start = simplex_etf(num_classes, dim) if initial is None else initial
    check_previous(start, class_means)

    def frame_of(etf: Tensor):
        return (etf.detach().double().cpu().T @ basis / scale).numpy()

    target, pull, pulled_to = aligned.numpy(), 0.0, frame_of(start)
    if previous is not None:
        check_previous(previous, class_means)
        pull, pulled_to = check_number("proximal", proximal), frame_of(previous)

    manifold = Stiefel(dim, rank)
    visited: list[np.ndarray] = []
    problem = _problem(manifold, target, pull, pulled_to, visited)
    optimizer = TrustRegions(max_iterations=max_iterations, min_gradient_norm=1e-10, verbosity=0)
    initial_point = frame_of(start)
    if dim == rank and np.linalg.det(initial_point) * np.linalg.det(target + pull * pulled_to) < 0:
        # Square orthogonal matrices form two components, and the solver cannot leave the one that it starts in.
        initial_point[:, -1] *= -1
    if manifold.dim == 0:  # C = 2 in one dimension: two points, and the component is already the right one
        visited.append(initial_point)
    else:
        optimizer.run(problem, initial_point=initial_point, maxinner=manifold.dim)
    points = list(visited)
    costs = [float(problem.cost(v)) for v in points]
    norms = [float(manifold.norm(v, problem.riemannian_gradient(v))) for v in points]
    path = [scale * basis @ torch.from_numpy(v).T for v in points]
    return EtfSolution(path[-1].to(class_means.dtype), costs, norms, path)


def _problem(manifold, target, pull: float, pulled_to, visited: list):
    """|v - target|_F^2 + pull |v - pulled_to|_F^2, over C-1, on the manifold; the points accepted go to `visited`."""
    import pymanopt

    rank = target.shape[1]

    @pymanopt.function.numpy(manifold)
    def cost(v):
        return (((v - target) ** 2).sum() + pull * ((v - pulled_to) ** 2).sum()) / rank

    @pymanopt.function.numpy(manifold)
    def euclidean_gradient(v):
        # TrustRegions keeps no log of its points, but takes a gradient at each one that it accepts.
        if not visited or (v != visited[-1]).any():
            visited.append(v.copy())
        return 2 * (v - target + pull * (v - pulled_to)) / rank

    @pymanopt.function.numpy(manifold)
    def euclidean_hessian(v, direction):
        return 2 * (1 + pull) * direction / rank

    return pymanopt.Problem(manifold, cost, euclidean_gradient=euclidean_gradient, euclidean_hessian=euclidean_hessian)
