"""The selective scan of Mamba-1, one front for every backend."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from workbench.errors import ParameterError
from workbench.scan import backends
from workbench.scan.arguments import Reader
from workbench.scan.reference import accumulate_dtype, sequence_starts, step_size

OP = "selective_scan"


def selective_scan(
    u: Float[Tensor, "b L d"],
    delta: Float[Tensor, "b L d"],
    A: Float[Tensor, "d n"],
    B: Float[Tensor, "b L n"],
    C: Float[Tensor, "b L n"],
    D: Float[Tensor, "d"] | None = None,
    z: Float[Tensor, "b L d"] | None = None,
    delta_bias: Float[Tensor, "d"] | None = None,
    softplus: bool = False,
    initial_state: Float[Tensor, "b d n"] | None = None,
    return_last_state: bool = False,
    *,
    delta_decay: Float[Tensor, "b L d"] | None = None,
    seq_idx: Integer[Tensor, "b L"] | None = None,
    layout: str = "bld",
    backend: str = "auto",
) -> Float[Tensor, "b L d"] | tuple[Float[Tensor, "b L d"], Float[Tensor, "b d n"]]:
    """A linear recurrence whose step size, input and output maps depend on the input, in time linear in L:

        Δ_t = softplus(delta_t + delta_bias)         (softplus if asked for)
        h_t = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t       h: (b, d, n), one state of n numbers a channel
        y_t = Σ_n C_t h_t + D u_t,  out = y silu(z)

    Args:
        A: at most 0. B, C: `(b, L, n)`; by group of channels `(b, L, G, n)`; constant in time `(d, n)`.
        delta_decay: takes the place of Δ in the decay exp(Δ A) alone, as it is: no bias, no softplus. A factor on the
            decay that is constant in time is cheaper as a factor on A.
        seq_idx: which of several sequences packed end to end a step belongs to; where it changes the state starts
            anew from zero (`initial_state` belongs to the first).
        layout: "bdl" takes `(b, d, L)` for u, delta, z and out, `(b, n, L)` or `(b, G, n, L)` for B, C.
        backend: "auto", or one of `workbench.scan.BACKENDS`; `which()` tells what ran and why.

    Returns:
        out, in the dtype of u; with `return_last_state` also h_L, in float32 (float64 for float64), differentiable.
        Inside, steps, decays and states are float32 or float64 whatever the inputs and autocast say.

    Raises:
        ParameterError: naming the argument that has a wrong shape, dtype, device or value (A > 0, NaN).

    Gu & Dao, Mamba (2023), Algorithm 2; Δ B in place of the exact zero-order hold of B, as in their code.
    """
    if layout not in ("bld", "bdl"):
        raise ParameterError(f'{OP}: layout should be "bld" or "bdl", but is {layout!r}')
    if layout == "bdl":
        turned = [
            x if x is None or x.dim() == 2 else x.movedim(-1, 1) for x in (u, delta, B, C, z, delta_decay)
        ]
        u, delta, B, C, z, delta_decay = turned
    read = _checked(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, seq_idx)
    if seq_idx is not None:
        delta_decay = _restarts(seq_idx, A, delta, delta_bias, softplus, delta_decay)
    args = (u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, softplus)
    groups = math.lcm(*(x.shape[2] if x.dim() == 4 else 1 for x in (B, C)))
    out, state = (
        _by_group(args, groups, backend) if groups > 1 else backends.run(OP, backend, _ungrouped(args))
    )
    out = read.sound(out)
    if layout == "bdl":
        out = out.transpose(1, 2)
    return (out, state) if return_last_state else out


def _checked(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_decay, seq_idx) -> Reader:
    read = Reader(OP)
    read.tensor("u", u, "b L d").tensor("delta", delta, "b L d").tensor("A", A, "d n")
    read.tensor("B", B, "b L n", "b L G n", "d n").tensor("C", C, "b L n", "b L H n", "d n")
    read.tensor("D", D, "d", optional=True).tensor("delta_bias", delta_bias, "d", optional=True)
    read.tensor("z", z, "b L d", optional=True).tensor("delta_decay", delta_decay, "b L d", optional=True)
    read.tensor("initial_state", initial_state, "b d n", optional=True).index("seq_idx", seq_idx, "b L")
    for name, letter in (("B", "G"), ("C", "H")):
        if read.sizes["d"] % read.sizes.get(letter, 1):
            raise ParameterError(
                f"{OP}: the groups of {name} should divide the {read.sizes['d']} channels, "
                f"but are {read.sizes[letter]}"
            )
    return read.decays(A)


def _restarts(seq_idx, A, delta, delta_bias, softplus, delta_decay) -> Tensor:
    """Steps for the decay that forget everything where a sequence begins: exp(-1000) is 0 in every dtype used."""
    if not torch.compiler.is_compiling() and not bool((A < 0).all()):
        raise ParameterError(f"{OP}: packed sequences need every entry of A below 0, but one is 0")
    with torch.autocast(delta.device.type, enabled=False):
        if delta_decay is None:
            delta_decay = step_size(delta, delta_bias, softplus, accumulate_dtype(delta))
        elif delta_decay.dtype in (torch.float16, torch.bfloat16):
            delta_decay = delta_decay.float()
        forget = (1e3 / A.detach().abs().amin()).to(delta_decay.dtype)
        return torch.where(sequence_starts(seq_idx)[:, :, None], forget, delta_decay)


def _ungrouped(args: tuple) -> tuple:
    """A single group is none: (b, L, 1, n) becomes (b, L, n)."""
    u, delta, A, B, C, *rest = args
    return u, delta, A, *(x.squeeze(2) if x.dim() == 4 else x for x in (B, C)), *rest


def _by_group(args: tuple, groups: int, backend: str) -> tuple[Tensor, Tensor]:
    """Channels in `groups` blocks, each scanned with the B and C of its group."""
    u, delta, A, B, C, D, z, bias, state, decay, softplus = args
    size = u.shape[2] // groups

    def part(x: Tensor | None, dim: int, k: int) -> Tensor | None:
        return None if x is None else x.narrow(dim, k * size, size)

    def of_group(x: Tensor, k: int) -> Tensor:
        if x.dim() == 4:
            return x[:, :, k * x.shape[2] // groups]
        return part(x, 0, k) if x.dim() == 2 else x

    parts = [
        backends.run(
            OP,
            backend,
            (
                part(u, 2, k),
                part(delta, 2, k),
                part(A, 0, k),
                of_group(B, k),
                of_group(C, k),
                part(D, 0, k),
                part(z, 2, k),
                part(bias, 0, k),
                part(state, 1, k),
                part(decay, 2, k),
                softplus,
            ),
        )
        for k in range(groups)
    ]
    return torch.cat([out for out, _ in parts], 2), torch.cat([last for _, last in parts], 1)
