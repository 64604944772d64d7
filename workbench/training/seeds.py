"""One seed for everything that draws."""

from __future__ import annotations

import random

import numpy as np
import torch

from workbench.errors import ParameterError


def seed_all(seed: int) -> np.random.Generator:
    """Seed Python's `random`, numpy's global state and torch on every device.

    Returns:
        A numpy generator of its own, to pass on to whatever takes one: code that draws from it is not
        disturbed by code that draws from the global states.

    Raises:
        ParameterError: not an integer from 0 to 2³² − 1, the range that all of them take.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ParameterError(f"a seed is an integer from 0 to 4294967295, not {seed!r}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that still draw from it
    torch.manual_seed(seed)  # CUDA devices too
    return np.random.default_rng(seed)
