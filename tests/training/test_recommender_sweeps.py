import json

import numpy as np
import pytest
import torch

from workbench.data.interactions import synthetic
from workbench.errors import ParameterError
from workbench.evaluation.recommendation import both_ranks
from workbench.models.recommender import Recommender, named
from workbench.training.recommender import RecommenderSettings, RecommenderTrainer
from workbench.training.recommender_runs import recommender_run
from workbench.training.recommender_sweeps import (
    histories,
    memory,
    ordered,
    seen,
    swept_run,
    tree_run,
    tree_scores,
    user_radius,
)

MADE = {"n_users": 60, "n_items": 81, "depth": 3, "length": 10, "strength": 0.9}
SMALL = {"width": 8, "state": 4, "max_len": 20, "batch": 16, "lr": 1e-2, "epochs": 2}


@pytest.fixture(scope="module")
def data():
    return synthetic(**MADE)


@pytest.fixture(scope="module")
def model(data):
    return Recommender(named("hmamba_full", width=8, state=4, kappa=4.0, max_len=20), data.n_items).eval()


def test_a_run_is_that_of_recommender_runs_to_rounding():
    row, other = swept_run(**MADE, **SMALL), recommender_run(**MADE, **SMALL)
    assert row["masked"] == pytest.approx(other["masked"], abs=1e-3)
    assert row["loss"] == pytest.approx(other["loss"], abs=1e-4)
    assert row["radius"] == pytest.approx(other["radius"], abs=1e-4)


def test_a_row_is_plain_and_repeats_whether_it_is_watched_or_not():
    row, other = swept_run(**MADE, **SMALL, watched=True, cuts=[1, 20]), swept_run(**MADE, **SMALL)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (
        row["seconds"] > 0
        and row["ndcg"] == other["ndcg"] == pytest.approx(np.mean(row["per_user"])) == row["reach"][1]
    )
    assert len(row["history"]) == 2 and row["history"][0]["gradient"] > 0 and other["reach"] == []
    assert swept_run(model="gru4rec", **MADE, width=8, epochs=1)["memory"] is None


def test_an_unknown_value_is_named():
    with pytest.raises(ParameterError, match=r"strenght.*strength"):
        swept_run(strenght=1.0)
    with pytest.raises(ParameterError, match="walk, taste"):
        ordered(synthetic(**MADE), "random")


def test_taste_keeps_who_took_what_and_changes_the_order(data):
    dealt = ordered(data, "taste", seed=1)
    assert all(sorted(a) == sorted(b) for a, b in zip(data.sequences, dealt.sequences, strict=True))
    assert (data.events != dealt.events).mean() > 0.5 and ordered(data) is data
    assert dealt.fingerprint() == ordered(data, "taste", seed=1).fingerprint()


def test_the_rule_gives_the_probabilities_of_a_step_of_the_generator(data):
    scores = tree_scores(data, 0.9)
    history, sizes = data.test.histories[0], [len(data.test.histories[0])]
    got = scores(torch.tensor(history)[None], torch.ones(1, sizes[0], dtype=torch.bool))[0].double()
    weight = 1.0 + data.counts
    weight[history] = 0
    expected, climbs = np.zeros(data.n_items), [0.45, 0.225, 0.1125, 0.2125]
    for up, share in enumerate(climbs):  # all but the last step leave a part of the path in common
        top = data.paths[history[-1]][: 3 - up]
        below = np.array([p[: 3 - up] == top for p in data.paths]) * weight
        expected += share * below / max(below.sum(), 1e-9)
    assert got.numpy() == pytest.approx(expected, abs=1e-6)
    assert (got[torch.tensor(history)] == 0).all()


def test_the_rule_gains_with_strength_and_ignores_padding():
    by_strength = [tree_run(strength=s, n_users=300, n_items=162)["ndcg"] for s in (0.0, 0.5, 1.0)]
    assert by_strength == sorted(by_strength) and by_strength[2] > 3 * by_strength[0]
    data = synthetic(n_users=30, n_items=81)
    alone = both_ranks(tree_scores(data, 0.8), data.test, data.n_items, max_len=99, batch=1)
    assert np.allclose(
        alone.masked, both_ranks(tree_scores(data, 0.8), data.test, data.n_items, max_len=99).masked
    )
    with pytest.raises(ParameterError, match="path of categories"):
        tree_scores(ordered(data).from_events([1, 1, 1], [1, 2, 3]), 0.5)


def test_memory_is_when_a_state_has_faded_to_one_over_e(model, data):
    """Seen in the recurrence itself: Ā^memory = 1/e for the Δ of the block, here the same for all items."""
    block, batch = model.encoder.mixers[0], histories(data, model, 4)
    with torch.no_grad():
        block.dt_proj.weight.zero_()
        block.dt_proj.bias.fill_(-2.0)
    found = memory(model, *batch)
    step = float(torch.nn.functional.softplus(torch.tensor(-2.0)))
    expected = [1 / (step * n * (2.0 if n == 1 else 1.0)) for n in (1, 2, 3, 4)]  # √κ = 2 on the first state
    assert found == pytest.approx(expected, rel=1e-5)


def test_histories_end_with_the_last_items_and_users_have_their_radius(model, data):
    items, mask = histories(data, model, 5)
    for row, kept, history in zip(items, mask, data.valid.histories, strict=False):
        assert row[kept].tolist() == history[-20:].tolist()
    points = model.user_points(model.states(items, mask)[mask])
    expected = torch.acosh(points[:, 0]).mean()  # c = 1
    assert user_radius(model, items, mask) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_the_watched_gradient_is_that_of_the_mean_loss_and_leaves_no_trace(data):
    model = Recommender(named("hmamba_full", width=8, state=4, max_len=20, dropout=0.5), data.n_items)
    trainer = RecommenderTrainer(model, data, RecommenderSettings(), 0, torch.device("cpu"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    row = seen(trainer)
    assert row == seen(trainer) and model.training
    assert all(p.grad is None for p in model.parameters())
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
    items, mask = histories(data, model)
    model.eval()
    states, states_mask = model.states(items, mask)[:, :-1], mask[:, 1:]
    loss = torch.nn.functional.cross_entropy(model.scores(states[states_mask]), items[:, 1:][states_mask])
    loss.backward()
    size = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert row["gradient"] == pytest.approx(float(size), rel=1e-4)
