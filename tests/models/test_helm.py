"""HELM against its formulas written out with all coordinates; causality, decoding, files, and that it learns."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from workbench.errors import CheckpointError, ManifoldError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.models.helm import HELM
from workbench.models.helm_config import HELMConfig, preset, spaced
from workbench.nn.hyperbolic_attention import KeyValueCache

DOUBLE = torch.float64
DENSE = {"vocab_size": 17, "dim": 11, "layers": 2, "heads": 2, "hidden": 13, "context": 24, "head_dim": 4}
MIXED = DENSE | {
    "latent": 6,
    "content": 4,
    "rotary": 2,
    "value": 3,
    "expert_c": spaced(3),
    "expert_hidden": 5,
}
KINDS = [DENSE, MIXED]
FLAT = DENSE | {"scores": "dot", "average": "mean", "residual": "sum"}
UNCURVED = MIXED | {"residual": "sum", "curved_experts": False}


def model(config=DENSE, **changes) -> HELM:
    return HELM(HELMConfig(**config | changes)).eval()


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 17, shape, generator=torch.Generator().manual_seed(seed))


# -- sizes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, changes, total",
    [
        ("mini", {}, 1_669_142),
        ("mini_mice", {}, 2_457_532),
        ("helm_d_115m", {"vocab_size": 8192, "embedding": "space"}, 21_112_130),
        ("helm_mice_120m", {"vocab_size": 8192, "embedding": "space"}, 32_698_960),
        ("helm_d_115m", {}, 114_770_242),
        ("helm_mice_120m", {}, 126_357_072),
        ("helm_mice_1b", {}, 966_829_202),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(name, changes, total):
    """114.8, 126.4 and 966.8 million; the released code has six more in HELM-D, one β a layer without effect."""
    with torch.device("meta"):
        assert HELM(preset(name, **changes)).n_parameters == total


def test_a_total_is_that_of_the_formula():
    """With widths W, h, I that count time: maps of attention and SwiGLU, norms, three numbers a layer, both ends."""
    V, W, H, h, I, layers = 50, 27, 3, 9, 40, 2
    layer = 3 * H * (h - 1) * (W + 1) + (W - 1) * (H * h + 1) + 2 * (I - 1) * (W + 1) + (W - 1) * (I + 1)
    total = V * (W - 1) + layers * (layer + 2 * (W - 1) + 3) + (W - 1) * (W + 2) + V * W
    config = HELMConfig(V, dim=W - 1, layers=layers, heads=H, head_dim=h - 1, hidden=I - 1)
    assert HELM(config).n_parameters == total


# -- the formulas ------------------------------------------------------------------------------------------------
def lifted(x, c):
    return torch.cat([(1 / c + (x * x).sum(-1, keepdim=True)).sqrt(), x], -1)


def onto(z, c):
    return z / (c * (z[..., :1] ** 2 - (z[..., 1:] ** 2).sum(-1, keepdim=True))).sqrt()


def rms(x, norm):
    return x / ((x * x).mean(-1, keepdim=True) + 1e-8).sqrt() * norm.weight


def attention_by_hand(m, x, c, heads, n):
    z = lifted(x, c) @ m.qkv.weight.T + m.qkv.bias
    length = len(x)
    angles = torch.arange(length, dtype=DOUBLE)[:, None] * 10000 ** (
        -2 * torch.arange(n // 2, dtype=DOUBLE) / n
    )
    turns = torch.polar(torch.ones_like(angles), angles)
    outs = []
    for i in range(heads):
        q, k, v = (z[:, (part * heads + i) * n : (part * heads + i + 1) * n] for part in range(3))
        q, k = (
            torch.complex(y[:, : n // 2].contiguous(), y[:, n // 2 :].contiguous()) * turns for y in (q, k)
        )
        q, k, v = (
            lifted(y, c) for y in (torch.cat([q.real, q.imag], -1), torch.cat([k.real, k.imag], -1), v)
        )
        d2 = -2 / c - 2 * (q[:, 1:] @ k[:, 1:].T - q[:, :1] @ k[:, :1].T)
        hidden = torch.ones(length, length).triu(1).bool()
        p = (-d2 / m.log_temperature.exp()).masked_fill(hidden, -math.inf).softmax(-1)
        outs.append(onto(p @ v, c))
    return torch.cat(outs, -1) @ m.out.weight.T + m.out.bias


def by_hand(model: HELM, ids) -> torch.Tensor:
    config = model.config
    c, gamma = config.c, 4 * math.sqrt(config.dim + 1)
    x = model.embedding.weight[ids]
    for b in model.blocks:
        y = attention_by_hand(b.attention, rms(x, b.attention_norm), c, config.heads, config.head_dim)
        x = gamma * onto(lifted(x, c) + b.attention_residual.log_weight.exp() * lifted(y, c), c)[:, 1:]
        z = lifted(rms(x, b.feed_norm), c) @ b.feed.gate_up.weight.T + b.feed.gate_up.bias
        h = F.silu(z[:, : config.hidden]) * z[:, config.hidden :]
        y = lifted(h, c) @ b.feed.down.weight.T + b.feed.down.bias
        x = gamma * onto(lifted(x, c) + b.feed_residual.log_weight.exp() * lifted(y, c), c)[:, 1:]
    x = rms(lifted(x, c) @ model.last.weight.T + model.last.bias, model.norm)
    return lifted(x, c) @ model.head.weight.T


@pytest.mark.parametrize("c", [1.0, 0.3])
def test_the_whole_dense_model_is_its_formulas_with_all_coordinates(c):
    m = model(c=c).double()
    with torch.no_grad():
        for p in m.parameters():
            p.add_(
                0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=DOUBLE)
            )
    ids = tokens(1, 9)
    torch.testing.assert_close(m(ids)[0], by_hand(m, ids[0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", KINDS)
def test_the_loss_is_the_cross_entropy_of_the_logits_and_the_penalty(config):
    m, ids = model(config), tokens(2, 10)
    loss = m.loss(ids[:, :-1], ids[:, 1:], chunk=4)
    exact = F.cross_entropy(m(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss, exact + m.penalty)
    assert bool(m.penalty > 0) == bool(m.config.expert_c)


def test_an_untrained_model_knows_nothing_yet():
    ids = torch.randint(0, 2048, (2, 65), generator=torch.Generator().manual_seed(0))
    loss = HELM(preset("mini")).loss(ids[:, :-1], ids[:, 1:]).item()
    assert math.log(2048) < loss < math.log(2048) + 0.5


# -- what reaches what -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [*KINDS, FLAT, UNCURVED])
def test_later_tokens_reach_nothing_before_them(config):
    m, ids = model(config), tokens(1, 12)
    other = ids.clone()
    other[0, 7:] = (other[0, 7:] + 3) % 17
    one, two = m.states(ids), m.states(other)
    torch.testing.assert_close(one[:, :7], two[:, :7], rtol=1e-6, atol=1e-6)
    assert (one[:, 7:] - two[:, 7:]).abs().max() > 1e-2


@pytest.mark.parametrize("config", KINDS)
def test_padding_left_or_right_changes_no_state_of_a_real_token(config):
    m, ids = model(config).double(), tokens(1, 8)
    plain = m.states(ids)
    pad, yes, no = torch.full((1, 3), 999), torch.ones(1, 8).bool(), torch.zeros(1, 3).bool()
    left = m.states(torch.cat([pad, ids], 1), torch.cat([no, yes], 1))[:, 3:]
    right = m.states(torch.cat([ids, pad], 1), torch.cat([yes, no], 1))[:, :8]
    torch.testing.assert_close(left, plain)
    torch.testing.assert_close(right, plain)


@pytest.mark.parametrize("config", [*KINDS, FLAT])
def test_packed_documents_are_as_if_alone(config):
    m, ids = model(config).double(), tokens(1, 12)
    packed = m.states(ids, documents=torch.tensor([[0] * 5 + [1] * 7]))
    torch.testing.assert_close(packed[:, :5], m.states(ids[:, :5]))
    torch.testing.assert_close(packed[:, 5:], m.states(ids[:, 5:]))


# -- decoding ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [*KINDS, FLAT, UNCURVED])
@pytest.mark.parametrize("pieces", [[1] * 7, [4, 1, 2]])
def test_a_sequence_read_in_pieces_is_the_whole(config, pieces):
    m, ids = model(config).double(), tokens(2, 7)
    cache, out = m.new_cache(), []
    for piece in ids.split(pieces, 1):
        out.append(m.states(piece, cache=cache))
    torch.testing.assert_close(torch.cat(out, 1), m.states(ids), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("config", KINDS)
def test_cached_generation_is_full_recomputation(config):
    m, rows = model(config).double(), [[3, 1, 4], [1], [5, 9, 2, 6, 5]]
    new = m.generate(rows, 8)
    for row, added in zip(rows, new, strict=True):
        whole = list(row)
        for _ in range(8):
            whole.append(int(m(torch.tensor([whole]))[0, -1].argmax()))
        assert added == whole[len(row) :]
    end = new[0][3]
    ended = m.generate(rows, 8, end)
    assert ended[0] == new[0][: new[0].index(end)]


@pytest.mark.parametrize("config", KINDS)
def test_decoding_under_autocast_stays_near_the_whole_in_float32(config):
    m, ids = model(config).train(), tokens(2, 12)
    m.states(ids)  # means of keys and values
    m.eval()
    cache, out = m.new_cache(), []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for piece in ids.split([5, 1, 1, 5], 1):
            out.append(m.states(piece, cache=cache))
    whole = m.states(ids)
    assert ((torch.cat(out, 1) - whole).norm() / whole.norm()).item() < 0.05


def test_drawn_tokens_follow_the_seed_and_stay_within_top_p():
    m = model()
    rows = [[3, 1, 4]] * 4
    drawn = m.generate(rows, 12, temperature=5.0, seed=1)
    assert drawn == m.generate(rows, 12, temperature=5.0, seed=1)
    assert drawn != m.generate(rows, 12, temperature=5.0, seed=2)
    assert m.generate(rows, 6, temperature=5.0, top_p=1e-9) == m.generate(rows, 6)


def test_tokens_come_one_by_one_and_the_mode_is_put_back():
    m = model().train()
    stream = m.stream([[1, 2], [3]], 4)
    first = next(stream)
    assert len(first) == 2 and not m.training
    rest = list(stream)
    assert m.training
    assert m.generate([[1, 2], [3]], 4) == [list(row) for row in zip(first, *rest, strict=True)]


def test_caches_hold_81_486_and_768_numbers_a_token_at_the_published_size():
    """Latent 65 + 16; its keys and values of six heads 6 (49 + 32); those of full attention 6 (64 + 64)."""
    latent, full = preset("helm_mice_120m"), preset("helm_d_115m")
    assert latent.latent + latent.rotary == 81
    assert latent.heads * (latent.content + latent.rotary + latent.value) == 486
    assert full.heads * 2 * full.head_dim == 768


# -- learning ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", KINDS)
def test_it_learns_a_small_grammar(config):
    """Each token is followed by one of its own: a random map of the vocabulary."""
    follow = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    m = model(config, gain=0.58).train()
    optimizer = torch.optim.AdamW(m.parameters(), lr=1e-2)
    for step in range(60):
        rows = [tokens(16, seed=step)]
        for _ in range(8):
            rows.append(follow[rows[-1]])
        ids = torch.stack(rows, 1)
        optimizer.zero_grad()
        loss = m.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        m.balance_step()
    assert float(loss) < 0.3
    expected = [5]
    for _ in range(6):
        expected.append(int(follow[expected[-1]]))
    assert m.generate([[5]], 6) == [expected[1:]]


@pytest.mark.parametrize("config", KINDS)
def test_every_parameter_gets_a_gradient_curvatures_too(config):
    # All experts active: at the start tokens are much alike, and some expert would get none.
    m = model(config, learn_c=True, learn_expert_c=True, active=3, embedding="points").train()
    ids = tokens(4, 12)
    m.loss(ids[:, :-1], ids[:, 1:]).backward()
    missing = [name for name, p in m.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing
    assert len(m.curvatures()) == 1 + len(m.config.expert_c)
    assert all(p.grad.abs() > 0 for p in m.curvatures())


@pytest.mark.parametrize("config", KINDS)
def test_the_step_is_one_graph(config):
    m, ids = model(config, layers=1, dense_layers=0).train(), tokens(2, 12)
    loss = torch.compile(m.loss, fullgraph=True, backend="aot_eager")(ids[:, :-1], ids[:, 1:])
    torch.testing.assert_close(loss, m.loss(ids[:, :-1], ids[:, 1:]))


@pytest.mark.parametrize("config", KINDS)
def test_under_autocast_the_loss_and_its_gradient_stay_near_float32(config):
    m, ids = model(config).train(), tokens(8, 20)

    def gradient():
        m.zero_grad()
        loss = m.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in m.parameters()])

    gradient()  # means of keys and values
    exact, slope = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        loss, rough = gradient()
    assert float(loss) == pytest.approx(float(exact), rel=5e-3)
    assert ((rough - slope).norm() / slope.norm()).item() < 0.1


def test_yarn_makes_a_longer_context_usable():
    config = DENSE | {"context": 64, "yarn": {"original": 24, "factor": 4.0}}
    m = model(config)
    assert m.states(tokens(1, 64)).isfinite().all()
    assert m.blocks[0].attention.sharpness == pytest.approx((1 + 0.1 * math.log(4)) ** 2)


# -- seeds and files ---------------------------------------------------------------------------------------------
def test_weights_follow_the_seed_and_leave_other_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, other = model(), model(), model(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.head.weight, other.head.weight)


@pytest.mark.parametrize("config", KINDS)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(config, tmp_path):
    m, ids = model(config, learn_c=True, yarn={"original": 8}).train(), tokens(2, 12)
    m.states(ids)  # means of keys and values are part of it
    m.save(tmp_path / "m.helm")
    again = HELM.load(tmp_path / "m.helm")
    assert again.config == m.config and not again.training
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in m.state_dict().items())
    assert torch.equal(again(ids), m.eval()(ids))


@pytest.mark.parametrize("config", KINDS)
def test_a_copy_made_in_the_middle_of_training_is_whole(config):
    m, ids = model(config).train(), tokens(2, 12)
    m.loss(ids[:, :-1], ids[:, 1:]).backward()
    twin = copy.deepcopy(m)
    assert twin.blocks[0].feed_residual.manifold is twin.manifold is not m.manifold
    assert torch.equal(twin.eval()(ids), m.eval()(ids))


def test_files_of_another_kind_or_config_are_refused(tmp_path):
    m = model()
    m.save(tmp_path / "m.helm")
    tensors, about = load_tensors(tmp_path / "m.helm")
    about["config"]["hidden"] = 14
    save_tensors(tmp_path / "other.helm", tensors, about)
    with pytest.raises(CheckpointError, match="no whole HELM"):
        HELM.load(tmp_path / "other.helm")
    save_tensors(tmp_path / "kind.helm", tensors, about | {"kind": "him"})
    with pytest.raises(CheckpointError, match="not a HELM"):
        HELM.load(tmp_path / "kind.helm")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        HELM.load(tmp_path / "none.helm")


# -- nonsense ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes, match, error",
    [
        ({"head_dim": 5}, "must be even, but is 5", ParameterError),
        ({"layers": 0}, "layers must be a positive whole number", ParameterError),
        ({"c": -1.0}, "curvature", ManifoldError),
        (
            {"expert_c": (1.0,), "expert_hidden": 4},
            "at most the number of experts, 1, but is 2",
            ParameterError,
        ),
        ({"embedding": "ball"}, "space or points", ParameterError),
        ({"scores": "cosine"}, "scores must be lorentz or dot, but came as 'cosine'", ParameterError),
        (
            {"latent": 6, "content": 4, "rotary": 2, "value": 3, "average": "mean"},
            "attention through a latent has Lorentz scores and centroids only",
            ParameterError,
        ),
        ({"gamma": 0.0}, "gamma must be positive", ParameterError),
        ({"yarn": {"factor": 0.1}}, "factor of at least 1", ParameterError),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, match, error):
    with pytest.raises(error, match=match):
        HELMConfig(**DENSE | changes)


def test_presets_suggest_what_was_meant():
    with pytest.raises(ParameterError, match="did you mean 'helm_d_115m'"):
        preset("helm_d_115")
    with pytest.raises(ParameterError, match="did you mean 'heads'"):
        preset("mini", head=3)
    assert spaced(4) == pytest.approx((0.1, 0.1 + 1.9 / 3, 0.1 + 3.8 / 3, 2.0)) and spaced(1) == (0.1,)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda m: m(tokens(1, 25)), "24 tokens, the context, but came with 25"),
        (lambda m: m(torch.tensor([[17]])), "from 0 to 16, but came from 17 to 17"),
        (lambda m: m(torch.tensor([1, 2])), r"shape \(n, L\), but came as \(2,\)"),
        (lambda m: m(tokens(1, 4), torch.ones(1, 3).bool()), r"boolean of shape \(1, 4\)"),
        (lambda m: m.generate([[]]), "one token or more"),
        (lambda m: m.generate([[1]], 25), "beyond the context of 24"),
        (lambda m: m.generate([[99]]), "others came in the rows"),
        (lambda m: m.generate([[1]], temperature=-1.0), "temperature is at least 0"),
    ],
)
def test_input_that_makes_no_sense_is_named(call, match):
    with pytest.raises(ParameterError, match=match):
        call(model())


def test_no_rows_give_no_continuations():
    assert model().generate([]) == []
    assert KeyValueCache().length == 0
