"""What every committed notebook looks like, without running it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import papermill
import pytest

from workbench.runs import manifest, notebook, plan

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
MANIFEST = manifest.load(ROOT / "figures" / "manifest.yaml")
NOTEBOOKS = [p for p in NOTEBOOKS if ".ipynb_checkpoints" not in p.parts]
ABSOLUTE = re.compile(r"""["'](?:/[A-Za-z]+/|[A-Z]:\\|~/)""")  # a string that names a place on one machine
LONGEST_CELL, LONGEST_FUNCTION, LARGEST_FILE = 15, 10, 100_000

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT).as_posix())


@pytest.fixture
def content(path):
    return notebook.read(path)


def python(cell_source: str) -> ast.Module:
    """The cell without its magics."""
    lines = ["pass" if re.match(r"\s*[%!]", line) else line for line in cell_source.splitlines()]
    return ast.parse("\n".join(lines))


def test_outputs_counts_and_machine_metadata_are_stripped(content, path):
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
        assert not {"papermill", "execution"} & set(cell["metadata"])
    assert not {"papermill", "widgets"} & set(content["metadata"])
    assert "version" not in content["metadata"].get("language_info", {})


def test_any_environment_can_run_it(content, path):
    assert content["metadata"]["kernelspec"]["name"] == "python3"


def test_format_is_4_5_with_distinct_cell_ids(content, path):
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id) for id in ids)


def test_parameters_are_declared_so_that_papermill_and_the_runner_agree(path):
    ours, theirs = notebook.declared(path), papermill.inspect_notebook(path)
    assert {n: p.type for n, p in ours.items()} == {n: p["inferred_type_name"] for n, p in theirs.items()}
    assert (ours["profile"].default, ours["live"].default) == ("quick", True)
    assert all(p.help for n, p in ours.items() if n not in notebook.REQUIRED), (
        "each parameter says what it is"
    )


def test_it_opens_with_prose_and_teaches_between_code(content, path):
    kinds = [cell["cell_type"] for cell in content["cells"]]
    assert kinds[0] == "markdown" and notebook.source(content["cells"][0]).startswith("# ")
    assert kinds.count("markdown") * 3 >= kinds.count("code")


def test_cells_and_functions_are_short(content, path):
    for cell in notebook.code_cells(content):
        lines = [line for line in cell.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(lines) <= LONGEST_CELL, f"a cell of {len(lines)} lines:\n{cell}"
        for node in ast.walk(python(cell)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_nothing_in_it_belongs_to_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST_FILE
    found = ABSOLUTE.search("\n".join(notebook.source(c) for c in json.loads(text)["cells"]))
    assert not found, f"an absolute path: {found[0]!r}"


def test_it_is_in_the_manifest_and_records_exactly_the_figures_listed_there(content, path):
    entries = [e for e in MANIFEST.entries.values() if MANIFEST.notebook(e) == path]
    assert entries, "no run of figures/manifest.yaml names it"
    recorded = set()
    for cell in notebook.code_cells(content):
        for node in ast.walk(python(cell)):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("runs.record", "record")
                and node.args
            ):
                recorded.add(node.args[0].value if isinstance(node.args[0], ast.Constant) else None)
    for entry in entries:
        assert None in recorded or recorded == set(entry.figures)


def test_every_profile_of_its_manifest_entry_settles(path):
    for entry in MANIFEST.entries.values():
        if MANIFEST.notebook(entry) == path:
            for profile in entry.profiles:
                plan.settle(MANIFEST, entry, profile, [], smoke=True)
