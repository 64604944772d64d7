"""Exercises of lesson 5, numbers at the rim: the factor two, a distance in float32, lost places, rounding to 1.

Right answers come from closed forms, and distances from 60-digit arithmetic on the stored coordinates.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.lessons.checking import Exercise
from workbench.lessons.slips import slipped

DIGITS = 1e-5  # relative error that exercise 5.2 allows
BITS = {"float32": 24, "bfloat16": 8, "float64": 53}  # of the significand, the leading one included


def true_distance(p: Tensor, q: Tensor) -> float:
    """Distance in curvature -1 of two stored points (time first), 60 digits; time follows from space."""
    with localcontext() as context:
        context.prec = 60
        x, y = ([Decimal(float(t)) for t in point[1:]] for point in (p, q))
        x0, y0 = ((1 + sum(t * t for t in point)).sqrt() for point in (x, y))
        quarter = (x0 * y0 - sum(s * t for s, t in zip(x, y, strict=True)) - 1) / 2
        return float(2 * (quarter.sqrt() + (1 + quarter).sqrt()).ln())


@cache
def pairs() -> tuple[Tensor, Tensor, np.ndarray]:
    """Float32 points (30, 3) of the hyperbolic plane, time first, and their distances (30,).

    Ten pairs 0.1 apart at radius 8, ten 1 apart at radius 3, ten at radius 8 in random directions.
    """
    rng = np.random.default_rng(5)
    points = []
    for radius, apart in ((8.0, 0.1), (3.0, 1.0), (8.0, None)):
        for _ in range(10):
            angle, turn = rng.uniform(0, 2 * math.pi, 2)
            x = _at(radius, angle)
            y = _at(radius, turn) if apart is None else _step(radius, angle, apart, turn)
            points.append((x, y))
    p, q = torch.tensor(np.array(points)).float().unbind(1)
    return p, q, np.array([true_distance(a, b) for a, b in zip(p, q, strict=True)])


def _at(radius: float, angle: float) -> list[float]:
    return [math.cosh(radius), math.sinh(radius) * math.cos(angle), math.sinh(radius) * math.sin(angle)]


def _step(radius: float, angle: float, apart: float, turn: float) -> list[float]:
    """The point `apart` from the point at (radius, angle), in a direction turned from outward by `turn`."""
    time, out, aside = _at(apart, turn)
    ch, sh = math.cosh(radius), math.sinh(radius)
    time, out = ch * time + sh * out, sh * time + ch * out  # a boost along the first axis
    cos, sin = math.cos(angle), math.sin(angle)
    return [time, cos * out - sin * aside, sin * out + cos * aside]


def textbook(p: Tensor, q: Tensor) -> Tensor:
    """arcosh of minus the Lorentz product, as it stands in the books."""
    return torch.acosh(p[:, 0] * q[:, 0] - (p[:, 1:] * q[:, 1:]).sum(-1))


def stored_time(p: Tensor, q: Tensor) -> Tensor:
    """The same in float64, with the time coordinate that float32 has rounded."""
    return textbook(p.double(), q.double())


def _verify_factor(answer: Any) -> str | None:
    slips = [
        (3.0, "A vector of that length goes twice as far: the ball's metric at the origin is 4|dx|²."),
        (6.0, "The factor two goes the other way: expmap0 of the ball goes farther than |u|."),
        (
            0.75,
            "Curvature changes the size of the ball, not this factor: d(0, expmap0(u)) = 2|u| for every c.",
        ),
        (math.tanh(3.0) / 2, "That is where the point lies in the ball. Asked is the vector before expmap0."),
    ]
    return slipped(answer, 1.5, "the length of u", slips)


def _verify_reaches_one(answer: Any) -> str | None:
    ln2 = math.log(2)
    slips = [
        (
            25 * ln2,
            "There lies the last float32 below 1. Up to half a step beyond it, numbers round down to it.",
        ),
        (
            24 * ln2,
            "1.19e-07 is the step above 1. Below 1 the step is half of it, and half a step rounds up.",
        ),
        (13 * ln2, "That is artanh(1 - 2^-25). The distance is twice as long: |x| = tanh(√c r/2)."),
        (55 * ln2, "That is where float64 ends."),
        (54 * ln2, "That is where float64 ends."),
    ]
    return slipped(answer, 26 * ln2, "the value of √c r", slips)


def _verify_lost(answer: Any) -> str | None:
    slips = [
        (25 * math.log(2), "That is where float32 loses its points. bfloat16 keeps 8 bits, not 24."),
        (math.log(16), "8 bits mean a relative error of 2^-8, not of 1/8."),
        (256.0, "Places are lost exponentially: the error is about 2^-8 sinh(r), not 2^-8 r."),
    ]
    return slipped(answer, 9 * math.log(2), "the radius", slips, rtol=0, atol=0.75)


def _verify_distance(answer: Any) -> str | None:
    if not callable(answer):
        return f"Expected a function of two tensors of points, but a {type(answer).__name__} came."
    p, q, true = pairs()
    found = torch.as_tensor(answer(p.clone(), q.clone())).detach().double().numpy()
    if found.shape != true.shape:
        return f"For points of shape {tuple(p.shape)} it returns shape {found.shape}, not {true.shape}."
    if np.allclose(found, stored_time(p, q).numpy(), rtol=1e-6, equal_nan=True):
        return "More digits for the sum do not help: the stored time was rounded before, and it is large."
    if lost := int((~np.isfinite(found)).sum()):
        return f"{lost} of {len(true)} distances are not finite: rounding took a number out of its range."
    off = abs(found / true - 1)
    if off.max() <= DIGITS:
        return None
    where = int(off.argmax())
    return f"Points {true[where]:.6f} apart come out {found[where]:.6f} apart, an error of {off[where]:.0e}."


EXERCISES = (
    Exercise(
        asks="Ball of curvature -4: how long is the vector u (in coordinates) whose expmap0 lies at distance 3?",
        verify=_verify_factor,
        hints=(
            "Section 2: how far goes expmap0 of the ball, in units of |u|? Does it depend on c?",
            "d(0, expmap0(u)) = 2|u|.",
        ),
        insight="A vector is only as long as its frame says: from_tangent takes an orthonormal one, and then |v| is "
        "the distance in every chart.",
        mistakes=(3.0, 6.0, 0.75, math.tanh(3.0) / 2, 12.0),
    ),
    Exercise(
        asks="Write distance(p, q) for float32 points of the hyperboloid, shape (n, 3), time first, c = 1, right to "
        "5 digits.",
        verify=_verify_distance,
        hints=(
            "Time says nothing new: it follows from space. Which of the two has lost what you need?",
            "Go to float64 first, and compute both times again, √(1 + |space|²).",
            "x, y = p[:, 1:].double(), q[:, 1:].double(); then times, and arcosh of x0·y0 - x·y "
            "or, better, 2 asinh √((x0·y0 - x·y - 1)/2).",
        ),
        insight="It is the formula, not the chart: what is computed anew in float64 from stored space coordinates is "
        "right, and what was rounded before a subtraction is lost.",
        mistakes=(
            textbook,
            stored_time,
            lambda p, q: textbook(p, q).nan_to_num(0.1),
            lambda p, q: torch.full((len(p),), 0.1),
            lambda p, q: (p - q).norm(dim=-1),
            lambda p, q: p,
        ),
    ),
    Exercise(
        asks="Curvature -1, points kept in bfloat16 (8 bits): from which radius on can rounding move a point by 1?",
        verify=_verify_lost,
        hints=(
            "Rounding turns the direction by a small angle. How far does that move the point, at radius r?",
            "Rounding to p bits turns the direction by up to 2^-p, and at radius r that is a way of 2^-p sinh(r).",
            "Solve 2^-8 sinh(r) = 1.",
        ),
        insight="p bits hold a place up to about r = (p + 1) ln 2 in any chart: 6 for bfloat16, 17 for float32, 37 "
        "for float64 (a typical point up to 2 more). A deeper tree needs shorter edges.",
        mistakes=(25 * math.log(2), math.log(16), 256.0, 8.0, 3.0, -6.2),
    ),
    Exercise(
        asks="In the ball |√c x| = tanh(√c r/2). From which √c r on does float32 round this to 1, the rim itself?",
        verify=_verify_reaches_one,
        hints=(
            "tanh t = 1 - 2e^(-2t) and less, for large t. So how far is the point from the rim, in terms of √c r?",
            "It is 2e^(-√c r) from the rim. Below 1 the numbers of float32 lie 2^-24 apart.",
            "From half a step on, 2^-25, it rounds to 1: 2e^(-s) = 2^-25.",
        ),
        insight="A float32 ball ends at √c r = 18, float64 at 38: more curvature does not give more digits, it only "
        "moves the rim nearer.",
        mistakes=(25 * math.log(2), 24 * math.log(2), 13 * math.log(2), 55 * math.log(2), 1.0, -18.0),
    ),
)
