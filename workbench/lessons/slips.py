"""Numbers that go wrong in known ways: a sentence of its own for each slip."""

from __future__ import annotations

import math
from typing import Any

from workbench.lessons.checking import number


def slipped(
    answer: Any,
    expected: float,
    what: str,
    slips: list[tuple[float, str]],
    rtol: float = 0.01,
    atol: float = 0.0,
) -> str | None:
    """As `number`, but an answer within 1 % of a known slip gets that slip's sentence. For `verify`.

    slips: pairs of a wrong number and what to say to it.
    """
    wrong = number(answer, expected, what, rtol, atol)
    try:
        value = float(answer)
    except (TypeError, ValueError):
        return wrong
    near = (sentence for number_of_it, sentence in slips if math.isclose(value, number_of_it, rel_tol=0.01))
    return wrong and next(near, wrong)
