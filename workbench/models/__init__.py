"""Floor 3: the models, one file a system."""

from workbench.models.cones import cone_energy, half_aperture, outward_angle
from workbench.models.poincare_embedding import EmbeddingConfig, PoincareEmbedding
from workbench.models.sarkar import sarkar
from workbench.models.stress import spectral_embedding, stress, stress_embedding

__all__ = [
    "EmbeddingConfig",
    "PoincareEmbedding",
    "cone_energy",
    "half_aperture",
    "outward_angle",
    "sarkar",
    "spectral_embedding",
    "stress",
    "stress_embedding",
]
