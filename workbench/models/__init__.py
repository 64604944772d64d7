"""Floor 3: the models, one file a system."""

from workbench.models.codes import capacity, deduplicate, uniqueness
from workbench.models.cones import cone_energy, half_aperture, outward_angle
from workbench.models.hrq import HRQVAE, HRQConfig, HRQTable
from workbench.models.kmeans import kmeans
from workbench.models.multitoken import MultitokenConfig, MultitokenTransformer, TokenTrie, beam_search
from workbench.models.poincare_embedding import EmbeddingConfig, PoincareEmbedding
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.models.sarkar import sarkar
from workbench.models.stress import spectral_embedding, stress, stress_embedding

__all__ = [
    "HRQVAE",
    "EmbeddingConfig",
    "HRQConfig",
    "HRQTable",
    "MultitokenConfig",
    "MultitokenTransformer",
    "PoincareEmbedding",
    "ResidualQuantizer",
    "TokenTrie",
    "beam_search",
    "capacity",
    "cone_energy",
    "deduplicate",
    "half_aperture",
    "kmeans",
    "outward_angle",
    "sarkar",
    "spectral_embedding",
    "stress",
    "stress_embedding",
    "uniqueness",
]
