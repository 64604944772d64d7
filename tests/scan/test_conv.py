"""The causal convolution against torch's own, and the gated norm against its formula in plain Python floats."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.scan.conv import causal_conv1d, rms_norm_gated

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def torch_conv(x, weight, bias, state=None):
    """The same from torch.nn.functional.conv1d: pad on the left, groups = channels."""
    k = weight.shape[-1]
    before = x.new_zeros(x.shape[0], k - 1, x.shape[2]) if state is None else state
    padded = torch.cat([before, x], 1).transpose(1, 2)
    return F.conv1d(padded, weight.reshape(-1, 1, k), bias, groups=weight.shape[0]).transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 3),
    L=st.integers(1, 9),
    c=st.integers(1, 5),
    k=st.integers(1, 6),
    silu=st.booleans(),
    with_state=st.booleans(),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_values_and_gradients_are_those_of_torch_conv1d(b, L, c, k, silu, with_state, with_bias, seed):
    inputs = [draw(b, L, c, seed=seed), draw(c, k, seed=seed + 1)]
    inputs += [draw(c, seed=seed + 2)] if with_bias else []
    inputs += [draw(b, k - 1, c, seed=seed + 3)] if with_state and k > 1 else []
    for t in inputs:
        t.requires_grad_()
    x, weight, *rest = inputs
    bias = rest.pop(0) if with_bias else None
    state = rest.pop() if rest else None
    ours = causal_conv1d(x, weight, bias, state, activation="silu" if silu else None)
    theirs = torch_conv(x, weight, bias, state)
    theirs = F.silu(theirs) if silu else theirs
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    out = draw(b, L, c, seed=seed + 4)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, out), torch.autograd.grad(theirs, inputs, out), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


def test_second_derivatives_pass_gradgradcheck():
    args = [draw(2, 5, 3), draw(3, 4, seed=1), draw(3, seed=2), draw(2, 3, 3, seed=3)]
    for t in args:
        t.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *a: causal_conv1d(*a, activation="silu"), args)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), k=st.integers(1, 5))
def test_a_sequence_may_be_cut_anywhere_also_into_pieces_shorter_than_the_kernel(lengths, k):
    x, weight, bias = draw(2, sum(lengths), 3), draw(3, k, seed=1), draw(3, seed=2)
    whole, end = causal_conv1d(x, weight, bias, activation="silu", return_state=True)
    pieces, state = [], None
    for piece in x.split(lengths, 1):
        y, state = causal_conv1d(piece, weight, bias, state, activation="silu", return_state=True)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-13, atol=1e-13)
    assert torch.equal(state, end)
    assert state.shape == (2, k - 1, 3)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), data=st.data())
def test_packed_sequences_equal_separate_ones_in_values_gradients_and_state(lengths, data):
    # Indices may come back after another sequence: it is the change that counts.
    ids = [0]
    for _ in lengths[1:]:
        ids.append(data.draw(st.integers(0, 2).filter(lambda i, last=ids[-1]: i != last)))
    seq_idx = torch.tensor([ids]).repeat_interleave(torch.tensor(lengths), 1)
    x = draw(1, sum(lengths), 3).requires_grad_()
    weight, bias, state = draw(3, 4, seed=1).requires_grad_(), draw(3, seed=2), draw(1, 3, 3, seed=3)
    out = draw(1, sum(lengths), 3, seed=4)

    packed, end = causal_conv1d(x, weight, bias, state, seq_idx=seq_idx, return_state=True)
    apart, before = [], state
    for piece in x.split(lengths, 1):
        y, last = causal_conv1d(piece, weight, bias, before, return_state=True)
        apart.append(y)
        before = None
    apart = torch.cat(apart, 1)
    torch.testing.assert_close(packed, apart, rtol=1e-13, atol=1e-13)
    assert torch.equal(end, last)
    grads = (torch.autograd.grad(y, (x, weight), out) for y in (packed, apart))
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_a_nan_does_not_leak_into_the_next_packed_sequence():
    x = draw(1, 8, 2)
    x[:, 3] = math.nan
    seq_idx = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    y = causal_conv1d(x, draw(2, 4), seq_idx=seq_idx)
    assert y[:, 3].isnan().all()
    assert y[:, 4:].isfinite().all()


def test_the_past_does_not_see_the_future_bitwise():
    x, weight = draw(2, 9, 3, dtype=torch.float32), draw(3, 4, seed=1, dtype=torch.float32)
    other = x.clone()
    other[:, 5] += 1
    y, y2 = (causal_conv1d(v, weight, activation="silu") for v in (x, other))
    assert torch.equal(y[:, :5], y2[:, :5])
    assert not torch.equal(y[:, 5:9], y2[:, 5:9])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32_and_returns_its_own_dtype(dtype):
    x, weight, bias = (draw(*s, seed=i).to(dtype) for i, s in enumerate([(2, 30, 4), (4, 4), (4,)]))
    y, state = causal_conv1d(x, weight.float(), bias.float(), return_state=True, activation="silu")
    exact = F.silu(torch_conv(x.double(), weight.double(), bias.double()))
    assert y.dtype == state.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol=0.51 * torch.finfo(dtype).eps, atol=1e-7)


def test_inputs_that_are_not_contiguous_and_bad_arguments():
    x, weight = draw(2, 6, 8)[..., :4], draw(4, 3, seed=1)
    assert torch.equal(causal_conv1d(x, weight), causal_conv1d(x.contiguous(), weight))
    assert torch.equal(causal_conv1d(x, weight[:, None]), causal_conv1d(x, weight))
    for arguments, named in [
        ((x, weight[:3]), "weight should have shape .* = .4, k., but has .3, 3."),
        ((x[0], weight), "x should have shape"),
        ((x, weight, draw(3)), "bias should have shape"),
        ((x, weight, None, draw(2, 3, 4)), r"state should have shape .* = \(2, 2, 4\), but has \(2, 3, 4\)"),
    ]:
        with pytest.raises(ParameterError, match=named):
            causal_conv1d(*arguments)
    with pytest.raises(ParameterError, match="activation"):
        causal_conv1d(x, weight, activation="relu")
    with pytest.raises(ParameterError, match="seq_idx should be a tensor of integers"):
        causal_conv1d(x, weight, seq_idx=torch.zeros(2, 6))


def norm_by_hand(x, z, weight, eps, size, gate_last):
    """Entry by entry in Python floats."""
    rows = []
    for row, gate in zip(x.tolist(), z.tolist(), strict=True):
        silu = [g / (1 + math.exp(-g)) for g in gate]
        h = row if gate_last else [a * s for a, s in zip(row, silu, strict=True)]
        out = []
        for start in range(0, len(h), size):
            group = h[start : start + size]
            scale = 1 / math.sqrt(sum(v * v for v in group) / size + eps)
            out += [v * scale for v in group]
        out = [v * w for v, w in zip(out, weight.tolist(), strict=True)]
        rows.append([v * s for v, s in zip(out, silu, strict=True)] if gate_last else out)
    return torch.tensor(rows, dtype=DOUBLE)


@pytest.mark.parametrize("gate_last", [False, True])
@pytest.mark.parametrize("size", [2, 6])
def test_the_gated_norm_is_its_formula(gate_last, size):
    x, z, weight = draw(3, 6), draw(3, 6, seed=1), draw(6, seed=2)
    y = rms_norm_gated(x, z, weight, 1e-3, size, gate_last)
    torch.testing.assert_close(y, norm_by_hand(x, z, weight, 1e-3, size, gate_last), rtol=1e-13, atol=1e-13)
    args = tuple(t.requires_grad_() for t in (x, z, weight))
    assert torch.autograd.gradcheck(lambda *a: rms_norm_gated(*a, 1e-3, size, gate_last), args)


def test_the_gate_comes_before_the_norm_unless_asked_and_both_parts_may_be_missing():
    x, z, weight = draw(2, 5, 4), draw(2, 5, 4, seed=1), draw(4, seed=2)
    assert torch.equal(rms_norm_gated(x, z, weight), rms_norm_gated(x * F.silu(z), None, weight))
    mean_square = rms_norm_gated(x, eps=0.0).square().mean(-1)
    torch.testing.assert_close(mean_square, torch.ones_like(mean_square))


def test_the_norm_of_half_precision_is_taken_in_float32():
    x, z = (300 * draw(4, 64, seed=0)).to(torch.float16), draw(4, 64, seed=1).to(torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = rms_norm_gated(x, z, torch.ones(64))
    exact = rms_norm_gated(x.double(), z.double())
    assert y.dtype == torch.float16  # the squares, up to 10^6, would have overflowed
    assert (y - exact).abs().max() < 4e-3


def test_a_group_size_that_does_not_divide_and_a_gate_that_does_not_fit():
    with pytest.raises(ParameterError, match="group_size should divide 6, but is 4"):
        rms_norm_gated(draw(2, 6), group_size=4)
    with pytest.raises(ParameterError, match="z should have shape"):
        rms_norm_gated(draw(2, 6), draw(2, 5))
