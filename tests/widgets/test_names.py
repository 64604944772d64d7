"""What the browser of names says, without a browser: its Python side."""

import numpy as np
import pytest
import torch

from workbench.data import Hierarchy, trees
from workbench.errors import DataError, ParameterError
from workbench.manifolds import PoincareBall
from workbench.models import HiM, HiMConfig
from workbench.models.him import Calibrated
from workbench.widgets import NameBrowser

PAIRS = [("animal", "dog"), ("animal", "cat"), ("dog", "poodle"), ("dog", "red_setter"), ("cat", "tabby")]
H = Hierarchy.from_edges([*PAIRS, ("animal", "pet"), ("pet", "poodle")])
BAG = dict(kind="bag", width=16, layers=1)


def model_of(space="poincare", dim=2, **options):
    model = HiM(HiMConfig(space=space, dim=dim, gamma=2.0, encoder=BAG, **options)).eval()
    model.calibration = Calibrated(1.0, 1.5)
    return model


@pytest.fixture
def browser():
    return NameBrowser(model_of(c=0.5), H, "poodle", k=4)


def test_answers_are_those_of_the_model_and_marked_by_what_the_hierarchy_knows(browser):
    assert [(a.name, a.margin) for a in browser.reading.answers] == browser._model.hypernyms("poodle", 4)
    true = {"animal", "dog", "pet"}
    assert all(a.true == (a.name in true) for a in browser.reading.answers)
    assert all(f"{a.margin:+.2f}" in browser.about.value for a in browser.reading.answers)


@torch.no_grad()
@pytest.mark.parametrize("name", ["poodle", "tabby", "animal"])
def test_what_is_believed_and_missed_is_what_asking_pair_by_pair_gives(browser, name):
    model, reading = browser._model, browser.read(name)
    texts = [t.replace("_", " ") for t in H.names if t != name]
    r = {t: float(model.manifold.dist0(model.encode(t))) for t in [*texts, name]}
    believed = {t for t in texts if model.subsumption(name, t) > 0 and r[t] < r[name]}
    true = {H.names[a].replace("_", " ") for a in H.ancestors(name)}
    assert reading.believed == len(believed) and set(reading.missed) == true - believed


def test_a_new_name_is_answered_without_marks_and_placed_where_the_model_puts_it(browser):
    browser.name.value = "Red_Panda"
    reading = browser.reading
    assert (
        reading.name == "red panda" and reading.nodes == () and "not in the hierarchy" in browser.about.value
    )
    assert all(a.true is None for a in reading.answers) and "✗" not in browser.about.value
    unit = torch.from_numpy(browser.disk.points[-1])
    point = browser._model.encode("red panda")
    r = 0.5**0.5 * browser._model.manifold.dist0(point)
    assert torch.allclose(PoincareBall().dist0(unit), r.detach()) and browser.disk.selected == len(H)
    assert torch.allclose(unit / unit.norm(), (point / point.norm()).detach())


def test_the_view_stands_half_way_between_the_origin_and_the_name(browser):
    browser.name.value = "red panda"
    ball = PoincareBall()
    at, centre = (
        torch.from_numpy(browser.disk.points[-1]),
        torch.tensor(browser.disk.center, dtype=torch.float64),
    )
    assert torch.allclose(ball.dist0(centre), ball.dist(centre, at)) and torch.allclose(
        ball.dist0(centre), ball.dist0(at) / 2
    )


def test_a_name_of_the_hierarchy_selects_its_node_and_a_selected_node_types_its_name(browser):
    assert browser.disk.selected == H.index("poodle")
    browser.disk.selected = H.index("red_setter")
    assert browser.name.value == "red setter" and browser.reading.nodes == (H.index("red_setter"),)
    browser.name.value = "gnu"
    browser.disk.selected = len(H)  # the typed name itself
    assert browser.name.value == "gnu"


def test_the_line_to_the_surest_answer_is_drawn_anew_for_each_name(browser):
    for name in ("red panda", "gnu", "red panda"):
        browser.name.value = name
        edges = np.frombuffer(browser.disk._edges, "<u4").reshape(-1, 2)
        best = [a.name for a in browser.reading.answers if a.margin > 0][:1]
        assert len(edges) == len(H.edges) + len(best)
        assert [browser._texts[a] for a, b in edges.tolist() if b == len(H)] == best


def test_both_charts_give_one_picture():
    views = [NameBrowser(model_of(space, c=0.7), H, "gnu") for space in ("poincare", "lorentz")]
    assert np.allclose(views[0].disk.points, views[1].disk.points, atol=1e-12)


@pytest.mark.parametrize(
    "name, other, true",
    [
        ("poodle", "animal", "narrower"),
        ("Animal", "red_setter", "broader"),
        ("dog", "cat", "unrelated"),
        ("dog", "dog", "same"),
        ("gnu", "dog", None),
    ],
)
def test_a_second_name_is_told_with_the_truth_where_it_is_known(browser, name, other, true):
    said, known = browser.relation(name, other)
    assert known == true and (said == "same" if name == other else True)
    browser.name.value, browser.other.value = name, other
    assert ("✓" in browser._beside()) == (said == true) and ("✗" in browser._beside()) == (
        true is not None and said != true
    )


def test_homonyms_count_as_one_name_whose_ancestors_are_those_of_all():
    two = Hierarchy.from_edges(
        [("a", "x"), ("b", "y")], labels={"a": "bird", "b": "engine", "x": "crane", "y": "crane"}
    )
    reading = NameBrowser(model_of(), two, "crane").reading
    assert len(reading.nodes) == 2
    assert {a.name for a in reading.answers if a.true} | set(reading.missed) == {"bird", "engine"}


@pytest.mark.parametrize("space, dim", [("poincare", 3), ("euclidean", 2)])
def test_without_a_plane_to_draw_there_are_answers_only(space, dim):
    browser = NameBrowser(model_of(space, dim), H, "poodle")
    assert browser.disk is None and "poodle" in browser.about.value


def test_markup_in_a_name_is_shown_and_not_obeyed(browser):
    browser.name.value = browser.other.value = "<script>alert(1)</script>"
    assert "<script>" not in browser.about.value and "&lt;script&gt;" in browser.about.value


@pytest.mark.parametrize("blank", ["", "  ", "__"])
def test_a_blank_name_asks_for_one_and_changes_nothing(browser, blank):
    before = browser.reading
    browser.name.value = blank
    assert browser.about.value == "type a name" and browser.reading is before
    with pytest.raises(DataError):
        browser.read(blank)


def test_a_model_that_knows_other_names_is_told_those_of_the_hierarchy():
    model = model_of()
    model.index(["elsewhere"])
    NameBrowser(model, H)
    assert set(model.indexed.names) == {n.replace("_", " ") for n in H.names}


def test_an_uncalibrated_model_and_texts_that_do_not_fit_are_refused():
    model = model_of()
    with pytest.raises(DataError, match="one a node"):
        NameBrowser(model, trees.balanced(2, 2), texts=["one"])
    model.calibration = None
    with pytest.raises(ParameterError, match="threshold"):
        NameBrowser(model, H)
