"""Facts about codes and codebooks: how many points they can tell apart, how many they use, and unique names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import DataError


class Capacity(NamedTuple):
    """needed <= available where codebooks of this size can resolve points at that radius."""

    needed: float
    available: float
    ok: bool
    sentence: str


def capacity(
    manifold_or_c, dim: int, radius: float, codebook_size: int | Sequence[int], levels: int | None = None
) -> Capacity:
    """Whether `levels` codebooks can resolve points at distance `radius` from the origin in curvature -c.

    A ball of radius R in dimension d grows as exp((d-1)√c R), hence one level of K codes lowers the error radius by
    about ln K / ((d-1)√c): all of it takes Σ ln K >= (d-1)√c R. In flat space (c = 0) a level divides the error by
    K^(1/d) instead, and there is no bound.

    manifold_or_c: a manifold or the number c. codebook_size: one number, or one a level.
    """
    c = float(torch.as_tensor(getattr(manifold_or_c, "c", manifold_or_c)).detach())
    sizes = [codebook_size] * (levels or 1) if isinstance(codebook_size, int) else list(codebook_size)
    needed, available = (dim - 1) * math.sqrt(c) * radius, sum(math.log(k) for k in sizes)
    ok = needed <= available
    sentence = (
        f"{len(sizes)} levels of {'/'.join(map(str, dict.fromkeys(sizes)))} codes carry Σ ln K = {available:.3g}, "
        f"and points at a mean radius of {radius:.3g} in {dim} dimensions with c = {c:g} "
        f"{'need only' if ok else 'need'} (dim - 1)·√c·radius = {needed:.3g}"
    )
    advice = "" if ok else ": use more levels or codes, fewer dimensions, or a smaller c or scale"
    return Capacity(needed, available, ok, sentence + advice)


class CodeStats(NamedTuple):
    """A level each: codes used, share of the codebook used, perplexity e^H of their frequencies."""

    used: list[int]
    utilisation: list[float]
    perplexity: list[float]


def code_stats(codes: Int[Tensor, "n levels"], sizes: Sequence[int]) -> CodeStats:
    """How many codes of each level are used, and how evenly."""
    used, perplexity = [], []
    for level, size in zip(codes.reshape(-1, codes.shape[-1]).unbind(-1), sizes, strict=False):
        counts = torch.bincount(level, minlength=size).double()
        p = counts / counts.sum()
        used.append(int((counts > 0).sum()))
        perplexity.append(float(torch.special.entr(p).sum().exp()))
    return CodeStats(used, [u / k for u, k in zip(used, sizes, strict=False)], perplexity)


def _groups(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Which tuple each row is, and how many rows each tuple has."""
    if codes.ndim != 2 or codes.is_floating_point():
        raise DataError(
            f"codes must be whole numbers of shape (N, levels), got {codes.dtype} {tuple(codes.shape)}"
        )
    _, inverse, counts = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    return inverse, counts


def deduplicate(codes: Int[Tensor, "n levels"]) -> Int[Tensor, "n levels+1"]:
    """The codes and one more that tells equal ones apart: 0, 1, 2, … in the order of the rows.

    The last vocabulary needs `int(result[:, -1].max()) + 1` entries. DataError for another shape.
    """
    inverse, counts = _groups(codes)
    order = torch.sort(inverse, stable=True).indices
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(inverse)
    rank[order] = torch.arange(len(codes), device=codes.device) - first[inverse[order]]
    return torch.cat([codes, rank.unsqueeze(1).to(codes.dtype)], -1)


def uniqueness(codes: Int[Tensor, "n levels"]) -> float:
    """Number of different tuples over the number of rows; 1 for none at all. DataError for another shape."""
    return len(_groups(codes)[1]) / len(codes) if len(codes) else 1.0
