"""Features on a sphere: what a head with a scale sees of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ncbook.checks import may_look


def on_sphere(x: Tensor, radius: float) -> Tensor:
    """radius * z/|z| for each row of (..., d), exact for rows of 1e-30 or 1e30; zero, without gradient, for zeros."""
    norm = torch.linalg.vector_norm(x.detach(), dim=-1, keepdim=True)
    if may_look(norm) and norm.numel() and 1e-12 < float(norm.min()) and float(norm.max()) < 1e15:
        return _OnSphere.apply(x, x, norm, radius)
    largest = x.detach().abs().amax(-1, keepdim=True)
    # Division by a power of two changes no digit, and keeps the squares from over- and underflow.
    scaled = x / torch.where(largest == 0, 1, largest / (2 * torch.frexp(largest).mantissa))
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return radius * (scaled / torch.where(largest == 0, torch.inf, norm))


class _OnSphere(torch.autograd.Function):
    """radius * x / norm, in fewer passes than autograd's. x comes twice, for its gradient in two parts: autograd adds
    them up one by one, and added up here they would round otherwise."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, again: Tensor, norm: Tensor, radius: float) -> Tensor:
        return x / norm * radius

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, _, norm, ctx.radius = inputs
        ctx.save_for_backward(x, norm)
        ctx.save_for_forward(x, norm)

    @staticmethod
    def jvp(ctx, dx: Tensor, again: Tensor, *constants) -> Tensor:
        x, norm = ctx.saved_tensors
        unit = x / norm
        return ctx.radius * (dx - unit * (unit * again).sum(-1, keepdim=True)) / norm

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, norm = ctx.saved_tensors
        grad = grad * ctx.radius
        if torch.is_grad_enabled():
            norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return grad / norm, x / norm * -(grad * (x / norm / norm)).sum(-1, keepdim=True), None, None
        unit = x / norm
        along = -(unit / norm * grad).sum(-1, keepdim=True)
        return grad / norm, unit * along, None, None
