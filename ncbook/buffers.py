"""Buffers that a step reads and then writes: right when compiled, computed again, cast, or spread over ranks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

NOT_THE_LAST = ("activation checkpointing computes again a batch that is not the last one: run the backward pass of "
                "each batch before the next forward, or leave the head out of it")

if TYPE_CHECKING or dist.is_available():
    Group: TypeAlias = dist.ProcessGroup | bool | None
else:
    Group = bool | None


class SingleOrBetter(nn.Module):
    """A module whose floating-point buffers follow casts to float64, but never fall below float32."""

    def _apply(self, fn, recurse=True):
        def cast(x: Tensor) -> Tensor:
            y = fn(x)
            if not y.is_floating_point() or y.dtype == working_dtype(y.dtype):
                return y
            return x.to(y.device, torch.float32)

        return super()._apply(cast, recurse)

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        for name, x in self._buffers.items():  # with assign=True those of the state dict have taken their place
            if x is not None and x.is_floating_point():
                self._buffers[name] = x.to(working_dtype(x.dtype))


def working_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """float32, or `dtype` (None: torch's default) where that is better. Raises TypeError unless it is floating."""
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point one, got {dtype}")
    return torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)


@torch.library.custom_op("ncbook::held", mutates_args=())
def _held(x: Tensor, later: bool) -> Tensor:
    if not later and in_backward():
        raise RuntimeError("a compiled head cannot be computed again in the backward pass: leave it out of activation "
                           "checkpointing, or do not compile it")
    return x.clone()


@_held.register_fake
def _(x: Tensor, later: bool) -> Tensor:
    return torch.empty_like(x)


def held(x: Tensor, *, later: bool = False) -> Tensor:
    """A copy of a buffer that this step is going to write, or only a later one. A compiler, to which a plain copy is no
    copy, would have the backward read the new state."""
    return _held(x, later) if torch.compiler.is_compiling() else x.clone()


def same(found: Iterable[Tensor], known: Iterable[Tensor]) -> bool:
    """Whether tensors differ by no more than rounding, as those of one batch computed twice do. Those of another batch
    differ by more, however near to collapse it is."""
    return all(x.shape == y.shape and bool((x.detach() - y).norm() <= 1e-5 * y.norm())
               for x, y in zip(found, known, strict=True))


def full_precision(x: Tensor):
    """A context without autocast, which costs nothing where there is none."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if kind != "meta" and torch.is_autocast_enabled(kind) else nullcontext()


def in_backward() -> bool:
    """Whether a backward pass is running, so that a forward pass is one computed again by activation checkpointing."""
    return torch._C._current_graph_task_id() != -1


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, group: Any) -> Tensor:
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def check_group(group: Any) -> None:
    """Raises TypeError unless it is None, False or a process group that this process is in."""
    if group is not None and group is not False and not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        raise TypeError("process_group must be None (all processes), False (each for itself) or a process group that "
                        f"this process is in, got {group!r}")


def spread(group: Any) -> bool:
    """Whether a step is shared with other processes: over `group`, None for all of them, False for never."""
    return group is not False and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor):
        a, b = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return grad.unsqueeze(-1) * b if b.ndim == 1 else grad @ b.mT, a.mT @ grad


def product(a: Tensor, b: Tensor) -> Tensor:
    """A matrix times a matrix or a vector, in `full_precision`. A compiler traces the backward outside that context,
    under the autocast that is around the forward, and would round the gradient to half precision."""
    return _Product.apply(a, b) if torch.compiler.is_compiling() else a @ b


def sum_over_ranks(parts: list[Tensor], group: Group) -> list[Tensor]:
    """The sums of tensors of one dtype over the processes, in one message; their gradients are summed too."""
    packed = _SumOverRanks.apply(torch.cat([part.reshape(-1) for part in parts]), group)
    pieces = packed.split([part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
