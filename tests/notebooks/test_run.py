"""Every notebook of the manifest, run headless with its `smoke` parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.runs import manifest, plan, runner

ROOT = Path(__file__).parents[2]
MANIFEST = manifest.load(ROOT / "figures" / "manifest.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("run", MANIFEST.entries)
def test_notebook_runs_and_records_all_its_figures(run, tmp_path):
    (task,) = plan.plan(MANIFEST, [run], smoke=True)
    figures = tmp_path / "figures"
    (outcome,) = runner.run(MANIFEST, [task], figures=figures, build=tmp_path / "build")
    assert outcome.status == "done", f"{outcome.message}\n{outcome.log.read_text()[-4000:]}"
    for figure in task.entry.figures:
        record = json.loads((figures / figure / "run.json").read_text())
        assert record["numbers"] and record["verdict"] and record["caption"]
        assert record["profile"] == "smoke" and record["parameters"]["live"] is False
        assert str(ROOT) not in json.dumps(record), "a path of this machine in run.json"
        drawn = json.loads((figures / figure / "figure.json").read_text())
        assert drawn["data"] or drawn["layout"].get("shapes"), "an empty figure"
    assert outcome.notebook.stat().st_size < 5_000_000, "the executed notebook carries more than its figures"
