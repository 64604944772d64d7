"""The sections of notebooks/lessons/CHEATSHEET.md about curvature and numbers; `test_cheatsheet.py` has the others.

A check returns (what the sheet's formula gives, what is right). Change a line there, and change its check here.
"""

import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from workbench.manifolds import (
    Lorentz,
    PoincareBall,
    lorentz_to_poincare,
    poincare_to_lorentz,
    rescale_curvature,
)

SHEET = Path(__file__).parents[2] / "notebooks" / "lessons" / "CHEATSHEET.md"
C, R = 2.5, 1.3  # a curvature other than 1, a radius
root = math.sqrt(C)
CURVED, CURVED_SPACE = PoincareBall(C), Lorentz(C)

rng = np.random.default_rng(5)
x, y = rng.uniform(-0.5, 0.5, (2, 20, 3)) / root  # in the ball of curvature -C
arrow = rng.normal(size=(20, 3))


def tensor(a):
    return torch.tensor(a, dtype=torch.float64)


def dist(a, b, space):
    return space.dist(tensor(a), tensor(b)).numpy()


def length(a):
    return np.linalg.norm(a, axis=-1, keepdims=True)


# -- Exp and log at the origin ------------------------------------------------------------------------------------


def ball_exp(a):
    return np.tanh(root * length(a)) * a / (root * length(a))


def ball_log(a):
    return np.arctanh(root * length(a)) * a / (root * length(a))


def lorentz_exp(a):
    s = root * length(a)
    return np.concatenate([np.cosh(s) / root, np.sinh(s) * a / s], -1)


def both_exp():
    right = CURVED.expmap0(tensor(arrow / 3)).numpy()
    return (np.c_[ball_exp(arrow / 3), 2 * length(arrow / 3)], np.c_[right, dist(0 * right, right, CURVED)])


def both_exp_lorentz():
    right = CURVED_SPACE.from_tangent(tensor(arrow))
    return np.c_[lorentz_exp(arrow), length(arrow)], np.c_[right.numpy(), CURVED_SPACE.dist0(right).numpy()]


def lorentz_log():
    point = CURVED_SPACE.from_tangent(tensor(arrow)).numpy()[:, 1:]
    return np.arcsinh(root * length(point)) * point / (root * length(point)), arrow


def factor_two():
    ball, space = ball_exp(arrow / 2), lorentz_exp(arrow)
    right = CURVED.from_tangent(tensor(arrow))
    same = lorentz_to_poincare(tensor(space), C).numpy()
    far = CURVED.dist0(right).numpy()
    return np.c_[ball, same, length(arrow)], np.c_[right.numpy(), right.numpy(), far]


EXP = {
    "Ball, exp": both_exp,
    "Ball, log": lambda: (ball_log(x), CURVED.logmap0(tensor(x)).numpy()),
    "Lorentz, exp": both_exp_lorentz,
    "Lorentz, log": lorentz_log,
    "The factor two": factor_two,
    "Length of a vector in the ball": lambda: (
        2 * length(arrow)[:, 0] / (1 - C * length(x)[:, 0] ** 2),
        CURVED.norm(tensor(x), tensor(arrow)).numpy(),
    ),
}


# -- Curvature ----------------------------------------------------------------------------------------------------
def curved_charts():
    point = poincare_to_lorentz(tensor(x), C).numpy()
    gap, lift = 1 - C * length(x) ** 2, (1 + C * length(x) ** 2) / root
    down = point[:, 1:] / (1 + root * point[:, :1])
    on_sheet = point[:, 0] ** 2 - length(point[:, 1:])[:, 0] ** 2
    return np.c_[down, np.c_[lift, 2 * x] / gap, on_sheet], np.c_[x, point, np.full(len(x), 1 / C)]


def circle_length():
    """Of a fine polygon on the circle, side by side, by the package's distance."""
    corners = np.tanh(root * R / 2) / root * np.exp(2j * np.pi * np.arange(20000) / 20000)
    corners = np.stack([corners.real, corners.imag], -1)
    return dist(corners, np.roll(corners, 1, 0), CURVED).sum()


def circle_area():
    """The circles' lengths inside, added up: the metric of the ball in polar coordinates."""
    end = math.tanh(root * R / 2) / root
    return float(mpmath.quad(lambda s: 2 * mpmath.pi * s * (2 / (1 - C * s * s)) ** 2, [0, end]))


def curved_circle():
    found = [2 * math.pi * math.sinh(root * R) / root, 4 * math.pi * math.sinh(root * R / 2) ** 2 / C]
    return found, [circle_length(), circle_area()]


def curved_triangle():
    """With a right angle, integrated in polar coordinates about the corner of the angle α, which the leg meets."""
    alpha, leg = 0.7, 0.6
    beta = math.acos(math.cosh(root * leg) * math.sin(alpha))

    def slice_of(t):
        reach = mpmath.atanh(math.tanh(root * leg) / mpmath.cos(t))
        return (mpmath.cosh(reach) - 1) / C

    return (math.pi - math.pi / 2 - alpha - beta) / C, float(mpmath.quad(slice_of, [0, alpha]))


def another_curvature():
    moved = [a * math.sqrt(C / 0.7) for a in (x, y)]
    other = rescale_curvature(tensor(x), C, 0.7).numpy()
    far = math.sqrt(0.7) * dist(*moved, PoincareBall(0.7))
    return np.c_[moved[0], far], np.c_[other, root * dist(x, y, CURVED)]


CURVATURE = {
    "Distance": lambda: (dist(root * x, root * y, PoincareBall(1.0)) / root, dist(x, y, CURVED)),
    "Ball and hyperboloid": curved_charts,
    "Circle": curved_circle,
    "Triangle": curved_triangle,
    "Another curvature": another_curvature,
}


# -- Numbers ------------------------------------------------------------------------------------------------------
KINDS = (np.float32, np.float64)
REAL = (torch.float32, torch.float64)


def says(*true):
    return np.array(true, dtype=float), np.ones(len(true))


def the_rim():
    r = np.array([10.0, 15.0])
    return 1 - np.tanh(r / 2), 2 * np.exp(-r)


def ball_ends():
    mpmath.mp.dps = 40
    place = [lambda s, kind=kind: kind(mpmath.tanh(mpmath.mpf(s) / 2)) for kind in KINDS]
    ends = 26 * math.log(2), 55 * math.log(2)
    ball = PoincareBall(1.0)
    kept = [float(ball.dist0(ball.from_tangent(torch.tensor([90.0, 0.0], dtype=t)))) for t in REAL]
    edge = [at(end - 0.01) < 1 and at(end + 0.01) == 1 for at, end in zip(place, ends, strict=True)]
    return np.r_[says(*edge)[0], ends, np.floor(np.multiply(kept, 10)) / 10], np.r_[
        1, 1, 18.02, 38.12, 16.6, 35.3
    ]


def directions_lost():
    """Points at that radius, rounded to float32 in either chart; float64's radius follows by its 53 bits."""
    r, way = math.asinh(2.0**24), np.exp(1j * np.linspace(0, 2 * np.pi, 4001))
    far = tensor(r * np.stack([way.real, way.imag], -1))
    moved = []
    for space in (PoincareBall(1.0), Lorentz(1.0)):
        point = space.from_tangent(far)
        inside = point.float().double().norm(dim=-1) < 1 if space.name == "poincare" else ...
        moved.append(float(space.dist(point, point.float().double())[inside].max()))
    return np.r_[says(moved[0] > 0.5, 0.3 < moved[1] < 1.5)[0], r, math.asinh(2.0**53)], [1, 1, 17.33, 37.43]


def product_lost():
    """The typical error of t² - |X|², which is 1, three units before, at, and three units beyond the radius."""
    told = []
    for kind, r in zip(KINDS, (13 * math.log(2), 27.5 * math.log(2)), strict=True):
        way = np.exp(1j * np.linspace(0.1, 1.4, 999))
        errors = []
        for s in (r - 3, r, r + 3):
            t, a, b = (
                kind(m) for m in (np.full(999, np.cosh(s)), np.sinh(s) * way.real, np.sinh(s) * way.imag)
            )
            errors.append(float(np.median(abs((t * t - (a * a + b * b)).astype(float) - 1))))
        told += [errors[0] < 0.05, 0.1 < errors[1] < 10, errors[2] > 20]
    return says(*told)


def close_by_arcosh():
    told = []
    for kind, least in zip(KINDS, (2.0**-11.5, 2.0**-26), strict=True):
        seen = [float(np.arccosh(kind(1 + mpmath.mpf(s * least) ** 2 / 2))) for s in (0.95, 1.05)]
        told += [seen[0] == 0, seen[1] > 0]
    return says(*told)


def overflow():
    told = []
    for kind, plain, square in zip(KINDS, (89.4, 710.5), (45.1, 355.6), strict=True):
        most = mpmath.mpf(float(np.finfo(kind).max))
        told += [abs(mpmath.acosh(most) - plain) < 0.06, abs(mpmath.acosh(mpmath.sqrt(most)) - square) < 0.06]
    return says(*told)


NUMBERS = {
    "The rim": the_rim,
    "The ball ends": ball_ends,
    "Directions are lost in any chart": directions_lost,
    "Lorentz's product is lost": product_lost,
    "Close points by arcosh": close_by_arcosh,
    "The hyperboloid overflows": overflow,
}

CHECKS = {"Exp and log at the origin": EXP, "Curvature": CURVATURE, "Numbers": NUMBERS}


@pytest.mark.parametrize("section", CHECKS)
def test_the_sheet_has_these_lines_in_this_order(section):
    body = SHEET.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    assert re.findall(r"^- \*\*(.+?)\*\*: ", body, re.M) == list(CHECKS[section])


@pytest.mark.parametrize(("section", "line"), [(s, line) for s, lines in CHECKS.items() for line in lines])
def test_the_line_is_right(section, line):
    got, right = CHECKS[section][line]()
    np.testing.assert_allclose(got, right, rtol=1e-3 if section == "Numbers" else 1e-6, atol=1e-9)
