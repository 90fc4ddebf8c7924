"""Figures of methods that were run on the same splits."""

import pytest

from ncbook import plots


def test_slope_chart_has_a_line_a_split_and_the_means():
    values = {"vanilla": [92.0, 93.0], "sliding": [94.0, 95.0]}
    fig = plots.slope_chart(values, "accuracy", title="t", beside={"sliding": (94.2, 0.5)})
    lines = [trace for trace in fig.data if trace.mode == "lines+markers"]
    assert [tuple(line.y) for line in lines] == [(92, 94), (93, 95)]
    means = {trace.name: trace for trace in fig.data if trace.mode == "markers+text"}
    assert {name: tuple(trace.y) for name, trace in means.items()} == {"vanilla": (92.5,), "sliding": (94.5,)}
    assert means["sliding"].marker.color == plots.METHOD_STYLES["sliding"][0]
    assert fig.data[-1].y == (94.2,) and tuple(fig.data[-1].error_y.array) == (0.5,)
    for wrong in ({"vanilla": [1.0]}, {"vanilla": [1.0], "sliding": [1.0, 2.0]}):
        with pytest.raises(ValueError, match="values must hold"):
            plots.slope_chart(wrong, "accuracy", title="t")


def test_interval_chart_draws_both_ends_in_the_colour_of_the_first():
    fig = plots.interval_chart({"sliding − vanilla": (1.7, 1.3, 2.2)}, "points", title="t", subtitle="s")
    (mark,) = fig.data
    assert mark.x == (1.7,) and mark.marker.color == plots.METHOD_STYLES["sliding"][0]
    assert (mark.error_x.array[0], mark.error_x.arrayminus[0]) == (pytest.approx(0.5), pytest.approx(0.4))
    with pytest.raises(ValueError, match="intervals"):
        plots.interval_chart({}, "points", title="t", subtitle="s")


def test_band_panels_show_each_method_beside_the_baseline():
    curves = {"linear on clouds": [[1, 2], [0, 1], [2, 3]], "sliding": [[2, 4], [1, 3], [3, 5]],
              "nearest": [[1, 1], [0, 0], [2, 2]]}
    fig = plots.band_panels([1, 2], curves, "accuracy", title="t", subtitle="s", beside="linear on clouds", floor=0)
    assert [note.text for note in fig.layout.annotations] == ["sliding", "nearest"]
    drawn = [(trace.name, trace.xaxis, tuple(trace.y)) for trace in fig.data if trace.name and "band" not in trace.name]
    assert drawn == [("linear on clouds", "x", (1, 2)), ("sliding", "x", (2, 4)), ("linear on clouds", "x2", (1, 2)),
                     ("nearest", "x2", (1, 1))]
    edge = next(trace for trace in fig.data if trace.name == "sliding, band")
    assert tuple(edge.y) == (3, 5, 3, 1)
    with pytest.raises(ValueError, match="beside"):
        plots.band_panels([1, 2], curves, "accuracy", title="t", subtitle="s", beside="vanilla")


def test_measures_are_ranked_against_accuracy():
    accuracy = {"sliding": 3.0, "fixed": 1.0, "nearest": 2.0}
    measures = {"with": dict(zip(accuracy, (30, 10, 20))), "against": dict(zip(accuracy, (1, 3, 2)))}
    fig = plots.against_accuracy(accuracy, measures, title="t", log=["against"])
    assert [note.text.split()[-1] for note in fig.layout.annotations] == ["+1.00", "-1.00"]
    assert [(trace.x[0], trace.y[0]) for trace in fig.data if trace.name == "fixed"] == [(10, 1), (3, 1)]
    assert [fig.layout.xaxis.type, fig.layout.xaxis2.type] == ["linear", "log"]
