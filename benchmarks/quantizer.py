"""Residual quantisation: this workbench on the ball beside vector-quantize-pytorch, geoopt and its own flat space.

    workbench bench quantizer                 # some three minutes
    python benchmarks/quantizer.py --budget 5 --out build/quantizer.json

Encodes N float32 points with four codebooks of K codes, on one thread, candidates in turns; a ratio is the median
over rounds of the ratio within a round, in CPU time of the process. "Naive" is what a user of geoopt writes:
`geoopt.PoincareBall.dist` broadcast over N×K×d (in slices that fit the memory), argmin, `mobius_add`; its codes are
compared with ours before any clock runs. ResidualVQ is in eval mode, with codebooks of its own.
Needs vector-quantize-pytorch: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")

import geoopt
import torch
from _measure import Readings, Work, side_by_side, speed
from rich.console import Console
from rich.table import Table
from torch import Tensor

from workbench.files import write_json
from workbench.manifolds import Euclidean, PoincareBall
from workbench.models import ResidualQuantizer

SIZES = ((4096, 256, 16), (4096, 256, 32), (8192, 1024, 32))  # points, codes a level, dimensions
LEVELS = 4
WHOLE = 2**24  # entries of a temporary of the naive form
RADIUS = 0.9  # mean distance of the points to the origin
OURS = "HRQ (PoincareBall)"


def naive_encode(x: Tensor, books: list[Tensor], ball: geoopt.PoincareBall) -> Tensor:
    """Codes by broadcast distances, N×K×d temporaries; in slices of rows, as a whole they need up to 8 GB."""
    if x[:, :1].numel() * books[0].numel() > WHOLE:
        return torch.cat([naive_encode(part, books, ball) for part in x.chunk(2)])
    codes = []
    for book in books:
        index = ball.dist(x.unsqueeze(1), book).argmin(-1)
        x = ball.mobius_add(-book[index], x)
        codes.append(index)
    return torch.stack(codes, -1)


def candidates(n: int, k: int, dim: int, seed: int) -> tuple[dict[str, Work], float]:
    """Name → work, and the share of rows on which the naive form has our codes."""
    from vector_quantize_pytorch import ResidualVQ

    ball, generator = PoincareBall(), torch.Generator().manual_seed(seed)
    x = ball.random(n, dim, std=RADIUS / dim**0.5, generator=generator, dtype=torch.float32)
    curved = ResidualQuantizer(ball, dim, LEVELS, k, seed=seed).fit(x, iterations=2).eval()
    flat = ResidualQuantizer(Euclidean(), dim, LEVELS, k, seed=seed).fit(x, iterations=2).eval()
    other = ResidualVQ(dim=dim, num_quantizers=LEVELS, codebook_size=k).eval()
    books, space = [book.float() for book in curved.codebooks], geoopt.PoincareBall()
    with torch.no_grad():
        same = (naive_encode(x, books, space) == curved.encode(x)).all(-1).double().mean()
    calls = {
        OURS: lambda: curved.encode(x),
        "HRQ, float64": lambda: curved.encode(x.double()),
        "HRQ, quantised points and losses too": lambda: curved(x),
        "RQ (Euclidean)": lambda: flat.encode(x),
        "vector-quantize-pytorch ResidualVQ": lambda: other(x.unsqueeze(0)),
        "naive geoopt.dist broadcast": lambda: naive_encode(x, books, space),
    }
    return {name: Work(run, [], ("forward",)) for name, run in calls.items()}, float(same)


def table(readings: dict[str, Readings], title: str) -> Table:
    out = Table("", "CPU ms", "its time / HRQ's", title=title, title_justify="left")
    for name, reading in readings.items():
        ms = 1e3 * reading.median("forward", "cpu")
        out.add_row(name, f"{ms:.2f}", f"{speed(readings[OURS], reading, 'forward', 'cpu'):.2f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for each size, about")
    parser.add_argument("--sizes", nargs="+", metavar="N,K,D", help="points, codes a level, dimensions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="also write the numbers to this JSON file")
    args = parser.parse_args()
    if find_spec("vector_quantize_pytorch") is None:
        parser.error("vector-quantize-pytorch is not installed: pip install -e '.[bench]'")
    sizes = [tuple(int(v) for v in s.split(",")) for s in args.sizes] if args.sizes else SIZES
    torch.set_num_threads(1)
    console, numbers = Console(), []
    for n, k, dim in sizes:
        works, same = candidates(n, k, dim, args.seed)
        readings = side_by_side(works, args.budget)
        title = f"{n} points, {LEVELS} levels of {k} codes, {dim} dimensions; {same:.2%} of rows as the naive form"
        console.print(table(readings, title))
        ratios = {name: speed(readings[OURS], r, "forward", "cpu") for name, r in readings.items()}
        ms = {name: 1e3 * r.median("forward", "cpu") for name, r in readings.items()}
        numbers.append({"points": n, "codes": k, "dim": dim, "same": same, "ratios": ratios, "cpu_ms": ms})
    if args.out:
        write_json(args.out, numbers)


if __name__ == "__main__":
    main()
