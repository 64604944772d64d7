"""A picture of a space of many dimensions: its shadow on the hyperbolic plane that keeps most of it.

The plane goes through the origin along two directions. A point's shadow is the nearest point of the plane, so that no
distance grows: what lies apart in the picture lies at least as far apart in the space, but what falls together may
not. In two dimensions nothing is lost.

On the hyperboloid of unit curvature, with the spatial part split into p in the plane and r across it, the shadow of
(T, p, r) is (T, p) / √(1 + |r|²); in Klein coordinates s/T it is the linear projection. (Not the same as shortening
the tangent vector at the origin, under which distances can grow.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ManifoldError
from workbench.manifolds.base import Curved
from workbench.manifolds.chords import sides, spatial
from workbench.manifolds.poincare import PoincareBall

FARTHEST = 12.0  # radius at which stretched points stand that would lie beyond: nobody sees the difference
MANY = 2000  # points among which neighbours are looked for


@dataclass(frozen=True)
class Plane:
    """A hyperbolic plane through the origin of `manifold`.

    axes: (d, 2), orthonormal. stretch: radii are drawn so many times as long; near the origin, where space
    is almost flat, this is an enlargement.
    """

    manifold: Any
    axes: Float[Tensor, "d 2"]
    stretch: float = 1.0

    def ball(self, points: Float[Tensor, "n k"]) -> np.ndarray:
        """(n, 2) float64 shadows of points in the unit Poincaré ball, whatever chart and curvature they come in."""
        s = _unit(self.manifold, points)
        p = s @ self.axes
        p = p / (1 + (s - p @ self.axes.T).square().sum(-1, keepdim=True)).sqrt()
        sinh = p.norm(dim=-1, keepdim=True)
        far = self.stretch * sinh.asinh()
        length = ((far.clamp_max(FARTHEST) if self.stretch > 1 else far) / 2).tanh()
        return (p * length / sinh.clamp_min(1e-300)).cpu().numpy()

    def stretched(self, points: Float[Tensor, "n k"], reach: float = 2.0) -> Plane:
        """The same plane with radii drawn so long that 99 % of these points lie within radius `reach`; never shorter
        than they are."""
        shadow = np.linalg.norm(replace(self, stretch=1.0).ball(points), axis=1)
        far = np.quantile(2 * np.arctanh(shadow), 0.99)
        return replace(self, stretch=float(max(1.0, reach / far)) if far else 1.0)

    def kept(self, points: Float[Tensor, "n k"], neighbours: int = 10) -> float:
        """Share of each point's nearest neighbours that are among its nearest in the picture, from 0 to 1; by chance
        it is neighbours/(n − 1). Of more than 2,000 points, among 2,000 of them.
        ManifoldError for no more points than neighbours."""
        if len(points) > MANY:
            points = points[np.random.default_rng(0).choice(len(points), MANY, replace=False)]
        n = len(points)
        if not 0 < neighbours < n:
            raise ManifoldError(f"neighbours must be from 1 to {n - 1} for {n} points, but is {neighbours}")
        drawn = torch.from_numpy(self.ball(points))
        true, shown = (_near(m, x, neighbours) for m, x in ((self.manifold, points), (PoincareBall(), drawn)))
        both = torch.zeros(n, n, dtype=torch.bool).scatter_(1, true, True).gather(1, shown)
        return float(both.double().mean())


def plane_of(manifold, points: Float[Tensor, "n k"]) -> Plane:
    """The plane whose shadows have the largest mean square in Klein coordinates; in two dimensions all there is.

    ManifoldError for a flat space or one dimension, which have no hyperbolic plane.
    """
    if not isinstance(manifold, Curved):
        raise ManifoldError(f"a flat space has no hyperbolic plane to draw, and {manifold!r} is flat")
    s = _unit(manifold, points)
    d = s.shape[-1]
    if d < 2:
        raise ManifoldError(f"a plane needs at least 2 dimensions, but the points have {d}")
    if d == 2:
        return Plane(manifold, torch.eye(2, dtype=s.dtype, device=s.device))
    klein = s / (1 + s.square().sum(-1, keepdim=True)).sqrt()
    axes = torch.linalg.eigh(klein.T @ klein).eigenvectors[:, [-1, -2]]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))  # signs are free: fixed here
    return Plane(manifold, axes * largest.sign())


@torch.no_grad()
def _unit(manifold, points: Tensor) -> Float[Tensor, "n d"]:
    """Spatial coordinates on the hyperboloid of curvature −1."""
    return manifold.c.detach().sqrt() * spatial(manifold, points.detach().double())


@torch.no_grad()
def _near(manifold, points: Tensor, k: int) -> Tensor:
    """(n, k) nearest others; distances grow with the product of `sides`."""
    left, right = sides(manifold, spatial(manifold, points.detach().double()))
    q = left @ right.T
    return q.fill_diagonal_(torch.inf).topk(k, largest=False).indices.cpu()
