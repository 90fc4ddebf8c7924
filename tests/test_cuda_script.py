"""The script of make cuda, as far as it can be tried without a device: what it lets pass and what not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("cuda")


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(f"cuda_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wait_that_is_not_the_svd_fails(monkeypatch):
    run = load("run", monkeypatch)
    svd = ["etf.py:9: u, s, vh = torch.linalg.svd(a)", "code.py:1: buf = torch.ops.aten._linalg_svd.default(buf1)"]
    assert run.judge_waits({"nearest": svd, "fixed": []})["ok"]
    found = run.judge_waits({"nearest": svd, "fixed": ["heads.py:3: x.item()"]})
    assert not found["ok"] and found["unexpected"]["fixed"] == ["heads.py:3: x.item()"]


def test_a_slow_head_fails(monkeypatch):
    run = load("run", monkeypatch)
    ms = {"nn.Linear": 0.1, "SVD 512x9": 1.0} | {f"{name}{how}": 0.1 for name in run.MOST for how in ("", ", compiled")}
    assert run.judge_speed(ms | {"nearest": 4.9})["ok"]
    for name, value in (("nearest", 5.1), ("nearest, compiled", 5.1), ("fixed", 1.6)):
        found = run.judge_speed(ms | {name: value})
        assert not found["ok"] and list(found["slow"]) == [name]


def test_a_build_has_the_toolkits_headers_and_only_the_missing_ones_of_the_wheels(monkeypatch, tmp_path):
    build = load("torchph_build", monkeypatch)
    home, wheel = tmp_path / "toolkit", tmp_path / "nvidia" / "cu13"
    for file in (home / "bin/nvcc", home / "include/cuda.h", wheel / "include/cuda.h", wheel / "include/cublas.h",
                 wheel / "lib/libcudart.so.13"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    places = type("Spec", (), {"submodule_search_locations": [str(wheel.parent)]})
    monkeypatch.setattr(build, "find_spec", lambda name: places)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    with pytest.raises(RuntimeError, match=r"no nvcc in .*pip install -e '\.\[cuda\]'"):
        build.environment(tmp_path / "out")
    monkeypatch.setenv("CUDA_HOME", str(home))
    found = build.environment(tmp_path / "out")
    assert found["CUDA_HOME"] == str(home)
    assert [file.name for file in Path(found["CPATH"]).iterdir()] == ["cublas.h"]
    assert [file.name for file in Path(found["LIBRARY_PATH"]).iterdir()] == ["libcudart.so"]


def test_the_script_names_its_parts():
    done = subprocess.run([sys.executable, FOLDER / "run.py", "nonsense"], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(FOLDER.parents[1])})
    assert done.returncode == 2 and "there are the parts tests, ranks, syncs, speed, torchph" in done.stderr
