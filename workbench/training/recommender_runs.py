"""One training of a recommender and all that is asked of it, from plain values to plain values: a cell of a sweep."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from inspect import signature

import numpy as np
import torch
from scipy.stats import spearmanr

from workbench.data import interactions
from workbench.data.interactions import Held, Interactions
from workbench.errors import ParameterError, suggest
from workbench.evaluation.recommendation import TargetRanks, per_user, popularity_ranks, report
from workbench.models.recommender import Recommender, RecommenderConfig, named
from workbench.training.recommender import RecommenderSettings, fit_recommender, radii, ranks_of

TABLES = (".inter", ".csv", ".tsv", ".parquet", ".inter.gz", ".csv.gz", ".tsv.gz")
LINES = (".txt", ".txt.gz")
OF_MODEL, OF_TRAINING = (
    {f.name for f in fields(kind)} - {"seed"} for kind in (RecommenderConfig, RecommenderSettings)
)
OF_DATA = set(signature(interactions.synthetic).parameters) - {"seed"}


@lru_cache(maxsize=4)
def sequences(data: str, rolling: int = 1, core: int = 0, seed: int = 0, **made) -> Interactions:
    """The data of `recommender_run`: a name of `interactions.LOADERS`, or a file of your own.

    A file that ends like a table (.inter, .csv, .tsv, .parquet) has one interaction a row, one that ends in .txt a
    line `user item item …`. core: k of a k-core taken first. seed and made: of "synthetic", such as strength=0.5.

    ParameterError for another name, or for values of "synthetic" with other data; DataError for data that are not
    here.
    """
    if made and data != "synthetic":
        raise ParameterError(f"{next(iter(made))} belongs to data='synthetic', but data is {data!r}")
    if data == "synthetic":
        found = interactions.synthetic(seed=seed, **made)
    elif data.endswith(TABLES):
        found = interactions.read_inter(data)
    else:
        found = interactions.read_sequences(data) if data.endswith(LINES) else interactions.load(data)
    if core > 1:
        found = found.k_core(core, core)
    return found.with_rolling(rolling) if rolling != 1 else found


def recommender_run(
    *,
    data: str = "synthetic",
    model: str = "hmamba_full",
    seed: int = 0,
    rolling: int = 1,
    core: int = 0,
    data_seed: int = 0,
    report: int = 1,
    per_user: bool = False,
    history: bool = False,
    save: str = "",
    device: str = "cpu",
    **values,
) -> dict:
    """Train one model; rank every test target among all items, those the user has had left out and not.

    data, rolling (test targets a user), core, data_seed: see `sequences`. model: a name of `named`. seed: of weights,
    batches and dropout. report: epochs from one validation to the next. save: a file for the model. values: any of
    `RecommenderConfig`, `RecommenderSettings` and of `interactions.synthetic` by name, such as head, c, width,
    lr, epochs, loss, strength.

    Returns masked and unmasked, each {hr@5, ndcg@5, mrr@5, …@10, …@20, …@40}; valid_ndcg, to choose by; epochs,
    best_epoch, loss; seconds (processor, of training) and seconds_per_epoch; kappa, c, tau; radius and radius_max of
    items, in unit curvature, and radius_popularity, its rank correlation with popularity; parameters; targets;
    history if asked for; with per_user {hr@10, ndcg@10}, lists with a value for each user, seen items left out.

    ParameterError for a value that nothing knows, and all that `fit_recommender` raises.
    """
    config, settings, made = _sorted_values(model, seed, values)
    found = sequences(data, rolling, core, data_seed, **made)
    fit = fit_recommender(found, config, settings, seed=seed, report=report, device=device)
    if save:
        fit.model.save(save)
    best = next((r for r in fit.history if r["epoch"] == fit.best_epoch), None)
    last = fit.history[-1] if fit.history else None
    row = measured(ranks_of(fit.model, found.test), found.test, per_user)
    row |= {"valid_ndcg": best and best["ndcg@10"], "loss": last and last["loss"]}
    row |= {"best_epoch": fit.best_epoch, "epochs": fit.epochs, "seconds": fit.seconds}
    row |= {"seconds_per_epoch": fit.seconds / max(1, fit.epochs)} | geometry(fit.model, found)
    row |= {"parameters": sum(p.numel() for p in fit.model.parameters())}
    return row | ({"history": fit.history} if history else {})


def popularity_run(
    *,
    data: str = "synthetic",
    rolling: int = 1,
    core: int = 0,
    data_seed: int = 0,
    per_user: bool = False,
    **made,
) -> dict:
    """What the most popular items reach on the same targets: masked, unmasked, targets, per_user as there."""
    found = sequences(data, rolling, core, data_seed, **made)
    found.require_targets()
    ranks = TargetRanks(*(popularity_ranks(found, seen=seen) for seen in (True, False)))
    return measured(ranks, found.test, per_user)


def measured(ranks: TargetRanks, held: Held, per_user_too: bool = False) -> dict:
    """Plain figures of the ranks of held-out targets."""
    row = {"masked": report(ranks.masked).flat(), "unmasked": report(ranks.unmasked).flat()}
    row |= {"targets": len(held.targets)}
    if per_user_too:
        of_each = {m: per_user(ranks.masked, m, 10, held.users).tolist() for m in ("hr", "ndcg")}
        row |= {"per_user": {f"{m}@10": of_each[m] for m in of_each}}
    return row


@torch.no_grad()
def geometry(model: Recommender, data: Interactions) -> dict:
    """κ, c, τ, radii of items in unit curvature, and Spearman's correlation of radius and popularity in training
    (of items that occur there; None where all radii or all counts are equal)."""
    r = radii(model).cpu().numpy()
    seen = data.counts > 0
    x, y = r[seen], np.asarray(data.counts)[seen]
    same = len(x) < 2 or x.min() == x.max() or y.min() == y.max()
    correlation = None if same else float(spearmanr(x, y).statistic)
    return {
        "kappa": model.kappa,
        "c": float(model.manifold.c),
        "tau": float(model.head.temperature),
        "radius": float(r.mean()),
        "radius_max": float(r.max()),
        "radius_popularity": correlation,
    }


def _sorted_values(
    model: str, seed: int, values: dict
) -> tuple[RecommenderConfig, RecommenderSettings, dict]:
    known = OF_MODEL | OF_TRAINING | OF_DATA
    for name in values:
        if name not in known:
            raise ParameterError(f"a run of a recommender has no parameter {name!r}{suggest(name, known)}")
    of_model, of_training, of_data = (
        {k: v for k, v in values.items() if k in of} for of in (OF_MODEL, OF_TRAINING, OF_DATA)
    )
    return named(model, **of_model, seed=seed), RecommenderSettings(**of_training), of_data
