"""What a notebook says to the outside: `show` for the eye, `record` for `figures/`."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench.errors import ParameterError, WorkbenchError, suggest
from workbench.files import write_json
from workbench.runs import keys

RUN = "WORKBENCH_RUN"  # environment variables set by the runner only: the file that describes the run,
PROGRESS = "WORKBENCH_PROGRESS"  # and the file that says how far it is
PACKAGES = ("torch", "geoopt", "numpy", "plotly", "papermill")
_shown: Any = None  # the last object displayed, so that show(fig) before record("…", fig) draws it once


def context() -> dict[str, Any] | None:
    """What the runner told this process about its run, or None in an interactive session."""
    path = os.environ.get(RUN)
    return _read(path) if path else None


@cache
def _read(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def in_kernel() -> bool:
    """Is this a Jupyter kernel?"""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def show(fig: Any, static: Any = None, live: bool | None = None) -> None:
    """Display a figure or a widget.

    A headless run carries no widgets: there the plotly figure `static` stands in for one (a line of text,
    if none is given). `live` overrides the guess: pass a notebook's own `live` parameter, or nothing.
    Outside Jupyter this does nothing.
    """
    global _shown
    if not in_kernel():
        return
    from IPython.display import Markdown, display

    if live is None:
        live = context() is None
    if not live and _is_widget(fig):
        fig = static if static is not None else Markdown("*An interactive view stands here in JupyterLab.*")
    _shown = fig
    display(fig)


def _is_widget(thing: Any) -> bool:
    return any(cls.__module__.startswith("ipywidgets") for cls in type(thing).__mro__)


def record(
    figure_id: str,
    fig: Any,
    *,
    numbers: Mapping[str, Any],
    verdict: str,
    caption: str = "",
    view: Any = None,
    save: bool = False,
) -> None:
    """Record a plotly figure with the numbers it shows and one honest sentence computed from them.

    Under `workbench figures` the figure goes into the run's staging folder, and from there into `figures/`
    once the whole notebook has succeeded. In an interactive session it is displayed, and written only if
    `save` is true.

    Args:
        figure_id: one of the ids that the manifest lists for this notebook.
        fig: a plotly figure.
        numbers: name to number, string, list or mapping of those; numpy and torch values are welcome, NaN is
            not.
        verdict: what the numbers say, also when it is not what one hoped for.
        caption: what is drawn; one or two sentences.
        view: a widget with `to_html(path)`, written beside the figure as an offline page `view.html`.
        save: write also in an interactive session.

    Raises:
        ParameterError: a figure id that the manifest does not give this notebook or that was recorded before,
            a number that is not finite or not JSON, an empty verdict.
    """
    if not hasattr(fig, "to_plotly_json"):
        raise ParameterError(f"record({figure_id!r}) needs a plotly figure, not {type(fig).__name__}")
    if not (isinstance(verdict, str) and verdict.strip()):
        raise ParameterError(f"record({figure_id!r}) needs a verdict: one sentence computed from the numbers")
    if not isinstance(numbers, Mapping) or not numbers:
        raise ParameterError(
            f"record({figure_id!r}) needs the numbers drawn, as a mapping from name to value"
        )
    numbers, verdict = plain(numbers, "numbers"), " ".join(verdict.split())
    run = context()
    if run is not None:
        _check_id(figure_id, run)
    if fig is not _shown:
        show(fig)
    if in_kernel():
        from IPython.display import Markdown, display

        display(Markdown(f"**{verdict}**"))
    if run is not None:
        _write(Path(run["staging"]) / figure_id, figure_id, fig, numbers, verdict, caption, view, run)
    elif save:
        _save(figure_id, fig, numbers, verdict, caption, view)


def plain(value: Any, where: str) -> Any:
    """`value` as JSON would have it: numpy and torch scalars and arrays become numbers and lists.

    Raises:
        ParameterError: NaN, an infinity, or something JSON has no word for; names the place.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}[{str(k)!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ParameterError(f"{where} is {value}: only finite numbers are recorded")
        return float(value) if isinstance(value, float) else int(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist(), where)
    raise ParameterError(
        f"{where} is a {type(value).__name__}: only numbers, strings, lists and mappings are recorded"
    )


def _check_id(figure_id: str, run: Mapping[str, Any]) -> None:
    if figure_id not in run["figures"]:
        listed, hint = ", ".join(run["figures"]), suggest(figure_id, run["figures"])
        raise ParameterError(
            f"the manifest does not list {figure_id!r} for {run['notebook']}{hint}; it lists {listed}"
        )
    if (Path(run["staging"]) / figure_id).exists():
        raise ParameterError(f"figure {figure_id!r} was recorded twice in one run")


def _save(figure_id: str, fig: Any, numbers: Any, verdict: str, caption: str, view: Any) -> None:
    """Write a figure from an interactive session: provenance as far as it is known, and no key, so that it
    never
    counts as up to date."""
    from workbench.runs.manifest import NAME, load

    if not NAME.fullmatch(figure_id):
        raise ParameterError(f"a figure id is lower-case letters, digits, _ and -, not {figure_id!r}")
    root = load().root
    folder = root / "figures" / figure_id
    run = {
        "run": None,
        "notebook": None,
        "title": figure_id,
        "profile": None,
        "parameters": {},
        "started": time.time(),
    }
    run |= {"git": git_state(root), "formats": None, "sources": None}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".staging-") as staging:
        aside = Path(staging) / figure_id
        _write(aside, figure_id, fig, numbers, verdict, caption, view, run)
        replace_folder(aside, folder)
        share_script(Path(staging), folder.parent)


def share_script(staging: Path, figures: Path) -> None:
    """Move the one copy of plotly's script that all interactive pages load from the folder above theirs."""
    if (script := staging / "plotly.min.js").is_file():
        os.replace(script, figures / script.name)


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` where `old` is; on failure `old` stays."""
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        os.replace(old, aside)
    try:
        os.replace(new, old)
    except BaseException:
        if aside.exists():
            os.replace(aside, old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write(
    folder: Path,
    id: str,
    fig: Any,
    numbers: Any,
    verdict: str,
    caption: str,
    view: Any,
    run: Mapping[str, Any],
) -> None:
    import plotly.graph_objects as go

    from workbench import plots

    fig = go.Figure(fig)  # a copy: the notebook's figure stays as it is
    fig.update_layout(meta={"figure": id, "numbers": numbers, "verdict": verdict, "caption": caption})
    try:
        folder.mkdir(parents=True)
        plots.write(fig, folder, **({"formats": tuple(run["formats"])} if run["formats"] else {}))
        if not (folder / "figure.json").is_file():
            raise WorkbenchError(f"figure {id!r} was not written")
        if view is not None:
            view.to_html(folder / "view.html")
        write_json(folder / "run.json", provenance(id, numbers, verdict, caption, run))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def provenance(id: str, numbers: Any, verdict: str, caption: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `run.json`: where a figure came from, and everything about it that changes from
    run to run.
    """
    inputs = None
    if run["sources"] is not None:
        sources = keys.loaded(run["sources"], sys.modules)
        inputs = keys.inputs(run["code"], run["parameters"], sources, run["assets"], run["data"])
    return {
        "figure": id,
        "run": run["run"],
        "title": run["title"],
        "notebook": run["notebook"],
        "profile": run["profile"],
        "parameters": run["parameters"],
        "seed": run["parameters"].get("seed"),
        "numbers": numbers,
        "verdict": verdict,
        "caption": " ".join(caption.split()),
        "key": keys.key(inputs) if inputs else None,
        "inputs": inputs,
        "git": run["git"],
        "started": datetime.fromtimestamp(run["started"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "duration_s": round(time.time() - run["started"], 1),
        "machine": machine(),
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python, the workbench and the packages that decide what a figure shows."""
    found = {"python": platform.python_version()}
    for name, package in [("workbench", "hyperbolic-workbench"), *((p, p) for p in PACKAGES)]:
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """Platform, device and threads; the GPU's name if one is in use."""
    about = {
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _processor(),
        "cores": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    about["threads"] = (
        torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())
    )
    if torch and torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


def _processor() -> str:
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        model = None
    return model[1].strip() if model else platform.processor() or platform.machine()


def git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the checkout and whether its tracked files, figures aside, differ from it; None without
    git.
    """
    import subprocess

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)figures")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None
