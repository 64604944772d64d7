"""What a space is worth to a tokeniser: everything from points to scores is one run, the same in every space.

A run is a function of plain values and gives a row of numbers, so that runs can be spread over processes
(`workbench.threads.spread`). RQ is the run with space "euclidean", HRQ that with space "poincare" or "lorentz".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from workbench.data import Hierarchy
from workbench.data.interactions import Held, Interactions
from workbench.errors import ParameterError
from workbench.evaluation.codes import code_report, lca_by_prefix, prefix_correlation
from workbench.evaluation.generation import (
    HypernymSplit,
    hypernym_generation,
    hypernym_split,
    next_item_generation,
)
from workbench.manifolds import make
from workbench.models.codes import capacity, deduplicate, uniqueness
from workbench.models.hrq import HRQConfig
from workbench.models.multitoken import MultitokenConfig
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.models.stress import stress, stress_embedding
from workbench.training.hrq import fit_joint, fit_vae
from workbench.training.multitoken import fit_multitoken, next_item_pairs

SPLIT = 42  # of WordNet's pairs: one split for everything that is compared
SURE = 0.95  # confidence of a verdict


# -- runs -------------------------------------------------------------------------------------------------
def embedding_run(hierarchy: Hierarchy, space: str, c: float, dim: int, steps: int = 300) -> dict:
    """A row with `points` (nodes, ambient), float64, of the least stress found (`stress_embedding`), and `stress`."""
    distances, manifold = torch.from_numpy(np.array(hierarchy.graph_distances())), make(space, c)
    x = stress_embedding(distances, manifold, dim, steps=steps)
    return {"space": space, "dim": dim, "points": x.numpy(), "stress": float(stress(x, manifold, distances))}


def stress_run(
    hierarchy: Hierarchy,
    points: Float[np.ndarray, "nodes n"],
    space: str,
    c: float = 1.0,
    *,
    levels: int = 3,
    codebook_size: int = 32,
    order: str = "left",
    seed: int = 0,
    validate: bool = False,
    **fitting,
) -> dict:
    """Points of a hierarchy's nodes → offline residual k-means → unique names → hypernym generation.

    validate: score on a tenth of the pairs to learn from instead of the test pairs; for choosing settings.
    fitting: see `fit_multitoken` (epochs, lr, batch, …). The seed is that of the codebooks and of the transformer.

    Returns a row: recall, ndcg, the baselines, and what `code_report` says of the codes. Errors of the parts.
    """
    x = torch.from_numpy(np.asarray(points, dtype=np.float64))
    manifold = make(space, c)
    dim = manifold.intrinsic_dim(x.shape[1])
    quantizer = ResidualQuantizer(manifold, dim, levels, codebook_size, order=order, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the capacity rule is in the row
        quantizer.fit(x)
    radius = float(manifold.dist0(x).mean())
    return {
        "space": space, "dim": dim, "order": order, "seed": seed,
        **code_report(quantizer, x, hierarchy),
        "capacity": capacity(manifold, dim, radius, codebook_size, levels).ok,
        **_hypernyms(hierarchy, quantizer.encode(x), seed, validate, fitting),
    }  # fmt: skip


def joint_run(
    hierarchy: Hierarchy,
    config: HRQConfig,
    *,
    joint: Mapping | None = None,
    seed: int = 0,
    validate: bool = False,
    **fitting,
) -> dict:
    """A table of points and its codes fitted together, from the pairs to learn from alone → hypernym generation.

    joint: arguments of `fit_joint` (epochs, self_negative, …). Otherwise as `stress_run`.
    """
    config = replace(config, seed=seed)
    split = _split(hierarchy, validate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = fit_joint(
            hierarchy, config, closure=split.train[:, ::-1].copy(), seed=seed, report=0, **(joint or {})
        )
    codes = fit.model.tokenize()
    return {
        "space": config.space, "dim": config.dim, "scale": config.scale, "seed": seed,
        "uniqueness": uniqueness(codes),
        "prefix_lca": prefix_correlation(codes, hierarchy).lca,
        "lca_lift": lca_by_prefix(codes, hierarchy).lift,
        "skipped": fit.skipped, "clipped": fit.clipped,
        **_hypernyms(hierarchy, codes, seed, validate, fitting),
    }  # fmt: skip


def next_item_run(
    data: Interactions,
    features: Float[np.ndarray, "items f"],
    config: HRQConfig,
    *,
    vae: Mapping | None = None,
    history: int = 20,
    users: int | None = None,
    k: int = 10,
    seed: int = 0,
    validate: bool = False,
    dealt: bool = False,
    network: Mapping | None = None,
    **fitting,
) -> dict:
    """Features of items → autoencoder with a quantised middle → unique names → next-item generation.

    vae: arguments of `fit_vae`. users: ask only for the first so many targets. validate: ask for the validation
    targets. dealt: deal the names out among the items at random, so that they mean nothing: what is lost is what the
    names are worth. network: sizes of the transformer (`MultitokenConfig`).
    """
    config = replace(config, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = fit_vae(features, config, seed=seed, report=1, **(vae or {}))
    codes = fit.model.tokenize(torch.from_numpy(features))
    rebuilt, codes = fit.model.from_tokens(codes).cpu().numpy() - features, codes.cpu()
    names = deduplicate(codes)
    if dealt:
        names = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
    sources, targets = next_item_pairs(data, history)
    shape = MultitokenConfig.for_codes(names, history=history, **(network or {}))
    model = fit_multitoken(sources, targets, names, shape, seed=seed, **fitting)
    held = data.valid if validate else data.test
    held = Held(*(part[:users] for part in held))
    found = next_item_generation(model.model, model.trie, data, held, ks=(k,))
    return {
        "space": config.space, "dim": config.dim, "radius": config.radius, "seed": seed, "dealt": dealt,
        "nmse": float((rebuilt**2).sum() / ((features - features.mean(0)) ** 2).sum()),
        "uniqueness": uniqueness(codes), "recall": found.recall[k], "ndcg": found.ndcg[k],
        "popularity": found.popularity_recall[k], "popularity_ndcg": found.popularity_ndcg[k],
    }  # fmt: skip


def _split(hierarchy: Hierarchy, validate: bool) -> HypernymSplit:
    split = hypernym_split(hierarchy, seed=SPLIT)
    if not validate:
        return split
    order = np.random.default_rng(SPLIT).permutation(len(split.train))
    rest, held = np.split(order, [round(0.9 * len(order))])
    return HypernymSplit(split.train[rest], split.train[held])


def _hypernyms(hierarchy: Hierarchy, codes: Tensor, seed: int, validate: bool, fitting: Mapping) -> dict:
    split = _split(hierarchy, validate)
    fit = fit_multitoken(split.train[:, 0], split.train[:, 1], deduplicate(codes), seed=seed, **fitting)
    result = hypernym_generation(fit.model, fit.trie, split)
    names = (
        "recall",
        "ndcg",
        "recall_by_source",
        "popularity",
        "composition",
        "composition_filled",
        "n_pairs",
    )
    return {name: getattr(result, name) for name in names}


# -- what runs say ----------------------------------------------------------------------------------------
class Mean(NamedTuple):
    """Mean over n runs and its standard error; the error of a single run is 0, and means nothing."""

    mean: float
    error: float
    n: int


class Gain(NamedTuple):
    """Two means, their difference `after - before` with its standard error, and how far it can be trusted: "more",
    "less", "within noise", or "one seed"."""

    before: Mean
    after: Mean
    gain: float
    error: float
    verdict: str


def mean_of(rows: Iterable[Mapping], metric: str, **where) -> Mean:
    """Of a metric over the rows whose entries are these; ParameterError where there are none."""
    values = [float(row[metric]) for row in rows if all(row[k] == v for k, v in where.items())]
    if not values:
        raise ParameterError(f"no run has {where}")
    n = len(values)
    return Mean(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else 0.0, n)


def gain(
    rows: Iterable[Mapping], metric: str, before: str = "euclidean", after: str = "poincare", **where
) -> Gain:
    """What space `after` adds to `before` in a metric: beyond noise where Student's test of the two means says so
    at 95 %. The runs of both are independent but for the data and its split."""
    rows = list(rows)
    a, b = (mean_of(rows, metric, space=space, **where) for space in (before, after))
    difference, error = b.mean - a.mean, math.hypot(a.error, b.error)
    if min(a.n, b.n) < 2:
        return Gain(a, b, difference, error, "one seed")
    enough = abs(difference) > error * float(student.ppf((1 + SURE) / 2, a.n + b.n - 2))
    sign = "more" if difference > 0 else "less"
    return Gain(a, b, difference, error, sign if enough else "within noise")
