"""What benchmarks/scan.py compares: inputs, and one function for each implementation, all with the same arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from _measure import MODES, Work
from torch import Tensor, nn

from workbench import scan
from workbench.evaluation.timing import relative_error
from workbench.scan import compiled

STATE2 = 64  # of Mamba-2
TRIAL = 1024  # length of a first call: long enough for each backend to take the path of long sequences
HEAD = 64  # channels of a head, of attention as of SSD


@dataclass(frozen=True)
class Sizes:
    """Batch, channels (a block's d_model), numbers of state a channel, and where and in what they are."""

    batch: int
    width: int
    state: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"batch {self.batch}, width {self.width}, state {self.state}, {kind}"


@dataclass(frozen=True)
class Candidate:
    """A row of the table. `build(sizes, L)` gives the work; `needs` names a package of the bench extra."""

    label: str
    build: Callable[[Sizes, int], Work]
    backend: str | None = None  # of ours
    needs: str | None = None
    longest: int | None = None
    exact: bool = True  # computes what the oracle computes


def inputs(op: str, sizes: Sizes, L: int) -> dict[str, Tensor]:
    """Steps between 0.001 and 0.1 at their middle and decay rates as in a new model, all else normal."""
    return _scan_inputs(sizes, L) if op == "selective_scan" else _ssd_inputs(sizes, L)


@lru_cache(maxsize=1)
def _scan_inputs(sizes: Sizes, L: int) -> dict[str, Tensor]:
    b, d, n = sizes.batch, sizes.width, sizes.state
    normal, bias, leaf = _drawing(sizes)
    A = -torch.arange(1.0, n + 1).repeat(d, 1)
    wide = {"A": leaf(A), "D": leaf(torch.ones(d)), "delta_bias": leaf(bias(d))}
    u, delta, z = (normal(b, L, d) for _ in range(3))
    return {"u": u, "delta": delta, "z": z, "B": normal(b, L, n), "C": normal(b, L, n)} | wide


@lru_cache(maxsize=1)
def _ssd_inputs(sizes: Sizes, L: int) -> dict[str, Tensor]:
    b, h, n = sizes.batch, sizes.width // HEAD, sizes.state
    normal, bias, leaf = _drawing(sizes)
    wide = {"A": leaf(-torch.linspace(1, 16, h)), "D": leaf(torch.ones(h)), "dt_bias": leaf(bias(h))}
    x, z = (normal(b, L, h, HEAD) for _ in range(2))
    return {"x": x, "z": z, "dt": normal(b, L, h), "B": normal(b, L, 1, n), "C": normal(b, L, 1, n)} | wide


def _drawing(sizes: Sizes) -> tuple[Callable, Callable, Callable]:
    """Functions that draw normal tensors and biases of steps (inverse softplus), and make a tensor a float32 leaf."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(sizes.device, sizes.dtype).requires_grad_()

    def bias(count: int) -> Tensor:
        step = torch.empty(count).uniform_(math.log(1e-3), math.log(0.1), generator=g).exp()
        return step + torch.log(-torch.expm1(-step))

    return normal, bias, lambda x: x.to(sizes.device).requires_grad_()


# Ours -------------------------------------------------------------------------------------------------------------


def _on_inputs(op: str, f: Callable, sizes: Sizes, L: int, modes: tuple[str, ...] = MODES) -> Work:
    x = inputs(op, sizes, L)
    return Work(partial(f, **x), list(x.values()), modes)


def ours(op: str, backend: str, label: str, **more) -> Candidate:
    f = partial(getattr(scan, op), softplus=True, backend=backend)
    return Candidate(label, partial(_on_inputs, op, f), backend=backend, **more)


def theirs(op: str, f: Callable, label: str, modes: tuple[str, ...] = MODES, **more) -> Candidate:
    return Candidate(label, partial(_on_inputs, op, f, modes=modes), **more)


# What a user would take instead -----------------------------------------------------------------------------------


def textbook_scan(u, delta, A, B, C, D, z, delta_bias) -> Tensor:
    """Gu & Dao's Algorithm 2 as it stands: discretise everything, then one step after another."""
    step = F.softplus(delta + delta_bias)
    decay = torch.exp(step[..., None] * A)
    inflow = (step * u)[..., None] * B[:, :, None]
    h, ys = torch.zeros_like(decay[:, 0]), []
    for t in range(u.shape[1]):
        h = decay[:, t] * h + inflow[:, t]
        ys.append((h @ C[:, t, :, None]).squeeze(-1))
    return (torch.stack(ys, 1) + D * u) * F.silu(z)


def pscan_scan(u, delta, A, B, C, D, z, delta_bias) -> Tensor:
    """mambapy's parallel scan with the operations around it that its own block has."""
    from mambapy.pscan import pscan

    step = F.softplus(delta + delta_bias)
    decay = torch.exp(step.unsqueeze(-1) * A)
    inflow = step.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1)
    y = (pscan(decay, inflow) @ C.unsqueeze(-1)).squeeze(3) + D * u
    return y * F.silu(z)


def minimal_ssd(x, dt, A, B, C, D, z, dt_bias, chunk: int = 64) -> Tensor:
    """SSD by segment sums, chunk states mixed by one more of them: the mathematics of Dao & Gu's Listing 1."""
    b, L, h, _ = x.shape
    step = F.softplus(dt + dt_bias)
    pad = -L % chunk
    X, a, B, C = (
        F.pad(m, (0,) * (2 * m.dim() - 3) + (pad,)).unflatten(1, (-1, chunk))
        for m in (x * step[..., None], step * A, B.expand(b, L, h, -1), C.expand(b, L, h, -1))
    )
    a = a.permute(0, 3, 1, 2)  # (b, h, chunks, steps)
    total = a.cumsum(-1)
    inside = torch.exp(_segment_sums(a))
    y = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", C, B, inside, X)
    states = torch.einsum("bclhn,bhcl,bclhp->bchpn", B, torch.exp(total[..., -1:] - total), X)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], 1)
    between = torch.exp(_segment_sums(F.pad(total[..., -1], (1, 0))))
    states = torch.einsum("bhzc,bchpn->bzhpn", between, states)[:, :-1]
    y = y + torch.einsum("bclhn,bchpn,bhcl->bclhp", C, states, torch.exp(total))
    return (y.flatten(1, 2)[:, :L] + D[:, None] * x) * F.silu(z)


def _segment_sums(a: Tensor) -> Tensor:
    """(…, T) → (…, T, T): sums over j < k <= i, -inf where j > i."""
    T = a.shape[-1]
    keep = torch.ones(T, T, dtype=torch.bool, device=a.device)
    sums = a[..., None].expand(*a.shape, T).masked_fill(~keep.tril(-1), 0).cumsum(-2)
    return sums.masked_fill(~keep.tril(), -math.inf)


def attention(sizes: Sizes, L: int, flash: bool = False) -> Work:
    """Causal attention of the same width; q, k, v are given, so that it is the operation alone, as with the scans."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    normal, _, _ = _drawing(sizes)
    qkv = [normal(sizes.batch, sizes.width // HEAD, L, HEAD) for _ in range(3)]

    def run() -> Tensor:
        if not flash:
            return F.scaled_dot_product_attention(*qkv, is_causal=True)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(*qkv, is_causal=True)

    return Work(run, qkv)


# Blocks -----------------------------------------------------------------------------------------------------------


class AttentionBlock(nn.Module):
    """Projection to q, k, v, causal attention, projection back: a Transformer's mixer, no norm, no MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


def _block(make: Callable[[Sizes], nn.Module], sizes: Sizes, L: int) -> Work:
    torch.manual_seed(0)
    block = make(sizes).to(sizes.device, sizes.dtype)
    normal, _, _ = _drawing(sizes)
    x = normal(sizes.batch, L, sizes.width)
    return Work(lambda: block(x), [x, *block.parameters()])


def _mamba(sizes: Sizes, backend: str) -> nn.Module:
    from workbench.nn import Mamba

    return Mamba(sizes.width, d_state=sizes.state, backend=backend)


def _mamba2(sizes: Sizes, backend: str) -> nn.Module:
    from workbench.nn import Mamba2

    return Mamba2(sizes.width, d_state=STATE2, backend=backend)


def our_block(make: Callable[[Sizes, str], nn.Module], label: str) -> Candidate:
    backend, kind = ("compile", "compiled") if compiled.available()[0] else ("eager", "eager")
    build = partial(_block, partial(make, backend=backend))
    return Candidate(f"{label}, {kind}", build, backend=backend, exact=False)


def _mambapy(sizes: Sizes) -> nn.Module:
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=sizes.width, n_layers=1, d_state=sizes.state))


# The rows of each table -------------------------------------------------------------------------------------------

COMPILED, ATTENTION, PSCAN, LISTING = "compile", "attention", "pscan", "listing"
CANDIDATES: dict[str, dict[str, Candidate]] = {
    "selective_scan": {
        COMPILED: ours("selective_scan", "compile", "workbench, compiled"),
        "eager": ours("selective_scan", "eager", "workbench, eager"),
        "reference": ours("selective_scan", "reference", "workbench, step by step", longest=1024),
        "textbook": theirs("selective_scan", textbook_scan, "textbook loop", ("forward",)),
        PSCAN: theirs("selective_scan", pscan_scan, "mambapy `pscan`", needs="mambapy"),
        ATTENTION: Candidate("causal attention", attention, exact=False),
    },
    "ssd": {
        COMPILED: ours("ssd", "compile", "workbench, compiled"),
        "eager": ours("ssd", "eager", "workbench, eager"),
        LISTING: theirs("ssd", minimal_ssd, "published listing"),
        ATTENTION: Candidate("causal attention", attention, exact=False),
    },
    "block": {
        "mamba": our_block(_mamba, "workbench `Mamba`"),
        "mamba2": our_block(_mamba2, "workbench `Mamba2`"),
        PSCAN: Candidate("mambapy `MambaBlock`", partial(_block, _mambapy), needs="mambapy", exact=False),
        ATTENTION: Candidate("attention block", partial(_block, lambda s: AttentionBlock(s.width)), exact=False),
    },
}  # fmt: skip
TITLES = {
    "selective_scan": "Mamba-1, selective scan",
    "ssd": "Mamba-2, SSD",
    "block": f"Whole blocks, Mamba2 with state {STATE2}",
}
SIZES = {"selective_scan": Sizes(1, 256, 16), "ssd": Sizes(1, 512, STATE2), "block": Sizes(1, 256, 16)}
OURS = {
    "selective_scan": (COMPILED, "eager"),
    "ssd": (COMPILED, "eager"),
    "block": ("mamba", "mamba2"),
}
RIVALS = {"selective_scan": (ATTENTION, PSCAN), "ssd": (ATTENTION, LISTING), "block": (ATTENTION, PSCAN)}
SELDOM = ("reference", "textbook")  # slow, and measured against by nothing


def missing(candidate: Candidate, sizes: Sizes) -> str | None:
    """Why a candidate cannot run here, or None. Compiles ours where that is asked for."""
    if candidate.needs and find_spec(candidate.needs) is None:
        return f"{candidate.needs} is not installed: pip install -e '.[bench]'"
    candidate.build(sizes, TRIAL).forward()
    if candidate.backend:
        used = scan.which()
        return None if used.backend == candidate.backend else used.reason
    return None


# Errors -----------------------------------------------------------------------------------------------------------


def worst_error(op: str, candidate: Candidate, sizes: Sizes, L: int, gradients: bool) -> float:
    """Relative error (Frobenius) against the float64 recurrence: the worst of output and, if asked, all gradients."""
    work = candidate.build(sizes, L)
    got = _answers(work, gradients and "train" in work.modes)
    pairs = zip(got, _truth(op, sizes, L, gradients), strict=False)
    return max(relative_error(a, t) for a, t in pairs)


@lru_cache(maxsize=1)
def _truth(op: str, sizes: Sizes, L: int, gradients: bool) -> list[Tensor]:
    x = {name: t.detach().double().requires_grad_() for name, t in inputs(op, sizes, L).items()}
    run = partial(getattr(scan, op), **x, softplus=True, backend="reference")
    return _answers(Work(run, list(x.values())), gradients)


def _answers(work: Work, gradients: bool) -> list[Tensor]:
    with torch.set_grad_enabled(gradients):
        out = work.run()
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *(torch.autograd.grad(out, work.leaves, cotangent) if gradients else ())]
