"""What the browser of recommendations does, without a browser: its Python side."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.data.interactions import Interactions, synthetic
from workbench.errors import DataError, ParameterError
from workbench.manifolds import PoincareBall
from workbench.models.baselines import Popularity
from workbench.models.recommender import Recommender, named
from workbench.widgets.recommendations import RecommendationBrowser

DATA = synthetic(n_users=20, n_items=81, length=8)
SMALL = {"state": 4, "max_len": 12}


def model_of(name="hmamba_full", width=2, **changes):
    model = Recommender(named(name, width=width, **SMALL | changes), DATA.n_items).eval()
    model.items.tangent.data *= 50  # points of a trained model lie further out than at the start
    return model


@pytest.fixture
def browser():
    return RecommendationBrowser(model_of(), DATA, k=5)


def edges(browser):
    return {tuple(e) for e in np.frombuffer(browser.disk._edges, "<u4").reshape(-1, 2).tolist()}


def listed(browser, name=""):
    return browser.lists[name]._items


def test_it_begins_with_the_history_of_the_first_user_and_marks_what_was_taken_next(browser):
    test = DATA.test
    assert browser.user.value == DATA.users[test.users[0]]
    assert browser.history == test.histories[0].tolist()
    target = int(test.targets[0])
    assert f"rank {browser.readings[''].ranks[target]}" in browser.about.value
    assert DATA.titles[target] in browser.about.value


def test_the_list_is_what_the_model_recommends_through_every_change(browser):
    model = browser._models[""]
    for act in (lambda: browser.add(3), browser._drop_last, lambda: browser.add("5"), browser._drop_last):
        act()
        told = model.recommend(browser.history, 5)
        assert [DATA.titles[i] for i in listed(browser)] == [title for title, _ in told]
        for row, (title, score) in zip(browser.lists[""].rows, told, strict=True):
            assert title in row.value and f"{score:.2f}" in row.value


def test_arrows_tell_the_difference_between_the_readings_before_and_now(browser):
    before = browser.readings[""].ranks
    browser.add(listed(browser)[0])
    now, fell = browser.moves()
    for move, row in zip(now, browser.lists[""].rows, strict=True):
        assert move.before == before[move.item] and move.rank == browser.readings[""].ranks[move.item]
        up = before[move.item] - move.rank
        assert ("▲" in row.value) == (up > 0) and ("▼" in row.value) == (up < 0)
        assert f" {abs(up)}<" in row.value or up == 0
    for move in fell:
        assert f"({move.before} → {move.rank})" in browser.lists[""].foot.value


def test_what_the_buttons_add_is_the_item_of_their_row(browser):
    third = listed(browser)[2]
    browser.lists[""].buttons[2].click()
    assert browser.history[-1] == third and third not in listed(browser)


def test_rows_can_be_moved_and_removed(browser):
    browser.history = [1, 2, 3]
    assert list(browser.items.options) == [f"{t}  {DATA.titles[t]}" for t in (3, 2, 1)]  # the newest on top
    browser.items.index = 0
    browser.buttons["earlier"].click()
    assert browser.history == [1, 3, 2]
    browser.buttons["earlier"].click()  # the mark has moved along
    assert browser.history == [3, 1, 2]
    browser.buttons["earlier"].click()  # it is the oldest already
    assert browser.history == [3, 1, 2]
    browser.buttons["later"].click()
    browser.buttons["remove"].click()
    assert browser.history == [1, 2]
    browser.buttons["remove"].click()  # nothing is marked
    assert browser.history == [1, 2]


def test_without_a_history_nothing_is_claimed_and_the_next_item_begins_anew(browser):
    browser.buttons["clear"].click()
    assert browser.history == [] and listed(browser) == [] and browser.readings == {}
    assert "no history" in browser.about.value and browser.disk.selected == -1
    browser.buttons["drop last"].click()
    browser.add(7)
    assert browser.history == [7] and len(listed(browser)) == 5
    assert all("▲" not in row.value and "▼" not in row.value for row in browser.lists[""].rows)


def test_a_title_is_found_whole_in_part_or_not(browser):
    size = len(browser.history)
    browser.search.value = DATA.titles[40]
    assert browser.history[size:] == [40] and browser.search.value == ""
    browser.search.value = "_7"
    assert len(browser.history) == size + 1
    shown = {button.description for button in browser.matches.children}
    assert shown < {title for title in DATA.titles if "_7" in title} and len(shown) == 8
    assert "11 titles" in browser.about.value
    button = browser.matches.children[0]
    button.click()
    assert DATA.titles[browser.history[-1]] == button.description and browser.matches.children == ()
    browser.search.value = "<no such film>"
    assert "&lt;no such film&gt;" in browser.about.value and len(browser.history) == size + 2


def test_another_user_brings_another_history_and_no_arrows(browser):
    browser.add(3)
    browser.user.value = DATA.users[DATA.test.users[4]]
    assert browser.history == DATA.test.histories[4].tolist() and browser.before == {}
    browser.user.value = "nobody"
    assert "nobody" in browser.about.value and browser.history == DATA.test.histories[4].tolist()


@torch.no_grad()
def test_the_disk_has_the_models_points_and_the_users_where_the_history_leads(browser):
    model, space = browser._models[""], PoincareBall()
    browser.history = [4, 9]
    radius = 2 * np.arctanh(np.linalg.norm(browser.disk.points, axis=1))
    expected = model.manifold.dist0(model.item_points()).numpy()
    assert np.allclose(radius[:-1], browser.plane.stretch * expected)
    state = model.states(torch.tensor([[4, 9]]), torch.ones(1, 2, dtype=torch.bool))
    at = model.user_points(state)[0, -1]
    assert np.isclose(radius[-1], browser.plane.stretch * float(model.manifold.dist0(at)))
    centre = torch.tensor(browser.disk.center, dtype=torch.float64)
    you = torch.from_numpy(browser.disk.points[-1])
    between = space.dist0(centre) + space.dist(centre, you)  # on the way from the origin, and you in sight
    assert torch.allclose(between, space.dist0(you)) and 0 < space.dist(centre, you) < 3.5 + 1e-9
    assert browser.disk.selected == DATA.n_items


def test_the_disk_shows_who_plays_which_part(browser):
    browser.history = [4, 9, 4]
    you, following = DATA.n_items, listed(browser)
    codes = np.frombuffer(browser.disk._color, np.uint8)
    assert set(np.flatnonzero(codes == 1)) == {4, 9} and set(np.flatnonzero(codes == 2)) == set(following)
    assert np.flatnonzero(codes == 3).tolist() == [you]
    assert edges(browser) == {(4, you), (9, 4)} | {(you, i) for i in following}


def test_a_click_on_the_disk_offers_the_item_and_changes_nothing_by_itself(browser):
    before = browser.history
    browser.disk.selected = 33
    assert browser.search.value == DATA.titles[33] and browser.history == before
    browser.matches.children[0].click()
    assert browser.history == [*before, 33] and browser.search.value == ""


def test_two_models_stand_side_by_side_and_the_first_has_the_disk():
    models = {
        "hyperbolic": model_of(width=8),
        "flat": model_of("mamba4rec", 8),
        "popular": Popularity(DATA.counts),
    }
    browser = RecommendationBrowser(models, DATA, np.array([1, 2]), k=4)
    for name, model in models.items():
        assert [DATA.titles[i] for i in listed(browser, name)] == [t for t, _ in model.recommend([1, 2], 4)]
    assert browser.plane.axes.shape == (8, 2) and "shadow of 8" in browser.about.value


@pytest.mark.parametrize("model", [model_of("gru4rec", 8), Popularity(DATA.counts), model_of(width=1)])
def test_without_a_hyperbolic_plane_there_are_lists_only(model):
    browser = RecommendationBrowser(model, DATA, k=3)
    assert browser.disk is None and len(listed(browser)) == 3
    browser.add(2)
    assert len(listed(browser)) == 3


def test_fewer_items_left_than_asked_for_are_fewer_rows():
    browser = RecommendationBrowser(model_of(), DATA, range(DATA.n_items - 3), k=5)
    assert len(listed(browser)) == 3
    assert [box.layout.display for box in browser.lists[""]._boxes] == ["flex"] * 3 + ["none"] * 2


def test_users_without_a_test_item_keep_their_whole_history():
    few = Interactions.from_events(["a", "a", "b"], ["x", "y", "x"])
    model = Recommender(named("hmamba_full", width=2, **SMALL), few.n_items).eval()
    browser = RecommendationBrowser(model, few)
    assert browser.history == []
    browser.user.value = "a"
    assert browser.history == [0, 1] and "in truth" not in browser.about.value


def test_markup_in_titles_is_shown_and_not_obeyed():
    bad = replace(DATA, titles=("<script>alert(1)</script>",) * DATA.n_items)
    browser = RecommendationBrowser(model_of(), bad)
    browser.add(3)
    texts = [browser.about.value, browser.lists[""].foot.value, *(r.value for r in browser.lists[""].rows)]
    assert all("<script>" not in text for text in texts) and "&lt;script&gt;" in texts[2]


def test_reading_asks_without_changing_anything(browser):
    before, shown = browser.history, browser.about.value
    found = browser.read(["3", DATA.titles[8], 9])
    assert found[""].history == (3, 8, 9) and browser.history == before and browser.about.value == shown
    assert browser.read([]) == {}


def test_what_does_not_fit_is_refused(browser):
    with pytest.raises(DataError, match="no item 'nothing'"):
        browser.add("nothing")
    with pytest.raises(DataError, match="81"):
        RecommendationBrowser(Recommender(named("hmamba_full", width=2), 5), DATA)
    with pytest.raises(ParameterError, match="at least one model"):
        RecommendationBrowser({}, DATA)
    with pytest.raises(ParameterError, match="k ≥ 1"):
        RecommendationBrowser(model_of(), DATA, k=0)
