"""Run notebooks: each in its own process with a hard time limit, its figures all or none into `figures/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench.files import write_json
from workbench.runs import keys, notebook
from workbench.runs.manifest import Manifest
from workbench.runs.plan import Task
from workbench.runs.recording import PROGRESS, RUN, git_state, replace_folder, share_script

STAGING = ".staging-"
SMOKE_FORMATS = ("json",)  # a test looks at numbers; pictures cost a browser each


@dataclass(frozen=True)
class Outcome:
    """How a task ended: `done`, `failed` or `timeout`, the latter two with a sentence."""

    task: Task
    status: str
    duration: float
    message: str
    notebook: Path
    log: Path


Watch = Callable[
    [str, Task, Any], None
]  # ("start", task, None), ("cell", task, (5, 20)), ("end", task, outcome)


def run(
    manifest: Manifest,
    tasks: Iterable[Task],
    *,
    figures: Path | None = None,
    build: Path | None = None,
    jobs: int = 1,
    watch: Watch = lambda *_: None,
) -> list[Outcome]:
    """Run tasks, at most `jobs` at a time, and publish the figures of each notebook that succeeded.

    Args:
        figures: where figures go (default: the manifest's folder).
        build: where executed notebooks and logs go (default: `build/` in the checkout).
        watch: called as things happen; see `Watch`.

    An exception, Ctrl-C above all, stops every notebook with all its processes and leaves no trace in
    `figures`.
    """
    figures = figures or manifest.root / "figures"
    build = build or manifest.root / "build"
    figures.mkdir(parents=True, exist_ok=True)
    _sweep(figures)
    shared = {
        "git": git_state(manifest.root),
        "all_sources": keys.source_hashes(),
        "assets": keys.asset_hash(),
    }
    waiting, running, done = list(tasks), [], []
    try:
        while waiting or running:
            while waiting and len(running) < max(1, jobs):
                running.append(_Run(manifest, waiting.pop(0), figures, build, jobs, shared))
                watch("start", running[-1].task, None)
            time.sleep(0.1)
            for one in list(running):
                if (outcome := one.poll()) is None:
                    if cells := one.cells():
                        watch("cell", one.task, cells)
                    continue
                running.remove(one)
                done.append(outcome)
                watch("end", one.task, outcome)
    finally:
        for one in running:
            one.stop()
    return done


class _Run:
    """One notebook's process, its staging folder and its time limit."""

    def __init__(
        self, manifest: Manifest, task: Task, figures: Path, build: Path, jobs: int, shared: dict[str, Any]
    ) -> None:
        self.task, self.figures, self.started = task, figures, time.time()
        self.notebook = build / "notebooks" / f"{task.name}.ipynb"
        self.log = build / "logs" / f"{task.name}.log"
        for path in (self.notebook, self.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that publishing is a rename; the process id tells who left it.
        self.staging = Path(tempfile.mkdtemp(prefix=f"{STAGING}{os.getpid()}-", dir=figures)).resolve()
        try:
            self._describe(manifest, shared)
            env = environment(jobs) | {RUN: str(self._own("context")), PROGRESS: str(self._own("progress"))}
            command = [sys.executable, "-m", "workbench.runs.execute", str(self._own("job.json"))]
            with open(self.log, "w", encoding="utf-8") as log:
                self.process = subprocess.Popen(
                    command,
                    cwd=manifest.root,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C in the terminal is for us to pass on
                )
        except BaseException:
            shutil.rmtree(self.staging, ignore_errors=True)
            raise

    def _own(self, name: str) -> Path:
        return self.staging / f".{name}"

    def _describe(self, manifest: Manifest, shared: dict[str, Any]) -> None:
        """Write what the child runs, and what `record` needs to know about it."""
        entry, path = self.task.entry, manifest.notebook(self.task.entry)
        job = {
            "input": str(path),
            "output": str(self.notebook.resolve()),
            "parameters": dict(self.task.parameters),
            "cwd": str(manifest.root),
        }
        write_json(self._own("job.json"), job)
        about = {
            "run": entry.id,
            "title": entry.title,
            "notebook": entry.notebook,
            "figures": list(entry.figures),
            "profile": "smoke" if self.task.smoke else self.task.profile,
            "parameters": dict(self.task.parameters),
            "staging": str(self.staging),
            "started": self.started,
            "code": keys.code_hash(notebook.code_cells(notebook.read(path))),
            "sources": shared["all_sources"],
            "assets": shared["assets"],
            "data": keys.data_hashes(entry.data),
            "git": shared["git"],
            "formats": SMOKE_FORMATS if self.task.smoke else None,
        }
        write_json(self._own("context"), about)

    def cells(self) -> tuple[int, int] | None:
        """(cell under way, number of cells), once there is one."""
        try:
            at, of = self._own("progress").read_text(encoding="utf-8").split()
            return int(at), int(of)
        except (OSError, ValueError):
            return None

    def poll(self) -> Outcome | None:
        """The outcome, once there is one; kills the run when its time is up."""
        elapsed = time.time() - self.started
        if self.process.poll() is None:
            if elapsed < self.task.seconds:
                return None
            self.stop()
            return self._outcome("timeout", f"stopped after its limit of {self.task.seconds:g} s")
        try:
            if error := self._error():
                return self._outcome("failed", error)
            self._publish()
            return self._outcome("done", "")
        finally:
            self.stop()

    def _error(self) -> str | None:
        """What went wrong, or None: the child's own sentence, or a figure that was not recorded."""
        try:
            told = json.loads(self._own("outcome.json").read_text(encoding="utf-8"))["error"]
        except FileNotFoundError:
            return f"its process ended with exit code {self.process.returncode}"
        if told:
            return re.sub(r"\x1b\[[0-9;]*m", "", told)
        missing = [f for f in self.task.entry.figures if not (self.staging / f / "run.json").is_file()]
        return f"it recorded no {', '.join(missing)}" if missing else None

    def _publish(self) -> None:
        duration = round(time.time() - self.started, 1)
        for figure in self.task.entry.figures:
            record = self.staging / figure / "run.json"
            write_json(record, json.loads(record.read_text(encoding="utf-8")) | {"duration_s": duration})
        with _uninterrupted():
            for figure, folder in self.task.folders().items():
                replace_folder(self.staging / figure, self.figures / folder)
            share_script(self.staging, self.figures)

    def _outcome(self, status: str, message: str) -> Outcome:
        return Outcome(self.task, status, time.time() - self.started, message, self.notebook, self.log)

    def stop(self) -> None:
        """End the process with its kernel and whatever they started, and clear the staging folder."""
        kill_tree(self.process.pid)
        self.process.wait()
        shutil.rmtree(self.staging, ignore_errors=True)


def kill_tree(pid: int) -> None:
    """SIGKILL a process, its descendants, and the process groups they lead (a kernel leads its own)."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    groups = {pid} if hasattr(os, "killpg") else set()
    for process in tree:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if hasattr(os, "killpg"):
                groups.add(os.getpgid(process.pid))
            process.kill()
    for group in groups - ({os.getpgrp()} if hasattr(os, "getpgrp") else set()):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    psutil.wait_procs(tree, timeout=10)


def environment(jobs: int) -> dict[str, str]:
    """The environment of a run: the caller's, with what makes runs alike settled, and cores shared
    among jobs.
    """
    env = dict(os.environ)
    env |= {"PYTHONHASHSEED": "0", "PLOTLY_RENDERER": "plotly_mimetype", "PYTHONUNBUFFERED": "1"}
    if jobs > 1:
        env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    return env


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back for the moment it takes to rename a run's folders."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sweep(figures: Path) -> None:
    """Remove staging folders whose runner is gone, and put back a figure whose exchange was cut in two."""
    for left in figures.glob(f"{STAGING}*"):
        owner = left.name.removeprefix(STAGING).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    for aside in figures.glob(".*.old"):
        target = figures / aside.name[1 : -len(".old")]
        shutil.rmtree(aside) if target.exists() else os.replace(aside, target)
