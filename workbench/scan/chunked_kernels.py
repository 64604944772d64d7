"""The kernels of `chunked`: one segment of the selective scan, forward and backward, as plain functions of tensors.

With `h_t = a_t h_{t-1} + x_t`, `a_t = exp(decay_t A)`, `x_t = step_t u_t B_t`, and `g_t` the gradient at h_t:

    g_t = C_t dy_t + a_{t+1} g_{t+1}         d(step u)_t = g_t . B_t     dB_t = sum_d g_t (step u)_t
    d(decay)_t = sum_n A g_t a_t h_{t-1}     dC_t = sum_d dy_t h_t       dA = sum_t decay_t g_t a_t h_{t-1}

Only products of decays (all <= 1) occur, never quotients. There are two pairs. `steps_*` spells out every step, for
`torch.compile`, which fuses the lot into one loop that holds the state in registers; `bulk_*` does everything but the
recurrence for all steps at once, and one fused multiply-add a step, which is what PyTorch alone is good at. No
autograd looks on: arithmetic in place is allowed.
"""

from __future__ import annotations

import functools
import os

import torch
import torch.nn.functional as F

# ---- around the recurrence: steps before it, skip and gate after it, with their derivatives -----------------------


def _before(u, delta, bias, decay, softplus, acc):
    """u and the bare step in the accumulate dtype, the step, the decay's multiplier of A, and step * u."""
    u, pre = u.to(acc), delta.to(acc)
    if bias is not None:
        pre = pre + bias
    step = F.softplus(pre) if softplus else pre
    return u, pre, step, step if decay is None else decay.to(acc), step * u


def _after(y, u, D, z, dtype):
    """(out, y with the skip): y + D u, times silu(z)."""
    if D is not None:
        y = y + D * u
    out = y if z is None else y * F.silu(z.to(y.dtype))
    return out.to(dtype), y


def _after_backward(dout, y, z, acc):
    """(dy, dz)."""
    dout = dout.to(acc)
    if z is None:
        return dout, None
    zf = z.to(acc)
    s = torch.sigmoid(zf)
    return dout * (zf * s), (dout * y * s * (1 + zf * (1 - s))).to(z.dtype)


def _before_backward(ddu, ddecay, dy, u, pre, step, D, softplus, own_decay):
    """(du, ddelta, dD for each row) from the gradients at step * u, at the decay and at y."""
    du = ddu * step
    if D is not None:
        du = du + D * dy
    dpre = ddu * u if own_decay else ddu * u + ddecay
    if softplus:
        dpre = dpre * torch.where(pre > 20, 1.0, torch.sigmoid(pre))  # above 20 softplus is the identity
    return du, dpre, None if D is None else (dy * u).sum(1)


def _at(M, t):
    """B_t or C_t, to broadcast over the state (r, d, n); constant ones are (d, n) already."""
    return M if M.dim() == 2 else M[:, t, None, :]


def _all(M):
    """The same for all steps, to broadcast over (r, t, d, n)."""
    return M if M.dim() == 2 else M[:, :, None, :]


def _sum_n(S, M):
    """sum_n S_t M_t: (r, t, d)."""
    return (S * M).sum(-1) if M.dim() == 2 else (S @ M[..., None])[..., 0]


def _sum_d(v, S, M):
    """The gradient at M of sum_n S_t M_t against v: sum_d v_t S_t (r, t, n), or summed over time for a constant M."""
    return (v[..., None] * S).sum((0, 1)) if M.dim() == 2 else (v[..., None, :] @ S)[..., 0, :]


# ---- where results go ---------------------------------------------------------------------------------------------


def writing_forward(kernel):
    """`kernel(...) -> out, y, h` as a function of (out, y, ...) that writes the first two and returns (h,)."""

    @functools.wraps(kernel)
    def run(out, y, *args):
        found = kernel(*args)
        out.copy_(found[0])
        if y is not None:
            y.copy_(found[1])
        return (found[2],)

    return run


def writing_backward(kernel):
    """`kernel(...) -> 8 gradients, dh` as a function of (8 tensors, ...) that returns (dh,).

    Gradients with a time are written; A's, D's and those of constant B and C are added to what is there.
    """

    @functools.wraps(kernel)
    def run(*args):
        *grads, dh = kernel(*args[8:])
        for place, grad in zip(args[:8], grads, strict=True):
            if grad is not None:
                place.add_(grad) if place.dim() < 3 else place.copy_(grad)
        return (dh,)

    return run


# ---- kernels for torch.compile ------------------------------------------------------------------------------------

LOG2E = 1.4426950408889634
# 2^f = sum_k TWO[-1-k] f^k for |f| <= 1/2: the polynomial of least error (2e-9), scaled to be 1 at 0.
TWO = (1.5353362e-4, 1.3398874e-3, 9.6184370e-3, 5.5503324e-2, 2.4022648e-1, 6.9314720e-1, 1.0)


def _base(A):
    """A, such that `_decays(step * _base(A))` is exp(step A)."""
    return A * LOG2E if _by_polynomial(A) else A


def _decays(x):
    """exp(x), or 2^x where `_base` has seen to that.

    Inductor calls a library for the exponential on a CPU, which was half of a segment's time; these dozen operations
    it fuses. Right to 2e-7; exactly 1 at 0, exactly 0 below the normal numbers, infinite from 2^127.5 on.
    """
    if not _by_polynomial(x):
        return torch.exp(x)
    x = x.clamp(-127.0, 128.0)
    whole = torch.round(x)
    part = x - whole
    y = torch.full_like(part, TWO[0])
    for coefficient in TWO[1:]:
        y = y * part + coefficient
    return y * ((whole.to(torch.int32) + 127) << 23).view(torch.float32)  # the exponent's bits


def _by_polynomial(x):
    return x.dtype == torch.float32 and x.device.type == "cpu"


def steps_forward(u, delta, A, B, C, D, z, bias, decay, h, softplus):
    """One segment. u, delta, z, decay (r, t, d); B, C (r, t, n) or (d, n); h (r, d, n). Returns out, y, last h."""
    uf, _, _, dl, du = _before(u, delta, bias, decay, softplus, h.dtype)
    B, C, base = B.to(h.dtype), C.to(h.dtype), _base(A)
    ys = []
    for t in range(u.shape[1]):
        h = _decays(dl[:, t, :, None] * base) * h + du[:, t, :, None] * _at(B, t)
        ys.append((h * _at(C, t)).sum(-1))
    out, y = _after(torch.stack(ys, 1), uf, D, z, u.dtype)
    return out, y, h


def steps_backward(dout, dh, u, delta, A, B, C, D, z, bias, decay, h, y, softplus):
    """The gradients of `steps_forward` at u, delta, A, B, C, D, z, decay, h; A's and D's summed over the segment.

    On a CPU the channels of a sequence are handed on as rows, a part for each core: Inductor gives each row to one
    thread in all of its loops, and what one core has written, half a megabyte of states, no other has to fetch.
    """
    parts = _parts(u, B, C)
    if parts == 1:
        found = _steps_backward(dout, dh, u, delta, A, B, C, D, z, bias, decay, h, y, softplus)
        du, ddelta, dA, dB, dC, dD, dz, ddecay, dh = found
        return du, ddelta, dA.sum(0), dB, dC, None if D is None else dD.sum(0), dz, ddecay, dh

    def split(x):  # (1, t, d) to (parts, t, d / parts)
        return None if x is None else x[0].unflatten(1, (parts, -1)).transpose(0, 1)

    def join(x):
        return None if x is None else x.transpose(0, 1).flatten(1)[None]

    def rows(x):  # (d, ...) to (parts, d / parts, ...)
        return x.unflatten(0, (parts, -1))

    D, bias = (None if x is None else rows(x)[:, None] for x in (D, bias))
    dout, u, delta, z, decay, y = map(split, (dout, u, delta, z, decay, y))
    found = _steps_backward(
        dout, rows(dh[0]), u, delta, rows(A), B, C, D, z, bias, decay, rows(h[0]), y, softplus
    )
    du, ddelta, dA, dB, dC, dD, dz, ddecay, dh = found
    du, ddelta, dz, ddecay = map(join, (du, ddelta, dz, ddecay))
    dA, dB, dC, dh = dA.flatten(0, 1), dB.sum(0)[None], dC.sum(0)[None], dh.flatten(0, 1)[None]
    return du, ddelta, dA, dB, dC, None if D is None else dD.flatten(), dz, ddecay, dh


def _parts(u, B, C):
    """A part for each core, of 32 channels at least; none where B or C are constant, which come by channel."""
    if u.device.type != "cpu" or u.shape[0] > 1 or B.dim() == 2 or C.dim() == 2:
        return 1
    fit = [
        p for p in range(1, min(os.cpu_count() or 1, 8) + 1) if u.shape[2] % p == 0 and u.shape[2] // p >= 32
    ]
    return max(fit, default=1)


def _steps_backward(dout, dh, u, delta, A, B, C, D, z, bias, decay, h, y, softplus):
    """As `steps_backward`, but A's and D's by row: A (d, n) or (r, d, n), D and bias (d) or (r, 1, d)."""
    acc = h.dtype
    uf, pre, step, dl, du = _before(u, delta, bias, decay, softplus, acc)
    Bf, Cf = B.to(acc), C.to(acc)
    dy, dz = _after_backward(dout, y, z, acc)
    steps, base = range(u.shape[1]), _base(A)

    hs, decayed, a = [], [], []
    for t in steps:
        a.append(_decays(dl[:, t, :, None] * base))
        decayed.append(a[t] * h)
        h = decayed[t] + du[:, t, :, None] * _at(Bf, t)
        hs.append(h)

    gs, ddl, dA = [], [], torch.zeros_like(A)
    for t in reversed(steps):
        g = dh + _at(Cf, t) * dy[:, t, :, None]
        w = g * decayed[t]
        ddl.append((w * A).sum(-1))
        dA = dA + w * dl[:, t, :, None]
        dh = a[t] * g
        gs.append(g)
    G, H, ddl = torch.stack(gs[::-1], 1), torch.stack(hs, 1), torch.stack(ddl[::-1], 1)

    grads = _before_backward(_sum_n(G, Bf), ddl, dy, uf, pre, step, D, softplus, decay is not None)
    gu, gdelta, gD = grads
    return (
        gu,
        gdelta,
        dA,
        _sum_d(du, G, B),
        _sum_d(dy, H, C),
        gD,
        dz,
        None if decay is None else ddl,
        dh,
    )


# ---- kernels without a compiler -----------------------------------------------------------------------------------


def bulk_forward(u, delta, A, B, C, D, z, bias, decay, h, softplus):
    """As `steps_forward`; rows may be k consecutive chunks of each sequence: then h has fewer rows than u."""
    uf, _, _, dl, du = _before(u, delta, bias, decay, softplus, h.dtype)
    a = (dl[..., None] * A).exp_()
    H = du[..., None] * _all(B.to(h.dtype))
    _, h = _recur_(a, H, h, dl, A)
    out, y = _after(_sum_n(H, C.to(h.dtype)), uf, D, z, u.dtype)
    return out, y, h


def bulk_backward(dout, dh, u, delta, A, B, C, D, z, bias, decay, h, y, softplus):
    """As `steps_backward`."""
    acc = h.dtype
    uf, pre, step, dl, du = _before(u, delta, bias, decay, softplus, acc)
    Bf, Cf = B.to(acc), C.to(acc)
    dy, dz = _after_backward(dout, y, z, acc)

    a = (dl[..., None] * A).exp_()
    H = du[..., None] * _all(Bf)
    starts, _ = _recur_(a, H, h, dl, A)
    dC = _sum_d(dy, H, C)

    G = dy[..., None] * _all(Cf)
    _recur_back_(a, G, dh, dl, A)
    ddu, dB = _sum_n(G, Bf), _sum_d(du, G, B)

    G.mul_(a)  # gradients at the state before each step
    dh = G.unflatten(0, (h.shape[0], -1))[:, 0, 0].clone()
    W = G
    W[:, 1:].mul_(H[:, :-1])
    W[:, 0].mul_(starts)
    dA = torch.mul(W, dl[..., None], out=a).sum((0, 1))
    ddl = W.mul_(A).sum(-1)

    gu, gdelta, gD = _before_backward(ddu, ddl, dy, uf, pre, step, D, softplus, decay is not None)
    gD = None if D is None else gD.sum(0)
    return gu, gdelta, dA, dB, dC, gD, dz, None if decay is None else ddl, dh


def _recur_(a, x, h, dl, A):
    """x_t <- a_t x_{t-1} + x_t in place, from h; returns the states that enter each row, and the last one.

    When rows are chunks of a sequence, all of them run from zero side by side; a short loop then finds the state that
    enters each, and its decayed remainder is added: the exponent of a product of decays is a sum of steps.
    """
    chunks = x.shape[0] // h.shape[0]
    state = h if chunks == 1 else torch.zeros_like(x[:, 0])
    for a_t, x_t in zip(a.unbind(1), x.unbind(1), strict=True):
        state = x_t.addcmul_(a_t, state)
    if chunks == 1:
        return h, state.clone()
    P = (dl.sum(1)[..., None] * A).exp_()
    starts, last = _carry(P, state, h, range(chunks))
    x.addcmul_((dl.cumsum(1)[..., None] * A).exp_(), starts[:, None])
    return starts, last


def _recur_back_(a, g, dh, dl, A):
    """g_t <- g_t + a_{t+1} g_{t+1} in place, where dh reaches the last step."""
    chunks = g.shape[0] // dh.shape[0]
    a, gs = a.unbind(1), g.unbind(1)
    if chunks == 1:
        gs[-1].add_(dh)
    for t in range(len(gs) - 1, 0, -1):
        gs[t - 1].addcmul_(a[t], gs[t])
    if chunks == 1:
        return
    P = (dl.sum(1)[..., None] * A).exp_()
    ends, _ = _carry(P, a[0] * gs[0], dh, range(chunks - 1, -1, -1))
    later = (
        dl.flip(1).cumsum(1).roll(1, 1)
    )  # the steps after each; summed, not subtracted, so that huge ones do no harm
    later[:, 0] = 0
    g.addcmul_((later.flip(1)[..., None] * A).exp_(), ends[:, None])


def _carry(P, e, s, order):
    """s <- P_k s + e_k over the chunks of each sequence in this order: what reaches every chunk, and the last s."""
    P, e = (x.unflatten(0, (s.shape[0], -1)) for x in (P, e))
    reached = torch.empty_like(e)
    for k in order:
        reached[:, k] = s
        s = torch.addcmul(e[:, k], P[:, k], s)
    return reached.flatten(0, 1), s
