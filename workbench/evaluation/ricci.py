"""Ollivier-Ricci curvature of the edges of a graph, above all of the graph of nearest neighbours of points.

For an edge xy let m_x be where a walker stands one step from x. κ(x, y) = 1 − W₁(m_x, m_y)/d(x, y), with hop
distances d and the least cost W₁ of moving one cloud onto the other. Positive: neighbours of x lie nearer to those of
y than x to y, as on a sphere; 0: as in flat space; negative: they part, as in a tree. Ollivier, *Ricci curvature of
Markov chains on metric spaces* (2009). He et al., *HELM* (arXiv 2505.24722, Figure 1), show it for token embeddings;
how they build the graph is not known to us, so everything about it is a parameter here. W₁ is exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from workbench.errors import ParameterError, suggest
from workbench.threads import spread

METRICS = ("euclidean", "cosine")
LAZY = (0.0, 0.5)
NUMBERS = 1 << 24  # of a block of distances that are held at once
UNITS = 512  # of mass that are moved one by one; more go to a linear program


@dataclass(frozen=True)
class Ricci:
    """pairs: (e, 2) numbers of nodes.  values: (e,) κ, at most 1."""

    pairs: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def sd(self) -> float:
        """Over the edges; NaN for one."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def negative(self) -> float:
        """Share of edges below 0."""
        return float((self.values < -1e-12).mean())


def ricci(
    graph: nx.Graph,
    pairs: Sequence[tuple] | None = None,
    *,
    alpha: float = 0.0,
    sample: int = 0,
    seed: int = 0,
    jobs: int = 1,
) -> Ricci:
    """κ of edges of a graph; the numbers of nodes are their places in `list(graph)`. Weights are not looked at.

    Args:
        pairs: of nodes, also such as are no edges; default all edges, or `sample` of them.
        alpha: the chance that the walker stays, 0 or 1/2.
        sample: how many edges are drawn, without repetition; 0 or more than there are: all. seed: of the draw.
        jobs: processes.

    Raises:
        ParameterError: a directed graph, one without edges, pairs with an unknown node or one without neighbours, of
            one node with itself, or with no path between them; another alpha.
    """
    if graph.is_directed() or graph.is_multigraph():
        raise ParameterError(f"a simple undirected graph is needed, but a {type(graph).__name__} came")
    place = {node: i for i, node in enumerate(graph)}
    ends = np.array([(place[a], place[b]) for a, b in graph.edges if a != b], dtype=np.int64).reshape(-1, 2)
    steps = _matrix(ends, len(place))
    steps = _joined(steps)
    if pairs is None:
        return _edges(steps, steps, alpha, sample, seed, jobs)
    if unknown := [node for pair in pairs for node in pair if node not in place]:
        raise ParameterError(f"pairs are of nodes of the graph, but {unknown[0]!r} is none")
    chosen = np.array([[place[a], place[b]] for a, b in pairs], dtype=np.int64).reshape(-1, 2)
    return _curvatures(steps, steps, chosen, alpha, jobs)


def knn_ricci(
    points: Float[Tensor, "n d"] | NDArray,
    k: int = 10,
    metric="euclidean",
    *,
    alpha: float = 0.0,
    sample: int = 0,
    seed: int = 0,
    jobs: int = 1,
) -> Ricci:
    """κ of edges of the graph that joins each point to its k nearest. A walker goes from a point to one of its own k
    nearest, so that all clouds are equally large; hops are counted in both directions of an edge.

    Args and errors: see `nearest` and `ricci`.
    """
    return neighbour_ricci(nearest(points, k, metric), alpha=alpha, sample=sample, seed=seed, jobs=jobs)


def neighbour_ricci(
    near: Int[np.ndarray, "n k"], *, alpha: float = 0.0, sample: int = 0, seed: int = 0, jobs: int = 1
) -> Ricci:
    """`knn_ricci` where the neighbours are known already, as from `nearest` of a larger k, cut."""
    n, k = near.shape
    walks = _matrix(np.column_stack([np.repeat(np.arange(n), k), near.ravel()]), n)
    return _edges(_joined(walks), walks, alpha, sample, seed, jobs)


def nearest(points: Float[Tensor, "n d"] | NDArray, k: int, metric="euclidean") -> Int[np.ndarray, "n k"]:
    """Numbers of the k nearest other points of each point, the nearest first; in float64.

    Args:
        metric: "euclidean", "cosine", or a manifold, by its `dist`.

    Raises:
        ParameterError: not a matrix of finite numbers, k that is not from 1 to n − 1, an unknown metric, or rows of
            length 0 under "cosine".
    """
    x = torch.as_tensor(points).detach().cpu().double()
    if x.ndim != 2 or not torch.isfinite(x).all():
        raise ParameterError(f"points must be a matrix of finite numbers, but came as {tuple(x.shape)}"
                             + (" with others in it" if x.ndim == 2 else ""))  # fmt: skip
    if not 1 <= k < len(x):
        raise ParameterError(f"k must be from 1 to {len(x) - 1}, for {len(x)} points, but came as {k!r}")
    if isinstance(metric, str):
        x, metric = _by_name(x, metric), None
    rows, found = max(1, NUMBERS // (len(x) * (1 if metric is None else x.shape[1]))), []
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        d = torch.cdist(part, x) if metric is None else metric.dist(part[:, None], x[None])
        d[torch.arange(len(part)), torch.arange(start, start + len(part))] = math.inf
        found.append(d.topk(k, largest=False).indices)
    return torch.cat(found).numpy()


def _by_name(x: Tensor, metric: str) -> Tensor:
    if metric not in METRICS:
        raise ParameterError(
            f"metric is {', '.join(METRICS)} or a manifold, but came as {metric!r}{suggest(metric, METRICS)}"
        )
    if metric == "euclidean":
        return x
    length = x.norm(dim=1, keepdim=True)
    if not (length > 0).all():
        raise ParameterError("cosine needs rows of a length above 0, but one is 0")
    return x / length  # chords grow with angles


# -- graphs ----------------------------------------------------------------------------------------


def _matrix(ends: NDArray[np.int64], n: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(ends), np.int32), (ends[:, 0], ends[:, 1])), shape=(n, n))


def _joined(walks: sparse.csr_array) -> sparse.csr_array:
    """Edges in both directions, ones."""
    both = (walks + walks.T).tocsr()
    both.data = np.ones_like(both.data)
    return both


def _edges(steps, walks, alpha: float, sample: int, seed: int, jobs: int) -> Ricci:
    upper = sparse.triu(steps, 1).tocoo()
    pairs = np.column_stack(upper.coords).astype(np.int64)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    if not len(pairs):
        raise ParameterError("a graph with at least one edge is needed, but none came")
    if 0 < sample < len(pairs):
        chosen = np.random.default_rng(seed).choice(len(pairs), sample, replace=False)
        pairs = pairs[np.sort(chosen)]
    return _curvatures(steps, walks, pairs, alpha, jobs)


def _curvatures(steps, walks, pairs: NDArray[np.int64], alpha: float, jobs: int) -> Ricci:
    if alpha not in LAZY:
        raise ParameterError(f"alpha must be 0 or 0.5, but came as {alpha!r}")
    if not len(pairs):
        raise ParameterError("at least one pair of nodes is needed, but none came")
    if (alone := np.diff(walks.indptr)[pairs] == 0).any():
        raise ParameterError(f"node {pairs[alone][0]} has no neighbours, so that nobody can walk from it")
    if (same := pairs[:, 0] == pairs[:, 1]).any():
        raise ParameterError(f"pairs are of two nodes, but node {pairs[same][0, 0]} came with itself")
    parts = np.array_split(pairs, min(max(jobs, 1) * 4, len(pairs)) if jobs > 1 else 1)
    common = dict(steps=steps, walks=walks, lazy=alpha > 0)
    values = spread(_values, [common | {"pairs": part} for part in parts], jobs)
    return Ricci(pairs, np.concatenate(list(values)))


def _values(steps, walks, pairs: NDArray[np.int64], lazy: bool) -> NDArray[np.float64]:
    return np.array([_kappa(steps, walks, int(x), int(y), lazy) for x, y in pairs])


def _kappa(steps, walks, x: int, y: int, lazy: bool) -> float:
    near = [walks.indices[walks.indptr[v] : walks.indptr[v + 1]].tolist() for v in (x, y)]
    unit = math.lcm(*map(len, near))  # masses are whole numbers of 1/unit, halves if lazy
    here, there = (Counter(dict.fromkeys(some, unit // len(some))) for some in near)
    if lazy:
        here[x] += unit
        there[y] += unit
    # By the triangle inequality what both have may stay where it is.
    left, right = here - there, there - here
    apart = 1 if y in steps.indices[steps.indptr[x] : steps.indptr[x + 1]] else None
    cost = _hops(steps, list(left), list(right), apart is not None)
    if apart is None:
        apart = float(_hops(steps, [x], [y], False)[0, 0])
    moved = transport(cost, list(left.values()), list(right.values()))
    return 1 - moved / (unit * (2 if lazy else 1) * apart)


def _hops(steps, left: list[int], right: list[int], close: bool) -> NDArray:
    """Hop distances. close: none is above 3, as between steps from the ends of an edge."""
    if not close:
        d = dijkstra(steps, unweighted=True, indices=left)[:, right]
        if not np.isfinite(d).all():
            raise ParameterError("there is no path between the nodes of a pair, so that κ is not defined")
        return d
    rows = steps[left]
    two = (rows @ steps[right].T).toarray() > 0
    cost = np.where(rows[:, right].toarray() > 0, 1, np.where(two, 2, 3))
    cost[np.array(left)[:, None] == np.array(right)] = 0
    return cost


def transport(cost: Float[np.ndarray, "m n"], supply: Sequence[int], demand: Sequence[int]) -> float:
    """Least total cost of moving `supply` units from m places to n places that take `demand`; exact.

    ParameterError for units that are not whole or do not add up to the same, and costs that do not fit.
    """
    cost, a, b = np.asarray(cost), np.asarray(supply), np.asarray(demand)
    if not len(a) and not len(b):
        return 0.0
    whole = all(np.issubdtype(u.dtype, np.integer) and (u > 0).all() for u in (a, b))
    if not whole or a.sum() != b.sum() or cost.shape != (len(a), len(b)):
        raise ParameterError(
            f"whole units are needed, as many supplied as taken, with a cost for each pair, but "
            f"{a.sum()} and {b.sum()} came with costs of shape {cost.shape}"
        )
    unit = math.gcd(*a.tolist(), *b.tolist())
    a, b = a // unit, b // unit
    if a.sum() > UNITS:
        return unit * _program(cost, a, b)
    each = np.repeat(np.repeat(cost, a, axis=0), b, axis=1)
    return float(unit * each[linear_sum_assignment(each)].sum())


def _program(cost: NDArray, a: NDArray, b: NDArray) -> float:
    m, n = cost.shape
    rows = sparse.kron(sparse.eye_array(m), np.ones((1, n)))
    columns = sparse.kron(np.ones((1, m)), sparse.eye_array(n))
    limits = sparse.vstack([rows, columns]).tocsr()
    found = linprog(cost.ravel(), A_eq=limits, b_eq=np.concatenate([a, b]), method="highs-ds")
    flow = np.rint(found.x)  # corners of this polytope are whole numbers
    return float(cost.ravel() @ flow)
