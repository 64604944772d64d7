"""benchmarks/language_models.py runs: its graphs are whole, attention is what it is spelled out to be, a cache is as
large as its formula says. No test here asks how fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "language_models.py"


def ran(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "numbers.json"
    done = ran("--sizes", "2,8,3,32,300,2", "--budget", "0.1", "--eager", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())[0]


def test_a_step_is_one_graph_and_twins_are_equally_large(numbers):
    steps = {row["name"]: row for row in numbers["steps"]}
    assert set(steps) == {"HELM-D", "LLaMA", "HELM-MiCE", "DeepSeek shape"}
    assert all((row["graphs"], row["breaks"]) == (1, 0) for row in steps.values())
    assert all(0 < row["kept"] < row["peak"] for row in steps.values())
    for ours, twin in (("HELM-D", "LLaMA"), ("HELM-MiCE", "DeepSeek shape")):
        low, high = sorted(steps[name]["weights"] for name in (ours, twin))
        assert high / low < 1.01


def test_attention_in_one_call_is_what_it_is_spelled_out_to_be(numbers):
    attention = {row["name"]: row for row in numbers["attention"]}
    assert attention["one call, Lorentz"]["difference"] < 1e-5
    assert attention["spelled out, Lorentz"]["kept_ratio"] > 1


def test_caches_have_the_sizes_of_their_formulas(numbers):
    """Keys and values: 2 heads (head_dim + 1), filled up to multiples of 8; latent: latent + rotary, where maps are
    absorbed also two times a head; float32, over all layers."""
    found = {row["name"]: row["cache_bytes"] for row in numbers["decoding"]}
    heads, layers, latent, rotary = 2, 3, 2 * 8 // 6 + 1, 2
    assert found["keys and values kept"] == 4 * layers * 2 * heads * 16
    assert found["latent kept, expanded"] == 4 * layers * (latent + rotary)
    assert found["latent kept, absorbed"] == 4 * layers * (latent + rotary + 2 * heads)


def test_a_size_that_is_none_is_refused_in_a_sentence():
    done = ran("--sizes", "4,32,4")
    assert done.returncode == 2
    assert "a size is six positive numbers" in done.stderr
