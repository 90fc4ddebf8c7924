"""The explorers as objects: what a notebook keeps of them. What they do in a page is tested in tests/browser."""

import base64
import html
import io
import json
import math
import re

import build_book
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from ncbook import live

MAKERS = (live.simplex_scrubber, live.nearest_etf_explorer, live.radius_explorer)


def start(explorer):
    return json.loads(html.unescape(re.search('data-start="(.*?)"', explorer._repr_html_())[1]))


def test_they_begin_where_they_are_told():
    means = torch.tensor([[0.0, 1.0], [2.0, 0.5], [-1.0, -3.0]])
    assert start(live.nearest_etf_explorer(means))["means"] == means.tolist()
    assert start(live.radius_explorer(means, radius=0, beta=2, p=math.inf)) | {"colors": 0} == {
        "points": means.tolist(), "r": 0, "beta": 2, "p": "inf", "colors": 0}
    assert start(live.radius_explorer(beta=None))["beta"] is None
    assert start(live.simplex_scrubber(10))["classes"] == 10


@pytest.mark.parametrize(("make", "name"), [
    (lambda: live.simplex_scrubber(11), "classes"),
    (lambda: live.simplex_scrubber(1), "classes"),
    (lambda: live.nearest_etf_explorer(torch.eye(4)[:, :2]), "class_means"),
    (lambda: live.nearest_etf_explorer(torch.ones(3, 2)), "class_means"),
    (lambda: live.nearest_etf_explorer(torch.eye(3)), "class_means"),
    (lambda: live.radius_explorer(torch.zeros(1, 2)), "points"),
    (lambda: live.radius_explorer(torch.zeros(41, 2)), "points"),
    (lambda: live.radius_explorer(torch.full((3, 2), math.nan)), "points"),
    (lambda: live.radius_explorer(beta=-1), "beta"),
    (lambda: live.radius_explorer(radius=math.inf), "radius"),
    (lambda: live.radius_explorer(p=3), "p must"),
])
def test_bad_input_is_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize("make", MAKERS)
def test_the_script_is_whole_and_asks_for_nothing(make):
    text = make()._repr_html_()
    assert not re.search(r"^\s*(import|export)\b|\bfetch\(|https?://(?!www\.w3\.org/2000/svg)|src=", text, re.MULTILINE)
    assert text.count("</script>") == 1 and "this cell" in repr(make())


def test_a_built_notebook_holds_a_picture_where_scripts_do_not_run(chromium):
    output = new_output("display_data", data={"text/html": live.radius_explorer()._repr_html_()})
    notebook = new_notebook(cells=[new_code_cell("radius_explorer()", execution_count=1, outputs=[output])],
                            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    assert build_book.problems(notebook) == ["cell 1 has a figure without a picture"]
    build_book.add_pictures(notebook)
    assert build_book.problems(notebook) == []
    data = notebook.cells[0].outputs[0].data
    assert f'src="data:image/png;base64,{data["image/png"]}"' in data["text/html"]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    assert picture.width == 2 * build_book.EXPLORER_WIDTH and picture.height < 1300
    counts = {colour: n for n, colour in picture.getcolors(1 << 20)}
    assert counts.pop((255, 255, 255)) < 0.97 * picture.width * picture.height
    assert any(b > 1.5 * max(r, 60) for r, g, b in counts) and any(r > 1.5 * max(b, 60) for r, g, b in counts)  # bars
    assert "/tmp/" not in "".join(build_book.strings(dict(data)))
