"""Training: a `Recipe` goes in, a stream of `Snapshot`s comes out."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncbook.data import Dataset, SameClassSampler, load_dataset
from ncbook.heads import SCALE, FixedETFHead, LearnedHead, NearestETFHead, dot_regression_loss
from ncbook.metrics import neural_collapse
from ncbook.models import build_backbone
from ncbook.persistence import densification_loss, h0_death_times
from ncbook.schedules import schedule_from_dict

HEADS = ("learned", "cosine", "fixed", "nearest")
LOSSES = {"cross_entropy": F.cross_entropy, "dot_regression": dot_regression_loss}
LR_DECAYS = ("cosine", "constant")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    dataset, classes, train_size, split: as in `load_dataset`. backbone, feature_dim: as in `build_backbone`.
    head: "learned" (plain linear), "cosine" (learned, unit rows), "fixed", "nearest"; scale: feature norm of the last
    three. batch_size: images a step, without clouds. clouds (b, n): a step takes b anchors and n-1 more draws of the
    class of each, b*n images, on which `schedule` (None: no densification) and the norm p (1, 2, inf) set the densification
    loss. An epoch is N // batch_size (N // b with clouds) steps, at least one. lr_decay: "cosine" to 0 by epochs, or
    "constant". Raises ValueError for a value that is not accepted.
    """

    dataset: str = "digits"
    classes: int | tuple[int, ...] | None = None
    train_size: int | None = None
    split: int = 0
    backbone: str = "small_cnn"
    feature_dim: int | None = None
    head: str = "learned"
    scale: float = SCALE
    loss: str = "cross_entropy"
    batch_size: int = 64
    clouds: tuple[int, int] | None = None
    schedule: Any = None
    p: float = 2
    epochs: int = 20
    lr: float = 0.1
    lr_decay: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        for name in ("classes", "clouds"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, accepted in (("head", HEADS), ("loss", tuple(LOSSES)), ("lr_decay", LR_DECAYS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {accepted}, got {getattr(self, name)!r}")
        if self.loss == "dot_regression" and self.head in ("learned", "cosine"):
            raise ValueError(f"loss 'dot_regression' needs head 'fixed' or 'nearest', got {self.head!r}: rows that may "
                             "move reach loss 0 by all being the same")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        for name in ("lr", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        if self.p not in (1, 2, math.inf):
            raise ValueError(f"p must be 1, 2 or math.inf, got {self.p!r}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be finite and positive, got {self.scale}")
        if self.clouds is not None and not (isinstance(self.clouds, tuple) and len(self.clouds) == 2
                                            and self.clouds[0] >= 1 and self.clouds[1] >= 2):
            raise ValueError(f"clouds must be (b, n) with b >= 1 clouds of n >= 2 points, got {self.clouds}")
        if self.schedule is not None and self.clouds is None:
            raise ValueError("a densification schedule needs same-class clouds: give clouds=(b, n)")

    def to_json(self) -> str:
        """The recipe as JSON. Raises TypeError for a schedule that is not one of `ncbook.schedules`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.schedule is not None:
            if not hasattr(self.schedule, "to_dict"):
                raise TypeError("schedule must be one of ncbook.schedules to be saved, "
                                f"got {type(self.schedule).__name__}")
            values["schedule"] = self.schedule.to_dict()
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote."""
        values = json.loads(text)
        if values.get("schedule") is not None:
            values["schedule"] = schedule_from_dict(values["schedule"])
        return cls(**values)


@dataclass
class Controls:
    """What may change while training runs; the trainer reads it at each step.

    beta, weight: scale and weight of the densification loss, which the trainer itself sets from the recipe's schedule
    unless `manual`; p: its norm; lr: the learning rate before its decay. None stands for the recipe's value.
    """

    beta: float = 0.0
    weight: float = 0.0
    p: float | None = None
    lr: float | None = None
    manual: bool = False


@dataclass(frozen=True)
class Snapshot:
    """A training run at one moment. Tensors are float32 on the CPU, features are what the classifier sees.

    epoch, step: finished so far. train, test: the keys of `neural_collapse` and "loss"; test is {} without test data.
    class_means (C, d) of the training set, weight (C, d), bias (C,); features (k, d) and targets (k,) of a fixed sample
    of it; deaths (b, n-1): death times of the last step's clouds, before that step, or None; the last step's beta,
    densify_weight and lr (before any step, the first's).
    """

    epoch: int
    step: int
    train: dict[str, float]
    test: dict[str, float]
    class_means: Tensor
    weight: Tensor
    bias: Tensor
    features: Tensor
    targets: Tensor
    deaths: Tensor | None
    beta: float
    densify_weight: float
    lr: float


def resolve_device(name: str) -> torch.device:
    """"auto" is CUDA when present, then MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Trainer:
    """One run of a recipe, a step at a time: what `train` loops over and a live display drives.

    `data` replaces the recipe's own data set, `controls` may be changed between steps. The same recipe gives the same
    run again on one machine, whatever else draws random numbers.
    """

    sample_size = 200

    def __init__(self, recipe: Recipe, *, data: Dataset | None = None, controls: Controls | None = None):
        self.recipe = recipe
        self.device = resolve_device(recipe.device)
        if data is None:
            data = load_dataset(recipe.dataset, classes=recipe.classes, train_size=recipe.train_size,
                                split=recipe.split)
        self.data = data.to(self.device)
        self.controls = controls or Controls()
        self.steps = 0
        self._batch = min(recipe.clouds[0] if recipe.clouds else recipe.batch_size, len(data.train_targets))
        self.steps_per_epoch = len(data.train_targets) // self._batch
        with self._seeded(0):
            self.backbone = build_backbone(recipe.backbone, data.input_shape, feature_dim=recipe.feature_dim,
                                           num_samples=len(data.train_targets)).to(self.device)
            self.head = _build_head(recipe, self.backbone.feature_dim, data.num_classes).to(self.device)
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=recipe.momentum,
                                         weight_decay=recipe.weight_decay)
        self._sampler = SameClassSampler(data.train_targets.cpu())
        order = torch.randperm(len(data.train_targets), generator=self._generator(0))
        self._sample = order[: self.sample_size].to(self.device)
        self._order: Tensor | None = None
        self._clouds: Tensor | None = None
        self._follow_schedule()

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.steps // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done."""
        return self.epoch >= self.recipe.epochs

    @property
    def lr(self) -> float:
        """The learning rate of the next step: the controls' rate times the recipe's decay."""
        lr = self._chosen("lr")
        if self.recipe.lr_decay == "constant":
            return lr
        return lr * (1 + math.cos(math.pi * self.epoch / self.recipe.epochs)) / 2

    def step(self) -> Tensor:
        """One SGD step; returns the loss, on the device. Raises RuntimeError when the run is finished."""
        if self.finished:
            raise RuntimeError(f"the run has finished its {self.recipe.epochs} epochs")
        within = self.steps % self.steps_per_epoch
        if within == 0 or self._order is None:
            self._order = self._draw_epoch()
        self._follow_schedule()
        controls = self.controls
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        indices = self._order[within]
        inputs, targets = self.data.train_inputs[indices], self.data.train_targets[indices]
        self.backbone.train()
        self.head.train()
        with self._seeded(self.steps + 1):
            features = self.backbone(inputs)
            loss = LOSSES[self.recipe.loss](self.head(features, targets), targets)
        if self.recipe.clouds:
            clouds = features.unflatten(0, (self._batch, -1))
            self._clouds = clouds.detach()
            if controls.weight > 0:
                loss = loss + controls.weight * densification_loss(clouds, controls.beta, self._chosen("p"))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        return loss.detach()

    def snapshot(self, *, test: bool = True, indices: Tensor | None = None) -> Snapshot:
        """The run as it stands, on all training data and, with `test`, all test data, in evaluation mode.

        With `indices` (k,), which hold every class, just these training samples stand for the training set and are the
        snapshot's features: quick enough for live display.
        """
        kept, chosen = (self._sample, slice(None)) if indices is None else (slice(None), indices)
        targets = self.data.train_targets[chosen]
        train_features, train = self._evaluate(self.data.train_inputs[chosen], targets)
        has_test = test and self.data.test_inputs is not None
        test_metrics = self._evaluate(self.data.test_inputs, self.data.test_targets)[1] if has_test else {}
        means = torch.stack([train_features[targets == c].mean(0) for c in range(self.data.num_classes)])
        deaths = None if self._clouds is None else h0_death_times(self._clouds, self._chosen("p"))

        def keep(x: Tensor) -> Tensor:
            return x.detach().to("cpu", torch.float32, copy=True)

        return Snapshot(
            epoch=self.epoch, step=self.steps, train=train, test=test_metrics, class_means=keep(means),
            weight=keep(self.head.weight), bias=keep(self._bias()), features=keep(train_features[kept]),
            targets=targets[kept].cpu(), deaths=None if deaths is None else keep(deaths),
            beta=self.controls.beta, densify_weight=self.controls.weight, lr=self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict:
        """All that is needed to go on: recipe, steps, backbone, head, optimizer, controls."""
        return {"recipe": self.recipe.to_json(), "steps": self.steps, "backbone": self.backbone.state_dict(),
                "head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(),
                "controls": dataclasses.asdict(self.controls), "clouds": self._clouds}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`. Raises ValueError when it belongs to another recipe."""
        if Recipe.from_json(state["recipe"]) != self.recipe:
            raise ValueError(f"the checkpoint belongs to another recipe: {state['recipe']}")
        self.backbone.load_state_dict(state["backbone"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would share the momentum buffers
        for name, value in state["controls"].items():
            setattr(self.controls, name, value)
        self.steps, self._clouds, self._order = state["steps"], state["clouds"], None

    def _chosen(self, name: str) -> float:
        value = getattr(self.controls, name)
        return getattr(self.recipe, name) if value is None else value

    def _follow_schedule(self) -> None:
        schedule, controls = self.recipe.schedule, self.controls
        if schedule is not None and not controls.manual:
            epoch = min(self.epoch + 1, self.recipe.epochs)
            controls.beta, controls.weight = float(schedule.beta(epoch)), float(schedule.weight(epoch))

    def _draw_epoch(self) -> Tensor:
        generator = self._generator(1 + self.epoch)
        size = self.steps_per_epoch * self._batch
        order = torch.randperm(len(self.data.train_targets), generator=generator)[:size]
        order = order.view(self.steps_per_epoch, -1)
        if self.recipe.clouds:
            order = self._sampler(order, self.recipe.clouds[1], generator=generator).flatten(1)
        return order.to(self.device)

    @torch.no_grad()
    def _evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, float]]:
        self.backbone.eval()
        self.head.eval()
        features = torch.cat([self.backbone(x) for x in inputs.split(1000)])
        loss = LOSSES[self.recipe.loss](self.head(features), targets)
        embedded = self.head.embed(features)
        return embedded, {**neural_collapse(embedded, targets, self.head.weight, self._bias()), "loss": float(loss)}

    def _bias(self) -> Tensor:
        return torch.zeros_like(self.head.weight[:, 0]) if self.head.bias is None else self.head.bias

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed("order", stream))

    @contextmanager
    def _seeded(self, stream: int):
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._seed("model", stream))
            yield

    def _seed(self, purpose: str, stream: int) -> int:
        # torch's CPU generator keeps just 32 bits of a seed, so packing the numbers into one does not do.
        entropy = (self.recipe.seed, ("model", "order").index(purpose), stream)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class _SideBySide(nn.ModuleList):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([network(inputs) for network in self], dim=1)


def joint_snapshot(trainers: Sequence[Trainer]) -> Snapshot:
    """The networks of M runs side by side, as one: features (k, M d) concatenated, logits averaged.

    The weight (C, M d) is that of the average, so the metrics are of one linear classifier on the concatenated
    features. Data, sample, deaths and settings are those of the first run. Raises ValueError for no runs, for runs at
    different steps, and for heads other than "learned", whose logits are not linear in the features.
    """
    if not trainers or any(trainer.recipe.head != "learned" for trainer in trainers):
        raise ValueError("runs are put side by side by their learned heads, got heads "
                         f"{[trainer.recipe.head for trainer in trainers]}")
    if len({trainer.steps for trainer in trainers}) > 1:
        raise ValueError("runs side by side must have done the same number of steps, got "
                         f"{[trainer.steps for trainer in trainers]}")
    joint = copy.copy(trainers[0])
    joint.backbone = _SideBySide(trainer.backbone for trainer in trainers)
    heads = [trainer.head for trainer in trainers]
    joint.head = copy.deepcopy(heads[0])
    joint.head.weight = nn.Parameter(torch.cat([head.weight for head in heads], dim=1).detach() / len(heads))
    joint.head.bias = nn.Parameter(torch.stack([head.bias for head in heads]).mean(0).detach())
    joint.head.in_features = joint.head.weight.shape[1]
    return joint.snapshot()


def train(recipe: Recipe, *, data: Dataset | None = None, controls: Controls | None = None, every: int = 1,
          checkpoint: str | Path | None = None, progress: bool = False) -> Iterator[Snapshot]:
    """Run a recipe and yield a snapshot of where it starts, every `every` epochs, and at the end.

    With `checkpoint`, a file, the state is saved there before each later snapshot is handed out, and a run that finds
    the file starts from it: stopped at any moment, it continues to the same result as an uninterrupted one.
    Raises ValueError for `every` below 1 or a checkpoint of another recipe, TypeError for a checkpoint with a schedule
    that cannot be saved.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    from tqdm.auto import tqdm

    if checkpoint is not None:
        recipe.to_json()  # a recipe that cannot be saved fails here and not after an epoch
    trainer = Trainer(recipe, data=data, controls=controls)
    if checkpoint is not None and Path(checkpoint).exists():
        trainer.load_state_dict(torch.load(checkpoint, map_location=trainer.device, weights_only=True))
    yield trainer.snapshot()
    with tqdm(total=recipe.epochs, initial=trainer.epoch, unit="epoch", disable=not progress) as bar:
        while not trainer.finished:
            for _ in range(trainer.steps_per_epoch):
                trainer.step()
            bar.update()
            if trainer.epoch % every == 0 or trainer.finished:
                if checkpoint is not None:
                    _save(trainer.state_dict(), Path(checkpoint))
                yield trainer.snapshot()


def _save(state: dict, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _build_head(recipe: Recipe, dim: int, num_classes: int) -> nn.Module:
    if recipe.head == "learned":
        return LearnedHead(dim, num_classes)
    if recipe.head == "cosine":
        return LearnedHead(dim, num_classes, cosine=True, scale=recipe.scale)
    head = {"fixed": FixedETFHead, "nearest": NearestETFHead}[recipe.head]
    return head(dim, num_classes, scale=recipe.scale)
