"""Figures with sliders: each opens as its sliders stand, and what they draw is the mathematics."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from ncbook import ClassMeanAverage, plots, simplex_etf, simplex_etf_distance

MEANS = torch.tensor([[1.0, 0.2], [-0.3, 0.8], [-0.6, -0.7]], dtype=torch.float64)


def trace(fig, name):
    return next(t for t in fig.data if t.name == name)


def two_sliders(second=({"dots": {"x": [1]}}, {"dots": {"x": [2]}})):
    fig = go.Figure([go.Scatter(name="line", x=[0], y=[0]), go.Scatter(name="dots", x=[0], y=[0])])
    first = [{"dots": {"y": [5]}}, {"dots": {"y": [6]}, "line": {"y": [7]}}]
    sliders = {"a ": (["0", "1"], first), "b ": (["0", "1"], list(second))}
    return plots.add_sliders(fig, sliders, widths=(1, 3), active=[1, 0])


def test_sliders_act_on_their_own_and_the_figure_opens_as_they_stand():
    fig = two_sliders()
    assert (fig.data[1].x, fig.data[1].y, fig.data[0].y) == ((1,), (6,), (7,))
    assert [slider.active for slider in fig.layout.sliders] == [1, 0]
    frames = {frame.name: frame for frame in fig.frames}
    (target,), _ = fig.layout.sliders[1].steps[1].args
    assert frames[target].traces == (1,) and frames[target].data[0].x == (2,) and frames[target].data[0].y is None
    left, right = fig.layout.sliders
    assert (left.x, right.x) == (0, 0.25) and left.len < 0.25 and right.pad.t < fig.layout.margin.b


def test_sliders_that_would_undo_each_other_or_lack_labels_are_refused():
    with pytest.raises(ValueError, match="both change y of 'dots'"):
        two_sliders(second=({"dots": {"y": [1]}}, {"dots": {"y": [2]}}))
    with pytest.raises(ValueError, match="one change a label"):
        two_sliders(second=({"dots": {"x": [1]}},))


def test_the_ring_has_its_floor_at_the_vertex_and_a_trap_opposite_only_for_long_features():
    for scale in (1.0, 5.0):
        assert float(plots.ring_loss(torch.zeros(1), scale)) == pytest.approx(math.log1p(2 * math.exp(-1.5 * scale)))
        etf = simplex_etf(3, 2, dtype=torch.float64)
        opposite = torch.nn.functional.cross_entropy(-scale * etf[:1] @ etf.T, torch.tensor([0]))
        assert float(plots.ring_loss(torch.tensor([180.0]), scale)) == pytest.approx(float(opposite))
    ends = {(start, scale): plots.ring_walk(start, scale)[-1] for start in (140, 165, -165) for scale in (1, 5)}
    assert all(abs(ends[start, 1]) < 1 for start in (140, 165, -165)) and abs(ends[140, 5]) < 1
    assert plots.ring_walk(180, 1)[-1] == pytest.approx(0, abs=0.5)
    assert ends[165, 5] == pytest.approx(180, abs=0.5) and ends[-165, 5] == pytest.approx(-180, abs=0.5)


def test_the_ring_shows_the_walk_of_its_sliders():
    fig = plots.loss_ring([1, 5], [30, 165], active=(1, 1))
    assert (trace(fig, "way 0").visible, trace(fig, "way 1").visible) == (False, True)
    walk = trace(fig, "way on the curve 1")
    assert walk.x[0] == 165 and abs(walk.x[-1] - 180) < 0.5 and max(walk.y) <= 1
    np.testing.assert_allclose([trace(fig, "way 1").x[-1], trace(fig, "way 1").y[-1]], [0, -1.2], atol=0.02)
    np.testing.assert_allclose(trace(fig, "loss").y, trace(fig, "loss on the ring").marker.color)


def test_a_strip_draws_features_by_class_and_their_vertices():
    features, targets = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    fig = plots.ring_strip({"start": features, "end": 3 * features}, targets, simplex_etf(3, 2))
    first, last = (t for t in fig.data if t.name == "features")
    np.testing.assert_allclose(first.x, last.x, atol=1e-6)
    assert list(first.marker.color) == [plots.CLASS_COLORS[t] for t in targets]
    with pytest.raises(ValueError, match="vertices"):
        plots.ring_strip({"start": features}, targets, simplex_etf(3, 4))


@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_of_the_plane_are_simplex_etfs_whose_angle_is_found_again(mirrored):
    frame = plots.frame_at(torch.tensor([-130.0, 25.0]), mirrored)
    cosines = frame @ frame.mT
    np.testing.assert_allclose(cosines, np.broadcast_to(1.5 * np.eye(3) - 0.5, (2, 3, 3)), atol=1e-12)
    angle, found = plots.frame_angle(frame[0])
    assert angle == pytest.approx(-130) and found == mirrored


def test_the_landscape_has_its_lowest_point_at_the_nearest_etf_and_turns_over_behind_the_line():
    grid = torch.linspace(-180, 180, 721, dtype=torch.float64)
    lowest = min(float(plots.frame_distances(MEANS, grid, mirrored).min()) for mirrored in (False, True))
    assert lowest == pytest.approx(float(simplex_etf_distance(MEANS)), abs=1e-4)
    flipped = MEANS.clone()
    flipped[0] = -2 * MEANS[0]
    fig = plots.frame_landscape([MEANS, flipped], ["0", "1"], active=1)
    curves = [min(trace(fig, name).y) for name in ("not mirrored", "mirrored")]
    before = [min(change.y) for change in fig.frames[0].data[-3:-1]]
    assert (curves[0] < curves[1]) != (before[0] < before[1])
    assert trace(fig, "nearest").y[0] == pytest.approx(min(curves), abs=5e-3)


def test_panels_share_one_key_and_thin_long_curves():
    line = np.arange(1000.0)
    fig = plots.curve_panels({"a": {"x": (line, line), "y": (line, -line)}, "b": {"y": (line, line)}}, title="t",
                             styles={"y": ("#123456", "dot")})
    assert [t.showlegend for t in fig.data] == [True, True, False]
    assert all(len(t.x) <= 200 and t.x[-1] == 999 for t in fig.data)
    assert {t.line.color for t in fig.data if t.name == "y"} == {"#123456"}


@pytest.mark.parametrize("method", ["cma", "ema"])
def test_average_weights_are_those_of_the_module(method):
    average = ClassMeanAverage(2, 12, method)
    for unit in torch.eye(12):
        average(unit[None], torch.tensor([0]))
    np.testing.assert_allclose(plots.average_weights(method, 12)[-1], average.mean[0], atol=1e-6)


def test_tracking_errors_are_what_a_simulation_finds():
    alpha, noise, settling, steps = 0.2, 0.4, 15, 40
    target = 1 - np.exp(-np.arange(1, steps + 1) / settling)
    average, batches = 0.0, target + noise * np.random.default_rng(0).standard_normal((20_000, steps))
    for t in range(steps):
        share = alpha if t else 1.0
        average = (1 - share) * average + share * batches[:, t]
    found = np.sqrt(np.mean((average - target[-1]) ** 2))
    assert plots.tracking_error(noise, settling, alpha, steps)[-1] == pytest.approx(found, rel=0.03)


def test_the_explorer_shows_one_noise_and_one_speed_and_moves_the_constant():
    fig = plots.tracking_explorer((0.1, 0.5), (10, 40), (0.1, 0.5, 1.0))
    seen = [t.name for t in fig.data if t.visible is not False and t.opacity != 0 and t.name[-1].isdigit()]
    assert seen == ["batches 1 1", *(f"{name} {k} 1 1" for name in ("cumulative", "ramp", "constant") for k in (1, 2)),
                    "target 1"]
    moved = fig.frames[-1]
    constant = next(d for i, d in zip(moved.traces, moved.data) if fig.data[i].name == "constant 2 1 1")
    np.testing.assert_allclose(constant.y, 0.5, atol=1e-3)  # alpha = 1: the noise of a batch
