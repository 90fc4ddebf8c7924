"""What a head costs beside nn.Linear: alone, and in a training step of torchvision's stock ResNet-18, on one thread.

    pytest tests/benchmarks/test_head_cost.py

CPU time. The bound is on (head - Linear) / step, each timed alone: two whole steps differ by more than the head costs.
"""

import time

import pytest
import torch
import torch.nn.functional as F
import torchvision

from ncbook import FixedETFHead, LearnedHead, NearestETFHead

HEADS = {"nn.Linear": torch.nn.Linear, "cosine": lambda d, c: LearnedHead(d, c, cosine=True), "fixed": FixedETFHead,
         "nearest": NearestETFHead}
ROUNDS = {(10, 512, 128): 200, (100, 512, 128): 50, (1000, 2048, 64): 2}
timer = pytest.mark.benchmark(timer=time.process_time)


def step_of(name, num_classes, dim, size):
    head, features, targets = HEADS[name](dim, num_classes), torch.randn(size, dim), torch.arange(size) % num_classes
    arguments = () if name == "nn.Linear" else (targets,)
    ready = features.requires_grad_()

    def step():
        ready.grad = None
        F.cross_entropy(head(ready, *arguments), targets).backward()

    return step


@timer
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("sizes", ROUNDS, ids=str)
def test_head_alone(benchmark, sizes, name):
    benchmark.group = f"head and loss, forward and backward, (C, d, N) = {sizes}"
    benchmark.pedantic(step_of(name, *sizes), rounds=ROUNDS[sizes], warmup_rounds=1)


@timer
@pytest.mark.parametrize("sizes", list(ROUNDS)[:2], ids=str)
def test_bare_svd(benchmark, sizes):
    benchmark.group = f"head and loss, forward and backward, (C, d, N) = {sizes}"
    num_classes, dim, _ = sizes
    matrix = torch.randn(dim, num_classes - 1)
    benchmark.pedantic(lambda: torch.linalg.svd(matrix, full_matrices=False), rounds=ROUNDS[sizes], warmup_rounds=1)


def least(step, rounds):
    times = []
    for _ in range(rounds):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return min(times)


def test_nearest_head_adds_less_than_half_a_per_cent_to_a_step_of_resnet18():
    linear, nearest = (least(step_of(name, 10, 512, 128), 400) for name in ("nn.Linear", "nearest"))
    model = torchvision.models.resnet18(num_classes=10)
    images, targets = torch.randn(128, 3, 32, 32), torch.arange(128) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

    whole = least(step, 5)
    print(f"step {1000 * whole:.0f} ms, nn.Linear {1000 * linear:.2f} ms, nearest head {1000 * nearest:.2f} ms, "
          f"{(nearest - linear) / whole:.2%} of the step")
    assert (nearest - linear) / whole < 0.005
