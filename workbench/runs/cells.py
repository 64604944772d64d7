"""Sweeps of many cells that go on where they were stopped: the result of each is kept in a file of its own."""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.files import write_json
from workbench.paths import cache_dir, checkout
from workbench.runs import keys
from workbench.runs.recording import plain, versions
from workbench.threads import spread

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
        return next(self.each(function, [parameters]))

    def each(
        self, function: Callable[..., Any], calls: Iterable[Mapping[str, Any]], jobs: int = 1
    ) -> Iterator[Any]:
        """The results for several sets of parameters, in their order; what is missing is computed on `jobs` processes
        (a function of a module then, see `workbench.threads.spread`) and kept one by one."""
        calls, deciding = list(calls), _deciding(function)
        about = [
            {"function": function.__qualname__, "parameters": plain(dict(c), "parameters")} for c in calls
        ]
        paths = [self.folder / f"{keys.key(a | deciding)}.json" for a in about]
        found = [None if self.fresh else _read(path) for path in paths]
        missing = [c for c, kept in zip(calls, found, strict=True) if kept is None]
        new = spread(function, missing, jobs) if jobs > 1 else (function(**c) for c in missing)
        for told, path, kept in zip(about, paths, found, strict=True):
            if kept is None:
                kept = told | {"result": plain(next(new), "the result")}
                self.computed += 1
                write_json(path, kept)
            else:
                self.remembered += 1
            yield kept["result"]


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
