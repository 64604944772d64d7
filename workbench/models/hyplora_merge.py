"""Adapters into the weights of the base: exactly for LoRA and DoRA, with a measured error for HypLoRA."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.models.hyplora_adapters import adapters, remove
from workbench.models.hyplora_gate import gate_values
from workbench.models.hyplora_layers import HypLoRALinear, weight_of

NO_MERGE = (
    "HypLoRA cannot be merged into the base's weights: its update of a token is LoRA's times a number that "
    "depends on the token; merge_approx(model, batches) takes the mean instead and returns what that costs"
)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Take LoRA or DoRA into the weights of the base, in place, and the adapters off. ParameterError for HypLoRA."""
    layers = adapters(model)
    if not layers:
        raise ParameterError("the model has no adapters to merge: put them on with inject(model, config)")
    if not all(layer.exact_merge for layer in layers.values()):
        raise ParameterError(NO_MERGE)
    for layer in layers.values():
        weight_of(layer.base_layer).copy_(layer.merged())
    remove(model)


def merge_approx(
    model: nn.Module, batches: Iterable, run: Callable[[nn.Module, object], object] | None = None
) -> dict[str, float]:
    """Take HypLoRA into the weights as W + (α/r) E[φ] BA, in place, and the adapters off.

    batches: what the model is run on to measure E[φ], by run(model, batch) (default: model(**batch), model(*batch) or
    model(batch)). Returns, by name of the layer, the relative error of the update on those batches,
    √(Σ (φ - E[φ])²‖BAx‖² / Σ φ²‖BAx‖²): 0 where φ is constant. ParameterError, and nothing changed, for layers that
    are not HypLoRA's or that no batch reached, and for a quantised base.
    """
    layers = adapters(model)
    if not layers or any(layer.exact_merge for layer in layers.values()):
        raise ParameterError("merge_approx is for HypLoRA; LoRA and DoRA merge exactly with merge(model)")
    errors = approximate(model, layers, batches, run)
    remove(model)
    return errors


@torch.no_grad()
def approximate(model: nn.Module, layers: Mapping, batches: Iterable, run=None) -> dict[str, float]:
    """Write W + (α/r) E[φ] BA into the bases of the layers and return their errors; see `merge_approx`.

    layers: by name, anything with `base_layer` and `parts` like `HypLoRALinear`.
    """
    bases = {name: weight_of(layer.base_layer) for name, layer in layers.items()}
    sums = _measure(model, layers, batches, run or _call)
    missed = [name for name, total in sums.items() if total[0] == 0]
    if missed:
        raise ParameterError(f"batches must reach every adapter, but none came to {missed[0]!r}")
    errors = {}
    for name, layer in layers.items():
        n, phi, yy, phi_yy, phi2_yy = sums[name].tolist()
        mean = phi / n
        off = max(phi2_yy - 2 * mean * phi_yy + mean * mean * yy, 0.0)
        errors[name] = math.sqrt(off / phi2_yy) if phi2_yy > 0 else 0.0
        A, B, *_, scaling = layer.parts()
        bases[name] += (scaling * mean * (B @ A)).to(bases[name].dtype)
    return errors


def _call(model: nn.Module, batch):
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def _measure(model, layers: Mapping[str, HypLoRALinear], batches, run) -> dict[str, Tensor]:
    """By layer: Σ 1, Σ φ, Σ ‖y‖², Σ φ‖y‖², Σ φ²‖y‖² over tokens, y = BAx."""
    sums = {name: torch.zeros(5, dtype=torch.float64) for name in layers}

    def hook(name: str):
        def add(layer, inputs):
            phi, q = gate_values(inputs[0], *layer.parts()[:5])
            rows = torch.stack([torch.ones_like(q), phi, q, phi * q, phi * phi * q])
            sums[name] += rows.reshape(5, -1).sum(1).cpu()

        return add

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    was_training = model.training
    try:
        model.eval()
        for batch in batches:
            run(model, batch)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return sums
