"""Points and hierarchies on the Poincaré disk. Arrays in curvature −1 coordinates in, plotly figure out."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from workbench.errors import ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.canvas import REACH, SIDE, finish, join, polyline
from workbench.plots.labels import descendants, place_labels
from workbench.plots.template import COLORSCALE, GREY, INK, LIGHT, PALETTE, SPACER, legend_width, text_width

GL_FROM = 3_000  # markers from which WebGL draws faster than SVG
MANY = 20_000  # points from which markers have one size and those on the same half pixel are merged
ARC_ERROR = 0.15  # pixels an arc's polyline may stray from the arc


def disk(
    points,
    edges=None,
    color=None,
    labels: Sequence[str] | None = None,
    hover: Sequence[str] | None = None,
    *,
    title: str | None = None,
    subtitle: str | None = None,
    color_title: str | None = None,
    categorical: bool | None = None,
    top_categories: int = 6,
    colorscale=None,
    size: float | Sequence[float] | None = None,
    color_edges: bool = False,
    label_top: int = 40,
    label_priority=None,
    label_size: float = 14,
    hover_top: int = 4_000,
    max_edges: int = 20_000,
    side: int = SIDE,
) -> go.Figure:
    """Points of the hyperbolic plane, with the true geodesics between them.

    Points are drawn from rim to centre, so that roots lie on top. `layout.meta` counts what a large hierarchy
    leaves out: edges, hover texts, labels, and above 20,000 points markers of one colour on one half pixel.

    Args:
        points: (N, 2) array inside the unit disk (curvature −1 coordinates).
        edges: (E, 2) int pairs parent→child, drawn as geodesic arcs below the points. Edges shorter than half
            a pixel are left out; beyond `max_edges` those longest on screen are kept.
        color: (N,) numbers (drawn with a colour bar) or categories (drawn with a legend: the `top_categories`
            largest in palette colours, the others grey).
        labels: (N,) short names; up to `label_top` are written where they overlap no other.
        hover: (N,) HTML texts, see `hover_texts`; of more than `hover_top` only the most important are kept.
        color_title: title of the colour bar or legend.
        categorical: treat integer colours as categories. Default: strings and booleans only.
        colorscale: any plotly colorscale for numbers; default viridis.
        size: marker diameter in pixels, or (N,) of them; one diameter shrinks towards the rim, and the default
            with N.
        color_edges: edges take the colour of their child's category (categories only).
        label_priority: (N,) numbers, the largest is written first; default the number of descendants when
            there are edges, else closeness to the origin.
        side: pixels of the square that holds the disk.

    Raises:
        ManifoldError: points of wrong shape, not finite, or not inside the disk.
        ParameterError: an argument whose length or indices do not fit the points.
    """
    z = plane.as_complex(points)
    n = len(z)
    edges = _edges(edges, n)
    sizes = None if size is None or np.ndim(size) == 0 else size
    given = dict(color=color, labels=labels, hover=hover, label_priority=label_priority, size=sizes)
    for name, value in given.items():
        if value is not None and len(value) != n:
            raise ParameterError(f"{name} must have one entry per point: {n} points, {len(value)} entries")
    fig, meta, unit = go.Figure(), {"points": n}, side / (2 * REACH)
    if categorical is None:
        categorical = color is not None and np.asarray(color).dtype.kind not in "iuf"
    groups = _Categories(color, top_categories) if color is not None and categorical else None
    line = np.zeros(0, complex)
    if edges is not None:
        kept, meta["edges"] = edges_worth_drawing(z, edges, unit=unit, max_edges=max_edges)
        line = edge_lines(z, kept, unit=unit)
        width = 1.2 if len(edges) < 500 else 0.9 if len(edges) < GL_FROM else 0.5
        look = dict(name="edges", width=width, gl=n >= GL_FROM)
        veil = "rgba(140, 146, 153, 0.3)" if n >= GL_FROM else LIGHT  # thousands must not add up to a solid
        if color_edges and groups is not None:
            for k, tint in enumerate([veil, *(_veiled(c) for c in PALETTE[: len(groups.chosen)])], -1):
                some = edge_lines(z, kept[groups.codes[kept[:, 1]] == k], unit=unit)
                fig.add_trace(polyline(some, uid=f"edges-{k}", color=tint, **look))
        else:
            fig.add_trace(polyline(line, uid="edges", color=veil, **look))
    if label_priority is not None:
        priority = np.asarray(label_priority, dtype=float)
    else:
        priority = (descendants(n, edges) if edges is not None else 0) - np.abs(z)  # the modulus breaks ties
    important = np.argsort(-priority, kind="stable")

    marker = float(np.mean(size)) if size is not None else float(np.clip(26 * max(n, 1) ** -0.22, 1.8, 12))
    style = _Markers(z, marker if sizes is None else sizes, unit, hover if n <= hover_top else None)
    if color is None:
        right = 20
        fig.add_trace(style.trace(np.arange(n), uid="points", color=PALETTE[0]))
    elif groups is not None:
        right = _add_categories(fig, style, groups, color_title)
    else:
        right = 20 + _add_values(fig, style, color, colorscale or COLORSCALE, color_title, side)
    if style.drawn < n:
        meta["drawn"] = style.drawn
    if hover is not None and n > hover_top:
        fig.add_trace(style.hover_layer(important[:hover_top], hover))
        meta["hover"] = hover_top
    if labels is not None:
        lines = _along(line * unit) if len(line) < 100_000 else None
        options = dict(limit=label_top, font=label_size, marker=marker, side=side, unit=unit, lines=lines)
        meta["labels"] = _add_labels(fig, z, labels, important, **options)
    return finish(fig, title=title, subtitle=subtitle, right=right, side=side, meta=meta)


def edges_worth_drawing(
    z: np.ndarray, edges: np.ndarray, *, unit: float, max_edges: int
) -> tuple[np.ndarray, dict]:
    """Edges at least half a pixel long, the `max_edges` longest on screen of them; and what was left out."""
    chord = np.abs(z[edges[:, 0]] - z[edges[:, 1]]) * unit
    keep = np.flatnonzero(chord >= 0.5)
    about: dict = {"given": len(edges)}
    if len(keep) > max_edges:
        keep = np.sort(keep[np.argsort(-chord[keep], kind="stable")[:max_edges]])
        about["kept"] = "longest on screen"
    return edges[keep], about | {"drawn": len(keep)}


def edge_lines(z: np.ndarray, edges: np.ndarray, *, unit: float) -> np.ndarray:
    """Geodesic edges as one NaN-separated complex polyline.

    Args:
        z: (N,) complex points.
        edges: (E, 2) ints.
        unit: pixels per unit of the disk; arcs get the segments that keep them within 0.15 pixel.
    """
    u, v = z[edges[:, 0]], z[edges[:, 1]]
    bulge = np.abs(u - v) * unit / 2 * np.abs(np.tan(plane.half_angle(u, v) / 2))
    segments = np.clip(np.ceil(np.sqrt(bulge / ARC_ERROR)), 1, 24).astype(int)
    pieces = [np.zeros(0, complex)]
    for count in np.unique(segments):
        same = segments == count
        pieces.append(join(plane.geodesic_polyline(u[same], v[same], int(count))))
    return np.concatenate(pieces)


class _Categories:
    """The categories that get a colour of their own, largest first, and which of them each point is in (−1: none)."""

    def __init__(self, color, top: int):
        names = np.asarray([str(c) for c in color])
        unique, code, counts = np.unique(names, return_inverse=True, return_counts=True)
        best = np.lexsort((unique, -counts))[: min(top, len(PALETTE))]
        place = np.full(len(unique), -1)
        place[best] = np.arange(len(best))
        self.chosen, self.codes = unique[best].tolist(), place[code]


def _veiled(color: str) -> str:
    return "rgba({}, {}, {}, 0.4)".format(*hex_to_rgb(color))


class _Markers:
    """How points of one figure are drawn: kind of trace, sizes, hover texts."""

    def __init__(self, z: np.ndarray, size, unit: float, hover: Sequence[str] | None):
        self.z, self.unit, self.drawn = z, unit, 0
        self.kind = go.Scattergl if len(z) >= GL_FROM else go.Scatter
        self.many = len(z) > MANY
        self.each = np.ndim(size) > 0 or not self.many
        rim = 1.0 if np.ndim(size) or self.many else 0.55 + 0.45 * (1 - np.abs(z) ** 2)
        self.size = np.asarray(size, dtype=np.float32) * rim if self.each else size
        self.hover = None if hover is None else np.asarray(hover, dtype=object)

    def trace(self, index: np.ndarray, *, uid: str, color, **marker):
        """Markers at z[index], rim first; `color` one for all, or (N,) values."""
        index = index[np.argsort(-np.abs(self.z[index]), kind="stable")]
        values = None if isinstance(color, str) else color[index]
        if self.many:
            cell = np.round(self.z[index] * self.unit * 2)
            keys = [cell.real, cell.imag] + ([values] if values is not None else [])
            # The last on a half pixel is the innermost, which is drawn on top.
            last = len(index) - 1 - np.unique(np.column_stack(keys)[::-1], axis=0, return_index=True)[1]
            index = index[np.sort(last)]
            values = None if values is None else color[index]
        self.drawn += len(index)
        outline = dict(color="white", width=0.6 if self.kind is go.Scatter else 0)
        look = dict(
            size=self.size[index] if self.each else self.size,
            color=color if values is None else values,
            line=outline,
            opacity=1,
        )
        z = self.z[index]
        trace = self.kind(x=z.real, y=z.imag, mode="markers", uid=uid, showlegend=False, marker=look | marker)
        if self.hover is None:
            return trace.update(hoverinfo="skip")
        return trace.update(text=self.hover[index].tolist(), hovertemplate="%{text}<extra></extra>")

    def hover_layer(self, kept: np.ndarray, hover: Sequence[str]):
        """Invisible, generously sized markers that carry the texts of the most important points."""
        z, texts = self.z[kept], [hover[i] for i in kept]
        base = dict(mode="markers", uid="hover", showlegend=False, marker=dict(size=9, opacity=0))
        return self.kind(x=z.real, y=z.imag, text=texts, hovertemplate="%{text}<extra></extra>", **base)


def _edges(edges, n: int) -> np.ndarray | None:
    if edges is None:
        return None
    edges = np.asarray(edges)
    if edges.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise ParameterError(f"edges must be an (E, 2) array of integers, got {edges.dtype} {edges.shape}")
    if edges.min() < 0 or edges.max() >= n:
        raise ParameterError(f"edges must name points 0 to {n - 1}, got {edges.min()} to {edges.max()}")
    return edges.astype(np.int64)


def _add_categories(fig, style: _Markers, groups: _Categories, title: str | None) -> int:
    """Grey "other" below, the largest categories above; returns the width of the legend."""
    rest = np.flatnonzero(groups.codes < 0)
    if rest.size:
        trace = style.trace(rest, uid="category-other", color=LIGHT)
        fig.add_trace(trace.update(name="other", showlegend=True, legendrank=2000))
    for k, name in enumerate(groups.chosen):
        trace = style.trace(np.flatnonzero(groups.codes == k), uid=f"category-{k}", color=PALETTE[k])
        fig.add_trace(trace.update(name=name, showlegend=True))
    fig.update_layout(legend=dict(title_text=title, itemsizing="constant", itemwidth=30))
    return legend_width([*groups.chosen, "other", title or ""])


def _add_values(fig, style: _Markers, color, colorscale, title: str | None, side: int) -> int:
    """Markers with a colour bar; returns the width of the bar."""
    values = np.asarray(color)
    if not np.isfinite(values.astype(float)).all():
        raise ParameterError("color must be finite numbers, got NaN or infinity")
    bar = dict(title_text=title and title + SPACER, len=0.5 * side, lenmode="pixels", y=0.5, x=1.01)
    if values.dtype.kind in "iu":
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        step = next((s for s in (1, 2, 5, 10, 20, 50, 100) if high - low <= 12 * s), None)
        bar |= dict(tickmode="linear", tick0=0, dtick=step) if step else {}
        if low >= -128 and high < 128:
            values = values.astype(np.int8)  # one byte a point in the file
    trace = style.trace(np.arange(len(values)), uid="points", color=values, colorscale=colorscale)
    fig.add_trace(trace.update(marker_colorbar=bar))
    return int(max(64, text_width(title or "", 14) + 28))


def _add_labels(fig, z, labels, order, *, limit, font, marker, side, unit, lines) -> dict:
    half = side / 2
    rim = unit * np.exp(2j * np.pi * np.arange(3000) / 3000)
    obstacles = [(_xy(rim), 1.0)] + ([(_xy(lines), 0.03)] if lines is not None else [])
    placed = place_labels(
        _xy(z * unit),
        labels,
        order[: 6 * limit + 40],
        font=font,
        marker=marker,
        bounds=(-half, -half, half, half),
        limit=limit,
        obstacles=obstacles,
    )
    notes = []
    for label in placed:
        at = z[label.index]
        note = dict(x=float(at.real), y=float(at.imag), text=html.escape(str(labels[label.index])))
        if label.leader:
            away = dict(ax=round(label.dx, 1), ay=round(-label.dy, 1))
            note |= dict(showarrow=True, arrowhead=0, arrowwidth=1, arrowcolor=GREY) | away
        else:
            note |= dict(showarrow=False, xshift=round(label.dx, 1), yshift=round(label.dy, 1))
        notes.append(note | dict(font_size=font, bgcolor="rgba(255,255,255,0.72)", borderpad=0))
    fig.update_layout(annotations=notes)
    if len(z) >= GL_FROM and placed:  # in a crowd a label must show which of the points it means
        named = z[[label.index for label in placed]]
        dot = dict(size=5, color=INK, line=dict(color="white", width=1))
        base = dict(mode="markers", marker=dot, uid="labelled", hoverinfo="skip", showlegend=False)
        fig.add_trace(go.Scattergl(x=named.real, y=named.imag, **base))  # SVG would lie below WebGL
    return {"given": sum(bool(text) for text in labels), "placed": len(placed)}


def _along(line: np.ndarray) -> np.ndarray:
    """Points every few pixels along a NaN-separated polyline given in pixels."""
    start, step = line[:-1], np.diff(line)
    known = np.isfinite(step)
    start, step = start[known], step[known]
    count = np.clip(np.ceil(np.abs(step) / 2), 1, 200).astype(int)
    which = np.repeat(np.arange(len(start)), count)
    within = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)) / count[which]
    return start[which] + within * step[which]


def _xy(z: np.ndarray) -> np.ndarray:
    return np.column_stack([z.real, z.imag])
