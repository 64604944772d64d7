"""`torch.compile` for kernels: lazily, with a cache folder of our own, and never fatal.

`compiled(fn)` behaves as `fn`. The first call of each signature (shapes, dtypes, which arguments are None) compiles
one static graph; when no compiler is there, or the compiler fails, one warning says so and the eager function answers
from then on, with the same numbers. `WORKBENCH_COMPILE=0` switches compilation off.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from workbench.paths import cache_dir

# 64 by default: too few for an unrolled kernel, whose states would then go through memory.
OPTIONS = {"max_fusion_size": 4096}

_one_at_a_time = threading.RLock()
_failure: str | None = None  # why compilation was given up in this process


def available(device: str = "cpu") -> tuple[bool, str]:
    """Whether compiling may be tried for this device type, and the reason. Cheap: nothing is compiled."""
    if os.environ.get("WORKBENCH_COMPILE", "").strip().lower() in {"0", "off", "no", "false"}:
        return False, "WORKBENCH_COMPILE=0 switches compilation off"
    if _failure is not None:
        return False, _failure
    if device == "cpu" and not _has_cpp_compiler():
        return False, "no C++ compiler (g++, clang++ or $CXX) on PATH"
    return True, "torch.compile"


def broken() -> str | None:
    """The first failure to compile in this process, after which everything runs eagerly; None if there was none."""
    return _failure


def compiled(fn: Callable, eager: Callable | None = None, *, traced: bool = False) -> Compiled:
    """What `fn` gives, through `torch.compile`; `eager` (default `fn`) answers if that fails.

    `traced` leaves out torch.compile's front end, whose checks cost some 30 us a call: for functions of tensors,
    numbers and None that return a tuple of tensors and None, that are called hundreds of times in a row with
    contiguous tensors, and whose path depends on nothing but the signature. They serve any number of threads.
    """
    return Compiled(fn, eager or fn, traced)


class Compiled:
    """See `compiled`. Arguments are positional: tensors without gradients, None, bool, int or float."""

    def __init__(self, fn: Callable, eager: Callable, traced: bool = False) -> None:
        self.fn, self.eager, self.traced = fn, eager, traced
        self._graphs: dict[Hashable, Callable] = {}

    def __call__(self, *args: Any) -> Any:
        graph = self._graphs.get(key := _signature(args))
        if graph is not None:
            return graph(*args)
        with _one_at_a_time:
            if key in self._graphs:  # another thread has compiled it meanwhile
                return self._graphs[key](*args)
            if not available(_device(args))[0]:
                return self.eager(*args)
            return self._first_call(key, args)

    def at_once(self, *args: Any) -> Callable:
        """What serves arguments like these, if it has been compiled: the look at each of them, 20 us, is left out."""
        return self._graphs.get(_signature(args), self)

    def ready(self, *args: Any) -> bool:
        """Whether this signature has been compiled in this process, so that a call costs no compile time."""
        return _signature(args) in self._graphs

    def _first_call(self, key: Hashable, args: tuple) -> Any:
        _use_cache_dir()
        try:
            graph = self._new_graph(args)
            try:
                result = graph(*args)
            except Exception as error:
                if not _damaged_cache(error):
                    raise
                # A process killed while the compiler wrote leaves a truncated library behind: start afresh, once.
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="workbench-inductor-")
                graph = self._new_graph(args)
                result = graph(*args)
        except Exception as error:
            result = self.eager(*args)  # if this raises too, the arguments are wrong, not the compiler
            _give_up(self.fn.__name__, error)
            return result
        self._graphs[key] = graph
        return result

    def _new_graph(self, args: tuple) -> Callable:
        if self.traced:
            return _traced(self.fn, args)
        # Dynamo keeps its graphs by code object and allows few for each; a copy a signature has room of its own.
        f = self.fn
        code = f.__code__.replace(co_name=f"{f.__name__}_{len(self._graphs)}")
        copy = types.FunctionType(code, f.__globals__, f.__name__, f.__defaults__, f.__closure__)
        return torch.compile(copy, fullgraph=True, dynamic=False, options=OPTIONS)


def _traced(fn: Callable, args: tuple) -> Callable:
    """`fn` for arguments of this signature, as a graph of tensor operations that Inductor compiles."""
    import torch._inductor  # seconds; not when this module is imported
    from torch.fx.experimental.proxy_tensor import make_fx

    tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
    present: list[bool] = []

    def of_tensors(*values: Tensor) -> tuple[Tensor, ...]:
        full = list(args)
        for i, value in zip(tensors, values, strict=True):
            full[i] = value
        results = fn(*full)
        present[:] = [r is not None for r in results]
        return tuple(r for r in results if r is not None)

    inputs = [args[i] for i in tensors]
    options = {
        **OPTIONS,
        "size_asserts": False,  # 15 us a call to check the strides that the caller has promised
    }
    if _device(args) == "cpu":
        options["cpp.dynamic_threads"] = True
        options["cpp.threads"] = max(2, os.cpu_count() or 1)
        options["cpp_wrapper"] = True  # what surrounds the loops in C++ as well: 50 us of 300 a call
        options["cpp.enable_floating_point_contract_flag"] = "fast"  # a * b + c rounded once
    with torch.no_grad():
        traced = make_fx(of_tensors, tracing_mode="fake")(*inputs)
        graph = torch._inductor.compile(traced, inputs, options=options)

    def call(*args: Any) -> tuple[Tensor | None, ...]:
        found = graph(*[args[i] for i in tensors])
        if all_present:
            return found
        found = iter(found)
        return tuple([next(found) if here else None for here in present])

    all_present = all(present)
    return call


def _signature(args: tuple) -> Hashable:
    return tuple([(a.shape, a.stride(), a.dtype, a.device) if isinstance(a, Tensor) else a for a in args])


def _device(args: tuple) -> str:
    return next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")


def _has_cpp_compiler() -> bool:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if sys.platform == "win32":
        names += ["cl"]
    return any(shutil.which(name) for name in names)


def _use_cache_dir() -> None:
    """Keep compiled code beside the workbench's downloads, unless the user has said where it goes."""
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return
    folder = cache_dir() / "inductor"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # torch's own default, a temporary folder
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def _damaged_cache(error: Exception) -> bool:
    return any(sign in str(error) for sign in ("file too short", "invalid ELF header", "undefined symbol"))


def _give_up(name: str, error: Exception) -> None:
    global _failure
    lines = str(error).strip().splitlines()
    _failure = f"torch.compile of {name} failed: {type(error).__name__}: {lines[0] if lines else ''}"[:300]
    warnings.warn(f"{_failure}; the eager kernels are used instead.", RuntimeWarning, stacklevel=4)
