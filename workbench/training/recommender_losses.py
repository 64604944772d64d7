"""Losses of next-item training, from states to one number; all take a recommender, whatever its head.

Shapes: P states (P, d), each with its target (P,); V items; m drawn items.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models.hmamba import Table
from workbench.models.recommender import Recommender

BLOCK = {"cpu": 1 << 19, "cuda": 1 << 27}  # logits at a time: what stays in a CPU's cache; 0.5 GB


def softmax(
    model: Recommender, states: Float[Tensor, "P d"], targets: Int[Tensor, " P"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy over all items.

    The P × V logits never stand in memory together: the gradients of a block of states are made while its logits are
    at hand. On a CPU that is also a quarter faster.
    """
    table = model.table()
    rows, bias = table.rows, table.bias
    shared = [p for part in (model.head, model.manifold) for p in part.parameters() if p.requires_grad]
    inputs = [states, rows, *([] if bias is None else [bias]), *shared]
    return _Blocks.apply(model, targets, bias is not None, *inputs) / len(states)


class _Blocks(torch.autograd.Function):
    """Sum of cross-entropies over blocks of states; its gradients are ready when its value is."""

    @staticmethod
    def forward(ctx, model, targets, biased, states, rows, *rest):
        rows = rows.detach().requires_grad_()
        bias, shared = (rest[0].detach().requires_grad_(), rest[1:]) if biased else (None, rest)
        common = [rows, *([bias] if biased else []), *shared]
        size = max(1, BLOCK[states.device.type] // len(rows))
        total, own, sums = states.new_zeros(()), [], [torch.zeros_like(p) for p in common]
        for x, y in zip(states.split(size), targets.split(size), strict=True):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                loss = F.cross_entropy(model.scores(x, table=Table(rows, bias)), y, reduction="sum")
                of_x, *of_common = torch.autograd.grad(loss, [x, *common], materialize_grads=True)
            total += loss.detach()
            own.append(of_x)
            for s, g in zip(sums, of_common, strict=True):
                s += g
        ctx.save_for_backward(torch.cat(own), *sums)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return None, None, None, *(g * gradient for g in ctx.saved_tensors)


def sampled_softmax(
    model: Recommender,
    states: Float[Tensor, "P d"],
    targets: Int[Tensor, " P"],
    drawn: Int[Tensor, " m"],
    log_expected: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the target among itself and m drawn items, the same for all states; a drawn item that is
    the target does not compete.

    log_expected: logarithm of how often each of `drawn` is expected among the m; taken off its score, so that
    the sum in the denominator is on average that of the full softmax. (The target, which is always there, is left
    as it is.)

    Jean et al., *On Using Very Large Target Vocabulary* (ACL 2015), for the correction.
    """
    right, wrong = _right_and_wrong(model, states, targets, drawn)
    if log_expected is not None:
        wrong = wrong - log_expected
    wrong = wrong.masked_fill(drawn == targets[:, None], -math.inf)
    return (torch.logaddexp(right, wrong.logsumexp(1)) - right).mean()


def bce(
    model: Recommender,
    states: Float[Tensor, "P d"],
    targets: Int[Tensor, " P"],
    drawn: Int[Tensor, "P k"],
) -> Float[Tensor, ""]:
    """Mean of −log σ(s⁺) − Σ log(1 − σ(s⁻)), each state with its own k drawn items, as SASRec has it (k = 1)."""
    used, places = torch.cat([targets[:, None], drawn], 1).unique(return_inverse=True)
    scores = model.scores(states, places, model.table(used))
    return (F.softplus(-scores[:, 0]) + F.softplus(scores[:, 1:]).sum(1)).mean()


def gbce(
    model: Recommender,
    states: Float[Tensor, "P d"],
    targets: Int[Tensor, " P"],
    drawn: Int[Tensor, " m"],
    calibration: float = 0.75,
) -> Float[Tensor, ""]:
    """Binary cross-entropy with m shared drawn items, σ(s⁺) to the power β: few negatives no longer make a model
    overconfident. calibration t: 0 is plain binary cross-entropy (β = 1), 1 is β = m/(V − 1), unbiased.

    Petrov & Macdonald, *gSASRec* (RecSys 2023), equation 8 (there each sequence draws its own items).
    """
    share = min(1.0, len(drawn) / max(1, model.n_items - 1))
    power = share * (calibration * (1 - 1 / share) + 1 / share)
    right, wrong = _right_and_wrong(model, states, targets, drawn)
    others: Bool[Tensor, "P m"] = drawn != targets[:, None]
    return (power * F.softplus(-right) + (F.softplus(wrong) * others).sum(1)).mean()


def _right_and_wrong(model: Recommender, states: Tensor, targets: Tensor, drawn: Tensor):
    """Scores of the targets (P,) and of the drawn items (P, m); only the items that occur are made ready."""
    used, places = torch.cat([targets, drawn]).unique(return_inverse=True)
    table = model.table(used)
    right = model.scores(states, places[: len(targets), None], table)[:, 0]
    return right, model.scores(states, places[len(targets) :], table)
