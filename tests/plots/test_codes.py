"""Cells against brute force over points, views against translation, rings and chains against what they show."""

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import plots
from workbench.errors import DataError, ManifoldError, ParameterError
from workbench.plots import geometry2d as plane
from workbench.plots.codes import HUES
from workbench.plots.voronoi import balanced, colouring, outline_of, voronoi


def scatter(n: int, seed: int = 0, far: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.tanh(rng.uniform(0, far, n) / 2) * np.exp(2j * np.pi * rng.uniform(size=n))


def pairs(z: np.ndarray) -> np.ndarray:
    return np.column_stack([z.real, z.imag])


def covers(outline: np.ndarray, z: np.ndarray) -> np.ndarray:
    """True where the closed outline winds around the point."""
    turn = np.angle((outline[1:, None] - z) / (outline[:-1, None] - z)).sum(0)
    return abs(turn) > np.pi


def example(levels: int = 3, size: int = 6, n: int = 200):
    """Random codebooks, and points with their codes by brute force in the exact left order."""
    books = [scatter(size, seed=k + 1, far=3 - k) for k in range(levels)]
    z = scatter(n, seed=9, far=4)
    r, codes = z, []
    for book in books:
        codes.append(plane.distance(r[:, None], book).argmin(1))
        r = plane.translate(r, book[codes[-1]])
    return pairs(z), np.stack(codes, 1), [pairs(book) for book in books]


def traces(fig) -> dict:
    return {t.uid: t for t in fig.data}


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_cell_holds_what_is_nearest_to_its_site(seed, flat):
    sites, z = scatter(12, seed), scatter(200, seed + 1, far=4)
    away = abs(z[:, None] - sites) if flat else plane.distance(z[:, None], sites)
    first, second = np.sort(away, 1)[:, :2].T
    clear = second - first > 1e-2  # outlines are polylines: not at the borders
    for tile in voronoi(sites, flat=flat):
        mine = away.argmin(1) == tile.site
        assert (covers(tile.outline, z) == mine)[clear & (abs(z) < 0.99)].all()


def test_cells_within_a_cell_hold_what_is_nearest_at_both_levels():
    first, second, z = scatter(5, 1), scatter(7, 2), scatter(400, 3, far=4)
    own = plane.distance(z[:, None], first).argmin(1) == 2
    away = plane.distance(z[:, None], second)
    within = [(first[2], np.delete(first, 2))]
    total = np.zeros(len(z), int)
    for tile in voronoi(second, within=within):
        inside = covers(tile.outline, z)
        assert (away.argmin(1)[inside & (np.diff(np.sort(away, 1)[:, :2])[:, 0] > 1e-2)] == tile.site).all()
        total += inside
    assert (total <= 1).all() and (total == own).mean() > 0.98
    assert (covers(outline_of(within), z) == own).mean() > 0.98


def test_sites_at_the_rim_and_single_sites_are_drawn():
    (whole,) = voronoi(np.array([0.3 + 0j]))
    assert np.allclose(abs(whole.outline), 1) and not whole.neighbours
    rim = np.array([0j, 1 - 1e-9, -1 + 1e-12])
    assert voronoi(rim)[0].site == 0
    assert all(
        np.isfinite(tile.outline).all() and (abs(tile.outline) <= 1 + 1e-12).all() for tile in voronoi(rim)
    )


@given(st.integers(0, 10_000), st.integers(2, 40))
@settings(max_examples=20, deadline=None)
def test_neighbouring_cells_differ_in_colour(seed, count):
    tiles = voronoi(scatter(count, seed, far=4))
    place = {tile.site: i for i, tile in enumerate(tiles)}
    near = [frozenset(place[j] for j in tile.neighbours if j in place) for tile in tiles]
    assert all(i in near[j] for i, around in enumerate(near) for j in around)
    found = colouring(near, len(HUES))
    assert all(found[i] != found[j] for i, around in enumerate(near) for j in around)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_seen_from_their_barycentre_points_lie_evenly(seed):
    z = scatter(20, seed, far=8)
    assert abs(plane.translate(z, balanced(z)).mean()) < 1e-6


def test_the_disk_shows_every_point_and_names_every_code():
    points, codes, books = example()
    fig = plots.cells(points, codes, books, names={0: "whales & co"}, hover=["t"] * len(points))
    shown = sum(len(t.x) for t in fig.data if t.uid.startswith("points-"))
    assert shown == len(points) == fig.layout.meta["points"]
    assert fig.layout.meta["labels"]["placed"] == len(np.unique(codes[:, 0]))
    texts = [note.text for note in fig.layout.annotations]
    assert "<b>0</b> whales &amp; co" in texts
    assert {"borders", "finer", "codes"} <= set(traces(fig)) and "own-border" not in traces(fig)
    fills = [t for t in fig.data if t.uid.startswith("cell-")]
    assert all(t.fill == "toself" and "0.34" in t.fillcolor for t in fills)
    assert len(fills) == fig.layout.meta["cells"]
    assert "<b>code 0 whales &amp; co</b>" in traces(fig)["cell-0"].text
    assert "finer" not in traces(plots.cells(points, codes, books, deeper=False))


def test_a_prefix_is_seen_from_its_point_with_its_residuals():
    points, codes, books = example()
    prefix = tuple(codes[0, :2])
    fig = plots.cells(points, codes, books, prefix=prefix)
    z = plane.as_complex(points)
    for level, code in enumerate(prefix):
        z = plane.translate(z, plane.as_complex(books[level])[code])
    mine = (codes[:, :2] == prefix).all(1)
    drawn = [t for t in fig.data if t.uid.startswith("points-")]
    found = np.sort_complex(np.concatenate([t.x + 1j * t.y for t in drawn]))
    np.testing.assert_allclose(found, np.sort_complex(z[mine]))
    assert len(traces(fig)["others"].x) == (~mine).sum()
    # Every member lies in a cell whose code is its own.
    edge = traces(fig)["own-border"]
    assert covers(np.array(edge.x) + 1j * np.array(edge.y), found).all()


def test_codes_at_the_centre_is_an_isometry_of_the_same_cells():
    points, codes, books = example()
    plain, even = (plots.cells(points, codes, books, center=c) for c in ("origin", "codes"))
    assert plain.layout.meta["cells"] == even.layout.meta["cells"]
    a, b = (np.array(traces(f)["codes"].x) + 1j * np.array(traces(f)["codes"].y) for f in (plain, even))
    assert abs(b.mean()) < 1e-6 < abs(a.mean())
    np.testing.assert_allclose(plane.distance(a[:1], a[1:]), plane.distance(b[:1], b[1:]))


def test_flat_cells_have_straight_borders_and_residuals_are_differences():
    points, _, books = example()
    z, codes = plane.as_complex(points), []
    r = z
    for book in books:
        sites = plane.as_complex(book)
        codes.append(abs(r[:, None] - sites).argmin(1))
        r = r - sites[codes[-1]]
    codes = np.stack(codes, 1)
    fig = plots.cells(points, codes, books, flat=True, prefix=codes[0, :1])
    mine = np.concatenate([t.x + 1j * t.y for t in fig.data if t.uid.startswith("points-")])
    assert len(mine) == (codes[:, 0] == codes[0, 0]).sum() and abs(mine).max() <= 1
    with pytest.raises(ParameterError, match="unless flat"):
        plots.cells(points, codes, books, flat=True, center="codes")


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        (dict(points=np.ones((200, 2))), ManifoldError, "inside"),
        (dict(codes=np.zeros((3, 3), int)), ParameterError, "200 points"),
        (dict(codes=np.full((200, 3), 6)), ParameterError, "code 6"),
        (dict(codes=np.zeros((200, 4), int)), ParameterError, "codebooks"),
        (dict(prefix=(0, 0, 0)), ParameterError, "leave a level"),
        (dict(prefix=(77,)), DataError, "starts with"),
        (dict(hover=["x"]), ParameterError, "hover"),
        (dict(center="root"), ParameterError, "center"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, error, word):
    points, codes, books = example()
    given_ = dict(points=points, codes=codes, codebooks=books) | change
    with pytest.raises(error, match=word):
        plots.cells(given_.pop("points"), given_.pop("codes"), given_.pop("codebooks"), **given_)


def test_a_sunburst_counts_members_and_writes_where_there_is_room():
    codes = np.array([[0, 0]] * 600 + [[0, 1]] * 399 + [[1, 2]])
    fig = plots.sunburst(codes, {(0,): "whale <blue>", (0, 1): "dolphin"})
    ring = dict(
        zip(
            fig.data[0].ids,
            zip(fig.data[0].parents, fig.data[0]["values"], fig.data[0].labels, strict=True),
            strict=True,
        )
    )
    assert ring["all"][:2] == ("", 1000) and ring["0"][:2] == ("all", 999) and ring["0-1"][:2] == ("0", 399)
    assert ring["0"][2] == "<b>0</b> whale &lt;blue&gt;" and ring["1-2"][2] == ""
    assert "1, 2" in fig.data[0].text[-1]
    assert len(plots.sunburst(codes, smallest=2).data[0].ids) == 4
    with pytest.raises(ParameterError, match="levels"):
        plots.sunburst(codes, levels=3)
    with pytest.raises(ParameterError, match="whole numbers"):
        plots.sunburst(np.zeros((3, 2)))


@pytest.mark.parametrize("count", range(1, 34))
def test_sectors_side_by_side_differ_in_colour(count):
    fig = plots.sunburst(np.arange(count)[:, None])
    colors = fig.data[0].marker.colors[1:]
    assert count == 1 or all(a != b for a, b in zip(colors, np.roll(colors, 1), strict=True))


def test_drift_shows_distances_to_the_point():
    target = 0.9 * np.exp(0.4j)
    exact = np.array([0.5, 0.8, 1.0]) * target
    chains = {"exact": pairs(exact), "naive": pairs(np.array([0.5 * target, 0.3j]))}
    fig = plots.drift(pairs(np.array([target]))[0], chains)
    assert fig.layout.meta["distance"]["exact"] == pytest.approx(0, abs=1e-12)
    assert fig.layout.meta["distance"]["naive"] == pytest.approx(plane.distance(target, 0.3j))
    by = traces(fig)
    assert by["stops-0"].name == "exact: ends on it" and "away" in by["stops-1"].name
    np.testing.assert_allclose(by["stops-0"].customdata[:, 1], plane.distance(exact, target), atol=1e-12)
    # Radii on the picture are proportional to distances, from the origin's ring on.
    origin = abs(complex(by["origin"].x[0], by["origin"].y[0]))
    stops = abs(by["stops-0"].x + 1j * by["stops-0"].y)
    np.testing.assert_allclose(
        stops / origin, plane.distance(exact, target) / plane.distance(0, target), atol=1e-9
    )
    assert {note.text for note in fig.layout.annotations} >= {"1", "2", "all"}
    assert (abs(np.array(by["way-0"].x) + 1j * np.array(by["way-0"].y)) <= 1 + 1e-9).all()
    with pytest.raises(ParameterError, match="chain"):
        plots.drift((0, 0), {})


def test_drawing_is_deterministic_and_changes_nothing_given():
    points, codes, books = example()
    before = [points.copy(), codes.copy(), *(book.copy() for book in books)]
    figs = [plots.cells(points, codes, books, prefix=codes[0, :1], center="codes") for _ in range(2)]
    assert isinstance(figs[0], go.Figure) and figs[0].to_json() == figs[1].to_json()
    assert all((a == b).all() for a, b in zip(before, [points, codes, *books], strict=True))
