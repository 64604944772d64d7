"""When is a figure up to date? When everything that could have changed it is byte for byte what made it.

The inputs of a figure are its notebook's code cells, its parameters, the package modules that were loaded
when it was recorded, the files shipped in `workbench/assets`, and its data sets. They are kept in
`run.json`, so that a stale figure can say what changed. Nothing in them depends on the machine: paths are
relative to the package, line endings are \\n.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import DataError, suggest
from workbench.paths import PACKAGE
from workbench.runs import notebook

Inputs = dict[str, Any]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def code_hash(cells: Iterable[str]) -> str:
    """SHA-256 of the code cells in order; prose and outputs do not count."""
    return digest(json.dumps([cell.rstrip() for cell in cells]).encode())


def source_hashes(package: Path = PACKAGE) -> dict[str, str]:
    """The start of the SHA-256 of each text file of the package (`manifolds/lorentz.py`,
    `widgets/disk.js`), line endings unified.
    """
    files = [f for pattern in ("*.py", "*.js", "*.json") for f in package.rglob(pattern)]
    found = {f.relative_to(package).as_posix(): f for f in files if f.parent.name != "assets"}
    return {name: digest(f.read_bytes().replace(b"\r\n", b"\n"))[:16] for name, f in sorted(found.items())}


def asset_hash(package: Path = PACKAGE) -> str:
    """One SHA-256 over the files shipped in `workbench/assets`."""
    files = sorted(f for f in (package / "assets").rglob("*") if f.is_file() and f.suffix != ".md")
    return digest(
        "".join(f"{f.relative_to(package).as_posix()} {digest(f.read_bytes())}\n" for f in files).encode()
    )


def data_hashes(names: Iterable[str]) -> dict[str, str]:
    """The registered SHA-256 of each data set that a manifest entry names.

    Raises:
        DataError: a name that the registry does not have.
    """
    names = tuple(names)
    if not names:
        return {}
    from workbench.data import registry

    for name in names:
        if name not in registry.DATASETS:
            raise DataError(
                f"the manifest names an unknown data set {name!r}{suggest(name, registry.DATASETS)}"
            )
    return {name: registry.DATASETS[name].sha256 for name in names}


def loaded(sources: Mapping[str, str], modules: Iterable[str]) -> dict[str, str]:
    """The part of `sources` that a process with these `modules` (names in sys.modules) had loaded, and all
    scripts
    of the widgets if those were among them."""
    names = set()
    for module in modules:
        head, *rest = module.split(".")
        if head == "workbench":
            names |= {"/".join(rest) + ".py", "/".join([*rest, "__init__.py"])}
    folders = {name.rpartition("/")[0] for name in names & set(sources)}
    return {
        name: sha
        for name, sha in sources.items()
        if name in names or (not name.endswith(".py") and name.rpartition("/")[0] in folders)
    }


def inputs(
    code: str, parameters: Mapping[str, Any], sources: Mapping[str, str], assets: str, data: Mapping[str, str]
) -> Inputs:
    """Everything that decides what a figure looks like; see the module's docstring."""
    return {
        "code": code,
        "parameters": dict(parameters),
        "sources": dict(sources),
        "assets": assets,
        "data": dict(data),
    }


def key(inputs: Inputs) -> str:
    """The up-to-date hash of a figure."""
    return digest(json.dumps(inputs, sort_keys=True).encode())


def current(path: Path, parameters: Mapping[str, Any], data: Iterable[str]) -> Inputs:
    """The inputs as they are now, with every source file of the package."""
    code = code_hash(notebook.code_cells(notebook.read(path)))
    return inputs(code, parameters, source_hashes(), asset_hash(), data_hashes(data))


def changes(recorded: Inputs, now: Inputs) -> list[str]:
    """What differs between the inputs in a `run.json` and those of now, in words; empty when up to date."""
    found = []
    if recorded["code"] != now["code"]:
        found.append("the notebook's code changed")
    before, after = recorded["parameters"], now["parameters"]
    if names := sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n)):
        found.append(f"other parameters ({', '.join(names)})")
    found += [
        f"workbench/{n} changed" for n, sha in recorded["sources"].items() if now["sources"].get(n) != sha
    ]
    if recorded["assets"] != now["assets"]:
        found.append("workbench/assets changed")
    if recorded["data"] != now["data"]:
        found.append("its data changed")
    return found
