"""Live widgets: training in the background under sliders, linked panels, replay and export; and small explorers."""

from ncbook.live.controls import Box, View
from ncbook.live.explorers import nearest_etf_explorer, radius_explorer, simplex_scrubber
from ncbook.live.lab import MAX_RUNS, LiveLab
from ncbook.live.panels import PANELS, Cell, Panel, animation
from ncbook.live.plot import Plot
from ncbook.live.record import CURVES, MAX_FRAMES, Frame, Run

__all__ = [
    "CURVES", "MAX_FRAMES", "MAX_RUNS", "PANELS", "Box", "Cell", "Frame", "LiveLab", "Panel", "Plot", "Run", "View",
    "animation", "nearest_etf_explorer", "radius_explorer", "simplex_scrubber",
]
