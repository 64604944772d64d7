"""Flat space, with the interface of the curved ones, so that every Euclidean baseline is the same model."""

from __future__ import annotations

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.base import Space, enter, leave, only_last
from workbench.manifolds.numerics import dot, norm, safe_sqrt


class Euclidean(Space, geoopt.Euclidean):
    """R^d: distances are Euclidean, exp and log are + and -, and both tangent frames are the coordinates."""

    name = "euclidean"
    learnable = False

    def __init__(self) -> None:
        geoopt.Euclidean.__init__(self, ndim=1)

    @property
    def c(self) -> Tensor:
        """0, as a float64 tensor."""
        return torch.zeros((), dtype=torch.float64)

    def ambient_dim(self, dim: int) -> int:
        return dim

    def intrinsic_dim(self, n: int) -> int:
        return n

    def dist(
        self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        """|x - y|, gradient 0 at coincident points."""
        only_last(dim)
        (x, y), dtype = enter(x=x, y=y)
        return leave(norm(x - y), dtype, keepdim)

    def dist0(self, x: Float[Tensor, "... d"], *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """|x|."""
        only_last(dim)
        (x,), dtype = enter(x=x)
        return leave(norm(x), dtype, keepdim)

    def cdist(
        self, x: Float[Tensor, "... n d"], y: Float[Tensor, "... m d"], *, exact: bool = False
    ) -> Tensor:
        """All distances, (..., N, M), from one float64 matrix product about the mean of y.

        Absolute error about 1e-16·R²/d for points within R of that mean; `exact=True` takes differences.
        """
        (x, y), dtype = enter(x=x, y=y)
        if exact:
            return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").to(dtype)
        centre = y.detach().mean(-2, keepdim=True)
        x, y = x - centre, y - centre
        left = torch.cat([-2 * x, dot(x, x), torch.ones_like(x[..., :1])], -1)
        right = torch.cat([y, torch.ones_like(y[..., :1]), dot(y, y)], -1)
        return (left @ right.mT).clamp_min(2.0**-1000).sqrt().to(dtype)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        return safe_sqrt(self.inner(x, u, keepdim=keepdim, dim=dim))

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1
    ) -> Tensor:
        only_last(dim)
        (u, v), dtype = enter(u=u, v=u if v is None else v)
        value = dot(u, v)
        return leave(value.expand(torch.broadcast_shapes(value.shape, (*x.shape[:-1], 1))), dtype, keepdim)

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        return self.inner(x, u, v, keepdim=True)

    def expmap(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        return x + u

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
        return x + u, v

    expmap_transp = retr_transp

    def logmap(self, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        return y - x

    def transp(self, x: Tensor, y: Tensor, v: Tensor, *, dim: int = -1) -> Tensor:
        return v.expand(torch.broadcast_shapes(x.shape, y.shape, v.shape))

    def expmap0(self, u: Tensor, *, dim: int = -1) -> Tensor:
        return u

    def logmap0(self, x: Tensor, *, dim: int = -1) -> Tensor:
        return x

    def from_tangent(self, v: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """v."""
        return v

    def to_tangent(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """x."""
        return x

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y."""
        return x + y

    coadd = add

    def neg(self, x: Tensor) -> Tensor:
        """-x."""
        return -x

    def scale(self, r: float | Tensor, x: Tensor) -> Tensor:
        """r·x; a tensor r has the shape (..., 1) or is 0-dimensional."""
        return r * x

    def geodesic(self, t: float | Tensor, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
        """x + t (y - x); a tensor t has the shape (..., 1) or is 0-dimensional."""
        return x + t * (y - x)

    def centroid(
        self, x: Float[Tensor, "... n d"], weights: Float[Tensor, "... n"] | None = None
    ) -> Float[Tensor, "... d"]:
        """Weighted mean over dimension -2."""
        if weights is None:
            return x.mean(-2)
        if weights.shape[-1] != x.shape[-2]:
            raise ManifoldError(
                f"centroid needs one weight a point: {x.shape[-2]} points, {weights.shape[-1]} weights"
            )
        w = weights.unsqueeze(-1)
        return (w * x).sum(-2) / w.sum(-2)

    def moments(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d+1"]:
        """(1, x), float64: sums of them are all that a centroid needs."""
        x = x.to(torch.float64)
        return torch.cat([torch.ones_like(x[..., :1]), x], -1)

    def from_moments(self, total: Float[Tensor, "... d+1"]) -> Float[Tensor, "... d"]:
        """Mean of the points of whose `moments` this is the weighted sum; the origin for no weight at all."""
        return total[..., 1:] / total[..., :1].clamp_min(2.0**-1000)

    def plane_distances(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """<w_k, x> + b_k: |w_k| times the signed distance of x from hyperplane k."""
        return torch.nn.functional.linear(x, weight, bias)

    def from_plane_distances(self, v: Tensor) -> Tensor:
        """v."""
        return v

    def projx(self, x: Tensor, *, dim: int = -1) -> Tensor:
        return x

    def proju(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    egrad2rgrad = proju

    def _check_point_on_manifold(self, x, *, atol=1e-5, rtol=1e-5):
        return True, None

    def __repr__(self) -> str:
        return "Euclidean()"
