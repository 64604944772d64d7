"""Pretraining of language models on packed rows of text: the same loop for HELM and its flat twins.

The rows of a step follow from (seed, step) alone, so a run that is resumed is the same run, bit for bit, on the same
machine. On several devices (`accelerate launch`, which needs the extra `lm`) each process takes its share of every
batch, and the gradient is that of one device but for rounding.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.data.text import Rows
from workbench.errors import DataError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.models.language_model import LanguageModel
from workbench.threads import one_thread
from workbench.training.checkpoints import pack, refuse_another_run, unpack
from workbench.training.checks import finite_numbers, whole_number
from workbench.training.lm_steps import Devices, optimizer_of, step_of

CHECKPOINT = "language-model-training"


@dataclass(frozen=True)
class LMSettings:
    """How a language model is trained: AdamW (points of a manifold by Riemannian Adam); the rate rises over the share
    `warmup` of the steps, then falls as a cosine to `floor` times lr.

    batch: rows a step. accumulate: pieces in which its gradient is taken, to save memory. weight_decay: of matrices
    only, never of curvatures, whose rate is curvature_lr times lr. clip: largest norm of the gradient. within: each
    token sees its own document only; otherwise all that stands before it in the row, which is faster on a GPU. bf16:
    products in bfloat16 (autocast). compile: by `torch.compile`. spike: a loss this many nats above its running mean
    is counted. patience: steps in a row without a finite gradient, which are skipped, after which to give up.
    balance_rate: of the bias that keeps experts evenly used.

    ParameterError for values that make no sense.
    """

    steps: int = 300
    batch: int = 16
    lr: float = 3e-3
    accumulate: int = 1
    warmup: float = 0.05
    floor: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    curvature_lr: float = 0.1
    within: bool = True
    bf16: bool = False
    compile: bool = False
    spike: float = 1.0
    patience: int = 20
    balance_rate: float = 0.005

    def __post_init__(self) -> None:
        for name, least in dict(steps=0, batch=1, accumulate=1, patience=1).items():
            whole_number(name, getattr(self, name), least)
        finite_numbers(
            self,
            ("lr", "clip", "spike", "weight_decay", "curvature_lr", "balance_rate"),
            above=("lr", "clip", "spike"),
        )
        for name in ("warmup", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name} must be from 0 to 1, but came as {getattr(self, name)!r}")
        if self.batch % self.accumulate:
            raise ParameterError(
                f"a batch of {self.batch} rows cannot be cut into {self.accumulate} equal pieces (accumulate)"
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        along = (step - warmup) / max(1, self.steps - warmup)
        return self.lr * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * along)) / 2)


@dataclass
class LMFit:
    """The model in evaluation mode. history: {"step", "loss", "gradient", "rate"}, with validation also "valid", each
    `report` steps; loss includes the balancing loss, if any. spikes: losses far above their running mean; skipped:
    steps that would not have been finite. seconds: wall time of training, validation and files left out; tokens:
    targets it saw."""

    model: nn.Module
    history: list[dict] = field(default_factory=list)
    spikes: int = 0
    skipped: int = 0
    seconds: float = 0.0
    tokens: int = 0


def due(n: int, batch: int, seed: int, step: int) -> Int[Tensor, " b"]:
    """Numbers of the rows of a step: always `batch` of them, out of orders of all n that follow one another."""
    places = range(step * batch, (step + 1) * batch)
    return torch.stack([_order(n, seed, p // n)[p % n] for p in places])


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def fit_lm(
    model: LanguageModel,
    rows: Rows,
    settings: LMSettings | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    valid: Rows | None = None,
    report: int = 50,
    checkpoint: str | Path | None = None,
    every: int = 0,
) -> LMFit:
    """Train a model in place.

    seed: of the order of rows. valid: what `evaluate` is asked about at every report. checkpoint: a file from which
    to go on if it is there, and which is written after each `every` steps (0: at the end only).

    Raises:
        ParameterError: nothing is finite for `patience` steps, or the rows are longer than the model's context.
        DataError: no rows, or ids outside of the vocabulary.
        CheckpointError: the checkpoint is of another run, or damaged.
    """
    settings = settings or LMSettings()
    for part in (rows, valid):
        if part is not None:
            _check(model, part)
    trainer = LMTrainer(model, rows, settings, seed, device)
    if checkpoint is not None and Path(checkpoint).exists():
        trainer.load(checkpoint)
    with one_thread() if trainer.device.type == "cpu" else contextlib.nullcontext():
        while trainer.step < settings.steps:
            row = trainer.advance()
            last = trainer.step == settings.steps
            if report and (trainer.step % report == 0 or last):
                if valid is not None:
                    row["valid"] = evaluate(model, valid, within=settings.within, bf16=settings.bf16)["nats"]
                trainer.fit.history.append(row)
            if checkpoint is not None and (last or (every and trainer.step % every == 0)):
                trainer.save(checkpoint)
    model.eval()
    return trainer.fit


class LMTrainer:
    """One step at a time; `fit_lm` runs them all. `step` counts what is done."""

    def __init__(
        self, model: LanguageModel, rows: Rows, settings: LMSettings, seed: int, device: str
    ) -> None:
        self.devices = Devices(device)
        self.device = self.devices.device
        self.model, self.settings, self.seed = model.to(self.device).train(), settings, seed
        self.ids, self.documents, self.targets = (
            torch.from_numpy(part).to(self.device, torch.long)
            for part in (rows.ids, rows.documents, rows.targets())
        )
        self.optimizer = optimizer_of(model, settings.lr, settings.curvature_lr, settings.weight_decay)
        self.loss = self.devices.wrap(_Loss(model), settings.compile)
        self.buffers = [b for _, b in model.named_buffers() if b.is_floating_point()]
        self.identity = json.loads(json.dumps({
            "kind": CHECKPOINT, "model": type(model).__name__, "config": asdict(model.config),
            "settings": asdict(settings), "seed": seed, "rows": rows.fingerprint(),
        }))  # fmt: skip
        self.step, self.mean, self.in_a_row, self.fit = 0, math.nan, 0, LMFit(model)

    def advance(self) -> dict:
        """One step; what there is to report of it."""
        begun, settings = time.perf_counter(), self.settings
        some = due(len(self.ids), settings.batch, self.seed, self.step).to(self.device)
        before = [b.clone() for b in self.buffers]
        loss = self._gradient(some)
        size = step_of(self.optimizer, self.model, settings.rate(self.step), settings.clip)
        loss = self.devices.sum(loss).item()
        if math.isfinite(size):
            self.in_a_row = 0
            self.model.balance_step(settings.balance_rate)
            self._watch(loss)
        else:
            self._skip(before)
        self.fit.tokens += int((self.targets[some] >= 0).sum())
        row = {"step": self.step + 1, "loss": loss, "gradient": size, "rate": settings.rate(self.step)}
        self.step += 1
        self.fit.seconds += time.perf_counter() - begun
        return row

    def _gradient(self, some: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Backward passes over this process's share of the pieces of a batch; its share of the batch's mean loss."""
        pieces = some.chunk(self.settings.accumulate)
        whole = (self.targets[some] >= 0).sum().clamp_min(1)
        total = torch.zeros((), device=self.device)
        for i, piece in enumerate(pieces):
            mine = piece[self.devices.rank :: self.devices.world]
            if not len(mine):
                raise ParameterError(
                    f"{self.devices.world} processes need as many rows in each piece of a batch, but one has "
                    f"{len(piece)}"
                )
            targets = self.targets[mine]
            share = (targets >= 0).sum() / whole
            documents = self.documents[mine, :-1] if self.settings.within else None
            with self.devices.context(self.loss, i + 1 == len(pieces), self.settings.bf16):
                loss = self.loss(self.ids[mine, :-1], targets, documents) * share
            self.devices.backward(loss, self.loss, i + 1 == len(pieces))
            total = total + loss.detach()
        return total

    def _watch(self, loss: float) -> None:
        if loss > self.mean + self.settings.spike:
            self.fit.spikes += 1
        self.mean = loss if math.isnan(self.mean) else 0.95 * self.mean + 0.05 * loss

    def _skip(self, before: list[Tensor]) -> None:
        """Nothing was changed but buffers, running means and loads, which are as before again."""
        self.fit.skipped += 1
        self.in_a_row += 1
        with torch.no_grad():
            for b, kept in zip(self.buffers, before, strict=True):
                b.copy_(kept)
        if self.in_a_row >= self.settings.patience:
            raise ParameterError(
                f"the gradient was not finite in {self.in_a_row} steps in a row, up to step {self.step + 1}: lower "
                f"lr (now {self.settings.lr:g}); the model is as step {self.step + 1 - self.in_a_row} left it"
            )

    # -- files --------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """All that the rest of the run depends on; written by one process."""
        if self.devices.rank:
            return
        fit = {
            name: getattr(self.fit, name) for name in ("history", "spikes", "skipped", "seconds", "tokens")
        }
        state = {"step": self.step, "mean": repr(self.mean), "in_a_row": self.in_a_row, "fit": fit}
        save_tensors(path, pack(self.model.state_dict(), self.optimizer), self.identity | {"state": state})

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote; CheckpointError where that is of another run."""
        tensors, about = load_tensors(path)
        refuse_another_run(path, about, self.identity)
        model, optimizer = unpack(tensors, self.optimizer)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        state = about["state"]
        self.step, self.mean, self.in_a_row = state["step"], float(state["mean"]), state["in_a_row"]
        for name, value in state["fit"].items():
            setattr(self.fit, name, value)


class _Loss(nn.Module):
    """The loss as a forward pass, which is what `torch.compile` and DistributedDataParallel go by."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor, documents: Tensor | None) -> Float[Tensor, ""]:
        return self.model.loss(ids, targets, documents=documents)


# -- asking -------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(
    model: LanguageModel, rows: Rows, *, batch: int = 32, within: bool = True, bf16: bool = False
) -> dict[str, float]:
    """{nats: mean cross-entropy a token, bits_per_byte, perplexity, tokens}, without the balancing loss.

    Bits a byte make models of different tokenizers comparable: all bits, those of ends included, over bytes of text.
    DataError and ParameterError as in `fit_lm`.
    """
    _check(model, rows)
    device, was_training = next(model.parameters()).device, model.training
    total, tokens = 0.0, 0
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for ids, documents, targets in _batches(rows, batch, device):
                states = model.states(ids, documents=documents if within else None)
                count = int((targets >= 0).sum())
                total += float(model.cross_entropy(states, targets)) * count
                tokens += count
    finally:
        model.train(was_training)
    nats = total / tokens
    bits = total / math.log(2) / rows.bytes if rows.bytes else math.nan
    # e^709 is the largest float
    return {"nats": nats, "bits_per_byte": bits, "perplexity": math.exp(min(nats, 709.0)), "tokens": tokens}


def _batches(rows: Rows, batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    parts = [
        torch.from_numpy(part).long() for part in (rows.ids[:, :-1], rows.documents[:, :-1], rows.targets())
    ]
    for some in zip(*(part.split(batch) for part in parts), strict=True):
        yield tuple(part.to(device) for part in some)


def _check(model: LanguageModel, rows: Rows) -> None:
    if not len(rows) or not rows.tokens:
        raise DataError("a language model needs at least one row of text, but none came")
    context, vocabulary = model.config.context, model.config.vocab_size
    if rows.ids.shape[1] - 1 > context:
        raise ParameterError(
            f"rows may have {context} tokens, the context, and one to be asked for, but came with {rows.ids.shape[1]}"
        )
    if not 0 <= rows.ids.min() <= rows.ids.max() < vocabulary:
        raise DataError(
            f"ids are from 0 to {vocabulary - 1}, but came from {rows.ids.min()} to {rows.ids.max()}"
        )
