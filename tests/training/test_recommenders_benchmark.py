"""benchmarks/recommenders.py prints its tables and writes all numbers. No test here asks how fast."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "recommenders.py"
SMALL = "--lengths 4 8 --rounds 1 --tokens 16 --items 30 --width 8 --state 4 --backends eager"


def run(*more: str) -> str:
    command = [sys.executable, str(BENCHMARK), *SMALL.split(), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_prints_its_tables_and_verdicts_and_writes_all_numbers(tmp_path):
    out = tmp_path / "recommenders.json"
    said = run("--models", "hmamba_full", "mamba4rec", "gru4rec", "sasrec", "--quick", "--out", str(out))
    assert "| 8 | sasrec, dropout 0 |" in " ".join(said.split()) and "| lorentz_sq |" in " ".join(
        said.split()
    )
    assert "hmamba_full trains at these multiples of gru4rec's speed" in said
    found = json.loads(out.read_text())
    assert len(found["cpu"]["costs"]) == 2 * 5 and found["versions"]["torch"]
    assert all(c["step_tokens_per_second"] > 0 and c["step_bytes"] > 0 for c in found["cpu"]["costs"])
    assert len(found["cpu"]["verdicts"]) == 4 and not found["cpu"]["modes"]


def test_prefixes_ask_for_the_same_targets_as_dense_training(tmp_path):
    out = tmp_path / "recommenders.json"
    assert "a row a prefix" in run("--models", "gru4rec", "--out", str(out))
    (modes,) = json.loads(out.read_text())["cpu"]["modes"].values()
    assert modes["targets"] == 1600 and modes["length"] == 4 and modes["prefix"] > 0
