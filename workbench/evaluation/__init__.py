"""Floor 4: what an embedding is worth, measured."""

from workbench.evaluation.hierarchy import TreeDistortion, depth_correlation, tree_distortion
from workbench.evaluation.linkprediction import (
    Classification,
    LinkPrediction,
    best_threshold,
    classify,
    isa_score,
    link_prediction,
)
from workbench.evaluation.ranking import Ranks, rank_pairs
from workbench.evaluation.reconstruction import Reconstruction, reconstruction

__all__ = [
    "Classification",
    "LinkPrediction",
    "Ranks",
    "Reconstruction",
    "TreeDistortion",
    "best_threshold",
    "classify",
    "depth_correlation",
    "isa_score",
    "link_prediction",
    "rank_pairs",
    "reconstruction",
    "tree_distortion",
]
