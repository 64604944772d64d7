"""Recommenders of the next item as histories get longer: HMamba and Mamba4Rec beside attention and a GRU.

    workbench bench recommenders                        # L = 50 … 4000, eager and compiled scan: some minutes
    workbench bench recommenders --quick                # to 1000, one scan, no prefixes: a minute
    python benchmarks/recommenders.py --models hmamba_full sasrec --backends compile --out build/recommenders.json

Every step sees the same number of tokens and asks for the next item after each; the encoder and the softmax over all
items are timed apart, forward and backward to every weight. An epoch is a million targets, the optimizer not counted.
All models of one length run in turn, round after round in alternating order; "slower than" is the median over rounds
of the ratio of whole steps within a round. CPU seconds of one thread; where there is a CUDA device its tables follow,
in wall time. "sasrec, dropout 0" is there because torch fuses attention with dropout on a GPU, but not on a CPU.

Two more tables: what each score of an item costs, and what it costs to make every prefix of a history a row of its
own, as RecBole does, in place of asking after every item at once: an epoch of the trainer each way, on made-up
histories. That factor is of rows, not of RecBole itself: its newest release (1.2.1) does not start beside NumPy 2,
which this environment has, so nothing of it is measured here.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from workbench.data.interactions import Interactions
from workbench.evaluation.throughput import _now
from workbench.files import write_json
from workbench.models.recommender import NAMED, Recommender, RecommenderConfig, named
from workbench.runs.recording import machine, versions
from workbench.threads import one_thread
from workbench.training.recommender import RecommenderSettings, RecommenderTrainer
from workbench.training.recommender_speed import RecommenderSpeed, recommender_speed

LENGTHS, QUICK = (50, 200, 1000, 4000), (50, 200, 1000)
MODELS = ("hmamba_full", "hmamba_half", "mamba4rec", "gru4rec", "sasrec")
HEADS = ("dot", "lorentz_sq", "dist2", "dist")
EPOCH = 1_000_000  # targets; ML-1M has so many
TARGETS = 1600  # about, of an epoch of the trainer: one dense step
MORE = 10  # times as many rows a step by prefixes, which are short and ask once
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
progress = Console(stderr=True, highlight=False)


def main() -> None:
    args = arguments()
    about = {"machine": machine(), "load_at_start": os.getloadavg()[0]}
    found = {}
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        with progress.status(device) as status:
            found[device] = measured(args, device, status)
        show(found[device], args, device, about)
    if "cuda" not in found:
        console.print("\nNo CUDA device: its tables are left out.")
    if args.out:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        options = vars(args) | {"out": str(args.out)}
        about |= {"benchmark": "recommenders", "date": now, "options": options, "versions": versions()}
        write_json(args.out, about | {device: numbers(f) for device, f in found.items()})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", nargs="+", type=positive, help="items a history (50 200 1000 4000)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(NAMED))
    parser.add_argument("--backends", nargs="+", help="of Mamba's scan on the CPU (eager compile)")
    parser.add_argument("--items", type=positive, default=3000, help="that are scored")
    parser.add_argument("--width", type=positive, default=64)
    parser.add_argument("--state", type=positive, default=32)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--tokens", type=positive, help="a step (4000, on a GPU 64000)")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="to L = 1000, three rounds at most")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    args = parser.parse_args()
    args.lengths = args.lengths or list(QUICK if args.quick else LENGTHS)
    args.backends = args.backends or (["auto"] if args.quick else ["eager", "compile"])
    args.rounds = min(args.rounds, 3) if args.quick else args.rounds
    return args


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


# -- what is measured ------------------------------------------------------------------------------------------


def measured(args: argparse.Namespace, device: str, status) -> dict:
    """speeds: one a backend of the scan; heads; modes, seconds an epoch of each model both ways."""
    common = {key: getattr(args, key) for key in ("tokens", "rounds", "seed")}
    common |= {"n_items": args.items, "device": device}
    models = {name: config(args, name) for name in args.models}
    if "sasrec" in models and args.dropout:
        models["sasrec, dropout 0"] = config(args, "sasrec", dropout=0.0)
    speeds = []
    for backend in args.backends if device == "cpu" else ["auto"]:

        def tell(L: int, backend=backend) -> None:
            status.update(f"{device}, {backend} scan: length {L}")

        speeds.append(recommender_speed(args.lengths, models, backend=backend, on_length=tell, **common))
    shortest = args.lengths[:1]
    by_head = {head: config(args, "gru4rec", space="lorentz", head=head) for head in HEADS}
    status.update(f"{device}: heads")
    heads = recommender_speed(shortest, by_head, memory=False, **common)
    status.update(f"{device}: prefixes")
    modes = {} if args.quick else {name: both_modes(args, name, device) for name in args.models}
    return {"speeds": speeds, "heads": heads, "modes": modes}


def config(args: argparse.Namespace, name: str, **changes) -> RecommenderConfig:
    values = {"width": args.width, "state": args.state, "dropout": args.dropout}
    return named(name, **values | changes)


def both_modes(args: argparse.Namespace, name: str, device: str) -> dict[str, float]:
    """Seconds of an epoch that asks for the same targets dense and by prefixes, the optimizer's included."""
    length = min(args.lengths)
    users = max(1, TARGETS // length)
    rng = np.random.default_rng(args.seed)
    events = rng.integers(args.items, size=users * (length + 3))  # one more as target, two held out
    data = Interactions.from_events(np.repeat(np.arange(users), length + 3), events)
    spent = {}
    for mode, batch in (("dense", users), ("prefix", MORE * users)):
        model = Recommender(config(args, name, max_len=length), data.n_items)
        settings = RecommenderSettings(mode=mode, batch=batch)
        trainer = RecommenderTrainer(model, data, settings, args.seed, torch.device(device))
        with one_thread():
            spent[mode] = min(epoch(trainer) for _ in range(2 if mode == "prefix" else 4))
    return spent | {"length": length, "targets": users * length}


def epoch(trainer: RecommenderTrainer) -> float:
    start = _now(trainer.device)
    for _ in trainer.plan:
        trainer.run_step()
    spent = _now(trainer.device) - start
    trainer.end_epoch(report=False)
    return spent


# -- what is said ----------------------------------------------------------------------------------------------


def show(found: dict, args: argparse.Namespace, device: str, about: dict) -> None:
    """Markdown tables, and below the first ones where one model passes another."""
    on = torch.cuda.get_device_name() if device == "cuda" else f"{about['machine']['device']}, one thread"
    for speed in found["speeds"]:
        tokens = speed.costs[0].tokens
        console.print(
            f"\n[bold]{on}[/], width {args.width}, state {args.state}, dropout {args.dropout:g}, {speed.scoring}, "
            f"{tokens} tokens a step, an epoch of {EPOCH:,} targets, medians of {args.rounds} rounds",
            soft_wrap=True,
        )
        console.print(speed_table(speed))
        for verdict in verdicts(speed):
            console.print(verdict, soft_wrap=True)
    console.print(f"\nThe score of an item, {found['heads'].scoring}:")
    console.print(head_table(found["heads"]))
    if found["modes"]:
        console.print("\nAn epoch of the trainer, optimizer included, as a row a history or a row a prefix:")
        console.print(mode_table(found["modes"]))


def verdicts(speed: RecommenderSpeed) -> list[str]:
    """The first Mamba beside all that are none, the other ones beside attention."""
    mambas, others = ([n for n in speed.models if bool(speed.scans[n]) is has] for has in (True, False))
    pairs = [(name, other) for name in mambas[:1] for other in others]
    pairs += [(name, "sasrec") for name in mambas[1:] if "sasrec" in others]
    return [speed.verdict(*pair) for pair in pairs]


def speed_table(speed: RecommenderSpeed) -> Table:
    first = speed.models[0]
    table = Table(
        *("L", "", "scan", "weights", "encode, tokens/s", "score, tokens/s"),
        *("epoch, s", f"slower than {first}", "MB, encode", "MB, step"),
        box=box.MARKDOWN,
    )
    table.columns[1].no_wrap = True
    rates = {part: speed.tokens_per_second(part) for part in ("encode", "score")}
    memory = {part: speed.megabytes(part) for part in ("encode", "step")}
    epochs = speed.epoch(EPOCH)
    for i, L in enumerate(speed.lengths):
        for name in speed.models:
            slower = "1" if name == first else f"{speed.ratio(first, name)[L]:.2f}"
            row = [speed.scans[name], f"{speed.parameters[name]:,}"]
            row += [f"{rate[name][i]:,.0f}" for rate in rates.values()] + [f"{epochs[name][i]:,.1f}", slower]
            table.add_row(str(L), name, *row, *(f"{m[name][i]:.0f}" for m in memory.values()))
    return table


def head_table(heads: RecommenderSpeed) -> Table:
    L, first = heads.lengths[0], heads.models[0]
    table = Table("head", "score, tokens/s", f"slower than {first}", box=box.MARKDOWN)
    for name in heads.models:
        slower = heads.ratio(first, name, "score")[L]
        table.add_row(name, f"{heads.tokens_per_second('score')[name][0]:,.0f}", f"{slower:.2f}")
    return table


def mode_table(modes: dict[str, dict[str, float]]) -> Table:
    length, targets = next((m["length"], m["targets"]) for m in modes.values())
    table = Table(f"{targets} targets, L = {length}", "dense, s", "prefix, s", "factor", box=box.MARKDOWN)
    for name, m in modes.items():
        table.add_row(name, f"{m['dense']:.2f}", f"{m['prefix']:.2f}", f"{m['prefix'] / m['dense']:.1f}")
    return table


def numbers(found: dict) -> dict:
    return {
        "costs": [row for speed in found["speeds"] for row in speed.rows()],
        "verdicts": [verdict for speed in found["speeds"] for verdict in verdicts(speed)],
        "heads": found["heads"].rows(),
        "modes": found["modes"],
    }


if __name__ == "__main__":
    main()
