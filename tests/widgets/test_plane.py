"""The plane view without a browser: what is measured in Python, and the same in JavaScript."""

import json
import math
import re
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
import traitlets
from javascript import evaluated, needs_node

from workbench.errors import ManifoldError, ParameterError
from workbench.widgets.plane import MODELS, SCRIPT, TRIANGLE, PlaneView, measure

javascript = partial(evaluated, SCRIPT)


def disk_points(rng, *shape, reach=4.0):
    """Points of the unit disk at distances up to `reach` from the centre."""
    r, a = np.tanh(reach * rng.random(shape) / 2), 2 * np.pi * rng.random(shape)
    return np.stack([r * np.cos(a), r * np.sin(a)], -1)


def by_cosine_rule(triangle, c):
    """Sides from the definition in 50 digits, angles by the hyperbolic law of cosines, area by Girard."""
    with mpmath.workdps(50):
        z = [mpmath.mpc(*map(float, p)) for p in triangle]
        gap = [
            2 * mpmath.atanh(abs((u - v) / (1 - mpmath.conj(u) * v)))
            for u, v in zip(z, [*z[1:], z[0]], strict=True)
        ]
        angles = []
        for k in range(3):
            a, b, opposite = gap[k], gap[k - 1], gap[(k + 1) % 3]
            cos = (mpmath.cosh(a) * mpmath.cosh(b) - mpmath.cosh(opposite)) / (
                mpmath.sinh(a) * mpmath.sinh(b)
            )
            angles.append(mpmath.acos(cos))
        area = (mpmath.pi - sum(angles)) / c
        return {
            "lengths": [float(g / mpmath.sqrt(c)) for g in gap],
            "angles": [float(a) for a in angles],
            "angle_sum": float(sum(angles)),
            "area": float(area),
        }


def agree(found, expected, rtol=1e-9):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=rtol, atol=1e-12, err_msg=key)


def test_triangles_measure_what_the_law_of_cosines_says():
    rng = np.random.default_rng(0)
    for triangle in disk_points(rng, 60, 3):
        c = float(rng.uniform(0.1, 4))
        agree(measure(triangle, c), by_cosine_rule(triangle, c))


def test_a_tiny_triangle_keeps_the_digits_of_its_area():
    tiny = np.array([[0.3, 0.2], [0.3 + 1e-6, 0.2], [0.3, 0.2 + 1e-6]])
    assert measure(tiny)["area"] == pytest.approx(by_cosine_rule(tiny, 1.0)["area"], rel=1e-6)


def test_a_regular_polygon_has_the_angles_of_its_closed_form():
    for n in (4, 5, 6):
        corner, turn = 0.6, 2 * np.pi * np.arange(n) / n
        found = measure(corner * np.stack([np.cos(turn), np.sin(turn)], -1))
        half = math.atan(1 / (math.cosh(2 * math.atanh(corner)) * math.tan(math.pi / n)))
        np.testing.assert_allclose(found["angles"], 2 * half, rtol=1e-12)
        assert found["area"] == pytest.approx((n - 2) * math.pi - 2 * n * half, rel=1e-12)


def test_two_points_have_a_distance_and_crossed_sides_have_no_area():
    assert measure([[0, 0], [0.5, 0]]) == {
        "lengths": [pytest.approx(math.log(3))],
        "angles": None,
        "angle_sum": None,
        "area": None,
    }
    crossed = measure([[0.5, 0.5], [-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]])
    assert crossed["area"] is None and len(crossed["lengths"]) == 4
    dented = measure([[0.5, 0.5], [-0.5, 0.5], [0, 0.2], [-0.5, -0.5], [0.5, -0.5]])
    assert max(dented["angles"]) > math.pi and dented["area"] == pytest.approx(
        3 * math.pi - dented["angle_sum"]
    )


def test_flat_is_the_school_triangle_on_the_scale_of_the_middle():
    flat = measure([[0, 0], [0.3, 0], [0, 0.4]], c=4.0, flat=True)["flat"]
    np.testing.assert_allclose(flat["lengths"], [0.3, 0.5, 0.4])
    assert flat["angle_sum"] == pytest.approx(math.pi) and flat["area"] == pytest.approx(0.06)


@needs_node
def test_javascript_measures_as_python_does():
    rng = np.random.default_rng(1)
    shapes = [disk_points(rng, n).tolist() for n in (2, 3, 3, 3, 4, 5, 6) for _ in range(20)]
    body = "return data.map((p) => ({ ...measure(p, 0.7), flat: measureFlat(p, 0.7) }))"
    for points, found in zip(shapes, javascript(body, shapes), strict=True):
        expected = measure(points, 0.7, flat=True)
        for mine, theirs in ((expected, found), (expected["flat"], found["flat"])):
            assert (mine["area"] is None) == (theirs["area"] is None)
            for key in {"lengths", "angles", "angle_sum", "area"}:
                if mine[key] is not None:
                    np.testing.assert_allclose(theirs[key], mine[key], rtol=1e-9, atol=1e-12)


@needs_node
@pytest.mark.parametrize("model", MODELS)
def test_what_a_model_shows_can_be_grabbed_there(model):
    points = disk_points(np.random.default_rng(2), 100).tolist()
    back = javascript(
        f"return data.map((z) => CHARTS['{model}'].from(CHARTS['{model}'].to(toSheet(z))))", points
    )
    np.testing.assert_allclose(back, points, atol=1e-9)


@needs_node
def test_models_agree_with_their_textbook_formulas():
    points = disk_points(np.random.default_rng(3), 50)
    z = points @ [1, 1j]
    shown = {
        m: javascript(f"return data.map((z) => CHARTS['{m}'].to(toSheet(z)))", points.tolist())
        for m in MODELS[:3]
    }
    shown = {m: np.array(p) @ [1, 1j] for m, p in shown.items()}
    np.testing.assert_allclose(shown["disk"], z, rtol=1e-12)
    np.testing.assert_allclose(shown["klein"], 2 * z / (1 + abs(z) ** 2), rtol=1e-12)
    np.testing.assert_allclose(shown["half-plane"], (z + 1j) / (1 + 1j * z), rtol=1e-10)


@needs_node
def test_sides_are_chords_in_the_klein_disk_and_rings_keep_their_distance():
    u, v = [0.7, 0.1], [-0.2, -0.6]
    chord = np.array(javascript("return side(...data).map(CHARTS.klein.to)", [u, v])) @ [1, 1j]
    assert abs(np.imag((chord - chord[0]) / (chord[-1] - chord[0]))).max() < 1e-12
    ring = javascript("return ring(data, 1.3).map(toDisk)", u)
    np.testing.assert_allclose([measure([u, p])["lengths"][0] for p in ring], 1.3, rtol=1e-12)


@needs_node
def test_every_place_of_the_paper_is_some_point_of_the_disk():
    rng = np.random.default_rng(4)
    places = rng.uniform(-9, 9, (200, 2)).tolist()
    for model in MODELS:
        z = np.array(javascript(f"return data.map(CHARTS['{model}'].from)", places))
        assert np.isfinite(z).all() and (np.hypot(*z.T) < 1).all()


def test_numbers_follow_points_and_curvature():
    view, seen = PlaneView(), []
    assert view.points == [list(p) for p in TRIANGLE] and view.numbers == measure(TRIANGLE)
    view.observe(lambda change: seen.append(change["new"]), "numbers")
    view.points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]], dtype=torch.float64).tolist()
    view.c = 4.0
    assert seen == [measure(view.points), measure(view.points, 4.0)]
    assert seen[1]["area"] == pytest.approx(seen[0]["area"] / 4) and "flat" not in seen[0]
    assert "flat" in PlaneView(models=["disk", "flat"]).numbers


def test_tensors_are_welcome():
    assert PlaneView(torch.tensor(TRIANGLE, requires_grad=True)).points == [
        pytest.approx(list(p), abs=1e-6) for p in TRIANGLE
    ]


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.zeros((3, 3)), r"\(N, 2\).*\(3, 3\)"),
        ([[0, 0]], "two to six, but 1 came"),
        (np.zeros((7, 2)), "two to six, but 7 came"),
        ([[0, 0], [0, math.nan]], "point 1 is"),
        ([[0, 0], [1.0, 0]], r"point 1 is \[1.0, 0.0\]"),
        ([["a", "b"]], "array of numbers"),
    ],
)
def test_points_that_cannot_be_shown_are_refused(points, says):
    with pytest.raises(ManifoldError, match=says):
        PlaneView(points)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"models": ["disc"]}, "unknown model 'disc'.*did you mean 'disk'"),
        ({"models": []}, "one or more"),
        ({"models": ["disk", "disk"]}, "each once"),
        ({"c": 0.0}, "c must lie between 0.1 and 4"),
        ({"c": math.nan}, "c must lie"),
        ({"radius": -1.0}, "radius must lie between 0 and 2"),
    ],
)
def test_what_a_view_cannot_do_is_refused(options, says):
    with pytest.raises(ParameterError, match=says):
        PlaneView(**options)


def test_a_view_keeps_its_number_of_points_and_its_models():
    view = PlaneView(models="klein")
    with pytest.raises(ManifoldError, match="3 points, but 2 came"):
        view.points = [[0, 0], [0.1, 0]]
    with pytest.raises(ParameterError, match="chosen when a view is made"):
        view.models = ["disk"]
    with pytest.raises((ManifoldError, traitlets.TraitError)):
        view.points = [[0, 0], [0.1, 0], [2.0, 0]]
    assert view.points == [list(p) for p in TRIANGLE]


def test_the_page_holds_everything_and_fetches_nothing(tmp_path):
    first, second = (PlaneView(radius=0.5).to_html(tmp_path / name, title="A & B") for name in ("a", "b"))
    page = first.read_text("utf-8")
    assert first.read_bytes() == second.read_bytes()
    assert "<title>A &amp; B</title>" in page
    assert not re.search(r"https?://|\bimport\s*[({'\"]|\bfetch\(", page)
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.S)[1])
    assert state["points"] == [list(p) for p in TRIANGLE] and state["radius"] == 0.5
