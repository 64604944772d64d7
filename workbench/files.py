"""Files that are never half-written: write aside, then rename."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from workbench.errors import CheckpointError

if TYPE_CHECKING:  # torch costs two seconds to import: the command line writes JSON without it
    import torch


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of `path` for writing and rename it into place on success.

    An exception (Ctrl-C included) leaves whatever was at `path` before untouched and nothing beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
        _as_any_file(aside)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _as_any_file(path: str | Path) -> None:
    """The permissions of an ordinary new file: temporary ones are 0600, which is for secrets."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented, key-sorted JSON, so that equal values are equal files."""
    with atomic_write(path) as f:
        json.dump(value, f, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        f.write("\n")


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able description to one safetensors file, atomically."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            aside,
            metadata={"about": json.dumps(dict(about), sort_keys=True)},
        )
        _as_any_file(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, not safetensors, or not ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            about = json.loads((f.metadata() or {})["about"])
            if not isinstance(about, dict):
                raise TypeError(f"its description is {type(about).__name__}, not a mapping")
            return {k: f.get_tensor(k) for k in f.keys()}, about  # noqa: SIM118 - safe_open is not a dict
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as e:
        reason = f"{type(e).__name__}: {e}"
        raise CheckpointError(f"{path} is not a readable workbench checkpoint ({reason})") from e
