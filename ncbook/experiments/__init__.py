"""The long runs behind the book's tables: what is run (`tables`) and how (`runner`, `python -m ncbook.experiments`)."""

from ncbook.experiments import claims as claims
from ncbook.experiments import comparison as comparison
from ncbook.experiments import follow_up as follow_up
from ncbook.experiments.runner import COLUMNS, git_commit, read_rows, run_table, run_unit, write_rows
from ncbook.experiments.tables import GUIDED, TABLES, Unit, mnist250, published_splits

__all__ = ["COLUMNS", "GUIDED", "TABLES", "Unit", "git_commit", "mnist250", "published_splits", "read_rows",
           "run_table", "run_unit", "write_rows"]
