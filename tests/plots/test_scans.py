"""Matrices by the size of their entries: what is dark is large, what is white is nothing."""

import numpy as np
import pytest

from workbench import plots
from workbench.errors import ParameterError
from workbench.plots.scans import sizes


def test_colours_are_logarithms_and_what_is_below_the_floor_stays_white():
    fig = plots.matrix([[1.0, 0.0], [-0.01, 1e-9]], floor=1e-3)
    assert [list(row) for row in fig.data[0].z] == [[0, None], [-2, None]]
    assert (fig.data[0].zmin, fig.data[0].zmax) == (-3, 0)
    assert sizes([[np.nan, 5e-4, 2e-3]], 1e-3) == [[None, None, pytest.approx(np.log10(2e-3), abs=1e-4)]]


def test_rows_run_downwards_in_square_cells():
    fig = plots.matrix(np.eye(3), side=300)
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1] and fig.layout.yaxis.scaleanchor == "x"
    margin = fig.layout.margin
    assert fig.layout.width - margin.l - margin.r == 300 == fig.layout.height - margin.t - margin.b


def test_blocks_are_cut_between_cells_and_texts_stand_where_they_are_put():
    fig = plots.matrix(np.eye(6), block=2, texts={(3.5, 0.5): "rank < 2"})
    lines = [s for s in fig.layout.shapes if s.type == "line"]
    assert {s.x0 for s in lines if s.x0 == s.x1} == {1.5, 3.5} == {s.y0 for s in lines if s.y0 == s.y1}
    assert (fig.layout.annotations[0].x, fig.layout.annotations[0].y) == (0.5, 3.5)
    assert fig.layout.annotations[0].text == "rank &lt; 2"


def test_matrices_side_by_side_stay_square_and_keep_one_colour_bar():
    bar, none = (plots.matrix(np.eye(4), top=1, colorbar=shown) for shown in (True, False))
    both = plots.side_by_side([none, bar])
    assert [t.showscale for t in both.data] == [False, True]
    assert (both.layout.yaxis2.scaleanchor, both.layout.shapes[1].xref) == ("x2", "x2")


@pytest.mark.parametrize(
    ("values", "options"),
    [([1.0, 2.0], {}), ([[]], {}), ([[0.0]], {}), ([[1.0]], {"floor": 1.0}), ([[1.0]], {"floor": 0.0})],
)
def test_what_cannot_be_drawn_is_refused(values, options):
    with pytest.raises(ParameterError, match="matrix"):
        plots.matrix(values, **options)
