"""Matrices of sequence maps, drawn by the size of their entries."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.plots.template import COLORSCALE, GREY, INK, SPACER, frame

FADING = [
    [1 - at, color] for at, color in reversed(COLORSCALE)
]  # dark is large, pale is small, white is zero


def matrix(
    values,
    *,
    floor: float = 1e-3,
    top: float | None = None,
    block: int | None = None,
    texts: Mapping[tuple[float, float], str] | None = None,
    title: str | None = None,
    x_title: str | None = "input step j",
    y_title: str | None = "output step i",
    color_title: str | None = "size",
    colorbar: bool = True,
    side: int = 340,
) -> go.Figure:
    """The absolute values of a matrix on a logarithmic colour scale, first row on top, square cells.

    Args:
        values: (rows, columns).
        floor: entries smaller than this in absolute value stay white.
        top: the value of the darkest colour; default the largest entry. Give it to compare several matrices.
        block: draw grid lines after every so many rows and columns.
        texts: (row, column) → text written there, e.g. on a block; counted from 0, halves allowed.
        colorbar: draw the colour bar; several matrices side by side need only one.
        side: pixels of the drawn square.

    Raises:
        ParameterError: no matrix, or limits that do not satisfy 0 < floor < top.
    """
    values = np.abs(np.asarray(values, dtype=float))
    if values.ndim != 2 or not values.size:
        raise ParameterError(f"values must be a matrix, got shape {values.shape}")
    top = float(np.nanmax(values)) if top is None else top
    if not 0 < floor < top:
        raise ParameterError(f"matrix needs 0 < floor < top, got floor {floor:g} and top {top:g}")
    low, high = float(np.log10(floor)), float(np.log10(top))
    bar = _bar(low, high, color_title) if colorbar else None
    fig = go.Figure(
        go.Heatmap(
            z=sizes(values, floor), uid="matrix", colorscale=FADING, zmin=low, zmax=high,
            showscale=colorbar, colorbar=bar, hoverongaps=False,
            hovertemplate="row %{y}, column %{x}: 10<sup>%{z:.2f}</sup><extra></extra>",
        )
    )  # fmt: skip
    right, bottom = 96 if colorbar else 16, 58 if x_title else 16
    left = 62 if y_title else 16
    frame(
        fig, title=title, width=side + left + right, height=side + 24 + (38 if title else 0) + bottom,
        left=left, right=right, bottom=bottom,
    )  # fmt: skip
    rows, columns = values.shape
    edge = dict(showgrid=False, showline=False, ticks="", automargin=False, constrain="domain")
    fig.update_xaxes(title_text=x_title, range=[-0.5, columns - 0.5], **edge)
    fig.update_yaxes(title_text=y_title, range=[rows - 0.5, -0.5], scaleanchor="x", **edge)
    fig.update_layout(shapes=_lines(rows, columns, block), annotations=_notes(texts or {}))
    return fig


def sizes(values, floor: float) -> list[list[float | None]]:
    """log10 of |values|, None below `floor`: what `matrix` colours, for redrawing a live figure."""
    values = np.abs(np.asarray(values, dtype=float))
    logs = np.log10(np.maximum(values, floor)).round(4)
    # None, not NaN: the messages of a live figure are JSON.
    return np.where(values >= floor, logs, None).tolist()


def _bar(low: float, high: float, title: str | None) -> dict:
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)
    names = [f"{10**t:g}" if t >= -2 else f"10<sup>{t:.0f}</sup>" for t in ticks]
    return dict(title_text=title and title + SPACER, x=1.02, thickness=14, tickvals=ticks, ticktext=names)


def _lines(rows: int, columns: int, block: int | None) -> list[dict]:
    """The frame, and the grid of blocks inside it."""
    x0, x1, y0, y1 = -0.5, columns - 0.5, -0.5, rows - 0.5
    shapes = [dict(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, line=dict(color=GREY, width=1.2))]
    thin = dict(color=GREY, width=1)
    for at in range(block or rows, rows, block or rows):
        shapes.append(dict(type="line", x0=x0, x1=x1, y0=at - 0.5, y1=at - 0.5, line=thin))
    for at in range(block or columns, columns, block or columns):
        shapes.append(dict(type="line", x0=at - 0.5, x1=at - 0.5, y0=y0, y1=y1, line=thin))
    return shapes


def _notes(texts: Mapping[tuple[float, float], str]) -> list[dict]:
    """Texts on a white ground, legible on any colour."""
    ground = dict(
        bgcolor="rgba(255,255,255,0.88)", borderpad=2, font=dict(size=13, color=INK), showarrow=False
    )
    return [dict(x=j, y=i, text=html.escape(text), **ground) for (i, j), text in texts.items()]
