"""Sequences as batches for next-item training: which pieces of them, in which order, padded to which length.

Nothing is copied beforehand: a piece is (where it starts, how many items) in the one array of all events.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.data.interactions import Interactions
from workbench.errors import DataError

POOL = 32  # batches among which rows are sorted by length: few paddings, still a shuffled order


class Batch(NamedTuple):
    """items, mask (n, L), filled up on the right; asked (n, L): where a next item is to be predicted; targets (P,)
    those items, in the order of `states[asked]`; users (P,) whose they are."""

    items: Int[Tensor, "n L"]
    mask: Bool[Tensor, "n L"]
    asked: Bool[Tensor, "n L"]
    targets: Int[Tensor, " P"]
    users: Int[Tensor, " P"]


class Batches:
    """The training sequences of a data set in pieces of at most `max_len` items, each followed by its target(s).

    mode, pieces: see `RecommenderSettings`. An epoch's batches depend on (seed, epoch) alone. DataError where no user
    has two items to train with.
    """

    def __init__(
        self, data: Interactions, max_len: int, mode: str, pieces: str, batch: int, device: torch.device
    ):
        sizes = np.array([len(s) for s in data.train], dtype=np.int64) - 1  # targets of each user
        self.users = np.flatnonzero(sizes > 0)
        if len(self.users) == 0:
            raise DataError(f"{data.name} has no user with two items to train with")
        self.first, self.sizes = data.start[self.users], sizes[self.users]
        self.max_len, self.mode, self.pieces, self.batch = max_len, mode, pieces, batch
        self.events = torch.from_numpy(np.array(data.events)).to(device)
        owner = np.repeat(np.arange(data.n_users), np.diff(data.start))
        self.owner = torch.from_numpy(owner).to(device)

    def epoch(self, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Starts and sizes of the rows of each batch, shuffled; rows of a batch are of about equal length."""
        rng = np.random.default_rng(seed)
        start, size = self._prefixes() if self.mode == "prefix" else self._pieces(rng)
        order = rng.permutation(len(start))
        pool = POOL * self.batch
        groups = [
            rows[np.argsort(size[rows], kind="stable")]
            for rows in np.split(order, range(pool, len(order), pool))
        ]
        batches = [b for g in groups for b in np.array_split(g, math.ceil(len(g) / self.batch))]
        return [(start[b], size[b]) for b in (batches[i] for i in rng.permutation(len(batches)))]

    def _prefixes(self) -> tuple[np.ndarray, np.ndarray]:
        """One row a target: all that came before it, at most max_len."""
        last = np.repeat(self.first, self.sizes) + _counted(self.sizes)
        size = np.minimum(_counted(self.sizes) + 1, self.max_len)
        return last + 1 - size, size

    def _pieces(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Every user's targets in rows of max_len, counted from the end; the last row is cut at random, so that
        others stand at the beginnings, which know little, in each epoch. Or only the last max_len targets."""
        cut = np.minimum(self.sizes, self.max_len)
        if self.pieces == "last":
            return self.first + self.sizes - cut, cut
        long = self.sizes > self.max_len
        cut[long] = rng.integers(1, self.max_len + 1, long.sum())
        many = 1 + -(-(self.sizes - cut) // self.max_len)
        nth = _counted(many)  # 0 is the last row
        whole, cut = np.repeat(self.sizes, many), np.repeat(cut, many)
        end = whole - np.where(nth > 0, cut + (nth - 1) * self.max_len, 0)
        begin = np.maximum(whole - cut - nth * self.max_len, 0)
        return np.repeat(self.first, many) + begin, end - begin

    def make(self, start: np.ndarray, size: np.ndarray) -> Batch:
        """The batch of these rows, on the device."""
        begin, sizes = (torch.from_numpy(a).to(self.events.device)[:, None] for a in (start, size))
        step = torch.arange(int(size.max()), device=begin.device)
        mask = step < sizes
        at = (begin + step).where(mask, begin)
        asked = step == sizes - 1 if self.mode == "prefix" else mask
        place = at[asked]
        return Batch(self.events[at], mask, asked, self.events[place + 1], self.owner[place])


def _counted(sizes: np.ndarray) -> np.ndarray:
    """0 … n−1 for each n in sizes, end to end."""
    return np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)


class Draws:
    """Items to compete with the targets; from torch's own generator, which the trainer seeds for each step."""

    def __init__(self, data: Interactions, negatives: int, popular: float, device: torch.device):
        self.negatives, self.device, self.n_items = negatives, device, data.n_items
        likely = (1.0 + torch.from_numpy(np.array(data.counts))).double() ** popular
        self.likely = likely / likely.sum()
        self.up_to = self.likely.cumsum(0)
        owner = np.repeat(np.arange(data.n_users), [len(s) for s in data.train])
        taken = np.unique(owner * data.n_items + np.concatenate(data.train))
        self.taken = torch.from_numpy(taken).to(device)

    def shared(self) -> tuple[Int[Tensor, " m"], Tensor]:
        """m items, with replacement, and the logarithm of how often each is expected among m."""
        drawn = torch.searchsorted(self.up_to, torch.rand(self.negatives, dtype=torch.float64))
        drawn = drawn.clamp_max(self.n_items - 1)
        log_expected = (self.likely[drawn] * self.negatives).log().float()
        return drawn.to(self.device), log_expected.to(self.device)

    def unseen(self, users: Int[Tensor, " P"]) -> Int[Tensor, " P"]:
        """An item for each user that is not among what they took in training (after eight tries: any)."""
        drawn = torch.randint(self.n_items, users.shape).to(self.device)
        for _ in range(8):
            key = users * self.n_items + drawn
            found = torch.searchsorted(self.taken, key).clamp_max(len(self.taken) - 1)
            again = torch.randint(self.n_items, users.shape).to(self.device)
            drawn = torch.where(self.taken[found] == key, again, drawn)
        return drawn
