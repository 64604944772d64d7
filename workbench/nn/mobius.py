"""Linear layers and activations between hyperbolic spaces; in flat space each is its ordinary counterpart.

Two readings of "affine map": by the tangent space at the origin (Ganea, Bécigneul, Hofmann, *Hyperbolic Neural
Networks*, 2018) and by signed distances from hyperplanes (Shimizu, Mukuta, Harada, *Hyperbolic Neural Networks++*,
2021). Both take and return points of the manifold given, in either chart, and have nn.Linear's parameters: the same
weights mean the same layer in the limit c → 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.errors import ManifoldError, ParameterError


class _Linear(nn.Module):
    """Parameters of an affine map, initialised as nn.Linear's weight; the bias starts at 0."""

    def __init__(self, manifold, in_dim: int, out_dim: int, bias: bool = True):
        super().__init__()
        for name, value in (("in_dim", in_dim), ("out_dim", out_dim)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
        self.manifold, self.in_dim, self.out_dim = manifold, in_dim, out_dim
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(out_dim)) if bias else None

    def _check(self, x: Tensor) -> None:
        expected = self.manifold.ambient_dim(self.in_dim)
        if x.shape[-1] != expected:
            raise ManifoldError(
                f"points of the {self.in_dim}-dimensional {self.manifold} have {expected} coordinates, "
                f"got shape {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        return f"{self.in_dim} -> {self.out_dim}, bias={self.bias is not None}"


class MobiusLinear(_Linear):
    """(W ⊗ x) ⊕ b: the matrix acts on the tangent vector of x at the origin, the bias translates.

    x: points (..., ambient of in_dim) of any float type; returns points (..., ambient of out_dim) in that type.
    ManifoldError for points with another number of coordinates. Source: Ganea et al. 2018, section 3.2.
    """

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        self._check(x)
        v = self.manifold.to_tangent(x)
        y = self.manifold.from_tangent(v @ self.weight.to(v.dtype).mT)
        if self.bias is None:
            return y
        return self.manifold.add(y, self.manifold.from_tangent(self.bias.to(v.dtype)))


class PoincareLinear(_Linear):
    """The point whose signed distances from the coordinate planes are those of x from `out_dim` learnt hyperplanes.

    Shapes and errors as MobiusLinear. Source: Shimizu et al. 2021, section 3.2 (their fully connected layer).
    """

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        self._check(x)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self.manifold.from_plane_distances(
            self.manifold.plane_distances(x, self.weight.to(x.dtype), bias)
        )


class MobiusActivation(nn.Module):
    """from_tangent(f(to_tangent(x))): an elementwise function in the tangent space at the origin, by default ReLU.

    Source: Ganea et al. 2018, definition 3.3.
    """

    def __init__(self, manifold, function: Callable[[Tensor], Tensor] = torch.relu):
        super().__init__()
        self.manifold, self.function = manifold, function

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        return self.manifold.from_tangent(self.function(self.manifold.to_tangent(x)))
