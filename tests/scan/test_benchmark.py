"""benchmarks/scan.py runs, and its arithmetic on times is right. No test here asks how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _measure

    return _measure


def test_ratios_are_taken_within_a_round_and_outliers_do_not_move_them(measuring):
    slow, fast = measuring.Readings(), measuring.Readings()
    for factor in (
        1.0,
        1.0,
        50.0,
        3.0,
        None,
    ):  # the machine is busy in two rounds; the slow one skips the last
        slow.add("forward", factor and 4.0 * factor, 1.0)
        fast.add("forward", 2.0 * (factor or 1.0), 1.0)
    assert measuring.speed(fast, slow, "forward", "wall") == 2.0
    assert measuring.speed(fast, slow, "train", "wall") is None


def test_all_take_part_in_every_round_but_the_slow(measuring):
    x = torch.ones(4, requires_grad=True)
    calls = []
    works = {name: measuring.Work(lambda n=name: calls.append(n) or x * 2, [x]) for name in "ab"}
    readings = measuring.side_by_side(works, budget=1.0, rounds=4)
    assert all(
        len(r.wall[mode]) == 4 and None not in r.wall[mode] for r in readings.values() for mode in r.wall
    )
    assert calls.count("a") > 0 and set(calls) == {"a", "b"}


def test_peak_memory_is_that_of_the_temporaries_also_the_second_time(measuring):
    code = (
        f"import sys, torch; sys.path.insert(0, {str(BENCHMARKS)!r}); from _measure import peak_memory\n"
        "one, many = lambda: torch.ones(2**23).sum(), lambda: [torch.ones(2**12) for _ in range(2**11)]\n"
        "print([peak_memory(f) for f in (one, one, many, many)])"
    )
    env = os.environ | measuring.FRESH_PAGES
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert json.loads(done.stdout) == pytest.approx([2**25] * 4, rel=0.1), done.stderr


def test_every_implementation_computes_the_same(measuring):
    import _scan_candidates as compared

    for op in ("selective_scan", "ssd"):
        for name, candidate in compared.CANDIDATES[op].items():
            sizes = compared.Sizes(2, 128, 4)
            if candidate.exact and name != "compile" and compared.missing(candidate, sizes) is None:
                assert compared.worst_error(op, candidate, sizes, 70, gradients=True) < 5e-6, (op, name)


def test_a_small_run_prints_a_table_and_writes_all_numbers(tmp_path):
    written = tmp_path / "scan.json"
    options = [
        "--op",
        "ssd",
        "--quick",
        "--lengths",
        "64",
        "--rounds",
        "1",
        "--without",
        "compile",
        "--threads",
        "1",
    ]
    command = [sys.executable, BENCHMARKS / "scan.py", *options, "--json", written]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "| 64 | workbench, eager " in done.stdout
    found = json.loads(written.read_text())
    assert found["threads"] == 1 and found["versions"]["torch"]
    assert {row["name"] for row in found["cpu"]["ssd"]["rows"]} == {"eager", "listing", "attention"}
    assert all(row["train_wall_ms"] > 0 for row in found["cpu"]["ssd"]["rows"])
