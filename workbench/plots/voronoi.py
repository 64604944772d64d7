"""Voronoi cells of the disk as exact polygons, and colours that keep neighbours apart.

In Klein coordinates k the points nearer to one site than to another are a half-plane: with z in the Poincaré disk
and N(z) = (1 + |z|², 2z)/(1 − |z|²) on the hyperboloid, cosh d grows with −⟨(1, k), N(z)⟩, which is affine in k. So
a cell is cut out of the unit disk by straight lines, and its edges are then drawn as geodesics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.plots import geometry2d as plane

RIM = 4096  # corners of the polygon that stands for the unit circle
_SNAP = 4e-7  # a Klein radius so close to 1 is on the circle: a third of a pixel, and the sagitta of a chord


@dataclass(frozen=True)
class Cell:
    """`site` its number among the sites; `outline` a closed polyline, complex points of the disk; `neighbours` the
    sites across its edges."""

    site: int
    outline: np.ndarray
    neighbours: frozenset[int]


def voronoi(
    sites: np.ndarray, *, flat: bool = False, within: list | None = None, unit: float = 340
) -> list[Cell]:
    """The cells of complex sites that are not empty, in order.

    flat: by the Euclidean distance of the coordinates, with straight edges. within: (own, others) pairs, own one
    site and others an array: keep only what is nearer to own than to each of the others, for cells inside a cell.
    unit: pixels per unit of the disk, for the number of points along an edge.
    """
    region = _circle()
    for own, others in within or []:
        region = _cut_all(region, own, others, flat)
    found = []
    for i, site in enumerate(sites):
        polygon = _cut_all(region, site, np.delete(sites, i), flat)
        if len(polygon) >= 3:
            found.append(Cell(i, _outline(polygon, flat, unit), _across(polygon, sites, i, flat)))
    return found


def outline_of(within: list, *, flat: bool = False, unit: float = 340) -> np.ndarray:
    """The border of a region given as in `voronoi`; empty where nothing is left."""
    region = _circle()
    for own, others in within:
        region = _cut_all(region, own, others, flat)
    return _outline(region, flat, unit) if len(region) >= 3 else np.zeros(0, complex)


def balanced(z: np.ndarray, steps: int = 200) -> np.ndarray:
    """The centre (a complex number) from which points lie evenly all around: translated to it they have mean 0.

    It is the conformal barycentre of Douady and Earle (Acta Math. 157, 1986), for points inside the disk.
    """
    center, moved = 0j, z
    for _ in range(steps):
        mean = moved.mean()
        center = plane.translate(mean, -center)
        if abs(mean) < 1e-9:
            break
        moved = plane.translate(z, center)
    return complex(center)


def colouring(neighbours: list[frozenset[int]], colours: int) -> list[int]:
    """A colour 0 … colours − 1 for each node of a planar graph, neighbours apart wherever `colours` allow it.

    The node with the most colours around it is next (Brélaz, Comm. ACM 22, 1979), in the least used free colour.
    """
    n = len(neighbours)
    chosen, used = [-1] * n, np.zeros(colours, dtype=int)
    for _ in range(n):
        around = [{chosen[j] for j in neighbours[i]} - {-1} for i in range(n)]
        i = max(
            (i for i in range(n) if chosen[i] < 0), key=lambda i: (len(around[i]), len(neighbours[i]), -i)
        )
        free = [k for k in range(colours) if k not in around[i]] or list(range(colours))
        chosen[i] = min(free, key=lambda k: (used[k], k))
        used[chosen[i]] += 1
    return chosen


def _circle() -> np.ndarray:
    return np.exp(2j * np.pi * (np.arange(RIM) + 0.5) / RIM)


def _half_plane(own, others: np.ndarray, flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """a, b: Re(ā k) + b >= 0 where k (Klein coordinates; flat: coordinates) is nearer to own than to others."""
    if flat:
        return 2 * (own - others), abs(others) ** 2 - abs(own) ** 2
    g, gs = ((1 - abs(z)) * (1 + abs(z)) for z in (own, others))
    # Multiplied by both gaps, so that a site on the rim is no division by zero.
    a = 2 * own * gs - 2 * others * g
    b = (1 + abs(others) ** 2) * g - (1 + abs(own) ** 2) * gs
    size = np.maximum(abs(a), 1e-300)
    return a / size, b / size


def _cut_all(polygon: np.ndarray, own, others: np.ndarray, flat: bool) -> np.ndarray:
    if len(polygon) < 3:
        return polygon
    a, b = _half_plane(own, np.asarray(others, dtype=complex), flat)
    # A line that misses the polygon misses what others leave of it; those that take most go first.
    deepest = (_parts(a) @ _parts(polygon).T + b[:, None]).min(1)
    for i in np.argsort(deepest):
        if deepest[i] >= 0 or len(polygon) < 3:
            break
        value = (a[i].conjugate() * polygon).real + b[i]
        if value.min() < 0:
            polygon = _cut(polygon, value)
    return polygon


def _cut(polygon: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The part of a convex polygon where `value`, affine and given at its corners, is not negative."""
    after, value_after = _next(polygon), _next(value)
    kept = value >= 0
    crosses = kept != _next(kept)
    corners, chosen = np.empty((len(polygon), 2), complex), np.empty((len(polygon), 2), bool)
    corners[:, 0], chosen[:, 0], chosen[:, 1] = polygon, kept, crosses
    i = crosses.nonzero()[0]
    corners[i, 1] = polygon[i] + value[i] / (value[i] - value_after[i]) * (after[i] - polygon[i])
    return corners[chosen]


def _parts(z: np.ndarray) -> np.ndarray:
    """Complex numbers as rows of two, whose inner products are Re(ā k)."""
    return np.ascontiguousarray(z).view(float).reshape(-1, 2)


def _next(x: np.ndarray) -> np.ndarray:
    """np.roll(x, -1), which a picture of cells within cells asks for ten thousand times, without its generality."""
    return np.concatenate((x[1:], x[:1]))


def _across(polygon: np.ndarray, sites: np.ndarray, own: int, flat: bool) -> frozenset[int]:
    """The sites that share an edge with this cell: those as near as its own in the middle of an edge."""
    after = _next(polygon)
    inner = (abs(after - polygon) > 1e-9) & ~(_on_rim(polygon) & _on_rim(after) & _short(polygon, after))
    middle = ((polygon + after) / 2)[inner]
    if not len(middle):
        return frozenset()
    a, b = _half_plane(sites[own], np.delete(sites, own), flat)
    slack = (np.conj(a)[:, None] * middle).real + b[:, None]
    numbers = np.delete(np.arange(len(sites)), own)
    return frozenset(numbers[(abs(slack) < 1e-7).any(1)].tolist())


def _on_rim(k: np.ndarray) -> np.ndarray:
    return abs(k) > 1 - _SNAP


def _short(k: np.ndarray, after: np.ndarray) -> np.ndarray:
    return abs(after - k) < 2.02 * np.pi / RIM


def _outline(polygon: np.ndarray, flat: bool, unit: float) -> np.ndarray:
    """The closed border in the disk, every edge with the points it needs and the rim with no more than that."""
    rim = _on_rim(polygon)
    # A run of the rim needs every eighth corner only: those whose two neighbours are rim, too, may go.
    idle = rim & np.roll(rim, 1) & _next(rim) & _short(polygon, _next(polygon))
    idle &= _short(np.roll(polygon, 1), polygon)
    polygon = polygon[~idle | (np.arange(len(polygon)) % 8 == 0)]
    if flat:
        return np.append(polygon, polygon[0])
    rim = _on_rim(polygon)
    inside = np.minimum(abs(polygon), 1.0)
    z = np.where(rim, polygon / abs(polygon), polygon / (1 + np.sqrt((1 - inside) * (1 + inside))))
    after = _next(z)
    arc = rim & _next(rim) & (abs(after - z) < 20 * np.pi / RIM)
    bulge = np.where(arc, 0, abs(after - z) * unit / 2 * abs(np.tan(plane.half_angle(z, after) / 2)))
    pieces = []
    for u, v, count in zip(z, after, np.clip(np.ceil(np.sqrt(bulge / 0.1)), 1, 48).astype(int), strict=True):
        pieces.append(plane.geodesic_polyline(u, v, int(count))[:-1] if count > 1 else np.array([u]))
    line = np.concatenate(pieces)
    return np.append(line, line[0])
