"""What this machine has and lacks, each finding with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

INSTALL = "pip install -e '.[test]' -c constraints.txt"


@dataclass(frozen=True)
class Finding:
    """One line of `workbench doctor`: state is "ok", "note" (works without) or "bad" (does not work)."""

    what: str
    state: str
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Every check in turn; a check that itself breaks is a bad finding, not a crash."""
    findings = []
    for check in (python, packages, torch_device, compiler, browser, widgets, kernel, assets, cache, figures):
        try:
            findings.append(check())
        except Exception as e:
            findings.append(Finding(check.__name__, "bad", f"{type(e).__name__}: {e}", INSTALL))
    return findings


def python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} in {sys.prefix}")


def packages() -> Finding:
    """Everything that pyproject.toml asks for, in the versions it asks for."""
    from packaging.requirements import Requirement

    wrong, shown = [], []
    for text in metadata.requires("hyperbolic-workbench") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        if requirement.name in ("torch", "geoopt", "plotly", "jupyterlab", "papermill"):
            shown.append(f"{requirement.name} {version}")
    if wrong:
        return Finding("packages", "bad", "; ".join(wrong), INSTALL)
    return Finding("packages", "ok", ", ".join(shown))


def torch_device() -> Finding:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding(
            "device", "ok", f"{torch.cuda.get_device_name()}, {memory:.0f} GiB, CUDA {torch.version.cuda}"
        )
    cores = f"{torch.get_num_threads()} CPU threads, no CUDA device"
    if shutil.which("nvidia-smi"):
        return Finding(
            "device", "note", cores, "a GPU is here but this torch cannot use it: install a CUDA build"
        )
    return Finding("device", "ok", cores + " (the quick profile needs none)")


def compiler() -> Finding:
    """torch.compile builds C++ on a CPU."""
    wanted = [os.environ.get("CXX"), "c++", "g++", "clang++", "cl"]
    found = next((path for name in wanted if name and (path := shutil.which(name))), None)
    if found is None:
        return Finding("compiler", "note", "no C++ compiler", "torch.compile needs one: apt-get install g++")
    return Finding("compiler", "ok", found)


def browser() -> Finding:
    from workbench.plots import find_browser

    if found := find_browser():
        return Finding("browser", "ok", str(found))
    advice = (
        "PNG needs Chrome or Chromium (apt-get install chromium, or plotly_get_chrome); JSON and HTML do not"
    )
    return Finding("browser", "note", "no Chrome or Chromium", advice)


def widgets() -> Finding:
    """The prebuilt JupyterLab extensions behind live views."""
    from jupyter_core.paths import jupyter_path

    folders = [Path(p) for p in jupyter_path("labextensions")]
    needed = ("anywidget", "@jupyter-widgets/jupyterlab-manager")
    missing = [name for name in needed if not any((folder / name).is_dir() for folder in folders)]
    if missing:
        return Finding("widgets", "bad", f"JupyterLab lacks {', '.join(missing)}", INSTALL)
    return Finding(
        "widgets", "ok", ", ".join(f"{n} {metadata.version(n)}" for n in ("anywidget", "ipywidgets"))
    )


def kernel() -> Finding:
    """Notebooks name the kernel `python3`; a kernel of that name from elsewhere would run another Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if (
        Path(program).name == program
        or Path(program).absolute().parent == Path(sys.executable).absolute().parent
    ):
        return Finding("kernel", "ok", "python3 runs this environment")
    advice = (
        f"another kernel took the name: {sys.executable} -m ipykernel install --sys-prefix --name python3"
    )
    return Finding("kernel", "bad", f"python3 runs {program}", advice)


def assets() -> Finding:
    from workbench.paths import PACKAGE

    files = [f for f in sorted((PACKAGE / "assets").glob("*")) if f.suffix != ".md"]
    if not any("wordnet" in f.name for f in files):
        return Finding("assets", "bad", "the embedded WordNet is missing", "clone the repository again")
    size = sum(f.stat().st_size for f in files) / 1e6
    return Finding("assets", "ok", f"WordNet and {len(files) - 1} other files, {size:.1f} MB")


def cache() -> Finding:
    from workbench.paths import cache_dir

    return _writable("cache", cache_dir(), "set WORKBENCH_DATA to a folder you may write to")


def figures() -> Finding:
    from workbench.paths import checkout

    try:
        folder = checkout() / "figures"
    except FileNotFoundError:
        return Finding("checkout", "note", "not inside a checkout", "`workbench figures` runs inside one")
    return _writable("checkout", folder, "figures cannot be written there")


def _writable(what: str, folder: Path, advice: str) -> Finding:
    """Can a file be made in `folder`, or, where it is yet to be made, in the nearest folder above?"""
    there = next(p for p in [folder, *folder.parents] if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding(what, "ok", str(folder))
    except OSError:
        return Finding(what, "bad", f"{folder} is not writable", advice)
