"""Attention against the literal formula in float64: values, gradients, masks, caches, bfloat16."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.columns import Means, key_columns, query_columns, value_columns
from workbench.nn.hmla import HyperbolicLatentAttention, LatentCache
from workbench.nn.hope import HoPE
from workbench.nn.hyperbolic_attention import (
    HyperbolicAttention,
    KeyValueCache,
    lorentz_attention,
    visible,
)
from workbench.nn.lorentz import lift

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def attend(*args, **options):
    """Heads before positions, as in the inputs."""
    return lorentz_attention(*args, **options).transpose(1, 2)


def literal(q, k, v, c, tau, seen=None, beta=0.3):
    """exp((2/c + 2⟨q, k⟩)/τ + β), normalised, and the weighted centroid of the values: (.., L, d+1)."""
    q, k, v = (torch.cat([(1 / c + x.square().sum(-1, keepdim=True)).sqrt(), x], -1) for x in (q, k, v))
    sign = torch.ones(k.shape[-1], dtype=k.dtype)
    sign[0] = -1
    scores = (2 / c + 2 * (q * sign) @ k.transpose(-1, -2)) / tau + beta
    if seen is None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    m = scores.masked_fill(~seen, -1e18).softmax(-1) @ v
    sign = torch.ones(v.shape[-1], dtype=v.dtype)
    sign[0] = -1
    return m / (-c * (m * m * sign).sum(-1, keepdim=True)).sqrt()


@settings(max_examples=15, deadline=None)
@given(c=st.sampled_from([0.2, 1.0, 3.0]), value=st.sampled_from([3, 6, 9]), seed=st.integers(0, 99))
def test_one_call_of_sdpa_is_the_literal_formula_with_its_gradients(c, value, seed):
    q, k = draw(2, 3, 7, 6, seed=seed), draw(2, 3, 7, 6, seed=seed + 1)
    v, to = draw(2, 3, 7, value, seed=seed + 2), draw(2, 3, 7, value + 1, seed=seed + 3)
    tau = torch.tensor(2.3, dtype=DOUBLE)
    inputs = [x.requires_grad_() for x in (q, k, v, tau)]
    one = attend(q, k, v, c, 2 / tau)
    other = literal(q, k, v, c, tau)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad((one * to).sum(), inputs),
        torch.autograd.grad((other * to).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_scores_do_not_change_and_centroids_move_with_isometries():
    c, b = 0.8, torch.eye(6, dtype=DOUBLE)
    b[0, 0] = b[1, 1] = math.cosh(0.7)
    b[0, 1] = b[1, 0] = math.sinh(0.7)
    q, k, v = (draw(1, 2, 6, 5, seed=s) for s in range(3))

    def moved(x):
        return (lift(x, c) @ b.T)[..., 1:]

    o = attend(q, k, v, c, 1.0)
    torch.testing.assert_close(attend(moved(q), moved(k), v, c, 1.0), o)
    torch.testing.assert_close(attend(q, k, moved(v), c, 1.0), o @ b.T)


def test_the_output_minimises_the_weighted_squared_distances():
    c = 1.3
    q, k, v = draw(1, 1, 1, 4), draw(1, 1, 5, 4, seed=1), draw(1, 1, 5, 4, seed=2)
    o = attend(q, k, v, c, 1.0, mask=torch.ones(1, 1, 1, 5, dtype=torch.bool))[0, 0, 0]
    points, sign = lift(v[0, 0], c), torch.tensor([-1.0, 1, 1, 1, 1], dtype=DOUBLE)
    p = (lift(q, c) * sign @ lift(k, c).mT)[0, 0, 0].softmax(-1)

    def cost(y):
        return (p * (-2 / c - 2 * (points * sign) @ lift(y, c))).sum()

    best = cost(o[1:])
    for step in draw(200, 4, seed=3, size=0.1):
        assert cost(o[1:] + step) >= best


def test_parts_put_back_into_flat_space_are_dot_products_and_means_of_space_parts():
    q, k, v, c, scale = draw(2, 3, 7, 6), draw(2, 3, 7, 6, seed=1), draw(2, 3, 7, 4, seed=2), 0.7, 0.4
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    weights = (scale * q @ k.mT).masked_fill(~seen, -math.inf).softmax(-1)
    expected = lift(weights @ v, c)
    found = attend(q, k, v, c, scale, scores="dot", average="mean")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    m = weights @ lift(v, c)
    m = m / (c * (m[..., :1].square() - m[..., 1:].square().sum(-1, keepdim=True))).sqrt()
    torch.testing.assert_close(attend(q, k, v, c, scale, scores="dot"), m, rtol=1e-12, atol=1e-12)
    weights = attend(q, k, v, c, scale, average="mean")[..., 1:]
    eye = torch.eye(7, dtype=DOUBLE).expand(2, 3, 7, 7)  # values that show the weights of the Lorentz scores
    times = [lift(x, c)[..., :1] for x in (q, k)]
    scores = scale * (q @ k.mT - times[0] * times[1].mT)
    shown = attend(q, k, eye, c, scale, average="mean")[..., 1:]
    torch.testing.assert_close(
        shown, scores.masked_fill(~seen, -math.inf).softmax(-1), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(weights, shown @ v, rtol=1e-12, atol=1e-12)


def test_one_visible_value_comes_out_as_it_is():
    v = draw(1, 2, 1, 5, size=3)
    torch.testing.assert_close(attend(v, v, v, 0.7, 1.0), lift(v, 0.7), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_columns_have_the_gradients_of_their_formulas(dtype):
    """Where they are rounded, those of the formulas without rounding, to the digits that the columns have."""
    x, to = draw(1, 2, 3, 5), draw(1, 2, 3, 8, seed=1)
    c, scale = torch.tensor(0.7, dtype=DOUBLE), torch.tensor(1.3, dtype=DOUBLE)
    mean = draw(2, 1, 6, seed=2)
    inputs = [t.requires_grad_() for t in (x, c, scale)]
    half = dtype == torch.bfloat16
    if half:
        to = to.to(dtype).double()

    def formula(kind):
        t = (1 / c + x.square().sum(-1, keepdim=True)).sqrt()
        s, t = (scale * x, -scale * t) if kind == "query" else (x, t)
        first = [t, t if kind == "key" else 0 * t] if half else [t]
        y = torch.cat([*first, s], -1)
        return y if kind == "query" or not half else y - torch.cat([mean[..., :1]] * 2 + [mean[..., 1:]], -1)

    for kind in ("query", "key", "value"):
        if kind == "query":
            y = query_columns(x, c, scale, dtype, 8)
        else:
            y = (key_columns if kind == "key" else value_columns)(x, c, mean, dtype, 8)
        plain = formula(kind)
        used = inputs if kind == "query" else inputs[:2]
        one = torch.autograd.grad((y.double() * to).sum(), used)
        other = torch.autograd.grad((plain * to[..., : plain.shape[-1]]).sum(), used)
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, **({"rtol": 2e-2, "atol": 2e-2} if half else {}))


# -- half precision --------------------------------------------------------------------------------------------
def correlated(size: float, share: float, seed: int) -> torch.Tensor:
    """(1, 6, 128, 64) vectors of about this length, any two of which have the correlation `share`."""
    common, own = draw(1, 6, 1, 64, seed=seed), draw(1, 6, 128, 64, seed=seed + 50)
    return (share**0.5 * common + (1 - share) ** 0.5 * own) * size / 8


def bfloat16_error(q, k, v, means=Means()):  # noqa: B008
    """Largest and median relative error of the space parts."""
    tau = math.sqrt(6 * 65)
    exact = attend(q, k, v, 1.0, 2 / tau)
    q, k, v = q.float(), k.float(), v.float()
    with torch.autocast("cpu", torch.bfloat16):
        # products come out of linear maps in bfloat16; here the columns alone are to be judged
        o = attend(q, k, v, 1.0, 2 / tau, means=means)
    assert o.dtype == torch.bfloat16
    error = (o - exact)[..., 1:].norm(dim=-1) / exact[..., 1:].norm(dim=-1)
    return float(error.max()), float(error.median())


def means_of(k: torch.Tensor, v: torch.Tensor) -> Means:
    return Means(*(lift(x, 1.0).mean((0, 2))[:, None].float() for x in (k, v)))


@pytest.mark.parametrize("share, median", [(0.0, 6e-3), (0.9, 4e-3), (0.99, 4e-3)])
def test_bfloat16_centroids_keep_their_length_at_any_correlation_of_values(share, median):
    q, k, v = correlated(8, 0.5, 1), correlated(8, 0.5, 2), correlated(16, share, 3)
    worst, usual = bfloat16_error(q, k, v, means_of(k, v))
    assert usual < median and worst < 0.15
    if share == 0.99:  # what the mean value and the split time are for
        assert bfloat16_error(q, k, v)[1] > 10 * usual


@pytest.mark.parametrize("size, bound", [(8, 2.5e-3), (16, 1.2e-2), (32, 5e-2)])
def test_bfloat16_weights_are_as_good_as_those_of_a_flat_dot_product(size, bound):
    """Total variation of the softmax, read off values that tell keys apart: one unit vector each."""
    q, k = correlated(size, 0.5, 1)[..., :64, :], correlated(size, 0.5, 2)[..., :64, :]
    tau = math.sqrt(6 * 65)
    half = torch.bfloat16
    exact = (2 / tau * (lift(q, 1.0) * torch.tensor([-1.0] + [1.0] * 64)) @ lift(k, 1.0).mT).softmax(-1)

    def distance(mean):
        columns = (
            query_columns(q.float(), 1.0, 2 / tau, half, 72),
            key_columns(k.float(), 1.0, mean, half, 72),
        )
        p = (columns[0].double() @ columns[1].double().mT).softmax(-1)
        return float((p - exact).abs().sum(-1).max() / 2)

    centred = distance(means_of(k, k).key)
    assert centred < bound
    assert distance(None) > 1.5 * centred


def test_sequences_in_bfloat16_have_finite_gradients_near_those_of_float32():
    inputs = [correlated(5, 0.9, s).float().requires_grad_() for s in range(3)]
    to = draw(1, 6, 128, 65).float()

    def gradients():
        o = attend(*inputs, 1.0, 0.1, means=means_of(*(x.double() for x in inputs[1:])))
        return torch.autograd.grad((o.float() * to).sum(), inputs)

    exact = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(gradients(), exact, strict=True):
            assert ((one - other).norm() / other.norm()).item() < 0.03


# -- modules ---------------------------------------------------------------------------------------------------
def full(c: float = 1.0, seed: int = 0) -> HyperbolicAttention:
    torch.manual_seed(seed)
    return HyperbolicAttention(Lorentz(c), 11, 3, 4).double().eval()


def latent(c: float = 1.0, seed: int = 0) -> HyperbolicLatentAttention:
    torch.manual_seed(seed)
    m = HyperbolicLatentAttention(Lorentz(c), 11, 3, latent=6, content=5, rotary=4, value=3)
    torch.nn.init.normal_(m.expand.bias)
    torch.nn.init.uniform_(m.norm.weight)
    return m.double().eval()


KINDS = [(full, KeyValueCache), (latent, LatentCache)]
HOPE = HoPE(4, 64)


def turn(length: int, start: int = 0):
    return HOPE(torch.arange(start, start + length), DOUBLE)


def test_the_module_is_the_formula_head_by_head():
    c, m, x = 0.6, full(0.6), draw(1, 7, 11)
    z = lift(x, c)[0] @ m.qkv.weight.T + m.qkv.bias
    angles = 10000 ** (-2 * torch.arange(2, dtype=DOUBLE) / 4)
    turns = torch.polar(torch.ones(7, 2, dtype=DOUBLE), torch.arange(7, dtype=DOUBLE)[:, None] * angles)
    heads = []
    for i in range(3):
        q, k, v = (z[:, part * 12 + 4 * i : part * 12 + 4 * i + 4] for part in range(3))
        q, k = (torch.complex(y[:, :2].contiguous(), y[:, 2:].contiguous()) * turns for y in (q, k))
        q, k = (torch.cat([y.real, y.imag], -1) for y in (q, k))
        heads.append(literal(q, k, v, c, math.sqrt(3 * 5)))
    expected = torch.cat(heads, -1) @ m.out.weight.T + m.out.bias
    torch.testing.assert_close(m(x, turn(7))[0], expected, rtol=1e-6, atol=1e-6)  # τ was made in float32


def test_the_latent_module_is_the_formula_head_by_head():
    c, m, x = 0.6, latent(0.6), draw(1, 7, 11)
    z = lift(x, c)[0]
    q = (z @ m.query.weight.T + m.query.bias).unflatten(-1, (3, 9))
    down = z @ m.compress.weight.T + m.compress.bias
    l = down[:, :6] / (down[:, :6].square().mean(-1, keepdim=True) + 1e-8).sqrt() * m.norm.weight
    both = (lift(l, c) @ m.expand.weight.T + m.expand.bias).unflatten(-1, (3, 8))
    angles = torch.arange(7, dtype=DOUBLE)[:, None] * 10000 ** (-2 * torch.arange(2, dtype=DOUBLE) / 4)
    turns = torch.polar(torch.ones(7, 2, dtype=DOUBLE), angles)

    def at_positions(y):
        w = torch.complex(y[:, :2].contiguous(), y[:, 2:].contiguous()) * turns
        return torch.cat([w.real, w.imag], -1)

    heads = []
    for i in range(3):
        query = torch.cat([q[:, i, :5], at_positions(q[:, i, 5:])], -1)
        key = torch.cat([both[:, i, :5], at_positions(down[:, 6:])], -1)
        heads.append(literal(query, key, both[:, i, 5:], c, math.sqrt(3 * 10)))
    expected = torch.cat(heads, -1) @ m.out.weight.T + m.out.bias
    torch.testing.assert_close(m(x, turn(7))[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make, cache", KINDS)
@pytest.mark.parametrize("pieces", [[1] * 7, [4, 1, 2], [5, 2], [7]])
def test_decoding_in_pieces_is_the_whole(make, cache, pieces):
    m, x, kept = make(), draw(2, 7, 11), cache()
    out, past = [], 0
    for n in pieces:
        mask = visible(n, past)
        out.append(m(x[:, past : past + n], turn(n, past), mask, kept))
        past += n
    assert kept.length == 7
    torch.testing.assert_close(torch.cat(out, 1), m(x, turn(7)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make, cache", KINDS)
def test_a_piece_without_its_mask_would_be_wrong(make, cache):
    """What `visible` is for: new tokens of one piece see each other in order."""
    m, x, kept = make(), draw(1, 7, 11), cache()
    m(x[:, :4], turn(4), None, kept)
    blind = m(x[:, 4:], turn(3, 4), torch.ones(1, 1, 3, 7, dtype=torch.bool), kept)
    assert (blind - m(x, turn(7))[:, 4:]).abs().max() > 1e-3


def test_caches_hold_what_is_said():
    x = draw(1, 7, 11)
    kept, small = KeyValueCache(), LatentCache()
    full()(x, turn(7), None, kept)
    latent()(x, turn(7), None, small)
    assert sum(t[0, :, 0].numel() for t in kept.columns) == 3 * 2 * 8  # 4 + 1, filled up
    assert small.columns[0][0, :, 0].numel() == 6 + 4 and small.columns[1][0, :, 0].numel() == 2 * 3


@pytest.mark.parametrize("make, cache", KINDS)
def test_no_token_sees_a_later_one_not_by_a_bit_even_in_bfloat16(make, cache):
    m = make().float().train()
    x = draw(1, 24, 11).float()
    other = torch.cat([x[:, :10], draw(1, 14, 11, seed=1).float()], 1)
    rotation = HOPE(torch.arange(24))
    m(x, rotation)  # means are no longer 0
    m.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(m(x, rotation)[:, :10], m(other, rotation)[:, :10])


@pytest.mark.parametrize("make, cache", KINDS)
def test_padding_and_other_documents_are_not_seen(make, cache):
    m, x = make(), draw(1, 6, 11)
    left = torch.cat([draw(1, 2, 11, seed=1), x], 1)
    real = torch.tensor([[False] * 2 + [True] * 6])
    plain = m(x, turn(6))
    torch.testing.assert_close(m(left, turn(8), visible(8, real=real))[:, 2:], plain)
    documents = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]])
    packed = m(left, turn(8), visible(8, documents=documents))
    torch.testing.assert_close(packed[:, 2:], plain)
    assert torch.isfinite(packed).all()


@pytest.mark.parametrize("make, cache", KINDS)
def test_running_means_follow_the_batches_and_leave_float32_alone(make, cache):
    m = make().float()
    x, rotation = draw(2, 32, 11).float(), HOPE(torch.arange(32))
    before = m(x, rotation)
    m.train()
    m(x, rotation)
    first = m.means.key.clone()
    assert (first[..., 0] >= 1).all() and float(m.means.seen) == 1
    m(x, rotation)
    torch.testing.assert_close(m.means.key, first)
    m.eval()
    assert torch.equal(m(x, rotation), before)


@pytest.mark.parametrize("make, cache", KINDS)
def test_all_parameters_get_gradients_and_the_module_is_one_graph(make, cache):
    m = make().train()
    x, rotation = draw(2, 16, 11), turn(16)
    once = torch.compile(m, fullgraph=True, backend="aot_eager")
    once(x, rotation).square().sum().backward()
    grads = {name: p.grad.clone() for name, p in m.named_parameters()}
    m.zero_grad()
    m(x, rotation).square().sum().backward()
    for name, p in m.named_parameters():
        torch.testing.assert_close(grads[name], p.grad)
        assert p.grad.any(), name


def test_sizes_that_make_no_sense_are_named():
    with pytest.raises(ParameterError, match="head_dim"):
        HyperbolicAttention(Lorentz(), 8, 2, 0)
    with pytest.raises(ParameterError, match="latent"):
        HyperbolicLatentAttention(Lorentz(), 8, 2, latent=0, content=4, rotary=2, value=4)
