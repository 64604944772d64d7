"""Whole words as numbers: nothing of a text is lost by cutting, the vocabulary is ordered, it survives storing."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.models.words import SPECIAL, Words, cut

TEXTS = ["Ann has number0 apples.", "Ann ate 1,200 apples; how many has Ann?", "+ number0 - number1 0.01"]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_cutting_loses_nothing_but_blanks_and_capitals(text):
    assert "".join(cut(text)) == re.sub(r"\s", "", text.lower())
    assert all(re.fullmatch(r"number\d+|[a-z]+|\d+([.,]\d+)*|[^\sa-z\d]", word) for word in cut(text))


def test_words_numbers_masked_numbers_and_marks_stand_apart():
    words = " ".join(cut("He’s 3.5kg, $number12+number3=.5 (1,200)?"))
    assert words == "he ' s 3.5 kg , $ number12 + number3 = . 5 ( 1,200 ) ?"
    for mark in "+-*/=":
        assert cut(f"number0{mark}4") == ["number0", mark, "4"]
    assert cut("Numbers Émile [PAD]") == ["numbers", "émile", "[", "pad", "]"]
    assert cut(" \n\t") == []


def test_the_vocabulary_is_by_frequency_then_by_alphabet():
    words = Words.train(TEXTS, least=1)
    counts = Counter(word for text in TEXTS for word in cut(text))
    assert words.vocabulary()[:4] == SPECIAL
    assert list(words.vocabulary()[4:]) == sorted(counts, key=lambda w: (-counts[w], w))
    assert len(words) == 4 + len(counts)
    rare = Words.train(TEXTS, least=2, always=["Number9", "*", "ann"])
    assert set(rare.vocabulary()[4:]) == {w for w, n in counts.items() if n > 1} | {"number9", "*"}
    assert rare.fingerprint != words.fingerprint
    assert Words.train(reversed(TEXTS), least=1).fingerprint == words.fingerprint


@given(st.lists(st.sampled_from(sorted({w for text in TEXTS for w in cut(text)}))))
def test_known_words_come_back_from_their_ids(some):
    words = Words.train(TEXTS, least=1)
    ids = words.encode(" ".join(some))
    assert len(ids) == len(some) and min(ids, default=4) >= 4
    assert words.decode([Words.START, *ids, Words.END, Words.PAD]) == " ".join(some)


def test_what_is_not_known_is_one_unknown_word_that_decoding_shows():
    words = Words.train(TEXTS, least=1)
    ids = words.encode("ann unheard apples [PAD]")
    assert ids.count(Words.UNK) == 4  # "unheard", "[", "pad", "]"
    assert words.decode(ids[:3]) == "ann [UNK] apples"
    assert words.encode("") == [] and words.decode([]) == ""


def test_storing_keeps_everything():
    words = Words.train(TEXTS, least=1)
    again = Words.from_json(words.json())
    assert again.vocabulary() == words.vocabulary() and again.fingerprint == words.fingerprint
    assert again.encode(TEXTS[1]) == words.encode(TEXTS[1])
    assert len(words.fingerprint) == 64


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"words": 3}', '{"words": ["a"]}', '{"words": [1, 2, 3, 4]}']
)
def test_other_text_is_no_vocabulary(text):
    with pytest.raises(CheckpointError, match="no vocabulary"):
        Words.from_json(text)


def test_bad_input_is_named():
    words = Words.train(TEXTS, least=1)
    for least in (0, True, 1.5):
        with pytest.raises(ParameterError, match="least"):
            Words.train(TEXTS, least=least)
    with pytest.raises(ParameterError, match="single words"):
        Words.train(TEXTS, always=["two words"])
    with pytest.raises(ParameterError, match="one str"):
        Words.train("text")
    with pytest.raises(DataError, match="there are none"):
        Words.train(["all differ here"])
    with pytest.raises(DataError, match="int came"):
        words.encode(3)
    for i in (-1, len(words)):
        with pytest.raises(ParameterError, match=f"but {i} came"):
            words.decode([i])
    with pytest.raises(ParameterError, match="twice"):
        Words([*SPECIAL, "a", "a"])
