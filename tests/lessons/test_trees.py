"""Lesson 3: right answers by other ways than the exercises' own, known slips, and what is no answer at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from workbench.data import trees as made
from workbench.lessons import trees
from workbench.manifolds import PoincareBall, delta_hyperbolicity, distortion

ROOM, DISTORTION, SPOKE, DELTA = trees.EXERCISES


def gromov(d):
    """δ from Gromov products at every base point, as max over x, y, z of min((x,z), (z,y)) - (x,y)."""
    found = 0.0
    for base in range(len(d)):
        product = (d[:, [base]] + d[[base]] - d) / 2
        weaker = np.minimum(product[:, :, None], product.T[None]).max(1)
        found = max(found, float((weaker - product).max()))
    return found


def test_a_circle_has_the_length_of_its_polygon():
    ball, turn = PoincareBall(trees.CURVATURE), 2 * math.pi / 10**5
    v = trees.RADIUS * torch.tensor([[1.0, 0.0], [math.cos(turn), math.sin(turn)]], dtype=torch.float64)
    length = 10**5 * float(ball.dist(*ball.from_tangent(v)))
    assert ROOM.verify(length / (2 * math.pi * trees.RADIUS)) is None


def test_distortion_is_the_librarys_worst():
    assert DISTORTION.verify(lambda e, t: distortion(torch.tensor(e), torch.tensor(t)).worst) is None


def test_distortion_by_sorting_is_right_too():
    def worst(e, t):
        pairs = ~np.eye(len(t), dtype=bool)
        ratio = np.sort(e[pairs] / t[pairs])
        return ratio[-1] / ratio[0]

    assert DISTORTION.verify(worst) is None


def test_spokes_of_the_asked_length_have_the_asked_distortion_in_the_ball():
    length = trees.spoke(trees.SPOKES, trees.WORST)
    turn = 2 * math.pi * torch.arange(trees.SPOKES, dtype=torch.float64) / trees.SPOKES
    leaves = PoincareBall(1.0).from_tangent(length * torch.stack([turn.cos(), turn.sin()], -1))
    points = torch.cat([torch.zeros(1, 2, dtype=torch.float64), leaves])
    true = np.full((9, 9), 2.0)
    true[0] = true[:, 0] = 1
    np.fill_diagonal(true, 0)
    embedded = PoincareBall(1.0).cdist(points, points, exact=True)
    assert distortion(embedded, torch.tensor(true)).worst == pytest.approx(trees.WORST, rel=1e-9)
    assert SPOKE.verify(length) is None
    assert SPOKE.verify(11 * math.log(1 / math.sin(math.pi / 8))) is None  # with eᵗ/2 for sinh t


@pytest.mark.parametrize(
    "delta",
    [gromov, lambda d: delta_hyperbolicity(torch.tensor(d), method="exact").delta],
    ids=["products", "library"],
)
def test_delta_from_gromov_products_or_the_library_is_right(delta):
    assert DELTA.verify(delta) is None


def test_delta_is_0_on_trees_and_known_on_cycles():
    h = made.random_recursive(9, seed=3)
    assert trees.four_point_delta(np.array(h.graph_distances())) == 0
    steps = abs(np.subtract.outer(range(8), range(8)))
    assert trees.four_point_delta(np.minimum(steps, 8 - steps)) == 2  # a cycle of 4k points: k


def test_an_answer_may_write_into_its_arguments():
    def careless(d):
        found = gromov(d)
        d[:] = 0
        return found

    assert DELTA.verify(careless) is None


def test_frequent_slips_are_called_by_name():
    assert "-1" in ROOM.verify(math.sinh(10) / 10)
    assert "units" in DISTORTION.verify(lambda e, t: (e / (t + np.eye(len(t)))).max())
    assert "half" in DELTA.verify(lambda d: 2 * gromov(d))
