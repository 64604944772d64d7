"""The tokenizer: text comes back whole, training is deterministic, and its merges are those of byte-pair encoding."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.models.pieces import END_TEXT, Pieces

TEXTS = ["the cat sat on the mat", "a cat, a hat and 12 mats", "that cat's hat — naïve"] * 4


@pytest.fixture(scope="module")
def pieces():
    return Pieces.train(TEXTS, size=300)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back(text):
    pieces = Pieces.train(TEXTS, size=280)
    assert pieces.decode(pieces.encode(text)) == text


def test_no_text_is_cut_into_the_end(pieces):
    ids = pieces.encode(f"one{END_TEXT}two")
    assert Pieces.END not in ids and pieces.decode([0, *ids, 0]) == f"one{END_TEXT}two"


def test_training_does_not_depend_on_the_order_of_texts(pieces):
    assert Pieces.train(TEXTS[::-1], size=300).fingerprint == pieces.fingerprint
    assert Pieces.train(TEXTS, size=270).fingerprint != pieces.fingerprint


def test_the_first_merge_is_the_most_frequent_pair_of_bytes(pieces):
    # Of words of letters, with the blank before them.
    words = [f" {w}" for w in " ".join(TEXTS).split() if w.isalpha() and w.isascii()]
    pairs = Counter(a + b for word in words for a, b in pairwise(word))
    (best, count), (_, second) = pairs.most_common(2)
    assert count > second  # else the oracle would not know which comes first
    assert pieces.decode([257]) == best


def test_all_bytes_have_a_piece(pieces):
    assert len(Pieces.train(["aa"], size=257)) == 257
    assert pieces.decode(pieces.encode("\x00\x7f")) == "\x00\x7f"


def test_many_texts_are_cut_as_one_by_one(pieces):
    assert pieces.encode_all(TEXTS) == [pieces.encode(text) for text in TEXTS]


def test_json_brings_it_back(pieces):
    again = Pieces.from_json(pieces.json())
    assert again.fingerprint == pieces.fingerprint and again.encode(TEXTS[2]) == pieces.encode(TEXTS[2])
    for wrong in ("", "{}", "[1]", pieces.json().replace(END_TEXT, "<x>")):
        with pytest.raises(CheckpointError, match="tokenizer"):
            Pieces.from_json(wrong)


def test_nonsense_is_refused(pieces):
    for size in (256, True, 300.0):
        with pytest.raises(ParameterError, match="size"):
            Pieces.train(TEXTS, size=size)
    for texts in ([], [""]):
        with pytest.raises(DataError, match="text"):
            Pieces.train(texts)
    for call in (lambda: pieces.encode(3), lambda: Pieces.train([b"a"])):
        with pytest.raises(DataError, match="should be a str"):
            call()
    for ids in ([-1], [len(pieces)]):
        with pytest.raises(ParameterError, match="ids should be"):
            pieces.decode(ids)
