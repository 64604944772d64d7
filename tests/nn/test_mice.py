"""MiCE against its formula token by token, and what routing and balancing promise."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ManifoldError, ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.mice import MiCE

DOUBLE = torch.float64
CURVATURES = (0.1, 0.7, 1.0, 3.0)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def layer(seed: int = 0, c: float = 0.8, curvatures=CURVATURES, **options) -> MiCE:
    torch.manual_seed(seed)
    m = MiCE(Lorentz(c), 6, 5, curvatures, **options).double()
    with torch.no_grad():
        for p in m.parameters():
            if p.dtype == DOUBLE and p.ndim:
                p.add_(0.2 * torch.randn_like(p))
        m.log_weight.fill_(0.2)
        m.bias.copy_(0.05 * torch.randn(len(curvatures)))
    return m.eval()


def lifted(x: torch.Tensor, c: float) -> torch.Tensor:
    return torch.cat([(1 / c + (x * x).sum(-1, keepdim=True)).sqrt(), x], -1)


def swiglu(x, c, up, up_bias, down, down_bias):
    h = up @ lifted(x, c) + up_bias
    n = len(h) // 2
    return down @ lifted(F.silu(h[:n]) * h[n:], c) + down_bias


def by_hand(m: MiCE, x: torch.Tensor, c: float, renormalise: bool, curved: bool = True) -> torch.Tensor:
    """One token: experts in their spaces, one weighted sum of all coordinates, back on the manifold."""
    p = (m.gate @ x).softmax(-1)
    chosen = (p + m.bias).argsort(descending=True)[: m.active].tolist()
    total = p[chosen].sum() if renormalise else 1.0
    z = lifted(
        swiglu(
            x, c, m.shared.gate_up.weight, m.shared.gate_up.bias, m.shared.down.weight, m.shared.down.bias
        ),
        c,
    )
    for e in chosen:
        own = float(m.spaces[e].c)
        room = own if curved else c
        y = swiglu(
            x * math.sqrt(c / own), room, m.up_weight[e], m.up_bias[e], m.down_weight[e], m.down_bias[e]
        )
        z = z + math.exp(0.2) * p[e] / total * lifted(y * math.sqrt(own / c), c)
    return 2 * z[1:] / (c * (z[0] ** 2 - z[1:] @ z[1:])).sqrt()


@settings(max_examples=10, deadline=None)
@given(
    active=st.integers(1, 4),
    shared=st.integers(1, 2),
    renormalise=st.booleans(),
    dispatch=st.sampled_from(["dense", "sorted"]),
    curved=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_formula_token_by_token(active, shared, renormalise, dispatch, curved, seed):
    options = dict(active=active, shared=shared, renormalise=renormalise, dispatch=dispatch, curved=curved)
    m = layer(seed, **options)
    x = draw(9, 6, seed=seed)
    y, _ = m(x)
    expected = torch.stack([by_hand(m, row, 0.8, renormalise, curved) for row in x])
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)  # γ was made in float32


def test_both_dispatches_give_the_same_values_and_gradients():
    results = []
    for dispatch in ("dense", "sorted"):
        m = layer(learnable=True, dispatch=dispatch).train()
        x = draw(2, 8, 6).requires_grad_()
        y, balance = m(x)
        (y.sin().sum() + 3 * balance).backward()
        results.append([y, balance, x.grad, m.load] + [p.grad for p in m.parameters()])
        assert all(p.grad is not None for p in m.parameters())
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_the_order_of_experts_does_not_matter():
    m, order = layer(), [2, 0, 3, 1]
    other = layer(curvatures=[CURVATURES[e] for e in order])
    with torch.no_grad():
        for name in ("gate", "up_weight", "up_bias", "down_weight", "down_bias", "bias"):
            getattr(other, name).copy_(getattr(m, name)[order])
        other.shared.load_state_dict(m.shared.state_dict())
    x = draw(10, 6)
    torch.testing.assert_close(other(x)[0], m(x)[0], rtol=1e-12, atol=1e-13)


def test_the_bias_chooses_and_does_not_weight():
    m, x = layer(), draw(20, 6)
    m.bias.zero_()
    m.bias[3] = 10.0
    routing = m.route(x)
    assert (routing.chosen == 3).any(-1).all()
    p = routing.probabilities.gather(-1, routing.chosen)
    torch.testing.assert_close(routing.weights, p / p.sum(-1, keepdim=True))


def test_every_token_counts_as_often_as_it_has_experts_and_the_bias_keeps_its_sum():
    m = layer(active=3).train()
    m.bias.zero_()
    m(draw(4, 10, 6)), m(draw(4, 10, 6, seed=1))  # micro-batches of one step
    assert float(m.load.sum()) == 3 * 80
    share = m.load / 240
    m.balance_step(rate=0.1)
    torch.testing.assert_close(m.bias, 0.1 * (0.25 - share))
    assert abs(float(m.bias.sum())) < 1e-7 and not m.load.any()
    m.balance_step()
    assert m.bias.abs().max() > 0  # nothing counted, nothing moved
    m.eval()(draw(3, 6))
    assert not m.load.any()


def test_the_balance_is_one_when_routing_is_uniform_and_more_when_one_expert_gets_all():
    m = layer(active=2)
    x = draw(400, 6)
    m.gate.data.zero_(), m.bias.zero_()
    torch.testing.assert_close(m(x)[1], torch.ones((), dtype=DOUBLE))
    m.gate.data[0] = 5 * x.mean(0).sign()
    m.gate.data[1] = m.gate.data[0]
    assert float(m(x.abs() * m.gate.data[0].sign())[1].detach()) > 1.5


def test_balancing_steps_even_out_the_load():
    m = layer(active=1).train()
    m.gate.data.mul_(0.3)
    m.bias.zero_()
    x = draw(500, 6) + 1

    def unevenness():
        return float(torch.bincount(m.route(x).chosen.flatten(), minlength=4).double().std())

    before = unevenness()
    for _ in range(300):
        with torch.no_grad():
            m(x)
        m.balance_step(0.02)
    assert unevenness() < before / 4


def test_it_is_one_graph_and_asks_the_host_for_nothing():
    m, x = layer().train(), draw(3, 6)
    torch.testing.assert_close(torch.compile(m, fullgraph=True, backend="aot_eager")(x)[0], m(x)[0])


def test_learned_curvatures_are_its_own_parameters():
    m = layer(learnable=True)
    assert sum(name.endswith("log_c") for name, _ in m.named_parameters()) == 4
    torch.testing.assert_close(m.curvatures(), torch.tensor(CURVATURES, dtype=DOUBLE))


def test_under_autocast_it_stays_near_float32():
    m, x = layer().float(), draw(50, 6).float()
    exact = m(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        for dispatch in ("dense", "sorted"):
            m.dispatch = dispatch
            assert ((m(x)[0] - exact).norm() / exact.norm()).item() < 0.02


@pytest.mark.parametrize(
    "options, match, error",
    [
        ({"active": 5}, "at most the number of experts, 4, but is 5", ParameterError),
        ({"dispatch": "best"}, "dispatch must be one of auto, dense, sorted", ParameterError),
        ({"curvatures": ()}, "experts", ParameterError),
        ({"curvatures": (1.0, -1.0)}, "curvature", ManifoldError),
    ],
)
def test_nonsense_is_named(options, match, error):
    with pytest.raises(error, match=match):
        layer(**options)
