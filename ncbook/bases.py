"""What heads share: the features that the classifier sees, and following them from call to call."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncbook.buffers import NOT_THE_LAST, SingleOrBetter, full_precision, in_backward, same, working_dtype
from ncbook.checks import check_floating, check_integer, check_number
from ncbook.etf import simplex_etf
from ncbook.sphere import on_sphere


class Head(nn.Module):
    """What all heads share: the features that the classifier sees, and their norm `scale` in the state dict."""

    in_features: int
    scale: float | None = None
    _takes_scale = False  # also where it is None

    def embed(self, features: Tensor) -> Tensor:
        """The features (..., d) that the classifier sees, in their dtype: scale * z/|z|, without a scale as they are.

        Raises TypeError for integers, ValueError for another last dimension than in_features.
        """
        return self._embedded(features).to(features.dtype)

    def _embedded(self, features: Tensor) -> Tensor:
        check_floating("features", features)
        if features.shape[-1:] != (self.in_features,):
            raise ValueError(f"features must have shape (..., {self.in_features}), got {tuple(features.shape)}")
        if self.scale is None:
            return features
        with full_precision(features):
            return on_sphere(features.to(working_dtype(features.dtype)), self.scale)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.scale is not None or self._takes_scale:
            scale = math.nan if self.scale is None else self.scale
            destination[prefix + "scale"] = torch.tensor(scale, dtype=torch.float64)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):
        scale = state_dict.pop(prefix + "scale", None)  # absent in version 0.1
        if scale is not None and (self.scale is not None or self._takes_scale):
            self.scale = None if scale.isnan() else float(scale)
        if (problem := self._misfit({k.removeprefix(prefix): v for k, v in state_dict.items()})) is not None:
            errors.append(f"{prefix or 'state dict of a '}{type(self).__name__}: {problem}")
        else:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)

    def _misfit(self, state: dict[str, Tensor]) -> str | None:
        """What is wrong with a state dict that fits by its keys, or that strict=False would let pass."""
        return None


def _warn_of_no_targets(count: Tensor, name: str) -> bool:
    """Compiled, this runs once, when the call is traced, and so costs no break of the graph."""
    if not count.any():
        warnings.warn(f"this {name} is in training mode and has never been given targets, so it does not follow the "
                      "features: call head(features, targets), or the model inside head.observing(targets)",
                      stacklevel=4)
    return True


# What torch.compiler.assume_constant_result does; that itself would load the compiler with every import of ncbook.
_warn_of_no_targets._dynamo_marked_constant = True  # type: ignore[attr-defined]


class ETFHead(SingleOrBetter, Head):
    """A simplex ETF in buffers, float32 or better: `weight` (C, d), `bias` (C,) or None. Where there are averages, a
    training call moves them, and `_fit` says what W and b follow."""

    weight: Tensor
    bias: Any
    scale: float | None
    averages: Any
    _takes_scale = True

    def __init__(self, in_features: int, out_features: int, bias: bool, scale: float | None, device, dtype):
        super().__init__()
        check_integer("in_features", in_features)
        check_integer("out_features", out_features)
        if out_features < 2 or in_features < out_features - 1:
            raise ValueError("a simplex ETF needs out_features >= 2 and in_features >= out_features - 1, "
                             f"got in_features = {in_features} and out_features = {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.scale = None if scale is None else check_number("scale", scale, positive=True)
        dtype = working_dtype(dtype)
        self.register_buffer("weight", torch.empty(out_features, in_features, device=device, dtype=dtype))
        self.register_buffer("bias", torch.empty(out_features, device=device, dtype=dtype) if bias else None)
        self._targets: Tensor | None = None
        self._last: Any = None  # W before the last training call and, where it was observed, its targets and features
        self._bare: Any = None  # features, W and b of the last training-mode call without targets
        self._taught = False

    def reset_parameters(self) -> None:
        """Weight, bias and averages as they are at the start; for a module that comes from the meta device."""
        self.weight.copy_(self._start().to(self.weight))
        if self.bias is not None:
            self.bias.zero_()
        if self.averages is not None:
            self.averages.reset_parameters()

    def _start(self) -> Tensor:
        return simplex_etf(self.out_features, self.in_features, dtype=torch.float64)

    @contextmanager
    def observing(self, targets: Tensor):
        """Hand the targets (...) to a head that a model calls without them: `with head.observing(y): model(x)`."""
        before, self._targets = self._targets, targets
        try:
            yield self
        finally:
            self._targets = before

    @contextmanager
    def holding(self):
        """Training calls inside give the logits they would, and leave averages, W and b as they are: for line searches
        and second passes over a batch."""
        with nullcontext() if self.averages is None else self.averages.holding():
            yield self

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (..., d), targets (...) int64 in 0..C-1 or ignore_index -> logits (..., C)."""
        embedded = self._embedded(features)
        follows = self.training and self.averages is not None
        weight, bias = self._followed(embedded, targets) if follows else self._kept()
        dtype = features.dtype
        return F.linear(embedded.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))

    def _kept(self) -> tuple[Tensor, Tensor | None]:
        """W and b, to be used in a call."""
        return self.weight, self.bias

    def _followed(self, embedded: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W and b of a call in training mode, which moves them where there are targets."""
        eager, observed = not torch.compiler.is_compiling(), targets is None
        if eager and self._last is not None and in_backward():
            weight, bias, targets = self._call_again(embedded, targets)
        else:
            (weight, bias), targets = self._kept(), self._targets if observed else targets
        if targets is None:
            if eager:
                self._bare = embedded.detach(), weight, None if bias is None else bias.clone()
            self._ask_for_targets()
            return weight, bias
        means, before = self.averages(embedded, targets), weight
        try:
            weight, bias = self._fit(means, before)
        except BaseException:
            self.averages.restore()
            raise
        if not self.averages.still:
            self._write(weight, bias)
        if eager:
            self._last = before, *((targets, embedded.detach()) if observed else (None, None))
            self._taught = True
        return weight, bias

    def _call_again(self, embedded: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """W, b and targets as they were before the call that activation checkpointing computes again."""
        weight, known, features = self._last
        if targets is None and known is not None and same([embedded], [features]):
            targets = known
        if targets is not None:
            return weight, self.bias, targets  # whether the batch is the same is for the averages to see
        if self._bare is None or not same([embedded], self._bare[:1]):
            raise RuntimeError(NOT_THE_LAST)
        return *self._bare[1:], None

    def _fit(self, means: Tensor, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        """W and b for averages and the W before."""
        raise NotImplementedError

    def _write(self, weight: Tensor, bias: Tensor | None) -> None:
        if bias is not None:
            self.bias.copy_(bias.detach())

    def _ask_for_targets(self) -> None:
        if self._taught or not torch.is_grad_enabled():  # without it is a look at accuracy before the step
            return
        _warn_of_no_targets(self.averages.count, type(self).__name__)
        if not torch.compiler.is_compiling():
            self._taught = True

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_targets": None, "_last": None, "_bare": None}

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
                f"scale={self.scale}")
