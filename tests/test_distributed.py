"""Two processes on the loopback, by torchrun: what they check stands in ranks.py."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("ranks.py")
CHECKS = [line.removeprefix("def ").partition("(")[0] for before, line in
          zip(RANKS.read_text().splitlines(), RANKS.read_text().splitlines()[1:], strict=False) if before == "@check"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "results"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
               "--master-port", str(port), str(RANKS), str(path)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(RANKS.parents[1])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    found = [json.loads(file.read_text()) for file in (path.with_name(f"results.{rank}") for rank in (0, 1))
             if file.exists()]
    assert len(found) == 2, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_two_ranks_equal_one_process(results, name):
    for rank in results:
        assert rank.get(name, "was not reached") == ""
