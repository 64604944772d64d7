"""What the benchmarks measure with: interleaved clocks, medians, memory high-water marks."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event, Thread

import torch
from torch import Tensor

MODES = ("forward", "train")  # train: forward, and backward to every input
SHORTEST = 0.01  # seconds one reading of the clock should last, so that its own cost does not show
FEWEST, MOST = 5, 31  # rounds
FEW = 3  # rounds of what is only there to be seen once


@dataclass(frozen=True)
class Work:
    """One implementation on its inputs: `run()` returns a tensor that depends on the `leaves`."""

    run: Callable[[], Tensor]
    leaves: list[Tensor]
    modes: tuple[str, ...] = MODES

    def forward(self) -> None:
        with torch.no_grad():
            self.run()

    def train(self) -> None:
        out = self.run()
        torch.autograd.grad(out, self.leaves, torch.ones_like(out))

    def calls(self) -> dict[str, Callable[[], None]]:
        return {mode: getattr(self, mode) for mode in self.modes}


@dataclass
class Readings:
    """Seconds of one implementation by mode and clock: one number a round, None where it sat out."""

    wall: dict[str, list[float | None]] = field(default_factory=dict)
    cpu: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, mode: str, wall: float | None, cpu: float | None) -> None:
        self.wall.setdefault(mode, []).append(wall)
        self.cpu.setdefault(mode, []).append(cpu)

    def median(self, mode: str, clock: str) -> float | None:
        found = [s for s in getattr(self, clock).get(mode, []) if s is not None]
        return median(found) if found else None

    def best(self, mode: str, clock: str) -> float | None:
        return min((s for s in getattr(self, clock).get(mode, []) if s is not None), default=None)


def speed(this: Readings, other: Readings, mode: str, clock: str) -> float | None:
    """How many times faster `this` is than `other`: the median over rounds of the ratio within a round."""
    pairs = zip(getattr(other, clock).get(mode, []), getattr(this, clock).get(mode, []), strict=False)
    ratios = [a / b for a, b in pairs if a is not None and b is not None]
    return median(ratios) if ratios else None


def clock(call: Callable[[], None], times: int) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


def side_by_side(
    works: Mapping[str, Work],
    budget: float,
    rounds: int | None = None,
    seldom: Container[str] = (),
    clock: Callable = clock,
) -> dict[str, Readings]:
    """Run all implementations round by round, in alternating order: `rounds` times, or for about `budget` seconds.

    A disturbance of the machine then meets all of them alike. What is named in `seldom` takes part in the first
    rounds only.
    """
    repeats = {}
    for name, work in works.items():
        for mode, call in work.calls().items():
            call()  # compiles, loads libraries, wakes threads
            repeats[name, mode] = max(1, math.ceil(SHORTEST / max(clock(call, 1)[0], 1e-6)))
    readings = {name: Readings() for name in works}
    begun, done = time.perf_counter(), 0
    gc.collect()
    gc.disable()
    try:
        while done < (rounds or FEWEST) or (
            not rounds and done < MOST and time.perf_counter() - begun < budget
        ):
            for name in list(works) if done % 2 == 0 else reversed(list(works)):
                for mode, call in works[name].calls().items():
                    sits_out = name in seldom and done >= FEW
                    seconds = (None, None) if sits_out else clock(call, repeats[name, mode])
                    readings[name].add(mode, *seconds)
            done += 1
    finally:
        gc.enable()
    return readings


def first_call(call: Callable[[], None]) -> float:
    """Wall seconds that the first call takes longer than the second: compiling, loading, tracing."""
    first, _ = clock(call, 1)
    second, _ = clock(call, 1)
    return max(0.0, first - second)


# glibc's malloc hands large blocks back when they are freed: without it, pages that are free but kept count as well.
FRESH_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "60000"}


def peak_memory(call: Callable[[], None]) -> int:
    """Bytes by which the resident set's high-water mark within a warm call exceeds what was resident before it.

    Only in a process of its own, started with FRESH_PAGES in its environment, is this what the call needs.
    """
    call()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than with glibc
        ctypes.CDLL(None).malloc_trim(0)  # small blocks that the warm call has freed
    before = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        return _sampled(call, before)
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))
    except (OSError, StopIteration):
        import psutil

        return psutil.Process(os.getpid()).memory_info().rss


def _sampled(call: Callable[[], None], before: int) -> int:
    """Without a mark that can be set back: a thread that looks a thousand times a second."""
    done, seen = Event(), [before]

    def look() -> None:
        while not done.wait(0.001):
            seen.append(_resident("VmRSS"))

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return max(seen) - before
