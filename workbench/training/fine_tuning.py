"""Fine-tuning: what a model is asked and should write or choose, and a loop that trains whatever may move.

Which parameters move is not decided here: put adapters on first (`workbench.models.hyplora_adapters.inject`, or peft)
or leave the whole model trainable. All randomness of a step comes from (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import DataError, ParameterError
from workbench.models.decoder import Decoder
from workbench.threads import one_thread
from workbench.training.checks import finite_numbers, linear_rate, whole_number

Ids = Sequence[int]


@dataclass(frozen=True)
class FineTuneSettings:
    """How a model is fine-tuned: AdamW, the rate rises over `warmup` steps and then falls linearly.

    weight_decay: of matrices only. clip: largest norm of the gradient. curvature_lr: rate of K (and of a learned s),
    as a multiple of lr.

    ParameterError for values that make no sense.
    """

    steps: int = 200
    batch: int = 32
    lr: float = 3e-3
    warmup: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0
    curvature_lr: float = 1.0

    def __post_init__(self) -> None:
        for name, least in dict(steps=0, batch=1, warmup=0).items():
            whole_number(name, getattr(self, name), least)
        finite_numbers(self, ("lr", "clip", "weight_decay", "curvature_lr"), above=("lr", "clip"))

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return linear_rate(self, step)


@dataclass
class FineTuneFit:
    """The model in evaluation mode; {"step", "loss", "gradient"} each `report` steps; processor seconds."""

    model: nn.Module
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0


def fine_tune(
    model: nn.Module,
    loss: Callable[[Int[Tensor, " b"]], Float[Tensor, ""]],
    n: int,
    settings: FineTuneSettings | None = None,
    *,
    seed: int = 0,
    report: int = 50,
) -> FineTuneFit:
    """Train all parameters of a model that require a gradient, in place.

    loss: of some of the n examples, given their numbers; they come in a new order each epoch.

    ParameterError, with the step, where loss or gradient is not finite (the model is as the step before left it), or
    where nothing can learn; DataError without examples.
    """
    settings = settings or FineTuneSettings()
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if n < 1:
        raise DataError("fine-tuning needs at least one example, but none came")
    if settings.steps and not moving:
        raise ParameterError("nothing of this model can learn: all its parameters are frozen")
    optimizer = _optimizer(moving, settings)
    fit, start = FineTuneFit(model), time.process_time()
    model.train()
    with one_thread() if next(model.parameters()).device.type == "cpu" else torch.enable_grad():
        for step in range(settings.steps):
            with torch.random.fork_rng(devices=_cuda(model)):
                torch.manual_seed(_mixed(seed, step))  # dropout draws from torch's own generator
                value = loss(drawn(n, settings.batch, seed, step))
            size = _step(optimizer, moving.values(), value, settings, step)
            if report and (step % report == 0 or step + 1 == settings.steps):
                fit.history.append({"step": step + 1, "loss": value.item(), "gradient": size})
    fit.seconds = time.process_time() - start
    model.eval()
    return fit


def drawn(n: int, batch: int, seed: int, step: int) -> Int[Tensor, " b"]:
    """Numbers of the examples of a step: of each epoch's own order, the rows that are due."""
    batches = math.ceil(n / batch)
    epoch, k = divmod(step, batches)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_mixed(seed, -1 - epoch)))
    return order.tensor_split(batches)[k]  # of about equal size


def _step(optimizer, parameters, loss: Tensor, settings: FineTuneSettings, step: int) -> float:
    """One step of the optimiser; the norm of the gradient."""
    loss.backward()
    gradients = [p.grad for p in parameters if p.grad is not None]
    size = torch.nn.utils.get_total_norm(gradients)
    if not bool(torch.isfinite(size) & torch.isfinite(loss)):
        optimizer.zero_grad()
        raise ParameterError(
            f"loss {loss.item():g} or gradient {size.item():g} is not finite in step {step + 1}: lower lr (now "
            f"{settings.lr:g}) or lora_alpha; the model is as step {step} left it"
        )
    torch.nn.utils.clip_grads_with_norm_(gradients, settings.clip, size)
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(step) * group["share"]
    optimizer.step()
    optimizer.zero_grad()
    return size.item()


def _optimizer(moving: dict[str, nn.Parameter], settings: FineTuneSettings) -> torch.optim.AdamW:
    groups = {True: [], False: []}, []
    for p in moving.values():
        if p.numel() == 1:  # K and s, one number a layer
            groups[1].append(p)
        else:
            groups[0][p.ndim > 1].append(p)
    found = [
        {"params": groups[0][True], "weight_decay": settings.weight_decay, "share": 1.0},
        {"params": groups[0][False], "weight_decay": 0.0, "share": 1.0},
        {"params": groups[1], "weight_decay": 0.0, "share": settings.curvature_lr},
    ]
    return torch.optim.AdamW([g for g in found if g["params"]] or [{"params": []}], lr=settings.lr)


def _cuda(model: nn.Module) -> list[torch.device]:
    device = next(model.parameters()).device
    return [device] if device.type == "cuda" else []


def _mixed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step + 1


# -- a language model writes the answer ------------------------------------------------------------


class Writing:
    """Examples that a language model learns to answer in words: only the answer counts in the loss.

    model: a `Decoder`, or any causal language model of transformers. asked, answered: rows of token ids, the answers
    with their end token. pad, end: token ids.

    DataError where the rows do not belong together.
    """

    def __init__(
        self, model: nn.Module, asked: Sequence[Ids], answered: Sequence[Ids], *, end: int, pad: int = 0
    ):
        if len(asked) != len(answered):
            raise DataError(f"{len(asked)} questions need as many answers, but {len(answered)} came")
        if not all(map(len, asked)) or not all(map(len, answered)):
            raise DataError("questions and answers must have at least one token each, but one came empty")
        self.model, self.end, self.pad = model, end, pad
        self.asked, self.answered = [list(r) for r in asked], [list(r) for r in answered]

    def __len__(self) -> int:
        return len(self.asked)

    def loss(self, rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean cross-entropy of the answers' tokens."""
        asked = [self.asked[i] for i in rows.tolist()]
        answered = [self.answered[i] for i in rows.tolist()]
        ids, mask = padded([a + b for a, b in zip(asked, answered, strict=True)], self.pad)
        says = torch.zeros_like(mask)  # the places whose next token belongs to the answer
        for row, (a, b) in enumerate(zip(asked, answered, strict=True)):
            says[row, len(a) - 1 : len(a) + len(b) - 1] = True
        device = next(self.model.parameters()).device
        ids, mask, says = ids.to(device), mask.to(device), says.to(device)
        return F.cross_entropy(logits_at(self.model, ids, mask, says).float(), ids.roll(-1, 1)[says])

    def write(self, asked: Sequence[Ids] | None = None, max_new: int = 16, batch: int = 250) -> list[Ids]:
        """What the model writes, greedily, after each question (default: those of the examples); end left out."""
        asked, out = self.asked if asked is None else [list(r) for r in asked], {}
        order = sorted(range(len(asked)), key=lambda i: len(asked[i]))  # little padding
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            out |= zip(
                some, generate(self.model, [asked[i] for i in some], max_new, self.end, self.pad), strict=True
            )
        return [out[i] for i in range(len(asked))]


def padded(
    rows: Sequence[Ids], pad: int = 0, left: bool = False
) -> tuple[Int[Tensor, "n L"], Bool[Tensor, "n L"]]:
    """Rows of ids as a tensor, filled up on the right or left; and where they are real."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), True
    return ids, mask


def logits_at(
    model: nn.Module, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"], where: Bool[Tensor, "n L"]
) -> Float[Tensor, "k V"]:
    """Logits of the next token at some places only: the vocabulary is wide."""
    if isinstance(model, Decoder):
        return model.logits(model.states(ids, mask)[where])
    return model(input_ids=ids, attention_mask=mask.long()).logits[where]


@torch.no_grad()
def generate(model: nn.Module, rows: Sequence[Ids], max_new: int, end: int, pad: int = 0) -> list[list[int]]:
    """Tokens written greedily after each row, up to the end token."""
    if isinstance(model, Decoder):
        return model.generate(rows, max_new, end)
    ids, mask = padded(rows, pad, left=True)
    device = next(model.parameters()).device
    how = dict(max_new_tokens=max_new, do_sample=False, eos_token_id=end, pad_token_id=pad)
    out = model.generate(input_ids=ids.to(device), attention_mask=mask.long().to(device), **how)
    new = out[:, ids.shape[1] :].tolist()
    return [row[: row.index(end)] if end in row else row for row in new]


# -- an encoder chooses the answer -----------------------------------------------------------------


class Chooser(nn.Module):
    """An encoder of texts, (ids, mask) → (n, width), and a linear choice among some labels; the head is trained
    beside any adapters of the encoder."""

    def __init__(self, encoder: nn.Module, width: int, labels: Sequence[str], seed: int = 0):
        super().__init__()
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise ParameterError(f"a choice needs at least two different labels, but {len(labels)} came")
        self.encoder, self.labels, self.head = encoder, tuple(labels), nn.Linear(width, len(labels))
        with torch.no_grad():
            bound = 1 / math.sqrt(width)
            start = torch.empty_like(self.head.weight)
            start.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
            self.head.weight.copy_(start)
            self.head.bias.zero_()

    def forward(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n labels"]:
        return self.head(self.encoder(ids, mask))
