"""Exact ranks of wanted targets among all nodes, without ever holding the N×N distances.

Every measure of this floor that ranks (reconstruction, link prediction, neighbourhood MAP) asks one
question: for a pair (target v, source u), how many competitors lie closer to u than v does? A block of
sources is compared with all nodes by one float64 matrix product which gives a *lower bound* of a monotone
image of the distance,

    gap(x, y) = cosh(√c d) − 1   in curved space,   |x − y|²   in flat space.

Only nodes whose bound does not exceed the farthest wanted target of their source are looked at further, and
where the product's rounding leaves a comparison open (close pairs far from the origin) the distance is taken
again from `manifold.dist`.
"""

from __future__ import annotations

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

    # Each wanted target has a lower and an upper mark about its gap. Sorted by source and value: the slice
    # start[u]:start[u + 1] of `marks` belongs to source u.
    gap = _exact_gap(points, manifold, pairs[:, 0], pairs[:, 1])
    marks, owner = torch.cat([gap * (1 - TIE) - 1e-300, gap * (1 + TIE)]), pairs[:, 1].repeat(2)
    order = marks.argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    marks, owner = marks[order], owner[order]
    start = _offsets(owner, n)

    # A rival is counted once, at the first mark of its source that is not below its gap; sums run afterwards.
    entered = torch.zeros(len(marks), dtype=torch.int64, device=device)
    blocks = owner.unique_consecutive().split(chunk or max(1, _BLOCK // n))
    buffer, features = points.new_empty(len(blocks[0]), n), _bound_features(points, manifold)
    silent = _by_source(torch.cat(silent), n)
    for block in tqdm(blocks, desc="ranking", leave=False, disable=not progress):
        reach = marks[start[block + 1] - 1] * 1.0001  # the farthest wanted target, with room for rounding
        row, w, span = _rivals(block, reach, *features, *silent, buffer)
        place = _first_mark(marks, start[block].tolist(), start[block + 1].tolist(), row, span)
        u = block[row]
        unsure = (place[:, 0] != place[:, 1]).nonzero().squeeze(1)
        exact = _exact_gap(points, manifold, w[unsure], u[unsure])
        place[unsure, 0] = _bisect(marks, start[u[unsure]], start[u[unsure] + 1], exact)
        place = place[place[:, 0] < start[u + 1], 0]
        first, last = int(start[block[0]]), int(start[block[-1] + 1])
        entered[first:last] += torch.bincount(place - first, minlength=last - first)

    lower = (order < len(pairs)).long()
    sums = torch.empty(2, len(marks), dtype=torch.int64, device=device)
    sums[:, order] = torch.stack([_running(x, start[owner]) for x in (entered, lower)])
    (closer, as_close), (_, position) = sums.view(2, 2, -1)
    return Ranks(closer, as_close - closer, position)


def _rivals(block, reach, left, right, blur, node, offset, buffer) -> tuple[Tensor, Tensor, Tensor]:
    """Competitors of a block of sources maybe within `reach`: row, node (M,), bounds of their gaps (M, 2)."""
    n = len(left)
    bound = torch.mm(left[block], right.T, out=buffer[: len(block)])
    # Neither a source itself nor its silent nodes compete.
    count = offset[block + 1] - offset[block]
    row = torch.arange(len(block), device=block.device).repeat_interleave(count)
    shift = (offset[block] - (count.cumsum(0) - count))[row]
    bound[row, node[shift + torch.arange(len(row), device=block.device)]] = torch.inf
    bound[torch.arange(len(block), device=block.device), block] = torch.inf

    flat = (bound <= reach[:, None]).view(-1).nonzero().squeeze(1)
    row = flat // n
    w = flat - row * n
    low = bound.view(-1)[flat]
    return row, w, torch.stack([low, low + 2 * blur[block[row]] * blur[w]], -1)


def _first_mark(marks: Tensor, begin: list[int], end: list[int], row: Tensor, span: Tensor) -> Tensor:
    """Index (M, 2) of the first mark not below each bound, or the end of the marks; row is ascending."""
    spans = span.split(torch.bincount(row, minlength=len(begin)).tolist())
    places = [b + torch.searchsorted(marks[b:e], s) for b, e, s in zip(begin, end, spans, strict=True)]
    return torch.cat(places)


def _by_source(pairs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The first entries of pairs [node, source], sorted by source, and where each source's slice starts."""
    node, source = pairs[pairs[:, 1].argsort()].T.contiguous()
    return node, _offsets(source, n)


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


def _bisect(marks: Tensor, low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """For each query the first index in low..high whose ascending mark is not below `value`, else high."""
    for _ in range(int((high - low).max()).bit_length() if len(low) else 0):
        middle = (low + high) // 2
        below = (marks[middle.clamp_max(len(marks) - 1)] < value) & (low < high)
        low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
    return low


def _running(entered: Tensor, base: Tensor) -> Tensor:
    """Running sums of `entered`, restarted where a source's slice begins (base, per entry)."""
    total = torch.cat([entered.new_zeros(1), entered.cumsum(0)])
    return total[1:] - total[base]
