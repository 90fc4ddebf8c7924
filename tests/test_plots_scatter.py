"""Ellipses and cells in the plane lie where the covariances and the logits say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ncbook import Snapshot, plots


def snapshot(seed=0, classes=3, points=300):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(points) % classes
    means = 5 + 3 * torch.randn(classes, 2, generator=generator)
    features = means[targets] + torch.randn(points, 2, generator=generator)
    means = torch.stack([features[targets == c].mean(0) for c in range(classes)])
    weight, bias = torch.randn(classes, 2, generator=generator), torch.randn(classes, generator=generator)
    return Snapshot({}, {}, means, weight, bias, features, targets, torch.ones(2), None)


def drawn(fig, name, panel=""):
    return [np.stack((t.x, t.y), 1) for t in fig.data if (t.name, t.xaxis) == (name, f"x{panel}")]


def area(polygon):
    x, y = polygon.T
    return abs((x * np.roll(y, 1) - np.roll(x, 1) * y).sum()) / 2


@pytest.mark.parametrize("seed", [0, 1])
def test_the_ellipse_of_three_means_goes_through_them_and_those_of_classes_hold_most_features(seed):
    fig = plots.scatter_ellipses({"a": snapshot(seed), "b": snapshot(seed + 2)})
    for panel in ("", "2"):
        (between,), (means,) = drawn(fig, "between", panel), drawn(fig, "class means", panel)
        side = np.diff(between, axis=0)
        for mean in means:
            outside = side[:, 0] * (mean - between[:-1])[:, 1] - side[:, 1] * (mean - between[:-1])[:, 0]
            assert abs(np.abs(outside / np.linalg.norm(side, axis=1)).min()) < 0.01  # on the line up to its 60 pieces
        assert np.allclose(means.mean(0), 0, atol=1e-6) and np.isclose((means**2).sum(1).mean(), 1)
        for own, within in zip(drawn(fig, "features", panel), drawn(fig, "within", panel)):
            centred = own - own.mean(0)
            covered = 4 * np.pi * np.sqrt(np.linalg.det(np.cov(centred.T, ddof=0)))
            assert np.isclose(area(within[:-1]), covered, rtol=0.01)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_cells_share_out_the_square_as_the_largest_logit_does(classes):
    generator = torch.Generator().manual_seed(classes)
    weight, bias = torch.randn(classes, 2, generator=generator), torch.randn(classes, generator=generator)
    cells = plots.linear_cells(weight, bias, 2.0)
    assert np.isclose(sum(area(cell.numpy()) for cell in cells if len(cell)), 16, rtol=1e-5)
    for c, cell in enumerate(cells):
        if len(cell):
            assert (weight @ cell.mean(0) + bias).argmax() == c


def test_a_class_that_never_wins_has_no_cell_and_the_figure_is_drawn():
    shot = snapshot()
    shot = replace(shot, bias=torch.tensor([0.0, 0.0, -1e6]))
    assert [len(cell) > 0 for cell in plots.linear_cells(shot.weight, shot.bias, 1.0)] == [True, True, False]
    fig = plots.decision_cells({"a": shot})
    assert len(drawn(fig, "classifier")[2]) == 0 and fig.to_json()


def test_the_dashed_borders_are_equally_far_from_two_class_means():
    fig = plots.decision_cells({"a": snapshot(), "b": snapshot(1)})
    for panel in ("", "2"):
        (outline,), (means,) = drawn(fig, "nearest mean", panel), drawn(fig, "class means", panel)
        inside = outline[(np.abs(outline) < 1.1 * 1.8 - 1e-5).all(1)]
        gaps = np.sort(np.linalg.norm(inside[:, None] - means, axis=2), axis=1)
        assert len(inside) and np.allclose(gaps[:, 0], gaps[:, 1], atol=1e-5)


@pytest.mark.parametrize("draw", [plots.scatter_ellipses, plots.decision_cells])
def test_what_is_not_in_the_plane_is_refused(draw):
    with pytest.raises(ValueError, match="stages"):
        draw({})
    with pytest.raises(ValueError, match="columns"):
        draw({"a": replace(snapshot(), class_means=torch.randn(3, 4))})


def test_a_panel_is_wide_enough_for_all_that_is_drawn_in_it():
    far = snapshot()
    far = replace(far, features=far.features + 40 * (torch.arange(300) == 7)[:, None])
    for draw, names in ((plots.scatter_ellipses, ("features", "within")), (plots.decision_cells, ("features",))):
        fig = draw({"a": far, "b": snapshot()})
        reach = fig.layout.xaxis.range[1]
        assert fig.layout.xaxis.range == fig.layout.yaxis.range == (-reach, reach)
        assert all(np.abs(points).max() < reach for name in names for points in drawn(fig, name))
        assert reach > fig.layout.xaxis2.range[1] >= 1.8
