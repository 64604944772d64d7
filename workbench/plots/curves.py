"""Plots of numbers over numbers: lines with bands, training curves, curvature sweeps."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from workbench.errors import ParameterError
from workbench.plots.template import DASHES, GREY, INK, PALETTE, SYMBOLS, frame, legend_width, shades


def lines(
    x,
    series: Mapping[str, Sequence[float]],
    *,
    bands: Mapping[str, tuple] | None = None,
    title: str | None = None,
    subtitle: str | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    markers: bool | None = None,
    colors: Sequence[str] | None = None,
    references: Mapping[str, float] | None = None,
    y_range: tuple[float, float] | None = None,
    legend: bool = True,
    width: int = 860,
    height: int = 520,
) -> go.Figure:
    """Lines over a common or separate x.

    Series differ in colour, dash and (with markers) symbol, so that a grey print keeps them apart.

    Args:
        x: (N,) values for all series, or a mapping from series name to its own values.
        series: name → (N,) values; NaN leaves a gap.
        bands: name → (low, high), each (N,), shaded behind the line of that name.
        log_x, log_y: logarithmic axes.
        markers: draw the points themselves. Default: at most 30.
        colors: colours in order of the series; default the palette.
        references: name → height of a thin horizontal line with its name written on it.
        y_range: lowest and highest y shown; default all. legend: whether several series get one.

    Raises:
        ParameterError: no series, lengths that differ, a band without its line, or nothing positive on a
            logarithmic axis.
    """
    if not series:
        raise ParameterError("lines needs at least one series, got none")
    if unknown := [name for name in bands or {} if name not in series]:
        raise ParameterError(f"band {unknown[0]!r} belongs to no series; series are {list(series)}")
    fig, seen_x, seen_y = go.Figure(), [], list((references or {}).values())
    for k, (name, values) in enumerate(series.items()):
        at = column(x[name] if isinstance(x, Mapping) else x, f"x of {name!r}")
        y = column(values, f"series {name!r}", len(at))
        if log_x and not (at > 0).all():
            raise ParameterError(f"x of {name!r} must be positive on a logarithmic axis")
        if log_y and not (y > 0).any():
            raise ParameterError(f"series {name!r} has no positive value to show on a logarithmic axis")
        color = (colors or PALETTE)[k % len(colors or PALETTE)]
        seen_x.append(at)
        seen_y.append(y)
        if name in (bands or {}):
            low, high = (column(side, f"band {name!r}", len(at)) for side in bands[name])
            seen_y += [low, high]
            fig.add_trace(_band(at, low, high, color, k, name))
        line = dict(color=color, dash=DASHES[k % len(DASHES)], width=2.5, simplify=False)
        dot = dict(symbol=SYMBOLS[k % len(SYMBOLS)], size=8, color=color, line=dict(color="white", width=1))
        dotted = len(at) <= 30 if markers is None else markers
        fig.add_trace(
            go.Scatter(
                x=at, y=y, mode="lines+markers" if dotted else "lines",
                uid=f"line-{k}", name=name, legendgroup=name, showlegend=legend and len(series) > 1,
                line=line, marker=dot,
                hovertemplate="%{x:.4~g}, %{y:.4~g}<extra>" + html.escape(name) + "</extra>",
            )
        )  # fmt: skip
    for name, level in (references or {}).items():
        _reference(fig, name, level, log_y)
    right = legend_width(series) + 20 if legend and len(series) > 1 else 30
    frame(fig, title=title, subtitle=subtitle, width=width, height=height, right=right)
    fig.update_xaxes(title_text=x_title, **(log_axis(np.concatenate(seen_x)) if log_x else {}))
    seen = np.hstack(seen_y) if y_range is None else np.asarray(y_range, dtype=float)
    fig.update_yaxes(title_text=y_title, **(log_axis(seen) if log_y else {}))
    if y_range is not None:
        fig.update_yaxes(range=list(np.log10(seen) if log_y else seen))
    return fig


def training_curve(
    epochs,
    values: Mapping[str, Sequence[float]],
    *,
    bands: Mapping[str, tuple] | None = None,
    title: str | None = None,
    x_title: str = "epoch",
    y_title: str = "loss",
    **options,
) -> go.Figure:
    """How numbers moved during training: `lines` under the usual names, without markers.

    Args:
        epochs: (N,) steps, or a mapping from series name to its own.
        values: name → (N,) values.
        bands: name → (low, high), e.g. over seeds.
        options: further options of `lines`, e.g. log_y.
    """
    options = {"markers": False} | options
    return lines(epochs, values, bands=bands, title=title, x_title=x_title, y_title=y_title, **options)


def curvature_sweep(
    c,
    values,
    *,
    dims: Sequence | None = None,
    metric: str = "MAP",
    better: str = "higher",
    flat: Sequence[float] | None = None,
    spread=None,
    title: str | None = None,
    subtitle: str | None = None,
    legend_title: str = "dimension",
    log_y: bool = False,
    width: int = 860,
    height: int = 520,
) -> go.Figure:
    """A metric over curvature, one line a dimension, the best of each marked by a star.

    Args:
        c: (C,) positive curvature magnitudes, drawn on a logarithmic axis.
        values: (D, C) metric, or (C,) for one line.
        dims: (D,) what the lines are; colours run from dark to light in this order.
        better: "higher" or "lower": where the star goes.
        flat: (D,) the same metric in flat space (c = 0), drawn hollow at the left edge.
        spread: (D, C) standard deviation, drawn as error bars.

    Raises:
        ParameterError: shapes that do not fit, curvatures that are not positive, an unknown `better`.
    """
    c = column(c, "c")
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if (c <= 0).any() or not c.size:
        raise ParameterError("c must hold positive curvature magnitudes; c = 0 is given as `flat`")
    if values.ndim != 2 or values.shape[1] != len(c):
        raise ParameterError(f"values must be (dims, {len(c)}) for {len(c)} curvatures, got {values.shape}")
    dims = [str(d) for d in dims] if dims is not None else [metric] * len(values)
    if len(dims) != len(values):
        raise ParameterError(f"dims must name {len(values)} lines, got {len(dims)}")
    if better not in ("higher", "lower"):
        raise ParameterError(f"better must be 'higher' or 'lower', got {better!r}")
    spread = None if spread is None else np.atleast_2d(np.asarray(spread, dtype=float))
    if spread is not None and spread.shape != values.shape:
        raise ParameterError(f"spread must have the shape of values {values.shape}, got {spread.shape}")
    flat = None if flat is None else column(np.atleast_1d(flat), "flat", len(values))
    order = np.argsort(c, kind="stable")
    c, values = c[order], values[:, order]
    left = c[0] / max(c[1] / c[0] if len(c) > 1 else 2.0, 1.6)
    fig = go.Figure()
    for k, (dim, row, color) in enumerate(zip(dims, values, shades(len(values)), strict=True)):
        same = dict(legendgroup=f"dim-{k}")
        symbol = SYMBOLS[k % len(SYMBOLS)]
        error = None if spread is None else dict(array=spread[k, order], thickness=1.2, width=4)
        if flat is not None:
            fig.add_trace(
                go.Scatter(
                    x=[left, c[0]], y=[flat[k], row[0]], mode="lines", uid=f"dim-{k}-gap", showlegend=False,
                    line=dict(color=color, width=1.5, dash="dot"), hoverinfo="skip", **same,
                )
            )  # fmt: skip
            fig.add_trace(
                go.Scatter(
                    x=[left], y=[flat[k]], mode="markers", uid=f"dim-{k}-flat", showlegend=False,
                    marker=dict(symbol=symbol, size=9, color="white", line=dict(color=color, width=2)),
                    hovertemplate="flat, " + html.escape(metric) + " %{y:.4~g}<extra></extra>", **same,
                )
            )  # fmt: skip
        fig.add_trace(
            go.Scatter(
                x=c, y=row, error_y=error, mode="lines+markers", uid=f"dim-{k}", name=dim,
                line=dict(color=color, width=2.5, simplify=False), showlegend=len(values) > 1,
                marker=dict(symbol=symbol, size=8, color=color, line=dict(color="white", width=1)),
                hovertemplate="c = %{x:.4~g}, " + html.escape(metric) + " %{y:.4~g}<extra></extra>", **same,
            )
        )  # fmt: skip
        if np.isfinite(row).any():
            best = int(np.nanargmax(row) if better == "higher" else np.nanargmin(row))
            star = dict(symbol="star", size=17, color=PALETTE[1], line=dict(color=INK, width=1.2))
            fig.add_trace(
                go.Scatter(
                    x=c[[best]], y=row[[best]], mode="markers", uid=f"dim-{k}-best", showlegend=False,
                    hoverinfo="skip", marker=star, **same,
                )
            )  # fmt: skip
    right = legend_width([*dims, legend_title]) + 10 if len(values) > 1 else 30
    frame(fig, title=title, subtitle=subtitle, width=width, height=height, right=right)
    axis = log_axis(c)
    if len(c) <= 9:
        axis |= dict(tickvals=c.tolist(), ticktext=[f"{v:.2g}" for v in c])
    if flat is not None:
        axis |= dict(tickvals=[left, *axis["tickvals"]], ticktext=["flat", *axis["ticktext"]])
    fig.update_xaxes(title_text="curvature magnitude c", **axis)
    shown = values if flat is None else np.hstack([values, flat[:, None]])
    fig.update_yaxes(title_text=metric, **(log_axis(shown) if log_y else {}))
    fig.update_layout(legend_title_text=legend_title)
    return fig


def log_axis(values: np.ndarray) -> dict:
    """A logarithmic axis over these values: ticks at 1, 2, 5 or, over many decades, powers of ten."""
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (int(np.floor(np.log10(f(values)))) for f in (np.min, np.max)) if values.size else (0, 0)
    decades = high + 1 - low
    steps = (1, 2, 5) if decades <= 2 else (1,)
    every = -(-decades // 8)
    ticks = [float(s * 10.0**e) for e in range(low, high + 2, every) for s in steps]
    short = len(steps) > 1
    texts = [f"{t:g}" if short or 1e-3 <= t < 1e5 else f"10<sup>{np.log10(t):.0f}</sup>" for t in ticks]
    return dict(type="log", tickvals=ticks, ticktext=texts)


def column(values, what: str, length: int | None = None) -> np.ndarray:
    """`values` as a one-dimensional float array, of the length asked for."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as e:
        raise ParameterError(f"{what} must be numbers; {e}") from e
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = f"{length} values" if length is not None else "a one-dimensional list"
        raise ParameterError(f"{what} must be {expected}, got shape {array.shape}")
    return array


def _band(at, low, high, color: str, k: int, name: str) -> go.Scatter:
    faint = "rgba({}, {}, {}, 0.18)".format(*hex_to_rgb(color)) if color.startswith("#") else color
    known = np.isfinite(low) & np.isfinite(high)
    at, low, high = at[known], low[known], high[known]
    return go.Scatter(
        x=np.concatenate([at, at[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
        fillcolor=faint, line=dict(width=0, simplify=False), hoverinfo="skip", showlegend=False,
        uid=f"band-{k}", name=name, legendgroup=name,
    )  # fmt: skip


def _reference(fig: go.Figure, name: str, level: float, log_y: bool) -> None:
    line = dict(color=GREY, width=1.3, dash="dot")
    fig.add_shape(type="line", xref="paper", x0=0, x1=1, y0=level, y1=level, line=line)
    fig.add_annotation(
        xref="paper", x=0.01, y=float(np.log10(level)) if log_y else level, text=html.escape(name),
        xanchor="left", yanchor="bottom", font_color=GREY, showarrow=False,
    )  # fmt: skip
