"""Neural collapse in numbers: NC1 to NC4 and their relatives, for tensors at hand or streamed over a loader.

All linear algebra is in float64. Every state is made of centred moments, so that the numbers stay right when the
within-class scatter is close to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ncbook.checks import check_choice, check_finite, check_floating, check_integer, check_labels
from ncbook.etf import simplex_etf_distance
from ncbook.formulas import (
    Summary,
    decisions,
    duality,
    mean_numerical_rank,
    of_means,
    of_weight,
    orthogonality,
    variability,
    variability_collapse_index,
)
from ncbook.moments import Moments

NEEDS = ("classifier", "samples", "ood")
_LABEL_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _zero(num_classes: int) -> float:
    return 0.0


@dataclass(frozen=True)
class Metric:
    """One metric, and all that tables and figures say of it; to add one, put it into `METRICS` under its key.

    compute: a function of a `Summary` to a number, or to a dict of the keys of several metrics; needs: what it takes
    beside the moments, of "classifier", "samples", "ood"; limit: where it goes under collapse of C classes; direction:
    "down" or "up"; axis: "log" or "linear"; short: its name where there is little room, by default its label; share:
    whether rows and figures give it in per cent. Raises ValueError for other words.
    """

    key: str
    label: str
    compute: Callable[[Summary], Tensor | float | dict[str, Tensor]]
    needs: tuple[str, ...] = ()
    limit: Callable[[int], float] = _zero
    direction: str = "down"
    axis: str = "log"
    short: str = ""
    share: bool = False

    def __post_init__(self):
        for need in (self.needs,) if isinstance(self.needs, str) else self.needs:
            check_choice("needs", need, NEEDS)
        if isinstance(self.needs, str):
            object.__setattr__(self, "needs", (self.needs,))
        check_choice("direction", self.direction, ("down", "up"))
        check_choice("axis", self.axis, ("log", "linear"))


def neural_collapse(features: Tensor, targets: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *,
                    ood: Tensor | None = None, keys: Iterable[str] | None = None) -> dict[str, float]:
    """The neural collapse metrics of a set of features, or just `keys` of them, as floats in the order of `METRICS`.

    With H = [mu_c - mu_G] (d, C), mu_G the mean of the class means, S_W the within-class covariance over all N samples
    (1/N), S_B = H H^T/C, S_T = S_W + S_B, M = I - 11^T/C, standard deviations over classes (1/C):

    nc1                 tr(S_W S_B^+)/C
    nc1_quotient        tr S_W / tr S_B
    cdnv                mean over pairs of (v_i + v_j) / (2 |mu_i - mu_j|^2), v_c the variance of class c
    vci                 1 - tr(S_T^+ S_B)/min(d, C-1)
    nc2_equinorm        std/mean of |mu_c - mu_G|
    nc2_equiangular     mean over i != j of |cos(mu_i - mu_G, mu_j - mu_G) + 1/(C-1)|
    nc2_gram            |H^T H/|H^T H| - M/sqrt(C-1)|
    etf_distance        `simplex_etf_distance` of the class means
    nc3                 |W^T/|W| - H/|H||^2
    nc3_gram            |W H/|W H| - M/sqrt(C-1)|
    nc4                 share of samples that the classifier and the nearest class mean put in different classes
    weight_equinorm     as nc2_equinorm, on the rows of W
    weight_equiangular  as nc2_equiangular, on the rows of W
    bias_collapse       |W mu_G + b|
    numerical_rank      mean over classes of (nuclear/Frobenius norm)^2 of the class's features, not centred
    cosine_margin       mean of cos(h - mu_G, w_y - w) - max_{c != y} cos(h - mu_G, w_c - w), w the mean row of W
    accuracy            share of samples that the classifier puts in their class
    nc5                 mean over classes of |cos(mu_c, mu_O)|, mu_O the mean feature of samples out of distribution

    All go to 0 under collapse but numerical_rank (1), cosine_margin (C/(C-1)) and accuracy.

    For vci, a direction whose within-class variance is below rounding (d eps of the largest) counts as having that
    much, so that rank decisions cannot flip the result: where S_W is singular it is tiny but not 0. When all class
    means are equal up to rounding, nc1, nc1_quotient and cdnv are inf (nan without within-class scatter as well), vci
    1, etf_distance 2, the other comparisons of means nan. Any d >= 1 is measured; d < C-1 just keeps the ETF metrics
    away from 0.

    features (N, d) floating, of an evaluation-mode network; targets (N,) integers 0..C-1; weight (C, d) and bias (C,),
    zeros when left out; ood (M, d), the features of samples of no class. Without weight, C is the largest label plus
    one and the keys that need a classifier are absent, without ood nc5.
    O(N d (d + C) + d^3) time. Raises TypeError for wrong dtypes, ValueError for wrong shapes, NaN or inf, fewer than
    two classes, labels out of range, no samples, or a class with no sample.
    Source: Papyan, Han, Donoho 2020, arXiv 2008.08186 (NC1 to NC4); Galanti, Gyorgy, Hutter 2022, arXiv 2112.15121
    (cdnv); Xu, Liu 2023, arXiv 2306.03440 (vci); Ammar et al. 2023, arXiv 2310.06823 (nc5, with means not centred).
    """
    _check_batch(features, targets)
    if weight is None:
        num_classes = _count_classes(targets)
    elif check_floating("weight", weight, 2).shape[1] != features.shape[1]:
        raise ValueError(f"weight must have shape ({len(weight)}, {features.shape[1]}), got {tuple(weight.shape)}")
    else:
        num_classes = len(weight)
    state = NeuralCollapse(num_classes, features.shape[1]).update(features, targets)
    if ood is not None:
        state.update_ood(ood)
    return state.compute(weight, bias, keys=keys)


class NeuralCollapse:
    """`neural_collapse` in one pass: `update` with each batch, `merge` across processes, then `compute`.

    Equal to `neural_collapse` on all samples, whatever the batches. Counts, means and scatter take O(C d + d^2) memory.
    nc4, cosine_margin and accuracy judge each sample by the final means or classifier and numerical_rank needs each
    class's spectrum; no summary of that size gives them, so every batch's features are also copied as they came (N d
    numbers of their dtype, on their device). keep_features=False stays at O(C d + d^2) and leaves those four out.

    The state lives on the device of the features (on the CPU for MPS, which lacks float64) and can be pickled. Without
    kept features it is the one float64 vector `packed`, from which another can start: it is changed in place; samples
    are the batches behind it, (features, targets), where features are kept.
    num_classes >= 2, dim >= 1. Raises ValueError for less, or a packed of another size.
    Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance" (merging centred moments).
    """

    @torch.inference_mode(False)  # or the state could not be updated outside inference mode
    def __init__(self, num_classes: int, dim: int, *, keep_features: bool = True, packed: Tensor | None = None,
                 samples: Iterable[tuple[Tensor, Tensor]] = ()):
        check_integer("num_classes", num_classes, least=2)
        check_integer("dim", dim, least=1)
        size = Moments.size(num_classes, dim)
        if packed is not None and (packed.shape, packed.dtype) != ((size,), torch.float64):
            raise ValueError(f"packed must be float64 of shape ({size},), got {packed.dtype} of {tuple(packed.shape)}")
        self.num_classes, self.dim, self.keep_features = num_classes, dim, keep_features
        self._moments = Moments(num_classes, dim, packed)
        self._kept: list[tuple[Tensor, Tensor]] = list(samples)

    @property
    def packed(self) -> Tensor:
        """The moments as one vector; `ncbook.moments.merge_packed` merges several."""
        return self._moments.packed

    @torch.inference_mode(False)
    def reset(self) -> NeuralCollapse:
        """Forget all samples and return self."""
        self._moments, self._kept = Moments(self.num_classes, self.dim), []
        return self

    @torch.inference_mode(False)
    def to(self, device: torch.device | str) -> NeuralCollapse:
        """Move the state, kept features included, and return self; `update` moves it to the device of its features."""
        self._move(torch.device(device))
        self._kept = [(features.to(device), targets.to(device)) for features, targets in self._kept]
        return self

    @torch.inference_mode(False)
    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> NeuralCollapse:
        """Add a batch and return self.

        features (n, dim) floating; targets (n,) integers 0..C-1. Raises as `neural_collapse` and leaves the state as
        it was; a batch need not hold every class.
        """
        _check_batch(features, targets)
        self._check_dim("features", features)
        device = _float64_device(features)
        targets = targets.to(device, torch.int64)
        check_labels("targets", targets, self.num_classes, features)
        if self.keep_features:
            self._kept.append((features.detach().to(device, copy=True), targets.clone()))
        self._move(device)
        # MPS lacks float64: first to the device, then to the dtype.
        self._moments.add(features.detach().to(device), targets)
        return self

    @torch.inference_mode(False)
    @torch.no_grad()
    def update_ood(self, features: Tensor) -> NeuralCollapse:
        """Add features (n, dim) of samples out of distribution, for nc5, and return self. Raises as `update`."""
        check_floating("ood", features, 2)
        self._check_dim("ood", features)
        if not len(features):
            raise ValueError("ood must hold at least one sample, got none")
        check_finite("ood", features, wait=True)
        device = _float64_device(features)
        self._move(device)
        self._moments.add_outside(features.detach().to(device))
        return self

    @torch.no_grad()
    def merge(self, other: NeuralCollapse) -> NeuralCollapse:
        """Add the samples of another state, for example of another process, and return self.

        Raises TypeError for anything but a NeuralCollapse, ValueError for different sizes or keep_features.
        """
        if not isinstance(other, NeuralCollapse):
            raise TypeError(f"other must be a NeuralCollapse, got {type(other).__name__}")
        mine, theirs = ((m.num_classes, m.dim, m.keep_features) for m in (self, other))
        if mine != theirs:
            raise ValueError(f"other must agree in (num_classes, dim, keep_features): {mine} here, {theirs} there")
        self._moments.merge(other._moments)
        self._kept = self._kept + other._kept
        return self

    @torch.no_grad()
    def compute(self, weight: Tensor | None = None, bias: Tensor | None = None, *,
                keys: Iterable[str] | None = None) -> dict[str, float]:
        """The metrics of all samples so far; see `neural_collapse`.

        weight (C, dim), bias (C,). keys: those of `METRICS` that are wanted, None for all that can be had. Raises
        TypeError and ValueError for a bad weight or bias, ValueError for an unknown key, one that needs what is not
        there, or when a class has no sample yet.
        """
        self._check_classes()
        if weight is None and bias is not None:
            raise ValueError("bias was given without weight: give both, or neither")
        if weight is not None:
            weight, bias = self._classifier(weight, bias)
        can = self.available(weight is not None)
        wanted = can if keys is None else [key for key in METRICS if key in set(keys)]
        if keys is not None and (absent := set(keys) - set(can)):
            raise ValueError(f"keys must be metrics that can be computed here, {', '.join(can)}, got {sorted(absent)}")
        with torch.autocast(self.class_means.device.type, enabled=False):
            summary = self._summary(weight, bias)
            values: dict[str, Tensor | float] = {}
            for key in wanted:
                if key not in values:
                    found = METRICS[key].compute(summary)
                    values |= found if isinstance(found, dict) else {key: found}
            numbers = [_number(key, values[key]).to(self.class_means) for key in wanted]
            return dict(zip(wanted, torch.stack(numbers).tolist(), strict=True)) if wanted else {}

    def available(self, classifier: bool) -> list[str]:
        """The keys that `compute` can give now, with or without a classifier."""
        have = {"classifier": classifier, "samples": self.keep_features, "ood": bool(self._moments.outside_count)}
        if wrong := [key for key, metric in METRICS.items() if getattr(metric, "key", None) != key]:
            raise TypeError(f"METRICS[{wrong[0]!r}] must be a Metric of that key, got {METRICS[wrong[0]]!r}")
        return [key for key, metric in METRICS.items() if all(have[need] for need in metric.needs)]

    @property
    def class_means(self) -> Tensor:
        """The class means (C, dim) so far, float64; zeros for a class without a sample."""
        return self._moments.mean

    def spectrum(self) -> Tensor:
        """The eigenvalues (min(dim, C-1),) of S_B, descending."""
        self._check_classes()
        values = torch.linalg.svdvals(self._summary(None, None).between).square() / self.num_classes
        return values[: min(self.dim, self.num_classes - 1)]

    def _summary(self, weight: Tensor | None, bias: Tensor | None) -> Summary:
        moments = self._moments
        global_mean = moments.mean.mean(0)
        between = moments.mean - global_mean
        rounding = torch.finfo(torch.float64).eps * max(between.shape) * torch.linalg.vector_norm(moments.mean)
        between = between * (torch.linalg.vector_norm(between) > rounding)
        return Summary(moments.count.long(), moments.mean, moments.variation, moments.scatter, global_mean, between,
                       rounding, weight, bias, self._kept, moments.outside_mean)

    def _move(self, device: torch.device) -> None:
        self._moments.packed = self._moments.packed.to(device)

    def _check_dim(self, name: str, features: Tensor) -> None:
        if features.shape[1] != self.dim:
            raise ValueError(f"{name} must have {self.dim} columns, got shape {tuple(features.shape)}")

    def _check_classes(self) -> None:
        if not self._moments.packed.sum().isfinite():
            raise ValueError("features must be so small that the sums of their squares are finite")
        missing = (self._moments.count == 0).nonzero().flatten().tolist()
        if len(missing) == self.num_classes:
            raise ValueError("features: no samples so far, call update first")
        if missing:
            raise ValueError(_no_sample(missing, self.num_classes))

    def _classifier(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        check_floating("weight", weight, 2)
        bias = check_floating("bias", weight.new_zeros(self.num_classes) if bias is None else bias, 1)
        shapes = (self.num_classes, self.dim), (self.num_classes,)
        for name, value, shape in zip(("weight", "bias"), (weight, bias), shapes, strict=True):
            if value.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
            check_finite(name, value, wait=True)
        device = self.class_means.device
        return weight.to(device).to(torch.float64), bias.to(device).to(torch.float64)


def _number(key: str, value: Any) -> Tensor:
    number = torch.as_tensor(value)
    if number.numel() != 1:
        raise ValueError(f"metric {key!r} must be a number, got one of shape {tuple(number.shape)}")
    return number.reshape(())


def _one(num_classes: int) -> float:
    return 1.0


_W, _X = ("classifier",), ("classifier", "samples")
METRICS: dict[str, Metric] = {metric.key: metric for metric in (
    Metric("nc1", "NC1: within-class scatter", variability, short="NC1"),
    Metric("nc1_quotient", "NC1: scatter quotient", variability, short="NC1 quotient"),
    Metric("cdnv", "CDNV", variability),
    Metric("vci", "variability collapse index", variability_collapse_index, short="VCI"),
    Metric("nc2_equinorm", "NC2: unequal norms", of_means, short="NC2 norms"),
    Metric("nc2_equiangular", "NC2: unequal angles", of_means, short="NC2 angles"),
    Metric("nc2_gram", "NC2: Gram distance", of_means, short="NC2 Gram"),
    Metric("etf_distance", "ETF distance", lambda s: simplex_etf_distance(s.between), short="ETF"),
    Metric("nc3", "NC3: weights against means", duality, _W, short="NC3"),
    Metric("nc3_gram", "NC3: Gram distance", duality, _W, short="NC3 Gram"),
    Metric("nc4", "NC4: disagreement", decisions, _X, axis="linear", short="NC4", share=True),
    Metric("weight_equinorm", "weights: unequal norms", of_weight, _W),
    Metric("weight_equiangular", "weights: unequal angles", of_weight, _W),
    Metric("bias_collapse", "bias collapse", duality, _W),
    Metric("numerical_rank", "numerical rank", mean_numerical_rank, ("samples",), _one, axis="linear"),
    Metric("cosine_margin", "cosine margin", decisions, _X, lambda c: c / (c - 1), "up", "linear"),
    Metric("accuracy", "accuracy", decisions, _X, _one, "up", "linear", share=True),
    Metric("nc5", "NC5: out-of-distribution angle", orthogonality, ("ood",), axis="linear", short="NC5"),
)}


def _float64_device(features: Tensor) -> torch.device:
    return torch.device("cpu") if features.device.type == "mps" else features.device


def _check_batch(features: Tensor, targets: Tensor) -> None:
    check_floating("features", features, 2)
    if not isinstance(targets, Tensor) or targets.dtype not in _LABEL_DTYPES:
        given = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets must be an integer tensor of class labels, got {given}")
    if targets.shape != features.shape[:1]:
        raise ValueError(f"targets must have shape ({len(features)},), one label for each row of features, "
                         f"got {tuple(targets.shape)}")
    if features.numel() == 0:
        raise ValueError(f"features must hold at least one sample and one dimension, got shape {tuple(features.shape)}")


def _count_classes(targets: Tensor) -> int:
    present = targets.unique().tolist()
    if present[0] < 0:
        raise ValueError(f"targets must be labels 0, 1, ..., got {present[0]}")
    if present == [0]:
        raise ValueError("targets must hold at least two classes, got only class 0")
    if present[-1] >= len(present):  # before memory is set aside for that many classes
        missing = sorted(set(range(len(present))) - set(present))
        raise ValueError(_no_sample(missing, present[-1] + 1))
    return len(present)


def _no_sample(missing: list[int], num_classes: int) -> str:
    named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return f"targets hold no sample of class {named}, but each of the {num_classes} classes needs at least one"
