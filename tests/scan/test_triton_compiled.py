"""What can be said of the Triton kernels' machine code and of torch.compile without a GPU.

The interpreter lets pass what the compiler refuses, so each kernel is compiled and assembled here for an H100.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from workbench.scan import triton_selective, triton_ssd  # noqa: E402

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
FLOAT32 = {  # pointers that are float32 whatever the inputs are
    triton_selective: "A B C D bias start last saved dlast dA dB dC dD dbias dstart",
    triton_ssd: "step decay D start last saved dlast dstep ddecay dB dC dD dstart",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(triton_selective.INTERPRETED, reason="the interpreter compiles nothing"),
    pytest.mark.skipif(
        not (TOOLS / "cuobjdump").exists(), reason="this triton brings no assembler for NVIDIA GPUs"
    ),
]


def resources(module, kernel, io, constants, num_warps, num_stages, tmp_path):
    """(registers, bytes of stack) of a thread, as assembled for sm_90."""
    names = kernel.arg_names
    types = {name: f"*{'fp32' if name in FLOAT32[module].split() else io}" for name in names} | {"L": "i32"}
    types |= dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")}
    source = ASTSource(kernel, {name: types[name] for name in names}, constexprs=constants, attrs=aligned)
    options = {"num_warps": num_warps, "num_stages": num_stages}
    binary = tmp_path / "kernel.cubin"
    try:
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    except RuntimeError as err:
        if "ptxas" in str(err).lower():
            pytest.skip(f"no working ptxas: {str(err).splitlines()[0]}")
        raise
    binary.write_bytes(compiled.asm["cubin"])
    command = [TOOLS / "cuobjdump", "--dump-resource-usage", binary]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{word}:(\d+)", report)[1]) for word in ("REG", "STACK"))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_selective_scan_fits_its_registers(direction, tmp_path, n=16):
    cut = triton_selective.tile(8, 2048, n)
    warps = cut.pop("num_warps")
    rows = {"row_u": 2048, "row_delta": 2048, "row_z": 4096, "row_decay": 0}
    flags = {"SOFTPLUS": True, "GATED": True, "DECAY": False} | (
        {"SAVE": True} if direction == "forward" else {}
    )
    constants = {"d": 2048, "n": n, "T": triton_selective.CHUNK, **rows, **cut, **flags}
    kernel = getattr(triton_selective, f"{direction}_kernel")
    registers, stack = resources(triton_selective, kernel, "bf16", constants, warps, 3, tmp_path)
    assert registers < 255 and stack <= 16


@pytest.mark.parametrize(("dtype", "io"), [(torch.bfloat16, "bf16"), (torch.float32, "fp32")])
@pytest.mark.parametrize(
    # Some of the many small vectors do spill, to the first cache: bounds of what was found acceptable.
    ("direction", "warps", "stages", "stack_bound"),
    [
        ("forward", {"bf16": 4, "fp32": 8}, {"bf16": 2, "fp32": 1}, 160),
        ("backward", {"bf16": 8, "fp32": 8}, {"bf16": 1, "fp32": 1}, 800),
    ],
)
def test_ssd_compiles_and_spills_little(direction, warps, stages, stack_bound, dtype, io, tmp_path):
    x, B = (torch.empty(8, 64, 32, 64, dtype=dtype, device="meta"), torch.empty(8, 64, 1, 64, device="meta"))
    constants = triton_ssd._sizes(x, B, B, 64 if io == "bf16" else 32)
    constants |= {"SAVE": True} if direction == "forward" else {}
    kernel = getattr(triton_ssd, f"{direction}_kernel")
    registers, stack = resources(triton_ssd, kernel, io, constants, warps[io], stages[io], tmp_path)
    assert registers <= 255 and stack <= stack_bound


TRACE = """
    import torch, triton
    from torch._dynamo.backends.common import aot_autograd
    from triton.backends.compiler import GPUTarget
    from workbench.scan import triton_selective, triton_ssd

    class NoGPU:  # enough of a driver for the tracer to compile the kernels and see what they write
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
        get_current_device = staticmethod(lambda: 0)
        get_active_torch_device = staticmethod(lambda: torch.device("cpu"))

    triton.runtime.driver.set_active(NoGPU())
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        values = [node.meta.get("val") if node is not None else None
                  for node in graph.graph.find_nodes(op="output")[0].args[0]]
        make = lambda v: torch.zeros([int(s) for s in v.shape], dtype=v.dtype) if isinstance(v, torch.Tensor) else v
        run = lambda args: [make(v) for v in values]
        run._boxed_call = True
        return run

    triton_selective.supports = triton_ssd.supports = lambda *args: None  # these tensors are on the CPU
    tensor = lambda *shape: torch.randn(*shape).requires_grad_()
    b, L, d, n, h, p = 2, 19, 8, 16, 2, 4
    calls = [
        (triton_selective.scan_triton, (tensor(b, L, d), tensor(b, L, d), tensor(d, n), tensor(b, L, n),
            tensor(b, L, n), tensor(d), tensor(b, L, d), tensor(d), None, None, True), 3, 9),
        (triton_ssd.ssd_triton, (tensor(b, L, h, p), tensor(b, L, h), tensor(h), tensor(b, L, 1, n),
            tensor(b, L, 1, n), tensor(h), None, tensor(h), None, None, None, True, (0.0, float("inf")), 64), 3, 7),
    ]
    for function, args, *writes in calls:
        graphs.clear()
        backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
        out, last = torch.compile(function, fullgraph=True, backend=backend)(*args)
        (out.sum() + last.sum()).backward()
        found = []
        for graph in graphs:
            kernels = [m for m in graph.graph.nodes if "triton_kernel_wrapper_functional" in str(m.target)]
            found += [len(m.kwargs["tensors_to_clone"]) for m in kernels]
        print(function.__name__, found, writes)
"""


def test_torch_compile_takes_the_kernels_into_one_graph_each_way_and_copies_nothing_but_outputs():
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRACE)], env=env, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split("\n")[:2] == ["scan_triton [3, 9] [3, 9]", "ssd_triton [3, 7] [3, 7]"], run.stdout
