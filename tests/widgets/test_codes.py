"""Walking down codes without a browser: the widget's Python side."""

from types import SimpleNamespace

import numpy as np
import pytest

from workbench import plots
from workbench.data import trees
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


def click(browser, code: int) -> None:
    trace = browser.clickable
    at = list(trace.customdata).index(code)
    browser._clicked(trace, SimpleNamespace(point_inds=[at]), None)


def test_choosing_a_code_lists_its_members_and_their_common_ancestor_and_moves_the_view(browser):
    code = browser.choice.options[1][1]
    before = browser.clickable.x
    browser.choice.value = code
    assert browser.prefix == (code,)
    here = members(browser._codes, (code,))
    assert f"{len(here)} members" in browser.about.value
    assert f"all below <b>{H.labels[common_ancestor(H, here.tolist())]}</b>" in browser.about.value
    assert not np.array_equal(browser.clickable.x, before)


def test_a_click_does_what_the_list_does_and_up_undoes_it(browser):
    code = browser.choice.options[2][1]
    click(browser, code)
    assert browser.prefix == (code,) and browser.choice.value is None and not browser.up.disabled
    browser.up.click()
    assert browser.prefix == () and browser.up.disabled


def test_at_the_last_level_the_view_stays_and_another_code_of_it_can_be_clicked(browser):
    browser.go((browser.choice.options[1][1],))
    first, second = (browser.choice.options[i][1] for i in (1, 2))
    shown = browser.clickable.x
    click(browser, first)
    assert len(browser.prefix) == 2 and np.array_equal(browser.clickable.x, shown)
    click(browser, second)
    assert browser.prefix[1] == second


def test_a_prefix_that_no_member_has_is_refused_and_nothing_moves(browser):
    with pytest.raises(ParameterError, match="came as"):
        browser.go((99,))
    assert browser.prefix == ()
