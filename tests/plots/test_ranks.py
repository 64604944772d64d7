"""Lines of ranks over the steps of a change."""

import numpy as np
import pytest

from workbench.errors import ParameterError
from workbench.plots.ranks import rank_moves

RANKS = np.array([[1, 2, 40, 0], [2, 1, 30, 5], [50, 1, 2, 3]])


def test_each_item_is_a_line_and_gaps_are_left_where_it_takes_no_part():
    fig = rank_moves(RANKS, list("abcd"), ["x", "y", "z"], first=3)
    lines = {trace.name: np.array(trace.y, float) for trace in fig.data}
    assert np.array_equal(lines["a"], [1, 2, 50]) and np.isnan(lines["d"][0])
    assert list(fig.layout.xaxis.ticktext) == ["x", "y", "z"]
    assert fig.layout.yaxis.type == "log" and fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1]


def test_names_stand_at_the_end_sorted_and_apart():
    ranks = np.tile(np.arange(1, 13), (2, 1))
    fig = rank_moves(ranks, [f"film {i}" for i in range(12)], ["a", "b"])
    notes = [n for n in fig.layout.annotations if "film" in n.text]
    top, bottom = fig.layout.yaxis.range
    room = fig.layout.height - fig.layout.margin.t - fig.layout.margin.b
    pixels = np.array([(n.ay - bottom) / (top - bottom) * room for n in notes])
    assert len(notes) == 12 and (np.diff(pixels) >= 15).all() and pixels.max() <= room


def test_those_that_fell_out_are_grey_and_below():
    fig = rank_moves(RANKS, list("abcd"), ["x", "y", "z"], first=3)
    colours = {trace.name: trace.line.color for trace in fig.data}
    assert len({colours[i] for i in "bcd"}) == 3 and colours["a"] not in {colours[i] for i in "bcd"}
    assert fig.data[0].name == "a"


@pytest.mark.parametrize("ranks", [RANKS[:, :3], RANKS.astype(float), -RANKS])
def test_ranks_that_do_not_fit_are_refused(ranks):
    with pytest.raises(ParameterError, match="ranks"):
        rank_moves(ranks, list("abcd"), ["x", "y", "z"])


def test_one_step_is_no_move():
    with pytest.raises(ParameterError, match="two steps"):
        rank_moves(RANKS[:1], list("abcd"), ["x"])
