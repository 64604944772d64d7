"""Which colour each point gets: categories in a colour-blind-safe palette, values on a ramp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import DataError

# Okabe and Ito, "Color Universal Design" (2008), without black; yellow last, since it is faint on white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
OTHER = "#8c8c8c"
# Blue to gold: lightness rises all the way and both ends show on light and on dark ground.
RAMP = ("#2c4fa3", "#1f8a99", "#5fa85a", "#e0a100")
STEPS = 24


@dataclass(frozen=True)
class Colours:
    """`codes` (N,) uint8 index `legend["colours"]`; the legend also says what to write beside them."""

    codes: np.ndarray
    legend: dict[str, Any]


def ramp(steps: int) -> list[str]:
    """`steps` hex colours along `RAMP`."""
    anchors = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in RAMP], float)
    at = np.linspace(0, len(anchors) - 1, steps)
    rgb = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)], 1)
    return ["#" + "".join(f"{round(v):02x}" for v in row) for row in rgb]


def colours_of(color: Any, n: int, categories: Sequence[str] | None = None, title: str = "") -> Colours:
    """Colour `n` points.

    Args:
        color: None (one colour), strings (categories), integers (codes into `categories`; without them, up to
            seven distinct values are categories and more are values), or floats (values on a ramp).
        categories: names of the codes 0, 1, …; code -1 is "other". The seven largest keep their own colour.

    Raises:
        DataError: wrong length, a NaN, or a code without a name.
    """
    if color is None:
        return Colours(np.zeros(n, np.uint8), {"title": "", "colours": [OKABE_ITO[0]]})
    values = np.asarray(color)
    if values.shape != (n,):
        raise DataError(f"color needs one value for each of the {n} points, but has shape {values.shape}")
    if values.dtype.kind not in "biuf":
        names, codes = np.unique(values.astype(str), return_inverse=True)
        return _categorical(codes, list(names), title)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"color of point {int(np.argmin(np.isfinite(values)))} is not a finite number")
    if categories is not None:
        if values.dtype.kind == "f" or values.min() < -1 or values.max() >= len(categories):
            raise DataError(
                f"with categories, color must be integers from -1 to {len(categories) - 1}, "
                f"but runs from {values.min()} to {values.max()}"
            )
        return _categorical(values.astype(np.int64), [str(c) for c in categories], title)
    distinct = np.unique(values)
    if values.dtype.kind != "f" and len(distinct) <= len(OKABE_ITO):
        return _categorical(np.searchsorted(distinct, values), [str(v) for v in distinct], title)
    return _ramped(values, distinct, title)


def _categorical(codes: np.ndarray, names: list[str], title: str) -> Colours:
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    by_size = np.argsort(-counts, kind="stable")
    kept = np.sort(by_size[counts[by_size] > 0][: len(OKABE_ITO)])
    slot = np.full(len(names) + 1, len(kept), np.uint8)  # the last entry, reached by -1, is "other"
    slot[kept] = np.arange(len(kept))
    shown = slot[codes]
    others = ["other"] if (shown == len(kept)).any() else []
    legend = {
        "title": title,
        "names": [names[k] for k in kept] + others,
        "colours": [*OKABE_ITO[: len(kept)], OTHER],
    }
    return Colours(shown, legend)


def _ramped(values: np.ndarray, distinct: np.ndarray, title: str) -> Colours:
    low, high = float(distinct[0]), float(distinct[-1])
    whole = values.dtype.kind != "f"
    steps = min(STEPS, int(high - low) + 1) if whole else STEPS
    codes = np.rint((values.astype(float) - low) / max(high - low, 1e-300) * (steps - 1)).astype(np.uint8)
    ends = [f"{v:.0f}" if whole else f"{v:.3g}" for v in (low, high)]
    return Colours(codes, {"title": title, "low": ends[0], "high": ends[1], "colours": ramp(steps)})


def branches(
    parents: np.ndarray, most: int = len(OKABE_ITO), large: float = 0.35
) -> tuple[np.ndarray, list[int]]:
    """Cut a forest into a few branches of comparable size, for colouring.

    The largest branch is replaced by its larger children (at least 2 % of all nodes) while it holds more than
    `large` of the nodes. Nodes above or beside the kept branches belong to none.

    Args:
        parents: (N,) parent of each node, -1 at roots.
    Returns:
        (N,) number of the branch or -1, and the node at the top of each branch, larger branches first.
    """
    n = len(parents)
    order = np.argsort(-levels(parents), kind="stable")
    size = np.ones(n, np.int64)
    for i in order:
        if parents[i] >= 0:
            size[parents[i]] += size[i]
    tops = list(np.flatnonzero(parents < 0))
    while tops:
        top = max(tops, key=lambda i: size[i])
        children = [i for i in np.flatnonzero(parents == top) if size[i] >= 0.02 * n]
        if (size[top] <= large * n and len(tops) > 1) or not children:
            break
        tops = [i for i in tops if i != top] + children
    tops = sorted((int(i) for i in tops), key=lambda i: -size[i])[:most]
    branch = np.full(n, -1, np.int64)
    branch[tops] = np.arange(len(tops))
    for i in order[::-1]:
        if branch[i] < 0 and parents[i] >= 0:
            branch[i] = branch[parents[i]]
    return branch, tops


def levels(parents: np.ndarray) -> np.ndarray:
    """Distance of each node from its root, by pointer jumping: logarithmically many passes."""
    levels, above = (parents >= 0).astype(np.int64), parents.copy()
    for _ in range(max(len(parents), 2).bit_length() + 1):
        has = above >= 0
        if not has.any():
            return levels
        levels[has] += levels[above[has]]
        above[has] = above[above[has]]
    raise DataError("parents contain a cycle")
