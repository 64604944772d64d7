import numpy as np
import pytest
import torch

from workbench.data import Hierarchy, trees, wordnet
from workbench.errors import CheckpointError, DataError, ManifoldError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import Euclidean, Lorentz, PoincareBall
from workbench.models import EmbeddingConfig, PoincareEmbedding
from workbench.models.starts import initial_points, wedges


def some(manifold, n=40, dim=3):
    x = manifold.random(n, dim, std=2.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return PoincareEmbedding([f"n{i}" for i in range(n)], manifold, x, {"note": "test"})


@pytest.mark.parametrize("manifold", [Euclidean(), PoincareBall(), PoincareBall(0.4), Lorentz(3.0)], ids=repr)
def test_save_and_load_give_back_points_names_space_and_facts(manifold, tmp_path):
    e = some(manifold)
    e.save(tmp_path / "e.safetensors")
    back = PoincareEmbedding.load(tmp_path / "e.safetensors")
    assert back.names == e.names and repr(back.manifold) == repr(manifold) and back.about == e.about
    torch.testing.assert_close(back.points, e.points, rtol=1e-13, atol=1e-15)


def test_single_precision_file_keeps_distances_to_seven_digits(tmp_path):
    e = some(Lorentz())
    e.save(tmp_path / "e.safetensors", dtype=torch.float32)
    back = PoincareEmbedding.load(tmp_path / "e.safetensors")
    torch.testing.assert_close(
        back.manifold.dist0(back.points), e.manifold.dist0(e.points), rtol=1e-6, atol=1e-6
    )


def test_nearest_is_the_sorted_row_of_the_distance_matrix():
    e = some(PoincareBall())
    d = e.manifold.cdist(e.points, e.points, exact=True)
    d.fill_diagonal_(torch.inf)
    found = e.nearest("n7", 5)
    assert [n.name for n in found] == [f"n{i}" for i in d[7].argsort()[:5].tolist()]
    assert [n.distance for n in found] == pytest.approx(d[7].sort().values[:5].tolist())


def test_ancestors_lie_nearer_to_the_origin():
    e = some(PoincareBall())
    radius = dict(zip(e.names, e.manifold.dist0(e.points).tolist(), strict=True))
    found = e.ancestors("n7", 40)
    assert found and all(radius[n.name] < radius["n7"] for n in found)


def test_other_chart_keeps_distances():
    e = some(PoincareBall())
    other = e.to(Lorentz())
    torch.testing.assert_close(
        other.manifold.cdist(other.points, other.points, exact=True),
        e.manifold.cdist(e.points, e.points, exact=True), rtol=1e-8, atol=1e-7,
    )  # fmt: skip
    with pytest.raises(ParameterError, match="curvatures differ"):
        e.to(Lorentz(2.0))


def test_rescaling_multiplies_all_distances_alike():
    e = some(PoincareBall(0.1))
    unit = e.rescaled(1.0)
    d, scaled = (t.manifold.cdist(t.points, t.points, exact=True) for t in (e, unit))
    torch.testing.assert_close(scaled, d * 0.1**0.5, rtol=1e-9, atol=1e-9)
    with pytest.raises(ParameterError, match="no curvature"):
        some(Euclidean()).rescaled(1.0)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'n12'"):
        some(PoincareBall()).nearest("n_12")


def test_bad_tables_are_refused():
    with pytest.raises(DataError, match="3 names and 2 points"):
        PoincareEmbedding(["a", "b", "c"], PoincareBall(), torch.zeros(2, 2))
    with pytest.raises(ManifoldError, match="points must be finite"):
        PoincareEmbedding(["a"], PoincareBall(), torch.tensor([[float("nan"), 0.0]]))


def test_damaged_or_foreign_files_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "e.safetensors"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        PoincareEmbedding.load(path)
    some(PoincareBall()).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable workbench checkpoint"):
        PoincareEmbedding.load(path)
    from workbench.files import save_tensors

    save_tensors(path, {"x": torch.zeros(1)}, {"kind": "other"})
    with pytest.raises(CheckpointError, match="not an embedding"):
        PoincareEmbedding.load(path)


def test_config_refuses_nonsense_and_names_the_nearest_setting():
    with pytest.raises(ParameterError, match="did you mean 'softmax'"):
        EmbeddingConfig(objective="softmx")
    with pytest.raises(ParameterError, match="lr must be a positive number"):
        EmbeddingConfig(lr=-1.0)
    with pytest.raises(ParameterError, match="did you mean 'epochs'"):
        EmbeddingConfig.for_size(10, epoch=3)


@pytest.mark.parametrize("init", ["walk", "random", "sarkar"])
def test_starts_are_seeded_and_of_the_radius_asked_for(init):
    h = trees.balanced(3, 4)
    config = EmbeddingConfig(dim=3, init=init, init_radius=0.7)
    first, again = (
        initial_points(h, PoincareBall(), config, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, again)
    median = float(PoincareBall().dist0(first).median())
    assert median == pytest.approx(0.7, rel=1e-6) if init != "random" else median < 0.01


def test_wedges_nest_and_keep_to_the_plane():
    h = trees.random_recursive(200, seed=3)
    v = wedges(h)
    angle, r = torch.atan2(v[:, 1], v[:, 0]), v.norm(dim=1)
    assert len(torch.unique(angle.round(decimals=9))) > 100 and float(r[h.roots[0]]) == 0.0
    assert (r[h.edges[:, 1]] > r[h.edges[:, 0]]).all()  # children further out than their parents
    with pytest.raises(ParameterError, match="2 dimensions"):
        wedges(h, 3)


def test_walk_starts_children_nearer_to_their_parents_than_to_strangers():
    h = trees.balanced(3, 5)
    config = EmbeddingConfig(dim=5)
    m = PoincareBall()
    x = initial_points(h, m, config, torch.Generator().manual_seed(0))
    near = m.dist(x[h.edges[:, 0]], x[h.edges[:, 1]]).mean()
    shuffled = torch.randperm(len(h), generator=torch.Generator().manual_seed(2))[: len(h.edges)]
    assert near < 0.6 * m.dist(x[shuffled], x[h.edges[:, 1]]).mean()


@pytest.mark.parametrize("name", ["wordnet-2d", "wordnet-10d"])
def test_shipped_tables_are_of_the_embedded_wordnet(name):
    e, h = PoincareEmbedding.pretrained(name), wordnet.nouns()
    assert e.names == h.names and e.about["hierarchy"] == h.fingerprint()
    assert e.dim == int(name[8:-1])
    with pytest.raises(ParameterError, match="did you mean 'wordnet-10d'"):
        PoincareEmbedding.pretrained("wordnet-10")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("dim", 2.5), ("dim", True), ("epochs", "3"), ("epochs", 0), ("batch", 1.5), ("candidates", -1)],
        *[("burn_in", "x"), ("hold", 1.0), ("seed", -1), ("final_lr", float("nan")), ("aperture", 0)],
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_by_name(setting, value):
    with pytest.raises(ParameterError, match=f"^{setting} "):
        EmbeddingConfig(**{setting: value})


def test_numbers_of_numpy_are_taken_as_plain_ones():
    config = EmbeddingConfig(dim=np.int64(3), lr=np.float32(0.5))
    assert type(config.dim) is int and type(config.lr) is float


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(manifold="sphere"), "unknown space 'sphere'"),
        (dict(coordinates=torch.zeros(2)), "must be a table"),
        (dict(coordinates=torch.full((2, 2), torch.nan)), "finite"),
        (dict(coordinates=torch.zeros(3, 2)), "2 names and 3 points"),
    ],
)
def test_a_file_that_holds_no_whole_embedding_is_refused_by_its_name(tmp_path, change, reason):
    path = tmp_path / "e.safetensors"
    PoincareEmbedding(["a", "b"], PoincareBall(), torch.zeros(2, 2)).save(path)
    tensors, about = load_tensors(path)
    tensors = {k: change.get(k, v) for k, v in tensors.items()}
    save_tensors(path, tensors, {k: change.get(k, v) for k, v in about.items()})
    with pytest.raises(CheckpointError, match=reason) as e:
        PoincareEmbedding.load(path)
    assert str(path) in str(e.value)


def test_a_name_that_stands_twice_or_on_two_lines_is_refused(tmp_path):
    with pytest.raises(DataError, match="'a' stands there twice"):
        PoincareEmbedding(["a", "a"], PoincareBall(), torch.zeros(2, 2))
    with pytest.raises(DataError, match="one line"):
        PoincareEmbedding(["a", "b\nc"], PoincareBall(), torch.zeros(2, 2)).save(tmp_path / "e")
    assert not list(tmp_path.iterdir())


def test_facts_about_a_table_cannot_hide_its_space(tmp_path):
    e = PoincareEmbedding(["a"], PoincareBall(), torch.zeros(1, 2), {"manifold": "euclidean", "kind": "x"})
    e.save(tmp_path / "e")
    assert repr(PoincareEmbedding.load(tmp_path / "e").manifold) == repr(PoincareBall())


def test_a_negative_number_of_neighbours_is_refused():
    with pytest.raises(ParameterError, match="k is a number"):
        some(Euclidean()).nearest("n1", -1)


@pytest.mark.parametrize("init", ["walk", "sarkar"])
def test_a_hierarchy_of_mostly_single_nodes_starts_at_the_right_radius(init):
    h = Hierarchy.from_edges([("a", "b"), ("a", "c")], names=[*"abcdefghijkl"])
    config = EmbeddingConfig(dim=2, init=init, init_radius=0.7)
    points = initial_points(h, PoincareBall(), config, torch.Generator().manual_seed(0))
    assert PoincareBall().dist0(points).max() < 5
