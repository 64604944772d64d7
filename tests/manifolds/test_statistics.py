"""δ-hyperbolicity and distortion against naive code and known values."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ManifoldError
from workbench.manifolds import delta_hyperbolicity, distortion, make


def naive_delta(d, quadruples):
    best = 0.0
    for a, b, c, e in quadruples:
        s = sorted((d[a, b] + d[c, e], d[a, c] + d[b, e], d[a, e] + d[b, c]))
        best = max(best, (s[2] - s[1]) / 2)
    return best


def graph_distances(g):
    return np.array(nx.floyd_warshall_numpy(g))


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 12), st.integers(1, 3), st.integers(0, 1000))
def test_exact_delta_equals_the_maximum_over_all_quadruples(n, d, seed):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    distances = torch.cdist(x, x)
    every = naive_delta(distances.numpy(), combinations(range(n), 4))
    result = delta_hyperbolicity(distances, method="exact")
    assert result.delta == pytest.approx(every, abs=1e-12)
    assert result.relative == pytest.approx(2 * every / float(distances.max()))
    based = naive_delta(distances.numpy(), ((0, *q) for q in combinations(range(1, n), 3)))
    at_base = delta_hyperbolicity(distances, method="base_point").delta
    assert at_base == pytest.approx(based, abs=1e-12)
    assert every / 2 - 1e-12 <= at_base <= every + 1e-12
    sampled = delta_hyperbolicity(distances, method="sampled", samples=2000)
    assert sampled.delta <= every + 1e-12
    assert 0 <= sampled.mean <= sampled.delta + 1e-12  # a mean of equal numbers may round up


@pytest.mark.parametrize("method", ("exact", "base_point", "sampled"))
def test_trees_have_delta_zero_and_cycles_do_not(method):
    tree = graph_distances(nx.balanced_tree(2, 4))
    assert delta_hyperbolicity(tree, method=method).delta == 0
    cycle = delta_hyperbolicity(graph_distances(nx.cycle_graph(12)), method=method)
    assert cycle.delta == 3  # n/4
    assert cycle.relative == 1
    grid = delta_hyperbolicity(graph_distances(nx.grid_2d_graph(5, 5)), method=method)
    assert grid.delta == 4  # side length


def test_hyperbolic_plane_has_delta_log_2_and_less_than_its_null_model():
    ball = make("poincare")
    x = ball.random(60, 2, radius=15.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = delta_hyperbolicity(x, ball, method="exact", null=True)
    assert 0.6 < result.delta <= np.log(2) + 1e-9  # four-point constant of the plane
    assert result.null.n == 60
    assert result.null.method == "exact"
    assert result.relative < 0.3 * result.null.relative
    again = delta_hyperbolicity(x, ball, method="sampled", samples=5000, null=True, seed=3)
    assert again == delta_hyperbolicity(x, ball, method="sampled", samples=5000, null=True, seed=3)
    assert again.delta <= result.delta


def test_curvature_scales_delta():
    v = torch.randn(40, 2, dtype=torch.float64) * 4
    deltas = [delta_hyperbolicity(m.from_tangent(v / c**0.5), m, method="exact").delta * c**0.5
              for c in (0.01, 1.0, 100.0) for m in (make("lorentz", c),)]  # fmt: skip
    assert np.allclose(deltas, deltas[0], rtol=1e-9)


def test_bad_input_is_refused():
    with pytest.raises(ManifoldError, match="'exact'"):
        delta_hyperbolicity(torch.zeros(5, 5), method="exat")
    with pytest.raises(ManifoldError, match="four points"):
        delta_hyperbolicity(torch.zeros(3, 3))
    with pytest.raises(ManifoldError, match="square"):
        delta_hyperbolicity(torch.zeros(5, 2))
    with pytest.raises(ManifoldError, match="symmetric"):
        delta_hyperbolicity(torch.rand(5, 5))
    with pytest.raises(ManifoldError, match="finite"):
        delta_hyperbolicity(torch.full((5, 5), torch.inf))
    with pytest.raises(ManifoldError, match="dim="):
        delta_hyperbolicity(graph_distances(nx.path_graph(5)), null=True)
    with pytest.raises(ManifoldError, match="same pairs"):
        distortion(torch.ones(3, 3), torch.ones(4, 4))
    with pytest.raises(ManifoldError, match="positive"):
        distortion(torch.ones(3), torch.zeros(3))


def test_distortion_of_a_scaled_copy_is_none_and_of_known_ratios_is_known():
    g = torch.tensor(graph_distances(nx.path_graph(6)))
    perfect = distortion(3 * g, g)
    assert perfect.average == pytest.approx(0, abs=1e-15)
    assert perfect.worst == pytest.approx(1)
    assert perfect.scale == pytest.approx(1 / 3)
    pairs = distortion(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 2.0]), scale=1.0)
    assert pairs.average == pytest.approx((0 + 1 + 2) / 3)
    assert (pairs.expansion, pairs.contraction, pairs.worst) == (3.0, 1.0, 3.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12))
def test_best_scale_minimises_the_average(ratios):
    e, g = torch.tensor(ratios, dtype=torch.float64), torch.ones(len(ratios), dtype=torch.float64)
    best = distortion(e, g)
    for factor in np.geomspace(0.05, 200, 60):
        assert best.average <= distortion(e, g, scale=float(factor)).average + 1e-12
