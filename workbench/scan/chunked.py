"""Mamba-1's selective scan, segment by segment: exact, O(L) in time, O(L d) in memory when training.

The sequence is walked in segments of a few steps. Only the state that enters a segment is kept; the backward pass
walks the segments from the last to the first and computes the states inside each anew, so that nothing of size
(L, d, n) ever exists and the work stays in the cache. One segment is one call of a kernel (`chunked_kernels`). The
whole is a custom operator, so that a model that uses it can itself be compiled.

Source: Gu and Dao 2023, "Mamba", section 3.3; the recomputation is theirs, the segments are for a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.scan.chunked_kernels import bulk_backward, bulk_forward, steps_backward, steps_forward
from workbench.scan.compiled import compiled
from workbench.scan.reference import accumulate_dtype


class Plan(NamedTuple):
    """How the work is cut: sequences at a time, chunks side by side in a segment, steps in a chunk, padded or not."""

    rows: int
    chunks: int
    steps: int
    fixed: bool
    forward: Callable
    backward: Callable


_COMPILED = (compiled(steps_forward, bulk_forward), compiled(steps_backward, bulk_backward))


def _plan(backend: str, device: str, d: int, n: int) -> Plan:
    """A function of the state's size and the device only, so that neither batch nor length ask for another graph."""
    cpu = device == "cpu"
    if backend == "compile":
        return Plan(1 if cpu else 1 << 30, 1, 32, True, *_COMPILED)
    wanted = max(
        1, (1 << 12 if cpu else 1 << 20) // (d * n)
    )  # states side by side that keep one operation busy
    chunks = min(wanted, 64 if cpu else 256)
    return Plan(max(1, wanted // chunks), chunks, 16, False, bulk_forward, bulk_backward)


def _segments(plan: Plan, b: int, L: int) -> Iterator[tuple[slice, int, slice]]:
    """(batch rows, number of the segment, its steps)."""
    span = plan.chunks * plan.steps
    for i in range(0, b, plan.rows):
        for k, t in enumerate(range(0, L, span)):
            yield slice(i, min(i + plan.rows, b)), k, slice(t, min(t + span, L))


def _cut(plan: Plan, x: Tensor | None, rows: slice, time: slice, fill: Tensor | float = 0.0) -> Tensor | None:
    """x's part in this segment, as (rows * chunks, steps, width); padded where the sequence ends before."""
    if x is None or x.dim() == 2:
        return x  # constant in time
    x = x[rows, time]
    r, t, width = x.shape
    steps = plan.steps if plan.fixed or t > plan.steps else t
    if missing := -t % steps:
        tail = x.new_empty(r, missing, width)
        tail[:] = fill
        x = torch.cat([x, tail], 1)
    # By way of (., width): so that the strides of a batch of one do not tell L, and one graph serves all lengths.
    return x.reshape(-1, width).contiguous().reshape(-1, steps, width)


def _inputs(plan, ins, softplus, rows, time):
    """The kernel's tensor arguments but the state. Padding must not move the state: u = 0 and decay = 0 there."""
    u, delta, A, B, C, D, z, bias, decay = ins
    still = -3e4 if softplus else 0.0 if bias is None else -bias  # softplus(-3e4) = 0
    u, B, C, z, decay = (_cut(plan, x, rows, time) for x in (u, B, C, z, decay))
    return u, _cut(plan, delta, rows, time, still), A, B, C, D, z, bias, decay


def _prepare(ins: list[Tensor | None], acc: torch.dtype) -> list[Tensor | None]:
    """Detached; A, D and bias in the accumulate dtype; inference tensors copied, else they compile anew."""
    ins = [x if x is None else x.detach() for x in ins]
    ins = [x.clone() if x is not None and x.is_inference() else x for x in ins]
    for i in (2, 5, 7):
        ins[i] = None if ins[i] is None else ins[i].to(acc).contiguous()
    for i in (3, 4):
        ins[i] = ins[i].contiguous()
    return ins


def _forward(backend, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    """(out, last state, state entering each segment, y before the gate); the last two only if `save`."""
    (b, L, d), n, acc = u.shape, A.shape[1], accumulate_dtype(u)
    plan = _plan(backend, u.device.type, d, n)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(u.device.type, enabled=False):
        ins = _prepare([u, delta, A, B, C, D, z, bias, decay], acc)
        out, last, states, y = _outputs(backend, u, A, z, save)
        for rows, k, time in _segments(plan, b, L):
            if k == 0:
                h = torch.zeros_like(last[rows]) if h0 is None else _own(h0[rows].detach().to(acc))
            if save:
                states[k, rows] = h
            args = _inputs(plan, ins, softplus, rows, time)
            o, y_, h = plan.forward(*args, h, softplus)
            r, t = h.shape[0], time.stop - time.start
            out[rows, time] = o.reshape(r, -1, d)[:, :t]
            if y.numel():
                y[rows, time] = y_.reshape(r, -1, d)[:, :t]
            last[rows] = h
        return out, last, states, y


def _own(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _outputs(backend, u, A, z, save):
    """Empty tensors of `_forward`'s shapes."""
    (b, L, d), n, acc = u.shape, A.shape[1], accumulate_dtype(u)
    plan = _plan(backend, u.device.type, d, n)
    span = plan.chunks * plan.steps
    out, last = u.new_empty(b, L, d), u.new_empty(b, d, n, dtype=acc)
    states = u.new_empty((L + span - 1) // span if save else 0, b, d, n, dtype=acc)
    return out, last, states, u.new_empty(b, L if save and z is not None else 0, d, dtype=acc)


def _backward(backend, dout, dlast, u, delta, A, B, C, D, z, bias, decay, states, y, softplus):
    """Gradients at u, delta, A, B, C, D, z, bias, h0, decay; an empty tensor for an input that is None."""
    acc = accumulate_dtype(u)
    b, L, _ = u.shape
    plan = _plan(backend, u.device.type, *A.shape)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(u.device.type, enabled=False):
        ins = _prepare([u, delta, A, B, C, D, z, bias, decay], acc)
        into = _gradients(ins, acc)
        dout, dlast = dout.detach(), dlast.detach().to(acc)
        dh0 = torch.empty_like(dlast)
        for rows, k, time in reversed(list(_segments(plan, b, L))):
            if time.stop == L:
                dh = _own(dlast[rows])
            do, y_ = _cut(plan, dout, rows, time), _cut(plan, y, rows, time) if y.numel() else None
            args = _inputs(plan, ins, softplus, rows, time)
            *grads, dh = plan.backward(do, dh, *args, states[k, rows], y_, softplus)
            for total, g in zip(into, grads, strict=True):
                if g is not None and total.dim() < 3:
                    total += g  # what has no time: A, D, constant B and C
                elif g is not None:
                    total[rows, time] = g.reshape(dh.shape[0], -1, g.shape[-1])[:, : time.stop - time.start]
            dh0[rows] = dh
        du, ddelta, dA, dB, dC, dD, dz, ddecay = into
        dbias = ddelta.sum((0, 1), dtype=acc) if bias is not None else ddelta.new_empty(0)
        return [du, ddelta, dA, dB, dC, dD, dz, dbias, dh0, ddecay]


def _gradients(ins, acc):
    """Room for the gradients of u, delta, A, B, C, D, z, decay."""
    u, delta, A, B, C, D, z, _, decay = ins
    return [
        A.new_empty(0) if x is None else x.new_zeros(x.shape, dtype=acc if x.dim() < 3 else None)
        for x in (u, delta, A, B, C, D, z, decay)
    ]


# ---- as operators of torch ----------------------------------------------------------------------------------------

_INPUTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? bias"


@torch.library.custom_op(
    "workbench::scan",
    mutates_args=(),
    schema=f"(str backend, {_INPUTS}, Tensor? h0, Tensor? decay, bool softplus, bool save)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _scan(backend, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    return _forward(backend, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save)


@_scan.register_fake
def _(backend, u, delta, A, B, C, D, z, bias, h0, decay, softplus, save):
    return _outputs(backend, u, A, z, save)


@torch.library.custom_op(
    "workbench::scan_backward",
    mutates_args=(),
    schema=f"(str backend, Tensor dout, Tensor dlast, {_INPUTS}, Tensor? decay, Tensor states, Tensor y,"
    " bool softplus) -> Tensor[]",
)
def _scan_backward(backend, dout, dlast, u, delta, A, B, C, D, z, bias, decay, states, y, softplus):
    return _backward(backend, dout, dlast, u, delta, A, B, C, D, z, bias, decay, states, y, softplus)


@_scan_backward.register_fake
def _(backend, dout, dlast, u, delta, A, B, C, D, z, bias, decay, states, y, softplus):
    acc = accumulate_dtype(u)
    du, ddelta, dA, dB, dC, dD, dz, ddecay = _gradients([u, delta, A, B, C, D, z, bias, decay], acc)
    dbias = A.new_empty(0) if bias is None else bias.new_empty(bias.shape, dtype=acc)
    return [du, ddelta, dA, dB, dC, dD, dz, dbias, torch.empty_like(dlast), ddecay]


def _setup(ctx, inputs, output):
    backend, *tensors, softplus, _ = inputs
    u, delta, A, B, C, D, z, bias, _, decay = tensors
    _, _, states, y = output
    ctx.backend, ctx.softplus = backend, softplus
    ctx.dtypes = [None if x is None else x.dtype for x in tensors]
    ctx.save_for_backward(u, delta, A, B, C, D, z, bias, decay, states, y)
    ctx.mark_non_differentiable(states, y)


def _gradient(ctx, dout, dlast, *_):
    *ins, states, y = ctx.saved_tensors
    u, A = ins[0], ins[2]
    if dout is None:
        dout = torch.zeros_like(u)
    if dlast is None:
        dlast = u.new_zeros(u.shape[0], *A.shape, dtype=accumulate_dtype(u))
    grads = _scan_backward(ctx.backend, dout, dlast, *ins, states, y, ctx.softplus)
    needed = ctx.needs_input_grad[1:]
    grads = [
        g.to(t) if t is not None and need else None
        for g, t, need in zip(grads, ctx.dtypes, needed, strict=False)
    ]
    return (None, *grads, None, None)


_scan.register_autograd(_gradient, setup_context=_setup)


def _run(backend, u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus):
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    out, last, _, _ = _scan(backend, *tensors, bool(softplus), save)
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
