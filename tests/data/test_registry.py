"""Downloads from a server of our own: what is right is kept, all else is refused and leaves nothing."""

import gzip
import hashlib
import lzma
import os
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from workbench.data import registry
from workbench.errors import DataError

CONTENT = b"user item\n" * 5000


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at /good, other things elsewhere."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        body = {"/good": CONTENT, "/other": b"<html>moved</html>", "/cut": CONTENT[:-10]}.get(
            self.path, CONTENT
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) if self.path == "/broken" else len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.asked = []
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_verified", {})
    return tmp_path / "cache"


@pytest.fixture
def offer(server, cache, monkeypatch):
    """Registers a data set "toy" at a path of our server."""

    def offer(route="/good", path="rec/toy.txt.gz", **changes):
        entry = registry.Dataset(
            name="toy",
            about="a toy",
            path=path,
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            size=len(CONTENT),
            licence="none",
            url=f"http://127.0.0.1:{server.server_port}{route}",
        )
        entry = replace(entry, **changes)
        monkeypatch.setitem(registry.DATASETS, "toy", entry)
        return entry

    return offer


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []


@pytest.mark.parametrize(
    ("path", "opener"), [("rec/toy.txt.gz", gzip.open), ("toy.txt.xz", lzma.open), ("a/b/toy.txt", open)]
)
def test_a_good_download_lands_compressed_as_its_name_says_and_is_not_repeated(
    offer, server, cache, path, opener
):
    offer(path=path)
    assert registry.local("toy") is None
    found = registry.fetch("toy")
    assert found == cache / path
    with opener(found, "rb") as f:
        assert f.read() == CONTENT
    assert registry.fetch("toy") == registry.local("toy") == registry.verify("toy") == found
    assert server.asked == ["/good"]
    assert files(cache) == [found]


def test_the_same_content_compressed_by_somebody_else_is_accepted(offer, server, cache):
    offer()
    (cache / "rec").mkdir(parents=True)
    (cache / "rec" / "toy.txt.gz").write_bytes(gzip.compress(CONTENT, compresslevel=1))
    assert registry.fetch("toy") == cache / "rec" / "toy.txt.gz"
    assert server.asked == []


@pytest.mark.parametrize("route", ["/other", "/cut"])
def test_wrong_content_is_refused_and_leaves_nothing(offer, cache, route):
    entry = offer(route)
    with pytest.raises(DataError) as caught:
        registry.fetch("toy")
    sentence = str(caught.value)
    assert entry.url in sentence and entry.sha256 in sentence and str(cache / entry.path) in sentence
    assert "nothing was kept" in sentence and "\n" not in sentence
    assert files(cache) == []


@pytest.mark.parametrize("route", ["/missing", "/broken"])
def test_a_failing_server_is_one_sentence_and_leaves_nothing(offer, cache, route):
    entry = offer(route)
    with pytest.raises(DataError) as caught:
        registry.fetch("toy")
    assert "could not be downloaded" in str(caught.value) and entry.url in str(caught.value)
    assert entry.sha256 in str(caught.value) and "\n" not in str(caught.value)
    assert files(cache) == []


def test_no_network_is_one_sentence_and_leaves_nothing(offer, cache):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    offer(url=f"http://127.0.0.1:{port}/nobody-listens")
    with pytest.raises(DataError, match="check the network"):
        registry.fetch("toy")
    assert files(cache) == []


def test_an_interrupted_download_leaves_nothing(offer, cache, monkeypatch):
    offer()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry.shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        registry.fetch("toy")
    assert files(cache) == []


def spoil_truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def spoil_tamper(path):
    path.write_bytes(gzip.compress(CONTENT.replace(b"item", b"itme")))


def spoil_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def spoil_not_gzip(path):
    path.write_bytes(CONTENT)


@pytest.mark.parametrize("spoil", [spoil_truncate, spoil_tamper, spoil_flip, spoil_not_gzip])
def test_a_spoiled_file_in_the_cache_is_never_used(offer, server, cache, spoil):
    entry = offer()
    path = registry.fetch("toy")
    spoil(path)
    for use in (registry.local, registry.fetch, registry.verify):
        with pytest.raises(DataError) as caught:
            use("toy")
        sentence = str(caught.value)
        assert (
            str(path) in sentence
            and entry.sha256 in sentence
            and entry.url in sentence
            and "delete" in sentence
        )
    assert server.asked == ["/good"]  # nothing was replaced behind the user's back
    assert registry.fetch("toy", force=True) == path == registry.local("toy")


def test_without_a_direct_download_the_sentence_says_what_to_do(offer, cache):
    offer(url=None, obtain="compile it from the reports")
    for use in (registry.fetch, registry.verify):
        with pytest.raises(DataError, match="no direct download: compile it from the reports"):
            use("toy")
    with pytest.raises(DataError, match="no direct download"):
        registry.fetch("toy", force=True)


def test_a_missing_file_is_named_with_the_command_that_gets_it(offer, server):
    offer()
    with pytest.raises(DataError, match="workbench data get toy"):
        registry.verify("toy")
    assert server.asked == []


def test_a_cache_that_cannot_be_written_is_one_sentence(offer, cache):
    offer()
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="could not be downloaded"):
        registry.fetch("toy")


def test_an_unknown_name_suggests_the_nearest():
    for use in (registry.info, registry.local, registry.fetch, registry.verify):
        with pytest.raises(DataError, match="did you mean 'ml-1m'"):
            use("ml1m")


def test_wordnet_needs_no_download(cache):
    assert registry.fetch("wordnet").name == "wordnet.json.xz"
    assert registry.info("wordnet").embedded and files(cache) == []


def test_every_entry_is_complete_and_its_place_its_own():
    for name, entry in registry.DATASETS.items():
        assert entry.name == name and entry.about and entry.licence and entry.size > 0
        assert len(entry.sha256) == 64 and set(entry.sha256) <= set("0123456789abcdef")
        assert entry.embedded or bool(entry.url) != bool(entry.obtain), name
        assert entry.url is None or entry.url.startswith("https://")
        assert not Path(entry.path).is_absolute() and ".." not in entry.path
    paths = [entry.path for entry in registry.DATASETS.values()]
    assert len(set(paths)) == len(paths)


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
@pytest.mark.parametrize("name", [n for n, d in registry.DATASETS.items() if d.size < 10_000_000])
def test_files_that_are_here_have_the_registered_content(name):
    path = registry.local(name)
    if path is None:
        pytest.skip(f"{name} is not here")
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rb") as f:
        assert len(f.read()) == registry.info(name).size
