"""What the checkpoints of a training have in common: a model's and an optimiser's tensors, and whose run they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from workbench.errors import CheckpointError


def pack(model: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Tensor]:
    """A model's state and the optimiser's as tensors by name, for one file."""
    tensors = {f"model.{name}": value for name, value in model.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": value for name, value in state.items()}
    return tensors


def unpack(tensors: Mapping[str, Tensor], optimizer: Optimizer) -> tuple[dict[str, Tensor], dict]:
    """The model's state, and a state dict for this optimiser: the reverse of `pack`."""
    adam: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            adam.setdefault(int(index), {})[key] = value
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    return model, {**optimizer.state_dict(), "state": adam}


def refuse_another_run(path: str | Path, about: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """CheckpointError, naming the first thing in which a checkpoint's run differs from this one."""
    for what, mine in identity.items():
        if about.get(what) != mine:
            raise CheckpointError(
                f"{path} cannot be continued: its {what} is {about.get(what)}, this run's is {mine}; "
                "delete the file to start anew"
            )
