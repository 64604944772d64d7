"""Costs over lengths: the same tokens for all, ratios within a round, crossovers, and a figure of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workbench import plots
from workbench.errors import ParameterError
from workbench.evaluation.throughput import HEAD, MODES, Cost, Throughput, crossover, throughput
from workbench.models.text_encoder import EncoderConfig

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "encoders.py"
SMALL = EncoderConfig(width=8, layers=1, state=4, headdim=8, heads=2, vocab_size=20)


def made(seconds: dict[str, dict[int, tuple[float, ...]]]) -> Throughput:
    """As if measured: 1024 tokens a call at every length, the same seconds in both modes."""
    costs = tuple(
        Cost(name, L, mode, 1024 // L, spent)
        for name, by_length in seconds.items()
        for L, spent in by_length.items()
        for mode in MODES
    )
    return Throughput(costs, {name: 1 for name in seconds if name != HEAD}, "cpu")


@pytest.fixture(scope="module")
def measured():
    return throughput((4, 6, 16), ("mamba2", "transformer", "bag"), config=SMALL, dim=2, rounds=2)


def test_the_crossover_lies_where_the_ratio_of_a_power_law_is_one():
    ratios = {L: (L / 300) ** 1.5 for L in (64, 128, 256, 512, 1024)}
    assert crossover(ratios) == pytest.approx(300)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({64: 1.5, 128: 2.0}, 64),  # faster everywhere
        ({64: 0.1, 128: 0.9}, None),  # slower at the end
        ({64: 2.0, 128: 0.5, 256: 2.0}, math.sqrt(128 * 256)),  # a lucky short length does not count
    ],
)
def test_the_crossover_is_where_it_stays_faster(ratios, expected):
    assert crossover(ratios) == (expected and pytest.approx(expected))


def test_ratios_are_taken_within_a_round_so_that_a_busy_round_moves_none():
    busy = (1.0, 50.0, 1.0, 3.0)
    found = made({"mamba2": {16: busy}, "transformer": {16: tuple(4 * s for s in busy)}})
    assert found.faster("train") == {16: 4.0} and found.faster("train", "transformer", "mamba2") == {16: 0.25}


def test_tokens_a_second_are_those_of_the_median_round():
    found = made({"mamba2": {16: (2.0, 9.0, 1.0)}, "transformer": {16: (4.0, 4.0, 4.0)}})
    assert found.tokens_per_second("train") == {"mamba2": [512.0], "transformer": [256.0]}


def test_growth_tells_linear_from_quadratic_cost():
    lengths = (64, 128, 256, 512, 1024)
    found = made({"mamba2": dict.fromkeys(lengths, (1.0,)), "transformer": {L: (L / 300,) for L in lengths}})
    assert found.growth("mamba2", "train") == pytest.approx(0, abs=1e-12)
    assert found.growth("transformer", "train") == pytest.approx(1)
    said = found.verdict()
    assert "from L ≈ 300 on" in said and "L^0.00 for mamba2 and L^1.00 for transformer" in said


def test_a_verdict_says_where_nothing_crosses():
    found = made({"mamba2": {16: (1.0,)}, "transformer": {16: (2.0,)}})
    assert "forward at every length from 16;" in found.verdict()
    assert "forward not up to L = 16;" in found.verdict("transformer", "mamba2")


def test_every_encoder_and_the_head_is_measured_on_the_same_number_of_whole_texts(measured):
    assert measured.lengths == [4, 6, 16]
    assert {c.name for c in measured.costs} == {"mamba2", "transformer", "bag", HEAD}
    assert {(c.length, c.texts) for c in measured.costs} == {(4, 4), (6, 2), (16, 1)}
    assert all(len(c.seconds) == 2 and min(c.seconds) > 0 and c.bytes > 0 for c in measured.costs)


def test_the_verdict_is_no_part_of_the_series_but_the_head_has_its_share(measured):
    for mode in MODES:
        assert list(measured.tokens_per_second(mode)) == ["mamba2", "transformer", "bag"]
        assert set(measured.share("bag", mode)) == {4, 6, 16}
    with pytest.raises(ParameterError, match="nothing was measured of 'mamba' at length 4"):
        measured.cost("mamba", 4, "train")


def test_memory_of_training_is_more_than_that_of_looking(measured):
    for forward, train in zip(
        measured.megabytes("forward")["bag"], measured.megabytes("train")["bag"], strict=True
    ):
        assert 0 < forward < train


def test_without_memory_there_are_no_megabytes_but_everything_else():
    found = throughput((4,), ("bag",), config=SMALL, rounds=1, memory=False)
    assert math.isnan(found.megabytes("train")["bag"][0]) and found.tokens_per_second("train")["bag"][0] > 0


def test_measuring_leaves_random_numbers_and_threads_as_they_were():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    throughput((4,), ("bag",), config=SMALL, rounds=1, memory=False)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


def test_a_notebook_draws_them_as_lines_and_writes_them_as_json(measured):
    rates = measured.tokens_per_second("train")
    fig = plots.lines(measured.lengths, rates, log_x=True, log_y=True, x_title="tokens a text")
    assert [trace.name for trace in fig.data] == list(rates)
    assert json.loads(json.dumps(measured.rows())) == measured.rows()


@pytest.mark.parametrize(
    "wrong", [{"lengths": ()}, {"lengths": (0,)}, {"kinds": ()}, {"rounds": 0}, {"tokens": 0}, {"dim": 0}]
)
def test_what_cannot_be_measured_is_refused(wrong):
    with pytest.raises(ParameterError, match="throughput needs lengths"):
        throughput(**{"lengths": (4,), "kinds": ("bag",), "config": SMALL} | wrong)


def test_the_benchmark_prints_a_table_and_where_the_crossover_is_and_writes_all_numbers(tmp_path):
    out = tmp_path / "encoders.json"
    options = ["--lengths", "8", "32", "--rounds", "1", "--layers", "1", "--tokens", "64", "--out", str(out)]
    done = subprocess.run([sys.executable, BENCHMARK, *options], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (
        "| 32 | transformer |" in done.stdout and "mamba2 is faster than transformer: forward" in done.stdout
    )
    found = json.loads(out.read_text())
    assert len(found["cpu"]["costs"]) == 3 * 2 * 2 and found["versions"]["torch"]
    assert all(c["tokens_per_second"] > 0 for c in found["cpu"]["costs"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured_the_same_way():
    found = throughput((4, 16), config=SMALL, rounds=2, device="cuda")
    assert all(min(c.seconds) > 0 and c.bytes > 0 for c in found.costs)
