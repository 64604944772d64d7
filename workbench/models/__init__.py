"""Floor 3: the models, one file a system."""

from workbench.models.baselines import Popularity
from workbench.models.codes import capacity, deduplicate, uniqueness
from workbench.models.cones import cone_energy, half_aperture, outward_angle
from workbench.models.him import HiM, HiMConfig
from workbench.models.hrq import HRQVAE, HRQConfig, HRQTable
from workbench.models.kmeans import kmeans
from workbench.models.multitoken import MultitokenConfig, MultitokenTransformer, TokenTrie, beam_search
from workbench.models.poincare_embedding import EmbeddingConfig, PoincareEmbedding
from workbench.models.recommender import Recommender, RecommenderConfig, named
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.models.sarkar import sarkar
from workbench.models.stress import spectral_embedding, stress, stress_embedding
from workbench.models.text_encoder import EncoderConfig, make_encoder, parameters, tokenizer_of
from workbench.models.wordpiece import Tokenizer

__all__ = [
    "HRQVAE",
    "EmbeddingConfig",
    "EncoderConfig",
    "HRQConfig",
    "HRQTable",
    "HiM",
    "HiMConfig",
    "MultitokenConfig",
    "MultitokenTransformer",
    "PoincareEmbedding",
    "Popularity",
    "Recommender",
    "RecommenderConfig",
    "ResidualQuantizer",
    "TokenTrie",
    "Tokenizer",
    "beam_search",
    "capacity",
    "cone_energy",
    "deduplicate",
    "half_aperture",
    "kmeans",
    "make_encoder",
    "named",
    "outward_angle",
    "parameters",
    "sarkar",
    "spectral_embedding",
    "stress",
    "stress_embedding",
    "tokenizer_of",
    "uniqueness",
]
