"""The live lab: the same widgets in this process, and in a kernel that gets what a browser would send."""

import base64
import json
import re
import threading
import time

import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ncbook import live
from ncbook.etf import simplex_etf_distance
from ncbook.live import LiveLab, Run
from ncbook.persistence import h0_death_times
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer

RECIPE = Recipe(dataset="gaussians", classes=3, backbone="mlp", head="nearest", clouds=(6, 5), epochs=4, lr=0.02,
                schedule=SlidingSchedule(1.0, 0.1, 4), device="cpu")
LONG = Recipe(**(vars(RECIPE) | {"epochs": 1000, "schedule": SlidingSchedule(1.0, 0.1, 1000)}))


@pytest.fixture
def lab():
    lab = LiveLab(RECIPE)
    yield lab
    lab.close()


@pytest.fixture
def long_lab():
    lab = LiveLab(LONG)
    yield lab
    lab.close()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "live lab"]


def test_untouched_it_trains_as_the_recipe_says(lab):
    trainer = Trainer(RECIPE)
    lab.run(150, every=20)
    for _ in range(150):
        trainer.step()
    assert lab.error is None and lab.trainer.steps == 150
    for ours, theirs in zip(lab.trainer.backbone.parameters(), trainer.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_frame_shows_what_the_trainer_knows(lab):
    lab.run(40)
    frame, shot = lab.runs[-1].frames[-1], lab.trainer.snapshot(test=False, indices=lab._indices)
    assert frame.step == 40 and frame.beta == shot.beta and frame.weight == shot.densify_weight
    assert frame.metrics["nc1"] == shot.train["nc1"] and 0 <= frame.metrics["test_accuracy"] <= 1
    assert np.array_equal(frame.deaths, shot.deaths.flatten().sort().values.numpy())
    centred = shot.class_means - shot.class_means.mean(0)
    assert np.isclose(frame.cosines[0, 1], torch.cosine_similarity(centred[0], centred[1], dim=0).item(), atol=1e-6)


def test_the_page_gets_the_frame(lab):
    lab.run(30)
    fig, sent = json.loads(lab._plot._figure), lab._plot._moves["moves"]
    at = {trace["meta"]: str(i) for i, trace in enumerate(fig["data"])}
    frame = lab.runs[-1].frames[-1]
    assert np.frombuffer(sent[at["0 β"]]["x"], np.float32) == pytest.approx([frame.beta] * 2)
    bars = [np.frombuffer(sent[at[f"0 {name}"]]["x"], np.float32)[1::3] for name in live._BARS]
    assert np.array_equal(np.where(np.isnan(bars[0]), bars[1], bars[0]), frame.deaths)
    assert np.nanmax(bars[0], initial=0) < frame.beta <= np.nanmin(bars[1], initial=np.inf)
    assert np.frombuffer(sent[at["0 features"]]["y"], np.float32).size == len(lab._indices)
    cells = fig["data"][int(at["0 cosines"])]
    colors = np.frombuffer(sent[at["0 cosines"]]["marker"]["color"], np.float32)
    assert {(y, x): color for y, x, color in zip(cells["y"], cells["x"], colors, strict=True)} == {
        (a, b): frame.cosines[i, j] for i, a in enumerate("012") for j, b in enumerate("012") if i != j}


def test_while_it_trains_the_curves_have_room_ahead(long_lab):
    def last(label):
        at = next(k for k, t in enumerate(json.loads(long_lab._plot._figure)["data"]) if t["meta"] == f"0 {label}")
        return [np.frombuffer(long_lab._plot._moves["moves"][str(at)][axis], np.float32)[-1] for axis in "xy"]

    long_lab.start()
    wait_until(lambda: len(long_lab.runs[-1].frames) > 5)
    long_lab._training.acquire()
    (epoch, value), now = last("NC1"), long_lab._frame.epoch
    long_lab._training.release()
    assert epoch > now and np.isnan(value)
    long_lab.pause()
    wait_until(lambda: "paused" in long_lab._status.value)
    assert last("NC1") == pytest.approx([long_lab._frame.epoch, long_lab._frame.metrics["nc1"]])


def test_touching_a_slider_takes_over_and_follow_gives_back(lab):
    lab.run(3)
    assert not lab.trainer.controls.manual
    lab._controls["beta"].value = 2.5
    lab.run(1)
    assert lab.trainer.controls.manual and lab.trainer.controls.beta == 2.5
    assert "by hand" in lab._status.value
    lab._buttons["Follow schedule"].click()
    lab.run(1)
    assert not lab.trainer.controls.manual
    assert lab.trainer.controls.beta == RECIPE.schedule.beta(1)
    assert lab._controls["beta"].value == pytest.approx(RECIPE.schedule.beta(1), abs=1 / 128)


def test_what_a_browser_rounds_is_not_a_hand(lab):
    lab._controls["beta"].value += 1e-12
    lab._controls["lr"].value *= 1.001
    lab.run(1)
    assert not lab.trainer.controls.manual and lab.trainer.lr == RECIPE.lr


def test_norm_rate_and_schedule_act_on_the_run_that_is_on(lab):
    lab.run(2)
    lab._controls["p"].value, lab._controls["lr"].value = np.inf, 0.5
    lab._controls["schedule"].value = "constant"
    lab.run(1)
    assert (lab.trainer.controls.p, lab.trainer.controls.lr) == (np.inf, 0.5)
    assert lab.trainer.recipe.schedule == ConstantSchedule(1.0, 0.1) and lab.trainer.steps == 3


def test_a_choice_that_needs_a_new_run_resets(lab):
    lab.run(5)
    lab._controls["method"].value = "fixed"
    lab._controls["classes"].value = 4
    lab.run(2)
    assert lab.trainer.steps == 2 and lab.trainer.recipe.head == "fixed" and lab.trainer.data.num_classes == 4
    assert [len(run.class_names) for run in lab.runs] == [3, 4]
    assert any(trace["type"] == "scatter3d" for trace in json.loads(lab._plot._figure)["data"])


@pytest.mark.parametrize(("head", "schedule"), [("learned", None), ("cosine", DelayedSchedule(1.0, 0.1, 2))])
def test_any_head_and_schedule_of_a_recipe_is_kept(head, schedule):
    recipe = Recipe(**(vars(RECIPE) | {"head": head, "schedule": schedule}))
    lab = LiveLab(recipe)
    lab.run(2)
    assert lab.error is None and lab.trainer.recipe == recipe
    lab.close()


def test_a_recipe_without_clouds_is_refused():
    with pytest.raises(ValueError, match="clouds"):
        LiveLab(Recipe(dataset="gaussians", backbone="mlp"))


def test_background_training_pauses_steps_and_goes_on(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 20)
    long_lab.pause()
    wait_until(lambda: "paused" in long_lab._status.value)
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


def test_frames_wait_for_a_page_that_is_slow(long_lab):
    long_lab._interval = 0.0
    long_lab.start()
    wait_until(lambda: long_lab._plot._sent > 5)
    long_lab._plot.drawn = long_lab._plot._sent  # the page says so; from here on it says nothing
    time.sleep(0.5)
    sent, steps = long_lab._plot._sent, long_lab.trainer.steps
    wait_until(lambda: long_lab.trainer.steps > steps + 20)
    assert long_lab._plot._sent == sent
    long_lab._plot.drawn = sent
    wait_until(lambda: long_lab._plot._sent > sent)


def test_it_pauses_when_the_page_is_gone(long_lab, monkeypatch):
    monkeypatch.setattr(live, "_SILENCE", 0.2)
    long_lab._interval = 0.0
    long_lab.start()
    wait_until(lambda: long_lab._plot._sent > 5)
    long_lab._plot.drawn = long_lab._plot._sent
    wait_until(lambda: not long_lab._running)
    assert "not answered" in long_lab._status.value or "paused" in long_lab._status.value


def test_a_new_lab_ends_the_worker_of_the_one_before(long_lab):
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 0)
    other = LiveLab(LONG)
    assert not workers()
    other.start()
    assert len(workers()) == 1
    other.close()
    assert not workers() and LiveLab._open is None


def test_an_error_shows_and_leaves_the_controls_usable(long_lab, monkeypatch):
    def fail():
        raise RuntimeError("no <b>luck</b>")

    monkeypatch.setattr(long_lab.trainer, "step", fail)
    long_lab.start()
    wait_until(lambda: long_lab.error is not None)
    assert "RuntimeError: no &lt;b&gt;luck" in long_lab._status.value and len(workers()) == 1
    long_lab.reset()
    wait_until(lambda: long_lab.error is None)
    long_lab.start()
    wait_until(lambda: long_lab.trainer.steps > 5)
    assert long_lab.error is None


def test_data_that_cannot_be_had_is_an_error_in_the_status_line(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))
    lab.run(2)
    lab._controls["dataset"].value = "mnist"
    lab.run(1)
    assert lab.trainer.steps == 2 and isinstance(lab.error, RuntimeError) and "NCBOOK_DATA" in lab._status.value
    lab._controls["dataset"].value = "gaussians"
    lab.run(1)
    assert lab.error is None and lab.trainer.steps == 1


def test_divergence_is_an_error_in_the_status_line(lab):
    lab.trainer.backbone[1].weight.data.fill_(float("nan"))
    lab.run(1)
    assert isinstance(lab.error, ValueError) and "NaN" in lab._status.value


def frame_at(epoch):
    empty = np.empty(0, dtype=np.float32)
    return live.Frame(epoch, int(epoch * 10), {}, {}, empty, empty, 0.0, 0.0)


def test_recorded_frames_are_bounded_and_cover_the_run():
    run = Run("", RECIPE, ("0", "1"), None)
    for k in range(20_000):
        run.record(frame_at(k / 10))
    epochs = [frame.epoch for frame in run.frames]
    assert live.MAX_FRAMES / 2 <= len(epochs) <= live.MAX_FRAMES
    assert epochs[0] == 0 and epochs[-1] > 1900 and len(set(np.diff(epochs).round(6))) == 1
    assert run.at(1000.2).epoch == pytest.approx(1000.2, abs=3.2)


def test_a_frame_is_small(lab):
    lab.run(10)
    frame = lab.runs[-1].frames[-1]
    arrays = [*frame.geometry.values(), frame.deaths, frame.cosines]
    assert sum(array.nbytes for array in arrays) < 8_000


def test_old_runs_go(lab):
    for _ in range(live.MAX_RUNS + 3):
        lab.reset()
        lab.run(2, every=1)
    assert len(lab.runs) == live.MAX_RUNS
    assert lab._shown_run.options[-1][1] is lab.runs[-1]


def test_the_scrubber_replays_and_two_runs_are_shown_at_the_same_epoch(lab):
    lab.run(60, every=5)
    lab._controls["schedule"].value, lab._controls["beta0"].value = "constant", 0.0
    lab.reset()
    lab.run(60, every=10)
    first, second = lab.runs
    lab._shown_run.value, lab._beside.value = first, second
    lab._scrubber.value = 4
    wait_until(lambda: lab._plot._moves["moves"] and "replay: epoch 0.2" in lab._status.value)
    at = {trace["meta"]: str(i) for i, trace in enumerate(json.loads(lab._plot._figure)["data"])}
    shown = [np.frombuffer(lab._plot._moves["moves"][at[f"{slot} now shares"]]["x"], np.float32)[0] for slot in (0, 1)]
    assert shown == pytest.approx([first.frames[4].epoch] * 2)


def test_scrubbing_while_it_trains_pauses_at_the_frame(long_lab):
    long_lab.start()
    wait_until(lambda: len(long_lab.runs[-1].frames) > 10)
    long_lab._scrubber.value = 3
    wait_until(lambda: "replay" in long_lab._status.value)
    time.sleep(0.1)
    assert "replay" in long_lab._status.value and not long_lab._running


def test_an_exported_run_needs_nothing_else(lab, tmp_path):
    lab.run(60, every=5)
    fig = lab.figure()
    assert len(fig.frames) == len(lab.runs[0].frames) and fig.layout.sliders[0].steps[-1].label == "0.6"
    page = lab.export(tmp_path / "run.html").read_text()
    assert "Plotly.addFrames" in page and len(page) < 9e6
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)


def test_at_most_two_runs_are_put_beside_each_other(lab):
    with pytest.raises(ValueError, match="one or two"):
        live.animation(*[lab.runs[0]] * 3)


def controls(panel):
    return {widget.description: widget for row in panel.children[:-1] for widget in row.children}


def title(panel):
    layout = json.loads(panel.children[-1]._figure)["layout"]
    return layout["title"]["text"] + " " + layout["title"]["subtitle"]["text"]


def points(panel, name):
    """The points (n, 2) of a trace of the figure that the page has."""
    trace = next(t for t in json.loads(panel.children[-1]._figure)["data"] if t.get("name") == name)
    columns = [np.frombuffer(base64.b64decode(trace[axis]["bdata"]), trace[axis]["dtype"]) for axis in "xy"]
    return torch.tensor(np.stack(columns, 1).astype(float))


def test_simplex_scrubber():
    panel = live.simplex_scrubber()
    sliders = controls(panel)
    assert "109.5° to 109.5° (ETF: 109.5°)" in title(panel) and "ETF 0.0000" in title(panel)
    sliders["classes"].value, sliders["rotation"].value = 3, 1.3
    assert "120.0° to 120.0°" in title(panel) and "ETF 0.0000" in title(panel)
    sliders["noise"].value = 0.5
    assert "ETF 0.0000" not in title(panel)
    sliders["classes"].value, sliders["dimension"].value = 8, 1
    assert "8 classes in 7 dimensions" in title(panel)


def test_nearest_etf_explorer():
    panel = live.nearest_etf_explorer()
    sliders = controls(panel)
    sliders["angle (°)"].value, sliders["radius"].value = 90, 2

    free = points(panel, "nearest ETF")[:3]
    means = torch.tensor([[0.0, 2.0], [-0.3, 0.8], [-0.6, -0.7]], dtype=torch.float64)
    assert f"{float(simplex_etf_distance(means)):.4f}" in title(panel)
    assert simplex_etf_distance(free) < 1e-10
    sliders["pull ρ"].value = 4
    assert (points(panel, "nearest ETF")[:3] - free).norm() > 0.1


def test_radius_explorer():
    panel = live.radius_explorer()
    sliders = controls(panel)
    deaths = h0_death_times(points(panel, "points"))
    for radius in (0.0, 0.7, 3.0):
        sliders["distance"].value = radius
        assert f" {1 + int((deaths > radius).sum())} component" in title(panel)


def test_without_a_kernel_a_line_of_text_is_left(lab):
    assert repr(lab) == "LiveLab: run this cell in JupyterLab to use it"


# The widget protocol: what the page sends, to a real kernel.

SETUP = """
import json
from ncbook import Recipe, SlidingSchedule
from ncbook.live import LiveLab

lab = LiveLab(Recipe(dataset="gaussians", classes=3, backbone="mlp", head="nearest", clouds=(6, 5), epochs=1000, lr=0.02,
                     schedule=SlidingSchedule(1.0, 0.1, 1000), device="cpu"))
widgets = {**lab._controls, **lab._buttons, "scrubber": lab._scrubber, "plot": lab._plot}
print(json.dumps({name: widget.model_id for name, widget in widgets.items()}))
"""
STATE = """
c = lab.trainer.controls
print(json.dumps(dict(steps=lab.trainer.steps, beta=c.beta, weight=c.weight, manual=c.manual, head=lab.trainer.recipe.head,
                      status=lab._status.value, error=repr(lab.error), sent=lab._plot._sent, runs=len(lab.runs))))
"""


class Page:
    """Sends to the kernel what widgets in a page send."""

    def __init__(self, client):
        self.client = client
        self.models = json.loads(self.run(SETUP))

    def run(self, code):
        cell = new_code_cell(code)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return "".join(output.text for output in cell.outputs if output.output_type == "stream")

    def send(self, name, data):
        content = {"comm_id": self.models[name], "data": data}
        self.client.kc.shell_channel.send(self.client.kc.session.msg("comm_msg", content))

    def set(self, name, value, trait="value"):
        self.send(name, {"method": "update", "state": {trait: value}, "buffer_paths": []})

    def click(self, name):
        self.send(name, {"method": "custom", "content": {"event": "click"}})

    def state(self):
        return json.loads(self.run(STATE))

    def wait_for(self, condition):
        state = self.state()
        end = time.monotonic() + 30
        while not condition(state):
            assert time.monotonic() < end, json.dumps(state)
            time.sleep(0.05)
            state = self.state()
        return state


def test_sliders_and_buttons_over_the_widget_protocol():
    client = NotebookClient(new_notebook(), kernel_name="python3", timeout=120)
    with client.setup_kernel():
        page = Page(client)
        page.click("Start")
        page.wait_for(lambda s: s["steps"] > 10 and s["sent"] > 2)
        page.set("beta", 2.25)
        state = page.wait_for(lambda s: s["manual"])
        assert state["beta"] == 2.25
        page.set("weight", 0.5)
        page.wait_for(lambda s: s["weight"] == 0.5)
        page.click("Follow schedule")
        page.wait_for(lambda s: not s["manual"] and s["beta"] <= 1)
        page.click("Pause")
        steps = page.wait_for(lambda s: "paused" in s["status"])["steps"]
        page.click("Step")
        page.wait_for(lambda s: s["steps"] == steps + 1)
        page.set("scrubber", 1)
        page.wait_for(lambda s: "replay" in s["status"])
        page.set("method", 1, "index")
        state = page.wait_for(lambda s: s["runs"] == 2)
        assert state["steps"] == 0 and state["head"] == "fixed" and state["error"] == "None"
