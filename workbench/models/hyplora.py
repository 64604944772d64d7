"""HypLoRA on any model: low-rank adapters with a hyperbolic gate (and LoRA and DoRA), put on, saved and loaded.

*Hyperbolic Fine-Tuning for Large Language Models* (arXiv 2410.04010). This module holds the public names; the formula
stands in `hyplora_gate`. Torch only. Files are those of Hugging Face's peft, which reads them through `hyplora_peft`
(LoRA's and DoRA's without it).

>>> inject(model, AdapterConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], K=0.5))
>>> save(model, "adapter")
>>> load(fresh_model, "adapter")
"""

from workbench.models.hyplora_adapters import AdapterConfig, adapters, disabled, inject, remove
from workbench.models.hyplora_files import load, save
from workbench.models.hyplora_gate import Gate
from workbench.models.hyplora_layers import DoRALinear, HypLoRALinear, LoRALinear
from workbench.models.hyplora_merge import merge, merge_approx

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
