"""Build the committed notebooks from their text.

    python notebooks/build_book.py                            every chapter
    python notebooks/build_book.py notebooks/05_nearest_etf.py

Each chapter is executed (profile `book`, unless NCBOOK_PROFILE says otherwise), every plotly figure gets an SVG beside
its JSON, and what changes from run to run or belongs to one machine is taken out. A chapter that raises, writes to
stderr or ends up with a problem is not written.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent
CHAPTER_GLOB = "[0-9][0-9]_*"
MAX_BYTES = 1_000_000
SIZE = {"width": 700, "height": 450}
SCALE = 2  # pixels of a picture to one of the page
MAX_PICTURE_BYTES = 60_000
LAB_PICTURE = FOLDER / "live_lab.png"
PLOTLY = "application/vnd.plotly.v1+json"
SVG = "image/svg+xml"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
EXPLORER = re.compile(r'<div class="ncbook-explorer"[^>]*><p>.*?</p>')
EXPLORER_WIDTH, TALLEST, MAX_STILL_BYTES = 720, 1200, 36_000  # a still is kept twice
DATA_URI = re.compile(r"data:image/png;base64,[\w+/=]*")
NO_BROWSER = "The book needs Chromium or Chrome to draw its figures; on Debian: apt-get install chromium"
HEADER = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|tmp|work|Users)/|[A-Z]:\\Users")
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


def read_chapter(path):
    """The notebook in a py:percent file, with the metadata and the cell ids that every build gives it.

    A cell marked jupyter={"source_hidden": true} is folded in JupyterLab; here it gets the tag by which sites fold it.
    """
    notebook = jupytext.read(path)
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    notebook.metadata.pop("language_info", None)
    notebook.metadata["kernelspec"] = HEADER["kernelspec"]  # JupyterLab writes the reader's own, just for reading
    if notebook.metadata != HEADER:
        # JupyterLab would not open a pair whose .ipynb is newer and whose headers differ.
        sys.exit(f"{path.name}: its header must say {HEADER} and nothing else, not {dict(notebook.metadata)}")
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.nbformat_minor = 5
    seen = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        cell.id = f"{digest}-{seen[digest]}" if seen[digest] else digest
        seen[digest] += 1
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
    return notebook


def execute(notebook, path):
    """Run the cells in place; exit naming the chapter and the cell if one raises or writes to stderr."""
    header = dict(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        failed = [i for i, output in numbered_outputs(notebook) if output.output_type == "error"]
        sys.exit(f"{path.name}, cell {failed[-1]}: {error}")
    notebook.metadata = nbformat.from_dict(header)
    for i, output in numbered_outputs(notebook):
        if output.output_type == "stream" and output.name == "stderr":
            sys.exit(f"{path.name}, cell {i} wrote to stderr:\n{output.text}")


def numbered_outputs(notebook):
    """Pairs (cell number, output); cells count from 1, text cells included."""
    for i, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            yield i, output


def clean(notebook):
    """Take out of the outputs what a reader cannot use and what differs between two machines or two runs."""
    for _, output in numbered_outputs(notebook):
        if "text" in output:
            output.text = portable(output.text)
        data = output.get("data", {})
        for mime in [m for m in data if m.startswith("text/")]:
            data[mime] = portable(data[mime])
        if data.pop(WIDGET_VIEW, None) is not None and "\n" in data.get("text/plain", ""):
            # A FigureWidget prints all its data and an id that is new each time.
            data["text/plain"] = data["text/plain"].partition("(")[0] + "(…)"


def portable(text):
    """The text without memory addresses, and with the project's and the user's folders as `.` and `~`."""
    text = MEMORY_ADDRESS.sub("", text).replace(str(FOLDER.parent), ".")
    return text.replace(str(Path.home()), "~")


def add_pictures(notebook):
    """Put an SVG beside the JSON of every plotly figure, all drawn by one browser, and stills of explorers and labs."""
    outputs = [output for _, output in numbered_outputs(notebook)]
    for output in (output for cell in notebook.cells if "LiveLab()" in cell.source for output in cell.get("outputs", [])):
        if output.get("data", {}).get("text/plain", "").startswith("LiveLab"):
            output.data["image/png"] = base64.b64encode(LAB_PICTURE.read_bytes()).decode()
    add_stills([output for output in outputs if is_explorer(output)])
    figures = [output for output in outputs if PLOTLY in output.get("data", {})]
    if not figures:
        return
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    try:
        # Without MathJax, which is fetched from the network: figures use Unicode for their mathematics.
        kaleido.start_sync_server(n=1, mathjax=False)
        for output in figures:
            output.data[SVG] = draw(output.data[PLOTLY])
        kaleido.stop_sync_server()
    except ChromeNotFoundError:
        sys.exit(NO_BROWSER)


def is_explorer(output):
    """Whether an output is a page's own script (`ncbook.live.explorers`), which may not run in every page."""
    return EXPLORER.search(output.get("data", {}).get("text/html", "")) is not None


def add_stills(explorers):
    """Put a picture of how it opens into each explorer, for readers of untrusted notebooks, and beside it, for PDF."""
    for output in explorers:
        png = base64.b64encode(still(output.data["text/html"])).decode()
        picture = f'<img width="{EXPLORER_WIDTH}" alt="how the explorer opens" src="data:image/png;base64,{png}">'
        output.data["text/html"] = EXPLORER.sub(rf"\g<0>{picture}", output.data["text/html"])
        output.data["image/png"] = png
        output.metadata["image/png"] = {"width": EXPLORER_WIDTH}


def still(page):
    """An explorer as a PNG, without its legend and what is empty below."""
    from choreographer.browsers.chromium import Chromium
    from PIL import Image, ImageOps

    browser = Chromium.find_browser(skip_local=False) or sys.exit(NO_BROWSER)
    with tempfile.TemporaryDirectory() as folder:
        html, png = Path(folder) / "page.html", Path(folder) / "page.png"
        page = page.replace(" data-explorer=", " data-still data-explorer=")
        html.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin: 0">{page}', encoding="utf-8")
        subprocess.run([browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
                        f"--force-device-scale-factor={SCALE}", f"--window-size={EXPLORER_WIDTH},{TALLEST}",
                        f"--screenshot={png}", html.as_uri()], check=True, capture_output=True, timeout=120)
        image = Image.open(png).convert("RGB")
    bottom = ImageOps.invert(image).getbbox()[3]
    return few_colours(image.crop((0, 0, image.width, min(bottom + 8 * SCALE, image.height))), MAX_STILL_BYTES)


def draw(figure):
    """A plotly figure, given as its JSON, as an SVG: its lines, or where they are too many a PNG of twice the size.

    No PNG by itself: JupyterLab would show that in place of the figure, and at its own size.
    """
    import kaleido
    from PIL import Image

    named = figure | {"data": [trace | {"uid": f"{i:06x}"} for i, trace in enumerate(figure["data"])]}
    layout = figure.get("layout", {})
    size = {side: round(layout.get(side) or default) for side, default in SIZE.items()}
    svg = kaleido.calc_fig_sync(named, opts={"format": "svg", **size}).decode()
    if (drawn := re.search(r'id="defs-([0-9a-f]{6})"', svg)) is not None:  # at random; unlike on one page, like in builds
        svg = svg.replace(drawn[1], hashlib.sha256(svg.replace(drawn[1], "").encode()).hexdigest()[:6])
    if len(svg.encode()) <= MAX_PICTURE_BYTES:
        return svg
    drawn = Image.open(io.BytesIO(kaleido.calc_fig_sync(named, opts={"format": "png", "scale": SCALE, **size})))
    png = few_colours(drawn.convert("RGB"), 0.74 * MAX_PICTURE_BYTES)  # base64 takes four characters for three bytes
    sides = " ".join(f'{side}="{length}"' for side, length in size.items())
    wrapped = (f'<svg xmlns="http://www.w3.org/2000/svg" {sides}><image {sides} '
               f'href="data:image/png;base64,{base64.b64encode(png).decode()}"/></svg>')
    return min(svg, wrapped, key=len)


def few_colours(image, most):
    """An RGB image as a PNG of as many colours, at most 256, as `most` bytes allow."""
    from PIL import Image

    for colours in (256, 128, 64, 32, 16):
        small = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        if small.tell() <= most:
            break
    return small.getvalue()


def strings(value):
    """Every string inside JSON, without images and plotly's base64 arrays."""
    if isinstance(value, str):
        yield DATA_URI.sub("", value)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "bdata" and not key.startswith("image/"):
                yield from strings(item)


def problems(notebook, size=0):
    """What keeps an executed notebook of `size` bytes from being committed: a list, empty when it is fine."""
    found = []
    if size > MAX_BYTES:
        found.append(f"the file has {size:,} bytes, more than {MAX_BYTES:,}")
    if "widgets" in notebook.metadata:
        found.append("the metadata holds widget state")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not the generic python3")
    count = 0
    for i, cell in enumerate(notebook.cells, start=1):
        if any(MACHINE_PATH.search(text) for text in strings([cell.source, cell.get("outputs", [])])):
            found.append(f"cell {i} shows a path of one machine")
        if cell.cell_type != "code":
            continue
        if "execution" in cell.metadata:
            found.append(f"cell {i} holds execution timings")
        if cell.source.strip():
            count += 1
            if cell.execution_count != count:
                found.append(f"cell {i} was not executed in order")
        found += [f"cell {i} {fault}" for output in cell.outputs for fault in faults(output)]
    return found


def faults(output):
    """What is wrong with one output of a cell."""
    data = output.get("data", {})
    if output.output_type == "error":
        yield f"raised {output.ename}"
    if output.get("name") == "stderr":
        yield "wrote to stderr"
    if WIDGET_VIEW in data:
        yield "shows a widget that has no kernel"
    if PLOTLY in data and SVG not in data or is_explorer(output) and "image/png" not in data:
        yield "has a figure without a picture"


def build(path):
    """Execute one chapter and write its .ipynb beside it."""
    print(f"{path.name} …", flush=True)
    notebook = read_chapter(path)
    execute(notebook, path)
    clean(notebook)
    add_pictures(notebook)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    if found := problems(notebook, len(text.encode())):
        sys.exit(f"{path.name}: " + "; ".join(found))
    path.with_suffix(".ipynb").write_text(text, encoding="utf-8")
    print(f"{path.stem}.ipynb: {len(notebook.cells)} cells, {len(text.encode()):,} bytes", flush=True)


def main(arguments):
    parser = argparse.ArgumentParser(description="Build the committed notebooks from their text.")
    parser.add_argument("chapters", nargs="*", help="files or names of chapters; all without one")
    named = [Path(name) for name in parser.parse_args(arguments).chapters]
    paths = [path.resolve() if path.suffix else FOLDER / f"{path.name}.py" for path in named]
    if absent := [path.name for path in paths if not path.exists()]:
        parser.error(f"there is no chapter {', '.join(absent)}")
    if os.environ.setdefault("NCBOOK_PROFILE", "book") != "book":
        print("NCBOOK_PROFILE is not book: what is built so is not to be committed", flush=True)
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    os.environ["PYTHONHASHSEED"] = "0"
    for path in paths or sorted(FOLDER.glob(f"{CHAPTER_GLOB}.py")):
        build(path)


if __name__ == "__main__":
    main(sys.argv[1:])
