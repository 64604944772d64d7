"""Exercises of lesson 4, learning on a manifold: the metric's factor, a step, the pull of a squared distance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workbench.lessons.checking import Exercise, function
from workbench.lessons.slips import slipped

PLACE, APART = 0.9, 3.0  # of exercises 4.1 and 4.3


def stepped(z: complex, g: complex, rate: float) -> complex:
    """One step down, on the hyperboloid: by cosh and sinh of its length along a unit tangent vector."""
    s = 1 - abs(z) ** 2
    point = np.array([(1 + abs(z) ** 2) / s, 2 * z.real / s, 2 * z.imag / s])
    v = -rate * (s / 2) ** 2 * g  # in coordinates of the disk; its true length is 2 |v| / s
    turn = 2 * (z.conjugate() * v).real  # the change of |z|²
    space = 2 * v / s + 2 * z * turn / s**2
    arrow = np.array([2 * turn / s**2, space.real, space.imag])
    length = 2 * abs(v) / s
    end = point if not length else math.cosh(length) * point + math.sinh(length) / length * arrow
    return complex(end[1], end[2]) / (1 + end[0])


def _factor(answer: Any) -> str | None:
    half = (1 - PLACE**2) / 2
    slips = [
        (half, "That is how much longer coordinates make a step; a gradient is divided by it twice."),
        (half**-2, "It is shorter, not longer: this is the inverse."),
        (4 * half**2, "The factor of the length has a 2 in it, which counts squared."),
    ]
    return slipped(answer, half**2, "the factor", slips, rtol=0.005)


def _step(answer: Any) -> str | None:
    rng = np.random.default_rng(4)
    r, t = 0.95 * np.sqrt(rng.random((2, 30))), 2 * np.pi * rng.random((2, 30))
    z, g = r * np.exp(1j * t)
    given = [(complex(p), 3 * complex(q), 0.5) for p, q in zip(z, g, strict=True)]
    if callable(answer):
        z, g, rate = given[0]
        came, right = complex(answer(z, g, rate)), stepped(z, g, rate)
        for slip, says in (
            (stepped(z, -g, rate), "It goes up: a step of descent is against the gradient."),
            (z - rate * g, "That is the flat step: the metric is missing."),
            (stepped(z, g / ((1 - abs(z) ** 2) / 2) ** 2, rate), "The metric's factor is missing."),
        ):
            if abs(came - slip) < 1e-6 < abs(slip - right):
                return says
    return function(answer, stepped, given, "where the geodesic step ends")


def _rate(answer: Any) -> str | None:
    slips = [
        (1.0, "With this rate it goes twice as far as it should."),
        (2 * APART, "That is how long the gradient is; the rate makes it as long as the way."),
        (1 / APART, "This rate would do for the gradient of the distance's square if that had length 9."),
    ]
    return slipped(answer, 0.5, "the rate", slips, rtol=0.002)


EXERCISES = (
    Exercise(
        f"By which factor is the Riemannian gradient shorter than autograd's where |z| = {PLACE}?",
        _factor,
        (
            "A unit of coordinates is 2/(1 - |z|²) long there.",
            "The gradient is divided by this factor twice.",
            "((1 - 0.81)/2)², that is .095 squared.",
        ),
        "Near the rim autograd's gradient is too long by orders of magnitude: no learning rate mends that.",
        ((1 - PLACE**2) / 2, ((1 - PLACE**2) / 2) ** -2, (1 - PLACE**2) ** 2, 1.0),
    ),
    Exercise(
        "Write step(z, g, rate): one step of Riemannian gradient descent along a geodesic, for complex numbers.",
        _step,
        (
            "First the Riemannian gradient, ((1 - |z|²)/2)² g, times minus the rate.",
            "Divide by 1 - |z|²: the same arrow, seen from the middle.",
            "w = tanh|v| v/|v|, then (w + z)/(1 + z̄ w).",
        ),
        "No projection was needed: a step along a geodesic cannot leave the space.",
        (
            lambda z, g, rate: z - rate * g,
            lambda z, g, rate: stepped(z, -g, rate),
            lambda z, g, rate: stepped(z, g / ((1 - abs(z) ** 2) / 2) ** 2, rate),
            lambda z, g, rate: z - rate * ((1 - abs(z) ** 2) / 2) ** 2 * g,
        ),
    ),
    Exercise(
        f"Two points are {APART:g} apart. Which rate takes x to y in one step down d(x, y)²?",
        _rate,
        (
            "The gradient of the distance has length 1: it points away from y.",
            "The gradient of d² is 2 d times that.",
            "The step's length, rate times 2 d, should be d.",
        ),
        "Half, at any distance and any curvature: exp and log undo each other.",
        (1.0, 2 * APART, 1 / APART, -0.5),
    ),
)
