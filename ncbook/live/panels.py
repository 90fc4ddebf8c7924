"""The panels of the lab: what each keeps of a snapshot, and how the page draws it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ncbook import plots
from ncbook.checks import check_choice
from ncbook.heads import SCALE
from ncbook.live.record import Frame, Run, watched
from ncbook.metrics import METRICS
from ncbook.training.data import Dataset
from ncbook.training.regularisers import REGULARISERS, Dial
from ncbook.training.snapshot import Snapshot, in_per_cent
from ncbook.training.trainer import Trainer

KINDS = ("geometry", "curves", "barcode", "matrix", "columns", "input")
GRID, CONFIDENCE = 40, 16
_CURVE_COLORS = {"nc1": "#0072B2", "etf_distance": "#8A5A2B", "nc3": "#882255", "accuracy": "#222222",
                 "test_accuracy": "#6A5ACD"}
_MEANINGS = {"nc1": ("spread", "spread within classes"), "etf_distance": ("unevenness", "off the even arrangement"),
             "nc3": ("classifier", "classifier off the means")}  # of a curve, short and longer
_SPARE_COLORS = ("#117733", "#D55E00", "#AA4499", "#56B4E9", "#E69F00")
_SHOWN_IMAGES = 28 * 28 * 3  # numbers of an image beyond which it is not sent


class Panel(NamedTuple):
    """A part of the lab's picture.

    kind: how the page draws it, one of KINDS: "matrix" a value for each pair of classes, "columns" one for each class;
    the others belong to the panels of `PANELS`. take(snapshot, trainer) is what frames keep for it, an array or a dict
    of arrays of the same shapes in all frames of a run, in `frame.parts` under the panel's name. title stands above it,
    tip says more. Raises ValueError for an unknown kind.
    """

    kind: str
    take: Callable[[Snapshot, Trainer], Any] | None = None
    title: str = ""
    tip: str = ""


def _geometry(shot: Snapshot, trainer: Trainer) -> dict[str, np.ndarray]:
    parts = plots.geometry_coordinates(shot.class_means, shot.features, shot.targets, shot.weight)
    return {name: parts[name].astype(np.float32) for name in ("features", "class means", "weights")}


def _cosines(shot: Snapshot, trainer: Trainer) -> np.ndarray:
    return plots.centred_cosines(shot.class_means).float().numpy()


def _input(shot: Snapshot, trainer: Trainer) -> dict[str, np.ndarray]:
    """For points in the plane the class and confidence on a grid, else the samples nearest to and farthest from the
    mean of their class, by their place among the watched ones."""
    if trainer.data.input_shape == (2,):
        return {"regions": regions(trainer)}
    own = torch.linalg.vector_norm(shot.features - shot.class_means[shot.targets], dim=1)
    ends = []
    for c in range(len(shot.class_means)):
        at = (shot.targets == c).nonzero().flatten()
        ends.append((int(at[own[at].argmin()]), int(at[own[at].argmax()])))
    return {"ends": np.array(ends, dtype=np.float32)}


@torch.no_grad()
def regions(trainer: Trainer) -> np.ndarray:
    """GRID x GRID points of the plane, row by row from above: CONFIDENCE times the class, plus how sure it is."""
    left, right, low, high = extent(trainer.data.train_inputs)
    x, y = torch.linspace(left, right, GRID), torch.linspace(high, low, GRID)
    points = torch.stack((x.repeat(GRID), y.repeat_interleave(GRID)), dim=1).to(trainer.device)
    trainer.backbone.eval()
    trainer.head.eval()
    sure, winner = trainer.head(trainer.backbone(points)).softmax(1).max(1)
    step = ((sure - 1 / trainer.data.num_classes) / (1 - 1 / trainer.data.num_classes) * (CONFIDENCE - 1)).round()
    return (CONFIDENCE * (winner % 16) + step.clamp(0, CONFIDENCE - 1)).to(torch.uint8).cpu().numpy()


def extent(inputs: torch.Tensor) -> tuple[float, float, float, float]:
    """left, right, bottom, top of a picture of points (N, 2), whole numbers, so that a moved point seldom moves it."""
    reach = float(inputs.abs().max().clamp_min(1).ceil())
    return -reach, reach, -reach, reach


PANELS: dict[str, Panel] = {
    "geometry": Panel("geometry", _geometry, "The network's view",
                      "the network's view: features, class means and their nearest simplex ETF, held still"),
    "curves": Panel("curves", None, "The whole run: click to go to a moment",
                    "NC: neural collapse. NC1: spread within the classes in terms of the distance between them; ETF: "
                    "how far the class means are from a simplex ETF; NC3: how far the classifier's rows are from the "
                    "class means. Faint: each measurement; strong: smoothed"),
    "bars": Panel("barcode", None, "Bars: gaps in the clouds",
                  "one bar for each link that joins the dots of a cloud, as long as the link: the death times of H0, "
                  "of the last step's images. Long bars: a wide cloud; none: all dots on one point"),
    "input": Panel("input", _input, "The images", "point at a dot to see its image"),
    "cosines": Panel("matrix", _cosines, "Cosines of class means",
                     "1: the same direction; all as low as they can be: evenly spread"),
}


def chosen_panels(names: Any) -> tuple[str, ...]:
    """The names, checked. Raises ValueError for none, for one that is not in `PANELS`, for a kind that is not known."""
    names = tuple(check_choice("panels", name, PANELS) for name in names)
    if not names:
        raise ValueError("panels must name at least one panel, got none")
    for name in names:
        check_choice(f"kind of panel {name!r}", PANELS[name].kind, KINDS)
    return names


def fields(frame: Frame) -> dict[str, np.ndarray]:
    """The numbers of a frame under the names by which the page knows them, bytes last."""
    flat: dict[str, Any] = {
        "epoch": frame.epoch, "step": frame.step, "manual": frame.manual, "facts": frame.facts,
        "metrics": [*frame.metrics.values()], "dials": [*frame.dials.values()], "planned": [*frame.planned.values()],
        "deaths": frame.deaths,
    }
    for panel, part in frame.parts.items():
        flat |= {f"{panel}.{name}": array for name, array in part.items()} if isinstance(part, dict) else {panel: part}
    arrays = {name: np.asarray(a, dtype=np.uint8 if getattr(a, "dtype", None) == np.uint8 else np.float32)
              for name, a in flat.items() if a is not None}
    return dict(sorted(arrays.items(), key=lambda item: item[1].dtype == np.uint8))


def pack(frame: Frame) -> bytes:
    """The numbers of a frame, as `layout` says, a multiple of four bytes."""
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in fields(frame).values())
    return data + bytes(-len(data) % 4)


def layout(frame: Frame) -> list[list]:
    """[name, bytes a number, shape] of each array in `pack`."""
    return [[name, array.itemsize, array.shape] for name, array in fields(frame).items()]


def header(run: Run) -> dict[str, Any]:
    """What the page has to know of a run beside its frames."""
    count = len(run.class_names)
    vertices = plots.simplex_vertices(count)
    if vertices.shape[1] == 1:
        vertices = torch.cat((vertices, torch.zeros_like(vertices)), dim=1)
    shown = _input_header(run.data) if "input" in run.panels else None
    idle = {"cosines": count == 2, "bars": not run.recipe.clouds, "input": shown is None}
    dials = REGULARISERS[run.recipe.regulariser].dials
    place = {dial.name: k for k, dial in enumerate(dials)}
    titles = {"input": "The data: drag points"} if shown is not None and shown["kind"] == "points" else {}
    dim = run.first.features.shape[1]
    if dim > vertices.shape[1]:
        titles["geometry"] = f"{dim} dimensions, seen " + ("flat" if vertices.shape[1] == 2 else "in space")
    return {
        "id": run.number, "label": run.label, "caption": run.caption, "names": run.class_names,
        "colors": plots.class_colors(count), "epochs": run.recipe.epochs,
        "clouds": bool(run.recipe.clouds), "layout": layout(run.frames[0]),
        "vertices": vertices.tolist(), "targets": run.first.targets.tolist(), "curves": _curves(run),
        "beta": place.get("beta"), "weight": place.get("densify_weight"), "scale": SCALE,
        "dials": [dial.label for dial in dials], "logs": [on_log_scale(dial) for dial in dials],
        "facts": type(run.frames[0].facts)._fields, "ideal": -1 / (count - 1),
        "panels": [{"name": name, "kind": PANELS[name].kind, "tip": PANELS[name].tip,
                    "title": titles.get(name, PANELS[name].title)}
                   for name in run.panels if not idle.get(name)],
        "input": shown,
    }


def on_log_scale(dial: Dial) -> bool:
    """Whether a page shows a dial on a log scale, which has a 0: weights, of which a small one matters."""
    return dial.schedule == "weight"


def _curves(run: Run) -> list[dict]:
    """Name, colour and axis of the curves of a run, in the order of its metrics."""
    found, spare = [], 0
    for key in run.curves:
        metric = METRICS.get(key.removeprefix("test_"))  # there is none for "loss"
        name = (metric.short or metric.label) if metric else "loss"
        name = "test" if key == "test_accuracy" else "test " * key.startswith("test_") + name
        color = _CURVE_COLORS.get(key) or _SPARE_COLORS[spare % len(_SPARE_COLORS)]
        spare += key not in _CURVE_COLORS
        short, long = _MEANINGS.get(key, ("", ""))
        found.append({"key": key, "name": name, "short": short, "long": long, "color": color,
                      "axis": metric.axis if metric else "log", "share": in_per_cent(key.removeprefix("test_"))})
    return found


def _input_header(data: Dataset) -> dict[str, Any] | None:
    """Points of the plane, all of them, or the watched samples as images in one byte a number; else nothing."""
    shape = tuple(data.input_shape)
    if shape == (2,):
        return {"kind": "points", "extent": extent(data.train_inputs), "grid": GRID, "confidence": CONFIDENCE,
                "points": data.train_inputs.cpu().double().round(decimals=4).tolist(),
                "classes": data.train_targets.tolist()}
    if len(shape) == 3 and math.prod(shape) <= _SHOWN_IMAGES and shape[0] in (1, 3):
        pixels = (watched(data).train_inputs.clamp(0, 1) * 255).byte().cpu().permute(0, 2, 3, 1).flatten(1)
        return {"kind": "images", "shape": shape, "pixels": base64.b64encode(pixels.numpy().tobytes()).decode()}
    return None
