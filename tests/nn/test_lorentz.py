"""Lorentz bricks: on the manifold, equal to their formulas with all coordinates in float64, and their symmetries."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workbench.errors import ManifoldError, ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.lorentz import (
    HyperbolicFeedForward,
    HyperbolicRMSNorm,
    LorentzEmbedding,
    LorentzLinear,
    LorentzResidual,
    carry,
    lift,
    shrink,
)

DOUBLE = torch.float64
CURVATURES = st.sampled_from([0.1, 0.5, 1.0, 2.5, 10.0])


def draw(*shape: int, seed: int = 0, size: float = 1.0, dtype=DOUBLE) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def inner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x[..., 1:] * y[..., 1:]).sum(-1) - x[..., 0] * y[..., 0]


def onto(z: torch.Tensor, c: float) -> torch.Tensor:
    return z / (-c * inner(z, z)).sqrt()[..., None]


def by_hand(x: torch.Tensor, c: float) -> torch.Tensor:
    return torch.cat([(1 / c + (x * x).sum(-1, keepdim=True)).sqrt(), x], -1)


def made(part: type[nn.Module], *args, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return part(*args, **options).double()


@settings(max_examples=20, deadline=None)
@given(c=CURVATURES, size=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_a_lifted_space_part_lies_on_the_hyperboloid(c, size, seed):
    x = lift(draw(4, 6, seed=seed, size=size), c)
    assert x[..., 0].min() > 0
    assert ((inner(x, x) + 1 / c).abs() <= 1e-14 * x[..., 0].square()).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-7), (torch.bfloat16, 5e-3)])
def test_the_time_coordinate_is_computed_in_float32_whatever_comes(dtype, tolerance):
    x = draw(50, 64, size=3).to(dtype)
    p = lift(x, 1.0)
    assert p.dtype == dtype
    exact = by_hand(x.double(), 1.0)
    assert ((p.double() - exact).abs()[..., 0] <= tolerance * exact[..., 0]).all()


@settings(max_examples=15, deadline=None)
@given(c=CURVATURES, c_out=CURVATURES, seed=st.integers(0, 99))
def test_a_linear_map_is_a_matrix_on_all_coordinates_with_time_recomputed(c, c_out, seed):
    m = made(LorentzLinear, Lorentz(c), 5, 3, out_manifold=Lorentz(c_out), seed=seed)
    nn.init.normal_(m.bias)
    x = draw(7, 5, seed=seed)
    y = by_hand(by_hand(x, c) @ m.weight.T + m.bias, c) * math.sqrt(c / c_out)
    torch.testing.assert_close(by_hand(m(x), c_out), y, rtol=1e-12, atol=1e-12)


def test_several_points_enter_one_linear_map_side_by_side():
    m = made(LorentzLinear, Lorentz(0.7), 4, 3, points=2, bias=False)
    x = lift(draw(5, 2, 4), 0.7)
    first, second = m.weight.split(5, -1)
    torch.testing.assert_close(m.of_points(x.flatten(-2)), x[:, 0] @ first.T + x[:, 1] @ second.T)
    with pytest.raises(ManifoldError, match="2 points of dimension 4"):
        m(draw(5, 4))


def test_linear_maps_refuse_other_widths_and_spaces():
    with pytest.raises(ManifoldError, match=r"dimension 5 .* got shape \(2, 4\)"):
        LorentzLinear(Lorentz(), 5, 3)(torch.ones(2, 4))
    with pytest.raises(ParameterError, match="out_dim"):
        LorentzLinear(Lorentz(), 5, 0)
    with pytest.raises(ManifoldError, match="must be a Lorentz space"):
        LorentzLinear(nn.Identity(), 5, 3)


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1.0, 1e4), seed=st.integers(0, 99))
def test_the_norm_and_its_gradient_do_not_see_the_scale_of_their_input(scale, seed):
    """Proposition 4.5: equal forward, gradients divided by the scale."""
    norm, x, to = (
        made(HyperbolicRMSNorm, 16),
        draw(3, 16, seed=seed).requires_grad_(),
        draw(3, 16, seed=-seed),
    )
    nn.init.uniform_(norm.weight)
    y = norm(x)
    scaled = norm(scale * x)
    torch.testing.assert_close(scaled, y, rtol=1e-6, atol=1e-7)
    (one,) = torch.autograd.grad((y * to).sum(), x)
    (other,) = torch.autograd.grad((scaled * to).sum(), x)
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)  # d(scale·x)/dx gives the factor back


def test_after_the_norm_time_is_constant_and_a_linear_map_is_an_affine_one():
    c, d = 0.4, 12
    norm, m, x = made(HyperbolicRMSNorm, d), made(LorentzLinear, Lorentz(c), d, 5), draw(20, d)
    y = norm(x)
    time = math.sqrt(d + 1 / c)
    torch.testing.assert_close(lift(y, c)[:, 0], torch.full((20,), time, dtype=DOUBLE), rtol=1e-7, atol=0)
    bias = m.bias + time * m.weight[:, 0]
    torch.testing.assert_close(m(y), y @ m.weight[:, 1:].T + bias, rtol=1e-6, atol=1e-6)


def test_the_residual_is_the_normalised_weighted_sum_scaled():
    c, gamma = 1.7, 3.0
    m = made(LorentzResidual, Lorentz(c), gamma)
    nn.init.constant_(m.log_weight, 0.3)
    x, y = draw(6, 5), draw(6, 5, seed=1)
    z = onto(by_hand(x, c) + math.exp(0.3) * by_hand(y, c), c)
    torch.testing.assert_close(m(x, y), gamma * z[..., 1:], rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(m, (x.requires_grad_(), y.requires_grad_()))


def test_the_flat_residual_is_the_weighted_sum_of_space_parts():
    m = made(LorentzResidual, Lorentz(1.7), 3.0, flat=True)
    nn.init.constant_(m.log_weight, 0.3)
    x, y = draw(6, 5), draw(6, 5, seed=1)
    torch.testing.assert_close(m(x, y), x + math.exp(0.3) * y, rtol=1e-12, atol=1e-12)


def boost(dim: int, speed: float) -> torch.Tensor:
    """A translation of the hyperboloid along the first axis, as a matrix on (time, space)."""
    b = torch.eye(dim + 1, dtype=DOUBLE)
    b[0, 0] = b[1, 1] = math.cosh(speed)
    b[0, 1] = b[1, 0] = math.sinh(speed)
    return b


def test_the_residual_moves_with_isometries_and_the_linear_map_does_not():
    c, b = 0.8, boost(5, 0.9)
    add, linear = made(LorentzResidual, Lorentz(c)), made(LorentzLinear, Lorentz(c), 5, 5)
    x, y = draw(6, 5), draw(6, 5, seed=1)

    def moved(p):
        return (lift(p, c) @ b.T)[..., 1:]

    torch.testing.assert_close(add(moved(x), moved(y)), moved(add(x, y)), rtol=1e-12, atol=1e-12)
    assert (linear(moved(x)) - moved(linear(x))).abs().max() > 0.1


def test_the_sum_of_two_points_commutes_but_does_not_associate():
    add = made(LorentzResidual, Lorentz())
    x, y, z = (draw(6, 5, seed=s, size=2) for s in range(3))
    torch.testing.assert_close(add(x, y), add(y, x))
    assert (add(add(x, y), z) - add(x, add(y, z))).abs().max() > 0.1


@pytest.mark.parametrize("size", [1.0, 200.0])
def test_float32_sums_of_close_far_points_stay_finite_and_their_gradients_too(size):
    """200 is where the stream of HELM-D lives; equal points are the worst case of the cancellation."""
    add = LorentzResidual(Lorentz())
    x = draw(50, 64, size=size / 8, dtype=torch.float32).requires_grad_()
    y = (x.detach() * (1 + 1e-4 * draw(50, 64, seed=1, dtype=torch.float32))).requires_grad_()
    out = add(x, y)
    exact = onto(by_hand(x.double(), 1.0) + by_hand(y.double(), 1.0), 1.0)[..., 1:]
    assert ((out - exact).norm(dim=-1) / exact.norm(dim=-1)).max() < (1e-5 if size == 1 else 2e-2)
    out.sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()


def test_the_length_of_a_sum_is_never_below_its_weight():
    time, space = torch.tensor([[100.0]]), torch.tensor([[100.0, 0.0]])  # what rounding left of a point
    assert float(shrink(time, space, 2.0, 1.0)) == 0.5


@settings(max_examples=15, deadline=None)
@given(c=CURVATURES, c_out=CURVATURES, seed=st.integers(0, 99))
def test_carrying_between_curvatures_scales_all_distances_by_one_factor(c, c_out, seed):
    x, y = lift(draw(5, 4, seed=seed), c), lift(draw(5, 4, seed=seed + 100), c)
    to = [lift(carry(p[..., 1:], c, c_out), c_out) for p in (x, y)]
    torch.testing.assert_close(Lorentz(c_out).dist(*to), Lorentz(c).dist(x, y) * math.sqrt(c / c_out))


@pytest.mark.parametrize("as_points", [False, True])
def test_an_embedding_starts_at_its_radius_and_gives_space_parts(as_points):
    torch.manual_seed(0)
    space = Lorentz(2.0)
    e = LorentzEmbedding(space, 30, 6, radius=1.3, as_points=as_points)
    x = e(torch.arange(30))
    assert x.shape == (30, 6)
    torch.testing.assert_close(space.dist0(lift(x, 2.0)), torch.full((30,), 1.3))
    far = LorentzEmbedding(space, 30, 6, out_manifold=Lorentz(0.5))(torch.arange(30))
    torch.testing.assert_close(Lorentz(0.5).dist0(lift(far, 0.5)), torch.full((30,), 2.0))


def test_a_riemannian_step_keeps_held_points_on_the_manifold():
    from workbench.training.riemannian import RiemannianAdam

    torch.manual_seed(0)
    e = LorentzEmbedding(Lorentz(0.5), 8, 4, as_points=True)
    before = e.weight.detach().clone()
    opt = RiemannianAdam(e.parameters(), lr=0.1)
    e(torch.arange(4)).square().sum().backward()
    opt.step()
    torch.testing.assert_close(e.weight[:, 0], lift(e.weight[:, 1:], 0.5)[:, 0])
    assert (e.weight[:4].norm(dim=-1) < before[:4].norm(dim=-1)).all()
    torch.testing.assert_close(e.weight[4:].detach(), before[4:])


def feed_forward_by_hand(m, x, c):
    w, b = m.gate_up.weight, m.gate_up.bias
    h = by_hand(x, c) @ w.T + b
    n = h.shape[-1] // 2
    h = h[..., :n] * torch.sigmoid(h[..., :n]) * h[..., n:]
    return by_hand(h, c) @ m.down.weight.T + m.down.bias


@settings(max_examples=10, deadline=None)
@given(c=CURVATURES, own=CURVATURES, seed=st.integers(0, 99))
def test_feed_forward_is_swiglu_between_lifts_in_its_own_curvature(c, own, seed):
    x = draw(6, 5, seed=seed)
    m = made(HyperbolicFeedForward, Lorentz(c), 5, 7, within=Lorentz(own), seed=seed)
    expected = feed_forward_by_hand(m, x * math.sqrt(c / own), own) * math.sqrt(own / c)
    torch.testing.assert_close(m(x), expected, rtol=1e-11, atol=1e-11)


def test_a_curvature_of_its_own_is_a_change_of_scale_but_for_the_hidden_time():
    """expert(c'; W, b, V, a) = expert(c; sW, b, V/s, a/s) with s = √(c/c') once V's time column is 0."""
    c, own = 1.0, 10.0
    m = made(HyperbolicFeedForward, Lorentz(c), 5, 7, within=Lorentz(own))
    plain = made(HyperbolicFeedForward, Lorentz(c), 5, 7)
    s = math.sqrt(c / own)
    with torch.no_grad():
        m.down.weight[:, 0] = 0
        for p in m.parameters():
            p.add_(0.1 * torch.randn_like(p))
        m.down.weight[:, 0] = 0
        plain.gate_up.weight.copy_(s * m.gate_up.weight)
        plain.gate_up.bias.copy_(m.gate_up.bias)
        plain.down.weight.copy_(m.down.weight / s)
        plain.down.bias.copy_(m.down.bias / s)
    x = draw(6, 5)
    torch.testing.assert_close(m(x), plain(x), rtol=1e-12, atol=1e-12)


def test_gradients_reach_a_learned_curvature_and_agree_with_finite_differences():
    space, own = Lorentz(0.7, learnable=True), Lorentz(1.3, learnable=True)
    m = made(HyperbolicFeedForward, space, 4, 3, within=own)
    assert "log_c" not in dict(m.named_parameters())  # it is the model's
    x = draw(5, 4)

    value = m(x).square().sum()
    grads = torch.autograd.grad(value, [space.log_c, own.log_c])
    for p, grad in zip([space.log_c, own.log_c], grads, strict=True):
        start, h = float(p.detach()), 1e-6
        p.data.fill_(start + h)
        up = float(m(x).square().sum())
        p.data.fill_(start - h)
        down = float(m(x).square().sum())
        p.data.fill_(start)
        assert float(grad) == pytest.approx((up - down) / (2 * h), rel=1e-6)


def test_bricks_are_copied_with_their_manifold_and_hold_no_state_of_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.manifold = Lorentz(1.0, learnable=True)
            self.linear = LorentzLinear(self.manifold, 3, 3)

    model = Model()
    assert sorted(model.state_dict()) == ["linear.bias", "linear.weight", "manifold.log_c"]
    twin = copy.deepcopy(model)
    assert twin.linear.manifold is twin.manifold and twin.manifold is not model.manifold


def test_bricks_compile_to_one_graph():
    space = Lorentz(1.0)
    norm, ff, add = HyperbolicRMSNorm(8), HyperbolicFeedForward(space, 8, 12), LorentzResidual(space, 2.0)

    def block(x):
        return add(x, ff(norm(x)))

    x = draw(4, 8, dtype=torch.float32)
    once = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(once(x), block(x))


def test_the_first_weights_have_xavier_size_each_map_by_itself():
    torch.manual_seed(0)
    m = HyperbolicFeedForward(Lorentz(), 127, 300, gain=math.sqrt(2))
    limit = math.sqrt(2) * math.sqrt(6 / (128 + 300))
    assert 0.99 * limit < float(m.gate_up.weight.abs().max()) <= limit
    assert F.relu(m.gate_up.bias.abs()).max() == 0
