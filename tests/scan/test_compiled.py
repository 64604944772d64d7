"""The compiled scan: the same numbers, one graph for all lengths, and what happens when compiling fails.

One shape (d = 4, n = 3, float32) is compiled and shared by the tests, in a cache folder of their own.
"""

import subprocess
import sys
import warnings

import pytest
import torch

from workbench.scan import chunked, compiled
from workbench.scan.chunked import scan_compile
from workbench.scan.reference import scan_reference

D_STATE = (4, 3)
needs_compiler = pytest.mark.skipif(not compiled.available()[0], reason=compiled.available()[1])


def inputs(b, L, *, seed=0, dtype=torch.float32):
    d, n = D_STATE
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g).to(dtype).requires_grad_()

    A = (-torch.rand(d, n, generator=g)).to(dtype).requires_grad_()
    state = torch.randn(b, d, n, generator=g).to(dtype).requires_grad_()
    shared = [randn(b, L, d), randn(b, L, d), A, randn(b, L, n), randn(b, L, n)]
    return [*shared, randn(d), randn(b, L, d), randn(d), state, None]


def results(scan, a):
    out, last = scan(*a, True)
    grads = torch.autograd.grad(
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() + last.square().sum(),
        [x for x in a if x is not None],
    )
    return [out.detach(), last.detach(), *grads]


def relative_errors(got, expected):
    return [
        float((x.double() - y.double()).norm() / y.double().norm())
        for x, y in zip(got, expected, strict=True)
    ]


@pytest.fixture
def fresh(monkeypatch):
    """Compilation as in a new process."""
    monkeypatch.setattr(compiled, "_failure", None)
    monkeypatch.setattr(chunked, "COMPILED_STEPS", 4)  # the same code, less of it
    monkeypatch.delenv("WORKBENCH_COMPILE", raising=False)
    return monkeypatch


@needs_compiler
@pytest.mark.slow
def test_equals_the_oracle_with_one_graph_for_all_batches_and_lengths(fresh):
    kernels = [compiled.compiled(c.fn, c.eager, traced=True) for c in chunked._COMPILED]
    fresh.setattr(chunked, "_COMPILED", kernels)
    for b, L in [(1, 40), (1, 1), (3, 33), (2, 257), (1, 1025)]:
        a = inputs(b, L)
        expected = results(
            scan_reference, [None if x is None else x.detach().double().requires_grad_() for x in a]
        )
        assert max(relative_errors(results(scan_compile, a), expected)) < 1e-5
        assert [len(k._graphs) for k in kernels] == [1, 1], "another length or batch compiled another graph"
    assert compiled.broken() is None
    a = inputs(2, 90)
    assert all(
        torch.equal(x, y) for x, y in zip(results(scan_compile, a), results(scan_compile, a), strict=True)
    )

    # Inference mode, no gradients, autocast, strided input and an expanded gradient need no further graph.
    plain = scan_compile(*a, True)[0]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scan_compile(*a, True)[0], plain)
    with torch.inference_mode():
        copies = [None if x is None else x.clone() for x in a]
        assert torch.equal(scan_compile(*copies, True)[0], plain)
    a[0] = a[0].detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    out, _ = scan_compile(*a, True)
    assert torch.equal(out, plain)
    out.sum().backward()
    assert [len(k._graphs) for k in kernels] == [1, 1]


@needs_compiler
@pytest.mark.slow
def test_a_model_that_uses_the_scan_compiles_as_one_graph(fresh):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.A = torch.nn.Parameter(-torch.rand(*D_STATE))

        def forward(self, u, delta, B, C, D, z, bias, h0):
            out, last = scan_compile(u.sin(), delta, self.A, B, C, D, z, bias, h0, None, True)
            return out.cos().sum() + last.sum()

    model = Model()
    u, delta, _, B, C, D, z, bias, h0, _ = inputs(2, 50)
    args = (u, delta, B, C, D, z, bias, h0)
    wanted = [*args, model.A]
    expected = torch.autograd.grad(model(*args), wanted)
    got = torch.autograd.grad(torch.compile(model, fullgraph=True)(*args), wanted)
    assert max(relative_errors(got, expected)) < 1e-6


def test_no_compiler_on_the_path_is_noticed_without_compiling(fresh, tmp_path):
    fresh.setenv("PATH", str(tmp_path))
    fresh.delenv("CXX", raising=False)
    ok, reason = compiled.available()
    assert not ok and "C++ compiler" in reason
    fresh.setattr(chunked, "_COMPILED", [compiled.compiled(c.fn, c.eager) for c in chunked._COMPILED])
    a = inputs(1, 20)
    assert max(relative_errors(results(scan_compile, a), results(scan_reference, a))) < 1e-5


def test_switched_off_by_the_environment(fresh):
    fresh.setenv("WORKBENCH_COMPILE", "0")
    assert compiled.available() == (False, "WORKBENCH_COMPILE=0 switches compilation off")
    assert compiled.compiled(lambda x: x + 1)(torch.ones(1)) == 2


def test_a_failing_compiler_warns_once_and_leaves_the_eager_numbers(fresh):
    def broken(*args, **kwargs):
        def call(*args):
            raise RuntimeError("the compiler exploded\nwith details")

        return call

    fresh.setattr(torch, "compile", broken)
    fresh.setattr(compiled, "_has_cpp_compiler", lambda: True)
    fresh.setattr(chunked, "_COMPILED", [compiled.compiled(c.fn, c.eager) for c in chunked._COMPILED])
    a = inputs(2, 70)
    with pytest.warns(RuntimeWarning, match="the compiler exploded; the eager kernels") as caught:
        got = results(scan_compile, a)
    assert len(caught) == 1
    assert max(relative_errors(got, results(scan_reference, a))) < 1e-5
    assert "exploded" in compiled.broken() and compiled.available() == (False, compiled.broken())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results(scan_compile, a)


def test_a_damaged_cache_is_left_for_a_fresh_one_once(fresh):
    fresh.setenv("TORCHINDUCTOR_CACHE_DIR", "/nonexistent/cache")
    fresh.setattr(compiled, "_has_cpp_compiler", lambda: True)
    folders = []

    def compile_(f, **options):
        def call(*args):
            import os

            folders.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
            if len(folders) == 1:
                raise ImportError("/x/y.so: file too short")
            return f(*args)

        return call

    fresh.setattr(torch, "compile", compile_)
    f = compiled.compiled(lambda x: 2 * x)
    assert not f.ready(torch.ones(1))
    assert f(torch.ones(1)) == 2 and compiled.broken() is None
    assert len(set(folders)) == 2 and f.ready(torch.ones(1)) and not f.ready(torch.ones(2))


def test_wrong_arguments_raise_and_do_not_count_as_a_broken_compiler(fresh):
    fresh.setattr(torch, "compile", lambda f, **options: f)
    fresh.setattr(compiled, "_has_cpp_compiler", lambda: True)
    with pytest.raises(RuntimeError):
        compiled.compiled(lambda x, y: x + y)(torch.ones(2), torch.ones(3))
    assert compiled.broken() is None


@needs_compiler
@pytest.mark.slow
def test_a_compiler_that_fails_for_real(tmp_path):
    """In a process of its own: $CXX is a program that always fails."""
    bad = tmp_path / "cxx"
    bad.write_text("#!/bin/sh\nexit 1\n")
    bad.chmod(0o755)
    code = (
        "import torch, warnings\n"
        "from workbench.scan import chunked, compiled\n"
        "chunked.COMPILED_STEPS = 4\n"
        "from workbench.scan.chunked import scan_compile, scan_eager\n"
        "u = torch.rand(1, 40, 2); A = -torch.rand(2, 2); B = torch.rand(1, 40, 2)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    out, _ = scan_compile(u, u, A, B, B, None, None, None, None, None, True)\n"
        "ours = [w for w in caught if 'eager kernels are used' in str(w.message)]\n"
        "assert len(ours) == 1 and compiled.broken(), caught\n"
        "expected, _ = scan_eager(u, u, A, B, B, None, None, None, None, None, True)\n"
        "assert torch.allclose(out, expected, rtol=1e-5)\n"
    )
    import os

    env = {**os.environ, "CXX": str(bad), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
