"""HMamba: a selective recurrence whose decay feels the curvature, and scores that are distances on the hyperboloid.

*Hyperbolic Mamba for Sequential Recommendation* (arXiv 2505.09205). Algorithm 1: item embeddings are carried to the
hyperboloid by the exponential map; the recurrence discretises with Ā = exp(ΔA ⊙ K(κ)), K = diag(√κ, 1, …, 1); the
next item is the nearest one. What the paper leaves open, and where its released code does something else, is a
choice in `recommender.RecommenderConfig`, which puts these parts and those of `baselines` together.

Shapes: n sequences, L length, e entering width, w width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.manifolds import Lorentz
from workbench.manifolds.chords import capped, from_spatial, sides, spatial, squared_distance
from workbench.nn import Mamba

EPS = 1e-12  # of layer norms, as in RecBole and in the released code

# -- the encoder ---------------------------------------------------------------------------------------------


class Entrance(nn.Module):
    """Dropout, then a layer norm in the precision that came (points may be far out), then float32 as the weights."""

    def __init__(self, enter: int, dropout: float, norm: bool = True):
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(enter, EPS) if norm else None

    def forward(self, x: Float[Tensor, "n L e"], dtype: torch.dtype) -> Float[Tensor, "n L e"]:
        x = F.dropout(x, self.dropout, self.training)
        if self.norm is not None:
            weight, bias = self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype)
            x = F.layer_norm(x, self.norm.normalized_shape, weight, bias, EPS)
        return x.to(dtype)


class FeedForward(nn.Module):
    """x + W₂ gelu(W₁ x), four times as wide inside, then a layer norm if asked for."""

    def __init__(self, width: int, dropout: float, norm: bool = True):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, EPS) if norm else nn.Identity()
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "n L w"]) -> Float[Tensor, "n L w"]:
        y = F.dropout(F.gelu(self.wide(x)), self.dropout, self.training)
        return self.norm(x + F.dropout(self.narrow(y), self.dropout, self.training))


class MambaEncoder(nn.Module):
    """The encoder of Mamba4Rec and of the released HMamba: layers of LayerNorm(dropout(Mamba(x))) and feed-forward.

    A single layer has no residual around Mamba; of several all have one whose input is as wide as its output.

    enter: width of what comes in, d + 1 on the hyperboloid. final_norm: whether the last feed-forward ends in a
    layer norm, which puts every user on one sphere. dt_init: "mamba", or "zero" for the released code, whose
    initialisation overwrites Δ's bias with 0, so that Δ starts at 0.7 and all but the slowest states forget within
    a few items. k_axis, kappa, learn_kappa: see `decay_scale`.

    Liu et al., *Mamba4Rec* (arXiv 2403.03900).
    """

    def __init__(
        self,
        enter: int,
        width: int,
        layers: int = 1,
        state: int = 32,
        dropout: float = 0.2,
        *,
        final_norm: bool = True,
        dt_init: str = "mamba",
        k_axis: str = "none",
        kappa: float = 1.0,
        learn_kappa: bool = False,
    ):
        super().__init__()
        self.out_dim, self.dropout, self.state, self.k_axis = width, dropout, state, k_axis
        self.entrance = Entrance(enter, dropout)
        widths = [enter] + [width] * (layers - 1)
        self.mixers = nn.ModuleList(_mamba(before, width, state, dt_init) for before in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(width, EPS) for _ in widths)
        self.feeds = nn.ModuleList(
            FeedForward(width, dropout, final_norm or i < layers - 1) for i in range(layers)
        )
        self.residual = [layers > 1 and before == width for before in widths]
        # Holds κ as the spaces hold their c: one parametrisation of everything that is a curvature.
        self.granularity = Lorentz(kappa, learn_kappa) if k_axis != "none" else None

    @property
    def decay_scale(self) -> Tensor | None:
        """K(κ), a factor on A over the d_state axis: √κ on state 0 ("state0", the paper's diag(√κ, 1, …, 1) read
        literally: with A = -1, -2, … the slowest mode) or on every state ("all"); None for "none".

        No third reading, of a time-like channel, makes sense here: the recurrence runs on channels that a linear
        map has mixed, of which none is the time coordinate.
        """
        if self.granularity is None:
            return None
        root = self.granularity.c.sqrt().reshape(1)
        return root if self.k_axis == "all" else torch.cat([root, root.new_ones(self.state - 1)])

    def forward(self, x: Float[Tensor, "n L e"]) -> Float[Tensor, "n L w"]:
        x = self.entrance(x, self.norms[0].weight.dtype)
        scale = self.decay_scale
        for mixer, norm, feed, residual in zip(
            self.mixers, self.norms, self.feeds, self.residual, strict=True
        ):
            y = F.dropout(mixer(x, decay_scale=scale), self.dropout, self.training)
            x = feed(norm(x + y if residual else y))
        return x


def _mamba(enter: int, width: int, state: int, dt_init: str) -> Mamba:
    """A block from `enter` to `width` channels; all inside is sized by `width`, as in the released code."""
    block = Mamba(width, state)
    if enter != width:
        block.in_proj = nn.Linear(enter, 2 * block.d_inner, bias=False)
        block.d_model = enter
    if dt_init == "zero":
        nn.init.zeros_(block.dt_proj.bias)
    return block


# -- the head ------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Items made ready for scoring: rows (V, k), what states are multiplied with, and biases (V) or None."""

    rows: Tensor
    bias: Tensor | None

    def pick(self, items: Int[Tensor, "..."]) -> Table:
        """Some of the rows, of shape (*items.shape, k)."""
        return Table(self.rows[items], None if self.bias is None else self.bias[items])


class Head(nn.Module):
    """Scores of items for states; every kind is one matrix product, and a function of it where a distance is asked.

    With the state's point x, the item's y and its tangent vector e, and bias b where there is one:

        dot         τ <state, e> + b
        half        τ <log₀ x, e> + b
        lorentz_sq  -τ d_L² + b         d_L² = -2/c - 2 <x, y>_L, the squared Lorentzian distance: a matrix product
        dist2       -τ d² + b
        dist        -τ √(d² + 1e-5) + b  (the slope of d itself has no bound at 0)
        official    -2 - 2 d²(x, y), with -<x, y>_L cut to [1 + 1e-7, 10]; beyond, and there is no gradient

    In flat space these are <x, e> and -|x - y|². radius: "free", the state is a tangent vector at the origin, of
    length softly below radius_cap (as are the items'); or "sphere", it is the spatial coordinates of the point, as
    the released code has it. temperature: τ, positive; learned as its logarithm if learn_temperature.
    """

    def __init__(
        self,
        manifold,
        kind: str,
        radius: str,
        radius_cap: float = 4.0,
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ):
        super().__init__()
        self.kind, self.radius, self.radius_cap = kind, radius, radius_cap
        # Registered by the model alone: a second name for one parameter has no place in files.
        object.__setattr__(self, "manifold", manifold)
        start = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(start)
        else:
            self.register_buffer("log_temperature", start)

    @property
    def temperature(self) -> Float[Tensor, ""]:
        return self.log_temperature.exp()

    def item_points(self, e: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        return self.manifold.from_tangent(capped(self.manifold, e, self.radius_cap))

    def state_points(self, states: Float[Tensor, "... d"]) -> Float[Tensor, "... n"]:
        """Points of states, in their dtype."""
        if self.radius == "sphere":
            return from_spatial(self.manifold, states)
        return self.item_points(states)

    def table(self, e: Float[Tensor, "V d"], bias: Float[Tensor, " V"] | None) -> Table:
        """Items from their tangent vectors; computed in float64, kept in the dtype of e."""
        if self.kind in ("dot", "half"):
            return Table(e, bias)
        return Table(self._sides(self.item_points(e.double()))[1].to(e.dtype), bias)

    def queries(self, states: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        """What tables are multiplied with."""
        if self.kind == "dot":
            return states
        points = self.state_points(states.double())
        left = self.manifold.to_tangent(points) if self.kind == "half" else self._sides(points)[0]
        return left.to(states.dtype)

    def _sides(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return sides(self.manifold, spatial(self.manifold, points))

    def forward(self, states: Float[Tensor, "... d"], table: Table) -> Float[Tensor, "... V"]:
        """Scores of all rows of a table, or, where it has a leading shape like the states, of each state's own."""
        left, tau = self.queries(states), self.temperature.to(states.dtype)
        if self.kind in ("dot", "half"):
            return _product(tau * left, table)
        if self.kind == "lorentz_sq":
            return _product(-2 * tau * left, table)
        q = _product(left, Table(table.rows, None))
        if self.kind == "official":
            return -2 - 2 * squared_distance(self.manifold, q.clamp(1e-7, 9.0))  # q = -<x, y>_L - 1 at c = 1
        d2 = squared_distance(self.manifold, q)
        scores = -tau * (d2 if self.kind == "dist2" else (d2 + 1e-5).sqrt())
        return scores if table.bias is None else scores + table.bias

    def ranking(self, states: Float[Tensor, "... d"], table: Table) -> Float[Tensor, "... V"]:
        """Scores that sort items as `forward` does, without an inverse hyperbolic function wherever that can be:
        distances grow with the Lorentz product, so that it alone decides (where `official` cuts and all items tie, it
        goes on sorting). Only a distance with an item bias has to be computed."""
        if self.kind in ("dot", "half", "lorentz_sq") or table.bias is not None:
            return self(states, table)
        return _product(-self.queries(states), table)


def _product(left: Tensor, table: Table) -> Tensor:
    """left·rows + bias, in full float32 whatever autocast or TF32 say: Lorentz products cancel."""
    if table.rows.ndim > 2 and left.ndim != table.rows.ndim - 1:
        raise ParameterError(
            f"items of shape {tuple(table.rows.shape[:-1])} do not go with states of shape {tuple(left.shape[:-1])}"
        )
    with torch.autocast(left.device.type, enabled=False):
        if table.rows.ndim == 2:
            return F.linear(left, table.rows, table.bias)
        scores = torch.einsum("...k,...vk->...v", left, table.rows)
        return scores if table.bias is None else scores + table.bias
