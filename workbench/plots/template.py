"""One look for every figure: palette, fonts, sizes, axes; and how wide a text will be."""

from __future__ import annotations

import plotly.graph_objects as go
import plotly.io as pio
from plotly.colors import sample_colorscale

# Okabe & Ito, "Color Universal Design" (2008), started at blue: the first colours are those that carry a line
# on white paper; yellow, which does not, comes last before black.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x")
INK, GREY, LIGHT, GRID = "#222222", "#6b6b6b", "#c9cdd2", "#e6e8eb"
CLEAR = "rgba(0,0,0,0)"
FONT = "Arial, 'Liberation Sans', Helvetica, 'DejaVu Sans', sans-serif"

# Viridis (van der Walt & Smith 2015) without its palest tenth, which white paper swallows.
SEQUENTIAL = [
    "#440154", "#482878", "#3e4a89", "#31698e", "#26838e", "#20a088", "#39b977", "#74cf54", "#bcdf2a",
]  # fmt: skip
DIVERGING = "RdBu"
COLORSCALE = [[i / (len(SEQUENTIAL) - 1), color] for i, color in enumerate(SEQUENTIAL)]
SPACER = "<br><span style='font-size:5px'> </span>"  # air between a colour bar's title and its top number

# Advance widths of Arial (and its metric twin Liberation Sans) in 1/1000 em, characters 32 to 126.
_ADVANCE = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722,
    278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278,
    469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333,
    500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
]  # fmt: skip


def text_width(text: str, size: float) -> float:
    """Width in pixels of one line of plain text at font size `size` pixels."""
    return size / 1000 * sum(_ADVANCE[ord(ch) - 32] if 32 <= ord(ch) < 127 else 600 for ch in text)


def shades(count: int) -> list[str]:
    """`count` colours along the sequential scale, dark to light."""
    return sample_colorscale(COLORSCALE, [i / max(count - 1, 1) for i in range(count)])


def _template() -> go.layout.Template:
    axis = dict(
        showgrid=True, gridcolor=GRID, gridwidth=1, zeroline=False,
        showline=True, linecolor=GREY, linewidth=1.2, mirror=False,
        ticks="outside", ticklen=5, tickcolor=GREY, tickfont_size=14,
        title=dict(font_size=16, standoff=10), automargin=True, exponentformat="power", minexponent=4,
    )  # fmt: skip
    layout = go.Layout(
        font=dict(family=FONT, size=15, color=INK),
        title=dict(
            font_size=20, subtitle_font=dict(size=14, color=GREY), x=0, xref="container",
            xanchor="left", y=1, yanchor="top", pad=dict(l=20, t=20),
        ),
        paper_bgcolor="white", plot_bgcolor="white",
        colorway=list(PALETTE),
        colorscale=dict(sequential=COLORSCALE, sequentialminus=COLORSCALE, diverging=DIVERGING),
        xaxis=axis, yaxis=axis,
        legend=dict(font_size=14, bgcolor="rgba(255,255,255,0.85)", tracegroupgap=2, itemwidth=46,
                    title_font_size=14, yanchor="top", y=1, xanchor="left", x=1.02),
        hoverlabel=dict(font=dict(family=FONT, size=13), align="left", bgcolor="white", bordercolor=GREY),
        hovermode="closest",
        bargap=0.25, bargroupgap=0.06,
        # Figures state what they fill; a plotly default would lay a grey disk over the points.
        shapedefaults=dict(fillcolor=CLEAR, line=dict(color=GREY, width=1.5)),
        annotationdefaults=dict(font_size=14, showarrow=False),
    )  # fmt: skip
    bar = dict(
        thickness=14, outlinewidth=0, ticklen=4, tickfont_size=13, title=dict(font_size=14, side="top")
    )
    data = dict(
        heatmap=[go.Heatmap(colorbar=bar, colorscale=COLORSCALE)],
        scatter=[go.Scatter(marker=dict(colorbar=bar), line=dict(width=2.5))],
        scattergl=[go.Scattergl(marker=dict(colorbar=bar))],
        bar=[go.Bar(marker=dict(line=dict(width=0)), error_x_color=INK, error_y_color=INK)],
    )
    return go.layout.Template(layout=layout, data=data)


TEMPLATE = _template()
pio.templates["workbench"] = TEMPLATE


def frame(
    fig: go.Figure,
    *,
    title: str | None,
    subtitle: str | None = None,
    width: int,
    height: int,
    left: int = 80,
    right: int = 30,
    bottom: int = 66,
) -> go.Figure:
    """Apply the template, title, size and fixed margins; without a title there is no room for one."""
    top = head_room(title, subtitle)
    fig.update_layout(
        template=TEMPLATE, width=width, height=height, margin=dict(l=left, r=right, t=top, b=bottom, pad=0)
    )
    if title or subtitle:
        fig.update_layout(title=title_of(title, subtitle))
    return fig


def head_room(title: str | None, subtitle: str | None) -> int:
    """Pixels above the plot."""
    return 24 + (38 if title else 0) + (26 if subtitle else 0)


def title_of(title: str | None, subtitle: str | None) -> dict:
    """The layout's title; a subtitle alone stands in its place."""
    if not title:
        return dict(text=subtitle, font=dict(size=14, color=GREY))
    return dict(text=title, subtitle_text=subtitle)


def legend_width(names, size: float = 14) -> int:
    """Pixels to leave on the right for a legend of these names."""
    return int(max((text_width(str(n), size) for n in names), default=0) + 70)
