"""The hyperboloid of curvature -c: points (x0, x) with |x|² - x0² = -1/c, x0 > 0, time first.

The spatial part alone fixes a point, to machine precision at any radius; the time coordinate is always
recomputed from it. Sources: Nickel & Kiela, *Learning Continuous Hierarchies in the Lorentz Model* (2018);
Law et al., *Lorentzian Distance Learning* (2019).
"""

from __future__ import annotations

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.base import Curved, enter, leave, only_last
from workbench.manifolds.mobius import cotranslate, gyrate
from workbench.manifolds.numerics import (
    Scalar,
    asinh,
    asinhc,
    detached,
    dot,
    norm,
    rejection,
    safe_sqrt,
    sinhc,
    sqrt,
)

# Largest |x| of a point that is made, so that its square is finite (at c = 1, radius 88 and 346).
_LARGEST = {torch.float32: 1e38, torch.float64: 1e150}


def time_of(x: Tensor, c: Scalar) -> Tensor:
    """√c x0 = √(1 + c|x|²) from the spatial part."""
    return (1 + c * dot(x, x)).sqrt()


def sinh_half(x: Tensor, y: Tensor, c: Scalar, exact: bool) -> Tensor:
    """sinh(√c d/2) from spatial parts, each region in the form that does not cancel there."""
    xx, yy, xy = c * dot(x, x), c * dot(y, y), c * dot(x, y)
    x0, y0 = (1 + xx).sqrt(), (1 + yy).sqrt()
    d = x - y
    dd, dx = c * dot(d, d), c * dot(d, x)
    radial = 2 * dx - dd  # |x|² - |y|², of which only digits below those of |d|² cancel
    # both near the origin: the Minkowski chord
    near = (dd - (radial / (x0 + y0)).square()) / 4
    # one near the origin, or opposite sides of it: x0 y0 - 1 - <x, y>, all terms of one sign or unequal
    apart = (xx / (x0 + 1) * (y0 + 1) + yy / (y0 + 1) * (x0 + 1)) / 4 - xy / 2
    close = torch.where((xx < 1) & (yy < 1), near, apart)
    # the same side: radial and angular parts
    same = (xy > 0) & (torch.minimum(xx, yy) > 0.25)
    xx, yy, xy = xx.clamp_min(0.25), yy.clamp_min(0.25), xy.clamp_min(0.0)  # where not: finite, and not read
    nx, ny = xx.sqrt(), yy.sqrt()
    across = rejection(x, y, dx / xx, exact)
    angular = c * dot(across, across) * (xx / (2 * (nx * ny + xy)))
    side = (radial / (nx + ny)).square() / (2 * (1 + x0 * y0 + nx * ny)) + angular
    return safe_sqrt(torch.where(same, side, close))


def translate(x: Tensor, y: Tensor, c: Scalar) -> Tensor:
    """Spatial part of the image of y under the translation that carries the origin to x."""
    xx, xy = c * dot(x, x), c * dot(x, y)
    x0, y0 = (1 + xx).sqrt(), time_of(y, c)
    direct = y + x * (y0 + xy / (1 + x0))
    # y points back across the origin: split along x, so that what cancels is x + y alone
    back = (xy < 0) & (xx > 1)
    xx, p = xx.clamp_min(1.0), (-xy).clamp_min(0.0)  # where not: finite, and not read
    n = xx.sqrt()
    p = p / n
    w = x + y
    along = c * dot(x, w) / n
    across = w - x * (along / n)
    whole = n * y0 + x0 * p
    parallel = along * ((n + p) / whole) + c * dot(across, across) * (xx / whole)
    return torch.where(back, across + x * (parallel / n), direct)


def pull(x: Tensor, u: Tensor, c: Scalar) -> Tensor:
    """Tangent vector at x (spatial part) in the frame at the origin: differential of the translation back."""
    x0 = time_of(x, c)
    return u - x * (c * dot(x, u) / (x0 * (1 + x0)))


def push(x: Tensor, v: Tensor, c: Scalar) -> Tensor:
    """Inverse of `pull`."""
    return v + x * (c * dot(x, v) / (1 + time_of(x, c)))


class Lorentz(Curved, geoopt.Lorentz):
    """The hyperboloid <x, x> = -1/c with sectional curvature -c; geoopt's k is 1/c.

    `expmap0`, `logmap0` take tangent vectors with d+1 coordinates, time 0 (dist0 = |u|); `from_tangent`,
    `to_tangent` the d coordinates of an orthonormal frame.

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

    # -- in and out: spatial parts in float64 ---------------------------------------------------------------
    def _spatial(self, **points: Tensor) -> tuple[list[Tensor], torch.dtype]:
        wide, dtype = enter(**points)
        if wide[0].shape[-1] < 2:
            name = next(iter(points))
            raise ManifoldError(
                f"{name} must have at least 2 coordinates (time first), got {wide[0].shape[-1]}"
            )
        return [x[..., 1:] for x in wide], dtype

    def _point(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.cat([(1 / self._c + dot(x, x)).sqrt(), x], -1).to(dtype)

    def _tangent(self, x: Tensor, u: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.cat([sqrt(self._c) * dot(x, u) / time_of(x, self._c), u], -1).to(dtype)

    def _disk(self, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x = x[..., 1:]
        up = 1 + time_of(x, self._c)
        return x / up, 2 / up

    def _from_disk(self, b: Tensor, g: Tensor) -> Tensor:
        return self._point(2 * b / g, torch.float64)

    # -- distances ----------------------------------------------------------------------------------------
    def dist(
        self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"], *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        """Geodesic distance; gradient 0 at coincident points."""
        only_last(dim)
        (x, y), dtype = self._spatial(x=x, y=y)
        half = sinh_half(x, y, self._c, dtype == torch.float64)
        return leave(half.asinh() * (2 / sqrt(self._c)), dtype, keepdim)

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
        end = asinh(detached(root) * _LARGEST[dtype])
        s = root * norm(v)
        far = s > end
        v = v * torch.where(far, end / torch.where(far, s, 1.0), 1.0)
        return self._point(sinhc(torch.where(far, end, s)) * v, dtype)

    def _within(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The point, pulled in radially where its coordinates would overflow."""
        shrink = 2.0**-512  # so that squares of anything finite are finite
        size, most = norm(x * shrink), _LARGEST[dtype] * shrink
        far = size > most
        return self._point(x * torch.where(far, most / torch.where(far, size, 1.0), 1.0), dtype)

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
        c = self._c
        v = pull(x, u, c)
        s = sqrt(c) * norm(v)
        return self._within(translate(x, sinhc(s.clamp_max(700.0)) * v, c), dtype)

    def logmap(self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Initial velocity of the geodesic from x that is at y at time 1."""
        only_last(dim)
        (x, y), dtype = self._spatial(x=x, y=y)
        half = sinh_half(x, y, self._c, dtype == torch.float64)
        cosh_half = (1 + half.square()).sqrt()
        # d/sinh(d) (y - x) - d tanh(d/2) x, which is log_x(y) with cosh(d) - 1 written as 2 sinh²(d/2)
        u = asinhc(half) / cosh_half * (y - x) - 2 * half.asinh() * (half / cosh_half) * x
        return self._tangent(x, u, dtype)

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
        c = self._c
        up_x, up_y = 1 + time_of(x, c), 1 + time_of(y, c)
        turned = gyrate(x / up_x, y / up_y, pull(x, v, c), 2 / up_x, 2 / up_y, c)
        return self._tangent(y, push(y, turned, c), dtype)

    def transp0(self, y: Float[Tensor, "... n"], u: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Parallel transport of u from the origin to y."""
        only_last(dim)
        (y, u), dtype = self._spatial(y=y, u=u)
        return self._tangent(y, push(y, u, self._c), dtype)

    def transp0back(self, x: Float[Tensor, "... n"], u: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Parallel transport of u from x to the origin; the time coordinate is 0."""
        only_last(dim)
        (x, u), dtype = self._spatial(x=x, u=u)
        v = pull(x, u, self._c)
        return torch.cat([torch.zeros_like(v[..., :1]), v], -1).to(dtype)

    def geodesic_unit(self, t: float | Tensor, x: Tensor, u: Tensor, *, dim: int = -1, project: bool = True):
        """Point at distance t from x in the direction u (any length)."""
        return self.expmap(x, t * u / self.norm(x, u, keepdim=True), dim=dim)

    def geodesic(
        self, t: float | Tensor, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"], *, dim: int = -1
    ) -> Float[Tensor, "... n"]:
        """Point at fraction t of the geodesic from x to y; a tensor t is (..., 1) or 0-dimensional."""
        only_last(dim)
        (x, y), dtype = self._spatial(x=x, y=y)
        d = 2 * sinh_half(x, y, self._c, dtype == torch.float64).asinh()
        from_x = (1 - t) * sinhc((1 - t) * d) / sinhc(d)
        from_y = t * sinhc(t * d) / sinhc(d)
        return self._point(from_x * x + from_y * y, dtype)

    # -- gyrovector operations ----------------------------------------------------------------------------
    def add(self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """The translation that carries the origin to x, applied to y (Möbius addition on this chart)."""
        (x, y), dtype = self._spatial(x=x, y=y)
        return self._within(translate(x, y, self._c), dtype)

    def coadd(self, x: Float[Tensor, "... n"], y: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """Coaddition x ⊞ y of the ball, on this chart: (y ⊖ x) ⊞ x = y."""
        (x, y), dtype = enter(x=x, y=y)
        (bx, gx), (by, gy) = self._disk(x, dtype), self._disk(y, dtype)
        b, g = cotranslate(bx, by, gx, gy, self._c)
        return self._from_disk(b, g).to(dtype)

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
        return leave(dot(pull(x, u, self._c), pull(x, v, self._c)), dtype, keepdim)

    def proju(self, x: Float[Tensor, "... n"], v: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Minkowski-orthogonal projection of an ambient vector on the tangent space at x."""
        only_last(dim)
        (x, v), dtype = enter(x=x, v=v)
        x, time, v = x[..., 1:], v[..., :1], v[..., 1:]
        root = sqrt(self._c)
        x0 = time_of(x, self._c)
        off = time - root * dot(x, v) / x0
        # A vector that is tangent up to the rounding of its own coordinates is left alone.
        noise = 8 * torch.finfo(dtype).eps * (time.abs() + norm(v))
        v = v - x * (root * x0 * torch.where(off.abs() > noise, off, 0.0))
        return self._tangent(x, v, dtype)

    def egrad2rgrad(self, x: Float[Tensor, "... n"], u: Float[Tensor, "... n"], *, dim: int = -1) -> Tensor:
        """Riemannian gradient from the gradient u of the ambient coordinates."""
        only_last(dim)
        (x, u), dtype = enter(x=x, u=u)
        x, time, u = x[..., 1:], u[..., :1], u[..., 1:]
        c = self._c
        total = u + x * (
            sqrt(c) * time / time_of(x, c)
        )  # the time coordinate is a function of the spatial ones
        return self._tangent(x, total + x * (c * dot(x, total)), dtype)

    def projx(self, x: Float[Tensor, "... n"], *, dim: int = -1) -> Float[Tensor, "... n"]:
        """The point with the spatial part of x: its time coordinate is recomputed."""
        only_last(dim)
        (x,), dtype = self._spatial(x=x)
        return self._point(x, dtype)

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
            f"the time coordinate (first) must be √(1/c + |x|²) = {float(expected.flatten()[worst]):.6g},"
            f" got {float(x[..., 0].flatten()[worst]):.6g}"
        )

    def _check_vector_on_tangent(self, x, u, *, atol=1e-5, rtol=1e-5, dim=-1):
        with torch.no_grad():
            (xs, us), _ = self._spatial(x=x, u=u)
            expected = self._tangent(xs, us, torch.float64)[..., 0]
        off = (u[..., 0] - expected).abs() > atol + rtol * u.norm(dim=-1)
        return (
            (False, "the time component does not make it Minkowski-orthogonal to x")
            if off.any()
            else (True, None)
        )
