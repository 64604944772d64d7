"""Mamba-2's recurrence over sequences of one chunk, such as names: the quadratic form with everything but x folded
into one Q x Q matrix a head,

    y = mix x,    mix_ij = (C_i . B_j) exp(c_i - c_j) step_j  (+ D where i = j),    j <= i.

The chunked form passes a dozen times over arrays as large as x, which short sequences do not repay: their Q x Q
matrices are small beside Q x p. Here x and its gradient are read by three matrix products alone. With two heads of 64
channels, forward and backward take 0.6 of the time at 6 steps and 0.75 at 32.

Dimensions: N sequences of Q steps, h heads of p channels, g groups, n state width; decays as in `chunked_ssd`.

Source: Dao and Gu 2024, "Transformers are SSMs", section 3.2 (the dual, quadratic form).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.scan import chunked_ssd_kernels as kernels

HEADS = 8  # products are taken head by head, as x lies in memory: more of them would rather be one batch


def suits(x: Tensor, D: Tensor | None, start: Tensor | None, chunk: int, last: bool) -> bool:
    """Whether `short_ssd` can answer, and faster: one chunk, no state before or after it, few heads."""
    whole = x.shape[1] <= chunk and start is None and not last
    return whole and x.shape[2] <= HEADS and (D is None or D.dim() == 1) and not torch.compiler.is_compiling()


def short_ssd(x: Tensor, step: Tensor, decay: Tensor, B: Tensor, C: Tensor, D: Tensor | None) -> Tensor:
    """y (N, Q, h, p), in the dtype of x, which is that of B and C (N, Q, g, n); step, decay (N, Q, h) and D (h) are
    in the accumulate dtype."""
    return _Short.apply(x, step, decay, B, C, D)


class _Short(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, decay, B, C, D):
        left = _decays(decay)  # (N, h, Q, Q)
        scores = _by_head(torch.matmul(C.transpose(1, 2), B.permute(0, 2, 3, 1)), step)
        bare = scores * left
        mix = bare * _of_inputs(step)
        if D is not None:
            mix.diagonal(dim1=-2, dim2=-1).add_(D[:, None])
        mix = mix.to(x.dtype)
        ctx.save_for_backward(x, step, B, C, left, bare, mix)
        ctx.skips = D is not None
        return _each(mix.unbind(1), x.unbind(2), 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, step, B, C, left, bare, mix = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            dys = dy.to(x.dtype).unbind(2)
            dx = _each(mix.mT.unbind(1), dys, 2)
            dmix = _each(dys, x.permute(0, 2, 3, 1).unbind(1), 1).to(step.dtype)
            dD = dmix.diagonal(dim1=-2, dim2=-1).sum((0, 2)) if ctx.skips else None
            pairs = dmix * bare
            dstep = pairs.sum(-2).mT
            later = torch.ones_like(pairs[0, 0]).tril(-1)
            ddecay = kernels.sum_between(pairs * _of_inputs(step), later).mT
            dscores = (dmix * left * _of_inputs(step)).unflatten(1, (B.shape[2], -1)).sum(2).to(x.dtype)
            dB, dC = dscores.mT @ C.transpose(1, 2), dscores @ B.transpose(1, 2)
            return dx, dstep, ddecay, dB.transpose(1, 2), dC.transpose(1, 2), dD


def _each(left: tuple[Tensor, ...], right: tuple[Tensor, ...], dim: int) -> Tensor:
    """The products of all heads, which lie along `dim`."""
    return torch.stack([torch.bmm(a, b) for a, b in zip(left, right, strict=True)], dim)


def _decays(decay: Tensor) -> Tensor:
    """exp(c_i - c_j) where j <= i, else 0, from log decays (N, Q, h): (N, h, Q, Q)."""
    sums = kernels.running_sums(decay.unsqueeze(2) * math.log2(math.e))
    coarse, fine = (t.permute(0, 2, 3, 1).contiguous() for t in sums)
    return kernels.decay_matrix(coarse, fine, kernels.no_future(decay.shape[1], decay)).squeeze(1)


def _of_inputs(step: Tensor) -> Tensor:
    """(N, Q, h) to (N, h, 1, Q): one factor a column."""
    return step.mT.unsqueeze(2)


def _by_head(scores: Tensor, step: Tensor) -> Tensor:
    """(N, g, Q, Q) in the accumulate dtype, as (N, h, Q, Q); (N, 1, Q, Q) for one group, whose heads broadcast."""
    g, h = scores.shape[1], step.shape[2]
    scores = scores.to(step.dtype)
    return scores if g == 1 else scores.repeat_interleave(h // g, 1)
