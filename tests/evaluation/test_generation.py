import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.data import Hierarchy, interactions, trees, wordnet
from workbench.errors import DataError, ParameterError
from workbench.evaluation.generation import (
    composition_baseline,
    hypernym_generation,
    hypernym_split,
    ndcg_at,
    next_item_generation,
    popularity_baseline,
    recall_at,
)
from workbench.models.multitoken import MultitokenConfig, MultitokenTransformer, TokenTrie

TREE = trees.balanced(3, 4)


def names(n, size=8):
    return torch.stack(
        [torch.arange(n) // size // size, torch.arange(n) // size % size, torch.arange(n) % size], 1
    )


def untrained(trie, **changes):
    torch.manual_seed(0)
    return MultitokenTransformer(
        MultitokenConfig.for_codes(trie.codes, dim=16, heads=2, hidden=16, **changes)
    )


# -- metrics -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(1, 12))
def test_recall_and_ndcg_of_a_known_order_are_their_definitions(targets, k):
    items = np.tile(np.arange(10), (len(targets), 1))  # item i at place i + 1
    gains = [1 / math.log2(t + 2) if t < min(k, 10) else 0.0 for t in targets]
    assert recall_at(items, np.array(targets), k) == pytest.approx(np.mean([g > 0 for g in gains]))
    assert ndcg_at(torch.from_numpy(items), torch.tensor(targets), k) == pytest.approx(np.mean(gains))


def test_metrics_refuse_what_does_not_fit():
    for items, target, k in (([[1]], [1], 0), ([[1]], [1, 2], 1), ([1], [1], 1), (np.empty((0, 3)), [], 1)):
        with pytest.raises(ParameterError):
            recall_at(np.array(items), np.array(target), k)


# -- hypernyms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pairs", "direct"])
def test_a_split_divides_the_closure_and_is_the_same_for_a_seed(kind):
    split = hypernym_split(TREE, 0.15, seed=3, kind=kind)
    closure = {(d, a) for a, d in TREE.closure().tolist()}
    train, test = ({tuple(p) for p in part.tolist()} for part in split)
    assert train | test == closure and not train & test
    edges = {(d, a) for a, d in TREE.edges.tolist()}
    assert len(test) == round(0.15 * len(closure if kind == "pairs" else edges))
    assert kind == "pairs" or test <= edges
    again, other = hypernym_split(TREE, 0.15, 3, kind), hypernym_split(TREE, 0.15, 4, kind)
    assert np.array_equal(split.test, again.test) and not np.array_equal(split.test, other.test)


def test_splits_that_cannot_be_made_are_refused():
    with pytest.raises(DataError, match="no pair"):
        hypernym_split(Hierarchy.from_edges([], names=["a", "b"]))
    for test in (0.0, 1.0, float("nan"), -1):
        with pytest.raises(ParameterError, match="share"):
            hypernym_split(TREE, test)
    with pytest.raises(ParameterError, match="did you mean 'pairs'"):
        hypernym_split(TREE, kind="pair")


def test_popularity_answers_the_most_frequent_targets_to_everyone():
    best = popularity_baseline(np.array([4, 4, 2, 2, 2, 7]), rows=2, k=4)
    assert best.tolist() == [[2, 4, 7, -1]] * 2


def what_follows(train, u, k):
    """By networkx: descendants in the graph of the training pairs, in the documented order."""
    g = nx.DiGraph(map(tuple, train.tolist()))
    if u not in g:
        return []
    new = nx.descendants(g, u) - set(g.successors(u))
    votes = {w: sum(g.has_edge(v, w) for v in g.successors(u)) for w in new}
    return sorted(new, key=lambda w: (-votes[w], -g.in_degree(w), w))[:k]


@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_composition_answers_what_follows_from_training_pairs(seed, k):
    split = hypernym_split(trees.balanced(2, 7), 0.5, seed)
    sources = np.unique(split.test[:, 0])
    answers = composition_baseline(split.train, sources, k)
    filled = composition_baseline(split.train, sources, k, fill=True)
    known = {u: {w for v, w in split.train.tolist() if v == u} for u in sources.tolist()}
    for u, row, full in zip(sources.tolist(), answers.tolist(), filled.tolist(), strict=True):
        expected = what_follows(split.train, u, k)
        assert row == expected + [-1] * (k - len(expected))
        assert full[: len(expected)] == expected and not known[u] & set(full) and len(set(full)) == k


def test_direct_pairs_of_a_tree_never_follow():
    split = hypernym_split(TREE, 0.3, kind="direct")
    answers = composition_baseline(split.train, split.test[:, 0])
    assert recall_at(answers, split.test[:, 1], 10) == 0


def test_mammals_have_the_published_baselines():
    split = hypernym_split(wordnet.mammals())
    assert len(split.test) == 981
    sources, target = split.test.T
    popular = recall_at(popularity_baseline(split.train[:, 1], len(target)), target, 10)
    follows = recall_at(composition_baseline(split.train, sources), target, 10)
    assert popular == pytest.approx(0.619, abs=0.03)  # of another draw of the pairs
    assert follows == pytest.approx(0.765, abs=0.03)


def test_hypernyms_are_scored_by_items_and_each_source_is_asked_once():
    split, trie = hypernym_split(TREE), TokenTrie(names(len(TREE)))
    everything = hypernym_generation(untrained(trie), trie, split, k=len(TREE), width=len(TREE))
    assert everything.recall == everything.recall_by_source == 1.0  # all items are among all items
    some = hypernym_generation(untrained(trie), trie, split, k=10)
    at = {u: i for i, u in enumerate(some.sources.tolist())}
    hits = [t in some.found[at[u], :10] for u, t in split.test.tolist()]
    assert some.recall == pytest.approx(np.mean(hits)) and some.n_sources == len(at) < some.n_pairs
    own = [np.mean([h for h, (v, _) in zip(hits, split.test.tolist(), strict=True) if v == u]) for u in at]
    assert some.recall_by_source == pytest.approx(np.mean(own))
    assert "found" not in repr(some)


def test_next_items_are_asked_for_every_user_with_a_target():
    data = interactions.synthetic(n_users=30, n_items=90, branching=3, depth=2)
    trie = TokenTrie(names(data.n_items))
    model = untrained(trie, history=5)
    result = next_item_generation(model, trie, data, ks=(1, 10, 90), width=90)
    assert result.n == len(data.test.targets) and result.recall[90] == 1.0
    assert result.recall[1] <= result.recall[10] and result.ndcg[10] <= result.recall[10]
    counts = np.bincount(np.concatenate(data.train), minlength=90)
    top = np.argsort(-counts, kind="stable")[:10]
    assert result.popularity_recall[10] == pytest.approx(np.isin(data.test.targets, top).mean())
    valid = next_item_generation(model, trie, data, data.valid, ks=(10,))
    assert valid.found.shape == (result.n, 20)
