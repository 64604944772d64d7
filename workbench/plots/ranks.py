"""Who moves up and who down, step by step."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.plots.curves import log_axis
from workbench.plots.template import DASHES, GREY, LIGHT, PALETTE, SYMBOLS, frame, text_width

ROW = 26  # pixels between two names at the side


def rank_moves(
    ranks,
    names: Sequence[str],
    steps: Sequence[str],
    *,
    first: int = 8,
    title: str | None = None,
    subtitle: str | None = None,
    y_title: str = "rank",
    width: int = 1000,
    height: int = 620,
) -> go.Figure:
    """Ranks of some items over the steps of a change: a line each, its name at the right end.

    Lines in colour are those among the `first` of the last step; the others, which fell out, are grey.

    Args:
        ranks: (steps, items), 1 the best; 0 where an item does not take part.
        names: of the items. steps: `<br>` starts a second line.

    Raises:
        ParameterError: ranks that are not (steps, items) whole numbers from 0, or fewer than two steps.
    """
    ranks = np.asarray(ranks)
    if ranks.shape != (len(steps), len(names)) or ranks.dtype.kind not in "iu" or ranks.min(initial=0) < 0:
        raise ParameterError(
            f"ranks must be whole numbers from 0, {len(steps)} steps × {len(names)} items, but came as "
            f"{ranks.dtype} {ranks.shape}"
        )
    if len(steps) < 2:
        raise ParameterError(f"moves need at least two steps, but there is {len(steps)}")
    fig, last = go.Figure(), ranks[-1]
    order = sorted(range(len(names)), key=lambda i: (last[i] == 0, last[i]))
    stays = [i for i in order if 0 < last[i] <= first]
    for i in reversed(order):  # those that stay on top
        k = stays.index(i) if i in stays else None
        fig.add_trace(_line(ranks[:, i], names[i], k).update(uid=f"rank-{i}"))
    worst = int(ranks.max(initial=1))
    top, tall = np.log10(worst * 1.15), height - 190
    ends = {i: float(np.log10(last[i])) for i in order if last[i]}
    heights = _apart(list(ends.values()), ROW * (top + 0.08) / tall, top)
    for (i, end), at in zip(ends.items(), heights, strict=True):
        bold = i in stays
        note = dict(x=len(steps) - 1, y=end, ax=38, ay=at, axref="pixel", ayref="y", xanchor="left")
        text = f"{last[i]}  {html.escape(names[i])}"
        fig.add_annotation(
            note, text=text, font_color=GREY if not bold else None, showarrow=True, arrowhead=0, arrowwidth=1,
            arrowcolor=LIGHT, standoff=6,
        )  # fmt: skip
    right = 60 + max(text_width(f"{worst}  {n}", 14) for n in names)
    frame(fig, title=title, subtitle=subtitle, width=width, height=height, right=int(right))
    fig.update_xaxes(tickvals=list(range(len(steps))), ticktext=list(steps), range=[-0.15, len(steps) - 0.9])
    fig.update_yaxes(title_text=y_title, **log_axis(np.array([1.0, worst])))
    fig.update_yaxes(range=[top, -0.08])
    return fig


def _line(ranks: np.ndarray, name: str, k: int | None) -> go.Scatter:
    y = np.where(ranks > 0, ranks, np.nan).astype(float)
    color = LIGHT if k is None else PALETTE[k % len(PALETTE)]
    look = dict(color=color, width=1.6 if k is None else 2.6, dash=DASHES[(k or 0) % len(DASHES)])
    dot = dict(
        symbol=SYMBOLS[(k or 0) % len(SYMBOLS)], size=9, color=color, line=dict(color="white", width=1)
    )
    return go.Scatter(
        x=np.arange(len(y)), y=y, name=name, mode="lines+markers", line=look, marker=dot, showlegend=False,
        hovertemplate="%{fullData.name}: %{y}<extra></extra>",
    )  # fmt: skip


def _apart(values: list[float], least: float, end: float) -> list[float]:
    """Sorted values moved until each lies `least` beyond the one before, none beyond `end` while there is room."""
    placed: list[float] = []
    for value in values:
        placed.append(max(value, placed[-1] + least) if placed else value)
    for back, k in enumerate(reversed(range(len(placed)))):
        placed[k] = min(placed[k], end - back * least)
    return placed
