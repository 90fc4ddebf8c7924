"""Plotly figures of the geometry, the curves and the persistence: plain functions that return complete figures."""

from ncbook.plots.averages import AVERAGE_STYLES, average_weights, tracking_error, tracking_explorer
from ncbook.plots.clouds import barcode, death_histogram, death_times_over_epochs, spanning_tree_figure
from ncbook.plots.comparison import metric_picker, paired_ratios
from ncbook.plots.curves import metric_curves, schedule_curves, seed_summary, solver_trace
from ncbook.plots.descent import descents
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
from ncbook.plots.landscape import (
    TONES,
    add_sliders,
    curve_panels,
    frame_angle,
    frame_at,
    frame_distances,
    frame_landscape,
    loss_ring,
    ring_loss,
    ring_strip,
    ring_walk,
)
from ncbook.plots.player import add_player, animate
from ncbook.plots.scatter import decision_cells, linear_cells, scatter_ellipses
from ncbook.plots.seeds import seed_curves, seed_scatter
from ncbook.plots.simplex import direction_histograms, etf_beside_means, polar_grid, star, star_animation, stars
from ncbook.plots.splits import against_accuracy, band_panels, interval_chart, slope_chart
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
    "AVERAGE_STYLES", "CLASS_COLORS", "METHOD_STYLES", "TEMPLATE", "TONES", "add_player", "add_sliders",
    "against_accuracy", "animate", "average_weights", "band", "band_panels", "barcode", "centred_cosines",
    "class_colors", "cosine_heatmap", "cosine_heatmaps", "curve_panels", "death_histogram", "death_times_over_epochs",
    "decision_cells", "descents", "direction_histograms", "etf_beside_means", "filtration", "finish", "frame_angle",
    "frame_at", "frame_distances", "frame_landscape", "geometry", "geometry_animation", "geometry_coordinates",
    "interval_chart", "linear_cells", "loss_ring", "method_style", "metric_curves", "metric_label", "metric_picker",
    "paired_ratios", "pieces", "polar_grid", "ring_loss", "ring_strip", "ring_walk", "scatter_ellipses",
    "schedule_curves", "seed_curves", "seed_scatter", "seed_summary", "segments", "simplex_coordinates",
    "simplex_vertices", "slope_chart", "solver_trace", "spanning_tree_figure", "star", "star_animation", "stars",
    "tracking_error", "tracking_explorer", "xyz",
]
