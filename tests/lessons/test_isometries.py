"""The exercises of lesson 2 against isometries in PoincareBall, gliding by matrices, and an integral."""

import cmath
import math

import numpy as np
import torch

from workbench.lessons import check
from workbench.lessons.isometries import LEG
from workbench.manifolds import PoincareBall
from workbench.plots import geometry2d as plane


def by_the_ball(a, z):
    """Möbius addition of -a, by the package's own manifold."""
    ball = PoincareBall(c=1.0)
    x, y = (torch.tensor([p.real, p.imag], dtype=torch.float64) for p in (-a, z))
    return complex(*ball.add(x, y))


def glided(leg):
    """The turn of SU(1,1) after the middle has glided around the triangle."""
    view, corners = np.eye(2, dtype=complex), [math.tanh(leg / 2), 1j * math.tanh(leg / 2), 0]
    for z in corners:
        p = (view[0, 0] * z + view[0, 1]) / (view[1, 0] * z + view[1, 1])
        view = np.array([[1, -p], [-np.conj(p), 1]]) / np.sqrt(1 - abs(p) ** 2) @ view
    return abs(2 * cmath.phase(view[0, 0]))


def integrated(corners):
    """Area by a line integral along the sides."""
    z = plane.geodesic_polyline(corners, np.roll(corners, -1), 4000).ravel()
    middle, turn = abs(z + np.roll(z, -1)) ** 2 / 4, np.angle(np.roll(z, -1) * z.conj())
    return abs(float(np.sum(2 * middle / (1 - middle) * turn)))


def test_right_answers_pass():
    assert check("2.1", by_the_ball)
    assert check("2.2", glided(LEG)) and check("2.2", -glided(LEG))
    assert check("2.3", integrated(plane.tiles(7, 3, 0).vertices[0]))
