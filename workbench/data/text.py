"""Text for language models: corpora by name, their split by document, and rows of tokens packed from documents.

Documents follow one another in rows of one length, and each row carries the numbers of its documents, so that
attention can stay inside them. Which tokens a text is cut into is not decided here (`workbench.models.pieces`).
"""

from __future__ import annotations

import hashlib
import lzma
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int

from workbench.data import registry, wordnet
from workbench.errors import DataError, ParameterError, suggest

CORPORA = ("wordnet", "shakespeare", "classics", "wikitext2")
FILES = (".txt", ".md", ".txt.xz")
PIECE = 8000  # bytes from which a run of paragraphs is a document of its own


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and others to validate on, no document in both.

    ParameterError where one of the two is empty, DataError where a document is.
    """

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]

    def __post_init__(self) -> None:
        for part in ("train", "valid"):
            texts = tuple(getattr(self, part))
            object.__setattr__(self, part, texts)
            if not texts:
                raise ParameterError(
                    f"corpus {self.name!r} needs at least one document in {part}, but has none"
                )
            if not all(isinstance(text, str) and text for text in texts):
                raise DataError(
                    f"documents of {self.name!r} should be texts, but one in {part} is empty or none"
                )

    def fingerprint(self) -> str:
        """SHA-256, hex, of all documents in order."""
        sizes = [sum(1 for _ in part) for part in (self.train, self.valid)]
        digest = hashlib.sha256(f"{sizes}".encode())
        for text in (*self.train, *self.valid):
            data = text.encode()
            digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()


def corpus(name: str = "wordnet", *, held_out: float = 0.02, seed: int = 0) -> Corpus:
    """A corpus by name, or a text file of your own; what is not there yet is downloaded.

    "wordnet": names and glosses of 82,115 nouns, embedded, one a document. "shakespeare": plays, in runs of speeches
    of about 8 KB. "classics": 52 books, and 4 others to validate on. "wikitext2": articles; its training split is not
    offered, so its validation split is trained on and its test split validated on. A path that ends in .txt, .md or
    .txt.xz: paragraphs, kept together up to about 8 KB.

    held_out: share of documents to validate on, where the corpus has none set apart; drawn by `seed`.

    Raises:
        ParameterError: another name, or a share outside of (0, 1).
        DataError: data that are not here, no text, or too little to split.
    """
    if not 0 < held_out < 1:
        raise ParameterError(f"held_out must be between 0 and 1, but came as {held_out!r}")
    if name == "classics":
        parts = (_books(_read(registry.fetch(f"classics-{part}"))) for part in ("train", "valid"))
        return Corpus(name, *parts)
    if name == "wikitext2":
        parts = (_articles(_read(registry.fetch(f"wikitext2-{part}"))) for part in ("valid", "test"))
        return Corpus(name, *parts)
    return split(_documents(name), held_out, seed, name)


@lru_cache(maxsize=2)
def _documents(name: str) -> tuple[str, ...]:
    if name == "wordnet":
        nouns = wordnet.nouns()
        return tuple(f"{label}: {gloss}" for label, gloss in zip(nouns.labels, nouns.glosses, strict=True))
    if name == "shakespeare":
        return gathered(_read(registry.fetch("tinyshakespeare")))
    if not str(name).endswith(FILES):
        raise ParameterError(
            f"a corpus is one of {', '.join(CORPORA)} or a file that ends in {', '.join(FILES)}, but came as "
            f"{name!r}{suggest(name, CORPORA)}"
        )
    return gathered(_read(Path(name)))


def split(documents: Iterable[str], held_out: float = 0.02, seed: int = 0, name: str = "own") -> Corpus:
    """Any documents as a corpus: a share of them, one at least, is held out, drawn by `seed`; order is kept.

    DataError for fewer than two.
    """
    documents = tuple(documents)
    if len(documents) < 2:
        raise DataError(
            f"{name!r} must have two documents or more, one of them to validate on, but has {len(documents)}"
        )
    count = min(max(1, round(held_out * len(documents))), len(documents) - 1)
    out = set(np.random.default_rng(seed).permutation(len(documents))[:count].tolist())
    return Corpus(
        name,
        tuple(text for i, text in enumerate(documents) if i not in out),
        tuple(text for i, text in enumerate(documents) if i in out),
    )


def gathered(text: str, size: int = PIECE) -> tuple[str, ...]:
    """A text as documents: paragraphs one after the other until there are `size` bytes. Nothing but blank lines
    between documents is lost."""
    out, now, length = [], [], 0
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.strip():
            continue
        now.append(paragraph)
        length += len(paragraph.encode()) + 2
        if length >= size:
            out, now, length = [*out, "\n\n".join(now)], [], 0
    return tuple(out + (["\n\n".join(now)] if now else []))


def _books(text: str) -> tuple[str, ...]:
    """What follows each line `<|book|> Author | Title`, that line left out."""
    parts = (part.partition("\n")[2].strip() for part in text.split("<|book|>"))
    return tuple(part for part in parts if part)


def _articles(text: str) -> tuple[str, ...]:
    """From one heading ` = Title = ` to the next; ` = = Section = = ` is none."""
    parts = re.split(r"^(?= = [^=\n]+ = $)", text, flags=re.MULTILINE)
    return tuple(part.strip() for part in parts if part.strip())


def _read(path: Path) -> str:
    try:
        if path.suffix == ".xz":
            with lzma.open(path) as f:
                return f.read().decode()
        return path.read_bytes().decode()
    except UnicodeDecodeError as e:
        raise DataError(f"{path} should be UTF-8, but byte {e.start} is not") from None
    except (OSError, lzma.LZMAError, EOFError) as e:
        raise DataError(f"{path} could not be read ({e})") from e


# -- rows of tokens ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Packed text: ids and document numbers (n, context + 1), and how many bytes of text they hold.

    Inputs of a row are all tokens but the last, targets all but the first: `targets`.
    """

    ids: Int[np.ndarray, "n L"]
    documents: Int[np.ndarray, "n L"]
    bytes: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Targets in all."""
        return int((self.documents[:, 1:] >= 0).sum())

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    def targets(self) -> Int[np.ndarray, "n context"]:
        """The next token of each input; -100 where there is none."""
        return np.where(self.documents[:, 1:] >= 0, self.ids[:, 1:], -100)

    def fingerprint(self) -> str:
        """SHA-256, hex, of tokens and document numbers."""
        digest = hashlib.sha256(f"{self.ids.shape} {self.bytes}".encode())
        for part in (self.ids, self.documents):
            digest.update(np.ascontiguousarray(part, dtype="<i4").tobytes())
        return digest.hexdigest()


def packed(
    documents: Sequence[Sequence[int]], context: int, end: int = 0
) -> tuple[Int[np.ndarray, "n L"], Int[np.ndarray, "n L"]]:
    """Documents, given as token ids, in rows of L = context + 1 tokens; and which document each token is of.

    An end token stands before the first document, between any two and after the last; it is counted to the one that
    follows, from which the model is asked for that one's first token. A row begins with the last token of the row
    before, so that every token is a target exactly once. What is left over at the end is filled with end tokens of
    document -1, no targets. A document that goes beyond a row goes on in the next, which does not see its beginning.

    ParameterError for a context below 1, DataError without documents or for an empty one.
    """
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise ParameterError(f"context must be a whole number from 1, but came as {context!r}")
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    if not lengths.size or lengths.min() < 1:
        raise DataError(
            "packing needs documents of at least one token each, but one is empty or there is none"
        )
    total = int(lengths.sum() + len(lengths)) + 1
    rows = -(-(total - 1) // context)
    ids = np.full(rows * context + 1, end, dtype=np.int32)
    numbers = np.full(rows * context + 1, -1, dtype=np.int32)
    numbers[:total] = np.repeat(np.arange(len(lengths) + 1), np.append(lengths + 1, 1))
    inner = np.ones(total, dtype=bool)
    inner[np.append(0, np.cumsum(lengths + 1))] = False
    ids[:total][inner] = np.fromiter((t for d in documents for t in d), np.int32, int(lengths.sum()))
    windows = context * np.arange(rows)[:, None] + np.arange(context + 1)
    return ids[windows], numbers[windows]


def rows(texts: Sequence[str], encode, context: int, end: int = 0) -> Rows:
    """Texts as packed rows. encode: texts → lists of ids, such as `Pieces.encode_all`. Bytes are those of the texts
    (UTF-8); ends are no bytes, though the model is asked for them too."""
    return Rows(*packed(encode(texts), context, end), sum(len(text.encode()) for text in texts))
