"""What can be read from a notebook file without running it: its code cells and its declared parameters."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import ParameterError, WorkbenchError, suggest

SCALARS = {"int": int, "float": float, "str": str, "bool": bool}
ITEMS = {f"list[{name}]": kind for name, kind in SCALARS.items()}
REQUIRED = ("profile", "seed", "live")


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: `n: int = 500  # number of points`."""

    name: str
    type: str
    default: Any
    help: str = ""

    def check(self, value: Any, where: str) -> Any:
        """`value` as this parameter's type (an int passes for a float, nothing else is converted).

        Raises:
            ParameterError: it has another type; `where` says who set it.
        """
        if self.type in ITEMS:
            if isinstance(value, list | tuple):
                item = Parameter(f"{self.name}[…]", self.type[5:-1], None)
                return [item.check(v, where) for v in value]
        elif self.type == "float" and type(value) is int:
            return float(value)
        elif type(value) is SCALARS[self.type]:
            return value
        raise ParameterError(
            f"{where}: parameter {self.name} is {self.type}, not {type(value).__name__} ({value!r})"
        )

    def parse(self, text: str, where: str) -> Any:
        """The value that `-p name=text` means: a string as it stands, anything else read as YAML."""
        if self.type == "str":
            return text
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise ParameterError(f"{where}: cannot read {self.name}={text!r} as {self.type}") from e
        if self.type == "float" and isinstance(value, str):
            with suppress(ValueError):
                value = float(value)  # YAML 1.1 takes 1e-3 for a string
        return self.check(value, where)


def read(path: Path) -> dict:
    """The notebook as plain JSON.

    Raises:
        WorkbenchError: the file is missing or is not a notebook.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(notebook["cells"], list):
            raise TypeError
    except FileNotFoundError:
        raise WorkbenchError(f"no notebook at {path}") from None
    except (ValueError, KeyError, TypeError) as e:
        raise WorkbenchError(f"{path} is not a Jupyter notebook ({type(e).__name__})") from e
    return notebook


def source(cell: dict) -> str:
    """The text of one cell, which nbformat stores as a string or as a list of lines."""
    text = cell["source"]
    return (text if isinstance(text, str) else "".join(text)).replace("\r\n", "\n")


def code_cells(notebook: dict) -> list[str]:
    return [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def parameter_cells(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if "parameters" in c.get("metadata", {}).get("tags", ())]


def declared(path: Path) -> dict[str, Parameter]:
    """The parameters of a notebook: annotated literals in its one cell tagged `parameters`, in order.

    papermill reads the same lines with a regular expression and forgives what it cannot read; here they are
    parsed as Python, and whatever a run could not set faithfully is refused.

    Raises:
        ParameterError: no such cell or several, a line that is not `name: type = literal`, an unknown type, a
            default of another type, or one of `profile`, `seed`, `live` missing.
    """
    cells = parameter_cells(read(path))
    if len(cells) != 1:
        raise ParameterError(f"{path.name} has {len(cells)} cells tagged 'parameters'; it needs exactly one")
    text = source(cells[0])
    try:
        body = ast.parse(text).body
    except SyntaxError as e:
        raise ParameterError(f"{path.name}: the parameters cell is not plain Python, line {e.lineno}") from e
    lines, found = text.splitlines(), {}
    for node in body:
        line = lines[node.lineno - 1].strip()
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            raise ParameterError(
                f"{path.name}: the parameters cell may only hold `name: type = value`, not `{line}`"
            )
        kind = ast.unparse(node.annotation)
        if kind not in SCALARS and kind not in ITEMS:
            known = ", ".join([*SCALARS, *ITEMS])
            raise ParameterError(f"{path.name}: `{line}` has type {kind}; a run can set {known}")
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ParameterError(f"{path.name}: the default in `{line}` is not a literal") from None
        comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()
        parameter = Parameter(node.target.id, kind, default, comment)
        parameter.check(default, path.name)
        found[parameter.name] = parameter
    if missing := [name for name in REQUIRED if name not in found]:
        raise ParameterError(f"{path.name}: the parameters cell lacks {', '.join(missing)}")
    return found


def refuse_unknown(names: Mapping[str, Any], known: Mapping[str, Parameter], where: str) -> None:
    """Raise ParameterError for the first name that the notebook does not declare, listing those it does."""
    for name in names:
        if name not in known:
            listed = ", ".join(f"{p.name} ({p.type})" for p in known.values())
            raise ParameterError(
                f"{where}: unknown parameter {name!r}{suggest(name, known)}; known are {listed}"
            )
