"""A fine-tuning run with an adapter: its base, its parts, its figures, its errors; on made-up problems, no file."""

import numpy as np
import pytest

from workbench.data.arithmetic import problems
from workbench.errors import ParameterError
from workbench.models.hyplora_adapters import adapters
from workbench.training import adapter_runs
from workbench.training.adapter_runs import Solver, adapter_run, gates, parts, small_base, solved

QUICK = dict(data="made", text="made", base_steps=20, steps=6, batch=8, lr=0.01, r=2, train=60)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "bases"
    monkeypatch.setattr(adapter_runs, "_folder", lambda: folder)


def test_the_base_is_trained_once_and_then_read():
    first, second = (small_base("made", steps=20) for _ in range(2))
    assert first.perplexity == second.perplexity < len(first.words)
    assert first.words.fingerprint == second.words.fingerprint
    for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert a.equal(b)


def test_no_problem_is_in_two_parts_and_every_split_is_another():
    found, other = parts("made"), parts("made", split=1)
    questions = [{(p.question, p.numbers) for p in part} for part in (found.test, found.valid, found.train)]
    assert sum(map(len, questions)) == len(set.union(*questions))
    assert len(found.test) == 400 and len(found.valid) == 300
    assert found.test != other.test


def test_the_right_equation_solves_and_nonsense_does_not():
    asked = list(problems("made", "train"))[:20]
    assert all(solved([p.equation for p in asked], asked))
    assert not any(solved(["number0 +", "", "x"] + ["* * *"] * 17, asked))


@pytest.mark.parametrize("method", ["hyplora", "lora", "dora", "all"])
def test_a_run_gives_plain_figures_and_repeats_itself(method):
    first, second = (adapter_run(**QUICK, method=method, report=3) for _ in range(2))
    assert {k: v for k, v in first.items() if k != "seconds"} == {
        k: v for k, v in second.items() if k != "seconds"
    }
    assert 0 <= first["test"] <= 1 and len(first["right"]["test"]) == 400
    assert np.mean(first["right"]["other"]) == pytest.approx(first["other"])
    assert [row["step"] for row in first["history"]] == [1, 4, 6]
    assert (first["phi"] > 1) == (method == "hyplora")


def test_without_an_adapter_only_the_head_moves():
    row, everything = (adapter_run(**QUICK, method=m) for m in ("none", "all"))
    assert 0 < row["parameters"] < everything["parameters"] and row["phi_cv"] == 0


def test_another_seed_is_another_run_and_without_test_only_validation_is_asked():
    one, two = (adapter_run(**QUICK, method="lora", seed=s, test=False) for s in (0, 1))
    assert one["loss"] != two["loss"] and "test" not in one and one["right"] == {}


def test_gates_leave_the_padding_out():
    asked = sorted(problems("made", "train")[:60], key=lambda p: len(p.question))
    solver = Solver("small", "made", 20, problems("made", "train")[:400], 0, "cpu")
    adapter_runs.inject(solver.model.encoder, adapter_runs.AdapterConfig(target_modules=("q_proj",)))
    together = gates(solver, asked)
    name, layer = next(iter(adapters(solver.model).items()))
    alone = []
    handle = layer.register_forward_pre_hook(lambda m, x: alone.append(m.gate(x[0]).detach().flatten()))
    for p in asked:
        for ids, mask in solver.batches([p]):
            solver.model(ids, mask)
    handle.remove()
    values = np.concatenate([a.numpy() for a in alone])
    assert together["phi_layers"][name][0] == pytest.approx(values.mean(), rel=1e-6)
    assert together["phi_layers"][name][1] == pytest.approx(values.std(ddof=1) / values.mean(), rel=1e-4)


def test_what_nothing_knows_is_named():
    with pytest.raises(ParameterError, match="no parameter 'alpha'"):
        adapter_run(**QUICK, alpha=3)
    with pytest.raises(ParameterError, match="method must be one of"):
        adapter_run(**QUICK, method="hypdora")
    with pytest.raises(ParameterError, match="base must be one of"):
        adapter_run(**QUICK, base="large")
    with pytest.raises(ParameterError, match="problems to learn from"):
        parts("made", train=10**6)
