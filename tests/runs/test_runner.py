"""Real kernels: five notebooks run once, side by side, and every test looks at what came of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import psutil
import pytest

from workbench.runs import manifest, plan, runner

RECORD = """
import plotly.graph_objects as go
from workbench import runs
def record(name):
    runs.record(name, go.Figure(go.Scatter(y=[n], uid="a")), numbers={"n": n}, verdict=f"{n} points.")
"""
CELLS = {
    "good": [RECORD, "from tqdm.auto import tqdm\nfor _ in runs.track(range(3)): pass", "record('good')"],
    "broken": [RECORD, "record('broken')\nraise ValueError('on purpose')"],
    "forgets": [RECORD, "record('forgets')"],
    "strays": [RECORD, "record('good')"],
    "hangs": [
        RECORD + "import os, pathlib, subprocess, time",
        "record('hangs')\nchild = subprocess.Popen(['sleep', '600'])",
        "pathlib.Path('pids').write_text(f'{os.getpid()} {child.pid} {os.getppid()}')\ntime.sleep(600)",
    ],
}
ENTRY = """
{id}:
  notebook: notebooks/{id}.ipynb
  title: The {id} one
  figures: [{figures}]
  profiles: {{quick: {{n: 4}}}}
  timeout: {{smoke: {limit}}}
"""


def alive(pid: int) -> bool:
    """Running; a zombie that nobody has reaped yet is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def ran(tmp_path_factory, make_notebook):
    root = tmp_path_factory.mktemp("checkout")
    figures = root / "figures"
    text = ""
    for id, cells in CELLS.items():
        make_notebook(root / "notebooks" / f"{id}.ipynb", *cells)
        ids = "forgets, forgotten" if id == "forgets" else id
        text += ENTRY.format(id=id, figures=ids, limit=45 if id == "hangs" else 240)
        (figures / id).mkdir(parents=True)
        (figures / id / "run.json").write_text('{"numbers": "from before"}')
    (figures / "manifest.yaml").write_text(text)
    (figures / ".staging-999999999-left").mkdir()
    (figures / "good").rename(figures / ".good.old")  # as if a run had been cut between its two renames
    listing = manifest.load(figures / "manifest.yaml")
    events = []
    outcomes = runner.run(
        listing,
        plan.plan(listing, smoke=True),
        jobs=2,
        watch=lambda event, task, detail: events.append((event, task.name, detail)),
    )
    by_name = {o.task.name: o for o in outcomes}
    return SimpleNamespace(root=root, figures=figures, outcomes=by_name, events=events)


def test_a_notebook_that_succeeds_publishes_its_figure(ran):
    assert (ran.outcomes["good"].status, ran.outcomes["good"].message) == ("done", "")
    record = json.loads((ran.figures / "good" / "run.json").read_text())
    assert record["numbers"] == {"n": 4} and record["verdict"] == "4 points." and record["profile"] == "smoke"
    assert record["parameters"]["live"] is False and record["duration_s"] > 0
    assert record["notebook"] == "notebooks/good.ipynb" and str(ran.root) not in json.dumps(record)
    assert (ran.figures / "good" / "figure.json").is_file()


def test_the_executed_notebook_is_kept_without_widgets_and_shows_the_figure(ran):
    text = ran.outcomes["good"].notebook.read_text()
    notebook = json.loads(text)
    shown = [o for c in notebook["cells"] for o in c.get("outputs", []) if "data" in o]
    assert "widgets" not in notebook["metadata"] and "widget-view" not in text and len(text) < 100_000
    assert any("application/vnd.plotly.v1+json" in o["data"] for o in shown)
    assert any("**4 points.**" in o["data"].get("text/markdown", "") for o in shown)


def test_a_failing_notebook_says_why_and_leaves_the_old_figure(ran):
    outcome = ran.outcomes["broken"]
    assert outcome.status == "failed" and outcome.message == "cell 4: ValueError: on purpose"
    assert "on purpose" in outcome.log.read_text() and "on purpose" in outcome.notebook.read_text()
    assert json.loads((ran.figures / "broken" / "run.json").read_text()) == {"numbers": "from before"}


def test_a_figure_that_was_not_recorded_is_a_failure_and_nothing_of_the_run_is_published(ran):
    outcome = ran.outcomes["forgets"]
    assert outcome.status == "failed" and outcome.message == "it recorded no forgotten"
    assert json.loads((ran.figures / "forgets" / "run.json").read_text()) == {"numbers": "from before"}


def test_a_figure_of_another_notebook_cannot_be_recorded(ran):
    outcome = ran.outcomes["strays"]
    assert outcome.status == "failed"
    assert "ParameterError: the manifest does not list 'good' for notebooks/strays.ipynb" in outcome.message


def test_a_run_out_of_time_is_stopped_with_its_kernel_and_the_kernels_children(ran):
    outcome = ran.outcomes["hangs"]
    assert outcome.status == "timeout" and outcome.message == "stopped after its limit of 45 s"
    assert not any(alive(int(pid)) for pid in (ran.root / "pids").read_text().split())
    assert json.loads((ran.figures / "hangs" / "run.json").read_text()) == {"numbers": "from before"}


def test_nothing_half_written_is_left_and_what_an_earlier_run_left_is_swept(ran):
    assert {p.name for p in ran.figures.iterdir()} == {*CELLS, "manifest.yaml"}
    assert {p.name for p in ran.root.iterdir()} == {"notebooks", "figures", "build", "pids"}


def test_the_watcher_hears_of_every_start_and_end_and_of_cells_between(ran):
    for name in CELLS:
        told = [event for event, task, _ in ran.events if task == name]
        assert told[0] == "start" and told[-1] == "end" and "cell" in told
    assert max(detail for event, task, detail in ran.events if (event, task) == ("cell", "good")) == (4, 5)


def test_jobs_share_the_cores_unless_the_user_decided(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert runner.environment(4)["OMP_NUM_THREADS"] == "2" and "OMP_NUM_THREADS" not in runner.environment(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert runner.environment(4)["OMP_NUM_THREADS"] == "3"
