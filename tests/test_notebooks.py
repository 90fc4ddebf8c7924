"""The committed notebooks: each says what its text says, was executed, and holds nothing of one machine or one run."""

import base64
import io
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from ncbook import book, simplex_etf_distance

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = sorted((ROOT / "notebooks").glob(f"{build_book.CHAPTER_GLOB}.py"))

HEADER = """\
# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

"""
CHAPTER = """\
# %% [markdown]
# # A figure and a slider

# %%
import ipywidgets
import plotly.graph_objects as go
from pathlib import Path

print(Path.cwd().name, object())

# %%
figure = go.Figure(go.Scatter(y=[1, 2, 3]))
figure.show()

# %% jupyter={"source_hidden": true}
ipywidgets.IntSlider(3)

# %%
go.FigureWidget(figure)

# %%
Path.home() / "data"

# %%
"""


def cells(notebook):
    return [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]


def executed(source="1 + 1", **changes):
    """A notebook of one executed cell that has no problem, but for the changes to the cell."""
    cell = new_code_cell(source, execution_count=1) | changes
    kernel = {"name": "python3", "display_name": "Python 3"}
    return new_notebook(cells=[nbformat.from_dict(cell)], metadata={"kernelspec": kernel})


def listing_faults(notebook):
    """The cells that list code without naming it, or other code than the package now has."""
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        named = [output for output in cell.outputs if "ncbook" in output.get("metadata", {})]
        if "getsource" in cell.source or len(named) != cell.source.count("show_code("):
            yield f"a listing that names no source: {cell.source}"
        for output in named:
            names, part = output.metadata["ncbook"]["source"], output.metadata["ncbook"].get("part")
            if output.data["text/plain"] != book.source(*map(pkgutil.resolve_name, names), part=part):
                yield f"not the present source of {names}"


def size(path):
    """Words of the text but its references, and lines of code in sight and folded."""
    notebook, words, lines = build_book.read_chapter(path), 0, {True: 0, False: 0}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            words += len(cell.source.split("## References")[0].split())
        else:
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            lines[folded] += sum(not re.match(r"\s*(#|$)", line) for line in cell.source.splitlines())
    return words, lines[False], lines[True]


def citations(path):
    """Link -> what is cited by it, up to the link, in the References of a chapter."""
    text = "\n".join(cell.source for cell in build_book.read_chapter(path).cells)
    items = re.findall(r"^- (?:.+\n?)(?:  .+\n?)*", text.partition("## References")[2], re.MULTILINE)
    flat = [" ".join(item.split()) for item in items]
    return {link[1]: item[:link.end()] for item in flat if (link := re.search(r"\]\((https://[^)]+)\)", item))}


def run_build(path):
    environment = os.environ | {"NCBOOK_PROFILE": "quick", "OMP_NUM_THREADS": "1"}  # small networks: faster so
    command = [sys.executable, build_book.__file__, str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_every_text_has_its_notebook():
    assert TEXTS
    assert [path.stem for path in TEXTS] == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_its_text_executed(path):
    notebook = nbformat.read(path, as_version=4)
    text = build_book.read_chapter(path.with_suffix(".py"))
    assert cells(notebook) == cells(text), f"older than its text: make book CHAPTERS={path.stem}"
    assert notebook.metadata == text.metadata
    assert build_book.problems(notebook, path.stat().st_size) == []
    shown = "".join(str(output.get("data", {}).get("text/markdown", "")) for cell in notebook.cells
                    for output in cell.get("outputs", []))
    assert "**book**" in shown, f"built in another profile than book: make book CHAPTERS={path.stem}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_listings_are_the_present_source(path):
    assert list(listing_faults(nbformat.read(path, as_version=4))) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_chapter_keeps_to_its_length(path):
    words, in_sight, folded = size(path)
    assert 1000 < words <= 3000 and in_sight <= 150 and folded <= 190


@pytest.mark.parametrize("path", [*TEXTS, ROOT / "notebooks" / "TEMPLATE.py"], ids=lambda path: path.stem)
def test_a_folded_cell_says_in_its_first_line_what_it_holds(path):
    folded = [cell.source for cell in build_book.read_chapter(path).cells
              if cell.metadata.get("jupyter", {}).get("source_hidden")]
    first = [source.partition("\n")[0] for source in folded]
    assert all(re.fullmatch(r"# [A-Z].{3,150}", line) for line in first) and len(set(first)) == len(first)


def test_a_source_is_cited_in_one_way():
    found = [citations(path) for path in TEXTS]
    assert sum(map(len, found)) > 40
    for link in {link for chapter in found for link in chapter}:
        assert len({chapter[link] for chapter in found if link in chapter}) == 1, link


def test_a_listing_that_has_drifted_or_names_nothing_is_found():
    metadata = {"ncbook": {"source": ["ncbook.etf:simplex_etf_distance"]}}
    for text, count in ((book.source(simplex_etf_distance), 0), ("def simplex_etf_distance(means): ...", 1)):
        listing = new_output("display_data", data={"text/plain": text}, metadata=metadata)
        assert len(list(listing_faults(executed("show_code(f)", outputs=[listing])))) == count
    for unnamed in ("show_code(f)", "Code(inspect.getsource(f))"):
        assert len(list(listing_faults(executed(unnamed)))) == 1


FIGURE = new_output("display_data", data={build_book.PLOTLY: {"data": [], "layout": {}}})
FAULTS = {
    "raised ValueError": {"outputs": [new_output("error", ename="ValueError", evalue="", traceback=[])]},
    "wrote to stderr": {"outputs": [new_output("stream", name="stderr", text="a warning")]},
    "widget": {"outputs": [new_output("display_data", data={build_book.WIDGET_VIEW: {"model_id": "1"}})]},
    "without a picture": {"outputs": [FIGURE]},
    "timings": {"metadata": {"execution": {"iopub.execute_input": "2026-01-01T00:00:00Z"}}},
    "not executed": {"execution_count": None},
    "path of one machine": {"outputs": [new_output("stream", name="stdout", text="saved to /home/me/data")]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_notebook_with_a_fault_is_found(fault):
    assert build_book.problems(executed()) == []
    (found,) = build_book.problems(executed(**FAULTS[fault]))
    assert fault in found and "cell 1" in found


def test_paths_are_looked_for_in_text_only():
    data = {build_book.SVG: "AA/tmp/AA", build_book.PLOTLY: {"x": {"bdata": "=/root/="}}}
    figure = new_output("display_data", data=data)
    assert build_book.problems(executed("# a ratio/home/made, https://a.org/work/b", outputs=[figure])) == []
    assert len(build_book.problems(executed("open('/tmp/x')"))) == 1


def test_widget_state_size_and_kernel_are_checked():
    notebook = executed()
    notebook.metadata = nbformat.from_dict({"widgets": {}, "kernelspec": {"name": "my-env"}})
    assert len(build_book.problems(notebook, build_book.MAX_BYTES + 1)) == 3


def test_kernels_run_in_this_environment_with_the_quick_profile():
    source = "import os, sys; print(sys.prefix, os.environ['NCBOOK_PROFILE'])"
    notebook = new_notebook(cells=[new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3", timeout=600, startup_timeout=600).execute()
    assert notebook.cells[0].outputs[0].text.split() == [sys.prefix, "quick"]


def test_a_built_notebook_keeps_figures_and_drops_widgets(tmp_path, chromium):
    text = tmp_path / "01_probe.py"
    text.write_text(HEADER + CHAPTER)
    result = run_build(text)
    assert result.returncode == 0, result.stderr
    built = text.with_suffix(".ipynb").read_text()
    _, printed, figure, slider, widget, home, empty = json.loads(built)["cells"]
    assert printed["outputs"][0]["text"] == [f"{tmp_path.name} <object object>\n"]
    assert figure["outputs"][0]["data"].keys() == {build_book.PLOTLY, build_book.SVG}
    assert "<path" in "".join(figure["outputs"][0]["data"][build_book.SVG])
    assert slider["metadata"] == {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    assert slider["outputs"][0]["data"] == {"text/plain": ["IntSlider(value=3)"]}
    assert widget["outputs"][0]["data"] == {"text/plain": ["FigureWidget(…)"]}
    assert "~" in home["outputs"][0]["data"]["text/plain"][0]
    assert cells(nbformat.reads(built, as_version=4)) == cells(build_book.read_chapter(text))
    assert run_build(text).returncode == 0
    assert text.with_suffix(".ipynb").read_text() == built


@pytest.mark.parametrize("points", [20, 500])
def test_pictures_are_sharp_small_and_the_same_again(points, chromium):
    dots = {"type": "scatter", "y": [i * i % 97 for i in range(points)], "mode": "markers", "marker": {"size": 3}}
    figure = {"data": [dots], "layout": {}}
    drawn = []
    for _ in range(2):
        notebook = executed(outputs=[new_output("display_data", data={build_book.PLOTLY: figure})])
        build_book.add_pictures(notebook)
        drawn.append(notebook.cells[0].outputs[0].data[build_book.SVG])
    assert drawn[0] == drawn[1] and len(drawn[0]) <= build_book.MAX_PICTURE_BYTES
    assert 'width="700" height="450"' in drawn[0]
    if "base64," in drawn[0]:
        png = base64.b64decode(drawn[0].partition("base64,")[2].partition('"')[0])
        assert Image.open(io.BytesIO(png)).size == (1400, 900)
    assert ("base64," in drawn[0]) == (points == 500)


def test_a_chapter_made_from_the_template_is_built(tmp_path, chromium):
    text = tmp_path / "99_template.py"
    shutil.copy(ROOT / "notebooks" / "TEMPLATE.py", text)
    result = run_build(text)
    assert result.returncode == 0, result.stderr
    built = nbformat.read(text.with_suffix(".ipynb"), as_version=4)
    assert build_book.problems(built) == list(listing_faults(built)) == []
    assert sum("show_code(" in cell.source for cell in built.cells) == 1


@pytest.mark.parametrize("source", ["import warnings; warnings.warn('careful')", "raise ValueError('careful')"])
def test_a_chapter_that_warns_or_raises_is_not_built(tmp_path, source):
    text = tmp_path / "02_probe.py"
    text.write_text(f"{HEADER}# %% [markdown]\n# Text\n\n# %%\n{source}\n")
    result = run_build(text)
    assert result.returncode == 1
    assert "02_probe.py, cell 2" in result.stderr and "careful" in result.stderr
    assert not text.with_suffix(".ipynb").exists()


def test_a_chapter_without_the_header_of_a_pair_is_not_built(tmp_path):
    text = tmp_path / "03_probe.py"
    text.write_text("# %%\n1 + 1\n")
    result = run_build(text)
    assert result.returncode == 1 and "03_probe.py: its header must say" in result.stderr


def test_a_chapter_that_was_only_read_keeps_the_generic_kernel(tmp_path):
    """JupyterLab writes the name of the reader's kernel into both files of a pair, just for opening them."""
    text = tmp_path / "04_probe.py"
    text.write_text(HEADER.replace("display_name: Python 3", "display_name: Python 3 (ipykernel)").replace(
        "name: python3", "name: mine") + "# %%\n1 + 1\n")
    assert build_book.read_chapter(text).metadata["kernelspec"] == build_book.HEADER["kernelspec"]
