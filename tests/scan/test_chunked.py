"""The segmented selective scan without a compiler, against the sequential oracle in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.scan import chunked
from workbench.scan.chunked import scan_eager
from workbench.scan.compiled import compiled
from workbench.scan.reference import scan_reference

LENGTHS = [1, 15, 16, 17, 255, 256, 257, 511, 512, 513, 1025, 4097]
NAMES = ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "delta_decay"]


def inputs(b, L, d, n, *, dtype=torch.float64, absent=(), constant=(), decay=3.0, seed=0):
    """Arguments by name; `decay` bounds |step * A| roughly; what is in `constant` has shape (d, n)."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    a = dict(zip(NAMES, [randn(b, L, d), randn(b, L, d), None, None, None], strict=False))
    a["A"] = -torch.rand(d, n, generator=g, dtype=torch.float64) * decay
    a["B"], a["C"] = (randn(d, n) if m in constant else randn(b, L, n) for m in "BC")
    a |= {"D": randn(d), "z": randn(b, L, d), "delta_bias": randn(d)}
    a |= {"initial_state": randn(b, d, n), "delta_decay": randn(b, L, d).abs()}
    return {k: None if k in absent else a[k].to(dtype).requires_grad_() for k in NAMES}


def values_and_gradients(scan, a, softplus=True, seed=1):
    g = torch.Generator().manual_seed(seed)
    results = scan(*a.values(), softplus)
    loss = sum((r * torch.randn(r.shape, generator=g, dtype=torch.float64).to(r)).sum() for r in results)
    wanted = {k: x for k, x in a.items() if x is not None and x.requires_grad}
    grads = torch.autograd.grad(loss, list(wanted.values()))
    return {"out": results[0].detach(), "last": results[1].detach(), **dict(zip(wanted, grads, strict=True))}


def assert_close(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, e in expected.items():
        assert torch.isfinite(got[name]).all(), name
        error = float((got[name].double() - e.double()).norm() / (e.double().norm() + 1e-30))
        assert error <= tolerance, f"{name}: {error:.2e}"


def test_short_sequences_share_a_call_and_not_a_number(monkeypatch):
    a = inputs(5, 6, 3, 2, absent=("initial_state",))
    assert chunked._plan("eager", (64, 32), a["u"], 2).rows >= 5
    together = values_and_gradients(scan_eager, a)
    monkeypatch.setattr(chunked, "EAGER_STATES_CPU", 1)  # a call for each
    assert chunked._plan("eager", (64, 32), a["u"], 2).rows == 1
    assert_close(values_and_gradients(scan_eager, a), together, 1e-14)


def double(a):
    return {k: None if x is None else x.detach().double().requires_grad_() for k, x in a.items()}


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 3),
    L=st.integers(1, 70),
    d=st.sampled_from([1, 2, 5, 33]),
    n=st.sampled_from([1, 2, 3, 16]),
    absent=st.sets(st.sampled_from(NAMES[5:])),
    constant=st.sets(st.sampled_from("BC")),
    softplus=st.booleans(),
    decay=st.sampled_from([0.0, 1e-4, 1.0, 100.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_equals_the_oracle_for_all_shapes_and_decays(b, L, d, n, absent, constant, softplus, decay, seed):
    a = inputs(b, L, d, n, absent=absent, constant=constant, decay=decay, seed=seed)
    if not softplus:  # steps must be positive, or decays grow
        with torch.no_grad():
            a["delta"].abs_()
            if a["delta_bias"] is not None:
                a["delta_bias"].abs_()
    expected = values_and_gradients(scan_reference, a, softplus)
    assert_close(values_and_gradients(scan_eager, a, softplus), expected, 1e-12)


@pytest.mark.parametrize("L", LENGTHS)
def test_equals_the_oracle_at_segment_borders(L):
    a = inputs(1, L, 3, 2)
    assert_close(values_and_gradients(scan_eager, a), values_and_gradients(scan_reference, a), 1e-12)


@pytest.mark.parametrize("shape", [(2, 50, 260, 16), (3, 40, 20, 16)])
def test_equals_the_oracle_when_a_segment_is_one_chunk_or_few(shape):
    """With few states a segment is many chunks side by side, with many it is one."""
    assert chunked._cuts("eager", "cpu", 260, 16)[0] == 1 < chunked._cuts("eager", "cpu", 20, 16)[0]
    a = inputs(*shape)
    assert_close(values_and_gradients(scan_eager, a), values_and_gradients(scan_reference, a), 1e-12)


@pytest.mark.parametrize("decay", [0.01, 10.0])
def test_single_precision_over_8192_steps(decay):
    a = inputs(1, 8192, 4, 3, dtype=torch.float32, absent=["delta_decay"], decay=decay)
    assert_close(values_and_gradients(scan_eager, a), values_and_gradients(scan_reference, double(a)), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out(dtype):
    a = inputs(2, 70, 5, 3, dtype=dtype)
    got = values_and_gradients(scan_eager, a)
    assert got["out"].dtype == dtype and got["last"].dtype == torch.float32 and got["u"].dtype == dtype
    assert_close(got, values_and_gradients(scan_reference, double(a)), 1e-2)


@pytest.mark.parametrize("d", [2, 5000])
def test_reset_steps_forget_everything_before_without_nan(d):
    L, cut = 50, 21
    a = inputs(1, L, d, 2, dtype=torch.float32, absent=["initial_state"])
    with torch.no_grad():
        a["delta_decay"][:, cut] = 1e33
        a["A"] -= 1e-2
    got = values_and_gradients(scan_eager, a)
    expected = values_and_gradients(scan_reference, a)
    assert_close(got, expected, 1e-5)
    with torch.no_grad():
        tail = [x if x is None or x.dim() < 3 else x[:, cut:] for x in a.values()]
        out, last = scan_eager(*tail, True)
    torch.testing.assert_close(got["out"][:, cut:], out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got["last"], last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constant", ["", "BC"])
def test_gradients_by_finite_differences(constant):
    a = inputs(1, 19, 2, 2, constant=constant)
    assert torch.autograd.gradcheck(lambda *x: scan_eager(*x, True), tuple(a.values()))


def test_compiled_kernels_uncompiled_equal_the_oracle(monkeypatch):
    from workbench.scan import chunked_kernels as k

    monkeypatch.setenv("WORKBENCH_COMPILE", "0")
    kernels = (k.writing_forward(k.steps_forward), k.writing_backward(k.steps_backward))
    monkeypatch.setattr(chunked, "_COMPILED", [compiled(f) for f in kernels])
    for absent, constant in [((), ""), (NAMES[5:], "BC"), (NAMES[8:], "C")]:
        a = inputs(2, 70, 3, 2, absent=absent, constant=constant)
        expected = values_and_gradients(scan_reference, a)
        assert_close(values_and_gradients(chunked.scan_compile, a), expected, 1e-12)


def test_split_in_two_passes_the_state():
    a = inputs(2, 60, 3, 2, absent=["delta_decay"])
    out, last = scan_eager(*a.values(), True)
    part = [x if x is None or x.dim() < 3 else x[:, :23] for x in a.values()]
    part[8] = a["initial_state"]
    out1, state = scan_eager(*part, True)
    rest = [x if x is None or x.dim() < 3 else x[:, 23:] for x in a.values()]
    rest[8] = state
    out2, last2 = scan_eager(*rest, True)
    torch.testing.assert_close(torch.cat([out1, out2], 1), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last2, last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [3, 300])
def test_the_past_does_not_see_the_future_bitwise(d):
    a = inputs(1, 100, d, 16, dtype=torch.float32)
    before, _ = scan_eager(*a.values(), True)
    with torch.no_grad():
        for name in ("u", "delta", "B", "C", "z", "delta_decay"):
            a[name][:, 61:] += 1
    after, _ = scan_eager(*a.values(), True)
    assert torch.equal(before[:, :61], after[:, :61]) and not torch.equal(before[:, 61:], after[:, 61:])


def test_same_inputs_same_bits():
    a = inputs(2, 130, 7, 16, dtype=torch.float32)
    first, second = values_and_gradients(scan_eager, a), values_and_gradients(scan_eager, a)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_strided_and_expanded_inputs():
    a = inputs(2, 40, 4, 3)
    expected = values_and_gradients(scan_reference, a)
    for name in ("u", "delta", "B", "C", "z"):
        x = a[name].detach()
        a[name] = x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        assert not a[name].is_contiguous()
    assert_close(values_and_gradients(scan_eager, a), expected, 1e-12)
    out, _ = scan_eager(*a.values(), True)
    out.sum().backward()  # an expanded gradient
    assert torch.isfinite(a["u"].grad).all()


def test_autocast_changes_nothing():
    a = inputs(1, 30, 4, 3, dtype=torch.float32)
    plain = values_and_gradients(scan_eager, a)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = values_and_gradients(scan_eager, a)
    assert all(torch.equal(plain[k], cast[k]) and plain[k].dtype == cast[k].dtype for k in plain)


@pytest.mark.parametrize("needing", [["A"], ["u", "C"], ["initial_state"], ["delta_bias", "z"]])
def test_only_some_inputs_need_gradients(needing):
    a = inputs(1, 20, 3, 2)
    for name, x in a.items():
        x.requires_grad_(name in needing)
    assert_close(values_and_gradients(scan_eager, a), values_and_gradients(scan_reference, a), 1e-12)


def test_the_same_tensor_in_two_places():
    x = torch.randn(1, 20, 3, dtype=torch.float64, requires_grad=True)
    A = -torch.rand(3, 3, dtype=torch.float64)
    grads = []
    for scan in (scan_eager, scan_reference):
        out, _ = scan(x, x, A, x, x, None, x, None, None, None, True)
        grads += torch.autograd.grad(out.square().sum(), x)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 40, 3, 2), (2, 40, 128, 32), (3, 50, 260, 16)])  # few and many states
def test_without_gradients_and_in_inference_mode(shape):
    a = {k: x.detach() for k, x in inputs(*shape).items()}
    expected, _ = scan_reference(*a.values(), True)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out, _ = scan_eager(*[x.clone() for x in a.values()], True)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize("d", [8, 300])
def test_no_tensor_is_larger_than_the_inputs_when_the_sequence_is_long(d):
    """Training holds O(L d): nothing of the size L d n is made, be it for a moment."""
    L, n = 8192, 16
    u, delta, A, B, C, D, z, bias = [
        x.detach() for x in list(inputs(1, L, d, n, dtype=torch.float32).values())[:8]
    ]
    with Largest() as largest:
        cuts = chunked._cuts("eager", "cpu", d, n)
        out, last, states, y = chunked._forward(
            "eager", cuts, u, delta, A, B, C, D, z, bias, None, None, True, True
        )
        chunked._backward("eager", cuts, out, last, u, delta, A, B, C, D, z, bias, None, states, y, True)
    assert largest.elements <= L * max(d, n)


def test_the_exponential_of_the_compiled_kernels():
    """Against float64, relative to the result, over all exponents of normal numbers; exact at the ends."""
    from workbench.scan.chunked_kernels import _base, _decays

    powers = torch.cat([torch.linspace(-126, 127.4, 200_001), torch.linspace(-1, 1, 200_001)])
    error = (_decays(powers).double() / torch.exp2(powers.double()) - 1).abs().max()
    assert error < 2e-7
    ends = torch.tensor([0.0, -127.0, -1e4, -torch.inf, 128.0, torch.inf, torch.nan])
    expected = torch.tensor([1.0, 0.0, 0.0, 0.0, torch.inf, torch.inf, torch.nan])
    assert torch.equal(_decays(ends).nan_to_num(-1.0), expected.nan_to_num(-1.0))
    A = -torch.rand(100) * 20
    assert torch.allclose(_decays(_base(A)), A.exp(), rtol=2e-6, atol=0)
    assert torch.equal(_decays(_base(A.double())), A.double().exp()), "float64 is left to torch"
