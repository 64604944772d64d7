"""Selective scan, SSD and the Mamba blocks beside mambapy, plain PyTorch and attention of the same width.

    workbench bench scan                                # some minutes on two idle cores
    workbench bench scan --quick                        # under a minute, once compiled code is in its cache
    python benchmarks/scan.py --op ssd --lengths 256 4096 --json ssd.json

All implementations of one length run in turn, round after round in alternating order, so that a disturbance meets
all of them. Milliseconds are medians; "attention / this" is the median over rounds of the ratio within a round, of
forward and backward to every input together (above 1: this one is faster). `--clock cpu` shows CPU seconds of all
threads instead of wall seconds, for a machine that has other work; the JSON file has both. Softplus, bias, D and the
gate are part of every scan, projections only of the blocks. Memory is the resident set's high-water mark in a forward
and backward beyond the inputs, in a process of its own with compiling behind it. Errors are the worst of output and
(up to length 1024) gradients, against the step-by-step recurrence in float64. On a CUDA device the tables of
_scan_gpu.py follow.
Needs mambapy: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import torch
from _measure import FRESH_PAGES, MODES, Readings, first_call, peak_memory, side_by_side, speed
from _scan_candidates import (
    ATTENTION,
    CANDIDATES,
    COMPILED,
    OURS,
    RIVALS,
    SELDOM,
    SIZES,
    TITLES,
    TRIAL,
    Candidate,
    missing,
    worst_error,
)
from rich import box
from rich.console import Console
from rich.table import Table

from workbench.evaluation.throughput import crossover
from workbench.files import write_json
from workbench.runs.recording import machine, versions

GRID = (64, 128, 256, 512, 1024, 2048, 4096)  # where the crossover is looked for
GRADIENTS_UP_TO = 1024  # the oracle keeps every state for its backward
WIDE = None if sys.stdout.isatty() else 150  # tables in a file are for pasting
console, progress = Console(highlight=False, width=WIDE), Console(stderr=True, highlight=False)
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.alone:
        print(json.dumps(alone(*args.alone, args.lengths, args.memory)))
        return
    begun, load = time.perf_counter(), os.getloadavg()[0]
    if load > CORES:
        console.print(
            f"[yellow]note:[/] this machine is busy (load {load:.1f}, {CORES} cores): trust ratios more than "
            "milliseconds, and see --clock cpu",
            soft_wrap=True,
        )
    about = {"machine": machine(), "threads": args.threads, "load_at_start": load, "clock": args.clock}
    console.print(heading(about["machine"], args))
    with compile_cache(args.quick) as cache:
        results = {op: measure(op, args, cache) for op in args.op}
        for op, result in results.items():
            show(op, result, args)
        gpu = on_gpu(args)
    if args.json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = {"benchmark": "scan", "date": now, "quick": args.quick, **about}
        write_json(args.json, {**found, "versions": all_versions(), "cpu": results, "gpu": gpu})
    progress.print(f"{time.perf_counter() - begun:.0f} s in all")


def on_gpu(args: argparse.Namespace) -> dict | None:
    if not torch.cuda.is_available():
        console.print("\nNo CUDA device: the GPU tables are left out.")
        return None
    from _scan_gpu import measure_and_show

    return measure_and_show(console, args.rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--op", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--lengths", nargs="+", type=positive, help="of the tables (256 512 1024 4096)")
    parser.add_argument("--threads", type=positive, default=min(2, CORES))
    parser.add_argument("--rounds", type=positive, help="exactly so many; otherwise as time allows")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="which seconds are shown")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        help="leave out",
        choices=list(dict.fromkeys(n for c in CANDIDATES.values() for n in c)),
    )
    parser.add_argument("--quick", action="store_true", help="256 and 1024; no memory, no compile times")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)  # one implementation, in its own process
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.lengths = sorted(set(args.lengths or ([256, 1024] if args.quick else [256, 512, 1024, 4096])))
    return args


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def heading(about: dict, args: argparse.Namespace) -> str:
    threads = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    clock = {"wall": "wall time", "cpu": "CPU time of all threads"}[args.clock]
    return f"{about['device']}, {threads}, torch {torch.__version__}, {clock}"


def all_versions() -> dict[str, str | None]:
    from importlib import metadata

    found = versions()
    for package in ("mambapy", "triton", "mamba_ssm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@contextlib.contextmanager
def compile_cache(quick: bool) -> Iterator[str | None]:
    """A new, empty folder for compiled code, so that compile times are of a first use; quick keeps the usual."""
    if quick:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="bench-scan-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        yield folder


# Measuring --------------------------------------------------------------------------------------------------------


def measure(op: str, args: argparse.Namespace, cache: str | None) -> dict:
    """Everything about one operation, as the JSON file has it."""
    compiling = None
    with progress.status(f"{op}: compiling"):
        if cache and COMPILED in CANDIDATES[op].keys() - args.without:
            runs = [in_own_process(op, COMPILED, args, [TRIAL]) for _ in range(2)]
            compiling = {"cold_s": runs[0]["first"], "warm_s": runs[1]["first"]}
        present, absent = available(op, args.without)
    times = {}
    lengths = sorted({*args.lengths, *(x for x in GRID if not args.quick or x <= args.lengths[-1])})
    for L in lengths:
        names = present if L in args.lengths else {*OURS[op], ATTENTION} & set(present)
        with progress.status(f"{op}: length {L}"):
            times[L] = timed(op, [n for n in present if n in names], L, args)
    with progress.status(f"{op}: errors"):
        errors = {L: precision(op, present, L) for L in args.lengths}
    with progress.status(f"{op}: memory"):
        memory = {} if args.quick else memories(op, present, args)
    return {
        "sizes": str(SIZES[op]),
        "absent": absent,
        "compile": compiling,
        "crossover": {name: crossovers(name, times) for name in OURS[op] if name in present},
        "rows": [
            row(op, L, name, times[L], errors.get(L, {}).get(name), memory.get(name, {}).get(str(L)))
            for L in lengths
            for name in times[L]
        ],
    }


def available(op: str, without: list[str]) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Candidates that can run here; and why the others cannot."""
    present, absent = {}, {}
    for name, candidate in CANDIDATES[op].items():
        if name in without:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                why = missing(candidate, SIZES[op])
        except ImportError as e:
            why = str(e)
        if why is None:
            present[name] = candidate
        else:
            absent[candidate.label] = why
    return present, absent


def timed(op: str, names: list[str], L: int, args: argparse.Namespace) -> dict[str, Readings]:
    within = [n for n in names if (CANDIDATES[op][n].longest or L) >= L]
    works = {name: CANDIDATES[op][name].build(SIZES[op], L) for name in within}
    budget = (1.0 if L in args.lengths else 0.5) * (1 if args.quick else 4)
    return side_by_side(works, budget, args.rounds, seldom=SELDOM)


def precision(op: str, present: dict[str, Candidate], L: int) -> dict[str, float]:
    return {
        name: worst_error(op, candidate, SIZES[op], L, gradients=L <= GRADIENTS_UP_TO)
        for name, candidate in present.items()
        if candidate.exact and (candidate.longest or L) >= L
    }


def memories(op: str, present: dict[str, Candidate], args: argparse.Namespace) -> dict[str, dict]:
    """Peak bytes by implementation, length and mode; two processes at a time, for it is no matter of time."""
    with ThreadPoolExecutor(2) as pool:
        jobs = {}
        for name in [n for n in present if n not in SELDOM]:
            jobs[name] = pool.submit(in_own_process, op, name, args, args.lengths, "--memory")
        return {name: job.result()["memory"] for name, job in jobs.items()}


def in_own_process(op: str, name: str, args: argparse.Namespace, lengths: list[int], *more: str) -> dict:
    command = [sys.executable, __file__, "--alone", op, name, "--threads", str(args.threads), *more]
    command += ["--lengths", *map(str, lengths)]
    done = subprocess.run(command, env=os.environ | FRESH_PAGES, stdout=subprocess.PIPE, text=True)
    if done.returncode:  # out of memory, perhaps: the other numbers still count
        progress.print(f"{op}, {name}: the process that measures it alone failed ({done.returncode})")
        return {"first": {}, "memory": {}}
    return json.loads(done.stdout.splitlines()[-1])


def alone(op: str, name: str, lengths: list[int], memory: bool) -> dict:
    """In a process of its own: how much longer the first calls take than the second, or the peak memory."""
    found: dict = {"first": {}, "memory": {}}
    for L in lengths:
        calls = CANDIDATES[op][name].build(SIZES[op], L).calls()
        if memory:
            found["memory"][str(L)] = {mode: peak_memory(call) for mode, call in calls.items()}
        else:
            found["first"] = found["first"] or {mode: first_call(call) for mode, call in calls.items()}
    return found


def row(
    op: str, L: int, name: str, times: dict[str, Readings], error: float | None, memory: dict | None
) -> dict:
    this = times[name]
    found = {
        "length": L,
        "name": name,
        "label": CANDIDATES[op][name].label,
        "error": error,
        "peak_bytes": memory,
    }
    for clock in ("wall", "cpu"):
        for mode in MODES:
            found[f"{mode}_{clock}_ms"] = ms(this.median(mode, clock))
            found[f"{mode}_{clock}_best_ms"] = ms(this.best(mode, clock))
        found[f"faster_{clock}"] = {
            rival: {mode: speed(this, times[rival], mode, clock) for mode in MODES}
            for rival in RIVALS[op]
            if rival in times and rival != name
        }
    found["rounds"] = max(len(r) for r in this.wall.values())
    return found


def ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def crossovers(name: str, times: dict[int, dict[str, Readings]]) -> dict:
    """The length from which `name` stays faster than attention, by clock and mode; None if not at the largest."""
    found = {"measured": sorted(times)}
    for clock in ("wall", "cpu"):
        found[clock] = {
            mode: crossover({L: speed(t[name], t[ATTENTION], mode, clock) for L, t in times.items()})
            for mode in MODES
        }
    return found


# Showing ----------------------------------------------------------------------------------------------------------


def show(op: str, result: dict, args: argparse.Namespace) -> None:
    """One Markdown table, and below it what belongs to no single row."""
    labels = {name: CANDIDATES[op][name].label.replace("causal ", "") for name in RIVALS[op]}
    table = Table("L", "", "forward ms", "fwd + bwd ms", box=box.MARKDOWN)
    for rival in RIVALS[op]:
        table.add_column(f"{labels[rival]} / this")
    if not args.quick:
        table.add_column("MB")
    if op != "block":
        table.add_column("error")
    for r in result["rows"]:
        if r["length"] not in args.lengths:
            continue
        times = [short(r[f"{mode}_{args.clock}_ms"]) for mode in MODES]
        faster = r[f"faster_{args.clock}"]
        cells = [
            "1" if r["name"] == rival else short(faster.get(rival, {}).get("train")) for rival in RIVALS[op]
        ]
        if not args.quick:
            peak = (r["peak_bytes"] or {}).get("train")
            cells.append(short(peak and peak / 1e6))
        if op != "block":
            cells.append(f"{r['error']:.0e}" if r["error"] else "")
        table.add_row(str(r["length"]), r["label"], *times, *cells)
    console.print(f"\n[bold]{TITLES[op]}[/] ({result['sizes']})")
    console.print(table)
    for label, why in result["absent"].items():
        console.print(f"Left out: {label} ({why}).", markup=False, soft_wrap=True)
    for name, found in result["crossover"].items():
        console.print(crossing(CANDIDATES[op][name].label, found, args.clock), markup=False, soft_wrap=True)
    if (seconds := result["compile"]) and all(seconds.values()):
        console.print(
            "Compiling takes {forward:.1f} s for the forward and {train:.1f} s more for the backward pass the first "
            "time,".format(**seconds["cold_s"]),
            "{forward:.1f} s and {train:.1f} s in a later process.".format(**seconds["warm_s"]),
            soft_wrap=True,
        )


def crossing(label: str, found: dict, clock: str) -> str:
    def words(L: float | None) -> str:
        if L is None:
            return f"not up to L = {found['measured'][-1]}"
        smallest = found["measured"][0]
        return f"from L ≈ {L:.0f}" if smallest < L else f"at every length from {smallest}"

    forward, train = (words(found[clock][mode]) for mode in MODES)
    return f"{label} is faster than attention: forward {forward}; forward and backward {train}."


def short(number: float | None) -> str:
    """Three digits, or two below ten."""
    if number is None:
        return ""
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


if __name__ == "__main__":
    main()
