"""Heads on models of others: torchvision's, timm's and your own, without a change to their code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn

from ncbook.bases import ETFHead, Head
from ncbook.heads import NearestETFHead


def find_classifier(model: nn.Module, name: str | None = None) -> tuple[str, Any]:
    """The name and the module of a model's classifier: an nn.Linear, or a head of `ncbook.heads`.

    name: the layer's, as in `model.named_modules()`, where None does not find it: what timm's `get_classifier` gives,
    else a head of `ncbook.heads`, else the last layer with parameters, as in all torchvision models that end in an
    nn.Linear. Raises TypeError for a model that is no nn.Module, ValueError, which names the layer, for any other kind
    of classifier: several at once, a convolution, or none; it says what to do there.
    """
    return find_named(model, name, "name")


def find_named(model: nn.Module, name: str | None, argument: str) -> tuple[str, Any]:
    """`find_classifier` for a caller whose own argument has another name."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    modules: dict[str, Any] = dict(model.named_modules())
    if name is not None:
        if name not in modules:
            raise ValueError(f"{argument} must be that of a layer in model.named_modules(), got {name!r}")
        found = modules[name]
    else:
        name, found = _guess(model, modules)
    if not isinstance(found, (nn.Linear, Head)):
        what = f"the layer {name!r}" if name else "what its get_classifier() returns"
        several = isinstance(found, (tuple, list, dict))
        raise ValueError(f"the classifier of the model must be one nn.Linear, but {what} is of type "
                         f"{type(found).__name__}: give the name of {'one of them' if several else 'an nn.Linear'} in "
                         f"`{argument}`" + ("" if several else ", or where the model has none take a model without "
                         "classifier, as timm's create_model(..., num_classes=0), in nn.Sequential(model, "
                         "nn.Linear(d, C))"))
    return name, found


def bare(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile, which share its layers."""
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = cast(nn.Module, getattr(model, "_orig_mod", None) or model.module)
    return model


def _guess(model: nn.Module, modules: dict[str, nn.Module]) -> tuple[str, Any]:
    get = getattr(model, "get_classifier", None)
    if callable(get):
        found = get()
        return next((name for name, module in modules.items() if module is found), ""), found
    heads = [name for name, module in modules.items() if isinstance(module, Head)]
    leaves = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    name = (heads or leaves or [""])[-1]
    return name, modules[name]


def replace_classifier(model: nn.Module, head: Callable[..., nn.Module] = NearestETFHead, *, name: str | None = None,
                       num_classes: int | None = None, **options) -> nn.Module:
    """Put a head in the place of a model's classifier, on its device, and return the model.

    head: a class of `ncbook.heads`, called with the sizes of the nn.Linear that it replaces, its device and dtype,
    bias=False where it has none, and with options. num_classes: None for as many as now. name: see `find_classifier`,
    which says what is raised; of several classifiers the others stay as they are. A model's own attribute
    `num_classes` follows. A NearestETFHead needs the targets: see `observing`.
    """
    name, old = find_classifier(model, name)
    if not name:
        raise ValueError("model must contain its classifier, not be it")
    if old.bias is None:
        options = {"bias": False} | options
    made = head(old.in_features, num_classes or old.out_features, device=old.weight.device, dtype=old.weight.dtype,
                **options)
    model.set_submodule(name, made.train(model.training))
    if num_classes and isinstance(getattr(model, "num_classes", None), int):
        cast(Any, model).num_classes = num_classes
    return model


@contextmanager
def observing(model: nn.Module, targets: Tensor) -> Iterator[None]:
    """Hand the targets (N,) to the heads inside a model that is called without them.

    `with observing(model, targets): logits = model(inputs)`. model: also one inside DistributedDataParallel or
    torch.compile; a LearnedHead needs no targets. On several processes all must take equally many steps: a head sums
    over them, which DistributedDataParallel's `join` does not know. Raises ValueError for a model without any of them.
    """
    heads = [module for module in model.modules() if isinstance(module, Head)]
    if not heads:
        raise ValueError("model must hold a head of ncbook.heads, see replace_classifier")
    with ExitStack() as stack:
        for head in heads:
            if isinstance(head, ETFHead):
                stack.enter_context(head.observing(targets))
        yield
