"""An executed lesson as one page to read, and the HTML of its cells. Formulas become MathML, which browsers draw
themselves; figures stay alive."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import mistune
from nbconvert.filters.markdown_mistune import MarkdownWithMath

from workbench.lessons import look
from workbench.lessons.checking import Exercise
from workbench.lessons.formulas import mathml
from workbench.lessons.source import Asked, Lesson, tags
from workbench.runs import notebook

PLOTLY = "application/vnd.plotly.v1+json"
OUTSIDE = ("http://", "https://", "mailto:", "#")


class Markdown:
    """Markdown of notebooks to HTML. links: where a notebook of that file name is found; other notebooks are named
    but not linked, as a page may be anywhere."""

    def __init__(self, links: Mapping[str, str]) -> None:
        self.parser = MarkdownWithMath(renderer=_Renderer(links))

    def __call__(self, text: str) -> str:
        """WorkbenchError for a formula that cannot be converted."""
        return self.parser.render(text)


class _Renderer(mistune.HTMLRenderer):
    def __init__(self, links: Mapping[str, str]) -> None:
        super().__init__(escape=False)
        self.links = links

    def multiline_math(self, text: str) -> str:
        return text

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        return f'<h{level} id="{anchor(text)}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if not url.startswith(OUTSIDE):
            url = self.links.get(PurePosixPath(url.partition("#")[0]).name, "")
        return super().link(text, url, title) if url else text

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")


def anchor(heading: str) -> str:
    """A heading as part of an address."""
    return re.sub(r"\W+", "-", html.unescape(re.sub(r"<.+?>", "", heading))).strip("-").lower()


def page(lesson: Lesson, known: Mapping[str, Exercise], links: Mapping[str, str], slides: str = "") -> str:
    """The whole lesson: prose, code, what it printed and drew; hints and solutions folded.

    lesson: executed. known: all exercises by name. slides: the address of its slides.
    """
    markdown = Markdown(links)
    parts, asked = [], {one.ask: one for one in lesson.asked}
    skipped = {i for one in lesson.asked for i in (one.blank, one.solution, *one.explained)}
    for i, cell in enumerate(lesson.cells):
        if i in asked:
            parts.append(_exercise(lesson, asked[i], known[asked[i].name], markdown))
        elif i not in skipped:
            parts.append(_cell(cell, markdown))
    nav = (
        '<nav><a href="../index.html">All lessons</a>'
        + f'<a href="{slides}">Slides</a>' * bool(slides)
        + "</nav>"
    )
    told = lesson.content["metadata"].get("workbench", {}).get("told", "")
    body = f"{nav}\n<main>{''.join(parts)}</main>\n<footer>{html.escape(told)}</footer>"
    return look.page(html.escape(lesson.title), body)


def _exercise(lesson: Lesson, one: Asked, exercise: Exercise, markdown: Markdown) -> str:
    asks, blank, solution = (lesson.cells[i] for i in (one.ask, one.blank, one.solution))
    hints = "".join(
        f"<details><summary>Hint {k}</summary><p>{html.escape(hint)}</p></details>"
        for k, hint in enumerate(exercise.hints, 1)
    )
    explained = "".join(_cell(lesson.cells[i], markdown) for i in one.explained)
    return (
        f'<section class="exercise" id="exercise-{one.name}">{_cell(asks, markdown)}'
        f"{code(notebook.source(blank))}{hints}<details><summary>Solution</summary>"
        f"{_cell(solution, markdown)}{explained}</details></section>"
    )


def _cell(cell: Mapping[str, Any], markdown: Markdown) -> str:
    if cell["cell_type"] == "markdown":
        return markdown(notebook.source(cell))
    if cell["cell_type"] != "code" or "injected-parameters" in tags(cell):
        return ""
    return code(notebook.source(cell)) + "".join(output(o, markdown) for o in cell["outputs"])


def code(source: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter())


def output(out: Mapping[str, Any], markdown: Markdown) -> str:
    """One output of a cell: a figure, HTML, markdown, a picture or text. What went to stderr is left out."""
    if out["output_type"] == "stream":
        return (
            "" if out["name"] == "stderr" else f'<pre class="said">{html.escape(_joined(out["text"]))}</pre>'
        )
    data = out.get("data", {})
    if PLOTLY in data:
        caption = html.escape(out["metadata"].get("workbench", {}).get("caption", ""))
        return f"<figure>{plot(data[PLOTLY], caption)}<figcaption>{caption}</figcaption></figure>"
    if "text/html" in data:
        return _joined(data["text/html"])
    if "text/markdown" in data:
        return markdown(_joined(data["text/markdown"]))
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{_joined(data["image/png"]).strip()}">'
    return (
        f'<pre class="said">{html.escape(_joined(data["text/plain"]))}</pre>' if "text/plain" in data else ""
    )


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def plot(figure: Mapping[str, Any], caption: str) -> str:
    """A plotly figure that the page's script draws. caption: HTML, for those who do not see it."""
    layout = figure.get("layout", {})
    width, height = layout.get("width") or 700, layout.get("height") or 450
    told = json.dumps({"data": figure["data"], "layout": layout}).replace("<", "\\u003c")
    size = f'data-width="{width}" data-height="{height}"'
    return (
        f'<div class="plot" role="img" aria-label="{caption or "Figure"}" {size}>'
        f'<div></div><script type="application/json">{told}</script></div>'
    )
