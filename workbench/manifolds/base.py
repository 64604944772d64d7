"""What the three spaces share: curvature, input checks, operations that are compositions of others."""

from __future__ import annotations

import math

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.numerics import Scalar, dot, norm, safe_sqrt, sqrt

_TINY = 2.0**-1000


def checked_curvature(c: float | Tensor) -> float:
    """c as a float, or ManifoldError unless it is a finite positive number."""
    try:
        value = float(c)
    except (TypeError, ValueError, RuntimeError):
        raise ManifoldError(f"curvature c must be one positive number, got {c!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise ManifoldError(
            f"curvature c must be positive and finite (sectional curvature is -c), got {value}"
        )
    return value


def enter(**points: Tensor) -> tuple[list[Tensor], torch.dtype]:
    """Inputs as float64, and the dtype to return: the widest that came, at least float32.

    Raises ManifoldError for what is not a floating point tensor or has no coordinates.
    """
    dtype = torch.float32
    for name, x in points.items():
        if not isinstance(x, Tensor):
            raise ManifoldError(f"{name} must be a tensor of points, got {type(x).__name__}")
        if not x.is_floating_point():
            raise ManifoldError(f"{name} must hold floating point coordinates, got dtype {x.dtype}")
        if x.ndim == 0:
            raise ManifoldError(
                f"{name} must have its coordinates in the last dimension, got a 0-dimensional tensor"
            )
        dtype = torch.promote_types(dtype, x.dtype)
    sizes = {name: x.shape[-1] for name, x in points.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in sizes.items())
        raise ManifoldError(f"last dimensions must agree: {listed} coordinates")
    return [x.to(torch.float64) for x in points.values()], dtype


def leave(value: Tensor, dtype: torch.dtype, keepdim: bool) -> Tensor:
    """A (..., 1) result in the caller's dtype, its last dimension dropped unless kept."""
    return (value if keepdim else value.squeeze(-1)).to(dtype)


def only_last(dim: int) -> None:
    if dim != -1:
        raise ManifoldError(f"coordinates are always the last dimension (dim=-1), got dim={dim}")


class Space(geoopt.manifolds.base.Manifold):
    """Interface common to the three spaces; the package docstring states the conventions."""

    ndim = 1
    reversible = True

    # -- compositions -------------------------------------------------------------------------------------
    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        """x ⊕ (⊖y)."""
        return self.add(x, self.neg(y))

    def translate_to_origin(self, x: Float[Tensor, "... n"], base: Float[Tensor, "... n"]) -> Tensor:
        """Image of x under the translation (an isometry) that carries `base` to the origin."""
        return self.add(self.neg(base), x)

    def dist2(self, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Squared distance."""
        return self.dist(x, y, keepdim=keepdim, dim=dim).square()

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False, dim: int = -1) -> Tensor:
        """Riemannian length of the tangent vector u at x; gradient 0 at u = 0."""
        return safe_sqrt(self.inner(x, u, keepdim=keepdim, dim=dim))

    def retr(self, x: Tensor, u: Tensor, *, dim: int = -1) -> Tensor:
        """The exponential map: optimisers walk true geodesics."""
        return self.expmap(x, u, dim=dim)

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
        y = self.expmap(x, u, dim=dim)
        return y, self.transp(x, y, v, dim=dim)

    expmap_transp = retr_transp

    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1) -> Tensor:
        return self.retr_transp(x, u, v, dim=dim)[1]

    transp_follow_expmap = transp_follow_retr

    def random(
        self,
        n: int | tuple[int, ...],
        dim: int,
        *,
        std: float = 1.0,
        radius: float | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """n random points of the `dim`-dimensional space, as (n, ambient_dim(dim)) coordinates.

        By default a wrapped normal: from_tangent(v) with v ~ N(0, std² I). With `radius` the direction is
        uniform and the distance to the origin uniform on [0, radius]. Drawn in float64, returned in `dtype`
        (torch's default).
        """
        shape = (n, dim) if isinstance(n, int) else (*n, dim)
        v = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
        if radius is None:
            v = v * std
        else:
            r = torch.rand((*shape[:-1], 1), generator=generator, dtype=torch.float64, device=device)
            v = v / v.norm(dim=-1, keepdim=True) * (r * radius)
        dtype = dtype or torch.get_default_dtype()
        with torch.no_grad():
            return self.projx(self.from_tangent(v).to(dtype))

    def random_normal(self, *size, mean: float = 0.0, std: float = 1.0, dtype=None, device=None) -> Tensor:
        """geoopt's `random`: from_tangent of N(mean, std² I); `size` ends in the number of coordinates."""
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        v = torch.randn(*shape[:-1], self.intrinsic_dim(shape[-1]), dtype=dtype, device=device) * std + mean
        return geoopt.ManifoldTensor(self.from_tangent(v), manifold=self)

    # -- checks -------------------------------------------------------------------------------------------
    def check(self, x: Tensor, name: str = "x") -> Tensor:
        """x itself, or ManifoldError saying what came and what was expected; reads the data."""
        enter(**{name: x})
        if x.shape[-1] < self.ambient_dim(1):
            raise ManifoldError(
                f"{name} must have at least {self.ambient_dim(1)} coordinates on {self}, "
                f"got shape {tuple(x.shape)}"
            )
        bad = ~torch.isfinite(x).all(-1)
        if bad.any():
            raise ManifoldError(
                f"{name} must be finite, got NaN or infinity in {int(bad.sum())} of {bad.numel()} points"
            )
        ok, reason = self._check_point_on_manifold(x)
        if not ok:
            raise ManifoldError(f"{name} must lie on {self}: {reason}")
        return x

    def _check_shape(self, shape, name):
        if len(shape) < 1 or shape[-1] < self.ambient_dim(1):
            least = self.ambient_dim(1)
            return False, f"{name} needs at least {least} coordinates on {self}, got shape {tuple(shape)}"
        return True, None

    def assert_check_point(self, x: Tensor) -> None:
        ok, reason = self._check_shape(x.shape, "x")
        if not ok:
            raise ManifoldError(reason)


class Curved(Space):
    """Curvature of the hyperbolic spaces: fixed (a Python float, held exactly) or learnable (c = exp(log_c)).

    Both survive `.half()`, `.to(dtype)`, deepcopy and a state_dict round trip without losing a bit.
    """

    def _init_curvature(self, c: float | Tensor, learnable: bool) -> None:
        torch.nn.Module.__init__(self)
        value = checked_curvature(c)
        self.learnable = bool(learnable)
        if learnable:
            self.log_c = torch.nn.Parameter(torch.tensor(math.log(value), dtype=torch.float64))
        else:
            self._fixed = value
            self.register_buffer("fixed_c", torch.tensor(value, dtype=torch.float64))

    @property
    def c(self) -> Tensor:
        """Curvature magnitude, a 0-dimensional float64 tensor; the sectional curvature is -c."""
        return self.log_c.exp() if self.learnable else self.fixed_c

    @property
    def _c(self) -> Scalar:
        # A Python float costs no kernel and no device transfer, and is a constant under torch.compile.
        return self.log_c.exp() if self.learnable else self._fixed

    def _apply(self, fn, recurse=True):
        def move_only(t: Tensor) -> Tensor:
            moved = fn(t)
            return moved if moved.dtype == t.dtype else t.to(moved.device)

        return super()._apply(move_only, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        if not self.learnable:
            self._fixed = checked_curvature(self.fixed_c)

    def extra_repr(self) -> str:
        return f"c={float(self.c.detach()):g}, learnable={self.learnable}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def cdist(
        self, x: Float[Tensor, "... n k"], y: Float[Tensor, "... m k"], *, exact: bool = False
    ) -> Tensor:
        """All distances between two sets of points, (..., N, M), from one float64 matrix product.

        sinh²(√c d/2) is an inner product of d+2 coordinates; its absolute error is about
        1e-16·exp(√c (r_x + r_y)), hence the relative error of d about that over c d². `exact=True` takes
        coordinate differences instead (no N×M×d intermediate either, several times slower, not twice
        differentiable): as accurate as `dist` in the ball, and to about 1e-16·exp(√c r)/(√c d) on the
        hyperboloid. Gradients are finite at coincident points.
        """
        (x, y), dtype = enter(x=x, y=y)
        c = self._c
        bx, gx = self._disk(x, dtype)
        by, gy = self._disk(y, dtype)
        if exact:
            chord = torch.cdist(bx, by, compute_mode="donot_use_mm_for_euclid_dist")
            half = chord * (sqrt(c) * gx.rsqrt()) * gy.rsqrt().mT
        else:
            left = torch.cat([-2 * c * bx, c * dot(bx, bx), torch.ones_like(gx)], -1) / gx
            right = torch.cat([by, torch.ones_like(gy), c * dot(by, by)], -1) / gy
            half = (left @ right.mT).clamp_min(_TINY).sqrt()
        return (half.asinh() * (2 / sqrt(c))).to(dtype)

    def centroid(
        self, x: Float[Tensor, "... n k"], weights: Float[Tensor, "... n"] | None = None
    ) -> Float[Tensor, "... k"]:
        """Weighted centroid over dimension -2, weights >= 0 (default equal); the same point in both charts.

        It is Σ w x / √(-c <Σ w x, Σ w x>) in the ambient Minkowski space (Law et al. 2019, eq. 10), in the
        ball the gyromidpoint (Ungar 2010). The Minkowski norm cancels when the answer is far from the origin,
        so the sum is taken after translating a first answer to the origin, where nothing cancels.
        """
        (x,), dtype = enter(x=x)
        if x.ndim < 2:
            raise ManifoldError(f"centroid needs points of shape (..., n, k), got {tuple(x.shape)}")
        if weights is None:
            w = torch.ones_like(x[..., :1])
        else:
            if weights.shape[-1] != x.shape[-2]:
                raise ManifoldError(
                    f"centroid needs one weight a point: {x.shape[-2]} points, {weights.shape[-1]} weights"
                )
            w = weights.to(torch.float64).unsqueeze(-1)
        with torch.no_grad():
            base = self._mean(x, w)
            base = self.add(base, self._mean(self.translate_to_origin(x, base.unsqueeze(-2)), w))
        # The identity holds for every base, so that the gradient may take the base for a constant.
        return self.add(base, self._mean(self.translate_to_origin(x, base.unsqueeze(-2)), w)).to(dtype)

    def _mean(self, x: Tensor, w: Tensor) -> Tensor:
        return self.from_moments((w * self.moments(x)).sum(-2))

    def moments(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        """(1, √c x0, x) in hyperboloid coordinates, float64: sums of them are all that a centroid needs."""
        b, g = self._disk(x.to(torch.float64), torch.float64)
        return torch.cat([torch.ones_like(g), (2 - g) / g, 2 * b / g], -1)

    def from_moments(self, total: Float[Tensor, "... m"]) -> Float[Tensor, "... n"]:
        """Centroid of the points, weights >= 0, of whose `moments` this is the weighted sum.

        Exact to about 1e-16·exp(2√c r) for a centroid at distance r from the origin; `centroid` has no such limit.
        """
        c = self._c
        weight, time, space = total[..., :1], total[..., 1:2], total[..., 2:]
        # The Minkowski norm of a sum of unit vectors is at least the sum of the weights.
        mass = torch.maximum(time.square() - c * dot(space, space), weight.square()).clamp_min(_TINY).sqrt()
        up = time + mass
        return self._from_disk(space / up, 2 * mass / up)

    # -- hyperplanes --------------------------------------------------------------------------------------
    def plane_distances(
        self, x: Float[Tensor, "... n"], weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"] | None = None
    ) -> Float[Tensor, "... k"]:
        """|w_k| times the signed distance of x from hyperplane k; <w_k, x> + b_k in flat space.

        Plane k crosses the ray of w_k at the signed distance -b_k/|w_k| from the origin, at right angles.
        Source: Shimizu et al., Hyperbolic Neural Networks++ (2021), section 3.1 (z = w/2, r = -b/(2|w|)); written
        here in hyperboloid coordinates, where it is one matrix product in every chart.
        """
        (x,), dtype = enter(x=x)
        root, planes, w = sqrt(self._c), self.moments(x), weight.to(torch.float64)
        length = norm(w).squeeze(-1)
        safe = length.clamp_min(1e-30)
        side = root * (planes[..., 2:] @ w.mT) / safe
        if bias is not None:
            # Beyond 300 the plane is out of sight of every point, and sinh would soon overflow.
            shift = (root * bias.to(torch.float64) / safe).clamp(-300.0, 300.0)
            side = side * shift.cosh() + planes[..., 1:2] * shift.sinh()
        return (length * side.asinh() / root).to(dtype)

    def from_plane_distances(self, v: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        """The point whose signed distance from each coordinate plane through the origin is v_k; v in flat space.

        Source: Shimizu et al. (2021), section 3.2.
        """
        (v,), dtype = enter(v=v)
        root = sqrt(self._c)
        s = (root * v).clamp(-300.0, 300.0).sinh()  # far beyond the last radius that coordinates resolve
        up = 1 + (1 + dot(s, s)).sqrt()
        return self.projx(self._from_disk(s / (root * up), 2 / up).to(dtype))
