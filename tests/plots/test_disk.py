"""The disk picture: structure, labels that keep apart, what is left out and said, refusals."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import plots
from workbench.errors import ManifoldError, ParameterError
from workbench.plots import geometry2d as g
from workbench.plots.disk import edge_lines, edges_worth_drawing
from workbench.plots.labels import descendants, place_labels


def cloud(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    r, t = np.tanh(rng.uniform(0, 5, n) / 2), rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([r * np.cos(t), r * np.sin(t)])


def tree_edges(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([(rng.integers(0, i), i) for i in range(1, n)])


def traces(fig) -> dict:
    return {t.uid: t for t in fig.data}


def test_structure_of_a_small_hierarchy():
    points, edges = cloud(50), tree_edges(50)
    fig = plots.disk(
        points, edges, np.arange(50) % 5, [f"n{i}" for i in range(50)], ["t"] * 50, title="A tree"
    )
    assert list(traces(fig)) == ["edges", "points"]
    assert {t.type for t in fig.data} == {"scatter"}
    assert fig.layout.yaxis.scaleanchor == "x"
    assert fig.layout.xaxis.range == fig.layout.yaxis.range == (-1.05, 1.05)
    assert fig.layout.dragmode == "pan" and not fig.layout.xaxis.visible
    rim = fig.layout.shapes[0]
    assert (rim.type, rim.x0, rim.x1, rim.fillcolor) == ("circle", -1, 1, "rgba(0,0,0,0)")
    assert traces(fig)["points"].marker.colorbar.len is not None
    margin = fig.layout.margin
    assert fig.layout.width - margin.l - margin.r == fig.layout.height - margin.t - margin.b
    assert len(fig.layout.annotations) == fig.layout.meta["labels"]["placed"] > 10


def test_every_edge_is_one_arc_between_its_points():
    z = cloud(80) @ (1, 1j)
    edges = tree_edges(80)
    kept, about = edges_worth_drawing(z, edges, unit=340, max_edges=1000)
    line = edge_lines(z, kept, unit=340)
    gaps = np.flatnonzero(np.isnan(line))
    arcs = np.split(line, gaps + 1)[:-1]
    assert len(arcs) == about["drawn"] == np.sum(np.abs(z[edges[:, 0]] - z[edges[:, 1]]) * 340 >= 0.5)
    ends = {(arc[0], arc[-2]) for arc in arcs}
    assert ends <= {(z[a], z[b]) for a, b in edges} and len(ends) == len(arcs)


def test_arcs_stray_less_than_a_fifth_of_a_pixel_from_the_geodesic():
    z = cloud(300, seed=3) @ (1, 1j)
    edges = np.random.default_rng(1).integers(0, 300, (200, 2))
    unit = 343.0
    for a, b in edges:
        if abs(z[a] - z[b]) * unit < 0.5:
            continue
        line = edge_lines(z, np.array([[a, b]]), unit=unit)
        middle = (line[:-2] + line[1:-1]) / 2  # farthest from the arc
        fine = g.geodesic_polyline(z[a], z[b], 4000)
        off = np.abs(middle[:, None] - fine).min(axis=1) * unit
        assert off.max() < 0.2


def test_edges_beyond_the_limit_are_the_shortest_and_the_figure_says_so():
    points, edges = cloud(400), tree_edges(400)
    fig = plots.disk(points, edges, max_edges=100)
    assert fig.layout.meta["edges"] == {"given": 399, "drawn": 100, "kept": "longest on screen"}


def test_points_are_drawn_from_the_rim_inwards_with_smaller_markers_outside():
    points = traces(plots.disk(cloud(100)))["points"]
    norm = np.hypot(points.x, points.y)
    assert (np.diff(norm) <= 1e-12).all() and (np.diff(points.marker.size) >= -1e-12).all()


def test_many_points_go_to_webgl_and_coinciding_ones_are_merged():
    few, many = plots.disk(cloud(2999)), plots.disk(cloud(3000))
    assert {t.type for t in few.data} == {"scatter"} and {t.type for t in many.data} == {"scattergl"}
    rim = np.tile(cloud(10), (3000, 1))
    fig = plots.disk(rim, color=np.repeat([0, 1], 15_000))
    assert fig.layout.meta["points"] == 30_000 and fig.layout.meta["drawn"] == 20 == len(fig.data[0].x)


def test_categories_keep_the_largest_and_grey_the_rest():
    names = ["a"] * 30 + ["b"] * 20 + ["c"] * 5 + ["d"] * 2
    fig = plots.disk(cloud(57), color=names, top_categories=2, color_title="letter")
    by = traces(fig)
    assert {t.name: len(t.x) for t in fig.data} == {"other": 7, "a": 30, "b": 20}
    assert by["category-0"].marker.color == plots.PALETTE[0] and fig.layout.legend.title.text == "letter"
    assert fig.data[0].name == "other"  # below the others


def test_booleans_are_categories_and_integers_on_request():
    assert len(plots.disk(cloud(6), color=[True, False] * 3).data) == 2
    assert len(plots.disk(cloud(6), color=[1, 2, 3] * 2, categorical=True).data) == 3


def test_hover_beyond_the_limit_stays_with_the_most_important():
    points, edges = cloud(60), tree_edges(60)
    fig = plots.disk(points, edges, hover=[f"h{i}" for i in range(60)], hover_top=7)
    layer = traces(fig)["hover"]
    most = np.argsort(-(descendants(60, edges) - np.hypot(*points.T)), kind="stable")[:7]
    assert list(layer.text) == [f"h{i}" for i in most] and fig.layout.meta["hover"] == 7
    assert traces(fig)["points"].hoverinfo == "skip"


@given(st.integers(0, 10_000), st.integers(1, 120), st.floats(8, 24))
@settings(max_examples=40, deadline=None)
def test_labels_never_overlap_nor_leave_the_frame_nor_cover_a_labelled_point(seed, n, font):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, rng.uniform(5, 200), (n, 2))
    texts = ["".join(rng.choice(list("abc WÉ"), rng.integers(0, 14))) for _ in range(n)]
    bounds = (-300.0, -250.0, 300.0, 250.0)
    placed = place_labels(pixels, texts, rng.permutation(n), font=font, marker=6, bounds=bounds, limit=50)
    boxes = np.array([label.box for label in placed]).reshape(-1, 4)
    assert (boxes[:, 0] >= -300).all() and (boxes[:, 1] >= -250).all()
    assert (boxes[:, 2] <= 300).all() and (boxes[:, 3] <= 250).all()
    for i, (l, b, r, t) in enumerate(boxes):
        for j, (l2, b2, r2, t2) in enumerate(boxes):
            assert i == j or not (max(l, l2) < min(r, r2) and max(b, b2) < min(t, t2))
            x, y = pixels[placed[j].index]
            assert i == j or not (l < x < r and b < y < t)
    assert all(texts[label.index] for label in placed)


def test_labels_are_tried_in_the_order_of_their_priority():
    points = np.array([[0.001 * i, 0.0] for i in range(400)])
    fig = plots.disk(points, labels=["label"] * 400, label_priority=np.arange(400), label_top=1)
    assert fig.layout.annotations[0].x == pytest.approx(0.399)


def test_label_texts_are_escaped():
    fig = plots.disk([[0.1, 0.2]], labels=["a<b & c"])
    assert fig.layout.annotations[0].text == "a&lt;b &amp; c"


def test_descendants_agree_with_networkx():
    import networkx as nx

    edges = tree_edges(200, seed=5)
    graph = nx.DiGraph(edges.tolist())
    assert descendants(200, edges).tolist() == [len(nx.descendants(graph, i)) for i in range(200)]
    assert descendants(3, np.array([[0, 1], [1, 0], [1, 2]])).tolist() == [0, 1, 0]  # a cycle ends, too


def hierarchy(parent: list[int], **more):
    n = len(parent)
    base = dict(names=[f"n.{i}" for i in range(n)], labels=[f"l{i}" for i in range(n)], glosses=[""] * n)
    return SimpleNamespace(**(base | more), spanning_tree=lambda: np.array(parent))


def test_hover_text_has_name_gloss_and_path():
    h = hierarchy([-1, 0, 1], glosses=["", "x & y", "word " * 30])
    root, child, leaf = plots.hover_texts(h, width=40)
    assert root == "<b>l0</b>  n.0"
    assert child == "<b>l1</b>  n.1<br>x &amp; y<br><i>l0</i>"
    assert leaf.endswith("<i>l1 ‹ l0</i>")
    assert all(len(line) <= 40 for line in leaf.split("<br>")[1:-1])


def test_long_paths_keep_both_ends():
    texts = plots.hover_texts(hierarchy([*range(-1, 30)]), width=1000)
    assert texts[30].endswith("<i>l29 ‹ l28 ‹ l27 ‹ l26 ‹ l25 ‹ l24 ‹ … ‹ l3 ‹ l2 ‹ l1 ‹ l0</i>")
    assert texts[10].endswith("<i>l9 ‹ l8 ‹ l7 ‹ l6 ‹ l5 ‹ l4 ‹ l3 ‹ l2 ‹ l1 ‹ l0</i>")


def test_hover_texts_of_eighty_thousand_nodes_take_seconds():
    parent = [-1, *(np.random.default_rng(0).integers(0, np.arange(1, 82_115))).tolist()]
    h = hierarchy(
        parent, glosses=["a gloss of the length that glosses have, about sixty characters"] * 82_115
    )
    start = time.process_time()
    assert len(plots.hover_texts(h)) == 82_115
    assert time.process_time() - start < 6  # 1 s on a free core


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (np.zeros((3, 3)), r"\(N, 2\).*got \(3, 3\)"),
        (np.zeros(2), r"\(N, 2\)"),
        ([[0.0, np.nan]], "finite.*row 0"),
        ([[0.0, 0.0], [0.8, 0.7]], "inside the unit disk.*row 1 with norm 1.06"),
        ([["a", "b"]], "numbers"),
    ],
)
def test_points_off_the_disk_are_refused(points, says):
    with pytest.raises(ManifoldError, match=says):
        plots.disk(points)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(color=[1, 2]), "color must have one entry per point: 3 points, 2 entries"),
        (dict(labels=["a"] * 4), "labels must have one entry"),
        (dict(hover=[]), "hover must have one entry"),
        (dict(edges=[[0, 3]]), "edges must name points 0 to 2, got 0 to 3"),
        (dict(edges=[[0.0, 1.0]]), "integers"),
        (dict(edges=[0, 1]), r"\(E, 2\)"),
        (dict(color=[1.0, np.nan, 2.0]), "finite"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ParameterError, match=says):
        plots.disk(cloud(3), **options)


def test_one_point_no_points_and_no_edges_are_fine():
    assert len(plots.disk([[0.0, 0.0]]).data[0].x) == 1
    assert plots.disk(np.zeros((0, 2)), labels=[], color=[]).layout.meta["points"] == 0
    assert plots.disk(cloud(3), edges=np.zeros((0, 2), int)).layout.meta["edges"]["drawn"] == 0


def test_shapes_of_the_plane():
    fig = plots.geodesics([[[0, 0], [0.5, 0]], [[1, 0], [0, 1]]], names=["a", "b"])
    assert [t.uid for t in fig.data][:3] == ["geodesic-0-whole", "geodesic-0", "geodesic-0-ends"]
    whole = traces(fig)["geodesic-0-whole"]
    assert np.hypot(whole.x[[0, -1]], whole.y[[0, -1]]) == pytest.approx(1)
    with pytest.raises(ManifoldError, match="two different points"):
        plots.geodesics([[[0.1, 0], [0.1, 0]]])
    with pytest.raises(ManifoldError, match="pairs"):
        plots.geodesics([[[0.1, 0], [1.1, 0]]])

    fig = plots.tiling(7, 3, 2)
    assert fig.layout.meta["tiles"] == [1, 7, 21] and [t.fill for t in fig.data] == ["toself"] * 3

    fig = plots.horocycles(0.5, levels=[2, 0, -1], rays=5)
    assert [t.name for t in fig.data if t.uid.startswith("horocycle")] == ["-1", "0", "+2"]
    assert np.isnan(traces(fig)["rays"].x).sum() == 5

    assert len(plots.circles([[0, 0], [0.5, 0.5]], 1.0).data) == 4
    with pytest.raises(ParameterError, match="positive"):
        plots.circles([[0, 0]], -1)
    with pytest.raises(ParameterError, match="one number or 1"):
        plots.circles([[0, 0]], [1, 2])


def test_in_a_crowd_the_labelled_points_are_marked():
    fig = plots.disk(cloud(3500), labels=["name"] * 3500, label_top=5)
    marked, notes = traces(fig)["labelled"], fig.layout.annotations
    assert sorted(marked.x) == sorted(n.x for n in notes) and len(notes) == 5
    assert "labelled" not in traces(plots.disk(cloud(30), labels=["name"] * 30))


def test_arrows_have_a_head_at_the_second_point_and_colours_can_be_given():
    fig = plots.geodesics([[[0, 0], [0.5, 0.1]]], colors=["#123456"], full=False, arrows=True)
    (trace,) = fig.data
    assert trace.line.color == trace.marker.color == "#123456" and trace.marker.symbol.startswith("arrow")
    assert trace.marker.size[-1] > 0 and not any(trace.marker.size[:-1])
    with pytest.raises(ParameterError, match="colors"):
        plots.geodesics([[[0, 0], [0.5, 0.1]]], colors=["red", "blue"])


def test_the_centre_of_a_small_circle_does_not_hide_it():
    fig = plots.circles([[0, 0], [0.999, 0]], 0.5)
    circle, dot = fig.data[2], fig.data[3]
    pixels = (max(circle.x) - min(circle.x)) * 720 / 2.1
    assert dot.marker.size < pixels / 2 and fig.data[1].marker.size == 10


def test_coloured_edges_are_the_same_arcs_in_the_colour_of_the_childs_category():
    points, edges = cloud(200), tree_edges(200)
    kind = np.where(np.arange(200) % 3 == 0, "a", np.where(np.arange(200) % 3 == 1, "b", "c"))
    plain = traces(plots.disk(points, edges, kind, top_categories=2))["edges"]
    fig = traces(plots.disk(points, edges, kind, top_categories=2, color_edges=True))
    parts = [fig[f"edges-{k}"] for k in (-1, 0, 1)]

    def arcs(trace):
        z = np.asarray(trace.x) + 1j * np.asarray(trace.y)
        return {tuple(a[:-1]) for a in np.split(z, np.flatnonzero(np.isnan(z)) + 1)[:-1]}

    assert set.union(*map(arcs, parts)) == arcs(plain) and sum(len(arcs(p)) for p in parts) == len(
        arcs(plain)
    )
    grey, first = parts[0], fig["category-0"]
    ends = {arc[-1] for arc in arcs(parts[1])}
    assert ends <= {complex(x, y) for x, y in zip(first.x, first.y, strict=True)}
    assert grey.line.color != parts[1].line.color != parts[2].line.color


def test_a_diameter_for_every_point_is_kept():
    size = np.linspace(2, 12, 50)
    trace = traces(plots.disk(cloud(50), size=size))["points"]
    order = np.argsort(-np.hypot(*cloud(50).T), kind="stable")
    assert np.allclose(trace.marker.size, size[order])
    with pytest.raises(ParameterError, match="size"):
        plots.disk(cloud(50), size=[1.0, 2.0])
