"""What sweeps over curvature and memory ask of one training of a recommender, beyond `recommender_runs`.

Two orders of the same sessions: as they are, where the last item says most about the next one ("walk"), and dealt out
anew for each user ("taste"), where all items say as much and only who remembers them all can use them. What a rule
reaches that knows the tree behind made-up sessions. How long the states of Mamba remember, and how training behaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.data._graph import readonly
from workbench.data.interactions import Interactions
from workbench.errors import ParameterError, suggest
from workbench.evaluation.recommendation import both_ranks, report
from workbench.models.recommender import Recommender, RecommenderConfig, named
from workbench.threads import one_thread
from workbench.training.recommender import RecommenderSettings, RecommenderTrainer, ranks_of, scorer
from workbench.training.recommender_batches import Batch
from workbench.training.recommender_runs import (
    OF_DATA,
    OF_MODEL,
    OF_TRAINING,
    geometry,
    measured,
    sequences,
)
from workbench.training.riemannian import release

ORDERS = ("walk", "taste")


def ordered(data: Interactions, order: str = "walk", seed: int = 0) -> Interactions:
    """The data as they are ("walk"), or every user's items in random order ("taste").

    ParameterError for another order.
    """
    if order not in ORDERS:
        raise ParameterError(
            f"order must be one of {', '.join(ORDERS)}, but came as {order!r}{suggest(order, ORDERS)}"
        )
    if order == "walk":
        return data
    rng = np.random.default_rng([seed, 7])
    events = np.concatenate([rng.permutation(s) for s in data.sequences])
    return replace(data, name=f"{data.name}, shuffled", events=readonly(events))


def swept_run(
    *,
    data: str = "synthetic",
    order: str = "walk",
    model: str = "hmamba_full",
    seed: int = 0,
    data_seed: int = 0,
    rolling: int = 1,
    watched: bool = False,
    cuts: Sequence[int] = (),
    device: str = "cpu",
    **values,
) -> dict:
    """`recommender_run`, with the order of the sessions, the radius of users, and Mamba's memory.

    values: any of `RecommenderConfig`, `RecommenderSettings` and `interactions.synthetic` by name. watched: also
    a row for each epoch. cuts: numbers of items; the test is repeated with no more than so many of each history.

    Returns masked, unmasked, targets; ndcg (of masked, at 10); per_user, a list of it; valid_ndcg, best_epoch,
    epochs, loss, seconds; κ, c, τ and radii as `recommender_runs.geometry`; user_radius, in unit curvature; memory,
    see there (None without Mamba); reach, ndcg for each of the cuts; history if watched: of each epoch loss, ndcg@10
    on validation, gradient (its norm on a fixed batch, without dropout), κ, c, τ, radius, user_radius.

    ParameterError for a value that nothing knows, and all that `RecommenderTrainer` raises.
    """
    known = OF_MODEL | OF_TRAINING | OF_DATA
    for name in values:
        if name not in known:
            raise ParameterError(f"a run of a recommender has no parameter {name!r}{suggest(name, known)}")
    of_model, of_training, of_data = (
        {k: v for k, v in values.items() if k in of} for of in (OF_MODEL, OF_TRAINING, OF_DATA)
    )
    config: RecommenderConfig = named(model, **of_model, seed=seed)
    found = ordered(sequences(data, rolling, seed=data_seed, **of_data), order, data_seed)
    trainer = _trained(Recommender(config, found.n_items), found, of_training, seed, device, watched)
    fitted, past = trainer.model, trainer.history
    row = measured(ranks_of(fitted, found.test), found.test, True)
    row |= {"per_user": row["per_user"]["ndcg@10"], "ndcg": row["masked"]["ndcg@10"]}
    row |= {"valid_ndcg": max((r["ndcg@10"] for r in past), default=None), "best_epoch": trainer.best_epoch}
    row |= {"loss": past[-1]["loss"] if past else None, "epochs": trainer.epoch}
    row |= {"seconds": trainer.seconds} | geometry(fitted, found)
    batch = histories(found, fitted)
    row |= {"user_radius": user_radius(fitted, *batch), "memory": memory(fitted, *batch)}
    row |= {"reach": [_ndcg(fitted, found, cut) for cut in cuts]}
    return row | ({"history": past} if watched else {})


def _ndcg(model: Recommender, data: Interactions, cut: int) -> float:
    """NDCG@10, seen items left out, by the last `cut` items of each history."""
    device = model.items.held.device
    ranks = both_ranks(scorer(model), data.test, data.n_items, max_len=cut, device=device)
    return report(ranks.masked).ndcg[10]


def _trained(
    model: Recommender, data: Interactions, values: dict, seed: int, device: str, watched: bool
) -> RecommenderTrainer:
    """A training that is over, its model as of the best epoch, in evaluation mode.

    On a CPU states are walked by the plain loop over time: for the narrow models and short histories of a sweep it
    is several times faster than the segments made for long ones, and the numbers are the same.
    """
    for block in getattr(model.encoder, "mixers", []):
        block.backend = "reference" if device == "cpu" else "auto"
    trainer = RecommenderTrainer(
        model.bind(data), data.require_targets(), RecommenderSettings(**values), seed, torch.device(device)
    )
    with one_thread():
        while not trainer.finished:
            start = time.process_time()
            while trainer.step < len(trainer.plan):
                trainer.run_step()
            trainer.seconds += time.process_time() - start
            trainer.end_epoch(True)
            if watched:
                trainer.history[-1] |= seen(trainer)
    if trainer.best:
        trainer.model.load_state_dict(trainer.best)
    release(trainer.model)
    trainer.model.eval()
    return trainer


def tree_run(*, strength: float, data_seed: int = 0, rolling: int = 1, **made) -> dict:
    """What `tree_scores` reaches on "walk": as the row of `swept_run`, for those entries that a rule has."""
    found = sequences("synthetic", rolling, seed=data_seed, strength=strength, **made)
    longest = int(np.diff(found.start).max())
    ranks = both_ranks(tree_scores(found, strength), found.test, found.n_items, max_len=longest)
    row = measured(ranks, found.test, True)
    return row | {"per_user": row["per_user"]["ndcg@10"], "ndcg": row["masked"]["ndcg@10"]}


def tree_scores(data: Interactions, strength: float) -> Callable[[Tensor, Tensor], Tensor]:
    """How likely each item is next, by who knows how `interactions.synthetic` draws it: its tree, the strength, and
    popularity as far as training shows it. No model can be expected above this.

    Returns a function (items (n, L), mask (n, L)) → (n, V), for `recommendation.both_ranks` with whole histories.
    ParameterError for items without paths in a tree.
    """
    if not data.paths or len({len(p) for p in data.paths}) != 1:
        raise ParameterError("tree_scores needs a path of categories for each item, all of one length")
    depth = len(data.paths[0])
    nodes = [_numbers([path[: depth - up] for path in data.paths]) for up in range(depth + 1)]
    climbs = strength * 0.5 ** torch.arange(1.0, depth + 2)
    climbs[depth] = 1 - climbs[:depth].sum()  # all that climbs to the root
    weight = torch.from_numpy(1.0 + data.counts).float()

    def scores(items: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n V"]:
        rows = torch.arange(len(items))
        taken = torch.zeros(len(items), data.n_items).index_put((rows[:, None], items), mask.float(), True)
        free, last = weight * (taken == 0), items[rows, mask.sum(1) - 1]
        total = torch.zeros_like(free)
        for share, node in zip(climbs, nodes, strict=True):
            below = free * (node == node[last][:, None])
            total += share * below / below.sum(1, keepdim=True).clamp_min(1e-9)
        return total

    return scores


def _numbers(nodes: list[tuple[str, ...]]) -> Int[Tensor, " V"]:
    names = {node: i for i, node in enumerate(dict.fromkeys(nodes))}
    return torch.tensor([names[node] for node in nodes])


# -- looking into a model ------------------------------------------------------------------------------------


def histories(data: Interactions, model: Recommender, n: int = 64) -> tuple[Tensor, Tensor]:
    """items, mask (n, L): the last training items of the first n users who have targets, on the model's device."""
    chosen = [h[-model.max_len :] for h in data.valid.histories[:n]]
    mask = torch.arange(max(map(len, chosen))) < torch.tensor([len(h) for h in chosen])[:, None]
    items = torch.zeros(mask.shape, dtype=torch.int64)
    items[mask] = torch.from_numpy(np.concatenate(chosen))
    device = model.items.held.device
    return items.to(device), mask.to(device)


@torch.no_grad()
def user_radius(model: Recommender, items: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> float:
    """Mean distance of users from the origin, after each of these items, in unit curvature; flat space as it is."""
    points = model.user_points(model.states(items, mask)[mask])
    return float(model.manifold.dist0(points).mean()) * (float(model.manifold.c) ** 0.5 or 1.0)


@torch.no_grad()
def memory(model: Recommender, items: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> list[float] | None:
    """After how many items a state of Mamba's first layer has faded to 1/e, 1/(Δ |A| K): for each state the median
    over channels and items. None for a model without Mamba.
    """
    if model.config.encoder != "mamba":
        return None
    block, scale, kept = model.encoder.mixers[0], model.encoder.decay_scale, []
    handle = block.x_proj.register_forward_hook(lambda _, __, out: kept.append(out[..., : block.dt_rank]))
    try:
        model.states(items, mask)
    finally:
        handle.remove()
    step = F.softplus(F.linear(kept[0][mask], block.dt_proj.weight, block.dt_proj.bias))
    rate = block.A_log.exp() * (1.0 if scale is None else scale)
    fade = 1 / (step[..., None] * rate)
    return fade.flatten(0, 1).median(0).values.tolist()


def seen(trainer: RecommenderTrainer) -> dict[str, float]:
    """The gradient's norm on a fixed batch without dropout, and the radius of its users; nothing is changed."""
    model, (items, mask) = trainer.model, histories(trainer.data, trainer.model)
    asked = mask.clone()
    asked[:, -1] = False
    asked[:, :-1] &= mask[:, 1:]
    targets = items[:, 1:][asked[:, :-1]]
    owner = torch.as_tensor(trainer.data.valid.users[: len(items)], device=items.device)
    users = owner[:, None].expand_as(items)[asked]
    model.eval()
    with torch.random.fork_rng(devices=[]):
        loss = trainer.loss(Batch(items, mask, asked, targets, users)) + model.penalty
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    size = torch.nn.utils.get_total_norm([g for g in parts if g is not None])
    row = {"gradient": float(size), "user_radius": user_radius(model, items, mask)}
    model.train()
    return row
