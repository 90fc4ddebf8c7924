"""Neural collapse: nearest simplex ETFs, topological densification, and the metrics to watch them with."""

from ncbook.adapters import observing, replace_classifier
from ncbook.averages import ClassMeanAverage
from ncbook.etf import helmert_basis, nearest_simplex_etf, polar_factor, simplex_etf, simplex_etf_distance
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead
from ncbook.losses import dot_regression_loss
from ncbook.metrics import NeuralCollapse, neural_collapse
from ncbook.monitor import CollapseMonitor, lightning_callback, measure_layers
from ncbook.persistence import densification_loss, h0_death_times, spanning_tree
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule
from ncbook.solver import riemannian_nearest_etf
from ncbook.training.backbones import build_backbone
from ncbook.training.data import Dataset, SameClassSampler, load_dataset
from ncbook.training.recipe import Recipe
from ncbook.training.regularisers import Controls
from ncbook.training.snapshot import Snapshot, measure
from ncbook.training.trainer import Trainer, joint_snapshot, train

__all__ = [
    "ClassMeanAverage", "CollapseMonitor", "ConstantSchedule", "Controls", "Dataset", "DelayedSchedule",
    "FixedETFHead", "LearnedHead", "NearestETFHead", "NeuralCollapse", "Recipe", "SameClassSampler",
    "SlidingSchedule", "Snapshot", "Trainer", "build_backbone", "densification_loss", "dot_regression_loss",
    "h0_death_times", "helmert_basis", "joint_snapshot", "lightning_callback", "load_dataset", "measure",
    "measure_layers", "nearest_simplex_etf", "neural_collapse", "observing", "polar_factor", "replace_classifier",
    "riemannian_nearest_etf", "simplex_etf", "simplex_etf_distance", "spanning_tree", "train",
]
