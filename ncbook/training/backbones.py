"""Backbones: networks from a batch of inputs to features (N, feature_dim), for a head of `ncbook.heads`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ncbook.checks import check_choice, check_integer


def build_backbone(name: str, input_shape: Sequence[int], *, feature_dim: int | None = None,
                   num_samples: int | None = None) -> nn.Module:
    """A new backbone; its attribute `feature_dim` is the width of the features that it returns.

    "mlp"            any shape; three hidden layers, then a linear map (64 features)
    "small_cnn"      (c, h, w), sides of 4 or more; three convolutions, their mean over positions, a linear map (64)
    "mnist_cnn"      (c, 28, 28); the MNIST network of Hofer et al. (128)
    "cnn13"          (c, 32, 32); the 13-layer network that they train on SVHN and CIFAR-10 (128)
    "resnet18"       (c, h, w); torchvision's, with a first convolution of 3x3, stride 1, and no first max-pool (512)
    "resnet18_7x7"   the same with torchvision's own first layers, 7x7 with stride 2 and a max-pool, of c channels (512)
    "free_features"  (), a sample's index; a free vector for each sample, the unconstrained-features model (512)

    input_shape: shape of one input, without the batch axis.
    feature_dim: width of the features; None keeps the number in brackets. "mnist_cnn", "cnn13" and both "resnet18" get
        a linear map of their own features only when it is given. After a linear map comes no activation.
    num_samples: how many samples "free_features" has; no other backbone reads it.
    Raises: ValueError for an unknown name, an input_shape that the backbone doesn't take, a feature_dim or a needed
        num_samples that is not a positive integer.
    Source: Hofer et al. 2020, arXiv 2002.04805 (mnist_cnn, cnn13); He et al. 2016, arXiv 1512.03385 (both resnet18);
        Mixon et al. 2020, arXiv 2011.11619 (free_features).
    """
    kind = BACKBONES[check_choice("backbone name", name, BACKBONES)]
    input_shape = tuple(input_shape)
    if not all(side > 0 for side in input_shape) or not kind.fits(input_shape):
        raise ValueError(f"input_shape of {name!r} must be {kind.accepted}, not {input_shape}")
    width = kind.feature_dim if feature_dim is None else check_integer("feature_dim", feature_dim, least=1)
    if kind.per_sample:
        layers, own_dim = kind.build(check_integer("num_samples", num_samples, least=1), width)
        backbone: Any = layers[0]
    else:
        layers, own_dim = kind.build(input_shape)
        if width is not None:
            layers, own_dim = [*layers, nn.Linear(own_dim, width)], width
        # A CPU step of mnist_cnn takes 20 ms in this layout and 31 ms in the default one. Inputs may have either.
        backbone = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    backbone.feature_dim = own_dim
    return backbone


def _mlp(input_shape: tuple[int, ...], width: int = 128) -> tuple[list[nn.Module], int]:
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in in (math.prod(input_shape), width, width):
        layers += [nn.Linear(fan_in, width), nn.BatchNorm1d(width), nn.ReLU()]
    return layers, width


def _small_cnn(input_shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    layers = _convolution(input_shape[0], 24, pool=True) + _convolution(24, 48, pool=True) + _convolution(48, 80)
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], 80


def _mnist_cnn(input_shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    widths = (input_shape[0], 8, 32, 64, 128)
    layers = [layer for pair in zip(widths, widths[1:]) for layer in _convolution(*pair, pool=True)]
    return [*layers, nn.Flatten()], 128


def _cnn13(input_shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    layers, channels = [], input_shape[0]
    for width in (128, 256):
        layers += _convolution(channels, width) + _convolution(width, width) + _convolution(width, width, pool=True)
        layers.append(nn.Dropout(0.5))
        channels = width
    layers += _convolution(256, 512, padding=0) + _convolution(512, 256, kernel=1) + _convolution(256, 128, kernel=1)
    return [*layers, nn.AvgPool2d(6), nn.Flatten()], 128


def _convolution(channels: int, width: int, *, kernel: int = 3, padding: int | None = None,
                 pool: bool = False) -> list[nn.Module]:
    """Convolution, batch norm, LeakyReLU(0.1) and, if asked for, a 2x2 max-pool."""
    padding = kernel // 2 if padding is None else padding
    layers = [nn.Conv2d(channels, width, kernel, padding=padding), nn.BatchNorm2d(width)]
    if pool:
        # Before the activation, which commutes with the maximum as it increases: 4% less time a step.
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.LeakyReLU(0.1)]


def _resnet18(input_shape: tuple[int, ...], small: bool = True) -> tuple[list[nn.Module], int]:
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
    network.conv1 = nn.Conv2d(input_shape[0], 64, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if small:
        network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return [network], 512


def _free_features(num_samples: int, feature_dim: int) -> tuple[list[nn.Module], int]:
    features = nn.Embedding(num_samples, feature_dim)
    nn.init.normal_(features.weight, std=feature_dim**-0.5)
    return [features], feature_dim


class Backbone(NamedTuple):
    """How a backbone is made: build(input_shape) returns its layers and the width of what they give.

    fits(input_shape) says whether it takes such inputs, accepted the same in words. feature_dim: the width of a linear
    map after the layers, None for no map. per_sample: build takes (num_samples, feature_dim) instead.
    """

    build: Callable[..., tuple[list[nn.Module], int]]
    fits: Callable[[tuple[int, ...]], bool] = lambda shape: True
    accepted: str = "any shape"
    feature_dim: int | None = None
    per_sample: bool = False


BACKBONES: dict[str, Backbone] = {
    "mlp": Backbone(_mlp, lambda shape: len(shape) > 0, "the shape of a vector or an array, with one axis or more", 64),
    "small_cnn": Backbone(_small_cnn, lambda shape: len(shape) == 3 and min(shape[1:]) >= 4, "(c, h, w) with h, w >= 4",
                          64),
    "mnist_cnn": Backbone(_mnist_cnn, lambda shape: len(shape) == 3 and shape[1:] == (28, 28), "(c, 28, 28)"),
    "cnn13": Backbone(_cnn13, lambda shape: len(shape) == 3 and shape[1:] == (32, 32), "(c, 32, 32)"),
    "resnet18": Backbone(_resnet18, lambda shape: len(shape) == 3, "(c, h, w)"),
    "resnet18_7x7": Backbone(partial(_resnet18, small=False), lambda shape: len(shape) == 3, "(c, h, w)"),
    "free_features": Backbone(_free_features, lambda shape: shape == (), "(), for inputs that are sample indices", 512,
                              per_sample=True),
}
