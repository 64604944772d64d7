from __future__ import annotations

import json

import pytest

from workbench.errors import ParameterError, WorkbenchError
from workbench.runs import keys, manifest, notebook, plan


@pytest.fixture
def listing(repo):
    return manifest.load(repo / "figures" / "manifest.yaml")


def settled(listing, **kw):
    return plan.plan(listing, **kw)[0].parameters


def test_defaults_then_profile_then_smoke_then_the_command_line(listing):
    assert settled(listing) == {
        "profile": "quick",
        "seed": 0,
        "live": False,
        "n": 4,
        "scale": 1.0,
        "names": ["a"],
    }
    assert settled(listing, profile="full")["n"] == 40
    assert settled(listing, smoke=True)["n"] == 2
    over = settled(listing, smoke=True, overrides=["n=7", "names=[x, y]", "scale=2"])
    assert (over["n"], over["names"], over["scale"]) == (7, ["x", "y"], 2.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nn=3", r"unknown parameter 'nn'; did you mean 'n'\?; known are profile \(str\), seed \(int\)"),
        ("n", "expected key=value"),
        ("n=many", "n is int, not str"),
        ("profile=full", "set by the runner, use --profile"),
        ("live=true", "live is set by the runner"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(listing, override, message):
    with pytest.raises(ParameterError, match=message):
        plan.plan(listing, overrides=[override])
    assert list((listing.root / "figures").iterdir()) == [listing.root / "figures" / "manifest.yaml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("quick: {m: 4}", "manifest, dots, quick: unknown parameter 'm'"),
        ("quick: {n: 4.5}", "manifest, dots, quick: parameter n is int, not float"),
        ("quick: {names: a}", r"parameter names is list\[str\], not str"),
    ],
)
def test_the_manifest_cannot_pass_what_the_notebook_does_not_declare(repo, change, message):
    path = repo / "figures" / "manifest.yaml"
    path.write_text(path.read_text().replace("quick: {n: 4}", change))
    with pytest.raises(ParameterError, match=message):
        plan.plan(manifest.load(path))


def test_a_wrong_profile_is_refused_and_a_missing_one_only_when_asked_for_by_name(repo):
    path = repo / "figures" / "manifest.yaml"
    path.write_text(path.read_text().replace("    full: {n: 40}\n", ""))
    listing = manifest.load(path)
    with pytest.raises(ParameterError, match=r"no profile 'ful'; did you mean 'full'\?"):
        plan.plan(listing, profile="ful")
    with pytest.raises(ParameterError, match="has no full profile"):
        plan.plan(listing, ["dots"], profile="full")
    assert plan.plan(listing, profile="full") == []


def pretend_made(listing, task: plan.Task) -> None:
    """Put a figure there as a run would have, without the cost of a kernel."""
    path = listing.notebook(task.entry)
    code = keys.code_hash(notebook.code_cells(notebook.read(path)))
    sources = {"runs/recording.py": keys.source_hashes()["runs/recording.py"]}
    inputs = keys.inputs(code, task.parameters, sources, keys.asset_hash(), {})
    for folder in task.folders().values():
        target = listing.root / "figures" / folder
        target.mkdir(exist_ok=True)
        (target / "figure.json").write_text("{}")
        record = {"numbers": {}, "inputs": inputs, "key": keys.key(inputs)}
        (target / "run.json").write_text(json.dumps(record))


def test_reasons_to_run_come_and_go_with_their_causes(listing, repo, make_notebook):
    (task,) = plan.plan(listing)
    assert task.reasons == ("dots is missing",)
    pretend_made(listing, task)
    assert plan.plan(listing)[0].reasons == ()
    assert plan.plan(listing, force=True)[0].reasons == ("asked for",)
    assert plan.plan(listing, profile="full")[0].reasons == ("dots@full is missing",)
    assert plan.plan(listing, overrides=["n=5"])[0].reasons == ("other parameters (n)",)
    make_notebook(repo / "notebooks" / "dots.ipynb", "another = 1")
    assert plan.plan(listing)[0].reasons == ("the notebook's code changed",)


def test_a_figure_saved_by_hand_or_edited_never_counts_as_up_to_date(listing):
    (task,) = plan.plan(listing)
    pretend_made(listing, task)
    path = listing.root / "figures" / "dots" / "run.json"
    record = json.loads(path.read_text())
    for change in ({"inputs": None, "key": None}, {"key": "0" * 64}):
        path.write_text(json.dumps(record | change))
        assert plan.plan(listing)[0].reasons == ("dots was not made by a whole run",)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_record_is_named(listing, content):
    folder = listing.root / "figures" / "dots"
    folder.mkdir()
    (folder / "run.json").write_text(content)
    with pytest.raises(WorkbenchError, match=r"run\.json is not .* delete it"):
        plan.plan(listing)
