"""Embeddings from files of every kind, and what is said of those that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.data import embeddings
from workbench.data.embeddings import Embedding, guessed, read
from workbench.errors import DataError, ParameterError
from workbench.files import save_tensors
from workbench.manifolds import make
from workbench.models.poincare_embedding import PoincareEmbedding

BALL = np.array([[0.0, 0.0], [0.5, 0.1], [-0.4, 0.3], [0.7, 0.2]])
NAMES = ("root", "left", "right", "leaf")


def written(folder, kind: str):
    path = folder / f"points{kind}"
    if kind == ".npy":
        np.save(path, BALL)
    elif kind == ".npz":
        np.savez(path, points=BALL, labels=np.array(NAMES))
    elif kind == ".safetensors":
        from safetensors.torch import save_file

        save_file({"encoder.weight": torch.from_numpy(BALL), "bias": torch.zeros(2)}, path)
    elif kind == ".parquet":
        import pandas as pd

        pd.DataFrame({"x": BALL[:, 0], "word": NAMES, "y": BALL[:, 1]}).to_parquet(path)
    elif kind in (".vec", ".w2v"):
        rows = [f"{n} {x!r} {y!r}" for n, (x, y) in zip(NAMES, BALL.tolist(), strict=True)]
        path.write_text("\n".join(["4 2", *rows]))
    else:
        mark = "," if kind == ".csv" else "\t"
        rows = [mark.join((n, repr(x), repr(y))) for n, (x, y) in zip(NAMES, BALL.tolist(), strict=True)]
        path.write_text("\n".join([mark.join(("name", "x", "y")), *rows]))
    return path


@pytest.mark.parametrize(
    "kind", [".csv", ".tsv", ".txt", ".parquet", ".npy", ".npz", ".safetensors", ".vec", ".w2v"]
)
def test_every_kind_of_file_gives_the_points_bit_for_bit(kind, tmp_path):
    found = read(written(tmp_path, kind))
    np.testing.assert_array_equal(found.points, BALL)
    assert found.space == "poincare" and found.c == 1
    assert found.labels == (None if kind in (".npy", ".safetensors") else NAMES)


def test_tables_go_without_header_and_names_and_gzipped(tmp_path):
    import gzip

    (tmp_path / "a.csv").write_text("0.5,0.1\n-0.4,0.3\n")
    assert read(tmp_path / "a.csv").points.tolist() == [[0.5, 0.1], [-0.4, 0.3]]
    with gzip.open(tmp_path / "b.tsv.gz", "wt") as f:
        f.write("a\t0.5\t0.1\nb\t-0.4\t0.3\n")
    assert read(tmp_path / "b.tsv.gz").labels == ("a", "b")


def test_labels_and_edges_come_from_files_by_name_or_number(tmp_path):
    path = written(tmp_path, ".npy")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "tree.tsv").write_text("root\tleft\n0\tright\nleft\t3\n")
    found = read(path, labels=tmp_path / "names.txt", edges=tmp_path / "tree.tsv")
    assert found.labels == NAMES and found.edges.tolist() == [[0, 1], [0, 2], [1, 3]]
    assert read(path, labels=NAMES).labels == NAMES


@pytest.mark.parametrize("name, c", [("poincare", 0.3), ("lorentz", 2.0), ("euclidean", None)])
def test_checkpoints_of_this_package_come_in_their_space_and_curvature(name, c, tmp_path):
    manifold = make(name, c=c) if c else make(name)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = manifold.from_tangent(x) if hasattr(manifold, "from_tangent") else manifold.expmap0(x)
    PoincareEmbedding(list(NAMES), manifold, points).save(tmp_path / "model.safetensors")
    found = read(tmp_path / "model.safetensors")
    assert found.labels == NAMES
    assert found.space == ("euclidean" if c is None else "lorentz")
    other = make(found.space, c=found.c) if c else manifold
    mine, theirs = torch.from_numpy(found.points), points
    torch.testing.assert_close(other.dist(mine[:1], mine[1:]), manifold.dist(theirs[:1], theirs[1:]))


def test_spaces_are_guessed_from_the_points():
    flat = np.random.default_rng(0).normal(size=(20, 3))
    assert guessed(flat) == "euclidean" and guessed(BALL) == "poincare"
    assert guessed(0.01 * flat) == "euclidean"  # small numbers are no ball
    lifted = np.concatenate([np.sqrt(2 + np.square(flat).sum(1, keepdims=True)), flat], 1)
    assert guessed(lifted, 0.5) == "lorentz" and guessed(lifted) == "euclidean"


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(space="lorentz"), "on the hyperboloid of c = 1, but row 0"),
        (dict(c=4.0), None),
        (dict(c=4.0, space="poincare"), "inside the ball of radius 0.5, but row 1"),
        (dict(labels=("a", "b")), "4 points, but 2 labels"),
        (dict(space="klein"), "space must be one of poincare, lorentz, euclidean, but came as 'klein'"),
        (dict(c=-1.0, space="poincare"), "c must be positive"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(options, match, tmp_path):
    path = written(tmp_path, ".npy")
    if match is None:  # outside of that ball: flat
        assert read(path, **options).space == "euclidean"
        return
    with pytest.raises((DataError, ParameterError), match=match):
        read(path, **options)


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("a.csv", "name,x,y\nroot,1,nan\n", "must be finite, but row 0"),
        ("a.csv", "name,x,y\n", "has a header, but no rows"),
        ("a.csv", "name,word\na,b\n", "rows of 2 numbers or more"),
        ("a.npy", "nonsense", "cannot be read as an array of numpy"),
        ("a.npz", "nonsense", "cannot be read as arrays of numpy"),
        ("a.safetensors", "nonsense", "cannot be read as safetensors"),
        ("a.vec", "3 2\nword 1 2\n", "announces 3 vectors of 2 numbers"),
        ("a.vec", "three 2\n", "cannot be read as word vectors"),
        ("a.pt", "nonsense", "an embedding is a file that ends in"),
    ],
)
def test_damaged_files_are_named(name, content, match, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises((DataError, ParameterError), match=match):
        read(tmp_path / name)


@pytest.mark.parametrize("points", [np.zeros(4), np.zeros((3, 1)), np.zeros((0, 2)), np.zeros((2, 2, 2))])
def test_an_array_of_another_shape_is_no_points(points, tmp_path):
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(DataError, match="rows of 2 numbers or more, but have shape"):
        read(tmp_path / "a.npy")


def test_several_matrices_need_a_usual_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=BALL, two=BALL)
    with pytest.raises(DataError, match=r"one matrix of points.*has one, two"):
        read(tmp_path / "a.npz")
    save_tensors(tmp_path / "b.safetensors", {"x": torch.zeros(3)}, {"kind": "other"})
    with pytest.raises(DataError, match="but has none"):
        read(tmp_path / "b.safetensors")
    (tmp_path / "tree.tsv").write_text("root\tlaef\n")
    with pytest.raises(DataError, match=r"no point is called 'laef'.*did you mean"):
        read(written(tmp_path, ".csv"), edges=tmp_path / "tree.tsv")
    with pytest.raises(DataError, match="there is no file"):
        read(tmp_path / "nothing.csv")


def test_an_embedding_checks_itself():
    with pytest.raises(DataError, match="rows of 2 numbers"):
        Embedding("a", np.zeros((3, 1)), "euclidean")
    assert embeddings.SPACES == ("poincare", "lorentz", "euclidean")
