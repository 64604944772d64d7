"""What a step of training a recommender costs as histories get longer: the encoder, and scoring all items, apart.

Every step sees the same number of tokens, as a few long histories or as many short ones, and asks for the next item
after each of them. Encoding is from item numbers to states and back to every weight; scoring is the loss over all
items and back to states and items, whose price does not know the encoder. Their sum, times the number of steps, is an
epoch, but for the optimizer. Models take turns, ratios are taken within a round, and a CPU's seconds are processor
time of one thread, as in `evaluation.throughput`.

Two things decide as much as the model does. On a CPU Mamba's scan is eager or compiled, the latter about twice as
fast. And attention with dropout is fused on a GPU, but not on a CPU: there it keeps every weight of every pair, and
takes four times as long as without dropout.
"""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from workbench.errors import ParameterError
from workbench.evaluation.throughput import _now, _peak, crossover
from workbench.models.recommender import Recommender, RecommenderConfig, named
from workbench.nn import Mamba
from workbench.scan import which
from workbench.threads import one_thread
from workbench.training.recommender_losses import sampled_softmax, softmax

LENGTHS = (50, 200, 1000)
MODELS = ("hmamba_full", "mamba4rec", "sasrec")
PARTS = ("encode", "score", "step")  # a step is both
CLAIM = 3.2  # the abstract of HMamba: so many times faster training than with attention
TOKENS = {"cpu": 4000, "cuda": 64_000}  # a step, at least; few of them leave a GPU idle


@dataclass(frozen=True)
class StepCost:
    """One model on `sequences` histories of `length` items each.

    encode, score: seconds, one number a round. encode_bytes, step_bytes: most memory that tensors held at one time
    beyond what they held before, of the encoder's part and of a whole step; None if not asked for. scan: the backend
    that ran, "" for models without one.
    """

    name: str
    length: int
    sequences: int
    encode: tuple[float, ...]
    score: tuple[float, ...]
    encode_bytes: int | None = None
    step_bytes: int | None = None
    scan: str = ""

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    def of(self, part: str) -> list[float]:
        """Seconds of a part of `PARTS`, round by round."""
        if part not in PARTS:
            raise ParameterError(f"part is one of {', '.join(PARTS)}, but came as {part!r}")
        if part != "step":
            return list(getattr(self, part))
        return [a + b for a, b in zip(self.encode, self.score, strict=True)]

    def seconds(self, part: str = "step") -> float:
        return median(self.of(part))


@dataclass(frozen=True)
class RecommenderSpeed:
    """Costs by model and length, and how many weights each encoder has, but for those of positions.

    `plots.lines(s.lengths, s.tokens_per_second("encode"), log_x=True, log_y=True)` draws them.
    """

    costs: tuple[StepCost, ...]
    parameters: Mapping[str, int]
    scoring: str  # in words
    device: str

    @property
    def lengths(self) -> list[int]:
        return sorted({cost.length for cost in self.costs})

    @property
    def models(self) -> list[str]:
        return list(self.parameters)

    @property
    def scans(self) -> dict[str, str]:
        """Model → the scans that ran, from short histories to long ones; "" where there is none."""
        ran = {name: dict.fromkeys(c.scan for c in self.costs if c.name == name) for name in self.models}
        return {name: " and ".join(of) for name, of in ran.items()}

    def cost(self, name: str, length: int) -> StepCost:
        found = [c for c in self.costs if (c.name, c.length) == (name, length)]
        if not found:
            raise ParameterError(f"nothing was measured of {name!r} at length {length}")
        return found[0]

    def tokens_per_second(self, part: str = "step") -> dict[str, list[float]]:
        """Model → one number a length."""
        return self._over_lengths(lambda cost: cost.tokens / cost.seconds(part))

    def epoch(self, tokens: int, part: str = "step") -> dict[str, list[float]]:
        """Model → seconds at each length of an epoch with so many targets, the optimizer not counted."""
        return self._over_lengths(lambda cost: cost.seconds(part) * tokens / cost.tokens)

    def megabytes(self, part: str = "step") -> dict[str, list[float]]:
        """Model → peak memory of "encode" or "step" at each length, in 10⁶ bytes; NaN where it was not measured."""
        if part not in ("encode", "step"):
            raise ParameterError(f"memory is known of encode and of step, but not of {part!r}")
        held = self._over_lengths(lambda cost: getattr(cost, f"{part}_bytes"))
        return {name: [math.nan if b is None else b / 1e6 for b in of] for name, of in held.items()}

    def share(self, name: str) -> dict[int, float]:
        """Length → the part of a step that goes into scoring."""
        return {L: self.cost(name, L).seconds("score") / self.cost(name, L).seconds() for L in self.lengths}

    def ratio(self, this: str, than: str, part: str = "step") -> dict[int, float]:
        """Length → how many times faster `this` is: the median over rounds of the ratio within a round."""
        return {
            L: median(
                theirs / ours
                for ours, theirs in zip(self.cost(this, L).of(part), self.cost(than, L).of(part), strict=True)
            )
            for L in self.lengths
        }

    def crossover(self, this: str, than: str, part: str = "step") -> float | None:
        """The length from which `this` is the faster one, or None where it is not at the longest; see
        `throughput.crossover`."""
        return crossover(self.ratio(this, than, part))

    def verdict(self, this: str = MODELS[0], than: str = MODELS[-1]) -> str:
        """Where one model passes the other, and what became of the paper's factor, in sentences."""
        step, last = self.ratio(this, than), self.lengths[-1]
        factors = ", ".join(f"{factor:.2f} × at L = {L}" for L, factor in step.items())
        reached = [L for L, factor in step.items() if factor >= CLAIM]
        claim = (
            f"the paper's {CLAIM} × is reached at L = {', '.join(map(str, reached))}"
            if reached
            else f"the paper's {CLAIM} × is reached at none of these lengths"
        )
        scans = "".join(f", {self.scans[name]} scan in {name}" for name in (this, than) if self.scans[name])
        return (
            f"{this} trains at these multiples of {than}'s speed: {factors} "
            f"({self.device}{scans}; {self.scoring}); {claim}. "
            f"Its encoder alone is the faster one {_from_where(self.ratio(this, than, 'encode'))}. "
            f"Scoring takes {self.share(this)[last]:.0%} of its step at L = {last}, "
            f"{self.share(than)[last]:.0%} of {than}'s."
        )

    def rows(self) -> list[dict]:
        """Plain values for a JSON file or a data frame."""
        return [
            dataclasses.asdict(c)
            | {"encode": list(c.encode), "score": list(c.score)}
            | {f"{part}_tokens_per_second": c.tokens / c.seconds(part) for part in PARTS}
            for c in self.costs
        ]

    def _over_lengths(self, value: Callable[[StepCost], float]) -> dict[str, list[float]]:
        return {name: [value(self.cost(name, L)) for L in self.lengths] for name in self.models}


def recommender_speed(
    lengths: Sequence[int] = LENGTHS,
    models: Sequence[str] | Mapping[str, RecommenderConfig] = MODELS,
    *,
    n_items: int = 3000,
    width: int = 64,
    state: int = 32,
    dropout: float = 0.2,
    negatives: int = 0,
    tokens: int | None = None,
    rounds: int = 3,
    memory: bool = True,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_length: Callable[[int], None] | None = None,
) -> RecommenderSpeed:
    """Measure a step of training, encoder and softmax apart, on random histories; the default takes some half a
    minute of a CPU.

    Args:
        lengths: items a history, none of them padding.
        models: names of `named`, made with width, state and dropout; or settings by a name of your own, taken as they
            are but for max_len, which is the longest length.
        n_items: that are scored; all of them, or `negatives` drawn ones if that is not 0.
        tokens: a step, as whole histories, at least one (default: 4000, on a GPU 64 000, or the longest length if
            that is more).
        rounds: that count, after one that does not. memory: look at it too, in two more calls each.
        backend: of the scan. "auto" is asked once a length, and what it gives now is kept for all rounds: on a CPU
            histories of more than some 15 to 50 items are eager until this process has done enough for compiling to
            pay (`workbench.scan.backends`).
        on_length: called with each length before it is measured.

    Raises:
        ParameterError: no length, no model, a number that is not positive, or what `named` refuses.
    """
    lengths, device = sorted(set(lengths)), torch.device(device)
    least = min([*lengths, rounds, n_items, negatives + 1, 1 if tokens is None else tokens])
    if not lengths or not models or least < 1:
        raise ParameterError(
            "recommender_speed needs lengths, models, and positive lengths, rounds, n_items and tokens, but got "
            f"{lengths}, {list(models)}, rounds {rounds}, n_items {n_items} (negatives {negatives}), tokens {tokens}"
        )
    if not isinstance(models, Mapping):
        models = {name: named(name, width=width, state=state, dropout=dropout) for name in models}
    tokens = tokens or max(TOKENS["cpu" if device.type == "cpu" else "cuda"], lengths[-1])
    with torch.random.fork_rng(), one_thread():
        torch.manual_seed(seed)
        made = {
            name: Recommender(dataclasses.replace(config, max_len=lengths[-1]), n_items).to(device).train()
            for name, config in models.items()
        }
        costs = []
        for L in lengths:
            if on_length:
                on_length(L)
            items = torch.randint(n_items, (max(1, tokens // L), L)).to(device)
            steps = {name: _Step(model, items, negatives, backend) for name, model in made.items()}
            costs += _measured(steps, items, rounds, memory)
    weights = {name: _weights(model) for name, model in made.items()}
    scoring = f"softmax over {negatives:,} drawn of" if negatives else "full softmax over"
    return RecommenderSpeed(tuple(costs), weights, f"{scoring} {n_items:,} items", str(device))


def _weights(model: Recommender) -> int:
    """Of the encoder and what follows it, but for attention's positions: a longer history needs more of them."""
    parts = (*model.encoder.named_parameters(), *model.out.named_parameters())
    return sum(p.numel() for name, p in parts if name != "positions")


class _Step:
    """The parts of a step of one model as calls without arguments; every item of a history is also a target."""

    def __init__(self, model: Recommender, items: Tensor, negatives: int, backend: str):
        self.model, self.items, self.negatives = model, items, negatives
        self.mask = torch.ones_like(items, dtype=torch.bool)
        self.leaves = [p for p in model.parameters() if p.requires_grad]
        self.blocks = [part for part in model.modules() if isinstance(part, Mamba)]
        self.found = self._first(backend)
        self.scan = which("selective_scan").backend if self.blocks else ""
        self.gradient = torch.randn_like(self.found)

    @torch.no_grad()
    def _first(self, backend: str) -> Tensor:
        """States, and the scan: what this call gets all others get, as "auto" may change its mind between rounds."""
        for block in self.blocks:
            block.backend = backend
        found = self.model.states(self.items, self.mask)
        for block in self.blocks:
            block.backend = which("selective_scan").backend
        return found

    def encode(self) -> None:
        states = self.model.states(self.items, self.mask)
        self._back((states * self.gradient).sum() + self.model.penalty)

    def score(self) -> None:
        states = self.found.detach().requires_grad_()
        self._back(self._loss(states), states)

    def whole(self) -> None:
        self._back(self._loss(self.model.states(self.items, self.mask)) + self.model.penalty)

    def _loss(self, states: Tensor) -> Tensor:
        states, targets = states.flatten(0, 1), self.items.flatten()
        if not self.negatives:
            return softmax(self.model, states, targets)
        drawn = torch.randint(self.model.n_items, (self.negatives,)).to(targets.device)
        return sampled_softmax(self.model, states, targets, drawn)

    def _back(self, loss: Tensor, *more: Tensor) -> None:
        torch.autograd.grad(loss, [*self.leaves, *more], allow_unused=True)


def _measured(steps: Mapping[str, _Step], items: Tensor, rounds: int, memory: bool) -> list[StepCost]:
    seconds: dict = {(name, part): [] for name in steps for part in ("encode", "score")}
    for done in range(-1, rounds):
        gc.collect()
        for name, part in list(seconds) if done % 2 else reversed(list(seconds)):
            call = getattr(steps[name], part)
            start = _now(items.device)
            call()
            spent = _now(items.device) - start
            if done >= 0:
                seconds[name, part].append(spent)
    costs = []
    for name, step in steps.items():
        peaks = [_peak(call, items.device) for call in (step.encode, step.whole)] if memory else [None, None]
        parts = (tuple(seconds[name, part]) for part in ("encode", "score"))
        costs.append(StepCost(name, items.shape[1], len(items), *parts, *peaks, step.scan))
    return costs


def _from_where(ratio: Mapping[int, float]) -> str:
    at = crossover(ratio)
    if at is None:
        return f"at no length up to {max(ratio)}"
    return f"from L ≈ {at:.0f} on" if at > min(ratio) else f"at every length from {min(ratio)}"
