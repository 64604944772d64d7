"""Names that training never placed: how well is what is above them found, by a model or by rules without one?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.data.hierarchy import Hierarchy
from workbench.data.tasks import Task
from workbench.errors import DataError

Scores = Callable[[int], NDArray]  # node → (N,) numbers, the higher the surer that a node is above it


class Found(NamedTuple):
    """Means over names, in [0, 1]. map: average precision of a name's ancestors among all nodes. parent: how often a
    direct parent is among the first answers."""

    map: float
    parent: float


def unplaced(task: Task) -> NDArray[np.int64]:
    """Nodes whose direct pair is asked for in the test and that occur in no pair of the training: what is above them
    (and below) nobody told. Wrong answers of the training may have named them."""
    asked = task.test.pairs[task.test.direct][:, 1]
    return np.setdiff1d(asked, task.train)


def popularity(task: Task) -> Scores:
    """The number of descendants in training, whatever the name: the same answers for all."""
    known = Hierarchy.from_edges(task.train, task.h.names)
    below = np.bincount(known.closure()[:, 0], minlength=len(known)).astype(float)
    return lambda node: below


def last_words(task: Task) -> Scores:
    """What the name ends in, if training placed a node of that name, and what is above that; then by popularity.

    Of "police dog" the longest such end is "dog". Of several nodes of one name the first is meant.
    """
    known = Hierarchy.from_edges(task.train, task.h.names)
    below, seen = popularity(task)(0), set(task.train.ravel().tolist())
    places = {text: i for i, text in reversed(list(enumerate(task.texts))) if i in seen}

    def scores(node: int) -> NDArray:
        words = task.texts[node].split()
        ends = (places.get(" ".join(words[k:])) for k in range(1, len(words)))
        head = next((end for end in ends if end is not None), None)
        first = np.zeros(len(below))
        if head is not None:
            first[[head, *known.ancestors(head).tolist()]] = 1 + below.max()
        return below + first

    return scores


def found_above(task: Task, scores: Scores, nodes: NDArray, first: int = 10) -> Found:
    """How well scores rank the true ancestors of nodes; of equal scores the earlier node comes first.

    A node is no answer to itself. DataError without nodes, or for one without ancestors.
    """
    if len(nodes) == 0:
        raise DataError("no name was left out of the training: take a larger hierarchy or a larger share")
    precisions, parents = [], []
    for node in np.asarray(nodes).tolist():
        order = np.argsort(-np.asarray(scores(node), dtype=float), kind="stable")
        order = order[order != node]
        right = np.isin(order, task.h.ancestors(node))
        if not right.any():
            raise DataError(f"{task.h.names[node]!r} has nothing above it")
        precisions.append((np.cumsum(right) / np.arange(1, len(right) + 1))[right].mean())
        parents.append(np.isin(order[:first], task.h.parents(node)).any())
    return Found(float(np.mean(precisions)), float(np.mean(parents)))
