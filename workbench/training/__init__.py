"""Floor 4, training: how models are fitted, the same way for all of them."""

from workbench.training.seeds import seed_all

__all__ = ["seed_all"]
