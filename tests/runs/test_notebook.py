from __future__ import annotations

import papermill
import pytest

from workbench.errors import ParameterError, WorkbenchError
from workbench.runs import notebook

BASE = 'profile: str = "quick"\nseed: int = 0\nlive: bool = True\n'


@pytest.fixture
def declare(tmp_path, make_notebook):
    return lambda text, base=BASE: notebook.declared(
        make_notebook(tmp_path / "n.ipynb", parameters=base + text)
    )


def test_names_types_defaults_and_help_agree_with_papermills_own_inspection(repo):
    path = repo / "notebooks" / "dots.ipynb"
    ours, theirs = notebook.declared(path), papermill.inspect_notebook(path)
    assert list(ours) == list(theirs)
    for name, p in ours.items():
        assert (p.type, p.help) == (theirs[name]["inferred_type_name"], theirs[name]["help"])
        assert repr(p.default).replace("'", '"') == theirs[name]["default"]


def test_a_default_that_papermills_regular_expression_cannot_read_is_read(declare):
    assert declare('query: str = "a=b # c"  # a search')["query"].default == "a=b # c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n = 3", "may only hold"),
        ("import os", "may only hold"),
        ("n: int", "may only hold"),
        ("n: int = 2 + k", "not a literal"),
        ("n: int = 2.5", "n is int, not float"),
        ("n: int = True", "n is int, not bool"),
        ("x: list[int] = [1, 'a']", "is int, not str"),
        ('mode: Literal["a"] = "a"', "a run can set int"),
        ("%matplotlib inline", "not plain Python"),
    ],
)
def test_a_parameters_cell_that_a_run_could_not_set_faithfully_is_refused(declare, text, message):
    with pytest.raises(ParameterError, match=message):
        declare(text)


def test_a_missing_seed_and_a_missing_cell_are_refused(declare, tmp_path):
    with pytest.raises(ParameterError, match="lacks seed"):
        declare("", base='profile: str = "quick"\nlive: bool = True\n')
    (tmp_path / "e.ipynb").write_text('{"cells": []}')
    with pytest.raises(ParameterError, match="has 0 cells tagged"):
        notebook.declared(tmp_path / "e.ipynb")


@pytest.mark.parametrize("content", ["", "[]", '{"cells": 3}', "{}", "\ufffd"])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, content):
    (tmp_path / "x.ipynb").write_text(content)
    with pytest.raises(WorkbenchError, match="not a Jupyter notebook"):
        notebook.read(tmp_path / "x.ipynb")
    with pytest.raises(WorkbenchError, match="no notebook at"):
        notebook.read(tmp_path / "y.ipynb")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "3", 3),
        ("float", "3", 3.0),
        ("float", "1e-3", 1e-3),
        ("str", "3", "3"),
        ("str", "a=b", "a=b"),
        ("bool", "true", True),
        ("list[int]", "[1, 2]", [1, 2]),
        ("list[float]", "[1, 0.5]", [1.0, 0.5]),
        ("list[str]", "[a, b]", ["a", "b"]),
    ],
)
def test_command_line_text_becomes_the_declared_type(kind, text, value):
    parsed = notebook.Parameter("x", kind, None).parse(text, "-p")
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("int", "3.0"), ("int", "x"), ("bool", "1"), ("float", "fast"), ("list[int]", "3"), ("int", "[")],
)
def test_command_line_text_of_another_type_is_refused(kind, text):
    with pytest.raises(ParameterError, match=r"x is|cannot read"):
        notebook.Parameter("x", kind, None).parse(text, "-p")


def test_line_endings_and_list_or_string_sources_read_the_same():
    a = {"cell_type": "code", "source": ["x = 1\r\n", "y = 2"]}
    assert notebook.source(a) == notebook.source({"cell_type": "code", "source": "x = 1\ny = 2"})
