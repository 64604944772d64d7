"""`CodeBrowser`: walk down the codes of a quantiser, and see at every step who is there."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.evaluation.codes import common_ancestor, members, prefix_ancestors

if TYPE_CHECKING:
    from workbench.data import Hierarchy

Prefix = tuple[int, ...]
LISTED = 120  # members named at most
NOTHING = -1  # chosen in the list


class CodeBrowser(ipywidgets.HBox):
    """A picture of cells to click in, beside it the members of the code one is at and what they have in common.

    A click on a code, its cell or one of its points (or its entry in the list) moves to the view from that code, with
    the codes of the next level; "up" goes back. At the last level there is no further view: there a click only lists
    the members.

    Args:
        codes: (N, L) ints, row i naming node i of `h`.
        h: the hierarchy that the members are named by.
        draw: prefix of 0 to L − 1 codes → figure, drawn once for each; traces whose customdata are codes can be
            clicked in (filled ones have one code), as those of `workbench.plots.cells`.
        share: a code is named by the lowest node above this share of its members.

    Attributes: `prefix`, the codes one is at; `picture`, a FigureWidget; `clickable`, its traces with codes, the
        crosses last; `choice`, `up`, `about`, ipywidgets.
    DataError for codes that do not fit the hierarchy.
    """

    def __init__(self, codes, h: Hierarchy, draw: Callable[[Prefix], go.Figure], *, share: float = 0.7):
        self._codes, self._h, self._draw = np.asarray(codes), h, cache(draw)
        self._names = prefix_ancestors(h, self._codes, share=share)
        self._occurring = sorted(
            {tuple(row[:k]) for row in self._codes.tolist() for k in range(1, len(row) + 1)}
        )
        self._share, self.prefix, self._seen = share, (), None
        self.picture = go.FigureWidget()
        self.choice = ipywidgets.Dropdown(layout=dict(width="auto"))
        self.up = ipywidgets.Button(description="up", icon="arrow-up", layout=dict(width="auto"))
        # A long list scrolls: it must not stretch the picture beside it.
        self.about = ipywidgets.HTML(layout=dict(max_height="640px", overflow="auto"))
        self.choice.observe(self._chosen, "value")
        self.up.on_click(lambda _: self.go(self.prefix[:-1]))
        # Beside the picture where there is room, else below it.
        room = dict(flex="1 1 220px", min_width="0", max_width="340px")
        side = ipywidgets.VBox([self.choice, self.up, self.about], layout=room)
        frame = ipywidgets.Box(
            [self.picture], layout=dict(flex="0 0 auto", max_width="100%", overflow="auto")
        )
        super().__init__([frame, side], layout=dict(flex_flow="row wrap", align_items="flex-start"))
        self.go(())

    def go(self, prefix: Sequence[int]) -> None:
        """Move to a prefix that occurs; () is the whole. ParameterError for one that does not."""
        prefix = tuple(int(code) for code in prefix)
        if prefix and prefix not in self._occurring:
            raise ParameterError(f"prefix must be codes of some member, but came as {prefix}")
        self.prefix = prefix
        self.about.value = self._members()
        self.up.disabled = not prefix
        below = [name for name in self._occurring if len(name) == len(prefix) + 1 and name[:-1] == prefix]
        entries = [(f"{name[-1]} {self._label(name)}".strip(), name[-1]) for name in below]
        self.choice.options = [("choose a code" if entries else "no further codes", NOTHING), *entries]
        self.choice.index = 0
        self.choice.disabled = not entries
        if len(prefix) < self._codes.shape[1] and prefix != self._seen:
            self._show(prefix)

    def _chosen(self, change) -> None:
        if change["new"] != NOTHING:
            self.go((*self.prefix, change["new"]))

    def _show(self, prefix: Prefix) -> None:
        # The same widget with other traces: every new FigureWidget would load five megabytes of script.
        figure = self._draw(prefix)
        self.picture.data = ()
        self.picture.layout = figure.layout
        self.picture.add_traces(figure.data)
        self.clickable = [trace for trace in self.picture.data if trace.customdata is not None]
        for trace in self.picture.data:
            trace.on_click(self._clicked)
        # From where the picture is seen: at the last level it stays that of the level above.
        self._seen, self._hit = prefix, None

    def _clicked(self, trace, points, _state) -> None:
        """All traces are told of a click, in turn; the move takes them away, and so it waits for the last."""
        if points.point_inds and trace.customdata is not None:
            at = 0 if trace.hoveron == "fills" else points.point_inds[0]  # a fill has no points to tell apart
            self._hit = (*self._seen, int(trace.customdata[at]))
        if trace is self.picture.data[-1]:
            name, self._hit = self._hit, None
            if name in self._occurring and name != self.prefix:
                self.go(name)

    def _label(self, name: Prefix) -> str:
        return self._h.labels[self._names[name]] if name in self._names else ""

    def _members(self) -> str:
        here, label = members(self._codes, self.prefix), self._label(self.prefix)
        count = "1 member" if len(here) == 1 else f"{len(here):,} members"
        lines = [f"<b>{', '.join(map(str, self.prefix)) or 'all codes'}</b>: {count}"]
        top = common_ancestor(self._h, here.tolist())
        common = "" if top is None else self._h.labels[top]
        if len(here) > 1 and common:
            lines.append(f"all below <b>{html.escape(common)}</b>")
        if len(here) > 1 and label not in ("", common):
            lines.append(f"{self._share:.0%} below <b>{html.escape(label)}</b>")
        shown = ", ".join(html.escape(self._h.labels[i]) for i in here[:LISTED])
        more = f" and {len(here) - LISTED:,} more" if len(here) > LISTED else ""
        return "<br>".join([*lines, f"<div style='line-height: 1.4; margin-top: 8px'>{shown}{more}</div>"])
