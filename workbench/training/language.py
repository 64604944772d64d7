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
    """Train a decoder from the start on rows of token ids; a batch is filled up on the right.

    report: steps between rows of the history. DataError for rows of fewer than two tokens or more than the context;
    ParameterError where the loss is no longer finite, with the step.
    """
    _check(rows, config)
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
    """exp of the mean cross-entropy per token (the first of a row is given), without dropout.

    DataError for rows of fewer than two tokens or more than the context.
    """
    _check(rows, model.config)
    was_training = model.training
    model.eval()
    parts = (rows[i : i + batch] for i in range(0, len(rows), batch))
    try:
        total = sum(float(next_token_loss(model, part, "sum")) for part in parts)
    finally:
        model.train(was_training)
    return math.exp(total / sum(len(row) - 1 for row in rows))


def _check(rows: Sequence[Ids], config: DecoderConfig) -> None:
    lengths = [len(row) for row in rows]
    if not lengths or min(lengths) < 2 or max(lengths) > config.context:
        came = f"{min(lengths)} to {max(lengths)}" if lengths else "no row"
        raise DataError(f"rows must have from 2 to {config.context} tokens, but {came} came")
