"""Views side by side."""

import numpy as np
import pytest

from workbench.errors import DataError
from workbench.widgets import DiskView
from workbench.widgets.linked import SHARED, linked

POINTS = np.array([[0.0, 0.0], [0.5, 0.25], [-0.3, 0.6]])


def test_views_share_what_is_selected_and_stay_apart_in_where_they_look():
    one, other = DiskView(POINTS), DiskView(POINTS, chart="klein")
    row = linked(one, other, titles=("disk", "Klein"))
    assert [box.children[1] for box in row.children] == [one, other]
    assert "center" not in SHARED and {"selected", "lassoed"} <= set(SHARED)


@pytest.mark.parametrize("others, titles, says", [
    ([], (), "two views"), ([POINTS[:2]], (), "3, 2"), ([POINTS], ("only one",), "as many titles"),
])  # fmt: skip
def test_views_that_do_not_fit_are_refused(others, titles, says):
    with pytest.raises(DataError, match=says):
        linked(DiskView(POINTS), *map(DiskView, others), titles=titles)
