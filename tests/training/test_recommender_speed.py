"""Steps of recommenders over lengths: parts that add up, ratios within a round, the claim against the numbers."""

from __future__ import annotations

import json
import math

import pytest
import torch

from workbench import plots
from workbench.errors import ParameterError
from workbench.models.recommender import Recommender, named
from workbench.scan import which
from workbench.training.recommender_speed import RecommenderSpeed, StepCost, _Step, recommender_speed

SMALL = {"n_items": 12, "width": 8, "state": 4, "rounds": 2}


def made(encode: dict[str, dict[int, tuple[float, ...]]], score: float = 0.0) -> RecommenderSpeed:
    """As if measured: 1000 tokens a step at every length."""
    costs = tuple(
        StepCost(name, L, 1000 // L, spent, (score,) * len(spent), scan="eager" if name == "a" else "")
        for name, of in encode.items()
        for L, spent in of.items()
    )
    return RecommenderSpeed(costs, {"a": 1, "b": 1}, "full softmax over 9 items", "cpu")


@pytest.fixture(scope="module")
def measured():
    return recommender_speed((4, 6, 12), ("hmamba_full", "gru4rec", "sasrec"), tokens=12, **SMALL)


def test_a_step_is_encoding_and_scoring_round_by_round():
    found = made({"a": {10: (1.0, 2.0, 6.0)}, "b": {10: (3.0, 3.0, 3.0)}}, score=2.0)
    assert found.cost("a", 10).of("step") == [3, 4, 8] and found.cost("a", 10).seconds() == 4
    assert found.tokens_per_second() == {"a": [250], "b": [200]}
    assert found.share("a") == {10: 0.5}


def test_an_epoch_costs_as_many_steps_as_its_targets_fill():
    found = made({"a": {10: (1.0,), 100: (2.0,)}, "b": {10: (3.0,), 100: (3.0,)}}, score=1.0)
    assert found.epoch(5000) == {"a": [10, 15], "b": [20, 20]}
    assert found.epoch(5000, "score") == {"a": [5, 5], "b": [5, 5]}


def test_ratios_are_taken_within_a_round_so_that_a_busy_round_moves_none():
    busy = (1.0, 50.0, 1.0, 3.0)
    found = made({"a": {10: busy}, "b": {10: tuple(4 * s for s in busy)}})
    assert found.ratio("a", "b") == {10: 4.0} and found.ratio("b", "a", "encode") == {10: 0.25}


def test_scoring_that_all_share_hides_a_faster_encoder_and_moves_the_crossover():
    slow = {"a": {10: (2.0,), 100: (2.0,)}, "b": {10: (1.0,), 100: (4.0,)}}
    assert made(slow).crossover("a", "b") == pytest.approx(math.sqrt(10 * 100))
    assert made(slow, score=100.0).ratio("a", "b")[100] == pytest.approx(104 / 102)
    assert made(slow).crossover("b", "a") is None


@pytest.mark.parametrize(
    ("slower", "said"),
    [(4.0, "the paper's 3.2 × is reached at L = 100"), (3.0, "reached at none of these lengths")],
)
def test_the_verdict_follows_the_numbers(slower, said):
    found = made({"a": {10: (2.0,), 100: (2.0,)}, "b": {10: (1.0,), 100: (2 * slower,)}})
    verdict = found.verdict("a", "b")
    assert said in verdict and f"0.50 × at L = 10, {slower:.2f} × at L = 100" in verdict
    assert "cpu, eager scan in a; full softmax over 9 items" in verdict


def test_a_verdict_says_where_an_encoder_never_wins():
    found = made({"a": {10: (2.0,)}, "b": {10: (1.0,)}})
    assert "encoder alone is the faster one at no length up to 10" in found.verdict("a", "b")
    assert "encoder alone is the faster one at every length from 10" in found.verdict("b", "a")


def test_all_models_see_the_same_number_of_whole_histories(measured):
    assert measured.lengths == [4, 6, 12] and measured.models == ["hmamba_full", "gru4rec", "sasrec"]
    assert {(c.length, c.sequences) for c in measured.costs} == {(4, 3), (6, 2), (12, 1)}
    assert all(len(c.encode) == len(c.score) == 2 and min(c.encode + c.score) > 0 for c in measured.costs)
    assert all(min(c.encode_bytes, c.step_bytes) > 0 for c in measured.costs)


def test_only_models_with_a_scan_name_one(measured):
    assert measured.scans["hmamba_full"] and measured.scans["gru4rec"] == measured.scans["sasrec"] == ""


def test_scans_are_told_from_short_histories_to_long_ones():
    found = (StepCost("a", L, 1, (1.0,), (1.0,), scan=scan) for L, scan in ((1, "x"), (2, "y"), (3, "y")))
    assert RecommenderSpeed(tuple(found), {"a": 1}, "", "cpu").scans == {"a": "x and y"}


def test_the_backend_asked_for_is_the_one_that_runs_in_every_round():
    found = recommender_speed((4,), ("mamba4rec",), backend="reference", memory=False, **SMALL)
    assert found.scans == {"mamba4rec": "reference"} and which("selective_scan").backend == "reference"


def test_encoding_and_scoring_together_reach_the_weights_that_a_whole_step_reaches():
    model = Recommender(named("hmamba_full", width=8, state=4), 12)
    names = [name for name, _ in model.named_parameters()]

    class Looking(_Step):
        def _back(self, loss, *more):
            found = torch.autograd.grad(loss, self.leaves, allow_unused=True)
            self.reached = {name for name, g in zip(names, found, strict=True) if g is not None}

    step, reached = Looking(model, torch.randint(12, (2, 5)), 0, "auto"), {}
    for part in ("encode", "score", "whole"):
        getattr(step, part)()
        reached[part] = step.reached
    assert reached["encode"] | reached["score"] == reached["whole"] == set(names)
    assert "bias" not in reached["encode"] and not any(n.startswith("encoder") for n in reached["score"])


def test_settings_of_ones_own_are_taken_as_they_are():
    heads = {head: named("hmamba_full", head=head, width=8, state=4) for head in ("lorentz_sq", "dist2")}
    found = recommender_speed((4, 8), heads, n_items=12, rounds=1, memory=False)
    assert found.models == ["lorentz_sq", "dist2"] and len(set(found.parameters.values())) == 1


def test_drawn_items_are_scored_in_place_of_all():
    found = recommender_speed((4,), ("gru4rec",), negatives=3, memory=False, **SMALL)
    assert (
        found.scoring == "softmax over 3 drawn of 12 items" and found.cost("gru4rec", 4).seconds("score") > 0
    )


def test_without_memory_there_are_no_megabytes_but_everything_else():
    found = recommender_speed((4,), ("gru4rec",), memory=False, **SMALL)
    assert math.isnan(found.megabytes()["gru4rec"][0]) and found.tokens_per_second()["gru4rec"][0] > 0


def test_measuring_leaves_random_numbers_and_threads_as_they_were():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    recommender_speed((4,), ("gru4rec",), memory=False, **SMALL)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


def test_a_notebook_draws_them_as_lines_and_writes_them_as_json(measured):
    rates = measured.tokens_per_second("encode")
    fig = plots.lines(measured.lengths, rates, log_x=True, log_y=True, x_title="items a history")
    assert [trace.name for trace in fig.data] == list(rates)
    assert json.loads(json.dumps(measured.rows())) == measured.rows()


@pytest.mark.parametrize(
    "wrong",
    [{"lengths": ()}, {"lengths": (0,)}, {"models": ()}, {"rounds": 0}, {"tokens": 0}, {"negatives": -1}],
)
def test_what_cannot_be_measured_is_refused(wrong):
    with pytest.raises(ParameterError, match="recommender_speed needs lengths"):
        recommender_speed(**{"lengths": (4,), "models": ("gru4rec",)} | SMALL | wrong)


def test_what_was_not_measured_has_no_number(measured):
    with pytest.raises(ParameterError, match="nothing was measured of 'hmamba' at length 4"):
        measured.cost("hmamba", 4)
    with pytest.raises(ParameterError, match="part is one of encode, score, step, but came as 'loss'"):
        measured.tokens_per_second("loss")
    with pytest.raises(ParameterError, match="memory is known of encode and of step"):
        measured.megabytes("score")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured_the_same_way():
    found = recommender_speed((4, 16), tokens=64, device="cuda", **SMALL)
    assert all(min(c.encode + c.score) > 0 and c.step_bytes > 0 for c in found.costs)
