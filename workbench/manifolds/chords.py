"""All distances between two sets of points from one matrix product, in the precision of the caller.

For spatial hyperboloid coordinates s (|s| = sinh(√c r)/√c) with T = √(1 + c|s|²) and a = (T - 1)/c,

    q(x, y) = -1/c - <x, y>_L = a_x T_y + a_y - <s_x, s_y>,

half the squared Lorentzian distance (Law et al., *Lorentzian Distance Learning*, 2019). Distances grow with q:
d = (2/√c) asinh √(c q/2). At c = 0 the same line is |x - y|²/2, so that flat space needs no second formula. Nothing
is subtracted from 1: near the origin all digits survive, and at radius r the absolute error is that of the product,
about ε exp(√c (r_x + r_y))/(4 c); float32 is good up to √c r = 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.manifolds.base import Curved
from workbench.manifolds.charts import lorentz_to_poincare
from workbench.manifolds.numerics import dot, norm, tanhc

_LEAST = 1e-30  # of c q/2: rounding makes the q of coincident points 0 or less


def spatial(manifold, x: Float[Tensor, "... n"]) -> Float[Tensor, "... d"]:
    """Spatial hyperboloid coordinates of points of either chart, float64; flat points are themselves."""
    return manifold.moments(x)[..., -manifold.intrinsic_dim(x.shape[-1]) :]


def from_spatial(manifold, s: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
    """Inverse of `spatial`, in the dtype that came."""
    if not isinstance(manifold, Curved):
        return s
    x = torch.cat([torch.zeros_like(s[..., :1]), s], -1)
    return manifold.projx(x) if manifold.name == "lorentz" else lorentz_to_poincare(x, manifold.c)


def capped(manifold, v: Float[Tensor, "... d"], cap: float) -> Float[Tensor, "... d"]:
    """Tangent vectors at the origin whose length r becomes (cap/√c) tanh(√c r/cap): smooth, and below cap in unit
    curvature. In flat space, and for cap 0 (none), as they are."""
    if not cap or not isinstance(manifold, Curved):
        return v
    wide = v.to(torch.float64)
    return (wide * tanhc(manifold.c.sqrt() * norm(wide) / cap)).to(v.dtype)


def sides(manifold, s: Float[Tensor, "... d"]) -> tuple[Float[Tensor, "... d+2"], Float[Tensor, "... d+2"]]:
    """Float64 factors of q: q(x, y) = <sides(s_x)[0], sides(s_y)[1]>."""
    s = s.to(torch.float64)
    time = (1 + manifold.c * dot(s, s)).sqrt()
    a, one = dot(s, s) / (1 + time), torch.ones_like(time)
    return torch.cat([a, one, -s], -1), torch.cat([time, a, s], -1)


def squared_distance(manifold, q: Tensor) -> Tensor:
    """d² from q, elementwise, in the dtype of q. ∂d²/∂q is 2 at q = 0, where rounding below 0 counts as 0."""
    return _SquaredDistance.apply(q, manifold.c) if isinstance(manifold, Curved) else 2 * q


class _SquaredDistance(torch.autograd.Function):
    """4 asinh²(√u)/c with u = c q/2; written by hand, since over all items at once every pass counts."""

    @staticmethod
    def forward(ctx, q: Tensor, c: Tensor) -> Tensor:
        d2 = (q * (c / 2)).clamp_min_(_LEAST).sqrt_().asinh_().square_().mul_(4 / c)
        ctx.save_for_backward(q, d2, c)
        return d2

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        q, d2, c = ctx.saved_tensors
        u = (q * (c / 2)).clamp_min_(_LEAST)
        slope = (d2 * c).div_(u.addcmul_(u, u)).sqrt_()  # ∂d²/∂q = 2 asinh(√u)/√(u (1 + u))
        to_q = grad * slope
        to_c = ((to_q * q).sum(dtype=c.dtype) - (grad * d2).sum(dtype=c.dtype)) / c
        return to_q, to_c if ctx.needs_input_grad[1] else None
