"""Synthetic hierarchies: the same arguments give the same tree, always."""

from __future__ import annotations

import numpy as np

from workbench.data.hierarchy import Hierarchy
from workbench.errors import ParameterError

MAX_NODES = 5_000_000


def balanced(branching: int, height: int) -> Hierarchy:
    """The complete tree: every node above the last level has `branching` children; `height` edges deep.

    Nodes are numbered level by level, (branching^(height+1) − 1) / (branching − 1) in all.

    Raises:
        ParameterError: branching < 1, height < 0, or more than 5 million nodes.
    """
    _whole("branching", branching, 1)
    _whole("height", height, 0)
    n = 1
    for _ in range(height):
        n = n * branching + 1
        if n > MAX_NODES:
            raise ParameterError(
                f"a balanced tree of branching {branching} and height {height} exceeds {MAX_NODES:,} nodes"
            )
    return _from_parents((np.arange(n) - 1) // branching)


def random_recursive(n: int, seed: int = 0) -> Hierarchy:
    """Node i chooses its parent evenly among the nodes 0 … i−1; depth grows like ln n.

    Raises:
        ParameterError: n < 1 or more than 5 million.
    """
    _whole("n", n, 1, MAX_NODES)
    rng = np.random.default_rng(seed)
    return _from_parents(np.concatenate([[-1], rng.integers(0, np.arange(1, n))]))


def caterpillar(spine: int, legs: int) -> Hierarchy:
    """A path of `spine` nodes (0 is the root), each with `legs` leaves: the deepest and thinnest of trees.

    Raises:
        ParameterError: spine < 1, legs < 0, or more than 5 million nodes.
    """
    _whole("spine", spine, 1, MAX_NODES)
    _whole("legs", legs, 0, MAX_NODES // spine)
    return _from_parents(np.concatenate([np.arange(spine) - 1, np.repeat(np.arange(spine), legs)]))


def galton_watson(
    mean: float, max_nodes: int = 1000, generations: int | None = None, seed: int = 0
) -> Hierarchy:
    """A branching process: each node has a Poisson number of children.

    Stops when it dies out (certain for mean ≤ 1), at `max_nodes` nodes, or `generations` below the root.

    Args:
        mean: average number of children, > 0.
        max_nodes: size at which the last generation is cut off.
        generations: greatest depth; default none.

    Raises:
        ParameterError: a value outside its range.
    """
    if not (isinstance(mean, int | float) and 0 < mean <= MAX_NODES):
        raise ParameterError(
            f"mean must be a number of children above 0, at most {MAX_NODES:,}, not {mean!r}"
        )
    _whole("max_nodes", max_nodes, 1, MAX_NODES)
    if generations is not None:
        _whole("generations", generations, 0)
    rng = np.random.default_rng(seed)
    parents = [np.array([-1])]
    first, n, depth = 0, 1, 0
    while first < n < max_nodes and (generations is None or depth < generations):
        room = max_nodes - n
        counts = np.minimum(rng.poisson(mean, size=n - first), room)
        counts = counts[: np.searchsorted(counts.cumsum(), room) + 1]  # those after it would not fit anyway
        children = np.repeat(np.arange(first, first + len(counts)), counts)[:room]
        parents.append(children)
        first, n, depth = n, n + len(children), depth + 1
    return _from_parents(np.concatenate(parents))


def with_noise(h: Hierarchy, extra: int, seed: int = 0) -> Hierarchy:
    """`h` with `extra` more edges between random nodes, still without cycles and without repeats.

    Each new edge leads from a node to a later one in the topological order; it may shortcut a longer way.

    Raises:
        ParameterError: extra < 0, or more edges than the nodes have room for.
    """
    n = len(h)
    _whole("extra", extra, 0)
    room = n * (n - 1) // 2 - len(h.edges)
    if extra > room:
        raise ParameterError(f"there is room for {room:,} more edges in {h!r}, not {extra:,}")
    rng = np.random.default_rng(seed)
    order = h.topological
    known = set(map(tuple, h.edges.tolist()))
    added: list[tuple[int, int]] = []
    if extra > room // 2:  # crowded: list what is free instead of guessing
        free = [(int(order[i]), int(order[j])) for i in range(n) for j in range(i + 1, n)]
        free = [e for e in free if e not in known]
        added = [free[i] for i in rng.permutation(len(free))[:extra]]
    while len(added) < extra:
        i, j = np.sort(rng.integers(0, n, size=2))
        edge = (int(order[i]), int(order[j]))
        if i != j and edge not in known:
            known.add(edge)
            added.append(edge)
    edges = np.concatenate([h.edges, np.array(added, dtype=np.int64).reshape(-1, 2)])
    return Hierarchy.from_edges(edges, h.names, h.labels, h.glosses)


def _from_parents(parents: np.ndarray) -> Hierarchy:
    """From each node's parent number, −1 at the root; names "0", "1", …."""
    nodes = np.flatnonzero(parents >= 0)
    edges = np.column_stack([parents[nodes], nodes]).astype(np.int64)
    return Hierarchy.from_edges(edges, [str(i) for i in range(len(parents))])


def _whole(name: str, value: int, low: int, high: int | None = None) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        span = f"at least {low:,}" if high is None else f"from {low:,} to {high:,}"
        raise ParameterError(f"{name} must be a whole number, {span}, not {value!r}")
