"""How tree-like a metric is, and how well an embedding keeps one.

δ-hyperbolicity compares the three ways to pair up four points: with the sums of opposite distances sorted,
S1 >= S2 >= S3, δ = max (S1 - S2)/2 over quadruples (Gromov 1987); 0 for trees, and 2δ/diameter <= 1 in
general.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ManifoldError, suggest

METHODS = ("exact", "base_point", "sampled")


@dataclass(frozen=True)
class DeltaHyperbolicity:
    """Result of `delta_hyperbolicity`.

    delta: the largest (S1 - S2)/2 found; mean: its mean over the sampled quadruples (else None); diameter:
    the largest distance seen; relative: 2·delta/diameter, 0 for a tree; null: the same estimator on a
    Gaussian cloud of as many points and dimensions, or None.
    """

    delta: float
    mean: float | None
    diameter: float
    relative: float
    method: str
    n: int
    null: DeltaHyperbolicity | None = None


@dataclass(frozen=True)
class Distortion:
    """Result of `distortion`.

    average: mean of |scale·d_embedding/d_graph - 1|; worst: largest ratio over smallest ratio (1 is
    isometric up to scale, independent of scale); expansion, contraction: the largest ratio and the largest
    inverse ratio, scaled; scale: the factor the embedding's distances were multiplied by.
    """

    average: float
    worst: float
    expansion: float
    contraction: float
    scale: float


def delta_hyperbolicity(
    points: Tensor | np.ndarray,
    manifold=None,
    *,
    method: str = "sampled",
    samples: int = 100_000,
    base: int = 0,
    null: bool = False,
    dim: int | None = None,
    seed: int = 0,
) -> DeltaHyperbolicity:
    """Gromov δ-hyperbolicity of points on a manifold, or of a distance matrix (manifold=None).

    Args:
        points: (n, k) coordinates on `manifold`, or an (n, n) symmetric matrix of distances.
        method: one of
            "exact": the four-point maximum over all quadruples, far pairs first, cut off as soon as no
            better is possible (Cohen, Coudert, Lancin 2015); O(n²) memory, O(n⁴) time at worst, n up to a
            few hundred. "base_point": the maximum over quadruples that contain point `base`, by the max-min
            product of Gromov products (Fournier, Ismail, Vigneron 2015); O(n²) memory, O(n³) time; at most
            δ, at least δ/2. "sampled": `samples` random quadruples; at most δ; no n×n matrix, any n.
        null: also measure a Gaussian cloud of n points in `dim` Euclidean dimensions (default: the
            manifold's own), the value that no structure at all would give.

    Raises:
        ManifoldError: unknown method, fewer than four points, or not a finite distance matrix.
    """
    if method not in METHODS:
        raise ManifoldError(
            f"unknown method {method!r}, expected one of {', '.join(METHODS)}{suggest(method, METHODS)}"
        )
    points = torch.as_tensor(points)
    if points.ndim != 2 or len(points) < 4:
        raise ManifoldError(
            f"delta_hyperbolicity needs at least four points as a matrix, got {tuple(points.shape)}"
        )
    if manifold is None:
        _check_distances(points)
    else:
        manifold.check(points, "points")
    n = len(points)
    with torch.no_grad():
        points = points.detach().to(torch.float64)
        if method == "sampled":
            delta, mean, diameter = _sampled(points, manifold, samples, seed)
        else:
            distances = points if manifold is None else manifold.cdist(points, points, exact=True)
            delta = _all_quadruples(distances) if method == "exact" else _base_point(distances, base)
            mean, diameter = None, float(distances.max())
    cloud = None
    if null:
        cloud = _null_model(points, manifold, dim, method=method, samples=samples, base=base, seed=seed)
    return DeltaHyperbolicity(
        delta, mean, diameter, 2 * delta / diameter if diameter else 0.0, method, n, cloud
    )


def distortion(d_embedding: Tensor, d_graph: Tensor, *, scale: float | str = "best") -> Distortion:
    """Average and worst-case distortion of embedded against true distances of the same pairs.

    Args:
        d_embedding, d_graph: equal shapes: square symmetric matrices (their upper triangles are read) or
            lists of pairs. Pairs with d_graph = 0 are refused, infinite ones (disconnected) left out.
        scale: "best" multiplies d_embedding by the factor that minimises the average (the median of
            d_graph/d_embedding weighted by d_embedding/d_graph); a number is used as it is, 1.0 for none.

    Raises:
        ManifoldError: shapes differ, a distance between different nodes is 0, or no pair is left.
    """
    e = torch.as_tensor(d_embedding).detach().to(torch.float64)
    g = torch.as_tensor(d_graph).detach().to(e.device, torch.float64)
    if e.shape != g.shape:
        raise ManifoldError(
            f"distances must be of the same pairs, got shapes {tuple(e.shape)} and {tuple(g.shape)}"
        )
    if e.ndim == 2 and e.shape[0] == e.shape[1]:
        upper = torch.triu_indices(*e.shape, 1, device=e.device).unbind()
        e, g = e[upper], g[upper]
    e, g = e[torch.isfinite(g)], g[torch.isfinite(g)]
    if not len(g):
        raise ManifoldError("distortion needs at least one pair at a finite distance, got none")
    if not bool((g > 0).all()):
        raise ManifoldError("distortion needs positive distances between different nodes, got 0 or less")
    if not bool(torch.isfinite(e).all()):
        raise ManifoldError("embedded distances must be finite, got NaN or infinity")
    ratio = e / g
    if scale == "best":
        positive = ratio[ratio > 0].sort(descending=True).values  # by 1/ratio, ascending
        if not len(positive):
            raise ManifoldError("all embedded distances are 0, so that no scale is best")
        half = torch.searchsorted(positive.cumsum(0), positive.sum() / 2).clamp_max(len(positive) - 1)
        factor = float(1 / positive[half])
    else:
        factor = float(scale)
    low, high = float(ratio.min()) * factor, float(ratio.max()) * factor
    inverse = 1 / low if low > 0 else float("inf")
    return Distortion(float((ratio * factor - 1).abs().mean()), high * inverse, high, inverse, factor)


def _check_distances(d: Tensor) -> None:
    if d.shape[0] != d.shape[1]:
        raise ManifoldError(
            f"a distance matrix must be square, got {tuple(d.shape)}; pass manifold= for coordinates"
        )
    d = d.to(torch.float64)
    if not bool(torch.isfinite(d).all()) or bool((d < 0).any()):
        raise ManifoldError("a distance matrix must be finite and not negative (take a connected component)")
    slack = 1e-6 * float(d.max())
    if float((d - d.T).abs().max()) > slack or float(d.diagonal().abs().max()) > slack:
        raise ManifoldError("a distance matrix must be symmetric with zeros on its diagonal")


def _sampled(points: Tensor, manifold, samples: int, seed: int) -> tuple[float, float, float]:
    rng = torch.Generator().manual_seed(seed)
    best = total = diameter = 0.0
    count = 0
    for start in range(0, samples, 1 << 16):
        size = min(1 << 16, samples - start)
        q = torch.randint(len(points), (4, size), generator=rng)
        a, b, c, d = q[:, (q.sort(0).values.diff(dim=0) > 0).all(0)].to(points.device)

        def between(i: Tensor, j: Tensor) -> Tensor:
            return points[i, j] if manifold is None else manifold.dist(points[i], points[j])

        pairs = torch.stack([between(*p) for p in ((a, b), (c, d), (a, c), (b, d), (a, d), (b, c))])
        sums = pairs.reshape(3, 2, -1).sum(1).sort(0).values
        delta = (sums[2] - sums[1]) / 2
        if delta.numel():
            best, diameter = max(best, float(delta.max())), max(diameter, float(pairs.max()))
            total, count = total + float(delta.sum()), count + delta.numel()
    return best, total / max(count, 1), diameter


def _all_quadruples(d: Tensor) -> float:
    """The exact maximum over (a,b), (c,d) with S1 = d(a,b) + d(c,d); far pairs come first."""
    i, j = torch.triu_indices(*d.shape, 1, device=d.device)
    far, order = d[i, j].sort(descending=True)
    i, j = i[order], j[order]
    reach = far.tolist()
    best = 0.0
    for k in range(1, len(reach)):
        # by the triangle inequality S2 >= max(d(a,b), d(c,d)), so that (S1 - S2)/2 <= min(d(a,b), d(c,d))/2
        if reach[k] / 2 <= best:
            break
        a, b, c, e = i[k], j[k], i[:k], j[:k]
        other = torch.maximum(d[a, c] + d[b, e], d[a, e] + d[b, c])
        best = max(best, float((reach[k] + far[:k] - other).max()) / 2)
    return best


def _base_point(d: Tensor, base: int) -> float:
    """max over x, y of (max over z of min((x|z), (z|y))) - (x|y), Gromov products at the base point."""
    product = (d[base, :, None] + d[base, None, :] - d) / 2
    best = torch.full_like(product, -torch.inf)
    for z in range(len(d)):
        best = torch.maximum(best, torch.minimum(product[:, z, None], product[None, z, :]))
    return float((best - product).max())


def _null_model(points: Tensor, manifold, dim: int | None, **options) -> DeltaHyperbolicity:
    from workbench.manifolds.euclidean import Euclidean

    if dim is None:
        if manifold is None:
            raise ManifoldError(
                "the null model of a distance matrix needs dim=, the dimension to compare with"
            )
        dim = manifold.intrinsic_dim(points.shape[1])
    rng = torch.Generator().manual_seed(options["seed"] + 1)
    cloud = torch.randn(len(points), dim, generator=rng, dtype=torch.float64)
    return delta_hyperbolicity(cloud, Euclidean(), **options)
