"""The nearest of a few codes to each of many points, by one matrix product.

For a fixed point x, sinh²(√c d(x, y)/2) = (c / g(x)) · |x - y|² / g(y) with the gap g(y) = 1 - c|y|², and asinh is
monotone: the nearest code minimises (|x|² - 2<x, y> + |y|²) / g(y), which is affine in [x, |x|²]. In flat space
g = 1; hyperboloid points are read in the ball chart. No N×K×d tensor, and no transcendental function, is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.numerics import dot, sqrt

BLOCK = 2**17  # scores at a time on a CPU: half a megabyte stays in a core's cache, and is not paged in anew


class CodeTable(NamedTuple):
    """score(x, j) = [b, |b|²] · weights[:, j] + bias[j], for disk coordinates b of x."""

    weights: Float[Tensor, "d+1 k"]
    bias: Float[Tensor, " k"]

    def to(self, dtype: torch.dtype) -> CodeTable:
        return CodeTable(self.weights.to(dtype), self.bias.to(dtype))


def _disk_and_gap(manifold, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.to(torch.float64)
    if manifold.name == "euclidean":
        return x, torch.ones_like(x[..., :1])
    return manifold._disk(x, torch.float64)


def disk(manifold, x: Float[Tensor, "... n"]) -> Float[Tensor, "... d"]:
    """Coordinates of points in the ball chart, in the dtype of x; flat points are themselves."""
    return manifold._disk(x, x.dtype)[0] if manifold.name == "lorentz" else x


def code_table(manifold, codes: Float[Tensor, "k n"]) -> CodeTable:
    """The table of K codes that `nearest_code` multiplies with, float64."""
    b, g = _disk_and_gap(manifold, codes)
    square = dot(b, b)
    return CodeTable(torch.cat([-2 * b, torch.ones_like(g)], -1).div(g).mT.contiguous(), (square / g)[:, 0])


class Prepared:
    """Points from which distances are asked again and again: distances(codes) is (N, K), float64, as `cdist` gives
    them and to the same accuracy, without reading the points anew."""

    def __init__(self, manifold, x: Float[Tensor, "n k"]):
        self.manifold = manifold
        b, self.gap = _disk_and_gap(manifold, x)
        self.lifted = torch.cat([b, dot(b, b)], -1)

    def distances(self, codes: Float[Tensor, "k n"]) -> Float[Tensor, "n k"]:
        weights, bias = code_table(self.manifold, codes)
        square = torch.addmm(bias, self.lifted, weights).div_(self.gap).clamp_min_(0)
        if self.manifold.name == "euclidean":
            return square.sqrt_()
        root = sqrt(self.manifold.c.detach())
        return square.sqrt_().mul_(root).asinh_().mul_(2 / root)


def nearest_code(b: Float[Tensor, "n d"], table: CodeTable, chunk: int = 8192) -> Int[Tensor, " n"]:
    """Row by row the code of the least score; computed in the dtype of b, which are disk coordinates.

    At most `chunk` rows of scores exist at a time, on a CPU fewer. In float32 the answer differs from
    float64 only between codes whose distances agree to about 1e-6·exp(√c r), r being the distance to the origin.
    """
    weights, bias = table.to(b.dtype)
    rows = max(1, min(chunk, BLOCK // len(bias)) if b.device.type == "cpu" else chunk)
    lifted = torch.cat([b, dot(b, b)], -1)
    found = torch.empty(len(b), dtype=torch.int64, device=b.device)
    for start in range(0, len(b), rows):
        scores = torch.addmm(bias, lifted[start : start + rows], weights)
        found[start : start + rows] = _argmin(scores)
    return found


def _argmin(scores: Float[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """Row by row the first position of the least entry; on the CPU by numpy, whose loop is vectorised."""
    if scores.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(scores.detach().numpy().argmin(-1))
    return scores.argmin(-1)


@torch.no_grad()
def nearest(
    manifold,
    x: Float[Tensor, "n k"],
    codes: Float[Tensor, "m k"],
    chunk: int = 8192,
    *,
    fast: bool = False,
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The nearest of M codes to each of N points, and the distance to it (by `manifold.dist`).

    x: (N, ambient) points; codes: (M, ambient) points, M >= 1. chunk: rows at a time. fast: compare in float32,
    which is right up to a radius of about 8/√c. The distances are as accurate as the coordinates either way.
    Raises ManifoldError for shapes that do not fit.
    """
    if x.ndim != 2 or codes.ndim != 2 or x.shape[-1] != codes.shape[-1] or not len(codes):
        raise ManifoldError(
            f"nearest needs points (N, n) and one code or more (M, n), "
            f"got {tuple(x.shape)} and {tuple(codes.shape)}"
        )
    b = disk(manifold, x.to(torch.float64))
    index = nearest_code(b.float() if fast else b, code_table(manifold, codes), chunk)
    return index, manifold.dist(x, codes[index])
