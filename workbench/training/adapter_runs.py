"""One fine-tuning with an adapter and all that is asked of it, from plain values to plain values: a cell of a sweep.

The task is to find the equation of a word problem, "- number0 * number1 number2", among those that occur in training;
whoever has the equation has the number. The base is a small language model trained here, or MiniLM.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.data import arithmetic
from workbench.data.arithmetic import Problem
from workbench.errors import ParameterError, suggest
from workbench.evaluation.answers import prefix_value
from workbench.files import load_tensors, save_tensors
from workbench.models.decoder import Decoder, DecoderConfig
from workbench.models.hyplora_adapters import AdapterConfig, adapters, inject
from workbench.models.hyplora_layers import HypLoRALinear
from workbench.models.text_encoder import EncoderConfig, make_encoder
from workbench.models.words import Words
from workbench.paths import cache_dir, checkout
from workbench.training.adapter_values import sorted_values
from workbench.training.fine_tuning import Chooser, FineTuneSettings, fine_tune, padded
from workbench.training.language import fit_language_model, perplexity

EQUATION_WORDS = ("+", "-", "*", "/", "=", *(f"number{i}" for i in range(8)))
LONGEST = 80  # words of a text that the base reads
BASES = ("small", "minilm")
# What is adapted: all linear maps of the small model; those of MiniLM's layers.
TARGETS = {
    "small": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "minilm": ("query", "key", "value", "dense"),
}


# -- the base --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A small language model that has read arithmetic text, its words, and its perplexity on held-out text."""

    model: Decoder
    words: Words
    perplexity: float


def small_base(
    data: str = "gsm8k+mawps_asdiv", *, width: int = 96, layers: int = 2, steps: int = 400, seed: int = 0
) -> Base:
    """The base of the small model, read from `build/` (or the cache folder), or trained and kept there.

    data: see `workbench.data.arithmetic.texts`; one text in fifty is held out for the perplexity. The file's name
    depends on the source of all that makes it, so that a change makes another. DataError where the data are not here.
    """
    path = _folder() / f"arithmetic-{_key(data, width, layers, steps, seed)}.safetensors"
    if path.exists():
        tensors, about = load_tensors(path)
        model = Decoder(DecoderConfig(**about["config"]))
        model.load_state_dict(tensors)
        return Base(model.eval(), Words.from_json(about["words"]), about["perplexity"])
    return _trained(path, data, width, layers, steps, seed)


def _trained(path: Path, data: str, width: int, layers: int, steps: int, seed: int) -> Base:
    texts = arithmetic.texts(data)
    words = Words.train(texts, least=10, always=EQUATION_WORDS)
    config = DecoderConfig(
        vocab_size=len(words), width=width, layers=layers, hidden=8 * width // 3, seed=seed
    )
    rows = [[words.START, *words.encode(text), words.END][:LONGEST] for text in texts]
    held = rows[::50]
    learned = [row for i, row in enumerate(rows) if i % 50]
    fit = fit_language_model(
        learned, config, FineTuneSettings(steps=steps, batch=16, weight_decay=0.01, warmup=20), seed=seed
    )
    found = Base(fit.model.eval(), words, perplexity(fit.model, held))
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"config": {f.name: getattr(config, f.name) for f in fields(config)}}
    about |= {"words": words.json(), "perplexity": found.perplexity}
    save_tensors(path, fit.model.state_dict(), about)
    return found


def _folder() -> Path:
    try:
        return checkout() / "build" / "bases"
    except FileNotFoundError:
        return cache_dir() / "bases"


def _key(*values) -> str:
    makers = ("models.decoder", "models.words", "data.arithmetic", "data._problems", "data.prompts")
    makers += ("training.language", "training.fine_tuning")
    digest = hashlib.sha256(repr((*values, torch.__version__)).encode())
    for name in makers:
        digest.update(Path(sys.modules[f"workbench.{name}"].__file__).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


# -- the problems ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """Problems to learn from, to choose by, held out of the same source, and of another one (SVAMP)."""

    train: list[Problem]
    valid: list[Problem]
    test: list[Problem]
    other: list[Problem]


@lru_cache(maxsize=4)
def parts(data: str = "mawps_asdiv", train: int = 0, split: int = 0) -> Parts:
    """Problems by part: of "mawps_asdiv" 300 to choose by and 400 held out, SVAMP beside; of "made" the same, and
    other wordings beside. train: how many to learn from, 0: all. split: seed of who is held out."""
    own, other = (list(arithmetic.problems(data, part)) for part in ("train", "test"))
    random.Random(split).shuffle(own)
    test, valid, rest = own[:400], own[400:700], own[700:]
    if train > len(rest):
        raise ParameterError(f"there are {len(rest)} problems to learn from, but train came as {train}")
    return Parts(rest[: train or None], valid, test, other)


def solved(equations: Sequence[str], problems: Sequence[Problem]) -> list[bool]:
    """Whether each equation gives its problem's answer, to 0.001."""
    values = [prefix_value(e, p.numbers) for e, p in zip(equations, problems, strict=True)]
    return [abs(v - p.answer) <= 1e-3 for v, p in zip(values, problems, strict=True)]


# -- who solves them -------------------------------------------------------------------------------


class LastState(nn.Module):
    """A decoder as an encoder of texts: its state after the last word."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n d"]:
        states = self.decoder.states(ids, mask)
        return states[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]


class Solver:
    """A `Chooser` among the equations that occur at least five times in training, and what it is trained on.

    base: see `adapter_run`. Those of the problems whose equation is too rare are not learned from, and never solved.
    """

    def __init__(
        self, base: str, text: str, base_steps: int, problems: Sequence[Problem], seed: int, device: str
    ):
        if base == "small":
            found = small_base(text, steps=base_steps)
            encoder, width, self.rows_of = (
                LastState(found.model),
                found.model.config.width,
                _reader(found.words),
            )
        else:
            encoder = make_encoder(EncoderConfig(kind="pretrained", pretrained=base))
            width, self.rows_of = encoder.out_dim, encoder.tokenizer
        seen = Counter(p.equation for p in problems)
        labels = sorted(e for e, n in seen.items() if n >= 5)
        self.model = Chooser(encoder, width, labels, seed).to(device)
        self.device, place = device, {e: i for i, e in enumerate(labels)}
        known = [p for p in problems if p.equation in place]
        self.ids, self.mask = (t.to(device) for t in self.rows_of([p.question for p in known]))
        self.labels = torch.tensor([place[p.equation] for p in known], device=device)

    def loss(self, rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean cross-entropy of some problems' equations."""
        rows = rows.to(self.device)
        longest = int(self.mask[rows].sum(1).max())
        scores = self.model(self.ids[rows, :longest], self.mask[rows, :longest])
        return F.cross_entropy(scores, self.labels[rows])

    def batches(self, problems: Sequence[Problem], size: int = 50) -> list[tuple[Tensor, Tensor]]:
        """Questions as (ids, mask)."""
        parts = (problems[i : i + size] for i in range(0, len(problems), size))
        rows = (self.rows_of([p.question for p in some]) for some in parts)
        return [(ids.to(self.device), mask.to(self.device)) for ids, mask in rows]

    @torch.no_grad()
    def answer(self, problems: Sequence[Problem]) -> list[str]:
        """An equation each."""
        best = [self.model(*batch).argmax(1).tolist() for batch in self.batches(problems)]
        return [self.model.labels[i] for some in best for i in some]


def _reader(words: Words):
    def rows_of(texts: Sequence[str]) -> tuple[Int[Tensor, "n L"], Bool[Tensor, "n L"]]:
        return padded([[words.START, *words.encode(text)] for text in texts], words.PAD)

    return rows_of


# -- a run -----------------------------------------------------------------------------------------


def adapter_run(
    *,
    base: str = "small",
    data: str = "mawps_asdiv",
    text: str = "gsm8k+mawps_asdiv",
    method: str = "hyplora",
    seed: int = 0,
    split: int = 0,
    train: int = 0,
    report: int = 0,
    test: bool = True,
    device: str = "cpu",
    base_steps: int = 400,
    **values,
) -> dict:
    """Fine-tune once, and solve the problems.

    base: "small", pretrained on `text` for `base_steps` (`small_base`), or "minilm". data, train, split: see `parts`.
    method: of `AdapterConfig`, or "none" (only the head is trained, as beside every adapter) or "all" (everything is
    trained). test: False asks only the validation problems, to choose by. values: any of `AdapterConfig` and
    `FineTuneSettings` by name, such as r, lora_alpha, K, variant, lr, steps. seed: of A, batches and head.

    Returns valid, and with test also test and other, accuracies; right, {"test", "other"}: a truth value a problem;
    phi and phi_cv, mean and coefficient of variation of the gate over tokens of validation questions, mean over
    layers (1 and 0 without a gate); phi_layers {layer: [mean, cv]}; K, its mean at the end; loss, of the last batch;
    history where `report` is not 0; parameters, trained ones; seconds, of training by processor.

    ParameterError for a value that nothing knows, and all that `inject` and `fine_tune` raise.
    """
    config, settings = _sorted_values(base, method, values)
    found = parts(data, train, split)
    solver = Solver(base, text, base_steps, found.train, seed, device)
    moving = _put_on(solver, config, method, seed)
    fit = fine_tune(
        solver.model, solver.loss, len(solver.labels), settings, seed=seed, report=report or settings.steps
    )
    asked = {"test": found.test, "other": found.other} if test else {}
    right = answered(solver, valid=found.valid, **asked)
    row = {name: float(np.mean(value)) for name, value in right.items()}
    row |= gates(solver, found.valid) | {"parameters": moving, "seconds": fit.seconds}
    row |= {"loss": fit.history[-1]["loss"] if fit.history else None}
    row |= {"history": fit.history} if report else {}
    return row | {"right": {n: right[n] for n in asked}}


def answered(solver: Solver, **problems: Sequence[Problem]) -> dict[str, list[int]]:
    """For each set of problems by name: 1 for each that is solved, else 0."""
    return {n: [int(x) for x in solved(solver.answer(p), p)] for n, p in problems.items()}


def _put_on(solver: Solver, config: AdapterConfig | None, method: str, seed: int) -> int:
    """Make trainable what the method trains; how many parameters that are."""
    model = solver.model
    if config:
        inject(model.encoder, config, seed=seed)
    else:
        model.requires_grad_(method == "all")
    model.head.requires_grad_(True)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _sorted_values(base: str, method: str, values: dict) -> tuple[AdapterConfig | None, FineTuneSettings]:
    if base not in BASES:
        raise ParameterError(
            f"base must be one of {', '.join(BASES)}, but came as {base!r}{suggest(base, BASES)}"
        )
    return sorted_values(method, values, ("none", "all"), {"target_modules": TARGETS[base]}, {})


@torch.no_grad()
def gates(solver: Solver, problems: Sequence[Problem]) -> dict:
    """Mean and coefficient of variation of φ over the tokens of some questions, by adapted layer and over all."""
    layers, seen = hyperbolic(solver), {}
    if not layers:
        return {"phi": 1.0, "phi_cv": 0.0, "phi_layers": {}, "K": None}

    def look(name, layer, x, mask):
        seen.setdefault(name, []).append(layer.gate(x)[mask])

    each_input(solver, problems, look)
    each = {name: spread(torch.cat(phi)) for name, phi in seen.items()}
    means, spreads = zip(*each.values(), strict=True)
    return {
        "phi": float(np.mean(means)),
        "phi_cv": float(np.mean(spreads)),
        "phi_layers": each,
        "K": float(np.mean([float(layer.K) for layer in layers.values()])),
    }


def spread(values: Tensor) -> list[float]:
    """Mean and coefficient of variation."""
    return [float(values.mean()), float(values.std() / values.mean())]


def hyperbolic(solver: Solver) -> dict[str, HypLoRALinear]:
    """Its layers that have a gate."""
    return {n: m for n, m in adapters(solver.model).items() if isinstance(m, HypLoRALinear)}


def each_input(solver: Solver, problems: Sequence[Problem], look: Callable) -> None:
    """Call look(name, layer, input, mask) for every such layer and every batch of questions; mask: real tokens."""
    real = []

    def hook(name, layer):
        def seen(_, inputs):
            x, mask = inputs[0], real[-1]
            everything = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
            look(name, layer, x, mask if mask.shape == everything.shape else everything)

        return layer.register_forward_pre_hook(seen)

    handles = [hook(name, layer) for name, layer in hyperbolic(solver).items()]
    try:
        for ids, mask in solver.batches(problems):
            real.append(mask)
            solver.model(ids, mask)
    finally:
        for handle in handles:
            handle.remove()
