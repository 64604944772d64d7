"""Corpora, their split, and packing: every token is asked for once, and rows can be taken apart again."""

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import text
from workbench.errors import DataError, ParameterError

DOCUMENTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8)


@given(DOCUMENTS, st.integers(1, 10))
@settings(max_examples=200, deadline=None)
def test_every_token_and_every_end_but_the_first_is_a_target_once(documents, context):
    ids, numbers = text.packed(documents, context)
    rows = text.Rows(ids, numbers, 0)
    assert ids.shape == numbers.shape == (len(rows), context + 1)
    told = rows.targets().ravel()
    expected = [t for document in documents for t in [*document, 0]]
    assert told[told != -100].tolist() == expected and rows.tokens == len(expected)
    assert (told[len(expected) :] == -100).all()  # fill comes last, and only in the last row
    assert len(told) - len(expected) < context


@given(DOCUMENTS, st.integers(1, 10))
@settings(max_examples=100, deadline=None)
def test_a_documents_number_stands_at_its_tokens_and_at_the_end_before_it(documents, context):
    ids, numbers = text.packed(documents, context)
    stream = np.append(ids[:, :-1].ravel(), ids[-1, -1])
    owner = np.append(numbers[:, :-1].ravel(), numbers[-1, -1])
    for i, document in enumerate(documents):
        assert stream[owner == i].tolist() == [0, *document]
    assert stream[owner == len(documents)].tolist() == [0]
    assert (ids[1:, 0] == ids[:-1, -1]).all() and (numbers[1:, 0] == numbers[:-1, -1]).all()


def test_the_default_corpus_is_embedded_and_has_a_document_a_noun(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    corpus = text.corpus()
    assert len(corpus.train) + len(corpus.valid) == 82115 and list(tmp_path.iterdir()) == []
    assert any(document.startswith("dog: a member of the genus Canis") for document in corpus.train)


def test_a_split_is_seeded_keeps_order_and_loses_nothing():
    documents = [f"document {i}" for i in range(50)]
    one, same, other = (text.split(documents, 0.1, seed) for seed in (3, 3, 4))
    assert one == same and one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert len(one.valid) == 5 and sorted(one.train + one.valid) == sorted(documents)
    assert list(one.train) == [d for d in documents if d not in one.valid]


def test_one_document_at_least_is_left_on_either_side():
    assert len(text.split(["a", "b"], 0.001).valid) == 1
    assert len(text.split(["a", "b"], 0.999).train) == 1


def test_gathered_paragraphs_join_to_the_text_and_have_the_size_asked_for():
    paragraphs = [f"paragraph {i} " + "x" * (i % 7) for i in range(200)]
    documents = text.gathered("\n\n".join(paragraphs), 100)
    assert "\n\n".join(documents) == "\n\n".join(paragraphs)
    assert all(98 <= len(document) < 130 for document in documents[:-1])


def test_books_and_articles_are_cut_at_their_headings_only():
    assert text._books("<|book|> A | One\n\nHello.\n\n<|book|> B | Two\nBye\n") == ("Hello.", "Bye")
    articles = text._articles(" \n = One = \n \n a \n = = Part = = \n b \n = Two = \n c \n")
    assert [article.splitlines()[0] for article in articles] == ["= One = ", "= Two = "]
    assert "Part" in articles[0]


def test_a_file_of_ones_own_compressed_or_not(tmp_path):
    content = "\n\n".join(f"Paragraph {i}: {'äöü ' * 900}" for i in range(20))
    (tmp_path / "mine.txt").write_text(content)
    (tmp_path / "mine.txt.xz").write_bytes(lzma.compress(content.encode()))
    plain, small = (text.corpus(str(tmp_path / name)) for name in ("mine.txt", "mine.txt.xz"))
    assert plain.train == small.train and plain.valid == small.valid


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "two documents"), (b"one paragraph", "two documents"), (b"\xff\xfe", "UTF-8")],
)
def test_files_without_enough_text_are_refused(tmp_path, content, words):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        text.corpus(str(path))


def test_a_missing_file_a_wrong_name_and_a_wrong_share_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt"):
        text.corpus(str(tmp_path / "gone.txt"))
    with pytest.raises(ParameterError, match=r"wordnet.*'wordnte'"):
        text.corpus("wordnte")
    for share in (0, 1, float("nan")):
        with pytest.raises(ParameterError, match="held_out"):
            text.corpus(held_out=share)
    with pytest.raises(ParameterError, match="at least one document in valid"):
        text.Corpus("x", ("a",), ())
    with pytest.raises(DataError, match="empty or none"):
        text.Corpus("x", ("a", ""), ("b",))


def test_packing_refuses_nothing_and_empty_documents():
    for documents in ([], [[1], []]):
        with pytest.raises(DataError, match="at least one token"):
            text.packed(documents, 4)
    for context in (0, True, 2.5):
        with pytest.raises(ParameterError, match="context"):
            text.packed([[1]], context)


def test_rows_know_their_bytes_and_who_they_are():
    found = text.rows(["äb", "c"], lambda texts: [list(t.encode()) for t in texts], 3)
    assert found.bytes == 4 and found.tokens == 6 and found.bytes_per_token == 4 / 6
    other = text.rows(["äb", "d"], lambda texts: [list(t.encode()) for t in texts], 3)
    assert found.fingerprint() != other.fingerprint()
