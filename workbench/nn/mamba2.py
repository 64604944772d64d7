"""The Mamba-2 block: one projection, a causal convolution over x, B and C, state space duality, a gated norm.

Shapes: b batch, L length, m = d_model, d = d_inner = expand m = h p, h heads of p = headdim channels, n = d_state,
g = ngroups. Parameters carry the names and shapes of the mamba-ssm package, so that its state dicts load.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.nn.mamba import MambaState, Recurrent, step_bias, whole_numbers, widened
from workbench.scan import causal_conv1d, rms_norm_gated, ssd, ssd_step


class RMSNormGated(nn.Module):
    """`workbench.scan.rms_norm_gated` with its weight."""

    def __init__(self, d: int, group_size: int, norm_before_gate: bool, device=None, dtype=None) -> None:
        super().__init__()
        self.group_size, self.norm_before_gate, self.eps = group_size, norm_before_gate, 1e-5
        self.weight = nn.Parameter(torch.ones(d, device=device, dtype=dtype))

    def forward(self, x: Float[Tensor, "*b d"], z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return rms_norm_gated(x, z, self.weight, self.eps, self.group_size, self.norm_before_gate)


class Mamba2(Recurrent):
    """`y = out_proj(norm(ssd(x, B, C) silu(z)))` with `z, xBC, Δ = in_proj(input)` and `x, B, C = silu(conv(xBC))`.

    Args:
        d_model: width of input and output. expand: d_inner = expand d_model, in heads of headdim channels.
        d_state: numbers of state a channel. d_conv: taps of the causal convolution. conv_init: its weights start
            uniform in ± conv_init (None: as in `torch.nn.Conv1d`).
        ngroups: pairs of B and C, each for d_inner / headdim / ngroups heads; the norm is taken over these groups.
        A_init_range: A starts uniform in minus this range.
        dt_min, dt_max, dt_init_floor: Δ at the start is log-uniform between the first two, at least the third.
        dt_limit: Δ is held within, in decoding too.
        D_has_hdim: a skip weight for each channel rather than for each head.
        rmsnorm: False leaves the gate alone. norm_before_gate: norm first, then gate.
        chunk_size: length of the matrix products of `ssd`; changes time and memory, not the result.
        backend: of the scan; see `workbench.scan.ssd`.

    A_log, D and dt_bias stay in float32 when the module is cast to half precision.

    Dao & Gu, Transformers are SSMs (2024), section 7.
    """

    in_float32 = no_weight_decay = ("A_log", "D", "dt_bias")
    no_reinit = ("dt_bias",)

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: float = 2,
        headdim: int = 64,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        bias: bool = False,
        conv_bias: bool = True,
        conv_init: float | None = None,
        chunk_size: int = 64,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        whole_numbers("Mamba2", d_model=d_model, d_state=d_state, d_conv=d_conv, d_inner=inner)
        whole_numbers("Mamba2", headdim=headdim, ngroups=ngroups, chunk_size=chunk_size)
        heads, rest = divmod(inner, headdim)
        if rest:
            raise ParameterError(f"Mamba2: headdim should divide d_inner = {inner}, but is {headdim}")
        if heads % ngroups:
            raise ParameterError(f"Mamba2: ngroups should divide the {heads} heads, but is {ngroups}")
        low, high = A_init_range
        if not 0 < low <= high:
            raise ParameterError(f"Mamba2: A_init_range should be 0 < low <= high, but is {A_init_range!r}")
        self.d_model, self.d_state, self.d_conv, self.d_inner = d_model, d_state, d_conv, inner
        self.headdim, self.nheads, self.ngroups = headdim, heads, ngroups
        self.conv_channels, self.ssm_shape = inner + 2 * ngroups * d_state, (heads, headdim, d_state)
        self.dt_limit, self.chunk_size, self.backend = tuple(dt_limit), chunk_size, backend

        made = {"device": device, "dtype": dtype}
        exact = {"device": device, "dtype": torch.float64 if dtype == torch.float64 else torch.float32}
        channels = self.conv_channels
        self.in_proj = nn.Linear(d_model, inner + channels + heads, bias=bias, **made)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels, bias=conv_bias, **made)
        self.dt_bias = nn.Parameter(step_bias(heads, dt_min, dt_max, dt_init_floor, **exact))
        self.A_log = nn.Parameter(torch.empty(heads, **exact).uniform_(low, high).log())
        self.D = nn.Parameter(torch.ones(inner if D_has_hdim else heads, **exact))
        self.norm = RMSNormGated(inner, inner // ngroups, norm_before_gate, **made) if rmsnorm else None
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **made)

        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self._mark()

    def forward(
        self,
        x: Float[Tensor, "b L m"],
        *,
        seq_idx: Integer[Tensor, "b L"] | None = None,
        state: MambaState | None = None,
        return_state: bool = False,
    ) -> Float[Tensor, "b L m"] | tuple[Float[Tensor, "b L m"], MambaState]:
        """A piece of a sequence, or all of it.

        Args:
            seq_idx: which of several sequences packed end to end a step belongs to; nothing crosses a change.
            state: where the piece before ended (`return_state=True` gives it, differentiable); None: the beginning.

        Raises:
            ParameterError: naming the argument that has a wrong shape, dtype, device or value.
        """
        conv, ssm = self._check(x, "b L d_model", state)
        z, xBC, dt = self._project(x)
        x, B, C, conv = self._convolve(xBC, conv, seq_idx)
        y = ssd(
            *(x, dt, self._A(), B, C, self._D(), self._gate(z), self.dt_bias, True),
            dt_limit=self.dt_limit,
            chunk=self.chunk_size,
            initial_state=ssm,
            return_last_state=return_state,
            seq_idx=seq_idx,
            backend=self.backend,
        )
        y, ssm = y if return_state else (y, None)
        y = self._leave(y, z)
        return (y, MambaState(conv, ssm)) if return_state else y

    def step(self, x: Float[Tensor, "b m"], state: MambaState) -> tuple[Float[Tensor, "b m"], MambaState]:
        """One token: `(y, state)` as `forward` over a sequence of length one, without its overhead."""
        conv, ssm = self._check(x, "b d_model", state)
        z, xBC, dt = self._project(x)
        x, B, C, conv = self._convolve(xBC[:, None], conv)
        x, B, C = x[:, 0], B[:, 0], C[:, 0]
        y, ssm = ssd_step(
            *(ssm, x, dt, self._A(), B, C, self._D(), self._gate(z), self.dt_bias, True, self.dt_limit)
        )
        return self._leave(y, z), MambaState(conv, ssm)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.in_proj(x).split([self.d_inner, self.conv_channels, self.nheads], -1)

    def _convolve(
        self, xBC: Tensor, state: Tensor | None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (b, L, h, p), B and C (b, L, g, n), and the state of the convolution."""
        weight, bias = self.conv1d.weight, self.conv1d.bias
        xBC, state = causal_conv1d(
            xBC, weight, bias, state, activation="silu", seq_idx=seq_idx, return_state=True
        )
        of_groups = self.ngroups * self.d_state
        x, B, C = xBC.split([self.d_inner, of_groups, of_groups], -1)
        B, C = (m.unflatten(-1, (self.ngroups, self.d_state)) for m in (B, C))
        return x.unflatten(-1, (self.nheads, self.headdim)), B, C, state

    def _A(self) -> Tensor:
        return -torch.exp(widened(self.A_log))

    def _D(self) -> Tensor:
        return self.D if self.D.shape[0] == self.nheads else self.D.view(self.nheads, self.headdim)

    def _gate(self, z: Tensor) -> Tensor | None:
        """The gate inside the recurrence: only where no norm brings its own."""
        return z.unflatten(-1, (self.nheads, self.headdim)) if self.norm is None else None

    def _leave(self, y: Tensor, z: Tensor) -> Tensor:
        y = y.flatten(-2)
        return self.out_proj(y if self.norm is None else self.norm(y, z))
