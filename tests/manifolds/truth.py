"""Distances and maps at sixty digits, evaluated at the rounded coordinates they are given."""

from __future__ import annotations

import mpmath as mp
import torch

mp.mp.dps = 60


def exact(x: torch.Tensor) -> list[mp.mpf]:
    return [mp.mpf(float(v)) for v in x.flatten().tolist()]


def square(x: list) -> mp.mpf:
    return mp.fsum(a * a for a in x)


def to_ball(name: str, x: torch.Tensor, c: float) -> list[mp.mpf]:
    """Ball coordinates, for points of either chart (time coordinates are not read)."""
    if name == "poincare":
        return exact(x)
    s = exact(x)[1:]
    return [a / (1 + mp.sqrt(1 + mp.mpf(c) * square(s))) for a in s]


def dist(name: str, x: torch.Tensor, y: torch.Tensor, c: float) -> mp.mpf:
    if name == "euclidean":
        return mp.sqrt(square([a - b for a, b in zip(exact(x), exact(y), strict=True)]))
    a, b, c = to_ball(name, x, c), to_ball(name, y, c), mp.mpf(c)
    difference = square([p - q for p, q in zip(a, b, strict=True)])
    return 2 / mp.sqrt(c) * mp.asinh(mp.sqrt(c * difference / ((1 - c * square(a)) * (1 - c * square(b)))))


def dist0(name: str, x: torch.Tensor, c: float) -> mp.mpf:
    if name == "euclidean":
        return mp.sqrt(square(exact(x)))
    c = mp.mpf(c)
    if name == "lorentz":
        return mp.asinh(mp.sqrt(c * square(exact(x)[1:]))) / mp.sqrt(c)
    a = exact(x)
    return 2 / mp.sqrt(c) * mp.atanh(mp.sqrt(c * square(a)))


def to_tangent(name: str, x: torch.Tensor, c: float) -> list[mp.mpf]:
    s = exact(x)[1:] if name == "lorentz" else exact(x)
    length = mp.sqrt(square(s))
    return [a / length * dist0(name, x, c) for a in s]


def from_tangent(name: str, v: torch.Tensor, c: float) -> list[mp.mpf]:
    """Spatial coordinates of the point."""
    v, root = exact(v), mp.sqrt(mp.mpf(c))
    length = mp.sqrt(square(v))
    r = mp.sinh(root * length) if name == "lorentz" else mp.tanh(root * length / 2)
    return [a / length * r / root for a in v]


def error(value: torch.Tensor | float, true) -> float:
    """Largest relative error, of a number or, relative to its length, of a vector."""
    if isinstance(true, list):
        got = exact(value)
        return float(mp.sqrt(square([a - b for a, b in zip(got, true, strict=True)]) / square(true)))
    return float(abs(mp.mpf(float(value)) - true) / true)
