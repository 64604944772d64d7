"""Paired comparisons: against scipy's own test, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from workbench.errors import ParameterError
from workbench.training.paired import paired_gain

numbers = st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=2, max_size=8)


def rows(space, values, **more):
    return [dict(space=space, seed=k, f1=v, **more) for k, v in enumerate(values)]


@given(numbers, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_difference_error_and_verdict_are_those_of_scipys_paired_test(flat, seed):
    curved = np.array(flat) + np.random.default_rng(seed).normal(0.05, 0.05, len(flat))
    shuffled = rows("euclidean", flat) + rows("poincare", curved)[::-1]
    found, theirs = paired_gain(shuffled, "f1"), ttest_rel(curved, flat)
    assert found.gain == pytest.approx(np.mean(curved) - np.mean(flat))
    assert found.error == pytest.approx(abs(found.gain / theirs.statistic))
    assert (found.verdict != "within noise") == (theirs.pvalue < 0.05)
    assert found.before.mean == pytest.approx(np.mean(flat)) and found.after.n == len(flat)


def test_what_a_split_adds_to_both_sides_falls_out_of_the_error():
    shift = np.array([0.0, 0.3, -0.2])
    same = rows("euclidean", 0.5 + shift) + rows("poincare", 0.6 + shift)
    found = paired_gain(same, "f1")
    assert found.gain == pytest.approx(0.1) and found.error < 1e-12 and found.verdict == "more"


def test_other_entries_choose_rows_and_another_key_tells_the_sides_apart():
    mixed = (
        rows("bag", [0.1, 0.2], dim=2) + rows("mamba2", [0.3, 0.4], dim=2) + rows("bag", [0.9, 0.9], dim=5)
    )
    renamed = [{**r, "encoder": r["space"]} for r in mixed]
    assert paired_gain(renamed, "f1", "bag", "mamba2", by="encoder", dim=2).gain == pytest.approx(0.2)
    assert paired_gain(mixed[:1] + mixed[2:3], "f1", "bag", "mamba2").verdict == "one seed"


@pytest.mark.parametrize(
    "bad", [rows("euclidean", [0.1]), rows("euclidean", [0.1, 0.2]) + rows("poincare", [0.1])]
)
def test_sides_without_the_same_seeds_are_refused(bad):
    with pytest.raises(ParameterError, match="same seeds"):
        paired_gain(bad, "f1")


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(ParameterError, match="one run a seed"):
        paired_gain(2 * rows("euclidean", [0.1]) + rows("poincare", [0.1]), "f1")
