"""The long runs behind the book's tables: each finished unit is kept at once in NAME.csv, a long one keeps a checkpoint
beside it, and a run that was stopped goes on with what the file lacks."""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path

from ncbook.experiments.runner import run_table
from ncbook.experiments.tables import TABLES, Unit


def main(arguments: list[str] | None = None) -> None:
    """Run a table, or some of its recipes, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m ncbook.experiments", description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="only these recipes of the table")
    parser.add_argument("--results", type=Path, default=Path("notebooks/results"), help="folder of the table's file")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: GPUs, else cores)")
    parser.add_argument("--dask", metavar="ADDRESS", help="address of a Dask scheduler to run on")
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    if not options.results.is_dir():
        parser.error(f"there is no folder {options.results}")
    table: Callable[..., list[Unit]] = TABLES[options.table]
    done = -1
    grows = "results" in inspect.signature(table).parameters  # by what its file, or another one, says
    while len(units := table(options.results) if grows else table()) > done:
        done, names = len(units), list(dict.fromkeys(unit.name for unit in units))
        if options.recipes:
            if unknown := set(options.recipes) - set(names):
                parser.error(f"unknown recipes {sorted(unknown)}: {options.table} has {names}")
            units = [unit for unit in units if unit.name in options.recipes]
        run_table(units, options.results / f"{options.table}.csv", jobs=options.jobs, dask=options.dask)


if __name__ == "__main__":
    main()
