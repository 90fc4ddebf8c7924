"""One list of dependencies that is true, and the commands that the README promises."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
EXTRAS = PROJECT["optional-dependencies"]
EXTRA_OF = {"plots": "book", "live": "book", "book.py": "book", "experiments": "experiments", "monitor.py": "own",
            "torchmetric.py": "own"}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow", "IPython": "ipython"}

FAKE_PYTHON = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$1 $2" in
    "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "--version ") echo "Python 3.9.1" ;;
esac
case "$1" in -c) exit "$TOO_OLD" ;; esac
"""


def names(requirements):
    return {Requirement(line).name for line in requirements}


def imported_distributions(paths, inside_functions=True):
    """The distributions that Python files import; ours and Python's own left out."""
    roots, ours = set(), {"ncbook", "conftest", "build_book"}
    for path in paths:
        ours.add(path.stem)
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree) if inside_functions else tree.body:
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots.add(node.module.partition(".")[0])
    return {DISTRIBUTIONS.get(root, root) for root in roots - sys.stdlib_module_names - ours}


def closure(requirements):
    """Every installed distribution that the requirements pull in, lower case."""
    todo, found = [Requirement(line) for line in requirements], set()
    while todo:
        parent = todo.pop()
        if parent.name.lower() in found:
            continue
        found.add(parent.name.lower())
        for child in map(Requirement, metadata.requires(parent.name) or []):
            if not child.marker or any(child.marker.evaluate({"extra": extra}) for extra in {"", *parent.extras}):
                todo.append(child)
    return found


def test_conda_installs_the_test_extra_and_lists_nothing_itself():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_lines,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert pip_lines == ["-e .[test]"]
    assert {entry for entry in dependencies if isinstance(entry, str)} == {
        f"python{PROJECT['requires-python']}", "pip", "make"
    }


def test_core_dependencies_are_what_the_package_imports_beyond_its_extras():
    needed = set()
    for path in (ROOT / "ncbook").rglob("*.py"):
        wing = path.relative_to(ROOT / "ncbook").parts[0]
        needed |= imported_distributions([path]) - names(EXTRAS.get(EXTRA_OF.get(wing), []))
    assert needed == names(PROJECT["dependencies"])


def test_the_book_extra_covers_what_the_chapters_import():
    core = names(PROJECT["dependencies"])
    chapters = (ROOT / "notebooks").glob("[0-9][0-9]_*.py")
    # What a chapter imports inside a function it can do without.
    assert imported_distributions(chapters, inside_functions=False) <= core | names(EXTRAS["book"])
    assert imported_distributions([ROOT / "notebooks" / "build_book.py"]) <= core | names(EXTRAS["book"])


def test_the_test_extra_has_the_other_extras_and_covers_the_tests():
    (ours,) = [Requirement(line) for line in EXTRAS["test"] if line.startswith("ncbook")]
    assert ours.extras == EXTRAS.keys() - {"test", "bench", "cuda"}
    assert names(EXTRAS["test"]).isdisjoint(names(EXTRAS["book"]) | names(EXTRAS["experiments"]))
    declared = names(PROJECT["dependencies"]).union(*map(names, EXTRAS.values()))
    assert imported_distributions((ROOT / "tests").rglob("*.py")) <= declared


def test_every_file_of_the_package_is_packed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ncbook"]
    package = ROOT / "ncbook"
    packed = {path for pattern in ["**/*.py", *patterns] for path in package.glob(pattern)}
    assert {path for path in package.rglob("*.*") if "__pycache__" not in path.parts} == packed


def test_the_package_alone_does_not_fetch_jupyter():
    installed = closure(PROJECT["dependencies"])
    assert {"torch", "threadpoolctl"} <= installed
    assert installed.isdisjoint({"jupyterlab", "jupytext", "ipykernel", "ipywidgets", "plotly", "pandas", "pytest"})
    assert {"ipykernel", "tornado"} <= closure(EXTRAS["book"])


def make(folder, *arguments, too_old=0):
    shutil.copy(ROOT / "Makefile", folder)
    if not (folder / "pyproject.toml").exists():
        (folder / "pyproject.toml").touch()
    python = folder / "python3"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(folder / "log"), "TOO_OLD": str(too_old)}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@needs_make
def test_make_installs_once_and_again_when_the_dependencies_change(tmp_path):
    def installs():
        return [line for line in (tmp_path / "log").read_text().splitlines() if "pip install" in line]

    for _ in range(2):
        result = make(tmp_path, "test")
        assert result.returncode == 0, result.stderr
    assert len(installs()) == 1 and ".[test]" in installs()[0]
    assert (tmp_path / "log").read_text().count("python -m pytest") == 2
    later = (tmp_path / ".venv/.test").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    make(tmp_path, "test")
    assert len(installs()) == 2


@needs_make
def test_make_names_the_remedy_when_python_is_too_old(tmp_path):
    result = make(tmp_path, "lab", too_old=1)
    assert result.returncode != 0
    assert "3.11 or newer" in result.stderr and "Python 3.9.1" in result.stderr
    assert "PYTHON=python3.12 make lab" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_the_readme_test_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert script.read_text().rstrip().endswith("make test")
    assert "make test" in README and "make lab" in README


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_a_missing_browser_fails_in_ci_only(tmp_path, ci, outcome):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_probe.py").write_text("def test_probe(chromium):\n    assert chromium\n")
    environment = {"PATH": str(tmp_path), "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert outcome in result.stdout


def test_readme_lists_the_chapters():
    listed = re.findall(r"notebooks/(\d\d_\w+)\.ipynb\)", README)
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"))


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["parts", "model", "add"])
def test_readme_example_runs(example):
    result = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
