"""What two ranks must find together, each check against one process with the joint batch. Run by test_distributed.py:

    python -m torch.distributed.run --nproc-per-node 2 tests/ranks.py RESULTS [CHECK ...]
"""

import copy
import datetime
import json
import sys
import traceback
import warnings
from contextlib import ExitStack, nullcontext
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ncbook import ClassMeanAverage, FixedETFHead, NearestETFHead, NeuralCollapse
from ncbook.buffers import sum_over_ranks
from ncbook.monitor import measure_layers
from ncbook.torchmetric import CollapseMetric

DIM, CLASSES, SIZE = 12, 5, 20
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


class Network(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        torch.manual_seed(0)
        sizes = (8, 600, 300, DIM)  # more than one of DistributedDataParallel's buckets
        layers = [(torch.nn.Linear(*pair), torch.nn.ReLU()) for pair in zip(sizes, sizes[1:], strict=False)]
        self.body, self.head = torch.nn.Sequential(*sum(layers, ())), head

    def forward(self, x, targets=None):
        return self.head(self.body(x), targets)


class Recomputed(Network):
    def forward(self, x, targets=None):
        return checkpoint(super().forward, x, targets, use_reentrant=False)


def batch(seed, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(size, 8, generator=generator, dtype=DTYPE).to(DEVICE),
            torch.randint(CLASSES, (size,), generator=generator).to(DEVICE))


def close(a, b, tolerance=1e-6):
    error = float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
    assert error < tolerance, f"relative difference {error}"


def assert_same_training(make_head=NearestETFHead, cuts=(10,), network=Network, wrap=lambda model: model,
                         wrap_ddp=lambda ddp: ddp, sort=False, micro=1):
    """Steps under DistributedDataParallel against steps of one process: gradients, buffers, evaluation."""
    alone, ours = (network(make_head(DIM, CLASSES, process_group=group)).to(DEVICE, DTYPE) for group in (False, None))
    ddp = DistributedDataParallel(wrap(ours), bucket_cap_mb=1)
    model = wrap_ddp(ddp)
    for step in range(4):
        alone.zero_grad(), ours.zero_grad()
        for part in range(micro):
            x, targets = batch(10 * step + part)
            if sort:
                order = targets.argsort()
                x, targets = x[order], targets[order]
            F.cross_entropy(alone(x, targets), targets).backward()
            cut = cuts[step % len(cuts)]
            mine = slice(None, cut) if RANK == 0 else slice(cut, None)
            x, targets = x[mine], targets[mine]
            share = len(x) / SIZE
            with ddp.no_sync() if part < micro - 1 else nullcontext():
                (F.cross_entropy(model(x, targets), targets) * share * 2).backward()
        for a, b in zip(ours.parameters(), alone.parameters(), strict=True):
            close(a.grad, b.grad)
        for a, b in zip(ours.head.buffers(), alone.head.buffers(), strict=True):
            close(a.double(), b.double())
        with torch.no_grad():
            for a, b in zip(ours.parameters(), alone.parameters(), strict=True):
                b -= 0.1 * b.grad
                a.copy_(b)
    x, _ = batch(99)
    close(ours.eval()(x), alone.eval()(x))


@check
def equal_shares():
    assert_same_training()


@check
def classes_sorted_over_ranks():
    assert_same_training(sort=True)


@check
def unequal_shares():
    assert_same_training(cuts=(4, 17, 1, 10), sort=True)


@check
def accumulation_without_sync():
    assert_same_training(micro=3)


@check
def cumulative_average():
    assert_same_training(lambda *sizes, **options: NearestETFHead(*sizes, method="cma", **options), sort=True)


@check
def centred_fixed_head():
    assert_same_training(lambda *sizes, **options: FixedETFHead(*sizes, centred=True, **options), cuts=(3, 10))


@check
def activation_checkpointing():
    assert_same_training(network=Recomputed)


@check
def ddp_of_compiled():
    assert_same_training(wrap=lambda model: torch.compile(model, backend="aot_eager", fullgraph=True))


@check
def compiled_ddp():
    assert_same_training(wrap_ddp=lambda ddp: torch.compile(ddp, backend="aot_eager"))


@check
def a_share_may_be_empty():
    average, alone = ClassMeanAverage(CLASSES, 8), ClassMeanAverage(CLASSES, 8, process_group=False)
    average.to(DEVICE, DTYPE), alone.to(DEVICE, DTYPE)
    x, targets = batch(0)
    alone(x, targets)
    n = SIZE * RANK
    average(x[:n], targets[:n])
    close(average.mean, alone.mean)
    empty = x[:0], targets[:0]
    if DEVICE == "cpu":
        assert_raises(lambda: average(*empty), "empty batch")


def assert_raises(call, message):
    try:
        call()
    except ValueError as error:
        assert message in str(error), str(error)
    else:
        raise AssertionError(f"no error with {message!r}")


@check
def a_bad_batch_on_one_rank_enters_nowhere():
    head = NearestETFHead(8, CLASSES).to(DEVICE, DTYPE)
    head(*batch(0))
    state = copy.deepcopy(head.state_dict())
    for bad, message in ((torch.nan, "features must be finite"), (torch.inf, "features must be finite"),
                         (None, f"0..{CLASSES - 1}")):
        x, targets = batch(1)
        if RANK == 1:
            if bad is None:
                targets[3] = CLASSES
            else:
                x[3, 2] = bad
        if DEVICE == "cpu":
            assert_raises(lambda x=x, targets=targets: head(x, targets), message)
            assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())
        else:
            head(x, targets)
            assert all(torch.equal(head.state_dict()[name], state[name]) for name in state if "averages" in name)


@check
def evaluation_and_calls_without_targets_do_not_wait_for_others():
    heads = [NearestETFHead(8, CLASSES).to(DEVICE, DTYPE), FixedETFHead(8, CLASSES, centred=True).to(DEVICE, DTYPE)]
    x, targets = batch(RANK)
    for head in heads:
        head(x, targets)
    if RANK == 0:
        heads[0].refit()
        for head in heads:
            head(x)
            head.eval()(x, targets)


@check
def groups():
    x, targets = batch(RANK)
    own, joint, narrowed = (NearestETFHead(8, CLASSES, process_group=group).to(DEVICE, DTYPE)
                            for group in (False, None, [dist.new_group([rank]) for rank in (0, 1)][RANK]))
    for head in (own, joint, narrowed, copy.deepcopy(narrowed)):
        head(x, targets)
    close(narrowed.weight, own.weight)
    part = x.clone().requires_grad_()
    (total,) = sum_over_ranks([part], narrowed.averages.process_group)
    total.sum().backward()
    assert torch.equal(total, x) and torch.equal(part.grad, torch.ones_like(x))
    assert (joint.weight - own.weight).abs().max() > 0.01


@check
def metrics():
    whole, mine = NeuralCollapse(CLASSES, 8), NeuralCollapse(CLASSES, 8)
    x, targets = (part.cpu() for part in batch(0, 60))
    whole.update(x, targets)
    mine.update(x[RANK::2], targets[RANK::2])
    states = [None, None]
    dist.all_gather_object(states, mine)
    expected = whole.compute()
    for key, value in states[0].merge(states[1]).compute().items():
        assert abs(value - expected[key]) <= 1e-6 * abs(expected[key]), key


def collapsed(size=60):
    """Nearly collapsed features far from the origin, and labels."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.arange(size) % CLASSES
    means = torch.randn(CLASSES, 8, generator=generator, dtype=torch.float64)
    return 1e3 + means[targets] + 1e-6 * torch.randn(size, 8, generator=generator, dtype=torch.float64), targets


def assert_same_values(got, expected, tolerance=1e-9):
    assert list(got) == list(expected)
    for key, value in expected.items():
        assert abs(float(got[key]) - value) <= tolerance * abs(value), f"{key}: {float(got[key])}, {value}"


@check
def torchmetric_equals_one_process():
    x, targets = collapsed()
    metric, expected = CollapseMetric(CLASSES, 8).to(DEVICE), NeuralCollapse(CLASSES, 8, keep_features=False)
    assert_same_values(metric_of_shares(metric, x, targets), expected.update(x, targets).compute())
    with torch.inference_mode():
        metric.reset()
    assert_same_values(metric_of_shares(metric, x, targets), expected.compute())


def metric_of_shares(metric, x, targets):
    for part in torch.arange(RANK, len(x), 2).split(7):
        metric.update(x[part].to(DEVICE), targets[part].to(DEVICE))
    return metric.compute()


@check
def torchmetric_keeps_features_and_a_share_may_be_empty():
    x, targets = (part.float() if part.is_floating_point() else part for part in collapsed())
    weight, expected = torch.nn.Linear(8, CLASSES).to(DEVICE), NeuralCollapse(CLASSES, 8)
    metric = CollapseMetric(CLASSES, 8, classifier=weight, keep_features=True).to(DEVICE)
    if RANK == 0:
        metric.update(x.to(DEVICE), targets.to(DEVICE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was no update
        assert_same_values(metric.compute(), expected.update(x, targets).compute(weight.weight, weight.bias))
    assert len(metric.targets) == (RANK == 0)


@check
def monitor_of_a_split_loader():
    x, targets = collapsed()
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, CLASSES)).to(DEVICE, DTYPE)
    for parameter in model.parameters():
        dist.broadcast(parameter.data, 0)
    batches = list(zip(x.split(12), targets.split(12), strict=True))
    with patch("ncbook.monitor.spread", return_value=False):
        expected = measure_layers(model, batches, ["0"])
    got = measure_layers(DistributedDataParallel(model), batches[RANK::2], ["0"])
    assert list(got) == list(expected) == ["0", "2"]
    for name, row in expected.items():
        assert_same_values(got[name], row)
    alone = measure_layers(model, batches if RANK == 1 else [], ["0"])
    assert_same_values(alone["2"], expected["2"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    backend = "nccl" if torch.cuda.device_count() > 1 else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=60))
    RANK, DTYPE = dist.get_rank(), torch.float64
    DEVICE = f"cuda:{RANK}" if backend == "nccl" else "cpu"
    results = {}
    with ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        if backend == "nccl":
            torch.cuda.set_device(RANK)
        for name in sys.argv[2:] or CHECKS:
            try:
                CHECKS[name]()
                results[name] = ""
            except Exception:
                results[name] = traceback.format_exc()
            with open(f"{sys.argv[1]}.{RANK}", "w") as file:
                json.dump(results, file)
            dist.barrier()
