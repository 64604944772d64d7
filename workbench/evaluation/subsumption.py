"""Is one entity a kind of another? Scores of pairs, their calibration, and what a rule without a model reaches.

score(e, p) = d(e, p) + λ (d0(p) − d0(e)) in unit curvature: the lower, the surer that p subsumes e. λ and the
threshold are chosen on validation questions, and kept for the test. Source: HiT (NeurIPS 2024), section 3; HiM
(arXiv 2505.18973) takes it over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.hierarchy import Hierarchy
from workbench.data.tasks import Questions, Task, contains
from workbench.errors import ParameterError
from workbench.evaluation.linkprediction import best_threshold, classify
from workbench.evaluation.ranking import as_pairs, as_points, as_tensor
from workbench.models.him_losses import radius, subsumption

LAMBDAS = tuple(np.linspace(0, 5, 26).tolist())
FINER = 8  # steps between neighbours of the best λ, in each of two rounds
BLOCK = 1 << 18  # coordinates of one block of pairs, 2 MB: five times faster in the cache than out of it


@dataclass(frozen=True)
class Calibration:
    """The weight λ ≥ 0 of the radii, the threshold (score ≤ threshold: subsumption), and their F1 in validation."""

    lam: float
    threshold: float
    f1: float


@dataclass(frozen=True)
class Verdict:
    """How well answers at a threshold fit the questions, all in [0, 1].

    f1, precision, recall, accuracy: over all pairs. f1_direct, f1_indirect: over the direct (indirect) true pairs and
    the wrong ones offered with them, at the same threshold; NaN where there is no such question. hits1: share of
    questions whose true ancestor scores best of its 1 + k; one of m equally good ones counts 1/m.
    """

    f1: float
    precision: float
    recall: float
    accuracy: float
    f1_direct: float
    f1_indirect: float
    hits1: float


def subsumption_score(
    points: Tensor | np.ndarray, manifold, pairs: Tensor | np.ndarray, lam: float
) -> Float[Tensor, " pairs"]:
    """Score of each pair [ancestor, descendant], float64: lower is surer. points (N, ambient) of `manifold`.

    Raises:
        ParameterError: NaN or infinity in points or scores (never a good score), pairs that are none, λ not finite.
        ManifoldError: points off the manifold.
    """
    points, pairs = _checked(points, manifold, pairs)
    if not np.isfinite(lam):
        raise ParameterError(f"lam must be a finite number, but came as {lam}")
    blocks = pairs.split(max(1, BLOCK // points.shape[1]))
    with torch.no_grad():
        score = torch.cat(
            [subsumption(manifold, points[d], points[a], lam) for a, d in (b.T for b in blocks)]
        )
    return _finite(score)


def calibrate(
    points: Tensor | np.ndarray, manifold, questions: Questions, lams: Sequence[float] = LAMBDAS
) -> Calibration:
    """The λ and threshold with the best F1 on (validation) questions.

    Every λ of `lams` is tried and, between the neighbours of the best of them, two rounds of finer ones; the exact
    best threshold for each, always finite. Of equally good λ the first. Raises as `subsumption_score`, and
    ParameterError unless `lams` are finite numbers of at least 0.
    """
    lams = [float(x) for x in lams]
    if not lams or not all(0 <= x < np.inf for x in lams):
        raise ParameterError(f"lams must be finite numbers of at least 0, at least one, but came as {lams}")
    pairs, label, _ = questions.labelled()
    near = subsumption_score(points, manifold, pairs, 0.0)
    points, pairs = _checked(points, manifold, pairs)
    with torch.no_grad():
        r = radius(manifold, points)
    rise = r[pairs[:, 0]] - r[pairs[:, 1]]
    label = torch.from_numpy(label).to(near.device)
    tried = {lam: _tuned(near, rise, lam, label) for lam in lams}
    for _ in range(2):
        best = max(tried.values(), key=lambda c: c.f1)
        finer = _between_neighbours(best.lam, tried)
        tried |= {lam: _tuned(near, rise, lam, label) for lam in finer if lam not in tried}
    return max(tried.values(), key=lambda c: c.f1)


def judge(score: Tensor | np.ndarray, threshold: float, questions: Questions) -> Verdict:
    """Score ≤ threshold taken as subsumption, against the questions; score (Q (1 + k),) as `labelled` orders them.

    Raises:
        ParameterError: another number of scores, a score or threshold that is NaN, an infinite score.
    """
    _, label, direct = questions.labelled()
    score = _finite(as_tensor(score).detach().to(torch.float64).cpu())
    if score.shape != label.shape:
        raise ParameterError(
            f"scores must be one a possible answer {label.shape}, but came as {tuple(score.shape)}"
        )
    if np.isnan(threshold):
        raise ParameterError("threshold must be a number, but is NaN")
    whole = classify(-score, label, -threshold)
    apart = [
        classify(-score[part], label[part], -threshold).f1 if part.any() else float("nan")
        for part in (torch.from_numpy(direct), torch.from_numpy(~direct))
    ]
    return Verdict(whole.f1, whole.precision, whole.recall, whole.accuracy, *apart, _hits1(score, questions))


def evaluate(
    points: Tensor | np.ndarray, manifold, calibration: Calibration, questions: Questions
) -> Verdict:
    """`judge` the scores of points (N, ambient) at the λ and threshold of a calibration."""
    score = subsumption_score(points, manifold, questions.labelled()[0], calibration.lam)
    return judge(score, calibration.threshold, questions)


def baselines(task: Task) -> dict[str, Verdict]:
    """What rules without a model reach on task.test, their threshold tuned on task.valid, in the training graph.

    "in-degree": how many children the ancestor has. "descendants": how many nodes below it; both are blind to the
    descendant. "closure": whether the pair follows from the training pairs. "closure, then descendants": that, and
    the number of descendants among pairs that do (or do not) follow.
    """
    known = Hierarchy.from_edges(task.train, task.h.names)
    closure, n = known.closure(), len(known)
    children, below = (np.bincount(pairs[:, 0], minlength=n) for pairs in (known.edges, closure))
    rules = {
        "in-degree": lambda pairs: children[pairs[:, 0]],
        "descendants": lambda pairs: below[pairs[:, 0]],
        "closure": lambda pairs: contains(closure, pairs, n),
        "closure, then descendants": lambda pairs: below[pairs[:, 0]] + n * contains(closure, pairs, n),
    }
    return {name: _judge_rule(rule, task) for name, rule in rules.items()}


# -- parts -----------------------------------------------------------------------------------------------


def _judge_rule(rule, task: Task) -> Verdict:
    """A rule gives higher numbers to surer pairs; a score is the other way round."""
    pairs, label, _ = task.valid.labelled()
    threshold = -best_threshold(rule(pairs).astype(np.float64), label)
    return judge(-rule(task.test.labelled()[0]).astype(np.float64), threshold, task.test)


def _tuned(near: Tensor, rise: Tensor, lam: float, label: Tensor) -> Calibration:
    score = _finite(near + lam * rise)
    threshold = -best_threshold(-score, label)
    # Infinite where "all of them" is best; the highest score says the same, can be saved, and has margins.
    threshold = threshold if np.isfinite(threshold) else float(score.max())
    return Calibration(lam, threshold, classify(-score, label, -threshold).f1)


def _between_neighbours(lam: float, tried: Iterable[float]) -> list[float]:
    known = sorted(tried)
    i = known.index(lam)
    low, high = known[max(i - 1, 0)], known[min(i + 1, len(known) - 1)]
    return np.linspace(low, high, 2 * FINER + 1).tolist() if low < high else []


def _hits1(score: Tensor, questions: Questions) -> float:
    table = score.reshape(len(questions), 1 + questions.k)
    right, wrong = table[:, :1], table[:, 1:]
    best = (right <= wrong).all(1)
    return float((best / (1 + (wrong == right).sum(1))).mean())


def _checked(points: Tensor | np.ndarray, manifold, pairs: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    points = as_tensor(points)
    bad = ~torch.isfinite(points).all(-1) if points.ndim else torch.zeros(0)
    if bad.any():
        raise ParameterError(
            f"points must be finite, but {int(bad.sum())} of {bad.numel()} are not, the first of them "
            f"number {int(bad.flatten().nonzero()[0])}"
        )
    points = as_points(points, manifold)
    return points, as_pairs(pairs, len(points), "pairs", points.device)


def _finite(score: Tensor) -> Tensor:
    bad = int((~torch.isfinite(score)).sum())
    if bad:
        raise ParameterError(f"scores must be finite, but {bad} of {score.numel()} are not")
    return score
