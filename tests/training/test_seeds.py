from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from workbench.errors import ParameterError
from workbench.training import seed_all


def draws(seed: int) -> list[float]:
    generator = seed_all(seed)
    return [random.random(), np.random.rand(), torch.rand(()).item(), generator.random()]  # noqa: NPY002


def test_equal_seeds_give_equal_draws_everywhere_and_other_seeds_other_ones():
    assert draws(7) == draws(7)
    assert all(a != b for a, b in zip(draws(7), draws(8), strict=True))


def test_the_generator_is_not_disturbed_by_global_draws():
    expected = seed_all(1).random(3)
    generator = seed_all(1)
    np.random.rand(5)  # noqa: NPY002
    assert (generator.random(3) == expected).all()


@pytest.mark.parametrize("bad", [-1, 2**32, 1.0, "0", True, None])
def test_what_is_not_a_seed_is_refused(bad):
    with pytest.raises(ParameterError, match="a seed is an integer"):
        seed_all(bad)
