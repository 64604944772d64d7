"""Isometries, inverses, gyrogroup laws and limits, as properties of random points."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.manifolds import (
    lorentz_to_poincare,
    make,
    poincare_to_lorentz,
    rescale_curvature,
)

CURVED = ("poincare", "lorentz")
ALL = (*CURVED, "euclidean")
seeds = st.integers(0, 10_000)
curvatures = st.sampled_from((1e-3, 0.4, 1.0, 30.0))
names = st.sampled_from(ALL)
dims = st.integers(1, 6)
quick = settings(max_examples=25, deadline=None)


def points(m, seed: int, n: int, d: int, count: int = 1, spread: float = 1.5):
    """`count` batches of n float64 points at dimensionless radii of a few `spread`."""
    c = float(m.c) or 1.0
    g = torch.Generator().manual_seed(seed)
    return [m.random(n, d, std=spread / c**0.5, generator=g, dtype=torch.float64) for _ in range(count)]


def unit(m) -> float:
    return (float(m.c) or 1.0) ** -0.5


def apart(m, x, y) -> float:
    """Largest distance between corresponding points, in units of 1/√c."""
    return float(m.dist(x, y).max()) / unit(m)


@quick
@given(names, curvatures, dims, seeds)
def test_distance_is_a_metric(name, c, d, seed):
    m = make(name, c)
    x, y, z = points(m, seed, 8, d, 3)
    assert torch.equal(m.dist(x, y), m.dist(y, x)) or torch.allclose(m.dist(x, y), m.dist(y, x), rtol=1e-13)
    assert (m.dist(x, x) == 0).all()
    assert (m.dist(x, z) <= m.dist(x, y) + m.dist(y, z) + 1e-12 * unit(m)).all()


@quick
@given(names, curvatures, dims, seeds)
def test_translations_are_isometries_and_carry_the_base_to_the_origin(name, c, d, seed):
    m = make(name, c)
    x, y, base = points(m, seed, 8, d, 3)
    a, b = m.translate_to_origin(x, base), m.translate_to_origin(y, base)
    assert torch.allclose(m.dist(a, b), m.dist(x, y), rtol=1e-7, atol=1e-9 * unit(m))
    assert (m.dist0(m.translate_to_origin(base, base)) < 1e-9 * unit(m)).all()
    assert torch.allclose(m.dist0(a), m.dist(x, base), rtol=1e-9, atol=1e-9 * unit(m))
    assert apart(m, m.add(base, a), x) < 1e-8  # left cancellation


@quick
@given(names, curvatures, dims, seeds)
def test_exp_and_log_are_inverse_and_their_length_is_the_distance(name, c, d, seed):
    m = make(name, c)
    x, y = points(m, seed, 8, d, 2, spread=1.0)
    u = m.logmap(x, y)
    assert torch.allclose(m.norm(x, u), m.dist(x, y), rtol=1e-9)
    assert apart(m, m.expmap(x, u), y) < 1e-7
    assert apart(m, m.expmap0(m.logmap0(x)), x) < 1e-10
    v = m.to_tangent(x)
    assert v.shape[-1] == d == m.intrinsic_dim(x.shape[-1])
    assert apart(m, m.from_tangent(v), x) < 1e-10
    assert torch.allclose(v.norm(dim=-1), m.dist0(x), rtol=1e-13)


@quick
@given(names, curvatures, dims, seeds)
def test_transport_is_an_isometry_and_turns_the_velocity_of_a_geodesic_with_it(name, c, d, seed):
    m = make(name, c)
    x, y, z, w = points(m, seed, 8, d, 4)
    u, v = m.logmap(x, z), m.logmap(x, w)
    moved_u, moved_v = m.transp(x, y, u), m.transp(x, y, v)
    assert torch.allclose(m.inner(y, moved_u, moved_v), m.inner(x, u, v), rtol=1e-7, atol=1e-8 * unit(m) ** 2)
    along = m.transp(x, y, m.logmap(x, y))
    assert torch.allclose(along, -m.logmap(y, x), rtol=1e-7, atol=1e-7 * float(along.abs().max()))
    back = m.transp(y, x, moved_u)
    assert torch.allclose(back, u, rtol=1e-6, atol=1e-7 * float(u.abs().max()))


@quick
@given(names, curvatures, dims, seeds, st.floats(0, 1))
def test_geodesics_divide_the_distance(name, c, d, seed, t):
    m = make(name, c)
    x, y = points(m, seed, 8, d, 2)
    z = m.geodesic(t, x, y)
    whole = m.dist(x, y)
    assert torch.allclose(m.dist(x, z), t * whole, rtol=1e-8, atol=1e-9 * unit(m))
    assert torch.allclose(m.dist(z, y), (1 - t) * whole, rtol=1e-8, atol=1e-9 * unit(m))


@quick
@given(names, curvatures, dims, seeds)
def test_gyrogroup_laws(name, c, d, seed):
    m = make(name, c)
    x, y, z = points(m, seed, 8, d, 3, spread=1.0)
    origin = m.from_tangent(torch.zeros(8, d, dtype=torch.float64))
    assert apart(m, m.add(origin, x), x) < 1e-12
    assert apart(m, m.add(x, origin), x) < 1e-12
    assert apart(m, m.add(m.neg(x), x), origin) < 1e-9
    assert apart(m, m.add(m.neg(x), m.add(x, y)), y) < 1e-8
    assert torch.allclose(m.dist0(m.add(x, y)), m.dist0(m.add(y, x)), rtol=1e-9)  # equal up to a gyration
    assert apart(m, m.sub(x, x), origin) < 1e-9
    # gyrations keep distances: gyr[x, y] z = -(x+y) + (x + (y + z))
    turned = m.add(m.neg(m.add(x, y)), m.add(x, m.add(y, z)))
    assert torch.allclose(m.dist0(turned), m.dist0(z), rtol=1e-6, atol=1e-7 * unit(m))


@quick
@given(names, curvatures, dims, seeds, st.floats(-2, 2), st.floats(-2, 2))
def test_scaling_is_a_one_parameter_group(name, c, d, seed, r, s):
    m = make(name, c)
    (x,) = points(m, seed, 8, d, spread=0.7)
    assert torch.allclose(m.dist0(m.scale(r, x)), abs(r) * m.dist0(x), rtol=1e-11, atol=1e-15 * unit(m))
    assert apart(m, m.scale(r, m.scale(s, x)), m.scale(r * s, x)) < 1e-10
    assert apart(m, m.add(m.scale(r, x), m.scale(s, x)), m.scale(r + s, x)) < 1e-8


@quick
@given(curvatures, dims, seeds)
def test_the_two_charts_agree_on_every_operation(c, d, seed):
    ball, hyperboloid = make("poincare", c), make("lorentz", c)
    x, y, z = points(ball, seed, 8, d, 3, spread=1.0)
    X, Y, Z = (poincare_to_lorentz(p, c) for p in (x, y, z))

    def same(ours, theirs):
        return apart(hyperboloid, poincare_to_lorentz(ours, c), theirs) < 1e-8

    hyperboloid.check(X)
    assert apart(ball, lorentz_to_poincare(X, c), x) < 1e-9
    assert torch.allclose(ball.dist(x, y), hyperboloid.dist(X, Y), rtol=1e-11)
    assert torch.allclose(ball.to_tangent(x), hyperboloid.to_tangent(X), rtol=1e-11)
    assert torch.allclose(ball.cdist(x, y), hyperboloid.cdist(X, Y), rtol=1e-8)
    assert same(ball.add(x, y), hyperboloid.add(X, Y))
    assert same(ball.scale(0.3, x), hyperboloid.scale(0.3, X))
    assert same(ball.geodesic(0.3, x, y), hyperboloid.geodesic(0.3, X, Y))
    assert same(ball.centroid(x), hyperboloid.centroid(X))
    u, U = ball.logmap(x, z), hyperboloid.logmap(X, Z)
    moved, MOVED = ball.transp(x, y, u), hyperboloid.transp(X, Y, U)
    assert same(ball.expmap(y, moved), hyperboloid.expmap(Y, MOVED))


@quick
@given(curvatures, curvatures, dims, seeds)
def test_rescaling_curvature_keeps_dimensionless_distances_and_inverts(c1, c2, d, seed):
    for name in CURVED:
        here, there = make(name, c1), make(name, c2)
        x, y = points(here, seed, 8, d, 2)
        a, b = rescale_curvature(x, c1, c2), rescale_curvature(y, c1, c2)
        there.check(a)
        assert torch.allclose(there.dist(a, b) * c2**0.5, here.dist(x, y) * c1**0.5, rtol=1e-9)
        assert torch.allclose(rescale_curvature(a, c2, c1), x, rtol=1e-15, atol=0)


@quick
@given(names, curvatures, dims, seeds)
def test_centroid_commutes_with_isometries_and_minimises_its_energy(name, c, d, seed):
    m = make(name, c)
    x, (base,) = points(m, seed, 9, d)[0], points(m, seed + 1, 1, d)
    w = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mid = m.centroid(x, w)
    moved = m.centroid(m.add(base, x), w)
    assert apart(m, moved, m.add(base, mid)[0]) < 1e-8
    root = 1 / unit(m)

    def energy(
        p,
    ):  # of which the centroid is the minimiser: squared chords in Minkowski, squares in flat space
        dist = m.dist(p, x)
        return (w * (dist**2 if name == "euclidean" else (root * dist / 2).sinh() ** 2)).sum()

    nudges = m.from_tangent(1e-3 * unit(m) * torch.eye(d, dtype=torch.float64))
    assert all(energy(m.add(mid, n)) > energy(mid) for n in nudges)


@pytest.mark.parametrize("name", CURVED)
def test_small_curvature_is_flat_space(name):
    """In coordinates the ball's metric is 4 times the flat one at c = 0, so that its dist is 2|x - y|."""
    m, flat = make(name, 1e-10), make("euclidean")
    v, w = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = m.from_tangent(v), m.from_tangent(w)
    assert torch.allclose(m.dist(x, y), flat.dist(v, w), rtol=1e-8)
    assert torch.allclose(m.to_tangent(m.add(x, y)), v + w, rtol=1e-7)
    assert torch.allclose(m.to_tangent(m.centroid(x)), flat.centroid(v), atol=1e-8)
    if name == "poincare":
        assert torch.allclose(m.dist(v, w), 2 * flat.dist(v, w), rtol=1e-8)
        assert torch.allclose(m.expmap(v, w), v + w, rtol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_cdist_is_dist_of_all_pairs_with_batches(name):
    m = make(name, 0.7)
    x, y = points(m, 0, 5, 3)[0].expand(2, 5, -1), points(m, 1, 4, 3)[0]
    expected = m.dist(x[..., :, None, :], y[..., None, :, :])
    assert torch.allclose(m.cdist(x, y), expected, rtol=1e-10)
    assert torch.allclose(m.cdist(x, y, exact=True), expected, rtol=1e-12)
    assert m.cdist(x.float(), y.float()).dtype == torch.float32


@pytest.mark.parametrize("name", ALL)
def test_random_points_have_the_stated_distribution(name):
    m = make(name, 2.0)
    g = torch.Generator().manual_seed(0)
    x = m.random(4000, 3, std=0.5, generator=g, dtype=torch.float64)
    assert torch.allclose(m.to_tangent(x).std(0), torch.full((3,), 0.5, dtype=torch.float64), rtol=0.05)
    y = m.random(4000, 3, radius=2.0, generator=g)
    assert y.dtype == torch.get_default_dtype()
    assert 0.95 < float(m.dist0(y).mean()) < 1.05
    assert float(m.dist0(y).max()) < 2.0001
    assert m.random(3, 5).shape == (3, m.ambient_dim(5))


def test_factor_two_law():
    ball, hyperboloid = make("poincare", 0.6), make("lorentz", 0.6)
    v = torch.randn(5, 3, dtype=torch.float64)
    ambient = torch.cat([torch.zeros(5, 1, dtype=torch.float64), v], -1)
    assert torch.allclose(ball.dist0(ball.expmap0(v)), 2 * v.norm(dim=-1))
    assert torch.allclose(hyperboloid.dist0(hyperboloid.expmap0(ambient)), v.norm(dim=-1))
    same_point = poincare_to_lorentz(ball.expmap0(v / 2), 0.6)
    assert torch.allclose(same_point, hyperboloid.expmap0(ambient))
