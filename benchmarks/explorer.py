"""Frames a second while a disk of WordNet's nouns is dragged: DiskView and plotly, in one browser.

Run with `python benchmarks/explorer.py [--points 5000 20000 82115] [--seconds 4]`. Chromium opens a page and the
mouse drags without pause; a frame counts when the picture has been painted anew, all of it moved by an isometry.
plotly's scatter (WebGL, points without edges) is moved inside the page, which is kinder to it than a FigureWidget,
whose points come by way of the kernel. jupyter-scatter has no isometries: nothing to compare. There are at most as
many frames as moves of the mouse. Without a graphics card WebGL is computed by the processor; the first line says so.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

CARD = """() => { const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return "no WebGL2"; const told = gl.getExtension("WEBGL_debug_renderer_info");
  return told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : "unknown" }"""


def disk_page(n: int, renderer: str, folder: Path) -> Path:
    """The offline page of the first n nouns of WordNet, parents before children, with their edges."""
    import numpy as np

    from workbench.data import wordnet
    from workbench.models.poincare_embedding import PoincareEmbedding
    from workbench.widgets import DiskView

    nouns, points = wordnet.nouns(), np.asarray(PoincareEmbedding.pretrained("wordnet-2d").points)
    kept = np.sort(np.argsort(np.asarray(nouns.depth), kind="stable")[:n])
    number = np.full(len(nouns), -1)
    number[kept] = np.arange(len(kept))
    edges = number[np.asarray(nouns.edges)]
    edges = edges[(edges >= 0).all(1)]
    parents = np.where(nouns.spanning_tree()[kept] >= 0, number[nouns.spanning_tree()[kept]], -1)
    labels = [nouns.labels[i] for i in kept]
    view = DiskView(
        points[kept], edges=edges, parents=parents, labels=labels, color=np.asarray(nouns.depth, float)[kept]
    )
    view.renderer = renderer
    return view.to_html(folder / f"{renderer}_{n}.html")


def drag(page, box: dict, seconds: float, frames: str) -> float:
    """Frames a second, by the page's own count, while the mouse holds on and wanders."""
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 10, y)
    before, begun, k = page.evaluate(frames), time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        k += 1
        page.mouse.move(x + box["width"] / 5 * math.sin(k / 15), y + box["width"] / 6 * math.sin(k / 11))
    rate = (page.evaluate(frames) - before) / (time.perf_counter() - begun)
    page.mouse.up()
    return rate


def of_disk(browser, path: Path, seconds: float) -> tuple[float, str]:
    page = browser.new_page(viewport={"width": 800, "height": 900})
    page.goto(path.as_uri())
    disk = "document.querySelector('.wb-disk').__disk"
    page.wait_for_function(
        f"() => document.querySelector('.wb-disk')?.__disk && {disk}.scene.rows.length", timeout=120_000
    )
    page.wait_for_timeout(2000)
    rate = drag(page, page.locator("canvas.over").bounding_box(), seconds, f"{disk}.stats.frames")
    painter = page.evaluate(f"{disk}.painter")
    page.close()
    return rate, painter


PLOTLY = """
<script>{script}</script><div id="view" style="width:640px;height:640px"></div><script>
const data = {data}, n = data.x.length, look = {look};
Plotly.newPlot("view", [{{...look.trace, x: data.x, y: data.y}}], look.layout, {{staticPlot: true}});
window.__frames = 0; let busy = false;
document.getElementById("view").addEventListener("mousemove", async (e) => {{
  if (busy) return; busy = true;
  const a = (e.offsetX - 320) / 640, b = (e.offsetY - 320) / 640, x = new Float64Array(n), y = new Float64Array(n);
  for (let i = 0; i < n; i++) {{ // (z - c) / (1 - conj(c) z)
    const u = data.x[i] - a, v = data.y[i] - b;
    const p = 1 - a * data.x[i] - b * data.y[i], q = b * data.x[i] - a * data.y[i], d = p * p + q * q;
    x[i] = (u * p + v * q) / d; y[i] = (v * p - u * q) / d; }}
  await Plotly.restyle("view", {{x: [x], y: [y]}}); window.__frames++; busy = false; }});
window.__ready = true;
</script>"""
AXIS = {"range": [-1, 1]}
LOOK = {
    "trace": {"type": "scattergl", "mode": "markers", "marker": {"size": 3}, "hoverinfo": "skip"},
    "layout": {"dragmode": False, "margin": dict.fromkeys("lrtb", 0), "xaxis": AXIS, "yaxis": AXIS},
}


def of_plotly(browser, n: int, folder: Path, seconds: float) -> float:
    """plotly's own scatter by WebGL, no edges, restyled in the page for every move."""
    import numpy as np
    from plotly.offline import get_plotlyjs

    from workbench.models.poincare_embedding import PoincareEmbedding

    points = np.asarray(PoincareEmbedding.pretrained("wordnet-2d").points)[:n]
    path = folder / f"plotly_{n}.html"
    data = json.dumps({"x": points[:, 0].tolist(), "y": points[:, 1].tolist()})
    path.write_text(
        "<!doctype html>" + PLOTLY.format(script=get_plotlyjs(), data=data, look=json.dumps(LOOK)),
        encoding="utf-8",
    )
    page = browser.new_page(viewport={"width": 800, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_function("() => window.__ready", timeout=120_000)
    page.wait_for_timeout(2000)
    rate = drag(page, page.locator("#view").bounding_box(), seconds, "window.__frames")
    page.close()
    return rate


def main(arguments: list[str] | None = None) -> list[dict]:
    from playwright.sync_api import sync_playwright

    from workbench.plots import find_browser

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, nargs="+", default=[5000, 20000, 82115])
    parser.add_argument("--seconds", type=float, default=4.0)
    asked, rows = parser.parse_args(arguments), []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
        browser = p.chromium.launch(executable_path=str(find_browser()), args=flags)
        page = browser.new_page()
        print("graphics:", page.evaluate(CARD))
        page.close()
        for n in asked.points:
            row = {"points": n}
            for renderer in ("auto", "webgl", "canvas"):
                rate, painter = of_disk(browser, disk_page(n, renderer, Path(folder)), asked.seconds)
                row[f"DiskView, {renderer}"] = rate
                row["auto is"] = painter if renderer == "auto" else row["auto is"]
            row["plotly, in the page, no edges"] = of_plotly(browser, n, Path(folder), asked.seconds)
            rows.append(row)
            print(
                ", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
                flush=True,
            )
        browser.close()
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
