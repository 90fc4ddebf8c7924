"""The scenarios of the lab: what they set, how their runs are called, and what the controls say of themselves."""

import pytest
from live_hands import Page, wait_until

from ncbook.live import SCENARIOS, LiveLab


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_sets_everything_and_starts(lab, page, name):
    lab.set(method="fixed", beta=3.0, speed=1, lr=2.0)
    lab.run(1)
    page.do("scenario", name)
    wait_until(lambda: page.state["doing"] == "training" and page.last["step"] > 0)
    scene = SCENARIOS[name]
    recipe = lab.trainer.recipe
    assert recipe == type(recipe)(**vars(scene.recipe) | {"device": "cpu"}) and not lab.trainer.controls.manual
    assert page.state["speed"] == "1 steps/s" and len(page.state["live"]) == 1 + bool(scene.beside)
    assert page.state["scene"] == name and page.runs[page.state["live"][-1]]["caption"] == scene.tip
    for dial, value in (scene.dials or {}).items():
        assert getattr(lab.trainer.controls, dial) == value
    lab.pause()


def test_runs_of_scenarios_have_their_names_and_any_other_beginning_has_none(lab, page):
    assert page.state.get("scene", "") == ""
    for name in ("Too early", "Too early", "Standard and nearest"):
        page.do("scenario", name)
        lab.run(2)
    page.do("reset")
    lab.run(2)
    assert [run.label for run in lab.runs] == [
        "Too early", "Too early (2)", "standard: Standard and nearest", "nearest: Standard and nearest",
        "standard: Standard and nearest (2)", "nearest: Standard and nearest (2)"]
    assert page.state["scene"] == "Standard and nearest"
    page.set(method="fixed")
    lab.run(1)
    assert page.state["scene"] == "" and lab.runs[-1].label.startswith("8: digits") and lab.runs[-1].caption == ""


def test_a_lab_without_a_recipe_begins_with_collapse(monkeypatch):
    lab = LiveLab()
    page = Page(lab, monkeypatch)
    lab.run(1)
    assert page.state["scene"] == "Collapse" == lab.runs[0].label
    assert page.runs[1]["caption"] == SCENARIOS["Collapse"].tip
    lab.close()


def test_reset_says_whether_it_goes_on(lab, page):
    lab.run(2)
    page.do("reset")
    lab.run(0)
    assert "paused" in page.state["note"] and "Play" in page.state["note"]
    lab._running = True
    page.do("reset")
    lab._take_orders()
    assert page.state["note"] == "Begun anew."


def test_the_scenarios_that_are_compared_differ_in_the_dials_alone():
    collapse, early, sliding = (vars(SCENARIOS[name].recipe) for name in ("Collapse", "Too early", "Sliding"))
    for other in (early, sliding):
        assert {name for name in collapse if collapse[name] != other[name]} == {"schedule"}


def test_dials_say_what_they_do_and_which_one_they_need(lab, page):
    lab.run(0)
    beta, weight = (page.state["dials"][name] for name in ("beta", "densify_weight"))
    assert "length of the bars" in beta["means"][0] and beta["needs"] == "densify_weight"
    assert "log" in weight["means"][0] and "logarithmic" in weight["means"][1] and weight["needs"] == ""
    assert all(control["tip"] for name, control in page.state["controls"].items() if name in ("beta0", "weight0", "p"))
