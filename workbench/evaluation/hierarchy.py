"""Does an embedding look like its hierarchy: depth against radius, tree distances against distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from workbench.errors import ParameterError
from workbench.evaluation.ranking import as_points, as_tensor, mean_average_precision, rank_pairs
from workbench.manifolds import distortion

ALL_PAIRS = 2000  # nodes up to which every pair is measured when no sources are named
SOURCES = 200  # drawn for larger hierarchies


@dataclass(frozen=True)
class TreeDistortion:
    """How far embedded distances are from graph distances (up to one factor, `scale`).

    average: mean of |scale · d_embedded/d_graph − 1|.  worst: largest over smallest ratio, at least 1.
    neighbour_map: mean average precision of direct neighbours by distance, in (0, 1].
    n_sources: nodes from which distances were measured (all of them: every pair); n_pairs: pairs measured.
    """

    average: float
    worst: float
    scale: float
    neighbour_map: float
    n_sources: int
    n_pairs: int


def depth_correlation(
    points: Tensor | np.ndarray, manifold, depth: Tensor | np.ndarray, centre: int | None = None
) -> float:
    """Spearman's rank correlation, in [−1, 1], of distance from the origin and depth.

    points (N, ambient) of `manifold`, depth (N,). With `centre`, the distance is taken from that node (say
    the root) instead: an embedding is only determined up to an isometry. 0 when all distances are equal.
    Raises ParameterError when depths are of another length, or all equal.
    """
    points = as_points(points, manifold)
    depth = as_tensor(depth).cpu().numpy()
    if depth.shape != (len(points),):
        raise ParameterError(f"depth must be one number a point ({len(points)}), but came as {depth.shape}")
    if depth.min() == depth.max():
        raise ParameterError(f"depth must not be the same everywhere, but is {depth[0]}")
    if centre is not None and not 0 <= centre < len(points):
        raise ParameterError(f"centre must be a node from 0 to {len(points) - 1}, but came as {centre}")
    radius = manifold.dist0(points) if centre is None else manifold.dist(points[centre], points)
    radius = radius.cpu().numpy()
    return float(spearmanr(radius, depth).statistic) if radius.min() < radius.max() else 0.0


def tree_distortion(
    points: Tensor | np.ndarray,
    manifold,
    h,
    sources: int | np.ndarray | None = None,
    *,
    scale: float | str = "best",
    seed: int = 0,
) -> TreeDistortion:
    """Distortion of a hierarchy's graph distances, and MAP of its neighbourhoods.

    points (N, ambient) of `manifold`, one a node of h: Hierarchy. Distances are compared from `sources`
    (a count drawn with `seed`, or node indices) to all nodes; default all up to 2,000 nodes, else 200 drawn.
    Nodes without a path between them are left out. scale: "best" (compared up to size) or a factor, such as
    1/τ. neighbour_map ranks the sources' parents and children among all nodes, ties against the embedding.
    Raises ParameterError when points and nodes differ in number. Source: Sala et al. 2018, section 2.
    """
    points, n = as_points(points, manifold), len(h)
    if len(points) != n:
        raise ParameterError(f"points must be one a node ({n}), but came as {len(points)}")
    if n < 2 or len(h.edges) == 0:
        raise ParameterError("h must have at least one edge to measure, but has none")
    chosen = _choose(n, sources, seed)
    graph = torch.from_numpy(np.array(h.graph_distances(chosen)))
    # The elementwise form: the pairwise one, a matrix product, loses close pairs far out.
    embedded = torch.stack([manifold.dist(points[i], points).cpu() for i in chosen])
    other = torch.ones_like(graph, dtype=torch.bool)
    other[torch.arange(len(chosen)), torch.from_numpy(chosen)] = False
    found = distortion(embedded[other], graph[other], scale=scale)

    edges = torch.from_numpy(np.array(h.edges))
    both = torch.cat([edges, edges.flip(1)]).unique(dim=0)
    both = both[torch.isin(both[:, 1], torch.from_numpy(chosen))]
    average = (
        mean_average_precision(rank_pairs(points, manifold, both), both)[0] if len(both) else float("nan")
    )
    measured = int(torch.isfinite(graph[other]).sum())
    pairs = measured // 2 if len(chosen) == n else measured
    return TreeDistortion(found.average, found.worst, found.scale, average, len(chosen), pairs)


def _choose(n: int, sources: int | np.ndarray | None, seed: int) -> np.ndarray:
    """Node indices, ascending: those given, or as many as asked for, drawn with `seed`."""
    if sources is None:
        sources = n if n <= ALL_PAIRS else SOURCES
    if isinstance(sources, int | np.integer):
        if sources < 1:
            raise ParameterError(f"sources must be a positive count or node indices, but came as {sources}")
        return np.sort(np.random.default_rng(seed).permutation(n)[:sources])
    chosen = np.unique(np.asarray(sources))
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= n:
        raise ParameterError(f"sources must be nodes from 0 to {n - 1}, at least one")
    return chosen.astype(np.int64)
