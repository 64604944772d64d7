"""`figures/manifest.yaml`: which notebook makes which figures, with which parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import ParameterError, WorkbenchError, suggest
from workbench.paths import checkout

PROFILES = ("quick", "full")
INJECTED = ("profile", "live")  # set by the runner, never by the manifest
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
TIMEOUT = {"quick": 600.0, "full": 24 * 3600.0, "smoke": 180.0}
KEYS = {"notebook", "title", "figures", "profiles", "smoke", "timeout", "data"}


@dataclass(frozen=True)
class Entry:
    """One run of the manifest: a notebook, its profiles, and the figures it must record."""

    id: str
    notebook: str  # relative to the checkout, with forward slashes
    title: str
    figures: tuple[str, ...]
    profiles: Mapping[str, Mapping[str, Any]]
    smoke: Mapping[str, Any] = field(default_factory=dict)
    timeout: Mapping[str, float] = field(default_factory=dict)
    data: tuple[str, ...] = ()

    def seconds(self, profile: str) -> float:
        """The hard limit of one run."""
        return float(self.timeout.get(profile, TIMEOUT[profile]))


@dataclass(frozen=True)
class Manifest:
    root: Path
    entries: Mapping[str, Entry]

    def notebook(self, entry: Entry) -> Path:
        return self.root / entry.notebook

    def select(self, names: Iterable[str] = ()) -> list[Entry]:
        """The entries asked for, by run id or by the id of a figure they make; all of them for no names.

        Raises:
            ParameterError: a name that is neither, with the nearest that is.
        """
        owner = {figure: entry for entry in self.entries.values() for figure in entry.figures} | dict(
            self.entries
        )
        chosen = {}
        for name in names:
            if name not in owner:
                raise ParameterError(
                    f"no run or figure named {name!r}{suggest(name, owner)}; "
                    f"runs are {', '.join(self.entries) or 'not yet listed in the manifest'}"
                )
            chosen[owner[name].id] = owner[name]
        return list(chosen.values()) if chosen else list(self.entries.values())


def load(path: Path | None = None) -> Manifest:
    """Read and check a manifest; by default the checkout's `figures/manifest.yaml`. An empty one is fine.

    Raises:
        WorkbenchError: there is none, or it is malformed; the sentence names the entry and the key.
    """
    if path is None:
        try:
            path = checkout() / "figures" / "manifest.yaml"
        except FileNotFoundError as e:
            raise WorkbenchError(str(e)) from None
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoDuplicates)
    except FileNotFoundError:
        raise WorkbenchError(f"no manifest at {path}") from None
    except UnicodeDecodeError as e:
        raise WorkbenchError(f"{path.name} is not text in UTF-8: {e}") from e
    except yaml.YAMLError as e:
        raise WorkbenchError(f"{path.name} is not readable YAML: {' '.join(str(e).split())}") from e
    root = path.resolve().parent.parent
    raw = _mapping({} if content is None else content, path.name)
    entries = {str(id): _entry(str(id), value, root) for id, value in raw.items()}
    owner: dict[str, str] = {}
    for entry in entries.values():
        for figure in entry.figures:
            if (other := owner.setdefault(figure, entry.id)) != entry.id:
                raise WorkbenchError(f"manifest: figure {figure!r} is claimed by both {other} and {entry.id}")
    return Manifest(root, entries)


def _entry(id: str, value: Any, root: Path) -> Entry:
    where = f"manifest, {id}"
    raw = _mapping(value, where)
    _need(NAME.fullmatch(id), where, "an id is lower-case letters, digits, _ and -")
    for key in raw:
        _need(key in KEYS, where, f"unknown key {key!r}{suggest(key, KEYS)}")
    for key in ("notebook", "title", "figures", "profiles"):
        _need(key in raw, where, f"{key!r} is missing")

    notebook = raw["notebook"]
    _need(
        isinstance(notebook, str) and notebook.endswith(".ipynb"),
        where,
        "notebook must be a path to an .ipynb",
    )
    inside = (root / notebook).resolve().is_relative_to(root)
    _need(inside and not Path(notebook).is_absolute(), where, "notebook must be a path inside the checkout")
    _need((root / notebook).is_file(), where, f"there is no {notebook}")
    _need(isinstance(raw["title"], str) and raw["title"].strip(), where, "title must be a sentence")

    figures = _names(raw["figures"], f"{where}, figures")
    _need(figures, where, "figures must name at least one figure")
    profiles = {
        k: _values(v, f"{where}, {k}") for k, v in _mapping(raw["profiles"], f"{where}, profiles").items()
    }
    for profile in profiles:
        _need(profile in PROFILES, where, f"profile {profile!r} is neither quick nor full")
    _need("quick" in profiles, where, "profiles must have 'quick'")
    timeout = _mapping(raw.get("timeout") or {}, f"{where}, timeout")
    for profile, seconds in timeout.items():
        _need(profile in TIMEOUT, where, f"timeout of {profile!r}: known are {', '.join(TIMEOUT)}")
        _need(
            type(seconds) in (int, float) and seconds > 0,
            where,
            f"timeout of {profile} must be seconds above 0",
        )
    return Entry(
        id,
        notebook,
        raw["title"].strip(),
        figures,
        profiles,
        _values(raw.get("smoke"), f"{where}, smoke"),
        timeout,
        _names(raw.get("data") or [], f"{where}, data", NAME_OF_DATA),
    )


NAME_OF_DATA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _names(value: Any, where: str, pattern: re.Pattern = NAME) -> tuple[str, ...]:
    _need(isinstance(value, list), where, "must be a list of names")
    for name in value:
        _need(isinstance(name, str) and pattern.fullmatch(name), where, f"{name!r} is not a name")
    _need(len(set(value)) == len(value), where, "a name stands there twice")
    return tuple(value)


def _values(value: Any, where: str) -> dict[str, Any]:
    values = _mapping({} if value is None else value, where)
    for name in INJECTED:
        _need(name not in values, where, f"{name!r} is set by the runner")
    return values


def _mapping(value: Any, where: str) -> dict:
    _need(isinstance(value, dict), where, f"expected a mapping, got {type(value).__name__}")
    return value


def _need(condition: Any, where: str, what: str) -> None:
    if not condition:
        raise WorkbenchError(f"{where}: {what}")


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets a second key silently replace the first; a manifest must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
