"""Mamba-2's recurrence as matrix products: the sequence is cut into chunks, and a chunk is a small attention.

Within a chunk of Q steps the output is `(C B^T * decay) (step x)`, a masked Q x Q product ("dual form"); what came
before the chunk enters through one state per chunk, and those states follow a recurrence that is Q times shorter.
So the cost is O(L) and nearly all of it is spent in batched matrix products:

    near_i = sum_{j <= i} exp(c_i - c_j) (C_i . B_j) step_j x_j        far_i = exp(c_i) S C_i
    S' = exp(c_Q) S + sum_j exp(c_Q - c_j) step_j x_j B_j^T            y = near + far + D x

with `c` the running sum of the log decays inside the chunk. Four things deserve a word.

*Exactness.* `c_i - c_j` loses every digit that matters once one step forgets everything (log decay -1e4) and its
neighbours remember (-0.01). `kernels.running_sums` therefore writes `c` as two numbers whose sums are exact. The
gradient of a log decay is summed over exactly the pairs (i, j) that its step lies between, never as a difference of
two sums, for the same reason.

*Boundaries.* A step that starts a packed sequence gets the log decay `FLOOR`, whose exponential is zero: no state,
no output and no gradient crosses it, to the last bit, and no mask is needed anywhere else.

*Memory.* Nothing of size Q x Q outlives a block of chunks: forward keeps its inputs and one state per chunk (the
size of x, if the state is as wide as the chunk), backward computes the rest again, block by block, in the cache.

*Powers of two.* Log decays are turned to base 2 once: torch's exp2 on a CPU takes a third of the time of its exp,
and a tenth where the result is zero or subnormal, which strong decays make common.

Dimensions in the comments: N chunks, Q steps, g groups, r heads per group, p channels per head, n state width.

Source: Dao and Gu 2024, "Transformers are SSMs", sections 6 and 7 (block decomposition of a semiseparable matrix).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.scan import chunked_ssd_kernels as kernels
from workbench.scan.compiled import Compiled, available
from workbench.scan.reference import accumulate_dtype, sequence_starts, step_size
from workbench.scan.short_ssd import short_ssd, suits

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
    last: bool = True,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's recurrence in chunks of matrix products; arguments and results as `reference.ssd_reference`.

    `chunk` is the number of steps of a chunk; it changes the time taken, not the result. Half precision inputs are
    multiplied in their dtype, with decays, sums and states in float32. last: False if nobody asks for the last state,
    which then is empty where a sequence is one chunk: it may be many times the size of x.
    """
    args = (x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk)
    return _ssd(*args, last, False)


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
    last: bool = True,
) -> tuple[Tensor, Tensor]:
    """`ssd_eager` with the work between the matrix products compiled; one graph serves every length and batch."""
    args = (x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, dt_limit, chunk)
    return _ssd(*args, last, True)


def _ssd(
    x,
    dt,
    A,
    B,
    C,
    D,
    z,
    dt_bias,
    initial_state,
    log_decay,
    seq_idx,
    softplus,
    dt_limit,
    chunk,
    last,
    compiled,
) -> tuple[Tensor, Tensor]:
    """The small tensors (steps and log decays) in plain autograd, the large ones in the operator."""
    acc = accumulate_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        step = step_size(dt, dt_bias, softplus, acc).clamp(*dt_limit)
        decay = (step * A.to(acc) if log_decay is None else log_decay.to(acc)).clamp(min=kernels.FLOOR[acc])
        if seq_idx is not None:
            decay = decay.masked_fill(sequence_starts(seq_idx)[..., None], kernels.FLOOR[acc])
        h, p = x.shape[2:]
        start = None if initial_state is None else initial_state.to(acc)
        D, B, C = (None if D is None else D.to(acc)), B.to(x.dtype), C.to(x.dtype)
        if not compiled and suits(x, D, start, chunk, last):
            y, end = short_ssd(x, step, decay, B, C, D), step.new_empty(0, h, p, B.shape[3])
        else:
            D = None if D is None else D.reshape(h, -1).expand(h, p)
            inputs = (x, step, decay, B, C, D, start)
            keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
            y, end, _ = ssd_forward(*inputs, chunk, compiled, keep, last)
        if z is not None:
            y = (y.to(acc) * F.silu(z.to(acc))).to(x.dtype)
        return y, end


# The operator: opaque to torch.compile, so that a user's graph neither breaks here nor unrolls the loops below.


@torch.library.custom_op("workbench::ssd_forward", mutates_args=())
def ssd_forward(
    x: Tensor,
    step: Tensor,
    decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    start: Tensor | None,
    chunk: int,
    compiled: bool,
    keep: bool,
    last: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, L, h, p), the last state (b, h, p, n), and the state entering each chunk (for backward, if `keep`).

    The states are empty if there is one chunk, nothing entered and nobody asks for the last."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        _keep_freed_memory()
        cut = _Cut(x, B, chunk, compiled)
        weigh, outputs = cut.function(_weighted_states), cut.function(_outputs)
        xs, steps, Bs, Cs = cut.fold(x, heads=True), cut.fold(step, heads=True), cut.fold(B), cut.fold(C)
        w = kernels.weights(steps, cut.fold(decay, heads=True))
        D = None if D is None else D.unflatten(0, (cut.g, cut.r))

        y = None
        alone = cut.K == 1 and start is None
        stateless = alone and not last
        state = cut.state(start, step, stateless)
        kept = state.new_empty(cut.N if keep and not alone else 0, *state.shape[1:])
        for rows, sequences, K in cut.blocks():
            states = None
            if not stateless:
                added = weigh(xs[rows], w.leave[rows], Bs[rows])
                states = kept[rows] if len(kept) else torch.empty_like(added)
                state[sequences] = _carry(state[sequences], w.total[rows], added, K, states, range(K))
            decays = w.enter[rows], w.coarse[rows], w.fine[rows], w.future
            enters = None if alone else states
            y = cut.put(y, rows, outputs(xs[rows], steps[rows], *decays, Bs[rows], Cs[rows], D, enters))
        return cut.unfold(y, heads=True), state.flatten(1, 2), kept


@ssd_forward.register_fake
def _(x, step, decay, B, C, D, start, chunk, compiled, keep, last=True):
    b, L, h, p = x.shape
    g, n = B.shape[2:]
    K = -(-L // _chunk_size(L, chunk, compiled))
    alone = K == 1 and start is None
    state = step.new_empty(0 if alone and not last else b, h, p, n)
    kept = step.new_empty(b * K if keep and not alone else 0, g, h // g, p, n)
    return x.new_empty(x.shape), state, kept


@torch.library.custom_op("workbench::ssd_backward", mutates_args=())
def ssd_backward(
    dy: Tensor,
    dlast: Tensor | None,
    x: Tensor,
    step: Tensor,
    decay: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    kept: Tensor,
    started: bool,
    chunk: int,
    compiled: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, step, decay, B, C, D (zero if there is none) and the initial state (empty if there is none)."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        cut = _Cut(x, B, chunk, compiled)
        weigh, gradients = cut.function(_weighted_states), cut.function(_gradients)
        xs, steps, Bs, Cs = cut.fold(x, heads=True), cut.fold(step, heads=True), cut.fold(B), cut.fold(C)
        dys, w = cut.fold(dy, heads=True), kernels.weights(steps, cut.fold(decay, heads=True))
        Dg = None if D is None else D.unflatten(0, (cut.g, cut.r))

        leaving = dlast is not None or cut.K > 1  # else the states are zero, or what becomes of them is
        entering = started or cut.K > 1
        dstate = cut.state(dlast, step, not (leaving or entering))
        dD = step.new_zeros(dstate.shape[1:4])
        wholes = [None] * 8
        for rows, sequences, K in reversed(list(cut.blocks())):
            ends = None
            if leaving or entering:
                added = weigh(dys[rows], w.enter[rows], Cs[rows])
                ends = torch.empty_like(added)  # gradient of the state that leaves each chunk
                order = range(K - 1, -1, -1)
                dstate[sequences] = _carry(dstate[sequences], w.total[rows], added, K, ends, order)
            states, ends = kept[rows] if entering else None, ends if leaving else None
            decays = w.enter[rows], w.leave[rows], w.coarse[rows], w.fine[rows], w.future, w.later
            *blocks, part = gradients(
                dys[rows], xs[rows], steps[rows], *decays, Bs[rows], Cs[rows], Dg, states, ends
            )
            wholes = [cut.put(whole, rows, block) for whole, block in zip(wholes, blocks, strict=True)]
            if part is not None:
                dD += part

        dx, dB, dC, near, far, between, out, through = wholes
        # A log decay weighs on every pair of an input before its step and an output from it on. In this order: both
        # lie within the chunk, the output after it, the input before it, both outside of it.
        dstep, ddecay = near, between
        if far is not None:
            dstep, ddecay = dstep + far * w.to_end, ddecay + kernels.sum_of_earlier(far * w.leave)
        if out is not None:
            ddecay = ddecay + kernels.sum_from_here(out)
        if through is not None:
            ddecay = ddecay + (through * w.total)[:, None]
        dx, dstep, ddecay = (cut.unfold(t, heads=True) for t in (dx, dstep, ddecay))
        dstart = dstate[: None if started else 0].flatten(1, 2)
        return dx, dstep, ddecay, cut.unfold(dB), cut.unfold(dC), dD.flatten(0, 1), dstart


@ssd_backward.register_fake
def _(dy, dlast, x, step, decay, B, C, D, kept, started, chunk, compiled):
    b, _, h, p = x.shape
    like = (x, step, decay, B, C)
    dstart = step.new_empty(b if started else 0, h, p, B.shape[3])
    return (*(t.new_empty(t.shape) for t in like), step.new_empty(h, p), dstart)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, start, chunk, compiled, _, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.options = start is not None, chunk, compiled
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dlast, _):
    x, step, decay, B, C, D, kept = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy.to(x.dtype)
    grads = ssd_backward(dy, dlast, x, step, decay, B, C, D, kept, *ctx.options)
    dx, dstep, ddecay, dB, dC, dD, dstart = grads
    started, *_ = ctx.options
    return dx, dstep, ddecay, dB, dC, None if D is None else dD, dstart if started else None, *[None] * 4


ssd_forward.register_autograd(_backward, setup_context=_setup_context)


# Cutting a sequence into chunks, and chunks into blocks.


def _chunk_size(L: int, chunk: int, compiled: bool) -> int:
    """Steps of a chunk: a short sequence is one chunk of its own length (compiled: of the next power of two)."""
    short = max(16, 1 << (L - 1).bit_length()) if compiled else L
    return min(chunk, short)


class _Cut:
    """How (b, L, ...) is laid out as (N, Q, ...) with N = b K chunks, and in which blocks these are worked on."""

    def __init__(self, x: Tensor, B: Tensor, chunk: int, compiled: bool):
        self.b, self.L, h, self.p = x.shape
        self.g, self.r, self.n = B.shape[2], h // B.shape[2], B.shape[3]
        self.Q = _chunk_size(self.L, chunk, compiled)
        self.K = -(-self.L // self.Q)
        self.N = self.b * self.K
        # Three at least: then a block of one chunk, for which torch.compile would make a graph of its own, arises
        # only where there is but one chunk, and that is too little work to compile for.
        self.largest = max(3, _BLOCK.get(x.device.type, 2**18) // (h * self.Q * self.Q))
        self.compiled = compiled and self.N > 1

    def fold(self, t: Tensor, heads: bool = False) -> Tensor:
        """(b, L, ...) to (N, Q, ...), a view if nothing is to be padded; heads are split by group: h to (g, r)."""
        missing = self.K * self.Q - self.L
        t = F.pad(t, (0, 0) * (t.dim() - 2) + (0, missing)) if missing else t.contiguous()
        t = t.reshape(self.N, self.Q, *t.shape[2:])
        return t.unflatten(2, (self.g, self.r)) if heads else t

    def unfold(self, t: Tensor, heads: bool = False) -> Tensor:
        t = (t.flatten(2, 3) if heads else t).unflatten(0, (self.b, self.K)).flatten(1, 2)
        return t[:, : self.L].contiguous()

    def state(self, given: Tensor | None, like: Tensor, empty: bool = False) -> Tensor:
        """The state, or gradient of one, to begin with, zero if none is given: (b, g, r, p, n), or without rows."""
        if given is None:
            return like.new_zeros(0 if empty else self.b, self.g, self.r, self.p, self.n)
        return given.unflatten(1, (self.g, self.r)).clone()

    def put(self, whole: Tensor | None, rows: slice, block: Tensor | None) -> Tensor | None:
        """A block's result in its place among those of all chunks; without a copy if there is but one block."""
        if block is None or block.shape[0] == self.N:
            return block
        whole = block.new_empty(self.N, *block.shape[1:]) if whole is None else whole
        whole[rows] = block
        return whole

    def blocks(self) -> Iterator[tuple[slice, slice, int]]:
        """Rows of N, the sequences they belong to, and how many chunks of each: a part of one or several whole ones.

        Parts are as equal as can be.
        """
        parts, together = -(-self.K // self.largest), max(1, self.largest // self.K)
        groups = -(-self.b // together)
        for i in range(groups):
            first, last = i * self.b // groups, (i + 1) * self.b // groups
            for j in range(parts):
                start, stop = j * self.K // parts, (j + 1) * self.K // parts
                rows = slice(first * self.K + start, (last - 1) * self.K + stop)
                yield rows, slice(first, last), stop - start

    def function(self, work: _Blockwise) -> Callable:
        return work if self.compiled else work.eager


class _Blockwise(Compiled):
    """A function of blocks of chunks, compiled once for any number of chunks."""

    def __call__(self, *tensors: Tensor | None):
        # Detached, a block no longer tells of what it is a part: its place there would be among the graph's guards.
        tensors = tuple(t if t is None else t.clone() if t.is_inference() else t.detach() for t in tensors)
        key = []
        for t in tensors:
            counted = t is not None and t.dim() > 3  # all others do not depend on the chunk
            if counted:
                torch._dynamo.maybe_mark_dynamic(t, 0)
            key.append(t if t is None else (t.shape[counted:], t.dtype, t.device))
        graph = self._graphs.get(tuple(key))
        if graph is not None:
            return graph(*tensors)
        if not available(tensors[0].device.type)[0]:
            return self.eager(*tensors)
        return self._first_call(tuple(key), tensors)


_weighted_states, _outputs, _gradients = (
    _Blockwise(f, f) for f in (kernels.weighted_states, kernels.outputs, kernels.gradients)
)


@functools.cache
def _keep_freed_memory() -> None:
    """Once a process: let the C library reuse the temporaries of a block rather than hand them back to the system.

    glibc maps every large array anew, at the price of a page fault for every 4 KiB of it, up to the size of the
    largest mapped array it has seen freed (mallopt(3), M_MMAP_THRESHOLD). So it is shown one, of almost the largest
    size it takes into account; nobody writes to it, so it costs nothing. Measured: a quarter of the time at L = 1024.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


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
