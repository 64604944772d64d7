"""Entailment cones against the formulas in ball coordinates of the paper, and elementary geometry."""

import math

import pytest
import torch

from workbench.manifolds import Euclidean, Lorentz, PoincareBall, poincare_to_lorentz
from workbench.models import cone_energy, half_aperture, outward_angle


def ball_points(seed, n=50):
    return PoincareBall().random(
        n, 3, radius=4.0, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def paper_angle(x, y):
    """Ganea et al. 2018, eq. 28, in ball coordinates of curvature -1."""
    xx, yy, xy = x.square().sum(-1), y.square().sum(-1), (x * y).sum(-1)
    difference = (x - y).square().sum(-1).sqrt()
    root = (1 + xx * yy - 2 * xy).sqrt()
    return torch.acos((xy * (1 + xx) - xx * (1 + yy)) / (xx.sqrt() * difference * root))


def test_angle_is_the_papers_in_ball_coordinates():
    x, y = ball_points(0), ball_points(1)
    torch.testing.assert_close(outward_angle(PoincareBall(), x, y), paper_angle(x, y), rtol=1e-7, atol=1e-7)


def test_aperture_is_the_papers_in_ball_coordinates():
    x = ball_points(2)
    norm = x.norm(dim=-1)
    x, norm = x[norm > 0.2], norm[norm > 0.2]
    expected = torch.asin(0.1 * (1 - norm**2) / norm)
    torch.testing.assert_close(half_aperture(PoincareBall(), x), expected, rtol=1e-10, atol=1e-12)


def test_both_charts_agree():
    x, y = ball_points(3), ball_points(4)
    ours = cone_energy(Lorentz(), poincare_to_lorentz(x, 1.0), poincare_to_lorentz(y, 1.0))
    torch.testing.assert_close(ours, cone_energy(PoincareBall(), x, y), rtol=1e-9, atol=1e-9)


def test_flat_angle_is_that_of_vectors():
    u, v = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 2.0]).double()
    assert float(outward_angle(Euclidean(), u, v)) == pytest.approx(math.pi / 2)


def test_cones_are_transitive():
    """v in the cone of u and w in that of v put w in that of u (the paper's theorem 1)."""
    m, wide = PoincareBall(), 0.4
    generator = torch.Generator().manual_seed(5)
    u = m.from_tangent(torch.tensor([1.0, 0.0]).double().expand(4000, 2))
    v = m.add(u, m.random(4000, 2, generator=generator, dtype=torch.float64))
    v = v[cone_energy(m, u, v, wide) == 0]
    w = m.add(v, m.random(len(v), 2, generator=generator, dtype=torch.float64))
    below = cone_energy(m, v, w, wide) == 0
    assert below.sum() > 20
    assert cone_energy(m, u[: len(v)][below], w[below], wide).max() < 1e-9


@pytest.mark.parametrize("manifold", [Euclidean(), PoincareBall(), Lorentz(2.0)], ids=repr)
def test_gradient_is_finite_at_the_origin_and_for_coincident_points(manifold):
    x = manifold.random(6, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x[0] = manifold.origin(x.shape[1], dtype=torch.float64)
    y = x.flip(0).clone()
    y[2] = x[2]
    y[0] = manifold.geodesic(torch.tensor(2.0).double(), x[0], x[1])
    leaf = x.clone().requires_grad_()
    energy = cone_energy(manifold, leaf, y) + (0.3 - cone_energy(manifold, y, leaf)).relu()
    energy.sum().backward()
    assert torch.isfinite(energy).all() and torch.isfinite(leaf.grad).all()
