"""Forward and backward pass of the densification loss, one thread, beside the libraries that people use for it.

    pytest tests/benchmarks/test_persistence_speed.py

One table per size (b, n, d); the number in brackets is the ratio to the fastest. Each rival finds the H0 pairs of one
cloud at a time, from the fastest input that it takes, and the lengths of the pairs are measured with gradient.
Measured in CPU time, which on one thread is the time taken, but does not count what else a busy machine does.
"""

import time

import numpy as np
import pytest
import torch

from ncbook.persistence import densification_loss

BETA = 1.0
ROUNDS = {(8, 16, 128): 200, (16, 16, 128): 100, (32, 64, 512): 10, (1, 1000, 128): 3}


def loss_along(clouds, edges):
    lengths = [torch.linalg.vector_norm(x[e[:, 0]] - x[e[:, 1]], dim=-1) for x, e in zip(clouds, edges, strict=True)]
    return (torch.stack(lengths) - BETA).abs().sum(-1).mean()


def distance_matrices(clouds):
    return torch.cdist(clouds.detach(), clouds.detach()).numpy()


def ncbook_loss():
    return lambda clouds: densification_loss(clouds, BETA)


def gudhi_loss():
    gudhi = pytest.importorskip("gudhi")

    def edges(matrix):
        complex = gudhi.SimplexTree.create_from_array(matrix)
        complex.compute_persistence(min_persistence=-1)
        return torch.from_numpy(complex.flag_persistence_generators()[0][:, 1:].astype(np.int64))

    return lambda clouds: loss_along(clouds, map(edges, distance_matrices(clouds)))


def ripser_loss():
    ripser = pytest.importorskip("ripser").ripser

    def edges(matrix):
        # ripser names no pairs in dimension 0, so they are looked up by their length.
        deaths = ripser(matrix, distance_matrix=True, maxdim=0)["dgms"][0][:-1, 1]
        i, j = np.triu_indices(len(matrix), 1)
        order = matrix[i, j].argsort()
        found = order[np.searchsorted(matrix[i, j][order], deaths.astype(matrix.dtype))]
        return torch.from_numpy(np.stack((i[found], j[found]), -1))

    return lambda clouds: loss_along(clouds, map(edges, distance_matrices(clouds)))


def torch_topological_loss():
    vietoris_rips = pytest.importorskip("torch_topological.nn").VietorisRipsComplex(dim=0)
    return lambda clouds: sum((x[0].diagram[:, 1] - BETA).abs().sum() for x in vietoris_rips(clouds)) / len(clouds)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("make_loss", [ncbook_loss, gudhi_loss, ripser_loss, torch_topological_loss])
@pytest.mark.parametrize("shape", ROUNDS, ids=str)
def test_densification_loss_speed(benchmark, shape, make_loss):
    benchmark.group = f"(b, n, d) = {shape}"
    loss = make_loss()
    clouds = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def forward_and_backward():
        clouds.grad = None
        value = loss(clouds)
        value.backward()
        return value.item()

    value = benchmark.pedantic(forward_and_backward, rounds=ROUNDS[shape], warmup_rounds=2)
    assert value == pytest.approx(densification_loss(clouds, BETA).item(), rel=1e-4)
