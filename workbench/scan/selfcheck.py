"""Kernels that are built on the user's machine, or by someone else, are tried on a small example before use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from workbench.scan.reference import scan_reference, ssd_reference

# Matrix products run in TF32 on recent GPUs, which costs three digits; a wrong kernel is off by far more.
TOLERANCE = 5e-3


@cache
def failure(op: str, backend: str, device: str) -> str | None:
    """Why an implementation's answer is not to be trusted on this device (import, call or numbers), or None."""
    from workbench.scan.backends import implementation

    tensors, rest, truth = _example(op)
    try:
        found = _answers(implementation(op, backend), [x.to(device) for x in tensors], rest)
    except (
        Exception
    ) as e:  # a kernel that does not fit the machine fails in many ways; none should stop a model
        return f"{backend} fails its self-check with {type(e).__name__}: {str(e)[:100]}"
    worst = max(
        float((f.cpu() - e).norm() / e.norm())
        for f, e in zip(found, _answers(truth, tensors, rest), strict=True)
    )
    return None if worst < TOLERANCE else f"{backend} fails its self-check: it is {worst:.1e} off"


def _example(op: str) -> tuple[list[Tensor], tuple, Callable]:
    """Tensors, the remaining arguments, and the oracle."""
    if op == "selective_scan":
        shapes = (2, 80, 32), (2, 80, 32), (32, 16), (2, 80, 16), (2, 80, 16), (32,), (2, 80, 32), (32,)
        rest, truth = (None, None, True), scan_reference
    else:
        shapes = (2, 80, 2, 64), (2, 80, 2), (2,), (2, 80, 1, 64), (2, 80, 1, 64), (2,), (2, 80, 2, 64), (2,)
        rest, truth = (None, None, None, True, (0.0, float("inf")), 64), ssd_reference
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(*shape, generator=draw) for shape in shapes]
    tensors[2] = -tensors[2].abs()
    return tensors, rest, truth


def _answers(function: Callable, tensors: list[Tensor], rest: tuple) -> list[Tensor]:
    """The output, and the gradients at the input, the step and A."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(i < 3) for i, x in enumerate(tensors)]
        out = function(*leaves, *rest)[0]
        return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves[:3])]
