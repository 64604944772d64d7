"""Subsumption tasks against networkx on random graphs, the published sizes of WordNet, and every bad input."""

import os
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from workbench.data import Hierarchy, tasks, trees, wordnet
from workbench.data.ontology import read_edges
from workbench.errors import DataError, ParameterError

few = settings(max_examples=40, deadline=None)
BUILDERS = (tasks.mixed_hop, tasks.multi_hop)


@st.composite
def dags(draw, least=3, most=14):
    """A random acyclic graph with at least one edge, several parents and roots allowed, and its networkx twin."""
    n = draw(st.integers(least, most))
    rank = draw(st.permutations(range(n)))
    possible = [(rank[i], rank[j]) for i in range(n) for j in range(i + 1, n)]
    edges = draw(st.lists(st.sampled_from(possible), unique=True, min_size=1))
    g = nx.DiGraph(edges)
    g.add_nodes_from(range(n))
    return Hierarchy.from_edges(edges, [f"node {i}" for i in range(n)]), g


def siblings(g, child):
    of_parents = {s for p in g.predecessors(child) for s in g.successors(p)}
    return of_parents - {child} - nx.ancestors(g, child)


def as_set(pairs):
    return set(map(tuple, np.asarray(pairs).tolist()))


def bush(depth=5, width=3):
    return trees.balanced(width, depth)


# -- sizes and splits --------------------------------------------------------------------------------------


def test_wordnet_nouns_without_instances_have_the_published_counts():
    h = wordnet.nouns(instances=False)
    direct, indirect = tasks.direct_and_indirect(h)
    assert (len(h), len(direct), len(indirect)) == (74_401, 75_850, 587_658)


def test_wordnet_tasks_have_the_published_sizes():
    h = wordnet.nouns(instances=False)
    mixed, multi = tasks.mixed_hop(h), tasks.multi_hop(h)
    for task, train, questions in ((mixed, 68_265, 33_176), (multi, 75_850, 29_383)):
        assert abs(len(task.train) - train) <= 1  # rounding of the shares
        assert abs(len(task.test) - questions) <= 1 and abs(len(task.valid) - questions) <= 1
        assert task.train_wrong.shape == (len(task.train), 10) and task.test.k == 10
        pairs, label, _ = task.test.labelled()
        assert not tasks.contains(h.closure(), pairs[~label], len(h)).any()
        assert tasks.contains(h.closure(), pairs[label], len(h)).all()
    named = Counter(mixed.texts)
    alone = sum(named[text] == 1 for text in mixed.texts) / len(h)
    assert abs(alone - 0.71) < 0.01  # the text is the first lemma: the others share theirs


@pytest.mark.parametrize("name", ["doid", "foodon"])
def test_ontologies_make_tasks(name):
    if not os.environ.get("WORKBENCH_DATA"):
        pytest.skip("WORKBENCH_DATA names no folder of data sets")
    file = {"doid": "doid_2026-07-31.tsv.gz", "foodon": "foodon_import_modules.tsv.gz"}[name]
    h = read_edges(
        Path(os.environ["WORKBENCH_DATA"]) / "him" / file,
        parent="parents",
        child="id",
        label="label",
        several=",",
        drop_self_loops=True,
    )
    for kind in tasks.KINDS:
        task = tasks.mixed_hop(h, negatives=kind)
        assert len(task.train) + task.valid.direct.sum() + task.test.direct.sum() == len(h.edges)
    if name == "doid":
        assert tuple(map(len, tasks.direct_and_indirect(h))) == (12_296, 61_898)


@few
@given(dags())
def test_direct_pairs_are_the_edges_and_indirect_ones_the_rest_of_the_closure(case):
    h, g = case
    direct, indirect = tasks.direct_and_indirect(h)
    assert as_set(direct) == set(g.edges)
    assert as_set(indirect) == set(nx.transitive_closure(g).edges) - set(g.edges)


@few
@given(dags(), dags())
def test_contains_equals_a_set_lookup(one, other):
    known = one[0].closure()
    n = max(len(one[0]), len(other[0]))
    pairs = other[0].closure()
    assert tasks.contains(known, pairs, n).tolist() == [tuple(p) in as_set(known) for p in pairs.tolist()]
    assert not tasks.contains(np.empty((0, 2), np.int64), pairs, n).any()


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("seed", [0, 7])
def test_training_and_questions_share_no_pair_and_take_the_stated_shares(build, seed):
    h = bush()
    task = build(h, share=0.1, seed=seed)
    direct, indirect = tasks.direct_and_indirect(h)
    train, valid, test = (as_set(p) for p in (task.train, task.valid.pairs, task.test.pairs))
    assert len(train) + len(valid) + len(test) == len(train | valid | test)
    assert train <= as_set(direct) and valid | test <= as_set(h.closure())
    far = round(0.1 * len(indirect))
    near = round(0.1 * len(direct)) if build is tasks.mixed_hop else 0
    assert len(train) == len(direct) - 2 * near
    for q in (task.valid, task.test):
        assert q.direct.tolist() == [tuple(p) in as_set(h.edges) for p in q.pairs.tolist()]
        assert (q.direct.sum(), (~q.direct).sum()) == (near, far)


def test_both_tasks_hold_out_the_same_indirect_pairs():
    mixed, multi = (build(bush(), seed=3) for build in BUILDERS)
    assert as_set(mixed.test.pairs[~mixed.test.direct]) == as_set(multi.test.pairs)
    assert as_set(mixed.valid.pairs[~mixed.valid.direct]) == as_set(multi.valid.pairs)


def test_same_seed_same_task_and_another_seed_another():
    one, two, other = (tasks.mixed_hop(bush(), seed=s) for s in (1, 1, 2))
    for a, b in (
        (one.train, two.train),
        (one.train_wrong, two.train_wrong),
        (one.test.wrong, two.test.wrong),
    ):
        assert np.array_equal(a, b)
    assert as_set(one.test.pairs) != as_set(other.test.pairs)


def test_kinds_of_negatives_change_no_positive_and_no_training():
    h = bush()
    hard = tasks.mixed_hop(h, seed=5)
    for kind in tasks.KINDS:
        built, offered = tasks.mixed_hop(h, negatives=kind, seed=5), hard.offered(kind, 5)
        assert built.test.kind == offered.valid.kind == kind
        for task in (built, offered):
            assert np.array_equal(task.test.pairs, hard.test.pairs)
            assert np.array_equal(task.valid.pairs, hard.valid.pairs)
            assert np.array_equal(task.train_wrong, hard.train_wrong)
        assert np.array_equal(built.test.wrong, offered.test.wrong)
    assert not np.array_equal(hard.offered("matched", 6).test.wrong, hard.offered("matched", 5).test.wrong)


# -- wrong nodes -------------------------------------------------------------------------------------------


@few
@given(dags(), st.sampled_from(tasks.KINDS), st.integers(1, 4), st.integers(0, 99))
def test_no_wrong_node_is_the_descendant_or_an_ancestor_of_it(case, kind, k, seed):
    h, g = case
    pairs = np.array([(a, d) for a, d in h.closure().tolist() if len(nx.ancestors(g, d)) < len(g) - 1])
    if len(pairs):
        wrong = tasks.wrong_nodes(h, pairs, kind, k, np.random.default_rng(seed))
        assert wrong.shape == (len(pairs), k) and wrong.dtype == np.int64
        for (_, d), row in zip(pairs.tolist(), wrong.tolist(), strict=True):
            assert not set(row) & ({d} | nx.ancestors(g, d))


@few
@given(dags(), st.integers(1, 6))
def test_hard_ones_are_different_siblings_before_anything_else(case, k):
    h, g = case
    pairs = np.array([(a, d) for a, d in h.edges.tolist() if len(nx.ancestors(g, d)) < len(g) - 1])
    if len(pairs):
        wrong = tasks.wrong_nodes(h, pairs, "hard", k, np.random.default_rng(0))
        for (_, d), row in zip(pairs.tolist(), wrong.tolist(), strict=True):
            near = siblings(g, d)
            # Of a list longer than 4k (one sibling under two parents stands there twice) a sample is looked at.
            if sum(g.out_degree(p) for p in g.predecessors(d)) <= 4 * k:
                first = row[: min(k, len(near))]
                assert set(first) <= near and len(set(first)) == len(first)


def test_siblings_of_a_large_family_are_drawn_alike():
    h = Hierarchy.from_edges([("top", "other"), *(("top", f"child {i}") for i in range(60))])
    child = h.index("child 0")
    rng = np.random.default_rng(0)
    wrong = tasks.wrong_nodes(h, np.array([[0, child]] * 3000), "hard", 4, rng)
    assert all(len(set(row)) == 4 for row in wrong.tolist())
    count = np.bincount(wrong.ravel(), minlength=len(h))
    assert count[0] == count[child] == 0
    assert chisquare(np.delete(count, [0, child])).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["random", "matched"])
def test_wrong_nodes_follow_their_distribution(kind):
    h = wordnet.subtree("feline.n.01")
    child = h.index("persian_cat.n.01")
    g = h.to_networkx()
    weight = np.array([len(nx.descendants(g, name)) if kind == "matched" else 1 for name in h.names], float)
    weight[[child, *h.ancestors(child)]] = 0
    pair = np.array([[h.index("cat.n.01"), child]])
    wrong = tasks.wrong_nodes(h, pair, kind, 20_000, np.random.default_rng(1))
    count = np.bincount(wrong.ravel(), minlength=len(h))
    assert not count[weight == 0].any()
    expected = 20_000 * weight[weight > 0] / weight.sum()
    assert chisquare(count[weight > 0], expected).pvalue > 1e-3


def test_matched_negatives_are_as_popular_as_the_true_ancestors():
    """Under its own distribution a rule that counts descendants has nothing to go by."""
    h = bush(6)
    below = np.bincount(h.closure()[:, 0], minlength=len(h))
    mean = {
        kind: below[tasks.wrong_nodes(h, h.closure(), kind, 5, np.random.default_rng(0))].mean()
        for kind in tasks.KINDS
    }
    assert mean["matched"] > 10 * mean["random"]
    # Not quite as much as the true ones: the root, an ancestor of all, can never be offered.
    right = below[h.closure()[h.closure()[:, 0] != h.roots[0], 0]].mean()
    assert 0.7 * right < mean["matched"] < 1.1 * right


def test_random_ones_follow_where_every_inner_node_is_an_ancestor():
    h = Hierarchy.from_edges([("a", "b"), ("b", "c"), ("b", "d")])
    wrong = tasks.wrong_nodes(h, np.array([[1, 2]]), "matched", 3, np.random.default_rng(0))
    assert wrong.tolist() == [[3, 3, 3]]


# -- texts and questions -----------------------------------------------------------------------------------


def test_texts_are_lower_case_labels_with_spaces_and_names_where_a_label_is_blank():
    h = Hierarchy.from_edges([("A_b", "C.n.01")], ["A_b", "C.n.01", "x"], labels=["", "  Big_Cat ", "_"])
    assert tasks.entity_texts(h) == ("a b", "big cat", "x")
    assert tasks.entity_texts(wordnet.mammals())[0] == wordnet.mammals().labels[0].lower()


def test_labelled_rows_are_the_true_pair_then_its_wrong_ones():
    q = tasks.Questions(
        np.array([[3, 0], [4, 1]]), np.array([[5, 6], [7, 8]]), np.array([True, False]), "random"
    )
    pairs, label, direct = q.labelled()
    assert pairs.tolist() == [[3, 0], [5, 0], [6, 0], [4, 1], [7, 1], [8, 1]]
    assert label.tolist() == [True, False, False, True, False, False]
    assert direct.tolist() == [True] * 3 + [False] * 3
    assert len(q) == 2 and q.k == 2


def test_a_task_cannot_be_changed_and_prints_on_one_line():
    task = tasks.mixed_hop(bush())
    with pytest.raises(FrozenInstanceError):
        task.train = task.valid
    for array in (task.train, task.train_wrong, task.test.pairs, task.test.wrong, task.test.direct):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert "\n" not in repr(task) and "hard negatives" in repr(task)


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", BUILDERS)
def test_hierarchies_that_make_no_task_are_refused(build):
    isolated = Hierarchy.from_edges([], names=["a", "b"])
    with pytest.raises(DataError, match="2 nodes have no edge"):
        build(isolated)
    star = Hierarchy.from_edges([(0, i) for i in range(1, 100)])
    with pytest.raises(DataError, match=r"too few indirect pairs: a share of 0\.05 of 0"):
        build(star)
    small = trees.balanced(2, 2)
    with pytest.raises(DataError, match=r"too few .*direct pairs"):
        build(small)
    assert len(build(small, share=0.25).test) >= 1
    chain = Hierarchy.from_edges([(i, i + 1) for i in range(30)])
    with pytest.raises(DataError, match="nothing wrong can be offered for '30'"):
        build(chain)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"negatives": "hardd"}, "did you mean 'hard'"),
        ({"train_negatives": "none"}, "random, hard, matched"),
        ({"k": 0}, "at least 1, not 0"),
        ({"k": 2.5}, "whole number"),
        ({"share": 0.0}, "share must be above 0"),
        ({"share": 0.5}, "below 0.5, not 0.5"),
        ({"share": float("nan")}, "share must be"),
        ({"share": "5%"}, "not '5%'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_bad_parameters_are_refused_with_a_sentence(build, bad, says):
    with pytest.raises(ParameterError, match=says):
        build(bush(), **bad)


def test_bad_texts_and_questions_are_refused_with_a_sentence():
    h = bush()
    with pytest.raises(DataError, match="texts must be one a node"):
        tasks.mixed_hop(h, texts=["one"])
    with pytest.raises(DataError, match=r"node '7' \(number 7\) needs a text, but has ' '"):
        tasks.mixed_hop(h, texts=[" " if i == 7 else "x" for i in range(len(h))])
    with pytest.raises(DataError, match="needs a text"):
        tasks.mixed_hop(h, texts=[None] * len(h))
    blank = Hierarchy.from_edges([("_", "b")])
    with pytest.raises(DataError, match=r"node '_' \(number 0\) needs a text"):
        tasks.entity_texts(blank)
    with pytest.raises(ParameterError, match="negatives must be"):
        tasks.mixed_hop(h).offered("easy", 0)
    with pytest.raises(DataError, match=r"came as \(1, 2\), \(1, 0\), \(1,\)"):
        tasks.Questions(np.zeros((1, 2), int), np.zeros((1, 0), int), np.zeros(1, bool))
