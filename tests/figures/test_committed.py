"""What is committed under figures/ is what the manifest promises, and says where it came from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from workbench.runs import keys, manifest, plan

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "figures"
MANIFEST = manifest.load(FIGURES / "manifest.yaml")
RECORDS = sorted(FIGURES.glob("*/run.json"))

each_record = pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.parent.name)


@each_record
def test_a_record_belongs_to_the_manifest_and_is_whole(path):
    record = json.loads(path.read_text())
    entry = MANIFEST.entries[record["run"]]
    assert record["figure"] in entry.figures and record["notebook"] == entry.notebook
    assert path.parent.name == plan.folder_name(record["figure"], record["profile"])
    assert record["key"] == keys.key(record["inputs"])
    assert record["verdict"].strip() and record["numbers"] and "\n" not in record["verdict"]


@each_record
def test_a_figure_shows_the_numbers_of_its_record_and_nothing_that_changes_from_run_to_run(path):
    figure = json.loads((path.parent / "figure.json").read_text())
    record = json.loads(path.read_text())
    meta = figure["layout"]["meta"]
    assert {name: meta[name] for name in ("numbers", "verdict")} == {
        n: record[n] for n in ("numbers", "verdict")
    }
    assert record["started"] not in json.dumps(figure)


@each_record
def test_no_path_of_a_machine_is_in_it(path):
    text = path.read_text() + (path.parent / "figure.json").read_text()
    for folder in (str(ROOT), str(Path.home()) + "/", "/tmp/"):
        assert folder not in text


def test_html_stays_out_of_git():
    tracked = subprocess.run(["git", "ls-files", "figures"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert not [name for name in tracked.stdout.split() if name.endswith((".html", ".js"))]
