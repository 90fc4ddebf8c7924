"""Live widgets: training in the background under sliders, linked figures, replay and export; and small explorers."""

from __future__ import annotations

import atexit
import dataclasses
import html
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import anywidget
import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
import traitlets
from plotly.colors import sample_colorscale
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from ncbook import plots
from ncbook.etf import PROXIMAL, nearest_simplex_etf, simplex_etf, simplex_etf_distance
from ncbook.persistence import h0_death_times
from ncbook.schedules import ConstantSchedule, SlidingSchedule
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer

METHODS = {"standard": "cosine", "fixed": "fixed", "nearest": "nearest"}
SETS = {
    "digits": dict(backbone="small_cnn", train_size=None),
    "gaussians": dict(backbone="mlp", train_size=None),
    "unconstrained": dict(backbone="free_features", train_size=None),
    **{name: dict(backbone="mnist_cnn", train_size=250) for name in ("mnist", "fashion-mnist", "kmnist")},
    **{name: dict(backbone="small_cnn", train_size=1000) for name in ("svhn", "cifar10")},
}
MAX_FRAMES, MAX_RUNS = 600, 8
_SAMPLE, _WINDOW, _AHEAD, _EXPORTED = 200, 100, 20, 120
_LONG, _SILENCE = 3600.0, 60.0  # seconds
_WEIGHT_COLOR = "#C04F00"
_BARS = ("shorter than β", "longer than β")
_SYMBOLS = "● class means ◇ weights · features △ ETF"
_DECAYING = {  # label, colour, dash
    "nc1": ("NC1", "#222222", "solid"),
    "nc2_equinorm": ("NC2 norms", "#882255", "dash"),
    "nc2_equiangular": ("NC2 angles", "#882255", "dot"),
    "nc3": ("NC3", "#332288", "dashdot"),
    "etf_distance": ("ETF", "#8A5A2B", "longdash"),
}
_SHARES = {
    "accuracy": ("accuracy", "#222222", "solid"),
    "test_accuracy": ("test accuracy", "#222222", "dot"),
    "nc4": ("NC4", "#882255", "dashdot"),
}


class Frame(NamedTuple):
    """What one drawing shows; about 5 kB. geometry: trace name -> (points, dims); deaths ascending; cosines (C, C)."""

    epoch: float
    step: int
    metrics: dict[str, float]
    geometry: dict[str, np.ndarray]
    deaths: np.ndarray
    cosines: np.ndarray
    beta: float
    weight: float


@dataclasses.dataclass(eq=False)
class Run:
    """A recorded run: at most MAX_FRAMES frames; when they are full every second one goes and fewer are kept."""

    label: str
    recipe: Recipe
    class_names: tuple[str, ...]
    geometry: go.Figure
    frames: list[Frame] = dataclasses.field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    def record(self, frame: Frame) -> None:
        if self._seen % self._stride == 0:
            self.frames.append(frame)
        self._seen += 1
        if len(self.frames) >= MAX_FRAMES:
            del self.frames[1::2]
            self._stride *= 2

    def at(self, epoch: float) -> Frame:
        """The frame nearest to an epoch."""
        return min(self.frames, key=lambda frame: abs(frame.epoch - epoch))


class Plot(anywidget.AnyWidget):
    """A plotly figure in a page: `show` sends all of it, `move` just what changes in its traces.

    `drawn` is the number of the last move that the page has said it has drawn, so that a sender can wait for it; a page
    says so every third move or later, and when moves cease. A FigureWidget cannot say so, and answers every change with
    all that it knows of the figure.
    """

    _esm = get_plotlyjs() + """
    const Plotly = window.Plotly;
    const put = (into, values) => {
        for (const [key, v] of Object.entries(values))
            if (v instanceof DataView)
                into[key] = new Float32Array(v.buffer.slice(v.byteOffset, v.byteOffset + v.byteLength));
            else put(into[key], v);
    };
    const AT_ONCE = { mode: "immediate", frame: { duration: 0, redraw: false }, transition: { duration: 0 } };
    async function render({ model, el }) {
        const plot = el.appendChild(document.createElement("div"));
        let last = Promise.resolve(), done = -1;
        const queue = (task) => { last = last.then(task).catch((error) => console.error(error)); };
        let whole = 0, later;
        const redraw = async () => {
            await Plotly.redraw(plot);
            whole = performance.now();
        };
        const answer = () => {
            model.set("drawn", done);
            model.save_changes();
        };
        const settle = async () => {
            await redraw();
            answer();
        };
        const move = async () => {
            await new Promise((go) => setTimeout(go));  // take in what has come while the last one was drawn
            const { number, moves } = model.get("_moves");
            if (number === done) return;
            done = number;
            clearTimeout(later);
            put(plot.data, moves);
            const solid = plot.data.some((trace) => trace.type === "scatter3d");
            if (solid || performance.now() > whole + 1500) await redraw();
            else {
                // Moves lines and dots at half the cost, but does not touch axes, and would take heat maps away.
                const traces = Object.keys(moves).map(Number);
                await Plotly.animate(plot, { data: traces.map(() => ({})), traces }, AT_ONCE);
            }
            later = setTimeout(() => queue(solid ? answer : settle), 300);
            // Not each: an answer makes the kernel busy, then idle, and to show that costs JupyterLab half a drawing.
            if (number >= model.get("drawn") + 3) answer();
        };
        const show = async () => {
            const { data, layout } = JSON.parse(model.get("_figure"));
            await Plotly.react(plot, data, layout, { displaylogo: false });
            done = -1, whole = 0;
            await move();
        };
        queue(show);
        model.on("change:_figure", () => queue(show));
        model.on("change:_moves", () => queue(move));
        return () => { clearTimeout(later); model.off(); Plotly.purge(plot); };
    }
    export default { render };
    """
    _figure = traitlets.Unicode().tag(sync=True)
    _moves = traitlets.Dict().tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True, echo_update=False)

    def __init__(self, fig: go.Figure):
        self._sent, self._at = 0, {}
        super().__init__()
        self.show(fig)

    def show(self, fig: go.Figure) -> None:
        self._at = {trace.meta: i for i, trace in enumerate(fig.data)}
        with self.hold_sync():
            self._figure, self._moves = fig.to_json(), {"number": self._sent, "moves": {}}

    def move(self, moves: Mapping[str, dict]) -> int:
        """moves: `meta` of a trace -> property -> array or a dict of such. Returns the number `drawn` will have."""
        self._sent += 1
        packed = {str(self._at[meta]): _packed(values) for meta, values in moves.items() if meta in self._at}
        self._moves = {"number": self._sent, "moves": packed}
        return self._sent


def _packed(values: Mapping) -> dict:
    return {key: _packed(value) if isinstance(value, Mapping) else memoryview(np.asarray(value, np.float32, order="C"))
            for key, value in values.items()}


class Panel(widgets.VBox):
    """Widgets that need a running kernel; without one, a notebook keeps just this line of text."""

    def __repr__(self):
        return f"{type(self).__name__}: run this cell in JupyterLab to use it"


class LiveLab(Panel):
    """Trains a recipe in the background; what its sliders are set to holds from the next training step on.

    One daemon thread trains, and only it writes to the figure; `run` does the same steps in the caller's thread. A
    kernel has one lab: a new one closes the one before. `error` is the exception that stopped training, or None;
    `trainer` is the live `Trainer`; `runs` are the recorded runs, newest last, at most MAX_RUNS.

    recipe: what to begin with; its `clouds` are what the barcode shows. frames_per_second: how often to draw, at most.
    Raises: ValueError for a recipe without clouds.
    """

    _open: LiveLab | None = None
    _closed = True

    def __init__(self, recipe: Recipe | None = None, *, frames_per_second: float = 11):
        if recipe is None:
            schedule = SlidingSchedule(1.1, 0.1, 40)
            recipe = Recipe(classes=3, head="nearest", clouds=(8, 16), schedule=schedule, epochs=40, lr=0.05)
        if recipe.clouds is None:
            raise ValueError("recipe must have clouds=(b, n): the lab draws their death times")
        if LiveLab._open is not None:
            LiveLab._open.close()
        self.error: Exception | None = None
        self.runs: list[Run] = []
        self._base, self._interval = recipe, 1 / frames_per_second
        self._training = threading.RLock()  # held by whoever steps and draws
        self._lock, self._pending = threading.Lock(), {}
        self._wake, self._running, self._moving, self._due = threading.Event(), False, False, 0
        self._worker: threading.Thread | None = None
        self._writer: int | None = None
        self._closed, self._next_step, self._next_frame = False, 0.0, 0.0
        self._awaited, self._last_answer = 0, 0.0
        self._count = 0
        self._view: list[Run] = []
        self._plot = Plot(go.Figure())
        self._plot.observe(self._on_drawn, names="drawn")
        self._make_widgets()
        super().__init__([*self._rows, self._plot, self._replay])
        LiveLab._open = self
        atexit.register(self.close)
        self._reset()

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
        """Begin anew with the settings that the controls show, training or not as before."""
        self._ask("reset", True)

    def follow(self) -> None:
        """Give β and the weight back to the schedule."""
        self._ask("manual", False)

    def set(self, **values) -> None:
        """Move controls as a hand would.

        dataset, classes, method and epochs begin a new run; schedule, beta0, weight0, p, beta, weight, lr and speed act
        on the one that is on. Raises: ValueError for another name.
        """
        if unknown := values.keys() - self._controls.keys():
            raise ValueError(f"{sorted(unknown)} must be among the controls {sorted(self._controls)}")
        for name, value in values.items():
            self._controls[name].value = value

    def run(self, steps: int, *, every: int = 10) -> None:
        """Train `steps` steps, or to the last epoch, in this thread, with a frame after every `every`.

        An exception ends it and is kept in `error`, as it is in the background, until the next reset.
        """
        with self._training, self._guard():
            self._running = False
            self._take_orders()
            for k in range(1, steps + 1):
                if self.trainer.finished or self.error is not None:
                    break
                self.trainer.step()
                if k % every == 0 or k == steps or self.trainer.finished:
                    self._draw(self._take_frame())

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
        for widget in (self._plot, *self._controls.values(), *self._buttons.values(), *self.children):
            widget.close()
        super().close()

    # What follows up to _take_frame runs with self._training held.

    def _work(self) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))  # the page needs a core, too
        try:
            while not self._closed:
                self._wake.clear()
                wait: float | None = _LONG
                with self._training, self._guard():
                    self._take_orders()
                    wait = self._turn()
                if wait:
                    self._wake.wait(wait)
        finally:
            torch.set_num_threads(threads)  # MKL's number is that of the whole process

    def _turn(self) -> float | None:
        """One step if one is due; returns how long to sleep until there may be something to do."""
        now = time.monotonic()
        single = self._due > 0
        if self.trainer.finished or self.error is not None:
            self._running, single, self._due = False, False, 0
        if not (self._running or single):
            if self._moving:
                self._moving = False
                self._draw(self._take_frame())
            return _LONG
        if not single and now < self._next_step:
            return self._next_step - now
        self._moving = True
        self._next_step = now + 1 / self._controls["speed"].value
        self.trainer.step()
        self._due -= single
        if single or self.trainer.finished or (now >= self._next_frame and self._page_is_ready(now)):
            begun = time.monotonic()
            self._draw(self._take_frame())
            self._moving = not single
            end = time.monotonic()
            self._next_frame = max(self._next_frame + self._interval, end + (end - begun))
        return None

    def _page_is_ready(self, now: float) -> bool:
        """Whether at most three frames are not known to be drawn, so that they don't pile up; always without a page."""
        if not self._last_answer or self._plot.drawn >= self._awaited - 3:
            return True
        if now > self._last_answer + _SILENCE:
            self._running = False
            self._tell("paused: the page has not answered for a minute; Start goes on")
        return False

    def _on_drawn(self, _) -> None:
        self._last_answer = time.monotonic()

    @contextmanager
    def _guard(self):
        try:
            yield
        except Exception as error:
            self.error, self._running, self._moving, self._due = error, False, False, 0
            self._tell(f"stopped by {type(error).__name__}: {error}; Reset starts anew", failed=True)

    def _take_orders(self) -> None:
        with self._lock:
            orders, self._pending = self._pending, {}
        if orders.pop("reset", False):
            self._reset()
        if "schedule" in orders:
            recipe = dataclasses.replace(self.trainer.recipe, schedule=orders.pop("schedule"))
            self.trainer.recipe = self.runs[-1].recipe = recipe
            self.trainer.controls.manual = False
            self._show(self.runs[-1:])
        if orders.pop("export", False):
            self._tell(f"wrote {self.export('live_lab.html', *self._view)}")
        orders.pop("speed", None)
        if "view" in orders:
            self._show(orders.pop("view"))
        if "replay" in orders:
            self._moving = False
            self._draw_recorded(orders.pop("replay"))
        for name, value in orders.items():
            setattr(self.trainer.controls, name, value)
        if orders and not self._running and self.error is None:
            controls = self.trainer.controls
            self._draw(self._frame._replace(beta=controls.beta, weight=controls.weight))

    def _reset(self) -> None:
        with self._training:
            recipe = self._recipe()
            self.trainer = Trainer(recipe)
            self.error, self._due, self._count = None, 0, self._count + 1
            targets = self.trainer.data.train_targets
            classes = range(self.trainer.data.num_classes)
            self._indices = torch.cat([(targets == c).nonzero().flatten()[: _SAMPLE // len(classes)] for c in classes])
            shot = self.trainer.snapshot(test=False, indices=self._indices)
            names = self.trainer.data.class_names
            base = plots.geometry(shot.class_means, features=shot.features, targets=shot.targets, weight=shot.weight,
                                  class_names=names)
            kind, plan = self._controls["schedule"].value, (self._controls[name].value for name in ("beta0", "weight0"))
            label = f"{self._count}: {self._controls['method'].value}, {kind}"
            label += "" if recipe.schedule is None else " {:g}, {:g}".format(*plan)
            if recipe.schedule is None:
                controls = self.trainer.controls
                controls.beta, controls.weight = self._controls["beta"].value, self._controls["weight"].value
            kept = [run for run in self.runs if len(run.frames) > 1][-MAX_RUNS + 1 :]
            self.runs = [*kept, Run(label, recipe, names, base)]
            self._take_frame()
            self._list_runs()
            self._draw(self._frame)

    def _take_frame(self) -> Frame:
        shot = self.trainer.snapshot(test=False, indices=self._indices)
        metrics = {key: shot.train[key] for key in (*_DECAYING, "accuracy", "nc4")}
        metrics["test_accuracy"] = self._test_accuracy()
        rows = torch.nn.functional.normalize(shot.class_means - shot.class_means.mean(0), dim=1)
        b, n = self.trainer.recipe.clouds
        deaths = torch.zeros(b * (n - 1)) if shot.deaths is None else shot.deaths.flatten().sort().values
        parts = plots.geometry_coordinates(shot.class_means, shot.features, shot.targets, shot.weight)
        self._frame = Frame(
            shot.step / self.trainer.steps_per_epoch, shot.step, metrics,
            {name: part.astype(np.float32) for name, part in parts.items()}, deaths.numpy(),
            (rows @ rows.T).fill_diagonal_(math.nan).numpy(), shot.beta, shot.densify_weight,
        )
        self.runs[-1].record(self._frame)
        return self._frame

    @torch.no_grad()
    def _test_accuracy(self) -> float:
        data, trainer = self.trainer.data, self.trainer
        if data.test_inputs is None:
            return math.nan
        logits = trainer.head(trainer.backbone(data.test_inputs[:_SAMPLE]))
        return float((logits.argmax(1) == data.test_targets[:_SAMPLE]).float().mean())

    def _draw(self, frame: Frame) -> None:
        """Show a frame of the newest run as the present one."""
        run = self.runs[-1]
        if self._view != [run]:
            self._show([run])
        moves = _moves(run, frame) | _curve_moves(run.frames[-_WINDOW:], ahead=_AHEAD if self._running else 0)
        with self._lock, self._own_writes():
            if "beta" not in self._pending and "weight" not in self._pending:
                for name, value in (("beta", frame.beta), ("weight", frame.weight)):
                    step = self._controls[name].step
                    self._controls[name].value = round(value / step) * step
            if len(run.frames) % 10 == 0 or not self._running:
                self._scrubber.max = max(1, len(run.frames) - 1)
                self._scrubber.value = len(run.frames) - 1
        hand = self.trainer.controls.manual or self.trainer.recipe.schedule is None
        lead = "by hand" if hand else f"following {self._controls['schedule'].value}"
        doing = "training" if self._running else "finished, Reset starts anew" if self.trainer.finished else "paused"
        self._tell(f"{doing}: epoch {frame.epoch:.2f} of {self.trainer.recipe.epochs}, "
                   f"step {frame.step}; β {frame.beta:.3g}, weight {frame.weight:.3g} {lead}")
        self._awaited = self._plot.move(moves)

    def _draw_recorded(self, index: int) -> None:
        """Show a recorded frame of the run in view and, beside it, the other run's at the same epoch."""
        first = self._view[0].frames[min(index, len(self._view[0].frames) - 1)]
        moves = {}
        for slot, run in enumerate(self._view):
            moves |= _moves(run, run.at(first.epoch), slot) | _curve_moves(run.frames, slot)
        self._plot.move(moves)
        self._tell(f"replay: epoch {first.epoch:.2f}; Start goes on with training")

    def _show(self, runs: Sequence[Run]) -> None:
        self._view = list(runs)
        self._plot.show(_figure(runs))
        with self._own_writes():
            self._scrubber.max = max(1, len(runs[0].frames) - 1)

    # The controls. Their callbacks only leave orders for the thread.

    def _make_widgets(self) -> None:
        base = self._base
        self._heads = METHODS | ({"standard": "learned"} if base.head == "learned" else {})
        method = next(name for name, head in self._heads.items() if head == base.head or head == "learned")
        plan = {"beta0": 1.1, "weight": 0.1} | getattr(base.schedule, "settings", {})
        kinds = {type(None): "by hand", ConstantSchedule: "constant", SlidingSchedule: "sliding"}
        kind = kinds.get(type(base.schedule), "own")
        self._schedules = _SCHEDULES | ({"own": lambda *_: base.schedule} if kind == "own" else {})
        classes = base.classes if isinstance(base.classes, int) else 10
        slider = dict(layout=widgets.Layout(width="290px"), style={"description_width": "initial"})
        self._controls = {
            "dataset": _dropdown("data", list(SETS), base.dataset, "165px"),
            "classes": _dropdown("classes", [2, 3, 4, 5, 6, 8, 10], classes, "110px"),
            "method": _dropdown("method", list(METHODS), method, "150px"),
            "epochs": _number("epochs", base.epochs, "115px", whole=True),
            "schedule": _dropdown("schedule", list(self._schedules), kind, "170px"),
            "beta0": _number("β₀", plan["beta0"], "95px"),
            "weight0": _number("w₀", plan["weight"], "95px"),
            "p": _dropdown("norm", [("L1", 1), ("L2", 2), ("L∞", math.inf)], base.p, "105px"),
            # Powers of two, or the browser would round what it is sent and answer with a change of its own.
            "beta": widgets.FloatSlider(0, min=0, max=4, step=1 / 64, description="β", **slider),
            "weight": widgets.FloatSlider(0, min=0, max=1, step=1 / 256, description="weight", readout_format=".3f",
                                          **slider),
            "lr": widgets.FloatLogSlider(base.lr, min=-3, max=0, step=0.05, description="learning rate",
                                         readout_format=".3f", **slider),
            "speed": widgets.SelectionSlider(
                options=[*((f"{n} steps/s", n) for n in (1, 3, 10, 30)), ("full", math.inf)], value=math.inf,
                description="speed", **slider),
        }
        actions = {"Start": self.start, "Pause": self.pause, "Step": self.step, "Reset": self.reset,
                   "Follow schedule": self.follow, "Export": lambda: self._ask("export", True)}
        icons = {"Start": "play", "Pause": "pause", "Step": "step-forward", "Reset": "undo"}
        self._buttons = {name: widgets.Button(description=name, icon=icons.get(name, ""), layout=widgets.Layout(
            width="130px" if " " in name else "84px")) for name in actions}
        for name, action in actions.items():
            self._buttons[name].on_click(lambda _, action=action: action())
        for name, control in self._controls.items():
            control.observe(lambda change, name=name: self._touched(name, change["old"], change["new"]), names="value")
        self._status = widgets.HTML(layout=widgets.Layout(margin="0 0 0 8px"))
        self._shown_run, self._beside = (
            _dropdown(text, [("nothing", "")], "", "270px") for text in ("replay", "beside"))
        self._scrubber = widgets.IntSlider(0, min=0, max=1, description="frame", **slider)
        self._shown_run.observe(lambda _: self._choose(), names="value")
        self._beside.observe(lambda _: self._choose(), names="value")
        self._scrubber.observe(lambda change: self._scrub(change["new"]), names="value")
        c, b = self._controls, self._buttons
        self._replay = widgets.HBox([self._shown_run, self._beside, self._scrubber, b["Export"]])
        self._rows = [
            widgets.HBox([c["dataset"], c["classes"], c["method"], c["epochs"]]),
            widgets.HBox([c["schedule"], c["beta0"], c["weight0"], b["Follow schedule"], c["p"]]),
            widgets.HBox([c["beta"], c["weight"], c["lr"]]),
            widgets.HBox([b["Start"], b["Pause"], b["Step"], b["Reset"], c["speed"]], layout={"align_items": "center"}),
            self._status,
        ]

    def _recipe(self) -> Recipe:
        value = {name: control.value for name, control in self._controls.items()}
        base, data = self._base, {}
        if value["dataset"] != base.dataset:
            data = dict(SETS[value["dataset"]], dataset=value["dataset"])
        if self._controls["classes"].value != base.classes and not isinstance(base.classes, tuple):
            data["classes"] = value["classes"]
        return dataclasses.replace(base, head=self._heads[value["method"]], epochs=value["epochs"], p=value["p"],
                                   lr=value["lr"], schedule=self._schedule(), **data)

    def _schedule(self):
        value = {name: self._controls[name].value for name in ("beta0", "weight0", "epochs")}
        return self._schedules[self._controls["schedule"].value](*value.values())

    def _touched(self, name: str, old, value) -> None:
        if self._writer == threading.get_ident():
            return
        if name in ("beta", "weight", "lr"):
            moved = math.log10(value / old) if name == "lr" else value - old
            if abs(moved) < 0.6 * self._controls[name].step:
                return  # not a hand: the browser rounds what it is sent
        if name in ("beta", "weight"):
            self._ask(name, value, manual=True)
        elif name in ("p", "lr"):
            self._ask(name, value)
        elif name in ("schedule", "beta0", "weight0"):
            self._ask("schedule", self._schedule())
        else:
            self._ask("reset" if name != "speed" else "speed", value)

    def _scrub(self, index: int) -> None:
        if self._writer != threading.get_ident():
            self._running = False
            self._ask("replay", index)

    def _choose(self) -> None:
        if self._writer != threading.get_ident():
            self._running = False
            runs = [run for run in (self._shown_run.value, self._beside.value) if run]
            self._ask("view", runs or self.runs[-1:], replay=self._scrubber.value)

    def _ask(self, name: str, value, **more) -> None:
        with self._lock:
            self._pending |= {name: value, **more}
        self._ensure_worker()

    def _ensure_worker(self) -> None:
        if self._worker is None and not self._closed:
            self._worker = threading.Thread(target=self._work, name="live lab", daemon=True)
            self._worker.start()
        self._wake.set()

    def _list_runs(self) -> None:
        options = [(run.label, run) for run in self.runs]
        with self._own_writes():
            self._shown_run.options, self._shown_run.value = options, self.runs[-1]
            self._beside.options, self._beside.value = [("nothing", ""), *options], ""

    def _tell(self, text: str, *, failed: bool = False) -> None:
        color = "#B00020" if failed else "#444444"
        self._status.value = f'<span role="status" style="color: {color}">{html.escape(text)}</span>'

    @contextmanager
    def _own_writes(self):
        self._writer = threading.get_ident()
        try:
            yield
        finally:
            self._writer = None


def animation(*runs: Run) -> go.Figure:
    """One recorded run, or two beside each other at the same epochs, as a figure that plays without a kernel.

    At most 120 frames, evenly spaced over the frames of the first run. Raises: ValueError for none or more than two.
    """
    if len(runs) not in (1, 2):
        raise ValueError(f"runs must be one or two, got {len(runs)}")
    fig = _figure(runs)
    at = {trace.meta: i for i, trace in enumerate(fig.data)}
    for slot, run in enumerate(runs):
        for meta, values in _curve_moves(run.frames, slot).items():
            fig.data[at[meta]].update(values)
    picked = np.linspace(0, len(runs[0].frames) - 1, min(_EXPORTED, len(runs[0].frames)))
    stops = [runs[0].frames[k] for k in np.unique(picked.round().astype(int))]
    for k, stop in enumerate(stops):
        moves = {}
        for slot, run in enumerate(runs):
            moves |= _moves(run, run.at(stop.epoch), slot)
        moves = {at[meta]: values for meta, values in moves.items() if meta in at}
        data = [dict(values, type=fig.data[i].type) for i, values in moves.items()]
        fig.frames += (go.Frame(name=str(k), traces=list(moves), data=data),)
    for i, values in moves.items():
        fig.data[i].update(values)
    _add_player(fig, stops)
    return fig


_SCHEDULES: dict[str, Callable] = {
    "by hand": lambda beta0, weight, epochs: None,
    "constant": lambda beta0, weight, epochs: ConstantSchedule(beta0, weight),
    "sliding": SlidingSchedule,
}


def _dropdown(text: str, options: list, value, width: str) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, value=value, description=text, layout=widgets.Layout(width=width),
                            style={"description_width": "initial"})


def _number(text: str, value: float, width: str, *, whole: bool = False):
    look = dict(description=text, layout=widgets.Layout(width=width), style={"description_width": "initial"})
    if whole:
        return widgets.BoundedIntText(value, min=1, max=10**6, **look)
    return widgets.BoundedFloatText(value, min=0, max=100, step=0.05, **look)


def _figure(runs: Sequence[Run]) -> go.Figure:
    """The panels of one run or two; `meta` of a trace that moves is "slot name"."""
    space = [{"type": "scene"} if len(run.class_names) == 4 else {} for run in runs]
    bars = "H<sub>0</sub> bars of the clouds, and β"
    if len(runs) == 1:
        tall, none = {"rowspan": 2}, None
        specs = [[space[0] | {"rowspan": 3}, tall, tall], [none] * 3, [none, tall, tall],
                 [{"secondary_y": True}, none, none]]
        titles = (_SYMBOLS, "", "", bars, "cosines of class means", f"schedule: β left, {_orange('weight')} right")
        fig = make_subplots(4, 3, specs=specs, subplot_titles=titles, column_widths=[0.37, 0.34, 0.29],
                            row_heights=[0.28, 0.2, 0.24, 0.28], horizontal_spacing=0.08, vertical_spacing=0.17)
        cells = [dict(geometry=(1, 1), decaying=(1, 2), shares=(1, 3), bars=(3, 2), cosines=(3, 3), schedule=(4, 1))]
        keys = {"legend": (0.39, 1.0), "legend2": (0.82, 0.83)}
    else:
        titles = [f"<b>{run.label}</b><br>{_SYMBOLS}" for run in runs] + [""] * 4 + [bars] * 2
        fig = make_subplots(4, 2, specs=[space, [{}, {}], [{}, {}], [{}, {}]], subplot_titles=titles,
                            row_heights=[0.44, 0.2, 0.14, 0.22], vertical_spacing=0.085, horizontal_spacing=0.09)
        cells = [dict(geometry=(1, k), decaying=(2, k), shares=(3, k), bars=(4, k)) for k in (1, 2)]
        keys = {"legend": (0, 0.592), "legend2": (0, 0.358)}
    fig.update_layout(
        template=plots.TEMPLATE, width=840, height=480 if len(runs) == 1 else 900,
        margin=dict(l=40, r=92, t=56 if len(runs) == 1 else 60, b=40), font_size=11, uirevision=str(space),
        **{key: dict(x=x, y=y, yanchor="bottom", font_size=10, orientation="h", entrywidth=52)
           for key, (x, y) in keys.items()})
    if len(runs) == 1:
        fig.update_layout(legend2=dict(orientation="v", yanchor="middle", bgcolor="rgba(255,255,255,0.7)"))
    else:
        fig.update_layout(legend2_entrywidth=78)
    for slot, (run, cell) in enumerate(zip(runs, cells, strict=True)):
        for name, place in cell.items():
            _ADD[name](fig, run, slot, *place)
    fig.update_annotations(font_size=12)
    fig.update_xaxes(title_standoff=2, automargin=False)
    fig.update_yaxes(automargin=False)
    return fig


def _orange(text: str) -> str:
    return f'<span style="color: {_WEIGHT_COLOR}">{text}</span>'


def _add_player(fig: go.Figure, stops: Sequence[Frame]) -> None:
    def play(which, milliseconds: int) -> list:
        return [which, dict(mode="immediate", fromcurrent=True, frame=dict(duration=milliseconds, redraw=True),
                            transition=dict(duration=0))]

    steps = [dict(label=f"{stop.epoch:.1f}", method="animate", args=play([str(k)], 0)) for k, stop in enumerate(stops)]
    buttons = [dict(label=label, method="animate", args=play(*args))
               for label, args in (("▶ Play", (None, 80)), ("❚❚ Pause", ([None], 0)))]
    foot = dict(x=0, xanchor="left", y=-0.02, yanchor="top")
    fig.update_layout(
        height=fig.layout.height + 90, margin_b=fig.layout.margin.b + 90,
        sliders=[foot | dict(steps=steps, active=len(steps) - 1, x=0.25, len=0.75, pad=dict(t=40),
                             currentvalue=dict(prefix="epoch "))],
        updatemenus=[foot | dict(type="buttons", direction="left", buttons=buttons, pad=dict(t=56), showactive=False)],
    )


def _place(fig: go.Figure, traces, slot: int, row: int, col: int, **changes) -> None:
    for trace in traces:
        fig.add_trace(trace, row=row, col=col)
        fig.data[-1].update(changes, meta=f"{slot} {trace.name}")


def _add_geometry(fig: go.Figure, run: Run, slot: int, row: int, col: int) -> None:
    _place(fig, [trace for trace in run.geometry.data if trace.meta != "legend"], slot, row, col, legendgroup=None)
    old = run.geometry.layout
    if len(run.class_names) == 4:
        fig.update_scenes(old.scene, row=row, col=col)
        return
    fig.update_xaxes(range=old.xaxis.range, zeroline=True, zerolinecolor="#E6E6E6", row=row, col=col)
    anchor = None if len(run.class_names) == 2 else fig.get_subplot(row, col).xaxis.plotly_name.replace("axis", "")
    fig.update_yaxes(range=old.yaxis.range, zeroline=True, zerolinecolor="#E6E6E6", scaleanchor=anchor, row=row,
                     col=col)


def _add_curves(fig: go.Figure, slot: int, row: int, col: int, curves: dict, name: str, legend: str) -> None:
    lines = [go.Scatter(name=label, mode="lines", line=dict(color=color, dash=dash, width=1.8), showlegend=slot == 0,
                        legend=legend) for label, color, dash in curves.values()]
    colors = [color for _, color, _ in curves.values()]
    now = go.Scatter(name=f"now {name}", mode="markers", marker=dict(size=6, color=colors), showlegend=False)
    _place(fig, [*lines, now], slot, row, col)
    fig.update_xaxes(title="epoch", row=row, col=col)


def _add_decaying(fig: go.Figure, run: Run, slot: int, row: int, col: int) -> None:
    _add_curves(fig, slot, row, col, _DECAYING, "decaying", "legend")
    fig.update_yaxes(type="log", exponentformat="power", nticks=5, tickfont_size=10, row=row, col=col)


def _add_shares(fig: go.Figure, run: Run, slot: int, row: int, col: int) -> None:
    _add_curves(fig, slot, row, col, _SHARES, "shares", "legend2")
    fig.update_yaxes(range=[-0.03, 1.03], row=row, col=col)


def _add_bars(fig: go.Figure, run: Run, slot: int, row: int, col: int) -> None:
    count = len(run.frames[-1].deaths)
    height = np.repeat(np.arange(1, count + 1), 3)
    width = max(1, 100 // count)
    # Lines, not bars: a browser draws these two paths ten times faster than hundreds of rectangles.
    bars = [go.Scatter(name=name, y=height, mode="lines", line=dict(color=color, width=width), hoverinfo="skip")
            for name, color in zip(_BARS, plots.CLASS_COLORS)]
    beta = go.Scatter(name="β", y=[0.5, count + 0.5], mode="lines", line=dict(color="#222222", width=2, dash="dash"))
    _place(fig, [*bars, beta], slot, row, col, showlegend=False)
    fig.update_xaxes(title="distance", rangemode="tozero", row=row, col=col)
    fig.update_yaxes(range=[0.5, count + 0.5], showgrid=False, row=row, col=col)


def _add_cosines(fig: go.Figure, run: Run, slot: int, row: int, col: int) -> None:
    names, layout, at = np.array(run.class_names), fig.layout, fig.get_subplot(row, col)
    count, ideal = len(names), -1 / (len(names) - 1)
    (left, right), (low, high) = at.xaxis.domain, at.yaxis.domain
    side = min((right - left) * (layout.width - layout.margin.l - layout.margin.r),
               (high - low) * (layout.height - layout.margin.t - layout.margin.b)) / count
    ticks = ideal + np.linspace(-0.5, 0.5, 5)
    bar = dict(x=right, y=(low + high) / 2, len=high - low, thickness=10, xpad=4, ypad=0, outlinewidth=0,
               tickvals=ticks, ticktext=[f"{t:.2f}" if t != ideal else f"<b>{t:.3g}</b> ideal" for t in ticks])
    rows, columns = np.nonzero(_apart(count))
    # Squares: a heat map cannot be moved without a redraw. Pale enough for the numbers on them.
    cells = go.Scatter(
        name="cosines", x=names[columns], y=names[rows], mode="markers+text" if count <= 6 else "markers",
        texttemplate="%{marker.color:.2f}", textfont_size=10,
        hovertemplate="%{y}, %{x}: %{marker.color:.4f}<extra></extra>",
        marker=dict(symbol="square", size=side - 2, opacity=1, line=dict(color="#E4E4E4", width=1), colorbar=bar,
                    cmin=ideal - 0.5, cmax=ideal + 0.5,
                    colorscale=sample_colorscale("RdBu", [0.8, 0.65, 0.5, 0.35, 0.2])))
    _place(fig, [cells], slot, row, col, showlegend=False)
    axis = dict(type="category", categoryarray=names, showgrid=False, row=row, col=col)
    fig.update_xaxes(range=[-0.5, count - 0.5], **axis)
    fig.update_yaxes(range=[count - 0.5, -0.5], **axis)


def _apart(count: int) -> np.ndarray:
    """Which of the (count, count) pairs are of two different classes."""
    return ~np.eye(count, dtype=bool)


def _add_schedule(fig: go.Figure, run: Run, slot: int, row: int, col: int) -> None:
    plan = run.recipe.schedule
    epochs = np.linspace(1, run.recipe.epochs, 60) if plan is not None else np.empty(0)
    for name, color, second in (("beta", "#222222", False), ("weight", _WEIGHT_COLOR, True)):
        planned = np.array([getattr(plan, name)(float(epoch)) for epoch in epochs])
        line = go.Scatter(x=epochs, y=planned, meta=f"{slot} planned {name}", mode="lines",
                          line=dict(color=color, dash="dash", width=1.5))
        now = go.Scatter(meta=f"{slot} now {name}", mode="markers", marker=dict(size=9, color=color))
        for trace in (line, now):
            fig.add_trace(trace.update(showlegend=False), row=row, col=col, secondary_y=second)
        fig.update_yaxes(color=color, rangemode="tozero", showgrid=not second, nticks=4, tickmode="auto", row=row,
                         col=col, secondary_y=second)
    fig.update_xaxes(title="epoch", row=row, col=col)


_ADD = dict(geometry=_add_geometry, decaying=_add_decaying, shares=_add_shares, bars=_add_bars, cosines=_add_cosines,
            schedule=_add_schedule)


def _moves(run: Run, frame: Frame, slot: int = 0) -> dict[str, dict]:
    """What a frame changes: `meta` of a trace -> properties of the trace."""
    gap, short = np.full(len(frame.deaths), math.nan), frame.deaths < frame.beta
    sides = np.where(short, frame.deaths, gap), np.where(short, gap, frame.deaths)
    moves = {name: dict(zip("xyz", part.T)) for name, part in frame.geometry.items()}
    moves |= {
        **{name: {"x": np.stack((0 * ends, ends, gap), axis=1).ravel()} for name, ends in zip(_BARS, sides)},
        "β": {"x": [frame.beta] * 2},
        "cosines": {"marker": {"color": frame.cosines[_apart(len(frame.cosines))]}},
        "now beta": {"x": [frame.epoch], "y": [frame.beta]},
        "now weight": {"x": [frame.epoch], "y": [frame.weight]},
    }
    for name, curves in (("decaying", _DECAYING), ("shares", _SHARES)):
        moves[f"now {name}"] = {"x": [frame.epoch] * len(curves), "y": [frame.metrics[key] for key in curves]}
    return {f"{slot} {name}": values for name, values in moves.items()}


def _curve_moves(frames: Sequence[Frame], slot: int = 0, ahead: int = 0) -> dict[str, dict]:
    """ahead: for so many more frames the axes leave room, since a page draws them anew now and then only."""
    epochs = [frame.epoch for frame in frames]
    room = [2 * epochs[-1] - epochs[-min(ahead, len(epochs))]] if ahead else []
    gap = [math.nan] * len(room)
    return {
        f"{slot} {label}": {"x": np.array(epochs + room, dtype=np.float32),
                            "y": np.array([frame.metrics[key] for frame in frames] + gap, dtype=np.float32)}
        for key, (label, _, _) in (_DECAYING | _SHARES).items()
    }


def simplex_scrubber() -> Panel:
    """Sliders for classes, dimension, rotation and noise of a simplex ETF; angles, norms and distance follow."""

    def draw(classes: int, dim: int, rotation: float, noise: float) -> go.Figure:
        dim = max(dim, classes - 1)
        generator = torch.Generator().manual_seed(0)
        turn, jitter = (torch.randn(8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
        turn = turn[:dim, :dim] - turn[:dim, :dim].T
        rows = simplex_etf(classes, dim, dtype=torch.float64) @ torch.linalg.matrix_exp(rotation * turn / 2)
        rows = rows + noise * jitter[:classes, :dim]
        return _scrubbed(rows)

    return _explorer(
        draw,
        classes=widgets.IntSlider(4, min=2, max=8, description="classes"),
        dim=widgets.IntSlider(3, min=1, max=8, description="dimension"),
        rotation=widgets.FloatSlider(0, min=0, max=2, step=0.02, description="rotation"),
        noise=widgets.FloatSlider(0, min=0, max=0.6, step=0.02, description="noise"),
    )


def _scrubbed(rows: torch.Tensor) -> go.Figure:
    classes, dim = rows.shape
    fig = make_subplots(1, 2, specs=[[{"type": "scene"}, {}]], column_widths=[0.55, 0.45])
    at = torch.nn.functional.pad(rows, (0, max(0, 3 - dim)))[:, :3].numpy()
    for name, color, (x, y, z) in zip(map(str, range(classes)), plots.class_colors(classes), at):
        fig.add_scatter3d(x=[0, x], y=[0, y], z=[0, z], mode="lines+markers+text", text=["", name], showlegend=False,
                          line=dict(color=color, width=6), marker=dict(color=color, size=[0, 7]), row=1, col=1)
    heat = plots.cosine_heatmap(rows)
    fig.add_trace(heat.data[0], row=1, col=2)
    axis = dict(range=[-1.2, 1.2])
    fig.update_layout(template=plots.TEMPLATE, width=840, height=400,
                      scene=dict(xaxis=axis, yaxis=axis, zaxis=axis, camera_eye=dict(x=0.9, y=0.9, z=0.6)))
    fig.update_yaxes(autorange="reversed")
    rows = rows - rows.mean(0)
    norms = torch.linalg.vector_norm(rows, dim=1)
    first, second = torch.triu_indices(classes, classes, 1)
    cosines = ((rows[first] * rows[second]).sum(1) / norms[first] / norms[second]).clamp(-1, 1)
    angles = torch.rad2deg(torch.acos(cosines))
    ideal = math.degrees(math.acos(-1 / (classes - 1)))
    fig.update_layout(title=dict(
        text=f"{classes} classes in {dim} dimensions" + (", the first three shown" if dim > 3 else ""),
        subtitle_text=f"angles {angles.min():.1f}° to {angles.max():.1f}° (ETF: {ideal:.1f}°), norms {norms.min():.3f} "
                      f"to {norms.max():.3f}, distance to the nearest ETF {float(simplex_etf_distance(rows)):.4f}"))
    return fig


def nearest_etf_explorer() -> Panel:
    """Sliders that move one of three class means in the plane; the nearest simplex ETF follows, held back by a pull."""
    start = torch.tensor([[1.0, 0.2], [-0.3, 0.8], [-0.6, -0.7]], dtype=torch.float64)
    previous = nearest_simplex_etf(start)

    def draw(moved: int, angle: float, radius: float, proximal: float) -> go.Figure:
        means = start.clone()
        means[moved] = radius * torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        etf = nearest_simplex_etf(means, previous=previous, proximal=proximal)
        fig = go.Figure()
        for name, rows, look in (("previous ETF", previous, dict(color="#999999", dash="dot", width=2)),
                                 ("nearest ETF", etf, dict(color="#222222", width=2))):
            x, y = torch.cat((rows, rows[:1])).T.numpy()
            fig.add_scatter(x=x, y=y, mode="lines", name=name, line=look)
        for name, color, mean, vertex in zip("012", plots.CLASS_COLORS, (means - means.mean(0)).numpy(), etf.numpy()):
            fig.add_scatter(x=[vertex[0], mean[0]], y=[vertex[1], mean[1]], mode="lines+markers+text",
                            name=f"class {name}", text=["", name], textposition="top center",
                            line=dict(color=color, width=1), marker=dict(color=color, size=[13, 13], symbol=["diamond-open", "circle"]))
        fig.update_layout(template=plots.TEMPLATE, width=640, height=480, title=dict(
            text="Class means (dots, centred) and the ETF that follows them",
            subtitle_text=f"distance to the nearest ETF {float(simplex_etf_distance(means)):.4f}"))
        fig.update_xaxes(range=[-2.1, 2.1])
        fig.update_yaxes(range=[-1.8, 1.8], scaleanchor="x")
        return fig

    return _explorer(
        draw,
        moved=widgets.Dropdown(options=[(f"class {c}", c) for c in range(3)], description="move"),
        angle=widgets.FloatSlider(11, min=-180, max=180, step=1, description="angle (°)"),
        radius=widgets.FloatSlider(1, min=0, max=2, step=0.02, description="radius"),
        proximal=widgets.FloatSlider(PROXIMAL, min=0, max=4, step=0.05, description="pull ρ"),
    )


def radius_explorer() -> Panel:
    """Sliders for the radius of growing balls, β and the norm, over a cloud, its spanning tree and its H0 barcode."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 0.0], [2.2, 0.6], [0.8, 2.0]], dtype=torch.float64).repeat_interleave(5, 0)
    cloud = centres + 0.45 * torch.randn(15, 2, dtype=torch.float64, generator=generator)

    def draw(radius: float, beta: float, p: float) -> go.Figure:
        tree = plots.spanning_tree_figure(cloud, p, radius=radius, beta=beta, arrows=True)
        deaths = h0_death_times(cloud, p)
        fig = make_subplots(1, 2, column_widths=[0.58, 0.42], horizontal_spacing=0.1)
        for col, part in ((1, tree), (2, plots.barcode(deaths, beta))):
            for trace in part.data:
                fig.add_trace(trace.update(showlegend=False), row=1, col=col)
        fig.add_scatter(x=[radius] * 2, y=[0.5, len(deaths) + 0.5], mode="lines", showlegend=False,
                        line=dict(color="#56B4E9", width=3), row=1, col=2)
        parts = 1 + int((deaths > radius).sum())
        fig.update_layout(template=plots.TEMPLATE, width=840, height=440, barmode="overlay", bargap=0.35, title=dict(
            text=f"Balls of radius {radius / 2:.2f}: {parts} component{'s' * (parts > 1)}",
            subtitle_text="blue line: the distance at which balls touch; dashed: β; arrows: where the loss pushes"))
        fig.update_xaxes(range=[-1.6, 4], row=1, col=1)
        fig.update_yaxes(range=[-1.6, 3.6], scaleanchor="x", row=1, col=1)
        fig.update_xaxes(title="distance", range=[0, 3.1], row=1, col=2)
        return fig

    return _explorer(
        draw,
        radius=widgets.FloatSlider(0.5, min=0, max=3, step=0.02, description="distance"),
        beta=widgets.FloatSlider(0.8, min=0, max=3, step=0.02, description="β"),
        p=widgets.Dropdown(options=[("L1", 1), ("L2", 2), ("L∞", math.inf)], value=2, description="norm"),
    )


def _explorer(draw: Callable[..., go.Figure], **controls: widgets.Widget) -> Panel:
    def values() -> dict:
        return {name: control.value for name, control in controls.items()}

    plot = Plot(draw(**values()))
    for control in controls.values():
        control.observe(lambda _: plot.show(draw(**values())), names="value")
    rows = [widgets.HBox(list(controls.values())[k : k + 2]) for k in range(0, len(controls), 2)]
    return Panel([*rows, plot])
