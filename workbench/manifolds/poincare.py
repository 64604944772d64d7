"""The Poincaré ball of curvature -c: points x with c|x|² < 1, in forms that hold up to the boundary.

Everything is written with the gap g(x) = 1 - c|x|², which is the one number that cancels near the boundary,
and is computed once, without cancellation (`numerics.gap`). Sources: Ungar, *Analytic Hyperbolic Geometry*
(2005), ch. 3; Ganea, Bécigneul, Hofmann, *Hyperbolic Neural Networks* (2018), section 2.
"""

from __future__ import annotations

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.manifolds.base import enter, leave, only_last
from workbench.manifolds.mobius import Mobius, cotranslate, gyrate, translate
from workbench.manifolds.numerics import asinhc, dot, gap, norm, safe_sqrt, sqrt, tanhc

# Largest √c|x| that surely rounds to a point inside the ball: dist0 is at most 16.6/√c, respectively 35.3/√c.
_EDGE = {torch.float32: 2.0**-23, torch.float64: 2.0**-50}


def _sech2(s: Tensor) -> Tensor:
    """1/cosh²(s), the gap of expmap0 at length s >= 0; constant beyond 40, where the ball has ended."""
    return s.clamp_max(40.0).cosh().square().reciprocal()


def _inside(z: Tensor, g: Tensor, dtype: torch.dtype) -> Tensor:
    """z in the caller's dtype, pulled in radially where rounding could put it on the boundary."""
    least = _EDGE[dtype] * (2 - _EDGE[dtype])
    out = g < least
    factor = torch.where(out, ((1 - least) / (1 - torch.where(out, g, 0.0))).sqrt(), 1.0)
    return (z * factor).to(dtype)


class PoincareBall(Mobius, geoopt.PoincareBall):
    """The ball of radius 1/√c, sectional curvature -c.

    `expmap0`, `logmap0` use coordinates (dist0 = 2|u|, the metric at the origin is 4·identity);
    `from_tangent`, `to_tangent` an orthonormal frame (dist0 = |v|).

    Args:
        c: curvature magnitude, positive; ManifoldError otherwise.
        learnable: c = exp(log_c) with one float64 parameter `log_c`.
    """

    name = "poincare"

    def __init__(self, c: float | Tensor = 1.0, learnable: bool = False) -> None:
        self._init_curvature(c, learnable)

    def ambient_dim(self, dim: int) -> int:
        """Coordinates of a point of the `dim`-dimensional space."""
        return dim

    def intrinsic_dim(self, n: int) -> int:
        """Dimension of the space whose points have n coordinates."""
        return n

    def _disk(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return x, gap(x, self._c, dtype == torch.float64)

    def _from_disk(self, b: Tensor, g: Tensor) -> Tensor:
        return _inside(b, g, torch.float64)

    # -- distances ----------------------------------------------------------------------------------------
    def dist(
        self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        """Geodesic distance (2/√c) asinh(√c|x-y| / √(g(x)g(y))); gradient 0 at coincident points."""
        only_last(dim)
        (x, y), dtype = enter(x=x, y=y)
        root = sqrt(self._c)
        gx, gy = self._gaps(dtype, x, y)
        half = root * norm(x - y) * (gx * gy).rsqrt()
        return leave(half.asinh() * (2 / root), dtype, keepdim)

    def dist0(self, x: Float[Tensor, "... d"], *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Distance to the origin."""
        only_last(dim)
        (x,), dtype = enter(x=x)
        root = sqrt(self._c)
        (g,) = self._gaps(dtype, x)
        return leave((root * norm(x) * g.rsqrt()).asinh() * (2 / root), dtype, keepdim)

    # -- maps at the origin -------------------------------------------------------------------------------
    def expmap0(
        self, u: Float[Tensor, "... d"], *, project: bool = True, dim: int = -1
    ) -> Float[Tensor, "... d"]:
        """Exponential map at the origin in coordinates: dist0 = 2|u|, up to the last radius of the dtype."""
        only_last(dim)
        (u,), dtype = enter(u=u)
        s = sqrt(self._c) * norm(u)
        return _inside(tanhc(s) * u, _sech2(s), dtype)

    def logmap0(self, x: Float[Tensor, "... d"], *, dim: int = -1) -> Float[Tensor, "... d"]:
        """Inverse of `expmap0`."""
        only_last(dim)
        (x,), dtype = enter(x=x)
        (g,) = self._gaps(dtype, x)
        h = g.rsqrt()
        return (asinhc(sqrt(self._c) * norm(x) * h) * h * x).to(dtype)

    def from_tangent(self, v: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Point at distance |v| from the origin in the direction v (orthonormal frame)."""
        return self.expmap0(v / 2)

    def to_tangent(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Inverse of `from_tangent`: |to_tangent(x)| = dist0(x)."""
        return 2 * self.logmap0(x)

    # -- maps at a point ----------------------------------------------------------------------------------
    def expmap(
        self, x: Float[Tensor, "... d"], u: Float[Tensor, "... d"], *, project: bool = True, dim: int = -1
    ) -> Float[Tensor, "... d"]:
        """Point reached from x along the geodesic with initial velocity u (coordinates)."""
        only_last(dim)
        (x, u), dtype = enter(x=x, u=u)
        c = self._c
        (gx,) = self._gaps(dtype, x)
        s = sqrt(c) * norm(u) / gx
        return _inside(*translate(x, tanhc(s) / gx * u, gx, _sech2(s), c), dtype)

    def logmap(self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, dim: int = -1) -> Tensor:
        """Initial velocity (coordinates) of the geodesic from x that is at y at time 1."""
        only_last(dim)
        (x, y), dtype = enter(x=x, y=y)
        c = self._c
        gx, gy = self._gaps(dtype, x, y)
        w = y - x
        square = c * dot(w, w)
        g = gx * gy
        half = safe_sqrt(square) * g.rsqrt()
        return (gx * asinhc(half) * (gx * w - square * x) * ((square + g) * g).rsqrt()).to(dtype)

    def transp(
        self,
        x: Float[Tensor, "... d"],
        y: Float[Tensor, "... d"],
        v: Float[Tensor, "... d"],
        *,
        dim: int = -1,
    ) -> Float[Tensor, "... d"]:
        """Parallel transport of v from x to y along their geodesic: (g(y)/g(x)) gyr[y, -x] v."""
        only_last(dim)
        (x, y, v), dtype = enter(x=x, y=y, v=v)
        gx, gy = self._gaps(dtype, x, y)
        return (gy / gx * gyrate(x, y, v, gx, gy, self._c)).to(dtype)

    def geodesic(
        self, t: float | Tensor, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, dim: int = -1
    ) -> Float[Tensor, "... d"]:
        """Point at fraction t of the geodesic from x to y; a tensor t is (..., 1) or 0-dimensional."""
        only_last(dim)
        (x, y), dtype = enter(x=x, y=y)
        return self.projx(self.expmap(x, t * self.logmap(x, y)).to(dtype))

    # -- gyrovector operations ----------------------------------------------------------------------------
    def add(self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Möbius addition x ⊕ y: the translation that carries the origin to x, applied to y."""
        (x, y), dtype = enter(x=x, y=y)
        gx, gy = self._gaps(dtype, x, y)
        return _inside(*translate(x, y, gx, gy, self._c), dtype)

    def coadd(self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Coaddition x ⊞ y, commutative, which undoes ⊖ on the right: (y ⊖ x) ⊞ x = y (Ungar 2005, ch. 2)."""
        (x, y), dtype = enter(x=x, y=y)
        gx, gy = self._gaps(dtype, x, y)
        return _inside(*cotranslate(x, y, gx, gy, self._c), dtype)

    def neg(self, x: Tensor) -> Tensor:
        """⊖x = -x."""
        return -x

    def scale(self, r: float | Tensor, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Möbius scalar multiplication expmap0(r logmap0(x)); a tensor r is (..., 1) or 0-dimensional."""
        (x,), dtype = enter(x=x)
        return self.expmap0(r * self.logmap0(x)).to(dtype)

    # -- Riemannian structure -----------------------------------------------------------------------------
    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        """Inner product (2/g(x))² <u, v> of tangent vectors at x."""
        only_last(dim)
        (x, u, v), dtype = enter(x=x, u=u, v=u if v is None else v)
        (g,) = self._gaps(dtype, x)
        return leave(dot(u, v) * (2 / g).square(), dtype, keepdim)

    def egrad2rgrad(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Riemannian gradient (g(x)/2)² u from the gradient u of the coordinates."""
        only_last(dim)
        (x, u), dtype = enter(x=x, u=u)
        (g,) = self._gaps(dtype, x)
        return ((g / 2).square() * u).to(dtype)

    def proju(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """u: every vector is tangent to the ball."""
        only_last(dim)
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def projx(self, x: Float[Tensor, "... d"], *, dim: int = -1) -> Float[Tensor, "... d"]:
        """x where it is inside the last radius of its dtype, to the bit; else pulled in radially."""
        only_last(dim)
        (x,), dtype = enter(x=x)
        size = sqrt(self._c) * norm(x)
        most = 1 - _EDGE[dtype]
        return (x * torch.where(size > most, most / size.clamp_min(most), 1.0)).to(dtype)

    def origin(self, *size, dtype=None, device=None, seed=42) -> Tensor:
        """The origin repeated: `size` ends in the number of coordinates."""
        shape = torch.Size(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        return geoopt.ManifoldTensor(torch.zeros(shape, dtype=dtype, device=device), manifold=self)

    def _check_point_on_manifold(self, x, *, atol=1e-5, rtol=1e-5, dim=-1):
        size = (
            (self.c.detach().to(x.device).sqrt() * norm(x.detach().to(torch.float64))).max()
            if x.numel()
            else 0.0
        )
        if float(size) < 1:
            return True, None
        return False, f"c|x|² must be below 1, got {float(size) ** 2:.9g}"
