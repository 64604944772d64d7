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


def merge(model: nn.Module) -> None:
    """Take LoRA or DoRA into the weights of the base, in place, and the adapters off. ParameterError for HypLoRA."""
    layers = adapters(model)
    if not layers:
        raise ParameterError("the model has no adapters to merge: put them on with inject(model, config)")
    if not all(layer.exact_merge for layer in layers.values()):
        raise ParameterError(NO_MERGE)
    _write(model, {name: layer.merged() for name, layer in layers.items()})


@torch.no_grad()
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
    bases = {name: weight_of(layer.base_layer) for name, layer in layers.items()}
    sums = _measure(model, layers, batches, run or _call)
    missed = [name for name, total in sums.items() if total[0] == 0]
    if missed:
        raise ParameterError(f"batches must reach every adapter, but none came to {missed[0]!r}")
    merged, errors = {}, {}
    for name, layer in layers.items():
        n, phi, yy, phi_yy, phi2_yy = sums[name].tolist()
        mean = phi / n
        off = max(phi2_yy - 2 * mean * phi_yy + mean * mean * yy, 0.0)
        errors[name] = math.sqrt(off / phi2_yy) if phi2_yy > 0 else 0.0
        update = layer.scaling * mean * (layer.hyplora_B @ layer.hyplora_A)
        merged[name] = bases[name] + update.to(bases[name].dtype)
    _write(model, merged)
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
            phi, q = gate_values(inputs[0], *layer._parts())
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


@torch.no_grad()
def _write(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, layer in adapters(model).items():
        base = layer.base_layer
        base.weight.copy_(weights[name] if isinstance(base, nn.Linear) else weights[name].mT)
    remove(model)
