"""Asking for names as people do it: typing, and clicking on the disk, in JupyterLab."""

import numpy as np
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SOURCE = """
from workbench.data import Hierarchy
from workbench.models import HiM, HiMConfig
from workbench.widgets import NameBrowser

pairs = [("animal", "dog"), ("animal", "cat"), ("dog", "poodle"), ("dog", "red_setter"), ("cat", "tabby")]
h = Hierarchy.from_edges(pairs)
model = HiM(HiMConfig(dim=2, gamma=2.0, encoder=dict(kind="bag", width=16, layers=1)))
model.calibration = type("Tuned", (), {"lam": 1.0, "threshold": 1.5})
view = NameBrowser(model, h, "tabby", k=4, size=480)
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

    def type(self, text, field=0):
        box = self.page.locator(".widget-hbox input[type=text]").nth(field)
        box.fill(text)
        box.press("Enter")

    def about(self):
        return self.page.locator(".widget-hbox .widget-html-content").inner_text()

    def shows(self, text):
        self.notebook.until(lambda: self.about().startswith(f"{text}:"), f"{text} is shown")

    def get(self, what):
        return self.page.evaluate(f"{DISK}.{what}")


@pytest.fixture(scope="module")
def notebook(open_notebook):
    return open_notebook("names", SOURCE)


@pytest.fixture
def page(notebook, snapshot):
    snapshot.append(notebook.page)
    return Page(notebook)


def test_a_typed_name_is_answered_and_the_disk_moves_to_where_it_falls(page, notebook):
    trouble, last = [], notebook.ask("len(h)")
    notebook.page.on("pageerror", lambda e: trouble.append(str(e)))
    page.shows("tabby")
    page.type("Red_Panda")
    page.shows("red panda")
    said = notebook.ask("[[a.name, a.margin] for a in view.reading.answers]")
    assert "not in the hierarchy" in page.about()
    for name, margin in said:
        assert f"{name}" in page.about() and f"{margin:+.2f}" in page.about()
    notebook.until(lambda: page.get("label(6)") == "red panda", "its point has its name")
    assert page.get("selected") == last
    where = notebook.ask("view.disk.points[-1].tolist()")
    assert np.array_equal(where, notebook.ask("view.ball(model.encode(['red panda']))[0].tolist()"))
    half = np.array(where) / (1 + np.sqrt(1 - np.dot(where, where)))
    notebook.until(lambda: np.allclose(page.get("centre"), half, atol=1e-9), "the disk stands half way")
    page.type("poodle")  # one that has a point of its own
    at = np.array(notebook.ask("view.disk.points[h.index('poodle')].tolist()"))
    half = at / (1 + np.sqrt(1 - at @ at))
    notebook.until(lambda: np.allclose(page.get("centre"), half, atol=1e-9), "the disk stands half way again")
    assert trouble == []


def test_a_second_name_is_set_beside_the_first(page, notebook):
    page.type("poodle")
    page.shows("poodle")
    page.type("animal", field=1)
    notebook.until(lambda: "animal" in page.about() and "poodle is" in page.about(), "the relation is told")
    said, true = notebook.ask("view.relation('poodle', 'animal')")
    told = next(line for line in page.about().splitlines() if line.startswith("poodle is"))
    assert true == "narrower" and ("✓" if said == true else "✗") in told


def test_a_click_on_a_point_types_its_name(page, notebook):
    page.type("tabby")
    page.shows("tabby")
    box = page.page.locator(".wb-disk canvas.over")
    box.focus()
    page.page.keyboard.press("Home")
    page.page.wait_for_timeout(1500)
    for node in range(6):
        x, y = page.get(f"at({node})")
        page.page.mouse.move(x - 1, y)
        page.page.mouse.move(x, y)
        if page.get("hover") == node and notebook.ask(f"view._texts[{node}]") != "tabby":
            break
    page.page.mouse.click(x, y)
    page.shows(notebook.ask(f"view._texts[{node}]"))
