"""The explorers in headless Chromium: moved by keys, mouse and touch, their numbers are those of the package."""

import math
import re

import nbformat
import numpy as np
import pytest
import torch
from jupyter_page import FLAGS, NOTEBOOK, PATIENCE, jupyter_lab
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import sync_playwright

import ncbook
from ncbook import live, plots
from ncbook.etf import aligned_means
from ncbook.persistence import densification_loss, h0_death_times

MAKERS = {"simplex": live.simplex_scrubber, "nearest": live.nearest_etf_explorer, "radius": live.radius_explorer,
          "barcode": lambda: live.radius_explorer(beta=None)}
DARK = {"--jp-layout-color0": "rgb(17, 17, 17)", "--jp-content-font-color1": "rgb(240, 240, 240)"}


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Hand:
    """A reader before one explorer, on a page of its own without kernel or network."""

    def __init__(self, browser, file, *explorers, width=860, style="", **options):
        file.write_text(f'<!doctype html><meta charset="utf-8"><style>body {{margin: 0}} :root {{{style}}}</style>'
                        + "".join(explorer._repr_html_() for explorer in explorers), encoding="utf-8")
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.faults, self.asked = [], []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def fact(self, name):
        return float(self.page.locator(f"data[data-name={name}]").get_attribute("value"))

    def press(self, name, *keys):
        control = self.page.get_by_role("slider", name=name, exact=True)
        control.focus()
        for key in keys:
            control.press(key)

    def click(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def status(self):
        return self.page.get_by_role("status").inner_text()

    def places(self, selector):
        """Where parts of a panel are, in the units of the panel: (n, 2)."""
        shifts = self.page.locator(selector).evaluate_all("(nodes) => nodes.map((n) => n.getAttribute('transform'))")
        return torch.tensor([[float(x) for x in re.findall(r"-?\d[\d.e-]*", shift)] for shift in shifts],
                            dtype=torch.float64)

    def middle(self, name):
        box = self.page.get_by_role("slider", name=name, exact=True).locator(".dot, .knob").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, name, dx, dy, steps=8):
        x, y = self.middle(name)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + dx, y + dy, steps=steps)
        self.page.mouse.up()

    def close(self):
        assert self.faults == [] and len(self.asked) == 1
        self.page.close()


@pytest.fixture
def hand(browser, tmp_path):
    opened = []

    def open_page(*explorers, **options):
        opened.append(Hand(browser, tmp_path / f"{len(opened)}.html", *explorers, **options))
        return opened[-1]

    yield open_page
    for each in opened:
        each.close()


def close_to(value, expected, within=1e-9):
    assert abs(float(value) - float(expected)) < within, (float(value), float(expected))


# The simplex

def vertices(page):
    return torch.tensor(page.page.locator(".vertex circle").evaluate_all(
        "(all) => all.map((n) => [n.getAttribute('cx'), n.getAttribute('cy'), n.nextSibling.textContent].map(Number))"),
        dtype=torch.float64)


def test_simplex_has_the_numbers_of_the_package(hand):
    explorer = live.simplex_scrubber(2)
    noise, page, dim = torch.tensor(explorer.start["noise"], dtype=torch.float64), hand(explorer), 1
    for classes in range(2, 11):
        page.press("noise", "Home")
        assert f"{classes} classes in {max(dim, classes - 1)} dimension" in page.status()
        page.press("dimension", "Home", *["ArrowRight"] * (classes % 3))
        dim = classes - 1 + classes % 3
        assert f"{classes} classes in {dim} dimension" in page.status()
        assert (f"−1/{classes - 1}" if classes > 2 else "is −1") in page.status()
        rows = ncbook.simplex_etf(classes, dim, dtype=torch.float64)
        for steps in (0, 7):
            page.press("noise", *["ArrowRight"] * steps)
            rows = rows + 0.02 * steps / math.sqrt(dim) * noise[:classes, :dim]
            cosines = plots.centred_cosines(rows)
            off = cosines[~torch.eye(classes, dtype=torch.bool)]
            lengths = (rows - rows.mean(0)).norm(dim=1)
            close_to(page.fact("distance"), ncbook.simplex_etf_distance(rows))
            for name, value in (("least", off.min()), ("most", off.max()), ("short", lengths.min()),
                                ("long", lengths.max()), ("ideal", -1 / (classes - 1))):
                close_to(page.fact(name), value)
            table = page.page.locator("td data").evaluate_all("(nodes) => nodes.map((n) => Number(n.value))")
            np.testing.assert_allclose(table, off.numpy(), atol=1e-9)
        assert "with noise" in page.status() and (classes == 2 or page.fact("distance") > 1e-4)
        page.press("classes", "ArrowRight")
    page.click("Reset")
    assert "2 classes in 1 dimension:" in page.status()


def test_simplex_is_seen_without_one_vertex_upon_another(hand):
    page = hand(live.simplex_scrubber(2))
    for classes in range(2, 11):
        at = vertices(page)
        assert sorted(at[:, 2].tolist()) == list(range(classes))
        assert torch.pdist(at[:, :2]).min() > 40
        if classes != 4:
            expected = plots.simplex_vertices(classes)
            drawn = at[at[:, 2].argsort(), : expected.shape[1]]
            drawn = (drawn - torch.tensor([170.0, 150.0])[: expected.shape[1]]) / (98 if classes > 4 else 115)
            np.testing.assert_allclose(drawn * torch.tensor([1, -1])[: expected.shape[1]], expected, atol=1e-9)
        seen = page.page.locator("p.soft").inner_text()
        assert ("shadow" in seen) == (classes > 4) and ("dimensions 1 and 2" in seen) == (classes > 4)
        page.press("classes", "ArrowRight")


def test_the_tetrahedron_turns(hand):
    page = hand(live.simplex_scrubber())
    before = vertices(page)
    page.click("Turn")
    page.page.wait_for_function("() => document.querySelector('[data-explorer]').shadowRoot"
                                ".querySelector('[aria-label=turn]').value >= 5")
    page.click("Stop")
    turned = vertices(page)
    assert not torch.equal(turned, before)
    # Seen from somewhere else the same solid: heights differ, squared sizes on the three axes add up to the same.
    page.press("turn", "Home")
    assert torch.equal(vertices(page), before)


# The nearest simplex ETF

def means_and_frame(page):
    """The normalised means and the ETF (C, d), from where they are drawn."""
    return [(page.places(part) - torch.tensor([170.0, 155.0])) / torch.tensor([165.0, -165.0]) * size
            for part, size in ((".handle", 1), (".corner", math.sqrt(3)))]


def check_nearest(page, previous, pull):
    h, frame = means_and_frame(page)
    close_to(h.norm(), 1)
    assert h.sum(0).abs().max() < 1e-9
    expected = ncbook.nearest_simplex_etf(h, previous=previous, proximal=pull)
    np.testing.assert_allclose(frame, expected, atol=1e-9)
    close_to(page.fact("distance"), (h - expected / math.sqrt(3)).square().sum())
    close_to(page.fact("nearest"), ncbook.simplex_etf_distance(h))
    np.testing.assert_allclose([page.fact("s1"), page.fact("s2")], torch.linalg.svdvals(aligned_means(h)[0]), atol=1e-9)
    gaps = page.page.locator(".gap").evaluate_all(
        "(nodes) => nodes.map((n) => ['x1', 'y1', 'x2', 'y2'].map((end) => Number(n.getAttribute(end))))")
    seen = sum((x - u) ** 2 + (y - v) ** 2 for x, y, u, v in gaps) / 165**2
    close_to(page.fact("distance"), seen)
    return frame


def orientation(frame):
    proper = torch.linalg.det(frame.T @ ncbook.helmert_basis(3, dtype=torch.float64)) > 0
    return "not mirrored" if proper else "mirrored"


def test_nearest_follows_keys_and_mouse_as_the_package_does(hand):
    page = hand(live.nearest_etf_explorer())
    pulls = [0, ncbook.etf.PROXIMAL, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4]
    frame = check_nearest(page, None, 0)
    keys = ((0, "Shift+ArrowUp"), (1, "ArrowLeft"), (2, "Shift+ArrowDown"), (1, "Shift+ArrowRight"))
    for k, (c, key) in enumerate(keys):
        page.press("pull ρ", "Home", *["ArrowRight"] * (3 * k))
        before = frame if not k else means_and_frame(page)[1]
        (was,) = [means_and_frame(page)[0][c]]
        page.press(f"mean of class {c}", key)
        step = means_and_frame(page)[0][c] - was
        far, along = (0.1 if "Shift" in key else 0.01), 0 if key.endswith(("Left", "Right")) else 1
        close_to(step[along].abs(), far)
        frame = check_nearest(page, before, pulls[3 * k])
        assert page.page.get_by_text(f"simplex ETF: {orientation(frame)}").count() == 1
    page.click("Step")
    frame = check_nearest(page, frame, pulls[9])
    page.click("Reset")
    before = check_nearest(page, None, 0)
    page.drag("mean of class 0", -60, 30)
    check_nearest(page, before, ncbook.etf.PROXIMAL)


def test_a_mean_dragged_through_the_line_of_the_others_flips_the_frame(hand):
    page = hand(live.nearest_etf_explorer())
    page.press("pull ρ", "Home")
    before = check_nearest(page, None, 0)
    assert "the frame flips" in page.status()
    page.drag("mean of class 1", 0, -300, steps=40)
    after = check_nearest(page, None, 0)
    assert {orientation(before), orientation(after)} == {"not mirrored", "mirrored"}
    assert f"Flip 1: the frame is {orientation(after)} now" in page.status()
    # Back, a hundredth at a time: at the flip the smaller singular value is next to 0, and both are equally near.
    smallest, flipped = [], []
    page.page.get_by_role("slider", name="mean of class 1").focus()
    for _ in range(120):
        page.page.keyboard.press("ArrowDown")
        smallest.append(page.fact("s2"))
        flipped.append("Flip 2" in page.status())
        if flipped[-1]:
            break
    assert flipped[-1] and min(smallest) < 0.03 and smallest.index(min(smallest)) >= len(smallest) - 2


# Balls, barcode and loss

def points_of(page, start):
    """The points, from where they are drawn; `start` says where they were at first, and so what a unit is."""
    at = page.places('.handle[aria-roledescription="point to move"]')
    if not hasattr(page, "unit"):
        page.unit = float((start[:, 0].max() - start[:, 0].min()) / (at[:, 0].max() - at[:, 0].min()))
        page.origin = start[0] - at[0] * page.unit * torch.tensor([1, -1])
    return at * page.unit * torch.tensor([1, -1]) + page.origin


def check_radius(page, start, radius, beta, p, digits=2):
    """digits: of numbers as they are shown, in units of the cloud; death times have two more."""
    page.page.get_by_label("show the pull").check()
    points, half = points_of(page, start).requires_grad_(), 0.51 * 10.0**-digits
    deaths = h0_death_times(points, p)
    titles = page.page.locator("svg title").all_text_contents()
    np.testing.assert_allclose([float(t.split()[-1]) for t in titles[:-1]], deaths.detach(), atol=half / 100)
    loss = densification_loss(points[None], beta, p)
    close_to(page.fact("loss") / beta, loss.detach() / beta)
    close_to(page.fact("radius"), radius / 2)
    parts = 1 + int((deaths > radius).sum())
    assert page.status() == f"{parts} piece{'s' * (parts > 1)}"
    (gradient,) = torch.autograd.grad(loss, points)
    says = page.page.locator('.handle[aria-roledescription="point to move"]').evaluate_all(
        "(nodes) => nodes.map((n) => n.getAttribute('aria-valuetext').replaceAll('−', '-').split(/[ ,;]+/))")
    for point, force, (_, x, _, y, _, px, py) in zip(points, gradient, says):
        np.testing.assert_allclose([float(x), float(y)], point.detach(), atol=half)
        np.testing.assert_allclose([float(px), float(py)], -force, atol=5.1e-3)


def test_each_point_is_grasped_and_reached_by_keys(hand):
    """Also where points are closer to each other than a finger is wide."""
    points = 0.2 * torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    page = hand(live.radius_explorer(torch.cat([points, torch.tensor([[4.0, 4.0]])])))
    assert page.page.locator("[tabindex='0']").count() == 3  # a point and two lines
    focused = "document.activeElement.shadowRoot.activeElement.ariaLabel"
    for i in range(10):
        page.page.mouse.click(*page.middle(f"point {i + 1}"))
        assert page.page.evaluate(focused) == f"point {i + 1}"
    for key, name in (("Enter", "point 1"), ("Shift+Enter", "point 10"), ("Tab", "distance r"), ("Tab", "distance β")):
        page.page.keyboard.press(key)
        assert page.page.evaluate(focused) == name


def test_radius_suits_itself_to_the_size_of_the_cloud(hand):
    for scale, digits in ((1e-3, 5), (1e3, 0)):
        cloud = scale * torch.tensor(live.radius_explorer().start["points"], dtype=torch.float64)
        page = hand(live.radius_explorer(cloud, radius=0.5 * scale, beta=0.8 * scale))
        line = page.page.get_by_role("slider", name="distance β")
        assert line.get_attribute("aria-valuetext") == f"{0.8 * scale:.{digits}f}"
        page.press("distance β", "ArrowRight")
        close_to(line.get_attribute("aria-valuenow"), 0.82 * scale, 1e-9 * scale)
        check_radius(page, cloud, 0.5 * scale, 0.82 * scale, 2, digits)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_radius_has_the_numbers_of_the_package(hand, p):
    explorer = live.radius_explorer()
    start, page = torch.tensor(explorer.start["points"], dtype=torch.float64), hand(explorer)
    points_of(page, start)
    page.page.get_by_label("norm").select_option({1: "L1", 2: "L2", math.inf: "L∞"}[p])
    check_radius(page, start, 0.5, 0.8, p)
    page.drag("point 3", 70, -45)
    page.press("point 7", "Shift+ArrowLeft", "ArrowUp")
    assert (points_of(page, start) - start).norm(dim=1).gt(1e-6).nonzero().flatten().tolist() == [2, 6]
    page.press("distance r", "Home", *["PageUp"] * 4, "ArrowDown")
    page.press("distance β", *["ArrowLeft"] * 12, "ArrowRight")
    check_radius(page, start, 0.78, 0.58, p)
    page.drag("distance r", 0.1 * 100, 0)
    assert page.fact("radius") > 0.4
    page.click("Reset")
    assert torch.allclose(points_of(page, start), start)


def test_radius_without_beta_is_the_barcode_alone(hand):
    explorer = live.radius_explorer(beta=None)
    start, page = torch.tensor(explorer.start["points"], dtype=torch.float64), hand(explorer)
    text = page.page.evaluate("document.querySelector('[data-explorer]').shadowRoot.textContent")
    assert "pieces" in text and not re.search("β|loss|pull", text.partition("Balls of")[2])
    assert page.page.get_by_role("slider", name="distance β").count() == 0
    assert page.page.get_by_role("button").all_inner_texts() == ["Reset"]
    points_of(page, start)
    page.drag("point 3", 70, -45)
    page.press("distance r", "Home", *["PageUp"] * 4)
    parts = 1 + int((h0_death_times(points_of(page, start)) > 2 * page.fact("radius")).sum())
    assert 1 < parts < 15 and page.status() == f"{parts} pieces"
    assert page.page.locator("svg[aria-label^=barcode] rect[fill='var(--ink)']").count() == len(start) - parts


def test_let_go_points_follow_the_loss_until_they_are_held(hand):
    explorer = live.radius_explorer()
    page = hand(explorer)
    before = page.fact("loss")
    page.click("Let go")
    page.page.wait_for_function(f"() => document.querySelector('[data-explorer]').shadowRoot"
                                f".querySelector('[data-name=loss]').value < {before} - 0.5")
    page.click("Hold")
    held = page.fact("loss")
    page.page.wait_for_timeout(100)
    assert page.fact("loss") == held
    page.click("Reset")
    assert page.fact("loss") == before


def test_a_finger_moves_points_and_lines(hand):
    explorer = live.radius_explorer()
    start = torch.tensor(explorer.start["points"], dtype=torch.float64)
    page = hand(explorer, has_touch=True, width=390)
    points_of(page, start)
    touch = page.page.context.new_cdp_session(page.page)
    for name, dx, dy in (("point 1", 40, -30), ("distance β", -60, 0)):
        x, y = page.middle(name)
        for k, kind in enumerate(["touchStart", *["touchMove"] * 5, "touchEnd"]):
            finger = [] if kind == "touchEnd" else [{"x": x + dx * k / 5, "y": y + dy * k / 5}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": finger})
        moved = [now - then for now, then in zip(page.middle(name), (x, y))]
        np.testing.assert_allclose(moved, (dx, dy), atol=1)
    assert (points_of(page, start) - start).norm(dim=1).gt(1e-6).nonzero().flatten().tolist() == [0]
    assert page.page.evaluate("scrollX + scrollY") == 0


# All of them

@pytest.mark.parametrize("name", MAKERS)
def test_it_fits_and_can_be_named(hand, name):
    page = hand(MAKERS[name]())
    for width in (340, 600, 900):
        page.page.set_viewport_size({"width": width, "height": 900})
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.page.evaluate(FAULTS) == []
        lines = page.page.locator("svg text").evaluate_all("(all) => all.map((e) => e.getBoundingClientRect().height)")
        assert min(lines) > 11  # letters are smaller


FAULTS = """() => {
        const root = document.querySelector("[data-explorer]").shadowRoot, found = [];
        const box = (e) => e.getBoundingClientRect();
        const meets = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
        const texts = [...root.querySelectorAll("svg text, .bar > *")];
        texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => {
            if (meets(box(a), box(b))) found.push(`"${a.textContent}" upon "${b.textContent}"`);
        }));
        for (const e of texts) {
            const around = box(e.closest("svg, .bar"));
            if (box(e).right > around.right + 1 || box(e).left < around.left - 1)
                found.push(`cut off: "${e.textContent}"`);
        }
        for (const e of root.querySelectorAll("[tabindex], button, input, select")) {
            if (!(e.ariaLabel || e.textContent || e.closest("label")?.textContent))
                found.push(`no name: ${e.outerHTML}`);
            if (e.role === "slider" && !e.getAttribute("aria-valuetext")) found.push(`no value: ${e.ariaLabel}`);
        }
        return found;
    }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_jupyterlabs_and_the_readers_elsewhere(hand, scheme):
    look = """() => { const look = getComputedStyle(document.querySelector("[data-explorer]"));
                      return [look.backgroundColor, look.color]; }"""
    inside = hand(live.radius_explorer(), style="".join(f"{k}: {v};" for k, v in DARK.items()), color_scheme=scheme)
    assert inside.page.evaluate(look) == list(DARK.values())
    paper, ink = ([int(v) for v in colour[4:-1].split(",")] for colour in
                  hand(live.radius_explorer(), color_scheme=scheme).page.evaluate(look))
    assert (min(ink) - max(paper) if scheme == "dark" else min(paper) - max(ink)) > 150


def test_several_share_a_page_and_focus_is_seen(hand):
    page = hand(*(make() for make in MAKERS.values()), live.radius_explorer())
    shown = page.page.evaluate(
        "[...document.querySelectorAll('[data-explorer]')].map((e) => e.shadowRoot.children.length)")
    assert len(shown) == 5 and min(shown) >= 5
    knob = page.page.get_by_role("slider", name="mean of class 1")
    assert not knob.locator(".ring").is_visible()
    page.press("mean of class 1", "ArrowUp")
    assert knob.locator(".ring").is_visible()


def test_in_jupyterlab_untrusted_it_is_a_picture_and_run_it_moves(browser, tmp_path):
    """And arrow keys move the point, not the choice of a cell."""
    import build_book

    output = new_output("display_data", data={"text/html": live.radius_explorer()._repr_html_()})
    notebook = new_notebook(cells=[new_code_cell("from ncbook import live\nlive.radius_explorer()", outputs=[output]),
                                   new_code_cell("1")], metadata={"kernelspec": {"name": "python3",
                                                                                 "display_name": "Python 3"}})
    build_book.add_pictures(notebook)
    (tmp_path / "root").mkdir()
    nbformat.write(notebook, tmp_path / "root" / "notebook.ipynb")
    with jupyter_lab(tmp_path) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        picture = page.locator(".jp-OutputArea img")
        picture.wait_for()
        assert picture.evaluate("(image) => image.complete && image.naturalWidth") == 2 * build_book.EXPLORER_WIDTH
        assert page.locator(".ncbook-explorer p").inner_text().startswith("Balls, barcode") and not page.locator(
            "svg[aria-label^=barcode]").count()
        page.wait_for_function(f"() => {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'")
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        point = page.get_by_role("slider", name="point 1", exact=True)
        point.wait_for()
        assert not picture.is_visible()
        before = point.get_attribute("aria-valuetext")
        point.focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowDown"):
            point.press(key)
        assert point.get_attribute("aria-valuetext") != before
        assert point.evaluate("(e) => e.matches(':focus')")
        point.press("Shift+Enter")
        assert page.evaluate("document.activeElement.shadowRoot.activeElement.ariaLabel") == "point 15"
        assert page.evaluate(f"() => [{NOTEBOOK}.content.activeCellIndex, {NOTEBOOK}.content.widgets.length]") == [0, 2]
        page.close()
