"""Mamba-2's recurrence as matrix products: the sequence is cut into chunks, and a chunk is a small attention.

Within a chunk of Q steps the output is `(C B^T * decay) (step x)`, a masked Q x Q product ("dual form"); what came
before the chunk enters through one state per chunk, and those states follow a recurrence that is Q times shorter.
So the cost is O(L) and nearly all of it is spent in batched matrix products:

    near_i = sum_{j <= i} exp(c_i - c_j) (C_i . B_j) step_j x_j        far_i = exp(c_i) S C_i
    S' = exp(c_Q) S + sum_j exp(c_Q - c_j) step_j x_j B_j^T            y = near + far + D x

with `c` the running sum of the log decays inside the chunk. Four things deserve a word.

*Exactness.* `c_i - c_j` loses every digit that matters once one step forgets everything (log decay -1e4) and its
neighbours remember (-0.01). `_running_sums` therefore writes each log decay as a multiple of a power of two plus a
small rest: sums and differences of the multiples are exact, and the rests stay so small that they may be taken out
of the difference, as factors of rows and columns. The gradient of a log decay is summed over exactly the pairs
(i, j) that its step lies between, never as a difference of two sums, for the same reason.

*Boundaries.* A step that starts a packed sequence gets the log decay `_FLOOR`, whose exponential is zero: no state,
no output and no gradient crosses it, and no mask is needed anywhere else.

*Memory.* Nothing of size Q x Q outlives a block of chunks: forward keeps its inputs and one state per chunk (the
size of x, if the state is as wide as the chunk), backward computes the rest again, block by block, in the cache.

*Powers of two.* Log decays are turned to base 2 once: torch's exp2 on a CPU takes a third of the time of its exp,
and a tenth where the result is zero or subnormal, which strong decays make common.

Dimensions in the comments: N chunks, Q steps, g groups, r heads per group, p channels per head, n state width.

Source: Dao and Gu 2024, "Transformers are SSMs", sections 6 and 7 (block decomposition of a semiseparable matrix).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.scan.reference import accumulate_dtype

# exp of this is zero in the accumulate dtype (subnormal numbers included), so that smaller values mean the same.
_FLOOR = {torch.float32: -(2.0**7), torch.float64: -(2.0**10)}
_DIGITS = {torch.float32: 24, torch.float64: 53}  # bits of the significand
# Entries of all decay matrices of a block of chunks: 1 MB in float32, a core's cache; on a GPU, enough to fill it.
_BLOCK = {"cpu": 2**18, "cuda": 2**26}


def ssd_eager(
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
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's recurrence in chunks of matrix products; arguments and results as `reference.ssd_reference`.

    `chunk` is the number of steps of a chunk; it changes the time taken, not the result. Half precision inputs are
    multiplied in their dtype, with decays, sums and states in float32.
    """
    return _ssd(
        x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk, False
    )


def ssd_compile(
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
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """`ssd_eager` with the work between the matrix products compiled; one graph serves every length and batch."""
    return _ssd(
        x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk, True
    )


def _ssd(
    x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk, compiled
) -> tuple[Tensor, Tensor]:
    """The small tensors (steps and log decays) in plain autograd, the large ones in the operator."""
    acc = accumulate_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        step = dt.to(acc)
        if dt_bias is not None:
            step = step + dt_bias.to(acc)
        step = (F.softplus(step) if softplus else step).clamp(*dt_limit)
        decay = (step * A.to(acc) if log_decay is None else log_decay.to(acc)).clamp(min=_FLOOR[acc])
        if seq_idx is not None:
            starts = F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))  # t = 0 continues the initial state
            decay = decay.masked_fill(starts[..., None], _FLOOR[acc])
        h, p = x.shape[2:]
        if D is not None:
            D = D.to(acc).reshape(h, -1).expand(h, p)
        if initial_state is None:
            initial_state = x.new_zeros(x.shape[0], h, p, B.shape[3], dtype=acc)
        inputs = (x, step, decay, B.to(x.dtype), C.to(x.dtype), D, initial_state.to(acc))
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
        y, last, _ = ssd_forward(*inputs, chunk, compiled, keep)
        if z is not None:
            y = (y.to(acc) * F.silu(z.to(acc))).to(x.dtype)
        return y, last


# The operator: opaque to torch.compile, so that a user's graph neither breaks here nor unrolls the loops below.


@torch.library.custom_op("workbench::ssd_forward", mutates_args=())
def ssd_forward(
    x: Tensor,
    step: Tensor,
    decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    start: Tensor,
    chunk: int,
    compiled: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, L, h, p), the last state (b, h, p, n), and the state entering each chunk (for backward, if `keep`)."""
    with torch.autocast(x.device.type, enabled=False):
        cut = _Cut(x, B, chunk, compiled)
        weigh, outputs = cut.function(_weighted_states), cut.function(_outputs)
        xs, Bs, Cs = cut.fold(x, heads=True), cut.fold(B), cut.fold(C)
        w = _weights(cut.fold(step, heads=True), cut.fold(decay, heads=True))
        D = None if D is None else D.unflatten(0, (cut.g, cut.r))

        y = torch.empty_like(xs)
        state = start.unflatten(1, (cut.g, cut.r)).clone()
        kept = state.new_empty(cut.N if keep else 0, *state.shape[1:])
        for rows, sequences, K in cut.blocks():
            added = weigh(xs[rows], w.leave[rows], Bs[rows])
            into = kept[rows] if keep else torch.empty_like(added)
            state[sequences] = _carry(state[sequences], w.total[rows], added, K, into, range(K))
            factors = (t[rows] for t in (w.coarse, w.up, w.down, w.enter))
            y[rows] = outputs(xs[rows], *factors, Bs[rows], Cs[rows], D, into)
        return cut.unfold(y, heads=True), state.flatten(1, 2), kept


@ssd_forward.register_fake
def _(x, step, decay, B, C, D, start, chunk, compiled, keep):
    b, L, h, p = x.shape
    g, n = B.shape[2:]
    N = b * -(-L // _chunk_size(L, chunk, compiled)) if keep else 0
    y = x.new_empty(b, L, h, p)
    return y, torch.empty_like(start), start.new_empty(N, g, h // g, p, n)


@torch.library.custom_op("workbench::ssd_backward", mutates_args=())
def ssd_backward(
    dy: Tensor,
    dlast: Tensor,
    x: Tensor,
    step: Tensor,
    decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    kept: Tensor,
    chunk: int,
    compiled: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, step, decay, B, C, D (zero if there is none) and the initial state."""
    with torch.autocast(x.device.type, enabled=False):
        cut = _Cut(x, B, chunk, compiled)
        weigh, gradients = cut.function(_weighted_states), cut.function(_gradients)
        xs, Bs, Cs, dys = cut.fold(x, heads=True), cut.fold(B), cut.fold(C), cut.fold(dy, heads=True)
        w = _weights(cut.fold(step, heads=True), cut.fold(decay, heads=True))
        Dg = None if D is None else D.unflatten(0, (cut.g, cut.r))

        dstate = dlast.unflatten(1, (cut.g, cut.r)).clone()
        dD = torch.zeros_like(dstate[0, ..., 0])
        dxs, dBs, dCs = torch.empty_like(xs), torch.empty_like(Bs), torch.empty_like(Cs)
        near, far, between, out = (torch.empty_like(w.coarse) for _ in range(4))
        through = torch.empty_like(w.total)
        for rows, sequences, K in reversed(list(cut.blocks())):
            added = weigh(dys[rows], w.enter[rows], Cs[rows])
            ends = torch.empty_like(added)  # gradient of the state that leaves each chunk
            dstate[sequences] = _carry(dstate[sequences], w.total[rows], added, K, ends, range(K - 1, -1, -1))
            factors = (t[rows] for t in (w.coarse, w.up, w.down, w.cross, w.leave))
            *results, part = gradients(
                dys[rows], xs[rows], *factors, Bs[rows], Cs[rows], Dg, kept[rows], ends
            )
            for whole, block in zip((dxs, dBs, dCs, near, far, between, out, through), results, strict=True):
                whole[rows] = block
            dD += part

        dstep = near * torch.exp2(-w.fine) + far * w.to_end
        # A log decay is met by what was put into the state before it and leaves the chunk, by what comes out of the
        # entering state from it on, by what crosses it inside the chunk, and by what passes through the whole chunk.
        ddecay = _sum_of_earlier(far * w.leave) + _sum_from_here(out * w.cross) + between
        ddecay = ddecay + (through * w.total)[:, None]
        return (
            cut.unfold(dxs, heads=True),
            cut.unfold(dstep, heads=True),
            cut.unfold(ddecay, heads=True),
            cut.unfold(dBs),
            cut.unfold(dCs),
            dD.flatten(0, 1),
            dstate.flatten(1, 2),
        )


@ssd_backward.register_fake
def _(dy, dlast, x, step, decay, B, C, D, kept, chunk, compiled):
    like = (x, step, decay, B, C)
    return (*(t.new_empty(t.shape) for t in like), dlast.new_empty(x.shape[2:]), dlast.new_empty(dlast.shape))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, _, chunk, compiled, _ = inputs  # all but the initial state
    ctx.save_for_backward(*tensors, output[2])
    ctx.chunk, ctx.compiled = chunk, compiled
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dlast, _):
    x, step, decay, B, C, D, kept = ctx.saved_tensors
    b, (_, g, r, p, n) = x.shape[0], kept.shape
    dy = torch.zeros_like(x) if dy is None else dy.to(x.dtype)
    dlast = kept.new_zeros(b, g * r, p, n) if dlast is None else dlast
    grads = ssd_backward(dy, dlast, x, step, decay, B, C, D, kept, ctx.chunk, ctx.compiled)
    dx, dstep, ddecay, dB, dC, dD, dstart = grads
    return dx, dstep, ddecay, dB, dC, None if D is None else dD, dstart, None, None, None


ssd_forward.register_autograd(_backward, setup_context=_setup_context)


# Cutting a sequence into chunks, and chunks into blocks.


def _chunk_size(L: int, chunk: int, compiled: bool) -> int:
    """Steps of a chunk: a short sequence is one chunk of its own length (compiled: of the next power of two)."""
    short = max(16, 1 << (L - 1).bit_length()) if compiled else L
    return min(chunk, short)


class _Cut:
    """How (b, L, ...) is laid out as (N, Q, ...) with N = b K chunks, and in which blocks these are worked on."""

    def __init__(self, x: Tensor, B: Tensor, chunk: int, compiled: bool):
        self.b, self.L, h, _ = x.shape
        self.g, self.r = B.shape[2], h // B.shape[2]
        self.Q = _chunk_size(self.L, chunk, compiled)
        self.K = -(-self.L // self.Q)
        self.N = self.b * self.K
        self.largest = max(1, _BLOCK.get(x.device.type, 2**18) // (h * self.Q * self.Q))  # chunks of a block
        # One lone chunk is too little work to be worth a graph, and torch.compile would make one for that size alone.
        self.compiled = compiled and self.N > 1

    def fold(self, t: Tensor, heads: bool = False) -> Tensor:
        """(b, L, ...) to (N, Q, ...), a view if nothing is to be padded; heads are split by group: h to (g, r)."""
        t = (
            F.pad(t, (0, 0) * (t.dim() - 2) + (0, self.K * self.Q - self.L))
            if self.L % self.Q
            else t.contiguous()
        )
        t = t.reshape(self.N, self.Q, *t.shape[2:])
        return t.unflatten(2, (self.g, self.r)) if heads else t

    def unfold(self, t: Tensor, heads: bool = False) -> Tensor:
        t = (t.flatten(2, 3) if heads else t).unflatten(0, (self.b, self.K)).flatten(1, 2)
        return t if t.shape[1] == self.L else t[:, : self.L].contiguous()

    def blocks(self) -> Iterator[tuple[slice, slice, int]]:
        """Rows of N, the sequences they belong to, and how many chunks of each: a part of one or several whole ones.

        Parts are as equal as can be, so that a block of one chunk only arises where there is one chunk only.
        """
        parts, together = -(-self.K // self.largest), max(1, self.largest // self.K)
        groups = -(-self.b // together)
        for i in range(groups):
            first, last = i * self.b // groups, (i + 1) * self.b // groups
            for j in range(parts):
                start, stop = j * self.K // parts, (j + 1) * self.K // parts
                rows = slice(first * self.K + start, (last - 1) * self.K + stop)
                yield rows, slice(first, last), stop - start

    def function(self, work):
        """`work` on blocks of chunks, compiled if asked for: one graph for any number of chunks."""
        if not self.compiled:
            return work
        from workbench.scan.compiled import compiled

        run = compiled(work)

        def call(*tensors):
            # Detached, a block no longer tells of what it is a part: its place would be part of the graph's guards.
            tensors = [t if t is None else t.detach() for t in tensors]
            for t in tensors:
                if t is not None and t.shape[0] == tensors[0].shape[0] and t.dim() > 3:
                    torch._dynamo.maybe_mark_dynamic(t, 0)
            return run(*tensors)

        return call


# The recurrence over chunks, and the sums it needs. Small tensors, never compiled.


def _carry(state: Tensor, total: Tensor, added: Tensor, K: int, entering: Tensor, order: range) -> Tensor:
    """Run `state <- total_k state + added_k` over the chunks in the given order; note the state each chunk meets.

    state (m, g, r, p, n) of m sequences; total (m K, g, r); added, entering (m K, g, r, p, n).
    Returns the final state.
    """
    total, added, entering = (
        t.unflatten(0, (-1, K)).unbind(1) for t in (total[..., None, None], added, entering)
    )
    here = entering[order[0]].copy_(state)
    for k, following in itertools.pairwise(order):
        here = torch.addcmul(added[k], total[k], here, out=entering[following])
    return torch.addcmul(added[order[-1]], total[order[-1]], here)


def _running_sums(decay: Tensor) -> tuple[Tensor, Tensor]:
    """Inclusive sums of the log decays along a chunk, to base 2, as an exact coarse part and a small fine part.

    Coarse log decays are multiples of a grid chosen such that all their sums over a chunk are exact floating numbers;
    fine ones are what is left, at most half the grid: 2^-11 for 64 steps in float32. decay and both (N, Q, g, r).
    """
    decay = decay * math.log2(math.e)
    largest = decay.shape[1] * -_FLOOR[decay.dtype] * math.log2(math.e)
    grid = 2.0 ** (math.ceil(math.log2(largest)) - _DIGITS[decay.dtype])
    coarse = (decay / grid).round_().mul_(grid)
    return coarse.cumsum(1), (decay - coarse).cumsum(1)


class _Weights(NamedTuple):
    """Decays of a sequence in chunks, all (N, Q, g, r) but `total`; c is the running sum of the log decays."""

    coarse: Tensor  # c = coarse + fine, to base 2
    fine: Tensor
    up: Tensor  # exp(fine) and step exp(-fine): what exp(coarse_i - coarse_j) step_j lacks, as factors of rows
    down: Tensor  # and of columns
    cross: Tensor  # exp(coarse): enter / up
    enter: Tensor  # exp(c_i): what is left at step i of the state that entered
    to_end: Tensor  # exp(c_Q - c_j): what is left at the end of what step j put into the state
    leave: Tensor  # step to_end
    total: Tensor  # exp(c_Q), (N, g, r): what is left of the state after the whole chunk


def _weights(step: Tensor, decay: Tensor) -> _Weights:
    coarse, fine = _running_sums(decay)
    up, cross = torch.exp2(fine), torch.exp2(coarse)
    to_end = torch.exp2((coarse[:, -1:] - coarse) + (fine[:, -1:] - fine))
    enter = torch.exp2(coarse + fine)
    return _Weights(
        coarse, fine, up, step * torch.exp2(-fine), cross, enter, to_end, step * to_end, enter[:, -1]
    )


def _sum_of_earlier(t: Tensor) -> Tensor:
    """Sums over the steps before each step of a chunk (dimension 1)."""
    return F.pad(t[:, :-1], (0, 0, 0, 0, 1, 0)).cumsum(1)


def _sum_from_here(t: Tensor) -> Tensor:
    """Sums over each step of a chunk and those after it."""
    return t.flip(1).cumsum(1).flip(1)


# The work on one block of chunks: plain tensor functions without autograd, run as they are or compiled.


def _by_head(x: Tensor, scale: Tensor) -> Tensor:
    """scale * x, from (N, Q, g, r, p) and (N, Q, g, r) to (N, g, r, Q, p) without a second pass over memory."""
    N, Q, g, r, p = x.shape
    out = torch.empty(N, g, r, Q, p, dtype=x.dtype, device=x.device)
    return torch.mul(x.permute(0, 2, 3, 1, 4), scale.permute(0, 2, 3, 1)[..., None], out=out)


def _by_group(x: Tensor, scale: Tensor) -> Tensor:
    """scale * x as (N, g, Q, r p): the heads of a group side by side, one matrix product for all of them."""
    return (x * scale[..., None]).to(x.dtype).flatten(3).transpose(1, 2)


def _decay_matrix(coarse: Tensor) -> Tensor:
    """exp(c_i - c_j) where j <= i, else 0: (N, g, r, Q, Q). Masked before the exponential, which would overflow."""
    c = coarse.permute(0, 2, 3, 1).contiguous()
    Q = c.shape[-1]
    future = torch.full((Q, Q), -torch.inf, dtype=c.dtype, device=c.device).triu(1)
    return (c[..., :, None] - c[..., None, :]).add_(future).exp2_()


def _weighted_states(x: Tensor, weight: Tensor, B: Tensor) -> Tensor:
    """sum_j weight_j x_j B_j^T: (N, g, r, p, n).

    With what leaves of each input: what a chunk adds to the state. With gradients of outputs for x, what enters for
    weights and C for B: what a chunk adds to the gradient of the state.
    """
    return (_by_group(x, weight).mT @ B.transpose(1, 2)).to(weight.dtype).unflatten(2, x.shape[3:])


def _outputs(
    x: Tensor,
    coarse: Tensor,
    up: Tensor,
    down: Tensor,
    enter: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    states: Tensor,
) -> Tensor:
    """y (N, Q, g, r, p) from the states (N, g, r, p, n) that enter the chunks."""
    acc, half = up.dtype, x.dtype
    C = C.transpose(1, 2)  # (N, g, Q, n)
    scores = C @ B.permute(0, 2, 3, 1)  # (N, g, Q, Q), shared by the heads of the group
    mix = (scores.to(acc)[:, :, None] * _decay_matrix(coarse)).to(half)
    near = (mix @ _by_head(x, down)).to(acc).permute(0, 3, 1, 2, 4)
    far = (C @ states.to(half).flatten(2, 3).mT).to(acc).transpose(1, 2).unflatten(3, x.shape[3:])
    y = (far * enter[..., None]).addcmul_(near, up[..., None])
    if D is not None:
        y = y.addcmul_(x.to(acc), D)
    return y.to(half)


def _gradients(
    dy: Tensor,
    x: Tensor,
    coarse: Tensor,
    up: Tensor,
    down: Tensor,
    cross: Tensor,
    leave: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    states: Tensor,
    ends: Tensor,
) -> tuple[Tensor, ...]:
    """dx, dB, dC, five products for the gradients of steps and log decays, and dD.

    states and ends (N, g, r, p, n): the state entering a chunk, the gradient of the state leaving it. The products:
    of each input with what its chunk's outputs and what the leaving state ask of it, of the pairs that lie around a
    step, of each output with the entering state (these (N, Q, g, r)), of the entering state and the leaving gradient.
    """
    acc, half = up.dtype, x.dtype
    g, r, p = x.shape[2:]
    Bg, Cg = B.transpose(1, 2), C.transpose(1, 2)  # (N, g, Q, n)
    X, dY = _by_head(x, down), _by_head(dy, up)  # (N, g, r, Q, p)

    # Within the chunk.
    scores = (Cg @ Bg.mT).to(acc)[:, :, None]  # (N, g, 1, Q, Q)
    decay = _decay_matrix(coarse)
    dX = ((scores * decay).to(half).mT @ dY).to(acc).permute(0, 3, 1, 2, 4)
    pairs = (dY @ X.mT).to(acc) * decay  # (N, g, r, Q, Q)
    dscores = pairs.sum(2).to(half)  # (N, g, Q, Q)
    between = _sum_between(pairs * scores).permute(0, 3, 1, 2)

    # Outputs from the state that entered.
    drawn = (dY @ states.to(half)).to(
        acc
    )  # (N, g, r, Q, n), still to be weighted by what crosses from the start
    out = (drawn * Cg.to(acc)[:, :, None]).sum(-1).permute(0, 3, 1, 2)
    dC = (drawn * cross.permute(0, 2, 3, 1)[..., None]).sum(2) + (dscores @ Bg).to(acc)

    # Inputs to the state that leaves.
    flat = ends.to(half).flatten(2, 3)  # (N, g, r p, n)
    dB = (_by_group(x, leave) @ flat).to(acc) + (dscores.mT @ Cg).to(acc)
    asked = (Bg @ flat.mT).to(acc).transpose(1, 2).unflatten(3, (r, p))  # (N, Q, g, r, p)

    near, far, through = (x * dX).sum(-1), (x * asked).sum(-1), (states * ends).sum((-1, -2))
    dx = (asked * leave[..., None]).addcmul_(dX, down[..., None])
    dD = states.new_zeros(g, r, p)
    if D is not None:
        dD = (dy.to(acc) * x.to(acc)).sum((0, 1))
        dx = dx.addcmul_(dy.to(acc), D)
    dx, dB, dC = (t.to(half) for t in (dx, dB.transpose(1, 2), dC.transpose(1, 2)))
    return dx, dB, dC, near, far, between, out, through, dD


def _sum_between(W: Tensor) -> Tensor:
    """sum of W_ij over the pairs j < t <= i, for each t: (..., Q, Q) to (..., Q)."""
    Q = W.shape[-1]
    later = torch.ones(Q, Q, dtype=W.dtype, device=W.device).tril(-1)  # i >= t, in column t - 1
    return F.pad(W.cumsum(-1).mul_(later).sum(-2)[..., :-1], (1, 0))
