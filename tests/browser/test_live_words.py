"""What the lab says of itself in a real JupyterLab: key, captions, dials, scale."""

import time

import numpy as np
import pytest
from live_reader import begin, pause

pytestmark = pytest.mark.usefixtures("no_error")


def boxes(reader, where):
    return reader.page.eval_on_selector_all(where, "(all) => all.map((e) => e.getBoundingClientRect().toJSON())")


def test_a_first_touch_moves_nothing_and_the_way_back_says_what_it_does(reader):
    begin(reader)
    before = boxes(reader, ".nc-dial input")
    reader.dial("beta")[0].press("ArrowRight")
    back = reader.page.locator(".ncbook-lab button", has_text="Back to the plan")
    back.wait_for()
    assert boxes(reader, ".nc-dial input") == before and "plan" in back.get_attribute("title")
    back.click()
    reader.wait_for(lambda: not back.is_visible(), "its going")


def test_beta_says_that_it_has_no_effect_without_a_weight(reader):
    begin(reader, 3, "Collapse")
    beta = reader.page.locator("[data-dial=beta]")
    assert "no effect while the weight is 0" in beta.inner_text() and "nc-idle" in beta.get_attribute("class")
    assert any("no effect" in word[0] for word in reader.words("bars"))
    assert not any(word[0].startswith("β 0") for word in reader.words("bars"))
    reader.dial("densify_weight")[0].press("End")
    reader.wait_for(lambda: "wanted length of the bars" in beta.inner_text(), "an effect")
    reader.wait_for(lambda: any(word[0].startswith("β 0") for word in reader.words("bars")), "its line on the bars")
    for name, told in (("beta", "pulled together"), ("densify_weight", "logarithmic")):
        element = reader.page.locator(f"[data-dial={name}]")
        assert told in element.get_attribute("title")
        assert told in reader.dial(name)[0].get_attribute("aria-description")


def test_the_scenario_that_is_on_is_marked_and_says_what_comes_of_it(reader):
    begin(reader, 3, "Too early")
    on = reader.page.locator(".nc-scenarios [aria-pressed=true]")
    caption = reader.page.locator(".nc-caption")
    for order in ("Step", "Reset", "Settings", "Settings"):
        assert on.all_inner_texts() == ["Too early"] and "pull the weight to 0" in caption.inner_text()
        reader.click(order)
        time.sleep(0.3)
    assert "Play" in reader.page.locator(".nc-note").inner_text()  # which Reset has paused
    reader.kernel("[lab.reset(RECIPE), lab.start()] and None")
    reader.wait_for(lambda: on.count() == 0 and caption.inner_text() == "", "another beginning")


def test_what_is_tiny_is_one_spot_under_a_lens(reader):
    begin(reader, 12, "Too early")
    pause(reader)
    words = [word[0] for word in reader.words("geometry")]
    times = next(word for word in words if "magnified" in word)
    assert float(times.split()[-1].rstrip("×")) >= 40 and "all dots of all classes" in words
    spots = np.array(reader.page.evaluate("() => document.querySelector('[data-panel=geometry] canvas').spots"))
    assert np.ptp(spots, axis=0).max() > 50  # those under the lens can be pointed at
    begin(reader, 60, "Collapse")
    pause(reader)
    assert not any("magnified" in word[0] for word in reader.words("geometry"))


def test_runs_beside_each_other_are_on_one_scale(reader):
    begin(reader, 60, "Collapse")
    first = reader.kernel("lab.runs[-1].number")
    begin(reader, 12, "Too early")
    reader.page.get_by_label("beside").select_option(str(first))
    pause(reader)
    reader.page.get_by_label("replay, epoch").press("End")
    both = reader.page.evaluate("() => [0, 1].map((k) => "
                                "document.querySelectorAll('[data-panel=geometry] canvas')[k].words.map((w) => w[0]))")
    assert ["all dots of all classes" in words for words in both] == [True, False]
    bars = [[word for word in words if "feature space" in word] for words in both]
    assert bars[0] == bars[1] != []
    reader.page.get_by_label("beside").select_option("")


def test_a_key_of_what_is_drawn_stays(reader):
    begin(reader)
    for words in ("one image", "class mean", "classifier", "simplex ETF"):
        assert words in reader.page.locator(".nc-key").inner_text()
    reader.page.locator(".nc-key span").first.hover()
    assert "feature" in reader.page.locator(".nc-key span").first.get_attribute("title")


def test_what_a_hand_did_is_named_where_it_is_shaded(reader):
    begin(reader, 20, "Sliding")
    assert not any(word[0] == "by hand" for word in reader.words("curves"))
    reader.dial("beta")[0].press("ArrowRight")
    reader.wait_for(lambda: any(word[0] == "by hand" for word in reader.words("curves")), "its name")


@pytest.mark.parametrize(("scenario", "words"), [
    ("Free features", "512 dimensions, seen flat"), ("Four classes in space", "64 dimensions, seen in space")])
def test_the_picture_says_that_it_is_flat(reader, scenario, words):
    begin(reader, 3, scenario)
    assert reader.page.locator("[data-panel=geometry] .nc-title span").first.inner_text() == words


def test_a_run_that_has_ended_can_be_trained_again(reader):
    short = "type(RECIPE)(**vars(RECIPE) | {'epochs': 1})"
    reader.kernel(f"[lab.reset({short}), lab.set(speed='full'), lab.start()] and None")
    again = reader.page.locator(".nc-play", has_text="Again")
    again.wait_for()
    runs = reader.kernel("lab._count")
    again.click()
    reader.wait_for(lambda: reader.kernel("(lab._count, lab.trainer.finished)") == [runs + 1, True], "the new run")
    again.wait_for()


def test_two_classes_do_not_stretch_the_axis_to_rounding(reader):
    reader.kernel("[lab.reset(type(RECIPE)(**vars(RECIPE) | {'classes': 2})), lab.run(30)] and None")
    reader.wait_for(lambda: reader.step() == 30, "the last picture")
    assert not any("etf" in key for key in reader.kernel("[*lab.runs[-1].frames[-1].metrics]"))  # 0 to rounding
    ticks = [word[0] for word in reader.words("curves") if word[0].startswith("1e−")]
    assert all(int(tick.removeprefix("1e−")) <= 12 for tick in ticks)
