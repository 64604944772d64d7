"""The hyperbolic plane in complex numbers: curvature −1, unit disk, numpy only.

A point is a complex number of modulus < 1, an ideal point has modulus 1. These are drawing formulas; spaces
of other dimensions and curvatures live in `workbench.manifolds`.

Sources: Beardon, "The Geometry of Discrete Groups" (1983), ch. 7; Coxeter, "Regular honeycombs in
hyperbolic space" (1954) for the radii of {p,q}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.errors import ManifoldError, ParameterError


def as_complex(points, what: str = "points", *, closed: bool = False) -> np.ndarray:
    """Rows (x, y) in the unit disk as complex numbers.

    Args:
        points: (N, 2) real array.
        what: name used in the error.
        closed: also accept points on the unit circle.

    Raises:
        ManifoldError: wrong shape, NaN or infinity, or a point outside the disk.
    """
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ManifoldError(f"{what} must be an (N, 2) array of numbers; {e}") from e
    if array.ndim != 2 or array.shape[1] != 2:
        raise ManifoldError(f"{what} must have shape (N, 2), points of the unit disk; got {array.shape}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ManifoldError(f"{what} must be finite; {bad.sum()} are not, the first is row {bad.argmax()}")
    z = array[:, 0] + 1j * array[:, 1]
    outside = np.abs(z) > 1 + 1e-12 if closed else np.abs(z) >= 1
    if outside.any():
        i = int(outside.argmax())
        raise ManifoldError(
            f"{what} must lie inside the unit disk (curvature -1 coordinates); {outside.sum()} do not, "
            f"the first is row {i} with norm {abs(z[i]):.6g}"
        )
    return z


def translate(z, a):
    """T_a(z) = (z − a)/(1 − ā z): the isometry without rotation that carries `a` to the origin."""
    z, a = np.asarray(z, dtype=complex), np.asarray(a, dtype=complex)
    return (z - a) / (1 - a.conj() * z)


def distance(u, v):
    """d(u, v) = 2 artanh |T_u(v)|, written with asinh so that neither tiny nor huge distances lose digits."""
    u, v = np.asarray(u, dtype=complex), np.asarray(v, dtype=complex)
    inside = [(1 - abs(z)) * (1 + abs(z)) for z in (u, v)]
    return 2 * np.arcsinh(abs(u - v) / np.sqrt(inside[0] * inside[1]))


def half_angle(u, v):
    """Half the angle that the geodesic arc from `u` to `v` subtends at its centre, signed; 0 where straight.

    The tangent at u points along T_u(v), the chord along v − u: the angle between them is arg(1 − ū v).
    """
    return np.angle(1 - np.conj(u) * v)


def geodesic_polyline(u, v, segments: int = 24) -> np.ndarray:
    """Points of the geodesic from `u` to `v`, evenly spaced in the angle of its circular arc.

    Even in hyperbolic length would leave the middle of a long geodesic, where the eye looks, with few points.
    Needs no circle centre, so nearly straight arcs and ideal end points are as exact as the others.

    Args:
        u, v: complex arrays of the same shape, modulus ≤ 1.
        segments: number of straight pieces.

    Returns:
        complex array, shape u.shape + (segments + 1,), first u, last v.
    """
    u, v = np.asarray(u, dtype=complex)[..., None], np.asarray(v, dtype=complex)[..., None]
    alpha = half_angle(u, v)
    t = np.linspace(0, 1, segments + 1)
    # sin(αt)/sin(α) by sinc, which knows its own limit at 0.
    along = t * np.sinc(alpha * t / np.pi) / np.sinc(alpha / np.pi) * np.exp(1j * alpha * (t - 1))
    line = u + (v - u) * along
    line[..., 0], line[..., -1] = u[..., 0], v[..., 0]
    return line


def extend(u, v) -> tuple[np.ndarray, np.ndarray]:
    """The two ideal end points of the geodesic through `u` and `v`, the one behind `u` first."""
    u, v = np.asarray(u, dtype=complex), np.asarray(v, dtype=complex)
    if np.any(u == v):
        raise ManifoldError("a geodesic needs two different points, got the same point twice")
    inside = geodesic_polyline(u, v, 2)[..., 1]  # a base point that is not ideal even when u and v are
    direction = translate(v, inside)
    direction = direction / abs(direction)
    return translate(-direction, -inside), translate(direction, -inside)


def circle(center, radius) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean centre and radius of the hyperbolic circle with this centre and hyperbolic radius."""
    center = np.asarray(center, dtype=complex)
    r = np.tanh(np.asarray(radius, dtype=float) / 2)
    scale = 1 - (r * abs(center)) ** 2
    return center * (1 - r**2) / scale, r * (1 - abs(center) ** 2) / scale


def horocycle(angle, radius) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean centre and radius of the horocycle at ideal point e^{i·angle}; Euclidean radius in (0, 1)."""
    radius = np.asarray(radius, dtype=float)
    if np.any((radius <= 0) | (radius >= 1)):
        raise ParameterError(f"a horocycle's Euclidean radius lies between 0 and 1, got {radius}")
    return (1 - radius) * np.exp(1j * np.asarray(angle, dtype=float)), radius


def horocycle_radius(busemann):
    """Euclidean radius of the horocycle at signed distance `busemann` from the origin, positive rimwards.

    The point of the horocycle nearest the origin is at hyperbolic distance |b| from it: radius 1/(1 + e^b).
    """
    return 1 / (1 + np.exp(np.asarray(busemann, dtype=float)))


def circle_polyline(center, radius, segments: int = 96) -> np.ndarray:
    """Points of Euclidean circles, closed; shape center.shape + (segments + 1,)."""
    center, radius = np.asarray(center, dtype=complex)[..., None], np.asarray(radius, dtype=float)[..., None]
    return center + radius * np.exp(2j * np.pi * np.arange(segments + 1) / segments)


@dataclass(frozen=True)
class Tiles:
    """Regular tiles: `vertices` (K, p) and `centers` (K,) complex, `layer` (K,) steps from the first."""

    p: int
    q: int
    vertices: np.ndarray
    centers: np.ndarray
    layer: np.ndarray

    def __len__(self) -> int:
        return len(self.centers)


def tiles(p: int, q: int, depth: int = 5, max_radius: float = 0.998) -> Tiles:
    """The regular tiling {p,q}: p-gons, q around each vertex, grown `depth` layers around the origin.

    A layer is what half-turns about edge midpoints reach in one more step; their products are elements of
    SU(1,1), kept as pairs (a, b) acting by z → (a z + b)/(b̄ z + ā).

    Args:
        p, q: (p − 2)(q − 2) > 4, otherwise the tiling is flat or spherical.
        depth: number of layers around the central tile.
        max_radius: tiles whose centre lies beyond this Euclidean radius are left out (they are specks).

    Raises:
        ParameterError: the tiling is not hyperbolic, or depth is negative.
    """
    if p < 3 or q < 3 or (p - 2) * (q - 2) <= 4:
        raise ParameterError(
            f"{{{p},{q}}} does not tile the hyperbolic plane: needs p, q >= 3 and (p-2)(q-2) > 4, "
            f"here {(p - 2) * (q - 2)}"
        )
    if depth < 0:
        raise ParameterError(f"depth must be 0 or more, got {depth}")
    corner = np.sqrt(np.cos(np.pi / p + np.pi / q) / np.cos(np.pi / p - np.pi / q))
    first = corner * np.exp(2j * np.pi * (np.arange(p) + 0.5) / p)
    a_turn, b_turn = _half_turns(first)

    found_a, found_b, layers = [np.ones(1, complex)], [np.zeros(1, complex)], [np.zeros(1, int)]
    seen = {_cell(np.zeros(1, complex))[0]}
    for layer in range(1, depth + 1):
        a, b = found_a[-1][:, None], found_b[-1][:, None]
        a, b = (a * a_turn + b * b_turn.conj()).ravel(), (a * b_turn + b * a_turn.conj()).ravel()
        centers = b / a.conj()
        keep = []
        for i, cell in enumerate(_cell(centers)):
            if abs(centers[i]) <= max_radius and cell not in seen:
                seen.add(cell)
                keep.append(i)
        if not keep:
            break
        norm = np.sqrt(abs(a[keep]) ** 2 - abs(b[keep]) ** 2)  # rounding drifts off SU(1,1) layer by layer
        found_a.append(a[keep] / norm)
        found_b.append(b[keep] / norm)
        layers.append(np.full(len(keep), layer))
    a, b = np.concatenate(found_a)[:, None], np.concatenate(found_b)[:, None]
    vertices = (a * first + b) / (b.conj() * first + a.conj())
    return Tiles(p, q, vertices, (b / a.conj())[:, 0], np.concatenate(layers))


def _half_turns(polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SU(1,1) pairs of the half-turns about the edge midpoints of a polygon centred at the origin."""
    mid = geodesic_polyline(polygon, np.roll(polygon, -1), 2)[:, 1]
    inside = (1 - abs(mid)) * (1 + abs(mid))
    # T_{-m} ∘ (z → −z) ∘ T_m, multiplied out.
    return -1j * (1 + abs(mid) ** 2) / inside, 2j * mid / inside


def _cell(z: np.ndarray) -> list[tuple[int, int]]:
    """Hash cells of size 1e-6; the odd offset keeps symmetric positions such as 0 or 1/2 off the borders."""
    x, y = (np.floor(part * 1e6 + 0.381966).astype(int).tolist() for part in (z.real, z.imag))
    return list(zip(x, y, strict=True))
