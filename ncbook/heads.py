"""Classifier heads: each takes the place of a model's last nn.Linear."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ncbook.averages import ClassMeanAverage
from ncbook.checks import check_number
from ncbook.etf import PROXIMAL, nearest_simplex_etf, simplex_etf

SCALE = 5.0  # the published feature norm tau


class _UnitRows(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return F.normalize(weight, dim=1)


class LearnedHead(nn.Linear):
    """A trained classifier: plain nn.Linear, or with `cosine` unit rows, no bias, on features of norm `scale`.

    in_features d, out_features C. `weight` (C, d) and `bias` (C,) are what the logits are computed with.
    Source: with `cosine`, the standard baseline of Markou, Ajanthan, Gould 2024, arXiv 2411.01248.
    """

    def __init__(self, in_features: int, out_features: int, *, cosine: bool = False, scale: float = SCALE):
        super().__init__(in_features, out_features, bias=not cosine)
        self.scale = check_number("scale", scale, positive=True) if cosine else None
        if cosine:
            parametrize.register_parametrization(self, "weight", _UnitRows())

    def embed(self, features: Tensor) -> Tensor:
        """The features (N, d) that the classifier sees."""
        return features if self.scale is None else self.scale * F.normalize(features, dim=1)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (N, d) -> logits (N, C); targets are not used."""
        return super().forward(self.embed(features))


class FixedETFHead(nn.Module):
    """The canonical simplex ETF, never trained, on features of norm `scale`.

    in_features d >= C-1, out_features C. Buffers `weight` (C, d), `bias` (C,) of zeros. Raises ValueError for d < C-1.
    Source: Zhu et al. 2021, arXiv 2105.02375; Yang et al. 2022, arXiv 2203.09081.
    """

    def __init__(self, in_features: int, out_features: int, *, scale: float = SCALE):
        super().__init__()
        self.scale = check_number("scale", scale, positive=True)
        if out_features < 2 or in_features < out_features - 1:
            raise ValueError("a simplex ETF needs out_features >= 2 and in_features >= out_features - 1, "
                             f"got in_features = {in_features} and out_features = {out_features}")
        self.register_buffer("weight", simplex_etf(out_features, in_features))
        self.register_buffer("bias", torch.zeros(out_features))

    def embed(self, features: Tensor) -> Tensor:
        """The features (N, d) that the classifier sees: scale * z/|z|."""
        return self.scale * F.normalize(features, dim=1)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (N, d) -> logits (N, C); targets are not used."""
        return F.linear(self.embed(features), self.weight, self.bias)


class NearestETFHead(FixedETFHead):
    """The simplex ETF nearest to moving averages of the class means, found anew at each training step.

    In training mode with targets: f = scale * z/|z|, averages of the class means of f, W the nearest simplex ETF to
    them (previous W as the proximal point), b = -W mu with mu the mean of the class means; the gradient runs through
    f, W and b, for W and b by way of this batch's class means. Otherwise W and b stay as they were last left. Classes
    not seen yet do not take part in the fit. All of it is in the state dict.

    in_features d >= C-1, out_features C. Raises ValueError for d < C-1, an unknown method, negative proximal.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248 (there for classes present in every batch).
    """

    def __init__(self, in_features: int, out_features: int, *, scale: float = SCALE, method: str = "ema",
                 proximal: float = PROXIMAL):
        super().__init__(in_features, out_features, scale=scale)
        self.proximal = check_number("proximal", proximal)
        self.averages = ClassMeanAverage(out_features, in_features, method)
        self._targets: Tensor | None = None

    @contextmanager
    def observing(self, targets: Tensor):
        """Hand the targets (N,) to a head that a model calls without them: `with head.observing(y): model(x)`."""
        self._targets = targets
        try:
            yield self
        finally:
            self._targets = None

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (N, d), targets (N,) int64 in 0..C-1 -> logits (N, C)."""
        targets = self._targets if targets is None else targets
        embedded = self.embed(features)
        if not self.training or targets is None:
            return F.linear(embedded, self.weight, self.bias)
        means = self.averages(embedded, targets)
        seen = self.averages.seen[:, None]
        centre = (means * seen).sum(0) / seen.sum()
        # At the centre a row of the Procrustes problem is zero: the class has no say in the fit.
        means = torch.where(seen, means, centre)
        weight = nearest_simplex_etf(means, previous=self.weight.clone(), proximal=self.proximal)
        with torch.autocast(weight.device.type, enabled=False):
            bias = -weight @ centre
        self.weight.copy_(weight.detach())
        self.bias.copy_(bias.detach())
        return F.linear(embedded, weight, bias)


class HeadKind(NamedTuple):
    """How a recipe names a head. build(in_features, out_features, **options) makes one; options are the fields of a
    recipe that it takes; method is what tables and figures call training with it; learned: its rows are parameters."""

    build: Callable[..., nn.Module]
    method: str
    options: tuple[str, ...] = ()
    learned: bool = False


HEADS: dict[str, HeadKind] = {
    "learned": HeadKind(LearnedHead, "linear", learned=True),
    "cosine": HeadKind(partial(LearnedHead, cosine=True), "standard", ("scale",), learned=True),
    "fixed": HeadKind(FixedETFHead, "fixed", ("scale",)),
    "nearest": HeadKind(NearestETFHead, "nearest", ("scale",)),
}
