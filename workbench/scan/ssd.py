"""State space duality, the recurrence of Mamba-2: one front for every backend."""

from __future__ import annotations

import math

from jaxtyping import Float, Integer
from torch import Tensor

from workbench.errors import ParameterError
from workbench.scan import backends
from workbench.scan.arguments import Reader

OP = "ssd"


def ssd(
    x: Float[Tensor, "b L h p"],
    dt: Float[Tensor, "b L h"],
    A: Float[Tensor, "h"],
    B: Float[Tensor, "b L g n"],
    C: Float[Tensor, "b L g n"],
    D: Float[Tensor, "h"] | Float[Tensor, "h p"] | None = None,
    z: Float[Tensor, "b L h p"] | None = None,
    dt_bias: Float[Tensor, "h"] | None = None,
    softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    chunk: int = 64,
    initial_state: Float[Tensor, "b h p n"] | None = None,
    return_last_state: bool = False,
    *,
    log_decay: Float[Tensor, "b L h"] | None = None,
    seq_idx: Integer[Tensor, "b L"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "b L h p"] | tuple[Float[Tensor, "b L h p"], Float[Tensor, "b h p n"]]:
    """A linear recurrence with one decay a head, which turns it into matrix products over chunks:

        Δ_t = clamp(softplus(dt_t + dt_bias), dt_limit)     (softplus if asked for)
        S_t = exp(Δ_t A) S_{t-1} + Δ_t x_t B_tᵀ             S: (b, h, p, n)
        y_t = S_t C_t + D x_t,  times silu(z_t) if z is given

    Args:
        A: one number a head, at most 0. B, C: one pair for every h / g heads.
        chunk: length of the matrix products; changes time and memory, not the result. A sequence no longer than one
            chunk takes the quadratic form alone.
        log_decay: takes the place of Δ A, as it is; at most 0.
        seq_idx: which of several sequences packed end to end a step belongs to; where it changes the state starts
            anew from zero (`initial_state` belongs to the first).
        backend: "auto", or one of `workbench.scan.BACKENDS`; `which()` tells what ran and why.

    Returns:
        y, in the dtype of x; with `return_last_state` also S_L, in float32 (float64 for float64), differentiable.

    Raises:
        ParameterError: naming the argument that has a wrong shape, dtype, device or value (A > 0, NaN).

    Dao & Gu, Transformers are SSMs (2024), section 6 (block decomposition).
    """
    read = Reader(OP)
    read.tensor("x", x, "b L h p").tensor("dt", dt, "b L h").tensor("A", A, "h")
    read.tensor("B", B, "b L g n").tensor("C", C, "b L g n").tensor("D", D, "h", "h p", optional=True)
    read.tensor("z", z, "b L h p", optional=True).tensor("dt_bias", dt_bias, "h", optional=True)
    read.tensor("log_decay", log_decay, "b L h", optional=True).index("seq_idx", seq_idx, "b L")
    read.tensor("initial_state", initial_state, "b h p n", optional=True).decays(A)
    if read.sizes["h"] % read.sizes["g"]:
        raise ParameterError(
            f"{OP}: the groups of B and C should divide the {read.sizes['h']} heads, but are {read.sizes['g']}"
        )
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ParameterError(f"{OP}: chunk should be a positive integer, but is {chunk!r}")
    low, high = dt_limit
    if not 0 <= low <= high:
        raise ParameterError(
            f"{OP}: dt_limit should be (low, high) with 0 <= low <= high, but is {dt_limit!r}"
        )
    args = (x, dt, A, B, C, D, z, dt_bias, initial_state, log_decay, seq_idx, softplus, (low, high), chunk)
    y, state = backends.run(OP, backend, args, last=return_last_state)
    y = read.sound(y)
    return (y, state) if return_last_state else y
