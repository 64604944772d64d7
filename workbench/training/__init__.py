"""Floor 4, training: how models are fitted, the same way for all of them."""

from workbench.training.embedding import EmbeddingTrainer, Fit, fit
from workbench.training.hrq import HRQFit, fit_joint, fit_vae
from workbench.training.multitoken import MultitokenFit, MultitokenSettings, fit_multitoken, next_item_pairs
from workbench.training.recommender import RecommenderFit, RecommenderSettings, fit_recommender
from workbench.training.seeds import seed_all

__all__ = [
    "EmbeddingTrainer",
    "Fit",
    "HRQFit",
    "MultitokenFit",
    "MultitokenSettings",
    "RecommenderFit",
    "RecommenderSettings",
    "fit",
    "fit_joint",
    "fit_multitoken",
    "fit_recommender",
    "fit_vae",
    "next_item_pairs",
    "seed_all",
]
