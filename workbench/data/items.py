"""What is known about items, as vectors for a quantiser and as a hierarchy to judge it by."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from workbench.data._sequences import Interactions, Names
from workbench.data.hierarchy import Hierarchy
from workbench.errors import DataError, ParameterError

if TYPE_CHECKING:  # a third of a second to import, and the command line needs no sparse tables
    from scipy import sparse

WORD = re.compile(r"\w\w+")
DENSE = 5_000_000  # up to this many cells the whole decomposition takes seconds, and needs no iteration


def item_features(
    data: Interactions, dim: int = 64, seed: int = 0, *, source: str = "text", min_items: int = 2
) -> Float[np.ndarray, "items dim"]:
    """Item vectors by latent semantic analysis: U·Σ of the truncated SVD of a table with one row an item.

    Args:
        dim: entries of a vector.
        seed: of the iteration on large tables. The sign of each column makes its largest entry positive.
        source: "text": TF-IDF of title words and attributes, rows of length one (those of an item without any
            are zero, and items described alike get the same vector); "interactions": who took the item in
            training, 1 or 0; "both": half of the entries from each, scaled to rows of length one. (A single SVD
            of the two tables side by side would be all words: there are few, and they tell many items alike.)
        min_items: words and attributes of fewer items are left out, as they relate no two items.

    Returns:
        float64, columns by falling singular value ("both": of each half).

    Raises:
        DataError: "text", and nothing is known about the items.
        ParameterError: another source, or `dim` exceeds what the table can give.

    Reference: Deerwester et al. (1990), Indexing by latent semantic analysis.
    """
    if source not in ("text", "interactions", "both"):
        raise ParameterError(f"source must be 'text', 'interactions' or 'both', not {source!r}")
    if source != "both":
        return _truncated(_tf_idf(data, min_items) if source == "text" else _taken(data), dim, seed)
    words, users = _tf_idf(data, min_items), _unit_rows(_taken(data))
    if dim < 2:
        raise ParameterError(f"dim must be at least 2 for source='both', not {dim}")
    share = min(dim // 2, *words.shape)
    parts = _truncated(words, share, seed), _truncated(users, dim - share, seed)
    lengths = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return np.hstack([part / np.where(n > 1e-9, n, 1) for part, n in zip(parts, lengths, strict=True)])


def _tf_idf(data: Interactions, min_items: int) -> sparse.csr_array:
    """(items, words): word count · (ln((1 + N) / (1 + n_word)) + 1), rows of length one."""
    from scipy import sparse

    # An attribute is one word, marked lest it be taken for a word of a title.
    documents = [
        Counter(WORD.findall(title.lower())) + Counter("=" + a for a in attributes)
        for title, attributes in zip(data.titles, data.attributes, strict=True)
    ]
    spread = Counter(word for document in documents for word in document)
    column = {word: j for j, word in enumerate(sorted(w for w, n in spread.items() if n >= min_items))}
    if not column:
        raise DataError(
            f"nothing is known about the items of {data!r} that two of them share: add titles and attributes "
            "(`with_items`), or take source='interactions'"
        )
    entries = [(i, column[w], n) for i, d in enumerate(documents) for w, n in d.items() if w in column]
    rows, columns, counts = np.array(entries, dtype=np.int64).T
    table = sparse.csr_array((counts.astype(float), (rows, columns)), shape=(data.n_items, len(column)))
    known = np.array([spread[word] for word in column])
    weights = np.log((1 + data.n_items) / (1 + known)) + 1
    return _unit_rows(sparse.csr_array(table * weights))


def _taken(data: Interactions) -> sparse.csr_array:
    """(items, users): 1 where the user took the item in training."""
    from scipy import sparse

    users = np.repeat(np.arange(data.n_users), [len(s) for s in data.train])
    items = np.concatenate(data.train)
    table = sparse.csr_array((np.ones(len(items)), (items, users)), shape=(data.n_items, data.n_users))
    table.data[:] = 1  # repeats were added up
    return table


def _unit_rows(table: sparse.csr_array) -> sparse.csr_array:
    from scipy import sparse

    norms = np.sqrt(table.multiply(table).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(norms > 0, norms, 1)) @ table)


def _truncated(table: sparse.csr_array, dim: int, seed: int) -> Float[np.ndarray, "rows dim"]:
    most = min(table.shape)
    if not 1 <= dim <= most:
        raise ParameterError(
            f"dim must be from 1 to {most}, as the table has {table.shape[0]:,} items and "
            f"{table.shape[1]:,} columns, not {dim}"
        )
    with threadpool_limits(1):  # else the last bits depend on the threads that the process happens to have
        if table.shape[0] * table.shape[1] <= DENSE or dim >= most:
            _, _, v = np.linalg.svd(table.toarray(), full_matrices=False)
            v = v[:dim]
        else:
            from scipy.sparse.linalg import svds

            start = np.random.default_rng(seed).standard_normal(most)
            _, _, v = svds(table, k=dim, v0=start)
            v = v[::-1]
    vectors = table @ v.T  # U·Σ; by product, as equal rows then get equal vectors to the last bit
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(dim)] < 0, -1.0, 1.0)


def item_hierarchy(data: Interactions) -> Hierarchy:
    """The tree of categories with the items as leaves.

    Node i is item i; the categories follow, then the root, named "/". A category is named by its path, as in
    "/Drama/Romance", and labelled by its last part; items are labelled by their titles.

    Where attributes are a set, such as genres, each item's are put in order of how many items have them, the
    most common first (ties by name), which makes paths of them that share as much as possible: the FP-tree of
    Han, Pei and Yin (2000). An item without attributes hangs from the root.

    Raises:
        DataError: no item has an attribute; or an item is named like a category.
    """
    paths = data.paths or _by_frequency(data.attributes)
    if not any(paths):
        raise DataError(f"the items of {data!r} have no attributes to make a hierarchy of; see `with_items`")
    labels = {"/": "all items"}
    edges: dict[tuple[str, str], None] = {}
    for item, path in zip(data.items, paths, strict=True):
        way = ["/"]
        for part in path:
            way.append(f"{way[-1].rstrip('/')}/{part}")
            labels[way[-1]] = part
        edges.update(dict.fromkeys(pairwise([*way, item])))
    names = [*data.items, *sorted(labels.keys() - {"/"}), "/"]
    return Hierarchy.from_edges(
        list(edges), names, [*data.titles, *(labels[n] for n in names[data.n_items :])]
    )


def _by_frequency(attributes: tuple[Names, ...]) -> list[Names]:
    spread = Counter(a for own in attributes for a in set(own))
    return [tuple(sorted(set(own), key=lambda a: (-spread[a], a))) for own in attributes]
