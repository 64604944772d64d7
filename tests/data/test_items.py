"""Item vectors against scikit-learn and NumPy; the category tree against one made by hand."""

import os
from dataclasses import replace

import numpy as np
import pytest

from workbench.data import interactions, items, registry
from workbench.data.interactions import Interactions, synthetic
from workbench.data.items import item_features, item_hierarchy
from workbench.errors import DataError, ParameterError

TITLES = ["Heat in Rome", "Summer heat heat", "Rome", "Nothing else", "a b"]
GENRES = [("Crime", "Drama"), ("Drama",), ("Drama", "Sci-Fi"), (), ("Crime",)]


def films():
    data = Interactions.from_events([1, 1, 1, 1, 1, 2, 2, 2, 2], [0, 1, 2, 3, 4, 0, 1, 1, 3])
    return replace(data, titles=tuple(TITLES), attributes=tuple(GENRES))


def random_films(n, seed=0):
    rng = np.random.default_rng(seed)
    titles = tuple(" ".join(f"w{k}" for k in rng.zipf(1.3, size=6) % 3000) for _ in range(n))
    users = np.repeat(np.arange(n // 5), 10)
    data = Interactions.from_events(users, rng.permutation(np.tile(np.arange(n), 2)))
    return replace(data, titles=titles)


# -- features --------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_items", [1, 2])
def test_tf_idf_equals_scikit_learn_on_titles_and_attributes(min_items):
    text = pytest.importorskip("sklearn.feature_extraction.text")
    data = films()
    # scikit-learn sees attributes as words that no title has
    documents = [
        " ".join([t, *("zz" + a.replace("-", "") for a in g)]) for t, g in zip(TITLES, GENRES, strict=True)
    ]
    oracle = text.TfidfVectorizer(min_df=min_items).fit_transform(documents).toarray()
    ours = items._tf_idf(data, min_items).toarray()
    np.testing.assert_allclose(ours @ ours.T, oracle @ oracle.T, atol=1e-12)
    assert ours.shape == oracle.shape


@pytest.mark.parametrize("source", ["text", "interactions", "both"])
@pytest.mark.parametrize("limit", [0, items.DENSE])
def test_features_are_the_best_approximation_of_the_table_at_their_rank(monkeypatch, source, limit):
    monkeypatch.setattr(items, "DENSE", limit)  # 0: the iteration of large tables
    data = random_films(200)
    found = item_features(data, 8, source=source)
    tables = [items._tf_idf(data, 2).toarray()]
    taken = np.zeros((data.n_items, data.n_users))
    for u, sequence in enumerate(data.train):
        taken[sequence, u] = 1
    if source != "text":
        tables = [taken] if source == "interactions" else [*tables, unit(taken)]
    best = []
    for table in tables:
        u, s, _ = np.linalg.svd(table, full_matrices=False)
        best.append(u[:, : 8 // len(tables)] * s[: 8 // len(tables)])
    best = best[0] if len(best) == 1 else np.hstack([unit(part) for part in best])
    np.testing.assert_allclose(found @ found.T, best @ best.T, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.linalg.norm(best, axis=0), atol=1e-8)
    if source != "both":
        assert (found[np.abs(found).argmax(axis=0), np.arange(8)] > 0).all()


def unit(rows):
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 1e-9, norms, 1)


def test_features_equal_scikit_learns_truncated_svd_up_to_sign():
    decomposition = pytest.importorskip("sklearn.decomposition")
    data = random_films(300)
    oracle = decomposition.TruncatedSVD(6, algorithm="arpack", random_state=0)
    expected = oracle.fit_transform(items._tf_idf(data, 2))
    np.testing.assert_allclose(np.abs(item_features(data, 6)), np.abs(expected), atol=1e-7)


@pytest.mark.parametrize("limit", [0, items.DENSE])
def test_the_same_seed_gives_the_same_features_bit_by_bit(monkeypatch, limit):
    monkeypatch.setattr(items, "DENSE", limit)
    data = random_films(100)
    assert np.array_equal(item_features(data, 5, seed=1), item_features(data, 5, seed=1))
    np.testing.assert_allclose(item_features(data, 5, seed=1), item_features(data, 5, seed=2), atol=1e-8)


def test_items_described_alike_coincide_and_the_undescribed_are_zero():
    data = films()
    data = replace(data, titles=("A", "A", "A", "", "A"), attributes=(*GENRES[:3], (), GENRES[1]))
    found = item_features(data, 2, min_items=1)
    assert np.array_equal(found[1], found[4]) and not np.array_equal(found[0], found[1])
    assert not found[3].any()
    assert np.isfinite(found).all() and found.dtype == np.float64


def test_the_default_data_have_features_of_the_default_dimension_in_the_shape_of_their_tree():
    data = synthetic()
    found = item_features(data)
    assert found.shape == (data.n_items, 64)
    tree = item_hierarchy(data).graph_distances([0])[0, : data.n_items]
    apart = np.linalg.norm(found - found[0], axis=1)
    means = [apart[tree == d].mean() for d in np.unique(tree)]
    assert means == sorted(means) and len(means) == 6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"source": "txt"}, ParameterError, "source must be"),
        ({"dim": 0}, ParameterError, "dim must be from 1 to 4"),
        ({"dim": 5}, ParameterError, "5 items and 4 columns, not 5"),
        ({"dim": 1, "source": "both"}, ParameterError, "at least 2"),
        ({"min_items": 9}, DataError, "nothing is known about the items"),
    ],
)
def test_bad_requests_for_features_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        item_features(films(), **({"dim": 2} | options))


def test_items_without_any_text_are_refused():
    data = Interactions.from_events([1, 1], [10, 11])
    with pytest.raises(DataError, match="add titles and attributes"):
        item_features(data, 1)
    with pytest.raises(DataError, match="no attributes to make a hierarchy of"):
        item_hierarchy(data)


# -- hierarchy -------------------------------------------------------------------------------------


def test_sets_of_attributes_become_paths_from_the_commonest_on():
    h = item_hierarchy(films())
    edges = {(h.names[a], h.names[b]) for a, b in h.edges}
    assert edges == {
        ("/", "/Drama"),
        ("/", "/Crime"),
        ("/Drama", "/Drama/Crime"),
        ("/Drama", "/Drama/Sci-Fi"),
        ("/Drama/Crime", "0"),
        ("/Drama", "1"),
        ("/Drama/Sci-Fi", "2"),
        ("/", "3"),
        ("/Crime", "4"),
    }
    assert h.names[:5] == films().items and h.labels[:5] == tuple(TITLES)
    assert h.labels[h.index("/Drama/Sci-Fi")] == "Sci-Fi" and [h.names[r] for r in h.roots] == ["/"]


def test_ordered_attributes_keep_their_order():
    data = films()
    h = item_hierarchy(replace(data, paths=data.attributes))
    assert [h.names[v] for v in h.path_to_root(0)] == ["0", "/Crime/Drama", "/Crime", "/"]


def test_the_tree_of_the_generator_comes_back():
    data = synthetic(10, 60, branching=2, depth=3, length=10)
    h = item_hierarchy(data)
    assert len(h) == 60 + 2 + 4 + 8 + 1
    assert len(h.edges) == len(h) - 1
    distance = h.graph_distances(list(range(60)))[:, :60]
    shared = np.array(
        [[sum(a == b for a, b in zip(p, q, strict=True)) for q in data.paths] for p in data.paths]
    )
    expected = 2 * (3 - shared) + 2
    np.fill_diagonal(expected, 0)
    assert np.array_equal(distance, expected)


def test_an_item_named_like_a_category_is_refused():
    data = replace(films(), items=("/Drama", "1", "2", "3", "4"))
    with pytest.raises(DataError, match="repeats '/Drama'"):
        item_hierarchy(data)


def test_beauty_and_movielens_have_features_and_a_tree_over_all_items():
    names = ["amazon-beauty", "amazon-beauty-attributes", "ml-100k", "ml-100k-items"]
    if not os.environ.get("WORKBENCH_DATA") or any(registry.local(n) is None for n in names):
        pytest.skip(f"WORKBENCH_DATA is not set, or lacks one of {', '.join(names)}")
    for data in (interactions.amazon_beauty(), interactions.movielens_100k()):
        found = item_features(data)
        assert found.shape == (data.n_items, 64) and np.isfinite(found).all()
        h = item_hierarchy(data)
        assert len(h.roots) == 1 and len(h.edges) == len(h) - 1
        assert np.array_equal(np.intersect1d(h.leaves, np.arange(data.n_items)), np.arange(data.n_items))
