"""The trainer's minimal coordinates against the manifolds themselves and autograd."""

import pytest
import torch

from workbench.manifolds import Euclidean, Lorentz, PoincareBall
from workbench.manifolds.pairwise import pairwise

SPACES = [Euclidean(), PoincareBall(), PoincareBall(0.3), Lorentz(), Lorentz(2.5)]
each_space = pytest.mark.parametrize("manifold", SPACES, ids=repr)


def points(manifold, n=12, dim=3, seed=0, std=1.0):
    return manifold.random(
        n, dim, std=std, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@each_space
def test_encode_and_decode_are_inverse(manifold):
    space, x = pairwise(manifold), points(manifold, std=2.0)
    torch.testing.assert_close(space.decode(space.encode(x)), x, rtol=1e-12, atol=1e-14)
    assert space.encode(x).shape == (12, 3)


@each_space
def test_decay_is_the_exponential_of_minus_the_manifolds_distance(manifold):
    space, x, y = pairwise(manifold), points(manifold), points(manifold, seed=1)
    a, b = space.lift(space.encode(x)), space.lift(space.encode(y))
    matrix, _ = space.decay_and_slope(space.all_pairs(a, b))
    torch.testing.assert_close(matrix.double(), torch.exp(-manifold.cdist(x, y)), rtol=2e-5, atol=0)
    row, _ = space.decay_and_slope(space.pairs(a, b))
    torch.testing.assert_close(row, torch.exp(-manifold.dist(x, y)), rtol=1e-11, atol=0)


@each_space
def test_gradient_from_two_matrix_products_is_that_of_autograd(manifold):
    space, x, y = pairwise(manifold), points(manifold), points(manifold, seed=1)
    s, t = space.encode(x), space.encode(y)
    weights = torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    a, b = space.lift(s), space.lift(t)
    _, slope = space.decay_and_slope(space.all_pairs(a, b))
    ours = space.gradient(s, torch.mm(weights * slope.double(), b))
    leaf = s.clone().requires_grad_()
    (weights * manifold.cdist(space.decode(leaf), y, exact=True)).sum().backward()
    torch.testing.assert_close(ours, leaf.grad, rtol=1e-4, atol=1e-5)


@each_space
def test_step_is_the_exponential_map_of_minus_rate_times_the_riemannian_gradient(manifold):
    space, x = pairwise(manifold), points(manifold)
    target = points(manifold, n=1, seed=3)[0]
    leaf = x.clone().requires_grad_()
    manifold.dist(leaf, target).square().sum().backward()
    expected = manifold.expmap(x, -0.01 * manifold.egrad2rgrad(x, leaf.grad))

    s = space.encode(x).requires_grad_()
    manifold.dist(space.decode(s), target).square().sum().backward()
    rate = torch.full((12, 1), 0.01, dtype=torch.float64)
    moved = space.step(s.detach(), s.grad, rate, max_step=1e3, max_radius=100.0)
    torch.testing.assert_close(space.decode(moved), expected, rtol=1e-9, atol=1e-11)


@each_space
def test_step_is_bounded_in_length_and_in_radius(manifold):
    space, x = pairwise(manifold), points(manifold)
    s = space.encode(x)
    g = torch.randn(s.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 1e6
    rate = torch.ones(12, 1, dtype=torch.float64)
    moved = space.decode(space.step(s, g, rate, max_step=0.2, max_radius=100.0))
    torch.testing.assert_close(
        manifold.dist(x, moved), torch.full((12,), 0.2, dtype=torch.float64), rtol=1e-6, atol=0
    )
    inside = space.decode(space.step(s, g, rate, max_step=50.0, max_radius=3.0))
    assert manifold.dist0(inside).max() <= 3.0 + 1e-9


@each_space
def test_coincident_points_and_the_origin_give_finite_steps(manifold):
    space = pairwise(manifold)
    s = torch.zeros(4, 3, dtype=torch.float64)
    a = space.lift(s)
    decay, slope = space.decay_and_slope(space.all_pairs(a, a))
    g = space.gradient(s, torch.mm((decay * slope).double(), a))
    moved = space.step(s, g, torch.ones(4, 1, dtype=torch.float64), 0.5, 10.0)
    assert torch.isfinite(moved).all()


@pytest.mark.parametrize("manifold", [PoincareBall(), PoincareBall(7.0), Lorentz(), Lorentz(0.3)], ids=repr)
def test_steps_without_a_bound_end_on_the_manifold(manifold):
    space = pairwise(manifold)
    s = torch.full((1, 10), 0.1, dtype=torch.float64)
    for _ in range(40):
        outward = -s / s.norm()  # a gradient points uphill
        s = space.step(s, outward, torch.full((1, 1), 1e9, dtype=torch.float64), 20.0, 1e6)
        manifold.check(space.decode(s))
    assert float(manifold.dist0(space.decode(s))) * float(manifold.c) ** 0.5 > 30
