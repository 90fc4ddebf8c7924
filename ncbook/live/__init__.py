"""Live widgets: training in the background under controls, linked panels, replay and export; and small explorers."""

from ncbook.live.drawing import Drawing
from ncbook.live.engine import MAX_RUNS
from ncbook.live.explorers import nearest_etf_explorer, radius_explorer, simplex_scrubber
from ncbook.live.guide import Facts
from ncbook.live.lab import LiveLab
from ncbook.live.panels import PANELS, Panel
from ncbook.live.record import CURVES, MAX_FRAMES, Frame, Run
from ncbook.live.scenarios import SCENARIOS, Scenario

__all__ = [
    "CURVES", "MAX_FRAMES", "MAX_RUNS", "PANELS", "SCENARIOS", "Drawing", "Facts", "Frame", "LiveLab", "Panel",
    "Run", "Scenario", "nearest_etf_explorer", "radius_explorer", "simplex_scrubber",
]
