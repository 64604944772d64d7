"""HMamba's encoder and heads: K(κ) against a loop, κ = 1 is Mamba, the released function, orders and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.manifolds import make
from workbench.models.hmamba import Head, MambaEncoder
from workbench.models.recommender import Recommender, RecommenderConfig, named

KINDS = ("dot", "half", "lorentz_sq", "dist2", "dist", "official")
N = 30


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64) * scale


def batch(n=3, length=9, seed=0):
    items = torch.randint(N, (n, length), generator=seeded(seed))
    return items, torch.ones_like(items, dtype=torch.bool)


# -- K(κ) --------------------------------------------------------------------------------------------------
def plain_mamba(m, x, scale):
    """Mamba-1 step by step, in plain loops over time: Ā = exp(Δ A ⊙ K), B̄ = Δ B."""
    u, z = F.linear(x, m.in_proj.weight).chunk(2, -1)
    k = m.d_conv
    padded = F.pad(u, (0, 0, k - 1, 0))
    taps = [padded[:, j : j + u.shape[1]] * m.conv1d.weight[:, 0, j] for j in range(k)]
    u = F.silu(sum(taps) + m.conv1d.bias)
    low, B, C = F.linear(u, m.x_proj.weight).split([m.dt_rank, m.d_state, m.d_state], -1)
    delta = F.softplus(F.linear(low, m.dt_proj.weight, m.dt_proj.bias))
    A = -m.A_log.exp() * scale
    h, out = x.new_zeros(len(x), m.d_inner, m.d_state), []
    for t in range(x.shape[1]):
        d = delta[:, t, :, None]
        h = torch.exp(d * A) * h + d * B[:, t, None] * u[:, t, :, None]
        out.append((h * C[:, t, None]).sum(-1) + m.D * u[:, t])
    return F.linear(torch.stack(out, 1) * F.silu(z), m.out_proj.weight)


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * weight + bias


def plain_encoder(e, x, scale):
    """One layer without dropout: Mamba, layer norm, then the post-norm feed-forward."""
    norm, feed = e.entrance.norm, e.feeds[0]
    h = plain_mamba(e.mixers[0], layer_norm(x, norm.weight, norm.bias), scale)
    h = layer_norm(h, e.norms[0].weight, e.norms[0].bias)
    inner = F.linear(h, feed.wide.weight, feed.wide.bias)
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return layer_norm(
        h + F.linear(inner, feed.narrow.weight, feed.narrow.bias), feed.norm.weight, feed.norm.bias
    )


@pytest.mark.parametrize("k_axis", ["state0", "all"])
@pytest.mark.parametrize("kappa", [0.2, 1.0, 4.0])
@torch.no_grad()
def test_the_scan_with_k_is_a_plain_loop(k_axis, kappa):
    encoder = MambaEncoder(6, 5, state=4, dropout=0.0, k_axis=k_axis, kappa=kappa).double()
    scale = torch.full((4,), kappa**0.5, dtype=torch.float64)
    if k_axis == "state0":
        scale[1:] = 1.0
    x = randn(2, 11, 6)
    assert torch.allclose(encoder(x), plain_encoder(encoder, x, scale), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("k_axis", ["state0", "all"])
@torch.no_grad()
def test_kappa_one_is_stock_mamba_bit_for_bit(k_axis):
    items, mask = batch()
    changes = {"width": 16, "learn_kappa": False}
    with_k = Recommender(named("hmamba_full", k_axis=k_axis, **changes), N).eval()
    stock = Recommender(named("hmamba_full", k_axis="none", **changes), N).eval()
    stock.load_state_dict(with_k.state_dict(), strict=False)
    assert torch.equal(with_k.states(items, mask), stock.states(items, mask))
    other = Recommender(named("hmamba_full", k_axis=k_axis, kappa=4.0, **changes), N).eval()
    assert not torch.equal(with_k.states(items, mask), other.states(items, mask))


def test_kappa_learns_and_stays_positive():
    model = Recommender(named("hmamba_full", width=16), N)
    (log_kappa,) = model.curvatures()
    items, mask = batch()
    step = torch.optim.SGD([log_kappa], lr=1e3)
    for _ in range(3):
        step.zero_grad()
        F.cross_entropy(
            model.scores(model.states(items, mask))[:, :-1].flatten(0, 1), items[:, 1:].flatten()
        ).backward()
        step.step()
    assert model.kappa > 0
    assert model.kappa != 1.0


def test_channels_are_refused_with_the_reason():
    with pytest.raises(ParameterError, match="mixed"):
        RecommenderConfig(k_axis="channel0")


# -- the released code's function -------------------------------------------------------------------------------
def lorentz_product(x, y):
    return (x[..., 1:] * y[..., 1:]).sum(-1) - x[..., 0] * y[..., 0]


def exp0(e):
    r = e.norm(dim=-1, keepdim=True)
    s = torch.sinh(r) * e / r
    return torch.cat([(1 + (s * s).sum(-1, keepdim=True)).sqrt(), s], -1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@torch.no_grad()
def test_official_is_the_released_function(scale):
    """Released Full: exp0 → LayerNorm → Mamba → feed-forward → lift; -2 - 2 min(arcosh², 30), θ in [1, 10]."""
    model = Recommender(named("hmamba_full_official", width=8, state=4), N).eval().double()
    E = model.items.tangent
    E.mul_(scale / E.norm(dim=-1).mean())
    items, mask = batch(2, 7)
    h = plain_encoder(model.encoder, exp0(E[items]), 1.0)
    lifted = torch.cat([(1 + (h * h).sum(-1, keepdim=True)).sqrt(), h], -1)
    theta = (-lorentz_product(lifted[:, :, None], exp0(E))).clamp(1 + 1e-7, 10)
    expected = -2 - 2 * theta.acosh().square().clamp(max=30)
    assert torch.allclose(model.scores(model.states(items, mask)), expected, rtol=1e-8)
    assert torch.allclose(model.penalty, exp0(E[items]).norm(dim=-1).mean())
    # From the spec: with LayerNorm at the end and width d every user is at radius arcsinh √d.
    assert torch.allclose(model.manifold.dist0(lifted), torch.tensor(8.0, dtype=torch.float64).sqrt().asinh())


@torch.no_grad()
def test_half_is_a_dot_product_after_the_logarithm():
    model = Recommender(named("hmamba_half", width=8, state=4, dt_init="zero"), N).eval().double()
    E = model.items.tangent
    items, mask = batch(2, 7)
    h = plain_encoder(model.encoder, exp0(E[items]), 1.0)
    size = h.norm(dim=-1, keepdim=True)
    assert torch.allclose(model.scores(model.states(items, mask)), (size.asinh() / size * h) @ E.T, rtol=1e-8)


@torch.no_grad()
def test_the_width_on_the_hyperboloid_sizes_nothing_inside():
    released = Recommender(named("hmamba_full_official"), N).encoder.mixers[0]
    assert released.in_proj.weight.shape == (256, 65)
    assert released.x_proj.weight.shape == (4 + 2 * 32, 128)
    assert released.out_proj.weight.shape == (64, 128)
    assert (released.dt_proj.bias == 0).all()
    own = F.softplus(Recommender(named("hmamba_full"), N).encoder.mixers[0].dt_proj.bias)
    assert 0.0009 < own.min() < own.max() < 0.11


# -- heads -------------------------------------------------------------------------------------------------
def head(kind, space="lorentz", c=1.0, radius="free"):
    return Head(make(space, c), kind, radius, temperature=1.5)


@pytest.mark.parametrize(
    "space, c", [("lorentz", 1.0), ("lorentz", 0.2), ("poincare", 0.2), ("euclidean", 1.0)]
)
@pytest.mark.parametrize("radius", ["free", "sphere"])
@pytest.mark.parametrize("kind", KINDS[1:5])
@torch.no_grad()
def test_scores_are_what_their_names_say(kind, radius, space, c):
    h = head(kind, space, c, radius)
    states, e, bias = randn(4, 3), randn(9, 3, seed=1), randn(9, seed=2)
    x, y = h.state_points(states), h.item_points(e)
    d = h.manifold.cdist(x, y)
    chord = d.square() if space == "euclidean" else 4 / c * (c**0.5 * d / 2).sinh().square()
    expected = {
        "half": h.manifold.to_tangent(x) @ e.T,
        "lorentz_sq": -chord,
        "dist2": -d.square(),
        "dist": -(d.square() + 1e-5).sqrt(),
    }[kind]
    assert torch.allclose(h(states, h.table(e, bias)), 1.5 * expected + bias, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS[1:5])
@torch.no_grad()
def test_both_charts_score_alike(kind):
    states, e = randn(4, 3), randn(9, 3, seed=1)
    for radius in ("free", "sphere"):
        ball, sheet = (head(kind, space, 0.7, radius) for space in ("poincare", "lorentz"))
        assert torch.allclose(
            ball(states, ball.table(e, None)), sheet(states, sheet.table(e, None)), rtol=1e-10
        )


@pytest.mark.parametrize("kind", KINDS[2:])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
@torch.no_grad()
def test_the_lorentz_product_ranks_as_the_distance_does(kind, seed):
    h = head(kind, radius="sphere" if kind == "official" else "free")
    states, e = randn(3, 4, seed=seed), randn(40, 4, seed=seed + 1, scale=0.3)
    by_distance = h.manifold.cdist(h.state_points(states), h.item_points(e)).argsort(-1)
    assert torch.equal(h.ranking(states, h.table(e, None)).argsort(-1, descending=True), by_distance)


@pytest.mark.parametrize("kind", ["dist", "dist2", "lorentz_sq", "dot"])
@torch.no_grad()
def test_with_a_bias_ranking_follows_the_training_score(kind):
    h = head(kind)
    table = h.table(randn(40, 4), randn(40, seed=2))
    states = randn(5, 4, seed=3)
    order = h.ranking(states, table).argsort(-1)
    assert torch.equal(order, h(states, table).argsort(-1))


# -- gradients that stay finite --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["zero", "equal", "far", "short"])
def test_gradients_are_finite(kind, case):
    official = kind == "official"
    base = "hmamba_full_official" if official else "hmamba_full"
    changes = {} if official else {"head": kind, "learn_c": True}
    model = Recommender(named(base, width=16, state=4, **changes), N)
    items, mask = batch(3, 1 if case == "short" else 6)
    with torch.no_grad():
        e = model.items.tangent
        if case == "zero":
            e.zero_()
        elif case == "equal":
            e.copy_(e[:1].expand_as(e))
        elif case == "far":
            e.mul_(50 / e.norm(dim=-1, keepdim=True))
    scores = model.scores(model.states(items, mask))
    loss = F.cross_entropy(scores.flatten(0, 1), items.flatten()) + model.penalty
    loss.backward()
    assert loss.isfinite()
    for name, p in model.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), name


def test_a_user_on_its_item_has_a_finite_gradient():
    """d itself has no slope there; what the heads make of it has."""
    for kind in ("dist", "dist2", "lorentz_sq"):
        h = head(kind)
        e = randn(4, 3).float().requires_grad_()
        scores = h(e, h.table(e, None))
        scores.sum().backward()
        assert e.grad.isfinite().all()
        assert (scores.diagonal().abs() < 1e-2).all()
