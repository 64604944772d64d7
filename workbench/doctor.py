"""What this machine has and lacks, each finding with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
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


def examine(classroom: bool = False) -> list[Finding]:
    """Every check in turn; a check that itself breaks is a bad finding, not a crash.

    classroom: also what the leader of a workshop wants to know of each laptop the day before; takes half a minute.
    """
    findings = []
    checks = (python, packages, torch_device, compiler, browser, widgets, kernel, assets, cache, figures)
    for check in (*checks, kernel_runs, view, graphics, memory, disk, speed) if classroom else checks:
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


# -- the day before a workshop ------------------------------------------------------------------------


def kernel_runs() -> Finding:
    """Does a kernel start, and does a cell come back?"""
    from jupyter_client.manager import start_new_kernel

    begun = time.perf_counter()
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    try:
        reply = client.execute_interactive("import workbench", timeout=60, output_hook=lambda _: None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    seconds = f"a first cell comes back after {time.perf_counter() - begun:.0f} s"
    if reply["content"]["status"] != "ok":
        return Finding("a first cell", "bad", f"it stops with {reply['content'].get('ename')}", INSTALL)
    return Finding("a first cell", "ok", seconds)


def view() -> Finding:
    """Can the disk be made and written as a page, without a network?"""
    from workbench.data import wordnet
    from workbench.models import PoincareEmbedding
    from workbench.widgets import DiskView

    begun = time.perf_counter()
    nouns, table = wordnet.nouns(), PoincareEmbedding.pretrained("wordnet-2d")
    with tempfile.TemporaryDirectory() as folder:
        size = DiskView.of(nouns, table.points).to_html(Path(folder) / "nouns.html").stat().st_size
    seconds = time.perf_counter() - begun
    return Finding("views", "ok", f"{len(nouns):,} nouns as a page of {size / 1e6:.0f} MB in {seconds:.0f} s")


def graphics() -> Finding:
    """WebGL2 in the browser that was found: large views are smoother with it."""
    from workbench.plots import find_browser

    program = find_browser()
    if program is None:
        return Finding(
            "graphics", "note", "not tried: no Chrome or Chromium was found", "any browser will do"
        )
    script = "document.title = document.createElement('canvas').getContext('webgl2') ? 'yes' : 'no'"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "try.html"
        page.write_text(f"<!doctype html><title>?</title><script>{script}</script>", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={folder}/profile"]
        done = subprocess.run(
            [str(program), *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60
        )
    if "<title>yes</title>" in done.stdout:
        return Finding("graphics", "ok", "WebGL2")
    return Finding("graphics", "note", "no WebGL2", "views are drawn on a canvas instead, which does")


def memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    if free < 2:
        return Finding("memory", "note", f"{free:.1f} GiB free", "close other programs: lessons want 2 GiB")
    return Finding("memory", "ok", f"{free:.0f} GiB free")


def disk() -> Finding:
    from workbench.paths import cache_dir

    there = next(p for p in [cache_dir(), *cache_dir().parents] if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    if free < 1:
        return Finding("disk", "note", f"{free:.1f} GiB free", "lessons want 1 GiB for what they write")
    return Finding("disk", "ok", f"{free:.0f} GiB free")


def speed() -> Finding:
    """Ten passes of lesson 4's training, the longest cell of the course; there it makes 300."""
    from workbench.data import wordnet
    from workbench.manifolds import PoincareBall
    from workbench.models import EmbeddingConfig
    from workbench.training.embedding import EmbeddingTrainer

    h = wordnet.mammals()
    trainer = EmbeddingTrainer(h, PoincareBall(), EmbeddingConfig.for_size(len(h), dim=2))
    trainer.run_epoch()  # the first one warms up
    begun = time.perf_counter()
    [trainer.run_epoch() for _ in range(10)]
    seconds = 30 * (time.perf_counter() - begun)
    if seconds > 90:
        return Finding("speed", "note", f"the longest cell takes about {seconds:.0f} s", "plan for waiting")
    return Finding("speed", "ok", f"the longest cell of the lessons takes about {seconds:.0f} s")


def _writable(what: str, folder: Path, advice: str) -> Finding:
    """Can a file be made in `folder`, or, where it is yet to be made, in the nearest folder above?"""
    there = next(p for p in [folder, *folder.parents] if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding(what, "ok", str(folder))
    except OSError:
        return Finding(what, "bad", f"{folder} is not writable", advice)
