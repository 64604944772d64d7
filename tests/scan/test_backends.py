"""Which backend runs, and that what cannot run here gives way without changing a number."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings

import pytest
import torch

from workbench.errors import ParameterError
from workbench.scan import backends, compiled, selective_scan, ssd, which
from workbench.scan.reference import scan_reference, ssd_reference
from workbench.scan.selfcheck import failure


def inputs(L=16, d=4, n=2, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    shapes = (1, L, d), (1, L, d), (d, n), (1, L, n), (1, L, n)
    u, delta, A, B, C = (torch.randn(*s, generator=draw, dtype=dtype) for s in shapes)
    return u, delta.abs(), -A.abs(), B, C


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No work counted, nothing warned about, no wish about compiling, no sequence too short for it."""
    monkeypatch.setattr(backends, "SHORT", 0)
    monkeypatch.setattr(backends, "_work", type(backends._work)())
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.delenv("WORKBENCH_COMPILE", raising=False)


@pytest.fixture
def compiles(monkeypatch):
    """A stand-in for the compiled code: the eager function, so that only the choosing is tested."""
    monkeypatch.setattr(compiled, "available", lambda device="cpu": (True, ""))
    monkeypatch.setattr(compiled, "broken", lambda: None)
    real = backends.implementation
    monkeypatch.setattr(
        backends, "implementation", lambda op, name: real(op, "eager" if name == "compile" else name)
    )


def test_auto_starts_eager_and_compiles_once_that_pays(monkeypatch, compiles):
    monkeypatch.setitem(backends.PAYS, "selective_scan", 3 * (16 * 4 * 2 + backends.OVERHEAD))
    ran = []
    for _ in range(4):
        selective_scan(*inputs())
        ran.append(which("selective_scan").backend)
    assert ran == ["eager", "eager", "compile", "compile"]
    assert which().reason == "enough work of this shape for compiling to pay"


def test_the_work_of_one_shape_does_not_compile_another(monkeypatch, compiles):
    monkeypatch.setitem(backends.PAYS, "selective_scan", 2 * (16 * 4 * 2 + backends.OVERHEAD))
    selective_scan(*inputs())
    selective_scan(*inputs(d=5))
    assert which().backend == "eager"
    selective_scan(*inputs(L=17))  # another length is not another shape: one graph serves all
    selective_scan(*inputs())
    assert which().backend == "compile"


def test_short_sequences_go_step_by_step_while_they_fit_however_many_there_are(monkeypatch, compiles):
    monkeypatch.setitem(backends.PAYS, "selective_scan", 1)
    monkeypatch.setattr(backends, "SHORT", 17 * 4 * 2)
    ran = []
    for L, fits in ((16, 16 * 4 * 2), (16, 16 * 4 * 2 - 1), (17, 0)):
        monkeypatch.setattr(backends, "PLAIN", fits)
        selective_scan(*inputs(L=L))
        ran.append(which().backend)
    assert ran == ["reference", "eager", "compile"]


def test_the_wish_of_the_environment_counts(monkeypatch, compiles):
    monkeypatch.setenv("WORKBENCH_COMPILE", "1")
    selective_scan(*inputs())
    assert which().backend == "compile"
    selective_scan(*inputs(dtype=torch.float64))
    assert which().backend == "eager" and "float64" in which().reason


def test_compiling_can_be_forbidden(monkeypatch):
    monkeypatch.setenv("WORKBENCH_COMPILE", "0")
    monkeypatch.setitem(backends.PAYS, "selective_scan", 1)
    selective_scan(*inputs())
    assert which().backend == "eager" and "WORKBENCH_COMPILE=0" in which().reason


def test_no_compiler_means_eager_with_one_warning_and_the_same_numbers(monkeypatch):
    monkeypatch.setattr(compiled, "available", lambda device="cpu": (False, "no C++ compiler"))
    with pytest.warns(UserWarning, match="cannot run here.*no C\\+\\+ compiler.*the eager one"):
        out = selective_scan(*inputs(), backend="compile")
    assert torch.equal(out, selective_scan(*inputs(), backend="eager"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selective_scan(*inputs(), backend="compile")
    assert which() == backends.Choice("selective_scan", "eager", "compile cannot run here: no C++ compiler")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("backend", ["triton", "mamba_ssm"])
def test_without_a_gpu_its_backends_give_way(backend, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.warns(UserWarning, match=f"'{backend}' cannot run here"):
        out = selective_scan(*inputs(), backend=backend)
    assert torch.equal(out, selective_scan(*inputs(), backend="eager"))


def test_which_keeps_the_operations_apart():
    selective_scan(*inputs(), backend="reference")
    x = torch.randn(1, 8, 2, 4)
    ssd(x, x[..., 0].abs(), -torch.ones(2), x[:, :, :1], x[:, :, :1], backend="eager")
    assert which("selective_scan").backend == "reference"
    assert which("ssd").backend == "eager" == which().backend
    with pytest.raises(ParameterError, match="did you mean 'ssd'"):
        which("sds")


def test_an_unknown_backend_is_named():
    with pytest.raises(
        ParameterError, match=r"should be auto or one of reference, eager.*but is 'tritn'; did you"
    ):
        selective_scan(*inputs(), backend="tritn")


def stand_in(monkeypatch, scale: float):
    """A mamba_ssm whose kernels are our sequential oracle times `scale`, in the package's layouts and signatures."""

    def selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
        turned = [x if x is None else x.transpose(1, 2) for x in (u, delta, B, C, z)]
        u, delta, B, C, z = turned
        out, last = scan_reference(u, delta, A, B, C, D, z, delta_bias, None, None, delta_softplus)
        return scale * out.transpose(1, 2), last

    def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None,
                                  seq_idx=None, dt_softplus=False, dt_limit=(0.0, float("inf")),
                                  return_final_states=False):  # fmt: skip
        rest = initial_states, None, seq_idx, dt_softplus, dt_limit, chunk_size
        y, last = ssd_reference(x, dt, A, B, C, D, z, dt_bias, *rest)
        return scale * y, last

    names = {
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan_fn},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.ssd_combined": {"mamba_chunk_scan_combined": mamba_chunk_scan_combined},
    }
    for name, content in names.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    failure.cache_clear()


def test_released_kernels_are_used_only_if_they_agree_with_ours(monkeypatch):
    stand_in(monkeypatch, 1.0)
    assert failure("selective_scan", "mamba_ssm", "cpu") is None
    assert failure("ssd", "mamba_ssm", "cpu") is None
    stand_in(monkeypatch, 1.1)
    assert "it is 2.1e-01 off" in failure("selective_scan", "mamba_ssm", "cpu")
    assert "it is 2.1e-01 off" in failure("ssd", "mamba_ssm", "cpu")
    failure.cache_clear()


def test_released_kernels_that_do_not_load_are_left_alone(monkeypatch):
    stand_in(monkeypatch, 1.0)
    monkeypatch.delitem(sys.modules, "mamba_ssm.ops.selective_scan_interface")
    why = failure("selective_scan", "mamba_ssm", "cpu")
    assert why.startswith("mamba_ssm fails its self-check with ModuleNotFoundError")
    failure.cache_clear()


def test_importing_the_scan_starts_neither_triton_nor_the_compiler():
    code = """
import sys, workbench.scan
print([name for name in ("triton", "torch._inductor", "mamba_ssm") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_operators_of_all_backends_live_side_by_side():
    pytest.importorskip("triton")
    from workbench.scan import triton_selective, triton_ssd  # noqa: F401 - registers its operators

    x = torch.randn(1, 8, 2, 4)
    ssd(x, x[..., 0].abs(), -torch.ones(2), x[:, :, :1], x[:, :, :1], backend="eager")
    selective_scan(*inputs(), backend="eager")
