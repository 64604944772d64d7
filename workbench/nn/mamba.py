"""The Mamba block (Mamba-1): two branches, a causal convolution, the selective scan and a gate.

Shapes: b batch, L length, m = d_model, d = d_inner = expand m, n = d_state, k = d_conv, r = dt_rank.
Parameters carry the names and shapes of the mamba-ssm package, so that its state dicts load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.scan import causal_conv1d, selective_scan, selective_scan_step
from workbench.scan.arguments import Reader

HALF = (torch.bfloat16, torch.float16)


class MambaState(NamedTuple):
    """What a block remembers between two pieces of a sequence.

    conv: the last k - 1 inputs of the convolution, `(b, k - 1, channels)`.
    ssm: the state of the recurrence, float32 or float64: `(b, d, n)` in Mamba, `(b, heads, headdim, n)` in Mamba2.
    """

    conv: Tensor
    ssm: Tensor


class Recurrent(nn.Module):
    """What both blocks share: parameters that are treated apart, the state, and the checks."""

    in_float32: tuple[str, ...] = ()
    no_weight_decay: tuple[str, ...] = ()
    no_reinit: tuple[str, ...] = ()
    d_model: int
    conv_channels: int
    d_conv: int
    ssm_shape: tuple[int, ...]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Recurrent:
        """`.to(bfloat16)` and the like leave `in_float32` in float32: a decay of 0.999 has no bfloat16 of its own."""
        exact = [t for name in self.in_float32 for p in [self.get_parameter(name)] for t in (p, p.grad)]

        def keep(t: Tensor) -> Tensor:
            moved = fn(t)
            narrowed = moved.dtype in HALF and any(t is e for e in exact)
            return t.to(moved.device, torch.float32) if narrowed else moved

        return super()._apply(keep, recurse)

    def _mark(self) -> None:
        """The marks that mamba-ssm's training code reads off parameters: an optimiser's groups, a later init."""
        for name in self.no_weight_decay:
            self.get_parameter(name)._no_weight_decay = True
        for name in self.no_reinit:
            self.get_parameter(name)._no_reinit = True

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._mark()  # neither deepcopy nor pickle carries attributes of parameters over

    def init_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MambaState:
        """The state before any input: zeros; device and dtype those of the weights unless given."""
        like = self.in_proj.weight
        dtype, device = dtype or like.dtype, device or like.device
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return MambaState(
            torch.zeros(batch, self.d_conv - 1, self.conv_channels, device=device, dtype=dtype),
            torch.zeros(batch, *self.ssm_shape, device=device, dtype=wide),
        )

    def _check(self, x: Tensor, shape: str, state: MambaState | None) -> tuple[Tensor | None, Tensor | None]:
        """Refuses what does not fit this block; returns the two parts of the state."""
        read = Reader(type(self).__name__)
        read.sizes |= {"d_model": self.d_model, "k-1": self.d_conv - 1, "channels": self.conv_channels}
        read.tensor("x", x, shape)
        if state is None:
            return None, None
        if not (isinstance(state, tuple) and len(state) == 2):
            raise ParameterError(f"{read.op}: state should be a MambaState, but is {type(state).__name__}")
        names = ("d", "n") if len(self.ssm_shape) == 2 else ("heads", "headdim", "n")
        read.sizes |= dict(zip(names, self.ssm_shape, strict=True))
        conv, ssm = state
        read.tensor("state.ssm", ssm, "b " + " ".join(names))
        read.tensor("state.conv", conv if self.d_conv > 1 else None, "b k-1 channels", optional=True)
        return conv, ssm


class Mamba(Recurrent):
    """`y = out_proj(scan(u) silu(z))` with `x, z = in_proj(input)`, `u = silu(conv(x))`, which gives Δ, B, C.

    Args:
        d_model: width of input and output. expand: d_inner = expand d_model.
        d_state: numbers of state a channel. d_conv: taps of the causal convolution.
        dt_rank: rank of the projection to Δ; "auto": d_model / 16, rounded up.
        dt_min, dt_max, dt_init_floor: Δ at the start is log-uniform between the first two, at least the third.
        dt_init, dt_scale: weights to Δ "random" in ± s or "constant" s, with s = dt_scale / sqrt(dt_rank).
        backend: of the scan; see `workbench.scan.selective_scan`.

    A starts as -1, -2, .., -n in every channel (S4D-real), D as 1. A_log, D and the bias of dt_proj stay in float32
    when the module is cast to half precision. That bias enters inside the scan: `dt_proj` is not called as a module.

    Gu & Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces (2023), sections 3.4 and 3.6.
    """

    in_float32 = ("A_log", "D", "dt_proj.bias")
    no_weight_decay = ("A_log", "D")
    no_reinit = ("dt_proj.bias",)

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ParameterError(f'Mamba: dt_init should be "random" or "constant", but is {dt_init!r}')
        rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        inner = int(expand * d_model)
        whole_numbers("Mamba", d_model=d_model, d_state=d_state, d_conv=d_conv, d_inner=inner, dt_rank=rank)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner, self.dt_rank = inner, rank
        self.conv_channels, self.ssm_shape, self.backend = inner, (inner, d_state), backend

        made = {"device": device, "dtype": dtype}
        exact = {"device": device, "dtype": torch.float64 if dtype == torch.float64 else torch.float32}
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **made)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, bias=conv_bias, **made)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False, **made)
        self.dt_proj = nn.Linear(rank, inner, bias=True, **made)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, **exact).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner, **exact))
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **made)

        bound = dt_scale / math.sqrt(rank)
        nn.init.uniform_(self.dt_proj.weight, -bound if dt_init == "random" else bound, bound)
        self.dt_proj.bias = nn.Parameter(step_bias(inner, dt_min, dt_max, dt_init_floor, **exact))
        self._mark()

    def forward(
        self,
        x: Float[Tensor, "b L m"],
        *,
        seq_idx: Integer[Tensor, "b L"] | None = None,
        state: MambaState | None = None,
        return_state: bool = False,
        decay_scale: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "b L m"] | tuple[Float[Tensor, "b L m"], MambaState]:
        """A piece of a sequence, or all of it.

        Args:
            seq_idx: which of several sequences packed end to end a step belongs to; nothing crosses a change.
            state: where the piece before ended (`return_state=True` gives it, differentiable); None: the beginning.
            decay_scale: positive, broadcastable to `(d_inner, d_state)`: a factor on A, and so on the decay
                exp(Δ A) but not on the input map Δ B. With sqrt|curvature| in some rows or columns it is the
                curvature-aware discretisation of hyperbolic Mamba; 1 changes no bit.

        Raises:
            ParameterError: naming the argument that has a wrong shape, dtype, device or value.
        """
        conv, ssm = self._check(x, "b L d_model", state)
        x, z = self.in_proj(x).chunk(2, -1)  # (b, L, d) each
        x, conv = self._convolve(x, conv, seq_idx)
        y, ssm = selective_scan(
            *(x, *self._maps(x, decay_scale), self.D, z, self.dt_proj.bias, True, ssm, True),
            seq_idx=seq_idx,
            backend=self.backend,
        )
        y = self.out_proj(y)
        return (y, MambaState(conv, ssm)) if return_state else y

    def step(
        self,
        x: Float[Tensor, "b m"],
        state: MambaState,
        *,
        decay_scale: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "b m"], MambaState]:
        """One token: `(y, state)` as `forward` over a sequence of length one, without its overhead."""
        conv, ssm = self._check(x, "b d_model", state)
        x, z = self.in_proj(x).chunk(2, -1)  # (b, d) each
        x, conv = self._convolve(x[:, None], conv)
        x = x[:, 0]
        delta, A, B, C = self._maps(x, decay_scale)
        y, ssm = selective_scan_step(ssm, x, delta, A, B, C, self.D, z, self.dt_proj.bias, True)
        return self.out_proj(y), MambaState(conv, ssm)

    def _convolve(
        self, x: Tensor, state: Tensor | None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        weight, bias = self.conv1d.weight, self.conv1d.bias
        return causal_conv1d(x, weight, bias, state, activation="silu", seq_idx=seq_idx, return_state=True)

    def _maps(self, x: Tensor, decay_scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Δ before its bias and softplus, A, and the input and output maps B and C."""
        low, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], -1)
        A = -torch.exp(widened(self.A_log))
        return F.linear(low, self.dt_proj.weight), self._scaled(A, decay_scale), B, C

    def _scaled(self, A: Tensor, decay_scale: Tensor | None) -> Tensor:
        if decay_scale is None:
            return A
        fits = decay_scale.dim() <= 2 and all(
            size in (1, whole)
            for size, whole in zip(reversed(decay_scale.shape), reversed(A.shape), strict=False)
        )
        if not fits:
            raise ParameterError(
                f"Mamba: decay_scale should broadcast to (d_inner, d_state) = {tuple(A.shape)}, "
                f"but has {tuple(decay_scale.shape)}"
            )
        return A * decay_scale.to(A.dtype)


def widened(t: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return t.float() if t.dtype in HALF else t


def whole_numbers(block: str, **sizes: int) -> None:
    """Refuses sizes that are no positive whole numbers."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ParameterError(f"{block}: {name} should be a positive whole number, but is {size!r}")


def step_bias(
    size: int, dt_min: float, dt_max: float, floor: float, device=None, dtype=None
) -> Float[Tensor, "size"]:
    """Biases whose softplus is log-uniform in [dt_min, dt_max], at least `floor`: Δ where its weights give zero."""
    if not 0 < dt_min <= dt_max or floor <= 0:
        raise ParameterError(
            "dt_min, dt_max and dt_init_floor should be positive, the first at most the second, "
            f"but are {dt_min}, {dt_max} and {floor}"
        )
    low, high = math.log(dt_min), math.log(dt_max)
    dt = (torch.rand(size, device=device, dtype=dtype) * (high - low) + low).exp().clamp(min=floor)
    return dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus
