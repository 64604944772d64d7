"""One drawing in the four usual models of the hyperbolic plane, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError, suggest
from workbench.plots.canvas import polyline
from workbench.plots.compose import side_by_side
from workbench.plots.template import CLEAR, GREY, INK, LIGHT, PALETTE, frame

TILT = np.deg2rad(50)  # from above 45° each ray of sight meets the sheet once
TOP = 4.0  # height at which the drawn sheet ends


def onto_paper(z, model: str) -> np.ndarray:
    """Where a model draws points of the Poincaré disk.

    Args:
        z: complex array, modulus < 1.
        model: "disk", "klein", "half-plane" (the disk's topmost ideal point is its infinity), or "hyperboloid",
            which is looked at from 50° above.

    Returns:
        complex array of the same shape, x + iy on paper.

    Raises:
        ParameterError: a model that is not known.
    """
    if model not in WINDOWS:
        raise ParameterError(
            f"unknown model {model!r}, expected one of {', '.join(WINDOWS)}{suggest(model, WINDOWS)}"
        )
    z = np.asarray(z, dtype=complex)
    if model == "klein":
        return 2 * z / (1 + abs(z) ** 2)
    if model == "half-plane":
        return (z + 1j) / (1 + 1j * z)
    if model == "hyperboloid":
        inside = (1 - abs(z)) * (1 + abs(z))
        return _seen(2 * z / inside, (1 + abs(z) ** 2) / inside)
    return z.copy()


# What a panel shows: left, bottom, side.
WINDOWS = {
    "disk": (-1.06, -1.06, 2.12),
    "klein": (-1.06, -1.06, 2.12),
    "half-plane": (-2.5, -0.3, 5.0),
    "hyperboloid": (-4.2, -1.4, 8.4),
}
TITLES = {
    "disk": "Poincaré disk",
    "klein": "Klein disk",
    "half-plane": "half-plane",
    "hyperboloid": "hyperboloid",
}


def in_four_models(
    lines: Sequence,
    *,
    colors: Sequence[str] | None = None,
    dots=(),
    names: Sequence[str] = (),
    title: str | None = None,
    subtitle: str | None = None,
    side: int = 330,
) -> go.Figure:
    """The same lines and points in the Poincaré disk, the Klein disk, the half-plane and on the hyperboloid.

    Args:
        lines: complex arrays, points of the Poincaré disk in order; each becomes one polyline.
        colors: one a line; default ink.
        dots: complex points to mark.
        names: a short name for each dot.
        side: pixels of each square panel.

    Raises:
        ParameterError: another number of colours than of lines, or of names than of dots.
    """
    lines, dots = [np.asarray(line, dtype=complex) for line in lines], np.asarray(dots, dtype=complex)
    colors = list(colors) if colors is not None else [INK] * len(lines)
    if len(colors) != len(lines):
        raise ParameterError(f"colors must have one entry a line: {len(lines)} lines, {len(colors)} colors")
    if len(names) not in (0, len(dots)):
        raise ParameterError(f"names must have one entry a dot: {len(dots)} dots, {len(names)} names")
    panels = [_panel(model, lines, colors, dots, names, side) for model in WINDOWS]
    return side_by_side(panels, list(TITLES.values()), title=title, subtitle=subtitle)


def _seen(across, height):
    """The hyperboloid's space part, complex, and its time on paper."""
    across = np.asarray(across)
    return across.real + 1j * (across.imag * np.sin(TILT) + height * np.cos(TILT))


def _panel(model: str, lines, colors, dots, names, side: int) -> go.Figure:
    left, bottom, width = WINDOWS[model]
    fig = frame(go.Figure(), title=None, width=side, height=side, left=8, right=8, bottom=8)
    margin = fig.layout.margin
    fig.update_layout(
        width=int(side + margin.l + margin.r), height=int(side + margin.t + margin.b), hovermode="closest"
    )
    axis = dict(visible=False, autorange=False, constrain="domain", automargin=False)
    fig.update_xaxes(range=[left, left + width], **axis)
    fig.update_yaxes(range=[bottom, bottom + width], scaleanchor="x", scaleratio=1, **axis)
    _paper(fig, model)
    for k, (line, color) in enumerate(zip(lines, colors, strict=True)):
        fig.add_trace(polyline(onto_paper(line, model), uid=f"line-{k}", width=2.5, color=color))
    if len(dots):
        at = onto_paper(dots, model)
        outward = at - at.mean()
        fig.add_trace(
            go.Scatter(
                x=at.real, y=at.imag, mode="markers+text", uid="dots", showlegend=False, hoverinfo="skip",
                text=list(names) or None, textfont=dict(size=15, color=INK),
                textposition=[_beside(d) for d in outward],
                marker=dict(size=11, line=dict(color="white", width=1.5),
                            color=[PALETTE[k % len(PALETTE)] for k in range(len(dots))]),
            )
        )  # fmt: skip
    return fig


def _beside(outward: complex) -> str:
    """Where a dot's name stands clear of lines that come from the other side."""
    if abs(outward.real) > abs(outward.imag):
        return "middle right" if outward.real > 0 else "middle left"
    return "top center" if outward.imag >= 0 else "bottom center"


def _paper(fig: go.Figure, model: str) -> None:
    """The rim of a disk, the edge of the half-plane; the sheet's upper edge, its axis, the light cone (dashed)."""
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 145))
    if model in ("disk", "klein"):
        fig.add_shape(
            type="circle", x0=-1, y0=-1, x1=1, y1=1, line=dict(color=GREY, width=1.5), fillcolor=CLEAR
        )
    elif model == "half-plane":
        fig.add_shape(type="line", x0=-2.5, x1=2.5, y0=0, y1=0, line=dict(color=GREY, width=1.5))
    else:
        for k, height in enumerate((1.25, 2.0, 3.0, TOP)):  # rings of the sheet; the last is its edge
            ring = _seen(np.sqrt(height**2 - 1) * turn, height)
            edge = dict(color=GREY, width=1.5) if height == TOP else dict(color=LIGHT, width=1)
            fig.add_trace(polyline(ring, uid=f"ring-{k}", **edge))
        cone = np.concatenate(
            [_seen(TOP * turn, TOP), [np.nan], _seen(np.array([-TOP, 0, TOP]), np.array([TOP, 0, TOP]))]
        )
        fig.add_trace(polyline(cone, uid="cone", width=1, color=GREY).update(line_dash="dash"))
        fig.add_trace(polyline(_seen(np.zeros(2), np.array([0, TOP + 1])), uid="axis", width=1, color=GREY))
