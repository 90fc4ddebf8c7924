"""Buffers that a step reads and then writes: right when compiled, computed again, cast, or spread over ranks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


def working_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """float32, or `dtype` (None: torch's default) where that is better."""
    return torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)


@torch.library.custom_op("ncbook::held", mutates_args=())
def _held(x: Tensor) -> Tensor:
    if in_backward():
        raise RuntimeError("a compiled head cannot be computed again in the backward pass: leave it out of activation "
                           "checkpointing, or do not compile it")
    return x.clone()


@_held.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def held(x: Tensor) -> Tensor:
    """A copy of a buffer that this step is going to write. A compiler, to which a plain copy is no copy, would have the
    backward read the new state."""
    return _held(x) if torch.compiler.is_compiling() else x.clone()


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


def spread(group: Any) -> bool:
    """Whether a step is shared with other processes: over `group`, None for all of them, False for never."""
    return group is not False and dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def sum_over_ranks(parts: list[Tensor], group: Group) -> list[Tensor]:
    """The sums of tensors of one dtype over the processes, in one message; their gradients are summed too."""
    packed = _SumOverRanks.apply(torch.cat([part.reshape(-1) for part in parts]), group)
    pieces = packed.split([part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
