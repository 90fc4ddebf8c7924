"""Measuring a network, or several side by side: a `Snapshot`, and the tidy row that it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncbook.heads import LearnedHead
from ncbook.metrics import METRICS, NeuralCollapse
from ncbook.training.data import Dataset

OF_LOGITS = ("loss", "ece", "brier")  # what a snapshot has beside `METRICS`: the loss, and how well it is calibrated


class Diverged(ArithmeticError):
    """A network whose features, logits or loss are NaN, inf, or too large for the square of their norm."""


def check_converging(**values: Tensor) -> None:
    """Raise Diverged, naming the first of the values whose norm or its square is not finite."""
    for name, value in values.items():
        if not torch.linalg.vector_norm(value.detach()).square().isfinite():
            raise Diverged(f"the network has diverged: its {name} hold NaN, inf or too large numbers")


class Classifier(Protocol):
    """What is asked of a head: the weight (C, d) and bias (C,), or None, that its logits are computed with from what
    `embed` makes of the features."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...
    def embed(self, features: Tensor) -> Tensor: ...
    def eval(self) -> object: ...
    def __call__(self, features: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Snapshot:
    """A network at one moment. Tensors are float32 on the CPU, features are what the classifier sees.

    train, test: metrics by their keys in `METRICS` and `OF_LOGITS`; test is {} without test data. class_means (C, d) of
    the training set, weight (C, d), bias (C,); features (k, d) and targets (k,) of a fixed sample of it; train_spectrum
    and test_spectrum: the eigenvalues of the between-class covariance of the means of either set, descending. Of a run:
    epoch, step: finished so far; deaths (b, n-1): death times of the last step's clouds, before that step, or None; the
    last step's dials and lr (before any step, the first's).
    """

    train: dict[str, float]
    test: dict[str, float]
    class_means: Tensor
    weight: Tensor
    bias: Tensor
    features: Tensor
    targets: Tensor
    train_spectrum: Tensor
    test_spectrum: Tensor | None
    epoch: int = 0
    step: int = 0
    deaths: Tensor | None = None
    dials: Mapping[str, float] = field(default_factory=dict)
    lr: float = 0.0

    @property
    def beta(self) -> float:
        """The scale of the densification loss."""
        return self.dials.get("beta", 0.0)

    @property
    def densify_weight(self) -> float:
        """The weight of the densification loss."""
        return self.dials.get("densify_weight", 0.0)

    def row(self) -> dict[str, Any]:
        """One tidy row: epoch, step, dials, lr, then train_ and test_ with each metric, shares such as accuracy and NC4
        in per cent, and with the spectrum, a tuple."""
        row: dict[str, Any] = {"epoch": self.epoch, "step": self.step, **self.dials, "lr": self.lr}
        for part in ("train", "test"):
            for key, value in getattr(self, part).items():
                row[f"{part}_{key}"] = 100 * value if in_per_cent(key) else value
            spectrum = getattr(self, f"{part}_spectrum")
            if spectrum is not None:
                row[f"{part}_spectrum"] = tuple(spectrum.tolist())
        return row


def measure(backbone: nn.Module, head: Classifier, data: Dataset, *,
            loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy, sample: Tensor | None = None,
            keys: Sequence[str] | None = None, test_keys: Sequence[str] | None = None) -> Snapshot:
    """A trained network on all training and test data, in evaluation mode; no trainer is needed.

    backbone: inputs -> features (N, d'); head: features -> logits (N, C), with `weight`, `bias` and `embed` as those of
    `ncbook.heads`. sample (k,): the training samples whose features are kept, None for all. keys, test_keys: what is
    wanted of either set, of `METRICS` and `OF_LOGITS`; None for all, () for none. Both parts are left in evaluation
    mode. Raises as `neural_collapse`, and Diverged for features or logits that are not finite.
    """
    bias = torch.zeros_like(head.weight[:, 0]) if head.bias is None else head.bias
    backbone.eval()
    head.eval()
    embedded, train, state = _evaluate(backbone, head, bias, data.train_inputs, data.train_targets, loss, keys)
    test: dict[str, float] = {}
    spectrum = None
    if data.test_inputs is not None and data.test_targets is not None and (test_keys is None or test_keys):
        _, test, tested = _evaluate(backbone, head, bias, data.test_inputs, data.test_targets, loss, test_keys)
        spectrum = keep(tested.spectrum())
    kept = slice(None) if sample is None else sample
    return Snapshot(train, test, keep(state.class_means), keep(head.weight), keep(bias), keep(embedded[kept]),
                    data.train_targets[kept].cpu(), keep(state.spectrum()), spectrum)


def in_per_cent(key: str) -> bool:
    """Whether rows and figures give a metric in per cent."""
    return key in METRICS and METRICS[key].share


def keep(x: Tensor) -> Tensor:
    """A copy in float32 on the CPU, without gradient."""
    return x.detach().to("cpu", torch.float32, copy=True)


@torch.no_grad()
def _evaluate(backbone: nn.Module, head: Classifier, bias: Tensor, inputs: Tensor, targets: Tensor, loss: Callable,
              keys: Sequence[str] | None) -> tuple[Tensor, dict[str, float], NeuralCollapse]:
    features = torch.cat([backbone(x) for x in inputs.split(1000)])
    embedded, logits = head.embed(features), head(features)
    check_converging(features=features, logits=logits)
    num_classes, dim = head.weight.shape
    state = NeuralCollapse(num_classes, dim).update(embedded, targets)
    of_features = None if keys is None else [key for key in keys if key not in OF_LOGITS]
    metrics = state.compute(head.weight, bias, keys=of_features)
    for key, compute in {"loss": loss, "ece": calibration_error, "brier": brier_score}.items():
        if keys is None or key in keys:
            metrics[key] = float(compute(logits, targets))
    return embedded, metrics, state


def calibration_error(logits: Tensor, targets: Tensor) -> Tensor:
    """How far the top probability is from how often it is right, (N, C), (N,) -> (): 15 equal bins, weighted by size.

    Source: the expected calibration error of Guo et al. 2017, arXiv 1706.04599.
    """
    top, guess = logits.softmax(1).max(1)
    bins = (15 * top).long().clamp(max=14)
    return torch.bincount(bins, (guess == targets).to(top) - top, 15).abs().sum() / len(targets)


def brier_score(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over samples of |p - e|^2, p the probabilities, e the one-hot label: (N, C), (N,) -> (), 0 to 2."""
    return (logits.softmax(1) - F.one_hot(targets, logits.shape[1])).square().sum(1).mean()


class SideBySide(nn.Module):
    """Networks whose features, as their heads see them (N, d_m), are put one after the other: (N, d_1 + ... + d_M)."""

    def __init__(self, networks: Iterable[nn.Module], heads: Iterable[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.heads: Any = nn.ModuleList(heads)

    def forward(self, inputs: Tensor) -> Tensor:
        pairs = zip(self.networks, self.heads, strict=True)
        return torch.cat([head.embed(network(inputs)) for network, head in pairs], dim=1)


def average_head(heads: Sequence[Classifier]) -> LearnedHead:
    """The linear head on concatenated features, as M heads see them, whose logits are the average of theirs."""
    weight = torch.cat([head.weight for head in heads], dim=1).detach() / len(heads)
    biases = [torch.zeros_like(weight[:, 0]) if head.bias is None else head.bias for head in heads]
    with torch.random.fork_rng(devices=[]):  # measuring draws no random numbers
        joint = LearnedHead(weight.shape[1], len(weight)).to(weight)
    joint.weight = nn.Parameter(weight)
    joint.bias = nn.Parameter(torch.stack(biases).mean(0).detach())
    return joint
