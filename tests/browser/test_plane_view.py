"""The plane view as people use it: in JupyterLab with a mouse and with keys, and as a page opened from a file."""

import numpy as np
import pytest
from disk_page import View, offline_page

from workbench.widgets.plane import PlaneView, measure

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SOURCE = """
from workbench.widgets.plane import PlaneView

view = PlaneView(radius=0.5, size=640)
view
"""


class Plane(View):
    root, handle, ready = ".wb-plane", "__plane", "points"

    def settle(self):
        self.page.wait_for_timeout(200)

    def at(self, model, k):
        return np.array(self.get(f"at('{model}', {k})"))

    def move(self, start, by):
        self.drag(start, np.add(start, by), steps=10)

    def table(self):
        return self.page.locator(".wb-plane table").inner_text()


def same(found, expected, atol=1e-9):
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=atol, err_msg=key)


def drag_in_klein(plane):
    """Drag A in the Klein panel; the other panel, the numbers and the table go with it."""
    before, numbers, shown = plane.at("disk", 0), plane.get("numbers"), plane.table()
    start = plane.at("klein", 0)
    plane.move(start, (25, 60))
    np.testing.assert_allclose(plane.at("klein", 0), np.add(start, (25, 60)), atol=1.5)
    assert np.hypot(*(plane.at("disk", 0) - before)) > 15
    assert abs(plane.get("numbers")["area"] - numbers["area"]) > 0.1
    same(plane.get("numbers"), measure(plane.get("points")))
    assert plane.table() != shown and f"{plane.get('numbers')['area']:.4f}" in plane.table()


def drag_the_plane(plane, model, by):
    box = plane.page.locator(f".wb-plane canvas[data-model='{model}']").bounding_box()
    points, numbers, shown = plane.get("points"), plane.get("numbers"), plane.table()
    plane.move((box["x"] + 0.5 * box["width"], box["y"] + 0.56 * box["height"]), by)
    assert np.abs(np.subtract(plane.get("points"), points)).max() > 0.02
    same(plane.get("numbers"), numbers)
    assert plane.table() == shown


@pytest.fixture(scope="module")
def notebook(open_notebook):
    return open_notebook("plane", SOURCE)


@pytest.fixture
def plane(notebook, snapshot):
    snapshot.append(notebook.page)
    return Plane(notebook.page)


def test_a_point_dragged_in_one_model_moves_in_all_and_reaches_python(plane, notebook):
    drag_in_klein(plane)
    shown = plane.get("points")
    notebook.until(lambda: notebook.ask("view.points") == shown, "points reached Python")
    same(plane.get("numbers"), notebook.ask("view.numbers"))


@pytest.mark.parametrize("model", ["disk", "klein", "hyperboloid"])
def test_dragging_the_empty_plane_leaves_every_number(plane, model):
    drag_the_plane(plane, model, (24, -16))


def test_the_keys_move_a_point_and_the_plane(plane, notebook):
    plane.page.locator(".wb-plane thead button").nth(1).focus()
    before = plane.get("points")
    plane.page.keyboard.press("ArrowUp")
    plane.page.keyboard.press("ArrowUp")
    after = plane.get("points")
    assert after[0] == before[0] and after[1] != before[1] and after[2] == before[2]
    np.testing.assert_allclose(measure([before[1], after[1]])["lengths"], 0.2, rtol=1e-2)
    plane.page.keyboard.press("Tab")
    plane.page.keyboard.press("Tab")
    numbers = plane.get("numbers")
    plane.page.keyboard.press("ArrowLeft")
    assert np.abs(np.subtract(plane.get("points"), after)).max() > 0.01
    same(plane.get("numbers"), numbers)
    notebook.until(lambda: notebook.ask("view.points") == plane.get("points"), "points reached Python")


def test_the_view_follows_python(plane, notebook):
    notebook.ask("0", "view.points = [[0, 0], [0.5, 0], [0, 0.5]]; view.c = 4.0")
    notebook.until(lambda: plane.get("points") == [[0, 0], [0.5, 0], [0, 0.5]], "the points have moved")
    notebook.until(lambda: "0.5493" in plane.table(), "lengths are halved: artanh(1/2)")
    same(plane.get("numbers"), notebook.ask("view.numbers"))
    notebook.ask("0", "view.c = 1.0")


def test_the_exported_page_works_from_a_file_without_a_network(chromium, tmp_path, snapshot):
    path = PlaneView(radius=0.5).to_html(tmp_path / "plane.html", title="A triangle")
    with offline_page(chromium, path, 820, 1100) as page:
        snapshot.append(page)
        plane = Plane(page)
        drag_in_klein(plane)
        for model in ("disk", "half-plane", "hyperboloid"):
            drag_the_plane(plane, model, (24, -16))
        page.get_by_role("button", name="back").click()
        same({"points": plane.get("points")}, {"points": PlaneView().points}, atol=0)


def test_a_narrow_screen_shows_all_of_it(chromium, tmp_path):
    path = PlaneView().to_html(tmp_path / "plane.html")
    with offline_page(chromium, path, 360, 740) as page:
        Plane(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
