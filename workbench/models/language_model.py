"""What language models that are trained on packed rows have in common, on the hyperboloid and in flat space."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.nn.mice import Router


class LanguageModel(nn.Module):
    """A model with `states(ids, mask, *, documents)`, `cross_entropy(states, targets, chunk)`, `penalty` (added to
    the loss) and `curvatures()` (parameters for a rate of their own)."""

    def loss(
        self,
        ids: Int[Tensor, "n L"],
        targets: Int[Tensor, "n L"],
        mask=None,
        *,
        documents: Int[Tensor, "n L"] | None = None,
        chunk: int = 2048,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy, nats a token, where targets are not -100, plus `penalty`; logits by `chunk` rows."""
        return self.cross_entropy(self.states(ids, mask, documents=documents), targets, chunk) + self.penalty

    def balance_step(self, rate: float = 0.005) -> None:
        """Once after every optimiser step: see `nn.mice.Router.balance_step`. Nothing without experts."""
        for part in self.modules():
            if isinstance(part, Router):
                part.balance_step(rate)
