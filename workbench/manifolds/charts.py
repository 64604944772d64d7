"""Maps between the two charts, between curvatures, and the one place that turns a name into a space."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ManifoldError, suggest
from workbench.manifolds.base import checked_curvature, enter
from workbench.manifolds.euclidean import Euclidean
from workbench.manifolds.lorentz import Lorentz, time_of
from workbench.manifolds.numerics import Scalar, gap, sqrt
from workbench.manifolds.poincare import PoincareBall

SPACES = {"euclidean": Euclidean, "poincare": PoincareBall, "lorentz": Lorentz}


def make(name: str, c: float = 1.0, learnable: bool = False) -> Euclidean | PoincareBall | Lorentz:
    """The space called "euclidean" (c is not used), "poincare" or "lorentz"."""
    if name not in SPACES:
        raise ManifoldError(
            f"unknown space {name!r}, expected one of {', '.join(SPACES)}{suggest(name, SPACES)}"
        )
    return Euclidean() if name == "euclidean" else SPACES[name](c, learnable)


def poincare_to_lorentz(x: Float[Tensor, "... d"], c: Scalar = 1.0) -> Float[Tensor, "... d+1"]:
    """The same point on the hyperboloid of curvature -c: ((2-g)/√c, 2x) / g with g = 1 - c|x|²."""
    (x,), dtype = enter(x=x)
    g = gap(x, c, dtype == torch.float64)
    return torch.cat([(2 - g) / (g * sqrt(c)), 2 * x / g], -1).to(dtype)


def lorentz_to_poincare(x: Float[Tensor, "... d+1"], c: Scalar = 1.0) -> Float[Tensor, "... d"]:
    """The same point in the ball of curvature -c: x / (1 + √c x0), from the spatial part alone."""
    (x,), dtype = enter(x=x)
    if x.shape[-1] < 2:
        raise ManifoldError(f"x must have at least 2 coordinates (time first), got {x.shape[-1]}")
    s = x[..., 1:]
    return (s / (1 + time_of(s, c))).to(dtype)


def rescale_curvature(x: Float[Tensor, "... n"], c_from: Scalar, c_to: Scalar) -> Float[Tensor, "... n"]:
    """The similarity between curvatures: x·√(c_from/c_to), for coordinates of either chart.

    It keeps directions and the dimensionless √c·dist; distances are multiplied by √(c_from/c_to). Its inverse
    is rescale_curvature(x, c_to, c_from).
    """
    (x,), dtype = enter(x=x)
    for c in (c_from, c_to):
        if not isinstance(c, Tensor):
            checked_curvature(c)
    return (x * (sqrt(c_from) / sqrt(c_to))).to(dtype)
