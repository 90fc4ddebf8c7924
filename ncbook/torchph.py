"""The optional backend torchph: Hofer's CUDA package finds the spanning trees, one cloud at a time."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

_TORCHPH_UNUSABLE = (
    'backend="torchph" cannot be used here: {reason}. Note that the package called torchph on the package index '
    "(0.1.1) is a fork without its C++/CUDA sources: it imports, but can never compile and so never works. Put a clone "
    "of github.com/c-hofer/torchph on sys.path instead, on a machine with CUDA, nvcc and the CUDA math headers. "
    'The built-in backend (backend="auto") gives the same death times and gradients and needs none of it.'
)


def torchph_deaths(ranks: Tensor) -> Tensor:
    """The H0 deaths of distance matrices whose entries are ranks, counted from 1: (b, n, n) -> (b, n - 1).

    Ranks do not tie and none is zero, so that torchph drops no bar and a death names its edge; they are exact in its
    float32 up to n = 5,793. Raises RuntimeError where torchph does not work.
    """
    vr_persistence = import_torchph()
    try:
        return torch.stack([vr_persistence(rank, 0, 0)[0][0][:, 1] for rank in ranks.float()])
    except Exception as error:
        hint = "" if ranks.is_cuda else f" (it takes CUDA tensors, points are on {ranks.device})"
        raise RuntimeError(_TORCHPH_UNUSABLE.format(reason=f"calling it failed with {error!r}{hint}")) from error


def import_torchph():
    """torchph's vr_persistence. Raises RuntimeError saying what is missing."""
    if not torch.cuda.is_available():
        raise RuntimeError(_TORCHPH_UNUSABLE.format(reason="torchph needs CUDA and torch finds none"))
    failures = []
    for name in ("torchph.pershom", "torchph.torchph.pershom"):  # the latter: the folder around a clone is on the path
        try:
            return importlib.import_module(name).vr_persistence
        except Exception as error:
            failures.append(f"{name}: {error!r}")
    raise RuntimeError(_TORCHPH_UNUSABLE.format(reason=f"torchph cannot be imported ({'; '.join(failures)})"))
