"""Poincaré embeddings of the WordNet mammals: this workbench beside gensim's PoincareModel, one run, one thread.

    workbench bench embeddings                      # gensim's 300 epochs take some two minutes
    python benchmarks/embeddings.py --epochs 50     # quicker, and worse for gensim

Both learn the closure of 1,180 nodes and 6,540 pairs in the same dimension from their own default kind of start, and
both tables are measured by the same exact evaluation. Seconds are CPU seconds of this process; evaluation does not
count. Needs gensim: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from workbench.data import wordnet
from workbench.evaluation import reconstruction
from workbench.manifolds import PoincareBall
from workbench.models import EmbeddingConfig
from workbench.training import EmbeddingTrainer


def ours(h, dim: int, seed: int, **changes) -> tuple[float, torch.Tensor]:
    begun = time.process_time()
    trainer = EmbeddingTrainer(
        h, PoincareBall(), EmbeddingConfig.for_size(len(h), dim=dim, seed=seed, **changes)
    )
    while trainer.epoch < trainer.config.epochs:
        trainer.run_epoch()
    return time.process_time() - begun, trainer.points


def gensims(h, dim: int, seed: int, epochs: int) -> tuple[float, torch.Tensor]:
    from gensim.models.poincare import PoincareModel

    pairs = [(h.names[d], h.names[a]) for a, d in h.closure()]
    begun = time.process_time()
    model = PoincareModel(pairs, size=dim, negative=10, seed=seed, workers=1)
    model.train(epochs=epochs, print_every=10**9)
    seconds = time.process_time() - begun
    return seconds, torch.from_numpy(np.array([model.kv[name] for name in h.names], dtype=np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=300, help="of gensim")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if find_spec("gensim") is None:
        parser.error("gensim is not installed: pip install -e '.[bench]'")
    torch.set_num_threads(1)
    h, ball = wordnet.mammals(), PoincareBall()
    ours(h, args.dim, args.seed, epochs=2)  # first calls load libraries

    runs = {
        "workbench": ours(h, args.dim, args.seed),
        "workbench, random start": ours(h, args.dim, args.seed, init="random"),
        f"gensim, {args.epochs} epochs": gensims(h, args.dim, args.seed, args.epochs),
    }
    reference = list(runs.values())[-1][0]
    table = Table(
        "", "CPU s", "MAP", "mean rank", "gensim's time / this", title=f"mammals, {args.dim} dimensions"
    )
    for name, (seconds, points) in runs.items():
        score = reconstruction(points, ball, h.closure())
        row = f"{seconds:.1f}", f"{score.map:.3f}", f"{score.mean_rank:.2f}", f"{reference / seconds:.1f}"
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
