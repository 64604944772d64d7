"""Fitting an embedding of a hierarchy: sources in batches, shared candidates, Riemannian steps on the rows touched.

The loss is that of Nickel & Kiela (2017, eq. 5): for each pair "u is a v" the softmax of -d(u, v) against the nodes
that are not above u. All pairs of a batch with its candidates are two matrix products forward and two back
(`workbench.manifolds.pairwise`), so that an epoch over the whole WordNet closure takes seconds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.evaluation import reconstruction
from workbench.files import load_tensors, save_tensors
from workbench.manifolds.pairwise import pairwise
from workbench.models.cones import cone_energy
from workbench.models.poincare_embedding import EmbeddingConfig, PoincareEmbedding, describe
from workbench.models.starts import initial_points
from workbench.threads import one_thread

CHECKPOINT = "embedding-training"
CHANCE = 1000  # sources drawn to follow MAP while training; the final figure is exact over all of them


@dataclass
class Fit:
    """What training gives back: the embedding, and one row {epoch, loss, map, mean_rank} per evaluation."""

    embedding: PoincareEmbedding
    history: list[dict] = field(default_factory=list)


class Closure:
    """Ancestors of each source, as slices of one list, on a device."""

    def __init__(self, pairs: np.ndarray, n: int, device: torch.device | str):
        pairs = torch.from_numpy(np.array(pairs, dtype=np.int64)).to(device)
        self.keys, order = (pairs[:, 1] * n + pairs[:, 0]).sort()
        pairs = pairs[order]
        self.ancestors, descendants = pairs.unbind(1)
        self.count = torch.bincount(descendants, minlength=n)
        self.start = self.count.cumsum(0) - self.count
        self.sources = self.count.nonzero().squeeze(1)
        self.degree = self.count + torch.bincount(self.ancestors, minlength=n)

    def positives(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """(row, node): for each pair of the batch, which row of the batch it belongs to and its ancestor."""
        count = self.count[batch]
        row = torch.repeat_interleave(torch.arange(len(batch), device=batch.device), count)
        place = torch.arange(len(row), device=batch.device) - (count.cumsum(0) - count)[row]
        return row, self.ancestors[self.start[batch][row] + place]

    def contains(self, ancestor: Tensor, descendant: Tensor) -> Tensor:
        """Which of these are pairs of the closure."""
        key = descendant * len(self.count) + ancestor
        found = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return self.keys[found] == key


def checked_closure(pairs: np.ndarray, n: int) -> np.ndarray:
    """The pairs as (P, 2) integers; DataError for another shape or kind, a node that is not there, or u above u."""
    pairs = np.asarray(pairs)
    if pairs.size == 0:
        raise DataError("there is nothing to learn: there are no ancestor-descendant pairs")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DataError(
            f"closure must be (P, 2) whole numbers [ancestor, descendant], got {pairs.dtype} {pairs.shape}"
        )
    wrong = ((pairs < 0) | (pairs >= n)).any(1)
    same = pairs[:, 0] == pairs[:, 1]
    for bad, why in ((wrong, f"nodes are numbered from 0 to {n - 1}"), (same, "no node is above itself")):
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"closure, row {row} is {pairs[row].tolist()}: {why}")
    return pairs


def _device(name: torch.device | str) -> torch.device:
    """A device that this machine has; ParameterError otherwise."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as e:
        reason = str(e).splitlines()[0]
        raise ParameterError(f"device {name!r} cannot be used here: {reason}") from e
    return device


class EmbeddingTrainer:
    """One epoch at a time; all randomness of epoch k comes from (seed, k), so that a resumed run is the same run.

    h: Hierarchy. closure: the (P, 2) [ancestor, descendant] pairs to learn from, by default all of h's.
    start: a PoincareEmbedding of h in the same space to begin from, instead of `config.init`.
    """

    def __init__(self, h, manifold, config: EmbeddingConfig, closure=None, device="cpu", start=None):
        self.h, self.manifold, self.config, self.device = h, manifold, config, _device(device)
        self.n = len(h)
        self.pairs = pairs = checked_closure(h.closure() if closure is None else closure, self.n)
        # Of pairs that were given, so that a run over one split is not continued over another.
        self.given = None if closure is None else hashlib.sha256(pairs.astype("<i8").tobytes()).hexdigest()
        self.closure = Closure(pairs, self.n, self.device)
        self.space = pairwise(manifold)
        if start is None:
            points = initial_points(h, manifold, config, torch.Generator().manual_seed(config.seed))
        elif (
            start.names != tuple(h.names) or start.dim != config.dim or repr(start.manifold) != repr(manifold)
        ):
            raise ParameterError(f"the start must be of this hierarchy, dimension and space, got {start!r}")
        else:
            points = start.points
        self.table = self.space.encode(points).to(self.device)
        self.slow = self.closure.degree.clamp(min=1).double().unsqueeze(1) ** -config.degree_power
        self.everyone = torch.arange(self.n, device=self.device)
        self.place = torch.full((self.n,), -1, dtype=torch.int64, device=self.device)
        self.epoch, self.history, self.loss = 0, [], math.nan

    @property
    def points(self) -> Tensor:
        """(N, ambient) float64 points of the manifold, on the CPU."""
        return self.space.decode(self.table).cpu()

    def rate(self, progress: float) -> float:
        """Learning rate after this many epochs, fractions included."""
        cfg = self.config
        late = max(0.0, progress / cfg.epochs - cfg.hold) / (1 - cfg.hold)
        fall = cfg.final_lr + (1 - cfg.final_lr) * (1 + math.cos(math.pi * late)) / 2
        return cfg.lr * fall * (0.1 if progress < cfg.burn_in else 1.0)

    @torch.no_grad()
    def run_epoch(self) -> float:
        """Every source once; returns the mean loss a pair."""
        self.generator = generator = torch.Generator().manual_seed(
            self.config.seed * 1_000_003 + self.epoch + 1
        )
        cfg, sources = self.config, self.closure.sources
        order = sources[torch.randperm(len(sources), generator=generator).to(self.device)]
        batches = order.split(cfg.batch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        table, step = self.table.clone(), self._softmax if cfg.objective == "softmax" else self._cones
        with one_thread():
            for i, batch in enumerate(batches):
                rate = self.rate(self.epoch + i / len(batches))
                total += step(table, batch, self._candidates(generator), rate)
        loss = float(total) / len(self.pairs)
        if not math.isfinite(loss):
            raise ParameterError(
                f"the loss became {loss} in epoch {self.epoch + 1}: lower lr (now {cfg.lr}) or max_step"
            )
        # Replaced only when whole: an interrupted or failed epoch leaves the table of the last finished one.
        self.table, self.epoch, self.loss = table, self.epoch + 1, loss
        return loss

    def _candidates(self, generator: torch.Generator) -> Tensor:
        m = self.config.candidates
        if not m or m >= self.n:
            return self.everyone
        return torch.randint(self.n, (m,), generator=generator).unique().to(self.device)

    def _softmax(self, table: Tensor, batch: Tensor, others: Tensor, rate: float) -> Tensor:
        """One step on the batch's pairs, in place; returns the sum of the losses.

        Each source is told apart from all nodes at hand: those of the batch, their ancestors, and the drawn ones,
        which stand for the rest of the hierarchy and weigh accordingly.
        """
        space = self.space
        row, above = self.closure.positives(batch)
        rows, weight = self._at_hand(batch, above, others)
        self.place[rows] = self.everyone[: len(rows)]
        source, target = self.place[batch], self.place[above]
        w = space.lift(table[rows])
        u, v = w[source], w[target]

        # Negatives: decay = exp(-d), with what is above u, and u itself, struck out.
        decay, slope = space.decay_and_slope(space.all_pairs(u, w))
        flat = decay.view(-1)
        flat[row * len(rows) + target] = 0
        flat[self.everyone[: len(batch)] * len(rows) + source] = 0
        z = torch.mv(decay, weight.float()).double() + 1e-30

        # Positives: -log(e / (e + Z)): its derivative by d(u, v) is Z / (e + Z), by d(u, n) -e_n Σ_v 1 / (e_v + Z).
        near, near_slope = space.decay_and_slope(space.pairs(u[row], v))
        far = z[row]
        share = 1 / (near + far)
        loss = -(near * share).log().sum()
        toward = (far * share * near_slope).unsqueeze(1)
        pressure = torch.zeros_like(z).index_add_(0, row, share)
        away = decay.mul_(slope).mul_(-pressure.float().unsqueeze(1)).double()

        weight = weight.unsqueeze(1)
        pull = torch.mm(away.mT, u) * weight
        pull.index_add_(0, source, torch.mm(away, w * weight).index_add_(0, row, toward * v))
        pull.index_add_(0, target, toward * u[row])
        self.move(table, rows, space.gradient(table[rows], pull), rate)
        return loss

    def _at_hand(self, batch: Tensor, above: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes a step sees, each once, and the weight of each in the partition function."""
        weight = self.config.negative_weight
        if others is self.everyone:
            return others, torch.full((self.n,), weight, dtype=torch.float64, device=self.device)
        known = torch.cat([batch, above])
        rows = torch.cat([known, others]).unique()
        self.place[rows] = self.everyone[: len(rows)]
        drawn = torch.ones(len(rows), dtype=torch.float64, device=self.device)
        drawn[self.place[known]] = 0
        rest = self.n - len(rows) + drawn.sum()  # nodes that the drawn ones stand for
        return rows, weight * torch.where(drawn > 0, rest / drawn.sum().clamp(min=1), 1.0)

    def move(self, table: Tensor, rows: Tensor, gradient: Tensor, rate: float) -> None:
        """A Riemannian step of the given rows of the table, in place."""
        cfg = self.config
        table[rows] = self.space.step(
            table[rows], gradient, rate * self.slow[rows], cfg.max_step, cfg.max_radius
        )

    def _cones(self, table: Tensor, batch: Tensor, others: Tensor, rate: float) -> Tensor:
        """One step of the max-margin loss of Ganea et al. (eq. 32), in place; returns the sum of the losses.

        Each pair is set against two false ones: another node for its ancestor, another for its descendant.
        """
        cfg = self.config
        row, above = self.closure.positives(batch)
        below = batch[row]
        pick = torch.randint(len(others), (len(row),), generator=self.generator)
        other = others[pick.to(self.device)]
        rows, owner = torch.cat([below, above, other]).unique(return_inverse=True)
        u, v, w = owner.split(len(row))
        with torch.enable_grad():
            s = table[rows].requires_grad_()
            points = self.space.decode(s)

            def energy(ancestor: Tensor, descendant: Tensor) -> Tensor:
                return cone_energy(self.manifold, points[ancestor], points[descendant], cfg.aperture)

            loss = energy(v, u).sum()
            for ancestor, descendant, a, d in ((w, u, other, below), (v, w, above, other)):
                false = ~self.closure.contains(a, d) & (a != d)
                loss = loss + ((cfg.margin - energy(ancestor, descendant)).relu() * false).sum()
            (gradient,) = torch.autograd.grad(loss, s)
        self.move(table, rows, gradient, rate)
        return loss.detach()

    def embedding(self) -> PoincareEmbedding:
        about = {
            "config": describe(self.config),
            "hierarchy": self.h.fingerprint(),
            "epoch": self.epoch,
            "history": self.history,
        }
        return PoincareEmbedding(self.h.names, self.manifold, self.points, about)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically: all that `resume` needs."""
        loss = self.loss if math.isfinite(self.loss) else None
        state = {"kind": CHECKPOINT, "epoch": self.epoch, "loss": loss, "history": self.history}
        save_tensors(path, {"table": self.table}, {**self._identity(), **state})

    def _identity(self) -> dict:
        """What a checkpoint and the run that continues it must have in common."""
        return {
            "config": describe(self.config),
            "hierarchy": self.h.fingerprint(),
            "manifold": [self.manifold.name, float(self.manifold.c)],
            "pairs": len(self.pairs),
            "closure": self.given,
        }

    def resume(self, path: str | Path) -> None:
        """Continue from a checkpoint; CheckpointError names what differs from this run."""
        tensors, about = load_tensors(path)
        if (
            about.get("kind") != CHECKPOINT
            or not {"epoch", "history"} <= about.keys()
            or "table" not in tensors
        ):
            raise CheckpointError(f"{path} is not a checkpoint of an embedding's training")
        for what, value in self._identity().items():
            if about.get(what) != value:
                raise CheckpointError(
                    f"{path} cannot be continued: its {what} is {about.get(what)}, this run's is {value}; "
                    "delete the file to start anew"
                )
        table = tensors["table"]
        if table.shape != self.table.shape or table.dtype != self.table.dtype:
            raise CheckpointError(
                f"{path} cannot be continued: its table is {table.dtype} {tuple(table.shape)}, "
                f"this run's {self.table.dtype} {tuple(self.table.shape)}"
            )
        self.table, self.epoch, self.history = table.to(self.device), about["epoch"], about["history"]
        last = self.history[-1]["loss"] if self.history else math.nan
        self.loss = last if about.get("loss") is None else about["loss"]


def fit(
    h,
    manifold,
    config: EmbeddingConfig | None = None,
    *,
    closure: np.ndarray | None = None,
    start: PoincareEmbedding | None = None,
    evaluate_every: int = 0,
    patience: int = 0,
    target_map: float | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    device: str = "cpu",
    progress: bool = False,
    on_epoch: Callable[[EmbeddingTrainer, float], None] | None = None,
) -> Fit:
    """Embed a hierarchy.

    config: by default `EmbeddingConfig.for_size(len(h))`. closure: pairs to learn from (default: all).
    start: points to begin from, e.g. those of the softmax objective for the cones (as in the paper).
    evaluate_every: measure MAP and mean rank every so many epochs (on up to 1,000 sources) and at the end on all;
    0 means at the end only. patience: stop after so many evaluations without a better MAP; target_map: stop when
    reached. checkpoint: a file written every `checkpoint_every` epochs and when interrupted, and continued from if
    it exists; the result is bit for bit that of an uninterrupted run on the same machine.
    on_epoch(trainer, loss): called after every epoch, for live views.

    Raises ParameterError, DataError, CheckpointError; on Ctrl-C the checkpoint holds the last whole epoch.
    """
    for name, value, least in (
        ("evaluate_every", evaluate_every, 0), ("patience", patience, 0), ("checkpoint_every", checkpoint_every, 1)
    ):  # fmt: skip
        if value < least:
            raise ParameterError(f"{name} must not be below {least}, got {value}")
    config = config or EmbeddingConfig.for_size(len(h))
    trainer = EmbeddingTrainer(h, manifold, config, closure, device, start)
    if checkpoint and Path(checkpoint).exists():
        trainer.resume(checkpoint)
    bar = tqdm(
        total=config.epochs, initial=trainer.epoch, desc="embedding", disable=not progress, mininterval=0.5
    )
    try:
        _follow(trainer, evaluate_every)  # an evaluation that the interrupt cut off
        while trainer.epoch < config.epochs and not _finished(trainer.history, patience, target_map):
            loss = trainer.run_epoch()
            _follow(trainer, evaluate_every)
            if checkpoint and trainer.epoch % checkpoint_every == 0:
                trainer.save(checkpoint)
            bar.update()
            bar.set_postfix(_postfix(trainer.history, loss))
            if on_epoch:
                on_epoch(trainer, loss)
        if not trainer.history or not trainer.history[-1].get("exact"):
            trainer.history.append(_measure(trainer, None))
    finally:
        bar.close()
        if checkpoint:
            trainer.save(checkpoint)
    return Fit(trainer.embedding(), trainer.history)


def _follow(trainer: EmbeddingTrainer, every: int) -> None:
    """Measure where an evaluation is due and has not been made."""
    due = every and trainer.epoch and trainer.epoch % every == 0 and trainer.epoch < trainer.config.epochs
    if due and (not trainer.history or trainer.history[-1]["epoch"] < trainer.epoch):
        trainer.history.append(_measure(trainer, CHANCE))


def _measure(trainer: EmbeddingTrainer, sources: int | None) -> dict:
    known = len(trainer.closure.sources)
    result = reconstruction(
        trainer.points,
        trainer.manifold,
        trainer.pairs,
        sources=sources if sources and sources < known else None,
    )
    row = {"epoch": trainer.epoch, "loss": trainer.loss, "map": result.map, "mean_rank": result.mean_rank}
    return {**row, "exact": sources is None}


def _finished(history: list[dict], patience: int, target: float | None) -> bool:
    # The exact rows come after the decision to stop: a finished run that is called again is still finished.
    maps = [row["map"] for row in history if not row.get("exact")]
    if maps and target is not None and maps[-1] >= target:
        return True
    return bool(patience) and len(maps) > patience and max(maps[-patience:]) <= max(maps[:-patience])


def _postfix(history: list[dict], loss: float) -> dict[str, str]:
    shown = {"loss": f"{loss:.3f}"}
    if history:
        shown |= {"MAP": f"{history[-1]['map']:.3f}", "rank": f"{history[-1]['mean_rank']:.2f}"}
    return shown
