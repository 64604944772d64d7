"""One token at a time: the recurrences as decoding runs them, state in, state out.

The formulas stand in `reference`; a step is the sequence of length one.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from workbench.errors import ParameterError
from workbench.scan.arguments import Reader
from workbench.scan.reference import scan_reference, ssd_reference


def selective_scan_step(
    state: Float[Tensor, "b d n"],
    u: Float[Tensor, "b d"],
    delta: Float[Tensor, "b d"],
    A: Float[Tensor, "d n"],
    B: Float[Tensor, "b n"],
    C: Float[Tensor, "b n"],
    D: Float[Tensor, "d"] | None = None,
    z: Float[Tensor, "b d"] | None = None,
    delta_bias: Float[Tensor, "d"] | None = None,
    softplus: bool = False,
    *,
    delta_decay: Float[Tensor, "b d"] | None = None,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d n"]]:
    """One step of `selective_scan`: `(out, state)` after one more token, the arguments as there without their L.

    Args:
        B, C: `(b, n)`, or constant in time `(d, n)` (where b = d, a matrix is taken for one row a sequence).

    Returns:
        out in the dtype of u; a new state in float32 (float64 for float64 inputs): `state` is left as it is.

    Raises:
        ParameterError: naming the argument that has a wrong shape, dtype, device or value (A > 0, NaN).

    Gu & Dao, Mamba (2023), section 3.3.
    """
    read = Reader("selective_scan_step").tensor("u", u, "b d").tensor("state", state, "b d n")
    read.tensor("delta", delta, "b d").tensor("A", A, "d n")
    constant = {name: _is_constant(m, u) for name, m in (("B", B), ("C", C))}
    read.tensor("B", B, "d n" if constant["B"] else "b n").tensor("C", C, "d n" if constant["C"] else "b n")
    read.tensor("D", D, "d", optional=True).tensor("delta_bias", delta_bias, "d", optional=True)
    read.tensor("z", z, "b d", optional=True).tensor("delta_decay", delta_decay, "b d", optional=True)
    _decays(read, A)
    B, C = (m if constant[name] else m[:, None] for name, m in (("B", B), ("C", C)))
    u, delta, z, delta_decay = _one_step(u, delta, z, delta_decay)
    out, state = scan_reference(u, delta, A, B, C, D, z, delta_bias, state, delta_decay, softplus)
    return read.sound(out[:, 0]), state


def ssd_step(
    state: Float[Tensor, "b h p n"],
    x: Float[Tensor, "b h p"],
    dt: Float[Tensor, "b h"],
    A: Float[Tensor, "h"],
    B: Float[Tensor, "b g n"],
    C: Float[Tensor, "b g n"],
    D: Float[Tensor, "h"] | Float[Tensor, "h p"] | None = None,
    z: Float[Tensor, "b h p"] | None = None,
    dt_bias: Float[Tensor, "h"] | None = None,
    softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    *,
    log_decay: Float[Tensor, "b h"] | None = None,
) -> tuple[Float[Tensor, "b h p"], Float[Tensor, "b h p n"]]:
    """One step of `ssd`: `(y, state)` after one more token, the arguments as there without their L.

    `dt_limit` holds here as it does over a sequence, so that a model decodes as it was trained.

    Returns:
        y in the dtype of x; a new state in float32 (float64 for float64 inputs): `state` is left as it is.

    Raises:
        ParameterError: naming the argument that has a wrong shape, dtype, device or value (A > 0, NaN).

    Dao & Gu, Transformers are SSMs (2024), section 3.
    """
    read = Reader("ssd_step").tensor("x", x, "b h p").tensor("state", state, "b h p n")
    read.tensor("dt", dt, "b h").tensor("A", A, "h").tensor("B", B, "b g n").tensor("C", C, "b g n")
    read.tensor("D", D, "h", "h p", optional=True).tensor("dt_bias", dt_bias, "h", optional=True)
    read.tensor("z", z, "b h p", optional=True).tensor("log_decay", log_decay, "b h", optional=True)
    heads, groups = x.shape[1], B.shape[1]
    if heads % groups:
        raise ParameterError(
            f"ssd_step: the groups of B and C should divide the {heads} heads, but are {groups}"
        )
    low, high = dt_limit
    if not 0 <= low <= high:
        raise ParameterError(
            f"ssd_step: dt_limit should be (low, high) with 0 <= low <= high, but is {dt_limit!r}"
        )
    _decays(read, A)
    x, dt, B, C, z, log_decay = _one_step(x, dt, B, C, z, log_decay)
    limit = (low, high)
    y, state = ssd_reference(x, dt, A, B, C, D, z, dt_bias, state, log_decay, None, softplus, limit)
    return read.sound(y[:, 0]), state


def _one_step(*tensors: Tensor | None) -> list[Tensor | None]:
    """A time axis of length one at place 1."""
    return [None if t is None else t[:, None] for t in tensors]


def _is_constant(m: object, u: Tensor) -> bool:
    """Whether m is a matrix with a row for every channel rather than for every sequence."""
    return isinstance(m, Tensor) and m.dim() == 2 and m.shape[0] == u.shape[1] != u.shape[0]


def _decays(read: Reader, A: Tensor) -> None:
    """Asked on the CPU only: a GPU would wait at every token."""
    if A.device.type == "cpu":
        read.decays(A)
