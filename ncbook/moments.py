"""Streaming centred moments of class-labelled features: what the metrics are computed from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PART = 4096  # rows that are brought to float64 at a time


class Moments:
    """Count, mean and summed squared deviation of each class, the pooled scatter, and the mean of what has no class.

    All of it is one float64 vector `packed`, of which the attributes are views, so that it can be sent, saved and
    merged as one tensor. Deviations are from the mean of their own batch, and batches are merged by the differences of
    their means, which `low` carries beyond float64: scatter far below the means, or their rounding, keeps its digits.
    Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance".
    """

    def __init__(self, num_classes: int, dim: int, packed: Tensor | None = None):
        self.num_classes, self.dim = num_classes, dim
        self.packed = torch.zeros(self.size(num_classes, dim), dtype=torch.float64) if packed is None else packed

    @staticmethod
    def size(num_classes: int, dim: int) -> int:
        """The length of `packed`."""
        return 2 * num_classes + 2 * num_classes * dim + dim * dim + 1 + dim

    def _part(self, index: int) -> Tensor:
        c, d = self.num_classes, self.dim
        return self.packed.split((c, c, c * d, c * d, d * d, 1, d))[index]

    @property
    def count(self) -> Tensor:
        """(C,) samples."""
        return self._part(0)

    @property
    def variation(self) -> Tensor:
        """(C,) summed squared deviations."""
        return self._part(1)

    @property
    def mean(self) -> Tensor:
        """(C, d), zeros for a class without a sample."""
        return self._part(2).view(self.num_classes, self.dim)

    @property
    def low(self) -> Tensor:
        """(C, d) what rounding took from `mean`."""
        return self._part(3).view(self.num_classes, self.dim)

    @property
    def scatter(self) -> Tensor:
        """(d, d) summed products of deviations from the mean of their class."""
        return self._part(4).view(self.dim, self.dim)

    @property
    def outside_count(self) -> Tensor:
        """(1,) samples out of distribution."""
        return self._part(5)

    @property
    def outside_mean(self) -> Tensor:
        """(d,)"""
        return self._part(6)

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add samples (n, d) of classes (n,), on the device of `packed`."""
        for x, y in zip(features.split(PART), targets.split(PART), strict=True):
            classes, members, count = y.unique(return_inverse=True, return_counts=True)
            x = x.to(torch.float64, copy=True)
            sums, size = x.new_zeros(len(classes), self.dim), count[:, None]
            mean = sums.index_add(0, members, x) / size
            x -= mean.index_select(0, members)
            # The mean of the deviations is the rounding of the mean: without this, it would count as scatter.
            low = sums.index_add(0, members, x) / size
            x -= low.index_select(0, members)
            variation = x.new_zeros(len(classes)).index_add(0, members, torch.linalg.vector_norm(x, dim=1).square())
            self._merge(classes, count, mean, low, variation, x)

    def add_outside(self, features: Tensor) -> None:
        """Add samples (n, d) that belong to no class."""
        for x in features.split(PART):
            x = x.to(torch.float64)
            self._merge_outside(len(x), x.mean(0))

    def merge(self, other: Moments) -> None:
        """Add the samples of another of the same sizes."""
        packed = other.packed.to(self.packed)
        theirs = Moments(self.num_classes, self.dim, packed)
        self.scatter.add_(theirs.scatter)
        everything = torch.arange(self.num_classes, device=packed.device)
        self._merge(everything, theirs.count, theirs.mean, theirs.low, theirs.variation, packed.new_empty(0, self.dim))
        self._merge_outside(theirs.outside_count, theirs.outside_mean)

    def _merge(self, classes: Tensor, count: Tensor, mean: Tensor, low: Tensor, variation: Tensor,
               deviations: Tensor) -> None:
        before, old, old_low = self.count[classes], self.mean[classes], self.low[classes]
        total = before + count
        share = (count / total.clamp(min=1))[:, None]
        high, below = mean - old, low - old_low
        shift, pull = high + below, before[:, None] * share
        self.scatter.addmm_(deviations.T, deviations).addmm_((pull * shift).T, shift)
        self.variation.index_add_(0, classes, variation + (pull * shift.square()).sum(1))
        # The sum of two numbers, and what its rounding took (Knuth).
        step = share * high
        new = old + step
        part = new - old
        self.mean.index_copy_(0, classes, new)
        self.low.index_copy_(0, classes, old_low + share * below + (old - (new - part)) + (step - part))
        self.count.index_copy_(0, classes, total)

    def _merge_outside(self, count: Tensor | int, mean: Tensor) -> None:
        total = self.outside_count + count
        self.outside_mean.add_(count / total.clamp(min=1) * (mean - self.outside_mean))
        self.outside_count.copy_(total)


def merge_packed(parts: Sequence[Tensor] | Tensor, num_classes: int, dim: int) -> Tensor:
    """The packed moments (K, size) of K disjoint sets of samples as those of all of them, (size,)."""
    whole = Moments(num_classes, dim, parts[0].clone())
    for part in parts[1:]:
        whole.merge(Moments(num_classes, dim, part))
    return whole.packed
