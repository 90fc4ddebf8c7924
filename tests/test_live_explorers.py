"""The explorers: sliders in, a figure out."""

import base64
import json

import numpy as np
import torch
from live_hands import hands, plot_of

from ncbook import live
from ncbook.etf import simplex_etf_distance
from ncbook.persistence import h0_death_times


def title(panel):
    layout = json.loads(plot_of(panel).get_state()["_figure"])["layout"]
    return layout["title"]["text"] + " " + layout["title"]["subtitle"]["text"]


def points(panel, name):
    """The points (n, 2) of a trace of the figure that the page has."""
    trace = next(t for t in json.loads(plot_of(panel).get_state()["_figure"])["data"] if t.get("name") == name)
    columns = [np.frombuffer(base64.b64decode(trace[axis]["bdata"]), trace[axis]["dtype"]) for axis in "xy"]
    return torch.tensor(np.stack(columns, 1).astype(float))


def test_simplex_scrubber():
    panel = live.simplex_scrubber()
    sliders = hands(panel)
    assert "109.5° to 109.5° (ETF: 109.5°)" in title(panel) and "ETF 0.0000" in title(panel)
    sliders["classes"].value, sliders["rotation"].value = 3, 1.3
    assert "120.0° to 120.0°" in title(panel) and "ETF 0.0000" in title(panel)
    sliders["noise"].value = 0.5
    assert "ETF 0.0000" not in title(panel)
    sliders["classes"].value, sliders["dimension"].value = 8, 1
    assert "8 classes in 7 dimensions" in title(panel)


def test_nearest_etf_explorer():
    panel = live.nearest_etf_explorer()
    sliders = hands(panel)
    sliders["angle (°)"].value, sliders["radius"].value = 90, 2

    free = points(panel, "nearest ETF")[:3]
    means = torch.tensor([[0.0, 2.0], [-0.3, 0.8], [-0.6, -0.7]], dtype=torch.float64)
    assert f"{float(simplex_etf_distance(means)):.4f}" in title(panel)
    assert simplex_etf_distance(free) < 1e-10
    sliders["pull ρ"].value = 4
    assert (points(panel, "nearest ETF")[:3] - free).norm() > 0.1


def test_radius_explorer():
    panel = live.radius_explorer()
    sliders = hands(panel)
    deaths = h0_death_times(points(panel, "points"))
    for radius in (0.0, 0.7, 3.0):
        sliders["distance"].value = radius
        assert f" {1 + int((deaths > radius).sum())} component" in title(panel)
