"""Two processes on the loopback, by torchrun: what they check stands in ranks.py, and the script of a chapter."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("ranks.py")
CHECKS = [line.removeprefix("def ").partition("(")[0] for before, line in
          zip(RANKS.read_text().splitlines(), RANKS.read_text().splitlines()[1:], strict=False) if before == "@check"]


def torchrun(*arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
               "--master-port", str(port), *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(RANKS.parents[1])}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "results"
    done = torchrun(RANKS, path)
    found = [json.loads(file.read_text()) for file in (path.with_name(f"results.{rank}") for rank in (0, 1))
             if file.exists()]
    assert len(found) == 2, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_two_ranks_equal_one_process(results, name):
    for rank in results:
        assert rank.get(name, "was not reached") == ""


def test_the_script_of_the_chapter_on_your_own_model_ends_with_one_frame(tmp_path):
    chapter = RANKS.parents[1].joinpath("notebooks", "15_your_own_model.py").read_text()
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", chapter, re.DOTALL | re.MULTILINE)
    (script,) = [block for block in blocks if "init_process_group" in block]
    file = tmp_path / "train.py"
    file.write_text(re.sub("^# ?", "", script, flags=re.MULTILINE))
    done = torchrun(file)
    assert done.returncode == 0, done.stderr[-3000:]
    first, *rows = done.stdout.splitlines()
    assert first == "the frames of the processes differ by 0.0" and len(rows) == 2
    assert float(re.search(r"'accuracy': ([\d.]+)", rows[1])[1]) > 0.5
