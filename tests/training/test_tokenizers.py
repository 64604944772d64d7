"""Comparing tokenisers: runs say the same each time, see no test pair while they learn, and verdicts know noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.data import interactions, wordnet
from workbench.data.items import item_features
from workbench.errors import ParameterError
from workbench.models.hrq import HRQConfig
from workbench.training import tokenizers
from workbench.training.tokenizers import (
    embedding_run,
    gain,
    joint_run,
    mean_of,
    next_item_run,
    stress_run,
)

H = wordnet.subtree("feline.n.01")
SHORT = dict(epochs=2, batch=64, levels=2, codebook_size=8)


def rows(flat, curved):
    return [
        {"space": s, "recall": v} for s, values in (("euclidean", flat), ("poincare", curved)) for v in values
    ]


def test_a_gain_and_its_error_are_those_of_two_means():
    flat, curved = [0.80, 0.82, 0.84], [0.90, 0.91, 0.95]
    g = gain(rows(flat, curved), "recall")
    assert g.gain == pytest.approx(np.mean(curved) - np.mean(flat))
    assert g.error == pytest.approx(np.hypot(stats.sem(flat), stats.sem(curved)))
    assert g.before.error == pytest.approx(stats.sem(flat)) and g.after.n == 3


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03, 0.05, 0.2, -0.2])
def test_the_verdict_is_students(shift):
    flat = np.array([0.80, 0.82, 0.84])
    curved = np.array([0.80, 0.825, 0.83]) + shift
    p = stats.ttest_ind(flat, curved).pvalue
    found = gain(rows(flat, curved), "recall").verdict
    assert found == ("within noise" if p > 0.05 else "more" if curved.mean() > flat.mean() else "less")


def test_one_seed_is_no_verdict_and_no_run_an_error():
    assert gain(rows([0.1], [0.9]), "recall").verdict == "one seed"
    with pytest.raises(ParameterError, match="no run"):
        mean_of(rows([0.1], [0.9]), "recall", space="lorentz")


@pytest.mark.parametrize("space", ["euclidean", "poincare", "lorentz"])
def test_a_run_of_a_tree_says_the_same_twice_and_takes_any_space(space):
    points = embedding_run(H, space, 1.0, 2, steps=10)["points"]
    first, again = (stress_run(H, points, space, **SHORT, seed=3) for _ in range(2))
    assert first == again and first["dim"] == 2 and 0 <= first["recall"] <= 1


def test_validation_pairs_are_no_test_pairs():
    test = {tuple(p) for p in tokenizers._split(H, False).test.tolist()}
    inner = tokenizers._split(H, True)
    train, valid = ({tuple(p) for p in part.tolist()} for part in inner)
    assert not (train & valid or train & test or valid & test)
    assert len(train | valid | test) == len(H.closure())


def test_joint_training_sees_no_held_out_pair(monkeypatch):
    seen = {}
    real = tokenizers.fit_joint

    def spy(hierarchy, config, **given):
        seen["pairs"] = given["closure"]
        return real(hierarchy, config, **given)

    monkeypatch.setattr(tokenizers, "fit_joint", spy)
    config = HRQConfig(dim=2, levels=2, codebook_size=8)
    row = joint_run(H, config, joint={"epochs": 1}, epochs=1)
    assert 0 <= row["recall"] <= 1
    told, test = seen["pairs"].tolist(), tokenizers._split(H, False).test[:, ::-1].tolist()
    assert not {tuple(p) for p in told} & {tuple(p) for p in test}


def test_next_items_are_written_for_as_many_users_as_asked():
    data = interactions.synthetic(n_users=40, n_items=90, branching=3, depth=2)
    x = item_features(data, dim=8, source="both")
    config = HRQConfig(dim=2, levels=2, codebook_size=8, hidden=(16,), radius=1.0)
    row = next_item_run(data, x, config, vae={"steps": 20}, history=2, users=20, epochs=1)
    assert 0 <= row["ndcg"] <= row["recall"] <= 1 and 0 < row["nmse"] < 2
    assert (row["recall"] * 20) % 1 == pytest.approx(0, abs=1e-9)
