"""The losses of a classifier that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def dot_regression_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Half the mean of (logit of the true class - 1)^2; meant for heads of scale 1, whose largest logit is 1.

    logits (N, C), targets (N,) int64; returns (). Source: Yang et al. 2022, arXiv 2203.09081 (dot-regression loss).
    """
    return (logits.gather(1, targets[:, None]) - 1).square().mean() / 2


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "dot_regression": dot_regression_loss,
}
