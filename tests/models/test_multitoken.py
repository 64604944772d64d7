from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.files import save_tensors
from workbench.models import deduplicate
from workbench.models.multitoken import MultitokenConfig, MultitokenTransformer, TokenTrie, beam_search

SMALL = dict(dim=16, heads=2, hidden=24)


def random_codes(n, sizes, seed=0):
    """n different names, in a random order."""
    every = torch.tensor(list(product(*map(range, sizes))))
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:n]]


def a_model(codes, seed=0, **changes):
    torch.manual_seed(seed)
    return MultitokenTransformer(MultitokenConfig.for_codes(codes, **{**SMALL, **changes})).eval()


def brute_force(model, source, codes):
    """(b, N) log-likelihoods, one source and one name at a time, every prefix through the model anew."""
    scores = torch.zeros(len(source), len(codes))
    with torch.no_grad():
        for i, s in enumerate(source):
            for j, name in enumerate(codes):
                logits = model(s[None], name[None])
                scores[i, j] = sum(
                    z[0].log_softmax(-1)[t] for z, t in zip(logits, name.tolist(), strict=True)
                )
    return scores


# -- the trie ------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)), min_size=1, unique=True))
def test_a_trie_knows_exactly_the_names_it_was_given(names):
    trie = TokenTrie(torch.tensor(names))
    index = {name: i for i, name in enumerate(names)}
    for name in product(range(5), range(4), range(6)):
        if name in index:
            assert int(trie.item(torch.tensor(name))) == index[name]
        else:
            with pytest.raises(DataError, match="no item is named"):
                trie.item(torch.tensor(name))
    node, prefixes = torch.zeros(1, dtype=torch.int64), [()]
    for level, size in enumerate(trie.vocabulary):
        children = trie.children(level, node)
        longer = [(*p, t) for p in prefixes for t in range(size)]
        exists = {n[: level + 1] for n in names}
        assert (children.flatten() >= 0).tolist() == [p in exists for p in longer]
        prefixes = [p for p in longer if p in exists]
        node = children[children >= 0]
    assert node.tolist() == [index[p] for p in prefixes]
    assert trie.children(0, torch.tensor([-1])).eq(-1).all()


def test_names_and_items_are_inverse_and_padding_stays_padding():
    codes = random_codes(20, (3, 4, 5))
    trie = TokenTrie(codes)
    items = torch.tensor([[0, 19, 7], [3, -1, -1]])
    tokens = trie.tokens(items)
    assert tokens.shape == (2, 3, 3) and tokens[1, 1:].eq(-1).all()
    assert torch.equal(trie.item(tokens[items >= 0]), items[items >= 0])


def test_bad_names_are_refused_in_a_sentence():
    with pytest.raises(DataError, match=r"2 are named \(1, 2\).*deduplicate"):
        TokenTrie(torch.tensor([[1, 2], [0, 1], [1, 2]]))
    assert len(TokenTrie(deduplicate(torch.tensor([[1, 2], [0, 1], [1, 2]])))) == 3
    for bad in (torch.zeros(3), torch.zeros(3, 2), torch.tensor([[0, -1]]), torch.zeros(0, 2).long()):
        with pytest.raises(DataError, match="codes must be whole numbers"):
            TokenTrie(bad)
    trie = TokenTrie(torch.tensor([[0, 0], [1, 1]]))
    with pytest.raises(DataError, match=r"no item is named \(0, 1\)"):
        trie.item(torch.tensor([[1, 1], [0, 1]]))
    with pytest.raises(DataError, match="no item is named"):
        trie.item(torch.tensor([0, 7]))
    with pytest.raises(DataError, match="a name is 2 whole numbers"):
        trie.item(torch.tensor([0]))
    with pytest.raises(DataError, match="numbered from 0 to 1"):
        trie.tokens(torch.tensor([2]))


# -- the model -----------------------------------------------------------------------------------------


def test_logits_do_not_see_the_token_they_are_for_nor_later_ones():
    codes = random_codes(12, (4, 4, 4))
    model = a_model(codes)
    source, target = codes[:1, None], codes[1:2].clone()
    before = model(source, target)
    for level in range(3):
        changed = target.clone()
        changed[:, level:] = (changed[:, level:] + 1) % 4
        after = model(source, changed)
        for l in range(level + 1):
            torch.testing.assert_close(after[l], before[l])
        if level < 2:
            assert not torch.allclose(after[level + 1], before[level + 1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_on_either_side(side):
    codes = random_codes(12, (4, 4, 4))
    model, trie = a_model(codes, history=4), TokenTrie(codes)
    alone = model(trie.tokens(torch.tensor([[5, 3]])), codes[:1])
    row = [-1, -1, 5, 3] if side == "left" else [5, 3, -1, -1]
    padded = model(trie.tokens(torch.tensor([row, [1, 2, 3, 4]])), codes[:2])
    for a, b in zip(alone, padded, strict=True):
        torch.testing.assert_close(a[0], b[0])
    other = model(trie.tokens(torch.tensor([[3, 5]])), codes[:1])
    assert not torch.allclose(other[0], alone[0])  # the order of the history is seen


def test_a_shared_source_is_as_good_as_its_copies():
    codes = random_codes(12, (4, 4, 4))
    model = a_model(codes)
    row = torch.tensor([0, 1, 0, 0])
    shared = model.loss(codes[:2, None], codes[4:8], row)
    torch.testing.assert_close(shared, model.loss(codes[:2, None][row], codes[4:8]))


def test_prefixes_that_lie_in_one_sequence_do_not_see_each_other():
    codes = random_codes(30, (4, 5, 6))
    model = a_model(codes)
    memory, padding = model.encode(codes[:3, None])
    prefix = codes[:24, :2].reshape(3, 8, 2)
    together = model.decode(memory, padding, prefix)
    for i in range(8):
        alone = model.decode(memory, padding, prefix[:, i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone)


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_is_the_same_model(tied, tmp_path):
    codes = random_codes(12, (4, 4, 4))
    model = a_model(codes, tied=tied, history=2)
    model.save(tmp_path / "m.safetensors")
    again = MultitokenTransformer.load(tmp_path / "m.safetensors").eval()
    assert again.config == model.config
    for a, b in zip(again(codes[:2, None], codes[2:4]), model(codes[:2, None], codes[2:4]), strict=True):
        assert torch.equal(a, b)
    save_tensors(tmp_path / "other", {"x": torch.zeros(1)}, {"kind": "embedding"})
    with pytest.raises(CheckpointError, match="not a multitoken transformer"):
        MultitokenTransformer.load(tmp_path / "other")
    save_tensors(
        tmp_path / "torn", {"x": torch.zeros(1)}, {"kind": "multitoken", "config": {"vocabulary": [2]}}
    )
    with pytest.raises(CheckpointError, match="no whole"):
        MultitokenTransformer.load(tmp_path / "torn")


def test_settings_that_make_no_sense_are_refused():
    for bad in (
        dict(vocabulary=()), dict(vocabulary=(3, 0)), dict(dim=10), dict(dropout=1.0), dict(heads=0),
        dict(history=0), dict(encoder_layers=1.5),
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            MultitokenConfig(**{"vocabulary": (3, 3), **bad})
    codes = random_codes(12, (4, 4, 4))
    model, trie = a_model(codes, history=2), TokenTrie(codes)
    with pytest.raises(DataError, match="up to 2 items of 3 tokens"):
        model.encode(codes[None, :3])
    with pytest.raises(DataError, match="only padding"):
        model.encode(trie.tokens(torch.tensor([[-1, -1]])))
    with pytest.raises(ParameterError, match="width"):
        beam_search(model, codes[:1, None], trie, 0)
    with pytest.raises(ParameterError, match="vocabularies"):
        beam_search(model, codes[:1, None], TokenTrie(random_codes(12, (4, 4, 9))), 2)


# -- search --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_there_are_items_ranks_them_all_as_brute_force_does(seed):
    codes = random_codes(25, (4, 5, 3, 2), seed)
    model, trie = a_model(codes, seed, history=2), TokenTrie(codes)
    sources = trie.tokens(torch.tensor([[0, 7], [3, -1], [24, 24]]))
    expected, order = brute_force(model, sources, codes).sort(descending=True)
    found = beam_search(model, sources, trie, len(codes))
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.items, order)


def test_a_beam_wider_than_the_items_is_filled_up_with_nothing():
    codes = random_codes(5, (3, 3))
    found = beam_search(a_model(codes), codes[:2, None], TokenTrie(codes), 8)
    assert found.items.shape == found.scores.shape == (2, 8)
    assert (found.items[:, 5:] == -1).all() and found.scores[:, 5:].isneginf().all()
    assert (found.items[:, :5].sort(1).values == torch.arange(5)).all()


def narrow_search(model, source, codes, width):
    """A beam search by sets of prefixes, one source at a time."""
    names, beams = [tuple(c) for c in codes.tolist()], [((), 0.0)]
    for level in range(codes.shape[1]):
        grown = []
        for prefix, score in beams:
            name = torch.tensor([*prefix, *[0] * (codes.shape[1] - level)])
            gain = model(source[None], name[None])[level][0].log_softmax(-1)
            following = sorted({n[level] for n in names if n[:level] == prefix})
            grown += [((*prefix, t), score + float(gain[t])) for t in following]
        beams = sorted(grown, key=lambda beam: -beam[1])[:width]
    return [names.index(prefix) for prefix, _ in beams]


@torch.no_grad()
@pytest.mark.parametrize("width", [1, 3, 6])
def test_a_narrow_beam_keeps_the_best_prefixes_of_each_length(width):
    codes = random_codes(40, (5, 6, 4))
    model, trie = a_model(codes, 3), TokenTrie(codes)
    found = beam_search(model, codes[:6, None], trie, width)
    for source, items in zip(codes[:6, None], found.items.tolist(), strict=True):
        assert [i for i in items if i >= 0] == narrow_search(model, source, codes, width)


def test_searching_in_pieces_changes_nothing_and_leaves_the_model_as_it_was(monkeypatch):
    codes = random_codes(40, (5, 6, 4))
    model, trie = a_model(codes, dropout=0.5).train(), TokenTrie(codes)
    whole = beam_search(model, codes[:, None], trie, 4)
    monkeypatch.setattr("workbench.models.multitoken.SEARCH_BUDGET", 1000)
    pieces = beam_search(model, codes[:, None], trie, 4)
    assert torch.equal(whole.items, pieces.items) and model.training
