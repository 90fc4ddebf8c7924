"""Classifier heads: each takes the place of a model's last nn.Linear, with features (..., d) and logits (..., C)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ncbook.averages import IGNORE, BatchMeanAverage, ClassMeanAverage
from ncbook.bases import ETFHead, Head
from ncbook.buffers import Group, check_group, full_precision, held, in_backward, product
from ncbook.checks import check_choice, check_integer, check_number, may_look
from ncbook.etf import PROXIMAL, helmert_basis, nearest_frame, simplex_etf

SCALE = 5.0  # the published feature norm tau
FRAMES = ("nonnegative", "canonical")


class _UnitRows(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return F.normalize(weight, dim=1)


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


class FixedETFHead(ETFHead):
    """A simplex ETF, never trained, on features of norm `scale`, or with None on features as they are.

    frame: "nonnegative", the default where d >= C, is sqrt(C/(C-1)) (I - 11^T/C) U^T with d // C coordinates a class,
    U (d, C) orthonormal without negative entries: features behind a ReLU can reach it. "canonical" is `simplex_etf`,
    behind which class 0 beats all others for features without negative entries; it is the default, with a warning,
    where d = C - 1 leaves no room. A torch.Generator gives one uniformly rotated. The attribute `frame` is the name of
    what is in `weight`, also after a load: one of these two or "rotated".
    centred: the bias is -W mu with mu a moving average of the mean feature of the training batches; else it is zero.
    As with `NearestETFHead` it moves in training mode by calls with targets, given or through `observing`, of which
    only ignore_index matters; all that is said there of other calls, checkpointing and processes holds here too.

    in_features d >= C-1, out_features C. Buffers `weight` (C, d), `bias` (C,). Raises ValueError for d < C-1 or a frame
    that is not known or does not fit, TypeError for a dtype that is not floating or process_group=True, and for
    features as `ClassMeanAverage` where centred.
    Source: Zhu et al. 2021, arXiv 2105.02375; Yang et al. 2022, arXiv 2203.09081; Markou, Ajanthan, Gould 2024, arXiv
    2411.01248 (centred).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, scale: float | None = SCALE,
                 frame: str | torch.Generator | None = None, centred: bool = False, ignore_index: int = IGNORE,
                 process_group: Group = None, device=None, dtype: torch.dtype | None = None):
        super().__init__(in_features, out_features, bias, scale, device, dtype)
        check_group(process_group)
        if frame is None:
            frame = FRAMES[in_features < out_features]
            if frame == "canonical":
                warnings.warn(f"in_features = {in_features} leaves no room for a simplex ETF of {out_features} classes "
                              "that features without negative entries can reach: behind a ReLU take more features, a "
                              'generator or centred=True; frame="canonical" says that it is meant', stacklevel=2)
        self._generator_state: Any = None
        if isinstance(frame, torch.Generator):
            self._generator_state, self._generator_device, frame = frame.get_state(), frame.device, "rotated"
        elif check_choice("frame", frame, FRAMES) == "nonnegative" and in_features < out_features:
            raise ValueError("frame 'nonnegative' needs in_features >= out_features, "
                             f"got {in_features} and {out_features}")
        if centred and not bias:
            raise ValueError("centred needs bias=True")
        self.frame = self._made = frame
        self.averages = BatchMeanAverage(in_features, ignore_index=ignore_index, process_group=process_group,
                                         device=device, dtype=dtype) if centred else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The frame that the head was made with, and no batches seen; for a module that comes from the meta device."""
        self.frame = self._made
        super().reset_parameters()

    def _start(self) -> Tensor:
        num_classes, dim = self.weight.shape
        if self._made == "rotated":
            generator = torch.Generator(self._generator_device).set_state(self._generator_state)
            return simplex_etf(num_classes, dim, generator=generator, dtype=torch.float64)
        return super()._start() if self._made == "canonical" else self._nonnegative()

    def _nonnegative(self) -> Tensor:
        num_classes, dim = self.weight.shape
        block = dim // num_classes
        basis = F.pad(torch.eye(num_classes, dtype=torch.float64).repeat_interleave(block, 1),
                      (0, dim - block * num_classes)) / math.sqrt(block)
        return math.sqrt(num_classes / (num_classes - 1)) * (basis - basis.mean(0))

    def _fit(self, means: Tensor, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        with full_precision(means):
            return previous, product(-previous, means[0])

    def _misfit(self, state: dict[str, Tensor]) -> str | None:
        weight, start = state.get("weight"), self._start()
        if weight is None or weight.shape != start.shape or weight.is_meta:
            return None
        gram = weight.detach().to(start) @ weight.detach().to(start).T
        off = (gram - start @ start.T).abs().max()
        return None if off < 0.02 else "has a weight that is no simplex ETF; was it saved from a plain linear layer?"

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        if self.weight.is_meta:
            return
        frames = {"canonical": super()._start}
        if self.in_features >= self.out_features:
            frames["nonnegative"] = self._nonnegative
        weight = self.weight.detach().cpu().double()
        fitting = [name for name, frame in frames.items() if (weight - frame()).abs().max() < 0.02]
        self.frame = fitting[0] if fitting else "rotated"

    def extra_repr(self) -> str:
        return super().extra_repr() + f", frame={self.frame!r}, centred={self.averages is not None}"


class NearestETFHead(ETFHead):
    """The simplex ETF nearest to moving averages of the class means, found anew at each training step.

    In training mode with targets: f = scale * z/|z|, or f = z where scale is None, averages of the class means of f, W
    the nearest simplex ETF to them (previous W as the proximal point), b = -W mu with mu the mean of the class means;
    the gradient runs through f, W and b, for W and b by way of this batch's class means. Otherwise W and b stay as they
    were last left. Classes not seen yet do not take part in the fit. All of it is in the state dict. On several
    processes the batch is the joint one: see `ClassMeanAverage`, also for ignore_index and process_group; evaluation
    and calls without targets communicate nothing. On an accelerator nothing raises for a bad batch, which would be a
    wait for the device: it never enters the averages, and its logits are not to be relied on.

    With update_every = k > 1 the frame is found in the first k training calls with targets, and then in every k-th, and
    held in between, where W passes no gradient on; averages and b move in all of them. For many classes, where finding
    it costs much more than the rest of the head. A compiler leaves such a head out of its graph.

    The logits of a training call know the labels of their batch, above all in the first steps: accuracy is to be taken
    from an earlier call without targets, or in evaluation mode. There are no parameters to freeze: eval() or `holding`
    keeps W. A first training call without targets warns, once; compiled, whenever it is traced.

    A forward run inside a backward pass is taken for one that activation checkpointing computes again: it updates
    nothing, and has the W, b and targets of the call that it repeats, which is the last one with targets (known by
    them, or, where `observing` gave them, by its features) or the last one without (known by its features). Of any
    other call that is computed again in training mode, RuntimeError: run the backward of each batch before the next
    forward of its kind. A compiled head raises if it is training; in evaluation mode W is the one of that moment.

    in_features d >= C-1, out_features C. Buffers `weight` (C, d), `bias` (C,), `averages`. Raises ValueError for
    d < C-1, an unknown method, negative proximal, TypeError for a dtype that is not floating or process_group=True, and
    for features and targets as `ClassMeanAverage`; a call that raises leaves everything as it was.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248 (there for classes present in every batch).
    """

    _eager_forward: Any = staticmethod(ETFHead.forward)

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, scale: float | None = SCALE,
                 method: str = "ema", proximal: float = PROXIMAL, update_every: int = 1, ignore_index: int = IGNORE,
                 process_group: Group = None, device=None, dtype: torch.dtype | None = None):
        super().__init__(in_features, out_features, bias, scale, device, dtype)
        self.update_every = check_integer("update_every", update_every, least=1)
        if update_every > 1:  # which call finds a frame is no question for a graph; this loads the compiler
            NearestETFHead._eager_forward = staticmethod(torch.compiler.disable(ETFHead.forward))
        self._calls = self._last_call = 0  # training calls that moved the head, and the number of the last one
        self.proximal = check_number("proximal", proximal)
        self.averages = ClassMeanAverage(out_features, in_features, method, ignore_index=ignore_index,
                                         process_group=process_group, device=device, dtype=dtype)
        self.register_buffer("_basis", self._new_basis(), persistent=False)
        self.reset_parameters()

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        """features (..., d), targets (...) int64 in 0..C-1 or ignore_index -> logits (..., C)."""
        call = self._eager_forward if self.update_every > 1 else ETFHead.forward
        return call(self, features, targets)

    @torch.no_grad()
    def refit(self) -> NearestETFHead:
        """Compute W and b again from the averages, as they must be after a weight average that averages buffers too."""
        weight, bias = self._solve(self.averages.mean, self.weight, True)
        self._write(weight, bias)
        return self

    def _kept(self) -> tuple[Tensor, Tensor | None]:
        if self.training:
            return held(self.weight), self.bias
        # The next training call may come before the backward of this one.
        return held(self.weight, later=True) if torch.is_grad_enabled() else self.weight, self.bias

    def _fit(self, means: Tensor, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.update_every == 1:
            return self._solve(means, previous, True)
        found = self._solve(means, previous, self._due())
        self._calls += not self.averages.still
        return found

    def _due(self) -> bool:
        if not in_backward():  # else the last call is computed again
            self._last_call = self._calls
        return self._last_call < self.update_every or self._last_call % self.update_every == 0

    def _solve(self, means: Tensor, previous: Tensor, due: bool) -> tuple[Tensor, Tensor | None]:
        with full_precision(means):
            if may_look(means) and self.averages.count.all():
                centre = means.sum(0) / len(means)
            else:
                seen = (self.averages.seen | means.detach().ne(0).any(1))[:, None]
                centre = (means * seen).sum(0) / seen.sum().clamp(min=1)
                # At the centre a row of the Procrustes problem is zero: the class has no say in the fit.
                means = torch.where(seen, means, centre)
            weight = nearest_frame(means, self._basis, previous, self.proximal)[0] if due else previous
            return weight, None if self.bias is None else product(-weight, centre)

    def _write(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight.copy_(weight.detach())
        super()._write(weight, bias)

    def _misfit(self, state: dict[str, Tensor]) -> str | None:
        if "weight" in state and "averages.mean" not in state:
            return "has a weight without the averages that it is fitted to; was it saved from a plain linear layer?"
        return None

    def reset_parameters(self) -> None:
        """As for the other frames, and forget all batches."""
        super().reset_parameters()
        self._basis, self._calls = self._new_basis(), 0

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.update_every > 1:
            destination[prefix + "calls"] = torch.tensor(self._calls)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        self._calls = int(state_dict.pop(prefix + "calls", self._calls))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
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

    def extra_repr(self) -> str:
        every = f", update_every={self.update_every}" if self.update_every > 1 else ""
        return super().extra_repr() + f", proximal={self.proximal:g}{every}"


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
