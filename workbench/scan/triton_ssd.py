"""Mamba-2's SSD as two Triton kernels: one program walks a whole sequence for one head and a block of its channels.

The state (PB channels x N states) stays in registers, in float32. Time is cut into chunks of Q steps; inside a chunk
the recurrence is a masked matrix product, and what came before enters through the state:

    y_i = sum_{j<=i} (C_i . B_j) exp(s_i - s_j) step_j x_j  +  exp(s_i) S C_i,      s = running sum of log decays
    S  <- exp(s_Q) S + sum_j exp(s_Q - s_j) step_j x_j B_j^T

Differences of running sums lose digits when strong and weak decays meet in a chunk, so s is summed in float64 and
carried as two float32 numbers. All exponents are <= 0 and masked before exp: no overflow, no inf * 0.

The backward kernel walks the chunks from the last to the first with the gradient of the state. What it must add over
heads and channel blocks is written once per program and added afterwards in a fixed order: no atomics, same bits.

Source: Dao and Gu 2024, "Transformers are SSMs", section 6 (block decomposition), in one pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

from workbench.errors import ParameterError
from workbench.scan.reference import sequence_starts, step_size

MAX_STATE = 256
BUSY = 256  # programs that keep a large GPU busy: two for each of its some 130 multiprocessors
LOG2E = tl.constexpr(1.4426950408889634)
RESET = -1e5  # log decay of a sequence's first step in a packed row: exp gives exactly 0


@triton.jit
def _running_sum(a):
    """The running sum of log decays (to base 2), and its whole sum, each as high + low float32 parts of a float64."""
    a = a.to(tl.float64) * LOG2E
    s = tl.cumsum(a, 0)
    total = tl.sum(a, 0)
    high, total_high = s.to(tl.float32), total.to(tl.float32)
    return (
        high,
        (s - high.to(tl.float64)).to(tl.float32),
        total_high,
        (total - total_high.to(tl.float64)).to(tl.float32),
    )


@triton.jit
def _decays(high, low, Q: tl.constexpr):
    """2^(s_i - s_j) for j <= i, else 0: (Q, Q)."""
    i, j = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    gap = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    return tl.exp2(tl.where(i >= j, gap, float("-inf")))


@triton.jit
def _place(h, g, p, n: tl.constexpr, Q: tl.constexpr, PB: tl.constexpr, N: tl.constexpr):
    """This program's batch, head, group, and its index vectors: steps of a chunk, channels, states."""
    batch = (tl.program_id(0) // h).to(tl.int64)
    head = tl.program_id(0) % h
    group = head // (h // g)
    return batch, head, group, tl.arange(0, Q), tl.program_id(1) * PB + tl.arange(0, PB), tl.arange(0, N)


@triton.jit
def forward_kernel(
    x, step, decay, B, C, D, start, y, last, saved,
    L, h: tl.constexpr, p: tl.constexpr, g: tl.constexpr, n: tl.constexpr,
    row_x: tl.constexpr, row_B: tl.constexpr, row_C: tl.constexpr,
    Q: tl.constexpr, PB: tl.constexpr, N: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    SAVE: tl.constexpr,
):  # fmt: skip
    """y, the last state, and with SAVE the states at chunk starts; a program per (batch and head, channel block)."""
    batch, head, group, steps, ch, st = _place(h, g, p, n, Q, PB, N)
    x += batch * L * row_x + head * p
    B += batch * L * row_B + group * n
    C += batch * L * row_C + group * n
    y += (batch * L * h + head) * p
    step += batch * L * h + head
    decay += batch * L * h + head
    tile = ch[:, None] * n + st[None, :]
    is_tile = (ch[:, None] < p) & (st[None, :] < n)
    state = (batch * h + head) * p * n
    saved += (batch * tl.cdiv(L, Q) * h + head) * p * n

    skip = tl.load(D + head * p + ch, mask=ch < p, other=0.0)
    S = tl.load(start + state + tile, mask=is_tile, other=0.0)
    for c in range(tl.cdiv(L, Q)):
        if SAVE:
            tl.store(saved + tile, S, mask=is_tile)
            saved += h * p * n
        rows = c * Q + steps
        live = rows < L
        is_x = live[:, None] & (ch[None, :] < p)
        is_n = live[:, None] & (st[None, :] < n)
        x_c = tl.load(x + rows[:, None] * row_x + ch[None, :], mask=is_x, other=0.0).to(DOT)
        B_c = tl.load(B + rows[:, None] * row_B + st[None, :], mask=is_n, other=0.0).to(DOT)
        C_c = tl.load(C + rows[:, None] * row_C + st[None, :], mask=is_n, other=0.0).to(DOT)
        dt = tl.load(step + rows * h, mask=live, other=0.0)
        high, low, end, end_low = _running_sum(tl.load(decay + rows * h, mask=live, other=0.0))

        scores = tl.dot(C_c, tl.trans(B_c), input_precision=PRECISION)
        mixed = (scores * _decays(high, low, Q)).to(DOT)
        out = tl.dot(C_c, tl.trans(S.to(DOT)), input_precision=PRECISION) * tl.exp2(high + low)[:, None]
        out = tl.dot(mixed, (x_c * dt[:, None]).to(DOT), out, input_precision=PRECISION)
        out += skip[None, :] * x_c.to(tl.float32)
        tl.store(y + rows[:, None] * h * p + ch[None, :], out, mask=is_x)

        kept = (
            tl.exp2((end - high) + (end_low - low)) * dt
        )  # what is left of each step's input at the chunk's end
        S *= tl.exp2(end + end_low)
        S = tl.dot(tl.trans((x_c * kept[:, None]).to(DOT)), B_c, S, input_precision=PRECISION)
    tl.store(last + state + tile, S, mask=is_tile)


@triton.jit
def backward_kernel(
    x, step, decay, B, C, D, saved, dy, dlast,
    dx, dstep, ddecay, dB, dC, dD, dstart,
    L, h: tl.constexpr, p: tl.constexpr, g: tl.constexpr, n: tl.constexpr,
    row_x: tl.constexpr, row_B: tl.constexpr, row_C: tl.constexpr,
    Q: tl.constexpr, PB: tl.constexpr, N: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients; those of step, decay, B and C one per program (see the module's text), of D one per sequence.

    da_t, the gradient of step t's log decay, collects every path that crosses step t: from an input j < t or the
    chunk's start to an output i >= t or the chunk's end. Sums in float64, so that the differences keep their digits.
    """
    batch, head, group, steps, ch, st = _place(h, g, p, n, Q, PB, N)
    chunks = tl.cdiv(L, Q)
    first = batch * L
    blocks = tl.num_programs(1)
    mine = head * blocks + tl.program_id(1)  # this program's place among the partial results
    x += first * row_x + head * p
    B += first * row_B + group * n
    C += first * row_C + group * n
    step += first * h + head
    decay += first * h + head
    dy += (first * h + head) * p
    dx += (first * h + head) * p
    dB += (first * h * blocks + mine) * n
    dC += (first * h * blocks + mine) * n
    dstep += first * h * blocks + mine
    ddecay += first * h * blocks + mine
    tile = ch[:, None] * n + st[None, :]
    is_tile = (ch[:, None] < p) & (st[None, :] < n)
    state = (batch * h + head) * p * n
    saved += ((batch * chunks + chunks - 1) * h + head) * p * n

    skip = tl.load(D + head * p + ch, mask=ch < p, other=0.0)
    dS = tl.load(dlast + state + tile, mask=is_tile, other=0.0)
    sum_D = tl.zeros_like(skip)
    for k in range(chunks):
        rows = (chunks - 1 - k) * Q + steps
        live = rows < L
        is_x = live[:, None] & (ch[None, :] < p)
        is_n = live[:, None] & (st[None, :] < n)
        x_c = tl.load(x + rows[:, None] * row_x + ch[None, :], mask=is_x, other=0.0).to(DOT)
        B_c = tl.load(B + rows[:, None] * row_B + st[None, :], mask=is_n, other=0.0).to(DOT)
        C_c = tl.load(C + rows[:, None] * row_C + st[None, :], mask=is_n, other=0.0).to(DOT)
        dy_c = tl.load(dy + rows[:, None] * h * p + ch[None, :], mask=is_x, other=0.0).to(DOT)
        dt = tl.load(step + rows * h, mask=live, other=0.0)
        high, low, end, end_low = _running_sum(tl.load(decay + rows * h, mask=live, other=0.0))
        S = tl.load(saved + tile, mask=is_tile, other=0.0)
        from_start = tl.exp2(high + low)
        to_end = tl.exp2((end - high) + (end_low - low))
        whole = tl.exp2(end + end_low)
        paths_whole = whole * tl.sum(tl.sum(S * dS, 1), 0)
        S = S.to(DOT)
        input_c = (x_c * dt[:, None]).to(DOT)

        # Paths inside the chunk.
        decays = _decays(high, low, Q)
        mixed = tl.dot(C_c, tl.trans(B_c), input_precision=PRECISION) * decays
        d_mixed = tl.dot(dy_c, tl.trans(input_c), input_precision=PRECISION)
        paths = tl.where(steps[:, None] > steps[None, :], d_mixed * mixed, 0.0)
        paths_to, paths_from = tl.sum(paths, 1), tl.sum(paths, 0)
        d_scores = (d_mixed * decays).to(DOT)

        # Paths from the chunk's start to its outputs.
        grad_C = tl.dot(dy_c, S, input_precision=PRECISION) * from_start[:, None]
        C_f = tl.load(C + rows[:, None] * row_C + st[None, :], mask=is_n, other=0.0).to(tl.float32)
        paths_to += tl.sum(grad_C * C_f, 1)
        grad_C = tl.dot(d_scores, B_c, grad_C, input_precision=PRECISION)
        tl.store(dC + rows[:, None] * (h * blocks * n) + st[None, :], grad_C, mask=is_n)

        # Paths from its inputs to the chunk's end.
        grad_B = tl.dot(input_c, dS.to(DOT), input_precision=PRECISION) * to_end[:, None]
        B_f = tl.load(B + rows[:, None] * row_B + st[None, :], mask=is_n, other=0.0).to(tl.float32)
        paths_end = tl.sum(grad_B * B_f, 1)
        grad_B = tl.dot(tl.trans(d_scores), C_c, grad_B, input_precision=PRECISION)
        tl.store(dB + rows[:, None] * (h * blocks * n) + st[None, :], grad_B, mask=is_n)

        grad_input = tl.dot(B_c, tl.trans(dS.to(DOT)), input_precision=PRECISION) * to_end[:, None]
        grad_input = tl.dot(tl.trans(mixed.to(DOT)), dy_c, grad_input, input_precision=PRECISION)
        # Read once more (from cache): holding these values since the chunk's start would cost registers.
        x_f = tl.load(x + rows[:, None] * row_x + ch[None, :], mask=is_x, other=0.0).to(tl.float32)
        dy_f = tl.load(dy + rows[:, None] * h * p + ch[None, :], mask=is_x, other=0.0).to(tl.float32)
        grad_x = grad_input * dt[:, None] + skip[None, :] * dy_f
        tl.store(dx + rows[:, None] * h * p + ch[None, :], grad_x, mask=is_x)
        tl.store(dstep + rows * (h * blocks), tl.sum(grad_input * x_f, 1), mask=live)
        sum_D += tl.sum(dy_f * x_f, 0)

        ends = (paths_to - paths_from).to(tl.float64)
        grad_decay = tl.sum(ends, 0) - tl.cumsum(ends, 0) + ends
        starts = paths_end.to(tl.float64)
        grad_decay += tl.cumsum(starts, 0) - starts
        tl.store(ddecay + rows * (h * blocks), grad_decay.to(tl.float32) + paths_whole, mask=live)

        dS *= whole
        dS = tl.dot(tl.trans((dy_f * from_start[:, None]).to(DOT)), C_c, dS, input_precision=PRECISION)
        saved -= h * p * n
    tl.store(dstart + state + tile, dS, mask=is_tile)
    tl.store(dD + (batch * h + head) * p + ch, sum_D, mask=ch < p)


INTERPRETED = not isinstance(
    forward_kernel, triton.runtime.JITFunction
)  # TRITON_INTERPRET=1 when this was imported
if INTERPRETED:

    def wrap_triton(kernel):
        """The interpreter runs kernels as they are; older PyTorch refuses to wrap them."""
        return kernel


def supports(
    x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk
) -> str | None:
    """Why `ssd_triton` cannot take these arguments, or None if it can."""
    if torch.float64 in (x.dtype, dt.dtype, A.dtype):
        return "the Triton kernels compute in float32, not in float64"
    if B.shape[3] > MAX_STATE:
        return f"the Triton kernels hold at most {MAX_STATE} states, not {B.shape[3]}"
    if x.numel() == 0 or B.shape[3] == 0:
        return "the Triton kernels need at least one element"
    longest_row = max(x.stride(1), B.stride(1), C.stride(1), 4 * x.shape[2] * max(x.shape[3], B.shape[3]))
    if x.shape[1] * longest_row >= 2**31:
        return f"the Triton kernels count in 32 bits within a sequence, too few for length {x.shape[1]}"
    if x.device.type == "cpu" and not INTERPRETED:
        return "Triton kernels need a GPU, the tensors are on the CPU"
    return None


def ssd_triton(
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
    """SSD, arguments and results as in `reference.ssd_reference`; float32, bfloat16 or float16.

    `chunk` is a wish: the kernels take the power of two below it, 16 to 64 (32 or 16 unless x is bfloat16). Decays,
    sums and states are float32 or better; matrix products take bfloat16 as it is, float16 as tf32, and float32 as
    float32, without tensor cores.
    """
    args = (x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx)
    if (why := supports(*args, softplus, dt_limit, chunk)) is not None:
        raise ParameterError(f"ssd_triton: {why}")
    b, L, h, p = x.shape
    n = B.shape[3]
    with torch.autocast(x.device.type, enabled=False):
        step = step_size(dt, dt_bias, softplus, torch.float32)
        if tuple(dt_limit) != (0.0, float("inf")) or not softplus:
            step = step.clamp(*dt_limit)
        decay = step * A.float() if log_decay is None else log_decay.float()
        if seq_idx is not None:
            decay = decay.masked_fill(sequence_starts(seq_idx)[:, :, None], RESET)

        start = (
            x.new_zeros(b, h, p, n, dtype=torch.float32) if initial_state is None else initial_state.float()
        )
        skip = x.new_zeros(h, p, dtype=torch.float32) if D is None else D.float().reshape(h, -1).expand(h, p)
        save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in args)
        B, C = (_rows(t.to(x.dtype)) for t in (B, C))
        longest = 64 if x.dtype == torch.bfloat16 else 32 if n <= 128 else 16  # what the registers hold
        length = max(min(chunk, longest, triton.next_power_of_2(L)), 16)
        length = 1 << (length.bit_length() - 1)
        flat = (t.contiguous() for t in (step, decay))
        y, last, _ = ssd_forward(_rows(x), *flat, B, C, skip.contiguous(), start.contiguous(), length, save)
        if z is not None:
            y = (y.float() * F.silu(z.float())).to(x.dtype)
    return y, last


def _rows(t: Tensor) -> Tensor:
    """`t` (b, L, i, j) itself if it is a stack of evenly spaced rows, as a slice of a projection is; else a copy."""
    even = t.stride(3) == 1 and t.stride(2) == t.shape[3] and t.stride(0) == t.shape[1] * t.stride(1)
    # A compiler may lay out its own buffers anew and keep only the order of the strides.
    return t if even and not torch.compiler.is_compiling() else t.contiguous()


def _sizes(x: Tensor, B: Tensor, C: Tensor, chunk: int) -> dict:
    """The kernels' compile-time arguments."""
    b, _, h, p = x.shape
    half = x.dtype == torch.bfloat16
    N = max(triton.next_power_of_2(int(B.shape[3])), 16)
    PB = min(max(triton.next_power_of_2(int(p)), 16), 64 if half and N <= 128 else 32)
    while PB > 16 and b * h * triton.cdiv(p, PB) < BUSY:  # too few programs: narrower blocks of channels
        PB //= 2
    sizes = {"h": h, "p": p, "g": B.shape[2], "n": B.shape[3]}
    sizes |= {"row_x": x.stride(1), "row_B": B.stride(1), "row_C": C.stride(1), "Q": chunk, "PB": PB, "N": N}
    sizes = {name: int(size) for name, size in sizes.items()}
    sizes["DOT"] = (
        tl.bfloat16 if half and not INTERPRETED else tl.float32
    )  # the interpreter multiplies no bfloat16
    return sizes | {"PRECISION": "ieee" if x.dtype == torch.float32 else "tf32"}


@triton_op("workbench::triton_ssd_forward", mutates_args={})
def ssd_forward(
    x: Tensor,
    step: Tensor,
    decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    start: Tensor,
    chunk: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, L, h, p), last state (b, h, p, n), and with `save` the states at chunk starts (b, chunks, h, p, n)."""
    b, L, h, p = x.shape
    y = x.new_empty(b, L, h, p)
    last = torch.empty_like(start)
    saved = start.new_empty(b, triton.cdiv(L, chunk) if save else 0, *start.shape[1:])
    sizes = _sizes(x, B, C, chunk)
    grid = (b * h, triton.cdiv(p, sizes["PB"]))
    warps = 4 if x.dtype == torch.bfloat16 and sizes["N"] <= 64 else 8
    wrap_triton(forward_kernel)[grid](
        x, step, decay, B, C, D, start, y, last, saved, L, **sizes, SAVE=save,
        num_warps=warps, num_stages=1 if x.dtype == torch.float32 else 2,
    )  # fmt: skip
    return y, last, saved


@triton_op("workbench::triton_ssd_backward", mutates_args={})
def ssd_backward(
    dy: Tensor,
    dlast: Tensor,
    x: Tensor,
    step: Tensor,
    decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    saved: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, step, decay, B, C, D and start."""
    b, L, h, p = x.shape
    g, n = B.shape[2:]
    sizes = _sizes(x, B, C, chunk)
    blocks = triton.cdiv(p, sizes["PB"])
    dx = x.new_empty(b, L, h, p)
    dstep, ddecay = (step.new_empty(b, L, h, blocks) for _ in range(2))
    dB, dC = (step.new_empty(b, L, g, h // g * blocks, n) for _ in range(2))
    dD, dstart = step.new_empty(b, h, p), torch.empty_like(dlast)
    wrap_triton(backward_kernel)[(b * h, blocks)](
        x, step, decay, B, C, D, saved, dy, dlast, dx, dstep, ddecay, dB, dC, dD, dstart, L, **sizes,
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return dx, dstep.sum(3), ddecay.sum(3), dB.sum(3).to(B.dtype), dC.sum(3).to(C.dtype), dD.sum(0), dstart


def _keep(ctx, inputs, output):
    x, step, decay, B, C, D, _, ctx.chunk, _ = inputs
    ctx.save_for_backward(x, step, decay, B, C, D, output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dlast, _):
    x, *_, saved = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy
    dlast = torch.zeros_like(saved[:, 0]) if dlast is None else dlast
    grads = ssd_backward(dy.contiguous(), dlast.contiguous(), *ctx.saved_tensors, ctx.chunk)
    return *grads, None, None


ssd_forward.register_autograd(_backward, setup_context=_keep)
