"""Figures that compare methods over seeds, and the one that follows a cloud through its scales."""

import numpy as np
import pytest
import torch

from ncbook import plots
from ncbook.persistence import h0_death_times

RUNS = {"standard": [[{"epoch": e, "train_nc1": 2.0 / (1 + e) + s, "train_accuracy": 10.0 * e} for e in range(4)]
                     for s in range(3)],
        "nearest": [[{"epoch": e, "train_nc1": 1.0 / (1 + e) + s, "train_accuracy": 12.0 * e} for e in range(4)]
                    for s in range(3)]}
ENDS = {method: [rows[-1] for rows in seeds] for method, seeds in RUNS.items()}


def named(fig, name, meta=None):
    (found,) = [trace for trace in fig.data if trace.name == name and meta in (None, trace.meta)]
    return found


def test_the_menu_shows_one_metric_with_its_axis():
    fig = plots.metric_picker(RUNS, ["nc1", "accuracy"])
    (menu,) = fig.layout.updatemenus
    assert [trace.visible for trace in fig.data] == list(menu.buttons[0].args[0]["visible"])
    for button, key, axis in zip(menu.buttons, ("nc1", "accuracy"), ("log", None), strict=True):
        shown, changes = button.args
        assert {trace.meta for trace, on in zip(fig.data, shown["visible"]) if on} == {key}
        assert changes["yaxis.type"] == axis and changes["yaxis.title.text"] == plots.metric_label(key)
    median = np.median([[row["train_nc1"] for row in rows] for rows in RUNS["nearest"]], axis=0)
    np.testing.assert_allclose(named(fig, "nearest", "nc1").y, median)
    assert sum(trace.meta == "nc1" for trace in fig.data) == 2 * 4


def test_ratios_are_taken_seed_by_seed():
    fig = plots.paired_ratios(ENDS, ["train_nc1", "train_accuracy"], "standard")
    ratios = [[b[key] / a[key] for key in ("train_nc1", "train_accuracy")]
              for a, b in zip(ENDS["standard"], ENDS["nearest"])]
    drawn = {name: np.transpose([trace.x for trace in fig.data if trace.name == name])
             for name in ("nearest", "nearest median")}
    np.testing.assert_allclose(drawn["nearest"], ratios)
    np.testing.assert_allclose(drawn["nearest median"], [np.median(ratios, axis=0)])
    assert "standard" not in {trace.name for trace in fig.data}
    assert fig.layout.xaxis2.title.text == "ratio"  # accuracy is better when it rises


@pytest.mark.parametrize("ends, message", [
    ({"nearest": ENDS["nearest"]}, "baseline"),
    (ENDS | {"fixed": ENDS["nearest"][:2]}, "same seeds"),
    (ENDS | {"fixed": [row | {"train_nc1": 0.0} for row in ENDS["nearest"]]}, "positive"),
])
def test_ends_without_ratios_are_refused(ends, message):
    with pytest.raises(ValueError, match=message):
        plots.paired_ratios(ends, ["train_nc1"], "standard")


@pytest.mark.parametrize("p", [1, 2])
def test_pieces_and_bars_agree_at_every_scale(p):
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scales = np.linspace(0, 3, 13)
    fig = plots.filtration(points, scales, p=p, active=4)
    deaths = h0_death_times(points, p).numpy()
    for scale, frame in zip(scales, fig.frames, strict=True):
        count = len(points) - (deaths <= scale).sum()
        drawn = {fig.data[i].name: data for i, data in zip(frame.traces, frame.data)}
        assert len(set(plots.pieces(points, scale, p))) == len(set(drawn["points"].marker.color)) == count
        assert drawn["count"].text[0].startswith(f"<b>{count} piece")
        assert (np.asarray(drawn["ended bars"].x) > 0).sum() == len(points) - count
    assert named(fig, "scale").x == (scales[4],) * 2


def test_a_filtration_of_too_many_points_is_refused():
    with pytest.raises(ValueError, match="at most 10"):
        plots.filtration(torch.zeros(11, 2), [1.0])
