"""The complex formulas: isometry, additivity of distance, angles, tangency, counts, high precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import acosh as mp_acosh
from mpmath import mp, mpc

from workbench.errors import ManifoldError, ParameterError
from workbench.plots import geometry2d as g

radius = st.floats(0, 0.999)
angle = st.floats(-np.pi, np.pi)
point = st.builds(lambda r, t: complex(r * np.cos(t), r * np.sin(t)), radius, angle)


def exact_distance(u: complex, v: complex) -> float:
    """The arcosh form, with digits enough for the smallest float squared."""
    with mp.workdps(660):
        u, v = mpc(u), mpc(v)
        return float(mp_acosh(1 + 2 * abs(u - v) ** 2 / ((1 - abs(u) ** 2) * (1 - abs(v) ** 2))))


@given(point, point)
def test_distance_agrees_with_high_precision(u, v):
    assert g.distance(u, v) == pytest.approx(exact_distance(u, v), rel=1e-12, abs=1e-300)


@given(point, point, point)
def test_translation_is_an_isometry_that_carries_its_point_to_the_origin(a, u, v):
    assert g.translate(a, a) == 0
    moved = g.distance(g.translate(u, a), g.translate(v, a))
    assert moved == pytest.approx(g.distance(u, v), rel=1e-6, abs=1e-9)
    assert g.translate(g.translate(u, a), -a) == pytest.approx(u, abs=1e-12)


@given(point, point)
@settings(max_examples=200)
def test_distances_add_up_along_a_geodesic(u, v):
    line = g.geodesic_polyline(u, v, 24)
    assert line[0] == u and line[-1] == v
    total = g.distance(u, v)
    via = g.distance(u, line) + g.distance(line, v)
    # A point near the rim is known to 1e-16, its distance to 1e-16 over its Euclidean distance from the rim.
    slack = 1e-9 + 4e-16 / (1 - np.abs(line)) * 10
    assert np.all(np.abs(via - total) <= slack)


def test_geodesic_points_within_moderate_radius_add_up_to_1e_9():
    rng = np.random.default_rng(0)
    r, t = np.tanh(rng.uniform(0, 4, (2, 500)) / 2), rng.uniform(0, 2 * np.pi, (2, 500))
    u, v = r * np.exp(1j * t)
    line = g.geodesic_polyline(u, v)
    via = g.distance(u[:, None], line) + g.distance(line, v[:, None])
    assert np.abs(via - g.distance(u, v)[:, None]).max() < 1e-9


def test_ideal_geodesic_is_the_circle_orthogonal_to_the_rim():
    a, b = np.exp(0.3j), np.exp(1.9j)
    half = (1.9 - 0.3) / 2
    center = np.exp(1j * (0.3 + 1.9) / 2) / np.cos(half)
    line = g.geodesic_polyline(a, b, 40)
    np.testing.assert_allclose(np.abs(line - center), np.tan(half), rtol=1e-12)


def test_extending_a_segment_reaches_the_rim_on_the_same_geodesic():
    u, v = 0.2 + 0.1j, -0.4 + 0.55j
    start, end = g.extend(u, v)
    assert abs(abs(start) - 1) < 1e-12 and abs(abs(end) - 1) < 1e-12
    # Carried so that u is the origin, the geodesic is a diameter: all four points on one real line, u inside.
    on_line = g.translate(np.array([start, v, end]), u)
    direction = on_line[2]
    np.testing.assert_allclose((on_line / direction).imag, 0, atol=1e-12)
    assert (on_line[0] / direction).real < 0 < (on_line[1] / direction).real
    np.testing.assert_allclose(g.extend(1, 1j), (1, 1j), atol=1e-12)
    with pytest.raises(ManifoldError, match="two different points"):
        g.extend(u, u)


@given(point, st.floats(0.01, 4))
def test_hyperbolic_circle_has_constant_distance_from_its_centre(c, rho):
    circle = g.circle_polyline(*g.circle(c, rho), 32)
    far = np.abs(circle) < 1 - 1e-9
    np.testing.assert_allclose(g.distance(c, circle[far]), rho, rtol=1e-5)


@given(angle, st.floats(-4, 4))
def test_horocycle_touches_the_rim_once_and_passes_at_its_level(phi, level):
    center, r = g.horocycle(phi, g.horocycle_radius(level))
    assert abs(center) + r == pytest.approx(1, abs=1e-12)  # inner tangency
    nearest = center - r * np.exp(1j * phi)
    assert g.distance(0, nearest) == pytest.approx(abs(level), rel=1e-9, abs=1e-9)
    # Positive levels lie on the side of the ideal point.
    assert np.sign((nearest * np.exp(-1j * phi)).real) == np.sign(level) or abs(level) < 1e-9


@pytest.mark.parametrize(("p", "q"), [(7, 3), (4, 5), (3, 7), (5, 4), (8, 8), (6, 4)])
def test_tiles_are_congruent_regular_and_fit_around_a_vertex(p, q):
    found = g.tiles(p, q, 3)
    v = found.vertices
    sides = g.distance(v, np.roll(v, -1, axis=1))
    np.testing.assert_allclose(sides, sides[0, 0], rtol=1e-6)
    # Interior angles 2π/q: seen from a vertex carried to the origin, geodesics are straight.
    ahead = g.translate(np.roll(v, -1, axis=1), v)
    back = g.translate(np.roll(v, 1, axis=1), v)
    angles = np.abs(np.angle(ahead / back))
    np.testing.assert_allclose(angles, 2 * np.pi / q, rtol=1e-6)
    np.testing.assert_allclose(angles.sum(axis=1), 2 * np.pi * p / q, rtol=1e-6)
    # No tile twice: any two centres are at least twice the inradius apart.
    inradius = np.arccosh(np.cos(np.pi / q) / np.sin(np.pi / p))
    d = g.distance(found.centers[:, None], found.centers)[~np.eye(len(found), dtype=bool)]
    assert d.min() == pytest.approx(2 * inradius, rel=1e-6)


def test_layers_of_the_heptagonal_tiling_are_seven_times_even_fibonacci_numbers():
    counts = np.bincount(g.tiles(7, 3, 6, max_radius=1).layer)
    assert counts.tolist() == [1, *(7 * f for f in (1, 3, 8, 21, 55, 144))]


@pytest.mark.parametrize(("p", "q"), [(4, 4), (3, 6), (6, 3), (5, 3), (2, 9), (9, 2)])
def test_flat_and_spherical_tilings_are_refused(p, q):
    with pytest.raises(ParameterError, match="does not tile the hyperbolic plane"):
        g.tiles(p, q)


def test_the_geometry_needs_no_torch():
    import subprocess
    import sys

    code = "import sys; from workbench.plots import disk; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
