"""How well an embedding gives back the hierarchy it was trained on: MAP and mean rank of reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ParameterError
from workbench.evaluation.ranking import as_pairs, as_points, as_tensor, mean_average_precision, rank_pairs


@dataclass(frozen=True)
class Reconstruction:
    """`map` in (0, 1], `mean_rank` ≥ 1, over `n_sources` sources and `n_pairs` (ancestor, source) pairs."""

    map: float
    mean_rank: float
    n_sources: int
    n_pairs: int

    def __str__(self) -> str:
        size = f"{self.n_sources:,} sources, {self.n_pairs:,} pairs"
        return f"MAP {self.map:.4f}, mean rank {self.mean_rank:.3f} ({size})"


def reconstruction(
    points: Tensor | np.ndarray,
    manifold,
    closure: Tensor | np.ndarray,
    sources: int | Tensor | np.ndarray | None = None,
    chunk: int | None = None,
    progress: bool = False,
    seed: int = 0,
) -> Reconstruction:
    """MAP and mean rank of every ancestor among the nodes that are not ancestors, as in the 2017 release.

    points (N, ambient) of `manifold`, any float type (computed in float64); closure int (P, 2) [ancestor,
    descendant]. Each descendant u is a source. Rank of its ancestor v: 1 + the non-neighbours of u closer
    to u than v, u itself and u's other ancestors left out; a non-neighbour at the same distance counts
    half, as sorting in random order would on average. Average precision per source over all other nodes by
    distance, tied nodes taken together (as sklearn.metrics.average_precision_score does, so a collapsed
    embedding scores near zero); MAP is its mean over the sources.

    sources: evaluate only these: a count, drawn with `seed`, or node indices. Their ranks are exact all the
    same. Raises ManifoldError (NaN, wrong shape) and ParameterError (bad pairs or sources). Source: Nickel
    & Kiela 2017, section 4.1.
    """
    points = as_points(points, manifold)
    closure = as_pairs(closure, len(points), "closure").cpu().unique(dim=0)
    if sources is not None:
        closure = closure[torch.isin(closure[:, 1], _draw(closure[:, 1].unique(), sources, seed))]
    ranks = rank_pairs(points, manifold, closure, chunk=chunk, progress=progress)
    average, n_sources = mean_average_precision(ranks, closure)
    return Reconstruction(average, float(ranks.rank.mean()), n_sources, len(closure))


def _draw(known: Tensor, sources: int | Tensor | np.ndarray, seed: int) -> Tensor:
    """The sources asked for: `sources` of `known` drawn with `seed`, or the given indices once checked."""
    if isinstance(sources, int | np.integer):
        if sources < 1:
            raise ParameterError(f"sources must be a positive count or node indices, but came as {sources}")
        generator = torch.Generator().manual_seed(seed)
        return known[torch.randperm(len(known), generator=generator)[:sources]]
    sources = as_tensor(sources).cpu().to(torch.int64)
    stranger = sources[~torch.isin(sources, known)]
    if len(sources) == 0 or len(stranger):
        which = f"node {int(stranger[0])} is not one" if len(stranger) else "none came"
        raise ParameterError(f"sources must be descendants in the closure, but {which}")
    return sources
