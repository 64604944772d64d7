"""`figures/index.html`: every figure of the manifest on one page, with what it says and where it came
from.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from workbench.files import atomic_write
from workbench.runs.manifest import PROFILES, Entry, Manifest
from workbench.runs.plan import folder_name, read_record


def write_index(manifest: Manifest, figures: Path | None = None) -> Path:
    """Write the page and, for figures that came without them (a fresh clone has only what git keeps), their
    interactive pages and missing pictures, drawn from `figure.json`. Returns the page."""
    figures = figures or manifest.root / "figures"
    complete(manifest, figures)
    order = [*GROUPS.values(), OTHERS]
    entries = sorted(manifest.entries.values(), key=lambda e: (order.index(_group(e)), e.notebook))
    sections = "\n".join(_run(entry, figures) for entry in entries)
    body = f"{_contents(entries)}{sections}" if entries else "<p>The manifest lists no figures yet.</p>"
    page = PAGE.format(style=STYLE, body=body, script=SCRIPT)
    path = figures / "index.html"
    with atomic_write(path) as f:
        f.write(page)
    return path


def complete(manifest: Manifest, figures: Path) -> list[Path]:
    """Write the HTML, and the PNG where a browser is found, of recorded figures that lack them."""
    written: list[Path] = []
    for folder in _recorded(manifest, figures):
        formats = [f for f in ("html", "png") if not (folder / f"figure.{f}").is_file()]
        if "html" not in formats and not (figures / "plotly.min.js").is_file():
            formats.append("html")  # the pages load this script, and writing one brings it along
        if formats and (folder / "figure.json").is_file():
            import plotly.io

            from workbench import plots

            fig = plotly.io.from_json((folder / "figure.json").read_text(encoding="utf-8"))
            written += plots.write(fig, folder, formats=tuple(formats))
    return written


def _recorded(manifest: Manifest, figures: Path) -> Iterator[Path]:
    for entry in manifest.entries.values():
        for figure in entry.figures:
            for profile in PROFILES:
                folder = figures / folder_name(figure, profile)
                if (folder / "run.json").is_file():
                    yield folder


def _run(entry: Entry, figures: Path) -> str:
    cards = []
    for figure in entry.figures:
        records = {p: read_record(figures / folder_name(figure, p)) for p in PROFILES}
        found = [(folder_name(figure, p), record) for p, record in records.items() if record]
        cards += [_card(folder, figures / folder, record) for folder, record in found] or [
            _missing(figure, entry)
        ]
    notebook = html.escape(entry.notebook)
    return (
        f'<section id="{entry.id}"><h2>{html.escape(entry.title)}</h2>'
        f'<p class="from"><a href="../{notebook}">{notebook}</a></p>{"".join(cards)}</section>'
    )


def _group(entry: Entry) -> str:
    """Which group a notebook's folder belongs to; those of no folder come first."""
    return GROUPS.get(next(iter(entry.notebook.split("/")[1:-1]), ""), OTHERS)


def _contents(entries: list[Entry]) -> str:
    """A box that filters the figures, and links to the notebooks, a line for each group."""
    lines = []
    for title, some in groupby(entries, _group):
        of = [f'<a href="#{e.id}">{html.escape(e.title)}</a>' for e in some]
        lines.append(f"<p><strong>{title}</strong> {' · '.join(of)}</p>")
    told = 'placeholder="filter figures…" aria-label="show only figures with these words"'
    box = f'<input type="search" id="filter" {told}>'
    return f'<nav>{"".join(lines)}<p>{box} <span id="count" role="status"></span></p></nav>'


def _missing(figure: str, entry: Entry) -> str:
    return (
        f'<article class="missing" id="{figure}"><h3>{figure}</h3>'
        f"<p>Not made yet: <code>workbench figures {entry.id}</code></p></article>"
    )


def _card(name: str, folder: Path, record: Mapping[str, Any]) -> str:
    caption, verdict = html.escape(record.get("caption") or ""), html.escape(record["verdict"])
    href = f"{name}/figure.html"
    if (folder / "figure.png").is_file():
        picture = f'<a href="{href}"><img src="{name}/figure.png" alt="{caption or name}" loading="lazy"></a>'
    else:
        picture = (
            f'<p class="missing"><a href="{href}">Interactive figure</a> (there is no picture of it yet)</p>'
        )
    links = [f'<a href="{href}">interactive</a>'] if (folder / "figure.html").is_file() else []
    if (folder / "view.html").is_file():
        links.append(f'<a href="{name}/view.html">explore</a>')
    links += [f'<a href="{name}/{f}">{f}</a>' for f in ("figure.json", "run.json")]
    return (
        f'<article id="{name}"><h3>{name}</h3>{picture}<p class="verdict">{verdict}</p><p>{caption}</p>'
        f"{_details('Numbers', record['numbers'])}{_details('Parameters', record.get('parameters') or {})}"
        f'<p class="from">{_origin(record)} · {" · ".join(links)}</p></article>'
    )


def _origin(record: Mapping[str, Any]) -> str:
    """Profile, date, minutes, machine, in one line."""
    about = record.get("machine") or {}
    parts = [
        f"{record.get('profile') or 'interactive'} profile",
        record.get("started", "")[:10],
        f"{record.get('duration_s', 0):g} s",
        about.get("gpu") or about.get("device") or "",
    ]
    return html.escape(" · ".join(str(p) for p in parts if p))


def _details(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(_short(value))}</td></tr>"
        for name, value in values.items()
    )
    state = " open" if title == "Numbers" and len(values) <= 8 else ""
    return f"<details{state}><summary>{title}</summary><table>{rows}</table></details>" if rows else ""


def _short(value: Any) -> str:
    """A value as a reader wants it: four significant digits, long lists cut."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_short(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_short(v) for v in value[:12]) + (
            f", … ({len(value)} values)" if len(value) > 12 else ""
        )
    return value if isinstance(value, str) else json.dumps(value)


GROUPS = {"": "First", "lessons": "Lessons", "explore": "Explore", "systems": "Systems", "sweeps": "Sweeps"}
OTHERS = "Others"
SCRIPT = """
const box = document.getElementById("filter"), count = document.getElementById("count");
if (box) box.oninput = () => {
  const words = box.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  for (const section of document.querySelectorAll("section")) {
    const title = section.querySelector("h2").textContent.toLowerCase();
    let some = false;
    for (const card of section.querySelectorAll("article")) {
      const text = title + card.textContent.toLowerCase();
      card.hidden = !words.every((word) => text.includes(word));
      some ||= !card.hidden;
      shown += !card.hidden;
    }
    section.hidden = !some;
  }
  count.textContent = box.value ? `${shown} figures` : "";
};
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #fff; --card: #f6f7f9; --line:
#d9dde2; } @media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #9aa4af; --paper: #14171a; --card: #1d2126; --line: #343a41; }
}
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background:
var(--paper);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; } h2 { margin: 3rem 0 0; } h3 { margin: 0 0 .75rem; font: 600 .95rem ui-monospace,
monospace; } section { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem),
1fr)); gap: 1.25rem; } section > h2, section > .from { grid-column: 1 / -1; } section > .from { margin:
-1rem 0 0; } article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding:
1.25rem; min-width: 0; } img { width: 100%; height: auto; border-radius: 6px; background: #fff; } .verdict {
font-weight: 600; } .from, .missing { color: var(--soft); font-size: .875rem; } article.missing {
border-style: dashed; } a { color: inherit; } table { border-collapse: collapse; width: 100%; font-size:
.875rem; } th, td { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; border-bottom: 1px
solid var(--line);
  overflow-wrap: anywhere; } th { font-weight: 500; width: 30%; overflow-wrap: break-word; }
summary { cursor: pointer; margin: .35rem 0; }
[hidden] { display: none !important; }
nav { font-size: .9rem; border-bottom: 1px solid var(--line); } nav p { margin: .4rem 0; }
nav strong { display: inline-block; min-width: 5rem; }
#filter { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: .3rem .6rem; width: min(100%, 20rem); }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Figures of the hyperbolic workbench</title>
<style>{style}</style>
</head>
<body>
<h1>Figures</h1>
<p>What the notebooks recorded: each figure with the one sentence its numbers support. Made again by
<code>workbench figures</code>.</p>
{body}
<script>{script}</script>
</body>
</html>
"""
