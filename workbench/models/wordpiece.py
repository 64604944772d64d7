"""Names as numbers: a WordPiece tokenizer over the `tokenizers` library, its own vocabulary shipped in the package.

The vocabulary is trained on the embedded WordNet by `scripts/build_vocabulary.py`; it lies in the package, so that
two machines cut the same name into the same pieces. Any other fast tokenizer of Hugging Face serves as well.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Bool, Int
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.paths import asset

PAD, UNK, CLS, SEP = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = "wordpiece.txt"


class Tokenizer:
    """Texts to rows of piece numbers.

    >>> Tokenizer.default()(["domestic dog", "dog"])
    (tensor([[2, …, 3], [2, …, 3, 0]]), tensor([[True, …], [True, True, True, False]]))

    Made by `default`, `train`, `from_file`, `of` or `from_json`. Two tokenizers of one fingerprint cut alike.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = tokenizers.Tokenizer.from_str(
            backend.to_str()
        )  # ours: truncation is set and unset below
        self._backend.no_truncation()
        padding = self._backend.padding or {}
        token = padding.get("pad_token", PAD)
        pad_id = self._backend.token_to_id(token)
        if pad_id is None:
            raise ParameterError(
                f"a tokenizer needs a piece to pad with, but {token!r} is not in its vocabulary"
            )
        self._backend.enable_padding(direction="right", pad_id=pad_id, pad_token=token)
        self._specials = self._backend.num_special_tokens_to_add(False)

    # -- making one ---------------------------------------------------------------------------------------
    @classmethod
    def default(cls) -> Tokenizer:
        """The shipped vocabulary: about 8,000 pieces of WordNet's noun labels and glosses, lower case."""
        return cls.from_file(asset(VOCABULARY))

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 8000) -> Tokenizer:
        """A vocabulary of at most `size` pieces, for texts such as these; the same texts give the same one."""
        if isinstance(size, bool) or not isinstance(size, int) or size <= len(SPECIAL):
            raise ParameterError(
                f"a vocabulary needs more than {len(SPECIAL)} pieces, but size came as {size!r}"
            )
        texts, backend = _checked(list(texts)), _bert({token: i for i, token in enumerate(SPECIAL)})
        # Equally frequent pairs are merged in the order of their pieces' numbers; letters get theirs here, since the
        # library would hand them out in another order in every run.
        first = [*SPECIAL, *_letters(backend, texts)]
        if size < len(first):
            raise ParameterError(
                f"these texts need {len(first)} pieces for their letters alone, but size came as {size}"
            )
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False)
        backend.train_from_iterator(texts, trainer)
        pieces = [*SPECIAL, *sorted(set(backend.get_vocab()) - set(SPECIAL))]
        return cls(_bert({piece: i for i, piece in enumerate(pieces)}))

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """A `tokenizer.json` of Hugging Face, or a BERT `vocab.txt` (one piece a line; lower case).

        DataError if there is no such file or it holds no tokenizer.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"no vocabulary can be read from {path} ({e})") from e
        if path.suffix == ".json":
            try:
                return cls(tokenizers.Tokenizer.from_str(text))
            except Exception as e:  # the library raises plain Exception
                raise DataError(f"{path} holds no tokenizer of Hugging Face ({e})") from e
        pieces = text.rstrip("\n").split("\n")  # not splitlines: BERT's pieces include other ends of line
        if missing := [token for token in SPECIAL if token not in pieces]:
            raise DataError(f"{path} is no vocabulary of BERT: it lacks {', '.join(missing)}")
        if len(set(pieces)) < len(pieces):
            raise DataError(f"{path} is no vocabulary of BERT: some of its {len(pieces)} pieces come twice")
        return cls(_bert({piece: i for i, piece in enumerate(pieces)}))

    @classmethod
    def of(cls, tokenizer) -> Tokenizer:
        """Any fast tokenizer of Hugging Face's transformers (or a `tokenizers.Tokenizer`)."""
        if isinstance(tokenizer, tokenizers.Tokenizer):
            return cls(tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            raise ParameterError(f"a fast tokenizer is needed, but {type(tokenizer).__name__} came")
        backend = tokenizers.Tokenizer.from_str(backend.to_str())
        if tokenizer.pad_token is not None:
            backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
        return cls(backend)

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """What `to_json` gave; CheckpointError for anything else."""
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as e:
            raise CheckpointError(f"this is no tokenizer that a workbench model was saved with ({e})") from e

    def to_json(self) -> str:
        """All of it as text: vocabulary, rules and padding."""
        self._backend.no_truncation()
        return self._backend.to_str()

    # -- what it is ---------------------------------------------------------------------------------------
    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, hex, of what decides how a text is cut: rules, vocabulary and padding."""
        rules = json.loads(self.to_json())
        decisive = [rules[part] for part in ("normalizer", "pre_tokenizer", "model", "post_processor")]
        text = json.dumps([*decisive, self._backend.padding["pad_id"]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of pieces: one more than the largest id."""
        return max(self._backend.get_vocab().values()) + 1

    def vocabulary(self) -> list[str]:
        """All pieces by id."""
        vocab = self._backend.get_vocab()
        return sorted(vocab, key=vocab.__getitem__)

    def pieces(self, text: str) -> list[str]:
        """The pieces that a text is cut into, special ones included."""
        self._backend.no_truncation()
        return self._backend.encode(text).tokens

    # -- using it -----------------------------------------------------------------------------------------
    def __call__(
        self, texts: Sequence[str], max_tokens: int = 128
    ) -> tuple[Int[Tensor, "n L"], Bool[Tensor, "n L"]]:
        """ids and mask, L the longest row's number of pieces; True where there is a piece, padding at the right.

        Args:
            max_tokens: of a row, special pieces included; longer texts lose their end, and one warning counts them.

        Raises:
            DataError: a text is no str, or nothing is left of it (blank, control characters); names its position.
        """
        if isinstance(texts, str):
            raise ParameterError(f"texts should be a list of str, but one str came: {texts[:40]!r}")
        if max_tokens <= self._specials:
            raise ParameterError(
                f"max_tokens should be more than the {self._specials} special pieces of a text, but is {max_tokens!r}"
            )
        texts = _checked(list(texts))
        if not texts:
            return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.bool)
        self._backend.enable_truncation(max_tokens)
        rows = self._backend.encode_batch(texts)
        ids = torch.tensor([row.ids for row in rows], dtype=torch.int64)
        mask = torch.tensor([row.attention_mask for row in rows], dtype=torch.bool)
        _refuse((mask.sum(1) <= self._specials).tolist(), texts)
        self._warn(texts, rows, ids, mask, max_tokens)
        return ids, mask

    def _warn(self, texts: list[str], rows: list, ids: Tensor, mask: Tensor, max_tokens: int) -> None:
        cut = sum(bool(row.overflowing) for row in rows)
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts have more than {max_tokens} pieces and were cut", stacklevel=3
            )
        unknown = self._backend.token_to_id(UNK)
        strange = (
            ((ids == unknown).sum(1) == mask.sum(1) - self._specials).nonzero() if unknown is not None else ()
        )
        if len(strange):
            first = texts[int(strange[0])][:40]
            warnings.warn(
                f"{len(strange)} of {len(texts)} texts have no piece that the vocabulary knows, first {first!r}",
                stacklevel=3,
            )


def trim(ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> tuple[Tensor, Tensor]:
    """Some rows of a larger batch without the columns that only its longer rows needed."""
    longest = int(mask.sum(1).max()) if len(mask) else 0
    return ids[:, :longest], mask[:, :longest]


def _checked(texts: list[str]) -> list[str]:
    _refuse([not isinstance(text, str) or not text.strip() for text in texts], texts)
    return texts


def _refuse(empty: list[bool], texts: list[str]) -> None:
    if any(empty):
        i = empty.index(True)
        raise DataError(f"text {i} should have words, but is {texts[i]!r:.40}")


def _letters(backend: tokenizers.Tokenizer, texts: list[str]) -> list[str]:
    """The letters that words begin with, and those within words, marked as pieces are."""
    begin, within = set(), set()
    for text in texts:
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            begin.add(word[0])
            within.update(word[1:])
    return [*sorted(begin), *(f"##{letter}" for letter in sorted(within))]


def _bert(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    """BERT's rules, lower case, around a vocabulary (Devlin et al. 2019)."""
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing((SEP, vocabulary[SEP]), (CLS, vocabulary[CLS]))
    backend.add_special_tokens(list(SPECIAL))
    return backend
