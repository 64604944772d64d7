"""Reconstruction against a naive count, scikit-learn, and embeddings whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from workbench.errors import ManifoldError, ParameterError
from workbench.evaluation import rank_pairs, reconstruction
from workbench.manifolds import make

SPACES = ["euclidean", "poincare", "lorentz"]


def cloud(manifold, n, dim, radius, seed):
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(n, dim, generator=g, dtype=torch.float64)
    v = v / v.norm(dim=-1, keepdim=True) * radius * torch.rand(n, 1, generator=g, dtype=torch.float64).sqrt()
    return manifold.from_tangent(v)


def some_pairs(n, count, seed):
    pairs = torch.randint(0, n, (count, 2), generator=torch.Generator().manual_seed(seed))
    return pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0)


def distances(points, manifold):
    """All distances one row at a time by the elementwise form: the oracle has no matrix product."""
    return torch.stack([manifold.dist(p, points) for p in points]).numpy()


def naive(distance, closure):
    """Textbook double loop; ties in rank count half, average precision is scikit-learn's."""
    precisions, ranks = [], []
    for u in np.unique(closure[:, 1]):
        label = np.zeros(len(distance))
        label[closure[closure[:, 1] == u, 0]] = 1
        others = np.arange(len(distance)) != u
        rivals = others & (label == 0)
        for v in np.flatnonzero(label):
            closer = (distance[u, rivals] < distance[u, v]).sum()
            ranks.append(1 + closer + 0.5 * (distance[u, rivals] == distance[u, v]).sum())
        precisions.append(average_precision_score(label[others], -distance[u, others]))
    return np.mean(precisions), np.mean(ranks)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(SPACES),
    radius=st.sampled_from([1e-6, 0.5, 5.0, 12.0]),
    dim=st.integers(1, 6),
    chunk=st.sampled_from([None, 1, 7]),
    seed=st.integers(0, 1000),
)
def test_equals_a_naive_count_in_every_space(name, radius, dim, chunk, seed):
    manifold = make(name)
    points, closure = cloud(manifold, 30, dim, radius, seed), some_pairs(30, 60, seed)
    found = reconstruction(points, manifold, closure, chunk=chunk)
    average_precision, rank = naive(distances(points, manifold), closure.numpy())
    assert found.map == pytest.approx(average_precision, abs=1e-12)
    assert found.mean_rank == pytest.approx(rank, abs=1e-12)
    assert (found.n_sources, found.n_pairs) == (len(closure[:, 1].unique()), len(closure))


@pytest.mark.parametrize("name", ["poincare", "lorentz"])
@pytest.mark.parametrize("curvature", [0.3, 4.0])
def test_curvature_is_the_manifolds_own(name, curvature):
    manifold = make(name, c=curvature)
    points, closure = cloud(manifold, 40, 3, 4.0, seed=1), some_pairs(40, 80, seed=1)
    found = reconstruction(points, manifold, closure)
    assert (found.map, found.mean_rank) == pytest.approx(naive(distances(points, manifold), closure.numpy()))


@pytest.mark.parametrize("name", ["poincare", "lorentz"])
def test_close_pairs_far_out_keep_their_order(name):
    """Distances near 0.01 at radius 14: the matrix product alone has no digit of them left."""
    manifold = make(name)
    angle = torch.full((200,), 0.7, dtype=torch.float64) + 1e-8 * torch.rand(
        200, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    points = manifold.from_tangent(14.0 * torch.stack([angle.cos(), angle.sin()], -1))
    closure = some_pairs(200, 300, seed=2)
    found = reconstruction(points, manifold, closure)
    assert (found.map, found.mean_rank) == pytest.approx(naive(distances(points, manifold), closure.numpy()))


def test_float32_points_are_compared_in_float64():
    for name in SPACES:
        manifold = make(name)
        points, closure = cloud(manifold, 50, 3, 6.0, seed=3).float(), some_pairs(50, 100, seed=3)
        assert reconstruction(points, manifold, closure) == reconstruction(points.double(), manifold, closure)


@pytest.mark.parametrize("name", SPACES)
def test_a_collapsed_embedding_scores_like_chance(name):
    manifold, n = make(name), 101
    points = manifold.from_tangent(torch.full((n, 2), 0.3, dtype=torch.float64))
    closure = torch.stack([torch.zeros(n - 1, dtype=torch.int64), torch.arange(1, n)], -1)
    found = reconstruction(points, manifold, closure)
    assert found.map == pytest.approx(1 / (n - 1))  # every node tied with the one ancestor
    assert found.mean_rank == pytest.approx(1 + (n - 2) / 2)


def test_a_perfect_embedding_scores_one():
    """A chain on a line with shrinking steps: seen from the wide end the next node is always nearest."""
    position = torch.cumsum(torch.arange(10, 0, -1, dtype=torch.float64), 0)
    points = torch.stack([-position, torch.zeros(10, dtype=torch.float64)], -1)
    closure = torch.tensor([[i + 1, i] for i in range(9)])
    found = reconstruction(points, make("euclidean"), closure)
    assert (found.map, found.mean_rank) == (1.0, 1.0)
    assert reconstruction(points, make("euclidean"), closure.flip(1)).map < 0.7  # back along the wide steps


def test_other_ancestors_do_not_compete_and_neither_does_the_source():
    points = torch.tensor([[0.0], [1.0], [2.0], [3.5]], dtype=torch.float64)
    ranks = rank_pairs(points, make("euclidean"), torch.tensor([[1, 0], [2, 0]]))
    assert ranks.rank.tolist() == [1.0, 1.0]
    assert ranks.precision.tolist() == [1.0, 1.0]
    alone = rank_pairs(points, make("euclidean"), torch.tensor([[2, 0]]), excluded=torch.tensor([[1, 0]]))
    assert alone.rank.tolist() == [1.0]


def test_a_subset_of_sources_is_the_same_computation():
    manifold = make("lorentz")
    points, closure = cloud(manifold, 80, 4, 4.0, seed=4), some_pairs(80, 200, seed=4)
    chosen = closure[:, 1].unique()[:7]
    found = reconstruction(points, manifold, closure, sources=chosen)
    rows = closure[torch.isin(closure[:, 1], chosen)]
    assert found == reconstruction(points, manifold, rows)
    drawn = reconstruction(points, manifold, closure, sources=9, seed=5)
    assert drawn.n_sources == 9
    assert drawn == reconstruction(points, manifold, closure, sources=9, seed=5)
    assert drawn != reconstruction(points, manifold, closure, sources=9, seed=6)


def test_repeated_pairs_count_once_and_numpy_is_welcome():
    manifold = make("poincare")
    points, closure = cloud(manifold, 40, 2, 3.0, seed=7), some_pairs(40, 60, seed=7)
    twice = torch.cat([closure, closure]).numpy()
    assert reconstruction(points.numpy(), manifold, twice) == reconstruction(points, manifold, closure)


def test_bad_input_is_one_sentence():
    manifold = make("poincare")
    points, closure = cloud(manifold, 10, 2, 2.0, seed=8), some_pairs(10, 20, seed=8)
    holed = points.clone()
    holed[3] = torch.nan
    with pytest.raises(ManifoldError, match="1 of 10"):
        reconstruction(holed, manifold, closure)
    with pytest.raises(ManifoldError, match="table"):
        reconstruction(points[None], manifold, closure)
    with pytest.raises(ParameterError, match="empty"):
        reconstruction(points, manifold, closure[:0])
    with pytest.raises(ParameterError, match="index the 10 points"):
        reconstruction(points, manifold, torch.tensor([[10, 0]]))
    with pytest.raises(ParameterError, match="itself"):
        reconstruction(points, manifold, torch.tensor([[2, 2]]))
    with pytest.raises(ParameterError, match="shape"):
        reconstruction(points, manifold, closure.T)
    with pytest.raises(ParameterError, match="descendants"):
        reconstruction(points, manifold, torch.tensor([[0, 1]]), sources=torch.tensor([5]))
    with pytest.raises(ParameterError, match="positive"):
        reconstruction(points, manifold, closure, sources=0)
