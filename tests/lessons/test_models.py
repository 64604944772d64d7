"""Exercises of lesson 1: answers found another way pass, frequent slips get their sentence."""

import math

import mpmath
import numpy as np
import pytest
import torch

from workbench.lessons.models import CURVATURE, EXERCISES, STRETCH_AT, TRIANGLE
from workbench.manifolds import Lorentz
from workbench.widgets.plane import measure

CHART, STRETCH, DISTANCE, AREA = EXERCISES


def by_root(k):
    """The root below 1 of |k| r² - 2 r + |k| = 0, by numpy's solver for polynomials."""
    size = np.hypot(*k)
    return k / size * min(np.roots([size, -2, size]).real) if size else k


def by_package(x, y):
    return Lorentz().dist(*(torch.tensor(p, dtype=torch.float64) for p in (x, y))).item()


def stretch_by_measuring():
    """Equally far steps along and across the radius, sought in the Klein disk with the Poincaré disk's distance."""

    def klein(x, y):
        s = 1 + math.sqrt(1 - x * x - y * y)
        return [x / s, y / s]

    here = klein(STRETCH_AT, 0)
    along = measure([here, klein(STRETCH_AT + 1e-5, 0)])["lengths"][0]
    across = measure([here, klein(STRETCH_AT, 1e-5)])["lengths"][0]
    return along / across


def area_by_integral():
    """The triangle with these angles, from the law of cosines, integrated in polar coordinates about a corner."""
    a, b, c = TRIANGLE
    side = mpmath.acosh((mpmath.cos(a) * mpmath.cos(c) + mpmath.cos(b)) / (mpmath.sin(a) * mpmath.sin(c)))

    def reach(t):  # the side opposite the corner `a`, seen from it: cotangent rule
        cot = (mpmath.cosh(side) * mpmath.cos(t) + mpmath.sin(t) / mpmath.tan(c)) / mpmath.sinh(side)
        return mpmath.acoth(cot)

    return float(mpmath.quad(lambda t: mpmath.cosh(reach(t)) - 1, [0, a])) / CURVATURE


def test_answers_found_another_way_are_right():
    assert CHART.verify(by_root) is None
    assert STRETCH.verify(stretch_by_measuring()) is None
    assert DISTANCE.verify(by_package) is None
    assert AREA.verify(area_by_integral()) is None


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (CHART, lambda k: 2 * k / (1 + k @ k), "the other direction"),
        (STRETCH, 0.6, "along the radius by across"),
        (STRETCH, 1 / 0.36, "square of the ratio"),
        (DISTANCE, lambda x, y: x[0] * y[0] - x[1:] @ y[1:], "undo the cosh"),
        (DISTANCE, lambda x, y: np.arccosh(x @ y), "takes times away"),
        (DISTANCE, lambda x, y: np.linalg.norm(x - y), "off the sheet"),
        (AREA, math.pi / 4, "curvature -1"),
        (AREA, 45.0, "radians"),
        (AREA, math.pi / 8, "And areas"),
    ],
)
def test_frequent_slips_are_recognised(exercise, answer, says):
    assert says in exercise.verify(answer)
