"""HypLoRA as a method of Hugging Face's peft (extra: `pip install hyperbolic-workbench[peft]`).

Importing this module teaches peft the type HYPLORA. After that `get_peft_model`, `PeftModel.from_pretrained`, several
adapters, `disable_adapter`, `generate` and gradient checkpointing work as they do for LoRA; merging is refused, since
no weight does what HypLoRA does. Where this module was not imported, peft cannot load such an adapter at all, so that
none is ever taken for LoRA. The formula is `hyplora_gate`'s; `hyplora` reads the
same files.

>>> model = get_peft_model(llama, HypLoRAConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], K=0.5))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.errors import ParameterError, suggest
from workbench.models.hyplora_adapters import HYPERBOLIC, reads_weight
from workbench.models.hyplora_files import base_sample, check_base
from workbench.models.hyplora_gate import Gate, gate_values, hyplora_update
from workbench.models.hyplora_layers import checked_rank, features, start_A
from workbench.models.hyplora_merge import NO_MERGE, approximate

try:
    import peft
except ImportError as e:
    raise ImportError("peft must be installed: pip install 'hyperbolic-workbench[peft]'") from e
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, PeftType


def _peft_type(name: str):
    """A member of peft's closed enumeration of methods, added from outside if it is not there."""
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        member._sort_order_ = len(PeftType.__members__)
        PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
        PeftType._member_names_.append(name)
        type.__setattr__(PeftType, name, member)
    return PeftType[name]


HYPLORA = _peft_type("HYPLORA")


@dataclass
class HypLoRAConfig(peft.PeftConfig):
    """Settings of an adapter; fields that LoRA has too mean what they mean in peft's LoraConfig.

    r, lora_alpha: the update is multiplied by lora_alpha/r, by lora_alpha/√r with use_rslora. target_modules: ends of
    names, a regular expression for whole names, "all-linear", or None for those that peft takes for LoRA. bias: only
    "none". base_sample: written by itself, to know the base again. K … t_max: see `hyplora.Gate`.

    ParameterError for values that make no sense.
    """

    r: int = 8
    lora_alpha: float = 16
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    lora_dropout: float = 0.0
    use_rslora: bool = False
    K: float = 1.0
    learn_K: bool = True
    variant: str = "exp"
    s: str | float = "sqrt_d"
    rescale: bool = True
    t_max: float = 12.0
    bias: str = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    base_sample: dict | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = HYPLORA
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)
        if self.bias != "none":
            raise ParameterError(f'bias must be "none", but came as {self.bias!r}')
        checked_rank(self.r, self.lora_alpha, self.lora_dropout)
        self.gate  # noqa: B018 - checks the rest
        self._from_file = self.base_sample is not None

    @property
    def gate(self) -> Gate:
        return Gate(**{name: getattr(self, name) for name in HYPERBOLIC})


class HypLoRAPeftLinear(nn.Module, BaseTunerLayer):  # "all-linear" looks for Linear in the name
    """A linear layer (also a quantised one) with adapters by name; updates of all active ones are added."""

    adapter_layer_names = ("hyplora_A", "hyplora_B", "hyplora_k", "hyplora_s")
    other_param_names = ("r", "scaling", "hyplora_dropout", "settings")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: HypLoRAConfig):
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = features(self.get_base_layer())
        self.r, self.scaling, self.settings = {}, {}, {}
        self.hyplora_dropout = nn.ModuleDict()
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self.frozen_peft_weight_names = {}
        self._disable_adapters, self.merged_adapters = False, []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: HypLoRAConfig) -> None:
        """Add an adapter, or start one anew."""
        self.r[adapter_name], self.settings[adapter_name] = config.r, config.gate
        self.scaling[adapter_name] = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
        self.hyplora_dropout[adapter_name] = (
            nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        )
        self.hyplora_A[adapter_name] = nn.Parameter(torch.zeros(config.r, self.in_features))
        self.hyplora_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, config.r))
        self.hyplora_k[adapter_name] = nn.Parameter(torch.zeros(1))
        if config.gate.learn_s:
            self.hyplora_s[adapter_name] = nn.Parameter(torch.zeros(1))
        if not self.hyplora_A[adapter_name].is_meta:
            start_A(self.hyplora_A[adapter_name])
        self._move_adapter_to_device_of_base_layer(adapter_name)
        # set_adapter makes everything trainable that is not named here
        self.frozen_peft_weight_names[adapter_name] = () if config.learn_K else ("hyplora_k",)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def parts(self, adapter_name: str | None = None):
        """What `hyplora_update` takes beside x, of an adapter, by default the active one."""
        if adapter_name is None:
            (adapter_name,) = (a for a in self.active_adapters if a in self.hyplora_A)
        of = (getattr(self, part) for part in self.adapter_layer_names)
        tensors = (each[adapter_name] if adapter_name in each else None for each in of)  # noqa: SIM401
        return *tensors, self.settings[adapter_name], self.scaling[adapter_name]

    def gate(self, x: Tensor, adapter_name: str | None = None) -> Tensor:
        """φ of each token, float64; see `HypLoRALinear.gate`."""
        return gate_values(x, *self.parts(adapter_name)[:5])[0].squeeze(-1)

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        if kwargs.pop("adapter_names", None) is not None:
            raise ParameterError(
                "HypLoRA cannot take another adapter for each row: set_adapter, then one batch each"
            )
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        for name in self.active_adapters:
            if name in self.hyplora_A:
                dropped = self.hyplora_dropout[name](x)
                y = y + hyplora_update(dropped, *self.parts(name)).to(y.dtype)
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ParameterError(NO_MERGE)

    def unmerge(self) -> None:
        raise ParameterError(NO_MERGE)

    def get_delta_weight(self, adapter: str) -> Tensor:
        raise ParameterError(NO_MERGE)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return False


class HypLoRAModel(BaseTuner):
    """peft's tuner: finds the targets, puts `HypLoRAPeftLinear`s there."""

    prefix = "hyplora_"
    tuner_layer_cls = HypLoRAPeftLinear
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _prepare_model(self, peft_config: HypLoRAConfig, model: nn.Module) -> None:
        """Refuse what cannot work before anything is changed, and know the base by a few of its weights."""
        if peft_config.target_modules == "all-linear":
            return
        bases = {}
        for name, module in model.named_modules():
            if name and ".base_layer" not in name and self._check_target_module_exists(peft_config, name):
                bases[name] = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if not bases:
            self._nothing(peft_config, model)
        for name, base in bases.items():
            if not features(base):
                kind = type(base).__name__
                raise ParameterError(f"targets must be nn.Linear or Conv1D, but {name!r} is {kind}")
            if reason := reads_weight(model, name):
                raise ParameterError(f"{name!r} cannot be adapted: {reason}")
        self._know(peft_config, bases)

    @staticmethod
    def _nothing(peft_config: HypLoRAConfig, model: nn.Module) -> None:
        wanted = peft_config.target_modules
        ends = {n.rpartition(".")[2] for n, m in model.named_modules() if features(m)}
        one = wanted if isinstance(wanted, str) else ", ".join(sorted(wanted))
        close = suggest(wanted if isinstance(wanted, str) else min(wanted), ends)
        raise ParameterError(f"target_modules {one!r} matches no module of the model{close}")

    @staticmethod
    def _know(peft_config: HypLoRAConfig, bases: dict[str, nn.Module]) -> None:
        if peft_config._from_file:
            for name, values in peft_config.base_sample.items():
                if name in bases:
                    check_base(name, bases[name], values)
            return
        ends = sorted(bases)[:: max(len(bases) - 1, 1)]
        peft_config.base_sample = {name: base_sample(bases[name]) for name in ends}

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, **optional
    ) -> None:
        if isinstance(target, HypLoRAPeftLinear):
            target.update_layer(adapter_name, peft_config)
            return
        layer = HypLoRAPeftLinear(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise ParameterError(NO_MERGE)


def merge_approx(model: peft.PeftModel, batches: Iterable, run=None) -> tuple[nn.Module, dict[str, float]]:
    """The base model with W + (α/r) E[φ] BA of the active adapter, and the relative error by layer.

    Like `hyplora.merge_approx`, and like peft's merge_and_unload in that the base is changed and must be taken from
    what is returned. ParameterError, and nothing changed, when no layer has exactly one active HypLoRA adapter.
    """
    tuner = model.base_model
    layers = {n: m for n, m in tuner.model.named_modules() if isinstance(m, HypLoRAPeftLinear)}
    if not layers or any(sum(a in m.hyplora_A for a in m.active_adapters) != 1 for m in layers.values()):
        raise ParameterError("merge_approx needs exactly one active HypLoRA adapter a layer")
    errors = approximate(model, layers, batches, run)
    return tuner.unload(), errors


PEFT_TYPE_TO_CONFIG_MAPPING[HYPLORA] = HypLoRAConfig
PEFT_TYPE_TO_TUNER_MAPPING[HYPLORA] = HypLoRAModel
PEFT_TYPE_TO_PREFIX_MAPPING[HYPLORA] = HypLoRAModel.prefix
