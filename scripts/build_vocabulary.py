"""Build workbench/assets/wordpiece.txt: the word pieces of WordNet's noun labels and glosses, one a line.

python scripts/build_vocabulary.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.data import wordnet
from workbench.files import atomic_write, sha256
from workbench.models.wordpiece import VOCABULARY, Tokenizer
from workbench.paths import asset


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8000, help="pieces, special ones included")
    parser.add_argument("--out", type=Path, default=asset(VOCABULARY))
    args = parser.parse_args()
    h = wordnet.nouns()
    tokenizer = Tokenizer.train([*h.labels, *h.glosses], args.size)
    with atomic_write(args.out) as f:
        f.writelines(f"{piece}\n" for piece in tokenizer.vocabulary())
    print(f"{args.out}: {tokenizer.vocab_size:,} pieces, sha256 {sha256(args.out)}")


if __name__ == "__main__":
    main()
