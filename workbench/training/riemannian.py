"""Adam for points of a manifold, and which optimiser a model is fitted with."""

from __future__ import annotations

import math

import geoopt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workbench.errors import ParameterError, suggest
from workbench.models.movable import Movable

OPTIMIZERS = ("adam", "riemannian")
END = 35.0  # √c d(0, x) at which points stop: where the ball ends in float64, beyond what quantisers take in


class RiemannianAdam(geoopt.optim.RiemannianAdam):
    """Adam whose steps are geodesics: gradients in the manifold's metric, one second moment a point (its length),
    momentum carried along by parallel transport. Parameters on no manifold move as Adam moves them.

    Points are kept within 35/√c of the origin. Those that are pulled in, and those that something else has moved
    since the last step (revived codes), start without momentum: it was a tangent vector of another place, where the
    same coordinates may have been much shorter.

    Source: Bécigneul, Ganea, *Riemannian Adaptive Optimization Methods* (ICLR 2019); geoopt's implementation.
    """

    def step(self, closure=None):
        before = {}
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            state = self.state[p]
            if not state:
                # Counted in float64, not as an int, which a restored state turns into a float32 tensor: the
                # corrections for the start would then differ in a resumed run.
                state["step"] = torch.zeros((), dtype=torch.float64)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            if isinstance(p, geoopt.ManifoldParameter):
                before[p] = p.detach().clone()
                if "last" in state:
                    state["exp_avg"][(p != state["last"]).any(-1)] = 0.0
        loss = super().step(closure)
        for p, x in before.items():
            _stay_within(p, x, self.state[p]["exp_avg"])
            self.state[p]["last"] = p.detach().clone()
        return loss


@torch.no_grad()
def _stay_within(p: geoopt.ManifoldParameter, before: Tensor, momentum: Tensor) -> None:
    """Pull in points beyond the last radius; one that has overflowed goes back to where it was."""
    radius, most = p.manifold.dist0(p, keepdim=True), END / math.sqrt(float(p.manifold.c))
    out = ~(radius <= most) | ~torch.isfinite(momentum).all(-1, keepdim=True)
    if out.any():
        inside = p.manifold.scale((most / radius).clamp_max(1.0), p)
        kept = torch.isfinite(inside).all(-1, keepdim=True)
        p.copy_(torch.where(out, torch.where(kept, inside, before), p))
        momentum.masked_fill_(out, 0.0)


def make_optimizer(name: str, model: nn.Module, lr: float) -> Optimizer:
    """Adam over a model's trainable parameters: "adam" as they are, "riemannian" with points in place of tangent
    vectors (`Movable.hold_points`). Where none lies in a curved space the two are the same, bit for bit."""
    if name not in OPTIMIZERS:
        raise ParameterError(
            f"optimizer must be one of {', '.join(OPTIMIZERS)}, but came as {name!r}{suggest(name, OPTIMIZERS)}"
        )
    if name == "riemannian":
        for part in model.modules():
            if isinstance(part, Movable):
                part.hold_points()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if any(isinstance(p, geoopt.ManifoldParameter) for p in parameters):
        return RiemannianAdam(parameters, lr=lr, stabilize=1)
    # Not the fused one, which writes parameters without raising their version: codebooks, which keep what
    # follows from their codes until those change, would not notice.
    return torch.optim.Adam(parameters, lr=lr, foreach=True)


def release(model: nn.Module) -> None:
    """Tangent vectors again in all of a model, as in files."""
    for part in model.modules():
        if isinstance(part, Movable):
            part.hold_tangents()
