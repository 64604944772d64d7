"""Hyperbolic layers: flat space is nn.Linear, small curvature tends to it, gradients stay finite at the rim."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from workbench.errors import ManifoldError, ParameterError
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, make, poincare_to_lorentz
from workbench.nn import MobiusActivation, MobiusLinear, PoincareLinear

LAYERS = (MobiusLinear, PoincareLinear)
quick = settings(max_examples=15, deadline=None)


def made(kind, m, bias=True, seed=0):
    torch.manual_seed(seed)
    layer = kind(m, 5, 3, bias).double()
    if bias:
        torch.nn.init.normal_(layer.bias, std=0.3)
    return layer


def tangent(seed, n=20, d=5, std=0.5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * std


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bias", (True, False))
def test_in_flat_space_a_layer_is_nn_linear(kind, bias):
    layer, x = made(kind, Euclidean(), bias), tangent(1)
    plain = torch.nn.Linear(5, 3, bias=bias).double()
    plain.load_state_dict(layer.state_dict())
    assert torch.allclose(layer(x), plain(x), rtol=1e-15, atol=1e-15)
    assert torch.equal(MobiusActivation(Euclidean())(x), functional.relu(x))


@quick
@given(st.sampled_from(LAYERS), st.sampled_from(("poincare", "lorentz")), st.integers(0, 999))
def test_as_the_curvature_vanishes_a_layer_tends_to_nn_linear_in_tangent_vectors(kind, space, seed):
    m = make(space, 1e-8)
    layer, v = made(kind, m, seed=seed), tangent(seed)
    out = m.to_tangent(layer(m.from_tangent(v)))
    assert torch.allclose(out, functional.linear(v, layer.weight, layer.bias), atol=1e-6)


@quick
@given(st.sampled_from(LAYERS), st.sampled_from((0.1, 1.0, 4.0)), st.integers(0, 999))
def test_both_charts_give_the_same_point(kind, c, seed):
    ball, sheet = PoincareBall(c), Lorentz(c)
    a, b = made(kind, ball), made(kind, sheet)
    x = ball.from_tangent(tangent(seed))
    assert torch.allclose(poincare_to_lorentz(a(x), c), b(poincare_to_lorentz(x, c)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("c", (0.25, 1.0, 3.0))
def test_the_fully_connected_layer_agrees_with_the_published_formula_at_high_precision(c):
    m = PoincareBall(c)
    layer, x = made(PoincareLinear, m), m.from_tangent(tangent(3, n=4))
    out = layer(x)
    mp = mpmath.mp.clone()
    mp.dps = 40
    root = mp.sqrt(c)
    for row, y in zip(x.tolist(), out.tolist(), strict=True):
        lam = 2 / (1 - c * mp.fsum(mp.mpf(a) ** 2 for a in row))
        w = []
        for weight, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            z = [mp.mpf(a) / 2 for a in weight]
            size = mp.sqrt(mp.fsum(a * a for a in z))
            r = -mp.mpf(b) / (4 * size)
            inner = root * mp.fsum(a * b for a, b in zip(row, z, strict=True)) / size
            side = lam * inner * mp.cosh(2 * root * r) - (lam - 1) * mp.sinh(2 * root * r)
            w.append(mp.sinh(root * 2 * size / root * mp.asinh(side)) / root)
        up = 1 + mp.sqrt(1 + c * mp.fsum(a * a for a in w))
        assert y == pytest.approx([float(a / up) for a in w], rel=1e-12, abs=1e-14)


def test_without_a_bias_mobius_layers_collapse_to_matrices_on_tangent_vectors():
    m, v = PoincareBall(1.0), tangent(4)
    a, b = made(MobiusLinear, m, bias=False), MobiusLinear(m, 3, 2, bias=False).double()
    out = m.to_tangent(b(a(m.from_tangent(v))))
    assert torch.allclose(out, v @ a.weight.mT @ b.weight.mT, atol=1e-12)


def test_distances_from_coordinate_planes_are_undone():
    for m in (PoincareBall(2.0), Lorentz(0.5), Euclidean()):
        x = m.from_tangent(tangent(5))
        v = m.plane_distances(x, torch.eye(5, dtype=torch.float64))
        assert torch.allclose(m.from_plane_distances(v), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("length", (0.0, 1e-9, 8.0, 30.0, 500.0))
def test_points_and_gradients_are_finite_from_the_origin_to_the_rim(kind, dtype, length):
    m = PoincareBall(1.0)
    layer = made(kind, m).to(dtype)
    direction = functional.normalize(tangent(6), dim=-1)
    v = (direction * length).to(dtype).requires_grad_()
    y = MobiusActivation(m)(layer(m.from_tangent(v)))
    m.check(y)
    m.to_tangent(y).square().sum().backward()
    for g in (v.grad, layer.weight.grad, layer.bias.grad):
        assert torch.isfinite(g).all()


def test_a_hyperplane_without_a_normal_gives_finite_gradients():
    m = PoincareBall(1.0)
    layer = made(PoincareLinear, m)
    with torch.no_grad():
        layer.weight[0] = 0
    layer(m.from_tangent(tangent(7))).sum().backward()
    assert torch.isfinite(layer.weight.grad).all() and torch.isfinite(layer.bias.grad).all()


def test_bad_input_is_named():
    layer = MobiusLinear(Lorentz(1.0), 5, 3)
    with pytest.raises(ManifoldError, match="6 coordinates"):
        layer(torch.zeros(2, 5))
    with pytest.raises(ParameterError, match="out_dim"):
        PoincareLinear(PoincareBall(), 5, 0)
