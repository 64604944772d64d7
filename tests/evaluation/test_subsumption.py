"""Subsumption scores and their calibration against brute force and plain formulas; rules without a model."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import manifolds
from workbench.data import tasks, trees, wordnet
from workbench.data.tasks import Questions
from workbench.errors import ManifoldError, ParameterError
from workbench.evaluation import subsumption
from workbench.evaluation.subsumption import (
    Calibration,
    baselines,
    calibrate,
    evaluate,
    judge,
    subsumption_score,
)

few = settings(max_examples=30, deadline=None)
SPACES = ("poincare", "lorentz", "euclidean")


def questions(n=40, size=25, k=4, seed=0):
    """Questions about n nodes, whatever they mean: descendants 0 … size − 1, all nodes offered different."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(np.arange(1, n))[: 1 + k] for _ in range(size)])
    child = np.zeros(size, dtype=np.int64)
    return Questions(np.column_stack([rows[:, 0], child]), rows[:, 1:], rng.random(size) < 0.4, "random")


def points(space, n=40, dim=3, c=1.0, seed=0):
    m = manifolds.make(space, c)
    return m, m.random(n, dim, std=1.0, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counted(label, said):
    """F1, precision and recall from the four counts, as the textbook has them."""
    label, said = ([bool(x) for x in v] for v in (label, said))
    both = sum(a and b for a, b in zip(label, said, strict=True))
    precision, recall = both / max(sum(said), 1), both / sum(label)
    return 2 * precision * recall / max(precision + recall, 1e-300), precision, recall


def best_f1(score, label):
    """The best F1 of "score ≤ t" over every t that makes a difference."""
    said = score <= score[:, None]
    return (2 * (said & label).sum(1) / (said.sum(1) + label.sum())).max()


# -- the score ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("space", ["poincare", "lorentz"])
def test_score_is_the_formula_in_unit_curvature(space, c):
    m, x = points(space, c=c)
    pairs = questions().labelled()[0]
    ball = x if space == "poincare" else manifolds.lorentz_to_poincare(x, c)
    b = ball.numpy().astype(np.longdouble) * np.sqrt(np.longdouble(c))  # in the unit ball
    gap = 1 - (b**2).sum(1)
    e, p = b[pairs[:, 1]], b[pairs[:, 0]]
    between = ((e - p) ** 2).sum(1) / (gap[pairs[:, 1]] * gap[pairs[:, 0]])
    d = 2 * np.arcsinh(np.sqrt(between))
    d0 = 2 * np.arctanh(np.sqrt((b**2).sum(1)))
    expected = d + 0.7 * (d0[pairs[:, 0]] - d0[pairs[:, 1]])
    found = subsumption_score(x, m, pairs, 0.7)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected.astype(float), rtol=1e-9, atol=1e-9)


def test_flat_score_is_measured_as_it_is():
    m, x = points("euclidean")
    pairs = questions().labelled()[0]
    v = x.numpy()
    e, p = v[pairs[:, 1]], v[pairs[:, 0]]
    expected = np.linalg.norm(e - p, axis=1) + 2 * (np.linalg.norm(p, axis=1) - np.linalg.norm(e, axis=1))
    np.testing.assert_allclose(subsumption_score(x, m, pairs, 2.0).numpy(), expected, rtol=1e-12)


def test_score_in_blocks_equals_the_score_at_once(monkeypatch):
    m, x = points("lorentz")
    pairs = questions().labelled()[0]
    whole = subsumption_score(x, m, pairs, 1.0)
    monkeypatch.setattr(subsumption, "BLOCK", 20)
    assert torch.equal(subsumption_score(x, m, pairs, 1.0), whole)


# -- calibration -------------------------------------------------------------------------------------------


@few
@given(st.sampled_from(SPACES), st.integers(0, 10_000))
def test_the_threshold_is_exactly_the_best_and_no_lambda_of_the_grid_beats_the_chosen(space, seed):
    m, x = points(space, seed=seed)
    q = questions(seed=seed)
    pairs, label, _ = q.labelled()
    grid = [0.0, 0.5, 1.0, 3.0]
    found = calibrate(x, m, q, grid)
    at = {lam: best_f1(subsumption_score(x, m, pairs, lam).numpy(), label) for lam in [*grid, found.lam]}
    assert found.f1 == pytest.approx(at[found.lam], abs=1e-12) and found.f1 >= max(at.values()) - 1e-12
    assert evaluate(x, m, found, q).f1 == pytest.approx(found.f1, abs=1e-12)


def test_refinement_finds_a_lambda_between_those_of_the_grid():
    m, x = points("euclidean", dim=2, seed=4)
    q = questions(size=39, seed=4)
    assert calibrate(x, m, q, [0.0, 2.5, 5.0]).f1 >= max(calibrate(x, m, q, [v]).f1 for v in (0.0, 2.5, 5.0))
    assert calibrate(x, m, q, [1.25]).lam == 1.25


def test_radii_tell_ancestors_from_descendants_at_the_same_distance():
    """On one ray, one step in is right and one step out is wrong: without λ they tie."""
    m = manifolds.make("poincare", 1.0)
    x = m.from_tangent(torch.tensor([[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]], dtype=torch.float64))
    q = Questions(np.array([[1, 0]]), np.array([[2]]), np.array([True]), "random")
    found = calibrate(x, m, q)
    assert found.lam > 0 and found.f1 == 1.0 and np.isfinite(found.threshold)
    assert evaluate(x, m, found, q).hits1 == 1.0


def test_a_collapsed_embedding_answers_yes_to_everything_at_a_finite_threshold():
    m, q = manifolds.make("poincare", 1.0), questions(k=4)
    x = torch.zeros(40, 2, dtype=torch.float64)
    found = calibrate(x, m, q)
    assert (found.lam, found.threshold) == (0.0, 0.0) and found.f1 == pytest.approx(1 / 3)
    verdict = evaluate(x, m, found, q)
    assert (verdict.recall, verdict.hits1) == (1.0, pytest.approx(0.2))


def test_charts_and_curvatures_calibrate_alike():
    m, x = points("poincare")
    q = questions()
    one = calibrate(x, m, q)
    for other, y in (
        (manifolds.make("lorentz", 1.0), manifolds.poincare_to_lorentz(x, 1.0)),
        (manifolds.make("poincare", 4.0), x / 2),
    ):
        two = calibrate(y, other, q)
        assert (two.lam, two.f1) == (one.lam, one.f1)
        assert two.threshold == pytest.approx(one.threshold, abs=1e-9)


# -- the verdict -------------------------------------------------------------------------------------------


@few
@given(st.integers(0, 10_000), st.booleans())
def test_verdict_equals_counting(seed, coarse):
    q = questions(seed=seed)
    _, label, direct = q.labelled()
    score = np.random.default_rng(seed).normal(size=len(label))
    score = np.round(score) if coarse else score
    v = judge(score, 0.1, q)
    said = score <= 0.1
    assert (v.f1, v.precision, v.recall) == pytest.approx(counted(label, said))
    assert v.accuracy == pytest.approx((label == said).mean())
    for part, f1 in ((direct, v.f1_direct), (~direct, v.f1_indirect)):
        if part.any():
            assert f1 == pytest.approx(counted(label[part], said[part])[0])
        else:
            assert np.isnan(f1)
    best = [row[0] == min(row) and 1 / row.count(row[0]) for row in score.reshape(len(q), -1).tolist()]
    assert v.hits1 == pytest.approx(np.mean(best))


def test_no_f1_where_no_question_is_of_that_kind():
    q = tasks.multi_hop(trees.balanced(3, 4)).test
    v = judge(np.zeros(len(q.labelled()[0])), np.inf, q)
    assert np.isnan(v.f1_direct) and v.f1 == v.f1_indirect == pytest.approx(1 / 6)
    assert v.hits1 == pytest.approx(1 / 11)


# -- rules without a model ---------------------------------------------------------------------------------


def test_the_training_closure_answers_every_multi_hop_question_and_few_mixed_ones():
    h = wordnet.mammals()
    multi, mixed = baselines(tasks.multi_hop(h)), baselines(tasks.mixed_hop(h))
    assert multi["closure"].f1 == 1.0
    assert mixed["closure"].precision == 1.0 and 0.5 < mixed["closure"].f1 < 0.85
    assert mixed["closure, then descendants"].f1 > mixed["closure"].f1


@pytest.mark.parametrize("kind", tasks.KINDS)
def test_rules_equal_networkx(kind):
    h = wordnet.subtree("carnivore.n.01")
    task = tasks.mixed_hop(h, negatives=kind, share=0.1, seed=2)
    g = nx.DiGraph(task.train.tolist())
    g.add_nodes_from(range(len(h)))
    up = nx.transitive_closure(g)
    rules = {
        "in-degree": lambda a, d: g.out_degree(a),
        "descendants": lambda a, d: len(nx.descendants(g, a)),
        "closure": lambda a, d: int(up.has_edge(a, d)),
        "closure, then descendants": lambda a, d: (int(up.has_edge(a, d)), len(nx.descendants(g, a))),
    }
    found = baselines(task)
    assert list(found) == list(rules)
    for name, rule in rules.items():
        (valid, valid_label), (test, test_label) = (
            ([rule(a, d) for a, d in pairs.tolist()], label)
            for pairs, label, _ in (q.labelled() for q in (task.valid, task.test))
        )
        # Of equally good thresholds the one that takes fewest, halfway down to the next score seen.
        rank = {s: i for i, s in enumerate(sorted(set(valid)))}
        f1 = [counted(valid_label, [s >= t for s in valid])[0] for t in rank]
        best = max(t for t, value in zip(rank, f1, strict=True) if value == max(f1))
        lower = max((s for s in rank if s < best), default=None)
        number = (lambda s: s[0] * len(h) + s[1]) if name.startswith("closure, ") else float
        least = -np.inf if lower is None else (number(best) + number(lower)) / 2
        said = np.array([number(s) >= least for s in test])
        assert found[name].f1 == pytest.approx(counted(test_label, said)[0]), name


def test_popularity_wins_on_random_negatives_and_loses_on_matched_ones():
    """Child-blind: on all WordNet nouns 0.87 and 0.87 with random and hard negatives, 0.24 with matched ones."""
    task = tasks.mixed_hop(wordnet.nouns(instances=False))
    f1 = {kind: baselines(task.offered(kind, 0))["descendants"].f1 for kind in tasks.KINDS}
    assert f1["random"] > 0.85 and f1["hard"] > 0.85 and f1["matched"] < 0.3


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_errors_never_scores(bad):
    m, x = points("euclidean")
    q = questions()
    broken = x.clone()
    broken[3, 1] = bad
    for call in (
        lambda: subsumption_score(broken, m, q.pairs, 1.0),
        lambda: calibrate(broken, m, q),
        lambda: evaluate(broken, m, Calibration(1.0, 0.0, 0.5), q),
    ):
        with pytest.raises(ParameterError, match=r"points must be finite, but 1 of 40 are not.*number 3"):
            call()
    score = np.zeros(len(q.labelled()[0]))
    score[5] = bad
    with pytest.raises(ParameterError, match="scores must be finite, but 1 of"):
        judge(score, 0.0, q)
    with pytest.raises(ParameterError, match="scores must be finite"):
        subsumption_score(
            torch.full((40, 2), 1e200, dtype=torch.float64) * torch.randn(40, 2), m, q.pairs, 1.0
        )


def test_bad_arguments_are_refused_with_a_sentence():
    m, x = points("poincare")
    q = questions()
    with pytest.raises(ManifoldError):
        subsumption_score(x + 5, m, q.pairs, 1.0)
    with pytest.raises(ManifoldError, match="points must be a table"):
        subsumption_score(x[:, 0], m, q.pairs, 1.0)
    with pytest.raises(ManifoldError, match="points must be a table"):
        subsumption_score(torch.tensor(1.0), m, q.pairs, 1.0)
    with pytest.raises(ParameterError, match="pairs must"):
        subsumption_score(x, m, q.pairs + 40, 1.0)
    with pytest.raises(ParameterError, match="lam must be a finite number"):
        subsumption_score(x, m, q.pairs, float("nan"))
    for lams in ([], [-1.0], [float("inf")], [float("nan")]):
        with pytest.raises(ParameterError, match="lams must be finite numbers"):
            calibrate(x, m, q, lams)
    with pytest.raises(ParameterError, match="scores must be one a possible answer"):
        judge(np.zeros(3), 0.0, q)
    with pytest.raises(ParameterError, match="threshold must be a number"):
        judge(np.zeros(len(q.labelled()[0])), float("nan"), q)
