"""The exercises of lesson 4 against PoincareBall and autograd."""

import torch

from workbench.lessons import check
from workbench.manifolds import PoincareBall

BALL = PoincareBall(c=1.0)


def by_the_ball(z, g, rate):
    x, u = (torch.tensor([p.real, p.imag], dtype=torch.float64) for p in (z, g))
    return complex(*BALL.expmap(x, -rate * BALL.egrad2rgrad(x, u)).tolist())


def test_right_answers_pass():
    x = torch.tensor([0.9, 0.0], dtype=torch.float64)
    assert check("4.1", float(BALL.egrad2rgrad(x, torch.ones_like(x))[1]))
    assert check("4.2", by_the_ball)


def test_half_the_gradient_of_a_squared_distance_leads_to_the_other_point():
    y, x = BALL.from_tangent(torch.tensor([[0.4, 1.0], [-1.0, 0.3]], dtype=torch.float64))
    x = BALL.expmap(y, BALL.logmap(y, x) * 3 / BALL.dist(x, y)).requires_grad_()
    (g,) = torch.autograd.grad(BALL.dist(x, y).square(), x)
    end = BALL.expmap(x.detach(), -0.5 * BALL.egrad2rgrad(x.detach(), g))
    assert float(BALL.dist(end, y)) < 1e-7 and check("4.3", 0.5)
