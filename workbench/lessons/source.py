"""A lesson as its notebook tells it: header, sections, exercises by tag; and the two notebooks made from it.

An exercise is a markdown cell that asks, a code cell tagged `exercise` with a blank, a code cell tagged `solution`,
and, if need be, markdown cells tagged `solution` that explain.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.lessons.checking import MODULES
from workbench.runs import notebook

NUMBERED = re.compile(r"(\d\d)_\w+\.ipynb")
ROW = re.compile(r"^\|\s*\*\*(.+?)\*\*\s*\|(.*)\|\s*$", re.M)


@dataclass(frozen=True)
class Asked:
    """One exercise, as indices of cells: what asks, the blank, the solution, and what explains it."""

    name: str
    ask: int
    blank: int
    solution: int
    explained: tuple[int, ...]


@dataclass(frozen=True)
class Lesson:
    """A lesson's notebook (as JSON, executed or not) and where its exercises stand in it."""

    path: Path
    content: dict[str, Any]
    asked: tuple[Asked, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> int:
        return int(self.name[:2])

    @property
    def cells(self) -> list[dict[str, Any]]:
        return self.content["cells"]

    @property
    def title(self) -> str:
        return notebook.source(self.cells[0]).partition("\n")[0].removeprefix("# ").strip()

    @property
    def header(self) -> dict[str, str]:
        """The rows of the table under the title, such as "Minutes" to "40"."""
        return {k: v.strip() for k, v in ROW.findall(notebook.source(self.cells[0]))}

    def sections(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Second-level headings with the code cells below them; what comes before the first has the name ""."""
        found: list[tuple[str, list[dict[str, Any]]]] = [("", [])]
        for cell in self.cells:
            if cell["cell_type"] == "markdown":
                found += [(t.strip(), []) for t in re.findall(r"^## (.+)$", notebook.source(cell), re.M)]
            elif cell["cell_type"] == "code":
                found[-1][1].append(cell)
        return [(title, cells) for title, cells in found if title or cells]


def tags(cell: Mapping[str, Any]) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def course(folder: Path, only: Iterable[int] = ()) -> list[Path]:
    """The course's notebooks in a folder, by number; with `only`, those, also beyond the course.

    WorkbenchError where there is none, or two of a number.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.ipynb")):
        if match := NUMBERED.fullmatch(path.name):
            if other := found.get(int(match[1])):
                raise WorkbenchError(f"{other.name} and {path.name} are both lesson {int(match[1])}")
            found[int(match[1])] = path
    wanted = list(only) or [n for n in found if 1 <= n <= len(MODULES)]
    if missing := [n for n in wanted if n not in found]:
        listed = ", ".join(map(str, found)) or "none"
        raise WorkbenchError(f"there is no lesson {missing[0]} in {folder}; there are {listed}")
    if not wanted:
        raise WorkbenchError(f"there are no lessons in {folder}: expected notebooks such as 01_name.ipynb")
    return [found[n] for n in sorted(set(wanted))]


def read(path: Path, known: Iterable[str]) -> Lesson:
    """Read a lesson and make sure that it is well formed.

    known: names of all exercises, such as "2.1"; the lesson must ask each of its own once, in order.

    WorkbenchError, one sentence with the cell, for a lesson without a title, an exercise without a question, a blank
    or a solution, a solution without an exercise, a check that is missing or names another exercise.
    """
    content = notebook.read(path)
    if not content["cells"] or not notebook.source(content["cells"][0]).startswith("# "):
        raise WorkbenchError(f"{path.name}: the first cell must begin with a title, '# Lesson …'")
    lesson = Lesson(path, content, tuple(_exercises(path.name, content["cells"])))
    expected = [name for name in known if name.startswith(f"{lesson.number}.")]
    came = [one.name for one in lesson.asked]
    for name in came:
        if name not in expected:
            listed = ", ".join(expected) or "none"
            raise WorkbenchError(
                f"{path.name}: no exercise of this lesson is called {name!r}; there are {listed}"
            )
    if came != expected:
        listed, told = ", ".join(expected) or "none", ", ".join(came) or "none"
        raise WorkbenchError(
            f"{path.name} must ask each of its exercises once, in order: {listed}; it asks {told}"
        )
    return lesson


def _exercises(name: str, cells: list[dict[str, Any]]) -> Iterable[Asked]:
    at = 0
    while at < len(cells):
        if "solution" in tags(cells[at]):
            raise WorkbenchError(f"{name}, cell {at + 1}: a solution that follows no exercise")
        if "exercise" in tags(cells[at]):
            yield (one := _exercise(name, cells, at))
            at = (one.explained or (one.solution,))[-1]
        at += 1


def _exercise(name: str, cells: list[dict[str, Any]], at: int) -> Asked:
    where = f"{name}, cell {at + 1}"
    if not at or cells[at - 1]["cell_type"] != "markdown":
        raise WorkbenchError(f"{where}: an exercise follows a markdown cell that asks it")
    asked = _checked(where, notebook.source(cells[at]))
    if not is_blank(notebook.source(cells[at])):
        raise WorkbenchError(f"{where}: exercise {asked} has no blank, such as `answer = ...`")
    after = cells[at + 1] if at + 1 < len(cells) else {"cell_type": "none"}
    if after["cell_type"] != "code" or "solution" not in tags(after):
        raise WorkbenchError(
            f"{where}: exercise {asked} has no solution: expected a code cell tagged 'solution' next"
        )
    if (solved := _checked(f"{name}, cell {at + 2}", notebook.source(after))) != asked:
        raise WorkbenchError(f"{name}, cell {at + 2}: the solution of exercise {asked} checks {solved}")
    end = at + 2
    while end < len(cells) and cells[end]["cell_type"] == "markdown" and "solution" in tags(cells[end]):
        end += 1
    return Asked(asked, at - 1, at, at + 1, tuple(range(at + 2, end)))


def _checked(where: str, source: str) -> str:
    """The name in `wb.check("2.1", …)`, which must be a cell's last statement."""
    try:
        last = ast.parse(source).body[-1]
    except (SyntaxError, IndexError):
        last = None
    call = getattr(last, "value", None)
    if isinstance(last, ast.Expr) and isinstance(call, ast.Call) and ast.unparse(call.func).endswith("check"):
        first = call.args[0] if call.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
    raise WorkbenchError(f'{where}: the last line must be a check, such as `wb.check("2.1", answer)`')


def is_blank(source: str) -> bool:
    """Does the code leave something out: `...` anywhere but as an index?"""
    tree = ast.parse(source)
    indices = {id(n) for s in ast.walk(tree) if isinstance(s, ast.Subscript) for n in ast.walk(s.slice)}
    return any(
        isinstance(n, ast.Constant) and n.value is ... and id(n) not in indices for n in ast.walk(tree)
    )


def for_participants(lesson: Lesson) -> dict[str, Any]:
    """The notebook without its solutions, blanks in place."""
    drop = {i for one in lesson.asked for i in (one.solution, *one.explained)}
    return _without(lesson, drop)


def solved(lesson: Lesson) -> dict[str, Any]:
    """The notebook with its solutions in place of the blanks, and unfolded."""
    return _without(lesson, {one.blank for one in lesson.asked})


def _without(lesson: Lesson, drop: set[int]) -> dict[str, Any]:
    content = copy.deepcopy(lesson.content)
    content["cells"] = [cell for i, cell in enumerate(content["cells"]) if i not in drop]
    for cell in content["cells"]:
        about = cell["metadata"]
        about.get("jupyter", {}).pop("source_hidden", None)
        if about.get("jupyter") == {}:
            del about["jupyter"]
        if "tags" in about:
            about["tags"] = [tag for tag in about["tags"] if tag not in ("exercise", "solution")]
            if not about["tags"]:
                del about["tags"]
    return content
