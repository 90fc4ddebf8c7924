"""The formulas of the metrics: functions of a `Summary`, which `ncbook.metrics` puts together.

All linear algebra is in float64, and in forms that stay right when the within-class scatter is close to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pdist

from ncbook.moments import PART

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Summary:
    """What a metric is computed from, in float64.

    count (C,), class means (C, d), variation (C,): the summed squared deviations of each class, scatter (d, d): the
    pooled ones; global_mean (d,): the mean of the class means; between (C, d): the class means minus it, zeros where
    they are no more than `rounding` (); weight (C, d) and bias (C,) for metrics that need a classifier; samples: the
    batches (features, targets) that were kept; outside (d,): the mean of the features out of distribution.
    """

    count: Tensor
    mean: Tensor
    variation: Tensor
    scatter: Tensor
    global_mean: Tensor
    between: Tensor
    rounding: Tensor
    weight: Any
    bias: Any
    samples: list[tuple[Tensor, Tensor]]
    outside: Tensor

    @cached_property
    def directions(self) -> tuple[Tensor, Tensor]:
        """Left singular vectors (d, r) of the centred class means as columns, and singular values, 0 below rounding."""
        u, sigma, _ = torch.linalg.svd(self.between.T, full_matrices=False)
        rank = min(self.between.shape[1], len(self.count) - 1)
        return u[:, :rank], sigma[:rank] * (sigma[:rank] > self.rounding)


def variability(s: Summary) -> dict[str, Tensor]:
    num_classes, samples = len(s.count), s.count.sum()
    within_trace, between_trace = s.variation.sum() / samples, s.between.square().sum() / num_classes
    u, sigma = s.directions
    # S_B^+ = C U sigma^-2 U^T, so that nc1 needs no d x d pseudo-inverse.
    along = (u * (s.scatter @ u)).sum(0) / samples
    nc1 = torch.where(sigma > 0, along / sigma.square(), 0).sum()
    variance = s.variation / s.count
    first, second = torch.triu_indices(num_classes, num_classes, 1, device=s.count.device)
    return {
        "nc1": torch.where((sigma > 0).any(), nc1, within_trace / between_trace),
        "nc1_quotient": within_trace / between_trace,
        "cdnv": ((variance[first] + variance[second]) / (2 * pdist(s.between).square())).mean(),
    }


def variability_collapse_index(s: Summary) -> Tensor:
    """1 - tr(S_T^+ S_B)/r for S_B = B B^T with B (d, r), without the cancellation in 1 - (1 - tiny).

    By Woodbury it is tr((I + G)^-1)/r with G = B^T S_W^-1 B, whose eigenvalues are the squared singular values of
    S_W^-1/2 B.
    """
    u, sigma = s.directions
    basis, within = u * (sigma / len(s.count) ** 0.5), s.scatter / s.count.sum()
    variances, axes = torch.linalg.eigh(within)
    info = torch.finfo(within.dtype)
    floor = torch.maximum(len(within) * info.eps * variances[-1], s.rounding.square()).clamp(min=info.tiny)
    ratios = torch.linalg.svdvals((axes.T @ basis) / variances.clamp(min=floor).sqrt()[:, None])
    return (1 / (1 + ratios.square())).mean()


def mean_numerical_rank(s: Summary) -> Tensor:
    device = s.mean.device
    targets = torch.cat([targets.to(device) for _, targets in s.samples])
    features = torch.cat([features.to(device) for features, _ in s.samples])[targets.argsort()]
    clouds = features.split(s.count.tolist())
    return torch.stack([_numerical_rank(cloud.to(torch.float64)) for cloud in clouds]).mean()


def _numerical_rank(cloud: Tensor) -> Tensor:
    gram = cloud @ cloud.T if cloud.shape[0] < cloud.shape[1] else cloud.T @ cloud
    s = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    # The Gram matrix is five times cheaper, but its rounding moves each s by up to rounding / s.
    rounding = 100 * torch.finfo(s.dtype).eps * s[-1].square()
    if (rounding / s).sum() > 1e-8 * s.sum():
        s = torch.linalg.svdvals(cloud)
    return s.sum().square() / s.square().sum()


def _simplex(rows: Tensor, prefix: str) -> dict[str, Tensor]:
    norms = torch.linalg.vector_norm(rows, dim=1)
    unit = rows / norms[:, None]
    num_classes = len(rows)
    gaps = (unit @ unit.T + 1 / (num_classes - 1)).abs().fill_diagonal_(0)
    return {
        f"{prefix}_equinorm": norms.std(correction=0) / norms.mean(),
        f"{prefix}_equiangular": gaps.sum() / (num_classes * (num_classes - 1)),
    }


def _gram_gap(gram: Tensor) -> Tensor:
    num_classes = len(gram)
    ideal = (torch.eye(num_classes).to(gram) - 1 / num_classes) / (num_classes - 1) ** 0.5
    return torch.linalg.matrix_norm(gram / torch.linalg.matrix_norm(gram) - ideal)


def duality(s: Summary) -> dict[str, Tensor]:
    unit_weight, unit_means = (rows / torch.linalg.matrix_norm(rows) for rows in (s.weight, s.between))
    return {
        "nc3": (unit_weight - unit_means).square().sum(),
        "nc3_gram": _gram_gap(s.weight @ s.between.T),
        "bias_collapse": torch.linalg.vector_norm(s.weight @ s.global_mean + s.bias),
    }


def decisions(s: Summary) -> dict[str, Tensor]:
    # Logits less their mean over classes: the same decisions, and the margin's cosines but for two norms.
    centred = s.weight - s.weight.mean(0)
    norms = torch.linalg.vector_norm(centred, dim=1).clamp(min=_TINY)
    offsets = s.weight @ s.global_mean + s.bias
    sums = s.weight.new_zeros(3)
    for features, targets in _parts(s.samples):
        h = features.to(s.between.device).to(torch.float64) - s.global_mean
        targets = targets.to(h.device)
        along = h @ centred.T
        decided = (along + offsets).argmax(1)
        nearest = torch.addmm(s.between.square().sum(1) / -2, h, s.between.T).argmax(1)
        cosines = along.div_(norms).div_(torch.linalg.vector_norm(h, dim=1, keepdim=True).clamp(min=_TINY))
        own = cosines.gather(1, targets[:, None]).squeeze(1)
        others = cosines.scatter_(1, targets[:, None], -torch.inf).amax(1)
        sums = sums + torch.stack([(decided != nearest).sum(), (decided == targets).sum(), (own - others).sum()])
    nc4, accuracy, margin = sums / s.count.sum()
    return {"nc4": nc4, "accuracy": accuracy, "cosine_margin": margin}


def _parts(samples: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for features, targets in samples:
        yield from zip(features.split(PART), targets.split(PART), strict=True)


def of_means(s: Summary) -> dict[str, Tensor]:
    return _simplex(s.between, "nc2") | {"nc2_gram": _gram_gap(s.between @ s.between.T)}


def of_weight(s: Summary) -> dict[str, Tensor]:
    return _simplex(s.weight, "weight")


def orthogonality(s: Summary) -> Tensor:
    return (normalize(s.mean, eps=_TINY) @ normalize(s.outside, dim=0, eps=_TINY)).abs().mean()
