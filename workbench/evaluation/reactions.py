"""How a recommender reacts when a history changes: who moves up, who down, and how much of the list stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.data.interactions import padded
from workbench.errors import ParameterError, suggest
from workbench.models.catalogue import Catalogue
from workbench.threads import one_thread

Ints = NDArray[np.int64]


class Move(NamedTuple):
    """An item's rank now and before (0: it was in the history, or there was no before)."""

    item: int
    rank: int
    before: int

    @property
    def up(self) -> int:
        """Places gained; 0 where there is nothing to compare with."""
        return self.before - self.rank if self.before else 0


def standings(model: Catalogue, histories: Sequence[Ints], batch: int = 256) -> tuple[Ints, NDArray]:
    """Where every item stands after each history.

    Returns:
        (n, V) int64 ranks, from 1 among the items not in the history, 0 for those in it; ties by item number.
        (n, V) float64 scores that sort so.

    Raises:
        ParameterError: an empty history (a model has no opinion before the first item).
    """
    if not all(len(h) for h in histories):
        raise ParameterError("a history needs at least one item, but one of them is empty")
    device = next(iter(model.state_dict().values())).device
    ranks, scores = [], []
    with one_thread(), torch.no_grad():
        for start in range(0, len(histories), batch):
            some = [np.asarray(h, dtype=np.int64) for h in histories[start : start + batch]]
            table, sizes = padded(some, min(model.max_len, max(map(len, some))), fill=0)
            mask = np.arange(table.shape[1]) < sizes[:, None]
            found = model.score_last(*(torch.from_numpy(a).to(device) for a in (table, mask)))
            scores.append(found.double().cpu().numpy())
            ranks += [_ranks(row, history) for row, history in zip(scores[-1], some, strict=True)]
    return np.array(ranks), np.concatenate(scores)


def _ranks(scores: NDArray, history: Ints) -> Ints:
    free = np.ones(len(scores), dtype=bool)
    free[history] = False
    order = np.argsort(-scores, kind="stable")
    order = order[free[order]]
    ranks = np.zeros(len(scores), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def first(ranks: Ints, k: int = 10) -> Ints:
    """The k best items, best first, of one row of ranks; fewer if there are no more."""
    order = np.argsort(ranks, kind="stable")
    return order[ranks[order] > 0][:k]


def moves(before: Ints | None, after: Ints, k: int = 10) -> tuple[list[Move], list[Move]]:
    """The first k after a change, with where they stood before, and those of the first k before that fell out."""
    earlier = np.zeros_like(after) if before is None else before
    listed = [Move(i, int(after[i]), int(earlier[i])) for i in first(after, k).tolist()]
    fell = [] if before is None else [i for i in first(before, k).tolist() if after[i] > k]
    return listed, [Move(i, int(after[i]), int(before[i])) for i in fell]


def shared(a: Ints, b: Ints, k: int = 10) -> NDArray[np.float64]:
    """(n,) share of the first k by ranks a (n, V) that are among the first k by ranks b."""
    both = (a > 0) & (a <= k) & (b > 0) & (b <= k)
    return both.sum(1) / k


# -- changes of a history ------------------------------------------------------------------------------------

Change = Callable[[Ints, np.random.Generator], Ints]
CHANGES: dict[str, Change] = {
    "the oldest item left out": lambda h, rng: h[1:],
    "the newest item left out": lambda h, rng: h[:-1],
    "older half left out": lambda h, rng: h[len(h) // 2 :],
    "all but the newest shuffled": lambda h, rng: np.append(rng.permutation(h[:-1]), h[-1]),
    "all shuffled": lambda h, rng: rng.permutation(h),
}


def changed(histories: Sequence[Ints], how: str, seed: int = 0) -> list[Ints]:
    """Histories after one of `CHANGES`. ParameterError for another change, or a history of fewer than two items."""
    if how not in CHANGES:
        raise ParameterError(f"no change {how!r}; there are {', '.join(CHANGES)}{suggest(how, CHANGES)}")
    if any(len(h) < 2 for h in histories):
        raise ParameterError("a history needs at least two items to be changed, but one has fewer")
    return [CHANGES[how](np.asarray(h), np.random.default_rng([seed, i])) for i, h in enumerate(histories)]


# -- what lists are made of ------------------------------------------------------------------------------------


def kept(
    model: Catalogue, histories: Sequence[Ints], how: str, k: int = 10, seed: int = 0
) -> NDArray[np.float64]:
    """(n,) share of the first k that stays when each history is changed as one of `CHANGES` says."""
    before, after = (standings(model, some)[0] for some in (histories, changed(histories, how, seed)))
    return shared(before, after, k)


def foreign(items: Ints, kinds: NDArray, large: Sequence, counts: Ints, n: int = 5) -> tuple[str, Ints]:
    """The kind, of some large ones, that a history has least of, and the n most popular items of it that are not in
    the history. kinds, counts: of each item."""
    kind = min(large, key=lambda k: (kinds[items] == k).mean())
    order = np.argsort(-counts, kind="stable")
    return kind, order[(kinds[order] == kind) & ~np.isin(order, items)][:n]


def share_of_kind(ranks: Ints, kinds: NDArray, wanted: Sequence, k: int = 10) -> NDArray[np.float64]:
    """(n,) share of the first k of each row that is of the kind wanted for it."""
    listed = (ranks > 0) & (ranks <= k)
    return (listed & (kinds[None] == np.asarray(wanted)[:, None])).sum(1) / k


def places(ranks: Ints, groups: Ints, k: int = 10) -> NDArray[np.float64]:
    """Share of all places of all lists that goes to each group of items, numbered from 0."""
    listed = ((ranks > 0) & (ranks <= k)).sum(0)
    return np.bincount(groups, weights=listed, minlength=int(groups.max()) + 1) / listed.sum()
