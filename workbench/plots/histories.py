"""A history on the disk: what was taken, where it has led, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.canvas import polyline
from workbench.plots.disk import disk, edge_lines
from workbench.plots.template import INK, legend_width

MARKS = {
    "in the history": dict(symbol="circle-open", size=11, color=INK, line_width=2),
    "next": dict(symbol="diamond", size=11, color=INK, line=dict(color="white", width=1)),
    "the user": dict(symbol="star", size=20, color="#F0E442", line=dict(color=INK, width=1.5)),
}


def history_disk(
    points,
    history: Sequence[int],
    following: Sequence[int],
    user,
    labels: Sequence[str],
    *,
    color=None,
    trail: int = 6,
    **options,
) -> go.Figure:
    """Items on the disk, with a user's history and the next items marked.

    Args:
        points: (N, 2) items inside the unit disk.
        history: item numbers, oldest first; a line joins the newest `trail` of them to the user.
        following: the next items, best first; they are labelled first, then the newest of the history.
        user: (2,) the user's point.
        labels, color, options: as in `disk`.

    Raises:
        ParameterError: an item outside the points.
    """
    n = len(points)
    if any(not 0 <= i < n for i in [*history, *following]):
        raise ParameterError(f"items must be numbers from 0 to {n - 1}")
    newest = list(dict.fromkeys(reversed(history)))
    priority = np.zeros(n)
    priority[newest[:trail]] = 1 + np.arange(len(newest[:trail]), 0, -1) / n
    priority[list(following)] = 2 + np.arange(len(following), 0, -1) / n
    marked = int((priority > 0).sum())
    some = dict(color=color, labels=labels, label_priority=priority, label_top=marked, size=6) | options
    shown = [text if priority[i] else "" for i, text in enumerate(labels)]
    fig = disk(points, **some | {"labels": shown})
    z = plane.as_complex(np.concatenate([points, np.reshape(user, (1, 2))]))
    steps = [n, *newest[:trail]]
    line = edge_lines(
        z, np.array(list(zip(steps[1:], steps[:-1], strict=True)), int).reshape(-1, 2), unit=350
    )
    fig.add_trace(polyline(line, uid="trail", width=1.6, color=INK))
    places = {"in the history": newest, "next": list(following), "the user": [n]}
    for name, look in MARKS.items():
        at = z[places[name]]
        fig.add_scatter(
            x=at.real, y=at.imag, mode="markers", name=name, uid=f"mark-{name}", marker=look, hoverinfo="skip",
            showlegend=True, legendrank=3000,
        )  # fmt: skip
    fig.update_layout(legend=dict(font_size=14, title_font_size=14))  # said here, so that panels keep it
    need = legend_width(MARKS)
    if fig.layout.margin.r < need:
        fig.layout.width += int(need - fig.layout.margin.r)
        fig.layout.margin.r = int(need)
    return fig
