"""Codes against a tree: every number against networkx, scikit-learn or a loop over all pairs."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from workbench.data import Hierarchy, trees
from workbench.errors import DataError, ParameterError
from workbench.evaluation import codes as ev
from workbench.manifolds import Euclidean, PoincareBall
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.models.sarkar import sarkar

BALL = PoincareBall()


def case(seed: int, n: int = 25, size: int = 3, levels: int = 3):
    rng = np.random.default_rng(seed)
    return trees.random_recursive(n, seed), rng.integers(size, size=(n, levels))


def all_pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array(list(combinations(range(n), 2))).T)


@pytest.fixture(scope="module")
def balanced():
    """A ternary tree of depth 6 in the disk, edges of length 1.5, quantised with 16 codes on 3 levels."""
    h = trees.balanced(3, 6)
    x = sarkar(h, 2, 1.5)
    return h, x, ResidualQuantizer(BALL, 2, 3, 16).fit(x)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_lca_and_distance_are_networkx(seed):
    h, _ = case(seed)
    g, names = h.to_networkx(), h.names
    paths, (a, b) = ev.tree_paths(h), all_pairs(len(h))
    lca = dict(nx.tree_all_pairs_lowest_common_ancestor(g))
    lca |= {(v, u): w for (u, v), w in lca.items()}
    expected = [g.nodes[lca[names[i], names[j]]]["depth"] for i, j in zip(a, b, strict=True)]
    assert ev.lca_depth(paths, a, b).tolist() == expected
    steps = dict(nx.all_pairs_shortest_path_length(g.to_undirected()))
    apart = [steps[names[i]][names[j]] for i, j in zip(a, b, strict=True)]
    assert ev.tree_distance(paths, a, b).tolist() == apart
    assert ev.common_ancestor(h, [3, 7, 11]) == h.index(lca[names[3], lca[names[7], names[11]]])


def test_several_roots_meet_at_depth_minus_one():
    h = Hierarchy.from_edges([("a", "b"), ("c", "d")])
    paths = ev.tree_paths(h)
    b, d = h.index("b"), h.index("d")
    assert ev.lca_depth(paths, np.array([b]), np.array([d])).tolist() == [-1]
    assert ev.tree_distance(paths, np.array([b]), np.array([d])).tolist() == [4]
    assert ev.common_ancestor(h, [b, d]) is None and ev.common_ancestor(h, ["b"]) == b


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_depth_by_prefix_equals_the_loop_over_all_pairs(seed):
    h, codes = case(seed)
    paths, (a, b) = ev.tree_paths(h), all_pairs(len(h))
    depth = ev.lca_depth(paths, a, b)
    shared = np.array(
        [next((k for k in range(3) if x[k] != y[k]), 3) for x, y in zip(codes[a], codes[b], strict=True)]
    )
    assert (ev.shared_prefix(codes, a, b) == shared).all()
    found = ev.lca_by_prefix(codes, h)
    assert found.pairs == np.bincount(shared, minlength=4).tolist()
    expected = [depth[shared == k].mean() if (shared == k).any() else np.nan for k in range(4)]
    np.testing.assert_allclose(found.depth, expected, atol=1e-12)
    assert found.random == pytest.approx(depth.mean())
    assert found.lift[0] == pytest.approx((depth[shared >= 1] + 1).mean() / (depth + 1).mean())
    rank = ev.prefix_correlation(codes, h)
    assert rank.pairs == len(a)
    assert rank.lca == pytest.approx(spearmanr(shared, depth).statistic)
    assert rank.distance == pytest.approx(spearmanr(shared, -ev.tree_distance(paths, a, b)).statistic)


def test_codes_that_are_the_path_to_a_leaf_correlate_perfectly():
    h = trees.balanced(3, 4)
    paths = ev.tree_paths(h)
    codes = np.where(paths[h.leaves, 1:] >= 0, (paths[h.leaves, 1:] - 1) % 3, 0)
    leaves = np.array(h.leaves)
    relabelled = Hierarchy.from_edges(h.edges, names=h.names)
    order = np.concatenate([leaves, np.setdiff1d(np.arange(len(h)), leaves)])
    place = np.argsort(order)
    moved = Hierarchy.from_edges(place[relabelled.edges], names=[h.names[i] for i in order])
    assert ev.prefix_correlation(codes, moved).lca == pytest.approx(1)
    found = ev.lca_by_prefix(codes, moved)
    assert found.depth[:4] == [0, 1, 2, 3] and np.isnan(found.depth[4])
    exact = ev.subtree_agreement(codes, moved, 2)
    assert (exact.purity, exact.nmi) == pytest.approx((1, 1)) and exact.shuffled_purity < 0.5


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_nmi_is_scikit_learns_and_purity_a_count(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-2, 6, size=(2, 40)) * [[7], [1]]
    purity, nmi = ev.purity_nmi(a, b)
    assert nmi == pytest.approx(metrics.normalized_mutual_info_score(b, a), abs=1e-9)
    assert purity == pytest.approx(sum(max(np.sum(b[a == k] == v) for v in b) for k in set(a)) / 40)


def test_conditional_entropies_add_up_and_vanish_where_a_level_adds_nothing():
    codes = np.array([[0, 0, 1], [0, 0, 2], [1, 1, 0], [1, 1, 3]])
    assert ev.conditional_entropy(codes) == pytest.approx([np.log(2), 0, np.log(2)])
    assert ev.largest_collision(codes) == 1
    assert ev.largest_collision(codes[:, :2]) == 2


def test_members_and_their_common_ancestors():
    h, codes = case(3)
    found = ev.prefix_ancestors(h, torch.from_numpy(codes), 2)
    assert set(found) == {tuple(c[:k]) for c in codes.tolist() for k in (1, 2)}
    for prefix, top in found.items():
        rows = ev.members(codes, prefix)
        assert rows.tolist() == [i for i, c in enumerate(codes.tolist()) if tuple(c[: len(prefix)]) == prefix]
        assert ev.common_ancestor(h, rows.tolist()) == top
    assert len(ev.members(codes, ())) == len(codes)


def test_a_share_of_the_members_names_what_most_have_in_common():
    h = Hierarchy.from_edges([("r", "a"), ("a", "x"), ("a", "y"), ("a", "z"), ("r", "b")])
    codes = np.array([[0 if name in "xyzb" else 1] for name in h.names])
    assert h.names[ev.prefix_ancestors(h, codes)[0,]] == "r"
    assert h.names[ev.prefix_ancestors(h, codes, share=0.7)[0,]] == "a"
    with pytest.raises(ParameterError, match="share"):
        ev.prefix_ancestors(h, codes, share=0.5)


def test_pairs_are_all_of_few_and_seeded_draws_of_many():
    a, b = ev.draw_pairs(10, 100)
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == set(combinations(range(10), 2))
    a, b = ev.draw_pairs(1000, 500, seed=4)
    assert len(a) == 500 and (a != b).all() and max(a.max(), b.max()) < 1000
    assert (ev.draw_pairs(1000, 500, seed=4)[1] == b).all()


def test_exact_order_keeps_the_tree_and_naive_order_loses_it(balanced):
    """Numbers of a prototype of this experiment: uniqueness .83 against .30, depth of pairs that share exactly two
    codes 3.74 against 2.82, correlation .508."""
    h, x, left = balanced
    found = ev.code_report(left, x, h)
    assert found["uniqueness"] == pytest.approx(0.83, abs=0.03)
    assert found["lca_depth"][2] == pytest.approx(3.74, abs=0.15)
    assert found["prefix_lca"] == pytest.approx(0.508, abs=0.04)
    assert found["lca_lift"] == sorted(found["lca_lift"]) and found["lca_lift"][0] > 2
    assert all(p >= s for p, s in zip(found["purity"], found["purity_shuffled"], strict=True))
    codes = ResidualQuantizer(BALL, 2, 3, 16, order="naive").fit(x).encode(x)
    assert ev.lca_by_prefix(codes, h).depth[2] < found["lca_depth"][2] - 0.5


@pytest.mark.parametrize("order", ["left", "coadd", "naive", "euclid_arith"])
def test_chains_of_exact_orders_end_on_the_point(balanced, order):
    _, x, left = balanced
    chain = ev.decoding_chain(left, x, order)
    assert chain.shape == (len(x), 4, 2)
    missed = BALL.dist(chain[:, -1], x)
    if order in ("left", "coadd"):
        assert missed.max() < 1e-6
    elif order == "naive":
        assert missed.mean() > 0.5
    if order == "left":
        codes = left.encode(x)
        for j in range(1, 4):
            assert torch.allclose(chain[:, j - 1], left.decode(codes[:, :j]), atol=1e-12)


def test_points_and_radii_against_plain_loops(balanced):
    h, x, left = balanced
    a, b = ev.draw_pairs(len(x), 300, seed=1)
    expected = [float(BALL.dist(x[i], x[j])) for i, j in zip(a, b, strict=True)]
    rank = spearmanr(expected, ev.tree_distance(ev.tree_paths(h), a, b)).statistic
    assert ev.distance_correlation(x, BALL, h, 300, seed=1) == pytest.approx(rank)
    codes = left.encode(x)
    found = ev.generality(left, codes, h)
    for (k,), radius, depth, size in zip(found.prefixes, *found[1:4], strict=True):
        rows = (codes[:, 0] == k).numpy()
        assert size == rows.sum() and depth == pytest.approx(h.depth[rows].mean())
        assert radius == pytest.approx(float(BALL.dist0(left.codebooks[0][k])))


def test_a_report_is_made_in_flat_space_and_for_sums_that_leave_the_ball(balanced):
    h, x, _ = balanced
    for space, order in ((Euclidean(), "left"), (BALL, "euclid_arith")):
        found = ev.code_report(ResidualQuantizer(space, 2, 3, 16, order=order, seed=1).fit(x), x, h)
        assert np.isfinite(found["error"]) and len(found["radii"]) == 4


@pytest.mark.parametrize(
    ("codes", "word"),
    [(np.zeros((3, 2)), "whole"), (np.zeros(3, int), "shape"), (-np.ones((3, 2), int), "below 0"),
     (np.zeros((9, 2), int), "9 rows"), (np.zeros((0, 2), int), "shape")],
)  # fmt: skip
def test_codes_that_fit_no_tree_are_refused(codes, word):
    h = trees.balanced(2, 2)
    for measure in (ev.prefix_correlation, ev.lca_by_prefix, ev.prefix_ancestors):
        with pytest.raises(DataError, match=word):
            measure(h, codes) if measure is ev.prefix_ancestors else measure(codes, h)


def test_what_does_not_exist_is_named():
    h, codes = case(0)
    with pytest.raises(ParameterError, match="level must be from 1 to 3"):
        ev.subtree_agreement(codes, h, 4)
    with pytest.raises(DataError, match="prefix"):
        ev.members(codes, (1, 2, 3, 4))
    with pytest.raises(DataError, match="at least one node"):
        ev.common_ancestor(h, [])
    with pytest.raises(DataError, match="two rows"):
        ev.prefix_correlation(codes[:1], h)
