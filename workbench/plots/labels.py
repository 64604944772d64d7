"""Words on a crowded picture: where labels go so that none covers another, and what a hover says."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.plots.template import text_width

_RINGS = (
    0.0,
    24.0,
    44.0,
    70.0,
)  # gap in pixels between marker and label; beyond the first a leader line is drawn


@dataclass(frozen=True)
class Label:
    """A placed label: its point, pixel offset of its centre (y upward), box, and if a line leads to it."""

    index: int
    dx: float
    dy: float
    box: tuple[float, float, float, float]
    leader: bool


def place_labels(
    pixels: np.ndarray,
    texts: Sequence[str],
    order: Sequence[int],
    *,
    font: float,
    marker: float,
    bounds: tuple[float, float, float, float],
    limit: int = 40,
    obstacles: Sequence[tuple[np.ndarray, float]] = (),
) -> list[Label]:
    """Greedy placement in order of importance; a label that finds no free place is dropped.

    Each label tries the eight places around its marker, then rings further out reached by a leader line. Of
    the free ones it takes the one that hides least.

    Args:
        pixels: (N, 2) positions of all points in pixels, y upward.
        texts: (N,) label of each point; empty ones are skipped.
        order: indices to try, most important first.
        font: font size in pixels.
        marker: marker diameter in pixels.
        bounds: left, bottom, right, top that every box must keep within.
        limit: stop after this many placed labels.
        obstacles: further (positions, weight) better not covered, e.g. lines; a point weighs 6.

    Returns:
        The placed labels, in the order given. No two boxes overlap, no box covers the point or leader of
        another label, and no two leaders cross.
    """
    crowd = _Crowd([(pixels, 6.0), *obstacles], bounds)
    middle = np.array([bounds[0] + bounds[2], bounds[1] + bounds[3]]) / 2
    boxes = np.empty((0, 4))
    lines = np.empty((0, 2))  # sampled points of leaders and labelled markers
    leaders = np.empty((0, 2, 2))
    placed: list[Label] = []
    for index in order:
        if len(placed) == limit:
            break
        if not texts[index]:
            continue
        at = pixels[index]
        wide, high = text_width(texts[index], font) + 4, 1.25 * font
        half = np.array([wide, high]) / 2
        centers, ring = _candidates(at - middle, wide, high, marker)
        centers = centers + at
        candidate = np.hstack([centers - half, centers + half])
        leads = at + (centers - at)[:, None, :] * np.linspace(0, 1, 9)[None, :, None]
        free = (candidate[:, :2] >= bounds[:2]).all(axis=1) & (candidate[:, 2:] <= bounds[2:]).all(axis=1)
        free &= ~(_overlaps(candidate, boxes).any(axis=1) | _inside(lines[None], candidate).any(axis=1))
        free &= ~((ring > 0) & _crossing(at, centers, leaders))
        free &= ~_inside(leads.reshape(1, -1, 2), boxes).reshape(len(boxes), len(leads), 9).any(axis=(0, 2))
        if not free.any():
            continue
        cost = np.where(free, 0.5 * ring + 2.0 * crowd.covered(candidate), np.inf)
        best = int(cost.argmin())
        boxes = np.vstack([boxes, candidate[best]])
        lines = np.vstack([lines, leads[best] if ring[best] else at])
        if ring[best]:
            leaders = np.concatenate([leaders, [[at, centers[best]]]])
        dx, dy = centers[best] - at
        placed.append(
            Label(int(index), float(dx), float(dy), tuple(candidate[best].tolist()), bool(ring[best]))
        )
    return placed


def _candidates(
    outward: np.ndarray, wide: float, high: float, marker: float
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (K, 2) of box centres around a marker, and the ring of each; outward directions come first."""
    heading = np.arctan2(outward[1], outward[0]) if np.hypot(*outward) > 30 else 0.0
    offsets, ring = [], []
    for i, gap in enumerate(_RINGS):
        around = 8 if i == 0 else 16
        turns = np.arange(around) * 2 * np.pi / around
        angles = turns[np.argsort(np.abs((turns - heading + np.pi) % (2 * np.pi) - np.pi), kind="stable")]
        reach = marker / 2 + 2 + gap
        direction = np.column_stack([np.cos(angles), np.sin(angles)])
        # Beside the circle of radius `reach`: move the centre by half a box on each axis, smoothly.
        slide = np.clip(direction * 1.6, -1, 1)
        offsets.append(direction * reach + slide * (wide / 2, high / 2))
        ring.append(np.full(around, i))
    return np.concatenate(offsets), np.concatenate(ring)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)) True where the boxes share area."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (low < high).all(axis=2)


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(len(boxes), P) True where point p lies in the box; points (1, P, 2)."""
    return ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(axis=2)


def _crossing(start: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """(K,) True where the segment from `start` to ends[k] crosses one of the segments `lines` (L, 2, 2)."""

    def side(a, b, c):
        (x, y), (u, v) = np.moveaxis(b - a, -1, 0), np.moveaxis(c - a, -1, 0)
        return np.sign(x * v - y * u)

    end, p, q = ends[:, None], lines[None, :, 0], lines[None, :, 1]
    apart = side(start, end, p) * side(start, end, q) < 0
    return (apart & (side(p, q, start) * side(p, q, end) < 0)).any(axis=1)


class _Crowd:
    """How much of a box is occupied, by a summed-area table over pixels."""

    def __init__(self, layers, bounds: tuple[float, float, float, float]):
        self.low = np.floor(bounds[:2]).astype(int)
        self.shape = np.ceil(bounds[2:]).astype(int) - self.low + 1
        grid = np.zeros(self.shape + 1)
        for pixels, weight in layers:
            cell = np.clip(np.floor(pixels).astype(int) - self.low, 0, self.shape - 1) + 1
            grid[cell[:, 0], cell[:, 1]] = np.maximum(grid[cell[:, 0], cell[:, 1]], weight)
        self.table = grid.cumsum(axis=0).cumsum(axis=1)

    def covered(self, boxes: np.ndarray) -> np.ndarray:
        """(B,) weight hidden per 100 square pixels, saturating at 1."""
        low = np.clip(np.floor(boxes[:, :2]).astype(int) - self.low, 0, self.shape)
        high = np.clip(np.ceil(boxes[:, 2:]).astype(int) - self.low, 0, self.shape)
        t = self.table
        count = (
            t[high[:, 0], high[:, 1]]
            - t[low[:, 0], high[:, 1]]
            - t[high[:, 0], low[:, 1]]
            + t[low[:, 0], low[:, 1]]
        )
        area = np.maximum((high - low).prod(axis=1), 1)
        return np.minimum(100 * count / area, 1.0)


def descendants(count: int, edges: np.ndarray) -> np.ndarray:
    """(N,) nodes below each node in the forest that keeps the first parent listed for each child."""
    parent = np.full(count, -1)
    children, first = np.unique(edges[:, 1], return_index=True)
    parent[children] = edges[first, 0]
    total = np.zeros(count, dtype=np.int64)
    waiting = np.bincount(parent[parent >= 0], minlength=count)
    leaves = np.flatnonzero(waiting == 0)
    while leaves.size:  # peel leaves; what a cycle holds is never peeled and keeps what it has
        leaves = leaves[parent[leaves] >= 0]
        up = parent[leaves]
        np.add.at(total, up, total[leaves] + 1)
        np.subtract.at(waiting, up, 1)
        leaves = np.unique(up)
        leaves = leaves[waiting[leaves] == 0]
    return total


def hover_texts(h, width: int = 60) -> list[str]:
    """What a pointer reads on each node of a hierarchy: label and name, wrapped gloss, path to the root.

    Args:
        h: a `Hierarchy` (its `names`, `labels`, `glosses` and `spanning_tree()` are read).
        width: characters a line.

    Returns:
        One HTML string a node (plotly's subset: `<b>`, `<i>`, `<br>`). Long paths keep both ends.
    """
    parent = np.asarray(h.spanning_tree()).tolist()
    safe = html.escape if any(c in text for text in (*h.labels, *h.names) for c in "&<>") else str
    labels = [safe(text) for text in h.labels]
    tops = _path_tops(parent, labels)
    texts = []
    for i, label in enumerate(labels):
        name = safe(h.names[i])
        lines = [f"<b>{label}</b>" if name == label else f"<b>{label}</b>  {name}"]
        if h.glosses[i]:
            lines += _wrap(html.escape(h.glosses[i]).split(" "), width, " ")
        if parent[i] >= 0:
            path, at = [], parent[i]
            while at >= 0 and len(path) < 6:
                path.append(labels[at])
                at = parent[at]
            if at >= 0:
                depth, top = tops[at]
                path += [*(["…"] if depth >= len(top) else []), *top]
            lines += [f"<i>{line}</i>" for line in _wrap(path, width, " ‹ ")]
        texts.append("<br>".join(lines))
    return texts


def _path_tops(parent: list[int], labels: list[str]) -> list[tuple[int, tuple[str, ...]]]:
    """For each node its depth in the forest and the (up to four) last labels of its path to the root."""
    tops: list = [None] * len(parent)
    for start in range(len(parent)):
        chain, at = [], start
        while at >= 0 and tops[at] is None:
            chain.append(at)
            at = parent[at]
        depth, top = tops[at] if at >= 0 else (-1, ())
        for node in reversed(chain):
            depth += 1
            top = (labels[node], *top) if depth < 4 else top
            tops[node] = (depth, top)
    return tops


def _wrap(words: list[str], width: int, glue: str) -> list[str]:
    """Greedy lines of at most `width` characters (a longer single word stays whole)."""
    lines, line = [], ""
    for word in words:
        if not line:
            line = word
        elif len(line) + len(glue) + len(word) <= width:
            line += glue + word
        else:
            lines.append(line)
            line = glue.lstrip() + word
    return [*lines, line]
