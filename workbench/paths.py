"""Where things live: the cache of downloads, the files shipped in the package, the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pooch

PACKAGE = Path(__file__).resolve().parent


def cache_dir() -> Path:
    """Folder of downloaded data: `$WORKBENCH_DATA` if set, else the user's cache folder. Not created here."""
    return Path(os.environ.get("WORKBENCH_DATA") or pooch.os_cache("hyperbolic-workbench")).expanduser()


def asset(name: str) -> Path:
    """A file shipped inside the package (the embedded WordNet, trained tables)."""
    return PACKAGE / "assets" / name


def checkout() -> Path:
    """The folder that holds `figures/manifest.yaml`: the nearest one at or above the working folder, else the
    checkout this package was installed from in editable mode."""
    for folder in [Path.cwd(), *Path.cwd().parents, PACKAGE.parent]:
        if (folder / "figures" / "manifest.yaml").is_file():
            return folder
    raise FileNotFoundError(
        "no figures/manifest.yaml here or above: run this inside a checkout of the workbench repository"
    )
