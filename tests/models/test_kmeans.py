"""k-means on the three spaces."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import DataError, ManifoldError, ParameterError
from workbench.manifolds import Euclidean, PoincareBall, make
from workbench.models.kmeans import group_centroids, kmeans

SPACES = ("euclidean", "poincare", "lorentz")
quick = settings(max_examples=15, deadline=None)


def blobs(m, seed=0, each=30, spread=0.1):
    """Three groups around points at distance 3 of the origin, and which group each point is of."""
    g = torch.Generator().manual_seed(seed)
    angle = torch.tensor([0.0, 2.1, 4.2], dtype=torch.float64)
    centres = m.from_tangent(3 * torch.stack([angle.cos(), angle.sin()], -1))
    label = torch.arange(3).repeat_interleave(each)
    around = m.from_tangent(torch.randn(len(label), 2, generator=g, dtype=torch.float64) * spread)
    return m.add(centres[label], around), label


@pytest.mark.parametrize("name", SPACES)
def test_separate_groups_are_found_and_their_centroids_are_the_manifolds(name):
    m = make(name)
    x, label = blobs(m)
    centres, index = kmeans(x, m, 3)
    assert len({(int(a), int(b)) for a, b in zip(label, index, strict=True)}) == 3
    for j in range(3):
        assert float(m.dist(centres[j], m.centroid(x[index == j]))) < 1e-9


@quick
@given(st.sampled_from(SPACES), st.integers(1, 12), st.integers(0, 1000))
def test_everyone_is_with_the_nearest_centre_and_no_centre_is_alone(name, k, seed):
    m = make(name)
    x = m.random(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centres, index = kmeans(x, m, k, seed=seed)
    assert torch.equal(index, m.dist(x.unsqueeze(1), centres).argmin(-1))
    assert len(torch.unique(index)) == k


def test_flat_iterations_are_lloyds():
    """An independent Lloyd iteration in numpy, from the same centres, comes to rest where ours did."""
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    centres, index = kmeans(x, Euclidean(), 7, iterations=200)
    c, points = centres.numpy(), x.numpy()
    again = np.square(points[:, None] - c).sum(-1).argmin(1)
    assert (again == index.numpy()).all()
    assert np.allclose(np.stack([points[again == j].mean(0) for j in range(7)]), c, atol=1e-12)


@pytest.mark.parametrize("name", SPACES)
def test_group_centroids_hold_far_from_the_origin(name):
    m = make(name)
    far = m.from_tangent(torch.tensor([12.0, 5.0], dtype=torch.float64))
    v = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.1
    x = m.add(far, m.from_tangent(v))
    index = torch.tensor([0, 0, 0, 1, 1, 1])
    found = group_centroids(x, torch.ones(6, dtype=torch.float64), m, index, x[:2])
    near = m.translate_to_origin(found, far)
    expected = torch.stack([m.centroid(m.from_tangent(v[:3])), m.centroid(m.from_tangent(v[3:]))])
    assert float(m.dist(near, expected).max()) < 1e-3  # one rounding of a point this far is about 1e-5


def test_weights_pull_and_points_of_no_weight_do_not():
    m = PoincareBall()
    x, label = blobs(m)
    w = (label != 2).double()
    centres, _ = kmeans(x, m, 2, weights=w)
    for j in (0, 1):
        assert float(m.dist(m.centroid(x[label == j]), centres).min()) < 1e-9


def test_the_seed_decides():
    m = PoincareBall()
    x = m.random(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, other = kmeans(x, m, 9, seed=4), kmeans(x, m, 9, seed=4), kmeans(x, m, 9, seed=5)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], other[0])


@pytest.mark.parametrize("name", SPACES)
def test_copies_of_one_point_are_no_obstacle(name):
    m = make(name)
    x = m.random(1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).repeat(10, 1)
    centres, index = kmeans(x, m, 4)
    assert torch.isfinite(centres).all()
    assert float(m.dist(x, centres[index]).max()) < 1e-7


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (dict(k=11), DataError, "a codebook of 11 codes needs as many points or more, got 10"),
        (dict(k=0), ParameterError, "k must be a positive whole number, but came as 0"),
        (dict(iterations=0), ParameterError, "iterations must be a positive whole number, but came as 0"),
        (dict(weights=torch.zeros(10)), DataError, "weights must be 10 finite numbers"),
        (dict(points=torch.full((10, 2), torch.nan)), ManifoldError, "NaN or infinity in 10 of 10"),
        (dict(points=torch.ones(10, 2)), ManifoldError, r"c\|x\|² must be below 1"),
        (dict(points=torch.zeros(10)), DataError, r"points of shape \(N, n\)"),
    ],
)
def test_bad_input_is_one_sentence(change, error, says):
    given = dict(points=torch.zeros(10, 2), k=2) | change
    with pytest.raises(error, match=says) as caught:
        kmeans(given.pop("points"), PoincareBall(), given.pop("k"), **given)
    assert "\n" not in str(caught.value)
