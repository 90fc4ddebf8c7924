"""The widgets of the lab. Each control is a view of a recipe, which it changes only when a hand moves it."""

from __future__ import annotations

import dataclasses
import html
import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, NamedTuple

import ipywidgets as widgets

from ncbook.checks import check_choice
from ncbook.heads import HEADS
from ncbook.live.record import Run
from ncbook.schedules import SCHEDULES
from ncbook.training.data import DATASETS, Dataset
from ncbook.training.recipe import Recipe
from ncbook.training.regularisers import REGULARISERS, Dial

BY_HAND, OWN, ALL = "by hand", "own", "all"
_PLAN = {"beta0": 1.1, "weight": 0.1}  # where there is no schedule yet
_SPEEDS = [*((f"{n} steps/s", n) for n in (1, 3, 10, 30)), ("full", math.inf)]
_ICONS = {"Start": "play", "Pause": "pause", "Step": "step-forward", "Reset": "undo"}
_SLIDER: dict = dict(layout=widgets.Layout(width="290px"), style={"description_width": "initial"})


class Box(widgets.VBox):
    """Widgets that need a running kernel; without one, a notebook keeps just this line of text."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: run this cell in JupyterLab to use it"

    def close(self) -> None:
        """Close all widgets in it, too."""
        for child in self.children:
            for widget in (*getattr(child, "children", ()), child):
                widget.close()
        super().close()


class View(NamedTuple):
    """A widget that shows read(recipe) and, moved, asks for write(recipe, value), in a new run if it `restarts`.

    write raises ValueError or TypeError for a value that is not accepted.
    """

    widget: widgets.Widget
    read: Callable[[Recipe], Any]
    write: Callable[[Recipe, Any], Recipe]
    restarts: bool = False


def plan_name(schedule: Any) -> str:
    """What the menu calls a schedule."""
    if schedule is None:
        return BY_HAND
    return next((_short(name) for name, kind in SCHEDULES.items() if kind is type(schedule)), OWN)


def describe(recipe: Recipe) -> str:
    """A recipe in a few words: method and schedule."""
    plan = [f"{_settings(recipe)[name]:g}" for name in _PLAN if name in _settings(recipe)]
    return f"{HEADS[recipe.head].method}, {' '.join([plan_name(recipe.schedule), ', '.join(plan)])}".rstrip()


def make_views(recipe: Recipe) -> dict[str, View]:
    """The views of a recipe, in the order in which what they ask for is to be written."""
    def field(name: str) -> tuple[Callable, Callable]:
        return lambda recipe: getattr(recipe, name), lambda recipe, value: dataclasses.replace(recipe, **{name: value})

    def setting(name: str) -> tuple[Callable, Callable]:
        return lambda recipe: _settings(recipe).get(name, _PLAN[name]), lambda recipe, v: _with_setting(recipe, name, v)

    plans, own = [BY_HAND, *_kinds(recipe)], recipe.schedule
    return {
        "dataset": View(_menu("data", list(DATASETS), "165px"), lambda recipe: recipe.dataset, _with_dataset, True),
        "classes": View(_menu("classes", [2, 3, 4, 5, 6, 8, 10], "110px"),
                        lambda recipe: ALL if recipe.classes is None else recipe.classes,
                        lambda recipe, k: dataclasses.replace(recipe, classes=None if k == ALL else k), True),
        "method": View(_menu("method", [(kind.method, key) for key, kind in HEADS.items()], "150px"), *field("head"),
                       True),
        "epochs": View(_number("epochs", "115px", widgets.BoundedIntText, min=1, max=10**6), field("epochs")[0],
                       _with_epochs, True),
        "schedule": View(_menu("schedule", plans, "170px"), lambda recipe: plan_name(recipe.schedule),
                         lambda recipe, name: _with_plan(recipe, name, own)),
        "beta0": View(_number("β₀", "95px"), *setting("beta0")),
        "weight0": View(_number("w₀", "95px"), *setting("weight")),
        "p": View(_menu("norm", [("L1", 1), ("L2", 2), ("L∞", math.inf)], "105px"), *field("p")),
        "lr": View(widgets.FloatLogSlider(0.1, min=-3, max=0, step=0.05, description="learning rate",
                                          readout_format=".3g", **_SLIDER), *field("lr")),
    }


def _short(name: str) -> str:
    return name.removesuffix("Schedule").lower()


def _kinds(recipe: Recipe) -> dict[str, type]:
    """The schedules that move the dials of the recipe's regulariser and need no argument that the lab has not."""
    moved = [dial.schedule for dial in REGULARISERS[recipe.regulariser].dials]
    return {_short(name): kind for name, kind in SCHEDULES.items() if all(hasattr(kind, method) for method in moved)
            and {key for key, parameter in inspect.signature(kind).parameters.items()
                 if parameter.default is parameter.empty} <= {*_PLAN, "epochs", "start"}}


def _settings(recipe: Recipe) -> dict[str, float]:
    return getattr(recipe.schedule, "settings", {})


def _with_dataset(recipe: Recipe, name: str) -> Recipe:
    """Another data set, with the backbone and size that suit it; as many classes as before, if that was a number."""
    source = DATASETS[check_choice("dataset", name, DATASETS)]
    if name == recipe.dataset:
        return recipe
    classes = len(recipe.classes) if isinstance(recipe.classes, tuple) else recipe.classes
    return dataclasses.replace(recipe, dataset=name, backbone=source.backbone, train_size=source.train_size,
                               classes=classes)


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Another length; a schedule of exactly the old length gets the new one, any other stays."""
    changed = dataclasses.replace(recipe, epochs=epochs)
    fits = _settings(recipe).get("epochs") == recipe.epochs
    return _with_setting(changed, "epochs", epochs) if fits else changed


def _with_setting(recipe: Recipe, name: str, value: float) -> Recipe:
    if name not in _settings(recipe):
        raise ValueError(f"schedule {plan_name(recipe.schedule)!r} has no {name}")
    return dataclasses.replace(recipe, schedule=type(recipe.schedule)(**_settings(recipe) | {name: value}))


def _with_plan(recipe: Recipe, name: str, own: Any) -> Recipe:
    """A schedule by its name in the menu, with those settings of the old one that it takes."""
    kinds = _kinds(recipe)
    choices = [BY_HAND, *kinds, *[OWN] * (plan_name(own) == OWN)]
    if check_choice("schedule", name, choices) == plan_name(recipe.schedule):
        return recipe
    schedule = None if name == BY_HAND else own
    if name in kinds:
        known = _PLAN | {"epochs": recipe.epochs, "start": recipe.epochs // 2} | _settings(recipe)
        takes = inspect.signature(kinds[name]).parameters
        schedule = kinds[name](**{key: value for key, value in known.items() if key in takes})
    return dataclasses.replace(recipe, schedule=schedule)


def _menu(text: str, options: list, width: str) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=text, layout=widgets.Layout(width=width),
                            style={"description_width": "initial"})


def _number(text: str, width: str, kind: type = widgets.BoundedFloatText, **bounds: float) -> widgets.Widget:
    return kind(description=text, layout=widgets.Layout(width=width), style={"description_width": "initial"},
                **bounds or dict(min=0, max=100, step=0.05))


def _dial_slider(dial: Dial) -> widgets.FloatSlider:
    # A power of two where the range is one, or the browser would round what it is sent and answer with that.
    step = (dial.high - dial.low) / 256
    return widgets.FloatSlider(dial.default, min=dial.low, max=dial.high, step=step, description=dial.label,
                               readout_format=".2f" if step > 0.01 else ".3f", **_SLIDER)


def _options(menu: widgets.Widget) -> dict[str, Any]:
    options = getattr(menu, "options", ())
    return dict(option if isinstance(option, tuple) else (str(option), option) for option in options)


def _put(widget: widgets.Widget, value: Any) -> None:
    """Show a value, with a wider range or one more line in the menu where it needs them."""
    if isinstance(widget, widgets.Dropdown):
        options = _options(widget)
        if value not in options.values():
            name = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            widget.options = [*options.items(), (name, value)]
    elif isinstance(widget, widgets.FloatLogSlider):
        if value > 0:
            power = math.log10(value)
            widget.min = max(min(widget.min, math.floor(power)), -300)
            widget.max = min(max(widget.max, math.ceil(power)), 300)
        value = max(value, widget.base**widget.min)  # a log scale has no 0
    else:
        widget.max = max(widget.max, value)
    widget.value = value


class Deck:
    """All widgets of a lab but the plot. They call back when a hand moves them, not when the lab does.

    touched({name: value}) is called for the `views` of the recipe and the `dials` of its regulariser, replay(runs,
    frame) for the scrubber and the menus of runs; actions: button -> what it does. `rows` go above the plot, `foot`
    below it.
    """

    def __init__(self, recipe: Recipe, touched: Callable[[dict], None], replay: Callable[[list[Run], int], None],
                 actions: Mapping[str, Callable[[], None]]):
        self._writing = threading.local()
        self._touched = touched
        self.views = make_views(recipe)
        self.dials = {dial.name: _dial_slider(dial) for dial in REGULARISERS[recipe.regulariser].dials}
        self.speed = widgets.SelectionSlider(options=_SPEEDS, value=math.inf, description="speed", **_SLIDER)
        self._buttons = {name: widgets.Button(description=name, icon=_ICONS.get(name, ""), layout=widgets.Layout(
            width="130px" if " " in name else "84px")) for name in actions}
        self._status = widgets.HTML(layout=widgets.Layout(margin="0 0 0 8px"))
        self._said, self._notice = ("", False), ("", False)
        self._shown, self._beside = (_menu(text, [("nothing", "")], "270px") for text in ("replay", "beside"))
        self._scrubber = widgets.IntSlider(0, min=0, max=1, description="frame", **_SLIDER)
        self._arrange()
        for name, action in actions.items():
            self._buttons[name].on_click(lambda _, action=action: action())
        for name, widget in self._known().items():
            widget.observe(lambda change, name=name: self._moved(name, change["old"], change["new"]), names="value")
        for widget in (self._scrubber, self._shown, self._beside):
            widget.observe(lambda _: replay(self._chosen(), self._scrubber.value) if self._by_hand() else None,
                           names="value")

    def _arrange(self) -> None:
        w, b = {name: view.widget for name, view in self.views.items()}, self._buttons
        self.rows = [
            widgets.HBox([w["dataset"], w["classes"], w["method"], w["epochs"]]),
            widgets.HBox([w["schedule"], w["beta0"], w["weight0"], b["Follow schedule"], w["p"]]),
            widgets.HBox([*self.dials.values(), w["lr"]]),
            widgets.HBox([b["Start"], b["Pause"], b["Step"], b["Reset"], self.speed], layout={"align_items": "center"}),
            self._status,
        ]
        self.foot = widgets.HBox([self._shown, self._beside, self._scrubber, b["Export"]])

    def _known(self) -> dict[str, widgets.Widget]:
        return {**{name: view.widget for name, view in self.views.items()}, **self.dials, "speed": self.speed}

    def accept(self, recipe: Recipe, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values from a script as a hand would leave them: a menu's entry goes by its name, too; speed is set at once.

        Raises ValueError and TypeError for a name that is not there and for a value that is not accepted.
        """
        known = self._known()
        if unknown := values.keys() - known.keys():
            raise ValueError(f"there is no control {', '.join(sorted(unknown))}, but {', '.join(sorted(known))}")
        values = {name: _options(known[name]).get(value, value) if isinstance(value, str) else value
                  for name, value in values.items()}
        for dial in REGULARISERS[recipe.regulariser].dials:
            value = values.get(dial.name, dial.low)
            if not isinstance(value, Real) or not dial.low <= float(value) < math.inf:
                raise ValueError(f"{dial.name} must be a finite number of at least {dial.low}, got {value!r}")
        self.rewrite(recipe, values)
        if "speed" in values:
            self.speed.value = check_choice("speed", values.pop("speed"), [speed for _, speed in _SPEEDS])
        return values

    def rewrite(self, recipe: Recipe, controls: Mapping[str, Any]) -> Recipe:
        """The recipe that moved controls ask for."""
        for name, view in self.views.items():
            if name in controls:
                recipe = view.write(recipe, controls[name])
        return recipe

    def show(self, recipe: Recipe, data: Dataset | None) -> None:
        """Set the views to what a recipe says; with data of the reader's own, their number of classes."""
        settings, off = _settings(recipe), recipe.clouds is None
        with self.own_writes():
            for view in self.views.values():
                _put(view.widget, view.read(recipe))
            if data is not None:
                _put(self.views["classes"].widget, data.num_classes)
            self.views["classes"].widget.disabled = data is not None
            for name, key in (("beta0", "beta0"), ("weight0", "weight")):
                self.views[name].widget.disabled = key not in settings
            for widget in (self.views["schedule"].widget, self.views["p"].widget, *self.dials.values()):
                widget.disabled = off

    def show_dials(self, values: Mapping[str, float]) -> None:
        with self.own_writes():
            for name, slider in self.dials.items():
                _put(slider, round(values[name] / slider.step) * slider.step)

    def show_frames(self, count: int, *, at: int | None = None) -> None:
        """Let the scrubber run over so many frames, and stand at one of them."""
        with self.own_writes():
            self._scrubber.max = max(1, count - 1)
            if at is not None:
                self._scrubber.value = at

    def list_runs(self, runs: Sequence[Run]) -> None:
        options = [(run.label, run) for run in runs]
        with self.own_writes():
            self._shown.options, self._shown.value = options, runs[-1]
            self._beside.options, self._beside.value = [("nothing", ""), *options], ""

    @property
    def status(self) -> str:
        """The status line as plain text."""
        return " · ".join(text for text, _ in (self._said, self._notice) if text)

    def say(self, text: str, *, failed: bool = False) -> None:
        """What goes on, in the status line."""
        self._said = text, failed
        self._write_status()

    def note(self, text: str, *, failed: bool = False) -> None:
        """What came of an order, after what goes on; it stays until the next order."""
        self._notice = text, failed
        self._write_status()

    def _write_status(self) -> None:
        parts = [f'<span style="color: {"#B00020" if failed else "#444444"}">{html.escape(text)}</span>'
                 for text, failed in (self._said, self._notice) if text]
        self._status.value = f'<span role="status">{" · ".join(parts)}</span>'

    def _moved(self, name: str, old: float, value: float) -> None:
        slider = {**self.dials, "lr": self.views["lr"].widget}.get(name)
        if slider is not None:
            moved = math.log10(value / old) if name == "lr" else value - old
            if abs(moved) < 0.6 * slider.step:
                return  # not a hand: the browser rounds what it is sent
        if self._by_hand():
            self._touched({name: value})

    def _chosen(self) -> list[Run]:
        return [run for run in (self._shown.value, self._beside.value) if run]

    def _by_hand(self) -> bool:
        return not getattr(self._writing, "own", False)

    @contextmanager
    def own_writes(self):
        """What this thread writes to widgets in here is not a hand."""
        before, self._writing.own = not self._by_hand(), True
        try:
            yield
        finally:
            self._writing.own = before
