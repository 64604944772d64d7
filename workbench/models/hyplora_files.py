"""Adapters in the two files of Hugging Face's peft: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.errors import CheckpointError, ParameterError, suggest
from workbench.files import save_tensors, write_json
from workbench.models.hyplora_adapters import (
    HYPERBOLIC,
    AdapterConfig,
    adapters,
    put_on,
    reads_weight,
    remove,
)
from workbench.models.hyplora_layers import Adapted, features

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
# What peft writes beside our own fields and that changes nothing here: the tensors name their layers themselves.
_INERT = {
    "auto_mapping", "base_model_name_or_path", "base_sample", "bias", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "revision", "target_modules", "task_type", "use_dora",
}  # fmt: skip
# Other starts (PiSSA, LoftQ, ...) change the base as well.
_STARTS = {"init_lora_weights": (True, "gaussian")}


def base_sample(base: nn.Module) -> list[float] | None:
    """A few of the base's weights, to know it by; None where they are quantised or elsewhere."""
    weight = base.weight.detach()
    if not weight.is_floating_point() or weight.is_meta or not weight.numel():
        return None
    flat = weight.reshape(-1)
    places = [(len(flat) - 1) * i // 7 for i in range(8)]
    return [float(flat[i]) for i in places]


def check_base(name: str, base: nn.Module, sample: Iterable[float] | None) -> None:
    """CheckpointError unless the base is the one that was sampled, up to the rounding of its dtype."""
    here = base_sample(base)
    if sample is None or here is None:
        return
    sample = list(sample)
    size = max(map(abs, sample), default=0.0) + 1e-30
    if len(sample) != len(here) or max(abs(a - b) for a, b in zip(sample, here, strict=True)) > 0.05 * size:
        raise CheckpointError(
            f"the adapter belongs to another base model: weights of {name!r} are not the same"
        )


def save(model: nn.Module, folder: str | Path) -> None:
    """Write the adapters of a model as peft's two files.

    ParameterError for a model without adapters.
    """
    layers = adapters(model)
    if not layers or not hasattr(model, "_before_adapters"):
        raise ParameterError("the model has no adapters to save: put them on with inject(model, config)")
    config: AdapterConfig = model._before_adapters[0]
    about = asdict(config)
    method = about.pop("method")
    about |= {"peft_type": "HYPLORA" if method == "hyplora" else "LORA", "bias": "none", "task_type": None}
    about |= {"target_modules": sorted(layers), "exclude_modules": None, "inference_mode": True}
    if method == "hyplora":
        ends = sorted(layers)[:: max(len(layers) - 1, 1)]
        about["base_sample"] = {name: base_sample(layers[name].base_layer) for name in ends}
    else:
        about = {k: v for k, v in about.items() if k not in HYPERBOLIC} | {"use_dora": method == "dora"}
    tensors = {PREFIX + key: p for key, p in _tensors(layers).items()}
    save_tensors(Path(folder) / WEIGHTS, tensors, {"format": "pt", **about})
    write_json(Path(folder) / CONFIG, about)


def _tensors(layers: Mapping[str, Adapted]) -> dict[str, nn.Parameter]:
    """The adapters' parameters by the keys of the file."""
    return {
        f"{name}.{own}{end}": getattr(layer, own)
        for name, layer in layers.items()
        for own, end in layer.names.items()
        if getattr(layer, own) is not None
    }


def load(model: nn.Module, folder: str | Path) -> dict[str, Adapted]:
    """Put saved adapters on a model, in place; also those that peft wrote (HypLoRA, LoRA, DoRA).

    Returns the adapted layers by name. CheckpointError, and nothing changed, when the files cannot be read, are
    another kind of adapter, or do not fit the model; ParameterError when it has adapters already.
    """
    if adapters(model):
        raise ParameterError("the model must have no adapters yet: take them off with remove(model)")
    config, sample = _read_config(Path(folder) / CONFIG)
    tensors = _read_tensors(Path(folder) / WEIGHTS)
    foreign = [key for key in tensors if "lora_" not in key]
    if foreign:
        raise CheckpointError(f"the adapter's file also holds {foreign[0]!r}, which only peft can load")
    names = sorted({key.rpartition("lora_")[0].rpartition(".")[0] for key in tensors})
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not features(known[name]):
            close = suggest(name, (n for n, m in known.items() if features(m)))
            raise CheckpointError(
                f"the adapter belongs to another model: it has no linear layer {name!r}{close}"
            )
        if reason := reads_weight(model, name):
            raise CheckpointError(f"{name!r} cannot be adapted: {reason}")
    for name, values in (sample or {}).items():
        if name in known:
            check_base(name, known[name], values)
    layers = put_on(model, config, names, None)
    try:
        _check_fit(tensors, _tensors(layers))
    except CheckpointError:
        remove(model)
        raise
    with torch.no_grad():
        for key, p in _tensors(layers).items():
            p.copy_(tensors[key])
    return layers


def _read_config(path: Path) -> tuple[AdapterConfig, dict | None]:
    try:
        about = json.loads(path.read_text())
        kind = about["peft_type"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as e:
        raise CheckpointError(
            f"{path} is not a readable adapter description ({type(e).__name__}: {e})"
        ) from e
    if kind not in ("HYPLORA", "LORA"):
        raise CheckpointError(f"the adapter must be HYPLORA or LORA, but {path} says {kind!r}")
    method = "hyplora" if kind == "HYPLORA" else "dora" if about.get("use_dora") else "lora"
    own = {f.name for f in fields(AdapterConfig)} - {"method", "target_modules", "exclude_modules"}
    strange = sorted(
        k for k, v in about.items() if v and k not in own | _INERT and v not in _STARTS.get(k, ())
    )
    if about.get("bias", "none") != "none":
        strange.append("bias")
    if strange:
        raise CheckpointError(f"{path} asks for {', '.join(strange)}, which only peft can do")
    try:
        config = AdapterConfig(method=method, **{k: about[k] for k in own if k in about})
        return config, about.get("base_sample")
    except (ParameterError, TypeError) as e:
        raise CheckpointError(f"{path} does not describe an adapter: {e}") from e


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {key.removeprefix(PREFIX): value for key, value in load_file(path).items()}
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path} is not a readable adapter ({type(e).__name__}: {e})") from e


def _check_fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if odd := sorted(tensors.keys() ^ wanted.keys()):
        which = "lacks" if odd[0] in wanted else "also holds"
        raise CheckpointError(
            f"the adapter's file {which} {odd[0]!r} ({len(odd)} keys do not match its description)"
        )
    for key, p in wanted.items():
        if tensors[key].shape != p.shape:
            came = tuple(tensors[key].shape)
            raise CheckpointError(
                f"the adapter belongs to another model or rank: {key!r} must have shape {tuple(p.shape)}, "
                f"but came with {came}"
            )
