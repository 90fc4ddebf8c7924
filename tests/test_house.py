"""How the package is built: parts below, wings above, and no import that runs back up."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import ncbook

PACKAGE = Path(ncbook.__file__).parent
# From the ground floor up; a module imports from its own floor and from those below.
FLOORS = ("parts", "training", "plots", "experiments", "live", "book")
APART = {("live", "experiments")}  # neighbours that do not know each other


def modules():
    """Dotted name -> file of each module, `ncbook.live` for the folder's __init__."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path, known):
    """The modules of the package that a file imports, wherever in the file, also for type checking alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ncbook"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)


def floor(module):
    wing = module.split(".")[1] if module.count(".") else "ncbook"
    return wing if wing in FLOORS else "parts"


GRAPH = {name: set(imports(path, modules())) - {name} for name, path in modules().items() if name != "ncbook"}


def test_there_is_no_circle_of_imports():
    assert list(TopologicalSorter(GRAPH).static_order())


def test_no_import_runs_back_up():
    up = [(name, other) for name, others in GRAPH.items() for other in others
          if other != "ncbook" and FLOORS.index(floor(other)) > FLOORS.index(floor(name))]
    across = [(name, other) for name, others in GRAPH.items() for other in others
              if (floor(name), floor(other)) in APART]
    assert up + across == []


def test_nothing_inside_imports_the_roof():
    assert [name for name, others in GRAPH.items() if "ncbook" in others] == []


def test_files_have_one_subject():
    sizes = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    sizes |= {path.name: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.js")}
    assert {name: size for name, size in sizes.items() if size > 440} == {}


def test_the_floors_are_those_of_the_package():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(FLOORS) - {"parts", "book"}
