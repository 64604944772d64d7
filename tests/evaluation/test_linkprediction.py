"""Link prediction against naive loops, thresholds against trying every one and scikit-learn's scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from workbench.data import trees
from workbench.errors import ParameterError
from workbench.evaluation import best_threshold, classify, isa_score, link_prediction, reconstruction
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, poincare_to_lorentz
from workbench.models.sarkar import sarkar


def test_filtered_ranks_equal_a_naive_count():
    h = trees.random_recursive(80, 2)
    ball = PoincareBall()
    points = ball.from_tangent(torch.randn(80, 3, generator=torch.Generator().manual_seed(0)).double())
    split, closure = h.split(0.1, 0.3, seed=0), h.closure()
    found = link_prediction(points, ball, split.test, closure, k=5)
    distance = torch.stack([ball.dist(p, points) for p in points]).numpy()
    true = {(int(a), int(d)) for a, d in closure}
    ranks, precisions = [], {}
    for v, u in split.test:
        rivals = [w for w in range(len(h)) if w != u and (w, int(u)) not in true]
        ranks.append(1 + sum(distance[u, w] < distance[u, v] for w in rivals))
        before = sum(distance[u, w] <= distance[u, v] for w in split.test[split.test[:, 1] == u, 0])
        precisions.setdefault(int(u), []).append(before / (before + ranks[-1] - 1))
    assert found.mean_rank == pytest.approx(np.mean(ranks))
    assert found.hits == pytest.approx(np.mean(np.array(ranks) <= 5))
    assert found.map == pytest.approx(np.mean([np.mean(p) for p in precisions.values()]))
    assert (found.n_pairs, found.n_sources, found.k) == (len(split.test), len(precisions), 5)


def test_without_known_pairs_it_is_reconstruction_of_the_test_pairs():
    h = trees.random_recursive(60, 4)
    points, test = sarkar(h, 2, 0.7), h.split(0.1, 0.5, seed=1).test
    found, plain = link_prediction(points, PoincareBall(), test), reconstruction(points, PoincareBall(), test)
    assert (found.map, found.mean_rank) == (plain.map, plain.mean_rank)
    filtered = link_prediction(points, PoincareBall(), test, h.closure())
    assert filtered.mean_rank <= found.mean_rank


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25),
    metric=st.sampled_from(["f1", "accuracy"]),
)
def test_no_threshold_beats_the_best_one(rows, metric):
    score = np.array([s for s, _ in rows], dtype=float)
    label = np.array([positive for _, positive in rows])
    label[0] = True
    found = classify(score, label, best_threshold(score, label, metric))
    every = [classify(score, label, t) for t in [-np.inf, np.inf, *np.arange(-0.5, 7)]]
    assert getattr(found, metric) == max(getattr(c, metric) for c in every)


def test_scores_equal_scikit_learns():
    rng = np.random.default_rng(0)
    label = rng.random(500) < 0.3
    score = rng.standard_normal(500) + label
    found = classify(score, label, 0.4)
    guess = score >= 0.4
    assert found.f1 == pytest.approx(f1_score(label, guess))
    assert found.precision == pytest.approx(precision_score(label, guess))
    assert found.recall == pytest.approx(recall_score(label, guess))
    assert found.accuracy == pytest.approx(accuracy_score(label, guess))
    assert found.threshold == 0.4


def test_nothing_taken_and_nothing_true_score_zero():
    assert classify([0.0, 1.0], [True, False], float("inf")).f1 == 0.0
    assert classify([0.0, 1.0], [False, False], 0.5).recall == 0.0


def test_isa_score_tells_true_pairs_from_wrong_ones_in_every_chart():
    h = trees.random_recursive(200, 7)
    ball, lorentz = PoincareBall(), Lorentz()
    points = sarkar(h, 5, lengths="size")
    closure = h.closure()
    wrong = h.sample_negatives(closure, k=1, seed=0).reshape(-1, 2)
    pairs = np.concatenate([closure, wrong])
    label = np.arange(len(pairs)) < len(closure)
    score = isa_score(points, ball, pairs)
    assert classify(score, label, best_threshold(score, label)).f1 > 0.85
    sheet = poincare_to_lorentz(points, 1.0)
    torch.testing.assert_close(isa_score(sheet, lorentz, pairs), score, rtol=1e-3, atol=1e-3)
    flat = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    assert isa_score(flat, Euclidean(), np.array([[0, 1], [1, 0]]), alpha=1.0).tolist() == [2.0, -6.0]


def test_bad_input_is_one_sentence():
    points = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ParameterError, match="k must"):
        link_prediction(points, PoincareBall(), np.array([[0, 1]]), k=0)
    with pytest.raises(ParameterError, match="excluded"):
        link_prediction(points, PoincareBall(), np.array([[0, 1]]), np.array([[0, 7]]))
    with pytest.raises(ParameterError, match="one length"):
        classify([0.1, 0.2], [True], 0.0)
    with pytest.raises(ParameterError, match="1 are not"):
        best_threshold([0.1, float("nan")], [True, False])
    with pytest.raises(ParameterError, match="at least one true"):
        best_threshold([0.1, 0.2], [False, False])
    with pytest.raises(ParameterError, match="metric"):
        best_threshold([0.1], [True], "auc")
