"""Building a history as people do it: searching, clicking, in JupyterLab."""

import numpy as np
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SOURCE = """
from workbench.data.interactions import synthetic
from workbench.models.baselines import Popularity
from workbench.models.recommender import Recommender, named
from workbench.widgets.recommendations import RecommendationBrowser

data = synthetic(n_users=20, n_items=81, length=8)
model = Recommender(named("hmamba_full", width=2, state=4, max_len=12), data.n_items).eval()
model.items.tangent.data *= 50
view = RecommendationBrowser({"hyperbolic": model, "popular": Popularity(data.counts)}, data, k=5, size=480)
view
"""
DISK = "document.querySelector('.wb-disk').__disk"


class Page:
    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.page.wait_for_function(
            f"() => document.querySelector('.wb-disk')?.__disk && {DISK}.scene.rows.length", timeout=120_000
        )
        self.page.locator(".wb-disk").scroll_into_view_if_needed()

    def get(self, what):
        return self.page.evaluate(f"{DISK}.{what}")

    def ask(self, expression):
        return self.notebook.ask(expression)

    def until(self, met, what):
        self.notebook.until(met, what)

    def fill(self, which, text):
        box = self.page.locator(".widget-hbox input[type=text]").nth(which)
        box.fill(text)
        box.press("Enter")

    def button(self, text, nth=0):
        self.page.locator("button.jupyter-button", has_text=text).nth(nth).click()

    def rows(self):
        """Texts of the rows in view, both lists."""
        texts = self.page.locator(".widget-hbox .widget-html-content").all_inner_texts()
        return [" ".join(t.split()) for t in texts if t[:1].isdigit()]


@pytest.fixture(scope="module")
def notebook(open_notebook):
    return open_notebook("recommendations", SOURCE)


@pytest.fixture
def page(notebook, snapshot):
    snapshot.append(notebook.page)
    return Page(notebook)


def test_a_title_that_is_searched_enters_the_history_and_the_next_items_move(page):
    trouble = []
    page.page.on("pageerror", lambda e: trouble.append(str(e)))
    before = page.ask("view.history")
    title = page.ask("data.titles[40]")
    page.fill(1, title)
    page.until(lambda: page.ask("view.history") == [*before, 40], "the item is in the history")
    moves = page.ask("[[data.titles[m.item], m.rank, m.up] for m in view.moves('hyperbolic')[0]]")
    page.until(lambda: len(page.rows()) == 10, "both lists are shown")
    for (name, rank, up), shown in zip(moves, page.rows(), strict=False):
        arrow = f"▲ {up}" if up > 0 else f"▼ {-up}" if up < 0 else ""
        assert shown.startswith(f"{rank}. {name}") and arrow in shown
    options = page.page.locator(".widget-select select option").all_inner_texts()
    assert options[0].endswith(title) and len(options) == len(before) + 1
    centre = page.ask("view.disk.center")
    page.until(lambda: np.allclose(page.get("centre"), centre, atol=1e-9), "the view has moved to the user")
    x, y = page.get("at(81)")
    page.page.mouse.move(x - 1, y)
    page.page.mouse.move(x, y)
    assert page.get("hover") == 81  # in sight
    assert page.get("label(81)") == "you" and page.get("selected") == 81
    assert trouble == []


def test_a_part_of_a_title_offers_matches_and_one_is_taken(page):
    size = page.ask("len(view.history)")
    page.fill(1, "_7")
    page.until(lambda: page.ask("len(view.matches.children)") == 8, "matches are offered")
    title = page.ask("view.matches.children[1].description")
    page.button(title)
    page.until(lambda: page.ask("len(view.history)") == size + 1, "it is in the history")
    assert page.ask("data.titles[view.history[-1]]") == title


def test_buttons_add_from_the_list_and_drop_the_last(page):
    before = page.ask("view.history")
    wanted = page.ask("view.lists['popular']._items[0]")
    page.button("+", nth=5)  # the first of the second list
    page.until(lambda: page.ask("view.history") == [*before, wanted], "the popular item is in the history")
    page.button("drop last")
    page.until(lambda: page.ask("view.history") == before, "it is gone again")
    assert page.ask("view.moves('popular')[0][0].item") == wanted


def test_a_row_that_is_marked_is_moved_and_removed(page):
    before = page.ask("view.history")
    page.page.locator(".widget-select select").select_option(index=0)
    page.button("earlier")
    swapped = [*before[:-2], before[-1], before[-2]]
    page.until(lambda: page.ask("view.history") == swapped, "the newest came earlier")
    page.button("remove")
    page.until(lambda: page.ask("view.history") == [*before[:-2], before[-2]], "it is removed")


def test_another_user_and_a_click_on_the_disk(page):
    page.fill(0, page.ask("data.users[7]"))
    page.until(lambda: page.ask("view.user.value") == page.ask("data.users[7]"), "the user is picked")
    page.until(lambda: page.ask("view.before") == {}, "a history of its own")
    page.page.locator(".wb-disk canvas.over").focus()
    page.page.keyboard.press("Home")
    page.page.wait_for_timeout(1500)
    before = page.ask("view.history")
    for item in range(81):
        x, y = page.get(f"at({item})")
        page.page.mouse.move(x - 1, y)
        page.page.mouse.move(x, y)
        if page.get("hover") == item and item not in before:
            break
    page.page.mouse.click(x, y)
    page.until(
        lambda: page.ask("view.search.value") == page.ask(f"data.titles[{item}]"), "its title is offered"
    )
    assert page.ask("view.history") == before
    page.button("add ")
    page.until(lambda: page.ask("view.history") == [*before, item], "it is in the history")
