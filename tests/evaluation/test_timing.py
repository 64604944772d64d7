"""Costs are measured as advertised: in turns, at the allocator, in float64."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.evaluation.timing import growth, interleaved, peak_bytes, relative_error

MB = 10**6


def busy(seconds: float):
    def work():
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    return work


def test_calls_take_turns_and_warm_up_first():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = interleaved(calls, repeats=3, warmup=1)
    assert order == list("ab") * 4 and list(found) == ["a", "b"]


def test_waiting_costs_nothing_and_work_what_it_takes():
    found = interleaved({"sleep": lambda: time.sleep(0.05), "work": busy(0.05)}, repeats=3, warmup=0)
    assert found["sleep"].median < 0.03 < 0.05 <= found["work"].fastest <= found["work"].median
    assert found["work"].median <= found["work"].slowest


def test_the_peak_is_what_is_held_at_once_not_the_sum_and_not_what_was_there_before():
    before = torch.ones(MB)

    def chain():
        x = before * 2  # 4 MB
        x = x + 1  # 8 MB until the first is let go
        return x.exp_()

    assert peak_bytes(chain) == pytest.approx(8 * MB, rel=0.01)
    assert peak_bytes(lambda: before.add_(1)) < 1000


def test_the_peak_counts_what_autograd_keeps():
    x = torch.ones(MB, requires_grad=True)
    free, kept = (
        peak_bytes(lambda f=f: f(x))
        for f in (lambda x: x.detach().exp().exp().exp(), lambda x: x.exp().exp().exp())
    )
    assert free == pytest.approx(8 * MB, rel=0.01) and kept == pytest.approx(12 * MB, rel=0.01)


def test_peak_bytes_lets_an_error_through_and_leaves_stderr_as_it_was(capfd):
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0)
    import os

    os.write(2, b"heard")
    assert capfd.readouterr().err.endswith("heard")


def test_relative_error_is_of_norms_and_infinite_for_nan():
    truth = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(truth.float() + torch.tensor([0.0, 0.5]), truth) == pytest.approx(0.1)
    assert relative_error(torch.tensor([torch.nan, 4.0]), truth) == np.inf
    with pytest.raises(ParameterError, match="one shape"):
        relative_error(truth[:1], truth)


@given(st.floats(-3, 3), st.floats(1e-6, 1e6))
def test_growth_finds_the_exponent_of_a_power_law(p, scale):
    size = np.array([1, 2, 5, 100.0])
    assert growth(size, scale * size**p) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize(("size", "cost"), [([1, 2], [1, 0]), ([1, 1], [1, 2]), ([1, 2], [1]), ([2], [2])])
def test_growth_refuses_what_has_none(size, cost):
    with pytest.raises(ParameterError, match="two positive sizes"):
        growth(size, cost)


def test_nothing_to_time_is_refused():
    with pytest.raises(ParameterError, match="needs calls"):
        interleaved({})
    with pytest.raises(ParameterError, match="repeats >= 1"):
        interleaved({"a": int}, repeats=0)
