"""Is the next item among the first k? Full ranking, measures, intervals between models, slices of the targets.

Every target is ranked among all items of the data, never among a sample of them: sampled ranking can turn the order
of models round (Krichene, Rendle, *On Sampled Metrics for Item Recommendation*, KDD 2020). Whether items that a user
has had compete changes the numbers much where nobody takes an item twice, and published tables differ in it
(RecBole's sequential models let them compete, most others do not): always say which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from workbench.data.interactions import Held, Interactions, padded
from workbench.errors import DataError, ParameterError, suggest
from workbench.evaluation.item_hyperbolicity import ItemDelta, item_delta
from workbench.threads import one_thread

__all__ = [
    "Interval",
    "ItemDelta",
    "RankingReport",
    "Slice",
    "TargetRanks",
    "both_ranks",
    "by_length",
    "by_popularity",
    "item_delta",
    "paired_bootstrap",
    "per_user",
    "popularity_ranks",
    "report",
    "target_ranks",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scores = Callable[[Int[Tensor, "n length"], Bool[Tensor, "n length"]], Float[Tensor, "n items"]]

KS = (5, 10, 20, 40)
METRICS = ("hr", "ndcg", "mrr")
BLOCK = 1 << 25  # scores held at a time: 134 MB of float32

# -- ranks -----------------------------------------------------------------------------------------


class TargetRanks(NamedTuple):
    """Ranks of the same targets among the items not in their history, and among all items; each float64 (M,)."""

    masked: Floats
    unmasked: Floats


def target_ranks(
    score_function: Scores,
    held: Held,
    n_items: int,
    *,
    max_len: int = 50,
    seen: bool = True,
    batch: int = 256,
    device: torch.device | str | None = None,
) -> Floats:
    """Rank of each target among all items, 1 is the best: 1 + items of higher score + half of those that tie.

    Half of the ties, so that a model which gives every item one score has the rank of a guess and not the first.

    Args:
        score_function: (items (n, L) int64, mask (n, L) bool) → scores (n, n_items), the higher the likelier.
            Histories are cut to their last `max_len` items, padded on the right with item 0 where the mask is
            False, and come sorted by length, so that L is that of the longest of its batch.
        seen: mask the seen, that is, leave the items of the whole history out of the ranking (but never the
            target). `both_ranks` gives both for the price of one.
        batch: histories at a time; fewer where their scores would take more than 134 MB.
        device: where the histories are put.

    Returns:
        float64 (M,), in the order of `held`.

    Raises:
        DataError: no targets, an empty history, or an item outside 0 … n_items−1; names the row.
        ParameterError: max_len or batch below 1, or scores of another shape or with NaN among them.
    """
    ranks = both_ranks(score_function, held, n_items, max_len=max_len, batch=batch, device=device)
    return ranks.masked if seen else ranks.unmasked


def both_ranks(
    score_function: Scores,
    held: Held,
    n_items: int,
    *,
    max_len: int = 50,
    batch: int = 256,
    device: torch.device | str | None = None,
) -> TargetRanks:
    """`target_ranks` with and without the items of the history, from one pass over the model."""
    for name, value in (("max_len", max_len), ("batch", batch)):
        if value < 1:
            raise ParameterError(f"{name} must be at least 1, but came as {value}")
    sizes = _checked_sizes(held, n_items)
    ranks = TargetRanks(np.empty(len(sizes)), np.empty(len(sizes)))
    rows_at_once = max(1, min(batch, BLOCK // n_items))
    order = np.argsort(sizes, kind="stable")
    with one_thread(), torch.no_grad():
        for rows in np.split(order, range(rows_at_once, len(order), rows_at_once)):
            histories = [held.histories[row] for row in rows.tolist()]
            width = min(max_len, int(sizes[rows[-1]]))
            table, kept = (torch.from_numpy(a).to(device) for a in padded(histories, width, fill=0))
            mask = torch.arange(width, device=table.device) < kept[:, None]
            scores = _checked_scores(score_function(table, mask), (len(rows), n_items))
            ranks.masked[rows], ranks.unmasked[rows] = _ranks(scores, held.targets[rows], histories)
    return ranks


def _ranks(scores: Tensor, targets: Ints, histories: Sequence[Ints]) -> tuple[Floats, Floats]:
    """Masked and unmasked ranks of one batch."""
    n, n_items = scores.shape
    own = scores.gather(1, torch.from_numpy(targets).to(scores.device)[:, None])
    unmasked = 1 + (n_items - 1 + _lead(scores, own).sum(1, dtype=torch.int32).cpu().numpy()) / 2
    # The seen are few: their part is counted apart and taken off. An item seen twice is one item.
    rows = np.repeat(np.arange(n), [len(h) for h in histories])
    row, item = np.divmod(np.unique(rows * n_items + np.concatenate(histories)), n_items)
    row, item = row[item != targets[row]], item[item != targets[row]]
    at = torch.from_numpy(row).to(scores.device), torch.from_numpy(item).to(scores.device)
    lead = _lead(scores[at], own[at[0], 0]).cpu().numpy()
    gone = np.bincount(row, weights=(1 + lead) / 2, minlength=n)
    return unmasked - gone, unmasked


def _lead(scores: Tensor, own: Tensor) -> Tensor:
    """1 where a score is above the target's, −1 where below, 0 where they tie (infinities tie too), int8."""
    return (scores > own).to(torch.int8) - (scores < own).to(torch.int8)


def _checked_sizes(held: Held, n_items: int) -> Ints:
    """Lengths of the histories, (M,); DataError if `held` is empty or not of this vocabulary."""
    sizes = np.array([len(h) for h in held.histories], dtype=np.int64)
    if len(held.targets) == 0:
        raise DataError(
            "there is no target to rank: no user has enough interactions for a target to be held out"
        )
    if not len(sizes) == len(held.targets) == len(held.users):
        raise DataError(
            "users, histories and targets must be as many, but came as "
            f"{len(held.users)}, {len(sizes)} and {len(held.targets)}"
        )
    if not sizes.all():
        raise DataError(f"row {int(sizes.argmin())} has no history to predict its target from")
    everything = np.concatenate([held.targets, *held.histories])
    wrong = np.flatnonzero((everything < 0) | (everything >= n_items))
    if len(wrong):
        owner = np.concatenate([np.arange(len(sizes)), np.repeat(np.arange(len(sizes)), sizes)])
        row, item = int(owner[wrong[0]]), int(everything[wrong[0]])
        where = "target" if wrong[0] < len(sizes) else "history"
        raise DataError(
            f"row {row} (user {int(held.users[row])}): the {where} holds item {item}, outside the vocabulary "
            f"of items 0 to {n_items - 1}"
        )
    return sizes


def _checked_scores(scores: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(scores.shape) != shape:
        raise ParameterError(
            f"the score function must give one score an item, {shape}, but gave {tuple(scores.shape)}"
        )
    bad = scores.amax(1).isnan()  # NaN is passed on by amax
    if bool(bad.any()):
        raise ParameterError(f"the score function gave NaN to {int(bad.sum())} of {shape[0]} histories")
    return scores


def popularity_ranks(data: Interactions, held: Held | None = None, *, seen: bool = True) -> Floats:
    """Ranks when all items are ordered by how often they occur in training: what no model may fall below.

    held: the targets, the test's by default; otherwise as `target_ranks`.
    """
    counts = torch.from_numpy(data.counts.astype(np.float64))
    held = data.test if held is None else held
    return target_ranks(lambda items, _: counts.expand(len(items), -1), held, data.n_items, seen=seen)


# -- measures --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankingReport:
    """Means over `n` targets, by number of items k that are shown.

    hr: the target is among the first k (hit rate, with one target the same as recall).
    ndcg: 1/log2(1 + rank) if so, else 0.  mrr: 1/rank if so, else 0.
    """

    hr: dict[int, float]
    ndcg: dict[int, float]
    mrr: dict[int, float]
    n: int

    def flat(self) -> dict[str, float]:
        """{"hr@5": …, "ndcg@5": …, …}, for a row of a table."""
        return {f"{m}@{k}": v for m in METRICS for k, v in getattr(self, m).items()}


def report(ranks: Floats, ks: Sequence[int] = KS) -> RankingReport:
    """All measures of some ranks; ParameterError for none, a rank below 1, or a k below 1."""
    means = {m: {k: float(per_user(ranks, m, k).mean()) for k in ks} for m in METRICS}
    return RankingReport(**means, n=len(ranks))


def per_user(ranks: Floats, metric: str, k: int, users: Ints | None = None) -> Floats:
    """The measure of each target, (M,); with `users` (M,) its mean over each user's targets, ordered by user.

    Targets of one user are not independent: where there are several (`with_rolling`), give `users` before a
    bootstrap.

    Raises:
        ParameterError: another metric than hr, ndcg, mrr, k < 1, no ranks or one below 1, or users of another
            number.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if metric not in METRICS:
        raise ParameterError(
            f"metric must be one of {', '.join(METRICS)}, but came as {metric!r}{suggest(metric, METRICS)}"
        )
    if k < 1:
        raise ParameterError(f"k must be at least 1, but came as {k}")
    if ranks.ndim != 1 or not len(ranks) or not (ranks >= 1).all():
        raise ParameterError(
            f"ranks must be numbers from 1, at least one, but came as {ranks.shape} from {ranks.min(initial=1)}"
        )
    gain = {"hr": np.ones_like, "ndcg": lambda r: 1 / np.log2(1 + r), "mrr": lambda r: 1 / r}[metric]
    values = np.where(ranks <= k, gain(ranks), 0.0)
    if users is None:
        return values
    if np.shape(users) != ranks.shape:
        raise ParameterError(f"there are {len(users)} users for {len(ranks)} ranks, one each")
    _, owner, count = np.unique(users, return_inverse=True, return_counts=True)
    return np.bincount(owner, weights=values) / count


# -- one model against another ---------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """Difference of two means with its bootstrap interval.

    gain: mean(a) − mean(b).  low, high: ends of the 95 % percentile interval.
    p: two-sided, the smallest level whose interval leaves out 0.  base: mean(b).
    """

    gain: float
    low: float
    high: float
    p: float
    base: float

    @property
    def relative(self) -> float:
        """gain / base; NaN where the base is 0."""
        return self.gain / self.base if self.base else float("nan")


def paired_bootstrap(
    a: Floats, b: Floats | float = 0.0, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Does model a do better than b on the same users? Efron's percentile bootstrap over users, and over runs.

    Args:
        a, b: one value a user, (U,), of the same users in the same order (`per_user`); or (runs, U), a row for
            each seed. Then every draw also takes as many runs with replacement, each model's own, so that the
            interval holds the luck of training too (with few runs too little of it: by (runs − 1)/runs of the
            variance). A number b gives the interval of a alone.
        n: draws.

    Raises:
        ParameterError: no users, different numbers of them, or a value that is not finite.
    """
    a, b = (np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in (a, b))
    users = a.shape[1]
    if b.shape == (1, 1):
        b = np.broadcast_to(b, (1, users))
    if a.ndim != 2 or b.ndim != 2 or not users or b.shape[1] != users:
        raise ParameterError(f"a and b must hold one value for the same users, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ParameterError("a and b must be finite, but hold NaN or infinity")
    if n < 1 or not 0 < level < 1:
        raise ParameterError(f"n must be at least 1 and level between 0 and 1, but came as {n} and {level}")
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([_means(np.concatenate([a, b]), size, rng) for size in _parts(n, users)])
    draws = _of_runs(drawn[:, : len(a)], rng) - _of_runs(drawn[:, len(a) :], rng)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    tail = 1 + min((draws <= 0).sum(), (draws >= 0).sum())
    gain, base = float(a.mean() - b.mean()), float(b.mean())
    return Interval(gain, float(low), float(high), float(min(1.0, 2 * tail / (n + 1))), base)


def _means(values: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, rows) means of each row over users drawn with replacement, the same users for all rows."""
    users = values.shape[1]
    drawn = rng.integers(users, size=(draws, users)) + users * np.arange(draws)[:, None]
    times = np.bincount(drawn.ravel(), minlength=draws * users).reshape(draws, users)
    return times @ values.T / users


def _of_runs(means: Floats, rng: np.random.Generator) -> Floats:
    """(draws,) mean over runs drawn with replacement, from (draws, runs)."""
    return np.take_along_axis(means, rng.integers(means.shape[1], size=means.shape), axis=1).mean(1)


def _parts(n: int, users: int) -> Iterator[int]:
    """Sizes that add up to n draws, each part of about a million numbers."""
    step = max(1, (1 << 20) // users)
    for start in range(0, n, step):
        yield min(step, n - start)


# -- slices ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """Targets whose value (of popularity, of length) is from `low` to `high`, both included."""

    low: int
    high: int
    report: RankingReport


def by_popularity(ranks: Floats, held: Held, counts: Ints, parts: int = 4) -> list[Slice]:
    """Reports by how often the target occurs in training (`Interactions.counts`), rare to frequent."""
    return _slices(ranks, np.asarray(counts)[held.targets], parts)


def by_length(ranks: Floats, held: Held, parts: int = 4) -> list[Slice]:
    """Reports by the number of items in the history, short to long."""
    return _slices(ranks, np.array([len(h) for h in held.histories]), parts)


def _slices(ranks: Floats, values: Ints, parts: int) -> list[Slice]:
    """At most `parts` slices of about equal size; equal values are never parted."""
    if parts < 1 or len(values) != len(ranks):
        raise ParameterError(
            f"slices need parts ≥ 1 and a value for each rank, got {parts}, {len(values)} for {len(ranks)}"
        )
    ends = np.unique(np.quantile(values, np.arange(1, parts + 1) / parts, method="inverted_cdf"))
    of = np.searchsorted(ends, values)
    return [
        Slice(int(values[of == i].min()), int(values[of == i].max()), report(ranks[of == i]))
        for i in range(len(ends))
    ]
