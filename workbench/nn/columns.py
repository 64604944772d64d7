"""Columns that make `scaled_dot_product_attention` Lorentzian, and the centroids that come out of it.

Scores are -d²/τ with the squared Lorentzian distance d² = -2/c - 2⟨q, k⟩; a head's output is the centroid of its
values. With time columns of both signs that is a dot product and a sum:

    scores = [-q₀, q]·[k₀, k] · 2/τ + what softmax does not see,    centroid = Σ p [v₀, v], normalised.

In half precision q₀k₀ - q·k and the norm of the centroid, m₀² - |m|², would cancel to noise. Therefore columns are
made in float32 and rounded once, with: a mean key subtracted (softmax does not see a constant); times split in two,
rounded value and remainder; a mean value subtracted and added back in float32 (weights add up to 1), and time taken
of the values as they were rounded. The means are running ones of training: constants of a pass, without gradients,
so that no token sees a later one, not even by rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.manifolds.numerics import Scalar
from workbench.nn.lorentz import lift, shrink, time_part
from workbench.nn.mamba import HALF, widened

Points = Float[Tensor, "b h L d"]  # space parts


class Means(NamedTuple):
    """Constants near the keys and values of every head, (h, 1, d+1): what is subtracted before rounding."""

    key: Tensor | None = None
    value: Tensor | None = None


class RunningMeans(nn.Module):
    """Means of keys and values over training, in all coordinates; zeros before. They change rounding only."""

    def __init__(self, heads: int, key_dim: int, value_dim: int, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("key", torch.zeros(heads, 1, key_dim + 1))
        self.register_buffer("value", torch.zeros(heads, 1, value_dim + 1))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self) -> Means:
        """As they are now (copies: `update` comes before the backward pass)."""
        return Means(self.key.clone(), self.value.clone())

    @torch.no_grad()
    def update(self, k: Points, v: Points, c: Scalar, stride: int = 16) -> None:
        """Take a batch into account, every `stride`-th position of it."""
        self.seen += 1
        share = torch.clamp(1 / self.seen, min=1 - self.momentum)
        for mean, x in ((self.key, k), (self.value, v)):
            now = lift(widened(x[..., ::stride, :]), c).mean((0, 2), dtype=mean.dtype)[:, None]
            mean.lerp_(now, share)


def widths(key_dim: int, value_dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """Columns of queries and keys, and of values: multiples of 8, in half precision the same one, as kernels like."""
    times = 2 if dtype in HALF else 1
    key, value = (-(-(dim + times) // 8) * 8 for dim in (key_dim, value_dim))
    return (max(key, value),) * 2 if dtype in HALF else (key, value)


def split(t: Float[Tensor, "... 1"], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """t rounded to dtype, and the remainder, which t - rounded gives exactly."""
    high = t.to(dtype)
    return high, (t - high).to(dtype)


class _Columns(torch.autograd.Function):
    """Keeps the columns alone for the backward pass, as attention does; the points are read off them again."""

    @staticmethod
    def forward(ctx, x, c, scale, mean, kind, dtype, width):
        ctx.size, ctx.kind, ctx.half = x.shape[-1], kind, dtype in HALF
        ctx.dtype = x.dtype
        space = widened(x) if kind != "query" else scale * widened(x)
        if mean is not None:
            space = space - mean[..., 1:]
        if kind == "query":
            time = -scale * time_part(x, c)
        elif kind == "value" and ctx.half:
            space = space.to(dtype)
            time = time_part(widened(space) + (0 if mean is None else mean[..., 1:]), c)
        else:
            time = time_part(x, c)
        if mean is not None:
            time = time - mean[..., :1]
        times = (time,) if not ctx.half else (time, time) if kind == "key" else split(time, dtype)
        columns = torch.cat([t.to(dtype) for t in (*times, space)], -1)
        columns = F.pad(columns, (0, width - columns.shape[-1]))
        ctx.save_for_backward(columns, mean, *(s if isinstance(s, Tensor) else None for s in (c, scale)))
        ctx.scale = scale if not isinstance(scale, Tensor) else None
        return columns

    @staticmethod
    def backward(ctx, grad):
        columns, mean, c, scale = ctx.saved_tensors
        time, space = read(columns, ctx.size, mean, ctx.half and ctx.kind != "key")
        grad = widened(grad)
        first = 2 if ctx.half else 1
        to_space, to_time = grad[..., first : first + ctx.size], grad[..., :1]
        if ctx.half and ctx.kind == "key":  # there the time stands twice
            to_time = to_time + grad[..., 1:2]
        s = ctx.scale if scale is None else scale
        slope = to_time / time
        to_scale = to_c = None
        if ctx.needs_input_grad[1]:
            to_c = ((slope * (s * s)).sum() * (-0.5 / (c * c))).to(c.dtype)
        if ctx.needs_input_grad[2]:
            to_scale = (((to_space * space).sum() + (to_time * time).sum()) / s).to(scale.dtype)
        to_x = torch.addcmul(to_space, slope, space)
        to_x = to_x if ctx.kind != "query" else to_x * s
        return to_x.to(ctx.dtype), to_c, to_scale, None, None, None, None


def read(
    columns: Tensor, size: int, mean: Tensor | None, split_time: bool
) -> tuple[Float[Tensor, "... 1"], Float[Tensor, "... d"]]:
    """Time and space of columns or of sums of them: remainder and mean added again, in float32 at least."""
    first = 2 if columns.dtype in HALF else 1
    time, space = widened(columns[..., :1]), widened(columns[..., first : first + size])
    if split_time:
        time = time + columns[..., 1:2]
    if mean is not None:
        time, space = time + mean[..., :1], space + mean[..., 1:]
    return time, space


def query_columns(q: Points, c: Scalar, scale: Scalar, dtype: torch.dtype, width: int) -> Tensor:
    """scale · [-q₀, q], in half precision with the remainder of the time; scale > 0."""
    return _Columns.apply(q, c, scale, None, "query", dtype, width)


def key_columns(k: Points, c: Scalar, mean: Tensor | None, dtype: torch.dtype, width: int) -> Tensor:
    """[k₀, k], in half precision [k₀, k₀, k] less the mean key."""
    return _Columns.apply(k, c, 1.0, mean if dtype in HALF else None, "key", dtype, width)


def value_columns(v: Points, c: Scalar, mean: Tensor | None, dtype: torch.dtype, width: int) -> Tensor:
    """[v₀, v], in half precision [v₀, its remainder, v] less the mean value, with v₀ of the rounded v."""
    return _Columns.apply(v, c, 1.0, mean if dtype in HALF else None, "value", dtype, width)


def centroids(
    sums: Float[Tensor, "b h L w"], size: int, c: Scalar, mean: Tensor | None
) -> Float[Tensor, "b L h d+1"]:
    """Points from the sums, weights adding up to 1, of value columns: all coordinates, in the dtype of the sums.

    Heads come last, so that a linear map takes those of a token together without a copy.
    """
    half = sums.dtype in HALF
    mean = mean[:, 0].detach() if half and mean is not None else None
    time, space = read(sums.transpose(1, 2), size, mean, half)
    return lift(space * shrink(time, space, 1.0, c), c, sums.dtype)
