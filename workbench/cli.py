"""The `workbench` command. Only light imports here: `workbench --help` must not wait for torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from workbench import __version__
from workbench.errors import DataError, ParameterError, WorkbenchError, suggest

if TYPE_CHECKING:
    from workbench.runs.plan import Task

console, errors = Console(highlight=False), Console(stderr=True, highlight=False)

app = typer.Typer(
    help="A notebook-first workbench for hyperbolic geometry. Start with: workbench doctor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="List, download and describe data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point: an error meant to be read is one sentence on stderr, without a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)  # a cancelled job cleans up as Ctrl-C does
    try:
        app()
    except WorkbenchError as e:
        errors.print(f"[red]error:[/red] {_plain(e)}", soft_wrap=True)
        sys.exit(2 if isinstance(e, ParameterError) else 1)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _plain(text: object) -> str:
    """Brackets in a message are not rich markup."""
    from rich.markup import escape

    return escape(str(text))


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: workbench doctor")
def doctor(
    classroom: Annotated[
        bool, typer.Option("--classroom", help="Also what a workshop needs of a laptop; half a minute.")
    ] = False,
) -> None:
    """Look at this machine: versions, GPU, browser, widgets, data. Ends in one line."""
    from workbench.doctor import examine

    findings = examine(classroom)
    colour = {"ok": "green", "note": "yellow", "bad": "red"}
    for finding in findings:
        mark = {"ok": "✓", "note": "·", "bad": "✗"}[finding.state]
        console.print(
            f"[{colour[finding.state]}]{mark}[/] {finding.what:<16} {_plain(finding.found)}", soft_wrap=True
        )
        if finding.advice:
            console.print(f"  {'':<16} → {_plain(finding.advice)}", soft_wrap=True)
    bad, notes = ([f.what for f in findings if f.state == s] for s in ("bad", "note"))
    if bad:
        console.print(f"[red]Not ready:[/] see to {', '.join(bad)} (→ above).", soft_wrap=True)
        raise typer.Exit(1)
    extra = f"; without {', '.join(notes)} some things are slower or missing" if notes else ""
    console.print(f"[green]Ready{extra}.[/]", soft_wrap=True)


@app.command(epilog="Example: workbench figures wordnet_disk --profile quick -p seed=1")
def figures(
    names: Annotated[list[str] | None, typer.Argument(help="Runs or figures; all if none is named.")] = None,
    profile: Annotated[
        str, typer.Option(help="quick (minutes on a laptop) or full (a paper's size).")
    ] = "quick",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="Set a notebook parameter."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Run also what is up to date.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; fail if a figure is missing or stale.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Run nothing; list runs, figures and their state.")
    ] = False,
) -> None:
    """Run notebooks headless and put what they record into figures/. Skips what is up to date."""
    from workbench.runs import manifest, plan

    listing = manifest.load()
    tasks = plan.plan(listing, names or (), profile, parameter or (), force=force)
    if list_:
        _list(tasks)
    elif check:
        _check(tasks)
    else:
        _run(listing, tasks, jobs)


def _list(tasks: list[Task]) -> None:
    table = Table("run", "figures", "notebook", "limit", "state")
    for task in tasks:
        state = f"[yellow]{_plain(task.reasons[0])}[/]" if task.reasons else "[green]up to date[/]"
        limit = f"{task.seconds / 60:.0f} min"
        table.add_row(task.name, "\n".join(task.folders().values()), task.entry.notebook, limit, state)
    console.print(table if tasks else "The manifest lists no runs yet.")


def _check(tasks: list[Task]) -> None:
    stale = [task for task in tasks if task.reasons]
    for task in stale:
        more = f" and {len(task.reasons) - 3} more" if len(task.reasons) > 3 else ""
        console.print(f"[yellow]{task.name}[/]: {_plain('; '.join(task.reasons[:3]))}{more}", soft_wrap=True)
    if stale:
        console.print(f"{len(stale)} of {len(tasks)} runs are missing or out of date: workbench figures")
        raise typer.Exit(1)
    console.print(
        f"[green]All {len(tasks)} runs are up to date.[/]" if tasks else "The manifest lists no runs yet."
    )


def _run(listing: Any, tasks: list[Task], jobs: int) -> None:
    from workbench.runs.index import write_index
    from workbench.runs.live import Watcher
    from workbench.runs.runner import run

    due = [task for task in tasks if task.reasons]
    try:
        with Watcher(console) as watcher:
            for task in tasks:
                if not task.reasons:
                    watcher.say(f"[green]✓[/] {task.name} is up to date")
            outcomes = run(listing, due, jobs=jobs, watch=watcher)
        page = write_index(listing)
    except KeyboardInterrupt:
        errors.print("Interrupted: unfinished notebooks were stopped, and their figures are as they were.")
        raise typer.Exit(130) from None
    console.print(f"All figures on one page: {_relative(page)}", soft_wrap=True)
    if failed := [o for o in outcomes if o.status != "done"]:
        for o in failed:
            errors.print(
                f"[red]{o.task.name} {o.status}:[/] {_plain(o.message)} (see {_relative(o.log)})",
                soft_wrap=True,
            )
        raise typer.Exit(1)


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@data_app.command("list", epilog="Example: workbench data list")
def data_list() -> None:
    """The data sets that the workbench knows, and which of them are here."""
    from workbench.data import registry

    for name, entry in registry.DATASETS.items():
        here = "shipped" if entry.embedded else "here" if entry.location.is_file() else "·"
        line = f"[bold]{name:<26}[/] {_size(entry.size):>8}  {here:<8} {_plain(entry.about)}"
        cut = "ellipsis" if console.is_terminal else "ignore"
        console.print(line, no_wrap=True, overflow=cut, crop=console.is_terminal)


@data_app.command("get", epilog="Example: workbench data get wordnet")
def data_get(names: Annotated[list[str], typer.Argument(help="Data sets, or `all`.")]) -> None:
    """Download data sets into the cache ($WORKBENCH_DATA moves it); a wrong checksum is refused."""
    from workbench.data import registry

    names = list(registry.DATASETS) if names == ["all"] else names
    for name in names:
        registry.info(name)  # a wrong name is refused before the first download
    failures = []
    for name in names:
        try:
            console.print(
                f"[green]✓[/] {name}: {registry.fetch(name, progress=console.is_terminal)}", soft_wrap=True
            )
        except DataError as e:
            failures.append(name)
            errors.print(f"[red]error:[/] {_plain(e)}", soft_wrap=True)
    if failures:
        raise typer.Exit(1)


@data_app.command("info", epilog="Example: workbench data info wordnet")
def data_info(name: Annotated[str, typer.Argument(help="A data set.")]) -> None:
    """Everything known about one data set: source, licence, checksum, and whether the file here is sound."""
    from workbench.data import registry

    entry = registry.info(name)
    table = Table.grid(padding=(0, 2))
    for field in ("name", "about", "licence", "url", "obtain", "sha256"):
        if value := getattr(entry, field):
            table.add_row(field, _plain(value))
    table.add_row("size", _size(entry.size))
    table.add_row("file", _plain(registry.local(name) or f"not here; expected at {entry.location}"))
    console.print(table)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


@app.command(epilog="Example: workbench explore points.csv --edges tree.tsv")
def explore(
    file: Annotated[
        str, typer.Argument(help="csv, tsv, parquet, npy, npz, safetensors, word vectors; or wordnet.")
    ] = "wordnet",
    labels: Annotated[Path | None, typer.Option(help="A text file with one name a line.")] = None,
    edges: Annotated[
        Path | None, typer.Option(help="A table of two columns, parent and child: names or row numbers.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="poincare, lorentz or euclidean; guessed if not given.")
    ] = None,
    c: Annotated[float | None, typer.Option(help="Curvature, 1 if the file does not say.")] = None,
    page: Annotated[Path | None, typer.Option(help="Where to write the page.")] = None,
    lab_: Annotated[bool, typer.Option("--lab", help="Open it in JupyterLab instead.")] = False,
    browser: Annotated[bool, typer.Option(help="Open the page when it is written.")] = True,
) -> None:
    """Show an embedding on a disk that moves by isometries: one page, which works offline."""
    from workbench.widgets.opening import opened

    about = {"labels": labels, "edges": edges, "space": space, "c": c}
    about = {name: value for name, value in about.items() if value is not None}
    if file == "wordnet" and about:
        raise ParameterError(f"wordnet has its own names, edges and space, but {next(iter(about))} came")
    view, told = opened(file, size=900, **about)
    console.print(_plain(told), soft_wrap=True)
    if lab_:
        raise typer.Exit(_passed_on([sys.executable, "-m", "jupyterlab", str(_sheet(file, about))]))
    target = page or Path.cwd() / f"{Path(file).stem}.html"
    console.print(f"[green]✓[/] {_relative(view.to_html(target, title=Path(file).name).resolve())}")
    if browser:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())


def _sheet(file: str, about: dict[str, Any]) -> Path:
    """A notebook that opens the same view, beside the file or, for what is shipped, here."""
    import nbformat

    from workbench.files import atomic_write

    place = Path(file).resolve()
    given = [f"{n}={(str(v.resolve()) if isinstance(v, Path) else v)!r}" for n, v in about.items()]
    what = repr(file if file == "wordnet" else str(place))
    code = (
        f"from workbench.widgets.opening import opened\n\nview, told = opened({', '.join([what, *given])})\n"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{code}print(told)\nview")])
    path = (Path.cwd() if file == "wordnet" else place.parent) / f"{place.stem}_explore.ipynb"
    if not path.exists():  # what somebody has gone on with stays
        with atomic_write(path) as f:
            nbformat.write(book, f)
    return path


lessons = typer.Typer(
    help="The course: what a workshop needs, from the lessons' notebooks.", no_args_is_help=True
)
app.add_typer(lessons, name="lessons")


@lessons.command(epilog="Example: workbench lessons build --only 2")
def build(
    folder: Annotated[Path | None, typer.Argument(help="Where to write; default build/lessons.")] = None,
    only: Annotated[list[int] | None, typer.Option(help="Number of a lesson; may be repeated.")] = None,
    run: Annotated[bool, typer.Option(help="Execute the lessons first, which takes minutes.")] = True,
) -> None:
    """Write notebooks to fill in and solved ones, pages, slides, the instructor guide and an index of it all."""
    from workbench.lessons.build import build as build_lessons
    from workbench.runs.live import Watcher

    with Watcher(console) as watcher:
        built = build_lessons(folder, only or (), run=run, watch=watcher)
    for problem in built.problems:
        console.print(f"[yellow]![/] {_plain(problem)}", soft_wrap=True)
    console.print(f"[green]✓[/] {_relative(built.index.resolve())}")
    raise typer.Exit(1 if built.problems and run else 0)


RAW = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(epilog="Example: workbench lab --no-browser", context_settings=RAW)
def lab(context: typer.Context) -> None:
    """Open JupyterLab in notebooks/, at 00_start_here. Further options go to JupyterLab."""
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={_checkout() / 'notebooks'}",
        "--LabApp.default_url=/lab/tree/00_start_here.ipynb",
        *context.args,
    ]
    raise typer.Exit(_passed_on(command))


@app.command(epilog="Example: workbench bench embeddings --help", context_settings=RAW)
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A benchmark; without it they are listed.")] = None,
) -> None:
    """Run one of benchmarks/: timings side by side with the packages a user would pick instead."""
    found = {f.stem: f for f in sorted((_checkout() / "benchmarks").glob("[!_]*.py"))}
    if name is None:
        for stem, file in found.items():
            console.print(f"[bold]{stem}[/]  {_plain(_first_line(file))}", soft_wrap=True)
        return
    if name not in found:
        listed = ", ".join(found) or "none yet"
        raise ParameterError(f"no benchmark named {name!r}{suggest(name, found)}; there are {listed}")
    raise typer.Exit(_passed_on([sys.executable, str(found[name]), *context.args]))


def _passed_on(command: list[str]) -> int:
    """Run a program that deals with Ctrl-C itself; its exit code."""
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _checkout() -> Path:
    from workbench.paths import checkout

    try:
        return checkout()
    except FileNotFoundError as e:
        raise WorkbenchError(str(e)) from None


def _first_line(file: Path) -> str:
    import ast

    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
