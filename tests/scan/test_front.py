"""The public functions: layouts, groups, packed sequences and refusals; values against the plain recurrence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.scan import selective_scan, ssd


def scan_inputs(b=2, L=23, d=6, n=3, dtype=torch.float64, seed=0) -> dict:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=dtype)

    return {
        "u": normal(b, L, d),
        "delta": normal(b, L, d),
        "A": -normal(d, n).exp(),
        "B": normal(b, L, n),
        "C": normal(b, L, n),
        "D": normal(d),
        "z": normal(b, L, d),
        "delta_bias": normal(d),
        "initial_state": normal(b, d, n),
        "softplus": True,
    }


def ssd_inputs(b=2, L=23, h=4, p=3, g=2, n=5, dtype=torch.float64, seed=0) -> dict:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=dtype)

    return {
        "x": normal(b, L, h, p),
        "dt": normal(b, L, h),
        "A": -normal(h).exp(),
        "B": normal(b, L, g, n),
        "C": normal(b, L, g, n),
        "D": normal(h),
        "z": normal(b, L, h, p),
        "dt_bias": normal(h),
        "initial_state": normal(b, h, p, n),
        "softplus": True,
    }


def by_hand(u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, delta_decay=None):
    """The recurrence of the docstring, one channel and one step at a time."""
    step = torch.nn.functional.softplus(delta + delta_bias) if softplus else delta + delta_bias
    decay = step if delta_decay is None else delta_decay
    out = torch.empty_like(u)
    h = initial_state.clone()
    for t in range(u.shape[1]):
        for c in range(u.shape[2]):
            h[:, c] = (decay[:, t, c, None] * A[c]).exp() * h[:, c]
            h[:, c] += (step[:, t, c] * u[:, t, c])[:, None] * B[:, t]
            y = (C[:, t] * h[:, c]).sum(1) + D[c] * u[:, t, c]
            out[:, t, c] = y * z[:, t, c] * torch.sigmoid(z[:, t, c])
    return out, h


def close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    error = (found - expected).norm() / expected.norm().clamp_min(1e-300)
    assert error <= tolerance, float(error)


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("apart", [False, True], ids=["decay by the step", "decay apart"])
def test_the_scan_is_the_recurrence_written_out(backend, apart):
    inputs = scan_inputs()
    if apart:
        inputs["delta_decay"] = torch.rand(2, 23, 6, dtype=torch.float64)
    out, last = selective_scan(**inputs, return_last_state=True, backend=backend)
    expected, state = by_hand(**inputs)
    close(out, expected)
    close(last, state)


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_ssd_is_the_scan_with_one_decay_a_head(backend):
    i = ssd_inputs()
    y, last = ssd(**i, chunk=8, return_last_state=True, backend=backend)
    for head in range(4):
        p = i["x"].shape[3]
        expected, state = by_hand(
            i["x"][:, :, head],
            i["dt"][:, :, head, None].expand(-1, -1, p),
            i["A"][head].expand(p, 5),
            i["B"][:, :, head // 2],
            i["C"][:, :, head // 2],
            i["D"][head].expand(p),
            i["z"][:, :, head],
            i["dt_bias"][head],
            i["initial_state"][:, head],
            True,
        )
        close(y[:, :, head], expected)
        close(last[:, head], state)


def test_the_layout_of_the_reference_package_gives_the_same_numbers():
    inputs = scan_inputs()
    turned = {k: v.mT if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    out, last = selective_scan(**inputs, return_last_state=True)
    other, state = selective_scan(**turned, layout="bdl", return_last_state=True)
    assert torch.equal(other, out.mT)
    assert torch.equal(state, last)


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_grouped_maps_are_each_groups_own_scan(backend):
    inputs = scan_inputs(d=12)
    inputs["B"], inputs["C"] = torch.randn(2, 23, 2, 3).double(), torch.randn(2, 23, 3, 3).double()
    expanded = {**inputs}
    rows = []
    for c in range(12):  # a channel at a time, with the group that it belongs to
        one = {k: v[..., c : c + 1] for k, v in inputs.items() if k in ("u", "delta", "z", "D", "delta_bias")}
        one |= {"A": inputs["A"][c : c + 1], "initial_state": inputs["initial_state"][:, c : c + 1]}
        one |= {"B": inputs["B"][:, :, c // 6], "C": inputs["C"][:, :, c // 4]}
        rows.append(selective_scan(**one, softplus=True, backend="reference"))
    close(selective_scan(**expanded, backend=backend), torch.cat(rows, 2))
    bdl = {k: v.movedim(1, -1) if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    close(selective_scan(**bdl, layout="bdl", backend=backend).mT, torch.cat(rows, 2))


@pytest.mark.parametrize("backend", ["reference", "eager"])
@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_constant_maps_are_maps_repeated_in_time(backend, constant):
    inputs = scan_inputs(d=1)
    spread = {**inputs}
    for name in constant:
        inputs[name] = torch.randn(1, 3, dtype=torch.float64)
        spread[name] = inputs[name].expand(2, 23, 3)
    close(selective_scan(**inputs, backend=backend), selective_scan(**spread, backend="reference"))


def test_packed_sequences_are_separate_sequences():
    inputs, cuts = scan_inputs(b=1, L=30), [0, 1, 9, 17, 30]
    leaves = {
        k: v.clone().requires_grad_() for k, v in inputs.items() if k in ("u", "delta", "B", "C", "z", "A")
    }
    seq_idx = torch.bucketize(torch.arange(30), torch.tensor(cuts[1:]), right=True)[None]
    rest = {"D": inputs["D"], "delta_bias": inputs["delta_bias"], "softplus": True}
    first = {"initial_state": inputs["initial_state"]}
    packed = selective_scan(**leaves, **rest, **first, seq_idx=seq_idx)
    apart = []
    for k, (i, j) in enumerate(pairwise(cuts)):
        part = {name: v if name == "A" else v[:, i:j] for name, v in leaves.items()}
        apart.append(selective_scan(**part, **rest, **(first if k == 0 else {}), backend="reference"))
    apart = torch.cat(apart, 1)
    close(packed, apart)
    weight = torch.randn_like(packed)
    found = torch.autograd.grad((packed * weight).sum(), leaves.values())
    expected = torch.autograd.grad((apart * weight).sum(), leaves.values())
    for f, e in zip(found, expected, strict=True):
        close(f, e, 1e-11)


def test_nothing_of_one_packed_sequence_reaches_the_next():
    inputs = scan_inputs(b=1, L=20, dtype=torch.float32)
    seq_idx = (torch.arange(20) >= 11).long()[None]
    before = selective_scan(**inputs, seq_idx=seq_idx)
    for name in ("u", "delta", "B"):
        inputs[name] = inputs[name].clone()
        inputs[name][:, :11] *= -3
    after = selective_scan(**inputs, seq_idx=seq_idx)
    assert torch.equal(before[:, 11:], after[:, 11:])
    assert not torch.equal(before[:, :11], after[:, :11])


@settings(max_examples=25, deadline=None)
@given(
    L=st.integers(2, 70),
    cut=st.floats(0, 1),
    strength=st.sampled_from([1e-4, 1.0, 1e4]),
    seed=st.integers(0, 2**20),
)
def test_a_sequence_may_be_cut_anywhere(L, cut, strength, seed):
    at = min(max(1, int(cut * L)), L - 1)
    inputs = scan_inputs(L=L, seed=seed)
    inputs["A"] = inputs["A"] * strength
    whole, last = selective_scan(**inputs, return_last_state=True)
    state, parts = inputs["initial_state"], []
    for piece in (slice(0, at), slice(at, L)):
        cutting = {k: v[:, piece] if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
        out, state = selective_scan(**{**cutting, "initial_state": state}, return_last_state=True)
        parts.append(out)
    close(torch.cat(parts, 1), whole)
    close(state, last)


SCAN_MISTAKES = {
    "u should have shape (b, L, d), but has (23, 6)": {"u": torch.zeros(23, 6).double()},
    "delta should have shape (b, L, d) = (2, 23, 6), but has (2, 23, 5)": {
        "delta": torch.zeros(2, 23, 5).double()
    },
    "A should have shape (d, n) = (6, n), but has (5, 3)": {"A": -torch.ones(5, 3).double()},
    "A should be negative (A = -exp(A_log)), but has an entry 2": {"A": torch.full((6, 3), 2.0).double()},
    "B should have shape (b, L, n) = (2, 23, 3), but has (2, 23, 4)": {"B": torch.zeros(2, 23, 4).double()},
    "the groups of C should divide the 6 channels, but are 4": {"C": torch.zeros(2, 23, 4, 3).double()},
    "D is torch.float32, but u is torch.float64": {"D": torch.zeros(6)},
    "z should be real floating point, but is torch.int64": {"z": torch.zeros(2, 23, 6).long()},
    "delta_bias should be a tensor, but is float": {"delta_bias": 0.1},
    "initial_state should have shape (b, d, n) = (2, 6, 3), but has (2, 3, 6)": {
        "initial_state": torch.zeros(2, 3, 6).double()
    },
    "u should be finite, but 276 of its 276 entries are not": {
        "u": torch.full((2, 23, 6), float("nan")).double()
    },
    "seq_idx should be a tensor of integers": {"seq_idx": torch.zeros(2, 23)},
    "packed sequences need every entry of A below 0": {
        "seq_idx": torch.zeros(2, 23).long(),
        "A": torch.zeros(6, 3).double(),
    },
    "layout should be": {"layout": "lbd"},
    "did you mean 'eager'": {"backend": "eagre"},
}


@pytest.mark.parametrize("sentence", SCAN_MISTAKES)
def test_a_wrong_argument_of_the_scan_is_named(sentence):
    with pytest.raises(ParameterError) as caught:
        selective_scan(**{**scan_inputs(), **SCAN_MISTAKES[sentence]})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("selective_scan: ")


SSD_MISTAKES = {
    "x should have shape (b, L, h, p), but has (2, 23, 12)": {"x": torch.zeros(2, 23, 12).double()},
    "dt should have shape (b, L, h) = (2, 23, 4), but has (2, 23, 3)": {"dt": torch.zeros(2, 23, 3).double()},
    "A should have shape (h) = (4), but has (4, 5)": {"A": -torch.ones(4, 5).double()},
    "A should be negative": {"A": torch.ones(4).double()},
    "the groups of B and C should divide the 4 heads, but are 3": {
        "B": torch.zeros(2, 23, 3, 5).double(),
        "C": torch.zeros(2, 23, 3, 5).double(),
    },
    "D should have shape (h) = (4) or (h, p) = (4, 3), but has (2, 3, 4)": {
        "D": torch.zeros(2, 3, 4).double()
    },
    "chunk should be a positive integer, but is 0": {"chunk": 0},
    "dt_limit should be (low, high) with 0 <= low <= high": {"dt_limit": (0.5, 0.1)},
    "dt should be finite, but 1 of its 184 entries": {
        "dt": torch.zeros(2, 23, 4)
        .double()
        .index_put_((torch.tensor(0),) * 3, torch.tensor(float("nan")).double())
    },
    "z should have shape (b, L, h, p) = (2, 23, 4, 3), but has (2, 23, 3, 4)": {
        "z": torch.zeros(2, 23, 3, 4).double()
    },
}


@pytest.mark.parametrize("sentence", SSD_MISTAKES)
def test_a_wrong_argument_of_ssd_is_named(sentence):
    with pytest.raises(ParameterError) as caught:
        ssd(**{**ssd_inputs(), **SSD_MISTAKES[sentence]})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("ssd: ")
