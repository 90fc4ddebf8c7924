import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule, schedule_from_dict

SCHEDULES = [ConstantSchedule(1.1, 0.1), DelayedSchedule(1.1, 0.1, 5), SlidingSchedule(1.1, 0.1, 310)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def test_constant():
    schedule = ConstantSchedule(beta0=1.1, weight=0.1)
    assert [schedule.beta(e) for e in (0, 1, 99.5)] == [1.1] * 3
    assert [schedule.weight(e) for e in (0, 1, 99.5)] == [0.1] * 3


def test_delayed():
    schedule = DelayedSchedule(beta0=1.1, weight=0.1, start=5)
    assert [schedule.weight(e) for e in (0, 1, 4.99, 5, 6, 100)] == [0, 0, 0, 0.1, 0.1, 0.1]
    assert schedule.beta(1) == schedule.beta(100) == 1.1


def test_sliding_at_the_published_settings():
    schedule = SlidingSchedule(beta0=1.1, weight=0.1, epochs=310)
    epochs = np.arange(1, 311)
    np.testing.assert_allclose([schedule.weight(e) for e in epochs], 0.1 * epochs / 310, rtol=1e-12)
    np.testing.assert_allclose([schedule.beta(e) for e in epochs], 1.1 * np.sqrt((310 - epochs) / 310), atol=1e-12)
    assert (schedule.beta(0), schedule.weight(0)) == (1.1, 0)
    assert (schedule.beta(310), schedule.weight(310)) == (0, 0.1)


def test_sliding_keeps_its_last_values():
    schedule = SlidingSchedule(1.1, 0.1, 10)
    assert (schedule.beta(11), schedule.weight(25)) == (0, 0.1)


@given(st.integers(1, 500), st.floats(0, 500), st.floats(0, 500))
def test_sliding_is_monotone(epochs, a, b):
    schedule, (early, late) = SlidingSchedule(1.1, 0.1, epochs), sorted((a, b))
    assert 0 <= schedule.beta(late) <= schedule.beta(early) <= 1.1
    assert 0 <= schedule.weight(early) <= schedule.weight(late) <= 0.1


@every_schedule
def test_schedules_survive_json(schedule):
    restored = schedule_from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert restored == schedule and hash(restored) == hash(schedule) and repr(restored) == repr(schedule)
    assert eval(repr(schedule)) == schedule
    assert all(restored != other for other in SCHEDULES if other is not schedule)


def test_numpy_numbers_are_stored_as_plain_ones():
    settings = SlidingSchedule(np.float32(1.5), np.float64(0.5), np.int64(3)).to_dict()
    assert json.loads(json.dumps(settings)) == {"schedule": "SlidingSchedule", "beta0": 1.5, "weight": 0.5, "epochs": 3}


@every_schedule
def test_bad_epochs(schedule):
    for method in (schedule.beta, schedule.weight):
        for epoch in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match="epoch must be finite and not negative"):
                method(epoch)
        with pytest.raises(TypeError, match="epoch must be a number"):
            method("1")


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_bad_settings(bad):
    for name in ("beta0", "weight"):
        with pytest.raises(ValueError, match=f"{name} must be finite and not negative, got {bad}"):
            ConstantSchedule(**{"beta0": 1.0, "weight": 0.1, name: bad})
    with pytest.raises(ValueError, match="start must be"):
        DelayedSchedule(1.0, 0.1, bad)
    with pytest.raises(TypeError, match="beta0 must be a number, got None"):
        ConstantSchedule(None, 0.1)


def test_bad_epoch_counts():
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        SlidingSchedule(1.0, 0.1, 0)
    with pytest.raises(TypeError, match="epochs must be an integer, got 2.5"):
        SlidingSchedule(1.0, 0.1, 2.5)


def test_dicts_that_describe_no_schedule():
    with pytest.raises(ValueError, match="one of 'ConstantSchedule', .*'SlidingSchedule', got 'Cosine'"):
        schedule_from_dict({"schedule": "Cosine", "beta0": 1.0})
    for settings in ({"beta0": 1.0}, {"beta0": 1.0, "weight": 0.1, "epochs": 3}):
        with pytest.raises(ValueError, match="settings do not fit ConstantSchedule"):
            schedule_from_dict({"schedule": "ConstantSchedule", **settings})
