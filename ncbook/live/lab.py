"""The live lab: a recipe trains in the background, under sliders that act on its next step."""

from __future__ import annotations

import atexit
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch

from ncbook.checks import check_choice, check_integer, check_number
from ncbook.live.controls import Box, Deck, describe, plan_name
from ncbook.live.panels import PANELS, SIX, Moves, animation, figure, frame_moves, line_moves
from ncbook.live.plot import Plot
from ncbook.live.record import CURVES, Frame, Recorder, Run
from ncbook.schedules import SlidingSchedule
from ncbook.training.data import Dataset
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer

MAX_RUNS = 8
_WINDOW, _AHEAD = 100, 20  # frames
_LONG = 3600.0  # seconds
_SMALL = 10**6  # parameters


class LiveLab(Box):
    """Trains a recipe in the background; what its sliders are set to holds from the next training step on.

    One daemon thread trains, and only it writes to the figure; `run` does the same steps in the caller's thread. A
    kernel has one lab: a new one closes the one before. `trainer` is the live `Trainer`, of exactly this recipe until a
    control is moved; `runs` are the recorded runs, newest last, at most MAX_RUNS; `error` is the exception that stopped
    training, or None. An order that fails (a data set that is not there, a file that cannot be written) stops nothing:
    `status`, the status line, says what was wrong.

    recipe: what to begin with. data: a data set in the place of the recipe's. panels: names in `PANELS`. curves: keys
    of `METRICS`, or "loss", with "test_" before those of the test set. frames_per_second: how often to draw, at most.
    patience: training pauses after so many seconds without a word from the page.
    Raises: what the recipe or data make `Trainer` raise, ValueError for an unknown panel or curve; an open lab stays.
    """

    trainer: Trainer
    _recipe: Recipe
    _data: Dataset | None
    _recorder: Recorder
    _open: LiveLab | None = None
    _closed = True

    def __init__(self, recipe: Recipe | None = None, *, data: Dataset | None = None, panels: Sequence[str] = SIX,
                 curves: Sequence[str] = CURVES, frames_per_second: float = 11, patience: float = 60):
        if recipe is None:
            schedule = SlidingSchedule(1.1, 0.1, 40)
            recipe = Recipe(classes=3, head="nearest", clouds=(8, 16), schedule=schedule, epochs=40, lr=0.05)
        if not panels:
            raise ValueError("panels must name at least one panel, got none")
        self._panels, self._curves = tuple(check_choice("panels", name, PANELS) for name in panels), tuple(curves)
        self._interval = 1 / check_number("frames_per_second", frames_per_second, positive=True)
        self._patience = patience
        self._lock = threading.Lock()
        self._orders: list[tuple[Callable[[Any], None], Any]] = []
        self._training = threading.RLock()  # held by whoever steps and draws
        self._wake, self._running, self._moving, self._due = threading.Event(), False, False, 0
        self._worker: threading.Thread | None = None
        self._next_step, self._next_frame, self._awaited, self._last_answer = 0.0, 0.0, 0, 0.0
        self.error: Exception | None = None
        self.runs: list[Run] = []
        self._view: list[Run] = []
        self._count = 0
        recorder = self._record(recipe, data, {})
        self._plot = Plot(figure([recorder.run]))
        self._deck = Deck(recipe, lambda values: self._ask(self._change, values), self._look, {
            "Start": self.start, "Pause": self.pause, "Step": self.step, "Reset": self.reset,
            "Follow schedule": self.follow, "Export": lambda: self._ask(self._export, "live_lab.html")})
        if LiveLab._open is not None:
            LiveLab._open.close()
        self._closed = False
        self._plot.observe(self._on_drawn, names="drawn")
        super().__init__([*self._deck.rows, self._plot, self._deck.foot])
        LiveLab._open = self
        atexit.register(self.close)
        self._adopt(recipe, data, recorder)

    @property
    def status(self) -> str:
        """What the status line says."""
        return self._deck.status

    def start(self) -> None:
        """Train until the recipe's last epoch or `pause`."""
        self._running, self._last_answer = True, 0.0
        self._ensure_worker()

    def pause(self) -> None:
        """Stop after the step that is under way."""
        self._running = False
        self._wake.set()

    def step(self) -> None:
        """One training step, then pause."""
        self._running, self._due = False, self._due + 1
        self._ensure_worker()

    def reset(self) -> None:
        """Begin anew with the recipe that the controls show, training or not as before."""
        self._ask(self._reset)

    def follow(self) -> None:
        """Give the regulariser's dials, β and the weight, back to the schedule."""
        self._ask(self._follow)

    def set(self, **values) -> None:
        """Move controls as a hand would.

        dataset, classes, method and epochs begin a new run; schedule, beta0, weight0, p, lr, speed and the dials of the
        regulariser, of densification beta and densify_weight, act on the one that is on. Raises: ValueError and
        TypeError for another name or a value that is not accepted.
        """
        self._ask(self._change, self._deck.accept(self._recipe, values))

    def run(self, steps: int, *, every: int = 10) -> None:
        """Train `steps` steps, or to the last epoch, in this thread, with a frame after every `every`.

        An exception ends it and is kept in `error`, as it is in the background, until the next reset.
        """
        check_integer("steps", steps, least=0)
        check_integer("every", every, least=1)
        with self._training, self._guard():
            self._running = False
            self._take_orders()
            for k in range(1, steps + 1):
                if self.trainer.finished or self.error is not None:
                    break
                self.trainer.step()
                if k % every == 0 or k == steps or self.trainer.finished:
                    self._draw(self._recorder.take())

    def figure(self, *runs: Run) -> go.Figure:
        """One run (by default the newest) or two at the same epochs, as an animation that needs no kernel."""
        return animation(*(runs or self.runs[-1:]))

    def export(self, path: str | Path, *runs: Run) -> Path:
        """Write `figure(*runs)` as one HTML file, about 5 MB, that plays by itself in any browser."""
        path = Path(path)
        self.figure(*runs).write_html(path, include_plotlyjs=True, auto_play=False)
        return path

    def close(self) -> None:
        """Stop the thread and close all widgets."""
        if self._closed:
            return
        atexit.unregister(self.close)
        self._closed, self._running = True, False
        self._wake.set()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(timeout=10)
        if LiveLab._open is self:
            LiveLab._open = None
        super().close()

    # What follows up to _show runs with self._training held.

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            wait: float | None = _LONG
            with self._training, self._guard():
                self._take_orders()
                wait = self._turn()
            if wait:
                self._wake.wait(wait)

    def _turn(self) -> float | None:
        """One step if one is due; returns how long to sleep until there may be something to do."""
        now = time.monotonic()
        single = self._due > 0
        if self.trainer.finished or self.error is not None:
            self._running, single, self._due = False, False, 0
        if not (self._running or single):
            if self._moving:
                self._moving = False
                self._draw(self._recorder.take())
            return _LONG
        if not single and now < self._next_step:
            return self._next_step - now
        self._moving = True
        self._next_step = now + 1 / self._deck.speed.value
        self.trainer.step()
        self._due -= single
        if single or self.trainer.finished or (now >= self._next_frame and self._page_is_ready(now)):
            begun = time.monotonic()
            self._draw(self._recorder.take())
            self._moving = not single
            end = time.monotonic()
            self._next_frame = max(self._next_frame + self._interval, end + (end - begun))
        return None

    def _page_is_ready(self, now: float) -> bool:
        """Whether at most three frames are not known to be drawn, so that they don't pile up; always without a page."""
        if not self._last_answer or self._plot.drawn >= self._awaited - 3:
            return True
        if now > self._last_answer + self._patience:
            self._running = False
            self._deck.note("the page has not answered for a while; Start goes on")
        return False

    @contextmanager
    def _guard(self):
        with few_threads(self.trainer):
            try:
                yield
            except Exception as error:
                self.error, self._running, self._moving, self._due = error, False, False, 0
                self._deck.say(f"stopped by {type(error).__name__}: {error}; Reset starts anew", failed=True)

    def _take_orders(self) -> None:
        with self._lock:
            orders, self._orders = self._orders, []
        if orders:
            self._deck.note("")
        for obey, value in orders:
            try:
                obey(value)
            except Exception as error:  # the order's, and not the run's
                self._deck.note(f"{type(error).__name__}: {error}", failed=True)
                self._deck.show(self._recipe, self._data)

    def _reset(self, _) -> None:
        self._begin(self._recipe, self._data)

    def _change(self, values: dict[str, Any]) -> None:
        """Act on controls that were moved, the dials last: in a new run, if there is one."""
        try:
            if chosen := {name: value for name, value in values.items() if name in self._deck.views}:
                self._rewrite(chosen)
        finally:
            controls, dials = self.trainer.controls, values.keys() & self._deck.dials.keys()
            vars(controls).update({name: values[name] for name in dials}, manual=controls.manual or bool(dials))
            self._redraw()

    def _rewrite(self, chosen: dict[str, Any]) -> None:
        """Let the recipe be what the views ask for, in a new run where one of them needs it."""
        recipe, run, controls = self._deck.rewrite(self._recipe, chosen), self.runs[-1], self.trainer.controls
        data = None if recipe.dataset != self._recipe.dataset else self._data
        if recipe != self._recipe and any(self._deck.views[name].restarts for name in chosen):
            return self._begin(recipe, data)
        self._recipe = recipe
        vars(controls).update({name: getattr(recipe, name) for name in chosen.keys() & {"lr", "p"}})
        if chosen.keys() & {"schedule", "beta0", "weight0"}:
            self.trainer.recipe = dataclasses.replace(self.trainer.recipe, schedule=recipe.schedule)
            controls.manual = False
            run.follow(recipe.schedule, self.trainer.steps / self.trainer.steps_per_epoch)
            self._show([run])
        self._deck.show(recipe, data)

    def _follow(self, _) -> None:
        self.trainer.controls.manual = False
        self._redraw()

    def _export(self, path: str) -> None:
        self._deck.note(f"wrote {self.export(path, *self._view)}")

    def _replay(self, chosen: tuple[list[Run], int]) -> None:
        """Show a recorded frame of a run and, beside it, the other run's at the same epoch."""
        runs, index = chosen
        if runs and runs != self._view:
            self._show(runs)
        self._moving = False
        moves: Moves = {}
        first = self._view[0].frames[min(index, len(self._view[0].frames) - 1)]
        for slot, run in enumerate(self._view):
            moves |= frame_moves(run, run.at(first.epoch), slot) | line_moves(run, run.frames, slot)
        self._plot.move(moves)
        self._deck.say(f"replay: epoch {first.epoch:.2f}; Start goes on with training")

    def _record(self, recipe: Recipe, data: Dataset | None, dials: Mapping[str, float]) -> Recorder:
        takes = {name: PANELS[name].take for name in self._panels}
        return Recorder(recipe, data, takes, self._curves, f"{self._count + 1}: {describe(recipe)}", dials)

    def _begin(self, recipe: Recipe, data: Dataset | None) -> None:
        """A new run, or an error and the old one. Without a schedule the dials stay where they are."""
        dials = self.runs[-1].frames[-1].dials.keys() if recipe.schedule is None else ()
        recorder = self._record(recipe, data, {name: getattr(self.trainer.controls, name) for name in dials})
        self._plot.show(figure([recorder.run]))
        self._adopt(recipe, data, recorder)

    def _adopt(self, recipe: Recipe, data: Dataset | None, recorder: Recorder) -> None:
        self._recipe, self._data, self._recorder, self.trainer = recipe, data, recorder, recorder.trainer
        self.error, self._due, self._count = None, 0, self._count + 1
        kept = [run for run in self.runs if len(run.frames) > 1][-MAX_RUNS + 1 :]
        self.runs, self._view = [*kept, recorder.run], [recorder.run]
        self._deck.show(recipe, data)
        self._deck.list_runs(self.runs)
        self._draw(recorder.run.frames[-1])

    def _redraw(self) -> None:
        """At rest, show what the dials are set to now."""
        if not self._running and self.error is None:
            frame = self.runs[-1].frames[-1]
            dials = {name: getattr(self.trainer.controls, name) for name in frame.dials}
            self._draw(frame._replace(dials=dials))

    def _draw(self, frame: Frame) -> None:
        """Show a frame of the newest run as the present one."""
        run = self.runs[-1]
        if self._view != [run]:
            self._show([run])
        moves = frame_moves(run, frame)
        moves |= line_moves(run, run.frames[-_WINDOW:], ahead=_AHEAD if self._running else 0)
        with self._lock:
            if not self._orders:  # or a hand may have moved them
                self._deck.show_dials(frame.dials)
        if len(run.frames) % 10 == 0 or not self._running:
            self._deck.show_frames(len(run.frames), at=len(run.frames) - 1)
        hand = self.trainer.controls.manual or self.trainer.recipe.schedule is None
        lead = "by hand" if hand else f"following {plan_name(self.trainer.recipe.schedule)}"
        doing = "training" if self._running else "finished, Reset starts anew" if self.trainer.finished else "paused"
        dials = ", ".join(f"{slider.description} {frame.dials[name]:.3g}" for name, slider in self._deck.dials.items())
        self._deck.say(f"{doing}: epoch {frame.epoch:.2f} of {self.trainer.recipe.epochs}, step {frame.step}; "
                       f"{dials} {lead}")
        self._awaited = self._plot.move(moves)

    def _show(self, runs: Sequence[Run]) -> None:
        self._plot.show(figure(runs))
        self._view = list(runs)
        self._deck.show_frames(len(runs[0].frames))

    # Callbacks of the page: they only leave orders for the thread.

    def _on_drawn(self, _) -> None:
        self._last_answer = time.monotonic()

    def _look(self, runs: list[Run], index: int) -> None:
        self._running = False
        self._ask(self._replay, (runs, index))

    def _ask(self, obey: Callable[[Any], None], value: Any = None) -> None:
        with self._lock:
            if self._orders and self._orders[-1][0] == obey:  # the later one holds
                before = self._orders.pop()[1]
                value = before | value if isinstance(value, dict) else value
            self._orders.append((obey, value))
        self._ensure_worker()

    def _ensure_worker(self) -> None:
        if self._worker is None and not self._closed:
            self._worker = threading.Thread(target=self._work, name="live lab", daemon=True)
            self._worker.start()
        self._wake.set()


@contextmanager
def few_threads(trainer: Trainer):
    """One thread for a small network, which is faster with it, far so beside other work; else all cores but one.

    Restores the number afterwards: MKL's is that of the whole process.
    """
    small = sum(p.numel() for p in trainer.backbone.parameters()) < _SMALL
    before = torch.get_num_threads()
    torch.set_num_threads(1 if small else max(1, (os.cpu_count() or 1) - 1))  # the page needs a core, too
    try:
        yield
    finally:
        torch.set_num_threads(before)
