"""Heads on a CUDA device: what they give on the CPU, and no wait but that of the SVD."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ncbook import FixedETFHead, LearnedHead, NearestETFHead

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
HEADS = {"cosine": partial(LearnedHead, cosine=True), "fixed": FixedETFHead,
         "centred": partial(FixedETFHead, centred=True), "nearest": NearestETFHead}


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(60, 16, generator=generator), torch.randint(5, (60,), generator=generator)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_cuda_head_equals_that_of_the_cpu(name, compiled):
    cpu = HEADS[name](16, 5).double()
    cuda = copy.deepcopy(cpu).cuda()
    call = torch.compile(cuda, fullgraph=True) if compiled else cuda
    for seed in range(4):
        gradients = []
        for head, device in ((cpu, "cpu"), (call, "cuda")):
            x, targets = (part.to(device) for part in batch(seed))
            x = x.double().requires_grad_()
            F.cross_entropy(head(x, targets), targets).backward()
            gradients.append(x.grad.cpu())
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-8)
        for ours, theirs in zip(cuda.buffers(), cpu.buffers(), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["cosine", "fixed", "centred"])
def test_cuda_head_never_waits(name):
    head = HEADS[name](16, 5).cuda()
    x, targets = (part.cuda() for part in batch(0))
    head(x, targets)
    torch.cuda.set_sync_debug_mode("error")
    try:
        head(x.requires_grad_(), targets).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_bad_batch_never_enters():
    head = NearestETFHead(16, 5).cuda()
    x, targets = (part.cuda() for part in batch(0))
    head(x, targets)
    before = copy.deepcopy(head.averages.state_dict())
    x[3, 2] = torch.nan
    head(x, targets)
    assert all(torch.equal(value, before[name]) for name, value in head.averages.state_dict().items())
