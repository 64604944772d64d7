"""Which adapter goes where: settings, and putting adapters on the linear layers of a model and taking them off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

import torch
from torch import nn

from workbench.errors import ParameterError, suggest
from workbench.models.hyplora_gate import Gate
from workbench.models.hyplora_layers import (
    Adapted,
    DoRALinear,
    HypLoRALinear,
    LoRALinear,
    checked_rank,
    features,
)

METHODS = ("hyplora", "lora", "dora")
HYPERBOLIC = tuple(f.name for f in fields(Gate))


@dataclass(frozen=True)
class AdapterConfig:
    """Which adapter, and where; fields have peft's names.

    method: "hyplora", "lora" or "dora". r, lora_alpha: the update is multiplied by lora_alpha/r, by lora_alpha/√r
    with use_rslora. target_modules: names or ends of names of linear layers, a regular expression for whole names, or
    "all-linear" (all but the output layer). exclude_modules: names or ends of names. K … t_max: of
    HypLoRA, see `Gate`.

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
        return Gate(**{name: getattr(self, name) for name in HYPERBOLIC})

    def layer(self, base: nn.Module, generator: torch.Generator | None = None) -> Adapted:
        """The adapted layer around a base."""
        common = {"dropout": self.lora_dropout, "rslora": self.use_rslora, "generator": generator}
        if self.method != "hyplora":
            kind = LoRALinear if self.method == "lora" else DoRALinear
            return kind(base, self.r, self.lora_alpha, **common)
        return HypLoRALinear(base, self.r, self.lora_alpha, **asdict(self.gate), **common)


def inject(model: nn.Module, config: AdapterConfig, *, seed: int = 0) -> dict[str, Adapted]:
    """Freeze a model, in place, and put an adapter on each target; what it gives stays the same until B is trained.

    Returns the adapted layers by name. The start of A comes from the seed. ParameterError, and nothing changed, when
    the model has adapters already, when a target matches nothing or no linear layer, or when the module above it
    reads its weight directly.
    """
    if adapters(model):
        raise ParameterError("the model must have no adapters yet: take them off with remove(model)")
    names = targets(model, config.target_modules, config.exclude_modules)
    return put_on(model, config, names, torch.Generator().manual_seed(seed))


def put_on(model: nn.Module, config: AdapterConfig, names: Iterable[str], generator) -> dict[str, Adapted]:
    """Adapters on the layers of these names, unchecked."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        layers = {name: config.layer(model.get_submodule(name), generator) for name in names}
    except BaseException:
        for p in trainable:  # those whose layer was made are frozen already
            p.requires_grad_(True)
        raise
    for p in trainable:
        p.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, layer.train(layer.base_layer.training))
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
    # Mamba's kernels take these weights in; those of this package call the last projection as a module.
    read = (
        {"dt_proj"} if type(parent).__module__.startswith("workbench.") else {"x_proj", "dt_proj", "out_proj"}
    )
    mamba = "Mamba" in kind and last in read
    return f"{kind} hands its weight to a kernel of its own" if fused or mamba else ""


def _some(names: Iterable[str]) -> str:
    last = sorted({n.rpartition(".")[2] for n in names})
    return ", ".join(last[:8]) + (", …" if len(last) > 8 else "") if last else "none"
