"""Logits of all tokens, and their cross-entropy in pieces, so that n × V logits never exist at once.

At a vocabulary of 128 thousand the float32 logits of 8 thousand tokens take 3.9 GiB, and their gradient as much.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.lorentz import curvature_of, keep, lift, run_dtype
from workbench.nn.mamba import whole_numbers, widened


class LorentzLogits(nn.Module):
    """One number a token of the vocabulary: a linear map of all coordinates of a point, time included, no bias.

    `weight` is (count, dim+1), started N(0, std²).
    """

    def __init__(self, manifold: Lorentz, dim: int, count: int, std: float = 0.02) -> None:
        super().__init__()
        whole_numbers("LorentzLogits", dim=dim, count=count)
        keep(self, manifold=manifold)
        self.weight = nn.Parameter(torch.empty(count, dim + 1))
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... V"]:
        """Float32 at least."""
        return widened(F.linear(lift(x, curvature_of(self.manifold), run_dtype(x)), self.weight))

    def loss(self, x: Float[Tensor, "... d"], targets: Int[Tensor, "..."], **options) -> Float[Tensor, ""]:
        """Mean of -log softmax(logits)[target]; options are those of `chunked_cross_entropy`."""
        points = lift(x, curvature_of(self.manifold), run_dtype(x))
        return chunked_cross_entropy(points, self.weight, targets, **options)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1] - 1} -> {self.weight.shape[0]}"


def chunked_cross_entropy(
    x: Float[Tensor, "... k"],
    weight: Float[Tensor, "V k"],
    targets: Int[Tensor, "..."],
    *,
    ignore: int = -100,
    chunk: int = 2048,
) -> Float[Tensor, ""]:
    """`F.cross_entropy(x @ weight.T, targets, ignore_index=ignore)` with the logits of `chunk` rows at a time.

    Gradients are taken along with the loss, so nothing is computed twice and what is kept for the backward pass has
    the sizes of x and weight. Products run in autocast's dtype, softmax and sums in float32 at least. Where all
    targets are ignored the loss is 0. Differentiable once.

    ParameterError for a chunk below 1 or as many targets as there are not rows.
    """
    if chunk < 1:
        raise ParameterError(f"chunk must be at least 1, but came as {chunk!r}")
    if x.shape[:-1] != targets.shape:
        raise ParameterError(
            f"one target a row is needed, but rows are {tuple(x.shape[:-1])} and targets {tuple(targets.shape)}"
        )
    rows = x.flatten(0, -2)
    return _ChunkedCrossEntropy.apply(rows, weight, targets.flatten(), ignore, chunk, run_dtype(x))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, targets, ignore, chunk, dtype):
        wide = torch.promote_types(dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            w = weight.to(dtype)
            counted = targets != ignore
            count = counted.sum().clamp_min(1)
            total = torch.zeros((), dtype=wide, device=x.device)
            need_x, need_w = ctx.needs_input_grad[:2]
            grads_x, grad_w = [], torch.zeros_like(weight, dtype=wide) if need_w else None
            for rows, target, real in zip(
                x.split(chunk), targets.split(chunk), counted.split(chunk), strict=True
            ):
                rows = rows.to(dtype)
                logits = F.linear(rows, w).to(wide)
                place = target.masked_fill(~real, 0)[:, None]
                log_sum = logits.logsumexp(-1, keepdim=True)
                total = total + ((log_sum - logits.gather(-1, place))[:, 0] * real).sum()
                if not (need_x or need_w):
                    continue
                slope = (logits - log_sum).exp()
                slope.scatter_(-1, place, slope.gather(-1, place) - 1)
                slope = (slope * (real[:, None] / count)).to(dtype)
                if need_x:
                    grads_x.append(slope @ w)
                if need_w:
                    grad_w += slope.T @ rows
        ctx.save_for_backward(torch.cat(grads_x).to(x.dtype) if need_x else None, grad_w)
        ctx.weight_dtype = weight.dtype
        return total / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad_x, grad_w = ctx.saved_tensors
        return (
            None if grad_x is None else grad_x * grad.to(grad_x.dtype),
            None if grad_w is None else (grad_w * grad).to(ctx.weight_dtype),
            *(None,) * 4,
        )
