"""What an encoder costs as texts get longer: tokens a second and memory, state space beside attention.

Every call sees the same number of tokens, as a few long texts or as many short ones, so that a cost that is linear in
the length is a level line. Encoders of one width and depth, and the hyperbolic head alone, take turns; a ratio of
speeds is the median over rounds of the ratio within a round. On a CPU what counts is processor time on one thread, so
that other work on the machine changes little; on a GPU wall time between two waits for the device.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.evaluation.timing import growth, peak_bytes
from workbench.models.him import HiM, HiMConfig
from workbench.models.text_encoder import EncoderConfig, make_encoder, parameters
from workbench.threads import one_thread

MODES = ("forward", "train")  # train: forward, and backward to every parameter
SPELLED = {"forward": "forward", "train": "forward and backward"}
KINDS = ("mamba2", "transformer")
HEAD = "head"
LENGTHS = (16, 64, 256, 512, 1024, 2048)
LONG = 4  # growth is looked at over the longest lengths, so many


@dataclass(frozen=True)
class Cost:
    """One encoder (or the head) on `texts` texts of `length` tokens each.

    seconds: of one call, one number a round. bytes: most memory that tensors held at one time during a call beyond
    what they held before it; None if not asked for.
    """

    name: str
    length: int
    mode: str
    texts: int
    seconds: tuple[float, ...]
    bytes: int | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.texts * self.length / median(self.seconds)


@dataclass(frozen=True)
class Throughput:
    """Costs by encoder, length and mode, and the number of weights in each encoder's blocks.

    `plots.lines(t.lengths, t.tokens_per_second("train"), log_x=True, log_y=True)` draws them.
    """

    costs: tuple[Cost, ...]
    parameters: Mapping[str, int]
    device: str

    @property
    def lengths(self) -> list[int]:
        return sorted({cost.length for cost in self.costs})

    def cost(self, name: str, length: int, mode: str) -> Cost:
        found = [c for c in self.costs if (c.name, c.length, c.mode) == (name, length, mode)]
        if not found:
            raise ParameterError(f"nothing was measured of {name!r} at length {length} in mode {mode!r}")
        return found[0]

    def over_lengths(self, name: str, mode: str) -> list[Cost]:
        return [self.cost(name, L, mode) for L in self.lengths]

    def tokens_per_second(self, mode: str) -> dict[str, list[float]]:
        """Encoder → one number a length."""
        return {
            name: [c.tokens_per_second for c in self.over_lengths(name, mode)] for name in self.parameters
        }

    def megabytes(self, mode: str) -> dict[str, list[float]]:
        """Encoder → peak memory at each length, in 10⁶ bytes; NaN where it was not measured."""
        return {
            name: [math.nan if c.bytes is None else c.bytes / 1e6 for c in self.over_lengths(name, mode)]
            for name in self.parameters
        }

    def faster(self, mode: str, this: str = KINDS[0], than: str = KINDS[1]) -> dict[int, float]:
        """Length → how many times faster `this` is: the median over rounds of the ratio within a round."""
        pairs = zip(self.over_lengths(this, mode), self.over_lengths(than, mode), strict=True)
        return {
            a.length: median(theirs / ours for ours, theirs in zip(a.seconds, b.seconds, strict=True))
            for a, b in pairs
        }

    def share(self, name: str, mode: str) -> dict[int, float]:
        """Length → seconds of the head over seconds of encoder `name`."""
        return self.faster(mode, this=name, than=HEAD)

    def growth(self, name: str, mode: str) -> float:
        """The exponent p of seconds a token ~ length^p over the longest lengths: 0 where the cost is linear."""
        costs = self.over_lengths(name, mode)[-LONG:]
        return growth([c.length for c in costs], [1 / c.tokens_per_second for c in costs])

    def verdict(self, this: str = KINDS[0], than: str = KINDS[1]) -> str:
        """Where one encoder passes the other and how both grow, in sentences."""
        found = "; ".join(f"{SPELLED[mode]} {_from_where(self.faster(mode, this, than))}" for mode in MODES)
        said = f"{this} is faster than {than}: {found}."
        if len(self.lengths) < 2:
            return said
        grows = " and ".join(
            f"L^{round(self.growth(name, 'train'), 2) + 0.0:.2f} for {name}" for name in (this, than)
        )
        return f"{said} From L = {self.lengths[-LONG:][0]} on, training seconds a token grow as {grows}."

    def rows(self) -> list[dict]:
        """Plain values for a JSON file or a data frame."""
        return [
            dataclasses.asdict(c) | {"seconds": list(c.seconds), "tokens_per_second": c.tokens_per_second}
            for c in self.costs
        ]


def throughput(
    lengths: Sequence[int] = LENGTHS,
    kinds: Sequence[str] = KINDS,
    *,
    config: EncoderConfig | None = None,
    dim: int = 16,
    tokens: int | None = None,
    rounds: int = 3,
    memory: bool = True,
    device: torch.device | str = "cpu",
    seed: int = 0,
    on_length: Callable[[int], None] | None = None,
) -> Throughput:
    """Measure text encoders of one width and depth, and the head alone, at several lengths; the default takes some
    half a minute.

    Args:
        lengths: tokens a text. kinds: of `EncoderConfig`.
        config: everything about the encoders but kind and max_tokens; its defaults if None.
        dim: of the ball of the head, HiM's: tangent vectors, points, distances of all pairs of texts, in float64.
        tokens: a call, as whole texts, at least one (default: the longest length).
        rounds: that count, after one that does not.
        memory: look at it too, in two more calls each.
        on_length: called with each length before it is measured.

    Raises:
        ParameterError: no length, no encoder, or a number that is not positive.
    """
    lengths = sorted(set(lengths))
    if not lengths or not kinds or min(*lengths, rounds, dim, 1 if tokens is None else tokens) < 1:
        raise ParameterError(
            "throughput needs lengths, kinds, and positive lengths, rounds, dim and tokens, but got "
            f"{lengths}, {list(kinds)}, rounds {rounds}, dim {dim}, tokens {tokens}"
        )
    config = config or EncoderConfig()
    device, tokens = torch.device(device), tokens or lengths[-1]
    with torch.random.fork_rng(), one_thread():
        torch.manual_seed(seed)
        encoders = {
            kind: make_encoder(dataclasses.replace(config, kind=kind, max_tokens=lengths[-1])).to(device)
            for kind in kinds
        }
        head = _Head(config.width, dim).to(device)
        costs = []
        for L in lengths:
            if on_length:
                on_length(L)
            calls = _calls(encoders, head, max(1, tokens // L), L, config.vocab_size, device)
            costs += _measured(calls, rounds, memory, device, max(1, tokens // L), L)
    return Throughput(tuple(costs), {k: parameters(e.blocks) for k, e in encoders.items()}, str(device))


class _Head(nn.Module):
    """What HiM does after its encoder, and distances of all pairs: (n, width) → (n, n), float64."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.him = HiM(HiMConfig(dim=dim, encoder=EncoderConfig("bag", width=width, layers=1)))
        self.him.encoder = nn.Identity()

    def forward(self, pooled: Tensor) -> Tensor:
        points = self.him.points_of(self.him.head(pooled))
        return self.him.manifold.cdist(points, points)


def _calls(
    encoders: Mapping[str, nn.Module], head: _Head, texts: int, length: int, vocabulary: int, device
) -> dict[tuple[str, str], Callable[[], object]]:
    """(name, mode) → a call without arguments, on the same random pieces for all."""
    ids = torch.randint(1, vocabulary, (texts, length)).to(device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    pooled = torch.randn(texts, head.him.linear.in_features).to(device)
    runs = {name: (e, (ids, mask)) for name, e in encoders.items()} | {HEAD: (head, (pooled,))}
    calls = {}
    for name, (module, inputs) in runs.items():
        calls[name, "forward"] = lambda module=module, inputs=inputs: _forward(module, inputs)
        calls[name, "train"] = lambda module=module, inputs=inputs: _train(module, inputs)
    return calls


@torch.no_grad()
def _forward(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    module(*inputs)


def _train(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    leaves = [p for p in module.parameters() if p.requires_grad]
    torch.autograd.grad(module(*inputs).sum(), leaves)


def _measured(calls: Mapping, rounds: int, memory: bool, device, texts: int, length: int) -> list[Cost]:
    seconds: dict = {key: [] for key in calls}
    for done in range(-1, rounds):
        gc.collect()
        for key in list(calls) if done % 2 else reversed(list(calls)):
            start = _now(device)
            calls[key]()
            spent = _now(device) - start
            if done >= 0:
                seconds[key].append(spent)
    return [
        Cost(name, length, mode, texts, tuple(seconds[name, mode]), _peak(call, device) if memory else None)
        for (name, mode), call in calls.items()
    ]


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(call: Callable[[], object], device: torch.device) -> int:
    if device.type != "cuda":
        return peak_bytes(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def crossover(faster: Mapping[int, float]) -> float | None:
    """The length from which a ratio of speeds, given at some lengths, stays at 1 or above.

    Interpolated linearly between the logarithms of lengths and of ratios; the smallest length itself where no length
    is below 1; None where the largest one is.
    """
    lengths = sorted(faster)
    below = [L for L in lengths if faster[L] < 1]
    if not below:
        return float(lengths[0])
    if below[-1] == lengths[-1]:
        return None
    low, high = below[-1], lengths[lengths.index(below[-1]) + 1]
    a, b = math.log(faster[low]), math.log(faster[high])
    return float(low * (high / low) ** (-a / (b - a)))


def _from_where(faster: Mapping[int, float]) -> str:
    at = crossover(faster)
    if at is None:
        return f"not up to L = {max(faster)}"
    return f"from L ≈ {at:.0f} on" if at > min(faster) else f"at every length from {min(faster)}"
