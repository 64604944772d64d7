"""Synthetic trees: their known sizes, that they are trees, and determinism by seed."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import Hierarchy, trees
from workbench.errors import ParameterError

few = settings(max_examples=40, deadline=None)


def is_rooted_tree(h: Hierarchy) -> bool:
    return nx.is_arborescence(h.to_networkx()) and h.roots.tolist() == [0]


@few
@given(st.integers(1, 4), st.integers(0, 5))
def test_balanced_is_the_tree_networkx_draws(branching, height):
    h = trees.balanced(branching, height)
    g = (
        nx.balanced_tree(branching, height, nx.DiGraph)
        if branching > 1
        else nx.path_graph(height + 1, nx.DiGraph)
    )
    assert set(map(tuple, h.edges.tolist())) == set(g.edges) and len(h) == len(g)
    assert h.depth.max() == height


@few
@given(st.integers(1, 200), st.integers(0, 5))
def test_random_recursive_is_a_tree_whose_parents_come_first(n, seed):
    h = trees.random_recursive(n, seed)
    assert len(h) == n and is_rooted_tree(h)
    assert (h.edges[:, 0] < h.edges[:, 1]).all()
    assert h == trees.random_recursive(n, seed)


def test_random_recursive_depth_grows_like_the_harmonic_number():
    n = 4000
    mean = np.mean([trees.random_recursive(n, s).depth[-1] for s in range(200)])
    expected = np.sum(1 / np.arange(1, n))  # E depth of the last node
    assert abs(mean - expected) < 4 * np.sqrt(expected / 200)


@few
@given(st.integers(1, 30), st.integers(0, 4))
def test_caterpillar_has_a_spine_and_legs(spine, legs):
    h = trees.caterpillar(spine, legs)
    assert is_rooted_tree(h) and len(h) == spine * (legs + 1)
    assert h.depth.max() == spine - (0 if legs else 1)
    assert h.path_to_root(spine - 1) == list(range(spine - 1, -1, -1))


@few
@given(st.floats(0.2, 3), st.integers(1, 300), st.integers(0, 6), st.integers(0, 5))
def test_galton_watson_respects_its_limits(mean, max_nodes, generations, seed):
    h = trees.galton_watson(mean, max_nodes, generations, seed)
    assert is_rooted_tree(h) and len(h) <= max_nodes and h.depth.max() <= generations
    assert h == trees.galton_watson(mean, max_nodes, generations, seed)


def test_galton_watson_has_the_mean_number_of_children():
    first = [len(trees.galton_watson(2.5, 10_000, 1, s)) - 1 for s in range(400)]
    assert abs(np.mean(first) - 2.5) < 4 * np.sqrt(2.5 / 400)


@few
@given(st.integers(2, 20), st.integers(0, 12), st.integers(0, 5))
def test_noise_adds_that_many_new_edges_and_no_cycle(n, extra, seed):
    h = trees.random_recursive(n, seed)
    extra = min(extra, n * (n - 1) // 2 - len(h.edges))
    noisy = trees.with_noise(h, extra, seed)
    old, new = (set(map(tuple, x.edges.tolist())) for x in (h, noisy))
    assert old <= new and len(new) == len(old) + extra
    assert nx.is_directed_acyclic_graph(noisy.to_networkx())
    assert noisy == trees.with_noise(h, extra, seed)


def test_noise_can_fill_every_place_and_no_more():
    h = trees.balanced(2, 3)
    full = trees.with_noise(h, 15 * 14 // 2 - 14)
    assert len(full.closure()) == len(full.edges) == 15 * 14 // 2
    with pytest.raises(ParameterError, match="room for 91 more"):
        trees.with_noise(h, 92)


def test_different_seeds_differ():
    assert trees.random_recursive(50, 0) != trees.random_recursive(50, 1)
    h = trees.balanced(2, 4)
    assert trees.with_noise(h, 5, 0) != trees.with_noise(h, 5, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: trees.balanced(0, 3),
        lambda: trees.balanced(2, -1),
        lambda: trees.balanced(10, 9),
        lambda: trees.balanced(2.0, 3),
        lambda: trees.random_recursive(0),
        lambda: trees.random_recursive(True),
        lambda: trees.caterpillar(0, 1),
        lambda: trees.caterpillar(3, -1),
        lambda: trees.caterpillar(3_000_000, 3),
        lambda: trees.galton_watson(0),
        lambda: trees.galton_watson(float("nan")),
        lambda: trees.galton_watson("2"),
        lambda: trees.galton_watson(1.0, 0),
        lambda: trees.galton_watson(1.0, 10, -1),
        lambda: trees.with_noise(trees.balanced(2, 2), -1),
    ],
)
def test_impossible_parameters_are_refused(call):
    with pytest.raises(ParameterError):
        call()
