"""`DiskView`: a Poincaré disk that moves under the hand by isometries."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets as t

from workbench.errors import DataError, ManifoldError, suggest
from workbench.widgets.colours import branches, colours_of, levels
from workbench.widgets.page import write_page
from workbench.widgets.points import checked_points

if TYPE_CHECKING:
    from workbench.data import Hierarchy

HERE = Path(__file__).parent
# Plain text joined in reading order; the browser sees one ES module.
PARTS = (
    "isometry", "models", "charts", "scene", "painting", "webgl", "saving", "page", "controls", "disk"
)  # fmt: skip
SCRIPT = "\n".join((HERE / f"{part}.js").read_text("utf-8") for part in PARTS)
GLOSS_LENGTH = 140
CHARTS = ("disk", "klein", "half-plane", "hyperboloid")
NEAREST = 8
TABLE_MOST = 5000  # points up to which a page brings along who is nearest in all dimensions
Near = Callable[[int], tuple[Sequence[int], Sequence[float]]]


class DiskView(anywidget.AnyWidget):
    """Explore points of the hyperbolic plane: drag moves the plane by isometry, nothing is ever rescaled.

    The pointer holds on to the point it grabbed; double-click (or Enter) centres the nearest point along the
    geodesic, a click selects and lists the nearest points, hovering shows name, gloss and path to the root, arrow
    keys move, Home returns, slash searches. Closed loops turn the plane (holonomy); `upright` undoes the turn. Möbius
    maps run in JavaScript doubles; from 3,000 points WebGL2 paints, where a graphics card is behind it.

    Args:
        points: (N, 2) coordinates in the unit Poincaré ball (c = 1), an array or a tensor; with space="flat",
            any finite coordinates of the flat plane, for comparison.
        edges: (E, 2) pairs of point numbers, parent first, drawn as geodesics.
        color: see `workbench.widgets.colours.colours_of`.
        labels: N short names drawn beside points.
        glosses: N explanations shown on hover (cut to 140 characters).
        parents: (N,) each point's parent, -1 at roots: for paths on hover, and to label large branches first.
        categories: names of the integer codes in `color`.
        names: N unique names for `move_to`; the labels if not given.
        size: largest width in CSS pixels; the view shrinks with its container.
        color_title: heading of the legend.
        space: "hyperbolic" or "flat".
        near: for embeddings of more dimensions than are drawn: takes a point's number, returns the numbers of its
            nearest points, nearest first, and their true distances. Without it the distance on the disk counts.
        metric: what those distances are, such as "in 10 dimensions".

    Traits, synchronised both ways (from the browser once a gesture is over): `center`, the `[x, y]` shown in the
    middle; `selected`, a point number or -1; `lassoed`, numbers of the points that were drawn around; `upright`;
    `chart`, the model of the plane: "disk", "klein", "half-plane" or "hyperboloid"; `curvature`, a dial: points keep
    direction and distance from the origin in the plane of sectional curvature -c; `subtree`, only what is at or below
    this point (-1: all); `max_depth`, only so deep (-1: all). Setting `center` or `selected` moves the view. `tools`
    False leaves out the controls for these; `renderer` is "auto", "webgl" or "canvas".

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
    lassoed = t.List(t.Int()).tag(sync=True)
    chart = t.Enum(CHARTS, "disk").tag(sync=True)
    curvature = t.Float(1.0).tag(sync=True)
    subtree = t.Int(-1).tag(sync=True)
    max_depth = t.Int(-1, min=-1).tag(sync=True)
    tools = t.Bool(True).tag(sync=True)
    renderer = t.Enum(("auto", "webgl", "canvas"), "auto").tag(sync=True)
    metric = t.Unicode("in all dimensions").tag(sync=True)
    _unit = t.Float(0.0).tag(sync=True)  # of a flat plane: how far its window reaches; 0: hyperbolic
    _near = t.Dict().tag(sync=True)  # {"of": point, "near": [[point, distance], ...]}
    _table = t.Bytes(b"").tag(sync=True)  # uint32, N × width: the same of all points, for pages
    _table_gaps = t.Bytes(b"").tag(sync=True)  # float32, alike
    _table_width = t.Int(0).tag(sync=True)

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
        space: str = "hyperbolic",
        near: Near | None = None,
        **traits: Any,
    ):
        if space not in ("hyperbolic", "flat"):
            raise DataError(f"space must be 'hyperbolic' or 'flat', but came as {space!r}")
        self._flat = space == "flat"
        self._points = checked_points(points, self._flat)
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
            _unit=_reach(self._points) if self._flat else 0.0,
            size=size,
            **traits,
        )
        self._near_of = near
        if near is not None:
            self.observe(self._find_near, "selected")

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
        points = checked_points(points, self._flat)
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
        state = self.get_state(_PAGE_TRAITS)
        if self._near_of is not None and len(self._points) <= TABLE_MOST:
            state |= self._near_table()
        return write_page(path, title, SCRIPT, state)

    def _find_near(self, change: Any) -> None:
        if change["new"] >= 0:
            ids, gaps = self._near_of(change["new"])
            near = [[int(i), float(d)] for i, d in zip(ids, gaps, strict=True)][:NEAREST]
            self._near = {"of": change["new"], "near": near}

    def _near_table(self) -> dict[str, Any]:
        rows = [self._near_of(i) for i in range(len(self._points))]
        width = min(NEAREST, min(len(ids) for ids, _ in rows))
        ids, gaps = (np.array([row[k][:width] for row in rows]) for k in (0, 1))
        table = {"_table": ids.astype("<u4").tobytes(), "_table_gaps": gaps.astype("<f4").tobytes()}
        return table | {"_table_width": width}

    @t.validate("center")
    def _check_center(self, proposal: Any) -> list[float]:
        x, y = proposal["value"]
        if not np.hypot(x, y) < (np.inf if self._flat else 1):  # also refuses NaN
            raise ManifoldError(f"center must lie inside the unit disk, but is [{x}, {y}]")
        return [float(x), float(y)]

    @t.validate("selected", "subtree")
    def _check_selected(self, proposal: Any) -> int:
        i, name = proposal["value"], proposal["trait"].name
        if not -1 <= i < len(self._points):
            raise DataError(f"{name} must be a point from 0 to {len(self._points) - 1}, or -1, not {i}")
        return i

    @t.validate("lassoed")
    def _check_lassoed(self, proposal: Any) -> list[int]:
        bad = [i for i in proposal["value"] if not 0 <= i < len(self._points)]
        if bad:
            raise DataError(f"lassoed may hold points from 0 to {len(self._points) - 1}, but has {bad[0]}")
        return proposal["value"]

    @t.validate("curvature")
    def _check_curvature(self, proposal: Any) -> float:
        if not 0.01 <= proposal["value"] <= 100:
            raise ManifoldError(f"curvature must be from 0.01 to 100 here, but came as {proposal['value']}")
        return proposal["value"]


_PAGE_TRAITS = [
    *("_xy", "_edges", "_color", "_parents", "_text", "_legend", "_unit", "_near", "_table", "_table_gaps"),
    *("_table_width", "metric", "center", "selected", "lassoed", "upright", "chart", "curvature", "subtree"),
    *("max_depth", "tools", "renderer", "size"),
]


def _reach(points: np.ndarray) -> float:
    """The window of a flat plane: it shows 99 % of the points, seen from the origin."""
    return float(1.05 * np.quantile(np.hypot(points[:, 0], points[:, 1]), 0.99)) or 1.0


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
