"""What the chunked SSD computes on a block of chunks: plain functions of tensors, without autograd.

The three that do the work, `weighted_states`, `outputs` and `gradients`, run as they are or compiled; the sums over
the small tensors of decays never are. `chunked_ssd` tells what it is all about, and names the dimensions:
N chunks, Q steps, g groups, r heads per group, p channels per head, n state width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# exp of this is zero in the accumulate dtype (subnormal numbers included), so that smaller values mean the same.
FLOOR = {torch.float32: -(2.0**7), torch.float64: -(2.0**10)}
_DIGITS = {torch.float32: 24, torch.float64: 53}  # bits of the significand


class Weights(NamedTuple):
    """Decays of a sequence in chunks, (N, Q, g, r) unless told; c is the running sum of the log decays in a chunk."""

    coarse: Tensor  # c = coarse + fine, to base 2; both (N, g, r, Q)
    fine: Tensor
    enter: Tensor  # exp(c_i): what is left at step i of the state that entered
    to_end: Tensor  # exp(c_Q - c_j): what is left at the end of what step j put into the state
    leave: Tensor  # step to_end
    total: Tensor  # exp(c_Q), (N, g, r): what is left of the state after the whole chunk
    future: Tensor  # (Q, Q): -inf where j > i, else 0
    later: Tensor  # (Q, Q): 1 where i > j, else 0


def weights(step: Tensor, decay: Tensor) -> Weights:
    """All that depends on steps and log decays alone, both (N, Q, g, r)."""
    decay = decay * math.log2(math.e)
    coarse, fine = running_sums(decay)
    to_end = torch.exp2((coarse[:, -1:] - coarse) + (fine[:, -1:] - fine))
    future = no_future(coarse.shape[1], coarse)
    return Weights(
        coarse=coarse.permute(0, 2, 3, 1).contiguous(),
        fine=fine.permute(0, 2, 3, 1).contiguous(),
        enter=torch.exp2(coarse + fine),
        to_end=to_end,
        leave=step * to_end,
        total=torch.exp2(decay.sum(1)),
        future=future,
        later=torch.ones_like(future).tril(-1),
    )


def no_future(Q: int, like: Tensor) -> Tensor:
    """(Q, Q): -inf where j > i, else 0."""
    return torch.full((Q, Q), -torch.inf, dtype=like.dtype, device=like.device).triu(1)


def running_sums(decay: Tensor) -> tuple[Tensor, Tensor]:
    """Inclusive sums of log decays to base 2 along a chunk, as a coarse and a fine part, (N, Q, g, r) each.

    Coarse parts are multiples of a grid, so coarse that all their sums over a chunk are exact; fine parts are what is
    left, on a grid for which the same holds (for 64 float32 steps: 2^-10 and 2^-29). Hence `c_i - c_j`, taken part by
    part, depends on nothing but the steps between: no digit is lost to strong decays before j, and a packed
    sequence gets the same bits whatever comes before it.
    """
    Q, digits = decay.shape[1], _DIGITS[decay.dtype]
    grid = _grid(Q * -FLOOR[decay.dtype] * math.log2(math.e), digits)
    coarse = (decay / grid).round_().mul_(grid)
    grid = _grid(Q * grid / 2, digits)
    fine = ((decay - coarse) / grid).round_().mul_(grid)
    return coarse.cumsum(1), fine.cumsum(1)


def _grid(largest: float, digits: int) -> float:
    """The smallest power of two of which all multiples up to `largest` have no more than these digits."""
    return 2.0 ** (math.ceil(math.log2(largest)) - digits)


def sum_of_earlier(t: Tensor) -> Tensor:
    """Sums over the steps before each step of a chunk (dimension 1)."""
    return F.pad(t[:, :-1], (0, 0, 0, 0, 1, 0)).cumsum(1)


def sum_from_here(t: Tensor) -> Tensor:
    """Sums over each step of a chunk and those after it."""
    return t.flip(1).cumsum(1).flip(1)


def _by_head(x: Tensor, scale: Tensor) -> Tensor:
    """scale * x, from (N, Q, g, r, p) and (N, Q, g, r) to (N, g, r, Q, p) without a second pass over memory."""
    N, Q, g, r, p = x.shape
    out = torch.empty(N, g, r, Q, p, dtype=x.dtype, device=x.device)
    return torch.mul(x.permute(0, 2, 3, 1, 4), scale.permute(0, 2, 3, 1)[..., None], out=out)


def _by_group(x: Tensor, scale: Tensor) -> Tensor:
    """scale * x as (N, g, Q, r p): the heads of a group side by side, one matrix product for all of them."""
    return (x * scale[..., None]).to(x.dtype).flatten(3).transpose(1, 2)


def decay_matrix(coarse: Tensor, fine: Tensor, future: Tensor) -> Tensor:
    """exp(c_i - c_j) where j <= i, else 0: (N, g, r, Q, Q). Masked before the exponential, which would overflow."""
    between = (coarse[..., :, None] - coarse[..., None, :]).add_(fine[..., :, None] - fine[..., None, :])
    return between.add_(future).exp2_()


def weighted_states(x: Tensor, weight: Tensor, B: Tensor) -> Tensor:
    """sum_j weight_j x_j B_j^T: (N, g, r, p, n).

    With what leaves of each input: what a chunk adds to the state. With gradients of outputs for x, what enters for
    weights and C for B: what a chunk adds to the gradient of the state.
    """
    return (_by_group(x, weight).mT @ B.transpose(1, 2)).to(weight.dtype).unflatten(2, x.shape[3:])


def outputs(
    x: Tensor,
    step: Tensor,
    enter: Tensor,
    coarse: Tensor,
    fine: Tensor,
    future: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    states: Tensor | None,
) -> Tensor:
    """y (N, Q, g, r, p) from the states (N, g, r, p, n) that enter the chunks; None if they are zero."""
    acc, half = step.dtype, x.dtype
    C = C.transpose(1, 2)  # (N, g, Q, n)
    scores = C @ B.permute(0, 2, 3, 1)  # (N, g, Q, Q), shared by the heads of the group
    mix = (scores.to(acc)[:, :, None] * decay_matrix(coarse, fine, future)).to(half)
    y = (mix @ _by_head(x, step)).to(acc).permute(0, 3, 1, 2, 4)
    if states is not None:
        far = (C @ states.to(half).flatten(2, 3).mT).to(acc).transpose(1, 2).unflatten(3, x.shape[3:])
        y = (far * enter[..., None]).add_(y)
    if D is not None:
        y = y.addcmul_(x.to(acc), D)
    return y.to(half)


def gradients(
    dy: Tensor,
    x: Tensor,
    step: Tensor,
    enter: Tensor,
    leave: Tensor,
    coarse: Tensor,
    fine: Tensor,
    future: Tensor,
    later: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    states: Tensor | None,
    ends: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """dx, dB, dC, five products for the gradients of steps and log decays, and dD; None for what is zero.

    states and ends (N, g, r, p, n): the state entering a chunk, the gradient of the state leaving it; None if they
    are zero. The products: of each input with what its chunk's outputs and what the leaving state ask of it, of the
    pairs that lie around a step, of each output with the entering state (all these (N, Q, g, r)), and of the entering
    state with the leaving gradient (N, g, r).
    """
    acc, half = step.dtype, x.dtype
    r, p = x.shape[3:]
    Bg, Cg = B.transpose(1, 2), C.transpose(1, 2)  # (N, g, Q, n)
    X, dY = _by_head(x, step), dy.permute(0, 2, 3, 1, 4).contiguous()  # (N, g, r, Q, p)

    # Within the chunk.
    scores = (Cg @ Bg.mT).to(acc)[:, :, None]  # (N, g, 1, Q, Q)
    decay = decay_matrix(coarse, fine, future)
    dX = ((scores * decay).to(half).mT @ dY).to(acc).permute(0, 3, 1, 2, 4)
    pairs = (dY @ X.mT).to(acc) * decay  # (N, g, r, Q, Q)
    dscores = pairs.sum(2).to(half)  # (N, g, Q, Q)
    between = sum_between(pairs * scores, later).permute(0, 3, 1, 2)

    near, far, out, through = (x * dX).sum(-1), None, None, None
    dx, dB, dC = dX * step[..., None], (dscores.mT @ Cg).to(acc), (dscores @ Bg).to(acc)
    if states is not None:  # outputs from the state that entered
        drawn = (dY @ states.to(half)).to(acc) * enter.permute(0, 2, 3, 1)[..., None]  # (N, g, r, Q, n)
        out = (drawn * Cg.to(acc)[:, :, None]).sum(-1).permute(0, 3, 1, 2)
        dC = dC + drawn.sum(2)
    if ends is not None:  # inputs to the state that leaves
        flat = ends.to(half).flatten(2, 3)  # (N, g, r p, n)
        dB = dB + (_by_group(x, leave) @ flat).to(acc)
        asked = (Bg @ flat.mT).to(acc).transpose(1, 2).unflatten(3, (r, p))  # (N, Q, g, r, p)
        far = (x * asked).sum(-1)
        dx = (asked * leave[..., None]).add_(dx)
    if states is not None and ends is not None:
        through = (states * ends).sum((-1, -2))
    dD = None
    if D is not None:
        dx = dx.addcmul_(dy.to(acc), D)
        dD = (dy.to(acc) * x.to(acc)).sum((0, 1))
    dx, dB, dC = (t.to(half) for t in (dx, dB.transpose(1, 2), dC.transpose(1, 2)))
    return dx, dB, dC, near, far, between, out, through, dD


def sum_between(W: Tensor, later: Tensor) -> Tensor:
    """sum of W_ij over the pairs j < t <= i, for each t: (..., Q, Q) to (..., Q)."""
    return F.pad((W.cumsum(-1) * later).sum(-2)[..., :-1], (1, 0))
