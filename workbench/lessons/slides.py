"""Slides of an executed lesson, by a rule:

a title with what one will be able to do; the opening paragraph; a slide for each heading, with the first paragraph or
list below it and the formula or list that it announces (a heading without text gets none: it stands above what
follows); each predict-first prompt; each figure with its caption and its verdict; each exercise; and last what the
exercises taught. Code, and the rest of the prose, stay in the lesson.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from workbench.lessons import look
from workbench.lessons.checking import Exercise
from workbench.lessons.pages import PLOTLY, Markdown, plot
from workbench.lessons.source import Lesson
from workbench.runs import notebook


def slides(lesson: Lesson, known: Mapping[str, Exercise]) -> str:
    """The page of slides. lesson: executed. known: all exercises by name."""
    markdown = Markdown({})
    found = [_title(lesson, markdown), *_frames(lesson, markdown), _last(lesson, known)]
    found = [(kind, content) for kind, content in found if content]
    sections = [
        f'<section id="{k}" class="{kind}">{content}<small>{k} / {len(found)}</small></section>'
        for k, (kind, content) in enumerate(found, 1)
    ]
    return look.deck(html.escape(lesson.title), sections)


def _title(lesson: Lesson, markdown: Markdown) -> tuple[str, str]:
    rows = "\n\n".join(f"**{name}:** {value}" for name, value in lesson.header.items())
    return "title", markdown(f"# {lesson.title}\n\n{rows}")


def _last(lesson: Lesson, known: Mapping[str, Exercise]) -> tuple[str, str]:
    learnt = "".join(f"<li>{html.escape(known[one.name].insight)}</li>" for one in lesson.asked)
    return "last", f"<h2>Worth remembering</h2><ul>{learnt}</ul>" if learnt else ""


def _frames(lesson: Lesson, markdown: Markdown) -> Iterator[tuple[str, str]]:
    asked = {one.ask for one in lesson.asked}
    skipped = {i for one in lesson.asked for i in (one.blank, one.solution, *one.explained)}
    section = ""
    for i, cell in enumerate(lesson.cells):
        if i in skipped or cell["cell_type"] not in ("code", "markdown"):
            continue
        if i in asked:
            yield "ask", markdown(notebook.source(cell))
        elif cell["cell_type"] == "code":
            for out in cell["outputs"]:
                if PLOTLY in out.get("data", {}):
                    yield "shown", _of(section) + _figure(out)
        else:
            for kind, text in told(notebook.source(cell)):
                section = _heading(text, section)
                opening, (_, _, rest) = text.startswith("# "), text.partition("\n\n")
                if kind == "predict":
                    yield kind, _of(section) + markdown(text)
                elif rest:
                    yield kind, markdown(rest if opening else text)


def _of(section: str) -> str:
    as_heading = Markdown({})(f"### {section}")  # where "1." begins no list
    text = re.sub(r"</?h3.*?>", "", as_heading).strip()
    return f'<p class="of">{text}</p>' if section else ""


def _heading(text: str, before: str) -> str:
    match = re.match(r"#+ (.+)", text)
    return match[1] if match and not text.startswith("# ") else before


def _figure(out: Mapping[str, Any]) -> str:
    about = out["metadata"].get("workbench", {})
    caption, verdict = (html.escape(about.get(key, "")) for key in ("caption", "verdict"))
    verdict = f'<p class="verdict">{verdict}</p>' if verdict else ""
    return f"<figure>{plot(out['data'][PLOTLY], caption)}{verdict}<figcaption>{caption}</figcaption></figure>"


def told(text: str) -> Iterator[tuple[str, str]]:
    """What of a markdown cell is said on slides: ("said" or "predict", markdown) for each."""
    blocks = [block for block in blocks_of(text) if not block.startswith("|")]
    for at, block in enumerate(blocks):
        if block.startswith(">") and "Predict first" in block:
            yield "predict", block
        if block.startswith("#"):
            said, rest = [block], blocks[at + 1 : at + 3]
            if rest and not rest[0].startswith(("#", ">", "```")):
                more = len(rest) > 1 and (rest[1].startswith("$$") or rest[0].endswith(":"))
                said += rest[: 1 + more]
            yield "said", "\n\n".join(said)


def blocks_of(text: str) -> list[str]:
    """Paragraphs, lists, quotes, headings, formulas of a markdown text, as they stand between blank lines."""
    found: list[str] = []
    for block in re.split(r"\n[ \t]*\n", text.strip()):
        if found and found[-1].count("```") % 2:  # a blank line inside code
            found[-1] += f"\n\n{block}"
            continue
        lines = block.split("\n", 1)
        if lines[0].startswith("#") and len(lines) == 2:
            found += [lines[0], lines[1]]
        else:
            found.append(block)
    return found
