"""Formulas keep on a page the structure and the spaces that TeX would give them."""

import re
from xml.etree import ElementTree

import pytest

from workbench.errors import WorkbenchError
from workbench.lessons.formulas import mathml


def tree(tex):
    return ElementTree.fromstring(mathml(tex, "inline"))


@pytest.mark.parametrize(
    "tex", ["|z|^2", "(a+b)^2", r"\Bigl(\frac12\Bigr)^2", r"\langle x, y\rangle_L", "1-(x+(y))^2"]
)
def test_an_exponent_belongs_to_the_whole_bracket(tex):
    raised = next(e for e in tree(tex).iter() if e.tag in ("msup", "msub"))
    inside = "".join(raised[0].itertext())
    assert raised[0].tag == "mrow" and inside[0] in "|(⟨" and inside[-1] in "|)⟩" and len(inside) > 2


def test_of_two_absolute_values_only_the_second_is_squared():
    raised = next(tree("|a|-|b|^2").iter("msup"))
    assert "".join(raised[0].itertext()) == "|b|"


def test_a_bracket_that_nothing_opens_stays_as_it_is():
    assert "".join(tree(")^2").itertext()) == ")2"


@pytest.mark.parametrize(
    "tex, spaces",
    [(r"26\ln 2", 2), (r"\sinh r", 1), (r"\sinh^2 r", 1), (r"\sinh(r)", 0), (r"x + \tanh(r)", 0), ("ab", 0)],
)
def test_a_function_stands_a_little_apart_from_bare_neighbours(tex, spaces):
    assert len(list(tree(tex).iter("mspace"))) == spaces


def test_bars_and_slashes_have_no_space_and_bold_is_bold():
    assert all(o.get("lspace") == "0" for o in tree("|x|/2").iter("mo"))
    assert "bold" in next(tree(r"\mathbf x").iter("mi")).get("style")


def test_nothing_points_to_a_network_and_what_is_unknown_is_named():
    assert "http" not in mathml(r"\underbrace{x}_{\text{here}}", "block")
    for tex in (r"\nosuchthing{x}", r"x^2^2"):
        with pytest.raises(WorkbenchError, match=re.escape(tex[:5])):
            mathml(tex, "inline")
