"""What there is to see at this moment of a run: one sentence, by rules on the frame, and the panel that shows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ncbook.training.snapshot import Snapshot

_PATIENCE, _READING = 4, 15  # frames for which another rule must hold, and for which one that can wait is left


class Facts(NamedTuple):
    """What the rules read of a frame.

    accuracy: share of training samples that are classified right; nearest: share of watched samples that are nearest to
    the mean of their own class. In the space of the class means, which the picture shows, and in units of the features:
    size, root mean square norm of the centred means; cloud, root mean square distance of the watched samples to the own
    mean. In units of `size`: spread, the same distance; far, the one that 97 of 100 samples keep. angle: how far the
    angle between two centred means is at most from that of the simplex ETF, in degrees. bar: median death time of the
    last step's clouds, NaN before the first step.
    """

    accuracy: float = math.nan
    nearest: float = math.nan
    size: float = math.nan
    spread: float = math.nan
    angle: float = math.nan
    cloud: float = math.nan
    far: float = math.nan
    bar: float = math.nan

    @classmethod
    def of(cls, shot: Snapshot) -> Facts:
        means = shot.class_means
        centred = means - means.mean(0)
        distances = torch.linalg.vector_norm(shot.features[:, None] - means, dim=2)
        size = float(centred.square().sum(1).mean().sqrt())
        rows = torch.nn.functional.normalize(centred, dim=1)
        off = ~torch.eye(len(means), dtype=torch.bool)
        angles = torch.rad2deg(torch.acos((rows @ rows.T).clamp(-1, 1)))[off]
        within = (shot.features - means[shot.targets]) @ torch.linalg.svd(centred, full_matrices=False).Vh[:-1].T
        own = within.square().sum(1).sqrt()
        cloud, unit = float(own.square().mean().sqrt()), max(size, 1e-30)
        return cls(shot.train["accuracy"], float((distances.argmin(1) == shot.targets).float().mean()), size,
                   cloud / unit, float((angles - ideal_angle(len(means))).abs().max()), cloud,
                   float(own.quantile(0.97)) / unit, math.nan if shot.deaths is None else float(shot.deaths.median()))


def ideal_angle(classes: int) -> float:
    """The angle between two vertices of a simplex ETF, in degrees."""
    return math.degrees(math.acos(-1 / (classes - 1)))


class Rule(NamedTuple):
    """`text` holds of the run and its frame where `holds(frame, best)` does, best being the highest accuracy so far."""

    panel: str
    holds: Callable[[Any, float], bool]
    text: str
    urgent: bool = False


def _lost(frame: Any, best: float) -> bool:
    return best >= 0.95 and frame.facts.accuracy < best - 0.05


def _pulled(frame: Any) -> bool:
    return frame.densify_weight >= 0.3 and frame.beta <= 0.1


RULES = (
    Rule("geometry", lambda f, best: f.step == 0,
         "Each small dot is a training sample as the network sees it, each disc the mean of a class, each diamond a "
         "row of the classifier. Nothing is learned yet."),
    Rule("curves", lambda f, best: _lost(f, best) and f.facts.nearest >= 0.9,
         "Accuracy has fallen, and yet nearly every sample is still nearest to the mean of its own class: the classes "
         "are apart, but the classifier no longer tells them apart.", urgent=True),
    Rule("geometry", _lost,
         "Accuracy has fallen again: samples lie nearer to the mean of another class than to their own.", urgent=True),
    Rule("geometry", lambda f, best: _pulled(f) and f.facts.size < 0.05 and f.facts.accuracy < 0.95,
         "β = 0 with a large weight has pulled the samples of all classes into one spot (see the scale bar: the "
         "picture is magnified). The classifier cannot tell them apart there."),
    Rule("bars", lambda f, best: _pulled(f) and f.facts.accuracy < 0.95,
         "β is 0 and its weight large: all bars are pulled to 0 before the classes are told apart."),
    Rule("geometry", lambda f, best: f.facts.size < 0.02,
         "All class means lie within a hair's breadth of each other: the picture is magnified (see the scale bar)."),
    Rule("geometry", lambda f, best: f.facts.accuracy < 0.6,
         "The clouds overlap: the network cannot tell the classes apart yet."),
    Rule("geometry", lambda f, best: f.facts.accuracy < (0.96 if best >= 0.99 else 0.99),
         "The clouds come apart, each towards a corner of its own, and accuracy climbs."),
    Rule("curves", lambda f, best: f.facts.spread > 0.16,
         "Training accuracy has reached 1. Training could stop here; from now on the clouds shrink and NC1 falls."),
    Rule("geometry", lambda f, best: f.facts.angle > 10,
         "The clouds are small, and the means turn: the angles between them are up to {angle:.0f}° off the "
         "{ideal:.0f}° of the ETF."),
    Rule("geometry", lambda f, best: f.facts.spread > 0.07,
         "The frame is nearly regular: the angles between the means are close to the {ideal:.0f}° of the ETF, and the "
         "clouds still shrink."),
    Rule("geometry", lambda f, best: True,
         "Collapse: samples, class mean and vertex are one point for each class, and the classifier points there too."),
)


class Guide:
    """Tells frame after frame which rule holds; another one only once it has held for some frames."""

    def __init__(self) -> None:
        self._told: Rule | None = None
        self._next: Rule | None = None
        self._text, self._held, self._age, self._best = "", 0, 0, 0.0

    def __call__(self, run: Any, frame: Any) -> tuple[str, str]:
        """The panel to look at and the sentence. Raises nothing: NaN holds no rule but the last."""
        if not math.isnan(frame.facts.accuracy):
            self._best = max(self._best, frame.facts.accuracy)
        rule = next(rule for rule in RULES if rule.holds(frame, self._best))
        self._age += 1
        self._held = self._held + 1 if rule is self._next else 1
        self._next = rule
        ready = self._held >= _PATIENCE and (rule.urgent or self._age >= _READING)
        if rule is not self._told and (self._told is None or self._told is RULES[0] or ready):
            self._told, self._age = rule, 0
            self._text = rule.text.format(angle=frame.facts.angle, ideal=ideal_angle(len(run.class_names)))
        assert self._told is not None
        return self._told.panel, self._text
