"""The hyperbolic workbench: spaces, data, models and pictures of hyperbolic geometry in sequence models."""

__version__ = "0.1.0"
