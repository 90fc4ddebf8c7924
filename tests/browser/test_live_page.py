"""The lab in a real JupyterLab, in headless Chromium: what a reader's hands do there.

    NCBOOK_SCREENSHOT=notebooks/live_lab.png pytest tests/browser      also renews the README's picture
"""

import itertools
import os
import shutil
import time

import pytest
from jupyter_page import NOTEBOOK
from live_reader import begin, pause, unfold

SIZES = {  # of the browser: whether the file browser is open, and how wide the lab is at least
    (390, 844): (False, 260), (700, 700): (False, 560), (1024, 700): (True, 560), (1280, 657): (True, 800),
    (1440, 900): (True, 900), (1920, 1080): (True, 1400),
}

pytestmark = pytest.mark.usefixtures("no_error")


def test_it_opens_moving_and_slowly_enough_to_be_seen(reader):
    reader.wait_for(lambda: reader.step() > 2, "a first picture")
    assert reader.kernel("lab.trainer.steps") < 100
    picture = reader.picture()
    reader.wait_for(lambda: reader.picture() != picture, "moving")
    begun, steps = time.monotonic(), reader.kernel("lab.trainer.steps")
    time.sleep(2)
    assert 1 <= reader.kernel("lab.trainer.steps") - steps <= 11 * (time.monotonic() - begun) + 2


def test_each_panel_moves_while_it_trains(reader):
    panels = reader.page.eval_on_selector_all(".ncbook-lab section", "(all) => all.map((one) => one.dataset.panel)")
    assert {"geometry", "curves", "bars"} <= set(panels)
    before = {panel: reader.picture(panel) for panel in panels}
    reader.wait_for(lambda: all(reader.picture(name) != before[name] for name in before if name != "input"), "moving")


@pytest.mark.parametrize("name", ["beta", "densify_weight"])
def test_a_key_acts_on_the_next_steps_and_the_plan_is_marked(reader, name):
    begin(reader)
    handle, field = reader.dial(name)
    assert reader.page.locator(f"[data-dial={name}] .nc-planned").is_visible()
    handle.press("End")
    most = {"beta": 4, "densify_weight": 1}[name]
    reader.wait_for(lambda: reader.kernel(f"lab.trainer.controls.{name}") == most, "the end of the scale")
    assert handle.get_attribute("aria-valuetext") == str(most) == field.input_value()
    handle.press("Home")
    reader.wait_for(lambda: reader.kernel(f"lab.trainer.controls.{name}") == 0, "the other end")
    reader.click("Back to the plan")
    reader.wait_for(lambda: not reader.kernel("lab.trainer.controls.manual"), "giving control back")


def test_the_weight_is_on_a_log_scale_with_0(reader):
    handle, _ = reader.dial("densify_weight")
    handle.press("Home")
    handle.press("ArrowRight")
    reader.wait_for(lambda: 0 < reader.kernel("lab.trainer.controls.densify_weight") <= 2e-4, "the first step")
    handle.evaluate("(e) => { e.value = e.max / 2; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    reader.wait_for(lambda: 0.005 < reader.kernel("lab.trainer.controls.densify_weight") < 0.02, "the middle")
    words = reader.dial("densify_weight")[0].get_attribute("aria-valuetext")
    assert float(words) == pytest.approx(reader.kernel("lab.trainer.controls.densify_weight"), rel=1e-3)


def test_typing_is_not_overwritten_while_the_schedule_leads(reader):
    begin(reader)
    _, field = reader.dial("beta")
    field.fill("2")
    steps = reader.step()
    reader.wait_for(lambda: reader.step() > steps + 3, "pictures meanwhile")
    field.press("End")
    field.type(".5")
    assert field.input_value() == "2.5" and not reader.kernel("lab.trainer.controls.manual")
    field.press("Enter")
    reader.wait_for(lambda: reader.kernel("lab.trainer.controls.beta") == 2.5, "taking it")


def test_pause_freezes_step_steps_and_play_goes_on(reader):
    begin(reader)
    pause(reader)
    steps, picture = reader.kernel("lab.trainer.steps"), reader.picture()
    time.sleep(0.5)
    assert reader.kernel("lab.trainer.steps") == steps and reader.picture() == picture
    reader.click("Step")
    reader.wait_for(lambda: reader.step() == steps + 1, "a step")
    reader.click("Play")
    reader.wait_for(lambda: reader.step() > steps + 2, "going on")


def test_replay_needs_no_kernel(reader):
    begin(reader, 12)
    pause(reader)
    last, sent = reader.picture(), reader.kernel("lab._sent")
    scrubber = reader.page.get_by_label("replay, epoch")
    scrubber.press("Home")
    reader.wait_for(lambda: reader.step() == 0, "the first frame")
    assert reader.picture() != last and "epoch 0.00, step 0" == scrubber.get_attribute("aria-valuetext")
    for step in (1, 2, 3):  # every one of the first steps is there
        scrubber.press("ArrowRight")
        reader.wait_for(lambda step=step: reader.step() == step, "the next frame")
    reader.page.locator(".nc-replay-play").click()
    reader.wait_for(lambda: reader.picture() == last, "playing to the end")
    reader.page.locator("[data-panel=curves] canvas").click(position={"x": 60, "y": 60})
    reader.wait_for(lambda: reader.step() < 5, "the place that was clicked")
    reader.click("Back to live")
    reader.wait_for(lambda: reader.picture() == last, "the present")
    assert reader.kernel("lab._sent") == sent and reader.kernel("lab.trainer.steps") == reader.step()


def test_a_reload_leaves_no_hole(reader):
    begin(reader, 10)
    reader.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    reader.page.reload()
    reader.page.wait_for_selector(".ncbook-lab canvas")
    reader.page.wait_for_function(f"() => {NOTEBOOK}?.sessionContext?.session?.kernel")
    reader.wait_for(lambda: reader.page.locator(".nc-when").inner_text(), "pictures again")
    pause(reader)
    steps = reader.kernel("[f.step for f in lab.runs[-1].frames[:50]]")
    assert steps == list(range(len(steps))) and len(steps) > 10
    frames = int(reader.page.get_by_label("replay, epoch").get_attribute("max")) + 1
    assert frames == reader.kernel("len(lab.runs[-1].frames)")


def boxes_apart(words):
    """No two texts that were written lie on each other; texts that were written twice, halo and all, count once."""
    for (a, l1, t1, r1, b1), (b, l2, t2, r2, b2) in itertools.combinations({tuple(word) for word in words}, 2):
        assert min(r1, r2) - max(l1, l2) < 1.5 or min(b1, b2) - max(t1, t2) < 1.5, (a, b)


def test_the_curves_show_the_whole_run_with_names_beside_them(reader):
    begin(reader)
    reader.kernel("lab.set(speed='full')")
    reader.wait_for(lambda: reader.step() > 160, "more than a hundred steps")
    words = reader.words("curves")
    assert {"1", "10", "100"} <= {word[0] for word in words}
    names = {word[0].rsplit(" ", 1)[0] for word in words}
    assert {"NC1 spread", "NC3 classifier", "ETF unevenness", "accuracy", "test", "β", "weight"} <= names
    assert any("lower = more collapsed" in word[0] for word in words)
    boxes_apart(words)
    reader.kernel("lab.set(schedule='constant')")
    steps = reader.step()
    reader.wait_for(lambda: reader.step() > steps, "another picture")
    assert {word[0].rsplit(" ", 1)[0] for word in reader.words("curves")} >= names - {"1", "10", "100"}


FAULTS = """() => {
    const lab = document.querySelector(".ncbook-lab"), box = (e) => e.getBoundingClientRect(), found = [];
    const seen = (e) => box(e).width > 0 && box(e).height > 0;
    const meets = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
    const items = [...lab.querySelectorAll("button, select, input, canvas, .nc-when, .nc-look")].filter(seen);
    items.forEach((a, i) => items.slice(i + 1).forEach((b) => {
        if (!a.contains(b) && !b.contains(a) && meets(box(a), box(b))) found.push([a.outerHTML, b.outerHTML]);
    }));
    const scrolls = (e) => e.closest(".nc-scenarios");
    for (const e of items) if (!scrolls(e) && box(e).right > box(lab).right + 1) found.push(["cut off", e.outerHTML]);
    for (const e of items) if (e.type === "range" && box(e).width < 55) found.push(["no track", e.outerHTML]);
    if (lab.scrollWidth > lab.clientWidth + 1) found.push(["too wide", lab.scrollWidth]);
    const room = lab.closest(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook");
    return { found, width: lab.clientWidth, height: lab.clientHeight, room: room.clientHeight,
             play: box(lab.querySelector(".nc-play")).top - box(lab).top,
             dials: Math.max(...[...lab.querySelectorAll(".nc-dial")].map((e) => box(e).bottom - box(lab).top)),
             figure: box(lab.querySelector("section")).bottom - box(lab).top };
}"""


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_the_window(reader, size):
    left, least = SIZES[size]
    reader.page.set_viewport_size(dict(zip(("width", "height"), size)))
    reader.page.evaluate(f"() => window.jupyterapp.shell.{'expand' if left else 'collapse'}Left()")
    time.sleep(0.7)
    seen = reader.page.evaluate(FAULTS)
    assert seen["found"] == [] and seen["width"] >= least
    if size[0] > 1000:
        assert seen["height"] <= seen["room"]
    assert seen["dials"] < 200 and seen["figure"] <= seen["room"]  # geometry, Play, β and weight are in sight
    assert reader.page.locator(".nc-key").is_visible()
    cut = reader.page.evaluate("""() => [...document.querySelectorAll(".ncbook-lab section")].flatMap((section) => {
        const canvas = section.querySelector("canvas"), title = section.querySelector(".nc-title > span");
        const words = canvas.words.filter(([, left, , right]) => left < -1 || right > canvas.clientWidth + 1);
        return [...words, ...(title && title.scrollWidth > title.clientWidth + 1 ? [title.textContent] : [])];
    })""")
    assert cut == []
    reader.page.set_viewport_size({"width": 1280, "height": 657})
    reader.page.evaluate("() => window.jupyterapp.shell.expandLeft()")


def test_two_runs_stand_beside_each_other_on_shared_axes(reader):
    begin(reader)
    alone = reader.page.evaluate(FAULTS)["height"]
    begin(reader, 3, "Standard and nearest")
    reader.wait_for(lambda: reader.page.locator(".ncbook-lab [data-panel=geometry]").count() == 2, "two pictures")
    pause(reader)
    seen = reader.page.evaluate(FAULTS)
    assert seen["found"] == [] and seen["height"] <= max(alone, seen["room"])
    ends = [reader.page.evaluate("(k) => document.querySelectorAll('[data-panel=bars] canvas')[k].words", k)
            for k in (0, 1)]
    ticks = [[word[0] for word in one if word[0].replace(".", "").isdigit()] for one in ends]
    assert ticks[0] == ticks[1] and len(ticks[0]) == 3
    titles = reader.page.locator(".ncbook-lab [data-panel=geometry] .nc-title").all_inner_texts()
    assert "nearest" in titles[0] and "standard" in titles[1]


def test_another_run_can_be_shown_beside(reader):
    begin(reader, 10)
    reader.click("Reset")
    reader.wait_for(lambda: reader.step() < 8, "a new run")
    first = reader.kernel("lab.runs[-2].number")
    reader.page.get_by_label("beside").select_option(str(first))
    reader.wait_for(lambda: reader.page.locator(".ncbook-lab [data-panel=geometry]").count() == 2, "two pictures")
    reader.page.get_by_label("beside").select_option("")


def test_four_classes_turn_by_keys_and_by_hand(reader):
    begin(reader, 3, "Four classes in space")
    pause(reader)
    canvas, picture = reader.page.locator("[data-panel=geometry] canvas"), reader.picture()
    canvas.press("ArrowLeft")
    reader.wait_for(lambda: reader.picture() != picture, "turning")
    picture, box = reader.picture(), canvas.bounding_box()
    reader.page.mouse.move(box["x"] + 100, box["y"] + 100)
    reader.page.mouse.down()
    reader.page.mouse.move(box["x"] + 160, box["y"] + 120, steps=3)
    reader.page.mouse.up()
    reader.wait_for(lambda: reader.picture() != picture, "turning further")


def test_a_point_is_dragged_in_the_page(reader):
    begin(reader)
    unfold(reader, "Settings")
    reader.page.locator("[data-control=dataset] select").select_option("gaussians")
    reader.wait_for(lambda: reader.kernel("lab.trainer.data.name") == "gaussians", "points")
    canvas = reader.page.locator("[data-panel=input] canvas")
    reader.wait_for(lambda: canvas.evaluate("(e) => Boolean(e.place)"), "a picture of them")
    before = reader.kernel("lab.trainer.data.train_inputs.tolist()")
    x, y = canvas.evaluate("(e, point) => e.place.toPage(point)", before[0])
    box = canvas.bounding_box()
    reader.page.mouse.move(box["x"] + x, box["y"] + y)
    reader.page.mouse.down()
    reader.page.mouse.move(box["x"] + x + 20, box["y"] + y, steps=4)
    reader.page.mouse.up()
    reader.wait_for(lambda: reader.kernel("lab.trainer.data.train_inputs[0, 0].item()") > before[0][0] + 0.3, "moving")
    reader.click("Settings")


def luminance(color):
    channels = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_colours_are_those_of_the_theme(reader, theme):
    begin(reader)
    reader.page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    reader.page.wait_for_function("(theme) => document.body.dataset.jpThemeName === theme", arg=theme)
    time.sleep(0.5)
    styles = reader.page.evaluate("""() => [".nc-words", ".nc-when", ".nc-title", "section"].map((where) => {
        const lab = document.querySelector(".ncbook-lab");
        return [getComputedStyle(lab.querySelector(where)).color, getComputedStyle(lab).backgroundColor];
    })""")
    for ink, paper in styles:
        bright, dim = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) > 4.5
        assert (luminance(paper) < 0.2) == ("Dark" in theme)


def test_everything_has_a_name_and_nothing_uploads(reader):
    unnamed = reader.page.evaluate("""() => [...document.querySelectorAll(
        ".ncbook-lab :is(button, select, input, canvas)")].filter((e) => !(e.getAttribute("aria-label")
            || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map((e) => e.outerHTML)""")
    assert unnamed == []
    assert reader.page.locator(".modebar").count() == 0
    stops = reader.page.evaluate("""() => [...document.querySelectorAll(
        ".ncbook-lab :is(button, select, input, canvas)")]
        .filter((e) => e.tabIndex >= 0 && !e.disabled && e.offsetParent).length""")
    assert stops <= 32
    focus = reader.dial("beta")[0]
    focus.focus()
    focus.press("ArrowRight")
    assert focus.evaluate("(e) => getComputedStyle(e).outlineWidth") == "3px"


def test_what_is_read_aloud_changes_seldom(reader):
    begin(reader)
    reader.page.evaluate("""() => {
        window.told = 0;
        for (const live of document.querySelectorAll(".ncbook-lab :is([role=status], [aria-live])"))
            new MutationObserver(() => { window.told += 1; }).observe(
                live, { childList: true, characterData: true, subtree: true });
    }""")
    steps = reader.step()
    reader.wait_for(lambda: reader.step() > steps + 20, "pictures")
    assert reader.page.evaluate("() => window.told") <= 4


def test_the_export_offers_a_page_that_plays_by_itself(reader):
    begin(reader, 10)
    pause(reader)
    unfold(reader, "Run …")
    reader.click("Export")
    link = reader.page.locator(".nc-out a[download]")
    link.wait_for()
    with reader.page.expect_download() as download:
        link.click()
    path = reader.folder / "run.html"
    download.value.save_as(path)
    page = reader.browser.new_page(viewport={"width": 1280, "height": 800})
    requests, faults = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(path.as_uri())
    assert page.title().startswith("Neural collapse: digits, 3 classes, nearest, sliding 1.1/0.1")
    assert page.locator("html").get_attribute("lang") == "en" and "1.1/0.1" in page.locator("figcaption").inner_text()
    assert page.locator(".nc-when").inner_text().endswith("step 0")
    page.locator(".nc-replay-play").click()
    page.wait_for_function("() => !document.querySelector('.nc-when').textContent.endsWith('step 0')")
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests) and faults == []
    page.close()


def test_the_code_is_copied(reader):
    begin(reader)
    reader.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    unfold(reader, "Run …")
    reader.click("Copy as code")
    reader.page.locator(".nc-out", has_text="copied").wait_for()
    assert reader.page.evaluate("() => navigator.clipboard.readText()") == reader.kernel("lab.code()")
    reader.click("Run …")
    assert not reader.page.get_by_text("Copy as code").is_visible()


def test_it_looks_as_in_the_readme(reader):
    reader.page.set_viewport_size({"width": 1280, "height": 720})
    begin(reader, 45, "Sliding")
    reader.page.evaluate("() => document.querySelector('.ncbook-lab').scrollIntoView({ block: 'start' })")
    shot = reader.folder / "live_lab.png"
    reader.page.locator(".ncbook-lab").screenshot(path=shot)
    assert shot.stat().st_size > 40_000
    if target := os.environ.get("NCBOOK_SCREENSHOT"):
        shutil.copy(shot, target)


def test_running_the_cell_again_leaves_one_worker(reader):
    reader.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
    reader.wait_for(lambda: reader.kernel("len(lab.runs)") == 1, "a new lab")
    reader.wait_for(lambda: reader.kernel("lab.trainer.steps") > 5, "training")
    assert reader.kernel("len([t for t in __import__('threading').enumerate() if t.name == 'live lab'])") == 1


