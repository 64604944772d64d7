"""Exact ranks of wanted targets among all nodes, without ever holding the N×N distances.

Every measure of this floor that ranks (reconstruction, link prediction, neighbourhood MAP) asks one
question: for a pair (target v, source u), how many competitors lie closer to u than v does? A block of
sources is compared with all nodes by one float64 matrix product which gives a *lower bound* of a monotone
image of the distance,

    gap(x, y) = cosh(√c d) − 1   in curved space,   |x − y|²   in flat space.

Only nodes whose bound does not exceed the farthest wanted target of their source are looked at further;
where the product has cancelled (close pairs far from the origin) the distance is taken again from
`manifold.dist`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.errors import ManifoldError, ParameterError

TIE = 1e-9  # gaps that agree to this relative size are ties: symmetric trees tie exactly but for rounding
_BLOCK = 1 << 22  # elements of one block of the N×N comparison: 34 MB


@dataclass(frozen=True)
class Ranks:
    """Competitors of each pair, in the order of the pairs given, each int64 (P,).

    closer: strictly closer competitors.  tied: competitors at the same distance.
    position: how many of the source's own wanted targets are as close or closer, the pair's own included.
    """

    closer: Tensor
    tied: Tensor
    position: Tensor

    @property
    def rank(self) -> Tensor:
        """Expected rank among the competitors, ties broken at random: 1 + closer + tied/2, float64 (P,)."""
        return 1 + self.closer.double() + self.tied.double() / 2

    @property
    def precision(self) -> Tensor:
        """Share of wanted targets in the smallest ball about its source that holds it, float64 (P,)."""
        return self.position.double() / (self.position + self.closer + self.tied)


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor as it is, anything else copied (torch warns of read-only arrays, such as a closure)."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def as_points(points: Tensor | np.ndarray, manifold) -> Tensor:
    """`points` as a detached float64 (N, ambient) tensor; ManifoldError if not a table on `manifold`."""
    points = as_tensor(points).detach().to(torch.float64)
    if points.ndim != 2:
        raise ManifoldError(f"points must be a table (nodes, coordinates), but came as {tuple(points.shape)}")
    return manifold.check(points, "points")


def mean_average_precision(ranks: Ranks, pairs: Tensor) -> tuple[float, int]:
    """Mean over the sources of `pairs` of the mean precision of their targets, and the number of sources."""
    _, owner, count = pairs[:, 1].unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), dtype=torch.float64, device=pairs.device)
    total.index_add_(0, owner, ranks.precision.to(pairs.device))
    return float((total / count).mean()), len(count)


def as_pairs(pairs: Tensor | np.ndarray, n: int, name: str, device: torch.device | None = None) -> Tensor:
    """`pairs` as an int64 (P, 2) tensor of different nodes below n; ParameterError names what is wrong."""
    pairs = as_tensor(pairs).to(device)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        came = f"{tuple(pairs.shape)} {pairs.dtype}"
        raise ParameterError(f"{name} must be integers of shape (pairs, 2), but came as {came}")
    if len(pairs) == 0:
        raise ParameterError(f"{name} must hold at least one pair, but came empty")
    pairs = pairs.to(torch.int64)
    low, high = int(pairs.min()), int(pairs.max())
    if low < 0 or high >= n:
        raise ParameterError(f"{name} must index the {n} points, but reach from {low} to {high}")
    if bool((pairs[:, 0] == pairs[:, 1]).any()):
        raise ParameterError(f"{name} must join different nodes, but hold a node paired with itself")
    return pairs


def rank_pairs(
    points: Tensor | np.ndarray,
    manifold,
    pairs: Tensor | np.ndarray,
    excluded: Tensor | np.ndarray | None = None,
    *,
    chunk: int | None = None,
    progress: bool = False,
) -> Ranks:
    """Rank each wanted pair [target, source] among the nodes that are neither its source nor excluded for it.

    points (N, ambient) of `manifold`; pairs int (P, 2), each once; excluded int (Q, 2): [node, source]
    pairs that do not compete (the wanted pairs never do). `chunk` sources are compared with all nodes at a
    time (default: 34 MB of float64). Exact, memory O(chunk · N). Raises ManifoldError and ParameterError on
    bad input.
    """
    points = as_points(points, manifold)
    n, device = len(points), points.device
    pairs = as_pairs(pairs, n, "pairs", device)
    silent = [pairs] if excluded is None else [pairs, as_pairs(excluded, n, "excluded", device)]

    # Sorted by source, then by gap: the slice start[u]:start[u + 1] belongs to source u.
    gap = _exact_gap(points, manifold, pairs[:, 0], pairs[:, 1])
    order = gap.argsort(stable=True)
    order = order[pairs[order, 1].argsort(stable=True)]
    gap, owner = gap[order], pairs[order, 1]
    start = _offsets(owner, n)
    sources, starts = owner.unique_consecutive(), start.tolist()
    reach = gap[start[sources + 1] - 1] * 1.0001  # the farthest wanted target, with room for rounding
    near, far = gap * (1 - TIE), gap * (1 + TIE)

    # A rival is counted once, at the first wanted target that is not closer than itself; sums run below.
    first_near, first_far = torch.zeros((2, len(pairs)), dtype=torch.int64, device=device)
    rivals = _rivals(points, manifold, sources, reach, torch.cat(silent), chunk or max(1, _BLOCK // n))
    for u, gaps in tqdm(rivals, desc="ranking", total=len(sources), leave=False, disable=not progress):
        own = slice(starts[u], starts[u + 1])
        first_near[own] = _entries(near[own], gaps, strict=True)
        first_far[own] = _entries(far[own], gaps, strict=False)

    base = start[owner]
    closer, as_close = _running(first_near, base), _running(first_far, base)
    slices = [slice(starts[u], starts[u + 1]) for u in sources.tolist()]
    position = torch.cat([torch.searchsorted(gap[own], far[own], right=True) for own in slices])
    ranks = torch.stack([closer, as_close - closer, position])
    return Ranks(*torch.empty_like(ranks).index_copy_(1, order, ranks))


def _rivals(points, manifold, sources, reach, silent, size) -> Iterator[tuple[int, Tensor]]:
    """Each source with the gaps of its competitors, at least of all those within `reach`, in no order."""
    n = len(points)
    node, owner = silent[silent[:, 1].argsort()].T.contiguous()
    offset = _offsets(owner, n)
    left, right, blur = _bound_features(points, manifold)
    buffer = points.new_empty(min(size, len(sources)), n)
    for block, within in zip(sources.split(size), reach.split(size), strict=True):
        bound = torch.mm(left[block], right.T, out=buffer[: len(block)])
        mute = slice(int(offset[block[0]]), int(offset[block[-1] + 1]))
        mute_row = torch.searchsorted(block, owner[mute])
        own = block[mute_row] == owner[mute]
        bound[mute_row[own], node[mute][own]] = torch.inf
        bound[torch.arange(len(block), device=block.device), block] = torch.inf

        flat = (bound <= within[:, None]).view(-1).nonzero().squeeze(1)
        row = flat // n
        u, w = block[row], flat - row * n
        error = blur[u] * blur[w]
        gap = bound.view(-1)[flat] + error
        cancelled = (error > 0.1 * TIE * gap).nonzero().squeeze(1)
        gap[cancelled] = _exact_gap(points, manifold, w[cancelled], u[cancelled])
        count = torch.bincount(row, minlength=len(block)).tolist()
        yield from zip(block.tolist(), gap.split(count), strict=True)


def _exact_gap(points: Tensor, manifold, i: Tensor, j: Tensor) -> Tensor:
    """cosh(√c d) − 1 (curved) or d² (flat) of node pairs, from the manifold's own distance."""
    c = float(manifold.c)
    gap = points.new_empty(len(i))
    for part in torch.arange(len(i), device=i.device).split(1 << 18):
        d = manifold.dist(points[i[part]], points[j[part]])
        gap[part] = 2 * torch.sinh(c**0.5 * d / 2).square() if c > 0 else d.square()
    return gap


def _bound_features(points: Tensor, manifold) -> tuple[Tensor, Tensor, Tensor]:
    """left, right (N, d + 2 or 3), blur (N,): left[u]·right[w] = gap(u, w) − blur[u] blur[w], never above
    the gap.

    blur[u] blur[w] bounds the rounding of the product, of order eps cosh r_u cosh r_w. In curved space the
    gap is −c⟨x, y⟩_L − 1 on the hyperboloid, in flat space |x|² + |y|² − 2⟨x, y⟩.
    """
    v = manifold.to_tangent(points)
    r = v.norm(dim=-1, keepdim=True)
    one, tiny = torch.ones_like(r), torch.finfo(torch.float64).tiny
    eps = (v.shape[-1] + 16) * torch.finfo(torch.float64).eps
    c = float(manifold.c)
    if c > 0:
        time, space = torch.cosh(c**0.5 * r), torch.sinh(c**0.5 * r) * (v / r.clamp_min(tiny))
        left = torch.cat([time * (1 - eps), -space, -one], -1)
        return left, torch.cat([time, space, one], -1), (eps**0.5 * time).squeeze(-1)
    # |x − y|² rounds by eps (|x|² + |y|²) ≤ eps s(x) s(y) with s(x) = R + |x|²/R, R the largest norm.
    top = r.max().clamp_min(tiny**0.5)
    size = top + r.square() / top
    left = torch.cat([r.square(), one, -2 * v, -eps * size], -1)
    return left, torch.cat([one, r.square(), v, size], -1), (eps**0.5 * size).squeeze(-1)


def _offsets(owner: Tensor, n: int) -> Tensor:
    """start (n + 2,) such that start[u]:start[u + 1] is u's slice of a list sorted by owner."""
    return torch.searchsorted(owner.contiguous(), torch.arange(n + 2, device=owner.device))


def _entries(keys: Tensor, values: Tensor, *, strict: bool) -> Tensor:
    """For each ascending key, how many values have it as their first key > value (strict) or ≥ value."""
    first = torch.searchsorted(keys, values, right=strict)
    return torch.bincount(first, minlength=len(keys) + 1)[:-1]


def _running(entered: Tensor, base: Tensor) -> Tensor:
    """Running sums of `entered`, restarted where a source's slice begins (base, per entry)."""
    total = torch.cat([entered.new_zeros(1), entered.cumsum(0)])
    return total[1:] - total[base]
