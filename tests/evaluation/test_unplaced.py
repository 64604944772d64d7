"""How names that training never placed are answered: against definitions written out, and by hand."""

import numpy as np
import pytest

from workbench.data import Hierarchy
from workbench.data.tasks import mixed_hop
from workbench.errors import DataError
from workbench.evaluation.unplaced import found_above, last_words, popularity, unplaced

PAIRS = [("animal", "dog"), ("animal", "cat"), ("animal", "old dog"), ("dog", "police dog"), ("dog", "pug")]
PAIRS += [("cat", f"cat {i}") for i in range(8)] + [("dog", f"very old dog {i}") for i in range(30)]


def share_above(score, ancestor, node, h) -> float:
    """Among the nodes that score at least as well as an ancestor, the share that are ancestors."""
    ahead = [v for v in range(len(h)) if v != node and score[v] >= score[ancestor]]
    return sum(v in h.ancestors(node) for v in ahead) / len(ahead)


@pytest.fixture(scope="module")
def task():
    return mixed_hop(Hierarchy.from_edges(PAIRS), share=0.2, seed=1)


def test_unplaced_names_are_asked_for_and_in_no_training_pair(task):
    nodes = unplaced(task)
    asked = {d for (_, d), direct in zip(task.test.pairs.tolist(), task.test.direct, strict=True) if direct}
    told = {v for pair in task.train.tolist() for v in pair}
    assert set(nodes.tolist()) == asked - told and len(nodes)


def test_average_precision_is_its_definition_and_parents_are_looked_for_in_the_first(task):
    rng, nodes = np.random.default_rng(0), unplaced(task)
    table = {int(v): rng.permutation(len(task.h)).astype(float) for v in nodes}
    expected, parents = [], []
    for v, score in table.items():
        others = np.delete(np.arange(len(task.h)), v)
        expected.append(np.mean([share_above(score, a, v, task.h) for a in task.h.ancestors(v)]))
        parents.append(bool(set(others[np.argsort(-score[others])[:3]]) & set(task.h.parents(v).tolist())))
    found = found_above(task, table.__getitem__, nodes, first=3)
    assert found.map == pytest.approx(np.mean(expected)) and found.parent == pytest.approx(np.mean(parents))


def test_popularity_counts_descendants_in_the_training_pairs_only(task):
    known = Hierarchy.from_edges(task.train, task.h.names)
    assert popularity(task)(3).tolist() == [len(known.descendants(v)) for v in range(len(known))]


def test_the_longest_known_end_of_a_name_and_what_is_above_it_come_first(task):
    scores = last_words(task)
    if "dog" in {task.h.names[v] for v in task.train.ravel()}:
        node = task.h.index("police dog")
        best = np.argsort(-scores(node), kind="stable")[: 1 + len(task.h.ancestors("dog"))]
        assert task.h.index("dog") in best
    assert scores(task.h.index("pug")).tolist() == popularity(task)(0).tolist()


def test_no_names_and_a_root_are_refused(task):
    with pytest.raises(DataError, match="left out"):
        found_above(task, popularity(task), np.array([], dtype=int))
    with pytest.raises(DataError, match="nothing above"):
        found_above(task, popularity(task), np.array([task.h.index("animal")]))
