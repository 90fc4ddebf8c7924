"""The engine of the live lab: one thread that trains under orders, and what it records. It knows no page."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ncbook.checks import check_choice, check_integer
from ncbook.heads import HEADS
from ncbook.live.controls import PACED, SPEEDS, Controls
from ncbook.live.drawing import Drawing
from ncbook.live.panels import PANELS
from ncbook.live.record import DENSE, Recorder, Run, plan_name
from ncbook.live.scenarios import FIRST, SCENARIOS, Scenario
from ncbook.training.data import Dataset, load_dataset
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer

MAX_RUNS = 8
_SLOW = 10  # steps a second, of the first DENSE steps
_LONG = 3600.0  # seconds
_SMALL = 10**6  # parameters
Order = tuple[Callable[[Any], None], Any]


class Engine:
    """Trains a recipe, or two step by step, in a daemon thread or in the caller's, under controls.

    What a hand, a page or a script asks for is left as an order; whoever trains takes all orders between two steps. A
    display overrides `_draw`, `_draw_if_due` and `_tell`, which do nothing here but record.
    """

    trainer: Trainer
    _closed = True
    _live: list[Recorder]
    _scene: Scenario
    _recipe: Recipe
    _given: Dataset | None
    _drawing: Drawing
    _controls: Controls

    def __init__(self, recipe: Recipe | None, data: Dataset | None, panels: Sequence[str], curves: Sequence[str]):
        self._panels, self._curves = tuple(panels), tuple(curves)
        self._lock = threading.Lock()
        self._orders: list[Order] = []
        self._training = threading.RLock()  # held by whoever steps and draws
        self._wake, self._running, self._moving, self._due = threading.Event(), False, False, 0
        self._worker: threading.Thread | None = None
        self._next_step, self._speed, self._untouched, self._closed = 0.0, SPEEDS[PACED], True, False
        self.error: Exception | None = None
        self.runs: list[Run] = []
        self._count, self._note, self._failed = 0, "", False
        self._begun: Counter[str] = Counter()
        scene = SCENARIOS[FIRST]._replace(name=FIRST) if recipe is None else Scenario("", recipe)
        self._begin(scene, data, Drawing(), fresh=True)
        self._initial = self._scene, data

    def start(self) -> None:
        """Train until the recipe's last epoch or `pause`."""
        self._running = True
        self._ensure_worker()

    def pause(self) -> None:
        """Stop after the step that is under way."""
        self._running = self._untouched = False
        self._wake.set()

    def step(self) -> None:
        """One training step, then pause."""
        self._running, self._due = False, self._due + 1
        self._ensure_worker()

    def reset(self, recipe: Recipe | None = None) -> None:
        """Begin anew: with what the controls show, training or not as before, or paused with a recipe, and with every
        control as it says.

        Raises what the recipe makes `LiveLab` raise, later, in `status`.
        """
        self._untouched = False
        if recipe is not None:  # so that no step comes between this and the next order
            self._running, self._due = False, 0
        self._ask(self._reset, recipe)

    def follow(self) -> None:
        """Give the regulariser's dials, β and the weight, back to the schedule."""
        self._ask(self._follow)

    def set(self, **values: Any) -> None:
        """Move controls as a hand would.

        dataset, classes, method, epochs and seed begin a new run; schedule, beta0, weight0, p, lr, speed and the dials
        of the regulariser, of densification beta and densify_weight, act on the one that is on. Raises: ValueError and
        TypeError for another name or a value that is not accepted.
        """
        self._untouched = False
        self._ask(self._change, self._controls.accept(self._recipe, values))

    def run(self, steps: int) -> None:
        """Train `steps` steps, or to the last epoch, in this thread, recorded as in the background.

        An exception ends it and is kept in `error`, as it is in the background, until the next reset.
        """
        check_integer("steps", steps, least=0)
        with self._training, self._guard():
            self._take_orders()
            self._running = self._untouched = False
            for _ in range(steps):
                if self.trainer.finished or self.error is not None:
                    break
                for recorder in self._live:
                    recorder.step()
                self._draw_if_due(time.monotonic())
            if self.error is None:
                self._draw()

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
                self._draw()
            return _LONG
        if not single and now < self._next_step:
            return self._next_step - now
        self._moving, self._untouched = True, False
        self._next_step = now + 1 / self._rate()
        for recorder in self._live:
            recorder.step()
        self._due -= single
        if single or self.trainer.finished:
            self._draw()
            self._moving = not single
        self._draw_if_due(now)
        return None

    def _rate(self) -> float:
        """Steps a second; paced, the steps of a run's first minute are spread over it almost as its log axis is."""
        if self._speed is not None:
            return self._speed
        return _SLOW * max(1.0, self.trainer.steps / DENSE) ** 1.5

    @contextmanager
    def _guard(self):
        with few_threads(self.trainer):
            try:
                yield
            except Exception as error:
                self.error, self._running, self._moving, self._due = error, False, False, 0
                self._tell()

    def _take_orders(self) -> None:
        with self._lock:
            orders, self._orders = self._orders, []
        if orders:
            self._note, self._failed = "", False
        for obey, value in orders:
            try:
                obey(value)
            except Exception as error:  # the order's, and not the run's
                self._say(_short(error), failed=True)
        if orders:
            self._tell()

    def _change(self, values: dict[str, Any]) -> None:
        """Act on controls that were moved, the dials last: in a new run, if there is one."""
        if "speed" in values:
            self._speed, self._next_step = values["speed"], 0.0
        try:
            if chosen := {name: value for name, value in values.items() if name in self._controls.views}:
                self._rewrite(chosen)
        finally:
            if dials := {name: values[name] for name in values.keys() & self._controls.dials.keys()}:
                for recorder in self._live:
                    vars(recorder.trainer.controls).update(dials, manual=True)
                if self._recipe.schedule is not None:
                    self._happened("by hand")

    def _rewrite(self, chosen: dict[str, Any]) -> None:
        """Let the recipe be what the views ask for, in a new run where one of them needs it."""
        recipe, views = self._controls.rewrite(self._recipe, chosen), self._controls.views
        if recipe != self._recipe and any(views[name].restarts for name in chosen):
            same = recipe.dataset == self._recipe.dataset
            if not same:
                self._say(f"loading {recipe.dataset} …")
                self._tell()
            drawing = self._drawing if same and recipe.classes == self._recipe.classes else Drawing()
            scene = Scenario("", recipe, None if "method" in chosen else self._scene.beside)
            self._begin(scene, self._given if same else None, drawing)
            return self._say("")
        self._recipe = recipe
        for recorder in self._live:
            controls = vars(recorder.trainer.controls)
            controls.update({name: getattr(recipe, name) for name in chosen.keys() & {"lr", "p"}})
            if chosen.keys() & {"schedule", "beta0", "weight0"}:
                ours = recorder.trainer.recipe
                recorder.trainer.recipe = dataclasses.replace(ours, schedule=recipe.schedule)
                recorder.trainer.controls.manual = False
        for name in chosen.keys() - {"beta0", "weight0"}:
            self._happened({"lr": f"lr {recipe.lr:g}", "p": f"L{recipe.p:g}"}.get(name, plan_name(recipe.schedule)))
        if chosen.keys() & {"beta0", "weight0"}:
            self._happened(f"{plan_name(recipe.schedule)} {self._plan()}")

    def _plan(self) -> str:
        return "/".join(f"{value:g}" for name, value in self._recipe.schedule.settings.items() if name != "epochs")

    def _happened(self, words: str) -> None:
        for recorder in self._live:
            if recorder.trainer.steps:
                recorder.run.note(recorder.run.frames[-1].epoch, words)

    def _follow(self, _) -> None:
        for recorder in self._live:
            recorder.trainer.controls.manual = False

    def _reset(self, recipe: Recipe | None) -> None:
        if recipe is None:
            self._begin(self._scene._replace(recipe=self._recipe), self._given, self._drawing)
            return self._say("Begun anew." if self._running else "Begun anew and paused: Play starts it.")
        self._begin(Scenario("", recipe), None, Drawing(), fresh=True)

    def _defaults(self, _: Any) -> None:
        self._begin(*self._initial, Drawing(), fresh=True)

    def _set_scene(self, name: str) -> None:
        scene = SCENARIOS[check_choice("scenario", name, SCENARIOS)]
        recipe, speed = dataclasses.replace(scene.recipe, device=self._recipe.device), self._speed
        self._begin(scene._replace(recipe=recipe, name=name), None, Drawing(), fresh=True)
        self._speed = speed
        self.start()

    def _move_points(self, edit: dict[str, Any]) -> None:
        """Points of the plane that were dragged, in the run that is on; added or taken away, in a new one."""
        base = _data_of(self._recipe, self._given)
        drawing = self._drawing.then(len(base.train_targets), **edit)
        if edit.keys() != {"move"}:
            return self._begin(self._scene._replace(recipe=self._recipe), self._given, drawing)
        data, self._drawing = drawing.apply(base), drawing
        for recorder in self._live:
            recorder.replace_data(data, drawing)
        self._happened("points moved")
        self._draw(anew=True)

    def _begin(self, scene: Scenario, given: Dataset | None, drawing: Drawing, *, fresh: bool = False) -> None:
        """A new run, or two side by side; or an error and the old one.

        Without a schedule the dials stay where they are; in a `fresh` beginning they stand where the scene has them."""
        recipe, stand = scene.recipe, dict(scene.dials or {})
        controls = Controls(recipe) if fresh else self._controls
        if recipe.schedule is None and not fresh:
            stand = {name: getattr(self.trainer.controls, name) for name in controls.dials}
        data = drawing.apply(_data_of(recipe, given)) if drawing else given
        takes = {name: PANELS[name].take for name in self._panels}
        recipes = [dataclasses.replace(recipe, **scene.beside), recipe] if scene.beside else [recipe]
        titles = self._titles(scene.name, recipes)
        live = [Recorder(each, data, takes, self._curves, self._count + 1 + k, stand, drawing, titles[k], scene.tip)
                for k, each in enumerate(recipes)]
        self._begun[scene.name] += 1
        self._scene, self._recipe, self._given, self._drawing = scene, recipe, given, drawing
        self._controls, self._speed = controls, SPEEDS[PACED] if fresh else self._speed
        self._live, self.trainer, self._count = live, live[-1].trainer, self._count + len(live)
        self.error, self._due, self._next_step = None, 0, 0.0
        old = [run for run in self.runs if len(run.frames) > 1 or run.kept]
        while len(old) > MAX_RUNS - len(live):
            old.remove(next((run for run in old if not run.kept), old[0]))
        self.runs = [*old, *(recorder.run for recorder in live)]
        self._draw()

    def _titles(self, name: str, recipes: Sequence[Recipe]) -> list[str]:
        """What the next runs of a scenario are called."""
        again = self._begun[name] + 1
        title = name and name + f" ({again})" * (again > 1)
        return [f"{HEADS[recipe.head].method}: " * bool(title and recipes[1:]) + title for recipe in recipes]

    def _draw(self, anew: bool = False) -> None:
        """Record the live runs as they stand; `anew`: and what was recorded has changed."""
        for recorder in self._live:
            recorder.take()

    def _draw_if_due(self, now: float) -> None:
        """Draw if it is time to."""

    def _tell(self) -> None:
        """Say what has changed beside the frames."""

    def _doing(self) -> str:
        if self.error is not None:
            return f"stopped by {type(self.error).__name__}: {self.error}; Reset starts anew"
        if self._running:
            return "training"
        return "finished" if self.trainer.finished else "paused" if self.trainer.steps else "ready"

    @property
    def _by_hand(self) -> bool:
        return self.trainer.controls.manual or self.trainer.recipe.schedule is None

    def _stop(self) -> None:
        """End the thread."""
        self._closed, self._running = True, False
        self._wake.set()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(timeout=10)

    def _say(self, note: str, *, failed: bool = False) -> None:
        self._note, self._failed = note, failed

    def _ask(self, obey: Callable[[Any], None], value: Any = None) -> None:
        with self._lock:
            if self._orders and self._orders[-1][0] == obey == self._change:
                value = self._orders.pop()[1] | value  # the later one holds
            self._orders.append((obey, value))
        self._ensure_worker()

    def _ensure_worker(self) -> None:
        if self._worker is None and not self._closed:
            self._worker = threading.Thread(target=self._work, name="live lab", daemon=True)
            self._worker.start()
        self._wake.set()


def _data_of(recipe: Recipe, given: Dataset | None) -> Dataset:
    return given or load_dataset(recipe.dataset, classes=recipe.classes, train_size=recipe.train_size,
                                 split=recipe.split)


def _short(error: Exception) -> str:
    """What the status line says of an order that failed."""
    text = str(error)
    if isinstance(error, RuntimeError) and "NCBOOK_DATA" in text:
        name = text.split("'")[1]
        return f"{name} is not on this machine and could not be downloaded: see NCBOOK_DATA in the README"
    return f"{type(error).__name__}: {text}"


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
