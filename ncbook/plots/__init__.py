"""Plotly figures of the geometry, the curves and the persistence: plain functions that return complete figures."""

from ncbook.plots.clouds import barcode, death_histogram, death_times_over_epochs, spanning_tree_figure
from ncbook.plots.comparison import metric_picker, paired_ratios
from ncbook.plots.curves import metric_curves, schedule_curves, seed_summary, solver_trace
from ncbook.plots.filtration import filtration, pieces
from ncbook.plots.geometry import (
    centred_cosines,
    cosine_heatmap,
    cosine_heatmaps,
    geometry,
    geometry_animation,
    geometry_coordinates,
    simplex_coordinates,
    simplex_vertices,
)
from ncbook.plots.player import add_player, animate
from ncbook.plots.splits import interval_chart, slope_chart
from ncbook.plots.style import (
    CLASS_COLORS,
    METHOD_STYLES,
    TEMPLATE,
    band,
    class_colors,
    finish,
    method_style,
    metric_label,
    segments,
    xyz,
)

__all__ = [
    "CLASS_COLORS", "METHOD_STYLES", "TEMPLATE", "add_player", "animate", "band", "barcode", "centred_cosines",
    "class_colors", "cosine_heatmap", "cosine_heatmaps", "death_histogram", "death_times_over_epochs", "filtration",
    "finish", "geometry", "geometry_animation", "geometry_coordinates", "interval_chart", "method_style",
    "metric_curves", "metric_label", "metric_picker", "paired_ratios", "pieces", "schedule_curves", "seed_summary",
    "segments", "simplex_coordinates", "simplex_vertices", "slope_chart", "solver_trace", "spanning_tree_figure",
    "xyz",
]
