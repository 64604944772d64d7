"""k-means in any of the spaces: seeding by squared distance, updates by centroids on the manifold.

Sources: Arthur & Vassilvitskii 2007 (k-means++); Lloyd 1982. On the ball the centroid is the gyromidpoint (Ungar
2010), which minimises the sum of cosh(√c d) - 1 rather than of d², so that both steps are closed forms.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import DataError, ParameterError
from workbench.manifolds.nearest import Prepared, code_table, disk, nearest_code
from workbench.threads import one_thread


@torch.no_grad()
def kmeans(
    points: Float[Tensor, "n k"],
    manifold,
    k: int,
    *,
    iterations: int = 15,
    seed: int = 0,
    weights: Float[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "m k"], Int[Tensor, " n"]]:
    """K float64 centroids (k, ambient) of N points and the nearest of them to each point (N,).

    points: (N, ambient) on the manifold; weights: (N,) not below 0, by default equal. Fewer iterations are made when
    the assignment comes to rest. A cluster left empty moves to the point that is worst served.
    Raises ManifoldError for points that are not finite or off the manifold, DataError for fewer points than k or
    other weights, ParameterError for k or iterations below 1.
    """
    for name, value in (("k", k), ("iterations", iterations)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
    if points.ndim != 2:
        raise DataError(f"k-means needs points of shape (N, n), got {tuple(points.shape)}")
    x = manifold.check(points.detach(), "points").to(torch.float64)
    if len(x) < k:
        raise DataError(f"a codebook of {k} codes needs as many points or more, got {len(x)}")
    w = _checked_weights(weights, x)
    generator = torch.Generator().manual_seed(seed)
    with one_thread():
        return _lloyd(x, w, manifold, k, iterations, generator)


def _lloyd(x, w, manifold, k, iterations, generator) -> tuple[Tensor, Tensor]:
    b = disk(manifold, x)
    centres = x[_seeds(x, w, manifold, k, generator)]
    index = nearest_code(b, code_table(manifold, centres))
    for _ in range(iterations):
        centres = group_centroids(x, w, manifold, index, centres)
        before, index = index, nearest_code(b, code_table(manifold, centres))
        index = _fill_empty(x, w, manifold, centres, index)
        if torch.equal(before, index):
            break
    return centres, nearest_code(b, code_table(manifold, centres))


def group_centroids(x: Tensor, w: Tensor, manifold, index: Tensor, old: Tensor) -> Tensor:
    """Centroid of each group of points; `old` where a group is empty.

    As in `manifold.centroid`, a first answer is refined in its own frame, where nothing cancels.
    """
    k = len(old)

    def mean(points: Tensor) -> Tensor:
        moments = w.unsqueeze(1) * manifold.moments(points)
        return manifold.from_moments(moments.new_zeros(k, moments.shape[1]).index_add_(0, index, moments))

    base = mean(x)
    for _ in range(2):
        base = manifold.add(base, mean(manifold.translate_to_origin(x, base[index])))
    filled = torch.zeros_like(w[:1]).expand(k).clone().index_add_(0, index, w) > 0
    return torch.where(filled.unsqueeze(1), base, old)


def _seeds(x: Tensor, w: Tensor, manifold, k: int, generator: torch.Generator) -> Tensor:
    """k different rows: the first by weight, each other by weight times the squared distance to those before."""
    chosen = [_draw(w, generator)]
    nearest, points = torch.full_like(w, torch.inf), Prepared(manifold, x)
    for _ in range(k - 1):
        nearest = torch.minimum(nearest, points.distances(x[chosen[-1:]]).squeeze(1).square())
        nearest[chosen] = 0
        p = nearest * w
        if not p.sum() > 0:  # all points are seeds already, or copies of one: any other row
            p = torch.ones_like(w)
            p[chosen] = 0
        chosen.append(_draw(p, generator))
    return torch.tensor(chosen, device=x.device)


def _draw(p: Tensor, generator: torch.Generator) -> int:
    """An index with probability proportional to p; inverse transform, as torch.multinomial ends at 2^24 entries."""
    total = p.cumsum(0)
    u = torch.rand((), generator=generator, dtype=torch.float64).to(p.device) * total[-1]
    at = int(torch.searchsorted(total, u, right=True).clamp(max=len(p) - 1))
    return at if p[at] > 0 else int(p.nonzero()[-1])


def _fill_empty(x: Tensor, w: Tensor, manifold, centres: Tensor, index: Tensor) -> Tensor:
    """Give every empty cluster the point worst served by its own, in place in `centres`; the new assignment."""
    empty = (torch.bincount(index, minlength=len(centres)) == 0).nonzero().squeeze(1)
    if not len(empty):
        return index
    error = manifold.dist2(x, centres[index]) * w
    worst = error.topk(len(empty)).indices
    index = index.clone()
    centres[empty], index[worst] = x[worst], empty
    return index


def _checked_weights(weights: Tensor | None, x: Tensor) -> Tensor:
    if weights is None:
        return torch.ones_like(x[:, 0])
    w = torch.as_tensor(weights, device=x.device).detach().to(torch.float64)
    if w.shape != x.shape[:1] or not (torch.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise DataError(
            f"weights must be {len(x)} finite numbers not below 0 and not all 0, got shape {tuple(w.shape)}"
        )
    return w
