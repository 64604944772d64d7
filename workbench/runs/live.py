"""How far the notebooks are, on a terminal or in a log."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from workbench.runs.plan import Task


class Watcher:
    """The `watch` of `runner.run`: a bar of cells for each running notebook on a terminal, and one line
    when it
    ends; only lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("cells"))
        self._console = console
        self._progress = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Watcher:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def __call__(self, event: str, task: Task, detail: Any) -> None:
        if event == "start":
            self._bars[task.name] = self._progress.add_task(task.name, total=None)
            if not self._console.is_terminal:
                self.say(f"· {task.name} started ({escape(task.reasons[0])})")
        elif event == "cell":
            at, of = detail
            self._progress.update(self._bars[task.name], completed=at, total=of)
        else:
            self._progress.remove_task(self._bars.pop(task.name))
            self._progress.refresh()
            mark = "[green]✓[/]" if detail.status == "done" else f"[red]✗ {detail.status}[/]"
            self.say(f"{mark} {task.name} in {detail.duration:.0f} s")
