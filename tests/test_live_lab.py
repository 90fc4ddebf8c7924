"""The live lab in the background: pausing, orders that fail, replay, and the page that it waits for."""

import re
import threading
import time

import numpy as np
import pytest
import torch
from live_hands import LONG, RECIPE, hands, page, plot_of, wait_until

from ncbook.live import MAX_RUNS, PANELS, LiveLab, Panel
from ncbook.training.snapshot import Diverged


@pytest.fixture
def lab():
    lab = LiveLab(RECIPE)
    yield lab
    lab.close()


@pytest.fixture
def long_lab():
    lab = LiveLab(LONG, frames_per_second=1000)
    yield lab
    lab.close()


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "live lab"]


def test_the_page_gets_the_frame(lab):
    lab.run(30)
    traces, frame = page(lab), lab.runs[-1].frames[-1]
    assert traces["0 bars β"]["x"] == pytest.approx([frame.beta] * 2)
    assert np.array_equal(traces["0 cosines cosines"]["marker"]["color"],
                          frame.parts["cosines"][~np.eye(3, dtype=bool)])


def test_background_training_pauses_steps_and_goes_on(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 20)
    long_lab.pause()
    wait_until(lambda: "paused" in long_lab.status)
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


def test_curves_have_room_ahead_just_while_it_trains(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.runs[-1].frames[-1].step > 50 and np.isnan(page(long_lab)["0 decaying NC1"]["y"][-1]))
    long_lab.pause()
    wait_until(lambda: "paused" in long_lab.status and not np.isnan(page(long_lab)["0 decaying NC1"]["y"][-1]))


def test_frames_wait_for_a_page_that_is_slow(long_lab):
    plot = plot_of(long_lab)
    long_lab.start()
    wait_until(lambda: plot.sent > 5)
    plot.drawn = plot.sent  # the page says so; from here on it says nothing
    time.sleep(0.5)
    sent, steps = plot.sent, long_lab.trainer.steps
    wait_until(lambda: long_lab.trainer.steps > steps + 20)
    assert plot.sent == sent
    plot.drawn = sent
    wait_until(lambda: plot.sent > sent)


def test_it_pauses_when_the_page_is_gone():
    lab = LiveLab(LONG, frames_per_second=1000, patience=0.2)
    plot = plot_of(lab)
    lab.start()
    wait_until(lambda: plot.sent > 5)
    plot.drawn = plot.sent
    wait_until(lambda: "paused" in lab.status)
    steps = lab.trainer.steps
    time.sleep(0.1)
    assert "has not answered" in lab.status and lab.trainer.steps == steps
    lab.start()
    wait_until(lambda: lab.trainer.steps > steps)
    lab.close()


def test_a_new_lab_ends_the_worker_of_the_one_before(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 0)
    other = LiveLab(LONG)
    assert not workers()
    assert all(widget.comm is None for widget in (*hands(long_lab).values(), plot_of(long_lab), long_lab))
    other.start()
    assert len(workers()) == 1
    other.close()
    assert not workers()


def test_small_networks_train_on_one_thread_and_the_number_is_restored(monkeypatch):
    seen = set()
    monkeypatch.setitem(PANELS, "threads", Panel(lambda cell, run: None, lambda run, frame: {},
                                                 take=lambda shot: seen.add(torch.get_num_threads())))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    lab = LiveLab(LONG, panels=("bars", "threads"))
    seen.clear()
    lab.run(3, every=1)
    assert seen == {1} and torch.get_num_threads() == 2
    seen.clear()
    lab.start()
    wait_until(lambda: len(lab.runs[-1].frames) > 8)
    lab.close()
    assert seen == {1} and torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_an_error_shows_and_leaves_the_controls_usable(long_lab, monkeypatch):
    def fail():
        raise RuntimeError("no <b>luck</b>")

    monkeypatch.setattr(long_lab.trainer, "step", fail)
    long_lab.start()
    wait_until(lambda: long_lab.error is not None)
    assert "RuntimeError: no <b>luck" in long_lab.status and len(workers()) == 1
    assert any("no &lt;b&gt;luck" in getattr(child, "value", "") for child in long_lab.children)
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


def test_data_that_cannot_be_had_leave_the_run_and_its_menus(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    lab.run(2)
    hands(lab)["data"].value = "mnist"
    lab.run(1)
    assert lab.error is None and lab.trainer.steps == 3 and lab.trainer.recipe == RECIPE
    assert "NCBOOK_DATA" in lab.status and hands(lab)["data"].value == "gaussians"
    lab.set(beta=1.5)
    lab.run(1)
    assert "NCBOOK_DATA" not in lab.status


def test_an_export_that_fails_leaves_the_run_training(long_lab, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "live_lab.html").mkdir()
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 5)
    hands(long_lab)["Export"].click()
    wait_until(lambda: "IsADirectoryError" in long_lab.status)
    steps = long_lab.trainer.steps
    wait_until(lambda: long_lab.trainer.steps > steps + 20)
    assert long_lab.error is None and "training" in long_lab.status
    (tmp_path / "live_lab.html").rmdir()
    hands(long_lab)["Export"].click()
    wait_until(lambda: "wrote live_lab.html" in long_lab.status)
    assert "Plotly.addFrames" in (tmp_path / "live_lab.html").read_text()


def test_an_order_that_fails_does_not_take_the_others_with_it(lab):
    lab.set(classes=1, beta=2.0)
    lab.run(1)
    assert lab.error is None and lab.trainer.recipe == RECIPE and lab.trainer.controls.beta == 2
    assert "ValueError" in lab.status and hands(lab)["classes"].value == 3


def test_old_runs_go(lab):
    for _ in range(MAX_RUNS + 3):
        lab.reset()
        lab.run(2, every=1)
    assert len(lab.runs) == MAX_RUNS
    assert hands(lab)["replay"].options[-1][1] is lab.runs[-1]


def test_the_scrubber_replays_and_two_runs_are_shown_at_the_same_epoch(lab):
    lab.run(60, every=5)
    lab.set(schedule="constant", beta0=0.0)
    lab.reset()
    lab.run(60, every=10)
    first, second = lab.runs
    hands(lab)["replay"].value, hands(lab)["beside"].value = first, second
    hands(lab)["frame"].value = 4
    lab.run(0)
    wait_until(lambda: "replay: epoch 0.2" in lab.status)
    traces = page(lab)
    assert [traces[f"{slot} shares now"]["x"][0] for slot in (0, 1)] == pytest.approx([first.frames[4].epoch] * 2)


def test_scrubbing_while_it_trains_pauses_at_the_frame(long_lab):
    long_lab.start()
    wait_until(lambda: len(long_lab.runs[-1].frames) > 10)
    hands(long_lab)["frame"].value = 3
    wait_until(lambda: "replay" in long_lab.status)
    steps = long_lab.trainer.steps
    time.sleep(0.1)
    assert "replay" in long_lab.status and long_lab.trainer.steps == steps


def test_an_exported_run_needs_nothing_else(lab, tmp_path):
    lab.run(60, every=5)
    fig = lab.figure()
    assert len(fig.frames) == len(lab.runs[0].frames) and fig.layout.sliders[0].steps[-1].label == "0.6"
    text = lab.export(tmp_path / "run.html").read_text()
    assert "Plotly.addFrames" in text and len(text) < 9e6
    assert not re.search(r"<(script|link)[^>]+(src|href)=", text)


@pytest.mark.parametrize("given", [dict(panels=("bars", "none")), dict(panels=()), dict(curves=("none",))])
def test_unknown_panels_and_curves_are_refused(given):
    with pytest.raises(ValueError, match="none"):
        LiveLab(RECIPE, **given)


def test_without_a_kernel_a_line_of_text_is_left(lab):
    assert repr(lab) == "LiveLab: run this cell in JupyterLab to use it"
