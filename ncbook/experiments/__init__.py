from ncbook.experiments.runner import *
from ncbook.experiments.runner import COLUMNS, GUIDED, TABLES, Unit, main, mnist250, read_rows, run_table, run_unit, write_rows
