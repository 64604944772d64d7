"""Build workbench/assets/wordnet.json.xz from Princeton WordNet 3.0 as Debian packages it.

    apt-get install wordnet-base
    pip install nltk
    python scripts/build_wordnet.py

Running it twice writes the same bytes. Names, lemmas and relations come through nltk's reader, so that they
are nltk's; glosses are taken whole (nltk separates definitions from examples and drops the rest).
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import tempfile
import warnings
from pathlib import Path

import nltk
from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

from workbench.files import atomic_write, sha256
from workbench.paths import asset

# Debian leaves out WordNet's `lexnames` file, which numbers the lexicographer files; this is lexnames(5WN).
LEXNAMES = {
    "adj": "all pert",
    "adv": "all",
    "noun": "Tops act animal artifact attribute body cognition communication event feeling food group "
    "location motive object person phenomenon plant possession process quantity relation shape state "
    "substance time",
    "verb": "body change cognition communication competition consumption contact creation emotion motion "
    "perception possession social stative weather",
}
CATEGORY = [(3, "adj"), (4, "adv"), (1, "noun"), (2, "verb")]  # in the order of the file


class Reader(WordNetCorpusReader):
    """nltk's reader without its map between WordNet versions, which needs a second, downloaded WordNet."""

    def map_wn(self, version: str = "wordnet") -> None:
        return None


def lexnames_file() -> str:
    """Rows of number, name and category."""
    rows = [(c, f"{pos}.{name}") for c, pos in CATEGORY for name in LEXNAMES[pos].split()]
    rows.append((3, "adj.ppl"))
    return "".join(f"{i:02d}\t{name}\t{c}\n" for i, (c, name) in enumerate(rows))


def read_nouns(folder: Path) -> tuple[list[Synset], dict[int, str]]:
    """All noun synsets by rising offset, and the gloss at each offset."""
    with tempfile.TemporaryDirectory() as aside:  # nltk reads only below folders on its own search path
        for file in folder.iterdir():
            if file.is_file():
                shutil.copy(file, aside)
        Path(aside, "lexnames").write_text(lexnames_file())
        nltk.data.path.append(aside)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about languages other than English
            reader = Reader(aside, None)
        if reader.get_version() != "3.0":
            raise SystemExit(f"{folder} holds WordNet {reader.get_version()}, not 3.0")
        synsets = sorted(reader.all_synsets("n"), key=lambda s: s.offset())
        for s in synsets:  # resolve the lazy relations while the files are there
            s.hypernyms(), s.instance_hypernyms()
    lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    glosses = {int(line[:8]): line.split("|", 1)[1].strip() for line in lines if not line.startswith(" ")}
    return synsets, glosses


def columns(synsets: list[Synset], glosses: dict[int, str]) -> dict:
    """The content of the file: one list per column; a hypernym as how many rows below it stands."""
    row = {s.offset(): i for i, s in enumerate(synsets)}
    lexnames = sorted({s.lexname() for s in synsets})
    for s in synsets:
        if s.name() != f"{s.lemma_names()[0].lower()}.n.{int(s.name()[-2:]):02d}":
            raise SystemExit(f"{s.name()} does not follow from its first lemma {s.lemma_names()[0]}")
    return {
        "about": "Princeton WordNet 3.0, noun synsets. WordNet 3.0 Copyright 2006 by Princeton University. "
        "All rights reserved. Licence: WORDNET_LICENSE.",
        "lexnames": lexnames,
        "offset": [s.offset() for s in synsets],
        "sense": [int(s.name()[-2:]) for s in synsets],
        "lexname": [lexnames.index(s.lexname()) for s in synsets],
        "lemmas": "\n".join("|".join(s.lemma_names()) for s in synsets),
        "gloss": "\n".join(glosses[s.offset()] for s in synsets),
        "hypernyms": [sorted(row[p.offset()] - i for p in s.hypernyms()) for i, s in enumerate(synsets)],
        "instances": sorted(
            [i, row[p.offset()]] for i, s in enumerate(synsets) for p in s.instance_hypernyms()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", type=Path, default=Path("/usr/share/wordnet"), help="folder with data.noun"
    )
    parser.add_argument("--out", type=Path, default=asset("wordnet.json.xz"))
    args = parser.parse_args()
    content = columns(*read_nouns(args.source))
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    with atomic_write(args.out, "wb") as f:
        f.write(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    count, size = len(content["offset"]), args.out.stat().st_size
    print(f"{args.out}: {count:,} synsets, {size:,} bytes, sha256 {sha256(args.out)}")


if __name__ == "__main__":
    main()
