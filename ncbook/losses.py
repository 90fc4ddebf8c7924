"""The losses of a classifier that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ncbook.buffers import working_dtype


def dot_regression_loss(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Half the mean of (logit of the true class - 1)^2; meant for heads of scale 1, whose largest logit is 1.

    logits (..., C), targets (...) int64, those of ignore_index do not count; returns (), float32 for half precision,
    whose range the squares would leave.
    Source: Yang et al. 2022, arXiv 2203.09081 (dot-regression loss).
    """
    kept = targets != ignore_index
    own = logits.gather(-1, torch.where(kept, targets, 0)[..., None]).squeeze(-1)
    own = own.to(working_dtype(own.dtype))
    return torch.where(kept, (own - 1).square(), 0).sum() / kept.sum() / 2


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "dot_regression": dot_regression_loss,
}
