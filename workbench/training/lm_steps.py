"""One optimiser step of a language model, on one device or as one of several processes."""

from __future__ import annotations

import contextlib
import math
import os

import geoopt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workbench.errors import ParameterError
from workbench.training.riemannian import RiemannianAdam


def several() -> bool:
    """Whether this process is one of several (`accelerate launch`, `torchrun`)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class Devices:
    """Where tensors live and how gradients come together: one device, or Accelerate's processes.

    ParameterError where there are several processes but no Accelerate, or where Accelerate is to shard parameters.
    """

    def __init__(self, device: str) -> None:
        self.accelerator, self.device, self.rank, self.world = None, torch.device(device), 0, 1
        if not several():
            return
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError:
            raise ParameterError(
                "training in several processes needs Accelerate: pip install 'hyperbolic-workbench[lm]'"
            ) from None
        # Accelerate would shard the parameters behind the optimiser's back.
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"):
            raise ParameterError(
                "parameters in shards (FSDP) are not supported: every process holds the whole model "
                "(accelerate launch --multi_gpu, without --use_fsdp)"
            )
        # Buffers stay each process's own: loads of experts are added up by `balance_step`, and means change
        # rounding only. Neither may be overwritten in between.
        own = DistributedDataParallelKwargs(broadcast_buffers=False)
        self.accelerator = Accelerator(cpu=self.device.type == "cpu", kwargs_handlers=[own])
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes

    def wrap(self, loss: nn.Module, compiled: bool) -> nn.Module:
        """The module whose forward pass is the loss, compiled where asked for, bound to the other processes."""
        loss = torch.compile(loss) if compiled else loss
        return loss if self.accelerator is None else self.accelerator.prepare_model(loss)

    @contextlib.contextmanager
    def context(self, loss: nn.Module, last: bool, bf16: bool):
        """Of a forward pass; gradients meet in the last of a step only."""
        waits = contextlib.nullcontext() if self.accelerator is None or last else loss.no_sync()
        with waits, torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            yield

    def backward(self, value: Tensor, loss: nn.Module, last: bool) -> None:
        """The processes' gradients are averaged; their shares add up, hence the factor."""
        waits = contextlib.nullcontext() if self.accelerator is None or last else loss.no_sync()
        with waits:
            (value * self.world).backward()

    def sum(self, value: Tensor) -> Tensor:
        """Over all processes."""
        return value if self.accelerator is None else self.accelerator.reduce(value, "sum")


def optimizer_of(model: nn.Module, lr: float, curvature_lr: float, weight_decay: float) -> Optimizer:
    """AdamW, or Riemannian Adam where some parameters are points of a manifold.

    Matrices decay (decoupled); points, biases, weights of norms, single numbers and curvatures do not. Each group has
    its `share` of the rate and its own `decay`, which `step_of` goes by.
    """
    curved = {id(p) for p in model.curvatures()}
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "others": [], "curvatures": []}
    for p in model.parameters():
        if p.requires_grad:
            point = isinstance(p, geoopt.ManifoldParameter)
            kind = "curvatures" if id(p) in curved else "matrices" if p.ndim > 1 and not point else "others"
            groups[kind].append(p)
    found = [
        {
            "params": parameters,
            "share": curvature_lr if kind == "curvatures" else 1.0,
            "decay": weight_decay if kind == "matrices" else 0.0,
        }
        for kind, parameters in groups.items()
        if parameters
    ]
    if not found:
        raise ParameterError("nothing of this model can learn: all its parameters are frozen")
    if any(isinstance(p, geoopt.ManifoldParameter) for p in groups["others"]):
        return RiemannianAdam(found, lr=lr, stabilize=1)
    # Decay is applied by `step_of`, the same for either optimiser.
    return torch.optim.Adam(found, lr=lr, fused=next(model.parameters()).device.type == "cuda" or None)


def step_of(optimizer: Optimizer, model: nn.Module, rate: float, clip: float) -> float:
    """One step on the gradients there are, clipped, unless their norm is not finite; the norm. Gradients are gone."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    size = torch.nn.utils.get_total_norm(gradients)
    length = size.item()
    if not math.isfinite(length):
        optimizer.zero_grad()
        return length
    torch.nn.utils.clip_grads_with_norm_([p for p in model.parameters() if p.grad is not None], clip, size)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
        if group["decay"]:
            with torch.no_grad():
                torch._foreach_mul_(group["params"], 1 - group["lr"] * group["decay"])
    optimizer.step()
    optimizer.zero_grad()
    return length
