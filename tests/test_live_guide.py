"""What the lab says of a moment: facts of frames, and a sentence that is true of them."""

import math

import numpy as np
import pytest
import torch
from live_hands import RECIPE, record

from ncbook.live import Frame, Run
from ncbook.live.guide import RULES, Facts, Guide
from ncbook.live.record import watched
from ncbook.training.data import load_dataset

DATA = load_dataset("gaussians")
WELL = dict(accuracy=1.0, nearest=1.0, size=5.0, spread=0.2, angle=5.0, cloud=1.0, far=0.4, bar=0.5)
SPOT = dict(accuracy=0.33, nearest=0.9, size=0.01, spread=0.5, angle=60.0, cloud=0.005, bar=0.01)
MIXED = dict(accuracy=0.4, nearest=0.5, size=2.0, spread=0.9)


def test_the_facts_of_a_snapshot():
    recorder, frame = record(steps=40)
    shot = recorder.trainer.snapshot(data=watched(recorder.trainer.data))
    centred = shot.class_means - shot.class_means.mean(0)
    facts = frame.facts
    assert facts.size == pytest.approx(float(centred.norm(dim=1).square().mean().sqrt()))
    cosines = [float(torch.cosine_similarity(centred[a], centred[b], dim=0)) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert facts.angle == pytest.approx(max(abs(math.degrees(math.acos(c)) - 120) for c in cosines), abs=1e-3)
    winner = torch.cdist(shot.features, shot.class_means).argmin(1)
    assert facts.nearest == pytest.approx(float((winner == shot.targets).float().mean()))
    assert facts.accuracy == shot.train["accuracy"] and facts.bar == pytest.approx(float(shot.deaths.median()))
    plane = torch.linalg.svd(centred).Vh[:2]
    own = ((shot.features - shot.class_means[shot.targets]) @ plane.T).norm(dim=1)
    assert facts.cloud == pytest.approx(float(own.square().mean().sqrt()), rel=1e-4)
    assert facts.spread == pytest.approx(facts.cloud / facts.size)
    assert (own / facts.size < facts.far).float().mean() == pytest.approx(0.97, abs=0.01)


def test_before_the_first_step_there_are_no_bars():
    assert math.isnan(record()[1].facts.bar)


def lines(frames, dials, start=1, hand=False, planned=(0.0, 0.0)):
    """What a guide says, frame after frame; frames: facts, dials: (β, weight) of each, or of all."""
    guide, run, said = Guide(), Run(1, RECIPE, DATA, None), []
    names = ("beta", "densify_weight")
    for k, facts in enumerate(frames):
        values = dials[k] if isinstance(dials, list) else dials
        frame = Frame((start + k) / 10, start + k, {}, dict(zip(names, values)), np.empty(0, dtype=np.float32), {},
                      Facts(**WELL | facts), dict(zip(names, planned)), hand)
        said.append(guide(run, frame))
    return said


def slide(count=30, **ends):
    """Facts that move evenly from the first to the second of two numbers, or stay."""
    return [{name: end if isinstance(end, float) else end[0] * (end[1] / end[0]) ** (k / (count - 1))
             for name, end in ends.items()} for k in range(count)]


OFF, HARD = (0.0, 0.0), (0.0, 1.0)


@pytest.mark.parametrize(("frames", "dials", "panel", "words"), [
    (slide(**SPOT), OFF, "geometry", "can only guess"),
    (slide(**SPOT | dict(accuracy=0.5)), OFF, "geometry", "begins to tell the dots apart"),
    (slide(**MIXED), OFF, "geometry", "clouds overlap"),
    (slide(**MIXED | dict(nearest=0.95)), OFF, "geometry", "apart already"),
    (slide(**MIXED | dict(accuracy=(0.4, 0.9))), OFF, "geometry", "accuracy climbs"),
    (slide(accuracy=0.8), OFF, "geometry", "some still lie with another class"),
    (slide(spread=(0.4, 0.2)), OFF, "curves", "the clouds shrink by themselves, "),
    (slide(spread=(0.4, 0.2)), HARD, "geometry", "the clouds still shrink"),
    (slide(spread=(0.2, 0.4)), OFF, "curves", "the clouds widen"),
    (slide(angle=30.0), OFF, "geometry", "not all angles are near 120°"),
    (slide(), OFF, "geometry", "angles between their means are near 120°"),
    (slide(spread=0.05, far=0.1), OFF, "geometry", "Close to collapse"),
    (slide(spread=0.01, far=0.02, angle=1.0), OFF, "geometry", "Collapse: the dots of each class are nearly on one"),
    (slide(5) + slide(6, accuracy=0.5), OFF, "curves", "the classifier has not followed"),
    (slide(5) + slide(6, **MIXED), OFF, "geometry", "dots of different classes mix"),
    (slide(5) + slide(6, **MIXED | dict(bar=1.0)), (3.0, 0.3), "geometry",
     "β = 3 makes the clouds swell until they overlap"),
    (slide(5) + slide(6, **SPOT), HARD, "geometry", "the pull to β = 0 has pressed all classes into one spot"),
    (slide(**SPOT), HARD, "geometry", "All dots start in one small spot, and β = 0 with weight 1"),
    (slide(100, **SPOT), HARD, "geometry", "Held in one small spot"),
    (slide(bar=1.0), (1.0, 0.1), "bars", "have reached the line: neighbours in a cloud are about β = 1 apart"),
    (slide(bar=(0.1, 0.5)), (1.0, 0.1), "bars", "shorter than β: the clouds swell"),
    (slide(bar=0.5), (1.0, 0.1), "bars", "they hardly grow"),
    (slide(bar=(4.0, 2.0)), (1.0, 0.1), "bars", "longer than β: the clouds shrink"),
    (slide(bar=2.0), (1.0, 0.1), "bars", "they hardly shrink"),
    (slide(bar=(1.0, 0.5)), [(1 - k / 60, 0.1) for k in range(30)], "bars",
     "near the line of β, which the plan lowers"),
    ([dict(accuracy=math.nan, angle=math.nan)], OFF, "curves", ""),
])
def test_it_says_what_holds(frames, dials, panel, words):
    said = lines(frames, dials)[-1]
    assert said[0] == panel and words in said[1]


def test_the_beginning_is_said_at_once_and_gives_way_at_once():
    said = lines([SPOT] * 2, OFF, start=0)
    assert "Before the first step" in said[0][1] and "lens" in said[0][1] and "only guess" in said[1][1]
    assert "no order" in lines([MIXED], OFF, start=0)[0][1]


@pytest.mark.parametrize(("frames", "before", "after", "words"), [
    (slide(3) + slide(8, bar=(0.5, 1.5)), (0.0, 0.3), (3.3, 0.3), "You raised β to 3.3: the clouds swell"),
    (slide(3, bar=3.0) + slide(8, bar=(3.0, 0.5)), (3.3, 0.3), (0.0, 0.3), "You lowered β to 0: the clouds shrink"),
    (slide(11), (0.0, 0.0), (2.0, 0.0), "no effect while the weight is 0"),
    (slide(8), (1.0, 0.1), (1.0, 0.5), "the bars are pulled to β = 1 harder"),
    (slide(8), (1.0, 0.5), (1.0, 0.1), "the bars are pulled to β = 1 less"),
    (slide(20, **SPOT), HARD, OFF, "nothing presses the dots together any more. Wait"),
    (slide(3, **SPOT) + slide(12, **SPOT | dict(size=(0.01, 0.1))), HARD, OFF, "any more. They spread out"),
    (slide(3, **SPOT) + slide(12), HARD, OFF, "Recovered"),
    (slide(11), (0.0, 0.3), OFF, "β has no effect now"),
    (slide(3) + slide(12, bar=(0.5, 0.05), size=(5.0, 2.0)), OFF, HARD, "This pull comes late"),
])
def test_it_reacts_to_hands(frames, before, after, words):
    dials = [before] * 3 + [after] * (len(frames) - 3)
    assert words in lines(frames, dials, hand=True)[-1][1]
    assert words in lines(frames, dials, planned=(math.nan, math.nan))[-1][1]  # without a plan hands lead anyway
    assert not any(said in lines(frames, dials)[-1][1] for said in ("You ", "late", "any more", "Recovered"))


def test_a_hand_that_goes_on_is_answered_at_once_and_remembers_where_it_began():
    dials = [(0.0, 0.3)] * 3 + [(0.5 * k, 0.3) for k in range(1, 8)]
    said = lines(slide(10, bar=0.2), dials, hand=True)
    assert "You raised β to 0.5" in said[3][1] and "You raised β to 3.5" in said[9][1]


def test_nothing_false_is_said_for_long():
    lost, back = [dict(accuracy=0.5)] * 8, [dict(accuracy=0.99)] * 8
    said = lines(slide(5) + lost + back, OFF)
    assert "has fallen" in said[12][1] and not any("has fallen" in text for _, text in said[17:])
    chance = [dict(accuracy=value, size=2.0) for value in (0.4, 0.97, 0.6, 0.6, 0.6, 0.6, 0.6)]
    assert "fallen" not in lines(chance, OFF)[-1][1]
    said = lines(slide(30, spread=(0.4, 0.2)) + slide(20, spread=(0.2, 0.5)), OFF)
    assert "shrink" in said[29][1] and "shrink" not in said[-1][1]
    said = lines(slide(3, bar=3.0) + slide(4, bar=3.0), [(3.0, 0.3)] * 3 + [(0.0, 0.3)] * 4, hand=True)
    assert "reached the line" in said[2][1] and not any("reached" in text for _, text in said[3:])


def test_it_keeps_its_word_while_two_rules_take_turns():
    done = dict(spread=0.05, far=0.1)
    said = lines([{}, done] * 40, OFF)
    assert len({text for _, text in said[4:]}) == 1


def test_lines_on_slow_changes_do_not_take_turns():
    waves = [slide(30, spread=(high, high - 0.1)) + slide(30, spread=high - 0.1) for high in (0.6, 0.5, 0.4, 0.3)]
    texts = [text for _, text in lines(sum(waves, []), OFF)[10:]]
    assert sum(a != b for a, b in zip(texts, texts[1:])) <= 3


def test_every_sentence_is_said_somewhere():
    known = test_it_says_what_holds.pytestmark[0].args[1], test_it_reacts_to_hands.pytestmark[0].args[1]
    wanted = [words for case in known for *_, words in case] + ["Before the first step: the network", "no order"]
    for rule in RULES[:-1]:
        text = rule.text.format(beta="0", weight="1", ideal="120")
        short = [words.replace("β = 3 ", "β = 0 ").replace("β = 1 ", "β = 0 ").replace("3.3", "0") for words in wanted]
        assert any(words and words in text for words in short), text
