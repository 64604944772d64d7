"""Reading arguments: shapes bound letter by letter, dtypes, values; every refusal is one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import ParameterError


class Reader:
    """Checks the tensors of one call; letters such as `b`, `L`, `d` are bound by the first tensor that has them.

    `Reader("ssd").tensor("x", x, "b L h p").tensor("dt", dt, "b L h")` raises ParameterError where the second does
    not fit the first. Of several shapes the one with the tensor's number of dimensions counts.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.sizes: dict[str, int] = {}
        self.tensors: dict[str, Tensor] = {}

    def tensor(self, name: str, value: Tensor | None, *shapes: str, optional: bool = False) -> Reader:
        if value is None and optional:
            return self
        if not isinstance(value, Tensor):
            raise ParameterError(f"{self.op}: {name} should be a tensor, but is {type(value).__name__}")
        if not value.dtype.is_floating_point:
            raise ParameterError(f"{self.op}: {name} should be real floating point, but is {value.dtype}")
        self._shape(name, value, shapes)
        first = next(iter(self.tensors.items()), (name, value))
        if value.device != first[1].device:
            raise ParameterError(
                f"{self.op}: {name} is on {value.device}, but {first[0]} is on {first[1].device}"
            )
        if (value.dtype == torch.float64) != (first[1].dtype == torch.float64):
            raise ParameterError(
                f"{self.op}: {name} is {value.dtype}, but {first[0]} is {first[1].dtype}; float64 does not mix"
            )
        self.tensors[name] = value
        return self

    def index(self, name: str, value: Tensor | None, shape: str) -> Reader:
        """An optional tensor of integers."""
        if value is None:
            return self
        if not isinstance(value, Tensor) or value.dtype.is_floating_point or value.dtype.is_complex:
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ParameterError(f"{self.op}: {name} should be a tensor of integers, but is {found}")
        self._shape(name, value, (shape,))
        return self

    def _shape(self, name: str, value: Tensor, shapes: tuple[str, ...]) -> None:
        shape = next((s for s in shapes if len(s.split()) == value.dim()), None)
        if shape is not None:
            letters = shape.split()
            wanted = [self.sizes.get(letter, size) for letter, size in zip(letters, value.shape, strict=True)]
            if wanted == list(value.shape) and 0 not in wanted:
                self.sizes.update(zip(letters, wanted, strict=True))
                return
        expected = " or ".join(self._spelled(s) for s in ([shape] if shape else shapes))
        raise ParameterError(f"{self.op}: {name} should have shape {expected}, but has {tuple(value.shape)}")

    def _spelled(self, shape: str) -> str:
        letters = shape.split()
        known = ", ".join(str(self.sizes.get(letter, letter)) for letter in letters)
        return (
            f"({', '.join(letters)}) = ({known})" if any(x in self.sizes for x in letters) else f"({known})"
        )

    def decays(self, A: Tensor) -> Reader:
        """A is at most zero, or the state would grow without bound (its NaN is found here too)."""
        if not torch.compiler.is_compiling() and not bool((A <= 0).all()):
            worst = A.detach().max().item()
            raise ParameterError(
                f"{self.op}: A should be negative (A = -exp(A_log)), but has an entry {worst:g}"
            )
        return self

    def sound(self, out: Tensor) -> Tensor:
        """`out`, unless it has NaN because an argument has: that one is named.

        Looked at on the CPU only: on a GPU the question would make the host wait for the device at every call.
        """
        if torch.compiler.is_compiling() or out.device.type != "cpu" or not torch.isnan(out.detach().sum()):
            return out
        for name, value in self.tensors.items():
            bad = int((~torch.isfinite(value.detach())).sum())
            if bad:
                raise ParameterError(
                    f"{self.op}: {name} should be finite, but {bad} of its {value.numel()} entries are not"
                )
        return out
