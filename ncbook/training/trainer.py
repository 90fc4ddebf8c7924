"""One run of a recipe: a step at a time (`Trainer`), or as a stream of snapshots (`train`)."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncbook.checks import check_integer, check_number, may_look
from ncbook.heads import HEADS
from ncbook.losses import LOSSES
from ncbook.persistence import h0_death_times
from ncbook.training.backbones import build_backbone
from ncbook.training.data import Dataset, SameClassSampler, load_dataset
from ncbook.training.recipe import Recipe
from ncbook.training.regularisers import REGULARISERS, Controls
from ncbook.training.snapshot import SideBySide, Snapshot, average_head, check_converging, keep, measure


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
        self.controls = Controls() if controls is None else controls
        self._regulariser = REGULARISERS[recipe.regulariser]
        for dial in self._regulariser.dials:
            vars(self.controls).setdefault(dial.name, dial.default)
        known = {*vars(Controls()), *(dial.name for dial in self._regulariser.dials)}
        if unknown := set(vars(self.controls)) - known:
            raise ValueError(f"controls must be among {sorted(known)} with regulariser {recipe.regulariser!r}, "
                             f"got {sorted(unknown)}")
        self.steps = 0
        self._batch = min(recipe.clouds[0] if recipe.clouds else recipe.batch_size, len(data.train_targets))
        self.steps_per_epoch = len(data.train_targets) // self._batch
        with self._seeded(0):
            self.backbone = build_backbone(recipe.backbone, data.input_shape, feature_dim=recipe.feature_dim,
                                           num_samples=len(data.train_targets)).to(self.device)
            kind = HEADS[recipe.head]
            options = {name: getattr(recipe, name) for name in kind.options}
            self.head: Any = kind.build(self.backbone.feature_dim, data.num_classes, **options).to(self.device)
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=self.lr, momentum=recipe.momentum,
                                         weight_decay=recipe.weight_decay)
        smoothing = {"label_smoothing": recipe.label_smoothing} if recipe.label_smoothing else {}
        self._loss = partial(LOSSES[recipe.loss], **smoothing)
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
        """One SGD step; returns the loss, on the device.

        Raises RuntimeError when the run is finished, on the CPU Diverged for features or a loss that are not finite.
        """
        if self.finished:
            raise RuntimeError(f"the run has finished its {self.recipe.epochs} epochs")
        within = self.steps % self.steps_per_epoch
        if within == 0 or self._order is None:
            self._order = self._draw_epoch()
        self._follow_schedule()
        if hasattr(self.head, "follow"):
            self.head.follow((self.epoch + 1) / self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        indices = self._order[within]
        inputs, targets = self.data.train_inputs[indices], self.data.train_targets[indices]
        self.backbone.train()
        self.head.train()
        with self._seeded(self.steps + 1):
            features = self.backbone(inputs)
            if looking := may_look(features):
                check_converging(features=features)
            loss = self._loss(self.head(features, targets), targets)
        if self.recipe.clouds:
            clouds = features.unflatten(0, (self._batch, -1))
            self._clouds = clouds.detach()
            loss = loss + self._regulariser(clouds, Controls(**vars(self.controls) | {"p": self._chosen("p")}))
        if looking:
            check_converging(loss=loss)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        return loss.detach()

    def run_epoch(self) -> None:
        """Steps up to the end of the epoch that is under way, or of the next one."""
        epoch = self.epoch
        while self.epoch == epoch:
            self.step()

    def snapshot(self, *, test: bool = True, data: Dataset | None = None, keys: Sequence[str] | None = None,
                 test_keys: Sequence[str] | None = None) -> Snapshot:
        """The run as it stands, on all training data and, with `test`, all test data: see `measure`.

        With `data`, a part of the run's data set that holds every class, that stands for it, and all its training
        samples are the snapshot's features: quick enough for live display.
        """
        shot = measure(self.backbone, self.head, data or self.data, loss=LOSSES[self.recipe.loss], keys=keys,
                       sample=self._sample if data is None else None, test_keys=test_keys if test else ())
        return self._dated(shot)

    def _dated(self, shot: Snapshot) -> Snapshot:
        deaths = None if self._clouds is None else keep(h0_death_times(self._clouds, self._chosen("p")))
        dials = {dial.name: getattr(self.controls, dial.name) for dial in self._regulariser.dials}
        return dataclasses.replace(shot, epoch=self.epoch, step=self.steps, deaths=deaths, dials=dials,
                                   lr=self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict:
        """All that is needed to go on: recipe, steps, backbone, head, optimizer, controls."""
        return {"recipe": self.recipe.to_json(), "steps": self.steps, "backbone": self.backbone.state_dict(),
                "head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(),
                "controls": dict(vars(self.controls)), "clouds": self._clouds}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state_dict()`. Raises ValueError when it belongs to another recipe."""
        if Recipe.from_json(state["recipe"]) != self.recipe:
            raise ValueError(f"the checkpoint belongs to another recipe: {state['recipe']}")
        self.backbone.load_state_dict(state["backbone"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would share the momentum buffers
        controls = dict(state["controls"])
        if "weight" in controls:  # version 0.1
            controls["densify_weight"] = controls.pop("weight")
        vars(self.controls).update(controls)
        self.steps, self._clouds, self._order = state["steps"], state["clouds"], None

    def _chosen(self, name: str) -> float:
        value = getattr(self.controls, name)
        return getattr(self.recipe, name) if value is None else value

    def _follow_schedule(self) -> None:
        schedule = self.recipe.schedule
        if schedule is not None and not self.controls.manual:
            epoch = min(self.epoch + 1, self.recipe.epochs)
            for dial in self._regulariser.dials:
                value = float(getattr(schedule, dial.schedule)(epoch))
                setattr(self.controls, dial.name, check_number(f"schedule.{dial.schedule}({epoch})", value))

    def _draw_epoch(self) -> Tensor:
        generator = self._generator(1 + self.epoch)
        size = self.steps_per_epoch * self._batch
        order = torch.randperm(len(self.data.train_targets), generator=generator)[:size]
        order = order.view(self.steps_per_epoch, -1)
        if self.recipe.clouds:
            order = self._sampler(order, self.recipe.clouds[1], generator=generator).flatten(1)
        return order.to(self.device)

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


def joint_snapshot(trainers: Sequence[Trainer]) -> Snapshot:
    """The networks of M runs side by side, as one: features (k, M d) concatenated, logits averaged.

    The features are those that the heads see, in which their logits are linear. The weight (C, M d) is that of the
    average, so the metrics are of one linear classifier on the concatenated features. Data, sample, deaths and settings
    are those of the first run. Raises ValueError for no runs, and for runs at different steps.
    """
    if not trainers:
        raise ValueError("there are no runs to put side by side")
    heads = [trainer.head for trainer in trainers]
    if len({trainer.steps for trainer in trainers}) > 1:
        raise ValueError("runs side by side must have done the same number of steps, got "
                         f"{[trainer.steps for trainer in trainers]}")
    first = trainers[0]
    networks = SideBySide((trainer.backbone for trainer in trainers), heads)
    shot = measure(networks, average_head(heads), first.data, loss=LOSSES[first.recipe.loss], sample=first._sample)
    return first._dated(shot)


def train(recipe: Recipe, *, data: Dataset | None = None, controls: Controls | None = None, every: int = 1,
          checkpoint: str | Path | None = None, progress: bool = False) -> Iterator[Snapshot]:
    """Run a recipe and yield a snapshot of where it starts, every `every` epochs, and at the end.

    With `checkpoint`, a file, the state is saved there before each later snapshot is handed out, and a run that finds
    the file starts from it: stopped at any moment, it continues to the same result as an uninterrupted one.
    Raises ValueError for `every` below 1 or a checkpoint of another recipe, TypeError for a checkpoint with a schedule
    that cannot be saved.
    """
    check_integer("every", every, least=1)
    from tqdm.auto import tqdm

    trainer = Trainer(recipe, data=data, controls=controls)
    if checkpoint is not None and Path(checkpoint).exists():
        trainer.load_state_dict(torch.load(checkpoint, map_location=trainer.device, weights_only=True))
    elif checkpoint is not None:
        save_state(trainer.state_dict(), checkpoint)  # what cannot be saved fails here and not after an epoch
    yield trainer.snapshot()
    with tqdm(total=recipe.epochs, initial=trainer.epoch, unit="epoch", disable=not progress) as bar:
        while not trainer.finished:
            trainer.run_epoch()
            bar.update()
            if trainer.epoch % every == 0 or trainer.finished:
                if checkpoint is not None:
                    save_state(trainer.state_dict(), checkpoint)
                yield trainer.snapshot()


def save_state(state: object, path: str | Path) -> None:
    """Replace a checkpoint in one step: killed at any moment, the old file or the new one is there, whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)
