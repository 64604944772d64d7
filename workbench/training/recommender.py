"""Fitting a recommender of the next item: the same loop for HMamba, Mamba4Rec, SASRec and GRU4Rec.

After every item of a training sequence the next one is asked for ("dense"), or, as RecBole does, each prefix is a row
of its own that asks once ("prefix"): the same question, at about half a sequence's length times the price. The best
epoch on validation is kept. All randomness of a step comes from (seed, epoch, step): a resumed run is the same run,
bit for bit, on the same machine.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.interactions import Held, Interactions
from workbench.errors import CheckpointError, ParameterError, suggest
from workbench.evaluation.recommendation import TargetRanks, both_ranks
from workbench.evaluation.recommendation import report as measures
from workbench.files import load_tensors, save_tensors
from workbench.models.recommender import Recommender, RecommenderConfig, named
from workbench.threads import one_thread
from workbench.training import recommender_losses as losses
from workbench.training.checkpoints import pack, refuse_another_run, unpack
from workbench.training.checks import finite_numbers, whole_number
from workbench.training.recommender_batches import Batch, Batches, Draws
from workbench.training.riemannian import RiemannianAdam, release

CHECKPOINT = "recommender-training"
CHOICES = {
    "loss": ("softmax", "sampled", "bce", "gbce"),
    "mode": ("dense", "prefix"),
    "pieces": ("all", "last"),
    "optimizer": ("adam", "riemannian"),
}


@dataclass(frozen=True)
class RecommenderSettings:
    """How a recommender is fitted.

    loss: "softmax" over all items; "sampled", over `negatives` items drawn for each step; "bce", against one item
    the user has not had; "gbce", against `negatives` items, calibrated by `calibration` (`recommender_losses`).
    logq: of "sampled": correct for how likely each item was drawn. popular: items are drawn with probability
    proportional to (1 + count)^popular. mode: "dense" or "prefix". pieces: of sequences longer than the model's
    max_len, "all" of them in pieces cut anew each epoch, or only the "last", as SASRec does (of "dense").
    epochs, batch (sequences a step; about ten times as many go with "prefix"), lr. weight_decay: of matrices only.
    curvature_lr: rate of κ and c, as a multiple of lr. clip: largest norm of the gradient. patience: reports without
    a better NDCG@10 on validation after which to stop; 0: never. optimizer: "adam", or "riemannian": items are
    points that move along geodesics. budget: processor seconds of training after which no epoch begins; 0: none.

    ParameterError for values that make no sense.
    """

    loss: str = "softmax"
    mode: str = "dense"
    pieces: str = "all"
    epochs: int = 20
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.0
    curvature_lr: float = 0.1
    clip: float = 5.0
    patience: int = 0
    optimizer: str = "adam"
    budget: float = 0.0
    negatives: int = 512
    logq: bool = True
    popular: float = 0.0
    calibration: float = 0.75

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise ParameterError(
                    f"{name} must be one of {', '.join(known)}, but came as {value!r}{suggest(value, known)}"
                )
        for name, least in dict(epochs=0, batch=1, patience=0, negatives=1).items():
            whole_number(name, getattr(self, name), least)
        finite_numbers(
            self,
            ("lr", "clip", "weight_decay", "curvature_lr", "budget", "popular", "calibration"),
            above=("lr", "clip"),
        )
        if self.calibration > 1:
            raise ParameterError(f"calibration must be at most 1, but came as {self.calibration!r}")


@dataclass
class RecommenderFit:
    """The model as of its best epoch, in evaluation mode and bound to the data's names; a row of figures each report;
    which epoch that was (the last one where nothing was reported); epochs and processor seconds of training."""

    model: Recommender
    history: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0


class RecommenderTrainer:
    """One step at a time; `fit_recommender` runs them all.

    `epoch` and `step` count what is done: whole epochs, and steps of the one at hand.
    """

    def __init__(
        self,
        model: Recommender,
        data: Interactions,
        settings: RecommenderSettings,
        seed: int,
        device: torch.device,
    ):
        self.model, self.data, self.settings, self.seed = model.to(device).train(), data, settings, seed
        self.device = device
        self.batches = Batches(data, model.max_len, settings.mode, settings.pieces, settings.batch, device)
        self.optimizer = _optimizer(model, settings)
        self.draws = Draws(data, settings.negatives, settings.popular, device)
        identity = {
            "kind": CHECKPOINT,
            "config": asdict(model.config),
            "settings": asdict(settings) | {"seed": seed},
            "data": data.fingerprint(),
            "rolling": data.rolling,
        }
        for name in ("epochs", "patience", "budget"):  # how long to go on is no part of what a run is
            del identity["settings"][name]
        self.identity = json.loads(json.dumps(identity))
        self.epoch, self.step, self.best_epoch, self.seconds = 0, 0, 0, 0.0
        self.total = torch.zeros(2, dtype=torch.float64)  # of this epoch: sum of losses, number of targets
        self.best: dict[str, Tensor] = {}
        self.history: list[dict] = []
        self.whole = True  # False while a step changes things: an interrupt may come anywhere
        self._plan: tuple[int, list] = (-1, [])

    # -- a step -------------------------------------------------------------------------------------------
    @property
    def plan(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The batches of the epoch at hand, one a step."""
        if self._plan[0] != self.epoch:
            self._plan = self.epoch, self.batches.epoch(_mixed(self.seed, self.epoch, 0))
        return self._plan[1]

    def run_step(self) -> None:
        """One step; ParameterError, naming it, if loss or gradient is not finite: nothing has changed then."""
        batch = self.batches.make(*self.plan[self.step])
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_mixed(self.seed, self.epoch, self.step + 1))  # dropout draws from torch's own
            loss = self.loss(batch)
            (loss + self.model.penalty).backward()
        gradients = [
            p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        size = torch.nn.utils.get_total_norm(gradients)
        value, norm = torch.stack([loss.detach(), size.to(loss.dtype)]).tolist()
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise ParameterError(
                f"loss {value:g} or gradient {norm:g} is not finite in step {self.step + 1} of epoch "
                f"{self.epoch + 1}: lower lr (now {self.settings.lr:g}); the model is as the step before left it"
            )
        torch.nn.utils.clip_grads_with_norm_(gradients, self.settings.clip, size)
        self.whole = False
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.total += torch.tensor([value * len(batch.targets), len(batch.targets)], dtype=torch.float64)
        self.step += 1
        self.whole = True

    def loss(self, batch: Batch) -> Tensor:
        """The batch's mean loss over targets, without the model's penalty."""
        states, s = self.model.states(batch.items, batch.mask)[batch.asked], self.settings
        if s.loss == "softmax":
            return losses.softmax(self.model, states, batch.targets)
        if s.loss == "bce":
            return losses.bce(self.model, states, batch.targets, self.draws.unseen(batch.users)[:, None])
        drawn, log_expected = self.draws.shared()
        if s.loss == "gbce":
            return losses.gbce(self.model, states, batch.targets, drawn, s.calibration)
        return losses.sampled_softmax(
            self.model, states, batch.targets, drawn, log_expected if s.logq else None
        )

    # -- an epoch -----------------------------------------------------------------------------------------
    def end_epoch(self, report: bool) -> None:
        """Count the epoch; with `report`, measure it on validation and keep the model if it is the best so far."""
        row = {"epoch": self.epoch + 1, "loss": float(self.total[0] / self.total[1])}
        if report:
            row |= {**self.validate(), **self.geometry(), "seconds": self.seconds}
        self.whole = False
        if report and (not self.best or row["ndcg@10"] > self._best_row["ndcg@10"]):
            self.best_epoch = row["epoch"]
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.history += [row] if report else []
        self.epoch, self.step = self.epoch + 1, 0
        self.total.zero_()
        self.whole = True

    @property
    def _best_row(self) -> dict:
        return next(row for row in self.history if row["epoch"] == self.best_epoch)

    def validate(self) -> dict[str, float]:
        """HR, NDCG and MRR at 10 on the validation targets, seen items left out."""
        self.model.eval()
        ranks = ranks_of(self.model, self.data.valid)
        self.model.train()
        return measures(ranks.masked, ks=(10,)).flat()

    @torch.no_grad()
    def geometry(self) -> dict[str, float]:
        """κ, c, temperature τ, and the radii of items, mean and largest, in unit curvature."""
        space = self.model.manifold
        radius = radii(self.model)
        return {
            "kappa": self.model.kappa,
            "c": float(space.c),
            "tau": float(self.model.head.temperature),
            "radius": float(radius.mean()),
            "radius_max": float(radius.max()),
        }

    @property
    def finished(self) -> bool:
        """The epochs, the patience or the budget are used up."""
        s = self.settings
        waited = sum(row["epoch"] > self.best_epoch for row in self.history)
        late = (s.patience and waited >= s.patience) or (s.budget and self.seconds >= s.budget)
        return self.step == 0 and (self.epoch >= s.epochs or bool(late))

    # -- checkpoints --------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically: all that `resume` needs."""
        tensors = pack(self.model.state_dict(), self.optimizer) | {"total": self.total}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        counts = {name: getattr(self, name) for name in ("epoch", "step", "best_epoch", "seconds", "history")}
        save_tensors(path, tensors, {**self.identity, **counts})

    def resume(self, path: str | Path) -> None:
        """Continue from a checkpoint; CheckpointError names what differs from this run."""
        tensors, about = load_tensors(path)
        refuse_another_run(path, about, self.identity)
        weights, adam = unpack(tensors, self.optimizer)
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(adam)
            self.total = tensors["total"]
            self.best = {
                name.removeprefix("best."): value.to(self.device)
                for name, value in tensors.items()
                if name.startswith("best.")
            }
            for name in ("epoch", "step", "best_epoch", "seconds", "history"):
                setattr(self, name, about[name])
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{path} holds no whole state of a training: {e}") from e


def fit_recommender(
    data: Interactions,
    config: RecommenderConfig | str = "hmamba_full",
    settings: RecommenderSettings | None = None,
    *,
    seed: int = 0,
    report: int = 1,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    progress: bool = False,
    on_report: Callable[[RecommenderTrainer, dict], None] | None = None,
) -> RecommenderFit:
    """Fit a recommender to the training sequences of a data set, and keep its best epoch on the validation targets.

    config: settings of a model or its name (`named`). seed: of batches and dropout (the config has that of the
    weights). report: epochs from one validation to the next; 0: never, then the last epoch is kept. checkpoint: a
    file written after every epoch and when interrupted, and continued from if it exists (also for more epochs).
    on_report(trainer, row): for live views.

    DataError for data without targets; ParameterError for bad settings, or where loss or gradient is not finite: then
    with the step, and the checkpoint holds the step before it. CheckpointError for the checkpoint of another run.
    """
    settings = settings or RecommenderSettings()
    for name, value in (("report", report), ("seed", seed)):
        whole_number(name, value, 0)
    data.require_targets()
    config = named(config) if isinstance(config, str) else config
    model = Recommender(config, data.n_items).bind(data)
    trainer = RecommenderTrainer(model, data, settings, seed, torch.device(device))
    with one_thread():
        _run(trainer, report, checkpoint, progress, on_report)
    if trainer.best:
        model.load_state_dict(trainer.best)
    release(model)
    best = trainer.best_epoch or trainer.epoch
    return RecommenderFit(model.eval(), trainer.history, best, trainer.epoch, trainer.seconds)


def _run(trainer: RecommenderTrainer, report, checkpoint, progress, on_report) -> None:
    if checkpoint and Path(checkpoint).exists():
        trainer.resume(checkpoint)
    bar = tqdm(
        total=trainer.settings.epochs, initial=trainer.epoch, desc=trainer.data.name, disable=not progress
    )
    try:
        while not trainer.finished:
            _run_epoch(trainer)
            last = trainer.epoch + 1 == trainer.settings.epochs
            shown = bool(report) and ((trainer.epoch + 1) % report == 0 or last)
            trainer.end_epoch(shown)
            bar.update()
            if shown and on_report:
                on_report(trainer, trainer.history[-1])
            if checkpoint:
                trainer.save(checkpoint)
    finally:
        bar.close()
        if checkpoint and trainer.whole and (trainer.epoch or trainer.step):
            trainer.save(checkpoint)


def _run_epoch(trainer: RecommenderTrainer) -> None:
    start = time.process_time()
    try:
        while trainer.step < len(trainer.plan):
            trainer.run_step()
    finally:
        trainer.seconds += time.process_time() - start


def scorer(model: Recommender) -> Callable[[Tensor, Tensor], Tensor]:
    """`model.score_last` of a model in evaluation mode that stands still: its items are made ready once, not for
    every batch."""
    with torch.no_grad():
        table = model.table()

    def scores(items: Tensor, mask: Tensor) -> Tensor:
        states = model.states(items, mask)
        last = (mask.sum(1) - 1).clamp_min(0)
        return model.ranking_scores(states[torch.arange(len(items), device=items.device), last], table)

    return scores


def ranks_of(model: Recommender, held: Held) -> TargetRanks:
    """Ranks of held-out targets by a model in evaluation mode, wherever it lies."""
    device = model.items.held.device
    return both_ranks(scorer(model), held, model.n_items, max_len=model.max_len, batch=512, device=device)


@torch.no_grad()
def radii(model: Recommender) -> Tensor:
    """Distance of every item from the origin, (V,) float64, in unit curvature; flat space as it is."""
    space = model.manifold
    root = float(space.c) ** 0.5 or 1.0
    return space.dist0(model.item_points()) * root


def _optimizer(model: Recommender, settings: RecommenderSettings) -> torch.optim.Optimizer:
    """Matrices decay, Mamba's A and points do not, nor vectors (norms, biases) and numbers. κ and c have a rate of
    their own."""
    if settings.optimizer == "riemannian":
        model.items.hold_points()
    slow = {id(p) for p in model.curvatures()}
    points = model.items.place
    groups = {"matrices": [], "others": [], "curvatures": []}
    for p in model.parameters():
        decays = p.ndim > 1 and p is not points and not getattr(p, "_no_weight_decay", False)
        groups["curvatures" if id(p) in slow else "matrices" if decays else "others"].append(p)
    of_group = [
        {"params": groups["matrices"], "weight_decay": settings.weight_decay},
        {"params": groups["others"], "weight_decay": 0.0},
        {"params": groups["curvatures"], "weight_decay": 0.0, "lr": settings.lr * settings.curvature_lr},
    ]
    of_group = [g for g in of_group if g["params"]]
    if points is not None:
        return RiemannianAdam(of_group, lr=settings.lr, stabilize=1)
    return torch.optim.AdamW(of_group, lr=settings.lr, fused=True)


def _mixed(seed: int, epoch: int, step: int) -> int:
    """A seed for each step of each epoch of each run; `step` 0 is the epoch's own."""
    return (seed * 1_000_003 + epoch) * 1_000_003 + step
