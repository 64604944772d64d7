"""Numbers by category: heat maps, bars, tables."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np
import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from workbench.errors import ParameterError
from workbench.plots.curves import column
from workbench.plots.template import (
    COLORSCALE,
    DIVERGING,
    GRID,
    INK,
    PALETTE,
    SPACER,
    frame,
    head_room,
    legend_width,
    text_width,
)


def heatmap(
    matrix,
    x: Sequence,
    y: Sequence,
    *,
    annotations=True,
    fmt: str = ".2f",
    title: str | None = None,
    subtitle: str | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    color_title: str | None = None,
    diverging_at: float | None = None,
    colorscale=None,
    width: int | None = None,
    height: int | None = None,
) -> go.Figure:
    """A matrix as coloured cells, first row on top, each with its number in black or white, as reads better.

    Args:
        matrix: (rows, columns); NaN cells stay empty.
        x, y: names of the columns and rows; numbers are written with three digits.
        annotations: True for the numbers by `fmt`, False for none, or a (rows, columns) array of texts.
        diverging_at: centre of a diverging scale, blue below and red above.

    Raises:
        ParameterError: names or annotations that do not fit the matrix.
    """
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape != (len(y), len(x)) or not matrix.size:
        raise ParameterError(f"matrix must be ({len(y)}, {len(x)}) for these names, got {matrix.shape}")
    if annotations is True:
        texts = [[format(v, fmt) if np.isfinite(v) else "" for v in row] for row in matrix]
    elif annotations is None or annotations is False:
        texts = [[""] * len(x) for _ in y]
    else:
        texts = [[str(v) for v in row] for row in annotations]
        if len(texts) != len(y) or any(len(row) != len(x) for row in texts):
            raise ParameterError(f"annotations must have the shape of the matrix {matrix.shape}")
    columns, rows = ([_name(v) for v in names] for names in (x, y))
    cell = max(max(text_width(t, 14) for row in texts for t in row) + 18, 48)
    left = max(text_width(t, 14) for t in rows) + (58 if y_title else 30)
    widest = max(text_width(t, 14) for t in columns)
    turned = widest > cell - 6
    below = (widest if turned else 16) + (58 if x_title else 32)
    right = max(95, text_width(color_title or "", 14) + 34)
    width = width or int(np.clip(cell * len(columns) + left + right, 420, 1400))
    high = np.clip(56 * len(rows), 170, 820)
    height = height or int(high + head_room(title, subtitle) + below)

    finite = matrix[np.isfinite(matrix)]
    low, top = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if diverging_at is not None:
        reach = max(abs(low - diverging_at), abs(top - diverging_at)) or 1.0
        low, top = diverging_at - reach, diverging_at + reach
    scale = colorscale or (_reversed(DIVERGING) if diverging_at is not None else COLORSCALE)
    bar = dict(title_text=color_title and color_title + SPACER, x=1.02, thickness=14)
    range_of_color = dict(colorscale=scale, zmin=low, zmax=top)
    fig = go.Figure(
        go.Heatmap(
            z=matrix, x=columns, y=rows, uid="heatmap", xgap=1.5, ygap=1.5, **range_of_color,
            hovertemplate="%{x}, %{y}: %{z:.4~g}<extra></extra>", hoverongaps=False, colorbar=bar,
        )
    )  # fmt: skip
    fig.update_layout(annotations=_cell_notes(matrix, texts, scale, low, top))
    frame(
        fig, title=title, subtitle=subtitle, width=width, height=height, left=int(left), right=int(right),
        bottom=int(below),
    )  # fmt: skip
    axis = dict(
        type="category", showgrid=False, showline=False, ticks="", automargin=False, ticklabelstandoff=6
    )
    fig.update_xaxes(title_text=x_title, tickangle=-90 if turned else 0, **axis)
    fig.update_yaxes(title_text=y_title, autorange="reversed", **axis)
    return fig


def bars(
    names: Sequence[str],
    values,
    *,
    errors=None,
    horizontal: bool = False,
    fmt: str | None = ".3g",
    title: str | None = None,
    subtitle: str | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    log: bool = False,
    highlight: Sequence[str] = (),
    width: int = 860,
    height: int | None = None,
) -> go.Figure:
    """Bars with their numbers written on them, grouped when several series are given.

    Args:
        names: (N,) categories.
        values: (N,) heights, or a mapping from series name to heights.
        errors: as `values`: half-lengths of the error bars.
        horizontal: bars to the right, first category on top; for long names.
        fmt: format of the numbers; None writes none.
        x_title, y_title: of the axes as drawn.
        log: logarithmic value axis.
        highlight: categories drawn in colour while the others go grey (one series only).

    Raises:
        ParameterError: lengths that do not fit.
    """
    names = [_name(name) for name in names]
    series = dict(values) if isinstance(values, Mapping) else {"": values}
    errors = dict(errors) if isinstance(errors, Mapping) else {"": errors}
    if not names or not series:
        raise ParameterError("bars needs at least one category and one series")
    hover = "%{y}: %{x:.4~g}<extra></extra>" if horizontal else "%{x}: %{y:.4~g}<extra></extra>"
    fig, ends = go.Figure(), [np.zeros(1)]
    for k, (name, heights) in enumerate(series.items()):
        y = column(heights, f"values {name!r}" if name else "values", len(names))
        if errors.get(name) is not None:
            error = column(errors[name], f"errors {name!r}" if name else "errors", len(names))
        else:
            error = np.zeros(len(names))
        ends += [y + error, y - error]
        whisker = dict(type="data", array=error, thickness=1.5, width=5) if error.any() else None
        color = PALETTE[k % len(PALETTE)]
        if highlight and len(series) == 1:
            color = [PALETTE[0] if category in highlight else "#b4b9bf" for category in names]
        if horizontal:
            along = dict(x=y, y=names, orientation="h", error_x=whisker)
        else:
            along = dict(x=names, y=y, error_y=whisker)
        trace = go.Bar(uid=f"bars-{k}", name=name, showlegend=len(series) > 1, hovertemplate=hover, **along)
        fig.add_trace(trace.update(marker_color=color))
        if fmt:
            offset = (k - (len(series) - 1) / 2) * 0.75 / len(series)  # plotly, bargap 0.25
            _bar_texts(fig, y, error, offset, fmt, horizontal, log)
    height = height or (len(names) * (26 * len(series) + 16) + 150 if horizontal else 500)
    right = legend_width(series) + 10 if len(series) > 1 else 40
    frame(fig, title=title, subtitle=subtitle, width=width, height=height, right=right)
    fig.update_layout(legend=dict(itemsizing="constant", itemwidth=30))
    fig.update_xaxes(title_text=x_title)
    fig.update_yaxes(title_text=y_title)
    value, category = ("xaxis", "yaxis") if horizontal else ("yaxis", "xaxis")
    fig.layout[category].update(type="category", showgrid=False, ticks="", ticklabelstandoff=4)
    if horizontal:
        fig.layout[category].autorange = "reversed"
    fig.layout[value].type = "log" if log else "linear"
    low, top = float(np.nanmin(np.concatenate(ends))), float(np.nanmax(np.concatenate(ends)))
    if not log and fmt and top > low:  # room for the numbers beyond the bars
        room = (top - low) * (0.12 if horizontal else 0.08)
        fig.layout[value].range = [low - room if low < 0 else 0, top + room if top > 0 else 0]
    return fig


def table(
    rows: Sequence[Sequence],
    columns: Sequence[str],
    *,
    title: str | None = None,
    subtitle: str | None = None,
    fmt: str = ".3g",
    bold_rows: Sequence[int] = (),
    width: int | None = None,
) -> go.Figure:
    """A table that stays legible as a picture: numbers right-aligned, columns as wide as their content.

    Args:
        rows: one sequence a row; floats are written with `fmt`, integers with commas, None as empty.
        columns: headings; `<br>` starts a second line.
        bold_rows: indices of rows to set in bold, e.g. the best.

    Raises:
        ParameterError: a row whose length differs from the number of columns.
    """
    columns = [str(c) for c in columns]
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise ParameterError(f"row {i} has {len(row)} cells, the table has {len(columns)} columns")
    cells = [[_cell(v, fmt) for v in row] for row in rows]
    align = [
        "right" if rows and all(row[j] is None or _is_number(row[j]) for row in rows) else "left"
        for j in range(len(columns))
    ]
    wide = [
        1.08 * max(text_width(t, 15) for t in [*name.split("<br>"), *(row[j] for row in cells)]) + 32
        for j, name in enumerate(columns)
    ]
    shown = [[f"<b>{t}</b>" if i in bold_rows else t for t in row] for i, row in enumerate(cells)]
    head = 34 + 18 * max((name.count("<br>") for name in columns), default=0)
    stripes = ["#f4f5f7" if i % 2 == 0 else "white" for i in range(len(rows))]
    common = dict(align=align, font=dict(size=15, color=INK), line=dict(color=GRID, width=0))
    fig = go.Figure(
        go.Table(
            uid="table", columnwidth=wide,
            header=dict(values=[f"<b>{c}</b>" for c in columns], fill_color="white", height=head, **common),
            cells=dict(values=list(zip(*shown, strict=True)), fill_color=[stripes], height=30, **common),
        )
    )  # fmt: skip
    wide_title = 40 + max(text_width(title or "", 21), text_width(subtitle or "", 14))
    width = int(width or max(sum(wide) + 40, wide_title, 360))
    frame(fig, title=title, subtitle=subtitle, width=width, height=400, left=20, right=20, bottom=14)
    fig.layout.height = int(fig.layout.margin.t + head + 32 * len(rows) + 18)
    return fig


def readable(background: str) -> str:
    """Black or white, whichever contrasts more with this rgb() colour (WCAG 2.1 relative luminance)."""
    parts = np.array(unlabel_rgb(background)) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _cell_notes(matrix, texts, scale, low: float, top: float) -> list[dict]:
    """One annotation a cell: plotly's own cell texts go grey on middling colours."""
    notes = []
    share = np.clip((matrix - low) / ((top - low) or 1.0), 0, 1)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            if text:
                known = np.isfinite(share[i, j])
                color = readable(sample_colorscale(scale, [share[i, j]])[0]) if known else INK
                notes.append(dict(x=j, y=i, text=html.escape(text), font_color=color, showarrow=False))
    return notes


def _reversed(name: str) -> list:
    return [[1 - at, color] for at, color in reversed(get_colorscale(name))]


def _bar_texts(fig, values, error, offset: float, fmt: str, horizontal: bool, log: bool) -> None:
    """Numbers beyond the bar and its error bar (plotly's own texts would sit on the error bar)."""
    for i, value in enumerate(values):
        if not np.isfinite(value):
            continue
        up = value >= 0
        end = float(value + error[i] if up else value - error[i])
        end = float(np.log10(end)) if log else end
        note = dict(text=format(value, fmt), font_size=14, showarrow=False)
        if horizontal:
            note |= dict(x=end, y=i + offset, xshift=5 if up else -5, xanchor="left" if up else "right")
        else:
            note |= dict(x=i + offset, y=end, yshift=2 if up else -2, yanchor="bottom" if up else "top")
        fig.add_annotation(note)


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def _name(value) -> str:
    return f"{value:.3g}" if _is_number(value) and not isinstance(value, Integral) else str(value)


def _cell(value, fmt: str) -> str:
    if value is None:
        return ""
    if _is_number(value):
        return f"{value:,}" if isinstance(value, Integral) else format(float(value), fmt)
    return str(value)
