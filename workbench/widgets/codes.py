"""`CodeBrowser`: walk down the codes of a quantiser, and see at every step who is there."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
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


class CodeBrowser(ipywidgets.HBox):
    """A picture of cells to click in, beside it the members of the code one is at and what they have in common.

    A click on a code (or its entry in the list) moves to the view from that code, with the codes of the next level;
    "up" goes back. At the last level there is no further view: there a click only lists the members.

    Args:
        codes: (N, L) ints, row i naming node i of `h`.
        h: the hierarchy that the members are named by.
        draw: prefix of 0 to L − 1 codes → figure; a trace with uid "codes" whose customdata are codes can be clicked
            in, as that of `workbench.plots.cells`.
        share: a code is named by the lowest node above this share of its members.

    Attributes: `prefix`, the codes one is at; `picture`, a FigureWidget; `clickable`, its trace of codes; `choice`,
        `up`, `about`, ipywidgets.
    DataError for codes that do not fit the hierarchy.
    """

    def __init__(self, codes, h: Hierarchy, draw: Callable[[Prefix], go.Figure], *, share: float = 0.7):
        self._codes, self._h, self._draw = np.asarray(codes), h, draw
        self._names = prefix_ancestors(h, self._codes, share=share)
        self._share, self.prefix = share, ()
        self.picture = go.FigureWidget()
        self.choice = ipywidgets.Dropdown(description="code")
        self.up = ipywidgets.Button(description="up", icon="arrow-up")
        self.about = ipywidgets.HTML()
        self.choice.observe(self._chosen, "value")
        self.up.on_click(lambda _: self.go(self.prefix[:-1]))
        side = ipywidgets.VBox([self.choice, self.up, self.about], layout=dict(width="320px"))
        super().__init__([self.picture, side])
        self.go(())

    def go(self, prefix: Sequence[int]) -> None:
        """Move to a prefix that occurs; () is the whole. ParameterError for one that does not."""
        prefix = tuple(int(code) for code in prefix)
        if prefix and prefix not in self._names:
            raise ParameterError(f"prefix must be codes of some member, but came as {prefix}")
        self.prefix = prefix
        self.about.value = self._members()
        self.up.disabled = not prefix
        if len(prefix) < self._codes.shape[1]:
            self._show(self._draw(prefix))
        below = [name for name in self._names if len(name) == len(prefix) + 1 and name[:-1] == prefix]
        entries = [(f"{name[-1]} {self._label(name)}", name[-1]) for name in below]
        self.choice.options = [
            ("choose a code", None),
            *entries,
        ]  # selects the first, which `_chosen` ignores

    def _chosen(self, change) -> None:
        if change["new"] is not None:
            self.go((*self.prefix, change["new"]))

    def _show(self, figure: go.Figure) -> None:
        self.picture.data = ()
        self.picture.layout = figure.layout
        self.picture.add_traces(figure.data)
        # A FigureWidget gives its traces uids of its own, but keeps their order.
        self.clickable = next(
            t for t, given in zip(self.picture.data, figure.data, strict=True) if given.uid == "codes"
        )
        self.clickable.on_click(self._clicked)
        self._level = len(self.prefix)  # of the codes in the picture: at the last level it stays a view above

    def _clicked(self, trace, points, _state) -> None:
        if points.point_inds:
            name = (*self.prefix[: self._level], int(trace.customdata[points.point_inds[0]]))
            if name in self._names:
                self.go(name)

    def _label(self, name: Prefix) -> str:
        return self._h.labels[self._names[name]]

    def _members(self) -> str:
        here = members(self._codes, self.prefix)
        top = common_ancestor(self._h, here.tolist())
        lines = [f"<b>{', '.join(map(str, self.prefix)) or 'all codes'}</b>: {len(here):,} members"]
        if top is not None:
            lines.append(f"all below <b>{html.escape(self._h.labels[top])}</b>")
        if self.prefix:
            lines.append(f"{self._share:.0%} below <b>{html.escape(self._label(self.prefix))}</b>")
        shown = ", ".join(html.escape(self._h.labels[i]) for i in here[:LISTED])
        more = f" and {len(here) - LISTED:,} more" if len(here) > LISTED else ""
        return "<br>".join([*lines, f"<div style='line-height: 1.4; margin-top: 8px'>{shown}{more}</div>"])
