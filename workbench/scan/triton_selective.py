"""Mamba-1's selective scan as two Triton kernels: everything in one pass forward, one pass backward.

One program owns a few channels of one sequence and walks along time with their state in registers, so that nothing
of size L x d x n is ever written. On its way it leaves the state at the start of every CHUNK steps; the backward
pass walks the chunks from the last to the first, replays one chunk from its saved state and then runs the adjoint
recurrence through it.

A program's tile of the state has three axes (R, NL, DL): R states lie in the registers of one lane, NL lanes share
the states of one channel, DL channels lie side by side. A sum over the states is R - 1 additions and log2(NL)
shuffles between lanes; a sum over channels takes log2(DL) shuffles. What depends on the channel alone (softplus,
gates) is computed NL times, so that a large NL serves only to cut a small problem into more warps.

Sums over channels (gradients of B and C) are written once per program and added up afterwards in a fixed order: no
atomic additions, so the same input gives the same bits.

Source of the recurrence: Gu and Dao 2023, "Mamba", algorithm 2; recomputed states: ibid., appendix D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

CHUNK = 8  # steps between two saved states; the backward pass keeps the states of one chunk in registers
MAX_STATE = 256
BUSY = 1024  # programs that keep a large GPU busy: two warps for each of its some 500 schedulers
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2E))


@triton.jit
def _softplus(x):
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|), where log1p(e) = 2 artanh(e / (2 + e)) keeps small steps exact.

    Seven terms of artanh's series leave 1e-8 at its largest argument, 1/3. From x = 17 on the result is x in
    float32, so that the usual threshold of 20 needs no branch.
    """
    e = tl.exp2(-tl.abs(x) * LOG2E)
    s = e / (2.0 + e)
    q = s * s
    series = 1.0 / 11 + q * (1.0 / 13)
    series = 1.0 / 7 + q * (1.0 / 9 + q * series)
    series = 1.0 + q * (1.0 / 3 + q * (1.0 / 5 + q * series))
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def _read(row, channels, seen):
    return tl.load(row + channels, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def _inside(channels, d: tl.constexpr, left):
    """The mask of one step: channels that exist, if steps are left before the sequence's end."""
    return channels < tl.where(left > 0, d, 0)


@triton.jit
def _chunk(rows, row: tl.constexpr, channels, d: tl.constexpr, left, T: tl.constexpr):
    """A tuple of the next T steps of a tensor (b, L, d) for this program's channels; zero after `left` steps."""
    steps = ()
    for i in tl.static_range(T):
        steps = steps + (tl.load(rows + i * row + channels, mask=_inside(channels, d, left - i), other=0.0),)  # noqa: RUF005
    return steps


@triton.jit
def _step_of(raw, bias, seen, SOFTPLUS: tl.constexpr):
    """The step size; zero beyond the end, where the state must stay as it is."""
    raw = raw + bias
    if SOFTPLUS:
        raw = _softplus(raw)
    return tl.where(seen, raw, 0.0)


@triton.jit
def _over_states(x):
    return tl.sum(tl.sum(x, 0, keep_dims=True), 1, keep_dims=True)


@triton.jit
def _tile(program, R: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr):
    """The channel numbers (1, NL, DL) and state numbers (R, NL, 1) of a program's tile."""
    share = tl.arange(0, NL)[None, :, None]
    # Channel numbers are repeated along the NL axis: Triton then spreads them over lanes as it does the tile itself.
    channels = program * DL + tl.arange(0, DL)[None, None, :] + share * 0
    return channels, share * R + tl.arange(0, R)[:, None, None]


@triton.jit
def forward_kernel(
    u, delta, z, decay, A, B, C, D, bias, start, out, last, saved,
    L, d: tl.constexpr, n: tl.constexpr,
    row_u: tl.constexpr, row_delta: tl.constexpr, row_z: tl.constexpr, row_decay: tl.constexpr,
    T: tl.constexpr, R: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, DECAY: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """Output, last state, states at chunk starts: channels of program_id(1) in sequence program_id(0)."""
    batch = tl.program_id(0).to(tl.int64)
    ch, st = _tile(tl.program_id(1), R, NL, DL)
    is_channel = ch < d
    is_both = is_channel & (st < n)
    N: tl.constexpr = R * NL

    u += batch * L * row_u
    delta += batch * L * row_delta
    z += batch * L * row_z
    decay += batch * L * row_decay
    out += batch * L * d
    chunks = tl.cdiv(L, T)
    B += batch * chunks * T * N
    C += batch * chunks * T * N
    saved += batch * chunks * d * n

    rate = tl.load(A + ch * n + st, mask=is_both, other=0.0) * LOG2E
    skip = tl.load(D + ch, mask=is_channel, other=0.0)
    shift = tl.load(bias + ch, mask=is_channel, other=0.0)
    h = tl.load(start + batch * d * n + ch * n + st, mask=is_both, other=0.0)

    # The next chunk's inputs are asked for before this one is worked on: memory answers while the warp computes.
    next_u = _chunk(u, row_u, ch, d, L, T)
    next_delta = _chunk(delta, row_delta, ch, d, L, T)
    if GATED:
        next_z = _chunk(z, row_z, ch, d, L, T)
    if DECAY:
        next_decay = _chunk(decay, row_decay, ch, d, L, T)
    for c in range(chunks):
        now_u, now_delta = next_u, next_delta
        u += T * row_u
        delta += T * row_delta
        left = L - (c + 1) * T
        next_u = _chunk(u, row_u, ch, d, left, T)
        next_delta = _chunk(delta, row_delta, ch, d, left, T)
        if GATED:
            now_z = next_z
            z += T * row_z
            next_z = _chunk(z, row_z, ch, d, left, T)
        if DECAY:
            now_decay = next_decay
            decay += T * row_decay
            next_decay = _chunk(decay, row_decay, ch, d, left, T)
        if SAVE:
            tl.store(saved + ch * n + st, h, mask=is_both)
            saved += d * n
        for i in tl.static_range(T):
            seen = _inside(ch, d, left + T - i)
            u_t = now_u[i].to(tl.float32)
            step = _step_of(now_delta[i].to(tl.float32), shift, seen, SOFTPLUS)
            d_t = now_decay[i].to(tl.float32) if DECAY else step
            h = tl.exp2(d_t * rate) * h + (step * u_t) * tl.load(B + i * N + st)
            y = _over_states(h * tl.load(C + i * N + st)) + skip * u_t
            if GATED:
                z_t = now_z[i].to(tl.float32)
                y *= z_t * _sigmoid(z_t)
            tl.store(out + i * d + ch, y, mask=seen)
        out += T * d
        B += T * N
        C += T * N
    tl.store(last + batch * d * n + ch * n + st, h, mask=is_both)


@triton.jit
def backward_kernel(
    u, delta, z, decay, A, B, C, D, bias, saved, dout, dlast,
    du, ddelta, dz, ddecay, dA, dB, dC, dD, dbias, dstart,
    L, d: tl.constexpr, n: tl.constexpr, row_u: tl.constexpr, row_delta: tl.constexpr, row_z: tl.constexpr,
    row_decay: tl.constexpr, T: tl.constexpr, R: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, DECAY: tl.constexpr,
):  # fmt: skip
    """All gradients. With g_t the gradient of h_t: g_t = C_t dy_t + a_{t+1} g_{t+1}, a_t = exp(decay_t A).

    dA, dD, dbias, dstart hold one entry per sequence; dB, dC one per sequence and program.
    """
    batch = tl.program_id(0).to(tl.int64)
    ch, st = _tile(tl.program_id(1), R, NL, DL)
    is_channel = ch < d
    is_both = is_channel & (st < n)
    N: tl.constexpr = R * NL

    chunks = tl.cdiv(L, T)
    first = batch * L + (chunks - 1) * T  # the row where the last chunk starts; we walk back from there
    u += first * row_u
    delta += first * row_delta
    z += first * row_z
    decay += first * row_decay
    dout += first * d
    du += first * d
    ddelta += first * d
    dz += first * d
    ddecay += first * d
    B += ((batch + 1) * chunks - 1) * T * N
    C += ((batch + 1) * chunks - 1) * T * N
    partial = (batch * tl.num_programs(1) + tl.program_id(1) + 1) * chunks - 1
    dB += partial * T * N
    dC += partial * T * N
    saved += (batch * chunks + chunks - 1) * d * n

    rate = tl.load(A + ch * n + st, mask=is_both, other=0.0) * LOG2E
    skip = tl.load(D + ch, mask=is_channel, other=0.0)
    shift = tl.load(bias + ch, mask=is_channel, other=0.0)
    later = tl.load(dlast + batch * d * n + ch * n + st, mask=is_both, other=0.0)  # a_{t+1} g_{t+1}
    sum_A = tl.zeros_like(later)
    sum_D = tl.zeros_like(skip)
    sum_bias = tl.zeros_like(skip)

    for k in range(chunks):
        left = L - (chunks - 1 - k) * T  # steps from the start of this chunk to the end
        h = tl.load(saved + ch * n + st, mask=is_both, other=0.0)
        carried = ()  # a_t h_{t-1} of every step: what the gradients of A and of the steps need
        for i in tl.static_range(T):
            seen = _inside(ch, d, left - i)
            u_t = _read(u + i * row_u, ch, seen)
            step = _step_of(_read(delta + i * row_delta, ch, seen), shift, seen, SOFTPLUS)
            d_t = _read(decay + i * row_decay, ch, seen) if DECAY else step
            dy = _read(dout + i * d, ch, seen)
            B_t = tl.load(B + i * N + st)
            ah = tl.exp2(d_t * rate) * h
            carried = carried + (ah,)  # noqa: RUF005
            h = ah + (step * u_t) * B_t
            if GATED:
                C_t = tl.load(C + i * N + st)
                z_t = _read(z + i * row_z, ch, seen)
                gate = _sigmoid(z_t)
                y = _over_states(h * C_t) + skip * u_t
                tl.store(dz + i * d + ch, dy * y * gate * (1.0 + z_t * (1.0 - gate)), mask=seen)
                dy *= z_t * gate
            tl.store(dC + i * N + st, tl.sum(h * dy, 2, keep_dims=True))
        for i in tl.static_range(T - 1, -1, -1):
            seen = _inside(ch, d, left - i)
            u_t = _read(u + i * row_u, ch, seen)
            raw = _read(delta + i * row_delta, ch, seen)
            step = _step_of(raw, shift, seen, SOFTPLUS)
            d_t = _read(decay + i * row_decay, ch, seen) if DECAY else step
            dy = _read(dout + i * d, ch, seen)
            if GATED:
                z_t = _read(z + i * row_z, ch, seen)
                dy *= z_t * _sigmoid(z_t)
            B_t = tl.load(B + i * N + st)
            C_t = tl.load(C + i * N + st)
            g = C_t * dy + later
            later = tl.exp2(d_t * rate) * g
            tl.store(dB + i * N + st, tl.sum(g * (step * u_t), 2, keep_dims=True))
            dx = _over_states(g * B_t)  # of step * u
            w = g * carried[i]
            sum_A += w * d_t
            d_decay = _over_states(w * rate) * LN2
            dstep = dx * u_t
            if DECAY:
                tl.store(ddecay + i * d + ch, d_decay, mask=seen)
            else:
                dstep += d_decay
            if SOFTPLUS:
                dstep *= _sigmoid(raw + shift)
            sum_D += dy * u_t
            sum_bias += tl.where(seen, dstep, 0.0)
            tl.store(du + i * d + ch, dx * step + skip * dy, mask=seen)
            tl.store(ddelta + i * d + ch, dstep, mask=seen)
        u -= T * row_u
        delta -= T * row_delta
        z -= T * row_z
        decay -= T * row_decay
        dout -= T * d
        du -= T * d
        ddelta -= T * d
        dz -= T * d
        ddecay -= T * d
        B -= T * N
        C -= T * N
        dB -= T * N
        dC -= T * N
        saved -= d * n
    tl.store(dA + batch * d * n + ch * n + st, sum_A, mask=is_both)
    tl.store(dstart + batch * d * n + ch * n + st, later, mask=is_both)
    tl.store(dD + batch * d + ch, sum_D, mask=is_channel)
    tl.store(dbias + batch * d + ch, sum_bias, mask=is_channel)


INTERPRETED = not isinstance(
    forward_kernel, triton.runtime.JITFunction
)  # TRITON_INTERPRET=1 when this was imported
if INTERPRETED:

    def wrap_triton(kernel):
        """The interpreter runs kernels as they are; older PyTorch refuses to wrap them."""
        return kernel


def supports(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus) -> str | None:
    """Why `scan_triton` cannot take these arguments, or None if it can."""
    if u.dtype == torch.float64 or A.dtype == torch.float64:
        return "the Triton kernels compute in float32, not in float64"
    if B.dim() == 2 or C.dim() == 2:
        return "the Triton kernels take B and C of shape (b, L, n), not constant ones"
    if A.shape[1] > MAX_STATE:
        return f"the Triton kernels hold at most {MAX_STATE} states a channel, not {A.shape[1]}"
    if u.numel() == 0 or A.shape[1] == 0:
        return "the Triton kernels need at least one element"
    if u.device.type == "cpu" and not INTERPRETED:
        return "Triton kernels need a GPU, the tensors are on the CPU"
    return None


def scan_triton(
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
    """The selective scan, arguments and results as in `reference.scan_reference`; float32, bfloat16 or float16.

    One read of u, delta, z and one write of out; arithmetic in float32. Training keeps the states of every CHUNK-th
    step, n / 8 float32 numbers for each element of u. What `supports` refuses raises ParameterError here.
    """
    args = (u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay)
    if (why := supports(*args, softplus)) is not None:
        raise ParameterError(f"scan_triton: {why}")
    (b, L, d), n = u.shape, A.shape[1]
    with torch.autocast(u.device.type, enabled=False):
        f32 = {"dtype": torch.float32, "device": u.device}
        D, bias = (torch.zeros(d, **f32) if t is None else t.to(**f32).contiguous() for t in (D, delta_bias))
        start = torch.zeros(b, d, n, **f32) if initial_state is None else initial_state.to(**f32).contiguous()
        # B and C are small: padded to whole chunks and to a power of two, so that the kernels need no masks for them.
        pad = (0, triton.next_power_of_2(n) - n, 0, -L % CHUNK)
        B, C = (F.pad(t.to(**f32), pad).contiguous() for t in (B, C))
        save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in args)
        rows = [None if t is None else _rows(t) for t in (u, delta, z, delta_decay)]
        A = A.to(**f32).contiguous()
        out, last, _ = selective_forward(*rows, A, B, C, D, bias, start, softplus, save)
    return out, last


def _rows(t: Tensor) -> Tensor:
    """`t` (b, L, d) itself if it is a stack of evenly spaced rows, as a slice of a projection is; else a copy."""
    even = t.stride(2) == 1 and t.stride(0) == t.shape[1] * t.stride(1)
    # A compiler may lay out its own buffers anew and keep only the order of the strides.
    return t if even and not torch.compiler.is_compiling() else t.contiguous()


def tile(b: int, d: int, n: int) -> dict[str, int]:
    """How a program's tile is cut (see the module's text) and how many warps hold it."""
    N = triton.next_power_of_2(n)
    R, DL = (4, 8) if N > 16 else (min(N, 8), 32 * min(N, 8) // N)
    while (
        N <= 16 and R > 2 and DL > 4 and b * triton.cdiv(d, DL) < BUSY
    ):  # too few programs: cut into more warps
        R, DL = R // 2, DL // 2
    NL = N // R
    return {"R": R, "NL": NL, "DL": DL, "num_warps": max(NL * DL // 32, 1)}


def _stride(t: Tensor | None) -> int:
    return 0 if t is None else int(t.stride(1))


@triton_op("workbench::triton_scan_forward", mutates_args={})
def selective_forward(
    u: Tensor,
    delta: Tensor,
    z: Tensor | None,
    decay: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    start: Tensor,
    softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """out (b, L, d), last state (b, d, n), and with `save` the states at chunk starts (b, chunks, d, n)."""
    (b, L, d), n = u.shape, int(A.shape[1])
    out = u.new_empty(b, L, d)
    last = torch.empty_like(start)
    saved = start.new_empty(b, triton.cdiv(L, CHUNK) if save else 0, d, n)
    cut = tile(b, d, n)
    wrap_triton(forward_kernel)[(b, triton.cdiv(d, cut["DL"]))](
        u, delta, u if z is None else z, u if decay is None else decay, A, B, C, D, bias, start, out, last, saved,
        L, d=int(d), n=n, row_u=_stride(u), row_delta=_stride(delta), row_z=_stride(z), row_decay=_stride(decay),
        T=CHUNK, SOFTPLUS=softplus, GATED=z is not None, DECAY=decay is not None, SAVE=save, **cut,
    )  # fmt: skip
    return out, last, saved


@triton_op("workbench::triton_scan_backward", mutates_args={})
def selective_backward(
    dout: Tensor,
    dlast: Tensor,
    u: Tensor,
    delta: Tensor,
    z: Tensor | None,
    decay: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    saved: Tensor,
    softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, z, decay, A, B, C, D, bias and start; those of an absent z or decay are empty."""
    (b, L, d), n = u.shape, int(A.shape[1])
    cut = tile(b, d, n)
    programs = triton.cdiv(d, cut["DL"])
    du, ddelta = u.new_empty(b, L, d), delta.new_empty(b, L, d)
    dz = u.new_empty(0) if z is None else z.new_empty(b, L, d)
    ddecay = u.new_empty(0) if decay is None else decay.new_empty(b, L, d)
    dA, dstart = A.new_empty(b, d, n), A.new_empty(b, d, n)
    dD, dbias = A.new_empty(b, d), A.new_empty(b, d)
    dB, dC = (A.new_empty(b, programs, *B.shape[1:]) for _ in range(2))
    wrap_triton(backward_kernel)[(b, programs)](
        u, delta, u if z is None else z, u if decay is None else decay, A, B, C, D, bias, saved, dout, dlast,
        du, ddelta, dz, ddecay, dA, dB, dC, dD, dbias, dstart,
        L, d=int(d), n=n, row_u=_stride(u), row_delta=_stride(delta), row_z=_stride(z), row_decay=_stride(decay),
        T=CHUNK, SOFTPLUS=softplus, GATED=z is not None, DECAY=decay is not None, **cut,
    )  # fmt: skip
    return du, ddelta, dz, ddecay, dA.sum(0), dB.sum(1), dC.sum(1), dD.sum(0), dbias.sum(0), dstart


def _keep(ctx, inputs, output):
    u, delta, z, decay, A, B, C, D, bias, _, ctx.softplus, _ = inputs
    ctx.save_for_backward(u, delta, z, decay, A, B, C, D, bias, output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, dout, dlast, _):
    u, _, z, decay, A, *_ = ctx.saved_tensors
    dout = torch.zeros_like(u) if dout is None else dout
    dlast = A.new_zeros(u.shape[0], *A.shape) if dlast is None else dlast
    grads = selective_backward(dout.contiguous(), dlast.contiguous(), *ctx.saved_tensors, ctx.softplus)
    du, ddelta, dz, ddecay, *rest = grads
    return du, ddelta, None if z is None else dz, None if decay is None else ddecay, *rest, None, None


selective_forward.register_autograd(_backward, setup_context=_keep)
