"""`PlaneView`: a triangle in several models of the hyperbolic plane at once, to be dragged in any of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t

from workbench.errors import ManifoldError, ParameterError, suggest
from workbench.widgets.colours import OKABE_ITO
from workbench.widgets.page import write_page
from workbench.widgets.points import checked_points

HERE = Path(__file__).parent
PARTS = ("isometry.js", "models.js", "measure.js", "page.js", "plane.js")
# Plain text joined in reading order; the browser sees one ES module.
SCRIPT = "\n".join((HERE / name).read_text("utf-8") for name in PARTS)
MODELS = ("disk", "klein", "half-plane", "hyperboloid", "flat")
TRIANGLE = ((0.0, 0.55), (-0.5, -0.3), (0.5, -0.25))


class PlaneView(anywidget.AnyWidget):
    """Two to six points of the hyperbolic plane, drawn in one model or several; dragging one moves it in all.

    Lengths, angles and area stand below and follow the hand. Dragging the empty plane moves everything by an
    isometry, and the numbers stay. Points take the arrow keys too (Tab goes from one to the next).

    Args:
        points: (N, 2) coordinates in the unit Poincaré disk, 2 <= N <= 6, an array or a tensor, in the order in
            which sides join them.
        models: one to five of "disk", "klein", "half-plane", "hyperboloid", and "flat" for contrast: the same
            coordinates taken as flat, on the scale that the plane has in the middle of the disk.
        c: the curvature is -c, 0.1 to 4. The drawing stays (the disk always has radius 1), lengths are divided by
            √c and areas by c.
        radius: draws a circle of this hyperbolic radius about each point; 0 draws none, 2 is the largest.
        grid: whether circles and rays about a point of the plane are drawn; they move with it.
        size: largest width in CSS pixels; the view shrinks with its container.

    Traits, synchronised both ways (from the browser once a gesture is over): `points` (lists [x, y]), `c`,
    `radius`, `grid`. `numbers` is a dict computed from `points` and `c` whenever they change; see `measure`.

    Raises:
        ManifoldError: points of another shape, not finite, or not inside the unit disk.
        ParameterError: a model that is not known, or c or radius out of range.
    """

    _esm = SCRIPT
    _colours = t.List(list(OKABE_ITO[:6])).tag(sync=True)

    points = t.List(t.List(t.Float())).tag(sync=True)
    models = t.List(t.Unicode()).tag(sync=True)
    c = t.Float(1.0).tag(sync=True)
    radius = t.Float(0.0).tag(sync=True)
    grid = t.Bool(True).tag(sync=True)
    size = t.Int(760, min=160).tag(sync=True)
    numbers = t.Dict()

    def __init__(
        self, points: Any = TRIANGLE, models: Sequence[str] | str = MODELS[:4], c: float = 1.0, **traits: Any
    ):
        self._models = _checked_models(models)
        super().__init__(points=_checked_points(points), models=self._models, c=c, **traits)

    def to_html(self, path: str | Path, title: str = "One plane, several models") -> Path:
        """Write the view as one self-contained page that works offline, from a file; returns its path."""
        return write_page(path, title, SCRIPT, self.get_state(_PAGE_TRAITS))

    @t.observe("points", "c")
    def _measure(self, change: Any) -> None:
        self.numbers = measure(self.points, self.c, flat="flat" in self._models)

    @t.validate("points")
    def _check_points(self, proposal: Any) -> list[list[float]]:
        points = _checked_points(proposal["value"])
        if self.points and len(points) != len(self.points):
            raise ManifoldError(f"this view shows {len(self.points)} points, but {len(points)} came")
        return points

    @t.validate("models")
    def _check_models(self, proposal: Any) -> list[str]:
        if proposal["value"] != self._models:
            raise ParameterError(f"models are chosen when a view is made; this one shows {self._models}")
        return proposal["value"]

    @t.validate("c", "radius")
    def _check_dial(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low, high = {"c": (0.1, 4.0), "radius": (0.0, 2.0)}[name]
        if not low <= value <= high:  # also refuses NaN
            raise ParameterError(f"{name} must lie between {low:g} and {high:g}, but is {value}")
        return value


_PAGE_TRAITS = ["points", "models", "c", "radius", "grid", "size", "_colours"]


def measure(points: Any, c: float = 1.0, flat: bool = False) -> dict[str, Any]:
    """Lengths, angles and area of the polygon whose corners are these points of the unit Poincaré disk.

    Args:
        points: (N, 2), N >= 2, in order around the polygon; of two points only the distance is measured.
        c: the curvature is -c.
        flat: also measure the same coordinates as flat, on the scale of the middle of the disk.

    Returns:
        `lengths` (side from each point to the next), `angles` (inner, radians), `angle_sum`, `area`; the last three
        are None of two points, and where sides cross. With `flat` the same once more under "flat".

    Raises:
        ManifoldError: points of another shape, not finite, or not inside the unit disk.

    References:
        Area of the triangle 0, p, q as 2 |arg(1 - p q̄)|: Beardon, "The Geometry of Discrete Groups" (1983), ch. 7.
    """
    z = np.array(_checked_points(points, most=None)) @ [1, 1j]
    after = np.roll(z, -1)
    inside = (1 - abs(z)) * (1 + abs(z))
    lengths = 2 * np.arcsinh(abs(z - after) / np.sqrt(inside * np.roll(inside, -1)))
    fan = (z - z[0]) / (1 - np.conj(z[0]) * z)  # z[0] in the middle: sides from it are straight
    area = 2 * np.angle(1 - np.conj(fan[2:]) * fan[1:-1]).sum()
    looks = [(np.array([a, b]) - m) / (1 - np.conj(m) * np.array([a, b])) for a, m, b in _corners(z)]
    found = _polygon(lengths / np.sqrt(c), looks, area, 1.0, c)
    if flat:
        scale = 2 / np.sqrt(c)
        area = scale**2 * np.imag(np.conj(z[1:-1] - z[0]) * (z[2:] - z[0])).sum() / 2
        looks = [np.array([a, b]) - m for a, m, b in _corners(z)]
        found["flat"] = _polygon(scale * abs(z - after), looks, area, 0.0, 1.0)
    return found


def _corners(z: np.ndarray):
    return zip(np.roll(z, 1), z, np.roll(z, -1), strict=True)


def _polygon(lengths: np.ndarray, looks: list, area: float, defect: float, c: float) -> dict[str, Any]:
    """`looks`: the corners before and after each one, seen from it; `area`: signed, positive anticlockwise."""
    n = len(looks)
    nothing = {"angles": None, "angle_sum": None, "area": None}
    if n == 2:
        return {"lengths": lengths[:1].tolist()} | nothing
    turns = [float(np.angle(before * np.conj(ahead))) for before, ahead in looks]
    angles = [(-a if area < 0 else a) % (2 * np.pi) for a in turns]
    simple = abs((n - 2) * np.pi - sum(angles) - defect * abs(area)) < 1e-4  # else sides cross: no inside
    found = {"angles": angles, "angle_sum": sum(angles), "area": abs(float(area)) / c}
    return {"lengths": lengths.tolist()} | (found if simple else nothing)


def _checked_models(models: Sequence[str] | str) -> list[str]:
    models = [models] if isinstance(models, str) else list(models)
    for name in models:
        if name not in MODELS:
            raise ParameterError(
                f"unknown model {name!r}, expected one of {', '.join(MODELS)}{suggest(name, MODELS)}"
            )
    if not models or len(set(models)) < len(models):
        raise ParameterError(f"models must be one or more, each once, but are {models}")
    return models


def _checked_points(points: Any, most: int | None = 6) -> list[list[float]]:
    points = checked_points(points)
    if len(points) < 2 or len(points) > (most or len(points)):
        raise ManifoldError(f"points must be two{' to six' if most else ' or more'}, but {len(points)} came")
    return points.tolist()
