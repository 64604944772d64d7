"""A sweep that was stopped goes on where it stopped, and never with what a change made wrong."""

import json

import numpy as np
import pytest

import workbench.manifolds.base  # noqa: F401  (a module that numbers can come from)
from workbench.errors import ParameterError
from workbench.runs.cells import Cells


def counted():
    seen = []

    def cell(a, b=0):
        seen.append((a, b))
        return {"sum": np.float64(a + b), "pair": (a, b)}

    return cell, seen


def test_a_cell_is_computed_once_and_reads_the_same_from_the_file(tmp_path):
    cell, seen = counted()
    first = Cells("sweep", folder=tmp_path)(cell, a=1, b=2)
    cells = Cells("sweep", folder=tmp_path)
    assert cells(cell, a=1, b=2) == first == {"sum": 3.0, "pair": [1, 2]}
    assert seen == [(1, 2)] and (cells.computed, cells.remembered) == (0, 1)


def test_a_stopped_sweep_computes_only_what_is_missing(tmp_path):
    cell, seen = counted()

    def stopped(a):
        if a == 3:
            raise KeyboardInterrupt
        return cell(a)

    cells = Cells("sweep", folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        for a in range(5):
            cells(stopped, a=a)
    seen.clear()
    again = Cells("sweep", folder=tmp_path)
    for a in (0, 1, 2, 4):
        again(stopped, a=a)
    assert seen == [(4, 0)] and again.remembered == 3


@pytest.mark.parametrize("parameters", [{"a": 2, "b": 2}, {"a": 1, "b": 2.5}, {"a": 1}])
def test_other_parameters_are_another_cell(parameters, tmp_path):
    cell, seen = counted()
    cells = Cells("sweep", folder=tmp_path)
    cells(cell, a=1, b=2)
    cells(cell, **parameters)
    assert len(seen) == 2


def test_a_changed_function_or_package_or_a_fresh_sweep_is_computed_anew(tmp_path, monkeypatch):
    cell, seen = counted()
    cells = Cells("sweep", folder=tmp_path)
    cells(cell, a=1)

    def cell(a):  # another source under the same name
        return seen.append(a)

    cells(cell, a=1)
    assert len(seen) == 2
    monkeypatch.setattr(
        "workbench.runs.keys.source_hashes", lambda: {"errors.py": "1", "manifolds/base.py": "1"}
    )
    cells(cell, a=1)
    assert len(seen) == 3
    monkeypatch.setattr(
        "workbench.runs.keys.source_hashes", lambda: {"errors.py": "2", "manifolds/base.py": "1"}
    )
    cells(cell, a=1)  # what no number can come from does not count
    assert len(seen) == 3
    Cells("sweep", folder=tmp_path, fresh=True)(cell, a=1)
    assert len(seen) == 4


def test_a_broken_file_is_computed_anew(tmp_path):
    cell, seen = counted()
    Cells("sweep", folder=tmp_path)(cell, a=1)
    (kept,) = (tmp_path / "sweep").iterdir()
    kept.write_text("{")
    assert Cells("sweep", folder=tmp_path)(cell, a=1)["sum"] == 1
    assert len(seen) == 2


def test_a_result_that_is_no_number_is_refused_and_nothing_is_kept(tmp_path):
    with pytest.raises(ParameterError, match="finite"):
        Cells("sweep", folder=tmp_path)(lambda: float("nan"))
    assert not list(tmp_path.rglob("*.json"))


def test_cells_on_several_processes_come_in_order_and_only_the_missing_are_computed(tmp_path):
    cells = Cells("sweep", folder=tmp_path)
    assert cells(json.dumps, obj=[2]) == "[2]"
    calls = [{"obj": [i]} for i in range(4)]
    assert list(cells.each(json.dumps, calls, jobs=2)) == ["[0]", "[1]", "[2]", "[3]"]
    assert (cells.computed, cells.remembered) == (4, 1)
    assert list(cells.each(json.dumps, calls, jobs=2)) == list(cells.each(json.dumps, calls))
    assert (cells.computed, cells.remembered) == (4, 9)
