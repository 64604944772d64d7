"""Downloadable data sets: where each comes from, its licence, and how to know that it is the right one.

Files live under `$WORKBENCH_DATA`, or the user's cache folder, at `Dataset.path`. A file is used only if
its content has the SHA-256 listed here; content means decompressed, so it does not matter who compressed it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pooch

from workbench.errors import DataError, suggest
from workbench.files import atomic_write
from workbench.paths import asset, cache_dir

pooch.get_logger().setLevel("WARNING")


@dataclass(frozen=True)
class Dataset:
    """One file.

    Attributes:
        name: what `fetch` is called with.
        about: what it is, and its columns or counts.
        path: place below the cache folder, e.g. "rec/ml-100k.inter.gz".
        sha256: of the content after decompression.
        size: bytes of that content.
        licence: terms of the data, as far as its source states them.
        url: where the uncompressed content can be downloaded, or None.
        obtain: what to do instead where there is no `url`.
        embedded: shipped in the package; no download needed.
    """

    name: str
    about: str
    path: str
    sha256: str
    size: int
    licence: str
    url: str | None = None
    obtain: str = ""
    embedded: bool = False

    @property
    def location(self) -> Path:
        """Where the file is, or will be."""
        return asset(self.path) if self.embedded else cache_dir() / self.path


def _read_registry() -> dict[str, Dataset]:
    rows = json.loads(Path(__file__).with_name("registry.json").read_text(encoding="utf-8"))
    return {name: Dataset(name=name, **row) for name, row in rows.items()}


DATASETS: dict[str, Dataset] = _read_registry()

_verified: dict[tuple[Path, int, int, str], None] = {}


def info(name: str) -> Dataset:
    """The entry of a data set.

    Raises:
        DataError: there is none of that name; suggests the nearest.
    """
    if name not in DATASETS:
        raise DataError(
            f"no data set {name!r}{suggest(name, DATASETS)}; `workbench data list` shows them all"
        )
    return DATASETS[name]


def local(name: str) -> Path | None:
    """The verified file if it is here, None if it is not. Never downloads.

    Raises:
        DataError: unknown name; or a file is here but damaged.
    """
    entry = info(name)
    path = entry.location
    if not path.is_file():
        return None
    stat = path.stat()
    key = (path, stat.st_size, stat.st_mtime_ns, entry.sha256)
    if key not in _verified:
        found = _content_sha256(path)
        if found != entry.sha256:
            raise DataError(
                f"{path} is damaged or is not {name!r}: its content has sha256 {found} where "
                f"{entry.sha256} is expected; delete it and {_how_to_get(entry)}"
            )
        _verified[key] = None
    return path


def verify(name: str) -> Path:
    """The verified file, which must be here already. Never downloads.

    Raises:
        DataError: unknown name, missing or damaged file.
    """
    if (path := local(name)) is not None:
        return path
    entry = info(name)
    raise DataError(f"{name!r} is not at {entry.location}; {_how_to_get(entry)}")


def fetch(name: str, *, force: bool = False, progress: bool = False, timeout: float = 30) -> Path:
    """The verified file, downloaded if it is not here yet.

    Args:
        force: download again and replace what is here, damaged or not.
        progress: show a progress bar.
        timeout: seconds without an answer after which the server counts as out of reach.

    Raises:
        DataError: unknown name; a damaged file is here (and not `force`); no direct download exists; the
            server cannot be reached; or what came is not what was expected. Then nothing is kept.
    """
    entry = info(name)
    if not (force and entry.url) and (path := local(name)) is not None:
        return path
    if entry.url is None:
        raise DataError(f"{name!r} is not at {entry.location}; {_how_to_get(entry)}")
    try:
        _download(entry, progress, timeout)
    except OSError as e:
        raise DataError(
            f"{name!r} could not be downloaded from {entry.url} to {entry.location} ({_first_line(e)}); "
            f"check the network, or put the file there yourself (sha256 of its content {entry.sha256})"
        ) from e
    return verify(name)


def _download(entry: Dataset, progress: bool, timeout: float) -> None:
    """Download aside, compare, compress as the name says, rename into place. Raises OSError or DataError."""
    root = cache_dir()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as aside:
        # The checksum is compared here rather than by pooch, whose refusal is a bare ValueError.
        downloader = pooch.HTTPDownloader(progressbar=progress, timeout=timeout)
        raw = Path(pooch.retrieve(entry.url, None, fname="content", path=aside, downloader=downloader))
        found, size = _sha256(raw), raw.stat().st_size
        if found != entry.sha256:
            raise DataError(
                f"what {entry.url} sent is not {entry.name!r}: {size:,} bytes with sha256 {found} where "
                f"{entry.size:,} bytes with {entry.sha256} are expected; nothing was kept. Try again, or put "
                f"the right file at {entry.location}"
            )
        with (
            open(raw, "rb") as source,
            atomic_write(entry.location, "wb") as f,
            _compressor(f, entry.path) as out,
        ):
            shutil.copyfileobj(source, out, 1 << 20)


def _how_to_get(entry: Dataset) -> str:
    if entry.embedded:
        return "reinstall the package, which contains it"
    if entry.url is None:
        return f"there is no direct download: {entry.obtain}"
    return f"`workbench data get {entry.name}` downloads it from {entry.url}"


def _compressor(f: IO[bytes], path: str) -> IO[bytes]:
    if path.endswith(".gz"):
        return gzip.GzipFile(filename="", mode="wb", fileobj=f, mtime=0)
    if path.endswith(".xz"):
        return lzma.LZMAFile(f, "wb")
    return _Plain(f)


class _Plain:
    """Passes writes on, and leaves closing to the owner, as the compressing files do."""

    def __init__(self, f: IO[bytes]):
        self.write = f.write

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _content_sha256(path: Path) -> str:
    """Of the decompressed content; a sentence instead when it cannot be decompressed."""
    try:
        return _sha256(path)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as e:
        return f"(none: {_first_line(e)})"


def _sha256(path: Path) -> str:
    openers = {".gz": gzip.open, ".xz": lzma.open}
    with openers.get(path.suffix, open)(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _first_line(e: BaseException) -> str:
    lines = str(e).splitlines()
    return f"{type(e).__name__}: {lines[0]}" if lines else type(e).__name__
