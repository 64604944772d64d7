"""Walking down codes without a browser: the widget's Python side."""

import numpy as np
import pytest

from workbench import plots
from workbench.data import Hierarchy, trees
from workbench.errors import ParameterError
from workbench.evaluation import common_ancestor, members
from workbench.manifolds import PoincareBall
from workbench.models import sarkar
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.widgets import CodeBrowser

H = trees.balanced(3, 4)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*levels of:UserWarning"
)  # few codes, so that cells have company


@pytest.fixture
def browser():
    x = sarkar(H, 2, 1.5)
    quantizer = ResidualQuantizer(PoincareBall(), 2, 2, 6).fit(x)
    codes, books = quantizer.encode(x).numpy(), [book.numpy() for book in quantizer.codebooks]
    return CodeBrowser(codes, H, lambda prefix: plots.cells(x.numpy(), codes, books, prefix=prefix))


def click(browser, code: int, among: str = "crosses") -> None:
    """What the browser says: a click on one trace, told to all of them."""
    traces = browser.picture.data
    if among == "cells":
        hit, at = next(t for t in traces if t.hoveron == "fills" and t.customdata[0] == code), None
    else:
        hit = [t for t in browser.clickable if t.hoveron != "fills" and code in list(t.customdata)]
        hit = hit[-1 if among == "crosses" else 0]
        at = list(hit.customdata).index(code)
    heard = dict(xs=[0.0], ys=[0.0], point_indexes=[at], trace_indexes=[traces.index(hit)])
    browser.picture._js2py_pointsCallback = dict(event_type="plotly_click", points=heard)


def test_choosing_a_code_lists_its_members_and_their_common_ancestor_and_moves_the_view(browser):
    code = browser.choice.options[1][1]
    before = browser.clickable[-1].x
    browser.choice.value = code
    assert browser.prefix == (code,)
    here = members(browser._codes, (code,))
    assert f"{len(here)} members" in browser.about.value
    assert f"all below <b>{H.labels[common_ancestor(H, here.tolist())]}</b>" in browser.about.value
    assert not np.array_equal(browser.clickable[-1].x, before)


@pytest.mark.parametrize("among", ["crosses", "points", "cells"])
def test_a_click_does_what_the_list_does_and_up_undoes_it(browser, among):
    code = browser.choice.options[2][1]
    click(browser, code, among)
    assert browser.prefix == (code,) and browser.choice.index == 0 and not browser.up.disabled
    browser.up.click()
    assert browser.prefix == () and browser.up.disabled


def test_at_the_last_level_the_view_stays_and_another_code_of_it_can_be_clicked(browser):
    browser.go((browser.choice.options[1][1],))
    first, second = (browser.choice.options[i][1] for i in (1, 2))
    shown = browser.clickable[-1].x
    click(browser, first)
    assert len(browser.prefix) == 2 and np.array_equal(browser.clickable[-1].x, shown)
    click(browser, second)
    assert browser.prefix[1] == second


def test_a_prefix_that_no_member_has_is_refused_and_nothing_moves(browser):
    with pytest.raises(ParameterError, match="came as"):
        browser.go((99,))
    assert browser.prefix == ()


def test_codes_whose_members_have_nothing_in_common_can_be_walked_to_without_a_name():
    two = Hierarchy.from_edges([("a", "b"), ("c", "d")])  # two trees, every code in both
    codes = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    points = np.array([[0.5, 0.0], [0.0, 0.5], [-0.5, 0.0], [0.0, -0.5]])
    books = [points[:2], points[:2]]
    browser = CodeBrowser(codes, two, lambda prefix: plots.cells(points, codes, books, prefix=prefix))
    assert [text for text, _ in browser.choice.options] == ["choose a code", "0", "1"]
    browser.choice.value = 1
    assert (
        browser.prefix == (1,) and "2 members" in browser.about.value and "below" not in browser.about.value
    )
