"""What a user asks of a recommender, whatever is inside: which items next, by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.data.interactions import Interactions
from workbench.errors import DataError, ParameterError, suggest

Item = str | int


class Catalogue(nn.Module):
    """A module with `states` and `ranking_scores` that knows its items by name.

    Items are numbered 0 … n_items−1. `bind` gives them names; without it they are known by number only.
    """

    n_items: int
    max_len: int
    names: tuple[str, ...] | None = None
    titles: tuple[str, ...] | None = None

    def bind(self, data: Interactions) -> Catalogue:
        """Take over the names and titles of the items of a data set; returns itself.

        DataError when it has another number of items.
        """
        return self._bind(data.items, data.titles)

    def _bind(self, names: Sequence[str], titles: Sequence[str]) -> Catalogue:
        if not len(names) == len(titles) == self.n_items:
            raise DataError(f"the model knows {self.n_items:,} items, but {len(names):,} names came")
        self.names, self.titles = tuple(names), tuple(titles)
        by_title = {title: i for i, title in reversed(list(enumerate(self.titles)))}
        self._numbers = by_title | {name: i for i, name in enumerate(self.names)}
        return self

    def number(self, item: Item) -> int | None:
        """The number of an item given by name, by title (the first of several) or by number; None if unknown."""
        if isinstance(item, str):
            return self._numbers.get(item) if self.names is not None else None
        whole = hasattr(item, "__index__") and not isinstance(item, bool)  # NumPy's integers too
        return int(item) if whole and 0 <= int(item) < self.n_items else None

    @torch.no_grad()
    def score_last(self, items: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n V"]:
        """Ranking scores of all items after the last item of each row; rows are filled up on the right.

        Computed as for inference (no dropout), whatever mode the model is in.
        """
        was_training = self.training
        self.eval()
        try:
            states = self.states(items, mask)
            last = (mask.sum(1) - 1).clamp_min(0)
            return self.ranking_scores(states[torch.arange(len(items), device=states.device), last])
        finally:
            self.train(was_training)

    def recommend(self, history: Sequence[Item], k: int = 10, seen: bool = False) -> list[tuple[str, float]]:
        """The k items most likely next, best first, as (title, score); ties by item number.

        history: names, titles or numbers, oldest first; unknown ones are skipped, with one warning that names them.
        seen: whether items of the history may come again. Fewer than k items come if there are no more.

        DataError if none is known; ParameterError for k < 1.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ParameterError(f"k must be a whole number of at least 1, but came as {k!r}")
        known = self._known([history] if isinstance(history, str) else list(history))
        items = torch.tensor([known[-self.max_len :]], device=next(iter(self.state_dict().values())).device)
        scores = self.score_last(items, torch.ones_like(items, dtype=torch.bool))[0].double().clone()
        if not seen:
            scores[torch.tensor(known, device=scores.device)] = -torch.inf
        best = scores.sort(descending=True, stable=True).indices[:k].tolist()
        titles = self.titles or [str(i) for i in range(self.n_items)]
        return [(titles[i], float(scores[i])) for i in best if scores[i] > -torch.inf]

    def _known(self, history: list[Item]) -> list[int]:
        numbers = [self.number(item) for item in history]
        unknown = [repr(item) for item, i in zip(history, numbers, strict=True) if i is None]
        known = [i for i in numbers if i is not None]
        if not known:
            first = next((item for item in history if isinstance(item, str)), "")
            hint = suggest(first, self._numbers) if self.names is not None and first else ""
            raise DataError(
                f"no item of the history is known: {', '.join(unknown[:5]) or 'it is empty'}{hint}"
            )
        if unknown:
            warnings.warn(f"{len(unknown)} unknown items skipped: {', '.join(unknown)}", stacklevel=3)
        return known
