"""Hierarchies, interactions, and where they come from: WordNet, ontologies, made-up data, downloads, own files."""

from workbench.data import interactions, items, ontology, registry, tasks, trees, wordnet
from workbench.data.hierarchy import Hierarchy, Split
from workbench.data.interactions import Interactions

__all__ = [
    "Hierarchy",
    "Interactions",
    "Split",
    "interactions",
    "items",
    "ontology",
    "registry",
    "tasks",
    "trees",
    "wordnet",
]
