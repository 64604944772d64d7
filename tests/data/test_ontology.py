"""Reading OBO files and edge lists: round trips through real files, and sentences for bad ones."""

import gzip
import os
from pathlib import Path

import pandas as pd
import pytest

from workbench.data import Hierarchy, ontology, trees
from workbench.errors import DataError, ParameterError

OBO = """format-version: 1.2
ontology: zoo

[Term]
id: Z:1
name: animal
def: "A living thing that \\"moves\\"." [Z:ref]

[Term]
id: Z:2
name: dog
is_a: Z:1 ! animal
relationship: part_of Z:9 ! pack

[Term]
id: Z:3
name: gone
is_a: Z:1
is_obsolete: true

[Term]
id: Z:4
is_a: Z:2
is_a: X:7

[Term]
id: Z:5
name: alone

[Typedef]
id: part_of
name: part of
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["zoo.obo", "zoo.obo.gz"])
def test_obo_keeps_live_terms_and_their_is_a_edges(tmp_path, name):
    h = ontology.read_obo(write(tmp_path, name, OBO))
    assert set(h.names) == {"Z:1", "Z:2", "Z:4", "Z:5", "X:7"}
    edges = {(h.names[a], h.names[b]) for a, b in h.edges}
    assert edges == {("Z:1", "Z:2"), ("Z:2", "Z:4"), ("X:7", "Z:4")}
    assert [h.labels[h.index(v)] for v in ("Z:2", "Z:4", "X:7")] == ["dog", "Z:4", "X:7"]
    assert h.glosses[h.index("Z:1")] == 'A living thing that "moves".'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[Term]\nid: a\nis_a: b\n\n[Term]\nid: b\nis_a: a\n", "closes a cycle"),
        ("[Term]\nid: a\nis_a: a\n", "own parent"),
        ("[Term]\nid: a\nis_obsolete: true\n", "no term that is not obsolete"),
        ("", "OBO"),
        ("<html>not found</html>", "OBO"),
        ("[Term]\nname: without id\n", "OBO"),
    ],
)
def test_bad_obo_is_refused_with_the_file_name(tmp_path, text, sentence):
    path = write(tmp_path, "bad.obo", text)
    with pytest.raises(DataError, match=sentence) as caught:
        ontology.read_obo(path)
    assert "bad.obo" in str(caught.value)


def test_truncated_gzip_and_missing_files_are_refused(tmp_path):
    whole = gzip.compress(OBO.encode())
    (tmp_path / "cut.obo.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.obo\.gz cannot be read"):
        ontology.read_obo(tmp_path / "cut.obo.gz")
    with pytest.raises(DataError, match=r"cut\.tsv\.gz cannot be read"):
        ontology.read_edges(tmp_path / "cut.tsv.gz")
    for read in (ontology.read_obo, ontology.read_edges):
        with pytest.raises(DataError, match="there is no file"):
            read(tmp_path / "nowhere.tsv")


@pytest.mark.parametrize("name", ["e.tsv", "e.csv", "e.parquet", "e.tsv.gz", "e.csv.gz", "e.txt"])
@pytest.mark.parametrize("by", ["name", "position"])
def test_an_edge_list_comes_back_as_the_hierarchy_it_was(tmp_path, name, by):
    h = trees.with_noise(trees.random_recursive(40, seed=3), 10, seed=4)
    table = pd.DataFrame(
        [(h.names[b], "x", h.names[a]) for a, b in h.edges], columns=["narrow", "why", "broad"]
    )
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if ".csv" in name else "\t", index=False)
    columns = {"parent": "broad", "child": "narrow"} if by == "name" else {"parent": 2, "child": 0}
    again = ontology.read_edges(path, **columns)
    assert {(again.names[a], again.names[b]) for a, b in again.edges} == {
        (h.names[a], h.names[b]) for a, b in h.edges
    }
    assert len(again) == len(h)


def test_a_header_is_never_guessed(tmp_path):
    path = write(tmp_path, "e.tsv", "a\tb\nb\tc\n")
    assert ontology.read_edges(path, header=False).names == ("a", "b", "c")
    assert ontology.read_edges(path).names == ("b", "c")
    with pytest.raises(DataError, match=r"no column 'a' for parent; its columns are 0, 1"):
        ontology.read_edges(path, parent="a", header=False)


def test_a_table_of_nodes_with_several_parents(tmp_path):
    text = 'id,parents,name,text\nr,,Root,"first, of all"\na,r,A,\nb,r| a,,last\n'
    h = ontology.read_edges(
        write(tmp_path, "n.csv", text), "parents", "id", several="|", label="name", gloss="text"
    )
    expected = Hierarchy.from_edges(
        [("r", "a"), ("r", "b"), ("a", "b")],
        ["r", "a", "b"],
        ["Root", "A", "b"],
        ["first, of all", "", "last"],
    )
    assert h == expected


def test_lone_quotes_and_the_word_null_are_ordinary_text_in_tabs(tmp_path):
    path = write(tmp_path, "e.tsv", 'p\tc\tg\nNA\tnull\ta "gloss\nNA\tnan\t5\' 3"\n')
    h = ontology.read_edges(path, "p", "c", gloss="g")
    assert h.names == ("NA", "null", "nan") and h.glosses == ("", 'a "gloss', "5' 3\"")


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("p\tc\na\tb\n", {"parent": "parent"}, r"no column 'parent' for parent; its columns are 0: p, 1: c"),
        ("broader\tc\na\tb\n", {"parent": "broder"}, r"did you mean 'broader'"),
        ("p\tc\na\tb\n", {"child": 2}, r"no column 2 for child"),
        ("p\tc\na\tb\n", {"label": "name"}, r"no column 'name' for label"),
        ("p\tc\na\tb\na\t\n", {}, r"data row 1 has no child"),
        ("p\tc\na\tb\n \tb\n", {}, r"data row 1 has no parent"),
        ("p\tc\na\tb\na\tb\n", {}, r"row 1 repeats the edge 'a' → 'b' of row 0"),
        ("p\tc\na\tb\nb\ta\n", {}, r"closes a cycle"),
        ("p\tc\na|b\tc\n\td\ne\te\n", {"several": "|"}, r"row 2 makes 'e' its own parent"),
        ("p\tc\na\tc\nb\tc\n", {"several": "|"}, r"data row 1 describes 'c' again, after row 0"),
        ("p\tc\n", {}, r"at least one node"),
        ("", {}, r"cannot be read as a table"),
        ("p\tc\na\tb\tx\n", {}, r"data row 0 has 3 cells where 2 are expected"),
        ("p\tc\na\tb\nc\n", {}, r"data row 1 has 1 cells where 2 are expected"),
        ("p\tc\n\n\na\tb\n", {"parent": "q"}, r"no column 'q'"),
    ],
)
def test_bad_tables_are_refused_with_file_and_row(tmp_path, text, options, sentence):
    path = write(tmp_path, "bad.tsv", text)
    with pytest.raises(DataError, match=sentence) as caught:
        ontology.read_edges(path, **options)
    assert "bad.tsv" in str(caught.value)


def test_self_loops_are_dropped_only_on_request(tmp_path):
    path = write(tmp_path, "e.tsv", "p\tc\na\tb\nc\tc\n")
    with pytest.raises(DataError, match="row 1 makes 'c' its own parent"):
        ontology.read_edges(path)
    h = ontology.read_edges(path, drop_self_loops=True)
    assert h.names == ("a", "b", "c") and len(h.edges) == 1


def test_an_unknown_extension_needs_a_separator(tmp_path):
    path = write(tmp_path, "e.dat", "p;c\na;b\n")
    with pytest.raises(ParameterError, match=r"expected one of \.tsv"):
        ontology.read_edges(path)
    assert ontology.read_edges(path, separator=";").names == ("a", "b")


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
def test_the_disease_ontology_has_its_published_counts():
    path = Path(os.environ["WORKBENCH_DATA"]) / "him" / "doid_2026-07-31.tsv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    h = ontology.read_edges(path, "parents", "id", several=",", label="label", gloss="definition")
    assert (len(h), len(h.edges), len(h.closure()) - len(h.edges)) == (12_247, 12_296, 61_898)
    assert [h.labels[i] for i in h.roots] == ["disease"]
