"""The released code's measures: right at c = 1, and wrong elsewhere by what its two mistakes amount to."""

import math

import pytest
import torch

from workbench.errors import ManifoldError, ParameterError
from workbench.manifolds import Euclidean, Lorentz, make
from workbench.models.him_released import Released


def two_sets(manifold, radius=2.0):
    g = torch.Generator().manual_seed(0)
    return [manifold.random(20, 3, radius=radius, generator=g, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("measure", ["loss", "score"])
@pytest.mark.parametrize("space", ["poincare", "lorentz"])
def test_at_curvature_one_the_release_measures_what_the_manifold_does(space, measure):
    manifold = make(space, 1.0, True)
    x, y = two_sets(manifold)
    released = Released(manifold, measure)
    assert torch.allclose(released.dist(x, y), manifold.dist(x, y), atol=1e-6)
    assert torch.allclose(released.dist0(x), manifold.dist0(x), atol=1e-6)


def geoopt_arcosh(t):
    return math.log(t + math.sqrt(max(t * t - 1, 1e-15)))


@pytest.mark.parametrize("c", [0.25, 4.0])
def test_on_the_hyperboloid_a_point_is_not_at_distance_zero_from_itself(c):
    x, _ = two_sets(Lorentz(c))
    expected = {"loss": geoopt_arcosh(1 / c), "score": math.sqrt(c) * geoopt_arcosh(1 / c**2)}
    for measure, value in expected.items():
        got = Released(Lorentz(c), measure).dist(x, x)
        assert torch.allclose(got, torch.full_like(got, value), atol=1e-5), measure
    assert Released(Lorentz(c), "loss").c == c


def test_the_evaluator_of_the_ball_is_right():
    manifold = make("poincare", 3.0)
    x, y = two_sets(manifold)
    assert torch.allclose(Released(manifold, "score").dist(x, y), manifold.dist(x, y), atol=1e-6)


def test_flat_space_and_points_with_nan_are_refused():
    with pytest.raises(ManifoldError, match="finite"):
        Released(Lorentz(), "score").check(torch.full((2, 3), torch.nan))
    with pytest.raises(ParameterError, match="euclidean"):
        Released(Euclidean(), "loss")
