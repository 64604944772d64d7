"""The two recurrences, one step after another: slow, plain, and what every other backend is tested against.

Nothing here is clever. The only care taken: the sequence is cut with `unbind` (whose gradient is one `stack`), so
that the backward pass costs O(L); indexing `x[:, t]` in a loop makes it O(L^2), because each index
back-propagates into a zero tensor of the full length. Feed float64 to get a float64 oracle.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """The dtype of steps, decays and states: float64 for float64 inputs, float32 for all others."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_decay: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Mamba-1's selective scan, step by step.

    `h_t = exp(decay_t A) h_{t-1} + step_t u_t B_t`, `y_t = C_t . h_t + D u_t`, `out_t = y_t silu(z_t)`.
    u, delta, z, delta_decay (b, L, d); A (d, n); B, C (b, L, n) or constant (d, n); D, delta_bias (d,);
    initial_state (b, d, n). Returns out (b, L, d) in u's dtype and the last state (b, d, n) in the accumulate dtype.

    Source: Gu and Dao 2023, "Mamba", algorithm 2 and section 3.3 (zero-order hold for A, Euler for B).
    """
    acc = accumulate_dtype(u)
    with torch.autocast(u.device.type, enabled=False):
        x, A, B, C = (t.to(acc) for t in (u, A, B, C))
        step = step_size(delta, delta_bias, softplus, acc)
        decay = step if delta_decay is None else delta_decay.to(acc)

        b, L, d = u.shape
        h = x.new_zeros(b, d, A.shape[1]) if initial_state is None else initial_state.to(acc)
        ys = []
        for x_t, step_t, decay_t, B_t, C_t in zip(
            x.unbind(1), step.unbind(1), decay.unbind(1), _over_time(B, L), _over_time(C, L), strict=True
        ):
            h = torch.exp(decay_t[..., None] * A) * h + (step_t * x_t)[..., None] * B_t  # (b, d, n)
            ys.append((h * C_t).sum(-1))  # (b, d)
        y = torch.stack(ys, 1)

        if D is not None:
            y = y + x * D.to(acc)
        if z is not None:
            y = y * F.silu(z.to(acc))
        return y.to(u.dtype), h


def ssd_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    log_decay: Tensor | None,
    seq_idx: Tensor | None,
    softplus: bool,
    dt_limit: tuple[float, float],
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's recurrence, step by step; `chunk` is accepted and ignored.

    `S_t = exp(a_t) S_{t-1} + step_t x_t B_t^T`, `y_t = S_t C_t + D x_t`, times `silu(z_t)`; `a_t = step_t A`.
    x, z (b, L, h, p); dt, log_decay (b, L, h); A (h,); B, C (b, L, g, n), head i reads group `i // (h / g)`;
    D (h,) or (h, p); dt_bias (h,); initial_state (b, h, p, n); seq_idx (b, L): the state restarts from zero where it
    changes. Returns y (b, L, h, p) in x's dtype and the last state (b, h, p, n) in the accumulate dtype.

    Source: Dao and Gu 2024, "Transformers are SSMs", section 3 (scalar-identity state matrix).
    """
    acc = accumulate_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        X, A, B, C = (t.to(acc) for t in (x, A, B, C))
        step = step_size(dt, dt_bias, softplus, acc).clamp(*dt_limit)
        a = step * A if log_decay is None else log_decay.to(acc)

        b, _, h, p = x.shape
        heads = h // B.shape[2]  # heads that share one group's B and C
        S = X.new_zeros(b, h, p, B.shape[3]) if initial_state is None else initial_state.to(acc)
        ys = []
        starts = None if seq_idx is None else sequence_starts(seq_idx)
        for t, (x_t, step_t, a_t, B_t, C_t) in enumerate(
            zip(X.unbind(1), step.unbind(1), a.unbind(1), B.unbind(1), C.unbind(1), strict=True)
        ):
            if starts is not None:
                S = S.masked_fill(starts[:, t, None, None, None], 0.0)
            B_t, C_t = (m.repeat_interleave(heads, 1)[:, :, None, :] for m in (B_t, C_t))  # (b, h, 1, n)
            S = torch.exp(a_t)[..., None, None] * S + (step_t[..., None] * x_t)[..., None] * B_t
            ys.append((S * C_t).sum(-1))  # (b, h, p)
        y = torch.stack(ys, 1)

        if D is not None:
            y = y + X * D.to(acc).reshape(h, -1)  # (h, 1) or (h, p)
        if z is not None:
            y = y * F.silu(z.to(acc))
        return y.to(x.dtype), S


def step_size(delta: Tensor, bias: Tensor | None, softplus: bool, acc: torch.dtype) -> Tensor:
    """softplus(delta + bias), each part if asked for."""
    step = delta.to(acc)
    if bias is not None:
        step = step + bias.to(acc)
    return F.softplus(step) if softplus else step


def sequence_starts(seq_idx: Tensor) -> Tensor:
    """Where a packed sequence begins, (b, L) bool; not at t = 0, which goes on from the initial state."""
    return F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))


def _over_time(m: Tensor, L: int) -> list[Tensor]:
    """The L matrices that broadcast against the state (b, d, n): (b, 1, n) each, or a constant (d, n) L times."""
    return [m] * L if m.dim() == 2 else [m_t[:, None, :] for m_t in m.unbind(1)]
