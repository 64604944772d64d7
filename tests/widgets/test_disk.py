import base64
import json
import re
import zlib

import numpy as np
import pytest
import torch

from workbench.data import trees
from workbench.errors import DataError, ManifoldError
from workbench.widgets import DiskView
from workbench.widgets.colours import OKABE_ITO

POINTS = np.array([[0.0, 0.0], [0.5, 0.25], [-0.3, 0.999 * 0.9]])


def text_rows(view):
    return [row.split("\t") for row in zlib.decompress(view._text).decode().split("\n")]


def test_points_cross_over_as_exact_doubles():
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (50, 2))
    view = DiskView(points)
    assert np.array_equal(np.frombuffer(view._xy, "<f8").reshape(-1, 2), points)


def test_tensors_are_welcome():
    view = DiskView(torch.tensor(POINTS, requires_grad=True))
    assert np.array_equal(view.points, POINTS)


def test_text_is_one_row_a_point_whatever_it_contains():
    view = DiskView(
        POINTS, labels=["a\tb", "Ünï", ""], names=["n\n1", "Ünï", "n3"], glosses=["x", "y " * 200, ""]
    )
    rows = text_rows(view)
    assert rows[0] == ["a b", "n 1", "x"]
    assert rows[1][:2] == ["Ünï", ""] and len(rows[1][2]) <= 140 and rows[1][2].endswith("…")
    assert rows[2] == ["", "n3"]


def test_a_view_of_a_hierarchy_carries_all_of_it():
    h = trees.balanced(3, 3)
    points = np.random.default_rng(1).uniform(-0.6, 0.6, (len(h), 2))
    view = DiskView.of(h, points, color="subtree", size=300)
    assert np.array_equal(np.frombuffer(view._edges, "<u4").reshape(-1, 2), h.edges)
    assert np.array_equal(np.frombuffer(view._parents, "<i4"), h.spanning_tree())
    assert [row[0] for row in text_rows(view)] == list(h.labels)
    assert view._legend["title"] == "branch" and view.size == 300
    assert DiskView.of(h, points)._legend["high"] == "3"


def test_move_to_takes_names_and_numbers():
    view = DiskView(POINTS, labels=["entity", "dog", "cat"])
    view.move_to("dog")
    assert view.selected == 1 and view.center == [0.5, 0.25]
    view.move_to(2)
    assert view.selected == 2 and view.center == POINTS[2].tolist()
    with pytest.raises(DataError, match="'dgo'; did you mean 'dog'"):
        view.move_to("dgo")
    with pytest.raises(DataError, match="no point 3"):
        view.move_to(3)


def test_center_and_selected_can_be_observed_and_refuse_nonsense():
    view, seen = DiskView(POINTS), []
    view.observe(lambda change: seen.append((change["name"], change["new"])), ["center", "selected"])
    view.center = [0.1, 0.2]
    view.selected = 2
    assert seen == [("center", [0.1, 0.2]), ("selected", 2)]
    for center in ([1.0, 0.0], [np.nan, 0.0]):
        with pytest.raises(ManifoldError, match="center"):
            view.center = center
    with pytest.raises(DataError, match="selected"):
        view.selected = 3
    assert view.center == [0.1, 0.2] and view.selected == 2


def test_new_points_move_the_old_ones():
    view = DiskView(POINTS)
    view.points = POINTS / 2
    assert np.array_equal(np.frombuffer(view._xy, "<f8").reshape(-1, 2), POINTS / 2)
    with pytest.raises(DataError, match="3 points, but 2 came"):
        view.points = POINTS[:2]


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.zeros((3, 3)), r"\(N, 2\).*\(3, 3\)"),
        (np.zeros((0, 2)), r"\(0, 2\)"),
        (np.zeros(4), r"\(4,\)"),
        ([[0, 0], [np.nan, 0]], "point 1 is"),
        ([[0, 0], [1.0, 0], [2, 2]], r"point 1 is \[1.0, 0.0\] \(and 1 more"),
    ],
)
def test_points_off_the_disk_are_refused(points, says):
    with pytest.raises(ManifoldError, match=says):
        DiskView(points)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": ["a"]}, "labels .* 3 points, but has 1"),
        ({"glosses": ["a"] * 4}, "glosses .* 4"),
        ({"edges": [[0, 1], [1, 3]]}, r"edge 1 is \[1, 3\]"),
        ({"edges": [[0.5, 1]]}, "edges must be"),
        ({"edges": [0, 1]}, "edges must be"),
        ({"parents": [-1, 0]}, "parents must be 3"),
        ({"parents": [-1, 0, 7]}, "parent of point 2 is 7"),
        ({"parents": [-1, 2, 1]}, "cycle"),
        ({"color": [1, 2]}, "color"),
    ],
)
def test_what_does_not_fit_the_points_is_refused(options, says):
    with pytest.raises(DataError, match=says):
        DiskView(POINTS, **options)


def test_an_unknown_colouring_is_refused():
    with pytest.raises(DataError, match="'rainbow'"):
        DiskView.of(trees.balanced(2, 1), POINTS, color="rainbow")


def test_the_page_holds_everything_and_fetches_nothing(tmp_path):
    labels = ["</script><b>", "dog", "cat"]
    view = DiskView(POINTS, labels=labels, edges=[[0, 1], [0, 2]], selected=1)
    path = view.to_html(tmp_path / "sub" / "disk.html", title="Dogs & <cats>")
    page = path.read_text("utf-8")
    assert "<title>Dogs &amp; &lt;cats&gt;</title>" in page
    named = page.replace("http://www.w3.org/2000/svg", "")  # the name of a format, which nobody fetches
    assert not re.search(r"https?://|\bimport\s*[({'\"]|\bfetch\(", named)
    assert page.count("</script>") == 2
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.S)[1])
    assert base64.b64decode(state["_xy"]["base64"]) == POINTS.tobytes()
    assert state["selected"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_equal_views_write_equal_pages(tmp_path):
    first, second = (DiskView(POINTS, labels=list("abc")).to_html(tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_the_palette_is_the_figures_palette():
    plots = pytest.importorskip("workbench.plots")
    assert tuple(plots.PALETTE)[: len(OKABE_ITO)] == OKABE_ITO


def test_points_that_are_no_numbers_are_refused():
    with pytest.raises(ManifoldError, match="array of numbers"):
        DiskView([["a", "b"]])


def test_a_flat_view_takes_any_finite_points_and_no_others():
    view = DiskView(POINTS * 40, space="flat", center=[30.0, 2.0])
    assert view._unit > 0 and view.center == [30.0, 2.0]
    with pytest.raises(ManifoldError, match="finite"):
        DiskView(POINTS * np.nan, space="flat")
    with pytest.raises(DataError, match="'euclid'"):
        DiskView(POINTS, space="euclid")


def test_nearest_points_are_those_of_all_dimensions_in_the_kernel_and_in_a_page(tmp_path):
    rows = {0: ([2, 1], [0.5, 0.75]), 1: ([0, 2], [0.75, 1.0]), 2: ([0, 1], [0.5, 1.0])}
    view = DiskView(POINTS, near=rows.get, metric="in 3 dimensions")
    view.selected = 1
    assert view._near == {"of": 1, "near": [[0, 0.75], [2, 1.0]]}
    page = view.to_html(tmp_path / "disk.html").read_text("utf-8")
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.S)[1])
    table = np.frombuffer(base64.b64decode(state["_table"]["base64"]), "<u4").reshape(-1, 2)
    assert table.tolist() == [rows[i][0] for i in range(3)] and state["_table_width"] == 2


@pytest.mark.parametrize(
    "wrong", [{"lassoed": [0, 3]}, {"subtree": 7}, {"curvature": 0.0}, {"curvature": float("nan")}]
)
def test_traits_that_do_not_fit_the_view_are_refused(wrong):
    with pytest.raises((DataError, ManifoldError), match=next(iter(wrong))):
        DiskView(POINTS, **wrong)
    view = DiskView(POINTS)
    with pytest.raises((DataError, ManifoldError), match=next(iter(wrong))):
        [setattr(view, name, value) for name, value in wrong.items()]
