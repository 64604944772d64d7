"""Hierarchies and where they come from: WordNet, ontologies, synthetic trees, downloads."""

from workbench.data import ontology, registry, trees, wordnet
from workbench.data.hierarchy import Hierarchy, Split

__all__ = ["Hierarchy", "Split", "ontology", "registry", "trees", "wordnet"]
