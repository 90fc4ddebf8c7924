"""Watching collapse, layer by layer, in a model that somebody else trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ncbook.adapters import bare, find_named, observing
from ncbook.bases import Head
from ncbook.buffers import spread
from ncbook.metrics import METRICS, NeuralCollapse


def pooled(x: Tensor) -> Tensor:
    """Features (N, d) of what a layer gives: (N, d) as it is, the mean over positions of images (N, d, h, w) and over
    tokens (N, L, d). Raises ValueError for another number of axes."""
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"pool must make (N, d) of the shape {tuple(x.shape)}: give a function of your own")
    return x if x.ndim == 2 else x.mean(1) if x.ndim == 3 else x.mean((2, 3))


class CollapseMonitor:
    """The metrics of `NeuralCollapse` at layers of a model, from the batches that others run through it.

    layers: names of modules as in `model.named_modules()`, whose outputs are measured without a classifier. The
    classifier comes last, under its own name: an nn.Linear is measured on its inputs, a head on its `embed` of them,
    which for most heads has norm `scale`; to compare the two, measure the layer before as well. One pass over the
    data, and no features are kept unless keep_features says so: nc4, accuracy, cosine_margin and numerical_rank need
    them, kept for the classifier only. classifier: its name, where `find_classifier` does not find it; pool: features
    (N, d) of what a layer gives. With torch.distributed initialised `compute` is of all processes together.

    Raises ValueError for names that are not in the model.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = (), *, classifier: str | None = None,
                 pool: Callable[[Tensor], Tensor] = pooled, keep_features: bool = False):
        model = bare(model)
        modules = dict(model.named_modules())
        layers = [layers] if isinstance(layers, str) else list(layers)
        if unknown := [name for name in layers if name not in modules]:
            raise ValueError(f"layers must be names in model.named_modules(), got {unknown}")
        self.name, head = find_named(model, classifier, "classifier")
        self.classifier: Any = head
        self.layers = {name: modules[name] for name in layers}
        self.pool, self.keep_features = pool, keep_features
        self.states: dict[str, NeuralCollapse] = {}

    def reset(self) -> None:
        """Forget all samples."""
        self.states.clear()

    @contextmanager
    def batch(self, targets: Tensor | None) -> Iterator[None]:
        """`with monitor.batch(targets): model(inputs)` takes in one batch; targets None: it is out of distribution."""
        seen: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for name, module in self.layers.items():
                hook = module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: self._take(out)}))
                stack.callback(hook.remove)
            stack.callback(self.classifier.register_forward_pre_hook(
                lambda module, args: seen.update({self.name: args[0].detach()})).remove)
            yield
        for name in (*self.layers, self.name):
            if name not in seen:
                raise ValueError(f"layers must take part in the forward pass, but {name!r} was not seen in it; a model "
                                 "that is compiled hides its layers: run the one that was given to torch.compile")
            self._update(name, seen[name], targets)

    def _take(self, output: Any) -> Tensor:
        return self.pool((output[0] if isinstance(output, (tuple, list)) else output).detach())

    @torch.no_grad()
    def _update(self, name: str, features: Tensor, targets: Tensor | None) -> None:
        last = name == self.name
        if last:
            features = self.classifier.embed(features) if isinstance(self.classifier, Head) else features
            if targets is not None and features.shape[:-1] == targets.shape:
                features, targets = features.flatten(0, -2), targets.flatten()
            elif features.ndim > 2:
                features = self.pool(features)
        if name not in self.states:
            self.states[name] = NeuralCollapse(self.classifier.out_features, features.shape[1],
                                               keep_features=self.keep_features and last)
        if targets is None:
            self.states[name].update_ood(features)
        else:
            self.states[name].update(features, targets)

    def compute(self, keys: Iterable[str] | None = None) -> dict[str, dict[str, float]]:
        """Layer -> key -> value, in the order of the layers; keys None for all that can be had.

        Raises ValueError where nothing was measured, or as `NeuralCollapse.compute`. Layers leave out the keys that
        need a classifier; a key that no row can have, for want of kept features or of batches out of distribution, is
        a ValueError too.
        """
        keys = None if keys is None else set(keys)
        if unknown := (keys or set()) - set(METRICS):
            raise ValueError(f"keys must be metrics, {', '.join(METRICS)}, got {sorted(unknown)}")
        rows = {}
        for name, state in self._joint_states().items():
            last = name == self.name
            can = state.available(last)
            rows[name] = state.compute(self.classifier.weight if last else None, self.classifier.bias if last else None,
                                       keys=can if keys is None else keys & set(can))
        if absent := (keys or set()).difference(*rows.values()):
            raise ValueError(f"keys {sorted(absent)} cannot be had here: they need keep_features=True, or nc5 batches "
                             "out of distribution")
        return rows

    def _joint_states(self) -> dict[str, NeuralCollapse]:
        parts: list[Any] = [self.states]
        if spread(None):
            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, {name: state.to("cpu") for name, state in self.states.items()})
        names = [name for name in (*self.layers, self.name) if any(name in part for part in parts)]
        if not names:
            raise ValueError("batch must have been used before compute: no samples so far")
        return {name: reduce(NeuralCollapse.merge, [part[name] for part in parts if name in part]) for name in names}


def measure_layers(model: nn.Module, loader: Iterable, layers: Sequence[str] = (), *, ood: Iterable = (),
                   keys: Iterable[str] | None = None, keep_features: bool = True,
                   **options) -> dict[str, dict[str, float]]:
    """The collapse of a model at layers of it and at its classifier: layer -> key -> value, in one pass over a loader.

    The model is in evaluation mode meanwhile. loader: batches that begin with inputs and targets; ood: batches of
    inputs, or that begin with them, out of distribution. layers, keep_features and options: see `CollapseMonitor`;
    keys: as in its `compute`.
    """
    model = bare(model)
    monitor = CollapseMonitor(model, layers, keep_features=keep_features, **options)
    device = next((x.device for x in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            for inputs, targets, *_ in loader:
                with monitor.batch(targets):
                    model(inputs.to(device))
            for inputs in ood:
                with monitor.batch(None):
                    model((inputs[0] if isinstance(inputs, (tuple, list)) else inputs).to(device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return monitor.compute(keys)


def lightning_callback(layers: Sequence[str] = (), *, targets: Callable[[Any], Tensor] = lambda batch: batch[1],
                       keys: Iterable[str] | None = None, prefix: str = "val_", **options) -> Any:
    """A callback for Lightning's Trainer: targets to the heads in training, collapse over each validation epoch.

    It logs prefix + layer + "/" + key for layers and keys as in `CollapseMonitor`, which takes the options. targets:
    those of a batch. Lightning is imported here. Raises ImportError without it.
    """
    from lightning.pytorch import Callback

    keys = None if keys is None else tuple(keys)

    class NeuralCollapseCallback(Callback):
        def __init__(self):
            self.open, self.monitor = ExitStack(), None

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.open.enter_context(observing(pl_module, targets(batch)))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.open.close()

        def on_exception(self, trainer, pl_module, exception):
            self.open.__exit__(type(exception), exception, exception.__traceback__)

        def on_validation_epoch_start(self, trainer, pl_module):
            self.monitor = CollapseMonitor(pl_module, layers, **options)

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            self.open.enter_context(self.monitor.batch(targets(batch)))

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            self.open.close()

        def on_validation_epoch_end(self, trainer, pl_module):
            if not trainer.sanity_checking:  # a few batches, which need not hold every class
                rows = self.monitor.compute(keys)
                pl_module.log_dict({f"{prefix}{layer}/{key}": value for layer, row in rows.items()
                                    for key, value in row.items()}, sync_dist=True)

    return NeuralCollapseCallback()
