"""Coordinates that a view may show."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.errors import ManifoldError


def checked_points(points: Any, is_flat: bool = False) -> Float[np.ndarray, "n 2"]:
    """An array or a tensor as (N, 2) float64 of the unit disk; is_flat: of the whole flat plane.

    ManifoldError for another shape, none, or a point that is not finite or not inside the disk.
    """
    if hasattr(points, "detach"):
        points = points.detach().cpu()
    try:
        points = np.ascontiguousarray(points, dtype="<f8")
    except (TypeError, ValueError) as e:
        raise ManifoldError(f"points must be an (N, 2) array of numbers; {e}") from None
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ManifoldError(
            f"points must be (N, 2) coordinates in the unit disk, not of shape {points.shape}"
        )
    radius = np.hypot(points[:, 0], points[:, 1])
    bad = np.flatnonzero(~(radius < (np.inf if is_flat else 1)))
    if len(bad):
        where = "be finite" if is_flat else "lie inside the unit disk"
        raise ManifoldError(
            f"points must {where}, but point {bad[0]} is {points[bad[0]].tolist()}"
            + (f" (and {len(bad) - 1} more are outside)" if len(bad) > 1 else "")
        )
    return points
