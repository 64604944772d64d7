"""Cells of ablations: gaps of functions that are equal or differ in a known way, routing that is known, scales."""

import json
import math

import pytest
import torch

from workbench.errors import ParameterError
from workbench.training import lm_sweeps
from workbench.training.lm_runs import lm_run, make_arm
from workbench.training.lm_sweeps import logit_gap, routed_run, scaled_run

TINY = dict(size="tiny", context=16, gain=0.35)
TRAINED = TINY | dict(limit=100, steps=4, batch=4, lr=5e-3)


def test_equal_settings_have_no_gap_and_unequal_ones_have():
    assert logit_gap("helm_d", {}, {"c": 1.0}, **TINY) == {"largest": 0.0, "typical": 0.0}
    gap = logit_gap("helm_d", {}, {"scores": "dot"}, **TINY)
    assert gap["typical"] > 0 and gap["largest"] > 0


def test_gap_of_curvatures_and_equal_scales_is_that_of_hidden_times_only(monkeypatch):
    one = dict(expert_c=(0.1, 0.5, 1.0, 2.0))
    with_times = logit_gap("helm_mice", one, one | {"curved_experts": False}, **TINY)
    assert with_times["largest"] > 0

    def without_times(arm, **values):
        model = make_arm(arm, **values)
        for block in model.blocks:
            if hasattr(block.feed, "down_weight"):
                block.feed.down_weight.data[..., 0] = 0  # weights of hidden times
                block.feed.up_weight.data[..., 0] = (
                    0  # an input's time is that of its space but for the scale
                )
        return model

    monkeypatch.setattr(lm_sweeps, "make_arm", without_times)
    assert logit_gap("helm_mice", one, one | {"curved_experts": False}, **TINY)["largest"] < 1e-6


def test_settings_that_change_shapes_are_refused():
    with pytest.raises(ParameterError, match="shapes of weights"):
        logit_gap("helm_d", {}, {"heads": 3}, **TINY)


def test_routing_is_beside_what_the_training_gives(monkeypatch):
    row = routed_run("helm_mice", **TRAINED)
    assert row["nats"] == lm_run("helm_mice", **TRAINED)["nats"]
    assert json.loads(json.dumps(row)) == row
    assert 0.5 <= row["busiest"] <= 1 and 0.25 <= row["heaviest"] <= 1
    with pytest.raises(ParameterError, match="MiCE"):
        routed_run("helm_d", **TRAINED)


def test_shares_of_a_gate_that_sends_all_to_two_experts():
    model = make_arm("helm_mice", **TINY)
    layer = model.blocks[1].feed
    layer.bias += torch.tensor([5.0, 4.0, 0.0, 0.0])
    layer.gate.data.zero_()
    ids = torch.arange(32).reshape(2, 16)
    assert lm_sweeps._shares(model, [layer], ids) == [(1.0, 0.5)]


def test_factor_one_is_the_plain_training_and_others_scale_the_start(monkeypatch):
    assert scaled_run(1.0, **TRAINED)["nats"] == lm_run("helm_d", **TRAINED)["nats"]
    kept = []
    monkeypatch.setattr(lm_sweeps, "make_arm", lambda *a, **k: kept.append(make_arm(*a, **k)) or kept[-1])
    scaled_run(2.0, **TRAINED | dict(steps=0))
    size = kept[0].embedding.weight.norm(dim=-1)
    torch.testing.assert_close(size, torch.full_like(size, math.sinh(2.0)))  # at distance 2, c = 1
    assert kept[0].norm.weight.eq(2.0).all()
    with pytest.raises(ParameterError, match="factor"):
        scaled_run(0.0, **TRAINED)
