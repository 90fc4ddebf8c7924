"""The live lab: a widget that shows an engine, and whose controls are its orders."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget

from ncbook.checks import check_choice, check_number
from ncbook.live import page
from ncbook.live.code import code_of
from ncbook.live.controls import SPEEDS
from ncbook.live.engine import Engine
from ncbook.live.panels import PANELS, chosen_panels
from ncbook.live.record import CURVES, Frame, Run, describe, plan_name
from ncbook.live.scenarios import SCENARIOS
from ncbook.training.data import Dataset
from ncbook.training.recipe import Recipe


class LiveLab(Engine, anywidget.AnyWidget):
    """Trains a recipe in the background; what its controls are set to holds from the next training step on.

    One daemon thread trains, and only it writes to the page; `run` does the same steps in the caller's thread. A kernel
    has one lab: a new one closes the one before. `trainer` is the live `Trainer`, of exactly this recipe until a hand
    moves a control; `runs` are the recorded runs, newest last, at most MAX_RUNS; `error` is the exception that stopped
    training, or None. An order that fails (a data set that is not there, a value that is not accepted) stops nothing:
    `status` says what was wrong. A lab that no script has touched begins to train when a page first shows it.

    recipe: what to begin with, by default the scenario "Collapse". data: a data set in the place of the recipe's.
    panels: names in `PANELS`. curves: keys of `METRICS`, or "loss", with "test_" before those of the test set. only:
    names of controls, as `set` takes them; the lab is then a small one, with geometry, curves, Play, Reset and these.
    frames_per_second: how often to draw, at most. patience: training pauses after so many seconds without a word from
    the page.
    Raises: what the recipe or data make `Trainer` raise, ValueError for an unknown panel, curve or control; an open lab
    stays.
    """

    _esm = page.script()
    _css = page.style()
    _open: LiveLab | None = None

    def __init__(self, recipe: Recipe | None = None, *, data: Dataset | None = None,
                 panels: Sequence[str] | None = None, curves: Sequence[str] = CURVES, only: Sequence[str] = (),
                 frames_per_second: float = 15, patience: float = 60):
        names = chosen_panels((("geometry", "curves") if only else PANELS) if panels is None else panels)
        self._interval = 1 / check_number("frames_per_second", frames_per_second, positive=True)
        self._patience, self._watching = patience, False
        self._next_frame, self._last_answer, self._sent, self._drawn = 0.0, 0.0, 0, 0
        self._page: dict[int, list[Frame]] = {}
        self._told: dict[str, Any] = {}
        Engine.__init__(self, recipe, data, names, curves)
        self._only = tuple(check_choice("only", name, [*self._controls.views, *self._controls.dials]) for name in only)
        if LiveLab._open is not None:
            LiveLab._open.close()
        anywidget.AnyWidget.__init__(self)
        LiveLab._open = self
        self.on_msg(self._hear)
        atexit.register(self.close)

    def __repr__(self) -> str:
        return "LiveLab: run this cell in JupyterLab to use it"

    @property
    def status(self) -> str:
        """What the lab is doing, and what came of the last order."""
        frame, controls = self.runs[-1].frames[-1], self.trainer.controls
        dials = ", ".join(f"{dial.label} {getattr(controls, name):.3g}" for name, dial in self._controls.dials.items())
        lead = "by hand" if self._by_hand else f"following {plan_name(self.trainer.recipe.schedule)}"
        text = (f"{self._doing()}: epoch {frame.epoch:.2f} of {self.trainer.recipe.epochs}, step {frame.step}; "
                f"{dials} {lead}")
        return f"{text} · {self._note}" if self._note else text

    def start(self) -> None:
        self._last_answer = 0.0
        super().start()

    def code(self) -> str:
        """The cell that makes this state: recipe, drawn data, and where a hand has put the dials."""
        led = self._by_hand and self._recipe.clouds
        dials = {name: getattr(self.trainer.controls, name) for name in self._controls.dials} if led else {}
        return code_of(self._recipe, self._drawing, dials, self._only)

    def export(self, path: str | Path, *runs: Run) -> Path:
        """Write one run (by default the newest), or two beside each other, as an HTML page that plays by itself.

        Raises: ValueError for more than two.
        """
        path = Path(path)
        path.write_text(_standalone(runs or self.runs[-1:]), encoding="utf-8")
        return path

    def close(self) -> None:
        """Stop the thread and close the widget."""
        if self._closed:
            return
        atexit.unregister(self.close)
        self._stop()
        if LiveLab._open is self:
            LiveLab._open = None
        super().close()

    # What follows up to _hear runs with self._training held.

    def _draw(self, anew: bool = False) -> None:
        super()._draw()
        if not self._watching:
            return
        self._sent += 1
        for run in (recorder.run for recorder in self._live):
            if anew or run.number not in self._page:
                self._page[run.number] = []
                self.send(page.run_message(run))
            self._stream(run)
        self._tell()
        self.send({"type": "drawn", "number": self._sent})

    def _stream(self, run: Run) -> None:
        """Send what the page has not of a run."""
        have, frames = self._page[run.number], run.frames
        keep = min(len(have), len(frames))
        keep = next((k for k in range(keep) if have[k] is not frames[k]), keep)
        if frames[keep:] or have[keep:]:
            self.send(*page.frames_message(run, frames[keep:], keep))
        self._page[run.number] = frames[:]

    def _draw_if_due(self, now: float) -> None:
        if self._watching and now >= self._next_frame and self._page_is_ready(now):
            begun = time.monotonic()
            self._draw()
            end = time.monotonic()
            self._next_frame = max(self._next_frame + self._interval, end + (end - begun))

    def _page_is_ready(self, now: float) -> bool:
        """Whether at most three pictures are not known to be drawn, so that they don't pile up."""
        if not self._last_answer or self._drawn >= self._sent - 3:
            return True
        if now > self._last_answer + self._patience:
            self._running = False
            self._say("the page has not answered for a while; Play goes on")
            self._tell()
        return False

    def _tell(self) -> None:
        if not self._watching:
            return
        state = page.plain(self._state())
        if news := {key: value for key, value in state.items() if key not in self._told or self._told[key] != value}:
            self._told = state
            self.send({"type": "state"} | news)

    def _state(self) -> dict[str, Any]:
        return {
            "doing": self._doing(), "note": self._note, "failed": self._failed or self.error is not None,
            "speed": next(text for text, speed in SPEEDS.items() if speed == self._speed), "speeds": list(SPEEDS),
            "live": [recorder.run.number for recorder in self._live],
            "runs": [{"id": run.number, "label": run.label, "kept": run.kept} for run in self.runs],
            "controls": self._controls.show(self._recipe, self._given),
            "dials": self._controls.show_dials(self._recipe, self.trainer.controls),
            "manual": self.trainer.controls.manual, "plan": plan_name(self._recipe.schedule), "only": self._only,
            "scenarios": {name: scene.tip for name, scene in SCENARIOS.items()}, "scene": self._scene.name,
        }

    def _greet(self, _: Any) -> None:
        """A page is there: it gets everything; an untouched lab begins."""
        first, self._watching = not self._watching, True
        self._page, self._told, self._last_answer, self._drawn = {}, {}, 0.0, self._sent
        if first and self._untouched and not self.trainer.steps:
            self._running = True
        self._draw()

    def _give(self, number: int) -> None:
        """An older run for a page that has not seen it."""
        for message, buffers in page.messages([self._numbered(number)]):
            self.send(message, buffers)

    def _name(self, asked: dict[str, Any]) -> None:
        run = self._numbered(asked["id"])
        run.name, run.kept = str(asked.get("name", run.name)), bool(asked.get("kept", run.kept))

    def _send_export(self, numbers: Sequence[int]) -> None:
        runs = [self._numbered(number) for number in numbers]
        name = f"live_lab_{'_'.join(str(run.number) for run in runs)}.html"
        self.send({"type": "export", "name": name}, [_standalone(runs).encode()])

    def _send_code(self, _: Any) -> None:
        self.send({"type": "code", "code": self.code()})

    def _numbered(self, number: int) -> Run:
        runs = {run.number: run for run in self.runs}
        return runs[check_choice("run", number, runs)]

    def _hand(self, values: dict[str, Any]) -> None:
        self._change(self._controls.accept(self._recipe, values))

    # Callback of the page: it only leaves orders for the thread.

    def _hear(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        self._last_answer = time.monotonic()
        asked, value = content.get("do"), content.get("value", None)
        orders: dict[str, Callable[[Any], None]] = {
            "hello": self._greet, "reset": self._reset, "follow": self._follow, "defaults": self._defaults,
            "scenario": self._set_scene, "set": self._hand, "points": self._move_points, "want": self._give,
            "name": self._name, "export": self._send_export, "code": self._send_code}
        if asked == "drawn":
            self._drawn = content["value"]
        elif asked in ("start", "pause", "step"):  # in their turn, after what was asked before
            self._ask(lambda name: getattr(self, name)(), asked)
        elif asked in orders:
            self._ask(orders[asked], value)


def _standalone(runs: Sequence[Run]) -> str:
    if len(runs) > 2:
        raise ValueError(f"runs must be one or two, got {len(runs)}")
    state = {"type": "state", "doing": "recorded", "live": [run.number for run in runs],
             "runs": [{"id": run.number, "label": run.label, "kept": True} for run in runs]}
    title = "Neural collapse: " + " and ".join(run.name or describe(run.recipe, run.data) for run in runs)
    return page.standalone([*page.messages(runs), (state, [])], title, " · ".join(run.label for run in runs))
