"""Walking down codes as people do it: with a mouse, in JupyterLab."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SOURCE = """
import warnings
from workbench import plots
from workbench.data import trees
from workbench.evaluation import common_ancestor, members
from workbench.manifolds import PoincareBall
from workbench.models import sarkar
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.widgets import CodeBrowser

warnings.simplefilter("ignore")  # few codes, so that cells have company
h = trees.balanced(3, 4)
x = sarkar(h, 2, 1.5)
quantizer = ResidualQuantizer(PoincareBall(), 2, 2, 6).fit(x)
codes, books = quantizer.encode(x).numpy(), [book.numpy() for book in quantizer.codebooks]
view = CodeBrowser(codes, h, lambda prefix: plots.cells(x.numpy(), codes, books, prefix=prefix, hover=h.labels))
view
"""
PLOT = "document.querySelector('.widget-hbox .js-plotly-plot')"
# Where on the page a cross is.
CROSS = f"""(code) => {{ const g = {PLOT}, box = g.getBoundingClientRect(), l = g._fullLayout;
  const t = g._fullData.findLast((t) => t.mode === "markers" && t.customdata);
  const i = [...t.customdata].indexOf(code);
  return [box.x + l.xaxis._offset + l.xaxis.c2p(t.x[i]), box.y + l.yaxis._offset + l.yaxis.c2p(t.y[i])] }}"""
# A place in a cell far from all marks, so that only the cell itself can be meant.
INSIDE = f"""(code) => {{ const g = {PLOT}, box = g.getBoundingClientRect(), l = g._fullLayout;
  const at = (t, i) => [l.xaxis.c2p(t.x[i]), l.yaxis.c2p(t.y[i])];
  const marks = g._fullData.filter((t) => t.mode === "markers").flatMap((t) => [...t.x].map((_, i) => at(t, i)));
  const cell = g._fullData.find((t) => t.hoveron === "fills" && t.customdata[0] === code);
  const edge = [...cell.x].map((_, i) => at(cell, i));
  const xs = edge.map((p) => p[0]), ys = edge.map((p) => p[1]);
  const [left, right] = [Math.min(...xs), Math.max(...xs)], [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  let best = [-1];
  for (let x = left; x < right; x += 4) for (let y = top; y < bottom; y += 4) {{
    let inside = false;
    edge.forEach(([a, b], i) => {{ const [c, d] = edge[(i + 1) % edge.length];
      if ((b > y) !== (d > y) && x < a + (y - b) / (d - b) * (c - a)) inside = !inside }});
    const far = Math.min(...[...marks, ...edge].map(([a, b]) => Math.hypot(a - x, b - y)));
    if (inside && far > best[0]) best = [far, box.x + l.xaxis._offset + x, box.y + l.yaxis._offset + y];
  }}
  return best.slice(1) }}"""


class Walk:
    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.settled(0)

    def settled(self, level):
        """Wait until the picture shows what is seen from `level` codes, of one or more members."""
        crosses = self.notebook.ask("view.clickable[-1].x.tolist()")
        self.page.wait_for_function(
            f"""(xs) => {{ const t = {PLOT}?._fullData?.findLast((t) => t.mode === "markers" && t.customdata);
            return t && t.x.length === xs.length && xs.every((x, i) => x === t.x[i]) }}""",
            arg=crosses,
            timeout=60_000,
        )
        assert self.notebook.ask("len(view._seen)") == level

    def click(self, x, y):
        self.page.mouse.move(x - 2, y)
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(150)  # plotly looks at the pointer twenty times a second
        self.page.mouse.click(x, y)

    def about(self):
        return self.page.locator(".widget-hbox .widget-html-content").inner_text()

    def shows(self, prefix):
        """Wait for the members of a prefix, and compare them and their ancestor with what Python says."""
        head = ", ".join(map(str, prefix)) + ":"
        self.notebook.until(lambda: self.about().startswith(head), f"{head} is shown")
        self.notebook.ask("0", f"here = members(codes, {prefix})")
        here, top = self.notebook.ask("[[h.labels[i] for i in here], h.labels[common_ancestor(h, here)]]")
        assert f"{len(here)} member" in self.about()
        assert len(here) == 1 or f"all below {top}\n" in self.about()
        assert self.about().splitlines()[-1] == ", ".join(here)
        return len(here)


@pytest.fixture(scope="module")
def notebook(open_notebook):
    return open_notebook("codes", SOURCE)


def test_clicks_walk_down_to_members_and_up_again(notebook, snapshot):
    snapshot.append(notebook.page)
    walk, trouble = Walk(notebook), []
    notebook.page.on("pageerror", lambda e: trouble.append(str(e)))
    assert walk.about().startswith(f"all codes: {notebook.ask('len(h)')} members")
    first, second, other = notebook.ask(
        "(lambda a: [a, *sorted({int(k) for k in codes[codes[:, 0] == a, 1]})[:2]])(int(codes[-1, 0]))"
    )
    walk.click(*notebook.page.evaluate(CROSS, first))
    assert walk.shows((first,)) > 1
    walk.settled(1)
    walk.click(*notebook.page.evaluate(INSIDE, second))
    walk.shows((first, second))
    walk.click(*notebook.page.evaluate(CROSS, other))
    walk.shows((first, other))
    notebook.page.locator(".widget-hbox button.widget-button").click()
    walk.shows((first,))
    notebook.page.locator(".widget-hbox select").select_option(index=1)
    walk.shows((first, second))
    picture, side = (
        notebook.page.locator(f".widget-hbox {s}").bounding_box() for s in (".js-plotly-plot", "select")
    )
    assert side["x"] >= picture["x"] + picture["width"] or side["y"] >= picture["y"] + picture["height"]
    assert trouble == []
