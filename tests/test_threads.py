"""Work on several processes: the same results in the same order as here, and errors where they are due."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.threads import one_thread, spread


def test_within_one_thread_torch_has_one_and_afterwards_what_it_had():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="left"), one_thread():
        assert torch.get_num_threads() == 1
        raise ValueError("left")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_calls(jobs):
    calls = [{"a": float(k), "b": 2.0} for k in range(5)]
    assert list(spread(close_and_alone, calls, jobs)) == [False, False, True, False, False]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_raised_where_its_result_is_due(jobs):
    results = spread(close_and_alone, [{"a": 1.0, "b": 1.0}, {"a": 1.0}, {"a": 1.0, "b": 1.0}], jobs)
    assert next(results)
    with pytest.raises(TypeError):
        next(results)


def close_and_alone(a, b):
    return math.isclose(a, b) and torch.get_num_threads() == 1
