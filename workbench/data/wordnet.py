"""The nouns of Princeton WordNet 3.0, embedded in the package: no download, no network.

`wordnet.json.xz` is written by `scripts/build_wordnet.py`; WordNet's licence stands beside it. All rows
follow the order of the database (rising offset), so row i of every function here is synset i of `nouns()`.
"""

from __future__ import annotations

import json
import lzma
from functools import lru_cache

import numpy as np

from workbench.data._graph import Ints, readonly
from workbench.data.hierarchy import Hierarchy
from workbench.errors import DataError
from workbench.paths import asset

# Two synsets that the 2017 release drops from its mammals (besides everything above mammal.n.01).
LEFT_OUT_IN_2017 = ("female_mammal.n.01", "tusker.n.01")


@lru_cache(maxsize=1)
def _columns() -> dict:
    path = asset("wordnet.json.xz")
    try:
        return json.loads(lzma.decompress(path.read_bytes()))
    except (OSError, lzma.LZMAError, EOFError, ValueError) as e:
        raise DataError(f"the embedded WordNet {path} cannot be read ({e}); reinstall the package") from e


@lru_cache(maxsize=2)
def nouns(instances: bool = True) -> Hierarchy:
    """All 82,115 noun synsets under hypernymy, parent → child; names as in nltk ("dog.n.01").

    Labels are first lemmas with spaces; glosses are complete, with their examples. One root, entity.n.01; the
    closure has 743,241 pairs.

    Args:
        instances: with instance relations (Einstein under physicist) as edges. Without them, only the 74,401
            synsets that take part in class-to-class hypernymy (75,850 edges, 663,508 closure pairs, 12
            roots): the WordNet of HiT and HiM.
    """
    columns, edges = _columns(), _hypernym_edges()
    if instances:
        edges = np.concatenate([edges, _instance_edges()])
    lemmas = [row.split("|") for row in columns["lemmas"].split("\n")]
    names = [f"{row[0].lower()}.n.{sense:02d}" for row, sense in zip(lemmas, columns["sense"], strict=True)]
    labels = [row[0].replace("_", " ") for row in lemmas]
    h = Hierarchy.from_edges(edges, names, labels, columns["gloss"].split("\n"))
    return h if instances else h.induced(np.unique(edges))


def subtree(name: str) -> Hierarchy:
    """A synset and all synsets below it, e.g. `subtree("mammal.n.01")`: 1,182 synsets, 6,542 closure pairs.

    The literature's "WordNet mammals" has two synsets fewer: that is `mammals()`.
    """
    return nouns().subtree(name)


@lru_cache(maxsize=1)
def mammals() -> Hierarchy:
    """The mammals of Nickel & Kiela (2017): 1,180 synsets whose closure has 6,540 pairs.

    The subtree of mammal.n.01 without the leaves female_mammal.n.01 and tusker.n.01, which the filter list of
    the paper's release removes: each loses its one pair inside the subtree, and so drops out.
    """
    h = subtree("mammal.n.01")
    return h.induced(name for name in h.names if name not in LEFT_OUT_IN_2017)


@lru_cache(maxsize=1)
def nouns_closure_2017() -> Ints:
    """The 743,086 noun pairs [ancestor, descendant] that the 2017 Poincaré-embeddings release trains on.

    Sorted and numbered as `nouns().closure()`, which has 155 pairs more. A way up in the release is any
    number of instance steps, then any number of hypernym steps; an instance step after a hypernym step is
    not taken. So 22 synsets, such as Guernsey (a kind of Channel Island, which is an instance of island),
    lack the pairs that only such a mixed way leads to.
    """
    n = len(nouns())
    by_class = Hierarchy.from_edges(_hypernym_edges(), nouns().names).closure()
    to_class = Hierarchy.from_edges(_instance_edges(), nouns().names).closure()
    start, above = np.searchsorted(by_class[:, 1], np.arange(n + 1)), by_class[:, 0]
    mixed = [(a, d) for c, d in to_class.tolist() for a in above[start[c] : start[c + 1]].tolist()]
    pairs = np.concatenate([by_class, to_class, np.array(mixed)])
    keys = np.unique(pairs[:, 1] * n + pairs[:, 0])
    return readonly(np.column_stack([keys % n, keys // n]))


@lru_cache(maxsize=1)
def lemmas() -> tuple[tuple[str, ...], ...]:
    """The words of each synset of `nouns()`, in WordNet's spelling (underscores, capitals)."""
    return tuple(tuple(row.split("|")) for row in _columns()["lemmas"].split("\n"))


@lru_cache(maxsize=1)
def offsets() -> Ints:
    """(82115,) byte offset of each synset of `nouns()` in WordNet 3.0's data.noun: its stable identifier."""
    return readonly(np.array(_columns()["offset"], dtype=np.int64))


@lru_cache(maxsize=1)
def lexnames() -> tuple[str, ...]:
    """The lexicographer file of each synset of `nouns()`: one of 26 topics such as "noun.animal"."""
    columns = _columns()
    return tuple(columns["lexnames"][i] for i in columns["lexname"])


def _hypernym_edges() -> Ints:
    """[class above, class], parents stored as steps from the child's row."""
    pairs = [(i + step, i) for i, steps in enumerate(_columns()["hypernyms"]) for step in steps]
    return np.array(pairs, dtype=np.int64)


def _instance_edges() -> Ints:
    """[class, instance]"""
    return np.array(_columns()["instances"], dtype=np.int64)[:, ::-1]
