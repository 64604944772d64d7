"""Lines of notebooks/lessons/CHEATSHEET.md as code, in its order and by its names, against an independent oracle.

Sections about curvature are in `test_cheatsheet_curvature.py`. A check returns (what the sheet's formula gives, what
is right). Change a line there, and change its check here.
"""

import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from workbench.manifolds import Lorentz, PoincareBall, lorentz_to_poincare, poincare_to_lorentz
from workbench.plots import geometry2d as plane
from workbench.plots.models import onto_paper
from workbench.widgets.plane import measure

SHEET = Path(__file__).parents[2] / "notebooks" / "lessons" / "CHEATSHEET.md"
C = 2.5  # a curvature other than 1
BALL, SPACE, CURVED = PoincareBall(1.0), Lorentz(1.0), PoincareBall(C)
norm = np.linalg.norm


# -- points: z and v in the disk, k and l, w and u, p and q the same in the other models ------------------------
rng = np.random.default_rng(5)
z, v = np.tanh(1.5 * rng.random((2, 20))) * np.exp(2j * np.pi * rng.random((2, 20)))
x, y = (
    0.6 / math.sqrt(C) * rng.uniform(-1, 1, (2, 20, 3)) / math.sqrt(3)
) * 1.5  # in the ball of curvature -C


def tensor(a):
    """Complex numbers as rows (x, y); rows as they are."""
    a = np.stack([a.real, a.imag], -1) if np.iscomplexobj(a) else a
    return torch.tensor(a, dtype=torch.float64)


def numbers(rows):
    return rows.numpy() @ [1, 1j]


def dist(a, b):
    return BALL.dist(tensor(a), tensor(b)).numpy()


def sheet(a):
    return poincare_to_lorentz(tensor(a)).numpy()


def lorentz(a, b):
    return (a[..., 1:] * b[..., 1:]).sum(-1) - a[..., 0] * b[..., 0]


def add(a, b):
    return (a + b) / (1 + a.conj() * b)


def tau(a, b):
    return (b - a) / (1 - a.conj() * b)


def turn(angle):
    return np.exp(1j * angle)


def length(a):
    return norm(a, axis=-1, keepdims=True)


p, q = sheet(z), sheet(v)
k, l = (2 * a / (1 + abs(a) ** 2) for a in (z, v))
w, u = ((a + 1j) / (1 + 1j * a) for a in (z, v))
d = dist(z, v)


# -- Four models ------------------------------------------------------------------------------------------------
def short_step():
    dz = 1e-6 * np.exp(1j)
    dw = abs((z + dz + 1j) / (1 + 1j * (z + dz)) - w)
    return np.stack([2 * abs(dz) / (1 - abs(z) ** 2), dw / w.imag]), np.tile(dist(z, z + dz), (2, 1))


MODELS = {
    "Disk to Klein": lambda: (2 * z / (1 + abs(z) ** 2), onto_paper(z, "klein")),
    "Klein to disk": lambda: (k / (1 + np.sqrt(1 - abs(k) ** 2)), z),
    "Disk to hyperboloid": lambda: (
        np.stack([1 + abs(z) ** 2, 2 * z.real, 2 * z.imag], -1) / (1 - abs(z[:, None]) ** 2),
        p,
    ),
    "Hyperboloid to disk": lambda: (p[:, 1:] / (1 + p[:, :1]), lorentz_to_poincare(tensor(p)).numpy()),
    "Hyperboloid to Klein": lambda: (p[:, 1:] / p[:, :1] @ [1, 1j], onto_paper(z, "klein")),
    "Disk to half-plane": lambda: ((z + 1j) / (1 + 1j * z), onto_paper(z, "half-plane")),
    "Half-plane to disk": lambda: ((w - 1j) / (1 - 1j * w), z),
    "A short step": short_step,
}


# -- Distance -----------------------------------------------------------------------------------------------------
def close_points():
    near = z + 1e-9
    a, b = sheet(z), sheet(near)
    chord = norm(a[:, 1:] - b[:, 1:], axis=-1) ** 2 - (a[:, 0] - b[:, 0]) ** 2
    return 2 * np.arcsinh(np.sqrt(chord) / 2)[abs(z) < 0.5], dist(z, near)[abs(z) < 0.5]


def rim_gap():
    r = 1 - 10.0 ** -np.arange(1, 16)
    return (1 - r) * (1 + r), np.array([float(1 - mpmath.mpf(float(s)) ** 2) for s in r])


DISTANCE = {
    "From the centre": lambda: (
        np.stack([2 * np.arctanh(abs(z)), abs(z)]),
        np.stack([dist(0 * z, z), np.tanh(dist(0 * z, z) / 2)]),
    ),
    "Disk": lambda: (2 * np.arcsinh(abs(z - v) / np.sqrt((1 - abs(z) ** 2) * (1 - abs(v) ** 2))), d),
    "Klein": lambda: (
        (1 - (k * l.conj()).real) / np.sqrt((1 - abs(k) ** 2) * (1 - abs(l) ** 2)),
        np.cosh(d),
    ),
    "Half-plane": lambda: (2 * np.arcsinh(abs(w - u) / (2 * np.sqrt(w.imag * u.imag))), d),
    "Hyperboloid": lambda: (p[:, 0] * q[:, 0] - (p[:, 1:] * q[:, 1:]).sum(-1), np.cosh(d)),
    "Hyperboloid, close points": close_points,
    "The gap at the rim": rim_gap,
}


# -- Möbius addition and translation ------------------------------------------------------------------------------
def ball_add(a, b):
    ab, aa, bb = (a * b).sum(-1, keepdims=True), length(a) ** 2, length(b) ** 2
    return ((1 + 2 * C * ab + C * bb) * a + (1 - C * aa) * b) / (1 + 2 * C * ab + C**2 * aa * bb)


def any_isometry():
    alpha, beta = math.cosh(0.7) * np.exp(0.4j), math.sinh(0.7) * np.exp(-2j)
    a, b = ((alpha * s + beta) / (np.conj(beta) * s + np.conj(alpha)) for s in (z, v))
    return dist(a, b), d


MOBIUS = {
    "Addition in the disk": lambda: (
        np.stack([(z + v) / (1 + z.conj() * v), add(z, 0 * z)]),
        np.stack([numbers(BALL.add(tensor(z), tensor(v))), z]),
    ),
    "Addition in the ball": lambda: (ball_add(x, y), CURVED.add(tensor(x), tensor(y)).numpy()),
    "Translation of a to 0": lambda: (
        np.stack([tau(z, v), tau(-z, tau(z, v)), tau(z, z)]),
        np.stack([numbers(BALL.add(tensor(-z), tensor(v))), v, 0 * z]),
    ),
    "A drag from p to q": lambda: (
        np.stack([tau(-v, tau(z, z)), dist(tau(-v, tau(z, 0.3j)), tau(-v, tau(z, z)))]),
        np.stack([v, dist(0 * z + 0.3j, z)]),
    ),
    "Distance by moving": lambda: (2 * np.arctanh(abs(tau(z, v))), d),
    "Gyration": lambda: (
        turn(2 * np.angle(1 + z * v.conj())) * add(v, z),
        numbers(BALL.gyration(tensor(z), tensor(v), BALL.add(tensor(v), tensor(z)))),
    ),
    "Two translations": lambda: (
        turn(2 * np.angle(1 + z.conj() * v)) * tau(add(z, v), 0.2 - 0.5j),
        tau(v, tau(z, 0.2 - 0.5j)),
    ),
    "Every isometry without reflection": any_isometry,
}

# -- Geodesics ----------------------------------------------------------------------------------------------------
STEPS = (0.2, 0.5, 0.8, 1.0)


def ball_geodesic():
    found = [ball_add(x, CURVED.expmap0(s * CURVED.logmap0(tensor(ball_add(-x, y)))).numpy()) for s in STEPS]
    return np.stack(found), np.stack([CURVED.geodesic(s, tensor(x), tensor(y)).numpy() for s in STEPS])


def disk_geodesic():
    line = plane.geodesic_polyline(z, v, 8)
    m = 1j * ((1 + abs(v) ** 2) * z - (1 + abs(z) ** 2) * v) / (2 * (z.conj() * v).imag)
    reach = np.sqrt(abs(m) ** 2 - 1)
    return abs(line - m[:, None]) / reach[:, None], np.ones(line.shape)


def klein_geodesic():
    line = onto_paper(plane.geodesic_polyline(z, v, 8), "klein")
    return ((line - k[:, None]) / (l - k)[:, None]).imag, np.zeros(line.shape)


def half_plane_geodesic():
    line = onto_paper(plane.geodesic_polyline(z, v, 8), "half-plane")
    m = (abs(w) ** 2 - abs(u) ** 2) / (2 * (w - u).real)
    return abs(line - m[:, None]) / abs(w - m)[:, None], np.ones(line.shape)


def hyperboloid_geodesic():
    towards = (q - np.cosh(d)[:, None] * p) / np.sinh(d)[:, None]
    assert np.allclose(lorentz(towards, towards), 1) and np.allclose(lorentz(p, towards), 0)
    found = [np.cosh(s * d)[:, None] * p + np.sinh(s * d)[:, None] * towards for s in STEPS]
    return np.stack(found), np.stack([SPACE.geodesic(s, tensor(p), tensor(q)).numpy() for s in STEPS])


def hyperboloid_middle():
    s = p + q
    return s / np.sqrt(-lorentz(s, s))[:, None], SPACE.geodesic(0.5, tensor(p), tensor(q)).numpy()


GEODESICS = {
    "Ball": ball_geodesic,
    "Disk": disk_geodesic,
    "Klein": klein_geodesic,
    "Half-plane": half_plane_geodesic,
    "Hyperboloid": hyperboloid_geodesic,
    "Midpoint on the hyperboloid": hyperboloid_middle,
}

# -- Circles ------------------------------------------------------------------------------------------------------
R = 1.3  # radius


def circle_length():
    """Of a fine polygon on the circle, side by side, by the package's distance."""
    corners = np.tanh(R / 2) * np.exp(2j * np.pi * np.arange(20000) / 20000)
    return dist(corners, np.roll(corners, 1)).sum()


def circle_area():
    """The circles' lengths inside, added up: the metric of the disk in polar coordinates."""
    return float(mpmath.quad(lambda s: 2 * mpmath.pi * s * (2 / (1 - s * s)) ** 2, [0, math.tanh(R / 2)]))


def circle_on_disk():
    s = math.tanh(R / 2)
    middle, reach = z * (1 - s * s) / (1 - (s * abs(z)) ** 2), s * (1 - abs(z) ** 2) / (1 - (s * abs(z)) ** 2)
    around = middle[:, None] + reach[:, None] * np.exp(2j * np.pi * np.arange(12) / 12)
    return dist(around.ravel(), np.repeat(z, 12)), np.full(12 * len(z), R)


CIRCLES = {
    "Length": lambda: (2 * math.pi * math.sinh(R), circle_length()),
    "Area": lambda: (
        [2 * math.pi * (math.cosh(R) - 1), 4 * math.pi * math.sinh(R / 2) ** 2],
        [circle_area()] * 2,
    ),
    "On the disk": circle_on_disk,
}

# -- Triangles: corners A, B, C, and the sides a, b, c opposite to them ---------------------------------------------
CORNERS = np.array([0.1 + 0.6j, -0.5 - 0.3j, 0.6 - 0.25j])
SEEN = measure(np.stack([CORNERS.real, CORNERS.imag], -1))
(c_, a_, b_), (A, B, G) = SEEN["lengths"], SEEN["angles"]
LEGS = (1.1, 0.8)
STRAIGHT = np.array([0, math.tanh(LEGS[1] / 2), 1j * math.tanh(LEGS[0] / 2)])  # the right angle at 0
SQUARE = measure(np.stack([STRAIGHT.real, STRAIGHT.imag], -1))


def integral(corners):
    """Signed area by a line integral along the sides, positive anticlockwise."""
    s = plane.geodesic_polyline(corners, np.roll(corners, -1), 4000).ravel()
    middle, swept = abs(s + np.roll(s, -1)) ** 2 / 4, np.angle(np.roll(s, -1) * s.conj())
    return float(np.sum(2 * middle / (1 - middle) * swept))


def holonomy():
    """The plane, moved so that one corner after the other comes to the centre: what becomes of a tiny step."""
    seen = tau(CORNERS[0], np.append(CORNERS, CORNERS[0] + 1e-7))
    before = seen[3]
    for corner in (1, 2, 0):
        seen = tau(seen[corner], seen)
    return np.angle(seen[3] / before), integral(CORNERS)


TRIANGLES = {
    "Area": lambda: (math.pi - (A + B + G), integral(CORNERS)),
    "Law of cosines": lambda: (
        math.cosh(b_) * math.cosh(c_) - math.sinh(b_) * math.sinh(c_) * math.cos(A),
        math.cosh(a_),
    ),
    "Law of sines": lambda: (math.sinh(a_) / math.sin(A), math.sinh(b_) / math.sin(B)),
    "A side from the angles": lambda: (
        (math.cos(A) + math.cos(B) * math.cos(G)) / (math.sin(B) * math.sin(G)),
        math.cosh(a_),
    ),
    "Right angle, legs a and b": lambda: (
        math.tanh(LEGS[0]) / math.sinh(LEGS[1]),
        math.tan(SQUARE["angles"][1]),
    ),
    "Its area": lambda: (math.tanh(LEGS[0] / 2) * math.tanh(LEGS[1] / 2), math.tan(integral(STRAIGHT) / 2)),
    "A tile of {p,q}": lambda: (
        [(m - 2) * math.pi - 2 * math.pi * m / n for m, n in [(7, 3), (4, 5), (3, 8)]],
        [integral(plane.tiles(m, n, 0).vertices[0]) for m, n in [(7, 3), (4, 5), (3, 8)]],
    ),
    "Holonomy": holonomy,
}


CHECKS = {
    "Four models": MODELS,
    "Distance": DISTANCE,
    "Möbius addition and translation": MOBIUS,
    "Geodesics": GEODESICS,
    "Circles": CIRCLES,
    "Triangles": TRIANGLES,
}
IN_OTHER_FILE = ("Exp and log at the origin", "Curvature", "Numbers")


def sections():
    """Of the sheet: titles, and the names of their lines; every line must have one."""
    told = {}
    for part in SHEET.read_text("utf-8").split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        told[title] = re.findall(r"^- \*\*(.+?)\*\*: ", body, re.M)
        assert len(told[title]) == body.count("\n- "), f"a line of {title!r} has no bold name"
    return told


def test_the_sheet_has_these_lines_in_this_order_and_no_other_sections():
    told = sections()
    assert [title for title in told if title not in IN_OTHER_FILE] == list(CHECKS)
    assert {title: told[title] for title in CHECKS} == {title: list(lines) for title, lines in CHECKS.items()}


@pytest.mark.parametrize(("section", "line"), [(s, line) for s, lines in CHECKS.items() for line in lines])
def test_the_line_is_right(section, line):
    got, right = CHECKS[section][line]()
    rtol = {"A short step": 1e-5, "Hyperboloid, close points": 1e-4}.get(line, 1e-6)
    np.testing.assert_allclose(got, right, rtol=rtol, atol=1e-9)
