"""Sweeps of many cells that go on where they were stopped: the result of each is kept in a file of its own."""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.files import write_json
from workbench.paths import cache_dir, checkout
from workbench.runs import keys
from workbench.runs.recording import plain, versions

log = logging.getLogger(__name__)
DECIDING = (
    "manifolds",
    "data",
    "nn",
    "models",
    "training",
    "evaluation",
    "scan",
)  # what a number can come from


class Cells:
    """Calls functions of parameters, or remembers what they returned.

    `cells(f, c=1.0, dim=4)` is `f(c=1.0, dim=4)`, as JSON has it (lists for tuples and arrays). The result is kept
    under everything that decides it: the function's source, the parameters, the source files of the package's
    lower floors that are loaded, and the versions of the libraries. What changed is computed anew; the order of cells
    and cells that were added do not matter. A function that reads variables of the notebook must be given them as
    parameters instead, or a change of theirs goes unnoticed.

    Args:
        name: of the sweep; the results are files in the folder `name`.
        fresh: compute everything, whatever is kept.
        folder: holds the results of all sweeps; default `build/cells` in the checkout, or in the cache of downloads
            where there is no checkout.

    Attributes: `computed` and `remembered`, numbers of cells.
    """

    def __init__(self, name: str, *, fresh: bool = False, folder: str | Path | None = None):
        self.folder = Path(folder or _folder()) / name
        self.fresh, self.computed, self.remembered = fresh, 0, 0

    def __call__(self, function: Callable[..., Any], **parameters: Any) -> Any:
        """The result of the function for these parameters. ParameterError for one that JSON has no word for."""
        about = {"function": function.__qualname__, "parameters": plain(parameters, "parameters")}
        path = self.folder / f"{keys.key(about | _deciding(function))}.json"
        if not self.fresh and (kept := _read(path)) is not None:
            self.remembered += 1
            return kept["result"]
        result = plain(function(**parameters), "the result")
        self.computed += 1
        write_json(path, about | {"result": result})
        return result


def _folder() -> Path:
    try:
        return checkout() / "build" / "cells"
    except FileNotFoundError:
        return cache_dir() / "cells"


def _deciding(function: Callable) -> dict[str, Any]:
    sources = keys.loaded(keys.source_hashes(), sys.modules)
    found = versions()
    return {
        "source": inspect.getsource(function),
        "sources": {name: sha for name, sha in sources.items() if name.split("/")[0] in DECIDING},
        "versions": {name: found[name] for name in ("python", "torch", "numpy")},
    }


def _read(path: Path) -> dict | None:
    """A kept cell; None for none, or one that cannot be read, which is then computed anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if "result" in kept else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        log.warning("%s cannot be read (%s) and is computed anew", path, e)
        return None
