"""One token at a time against plain Python loops over the formulas, and against the recurrence of a sequence."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.scan import reference
from workbench.scan.steps import selective_scan_step, ssd_step

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def selective_arguments(b: int, L: int, d: int, n: int, dtype: torch.dtype = DOUBLE) -> dict:
    shapes = {"u": (b, L, d), "delta": (b, L, d), "z": (b, L, d), "B": (b, L, n), "C": (b, L, n)}
    shapes |= {"D": (d,), "delta_bias": (d,), "A": (d, n)}
    args = {name: draw(*shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(shapes.items())}
    return args | {"A": -args["A"].exp()}


def ssd_arguments(b: int, L: int, h: int, p: int, n: int, g: int, wide_D: bool = False) -> dict:
    shapes = {"x": (b, L, h, p), "z": (b, L, h, p), "dt": (b, L, h), "B": (b, L, g, n), "C": (b, L, g, n)}
    shapes |= {"D": (h, p) if wide_D else (h,), "dt_bias": (h,), "A": (h,)}
    args = {name: draw(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return args | {"A": -args["A"].exp()}


def at(args: dict, t: int) -> dict:
    """The arguments of step t."""
    timed = ("u", "x", "delta", "dt", "z", "B", "C", "delta_decay", "log_decay")
    return {name: v[:, t] if name in timed and v.dim() > 2 else v for name, v in args.items()}


def softplus(v: float) -> float:
    return math.log1p(math.exp(-abs(v))) + max(v, 0.0)


def silu(v: float) -> float:
    return v / (1 + math.exp(-v))


def test_a_selective_step_is_its_formula():
    b, d, n = 2, 3, 4
    a = at(selective_arguments(b, 1, d, n), 0)
    state = draw(b, d, n, seed=20)
    out, new = selective_scan_step(state, **a, softplus=True)
    v = {name: t.tolist() for name, t in a.items()}
    for i in range(b):
        for c in range(d):
            step = softplus(v["delta"][i][c] + v["delta_bias"][c])
            y = v["D"][c] * v["u"][i][c]
            for k in range(n):
                h = math.exp(step * v["A"][c][k]) * state[i, c, k].item()
                h += step * v["u"][i][c] * v["B"][i][k]
                assert new[i, c, k].item() == pytest.approx(h, rel=1e-13)
                y += h * v["C"][i][k]
            assert out[i, c].item() == pytest.approx(y * silu(v["z"][i][c]), rel=1e-12)


@pytest.mark.parametrize("wide_D", [False, True])
def test_an_ssd_step_is_its_formula_with_groups_and_the_limit_on_the_step(wide_D):
    b, h, p, n, g, low, high = 2, 4, 3, 5, 2, 0.4, 1.1
    a = at(ssd_arguments(b, 1, h, p, n, g, wide_D), 0)
    state = draw(b, h, p, n, seed=20)
    y, new = ssd_step(state, **a, softplus=True, dt_limit=(low, high))
    v = {name: t.tolist() for name, t in a.items()}
    clamped = 0
    for i in range(b):
        for j in range(h):
            free = softplus(v["dt"][i][j] + v["dt_bias"][j])
            step = min(max(free, low), high)
            clamped += step != free
            for q in range(p):
                x = v["x"][i][j][q]
                want = (v["D"][j][q] if wide_D else v["D"][j]) * x
                for k in range(n):
                    s = math.exp(step * v["A"][j]) * state[i, j, q, k].item()
                    s += step * x * v["B"][i][j // (h // g)][k]
                    assert new[i, j, q, k].item() == pytest.approx(s, rel=1e-12)
                    want += s * v["C"][i][j // (h // g)][k]
                assert y[i, j, q].item() == pytest.approx(want * silu(v["z"][i][j][q]), rel=1e-11)
    assert clamped  # the limit was met


@settings(max_examples=25, deadline=None)
@given(L=st.integers(1, 7), d=st.integers(1, 4), n=st.integers(1, 4), constant=st.booleans())
def test_selective_steps_one_after_another_are_the_scan(L, d, n, constant):
    b = d + 1  # where b = d, a matrix (d, n) would be read as one row a sequence
    args = selective_arguments(b, L, d, n) | {"delta_decay": draw(b, L, d, seed=30).abs()}
    if constant:
        args |= {"B": draw(d, n, seed=31), "C": draw(d, n, seed=32)}
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    first = draw(b, d, n, seed=33)
    whole, last = reference.scan_reference(*(args[k] for k in names), first, args["delta_decay"], True)
    state, outs = first, []
    for t in range(L):
        out, state = selective_scan_step(state, **at(args, t), softplus=True)
        outs.append(out)
    torch.testing.assert_close(torch.stack(outs, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    assert torch.equal(first, draw(b, d, n, seed=33))  # a step leaves the state it is given alone


@settings(max_examples=25, deadline=None)
@given(L=st.integers(1, 6), g=st.integers(1, 3), own_decay=st.booleans())
def test_ssd_steps_one_after_another_are_the_scan(L, g, own_decay):
    b, h, p, n, limit = 2, 2 * g, 3, 4, (0.3, 1.5)
    args = ssd_arguments(b, L, h, p, n, g)
    if own_decay:
        args["log_decay"] = -draw(b, L, h, seed=30).abs()
    names = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias")
    first = draw(b, h, p, n, seed=33)
    inputs = (args[k] for k in names)
    whole, last = reference.ssd_reference(*inputs, first, args.get("log_decay"), None, True, limit)
    state, ys = first, []
    for t in range(L):
        y, state = ssd_step(state, **at(args, t), softplus=True, dt_limit=limit)
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)


def test_gradients_of_a_step_reach_every_argument():
    a = at(selective_arguments(2, 1, 2, 3), 0)
    names = list(a)
    inputs = [draw(2, 2, 3, seed=9), *a.values()]
    for t in inputs:
        t.requires_grad_()

    def step(state, *values):
        return selective_scan_step(state, **dict(zip(names, values, strict=True)), softplus=True)

    assert torch.autograd.gradcheck(step, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_state_is_float32_for_half_precision_and_under_autocast(dtype):
    a = at(selective_arguments(2, 1, 3, 4, dtype), 0)
    state = torch.zeros(2, 3, 4)
    plain = selective_scan_step(state, **a, softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, new = selective_scan_step(state, **a, softplus=True)
    assert out.dtype == dtype
    assert new.dtype == torch.float32
    assert torch.equal(out, plain[0])
    assert torch.equal(new, plain[1])


def test_wrong_arguments_are_named_with_the_shape_they_should_have():
    a = at(selective_arguments(2, 1, 3, 4), 0)
    state = torch.zeros(2, 3, 4, dtype=DOUBLE)
    with pytest.raises(ParameterError, match=r"state should have shape \(b, d, n\) = \(2, 3, n\)"):
        selective_scan_step(state[0], **a)
    with pytest.raises(ParameterError, match=r"B should have shape \(b, n\) = \(2, 4\), but has \(2, 5\)"):
        selective_scan_step(state, **a | {"B": draw(2, 5)})
    with pytest.raises(ParameterError, match="A should be negative"):
        selective_scan_step(state, **a | {"A": -a["A"]})
    with pytest.raises(ParameterError, match="u should be finite"):
        selective_scan_step(state, **a | {"u": a["u"] * math.nan})
    with pytest.raises(ParameterError, match="float64 does not mix"):
        selective_scan_step(state.float(), **a)

    a = at(ssd_arguments(2, 1, 4, 3, 5, 2), 0)
    state = torch.zeros(2, 4, 3, 5, dtype=DOUBLE)
    with pytest.raises(ParameterError, match=r"state should have shape"):
        ssd_step(state[:, :3], **a)
    with pytest.raises(ParameterError, match="groups of B and C should divide the 4 heads, but are 3"):
        ssd_step(state, **a | {"B": draw(2, 3, 5), "C": draw(2, 3, 5)})
    with pytest.raises(ParameterError, match="dt_limit"):
        ssd_step(state, **a, dt_limit=(1.0, 0.5))
