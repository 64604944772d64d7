"""The house rules: a floor imports only floors below it, files stay short, and nothing is left for later."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("errors", "files", "paths", "threads"),
    ("manifolds", "scan", "data"),
    ("nn",),
    ("models",),
    ("training", "evaluation"),
    ("plots", "widgets"),
    ("runs",),
    ("lessons",),
    ("cli", "doctor", "__main__"),
)
# Neighbours on one floor that may be used, in this direction only.
BESIDE = {("files", "errors"), ("training", "evaluation"), ("cli", "doctor"), ("__main__", "cli")}
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
MODULES = sorted((ROOT / "workbench").rglob("*.py"))


def part(path: Path) -> str:
    """Which part of the house a file belongs to: the folder or module right under workbench/."""
    return path.relative_to(ROOT / "workbench").parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, part) of every import of the package in a file, those inside functions included."""
    found = []
    package = ("workbench", *path.relative_to(ROOT / "workbench").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [above, node.module]))
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "workbench" else [module]
        else:
            continue
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("workbench.")]
    return found


def test_every_part_of_the_package_stands_on_a_floor():
    assert {part(path) for path in MODULES} - {"__init__"} <= LEVEL.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_floors_below_its_own(path):
    mine = part(path)
    if mine == "__init__":
        assert imported(path) == []
        return
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for line, other in imported(path)
        if other in LEVEL and other != mine and LEVEL[other] >= LEVEL[mine] and (mine, other) not in BESIDE
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_longer_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_tracked_files_leave_nothing_for_later_and_name_no_place_outside_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of tracked files")
    # Spelled apart, so that this file does not find itself.
    patterns = ["TO" + "DO", "FIX" + "ME", "/wo" + "rk/", "sha" + "red/"]
    terms = [term for pattern in patterns for term in ("-e", pattern)]
    grep = subprocess.run(
        ["git", "grep", "-nIF", *terms, "--", ".", ":!*.json"], cwd=ROOT, capture_output=True, text=True
    )
    assert grep.returncode in (0, 1), grep.stderr
    optional = "../sha" + "red/data"  # data sets beside the checkout, used by .ci/run when they are there
    found = [
        line for line in grep.stdout.splitlines() if not (line.startswith(".ci/run:") and optional in line)
    ]
    assert not found, "\n".join(line[:200] for line in found)
