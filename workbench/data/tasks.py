"""Subsumption tasks on a hierarchy: "is this entity a kind of that one?", asked of 1 true and k wrong ancestors.

Two tasks of *Language Models as Hierarchy Encoders* (HiT, NeurIPS 2024), which *Hierarchical Mamba* (HiM, arXiv
2505.18973) takes over. An edge of the hierarchy is a direct pair, every other pair of its closure an indirect one.

- multi-hop inference: all direct pairs are known; the questions are indirect ones. A lookup in the closure of what
  is known answers them all: it measures storage.
- mixed-hop prediction: a share of the direct pairs is held out as well, so that some answers follow from nothing.

Wrong ancestors of a question about d are never d itself and never one of its ancestors:

- random: any node alike.
- hard: siblings of d (children of its parents), all different; random ones where siblings run out.
- matched: as popular as true answers, drawn from the ancestors of all closure pairs. Wrong nodes of the other kinds
  are mostly leaves, so that "the one with more descendants" is nearly always right; here it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbench.data._graph import Ints, readonly
from workbench.data.hierarchy import Hierarchy
from workbench.errors import DataError, ParameterError, suggest

KINDS = ("random", "hard", "matched")
ROUNDS = 20  # of drawing again what came out true, before the few slots left over are drawn from full lists
ROWS = 1 << 16  # questions drawn for at once: bounds the memory
TRAIN, VALID, TEST, DIRECT, INDIRECT = range(5)  # each a random stream of its own


@dataclass(frozen=True, eq=False)
class Questions:
    """True pairs, and for each the nodes offered instead of its ancestor.

    Attributes:
        pairs: (Q, 2) int64 [ancestor, descendant].
        wrong: (Q, k) int64.
        direct: (Q,) bool, whether the pair is an edge of the hierarchy.
        kind: how the wrong ones were drawn: "random", "hard" or "matched".
    """

    pairs: Ints
    wrong: Ints
    direct: NDArray[np.bool_]
    kind: str = "random"

    def __post_init__(self) -> None:
        shapes = [np.shape(a) for a in (self.pairs, self.wrong, self.direct)]
        n = len(self.pairs)
        fits = shapes[0] == (n, 2) and shapes[2] == (n,) and len(shapes[1]) == 2 and shapes[1][0] == n
        if not fits or 0 in shapes[1]:
            came = ", ".join(map(str, shapes))
            raise DataError(f"pairs, wrong and direct must be (Q, 2), (Q, k) and (Q,), but came as {came}")

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def k(self) -> int:
        """Wrong ones a question."""
        return self.wrong.shape[1]

    def labelled(self) -> tuple[Ints, NDArray[np.bool_], NDArray[np.bool_]]:
        """One row a possible answer: question by question, the true pair first, then its k wrong ones.

        Returns:
            pairs (Q (1 + k), 2); label, true where the pair holds; direct, of the true pair of the question.
        """
        width = 1 + self.k
        offered = np.concatenate([self.pairs[:, :1], self.wrong], axis=1)
        pairs = np.column_stack([offered.ravel(), np.repeat(self.pairs[:, 1], width)])
        return pairs, np.arange(len(pairs)) % width == 0, np.repeat(self.direct, width)


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """What a model is trained and asked on.

    Attributes:
        name: "mixed-hop", "multi-hop", or what the caller calls it.
        h: the complete hierarchy.
        texts: the text of each node, all that an encoder sees of it.
        train: (P, 2) int64 [ancestor, descendant], all of them direct.
        train_wrong: (P, k) int64, nodes that are not ancestors of the descendant.
        valid, test: questions; their pairs are not in train, nor in each other.
    """

    name: str
    h: Hierarchy
    texts: tuple[str, ...]
    train: Ints
    train_wrong: Ints
    valid: Questions
    test: Questions

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} train, {len(self.valid):,} valid, {len(self.test):,} test"
        return f"Task({self.name!r}, {len(self.h):,} nodes, {sizes} pairs, {self.test.kind} negatives)"

    def offered(self, kind: str, seed: int) -> Task:
        """The same task with other wrong nodes in valid and test: `kind`, drawn with `seed`.

        Raises:
            ParameterError: an unknown kind, or a negative seed.
        """
        valid, test = (
            _questions(self.h, old.pairs, kind, old.k, seed, stream)
            for old, stream in ((self.valid, VALID), (self.test, TEST))
        )
        return replace(self, valid=valid, test=test)


# -- building --------------------------------------------------------------------------------------------


def mixed_hop(
    h: Hierarchy,
    *,
    negatives: str = "hard",
    train_negatives: str = "hard",
    k: int = 10,
    share: float = 0.05,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "mixed-hop",
) -> Task:
    """Train on all direct pairs but 2·share of them; valid and test hold a share each of direct and indirect pairs.

    Args:
        h: any hierarchy.
        negatives, train_negatives: kind of the wrong nodes of valid and test, and of training: "random", "hard"
            or "matched".
        k: wrong nodes a pair.
        share: of the direct and of the indirect pairs, for each of valid and test; above 0, below 0.5.
        texts: one a node (default `entity_texts(h)`).
        seed: same seed, same task. The indirect pairs of valid and test are those of `multi_hop`, and the kinds of
            wrong nodes do not change which pairs are held out.

    Raises:
        DataError: a hierarchy without edges, too few pairs for that share, an empty text, or a node with nothing
            wrong to offer.
        ParameterError: an unknown kind, k < 1, a negative seed, or a share out of range.
    """
    direct, indirect = direct_and_indirect(h)
    held, kept = _hold_out(direct, share, "direct", seed, DIRECT)
    far, _ = _hold_out(indirect, share, "indirect", seed, INDIRECT)
    parts = [_sorted(np.concatenate(two)) for two in zip(held, far, strict=True)]
    return _task(name, h, texts, kept, parts, negatives, train_negatives, k, seed)


def multi_hop(
    h: Hierarchy,
    *,
    negatives: str = "hard",
    train_negatives: str = "hard",
    k: int = 10,
    share: float = 0.05,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    name: str = "multi-hop",
) -> Task:
    """Train on all direct pairs; valid and test hold a share each of the indirect pairs. Otherwise as `mixed_hop`."""
    direct, indirect = direct_and_indirect(h)
    parts, _ = _hold_out(indirect, share, "indirect", seed, INDIRECT)
    return _task(name, h, texts, direct, [_sorted(p) for p in parts], negatives, train_negatives, k, seed)


def entity_texts(h: Hierarchy) -> tuple[str, ...]:
    """The text of each node: its label (its name where that is blank) in lower case, "_" as a space, trimmed.

    Raises:
        DataError: nothing is left of a node's label and name; says which node.
    """
    texts = [_plain(label) or _plain(name) for label, name in zip(h.labels, h.names, strict=True)]
    return _checked_texts(texts, h)


def direct_and_indirect(h: Hierarchy) -> tuple[Ints, Ints]:
    """The closure pairs [ancestor, descendant] that are edges of h, and those that are not.

    Raises:
        DataError: h has no edge.
    """
    if len(h.edges) == 0:
        raise DataError(
            f"a task needs a root with something below it, but these {len(h):,} nodes have no edge"
        )
    closure = h.closure()
    is_edge = contains(_sorted(h.edges), closure, len(h))
    return closure[is_edge], closure[~is_edge]


def contains(known: Ints, pairs: Ints, n: int) -> NDArray[np.bool_]:
    """Which of `pairs` (..., 2) are among `known` (P, 2), sorted by descendant then ancestor as a closure is.

    n is the number of nodes.
    """
    keys, wanted = known[:, 1] * n + known[:, 0], pairs[..., 1] * n + pairs[..., 0]
    if len(keys) == 0:
        return np.zeros(wanted.shape, dtype=bool)
    place = np.searchsorted(keys, wanted)
    return keys[np.minimum(place, len(keys) - 1)] == wanted


def wrong_nodes(h: Hierarchy, pairs: Ints, kind: str, k: int, rng: np.random.Generator) -> Ints:
    """k nodes a pair [ancestor, descendant] to offer instead of its ancestor; (P, k) int64.

    Never the descendant or one of its ancestors. "random" and "matched" are drawn with replacement, the siblings of
    "hard" without. Where a kind has too few (no sibling left; every inner node is an ancestor), random ones follow.

    Raises:
        DataError: all nodes but the descendant itself are its ancestors.
        ParameterError: an unknown kind, or k < 1.
    """
    if kind not in KINDS:
        raise ParameterError(f"negatives must be {', '.join(KINDS)}, not {kind!r}{suggest(kind, KINDS)}")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ParameterError(f"k must be a whole number of wrong nodes, at least 1, not {k!r}")
    child = np.asarray(pairs)[:, 1]
    blocks = [child[i : i + ROWS] for i in range(0, len(child), ROWS)]
    draw = {"hard": _siblings, "matched": _matched, "random": _random}[kind]
    return np.concatenate([np.empty((0, k), np.int64), *(draw(h, block, int(k), rng) for block in blocks)])


# -- parts -----------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    return text.replace("_", " ").lower().strip()


def _checked_texts(texts: Sequence[str], h: Hierarchy) -> tuple[str, ...]:
    texts = tuple(texts)
    if len(texts) != len(h):
        raise DataError(f"texts must be one a node ({len(h):,}), but came as {len(texts):,}")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"node {h.names[i]!r} (number {i}) needs a text, but has {text!r}")
    return texts


def _sorted(pairs: Ints) -> Ints:
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]


def _generator(seed: int, stream: int) -> np.random.Generator:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ParameterError(f"seed must be a whole number of at least 0, not {seed!r}")
    return np.random.default_rng([seed, stream])


def _hold_out(pairs: Ints, share: float, what: str, seed: int, stream: int) -> tuple[list[Ints], Ints]:
    """A share of `pairs` for valid, as many for test, and what is left."""
    if not isinstance(share, int | float) or not 0 < share < 0.5:
        raise ParameterError(f"share must be above 0 and below 0.5, not {share!r}")
    n = round(share * len(pairs))
    if n < 1:
        raise DataError(
            f"too few {what} pairs: a share of {share:g} of {len(pairs)} is not one pair each for valid and test; "
            "take a larger hierarchy or a larger share"
        )
    order = _generator(seed, stream).permutation(len(pairs))
    return [pairs[order[:n]], pairs[order[n : 2 * n]]], pairs[np.sort(order[2 * n :])]


def _task(name, h, texts, train, parts, negatives, train_negatives, k, seed) -> Task:
    texts = entity_texts(h) if texts is None else _checked_texts(texts, h)
    rng = _generator(seed, TRAIN)
    train_wrong = wrong_nodes(h, train, train_negatives, k, rng)
    valid, test = (
        _questions(h, part, negatives, k, seed, stream)
        for part, stream in zip(parts, (VALID, TEST), strict=True)
    )
    return Task(name, h, texts, readonly(train), readonly(train_wrong), valid, test)


def _questions(h: Hierarchy, pairs: Ints, kind: str, k: int, seed: int, stream: int) -> Questions:
    wrong = wrong_nodes(h, pairs, kind, k, _generator(seed, stream))
    direct = contains(_sorted(h.edges), pairs, len(h))
    return Questions(readonly(pairs), readonly(wrong), readonly(direct), kind)


def _is_true(h: Hierarchy, node: Ints, child: Ints) -> NDArray[np.bool_]:
    """Whether `node` may not be offered for `child`: it is the child, or above it."""
    return (node == child) | contains(h.closure(), np.stack([node, child], axis=-1), len(h))


def _random(h: Hierarchy, child: Ints, k: int, rng: np.random.Generator) -> Ints:
    return _draw(h, child, k, rng, np.arange(len(h)))


def _matched(h: Hierarchy, child: Ints, k: int, rng: np.random.Generator) -> Ints:
    return _draw(h, child, k, rng, h.closure()[:, 0])


def _draw(h: Hierarchy, child: Ints, k: int, rng: np.random.Generator, pool: Ints) -> Ints:
    """(len(child), k) drawn from `pool`, a list of nodes (each as often as it stands there) less the true ones."""
    source = np.repeat(child, k)
    out = np.empty(len(source), dtype=np.int64)
    todo = np.arange(len(source))
    for _ in range(ROUNDS):
        out[todo] = pool[rng.integers(len(pool), size=len(todo))]
        todo = todo[_is_true(h, out[todo], source[todo])]
        if len(todo) == 0:
            return out.reshape(-1, k)
    weight = np.bincount(pool, minlength=len(h))
    for node in np.unique(source[todo]):
        slots = todo[source[todo] == node]
        out[slots] = _from_full_list(h, int(node), weight, len(slots), rng)
    return out.reshape(-1, k)


def _from_full_list(h: Hierarchy, node: int, weight: Ints, size: int, rng: np.random.Generator) -> Ints:
    """`size` wrong nodes for one node by `weight`, all alike where the weights of all wrong ones are 0."""
    left = np.ones(len(h), dtype=bool)
    left[[node, *h.ancestors(node).tolist()]] = False
    if not left.any():
        raise DataError(
            f"nothing wrong can be offered for {h.names[node]!r}: all other nodes are its ancestors"
        )
    chances = np.where(left, weight, 0)
    chances = chances if chances.any() else left
    return rng.choice(len(h), size=size, p=chances / chances.sum())


def _siblings(h: Hierarchy, child: Ints, k: int, rng: np.random.Generator) -> Ints:
    """Up to k different siblings a child in random order, then random nodes.

    A child's siblings are the children of its parents, one list after the other: of a short list all are looked at,
    of a list longer than 4k as many drawn from it. So no memory grows with the number of siblings.
    """
    up_start, parent = h._up
    down_start, down = h._down
    # The list of siblings of node i is numbered from base[up_start[i]] to base[up_start[i + 1]] over all nodes.
    base = np.concatenate([[0], np.cumsum(np.diff(down_start)[parent])])
    first, last = base[up_start[child]][:, None], base[up_start[child + 1]][:, None]
    width = 4 * k
    place = np.broadcast_to(np.arange(width), (len(child), width))
    drawn = (rng.random(place.shape) * (last - first)).astype(np.int64)
    place = np.where(last - first > width, drawn, place)
    inside = place < last - first
    number = np.where(inside, first + place, 0)
    edge = np.searchsorted(base, number, side="right") - 1
    node = down[down_start[parent[edge]] + number - base[edge]]
    usable = inside & ~_is_true(h, node, np.broadcast_to(child[:, None], node.shape))
    return _first_different(node, usable, k, rng, _random(h, child, k, rng))


def _first_different(node: Ints, usable: NDArray, k: int, rng: np.random.Generator, spare: Ints) -> Ints:
    """k usable nodes a row, no node twice, in random order; the rest of the row from `spare` (rows, k)."""
    order = np.lexsort((rng.random(node.shape), ~usable), axis=1)  # usable ones first, shuffled
    node, usable = np.take_along_axis(node, order, 1), np.take_along_axis(usable, order, 1)
    by_node = np.lexsort((~usable, node), axis=1)
    values = np.take_along_axis(node, by_node, 1)
    again = np.zeros_like(usable)
    np.put_along_axis(again, by_node[:, 1:], values[:, 1:] == values[:, :-1], 1)
    usable &= ~again
    front = np.argsort(~usable, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(usable, front, 1), np.take_along_axis(node, front, 1), spare)
