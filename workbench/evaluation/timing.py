"""What a computation costs and how far it is from the truth: processor time, memory, growth, error.

Times on a machine that does other things are noise. Three remedies, all used here: count the processor time of this
process instead of the time on the wall, run the candidates in turns so that a slow minute hits all of them, and
report the median. Compare on one thread (`workbench.threads.one_thread`): threads that wait for each other count too.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ParameterError


@dataclass(frozen=True)
class Timing:
    """Processor seconds of one call, over repeats."""

    median: float
    fastest: float
    slowest: float


def interleaved(
    calls: Mapping[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1
) -> dict[str, Timing]:
    """Time several calls in turns: each round runs every call once.

    Args:
        calls: name → function without arguments. Results are thrown away; only work on the CPU is counted.
        repeats: rounds that count. warmup: rounds before them that do not (first calls allocate, plan, compile).

    Raises:
        ParameterError: nothing to time, or no round that counts.
    """
    if not calls or repeats < 1 or warmup < 0:
        raise ParameterError(
            f"interleaved needs calls, repeats >= 1 and warmup >= 0, got {len(calls)}, {repeats}, {warmup}"
        )
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            spent = time.process_time() - start
            if turn >= warmup:
                seconds[name].append(spent)
    return {name: Timing(float(np.median(s)), min(s), max(s)) for name, s in seconds.items()}


def peak_bytes(call: Callable[[], Any]) -> int:
    """Most memory that tensors on the CPU held at one time during `call`, beyond what they held before it.

    Counted at the allocator, so that buffers inside compiled code and inside operators count as well; memory that
    was allocated before and is written to does not.
    """
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with _without_chatter():
        profiler.start()
    try:
        call()
    finally:
        with _without_chatter():
            profiler.stop()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    held = np.cumsum([0] + [e.nbytes() for e in events])
    return int(held.max())


def relative_error(value: Tensor, truth: Tensor) -> float:
    """‖value - truth‖ / ‖truth‖ in float64; infinite where `value` is not finite everywhere."""
    value, truth = value.detach().double(), truth.detach().double()
    if value.shape != truth.shape:
        raise ParameterError(
            f"value and truth must have one shape, got {tuple(value.shape)} and {tuple(truth.shape)}"
        )
    off = float((value - truth).norm())
    return off / float(truth.norm()) if math.isfinite(off) else math.inf


def growth(size, cost) -> float:
    """The exponent p of the power law cost ~ size^p that fits best: a least-squares slope in logarithms.

    size, cost: (N,) positive, N >= 2.
    """
    x, y = (np.asarray(v, dtype=float) for v in (size, cost))
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < 2 or not ((x > 0).all() and (y > 0).all()):
        raise ParameterError("growth needs two positive sizes or more, and a positive cost for each")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Silence file descriptor 2: some builds of torch's profiler write two lines there at each start."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
