"""How tree-like the items are: the vectors against the matrix they stand for, the graph against networkx."""

import os

import networkx as nx
import numpy as np
import pytest
import torch

from workbench.data import interactions, registry
from workbench.data.interactions import Interactions, synthetic
from workbench.errors import DataError, ParameterError
from workbench.evaluation import item_hyperbolicity
from workbench.evaluation.item_hyperbolicity import Delta, item_delta
from workbench.manifolds import delta_hyperbolicity


def table_of(data):
    users = np.repeat(np.arange(data.n_users), [len(s) for s in data.train])
    return item_hyperbolicity._table(users, np.concatenate(data.train), data)


def test_vectors_have_the_inner_products_of_the_best_approximation_of_their_columns():
    data = synthetic(n_users=40, n_items=81)
    table = table_of(data)
    vectors = item_hyperbolicity._vectors(table, 12, seed=0)
    _, s, vt = np.linalg.svd(table.toarray(), full_matrices=False)
    best = vt[:12].T * s[:12]
    np.testing.assert_allclose(vectors @ vectors.T, best @ best.T, atol=1e-9)


def test_hops_are_those_of_networkx_between_items_that_share_most_users():
    data = synthetic(n_users=60, n_items=81)
    table = table_of(data).toarray()
    norm = np.linalg.norm(table, axis=0)
    close = table.T @ table / norm[:, None] / norm
    np.fill_diagonal(close, 0)
    graph = nx.Graph()
    for i, row in enumerate(close):
        graph.add_edges_from((i, int(j)) for j in np.argsort(-row, kind="stable")[:3] if row[j] > 0)
    largest = sorted(max(nx.connected_components(graph), key=len))
    found = item_hyperbolicity._graph(table_of(data), 3)
    assert found.shape[0] == len(largest)
    chosen = np.random.default_rng(0).choice(len(largest), 20, replace=False)
    hops = [[nx.shortest_path_length(graph, largest[a], largest[b]) for b in chosen] for a in chosen]
    expected = delta_hyperbolicity(torch.tensor(hops).double(), method="base_point").relative
    assert item_hyperbolicity._hops(found, chosen) == expected


def test_items_taken_along_the_edges_of_a_tree_are_a_tree_and_dealt_out_anew_they_are_not():
    edges = list(nx.balanced_tree(3, 3).edges)
    # Each user takes the two ends of an edge; the two items after them are held out.
    rows = [(u, item) for u, edge in enumerate(edges) for item in (*edge, 0, 1)]
    data = Interactions.from_events(*(list(c) for c in zip(*rows, strict=True)))
    found = item_delta(data, rank=8, draws=2)
    assert found.graph.draws == (0.0, 0.0) and found.graph.curvature == np.inf
    assert found.graph.null > 0 and found.vectors.mean > 0


def test_the_same_seed_gives_the_same_and_the_null_is_that_of_shuffled_items():
    data = synthetic(n_users=80)
    found = item_delta(data, sample=60, draws=3, seed=5)
    assert found == item_delta(data, sample=60, draws=3, seed=5)
    assert found != item_delta(data, sample=60, draws=3, seed=6)
    assert found.vectors.shuffled != found.vectors.draws


def test_the_curvature_is_khrulkovs():
    assert Delta((0.144,), (1.0,)).curvature == 1
    assert Delta((0.283,), (1.0,)).curvature == pytest.approx(0.26, abs=0.005)
    assert Delta((0.0,), (1.0,)).curvature == np.inf


@pytest.mark.parametrize("option", ["rank", "draws", "neighbours"])
def test_bad_parameters_are_refused(option):
    with pytest.raises(ParameterError, match=f"{option} must be at least 1"):
        item_delta(synthetic(n_users=20), **{option: 0})
    with pytest.raises(ParameterError, match="sample must be at least 4"):
        item_delta(synthetic(n_users=20), sample=3)


def test_too_few_items_are_refused():
    with pytest.raises(DataError, match="too few users or items"):
        item_delta(Interactions.from_events([1, 1, 1], [1, 2, 3]))


@pytest.mark.skipif(not os.environ.get("WORKBENCH_DATA"), reason="WORKBENCH_DATA is not set")
def test_movielens_is_as_tree_like_as_measured_elsewhere():
    if registry.local("ml-100k") is None:
        pytest.skip("ml-100k not under WORKBENCH_DATA")
    found = item_delta(interactions.movielens_100k())
    assert found.vectors.mean == pytest.approx(0.333, abs=0.03)
    assert found.vectors.curvature == pytest.approx(0.19, abs=0.04)
