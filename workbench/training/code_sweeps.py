"""Cells of sweeps over quantisers: an embedding of a tree, codes for it, what they are worth, as plain numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from workbench.data import Hierarchy, interactions, trees, wordnet
from workbench.data.items import item_features
from workbench.evaluation.codes import code_report
from workbench.evaluation.generation import hypernym_generation, hypernym_split
from workbench.manifolds import Euclidean, PoincareBall
from workbench.models.codes import capacity, deduplicate
from workbench.models.hrq import HRQConfig
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.models.sarkar import sarkar
from workbench.models.stress import stress, stress_embedding
from workbench.training.multitoken import fit_multitoken
from workbench.training.tokenizers import next_item_run

KEPT = ("uniqueness", "rank_correlation", "prefix_lca", "error")


def space(c: float) -> Euclidean | PoincareBall:
    """The ball of curvature -c; flat space for c = 0."""
    return PoincareBall(c) if c else Euclidean()


@lru_cache(maxsize=2)
def _tree(subtree: str) -> tuple[Hierarchy, Tensor]:
    h = wordnet.subtree(subtree)
    return h, torch.from_numpy(np.array(h.graph_distances()))


@lru_cache(maxsize=8)
def faithful(subtree: str, c: float, dim: int, steps: int, seed: int) -> Tensor:
    """Points of least stress for the tree below a synset, edges of length 1; kept for the cells that follow.

    The best of the spectral start and Sarkar's construction with edges of length 1 (in flat space: its directions and
    radii), the same care for every space.
    """
    h, distances = _tree(subtree)
    manifold, chart = space(c), PoincareBall(c or 1.0)
    start = sarkar(h, dim, tau=1.0, manifold=chart, seed=seed)
    start = manifold.from_tangent(chart.to_tangent(start))
    return stress_embedding(distances, manifold, dim, starts=[start], steps=steps, seed=seed)


def embedding_cell(subtree: str, c: float, dim: int, sweep: Sequence[dict], steps: int, seed: int) -> dict:
    """One embedding and all that is asked of it: every entry of `sweep` holds arguments of `codes_of`.

    Returns {"stress", "radius" (mean, from the origin), "cells": one result of `codes_of` an entry}.
    """
    h, distances = _tree(subtree)
    points, manifold = faithful(subtree, c, dim, steps, seed), space(c)
    return {
        "stress": float(stress(points, manifold, distances)),
        "radius": float(manifold.dist0(points).mean()),
        "cells": [codes_of(points, manifold, h, **settings) for settings in sweep],
    }


def synthetic_cell(branching: int, height: int, edge: float, **settings) -> dict:
    """Sarkar's embedding of a complete tree in the hyperbolic plane, and the same points unrolled to flat space:
    {"HRQ", "RQ"}, each as `codes_of`, which takes the settings."""
    h, ball = trees.balanced(branching, height), PoincareBall()
    points = sarkar(h, 2, tau=edge)
    return {
        "HRQ": codes_of(points, ball, h, **settings),
        "RQ": codes_of(ball.to_tangent(points), Euclidean(), h, **settings),
    }


def codes_of(
    points: Tensor,
    manifold,
    h: Hierarchy,
    *,
    levels: int,
    codes: int,
    order: str = "left",
    seeds: Sequence[int] = (0,),
    epochs: int = 0,
) -> dict:
    """What codes of these points are worth: means over seeds of k-means.

    Returns `KEPT` (see `code_report`), their standard deviations as "spread", the capacity rule as "needed",
    "available" and "fits", and "lca_depth", the mean depth of the common ancestor of pairs that share exactly 0, 1, …
    codes (None where none does). With epochs > 0 also "recall": recall@10 of hypernym generation after so many.
    """
    dim = manifold.intrinsic_dim(points.shape[1])
    room = capacity(manifold, dim, float(manifold.dist0(points).mean()), codes, levels)
    reports, recalls = [], []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*levels of .* codes carry")  # the rule is in the result
        for seed in seeds:
            q = ResidualQuantizer(manifold, dim, levels, codes, order=order, seed=seed).fit(points)
            reports.append(code_report(q, points, h, seed=seed))
            if epochs:
                recalls.append(_recall(q.encode(points), h, epochs, seed))
    depth = np.array([r["lca_depth"] for r in reports])
    found = {name: float(np.mean([r[name] for r in reports])) for name in KEPT}
    found["spread"] = {name: float(np.std([r[name] for r in reports])) for name in KEPT}
    found |= {"needed": room.needed, "available": room.available, "fits": room.ok}
    found["lca_depth"] = [_mean(column) for column in depth.T]
    return found | ({"recall": float(np.mean(recalls))} if epochs else {})


def _mean(column: np.ndarray) -> float | None:
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else None


def _recall(codes: Tensor, h: Hierarchy, epochs: int, seed: int) -> float:
    split = hypernym_split(h)
    fit = fit_multitoken(*torch.from_numpy(split.train).T, deduplicate(codes), epochs=epochs, seed=seed)
    return hypernym_generation(fit.model, fit.trie, split).recall


def next_item_cell(
    items: str,
    space: str,
    dim: int,
    radius: float,
    levels: int,
    codes: int,
    features: int,
    vae_steps: int,
    lr: float,
    epochs: int,
    per_epoch: int,
    history: int,
    seed: int,
    validate: bool,
    dealt: bool = False,
    users: int = 0,
    device: str = "cpu",
) -> dict:
    """A row of `next_item_run` on interactions by name; features: entries of an item's vector, half of them from
    words and half from users. codes: in a level, 0 for the power of two nearest to the root of the number of items.
    users: asked at most, 0 for all."""
    data = interactions.load(items)
    vectors = item_features(data, min(features, data.n_items - 1), seed=0, source="both")
    codes = codes or 2 ** round(np.log2(data.n_items) / 2)
    config = HRQConfig(space=space, dim=dim, radius=radius, levels=levels, codebook_size=codes)
    row = next_item_run(
        data, vectors, config, vae=dict(steps=vae_steps, device=device), history=history, users=users or None,
        seed=seed, validate=validate, dealt=dealt, epochs=epochs, per_epoch=per_epoch, batch=256, lr=lr,
        device=device,
    )  # fmt: skip
    about = {"items": items, "n_users": data.n_users, "n_items": data.n_items}
    return row | about | {"codes": codes, "lr": lr, "validate": validate}
