"""All distances from one matrix product: against mpmath and the manifolds' own distance, in every chart."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.manifolds import make
from workbench.manifolds.chords import capped, from_spatial, sides, spatial, squared_distance

SPACES = [("euclidean", 1.0), ("poincare", 0.3), ("lorentz", 0.3), ("lorentz", 1.0), ("lorentz", 7.0)]


def draw(manifold, n, seed, radius=3.0, dim=5):
    generator = torch.Generator().manual_seed(seed)
    return manifold.random(n, dim, radius=radius, generator=generator, dtype=torch.float64)


def products(manifold, x, y):
    return sides(manifold, spatial(manifold, x))[0] @ sides(manifold, spatial(manifold, y))[1].mT


@pytest.mark.parametrize("space, c", SPACES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.sampled_from([1e-4, 0.1, 3.0]))
def test_the_squared_distance_from_a_product_is_that_of_the_manifold(space, c, seed, radius):
    manifold = make(space, c)
    x, y = draw(manifold, 6, seed, radius), draw(manifold, 7, seed + 1, radius)
    expected = manifold.dist2(x[:, None], y[None])
    found = squared_distance(manifold, products(manifold, x, y))
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-13 * radius**2 * math.exp(2 * c**0.5 * radius))


def test_q_is_half_the_squared_lorentzian_distance_of_mpmath():
    manifold = make("lorentz", 0.7)
    x, y = draw(manifold, 3, 0), draw(manifold, 4, 1)
    q = products(manifold, x, y)
    with mpmath.workdps(50):
        for i, a in enumerate(x.tolist()):
            for j, b in enumerate(y.tolist()):
                s, t = ([mpmath.mpf(v) for v in p[1:]] for p in (a, b))
                time = [mpmath.sqrt(1 / mpmath.mpf(0.7) + mpmath.fdot(v, v)) for v in (s, t)]
                minkowski = mpmath.fdot(s, t) - time[0] * time[1]
                assert abs(float(-1 / mpmath.mpf(0.7) - minkowski) - float(q[i, j])) < 1e-11


def test_distances_in_float32_are_good_up_to_radius_four():
    manifold = make("lorentz")
    x, y = draw(manifold, 200, 0, 4.0), draw(manifold, 200, 1, 4.0)
    left, right = (sides(manifold, spatial(manifold, p))[k].float() for k, p in enumerate((x, y)))
    found = squared_distance(manifold, left @ right.mT)
    assert (found - manifold.cdist(x, y).square()).abs().max() < 2e-3


@pytest.mark.parametrize("space, c", SPACES)
def test_spatial_coordinates_go_there_and_back(space, c):
    manifold = make(space, c)
    x = draw(manifold, 20, 0)
    assert torch.allclose(from_spatial(manifold, spatial(manifold, x)), x, rtol=1e-12, atol=1e-14)
    size = spatial(manifold, x).norm(dim=-1)
    r = manifold.dist0(x)
    expected = r if space == "euclidean" else (r * c**0.5).sinh() / c**0.5
    assert torch.allclose(size, expected, rtol=1e-12)


def test_the_gradient_of_the_squared_distance_is_right_and_two_at_zero():
    manifold = make("lorentz", 0.6, learnable=True)
    q = torch.tensor([1e-3, 0.1, 2.0, 40.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, log_c: _of(manifold, q), (q, manifold.log_c), atol=1e-6)
    zero = torch.tensor([0.0, -1e-9], requires_grad=True)
    value = squared_distance(manifold, zero)
    value.sum().backward()
    assert value.abs().max() < 1e-25
    assert torch.allclose(zero.grad, torch.full((2,), 2.0))
    assert manifold.log_c.grad is None or manifold.log_c.grad.isfinite()


def _of(manifold, q):
    return squared_distance(manifold, q)


@pytest.mark.parametrize("space, c", SPACES)
def test_the_cap_keeps_directions_and_bounds_radii(space, c):
    manifold = make(space, c)
    v = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    w = capped(manifold, v, 4.0)
    assert torch.allclose(torch.nn.functional.cosine_similarity(v, w), torch.ones(50, dtype=torch.float64))
    if space == "euclidean":
        assert torch.equal(v, w)
    else:
        assert torch.allclose(w.norm(dim=-1), 4 / c**0.5 * torch.tanh(c**0.5 * v.norm(dim=-1) / 4))
        assert torch.equal(capped(manifold, v, 0), v)
        small = 1e-3 * v / v.norm(dim=-1, keepdim=True)
        assert torch.allclose(capped(manifold, small, 4.0), small, rtol=1e-6)
