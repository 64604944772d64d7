"""Decoding chains: how near each prefix of the codes comes to the point that was encoded."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.canvas import REACH, finish, join, polyline
from workbench.plots.labels import place_labels
from workbench.plots.template import DASHES, GREY, INK, PALETTE, SYMBOLS, legend_width

WAYS = (PALETTE[0], PALETTE[3], PALETTE[2], PALETTE[4])  # dark enough for the numbers beside them


def drift(
    target,
    chains: Mapping[str, Sequence],
    *,
    rest: bool = True,
    title: str | None = None,
    subtitle: str | None = None,
    side: int = 600,
) -> go.Figure:
    """Decoding level by level, seen from the point that was encoded: how near each chain comes to it.

    The point lies at the centre; radius is hyperbolic distance from it and angle the true direction (azimuthal
    equidistant, since the disk would press all but the last steps against its rim), so that what a decoding lacks
    is read off the rings. Chains start at the origin and are joined by geodesics; numbers count the codes used.

    Args:
        target: (2,) the point, inside the unit disk (curvature −1 coordinates).
        chains: name → (J, 2) decoded points, by number of codes.
        rest: the last point of every chain has the last residual as well (`decoding_chain` in
            `workbench.evaluation.codes` ends so): an exact order is then on the target.

    Raises:
        ManifoldError: points outside the disk. ParameterError: no chain.
    """
    if not chains:
        raise ParameterError("drift needs at least one chain, got none")
    at = plane.as_complex([target], "target")[0]
    start = plane.translate(0, at)
    moved = {name: plane.translate(plane.as_complex(chain, name), at) for name, chain in chains.items()}
    reach = 1.04 * max(float(plane.distance(0, np.append(c, start)).max()) for c in moved.values()) or 1.0
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if reach <= 7 * s)
    rings = np.arange(step, 0.97 * reach, step)  # none whose number would stand on the frame
    fig = go.Figure(polyline(join(plane.circle_polyline(0 * rings, rings / reach)), uid="rings", width=1))
    ends = {}
    for k, (name, chain) in enumerate(moved.items()):
        ends[name] = float(plane.distance(0, chain[-1]))
        fig.add_trace(_way(np.append(start, chain), reach, k))
        fig.add_trace(_stops(_equidistant(chain) / reach, plane.distance(0, chain), name, ends[name], k))
    for uid, name, z, look in (
        ("target", "encoded point", 0j, dict(symbol="star", size=17, line=dict(color="white", width=1))),
        ("origin", "origin", complex(_equidistant(start)) / reach, dict(symbol="circle-open", size=12)),
    ):
        dot = dict(mode="markers", marker=dict(color=INK) | look, hoverinfo="skip", showlegend=True)
        fig.add_trace(go.Scatter(x=[z.real], y=[z.imag], uid=uid, name=name, **dot))
    ringed = _ring_notes(rings, reach)
    fig.update_layout(annotations=[*ringed, *_stop_notes(moved, start, reach, rest, side)])
    fig.update_layout(legend=dict(itemsizing="constant", itemwidth=30))
    right = legend_width([*(_ending(name, d) for name, d in ends.items()), "encoded point"])
    return finish(fig, title=title, subtitle=subtitle, right=right, side=side, meta={"distance": ends})


def _ending(name: str, distance: float) -> str:
    return f"{name}: ends {distance:.2g} away" if distance > 1e-6 else f"{name}: ends on it"


def _equidistant(z):
    """Disk points to the chart where the radius is the distance from the origin."""
    z = np.asarray(z, dtype=complex)
    return np.where(z == 0, 0, plane.distance(0, z) * z / np.maximum(abs(z), 1e-300))


def _way(stops: np.ndarray, reach: float, k: int) -> go.Scatter:
    """Geodesics through the stops, in equal steps of length: in this chart even the straight ones need many."""
    lines = []
    for u, v in pairwise(stops):
        ahead = plane.translate(v, u)
        length = plane.distance(0, ahead) * np.linspace(0, 1, 121)
        lines.append(plane.translate(np.tanh(length / 2) * ahead / max(abs(ahead), 1e-300), -u))
    # Rounding may put a point of a way along the rim just outside.
    line = np.concatenate(lines)
    line = _equidistant(line * np.minimum(1, (1 - 1e-15) / np.maximum(abs(line), 1e-300))) / reach
    trace = polyline(line, uid=f"way-{k}", width=2.2, color=WAYS[k % len(WAYS)])
    trace.line.dash = DASHES[k % len(DASHES)]
    return trace


def _stops(at: np.ndarray, distance: np.ndarray, name: str, end: float, k: int) -> go.Scatter:
    look = dict(symbol=SYMBOLS[k % len(SYMBOLS)], size=11, color=WAYS[k % len(WAYS)])
    return go.Scatter(
        x=at.real, y=at.imag, mode="markers", uid=f"stops-{k}", name=_ending(name, end), showlegend=True,
        marker=look | dict(line=dict(color="white", width=1)),
        customdata=np.column_stack([np.arange(len(at)) + 1, distance]),
        hovertemplate=html.escape(name) + ", stop %{customdata[0]}<br>%{customdata[1]:.3g} away<extra></extra>",
    )  # fmt: skip


def _stop_notes(moved: Mapping, start: complex, reach: float, rest: bool, side: int) -> list[dict]:
    """The number of every stop, in the colour of its chain, where it covers neither a stop nor a way."""
    unit, half = side / (2 * REACH), side / 2
    z = np.concatenate([_equidistant(chain) / reach for chain in moved.values()])
    texts = [
        "all" if rest and j + 1 == len(chain) else str(j + 1)
        for chain in moved.values()
        for j in range(len(chain))
    ]
    tints = [WAYS[k % len(WAYS)] for k, chain in enumerate(moved.values()) for _ in chain]
    ways = [_way(np.append(start, chain), reach, 0) for chain in moved.values()]
    lines = np.concatenate([np.column_stack([way.x, way.y]) for way in ways]) * unit
    pixels = np.column_stack([np.append(z, 0).real, np.append(z, 0).imag]) * unit
    placed = place_labels(
        pixels, [*texts, ""], range(len(texts)), font=15, marker=14, bounds=(-half, -half, half, half),
        obstacles=[(lines, 3.0)],
    )  # fmt: skip
    notes = []
    for label in placed:
        note = dict(x=float(z[label.index].real), y=float(z[label.index].imag), text=texts[label.index])
        if label.leader:
            away = dict(ax=round(label.dx, 1), ay=round(-label.dy, 1), arrowcolor=tints[label.index])
            note |= dict(showarrow=True, arrowhead=0, arrowwidth=1) | away
        else:
            note |= dict(showarrow=False, xshift=round(label.dx, 1), yshift=round(label.dy, 1))
        notes.append(note | dict(font=dict(size=15, color=tints[label.index]), borderpad=0))
    return notes


def _ring_notes(rings: np.ndarray, reach: float) -> list[dict]:
    look = dict(
        font=dict(size=13, color=GREY), bgcolor="rgba(255,255,255,0.85)", showarrow=False, borderpad=0
    )
    return [dict(x=0, y=-float(d / reach), text=f"{d:g}", **look) for d in rings]
