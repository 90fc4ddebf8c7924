"""Neural collapse: nearest simplex ETFs, topological densification, and the metrics to watch them with."""

from ncbook.averages import ClassMeanAverage
from ncbook.data import Dataset, SameClassSampler, load_dataset
from ncbook.etf import (
    helmert_basis,
    nearest_simplex_etf,
    polar_factor,
    riemannian_nearest_etf,
    simplex_etf,
    simplex_etf_distance,
)
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead, dot_regression_loss
from ncbook.metrics import NeuralCollapse, neural_collapse
from ncbook.models import build_backbone
from ncbook.persistence import densification_loss, h0_death_times, spanning_tree
from ncbook.schedules import ConstantSchedule, DelayedSchedule, SlidingSchedule
from ncbook.training import Controls, Recipe, Snapshot, Trainer, joint_snapshot, train

__all__ = [
    "ClassMeanAverage", "ConstantSchedule", "Controls", "Dataset", "DelayedSchedule", "FixedETFHead", "LearnedHead",
    "NearestETFHead", "NeuralCollapse", "Recipe", "SameClassSampler", "SlidingSchedule", "Snapshot", "Trainer",
    "build_backbone", "densification_loss", "dot_regression_loss", "h0_death_times", "helmert_basis",
    "joint_snapshot", "load_dataset", "nearest_simplex_etf", "neural_collapse", "polar_factor",
    "riemannian_nearest_etf", "simplex_etf", "simplex_etf_distance", "spanning_tree", "train",
]
