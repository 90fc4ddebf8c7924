"""Chapter 12 in a real JupyterLab, in headless Chromium: what a reader's hands do there.

    NCBOOK_SCREENSHOT=notebooks/live_lab.png pytest tests/browser      also renews the README's picture
"""

import os
import shutil
import time
from pathlib import Path

import jupytext
import pytest
from jupyter_page import open_lab

CHAPTER = Path(__file__).resolve().parents[2] / "notebooks" / "12_live_lab.py"


@pytest.fixture(scope="module")
def reader(tmp_path_factory, chromium):
    with open_lab(tmp_path_factory.mktemp("jupyter"), chromium, jupytext.read(CHAPTER)) as lab:
        yield lab


def test_start_moves_the_figures(reader):
    assert reader.kernel("[lab.trainer.steps, lab.error is None]") == [0, True]
    before = reader.trace("geometry features", "x")
    reader.click("Start")
    reader.wait_for(lambda: "training" in reader.status(), "training")
    reader.wait_for(lambda: reader.trace("geometry features", "x") != before, "a new picture")
    assert len(reader.trace("geometry features", "x")) == len(before) > 100


@pytest.mark.parametrize(("label", "name"), [("β", "beta"), ("weight", "densify_weight")])
def test_an_arrow_key_acts_on_the_next_steps(reader, label, name):
    reader.click("Follow schedule")
    reader.wait_for(lambda: not reader.kernel("lab.trainer.controls.manual"), "giving control back")
    handle = reader.slider(label)
    handle.focus()
    for _ in range(10):
        handle.press("ArrowRight")
    reader.wait_for(lambda: reader.kernel("lab.trainer.controls.manual"), "taking over")
    reader.wait_for(lambda: "by hand" in reader.status(), "saying so")
    handle.press("End")
    most = {"beta": 4, "densify_weight": 1}[name]
    reader.wait_for(lambda: reader.kernel(f"lab.trainer.controls.{name}") == most, "the end of the scale")
    reader.wait_for(lambda: reader.trace(f"schedule now {name}", "y") == [most], "the dot on the schedule")
    if name == "beta":
        reader.wait_for(lambda: reader.trace("bars β", "x") == [most, most], "the line in the barcode")
    handle.press("Home")
    reader.wait_for(lambda: reader.kernel(f"lab.trainer.controls.{name}") == 0, "the other end")


def test_every_panel_moves_while_it_trains(reader):
    """Each has its marks on the page all the time, and within a second they are not as they were."""
    marks = """() => ["xy", "x2y2", "x3y3", "x4y4", "x5y5", "x6y6"].map((id) =>
        [...document.querySelectorAll(`.js-plotly-plot .subplot.${id} :is(.point, .js-line)`)].map(
            (e) => e.getAttribute("d") + e.getAttribute("transform") + e.getAttribute("style")).join())"""
    before = reader.page.evaluate(marks)
    assert all(before)
    reader.wait_for(lambda: all(map(str.__ne__, before, reader.page.evaluate(marks))), "moving")
    for _ in range(10):
        time.sleep(0.1)
        assert all(reader.page.evaluate(marks))


def test_nothing_overlaps_or_is_cut_off(reader):
    faults = reader.page.evaluate("""() => {
        const lab = document.querySelector(".js-plotly-plot").closest(".widget-vbox");
        const box = (e) => e.getBoundingClientRect();
        const meets = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
        const found = [], right = document.querySelector(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook");
        const check = (items, what) => items.forEach((a, i) => items.slice(i + 1).forEach((b) => {
            if (!a.contains(b) && !b.contains(a) && meets(box(a), box(b)))
                found.push(`${what}: "${a.textContent}" and "${b.textContent}"`);
        }));
        const seen = (e) => box(e).width > 0 && box(e).height > 0;
        check([...lab.querySelectorAll(".widget-hbox > *")].filter(seen), "controls");
        check([...lab.querySelectorAll(".js-plotly-plot text")].filter((e) => seen(e) && e.textContent.trim()
            && !e.closest(".textpoint, .heatmaplayer, .hm")), "labels");
        for (const e of lab.querySelectorAll(".widget-hbox > *, .js-plotly-plot text"))
            if (box(e).right > box(right).right || (e.scrollWidth > e.clientWidth + 1 && e.matches("label")))
                found.push(`cut off: "${e.textContent}"`);
        return found;
    }""")
    assert faults == []


def test_it_looks_as_in_the_readme(reader):
    reader.click("Follow schedule")
    reader.wait_for(lambda: "following" in reader.status(), "following")
    top = reader.page.locator(".widget-vbox", has=reader.page.locator(".js-plotly-plot")).first
    top.evaluate("(e) => e.scrollIntoView({block: 'start'})")
    shot = reader.folder / "live_lab.png"
    time.sleep(1)
    reader.page.screenshot(path=shot)
    assert shot.stat().st_size > 50_000
    box = top.bounding_box()
    assert box["height"] < 800 and box["x"] + box["width"] <= 1280
    if target := os.environ.get("NCBOOK_SCREENSHOT"):
        shutil.copy(shot, target)


def test_pause_freezes_and_start_goes_on(reader):
    reader.click("Pause")
    reader.wait_for(lambda: "paused" in reader.status(), "pausing")
    steps, picture = reader.kernel("lab.trainer.steps"), reader.trace("geometry features", "x")
    time.sleep(1)
    assert reader.kernel("lab.trainer.steps") == steps and reader.trace("geometry features", "x") == picture
    reader.click("Start")
    reader.wait_for(lambda: reader.kernel("lab.trainer.steps") > steps, "going on")


def test_the_scrubber_replays(reader):
    handle = reader.slider("frame")
    handle.focus()
    handle.press("Home")
    reader.wait_for(lambda: "replay: epoch 0.00" in reader.status(), "the first frame")
    first = reader.trace("geometry features", "x")
    assert reader.trace("schedule now beta", "x") == [0]
    handle.press("End")
    reader.wait_for(lambda: reader.trace("geometry features", "x") != first, "the last frame")


def test_the_export_plays_by_itself(reader):
    reader.click("Export")
    path = reader.folder / "root" / "live_lab.html"
    reader.wait_for(lambda: path.exists() and "wrote" in reader.status(), "writing the file")
    page = reader.browser.new_page(viewport={"width": 1280, "height": 800})
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".js-plotly-plot .slider-label")
    label = page.locator(".slider-label").first
    last = label.text_content()
    page.locator(".updatemenu-button", has_text="Play").first.click()
    page.wait_for_function("(last) => document.querySelector('.slider-label').textContent !== last", arg=last)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)
    page.close()


def test_axes_fit_after_another_number_of_classes(reader):
    for k in (4, 3):
        reader.kernel(f"lab.set(classes={k})")
        reader.wait_for(lambda k=k: reader.kernel("len(lab.runs[-1].class_names)") == k, "another number of classes")
    reader.click("Step")
    reader.wait_for(lambda: "step 1;" in reader.status(), "a step")
    reader.page.wait_for_function("() => document.querySelector('.js-plotly-plot').layout.yaxis2.autorange === true")


def test_reset_starts_anew(reader):
    runs = reader.kernel("len(lab.runs)")
    reader.click("Reset")
    reader.wait_for(lambda: reader.kernel("[lab.trainer.steps, len(lab.runs)]") == [0, min(runs + 1, 8)], "a new run")
    reader.wait_for(lambda: "step 0" in reader.status(), "saying so")
    assert reader.kernel("lab.error is None")
    assert reader.kernel("len([t for t in __import__('threading').enumerate() if t.name == 'live lab'])") == 1


def test_running_the_cell_again_leaves_one_worker(reader):
    reader.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
    reader.wait_for(lambda: reader.kernel("len(lab.runs)") == 1, "a new lab")
    reader.click("Start")
    reader.wait_for(lambda: reader.kernel("lab.trainer.steps") > 5, "training")
    assert reader.kernel("len([t for t in __import__('threading').enumerate() if t.name == 'live lab'])") == 1
    reader.click("Pause")
