"""Floor 4: what an embedding is worth, measured."""

from workbench.evaluation.ranking import Ranks, rank_pairs
from workbench.evaluation.reconstruction import Reconstruction, reconstruction

__all__ = ["Ranks", "Reconstruction", "rank_pairs", "reconstruction"]
