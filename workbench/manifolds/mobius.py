"""geoopt's further names for the ball, in terms of the stable operations, so that nothing inherited clips."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.base import Curved, enter, leave, only_last
from workbench.manifolds.numerics import Scalar, dot, gap, norm, sqrt


def translate(x: Tensor, y: Tensor, gx: Tensor, gy: Tensor, c: Scalar) -> tuple[Tensor, Tensor]:
    """x ⊕ y and its gap; no difference of near-equal numbers but x + y itself."""
    w = x + y
    s = c * dot(w, w)
    g = gx * gy
    return (gx * w + s * x) / (s + g), g / (s + g)


def cotranslate(x: Tensor, y: Tensor, gx: Tensor, gy: Tensor, c: Scalar) -> tuple[Tensor, Tensor]:
    """x ⊞ y = (g(y) x + g(x) y) / (g(x) + g(y) - g(x)g(y)) and its gap, a product of positive terms."""
    w = x - y
    g = gx * gy
    whole = gx + gy - g
    return (gy * x + gx * y) / whole, g * (c * dot(w, w) + g) / whole.square()


def gyrate(x: Tensor, y: Tensor, v: Tensor, gx: Tensor, gy: Tensor, c: Scalar) -> Tensor:
    """gyr[y, -x] v, the rotation of parallel transport from x to y, written with the difference y - x."""
    w = y - x
    square = c * dot(w, w)
    wv, xv = c * dot(w, v), c * dot(x, v)
    return v - 2 * (wv * (w - gx * y) + xv * (gy * w + square * y)) / (square + gx * gy)


class Mobius(Curved):
    """Möbius operations by geoopt's names; `project` is accepted and always true."""

    def _gaps(self, dtype: torch.dtype, *points: Tensor) -> list[Tensor]:
        c = self._c
        return [gap(x, c, dtype == torch.float64) for x in points]

    def lambda_x(self, x: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Conformal factor 2/g(x)."""
        only_last(dim)
        (x,), dtype = enter(x=x)
        return leave(2 / self._gaps(dtype, x)[0], dtype, keepdim)

    def transp0(self, y: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport of u from the origin to y: g(y) u."""
        only_last(dim)
        (y, u), dtype = enter(y=y, u=u)
        return (self._gaps(dtype, y)[0] * u).to(dtype)

    def transp0back(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """Parallel transport of u from x to the origin: u/g(x)."""
        only_last(dim)
        (x, u), dtype = enter(x=x, u=u)
        return (u / self._gaps(dtype, x)[0]).to(dtype)

    def geodesic_unit(
        self, t: float | Tensor, x: Tensor, u: Tensor, *, dim: int = -1, project: bool = True
    ) -> Tensor:
        """Point at distance t from x in the direction u (any length)."""
        return self.expmap(x, t * u / self.norm(x, u, keepdim=True), dim=dim)

    def mobius_add(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """x ⊕ y."""
        only_last(dim)
        return self.add(x, y)

    def mobius_sub(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """x ⊖ y."""
        only_last(dim)
        return self.sub(x, y)

    def mobius_coadd(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """Coaddition x ⊞ y."""
        only_last(dim)
        return self.coadd(x, y)

    def mobius_cosub(self, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """x ⊞ (-y)."""
        return self.mobius_coadd(x, -y, dim=dim)

    def mobius_scalar_mul(
        self, r: float | Tensor, x: Tensor, *, dim: int = -1, project: bool = True
    ) -> Tensor:
        """r ⊗ x."""
        only_last(dim)
        return self.scale(r, x)

    def mobius_fn_apply(
        self, fn: Callable, x: Tensor, *args, dim: int = -1, project: bool = True, **kwargs
    ) -> Tensor:
        """expmap0(fn(logmap0(x)))."""
        (x,), dtype = enter(x=x)
        return self.projx(self.expmap0(fn(self.logmap0(x, dim=dim), *args, **kwargs)).to(dtype))

    def mobius_fn_apply_chain(self, x: Tensor, *fns: Callable, project: bool = True, dim: int = -1) -> Tensor:
        """expmap0 of all functions in turn, applied to logmap0(x)."""

        def chain(v: Tensor) -> Tensor:
            for fn in fns:
                v = fn(v)
            return v

        return self.mobius_fn_apply(chain, x, dim=dim)

    def mobius_matvec(self, m: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """M ⊗ x for a matrix (or batch of matrices) M of shape (..., out, in)."""
        return self.mobius_fn_apply(lambda v: (m.to(v.dtype) @ v.unsqueeze(-1)).squeeze(-1), x, dim=dim)

    def mobius_pointwise_mul(self, w: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Tensor:
        """diag(w) ⊗ x."""
        return self.mobius_fn_apply(lambda v: w * v, x, dim=dim)

    def gyration(self, x: Tensor, y: Tensor, z: Tensor, *, dim: int = -1) -> Tensor:
        """gyr[x, y] z, a rotation of z about the origin."""
        only_last(dim)
        (x, y, z), dtype = enter(x=x, y=y, z=z)
        gx, gy = self._gaps(dtype, x, y)
        return gyrate(-y, x, z, gy, gx, self._c).to(dtype)

    def dist2plane(
        self,
        x: Tensor,
        p: Tensor,
        a: Tensor,
        *,
        dim: int = -1,
        keepdim: bool = False,
        signed: bool = False,
        scaled: bool = False,
    ) -> Tensor:
        """Distance of x from the geodesic hyperplane through p with normal a; `scaled` multiplies by |a|."""
        only_last(dim)
        (x, p, a), dtype = enter(x=x, p=p, a=a)
        c = self._c
        gx, gp = self._gaps(dtype, x, p)
        z, gz = translate(-p, x, gp, gx, c)
        root, length = sqrt(c), norm(a)
        side = dot(z, a) / length.clamp_min(torch.finfo(a.dtype).tiny)
        d = (2 * root * side / gz).asinh() / root
        d = d if signed else d.abs()
        return leave(d * length if scaled else d, dtype, keepdim)

    def weighted_midpoint(
        self,
        xs: Tensor,
        weights: Tensor | None = None,
        *,
        reducedim: list[int] | None = None,
        dim: int = -1,
        keepdim: bool = False,
        lincomb: bool = False,
        posweight: bool = False,
        project: bool = True,
    ) -> Tensor:
        """`centroid` over dimensions `reducedim` (all but the last); weights of shape xs.shape[:-1]."""
        only_last(dim)
        if lincomb or posweight:
            raise ManifoldError(
                "weighted_midpoint takes weights >= 0 and returns the midpoint; got lincomb/posweight"
            )
        over = sorted(d % xs.ndim for d in (range(xs.ndim - 1) if reducedim is None else reducedim))
        w = torch.ones_like(xs[..., 0]) if weights is None else weights.expand(xs.shape[:-1])
        last = list(range(-1 - len(over), -1))
        gathered = xs.movedim(over, last).flatten(-1 - len(over), -2)
        middle = self.centroid(gathered, w.movedim(over, [i + 1 for i in last]).flatten(-len(over), -1))
        for d in over if keepdim else []:
            middle = middle.unsqueeze(d)
        return middle

    def wrapped_normal(self, *size, mean: Tensor, std: float = 1.0, dtype=None, device=None) -> Tensor:
        """expmap at `mean` of normal vectors, deviation `std` in the metric there (Mathieu et al. 2019)."""
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        v = torch.randn(shape, dtype=dtype or mean.dtype, device=device or mean.device) * std
        return self.expmap(mean, v / self.lambda_x(mean, keepdim=True))
