"""A reader of the lab in a real JupyterLab: what the browser tests of the lab share."""

from contextlib import contextmanager

from jupyter_page import open_lab
from nbformat.v4 import new_code_cell, new_notebook

CELL = """
from ncbook import Recipe, SlidingSchedule
from ncbook.live import LiveLab

RECIPE = Recipe(classes=3, head="nearest", clouds=(8, 16), epochs=40, lr=0.01, schedule=SlidingSchedule(1.1, 0.1, 40))
lab = LiveLab(RECIPE)
lab
"""


@contextmanager
def open_reader(folder, chromium):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(CELL)], metadata={"kernelspec": kernel})
    with open_lab(folder, chromium, notebook) as lab:
        yield lab


def begin(reader, steps=3, scenario=None):
    """A run at the given speed, just begun."""
    before = reader.kernel("lab._count")
    if scenario:
        reader.click(scenario)
    else:
        reader.kernel("[lab.reset(RECIPE), lab.start()] and None")
    reader.wait_for(lambda: reader.kernel("lab._count") > before, "a new run")
    reader.wait_for(lambda: steps <= reader.step() < 200, "beginning")


def pause(reader):
    if reader.page.locator(".nc-play", has_text="Pause").count():
        reader.click("Pause")
    reader.wait_for(lambda: reader.page.locator(".nc-play", has_text="Play").count(), "pausing")
    reader.wait_for(lambda: reader.kernel("lab.trainer.steps") == reader.step(), "the last picture")


def unfold(reader, row):
    if reader.page.locator(".ncbook-lab button", has_text=row).get_attribute("aria-expanded") == "false":
        reader.click(row)
