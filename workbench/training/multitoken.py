"""Fitting a multitoken transformer: teacher forcing over pairs of a source and the item that follows from it.

AdamW with one cycle of the learning rate. Batches keep pairs of one source together, and each source is encoded once
a batch: a node of a taxonomy has many hypernyms.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.interactions import Interactions, padded
from workbench.errors import CheckpointError, DataError, ParameterError, suggest
from workbench.files import load_tensors, save_tensors
from workbench.models.multitoken import MultitokenConfig, MultitokenTransformer, TokenTrie
from workbench.threads import one_thread
from workbench.training.checkpoints import pack, refuse_another_run, unpack
from workbench.training.checks import whole_number

CHECKPOINT = "multitoken-training"
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class MultitokenSettings:
    """How to fit. batch: pairs a step. lr: the highest rate, reached after a share `warmup` of the steps from lr/25,
    then falling along a cosine to nothing. per_epoch: pairs drawn for each epoch, 0 for all. clip: of the
    gradient's norm, 0 for none. precision: "float32", or "bf16" where matrix products may be (GPU).

    ParameterError for values that make no sense.
    """

    epochs: int = 30
    batch: int = 512
    lr: float = 2e-3
    warmup: float = 0.3
    weight_decay: float = 0.01
    per_epoch: int = 0
    clip: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("per_epoch", 0), ("seed", 0)):
            whole_number(name, getattr(self, name), least)
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(f"{name} must not be below 0, but came as {getattr(self, name)!r}")
        if not 0 < self.lr < math.inf:
            raise ParameterError(f"lr must be positive, but came as {self.lr!r}")
        if not 0 <= self.warmup < 1:
            raise ParameterError(f"warmup must be a share from 0 to below 1, but came as {self.warmup!r}")
        if self.precision not in PRECISIONS:
            raise ParameterError(
                f"precision must be one of {', '.join(PRECISIONS)}, but came as {self.precision!r}"
                + suggest(self.precision, PRECISIONS)
            )

    def rate(self, progress: float) -> float:
        """Learning rate after this share of the steps."""
        if progress < self.warmup:
            low, high, along = self.lr / 25, self.lr, progress / self.warmup
        else:
            low, high, along = self.lr, 0.0, (progress - self.warmup) / (1 - self.warmup)
        return high + (low - high) * (1 + math.cos(math.pi * along)) / 2


@dataclass
class MultitokenFit:
    """The model, ready for `beam_search` with the trie, and the mean loss a token of each epoch."""

    model: MultitokenTransformer
    trie: TokenTrie
    losses: list[float] = field(default_factory=list)


def next_item_pairs(data: Interactions, history: int = 20) -> tuple[Tensor, Tensor]:
    """Every item of the training sequences but the first, with the `history` items before it.

    Returns:
        sources (P, history) int64, -1 behind the last item, and targets (P,). DataError where there are none.
    """
    if history < 1:
        raise ParameterError(f"history must be at least 1, got {history}")
    cuts = [(s[max(0, i - history) : i], s[i]) for s in data.train for i in range(1, len(s))]
    if not cuts:
        raise DataError(f"{data!r} has no training sequence of two items")
    sources, _ = padded([s for s, _ in cuts], history)
    return torch.from_numpy(sources), torch.tensor([int(t) for _, t in cuts])


class MultitokenTrainer:
    """State of a training, epoch by epoch; `fit_multitoken` drives it."""

    def __init__(
        self,
        sources: Int[Tensor, "p ..."],
        targets: Int[Tensor, " p"],
        codes: Int[Tensor, "n levels"],
        config: MultitokenConfig | None,
        settings: MultitokenSettings,
        device: str = "cpu",
    ):
        sources, targets = (torch.as_tensor(a).cpu().long() for a in (sources, targets))
        sources = sources.unsqueeze(1) if sources.ndim == 1 else sources
        if sources.ndim != 2 or targets.shape != sources.shape[:1] or not len(targets):
            raise DataError(
                "sources and targets must be items (P,) or (P, history) and (P,), P at least 1, "
                f"got {tuple(sources.shape)} and {tuple(targets.shape)}"
            )
        self.trie, self.settings, self.device = TokenTrie(torch.as_tensor(codes)), settings, device
        self.config = config or MultitokenConfig.for_codes(self.trie.codes, history=sources.shape[1])
        if len(self.config.vocabulary) != len(self.trie.vocabulary) or any(
            have > size for have, size in zip(self.trie.vocabulary, self.config.vocabulary, strict=True)
        ):
            raise ParameterError(
                f"the codes need vocabularies {self.trie.vocabulary}, config has {self.config.vocabulary}"
            )
        if bool((targets < 0).any()):
            raise DataError("targets must be items, but some are padding")
        self.digest = self._digest(sources, targets)
        distinct, self.of_source = torch.unique(sources, dim=0, return_inverse=True)
        self.sources, self.names = self.trie.tokens(distinct).to(device), self.trie.tokens(targets).to(device)
        self.trie.to(device)
        with self._drawing(settings.seed):
            self.model = MultitokenTransformer(self.config).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.epoch, self.losses = 0, []

    def _digest(self, sources: Tensor, targets: Tensor) -> str:
        digest = hashlib.sha256()
        for array in (sources, targets, self.trie.codes):
            digest.update(repr(tuple(array.shape)).encode() + array.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @contextmanager
    def _drawing(self, seed: int) -> Iterator[None]:
        """The global generators seeded, and as they were afterwards."""
        device = torch.device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Indices of pairs: sources in a random order, the pairs of a source together and in a random order."""
        order = torch.randperm(len(self.of_source), generator=generator)
        if self.settings.per_epoch:
            order = order[: self.settings.per_epoch]
        rank = torch.randperm(len(self.sources), generator=generator)
        order = order[rank[self.of_source[order]].argsort(stable=True)]
        # Steps must not come in an order of their own, nor the last one be smaller than the others by much.
        return iter(order.tensor_split(math.ceil(len(order) / self.settings.batch)))

    def run_epoch(self) -> float:
        """One pass over the pairs; returns the mean loss a token."""
        cfg = self.settings
        generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + self.epoch)
        batches = list(self._batches(generator))
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.model.train()
        # Dropout draws from the global generator: seeded anew each epoch, so that a resumed run draws alike.
        with self._drawing(int(torch.randint(2**31, (), generator=generator))), one_thread():
            for i, batch in enumerate(batches):
                rate = cfg.rate((self.epoch + i / len(batches)) / cfg.epochs)
                total += self._step(batch, rate) * len(batch)
        loss = float(total) / sum(map(len, batches))
        if not math.isfinite(loss):
            raise ParameterError(f"the loss became {loss} in epoch {self.epoch + 1}: lower lr (now {cfg.lr})")
        self.epoch, self.losses = self.epoch + 1, [*self.losses, loss]
        return loss

    def _step(self, batch: Tensor, rate: float) -> Tensor:
        here, row = torch.unique(self.of_source[batch], return_inverse=True)
        here, row, batch = (index.to(self.device) for index in (here, row, batch))
        kind = torch.device(self.device).type
        low = self.settings.precision == "bf16"
        with torch.autocast(kind, torch.bfloat16) if low else nullcontext():
            loss = self.model.loss(self.sources[here], self.names[batch], row)
        loss.backward()
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def _identity(self) -> dict:
        """What a checkpoint and the run that continues it must have in common."""
        config = {**asdict(self.config), "vocabulary": list(self.config.vocabulary)}
        return {"config": config, "settings": asdict(self.settings), "data": self.digest}

    def save(self, path: str | Path) -> None:
        """Write a checkpoint of the last whole epoch, atomically: all that `resume` needs."""
        tensors = pack(self.model.state_dict(), self.optimizer)
        about = {"kind": CHECKPOINT, "epoch": self.epoch, "losses": self.losses}
        save_tensors(path, tensors, {**self._identity(), **about})

    def resume(self, path: str | Path) -> None:
        """Continue from a checkpoint; CheckpointError names what differs from this run."""
        tensors, about = load_tensors(path)
        if about.get("kind") != CHECKPOINT:
            raise CheckpointError(f"{path} is not a checkpoint of a multitoken training")
        refuse_another_run(path, about, self._identity())
        model, adam = unpack(tensors, self.optimizer)
        try:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(adam)
            self.epoch, self.losses = int(about["epoch"]), list(about["losses"])
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{path} holds no whole state of a multitoken training: {e}") from e


def fit_multitoken(
    sources: Int[Tensor, "p ..."],
    targets: Int[Tensor, " p"],
    codes: Int[Tensor, "n levels"],
    config: MultitokenConfig | None = None,
    settings: MultitokenSettings | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    device: str = "cpu",
    progress: bool = False,
    on_epoch: Callable[[MultitokenTrainer, float], None] | None = None,
    **changes,
) -> MultitokenFit:
    """Teach a transformer to write the names of targets from those of sources.

    sources: items (P,), or histories (P, T) padded with -1 (`next_item_pairs`). targets: items (P,).
    codes: (N, L) names of all items, each its own (`deduplicate`). config: by default
    `MultitokenConfig.for_codes(codes)`. settings, or single ones by name (epochs=…, seed=…).
    checkpoint: a file written every `checkpoint_every` epochs and at the end, and continued from if it exists; the
    result is bit for bit that of an uninterrupted run on the same machine.
    on_epoch(trainer, loss): called after every epoch.

    ParameterError, DataError, CheckpointError.
    """
    if checkpoint_every < 1:
        raise ParameterError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    settings = _with(settings or MultitokenSettings(), changes)
    trainer = MultitokenTrainer(sources, targets, codes, config, settings, device)
    if checkpoint and Path(checkpoint).exists():
        trainer.resume(checkpoint)
    epochs = range(trainer.epoch, settings.epochs)
    bar = tqdm(epochs, initial=trainer.epoch, total=settings.epochs, desc="multitokens", disable=not progress)
    for _ in bar:
        loss = trainer.run_epoch()
        bar.set_postfix(loss=f"{loss:.3f}")
        if checkpoint and (trainer.epoch % checkpoint_every == 0 or trainer.epoch == settings.epochs):
            trainer.save(checkpoint)
        if on_epoch:
            on_epoch(trainer, loss)
    trainer.model.eval()
    return MultitokenFit(trainer.model, trainer.trie, trainer.losses)


def _with(settings: MultitokenSettings, changes: dict) -> MultitokenSettings:
    known = list(asdict(settings))
    for name in changes:
        if name not in known:
            raise ParameterError(f"unknown setting {name!r}{suggest(name, known)}; known: {', '.join(known)}")
    return MultitokenSettings(**{**asdict(settings), **changes})
