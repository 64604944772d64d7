"""Numbers over numbers and by category: what is drawn is what was given; what does not fit is refused."""

import numpy as np
import pytest
from plotly.colors import unlabel_rgb

from workbench import plots
from workbench.errors import ParameterError
from workbench.plots.curves import log_axis
from workbench.plots.tables import readable


def traces(fig) -> dict:
    return {t.uid: t for t in fig.data}


def test_lines_differ_in_colour_dash_and_symbol_and_carry_their_band():
    x = np.arange(5.0)
    fig = plots.lines(x, {"a": x, "b": 2 * x}, bands={"b": (x, 3 * x)}, references={"best": 4.0})
    a, b = traces(fig)["line-0"], traces(fig)["line-1"]
    assert a.line.color != b.line.color and a.line.dash != b.line.dash and a.marker.symbol != b.marker.symbol
    assert traces(fig)["band-1"].y.tolist() == [0, 3, 6, 9, 12, 4, 3, 2, 1, 0]
    assert fig.layout.shapes[0].y0 == 4 and fig.layout.annotations[0].text == "best"


def test_series_may_have_their_own_x():
    fig = plots.lines({"a": [1, 2], "b": [1, 2, 3]}, {"a": [0, 1], "b": [0, 1, 2]})
    assert [len(t.x) for t in fig.data] == [2, 3]


def test_a_reference_on_a_log_axis_stands_at_its_value():
    fig = plots.training_curve([1, 2], {"loss": [1.0, 0.1]}, log_y=True, references={"floor": 0.01})
    assert fig.layout.annotations[0].y == pytest.approx(-2) and fig.layout.shapes[0].y0 == 0.01
    assert fig.layout.yaxis.type == "log" and fig.data[0].mode == "lines"


@pytest.mark.parametrize("span", [(0.3, 0.7), (1e-3, 50), (1e-12, 1e8), (5, 5)])
def test_log_ticks_bracket_the_values_and_stay_few(span):
    axis = log_axis(np.array(span))
    assert axis["tickvals"][0] <= span[0] and 2 <= len(axis["tickvals"]) == len(axis["ticktext"]) <= 12


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: plots.lines([1], {}), "at least one series"),
        (lambda: plots.lines([1, 2], {"a": [1]}), "series 'a' must be 2 values"),
        (lambda: plots.lines([1], {"a": [1]}, bands={"b": ([1], [1])}), "band 'b' belongs to no series"),
        (lambda: plots.lines([1], {"a": [1]}, bands={"a": ([1, 2], [1])}), "band 'a' must be 1 values"),
        (lambda: plots.lines([0, 1], {"a": [1, 1]}, log_x=True), "positive"),
        (lambda: plots.lines([1], {"a": ["x"]}), "must be numbers"),
        (lambda: plots.training_curve([1], {"a": [-1]}, log_y=True), "no positive value"),
        (lambda: plots.curvature_sweep([0, 1], [1, 2]), "c = 0 is given as `flat`"),
        (lambda: plots.curvature_sweep([1, 2], [[1, 2, 3]]), r"\(dims, 2\)"),
        (lambda: plots.curvature_sweep([1, 2], [[1, 2]], dims=[2, 5]), "dims must name 1"),
        (lambda: plots.curvature_sweep([1, 2], [[1, 2]], better="best"), "'higher' or 'lower'"),
        (lambda: plots.heatmap([[1, 2]], ["a"], ["r"]), r"matrix must be \(1, 1\)"),
        (lambda: plots.heatmap([[1]], ["a"], ["r"], annotations=[["x", "y"]]), "annotations"),
        (lambda: plots.bars(["a"], [1, 2]), "values must be 1 values"),
        (lambda: plots.bars([], []), "at least one"),
        (lambda: plots.table([[1, 2]], ["a"]), "row 0 has 2 cells"),
        (lambda: plots.side_by_side([]), "at least one figure"),
    ],
)
def test_what_does_not_fit_is_refused(call, says):
    with pytest.raises(ParameterError, match=says):
        call()


def test_the_star_stands_on_the_best_curvature_whatever_the_order_given():
    c, v = [1.0, 0.1, 10.0], [[0.5, 0.9, 0.1], [0.2, 0.1, 0.3]]
    high = traces(plots.curvature_sweep(c, v, dims=[2, 5], flat=[0.4, 0.0], spread=np.full((2, 3), 0.01)))
    assert [high[f"dim-{k}-best"].x[0] for k in (0, 1)] == [0.1, 10.0]
    assert high["dim-0"].x.tolist() == [0.1, 1, 10] and high["dim-0"].y.tolist() == [0.9, 0.5, 0.1]
    assert high["dim-0-flat"].y[0] == 0.4 and high["dim-0-flat"].x[0] < 0.1
    low = traces(plots.curvature_sweep(c, v, better="lower"))
    assert [low[f"dim-{k}-best"].x[0] for k in (0, 1)] == [10.0, 0.1]


def test_heatmap_numbers_are_readable_on_their_cells_and_missing_cells_stay_empty():
    m = np.linspace(0, 1, 12).reshape(3, 4)
    m[1, 2] = np.nan
    fig = plots.heatmap(m, list("abcd"), [1, 2, 3])
    assert len(fig.layout.annotations) == 11 and fig.layout.yaxis.autorange == "reversed"
    for color in ("rgb(68, 1, 84)", "rgb(38, 131, 142)", "rgb(188, 223, 42)", "rgb(128, 128, 128)"):
        assert contrast(color, readable(color)) >= 4.5  # WCAG AA


def contrast(background: str, ink: str) -> float:
    def luminance(rgb):
        parts = [v / 255 for v in rgb]
        parts = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    a, b = sorted([luminance(unlabel_rgb(background)), 1.0 if ink == "#ffffff" else 0.0])
    return (b + 0.05) / (a + 0.05)


def test_a_diverging_heatmap_is_symmetric_about_its_centre():
    z = plots.heatmap([[-1.0, 3.0]], ["a", "b"], ["r"], diverging_at=0).data[0]
    assert (z.zmin, z.zmax) == (-3, 3)


def test_bars_write_their_numbers_beyond_the_error_bars():
    fig = plots.bars(["a", "b"], {"x": [1, 2], "y": [3, 4]}, errors={"x": [0.5, 0.5]})
    assert [n.text for n in fig.layout.annotations] == ["1", "2", "3", "4"]
    assert [n.y for n in fig.layout.annotations] == [1.5, 2.5, 3, 4]
    assert fig.layout.yaxis.range[1] > 4
    assert plots.bars(["a"], [-1.0]).layout.yaxis.range[0] < -1
    flat = plots.bars(["a", "b"], [1, 2], horizontal=True, highlight=["b"])
    assert flat.data[0].orientation == "h" and flat.data[0].marker.color[1] == plots.PALETTE[0]


def test_table_aligns_numbers_right_and_is_as_high_as_its_rows():
    fig = plots.table(
        [["Lorentz", 82115, 0.91234], ["flat", None, 0.5]], ["space", "n", "MAP"], bold_rows=[0]
    )
    cells = fig.data[0].cells
    assert cells.align == ("left", "right", "right")
    assert [list(column) for column in cells["values"]][1:] == [
        ["<b>82,115</b>", ""],
        ["<b>0.912</b>", "0.5"],
    ]
    assert (
        plots.table([["a"]] * 10, ["x"]).layout.height - plots.table([["a"]] * 5, ["x"]).layout.height == 160
    )


def test_side_by_side_keeps_the_pixels_of_every_panel():
    a = plots.disk([[0.1, 0.2], [0.3, 0.1]], color=[0, 1], labels=["p", "q"], color_title="depth", side=300)
    b = plots.lines([1, 2], {"x": [1, 2], "y": [2, 1]}, title="B")
    both = plots.side_by_side([a, b], title="Two")
    for k, fig in enumerate((a, b)):
        x, y = (
            both.layout[f"xaxis{k + 1 if k else ''}"].domain,
            both.layout[f"yaxis{k + 1 if k else ''}"].domain,
        )
        margin = fig.layout.margin
        wide, high = (x[1] - x[0]) * both.layout.width, (y[1] - y[0]) * both.layout.height
        assert wide == pytest.approx(fig.layout.width - margin.l - margin.r)
        assert high == pytest.approx(fig.layout.height - margin.t - margin.b)
    assert len({t.uid for t in both.data}) == len(both.data) == len(a.data) + len(b.data)
    assert both.layout.yaxis.scaleanchor == "x" and both.layout.shapes[0].xref == "x"
    assert [n.text for n in both.layout.annotations if n.xref == "x"] == ["p", "q"]
    assert "<b>B</b>" in [n.text for n in both.layout.annotations]


def test_every_trace_of_every_figure_has_a_uid_a_browser_accepts():
    import re

    figs = [
        plots.disk([[0.1, 0.2]] * 3, color=["a b", "<c>", "d+"]),
        plots.horocycles(),
        plots.tiling(4, 5, 2),
        plots.curvature_sweep([1, 2], [1, 2], flat=[0]),
        plots.bars(["a"], [1]),
        plots.table([["a"]], ["b"]),
        plots.lines([1], {"a+b": [1]}, bands={"a+b": ([0], [2])}),
    ]
    for fig in figs:
        uids = [t.uid for t in fig.data]
        assert len(set(uids)) == len(uids) and all(re.fullmatch(r"[A-Za-z][\w-]*", u) for u in uids)


def test_a_given_range_is_shown_with_ticks_of_its_own_and_a_legend_can_be_left_out():
    fig = plots.lines([1, 2], {"a": [1e-9, 1e9], "b": [1, 1]}, log_y=True, y_range=(1e-2, 1e2), legend=False)
    assert fig.layout.yaxis.range == (-2, 2)
    assert min(fig.layout.yaxis.tickvals) == 1e-2 and len(fig.layout.yaxis.tickvals) <= 6
    assert not any(trace.showlegend for trace in fig.data) and fig.layout.margin.r < 60
