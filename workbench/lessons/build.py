"""`workbench lessons build`: everything that a workshop needs, from the lessons' notebooks."""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.files import atomic_write
from workbench.lessons import guide, pages, slides, source
from workbench.lessons.checking import Exercise, exercises
from workbench.lessons.source import Lesson
from workbench.runs import manifest, notebook, plan, runner

LESSONS = "notebooks/lessons"


@dataclass
class Built:
    """Where it all is, and what could not be made, in sentences."""

    index: Path
    problems: list[str] = field(default_factory=list)


def build(
    folder: Path | None = None,
    only: Iterable[int] = (),
    *,
    run: bool = True,
    known: Mapping[str, Exercise] | None = None,
    watch: runner.Watch = lambda *_: None,
) -> Built:
    """Write notebooks for participants and with solutions, pages, slides, the instructor guide and an index.

    folder: default `build/lessons` in the checkout. only: numbers of the lessons to make; guide and index are about
    the whole course all the same. run: execute the lessons (quick profile, no live views); if not, pages and slides
    are made from what an earlier run left, as long as the code is the same. known: all exercises by name.

    WorkbenchError, before anything runs, for a malformed lesson, a formula that cannot be drawn or missing notes.
    """
    listing = manifest.load()
    folder = Path(folder or listing.root / "build" / "lessons")
    known = exercises() if known is None else known
    home = listing.root / LESSONS
    by_hand = guide.notes(home / guide.NOTES)
    wanted = {path for path in source.course(home, only)}
    lessons = [source.read(path, known) for path in sorted({*source.course(home), *wanted})]
    links = {one.path.name: f"{one.name}.html" for one in lessons}
    chosen = [one for one in lessons if one.path in wanted]
    for lesson in chosen:
        _draw_formulas(lesson)
        _write_notebooks(lesson, folder)
    built = Built(folder / "index.html")
    if run:
        built.problems += _execute(listing, chosen, folder, watch)
    executed = {one.name: _executed(one, folder) for one in lessons}
    for lesson in chosen:
        if seen := executed[lesson.name]:
            _write(
                folder / "pages" / f"{lesson.name}.html",
                pages.page(seen, known, links, f"../slides/{lesson.name}.html"),
            )
            _write(folder / "slides" / f"{lesson.name}.html", slides.slides(seen, known))
        elif not run:
            built.problems.append(
                f"{lesson.path.name} has not been run as it is: no page and no slides were made"
            )
    text = guide.guide([executed[one.name] or one for one in lessons], known, by_hand)
    _write(folder / "guide.md", text)
    _write(folder / "guide.html", guide.as_page(text))
    _write(built.index, guide.index(lessons, folder))
    _write_script(folder)
    return built


def _draw_formulas(lesson: Lesson) -> None:
    """Refuse a formula that cannot be drawn before minutes are spent on a run."""
    markdown = pages.Markdown({})
    for k, cell in enumerate(lesson.cells, 1):
        if cell["cell_type"] == "markdown":
            try:
                markdown(notebook.source(cell))
            except WorkbenchError as e:
                raise WorkbenchError(f"{lesson.path.name}, cell {k}: {e}") from None


def _write_notebooks(lesson: Lesson, folder: Path) -> None:
    for kind, content in (
        ("exercises", source.for_participants(lesson)),
        ("solutions", source.solved(lesson)),
    ):
        _write(folder / kind / lesson.path.name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as f:
        f.write(text)


def _write_script(folder: Path) -> None:
    """One copy of plotly's script for all pages."""
    from plotly.offline import get_plotlyjs

    if not (folder / "plotly.min.js").is_file():
        _write(folder / "plotly.min.js", get_plotlyjs())


def _execute(
    listing: manifest.Manifest, lessons: list[Lesson], folder: Path, watch: runner.Watch
) -> list[str]:
    """Run lessons as `workbench figures` does, but leave `figures/` alone. Returns what went wrong."""
    runs = {listing.notebook(entry): name for name, entry in listing.entries.items()}
    if missing := [one.path.name for one in lessons if one.path not in runs]:
        raise WorkbenchError(f"no run of figures/manifest.yaml names {missing[0]}")
    tasks = plan.plan(listing, [runs[one.path] for one in lessons], force=True)
    by_path = {one.path: one for one in lessons}
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".run-") as aside:
        figures = Path(aside) / "figures"
        for out in runner.run(listing, tasks, figures=figures, build=Path(aside), watch=watch):
            lesson = by_path[listing.notebook(out.task.entry)]
            if out.status == "done":
                _keep(lesson, notebook.read(out.notebook), figures, folder)
            else:
                problems.append(f"{lesson.path.name} {out.status}: {out.message}")
    return problems


def _keep(lesson: Lesson, content: dict[str, Any], figures: Path, folder: Path) -> None:
    """Keep an executed notebook with what pages want to know: seconds of cells, captions and verdicts of figures."""
    cells = [cell for cell in content["cells"] if "injected-parameters" not in source.tags(cell)]
    content["cells"] = cells
    last: dict[str, Any] = {}
    total, about = 0.0, {}
    for cell in cells:
        seconds = cell["metadata"].pop("papermill", {}).get("duration")
        if cell["cell_type"] != "code":
            continue
        if seconds is not None:
            cell["metadata"]["workbench"] = {"seconds": seconds}
            total += seconds
        for out in cell["outputs"]:
            if pages.PLOTLY in out.get("data", {}):
                last = out
        if figure := _recorded(notebook.source(cell)):
            about = plan.read_record(figures / figure) or {}
            last.get("metadata", {})["workbench"] = {k: about.get(k, "") for k in ("caption", "verdict")}
    machine = about.get("machine", {})
    where = f" on {machine['device']}, threads: {machine['threads']}" if machine else ""
    told = f"Run with the quick profile{where}: {total:.0f} seconds in its cells."
    content["metadata"] = {k: v for k, v in content["metadata"].items() if k != "papermill"}
    content["metadata"]["workbench"] = {"told": told}
    _write(folder / "executed" / lesson.path.name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _recorded(code: str) -> str | None:
    """The figure that a cell records, by `runs.record("id", …)`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("record") and node.args:
            first = node.args[0]
            return first.value if isinstance(first, ast.Constant) else None
    return None


def _executed(lesson: Lesson, folder: Path) -> Lesson | None:
    """The lesson as it was run, if a run of the same cells is kept."""
    path = folder / "executed" / lesson.path.name
    if not path.is_file():
        return None
    content = notebook.read(path)
    mine, kept = ([notebook.source(c) for c in cells] for cells in (lesson.cells, content["cells"]))
    return replace(lesson, content=content) if mine == kept else None
