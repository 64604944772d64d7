"""Which implementation runs: asked for by name, or chosen; what cannot run here gives way to one that can.

`auto` on a CPU starts eager, so that no first cell waits for a compiler, and goes over to compiled code once a shape
has been asked for so much that compiling pays. It counts work, not seconds: a run repeated on one machine takes the
same turns and gives the same bits. WORKBENCH_COMPILE=1 compiles at once, WORKBENCH_COMPILE=0 never.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from workbench.errors import ParameterError, suggest

BACKENDS = ("reference", "eager", "compile", "triton", "mamba_ssm")
# Numbers of state updates (b L d n) after which compiling has paid: some ten seconds of eager training each. A call
# costs as much as OVERHEAD updates before its first.
PAYS = {"selective_scan": 2**30, "ssd": 2**34}
OVERHEAD = 2**17


@dataclass(frozen=True)
class Choice:
    """What ran last: the operation, its backend, and why that one."""

    op: str
    backend: str
    reason: str


_last: dict[str, Choice] = {}
_work: Counter = Counter()
_warned: set[str] = set()


def which(op: str | None = None) -> Choice | None:
    """The choice made by the last call of `op` ("selective_scan" or "ssd"; None: of either), None before any call."""
    if op is not None and op not in PAYS:
        raise ParameterError(f"which: no operation {op!r}{suggest(op, PAYS)}")
    return _last.get(op or "any")


def run(op: str, backend: str, args: tuple) -> tuple[Tensor, Tensor]:
    """Run one backend on checked arguments in their canonical shapes; returns the output and the last state."""
    if backend not in (*BACKENDS, "auto"):
        raise ParameterError(
            f"{op}: backend should be auto or one of {', '.join(BACKENDS)}, but is {backend!r}"
            + suggest(backend, BACKENDS)
        )
    if torch.compiler.is_compiling():
        name, _ = _choose(op, backend, args, counting=False)
        return _implementation(op, name)(*args)
    name, reason = _choose(op, backend, args, counting=True)
    out = _implementation(op, name)(*args)
    if name == "compile" and (why := _compiled().broken()):
        name, reason = "eager", why
    _last[op] = _last["any"] = Choice(op, name, reason)
    return out


def _choose(op: str, backend: str, args: tuple, counting: bool) -> tuple[str, str]:
    if backend in ("reference", "eager"):
        return backend, "asked for"
    if backend != "auto":
        if (why := _unable(op, backend, args)) is None:
            return backend, "asked for"
        if counting:
            _warn(f"{op}: backend {backend!r} cannot run here ({why}); the eager one gives the same numbers")
        return "eager", f"{backend} cannot run here: {why}"
    if args[0].device.type != "cpu":
        refused = []
        for name in ("triton", "mamba_ssm", "compile"):
            if (why := _unable(op, name, args)) is None:
                return name, "the fastest that can run" + "".join(f"; {r}" for r in refused)
            refused.append(f"not {name}: {why}")
        return "eager", "; ".join(refused)
    return _choose_on_cpu(op, args, counting)


def _choose_on_cpu(op: str, args: tuple, counting: bool) -> tuple[str, str]:
    if args[0].dtype == torch.float64:
        return "eager", "float64 is for checking"
    if (why := _unable(op, "compile", args)) is not None:
        return "eager", why
    if not counting:
        return "compile", "inside torch.compile"
    if os.environ.get("WORKBENCH_COMPILE") == "1":
        return "compile", "WORKBENCH_COMPILE=1"
    key = (op, args[0].dtype, args[0].shape[2:], args[3].shape[2:], args[-1])
    _work[key] += args[0].numel() * args[3].shape[-1] + OVERHEAD
    done = _work[key] / PAYS[op]
    if done < 1:
        return "eager", f"compiling pays after more work of this shape ({done:.0%} so far)"
    return "compile", "enough work of this shape for compiling to pay"


def _unable(op: str, backend: str, args: tuple) -> str | None:
    """Why a backend cannot take these arguments on this machine, or None."""
    if backend == "compile":
        if op == "selective_scan" and 2 in (args[3].dim(), args[4].dim()):
            return "B or C is constant in time"
        able, why = _compiled().available()
        return None if able else why
    if backend == "mamba_ssm":
        from workbench.scan import released

        return released.unable(op, args)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if find_spec("triton") is None:
        return "triton is not installed"
    if args[0].device.type != "cuda" and not interpreted:
        return f"triton needs a CUDA device, the tensors are on {args[0].device.type}"
    if op == "selective_scan":
        from workbench.scan import triton_selective as kernels
    else:
        from workbench.scan import triton_ssd as kernels
    return kernels.supports(*args)


def _implementation(op: str, name: str):
    """The function behind a backend's name; the modules of optional packages are imported only here."""
    short = "scan" if op == "selective_scan" else "ssd"
    if name == "reference":
        from workbench.scan import reference as module
    elif name == "mamba_ssm":
        from workbench.scan import released as module
    elif name == "triton" and short == "scan":
        from workbench.scan import triton_selective as module
    elif name == "triton":
        from workbench.scan import triton_ssd as module
    elif short == "scan":
        from workbench.scan import chunked as module
    else:
        from workbench.scan import chunked_ssd as module
    return getattr(module, f"{short}_{name}")


def _compiled():
    from workbench.scan import compiled

    return compiled


def _warn(sentence: str) -> None:
    if sentence not in _warned:
        _warned.add(sentence)
        warnings.warn(sentence, stacklevel=4)
