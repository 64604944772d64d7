"""Pretraining of a small language model: the next token of rows of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import DataError
from workbench.models.decoder import Decoder, DecoderConfig
from workbench.training.fine_tuning import FineTuneFit, FineTuneSettings, Ids, fine_tune, padded


def fit_language_model(
    rows: Sequence[Ids],
    config: DecoderConfig,
    settings: FineTuneSettings | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    report: int = 50,
) -> FineTuneFit:
    """Train a decoder from the start on rows of token ids.

    DataError for rows of fewer than two tokens or more than the context; ParameterError where the loss is no longer
    finite, with the step.
    """
    if not rows or min(map(len, rows)) < 2 or max(map(len, rows)) > config.context:
        lengths = f"{min(map(len, rows))} to {max(map(len, rows))}" if rows else "no row"
        raise DataError(f"rows must have from 2 to {config.context} tokens, but {lengths} came")
    model = Decoder(config).to(device)
    settings = settings or FineTuneSettings(steps=600, weight_decay=0.01, warmup=20)

    def loss(some: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        return next_token_loss(model, [rows[i] for i in some.tolist()])

    return fine_tune(model, loss, len(rows), settings, seed=seed, report=report)


def next_token_loss(model: Decoder, rows: Sequence[Ids], reduction: str = "mean") -> Float[Tensor, ""]:
    """Cross-entropy of every token but the first of each row, nats."""
    ids, mask = (t.to(model.embed_tokens.weight.device) for t in padded(rows))
    told = mask[:, 1:]
    states = model.states(ids[:, :-1], mask[:, :-1])[told]
    return F.cross_entropy(model.logits(states).float(), ids[:, 1:][told], reduction=reduction)


@torch.no_grad()
def perplexity(model: Decoder, rows: Sequence[Ids], batch: int = 32) -> float:
    """exp of the mean cross-entropy per token (the first of a row is given)."""
    model.eval()
    parts = (rows[i : i + batch] for i in range(0, len(rows), batch))
    total = sum(float(next_token_loss(model, part, "sum")) for part in parts)
    return math.exp(total / sum(len(row) - 1 for row in rows))
