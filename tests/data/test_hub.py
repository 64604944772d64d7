"""Documents of Hugging Face datasets; a folder of files is one, so that nothing is downloaded."""

from __future__ import annotations

import json
import sys

import pytest

from workbench.data import hub, text
from workbench.errors import DataError, ParameterError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "set"
    place.mkdir()
    rows = [{"text": f"document {i}" if i % 4 else " ", "title": f"{i}"} for i in range(12)]
    (place / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(place)


def test_a_column_becomes_documents_and_a_corpus(folder):
    found = hub.documents(folder)
    assert found == tuple(f"document {i}" for i in range(12) if i % 4)
    assert hub.documents(folder, limit=3) == ("document 1", "document 2")
    assert hub.documents(folder, column="title", limit=2) == ("0", "1")
    corpus = text.split(found, held_out=0.3)
    assert sorted((*corpus.train, *corpus.valid)) == sorted(found)


def test_what_cannot_be_read_is_said(folder, tmp_path):
    with pytest.raises(DataError, match=r"no column 'txt' of texts; it has text, title; did you mean 'text'"):
        hub.documents(folder, column="txt")
    with pytest.raises(DataError, match="could not be read"):
        hub.documents(str(tmp_path / "nothing"))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ParameterError, match="pip install datasets"):
        hub.documents("user/name")
