"""Adapters: HypLoRA beside LoRA, DoRA, the frozen base, peft's own, and HypLoRA spelled out on the hyperboloid.

    workbench bench adapters                  # two minutes
    python benchmarks/adapters.py --budget 5 --sizes 1024,1024,1024 --out build/adapters.json

A training step of one adapted linear layer: forward, and backward to the input and the adapter, at N tokens, d inputs
and k outputs, float32, on one thread of a CPU, or on a GPU with --device cuda. Candidates take turns; a ratio is the
median over rounds of the ratio within a round, in CPU time of the process (on a GPU in wall time). Beside it the
bytes that autograd keeps for the backward pass, weights not counted. "Spelled out" is what the formulas of the paper
say, by `workbench.manifolds.Lorentz`: exponential map, low-rank map, logarithm, with tensors of tokens × out.
peft's rows need pip install -e '.[peft]'.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from _measure import Readings, Work, clock, side_by_side, speed
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from workbench.files import write_json
from workbench.manifolds import Lorentz
from workbench.models.hyplora import DoRALinear, HypLoRALinear, LoRALinear

SIZES = ((1024, 384, 1536), (1024, 1024, 1024), (1024, 2048, 2048))  # tokens, in, out; the first: of MiniLM
RANK, ALPHA = 16, 32
OURS, REFERENCE = "HypLoRA", "LoRA"


class SpelledOut(HypLoRALinear):
    """The same numbers by the maps of the paper, float32 throughout."""

    def update(self, x: Tensor) -> Tensor:
        space, s = Lorentz(c=1 / self.K.item()), self.in_features**0.5
        point = space.expmap0(F.pad(x / s, (1, 0)))[..., 1:]
        y = F.linear(F.linear(point, self.hyplora_A), self.hyplora_B)
        time = (y.square().sum(-1, keepdim=True) + self.K).sqrt()
        return self.scaling * s * space.logmap0(torch.cat([time, y.double()], -1))[..., 1:].to(x.dtype)


def layers(d: int, k: int, device: str, seed: int) -> dict[str, nn.Module]:
    """Name → a layer; all stand beside the same base, with the same A and B."""
    torch.manual_seed(seed)
    base = nn.Linear(d, k, device=device).requires_grad_(False)
    out: dict[str, nn.Module] = {"the base alone": base}
    kinds = {
        REFERENCE: LoRALinear,
        OURS: HypLoRALinear,
        "HypLoRA, spelled out": SpelledOut,
        "DoRA": DoRALinear,
    }
    out |= {name: kind(base, RANK, ALPHA) for name, kind in kinds.items()}
    if find_spec("peft") is not None:
        from peft import LoraConfig, inject_adapter_in_model

        for name, dora in (("peft's LoRA", False), ("peft's DoRA", True)):
            config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], use_dora=dora)
            out[name] = inject_adapter_in_model(config, nn.Sequential(base))[0]
    start = {
        "_A": torch.randn(RANK, d, device=device) / d**0.5,
        "_B": 0.02 * torch.randn(k, RANK, device=device),
    }
    for layer in out.values():
        for name, p in layer.named_parameters():
            for which, value in start.items():  # not B = 0, where updates vanish and could not be compared
                if which in name:
                    p.data.copy_(value)
    return out


def candidates(
    n: int, d: int, k: int, device: str, seed: int
) -> tuple[dict[str, Work], dict[str, int], float]:
    """Name → work, name → bytes kept for the backward pass; and by how much HypLoRA differs from spelled out."""
    found = layers(d, k, device, seed)
    x = torch.randn(n, d, device=device, requires_grad=True)
    works = {}
    for name, layer in found.items():
        learned = [p for p in layer.parameters() if p.requires_grad]
        works[name] = Work(lambda layer=layer: layer(x), [x, *learned], ("train",))
    with torch.no_grad():
        exact, ours = found["HypLoRA, spelled out"](x), found[OURS](x)
    difference = float((ours - exact).abs().max() / exact.abs().max())
    return works, {name: kept(layer, x) for name, layer in found.items()}, difference


def kept(layer: nn.Module, x: Tensor) -> int:
    """Bytes of tensors that autograd keeps for the backward pass, each storage once, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    found: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = layer(x)
    del out
    return sum(found.values())


def gpu_clock(call, times: int) -> tuple[float, float]:
    """`clock`, between two waits for the device."""

    def waited() -> None:
        call()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return clock(waited, times)


def table(readings: dict[str, Readings], memory: dict[str, int], clocked: str, title: str) -> Table:
    out = Table(
        "", "ms a step", "time / LoRA's", "kept, MB", "kept / LoRA's", title=title, title_justify="left"
    )
    for name, r in readings.items():
        ratio = speed(readings[REFERENCE], r, "train", clocked)
        out.add_row(name, f"{1e3 * r.median('train', clocked):.2f}", f"{ratio:.3f}", f"{memory[name] / 2**20:.2f}",
                    f"{memory[name] / memory[REFERENCE]:.3f}")  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=40.0, help="seconds for each size, about")
    parser.add_argument("--sizes", nargs="+", metavar="N,D,K", help="tokens, width in, width out")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="also write the numbers to this JSON file")
    args = parser.parse_args()
    sizes = [tuple(int(v) for v in s.split(",")) for s in args.sizes] if args.sizes else SIZES
    torch.set_num_threads(1)
    clocked, timer = ("cpu", clock) if args.device == "cpu" else ("wall", gpu_clock)
    console, numbers = Console(), []
    if find_spec("peft") is None:
        console.print("peft is not installed: its rows are left out (pip install -e '.[peft]')")
    for n, d, k in sizes:
        works, memory, difference = candidates(n, d, k, args.device, args.seed)
        readings = side_by_side(works, args.budget, clock=timer)
        title = f"{n} tokens, {d} → {k}, rank {RANK}; HypLoRA and spelled out differ by {difference:.0e}"
        console.print(table(readings, memory, clocked, title))
        ratios = {name: speed(readings[REFERENCE], r, "train", clocked) for name, r in readings.items()}
        numbers.append({"tokens": n, "in": d, "out": k, "ratios": ratios, "kept": memory, "difference": difference,
                        "ms": {name: 1e3 * r.median("train", clocked) for name, r in readings.items()}})  # fmt: skip
    if args.out:
        write_json(args.out, numbers)


if __name__ == "__main__":
    main()
