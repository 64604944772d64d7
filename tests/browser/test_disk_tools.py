"""Search, filters, lasso, models of the plane, saved pictures and linked views, as people use them."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from disk_page import DISK, SOURCE, Disk, offline_page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    """The offline page of a tree of 3,280 points, without a network."""
    made = {}
    exec(SOURCE, made)
    path = made["view"].to_html(tmp_path_factory.mktemp("tools") / "disk.html")
    with offline_page(chromium, path, 700, 1000, accept_downloads=True) as page:
        page.made = made
        Disk(page)
        page.locator(".wb-disk summary").click()
        yield page


@pytest.fixture
def disk(page, snapshot):
    snapshot.append(page)
    page.locator(".wb-disk canvas.over").focus()
    for key in ("Escape", "Home"):
        page.keyboard.press(key)
    return Disk(page)


def test_search_completes_and_goes_there(disk, page):
    label = disk.get("label(40)")
    page.keyboard.press("/")
    page.keyboard.type(label)
    options = page.evaluate("[...document.querySelectorAll('datalist option')].map((o) => o.value)")
    assert options[0] == label
    page.keyboard.press("Enter")
    page.wait_for_function(
        f"(label) => {DISK}.selected >= 0 && {DISK}.label({DISK}.selected) === label", arg=label
    )
    disk.settle()
    assert disk.distance_to_middle(disk.get("selected")) < 1e-6


def test_the_nearest_are_listed_by_hyperbolic_distance_and_lead_on(disk, page):
    page.mouse.dblclick(*disk.get("at(4)"))
    page.wait_for_function(f"() => {DISK}.selected === 4")
    disk.settle()
    points = page.made["points"]
    z = points @ [1, 1j]
    gap = 2 * np.arctanh(np.abs((z - z[4]) / (1 - z[4].conj() * z)))
    buttons = page.locator(".wb-disk .near button")
    listed = [int(buttons.nth(k).get_attribute("data-point")) for k in range(buttons.count())]
    assert len(listed) == 8
    np.testing.assert_allclose(gap[listed], np.sort(gap)[1:9], rtol=1e-9)
    assert f"{gap[listed[0]]:.2f}" in buttons.first.inner_text()
    buttons.nth(2).click()
    page.wait_for_function(f"(i) => {DISK}.selected === i", arg=listed[2])
    disk.settle()
    assert disk.distance_to_middle(listed[2]) < 1e-6


def test_only_a_subtree_and_only_some_levels(disk, page):
    h = page.made["h"]
    page.mouse.click(*disk.get("at(1)"))
    page.locator("button", has_text="only below").click()
    parents, below = np.asarray(h.spanning_tree()), {1}
    for i in np.argsort(np.asarray(h.depth), kind="stable"):
        if parents[i] in below:
            below.add(int(i))
    assert set(disk.get("scene.active")) == below
    deep = page.locator("input[aria-label='greatest depth shown']")
    deep.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    shown = disk.get("scene.active")
    assert set(shown) == {i for i in below if h.depth[i] <= max(h.depth) - 2}
    page.locator("button", has_text="only below").click()
    deep.focus()
    page.keyboard.press("End")
    assert len(disk.get("scene.active")) == len(h)


def test_a_lasso_catches_what_it_goes_around(disk, page):
    box = page.locator(".wb-disk canvas.over").bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    page.locator("button", has_text="lasso").click()
    corners = [middle + 100 * np.array(c) for c in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=5)
    page.mouse.up()
    page.locator("button", has_text="lasso").click()
    unit = box["width"] / 2 - 4  # the rim is 4 pixels from the edge
    expected = np.flatnonzero((np.abs(page.made["points"]) * unit < 100).all(1))
    assert disk.get("scene.lassoed") == expected.tolist() and len(expected) > 3


@pytest.mark.parametrize("chart", ["klein", "half-plane", "hyperboloid", "disk"])
def test_a_drag_keeps_the_grabbed_point_in_every_model_of_the_plane(disk, page, chart):
    page.locator(".wb-disk select").select_option(chart)
    disk.settle()
    x, y = disk.get("at(2)")
    disk.drag((x, y), (x + 25, y - 18))
    assert np.hypot(*np.subtract(disk.get("at(2)"), (x + 25, y - 18))) < 0.5


def test_the_curvature_dial_keeps_directions_and_distances_from_the_origin(disk, page):
    page.evaluate("""() => { const e = document.querySelector("input[aria-label^=curvature]");
        e.value = -2; e.dispatchEvent(new Event("input")) }""")
    disk.settle()
    before, after = (np.array(disk.get(f"scene.{name}")).reshape(-1, 2) for name in ("own", "xy"))
    r, s = np.hypot(*before.T), np.hypot(*after.T)
    np.testing.assert_allclose(
        np.arctanh(s), 0.5 * np.arctanh(r), atol=1e-12
    )  # √c = ½: c^-½ 2 artanh is unchanged
    np.testing.assert_allclose(after * r[:, None], before * s[:, None], atol=1e-12)
    page.evaluate("""() => { const e = document.querySelector("input[aria-label^=curvature]");
        e.value = 0; e.dispatchEvent(new Event("input")) }""")
    disk.settle()


def test_pictures_are_saved_as_png_and_svg(disk, page, tmp_path):
    for kind in ("PNG", "SVG"):
        with page.expect_download() as loading:
            page.locator("button", has_text=kind).click()
        loading.value.save_as(tmp_path / f"disk.{kind.lower()}")
    assert (tmp_path / "disk.png").read_bytes().startswith(b"\x89PNG")
    root = ET.parse(tmp_path / "disk.svg").getroot()
    kinds = [re.sub("{.*}", "", e.tag) for e in root.iter()]
    assert root.tag.endswith("svg") and kinds.count("path") > 100 and kinds.count("text") > 10


def test_without_webgl_a_canvas_draws_and_with_it_the_same_points_are_shown(chromium, tmp_path):
    made, found = {}, {}
    exec(SOURCE, made)
    for renderer in ("canvas", "webgl"):
        made["view"].renderer = renderer
        page = chromium.new_page(viewport={"width": 700, "height": 900})
        page.goto(made["view"].to_html(tmp_path / f"{renderer}.html").as_uri())
        disk = Disk(page)
        assert disk.get("painter") == renderer
        found[renderer] = disk.get("scene.visible")
        page.close()
    assert found["canvas"] == found["webgl"] and len(found["webgl"]) > 500


LINKED = (
    SOURCE
    + """
from workbench.widgets.linked import linked
other = DiskView.of(h, points, chart="klein", size=360)
view.size = 360
linked(view, other, titles=("disk", "Klein"))
"""
)


def test_linked_views_agree_with_each_other_and_with_python(open_notebook, snapshot):
    notebook = open_notebook("linked", LINKED)
    page = notebook.page
    snapshot.append(page)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.wb-disk')].filter((d) => d.__disk?.scene.rows.length).length === 2"
    )
    page.locator(".wb-disk").first.scroll_into_view_if_needed()
    both = "[...document.querySelectorAll('.wb-disk')].map((d) => d.__disk.selected)"
    x, y = page.evaluate(f"{DISK}.at(3)")
    page.mouse.dblclick(x, y)
    notebook.until(lambda: page.evaluate(both) == [3, 3], "both views have selected point 3")
    notebook.until(lambda: notebook.ask("[view.selected, other.selected]") == [3, 3], "and so has Python")
    notebook.ask("0", "other.lassoed = [1, 2]; other.chart = 'half-plane'")
    notebook.until(lambda: notebook.ask("view.lassoed") == [1, 2], "the lasso is shared")
