"""Figures with a line for each seed."""

import pytest

from ncbook import plots


def test_seed_curves_have_a_line_for_each_seed_and_the_median():
    curves = {"nearest": [[1, 2], [3, 4], [8, 9]], "untrained": [[5, 5]]}
    fig = plots.seed_curves(["a", "b"], curves, "CDNV", title="t", subtitle="s", width=500)
    assert [tuple(trace.y) for trace in fig.data if not trace.name] == [(1, 2), (3, 4), (8, 9)]
    assert {trace.name: tuple(trace.y) for trace in fig.data if trace.name} == {"nearest": (3, 4), "untrained": (5, 5)}
    assert fig.data[0].line.color == plots.METHOD_STYLES["nearest"][0] and fig.layout.width == 500
    assert fig.layout.title.subtitle.text == "s; thin lines: seeds, thick: median"
    assert fig.layout.yaxis.title.text == "CDNV"
    for wrong in ({}, {"nearest": [[1, 2, 3]]}, {"nearest": [1, 2]}):
        with pytest.raises(ValueError, match="curves must hold methods with a curve of 2 values"):
            plots.seed_curves(["a", "b"], wrong, "CDNV", title="t")


def test_seed_scatter_has_a_mark_for_each_run_and_lines():
    runs = {"vanilla": ([0.1, 0.2], [3, 4])}
    fig = plots.seed_scatter(runs, ("a", "b"), title="t", subtitle="s", lines={"here": 0.1})
    assert (tuple(fig.data[0].x), tuple(fig.data[0].y)) == ((0.1, 0.2), (3, 4))
    assert fig.layout.shapes[0].x0 == 0.1 and fig.layout.annotations[0].x == -1
    assert (fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == ("a", "b")
    with pytest.raises(ValueError, match=r"runs\['vanilla'\] must hold positive"):
        plots.seed_scatter({"vanilla": ([0.0], [1])}, ("a", "b"), title="t", subtitle="s")
