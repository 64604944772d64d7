"""Scalar functions, norms and compensated sums that keep their digits and their gradients.

Everything here works on float64 tensors and has no data-dependent control flow, so that it traces under
`torch.compile(fullgraph=True)`. Float64 is also what makes the package safe under autocast, which never
touches float64 tensors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Scalar = float | Tensor

_SERIES_BELOW = 0.1


def sqrt(c: Scalar) -> Scalar:
    """Square root of a Python float or of a tensor."""
    return c.sqrt() if isinstance(c, Tensor) else math.sqrt(c)


def asinh(t: Scalar) -> Scalar:
    """Inverse hyperbolic sine of a Python float or of a tensor."""
    return t.asinh() if isinstance(t, Tensor) else math.asinh(t)


def detached(c: Scalar) -> Scalar:
    """c without its gradient."""
    return c.detach() if isinstance(c, Tensor) else c


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product over the last dimension, kept."""
    return (x * y).sum(-1, keepdim=True)


def safe_sqrt(q: Tensor) -> Tensor:
    """Square root that is 0 with gradient 0 where q <= 0."""
    positive = q > 0
    return torch.where(positive, torch.where(positive, q, 1.0).sqrt(), 0.0)


def norm(x: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, kept; gradient 0 at the zero vector."""
    return safe_sqrt(dot(x, x))


def _ratio(t: Tensor, direct, coefficients: tuple[float, ...]) -> Tensor:
    """direct(t)/t, replaced near 0 by its Taylor polynomial in t² (exact to rounding below 0.1)."""
    small = t.abs() < _SERIES_BELOW
    away = torch.where(small, 1.0, t)
    square = torch.where(small, t * t, 0.0)
    series = torch.full_like(square, coefficients[-1])
    for a in reversed(coefficients[:-1]):
        series = series * square + a
    return torch.where(small, series, direct(away) / away)


_SINH = tuple(1 / math.factorial(2 * k + 1) for k in range(7))
_ASINH = tuple((-1) ** k * math.comb(2 * k, k) / (4**k * (2 * k + 1)) for k in range(9))
_TANH = (1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875,
         6404582 / 10854718875)  # fmt: skip


def sinhc(t: Tensor) -> Tensor:
    """sinh(t)/t, 1 at 0."""
    return _ratio(t, torch.sinh, _SINH)


def tanhc(t: Tensor) -> Tensor:
    """tanh(t)/t, 1 at 0."""
    return _ratio(t, torch.tanh, _TANH)


def asinhc(t: Tensor) -> Tensor:
    """asinh(t)/t, 1 at 0."""
    return _ratio(t, torch.asinh, _ASINH)


def _grid(x: Scalar, bits: int) -> Scalar:
    """x rounded to a multiple of 2^-bits, for |x| below 2^(51 - bits)."""
    push = 1.5 * 2.0 ** (52 - bits)
    return (x + push) - push


def _power_of_two_below(r: Scalar) -> Scalar:
    """Largest power of two that is <= r."""
    if isinstance(r, Tensor):
        return (r.view(torch.int64) & 0x7FF0000000000000).view(torch.float64)
    return math.ldexp(1.0, math.frexp(r)[1] - 1)


def _exact_gap(x: Tensor, c: Scalar) -> Tensor:
    """1 - c|x|² by fixed-point splitting: all large products and sums are exact, in any order, fused or not.

    x is scaled by a power of two into the unit ball and cut into pieces of 25 bits; squares of the leading
    pieces are multiples of 2^-50 not above 1, so that float64 adds them without rounding.
    """
    s = _power_of_two_below(sqrt(c))
    unit = c / (s * s)  # in [1, 4), exact
    y = x * s
    high = _grid(y, 25)
    below = y - high
    middle = _grid(below, 51)
    a = dot(high, high)
    b = 2 * dot(high, middle)
    rest = dot(below, below) + 2 * dot(high, below - middle)
    if not isinstance(unit, Tensor) and unit == 1.0:
        return ((1 - a) - b) - rest
    u1 = _grid(unit, 23)
    u2 = _grid(unit - u1, 48)
    u3 = unit - u1 - u2
    a1 = _grid(a, 26)
    a2 = a - a1
    b1 = _grid(b, 51)
    b2 = b - b1
    small = u2 * a2 + u3 * (a + b1) + u2 * b1 + unit * (b2 + rest)
    return (((1 - u1 * a1) - u1 * a2) - u2 * a1 - u1 * b1) - small


def _cut(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as a leading part of 26 bits and the rest, so that products of leading parts are exact."""
    high = (x.view(torch.int64) & -(1 << 27)).view(torch.float64)
    return high, x - high


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b rounded, and what the rounding lost (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _exact_rejection(x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    """(x - y) - k x to the last bit of its components, though they may be 10^15 times smaller than x - y."""
    d, lost = _two_sum(x, -y)
    kh, kl = _cut(k)
    xh, xl = _cut(x)
    s, e1 = _two_sum(d - kh * xh, -kh * xl)
    s, e2 = _two_sum(s, -kl * xh)
    return s + ((e1 + e2) + (lost - kl * xl))


def rejection(x: Tensor, y: Tensor, k: Tensor, exact: bool) -> Tensor:
    """(x - y) - k x for k = <x - y, x>/|x|²; `exact` keeps its digits when x - y is nearly along x.

    Gradients are those of the plain form.
    """
    plain = (x - y) - k * x
    if not exact:
        return plain
    with torch.no_grad():
        better = _exact_rejection(x, y, k)
        xx = dot(x, x)
        along = dot(better, x) / torch.where(xx > 0, xx, 1.0)  # k was rounded: what is left along x
        better = better - along * x
    return plain + (better - plain).detach()


def gap(x: Tensor, c: Scalar, exact: bool) -> Tensor:
    """1 - c|x|² over the last dimension, kept.

    The plain float64 form has an absolute error of 1e-16, which is enough for coordinates that came as
    float32; `exact` keeps the relative error at 1e-15 up to the last float64 point of the ball. Gradients are
    those of the plain form, which does not cancel.
    """
    plain = 1 - c * dot(x, x)
    if not exact:
        return plain.clamp_min(GAP_FLOOR)
    return (plain + (_exact_gap(x.detach(), detached(c)) - plain).detach()).clamp_min(GAP_FLOOR)


# Points on or outside the boundary are treated as at this gap (radius 43/√c), so that nothing is infinite.
GAP_FLOOR = 2.0**-60
