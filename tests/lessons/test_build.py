"""What a workshop gets from a lesson's notebook, by a small made-up lesson and by the committed ones."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.lessons import build, exercises, guide, pages, source
from workbench.lessons.checking import Exercise, number

ROOT = Path(__file__).parents[2]
COURSE = source.course(ROOT / "notebooks" / "lessons")
KNOWN = {"1.1": Exercise("How much is 2 + 2?", lambda a: number(a, 4, "the sum"), ("Count.",), "Four.", (5,))}
BLANK, SOLVED = 'answer = ...\n\nwb.check("1.1", answer)', 'answer = 2 + 2\nwb.check("1.1", answer)'


def cell(kind, text, *tags, **more):
    about = {
        "metadata": {"tags": list(tags)} if tags else {},
        "source": text,
        "id": f"c{abs(hash(text)) % 10**8}",
    }
    return (
        {"cell_type": kind}
        | about
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        | more
    )


def lesson_file(folder, cells):
    path = folder / "01_sums.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


CELLS = [
    cell("markdown", "# Lesson 1: sums\n\n| | |\n|---|---|\n| **Minutes** | 30 |"),
    cell("markdown", "## Two numbers\n\nA formula, $\\tanh\\frac r2 < 1$. See [the next](02_more.ipynb)."),
    cell("code", "x = 1"),
    cell("markdown", "### Exercise 1.1"),
    cell("code", BLANK, "exercise"),
    cell("code", SOLVED, "solution"),
    cell("markdown", "Because it is so.", "solution"),
]


def test_participants_get_blanks_and_the_others_solutions(tmp_path):
    lesson = source.read(lesson_file(tmp_path, CELLS), KNOWN)
    given, solved = (
        [c["source"] for c in content["cells"]]
        for content in (source.for_participants(lesson), source.solved(lesson))
    )
    assert BLANK in given and SOLVED not in given and "Because it is so." not in given
    assert SOLVED in solved and BLANK not in solved
    assert lesson.header["Minutes"] == "30" and [t for t, _ in lesson.sections()] == ["Two numbers"]


@pytest.mark.parametrize("drop, says", [
    (5, "no solution"), (4, "follows no exercise"), (3, "follows a markdown cell"),
    (slice(3, 7), "must ask each of its exercises once"), (0, "title"),
])  # fmt: skip
def test_a_malformed_lesson_is_named_with_its_cell(tmp_path, drop, says):
    cells = copy.deepcopy(CELLS)
    del cells[drop]
    with pytest.raises(WorkbenchError, match=says):
        source.read(lesson_file(tmp_path, cells), KNOWN)


def test_a_blank_that_gives_the_answer_away_is_refused(tmp_path):
    cells = copy.deepcopy(CELLS)
    cells[4]["source"] = SOLVED
    with pytest.raises(WorkbenchError, match="no blank"):
        source.read(lesson_file(tmp_path, cells), KNOWN)


def test_a_page_draws_formulas_and_fetches_nothing(tmp_path):
    lesson = source.read(lesson_file(tmp_path, CELLS), KNOWN)
    made = pages.page(lesson, KNOWN, {"02_more.ipynb": "02_more.html"})
    assert "<math" in made and "$" not in made.split("<main>")[1].split("</main>")[0]
    assert 'href="02_more.html"' in made and "Hint 1" in made and "<summary>Solution" in made
    assert "//cdn" not in made and "https://" not in made
    with pytest.raises(WorkbenchError, match="formula"):
        pages.mathml(r"\nosuchthing{x}", "inline")


def test_the_notes_of_a_lesson_are_found_by_its_heading(tmp_path):
    (tmp_path / "GUIDE.md").write_text(
        "# Guide\n\nAll.\n\n## A day\n\nx\n\n## Lesson 2: more\n\nAsked often.\n"
    )
    general, of = guide.notes(tmp_path / "GUIDE.md")
    assert "A day" in general and of == {2: "Asked often."}
    with pytest.raises(WorkbenchError, match="missing"):
        guide.notes(tmp_path / "none.md")


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.stem)
def test_every_lesson_of_the_course_is_well_formed_and_has_its_exercises(path):
    lesson = source.read(path, exercises())
    assert 2 <= len(lesson.asked) <= 4 and {"Minutes"} <= set(lesson.header)
    for c in lesson.cells:
        if c["cell_type"] == "markdown":
            pages.Markdown({})("".join(c["source"]))


@pytest.mark.slow
@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.stem)
def test_exercises_are_open_at_first_and_right_after_their_solutions(path, tmp_path):
    """In the notebook with solutions, and with its blanks in place before them: all cells in one namespace."""
    from workbench.runs import manifest, notebook

    listing, lesson, space = manifest.load(), source.read(path, exercises()), {"__name__": "__main__"}
    smoke = next(e.smoke for e in listing.entries.values() if listing.notebook(e) == path)
    needed = {i for one in lesson.asked for i in (one.blank, one.solution)}
    for i, c in enumerate(lesson.cells):
        code = notebook.source(c)
        first = min(needed)
        if c["cell_type"] != "code" or (i not in needed and not (i < first and _is_light(c, code))):
            continue
        if "parameters" in source.tags(c):
            code += "".join(f"\n{k} = {v!r}" for k, v in smoke.items())
        head, _, last = code.rstrip().rpartition("\n")
        if i in needed:
            exec(head, space)
            verdict = eval(last, space)
            blank = i in {one.blank for one in lesson.asked}
            assert verdict.state == ("open" if blank else "right"), f"{verdict}"
        else:
            exec(code, space)


def _is_light(c, code):
    """What exercises need of the cells before them: imports and parameters."""
    return "parameters" in source.tags(c) or code.lstrip().startswith(("import ", "from "))


def test_building_without_a_run_writes_notebooks_and_a_guide(tmp_path):
    built = build.build(tmp_path / "out", run=False)
    names = {p.stem for p in (tmp_path / "out" / "exercises").glob("*.ipynb")}
    assert names == {p.stem for p in COURSE} and built.index.is_file()
    assert "Instructor guide" in (tmp_path / "out" / "guide.md").read_text()
    assert all("has not been run" in told for told in built.problems)
    shutil.rmtree(tmp_path / "out")
