"""Which implementation runs: asked for by name, or chosen; what cannot run here gives way to one that can.

`auto` on a CPU starts eager, so that no first cell waits for a compiler, and goes over to compiled code once a shape
has been asked for so much that compiling pays. It counts work, not seconds: a run repeated on one machine takes the
same turns and gives the same bits. WORKBENCH_COMPILE=1 compiles at once, WORKBENCH_COMPILE=0 never.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from workbench.errors import ParameterError, suggest

BACKENDS = ("reference", "eager", "compile", "triton", "mamba_ssm")
TORCH = ("eager", "compile")
# Numbers of state updates (b L d n) after which compiling pays on a CPU: half a minute of eager training, as long as
# the compiler takes (twice that the first time, as it prepares headers). Not ssd: its time goes into matrix products,
# which compiling leaves as they are. A call costs as much as OVERHEAD updates before its first.
PAYS = {"selective_scan": 2**32, "ssd": math.inf}
OVERHEAD = 2**17
# Sequences of fewer updates each go faster many at a time, step by step, as the reference does it, as long as all
# states of a batch fit: PLAIN numbers, kept some four times for the gradient. Beyond that the eager kernels do it.
SHORT, PLAIN = 2**16, 2**23


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


def run(op: str, backend: str, args: tuple, **own) -> tuple[Tensor, Tensor]:
    """Run one backend on checked arguments in their canonical shapes; returns the output and the last state.

    own: options of those that are written in torch, eager and compile.
    """
    if backend not in (*BACKENDS, "auto"):
        raise ParameterError(
            f"{op}: backend should be auto or one of {', '.join(BACKENDS)}, but is {backend!r}"
            + suggest(backend, BACKENDS)
        )
    if torch.compiler.is_compiling():
        name = _choose_in_graph(op, backend, args)
        return implementation(op, name)(*args, **(own if name in TORCH else {}))
    name, reason = _choose(op, backend, args)
    out = implementation(op, name)(*args, **(own if name in TORCH else {}))
    if name == "compile" and (why := _compiled().broken()):
        name, reason = "eager", why
    _last[op] = _last["any"] = Choice(op, name, reason)
    return out


def _choose_in_graph(op: str, backend: str, args: tuple) -> str:
    """Inside a user's torch.compile the machine cannot be asked, and need not be: without a C++ compiler the compiled
    kernels answer eagerly, and on a GPU triton is what the graph itself is made of."""
    if backend != "auto":
        return backend
    if args[0].device.type == "cpu":
        return "eager" if args[0].dtype == torch.float64 or PAYS[op] == math.inf else "compile"
    return "compile" if _kernels(op).supports(*args) else "triton"


def _choose(op: str, backend: str, args: tuple) -> tuple[str, str]:
    if backend in ("reference", "eager"):
        return backend, "asked for"
    if backend != "auto":
        if (why := _unable(op, backend, args)) is None:
            return backend, "asked for"
        _warn(f"{op}: backend {backend!r} cannot run here ({why}); the eager one gives the same numbers")
        return "eager", f"{backend} cannot run here: {why}"
    if args[0].device.type != "cpu":
        refused = []
        for name in ("triton", "mamba_ssm", "compile"):
            if (why := _unable(op, name, args)) is None:
                return name, "the fastest that can run" + "".join(f"; {r}" for r in refused)
            refused.append(f"not {name}: {why}")
        return "eager", "; ".join(refused)
    return _choose_on_cpu(op, args)


def _choose_on_cpu(op: str, args: tuple) -> tuple[str, str]:
    if args[0].dtype == torch.float64:
        return "eager", "float64 is for checking"
    wanted = os.environ.get("WORKBENCH_COMPILE") == "1"
    if PAYS[op] == math.inf and not wanted:
        return "eager", "compiling does not make matrix products faster"
    b, each = args[0].shape[0], args[0].shape[1:].numel() * args[3].shape[-1]
    if each < SHORT and not wanted:
        return ("reference" if b * each <= PLAIN else "eager"), "sequences this short go many at a time"
    if (why := _unable(op, "compile", args)) is not None:
        return "eager", why
    if wanted:
        return "compile", "WORKBENCH_COMPILE=1"
    key = (op, args[0].dtype, args[0].shape[2:], args[3].shape[2:], args[-1])
    _work[key] += b * each + OVERHEAD
    done = _work[key] / PAYS[op]
    if done < 1:
        return "eager", f"compiling pays after more work of this shape ({done:.0%} so far)"
    return "compile", "enough work of this shape for compiling to pay"


def _unable(op: str, backend: str, args: tuple) -> str | None:
    """Why a backend cannot take these arguments on this machine, or None."""
    if (why := _lacking(backend, args[0].device.type)) is not None:
        return why
    if backend == "compile":
        return None
    if backend == "mamba_ssm":
        from workbench.scan.released import unable

        why = unable(op, args)
    else:
        why = _kernels(op).supports(*args)
    if why is None and args[0].device.type == "cuda":
        from workbench.scan.selfcheck import failure

        why = failure(op, backend, str(args[0].device))
    return why


def _lacking(backend: str, device: str) -> str | None:
    """What this machine lacks for a backend, or None."""
    if backend == "compile":
        able, why = _compiled().available(device)
        return None if able else why
    if backend == "mamba_ssm":
        return None if find_spec("mamba_ssm") else "mamba_ssm is not installed"
    if find_spec("triton") is None:
        return "triton is not installed"
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"triton needs a CUDA device, the tensors are on {device}"
    return None


def _kernels(op: str):
    if op == "selective_scan":
        from workbench.scan import triton_selective as kernels
    else:
        from workbench.scan import triton_ssd as kernels
    return kernels


def implementation(op: str, name: str):
    """The function behind a backend's name; the modules of optional packages are imported only here."""
    short = "scan" if op == "selective_scan" else "ssd"
    if name == "reference":
        from workbench.scan import reference as module
    elif name == "mamba_ssm":
        from workbench.scan import released as module
    elif name == "triton":
        module = _kernels(op)
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
