"""The nearest code by one matrix product, against distances computed pair by pair."""

import geoopt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ManifoldError
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, make
from workbench.manifolds.nearest import Prepared, code_table, disk, nearest, nearest_code

names = st.sampled_from(("euclidean", "poincare", "lorentz"))
seeds = st.integers(0, 10_000)
quick = settings(max_examples=25, deadline=None)


def cloud(m, n, d, seed, std=1.0, dtype=torch.float64):
    c = float(m.c) or 1.0
    return m.random(n, d, std=std / c**0.5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@quick
@given(names, st.sampled_from((1e-3, 0.7, 20.0)), st.integers(1, 9), seeds)
def test_it_is_the_argmin_of_the_distance_and_returns_that_distance(name, c, d, seed):
    m = make(name, c)
    x, codes = cloud(m, 60, d, seed), cloud(m, 17, d, seed + 1)
    index, distance = nearest(m, x, codes)
    every = m.dist(x.unsqueeze(1), codes)
    assert torch.equal(index, every.argmin(-1))
    assert torch.allclose(distance, every.amin(-1), rtol=1e-12)


@quick
@given(names, st.sampled_from((0.2, 3.0)), st.integers(1, 6), seeds)
def test_prepared_points_have_the_distances_of_the_manifold(name, c, d, seed):
    m = make(name, c)
    x, codes = cloud(m, 30, d, seed), cloud(m, 5, d, seed + 1)
    found = Prepared(m, x).distances(codes)
    assert torch.allclose(found, m.dist(x.unsqueeze(1), codes), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("c", [0.5, 1.0])
def test_it_is_the_argmin_of_geoopts_distance(c):
    m = PoincareBall(c)
    x, codes = cloud(m, 500, 6, 0), cloud(m, 64, 6, 1)
    expected = geoopt.PoincareBall(c).dist(x.unsqueeze(1), codes).argmin(-1)
    assert torch.equal(nearest(m, x, codes)[0], expected)


def test_both_charts_have_the_same_nearest_codes():
    ball, sheet = PoincareBall(0.3), Lorentz(0.3)
    v, w = torch.randn(200, 5, dtype=torch.float64), torch.randn(40, 5, dtype=torch.float64)
    a = nearest(ball, ball.from_tangent(v), ball.from_tangent(w))
    b = nearest(sheet, sheet.from_tangent(v), sheet.from_tangent(w))
    assert torch.equal(a[0], b[0])
    assert torch.allclose(a[1], b[1], rtol=1e-10)


@pytest.mark.parametrize("radius", [1.0, 4.0, 7.0])
def test_float32_picks_a_code_that_is_as_near(radius):
    m = PoincareBall()
    g = torch.Generator().manual_seed(0)
    x = m.random(2000, 8, radius=radius, generator=g, dtype=torch.float64)
    codes = m.random(128, 8, radius=radius, generator=g, dtype=torch.float64)
    slow, fast = nearest(m, x, codes), nearest(m, x, codes, fast=True)
    assert (slow[0] == fast[0]).double().mean() > 0.999
    assert float((fast[1] - slow[1]).max()) < 1e-3


def test_it_holds_at_the_rim_of_the_ball():
    m = PoincareBall()
    angle = torch.linspace(0, 6, 7, dtype=torch.float64)
    codes = torch.stack([angle.cos(), angle.sin()], -1) * (1 - 1e-8)
    x = m.geodesic(torch.tensor(0.1, dtype=torch.float64), codes, codes.roll(1, 0))
    index, distance = nearest(m, x, codes)
    assert torch.equal(index, torch.arange(7))
    assert torch.isfinite(distance).all()


def test_the_size_of_the_chunks_does_not_matter():
    m = PoincareBall()
    x, codes = cloud(m, 101, 3, 0), cloud(m, 9, 3, 1)
    table = code_table(m, codes)
    whole = nearest_code(disk(m, x), table)
    for chunk in (1, 7, 100, 1000):
        assert torch.equal(nearest_code(disk(m, x), table, chunk), whole)


def test_no_temporary_is_as_large_as_points_times_codes_times_dimensions():
    from workbench.evaluation.timing import peak_bytes

    n, k, d = 4096, 512, 16
    m = PoincareBall()
    x, codes = cloud(m, n, d, 0, dtype=torch.float32), cloud(m, k, d, 1)
    nearest(m, x, codes, fast=True)
    assert peak_bytes(lambda: nearest(m, x, codes, fast=True)) < n * k * 4  # below even one float32 an entry


@pytest.mark.parametrize("m", [Euclidean(), PoincareBall()], ids=str)
def test_no_points_have_no_nearest_code(m):
    index, distance = nearest(m, torch.zeros(0, 3), torch.zeros(2, 3))
    assert index.shape == distance.shape == (0,)


@pytest.mark.parametrize(("x", "codes"), [((4, 3), (5, 2)), ((4, 3), (0, 3)), ((3,), (5, 3))])
def test_shapes_that_do_not_fit_are_said(x, codes):
    with pytest.raises(ManifoldError, match=r"nearest needs points \(N, n\)"):
        nearest(PoincareBall(), torch.zeros(x), torch.zeros(codes))
