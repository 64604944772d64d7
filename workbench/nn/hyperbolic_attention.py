"""Attention on the hyperboloid as one call of `scaled_dot_product_attention`, also in bfloat16.

The columns that make it so, and how they keep their digits, stand in `columns`.

He et al., *HELM* (2025), section 4.1; centroid: Law et al., *Lorentzian Distance Learning* (2019).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.manifolds import Lorentz
from workbench.manifolds.numerics import Scalar
from workbench.nn.columns import (
    Means,
    Points,
    RunningMeans,
    centroids,
    key_columns,
    query_columns,
    value_columns,
    widths,
)
from workbench.nn.hope import Rotation, rotate
from workbench.nn.lorentz import LorentzLinear, curvature_of, keep, lift, run_dtype
from workbench.nn.mamba import HALF, whole_numbers


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
    means: Means = Means(),  # noqa: B008 - immutable
    mask: Bool[Tensor, "b 1 L K"] | None = None,
    cache: KeyValueCache | None = None,
    scores: str = "lorentz",
    average: str = "centroid",
) -> Float[Tensor, "b L h d+1"]:
    """Centroids of the values under softmax(scale · ⟨q, k⟩), scale = 2/τ, from space parts; all coordinates.

    Heads come last. means: for half precision; zeros without. mask: which keys a query sees (`visible`); None is
    plain causal attention, right for an empty cache or one new token. cache: keys and values before k and v, which
    are added. scores "dot" leaves the times out of ⟨q, k⟩, average "mean" takes the plain mean of space parts: the
    same function in flat space, for ablations.
    """
    dtype = run_dtype(v)  # q and k come out of the rotation in float32
    width, value_width = widths(k.shape[-1], v.shape[-1], dtype)
    if scores == "dot":
        queries, keys = (scale * q).to(dtype), k.to(dtype)
    else:
        queries = query_columns(q, c, scale, dtype, width)
        keys = key_columns(k, c, means.key, dtype, width)
    values = v.to(dtype) if average == "mean" else value_columns(v, c, means.value, dtype, value_width)
    if cache is not None:
        keys, values = cache.join(keys, values)
    causal = mask is None and keys.shape[-2] == queries.shape[-2]
    sums = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, scale=1.0)
    if average == "mean":
        return lift(sums.transpose(1, 2), c)
    return centroids(sums, v.shape[-1], c, means.value)


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
        scores, average: see `lorentz_attention`.

    Maps start as nn.Linear, as in the released HELM-D. That code also has an additive β, which softmax does not see.
    """

    def __init__(
        self,
        manifold: Lorentz,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        sharpness: float = 1.0,
        scores: str = "lorentz",
        average: str = "centroid",
    ) -> None:
        super().__init__()
        whole_numbers("HyperbolicAttention", dim=dim, heads=heads, head_dim=head_dim)
        self.kind = {"scores": scores, "average": average}
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
        means = self.means() if run_dtype(v) in HALF else Means()
        q, k = rotate(q, rotation), rotate(k, rotation)
        if self.training:
            self.means.update(k, v, c)
        o = lorentz_attention(q, k, v, c, scale_of(self), means=means, mask=mask, cache=cache, **self.kind)
        return self.out.of_points(o.flatten(-2))


def scale_of(attention: nn.Module) -> Tensor:
    """2/τ: what ⟨q, k⟩ is multiplied by."""
    return 2 * attention.sharpness * (-attention.log_temperature).exp()
