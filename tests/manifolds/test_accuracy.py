"""Relative error against sixty digits, at the coordinates the functions were given."""

import importlib.util
from pathlib import Path

import pytest
import torch

from workbench.manifolds import lorentz_to_poincare, make, poincare_to_lorentz

spec = importlib.util.spec_from_file_location("truth", Path(__file__).with_name("truth.py"))
truth = importlib.util.module_from_spec(spec)
spec.loader.exec_module(truth)

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
# dimensionless radii up to where float32 and float64 balls end
RADII = {
    torch.float32: (1e-4, 0.3, 2.0, 6.0, 10.0, 15.0),
    torch.float64: (1e-9, 0.3, 2.0, 6.0, 12.0, 20.0, 28.0, 34.0),
}
CURVATURES = (1.0, 1e-6, 1e4, 0.7)


def directions(d: int, n: int, seed: int) -> torch.Tensor:
    v = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return v / v.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
@pytest.mark.parametrize("name", ("poincare", "lorentz"))
def test_distances_and_maps_at_the_origin_are_right_to_the_last_radius(name, dtype, c):
    m = make(name, c)
    worst = {}
    for i, radius in enumerate(RADII[dtype]):
        d = (2, 3, 10)[i % 3]
        u, w = directions(d, 2, seed=i)
        base = m.from_tangent(u * (radius / c**0.5))
        others = {
            "far": m.from_tangent(w * (radius / c**0.5)),
            "radial": m.from_tangent(u * (radius * 0.9 / c**0.5)),
            "opposite": m.from_tangent(-0.7 * u * (radius / c**0.5)),
            **{f"near {h}": m.add(base, m.from_tangent(w * (h / c**0.5))) for h in (1e-7, 1e-3, 0.14)},
        }
        x = base.to(dtype)
        for kind, y in others.items():
            y = y.to(dtype)
            true = truth.dist(name, x, y, c)
            if true > 0:
                worst[f"dist {kind} at {radius}"] = truth.error(m.dist(x, y), true)
        worst[f"dist0 at {radius}"] = truth.error(m.dist0(x), truth.dist0(name, x, c))
        worst[f"to_tangent at {radius}"] = truth.error(m.to_tangent(x), truth.to_tangent(name, x, c))
        v = (u * (radius / c**0.5)).to(dtype)
        spatial = m.from_tangent(v)[1:] if name == "lorentz" else m.from_tangent(v)
        worst[f"from_tangent at {radius}"] = truth.error(spatial, truth.from_tangent(name, v, c))
    assert {k: e for k, e in worst.items() if e > TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
def test_conversions_are_right_to_the_last_radius(dtype, c):
    ball, hyperboloid = make("poincare", c), make("lorentz", c)
    for i, radius in enumerate(RADII[dtype]):
        v = directions(3, 1, seed=i)[0] * (radius / c**0.5)
        x, y = ball.from_tangent(v).to(dtype), hyperboloid.from_tangent(v).to(dtype)
        a, c_exact = truth.exact(x), truth.mp.mpf(c)
        gap = 1 - c_exact * truth.square(a)
        true = [(2 - gap) / gap / truth.mp.sqrt(c_exact), *(2 * t / gap for t in a)]
        assert truth.error(poincare_to_lorentz(x, c), true) < TOLERANCE[dtype]
        assert truth.error(lorentz_to_poincare(y, c), truth.to_ball("lorentz", y, c)) < TOLERANCE[dtype]


@pytest.mark.parametrize("radius", (50.0, 80.0))
def test_float32_hyperboloid_holds_radii_far_beyond_the_ball(radius):
    m = make("lorentz")
    u, w = directions(5, 2, seed=0)
    x, y = m.from_tangent((u * radius).float()), m.from_tangent((w * radius).float())
    assert truth.error(m.dist(x, y), truth.dist("lorentz", x, y, 1.0)) < 1e-6
    assert truth.error(m.dist0(x), truth.dist0("lorentz", x, 1.0)) < 1e-6


def test_float64_hyperboloid_holds_radius_340():
    m = make("lorentz")
    u, w = directions(5, 2, seed=0)
    x, y = m.from_tangent(u * 340), m.from_tangent(w * 340)
    assert truth.error(m.dist0(x), truth.dist0("lorentz", x, 1.0)) < 1e-12
    assert torch.isfinite(m.dist(x, y))
    assert abs(float(m.dist(x, y)) / 680 - 1) < 0.01


@pytest.mark.parametrize("name", ("poincare", "lorentz", "euclidean"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
def test_cdist_keeps_the_accuracy_its_docstring_states(name, dtype):
    m = make(name)
    for radius in (0.5, 5.0, 8.0):
        u = directions(5, 6, seed=3)
        x = m.from_tangent(u * radius).to(dtype)
        y = m.add(m.from_tangent(u * radius), m.from_tangent(directions(5, 6, seed=4) * 0.14)).to(dtype)
        true = torch.tensor([[float(truth.dist(name, a, b, 1.0)) for b in y] for a in x], dtype=torch.float64)
        product = (m.cdist(x, y).double() / true - 1).abs()
        differences = (m.cdist(x, y, exact=True).double() / true - 1).abs()
        rounding = TOLERANCE[dtype] / (10 if dtype == torch.float32 else 1)
        growth = 1.0 if name == "euclidean" else torch.exp(torch.tensor(2.0 * radius))
        assert (product <= rounding + 1e-15 * growth / true**2).all()
        assert (differences <= rounding + 1e-15 * growth**0.5 / true).all()


def test_float32_cdist_of_near_pairs_is_good_to_1e_6_at_radius_9():
    m = make("poincare")
    u = directions(10, 20, seed=1)
    x = m.from_tangent(u * 9).float()
    y = m.add(x, m.from_tangent(directions(10, 20, seed=2) * 0.5).float())
    true = torch.tensor([float(truth.dist("poincare", a, b, 1.0)) for a, b in zip(x, y, strict=True)])
    assert ((m.cdist(x, y).diagonal() / true - 1).abs() < 1e-6).all()


@pytest.mark.parametrize("name", ("poincare", "lorentz"))
@pytest.mark.parametrize("radius", (1.0, 10.0, 20.0))
def test_centroid_of_a_small_cluster_far_out_does_not_cancel(name, radius):
    """Oracle: the ambient mean at sixty digits."""
    m, mp = make(name), truth.mp
    centre = m.from_tangent(directions(3, 1, seed=0) * radius)
    x = m.add(centre, m.from_tangent(directions(3, 7, seed=1)))
    w = torch.arange(1, 8, dtype=torch.float64)
    total = [mp.mpf(0)] * 4
    for weight, point in zip(w.tolist(), x, strict=True):
        a = truth.to_ball(name, point, 1.0)
        gap = 1 - truth.square(a)
        lifted = [(2 - gap) / gap, *(2 * t / gap for t in a)]
        total = [s + weight * t for s, t in zip(total, lifted, strict=True)]
    mass = mp.sqrt(total[0] ** 2 - truth.square(total[1:]))
    true = [t / (total[0] + mass) for t in total[1:]]
    got = truth.to_ball(name, m.centroid(x, w), 1.0)
    off = truth.square([a - b for a, b in zip(got, true, strict=True)])
    error = 2 * mp.asinh(mp.sqrt(off / ((1 - truth.square(got)) * (1 - truth.square(true)))))
    # as a distance: a few roundings of the coordinates, which move a point by about 1e-16·exp(radius)
    assert error < 1e-14 + 3e-16 * mp.exp(radius)


def test_translation_back_to_the_origin_is_exact_for_nearby_points():
    m = make("lorentz")
    base = m.from_tangent(directions(4, 1, seed=0)[0] * 15)
    assert m.dist0(m.translate_to_origin(base, base)) < 1e-15
    x = m.from_tangent(directions(4, 1, seed=0)[0] * 16)
    assert abs(float(m.dist0(m.translate_to_origin(x, base))) - 1) < 1e-9
