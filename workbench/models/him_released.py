"""What the released code of HiM measures with, for a lesson only: points of one curvature, distances of another."""

from __future__ import annotations

import torch
from geoopt.manifolds.lorentz import math as hyperboloid
from geoopt.manifolds.stereographic import math as ball
from torch import Tensor

from workbench.errors import ParameterError


class Released:
    """Stands in for the manifold of points of curvature c: geoopt's formulas at a curvature that is not theirs.

    measure: "loss", a manifold made once at c = 1 while the points follow a learned c; or "score", the released
    evaluator, which hands c to geoopt's Lorentz although its k is 1/c (its ball is right). At c = 1 all is well;
    elsewhere the distance of a point to itself is not 0, and at the wrong side of it a distance may be negative.
    """

    def __init__(self, manifold, measure: str):
        if manifold.name not in ("poincare", "lorentz"):
            raise ParameterError(
                f"the released code knows poincare and lorentz, but came with {manifold.name}"
            )
        self.manifold, self.measure = manifold, measure

    @property
    def c(self) -> Tensor:
        """That of the points, without its gradient: the release reads it as a number."""
        return self.manifold.c.detach()

    def check(self, x: Tensor, name: str = "x") -> Tensor:
        """The points are what they should be; it is the measuring that is not."""
        return self.manifold.check(x, name)

    def _geoopt(self):
        c = self.c if self.measure == "score" else torch.ones_like(self.c)
        return (hyperboloid, c) if self.manifold.name == "lorentz" else (ball, -c)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        space, k = self._geoopt()
        return space.dist(x, y, k=k)

    def dist0(self, x: Tensor) -> Tensor:
        space, k = self._geoopt()
        return space.dist0(x, k=k)
