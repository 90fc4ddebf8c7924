"""What `import ncbook` costs, and that training needs nothing of the book extra."""

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()
import ncbook
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "new": sorted(set(sys.modules) - before)}))
"""

TRAIN_WITHOUT_BOOK = """
from importlib.machinery import PathFinder

hidden = {"jupyterlab", "jupytext", "IPython", "ipywidgets", "anywidget", "plotly", "kaleido", "pandas"}
find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in hidden else find_spec(name, *rest)
for name in hidden:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} is not hidden")

import ncbook

snapshots = list(ncbook.train(ncbook.Recipe(dataset="digits", epochs=1, device="cpu")))
assert [snapshot.epoch for snapshot in snapshots] == [0, 1]
assert snapshots[1].train["accuracy"] > snapshots[0].train["accuracy"]
"""


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def imports():
    return [json.loads(run(MEASURE)) for _ in range(3)]


def test_import_costs_less_than_half_a_second_more_than_torch(imports):
    assert min(measured["seconds"] for measured in imports) < 0.5


def test_import_leaves_heavy_packages_alone(imports):
    heavy = {"torchvision", "sklearn", "scipy", "pymanopt", "plotly", "ipywidgets", "IPython", "pandas", "tqdm"}
    assert "ncbook" in imports[0]["new"]
    assert heavy.isdisjoint(imports[0]["new"])


def test_training_works_without_the_book_extra():
    run(TRAIN_WITHOUT_BOOK)
