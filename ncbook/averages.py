"""Moving averages of class means, the input of the nearest-ETF problem."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncbook.checks import check_choice, check_floating, check_integer, check_labels

METHODS = ("ema", "cma")


class ClassMeanAverage(nn.Module):
    """Moving average of the mean feature of each class over the batches that hold it.

    Update t of a class mixes in its batch mean with weight alpha_t: max(2/(t+1), 1e-4) for "ema", 1/t for "cma", so
    the first batch sets the average. A class absent from a batch keeps its average and its count.

    num_classes C >= 2, dim d. Buffers: `mean` (C, d), `count` (C,) updates so far.
    Raises ValueError for fewer classes, dim < 1 or an unknown method.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248 (there one count for all classes, here one for each).
    """

    def __init__(self, num_classes: int, dim: int, method: str = "ema"):
        super().__init__()
        check_integer("num_classes", num_classes, least=2)
        check_integer("dim", dim, least=1)
        self.method = check_choice("method", method, METHODS)
        self.register_buffer("mean", torch.zeros(num_classes, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.long))

    @property
    def seen(self) -> Tensor:
        """(C,) mask of the classes that have been in a batch."""
        return self.count > 0

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Update with a batch and return the averages, with a gradient through this batch only.

        features (N, d), targets (N,) int64 in 0..C-1; returns (C, d), zero rows for classes never seen.
        Raises TypeError for integer features or targets that are not int64, ValueError for wrong shapes, an empty
        batch, labels out of range, NaN or inf.
        """
        self._check(features, targets)
        with torch.autocast(features.device.type, enabled=False):
            members = (targets == torch.arange(len(self.mean), device=targets.device)[:, None]).to(self.mean.dtype)
            size = members.sum(1, keepdim=True)
            batch_mean = members @ features.to(self.mean.dtype) / size.clamp(min=1)
            count = self.count + (size[:, 0] > 0)
            t = count.clamp(min=1).to(self.mean.dtype)[:, None]
            alpha = (2 / (t + 1)).clamp(min=1e-4) if self.method == "ema" else 1 / t
            # A copy of the old mean: autograd must not see the in-place update below.
            mean = torch.lerp(self.mean.clone(), batch_mean, alpha * (size > 0))
        self.mean.copy_(mean.detach())
        self.count.copy_(count)
        return mean

    def _check(self, features: Tensor, targets: Tensor) -> None:
        num_classes, dim = self.mean.shape
        check_floating("features", features)
        if targets.dtype != torch.long:
            raise TypeError(f"targets must be int64, got {targets.dtype}")
        if features.ndim != 2 or features.shape[1] != dim or targets.shape != features.shape[:1]:
            raise ValueError(f"features must have shape (N, {dim}) and targets (N,), "
                             f"got {tuple(features.shape)} and {tuple(targets.shape)}")
        if len(features) == 0:
            raise ValueError("features must hold at least one sample, got an empty batch")
        check_labels("targets", targets, num_classes, features)
