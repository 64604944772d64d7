"""Curvature of edges against closed forms, and against a min-cost flow of networkx on shortest paths."""

import math

import networkx as nx
import numpy as np
import pytest
import torch

from workbench.errors import ParameterError
from workbench.evaluation import ricci as module
from workbench.evaluation.ricci import knn_ricci, nearest, neighbour_ricci, ricci, transport
from workbench.manifolds import Euclidean, Lorentz


def by_flow(graph, x, y, alpha, steps=None):
    """κ by networkx alone. steps: where a walker goes from a node."""
    steps = steps or {v: list(graph[v]) for v in graph}
    unit = math.lcm(len(steps[x]), len(steps[y])) * 2
    net = nx.DiGraph()
    for v, sign in ((x, -1), (y, 1)):
        mass = dict.fromkeys(steps[v], int((1 - alpha) * unit) // len(steps[v]))
        mass[v] = mass.get(v, 0) + int(alpha * unit)
        for node, units in mass.items():
            net.add_node((sign, node), demand=sign * units)
    hops = dict(nx.all_pairs_shortest_path_length(graph))
    for side, a in [n for n in net if n[0] == -1]:
        for other, b in [n for n in net if n[0] == 1]:
            net.add_edge((side, a), (other, b), weight=hops[a][b])
    return 1 - nx.min_cost_flow_cost(net) / unit / hops[x][y]


@pytest.mark.parametrize("n", [4, 6, 9])
def test_complete_graphs(n):
    assert ricci(nx.complete_graph(n)).values == pytest.approx((n - 2) / (n - 1), abs=1e-12)
    assert ricci(nx.complete_graph(n), alpha=0.5).values == pytest.approx(n / (2 * (n - 1)), abs=1e-12)


@pytest.mark.parametrize("n, expected", [(5, 0), (6, 0), (8, 0), (30, 0)])
def test_long_cycles_are_flat(n, expected):
    found = ricci(nx.cycle_graph(n))
    assert found.values == pytest.approx(expected, abs=1e-12) and found.negative == 0


@pytest.mark.parametrize("d", [3, 4, 5])
def test_inner_edges_of_regular_trees_are_negative(d):
    tree = nx.balanced_tree(d - 1, 4)
    tree.add_edges_from([("top", 0)])  # now the root has degree d, as all inner nodes
    inner = [(a, b) for a, b in tree.edges if tree.degree[a] == tree.degree[b] == d]
    assert ricci(tree, inner).values == pytest.approx(-2 + 4 / d, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_random_graphs_as_by_a_flow_on_shortest_paths(alpha):
    graph = nx.connected_watts_strogatz_graph(24, 5, 0.4, seed=1)
    pairs = [*list(graph.edges)[:25], (0, 12), (3, 20)]
    expected = [by_flow(graph, *pair, alpha) for pair in pairs]
    assert ricci(graph, pairs, alpha=alpha).values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_neighbours_of_points_as_by_a_flow(alpha):
    near = nearest(np.random.default_rng(0).normal(size=(30, 6)), 4)
    steps = {i: row.tolist() for i, row in enumerate(near)}
    graph = nx.Graph([(i, j) for i in steps for j in steps[i]])
    found = neighbour_ricci(near, alpha=alpha, sample=30, seed=3)
    expected = [by_flow(graph, x, y, alpha, steps) for x, y in found.pairs.tolist()]
    assert found.values == pytest.approx(expected, abs=1e-12)


def test_points_of_a_circle_are_a_cycle_and_all_neighbours_a_complete_graph():
    angle = torch.arange(12) * 2 * math.pi / 12
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    assert knn_ricci(circle, 2).values == pytest.approx(0, abs=1e-12)
    assert knn_ricci(circle, 11).values == pytest.approx(10 / 11, abs=1e-12)


def test_metrics_order_neighbours_as_they_should():
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (nearest(x, 4) == nearest(x, 4, Euclidean())).all()
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1) - 9 * torch.eye(50)
    assert (nearest(x, 4, "cosine") == cosine.topk(4).indices.numpy()).all()
    curved = Lorentz(1.0)
    points = torch.cat([(1 + x.square().sum(1, keepdim=True)).sqrt(), x], 1)
    product = points[:, :1] * points[:, 0] - x @ x.T + 1e9 * torch.eye(50)
    assert (nearest(points, 4, curved) == product.topk(4, largest=False).indices.numpy()).all()


def test_neighbours_do_not_depend_on_blocks(monkeypatch):
    x = np.random.default_rng(1).normal(size=(40, 3))
    whole = nearest(x, 5)
    monkeypatch.setattr(module, "NUMBERS", 100)
    assert (nearest(x, 5) == whole).all() and (nearest(x, 5, Euclidean()) == whole).all()


def test_transport_by_assignment_and_by_program_agree(monkeypatch):
    rng = np.random.default_rng(2)
    cost, a = rng.integers(0, 5, (4, 6)), [6, 6, 3, 3]
    by_units = transport(cost, a, [3] * 6)
    monkeypatch.setattr(module, "UNITS", 0)
    assert transport(cost, a, [3] * 6) == by_units
    assert transport(np.ones((0, 0)), [], []) == 0


def test_samples_follow_from_the_seed_and_processes_do_not_matter():
    graph = nx.random_regular_graph(4, 30, seed=0)
    one, two = (ricci(graph, sample=20, seed=5, jobs=jobs) for jobs in (1, 2))
    assert (one.pairs == two.pairs).all() and (one.values == two.values).all()
    assert (one.pairs != ricci(graph, sample=20, seed=6).pairs).any()
    everything = ricci(graph, sample=10_000)
    assert len(everything.values) == graph.number_of_edges()
    at = {tuple(p): v for p, v in zip(everything.pairs.tolist(), everything.values, strict=True)}
    assert [at[tuple(p)] for p in one.pairs.tolist()] == one.values.tolist()


def test_noise_is_negative_in_many_dimensions_and_not_in_one():
    rng = np.random.default_rng(0)
    low, high = (knn_ricci(rng.normal(size=(300, d)), 6, sample=200).mean for d in (1, 200))
    assert low > 0.2 and high < -0.2


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: nearest(np.zeros((3, 2)), 3), "k must be from 1 to 2"),
        (lambda: nearest(np.full((5, 2), np.nan), 2), "finite"),
        (lambda: nearest(np.zeros(5), 2), "matrix"),
        (lambda: nearest(np.ones((5, 2)), 2, "cosin"), "did you mean 'cosine'"),
        (lambda: nearest(np.zeros((5, 2)), 2, "cosine"), "length above 0"),
        (lambda: ricci(nx.Graph()), "at least one edge"),
        (lambda: ricci(nx.DiGraph([(0, 1)])), "undirected"),
        (lambda: ricci(nx.path_graph(3), alpha=0.3), "alpha"),
        (lambda: ricci(nx.path_graph(3), [(0, 9)]), "9 is none"),
        (lambda: ricci(nx.path_graph(3), []), "at least one pair"),
        (lambda: ricci(nx.path_graph(3), [(1, 1)]), "with itself"),
        (lambda: ricci(nx.Graph([(0, 1), (2, 3)]), [(0, 2)]), "no path"),
        (lambda: ricci(nx.empty_graph(2, nx.path_graph(1)), [(0, 1)]), "no neighbours"),
        (lambda: transport(np.ones((1, 1)), [2], [1]), "whole units"),
    ],
)
def test_bad_input_is_said(call, told):
    with pytest.raises(ParameterError, match=told):
        call()
