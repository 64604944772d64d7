"""Sarkar's construction: a tree in hyperbolic space in seconds, without training.

Each node is carried to the origin, its children are set at distance τ in directions well apart from each
other and from the parent, and all is carried back. With growing τ every graph distance is met within a
factor of 1 + O(1/τ).

Numerics: a node is kept as radius r, unit direction u, and the unit direction f in which the edge from its
parent arrives, all in the frame carried radially from the origin; a child is one Lorentz boost away, written
with e^{±r} so that nothing cancels. Coordinates come near the rim only in the last step, the chart's.

Sources: Sarkar 2011, Low distortion Delaunay embedding of trees in hyperbolic plane; Sala, De Sa, Gu, Ré
2018, Representation tradeoffs for hyperbolic embeddings, section 3 (any dimension).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ParameterError
from workbench.manifolds import PoincareBall

MAX_RADIUS = (
    30.0  # in curvature −1; beyond it the rounding of a float64 direction is felt: e^30 · 1e-16 = 1e-3
)


def sarkar(
    h,
    dim: int = 2,
    tau: float | None = None,
    *,
    manifold=None,
    lengths: str = "equal",
    weighted: bool = True,
    seed: int = 0,
) -> Tensor:
    """Embed the spanning tree of a hierarchy combinatorially: float64 points (N, ambient) of `manifold`.

    h: Hierarchy; of a DAG the tree `h.spanning_tree()`; several roots hang from a virtual root at the origin.
    dim: at least 2.  tau: (mean) length of an edge in the manifold's distance; None takes about the longest
    that keeps every node within radius 30/√c, where float64 ends.  manifold: PoincareBall() or a Lorentz.
    lengths: "equal" keeps graph distances (Sarkar's).  "size" makes the edge from p to v as long as
    0.05 + log(size(p)/size(v)), sizes counting the nodes of a subtree: large ones stay near the origin, and
    leaves go out, so that ancestors are closer than siblings: the better start for closure objectives.
    weighted: in the plane, children get angles in proportion to their leaf counts ("size") or the square root
    of them ("equal"), not equal ones.  seed: turns the spherical codes of dim > 2; the plane draws nothing.

    Raises ParameterError on a wrong h, dim, tau, lengths or manifold, or a tau that leaves the radius above.
    """
    manifold = PoincareBall() if manifold is None else manifold
    root_c = float(manifold.c) ** 0.5
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 2:
        raise ParameterError(f"dim must be an integer of at least 2, but came as {dim!r}")
    if root_c <= 0:
        raise ParameterError("sarkar needs a curved manifold (c > 0), but came with flat space")
    if lengths not in ("equal", "size"):
        raise ParameterError(f"lengths must be 'equal' or 'size', but came as {lengths!r}")
    if not hasattr(h, "spanning_tree"):
        raise ParameterError(f"h must be a Hierarchy, but came as {type(h).__name__}")
    tree = _Tree(np.asarray(h.spanning_tree(), dtype=np.int64))
    edge = tree.edge_lengths(lengths)
    directions = (
        _fan(tree, weighted * (1.0 if lengths == "size" else 0.5)) if dim == 2 else _codes(tree, dim, seed)
    )
    if tau is None:
        radius, unit = _fill(tree, edge, directions)
    elif not np.isfinite(tau) or tau <= 0:
        raise ParameterError(f"tau must be a positive length, but came as {tau!r}")
    else:
        radius, unit = _grow(tree, float(tau) * root_c * edge, directions)
        top = radius.max(initial=0.0)
        if not top <= MAX_RADIUS:
            raise ParameterError(
                f"tau must keep every node within radius {MAX_RADIUS / root_c:.3g}, where float64 ends, but "
                f"{tau:.4g} puts one at {top / root_c:.3g}; {tau * MAX_RADIUS / top:.3g} would do"
            )
    return manifold.from_tangent(torch.from_numpy(radius[:, None] / root_c * unit))


class _Tree:
    """A rooted tree over the nodes of a hierarchy, and a virtual root (the last index) if it has several."""

    def __init__(self, parent: np.ndarray):
        roots = np.flatnonzero(parent < 0)
        if len(roots) == 0:
            raise ParameterError("h must have at least one node without a parent, but has none")
        self.n = len(parent)
        if len(roots) > 1:
            parent = np.append(np.where(parent < 0, self.n, parent), -1)
        self.parent = parent
        self.root = int(np.flatnonzero(parent < 0)[0])
        # The children of a node are a slice of one list; levels are found by following the slices down.
        self.children = np.argsort(parent, kind="stable")[1:]
        self.degree = np.bincount(parent[self.children], minlength=len(parent))
        self.start = np.cumsum(self.degree) - self.degree
        self.levels = [np.array([self.root])]
        while len(inner := self.levels[-1][self.degree[self.levels[-1]] > 0]):
            count = self.degree[inner]
            place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            self.levels.append(self.children[np.repeat(self.start[inner], count) + place])
        if sum(map(len, self.levels)) != len(parent):
            raise ParameterError("h.spanning_tree() must be a tree, but some nodes hang from no root")

    def gather(self, leaf: float, inner: float) -> np.ndarray:
        """Per node: `leaf` if it has no child, else `inner` + the sum over its children."""
        total = np.where(self.degree == 0, leaf, inner).astype(np.float64)
        for level in reversed(self.levels[1:]):
            np.add.at(total, self.parent[level], total[level])
        return total

    def edge_lengths(self, kind: str) -> np.ndarray:
        """Length of the edge above each node, mean 1 (the root's is not used)."""
        edge = np.ones(len(self.parent))
        if kind == "size" and len(self.children):
            size = self.gather(leaf=1, inner=1)
            edge[self.children] = 0.05 + np.log(size[self.parent[self.children]] / size[self.children])
            edge /= edge[self.children].mean()
        return edge

    def longest_path(self, edge: np.ndarray) -> float:
        total = np.zeros(len(self.parent))
        for level in self.levels[1:]:
            total[level] = total[self.parent[level]] + edge[level]
        return float(total.max())


def _fan(tree: _Tree, power: float) -> np.ndarray:
    """Unit direction (N, 2) of each node seen from its parent, whose own parent lies behind, at (−1, 0).

    The parent keeps the share of one mean child; its children split the rest of the circle by leaf count to
    `power`, each in the middle of its share. The root's children split the whole circle.
    """
    weight = tree.gather(leaf=1, inner=0) ** power
    node, parent = tree.children, tree.parent[tree.children]
    passed = np.concatenate([[0.0], np.cumsum(weight[node])])
    middle = passed[:-1] + weight[node] / 2 - passed[tree.start[parent]]
    total = np.bincount(parent, weights=weight[node], minlength=len(tree.parent))
    share = tree.degree / (tree.degree + 1.0)
    share[tree.root] = 1.0
    angle = np.zeros(len(tree.parent))
    angle[node] = 2 * np.pi * share[parent] * (middle / total[parent] - 0.5)
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _codes(tree: _Tree, dim: int, seed: int) -> np.ndarray:
    """As `_fan`, in dim > 2: children and parent of a node, the parent at −e1, share a spherical code."""
    e1 = np.eye(dim)[:1]
    direction = np.zeros((len(tree.parent), dim))
    for degree in np.unique(tree.degree[tree.degree > 0]):
        code = spherical_code(int(degree) + 1, dim)
        family = tree.children[tree.start[tree.degree == degree][:, None] + np.arange(degree)]
        direction[family] = _carry(code[1:], code[:1], -e1)
    if len(tree.levels) > 1:
        direction[tree.levels[1]] = spherical_code(len(tree.levels[1]), dim)
    # A random mirror through e1 for each family, else small ones would all spread in the same few dimensions.
    normal = np.random.default_rng(seed).standard_normal((len(tree.parent), dim))
    normal[:, 0] = 0.0
    normal = _unit(normal)[tree.parent[tree.children]]
    spread = direction[tree.children]
    direction[tree.children] = spread - 2 * _dot(spread, normal) * normal
    return direction


@lru_cache(maxsize=1024)
def spherical_code(m: int, dim: int) -> np.ndarray:
    """m unit vectors well apart, float64 (m, dim), the same at every call.

    A regular simplex up to dim + 1 vectors, half axes up to 2·dim (both the best possible), beyond that a
    farthest-point choice from random candidates, relaxed by mutual repulsion.
    """
    if m <= dim + 1:
        corners = np.eye(m) - 1 / m
        code = _unit(corners @ np.linalg.qr(corners[:, : m - 1])[0]) if m > 1 else np.ones((1, 1))
        return np.pad(code, [(0, 0), (0, dim - code.shape[1])])
    if m <= 2 * dim:
        return np.concatenate([np.eye(dim), -np.eye(dim)])[:m]
    pool = _unit(np.random.default_rng(m).standard_normal((1024 + 8 * m, dim)))
    chosen, nearest = [0], pool @ pool[0]
    while len(chosen) < m:
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, pool @ pool[chosen[-1]])
    code = pool[chosen]
    for step in np.linspace(0.5, 0.0, 30, endpoint=False):
        cosine = code @ code.T
        np.fill_diagonal(cosine, -1.0)
        closest = cosine.max(1)
        force = -np.exp((cosine - closest.max()) * 8 / (1 - np.median(closest))) @ code
        force -= _dot(force, code) * code
        strongest = np.linalg.norm(force, axis=1).max()
        code = _unit(code + step * np.arccos(closest.max()) * force / max(strongest, 1e-300))
    return code


def _grow(tree: _Tree, edge: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radius (N,) and unit direction (N, dim) of each node in curvature −1, level by level from the root.

    In the frame of a node at radius r in direction u a child lies at distance τ in direction g, at an angle φ
    from u, with w = g − u cos φ. Seen from the origin its spatial part is
    (sinh r cosh τ + cosh r sinh τ cos φ) u + sinh τ w. The edge arrives at radius R with radial speed
    (cosh r sinh τ + sinh r cosh τ cos φ)/sinh R and, by Clairaut, transverse speed sinh r sin φ/sinh R.
    """
    e1 = np.eye(direction.shape[1])[:1]
    radius = np.zeros((len(tree.parent), 1))
    unit, forward = (np.repeat(e1, len(tree.parent), axis=0) for _ in range(2))
    for level in tree.levels[1:]:
        parent = tree.parent[level]
        r, u, tau = radius[parent], unit[parent], edge[level, None]
        g = _carry(direction[level], e1, forward[parent])
        # 1 ± cos φ = |g ± u|²/2; with them no difference of large numbers is taken.
        plus, minus = (_dot(v, v) / 2 for v in (g + u, g - u))
        shrunk, sinh, cosh = np.exp(-tau), np.sinh(tau), np.cosh(tau)
        grow, decay = np.exp(r) / 2, np.exp(-r) / 2
        along = grow * (shrunk + sinh * plus) - decay * (shrunk + sinh * minus)
        speed = grow * (cosh * plus - shrunk) + decay * (cosh * minus - shrunk)
        w = g - _dot(g, u) * u
        position = along * u + sinh * w
        size = np.linalg.norm(position, axis=1, keepdims=True)
        radius[level], unit[level] = np.arcsinh(size), _unit(position)
        # w, turned by the rotation that takes u to the child's direction
        turned = (along * w - sinh * _dot(w, w) * u) / np.maximum(size, 1e-300)
        forward[level] = _unit(speed * unit[level] + np.sinh(r) * turned)
    return radius[: tree.n, 0], unit[: tree.n]


def _fill(tree: _Tree, edge: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`_grow` with `edge` scaled so that the farthest node comes close to MAX_RADIUS, and not past it."""
    longest = tree.longest_path(edge)
    if longest == 0:
        return _grow(tree, edge, direction)
    scale = MAX_RADIUS / longest  # safe: no path leads farther than its length
    best = _grow(tree, scale * edge, direction)
    for _ in range(3):
        missing = MAX_RADIUS - best[0].max()
        if missing < 0.02 * MAX_RADIUS:
            break
        # Bends cost a length that depends little on the scale, so the radius grows by `longest` a unit of it.
        scale += 0.8 * missing / longest
        trial = _grow(tree, scale * edge, direction)
        if trial[0].max() > MAX_RADIUS:
            break
        best = trial
    return best


def _carry(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x (M, d) by an orthogonal map that takes the unit vectors a to b (one a row, or one for all)."""
    far = _dot(a, b) < 0  # mirror through a − b, or through a + b with a change of sign: whichever is longer
    v = np.where(far, a - b, a + b)
    mirrored = x - 2 * _dot(x, v) / _dot(v, v) * v
    return np.where(far, mirrored, -mirrored)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1, keepdims=True)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)
