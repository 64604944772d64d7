"""Points of any origin with names: tables, arrays, tensors, word vectors, and checkpoints of this package.

`read` opens the file, says in which space the points seem to lie, and refuses what cannot be points.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from workbench.data._tables import COMPRESSED, SEPARATORS, existing, read_table
from workbench.errors import DataError, ParameterError, suggest

SPACES = ("poincare", "lorentz", "euclidean")
POINTS = ("points", "coordinates", "embeddings", "embedding", "vectors", "weight")
TABLES = (*SEPARATORS, ".parquet")
FILES = (*TABLES, ".npy", ".npz", ".safetensors", ".vec", ".w2v")


@dataclass(frozen=True)
class Embedding:
    """points: (n, k) float64, of a ball of radius 1/√c ("poincare"), all coordinates of a hyperboloid, time first
    ("lorentz"), or flat ("euclidean"). labels: n names, or none. edges: pairs of point numbers, parent first.

    DataError for what does not fit together, or points that are not in their space.
    """

    name: str
    points: Float[np.ndarray, "n k"]
    space: str
    c: float = 1.0
    labels: tuple[str, ...] | None = None
    edges: Int[np.ndarray, "e 2"] | None = None

    def __post_init__(self) -> None:
        x = _matrix(self.name, self.points)
        object.__setattr__(self, "points", x)
        if self.labels is not None and len(self.labels) != len(x):
            raise DataError(f"{self.name} has {len(x)} points, but {len(self.labels)} labels came")
        if self.space not in SPACES:
            raise ParameterError(f"space must be one of {', '.join(SPACES)}, but came as {self.space!r}")
        if not (np.isfinite(self.c) and self.c > 0):
            raise ParameterError(f"c must be positive and finite, but came as {self.c!r}")
        outside = np.flatnonzero(~_inside(x, self.space, self.c))
        if len(outside):
            what = f"inside the ball of radius {self.c**-0.5:.4g}"
            what = f"on the hyperboloid of c = {self.c:g}" if self.space == "lorentz" else what
            raise DataError(
                f"{self.name}: points must lie {what}, but row {outside[0]} is "
                f"{np.round(x[outside[0]], 4).tolist()} ({len(outside)} of {len(x)} do not)"
            )


def _matrix(name: str, points: np.ndarray) -> Float[np.ndarray, "n k"]:
    x = np.ascontiguousarray(points, dtype=np.float64)
    if x.ndim != 2 or len(x) == 0 or x.shape[1] < 2:
        raise DataError(f"{name}: points must be rows of 2 numbers or more, but have shape {x.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(x).all(1))):
        raise DataError(f"{name}: points must be finite, but row {bad[0]} is {x[bad[0]].tolist()}")
    return x


def _inside(x: np.ndarray, space: str, c: float, tolerance: float = 1e-3) -> np.ndarray:
    if space == "poincare":
        return c * np.square(x).sum(1) < 1
    if space == "lorentz":
        off = c * (np.square(x[:, 0]) - np.square(x[:, 1:]).sum(1)) - 1
        return (x[:, 0] > 0) & (np.abs(off) <= tolerance * (1 + c * np.square(x[:, 0])))
    return np.ones(len(x), dtype=bool)


def guessed(x: Float[np.ndarray, "n k"], c: float = 1.0) -> str:
    """The space in which these points may lie: "lorentz" if they satisfy its equation, "poincare" if all are inside
    the ball and some near its rim (a norm of .5 of the radius or more), else "euclidean"."""
    if x.shape[1] > 2 and _inside(x, "lorentz", c, 1e-5).all():
        return "lorentz"
    r = np.sqrt(c * np.square(x).sum(1))
    return "poincare" if (r < 1).all() and r.max() >= 0.5 else "euclidean"


class _Found(NamedTuple):
    points: np.ndarray
    labels: Sequence[str] | None = None
    space: str | None = None
    c: float = 1.0


def read(
    path: str | Path,
    *,
    labels: str | Path | Sequence[str] | None = None,
    edges: str | Path | None = None,
    space: str | None = None,
    c: float | None = None,
) -> Embedding:
    """An embedding from a file.

    By its ending: .csv, .tsv, .txt (compressed or not) and .parquet, columns of numbers are coordinates and the first
    other column names; .npy and .npz, arrays of numpy; .safetensors, a checkpoint of this package or a file with one
    matrix, or one named points, embeddings, vectors or weight; .vec and .w2v, word vectors as text, which gensim's
    `PoincareModel.kv.save_word2vec_format` writes.

    labels: n names, or a text file of one a line. edges: a table of two columns of names or row numbers, parent
    first. space, c: what the file does not say; a missing space is `guessed`.

    Raises:
        DataError: no such file, damaged, or not points.
        ParameterError: an ending or a space that nothing knows.
    """
    path = existing(path)
    found = _reader(path)(path)
    c = found.c if c is None else c
    points = _matrix(path.name, found.points)
    names = _labels(labels) if labels is not None else found.labels
    names = None if names is None else tuple(str(name) for name in names)
    pairs = None if edges is None else _edges(existing(edges), names, len(points))
    return Embedding(path.name, points, space or found.space or guessed(points, c), c, names, pairs)


def _reader(path: Path):
    kind = next((s.lower() for s in reversed(path.suffixes) if s.lower() not in COMPRESSED), "")
    if kind in TABLES:
        return _table
    known = {".npy": _array, ".npz": _arrays, ".safetensors": _tensors, ".vec": _words, ".w2v": _words}
    if kind not in known:
        raise ParameterError(
            f"an embedding is a file that ends in {', '.join(FILES)}, but came as {path.name!r}"
            f"{suggest(kind, FILES)}"
        )
    return known[kind]


def _array(path: Path) -> _Found:
    try:
        return _Found(_numbers(path, np.load(path, allow_pickle=False)))
    except (ValueError, OSError, EOFError) as e:
        raise DataError(f"{path} cannot be read as an array of numpy ({e})") from e


def _arrays(path: Path) -> _Found:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as e:  # zip, numpy and pickles have their own errors each
        raise DataError(f"{path} cannot be read as arrays of numpy ({e})") from e
    labels = next((arrays[n].tolist() for n in ("labels", "names") if n in arrays), None)
    return _Found(_chosen(path, arrays), labels)


def _tensors(path: Path) -> _Found:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from workbench.errors import CheckpointError
    from workbench.files import load_tensors

    try:
        tensors, about = load_tensors(path)
    except CheckpointError:
        about = {}
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as e:
            raise DataError(f"{path} cannot be read as safetensors ({e})") from e
    arrays = {name: t.double().numpy() for name, t in tensors.items() if t.is_floating_point()}
    if about.get("kind") != "embedding":
        return _Found(_chosen(path, arrays))
    names = zlib.decompress(tensors["names"].numpy().tobytes()).decode().split("\n")
    if about["manifold"] == "euclidean":
        return _Found(arrays["coordinates"], names, "euclidean")
    c = float(about["c"])  # coordinates are space parts in units of the radius of curvature
    x = arrays["coordinates"] / c**0.5
    time = np.sqrt(1 / c + np.square(x).sum(1, keepdims=True))
    return _Found(np.concatenate([time, x], 1), names, "lorentz", c)


def _chosen(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The one matrix, or the one of a usual name."""
    matrices = {name: a for name, a in arrays.items() if a.ndim == 2 and a.dtype.kind in "fiu"}
    named = [name for word in POINTS for name in matrices if name.split(".")[-1] == word]
    if len(matrices) == 1 or named:
        return matrices[named[0] if named else next(iter(matrices))]
    raise DataError(
        f"{path} should hold one matrix of points, or one named {', '.join(POINTS[:-1])} or {POINTS[-1]}, but has "
        f"{', '.join(matrices) or 'none'}"
    )


def _words(path: Path) -> _Found:
    """`n d`, then a word and d numbers a line: the text format of word2vec."""
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        n, d = (int(x) for x in first.split())
        rows = [line.rsplit(" ", d) for line in lines if line.strip()]
        points = np.array([[float(x) for x in row[1:]] for row in rows])
    except (ValueError, UnicodeDecodeError, OSError) as e:
        raise DataError(f"{path} cannot be read as word vectors in text ({e})") from e
    if points.shape != (n, d):
        raise DataError(f"{path} announces {n} vectors of {d} numbers, but has shape {points.shape}")
    return _Found(points, [row[0] for row in rows])


def _table(path: Path) -> _Found:
    """Columns of numbers, and the first column of anything else as names; a first row of numbers is no header."""
    names, rows = read_table(path, header=True, separator=None)
    if all(_number(cell) for cell in names[1:]) and path.suffix.lower() != ".parquet":
        rows = [names, *rows]
    if not rows:
        raise DataError(f"{path} has a header, but no rows")
    columns = list(zip(*rows, strict=True))
    numeric = [i for i, column in enumerate(columns) if all(map(_number, column))]
    others = [i for i in range(len(columns)) if i not in numeric]
    points = np.array([[float(columns[i][r]) for i in numeric] for r in range(len(rows))])
    return _Found(points, columns[others[0]] if others else None)


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path} should hold numbers, but holds {array.dtype}")
    return array


def _labels(given: str | Path | Sequence[str]) -> Sequence[str]:
    if not isinstance(given, str | Path):
        return given
    return existing(given).read_text(encoding="utf-8").splitlines()


def _edges(path: Path, labels: tuple[str, ...] | None, n: int) -> Int[np.ndarray, "e 2"]:
    """Names where all of a pair are known, otherwise row numbers."""
    names, rows = read_table(path, header=False, separator=None)
    if len(names) != 2:
        raise DataError(f"{path} should have two columns, parent and child, but has {len(names)}")
    number = {label: i for i, label in reversed(list(enumerate(labels or ())))}

    def place(cell: str, row: int) -> int:
        if cell in number:
            return number[cell]
        if cell.isdigit() and int(cell) < n:
            return int(cell)
        raise DataError(f"{path}: row {row}: no point is called {cell!r}{suggest(cell, number)}")

    return np.array([[place(cell, i) for cell in row] for i, row in enumerate(rows)], dtype=np.int64)
