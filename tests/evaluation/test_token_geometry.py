"""Effective rank, nulls, partial correlations and last states, each against something computed another way."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from workbench.data import text
from workbench.errors import ParameterError
from workbench.evaluation.hyperbolicity import NULLS
from workbench.evaluation.token_geometry import (
    by_token,
    effective_rank,
    input_table,
    last_states,
    null_table,
    partial_spearman,
    word_depths,
)
from workbench.training.lm_runs import make_arm


def test_effective_rank_counts_equal_axes_and_a_line():
    eye = torch.eye(12, dtype=torch.float64)[:, :5]
    assert effective_rank(eye, centre=False) == pytest.approx(5)
    line = torch.outer(torch.arange(9.0).double(), torch.tensor([1.0, -2, 0.5, 3]).double())
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(torch.ones(4, 3)) == 0


def test_effective_rank_of_two_known_axes_by_either_spectrum():
    x = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # singular values 3√2 and √2
    for of, p in (("singular values", [0.75, 0.25]), ("variances", [0.9, 0.1])):
        assert effective_rank(x, of=of) == pytest.approx(math.exp(stats.entropy(p)))
    assert effective_rank(x + 7) == pytest.approx(effective_rank(x))
    assert effective_rank(10 * x) == pytest.approx(effective_rank(x))


@pytest.mark.parametrize("null", NULLS)
def test_nulls_keep_what_they_say(null):
    table = torch.randn(800, 4, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(1.0, 5))
    drawn = null_table(table, null, seed=1)
    assert drawn.shape == table.shape and torch.equal(drawn, null_table(table, null, seed=1))
    if null == "norms":
        torch.testing.assert_close(drawn.norm(dim=1), table.double().norm(dim=1))
    if null == "shuffled":
        assert all(torch.isin(drawn[:, j], table[:, j].double()).all() for j in range(4))
    if null == "covariance":
        torch.testing.assert_close(torch.cov(drawn.T), torch.cov(table.T).double(), atol=1.5, rtol=0.2)


def test_partial_correlation_is_the_textbooks_formula_on_ranks():
    rng = np.random.default_rng(0)
    z = rng.normal(size=300)
    x, y = z + rng.normal(size=300), z + rng.normal(size=300)
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    found = partial_spearman(x, y, z, draws=200)
    assert found.raw == pytest.approx(xy) and found.n == 300
    assert found.rho == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))


def test_a_confounder_explains_a_correlation_away_and_a_direct_one_stays():
    rng = np.random.default_rng(3)
    z = rng.normal(size=500)
    x = np.exp(z + 0.5 * rng.normal(size=500))
    only = partial_spearman(x, z + rng.normal(size=500), z, draws=300)
    assert only.raw > 0.4 and only.low < 0 < only.high and only.p > 0.05
    direct = partial_spearman(x, x * np.exp(rng.normal(size=500)), z, draws=300)
    assert direct.low > 0.2 and direct.p < 0.01


def test_a_confounder_that_rises_and_falls_needs_a_higher_degree():
    z = np.linspace(-1, 1, 400)
    rng = np.random.default_rng(2)
    x, y = (z**2 + 0.1 * rng.normal(size=400) for _ in range(2))
    first, fourth = (partial_spearman(x, y, z, degree=d, draws=50).rho for d in (1, 4))
    assert first > 0.7 and abs(fourth) < 0.3


def test_nothing_left_is_nan():
    z = np.arange(30.0)
    assert math.isnan(partial_spearman(z, -z, z, draws=5).rho)


def test_depths_are_those_of_wordnet():
    found = word_depths(["entity", "dog", "animal", "zzz"])
    assert found["entity"] == 0 and found["animal"] < found["dog"] and "zzz" not in found


def test_means_by_token():
    found = by_token(np.array([1.0, 3, 5]), np.array([0, 0, 2]), 4)
    np.testing.assert_array_equal(found, [2, math.nan, 5, math.nan])


@pytest.mark.parametrize("arm", ["helm_d", "llama"])
def test_last_states_are_what_the_logits_read_and_leave_out_padding(arm):
    model = make_arm(arm, "tiny").eval()
    rows = text.rows(["a bc" * 5, "de", "fgh" * 7], lambda all_: [[1 + ord(c) for c in t] for t in all_], 16)
    found = last_states(model, rows, batch=2)
    ids, documents = (torch.from_numpy(part[:, :-1]).long() for part in (rows.ids, rows.documents))
    real = documents >= 0
    assert (~real).any()
    torch.testing.assert_close(found.after, model.states(ids, documents=documents)[real].detach())
    torch.testing.assert_close(found.after, model.norm(found.before).detach())
    assert (found.ids == ids[real].numpy()).all()
    table = input_table(model)
    assert len(table) == model.config.vocab_size
    if arm == "helm_d":  # all tokens start at radius 1
        torch.testing.assert_close(table.norm(dim=1), torch.full((len(table),), math.sinh(1.0)))


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: effective_rank(torch.ones(3)), "matrix"),
        (lambda: effective_rank(torch.full((3, 3), math.nan)), "finite"),
        (lambda: effective_rank(torch.ones(3, 3), of="variance"), "did you mean 'variances'"),
        (lambda: null_table(torch.ones(3, 3), "shufled"), "did you mean 'shuffled'"),
        (lambda: partial_spearman(np.ones(9), np.ones(8), np.ones(9)), "equally long"),
        (lambda: partial_spearman(np.ones(4), np.ones(4), np.ones(4)), "5 or more"),
        (lambda: partial_spearman(np.full(9, np.nan), np.ones(9), np.ones(9)), "finite"),
    ],
)
def test_bad_input_is_said(call, told):
    with pytest.raises(ParameterError, match=told):
        call()
