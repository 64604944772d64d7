"""From what a user brings to checked arrays; every refusal names the row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from workbench.data import _graph as graph
from workbench.data._graph import Ints
from workbench.errors import DataError, suggest

Names = tuple[str, ...]


def checked_names(names: Sequence[str]) -> Names:
    """The declared names, all of them text, not empty and different."""
    names = tuple(names.tolist() if isinstance(names, np.ndarray) else names)
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise DataError(f"name {row} must be text, not {name!r} ({type(name).__name__})")
        if not name.strip():
            raise DataError(f"name {row} is empty")
        if (before := first.setdefault(name, row)) != row:
            raise DataError(f"name {row} repeats {name!r} of name {before}; identifiers must be unique")
    return names


def parse_pairs(pairs: Iterable, known: Names | None, rows: Sequence[int] | None) -> tuple[Ints, Names]:
    """Node numbers (E, 2), and all names: those declared, or else those found."""
    if isinstance(pairs, np.ndarray) and np.issubdtype(pairs.dtype, np.integer):
        return _parse_numbers(pairs.astype(np.int64), known)
    if isinstance(pairs, np.ndarray):
        pairs = pairs.tolist()
    listed = [tuple(p) if isinstance(p, list | tuple | np.ndarray) else p for p in pairs]
    rows = range(len(listed)) if rows is None else rows
    for row, pair in zip(rows, listed, strict=True):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise DataError(f"row {row} must be a (parent, child) pair, not {pair!r}")
        for v in pair:
            if isinstance(v, bool) or not isinstance(v, str | int | np.integer):
                raise DataError(
                    f"row {row}: a node is a name or a whole number, not {v!r} ({type(v).__name__})"
                )
        if len({isinstance(v, str) for v in (*listed[0], *pair)}) == 2:
            raise DataError(f"row {row} mixes names and numbers: {pair!r}")
    if listed and not isinstance(listed[0][0], str):
        return _parse_numbers(np.array(listed, dtype=np.int64), known)
    index = {} if known is None else {name: i for i, name in enumerate(known)}
    edges = np.empty((len(listed), 2), dtype=np.int64)
    for k, (row, pair) in enumerate(zip(rows, listed, strict=True)):
        for side, name in enumerate(pair):
            if not name.strip():
                raise DataError(f"row {row} has an empty {('parent', 'child')[side]} name")
            if known is not None and name not in index:
                raise DataError(
                    f"row {row}: {name!r} is not among the {len(known)} names{suggest(name, known)}"
                )
            edges[k, side] = index.setdefault(name, len(index))
    return edges, tuple(index)


def _parse_numbers(edges: Ints, known: Names | None) -> tuple[Ints, Names]:
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise DataError(f"pairs must have the shape (E, 2), not {edges.shape}")
    top = np.inf if known is None else len(known)
    bad = np.flatnonzero(((edges < 0) | (edges >= top)).any(axis=1))
    if len(bad):
        span = "from 0 up" if known is None else f"from 0 to {len(known) - 1}"
        raise DataError(f"row {bad[0]}: nodes are numbered {span}, not {tuple(edges[bad[0]].tolist())}")
    n = int(edges.max()) + 1 if len(edges) else 0
    return edges, tuple(map(str, range(n))) if known is None else known


def refuse_loops_and_repeats(edges: Ints, names: Names, rows: Sequence[int] | None) -> None:
    """Raise at the first edge from a node to itself, or the first that stands there twice."""
    rows = range(len(edges)) if rows is None else rows
    loops = np.flatnonzero(edges[:, 0] == edges[:, 1])
    if len(loops):
        raise DataError(f"row {rows[loops[0]]} makes {names[edges[loops[0], 0]]!r} its own parent")
    keys = edges[:, 0] * len(names) + edges[:, 1]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(edges)))
    if len(again):
        k, before = again[0], first[inverse[again[0]]]
        parent, child = (names[v] for v in edges[k])
        raise DataError(f"row {rows[k]} repeats the edge {parent!r} → {child!r} of row {rows[before]}")


def cycle_sentence(edges: Ints, names: Names, ordered: list[int], rows: Sequence[int] | None) -> str:
    """Which cycle, and the last row it needs."""
    cycle = graph.find_cycle(edges, len(names), ordered)
    steps = set(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    last = max(k for k, (parent, child) in enumerate(edges.tolist()) if (parent, child) in steps)
    shown = [names[v] for v in [*cycle, cycle[0]]]
    if len(shown) > 8:
        shown = [*shown[:4], "…", *shown[-3:]]
    row = last if rows is None else rows[last]
    return f"row {row} closes a cycle: {' → '.join(shown)}; a hierarchy must not have any"


def checked_texts(
    texts: Sequence[str] | Mapping[str, str] | None, what: str, names: Names, declared: bool, default: Names
) -> Names:
    """One text per node, in the order of `names`; those of `default` where there is none."""
    if texts is None:
        return default
    if isinstance(texts, Mapping):
        stray = set(texts) - set(names)
        if stray:
            first = next(t for t in texts if t in stray)
            raise DataError(f"{what} has {first!r}, which is not a node{suggest(first, names)}")
        texts = [texts.get(name, "") for name in names]
    elif not declared:
        raise DataError(
            f"{what} as a sequence needs `names`, to say which node each belongs to; or give a mapping"
        )
    if len(texts) != len(names):
        raise DataError(f"{what} has {len(texts)} entries for {len(names)} nodes")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{what}[{row}] must be text, not {text!r} ({type(text).__name__})")
    return tuple(text or other for text, other in zip(texts, default, strict=True))
