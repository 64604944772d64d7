"""Writing an item's name from others': a node's hypernyms, a user's next item, and what needs no model.

What is scored are items, never tuples of tokens: that would reward a tokeniser for giving many items one tuple.
Sources: Piękos, Kayal, Karatzoglou, *Hyperbolic Residual Quantization* (2025), its hypernym generation; Rajput et
al., *Recommender Systems with Generative Retrieval* (2023), its leave-one-out next-item prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from workbench.data.hierarchy import Hierarchy
from workbench.data.interactions import Held, Interactions, padded
from workbench.errors import DataError, ParameterError, suggest
from workbench.models.multitoken import MultitokenTransformer, TokenTrie, beam_search
from workbench.threads import one_thread

Ints = NDArray[np.int64]
KINDS = ("pairs", "direct")

# -- metrics -------------------------------------------------------------------------------------------


def recall_at(items: Int[Tensor, "n width"], target: Int[Tensor, " n"], k: int) -> float:
    """Share of the rows whose target is among their first k items (with one target a row also called hit rate)."""
    return float(_places(items, target, k)[0].mean())


def ndcg_at(items: Int[Tensor, "n width"], target: Int[Tensor, " n"], k: int) -> float:
    """Mean of 1 / log2(1 + place of the target) over the rows, 0 where it is not among the first k items."""
    hit, place = _places(items, target, k)
    return float((hit / np.log2(2 + place)).mean())


def _places(items: Tensor | Ints, target: Tensor | Ints, k: int) -> tuple[NDArray, Ints]:
    """Whether each target is among the first k items of its row (1.0 or 0.0), and at which place from 0."""
    items, target = (np.asarray(torch.as_tensor(a).cpu()) for a in (items, target))
    if k < 1:
        raise ParameterError(f"k must be at least 1, got {k}")
    if items.ndim != 2 or target.shape != items.shape[:1] or not len(target):
        raise ParameterError(
            f"items and targets must be (n, width) and (n,), n at least 1, got {items.shape} and {target.shape}"
        )
    hits = items[:, :k] == target[:, None]
    return hits.any(1).astype(np.float64), hits.argmax(1)


# -- hypernym generation -------------------------------------------------------------------------------


class HypernymSplit(NamedTuple):
    """Closure pairs [source, target] = [node, one of its hypernyms], int64, to learn from and to be asked."""

    train: Ints
    test: Ints


def hypernym_split(
    hierarchy: Hierarchy, test: float = 0.15, seed: int = 42, kind: str = "pairs"
) -> HypernymSplit:
    """A random share of the closure is held out; the same pairs for everything that is compared.

    kind: "pairs" takes it from all pairs, as the paper does: most of them follow from pairs to learn from (see
    `composition_baseline`). "direct" takes it from the edges of the hierarchy, which hardly ever follow.

    ParameterError for an unknown kind or a share that leaves nothing on either side, DataError for a hierarchy
    without pairs.
    """
    if kind not in KINDS:
        raise ParameterError(
            f"kind must be one of {', '.join(KINDS)}, but came as {kind!r}{suggest(kind, KINDS)}"
        )
    closure = hierarchy.closure()
    if not len(closure):
        raise DataError(f"{hierarchy!r} has no pair of a node and a hypernym")
    n = len(hierarchy)
    keys = closure[:, 0] * n + closure[:, 1]
    edges = hierarchy.edges[:, 0] * n + hierarchy.edges[:, 1]
    among = np.arange(len(closure)) if kind == "pairs" else np.flatnonzero(np.isin(keys, edges))
    if not 0 <= test <= 1 or not 0 < round(test * len(among)) < len(closure):
        raise ParameterError(
            f"test must be a share of {len(among)} pairs that leaves both sides some, got {test}"
        )
    held = np.random.default_rng(seed).permutation(among)[: round(test * len(among))]
    mask = np.zeros(len(closure), dtype=bool)
    mask[held] = True
    pairs = closure[:, ::-1].astype(np.int64)
    return HypernymSplit(pairs[~mask].copy(), pairs[mask].copy())


def popularity_baseline(targets: Int[Tensor, " n"], rows: int, k: int = 10) -> Ints:
    """The k most frequent of `targets`, the same for each of `rows` rows (ties: the smaller number first)."""
    counts = np.bincount(np.asarray(targets))
    best = np.argsort(-counts, kind="stable")[:k]
    best = np.pad(np.where(counts[best] > 0, best, -1), (0, k - len(best)), constant_values=-1)
    return np.tile(best.astype(np.int64), (rows, 1))


def composition_baseline(
    train: Int[Tensor, "pairs 2"], sources: Int[Tensor, " s"], k: int = 10, fill: bool = False
) -> Ints:
    """What follows from pairs to learn from alone: u is a w, for a v with "u is a v" and "v is a w", and so on.

    Pairs that are themselves to be learnt from are known and not answered. Of several answers that with more such
    v comes first, then the more popular, then the smaller number.

    train: [source, target]. sources: nodes to answer for. fill: after what follows, the most popular targets that
    are not known: two baselines in one, the strongest that needs no model.

    Returns:
        (S, k) int64, -1 behind the last answer.
    """
    train, sources = np.asarray(train, dtype=np.int64), np.asarray(sources, dtype=np.int64)
    n = int(max(train.max(initial=0), sources.max(initial=0))) + 1
    known = sparse.csr_array((np.ones(len(train), dtype=np.int64), (train[:, 0], train[:, 1])), shape=(n, n))
    votes = _reachable(known) + known @ known
    votes = (votes - votes.multiply(known)).tocsr()[sources].tocoo()
    row, target, count = votes.row[votes.data > 0], votes.col[votes.data > 0], votes.data[votes.data > 0]
    popular = np.bincount(train[:, 1], minlength=n)
    order = np.lexsort((target, -popular[target], -count, row))
    row, target = row[order], target[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    answers = np.full((len(sources), k), -1, dtype=np.int64)
    answers[row[place < k], place[place < k]] = target[place < k]
    return _filled(answers, known[sources], popular) if fill else answers


def _reachable(known: sparse.csr_array) -> sparse.csr_array:
    """1 where a way of one step or more leads."""
    reach = known
    while True:
        further = (reach + reach @ known).tocsr()
        further.data[:] = 1
        if further.nnz == reach.nnz:
            return further
        reach = further


def _filled(answers: Ints, known: sparse.csr_array, popular: Ints) -> Ints:
    """Answers with the most popular targets in the places left, none twice and none that is known."""
    k = answers.shape[1]
    most = int(np.diff(known.indptr).max(initial=0))
    best = [w for w in np.argsort(-popular, kind="stable")[: 2 * k + most].tolist() if popular[w]]
    for i in np.flatnonzero(answers[:, -1] < 0).tolist():
        have = [w for w in answers[i].tolist() if w >= 0]
        taken = {*have, *known.indices[known.indptr[i] : known.indptr[i + 1]].tolist()}
        have = (have + [w for w in best if w not in taken])[:k]
        answers[i, : len(have)] = have
    return answers


@dataclass(frozen=True)
class HypernymResult:
    """Scores over test pairs, each source asked once: shares of the targets among the first k items.

    recall, ndcg: of the model, means over pairs. recall_by_source: mean over sources of their own recalls.
    popularity, composition, composition_filled: recall of what needs no model (see the baselines).
    sources, found: (S,) nodes asked and (S, width) items answered.
    """

    recall: float
    ndcg: float
    recall_by_source: float
    popularity: float
    composition: float
    composition_filled: float
    k: int
    n_pairs: int
    n_sources: int
    sources: Ints = field(repr=False)
    found: Ints = field(repr=False)


def hypernym_generation(
    model: MultitokenTransformer, trie: TokenTrie, split: HypernymSplit, k: int = 10, width: int = 10
) -> HypernymResult:
    """Ask the model for the hypernyms of every node in the test pairs, by a beam search of `width` (at least k).

    Hypernyms that were learnt from are not taken out of the answers (as in the paper); the baselines by composition
    do leave them out. The trie's items are the hierarchy's nodes. Errors as `beam_search`.
    """
    sources, row = np.unique(split.test[:, 0], return_inverse=True)
    target = split.test[:, 1]
    found = _found(model, trie, sources[:, None], max(k, width))
    follows = [composition_baseline(split.train, sources, k, fill)[row] for fill in (False, True)]
    hit = _places(found[row], target, k)[0]
    own = np.bincount(row, hit) / np.bincount(row)
    return HypernymResult(
        recall=float(hit.mean()),
        ndcg=ndcg_at(found[row], target, k),
        recall_by_source=float(own.mean()),
        popularity=recall_at(popularity_baseline(split.train[:, 1], len(target), k), target, k),
        composition=recall_at(follows[0], target, k),
        composition_filled=recall_at(follows[1], target, k),
        k=k,
        n_pairs=len(target),
        n_sources=len(sources),
        sources=sources,
        found=found,
    )


def _found(model: MultitokenTransformer, trie: TokenTrie, items: Ints, width: int) -> Ints:
    device = trie.codes.device
    with one_thread():
        source = trie.tokens(torch.as_tensor(items, device=device))
        return beam_search(model, source, trie, width).items.cpu().numpy()


# -- next items ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NextItemResult:
    """recall, ndcg: of the model, and popularity_recall, popularity_ndcg: of the training data's most frequent
    items, by number of items k; means over `n` targets."""

    recall: dict[int, float]
    ndcg: dict[int, float]
    popularity_recall: dict[int, float]
    popularity_ndcg: dict[int, float]
    n: int
    found: Ints = field(repr=False)


def next_item_generation(
    model: MultitokenTransformer,
    trie: TokenTrie,
    data: Interactions,
    held: Held | None = None,
    ks: Sequence[int] = (5, 10),
    width: int = 20,
) -> NextItemResult:
    """Ask the model for the item after each history of `held` (by default the test targets), among all items.

    The newest `model.config.history` items of a history are read. Items already taken may be answered, as they
    may be taken again. The trie's items are those of the data. Errors as `beam_search`.
    """
    held = data.test if held is None else held
    histories, _ = padded(held.histories, model.config.history)
    found = _found(model, trie, histories, max(width, *ks))
    popular = popularity_baseline(np.concatenate(data.train), len(held.targets), max(ks))
    scores = [
        {k: metric(items, held.targets, k) for k in ks}
        for items in (found, popular)
        for metric in (recall_at, ndcg_at)
    ]
    return NextItemResult(*scores, n=len(held.targets), found=found)
