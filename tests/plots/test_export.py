"""Files: equal bytes for equal numbers, offline pages, pictures, and no picture without harm."""

import asyncio
import json
import logging
import os
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import plotly.graph_objects as go
import pytest

from workbench import plots
from workbench.errors import ParameterError
from workbench.plots import export

needs_browser = pytest.mark.skipif(
    plots.find_browser() is None, reason="no Chrome or Chromium on this machine"
)

MAKE = """
import sys, numpy as np
from workbench import plots
rng = np.random.default_rng(7)
points = rng.uniform(-.6, .6, (300, 2))
edges = np.array([(i // 2, i) for i in range(1, 300)])
labels = [f"é{i}" for i in range(300)]
fig = plots.disk(points, edges, np.arange(300) % 7, labels, title="same", color_title="depth")
print(*plots.write(fig, sys.argv[1], formats=("json", "html")))
"""


@pytest.fixture
def renderer(monkeypatch):
    """A worker of the test's own, ended afterwards."""
    own = export._Renderer()
    monkeypatch.setattr(export, "_renderer", own)
    yield own
    if own.process is not None:
        own.process.stdin.close()
        own.process.wait(30)


def small() -> go.Figure:
    return plots.lines([1, 2, 3], {"a": [1.0, 2.0, 1.5]}, title="t")


def test_two_processes_with_different_hash_seeds_write_the_same_bytes(tmp_path):
    pages = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "fig"
        env = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, timeout=120, env=env)
        pages.append([(folder / f"figure.{form}").read_bytes() for form in ("json", "html")])
    assert pages[0] == pages[1]


def test_json_is_sorted_and_round_trips(tmp_path):
    (path,) = plots.write(small(), tmp_path / "fig", name="curve", formats=("json",))
    assert path == tmp_path / "fig" / "curve.json"
    spec = json.loads(path.read_text())
    assert list(spec) == sorted(spec) and list(spec["layout"]) == sorted(spec["layout"])
    again = go.Figure(spec)
    assert again.data[0].uid == "line-0" and list(again.data[0].y) == spec["data"][0]["y"] == [1.0, 2.0, 1.5]


def test_html_shares_one_script_beside_its_folder_and_fetches_nothing(tmp_path):
    for name in ("one", "two"):
        plots.write(small(), tmp_path / name, formats=("html",))
    assert (tmp_path / "plotly.min.js").stat().st_size > 1e6
    page = (tmp_path / "one" / "figure.html").read_text()
    assert re.findall(r"""(?:src|href)=["']([^"']*)""", page) == ["../plotly.min.js"]
    assert len(page) < 100_000
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["figure.html"] * 2 + [
        "plotly.min.js"
    ]


def test_compact_shrinks_long_arrays_only_where_the_picture_stays():
    long, near = np.linspace(0, 1, 1000), 1e9 + np.linspace(0, 1, 1000)
    fig = go.Figure([go.Scatter(x=long, y=near), go.Scatter(x=long[:9], marker_color=np.arange(9))])
    fig.add_scatter(x=np.arange(1000), uid="a b+c")
    small = plots.compact(fig)
    assert [t.x.dtype for t in small.data[::2]] == ["float32", "int16"]
    assert small.data[1].x == tuple(long[:9].tolist())
    assert small.data[0].y.dtype == "float64"  # float32 would be a staircase
    assert [t.uid for t in small.data] == ["trace-0", "trace-1", "a-b-c"]
    assert fig.data[0].x.dtype == "float64" and fig.data[0].uid is None  # the original is as it was


def test_a_figure_too_large_to_commit_is_written_and_said(tmp_path, caplog):
    fig = go.Figure(go.Scatter(x=np.random.default_rng(0).normal(size=300_000)))
    with caplog.at_level(logging.WARNING, "workbench.plots"):
        plots.write(fig, tmp_path, formats=("json",))
    assert "figure.json is 1.6 MB" in caplog.text


def test_unknown_formats_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ParameterError, match="got 'jpg'"):
        plots.write(small(), tmp_path / "fig", formats=("json", "jpg"))
    assert not (tmp_path / "fig").exists()


def test_without_a_browser_json_and_html_are_written_and_one_line_says_what_to_do(
    tmp_path, caplog, monkeypatch, renderer
):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with caplog.at_level(logging.WARNING, "workbench.plots"):
        for name in ("a", "b"):
            written = plots.write(small(), tmp_path / name)
            assert [p.name for p in written] == ["figure.json", "figure.html"]
    assert len(caplog.records) == 1
    assert "nowhere" in caplog.text and "apt-get install chromium" in caplog.text


def test_no_browser_on_the_path_is_none(monkeypatch, tmp_path):
    from choreographer.browsers.chromium import Chromium

    monkeypatch.delenv("BROWSER_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Chromium, "find_browser", lambda **_: None)
    assert plots.find_browser() is None


@pytest.mark.skipif(os.name == "nt", reason="a shell script plays the browser")
def test_a_browser_that_hangs_costs_its_timeout_and_leaves_no_process(
    tmp_path, caplog, monkeypatch, renderer
):
    fake = tmp_path / "browser"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BROWSER_PATH", str(fake))
    start = time.monotonic()
    with caplog.at_level(logging.WARNING, "workbench.plots"):
        written = plots.write(small(), tmp_path / "fig", timeout=8)
    assert [p.name for p in written] == ["figure.json", "figure.html"]
    assert time.monotonic() - start < 60
    assert "did not answer within 8 seconds" in caplog.text
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(pid, 0)
            time.sleep(0.1)


@needs_browser
@pytest.mark.browser
def test_pictures_also_inside_a_running_event_loop(tmp_path, renderer):
    async def inside():
        return plots.write(small(), tmp_path / "fig", formats=("png", "svg"), width=400, height=300, scale=2)

    with ThreadPoolExecutor(
        1
    ) as other:  # this thread's loop may be taken: browser tests leave theirs running
        png, svg = other.submit(asyncio.run, inside()).result()
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [800, 600]
    first = svg.read_bytes()
    process = renderer.process.pid
    plots.write(small(), tmp_path / "again", formats=("png", "svg"), width=400, height=300, scale=2)
    assert renderer.process.pid == process  # one warm browser
    assert (tmp_path / "again" / "figure.svg").read_bytes() == first
    assert (tmp_path / "again" / "figure.png").read_bytes() == data


@needs_browser
@pytest.mark.browser
def test_a_worker_that_died_is_replaced(tmp_path, renderer):
    assert plots.write(small(), tmp_path / "fig", formats=("svg",))
    renderer.process.kill()
    renderer.process.wait()
    assert plots.write(small(), tmp_path / "fig", formats=("svg",))


def test_svg_ids_are_made_stable():
    svg = b'<svg><defs id="defs-1f2e3d"/><g id="topdefs-1f2e3d"/><use href="#clip1f2e3dxy"/></svg>'
    assert b"1f2e3d" not in export.stable_svg(svg)
    assert export.stable_svg(b"<svg/>") == b"<svg/>"
