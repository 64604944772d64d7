"""benchmarks/quantizer.py runs, and what it compares with gives the same codes. No test here asks how fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vector_quantize_pytorch", reason="vector-quantize-pytorch is in the extra 'bench' only")
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "quantizer.py"


def test_the_benchmark_runs_and_the_naive_form_has_our_codes(tmp_path):
    out = tmp_path / "numbers.json"
    arguments = ["--sizes", "64,8,4", "--budget", "0.2", "--out", str(out)]
    done = subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (numbers,) = json.loads(out.read_text())
    assert numbers["same"] > 0.95
    assert len(numbers["ratios"]) == 6 and all(r > 0 for r in numbers["ratios"].values())
    assert "ResidualVQ" in done.stdout
