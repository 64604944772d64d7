"""Fitting HRQ: an autoencoder with a quantised middle, or a table of points with codes that say where they lie.

Points are reached through tangent vectors at the origin, so that plain Adam serves in all three spaces; or they are
themselves the parameters and Riemannian Adam moves them (`workbench.training.riemannian`). The rate falls along a
cosine. Codes are no longer revived in the last tenth of the steps, so that none is left where it was thrown. All
randomness of a step comes from (seed, step): a resumed run is the same run, bit for bit, on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.errors import CheckpointError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.models.hrq import HRQVAE, HRQConfig, HRQTable
from workbench.threads import one_thread
from workbench.training.checkpoints import pack, refuse_another_run, unpack
from workbench.training.checks import whole_number
from workbench.training.embedding import Closure, checked_closure
from workbench.training.riemannian import make_optimizer, release

CHECKPOINT = "hrq-training"
QUIET = 0.9  # share of the steps after which no code is revived
PATIENCE = 50  # steps on end without a finite gradient before a training gives up
MOST_POINTS = 20_000  # that the first codebooks are fitted to
Loss = Callable[[int], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class HRQFit:
    """The model in evaluation mode, and a row of batch losses each `report` steps.

    skipped: steps left out because loss or gradient was not finite. clipped: points pulled in to the largest radius.
    revived: codes put on another point, since they were hardly used.
    """

    model: HRQVAE | HRQTable
    history: list[dict] = field(default_factory=list)
    skipped: int = 0
    clipped: int = 0
    revived: int = 0


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + step + 1)


def _digest(array: Tensor | np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    return hashlib.sha256(repr((array.shape, str(array.dtype))).encode() + array.tobytes()).hexdigest()


def _check(whole: dict, positive: dict) -> None:
    for name, value in whole.items():
        least = 0 if name in ("report", "seed") else 1
        whole_number(name, value, least)
    for name, value in positive.items():
        if not 0 <= value < math.inf or (name == "lr" and value == 0):
            raise ParameterError(f"{name} must be a finite number, lr above 0, but came as {value!r}")


class HRQTrainer:
    """One step at a time. loss(step) -> (loss, its parts by name); identity: what a resumed run must share."""

    def __init__(self, model, loss: Loss, steps: int, lr: float, identity: dict, optimizer: str = "adam"):
        self.model, self.loss, self.steps, self.lr = model.train(), loss, steps, lr
        self.identity = json.loads(json.dumps({"kind": CHECKPOINT, **identity}))
        self.optimizer = make_optimizer(optimizer, model, lr)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.revive_below = model.quantizer.revive_below
        self.step, self.skipped, self.in_a_row, self.history = 0, 0, 0, []

    def run_step(self, report: bool = False) -> None:
        """One step, or none and a count where its gradient is not finite; ParameterError after 50 of them on end."""
        quantizer, done = self.model.quantizer, self.step / self.steps
        quantizer.revive_below = self.revive_below if done < QUIET else 0.0
        loss, parts = self.loss(self.step)
        loss.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        size = torch.nn.utils.get_total_norm(gradients)
        if bool(torch.isfinite(size) & torch.isfinite(loss)):
            self.in_a_row = 0
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * done)) / 2
            self.optimizer.step()
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            if self.in_a_row >= PATIENCE:
                raise ParameterError(
                    f"loss or gradient was not finite for {PATIENCE} steps on end, up to step {self.step + 1}: "
                    f"lower lr (now {self.lr:g}) or the scale"
                )
        self.optimizer.zero_grad()
        self.step += 1
        if report:
            self.history.append(self._row(loss, parts))

    def _row(self, loss: Tensor, parts: dict[str, Tensor]) -> dict:
        values = {name: float(value.detach()) for name, value in {"loss": loss, **parts}.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return {"step": self.step, **finite, **self.counts()}

    def counts(self) -> dict[str, int]:
        quantizer = self.model.quantizer
        return {
            "skipped": self.skipped,
            "clipped": int(quantizer.clipped),
            "revived": int(quantizer.revived),
        }

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically: all that `resume` needs."""
        tensors = pack(self.model.own_state(), self.optimizer)
        at = {name: getattr(self, name) for name in ("step", "skipped", "in_a_row", "history")}
        save_tensors(path, tensors, {**self.identity, **at})

    def resume(self, path: str | Path) -> None:
        """Continue from a checkpoint; CheckpointError names what differs from this run."""
        tensors, about = load_tensors(path)
        refuse_another_run(path, about, self.identity)
        own, adam = unpack(tensors, self.optimizer)
        try:
            self.model.load_own_state(own)
            self.optimizer.load_state_dict(adam)
            for name in ("step", "skipped", "in_a_row", "history"):
                setattr(self, name, about[name])
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{path} holds no whole state of a training: {e}") from e


def _run(trainer: HRQTrainer, start: Callable[[], None], report, checkpoint, every, progress, on_report):
    """All steps; `start` prepares a model that no checkpoint continues."""
    with one_thread():
        if checkpoint and Path(checkpoint).exists():
            trainer.resume(checkpoint)
        else:
            start()
        bar = tqdm(total=trainer.steps, initial=trainer.step, disable=not progress, mininterval=0.5)
        try:
            while trainer.step < trainer.steps:
                last = trainer.step + 1 == trainer.steps
                shown = bool(report) and (trainer.step % report == 0 or last)
                trainer.run_step(shown)
                bar.update()
                if shown and on_report:
                    on_report(trainer, trainer.history[-1])
                if checkpoint and trainer.step % every == 0:
                    trainer.save(checkpoint)
        finally:
            bar.close()
            if checkpoint and trainer.step:
                trainer.save(checkpoint)
    trainer.model.quantizer.revive_below = trainer.revive_below
    release(trainer.model)
    counts = trainer.counts()
    if counts["skipped"] or counts["clipped"]:
        warnings.warn(
            f"{counts['skipped']} of {trainer.steps} steps were skipped, their gradient was not finite, "
            f"and points were pulled in to the largest radius {counts['clipped']} times",
            stacklevel=3,
        )
    return HRQFit(trainer.model.eval(), trainer.history, **counts)


def fit_vae(
    features: np.ndarray | Tensor,
    config: HRQConfig | None = None,
    *,
    steps: int = 900,
    batch: int = 512,
    lr: float = 2e-3,
    optimizer: str = "adam",
    weight: float = 0.1,
    seed: int = 0,
    report: int = 100,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    device: str = "cpu",
    progress: bool = False,
    on_report: Callable[[HRQTrainer, dict], None] | None = None,
) -> HRQFit:
    """Fit an autoencoder of features (n, f), floating point, whose middle is quantised.

    The loss is the squared error in units of the features' variance and `weight` times the quantiser's losses. batch:
    rows a step, at most all. optimizer: "adam", or "riemannian" for codebooks that are parameters (update="gradient"
    in a curved space), which then move as points of the manifold; weights are Euclidean and move as with "adam", so
    that with update="ema" or in flat space there is no difference. seed: of the batches (the config has that of the
    model). checkpoint: a file written every `checkpoint_every` steps and when interrupted, and continued from if it
    exists. on_report(trainer, row): for live views, each `report` steps.

    DataError for bad features, or fewer of them than codes; ParameterError for bad settings, or where no gradient is
    finite any more; CheckpointError for the checkpoint of another run.
    """
    _check(
        dict(steps=steps, batch=batch, seed=seed, report=report, checkpoint_every=checkpoint_every),
        dict(lr=lr, weight=weight),
    )
    features = torch.as_tensor(features)
    model = HRQVAE(features.shape[-1] if features.ndim else 0, config).to(device)
    x = model.check(features)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.randperm(len(x), generator=_generator(seed, step))[:batch].to(device)
        out = model(x[rows])
        quantization = out.quantization.sum()
        return out.error + weight * quantization, {"error": out.error, "quantization": quantization}

    identity = {
        "config": asdict(model.config),
        "settings": dict(steps=steps, batch=batch, lr=lr, optimizer=optimizer, weight=weight, seed=seed),
        "data": _digest(x.cpu()),
    }
    order = torch.randperm(len(x), generator=_generator(seed, -1)).to(device)[:MOST_POINTS]
    trainer = HRQTrainer(model, loss, steps, lr, identity, optimizer)
    return _run(trainer, lambda: model.prepare(x, order), report, checkpoint, checkpoint_every, progress,
                on_report)  # fmt: skip


def contrastive(model: HRQTable, points: Tensor, pairs: Tensor, others: Tensor, known: Closure, own: bool):
    """Mean over pairs [v, u], "u is a v", of d(u, v) + log Σ exp(-d(u, ·)), and the pairs' points, u first.

    The sum is over the drawn `others` (P, m) that are neither u nor above u, and u itself (`own`, as the HRQ paper
    writes it: Nickel & Kiela's eq. 5 read literally) or v (as their released code has it).
    """
    v, u = pairs.unbind(1)
    x, y = points[u], points[v]
    near = model.manifold.dist(x, y)
    far = model.manifold.dist(x.unsqueeze(1), points[others])
    above = known.contains(others, u.unsqueeze(1).expand_as(others)) | (others == u.unsqueeze(1))
    one = torch.zeros_like(near) if own else -near
    total = torch.cat([one.unsqueeze(1), (-far).masked_fill(above, -math.inf)], 1).logsumexp(1)
    return (near + total).mean(), torch.cat([x, y])


def fit_joint(
    hierarchy,
    config: HRQConfig | None = None,
    *,
    epochs: int = 70,
    batch: int = 512,
    lr: float = 0.1,
    optimizer: str = "adam",
    negatives: int = 50,
    self_negative: bool = True,
    weight: float = 1.0,
    closure: np.ndarray | None = None,
    seed: int = 0,
    report: int = 100,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    device: str = "cpu",
    progress: bool = False,
    on_report: Callable[[HRQTrainer, dict], None] | None = None,
) -> HRQFit:
    """Fit a point and codes for each node of a hierarchy: contrastive loss of the closure's pairs, and quantisation.

    The loss is `contrastive` and `weight` times the quantiser's losses of both nodes of a pair. optimizer: "adam"
    moves tangent vectors at the origin, "riemannian" the points themselves, of table and trainable codebooks; in flat
    space they are the same. negatives: nodes drawn for each pair. self_negative: see `contrastive`. closure: pairs
    [ancestor, descendant] to learn from, by default all. The other arguments and errors are as in `fit_vae`;
    DataError where there are no pairs.

    Source: Piękos et al. 2025, the supervised WordNet experiment.
    """
    _check(
        dict(epochs=epochs, batch=batch, negatives=negatives, seed=seed, report=report,
             checkpoint_every=checkpoint_every),
        dict(lr=lr, weight=weight),
    )  # fmt: skip
    array = checked_closure(hierarchy.closure() if closure is None else closure, len(hierarchy))
    model = HRQTable(len(hierarchy), config).to(device)
    pairs = torch.from_numpy(np.array(array, dtype=np.int64)).to(device)
    known = Closure(array, len(hierarchy), device)
    batches = math.ceil(len(pairs) / batch)
    order: dict[int, tuple[Tensor, ...]] = {}

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, k = divmod(step, batches)
        if epoch not in order:
            order.clear()
            shuffled = torch.randperm(len(pairs), generator=_generator(seed, -2 - epoch))
            order[epoch] = shuffled.to(device).tensor_split(batches)  # of about equal size
        mine = pairs[order[epoch][k]]
        shape = (len(mine), negatives)
        others = torch.randint(model.size, shape, generator=_generator(seed, step)).to(device)
        told, points = contrastive(model, model.points(), mine, others, known, self_negative)
        # Twice the mean over both: the losses of u and of v.
        quantization = 2 * model.quantizer(points).losses.sum()
        return told + weight * quantization, {"contrastive": told, "quantization": quantization}

    def start() -> None:
        rows = torch.randperm(model.size, generator=_generator(seed, -1))[:MOST_POINTS].to(device)
        model.quantizer.fit(model.points(rows))

    identity = {
        "config": asdict(model.config),
        "settings": dict(epochs=epochs, batch=batch, lr=lr, optimizer=optimizer, negatives=negatives,
                         self_negative=self_negative, weight=weight, seed=seed),
        "data": [hierarchy.fingerprint(), _digest(array)],
    }  # fmt: skip
    trainer = HRQTrainer(model, loss, epochs * batches, lr, identity, optimizer)
    return _run(trainer, start, report, checkpoint, checkpoint_every, progress, on_report)
