"""The figures: what they draw lies where the mathematics says, under names that live updates can rely on."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncbook import Snapshot, plots
from ncbook.etf import simplex_etf
from ncbook.heads import HEADS
from ncbook.metrics import METRICS


def trace(fig, name, meta=None):
    return next(t for t in fig.data if (t.name, t.meta) == (name, meta))


def xy(t):
    return np.stack([np.asarray(getattr(t, axis)) for axis in "xyz" if getattr(t, axis, None) is not None], axis=1)


def rotation(dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


def snapshot(epoch, classes=3, dim=6, points=250, seed=0, deaths=True, **metrics):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(points) % classes
    noise = torch.randn(classes, dim, generator=generator)
    means = simplex_etf(classes, dim) + noise / (1 + epoch)
    features = means[targets] + 0.1 * torch.randn(points, dim, generator=generator)
    return Snapshot(
        train=metrics, test={}, class_means=means, weight=means + 0.1, bias=torch.zeros(classes), features=features,
        targets=targets, train_spectrum=torch.ones(2), test_spectrum=None, epoch=epoch, step=10 * epoch,
        deaths=torch.rand(4, 7, generator=generator) if deaths else None, dials={"beta": 1.0 - epoch / 100},
    )


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10])
def test_means_of_an_exact_etf_land_on_the_drawn_vertices(classes):
    means = 3.7 * simplex_etf(classes, classes + 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 5
    found = plots.simplex_coordinates(means, means)
    np.testing.assert_allclose(found, plots.simplex_vertices(classes), atol=1e-12)
    fig = plots.geometry(means)
    drawn = xy(trace(fig, "class means"))
    outline = xy(trace(fig, "nearest ETF")).reshape(-1, 3, drawn.shape[1])[:, :2].reshape(-1, drawn.shape[1])
    assert len(outline) == 2 * {2: 1, 3: 3, 4: 6}.get(classes, classes)
    assert np.linalg.norm(outline[:, None] - drawn, axis=2).min(1).max() < 1e-6


@pytest.mark.parametrize("classes", [2, 3, 4, 7, 10])
def test_vertices_are_a_regular_simplex_or_polygon_of_unit_size(classes):
    vertices = plots.simplex_vertices(classes).numpy()
    np.testing.assert_allclose(vertices.sum(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=1e-12)
    if classes <= 4:
        cosines = (vertices @ vertices.T)[~np.eye(classes, dtype=bool)]
        np.testing.assert_allclose(cosines, -1 / (classes - 1), atol=1e-12)
    else:
        sides = np.linalg.norm(vertices - np.roll(vertices, 1, axis=0), axis=1)
        np.testing.assert_allclose(sides, 2 * math.sin(math.pi / classes), atol=1e-12)


@settings(max_examples=25)
@given(classes=st.integers(2, 8), extra=st.integers(0, 4), seed=st.integers(0, 10**6))
def test_full_coordinates_are_the_square_root_of_the_gram_matrix(classes, extra, seed):
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, classes + extra, generator=generator, dtype=torch.float64)
    at = plots.simplex_coordinates(means, means, dims=classes - 1).numpy()
    centred = (means - means.mean(0)).numpy()
    root = scipy.linalg.polar(centred, side="left")[1]
    scale = np.linalg.norm(centred) / math.sqrt(classes)
    np.testing.assert_allclose(at @ at.T, centred @ centred.T / scale**2, atol=1e-9)
    vertices = plots.simplex_vertices(classes, classes - 1).numpy()
    np.testing.assert_allclose(at @ vertices.T / math.sqrt(classes / (classes - 1)), root / scale, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_coordinates_ignore_rotation_shift_and_scale(classes):
    generator = torch.Generator().manual_seed(classes)
    means = torch.randn(classes, 12, generator=generator, dtype=torch.float64)
    points = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    before = plots.simplex_coordinates(points, means)
    turn = rotation(12)
    after = plots.simplex_coordinates(2.5 * points @ turn + 3, 2.5 * means @ turn + 3)
    assert before.shape == (30, min(classes - 1, 3) if classes <= 4 else 2)
    np.testing.assert_allclose(after, before, atol=1e-10)
    assert plots.simplex_coordinates(points.float(), means.float()).dtype == torch.float32


@pytest.mark.parametrize(
    "points, means, dims, message",
    [
        (torch.zeros(3, 5), torch.eye(4), None, "points"),
        (torch.zeros(4), torch.eye(4), None, "points"),
        (torch.eye(4), torch.ones(3, 4), None, "coincide"),
        (torch.eye(4), torch.eye(4) * float("nan"), None, "class_means must be finite"),
        (torch.eye(4), torch.ones(1, 4), None, "at least 2"),
        (torch.eye(4), torch.eye(4), 4, "dims"),
    ],
)
def test_bad_coordinates_are_refused(points, means, dims, message):
    with pytest.raises(ValueError, match=message):
        plots.simplex_coordinates(points, means, dims=dims)


@pytest.mark.parametrize("classes, kind", [(2, go.Scatter), (3, go.Scatter), (4, go.Scatter3d), (10, go.Scatter)])
def test_geometry_traces_keep_their_names_and_order(classes, kind):
    shot = snapshot(3, classes, dim=12)
    names = ["nearest ETF", "spokes", "class means", "features", "weights", "labels"]
    for parts in ({}, dict(features=shot.features, targets=shot.targets, weight=shot.weight)):
        fig = plots.geometry(shot.class_means, **parts)
        assert [t.name for t in fig.data[:6]] == names
        assert all(isinstance(t, kind) for t in fig.data)
        assert len(xy(fig.data[3])) == (250 if parts else 0)
        for name, coordinates in plots.geometry_coordinates(shot.class_means, **parts).items():
            np.testing.assert_allclose(xy(trace(fig, name)).reshape(coordinates.shape), coordinates, atol=1e-6)
        assert list(trace(fig, "class means").marker.color) == plots.class_colors(classes)
        key = ["class means", "nearest ETF", *(["weights", "features"] if parts else [])]
        assert [(t.name, t.meta) for t in fig.data[6:]] == [(name, "legend") for name in key]


def test_weights_equal_to_the_means_up_to_scale_sit_on_them():
    means = snapshot(1, 4).class_means
    fig = plots.geometry(means, weight=9 * (means - means.mean(0)) + 2)
    np.testing.assert_allclose(xy(trace(fig, "weights")), xy(trace(fig, "class means")), atol=1e-5)


def test_projection_is_stated_when_it_is_not_exact():
    subtitles = {c: plots.geometry(simplex_etf(c, 10)).layout.title.subtitle.text for c in (2, 3, 4, 5, 10)}
    assert [c for c, text in subtitles.items() if "exact" in text] == [2, 3, 4]
    assert subtitles[10].startswith("projection from 9 to 2 dimensions")


@pytest.mark.parametrize(
    "parts, message",
    [
        (dict(features=torch.zeros(5, 3)), "go together"),
        (dict(features=torch.zeros(5, 3), targets=torch.tensor([0, 1, 2, 3, 0])), "targets"),
        (dict(features=torch.zeros(5, 3), targets=torch.zeros(4, dtype=torch.long)), "targets"),
        (dict(features=torch.zeros(0, 3), targets=torch.zeros(0, dtype=torch.long)), "features"),
        (dict(weight=torch.zeros(3, 7)), "weight"),
        (dict(weight=torch.zeros(4, 3)), "weight"),
        (dict(class_names=["a"]), "class_names"),
    ],
)
def test_geometry_refuses_parts_that_do_not_fit(parts, message):
    with pytest.raises(ValueError, match=message):
        plots.geometry(torch.eye(3), **parts)


@pytest.mark.parametrize("classes, total, frames", [(3, 7, 7), (4, 150, 60), (10, 150, 60)])
def test_animation_has_a_frame_per_slider_stop_and_opens_on_the_last(classes, total, frames):
    shots = [snapshot(e, classes, dim=12) for e in range(total)]
    fig = plots.geometry_animation(iter(shots))
    slider = fig.layout.sliders[0]
    assert len(fig.frames) == len(slider.steps) == frames
    assert (slider.steps[0].label, slider.steps[-1].label, slider.active) == ("0", str(total - 1), frames - 1)
    assert [step.args[0][0] for step in slider.steps] == [f.name for f in fig.frames]
    for index, moved in zip(fig.frames[-1].traces, fig.frames[-1].data):
        np.testing.assert_array_equal(xy(moved), xy(fig.data[index]))
    first = xy(fig.frames[0].data[-1])
    assert np.abs(first - xy(trace(fig, "class means"))).max() > 0.05
    assert len(fig.to_json()) < 400_000
    with pytest.raises(ValueError, match="snapshots is empty"):
        plots.geometry_animation([])


def test_a_player_has_a_stop_for_each_frame_and_leaves_the_plot_its_size():
    fig = plots.finish(go.Figure([go.Scatter(y=[0, 1], name="moves"), go.Scatter(y=[1], name="stays")]), "Title")
    before = fig.layout.height - plots.TEMPLATE.layout.margin.b
    changes = [{"moves": dict(y=[0, k])} for k in range(3)]
    plots.animate(fig, ["0", "1", "2"], changes, milliseconds=70, redraw=True, transition=20, prefix="k = ", active=1)
    (slider,), (menu,) = fig.layout.sliders, fig.layout.updatemenus
    assert list(fig.data[0].y) == [0, 1] == list(fig.frames[1].data[0].y) and fig.frames[1].traces == (0,)
    assert [step.label for step in slider.steps] == ["0", "1", "2"] and slider.active == 1
    assert slider.currentvalue.prefix == "k = " and fig.layout.height - fig.layout.margin.b == before
    which, options = menu.buttons[0].args
    assert which is None and options["frame"] == dict(duration=70, redraw=True)
    assert options["transition"]["duration"] == 20
    assert slider.steps[2].args[0] == ("2",) and slider.steps[2].args[1]["frame"]["duration"] == 0
    with pytest.raises(ValueError, match="one per frame"):
        plots.add_player(fig, ["0", "1"])


def test_cosines_agree_with_numpy_and_leave_the_diagonal_out():
    vectors = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    heat = plots.cosine_heatmap(vectors).data[0]
    rows = vectors.double().numpy() - vectors.double().numpy().mean(0)
    expected = rows @ rows.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(rows, axis=1))
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(heat.z[off], expected[off], atol=1e-12)
    assert np.isnan(np.diag(heat.z)).all()
    assert heat.zmid == (heat.zmin + heat.zmax) / 2 == -1 / 4
    etf = plots.cosine_heatmap(simplex_etf(4, 9)).data[0]
    np.testing.assert_allclose(etf.z[~np.eye(4, dtype=bool)], -1 / 3, atol=1e-6)
    np.testing.assert_array_equal(plots.centred_cosines(vectors), heat.z)


def test_a_row_at_the_mean_has_no_cosines():
    cosines = plots.centred_cosines(torch.tensor([[1.0, 0], [-1, 0], [0, 0]]))
    assert cosines[2].isnan().all() and cosines[0, 1] == -1 and cosines.dtype == torch.float64
    with pytest.raises(ValueError, match="rows"):
        plots.centred_cosines(torch.zeros(3))


def test_heat_maps_side_by_side_share_one_scale():
    alike = torch.tensor([[4.0, 0.1], [4, -0.1], [-4, 0], [-3, 5]])
    sets = {"a": simplex_etf(4, 5), "b": alike}
    fig = plots.cosine_heatmaps(sets, class_names=list("wxyz"))
    assert [note.text for note in fig.layout.annotations] == ["a", "b"]
    assert [heat.showscale for heat in fig.data] == [False, True]
    for heat, rows in zip(fig.data, sets.values()):
        np.testing.assert_array_equal(heat.z, plots.centred_cosines(rows))
        assert (list(heat.x), heat.zmid) == (list("wxyz"), -1 / 3)
        assert heat.zmin <= np.nanmin(heat.z) and np.nanmax(heat.z) <= heat.zmax and heat.zmax == fig.data[0].zmax
    assert fig.layout.yaxis2.scaleanchor == "x2"


@pytest.mark.parametrize("vectors", [torch.zeros(3), torch.ones(1, 3), torch.ones(3, 3), torch.full((3, 3), math.inf)])
def test_cosines_of_nothing_are_refused(vectors):
    with pytest.raises(ValueError, match="vectors"):
        plots.cosine_heatmap(vectors)


def seeded_runs(values):
    return [[snapshot(e, nc1=v, accuracy=v) for e, v in enumerate(seed)] for seed in values]


def test_curves_are_the_median_and_the_range_over_seeds():
    values = np.array([[1.0, 0.5, 0.2], [2.0, 0.4, 0.1], [1.5, 0.9, 0.3], [1.1, 0.45, 0.05]])
    fig = plots.metric_curves({"nearest": seeded_runs(values), "mine": seeded_runs(values[:1])}, ["nc1", "accuracy"])
    assert [(t.name, t.meta) for t in fig.data] == [
        (name, key) for key in ("nc1", "accuracy") for name in ("nearest range", "nearest", "mine")
    ]
    for key, scale in (("nc1", 1), ("accuracy", 100)):
        np.testing.assert_allclose(trace(fig, "nearest", key).y, scale * np.median(values, axis=0))
    line, band = trace(fig, "nearest", "nc1"), trace(fig, "nearest range", "nc1")
    np.testing.assert_allclose(band.y, np.concatenate((values.max(0), values.min(0)[::-1])))
    assert line.line.color == plots.METHOD_STYLES["nearest"][0]
    assert (fig.layout.yaxis.type, fig.layout.yaxis2.type) == ("log", None)
    assert sorted(t.name for t in fig.data if t.showlegend) == ["mine", "nearest"]
    assert [note.text for note in fig.layout.annotations] == [METRICS["nc1"].label, "accuracy, %"]


def test_curves_take_rows_and_the_records_of_a_table():
    shots = seeded_runs([[1.0, 0.5, 0.25]])
    table = pd.DataFrame([shot.row() for shot in shots[0]])
    for seed in ([shot.row() for shot in shots[0]], table.to_dict("records")):
        fig = plots.metric_curves({"nearest": [seed]}, ["nc1", "accuracy"])
        np.testing.assert_allclose([t.y for t in fig.data], [[1, 0.5, 0.25], [100, 50, 25]])
    rows = [{"epoch": 0, "train_gap": 0.1, "test_gap": 0.2}]
    fig = plots.metric_curves({"a": [rows], "b": [rows]}, ["gap"], split={"a": "train", "b": "test"})
    assert [list(t.y) for t in fig.data] == [[0.1], [0.2]] and fig.layout.yaxis.type == "log"
    with pytest.raises(TypeError, match="mappings or snapshots"):
        plots.metric_curves({"a": [[SimpleNamespace(epoch=0, train={})]]}, ["nc1"])


@pytest.mark.parametrize(
    "counts, said", [((1, 1), "one seed"), ((3, 3), "of 3 seeds,"), ((5, 3, 4), "of 3 to 5 seeds,")]
)
def test_the_number_of_seeds_is_said_as_it_is(counts, said):
    runs = {str(k): seeded_runs([[1.0, 0.5]] * count) for k, count in enumerate(counts)}
    assert said in plots.metric_curves(runs, ["nc1"]).layout.title.subtitle.text
    points = plots.seed_summary({name: [seed[-1] for seed in seeds] for name, seeds in runs.items()}, "train_nc1")
    assert said.removeprefix("of ").replace("one", "1") in points.layout.title.subtitle.text


def test_every_metric_has_its_label_and_axis_from_the_one_vocabulary():
    row = {"epoch": 0} | {f"train_{key}": 1.0 for key in METRICS}
    fig = plots.metric_curves({"standard": [[row]]}, list(METRICS))
    axes = [getattr(fig.layout, f"yaxis{k or ''}").type for k in (None, *range(2, len(METRICS) + 1))]
    assert axes == ["log" if metric.axis == "log" else None for metric in METRICS.values()]
    for note, metric in zip(fig.layout.annotations, METRICS.values(), strict=True):
        assert note.text.startswith(metric.label)


def test_every_head_has_a_style_and_other_names_get_spare_ones():
    styles = [plots.METHOD_STYLES[kind.method] for kind in HEADS.values()]
    assert len({(color, dash) for color, dash, _ in styles}) == len(HEADS)
    assert plots.method_style("mine", 0) != plots.method_style("mine", 1)


@pytest.mark.parametrize("values, floor", [([0.2, 0.003, 0.0], 1e-3), ([1.0, 0.01, -1e-9], 1e-3), ([0.0, 0.0], 1e-16)])
def test_values_of_zero_or_less_stay_on_a_log_axis(values, floor):
    fig = plots.metric_curves({"standard": seeded_runs([values])}, ["nc1"])
    drawn = np.asarray(fig.data[0].y)
    np.testing.assert_allclose(drawn, np.maximum(values, floor))
    assert (drawn > 0).all()


@pytest.mark.parametrize(
    "runs, keys, split, message",
    [
        ({}, ["nc1"], "train", "runs and keys"),
        ({"a": seeded_runs([[1.0]])}, [], "train", "runs and keys"),
        ({"a": seeded_runs([[1.0]])}, ["nc9"], "train", "nc9"),
        ({"a": seeded_runs([[1.0]])}, ["nc1"], "test", "'test_nc1' is not a column"),
        ({"a": seeded_runs([[1.0]])}, ["nc1"], "valid", "split"),
        ({"a": seeded_runs([[1.0]])}, ["nc1"], {"b": "test"}, "split"),
        ({"a": []}, ["nc1"], "train", "at least one seed"),
        ({"a": seeded_runs([[1.0, 2.0], [1.0]])}, ["nc1"], "train", "same epochs"),
    ],
)
def test_curves_refuse_runs_that_do_not_fit(runs, keys, split, message):
    with pytest.raises(ValueError, match=message):
        plots.metric_curves(runs, keys, split=split)


def test_solver_trace_draws_the_gap_to_the_optimum():
    history = dict(cost=[3.0, 1.5, 1.0], gradient_norm=[1.0, 0.1, 1e-9])
    fig = plots.solver_trace(history, optimum=1.0)
    np.testing.assert_allclose(trace(fig, "cost gap").y, [2.0, 0.5, np.finfo(float).eps])
    np.testing.assert_allclose(trace(fig, "gradient norm").y, [1.0, 0.1, 1e-9])
    for bad in (dict(cost=[1.0]), dict(cost=[], gradient_norm=[]), dict(cost=[1.0], gradient_norm=[1.0, 2.0])):
        with pytest.raises(ValueError, match="trace"):
            plots.solver_trace(bad, optimum=0.0)


def test_barcode_splits_the_sorted_bars_at_beta():
    deaths = torch.tensor([[0.9, 0.0], [0.3, 0.5]])
    fig = plots.barcode(deaths, beta=0.5)
    assert [t.name for t in fig.data] == ["shorter than β", "longer than β", "β"]
    np.testing.assert_allclose(fig.data[0].x, [0, 0.3, 0, 0], atol=1e-7)
    np.testing.assert_allclose(fig.data[1].x, [0, 0, 0.5, 0.9], atol=1e-7)
    assert fig.data[2].x == (0.5, 0.5)
    np.testing.assert_allclose(plots.barcode(deaths).data[0].x, [0, 0.3, 0.5, 0.9], atol=1e-7)


def test_histogram_counts_every_death():
    deaths = torch.rand(8, 15, generator=torch.Generator().manual_seed(0))
    fig = plots.death_histogram(deaths, beta=2.0)
    assert fig.data[0].y.sum() == 120
    assert (fig.data[1].name, fig.data[1].x) == ("β", (2.0, 2.0))
    assert plots.death_histogram(torch.zeros(3)).data[0].y.sum() == 3


@pytest.mark.parametrize("draw", [plots.barcode, plots.death_histogram])
@pytest.mark.parametrize("deaths", [torch.zeros(0), torch.tensor([math.nan]), torch.tensor([-1.0])])
def test_bad_death_times_are_refused(draw, deaths):
    with pytest.raises(ValueError, match="death_times"):
        draw(deaths)


def test_tree_edges_are_solid_up_to_the_radius():
    points = torch.tensor([[0.0, 0], [1, 0], [3, 0], [3, 3]])
    fig = plots.spanning_tree_figure(points, radius=2.0)
    assert [t.name for t in fig.data] == [
        "balls", "edges", "later edges", "pushed apart", "pulled together", "points",
    ]
    assert (len(fig.data[1].x), len(fig.data[2].x)) == (6, 3)
    assert "2 components" in fig.layout.title.subtitle.text
    ball = xy(fig.data[0])[:49] - points[0].numpy()
    np.testing.assert_allclose(np.linalg.norm(ball, axis=1), 1.0, atol=1e-6)
    assert len(plots.spanning_tree_figure(points[:1]).data[1].x) == 0


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_arrows_point_down_the_gradient_and_balls_follow_the_norm(p):
    points = torch.tensor([[0.0, 0.0], [1.0, 0.5], [4.0, 1.0]], dtype=torch.float64)
    fig = plots.spanning_tree_figure(points, p, radius=1.0, beta=2.0, arrows=True)
    pushed, pulled = (xy(trace(fig, name)).reshape(-1, 3, 2) for name in ("pushed apart", "pulled together"))
    moved = torch.zeros_like(points)
    for tail, tip, _ in torch.tensor(np.concatenate((pushed, pulled)), dtype=torch.float64):
        moved[torch.linalg.vector_norm(points - tail, dim=1).argmin()] += tip - tail
    leaf = points.clone().requires_grad_()
    lengths = torch.linalg.vector_norm(leaf[1:] - leaf[:-1], ord=p, dim=1)
    (lengths - 2.0).abs().sum().backward()
    ratio = -(moved * leaf.grad).sum() / leaf.grad.pow(2).sum()
    assert ratio > 0
    np.testing.assert_allclose(moved, -ratio * leaf.grad, atol=1e-6)
    balls = xy(fig.data[0])[:49]
    np.testing.assert_allclose(np.linalg.norm(balls, ord=p, axis=1), 0.5, atol=1e-6)


def test_tree_refuses_what_it_cannot_draw():
    for points, options in (
        (torch.zeros(4, 3), {}), (torch.zeros(0, 2), {}), (torch.full((2, 2), math.nan), {}),
        (torch.zeros(4, 2), dict(arrows=True)), (torch.zeros(4, 2), dict(radius=-1.0)),
    ):
        with pytest.raises(ValueError):
            plots.spanning_tree_figure(points, **options)
    with pytest.raises(TypeError, match="points must be a floating-point tensor"):
        plots.spanning_tree_figure([[0.0, 1.0]])


def test_death_bands_are_quantiles_and_skip_snapshots_without_clouds():
    shots = [snapshot(0, deaths=False), snapshot(1, seed=1), snapshot(2, seed=2)]
    fig = plots.death_times_over_epochs(shots)
    assert [t.name for t in fig.data] == ["5% to 95%", "25% to 75%", "median", "β"]
    deaths = [s.deaths.numpy() for s in shots[1:]]
    np.testing.assert_allclose(fig.data[2].y, [np.median(d) for d in deaths], rtol=1e-6)
    expected = [np.quantile(d, 0.95) for d in deaths] + [np.quantile(d, 0.05) for d in deaths[::-1]]
    np.testing.assert_allclose(fig.data[0].y, expected, rtol=1e-6)
    np.testing.assert_allclose(fig.data[3].y, [0.99, 0.98])
    rows = [{"epoch": s.epoch, "beta": s.beta, "deaths": s.deaths.flatten().tolist()} for s in shots[1:]]
    np.testing.assert_allclose(plots.death_times_over_epochs(rows).data[2].y, fig.data[2].y, rtol=1e-6)
    for none in (shots[:1], []):
        with pytest.raises(ValueError, match="clouds"):
            plots.death_times_over_epochs(none)


def test_schedule_panels_hold_beta_and_weight():
    schedule = SimpleNamespace(beta=lambda e: 1.1 * math.sqrt((10 - e) / 10), weight=lambda e: 0.1 * e / 10)
    fig = plots.schedule_curves({"sliding": schedule}, 10)
    np.testing.assert_allclose(fig.data[0].y, [1.1 * math.sqrt(1 - e / 10) for e in range(1, 11)])
    np.testing.assert_allclose(fig.data[1].y, [0.01 * e for e in range(1, 11)])
    assert [(t.name, t.meta, t.xaxis) for t in fig.data] == [("sliding", "β", "x"), ("sliding", "weight", "x2")]
    for schedules, epochs in (({}, 10), ({"sliding": schedule}, 0)):
        with pytest.raises(ValueError, match="at least one"):
            plots.schedule_curves(schedules, epochs)


def test_seed_summary_draws_every_value_and_the_median():
    fig = plots.seed_summary({"fixed": [0.9, 0.8, 0.95], "mine": [0.7]}, "test accuracy")
    assert [t.name for t in fig.data] == ["fixed", "fixed median", "mine", "mine median"]
    assert list(fig.data[0].y) == [0.9, 0.8, 0.95]
    assert fig.data[1].y == (0.9, 0.9)
    shots = [snapshot(1, accuracy=0.9), snapshot(1, accuracy=0.7)]
    by_row = plots.seed_summary({"fixed": shots}, "train_accuracy")
    np.testing.assert_allclose(by_row.data[0].y, [90, 70])
    assert (fig.layout.yaxis.title.text, by_row.layout.yaxis.title.text) == ("test accuracy", "train accuracy, %")
    for bad in ({}, {"fixed": []}, {"fixed": [math.nan]}):
        with pytest.raises(ValueError, match="values"):
            plots.seed_summary(bad, "test accuracy")
    with pytest.raises(ValueError, match="test_accuracy"):
        plots.seed_summary({"fixed": shots}, "test_accuracy")


@pytest.mark.parametrize("count", [2, 10, 11, 100])
def test_every_class_has_its_own_colour(count):
    colors = plots.class_colors(count)
    assert len(set(colors)) == count
    assert count > 10 or colors == list(plots.CLASS_COLORS[:count])


def test_every_figure_serialises_in_the_house_style_without_a_global_effect():
    import plotly.io as pio

    before = pio.templates.default
    shots = [snapshot(e, nc1=1.0 / (1 + e), accuracy=0.5) for e in range(3)]
    schedule = SimpleNamespace(beta=lambda e: 1.0, weight=lambda e: 0.1)
    figures = [
        plots.geometry(shots[0].class_means), plots.geometry_animation(shots), plots.cosine_heatmap(shots[0].weight),
        plots.metric_curves({"sliding": [shots, shots]}, ["nc1", "accuracy"]),
        plots.solver_trace(dict(cost=[1.0, 0.5], gradient_norm=[1.0, 0.1]), optimum=0.5),
        plots.barcode(shots[0].deaths, 0.5), plots.cosine_heatmaps({"a": shots[0].weight, "b": shots[1].weight}),
        plots.death_histogram(shots[0].deaths), plots.spanning_tree_figure(shots[0].features[:20, :2]),
        plots.death_times_over_epochs(shots), plots.schedule_curves({"constant": schedule}, 5),
        plots.seed_summary({"fixed": [0.5, 0.6]}, "accuracy"),
    ]
    for fig in figures:
        loaded = json.loads(fig.to_json())
        assert loaded["data"] and loaded["layout"]["template"]["layout"]["paper_bgcolor"] == "white"
        assert 400 <= fig.layout.width <= 900 and fig.layout.height >= 320
    assert pio.templates.default == before
