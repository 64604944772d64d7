"""MiCE: a mixture of experts, each in a space of its own curvature, beside shared ones in the space of the model.

A token goes to its `active` experts; points are carried to their spaces and back by factors. Outputs are merged in
one sum, z = shared + w Σ g_e y_e in all coordinates, put back on the manifold: no expert comes before another. (The
released code adds them one after the other, which dilutes the earlier ones and depends on their order.)

Nothing here waits for the device: with `dispatch="dense"` all experts see all tokens, which at four experts of which
two are active costs twice the products and no gathering.

He et al., *HELM* (2025), section 4.5; balancing: Wang et al., *Auxiliary-Loss-Free Load Balancing* (2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.lorentz import (
    HyperbolicFeedForward,
    carry,
    checked_scale,
    curvature_of,
    keep,
    lift,
    run_dtype,
    shrink,
    time_part,
)
from workbench.nn.mamba import whole_numbers, widened

DISPATCH = ("auto", "dense", "sorted")


class Routing(NamedTuple):
    """chosen: experts of every token. weights: of their outputs. probabilities: of all experts, float32."""

    chosen: Int[Tensor, "n k"]
    weights: Float[Tensor, "n k"]
    probabilities: Float[Tensor, "n e"]


class Router(nn.Module):
    """Which experts a token goes to, and how their use is kept even: the part that knows no geometry.

    `bias` is added to probabilities where experts are chosen, not where they are weighted; `balance_step` moves it.
    """

    def start_router(self, dim: int, experts: int, active: int, renormalise: bool) -> None:
        """Its parameter, the gate, and its buffers; to be called once."""
        self.experts, self.active, self.renormalise = experts, active, renormalise
        self.gate = nn.Parameter(torch.empty(experts, dim))
        nn.init.kaiming_uniform_(self.gate, a=math.sqrt(5))
        self.register_buffer("bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts), persistent=False)

    def route(self, x: Float[Tensor, "n d"]) -> Routing:
        """Softmax over experts of gate · x, in float32; the `active` largest after the bias."""
        with torch.autocast(x.device.type, enabled=False):
            p = F.linear(widened(x), self.gate.to(widened(x).dtype)).softmax(-1)
            chosen = (p + self.bias).topk(self.active, -1).indices
            weights = p.gather(-1, chosen)
            if self.renormalise:
                weights = weights / weights.sum(-1, keepdim=True)
        return Routing(chosen, weights, p)

    def count(self, routing: Routing) -> Float[Tensor, ""]:
        """Take note of who got what (in training), and say how uneven it was: Σ f_e P_e, see `MiCE.forward`."""
        counts = torch.zeros_like(routing.probabilities).scatter(-1, routing.chosen, 1.0).sum(0)
        if self.training:
            with torch.no_grad():
                self.load += counts
        share = counts / (self.active * max(len(routing.chosen), 1))
        return self.experts * (share * routing.probabilities.mean(0)).sum()

    @torch.no_grad()
    def balance_step(self, rate: float = 0.005) -> None:
        """After an optimiser step: bias += rate (mean share - share) of tokens since the last, over all processes.

        Proportional, as in the released code (DeepSeek's takes the sign). The biases' sum does not change.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.load)
        share = self.load / self.load.sum().clamp_min(1)
        self.bias += rate * (share.mean() - share)
        self.load.zero_()


class MiCE(Router):
    """`y, balance = layer(x)`: space parts in and out, and a number that is 1 when all experts get alike.

    Args:
        manifold: where tokens lie. dim: theirs. inner: hidden dimension of an expert.
        curvatures: c of every expert's space, one number an expert; learnable: c = exp(log_c) are parameters.
        active: experts a token. shared: experts that see all tokens, as one of hidden dimension
            shared·(inner+1) - 1 (the released code's sizes count time).
        renormalise: weights of the chosen experts add up to 1, as in the paper; the released code leaves them as
            they come out of the softmax.
        gamma: factor on the merged space part at the start, learned.
        curved: False scales points on the way to an expert and back as its curvature would, but leaves the expert in
            the space of the model: all that a curvature does but for the times of hidden points, for ablations.
        dispatch: "dense"; "sorted" gives every expert its own tokens only, which needs their numbers on the host;
            "auto" sorts on a CPU outside of `torch.compile`, where that costs nothing.
    """

    def __init__(
        self,
        manifold: Lorentz,
        dim: int,
        inner: int,
        curvatures: Sequence[float],
        *,
        active: int = 2,
        shared: int = 1,
        learnable: bool = False,
        renormalise: bool = True,
        gain: float = math.sqrt(2),
        gamma: float = 2.0,
        curved: bool = True,
        dispatch: str = "auto",
    ) -> None:
        super().__init__()
        experts = len(curvatures)
        whole_numbers("MiCE", dim=dim, inner=inner, experts=experts, active=active, shared=shared)
        if active > experts:
            raise ParameterError(f"MiCE: active is at most the number of experts, {experts}, but is {active}")
        if dispatch not in DISPATCH:
            raise ParameterError(f"MiCE: dispatch must be one of {', '.join(DISPATCH)}, but is {dispatch!r}")
        keep(self, manifold=manifold)
        self.dispatch, self.curved = dispatch, curved
        self.spaces = nn.ModuleList(Lorentz(c, learnable) for c in curvatures)
        self.shared = HyperbolicFeedForward(manifold, dim, shared * (inner + 1) - 1, gain=gain)
        self.start_router(dim, experts, active, renormalise)
        self.up_weight = nn.Parameter(torch.empty(experts, 2 * inner, dim + 1))
        self.up_bias = nn.Parameter(torch.zeros(experts, 2 * inner))
        self.down_weight = nn.Parameter(torch.empty(experts, dim, inner + 1))
        self.down_bias = nn.Parameter(torch.zeros(experts, dim))
        for weight in (*self.up_weight.data.unflatten(1, (2, inner)).flatten(0, 1), *self.down_weight.data):
            nn.init.xavier_uniform_(weight, gain=gain)
        self.log_weight = nn.Parameter(torch.zeros(()))
        self.log_gamma = nn.Parameter(torch.tensor(math.log(checked_scale("gamma", gamma))))

    def curvatures(self) -> Float[Tensor, " e"]:
        """c of all experts, float64."""
        return torch.stack([space.c for space in self.spaces])

    # -- what comes of it ---------------------------------------------------------------------------------
    def forward(self, x: Float[Tensor, "... d"]) -> tuple[Float[Tensor, "... d"], Float[Tensor, ""]]:
        """The merged points, and Σ f_e P_e: E times the mean over experts of share of tokens × probability."""
        c, shape = curvature_of(self.manifold), x.shape
        x = x.reshape(-1, shape[-1])
        routing = self.route(x)
        balance = self.count(routing)

        own = self.dispatch == "auto" and x.device.type == "cpu" and not torch.compiler.is_compiling()
        merge = self._sorted if own or self.dispatch == "sorted" else self._dense
        time, space = merge(x, routing, c)
        w, alike = self.log_weight.exp(), widened(self.shared(x))
        time, space = time_part(alike, c) + w * time, alike + w * space
        weight = 1 + w * routing.weights.sum(-1, keepdim=True)
        y = space * (self.log_gamma.exp() * shrink(time, space, weight, c))
        return y.reshape(shape), balance

    def _dense(self, x: Tensor, routing: Routing, c) -> tuple[Tensor, Tensor]:
        """Σ g_e y_e, time and space, with every expert at every token."""
        own = self.curvatures().to(widened(x).dtype)[:, None, None]
        y = self._expert(x.expand(self.experts, -1, -1), own, c)
        g = torch.zeros_like(routing.probabilities).scatter(-1, routing.chosen, routing.weights).T[..., None]
        return (g * time_part(y, c)).sum(0), (g * y).sum(0)

    def _expert(self, x: Tensor, own: Tensor, c) -> Tensor:
        """All experts (e, n, d) at once, as `HyperbolicFeedForward`."""
        room = own if self.curved else c
        x = lift(carry(x, c, own), room, run_dtype(x))
        gate, up = torch.baddbmm(self.up_bias[:, None], x, self.up_weight.mT).chunk(2, -1)
        h = lift(F.silu(gate) * up, room)
        y = torch.baddbmm(self.down_bias[:, None], h, self.down_weight.mT)
        return carry(widened(y), own, c)

    def _sorted(self, x: Tensor, routing: Routing, c) -> tuple[Tensor, Tensor]:
        """The same with every expert at its own tokens, sorted by expert."""
        chosen = routing.chosen.flatten()
        order = chosen.argsort(stable=True)
        tokens = order // self.active
        counts = torch.bincount(chosen, minlength=self.experts).tolist()
        pieces = []
        for e, rows in enumerate(x[tokens].split(counts)):
            own = curvature_of(self.spaces[e])
            room = own if self.curved else c
            z = F.linear(lift(carry(rows, c, own), room, run_dtype(rows)), self.up_weight[e], self.up_bias[e])
            gate, up = z.chunk(2, -1)
            y = F.linear(lift(F.silu(gate) * up, room), self.down_weight[e], self.down_bias[e])
            pieces.append(carry(widened(y), own, c))
        y = torch.cat(pieces)
        z = torch.cat([time_part(y, c), y], -1) * routing.weights.flatten()[order, None]
        total = z.new_zeros(len(x), z.shape[-1]).index_add(0, tokens, z)
        return total[:, :1], total[:, 1:]

    def extra_repr(self) -> str:
        return f"{self.experts} experts, {self.active} active, renormalise={self.renormalise}"
