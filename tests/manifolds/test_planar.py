"""Shadows of points on a hyperbolic plane."""

import numpy as np
import pytest
import torch

from workbench.errors import ManifoldError
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, make
from workbench.manifolds.planar import plane_of


def cloud(d, n=60, c=1.0, chart="lorentz", scale=1.0, seed=0):
    space = make(chart, c)
    v = scale * torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return space, space.from_tangent(v)


def distances(x):
    x = torch.as_tensor(x)
    return PoincareBall().dist(x[:, None], x[None])


@pytest.mark.parametrize("chart", ["lorentz", "poincare"])
@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_in_two_dimensions_the_picture_keeps_every_distance(chart, c):
    space, x = cloud(2, c=c, chart=chart)
    plane = plane_of(space, x)
    true = c**0.5 * space.dist(x[:, None], x[None])
    assert torch.allclose(distances(plane.ball(x)), true, atol=1e-9)
    assert plane.kept(x) == 1.0


@pytest.mark.parametrize("d", [3, 16])
def test_no_distance_grows_in_a_shadow(d):
    space, x = cloud(d)
    drawn, true = distances(plane_of(space, x).ball(x)), space.dist(x[:, None], x[None])
    assert (drawn <= true + 1e-9).all() and (drawn < 0.9 * true).any()


def test_a_shadow_is_the_nearest_point_of_the_plane():
    space, x = cloud(4, n=5)
    plane = plane_of(space, x)
    ball = torch.from_numpy(plane.ball(x))
    for turn in (0.0, 1.0, 2.0, 4.0):
        step = 1e-4 * torch.tensor([np.cos(turn), np.sin(turn)])
        v = PoincareBall().to_tangent(PoincareBall().mobius_add(ball, step.expand_as(ball)))
        beside = space.from_tangent(v @ plane.axes.T)
        here = space.from_tangent(PoincareBall().to_tangent(ball) @ plane.axes.T)
        assert (space.dist(here, x) <= space.dist(beside, x) + 1e-12).all()


def test_points_of_a_plane_in_space_are_found_again():
    space = Lorentz()
    _, flat = cloud(2)
    turn = torch.linalg.qr(
        torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0]
    x = space.from_tangent(space.to_tangent(flat) @ turn[:2])
    plane = plane_of(space, x)
    assert torch.allclose(distances(plane.ball(x)), space.dist(x[:, None], x[None]), atol=1e-9)
    assert plane.kept(x, 5) == 1.0


def test_both_charts_give_one_picture_up_to_rounding():
    clouds = [cloud(6, c=0.7, chart=chart) for chart in ("lorentz", "poincare")]
    a, b = (plane_of(space, x).ball(x) for space, x in clouds)
    assert np.allclose(a, b, atol=1e-9)


def test_what_would_leave_the_disk_when_stretched_stands_near_its_rim():
    space, x = cloud(2, scale=0.01)
    wide = plane_of(space, x).stretched(x)
    far = wide.ball(space.from_tangent(torch.tensor([[0.0, 3.0]], dtype=torch.float64)))
    assert 0.9999 < np.linalg.norm(far) < 1


def test_a_stretched_picture_multiplies_radii_and_keeps_directions():
    space, x = cloud(3, scale=0.05)
    plane = plane_of(space, x)
    wide = plane.stretched(x, reach=2.0)
    a, b = torch.from_numpy(plane.ball(x)), torch.from_numpy(wide.ball(x))
    r, s = PoincareBall().dist0(a), PoincareBall().dist0(b)
    assert torch.allclose(s, wide.stretch * r) and np.isclose(np.quantile(s, 0.99), 2.0)
    assert torch.allclose(a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True))
    assert plane_of(*cloud(3, scale=9.0)).stretched(cloud(3, scale=9.0)[1]).stretch == 1.0


def test_a_point_at_the_origin_stays_there():
    space = Lorentz()
    x = space.from_tangent(torch.zeros(3, 4, dtype=torch.float64))
    assert not plane_of(space, x).stretched(x).ball(x).any()


def test_what_has_no_hyperbolic_plane_is_refused():
    with pytest.raises(ManifoldError, match="flat"):
        plane_of(Euclidean(), torch.zeros(3, 2))
    with pytest.raises(ManifoldError, match="2 dimensions"):
        plane_of(PoincareBall(), torch.zeros(3, 1))
    with pytest.raises(ManifoldError, match="from 1 to 59"):
        plane_of(*cloud(3)).kept(cloud(3)[1], 60)
