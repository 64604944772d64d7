"""Points that an optimiser moves: held as tangent vectors at the origin, or as themselves."""

from __future__ import annotations

import geoopt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.manifolds.base import Curved


class Movable(nn.Module):
    """Rows of points of `self.manifold`, in float64; what a table and a codebook have in common.

    `tangent` holds them as tangent vectors at the origin, for any optimiser. While a Riemannian one is at work,
    `place` (a `geoopt.ManifoldParameter`) holds the points themselves. One of the two is None. Either state can be
    loaded into a module that holds tangent vectors.
    """

    def _hold(self, tangent: Float[Tensor, "n d"], trainable: bool = True) -> None:
        self.tangent = nn.Parameter(tangent, requires_grad=trainable)
        self.register_parameter("place", None)

    @property
    def held(self) -> nn.Parameter:
        """The parameter, whichever it is."""
        return self.tangent if self.place is None else self.place

    def located(self, rows: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n k"]:
        """The points of all rows, or of these; differentiable in the parameter."""
        x = self.held if rows is None else self.held[rows]
        return self.manifold.from_tangent(x) if self.place is None else x

    @torch.no_grad()
    def put(self, points: Float[Tensor, "n k"], rows: Int[Tensor, " n"] | slice = slice(None)) -> None:
        """Set rows to these points."""
        self.held[rows] = self.manifold.to_tangent(points) if self.place is None else points

    def hold_points(self) -> None:
        """From now on hold points; changes nothing in flat space, where they are the tangent vectors, nor where
        no optimiser moves them."""
        if self.tangent is not None and self.tangent.requires_grad and isinstance(self.manifold, Curved):
            self.place = geoopt.ManifoldParameter(self.located().detach(), manifold=self.manifold)
            self.tangent = None

    def hold_tangents(self) -> None:
        """From now on hold tangent vectors, as files do."""
        if self.place is not None:
            self.tangent = nn.Parameter(self.manifold.to_tangent(self.place.detach()))
            self.place = None

    def _load_from_state_dict(self, state, prefix, *args):
        if self.place is None and prefix + "place" in state:
            state[prefix + "tangent"] = self.manifold.to_tangent(state.pop(prefix + "place"))
        super()._load_from_state_dict(state, prefix, *args)
