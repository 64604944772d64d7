"""Text encoders as texts get longer: Mamba-2 beside attention of the same width and depth, and HiM's head.

    workbench bench encoders                        # L = 16 … 8192, some minutes on an idle core
    workbench bench encoders --quick                # to 2048, half a minute
    python benchmarks/encoders.py --kinds mamba2 transformer bag --out build/encoders.json

Every call sees the same number of tokens, so that a linear cost is a constant number of tokens a second. All encoders
of one length run in turn, round after round in alternating order; "slower than" is the median over rounds of the
ratio of times within a round, of forward and backward to every weight together. CPU seconds of one thread; where
there is a CUDA device a second table follows, in wall time. Memory is the most that tensors hold at one time in a
forward and backward, beyond weights and inputs. The head takes pooled vectors to points in the ball and those to the
distances of all pairs of texts, in float64; its share is of the encoder's time.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from workbench.evaluation.throughput import HEAD, KINDS, MODES, Throughput, throughput
from workbench.files import write_json
from workbench.models.text_encoder import EncoderConfig
from workbench.runs.recording import machine, versions

LONGEST, QUICK = 8192, 2048
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
progress = Console(stderr=True, highlight=False)


def main() -> None:
    args = arguments()
    about = {"machine": machine(), "load_at_start": os.getloadavg()[0]}
    found = {}
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        with progress.status(device) as status:
            found[device] = throughput(
                args.lengths,
                args.kinds,
                config=EncoderConfig(width=args.width, layers=args.layers, state=args.state),
                dim=args.dim,
                tokens=args.tokens,
                rounds=args.rounds,
                device=device,
                seed=args.seed,
                on_length=lambda L, device=device: status.update(f"{device}: length {L}"),
            )
        show(found[device], args, about)
    if "cuda" not in found:
        console.print("\nNo CUDA device: its table is left out.")
    if args.out:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        options = vars(args) | {"out": str(args.out)}
        about |= {"benchmark": "encoders", "date": now, "options": options, "versions": versions()}
        write_json(args.out, about | {device: numbers(t) for device, t in found.items()})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", nargs="+", type=positive, help="tokens a text (16 32 … 8192)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=(*KINDS, "bag"))
    parser.add_argument("--width", type=positive, default=64)
    parser.add_argument("--layers", type=positive, default=2)
    parser.add_argument("--state", type=positive, default=32)
    parser.add_argument("--dim", type=positive, default=16, help="of the ball")
    parser.add_argument("--tokens", type=positive, help="a call (the longest length)")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help=f"up to L = {QUICK}, three rounds at most")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    args = parser.parse_args()
    longest = QUICK if args.quick else LONGEST
    args.rounds = min(args.rounds, 3) if args.quick else args.rounds
    args.lengths = args.lengths or [16 * 2**k for k in range((longest // 16).bit_length())]
    return args


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def show(found: Throughput, args: argparse.Namespace, about: dict) -> None:
    """One Markdown table, and below it where one encoder passes the other."""
    kinds = ", ".join(f"{name} {count:,}" for name, count in found.parameters.items())
    on = (
        torch.cuda.get_device_name()
        if found.device == "cuda"
        else f"{about['machine']['device']}, one thread"
    )
    console.print(
        f"\n[bold]{on}[/], width {args.width}, {args.layers} layers (weights: {kinds}), "
        f"{args.tokens or max(args.lengths)} tokens a call, medians of {args.rounds} rounds",
        soft_wrap=True,
    )
    first = args.kinds[0]
    table = Table(
        *("L", "", "forward, tokens/s", "fwd + bwd, tokens/s", f"slower than {first}", "MB", "head's share"),
        box=box.MARKDOWN,
    )
    for L in found.lengths:
        for name in args.kinds:
            speeds = [f"{found.cost(name, L, mode).tokens_per_second:,.0f}" for mode in MODES]
            slower = "1" if name == first else f"{found.faster('train', first, name)[L]:.2f}"
            memory = f"{found.cost(name, L, 'train').bytes / 1e6:.0f}"
            table.add_row(str(L), name, *speeds, slower, memory, f"{found.share(name, 'train')[L]:.1%}")
    console.print(table)
    head = ", ".join(
        f"{1e3 * sum(c.seconds) / len(c.seconds):.2f} ms for {c.texts}"
        for c in found.over_lengths(HEAD, "train")
    )
    console.print(f"The head alone, forward and backward, by number of texts: {head}.", soft_wrap=True)
    for other in args.kinds[1:]:
        console.print(found.verdict(first, other), soft_wrap=True)


def numbers(found: Throughput) -> dict:
    return {
        "parameters": dict(found.parameters),
        "costs": found.rows(),
        "verdict": [
            found.verdict(name, other)
            for name, other in zip(found.parameters, list(found.parameters)[1:], strict=False)
        ],
    }


if __name__ == "__main__":
    main()
