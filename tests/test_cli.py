"""The command line through its real entry point. Each call is a process, so each test asks several
things of one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

WORKBENCH = Path(sys.executable).with_name("workbench")
NOTEBOOK = """
profile: str = "quick"
seed: int = 0
live: bool = True
n: int = 3
"""
RECORD = """
import plotly.graph_objects as go
from workbench import runs
runs.record("dots", go.Figure(go.Scatter(y=list(range(n)), uid="a")), numbers={"n": n}, verdict=f"{n} dots.")
"""
MANIFEST = """
dots:
  notebook: notebooks/dots.ipynb
  title: Some <dots>
  figures: [dots]
  profiles: {quick: {n: 4}}
"""


def write_notebook(path: Path, *cells: str) -> None:
    def cell(i: int, text: str) -> dict:
        tags = ["parameters"] if i == 0 else []
        code = {"cell_type": "code", "outputs": [], "execution_count": None}
        return code | {"id": f"cell-{i}", "metadata": {"tags": tags}, "source": text.strip()}

    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [cell(i, text) for i, text in enumerate([NOTEBOOK, *cells])]
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("notebooks", "figures", "benchmarks"):
        (root / folder).mkdir()
    write_notebook(root / "notebooks" / "dots.ipynb", RECORD)
    (root / "figures" / "manifest.yaml").write_text(MANIFEST)
    (root / "benchmarks" / "echo.py").write_text('"""Says what it got."""\nimport sys\nprint(sys.argv[1:])\n')
    return root


@pytest.fixture
def workbench(repo):
    def call(*args: str, code: int = 0, cwd: Path = repo) -> str:
        env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
        done = subprocess.run(
            [WORKBENCH, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    return call


def test_help_and_version_come_without_waiting_for_torch(workbench):
    assert workbench("--version").strip() == version("hyperbolic-workbench")
    code = (
        "import sys, workbench.cli; print([m for m in ('torch', 'plotly', 'papermill') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    help = workbench("--help")
    assert all(command in help for command in ("doctor", "figures", "explore", "data", "lab", "bench"))


@pytest.mark.parametrize(
    "command",
    ["doctor", "figures", "explore", "lab", "bench", "data list", "data get", "data info", "lessons build"],
)
def test_each_command_explains_itself_with_an_example(command):
    from typer.testing import CliRunner

    from workbench.cli import app

    shown = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert f"Example: workbench {command}" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ("figures dot", 2, r"no run or figure named 'dot'; did you mean 'dots'\?"),
        (
            "figures -p m=3",
            2,
            r"unknown parameter 'm'.*; known are profile \(str\), seed \(int\), live .*, n \(int\)",
        ),
        ("figures -p n=x", 2, "parameter n is int, not str"),
        ("figures --profile fast", 2, "no profile 'fast'; known are quick, full"),
        ("data info wordnt", 1, r"no data set 'wordnt'; did you mean 'wordnet'\?"),
        ("bench ecko", 2, r"no benchmark named 'ecko'; did you mean 'echo'\?"),
        ("figurs", 2, "Did you mean 'figures'"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_nothing_runs(workbench, repo, args, code, message):
    said = workbench(*args.split(), code=code)
    assert re.search(message, said)
    assert not (repo / "build").exists()


def test_outside_a_checkout_figures_says_where_to_go(tmp_path):
    package = tmp_path / "site"  # a copy that is not inside a checkout, as an installed wheel would be
    shutil.copytree(
        Path(__file__).parents[1] / "workbench",
        package / "workbench",
        ignore=shutil.ignore_patterns("assets"),
    )
    env = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, "-P", "-m", "workbench", "figures"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: no figures/manifest.yaml here or above")


def test_benchmarks_are_listed_and_get_their_own_options(workbench):
    assert "echo  Says what it got." in workbench("bench")
    assert workbench("bench", "echo", "--size", "3").strip() == "['--size', '3']"


def test_an_embedding_becomes_a_page(workbench, tmp_path):
    (tmp_path / "a.csv").write_text("name,x,y\nroot,0,0\nleaf,.7,.2\n")
    file, page = str(tmp_path / "a.csv"), tmp_path / "out.html"
    assert "2 points" in workbench("explore", file, "--no-browser", "--page", str(page))
    assert page.stat().st_size > 1000
    said = workbench("explore", file, "--space", "klein", "--no-browser", code=2, cwd=tmp_path)
    assert "space must be one of" in said and not (tmp_path / "a.html").exists()


def test_data_commands_speak_for_the_registry(workbench):
    assert re.search(r"wordnet +\d+\.\d MB +shipped", workbench("data", "list"))
    assert "sha256" in workbench("data", "info", "wordnet")
    assert "✓ wordnet" in workbench("data", "get", "wordnet")


def test_doctor_ends_in_one_line_that_says_ready(workbench):
    assert workbench("doctor").strip().splitlines()[-1].startswith("Ready")


def test_figures_from_nothing_to_up_to_date_to_stale(workbench, repo):
    assert "dots is missing" in workbench("figures", "--check", code=1)
    said = workbench("figures")
    assert "✓ dots in" in said and "All figures on one page" in said
    made = {p.name for p in (repo / "figures" / "dots").iterdir()}
    assert (
        {"figure.json", "figure.html", "run.json"}
        <= made
        <= {"figure.json", "figure.html", "figure.png", "run.json"}
    )
    index = (repo / "figures" / "index.html").read_text()
    assert "4 dots." in index and "Some &lt;dots&gt;" in index and "http" not in index

    before = (repo / "figures" / "dots" / "figure.json").read_bytes()
    for derived in ("figures/dots/figure.html", "figures/plotly.min.js", "figures/index.html"):
        (repo / derived).unlink()  # as in a fresh clone
    assert "dots is up to date" in workbench("figures")
    for derived in ("figures/dots/figure.html", "figures/plotly.min.js", "figures/index.html"):
        assert (repo / derived).is_file()
    assert "All 1 runs are up to date" in workbench("figures", "--check")
    assert "up to date" in workbench("figures", "--list")
    workbench("figures", "--force")
    assert (repo / "figures" / "dots" / "figure.json").read_bytes() == before

    write_notebook(repo / "notebooks" / "dots.ipynb", RECORD, "another = 1")
    assert "dots: the notebook's code changed" in workbench("figures", "--check", code=1)


def test_ctrl_c_stops_the_kernel_and_leaves_figures_as_they_were(tmp_path):
    for folder in ("notebooks", "figures"):
        (tmp_path / folder).mkdir()
    wait = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)"
    write_notebook(tmp_path / "notebooks" / "dots.ipynb", RECORD, wait)
    (tmp_path / "figures" / "manifest.yaml").write_text(MANIFEST)
    running = subprocess.Popen(
        [WORKBENCH, "figures"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has them ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        started = time.time()
        while (
            not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
            and time.time() - started < 200
        ):
            time.sleep(0.2)
        kernel = int((tmp_path / "pid").read_text())
        os.killpg(running.pid, signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130 and stderr.startswith("Interrupted") and "Traceback" not in stderr
    assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["manifest.yaml"]
