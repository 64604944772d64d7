"""Byte-level BPE: a tokenizer for language models that are trained here, over `tokenizers`.

Any text is cut into pieces of its bytes and comes back bit for bit; nothing is unknown. Text is first split into
words with their blank, numbers, marks and blanks, as GPT-2 does, and pairs are merged within those only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from workbench.errors import CheckpointError, DataError, ParameterError

END_TEXT = "<|end|>"
LEAST = 257  # the end, and all bytes


class Pieces:
    """Texts to token ids and back.

    >>> pieces = Pieces.train(["the cat sat on the mat"] * 8, size=270)
    >>> pieces.decode(pieces.encode("the naïve cat"))
    'the naïve cat'

    Made by `train` or `from_json`. Token END stands between documents; no text is cut into it.
    """

    END = 0

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 4096) -> Pieces:
        """The `size` pieces that training on these texts gives, the same for the same texts on any machine; fewer
        where the texts hold no more pairs.

        ParameterError for a size below 257, DataError without text.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < LEAST:
            raise ParameterError(f"size must be a whole number from {LEAST}, but came as {size!r}")
        texts = [_checked(text) for text in texts]
        if not any(texts):
            raise DataError("a tokenizer needs some text to be trained on, but none came")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        # As trained, it would cut the end's name out of a text; built anew without added tokens, it does not.
        return cls.from_json(backend.to_str())

    def __len__(self) -> int:
        """Number of pieces, the end included: one more than the largest id."""
        return self._backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of a text; no end."""
        return self._backend.encode(_checked(text), add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each, on all cores."""
        found = self._backend.encode_batch_fast([_checked(text) for text in texts], add_special_tokens=False)
        return [one.ids for one in found]

    def decode(self, ids: Iterable[int]) -> str:
        """The text; ends are left out, bytes that are no UTF-8 become the replacement sign.

        ParameterError for an id outside of the vocabulary.
        """
        ids = [int(i) for i in ids]
        if wrong := [i for i in ids if not 0 <= i < len(self)]:
            raise ParameterError(f"ids should be from 0 to {len(self) - 1}, but {wrong[0]} came")
        return self._backend.decode([i for i in ids if i != self.END], skip_special_tokens=False)

    def json(self) -> str:
        """All of it as text, which `tokenizers` reads, too."""
        return self._backend.to_str()

    @classmethod
    def from_json(cls, text: str) -> Pieces:
        """What `json` gave; CheckpointError for anything else."""
        try:
            about = json.loads(text)
            about["added_tokens"] = []
            backend = tokenizers.Tokenizer.from_str(json.dumps(about))
        except Exception as e:  # tokenizers raises bare Exceptions
            raise CheckpointError(f"this is no tokenizer that was saved here ({e})") from e
        if backend.token_to_id(END_TEXT) != cls.END:
            raise CheckpointError(f"this tokenizer should have {END_TEXT} as token {cls.END}, but has not")
        return cls(backend)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, hex, of what decides how a text is numbered."""
        return hashlib.sha256(self.json().encode()).hexdigest()


@lru_cache(maxsize=4)
def trained(texts: tuple[str, ...], size: int) -> Pieces:
    """`Pieces.train`, once a session for the same texts."""
    return Pieces.train(texts, size)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"a text should be a str, but {type(text).__name__} came")
    return text
