"""Figures to files: JSON equal for equal numbers, offline HTML, and pictures where there is a browser."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import logging
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from workbench.errors import ParameterError

log = logging.getLogger("workbench.plots")

PICTURES = ("png", "svg", "pdf")
FORMATS = ("json", "html", *PICTURES)
COMMITTED = 1_000_000  # bytes above which a figure.json is a burden to the repository
INSTALL = "install one (apt-get install chromium, or plotly_get_chrome) or set BROWSER_PATH"


def write(
    fig: go.Figure,
    folder: str | Path,
    name: str = "figure",
    formats: Sequence[str] = ("json", "png", "html"),
    *,
    width: int | None = None,
    height: int | None = None,
    scale: float = 2,
    timeout: float = 120,
) -> list[Path]:
    """Write a figure as `folder/name.<format>` and return the paths that were written.

    JSON has sorted keys and no volatile field: equal numbers give equal bytes. HTML works offline with one
    shared `plotly.min.js` in the parent of `folder`. PNG, SVG and PDF need Chrome or Chromium; where there is
    none, or it does not answer in `timeout` seconds, a line is logged and the other files are written.

    Args:
        formats: of "json", "html", "png", "svg", "pdf".
        width, height: pixels; default the figure's own.
        scale: pixels of a PNG per pixel of the figure; less where the file would exceed 1 MB, but at least 1.
        timeout: seconds for one picture, the start of the browser included.

    Raises:
        ParameterError: an unknown format.
    """
    from workbench.files import atomic_write  # brings torch, which drawing does not need

    if unknown := [f for f in formats if f not in FORMATS]:
        raise ParameterError(f"formats must be of {', '.join(FORMATS)}, got {unknown[0]!r}")
    folder = Path(folder)
    fig = compact(fig)
    if width or height:
        fig.update_layout(**{k: v for k, v in (("width", width), ("height", height)) if v})
    text = to_json(fig)
    written = []

    def put(form: str, data: str | bytes) -> None:
        path = folder / f"{name}.{form}"
        with atomic_write(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
        written.append(path)

    if "json" in formats:
        put("json", text)
        if len(text) > COMMITTED:
            log.warning(
                "%s is %.1f MB, more than a repository should carry: draw fewer edges or hover texts",
                written[-1], len(text) / 1e6,
            )  # fmt: skip
    if "html" in formats:
        script = folder.parent / "plotly.min.js"
        source = get_plotlyjs().encode()
        if not script.is_file() or script.stat().st_size != len(source):
            with atomic_write(script, "wb") as f:
                f.write(source)
        page = fig.to_html(
            include_plotlyjs="../plotly.min.js", include_mathjax=False, full_html=True,
            div_id=f"figure-{hashlib.sha256(text.encode()).hexdigest()[:12]}",
            config=dict(displaylogo=False, scrollZoom=fig.layout.dragmode == "pan"),
        )  # fmt: skip
        put("html", page)
    pictures = [f for f in formats if f in PICTURES]
    if pictures and (browser := _usable_browser()):
        for form in pictures:
            try:
                put(form, _picture(json.loads(text), form, browser, scale, timeout))
            except RenderError as e:
                log.warning("no %s of %s: %s", form, folder / name, e)
                break
    return written


def to_json(fig: go.Figure) -> str:
    """The figure as JSON, sorted and indented, arrays as base64."""
    return json.dumps(fig.to_dict(), cls=PlotlyJSONEncoder, sort_keys=True, indent=1) + "\n"


def compact(fig: go.Figure, least: int = 256) -> go.Figure:
    """A copy for drawing: long float64 arrays as float32, long integers in fewest bytes, a uid a trace.

    Arrays that float32 would move by more than 1e-5 of their range stay float64. Those shorter than `least`
    become lists, which the JSON shows as numbers that a diff can compare.
    """

    def shrink(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: shrink(v) for k, v in value.items()}
        if isinstance(value, np.ndarray) and value.size < least:
            return value.tolist()
        if isinstance(value, np.ndarray):
            if value.dtype == np.float64:
                small = value.astype(np.float32)
                finite = value[np.isfinite(value)]
                span = np.ptp(finite) if finite.size else 0.0
                moved = np.abs(finite - finite.astype(np.float32)).max(initial=0.0)
                return small if moved <= 1e-5 * span else value
            if value.dtype.kind in "iu":
                for kind in (np.int8, np.uint8, np.int16, np.uint16, np.int32):
                    if np.iinfo(kind).min <= value.min() and value.max() <= np.iinfo(kind).max:
                        return value.astype(kind)
        return value

    # Trace by trace: a whole figure's dict comes with its arrays already encoded.
    data = [shrink(trace.to_plotly_json()) for trace in fig.data]
    for i, trace in enumerate(data):
        uid = str(trace.get("uid") or f"trace-{i}")
        trace["uid"] = re.sub(r"[^\w-]", "-", uid)  # plotly.js makes it a CSS class
    return go.Figure(dict(data=data, layout=fig.layout.to_plotly_json()))


def find_browser() -> Path | None:
    """The Chrome or Chromium that pictures are made with, or None.

    `$BROWSER_PATH` decides when it is set; else what is on the path, then where kaleido itself looks.
    """
    if chosen := os.environ.get("BROWSER_PATH"):
        found = shutil.which(chosen)
        return Path(found) if found else None
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"):
        if found := shutil.which(name):
            return Path(found)
    if importlib.util.find_spec("choreographer") is None:
        return None
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return Path(found) if found else None


class RenderError(RuntimeError):
    """The browser made no picture; `write` logs it."""


class _Renderer:
    """The worker of this process: started when first needed, restarted when it died, ends with its stdin."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.answers: queue.Queue = queue.Queue()
        self.timeouts = 0
        self.told = False

    def start(self) -> None:
        script = Path(__file__).with_name("_render_worker.py")
        # -P: the script's own folder holds modules whose names others might import.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self.answers = queue.Queue()
        threading.Thread(target=_pump, args=(self.process.stdout, self.answers), daemon=True).start()

    def ask(self, job: dict, timeout: float) -> dict:
        """One picture. A worker that has ended meanwhile (idle, crashed) is replaced once."""
        with self.lock:
            for attempt in (0, 1):
                fresh = self.process is None or self.process.poll() is not None
                if fresh:
                    self.start()
                try:
                    self.process.stdin.write(json.dumps(job | {"seconds": timeout}) + "\n")
                    self.process.stdin.flush()
                    answer = self.answers.get(timeout=timeout + 5)
                except (BrokenPipeError, OSError):
                    answer = None
                except queue.Empty:
                    answer = None
                    self.process.kill()
                if answer is not None:
                    self.timeouts = 0
                    return answer
                code = self.process.wait()
                self.process = None
                if code == 3 or code < 0:
                    self.timeouts += 1
                    raise RenderError(
                        f"the browser {job['browser']} did not answer within {timeout:g} seconds"
                    )
                if fresh or attempt:
                    raise RenderError(f"the export process ended with code {code}")
            raise AssertionError("unreachable")


def _pump(stream, answers: queue.Queue) -> None:
    for line in stream:
        answers.put(json.loads(line))
    answers.put(None)


_renderer = _Renderer()


def _usable_browser() -> Path | None:
    """The browser, unless pictures cannot be made here; says why once a process."""
    browser = find_browser()
    if importlib.util.find_spec("kaleido") is None:
        reason = "kaleido is not installed (pip install kaleido)"
    elif browser is None:
        chosen = os.environ.get("BROWSER_PATH")
        reason = (
            f"BROWSER_PATH={chosen!r} is no executable" if chosen else "no Chrome or Chromium"
        ) + f"; {INSTALL}"
    elif _renderer.timeouts >= 2:
        reason = f"{browser} did not answer twice, giving up on it in this process"
    else:
        return browser
    if not _renderer.told:
        log.warning("pictures are left out, JSON and HTML are written: %s", reason)
        _renderer.told = True
    return None


def _picture(spec: dict, form: str, browser: Path, scale: float, timeout: float) -> bytes:
    """One picture; a PNG too large to commit is drawn again at a lower scale."""
    data = _render(spec, form, browser, scale, timeout)
    while form == "png" and len(data) > COMMITTED and scale > 1:
        scale = max(1.0, min(scale - 0.1, 0.97 * scale * (COMMITTED / len(data)) ** 0.5))
        data = _render(spec, form, browser, scale, timeout)
    return data


def _render(spec: dict, form: str, browser: Path, scale: float, timeout: float) -> bytes:
    layout = spec["layout"]
    size = dict(width=layout.get("width", 900), height=layout.get("height", 560))
    options = dict(format=form, scale=scale, **size)
    answer = _renderer.ask(dict(figure=spec, options=options, browser=str(browser)), timeout)
    if "error" in answer:
        raise RenderError(answer["error"].splitlines()[0])
    data = base64.b64decode(answer["data"])
    return stable_svg(data) if form == "svg" else data


def stable_svg(svg: bytes) -> bytes:
    """plotly.js names the parts of an SVG by six random hex digits; replace them by a fixed name."""
    found = re.search(rb'id="(?:topdefs|defs)-([0-9a-f]{6})"', svg)
    return svg.replace(found.group(1), b"figure") if found else svg
