"""HoPE: rotary positions on the hyperboloid, in real arithmetic, and YaRN for contexts longer than those trained on.

Space coordinates turn in planes by angles position · θ_l; the time coordinate is unchanged, since rotations keep |x|.
So HoPE is an isometry that fixes the origin, and on space parts it is RoPE.

He et al., *HELM* (2025), section 4.3 (not the *HoPE* of 2509.05218, which boosts); Peng et al., *YaRN* (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.nn.mamba import whole_numbers, widened


@dataclass(frozen=True)
class Yarn:
    """How angles are stretched for a longer context.

    original: the context of training. factor: how many times longer; planes that turn fewer than beta_slow times in
    the original context are slowed by it, those that turn more than beta_fast times are not, with a ramp between.
    """

    original: int = 2048
    factor: float = 40.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if not (self.original >= 1 and math.isfinite(self.factor) and self.factor >= 1):
            raise ParameterError(
                f"YaRN needs an original context and a factor of at least 1, but came with {self.original!r} "
                f"and {self.factor!r}"
            )
        if not 0 < self.beta_slow < self.beta_fast:
            raise ParameterError(
                f"YaRN needs 0 < beta_slow < beta_fast, but came with {self.beta_slow!r} and {self.beta_fast!r}"
            )

    @property
    def sharpness(self) -> float:
        """What scores are multiplied by: (0.1 ln factor + 1)²."""
        return (0.1 * math.log(self.factor) + 1) ** 2


def frequencies(dim: int, theta: float = 10000.0, yarn: Yarn | None = None) -> Float[Tensor, "dim/2"]:
    """θ_l = theta^(-2l/dim), float64; with YaRN those of slow planes divided by its factor.

    ParameterError for an odd dim or theta not above 1.
    """
    whole_numbers("HoPE", dim=dim)
    if dim % 2:
        raise ParameterError(f"HoPE turns pairs of coordinates: dim must be even, but is {dim}")
    if not (math.isfinite(theta) and theta > 1):
        raise ParameterError(f"theta must be above 1, but is {theta!r}")
    plane = torch.arange(dim // 2, dtype=torch.float64)
    angles = theta ** (-2 * plane / dim)
    if yarn is None:
        return angles

    def plane_of(turns: float) -> float:
        """Which plane turns this often in the original context."""
        return dim * math.log(yarn.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(plane_of(yarn.beta_fast)), 0)
    high = min(math.ceil(plane_of(yarn.beta_slow)), dim - 1)
    slow = ((plane - low) / max(high - low, 1e-3)).clamp(0, 1)
    return angles * (1 - slow) + angles / yarn.factor * slow


class Rotation(NamedTuple):
    """Cosines and sines of some positions, (batch or 1, 1, length, dim/2): for all heads and layers of a pass."""

    cos: Tensor
    sin: Tensor


class HoPE(nn.Module):
    """The angles of all positions of a context; `forward` looks some up, `rotate` applies them.

    The angles are float64 and stay so when the module is cast: a rounded rotation is none.
    """

    def __init__(self, dim: int, context: int, theta: float = 10000.0, yarn: Yarn | None = None) -> None:
        super().__init__()
        whole_numbers("HoPE", context=context)
        self.dim, self.context = dim, context
        angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies(dim, theta, yarn))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def _apply(self, fn, recurse=True):
        return super()._apply(lambda t: t.to(fn(t).device), recurse)

    def forward(
        self, positions: Int[Tensor, "b L"] | Int[Tensor, "L"], dtype: torch.dtype = torch.float32
    ) -> Rotation:
        """Positions are from 0 to context - 1, one row for all or one a sequence."""
        positions = positions if positions.ndim == 2 else positions[None]
        return Rotation(*(t[positions][:, None].to(dtype) for t in (self.cos, self.sin)))

    def extra_repr(self) -> str:
        return f"{self.dim}, context={self.context}"


def rotate(x: Float[Tensor, "b h L d"], rotation: Rotation) -> Float[Tensor, "b h L d"]:
    """Coordinates l and l + d/2 turn together, by the angle of plane l; float32 at least.

    The released code pairs neighbours, (0, 1), (2, 3), ..: the same map in another order of coordinates.
    """
    a, b = widened(x).chunk(2, -1)
    return torch.cat([a * rotation.cos - b * rotation.sin, b * rotation.cos + a * rotation.sin], -1)
