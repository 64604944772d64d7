"""A hierarchy: named nodes, parent → child edges without cycles, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.data import _graph as graph
from workbench.data._edges import (
    checked_names,
    checked_texts,
    cycle_sentence,
    parse_pairs,
    refuse_loops_and_repeats,
)
from workbench.data._graph import Ints, readonly
from workbench.errors import DataError, ParameterError, suggest

if TYPE_CHECKING:
    import networkx as nx

MAX_DISTANCES = 50_000_000  # entries of a distance table; 400 MB as float64


class Split(NamedTuple):
    """Closure pairs [ancestor, descendant] for link prediction; the three parts do not overlap."""

    train: Ints
    valid: Ints
    test: Ints


@dataclass(frozen=True, eq=False, repr=False)
class Hierarchy:
    """An immutable directed acyclic graph whose edges lead from the general to the special.

    Several roots, several parents and isolated nodes are all fine. Build one with `from_edges` or
    `from_networkx`, which check what they are given; nodes are numbered 0 … N−1 in the order of `names`.
    Methods that take a node accept its number or its name.

    Attributes:
        names: N unique identifiers, e.g. "dog.n.01".
        labels: N short display texts, e.g. "dog" (not necessarily unique).
        glosses: N descriptions, "" where there is none.
        edges: (E, 2) int64 [parent, child], read-only, sorted by child then parent.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    glosses: tuple[str, ...]
    edges: Ints
    _order: list[int] = field(repr=False)

    @classmethod
    def from_edges(
        cls,
        pairs: Iterable[Sequence[str | int]] | NDArray,
        names: Sequence[str] | None = None,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        glosses: Sequence[str] | Mapping[str, str] | None = None,
        rows: Sequence[int] | None = None,
    ) -> Hierarchy:
        """Build a hierarchy from (parent, child) pairs.

        Args:
            pairs: names, or integers. Integers index `names`; without `names` they are the nodes 0 … max,
                named "0", "1", ….
            names: all nodes, isolated ones included, in the order to number them. Without it the nodes are
                numbered in order of first appearance.
            labels, glosses: per node, as a sequence in the order of `names` or a mapping from name to text.
                A node without a label is labelled by its name.
            rows: row numbers to name in errors, where the pairs come out of a larger table.

        Raises:
            DataError: a cycle, a self-loop, a repeated edge or name, an unknown or empty name, or a row that
                is not a pair; says which row, counted from 0 unless `rows` says otherwise.
        """
        known = None if names is None else checked_names(names)
        edges, nodes = parse_pairs(pairs, known, rows)
        n = len(nodes)
        if n == 0:
            raise DataError("a hierarchy needs at least one node: no pairs and no names were given")
        refuse_loops_and_repeats(edges, nodes, rows)
        order = graph.topological_order(edges, n)
        if len(order) < n:
            raise DataError(cycle_sentence(edges, nodes, order, rows))
        declared = known is not None
        return cls(
            names=nodes,
            labels=checked_texts(labels, "labels", nodes, declared, default=nodes),
            glosses=checked_texts(glosses, "glosses", nodes, declared, default=("",) * n),
            edges=readonly(edges[np.lexsort((edges[:, 0], edges[:, 1]))]),
            _order=order,
        )

    @classmethod
    def from_networkx(cls, g: nx.DiGraph) -> Hierarchy:
        """From a networkx DiGraph with parent → child edges; node attributes `label` and `gloss` are kept.

        Raises:
            DataError: the graph is undirected or not acyclic, or two nodes print alike.
        """
        if not g.is_directed():
            raise DataError(
                "a hierarchy needs a directed graph (networkx.DiGraph, parent → child); this is undirected"
            )
        names = [str(v) for v in g]
        return cls.from_edges(
            [(str(a), str(b)) for a, b in g.edges()],
            names=names,
            labels=[str(g.nodes[v].get("label") or v) for v in g],
            glosses=[str(g.nodes[v].get("gloss") or "") for v in g],
        )

    def to_networkx(self) -> nx.DiGraph:
        """A networkx DiGraph, parent → child, nodes by name with attributes `label`, `gloss` and `depth`."""
        import networkx as nx

        g = nx.DiGraph()
        for name, label, gloss, depth in zip(
            self.names, self.labels, self.glosses, self.depth.tolist(), strict=True
        ):
            g.add_node(name, label=label, gloss=gloss, depth=depth)
        g.add_edges_from((self.names[a], self.names[b]) for a, b in self.edges.tolist())
        return g

    # -- identity ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __repr__(self) -> str:
        roots = len(self.roots)
        return (
            f"Hierarchy({len(self):,} nodes, {len(self.edges):,} edges, {roots:,} root{'s' * (roots != 1)})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hierarchy):
            return NotImplemented
        texts = (self.names, self.labels, self.glosses) == (other.names, other.labels, other.glosses)
        return texts and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def fingerprint(self) -> str:
        """Hex SHA-256 of names and edges: equal exactly when an embedding of one fits the other."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names:
            data = name.encode()
            digest.update(len(data).to_bytes(4, "little") + data)
        digest.update(self.edges.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def index(self, node: str | int) -> int:
        """The number of a node given by name (or by number, which is checked and returned).

        Raises:
            DataError: there is no such node; suggests the nearest name.
        """
        if isinstance(node, str):
            if node in self._index:
                return self._index[node]
            raise DataError(f"no node {node!r} in this hierarchy of {len(self):,}{suggest(node, self.names)}")
        if isinstance(node, int | np.integer) and not isinstance(node, bool) and 0 <= node < len(self):
            return int(node)
        raise DataError(f"a node is a name or a number from 0 to {len(self) - 1}, not {node!r}")

    # -- neighbours --------------------------------------------------------------------------------

    @cached_property
    def _up(self) -> tuple[Ints, Ints]:
        return graph.csr(self.edges[:, 1], self.edges[:, 0], len(self))

    @cached_property
    def _down(self) -> tuple[Ints, Ints]:
        return graph.csr(self.edges[:, 0], self.edges[:, 1], len(self))

    @cached_property
    def roots(self) -> Ints:
        """Nodes without parents, ascending."""
        return readonly(np.flatnonzero(np.diff(self._up[0]) == 0))

    @cached_property
    def leaves(self) -> Ints:
        """Nodes without children, ascending."""
        return readonly(np.flatnonzero(np.diff(self._down[0]) == 0))

    def parents(self, node: str | int) -> Ints:
        """Direct parents, ascending."""
        i, (start, values) = self.index(node), self._up
        return values[start[i] : start[i + 1]].copy()

    def children(self, node: str | int) -> Ints:
        """Direct children, ascending."""
        i, (start, values) = self.index(node), self._down
        return values[start[i] : start[i + 1]].copy()

    def ancestors(self, node: str | int) -> Ints:
        """Every node above, ascending, without the node itself."""
        return graph.reachable(*self._up, self.index(node))

    def descendants(self, node: str | int) -> Ints:
        """Every node below, ascending, without the node itself."""
        return graph.reachable(*self._down, self.index(node))

    @property
    def topological(self) -> Ints:
        """Node numbers with every parent before its children."""
        return np.array(self._order, dtype=np.int64)

    # -- what follows ------------------------------------------------------------------------------

    @cached_property
    def depth(self) -> NDArray[np.int32]:
        """(N,) number of edges on the shortest way down from a root."""
        return readonly(graph.shortest_depth(self.edges, len(self), self._order))

    def closure(self) -> Ints:
        """The transitive closure: (P, 2) int64 [ancestor, descendant], sorted by descendant then ancestor.

        No node is paired with itself. Computed once and kept; read-only.

        Raises:
            DataError: it would have more than 100 million pairs.
        """
        return self._closure

    @cached_property
    def _closure(self) -> Ints:
        return readonly(graph.transitive_closure(self.edges, len(self), self._order))

    def spanning_tree(self) -> Ints:
        """(N,) one parent per node on a shortest way to a root (of several the first), −1 at roots."""
        return self._tree

    @cached_property
    def _tree(self) -> Ints:
        parent, child = self.edges[:, 0], self.edges[:, 1]
        best = np.lexsort((parent, self.depth[parent], child))
        nodes, first = np.unique(child[best], return_index=True)
        tree = np.full(len(self), -1, dtype=np.int64)
        tree[nodes] = parent[best][first]
        return readonly(tree)

    def path_to_root(self, node: str | int) -> list[int]:
        """A shortest way up, from the node itself to a root, along `spanning_tree`."""
        path = [self.index(node)]
        while (up := int(self._tree[path[-1]])) >= 0:
            path.append(up)
        return path

    def induced(self, nodes: Iterable[str | int]) -> Hierarchy:
        """The hierarchy on these nodes and the edges between them, in the order of this one.

        Raises:
            DataError: an unknown node, or none at all.
        """
        keep = np.unique(np.array([self.index(v) for v in nodes], dtype=np.int64))
        if len(keep) == 0:
            raise DataError("a hierarchy needs at least one node: none was selected")
        new = np.full(len(self), -1, dtype=np.int64)
        new[keep] = np.arange(len(keep))
        edges = new[self.edges]
        edges = edges[(edges >= 0).all(axis=1)]
        kept = keep.tolist()
        return Hierarchy(
            names=tuple(self.names[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept),
            glosses=tuple(self.glosses[i] for i in kept),
            edges=readonly(edges),
            _order=new[self.topological[new[self.topological] >= 0]].tolist(),
        )

    def subtree(self, node: str | int) -> Hierarchy:
        """The hierarchy of a node and everything below it."""
        return self.induced([self.index(node), *self.descendants(node).tolist()])

    def graph_distances(self, sources: Sequence[str | int] | str | int | None = None) -> NDArray[np.float64]:
        """Number of edges between nodes, walking up or down freely; inf where there is no way.

        Args:
            sources: nodes to start from (default all).

        Returns:
            (S, N); (N,) when `sources` is a single node.

        Raises:
            DataError: the table would have more than 50 million entries.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import shortest_path

        n, single = len(self), isinstance(sources, str | int | np.integer)
        chosen = range(n) if sources is None else [sources] if single else sources
        index = [self.index(s) for s in chosen]
        if len(index) * n > MAX_DISTANCES:
            raise DataError(
                f"distances from {len(index):,} sources to {n:,} nodes are {len(index) * n:,} numbers, "
                f"more than {MAX_DISTANCES:,}: give at most {MAX_DISTANCES // n:,} sources, or take a subtree"
            )
        if not index:
            return np.empty((0, n))
        ones = np.ones(len(self.edges))
        matrix = coo_array((ones, (self.edges[:, 0], self.edges[:, 1])), shape=(n, n)).tocsr()
        table = shortest_path(matrix, method="D", directed=False, unweighted=True, indices=index)
        return table[0] if single else table

    # -- link prediction ---------------------------------------------------------------------------

    def split(
        self, valid: float = 0.05, test: float = 0.05, seed: int = 0, train: float | None = None
    ) -> Split:
        """Divide the closure for link prediction, as the entailment-cones paper does.

        Edges of the hierarchy are always in `train`; validation and test pairs are drawn from the rest of the
        closure, which a model can only get right by transitivity.

        Args:
            valid, test: shares of the non-edge closure pairs, in [0, 1].
            seed: same seed, same split.
            train: share of the non-edge pairs added to the edges (paper: 0, 0.1, 0.25, 0.5, 0.9); default all
                that valid and test leave over.

        Raises:
            ParameterError: a share outside [0, 1], or shares that add up to more than 1.

        Source: Ganea, Bécigneul, Hofmann, Hyperbolic Entailment Cones (ICML 2018), section 5.
        """
        shares = {"valid": valid, "test": test, **({} if train is None else {"train": train})}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ParameterError(f"{name} must be a share between 0 and 1, not {share}")
        if sum(shares.values()) > 1 + 1e-9:
            raise ParameterError(f"the shares {shares} add up to more than 1")
        closure = self.closure()
        basic = np.isin(self._keys(closure), self._keys(self.edges))
        rest = np.random.default_rng(seed).permutation(np.flatnonzero(~basic))
        n_valid, n_test = round(valid * len(rest)), round(test * len(rest))
        left = rest[n_valid + n_test :]
        extra = left if train is None else left[: round(train * len(rest))]
        parts = [
            np.concatenate([np.flatnonzero(basic), extra]),
            rest[:n_valid],
            rest[n_valid : n_valid + n_test],
        ]
        return Split(*(closure[np.sort(p)] for p in parts))

    def sample_negatives(self, pairs: Ints, k: int = 10, seed: int = 0) -> Ints:
        """For each pair, k wrong ones with the ancestor or the descendant (a coin each) replaced.

        Never a closure pair, never a node with itself; drawn with replacement.

        Args:
            pairs: (P, 2) [ancestor, descendant].

        Returns:
            (P, k, 2) int64.

        Raises:
            DataError: `pairs` has the wrong shape or an unknown number, or a pair has no wrong neighbour.
        """
        pairs = np.asarray(pairs)
        n = len(self)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
            raise DataError(
                f"pairs must be whole numbers of shape (P, 2), not {pairs.dtype} of shape {pairs.shape}"
            )
        if pairs.size and (pairs.min() < 0 or pairs.max() >= n):
            raise DataError(
                f"pairs must number nodes from 0 to {n - 1}; they run from {pairs.min()} to {pairs.max()}"
            )
        if k < 1:
            raise ParameterError(f"k must be at least 1, not {k}")
        rng = np.random.default_rng(seed)
        true = np.sort(self._keys(self.closure()))
        source = np.repeat(pairs.astype(np.int64), k, axis=0)
        out = source.copy()
        todo = np.arange(len(out))
        for _ in range(20):
            side = rng.integers(2, size=len(todo))
            out[todo] = source[todo]
            out[todo, side] = rng.integers(n, size=len(todo))
            todo = todo[self._is_true(out[todo], true)]
            if len(todo) == 0:
                return out.reshape(-1, k, 2)
        for (
            i
        ) in todo:  # pairs with hardly any wrong neighbour, such as (root, leaf): list them all and choose
            a, b = source[i]
            every = np.arange(n)
            options = np.concatenate(
                [np.column_stack([every, np.full(n, b)]), np.column_stack([np.full(n, a), every])]
            )
            options = options[~self._is_true(options, true)]
            if len(options) == 0:
                raise DataError(f"no wrong pair can be made from ({self.names[a]!r}, {self.names[b]!r})")
            out[i] = options[rng.integers(len(options))]
        return out.reshape(-1, k, 2)

    def _keys(self, pairs: Ints) -> Ints:
        return pairs[:, 0] * len(self) + pairs[:, 1]

    def _is_true(self, pairs: Ints, true: Ints) -> NDArray[np.bool_]:
        """Closure pair or self-pair, given the sorted closure keys."""
        if len(true) == 0:
            return pairs[:, 0] == pairs[:, 1]
        keys = self._keys(pairs)
        at = np.minimum(np.searchsorted(true, keys), len(true) - 1)
        return (true[at] == keys) | (pairs[:, 0] == pairs[:, 1])
