"""Ranks against sorting, measures against scikit-learn, intervals against SciPy and against their promise."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from workbench.data.interactions import Held, synthetic
from workbench.errors import DataError, ParameterError
from workbench.evaluation import recommendation
from workbench.evaluation.recommendation import (
    both_ranks,
    by_length,
    by_popularity,
    paired_bootstrap,
    per_user,
    popularity_ranks,
    report,
    target_ranks,
)

few = settings(max_examples=40, deadline=None)


def held_of(*rows):
    """Held from (history, target) pairs."""
    histories = [np.array(h, dtype=np.int64) for h, _ in rows]
    return Held(np.arange(len(rows)), histories, np.array([t for _, t in rows], dtype=np.int64))


def last_item(table):
    """A score function that looks the scores up by the last item of the history; table (items, items)."""
    table = torch.as_tensor(table)

    def scores(items, mask):
        return table[items[torch.arange(len(items)), mask.sum(1) - 1]]

    return scores


def rank_by_hand(scores, target, gone):
    rivals = [scores[i] for i in range(len(scores)) if i != target and i not in gone]
    return 1 + sum(s > scores[target] for s in rivals) + sum(s == scores[target] for s in rivals) / 2


# -- ranks -----------------------------------------------------------------------------------------

V = 7
questions = st.lists(
    st.tuples(st.lists(st.integers(0, V - 1), min_size=1, max_size=9), st.integers(0, V - 1)),
    min_size=1,
    max_size=12,
)


@few
@given(questions, st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_ranks_are_those_of_a_sorted_list_with_half_of_the_ties(rows, seed, batch, max_len, infinite):
    table = np.random.default_rng(seed).integers(0, 4, (V, V)).astype(np.float64)  # many ties
    if infinite:
        table[table == 0] = -np.inf
    held = held_of(*rows)
    both = both_ranks(last_item(table), held, V, batch=batch, max_len=max_len)
    for (history, target), masked, unmasked in zip(rows, *both, strict=True):
        scores = table[history[-1]]
        assert masked == rank_by_hand(scores, target, set(history))
        assert unmasked == rank_by_hand(scores, target, set())
    for seen, expected in ((True, both.masked), (False, both.unmasked)):
        ranks = target_ranks(last_item(table), held, V, seen=seen, max_len=max_len)
        assert ranks.dtype == np.float64 and (ranks == expected).all()


def test_the_model_is_shown_the_newest_items_padded_on_the_right_where_the_mask_is_false():
    shown = {}

    def scores(items, mask):
        for row, real in zip(items, mask, strict=True):
            n = int(real.sum())
            assert real[:n].all() and (row[n:] == 0).all() and items.dtype == torch.int64
            shown[tuple(row[:n].tolist())] = items.shape
        return torch.zeros(len(items), 9)

    target_ranks(scores, held_of(([1, 2, 3, 4], 5), ([6], 5), ([7, 8], 5)), 9, max_len=3, batch=2)
    assert shown == {(6,): (2, 2), (7, 8): (2, 2), (2, 3, 4): (1, 3)}


def test_a_model_that_scores_all_alike_hits_nothing_and_has_the_mean_rank():
    held = synthetic(n_users=30).test
    ranks = target_ranks(lambda items, _: torch.zeros(len(items), 486), held, 486, seen=False)
    assert (ranks == (486 + 1) / 2).all() and report(ranks).hr[40] == 0


def test_memory_bounds_the_batch(monkeypatch):
    monkeypatch.setattr(recommendation, "BLOCK", 3 * 486)
    sizes = []

    def scores(items, mask):
        sizes.append(len(items))
        return torch.zeros(len(items), 486)

    target_ranks(scores, synthetic(n_users=20).test, 486)
    assert max(sizes) == 3 and sum(sizes) == 20


def zeros(items, mask):
    return torch.zeros(len(items), 4)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (held_of(), "no target to rank: no user has enough"),
        (held_of(([0], 1), ([], 2)), "row 1 has no history"),
        (held_of(([0], 1), ([0, 4], 1)), "row 1 .* the history holds item 4, outside .* 0 to 3"),
        (held_of(([0], 1), ([0], -1)), "row 1 .* the target holds item -1"),
        (Held(np.arange(2), [np.array([1])], np.array([1])), "came as 2, 1 and 1"),
    ],
)
def test_targets_that_cannot_be_ranked_are_refused_and_the_row_named(held, message):
    with pytest.raises(DataError, match=message):
        target_ranks(zeros, held, 4)


def test_bad_scores_and_bounds_are_refused():
    held = held_of(([0], 1), ([1], 2))
    broken = torch.zeros(2, 4)
    broken[1, 3] = torch.nan
    with pytest.raises(ParameterError, match="NaN to 1 of 2"):
        target_ranks(lambda *_: broken, held, 4)
    with pytest.raises(ParameterError, match=r"one score an item, \(2, 5\), but gave \(2, 4\)"):
        target_ranks(zeros, held, 5)
    for options in ({"max_len": 0}, {"batch": 0}):
        with pytest.raises(ParameterError, match="must be at least 1"):
            target_ranks(zeros, held, 4, **options)


def test_popularity_ranks_by_training_counts():
    data = synthetic(n_users=60)
    for seen in (True, False):
        ranks = popularity_ranks(data, seen=seen)
        for history, target, rank in zip(data.test.histories, data.test.targets, ranks, strict=True):
            assert rank == rank_by_hand(data.counts, target, set(history.tolist()) if seen else set())
    assert len(popularity_ranks(data, data.valid)) == len(data.valid.targets)


# -- measures --------------------------------------------------------------------------------------


def test_measures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    n, items = 200, 60
    scores, targets = rng.normal(size=(n, items)), rng.integers(items, size=n)
    wanted = np.eye(items)[targets]
    held = Held(np.arange(n), [np.array([0])] * n, targets)
    ranks = target_ranks(lambda *_: torch.as_tensor(scores), held, items, seen=False, batch=n)
    found = report(ranks)
    for k in (5, 10, 20, 40):
        assert found.hr[k] == pytest.approx(
            top_k_accuracy_score(targets, scores, k=k, labels=np.arange(items))
        )
        assert found.ndcg[k] == pytest.approx(ndcg_score(wanted, scores, k=k))
        # scikit-learn's reciprocal rank has no cut-off: take out the targets behind it.
        shown = np.array(
            [
                label_ranking_average_precision_score(*pair)
                for pair in zip(wanted[:, None], scores[:, None], strict=True)
            ]
        )
        assert found.mrr[k] == pytest.approx(np.where(shown >= 1 / k, shown, 0).mean())
    assert found.n == n and len(found.flat()) == 12 and found.flat()["ndcg@10"] == found.ndcg[10]


def test_measures_by_hand_with_a_tie():
    found = report(np.array([1, 2.5, 5.5, 11]), ks=(1, 5, 10))
    assert found.hr == {1: 0.25, 5: 0.5, 10: 0.75}
    assert found.mrr[5] == pytest.approx((1 + 1 / 2.5) / 4)
    assert found.ndcg[10] == pytest.approx((1 + 1 / np.log2(3.5) + 1 / np.log2(6.5)) / 4)


@few
@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 50))
def test_measures_are_ordered_and_grow_with_k(ranks, k):
    hr, ndcg, mrr = (per_user(ranks, m, k) for m in ("hr", "ndcg", "mrr"))
    assert (hr >= ndcg).all() and (ndcg >= mrr).all() and (mrr >= 0).all()
    assert (per_user(ranks, "ndcg", k + 5) >= ndcg).all()


def test_several_targets_of_a_user_become_their_mean():
    values = per_user(np.array([1, 1, 50, 50.0]), "hr", 10, users=np.array([7, 3, 7, 7]))
    assert values.tolist() == [1, pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], "map", 5), "metric must be one of hr, ndcg, mrr"),
        (([1.0], "hr", 0), "k must be at least 1"),
        (([], "hr", 5), "at least one"),
        (([0.5], "hr", 5), "from 0.5"),
        (([np.nan], "hr", 5), "numbers from 1"),
        (([1.0, 2.0], "hr", 5, [1]), "1 users for 2 ranks"),
    ],
)
def test_bad_ranks_are_refused(arguments, message):
    with pytest.raises(ParameterError, match=message):
        per_user(*arguments)


# -- intervals -------------------------------------------------------------------------------------


def test_the_interval_agrees_with_scipys_bootstrap_and_the_p_with_the_t_test():
    rng = np.random.default_rng(1)
    b = rng.random(400)
    a = b + rng.normal(0.01, 0.1, 400)
    ours = paired_bootstrap(a, b, n=8000)
    theirs = stats.bootstrap(
        (a - b,), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.gain == pytest.approx((a - b).mean()) and ours.base == pytest.approx(b.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=8e-4)
    assert ours.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)
    assert ours.relative == ours.gain / ours.base


def test_the_interval_covers_the_truth_and_p_is_small_as_often_as_it_says():
    rng = np.random.default_rng(3)
    trials = [paired_bootstrap(rng.normal(0.5, 1, 80), 0.5, n=400, seed=i) for i in range(300)]
    covered = np.mean([t.low <= 0 <= t.high for t in trials])
    assert 0.90 < covered < 0.98  # 95 % ± 3 standard errors, and a percentile interval is a little short
    assert np.mean([t.p < 0.1 for t in trials]) == pytest.approx(0.1, abs=0.06)


def test_equal_models_have_no_gain_and_no_significance():
    a = np.random.default_rng(4).random(50)
    assert paired_bootstrap(a, a) == recommendation.Interval(0.0, 0.0, 0.0, 1.0, float(a.mean()))


@few
@given(st.integers(0, 10**6))
def test_p_is_below_five_percent_where_the_interval_leaves_out_zero(seed):
    rng = np.random.default_rng(seed)
    found = paired_bootstrap(rng.normal(rng.normal(0, 0.4), 1, 30), n=999, seed=seed)
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05) or found.p == pytest.approx(0.05, abs=0.005)
    assert found.low <= found.gain <= found.high


def test_draws_depend_on_the_seed_and_not_on_how_they_are_parted(monkeypatch):
    a = np.random.default_rng(5).random((1, 40))
    assert paired_bootstrap(a) == paired_bootstrap(a)
    assert paired_bootstrap(a) != paired_bootstrap(a, seed=1)
    whole = paired_bootstrap(a)
    monkeypatch.setattr(recommendation, "_parts", lambda n, users: iter([n // 2, n - n // 2]))
    assert paired_bootstrap(a) == whole


def test_runs_with_other_luck_widen_the_interval_as_their_variance_says():
    rng = np.random.default_rng(6)
    users = rng.normal(size=200)
    a = users + rng.normal(0, 0.5, (8, 1))
    b = np.tile(users, (8, 1))
    found = paired_bootstrap(a, b, n=4000)
    spread = a.mean(1).std() / 8**0.5  # the users cancel, the luck of the runs stays
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    alone = paired_bootstrap(a[0], b[0])
    assert alone.high - alone.low < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0, 2.0]), "the same users"),
        (([], []), "the same users"),
        (([np.nan], [1.0]), "finite"),
        (([1.0], [1.0], 0), "n must be at least 1"),
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ParameterError, match=message):
        paired_bootstrap(*arguments)


# -- slices ----------------------------------------------------------------------------------------


@few
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_slices_part_the_targets_in_order_and_their_reports_add_up(seed, parts):
    data = synthetic(n_users=50, seed=seed)
    ranks = popularity_ranks(data)
    whole = report(ranks)
    for slices, values in (
        (by_popularity(ranks, data.test, data.counts, parts), data.counts[data.test.targets]),
        (by_length(ranks, data.test, parts), [len(h) for h in data.test.histories]),
    ):
        assert len(slices) <= parts
        assert all(a.high < b.low for a, b in pairwise(slices))
        assert [s.report.n for s in slices] == [
            sum(s.low <= v <= s.high for v in np.asarray(values)) for s in slices
        ]
        assert sum(s.report.n for s in slices) == whole.n
        assert sum(s.report.ndcg[10] * s.report.n for s in slices) / whole.n == pytest.approx(whole.ndcg[10])


def test_slices_of_other_ranks_are_refused():
    data = synthetic(n_users=20)
    with pytest.raises(ParameterError, match="20 for 1"):
        by_length(np.ones(1), data.test)
