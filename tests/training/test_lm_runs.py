"""Cells of language models: equal sizes, plain values out, nothing unknown goes in."""

import json

import pytest

from workbench.errors import ParameterError
from workbench.models.helm import HELM
from workbench.models.helm_config import preset
from workbench.training.lm_runs import ARMS, lm_run, make_arm, texts

QUICK = dict(size="tiny", limit=200, steps=8, batch=4, lr=5e-3)


@pytest.mark.parametrize("size", ["mini", "tiny"])
def test_twins_have_the_parameters_of_their_helm(size):
    count = {arm: make_arm(arm, size).n_parameters for arm in ARMS}
    assert count["helm_mice"] == count["mice_const"]
    near = 1e-3 if size == "mini" else 1e-2
    assert count["llama"] == pytest.approx(count["helm_d"], rel=near)
    assert count["deepseek"] == pytest.approx(count["helm_mice"], rel=near)


def test_the_mini_sizes_are_those_of_the_presets():
    for arm, preset_name in (("helm_d", "mini"), ("helm_mice", "mini_mice")):
        assert make_arm(arm).config == preset(preset_name)


def test_twins_follow_other_sizes_too():
    for arm, helm in (("llama", "helm_d"), ("deepseek", "helm_mice")):
        changes = dict(layers=3, vocab_size=500)
        one, other = (make_arm(name, "mini", **changes).n_parameters for name in (arm, helm))
        assert one == pytest.approx(other, rel=2e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_a_cell_is_plain_values_and_repeats(arm):
    one, same = (lm_run(arm, **QUICK, sample="dog") for _ in range(2))
    timed = ("seconds", "tokens_per_second")
    assert {k: v for k, v in one.items() if k not in timed} == {
        k: v for k, v in same.items() if k not in timed
    }
    assert json.loads(json.dumps(one)) == one
    assert 3 < one["nats"] < 7 and one["skipped"] == 0 and isinstance(one["sample"], str)
    assert len(one["curvatures"]) == {"helm_d": 1, "llama": 0, "deepseek": 0}.get(arm, 4)


def test_history_files_and_settings_of_the_arm(tmp_path):
    path = str(tmp_path / "model.safetensors")
    row = lm_run("helm_d", **QUICK, report=4, save=path, c=0.5, learn_c=True, curvature_lr=1.0)
    assert [r["step"] for r in row["history"]] == [4, 8] and row["history"][-1]["valid"] == row["nats"]
    assert HELM.load(path).n_parameters == row["parameters"]
    assert row["curvatures"] != [0.5] and row["curvatures"][0] == pytest.approx(0.5, abs=0.05)


def test_training_lowers_validation():
    few, more = (lm_run("llama", **QUICK | dict(steps=steps))["nats"] for steps in (1, 60))
    assert more < few - 0.3


def test_the_tokenizer_does_not_see_what_is_held_out():
    found = texts("wordnet", 300, 32, limit=50)
    again = texts("wordnet", 300, 32, split=1, limit=50)
    assert found.pieces.fingerprint != again.pieces.fingerprint
    assert len(found.pieces) == 300 and found.train.ids.shape[1] == 33
    assert texts("wordnet", 300, 32, 0.02, 0, 50) is found  # read once, however it is asked for


def test_what_nothing_knows_is_named():
    for values, words in (
        (dict(arm="lama"), "llama"), (dict(size="huge"), "tiny"), (dict(arm="llama", gamma=1.0), "'gamma'"),
        (dict(stepps=3), "'stepps'.*steps"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=words):
            lm_run(**QUICK | values)
