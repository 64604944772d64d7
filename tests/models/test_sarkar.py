"""Sarkar's construction: edges exact, distances within the theorem's factor, everything inside the chart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import Hierarchy, trees, wordnet
from workbench.errors import ParameterError
from workbench.evaluation import reconstruction
from workbench.manifolds import Euclidean, Lorentz, PoincareBall
from workbench.models.sarkar import MAX_RADIUS, sarkar, spherical_code

BALL = PoincareBall()


def ratios(h, points, tau, manifold=BALL):
    """Embedded over graph distance of all pairs, by the elementwise distance; edges have length tau."""
    graph = torch.tensor(np.array(h.graph_distances()))
    embedded = torch.stack([manifold.dist(p, points) for p in points])
    return (embedded / tau / graph)[~torch.eye(len(h), dtype=bool)]


def edge_lengths(h, points, manifold=BALL):
    parent = torch.tensor(np.array(h.spanning_tree()))
    child = (parent >= 0).nonzero().squeeze(1)
    return manifold.dist(points[child], points[parent[child]])


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(2, 40),
    seed=st.integers(0, 100),
    dim=st.sampled_from([2, 3, 6]),
    tau=st.floats(0.1, 0.9),
    weighted=st.booleans(),
)
def test_every_edge_has_length_tau_and_no_pair_is_stretched(n, seed, dim, tau, weighted):
    h = trees.random_recursive(n, seed)
    points = sarkar(h, dim, tau, weighted=weighted, seed=seed)
    assert points.shape == (n, dim)
    assert points.dtype == torch.float64
    torch.testing.assert_close(edge_lengths(h, points), torch.full((n - 1,), tau, dtype=torch.float64))
    assert ratios(h, points, tau).max() <= 1 + 1e-9


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("branching", [2, 3])
def test_worst_distortion_falls_with_tau_as_the_theorem_says(dim, branching):
    """A path with angles ≥ θ loses 2 log(1/sin(θ/2)) + O(e^−τ) at each: contraction ≥ 1 − loss/τ."""
    h = trees.balanced(branching, 4)
    code = spherical_code(branching + 1, dim) if dim > 2 else None
    angle = (
        np.arccos((code @ code.T - 3 * np.eye(len(code))).max()) if dim > 2 else 2 * np.pi / (branching + 1)
    )
    loss = 2 * np.log(1 / np.sin(angle / 2))
    worst = []
    for tau in (1.5, 2.5, 4.0, 6.0):
        ratio = ratios(h, sarkar(h, dim, tau, weighted=False), tau)
        worst.append(float(ratio.max() / ratio.min()))
        assert ratio.min() >= 1 - (loss + 3 * np.exp(-tau)) / tau
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] <= 1 / (1 - loss / 6.0) + 1e-3


def test_a_chain_is_a_straight_geodesic_and_a_star_is_symmetric():
    chain = trees.caterpillar(6, 0)
    points = sarkar(chain, 2, 1.0)
    graph = torch.tensor(np.array(chain.graph_distances()))
    torch.testing.assert_close(torch.stack([BALL.dist(p, points) for p in points]), graph.double())
    star = trees.balanced(7, 1)
    for weighted in (True, False):
        leaves = sarkar(star, 2, 2.0, weighted=weighted)[1:]
        gaps = BALL.dist(leaves, leaves.roll(1, 0))
        torch.testing.assert_close(gaps, gaps[:1].expand(7))


@pytest.mark.parametrize("curvature", [0.25, 4.0])
def test_charts_and_curvatures_hold_the_same_tree(curvature):
    h = trees.random_recursive(60, 3)
    ball, lorentz = PoincareBall(curvature), Lorentz(curvature)
    in_ball, on_sheet = (sarkar(h, 4, 0.8, manifold=m) for m in (ball, lorentz))
    assert on_sheet.shape == (60, 5)
    torch.testing.assert_close(ball.to_tangent(in_ball), lorentz.to_tangent(on_sheet))
    torch.testing.assert_close(edge_lengths(h, in_ball, ball), torch.full((59,), 0.8, dtype=torch.float64))
    unit = sarkar(h, 4, 0.8 * curvature**0.5)
    torch.testing.assert_close(unit, in_ball * curvature**0.5)


@pytest.mark.parametrize("lengths", ["equal", "size"])
@pytest.mark.parametrize("dim", [2, 3])
def test_left_to_itself_it_fills_the_chart_and_stays_inside(lengths, dim):
    for h in (trees.balanced(2, 7), trees.random_recursive(300, 1), trees.caterpillar(18, 3)):
        points = sarkar(h, dim, lengths=lengths)
        radius = BALL.dist0(points)
        assert torch.isfinite(points).all()
        assert 0.75 * MAX_RADIUS < radius.max() <= MAX_RADIUS * (1 + 1e-5)
        assert points.norm(dim=-1).max() < 1
        if lengths == "equal":
            torch.testing.assert_close(
                *torch.broadcast_tensors(e := edge_lengths(h, points), e[0]), rtol=1e-3, atol=0
            )


def test_a_forest_hangs_from_the_origin_and_a_dag_keeps_its_spanning_tree():
    forest = Hierarchy.from_edges([("a", "b"), ("c", "d"), ("e", "f")])
    points = sarkar(forest, 2, 1.0)
    radius = BALL.dist0(points)
    torch.testing.assert_close(
        radius[torch.tensor(np.array(forest.roots))], torch.ones(3, dtype=torch.float64)
    )
    torch.testing.assert_close(edge_lengths(forest, points), torch.ones(3, dtype=torch.float64))
    diamond = Hierarchy.from_edges([("r", "a"), ("r", "b"), ("a", "x"), ("b", "x")])
    points = sarkar(diamond, 3, 1.0)
    torch.testing.assert_close(edge_lengths(diamond, points), torch.ones(3, dtype=torch.float64))


def test_sizes_put_ancestors_before_siblings():
    h = wordnet.subtree("mammal.n.01")
    closure = np.array(h.closure())
    for dim in (2, 10):
        equal, size = (reconstruction(sarkar(h, dim, lengths=k), BALL, closure) for k in ("equal", "size"))
        assert size.map > 0.5 > 0.4 > equal.map
        assert size.mean_rank < 15 < equal.mean_rank


@pytest.mark.parametrize(
    ("m", "dim", "degrees"), [(4, 3, 109.4), (6, 3, 89.9), (12, 3, 55), (24, 3, 38), (40, 10, 70)]
)
def test_spherical_codes_are_well_apart(m, dim, degrees):
    """Best known in three dimensions: 109.47, 90, 63.4 and 43.7 degrees for 4, 6, 12 and 24 points."""
    code = spherical_code(m, dim)
    np.testing.assert_allclose(np.linalg.norm(code, axis=1), 1)
    assert np.degrees(np.arccos((code @ code.T - 3 * np.eye(m)).max())) > degrees


def test_a_single_node_sits_at_the_origin():
    alone = trees.balanced(2, 0)
    assert sarkar(alone).tolist() == [[0.0, 0.0]]


def test_wrong_input_is_one_sentence():
    h = trees.balanced(2, 5)
    for dim in (1, 2.0, True):
        with pytest.raises(ParameterError, match="at least 2"):
            sarkar(h, dim)
    for tau in (0.0, -1.0, float("nan")):
        with pytest.raises(ParameterError, match="positive length"):
            sarkar(h, 2, tau)
    with pytest.raises(ParameterError, match="within radius 30"):
        sarkar(h, 2, 9.0)
    with pytest.raises(ParameterError, match="flat"):
        sarkar(h, 2, manifold=Euclidean())
    with pytest.raises(ParameterError, match="'size'"):
        sarkar(h, 2, lengths="golden")
    with pytest.raises(ParameterError, match="Hierarchy"):
        sarkar([[0, 1]])
