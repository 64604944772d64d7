"""K watched during training, and gates before it; on made-up problems, no file."""

import math

import numpy as np
import pytest
import torch

from workbench.data.arithmetic import problems
from workbench.models.hyplora_adapters import AdapterConfig, adapters, inject
from workbench.training import adapter_runs
from workbench.training.adapter_runs import Solver, adapter_run, gates, parts
from workbench.training.adapter_sweeps import dead, first_gates, watched_run

MADE = dict(data="made", text="made", base_steps=20)
QUICK = MADE | dict(steps=6, batch=8, lr=0.01, r=2)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "bases"
    monkeypatch.setattr(adapter_runs, "_folder", lambda: folder)


def test_watching_changes_nothing():
    watched, plain = watched_run(**QUICK, K=0.1, every=2), adapter_run(**QUICK, K=0.1)
    for name in ("loss", "test", "other", "phi", "phi_cv", "right"):
        assert watched[name] == plain[name]
    assert watched["at"] == [0, 2, 4, 6]
    assert np.mean([v[-1] for v in watched["K"].values()]) == pytest.approx(plain["K"])


def test_K_starts_where_it_was_put_and_goes_no_further_than_its_reach():
    row = watched_run(**QUICK, K=0.5, s="learnable", curvature_lr=5.0)
    for path in row["K"].values():
        assert path[0] == 0.5
        assert 0 < abs(math.log(path[-1] / 0.5)) <= 1.05 * math.log(row["reach"])
    assert all(path[0] != path[-1] for path in row["s"].values())


def test_held_K_and_rate_zero_stay():
    for more in (dict(learn_K=False), dict(curvature_lr=0.0)):
        row = watched_run(**QUICK, K=0.5, **more)
        assert {value for path in row["K"].values() for value in path} == {0.5}
    assert row["reach"] == 1


@pytest.mark.parametrize("K, s", [(0.05, 0.0), (1.0, 0.0), (0.3, 4.0), (0.02, 1.0)])
def test_gates_before_training_are_those_of_the_layers(K, s):
    (row,) = first_gates([K], [s], **MADE)
    solver = Solver("small", "made", 20, parts("made").train, 0, "cpu")
    inject(solver.model.encoder, AdapterConfig(K=K, s=s or "sqrt_d"))
    known = gates(solver, parts("made").valid)
    assert row["phi"] == pytest.approx(known["phi"], rel=1e-5)
    assert row["phi_cv"] == pytest.approx(known["phi_cv"], rel=1e-3, abs=1e-9)


def test_s_and_K_are_one_dial():
    a, b = first_gates([1.0], [4.0], **MADE)[0], first_gates([16.0], [1.0], **MADE)[0]
    assert a["phi_layers"] == b["phi_layers"] and a["phi"] > 1


@pytest.mark.parametrize("size, share", [(1e-6, 1.0), (1e3, 0.0)])
def test_the_dead_zone_holds_small_updates(size, share):
    asked = problems("made", "train")[:40]
    solver = Solver("small", "made", 20, problems("made", "train")[:400], 0, "cpu")
    inject(solver.model.encoder, AdapterConfig(variant="official", K=1.0))
    rng = torch.Generator().manual_seed(0)
    for layer in adapters(solver.model).values():
        layer.hyplora_B.data = size * torch.randn(layer.hyplora_B.shape, generator=rng)
    assert dead(solver, asked) == share


def test_the_formula_has_no_dead_zone():
    assert watched_run(**QUICK, variant="literal")["dead"] == 0
