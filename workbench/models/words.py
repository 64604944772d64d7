"""Whole words as numbers: a tokenizer for small language models that are trained here, over `tokenizers`.

Text is lower case; words, numbers ("0.01", "1,200"), masked numbers ("number0") and single marks ("+", "?") stand
apart. A word that training did not see often enough is one unknown word.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from workbench.errors import CheckpointError, DataError, ParameterError

SPECIAL = ("[PAD]", "[UNK]", "[START]", "[END]")  # no text is cut into these: marks stand apart
WORD = r"number[0-9]+|[\p{L}\p{M}]+|\d+(?:[.,]\d+)*|[^\s\p{L}\p{M}\d]"


class Words:
    """Texts to word numbers and back.

    >>> words = Words.train(["Add number0 and number1."] * 2)
    >>> words.decode(words.encode("number1 and number0"))
    'number1 and number0'

    Made by `train` or `from_json`. Two of one fingerprint number alike.
    """

    PAD, UNK, START, END = range(4)

    def __init__(self, vocabulary: Sequence[str]):
        """vocabulary: all words by id, the four special ones first; ParameterError otherwise."""
        self._words = tuple(vocabulary)
        if self._words[:4] != SPECIAL:
            raise ParameterError(f"a vocabulary begins with {' '.join(SPECIAL)}, but {self._words[:4]} came")
        if len(set(self._words)) < len(self._words):
            raise ParameterError(f"words of a vocabulary differ, but some of these {len(self)} come twice")
        self._backend = _backend({word: i for i, word in enumerate(self._words)})

    @classmethod
    def train(cls, texts: Iterable[str], least: int = 2, always: Iterable[str] = ()) -> Words:
        """Words that occur at least `least` times, the most frequent first, equally frequent ones by alphabet.

        always: words kept however rare, one word each ("number7", "+").

        Raises:
            ParameterError: `least` below 1, or something in `always` that is no single word.
            DataError: a text is no str, or no word is left.
        """
        if isinstance(least, bool) or not isinstance(least, int) or least < 1:
            raise ParameterError(f"least must be a whole number from 1, but came as {least!r}")
        if isinstance(texts, str) or isinstance(always, str):
            raise ParameterError("texts and always should be lists of str, but one str came")
        counts = Counter(word for text in texts for word in cut(text))
        kept = {word for word, count in counts.items() if count >= least}
        for word in always:
            if len(parts := cut(word)) != 1:
                raise ParameterError(f"always takes single words, but {word!r} is cut into {parts}")
            kept.add(parts[0])
        if not kept:
            raise DataError(f"a vocabulary needs words that come {least} times or more, but there are none")
        return cls([*SPECIAL, *sorted(kept, key=lambda word: (-counts[word], word))])

    def __len__(self) -> int:
        """Number of words, special ones included: one more than the largest id."""
        return len(self._words)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text, UNK for those not known; no special ones around them."""
        return self._backend.encode(_checked(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The words joined by blanks; PAD, START and END are left out, an unknown word is "[UNK]".

        ParameterError for an id outside the vocabulary.
        """
        ids = [int(i) for i in ids]
        if wrong := [i for i in ids if not 0 <= i < len(self)]:
            raise ParameterError(f"ids should be from 0 to {len(self) - 1}, but {wrong[0]} came")
        return " ".join(self._words[i] for i in ids if i not in (self.PAD, self.START, self.END))

    def vocabulary(self) -> tuple[str, ...]:
        """All words by id."""
        return self._words

    def json(self) -> str:
        """All of it as text."""
        return json.dumps({"words": self._words})

    @classmethod
    def from_json(cls, text: str) -> Words:
        """What `json` gave; CheckpointError for anything else."""
        try:
            words = json.loads(text)["words"]
            if not all(isinstance(word, str) for word in words):
                raise ParameterError("a word of it is no text")
            return cls(words)
        except (ValueError, TypeError, KeyError, ParameterError) as e:
            raise CheckpointError(f"this is no vocabulary of words that was saved here ({e})") from e

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, hex, of what decides how a text is numbered: rules and vocabulary."""
        return hashlib.sha256(json.dumps([WORD, self._words]).encode()).hexdigest()


def cut(text: str) -> list[str]:
    """The words of a text, lower case, in order.

    >>> cut("Ann's 3.5 kg cost $number0.")
    ['ann', "'", 's', '3.5', 'kg', 'cost', '$', 'number0', '.']
    """
    plain = RULES.normalizer.normalize_str(_checked(text))
    return [word for word, _ in RULES.pre_tokenizer.pre_tokenize_str(plain)]


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"a text should be a str, but {type(text).__name__} came")
    return text


def _backend(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[1]))
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("’", "'")])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    return backend


RULES = _backend({SPECIAL[1]: 0})
