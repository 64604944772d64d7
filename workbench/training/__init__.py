"""Floor 4, training: how models are fitted, the same way for all of them."""

from workbench.training.embedding import EmbeddingTrainer, Fit, fit
from workbench.training.seeds import seed_all

__all__ = ["EmbeddingTrainer", "Fit", "fit", "seed_all"]
