"""Linear layers with a low-rank update beside a frozen base: HypLoRA, and LoRA and DoRA to compare it with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.models.hyplora_gate import Gate, gate_values, hyplora_update, no_autocast, positive, work_dtype


def features(base: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear layer, transformers' Conv1D among them (its weight is transposed); else None."""
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features
    if (
        type(base).__name__ == "Conv1D"
        and getattr(base, "weight", None) is not None
        and base.weight.ndim == 2
    ):
        return base.weight.shape[0], base.weight.shape[1]
    return None


def weight_of(base: nn.Module) -> Float[Tensor, "out in"]:
    """Its weight as nn.Linear has it; ParameterError where it is quantised."""
    if not base.weight.is_floating_point():
        raise ParameterError(f"the base's weight must be in floating point, but came as {base.weight.dtype}")
    return base.weight if isinstance(base, nn.Linear) else base.weight.mT


def start_A(A: Tensor, generator: torch.Generator | None = None) -> None:
    """LoRA's start, that of nn.Linear (B starts at zero); drawn on the CPU, so that devices agree."""
    bound = 1 / math.sqrt(A.shape[1])
    with torch.no_grad():
        A.copy_(torch.empty(A.shape).uniform_(-bound, bound, generator=generator))


def checked_rank(r, alpha, dropout) -> None:
    """ParameterError unless r >= 1, alpha > 0 and 0 <= dropout < 1."""
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise ParameterError(f"the rank r must be a whole number of at least 1, but came as {r!r}")
    positive("alpha", alpha)
    if not (isinstance(dropout, int | float) and 0 <= dropout < 1):
        raise ParameterError(f"dropout must be at least 0 and below 1, but came as {dropout!r}")


class Adapted(nn.Module):
    """A frozen linear layer and the update beside it; `enabled = False` gives the base alone.

    base: nn.Linear or Conv1D. r, alpha: the update is multiplied by alpha/r, by alpha/√r with rslora. dropout: on the
    input of the update. The adapter is float32 (float64 for a float64 base); the result has the base's dtype.
    ParameterError for values that make no sense.
    """

    names: dict[str, str]  # parameters, and their keys in peft's files
    exact_merge = True

    def __init__(self, base, r, alpha, *, dropout=0.0, rslora=False):
        super().__init__()
        checked_rank(r, alpha, dropout)
        sizes = features(base)
        if sizes is None:
            raise ParameterError(f"the base must be nn.Linear or Conv1D, but came as {type(base).__name__}")
        self.in_features, self.out_features = sizes
        self.base_layer, self.r, self.enabled = base, r, True
        self.scaling = float(alpha) / (math.sqrt(r) if rslora else r)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        base.requires_grad_(False)

    def _new(self, *shape: int) -> nn.Parameter:
        like = self.base_layer.weight
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return nn.Parameter(torch.zeros(shape, dtype=dtype, device=like.device))

    def __getattr__(self, name: str):
        if name in ("weight", "bias"):
            raise AttributeError(
                f"{type(self).__name__} has no {name}: a module that reads it would miss the update; "
                f"leave this layer out of the targets, or read base_layer.{name}"
            )
        return super().__getattr__(name)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... out"]:
        y = self.base_layer(x)
        return y if not self.enabled else y + self.update(self.dropout(x)).to(y.dtype)

    def extra_repr(self) -> str:
        return f"r={self.r}, scaling={self.scaling:g}, enabled={self.enabled}"


class HypLoRALinear(Adapted):
    """y = Wx + (α/r) φ(x) BAx, with φ as in `hyplora_gate`.

    K … t_max: see `Gate`. generator: of the start of A.

    >>> layer = HypLoRALinear(nn.Linear(64, 64), r=8, alpha=16)
    >>> layer.gate(torch.randn(5, 64)).shape
    torch.Size([5])
    """

    names = dict.fromkeys(("hyplora_A", "hyplora_B", "hyplora_k", "hyplora_s"), "")
    exact_merge = False

    def __init__(
        self, base, r, alpha, *, K=1.0, learn_K=True, variant="exp", s="sqrt_d", dropout=0.0, rslora=False,
        rescale=True, t_max=12.0, generator=None,
    ):  # fmt: skip
        super().__init__(base, r, alpha, dropout=dropout, rslora=rslora)
        self.settings = Gate(K, learn_K, variant, s, rescale, t_max)
        self.hyplora_A, self.hyplora_B = self._new(r, self.in_features), self._new(self.out_features, r)
        self.hyplora_k = self._new(1).requires_grad_(learn_K)
        self.hyplora_s = self._new(1) if self.settings.learn_s else None
        start_A(self.hyplora_A, generator)

    def parts(self):
        """What `hyplora_update` takes beside x."""
        return self.hyplora_A, self.hyplora_B, self.hyplora_k, self.hyplora_s, self.settings, self.scaling

    @property
    def K(self) -> Float[Tensor, "1"]:
        """The curvature is -1/K."""
        return self.settings.curvature(self.hyplora_k)

    def gate(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """φ of each token, float64 (divided by s where the update is not multiplied by it again)."""
        return gate_values(x, *self.parts()[:5])[0].squeeze(-1)

    def update(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... out"]:
        return hyplora_update(x, *self.parts())


class LoRALinear(Adapted):
    """y = Wx + (α/r) BAx. Hu et al., *LoRA* (2022)."""

    names = {"lora_A": ".weight", "lora_B": ".weight"}  # noqa: RUF012

    def __init__(self, base, r, alpha, *, dropout=0.0, rslora=False, generator=None):
        super().__init__(base, r, alpha, dropout=dropout, rslora=rslora)
        self.lora_A, self.lora_B = self._new(r, self.in_features), self._new(self.out_features, r)
        start_A(self.lora_A, generator)

    def update(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... out"]:
        with no_autocast(x):
            dtype = work_dtype(x, self.lora_A)
            u = F.linear(x.to(dtype), self.lora_A.to(dtype))
            return F.linear(u, self.lora_B.to(dtype)) * self.scaling

    def merged(self) -> Float[Tensor, "out in"]:
        """W + (α/r) BA."""
        W = weight_of(self.base_layer)
        return (W + self.scaling * self.lora_B @ self.lora_A).to(W.dtype)


class DoRALinear(LoRALinear):
    """y = m/‖W + (α/r) BA‖ (W + (α/r) BA) x, norms of rows, not differentiated. Liu et al., *DoRA* (2024), § 4.3."""

    names = LoRALinear.names | {"lora_magnitude_vector": ""}

    def __init__(self, base, r, alpha, **options):
        super().__init__(base, r, alpha, **options)
        self.lora_magnitude_vector = self._new(self.out_features)
        with torch.no_grad():
            self.lora_magnitude_vector.copy_(self._row_norms())

    def _row_norms(self) -> Float[Tensor, " out"]:
        with torch.no_grad(), no_autocast(self.lora_A):
            W = weight_of(self.base_layer).to(self.lora_A.dtype)
            return torch.linalg.vector_norm(W + self.scaling * self.lora_B @ self.lora_A, dim=1)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... out"]:
        y = self.base_layer(x)
        if not self.enabled:
            return y
        ratio = self.lora_magnitude_vector / self._row_norms()
        bias = self.base_layer.bias
        straight = y if bias is None else y - bias
        return y + ((ratio - 1) * straight + ratio * self.update(self.dropout(x))).to(y.dtype)

    def merged(self) -> Float[Tensor, "out in"]:
        ratio = self.lora_magnitude_vector / self._row_norms()
        return (ratio[:, None] * super().merged()).to(self.base_layer.weight.dtype)
