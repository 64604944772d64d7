"""The class behind `workbench.data.interactions`: sequences, their split, and what is derived from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.data._graph import Ints, readonly
from workbench.data._tables import ATTRIBUTES, ITEM, TITLE, Table
from workbench.errors import DataError, ParameterError, suggest

Names = tuple[str, ...]


class Held(NamedTuple):
    """What is to be predicted: row k asks for `targets[k]`, given `histories[k]`.

    Attributes:
        users: (M,) int64.
        histories: M int64 arrays, everything the user took before the target, oldest first.
        targets: (M,) int64 items.
    """

    users: Ints
    histories: list[Ints]
    targets: Ints


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Users' sequences of items, oldest first, and what is known about the items.

    Items are numbered 0 … n_items−1 and users 0 … n_users−1; no number is set aside for padding. Numbers
    follow the names: by value where all names are whole numbers, else alphabetically. Repeated interactions
    of a user with an item are kept.

    The split is leave-one-out, as in SASRec: of each user the last item is the test target, the
    last but one the validation target, the rest is for training. The history of a test target contains the
    validation item. Users with fewer than three interactions are for training only. With `rolling` r
    (`with_rolling`) the last r items are test targets, each with all that came before it as history.

    Attributes:
        name: of the data set.
        events: (E,) int64, all sequences end to end, read-only.
        start: (n_users + 1,) int64; user u's sequence is `events[start[u]:start[u + 1]]`.
        users, items: their names.
        titles: one text an item; its name where there is none.
        attributes: genres, categories, brands … of each item; () where there are none.
        paths: one way from the general to the special category for each item, or None where the attributes
            are a set without order.
        rolling: number of test targets a user.
    """

    name: str
    events: Ints
    start: Ints
    users: Names
    items: Names
    titles: Names
    attributes: tuple[Names, ...]
    paths: tuple[Names, ...] | None = None
    rolling: int = 1

    @classmethod
    def from_events(
        cls, users: Iterable, items: Iterable, times: Iterable | None = None, name: str = "own data"
    ) -> Interactions:
        """From three columns of equal length, one row an interaction.

        Args:
            users, items: any values; they are told apart by their text.
            times: numbers or NumPy dates. Rows of one user with the same time stay in the order given, as all
                do without times. (On MovieLens, where many ratings share a second, another order of ties
                changes a quarter of the test targets: compare models on one file only.)

        Raises:
            DataError: nothing given, columns of different lengths, an empty user or item (None, NaN or ""),
                or a time that is not a finite number; names the row.
        """
        (of_user, user_names), (of_item, item_names) = _numbered(users, "user"), _numbered(items, "item")
        if len(of_user) != len(of_item):
            raise DataError(f"there are {len(of_user):,} users for {len(of_item):,} items, one each a row")
        if len(of_user) == 0:
            raise DataError(f"{name} has no interactions")
        keys = (of_user,) if times is None else (_checked_times(times, len(of_user)), of_user)
        order = np.lexsort(keys)  # stable
        return cls(
            name=name,
            events=readonly(of_item[order]),
            start=readonly(starts(of_user, len(user_names))),
            users=user_names,
            items=item_names,
            titles=item_names,
            attributes=((),) * len(item_names),
        )

    # -- size and identity -------------------------------------------------------------------------

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.events)

    def __repr__(self) -> str:
        return (
            f"Interactions({self.name}: {self.n_users:,} users, {self.n_items:,} items, "
            f"{len(self):,} interactions)"
        )

    def fingerprint(self) -> str:
        """Hex SHA-256 of the sequences and the item names: equal exactly when a trained model fits both."""
        digest = hashlib.sha256(self.start.astype("<i8").tobytes() + self.events.astype("<i8").tobytes())
        digest.update("\0".join(self.items).encode())
        return digest.hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        titles = {title: i for i, title in reversed(list(enumerate(self.titles)))}
        return titles | {name: i for i, name in enumerate(self.items)}

    def index(self, item: str | int) -> int:
        """The number of an item given by name, by title (the first of several), or by number.

        Raises:
            DataError: there is no such item; suggests the nearest.
        """
        if isinstance(item, str):
            if item in self._index:
                return self._index[item]
            raise DataError(f"no item {item!r} in {self!r}{suggest(item, self._index)}")
        if isinstance(item, int | np.integer) and not isinstance(item, bool) and 0 <= item < self.n_items:
            return int(item)
        raise DataError(f"an item is a name, a title or a number from 0 to {self.n_items - 1}, not {item!r}")

    # -- sequences and their split -----------------------------------------------------------------

    def sequence(self, user: int) -> Ints:
        """Everything user number `user` took, oldest first."""
        return self.events[self.start[user] : self.start[user + 1]]

    @cached_property
    def sequences(self) -> list[Ints]:
        """Every user's sequence, whole: a list of n_users int64 arrays."""
        return np.split(self.events, self.start[1:-1])

    @cached_property
    def _has_targets(self) -> Ints:
        return np.flatnonzero(np.diff(self.start) >= self.rolling + 2)

    @cached_property
    def train(self) -> list[Ints]:
        """Every user's training sequence: a list of n_users int64 arrays."""
        cut = np.zeros(self.n_users, dtype=np.int64)
        cut[self._has_targets] = self.rolling + 1
        return [s[: len(s) - k] for s, k in zip(self.sequences, cut.tolist(), strict=True)]

    @cached_property
    def valid(self) -> Held:
        """The item before the test targets, for each user who has them."""
        return self._held([self.rolling + 1])

    @cached_property
    def test(self) -> Held:
        """The last item (the last `rolling` items) of each user; sorted by user, then from old to new."""
        return self._held(range(self.rolling, 0, -1))

    def _held(self, back: Sequence[int]) -> Held:
        users = np.repeat(self._has_targets, len(back))
        ends = self.start[users + 1] - np.tile(np.array(back), len(self._has_targets))
        histories = [self.events[a:b] for a, b in zip(self.start[users].tolist(), ends.tolist(), strict=True)]
        return Held(users, histories, self.events[ends])

    def require_targets(self, every: bool = False) -> Interactions:
        """These data, if there is something to validate and to test with: at least one user has targets.

        Args:
            every: every user must have them.

        Raises:
            DataError: the split is empty (names the user with most interactions), or with `every` some users are
                too short for it (names the first of them).
        """
        sizes, needed = np.diff(self.start), self.rolling + 2
        few = len(self._has_targets) < self.n_users if every else len(self._has_targets) == 0
        if few:
            user = int((sizes < needed).argmax() if every else sizes.argmax())
            raise DataError(
                f"{self.name}: {self.n_users - len(self._has_targets):,} of {self.n_users:,} users have fewer "
                f"than the {needed} interactions that a split with {self.rolling} test target"
                f"{'s' if self.rolling > 1 else ''} needs; "
                f"{'the first' if every else 'the longest'}, user {self.users[user]!r}, has {int(sizes[user])}"
            )
        return self

    def with_rolling(self, targets: int) -> Interactions:
        """The same data with the last `targets` items of each user as test targets, for more power.

        Raises:
            ParameterError: targets < 1.
        """
        if targets < 1:
            raise ParameterError(f"a user has at least 1 test target, not {targets}")
        return replace(self, rolling=targets)

    @cached_property
    def counts(self) -> Ints:
        """(n_items,) how often each item occurs in the training sequences."""
        return readonly(np.bincount(np.concatenate(self.train), minlength=self.n_items))

    def popular(self, n: int = 10) -> tuple[Ints, Ints]:
        """The n most frequent items of the training sequences, and how often; ties by item number."""
        best = np.argsort(-self.counts, kind="stable")[:n]
        return best, self.counts[best]

    # -- other versions of the same data -----------------------------------------------------------

    def k_core(self, users: int = 5, items: int = 5) -> Interactions:
        """The largest part where every user has at least `users` interactions and every item `items`.

        Users and items below are removed until none is left below (as RecBole's filter). Those that stay keep
        their order and are numbered anew.

        Raises:
            DataError: nothing is left.
        """
        of_user, of_item = np.repeat(np.arange(self.n_users), np.diff(self.start)), self.events
        while True:
            enough = np.bincount(of_user, minlength=self.n_users)[of_user] >= users
            enough &= np.bincount(of_item, minlength=self.n_items)[of_item] >= items
            if enough.all():
                break
            of_user, of_item = of_user[enough], of_item[enough]
        if len(of_user) == 0:
            raise DataError(f"no part of {self!r} has {users} interactions a user and {items} an item")
        kept_users, new_user = np.unique(of_user, return_inverse=True)
        kept, new_item = np.unique(of_item, return_inverse=True)
        return replace(
            self,
            events=readonly(new_item),
            start=readonly(starts(new_user, len(kept_users))),
            users=_pick(self.users, kept_users),
            items=_pick(self.items, kept),
            titles=_pick(self.titles, kept),
            attributes=_pick(self.attributes, kept),
            paths=None if self.paths is None else _pick(self.paths, kept),
        )

    def with_items(
        self,
        path: str | Path,
        *,
        item: str | int | None = None,
        title: str | int | Sequence[str | int] | None = None,
        attributes: str | int | None = None,
        between: str = "|",
        ordered: bool = False,
        header: bool = True,
        separator: str | None = None,
    ) -> Interactions:
        """Add titles and attributes from a table with one item a row (.item, .tsv, .csv, .parquet).

        Items that the table lacks keep their name as title and get no attributes; further rows are ignored.

        Args:
            item, title, attributes: columns; without them the usual names are looked for. Several title
                columns are joined by spaces; no title and no attributes column is needed.
            between: what separates the attributes in their cell.
            ordered: whether the attributes lead from the general to the special, as a path of categories.

        Raises:
            DataError: missing file or column, an item twice, or no item of this data in the table.
        """
        table = Table(path, header, separator)
        titles = [title] if title is None or isinstance(title, str | int) else list(title)
        name_cells = table.column("items", item, ITEM)
        title_cells = [table.column("titles", t, TITLE, needed=t is not None) for t in titles]
        attribute_cells = table.column("attributes", attributes, ATTRIBUTES, needed=attributes is not None)
        row_of: dict[str, int] = {}
        for row, name in enumerate(name_cells):
            if row_of.setdefault(name, row) != row:
                raise DataError(
                    f"{table.path}: data row {row} describes {name!r} again, after row {row_of[name]}"
                )
        rows = [row_of.get(name, -1) for name in self.items]
        if max(rows) < 0:
            raise DataError(
                f"{table.path} describes none of the {self.n_items:,} items of {self.name}: its first is "
                f"{name_cells[0] if name_cells else None!r}, theirs is {self.items[0]!r}"
            )
        texts = [" ".join(cells[r] for cells in title_cells).strip() if r >= 0 else "" for r in rows]
        split = [attribute_cells[r].split(between) if r >= 0 else [] for r in rows]
        tags = tuple(tuple(dict.fromkeys(p.strip() for p in parts if p.strip())) for parts in split)
        named = tuple(text or name for text, name in zip(texts, self.items, strict=True))
        return replace(self, titles=named, attributes=tags, paths=tags if ordered else None)


def padded(sequences: Sequence[Ints], length: int, fill: int = -1) -> tuple[Ints, Ints]:
    """The last `length` items of each sequence as one table, filled up on the right.

    Returns:
        (n, length) int64, and (n,) int64 how many entries of each row are items.
    """
    table = np.full((len(sequences), length), fill, dtype=np.int64)
    sizes = np.array([min(len(s), length) for s in sequences], dtype=np.int64)
    for row, sequence, size in zip(table, sequences, sizes.tolist(), strict=True):
        row[:size] = sequence[len(sequence) - size :]
    return table, sizes


def _checked_times(times: Iterable, n: int) -> np.ndarray:
    times = np.asarray(times if isinstance(times, np.ndarray) else list(times))
    if len(times) != n or times.ndim != 1:
        raise DataError(f"there are {len(times):,} times for {n:,} interactions")
    date = np.issubdtype(times.dtype, np.datetime64)
    if not (date or np.issubdtype(times.dtype, np.number)):
        raise DataError(f"times must be numbers or dates, not {times.dtype}")
    bad = np.isnat(times) if date else ~np.isfinite(times)
    if bad.any():
        raise DataError(f"row {int(bad.argmax())}: the time is not a finite number")
    return times.astype(np.int64) if date else times


def _numbered(values: Iterable, what: str) -> tuple[Ints, Names]:
    """Each value's number, and the names in the order of their numbers."""
    import pandas as pd

    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    texts = np.array([str(v) for v in values], dtype=object)
    absent = (texts == "") | pd.isna(pd.Series(values, dtype=object)).to_numpy()
    if absent.any():
        raise DataError(f"row {int(absent.argmax())} has no {what}")
    codes, found = pd.factorize(texts)
    whole = all(v.isascii() and v.isdigit() for v in found)
    order = sorted(range(len(found)), key=lambda i: (int(found[i]) if whole else 0, found[i]))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], tuple(found[i] for i in order)


def starts(of_user: Ints, n: int) -> Ints:
    return np.concatenate([[0], np.bincount(of_user, minlength=n).cumsum()]).astype(np.int64)


def _pick(values: tuple, kept: Ints) -> tuple:
    return tuple(values[i] for i in kept.tolist())
