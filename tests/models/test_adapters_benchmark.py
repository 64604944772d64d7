"""benchmarks/adapters.py runs, and HypLoRA has the numbers of its maps spelled out. No test here asks how fast."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "adapters.py"


def test_the_benchmark_runs_and_hyplora_is_what_its_formulas_say(tmp_path):
    out = tmp_path / "numbers.json"
    arguments = ["--sizes", "32,16,24", "--budget", "0.2", "--out", str(out)]
    done = subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (numbers,) = json.loads(out.read_text())
    assert numbers["difference"] < 1e-5
    assert {"LoRA", "HypLoRA", "DoRA"} <= set(numbers["ratios"])
    assert all(r > 0 for r in numbers["ratios"].values())
    assert numbers["kept"]["HypLoRA"] < numbers["kept"]["HypLoRA, spelled out"]
