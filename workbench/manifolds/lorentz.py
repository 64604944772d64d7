"""The hyperboloid of curvature -c: points (x0, x) with |x|² - x0² = -1/c, x0 > 0, time first.

The spatial part alone fixes a point, to machine precision at any radius; the time coordinate is always recomputed from
it. With X = √c x, X0 = √(1+|X|²). Sources: Nickel & Kiela, *Learning Continuous Hierarchies in the Lorentz Model*
(2018); Law et al., *Lorentzian Distance Learning* (2019).
"""

from __future__ import annotations

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.base import Curved, enter, leave, only_last
from workbench.manifolds.numerics import Scalar, asinhc, dot, norm, safe_sqrt, sinhc, sqrt
from workbench.manifolds.poincare import gyrate

# Largest √c·dist0 whose coordinates and their products stay finite.
_EDGE = {torch.float32: 87.0, torch.float64: 350.0}


def time_of(X: Tensor) -> Tensor:
    """√(1 + |X|²)."""
    return (1 + dot(X, X)).sqrt()


def sinh_half(X: Tensor, Y: Tensor) -> Tensor:
    """sinh(d/2) for unit curvature, from spatial parts, each region in the form that does not cancel there."""
    xx, yy, xy = dot(X, X), dot(Y, Y), dot(X, Y)
    x0, y0 = (1 + xx).sqrt(), (1 + yy).sqrt()
    D = X - Y
    radial = dot(D, X + Y)  # |X|² - |Y|²
    # both near the origin: the Minkowski chord
    near = (dot(D, D) - (radial / (x0 + y0)).square()) / 4
    # one near the origin, or opposite sides of it: x0 y0 - 1 - <X, Y>, all terms of one sign or unequal
    apart = ((xx * (y0 + 1) / (x0 + 1) + yy * (x0 + 1) / (y0 + 1)) / 2 - xy) / 2
    # the same side: radial and angular parts
    same = (xy > 0) & (torch.minimum(xx, yy) > 0.25)
    X, xx, yy, xy = (torch.where(same, t, 1.0) for t in (X, xx, yy, xy))
    nx, ny = xx.sqrt(), yy.sqrt()
    k = dot(D, X) / dot(X, X)
    across = D - k * X
    side = (radial / (nx + ny)).square() / (2 * (1 + x0 * y0 + nx * ny)) + dot(across, across) * xx / (
        2 * (nx * ny + xy)
    )
    both_small = (dot(X, X) < 1) & (yy < 1)
    return safe_sqrt(torch.where(same, side, torch.where(both_small, near, apart)))


def translate(X: Tensor, Y: Tensor) -> Tensor:
    """Spatial part of the image of Y under the translation that carries the origin to X (unit curvature)."""
    xx, xy = dot(X, X), dot(X, Y)
    x0, y0 = (1 + xx).sqrt(), time_of(Y)
    direct = Y + X * (y0 + xy / (1 + x0))
    # Y points back across the origin: split along X, so that what cancels is X + Y alone
    back = (xy < 0) & (xx > 1)
    X, xx, xy = (torch.where(back, t, 1.0) for t in (X, xx, xy))
    n = xx.sqrt()
    unit = X / n
    W = X + Y
    along = dot(unit, W)
    across = W - along * unit
    p = -xy / n
    parallel = (along * (n + p) + xx * dot(across, across)) / (n * y0 + x0 * p)
    return torch.where(back, across + parallel * unit, direct)


def pull(X: Tensor, V: Tensor) -> Tensor:
    """Tangent vector at X (spatial part) in the frame at the origin: the differential of the translation back."""
    x0 = time_of(X)
    return V - X * (dot(X, V) / (x0 * (1 + x0)))


def push(X: Tensor, v: Tensor) -> Tensor:
    """Inverse of `pull`."""
    return v + X * (dot(X, v) / (1 + time_of(X)))


class Lorentz(Curved, geoopt.Lorentz):
    """The hyperboloid <x, x> = -1/c with sectional curvature -c; geoopt's k is 1/c.

    `expmap0`, `logmap0` take tangent vectors with d+1 coordinates, time 0 (dist0 = |u|); `from_tangent`, `to_tangent`
    the d coordinates of an orthonormal frame.

    Args:
        c: curvature magnitude, positive; ManifoldError otherwise.
        learnable: c = exp(log_c) with one float64 parameter `log_c`.
    """

    name = "lorentz"

    def __init__(self, c: float | Tensor = 1.0, learnable: bool = False) -> None:
        self._init_curvature(c, learnable)

    @property
    def k(self) -> Tensor:
        """geoopt's name for 1/c."""
        return 1 / self.c

    def ambient_dim(self, dim: int) -> int:
        """Coordinates of a point of the `dim`-dimensional space."""
        return dim + 1

    def intrinsic_dim(self, n: int) -> int:
        """Dimension of the space whose points have n coordinates."""
        return n - 1

    # -- in and out: unit-curvature spatial parts in float64 ------------------------------------------------
    def _spatial(self, **points: Tensor) -> tuple[list[Tensor], torch.dtype]:
        wide, dtype = enter(**points)
        if wide[0].shape[-1] < 2:
            raise ManifoldError(
                f"{next(iter(points))} must have at least 2 coordinates (time first), got {wide[0].shape[-1]}"
            )
        return [x[..., 1:] for x in wide], dtype

    def _point(self, X: Tensor, dtype: torch.dtype) -> Tensor:
        return (torch.cat([time_of(X), X], -1) / sqrt(self._c)).to(dtype)

    def _tangent(self, X: Tensor, V: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.cat([dot(X, V) / time_of(X), V], -1).to(dtype)

    def _disk(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        s = x[..., 1:]
        up = 1 + (1 + self._c * dot(s, s)).sqrt()
        return s / up, 2 / up

    def _from_disk(self, b: Tensor) -> Tensor:
        root = sqrt(self._c)
        return self._point(2 * root * b / (1 - self._c * dot(b, b)), torch.float64)

    # -- distances ----------------------------------------------------------------------------------------
    def dist(
        self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"], *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        """Geodesic distance; gradient 0 at coincident points."""
        only_last(dim)
        (x, y), dtype = self._spatial(x=x, y=y)
        root = sqrt(self._c)
        return leave(sinh_half(root * x, root * y).asinh() * (2 / root), dtype, keepdim)

    def dist0(self, x: Float[Tensor, "... n"], *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Distance to the origin (1/√c, 0, ..., 0)."""
        only_last(dim)
        (x,), dtype = self._spatial(x=x)
        root = sqrt(self._c)
        return leave((root * norm(x)).asinh() / root, dtype, keepdim)

    # -- maps at the origin -------------------------------------------------------------------------------
    def expmap0(
        self, u: Float[Tensor, "... n"], *, project: bool = True, dim: int = -1
    ) -> Float[Tensor, "... n"]:
        """Exponential map at the origin of a tangent vector with time 0: dist0(expmap0(u)) = |u|."""
        only_last(dim)
        (u,), dtype = self._spatial(u=u)
        return self._shoot(u, dtype)

    def _shoot(self, v: Tensor, dtype: torch.dtype) -> Tensor:
        root = sqrt(self._c)
        s = root * norm(v)
        far = s > _EDGE[dtype]
        V = root * v * torch.where(far, _EDGE[dtype] / torch.where(far, s, 1.0), 1.0)
        return self._point(sinhc(s.clamp_max(_EDGE[dtype])) * V, dtype)

    def logmap0(self, x: Float[Tensor, "... n"], *, dim: int = -1) -> Float[Tensor, "... n"]:
        """Inverse of `expmap0`; the time coordinate is 0."""
        v = self.to_tangent(x)
        return torch.cat([torch.zeros_like(v[..., :1]), v], -1)

    def from_tangent(self, v: Float[Tensor, "... d"]) -> Float[Tensor, "... d+1"]:
        """Point at distance |v| from the origin in the direction v (orthonormal frame, d coordinates)."""
        (v,), dtype = enter(v=v)
        return self._shoot(v, dtype)

    def to_tangent(self, x: Float[Tensor, "... d+1"]) -> Float[Tensor, "... d"]:
        """Inverse of `from_tangent`: |to_tangent(x)| = dist0(x)."""
        (x,), dtype = self._spatial(x=x)
        return (asinhc(sqrt(self._c) * norm(x)) * x).to(dtype)

    # -- maps at a point ----------------------------------------------------------------------------------
    def expmap(
        self,
        x: Float[Tensor, "... n"],
        u: Float[Tensor, "... n"],
        *,
        norm_tan: bool = True,
        project: bool = True,
        dim: int = -1,
    ) -> Float[Tensor, "... n"]:
        """Point reached from x along the geodesic with initial velocity u (its spatial part is read)."""
        only_last(dim)
        (x, u), dtype = self._spatial(x=x, u=u)
        root = sqrt(self._c)
        X = root * x
        v = pull(X, root * u)
        return self._point(translate(X, sinhc(norm(v)) * v), dtype)

    def logmap(self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Initial velocity of the geodesic from x that is at y at time 1."""
        only_last(dim)
        (x, y), dtype = self._spatial(x=x, y=y)
        root = sqrt(self._c)
        X, Y = root * x, root * y
        half = sinh_half(X, Y)
        square = half.square()
        U = asinhc(half) * (1 + square).rsqrt() * (Y - X - 2 * square * X)
        return self._tangent(X, U / root, dtype)

    def transp(
        self,
        x: Float[Tensor, "... n"],
        y: Float[Tensor, "... n"],
        v: Float[Tensor, "... n"],
        *,
        dim: int = -1,
    ) -> Float[Tensor, "... n"]:
        """Parallel transport of v from x to y along their geodesic."""
        only_last(dim)
        (x, y, v), dtype = self._spatial(x=x, y=y, v=v)
        root = sqrt(self._c)
        X, Y = root * x, root * y
        upx, upy = 1 + time_of(X), 1 + time_of(Y)
        turned = gyrate(X / upx, Y / upy, pull(X, v), 2 / upx, 2 / upy, 1.0)
        return self._tangent(Y, push(Y, turned), dtype)

    def geodesic(
        self, t: float | Tensor, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"], *, dim: int = -1
    ) -> Float[Tensor, "... n"]:
        """Point at fraction t of the geodesic from x (t=0) to y (t=1); a tensor t is (..., 1) or 0-dimensional."""
        only_last(dim)
        (x, y), dtype = self._spatial(x=x, y=y)
        root = sqrt(self._c)
        X, Y = root * x, root * y
        half = sinh_half(X, Y)
        d = 2 * half.asinh()
        whole = sinhc(d)
        a = (1 - t) * sinhc((1 - t) * d) / whole
        b = t * sinhc(t * d) / whole
        return self._point(a * X + b * Y, dtype)

    # -- gyrovector operations ----------------------------------------------------------------------------
    def add(self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """The translation that carries the origin to x, applied to y; Möbius addition in these coordinates."""
        (x, y), dtype = self._spatial(x=x, y=y)
        root = sqrt(self._c)
        return self._point(translate(root * x, root * y), dtype)

    def neg(self, x: Tensor) -> Tensor:
        """⊖x: the spatial part changes sign."""
        return torch.cat([x[..., :1], -x[..., 1:]], -1)

    def scale(self, r: float | Tensor, x: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """r ⊗ x: r times as far from the origin; a tensor r is (..., 1) or 0-dimensional."""
        (x64,), dtype = enter(x=x)
        return self._shoot(r * self.to_tangent(x64), dtype)

    # -- Riemannian structure -----------------------------------------------------------------------------
    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        """Minkowski product of tangent vectors at x (their spatial parts are read)."""
        only_last(dim)
        (x, u, v), dtype = self._spatial(x=x, u=u, v=u if v is None else v)
        X = sqrt(self._c) * x
        return leave(dot(pull(X, u), pull(X, v)), dtype, keepdim)

    def proju(self, x: Float[Tensor, "... n"], v: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Minkowski-orthogonal projection of an ambient vector on the tangent space at x."""
        only_last(dim)
        (x, v), dtype = enter(x=x, v=v)
        root = sqrt(self._c)
        X, V = root * x[..., 1:], v[..., 1:]
        x0 = time_of(X)
        tangent_time = dot(X, V) / x0
        off = v[..., :1] - tangent_time
        # A vector that is tangent up to the rounding of its own coordinates is left alone.
        noise = 8 * torch.finfo(dtype).eps * (v[..., :1].abs() + norm(V))
        V = V - X * (x0 * torch.where(off.abs() > noise, off, 0.0))
        return self._tangent(X, V, dtype)

    def egrad2rgrad(self, x: Float[Tensor, "... n"], u: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Riemannian gradient from the gradient u of the ambient coordinates."""
        only_last(dim)
        (x, u), dtype = enter(x=x, u=u)
        X = sqrt(self._c) * x[..., 1:]
        g = u[..., 1:] + X * (u[..., :1] / time_of(X))  # total derivative in the spatial coordinates
        return self._tangent(X, g + X * dot(X, g), dtype)

    def projx(self, x: Float[Tensor, "... n"], *, dim: int = -1) -> Float[Tensor, "... n"]:
        """The point with the spatial part of x: its time coordinate is recomputed."""
        only_last(dim)
        (x,), dtype = self._spatial(x=x)
        return torch.cat([(1 / self._c + dot(x, x)).sqrt(), x], -1).to(dtype)

    def origin(self, *size, dtype=None, device=None, seed=42) -> Tensor:
        """The origin repeated: `size` ends in the number of coordinates, time included."""
        shape = torch.Size(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        x = torch.zeros(shape, dtype=dtype, device=device)
        with torch.no_grad():
            x[..., 0] = 1 / sqrt(self._c)
        return geoopt.ManifoldTensor(x, manifold=self)

    def _check_point_on_manifold(self, x, *, atol=1e-5, rtol=1e-5, dim=-1):
        with torch.no_grad():
            expected = self.projx(x)[..., 0]
        off = ((x[..., 0] - expected) / expected).abs()
        worst = int(off.argmax()) if off.numel() else 0
        if not off.numel() or float(off.max()) <= max(rtol, 8 * torch.finfo(x.dtype).eps):
            return True, None
        return False, (
            f"the time coordinate (first) must be √(1/c + |x|²) = {float(expected.flatten()[worst]):.9g},"
            f" got {float(x[..., 0].flatten()[worst]):.9g}"
        )

    def _check_vector_on_tangent(self, x, u, *, atol=1e-5, rtol=1e-5, dim=-1):
        with torch.no_grad():
            expected = self._tangent(*self._scaled(x, u), torch.float64)[..., 0]
        off = (u[..., 0] - expected).abs() > atol + rtol * u.norm(dim=-1)
        return (
            (False, "the time component does not make it Minkowski-orthogonal to x")
            if off.any()
            else (True, None)
        )

    def _scaled(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        (x, u), _ = self._spatial(x=x, u=u)
        return sqrt(self._c) * x, u
