"""HiM's losses and score: those of naive formulas at high precision, in both charts and in every curvature."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, make
from workbench.models.him_losses import (
    TINY,
    centripetal,
    clustering,
    contrastive,
    distance,
    him_loss,
    radius,
    subsumption,
)

SPACES = ("poincare", "lorentz", "euclidean")
CURVED = SPACES[:2]


def tangents(n=7, m=3, d=3, seed=0, scale=2.0):
    """Tangent vectors of children, parents and wrong parents."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: scale * torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return draw(n, d), draw(n, d), draw(n, m, d)


def points(manifold, **settings):
    return [manifold.from_tangent(v) for v in tangents(**settings)]


def exact_distance(u, v, c):
    """Distance in unit curvature of the points at tangent vectors u and v, by the hyperbolic law of cosines."""
    a, b = (mpmath.sqrt(c * mpmath.fsum(mpmath.mpf(t) ** 2 for t in w.tolist())) for w in (u, v))
    inner = c * mpmath.fsum(mpmath.mpf(s) * t for s, t in zip(u.tolist(), v.tolist(), strict=True))
    return mpmath.acosh(mpmath.cosh(a) * mpmath.cosh(b) - mpmath.sinh(a) * mpmath.sinh(b) * inner / (a * b))


def exact_radius(u, c):
    return mpmath.sqrt(c * mpmath.fsum(mpmath.mpf(t) ** 2 for t in u.tolist()))


@pytest.mark.parametrize("c", [0.25, 1.0, 7.0])
@pytest.mark.parametrize("space", CURVED)
def test_losses_and_score_are_those_of_the_law_of_cosines_at_fifty_digits(space, c):
    manifold = make(space, c)
    v = tangents(n=4, m=2)
    child, parent, wrong = (manifold.from_tangent(t) for t in v)
    relu = lambda t: max(t, mpmath.mpf(0))  # noqa: E731
    mean = lambda terms: mpmath.fsum(terms) / len(terms)  # noqa: E731
    with mpmath.workdps(50):
        right = [exact_distance(x, y, c) for x, y in zip(v[0], v[1], strict=True)]
        far = [[exact_distance(x, y, c) for y in ys] for x, ys in zip(v[0], v[2], strict=True)]
        r0, r1 = ([exact_radius(x, c) for x in t] for t in v[:2])
        both = list(zip(r1, r0, strict=True))
        expected = {
            "clustering": mean([relu(right[i] - f + 2) for i in range(4) for f in far[i]]),
            "contrastive": mean([relu(d - 1) for d in right])
            + mean([relu(9 - f) for row in far for f in row]),
            "linear": mean([relu(p - e + mpmath.mpf(0.2)) for p, e in both]),
            "log": mean([relu(mpmath.log((p + TINY) / (e + TINY)) + mpmath.mpf(0.2)) for p, e in both]),
            "score": right[0] + mpmath.mpf(0.7) * (r1[0] - r0[0]),
        }
    got = {
        "clustering": clustering(manifold, child, parent, wrong, 2),
        "contrastive": contrastive(manifold, child, parent, wrong, 1, 9),
        "linear": centripetal(manifold, child, parent, 0.2),
        "log": centripetal(manifold, child, parent, 0.2, "log"),
        "score": subsumption(manifold, child, parent, 0.7)[0],
    }
    for name, value in got.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-12), name


@pytest.mark.parametrize("how", [{}, {"loss": "contrastive"}, {"centripetal": "log"}])
@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.1, 10), seed=st.integers(0, 1000))
def test_losses_are_the_same_in_both_charts_and_whatever_the_curvature(how, factor, seed):
    ball, sheet, other = PoincareBall(1.0), Lorentz(1.0), Lorentz(factor**2)
    v = tangents(seed=seed)
    first = him_loss(ball, *[ball.from_tangent(t) for t in v], **how)[0]
    assert torch.allclose(him_loss(sheet, *[sheet.from_tangent(t) for t in v], **how)[0], first, rtol=1e-11)
    shrunk = him_loss(other, *[other.from_tangent(t / factor) for t in v], **how)[0]
    assert torch.allclose(shrunk, first, rtol=1e-11)


def test_in_flat_space_losses_are_plain_vector_arithmetic():
    manifold, (e, p, w) = Euclidean(), tangents()
    right, wrong = (e - p).norm(dim=-1), (e[:, None] - w).norm(dim=-1)
    first = (right[:, None] - wrong + 2).clamp_min(0).mean()
    second = (p.norm(dim=-1) - e.norm(dim=-1) + 0.2).clamp_min(0).mean()
    total, parts = him_loss(manifold, e, p, w, weight=0.5)
    assert torch.allclose(parts["clustering"], first) and torch.allclose(parts["centripetal"], second)
    assert torch.allclose(total, first + 0.5 * second)
    score = right + 0.3 * (p.norm(dim=-1) - e.norm(dim=-1))
    assert torch.allclose(subsumption(manifold, e, p, 0.3), score)


def test_the_log_form_asks_for_a_ratio_of_radii_whatever_the_curvature():
    for c in (0.1, 1.0, 30.0):
        manifold = PoincareBall(c)
        parent = torch.tensor([[0.3, 0.4]], dtype=torch.float64) / c**0.5
        for ratio, satisfied in ((1.1, False), (1.3, True)):  # e^0.2 = 1.221
            child = manifold.from_tangent(ratio * parent)
            loss = centripetal(manifold, child, manifold.from_tangent(parent), 0.2, "log")
            assert (float(loss) == 0) == satisfied


@pytest.mark.parametrize("how", [{}, {"loss": "contrastive", "far": 5.0}, {"centripetal": "log"}])
@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_finite_where_all_points_coincide_and_at_the_origin(space, how):
    manifold = make(space, 1.0, True)
    for start in (torch.zeros(4, 2, dtype=torch.float64), torch.ones(4, 2, dtype=torch.float64)):
        v = start.clone().requires_grad_()
        x = manifold.from_tangent(v)
        total, _ = him_loss(manifold, x, x, x[:, None].expand(4, 3, -1), **how)
        total.backward()
        assert torch.isfinite(total) and torch.isfinite(v.grad).all()
        assert all(torch.isfinite(p.grad) for p in manifold.parameters() if p.grad is not None)


@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_the_slopes_of_the_loss(space):
    manifold, v = make(space, 1.7, True), [t.requires_grad_() for t in tangents(n=3, m=2, d=2)]

    def loss(*v):
        return him_loss(manifold, *[manifold.from_tangent(t) for t in v])[0]

    assert torch.autograd.gradcheck(loss, v)


@pytest.mark.parametrize("space", CURVED)
def test_the_curvature_gets_the_slope_of_the_loss_in_unit_curvature(space):
    manifold, v, h = make(space, 1.3, True), tangents(scale=0.8), 1e-6

    def loss(m):
        return him_loss(m, *[m.from_tangent(t) for t in v])[0]

    loss(manifold).backward()
    up, down = (float(loss(make(space, 1.3 * 2.718281828459045**s))) for s in (h, -h))
    assert float(manifold.log_c.grad) == pytest.approx((up - down) / (2 * h), rel=1e-6)


def test_distance_and_radius_are_lengths_times_the_root_of_the_curvature():
    manifold = PoincareBall(4.0)
    x, y, _ = points(manifold)
    assert torch.equal(distance(manifold, x, y), 2 * manifold.dist(x, y))
    assert torch.equal(radius(manifold, x), 2 * manifold.dist0(x))


def test_bad_settings_and_shapes_are_named():
    manifold = PoincareBall()
    child, parent, wrong = points(manifold)
    for call, text in (
        (lambda: him_loss(manifold, child, parent, wrong, loss="tripel"), "did you mean 'triplet'"),
        (lambda: him_loss(manifold, child, parent, wrong, centripetal="logarithm"), "linear, log"),
        (lambda: contrastive(manifold, child, parent, wrong, 3, 1), "near < far"),
        (lambda: clustering(manifold, child, parent, wrong[:, 0], 1.0), r"\(n, m, k\)"),
        (lambda: clustering(manifold, child, parent, wrong[:-1], 1.0), r"\(6, 3, 3\)"),
    ):
        with pytest.raises(ParameterError, match=text):
            call()
