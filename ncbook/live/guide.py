"""What there is to see at this moment of a run: one sentence, by rules on the frame, and the panel that shows it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ncbook.training.snapshot import Snapshot

_PATIENCE, _READING = 4, 25  # frames for which another rule must hold, and for which a line that is still true is left
_CALM = 120  # frames for which one line on slow changes is not taken back by another one
_WINDOW, _FRESH = 30, 60  # frames over which a trend is read, and for which a hand's last move is spoken of
_SMALL, _PULL = 0.4, 0.1  # size below which all dots are in one spot; weight from which densification can lead


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


class Hand(NamedTuple):
    """What a hand did last: the dial, its value before, accuracy and bar when it began, and how many frames ago."""

    dial: str
    before: float
    accuracy: float
    bar: float
    age: int = 0


class Moment(NamedTuple):
    """What a rule is asked about: a frame, and what the frames before it say.

    best: highest accuracy that lasted; spread, size, bar: by how much the logarithm of this fact has changed lately,
    accuracy: the accuracy itself, by a line fitted through the last frames, 0 where there are too few; angle: its mean
    over them; worst: the lowest accuracy in them; sliding: whether a plan is lowering β; chance: the accuracy of
    guessing.
    """

    frame: Any
    best: float = 0.0
    hand: Hand | None = None
    spread: float = 0.0
    size: float = 0.0
    bar: float = 0.0
    accuracy: float = 0.0
    angle: float = 0.0
    worst: float = 0.0
    sliding: bool = False
    chance: float = 0.0

    @property
    def facts(self) -> Facts:
        return self.frame.facts

    @property
    def learned(self) -> bool:
        return self.facts.accuracy >= 0.97

    @property
    def lost(self) -> bool:
        return self.best >= 0.95 and self.facts.accuracy < 0.9

    @property
    def active(self) -> bool:
        return self.frame.densify_weight > 0

    @property
    def pressed(self) -> bool:
        """Whether a strong pull to β near 0 holds all dots in one spot."""
        frame = self.frame
        return frame.densify_weight >= _PULL and frame.beta <= 0.1 and self.facts.size < _SMALL

    @property
    def ratio(self) -> float:
        """The median bar in terms of β."""
        return self.facts.bar / max(self.frame.beta, 1e-6)

    def moved(self, dial: str, up: bool, within: int = _FRESH) -> bool:
        """Whether a hand has lately moved a dial up or down."""
        if self.hand is None or self.hand.dial != dial or self.hand.age > within:
            return False
        return self.frame.dials[dial] > self.hand.before if up else self.frame.dials[dial] < self.hand.before

    def just(self, dial: str) -> bool:
        """Whether a dial was moved so lately that no trend can show it."""
        return self.hand is not None and self.hand.dial == dial and self.hand.age < 6

    @property
    def begun(self) -> Hand:
        """How things stood when a hand began, or as they are."""
        facts = self.facts
        return self.hand or Hand("", 0.0, facts.accuracy, facts.bar)

    @property
    def freed(self) -> bool:
        return self.moved("densify_weight", up=False, within=3 * _FRESH) and not self.active


class Rule(NamedTuple):
    """`text` holds of a frame where `holds(moment)` does. An urgent one does not wait until the one before is read; of
    calm ones, which speak of slow changes, one does not soon follow the other."""

    panel: str
    holds: Callable[[Moment], bool]
    text: str
    urgent: bool = False
    calm: bool = False


RULES = (
    Rule("geometry", lambda m: m.frame.step == 0 and m.facts.size < _SMALL,
         "Before the first step: the network puts all dots into one small spot. The lens shows what is in it."),
    Rule("geometry", lambda m: m.frame.step == 0, "Before the first step: the dots have no order that training gave."),
    # A hand has just moved β.
    Rule("bars", lambda m: m.active and m.just("beta") and m.moved("beta", True) and m.ratio < 0.8,
         "You raised β to {beta}: the clouds swell, until their bars reach the line.", urgent=True),
    Rule("bars", lambda m: m.active and m.just("beta") and m.moved("beta", False) and m.ratio > 1.25,
         "You lowered β to {beta}: the clouds shrink, as their bars are pulled to the line.", urgent=True),
    # A hand has just moved the weight.
    Rule("bars", lambda m: m.active and m.just("densify_weight") and m.moved("densify_weight", True),
         "You raised the weight to {weight}: the bars are pulled to β = {beta} harder.", urgent=True),
    Rule("bars", lambda m: m.active and m.just("densify_weight") and m.moved("densify_weight", False),
         "You lowered the weight to {weight}: the bars are pulled to β = {beta} less.", urgent=True),
    # Accuracy that was there has gone.
    Rule("geometry", lambda m: m.lost and m.pressed,
         "Accuracy has fallen: the pull to β = {beta} has pressed all classes into one spot. Try: weight to 0.",
         urgent=True),
    Rule("geometry", lambda m: m.lost and m.active and m.facts.nearest < 0.97 and m.facts.bar < m.frame.beta,
         "Accuracy has fallen: β = {beta} makes the clouds swell until they overlap.", urgent=True),
    Rule("curves", lambda m: m.lost and m.facts.nearest >= 0.95,
         "Accuracy has fallen, though nearly every dot is nearest to the mean of its own class: the clouds are apart, "
         "but the classifier has not followed.", urgent=True),
    Rule("geometry", lambda m: m.lost, "Accuracy has fallen: dots of different classes mix.", urgent=True),
    # It has never been there, and the pull is why.
    Rule("geometry", lambda m: m.pressed and m.facts.accuracy < 0.9 and m.frame.step < 60,
         "All dots start in one small spot, and β = {beta} with weight {weight} presses them together before the "
         "classes are apart."),
    Rule("geometry", lambda m: m.pressed and m.facts.accuracy < 0.9,
         "Held in one small spot: even where the lens shows clouds apart, dots this close get nearly the same answer "
         "from the classifier. Try: pull the weight to 0."),
    # A hand has just let go.
    Rule("geometry", lambda m: m.freed and m.begun.accuracy < 0.9 and m.facts.accuracy < 0.9 and m.size > 0.1,
         "The weight is 0: nothing presses the dots together any more. They spread out.", urgent=True),
    Rule("geometry", lambda m: m.freed and m.begun.accuracy < 0.9 and m.facts.accuracy < 0.9,
         "The weight is 0: nothing presses the dots together any more. Wait: will they spread out?", urgent=True),
    Rule("curves", lambda m: m.freed and m.begun.accuracy < 0.9 and m.learned and m.facts.spread > 0.16,
         "Recovered: without the pull the classes have come apart, and accuracy is near 1.", urgent=True),
    Rule("bars", lambda m: m.freed and m.moved("densify_weight", False) and m.facts.accuracy >= 0.9,
         "The weight is 0: β has no effect now. Only the classifier moves the dots.", urgent=True),
    Rule("bars", lambda m: not m.active and (m.moved("beta", True) or m.moved("beta", False)),
         "You moved β, but it has no effect while the weight is 0. Move the weight up, too.", urgent=True),
    # Learning.
    Rule("geometry", lambda m: m.facts.accuracy < m.chance + 0.1 and m.facts.size < _SMALL,
         "The classifier can only guess yet: all dots lie in one small spot, and get nearly the same answer."),
    Rule("geometry", lambda m: m.facts.accuracy < 0.6 and m.facts.size < _SMALL,
         "The classifier begins to tell the dots apart, in the small spot in which they all lie."),
    Rule("geometry", lambda m: m.facts.accuracy < 0.6 and m.facts.nearest >= 0.9,
         "The clouds are apart already, but the classifier does not tell them apart yet."),
    Rule("geometry", lambda m: m.facts.accuracy < 0.6,
         "The clouds overlap: the classifier cannot tell the classes apart yet."),
    Rule("geometry", lambda m: m.facts.accuracy < 0.95 and m.best < 0.95 and m.accuracy > 0.02,
         "The clouds come apart, each in a direction of its own, and accuracy climbs."),
    Rule("geometry", lambda m: m.facts.accuracy < 0.9,
         "Most dots are classified right; some still lie with another class."),
    # Densification under a hand, or under a plan.
    Rule("bars", lambda m: m.active and m.moved("beta", True) and m.ratio < 0.8 and m.bar > 0.1,
         "You raised β to {beta}: the clouds swell, until their bars reach the line.", urgent=True),
    Rule("bars", lambda m: m.active and m.moved("beta", False) and m.ratio > 1.25 and m.bar < -0.1,
         "You lowered β to {beta}: the clouds shrink, as their bars are pulled to the line.", urgent=True),
    Rule("curves", lambda m: m.active and m.moved("densify_weight", True) and m.begun.accuracy >= 0.95
         and m.worst >= 0.95 and m.frame.beta < m.facts.bar < 0.8 * m.begun.bar,
         "This pull comes late, when the classes are apart: the clouds shrink, and accuracy stays.", urgent=True),
    Rule("bars", lambda m: m.active and m.sliding and 0.85 < m.ratio < 1.2,
         "The bars stay near the line of β, which the plan lowers step by step."),
    Rule("bars", lambda m: m.active and m.frame.beta > 0.02 and 0.85 < m.ratio < 1.2,
         "The bars have reached the line: neighbours in a cloud are about β = {beta} apart."),
    Rule("bars", lambda m: m.active and m.ratio <= 0.85 and m.bar > 0.1,
         "Most bars are shorter than β: the clouds swell."),
    Rule("bars", lambda m: m.active and m.ratio <= 0.85,
         "Most bars are shorter than β, but at this weight they hardly grow."),
    Rule("bars", lambda m: m.active and m.frame.beta > 0.02 and m.ratio >= 1.2 and m.bar < -0.1,
         "Most bars are longer than β: the clouds shrink."),
    Rule("bars", lambda m: m.active and m.frame.beta > 0.02 and m.ratio >= 1.2,
         "Most bars are longer than β, but at this weight they hardly shrink."),
    # Collapse.
    Rule("geometry", lambda m: m.learned and m.facts.far < 0.04 and m.facts.angle < 4,
         "Collapse: the dots of each class are nearly on one point, and the points evenly spread, {ideal}° apart."),
    Rule("geometry", lambda m: m.learned and m.facts.spread < 0.1 and m.facts.angle < 10,
         "Close to collapse: the clouds are tight, and their means lie near the corners of the even arrangement.",
         calm=True),
    Rule("curves", lambda m: m.learned and m.spread < -0.08 and not m.active,
         "Nearly every dot is classified right: training could stop. It goes on, and the clouds shrink by themselves, "
         "against the distances between them.", calm=True),
    Rule("geometry", lambda m: m.learned and m.spread < -0.08,
         "Nearly every dot is classified right, and the clouds still shrink.", calm=True),
    Rule("curves", lambda m: m.learned and m.spread > 0.12,
         "Nearly every dot is classified right. Just now the clouds widen; see the curve NC1 for the long run."),
    Rule("geometry", lambda m: m.learned and m.angle > 12,
         "The clouds change slowly now (see NC1), and the means are not even yet: not all angles are near {ideal}°.",
         calm=True),
    Rule("geometry", lambda m: m.learned,
         "The clouds change slowly now (see NC1); the angles between their means are near {ideal}°.", calm=True),
    Rule("curves", lambda m: True, "Most dots are classified right."),
)


class Guide:
    """Tells frame after frame which rule holds: another one once it has held for some frames, and the one before has
    been read or is no longer true."""

    def __init__(self) -> None:
        self._told: Rule | None = None
        self._next: Rule | None = None
        self._frames: deque[Any] = deque(maxlen=_WINDOW)
        self._text, self._held, self._age, self._false, self._best = "", 0, 0, 0, 0.0
        self._sure = False  # whether there were frames enough to read a trend
        self._hand: Hand | None = None
        self._first = math.nan  # β of the first frame

    def __call__(self, run: Any, frame: Any) -> tuple[str, str]:
        """The panel to look at and the sentence. Raises nothing: NaN holds no rule but the last."""
        moment = self._moment(frame, 1 / len(run.class_names))
        rule = next(rule for rule in RULES if rule.holds(moment))
        self._age += 1
        self._held = self._held + 1 if rule is self._next else 1
        self._next = rule
        if self._told is not None:
            self._false = 0 if self._told.holds(moment) else self._false + 1
        soon = self._sure and self._told is not None and self._told.calm and rule.calm and self._age < _CALM
        due = rule.urgent or self._age >= _READING or self._false >= _PATIENCE
        ready = self._held >= _PATIENCE and due and not soon
        touched = moment.hand is not None and moment.hand.age < _PATIENCE and rule.urgent
        if self._told is None or self._told in RULES[:2] or ready or touched:
            self._age, self._false = self._age if rule is self._told else 0, 0
            self._told, self._sure = rule, len(self._frames) == _WINDOW
        if rule is self._told:
            self._text = rule.text.format(beta=f"{frame.beta:.2g}", weight=f"{frame.densify_weight:.2g}",
                                          ideal=f"{ideal_angle(len(run.class_names)):.0f}")
        return self._told.panel, self._text

    def _moment(self, frame: Any, chance: float) -> Moment:
        self._follow_hand(frame)
        self._first = self._first if self._frames else frame.beta
        self._frames.append(frame)
        lasting = [f.facts.accuracy for f in list(self._frames)[-_PATIENCE:]]  # for one frame it may be chance
        if len(lasting) == _PATIENCE and not any(map(math.isnan, lasting)):
            self._best = max(self._best, min(lasting))
        lately = list(self._frames)[-1 - self._hand.age :] if self._hand else list(self._frames)
        logs = {name: _change([math.log(max(getattr(f.facts, name), 1e-30)) for f in lately])
                for name in ("spread", "size", "bar")}
        sliding = self._hand is None and self._first > 1.001 * frame.beta
        accuracies = [f.facts.accuracy for f in lately]
        return Moment(frame, self._best, self._hand, accuracy=_change(accuracies), worst=min(accuracies), chance=chance,
                      angle=sum(f.facts.angle for f in lately) / len(lately), sliding=sliding, **logs)

    def _follow_hand(self, frame: Any) -> None:
        led = frame.manual or all(math.isnan(value) for value in frame.planned.values())
        if not led or not self._frames:
            self._hand = None
            return
        before, facts = self._frames[-1].dials, self._frames[-1].facts
        moved = [name for name, value in frame.dials.items() if value != before.get(name, value)]
        if not moved:
            self._hand = self._hand and self._hand._replace(age=self._hand.age + 1)
        elif self._hand and self._hand.dial == moved[0] and self._hand.age < _PATIENCE:  # still the same pull
            self._hand = self._hand._replace(age=0)
        else:
            self._hand = Hand(moved[0], before[moved[0]], facts.accuracy, facts.bar)


def _change(values: list[float]) -> float:
    """By how much a line through the values rises from the first to the last; 0 for fewer than five or for NaN."""
    n = len(values)
    slope = np.polyfit(np.arange(n), values, 1)[0] if n >= 5 else 0.0
    return 0.0 if math.isnan(slope) else float(slope * (n - 1))
