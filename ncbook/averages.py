"""Moving averages of class means, the input of the nearest-ETF problem."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ncbook.buffers import (
    NOT_THE_LAST,
    Group,
    SingleOrBetter,
    check_group,
    full_precision,
    held,
    in_backward,
    product,
    same,
    spread,
    sum_over_ranks,
    working_dtype,
)
from ncbook.checks import check_choice, check_floating, check_integer, check_labels, may_look

METHODS = ("ema", "cma")
IGNORE = -100  # as in torch's cross-entropy


class ClassMeanAverage(SingleOrBetter):
    """Moving average of the mean feature of each class over the batches that hold it.

    Update t of a class mixes in its batch mean with weight alpha_t: max(2/(t+1), 1e-4) for "ema", 1/t for "cma", so
    the first batch sets the average. A class absent from a batch keeps its average and its count.

    With torch.distributed initialised the batch is that of all processes together: sums and sizes are added up over
    `process_group` (None: all, False: each process for itself), with gradient, so that every process has the same
    averages, and DistributedDataParallel the gradients of the joint batch (where shares are unequal: if the loss of
    each of R processes is multiplied by R times its share). A process may hold any part of it, also none.

    num_classes C >= 2, dim d; samples labelled `ignore_index` do not count. Buffers: `mean` (C, d), float32 or
    better, `count` (C,) updates so far. Raises ValueError for fewer classes, dim < 1 or an unknown method,
    TypeError for a dtype that is not floating or a process_group that is none of these.
    Source: Markou, Ajanthan, Gould 2024, arXiv 2411.01248 (there one count for all classes, here one for each).
    """

    mean: Tensor
    count: Tensor
    _last: tuple[Tensor, ...] | None
    _least = 2

    def __init__(self, num_classes: int, dim: int, method: str = "ema", *, ignore_index: int = IGNORE,
                 process_group: Group = None, device=None, dtype: torch.dtype | None = None):
        super().__init__()
        check_integer("num_classes", num_classes, least=self._least)
        check_integer("dim", dim, least=1)
        self.method = check_choice("method", method, METHODS)
        self.ignore_index = check_integer("ignore_index", ignore_index)
        check_group(process_group)
        self.process_group = process_group
        self.register_buffer("mean", torch.empty(num_classes, dim, device=device, dtype=working_dtype(dtype)))
        self.register_buffer("count", torch.empty(num_classes, dtype=torch.long, device=device))
        self._still, self._last = False, None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Forget all batches."""
        self.mean.zero_()
        self.count.zero_()

    @property
    def seen(self) -> Tensor:
        """(C,) mask of the classes that have been in a batch."""
        return self.count > 0

    @property
    def still(self) -> bool:
        """Whether a call leaves the averages as they are: inside `holding`, and where a backward computes it again."""
        return self._still or (not torch.compiler.is_compiling() and in_backward())

    @contextmanager
    def holding(self):
        """Calls inside return what they would, and leave the averages as they are."""
        before, self._still = self._still, True
        try:
            yield self
        finally:
            self._still = before

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Update with a batch and return the averages, with a gradient through this batch only.

        features (..., d), targets (...) int64 in 0..C-1 or ignore_index; returns (C, d), zero rows for classes never
        seen. Raises TypeError for integer features or targets that are not int64, ValueError for wrong shapes, an empty
        batch, labels out of range, NaN or inf. Compiled, or on an accelerator, nothing raises for bad values, which
        would be a wait for the device, but a batch that holds them never enters the averages. A call inside a backward
        pass updates nothing; it returns what the last call did if its batch is the same, else raises RuntimeError.
        """
        features, targets = self._flat(features, targets)
        with full_precision(features):
            sums, size = self._class_sums(features, targets)
            old, count = self._state(sums, size)
            present = size > 0
            count = count + present[:, 0]
            t = count.clamp(min=1).to(old.dtype)[:, None]
            alpha = (2 / (t + 1)).clamp(min=1e-4) if self.method == "ema" else 1 / t
            mean = torch.lerp(old, sums / size.clamp(min=1), alpha * present)
        if not self.still:
            self.mean.copy_(mean.detach())
            self.count.copy_(count)
        return mean

    def restore(self) -> None:
        """Take the last update back, once."""
        if self._last is not None and not self.still:
            mean, count, *_ = self._last
            self.mean.copy_(mean)
            self.count.copy_(count)

    def _state(self, sums: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of mean and count, for a batch that is computed again in the backward pass as they were before it."""
        if torch.compiler.is_compiling():
            return held(self.mean), held(self.count)
        if in_backward() and self._last is not None:
            mean, count, *batch = self._last
            if not same((sums, size), batch):
                raise RuntimeError(NOT_THE_LAST)
            return mean, count
        state = held(self.mean), held(self.count)
        self._last = (*state, sums.detach(), size)
        return state

    def _class_sums(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (C, d) and sizes (C, 1) of the classes in the joint batch, all zero for one that may not enter."""
        dtype, num_classes = self.mean.dtype, len(self.mean)
        classes = torch.arange(num_classes, device=targets.device)[:, None]
        members = (targets == classes).to(dtype)
        if 0 <= self.ignore_index < num_classes:
            members = members * (classes != self.ignore_index)
        size = members.sum(1, keepdim=True)
        sums = product(members, features.to(dtype))
        total: Any = len(targets)
        labelled = total
        look = may_look(features)
        if spread(self.process_group):
            labelled = (targets != self.ignore_index).sum().to(dtype)
            total = labelled.new_full((), total)
            sums, size, labelled, total = sum_over_ranks([sums, size, labelled, total], self.process_group)
            size, labelled, total = size.detach(), labelled.detach(), total.detach()
        elif not look or float(size.sum()) != total:
            labelled = (targets != self.ignore_index).sum()
        # A finite sum of all rules out NaN and inf in one cheap pass.
        if not look:
            good = sums.detach().sum().isfinite() & (size.sum() == labelled)
            return torch.where(good, sums, 0), torch.where(good, size, 0)
        if not math.isfinite(sums.detach().sum()) or float(size.sum()) != float(labelled):
            self._complain(features, targets)
        if total == 0:
            raise ValueError("features must hold at least one sample, got an empty batch")
        return sums, size

    def _complain(self, features: Tensor, targets: Tensor) -> None:
        targets = targets[targets != self.ignore_index]
        if len(targets):
            check_labels("targets", targets, len(self.mean), features)
        if not features.isfinite().all():
            raise ValueError("features must be finite, got NaN or inf")
        where = "from another process" if spread(self.process_group) else "in the sums over classes"
        raise ValueError(f"features must be finite and targets in 0..{len(self.mean) - 1}, got others {where}")

    def _flat(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        dim = self.mean.shape[1]
        check_floating("features", features)
        if not isinstance(targets, Tensor) or targets.dtype != torch.long:
            given = targets.dtype if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
            raise TypeError(f"targets must be int64 in a tensor, got {given}")
        if features.shape[-1:] != (dim,) or targets.shape != features.shape[:-1]:
            raise ValueError(f"features must have shape (N, {dim}) and targets (N,), or (..., {dim}) and (...), "
                             f"got {tuple(features.shape)} and {tuple(targets.shape)}")
        return features.reshape(-1, dim), targets.reshape(-1)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_still": False, "_last": None}

    def __deepcopy__(self, memo: dict):
        twin = memo[id(self)] = self.__new__(type(self))
        memo[id(self.process_group)] = self.process_group  # a group cannot be copied, and need not be
        twin.__setstate__({name: copy.deepcopy(value, memo) for name, value in self.__getstate__().items()})
        return twin

    def extra_repr(self) -> str:
        num_classes, dim = self.mean.shape
        return f"num_classes={num_classes}, dim={dim}, method={self.method!r}"


class BatchMeanAverage(ClassMeanAverage):
    """Moving average (1, d) of the mean feature of whole batches: one class that every sample is in."""

    _least = 1

    def __init__(self, dim: int, *, ignore_index: int = IGNORE, **options):
        super().__init__(1, dim, **options)
        self._ignored = check_integer("ignore_index", ignore_index)

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """As ClassMeanAverage; of the targets (...) only ignore_index matters."""
        if isinstance(targets, Tensor):
            targets = torch.where(targets == self._ignored, self.ignore_index, 0)
        return super().forward(features, targets)
