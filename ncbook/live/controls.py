"""The controls of the lab. Each is a view of a recipe, which it changes only when a hand moves it."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

from ncbook.checks import check_choice
from ncbook.heads import HEADS
from ncbook.live.panels import on_log_scale
from ncbook.live.record import BY_HAND, OWN, plan_name
from ncbook.schedules import SCHEDULES
from ncbook.training.data import DATASETS, Dataset, data_folder
from ncbook.training.recipe import Recipe
from ncbook.training.regularisers import REGULARISERS

ALL, PACED = "all", "slow, then fast"
SPEEDS: dict[str, float | None] = {PACED: None, **{f"{n} steps/s": n for n in (1, 3, 10, 30)}, "full": math.inf}
_PLAN = {"beta0": 1.1, "weight": 0.1}  # where there is no schedule yet
_NORMS = {"L1": 1, "L2": 2, "L∞": math.inf}
_FILES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "svhn": "train_32x32.mat",
          "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}
_MEANINGS = {  # of a dial: in few words, and longer
    "beta": ("wanted length of the bars",
             "β: how far apart neighbours in a cloud are wanted. The bars are the gaps in the clouds of the last step; "
             "longer ones are pulled together until they are β long, shorter ones pushed apart. 0: every class on one "
             "point."),
    "densify_weight": ("pull of the bars to β, log scale",
                       "weight: how strongly the bars are pulled to β, beside the wish to tell the classes apart. 0: "
                       "not at all. The slider is logarithmic: each quarter of it is a factor of ten."),
}
_NEEDS = {"beta": "densify_weight"}


class View(NamedTuple):
    """A control that shows read(recipe) and, moved, asks for write(recipe, value), in a new run if it `restarts`.

    options: text -> value of a menu, None for a number in the range of low to high; tip: what it is, in a sentence.
    write raises ValueError or TypeError for a value that is not accepted.
    """

    label: str
    read: Callable[[Recipe], Any]
    write: Callable[[Recipe, Any], Recipe]
    restarts: bool = False
    options: Callable[[], dict[str, Any]] | None = None
    low: float = 0
    high: float = 100
    step: float | str = "any"
    tip: str = ""


def make_views(recipe: Recipe) -> dict[str, View]:
    """The views of a recipe, in the order in which what they ask for is to be written."""
    def field(name: str) -> tuple[Callable, Callable]:
        return lambda recipe: getattr(recipe, name), lambda recipe, value: dataclasses.replace(recipe, **{name: value})

    def setting(name: str) -> tuple[Callable, Callable]:
        return lambda recipe: _settings(recipe).get(name, _PLAN[name]), lambda recipe, v: _with_setting(recipe, name, v)

    own = recipe.schedule
    plans = {name: name for name in (BY_HAND, *_kinds(recipe), *[OWN] * (plan_name(own) == OWN))}
    counts = {str(k): k for k in (2, 3, 4, 5, 6, 8, 10)} | {ALL: ALL}
    return {
        "dataset": View("data", lambda recipe: recipe.dataset, _with_dataset, True,
                        lambda: {name + " (download)" * _absent(name): name for name in DATASETS}),
        "classes": View("classes", lambda recipe: ALL if recipe.classes is None else recipe.classes,
                        lambda recipe, k: dataclasses.replace(recipe, classes=None if k == ALL else k), True,
                        lambda: counts),
        "method": View("method", *field("head"), True, lambda: {kind.method: key for key, kind in HEADS.items()},
                       tip="the classifier: learned (linear, or standard on unit vectors), or a simplex ETF, fixed or "
                           "the one nearest to the class means"),
        "epochs": View("epochs", field("epochs")[0], _with_epochs, True, low=1, high=10**6, step=1),
        "seed": View("seed", *field("seed"), True, low=0, high=10**6, step=1, tip="another one is another run"),
        "schedule": View("schedule", lambda recipe: plan_name(recipe.schedule),
                         lambda recipe, name: _with_plan(recipe, name, own), options=lambda: plans,
                         tip="the plan by which β and the weight move while it trains"),
        "beta0": View("β₀", *setting("beta0"), high=4, tip="where the plan begins with β"),
        "weight0": View("w₀", *setting("weight"), high=1, tip="the largest weight of the plan"),
        "p": View("norm", *field("p"), options=lambda: _NORMS, tip="how the lengths of the bars are measured"),
        "lr": View("learning rate", *field("lr"), high=3, tip="how far a step goes; it falls to 0 by the last epoch"),
    }


def _absent(name: str) -> bool:
    return name in _FILES and not (data_folder() / _FILES[name]).exists()


def _kinds(recipe: Recipe) -> dict[str, type]:
    """The schedules that move the dials of the recipe's regulariser and need no argument that the lab has not."""
    moved = [dial.schedule for dial in REGULARISERS[recipe.regulariser].dials]
    return {name.removesuffix("Schedule").lower(): kind for name, kind in SCHEDULES.items()
            if all(hasattr(kind, method) for method in moved)
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


class Controls:
    """What the controls of a lab show and accept: the `views` of its recipe and the `dials` of its regulariser."""

    def __init__(self, recipe: Recipe):
        self.views = make_views(recipe)
        self.dials = {dial.name: dial for dial in REGULARISERS[recipe.regulariser].dials}

    def accept(self, recipe: Recipe, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values from a script or a page as a hand would leave them: a menu's entry goes by its text, too.

        Raises ValueError and TypeError for a name that is not there and for a value that is not accepted.
        """
        known = [*self.views, *self.dials, "speed"]
        if unknown := values.keys() - set(known):
            raise ValueError(f"there is no control {', '.join(sorted(unknown))}, but {', '.join(sorted(known))}")
        values = {name: self._value(name, value) for name, value in values.items()}
        for dial in self.dials.values():
            value = values.get(dial.name, dial.low)
            if not isinstance(value, Real) or not dial.low <= float(value) < math.inf:
                raise ValueError(f"{dial.name} must be a finite number of at least {dial.low}, got {value!r}")
        if "speed" in values:
            check_choice("speed", values["speed"], list(SPEEDS.values()))
        self.rewrite(recipe, values)
        return values

    def _value(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if name == "speed":
            return SPEEDS.get(value, value)
        options = self.views[name].options if name in self.views else None
        return value if options is None else options().get(value, value)

    def rewrite(self, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
        """The recipe that moved controls ask for."""
        for name, view in self.views.items():
            if name in values:
                recipe = view.write(recipe, values[name])
        return recipe

    def show(self, recipe: Recipe, data: Dataset | None) -> dict[str, dict]:
        """What the page shows of each view: label, tip, value, a menu's texts, a number's range, whether it is off."""
        shown, settings = {}, _settings(recipe)
        for name, view in self.views.items():
            value, off = view.read(recipe), recipe.clouds is None and name in ("schedule", "beta0", "weight0", "p")
            if name == "classes" and data is not None:
                value, off = data.num_classes, True
            if name in ("beta0", "weight0"):
                off = off or {"beta0": "beta0", "weight0": "weight"}[name] not in settings
            entry: dict[str, Any] = {"label": view.label, "off": off, "tip": view.tip}
            if view.options is None:
                entry |= {"value": value, "low": view.low, "high": max(view.high, value), "step": view.step}
            else:
                options = view.options()
                if value not in options.values():
                    options = options | {", ".join(map(str, value)) if isinstance(value, tuple) else str(value): value}
                text = next(text for text, option in options.items() if option == value)
                entry |= {"value": text, "options": list(options)}
            shown[name] = entry
        return shown

    def show_dials(self, recipe: Recipe, values: Any) -> dict[str, dict]:
        """What the page shows of each dial: its label and meaning, range and value, whether on a log scale, whether it
        is off, and the dial without which it has no effect."""
        return {name: {"label": dial.label, "low": dial.low, "high": max(dial.high, getattr(values, name)),
                       "log": on_log_scale(dial), "value": getattr(values, name), "off": recipe.clouds is None,
                       "means": _MEANINGS.get(name, ("", "")), "needs": _NEEDS.get(name, "")}
                for name, dial in self.dials.items()}
