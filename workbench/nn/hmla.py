"""HMLA: hyperbolic multi-head latent attention, whose cache is one small point a token rather than keys and values.

Queries and keys have a content part and a rotated part; keys and values of all heads are linear maps of one latent
point, the rotated part of the key is one for all heads. Parts are put together as space parts, then lifted.

The cache holds the latent's space part and the rotated key: `latent + rotary` numbers a token. The time coordinates
of keys and values are no linear maps of the latent; with those two numbers a head kept as well, decoding never forms
keys or values: the maps to them are absorbed into the queries and the outputs (`absorbed`).

He et al., *HELM* (2025), section 4.4; DeepSeek-AI, *DeepSeek-V2* (2024), section 2.1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.manifolds import Lorentz
from workbench.nn.columns import Means, RunningMeans
from workbench.nn.hope import Rotation, rotate
from workbench.nn.hyperbolic_attention import (
    KeyValueCache,
    lorentz_attention,
    scale_of,
)
from workbench.nn.lorentz import (
    HyperbolicRMSNorm,
    LorentzLinear,
    curvature_of,
    keep,
    lift,
    run_dtype,
    shrink,
    time_part,
)
from workbench.nn.mamba import HALF, whole_numbers, widened


class LatentCache(KeyValueCache):
    """The latent and the rotated key (b, 1, L, latent + rotary), and times of keys and values (b, heads, L, 2)."""


class HyperbolicLatentAttention(nn.Module):
    """Causal self-attention on space parts through a latent point.

    Args:
        dim: of the points. heads. latent: of the compressed keys and values. content, rotary: of the two parts of
            queries and keys, rotary even. value: of the values. All count space coordinates; the released
            configurations count time in the last two.
        gain: see `LorentzLinear`. sharpness: see `Yarn`.

    τ starts at √(heads (content + rotary + 1)).
    """

    def __init__(
        self,
        manifold: Lorentz,
        dim: int,
        heads: int,
        *,
        latent: int,
        content: int,
        rotary: int,
        value: int,
        gain: float | None = math.sqrt(2),
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        whole_numbers("HyperbolicLatentAttention", heads=heads, latent=latent, content=content)
        whole_numbers("HyperbolicLatentAttention", rotary=rotary, value=value)
        keep(self, manifold=manifold)
        self.heads, self.latent, self.sharpness = heads, latent, sharpness
        self.content, self.rotary, self.value = content, rotary, value
        self.query = LorentzLinear(manifold, dim, heads * (content + rotary), gain=gain)
        self.compress = LorentzLinear(manifold, dim, latent + rotary, gain=gain)
        self.norm = HyperbolicRMSNorm(latent)
        self.expand = LorentzLinear(manifold, latent, heads * (content + value), gain=gain)
        self.out = LorentzLinear(manifold, value, dim, points=heads, gain=gain)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(heads * (content + rotary + 1)) / 2))
        self.means = RunningMeans(heads, content + rotary, value)

    def forward(
        self,
        x: Float[Tensor, "b L n"],
        rotation: Rotation,
        mask: Bool[Tensor, "b 1 L K"] | None = None,
        cache: LatentCache | None = None,
    ) -> Float[Tensor, "b L n"]:
        """Arguments as in `HyperbolicAttention`. A cache is for decoding: what comes after its first piece is
        computed in float32 with absorbed maps."""
        c = curvature_of(self.manifold)
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        content, turned = q.split([self.content, self.rotary], -1)
        turned = rotate(turned, rotation)
        latent, shared = self.compress(x).split([self.latent, self.rotary], -1)
        latent, shared = self.norm(widened(latent)), rotate(shared[:, None], rotation)
        keys, v = self._keys_and_values(latent)
        k = torch.cat([widened(keys), shared.expand(-1, self.heads, -1, -1)], -1)
        fresh = cache is None or not cache.length
        if cache is not None:
            times = torch.cat([time_part(k, c), time_part(v, c)], -1)
            kept = cache.join(torch.cat([latent[:, None], shared], -1), times)
        if not fresh:
            return self.absorbed(content, turned, *kept, mask)
        means = self.means() if run_dtype(v) in HALF else Means()
        if self.training:
            self.means.update(k, v, c)
        q = torch.cat([widened(content), turned], -1)
        o = lorentz_attention(q, k, v, c, scale_of(self), means=means, mask=mask)
        return self.out.of_points(o.flatten(-2))

    def _keys_and_values(self, latent: Float[Tensor, "b L r"]) -> tuple[Tensor, Tensor]:
        """(b, h, L, content) and (b, h, L, value)."""
        both = self.expand(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return both.split([self.content, self.value], -1)

    def absorbed(
        self,
        content: Float[Tensor, "b h L n"],
        turned: Float[Tensor, "b h L p"],
        kept: Float[Tensor, "b 1 K r+p"],
        times: Float[Tensor, "b h K 2"],
        mask: Bool[Tensor, "b 1 L K"] | None = None,
    ) -> Float[Tensor, "b L n"]:
        """Attention of queries over cached latents. With k = W [ℓ₀, ℓ] + b and v = U [ℓ₀, ℓ] + a,

        ⟨q, k⟩ = (Wᵀ q)·[ℓ₀, ℓ] + q_R·k_R - q₀ k₀ + what softmax does not see,   Σ p v = U Σ p [ℓ₀, ℓ] + a.
        """
        c, wide = curvature_of(self.manifold), kept.dtype
        with torch.autocast(kept.device.type, enabled=False):
            latent, shared = kept.split([self.latent, self.rotary], -1)
            latent = lift(latent, c)
            weight = self.expand.weight.to(wide).unflatten(0, (self.heads, -1))
            to_key, to_value = weight.split([self.content, self.value], 1)
            content, turned = content.to(wide), turned.to(wide)
            time = time_part(torch.cat([content, turned], -1), c)
            query = torch.cat([content @ to_key, turned], -1)  # (b, h, L, r+1+p)
            products = query @ torch.cat([latent, shared], -1).mT - time @ times[..., :1].mT
            scores = scale_of(self).to(wide) * products
            p = (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
            bias = self.expand.bias.to(wide).unflatten(0, (self.heads, 1, -1))[..., self.content :]
            space = (p @ latent) @ to_value.mT + bias
            o = space * shrink(p @ times[..., 1:], space, 1.0, c)
        return self.out.of_points(lift(o, c).transpose(1, 2).flatten(-2))
