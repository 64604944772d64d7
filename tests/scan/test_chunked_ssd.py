"""The chunked SSD against the sequential recurrence, and the properties that a recurrence has."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters

from workbench.scan.chunked_ssd import ssd_compile, ssd_eager
from workbench.scan.reference import scan_reference, ssd_reference

NAMES = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state", "log_decay")
REST = (True, (0.0, math.inf))  # softplus, dt_limit


def problem(seed=0, b=2, L=50, h=4, p=3, g=2, n=5, dtype=torch.float64, **given):
    """Arguments by name; a `log_decay` of True draws one, others replace what was drawn."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    args = {
        "x": draw(b, L, h, p),
        "dt": draw(b, L, h) - 1,
        "A": -draw(h).exp(),
        "B": draw(b, L, g, n),
        "C": draw(b, L, g, n),
        "D": draw(h, p),
        "z": draw(b, L, h, p),
        "dt_bias": draw(h),
        "initial_state": draw(b, h, p, n),
        "log_decay": None,
    }
    if given.get("log_decay") is True:
        given["log_decay"] = -draw(b, L, h).abs()
    return args | given


def run(f, args, seq_idx=None, softplus=True, dt_limit=(0.0, math.inf), chunk=8):
    return f(*(args[k] for k in NAMES), seq_idx, softplus, dt_limit, chunk)


def results(f, args, dtype=None, **kw):
    """Outputs and the gradients of a fixed random function of them, in float64, by name; inputs taken in `dtype`."""
    args = {k: None if t is None else t.to(dtype or t.dtype).requires_grad_() for k, t in args.items()}
    y, last = run(f, args, **kw)
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=rng, dtype=torch.float64).to(t.dtype) for t in (y, last)]
    used = {k: t for k, t in args.items() if t is not None}
    grads = torch.autograd.grad((y, last), list(used.values()), weights, allow_unused=True)
    named = {"y": y, "last": last} | {f"d{k}": g for k, g in zip(used, grads, strict=True) if g is not None}
    return {k: t.detach().double() for k, t in named.items()}


def assert_close(got, want, tolerance):
    assert got.keys() == want.keys()
    for name, w in want.items():
        assert got[name].isfinite().all(), f"{name} is not finite"
        scale = max(w.norm().item(), 1e-30 * w.numel())
        error = (got[name] - w).norm().item() / scale
        assert error <= tolerance, f"{name}: {error:.1e}"


def against_reference(args, tolerance=1e-12, dtype=torch.float64, f=ssd_eager, **kw):
    rounded = {k: None if t is None else t.to(dtype).double() for k, t in args.items()}
    assert_close(results(f, rounded, dtype, **kw), results(ssd_reference, rounded, **kw), tolerance)


SHAPES = {
    "seed": st.integers(0, 99),
    "b": st.integers(1, 3),
    "L": st.integers(1, 40),
    "heads": st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]),
    "p": st.integers(1, 4),
    "n": st.integers(1, 4),
    "chunk": st.sampled_from([1, 2, 7, 16, 64]),
    "without": st.sets(st.sampled_from(["D", "z", "dt_bias", "initial_state"])),
    "log_decay": st.sampled_from([None, True]),
    "packed": st.booleans(),
    "softplus": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(**SHAPES)
def test_values_and_gradients_equal_the_sequential_ones_for_any_shape(
    seed, b, L, heads, p, n, chunk, without, log_decay, packed, softplus
):
    args = problem(seed, b, L, heads[0], p, heads[1], n, log_decay=log_decay, **dict.fromkeys(without))
    if not softplus:
        args["dt"] = args["dt"].abs()
        args["dt_bias"] = None
    rng = torch.Generator().manual_seed(seed)
    seq_idx = (torch.rand(b, L, generator=rng) < 0.15).cumsum(1) if packed else None
    against_reference(args, chunk=chunk, seq_idx=seq_idx, softplus=softplus)


@pytest.mark.parametrize("chunk", [16, 64])
@pytest.mark.parametrize("L", [17, 700])
def test_float32_is_exact_to_1e_5(L, chunk):
    against_reference(problem(L=L, h=8, p=8, g=2, n=8), 1e-6, torch.float32, chunk=chunk)


@pytest.mark.slow
def test_float32_is_exact_to_1e_5_over_8192_steps():
    args = problem(b=1, L=8192, h=2, p=4, g=1, n=4, dtype=torch.float32)
    args["dt"] = args["dt"] - 4  # steps of about 0.01: memories of hundreds of steps
    against_reference(args, 1e-5, torch.float32, chunk=64)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.lists(st.sampled_from([-1e4, -300.0, -128.0, -20.0, -0.5, -0.01, -1e-6, 0.0]), min_size=1, max_size=5),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_any_mixture_of_strong_and_weak_decays_is_exact(seed, kinds, dtype):
    rng = torch.Generator().manual_seed(seed)
    which = torch.randint(len(kinds), (1, 90, 4), generator=rng)
    args = problem(seed, 1, 90, log_decay=torch.tensor(kinds, dtype=torch.float64)[which])
    against_reference(args, 1e-5 if dtype == torch.float32 else 1e-12, dtype, chunk=64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strong_steps_leave_the_gradients_of_the_weak_ones_exact(dtype):
    """Steps of 1e4 among steps of 0.01: the gradient of A sums what the one and the other give."""
    args = problem(L=130, dt_bias=None)
    strong = torch.rand(2, 130, 4, generator=torch.Generator().manual_seed(0)) < 0.2
    args["dt"] = torch.where(strong, 1e4, 0.01).double()
    against_reference(args, 1e-6 if dtype == torch.float32 else 1e-12, dtype, chunk=64, softplus=False)


def test_gradcheck_at_every_input_through_output_and_last_state():
    args = problem(b=1, L=11, h=2, p=2, g=1, n=2, log_decay=True)
    inputs = [args[k].requires_grad_() for k in NAMES]
    assert torch.autograd.gradcheck(lambda *t: ssd_eager(*t, None, *REST, 4), inputs)
    inputs[-1] = None
    assert torch.autograd.gradcheck(lambda *t: ssd_eager(*t, None, *REST, 4), inputs)


def test_a_limited_step_and_a_skip_weight_a_head():
    args = problem()
    args["D"] = args["D"][:, 0].clone()
    against_reference(args, dt_limit=(0.05, 0.5))


def test_chunk_size_does_not_matter():
    args = problem(L=70)
    want = results(ssd_eager, args, chunk=1)
    for chunk in (3, 16, 64, 256):
        assert_close(results(ssd_eager, args, chunk=chunk), want, 1e-12)


def test_a_sequence_in_two_parts_gives_the_same_as_at_once():
    args = problem(L=60)
    whole, last = run(ssd_eager, args)

    def part(start, stop, state):
        long = {k: args[k][:, start:stop] for k in ("x", "dt", "B", "C", "z")}
        return run(ssd_eager, args | long | {"initial_state": state})

    first, state = part(0, 23, args["initial_state"])
    second, state = part(23, 60, state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)


def test_outputs_do_not_depend_on_later_inputs_to_the_last_bit():
    args = problem(L=60, dtype=torch.float32)
    before, _ = run(ssd_eager, args, chunk=16)
    changed = args | {k: args[k].clone() for k in ("x", "dt", "B", "C", "z")}
    for k in ("x", "dt", "B", "C", "z"):
        changed[k][:, 37:] += 1
    after, _ = run(ssd_eager, changed, chunk=16)
    assert torch.equal(before[:, :37], after[:, :37])
    assert not torch.equal(before[:, 37:], after[:, 37:])


PACKED = torch.tensor([[0] * 23 + [1] * 30 + [7] * 7])


def test_packed_sequences_give_what_they_give_alone():
    args = problem(b=1, L=60)
    packed = results(ssd_eager, args, seq_idx=PACKED, chunk=16)
    y, grads = [], {k: [] for k in ("x", "dt", "B", "C", "z")}
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(args["x"].shape, generator=rng, dtype=torch.float64)
    last_weight = torch.randn(args["initial_state"].shape, generator=rng, dtype=torch.float64)
    for start, stop in ((0, 23), (23, 53), (53, 60)):
        part = {k: args[k][:, start:stop].detach().requires_grad_() for k in grads}
        state = args["initial_state"] if start == 0 else None
        out, last = run(ssd_eager, args | part | {"initial_state": state}, chunk=16)
        y.append(out)
        ends = (last * last_weight).sum() if stop == 60 else 0
        got = torch.autograd.grad((out * weight[:, start:stop]).sum() + ends, list(part.values()))
        for k, t in zip(grads, got, strict=True):
            grads[k].append(t)
    torch.testing.assert_close(packed["y"], torch.cat(y, 1).detach(), rtol=1e-11, atol=1e-12)
    for k, parts in grads.items():
        torch.testing.assert_close(packed[f"d{k}"], torch.cat(parts, 1), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_leaks_between_packed_sequences_to_the_last_bit(dtype):
    args = problem(b=1, L=60, dtype=dtype)
    changed = args | {k: args[k].clone() for k in ("x", "dt", "B", "C", "z")}
    for k in ("x", "dt", "B", "C", "z"):
        changed[k][:, :23] = changed[k][:, :23] * 3 + 1
    changed["initial_state"] = args["initial_state"] * 1e6
    one, other = (results(ssd_eager, a, seq_idx=PACKED, chunk=16) for a in (args, changed))
    for k in ("y", "dx", "dB", "dC", "dz"):
        assert torch.equal(one[k][:, 23:], other[k][:, 23:]), k
        assert not torch.equal(one[k][:, :23], other[k][:, :23]), k
    assert torch.equal(one["last"], other["last"])
    assert not one["dinitial_state"].isnan().any()


def test_equals_the_selective_scan_with_the_decay_of_a_head_on_all_its_channels():
    args = problem(h=3, g=1, D=None)
    y, last = run(ssd_eager, args)
    wide = args["dt"].repeat_interleave(3, 2)
    scan, state = scan_reference(
        args["x"].flatten(2),
        wide,
        args["A"].repeat_interleave(3)[:, None].expand(9, 5),
        args["B"][:, :, 0],
        args["C"][:, :, 0],
        None,
        args["z"].flatten(2),
        args["dt_bias"].repeat_interleave(3),
        args["initial_state"].flatten(1, 2),
        None,
        True,
    )
    torch.testing.assert_close(y.flatten(2), scan, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(last.flatten(1, 2), state, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype_and_float32_states(dtype):
    args = problem(L=90, p=8, n=8, dtype=torch.float32)
    args = args | {k: args[k].to(dtype) for k in ("x", "dt", "B", "C", "z")}
    y, last = run(ssd_eager, args, chunk=64)
    assert y.dtype == dtype and last.dtype == torch.float32
    want = results(ssd_reference, {k: None if t is None else t.double() for k, t in args.items()}, chunk=64)
    assert_close(results(ssd_eager, args, chunk=64), want, 2e-2)


def test_autocast_does_not_reach_inside():
    args = problem(L=40, dtype=torch.float32)
    want = results(ssd_eager, args)
    with torch.autocast("cpu", torch.bfloat16):
        got = results(ssd_eager, args)
    assert all(torch.equal(got[k], want[k]) for k in want)


def test_inputs_need_not_be_contiguous():
    args = problem()
    scattered = {
        k: None if t is None else t.transpose(0, -1).contiguous().transpose(0, -1) for k, t in args.items()
    }
    assert not scattered["x"].is_contiguous()
    assert_close(results(ssd_eager, scattered), results(ssd_eager, args), 1e-13)


def test_works_without_gradients_in_inference_mode_and_with_an_unused_output():
    args = problem()
    want, _ = run(ssd_eager, args)
    with torch.inference_mode():
        torch.testing.assert_close(run(ssd_eager, args)[0], want)
    x = args["x"].clone().requires_grad_()
    _, last = run(ssd_eager, args | {"x": x})
    (grad,) = torch.autograd.grad(last.sum(), x)  # y is not used
    assert grad.isfinite().all() and grad.norm() > 0


def test_many_blocks_of_several_and_of_parts_of_sequences(monkeypatch):
    from workbench.scan import chunked_ssd

    args = problem(b=5, L=50)
    want = results(ssd_eager, args)
    for entries in (1, 4 * 64 * 4, 4 * 64 * 15):  # three chunks, four, two whole sequences of seven
        monkeypatch.setitem(chunked_ssd._BLOCK, "cpu", entries)
        assert_close(results(ssd_eager, args), want, 1e-13)


@pytest.mark.parametrize("chunk", [8, 64])
def test_does_not_break_a_graph_around_it(chunk):
    args = problem(L=20, dtype=torch.float32, initial_state=None)
    args["x"].requires_grad_()

    def model(x):
        return run(ssd_eager, args | {"x": x * 2}, chunk=chunk)[0].sin().sum()

    graph = torch.compile(model, backend="aot_eager", fullgraph=True)
    (want,) = torch.autograd.grad(model(args["x"]), args["x"])
    (got,) = torch.autograd.grad(graph(args["x"]), args["x"])
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("chunk", [4, 16])
@pytest.mark.parametrize("started", [True, False])
def test_the_operator_is_described_truthfully_to_torch(chunk, started):
    from workbench.scan.chunked_ssd import ssd_forward

    args = problem(b=1, L=9, h=2, p=2, g=1, n=2)
    step, decay = args["dt"].abs().requires_grad_(), -args["dt"].abs()
    start = args["initial_state"] if started else None
    inputs = args["x"].requires_grad_(), step, decay, args["B"], args["C"], None, start
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(ssd_forward, (*inputs, chunk, False, True), test_utils=tests)


@pytest.mark.slow
def test_compiled_equals_eager_and_one_graph_serves_every_length_and_batch():
    shape = {"h": 4, "p": 8, "g": 2, "n": 8, "dtype": torch.float32}
    counters.clear()
    for b, L in ((1, 100), (2, 64), (1, 1000), (3, 33), (1, 32)):
        args = problem(b=b, L=L, **shape)
        assert_close(results(ssd_compile, args, chunk=32), results(ssd_eager, args, chunk=32), 2e-6)
        if (b, L) == (1, 100):
            graphs = counters["stats"]["unique_graphs"]
    assert graphs == 3  # forward: states, outputs; backward: gradients, and states once more
    assert counters["stats"]["unique_graphs"] == graphs
    strong = problem(b=1, L=100, log_decay=torch.full((1, 100, 4), -1e4), **shape)
    assert_close(results(ssd_compile, strong, chunk=32), results(ssd_eager, strong, chunk=32), 2e-6)
