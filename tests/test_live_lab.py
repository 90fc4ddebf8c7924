"""The live lab in the background: pace, orders that fail, scenarios, and what the page is sent."""

import re
import threading
import time

import numpy as np
import pytest
import torch
from live_hands import LONG, RECIPE, Page, wait_until

from ncbook.live import MAX_RUNS, PANELS, Drawing, LiveLab, Panel
from ncbook.training.data import load_dataset
from ncbook.training.snapshot import Diverged


@pytest.fixture
def long_lab():
    lab = LiveLab(LONG, frames_per_second=1000)
    lab.set(speed="full")
    yield lab
    lab.close()


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "live lab"]


def doing(lab):
    return lab.status.partition(":")[0]


# Training.

def test_background_training_pauses_steps_and_goes_on(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 20)
    long_lab.pause()
    wait_until(lambda: doing(long_lab) == "paused")
    time.sleep(0.1)
    steps = long_lab.trainer.steps
    time.sleep(0.2)
    assert long_lab.trainer.steps == steps == long_lab.runs[-1].frames[-1].step
    long_lab.step()
    wait_until(lambda: long_lab.trainer.steps == steps + 1)
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > steps + 20)
    long_lab.reset()
    wait_until(lambda: len(long_lab.runs) == 2)
    assert long_lab.error is None and len(workers()) == 1


def test_it_begins_slowly_and_then_goes_faster(lab):
    lab.trainer.steps = 0
    assert lab._rate() == 10
    lab.trainer.steps = 100
    assert lab._rate() == 10
    lab.trainer.steps = 400
    assert lab._rate() == 80
    lab.set(speed="full")
    lab.run(0)
    assert lab._rate() == np.inf


def test_slow_motion_takes_its_time():
    lab = LiveLab(LONG)
    lab.start()
    wait_until(lambda: lab.trainer.steps > 1)
    begun, steps = time.monotonic(), lab.trainer.steps
    time.sleep(1)
    assert lab.trainer.steps - steps <= 10 * (time.monotonic() - begun) + 1
    lab.close()


def test_a_lab_begins_when_a_page_shows_it_but_not_when_a_script_has_touched_it(monkeypatch):
    lab = LiveLab(LONG)
    Page(lab, monkeypatch, begins=True)
    wait_until(lambda: lab.trainer.steps > 0)
    other = LiveLab(LONG)
    other.run(0)
    page = Page(other, monkeypatch, begins=True)
    wait_until(lambda: page.frames)
    time.sleep(0.3)
    assert other.trainer.steps == 0
    other.close()


def test_a_new_lab_ends_the_worker_of_the_one_before(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 0)
    other = LiveLab(LONG)
    assert not workers() and long_lab.comm is None
    other.start()
    assert len(workers()) == 1
    other.close()
    assert not workers()


def test_small_networks_train_on_one_thread_and_the_number_is_restored(monkeypatch):
    seen = set()
    count = Panel("columns", lambda *_: np.array([seen.add(torch.get_num_threads())] * 0))
    monkeypatch.setitem(PANELS, "threads", count)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    lab = LiveLab(LONG, panels=("bars", "threads"))
    seen.clear()
    lab.run(3)
    assert seen == {1} and torch.get_num_threads() == 2
    seen.clear()
    lab.start()
    wait_until(lambda: len(lab.runs[-1].frames) > 6)
    lab.close()
    assert seen == {1} and torch.get_num_threads() == 2
    torch.set_num_threads(before)


# Errors.

def test_an_error_shows_and_leaves_the_controls_usable(long_lab, monkeypatch):
    def fail():
        raise RuntimeError("no <b>luck</b>")

    page = Page(long_lab, monkeypatch)
    monkeypatch.setattr(long_lab.trainer, "step", fail)
    long_lab.start()
    wait_until(lambda: long_lab.error is not None)
    assert "RuntimeError: no <b>luck" in long_lab.status and len(workers()) == 1
    wait_until(lambda: "no <b>luck" in page.state["doing"] and page.state["failed"])
    long_lab.reset()
    wait_until(lambda: long_lab.error is None)
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 5)
    assert long_lab.error is None


def test_divergence_stops_it_and_says_so(lab):
    lab.trainer.backbone[1].weight.data.fill_(float("nan"))
    lab.run(1)
    assert isinstance(lab.error, Diverged) and "NaN" in lab.status
    lab.reset()
    lab.run(1)
    assert lab.error is None and lab.trainer.steps == 1


def test_data_that_cannot_be_had_leave_the_run_and_its_menus(lab, page, monkeypatch, tmp_path):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    lab.run(2)
    assert "mnist (download)" in page.state["controls"]["dataset"]["options"]
    page.set(dataset="mnist (download)")
    lab.run(1)
    assert lab.error is None and lab.trainer.steps == 3 and lab.trainer.recipe == RECIPE
    assert page.state["controls"]["dataset"]["value"] == "gaussians" and page.state["failed"]
    note = page.state["note"]
    assert note.startswith("mnist is not on this machine") and len(note) < 100 and str(tmp_path) not in note
    lab.set(beta=1.5)
    lab.run(1)
    assert page.state["note"] == "" and not page.state["failed"]


def test_an_order_that_fails_does_not_take_the_others_with_it(lab, page):
    page.set(classes=1)
    page.set(beta=2.0)
    page.set(beta="high")
    lab.run(1)
    assert lab.error is None and lab.trainer.recipe == RECIPE
    assert "beta must be a finite number" in lab.status and page.state["controls"]["classes"]["value"] == "3"
    page.set(beta=2.0)
    lab.run(1)
    assert lab.trainer.controls.beta == 2


def test_an_order_of_another_page_for_a_run_that_is_gone_is_named(lab, page):
    page.do("want", 99)
    lab.run(0)
    assert lab.error is None and "run must be" in lab.status


@pytest.mark.parametrize("given", [dict(panels=("bars", "none")), dict(panels=()), dict(curves=("none",)),
                                   dict(only=("none",))])
def test_unknown_panels_curves_and_controls_are_refused(given):
    with pytest.raises(ValueError, match="none"):
        LiveLab(RECIPE, **given)


# What the page is sent.

def test_the_page_gets_each_recorded_frame_once(lab, page):
    lab.run(30)
    lab.run(30)
    frames = lab.runs[-1].frames
    assert [float(f["step"]) for f in page.frames[1]] == [frame.step for frame in frames] == list(range(61))
    sent = [message for message, _ in page.got if message["type"] == "frames"]
    assert sum(len(message["looks"]) for message in sent) == 61
    assert page.last["dials"][0] == np.float32(frames[-1].beta)


def test_a_page_that_is_opened_again_gets_the_whole_run(lab, page):
    lab.run(40)
    page.frames.clear()
    page.do("hello")
    lab.run(0)
    assert len(page.frames[1]) == 41 and page.state["doing"] == "paused" and lab.trainer.steps == 40


def test_frames_wait_for_a_page_that_is_slow_and_recording_does_not(long_lab, monkeypatch):
    page = Page(long_lab, monkeypatch)
    long_lab.start()
    wait_until(lambda: long_lab._sent > 5)
    page.do("drawn", long_lab._sent)  # the page says so; from here on it says nothing
    wait_until(lambda: long_lab._sent >= long_lab._drawn + 4)
    time.sleep(0.2)
    sent, steps = long_lab._sent, long_lab.trainer.steps
    wait_until(lambda: long_lab.trainer.steps > steps + 40)
    assert long_lab._sent == sent and long_lab.runs[-1].frames[-1].step > steps
    page.do("drawn", sent)
    wait_until(lambda: long_lab._sent > sent)
    gaps = np.diff([frame.step for frame in long_lab.runs[-1].frames[:100]])
    assert (gaps == 1).all()


def test_it_pauses_when_the_page_is_gone(monkeypatch):
    lab = LiveLab(LONG, frames_per_second=1000, patience=0.2)
    page = Page(lab, monkeypatch)
    page.set(speed="full")
    lab.start()
    wait_until(lambda: lab._sent > 5)
    page.do("drawn", lab._sent)
    wait_until(lambda: doing(lab) == "paused")
    time.sleep(0.1)
    steps = lab.trainer.steps
    time.sleep(0.1)
    assert "has not answered" in lab.status and lab.trainer.steps == steps
    lab.start()
    wait_until(lambda: lab.trainer.steps > steps)
    lab.close()


def test_what_a_screen_reader_is_told_does_not_change_with_every_frame(lab, page):
    lab.run(1)
    page.got.clear()
    lab.run(30)
    told = [message for message, _ in page.got if message["type"] == "state"]
    assert all("note" not in message and "controls" not in message for message in told)


# Runs.

def test_old_runs_go_but_not_those_that_are_kept(lab, page):
    lab.run(1)
    page.do("name", {"id": 1, "name": "the first", "kept": True})
    for _ in range(MAX_RUNS + 3):
        lab.reset()
        lab.run(2)
    assert len(lab.runs) == MAX_RUNS and lab.runs[0].label == "1: the first"
    assert [run["id"] for run in page.state["runs"]] == [run.number for run in lab.runs]


def test_an_older_run_is_sent_when_it_is_asked_for(lab, page):
    lab.run(20)
    lab.reset()
    lab.run(5)
    page.frames.pop(1)
    page.do("want", 1)
    lab.run(0)
    assert [float(f["step"]) for f in page.frames[1]] == list(range(21))


def test_two_networks_train_step_by_step(lab, page):
    page.do("scenario", "Standard and nearest")
    lab.run(5)
    first, second = lab.runs[-2:]
    assert [run.recipe.head for run in (first, second)] == ["cosine", "nearest"]
    assert first.frames[-1].step == second.frames[-1].step >= 5
    assert page.state["live"] == [first.number, second.number]
    lab.set(beta=2.0)
    lab.reset()
    lab.run(2)
    assert [run.recipe.head for run in lab.runs[-2:]] == ["cosine", "nearest"]
    lab.set(method="fixed")
    lab.run(1)
    assert lab.runs[-1].recipe.head == "fixed" and len(page.state["live"]) == 1


# Points of the plane.

def test_a_point_that_is_dragged_moves_in_the_run_that_is_on(lab, page):
    lab.run(5)
    page.do("points", {"move": [[3, 0.25, -0.5]]})
    lab.run(1)
    assert lab.trainer.steps == 6 and lab.trainer.data.train_inputs[3].tolist() == [0.25, -0.5]
    assert page.runs[1]["input"]["points"][3] == [0.25, -0.5] and "points moved" in lab.runs[-1].label
    lab.reset()
    lab.run(1)
    assert lab.trainer.data.train_inputs[3].tolist() == [0.25, -0.5]


def test_points_are_added_and_removed_in_a_new_run(lab, page):
    page.do("points", {"add": [[2.0, 2.0, 1]], "remove": [0, 1]})
    lab.run(1)
    data = lab.trainer.data
    assert len(data.train_targets) == 599 and data.train_inputs[-1].tolist() == [2, 2] and data.train_targets[-1] == 1
    page.do("points", {"move": [[0, 9.0, 9.0], [598, 1.0, 2.0]]})
    lab.run(1)
    assert lab._drawing == Drawing({2: (9.0, 9.0)}, ((1.0, 2.0, 1),), (0, 1))
    page.do("points", {"remove": list(range(198))})
    lab.run(1)
    assert "a class must keep at least one point" in lab.status and len(lab.trainer.data.train_targets) == 599
    page.set(dataset="unconstrained")
    lab.run(1)
    assert lab._drawing == Drawing() and lab.error is None


def test_drawings_are_of_points_in_the_plane():
    with pytest.raises(ValueError, match="points in the plane"):
        Drawing({0: (1.0, 1.0)}).apply(load_dataset("digits"))
    with pytest.raises(ValueError, match="those that are there"):
        Drawing().then(5, move=[(7, 0.0, 0.0)])


# Code and export.

def test_the_code_makes_the_state_again(lab, page):
    page.set(method="fixed", p="L∞", lr=0.5)
    page.do("points", {"move": [[3, 0.25, -0.5]]})
    page.do("points", {"add": [[2.0, 2.0, 1]]})
    page.set(beta=3.0)
    lab.run(1)
    page.do("code")
    lab.run(0)
    code, recipe, data = lab.code(), lab.trainer.recipe, lab.trainer.data
    assert any(message.get("code") == code for message, _ in page.got)
    names = {}
    exec(code, names)
    again = names["lab"]
    again.run(1)
    assert again.trainer.recipe == recipe and again.trainer.controls.beta == 3
    assert torch.equal(again.trainer.data.train_inputs, data.train_inputs)
    again.close()


def test_an_exported_run_needs_nothing_else(lab, page, tmp_path):
    lab.run(60)
    lab.set(method="fixed")
    lab.run(20)
    path = lab.export(tmp_path / "runs.html", *lab.runs)
    text = path.read_text()
    assert '<html lang="en">' in text and "<title>Neural collapse: gaussians" in text and "sliding 1/0.1" in text
    assert "<figcaption>1: gaussians" in text and len(text) < 2e6
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    page.do("export", [1])
    lab.run(0)
    message, (html,) = next(sent for sent in page.got if sent[0]["type"] == "export")
    assert message["name"] == "live_lab_1.html" and html.startswith(b"<!DOCTYPE html>")
    with pytest.raises(ValueError, match="one or two"):
        lab.export(tmp_path / "three.html", *lab.runs, lab.runs[0])


def test_a_small_lab_has_the_controls_that_it_is_given(monkeypatch):
    lab = LiveLab(RECIPE, only=("method", "beta"))
    page = Page(lab, monkeypatch)
    lab.run(1)
    assert page.state["only"] == ["method", "beta"]
    assert [panel["name"] for panel in page.runs[1]["panels"]] == ["geometry", "curves"]
    assert "only=('method', 'beta')" in lab.code()
    lab.close()


def test_without_a_kernel_a_line_of_text_is_left(lab):
    assert repr(lab) == "LiveLab: run this cell in JupyterLab to use it"
