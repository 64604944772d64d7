"""Figures beside one another, each keeping its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from workbench.errors import ParameterError
from workbench.plots.template import TEMPLATE, head_room, title_of


def side_by_side(
    figs: Sequence[go.Figure],
    titles: Sequence[str] | None = None,
    *,
    title: str | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """Several workbench figures in one row.

    Every panel keeps the size in pixels, axes, labels, legend and colour bar it had alone, so that placed
    labels stay free of overlap and discs stay equal.

    Args:
        figs: figures of this package (anything with explicit width, height and margins).
        titles: one a panel; default each figure's own title.

    Raises:
        ParameterError: no figures, or another number of titles.
    """
    figs = list(figs)
    if not figs:
        raise ParameterError("side_by_side needs at least one figure, got none")
    if titles is not None and len(titles) != len(figs):
        raise ParameterError(f"side_by_side has {len(figs)} figures and {len(titles)} titles")
    titles = list(titles) if titles is not None else [f.layout.title.text for f in figs]
    head = head_room(title, subtitle)
    bands = [40 if t else 8 for t in titles]
    band = max(bands)
    inner = [_inner(f) for f in figs]
    tall = max(h + f.layout.margin.b for f, (_, h) in zip(figs, inner, strict=True))
    width, height = sum(f.layout.width for f in figs), head + band + tall
    out = go.Figure()
    out.update_layout(
        template=TEMPLATE, width=int(width), height=int(height), margin=dict(l=0, r=0, t=0, b=0, pad=0),
        dragmode=figs[0].layout.dragmode, hovermode="closest", meta={"panels": [f.layout.meta for f in figs]},
    )  # fmt: skip
    left, on_paper = 0.0, dict(xref="paper", yref="paper")
    for k, (fig, (wide, high)) in enumerate(zip(figs, inner, strict=True)):
        x0 = (left + fig.layout.margin.l) / width
        y1 = 1 - (head + band) / height
        _Panel(out, k, (x0, x0 + wide / width), (y1 - high / height, y1)).add(fig)
        if titles[k]:
            out.add_annotation(
                text=f"<b>{titles[k]}</b>", x=x0 + wide / width / 2, y=y1, yshift=8, **on_paper,
                xanchor="center", yanchor="bottom", font_size=17, showarrow=False,
            )  # fmt: skip
        left += fig.layout.width
    if title or subtitle:
        out.update_layout(title=title_of(title, subtitle))
    return out


def _inner(fig: go.Figure) -> tuple[float, float]:
    size, margin = fig.layout, fig.layout.margin
    return size.width - margin.l - margin.r, size.height - margin.t - margin.b


class _Panel:
    """Carries one figure into a rectangle (paper coordinates) of another."""

    def __init__(self, out: go.Figure, k: int, x: tuple[float, float], y: tuple[float, float]):
        self.out, self.k, self.x, self.y = out, k, x, y
        self.suffix = "" if k == 0 else str(k + 1)

    def paper(self, value: float, axis: str) -> float:
        low, high = self.x if axis == "x" else self.y
        return low + value * (high - low)

    def place(self, item: dict) -> dict:
        """A shape or annotation of the panel, its references renamed or mapped."""
        for axis in "xy":
            ref = item.get(f"{axis}ref", axis)
            if ref == "paper":
                for key in (axis, f"{axis}0", f"{axis}1"):
                    if key in item:
                        item[key] = self.paper(item[key], axis)
                item[f"{axis}ref"] = "paper"
            else:
                item[f"{axis}ref"] = axis + self.suffix
        return item

    def add(self, fig: go.Figure) -> None:
        cartesian = False
        for trace in fig.data:
            copy = trace.to_plotly_json()
            copy["uid"] = f"panel{self.k}-{copy.get('uid', trace.type)}"
            if trace.type == "table":
                copy["domain"] = dict(x=self.x, y=self.y)
            else:
                cartesian = True
                copy |= dict(xaxis=f"x{self.suffix}", yaxis=f"y{self.suffix}")
                if trace.type != "heatmap":
                    copy["legend"] = f"legend{self.suffix}"
                for owner in (copy, copy.get("marker", {})):
                    if "colorbar" in owner:
                        bar = dict(owner["colorbar"])
                        bar |= dict(
                            x=self.paper(bar.get("x", 1.02), "x"), y=self.paper(bar.get("y", 0.5), "y")
                        )
                        if "len" not in bar:
                            bar |= dict(len=self.y[1] - self.y[0], lenmode="fraction")
                        owner["colorbar"] = bar
            self.out.add_trace(copy)
        layout = fig.layout.to_plotly_json()
        if cartesian:
            for axis, other, span in (("x", "y", self.x), ("y", "x", self.y)):
                copy = dict(
                    layout.get(f"{axis}axis", {}), domain=span, anchor=other + self.suffix, automargin=False
                )
                if "scaleanchor" in copy:
                    copy["scaleanchor"] = other + self.suffix
                self.out.layout[f"{axis}axis{self.suffix}"] = copy
        legend = dict(layout.get("legend", {}))
        legend |= dict(x=self.paper(legend.get("x", 1.02), "x"), y=self.paper(legend.get("y", 1), "y"))
        self.out.layout[f"legend{self.suffix}"] = legend
        for shape in layout.get("shapes", ()):
            self.out.add_shape(self.place(dict(shape)))
        for note in layout.get("annotations", ()):
            self.out.add_annotation(self.place(dict(note)))
