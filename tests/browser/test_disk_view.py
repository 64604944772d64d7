"""The disk view as people use it: in JupyterLab with a mouse, and as a page opened from a file."""

import numpy as np
import pytest
from disk_page import SOURCE, Disk, offline_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def notebook(open_notebook):
    return open_notebook("disk", SOURCE + "view")


@pytest.fixture
def disk(notebook, snapshot):
    snapshot.append(notebook.page)
    return Disk(notebook.page)


def test_hover_shows_label_and_path(disk, notebook):
    i = 20
    x, y = disk.get(f"at({i})")
    assert disk.hover(x, y) == i
    tip = disk.page.locator(".wb-disk .tip")
    label, parent = notebook.ask(f"[h.labels[{i}], h.labels[int(h.spanning_tree()[{i}])]]")
    assert label in tip.inner_text() and parent in tip.inner_text().split("↑")[1]
    outer, inner = disk.page.locator(".wb-disk .stage").bounding_box(), tip.bounding_box()
    assert outer["x"] <= inner["x"] and inner["x"] + inner["width"] <= outer["x"] + outer["width"]


def test_a_drag_keeps_the_grabbed_point_under_the_pointer(disk, notebook):
    x, y = disk.get("at(2)")
    assert disk.hover(x, y) == 2
    disk.drag((x, y), (x + 90, y + 60))
    assert np.hypot(*np.subtract(disk.get("at(2)"), (x + 90, y + 60))) < 0.5
    assert disk.hover(x + 91, y + 60) == 2
    shown = disk.get("centre")
    notebook.until(
        lambda: np.allclose(notebook.ask("view.center"), shown, atol=1e-12), "center reached Python"
    )


def test_double_click_centres_a_point_and_tells_python(disk, notebook):
    i = 5
    disk.page.mouse.dblclick(*disk.get(f"at({i})"))
    notebook.until(
        lambda: notebook.ask("[view.selected, view.center]") == [i, notebook.ask(f"points[{i}].tolist()")],
        "Python knows",
    )
    disk.settle()
    assert disk.distance_to_middle(i) < 1e-6


def test_the_view_follows_python(disk, notebook):
    assert notebook.ask("view.selected", "view.selected = 33") == 33
    notebook.until(lambda: disk.distance_to_middle(33) < 1e-6, "the view has moved to point 33")
    notebook.until(lambda: notebook.ask("view.center == points[33].tolist()"), "center followed")
    notebook.ask("0", "view.move_to(h.names[7])")
    notebook.until(lambda: disk.distance_to_middle(7) < 1e-6, "the view has moved to point 7")
    notebook.ask("0", "view.center = [0.0, 0.0]; view.upright = True")
    notebook.until(
        lambda: disk.distance_to_middle(0) < 1e-6 and abs(disk.get("view")[1]) < 1e-9, "upright at the root"
    )
    notebook.ask("0", "view.upright = False")


def test_arrow_keys_move_the_plane_and_not_the_notebook(disk, notebook):
    disk.page.locator(".wb-disk canvas.over").focus()
    before = disk.get("at(0)")
    for _ in range(3):
        disk.page.keyboard.press("ArrowRight")
    disk.settle()
    assert disk.get("at(0)")[0] < before[0] - 20
    assert disk.page.evaluate("document.activeElement.className") == "over"
    disk.page.keyboard.press("Home")
    disk.settle()
    np.testing.assert_allclose(disk.get("view"), [1, 0, 0, 0], atol=1e-12)


def test_the_exported_page_works_from_a_file_without_a_network(chromium, tmp_path, snapshot):
    made = {}
    exec(SOURCE, made)
    path = made["view"].to_html(tmp_path / "disk.html", title="A tree")
    with offline_page(chromium, path, 700, 800) as page:
        snapshot.append(page)
        disk = Disk(page)
        ink = page.evaluate(
            """() => { const c = document.querySelector(".wb-disk canvas"), seen = new Set();
            const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
            for (let k = 0; k < d.length; k += 4) seen.add(d[k] << 16 | d[k + 1] << 8 | d[k + 2]);
            return seen.size }"""
        )
        assert ink > 20
        x, y = disk.get("at(1)")
        assert disk.hover(x, y) == 1
        disk.drag((x, y), (x - 50, y + 40))
        assert disk.hover(x - 50, y + 41) == 1
        page.mouse.dblclick(*disk.get("at(3)"))
        disk.settle()
        assert disk.distance_to_middle(3) < 1e-6 and disk.get("selected") == 3
