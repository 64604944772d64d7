"""Exercises of lesson 1, four models of one plane: charts, what they show truly, distance, area.

Right answers come from closed forms in another model than the one asked about.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workbench.errors import ManifoldError
from workbench.lessons.checking import Exercise, function
from workbench.lessons.slips import slipped

STRETCH_AT = 0.8  # where exercise 1.2 looks at the Klein disk
TRIANGLE = (math.pi / 3, math.pi / 4, math.pi / 6)  # angles in exercise 1.4
CURVATURE = 4.0  # c in exercise 1.4


def _klein_places() -> np.ndarray:
    """(40, 2) places of the Klein disk, at distances up to 4 from the centre, in all directions."""
    rng = np.random.default_rng(11)
    r, turn = np.tanh(4 * rng.random(40)), 2 * math.pi * rng.random(40)
    return np.stack([r * np.cos(turn), r * np.sin(turn)], -1)


def to_poincare(k: np.ndarray) -> np.ndarray:
    """(2,) place in the Klein disk to the Poincaré disk, by way of the distance: tanh d there, tanh(d/2) here."""
    r = math.hypot(*k)
    return np.asarray(k) * (math.tanh(math.atanh(r) / 2) / r if r else 0.5)


def _verify_chart(answer: Any) -> str | None:
    places = [(np.zeros(2),), *((k,) for k in _klein_places())]
    if callable(answer):
        k = np.array([0.6, 0.0])
        got = np.asarray(answer(k), dtype=float)
        if got.shape == (2,) and np.allclose(got, 2 * k / (1 + k @ k), rtol=1e-6):
            return (
                "This is the way from the Poincaré disk to the Klein disk; the other direction was asked for."
            )
        if got.shape == (2,) and np.allclose(got, k / (1 - math.sqrt(1 - k @ k)), rtol=1e-6):
            return "This place lies outside the disk: of two solutions of the quadratic, it is the other one."
    return function(answer, to_poincare, places, "the same point in the Poincaré disk")


def _verify_stretch(answer: Any) -> str | None:
    inside = 1 - STRETCH_AT**2
    slips = [
        (math.sqrt(inside), "This is along the radius by across; the question was across by along."),
        (
            1 / inside,
            "This is the square of the ratio. How do lengths along the radius shrink, and those across it?",
        ),
        (
            1.0,
            "That would be a circle: true in the Poincaré disk, which shows angles truly, but not in this one.",
        ),
    ]
    return slipped(answer, 1 / math.sqrt(inside), "the ratio of width to height", slips)


def _pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of points (t, x, y) of the hyperboloid, each at a distance up to 3 from the origin."""
    rng = np.random.default_rng(12)
    r, turn = 3 * rng.random((2, 20)), 2 * math.pi * rng.random((2, 20))
    points = np.stack([np.cosh(r), np.sinh(r) * np.cos(turn), np.sinh(r) * np.sin(turn)], -1)
    return list(zip(*points, strict=True))


def half_plane_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Distance of two points (t, x, y) of the hyperboloid, measured in the half-plane."""
    (a, b), (c, d) = ((p[1] / (p[0] - p[2]), 1 / (p[0] - p[2])) for p in (x, y))
    return 2 * math.asinh(math.hypot(a - c, b - d) / (2 * math.sqrt(b * d)))


def _verify_distance(answer: Any) -> str | None:
    pairs = _pairs()
    if callable(answer):
        x, y = pairs[0]
        d, got = half_plane_distance(x, y), np.asarray(answer(x, y), dtype=float)
        if got.shape == ():
            known = [
                (math.cosh(d), "This is -⟨x, y⟩ itself, the cosh of the distance: undo the cosh."),
                (-math.cosh(d), "This is ⟨x, y⟩ itself: change its sign and undo the cosh."),
                (
                    math.acosh(float(x @ y)),
                    "This is the ordinary product. The product of space-time takes times away.",
                ),
                (float(np.linalg.norm(x - y)), "This is the flat distance through the room, off the sheet."),
            ]
            for number, sentence in known:
                if math.isclose(float(got), number, rel_tol=1e-6):
                    return sentence
            if math.isnan(float(got)):
                return "It returns NaN: an arcosh of something below 1. Which sign has ⟨x, y⟩?"
    return function(answer, half_plane_distance, pairs, "the distance on the sheet", rtol=1e-5)


def _verify_area(answer: Any) -> str | None:
    defect = math.pi - sum(TRIANGLE)
    slips = [
        (
            defect,
            "This is the area in the plane of curvature -1. Is a more strongly curved one larger or smaller?",
        ),
        (defect * CURVATURE, "A factor is on the wrong side: areas shrink where curvature grows."),
        (defect / math.sqrt(CURVATURE), "Lengths are divided by √c. And areas?"),
        (math.degrees(defect), "Angles are in radians here: 180 degrees are π."),
        (math.degrees(defect) / CURVATURE, "Angles are in radians here: 180 degrees are π."),
        (sum(TRIANGLE) / CURVATURE, "This is the angle sum. The area is what the sum lacks."),
    ]
    return slipped(answer, defect / CURVATURE, "the area", slips)


def _norm(k: np.ndarray) -> float:
    return float(np.linalg.norm(k))


def _raises(*_: Any) -> float:
    raise ManifoldError("no such point")


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        asks="Write a function that takes a place k = (k1, k2) of the Klein disk, a numpy array, and returns the "
        "same point in the Poincaré disk.",
        verify=_verify_chart,
        hints=(
            "Both disks show the direction from the centre truly, so only the radius changes.",
            "Solve |k| = 2|z| / (1 + |z|²) for |z|: a quadratic equation. Which of its two solutions is below 1?",
            "z = k / (1 + √(1 − |k|²)).",
        ),
        insight="Charts are formulas, not places: one line takes any figure from one model to another.",
        mistakes=(
            lambda k: k,
            lambda k: 2 * k / (1 + k @ k),
            lambda k: k / 2,
            lambda k: k / (1 + math.sqrt(1 + k @ k)),
            lambda k: k * math.atanh(_norm(k)),
            lambda k: _norm(k) / (1 + math.sqrt(1 - k @ k)),
            _raises,
        ),
    ),
    Exercise(
        asks=f"A tiny circle is drawn in the Klein disk at {STRETCH_AT} of the radius. It looks like an ellipse. "
        "How many times as long is the ellipse across the radius as along it?",
        verify=_verify_stretch,
        hints=(
            "At radius k a step dk along the radius is worth dk / (1 − k²). What is a step across worth?",
            "A step across at radius k is worth its length on paper divided by √(1 − k²).",
            "Steps of the same worth: along, the paper length has a factor 1 − k², across √(1 − k²). Divide.",
        ),
        insight="Klein pays for straight lines with angles: the ratio 1/√(1−k²) = cosh d grows without end.",
        mistakes=(math.sqrt(1 - STRETCH_AT**2), 1 / (1 - STRETCH_AT**2), 1.0, -5 / 3, 2.0),
    ),
    Exercise(
        asks="Write a function that takes two points x and y of the hyperboloid, numpy arrays (t, x1, x2), and "
        "returns their distance in the plane of curvature −1.",
        verify=_verify_distance,
        hints=(
            "⟨x, y⟩ = x1 y1 + x2 y2 − t s, where t and s are the two times. Of a point with itself it is −1.",
            "For the origin (1, 0, 0) and a point at distance d, (cosh d, sinh d, 0), the product is −cosh d.",
            "np.arccosh(x[0] * y[0] − x[1:] @ y[1:]).",
        ),
        insight="On the hyperboloid distance is one product and one arcosh: no fractions, no rim, any dimension.",
        mistakes=(
            lambda x, y: x[0] * y[0] - x[1:] @ y[1:],
            lambda x, y: x[1:] @ y[1:] - x[0] * y[0],
            lambda x, y: np.arccosh(x @ y),
            lambda x, y: np.linalg.norm(x - y),
            lambda x, y: np.float64("nan"),
            _raises,
        ),
    ),
    Exercise(
        asks=f"A triangle in the plane of curvature −{CURVATURE:g} has angles of 60, 45 and 30 degrees. "
        "What is its area?",
        verify=_verify_area,
        hints=(
            "How much does the angle sum lack of two right angles? In radians.",
            "In curvature −1 the area is that lack. Curvature −c divides lengths by √c, so areas by ...",
            "(π − π/3 − π/4 − π/6) / 4.",
        ),
        insight="Three angles fix a hyperbolic triangle entirely, its size included: there are no similar triangles.",
        mistakes=(
            math.pi / 4,
            math.pi,
            math.pi / 8,
            45.0,
            45.0 / 4,
            3 * math.pi / 16,
            -math.pi / 16,
            math.nan,
        ),
    ),
)
