"""What a residual quantiser does to the plane: cells of codes, the view from one code, prefix trees."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from workbench.errors import DataError, ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.canvas import REACH, SIDE, finish, polyline
from workbench.plots.labels import place_labels
from workbench.plots.template import (
    GREY,
    INK,
    LIGHT,
    PALETTE,
    frame,
    text_width,
)
from workbench.plots.voronoi import Cell, balanced, colouring, outline_of, voronoi

# Fills of neighbouring cells: the palette without yellow, which white paper swallows, and black.
HUES = PALETTE[:6]
Prefix = tuple[int, ...]


def cells(
    points,
    codes,
    codebooks: Sequence,
    *,
    prefix: Sequence[int] = (),
    center: str = "origin",
    deeper: bool = True,
    names: Sequence[str] | Mapping[int, str] | None = None,
    hover: Sequence[str] | None = None,
    flat: bool = False,
    title: str | None = None,
    subtitle: str | None = None,
    label_top: int = 40,
    label_size: float = 13,
    side: int = SIDE,
) -> go.Figure:
    """The plane cut into the cells of the codes that follow `prefix`: what is nearest to which code.

    With an empty prefix the first level on the disk. With one, the view from that code: everything is translated so
    that its point is the origin, which is the residual of exact left order; its cell is cut into those of the next
    level, and points of other codes are grey. Neighbouring cells differ in colour; codes that occur are named.

    Args:
        points: (N, 2) points inside the unit disk (curvature −1 coordinates: √c times those of curvature −c).
        codes: (N, L) ints, a row a point.
        codebooks: one (K, 2) array of codes a level, same coordinates as the points.
        prefix: 0 to L − 1 codes.
        center: "origin", or "codes": seen from the point around which the codes that occur lie evenly, so that
            cells crowded at the rim open up (an isometry: cells stay cells).
        deeper: draw the cells of the level after in thin lines (where there is one).
        names: code → what to write beside its number, e.g. the members' common ancestor.
        hover: (N,) HTML texts of the points.
        flat: cells of the Euclidean distance between coordinates, and differences as residuals.
        label_top: codes named at most, those with most members first.
        side: pixels of the square that holds the disk.

    Raises:
        ManifoldError: points or codes outside the disk. ParameterError: shapes that do not fit.
        DataError: no point has this prefix.
    """
    z, codes, books = _given(points, codes, codebooks, hover)
    if center not in ("origin", "codes") or (flat and center == "codes"):
        raise ParameterError(f"center must be 'origin' or, unless flat, 'codes', got {center!r}")
    prefix, level = tuple(int(code) for code in prefix), len(prefix)
    if level >= codes.shape[1]:
        raise ParameterError(f"prefix must leave a level to draw: at most {codes.shape[1] - 1}, got {level}")
    inside = (codes[:, :level] == np.asarray(prefix, dtype=np.int64)).all(1)
    if not inside.any():
        raise DataError(f"no point has a code that starts with {prefix}")
    code, book = codes[:, level], books[level]
    within: list = []
    for own, above in zip(prefix, books, strict=False):
        at = above[own]
        z, within = _move(z, at, flat), [(_move(a, at, flat), _move(b, at, flat)) for a, b in within]
        within.append((0j, _move(np.delete(above, own), at, flat)))
    finer = None
    if deeper and level + 1 < len(books):
        finer = {int(k): _move(books[level + 1], -book[k], flat) for k in np.unique(code[inside])}
    view = _View(z[inside], book, np.unique(code[inside]), center, flat, not prefix)
    z, book, within = view(z), view(book), [(view(a), view(b)) for a, b in within]
    fig, cut = go.Figure(), dict(flat=flat, unit=side / (2 * REACH))
    tiles = voronoi(book, within=within, **cut)
    hues = _hues(tiles, len(book))
    texts = _named(code[inside], len(book), names)
    about = _about(code[inside], texts)
    for tile in tiles:
        fig.add_trace(_filled(tile, HUES[hues[tile.site]], about[tile.site]))
    if finer:
        lines = [np.zeros(0, complex)]
        for k, sites in finer.items():
            parts = voronoi(view(sites), within=[*within, (book[k], np.delete(book, k))], **cut)
            lines += [np.append(part.outline, np.nan) for part in parts if _size(part) * cut["unit"] > 3]
        fig.add_trace(polyline(np.concatenate(lines), uid="finer", width=0.7, color="rgba(255,255,255,0.9)"))
    borders = [np.append(tile.outline, np.nan) for tile in tiles]
    fig.add_trace(polyline(np.concatenate(borders), uid="borders", width=1.2, color=GREY))
    if within:
        fig.add_trace(polyline(outline_of(within, **cut), uid="own-border", width=2.6, color=INK))
    _add_points(fig, z, inside, code, hues, hover)
    placed = _add_sites(fig, book, tiles, code[inside], texts, about, z, label_top, label_size, side)
    meta = {"points": int(inside.sum()), "cells": len(tiles), "labels": placed}
    return finish(fig, title=title, subtitle=subtitle, right=20, side=side, meta=meta)


def sunburst(
    codes,
    labels: Mapping[Prefix, str] | None = None,
    *,
    levels: int | None = None,
    smallest: int = 1,
    center: str = "all",
    title: str | None = None,
    subtitle: str | None = None,
    font: float = 13,
    side: int = 840,
) -> go.Figure:
    """The prefix tree of codes as rings, first level inmost; an angle is a number of members. A click opens a sector.

    Args:
        codes: (N, L) ints.
        labels: prefix → what its members have in common; written after the code.
        levels: rings, default 2 (or L).
        smallest: prefixes with fewer members are left out (their angle stays, empty).
        center: what stands in the middle.
        font: size of the letters; sectors too narrow for nine pixels are not written in.

    Raises:
        ParameterError: codes of another shape, or a number of levels that they do not have.
    """
    codes = _codes(codes)
    levels = min(2, codes.shape[1]) if levels is None else levels
    if not 1 <= levels <= codes.shape[1]:
        raise ParameterError(f"levels must be from 1 to {codes.shape[1]}, got {levels!r}")
    rows = [((), len(codes), center)]
    for level in range(1, levels + 1):
        found, count = np.unique(codes[:, :level], axis=0, return_counts=True)
        for name, size in zip(found.tolist(), count.tolist(), strict=True):
            if size >= smallest:
                rows.append((tuple(name), size, (labels or {}).get(tuple(name), "")))
    rows = _in_order(rows)
    colors = _ring_colors([row[0] for row in rows])
    ring = side / 2 / (levels + 1)
    shown = [_sector_text(p, text, 2 * np.pi * size / len(codes), ring, font) for p, size, text in rows]
    about = [
        f"<b>{', '.join(map(str, p)) or 'all'}</b>  {html.escape(text)}<br>{size:,} members"
        for p, size, text in rows
    ]
    edge = [1.5 if len(p) < 2 else 0.6 for p, *_ in rows]
    fig = go.Figure(
        go.Sunburst(
            uid="sunburst", ids=[_id(p) for p, *_ in rows], labels=shown,
            parents=[_id(p[:-1]) if p else "" for p, *_ in rows], values=[size for _, size, _ in rows],
            branchvalues="total", sort=False, marker=dict(colors=colors, line=dict(color="white", width=edge)),
            text=about, textinfo="label", hovertemplate="%{text}<extra></extra>",
            insidetextorientation="radial", insidetextfont=dict(size=font, color=INK), rotation=90,
        )
    )  # fmt: skip
    frame(fig, title=title, subtitle=subtitle, width=side + 32, height=side, left=16, right=16, bottom=16)
    margin = fig.layout.margin
    fig.update_layout(
        height=int(side + margin.t + margin.b), meta={"prefixes": len(rows) - 1, "levels": levels}
    )
    return fig


# -- cells ------------------------------------------------------------------------------------------------
def _given(points, codes, codebooks, hover) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    z, codes = plane.as_complex(points), _codes(codes)
    if len(z) != len(codes):
        raise ParameterError(f"codes must have one row per point: {len(z)} points, {len(codes)} rows")
    if hover is not None and len(hover) != len(z):
        raise ParameterError(f"hover must have one entry per point: {len(z)} points, {len(hover)} entries")
    books = [plane.as_complex(book, f"codebook {i + 1}") for i, book in enumerate(codebooks)]
    if len(books) < codes.shape[1]:
        raise ParameterError(f"{codes.shape[1]} levels of codes need as many codebooks, got {len(books)}")
    for i, (book, column) in enumerate(zip(books, codes.T, strict=False)):
        if column.max() >= len(book):
            raise ParameterError(f"codebook {i + 1} has {len(book)} codes, but code {column.max()} occurs")
    return z, codes, books[: codes.shape[1]]


def _codes(codes) -> np.ndarray:
    array = np.asarray(codes)
    if array.ndim != 2 or array.dtype.kind not in "iu" or 0 in array.shape or array.min() < 0:
        raise ParameterError(
            f"codes must be whole numbers from 0, shape (N, levels), got {array.dtype} {array.shape}"
        )
    return array.astype(np.int64)


def _move(z, at, flat: bool):
    """The residual after the code at `at`, by left translation or, flat, by difference."""
    return np.asarray(z - at if flat else plane.translate(z, at))


class _View:
    """Carries what is drawn to where it is seen from: an isometry; flat, the scale that fits all members in."""

    def __init__(
        self, z: np.ndarray, book: np.ndarray, used: np.ndarray, center: str, flat: bool, whole: bool
    ):
        self.at = balanced(book[used]) if center == "codes" else 0j
        reach = 1.08 * float(abs(np.concatenate([z, book[used]])).max()) if flat else 1.0
        self.scale = max(reach, 1.0) if whole else reach or 1.0

    def __call__(self, z):
        return np.asarray(z) / self.scale if self.at == 0 else plane.translate(z, self.at)


def _size(cell: Cell) -> float:
    """The longer side of the box around a cell."""
    return max(np.ptp(cell.outline.real), np.ptp(cell.outline.imag))


def _hues(tiles: list[Cell], count: int) -> list[int]:
    """A colour for every code, −1 for those without a cell."""
    place = {tile.site: i for i, tile in enumerate(tiles)}
    near = [frozenset(place[j] for j in tile.neighbours if j in place) for tile in tiles]
    found = colouring(near, len(HUES))
    return [found[place[i]] if i in place else -1 for i in range(count)]


def _filled(tile: Cell, hue: str, about: str) -> go.Scatter:
    """One trace a cell: only then does the pointer know in which it is."""
    tint = "rgba({}, {}, {}, 0.34)".format(*hex_to_rgb(hue))
    told = dict(hoveron="fills", hoverinfo="text", text=about, customdata=[tile.site])
    return polyline(tile.outline, uid=f"cell-{tile.site}", width=0, fill="toself", fillcolor=tint, **told)


def _add_points(fig: go.Figure, z, inside, code, hues, hover) -> None:
    size = float(np.clip(30 * max(inside.sum(), 1) ** -0.3, 3, 7))
    rest = np.flatnonzero(~inside & (abs(z) < REACH))
    if rest.size:
        fig.add_trace(_dots(z, rest, LIGHT, 0.7 * size, hover, "others", outline=0))
    for k in range(-1, len(HUES)):
        mine = np.flatnonzero(inside & (np.asarray(hues)[code] == k))
        if mine.size:
            dots = _dots(z, mine, GREY if k < 0 else HUES[k], size, hover, f"points-{k}")
            fig.add_trace(dots.update(customdata=code[mine]))


def _dots(z, index, color: str, size: float, hover, uid: str, outline: float = 0.6) -> go.Scatter:
    look = dict(size=size, color=color, opacity=1, line=dict(color="white", width=outline))
    z = z[index]
    trace = go.Scatter(x=z.real, y=z.imag, mode="markers", marker=look, uid=uid, showlegend=False)
    if hover is None:
        return trace.update(hoverinfo="skip")
    return trace.update(text=[hover[i] for i in index], hovertemplate="%{text}<extra></extra>")


def _named(codes: np.ndarray, count: int, names) -> list[str]:
    """Number and name of every code that occurs, "" for the others."""
    names = dict(enumerate(names)) if names is not None and not isinstance(names, Mapping) else names or {}
    used = np.bincount(codes, minlength=count) > 0
    return [f"{i} {names.get(i, '')}".strip() if used[i] else "" for i in range(count)]


def _about(codes: np.ndarray, texts: list[str]) -> list[str]:
    """What every code says of itself under the pointer."""
    size = np.bincount(codes, minlength=len(texts))
    return [
        f"<b>code {html.escape(text or str(i))}</b><br>{n:,} member{'s' * (n != 1)}"
        for i, (text, n) in enumerate(zip(texts, size.tolist(), strict=True))
    ]


def _add_sites(fig, book, tiles, codes, texts, about, z, limit: int, font: float, side: int) -> dict:
    """Codes as crosses, and their names where they find room, those of many members first."""
    unit, half = side / (2 * REACH), side / 2
    size = np.bincount(codes, minlength=len(book))
    shown = {tile.site for tile in tiles}
    known = np.array([i for i in range(len(book)) if texts[i] or i in shown], dtype=int)
    known = known[abs(book[known]) < REACH]
    look = dict(symbol="x-thin", size=7, line=dict(color=INK, width=1.6))
    fig.add_trace(
        go.Scatter(
            x=book[known].real, y=book[known].imag, mode="markers", marker=look, uid="codes", showlegend=False,
            customdata=known, text=[about[i] for i in known],
            hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    pixels = np.column_stack([book.real, book.imag]) * unit
    crowd = np.column_stack([z.real, z.imag])[abs(z) < REACH] * unit
    placed = place_labels(
        pixels, texts, np.argsort(-size, kind="stable"), font=font, marker=8, limit=limit,
        bounds=(-half, -half, half, half), obstacles=[(crowd, 1.0)],
    )  # fmt: skip
    notes = []
    for label in placed:
        at, text = book[label.index], html.escape(texts[label.index])
        number, _, name = text.partition(" ")
        note = dict(x=float(at.real), y=float(at.imag), text=f"<b>{number}</b> {name}".strip())
        if label.leader:
            away = dict(ax=round(label.dx, 1), ay=round(-label.dy, 1), arrowcolor=INK)
            note |= dict(showarrow=True, arrowhead=0, arrowwidth=1) | away
        else:
            note |= dict(showarrow=False, xshift=round(label.dx, 1), yshift=round(label.dy, 1))
        notes.append(
            note | dict(font=dict(size=font, color=INK), bgcolor="rgba(255,255,255,0.8)", borderpad=0)
        )
    fig.update_layout(annotations=notes)
    return {"given": sum(bool(text) for text in texts), "placed": len(placed)}


# -- sunburst ---------------------------------------------------------------------------------------------
def _id(prefix: Prefix) -> str:
    return "-".join(map(str, prefix)) or "all"


def _in_order(rows: list) -> list:
    """Parents before children, siblings by size; a plot that sorts by itself would not keep neighbours' colours."""
    return sorted(rows, key=lambda row: (len(row[0]), -row[1], row[0]))


def _ring_colors(prefixes: list[Prefix]) -> list[str]:
    """First-level sectors run through the hues, none beside its like; deeper ones are tints, by turns."""
    first = [p for p in prefixes if len(p) == 1]
    hue = {p[0]: HUES[k % len(HUES)] for k, p in enumerate(first)}
    if len(first) > 2 and hue[first[-1][0]] == hue[first[0][0]]:
        hue[first[-1][0]] = HUES[1 if hue[first[-2][0]] != HUES[1] else 2]
    turn: dict[Prefix, int] = {}
    colors = []
    for p in prefixes:
        if not p:
            colors.append("#ffffff")
            continue
        turn[p[:-1]] = turn.get(p[:-1], 0) + 1
        share = 0.62 if len(p) == 1 else (0.42, 0.26)[turn[p[:-1]] % 2]
        colors.append(_tint(hue[p[0]], share))
    return colors


def _tint(color: str, share: float) -> str:
    """A colour mixed with white."""
    return "#" + "".join(f"{round(255 + (v - 255) * share):02x}" for v in hex_to_rgb(color))


def _sector_text(prefix: Prefix, text: str, angle: float, ring: float, font: float) -> str:
    """Number and name where the middle arc of a sector has room for a line of nine pixels."""
    if not prefix:
        return html.escape(text)
    room = min(angle, 1.0) * ring * (len(prefix) + 0.5)
    if room < 10:
        return ""
    lines = [html.escape(text)]
    blanks = [i for i, letter in enumerate(text) if letter == " "]
    if text_width(f"{prefix[-1]} {text}", font) > ring - 12 and blanks and room > 3 * font:
        at = min(blanks, key=lambda i: abs(i - len(text) / 2))
        lines = [html.escape(text[:at]), html.escape(text[at + 1 :])]
    return f"<b>{prefix[-1]}</b> {'<br>'.join(lines)}".strip()
