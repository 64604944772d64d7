"""What every picture of the disk is drawn with: the rim, square axes, polylines."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from workbench.plots.template import CLEAR, GREY, LIGHT, frame

REACH = 1.05  # the axes run from −REACH to REACH
SIDE = 720  # pixels of the square that holds the disk


def join(lines: np.ndarray, close: bool = False) -> np.ndarray:
    """Rows of points as one line with NaN after each row; `close` repeats each first point."""
    parts = [lines, lines[:, :1]] if close else [lines]
    gap = np.full((len(lines), 1), complex(np.nan, np.nan))
    return np.concatenate([*parts, gap], axis=1).ravel()


def polyline(line: np.ndarray, *, uid: str, width: float, color: str = LIGHT, gl: bool = False, **more):
    """A line trace through complex points, without hover; `more` are further attributes of the trace."""
    style = dict(color=color, width=width)
    if not gl:
        style["simplify"] = False  # plotly.js would take points out of arcs until they look like polygons
    base = dict(mode="lines", uid=uid, hoverinfo="skip", showlegend=False, line=style)
    return (go.Scattergl if gl else go.Scatter)(x=line.real, y=line.imag, **(base | more))


def finish(fig: go.Figure, *, title, subtitle, right: float, side: int, meta: dict) -> go.Figure:
    """Rim, equal axes without ticks, and a size that gives the disk exactly `side` pixels."""
    frame(fig, title=title, subtitle=subtitle, width=side, height=side, left=20, right=int(right), bottom=16)
    margin = fig.layout.margin
    fig.update_layout(
        width=int(side + margin.l + margin.r),
        height=int(side + margin.t + margin.b),
        dragmode="pan",
        hovermode="closest",
        meta=meta,
    )
    rim = dict(line=dict(color=GREY, width=1.5), fillcolor=CLEAR, layer="below")
    fig.add_shape(type="circle", x0=-1, y0=-1, x1=1, y1=1, xref="x", yref="y", **rim)
    axis = dict(range=[-REACH, REACH], autorange=False, visible=False, constrain="domain", automargin=False)
    fig.update_xaxes(**axis)
    fig.update_yaxes(**axis, scaleanchor="x", scaleratio=1)
    return fig
