"""Pictures of the plane itself: geodesics, circles, horocycles, tilings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.canvas import REACH, SIDE, finish, join, polyline
from workbench.plots.template import PALETTE, legend_width, shades

_HEAD = dict(symbol="arrow-wide", angleref="previous", opacity=1, line_width=0)


def geodesics(
    pairs,
    *,
    names: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    full: bool = True,
    arrows: bool = False,
    title: str | None = None,
    subtitle: str | None = None,
    side: int = SIDE,
) -> go.Figure:
    """Geodesic segments between pairs of points, and (`full`) the whole geodesics they lie on, dotted.

    Args:
        pairs: (K, 2, 2): K pairs of (x, y) points; points on the unit circle are ideal.
        names: (K,) legend entries; with none there is no legend.
        colors: (K,) colours; default the palette in turn.
        arrows: a head at the second point of each pair instead of dots at both.

    Raises:
        ManifoldError: wrong shape, points outside the closed disk, or a pair of equal points.
        ParameterError: another number of names or colours than of pairs.
    """
    pairs = np.asarray(pairs, dtype=float)
    flat = pairs.reshape(-1, 2) if pairs.ndim == 3 and pairs.shape[1:] == (2, 2) else pairs
    z = plane.as_complex(flat, "pairs", closed=True)
    u, v = z[::2], z[1::2]
    if names is not None and len(names) != len(u):
        raise ParameterError(f"names must have one entry per pair: {len(u)} pairs, {len(names)} names")
    if colors is not None and len(colors) != len(u):
        raise ParameterError(f"colors must have one entry per pair: {len(u)} pairs, {len(colors)} colors")
    colors = colors if colors is not None else [PALETTE[k % len(PALETTE)] for k in range(len(u))]
    fig = go.Figure()
    whole = plane.geodesic_polyline(*plane.extend(u, v), segments=96)
    for k, arc in enumerate(plane.geodesic_polyline(u, v, segments=64)):
        group = f"geodesic-{k}"
        same = dict(color=colors[k], legendgroup=group)
        if full:
            dotted = polyline(whole[k], uid=f"{group}-whole", width=1.5, **same)
            fig.add_trace(dotted.update(line_dash="dot"))
        name = str(names[k]) if names is not None else group
        line = polyline(arc, uid=group, width=3.5, name=name, showlegend=names is not None, **same)
        if arrows:
            sizes = [0] * (len(arc) - 1) + [14]
            fig.add_trace(
                line.update(
                    mode="lines+markers", line_width=2.5, marker=_HEAD | dict(size=sizes, color=colors[k])
                )
            )
            continue
        fig.add_trace(line)
        fig.add_trace(_dots(arc[[0, -1]], same["color"], uid=f"{group}-ends", legendgroup=group))
    right = legend_width(names) + 10 if names is not None else 20
    return finish(fig, title=title, subtitle=subtitle, right=right, side=side, meta={"pairs": len(u)})


def circles(
    centers, radii, *, title: str | None = None, subtitle: str | None = None, side: int = SIDE
) -> go.Figure:
    """Hyperbolic circles with their hyperbolic centres, which are not the Euclidean ones.

    Args:
        centers: (K, 2) points inside the disk.
        radii: hyperbolic radius of each, or one for all.

    Raises:
        ManifoldError: centres not inside the disk.
        ParameterError: radii that do not fit or are not positive.
    """
    z = plane.as_complex(centers, "centers")
    radii = np.atleast_1d(np.asarray(radii, dtype=float))
    if radii.shape not in ((1,), z.shape):
        raise ParameterError(f"radii must be one number or {len(z)} of them, got shape {radii.shape}")
    radii = np.broadcast_to(radii, z.shape)
    if not (np.isfinite(radii).all() and (radii > 0).all()):
        raise ParameterError(f"radii must be positive numbers, got {radii.tolist()}")
    fig = go.Figure()
    middle, reach = plane.circle(z, radii)
    for k, line in enumerate(plane.circle_polyline(middle, reach)):
        color, across = PALETTE[k % len(PALETTE)], reach[k] * side / REACH
        fig.add_trace(polyline(line, uid=f"circle-{k}", width=2.5 if across > 12 else 1.2, color=color))
        dot = _dots(z[[k]], color, uid=f"center-{k}")
        fig.add_trace(dot.update(marker_size=min(10.0, across / 3)))  # a dot must not hide its circle
    return finish(fig, title=title, subtitle=subtitle, right=20, side=side, meta={"circles": len(z)})


def horocycles(
    angle: float = 0.0,
    levels: Sequence[float] = (-2, -1, 0, 1, 2, 3),
    *,
    rays: int = 9,
    title: str | None = None,
    subtitle: str | None = None,
    side: int = SIDE,
) -> go.Figure:
    """Horocycles around one ideal point, and geodesics that end there and cross them at right angles.

    Args:
        angle: direction of the ideal point, radians.
        levels: signed hyperbolic distance of each horocycle from the centre, positive towards the ideal one.
        rays: number of geodesics into the ideal point; 0 for none.

    Raises:
        ParameterError: levels that are empty or not finite.
    """
    levels = np.sort(np.atleast_1d(np.asarray(levels, dtype=float)))
    if levels.ndim != 1 or not levels.size or not np.isfinite(levels).all():
        raise ParameterError(f"levels must be a non-empty list of numbers, got {levels.tolist()}")
    fig = go.Figure()
    ideal = np.exp(1j * angle)
    if rays:
        # Evenly spaced along any one horocycle: in the half-plane these are parallels at even distances.
        far = ideal * np.exp(1j * (np.pi + 2 * np.arctan(np.linspace(-1.6, 1.6, rays))))
        fan = join(plane.geodesic_polyline(far, np.full(rays, ideal), 64))
        fig.add_trace(polyline(fan, uid="rays", width=1.3, name="geodesics", showlegend=True))
    curves = plane.circle_polyline(*plane.horocycle(angle, plane.horocycle_radius(levels)), segments=180)
    for k, (level, line, color) in enumerate(zip(levels, curves, shades(len(levels)), strict=True)):
        name = f"{level:+.4g}" if level else "0"
        trace = polyline(line, uid=f"horocycle-{k}", width=2.5, color=color, name=name, showlegend=True)
        fig.add_trace(trace)
    fig.add_trace(_dots(np.array([ideal]), PALETTE[3], uid="ideal", name="ideal point", showlegend=True))
    fig.update_layout(legend_title_text="distance from<br>the centre")
    right = legend_width(["distance from"])
    meta = {"levels": levels.tolist()}
    return finish(fig, title=title, subtitle=subtitle, right=right, side=side, meta=meta)


def tiling(
    p: int = 7,
    q: int = 3,
    depth: int = 6,
    *,
    title: str | None = None,
    subtitle: str | None = None,
    side: int = SIDE,
) -> go.Figure:
    """The regular tiling {p,q}: congruent p-gons, q around each vertex, shaded by steps from the middle.

    Raises:
        ParameterError: {p,q} does not tile the hyperbolic plane, or depth is negative.
    """
    found = plane.tiles(p, q, depth)
    fig = go.Figure()
    colors = shades(int(found.layer.max()) + 1)
    legend = len(colors) <= 14
    for layer, color in enumerate(colors):
        corners = found.vertices[found.layer == layer]
        across = np.abs(corners[:, 0] - corners[:, p // 2]).max() * side / (2 * REACH)
        segments = int(np.clip(across / 8, 1, 20))
        sides = plane.geodesic_polyline(corners, np.roll(corners, -1, axis=1), segments)
        outline = join(sides[..., :-1].reshape(len(corners), -1), close=True)
        trace = polyline(
            outline, uid=f"layer-{layer}", width=1.4 if layer < 3 else 0.7, color="white", name=str(layer)
        )
        fig.add_trace(trace.update(fill="toself", fillcolor=color, showlegend=legend))
    right = 20
    if legend:
        fig.update_layout(legend=dict(title_text="steps from<br>the middle", itemwidth=30))
        right = legend_width(["steps from"])
    meta = {"tiling": [p, q], "tiles": np.bincount(found.layer).tolist()}
    return finish(fig, title=title, subtitle=subtitle, right=right, side=side, meta=meta)


def _dots(z: np.ndarray, color: str, *, uid: str, **more) -> go.Scatter:
    base = dict(
        mode="markers",
        uid=uid,
        showlegend=False,
        marker=dict(size=10, color=color, line=dict(color="white", width=1.5)),
        hovertemplate="(%{x:.4f}, %{y:.4f})<extra></extra>",
    )
    return go.Scatter(x=z.real, y=z.imag, **(base | more))
