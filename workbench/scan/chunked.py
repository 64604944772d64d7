"""Mamba-1's selective scan, segment by segment: exact, O(L) in time, O(L d) in memory when training.

The sequence is walked in segments of a few steps. Only the state that enters a segment is kept; the backward pass
walks the segments from the last to the first and computes the states inside each anew, so that nothing of size
(L, d, n) ever exists and the work stays in the cache. One segment is one call of a kernel (`chunked_kernels`). The
whole is a custom operator, so that a model that uses it can itself be compiled.

Source: Gu and Dao 2023, "Mamba", section 3.3; the recomputation is theirs, the segments are for a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.scan.chunked_kernels import bulk_backward, bulk_forward, steps_backward, steps_forward
from workbench.scan.compiled import compiled
from workbench.scan.reference import accumulate_dtype

# Steps of a segment: more of them cost compile time and cache, fewer cost calls.
COMPILED_STEPS, EAGER_STEPS = 32, 32


class Plan(NamedTuple):
    """How the work is cut: sequences at a time, chunks side by side in a segment, steps in a chunk."""

    rows: int
    chunks: int
    steps: int
    padded: bool  # every segment has exactly so many steps
    forward: Callable
    backward: Callable

    @property
    def span(self) -> int:
        return self.chunks * self.steps


_COMPILED = (
    compiled(steps_forward, bulk_forward, traced=True),
    compiled(steps_backward, bulk_backward, traced=True),
)


def _cuts(backend: str, device: str, d: int, n: int) -> tuple[int, int]:
    """(chunks, steps), by state size and device only, so that neither batch nor length ask for another graph."""
    if backend == "compile":
        return 1, COMPILED_STEPS
    cpu = device == "cpu"
    # A segment of little states takes many chunks, since each operation costs the same whatever its size.
    chunks = max(1, (1 << 12 if cpu else 1 << 20) // (d * n))
    return min(chunks, 64 if cpu else 256), EAGER_STEPS


def _plan(backend: str, cuts: tuple[int, int], u: Tensor, n: int) -> Plan:
    chunks, steps = cuts
    b, _, d = u.shape
    if (
        backend == "compile"
    ):  # on a CPU sequence by sequence: one graph for all batches, and the work stays in cache
        return Plan(1 if u.device.type == "cpu" else b, 1, steps, True, *_COMPILED)
    busy = 1 << 12 if u.device.type == "cpu" else 1 << 20
    return Plan(max(1, busy // (chunks * d * n)), chunks, steps, False, bulk_forward, bulk_backward)


def _pieces(plan: Plan, x: Tensor | None, L: int, fill: Tensor | float = 0.0) -> Sequence[Tensor | None]:
    """x (r, L, width) cut into segments (r * chunks, steps, width), the last one padded; constants are repeated."""
    span = plan.span
    full, rest = divmod(L, span)
    if x is None or x.dim() == 2:
        return [x] * (full + (rest > 0))
    r, _, width = x.shape

    def segments(x, count, steps):
        # By way of (., width), so that the strides of a batch of one do not tell L: a graph would depend on them.
        x = x.reshape(r, count, -1, width).transpose(0, 1).reshape(-1, width).contiguous()
        return x.reshape(count, -1, steps, width).unbind(0)

    pieces = segments(x[:, : full * span], full, plan.steps) if full else ()
    if rest:
        x = x[:, full * span :]
        steps = plan.steps if plan.padded or rest > plan.steps else rest
        if missing := -rest % steps:
            tail = x.new_empty(r, missing, width)
            tail[:] = fill
            x = torch.cat([x, tail], 1)
        pieces = (*pieces, *segments(x, 1, steps))
    return pieces


def _join(pieces: list[Tensor], into: Tensor) -> None:
    """The reverse of `_pieces`."""
    r, L, width = into.shape
    pieces = [x.reshape(r, -1, width) for x in pieces]
    if surplus := sum(x.shape[1] for x in pieces) - L:
        pieces[-1] = pieces[-1][:, :-surplus]
    torch.cat(pieces, 1, out=into)


def _segments(plan: Plan, ins: list[Tensor | None], rows: slice, softplus: bool) -> list[tuple]:
    """The kernel's inputs but the state, segment by segment. Padding leaves the state alone: u = 0 and decay = 0."""
    L, bias = ins[0].shape[1], ins[7]
    still = -3e4 if softplus else 0.0 if bias is None else -bias  # softplus(-3e4) = 0
    mine = [x[rows] if x is not None and x.dim() == 3 else x for x in ins]
    fills = [still if i == 1 else 0.0 for i in range(len(ins))]
    cut = [
        [x] * -(-L // plan.span) if i in (2, 5, 7) else _pieces(plan, x, L, f)
        for i, (x, f) in enumerate(zip(mine, fills, strict=True))
    ]
    return list(zip(*cut, strict=True))


def _prepare(ins: list[Tensor | None], acc: torch.dtype) -> list[Tensor | None]:
    """Detached; A, D and bias in the accumulate dtype; inference tensors copied, else they compile anew."""
    ins = [x if x is None else x.detach() for x in ins]
    ins = [x.clone() if x is not None and x.is_inference() else x for x in ins]
    for i in (2, 5, 7):
        ins[i] = None if ins[i] is None else ins[i].to(acc).contiguous()
    for i in (3, 4):
        ins[i] = ins[i].contiguous()
    return ins


def _own(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.detach().to(dtype=dtype, copy=True, memory_format=torch.contiguous_format)


def _arithmetic(u: Tensor) -> ExitStack:
    """As it is meant to be whatever surrounds the call: no autograd, no autocast, ordinary tensors."""
    stack = ExitStack()
    for context in (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(u.device.type, enabled=False),
    ):
        stack.enter_context(context)
    return stack


def _forward(backend, cuts, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    """(out, last state, state entering each segment, y before the gate); the last two only if `save`."""
    acc = accumulate_dtype(u)
    plan = _plan(backend, cuts, u, A.shape[1])
    with _arithmetic(u):
        ins = _prepare([u, delta, A, B, C, D, z, bias, decay], acc)
        out, last, states, y = _outputs(cuts, u, A, z, save)
        for i in range(0, u.shape[0], plan.rows):
            rows = slice(i, i + plan.rows)
            h = torch.zeros_like(last[rows]) if h0 is None else _own(h0[rows], acc)
            entering, outs, ys = [], [], []
            for args in _segments(plan, ins, rows, softplus):
                entering.append(h)
                o, y_, h = plan.forward(*args, h, softplus)
                outs.append(o)
                ys.append(y_)
            last[rows] = h
            _join(outs, out[rows])
            if save:
                states[:, rows] = torch.stack(entering)
            if y.numel():
                _join(ys, y[rows])
        return out, last, states, y


def _outputs(cuts, u, A, z, save):
    """Empty tensors of `_forward`'s shapes."""
    (b, L, d), n, acc = u.shape, A.shape[1], accumulate_dtype(u)
    span = cuts[0] * cuts[1]
    out, last = u.new_empty(b, L, d), u.new_empty(b, d, n, dtype=acc)
    states = u.new_empty((L + span - 1) // span if save else 0, b, d, n, dtype=acc)
    return out, last, states, u.new_empty(b, L if save and z is not None else 0, d, dtype=acc)


def _backward(backend, cuts, dout, dlast, u, delta, A, B, C, D, z, bias, decay, states, y, softplus):
    """Gradients at u, delta, A, B, C, D, z, bias, h0, decay; an empty tensor for an input that is None."""
    acc = accumulate_dtype(u)
    plan = _plan(backend, cuts, u, A.shape[1])
    with _arithmetic(u):
        ins = _prepare([u, delta, A, B, C, D, z, bias, decay], acc)
        into = _gradients(ins, acc)
        dh0 = u.new_empty(dlast.shape, dtype=acc)
        L = u.shape[1]
        for i in range(0, u.shape[0], plan.rows):
            rows = slice(i, i + plan.rows)
            dh, found = _own(dlast[rows], acc), []
            douts = _pieces(plan, dout[rows].detach(), L)
            ys = _pieces(plan, y[rows] if y.numel() else None, L)
            segments = zip(
                _segments(plan, ins, rows, softplus), states[:, rows].unbind(0), douts, ys, strict=True
            )
            for args, h, do, y_ in reversed(list(segments)):
                *grads, dh = plan.backward(do, dh, *args, h, y_, softplus)
                found.append(grads)
            dh0[rows] = dh
            for total, parts in zip(into, zip(*reversed(found), strict=True), strict=True):
                if parts[0] is not None and total.dim() < 3:
                    total += sum(parts)  # what has no time: A, D, constant B and C
                elif parts[0] is not None:
                    _join(parts, total[rows])
        du, ddelta, dA, dB, dC, dD, dz, ddecay = into
        dbias = ddelta.sum((0, 1), dtype=acc) if bias is not None else ddelta.new_empty(0)
        return [du, ddelta, dA, dB, dC, dD, dz, dbias, dh0, ddecay]


def _gradients(ins, acc):
    """Room for the gradients of u, delta, A, B, C, D, z, decay; zeros for those that are summed over segments."""
    u, delta, A, B, C, D, z, _, decay = ins

    def room(x):
        if x is None:
            return A.new_empty(0)
        return x.new_empty(x.shape) if x.dim() == 3 else x.new_zeros(x.shape, dtype=acc)

    return [room(x) for x in (u, delta, A, B, C, D, z, decay)]


# ---- as operators of torch ----------------------------------------------------------------------------------------
# How the work is cut is an argument: a compiled model that outlives a change of it then still agrees with the shapes.

_CUTS = "str backend, int chunks, int steps"
_INPUTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? bias"


@torch.library.custom_op(
    "workbench::scan",
    mutates_args=(),
    schema=f"({_CUTS}, {_INPUTS}, Tensor? h0, Tensor? decay, bool softplus, bool save)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _scan(backend, chunks, steps, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    return _forward(backend, (chunks, steps), u, delta, A, B, C, D, z, bias, h0, decay, softplus, save)


@_scan.register_fake
def _(backend, chunks, steps, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    return _outputs((chunks, steps), u, A, z, save)


@torch.library.custom_op(
    "workbench::scan_backward",
    mutates_args=(),
    schema=f"({_CUTS}, Tensor dout, Tensor dlast, {_INPUTS}, Tensor? decay, Tensor states, Tensor y, bool softplus)"
    " -> Tensor[]",
)
def _scan_backward(backend, chunks, steps, dout, dlast, *rest):
    return _backward(backend, (chunks, steps), dout, dlast, *rest)


@_scan_backward.register_fake
def _(backend, chunks, steps, dout, dlast, u, delta, A, B, C, D, z, bias, decay, states, y, softplus):
    acc = accumulate_dtype(u)
    du, ddelta, dA, dB, dC, dD, dz, ddecay = _gradients([u, delta, A, B, C, D, z, bias, decay], acc)
    dbias = A.new_empty(0) if bias is None else bias.new_empty(bias.shape, dtype=acc)
    return [du, ddelta, dA, dB, dC, dD, dz, dbias, torch.empty_like(dlast), ddecay]


def _setup(ctx, inputs, output):
    *cuts, u, delta, A, B, C, D, z, bias, h0, decay, softplus, _ = inputs
    _, _, states, y = output
    ctx.cuts, ctx.softplus = cuts, softplus
    ctx.dtypes = [None if x is None else x.dtype for x in (u, delta, A, B, C, D, z, bias, h0, decay)]
    ctx.save_for_backward(u, delta, A, B, C, D, z, bias, decay, states, y)
    ctx.mark_non_differentiable(states, y)


def _gradient(ctx, dout, dlast, *_):
    *ins, states, y = ctx.saved_tensors
    u, A = ins[0], ins[2]
    if dout is None:
        dout = torch.zeros_like(u)
    if dlast is None:
        dlast = u.new_zeros(u.shape[0], *A.shape, dtype=accumulate_dtype(u))
    grads = _scan_backward(*ctx.cuts, dout, dlast, *ins, states, y, ctx.softplus)
    needed = ctx.needs_input_grad[len(ctx.cuts) :]
    grads = [
        g.to(t) if t is not None and need else None
        for g, t, need in zip(grads, ctx.dtypes, needed, strict=False)
    ]
    return (*[None] * len(ctx.cuts), *grads, None, None)


_scan.register_autograd(_gradient, setup_context=_setup)


def _run(backend, u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus):
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    out, last, _, _ = _scan(backend, *_cuts(backend, u.device.type, *A.shape), *tensors, bool(softplus), save)
    return out, last


def scan_eager(
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
    """The selective scan without a compiler; arguments, result and meaning as `reference.scan_reference`.

    Differentiable once in every tensor, the states included.
    """
    return _run("eager", u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus)


def scan_compile(
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
    """The selective scan through `torch.compile`; arguments, result and meaning as `reference.scan_reference`.

    Compiles once for each (d, n), dtypes and set of absent arguments, whatever batch and length: some seconds for
    the forward, and as many again when the first gradient is asked for. Where compiling fails, `compiled.broken()`
    says why, a warning has been given, and the eager kernels have answered.
    """
    return _run("compile", u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus)
