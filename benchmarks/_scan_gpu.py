"""The GPU part of benchmarks/scan.py: kernels at the width of a real model, against what the hardware allows.

The floor of a pass is the larger of two times: that of its compulsory bytes at the bandwidth of a copy, measured in
the same rounds, and that of its exponentials at 16 a clock and multiprocessor (the special function units). With
b batch, L length, d channels, n states, h heads, e bytes a number:

    scan, forward      (4 b L d + 2 b L n) e bytes: u, delta, z and out; B and C.    b L d n exponentials
    scan, backward     (8 b L d + 4 b L n) e bytes: the same, and their gradients.   2 b L d n: the decays once more
    SSD, forward       (3 b L d + 2 b L n + b L h) e bytes: x, z and y; B, C; dt
    SSD, backward      twice that

At n = 16 exponentials bind the scan (0.257 ms forward on an H200 at the size below), bytes the SSD. A kernel that
computes some exponentials by polynomials may pass the first.
"""

from __future__ import annotations

import subprocess
import time
import warnings
from functools import partial

import torch
from _measure import MODES, Readings, Work, side_by_side, speed
from _scan_candidates import ATTENTION, HEAD, Candidate, Sizes, attention, missing, ours, worst_error
from rich import box
from rich.console import Console
from rich.table import Table

LENGTH, BUDGET = 4096, 10.0
GPU_SIZES = {
    "selective_scan": Sizes(8, 2048, 16, "cuda", torch.bfloat16),
    "ssd": Sizes(8, 2048, 64, "cuda", torch.bfloat16),
}
COPY, COPIED = "copy", 2**30  # bytes


def rows(op: str) -> dict[str, Candidate]:
    flash = Candidate("causal FlashAttention", partial(attention, flash=True), exact=False)
    labels = {"triton": "workbench, Triton", "compile": "workbench, compiled", "mamba_ssm": "mamba_ssm"}
    return {name: ours(op, name, label) for name, label in labels.items()} | {ATTENTION: flash}


def floors(op: str, s: Sizes, L: int, bandwidth: float, exponentials: float | None) -> dict[str, float]:
    """Seconds of each mode that no kernel can go below; `exponentials` a second, None if not known."""
    size = torch.finfo(s.dtype).bits // 8
    tokens = s.batch * L
    if op == "selective_scan":
        forward = tokens * (4 * s.width + 2 * s.state) * size, tokens * s.width * s.state
        backward = tokens * (8 * s.width + 4 * s.state) * size, 2 * tokens * s.width * s.state
    else:
        moved = tokens * (3 * s.width + 2 * s.state + s.width // HEAD) * size
        forward, backward = (moved, 0), (2 * moved, 0)
    once, again = (
        max(b / bandwidth, e / exponentials if exponentials else 0.0) for b, e in (forward, backward)
    )
    return {"forward": once, "train": once + again}


def exponential_rate() -> float | None:
    """Exponentials a second at the highest clock, None where the driver does not tell that clock."""
    query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    properties = torch.cuda.get_device_properties(0)
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return 16 * properties.multi_processor_count * float(said.split()[0]) * 1e6
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def measure_and_show(console: Console, rounds: int | None) -> dict:
    """Print a table an operation; all the numbers, for the JSON file."""
    found: dict = {"device": torch.cuda.get_device_name(), "length": LENGTH, "ops": {}}
    for op, sizes in GPU_SIZES.items():
        found["ops"][op] = result = measure(op, sizes, rounds)
        show(console, op, sizes, result)
        torch.cuda.empty_cache()
    return found


def measure(op: str, sizes: Sizes, rounds: int | None) -> dict:
    source = torch.empty(COPIED, dtype=torch.uint8, device=sizes.device)
    target = torch.empty_like(source)
    works = {COPY: Work(lambda: target.copy_(source), [], ("forward",))}
    labels, absent, memory, errors = {}, {}, {}, {}
    for name, candidate in rows(op).items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                why = missing(candidate, sizes)
            if why is None:
                work = candidate.build(sizes, LENGTH)
                memory[name] = {mode: peak(call) for mode, call in work.calls().items()}
                if candidate.exact:
                    errors[name] = worst_error(op, candidate, sizes, LENGTH, gradients=False)
                works[name], labels[name] = work, candidate.label
        except (
            Exception
        ) as e:  # out of memory, a kernel that this GPU's compiler refuses: the others still count
            why = f"{type(e).__name__}: {str(e).strip().partition(chr(10))[0][:200]}"
        if why is not None:
            absent[candidate.label] = why
        torch.cuda.empty_cache()
    times = side_by_side(works, BUDGET, rounds, clock=cuda_clock)
    bandwidth = 2 * COPIED / times[COPY].median("forward", "wall")
    rate = exponential_rate()
    floor = floors(op, sizes, LENGTH, bandwidth, rate)
    return {
        "sizes": str(sizes),
        "copy_bytes_per_s": bandwidth,
        "exponentials_per_s": rate,
        "floor_ms": {mode: s * 1e3 for mode, s in floor.items()},
        "absent": absent,
        "rows": [
            {"name": name, "label": label, "error": errors.get(name), "peak_bytes": memory[name]}
            | figures(times[name], times.get(ATTENTION), floor if name != ATTENTION else None)
            for name, label in labels.items()
        ],
    }


def figures(this: Readings, rival: Readings | None, floor: dict[str, float] | None) -> dict:
    seconds = {mode: this.median(mode, "wall") for mode in MODES}
    return {
        "ms": {mode: s * 1e3 for mode, s in seconds.items()},
        "rounds": len(this.wall["forward"]),
        "of_floor": floor and {mode: floor[mode] / s for mode, s in seconds.items()},
        "faster_than_attention": rival and {mode: speed(this, rival, mode, "wall") for mode in MODES},
    }


def cuda_clock(call, times: int) -> tuple[float, float]:
    """Seconds of one call on the device, and on the CPU that launches it."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    cpu = time.process_time()
    begin.record()
    for _ in range(times):
        call()
    end.record()
    cpu = time.process_time() - cpu
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / times, cpu / times


def peak(call) -> int:
    """Bytes allocated at the highest point of a warm call, beyond those before it."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def show(console: Console, op: str, sizes: Sizes, result: dict) -> None:
    columns = ("", "forward ms", "fwd + bwd ms", "of the floor", "flash / this", "MB", "error")
    table = Table(*columns, box=box.MARKDOWN)
    for r in result["rows"]:
        share, faster = r["of_floor"], r["faster_than_attention"]
        table.add_row(
            r["label"],
            *(f"{r['ms'][mode]:.3f}" for mode in MODES),
            " / ".join(f"{share[mode]:.0%}" for mode in MODES) if share else "",
            f"{faster['train']:.2f}" if faster else "",
            f"{r['peak_bytes']['train'] / 1e6:.0f}",
            f"{r['error']:.0e}" if r["error"] is not None else "",
        )
    console.print(f"\n[bold]{op}[/] on {torch.cuda.get_device_name()}: {sizes}, L {LENGTH}", soft_wrap=True)
    console.print(table)
    floor, copy = result["floor_ms"], result["copy_bytes_per_s"] / 1e12
    bound = "" if result["exponentials_per_s"] else "; exponentials not counted, the clock is not known"
    console.print(
        f"Floor: forward {floor['forward']:.3f} ms, forward and backward {floor['train']:.3f} ms "
        f"(a copy runs at {copy:.2f} TB/s{bound}). Shares are forward / forward and backward.",
        soft_wrap=True,
    )
    for label, why in result["absent"].items():
        console.print(f"Left out: {label} ({why}).", markup=False, soft_wrap=True)
