"""Train a table of all WordNet nouns as it is shipped in the package, with the run.json that tells how.

    python scripts/train_wordnet.py 10            # workbench/assets/wordnet_10d.safetensors, about half an hour
    python scripts/train_wordnet.py 2 --epochs 5 --out build

An interrupted run is continued by the same command. Times are CPU seconds of this process, all threads together.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from workbench.data import wordnet
from workbench.evaluation import depth_correlation
from workbench.files import load_tensors, write_json
from workbench.manifolds import PoincareBall
from workbench.models import EmbeddingConfig
from workbench.models.poincare_embedding import describe
from workbench.paths import asset
from workbench.runs.recording import git_state, machine, versions
from workbench.training import fit

ROOT = Path(__file__).resolve().parents[1]
# The plane has room for 82,115 nodes only far out, and there only a start with the right order of the leaves.
# In ten dimensions room is plenty; a small curvature (a low temperature of the softmax) makes confusions cost more.
SETTINGS = {
    2: dict(epochs=110, lr=0.15, degree_power=0.33, burn_in=0, hold=0.7, negative_weight=0.1, max_step=0.15,
            max_radius=17.0, init="wedge"),
    10: dict(epochs=100, lr=0.25),
}  # fmt: skip
CURVATURE = {2: 1.0, 10: 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dim", type=int, choices=sorted(SETTINGS))
    parser.add_argument("--epochs", type=int, help="fewer, to try it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=asset("."))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    h, manifold = wordnet.nouns(), PoincareBall(CURVATURE[args.dim])
    settings = SETTINGS[args.dim] | ({"epochs": args.epochs} if args.epochs else {})
    config = EmbeddingConfig.for_size(len(h), dim=args.dim, **settings)
    begun = time.process_time()
    checkpoint = ROOT / "build" / f"wordnet_{args.dim}d.checkpoint"
    resumed_at = load_tensors(checkpoint)[1].get("epoch", 0) if checkpoint.exists() else 0
    result = fit(
        h, manifold, config, evaluate_every=10, checkpoint=checkpoint, device=args.device, progress=True
    )
    seconds = time.process_time() - begun

    # Single precision is enough for ten coordinates; two must tell neighbours apart at the rim.
    path = args.out / f"wordnet_{args.dim}d.safetensors"
    embedding = result.embedding.rescaled(1.0)  # the unit disk, for everyone who opens it
    embedding.save(path, dtype=torch.float64 if args.dim == 2 else torch.float32)
    rho = depth_correlation(embedding.points, embedding.manifold, h.depth)
    about = {
        "command": f"python scripts/train_wordnet.py {args.dim}",
        "config": describe(config),
        "trained_at_curvature": CURVATURE[args.dim],
        "hierarchy": h.fingerprint(),
        "closure_pairs": len(h.closure()),
        "history": result.history,
        "depth_correlation": rho,
        "cpu_seconds": round(seconds, 1),  # of this process: since epoch `resumed_at`
        "resumed_at": resumed_at,
        "bytes": path.stat().st_size,
        "git": git_state(ROOT),
        "machine": machine(),
        "versions": versions(),
    }
    write_json(path.with_suffix(".run.json"), about)
    last = result.history[-1]
    print(f"{path}: MAP {last['map']:.4f}, mean rank {last['mean_rank']:.2f}, {seconds:.0f} CPU s")


if __name__ == "__main__":
    main()
