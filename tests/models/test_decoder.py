"""The small decoder: LLaMA's numbers, nothing seen ahead, padding that does not count, generation, files, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import CheckpointError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.models.decoder import Cache, Decoder, DecoderConfig
from workbench.models.hyplora_adapters import AdapterConfig, inject

CLOSE = dict(atol=1e-5, rtol=1e-5)
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def small(louder=1.6, **changes):
    """A tiny model; fresh weights say next to nothing, louder ones make each token matter."""
    about = dict(vocab_size=23, width=16, layers=2, heads=2, hidden=24, context=20)
    model = Decoder(DecoderConfig(**about | changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(louder if p.ndim > 1 else 1.3)
    return model


def some_rows(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(23, (n,), generator=generator).tolist() for n in lengths]


def slowly(model, row, max_new, end=None):
    """The whole row read again for each token."""
    new = []
    for _ in range(max_new):
        token = int(model(torch.tensor([row + new]))[0, -1].argmax())
        if token == end:
            break
        new.append(token)
    return new


# -- what it computes ------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("left", [0, 3])
def test_same_logits_as_llama_of_transformers(tied, left):
    transformers = pytest.importorskip("transformers")
    model = small(tied=tied, theta=500.0)
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=20, rms_norm_eps=1e-6, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rope_theta=500.0,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    ours = {n if n.startswith("lm_head") else f"model.{n}": p for n, p in model.state_dict().items()}
    missing, unknown = theirs.load_state_dict(ours, strict=False)
    assert not unknown and set(missing) <= ({"lm_head.weight"} if tied else set())
    theirs.tie_weights()
    ids = torch.tensor(some_rows([14] * 3))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :left] = False
    places = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long(), position_ids=places).logits
        found = model(ids, mask if left else None)
    assert expected.std() > 0.1
    torch.testing.assert_close(found[mask], expected[mask], **CLOSE)


def test_one_layer_by_hand():
    """Attention with complex numbers, one head and token at a time, in float64."""
    model = small(layers=1).double()
    ids = torch.tensor(some_rows([7]))
    layer, x = model.layers[0], model.embed_tokens(ids)[0]

    def norm(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def turned(x, place):  # channels i and i + 4 as one complex number
        angle = place * 10000.0 ** (-torch.arange(4).double() / 4)
        z = torch.complex(x[:4], x[4:]) * torch.exp(1j * angle)
        return torch.cat([z.real, z.imag])

    h, heads = norm(x, layer.input_layernorm.weight), []
    q, k, v = (h @ getattr(layer.self_attn, n).weight.T for n in ("q_proj", "k_proj", "v_proj"))
    for c in (slice(0, 8), slice(8, 16)):
        rows = []
        for i in range(7):
            scores = torch.stack([turned(q[i, c], i) @ turned(k[j, c], j) for j in range(i + 1)])
            rows.append((scores / math.sqrt(8)).softmax(0) @ v[: i + 1, c])
        heads.append(torch.stack(rows))
    x = x + torch.cat(heads, -1) @ layer.self_attn.o_proj.weight.T
    h = norm(x, layer.post_attention_layernorm.weight)
    gate, up = h @ layer.mlp.gate_proj.weight.T, h @ layer.mlp.up_proj.weight.T
    x = x + (gate * gate.sigmoid() * up) @ layer.mlp.down_proj.weight.T
    expected = norm(x, model.norm.weight) @ model.embed_tokens.weight.T
    torch.testing.assert_close(model(ids)[0], expected, atol=1e-6, rtol=1e-6)  # angles are float32


@given(st.integers(0, 8), st.integers(0, 22))
@settings(max_examples=20, deadline=None)
def test_a_token_changes_nothing_before_it(place, token):
    model = small()
    ids = torch.tensor(some_rows([9]))
    other = ids.clone()
    other[0, place] = token
    a, b = model(ids), model(other)
    torch.testing.assert_close(a[:, :place], b[:, :place], **CLOSE)
    changed = (a[0, place:] - b[0, place:]).abs().amax(1) > 1e-4
    assert changed.all() if token != int(ids[0, place]) else not changed.any()


@given(lengths, st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_padding_anywhere_changes_no_state(lengths, seed):
    """Rows alone, and among others with padding before, behind and in between."""
    model, rows = small(), some_rows(lengths, seed)
    generator = torch.Generator().manual_seed(seed)
    wide = max(lengths) + 3
    ids, mask = torch.full((len(rows), wide), 7), torch.zeros(len(rows), wide, dtype=torch.bool)
    for i, row in enumerate(rows):
        at = torch.randperm(wide, generator=generator)[: len(row)].sort().values
        ids[i, at], mask[i, at] = torch.tensor(row), True
    states = model.states(ids, mask)
    assert states.isfinite().all()
    for i, row in enumerate(rows):
        torch.testing.assert_close(states[i, mask[i]], model.states(torch.tensor([row]))[0], **CLOSE)


def test_a_mask_that_hides_nothing_is_no_mask_and_gradients_are_finite_behind_padding():
    model, ids = small(), torch.tensor(some_rows([8, 8]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    torch.testing.assert_close(model(ids, mask), model(ids), **CLOSE)
    mask[0, :5] = False
    F.cross_entropy(model(ids, mask)[mask], ids[mask]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_reading_in_pieces_is_reading_at_once():
    model, ids = small(), torch.tensor(some_rows([12, 12]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, :4] = False
    cache, parts = Cache(2), (slice(0, 5), slice(5, 6), slice(6, 12))
    states = torch.cat([model.states(ids[:, p], mask[:, p], cache) for p in parts], 1)
    torch.testing.assert_close(states[mask], model.states(ids, mask)[mask], **CLOSE)


# -- generation ------------------------------------------------------------------------------------


@given(lengths, st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_generation_is_reading_everything_again_for_each_token(lengths, seed):
    model, rows = small(), some_rows(lengths, seed)
    expected = [slowly(model, row, 6) for row in rows]
    assert model.generate(rows, 6) == expected
    end = expected[0][3]
    assert model.generate(rows, 6, end) == [slowly(model, row, 6, end) for row in rows]


def test_generation_fills_the_context_and_leaves_the_mode_alone():
    model = small(dropout=0.5).train()
    rows = some_rows([15, 2])
    assert [len(new) for new in model.generate(rows, 6)] == [6, 6]  # 15 + 5 are read, the 21st is not
    assert model.training and model.generate(rows, 6) == model.eval().generate(rows, 6)
    assert not model.training and model.generate(rows, 0) == [[], []]
    with pytest.raises(ParameterError, match="may have 21 tokens, but 15 and 7 came"):
        model.generate(rows, 7)


# -- weights ---------------------------------------------------------------------------------------


def test_weights_come_from_the_seed_and_from_nothing_else():
    config = DecoderConfig(vocab_size=500, tied=False, seed=3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = Decoder(config).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(torch.equal(p, one[n]) for n, p in Decoder(config).state_dict().items())
    other = Decoder(DecoderConfig(vocab_size=500, tied=False, seed=4)).state_dict()
    assert not any(torch.equal(p, one[n]) for n, p in other.items() if p.ndim > 1)
    for name, p in one.items():
        small = name.endswith(("o_proj.weight", "down_proj.weight"))
        if p.ndim > 1:  # at least 9,216 numbers: the deviation is known to 0.7 %
            assert (
                p.std() == pytest.approx((0.5 if small else 1) / config.width**0.5, rel=0.05)
                and abs(p.mean()) < 5e-3
            )
        else:
            assert (p == 1).all()


def test_parameters_are_counted_and_tied_ones_once():
    d, V, h, layers = 16, 23, 24, 2
    body = layers * (4 * d * d + 3 * d * h + 2 * d) + d
    assert small().n_parameters == V * d + body
    assert small(tied=False).n_parameters == 2 * V * d + body


@pytest.mark.parametrize("method", ["hyplora", "lora", "dora"])
def test_adapters_find_their_places_and_change_nothing_at_the_start(method):
    model, ids = small(), torch.tensor(some_rows([9, 9]))
    before, written = model(ids), model.generate(ids.tolist(), 4)
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    put = inject(model, AdapterConfig(method=method, r=2, target_modules=names))
    assert len(put) == 14 and "layers.1.self_attn.q_proj" in put and "layers.0.mlp.down_proj" in put
    torch.testing.assert_close(model(ids), before, **CLOSE)
    assert model.generate(ids.tolist(), 4) == written
    model(ids).square().mean().backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_decoder_comes_back_bit_for_bit(tmp_path, tied):
    model, path = small(tied=tied).train(), tmp_path / "folder" / "decoder.safetensors"
    model.save(path)
    again = Decoder.load(path)
    assert again.config == model.config and not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(p, again.state_dict()[n]) for n, p in model.state_dict().items())


def test_broken_files_and_files_of_something_else_are_refused(tmp_path):
    path, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    small().save(path)
    tensors, about = load_tensors(path)
    config = about["config"]
    for change in (
        {"kind": "him"},
        {"config": config | {"width": 32}},
        {"config": config | {"layers": 3}},
        {"config": config | {"tied": False}},
        {"config": config | {"heads": 3}},
        {"config": config | {"depth": 3}},
        {"config": None},
    ):
        save_tensors(bad, tensors, about | change)
        with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
            Decoder.load(bad)
    bad.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError):
        Decoder.load(bad)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Decoder.load(tmp_path / "none")


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "even number of channels"),
        ({"width": 6, "heads": 2}, "even number of channels"),
        ({"layers": 0}, "layers must be a positive whole number"),
        ({"context": 2.5}, "context must be a positive whole number"),
        ({"vocab_size": True}, "vocab_size must be a positive whole number"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"dropout": math.nan}, "dropout must be"),
        ({"theta": 0.0}, "theta must be"),
        ({"theta": math.inf}, "theta must be"),
    ],
)
def test_a_decoder_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        DecoderConfig(**{"vocab_size": 23} | changes)


def test_rows_that_it_cannot_read_are_refused():
    model, ids = small(), torch.zeros(2, 4, dtype=torch.long)
    for bad, message in (
        (ids[0], "must be rows"),
        (ids[:, :0], "must be rows"),
        (torch.zeros(1, 21, dtype=torch.long), "may have 20 tokens, but 21 came"),
        (ids + 23, "from 0 to 22, but 23 to 23 came"),
        (ids - 1, "from 0 to 22, but -1 to -1 came"),
    ):
        with pytest.raises(ParameterError, match=message):
            model(bad)
    for mask in (torch.ones(2, 4), torch.ones(4, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)):
        with pytest.raises(ParameterError, match="mask must be bool"):
            model(ids, mask)
    for rows in ([], [[1], []]):
        with pytest.raises(ParameterError, match="at least one token"):
            model.generate(rows)
    with pytest.raises(ParameterError, match="from 0 to 22, but 1 to 23 came"):
        model.generate([[1, 23], [4, 5]], 2)
    for max_new in (-1, 1.0, True):
        with pytest.raises(ParameterError, match="max_new must be a whole number"):
            model.generate([[1]], max_new)
