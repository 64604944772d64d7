"""Attention on the hyperboloid as one call of `scaled_dot_product_attention`, also in bfloat16.

Scores are -d²/τ with the squared Lorentzian distance d² = -2/c - 2⟨q, k⟩, and a head's output is the centroid of the
values under the weights. With time columns of both signs that is a dot product and a sum:

    scores = [-q₀, q]·[k₀, k] · 2/τ + what softmax does not see,    centroid = Σ p [v₀, v], normalised.

In half precision q₀k₀ - q·k and the norm of the centroid, m₀² - |m|², would cancel to noise. Therefore columns are
made in float32 and rounded once, with: a mean key subtracted (softmax does not see a constant); time columns split in
two, rounded value and remainder; a mean value subtracted and added back in float32 (weights add up to 1), and time
taken of the values as they were rounded. The means are running ones of training: constants of a pass, so that no
token sees a later one, not even by rounding.

He et al., *HELM* (2025), section 4.1; centroid: Law et al., *Lorentzian Distance Learning* (2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.manifolds import Lorentz
from workbench.manifolds.numerics import Scalar
from workbench.nn.hope import Rotation, rotate
from workbench.nn.lorentz import LorentzLinear, curvature_of, keep, lift, run_dtype, shrink, time_part
from workbench.nn.mamba import HALF, whole_numbers, widened

Points = Float[Tensor, "b h L d"]  # space parts


class Means(NamedTuple):
    """Constants near the keys and values of every head, (h, 1, d+1): what is subtracted before rounding."""

    key: Tensor
    value: Tensor


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


def split(t: Float[Tensor, "... 1"], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """t rounded to dtype, and the remainder, which t - rounded gives exactly."""
    high = t.to(dtype)
    return high, (t - high).to(dtype)


def join(columns: tuple[Tensor, ...], dtype: torch.dtype, width: int) -> Tensor:
    """Columns side by side, with zeros up to a width."""
    x = torch.cat([column.to(dtype) for column in columns], -1)
    return F.pad(x, (0, width - x.shape[-1])) if width > x.shape[-1] else x


def width_of(key_dim: int, value_dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """Columns of queries and keys, and of values: multiples of 8, in half precision the same one, as kernels like."""
    times = 2 if dtype in HALF else 1
    key, value = (-(-(dim + times) // 8) * 8 for dim in (key_dim, value_dim))
    return (max(key, value),) * 2 if dtype in HALF else (key, value)


def query_columns(q: Points, c: Scalar, scale: Scalar, dtype: torch.dtype, width: int) -> Tensor:
    """scale · [-q₀, q]."""
    q = widened(q)
    time = -scale * time_part(q, c)
    return join((*(split(time, dtype) if dtype in HALF else (time,)), scale * q), dtype, width)


def key_columns(k: Points, c: Scalar, means: Means | None, dtype: torch.dtype, width: int) -> Tensor:
    """[k₀, k], in half precision [k₀, k₀, k] less the mean key."""
    k = widened(k)
    time = time_part(k, c)
    if dtype not in HALF:
        return join((time, k), dtype, width)
    if means is not None:
        time, k = time - means.key[..., :1], k - means.key[..., 1:]
    return join((time, time, k), dtype, width)


def value_columns(v: Points, c: Scalar, means: Means | None, dtype: torch.dtype, width: int) -> Tensor:
    """[v₀, v], in half precision [v₀, its remainder, v] less the mean value, with v₀ of the rounded v."""
    v = widened(v)
    if dtype not in HALF:
        return join((time_part(v, c), v), dtype, width)
    if means is None:
        v = v.to(dtype)
        return join((*split(time_part(v, c), dtype), v), dtype, width)
    apart = (v - means.value[..., 1:]).to(dtype)
    time = time_part(apart + means.value[..., 1:], c) - means.value[..., :1]
    return join((*split(time, dtype), apart), dtype, width)


def centroids(sums: Tensor, dim: int, c: Scalar, means: Means | None) -> Float[Tensor, "b h L d+1"]:
    """Points from the weighted sums of value columns, all coordinates, in the dtype of the sums."""
    dtype = sums.dtype
    if dtype in HALF:
        sums = sums.float()
        time, space = sums[..., :1] + sums[..., 1:2], sums[..., 2 : 2 + dim]
        if means is not None:
            time, space = time + means.value[..., :1], space + means.value[..., 1:]
    else:
        time, space = sums[..., :1], sums[..., 1 : 1 + dim]
    return lift(space * shrink(time, space, 1.0, c), c, dtype)


class KeyValueCache:
    """Columns of keys and values seen so far, in the dtype of attention: 2 (d+1) numbers a token and head
    (each half filled up to a multiple of 8)."""

    def __init__(self) -> None:
        self.columns: tuple[Tensor, ...] = ()

    @property
    def length(self) -> int:
        return self.columns[0].shape[-2] if self.columns else 0

    def join(self, *new: Tensor) -> tuple[Tensor, ...]:
        """The columns so far and these, which are kept."""
        if self.columns:
            new = tuple(torch.cat(pair, -2) for pair in zip(self.columns, new, strict=True))
        self.columns = new
        return new


def lorentz_attention(
    q: Points,
    k: Points,
    v: Points,
    c: Scalar,
    scale: Scalar,
    *,
    means: Means | None = None,
    mask: Bool[Tensor, "b 1 L K"] | None = None,
    cache: KeyValueCache | None = None,
) -> Float[Tensor, "b h L d+1"]:
    """Centroids of the values under softmax(scale · ⟨q, k⟩), scale = 2/τ, from space parts; all coordinates.

    means: for half precision; zeros without. mask: which keys a query sees (`visible`); None is plain causal
    attention, right for an empty cache or one new token. cache: keys and values before k and v, which are added.
    """
    dtype = run_dtype(v)  # q and k come out of the rotation in float32
    width, value_width = width_of(k.shape[-1], v.shape[-1], dtype)
    queries = query_columns(q, c, scale, dtype, width)
    keys, values = key_columns(k, c, means, dtype, width), value_columns(v, c, means, dtype, value_width)
    if cache is not None:
        keys, values = cache.join(keys, values)
    causal = mask is None and keys.shape[-2] == queries.shape[-2]
    sums = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, scale=1.0)
    return centroids(sums, v.shape[-1], c, means)


def visible(
    length: int,
    past: int = 0,
    real: Bool[Tensor, "b K"] | None = None,
    documents: Int[Tensor, "b K"] | None = None,
    device: torch.device | None = None,
) -> Bool[Tensor, "b 1 L K"] | None:
    """Which of past + length keys each of the last `length` tokens sees: none later than itself, where `real` is
    given only real ones, where `documents` numbers them only those of its own document.

    Every token sees itself, so that padding has finite outputs. None where plain causal attention says the same.
    """
    if real is None and documents is None and (past == 0 or length == 1):
        return None
    order = torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
    seen = order[None]
    if real is not None:
        seen = seen & real[:, None]
    if documents is not None:
        seen = seen & (documents[:, -length:, None] == documents[:, None])
    return (seen | order & ~order.tril(past - 1))[:, None]


class HyperbolicAttention(nn.Module):
    """Causal self-attention of all heads on space parts, with HoPE on queries and keys.

    Args:
        dim: of the points. heads. head_dim: of each head's space, even (the released code counts time, 64 + 1).
        sharpness: of scores, beside the learned temperature τ (√(heads (head_dim+1)) at the start); see `Yarn`.

    Maps start as nn.Linear, as in the released HELM-D. That code also has an additive β, which softmax does not see.
    """

    def __init__(
        self, manifold: Lorentz, dim: int, heads: int, head_dim: int, *, sharpness: float = 1.0
    ) -> None:
        super().__init__()
        whole_numbers("HyperbolicAttention", dim=dim, heads=heads, head_dim=head_dim)
        keep(self, manifold=manifold)
        self.heads, self.head_dim, self.sharpness = heads, head_dim, sharpness
        self.qkv = LorentzLinear(manifold, dim, 3 * heads * head_dim, gain=None)
        self.out = LorentzLinear(manifold, head_dim, dim, points=heads, gain=None)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(heads * (head_dim + 1)) / 2))
        self.means = RunningMeans(heads, head_dim, head_dim)

    def forward(
        self,
        x: Float[Tensor, "b L n"],
        rotation: Rotation,
        mask: Bool[Tensor, "b 1 L K"] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "b L n"]:
        """x, rotation: of the new tokens. mask: see `visible`, over those in the cache and the new ones; None is
        plain causal attention, for an empty cache or a single new token."""
        c = curvature_of(self.manifold)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        means = self.means() if run_dtype(v) in HALF else None
        q, k = rotate(q, rotation), rotate(k, rotation)
        if self.training:
            self.means.update(k, v, c)
        o = lorentz_attention(q, k, v, c, scale_of(self), means=means, mask=mask, cache=cache)
        return self.out.of_points(o.transpose(1, 2).flatten(-2))


def scale_of(attention: nn.Module) -> Tensor:
    """2/τ: what ⟨q, k⟩ is multiplied by."""
    return 2 * attention.sharpness * (-attention.log_temperature).exp()
