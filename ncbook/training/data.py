"""Data sets held whole in memory as tensors, small stratified splits of them, and draws from a sample's own class."""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ncbook.checks import check_choice, check_integer


@dataclass(frozen=True)
class Dataset:
    """A classification data set as tensors.

    train_inputs (N, *input_shape), train_targets (N,) int64 in 0..C-1; the same for the test set, or None where there
    is none; class_names: C strings. Images are float32 in [0, 1] of shape (channels, height, width).
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor | None
    test_targets: Tensor | None
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.train_inputs.shape[1:])

    def to(self, device: torch.device | str) -> Dataset:
        """The data set with its tensors on `device`."""
        moved: Any = {key: value.to(device) for key, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def subset(self, indices: Sequence[int] | Tensor) -> Dataset:
        """The data set with only the training samples at `indices`, a sequence or tensor of k integers."""
        indices = torch.as_tensor(indices, device=self.train_targets.device)
        return replace(self, train_inputs=self.train_inputs[indices], train_targets=self.train_targets[indices])


def load_dataset(name: str, *, classes: int | Sequence[int] | None = None, train_size: int | None = None,
                 split: int = 0, download: bool = True) -> Dataset:
    """Load a data set by name, whole or as a small stratified split of some of its classes.

    "digits"         scikit-learn's 1,797 images of 8x8, a fixed 80/20 split into training and test set; no network
    "mnist", "fashion-mnist", "kmnist", "svhn", "cifar10", "cifar100", "stl10" (its labelled part)
                     through torchvision, in the folder NCBOOK_DATA, by default one in the user's cache
    "gaussians"      points in the plane (N, 2), two Gaussian blobs a class; 200 training and 100 test points a class
    "unconstrained"  the unconstrained-features model: the input of sample i is the integer i; no test set

    classes: None for all, k for the first k, or a tuple of labels, which become 0, 1, ... in this order.
        "gaussians" and "unconstrained" have as many as asked for: an integer, or None for 3 and 10.
    train_size: number of training samples, in the set's class proportions (a class is within one sample of its share);
        None for all, and 1,000 for "unconstrained".
    split: seed that chooses those samples.
    download: whether torchvision may fetch files that are absent.
    Raises: ValueError for an unknown name, for classes that repeat, are out of range or fewer than two, for a
        train_size out of range or so small that a class would get no sample; TypeError for classes or a train_size of
        a wrong type; RuntimeError where the files are absent and cannot be fetched.
    """
    source = DATASETS[check_choice("data set name", name, DATASETS)]
    given = {"classes": classes, "train_size": train_size, "download": download}
    data = source.load(**{option: given[option] for option in source.takes})
    if classes is not None and "classes" not in source.takes:
        data = _select_classes(data, classes)
    if train_size is not None and "train_size" not in source.takes:
        data = data.subset(_stratified(data.train_targets, data.num_classes, train_size, split))
    test_inputs = None if data.test_inputs is None else _unit_range(data.test_inputs)
    return replace(data, train_inputs=_unit_range(data.train_inputs), test_inputs=test_inputs)


class SameClassSampler:
    """Draws, for each of many anchors, further samples of the anchor's own class.

    targets: (N,) integers >= 0, the classes of the samples; draws happen on their device.
    Source: the same-class mini-batches of Hofer et al. 2020, arXiv 2002.04805.
    """

    def __init__(self, targets: Tensor):
        if targets.ndim != 1 or len(targets) == 0:
            raise ValueError(f"targets must have shape (N,) with N >= 1, not {tuple(targets.shape)}")
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise TypeError(f"targets must be integers, not {targets.dtype}")
        self.targets = targets.long()
        self.order = torch.argsort(self.targets, stable=True)
        self.counts = torch.bincount(self.targets)
        self.starts = self.counts.cumsum(0) - self.counts

    def __call__(self, anchors: Tensor, points: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample indices (..., b, points) for anchors (..., b), which are sample indices themselves.

        The first column holds the anchors, the others uniform draws with replacement from the anchor's class.
        A generator on the CPU gives the same draws on every device.
        Raises: ValueError for points < 1.
        """
        if points < 1:
            raise ValueError(f"points must be at least 1, not {points}")
        device = self.targets.device
        anchors = anchors.to(device).unsqueeze(-1)
        classes = self.targets[anchors]
        shape = (*anchors.shape[:-1], points - 1)
        uniform = torch.rand(shape, generator=generator, device=generator.device if generator else device).to(device)
        counts = self.counts[classes]
        # In float32 the product can round up to the count itself.
        draws = torch.minimum((uniform * counts).long(), counts - 1)
        return torch.cat([anchors, self.order[self.starts[classes] + draws]], dim=-1)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, targets = load_digits(return_X_y=True)
    images = torch.from_numpy(images).float().div_(16).reshape(-1, 1, 8, 8)
    train, test = train_test_split(range(len(targets)), test_size=0.2, stratify=targets, random_state=0)
    targets = torch.from_numpy(targets).long()
    return Dataset("digits", images[train], targets[train], images[test], targets[test], tuple("0123456789"))


def _gaussians(classes: int | None = None) -> Dataset:
    """Two blobs a class, at radius 1 and 2; the outer one lies behind the inner one of the next class.

    So no linear map separates the classes, while their means lie evenly spaced on a circle.
    """
    num_classes = 3 if classes is None else check_integer("classes", classes, least=2)
    generator = torch.Generator().manual_seed(0)
    step = 2 * torch.pi / num_classes
    spread = min(0.1, torch.sin(torch.tensor(step / 2)).item() / 4)

    def sample(per_class):
        targets = torch.arange(num_classes).repeat_interleave(per_class)
        outer = torch.arange(per_class).repeat(num_classes) % 2
        angles = step * (targets + outer)
        centres = (1 + outer).unsqueeze(1) * torch.stack([angles.cos(), angles.sin()], dim=1)
        return centres + spread * torch.randn(centres.shape, generator=generator), targets

    (inputs, targets), (test_inputs, test_targets) = sample(200), sample(100)
    return Dataset("gaussians", inputs, targets, test_inputs, test_targets, tuple(map(str, range(num_classes))))


def _unconstrained(classes: int | None = None, train_size: int | None = None) -> Dataset:
    num_classes = 10 if classes is None else check_integer("classes", classes, least=2)
    num_samples = 1000 if train_size is None else check_integer("train_size", train_size, least=num_classes)
    samples = torch.arange(num_samples)
    return Dataset("unconstrained", samples, samples % num_classes, None, None, tuple(map(str, range(num_classes))))


def _torchvision(name: str, download: bool = True) -> Dataset:
    """A torchvision data set with its inputs as uint8: read where its files are there, else downloaded."""
    from torchvision import datasets

    source, root = getattr(datasets, _TORCHVISION[name]), data_folder()
    by_split = name in ("svhn", "stl10")
    parts = [{"split": part} if by_split else {"train": part == "train"} for part in ("train", "test")]
    try:
        train, test = (source(root, **part) for part in parts)
    except RuntimeError as absent:
        try:
            if not download:
                raise absent
            train, test = (source(root, **part, download=True) for part in parts)
        except (OSError, RuntimeError) as error:
            reason = "could not be downloaded" if download else "download=False forbids fetching it"
            raise RuntimeError(
                f"data set {name!r} is not in {root} and {reason} ({error}). Set NCBOOK_DATA to a folder that has it, "
                "or load it once with a network connection, or use 'digits', which needs neither."
            ) from error
    class_names = tuple(label.split(" - ")[0] for label in getattr(train, "classes", "0123456789"))
    return Dataset(name, *_tensors(train), *_tensors(test), class_names)


def _tensors(part) -> tuple[Tensor, Tensor]:
    inputs = torch.as_tensor(part.data)
    if inputs.ndim == 3:
        inputs = inputs.unsqueeze(1)
    elif inputs.shape[1] != 3:
        inputs = inputs.permute(0, 3, 1, 2)
    return inputs, torch.as_tensor(part.labels if hasattr(part, "labels") else part.targets).long()


def data_folder() -> Path:
    """Where data sets are kept: NCBOOK_DATA, or ncbook in the user's cache folder."""
    if os.environ.get("NCBOOK_DATA"):
        return Path(os.environ["NCBOOK_DATA"]).expanduser()
    caches = {"win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local"), "darwin": "~/Library/Caches"}
    cache = os.environ.get("XDG_CACHE_HOME") or caches.get(sys.platform, "~/.cache")
    return Path(cache).expanduser() / "ncbook"


def _unit_range(inputs: Tensor) -> Tensor:
    return inputs.float().div_(255).contiguous() if inputs.dtype == torch.uint8 else inputs


def _select_classes(data: Dataset, classes: int | Sequence[int]) -> Dataset:
    if isinstance(classes, numbers.Integral):
        classes = range(check_integer("classes", classes, least=2))
    if not isinstance(classes, (tuple, list, range)) or not all(isinstance(c, numbers.Integral) for c in classes):
        raise TypeError(f"classes must be None, an integer or a tuple of integers, not {classes!r}")
    labels = list(classes)
    if len(labels) < 2 or len(set(labels)) < len(labels) or not set(labels) <= set(range(data.num_classes)):
        raise ValueError(f"classes must be two or more different labels of 0..{data.num_classes - 1}, not {labels}")
    new_label = torch.full((data.num_classes,), -1)
    new_label[labels] = torch.arange(len(labels))

    def select(inputs: Any, targets: Any) -> tuple[Any, Any]:
        targets = None if targets is None else new_label[targets]
        return (None, None) if targets is None else (inputs[targets >= 0], targets[targets >= 0])

    train, test = select(data.train_inputs, data.train_targets), select(data.test_inputs, data.test_targets)
    return Dataset(data.name, train[0], train[1], test[0], test[1], tuple(data.class_names[label] for label in labels))


def _stratified(targets: Tensor, num_classes: int, train_size: int, split: int) -> Tensor:
    """Indices of `train_size` samples in the proportions of the classes."""
    from sklearn.model_selection import train_test_split

    size, total = check_integer("train_size", train_size, least=2), len(targets)
    if size == total:
        return torch.arange(total)
    if not num_classes <= size <= total - num_classes:
        raise ValueError(
            f"train_size must be from {num_classes} (the number of classes) to {total - num_classes}, or all {total}, "
            f"not {size}"
        )
    chosen, _ = train_test_split(range(total), train_size=size, stratify=targets.numpy(), random_state=split)
    absent = sorted(set(range(num_classes)) - set(targets[chosen].tolist()))
    if absent:
        raise ValueError(f"train_size {size} is too small for class proportions: no sample of the classes {absent}")
    return chosen


class Source(NamedTuple):
    """Where a data set comes from. load(**options) returns a `Dataset`; takes names the options of `load_dataset` that
    it wants, the others are applied to what it returns. backbone and train_size suit it where nobody chooses."""

    load: Callable[..., Dataset]
    takes: tuple[str, ...] = ()
    backbone: str = "small_cnn"
    train_size: int | None = None


_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "svhn": "SVHN",
                "cifar10": "CIFAR10", "cifar100": "CIFAR100", "stl10": "STL10"}
DATASETS: dict[str, Source] = {
    "digits": Source(_digits),
    **{name: Source(partial(_torchvision, name), ("download",), *suits) for name, suits in zip(
        _TORCHVISION, [("mnist_cnn", 250)] * 3 + [("small_cnn", 1000)] * 4, strict=True)},
    "gaussians": Source(_gaussians, ("classes",), "mlp"),
    "unconstrained": Source(_unconstrained, ("classes", "train_size"), "free_features"),
}
