"""Tables from a user's own files: delimited text, compressed or not, and Parquet, as plain text cells."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
from math import isfinite
from pathlib import Path

import numpy as np

from workbench.errors import DataError, ParameterError, suggest

COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
ATOMIC = (".inter", ".item", ".user")  # RecBole's formats: tabs, and a header of name:type

# What people call the columns of interactions and of items, the likelier first.
USER = ("user_id", "user", "userid", "uid", "reviewerid", "session_id", "customer_id")
ITEM = ("item_id", "item", "itemid", "iid", "movie_id", "movieid", "parent_asin", "asin", "product_id")
TIME = ("timestamp", "time", "unixreviewtime", "datetime", "date", "ts")
TITLE = ("title", "movie_title", "item_name", "name")
ATTRIBUTES = ("genres", "class", "categories", "category", "attributes", "tags")


def existing(path: str | Path) -> Path:
    """The path, its ~ expanded; a sentence when there is no such file."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    return path


def read_table(path: Path, header: bool, separator: str | None) -> tuple[list[str], list[list[str]]]:
    """Column names and rows; every cell as text without surrounding space, "" where empty."""
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in COMPRESSED]
    kind = suffixes[-1] if suffixes else ""
    if kind != ".parquet" and separator is None and kind not in SEPARATORS:
        known = ", ".join([*SEPARATORS, ".parquet"])
        raise ParameterError(
            f"{path.name}: expected one of {known}, or say which `separator` its columns have"
        )
    try:
        rows = _parquet_rows(path) if kind == ".parquet" else _text_rows(path, kind, separator)
    except Exception as e:  # each format has a dozen ways to say this
        raise DataError(f"{path} cannot be read as a table ({type(e).__name__}: {e})") from e
    if not rows:
        raise DataError(f"{path} cannot be read as a table: it is empty")
    named = header or kind == ".parquet"
    names, rows = (rows[0], rows[1:]) if named else ([str(i) for i in range(len(rows[0]))], rows)
    for row, cells in enumerate(rows):
        if len(cells) != len(names):
            raise DataError(f"{path}: data row {row} has {len(cells)} cells where {len(names)} are expected")
    return names, rows


def _text_rows(path: Path, kind: str, separator: str | None) -> list[list[str]]:
    # Tabs need no quotes, and glosses are full of lone ones.
    quoting = csv.QUOTE_MINIMAL if kind == ".csv" else csv.QUOTE_NONE
    opener = COMPRESSED.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8-sig", newline="") as f:
        if separator and len(separator) > 1:  # "::" of MovieLens, which csv refuses
            return [[cell.strip() for cell in line.split(separator)] for line in f if line.strip()]
        reader = csv.reader(f, delimiter=separator or SEPARATORS[kind], quoting=quoting, strict=True)
        return [[cell.strip() for cell in row] for row in reader if row]


def _parquet_rows(path: Path) -> list[list[str]]:
    import pandas as pd

    table = pd.read_parquet(path).reset_index(drop=True)
    cells = table.map(lambda v: "" if pd.isna(v) else str(v).strip())
    return [[str(c) for c in table.columns], *cells.values.tolist()]


def column_of(
    path: Path, names: list[str], rows: list[list[str]], what: str, column: str | int | None
) -> list[str]:
    """The cells of a column given by name or position; `what` says in errors what it was wanted for."""
    if isinstance(column, str) and names.count(column) > 1:
        raise DataError(
            f"{path} has {names.count(column)} columns called {column!r}; rename one, or give its position"
        )
    if isinstance(column, str) and column in names:
        return [row[names.index(column)] for row in rows]
    if isinstance(column, int) and not isinstance(column, bool) and 0 <= column < len(names):
        return [row[column] for row in rows]
    hint = suggest(column, names) if isinstance(column, str) else ""
    listed = ", ".join(f"{i}: {name}" if name != str(i) else name for i, name in enumerate(names))
    raise DataError(f"{path} has no column {column!r} for {what}; its columns are {listed}{hint}")


class Table:
    """A table file of interactions or items, whose columns are found by the names people use."""

    def __init__(self, path: str | Path, header: bool = True, separator: str | None = None):
        self.path = existing(path)
        atomic = any(s.lower() in ATOMIC for s in self.path.suffixes)
        self.names, self.rows = read_table(self.path, header, separator or ("\t" if atomic else None))
        if atomic:
            self.names = [name.split(":")[0] for name in self.names]

    def column(
        self, what: str, asked: str | int | None, usual: tuple[str, ...], needed: bool = True
    ) -> list[str]:
        """The cells of the column asked for, else of the first usual one; if not `needed`, maybe all empty."""
        if asked is None:
            lower = [name.lower() for name in self.names]
            found = next((u for u in usual if u in lower), None)
            if found is None and not needed:
                return [""] * len(self.rows)
            asked = usual[0] if found is None else self.names[lower.index(found)]
        return column_of(self.path, self.names, self.rows, what, asked)


def parse_times(cells: list[str], path: Path) -> np.ndarray:
    """Numbers, whole where they are whole; or ISO 8601 dates as nanoseconds."""
    text = np.array(cells)
    for kind in (np.int64, np.float64):
        try:
            times = text.astype(kind)
        except (ValueError, OverflowError):
            continue
        if np.isfinite(times).all():
            return times
    import pandas as pd

    dates = pd.to_datetime(pd.Series(cells), format="ISO8601", utc=True, errors="coerce")
    bad = np.flatnonzero(dates.isna()).tolist()
    if bad:
        row = next((i for i in bad if not _is_number(cells[i])), bad[0])
        raise DataError(f"{path}: data row {row}: the time must be a number or a date, not {cells[row]!r}")
    return dates.dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)


def _is_number(cell: str) -> bool:
    try:
        return isfinite(float(cell))
    except ValueError:
        return False
