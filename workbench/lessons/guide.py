"""The instructor guide and the page that links everything, from the lessons and the notes in GUIDE.md."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.lessons import look
from workbench.lessons.checking import Exercise
from workbench.lessons.pages import Markdown
from workbench.lessons.source import Lesson

NOTES = "GUIDE.md"
OF_LESSON = re.compile(r"Lesson (\d+)\b")


def notes(path: Path) -> tuple[str, dict[int, str]]:
    """What is written by hand: the general part, and the notes for each lesson by number.

    A second-level heading that begins with "Lesson 2" starts the notes on lesson 2; everything else is general.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise WorkbenchError(f"the instructor's notes are missing: expected {path}") from None
    general, of = [], {}
    for part in re.split(r"^(?=## )", text, flags=re.M):
        heading, _, rest = part.partition("\n")
        if match := OF_LESSON.match(heading.removeprefix("## ")):
            of[int(match[1])] = rest.strip()
        else:
            general.append(part.strip())
    return "\n\n".join(general), of


def guide(lessons: list[Lesson], known: Mapping[str, Exercise], by_hand: tuple[str, dict[int, str]]) -> str:
    """The guide as markdown. lessons: executed where they could be; known: all exercises by name."""
    general, of = by_hand
    return "\n\n".join([general, *(_lesson(one, known, of.get(one.number, "")) for one in lessons)]) + "\n"


def _lesson(lesson: Lesson, known: Mapping[str, Exercise], by_hand: str) -> str:
    rows = "\n".join(f"| **{name}** | {value} |" for name, value in lesson.header.items())
    parts = [f"## {lesson.title}", f"| | |\n|---|---|\n{rows}", by_hand, _times(lesson)]
    if lesson.asked:
        parts += ["### Exercises", *(_exercise(one.name, known[one.name]) for one in lesson.asked)]
    return "\n\n".join(part for part in parts if part)


def _exercise(name: str, exercise: Exercise) -> str:
    hints = "\n".join(f"{k}. {hint}" for k, hint in enumerate(exercise.hints, 1))
    return f"**{name}** {exercise.asks}\n\n{hints}\n\n*To be remembered:* {exercise.insight}"


def _times(lesson: Lesson) -> str:
    """A table of sections with the seconds of each cell; without seconds for a lesson that was not run."""
    about = lesson.content["metadata"].get("workbench", {})
    rows = []
    for title, cells in lesson.sections():
        seconds = [cell["metadata"].get("workbench", {}).get("seconds") for cell in cells]
        measured = [s for s in seconds if s is not None]
        each = ", ".join(f"{s:.1f}" for s in measured) or "not measured"
        total = f"{sum(measured):.1f}" if measured else ""
        rows.append(f"| {title or 'Beginning'} | {len(cells)} | {each} | {total} |")
    table = "| Section | Code cells | Seconds of each | Together |\n|---|---|---|---|\n" + "\n".join(rows)
    told = about.get("told", "This lesson was not run.")
    if about:  # the runner's pictures need a browser, which a session does without
        told += " The cell that records the first figure also waited for the browser that takes pictures."
    return f"### Sections and their times\n\n{told}\n\n{table}"


def as_page(text: str) -> str:
    """The guide as a page."""
    body = f'<nav><a href="index.html">All lessons</a></nav><main>{Markdown({})(text)}</main>'
    return look.page("Instructor guide", body)


def index(lessons: list[Lesson], folder: Path) -> str:
    """The page that links what is there of each lesson."""
    cards = "\n".join(_card(lesson, folder) for lesson in lessons)
    total = sum(int(m[0]) for one in lessons if (m := re.match(r"\d+", one.header.get("Minutes", ""))))
    return look.page(
        "Lessons in hyperbolic geometry",
        f"<main><h1>Lessons in hyperbolic geometry</h1><p>{len(lessons)} lessons, {total} minutes together. "
        'Everything here works without a network. For those who teach: <a href="guide.html">instructor guide</a> '
        '(<a href="guide.md">as text</a>).</p>'
        f"{cards}</main>",
    )


def _card(lesson: Lesson, folder: Path) -> str:
    kinds = {
        "pages": ("read", "html"),
        "slides": ("slides", "html"),
        "exercises": ("notebook to fill in", "ipynb"),
        "solutions": ("notebook with solutions", "ipynb"),
    }
    links = [
        f'<a href="{kind}/{lesson.name}.{ending}">{text}</a>'
        for kind, (text, ending) in kinds.items()
        if (folder / kind / f"{lesson.name}.{ending}").is_file()
    ]
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{_inline(value)}</td></tr>"
        for name, value in lesson.header.items()
    )
    return (
        f"<section><h2>{html.escape(lesson.title)}</h2><table><tbody>{rows}</tbody></table>"
        f"<p>{' · '.join(links)}</p></section>"
    )


def _inline(text: str) -> str:
    return Markdown({})(text).strip().removeprefix("<p>").removesuffix("</p>")
