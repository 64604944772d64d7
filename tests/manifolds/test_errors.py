"""What is refused, and that the sentence says what came and what was expected."""

import pytest
import torch

from workbench.errors import ManifoldError, WorkbenchError
from workbench.manifolds import Lorentz, PoincareBall, make

CURVED = ("poincare", "lorentz")
ALL = (*CURVED, "euclidean")


@pytest.mark.parametrize("cls", (PoincareBall, Lorentz))
@pytest.mark.parametrize("c", (0, -1.0, float("nan"), float("inf"), "one", torch.ones(2), None))
@pytest.mark.parametrize("learnable", (False, True))
def test_curvature_that_is_not_a_positive_number_is_refused(cls, c, learnable):
    with pytest.raises(ManifoldError, match="curvature c must be"):
        cls(c, learnable)


def test_unknown_space_suggests_the_nearest():
    with pytest.raises(ManifoldError, match="'poincare'"):
        make("poincaré")


@pytest.mark.parametrize("name", ALL)
def test_mismatching_dimensions_are_refused_with_both_sizes(name):
    m = make(name)
    x, y = torch.zeros(2, 3), torch.zeros(2, 4)
    for operation in (m.dist, m.cdist) if name == "euclidean" else (m.dist, m.cdist, m.add, m.logmap):
        with pytest.raises(ManifoldError, match=r"x has 3, y has 4"):
            operation(x, y)


@pytest.mark.parametrize("name", ALL)
def test_integers_scalars_and_other_things_are_refused(name):
    m = make(name)
    with pytest.raises(ManifoldError, match=r"floating point.*int64"):
        m.dist0(torch.ones(3, dtype=torch.int64))
    with pytest.raises(ManifoldError, match="0-dimensional"):
        m.dist0(torch.tensor(0.5))
    with pytest.raises(ManifoldError, match="list"):
        m.check([0.0, 0.0])
    with pytest.raises(ManifoldError, match="dim=0"):
        m.dist0(torch.zeros(3, 3), dim=0)


def test_hyperboloid_points_need_a_time_coordinate():
    with pytest.raises(ManifoldError, match="at least 2"):
        Lorentz().dist0(torch.ones(4, 1))
    with pytest.raises(ManifoldError, match="at least 2"):
        Lorentz().check(torch.ones(4, 1))


@pytest.mark.parametrize("name", ALL)
def test_check_refuses_nan_and_counts_them(name):
    x = make(name).random(5, 3)
    x[1, 0] = float("nan")
    with pytest.raises(WorkbenchError, match="1 of 5 points"):
        make(name).check(x)


@pytest.mark.parametrize("c", (1e-6, 1.0, 1e4))
@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_check_accepts_points_out_to_the_last_radius_and_refuses_points_off(name, c, dtype):
    m = make(name, c)
    v = torch.randn(20, 3, dtype=torch.float64)
    for radius in (0.0, 1.0, 10.0, 16.0, 60.0):
        x = m.from_tangent((v / v.norm(dim=-1, keepdim=True) * radius / c**0.5).to(dtype))
        assert m.check(x) is x
    far = torch.full((2, 3), 0.8 / c**0.5, dtype=dtype)
    with pytest.raises(ManifoldError, match="must be"):
        m.check(far, "points")


def test_check_names_the_time_coordinate_that_was_expected():
    with pytest.raises(ManifoldError, match=r"1\.11803, got 7"):
        Lorentz().check(torch.tensor([[7.0, 0.5, 0.0]]))


@pytest.mark.parametrize("name", CURVED)
def test_projx_brings_points_back_and_leaves_good_ones_alone(name):
    m = make(name)
    good = m.random(6, 3)
    assert torch.equal(m.projx(good), good) or name == "lorentz"
    assert torch.allclose(m.projx(good), good, rtol=1e-6)
    m.check(m.projx(torch.randn(6, 3) * 10))
    m.check(m.projx(torch.full((1, 3), 1e30)))


@pytest.mark.parametrize("name", ALL)
def test_centroid_needs_one_weight_a_point(name):
    m = make(name)
    x = m.random(4, 2)
    with pytest.raises(ManifoldError, match="4 points, 3 weights"):
        m.centroid(x, torch.ones(3))
