"""What there is to do: for each notebook asked for, its settled parameters and the reasons to run it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import ParameterError, WorkbenchError, suggest
from workbench.runs import keys, notebook
from workbench.runs.manifest import INJECTED, PROFILES, Entry, Manifest


@dataclass(frozen=True)
class Task:
    """One notebook to run, every parameter settled. No reasons: its figures are up to date."""

    entry: Entry
    profile: str
    parameters: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    smoke: bool = False

    @property
    def name(self) -> str:
        return folder_name(self.entry.id, self.profile)

    @property
    def seconds(self) -> float:
        """The hard time limit."""
        return self.entry.seconds("smoke" if self.smoke else self.profile)

    def folders(self) -> dict[str, str]:
        """Figure id to the name of its folder."""
        return {figure: folder_name(figure, self.profile) for figure in self.entry.figures}


def folder_name(name: str, profile: str) -> str:
    """The id itself, with `@full` for the paper-size profile: figures/<this>,
    build/notebooks/<this>.ipynb.
    """
    return f"{name}@full" if profile == "full" else name


def plan(
    manifest: Manifest,
    names: Iterable[str] = (),
    profile: str = "quick",
    overrides: Iterable[str] = (),
    *,
    figures: Path | None = None,
    force: bool = False,
    smoke: bool = False,
) -> list[Task]:
    """Settle every task before any runs, so that a wrong word on the command line costs nothing.

    Args:
        names: run or figure ids; none means all that have this profile.
        overrides: `key=value` strings, which win over the profile.
        figures: the folder to compare with (default: the manifest's).
        smoke: the manifest's tiny parameters on top of the quick profile, as tests use them.

    Raises:
        ParameterError: an unknown name, profile or parameter, or a value of the wrong type.
    """
    if profile not in PROFILES:
        raise ParameterError(
            f"no profile {profile!r}{suggest(profile, PROFILES)}; known are {', '.join(PROFILES)}"
        )
    names, overrides = list(names), list(overrides)
    entries = manifest.select(names)
    lacking = [e.id for e in entries if profile not in e.profiles]
    if names and lacking:
        raise ParameterError(f"{', '.join(lacking)}: the manifest has no {profile} profile for it")
    figures = figures or manifest.root / "figures"
    tasks = []
    for entry in entries:
        if entry.id not in lacking:
            parameters = settle(manifest, entry, profile, overrides, smoke)
            task = Task(entry, profile, parameters, (), smoke)
            reasons = ["asked for"] if force or smoke else stale(manifest, task, figures)
            tasks.append(Task(entry, profile, parameters, tuple(reasons), smoke))
    return tasks


def settle(
    manifest: Manifest, entry: Entry, profile: str, overrides: Iterable[str], smoke: bool = False
) -> dict[str, Any]:
    """All parameters of one run: the notebook's defaults, then the profile, then smoke values, then
    overrides.
    """
    known = notebook.declared(manifest.notebook(entry))
    values = {name: p.default for name, p in known.items()}
    layers = [(f"manifest, {entry.id}, {profile}", entry.profiles[profile])]
    if smoke:
        layers.append((f"manifest, {entry.id}, smoke", entry.smoke))
    for where, layer in layers:
        notebook.refuse_unknown(layer, known, where)
        values |= {name: known[name].check(value, where) for name, value in layer.items()}
    for override in overrides:
        name, equals, text = override.partition("=")
        where = f"-p {override}"
        if not equals:
            raise ParameterError(f"{where}: expected key=value")
        if name in INJECTED:
            raise ParameterError(
                f"{where}: {name} is set by the runner" + (", use --profile" * (name == "profile"))
            )
        notebook.refuse_unknown([name], known, f"{where} ({entry.id})")
        values[name] = known[name].parse(text, where)
    return values | {"profile": profile, "live": False}


def stale(manifest: Manifest, task: Task, figures: Path) -> list[str]:
    """Why a task's figures are not up to date; empty if they are."""
    now = keys.current(manifest.notebook(task.entry), task.parameters, task.entry.data)
    reasons: list[str] = []
    for folder in task.folders().values():
        record = read_record(figures / folder)
        if record is None or not (figures / folder / "figure.json").is_file():
            reasons.append(f"{folder} is missing")
        elif not record.get("inputs") or keys.key(record["inputs"]) != record.get("key"):
            reasons.append(f"{folder} was not made by a whole run")
        else:
            reasons += keys.changes(record["inputs"], now)
    return list(dict.fromkeys(reasons))


def read_record(folder: Path) -> dict[str, Any] | None:
    """The `run.json` of a figure, or None if there is none.

    Raises:
        WorkbenchError: it is there and unreadable.
    """
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise WorkbenchError(f"{path} is not readable JSON ({e}); delete it to have it made again") from e
    if not isinstance(record, dict) or "numbers" not in record:
        raise WorkbenchError(f"{path} is not a run record; delete it to have it made again")
    return record
