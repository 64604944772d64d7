"""Exercises of lesson 2, isometries and holonomy: a translation, the turn after a walk, the area of a tile.

Right answers come from Gauss-Bonnet and the trigonometry of right-angled triangles, not from gliding or integrating.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np

from workbench.lessons.checking import Exercise, function
from workbench.lessons.slips import slipped

LEG = 1.5  # of exercise 2.2, east and north


def translated(a: complex, z: complex) -> complex:
    """Where z goes when the plane is moved so that a comes to the middle without turning: (z - a)/(1 - ā z)."""
    return (z - a) / (1 - a.conjugate() * z)


def turn(leg: float) -> float:
    """Area of the right-angled triangle with two equal legs: π/2 less twice its acute angle, whose tan is 1/cosh."""
    return math.pi / 2 - 2 * math.atan(1 / math.cosh(leg))


def _translation(answer: Any) -> str | None:
    rng = np.random.default_rng(2)
    r, t = 0.98 * np.sqrt(rng.random((2, 40))), 2 * np.pi * rng.random((2, 40))
    a, z = r * np.exp(1j * t)
    pairs = [(complex(p), complex(q)) for p, q in zip(a, z, strict=True)]
    if callable(answer) and abs(complex(answer(0.3 + 0.4j, 0j)) - (0.3 + 0.4j)) < 1e-9:
        return "It carries 0 to a: that is the way back, and a should go to 0."
    if callable(answer) and abs(complex(answer(0.3 + 0.4j, 0.3 + 0.4j))) > 1e-9:
        return "It does not carry a to 0."
    return function(answer, translated, pairs, "where the translation carries z")


def _turn(answer: Any) -> str | None:
    right = turn(LEG)
    slips = [
        (math.degrees(right), "The size is right in degrees; give it in radians."),
        (LEG * LEG / 2, "That is the area of the flat triangle with these legs."),
        (math.pi - right, "That is the sum of the angles; what it lacks of π counts."),
    ]
    one_way = abs(answer) if isinstance(answer, float) else answer  # left or right: either sign
    return slipped(one_way, right, "the turn in radians", slips, rtol=0.005)


def _tile(answer: Any) -> str | None:
    slips = [
        (5 * math.pi, "That is the sum of the angles of a flat heptagon; these angles are smaller."),
        (14 * math.pi / 3, "That is the sum of the tile's angles; its area is what they lack."),
        (
            math.pi - 14 * math.pi / 3,
            "A heptagon is five triangles: compare its angles with 5 π, not with π.",
        ),
    ]
    return slipped(answer, math.pi / 3, "the area", slips, rtol=0.002)


EXERCISES = (
    Exercise(
        "Write a function of complex numbers a and z: where z goes when a is moved to the middle, without turning.",
        _translation,
        (
            "It must carry a to 0, so its numerator is z - a.",
            "The rim must stay the rim: divide by something that has the same size as z - a wherever |z| = 1.",
            "On the rim |z - a| = |1 - ā z|, with ā = a.conjugate().",
        ),
        "Every isometry that keeps orientation is such a translation and a rotation about the middle.",
        (
            lambda a, z: z - a,
            lambda a, z: (z + a) / (1 + a.conjugate() * z),
            lambda a, z: (z - a) / (1 - a * z),
            lambda a, z: cmath.exp(0.3j) * translated(a, z),
            0.5,
        ),
    ),
    Exercise(
        f"A triangle has a right angle between two legs of length {LEG}. By how many radians has the plane turned "
        "when the middle has walked around it?",
        _turn,
        (
            "Holonomy is area, and area is what the angles lack of π.",
            "In a right-angled triangle tan α = tanh a / sinh b for the angle α opposite to the leg a.",
            "With equal legs tan α = 1/cosh a; the turn is π/2 - 2 α.",
        ),
        "What a loop turns is the area inside: one number for holonomy, for the angle defect and for the gyration.",
        (math.degrees(turn(LEG)), LEG * LEG / 2, math.pi - turn(LEG), 0.0),
    ),
    Exercise(
        "How large is one heptagon of the tiling {7,3}, in units where the curvature is -1?",
        _tile,
        (
            "Three tiles meet at a corner, so each of its angles is 2π/3.",
            "A flat heptagon's angles add up to 5π.",
            "The area is 5π - 7 · 2π/3.",
        ),
        "No ruler was needed: in curved space angles know the area, so similar figures of another size do not exist.",
        (5 * math.pi, 14 * math.pi / 3, math.pi - 14 * math.pi / 3, 1.0),
    ),
)
