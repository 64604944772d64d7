"""The embedded WordNet against the literature's counts, an independent parse, and a naive closure."""

import csv
import gzip
import importlib.util
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from workbench.data import wordnet
from workbench.errors import DataError
from workbench.files import sha256
from workbench.paths import asset

DEBIAN = Path("/usr/share/wordnet/data.noun")


def above(parents, node, memo):
    """Every ancestor, by plain recursion."""
    if node not in memo:
        memo[node] = set().union(*({p} | above(parents, p, memo) for p in parents[node]))
    return memo[node]


def test_the_noun_hierarchy_has_the_published_counts():
    h = wordnet.nouns()
    assert len(h) == 82_115
    assert len(h.closure()) == 743_241
    assert [h.names[i] for i in h.roots] == ["entity.n.01"]
    assert h.depth.max() == 18


def test_hypernyms_alone_give_the_hierarchy_of_hit_and_him():
    h = wordnet.nouns(instances=False)
    assert len(h) == 74_401
    assert len(h.edges) == 75_850
    assert len(h.closure()) - len(h.edges) == 587_658
    assert len(h.roots) == 12 and len(h.subtree("entity.n.01")) == 74_374


def test_mammals_are_those_of_the_2017_paper_and_the_subtree_is_whole():
    paper, whole = wordnet.mammals(), wordnet.subtree("mammal.n.01")
    assert (len(paper), len(paper.closure())) == (1_180, 6_540)
    assert (len(whole), len(whole.closure())) == (1_182, 6_542)
    assert set(whole.names) - set(paper.names) == set(wordnet.LEFT_OUT_IN_2017)
    assert [paper.names[i] for i in paper.roots] == ["mammal.n.01"]


def test_the_closure_of_the_2017_release_equals_its_rule_followed_literally():
    h = wordnet.nouns()
    classes, instances = defaultdict(list), defaultdict(list)
    for parent, child in wordnet._hypernym_edges().tolist():
        classes[child].append(parent)
    for parent, child in wordnet._instance_edges().tolist():
        instances[child].append(parent)
    by_class, by_instance, expected = {}, {}, set()
    for node in range(len(h)):
        expected |= {node * len(h) + a for a in above(classes, node, by_class)}
        for first in above(instances, node, by_instance):
            expected |= {node * len(h) + a for a in {first} | above(classes, first, by_class)}
    pairs = wordnet.nouns_closure_2017()
    assert len(pairs) == 743_086
    keys = pairs[:, 1] * len(h) + pairs[:, 0]
    assert keys.tolist() == sorted(expected)
    full = h.closure()
    missing = np.setdiff1d(full[:, 1] * len(h) + full[:, 0], keys)
    assert len(missing) == 155 and len(np.unique(missing // len(h))) == 22


def test_dog_reads_as_in_nltk():
    h = wordnet.nouns()
    i = h.index("dog.n.01")
    assert h.labels[i] == "dog"
    assert wordnet.lemmas()[i] == ("dog", "domestic_dog", "Canis_familiaris")
    assert wordnet.offsets()[i] == 2_084_071
    assert wordnet.lexnames()[i] == "noun.animal"
    assert {h.names[p] for p in h.parents(i)} == {"canine.n.02", "domestic_animal.n.01"}
    assert h.glosses[i].endswith('"the dog barked all night"')
    assert h.names[h.path_to_root(i)[-1]] == "entity.n.01"
    assert h.labels[h.index("physical_entity.n.01")] == "physical entity"


def test_columns_are_complete_and_aligned():
    h = wordnet.nouns()
    for column in (wordnet.lemmas(), wordnet.offsets(), wordnet.lexnames(), h.glosses, h.labels):
        assert len(column) == len(h)
    assert all(h.glosses) and len(set(wordnet.lexnames())) == 26
    assert all(gloss == gloss.strip() and "\n" not in gloss for gloss in h.glosses)


def test_loading_and_closing_take_seconds_not_minutes():
    code = (
        "import time; from workbench.data import wordnet; t = time.process_time(); h = wordnet.nouns();"
        "print(time.process_time() - t); t = time.process_time(); h.closure(); print(time.process_time() - t)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    load, close = map(float, out.split())
    assert load < 3 and close < 5  # measured 0.6 and 0.4 s; the margins are for a busy machine


def test_repeated_calls_share_one_hierarchy():
    start = time.perf_counter()
    assert wordnet.nouns() is wordnet.nouns() and wordnet.mammals() is wordnet.mammals()
    assert time.perf_counter() - start < 1


def test_unknown_synset_is_refused_with_a_suggestion():
    with pytest.raises(DataError, match=r"did you mean 'mammal\.n\.01'"):
        wordnet.subtree("mamal.n.01")


def test_the_file_is_small_and_its_licence_stands_beside_it():
    assert asset("wordnet.json.xz").stat().st_size < 4_000_000
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in asset("WORDNET_LICENSE").read_text()


def test_a_damaged_asset_is_refused(monkeypatch, tmp_path):
    (tmp_path / "wordnet.json.xz").write_bytes(asset("wordnet.json.xz").read_bytes()[:100_000])
    monkeypatch.setattr(wordnet, "asset", lambda name: tmp_path / name)
    with pytest.raises(DataError, match="reinstall"):
        wordnet._columns.__wrapped__()


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
def test_every_row_equals_an_independent_parse_of_the_database():
    path = Path(os.environ["WORKBENCH_DATA"]) / "him" / "wordnet30_nouns.tsv.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with gzip.open(path, "rt", encoding="utf-8") as f:
        rows = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    h, lemmas, offsets, lexnames = wordnet.nouns(), wordnet.lemmas(), wordnet.offsets(), wordnet.lexnames()
    assert len(rows) == len(h)
    at = {int(row["offset"]): i for i, row in enumerate(rows)}
    for i, row in enumerate(rows):
        assert offsets[i] == int(row["offset"])
        assert "|".join(lemmas[i]) == row["lemmas"]
        assert h.glosses[i] == row["gloss"]
        assert lexnames[i] == f"noun.{row['lexfile']}"
        parents = [*row["hypernyms"].split(","), *row["instance_hypernyms"].split(",")]
        assert h.parents(i).tolist() == sorted(at[int(p)] for p in parents if p)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_file(), reason="Debian's wordnet-base is not installed")
@pytest.mark.skipif(importlib.util.find_spec("nltk") is None, reason="nltk is not installed")
def test_the_build_script_writes_the_shipped_bytes_again(tmp_path):
    script = Path(__file__).resolve().parents[2] / "scripts" / "build_wordnet.py"
    subprocess.run([sys.executable, script, "--out", tmp_path / "again.xz"], check=True, capture_output=True)
    assert sha256(tmp_path / "again.xz") == sha256(asset("wordnet.json.xz"))
