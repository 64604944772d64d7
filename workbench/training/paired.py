"""What one setting is worth beside another where both were run on the same seeds: differences, pair by pair.

Runs of one seed share their data split, and with it how hard their questions are. That part of the noise falls out of
the differences; it would stay in the difference of two means (`workbench.training.tokenizers.gain`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from scipy.stats import t as student

from workbench.errors import ParameterError
from workbench.training.tokenizers import SURE, Gain, mean_of


def paired_gain(
    rows: Iterable[Mapping],
    metric: str,
    before: str = "euclidean",
    after: str = "poincare",
    *,
    by: str = "space",
    **where,
) -> Gain:
    """What `after` adds to `before` in a metric, among rows with these entries, one row a seed for each of the two.

    by: the entry that tells the two apart. The gain is the mean of the differences within a seed, its error their
    standard error, its verdict Student's paired test at 95 %.

    ParameterError where a side has no run, two of one seed, or other seeds than the other side.
    """
    rows = list(rows)
    sides = []
    for name in (before, after):
        mine = [r for r in rows if r[by] == name and all(r[k] == v for k, v in where.items())]
        sides.append({r["seed"]: float(r[metric]) for r in mine})
        if len(sides[-1]) != len(mine):
            raise ParameterError(f"one run a seed is needed of {name!r}, but {where or 'all'} has several")
    a, b = sides
    if not a or a.keys() != b.keys():
        raise ParameterError(
            f"{before!r} and {after!r} need the same seeds, but have {sorted(a)} and {sorted(b)}"
        )
    means = [mean_of(rows, metric, **{by: name}, **where) for name in (before, after)]
    difference = np.array([b[seed] - a[seed] for seed in a])
    n, gain = len(difference), float(difference.mean())
    if n < 2:
        return Gain(*means, gain, 0.0, "one seed")
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    sure = abs(gain) > error * float(student.ppf((1 + SURE) / 2, n - 1))
    return Gain(*means, gain, error, ("more" if gain > 0 else "less") if sure else "within noise")
