"""Stars end at their vectors, ETFs stand at their distance, and histograms on a circle add up to one."""

import numpy as np
import pytest
import torch

from ncbook import nearest_simplex_etf, plots, simplex_etf, simplex_etf_distance


def named(traces, name):
    return next(trace for trace in traces if trace.name == name)


@pytest.mark.parametrize(("classes", "dims"), [(3, 2), (4, 3), (5, 3)])
def test_a_star_has_all_edges_and_ends_at_its_vectors(classes, dims):
    points = torch.randn(classes, dims, generator=torch.Generator().manual_seed(0))
    traces = plots.star(points)
    ends, edges, spokes = (named(traces, name) for name in ("vectors", "edges", "spokes"))
    np.testing.assert_allclose(np.stack([ends[axis] for axis in "xyz"[:dims]], 1), points, atol=1e-6)
    assert np.isnan(edges.x).sum() == classes * (classes - 1) / 2
    np.testing.assert_allclose(spokes.x.reshape(-1, 3)[:, 1], points[:, 0], atol=1e-6)
    assert [trace.name for trace in plots.star(points, edges=False)] == ["spokes", "vectors"]
    with pytest.raises(ValueError, match="points"):
        plots.star(torch.ones(3, 4))


def test_stars_in_the_plane_and_in_space_stand_side_by_side_and_number_what_is_not_at_the_centre():
    flat = torch.cat([simplex_etf(3, 2), torch.zeros(1, 2)])
    fig = plots.stars({"a": flat, "b": simplex_etf(4, 3)}, title="t", subtitle="s", names=True)
    names = [trace for trace in fig.data if trace.name == "names"]
    assert names[0].text == ("<b>0</b>", "<b>1</b>", "<b>2</b>") and len(names[1].text) == 4
    assert fig.layout.yaxis.scaleanchor == "x" and fig.data[-1].scene == "scene"


def test_vectors_move_along_their_path():
    path = [torch.eye(3)[:2], -torch.eye(3)[:2]]
    fig = plots.star_animation(path, ["a", "b"], title="t", subtitle="s")
    moved = [dict(zip(frame.traces, frame.data)) for frame in fig.frames]
    at = [trace.name for trace in fig.data].index("vectors")
    np.testing.assert_array_equal(moved[0][at].x, [1, 0])
    np.testing.assert_array_equal(moved[1][at].x, [-1, 0])


def test_dotted_lines_add_up_to_the_distance_that_is_told():
    means = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fig = plots.etf_beside_means([means], ["noise 1"], title="t", subtitle="s")
    between = named(fig.data, "what the distance adds up")
    pairs = np.stack([between.x, between.y], 1).reshape(3, 3, 2)
    distance = float(simplex_etf_distance(means))
    assert np.isclose(((pairs[:, 0] - pairs[:, 1]) ** 2).sum() / 3, distance, rtol=1e-4)
    corners = named(fig.data, "nearest simplex ETF")
    np.testing.assert_allclose(corners.x[:3], nearest_simplex_etf(means)[:, 0], atol=1e-6)
    assert fig.layout.sliders[0].steps[0].label == f"noise 1, squared distance {distance:.3f}"


def test_directions_that_are_uniform_have_the_density_one():
    degrees = torch.arange(-180, 180).float() + 0.5
    fig = plots.direction_histograms({"all": degrees, "half": degrees.abs()}, title="t", subtitle="s", bins=12)
    assert set(fig.data[0].r) == {1.0}
    assert list(fig.data[1].r) == [2.0] * 6 + [0.0] * 6
    assert fig.data[1].subplot == "polar2" and tuple(fig.layout.polar.radialaxis.tickvals) == (1, 2)
