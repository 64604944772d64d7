"""`RecommendationBrowser`: build a history, and see the next items move."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import ipywidgets
import numpy as np
import torch
from numpy.typing import NDArray

from workbench.data.interactions import Interactions
from workbench.errors import DataError, ParameterError
from workbench.evaluation.reactions import Move, moves, standings
from workbench.manifolds.base import Curved
from workbench.manifolds.planar import plane_of
from workbench.models.catalogue import Catalogue, Item
from workbench.widgets.colours import OTHER
from workbench.widgets.disk import DiskView

UP, DOWN, BAR = "#0072b2", "#d55e00", "#8c8c8c"
ROLES = ("other items", "in the history", "next", "you")
COLOURS = (OTHER, "#0072B2", "#D55E00", "#CC79A7")
TRAIL = 6  # newest items of the history that a line joins
SUGGESTED, KNOWN = 8, 5000  # matches offered as buttons; titles the search field completes by itself


@dataclass(frozen=True)
class Reading:
    """What a model says after a history: ranks (V,), from 1, 0 for what is in it; scores (V,), higher is better."""

    history: tuple[int, ...]
    ranks: NDArray[np.int64]
    scores: NDArray[np.float64]


class RecommendationBrowser(ipywidgets.HBox):
    """A history that can be changed, the next items beside it, and both on the disk.

    Begin with a user or with nothing, search titles, add, remove and move them. Each list says what the last change
    did: ▲ so many places up, ▼ down, and what fell out. Items of the history are never offered again. A click on
    "+" adds an item of a list, a click on the disk puts its title into the search field.

    Args:
        models: a recommender (or `Popularity`), or several by name, whose lists stand side by side; the first one has
            the disk. They are bound to the data's titles.
        data: interactions; a user's history is all but the last item, which is then marked ✓ where it is listed.
        history: titles, names or numbers at the start; by default that of the first user who has a test item.
        k: items listed. size: width of the disk in pixels.

    Attributes: `history`, item numbers, oldest first (assign to change it); `readings`, a `Reading` a model, and
        `before`, those of before the last change; `user`, `search`, `items`, `about`, the fields; `plane` and `disk`,
        a DiskView of all items and, last, the user's point: both None if the first model has no hyperbolic plane.
    DataError if a model knows another number of items, or an item of the history is unknown; ParameterError for no
    model or k < 1.
    """

    def __init__(
        self,
        models: Catalogue | Mapping[str, Catalogue],
        data: Interactions,
        history: Sequence[Item] | None = None,
        *,
        k: int = 10,
        size: int = 480,
    ):
        self._models = dict(models) if isinstance(models, Mapping) else {"": models}
        if not self._models or k < 1:
            raise ParameterError(
                f"at least one model and k ≥ 1 are needed, got {len(self._models)} and {k!r}"
            )
        for model in self._models.values():
            model.bind(data)
        self._data, self._k, self._busy = data, k, False
        self._history: list[int] = []
        self._truth, self._kept = -1, 1.0  # what the user took next, where known; neighbours kept by the disk
        self.readings: dict[str, Reading] = {}
        self.before: dict[str, Reading] = {}
        self.plane, self.disk = self._picture(size)
        super().__init__(self._furnish(), layout=dict(flex_flow="row wrap", align_items="flex-start"))
        if history is None and len(data.test.users):
            self.user.value = data.users[data.test.users[0]]
        else:
            self.history = () if history is None else history

    # -- what the models say -------------------------------------------------------------------------------
    def read(self, history: Sequence[Item]) -> dict[str, Reading]:
        """What each model says after a history; nothing for an empty one. DataError for an unknown item."""
        items = tuple(self._data.index(item) for item in history)
        if not items:
            return {}
        found = {name: standings(model, [np.array(items)]) for name, model in self._models.items()}
        return {name: Reading(items, ranks[0], scores[0]) for name, (ranks, scores) in found.items()}

    def moves(self, name: str | None = None) -> tuple[list[Move], list[Move]]:
        """What a model (by default the first) lists now, and what fell out of its list by the last change."""
        name = next(iter(self._models)) if name is None else name
        if name not in self.readings:
            return [], []
        earlier = self.before.get(name)
        return moves(earlier and earlier.ranks, self.readings[name].ranks, self._k)

    @property
    def history(self) -> list[int]:
        return list(self._history)

    @history.setter
    def history(self, items: Sequence[Item]) -> None:
        self._change([self._data.index(item) for item in items], "")

    def add(self, item: Item) -> None:
        """Put an item at the end of the history."""
        i = self._data.index(item)
        self._change([*self._history, i], f"added {self._shown(i)}")

    # -- the picture ---------------------------------------------------------------------------------------
    def _picture(self, size: int):
        model = next(iter(self._models.values()))
        manifold = getattr(model, "manifold", None)
        if not isinstance(manifold, Curved) or model.config.width < 2:
            return None, None
        with torch.no_grad():
            points = model.item_points()
        plane = plane_of(manifold, points).stretched(points)
        near = min(10, len(points) - 1)
        self._kept = plane.kept(points, near) if near else 1.0
        return plane, _ItemDisk.of_items(self._data, plane.ball(points), size)

    @torch.no_grad()
    def where(self) -> np.ndarray:
        """(2,) the user's point on the disk, after the history as it is; the origin before the first item."""
        if not self._history or self.plane is None:
            return np.zeros(2)
        model = next(iter(self._models.values()))
        items = torch.tensor([self._history[-model.max_len :]], device=model.items.held.device)
        was = model.training
        states = model.eval().states(items, torch.ones_like(items, dtype=torch.bool))
        model.train(was)
        return self.plane.ball(model.user_points(states)[0, -1:])[0]

    # -- furniture -----------------------------------------------------------------------------------------
    def _furnish(self) -> list:
        fill, data = dict(width="auto"), self._data
        popular = [data.titles[i] for i in data.popular(KNOWN)[0]]
        self.user = ipywidgets.Combobox(
            description="user", options=data.users[:KNOWN], continuous_update=False, layout=fill
        )
        self.search = ipywidgets.Combobox(
            description="add", placeholder="part of a title", options=list(dict.fromkeys(popular)),
            continuous_update=False, layout=fill,
        )  # fmt: skip
        self.matches = ipywidgets.HBox([], layout=dict(flex_flow="row wrap"))
        self.items = ipywidgets.Select(options=[], rows=7, description="history", layout=fill)
        self.about = ipywidgets.HTML()
        self.user.observe(self._picked, "value")
        self.search.observe(self._searched, "value")
        acts = {
            "drop last": self._drop_last, "remove": self._remove, "earlier": partial(self._shift, -1),
            "later": partial(self._shift, 1), "clear": self._clear,
        }  # fmt: skip
        self.buttons = {name: _button(name, act) for name, act in acts.items()}
        bar = ipywidgets.HBox(list(self.buttons.values()), layout=dict(flex_flow="row wrap"))
        self.lists = {name: _List(name, self._k, self.add) for name in self._models}
        columns = ipywidgets.HBox(list(self.lists.values()), layout=dict(flex_flow="row wrap"))
        room = dict(flex="1 1 240px", min_width="0", max_width=f"{420 * max(1, len(self._models))}px")
        fields = [self.user, self.search, self.matches, self.items, bar, self.about, columns]
        side = ipywidgets.VBox(fields, layout=room)
        if self.disk is None:
            return [side]
        self.disk.observe(self._clicked, "selected")
        frame = ipywidgets.Box([self.disk], layout=dict(flex="0 1 auto", min_width="0", max_width="100%"))
        return [frame, side]

    # -- what is done to it --------------------------------------------------------------------------------
    def _picked(self, change) -> None:
        name, data = change["new"].strip(), self._data
        if not name:
            return
        if name not in data.users:
            self.about.value = f"no user is called {html.escape(name)}"
            return
        number = data.users.index(name)
        row = np.flatnonzero(data.test.users == number)
        taken = data.test.histories[row[-1]] if len(row) else data.sequence(number)
        truth = int(data.test.targets[row[-1]]) if len(row) else -1
        self._change(taken.tolist(), f"user {html.escape(name)}", fresh=True, truth=truth)

    def _searched(self, change) -> None:
        text = change["new"].strip()
        if self._busy or not text:
            return
        try:
            found = [self._data.index(text)]
        except DataError:
            parts = text.lower().split()
            titles = enumerate(t.lower() for t in self._data.titles)
            found = [i for i, title in titles if all(p in title for p in parts)]
            found.sort(key=lambda i: -self._data.counts[i])
        if len(found) == 1:
            self._taken(found[0])
            return
        self.matches.children = [
            _button(self._data.titles[i], partial(self._taken, i)) for i in found[:SUGGESTED]
        ]
        self.about.value = (
            f"{len(found):,} titles have that" if found else f"no title has {html.escape(text)}"
        )

    def _taken(self, i: int) -> None:
        self.matches.children = []
        self._busy, self.search.value = True, ""
        self._busy = False
        self.add(i)

    def _clicked(self, change) -> None:
        if 0 <= change["new"] < self._data.n_items and not self._busy:
            self._busy, self.search.value = True, self._data.titles[change["new"]]
            self._busy = False
            self.matches.children = [_button(f"add {self.search.value}", partial(self._taken, change["new"]))]

    def _drop_last(self) -> None:
        if self._history:
            self._change(self._history[:-1], f"dropped {self._shown(self._history[-1])}")

    def _remove(self) -> None:
        at = self._at()
        if at is not None:
            self._change(
                self._history[:at] + self._history[at + 1 :], f"removed {self._shown(self._history[at])}"
            )

    def _shift(self, by: int) -> None:
        at = self._at()
        if at is None or not 0 <= at + by < len(self._history):
            return
        items = self.history
        items[at], items[at + by] = items[at + by], items[at]
        self._change(items, f"{self._shown(items[at + by])} came {'earlier' if by < 0 else 'later'}")
        self.items.index = len(items) - 1 - (at + by)

    def _clear(self) -> None:
        self._change([], "", fresh=True)

    def _at(self) -> int | None:
        """Place in the history of the row that is marked; the newest stands on top."""
        return None if self.items.index is None else len(self._history) - 1 - self.items.index

    def _change(self, items: list[int], what: str, fresh: bool = False, truth: int | None = None) -> None:
        """Take over a history; fresh: it has nothing to do with the one before."""
        if fresh or self._truth in items:
            self._truth = -1 if truth is None else truth
        self.before = {} if fresh else self.readings
        self.readings, self._history = self.read(items), list(items)
        rows = [f"{t + 1}  {self._data.titles[i]}" for t, i in enumerate(items)]
        self.items.options = rows[::-1]
        self.items.index = None
        for name, column in self.lists.items():
            listed, fell = self.moves(name)
            reading = self.readings.get(name)
            column.show(listed, fell, reading, self._data.titles, self._truth)
        self.about.value = self._told(what)
        if self.disk is not None:
            self._busy = True
            self.disk.place(self.where(), self._history, [m.item for m in self.moves()[0]])
            self._busy = False

    def _told(self, what: str) -> str:
        if not self._history:
            return "no history yet: pick a user, or search a title"
        said = [what] if what else []
        if self._truth >= 0:
            ranks = ", ".join(f"{name} {r.ranks[self._truth]}".strip() for name, r in self.readings.items())
            said.append(f"taken next in truth: {self._shown(self._truth)}, rank {ranks}")
        if self.plane is not None:
            d, model = self.plane.axes.shape[0], next(iter(self._models.values()))
            lost = (
                "the model as it is"
                if d == 2
                else f"a shadow of {d} dimensions, with {self._kept:.0%} of nearest neighbours kept"
            )
            wide = f", radii × {self.plane.stretch:.1f}" if self.plane.stretch > 1.05 else ""
            bias = "; popularity counts too, and is not drawn" if model.bias is not None else ""
            said.append(f"<span style='opacity: .7'>the disk is {lost}{wide}{bias}</span>")
        return f"<div style='line-height: 1.4'>{'<br>'.join(said)}</div>"

    def _shown(self, i: int) -> str:
        return f"<b>{html.escape(self._data.titles[i])}</b>"


class _List(ipywidgets.VBox):
    """The next items of one model: a button that adds, the title, its score as a bar, and how it moved."""

    def __init__(self, name: str, k: int, add):
        self._items: list[int] = []
        self.rows = [ipywidgets.HTML(layout=dict(flex="1 1 auto", min_width="0")) for _ in range(k)]
        self.buttons = [_button("+", partial(self._add, j, add), width="28px", padding="0") for j in range(k)]
        pairs = zip(self.buttons, self.rows, strict=True)
        boxes = [ipywidgets.HBox(pair, layout=dict(display="none", align_items="center")) for pair in pairs]
        self.foot = ipywidgets.HTML()
        head = [ipywidgets.HTML(f"<b>{html.escape(name)}</b>")] if name else []
        super().__init__([*head, *boxes, self.foot], layout=dict(flex="1 1 260px", min_width="0"))
        self._boxes = boxes

    def _add(self, j: int, add) -> None:
        if j < len(self._items):
            add(self._items[j])

    def show(
        self,
        listed: list[Move],
        fell: list[Move],
        reading: Reading | None,
        titles: Sequence[str],
        truth: int,
    ) -> None:
        self._items = [move.item for move in listed]
        scores = reading.scores[self._items] if reading else np.zeros(0)
        share = (
            0.15 + 0.85 * (scores - scores[-1:]) / max(float(np.ptp(scores)), 1e-12)
            if len(scores)
            else scores
        )
        for j, box in enumerate(self._boxes):
            box.layout.display = "flex" if j < len(listed) else "none"
            if j < len(listed):
                mark = " ✓" if listed[j].item == truth else ""
                self.rows[j].value = _row(listed[j], titles[listed[j].item] + mark, scores[j], share[j])
        gone = ", ".join(f"{html.escape(titles[m.item])} ({m.before} → {m.rank})" for m in fell)
        self.foot.value = f"<div style='line-height: 1.3; opacity: .8'>out: {gone}</div>" if gone else ""


class _ItemDisk(DiskView):
    """All items, and one point more for the user."""

    @classmethod
    def of_items(cls, data: Interactions, points: np.ndarray, size: int) -> _ItemDisk:
        about = [
            " · ".join([*tags, f"{n} times in training"])
            for tags, n in zip(data.attributes, data.counts, strict=True)
        ]
        view = cls(
            np.concatenate([points, np.zeros((1, 2))]),
            color=np.arange(len(points) + 1) % len(ROLES), categories=ROLES,
            labels=[*data.titles, "you"], names=[*data.items, " "], glosses=[*about, ""], size=size,
        )  # fmt: skip
        view._legend = {"title": "", "names": list(ROLES), "colours": list(COLOURS)}
        return view

    def place(self, you: np.ndarray, history: list[int], following: list[int]) -> None:
        """Show where a history has led: a line through its newest items to the user, and on to what comes next."""
        n = len(self._points) - 1
        trail = list(dict.fromkeys(reversed(history)))[:TRAIL]  # newest first, each once
        parents = np.full(n + 1, -1, "<i4")
        for below, above in zip([n, *trail], trail, strict=False):
            parents[below] = above
        parents[following] = n
        children = np.flatnonzero(parents >= 0)
        codes = np.zeros(n + 1, np.uint8)
        codes[history], codes[following], codes[n] = 1, 2, 3
        if not history:
            codes[n] = 0
        with self.hold_sync():  # one message: the browser reads the scene anew when the points come
            self._parents, self._color = parents.tobytes(), codes.tobytes()
            self._edges = np.stack([parents[children], children], 1).astype("<u4").tobytes()
            self.points = np.concatenate([self._points[:n], you[None]])
            self.selected = n if history else -1
        self.center = _towards(you).tolist()  # afterwards: a selection takes the view to its point


def _towards(point: np.ndarray) -> np.ndarray:
    """A little from the origin towards a point, or so far that it lies at distance 3.5: the items keep their place in
    the middle, and the user, who often stands far outside, can be seen."""
    radius = 2 * np.arctanh(np.linalg.norm(point))
    return point * (np.tanh(max(radius / 8, radius - 3.5) / 2) / np.linalg.norm(point) if radius else 0.0)


def _button(text: str, act, **layout) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, layout=dict(width="auto", flex="0 0 auto") | layout)
    button.on_click(lambda _: act())
    return button


def _row(move: Move, title: str, score: float, share: float) -> str:
    arrow = f"<span style='color: {UP if move.up > 0 else DOWN}'>{'▲' if move.up > 0 else '▼'} {abs(move.up)}</span>"
    bar = f"<div style='height: 3px; width: {100 * share:.0f}%; background: {BAR}'></div>"
    return (
        "<div style='line-height: 1.25'><div style='display: flex; gap: 6px'>"
        f"<span style='flex: 1 1 auto'>{move.rank}. {html.escape(title)}</span>"
        f"<span>{arrow if move.up else ''}</span><span>{score:.2f}</span></div>{bar}</div>"
    )
