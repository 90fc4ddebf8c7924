"""Beginnings that show one thing each: what a click on their name sets, before it starts."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from ncbook.schedules import ConstantSchedule, SlidingSchedule
from ncbook.training.recipe import Recipe


class Scenario(NamedTuple):
    """tip: what it shows, in a sentence. recipe: what is trained; beside: fields of it that differ in a second network,
    which is trained step by step with the first; dials: where they stand at the start, without a schedule."""

    tip: str
    recipe: Recipe
    beside: dict[str, Any] | None = None
    dials: dict[str, float] | None = None


_EPOCHS = 40
COLLAPSE = Recipe(classes=3, head="nearest", clouds=(8, 16), schedule=ConstantSchedule(0.0, 0.0), epochs=_EPOCHS,
                  lr=0.01)


def _but(**changes: Any) -> Recipe:
    return dataclasses.replace(COLLAPSE, **changes)


SCENARIOS: dict[str, Scenario] = {
    "Collapse": Scenario("three digits, cross-entropy alone: what training does to the classes by itself", COLLAPSE),
    "Too early": Scenario("β = 0 with weight 1 from the first step: collapse is demanded before the classes are apart",
                          _but(head="learned", schedule=ConstantSchedule(0.0, 1.0))),
    "Sliding": Scenario("β slides down to 0 while its weight slides up, over the whole run",
                        _but(schedule=SlidingSchedule(1.1, 0.1, _EPOCHS))),
    "By hand": Scenario("no plan: move β and the weight while it trains", _but(schedule=None),
                        dials={"beta": 1.0, "densify_weight": 0.1}),
    "Standard and nearest": Scenario("a learned classifier and the nearest simplex ETF, step by step beside each other",
                                     COLLAPSE, beside={"head": "cosine"}),
    "Four classes in space": Scenario("four class means become a tetrahedron: drag it to turn it", _but(classes=4)),
    "Free features": Scenario("no network, no images: each sample's feature is free, the unconstrained-features model",
                              _but(dataset="unconstrained", backbone="free_features", head="cosine", train_size=150,
                                   clouds=(30, 2), lr=0.5, epochs=200)),
}
