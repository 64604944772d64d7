"""Depth correlation and tree distortion against scipy, networkx and embeddings whose answer is known."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from workbench.data import Hierarchy, trees
from workbench.errors import ParameterError
from workbench.evaluation import depth_correlation, tree_distortion
from workbench.manifolds import Euclidean, PoincareBall, make
from workbench.models.sarkar import sarkar

BALL = PoincareBall()


@pytest.mark.parametrize("name", ["euclidean", "poincare", "lorentz"])
def test_depth_correlation_is_spearmans(name):
    manifold = make(name)
    v = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    depth = np.arange(50) // 7
    found = depth_correlation(manifold.from_tangent(v), manifold, depth)
    assert found == pytest.approx(spearmanr(v.norm(dim=-1).numpy(), depth).statistic)
    assert depth_correlation(manifold.from_tangent(v * 0 + 0.1), manifold, depth) == 0.0


def test_depth_is_read_off_a_tree_embedding_whatever_its_position():
    h = trees.balanced(2, 5)
    points = sarkar(h, 3, 3.0)
    assert depth_correlation(points, BALL, h.depth) > 0.9
    moved = BALL.translate_to_origin(points, points[-1])
    assert depth_correlation(moved, BALL, h.depth) < 0.7
    root = int(h.roots[0])
    assert depth_correlation(moved, BALL, h.depth, centre=root) == pytest.approx(
        depth_correlation(points, BALL, h.depth, centre=root), abs=1e-3
    )


def test_distortion_equals_all_pairs_of_networkx():
    h = trees.random_recursive(40, 1)
    points = sarkar(h, 2, 1.3)
    found = tree_distortion(points, BALL, h, scale=1 / 1.3)
    graph = dict(nx.all_pairs_shortest_path_length(h.to_networkx().to_undirected()))
    key = {i: node for i, node in enumerate(h.to_networkx().nodes)}
    ratio = np.array(
        [
            float(BALL.dist(points[i], points[j])) / 1.3 / graph[key[i]][key[j]]
            for i in range(40)
            for j in range(i)
        ]
    )
    assert found.average == pytest.approx(np.abs(ratio - 1).mean())
    assert found.worst == pytest.approx(ratio.max() / ratio.min())
    assert (found.n_pairs, found.n_sources) == (40 * 39 // 2, 40)
    best = tree_distortion(points, BALL, h)
    assert best.average <= found.average
    assert best.worst == pytest.approx(found.worst)


def test_a_tree_in_the_plane_is_nearly_exact_when_hyperbolic_and_never_when_flat():
    h = trees.balanced(3, 4)
    curved = tree_distortion(sarkar(h, 2, 7.0), BALL, h)
    assert curved.average < 0.03
    assert curved.neighbour_map == pytest.approx(1.0)
    flat = Euclidean()
    line = torch.linspace(0, 1, len(h), dtype=torch.float64)
    drawn = torch.stack([line.cos(), line.sin()], -1)
    found = tree_distortion(drawn, flat, h)
    assert found.worst > 10 * curved.worst
    assert found.neighbour_map < 0.5


def test_sampled_sources_are_rows_of_the_whole():
    h = trees.random_recursive(120, 5)
    points = sarkar(h, 3, 1.0)
    every = tree_distortion(points, BALL, h, scale=1.0)
    rows = [tree_distortion(points, BALL, h, np.array([i]), scale=1.0) for i in range(len(h))]
    assert np.mean([r.average for r in rows]) == pytest.approx(every.average)
    assert np.mean([r.neighbour_map for r in rows]) == pytest.approx(every.neighbour_map)
    drawn = tree_distortion(points, BALL, h, 10, seed=3)
    assert drawn == tree_distortion(points, BALL, h, 10, seed=3)
    assert drawn.n_sources == 10


def test_nodes_without_a_path_are_left_out():
    h = Hierarchy.from_edges([("a", "b"), ("c", "d")])
    found = tree_distortion(sarkar(h, 2, 1.0), BALL, h, scale=1.0)
    assert found.n_pairs == 2
    assert found.average == pytest.approx(0, abs=1e-9)


def test_bad_input_is_one_sentence():
    h = trees.balanced(2, 3)
    points = sarkar(h, 2, 1.0)
    with pytest.raises(ParameterError, match="one number a point"):
        depth_correlation(points, BALL, h.depth[1:])
    with pytest.raises(ParameterError, match="same everywhere"):
        depth_correlation(points, BALL, np.zeros(len(h)))
    with pytest.raises(ParameterError, match="centre"):
        depth_correlation(points, BALL, h.depth, centre=99)
    with pytest.raises(ParameterError, match="one a node"):
        tree_distortion(points[1:], BALL, h)
    with pytest.raises(ParameterError, match="positive"):
        tree_distortion(points, BALL, h, 0)
    with pytest.raises(ParameterError, match="nodes from 0"):
        tree_distortion(points, BALL, h, np.array([99]))
    with pytest.raises(ParameterError, match="edge"):
        tree_distortion(torch.zeros(1, 2, dtype=torch.float64), BALL, trees.balanced(2, 0))
