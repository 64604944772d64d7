"""Minimal coordinates in which the gradient of a loss over all pairs is two matrix products.

A loss that sees points only through distances, L(d_ij), has the gradient Σ_j C_ij ∂q_ij/∂x_i with q a function of
an inner product: q = sinh²(√c d/2) in curved space, q = d² in flat space. With a lift of each point to
(time, space) both come out of the same two products of C with the lifts, and neither the N×M×d differences nor an
autograd graph of N×M nodes ever exist. This is what makes a trainer of embeddings fast on a CPU; everything
else should use the manifolds themselves, which this module is tested against.

Curved points are held as unit-curvature hyperboloid coordinates without time, √c x: any radius to machine
precision, the ball and the hyperboloid alike (they are one space in two charts). Sources: Nickel & Kiela 2018
(Riemannian gradient on the hyperboloid, eqs. 5-9).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.manifolds.charts import lorentz_to_poincare, poincare_to_lorentz

_LEAST = 1e-12  # of q: pairs closer than this (d ≈ 2e-6) exert no force in a direction that means anything
_TINY = 1e-30
_BALL_REACH, _REACH = 34.0, 170.0  # √c d(0, x) up to which ball coordinates stay below 1, and squares finite


def _sum(t: Tensor) -> Tensor:
    """Row sums (n, 1): a product with ones is twice as fast as a reduction over so few columns."""
    return torch.mm(t, t.new_ones(t.shape[1], 1))


def _square(t: Tensor) -> Tensor:
    return _sum(t * t)


class Hyperboloid:
    """Pairwise geometry of curvature -c in spatial hyperboloid coordinates s = √c x, (n, dim) float64."""

    def __init__(self, manifold):
        self.manifold, self.c = manifold, float(manifold.c.detach())
        self.unit = math.sqrt(self.c)
        self.reach = _BALL_REACH if manifold.name == "poincare" else _REACH

    def encode(self, points: Tensor) -> Tensor:
        points = points.detach().to(torch.float64)
        if self.manifold.name == "poincare":
            points = poincare_to_lorentz(points, self.c)
        return points[..., 1:] * self.unit

    def decode(self, s: Tensor) -> Tensor:
        x = torch.cat([self.time(s), s], -1) / self.unit
        return lorentz_to_poincare(x, self.c) if self.manifold.name == "poincare" else x

    def time(self, s: Tensor) -> Tensor:
        return (1 + _square(s)).sqrt()

    def lift(self, s: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim+1"]:
        return torch.cat([self.time(s), s], -1)

    def all_pairs(self, a: Tensor, b: Tensor) -> Float[Tensor, "n m"]:
        """q of every pair of lifted points; float32, for elementwise work."""
        a = torch.cat([a[:, :1], -a[:, 1:]], -1)
        return torch.mm(a, b.mT).sub_(1).mul_(0.5).clamp_(min=_LEAST).float()

    def pairs(self, a: Tensor, b: Tensor) -> Float[Tensor, " n"]:
        """q of corresponding lifted points."""
        return ((a[:, 0] * b[:, 0] - _sum(a[:, 1:] * b[:, 1:]).squeeze(-1) - 1) / 2).clamp(min=_LEAST)

    def decay_and_slope(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """exp(-d) and ∂d/∂q."""
        root = (q * (q + 1)).sqrt_()
        decay = (q + root).mul_(2).add_(1).reciprocal_()
        if self.c != 1:
            decay = decay.pow_(1 / self.unit)
        return decay, root.mul_(self.unit).reciprocal_()

    def gradient(self, s: Tensor, pull: Tensor) -> Tensor:
        """∂L/∂s from pull (n, dim+1), which is Σ_j C_ij lift_j with C = ∂L/∂q."""
        return (s / self.time(s) * pull[:, :1] - pull[:, 1:]) / 2

    def step(self, s: Tensor, g: Tensor, rate: Tensor, max_step: float, max_radius: float) -> Tensor:
        """One Riemannian gradient step along a geodesic, no longer than `max_step`, ending within `max_radius`
        and within the chart.

        g (n, dim) is ∂L/∂s; rate (n, 1) the learning rates; lengths in the manifold's distance.
        """
        square = _square(s)
        x0 = (1 + square).sqrt_()
        h = s / square.sqrt().clamp_(min=_TINY)
        radial = _sum(h * g)
        across = g - h * radial
        # Length in the metric: the radial part of a spatial covector is longer by the time coordinate.
        length = rate * self.c * (_square(across) + (x0 * radial).square()).sqrt()
        short = length.clamp(max=max_step * self.unit) / length.clamp(min=_TINY)
        length = (length * short).clamp_(min=_TINY)
        v = (across + h * (radial * x0.square())) * (-rate * self.c * short)
        s = torch.cosh(length) * s + torch.sinh(length) / length * v
        limit = math.sinh(min(max_radius * self.unit, self.reach))
        return s * (limit / s.norm(dim=-1, keepdim=True).clamp(min=limit))


class Flat:
    """The same questions in Euclidean space: q = d², lift (1, x)."""

    def __init__(self, manifold):
        self.manifold, self.c = manifold, 0.0

    def encode(self, points: Tensor) -> Tensor:
        return points.detach().to(torch.float64)

    def decode(self, s: Tensor) -> Tensor:
        return s.clone()

    def time(self, s: Tensor) -> Tensor:
        return torch.ones_like(s[..., :1])

    lift = Hyperboloid.lift

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        left = torch.cat([_square(a[:, 1:]), a[:, :1], -2 * a[:, 1:]], -1)
        right = torch.cat([b[:, :1], _square(b[:, 1:]), b[:, 1:]], -1)
        return torch.mm(left, right.mT).clamp_(min=_LEAST).float()

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return (a[:, 1:] - b[:, 1:]).square().sum(-1).clamp(min=_LEAST)

    def decay_and_slope(self, q: Tensor) -> tuple[Tensor, Tensor]:
        d = q.sqrt()
        return torch.exp(-d), d.mul_(2).reciprocal_()

    def gradient(self, s: Tensor, pull: Tensor) -> Tensor:
        return (s * pull[:, :1] - pull[:, 1:]) * 2

    def step(self, s: Tensor, g: Tensor, rate: Tensor, max_step: float, max_radius: float) -> Tensor:
        move = rate * g
        length = move.norm(dim=-1, keepdim=True)
        s = s - move * (length.clamp(max=max_step) / length.clamp(min=_TINY))
        return s * (max_radius / s.norm(dim=-1, keepdim=True).clamp(min=max_radius))


def pairwise(manifold) -> Hyperboloid | Flat:
    """The pairwise geometry of a manifold."""
    return Flat(manifold) if manifold.name == "euclidean" else Hyperboloid(manifold)
