"""`DiskView`: a Poincaré disk that moves under the hand by isometries."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets as t

from workbench.errors import DataError, ManifoldError, suggest
from workbench.widgets.colours import branches, colours_of, levels
from workbench.widgets.page import write_page

if TYPE_CHECKING:
    from workbench.data import Hierarchy

HERE = Path(__file__).parent
# Plain text joined in reading order; the browser sees one ES module.
SCRIPT = "\n".join((HERE / name).read_text("utf-8") for name in ("isometry.js", "painting.js", "disk.js"))
GLOSS_LENGTH = 140


class DiskView(anywidget.AnyWidget):
    """Explore points of the hyperbolic plane: drag moves the plane by isometry, nothing is ever rescaled.

    The pointer holds on to the point it grabbed; double-click (or Enter) centres the nearest point along the
    geodesic, a click selects, hovering shows name, gloss and path to the root, arrow keys move, Home returns.
    Closed loops turn the plane (holonomy); `upright` undoes the turn. Möbius maps run in JavaScript doubles.

    Args:
        points: (N, 2) coordinates in the unit Poincaré ball (c = 1), an array or a tensor.
        edges: (E, 2) pairs of point numbers, parent first, drawn as geodesics.
        color: see `workbench.widgets.colours.colours_of`.
        labels: N short names drawn beside points.
        glosses: N explanations shown on hover (cut to 140 characters).
        parents: (N,) each point's parent, -1 at roots: for paths on hover, and to label large branches first.
        categories: names of the integer codes in `color`.
        names: N unique names for `move_to`; the labels if not given.
        size: largest width in CSS pixels; the view shrinks with its container.
        color_title: heading of the legend.

    Traits, synchronised both ways (from the browser once a gesture is over): `center`, the `[x, y]` shown in
    the middle; `selected`, a point number or -1; `upright`. Setting `center` or `selected` moves the view.

    Raises:
        ManifoldError: points of another shape, not finite, or not inside the unit disk.
        DataError: labels, glosses, parents, colours or edges that do not fit the points.

    References:
        Lamping, Rao, Pirolli, "A focus+context technique based on hyperbolic geometry", CHI 1995.
    """

    _esm = SCRIPT
    _xy = t.Bytes(b"").tag(sync=True)  # float64, interleaved: float32 blurs re-centred views from radius 10
    _edges = t.Bytes(b"").tag(sync=True)  # uint32 pairs
    _color = t.Bytes(b"").tag(sync=True)  # uint8 into _legend["colours"]
    _parents = t.Bytes(b"").tag(sync=True)  # int32, -1 at roots; empty if there are none
    _text = t.Bytes(b"").tag(sync=True)  # zlib of one row a point: label, tab, name, tab, gloss
    _legend = t.Dict().tag(sync=True)

    center = t.List(t.Float(), [0.0, 0.0], minlen=2, maxlen=2).tag(sync=True)
    selected = t.Int(-1).tag(sync=True)
    upright = t.Bool(False).tag(sync=True)
    size = t.Int(640, min=160).tag(sync=True)

    def __init__(
        self,
        points: Any,
        edges: Any = None,
        color: Any = None,
        labels: Sequence[str] | None = None,
        glosses: Sequence[str] | None = None,
        parents: Any = None,
        categories: Sequence[str] | None = None,
        size: int = 640,
        *,
        names: Sequence[str] | None = None,
        color_title: str = "",
        **traits: Any,
    ):
        self._points = _checked_points(points)
        n = len(self._points)
        texts = {"labels": labels, "names": names, "glosses": glosses}
        for what, given in texts.items():
            if given is not None and len(given) != n:
                raise DataError(f"{what} needs one entry for each of the {n} points, but has {len(given)}")
        colours = colours_of(color, n, categories, color_title)
        self._names = names if names is not None else labels
        self._numbers: dict[str, int] | None = None
        super().__init__(
            _xy=self._points.tobytes(),
            _edges=_checked_edges(edges, n).tobytes(),
            _color=colours.codes.tobytes(),
            _parents=_checked_parents(parents, n).tobytes(),
            _text=_packed_text(labels, names, glosses),
            _legend=colours.legend,
            size=size,
            **traits,
        )

    @classmethod
    def of(cls, hierarchy: Hierarchy, points: Any, color: Any = "depth", **options: Any) -> DiskView:
        """View of a hierarchy: its edges, labels, glosses and paths to the root.

        Args:
            color: `"depth"`, `"subtree"` (a few large branches), or an array as in the constructor.
            options: anything else the constructor takes; overrides what the hierarchy says.
        """
        parents = np.asarray(hierarchy.spanning_tree())
        title, categories = "", None
        if isinstance(color, str) and color == "depth":
            color, title = np.asarray(hierarchy.depth, float), "depth"  # float: few levels are still an order
        elif isinstance(color, str) and color == "subtree":
            color, tops = branches(parents)
            categories, title = [hierarchy.labels[i] for i in tops], "branch"
        elif isinstance(color, str):
            raise DataError(f"color must be 'depth', 'subtree' or an array, not {color!r}")
        given = {
            "edges": hierarchy.edges,
            "labels": hierarchy.labels,
            "glosses": hierarchy.glosses,
            "names": hierarchy.names,
            "parents": parents,
            "categories": categories,
            "color_title": title,
        }
        return cls(points, color=color, **{**given, **options})

    @property
    def points(self) -> np.ndarray:
        """(N, 2) float64 ball coordinates; assign as many new ones to move the points (live training)."""
        return self._points

    @points.setter
    def points(self, points: Any) -> None:
        points = _checked_points(points)
        if len(points) != len(self._points):
            raise DataError(f"this view shows {len(self._points)} points, but {len(points)} came")
        self._points = points
        self._xy = points.tobytes()

    def move_to(self, point: str | int) -> None:
        """Select a point, by name or number, and centre the view on it.

        Raises:
            DataError: no such name (with a suggestion) or number.
        """
        i = self.index(point) if isinstance(point, str) else int(point)
        if not 0 <= i < len(self._points):
            raise DataError(f"no point {i}: points are numbered 0 to {len(self._points) - 1}")
        with self.hold_sync():
            self.center = self._points[i].tolist()
            self.selected = i

    def index(self, name: str) -> int:
        """Number of the point called `name`; the first one if a label is not unique."""
        if self._numbers is None:
            self._numbers = {}
            for i, known in enumerate(self._names or []):
                self._numbers.setdefault(str(known), i)
        if name not in self._numbers:
            raise DataError(f"no point is called {name!r}{suggest(name, self._numbers)}")
        return self._numbers[name]

    def to_html(self, path: str | Path, title: str = "Poincaré disk") -> Path:
        """Write the view as one self-contained page that works offline, from a file; returns its path."""
        return write_page(path, title, SCRIPT, self.get_state(_PAGE_TRAITS))

    @t.validate("center")
    def _check_center(self, proposal: Any) -> list[float]:
        x, y = proposal["value"]
        if not np.hypot(x, y) < 1:  # also refuses NaN
            raise ManifoldError(f"center must lie inside the unit disk, but is [{x}, {y}]")
        return [float(x), float(y)]

    @t.validate("selected")
    def _check_selected(self, proposal: Any) -> int:
        i = proposal["value"]
        if not -1 <= i < len(self._points):
            raise DataError(f"selected must be a point from 0 to {len(self._points) - 1}, or -1, not {i}")
        return i


_PAGE_TRAITS = [
    *("_xy", "_edges", "_color", "_parents", "_text", "_legend"),
    *("center", "selected", "upright", "size"),
]


def _checked_points(points: Any) -> np.ndarray:
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
    bad = np.flatnonzero(~(radius < 1))
    if len(bad):
        raise ManifoldError(
            f"points must lie inside the unit disk, but point {bad[0]} is {points[bad[0]].tolist()}"
            + (f" (and {len(bad) - 1} more are outside)" if len(bad) > 1 else "")
        )
    return points


def _checked_edges(edges: Any, n: int) -> np.ndarray:
    if edges is None or not len(edges):
        return np.zeros((0, 2), "<u4")
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise DataError(f"edges must be (E, 2) integers, but are {edges.dtype} of shape {edges.shape}")
    bad = np.flatnonzero(((edges < 0) | (edges >= n)).any(1))
    if len(bad):
        raise DataError(f"edge {bad[0]} is {edges[bad[0]].tolist()}, but points are numbered 0 to {n - 1}")
    return np.ascontiguousarray(edges, "<u4")


def _checked_parents(parents: Any, n: int) -> np.ndarray:
    if parents is None:
        return np.zeros(0, "<i4")
    parents = np.asarray(parents)
    if parents.shape != (n,) or parents.dtype.kind not in "iu":
        raise DataError(f"parents must be {n} integers, but are {parents.dtype} of shape {parents.shape}")
    bad = np.flatnonzero((parents < -1) | (parents >= n))
    if len(bad):
        raise DataError(f"the parent of point {bad[0]} is {parents[bad[0]]}, expected -1 to {n - 1}")
    levels(parents)  # refuses cycles, which would trap the browser
    return np.ascontiguousarray(parents, "<i4")


def _packed_text(*columns: Sequence[str] | None) -> bytes:
    """Labels, names and glosses as one compressed blob: 82,000 nodes are one trait, not 250,000 strings."""
    labels, names, glosses = columns
    if labels is None and names is None and glosses is None:
        return b""
    n = len(next(c for c in columns if c is not None))
    empty = [""] * n

    def clean(text: Any) -> str:
        return " ".join(str(text).split())

    rows = []
    for label, name, gloss in zip(labels or empty, names or empty, glosses or empty, strict=True):
        gloss = clean(gloss)
        if len(gloss) > GLOSS_LENGTH:
            gloss = gloss[: GLOSS_LENGTH - 1].rsplit(" ", 1)[0] + "…"
        rows.append("\t".join((clean(label), clean(name) if name != label else "", gloss)).rstrip("\t"))
    return zlib.compress("\n".join(rows).encode(), 6)
