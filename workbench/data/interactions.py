"""Who took what, in which order: users' item sequences, split for next-item prediction.

Made-up sessions (the default, no download), MovieLens, Amazon reviews, and a user's own files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from workbench.data import registry
from workbench.data._graph import readonly
from workbench.data._sequences import Held, Interactions, Names, padded, starts
from workbench.data._sessions import draw_sessions, leaf_paths
from workbench.data._tables import COMPRESSED, ITEM, TIME, USER, Table, existing, parse_times
from workbench.errors import DataError, ParameterError, suggest

__all__ = [
    "LOADERS",
    "Held",
    "Interactions",
    "amazon_beauty",
    "amazon_video_games",
    "load",
    "movielens_1m",
    "movielens_100k",
    "padded",
    "read_inter",
    "read_sequences",
    "synthetic",
]

MAX_SYNTHETIC = 100_000_000  # users · items; the generator keeps a table of them

# -- a user's own files ----------------------------------------------------------------------------


def read_sequences(path: str | Path) -> Interactions:
    """Text lines `user item item …`, separated by spaces or tabs, each user's items from old to new.

    One item a line, as the files of SASRec and BERT4Rec have it, is the same format: a user's later lines
    continue the earlier ones. Compressed files (.gz, .bz2, .xz) are fine.

    Raises:
        DataError: the file is missing, empty or not text, or a line has no item; names the line.
    """
    path = existing(path)
    users: list[str] = []
    items: list[str] = []
    try:
        with COMPRESSED.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8-sig") as f:
            for number, line in enumerate(f, 1):
                user, *taken = line.split() or [""]
                if user and not taken:
                    raise DataError(f"{path}: line {number} has a user, {user!r}, but no item")
                users.extend([user] * len(taken))
                items.extend(taken)
    except (OSError, EOFError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read as text ({type(e).__name__}: {e})") from e
    if not items:
        raise DataError(f"{path} is empty: it has no line `user item item …`")
    return Interactions.from_events(users, items, name=path.name.split(".")[0])


def read_inter(
    path: str | Path,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    *,
    header: bool = True,
    separator: str | None = None,
) -> Interactions:
    """A table with one interaction a row: RecBole's .inter, .tsv, .csv or .parquet.

    >>> read_inter("ratings.csv")
    >>> read_inter("u.data", user=0, item=1, time=3, header=False, separator="\\t")

    Rows may come in any order; they are sorted by time, those of one time stay in the file's order.

    Args:
        user, item, time: columns, by name or position; without them the usual names are looked for.
        header: whether the first row of a text file holds column names.
        separator: of columns, where the extension does not say ("::" is fine).

    Raises:
        DataError: the file is missing or empty; a column is missing or its name occurs twice (lists the columns
            there are); a cell is empty; a time is neither a number nor an ISO 8601 date. Names the data row,
            counted from 0 without the header.
    """
    table = Table(path, header, separator)
    users = table.column("users", user, USER)
    items = table.column("items", item, ITEM)
    times = table.column("times", time, TIME)
    if not users:
        raise DataError(f"{table.path} has no interactions, only a header")
    for what, cells in (("user", users), ("item", items), ("time", times)):
        if "" in cells:
            raise DataError(f"{table.path}: data row {cells.index('')} has no {what}")
    return Interactions.from_events(
        users, items, parse_times(times, table.path), name=table.path.name.split(".")[0]
    )


# -- data sets -------------------------------------------------------------------------------------


def synthetic(
    n_users: int = 500,
    n_items: int = 486,
    branching: int = 3,
    depth: int = 4,
    strength: float = 0.8,
    seed: int = 0,
    length: int = 20,
    skew: float = 0.5,
) -> Interactions:
    """Made-up sessions on a complete tree of categories: no download, and the truth is known.

    Items are spread evenly over the leaves. A user starts anywhere; each further item is drawn, by
    popularity, from what the user has not had below an ancestor of the last item's leaf. With probability
    `strength` that ancestor is near: 0 levels up with probability 1/2, 1 with 1/4, …; otherwise it is the
    root, and the item says nothing about the one before.

    Args:
        branching, depth: of the tree: branching^depth leaves, branching from 1 to 26.
        strength: in [0, 1]; 0 is no structure at all.
        length: mean number of items a user; lengths are spread evenly from half to one and a half of it.
        skew: popularity of the r-th most popular item is r^−skew; 0 is none.

    Raises:
        ParameterError: a value outside its range, fewer items than leaves, or too few items for `length`.
    """
    for what, value, least in (("n_users", n_users, 1), ("depth", depth, 1), ("length", length, 6)):
        if value < least:
            raise ParameterError(f"{what} must be at least {least}, not {value}")
    if not 1 <= branching <= 26:
        raise ParameterError(f"branching must be from 1 to 26, not {branching}")
    if not (0 <= strength <= 1 and skew >= 0):
        raise ParameterError(f"strength must be in [0, 1] and skew ≥ 0, not {strength} and {skew}")
    leaves = branching**depth
    if n_items < max(leaves, 3 * length):
        raise ParameterError(
            f"n_items must be at least {max(leaves, 3 * length):,}, the {leaves:,} leaves and three times the "
            f"length {length}, not {n_items:,}"
        )
    if n_users * n_items > MAX_SYNTHETIC:
        raise ParameterError(
            f"n_users · n_items must be at most {MAX_SYNTHETIC:,}, not {n_users * n_items:,}"
        )
    rng = np.random.default_rng([seed, 1])
    lengths = rng.integers(length // 2, length + length // 2 + 1, size=n_users)
    weights = (1.0 + rng.permutation(n_items)) ** -skew
    leaf = np.arange(n_items) * leaves // n_items
    users, items = draw_sessions(lengths, leaf, branching, depth, strength, weights, seed)
    of_leaf = leaf_paths(branching, depth)
    paths = tuple(of_leaf[k] for k in leaf.tolist())
    names = tuple(map(str, range(n_items)))
    return Interactions(
        name="synthetic",
        events=readonly(items),
        start=readonly(starts(users, n_users)),
        users=tuple(map(str, range(n_users))),
        items=names,
        titles=tuple(f"{path[-1]}_{name}" for path, name in zip(paths, names, strict=True)),
        attributes=paths,
        paths=paths,
    )


def movielens_100k(min_count: int = 5) -> Interactions:
    """MovieLens-100k with titles, years and genres: 943 users, 1,349 items, 99,287 ratings.

    Args:
        min_count: k of the k-core; 1 keeps all 1,682 items and 100,000 ratings.

    Raises:
        DataError: the files are not here and cannot be downloaded.
    """
    data = read_inter(registry.fetch("ml-100k"))
    items = registry.fetch("ml-100k-items")
    data = data.with_items(items, title=("movie_title", "release_year"), between=" ")
    return replace(data.k_core(min_count, min_count), name="ml-100k")


def movielens_1m() -> Interactions:
    """MovieLens-1M, the file of SASRec and BERT4Rec: 6,040 users, 3,416 items, 999,611 ratings (a 5-core).

    Titles and genres are added where their file is present (`workbench data list`).

    Raises:
        DataError: the file is not here and cannot be downloaded.
    """
    data = replace(read_sequences(registry.fetch("ml-1m")), name="ml-1m")
    items = registry.local("ml-1m-items")
    return data if items is None else data.with_items(items, item="sas_item_id")


def amazon_beauty(source: str = "s3rec") -> Interactions:
    """Amazon Beauty reviews of 2014.

    Args:
        source: "s3rec" is the 5-core of S3-Rec and TIGER, 22,363 users, 12,101 items, 198,502 interactions,
            with categories and brands, by number only; "bert4rec" is BERT4Rec's file, 40,226 users, 54,542
            items, 353,962 interactions, without.

    Raises:
        DataError: the files are not here and cannot be downloaded.
        ParameterError: another source.
    """
    if source == "bert4rec":
        return replace(
            read_sequences(registry.fetch("amazon-beauty-bert4rec")), name="amazon-beauty-bert4rec"
        )
    if source != "s3rec":
        raise ParameterError(f"source must be 's3rec' or 'bert4rec', not {source!r}")
    data = read_sequences(registry.fetch("amazon-beauty"))
    cells = json.loads(registry.fetch("amazon-beauty-attributes").read_text(encoding="utf-8"))
    return replace(data, name="amazon-beauty", **_brands_and_categories([cells[i] for i in data.items]))


def _brands_and_categories(cells: list[list[int]]) -> dict[str, tuple[Names, ...]]:
    """Attributes and category paths from S3-Rec's lists, which are [brand, if common] + path of categories.

    The file does not say which numbers are brands; a brand only ever stands first, and every category also
    stands after one somewhere.
    """
    categories = {a for cell in cells for a in cell[1:]}
    paths = tuple(tuple(dict.fromkeys(f"category {a}" for a in cell if a in categories)) for cell in cells)
    brands = [tuple(f"brand {a}" for a in cell[:1] if a not in categories) for cell in cells]
    return {"attributes": tuple(p + b for p, b in zip(paths, brands, strict=True)), "paths": paths}


def amazon_video_games() -> Interactions:
    """Amazon Video Games, SASRec's file: 31,013 users, 23,715 items, 287,107 interactions, no attributes.

    Raises:
        DataError: the file is not here and cannot be downloaded.
    """
    return replace(read_sequences(registry.fetch("amazon-video-games")), name="amazon-video-games")


LOADERS: dict[str, Callable[[], Interactions]] = {
    "synthetic": synthetic,
    "ml-100k": movielens_100k,
    "ml-1m": movielens_1m,
    "amazon-beauty": amazon_beauty,
    "amazon-video-games": amazon_video_games,
}


def load(name: str = "synthetic") -> Interactions:
    """A data set by name, as notebooks' parameters have it; the default needs no download.

    Raises:
        ParameterError: there is none of that name.
        DataError: its files are not here and cannot be downloaded.
    """
    if name not in LOADERS:
        raise ParameterError(
            f"no interactions {name!r}; there are {', '.join(LOADERS)}{suggest(name, LOADERS)}"
        )
    return LOADERS[name]()
