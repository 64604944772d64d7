"""How tree-like are the items of some interactions, before any model? What that says about a curvature to try.

Two views of the training part: vectors of the items from its truncated SVD, and the graph that joins items taken by
the same users. Each is measured again after the items have been dealt out anew over all interactions, which keeps
every popularity and every length and nothing else: what is as tree-like then was no hierarchy.
Sources: Khrulkov et al., *Hyperbolic Image Embeddings* (CVPR 2020), section 3.2 (δ_rel and c = (0.144/δ_rel)²);
Frolov et al., *Hyperbolic SASRec*, for the SVD of the interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import svds

from workbench.data.interactions import Interactions
from workbench.errors import DataError, ParameterError
from workbench.manifolds import Euclidean, delta_hyperbolicity

DISK = 0.144  # δ_rel of the unit Poincaré disk, as Khrulkov et al. measured it


@dataclass(frozen=True)
class Delta:
    """δ_rel = 2δ/diameter of samples of items: 0 for a tree, at most 1.

    draws: one value a sample.  shuffled: the same for items dealt out anew.
    """

    draws: tuple[float, ...]
    shuffled: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.draws))

    @property
    def sd(self) -> float:
        return float(np.std(self.draws))

    @property
    def null(self) -> float:
        """Mean of the shuffled."""
        return float(np.mean(self.shuffled))

    @property
    def curvature(self) -> float:
        """The c at which a Poincaré disk is as tree-like, (0.144/δ_rel)²: a value to begin a sweep around."""
        return (DISK / self.mean) ** 2 if self.mean else float("inf")


@dataclass(frozen=True)
class ItemDelta:
    """`vectors`: of the items' SVD vectors by Euclidean distance; `graph`: of hops in the co-occurrence graph."""

    vectors: Delta
    graph: Delta


def item_delta(
    data: Interactions,
    rank: int = 64,
    sample: int = 500,
    draws: int = 5,
    seed: int = 0,
    neighbours: int = 5,
) -> ItemDelta:
    """Gromov δ, relative to the diameter, of `draws` random samples of items each seen from one of them.

    The vectors are V Σ of the rank-`rank` SVD of the users × items matrix (1 where a user has the item). The graph
    joins each item to the `neighbours` items that share most users with it, by cosine; its largest component.
    A base point sees at least half of δ, mostly nearly all of it (`delta_hyperbolicity`).
    Popularities have long tails, and a few very long vectors make the diameter: δ_rel of the vectors then falls with
    no hierarchy at all, which `null` shows, and varies from sample to sample.

    Raises:
        ParameterError: rank, draws or neighbours below 1, or sample below 4.
        DataError: fewer than four items or users, or a graph without four items in one piece.
    """
    for name, value, least in (
        ("rank", rank, 1),
        ("sample", sample, 4),
        ("draws", draws, 1),
        ("neighbours", neighbours, 1),
    ):
        if value < least:
            raise ParameterError(f"{name} must be at least {least}, but came as {value}")
    users = np.repeat(np.arange(data.n_users), [len(s) for s in data.train])
    items = np.concatenate(data.train)
    dealt = np.random.default_rng([seed, 1]).permutation(items)
    measured = []
    for column in (items, dealt):
        table = _table(users, column, data)
        vectors = torch.from_numpy(_vectors(table, rank, seed))
        graph = _graph(table, neighbours)
        measured.append(
            [
                _draws(
                    lambda i, v=vectors: delta_hyperbolicity(v[i], Euclidean(), method="base_point").relative,
                    len(vectors),
                    sample,
                    draws,
                    seed,
                ),
                _draws(lambda i, g=graph: _hops(g, i), graph.shape[0], sample, draws, seed),
            ]
        )
    (vectors, graph), (vectors_null, graph_null) = measured
    return ItemDelta(Delta(vectors, vectors_null), Delta(graph, graph_null))


def _draws(
    measure: Callable[[NDArray], float], n: int, sample: int, draws: int, seed: int
) -> tuple[float, ...]:
    rng = np.random.default_rng([seed, 2])
    return tuple(measure(rng.choice(n, min(sample, n), replace=False)) for _ in range(draws))


def _table(users: NDArray, items: NDArray, data: Interactions) -> sparse.csr_array:
    """Users × items, 1.0 where the user has the item; items that nobody has in training are left out."""
    ones = np.ones(len(items))
    table = sparse.csr_array((ones, (users, items)), shape=(data.n_users, data.n_items))
    table.data[:] = 1.0
    table = table[:, np.unique(items)]
    if min(table.shape) < 4:
        raise DataError(f"{data!r} has too few users or items in training: four of each are needed")
    return table


def _vectors(table: sparse.csr_array, rank: int, seed: int) -> NDArray:
    """(n, ≤ rank) item vectors V Σ."""
    start = np.random.default_rng([seed, 3]).random(min(table.shape))
    _, s, vt = svds(table, k=min(rank, min(table.shape) - 1), v0=start)
    return np.ascontiguousarray(vt.T * s)


def _graph(table: sparse.csr_array, neighbours: int) -> sparse.csr_array:
    """Each item joined to the items most often taken by its users; the largest component."""
    counts = np.asarray(table.sum(0))
    scaled = (table / np.sqrt(counts)[None, :]).tocsc()
    heads, tails = [], []
    for start in range(0, scaled.shape[1], 1024):
        close = (scaled[:, start : start + 1024].T @ scaled).toarray()
        close[np.arange(len(close)), start + np.arange(len(close))] = 0
        best = np.argsort(-close, axis=1, kind="stable")[:, :neighbours]
        row, column = np.nonzero(np.take_along_axis(close, best, 1) > 0)
        heads.append(start + row)
        tails.append(best[row, column])
    heads, tails = np.concatenate(heads), np.concatenate(tails)
    n = scaled.shape[1]
    graph = sparse.csr_array((np.ones(len(heads)), (heads, tails)), shape=(n, n))
    _, part = csgraph.connected_components(graph, directed=False)
    largest = np.flatnonzero(part == np.bincount(part).argmax())
    if len(largest) < 4:
        raise DataError("the items have too few users in common: no four of them are joined")
    return graph[largest][:, largest]


def _hops(graph: sparse.csr_array, chosen: NDArray) -> float:
    hops = csgraph.shortest_path(graph, directed=False, unweighted=True, indices=chosen)[:, chosen]
    return delta_hyperbolicity(torch.from_numpy(hops), method="base_point").relative
