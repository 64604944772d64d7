"""Lesson 5: right answers by other ways than the exercises' own, known slips, and what is no answer at all."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from workbench.lessons import rim
from workbench.manifolds import Lorentz, PoincareBall

FACTOR, DISTANCE, LOST, ONE = rim.EXERCISES


def test_expmap0_of_the_right_length_lies_at_distance_3():
    u = torch.tensor([1.5, 0.0], dtype=torch.float64)
    ball = PoincareBall(4.0)
    assert float(ball.dist0(ball.expmap0(u))) == pytest.approx(3.0)
    assert FACTOR.verify(1.5) is None and FACTOR.verify(torch.tensor(1.5)) is None


def test_float32_reaches_1_where_trial_says():
    low, high = 1.0, 40.0
    while high - low > 1e-9:
        s = (low + high) / 2
        low, high = (low, s) if np.float32(math.tanh(s / 2)) == 1 else (s, high)
    assert low == pytest.approx(26 * math.log(2), rel=1e-6)
    assert ONE.verify(low) is None


def test_rounding_to_bfloat16_can_move_a_point_by_1_where_trial_says():
    turn = 2 * math.pi * torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ray, space = torch.stack([turn.cos(), turn.sin()], -1), Lorentz(1.0)

    def moved(r):
        true = space.from_tangent(r * ray)
        return float(space.dist(true, space.projx(true.bfloat16().double())).max())

    first = next(r for r in np.arange(1, 20, 0.05) if moved(r) > 1)
    assert LOST.verify(first) is None
    assert LOST.verify(math.asinh(256)) is None and LOST.verify(8 * math.log(2)) is None


def test_true_distances_agree_with_mpmath():
    p, q, true = rim.pairs()
    with mpmath.workdps(60):
        for x, y, d in zip(p, q, true, strict=True):
            x, y = (mpmath.matrix([float(t) for t in v[1:]]) for v in (x, y))
            product = mpmath.sqrt(1 + (x.T * x)[0]) * mpmath.sqrt(1 + (y.T * y)[0]) - (x.T * y)[0]
            assert d == pytest.approx(float(mpmath.acosh(product)), rel=1e-14)


def test_pairs_are_where_they_are_said_to_be():
    p, q, true = rim.pairs()
    assert p.dtype == q.dtype == torch.float32
    assert true[:10] == pytest.approx(0.1, rel=1e-2) and true[10:20] == pytest.approx(1.0, rel=1e-4)
    assert p[:10, 0].numpy() == pytest.approx(math.cosh(8))


def half(p, q):
    """asinh, in float64, from space alone."""
    x, y = p[:, 1:].double(), q[:, 1:].double()
    x0, y0 = ((1 + t.square().sum(-1)).sqrt() for t in (x, y))
    return 2 * ((x0 * y0 - (x * y).sum(-1) - 1) / 2).clamp_min(0).sqrt().asinh()


def in_the_ball(p, q):
    x, y = (t[:, 1:].double() for t in (p, q))
    x, y = (t / (1 + (1 + t.square().sum(-1, keepdim=True)).sqrt()) for t in (x, y))
    gaps = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
    return torch.acosh(1 + 2 * (x - y).square().sum(-1) / gaps).float()


@pytest.mark.parametrize("distance", [half, in_the_ball, Lorentz(1.0).dist], ids=["asinh", "ball", "library"])
def test_any_distance_from_space_in_float64_is_right(distance):
    assert DISTANCE.verify(distance) is None


def test_the_textbook_is_wrong_and_its_slip_has_a_name():
    assert "not finite" in DISTANCE.verify(rim.textbook) or "apart" in DISTANCE.verify(rim.textbook)
    assert "stored time" in DISTANCE.verify(rim.stored_time)
