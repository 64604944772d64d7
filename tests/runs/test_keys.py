from __future__ import annotations

import json
import shutil

import pytest

from workbench.errors import DataError
from workbench.paths import PACKAGE
from workbench.runs import keys


@pytest.fixture
def package(tmp_path):
    """A small package: two modules, a widget with its script, an asset."""
    files = {
        "__init__.py": "",
        "a/__init__.py": "",
        "a/b.py": "x = 1\n",
        "w/__init__.py": "",
        "w/disk.js": "1;\n",
    }
    for name, text in files.items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "package" / "assets").mkdir()
    (tmp_path / "package" / "assets" / "table.bin").write_bytes(b"\r\n\0")
    return tmp_path / "package"


def test_source_hashes_do_not_depend_on_the_place_or_on_line_endings(package, tmp_path):
    before = keys.source_hashes(package)
    shutil.copytree(package, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a" / "b.py").write_bytes(b"x = 1\r\n")
    assert keys.source_hashes(tmp_path / "elsewhere") == before
    assert list(before) == ["__init__.py", "a/__init__.py", "a/b.py", "w/__init__.py", "w/disk.js"]


def test_assets_are_hashed_byte_for_byte_and_by_name(package):
    before = keys.asset_hash(package)
    (package / "assets" / "table.bin").write_bytes(b"\n\0")
    assert keys.asset_hash(package) != before
    (package / "assets" / "table.bin").write_bytes(b"\r\n\0")
    assert keys.asset_hash(package) == before
    (package / "assets" / "table.bin").rename(package / "assets" / "other.bin")
    assert keys.asset_hash(package) != before


def test_only_loaded_modules_count_and_a_widgets_script_with_its_package(package):
    sources = keys.source_hashes(package)
    assert list(keys.loaded(sources, ["workbench", "workbench.a", "numpy.w"])) == [
        "__init__.py",
        "a/__init__.py",
    ]
    assert set(keys.loaded(sources, ["workbench.w"])) == {"w/__init__.py", "w/disk.js"}
    assert "a/b.py" in keys.loaded(sources, ["workbench.a.b"])


def base() -> dict:
    return keys.inputs("code", {"n": 1}, {"a.py": "1", "b.py": "2"}, "assets", {"wordnet": "3"})


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("code", "other", "the notebook's code changed"),
        ("parameters", {"n": 2}, r"other parameters (n)"),
        ("parameters", {"n": 1, "m": 1}, r"other parameters (m)"),
        ("sources", {"a.py": "9", "b.py": "2"}, "workbench/a.py changed"),
        ("sources", {"a.py": "1"}, "workbench/b.py changed"),
        ("assets", "other", "workbench/assets changed"),
        ("data", {"wordnet": "4"}, "its data changed"),
    ],
)
def test_whatever_changes_the_key_is_named_as_a_reason(part, value, reason):
    now = base() | {part: value}
    assert keys.key(now) != keys.key(base())
    assert keys.changes(base(), now) == [reason]


def test_a_module_that_the_figure_never_loaded_does_not_make_it_stale():
    now = base() | {"sources": {"a.py": "1", "b.py": "2", "new.py": "5"}}
    assert keys.changes(base(), now) == []


def test_the_key_survives_json_and_the_order_of_its_parts():
    again = json.loads(json.dumps(dict(reversed(base().items()))))
    assert keys.key(again) == keys.key(base())


def test_code_hash_ignores_trailing_blanks_only():
    assert keys.code_hash(["x\n"]) == keys.code_hash(["x"]) != keys.code_hash(["x", ""])
    assert keys.code_hash(["a", "b"]) != keys.code_hash(["b", "a"])


def test_an_unknown_data_set_is_refused():
    with pytest.raises(DataError, match="unknown data set 'no-such-set'"):
        keys.data_hashes(["no-such-set"])


def test_the_real_package_hashes_quickly_and_without_its_caches():
    names = keys.source_hashes(PACKAGE)
    assert "runs/keys.py" in names and not any("__pycache__" in n or n.startswith("/") for n in names)
