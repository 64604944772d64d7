"""SSD's Triton kernels against the float64 reference: in Triton's interpreter on a CPU, and on a GPU.

The interpreter is chosen when the kernels are imported, for the whole process: the `interpreted` tests here are
skipped where they stand and run in a process of their own by the first test.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from workbench.scan.reference import ssd_reference

triton = pytest.importorskip("triton")
from workbench.scan import triton_ssd  # noqa: E402
from workbench.scan.triton_ssd import ssd_triton, supports  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the interpreter's own process")
NAMES = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state", "log_decay")
ANY = (0.0, float("inf"))


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
@pytest.mark.slow
def test_the_kernels_equal_the_reference_in_the_interpreter():
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not gpu", __file__]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    if "only 0-dimensional arrays" in run.stdout:
        pytest.skip("the interpreter of this Triton does not work with a NumPy as new as this")
    assert run.returncode == 0, run.stdout[-4000:]


def arguments(b, L, h, p, g, n, without=("log_decay",), dtype=torch.float32, decay=1.0, device="cpu"):
    """Random arguments by name; `without` names those that are None."""
    draw = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    args = {
        "x": normal(b, L, h, p).to(dtype),
        "dt": (normal(b, L, h) - 1).to(dtype),
        "A": -torch.rand(h, generator=draw) * 3 * decay,
        "B": normal(b, L, g, n).to(dtype),
        "C": normal(b, L, g, n).to(dtype),
        "D": normal(h),
        "z": normal(b, L, h, p).to(dtype),
        "dt_bias": normal(h),
        "initial_state": normal(b, h, p, n),
        "log_decay": -normal(b, L, h).abs(),
    }
    return {name: None if name in without else t.to(device) for name, t in args.items()}


def outcome(scan, args, exact, seq_idx=None, softplus=True, dt_limit=ANY, chunk=16):
    """Output, last state and every gradient for fixed cotangents; `exact` computes in float64."""
    leaves = {k: v.detach().to(torch.float64 if exact else v.dtype) for k, v in args.items() if v is not None}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    y, last = scan(*(leaves.get(name) for name in NAMES), seq_idx, softplus, dt_limit, chunk)
    if args["log_decay"] is not None:
        leaves.pop("A")  # not used then
    draw = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(t.shape, generator=draw).to(args["x"].dtype).to(t) for t in (y, last)]
    grads = torch.autograd.grad([y, last], list(leaves.values()), cotangents)
    return {"y": y.detach(), "last": last.detach(), **dict(zip(leaves, grads, strict=True))}


def errors(args, **how):
    """Relative error of everything."""
    mine, truth = outcome(ssd_triton, args, False, **how), outcome(ssd_reference, args, True, **how)
    assert mine["y"].dtype == args["x"].dtype and mine["last"].dtype == torch.float32
    return {k: float((mine[k].double() - truth[k]).norm() / truth[k].norm().clamp(min=1e-30)) for k in mine}


@interpreted
@pytest.mark.parametrize(
    ("shape", "without"),
    [
        ((2, 40, 2, 20, 1, 5), ("log_decay",)),
        ((1, 1, 2, 3, 2, 1), ("log_decay", "z")),
        ((1, 37, 4, 16, 2, 16), ("z",)),
        ((1, 33, 2, 40, 1, 20), ("log_decay", "D", "dt_bias", "initial_state")),
        ((1, 16, 6, 4, 3, 33), ("log_decay", "z")),
    ],
)
def test_forward_and_every_gradient_equal_the_reference(shape, without):
    found = errors(arguments(*shape, without=without))
    assert max(found.values()) < 1e-5, found


@interpreted
@pytest.mark.parametrize("decay", [1e-4, 1e4])
def test_weak_and_strong_decays_keep_their_digits(decay):
    # The initial state's gradient would be all underflow at the strong one.
    found = errors(arguments(1, 40, 2, 16, 1, 16, without=("log_decay", "initial_state"), decay=decay))
    assert max(found.values()) < 1e-5, found


@interpreted
def test_decays_of_every_strength_in_one_chunk_keep_their_digits():
    args = arguments(1, 70, 2, 16, 1, 16, without=("z",))
    strength = torch.tensor([1e-6, 1e-2, 1.0, 30.0, 1e4])
    choice = torch.randint(0, 5, args["log_decay"].shape, generator=torch.Generator().manual_seed(2))
    args["log_decay"] = args["log_decay"] * strength[choice]
    found = errors(args, chunk=32)
    assert max(found.values()) < 1e-5, found


@interpreted
def test_packed_sequences_do_not_leak_into_each_other():
    args = arguments(2, 50, 2, 8, 1, 16, decay=1e-3)
    seq_idx = torch.tensor([[0] * 7 + [1] * 9 + [2] * 34, [5] * 16 + [3] + [5] * 33])
    found = errors(args, seq_idx=seq_idx)
    assert max(found.values()) < 1e-5, found
    parts = {**args, "initial_state": None}
    for name in ("x", "dt", "B", "C", "z"):
        parts[name] = args[name][:1, 7:16]
    alone, _ = ssd_triton(*(parts[k] for k in NAMES), None, True, ANY, 16)
    packed, _ = ssd_triton(*(args[k] for k in NAMES), seq_idx, True, ANY, 16)
    torch.testing.assert_close(packed[:1, 7:16], alone, rtol=1e-5, atol=1e-5)


@interpreted
def test_step_limits_and_a_skip_per_channel():
    args = arguments(1, 20, 2, 4, 1, 3)
    args["D"] = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
    found = errors(args, dt_limit=(0.05, 0.5))
    assert max(found.values()) < 1e-5, found


@interpreted
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_half_precision_inputs_are_accumulated_in_float32(dtype, bound):
    found = errors(arguments(1, 70, 2, 16, 1, 16, dtype=dtype), chunk=64)
    assert max(found.values()) < bound, found
    assert found["last"] < 1e-5


@interpreted
def test_slices_of_a_projection_are_read_where_they_lie_and_transposes_too():
    args = arguments(2, 20, 2, 4, 1, 6)
    wide = torch.cat([args[k].flatten(2) for k in ("x", "B", "C")], -1)
    x, B, C = wide.split([8, 6, 6], -1)
    sliced = {**args, "x": x.unflatten(2, (2, 4)), "B": B[:, :, None], "C": C[:, :, None]}
    sliced["dt"] = args["dt"].transpose(1, 2).contiguous().transpose(1, 2)
    one, two = (ssd_triton(*(a[k] for k in NAMES), None, True, ANY, 16) for a in (sliced, args))
    torch.testing.assert_close(one, two)


@interpreted
def test_the_same_input_gives_the_same_bits():
    one, two = (outcome(ssd_triton, arguments(1, 20, 2, 40, 1, 4), False) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_what_the_kernels_cannot_take_is_said_in_words():
    args = arguments(1, 4, 2, 3, 1, 2)

    def why(**other):
        return supports(*({**args, **other}[k] for k in NAMES), None, True, ANY, 64)

    assert "float64" in why(x=args["x"].double())
    assert "256" in why(B=torch.zeros(1, 4, 1, 257))
    assert INTERPRETED or "GPU" in why()


gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("h", "p", "g", "n", "L"),
    [(8, 64, 1, 64, 1000), (6, 64, 2, 128, 257), (4, 40, 1, 20, 515), (2, 64, 1, 256, 70)],
)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 5e-3)]
)
def test_on_a_gpu_the_kernels_equal_the_reference(h, p, g, n, L, dtype, bound):
    found = errors(arguments(2, L, h, p, g, n, dtype=dtype, device="cuda"), chunk=64)
    assert max(found.values()) < bound, found


@gpu
@pytest.mark.gpu
def test_on_a_gpu_torch_compile_sees_the_kernels_in_one_graph():
    args = arguments(2, 200, 4, 32, 1, 16, device="cuda")
    compiled = torch.compile(lambda *a: triton_ssd.ssd_triton(*a), fullgraph=True)
    one, two = (outcome(scan, args, False, chunk=64) for scan in (ssd_triton, compiled))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-5)
