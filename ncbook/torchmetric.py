"""`NeuralCollapse` as a metric of torchmetrics; this file alone needs torchmetrics, the extra "own"."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ncbook.metrics import NeuralCollapse
from ncbook.moments import merge_packed


class _Live:
    """A module that copies and state dicts of its owner leave alone."""

    def __init__(self, module: Any):
        self.module = module

    def __deepcopy__(self, memo: dict) -> _Live:
        return self


class CollapseMetric(Metric):
    """`NeuralCollapse` with update, compute, reset, sync over processes, state_dict, and in a MetricCollection.

    classifier: a module with `weight` (C, d) and `bias`, taken as it is when `compute` is called, and no part of the
    metric's own state; None for the keys without one. keep_features: for nc4, cosine_margin, numerical_rank and
    accuracy, which are absent otherwise; kept in float32, or torch's default dtype where that is better. keys: those
    of `METRICS` that are wanted, None for all that can be had. options: those of `torchmetrics.Metric`.

    The moments are one float64 vector, merged over processes as `NeuralCollapse.merge` does; casts leave it alone.
    A call of the metric is an update and returns None: one batch need not hold every class. `compute` returns
    key -> () float64. Raises as `NeuralCollapse`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    moments: Tensor
    features: Any  # a list of batches, or after a sync one tensor
    targets: Any

    def __init__(self, num_classes: int, dim: int, *, classifier: nn.Module | None = None, keep_features: bool = False,
                 keys: Iterable[str] | None = None, **options: Any):
        super().__init__(**options)
        self.num_classes, self.dim, self.keep_features = num_classes, dim, keep_features
        self.keys = None if keys is None else tuple(keys)
        self._live = _Live(classifier)
        self.add_state("moments", NeuralCollapse(num_classes, dim).packed,
                       partial(merge_packed, num_classes=num_classes, dim=dim))
        if keep_features:
            self.add_state("features", [], "cat")
            self.add_state("targets", [], "cat")

    @torch.inference_mode(False)
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch: features (n, d) floating, targets (n,) integers."""
        if self.moments.is_inference():  # of a reset in inference mode
            self.moments = self.moments.clone()
        state = self._state().update(features, targets)
        self.moments = state.packed
        if self.keep_features:
            self.features.append(features.detach().to(self.moments.device, self.dtype, copy=True))
            self.targets.append(targets.to(self.moments.device, torch.int64, copy=True))

    def forward(self, features: Tensor, targets: Tensor) -> None:
        self.update(features, targets)

    def compute(self) -> dict[str, Tensor]:
        """Key -> value of all samples, of all processes where they were synced."""
        state, classifier = self._state(), self._live.module
        if self.keep_features:
            synced = isinstance(self.features, Tensor)
            samples = [(self.features, self.targets)] if synced else zip(self.features, self.targets, strict=True)
            state = NeuralCollapse(self.num_classes, self.dim, packed=self.moments, samples=samples)
        weight, bias = (None, None) if classifier is None else (classifier.weight, classifier.bias)
        values = state.compute(weight, bias, keys=self.keys)
        return {key: self.moments.new_tensor(value) for key, value in values.items()}

    def _state(self) -> NeuralCollapse:
        return NeuralCollapse(self.num_classes, self.dim, keep_features=False, packed=self.moments)

    def _sync_dist(self, *arguments: Any, **options: Any) -> None:
        if self.keep_features and not len(self.targets):  # what others send has two axes, and int64 targets
            self.features.append(self.moments.new_empty(0, self.dim, dtype=self.dtype))
            self.targets.append(self.moments.new_empty(0, dtype=torch.int64))
        super()._sync_dist(*arguments, **options)

    def _apply(self, fn: Callable, *arguments: Any, **options: Any) -> nn.Module:
        return super()._apply(lambda x: x.to(fn(x).device), *arguments, **options)
