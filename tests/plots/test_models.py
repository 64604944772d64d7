import numpy as np
import pytest

from workbench.errors import ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.models import TILT, WINDOWS, in_four_models, onto_paper

Z = np.array([0.55j, -0.5 - 0.3j, 0.5 - 0.25j])


def test_sides_are_chords_half_circles_and_plane_sections():
    side = plane.geodesic_polyline(Z[1], Z[2], 40)
    chord = onto_paper(side, "klein")
    assert abs(np.imag((chord - chord[0]) / (chord[-1] - chord[0]))).max() < 1e-12
    w = onto_paper(side, "half-plane")
    foot = (abs(w[-1]) ** 2 - abs(w[0]) ** 2) / (2 * (w[-1] - w[0]).real)  # centre on the edge
    np.testing.assert_allclose(abs(w - foot), abs(w[0] - foot), rtol=1e-12)


def test_the_hyperboloid_is_seen_from_above():
    z = np.array([0, 0.5, 0.5j])
    seen = onto_paper(z, "hyperboloid")
    x, t = 2 * 0.5 / 0.75, 1.25 / 0.75
    up, back = np.cos(TILT), np.sin(TILT)
    np.testing.assert_allclose(seen, [1j * up, x + 1j * t * up, 1j * (x * back + t * up)])


def test_four_panels_hold_the_lines_and_the_named_dots():
    lines = list(plane.geodesic_polyline(Z, np.roll(Z, -1), 16))
    fig = in_four_models(lines, dots=Z, names="ABC", title="t")
    dots = [t for t in fig.data if t.uid.endswith("dots")]
    assert len(dots) == len(WINDOWS) and list(dots[0].text) == ["A", "B", "C"]
    np.testing.assert_allclose(dots[1].x + 1j * np.array(dots[1].y), onto_paper(Z, "klein"))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ParameterError, match=r"'disc'.*did you mean 'disk'"):
        onto_paper(Z, "disc")
    with pytest.raises(ParameterError, match="1 lines, 2 colors"):
        in_four_models([Z], colors=["red", "blue"])
    with pytest.raises(ParameterError, match="3 dots, 1 names"):
        in_four_models([Z], dots=Z, names=["A"])
