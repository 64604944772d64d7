"""Fitting HiM: names in batches of true and wrong parents, every distinct name of a batch encoded once.

All that is trained is Euclidean (weights, the scale γ and the logarithm of the curvature), so that AdamW serves in
every space. The rate rises over a warm-up and then falls linearly. All randomness of a step comes from (seed, step):
a resumed run is the same run, bit for bit, on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.data.tasks import Task
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.evaluation.subsumption import Calibration, calibrate
from workbench.files import load_tensors, save_tensors
from workbench.models.him import HiM, HiMConfig
from workbench.models.him_losses import him_loss, radius
from workbench.models.wordpiece import Tokenizer
from workbench.threads import one_thread
from workbench.training.checkpoints import pack, refuse_another_run, unpack
from workbench.training.checks import finite_numbers, linear_rate, whole_number
from workbench.training.names import Names

CHECKPOINT = "him-training"
BEYOND = 1e9  # no score is as large


@dataclass(frozen=True)
class HiMSettings:
    """How HiM is fitted; the defaults make real use of the curvature ("curved" margins).

    positives: true pairs a step. wrong: wrong parents a pair, drawn from those the task offers. weight_decay: of
    matrices only, not of γ, the curvature, norms or biases. warmup: steps of rising rate, at most half of all.
    loss, margin, beta, centripetal, near, far, weight: see `workbench.models.him_losses.him_loss`, in unit curvature.
    clip: largest norm of the gradient. curvature_lr: rate of γ and the curvature, as a multiple of lr.

    ParameterError for values that make no sense.
    """

    steps: int = 600
    positives: int = 64
    wrong: int = 5
    lr: float = 3e-3
    weight_decay: float = 1e-3
    warmup: int = 30
    loss: str = "triplet"
    margin: float = 2.0
    beta: float = 0.2
    centripetal: str = "linear"
    near: float = 1.0
    far: float | None = None
    weight: float = 1.0
    clip: float = 1.0
    curvature_lr: float = 1.0

    @classmethod
    def published(cls, **changes) -> HiMSettings:
        """The margins of the paper's code: 0.255 and, of the logarithms, 0.0051."""
        return replace(cls(margin=0.255, beta=0.0051, centripetal="log"), **changes)

    def __post_init__(self) -> None:
        for name, least in dict(steps=0, positives=1, wrong=1, warmup=0).items():
            whole_number(name, getattr(self, name), least)
        finite_numbers(
            self,
            ("lr", "clip", "margin", "beta", "weight", "weight_decay", "curvature_lr"),
            above=("lr", "clip"),
        )

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return linear_rate(self, step)


@dataclass
class HiMFit:
    """The model in evaluation mode, a row of batch figures each `report` steps, the calibration on validation
    questions, and the points (N, ambient) of the task's nodes."""

    model: HiM
    history: list[dict] = field(default_factory=list)
    calibration: Calibration | None = None
    points: Tensor | None = None


class HiMTrainer:
    """One step at a time; `fit_him` runs them all."""

    def __init__(self, model: HiM, task: Task, settings: HiMSettings, seed: int, device: torch.device):
        self.model, self.settings, self.seed, self.device = model.to(device).train(), settings, seed, device
        self.names = Names(task.texts, model, device)
        self.train, self.wrong = (
            torch.from_numpy(np.array(a, dtype=np.int64)) for a in (task.train, task.train_wrong)
        )
        if settings.wrong > self.wrong.shape[1]:
            raise ParameterError(
                f"the task offers {self.wrong.shape[1]} wrong parents a pair, but wrong came as {settings.wrong}"
            )
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if settings.steps and not self.parameters:
            raise ParameterError("nothing of this model can learn: its encoder is frozen and it has no head")
        self.optimizer = _optimizer(self.parameters.values(), settings)
        self.identity = json.loads(
            json.dumps(
                {
                    "kind": CHECKPOINT,
                    "config": asdict(model.config),
                    "settings": asdict(settings) | {"seed": seed},
                    "tokenizer": model.tokenizer.fingerprint,
                    "data": _digest(task),
                }
            )
        )
        self.step, self.history, self.order = 0, [], (-1, ())

    # -- a step -------------------------------------------------------------------------------------------
    def run_step(self, report: bool = False) -> None:
        """One step; ParameterError, naming it, if loss or gradient is not finite: nothing has changed then."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_mixed(self.seed, self.step))  # dropout draws from torch's own generator
            try:
                loss, parts, points = self.loss(*self.draw())
            except (
                ParameterError
            ) as e:  # the weights are no longer finite, or nothing about the batch is right
                raise ParameterError(
                    f"step {self.step + 1} cannot be taken ({e}): lower lr (now {self.settings.lr:g}) or gamma"
                ) from e
            loss.backward()
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        size = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(size) & torch.isfinite(loss)):
            self.optimizer.zero_grad()
            raise ParameterError(
                f"loss {loss.item():g} or gradient {size.item():g} is not finite in step {self.step + 1}: "
                f"lower lr (now {self.settings.lr:g}) or gamma; the model is as step {self.step} left it"
            )
        torch.nn.utils.clip_grads_with_norm_(gradients, self.settings.clip, size)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step) * group["share"]
        row = self._row(loss, parts, points, size) if report else None
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if row:
            self.history.append(row)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Pairs (P, 2) [ancestor, descendant] of this step and their wrong ancestors (P, m), nodes."""
        batches = math.ceil(len(self.train) / self.settings.positives)
        epoch, k = divmod(self.step, batches)
        if self.order[0] != epoch:
            shuffled = torch.randperm(len(self.train), generator=_generator(self.seed, -1 - epoch))
            self.order = (epoch, shuffled.tensor_split(batches))  # of about equal size
        mine = self.order[1][k]
        offered = self.wrong[mine]
        lots = torch.rand(offered.shape, generator=_generator(self.seed, self.step))
        return self.train[mine], offered.gather(1, lots.argsort(1)[:, : self.settings.wrong])

    def loss(self, pairs: Tensor, wrong: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss, its parts, and the points of the batch's distinct names."""
        s = self.settings
        points, place = self.names.encode(torch.cat([pairs, wrong], 1))
        parent, child, others = points[place[:, 0]], points[place[:, 1]], points[place[:, 2:]]
        loss, parts = him_loss(
            *(self.model.loss_manifold, child, parent, others),
            loss=s.loss, margin=s.margin, beta=s.beta, centripetal=s.centripetal,
            near=s.near, far=s.far, weight=s.weight,
        )  # fmt: skip
        return loss, parts, points

    @torch.no_grad()
    def _row(self, loss: Tensor, parts: dict[str, Tensor], points: Tensor, gradient: Tensor) -> dict:
        """Figures of this step's batch, radii and κ in unit curvature, before the weights move."""
        r, manifold = radius(self.model.manifold, points), self.model.manifold
        values = {"loss": loss, **parts, "kappa": self.model.kappa, "c": manifold.c}
        values |= {"radius": r.mean(), "radius_max": r.max(), "gradient": gradient}
        return {"step": self.step + 1, **{name: float(value) for name, value in values.items()}}

    def finite(self) -> bool:
        """Whether every weight is."""
        return all(bool(torch.isfinite(p).all()) for p in self.parameters.values())

    # -- checkpoints --------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically: all that `resume` needs. Frozen weights are not in it."""
        tensors = pack(self.parameters, self.optimizer)
        save_tensors(path, tensors, {**self.identity, "step": self.step, "history": self.history})

    def resume(self, path: str | Path) -> None:
        """Continue from a checkpoint; CheckpointError names what differs from this run."""
        tensors, about = load_tensors(path)
        refuse_another_run(path, about, self.identity)
        own, adam = unpack(tensors, self.optimizer)
        try:
            if own.keys() != self.parameters.keys():
                raise KeyError(", ".join(sorted(own.keys() ^ self.parameters.keys())[:3]))
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(own[name])
            self.optimizer.load_state_dict(adam)
            self.step, self.history = about["step"], about["history"]
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{path} holds no whole state of a training: {e}") from e


def fit_him(
    task: Task,
    config: HiMConfig | None = None,
    settings: HiMSettings | None = None,
    *,
    seed: int = 0,
    tokenizer: Tokenizer | None = None,
    report: int = 50,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    device: str = "cpu",
    progress: bool = False,
    on_report: Callable[[HiMTrainer, dict], None] | None = None,
) -> HiMFit:
    """Fit a model to the training pairs of a task, and calibrate it on its validation questions.

    seed: of the batches (the config has that of the model). tokenizer: default, that of the encoder. settings with
    steps=0 calibrate an untrained model, such as a frozen sentence encoder in flat space. checkpoint: a file written
    every `checkpoint_every` steps and when interrupted, and continued from if it exists. on_report(trainer, row): for
    live views, each `report` steps (0: never). The model remembers the task's names (`model.hypernyms`).

    ParameterError for bad settings, or where loss or gradient is not finite: then with the step, and the checkpoint
    holds the step before it. DataError for a task without pairs; CheckpointError for the checkpoint of another run.

    Source: HiM (arXiv 2505.18973), section 3; rates and margins as in `HiMSettings`.
    """
    settings = settings or HiMSettings()
    for name, value, least in (
        ("report", report, 0),
        ("checkpoint_every", checkpoint_every, 1),
        ("seed", seed, 0),
    ):
        whole_number(name, value, least)
    if len(task.train) == 0:
        raise DataError(f"the task {task.name} has no training pairs")
    model = HiM(config or HiMConfig(), tokenizer)
    trainer = HiMTrainer(model, task, settings, seed, torch.device(device))
    with one_thread():
        _run(trainer, report, checkpoint, checkpoint_every, progress, on_report)
        return _finished(trainer, task)


def _run(trainer: HiMTrainer, report, checkpoint, every, progress, on_report) -> None:
    steps = trainer.settings.steps
    if checkpoint and Path(checkpoint).exists():
        trainer.resume(checkpoint)
    bar = tqdm(total=steps, initial=trainer.step, desc="HiM", disable=not progress, mininterval=0.5)
    try:
        while trainer.step < steps:
            shown = bool(report) and (trainer.step % report == 0 or trainer.step + 1 == steps)
            trainer.run_step(shown)
            bar.update()
            if shown and on_report:
                on_report(trainer, trainer.history[-1])
            if checkpoint and trainer.step % every == 0 and trainer.finite():
                trainer.save(checkpoint)
    finally:
        bar.close()
        if (
            checkpoint and trainer.step and trainer.finite()
        ):  # what went wrong does not take the place of what was right
            trainer.save(checkpoint)


def _finished(trainer: HiMTrainer, task: Task) -> HiMFit:
    model = trainer.model.eval()
    points = trainer.names.points()
    calibration = calibrate(points, model.score_manifold, task.valid)
    # Infinite where one answer to all is best: as good as any beyond all scores, and a number in files.
    threshold = min(max(calibration.threshold, -BEYOND), BEYOND)
    model.calibration = calibration = replace(calibration, threshold=threshold)
    model.index(task.texts, points)
    return HiMFit(model, trainer.history, calibration, points)


def _optimizer(parameters, settings: HiMSettings) -> torch.optim.AdamW:
    """Matrices decay; vectors (norms, biases) do not, nor do γ and the curvature, which have a rate of their own."""
    matrices, vectors, numbers = [], [], []
    for p in parameters:
        (matrices if p.ndim > 1 else vectors if p.ndim else numbers).append(p)
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay, "share": 1.0},
        {"params": vectors, "weight_decay": 0.0, "share": 1.0},
        {"params": numbers, "weight_decay": 0.0, "share": settings.curvature_lr},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]] or [{"params": []}], fused=True)


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mixed(seed, step))


def _mixed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step + 1


def _digest(task: Task) -> str:
    digest = hashlib.sha256("\n".join(task.texts).encode())
    for array in (task.train, task.train_wrong, task.valid.pairs, task.valid.wrong):
        digest.update(repr(np.shape(array)).encode() + np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()
