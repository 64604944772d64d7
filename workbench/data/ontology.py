"""A hierarchy of your own: OBO ontologies, and edge lists in TSV, CSV or Parquet."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from workbench.data._tables import column_of, existing, read_table
from workbench.data.hierarchy import Hierarchy
from workbench.errors import DataError

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def read_obo(path: str | Path) -> Hierarchy:
    """The is-a hierarchy of an OBO file (.gz, .bz2, .xz too): ids as names, `name` as label, `def` as gloss.

    Obsolete terms are left out, with their relations. A parent that the file does not define (a term of
    another ontology) is kept, labelled by its id. Other relations than is_a are ignored.

    Raises:
        DataError: the file is missing, is not OBO, defines no term, or its is-a relation has a cycle.
    """
    import obonet

    path = existing(path)
    quiet = logging.getLogger()
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)  # obonet remarks on missing headers through the root logger
        graph = obonet.read_obo(str(path), ignore_obsolete=False)
    except Exception as e:  # obonet lets whatever its parser met escape
        raise DataError(f"{path} cannot be read as OBO ({type(e).__name__}: {e})") from e
    finally:
        quiet.setLevel(level)
    gone = {term for term, about in graph.nodes(data=True) if about.get("is_obsolete") == "true"}
    names = [term for term in graph if term not in gone]
    pairs = [(b, a) for a, b, kind in graph.edges(keys=True) if kind == "is_a" and not {a, b} & gone]
    linked = {v for pair in pairs for v in pair}
    names = [v for v in names if graph.nodes[v] or v in linked]  # not the far ends of ignored relations
    if not names:
        raise DataError(f"{path} defines no term that is not obsolete; is it an OBO file?")
    labels = [graph.nodes[v].get("name", v) for v in names]
    glosses = [_definition(graph.nodes[v].get("def", "")) for v in names]
    return _build(path, pairs, names, labels, glosses)


def read_edges(
    path: str | Path,
    parent: str | int = 0,
    child: str | int = 1,
    *,
    header: bool = True,
    label: str | int | None = None,
    gloss: str | int | None = None,
    several: str | None = None,
    separator: str | None = None,
    drop_self_loops: bool = False,
) -> Hierarchy:
    """A hierarchy from a table with one edge a row, or one node a row.

    >>> read_edges("edges.tsv", parent="broader", child="narrower")
    >>> read_edges("terms.csv.gz", parent="parents", child="id", label="name", several="|")

    Args:
        path: .tsv, .txt (tabs), .csv (commas) or .parquet; text may be compressed (.gz, .bz2, .xz).
        parent, child, label, gloss: columns, by name or by position from 0. `label` and `gloss` describe the
            child.
        header: whether the first row of a text file holds column names. Never guessed: without a header,
            columns go by position.
        several: set it when a row is a node and its parent cell lists any number of parents with this between
            them; an empty cell is then a root. Without it each row is one edge and an empty cell is an error.
        separator: of columns, where the extension does not say.
        drop_self_loops: leave out rows that make a node its own parent (FoodOn has four) instead of refusing.

    Raises:
        DataError: missing file or column (lists the columns there are), an empty name, a repeated edge, a
            self-loop, a cycle; names the data row, counted from 0 without the header.
    """
    path = existing(path)
    table = read_table(path, header, separator)
    parents, children = (column_of(path, *table, *c) for c in (("parent", parent), ("child", child)))
    pairs: list[tuple[str, str]] = []
    rows: list[int] = []
    for row, (above, below) in enumerate(zip(parents, children, strict=True)):
        cells = [above] if several is None else [p.strip() for p in above.split(several) if p.strip()]
        if not below or not all(cells):
            raise DataError(f"{path}: data row {row} has no {'child' if not below else 'parent'}")
        kept = [(p, below) for p in cells if not (drop_self_loops and p == below)]
        pairs.extend(kept)
        rows.extend([row] * len(kept))
    if several is None:
        names = list(dict.fromkeys(v for pair in zip(parents, children, strict=True) for v in pair))
    else:
        first = {v: row for row, v in reversed(list(enumerate(children)))}
        for row, v in enumerate(children):
            if first[v] != row:
                raise DataError(f"{path}: data row {row} describes {v!r} again, after row {first[v]}")
        names = list(dict.fromkeys([*children, *(p for p, _ in pairs)]))
    texts = []
    for what, column in (("label", label), ("gloss", gloss)):
        found = (
            {} if column is None else dict(zip(children, column_of(path, *table, what, column), strict=True))
        )
        texts.append([found.get(v, "") for v in names])
    return _build(path, pairs, names, *texts, rows=rows)


def _build(
    path: Path,
    pairs: list,
    names: list[str],
    labels: list[str],
    glosses: list[str],
    rows: list[int] | None = None,
) -> Hierarchy:
    try:
        return Hierarchy.from_edges(pairs, names, labels, glosses, rows)
    except DataError as e:
        raise DataError(f"{path}: {e}") from e


def _definition(text: str) -> str:
    """The quoted part of an OBO definition, `"A disease." [source]`, with its escapes undone."""
    found = QUOTED.match(text)
    return re.sub(r"\\(.)", r"\1", found[1] if found else text)
