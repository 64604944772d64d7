"""Bricks of networks on the hyperboloid: linear map, norm, residual, embedding, feed-forward.

Between bricks a point travels as its space part, d numbers: it fixes the point to machine precision at any radius,
in half precision too, it cannot leave the manifold, and widths stay what matrix units like. Bricks that read the time
coordinate compute it in float32, where `torch.compile` joins it to the pass that reads the space part anyway; norms
and dropout need none. Where all d+1 coordinates occur, time comes first, and curvature is c > 0 for a sectional
curvature of -c, as in `workbench.manifolds`.

A brick keeps its manifold without owning it: a learned curvature is a parameter of the model that made the manifold.

He et al., *HELM: Hyperbolic Large Language Models via Mixture-of-Curvature Experts* (2025), section 4, Lorentz linear
and residual after Chen et al. (*Fully Hyperbolic Neural Networks*, 2022) and Yang et al. (*Hypformer*, 2024).
"""

from __future__ import annotations

import math

import geoopt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import ManifoldError
from workbench.manifolds import Lorentz
from workbench.manifolds.base import checked_curvature
from workbench.manifolds.lorentz import time_of
from workbench.manifolds.numerics import Scalar, dot, sqrt
from workbench.nn.mamba import whole_numbers, widened


def curvature_of(manifold: Lorentz) -> Scalar:
    """c as a Python float where it is fixed (a constant to the compiler), else as a 0-dimensional tensor."""
    return manifold._c


def time_part(x: Float[Tensor, "... d"], c: Scalar) -> Float[Tensor, "... 1"]:
    """√(1/c + |x|²), float32 at least."""
    return time_of(widened(x), c) / sqrt(c)


class _Lift(torch.autograd.Function):
    """Keeps its result alone for the backward pass, which a linear map behind it keeps anyway."""

    @staticmethod
    def forward(ctx, x, c, dtype):
        point = torch.cat([time_part(x, c).to(dtype), x.to(dtype)], -1)
        ctx.save_for_backward(point, c if isinstance(c, Tensor) else None)
        ctx.dtype = x.dtype
        return point

    @staticmethod
    def backward(ctx, grad):
        point, c = ctx.saved_tensors
        slope = grad[..., :1] / point[..., :1]
        grad_c = None
        if c is not None and ctx.needs_input_grad[1]:
            grad_c = (widened(slope) * (-0.5 / (c * c))).sum_to_size(c.shape).to(c.dtype)
        return torch.addcmul(grad[..., 1:], slope, point[..., 1:]).to(ctx.dtype), grad_c, None


def lift(x: Float[Tensor, "... d"], c: Scalar, dtype: torch.dtype | None = None) -> Float[Tensor, "... d+1"]:
    """The point with this space part, all coordinates, in the dtype of x unless another is given."""
    return _Lift.apply(x, c, dtype or x.dtype)


def run_dtype(x: Tensor) -> torch.dtype:
    """In which products of x are taken: autocast's, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def carry(x: Float[Tensor, "... d"], c_from: Scalar, c_to: Scalar) -> Float[Tensor, "... d"]:
    """The similarity x √(c_from/c_to) between curvatures: `manifolds.rescale_curvature` in the dtype of x."""
    return x * (sqrt(c_from) / sqrt(c_to))


def shrink(
    time: Float[Tensor, "... 1"], space: Float[Tensor, "... d"], weight: Scalar, c: Scalar
) -> Float[Tensor, "... 1"]:
    """k for which k·(time, space) is a point, for a sum of points whose weights, none negative, add up to `weight`.

    k = 1/√(-c⟨z, z⟩). The Minkowski length of such a sum is at least its weight, whatever the points are: what
    cancels to less in float32 is put there. The gradient is that of the formula.
    """
    length = c * (time.square() - dot(space, space))
    least = weight.detach().square() if isinstance(weight, Tensor) else weight**2
    return (length + (length.clamp_min(least) - length).detach()).rsqrt()


class LorentzLinear(nn.Module):
    """y = W [x₀, x] + b on the space part; the time of the result follows from it.

    Args:
        manifold: where x lies. in_dim, out_dim: dimensions of the spaces (coordinates without time).
        points: how many points of in_dim enter together, one after the other (the heads of attention).
        out_manifold: where y lies; y is carried there by the factor √(c_in/c_out). None: where x lies.
        gain: of Xavier's uniform start, √2 in the released HELM; None starts as nn.Linear. The bias starts at 0,
            or as nn.Linear's.

    `weight` is (out_dim, points·(in_dim+1)), as in the released code.
    """

    def __init__(
        self,
        manifold: Lorentz,
        in_dim: int,
        out_dim: int,
        *,
        points: int = 1,
        out_manifold: Lorentz | None = None,
        bias: bool = True,
        gain: float | None = math.sqrt(2),
    ) -> None:
        super().__init__()
        whole_numbers("LorentzLinear", in_dim=in_dim, out_dim=out_dim, points=points)
        keep(self, manifold=manifold, out_manifold=out_manifold or manifold)
        self.in_dim, self.out_dim, self.points = in_dim, out_dim, points
        fan_in = points * (in_dim + 1)
        self.weight = nn.Parameter(torch.empty(out_dim, fan_in))
        self.bias = nn.Parameter(torch.zeros(out_dim)) if bias else None
        if gain is None:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
            if bias:
                nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)
        else:
            nn.init.xavier_uniform_(self.weight, gain=gain)

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        """Space part in, space part out. ManifoldError for another number of coordinates."""
        if self.points != 1 or x.shape[-1] != self.in_dim:
            how = "" if self.points == 1 else ", all coordinates of several by `of_points`"
            raise ManifoldError(
                f"a linear map of {self.points} points of dimension {self.in_dim} needs space parts in the last "
                f"dimension{how}, got shape {tuple(x.shape)}"
            )
        return self.of_points(lift(x, curvature_of(self.manifold), run_dtype(x)))

    def of_points(self, x: Float[Tensor, "... k"]) -> Float[Tensor, "... m"]:
        """The same for points with their time coordinates, where those are at hand."""
        y = F.linear(x, self.weight, self.bias)
        if self.out_manifold is self.manifold:
            return y
        return carry(y, curvature_of(self.manifold), curvature_of(self.out_manifold))

    def extra_repr(self) -> str:
        points = f"{self.points} x " if self.points > 1 else ""
        return f"{points}{self.in_dim} -> {self.out_dim}, bias={self.bias is not None}"


class HyperbolicRMSNorm(nn.RMSNorm):
    """The point whose space part is x / √(mean x²) · g: on space parts, RMSNorm itself.

    With g = 1 the time coordinate is √(d + 1/c) for every token, so that the time column of a linear map behind it is
    a second bias, and no radius reaches a sub-layer. HELM section 4.2; proposition 4.5 (invariant to scale).
    """

    def __init__(self, dim: int, eps: float = 1e-8) -> None:
        super().__init__(dim, eps=eps)


class LorentzResidual(nn.Module):
    """gamma · m with m the point on the ray of x + w y, w = exp(log_weight) > 0, so that the sum stays time-like.

    The stream does not add up: its length is set anew at every sum, and what counts is |y|/|x|. Not associative.

    Args:
        gamma: factor on the space part of m; the released HELM-D has 4√dim, HELM-MiCE √dim.
        learn_gamma: gamma = exp(log_gamma), a parameter.
        flat: x + w y instead, as in flat space and without gamma, for ablations.

    HELM section 4.1 after He et al., *Lorentzian Residual Neural Networks* (2025).
    """

    def __init__(
        self, manifold: Lorentz, gamma: float = 1.0, learn_gamma: bool = False, flat: bool = False
    ) -> None:
        super().__init__()
        keep(self, manifold=manifold)
        self.flat, self.gamma = flat, checked_scale("gamma", gamma)
        self.log_weight = nn.Parameter(torch.zeros(()))
        self.log_gamma = nn.Parameter(torch.tensor(math.log(gamma))) if learn_gamma else None

    def forward(self, x: Float[Tensor, "... d"], y: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        c, w = curvature_of(self.manifold), self.log_weight.exp()
        x, y = widened(x), widened(y)
        if self.flat:
            return torch.addcmul(x, y, w)
        # -c⟨x + wy, x + wy⟩ = 1 + w² + 2w cosh(√c d(x, y)): no sum to keep, and less to cancel when one is longer
        cosh = c * (time_part(x, c) * time_part(y, c) - dot(x, y))
        cosh = cosh + (cosh.clamp_min(1.0) - cosh).detach()
        gamma = self.gamma if self.log_gamma is None else self.log_gamma.exp()
        k = gamma * (1 + w * w + 2 * w * cosh).rsqrt()
        return torch.addcmul(x * k, y, w * k)

    def extra_repr(self) -> str:
        return "flat" if self.flat else f"gamma={self.gamma:g}, learn_gamma={self.log_gamma is not None}"


class LorentzEmbedding(nn.Module):
    """A point for each of `count` tokens, as space parts.

    All start at the distance `radius` from the origin, in random directions.

    Args:
        as_points: hold all coordinates as a `geoopt.ManifoldParameter`, for a Riemannian optimiser; else the space
            parts, a chart of the whole manifold, for any optimiser.
        out_manifold: where the points go, by the factor √(c/c_out).
    """

    def __init__(
        self,
        manifold: Lorentz,
        count: int,
        dim: int,
        *,
        radius: float = 1.0,
        as_points: bool = False,
        out_manifold: Lorentz | None = None,
    ) -> None:
        super().__init__()
        whole_numbers("LorentzEmbedding", count=count, dim=dim)
        keep(self, manifold=manifold, out_manifold=out_manifold or manifold)
        self.as_points = as_points
        root = math.sqrt(float_of(manifold))
        size = math.sinh(root * checked_scale("radius", radius)) / root
        x = F.normalize(torch.randn(count, dim), dim=-1) * size
        if as_points:
            self.weight = geoopt.ManifoldParameter(lift(x, float_of(manifold)), manifold=manifold)
        else:
            self.weight = nn.Parameter(x)

    def forward(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        x = F.embedding(ids, self.weight)
        x = x[..., 1:] if self.as_points else x
        if self.out_manifold is self.manifold:
            return x
        return carry(x, curvature_of(self.manifold), curvature_of(self.out_manifold))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1] - self.as_points}, as_points={self.as_points}"


class HyperbolicFeedForward(nn.Module):
    """SwiGLU on the hyperboloid: down(silu(a) · b) with [a, b] = gate_up(x), both maps Lorentz linear.

    Args:
        dim: of the points. inner: dimension of the hidden point (the released configurations count its time too).
        within: the space in which the layer works, an expert's own; points are carried there and back by factors.

    What a curvature of its own can do: by the identity expert(c'; W, b) = expert(c; sW, W/s, b/s), s = √(c/c'), it is
    a change of scale, but for the time coordinate of the hidden point.
    """

    def __init__(
        self,
        manifold: Lorentz,
        dim: int,
        inner: int,
        *,
        within: Lorentz | None = None,
        gain: float | None = math.sqrt(2),
    ) -> None:
        super().__init__()
        keep(self, manifold=manifold, within=within or manifold)
        self.gate_up = LorentzLinear(self.within, dim, 2 * inner, gain=None)
        self.down = LorentzLinear(self.within, inner, dim, out_manifold=manifold, gain=gain)
        if gain is not None:  # one matrix for two maps: each starts as if it stood alone
            for half in self.gate_up.weight.data.chunk(2):
                nn.init.xavier_uniform_(half, gain=gain)
            nn.init.zeros_(self.gate_up.bias)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        if self.within is not self.manifold:
            x = carry(x, curvature_of(self.manifold), curvature_of(self.within))
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


def keep(module: nn.Module, **manifolds: Lorentz) -> None:
    """Manifolds as plain attributes, not submodules: the model has them once, and files hold them once."""
    for name, manifold in manifolds.items():
        if not isinstance(manifold, Lorentz):
            raise ManifoldError(f"{name} must be a Lorentz space, got {manifold!r}")
        object.__setattr__(module, name, manifold)


def float_of(manifold: Lorentz) -> float:
    """c as a number, at construction (reads the data of a learned one)."""
    return float(manifold.c.detach()) if manifold.learnable else curvature_of(manifold)


def checked_scale(name: str, value: float) -> float:
    """A positive finite number as a float; ManifoldError otherwise."""
    try:
        return checked_curvature(value)
    except ManifoldError:
        raise ManifoldError(f"{name} must be positive and finite, got {value!r}") from None
