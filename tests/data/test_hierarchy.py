"""`Hierarchy` against networkx on random graphs, and every kind of bad input."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import Hierarchy, _graph, hierarchy, trees
from workbench.errors import DataError, ParameterError

few = settings(max_examples=60, deadline=None)


@st.composite
def dags(draw, max_nodes=12):
    """A random acyclic graph: names in any order; isolated nodes, several parents and roots allowed."""
    n = draw(st.integers(1, max_nodes))
    rank = draw(st.permutations(range(n)))
    possible = [(rank[i], rank[j]) for i in range(n) for j in range(i + 1, n)]
    edges = draw(st.lists(st.sampled_from(possible), unique=True)) if possible else []
    names = [f"node {i}" for i in range(n)]
    h = Hierarchy.from_edges([(names[a], names[b]) for a, b in edges], names)
    g = nx.DiGraph(edges)
    g.add_nodes_from(range(n))
    return h, g


@few
@given(dags())
def test_closure_equals_networkx_and_is_sorted_by_descendant_then_ancestor(case):
    h, g = case
    expected = sorted(nx.transitive_closure(g).edges, key=lambda e: (e[1], e[0]))
    assert list(map(tuple, h.closure().tolist())) == expected
    assert h.closure().dtype == np.int64 and h.closure().shape == (len(expected), 2)


@few
@given(dags())
def test_relatives_equal_networkx(case):
    h, g = case
    assert h.roots.tolist() == sorted(v for v in g if g.in_degree(v) == 0)
    assert h.leaves.tolist() == sorted(v for v in g if g.out_degree(v) == 0)
    for v in g:
        assert h.parents(v).tolist() == sorted(g.predecessors(v))
        assert h.children(v).tolist() == sorted(g.successors(v))
        assert h.ancestors(v).tolist() == sorted(nx.ancestors(g, v))
        assert h.descendants(h.names[v]).tolist() == sorted(nx.descendants(g, v))


@few
@given(dags())
def test_depth_and_path_to_root_are_shortest_and_follow_edges(case):
    h, g = case
    distance = nx.multi_source_dijkstra_path_length(g, set(h.roots.tolist()))
    for v in g:
        path = h.path_to_root(v)
        assert h.depth[v] == distance[v] == len(path) - 1
        assert path[0] == v and path[-1] in h.roots
        assert all(g.has_edge(up, down) for down, up in pairwise(path))
    tree = h.spanning_tree()
    assert (np.flatnonzero(tree < 0) == h.roots).all()
    for v in np.flatnonzero(tree >= 0):
        assert tree[v] == min(p for p in g.predecessors(v) if distance[p] == distance[v] - 1)


@few
@given(dags())
def test_topological_order_puts_parents_first(case):
    h, _ = case
    place = np.argsort(h.topological)
    assert (place[h.edges[:, 0]] < place[h.edges[:, 1]]).all()


@few
@given(dags())
def test_graph_distances_equal_networkx_on_the_undirected_graph(case):
    h, g = case
    table = h.graph_distances()
    lengths = dict(nx.all_pairs_shortest_path_length(g.to_undirected()))
    for a in g:
        for b in g:
            assert table[a, b] == lengths[a].get(b, np.inf)
    assert (h.graph_distances(h.names[0]) == table[0]).all()
    assert (h.graph_distances([0, h.names[-1]]) == table[[0, -1]]).all()


@few
@given(dags())
def test_networkx_and_back_is_the_identity(case):
    h, _ = case
    assert Hierarchy.from_networkx(h.to_networkx()) == h


@few
@given(dags())
def test_subtree_is_the_induced_graph_with_its_own_closure(case):
    h, g = case
    for v in (0, len(h) - 1):
        sub = h.subtree(v)
        inside = sorted({v} | nx.descendants(g, v))
        assert sub.names == tuple(h.names[i] for i in inside)
        expected = {(h.names[a], h.names[b]) for a, b in g.subgraph(inside).edges}
        assert {(sub.names[a], sub.names[b]) for a, b in sub.edges} == expected
        again = Hierarchy.from_edges([(sub.names[a], sub.names[b]) for a, b in sub.edges], sub.names)
        assert np.array_equal(sub.closure(), again.closure()) and again == sub


@few
@given(dags(), st.integers(0, 3))
def test_split_keeps_edges_in_train_and_divides_the_closure(case, seed):
    h, _ = case
    parts = [set(map(tuple, p.tolist())) for p in h.split(0.3, 0.3, seed)]
    closure, edges = (set(map(tuple, a.tolist())) for a in (h.closure(), h.edges))
    assert parts[0] | parts[1] | parts[2] == closure
    assert sum(map(len, parts)) == len(closure)
    assert edges <= parts[0]


@few
@given(dags(), st.integers(0, 3))
def test_negatives_differ_in_one_place_and_are_never_true(case, seed):
    h, _ = case
    closure = set(map(tuple, h.closure().tolist()))
    options = {
        (a, b): [q for i in range(len(h)) for q in ((i, b), (a, i)) if q not in closure and q[0] != q[1]]
        for a, b in closure
    }
    pairs = np.array([p for p in sorted(closure) if options[p]]).reshape(-1, 2)
    negatives = h.sample_negatives(pairs.astype(np.int64), 3, seed)
    assert negatives.shape == (len(pairs), 3, 2)
    for pair, wrong in zip(pairs.tolist(), negatives.tolist(), strict=True):
        assert all(tuple(w) in options[tuple(pair)] for w in wrong)
    impossible = [p for p in closure if not options[p]]
    if impossible:
        with pytest.raises(DataError, match="no wrong pair"):
            h.sample_negatives(np.array(impossible), 1)


def test_split_by_share_is_seeded_and_train_share_adds_to_the_edges():
    h = trees.balanced(2, 7)
    rest = len(h.closure()) - len(h.edges)
    bare = h.split(0.05, 0.1, seed=1, train=0)
    assert np.array_equal(bare.train, h.edges)
    assert (len(bare.valid), len(bare.test)) == (round(0.05 * rest), round(0.1 * rest))
    quarter = h.split(0.05, 0.1, seed=1, train=0.25)
    assert len(quarter.train) == len(h.edges) + round(0.25 * rest)
    assert np.array_equal(quarter.test, bare.test)
    assert not np.array_equal(h.split(0.05, 0.1, seed=2).test, bare.test)


@pytest.mark.parametrize(
    "shares", [{"valid": -0.1}, {"test": 1.5}, {"valid": 0.6, "test": 0.6}, {"train": 1.0}]
)
def test_split_refuses_impossible_shares(shares):
    with pytest.raises(ParameterError):
        trees.balanced(2, 3).split(**shares)


def test_order_of_rows_does_not_matter_but_names_do():
    a = Hierarchy.from_edges([("x", "y"), ("x", "z")], ["x", "y", "z"])
    b = Hierarchy.from_edges([("x", "z"), ("x", "y")], ["x", "y", "z"])
    c = Hierarchy.from_edges([("x", "z"), ("x", "y")], ["x", "z", "y"])
    assert a == b and hash(a) == hash(b) and a.fingerprint() == b.fingerprint()
    assert a != c and a.fingerprint() != c.fingerprint()
    relabelled = Hierarchy.from_edges([("x", "y"), ("x", "z")], ["x", "y", "z"], {"x": "other"})
    assert relabelled != a and relabelled.fingerprint() == a.fingerprint()
    assert a != "x"


def test_labels_and_glosses_by_sequence_or_mapping():
    pairs, names = [("a", "b")], ["a", "b", "c"]
    by_list = Hierarchy.from_edges(pairs, names, ["A", "B", ""], ["first", "", ""])
    by_name = Hierarchy.from_edges(pairs, names, {"a": "A", "b": "B"}, {"a": "first"})
    assert by_list == by_name
    assert by_list.labels == ("A", "B", "c") and by_list.glosses == ("first", "", "")


def test_numbers_are_positions_in_names_or_nodes_of_their_own():
    named = Hierarchy.from_edges(np.array([[2, 0], [2, 1]]), ["a", "b", "c"])
    assert named.names == ("a", "b", "c") and named.roots.tolist() == [2]
    bare = Hierarchy.from_edges([(0, 3), (0, 1)])
    assert bare.names == ("0", "1", "2", "3") and bare.roots.tolist() == [0, 2]
    assert "3" in bare and "4" not in bare
    text = Hierarchy.from_edges(np.array([["a", "b"], ["a", "c"]]), np.array(["c", "b", "a"]))
    assert text.names == ("c", "b", "a") and type(text.names[0]) is str and text.roots.tolist() == [2]


def test_a_single_node_is_a_hierarchy():
    h = Hierarchy.from_edges([], ["only"])
    assert len(h) == 1 and len(h.closure()) == 0 and h.depth.tolist() == [0] and h.path_to_root(0) == [0]
    assert h.graph_distances().tolist() == [[0]]
    assert [len(p) for p in h.split()] == [0, 0, 0]
    assert repr(h) == "Hierarchy(1 nodes, 0 edges, 1 root)"


def test_arrays_cannot_be_written():
    h = trees.balanced(2, 3)
    for array in (h.edges, h.closure(), h.depth, h.roots, h.spanning_tree()):
        with pytest.raises(ValueError):
            array[0] = 1
    with pytest.raises(AttributeError):
        h.names = ()
    h.children(0)[0] = 99  # a copy
    assert h.children(0).tolist() == [1, 2]


BAD = [
    ([("a", "b"), ("c", "c")], {}, r"row 1 makes 'c' its own parent"),
    ([("a", "b"), ("a", "c"), ("a", "b")], {}, r"row 2 repeats the edge 'a' → 'b' of row 0"),
    ([("a", "b"), ("b", "c"), ("x", "a"), ("c", "a")], {}, r"row 3 closes a cycle: .* → "),
    ([("a", "b"), ("b", "a"), ("b", "c"), ("c", "d")], {}, r"row 1 closes a cycle"),
    ([("a", "dig")], {"names": ["a", "dog"]}, r"row 0: 'dig' is not among the 2 names; did you mean 'dog'"),
    ([("a", "b")], {"names": ["a", "b", "a"]}, r"name 2 repeats 'a' of name 0"),
    ([("a", "b")], {"names": ["a", "b", " "]}, r"name 2 is empty"),
    ([("a", "b")], {"names": ["a", "b", None]}, r"name 2 must be text"),
    ([("a", "b"), ("a", "")], {}, r"row 1 has an empty child name"),
    ([("a", "b"), ("  ", "b")], {}, r"row 1 has an empty parent name"),
    ([("a", "b"), ("a", None)], {}, r"row 1: a node is a name or a whole number, not None"),
    ([("a", "b"), ("a", 1.5)], {}, r"row 1: a node .* not 1.5 \(float\)"),
    ([(True, False)], {}, r"row 0: a node"),
    ([("a", "b"), ("a", 3)], {}, r"row 1 mixes"),
    ([("a", "b"), (1, 3)], {}, r"row 1 mixes"),
    ([("a", "b", "c")], {}, r"row 0 must be a \(parent, child\) pair"),
    (["ab"], {}, r"row 0 must be a \(parent, child\) pair"),
    ([(0, -1)], {}, r"row 0: nodes are numbered from 0 up, not \(0, -1\)"),
    ([(0, 1), (0, 2)], {"names": ["a", "b"]}, r"row 1: nodes are numbered from 0 to 1"),
    (np.zeros((2, 3), dtype=int), {}, r"shape \(E, 2\)"),
    ([], {}, r"at least one node"),
    ([("a", "b")], {"labels": ["A", "B"]}, r"labels as a sequence needs `names`"),
    ([("a", "b")], {"names": ["a", "b"], "labels": ["A"]}, r"labels has 1 entries for 2 nodes"),
    ([("a", "b")], {"names": ["a", "b"], "glosses": ["A", 3]}, r"glosses\[1\] must be text"),
    ([("a", "bee")], {"glosses": {"be": "?"}}, r"glosses has 'be', which is not a node; did you mean 'bee'"),
]


@pytest.mark.parametrize(("pairs", "more", "sentence"), BAD, ids=[b[2][:40] for b in BAD])
def test_bad_input_is_refused_with_its_row(pairs, more, sentence):
    with pytest.raises(DataError, match=sentence):
        Hierarchy.from_edges(pairs, **more)


def test_rows_of_a_larger_table_are_named_when_given():
    with pytest.raises(DataError, match=r"row 70 repeats .* of row 50"):
        Hierarchy.from_edges([("a", "b"), ("a", "b")], rows=[50, 70])


@given(st.integers(2, 30), st.integers(0, 20))
@few
def test_a_long_cycle_is_found_below_and_above_other_nodes(length, tail):
    ring = [(i, (i + 1) % length) for i in range(length)]
    below = [(length - 1 if i == 0 else length + i - 1, length + i) for i in range(tail)]
    above = [(length + tail, 0)]
    with pytest.raises(DataError, match=rf"row {len(below) + length} closes a cycle"):
        Hierarchy.from_edges([*below, *above, *ring])


def test_unknown_nodes_are_refused_with_a_suggestion():
    h = Hierarchy.from_edges([("animal", "dog")])
    with pytest.raises(DataError, match="did you mean 'dog'"):
        h.ancestors("dgo")
    for bad in (2, -1, 1.0, None, True):
        with pytest.raises(DataError, match="from 0 to 1"):
            h.index(bad)
    assert h.index(np.int64(1)) == 1
    with pytest.raises(DataError, match="none was selected"):
        h.induced([])


def test_from_networkx_refuses_undirected_and_nodes_that_print_alike():
    with pytest.raises(DataError, match="directed"):
        Hierarchy.from_networkx(nx.Graph([(1, 2)]))
    with pytest.raises(DataError, match="repeats '1'"):
        Hierarchy.from_networkx(nx.DiGraph([(1, "1")]))


def test_negatives_refuse_bad_pairs():
    h = trees.balanced(2, 2)
    for bad in (np.zeros((2, 3), dtype=int), np.zeros((2, 2)), np.array([[0, 7]]), np.array([[-1, 0]])):
        with pytest.raises(DataError, match="pairs must"):
            h.sample_negatives(bad)
    with pytest.raises(ParameterError, match="k must be"):
        h.sample_negatives(h.edges, 0)


def test_tables_too_large_are_refused_with_a_sentence(monkeypatch):
    h = trees.caterpillar(50, 0)
    monkeypatch.setattr(hierarchy, "MAX_DISTANCES", 1000)
    with pytest.raises(DataError, match="give at most 20 sources"):
        h.graph_distances()
    monkeypatch.setattr(_graph, "MAX_CLOSURE", 1000)
    with pytest.raises(DataError, match="more than 1,000 pairs"):
        h.closure()
