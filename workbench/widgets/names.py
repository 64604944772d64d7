"""`NameBrowser`: type a name, and see what a model believes to be above it and where it falls on the disk."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets
import numpy as np
import torch
from torch import Tensor

from workbench.data.tasks import entity_texts
from workbench.errors import DataError, ParameterError
from workbench.manifolds import PoincareBall
from workbench.manifolds.base import Curved
from workbench.models.him_losses import radius, unit
from workbench.widgets.disk import DiskView, _packed_text

if TYPE_CHECKING:
    from workbench.data import Hierarchy
    from workbench.models.him import HiM

BELIEVED, DOUBTED = "#0072b2", "#8c8c8c"
LONGEST = 200  # letters of a name that are repeated
RELATIONS = {
    "narrower": "is a kind of",
    "broader": "is more general than",
    "same": "is the same as",
    "unrelated": "is neither above nor below",
}


class Answer(NamedTuple):
    """A name that may be above; it is believed where the margin is positive; `true` is None where nobody knows."""

    name: str
    margin: float
    true: bool | None


@dataclass(frozen=True)
class Reading:
    """What a model says of a name.

    name: in lower case, "_" as a space. nodes: those of the hierarchy called so, none for a new name. pieces: what
    the encoder saw. point: (ambient,). answers: the best first. believed: how many names are believed to be above
    it, more than are listed as a rule. missed: true ancestors that are not believed.
    """

    name: str
    nodes: tuple[int, ...]
    pieces: tuple[str, ...]
    point: Tensor
    answers: tuple[Answer, ...]
    believed: int
    missed: tuple[str, ...]


class NameBrowser(ipywidgets.HBox):
    """A disk, and beside it what a model believes of the name that is typed.

    Any name will do, whether the hierarchy has it or not: the model reads its letters. Answers come with their
    margins, and with a mark where the hierarchy knows the truth. A second name is set beside the first. A click on
    a point of the disk types its name.

    Args:
        model: a calibrated `HiM`. It is told the names of the hierarchy (`model.index`) if it knows others.
        h: the hierarchy; the model sees its `entity_texts`, or `texts` (one a node).
        name: typed at the start; by default that of the last node.
        k: answers shown.
        color: of the points, as in `DiskView.of`; "depth" by default.
        size: width of the disk in pixels.

    Attributes: `name` and `other`, the text fields; `about`, what is said; `reading`, the same as a `Reading`;
        `disk`, a DiskView of all nodes and, last, the name that was typed: None unless the model is of dimension 2
        in a curved space.
    ParameterError for a model without calibration, DataError for texts that do not fit.
    """

    def __init__(
        self,
        model: HiM,
        h: Hierarchy,
        name: str = "",
        *,
        texts=None,
        k: int = 10,
        color="depth",
        size: int = 480,
    ):
        if model.calibration is None:
            raise ParameterError("the model has no threshold yet: fit it, or set model.calibration")
        self._model, self._h, self._k = model, h, k
        self._texts = entity_texts(h) if texts is None else tuple(texts)
        if len(self._texts) != len(h):
            raise DataError(f"texts must be one a node ({len(h):,}), but came as {len(self._texts):,}")
        self._nodes: dict[str, list[int]] = {}
        for i, text in enumerate(self._texts):
            self._nodes.setdefault(text, []).append(i)
        if model.indexed is None or set(model.indexed.names) != set(self._nodes):
            model.index(self._texts)
        self._row = {text: row for row, text in enumerate(model.indexed.names)}
        self.reading: Reading | None = None
        self.disk = self._disk(color, size) if _is_planar(model) else None
        super().__init__(self._furnish(), layout=dict(flex_flow="row wrap", align_items="flex-start"))
        self.name.value = name or self._texts[-1]

    # -- what the model says -------------------------------------------------------------------------------
    @torch.no_grad()
    def read(self, name: str) -> Reading:
        """What the model says of a name. DataError for one without words."""
        name = _plain(name)
        point = self._model.encode(name)
        nodes = tuple(self._nodes.get(name, ()))
        above = {self._texts[a] for v in nodes for a in self._h.ancestors(v).tolist()} - {name}
        points = self._model.indexed.points
        inner = radius(self._model.manifold, points) < radius(self._model.manifold, point)
        believed = ((self._model.subsumption(point, points) > 0) & inner).tolist()
        if name in self._row:
            believed[self._row[name]] = False
        answers = tuple(
            Answer(found, margin, found in above if nodes else None)
            for found, margin in self._model.hypernyms(name, self._k)
        )
        missed = sorted((t for t in above if not believed[self._row[t]]), key=self._row.get)
        pieces = tuple(self._model.tokenizer.pieces(name))
        return Reading(name, nodes, pieces, point, answers, sum(believed), tuple(missed))

    def relation(self, name: str, other: str) -> tuple[str, str | None]:
        """What the model takes `name` to be beside `other`, and what it is: None where nobody knows."""
        name, other = _plain(name), _plain(other)
        mine, theirs = self._nodes.get(name, ()), self._nodes.get(other, ())
        said = self._model.relation(name, other)
        if not mine or not theirs:
            return said, None
        if name == other:
            return said, "same"
        if any(b in self._h.ancestors(a) for a in mine for b in theirs):
            return said, "narrower"
        return said, "broader" if any(
            a in self._h.ancestors(b) for a in mine for b in theirs
        ) else "unrelated"

    # -- the picture ---------------------------------------------------------------------------------------
    def ball(self, points: Tensor) -> np.ndarray:
        """(n, 2) coordinates in the unit Poincaré ball of points of the model's space, whichever its chart."""
        space = self._model.manifold
        with torch.no_grad():
            v = unit(space) * space.to_tangent(points)
            return PoincareBall().from_tangent(v.double()).cpu().numpy()

    def _disk(self, color, size: int) -> _NameDisk:
        points = self._model.indexed.points[[self._row[text] for text in self._texts]]
        return _NameDisk.beside(self._h, self.ball(points), color, size)

    def _furnish(self) -> list:
        fill = dict(width="auto")
        self.name = ipywidgets.Text(description="name", continuous_update=False, layout=fill)
        self.other = ipywidgets.Text(
            description="beside", placeholder="a second name", continuous_update=False, layout=fill
        )
        self.about = ipywidgets.HTML()
        self.name.observe(lambda _: self._typed(), "value")
        self.other.observe(lambda _: self._say(), "value")
        # Beside the disk where there is room, else below it.
        room = dict(flex="1 1 230px", min_width="0", max_width="460px")
        side = ipywidgets.VBox([self.name, self.other, self.about], layout=room)
        if self.disk is None:
            return [side]
        self.disk.observe(self._clicked, "selected")
        frame = ipywidgets.Box([self.disk], layout=dict(flex="0 1 auto", min_width="0", max_width="100%"))
        return [frame, side]

    # -- what is done to it --------------------------------------------------------------------------------
    def _clicked(self, change) -> None:
        if 0 <= change["new"] < len(self._h):
            self.name.value = self._texts[change["new"]]

    def _typed(self) -> None:
        try:
            self.reading = self.read(self.name.value)
        except DataError:  # nothing there that could be read
            self.about.value = "type a name"
            return
        if self.disk is not None:
            nodes = [self._nodes[a.name][0] for a in self.reading.answers if a.margin > 0]
            self.disk.place(self.ball(self.reading.point[None])[0], self.reading, nodes)
        self._say()

    def _say(self) -> None:
        if self.reading is None:
            return
        parts = [
            _head(self.reading),
            self._beside(),
            _table(self.reading),
            _foot(self.reading, len(self._row)),
        ]
        self.about.value = "".join(
            f"<div style='margin-top: 8px; line-height: 1.4'>{p}</div>" for p in parts if p
        )

    def _beside(self) -> str:
        if not self.other.value.strip():
            return ""
        said, true = self.relation(self.reading.name, self.other.value)
        names = (f"<b>{_shown(n)}</b>" for n in (self.reading.name, _plain(self.other.value)))
        told = f"{next(names)} {RELATIONS[said]} {next(names)}"
        if true is None:
            return told
        return f"{told} ✓" if said == true else f"{told} ✗: it {RELATIONS[true]} it"


class _NameDisk(DiskView):
    """All nodes of a hierarchy, and one point more for the name that was typed."""

    @classmethod
    def beside(cls, h: Hierarchy, points: np.ndarray, color, size: int) -> _NameDisk:
        spot = np.zeros((1, 2))  # the origin, until a name is typed
        plain = DiskView.of(h, points, color=color)
        parents = np.append(h.spanning_tree(), -1)
        view = cls(np.concatenate([points, spot]), edges=h.edges, parents=parents, size=size)
        view._legend = plain._legend
        view._color = plain._color + b"\0"
        view._own = [[*texts, ""] for texts in (h.labels, h.names, h.glosses)]
        return view

    def place(self, point: np.ndarray, reading: Reading, above: list[int]) -> None:
        """Show a name: where it falls and, unless the hierarchy knows its way up, the surest name above it."""
        n = len(self._points) - 1
        labels, names, glosses = self._own
        labels[n], glosses[n] = reading.name[:LONGEST], "" if reading.nodes else "not in the hierarchy"
        parents = np.frombuffer(self._parents, "<i4").copy()
        parents[n] = above[0] if above else -1
        edges = np.frombuffer(self._edges, "<u4").reshape(-1, 2)
        edges = edges[edges[:, 1] != n]
        if above:
            edges = np.concatenate([edges, np.array([[above[0], n]], "<u4")])
        points = np.concatenate([self._points[:n], point[None]])
        with self.hold_sync():  # one message: the browser reads the scene anew when the points come
            self._edges, self._parents = edges.tobytes(), parents.tobytes()
            self._text = _packed_text(labels, names, glosses)
            self.points = points
            self.selected = reading.nodes[0] if reading.nodes else n
        self.center = _half_way(point).tolist()  # afterwards: a selection takes the view to its point


def _half_way(point: np.ndarray) -> np.ndarray:
    """Between the origin and a point: from there one sees both it and what lies further in."""
    return point / (1 + np.sqrt(1 - point @ point))


def _is_planar(model: HiM) -> bool:
    return model.dim == 2 and isinstance(model.manifold, Curved)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _shown(name: str) -> str:
    return html.escape(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…")


def _head(reading: Reading) -> str:
    count = len(reading.nodes)
    known = "in the hierarchy" if count == 1 else f"{count} entries of the hierarchy"
    pieces = html.escape(" ".join(reading.pieces)[:LONGEST])
    return f"<b>{_shown(reading.name)}</b>: {known if count else 'not in the hierarchy'}<br>read as {pieces}"


def _table(reading: Reading) -> str:
    if not reading.answers:
        return "nothing lies further in: it counts as the most general of all"
    widest = max(abs(answer.margin) for answer in reading.answers) or 1.0
    return (
        f"<table style='border-spacing: 6px 1px'>{''.join(_row(a, widest) for a in reading.answers)}</table>"
    )


def _row(answer: Answer, widest: float) -> str:
    mark = {True: "✓", False: "✗", None: ""}[answer.true]
    color = BELIEVED if answer.margin > 0 else DOUBTED
    bar = f"<div style='height: 10px; width: {70 * abs(answer.margin) / widest:.0f}px; background: {color}'></div>"
    name = f"<b>{_shown(answer.name)}</b>" if answer.true else _shown(answer.name)
    cells = (f"<td>{mark}</td><td>{name}</td><td>{bar}</td>", f"<td align='right'>{answer.margin:+.2f}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _foot(reading: Reading, size: int) -> str:
    told = f"{reading.believed:,} of {size:,} names are believed to be above it."
    if not reading.nodes:
        return told
    missed = ", ".join(_shown(name) for name in reading.missed)
    return f"{told} Missed of the true ones: {missed or 'none'}."
