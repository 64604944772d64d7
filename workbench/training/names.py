"""The names of a task on their way through an encoder: cut into pieces once, each distinct one encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AT_ONCE = 2048  # names a call where no gradient is needed


class Names:
    """Pieces of all names of a task, and the model's points for some of them.

    texts: one a node; nodes of equal text share a point. The features of a frozen encoder are computed here, once.
    """

    def __init__(self, texts: Sequence[str], model, device: torch.device):
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids, mask = model.tokenizer(list(place), model.config.encoder.max_tokens)
        # By length, so that parts of all names are padded little.
        self.length, order = mask.sum(1).sort(stable=True)
        row = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        self.row = row[torch.tensor([place[text] for text in texts])]
        self.ids, self.mask, self.model = ids[order].to(device), mask[order].to(device), model
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
        return model(*self._cut(rows))

    def _cut(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(self.length[rows[-1]])
        return self.ids[rows, :longest], self.mask[rows, :longest]
