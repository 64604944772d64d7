"""The selective scan's Triton kernels against the float64 reference: in Triton's interpreter on a CPU, and on a GPU.

The interpreter is chosen when the kernels are imported, for the whole process: the `interpreted` tests here are
skipped where they stand and run in a process of their own by the first test.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from workbench.scan.reference import scan_reference

triton = pytest.importorskip("triton")
from workbench.scan import triton_selective  # noqa: E402
from workbench.scan.triton_selective import scan_triton, supports, tile  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the interpreter's own process")
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "delta_decay")


@pytest.mark.skipif(INTERPRETED, reason="this is that process")
@pytest.mark.slow
def test_the_kernels_equal_the_reference_in_the_interpreter():
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not gpu", __file__]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    if "only 0-dimensional arrays" in run.stdout:
        pytest.skip("the interpreter of this Triton does not work with a NumPy as new as this")
    assert run.returncode == 0, run.stdout[-4000:]


def arguments(b, L, d, n, without=(), dtype=torch.float32, decay=1.0, device="cpu", seed=0):
    """Random arguments by name; `without` names those that are None."""
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    args = {
        "u": normal(b, L, d).to(dtype),
        "delta": (normal(b, L, d) - 1).to(dtype),
        "A": -torch.rand(d, n, generator=draw) * 3 * decay,
        "B": normal(b, L, n).to(dtype),
        "C": normal(b, L, n).to(dtype),
        "D": normal(d),
        "z": normal(b, L, d).to(dtype),
        "delta_bias": normal(d),
        "initial_state": normal(b, d, n),
        "delta_decay": normal(b, L, d).abs().to(dtype),
    }
    return {name: None if name in without else t.to(device) for name, t in args.items()}


def outcome(scan, args, softplus, exact):
    """Output, last state and every gradient for fixed cotangents; `exact` computes in float64."""
    leaves = {k: v.detach().to(torch.float64 if exact else v.dtype) for k, v in args.items() if v is not None}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    out, last = scan(*(leaves.get(name) for name in NAMES), softplus)
    draw = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(t.shape, generator=draw).to(args["u"].dtype).to(t) for t in (out, last)]
    grads = torch.autograd.grad([out, last], list(leaves.values()), cotangents)
    return {"out": out, "last": last, **dict(zip(leaves, grads, strict=True))}


def errors(args, softplus=True):
    """Relative error of everything."""
    mine, truth = outcome(scan_triton, args, softplus, False), outcome(scan_reference, args, softplus, True)
    assert mine["out"].dtype == args["u"].dtype and mine["last"].dtype == torch.float32
    return {k: float((mine[k].double() - truth[k]).norm() / truth[k].norm().clamp(min=1e-30)) for k in mine}


@interpreted
@pytest.mark.parametrize(
    ("shape", "without", "softplus"),
    [
        ((2, 13, 20, 5), ("delta_decay",), True),
        ((1, 1, 3, 1), ("delta_decay",), True),
        ((1, 17, 5, 16), ("z",), True),
        ((1, 9, 3, 20), ("delta_bias", "initial_state", "D"), True),
        ((1, 8, 3, 70), ("z", "delta_decay"), True),
        ((1, 16, 33, 2), ("z", "delta_decay", "D"), True),
    ],
)
def test_forward_and_every_gradient_equal_the_reference(shape, without, softplus):
    assert max(errors(arguments(*shape, without=without), softplus).values()) < 1e-5


@interpreted
def test_steps_without_softplus_are_used_as_they_are():
    args = arguments(1, 11, 4, 3, without=("delta_bias", "delta_decay"))
    args["delta"] = args["delta"].abs()
    assert max(errors(args, softplus=False).values()) < 1e-5


@interpreted
@pytest.mark.parametrize("decay", [1e-4, 3000.0])
def test_weak_and_strong_decays_keep_their_digits(decay):
    found = errors(arguments(1, 19, 4, 4, without=("delta_decay",), decay=decay))
    assert max(found.values()) < 1e-5, found


@interpreted
def test_a_huge_decay_restarts_the_state_without_nan():
    args = arguments(1, 13, 3, 4)
    args["delta_decay"][:, [3, 8]] = 1e33
    found = errors(args)
    assert max(found.values()) < 1e-5, found


@interpreted
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_half_precision_inputs_are_accumulated_in_float32(dtype, bound):
    found = errors(arguments(2, 17, 9, 4, without=("delta_decay",), dtype=dtype))
    assert max(found.values()) < bound, found
    assert found["last"] < 1e-5 and found["A"] < 1e-5


@interpreted
def test_tiny_steps_keep_their_relative_precision():
    args = arguments(1, 8, 4, 2, without=("delta_decay", "delta_bias", "z", "D", "initial_state"))
    args["delta"] -= 14
    assert max(errors(args).values()) < 1e-5


@interpreted
def test_slices_of_a_projection_are_read_where_they_lie_and_transposes_too():
    args = arguments(2, 9, 4, 3, without=("delta_decay",))
    wide = torch.cat([args["z"], args["u"]], -1)
    sliced = {**args, "z": wide[..., :4], "u": args["u"].transpose(1, 2).contiguous().transpose(1, 2)}
    plain = [args[k] for k in NAMES]
    torch.testing.assert_close(scan_triton(*(sliced[k] for k in NAMES), True), scan_triton(*plain, True))


@interpreted
def test_the_same_input_gives_the_same_bits():
    args = arguments(1, 10, 40, 4)
    one, two = (outcome(scan_triton, args, True, False) for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_what_the_kernels_cannot_take_is_said_in_words():
    args = arguments(1, 4, 3, 2)

    def why(**other):
        return supports(*({**args, **other}[k] for k in NAMES), True)

    assert "float64" in why(u=args["u"].double())
    assert "constant" in why(B=args["A"])
    assert "256" in why(A=torch.zeros(3, 257))
    assert INTERPRETED or "GPU" in why()


@pytest.mark.parametrize("n", [1, 2, 3, 8, 16, 17, 64, 256])
@pytest.mark.parametrize("b", [1, 64])
def test_a_tile_holds_every_state_in_whole_warps(b, n):
    cut = tile(b, 2048, n)
    assert cut["R"] * cut["NL"] == triton.next_power_of_2(n)
    assert cut["NL"] * cut["DL"] == 32 * cut["num_warps"]


gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("d", "n", "L"), [(512, 16, 1000), (300, 16, 257), (64, 64, 515), (40, 256, 100)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_on_a_gpu_the_kernels_equal_the_reference(d, n, L, dtype, bound):
    args = arguments(2, L, d, n, without=("delta_decay",), dtype=dtype, device="cuda")
    found = errors(args)
    assert max(found.values()) < bound, found


@gpu
@pytest.mark.gpu
def test_on_a_gpu_torch_compile_sees_the_kernels_in_one_graph():
    args = arguments(2, 200, 128, 16, without=("delta_decay",), device="cuda")
    compiled = torch.compile(lambda *a: triton_selective.scan_triton(*a), fullgraph=True)
    one, two = (outcome(scan, args, True, False) for scan in (scan_triton, compiled))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-5)
