"""HoPE's propositions as numbers, and YaRN's angles spelled out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.hope import HoPE, Yarn, frequencies, rotate
from workbench.nn.lorentz import lift

DOUBLE = torch.float64
D = 64


def draw(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def turned(x: torch.Tensor, positions: torch.Tensor, hope: HoPE) -> torch.Tensor:
    """Each row of x (L, d) at its position."""
    return rotate(x[None, None], hope(positions, DOUBLE))[0, 0]


def scores(q: torch.Tensor, k: torch.Tensor, c: float) -> torch.Tensor:
    """-d² with the squared Lorentzian distance."""
    q, k = lift(q, c), lift(k, c)
    return 2 / c + 2 * (q[:, 1:] @ k[:, 1:].T - q[:, :1] @ k[:, :1].T)


def test_it_turns_pairs_by_position_times_angle():
    x, at = draw(3, D), torch.tensor([0, 5, 77])
    y = turned(x, at, HoPE(D, 100))
    for row, position in enumerate(at.tolist()):
        for plane in (0, 1, 13, 31):
            z = complex(x[row, plane], x[row, plane + D // 2])
            w = z * complex(
                math.cos(position * 10000 ** (-2 * plane / D)), math.sin(position * 10000 ** (-2 * plane / D))
            )
            assert abs(w - complex(y[row, plane], y[row, plane + D // 2])) < 1e-12


def test_it_is_an_isometry_that_keeps_the_origin_and_all_time_coordinates():
    hope, at = HoPE(D, 50), torch.full((6,), 31)
    x, y = draw(6, D, size=2), draw(6, D, seed=1, size=2)
    a, b = turned(x, at, hope), turned(y, at, hope)
    torch.testing.assert_close(lift(a, 0.5)[:, 0], lift(x, 0.5)[:, 0], rtol=1e-14, atol=0)
    space = Lorentz(0.5)
    torch.testing.assert_close(space.dist(lift(a, 0.5), lift(b, 0.5)), space.dist(lift(x, 0.5), lift(y, 0.5)))
    assert not turned(torch.zeros(1, D, dtype=DOUBLE), torch.tensor([9]), hope).any()


@settings(max_examples=20, deadline=None)
@given(shift=st.sampled_from([1, 7, 1000]), c=st.sampled_from([0.3, 1.0, 4.0]), seed=st.integers(0, 99))
def test_scores_depend_on_the_difference_of_positions_only(shift, c, seed):
    """Proposition 4.1."""
    hope, at = HoPE(D, 1100), torch.arange(8)
    q, k = draw(8, D, seed=seed), draw(8, D, seed=seed + 100)
    here = scores(turned(q, at, hope), turned(k, at, hope), c)
    there = scores(turned(q, at + shift, hope), turned(k, at + shift, hope), c)
    torch.testing.assert_close(there, here, rtol=0, atol=2e-11)


def test_the_envelope_of_scores_decays_with_distance():
    """Proposition 4.2: means over prefixes of |Σ exp(i r θ_l)|, which bound what a distance r can give."""
    angles = frequencies(D)
    envelope = [
        torch.polar(torch.ones(D // 2, dtype=DOUBLE), r * angles).cumsum(0).abs().mean().item()
        for r in (1, 2, 4, 8, 16, 64, 256)
    ]
    assert envelope == sorted(envelope, reverse=True)
    assert envelope == pytest.approx([15.95, 14.48, 11.14, 9.92, 7.65, 5.70, 3.84], abs=0.01)


@pytest.mark.parametrize("r", [0, 1, 5, 17, 60])
def test_attention_can_peak_at_any_distance(r):
    """Proposition 4.3: with k turned forward by r, the best key is r back, at distance 0."""
    hope, length = HoPE(D, 200), 100
    q = draw(1, D, size=2).expand(length, D)
    at = torch.arange(length)
    s = scores(turned(q, at, hope), turned(turned(q, torch.full((length,), r), hope), at, hope), 1.0)
    best = s.tril().masked_fill(torch.ones_like(s).triu(1).bool(), -math.inf)[r:]
    assert torch.equal(best.argmax(-1), at[r:] - r)
    assert best.max(-1).values.abs().max() < 1e-10


@pytest.mark.parametrize("r", [0, 1])
def test_diagonal_and_off_diagonal_patterns_sharpen_with_the_radius(r):
    """Proposition 4.4: all tokens equal, causal softmax; the least probability at distance r goes to 1."""
    hope, length = HoPE(D, 100), 30
    psi, at = torch.full((length, D), D**-0.5, dtype=DOUBLE), torch.arange(length)
    least = []
    for size in (1, 4, 8, 16):
        q = turned(size * psi, at, hope)
        k = turned(size * psi, at + r, hope)
        s = scores(q, k, 1.0).masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
        p = s.softmax(-1)
        least.append(float(p.diagonal(-r).min()))
    assert least == sorted(least) and least[0] < 0.1 and least[-1] > 0.999


def test_yarn_slows_slow_planes_keeps_fast_ones_and_ramps_between():
    yarn = Yarn(original=2048, factor=40)
    plain, slowed = frequencies(D), frequencies(D, yarn=yarn)
    low = math.floor(D * math.log(2048 / (32 * 2 * math.pi)) / (2 * math.log(10000)))
    high = math.ceil(D * math.log(2048 / (2 * math.pi)) / (2 * math.log(10000)))
    torch.testing.assert_close(slowed[: low + 1], plain[: low + 1])
    torch.testing.assert_close(slowed[high:], plain[high:] / 40)
    ratio = (slowed / plain)[low : high + 1]
    torch.testing.assert_close(ratio.diff(), torch.full_like(ratio[1:], -(1 - 1 / 40) / (high - low)))
    assert yarn.sharpness == pytest.approx((1 + 0.1 * math.log(40)) ** 2)
    torch.testing.assert_close(frequencies(D, yarn=Yarn(factor=1)), plain)


def test_angles_stay_exact_when_the_module_is_cast():
    hope = HoPE(8, 20).bfloat16()
    assert hope.cos.dtype == DOUBLE and not hope.state_dict()
    assert (
        hope(torch.arange(3)).cos.shape == (1, 1, 3, 4) and hope(torch.arange(3)).cos.dtype == torch.float32
    )
    x = draw(2, 3, 5, 8).bfloat16()
    assert rotate(x, hope(torch.arange(5))).dtype == torch.float32


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: HoPE(7, 10), "must be even, but is 7"),
        (lambda: HoPE(8, 10, theta=1.0), "theta must be above 1"),
        (lambda: Yarn(factor=0.5), "factor of at least 1"),
        (lambda: Yarn(beta_fast=1, beta_slow=2), "beta_slow < beta_fast"),
    ],
)
def test_nonsense_is_named(make, match):
    with pytest.raises(ParameterError, match=match):
        make()
