"""HypLoRA on any model: put low-rank adapters on its linear layers, take them off, save and load them.

*Hyperbolic Fine-Tuning for Large Language Models* (arXiv 2410.04010). The layers and their formula stand in
`hyplora_layers` and `hyplora_gate`; this is torch only. Files are those of Hugging Face's peft (adapter_config.json,
adapter_model.safetensors), which reads them through `hyplora_peft`, LoRA and DoRA as they are.

>>> inject(model, AdapterConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], K=0.5))
>>> save(model, "adapter")
>>> load(fresh_model, "adapter")
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.errors import CheckpointError, ParameterError, suggest
from workbench.files import save_tensors, write_json
from workbench.models.hyplora_gate import Gate
from workbench.models.hyplora_layers import (
    Adapted,
    DoRALinear,
    HypLoRALinear,
    LoRALinear,
    checked_rank,
    features,
    weight_of,
)

__all__ = [
    "AdapterConfig",
    "DoRALinear",
    "Gate",
    "HypLoRALinear",
    "LoRALinear",
    "adapters",
    "disabled",
    "inject",
    "load",
    "merge",
    "merge_approx",
    "remove",
    "save",
]

METHODS = ("hyplora", "lora", "dora")
CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
NO_MERGE = (
    "HypLoRA cannot be merged into the base's weights: its update of a token is LoRA's times a number that depends on "
    "the token; merge_approx(model, batches) puts the mean in its place and says what that costs"
)
_HYPERBOLIC = tuple(f.name for f in fields(Gate))
# What peft writes beside our own fields and that changes nothing about a loaded adapter: it names its modules itself.
_INERT = frozenset(
    [
        "adapter_layer_config",
        "arrow_config",
        "auto_mapping",
        "base_model_name_or_path",
        "base_sample",
        "bias",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "init_lora_weights",
        "init_weights",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "task_type",
        "fan_in_fan_out",
        "use_dora",
        "exclude_modules",
        "target_modules",
    ]
)


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapter, and where; fields have peft's names.

    method: "hyplora", "lora" or "dora". r, lora_alpha: the update is multiplied by lora_alpha/r, by lora_alpha/√r
    with use_rslora. target_modules: names or ends of names of linear layers, a regular expression for whole names, or
    "all-linear" (all but the output layer). exclude_modules: names or ends of names. K … t_max: of HypLoRA, see `Gate`.

    ParameterError for values that make no sense.
    """

    method: str = "hyplora"
    r: int = 8
    lora_alpha: float = 16
    target_modules: tuple[str, ...] | str = "all-linear"
    exclude_modules: tuple[str, ...] = ()
    lora_dropout: float = 0.0
    use_rslora: bool = False
    K: float = 1.0
    learn_K: bool = True
    variant: str = "exp"
    s: str | float = "sqrt_d"
    rescale: bool = True
    t_max: float = 12.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ParameterError(
                f"method must be one of {', '.join(METHODS)}, but came as {self.method!r}"
                f"{suggest(self.method, METHODS)}"
            )
        checked_rank(self.r, self.lora_alpha, self.lora_dropout)
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, list | set):
                object.__setattr__(self, name, tuple(sorted(value)))
        if not self.target_modules:
            raise ParameterError("target_modules must name a layer, but came empty")
        self.gate  # noqa: B018 - checks the rest

    @property
    def gate(self) -> Gate:
        return Gate(**{name: getattr(self, name) for name in _HYPERBOLIC})

    def layer(self, base: nn.Module, generator: torch.Generator | None = None) -> Adapted:
        """The adapted layer around a base."""
        common = {"dropout": self.lora_dropout, "rslora": self.use_rslora, "generator": generator}
        if self.method != "hyplora":
            return {"lora": LoRALinear, "dora": DoRALinear}[self.method](
                base, self.r, self.lora_alpha, **common
            )
        return HypLoRALinear(base, self.r, self.lora_alpha, **asdict(self.gate), **common)


# -- on and off ----------------------------------------------------------------------------------------------
def inject(model: nn.Module, config: AdapterConfig, *, seed: int = 0) -> dict[str, Adapted]:
    """Freeze a model, in place, and put an adapter on each target; what it gives stays the same until B is trained.

    Returns the adapted layers by name. The start of A comes from the seed. ParameterError, and nothing changed, when
    the model has adapters already, when a target matches nothing or no linear layer, or when the module above it
    reads its weight directly.
    """
    if adapters(model):
        raise ParameterError("the model must have no adapters yet: take them off with remove(model)")
    names = targets(model, config.target_modules, config.exclude_modules)
    return _put(model, config, names, torch.Generator().manual_seed(seed))


def _put(model: nn.Module, config: AdapterConfig, names: Iterable[str], generator) -> dict[str, Adapted]:
    trainable = [p for p in model.parameters() if p.requires_grad]
    layers = {name: config.layer(model.get_submodule(name), generator) for name in names}
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    model._before_adapters = (config, trainable)
    return layers


def remove(model: nn.Module) -> None:
    """Take the adapters off, in place; what was trainable before is so again."""
    for name, layer in adapters(model).items():
        model.set_submodule(name, layer.base_layer)
    if hasattr(model, "_before_adapters"):
        for p in model._before_adapters[1]:
            p.requires_grad_(True)
        del model._before_adapters


def adapters(model: nn.Module) -> dict[str, Adapted]:
    """The adapted layers by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Adapted)}


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """The base alone, for as long as it lasts."""
    before = {layer: layer.enabled for layer in adapters(model).values()}
    try:
        for layer in before:
            layer.enabled = False
        yield
    finally:
        for layer, state in before.items():
            layer.enabled = state


def targets(model: nn.Module, wanted, excluded=()) -> list[str]:
    """Names of the linear layers that are meant; see `inject` for what is refused."""
    everything = {name: m for name, m in model.named_modules() if name}
    linear = {name: m for name, m in everything.items() if features(m)}

    def ends(name: str, given: Iterable[str]) -> bool:
        return any(name == g or name.endswith(f".{g}") for g in given)

    if wanted == "all-linear":
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        found = [n for n, m in linear.items() if m is not head and not reads_weight(model, n)]
    elif isinstance(wanted, str):
        found = [n for n in everything if re.fullmatch(wanted, n)]
    else:
        for one in wanted:
            if not any(ends(n, [one]) for n in everything):
                last = {n.rpartition(".")[2] for n in linear}
                raise ParameterError(f"no module of the model is called {one!r}{suggest(one, last)}")
        found = [n for n in everything if ends(n, wanted)]
    found = [n for n in found if not ends(n, excluded)]
    if not found:
        raise ParameterError(f"target_modules={wanted!r} matches no linear layer; there are {_some(linear)}")
    for name in found:
        if name not in linear:
            kind = type(everything[name]).__name__
            raise ParameterError(f"targets must be nn.Linear or Conv1D, but {name!r} is {kind}")
        if reason := reads_weight(model, name):
            raise ParameterError(f"{name!r} cannot be adapted: {reason}")
    return found


def reads_weight(model: nn.Module, name: str) -> str:
    """Why an adapter at this place would be passed over, or "": the module above reads the weight itself."""
    above, _, last = name.rpartition(".")
    parent = model.get_submodule(above)
    kind = type(parent).__name__
    fused = isinstance(parent, nn.MultiheadAttention | nn.TransformerEncoderLayer)
    # Mamba's kernels take the last projection in; those of this package (`workbench.nn`) do not.
    mamba = "Mamba" in kind and last == "out_proj" and not type(parent).__module__.startswith("workbench.")
    return f"{kind} hands its weight to a kernel of its own" if fused or mamba else ""


def _some(names: Iterable[str]) -> str:
    last = sorted({n.rpartition(".")[2] for n in names})
    return ", ".join(last[:8]) + (", …" if len(last) > 8 else "") if last else "none"


# -- files ---------------------------------------------------------------------------------------------------
def base_sample(base: nn.Module) -> list[float] | None:
    """A few of the base's weights, to know it by; None where they are quantised."""
    weight = base.weight.detach()
    if not weight.is_floating_point():
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
        about = {k: v for k, v in about.items() if k not in _HYPERBOLIC} | {"use_dora": method == "dora"}
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
    names = sorted({key.rpartition("ora_")[0].rpartition(".")[0] for key in tensors})
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
    with torch.device("cpu"):
        wanted = _tensors({name: config.layer(known[name]) for name in names})
    _check_fit(tensors, wanted)
    layers = _put(model, config, names, None)
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
    strange = sorted(k for k, v in about.items() if k not in own | _INERT and v)
    if about.get("bias", "none") != "none":
        strange.append("bias")
    if strange:
        raise CheckpointError(f"{path} asks for {', '.join(strange)}, which only peft can do")
    try:
        return AdapterConfig(method=method, **{k: about[k] for k in own if k in about}), about.get(
            "base_sample"
        )
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


# -- merging -------------------------------------------------------------------------------------------------
def merge(model: nn.Module) -> None:
    """Take LoRA or DoRA into the weights of the base, in place, and the adapters off. ParameterError for HypLoRA."""
    layers = adapters(model)
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
    from workbench.models.hyplora_gate import gate_values

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
