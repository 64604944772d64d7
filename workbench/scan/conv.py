"""What surrounds the recurrence in a Mamba block: the causal depthwise convolution and the gated RMS norm."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from workbench.errors import ParameterError
from workbench.scan.arguments import Reader
from workbench.scan.reference import accumulate_dtype, sequence_starts


def causal_conv1d(
    x: Float[Tensor, "b L c"],
    weight: Float[Tensor, "c k"] | Float[Tensor, "c 1 k"],
    bias: Float[Tensor, "c"] | None = None,
    state: Float[Tensor, "b k-1 c"] | None = None,
    *,
    activation: str | None = None,
    seq_idx: Integer[Tensor, "b L"] | None = None,
    return_state: bool = False,
) -> Float[Tensor, "b L c"] | tuple[Float[Tensor, "b L c"], Float[Tensor, "b k-1 c"]]:
    """Each channel convolved in time with its own k taps, the last of which meets the present input:

        y_t = activation(bias + Σ_j weight_{k-1-j} x_{t-j}),  j = 0 .. k-1

    Args:
        weight: `(c, k)`, or `(c, 1, k)` as `torch.nn.Conv1d(groups=c)` holds it.
        state: the k - 1 inputs before x, oldest first; None: zeros.
        activation: "silu" or None.
        seq_idx: which of several sequences packed end to end a step belongs to; a step sees no input from before the
            last change (`state` belongs to the first sequence).

    Returns:
        y, in the dtype of x; with `return_state` also the state to go on with (of the last sequence only, where
        sequences are packed). Sums are float32 (float64 for float64 inputs) whatever the inputs and autocast say.

    Raises:
        ParameterError: naming the argument that has a wrong shape, dtype or device.
    """
    if activation not in ("silu", None):
        raise ParameterError(f'causal_conv1d: activation should be "silu" or None, but is {activation!r}')
    read = Reader("causal_conv1d").tensor("x", x, "b L c").tensor("weight", weight, "c k", "c 1 k")
    k = weight.shape[-1]
    read.tensor("bias", bias, "c", optional=True).index("seq_idx", seq_idx, "b L")
    read.sizes |= {"1": 1, "k-1": k - 1}
    state = state if k > 1 else None
    read.tensor("state", state, "b k-1 c", optional=True)

    with torch.autocast(x.device.type, enabled=False):
        acc = accumulate_dtype(x)
        taps = weight.reshape(-1, k).t().to(acc)  # (k, c)
        offset = taps.new_zeros(()) if bias is None else bias.to(acc)
        runs = None if seq_idx is None else _runs(seq_idx)
        if runs is None:
            y = _TapSum.apply(x, state, taps, offset)
        else:
            before = _before(state, x, k)
            y = _packed_tap_sum(torch.cat([before, x], 1).to(acc), runs, taps, offset)
        y = (F.silu(y) if activation else y).to(x.dtype)
    return (y, _last_inputs(_before(state, x, k), x, runs)) if return_state else y


class _TapSum(torch.autograd.Function):
    """offset + Σ_j taps_{k-1-j} x_{t-j}, the state before x, as multiply-adds over slices, and the backward that
    autograd does not find.

    Autograd would give every slice a gradient of the full length, k times; `conv1d` wants (b, c, L), so both ways
    through a transpose. Nothing is padded: a padded copy costs as much as two taps, and short sequences would be
    mostly padding.
    """

    @staticmethod
    def forward(ctx, x: Tensor, state: Tensor | None, taps: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(x, state, taps, offset)
        taps, L = taps.contiguous(), x.shape[1]  # a strided row would slow every multiply-add down
        x = x.to(taps.dtype)
        y = torch.addcmul(offset, x, taps[-1])
        for j, tap in _earlier(taps, L):
            y[:, j:].addcmul_(x[:, : L - j], tap)
        for s, i, t in _meetings(state, L):
            y[:, t].addcmul_(state[:, s].to(y.dtype), taps[i])
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        x, state, taps, offset = ctx.saved_tensors
        kind, k, L = x.dtype, len(taps), x.shape[1]
        x, rows = x.to(taps.dtype), taps.contiguous()
        of_x, of_taps = grad * rows[-1], torch.zeros_like(rows)
        of_taps[-1] = (grad * x).sum((0, 1))
        for j, tap in _earlier(rows, L):
            of_x[:, : L - j].addcmul_(grad[:, j:], tap)
            of_taps[k - 1 - j] = (grad[:, j:] * x[:, : L - j]).sum((0, 1))
        of_state = None if state is None else torch.zeros_like(state, dtype=taps.dtype)
        for s, i, t in _meetings(state, L):
            of_state[:, s].addcmul_(grad[:, t], rows[i])
            of_taps[i] += (grad[:, t] * state[:, s]).sum(0)
        of_offset = grad.sum((0, 1)) if offset.dim() else None
        return of_x.to(kind), of_state if state is None else of_state.to(state.dtype), of_taps, of_offset


def _earlier(taps: Tensor, L: int) -> Iterator[tuple[int, Tensor]]:
    """(j, the tap that meets the input j steps before), for the steps that there are."""
    k = len(taps)
    return ((j, taps[k - 1 - j]) for j in range(1, min(k, L)))


def _meetings(state: Tensor | None, L: int) -> Iterator[tuple[int, int, int]]:
    """(s, i, t): row s of the state meets tap i at time t."""
    rows = 0 if state is None else state.shape[1]
    return ((s, i, s - i) for s in range(rows) for i in range(max(0, s + 1 - L), s + 1))


def _before(state: Tensor | None, x: Tensor, k: int) -> Tensor:
    return x.new_zeros(x.shape[0], k - 1, x.shape[2]) if state is None else state


def _packed_tap_sum(padded: Tensor, runs: Tensor, taps: Tensor, offset: Tensor) -> Tensor:
    """The same, without the inputs of another sequence (chosen, not multiplied by zero: their NaN must not leak)."""
    k, L = taps.shape[0], runs.shape[1]
    owner = F.pad(runs, (k - 1, 0))
    y = torch.addcmul(offset, padded[:, k - 1 :], taps[k - 1])
    for i in range(k - 1):
        same = (owner[:, i : i + L] == runs)[:, :, None]
        y = y + torch.where(same, padded[:, i : i + L], 0.0) * taps[i]
    return y


def _runs(seq_idx: Tensor) -> Tensor:
    """Counts the sequences from 0 on: an index that comes back later is another sequence."""
    return sequence_starts(seq_idx).cumsum(1)


def _last_inputs(state: Tensor, x: Tensor, runs: Tensor | None) -> Tensor:
    """The last k - 1 inputs of (state, x), also where x is shorter than that."""
    before, L = state.shape[1], x.shape[1]
    last = torch.cat([state[:, L:].to(x.dtype), x[:, max(0, L - before) :]], 1)
    if runs is None:
        return last
    owner = F.pad(runs, (before, 0))[:, L:]
    return torch.where((owner == runs[:, -1:])[:, :, None], last, 0.0)


def rms_norm_gated(
    x: Float[Tensor, "*b d"],
    z: Float[Tensor, "*b d"] | None = None,
    weight: Float[Tensor, "d"] | None = None,
    eps: float = 1e-5,
    group_size: int | None = None,
    norm_before_gate: bool = False,
) -> Float[Tensor, "*b d"]:
    """RMS norm of x silu(z): `h / sqrt(mean(h²) + eps) weight` with h = x silu(z), the mean taken over groups.

    Args:
        z: the gate; None: no gate.
        group_size: entries that share one mean; divides d; None: all d.
        norm_before_gate: the norm of x first, times weight, and the gate last.

    Returns:
        In the dtype of x; inside float32, or float64 for float64 inputs.

    Raises:
        ParameterError: naming the argument that has a wrong shape, dtype or device.

    Dao & Gu, Transformers are SSMs (2024), section 7 (the norm before the last projection).
    """
    lead = " ".join(f"b{i}" for i in range(x.dim() - 1))
    read = Reader("rms_norm_gated").tensor("x", x, f"{lead} d").tensor("z", z, f"{lead} d", optional=True)
    read.tensor("weight", weight, "d", optional=True)
    d = x.shape[-1]
    size = d if group_size is None else group_size
    if size < 1 or d % size:
        raise ParameterError(f"rms_norm_gated: group_size should divide {d}, but is {group_size!r}")
    with torch.autocast(x.device.type, enabled=False):
        acc = accumulate_dtype(x)
        h = x.to(acc)
        gate = None if z is None else F.silu(z.to(acc))
        if gate is not None and not norm_before_gate:
            h = h * gate
        h = h.unflatten(-1, (d // size, size))
        h = (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)).flatten(-2)
        h = h if weight is None else h * weight.to(acc)
        if gate is not None and norm_before_gate:
            h = h * gate
        return h.to(x.dtype)
