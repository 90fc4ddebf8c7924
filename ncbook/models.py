"""Backbones: networks from a batch of inputs to features (N, feature_dim), which a head of `heads.py` classifies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def build_backbone(name: str, input_shape: Sequence[int], *, feature_dim: int | None = None,
                   num_samples: int | None = None) -> nn.Module:
    """A new backbone; its attribute `feature_dim` is the width of the features that it returns.

    "mlp"            any shape; three hidden layers, then a linear map (64 features)
    "small_cnn"      (c, h, w), sides of 4 or more; three convolutions, their mean over positions, a linear map (64)
    "mnist_cnn"      (c, 28, 28); the MNIST network of Hofer et al. (128)
    "cnn13"          (c, 32, 32); the 13-layer network that they train on SVHN and CIFAR-10 (128)
    "resnet18"       (c, h, w); torchvision's, with a first convolution of 3x3, stride 1, and no first max-pool (512)
    "free_features"  (), a sample's index; a free vector for each sample, the unconstrained-features model (512)

    input_shape: shape of one input, without the batch axis.
    feature_dim: width of the features; None keeps the number in brackets. "mnist_cnn", "cnn13" and "resnet18" get a
        linear map of their own features only when it is given. After a linear map comes no activation.
    num_samples: how many samples "free_features" has; no other backbone reads it.
    Raises: ValueError for an unknown name, an input_shape that the backbone doesn't take, a feature_dim or a needed
        num_samples that is not a positive integer.
    Source: Hofer et al. 2020, arXiv 2002.04805 (mnist_cnn, cnn13); He et al. 2016, arXiv 1512.03385 (resnet18);
        Mixon et al. 2020, arXiv 2011.11619 (free_features).
    """
    if name not in _BACKBONES:
        raise ValueError(f"backbone name must be one of {', '.join(_BACKBONES)}, got {name!r}")
    build, fits, accepted = _BACKBONES[name]
    input_shape = tuple(input_shape)
    if not all(side > 0 for side in input_shape) or not fits(input_shape):
        raise ValueError(f"input_shape of {name!r} must be {accepted}, not {input_shape}")
    if feature_dim is not None:
        _check_positive("feature_dim", feature_dim)
    if name == "free_features":
        _check_positive("num_samples", num_samples)
        return _free_features(num_samples, feature_dim or 512)
    layers, own_dim = build(input_shape)
    if feature_dim is None and name in ("mlp", "small_cnn"):
        feature_dim = 64
    if feature_dim is not None:
        layers.append(nn.Linear(own_dim, feature_dim))
    # A CPU step of mnist_cnn takes 20 ms in this layout and 31 ms in the default one. Inputs may have either.
    backbone = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    backbone.feature_dim = feature_dim or own_dim
    return backbone


def _check_positive(argument: str, value: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument} must be a positive integer, not {value!r}")


def _mlp(input_shape: tuple[int, ...], width: int = 128) -> tuple[list[nn.Module], int]:
    layers = [nn.Flatten()]
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


def _resnet18(input_shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return [network], 512


def _free_features(num_samples: int, feature_dim: int) -> nn.Module:
    features = nn.Embedding(num_samples, feature_dim)
    nn.init.normal_(features.weight, std=feature_dim**-0.5)
    features.feature_dim = feature_dim
    return features


_BACKBONES = {
    "mlp": (_mlp, lambda shape: len(shape) > 0, "the shape of a vector or an array, with one axis or more"),
    "small_cnn": (_small_cnn, lambda shape: len(shape) == 3 and min(shape[1:]) >= 4, "(c, h, w) with h, w >= 4"),
    "mnist_cnn": (_mnist_cnn, lambda shape: len(shape) == 3 and shape[1:] == (28, 28), "(c, 28, 28)"),
    "cnn13": (_cnn13, lambda shape: len(shape) == 3 and shape[1:] == (32, 32), "(c, 32, 32)"),
    "resnet18": (_resnet18, lambda shape: len(shape) == 3, "(c, h, w)"),
    "free_features": (_free_features, lambda shape: shape == (), "(), for inputs that are sample indices"),
}
