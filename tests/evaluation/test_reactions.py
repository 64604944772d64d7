"""How recommenders react to changed histories, against the slow way."""

import numpy as np
import pytest

from workbench.data.interactions import synthetic
from workbench.errors import ParameterError
from workbench.evaluation.reactions import (
    CHANGES,
    changed,
    first,
    foreign,
    kept,
    moves,
    places,
    share_of_kind,
    shared,
    standings,
)
from workbench.models.baselines import Popularity
from workbench.models.recommender import Recommender, named

DATA = synthetic(n_users=30, n_items=81, length=8)


@pytest.fixture(scope="module")
def model():
    return Recommender(named("hmamba_full", width=8, state=4, max_len=12), DATA.n_items).bind(DATA)


def test_the_first_are_what_recommend_gives_history_by_history(model):
    ranks, scores = standings(model, DATA.test.histories, batch=7)
    for row, score, history in zip(ranks, scores, DATA.test.histories, strict=True):
        best = first(row, 10)
        told = model.recommend(history.tolist(), 10)
        assert [DATA.titles[i] for i in best] == [title for title, _ in told]
        assert np.allclose(score[best], [s for _, s in told], atol=1e-5)
        assert set(np.flatnonzero(row == 0)) == set(history.tolist())
        assert sorted(row[row > 0]) == list(range(1, (row > 0).sum() + 1))


def test_moves_say_where_each_stood_before_and_what_fell_out():
    before, after = np.array([1, 2, 3, 4, 0]), np.array([3, 0, 1, 2, 4])
    listed, fell = moves(before, after, k=2)
    assert [(m.item, m.rank, m.before, m.up) for m in listed] == [(2, 1, 3, 2), (3, 2, 4, 2)]
    assert [(m.item, m.rank, m.before) for m in fell] == [(0, 3, 1)]
    assert moves(after, before, k=2)[1] == [(2, 3, 1), (3, 4, 2)]
    assert [m.up for m in moves(None, after, 3)[0]] == [0, 0, 0] and moves(None, after, 3)[1] == []
    assert moves(before, after, 4)[0][-1].up == 0  # it was in the history


def test_an_item_that_enters_the_history_is_not_counted_as_fallen_out():
    assert moves(np.array([1, 2, 3]), np.array([0, 1, 2]), 2)[1] == []


def test_shared_counts_items_in_both_lists():
    a, b = np.array([[1, 2, 3, 4]]), np.array([[4, 1, 2, 0]])
    assert shared(a, b, 2) == [0.5] and shared(a, b, 3) == [pytest.approx(2 / 3)] and shared(a, a, 4) == [1.0]


def test_popularity_never_reacts_beyond_what_is_left_out():
    model = Popularity(DATA.counts).bind(DATA)
    histories = [h for h in DATA.test.histories]
    a, _ = standings(model, histories)
    b, _ = standings(model, changed(histories, "all shuffled"))
    assert (a == b).all()


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_keeps_only_items_of_the_history_and_is_the_same_every_time(how):
    histories = DATA.test.histories
    once, again, other = (changed(histories, how, seed) for seed in (0, 0, 1))
    for h, a, b in zip(histories, once, again, strict=True):
        assert set(a.tolist()) <= set(h.tolist()) and (a == b).all() and len(a)
    assert ("shuffled" in how) == any(
        len(a) != len(c) or (a != c).any() for a, c in zip(once, other, strict=True)
    )


def test_what_cannot_be_asked_is_refused(model):
    with pytest.raises(ParameterError, match="at least one item"):
        standings(model, [np.array([], int)])
    with pytest.raises(ParameterError, match="no change"):
        changed(DATA.test.histories, "all shufled")
    with pytest.raises(ParameterError, match="two items"):
        changed([np.array([1])], "all shuffled")


def test_what_is_kept_is_counted_list_by_list(model):
    histories = DATA.test.histories[:8]
    share = kept(model, histories, "the newest item left out", k=6)
    for history, value in zip(histories, share, strict=True):
        a, b = ({t for t, _ in model.recommend(h.tolist(), 6)} for h in (history, history[:-1]))
        assert value == pytest.approx(len(a & b) / 6)


def test_foreign_items_are_the_most_popular_of_the_kind_a_history_lacks():
    kinds, counts = np.array(list("aabbbc")), np.array([9, 8, 1, 5, 3, 7])
    kind, items = foreign(np.array([0, 1, 4]), kinds, ["a", "b"], counts, n=3)
    assert kind == "b" and items.tolist() == [3, 2]


def test_shares_of_kinds_and_groups_add_up():
    ranks, kinds = np.array([[1, 2, 3, 0], [0, 3, 1, 2]]), np.array(list("abab"))
    assert share_of_kind(ranks, kinds, ["a", "b"], 2).tolist() == [0.5, 0.5]
    assert share_of_kind(ranks, kinds, ["a", "a"], 3).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert places(ranks, np.array([0, 1, 1, 2]), 2).tolist() == [0.25, 0.5, 0.25]
