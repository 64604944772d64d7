"""What the settings of all trainings are checked for, and a rate that several share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbench.errors import ParameterError


def whole_number(name: str, value: object, least: int) -> None:
    """ParameterError unless the value is a whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ParameterError(f"{name} must be a whole number from {least}, but came as {value!r}")


def finite_numbers(settings: object, names: Sequence[str], above: Sequence[str]) -> None:
    """ParameterError unless each of these settings is finite and not negative, and those of `above` are above 0."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value < math.inf or (name in above and value == 0):
            raise ParameterError(
                f"{name} must be finite and not negative ({', '.join(above[:-1])} and {above[-1]} above 0), "
                f"but came as {value!r}"
            )


def linear_rate(settings, step: int) -> float:
    """Learning rate of a step, counted from 0: it rises over `settings.warmup` steps, at most half of `steps`, to
    `lr`, and then falls to 0 in a line."""
    warmup = min(settings.warmup, settings.steps // 2)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * (settings.steps - step) / (settings.steps - warmup)
