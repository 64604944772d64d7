"""A throw-away checkout: one notebook, one manifest, no package of its own."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

PARAMETERS = """
profile: str = "quick"
seed: int = 0  # fixes the numbers
live: bool = True
n: int = 3  # points
scale: float = 1.0
names: list[str] = ["a"]
"""
BODY = """
import plotly.graph_objects as go
from workbench import runs
fig = go.Figure(go.Scatter(x=list(range(n)), y=[scale * i for i in range(n)], uid="line"))
runs.record("dots", fig, numbers={"n": n, "scale": scale}, verdict=f"{n} dots.", caption="Dots.")
"""


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A minimal nbformat 4.5 notebook: a parameters cell, then `cells`."""

    def cell(i: int, text: str, tags: list[str]) -> dict:
        return {
            "id": f"cell-{i}",
            "cell_type": "code",
            "metadata": {"tags": tags},
            "source": textwrap.dedent(text).strip(),
            "outputs": [],
            "execution_count": None,
        }

    cells = [cell(0, parameters, ["parameters"]), *(cell(i, c, []) for i, c in enumerate(cells, 1))]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook))
    return path


MANIFEST = """
dots:
  notebook: notebooks/dots.ipynb
  title: Some dots
  figures: [dots]
  profiles:
    quick: {n: 4}
    full: {n: 40}
  smoke: {n: 2}
  timeout: {quick: 120}
"""


@pytest.fixture(scope="session")
def make_notebook():
    """`write_notebook`, for tests that want another notebook."""
    return write_notebook


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The throw-away checkout; tests rewrite `notebooks/dots.ipynb` and `figures/manifest.yaml` as they
    like.
    """
    write_notebook(tmp_path / "notebooks" / "dots.ipynb", BODY)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "manifest.yaml").write_text(MANIFEST)
    return tmp_path
