"""Mamba-1's selective scan, segment by segment: exact, O(L) in time, O(L d) in memory when training.

The sequence is walked in segments of a few steps. Only the state that enters a segment is kept; the backward pass
walks the segments from the last to the first and computes the states inside each anew, so that nothing of size
(L, d, n) ever exists and the work stays in the cache. One segment is one call of a kernel (`chunked_kernels`). The
whole is a custom operator, so that a model that uses it can itself be compiled.

Source: Gu and Dao 2023, "Mamba", section 3.3; the recomputation is theirs, the segments are for a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.scan.chunked_kernels import (
    bulk_backward,
    bulk_forward,
    steps_backward,
    steps_forward,
    writing_backward,
    writing_forward,
)
from workbench.scan.compiled import compiled
from workbench.scan.reference import accumulate_dtype

# Steps of a segment: more of them cost compile time and cache, fewer cost calls.
COMPILED_STEPS, EAGER_STEPS = 32, 32
# Numbers in all states of an eager segment: the shorter the sequences, the more of them go at a time.
EAGER_STATES_CPU, EAGER_STATES = 1 << 18, 1 << 25


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


_EAGER = writing_forward(bulk_forward), writing_backward(bulk_backward)
_COMPILED = (
    compiled(writing_forward(steps_forward), _EAGER[0], traced=True),
    compiled(writing_backward(steps_backward), _EAGER[1], traced=True),
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
    b, L, d = u.shape
    cpu = u.device.type == "cpu"
    if backend == "compile":  # on a CPU sequence by sequence: one graph for all batches, in a core's cache
        return Plan(1 if cpu else b, 1, steps, True, *_COMPILED)
    held = (EAGER_STATES_CPU if cpu else EAGER_STATES) // (max(1, min(L, chunks * steps)) * d * n)
    return Plan(max(1, held), chunks, steps, False, *_EAGER)


def _pieces(plan: Plan, x: Tensor, fill: Tensor | float = 0.0) -> tuple[Tensor, ...]:
    """x (r, L, width) in segments (r * chunks, steps, width), the last one padded; views if r = 1."""
    full, rest = divmod(x.shape[1], plan.span)
    pieces = _cut(x[:, : full * plan.span], full, plan.steps) if full else ()
    if rest:
        steps = plan.steps if plan.padded or rest > plan.steps else rest
        x = x[:, full * plan.span :]
        if missing := -rest % steps:
            tail = x.new_empty(x.shape[0], missing, x.shape[2])
            tail[:] = fill
            x = torch.cat([x, tail], 1)
        pieces = (*pieces, *_cut(x, 1, steps))
    return pieces


def _cut(x: Tensor, count: int, steps: int) -> tuple[Tensor, ...]:
    # By way of (., width), so that the strides of a batch of one do not tell L: a graph would depend on them.
    width = x.shape[2]
    x = x.reshape(x.shape[0], count, -1, width).transpose(0, 1).reshape(-1, width)
    return x.reshape(count, -1, steps, width).unbind(0)


def _places(plan: Plan, into: Tensor) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """Where kernels write (r, L, width), shaped as its `_pieces`, and what to call when they have.

    A full segment of a single sequence is written where it belongs, all else by way of pieces that are copied.
    """
    direct = into.shape[1] // plan.span * plan.span if into.shape[0] == 1 else 0
    there, rest = into[:, :direct], into[:, direct:]
    places, others = (_pieces(plan, x) if x.shape[1] else () for x in (there, rest))

    def settle() -> None:
        if others:
            joined = torch.cat([x.reshape(rest.shape[0], -1, x.shape[-1]) for x in others], 1)
            rest.copy_(joined[:, : rest.shape[1]])

    return places + others, settle


def _targets(
    plan: Plan, into: list[Tensor], rows: slice, count: int
) -> tuple[Iterable[tuple], Callable[[], None]]:
    """`_places` of several results, segment by segment; what has no time is the same in each, what is empty None."""
    places = [
        _places(plan, x[rows]) if x.dim() == 3 and x.numel() else ([x if x.numel() else None] * count, None)
        for x in into
    ]

    def settle() -> None:
        for _, one in places:
            if one is not None:
                one()

    return zip(*(where for where, _ in places), strict=True), settle


def _segments(plan: Plan, ins: list[Tensor | None], rows: slice, softplus: bool) -> list[tuple]:
    """The kernel's inputs but the state, segment by segment. Padding leaves the state alone: u = 0 and decay = 0."""
    L, bias = ins[0].shape[1], ins[7]
    still = -3e4 if softplus else 0.0 if bias is None else -bias  # softplus(-3e4) = 0
    fills = [still if i == 1 else 0.0 for i in range(len(ins))]
    cut = [
        [x] * -(-L // plan.span) if x is None or x.dim() < 3 else _pieces(plan, x[rows], fill)
        for x, fill in zip(ins, fills, strict=True)
    ]
    return list(zip(*cut, strict=True))


def _prepare(ins: list[Tensor | None], acc: torch.dtype) -> list[Tensor | None]:
    """Detached and contiguous; A, D, bias in the accumulate dtype; inference tensors copied, or they compile anew."""
    ins = [x if x is None else x.detach().contiguous() for x in ins]
    ins = [x.clone() if x is not None and x.is_inference() else x for x in ins]
    for i in (2, 5, 7):
        ins[i] = None if ins[i] is None else ins[i].to(acc)
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


def _walk(
    plan: Plan, kernel: Callable, calls: Iterable[tuple], state: Tensor, softplus: bool
) -> list[Tensor]:
    """kernel(*before, state, *after, softplus) one after the other; the state before each, and after the last."""
    states = [state]
    for before, after in calls:
        args = (*before, states[-1], *after, softplus)
        if len(states) == 2 and plan.padded:  # all others look like the first
            kernel = kernel.at_once(*args)
        states += kernel(*args)
    return states


def _forward(backend, cuts, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    """(out, last state, state entering each segment, y before the gate); the last two only if `save`."""
    acc = accumulate_dtype(u)
    plan = _plan(backend, cuts, u, A.shape[1])
    with _arithmetic(u):
        ins = _prepare([u, delta, A, B, C, D, z, bias, decay], acc)
        out, last, states, y = _outputs(cuts, u, A, z, save)
        for i in range(0, u.shape[0], plan.rows):
            rows = slice(i, i + plan.rows)
            segments = _segments(plan, ins, rows, softplus)
            targets, settle = _targets(plan, [out, y], rows, len(segments))
            h = torch.zeros_like(last[rows]) if h0 is None else _own(h0[rows], acc)
            if z is not None and not save and plan.padded:  # one graph with and without a gradient
                unused = torch.empty(segments[0][0].shape, dtype=acc, device=u.device)
                targets = ((o, unused) for o, _ in targets)
            calls = ((target + args, ()) for target, args in zip(targets, segments, strict=True))
            *entering, last[rows] = _walk(plan, plan.forward, calls, h, softplus)
            settle()
            if save:
                states[:, rows] = torch.stack(entering)
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
        dout = dout.detach().contiguous()
        for i in range(0, u.shape[0], plan.rows):
            rows = slice(i, i + plan.rows)
            segments = _segments(plan, ins, rows, softplus)
            targets, settle = _targets(plan, into, rows, len(segments))
            douts = _pieces(plan, dout[rows])
            ys = _pieces(plan, y[rows]) if y.numel() else [None] * len(segments)
            calls = [
                ((*target, do), (*args, h, y_))
                for target, do, args, h, y_ in zip(
                    targets, douts, segments, states[:, rows].unbind(0), ys, strict=True
                )
            ]
            dh0[rows] = _walk(plan, plan.backward, reversed(calls), _own(dlast[rows], acc), softplus)[-1]
            settle()
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
