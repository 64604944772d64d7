"""Algorithms on directed acyclic graphs given as plain arrays; `Hierarchy` is their public face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError

Ints = NDArray[np.int64]

MAX_CLOSURE = 100_000_000  # pairs; 1.6 GB as int64


def readonly(array: NDArray) -> NDArray:
    """The same array with writing switched off."""
    array.flags.writeable = False
    return array


def csr(keys: Ints, values: Ints, n: int) -> tuple[Ints, Ints]:
    """Group `values` by `keys`: the group of k is `grouped[start[k]:start[k + 1]]`, ascending."""
    order = np.lexsort((values, keys))
    start = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(keys, minlength=n), out=start[1:])
    return start, values[order]


def topological_order(edges: Ints, n: int) -> list[int]:
    """Nodes with every parent before its children (Kahn); shorter than n when there is a cycle."""
    start, children = (a.tolist() for a in csr(edges[:, 0], edges[:, 1], n))
    missing = np.bincount(edges[:, 1], minlength=n).tolist()
    order = [i for i in range(n) if missing[i] == 0]
    for node in order:  # grows while it is walked
        for child in children[start[node] : start[node + 1]]:
            missing[child] -= 1
            if missing[child] == 0:
                order.append(child)
    return order


def find_cycle(edges: Ints, n: int, ordered: list[int]) -> list[int]:
    """One directed cycle (parent first) among the nodes `topological_order` could not place."""
    stuck = np.ones(n, dtype=bool)
    stuck[ordered] = False
    inside = edges[stuck[edges[:, 0]] & stuck[edges[:, 1]]]
    parent_of = dict(zip(inside[:, 1].tolist(), inside[:, 0].tolist(), strict=True))
    # A node below a cycle is stuck too, but every stuck node has a stuck parent: walking up meets the cycle.
    node, seen = next(iter(parent_of)), {}
    while node not in seen:
        seen[node] = len(seen)
        node = parent_of[node]
    walk = list(seen)[seen[node] :]
    return walk[::-1]


def shortest_depth(edges: Ints, n: int, order: list[int]) -> NDArray[np.int32]:
    """Edges on the shortest way down from any root, (n,)."""
    start, parents = (a.tolist() for a in csr(edges[:, 1], edges[:, 0], n))
    depth = [0] * n
    for node in order:
        above = parents[start[node] : start[node + 1]]
        if above:
            depth[node] = 1 + min(depth[p] for p in above)
    return np.array(depth, dtype=np.int32)


def reachable(start: Ints, neighbours: Ints, node: int) -> Ints:
    """Every node other than `node` that can be reached along `neighbours`, ascending."""
    found: set[int] = set()
    queue = [node]
    while queue:
        i = queue.pop()
        fresh = set(neighbours[start[i] : start[i + 1]].tolist()) - found
        found |= fresh
        queue.extend(fresh)
    return np.array(sorted(found), dtype=np.int64)


def transitive_closure(edges: Ints, n: int, order: list[int]) -> Ints:
    """All (ancestor, descendant) pairs, (P, 2), sorted by descendant then ancestor.

    Walks down the topological order, so each node's ancestors are the union of its parents' finished lists.
    """
    start, parents = csr(edges[:, 1], edges[:, 0], n)
    above: list[Ints] = [np.empty(0, dtype=np.int64)] * n
    total = 0
    for node in order:
        direct = parents[start[node] : start[node + 1]]
        if len(direct) == 0:
            continue
        merged = np.concatenate([direct, *(above[p] for p in direct.tolist())])
        if len(direct) == 1:
            merged.sort()  # a single parent is never among its own ancestors
        else:
            merged = np.unique(merged)
        above[node] = merged
        total += len(merged)
        if total > MAX_CLOSURE:
            raise DataError(
                f"the transitive closure of these {n:,} nodes has more than {MAX_CLOSURE:,} pairs; "
                "take a subtree, or a shallower hierarchy"
            )
    descendants = np.repeat(np.arange(n, dtype=np.int64), [len(a) for a in above])
    return np.column_stack([np.concatenate(above), descendants])
