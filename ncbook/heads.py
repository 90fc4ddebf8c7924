"""Classifier heads: each takes the place of a model's last nn.Linear, with features (..., d) and logits (..., C)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ncbook.averages import IGNORE, BatchMeanAverage, ClassMeanAverage
from ncbook.buffers import Group, SingleOrBetter, full_precision, held, in_backward, working_dtype
from ncbook.checks import check_choice, check_floating, check_integer, check_number, may_look
from ncbook.etf import PROXIMAL, helmert_basis, nearest_frame, simplex_etf
from ncbook.sphere import on_sphere

SCALE = 5.0  # the published feature norm tau
FRAMES = ("nonnegative", "canonical")


class _UnitRows(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return F.normalize(weight, dim=1)


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


class LearnedHead(Head, nn.Linear):
    """A trained classifier: plain nn.Linear, or with `cosine` unit rows, no bias, on features of norm `scale`.

    in_features d, out_features C. `weight` (C, d) and `bias` (C,) are what the logits are computed with.
    Source: with `cosine`, the standard baseline of Markou, Ajanthan, Gould 2024, arXiv 2411.01248.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool | None = None, *, cosine: bool = False,
                 scale: float = SCALE, device=None, dtype: torch.dtype | None = None):
        super().__init__(in_features, out_features, not cosine if bias is None else bias, device, dtype)
        self.scale = check_number("scale", scale, positive=True) if cosine else None
        if cosine:
            parametrize.register_parametrization(self, "weight", _UnitRows())

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, as nn.Linear does."""
        if not parametrize.is_parametrized(self, "weight"):
            return super().reset_parameters()
        nn.init.kaiming_uniform_(self.get_parameter("parametrizations.weight.original"), a=math.sqrt(5))

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (..., d) -> logits (..., C); targets are not used."""
        return super().forward(self.embed(features))

    def _misfit(self, state: dict[str, Tensor]) -> str | None:
        if self.scale is not None and "weight" in state:
            return "has a weight that was not trained with unit rows; load it into a plain LearnedHead"
        return None

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", cosine=True, scale={self.scale:g}" if self.scale is not None else "")


class _ETFHead(SingleOrBetter, Head):
    """A simplex ETF in buffers, float32 or better: `weight` (C, d), `bias` (C,) or None."""

    weight: Tensor
    bias: Any
    scale: float | None
    averages: Any
    _generator_state: Any
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

    def reset_parameters(self) -> None:
        """Weight, bias and averages as they are at the start; for a module that comes from the meta device."""
        self.weight.copy_(self._start().to(self.weight))
        if self.bias is not None:
            self.bias.zero_()
        if self.averages is not None:
            self.averages.reset_parameters()

    def _start(self) -> Tensor:
        return simplex_etf(self.out_features, self.in_features, dtype=torch.float64)

    def _logits(self, embedded: Tensor, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = features.dtype
        return F.linear(embedded.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
                f"scale={self.scale}")


class FixedETFHead(_ETFHead):
    """A simplex ETF, never trained, on features of norm `scale`, or with None on features as they are.

    frame: "nonnegative", the default where d >= C, is sqrt(C/(C-1)) (I - 11^T/C) U^T with d // C coordinates a class,
    U (d, C) orthonormal without negative entries: features behind a ReLU can reach it. "canonical" is `simplex_etf`,
    behind which class 0 beats all others for features without negative entries; it is the default, with a warning,
    where d = C - 1 leaves no room. A torch.Generator gives one uniformly rotated. centred: the bias is -W mu with mu a
    moving average of the mean feature of the training batches, as in `ClassMeanAverage`; else it is zero.

    in_features d >= C-1, out_features C. Buffers `weight` (C, d), `bias` (C,). Raises ValueError for d < C-1 or a frame
    that is not known or does not fit, TypeError and ValueError for features as `ClassMeanAverage` where centred.
    Source: Zhu et al. 2021, arXiv 2105.02375; Yang et al. 2022, arXiv 2203.09081; Markou, Ajanthan, Gould 2024, arXiv
    2411.01248 (centred).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, scale: float | None = SCALE,
                 frame: str | torch.Generator | None = None, centred: bool = False, ignore_index: int = IGNORE,
                 process_group: Group = None, device=None, dtype: torch.dtype | None = None):
        super().__init__(in_features, out_features, bias, scale, device, dtype)
        if frame is None:
            frame = FRAMES[in_features < out_features]
            if frame == "canonical":
                warnings.warn(f"in_features = {in_features} leaves no room for a simplex ETF of {out_features} classes "
                              "that features without negative entries can reach: behind a ReLU take more features, a "
                              'generator or centred=True; frame="canonical" says that it is meant', stacklevel=2)
        self._generator_state = None
        if isinstance(frame, torch.Generator):
            self._generator_state, self._generator_device, frame = frame.get_state(), frame.device, "rotated"
        elif check_choice("frame", frame, FRAMES) == "nonnegative" and in_features < out_features:
            raise ValueError("frame 'nonnegative' needs in_features >= out_features, "
                             f"got {in_features} and {out_features}")
        if centred and not bias:
            raise ValueError("centred needs bias=True")
        self.frame = frame
        self.averages = BatchMeanAverage(in_features, ignore_index=ignore_index, process_group=process_group,
                                         device=device, dtype=dtype) if centred else None
        self.reset_parameters()

    def _start(self) -> Tensor:
        num_classes, dim = self.weight.shape
        if self.frame == "rotated":
            generator = torch.Generator(self._generator_device).set_state(self._generator_state)
            return simplex_etf(num_classes, dim, generator=generator, dtype=torch.float64)
        if self.frame == "canonical":
            return super()._start()
        block = dim // num_classes
        basis = F.pad(torch.eye(num_classes, dtype=torch.float64).repeat_interleave(block, 1),
                      (0, dim - block * num_classes)) / math.sqrt(block)
        return math.sqrt(num_classes / (num_classes - 1)) * (basis - basis.mean(0))

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (..., d) -> logits (..., C); of targets only ignore_index matters, for the mean of centred."""
        embedded, bias = self._embedded(features), self.bias
        if self.averages is not None and self.training:
            centre = self.averages(embedded, targets)[0]
            with full_precision(centre):
                bias = -self.weight @ centre
            if not self.averages.still:
                self.bias.copy_(bias.detach())
        return self._logits(embedded, features, self.weight, bias)

    def _misfit(self, state: dict[str, Tensor]) -> str | None:
        weight, start = state.get("weight"), self._start()
        if weight is None or weight.shape != start.shape or weight.is_meta:
            return None
        gram = weight.detach().to(start) @ weight.detach().to(start).T
        off = (gram - start @ start.T).abs().max()
        return None if off < 0.02 else "has a weight that is no simplex ETF; was it saved from a plain linear layer?"

    def extra_repr(self) -> str:
        return super().extra_repr() + f", frame={self.frame!r}, centred={self.averages is not None}"


class NearestETFHead(_ETFHead):
    """The simplex ETF nearest to moving averages of the class means, found anew at each training step.

    In training mode with targets: f = scale * z/|z|, or f = z where scale is None, averages of the class means of f, W
    the nearest simplex ETF to them (previous W as the proximal point), b = -W mu with mu the mean of the class means;
    the gradient runs through f, W and b, for W and b by way of this batch's class means. Otherwise W and b stay as they
    were last left. Classes not seen yet do not take part in the fit. All of it is in the state dict. On several
    processes the batch is the joint one: see `ClassMeanAverage`, also for ignore_index and process_group.

    The logits of a training call know the labels of their batch, above all in the first steps: accuracy is to be taken
    from an earlier call without targets, or in evaluation mode. There are no parameters to freeze: eval() or `holding`
    keeps W. Activation checkpointing gives one update a step if each batch's backward follows its forward, with nothing
    between but calls without gradient; otherwise an error that cannot be relied on, or wrong gradients. A head that is
    compiled too raises.

    in_features d >= C-1, out_features C. Buffers `weight` (C, d), `bias` (C,), `averages`. Raises ValueError for
    d < C-1, an unknown method, negative proximal, and for features and targets as `ClassMeanAverage`; a call that
    raises leaves everything as it was.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248 (there for classes present in every batch).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, scale: float | None = SCALE,
                 method: str = "ema", proximal: float = PROXIMAL, ignore_index: int = IGNORE,
                 process_group: Group = None, device=None, dtype: torch.dtype | None = None):
        super().__init__(in_features, out_features, bias, scale, device, dtype)
        self.proximal = check_number("proximal", proximal)
        self.averages = ClassMeanAverage(out_features, in_features, method, ignore_index=ignore_index,
                                         process_group=process_group, device=device, dtype=dtype)
        self.register_buffer("_basis", self._new_basis(), persistent=False)
        self._targets: Tensor | None = None
        self._last: Any = None  # the frame and the targets of the last training call
        self._taught = False
        self.reset_parameters()

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
        with self.averages.holding():
            yield self

    @torch.no_grad()
    def refit(self) -> NearestETFHead:
        """Compute W and b again from the averages, as they must be after a weight average that averages buffers too."""
        weight, bias = self._fit(self.averages.mean, self.weight)
        self._write(weight, bias)
        return self

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (..., d), targets (...) int64 in 0..C-1 or ignore_index -> logits (..., C)."""
        embedded = self._embedded(features)
        again = self.training and self._last is not None and not torch.compiler.is_compiling() and in_backward()
        previous, known = self._last if again else (held(self.weight) if self.training else self.weight, self._targets)
        targets = known if targets is None else targets
        if not self.training or targets is None:
            if torch.is_grad_enabled():  # without, no backward can compute this call again
                self._last = None
            if self.training and not torch.compiler.is_compiling():
                self._ask_for_targets()
            return self._logits(embedded, features, previous, self.bias)
        means = self.averages(embedded, targets)
        try:
            weight, bias = self._fit(means, previous)
        except BaseException:
            self.averages.restore()
            raise
        if not self.averages.still:
            self._write(weight, bias)
        if not torch.compiler.is_compiling() and not again:
            self._last, self._taught = (previous, targets), True
        return self._logits(embedded, features, weight, bias)

    def _fit(self, means: Tensor, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        with full_precision(means):
            if may_look(means) and self.averages.count.all():
                centre = means.sum(0) / len(means)
            else:
                seen = (self.averages.seen | means.detach().ne(0).any(1))[:, None]
                centre = (means * seen).sum(0) / seen.sum().clamp(min=1)
                # At the centre a row of the Procrustes problem is zero: the class has no say in the fit.
                means = torch.where(seen, means, centre)
            weight, _ = nearest_frame(means, self._basis, previous, self.proximal)
            return weight, None if self.bias is None else -weight @ centre

    def _write(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight.copy_(weight.detach())
        if bias is not None:
            self.bias.copy_(bias.detach())

    def _ask_for_targets(self) -> None:
        if not torch.is_grad_enabled():
            return  # a look at accuracy before the step
        if not self._taught and not self.averages.count.any():
            warnings.warn("this NearestETFHead is in training mode and has never been given targets, so its simplex "
                          "ETF does not follow the features: call head(features, targets), or the model inside "
                          "head.observing(targets)", stacklevel=3)
        self._taught = True

    def _misfit(self, state: dict[str, Tensor]) -> str | None:
        if "weight" in state and "averages.mean" not in state:
            return "has a weight without the averages that it is fitted to; was it saved from a plain linear layer?"
        return None

    def reset_parameters(self) -> None:
        """As for the other frames, and forget all batches."""
        super().reset_parameters()
        self._basis = self._new_basis()

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        if (self._basis.device, self._basis.dtype) != (self.weight.device, self.weight.dtype):
            self._basis = self._new_basis()

    def _new_basis(self) -> Tensor:
        return helmert_basis(self.out_features, dtype=self.weight.dtype, device=self.weight.device)

    def _apply(self, fn, recurse=True):
        before = self._basis
        super()._apply(fn, recurse)
        if before.is_meta or self._basis.dtype != before.dtype:
            self._basis = self._new_basis()
        return self

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_targets": None, "_last": None}

    def extra_repr(self) -> str:
        return super().extra_repr() + f", proximal={self.proximal:g}"


@dataclass(frozen=True)
class HeadKind:
    """How a recipe names a head; to add one, put it into `HEADS`.

    build(in_features, out_features, **options) makes one; options: the fields of `Recipe` that it takes (for any other
    argument, an entry a value: a run knows its head by its key); method: what tables and figures call training with it;
    learned: whether its rows are parameters. A head is a module with `weight` (C, d), `bias` (C,) or None, `embed` and
    forward(features, targets=None), as `Head` has them; where it has a method `follow`, the trainer calls follow(e/E)
    before the steps of epoch e of E.
    """

    build: Callable[..., nn.Module]
    method: str
    options: tuple[str, ...] = ()
    learned: bool = False


HEADS: dict[str, HeadKind] = {
    "learned": HeadKind(LearnedHead, "linear", learned=True),
    "cosine": HeadKind(partial(LearnedHead, cosine=True), "standard", ("scale",), learned=True),
    "fixed": HeadKind(FixedETFHead, "fixed", ("scale", "frame", "centred")),
    "nearest": HeadKind(NearestETFHead, "nearest", ("scale",)),
}
