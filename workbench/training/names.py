"""The names of a task on their way through an encoder: cut into pieces once, each distinct one encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

BUCKET = {"cpu": 400, "cuda": 40_000}  # what one more call of an encoder costs, in pieces
AT_ONCE = 2048  # names a call where no gradient is needed


class Names:
    """Pieces of all names of a task, and the model's points for some of them.

    texts: one a node; nodes of equal text share a point. batch: names a step, as far as known. Rows are ordered by
    length, so that a batch falls into a few groups of about equal length with little padding. The features of a
    frozen encoder are computed here, once.
    """

    def __init__(self, texts: Sequence[str], model, batch: int, device: torch.device):
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids, mask = model.tokenizer(list(place), model.config.encoder.max_tokens)
        length, order = mask.sum(1).sort(stable=True)
        row = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        self.model = model
        self.row = row[torch.tensor([place[text] for text in texts])]
        self.ids, self.mask, self.length = ids[order].to(device), mask[order].to(device), length
        share = torch.bincount(self.length[self.row]).numpy() / len(self.row)
        self.longest = buckets(share * min(batch, len(order)), BUCKET.get(device.type, BUCKET["cuda"]))
        self.features = None
        if model.config.encoder.frozen:
            with torch.no_grad():
                self.features = torch.cat([model.encoder(*self._cut(r)) for r in self._parts()])

    def encode(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the distinct names among these nodes, and for each node its place among them."""
        rows, place = self.row[nodes].unique(return_inverse=True)
        return self._points(rows), place

    @torch.no_grad()
    def points(self) -> Tensor:
        """Points (N, ambient) of all nodes."""
        return torch.cat([self._points(rows) for rows in self._parts()])[self.row]

    def _parts(self) -> tuple[Tensor, ...]:
        return torch.arange(len(self.length)).split(AT_ONCE)

    def _points(self, rows: Tensor) -> Tensor:
        """Points of rows in ascending order."""
        model = self.model
        if self.features is not None:
            return model.points_of(model.head(self.features[rows]))
        ends = torch.searchsorted(self.length[rows], torch.tensor(self.longest), right=True).tolist()
        groups = [rows[a:b] for a, b in pairwise([0, *ends]) if b > a]
        return model.points_of(model.head(torch.cat([model.encoder(*self._cut(g)) for g in groups])))

    def _cut(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(self.length[rows[-1]])
        return self.ids[rows, :longest], self.mask[rows, :longest]


def buckets(count: np.ndarray, cost: float) -> list[int]:
    """Longest lengths of groups that take the fewest pieces in all, padding and `cost` a group included.

    count: names expected of each length 0, 1, …. The last group reaches to the longest length.
    """
    total = np.concatenate([[0.0], np.cumsum(count)])
    best, cut = [0.0], [0]  # over lengths below n: least cost, and where its last group begins
    for n in range(1, len(count) + 1):
        costs = [best[k] + cost + (total[n] - total[k]) * (n - 1) for k in range(n)]
        cut.append(int(np.argmin(costs)))
        best.append(costs[cut[-1]])
    ends, n = [], len(count)
    while n:
        ends.append(n - 1)
        n = cut[n]
    return ends[::-1]
