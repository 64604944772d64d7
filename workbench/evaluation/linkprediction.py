"""Pairs a model has not seen: ranked among all nodes, or told from wrong pairs by a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ParameterError
from workbench.evaluation.ranking import as_pairs, as_points, as_tensor, mean_average_precision, rank_pairs


@dataclass(frozen=True)
class LinkPrediction:
    """`map`, `mean_rank` and `hits` (share of pairs of rank ≤ k), over sources and pairs of the test set."""

    map: float
    mean_rank: float
    hits: float
    k: int
    n_sources: int
    n_pairs: int


@dataclass(frozen=True)
class Classification:
    """Scores ≥ `threshold` taken as true pairs: F1, precision and recall of the true ones, and accuracy."""

    f1: float
    precision: float
    recall: float
    accuracy: float
    threshold: float


def link_prediction(
    points: Tensor | np.ndarray,
    manifold,
    test: Tensor | np.ndarray,
    true: Tensor | np.ndarray | None = None,
    *,
    k: int = 10,
    chunk: int | None = None,
    progress: bool = False,
) -> LinkPrediction:
    """Rank of held-out pairs by distance, filtered: other true pairs of the same source do not compete.

    points (N, ambient) of `manifold`; test int (P, 2) [ancestor, descendant]: the descendant is the source,
    its ancestor is ranked among all nodes. true int (Q, 2): every pair known to be true, of training and
    validation too (default: only the test pairs). Ties and MAP as in `reconstruction`; k ≥ 1 for hits@k.
    Raises ManifoldError and ParameterError on bad input. Source: Nickel & Kiela 2017, section 4.2.
    """
    points = as_points(points, manifold)
    test = as_pairs(test, len(points), "test").cpu().unique(dim=0)
    if k < 1:
        raise ParameterError(f"k must be at least 1, but came as {k}")
    ranks = rank_pairs(points, manifold, test, true, chunk=chunk, progress=progress)
    average, n_sources = mean_average_precision(ranks, test)
    hits = (ranks.rank <= k).double().mean()
    return LinkPrediction(average, float(ranks.rank.mean()), float(hits), k, n_sources, len(test))


def isa_score(
    points: Tensor | np.ndarray, manifold, pairs: Tensor | np.ndarray, alpha: float = 1e3
) -> Tensor:
    """How much a pair [ancestor v, descendant u] looks true: −(1 + α(|v| − |u|)) d(u, v), float64 (P,).

    A pair is the more likely the closer it is and the farther out its descendant lies. |·| is the norm in the
    unit ball, tanh(√c dist0/2), whatever the chart, and dist0 in flat space. The default α is the paper's.
    Source: Nickel & Kiela 2017, section 4.3.
    """
    points = as_points(points, manifold)
    pairs = as_pairs(pairs, len(points), "pairs", points.device)
    root_c = float(manifold.c) ** 0.5
    norm = manifold.dist0(points)
    if root_c > 0:
        norm = torch.tanh(root_c * norm / 2)
    v, u = pairs.T
    return -(1 + alpha * (norm[v] - norm[u])) * manifold.dist(points[u], points[v])


def best_threshold(score: Tensor | np.ndarray, label: Tensor | np.ndarray, metric: str = "f1") -> float:
    """The threshold t for which "score ≥ t" has the best F1 or accuracy: exact, by one sort.

    score float (P,), label bool (P,) with at least one true. Of equally good ones the highest; it lies half
    way between two scores, or is infinite where all pairs go to one side.
    """
    score, label = _scored(score, label)
    if metric not in ("f1", "accuracy"):
        raise ParameterError(f"metric must be 'f1' or 'accuracy', but came as {metric!r}")
    if not bool(label.any()):
        raise ParameterError("labels must hold at least one true pair, but hold none")
    score, order = score.sort(descending=True, stable=True)
    # With the k highest scores taken: `hit` true ones among them. Equal scores are taken together.
    hit = torch.cat([label.new_zeros(1, dtype=torch.float64), label[order].double().cumsum(0)])
    taken = torch.arange(len(hit), dtype=torch.float64, device=hit.device)
    value = 2 * hit / (taken + hit[-1]) if metric == "f1" else 2 * hit - taken
    value[1:-1][score[1:] == score[:-1]] = -torch.inf
    best = int(value.argmax())
    if best == 0:
        return float("inf")
    return float((score[best - 1] + score[best]) / 2) if best < len(score) else float("-inf")


def classify(score: Tensor | np.ndarray, label: Tensor | np.ndarray, threshold: float) -> Classification:
    """F1, precision, recall and accuracy of "score ≥ threshold" against `label`; 0 where a ratio is empty.

    Choose `threshold` by `best_threshold` on validation pairs, never on the pairs that are reported.
    """
    score, label = _scored(score, label)
    taken = score >= threshold
    hit = float((taken & label).sum())
    precision, recall = hit / max(float(taken.sum()), 1.0), hit / max(float(label.sum()), 1.0)
    f1 = 2 * hit / max(float(taken.sum() + label.sum()), 1.0)
    return Classification(f1, precision, recall, float((taken == label).double().mean()), float(threshold))


def _scored(score: Tensor | np.ndarray, label: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    score = as_tensor(score).detach().to(torch.float64)
    label = as_tensor(label).to(score.device, torch.bool)
    if score.ndim != 1 or score.shape != label.shape or len(score) == 0:
        came = f"{tuple(score.shape)} and {tuple(label.shape)}"
        raise ParameterError(f"scores and labels must be lists of one length, at least 1, but came as {came}")
    if not bool(torch.isfinite(score).all()):
        raise ParameterError(f"scores must be finite, but {int((~torch.isfinite(score)).sum())} are not")
    return score, label
