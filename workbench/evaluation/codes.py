"""What codes say about a hierarchy: do items that share a prefix share an ancestor, and how specific is a code.

Codes are (N, L) whole numbers, arrays or tensors, row i naming node i of the hierarchy (a hierarchy may have further
nodes after those N, such as categories above items). Lowest common ancestors (LCA) and tree distances are those of
`Hierarchy.spanning_tree()`; nodes under different roots have LCA depth −1, as if all roots hung from one node more.
How much of each codebook is used, and uniqueness, are in `workbench.models.codes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from workbench.data import Hierarchy
from workbench.errors import DataError, ParameterError
from workbench.evaluation.ranking import as_points
from workbench.models.codes import code_stats, uniqueness
from workbench.models.residual_quantizer import ORDERS, compose, residual

Ints = NDArray[np.int64]
PAIRS = 60_000  # measured where there are more


# -- the tree ---------------------------------------------------------------------------------------------
def tree_paths(h: Hierarchy) -> Ints:
    """(N, D + 1) the ancestor of each node at depth 0, 1, …, D of the spanning tree, itself at its own; then −1."""
    parent, depth = h.spanning_tree(), h.depth
    paths = np.full((len(h), int(depth.max()) + 1), -1, dtype=np.int64)
    for d in range(paths.shape[1]):
        nodes = np.flatnonzero(depth == d)
        if d:
            paths[nodes] = paths[parent[nodes]]
        paths[nodes, d] = nodes
    return paths


def lca_depth(paths: Ints, a: Ints, b: Ints) -> Ints:
    """Depth of the lowest common ancestor of nodes a[i] and b[i]; −1 where there is none. paths: `tree_paths`."""
    same = (paths[a] == paths[b]) & (paths[a] >= 0)
    return same.sum(-1) - 1


def tree_distance(paths: Ints, a: Ints, b: Ints) -> Ints:
    """Number of edges from a[i] to b[i] in the spanning tree. paths: `tree_paths`."""
    depth = (paths >= 0).sum(-1) - 1
    return depth[a] + depth[b] - 2 * lca_depth(paths, a, b)


def common_ancestor(h: Hierarchy, nodes: Sequence[int]) -> int | None:
    """The lowest node above all of these (one of them, if it is above the others); None under several roots.

    Raises DataError for no nodes at all, or an unknown one.
    """
    index = [h.index(node) for node in nodes]
    if not index:
        raise DataError("a common ancestor needs at least one node, got none")
    return _common(tree_paths(h), np.array(index))


def _common(paths: Ints, nodes: Ints, share: float = 1.0) -> int | None:
    """The lowest node at or above `share` of these; above one half there is at most one at each depth."""
    if len(nodes) == 1:
        return int(nodes[0])
    found, rows = None, paths[nodes]
    for at in rows.T:
        known, count = np.unique(at[at >= 0], return_counts=True)
        if not len(known) or count.max() < share * len(nodes):
            break
        found = int(known[count.argmax()])
    return found


# -- members ----------------------------------------------------------------------------------------------
def members(codes: Tensor | Ints, prefix: Sequence[int]) -> Ints:
    """Rows whose codes start with `prefix`, ascending; all of them for an empty one."""
    codes = _checked(codes)
    if len(prefix) > codes.shape[1]:
        raise DataError(f"codes have {codes.shape[1]} levels, the prefix {tuple(prefix)} has {len(prefix)}")
    return np.flatnonzero((codes[:, : len(prefix)] == np.asarray(prefix, dtype=np.int64)).all(1))


def prefix_ancestors(
    h: Hierarchy, codes: Tensor | Ints, levels: int | None = None, share: float = 1.0
) -> dict[tuple[int, ...], int]:
    """The lowest common ancestor of the members of every prefix of 1 to `levels` (default all) codes that occurs.

    share: above 0.5; the lowest node at or above that share of the members, so that a few stray ones do not make
    every name the root's. Prefixes whose members have no such node are left out.
    """
    if not 0.5 < share <= 1:
        raise ParameterError(f"share must be above 0.5 and at most 1, but came as {share!r}")
    codes, paths = _checked(codes, h), tree_paths(h)
    found = {}
    for level in range(1, (levels or codes.shape[1]) + 1):
        names, group = np.unique(codes[:, :level], axis=0, return_inverse=True)
        rows = np.argsort(group.ravel(), kind="stable")
        for name, some in zip(names, np.split(rows, np.cumsum(np.bincount(group.ravel()))[:-1]), strict=True):
            if (top := _common(paths, some, share)) is not None:
                found[tuple(name.tolist())] = top
    return found


# -- codes alone ------------------------------------------------------------------------------------------
def largest_collision(codes: Tensor | Ints) -> int:
    """Number of rows that share the most frequent tuple; 1 where all are unique."""
    return int(np.unique(_checked(codes), axis=0, return_counts=True)[1].max())


def conditional_entropy(codes: Tensor | Ints) -> list[float]:
    """H(code of level l | codes before it) for each level, in nats: what the level adds."""
    entropy = [_entropy(np.bincount(ids)) for ids in _prefix_ids(_checked(codes)).T]
    return np.diff(entropy).tolist()


def shared_prefix(codes: Tensor | Ints, a: Ints, b: Ints) -> Ints:
    """Number of leading codes that rows a[i] and b[i] share."""
    codes = _checked(codes)
    return np.cumprod(codes[a] == codes[b], axis=1).sum(1)


# -- codes against the tree -------------------------------------------------------------------------------
class PrefixTree(NamedTuple):
    """Spearman's correlation of the shared prefix length of pairs with LCA depth, and with −tree distance."""

    lca: float
    distance: float
    pairs: int


def prefix_correlation(codes: Tensor | Ints, h: Hierarchy, pairs: int = PAIRS, seed: int = 0) -> PrefixTree:
    """Do pairs with a longer common prefix meet deeper in the tree? Over all pairs, or `pairs` drawn with `seed`.

    0 where all pairs share equally much. DataError for fewer than two rows, or more than nodes.
    """
    codes, paths = _checked(codes, h), tree_paths(h)
    a, b = draw_pairs(len(codes), pairs, seed)
    shared = shared_prefix(codes, a, b)
    return PrefixTree(
        _spearman(shared, lca_depth(paths, a, b)), _spearman(shared, -tree_distance(paths, a, b)), len(a)
    )


class PrefixDepth(NamedTuple):
    """By number of codes shared, exactly 0 … L: mean LCA depth (NaN where no pair does), and pairs.

    random: mean LCA depth of all pairs. lift: mean LCA depth of pairs that share at least 1 … L codes over `random`,
    depths counted from 1 at a root, so that the ratio means something.
    """

    depth: list[float]
    pairs: list[int]
    random: float
    lift: list[float]


def lca_by_prefix(codes: Tensor | Ints, h: Hierarchy) -> PrefixDepth:
    """How deep pairs meet that share a prefix; exact over all pairs, without listing any.

    A pair meets at or below depth d where both have one ancestor at depth d, so sums of LCA depths are sums over
    groups of their numbers of pairs: (LCA depth + 1) summed = Σ_d Σ_(prefix, ancestor at d) C(members, 2).
    """
    codes, paths = _checked(codes, h), tree_paths(h)
    paths = paths[: len(codes)]
    count, total = [], []
    for ids in _prefix_ids(codes).T:
        count.append(_pairs_within(ids))
        total.append(sum(_pairs_within(ids[on], at[on]) for at in paths.T if (on := at >= 0).any()))
    exact = -np.diff([*count, 0]), -np.diff([*total, 0])
    mean = [float(t / n - 1) if n else float("nan") for n, t in zip(*exact, strict=True)]
    lift = [
        (t / n) / (total[0] / count[0]) if n and total[0] else float("nan")
        for n, t in zip(count[1:], total[1:], strict=True)
    ]
    random = total[0] / count[0] - 1 if count[0] else float("nan")
    return PrefixDepth(mean, [int(n) for n in exact[0]], random, lift)


class Agreement(NamedTuple):
    """Of codes with subtrees: purity and normalised mutual information (arithmetic mean), each also for codes dealt
    out at random (`shuffled_*`: the score that many small clusters get for nothing), over n nodes."""

    purity: float
    nmi: float
    shuffled_purity: float
    shuffled_nmi: float
    n: int


def subtree_agreement(
    codes: Tensor | Ints, h: Hierarchy, level: int, depth: int | None = None, seed: int = 0
) -> Agreement:
    """The clusters of the first `level` codes against the subtrees rooted at `depth` (default `level`).

    Nodes above that depth are in no subtree and left out. ParameterError for a level or depth that does not exist.
    """
    codes, paths, depth = _checked(codes, h), tree_paths(h), level if depth is None else depth
    for name, value, low, top in (
        ("level", level, 1, codes.shape[1]),
        ("depth", depth, 0, paths.shape[1] - 1),
    ):
        if not low <= value <= top:
            raise ParameterError(f"{name} must be from {low} to {top}, but came as {value!r}")
    subtree = paths[: len(codes), depth]
    kept = subtree >= 0
    cluster, subtree = _prefix_ids(codes)[kept, level], subtree[kept]
    if not len(cluster):
        raise DataError(f"none of the {len(codes)} rows is at depth {depth} or below")
    shuffled = np.random.default_rng(seed).permutation(cluster)
    purity, nmi = zip(purity_nmi(cluster, subtree), purity_nmi(shuffled, subtree), strict=True)
    return Agreement(purity[0], nmi[0], purity[1], nmi[1], len(cluster))


def purity_nmi(cluster: Ints, truth: Ints) -> tuple[float, float]:
    """Share of items that are in their cluster's most frequent class, and 2 I(cluster; class) / (H + H).

    NMI is 1 where there is one cluster and one class. Source: Manning, Raghavan, Schütze 2008, section 16.3.
    """
    _, cluster = np.unique(cluster, return_inverse=True)
    _, truth = np.unique(truth, return_inverse=True)
    cells, count = np.unique(cluster * (truth.max() + 1) + truth, return_counts=True)
    best = np.zeros(cluster.max() + 1, dtype=np.int64)
    np.maximum.at(best, cells // (truth.max() + 1), count)
    h_cluster, h_truth, h_both = (_entropy(n) for n in (np.bincount(cluster), np.bincount(truth), count))
    nmi = 2 * (h_cluster + h_truth - h_both) / (h_cluster + h_truth) if h_cluster + h_truth > 0 else 1.0
    return float(best.sum() / len(cluster)), float(np.clip(nmi, 0, 1))


# -- points against the tree ------------------------------------------------------------------------------
def distance_correlation(
    points: Tensor | np.ndarray, manifold, h: Hierarchy, pairs: int = PAIRS, seed: int = 0
) -> float:
    """Spearman's correlation of distance between points (say, decoded ones) and tree distance, over pairs of rows."""
    points = as_points(points, manifold)
    _fits(len(points), h)
    a, b = draw_pairs(len(points), pairs, seed)
    found = manifold.dist(points[a], points[b]).detach().cpu().numpy()
    return _spearman(found, tree_distance(tree_paths(h), a, b))


class Generality(NamedTuple):
    """A prefix that occurs, each: its codes, distance of its point from the origin, mean depth of members, members;
    and Spearman's correlation of radius and depth."""

    prefixes: Ints
    radius: np.ndarray
    depth: np.ndarray
    size: Ints
    correlation: float


def generality(quantizer, codes: Tensor | Ints, h: Hierarchy, level: int = 1) -> Generality:
    """Are codes near the origin general? Radius of the decoded prefixes of `level` codes against mean depth."""
    codes = _checked(codes, h)
    prefixes, group = np.unique(codes[:, :level], axis=0, return_inverse=True)
    size = np.bincount(group.ravel())
    depth = np.bincount(group.ravel(), weights=h.depth[: len(codes)]) / size
    device = quantizer.codebooks[0].device
    points = quantizer.decode(torch.from_numpy(prefixes).to(device))
    radius = quantizer.manifold.dist0(points).cpu().numpy()
    return Generality(prefixes, radius, depth, size, _spearman(radius, depth))


def decoding_chain(quantizer, x: Tensor, order: str | None = None) -> Tensor:
    """What decoding gives level by level, and with the last residual added: (..., levels + 1, ambient), float64.

    The codebooks are those of the quantiser; residuals and composition are by `order` (default its own), so that the
    exact and the inexact orders can be compared on the same codes' meaning. The last point of an exact order is x.
    Raises ParameterError for an unknown order.
    """
    order = quantizer.order if order is None else order
    if order not in ORDERS:
        raise ParameterError(f"order must be one of {', '.join(ORDERS)}, but came as {order!r}")
    manifold, r, parts = quantizer.manifold, x.detach().to(quantizer.codebooks[0]), []
    with torch.no_grad():
        for book in quantizer.codebooks:
            flat = r.reshape(-1, r.shape[-1])
            index = quantizer.metric.cdist(flat, book).argmin(-1)
            q = book[index].reshape(r.shape)
            parts.append(q)
            r = manifold.projx(residual(manifold, order, r, q))
        parts.append(r)
        chain = [compose(manifold, order, parts[: j + 1]) for j in range(len(parts))]
        return torch.stack([manifold.projx(point) for point in chain], -2)


# -- all of it --------------------------------------------------------------------------------------------
def code_report(quantizer, points: Tensor, h: Hierarchy, pairs: int = PAIRS, seed: int = 0) -> dict:
    """Every number of this module about a quantiser and the points of a hierarchy's nodes, JSON-able.

    Lists have an entry a level (`lca_depth` from 0 shared codes on, `radii` from the points themselves on).
    """
    codes = quantizer.encode(points)
    # Sums of coordinates (order "euclid_arith") may have left the ball.
    decoded = quantizer.manifold.projx(quantizer.decode(codes))
    stats = code_stats(codes, quantizer.sizes)
    prefix, depths = prefix_correlation(codes, h, pairs, seed), lca_by_prefix(codes, h)
    levels = range(1, min(quantizer.levels, int(h.depth.max())) + 1)
    agree = [subtree_agreement(codes, h, level, seed=seed) for level in levels]
    return {
        "uniqueness": uniqueness(codes),
        "largest_collision": largest_collision(codes),
        "utilisation": stats.utilisation,
        "perplexity": stats.perplexity,
        "conditional_entropy": conditional_entropy(codes),
        "error": float(quantizer.manifold.dist(decoded, points.to(decoded)).mean()),
        "radii": quantizer.radii(points).mean(0).tolist(),
        "rank_correlation": distance_correlation(decoded, quantizer.manifold, h, pairs, seed),
        "prefix_lca": prefix.lca,
        "prefix_distance": prefix.distance,
        "lca_depth": depths.depth,
        "lca_depth_random": depths.random,
        "lca_lift": depths.lift,
        "purity": [a.purity for a in agree],
        "purity_shuffled": [a.shuffled_purity for a in agree],
        "nmi": [a.nmi for a in agree],
        "nmi_shuffled": [a.shuffled_nmi for a in agree],
        "radius_depth": generality(quantizer, codes, h).correlation,
    }


def draw_pairs(n: int, pairs: int = PAIRS, seed: int = 0) -> tuple[Ints, Ints]:
    """All pairs a < b of n rows if there are no more than `pairs`, else that many drawn, repeats possible."""
    if n < 2 or pairs < 1:
        raise DataError(f"pairs need two rows or more and a positive number of them, got {n} and {pairs}")
    if n * (n - 1) // 2 <= pairs:
        return np.triu_indices(n, 1)
    rng = np.random.default_rng(seed)
    a, step = rng.integers(n, size=pairs), rng.integers(1, n, size=pairs)
    return a, (a + step) % n


def _checked(codes: Tensor | Ints, h: Hierarchy | None = None) -> Ints:
    array = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if array.ndim != 2 or array.dtype.kind not in "iu" or 0 in array.shape:
        raise DataError(
            f"codes must be whole numbers of shape (N, levels), got {array.dtype} of shape {array.shape}"
        )
    if array.min() < 0:
        raise DataError(f"codes must not be below 0, got {array.min()}")
    if h is not None:
        _fits(len(array), h)
    return array.astype(np.int64, copy=False)


def _fits(rows: int, h: Hierarchy) -> None:
    if rows > len(h):
        raise DataError(
            f"each row belongs to one node, but there are {rows:,} rows and the hierarchy has {len(h):,} nodes"
        )


def _prefix_ids(codes: Ints) -> Ints:
    """(N, L + 1): which group of equal first 0, 1, …, L codes a row is in."""
    ids = [np.zeros(len(codes), dtype=np.int64)]
    for level in codes.T:
        ids.append(np.unique(ids[-1] * (level.max() + 1) + level, return_inverse=True)[1])
    return np.stack(ids, 1)


def _pairs_within(ids: Ints, other: Ints | None = None) -> int:
    """Number of pairs of rows that agree in `ids` (and `other`)."""
    keys = ids if other is None else ids * (int(other.max()) + 1) + other
    count = np.unique(keys, return_counts=True)[1]
    return int((count * (count - 1) // 2).sum())


def _entropy(count: Ints) -> float:
    p = count[count > 0] / count.sum()
    return float(-(p * np.log(p)).sum())


def _spearman(x, y) -> float:
    x, y = np.asarray(x), np.asarray(y)
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return 0.0
    return float(spearmanr(x, y).statistic)
