"""Gradients: right by finite differences, finite where formulas are singular, and through the curvature."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from workbench.manifolds import lorentz_to_poincare, make, poincare_to_lorentz

CURVED = ("poincare", "lorentz")
ALL = (*CURVED, "euclidean")


class Holder(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.m = make(name, 0.7, learnable=True)

    def forward(self, f, *args):
        return f(self.m, *args)


def checks(name, f, *inputs, twice=True):
    """gradcheck of f(manifold, *inputs), in the inputs and in log c."""
    holder = Holder(name)
    inputs = [x.clone().requires_grad_() for x in inputs]
    if name == "euclidean":
        args, g = inputs, lambda *xs: f(holder.m, *xs)
    else:
        args = [holder.m.log_c.detach().clone().requires_grad_(), *inputs]
        g = lambda log_c, *xs: torch.func.functional_call(holder, {"m.log_c": log_c}, (f, *xs))  # noqa: E731
    assert gradcheck(g, args, atol=1e-6, rtol=1e-4)
    assert not twice or gradgradcheck(g, args, atol=1e-5, rtol=1e-3)


OPERATIONS = {
    "dist": lambda m, v, w: m.dist(m.from_tangent(v), m.from_tangent(w)),
    "cdist": lambda m, v, w: m.cdist(m.from_tangent(v), m.from_tangent(w)),
    "dist0": lambda m, v, w: m.dist0(m.add(m.from_tangent(v), m.from_tangent(w))),
    "to_tangent": lambda m, v, w: m.to_tangent(m.from_tangent(v)),
    "logmap": lambda m, v, w: m.logmap(m.from_tangent(v), m.from_tangent(w)),
    "expmap": lambda m, v, w: m.expmap(
        m.from_tangent(v), torch.nn.functional.pad(w, (m.ambient_dim(2) - 2, 0))
    ),
    "add across": lambda m, v, w: m.add(m.from_tangent(v), m.from_tangent(0.1 * w - v)),
    "transp": lambda m, v, w: m.transp(*(m.from_tangent(x) for x in (v, w)), m.logmap0(m.from_tangent(w))),
    "geodesic": lambda m, v, w: m.geodesic(0.3, m.from_tangent(v), m.from_tangent(w)),
    "scale": lambda m, v, w: m.scale(1.3, m.from_tangent(v)),
    "centroid": lambda m, v, w: m.centroid(torch.stack([m.from_tangent(v), m.from_tangent(w)], -2)),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("spread", (0.0, 0.3, 2.0), ids=("at the origin", "near", "far"))
def test_gradients_match_finite_differences(name, operation, spread):
    g = torch.Generator().manual_seed(3)
    v, w = torch.randn(2, 2, 2, generator=g, dtype=torch.float64)
    checks(name, OPERATIONS[operation], v * spread, w * max(spread, 0.5), twice=spread == 0.3)


def test_conversions_are_differentiable_in_points_and_curvature():
    x = (0.3 * torch.randn(3, 2, dtype=torch.float64)).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, c: poincare_to_lorentz(x, c), (x, c))
    assert gradcheck(lambda x, c: lorentz_to_poincare(poincare_to_lorentz(x, 0.5), c), (x, c))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
@pytest.mark.parametrize("radius", (0.0, 1e-30, 1e-3, 1.0, 14.0, 40.0, 300.0))
def test_gradients_are_finite_at_every_radius_and_at_coincident_points(name, dtype, radius):
    m = make(name, 0.7, learnable=True)
    v = torch.tensor([[0.6, 0.8], [0.6, 0.8], [-0.6, -0.8], [0.8, -0.6]], dtype=dtype) * radius
    v.requires_grad_()
    x = m.from_tangent(v)
    y = x.roll(1, 0)  # row 1 meets its twin
    for value in (
        m.dist(x, y),
        m.dist(x, x),
        m.dist0(x),
        m.cdist(x, x),
        m.to_tangent(x),
        m.logmap(x, y),
        m.add(x, m.neg(y)),
        m.geodesic(0.5, x, y),
        m.expmap(x, m.logmap(x, x)),
        m.scale(0.5, x),
        m.centroid(x),
    ):
        if not torch.isfinite(value).all():  # coordinates themselves end: float32 tangent vectors far out
            assert name == "lorentz" and radius == 300
            continue
        wrt = [v, *m.parameters()]
        for g in torch.autograd.grad(value.double().sum(), wrt, retain_graph=True, allow_unused=True):
            assert g is None or torch.isfinite(g).all()


@pytest.mark.parametrize("name", ALL)
def test_distance_of_a_point_to_itself_has_gradient_zero(name):
    m = make(name)
    x = m.from_tangent(torch.randn(4, 3)).requires_grad_()
    for value in (m.dist(x, x.detach()), m.cdist(x[:1], x[:1].detach())):
        (g,) = torch.autograd.grad(value.sum(), x)
        assert (g.abs() < 1e-3).all()
    (g,) = torch.autograd.grad(m.dist(x, x.detach()).sum(), x)
    assert (g == 0).all()


@pytest.mark.parametrize("name", CURVED)
def test_points_rounded_onto_the_boundary_or_beyond_give_finite_numbers(name):
    if name == "lorentz":
        x = torch.tensor([[1.0, 1e18, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    else:
        x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.1, 0.0], [0.0, 0.0]], requires_grad=True)
    m = make(name)
    for value in (m.dist(x, x.flip(0)), m.dist0(x), m.to_tangent(x), m.projx(x), m.logmap(x, x.flip(0))):
        assert torch.isfinite(value).all()
        (g,) = torch.autograd.grad(value.double().sum(), x, retain_graph=True)
        assert torch.isfinite(g).all()
