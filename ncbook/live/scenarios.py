"""Beginnings that show one thing each: what a click on their name sets, before it starts."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from ncbook.schedules import ConstantSchedule, SlidingSchedule
from ncbook.training.recipe import Recipe


class Scenario(NamedTuple):
    """tip: what will be seen and what to try, in a sentence or two. recipe: what is trained; beside: fields of it that
    differ in a second network, which is trained step by step with the first; dials: where they stand at the start,
    without a schedule; name: its key in `SCENARIOS` where it was begun as one of them."""

    tip: str
    recipe: Recipe
    beside: dict[str, Any] | None = None
    dials: dict[str, float] | None = None
    name: str = ""


_EPOCHS = 40
COLLAPSE = Recipe(classes=3, head="learned", clouds=(12, 12), schedule=ConstantSchedule(0.0, 0.0), epochs=_EPOCHS,
                  lr=0.01, weight_decay=0.005, seed=1)


def _but(**changes: Any) -> Recipe:
    return dataclasses.replace(COLLAPSE, **changes)


FIRST = "Collapse"
SCENARIOS: dict[str, Scenario] = {
    FIRST: Scenario("Neural collapse: the clouds come apart, shrink towards points, end evenly spread. Nobody asked "
                    "for that.", COLLAPSE),
    "Too early": Scenario("β = 0 and weight 1 from the first step: the classes stay in one spot. Try: pull the weight "
                          "to 0.", _but(schedule=ConstantSchedule(0.0, 1.0))),
    "Sliding": Scenario("The plan lowers β to 0 while the weight grows: first apart, then small. Watch the bars.",
                        _but(schedule=SlidingSchedule(1.1, 0.1, _EPOCHS))),
    "By hand": Scenario("β = 1 holds the clouds open. Try, once they are apart: β up to 3, then down to 0.",
                        _but(schedule=None), dials={"beta": 1.0, "densify_weight": 0.1}),
    "Standard and nearest": Scenario("Nearest takes its directions ◇ from the means, standard learns them. Watch ◇, "
                                     "and NC3.",
                                     _but(head="nearest", weight_decay=5e-4), beside={"head": "cosine"}),
    "Four classes in space": Scenario("Four class means end as the corners of a tetrahedron. Drag it to turn it.",
                                      _but(classes=4)),
    "Free features": Scenario("No network, no images: each dot may move freely. The clouds still collapse, and more "
                              "tightly.",
                              _but(dataset="unconstrained", backbone="free_features", head="cosine", train_size=150,
                                   clouds=(30, 2), lr=0.5, epochs=200, weight_decay=5e-4)),
}
