"""A history drawn on the disk."""

import numpy as np
import pytest

from workbench.errors import ParameterError
from workbench.plots.histories import history_disk

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-0.6, 0.6, (40, 2))
LABELS = [f"film {i}" for i in range(40)]


def drawn(history, following, **options):
    return history_disk(POINTS, history, following, [0.1, 0.2], LABELS, **options)


def test_each_part_is_marked_where_its_points_are():
    fig = drawn([1, 2, 1], [7, 8, 9], color=["a", "b"] * 20)
    marks = {t.name: np.stack([t.x, t.y], 1) for t in fig.data if (t.uid or "").startswith("mark-")}
    assert np.allclose(marks["in the history"], POINTS[[1, 2]])
    assert np.allclose(marks["next"], POINTS[[7, 8, 9]]) and np.allclose(marks["the user"], [[0.1, 0.2]])


def test_only_the_next_and_the_newest_are_labelled():
    fig = drawn(list(range(20)), [30, 31], trail=3)
    written = {n.text for n in fig.layout.annotations if "film" in (n.text or "")}
    assert written <= {"film 30", "film 31", "film 19", "film 18", "film 17"} and "film 30" in written


def test_the_line_ends_at_the_user_and_an_empty_history_has_none():
    line = next(t for t in drawn([3, 5], [7]).data if t.uid == "trail")
    ends = np.stack([line.x, line.y], 1)
    assert np.allclose(ends[-2], [0.1, 0.2], atol=1e-9) or np.isclose(ends, [0.1, 0.2]).all(1).any()
    assert not len(next(t for t in drawn([], []).data if t.uid == "trail").x)


def test_an_item_that_is_not_there_is_refused():
    with pytest.raises(ParameterError, match="0 to 39"):
        drawn([40], [1])
