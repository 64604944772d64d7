"""The JavaScript isometries against Python's complex numbers."""

import cmath
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from javascript import evaluated, needs_node

import workbench.widgets

SOURCE = (Path(workbench.widgets.__file__).parent / "isometry.js").read_text("utf-8")
javascript = partial(evaluated, SOURCE)
pytestmark = needs_node


def disk_points(rng, *shape, radius=0.97):
    r = radius * np.sqrt(rng.uniform(size=shape))
    return r * np.exp(2j * np.pi * rng.uniform(size=shape))


def pairs(z):
    return np.stack([np.real(z), np.imag(z)], -1).tolist()


def mobius(view, z):
    a, b = complex(*view[:2]), complex(*view[2:])
    return (a * z + b) / (b.conjugate() * z + a.conjugate())


def toward(c, z):
    return (z - c) / (1 - np.conj(c) * z)


def distance(u, v):
    return 2 * math.atanh(abs(toward(u, v)))


def test_drags_agree_with_complex_arithmetic():
    rng = np.random.default_rng(1)
    starts, steps, marks = disk_points(rng, 500), disk_points(rng, 500, 2), disk_points(rng, 20)
    views = javascript(
        "return data.map(([s, p, q]) => drag(translation(...s), p, q))",
        [pairs(row) for row in np.column_stack([starts, steps])],
    )
    for start, (p, q), view in zip(starts, steps, views, strict=True):
        expected = toward(-q, toward(p, toward(start, marks)))
        np.testing.assert_allclose([mobius(view, z) for z in marks], expected, atol=1e-10)


def test_the_grabbed_point_stays_under_the_pointer_over_ten_thousand_steps():
    rng = np.random.default_rng(2)
    track = np.clip(np.cumsum(rng.normal(scale=0.03, size=(10_000, 2)), axis=0), -0.6, 0.6)
    view, grabbed = javascript(
        """let V = translation(0.3, -0.2); const z = apply(inverse(V), ...data[0]);
        for (let k = 1; k < data.length; k++) V = drag(V, data[k - 1], data[k]);
        return [V, z]""",
        track.tolist(),
    )
    assert abs(mobius(view, complex(*grabbed)) - complex(*track[-1])) < 1e-9
    assert abs(view[0] ** 2 + view[1] ** 2 - view[2] ** 2 - view[3] ** 2 - 1) < 1e-9


def test_drags_keep_distances():
    rng = np.random.default_rng(3)
    z, steps = disk_points(rng, 30), disk_points(rng, 10, 2, radius=0.6)
    moved = javascript(
        """let V = IDENTITY; for (const [p, q] of data.steps) V = drag(V, p, q);
        const xy = Float64Array.from(data.z.flat()), out = new Float64Array(xy.length);
        project(V, xy, out);
        const one = data.z.map((z) => apply(V, ...z));
        return { out: [...out], one: one.flat() }""",
        {"z": pairs(z), "steps": [pairs(s) for s in steps]},
    )
    assert moved["out"] == moved["one"]
    w = np.array(moved["out"][::2]) + 1j * np.array(moved["out"][1::2])
    for k in range(1, 30):
        assert distance(w[0], w[k]) == pytest.approx(distance(z[0], z[k]), rel=1e-6)


def test_the_surroundings_of_the_grabbed_point_do_not_turn_on_the_screen():
    rng = np.random.default_rng(8)
    steps = disk_points(rng, 50, 2, radius=0.9)
    views = javascript("return data.map((step) => drag(IDENTITY, ...step))", [pairs(step) for step in steps])
    for (p, q), view in zip(steps, views, strict=True):
        assert abs(cmath.phase(mobius(view, p + 1e-6) - q)) < 1e-4


def test_a_closed_loop_turns_the_plane_by_the_area_it_encloses():
    a, b, c = corners = [0.2 - 0.1j, 0.7 + 0.2j, -0.1 + 0.6j]
    start, end = javascript(
        """const [a, b, c] = data, V = translation(...a);
        return [V, [b, c, a].reduce((U, z) => glide(U, z, 1), V)]""",
        pairs(np.array(corners)),
    )
    assert abs(mobius(end, a)) < 1e-12
    turn = cmath.phase(mobius(end, 0.1) / mobius(start, 0.1))
    angles = [abs(cmath.phase(toward(y, x) / toward(y, z))) for x, y, z in [(a, b, c), (b, c, a), (c, a, b)]]
    assert abs(turn) == pytest.approx(math.pi - sum(angles), abs=1e-9)


def test_an_upright_drag_holds_the_point_and_never_turns():
    rng = np.random.default_rng(4)
    rows = javascript(
        """return data.map(([s, p, q]) => {
        const V = translation(...s), z = apply(inverse(V), ...p), U = dragUpright(V, p, q);
        return [U, apply(U, ...z), centre(U)] })""",
        [pairs(row) for row in disk_points(rng, 300, 3)],
    )
    for row, (view, shown, middle) in zip(disk_points(np.random.default_rng(4), 300, 3), rows, strict=True):
        assert view[1] == 0 and view[0] > 0
        assert math.hypot(*middle) < 1
        assert abs(complex(*shown) - row[2]) < 1e-9


def test_a_glide_runs_along_the_geodesic_at_constant_speed():
    rng = np.random.default_rng(5)
    start, targets = disk_points(rng, 40), disk_points(rng, 40)
    fractions = [0, 0.25, 0.5, 0.9, 1]
    rows = javascript(
        """return data.start.map((s, k) => { const V = drag(translation(...s), [0.3, 0.4], [-0.2, 0.1]);
        return [centre(V), ...data.fractions.map((t) => centre(glide(V, data.targets[k], t)))] })""",
        {"start": pairs(start), "targets": pairs(targets), "fractions": fractions},
    )
    for target, (first, *rest) in zip(targets, rows, strict=True):
        a, whole = complex(*first), distance(complex(*first), target)
        for t, c in zip(fractions, rest, strict=True):
            assert distance(a, complex(*c)) == pytest.approx(t * whole, abs=1e-6)
            assert distance(complex(*c), target) == pytest.approx((1 - t) * whole, abs=1e-6)


def test_undoing_the_turn_leaves_a_pure_translation():
    rng = np.random.default_rng(6)
    rows = javascript(
        """return data.map(([p, q, r]) => { const V = drag(drag(translation(...p), q, r), r, p);
        return [compose(rotation(-turned(V)), V), translation(...centre(V))] })""",
        [pairs(s) for s in disk_points(rng, 100, 3, radius=0.9)],
    )
    for level, pure in rows:
        np.testing.assert_allclose(level, pure, atol=1e-7)


def test_arcs_pass_through_both_points_at_right_angles_to_the_rim():
    rng = np.random.default_rng(7)
    ends = disk_points(rng, 200, 2)
    for (u, v), circle in zip(
        ends,
        javascript("return data.map(([u, v]) => arc(...u, ...v))", [pairs(e) for e in ends]),
        strict=True,
    ):
        c, r = complex(*circle[:2]), circle[2]
        assert abs(u - c) == pytest.approx(r, rel=1e-6) and abs(v - c) == pytest.approx(r, rel=1e-6)
        assert abs(c) ** 2 == pytest.approx(1 + r * r, rel=1e-9)
    assert (
        javascript("return arc(...data[0], ...data[1])", pairs(np.array([-0.3 - 0.3j, 0.5 + 0.5j]))) is None
    )


def test_the_world_ends_where_doubles_end_and_not_in_nan():
    views = javascript(
        """let V = IDENTITY, U = IDENTITY;
        const p = [0.9, 0.1], q = [-0.9, 0];
        for (let k = 0; k < 500; k++) (V = drag(V, p, q), U = dragUpright(U, p, q));
        return [V, U]""",
        None,
    )
    assert np.isfinite(views).all()
