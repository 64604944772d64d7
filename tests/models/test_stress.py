"""Embeddings of distances: exact where one exists, never worse than their start, honest about bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from workbench.data import trees
from workbench.errors import ParameterError
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, distortion
from workbench.models import sarkar, spectral_embedding, stress, stress_embedding

SPACES = [Euclidean(), PoincareBall(1.0), PoincareBall(0.25), Lorentz(2.0)]
every_space = pytest.mark.parametrize("manifold", SPACES, ids=repr)


def distances_of(h) -> torch.Tensor:
    return torch.from_numpy(np.array(h.graph_distances()))


def cloud(manifold, n=20, dim=3, seed=0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return manifold.random(n, dim, generator=rng, dtype=torch.float64)


@every_space
def test_distances_of_points_of_the_space_are_embedded_exactly_by_the_spectrum(manifold):
    x = cloud(manifold)
    # The eigenvectors put the mean at the origin of flat space; in curved space the frame is free as well.
    d = manifold.cdist(x, x, exact=True).fill_diagonal_(0)
    found = spectral_embedding(d, manifold, 3)
    assert found.shape == x.shape
    if manifold.name == "euclidean":
        assert torch.allclose(manifold.cdist(found, found, exact=True), d, atol=1e-7)
    else:  # exact only if the time axis is the top eigenvector: refined, it is
        refined = stress_embedding(d, manifold, 3, steps=400)
        assert distortion(manifold.cdist(refined, refined), d).average < 2e-3


@every_space
def test_stress_is_the_mean_square_of_relative_errors_over_pairs(manifold):
    x = cloud(manifold, n=7)
    d = torch.rand(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1
    d = (d + d.T).fill_diagonal_(0)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    naive = np.mean([(float(manifold.dist(x[i], x[j]) / d[i, j]) - 1) ** 2 for i, j in pairs])
    assert float(stress(x, manifold, d)) == pytest.approx(naive, rel=1e-12)


@every_space
def test_the_gradient_of_stress_is_that_of_finite_differences(manifold):
    d = distances_of(trees.random_recursive(6, seed=3))
    v = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def value(flat):
        points = manifold.from_tangent(torch.from_numpy(flat).reshape(6, 2))
        return float(stress(points, manifold, d))

    u = v.clone().requires_grad_()
    stress(manifold.from_tangent(u), manifold, d).backward()
    numeric = approx_fprime(v.numpy().ravel(), value, 1e-6)
    assert np.allclose(u.grad.numpy().ravel(), numeric, atol=1e-6)


@every_space
def test_a_descent_ends_below_each_of_its_starts(manifold):
    d = distances_of(trees.random_recursive(24, seed=0))
    starts = [spectral_embedding(d, manifold, 2), cloud(manifold, n=24, dim=2)]
    found = stress_embedding(d, manifold, 2, starts=starts[1:], steps=40)
    assert manifold.check(found).dtype == torch.float64
    assert all(float(stress(found, manifold, d)) < float(stress(s, manifold, d)) for s in starts)


def test_a_star_of_four_in_the_plane_reaches_the_known_optimum_of_flat_space():
    # Four leaves at distance 2 from one another do not fit around a centre in the plane: by symmetry they
    # form a square of half-diagonal r, with stress (4 (r-1)² + 4 (r√2/2 - 1)² + 2 (r-1)²)/10.
    d = distances_of(trees.balanced(4, 1))
    r = np.linspace(0.8, 1.6, 100_001)
    best = ((6 * (r - 1) ** 2 + 4 * (r / np.sqrt(2) - 1) ** 2) / 10).min()
    found = stress_embedding(d, Euclidean(), 2, restarts=3)
    assert float(stress(found, Euclidean(), d)) == pytest.approx(best, rel=1e-5)


def test_refining_sarkars_points_of_a_tree_beats_flat_space_of_the_same_dimension():
    h = trees.balanced(2, 4)
    d, ball = distances_of(h), PoincareBall(4.0)
    curved = stress_embedding(d, ball, 2, starts=[sarkar(h, tau=1.0, manifold=ball)], steps=80)
    flat = stress_embedding(d, Euclidean(), 2, restarts=2, steps=200)
    assert float(stress(curved, ball, d)) < 0.2 * float(stress(flat, Euclidean(), d))


def test_the_same_arguments_give_the_same_points():
    d = distances_of(trees.random_recursive(15, seed=5))
    one, two = (stress_embedding(d, PoincareBall(), 2, restarts=1, steps=20, seed=4) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("distances", "dim", "words"),
    [
        (torch.ones(3, 4), 2, "square"),
        (torch.zeros(3, 3), 2, "positive"),
        (torch.tensor([[0.0, 1, 2], [1, 0, 1], [3, 1, 0]]), 2, "symmetric"),
        (torch.ones(3, 3).fill_diagonal_(0), 3, "dim must be a number from 1 to 2"),
        (1000 * torch.ones(3, 3).fill_diagonal_(0), 2, "at most 300"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_the_reason(distances, dim, words):
    with pytest.raises(ParameterError, match=words):
        stress_embedding(distances, PoincareBall(), dim)


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ParameterError, match="shape"):
        stress_embedding(torch.ones(4, 4).fill_diagonal_(0), Euclidean(), 2, starts=[torch.zeros(4, 3)])
