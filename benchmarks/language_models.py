"""HELM beside its flat twins: a training step eager and compiled, attention spelled out, and decoding.

    workbench bench language_models                                # widths 128 and 384, some minutes
    python benchmarks/language_models.py --sizes 4,32,4,128,2048,8 --budget 10 --out build/language_models.json
    python benchmarks/language_models.py --device cuda --bf16 --sizes 6,64,6,512,8192,32

A step is forward, loss and backward to every weight; no optimiser. HELM and its twin have one width of heads and
equal numbers of weights. Candidates take turns; a ratio is the median over rounds of the ratio within a round, with
its quartiles, in CPU time of the process on one thread, on a GPU in wall time between two waits for it. "Kept" are
the bytes that autograd keeps for the backward pass, weights not counted; "peak" is the most that a step allocates.
Attention is spelled out as its formulas are: the (b, h, L, L) matrix of distances, softmax, weighted sum, normalised.
Decoding writes token by token after a prompt, with keys and values kept, with the latent kept and keys and values
formed anew, and with the maps absorbed.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from _measure import Readings, Work, clock, side_by_side
from adapters import gpu_clock, kept
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from workbench.evaluation.timing import peak_bytes
from workbench.files import write_json
from workbench.models.helm import HELM
from workbench.nn.hmla import HyperbolicLatentAttention
from workbench.nn.hyperbolic_attention import lorentz_attention, scale_of
from workbench.nn.lorentz import curvature_of
from workbench.training.lm_runs import make_arm

SIZES = ("4,32,4,128,2048,8", "6,64,4,256,2048,4")
PAIRS = {"HELM-D": ("helm_d", "LLaMA", "llama"), "HELM-MiCE": ("helm_mice", "DeepSeek shape", "deepseek")}
MOST_TIME, MOST_MEMORY = 1.25, 1.15  # of the twin's
MB = 2**20


class Size:
    """heads,head_dim,layers,context,vocabulary,rows of a batch."""

    def __init__(self, text: str) -> None:
        numbers = [int(part) for part in text.split(",")]
        if len(numbers) != 6 or min(numbers) < 1:
            raise ValueError(f"a size is six positive numbers, {self.__doc__}, but came as {text!r}")
        self.heads, self.head_dim, self.layers, self.context, self.vocabulary, self.rows = numbers
        self.latent = max(2, self.heads * self.head_dim // 6 + 1)  # as in the published sizes

    def arm(self, name: str, seed: int) -> nn.Module:
        given = dict(heads=self.heads, head_dim=self.head_dim, layers=self.layers, latent=self.latent)
        return make_arm(name, seed=seed, vocab_size=self.vocabulary, context=self.context, **given)

    def __str__(self) -> str:
        return (
            f"width {self.heads * self.head_dim}, {self.layers} layers, {self.rows} rows of {self.context} "
            f"tokens, vocabulary {self.vocabulary}"
        )


# -- a training step -----------------------------------------------------------------------------------
class Step(nn.Module):
    """The loss of one batch as a forward pass, in autocast where asked for."""

    def __init__(self, model: nn.Module, targets: Tensor, bf16: bool) -> None:
        super().__init__()
        self.model, self.targets, self.bf16 = model, targets, bf16

    def forward(self, ids: Tensor) -> Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model.loss(ids, self.targets)


def breaks(step: Step, ids: Tensor) -> tuple[int, int]:
    """Graphs that a step is compiled into, and breaks between them."""
    torch._dynamo.reset()
    found = torch._dynamo.explain(step)(ids)
    torch._dynamo.reset()
    return found.graph_count, found.graph_break_count


def peak(call: Callable[[], None], device: str) -> int:
    """Most bytes that a call allocates beyond what there was."""
    if device == "cpu":
        return peak_bytes(call)
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def of_pair(size: Size, arms: dict[str, str], args: argparse.Namespace) -> list[dict]:
    """Rows eager and compiled of HELM and its twin, the first and the second of `arms`."""
    torch.manual_seed(args.seed)
    ids, targets = torch.randint(0, size.vocabulary, (2, size.rows, size.context)).to(args.device)
    steps = {
        n: Step(size.arm(a, args.seed).to(args.device).train(), targets, args.bf16) for n, a in arms.items()
    }
    graphs = {n: breaks(step, ids) for n, step in steps.items()}
    rows = []
    for how in ["eager", "compiled"][: 1 if args.eager else 2]:
        runs = {n: torch.compile(step) if how == "compiled" else step for n, step in steps.items()}
        works = {
            n: Work(lambda run=run: run(ids), list(steps[n].parameters()), ("train",))
            for n, run in runs.items()
        }
        readings = side_by_side(works, args.budget, clock=args.timer)
        most = {n: peak(work.train, args.device) for n, work in works.items()}
        memory = {n: kept(run, ids) for n, run in runs.items()}
        twin = list(arms)[1]
        for n, step in steps.items():
            rows.append({"name": n, "how": how, "ms": 1e3 * readings[n].median("train", args.clocked),
                         "weights": step.model.n_parameters, "kept": memory[n], "peak": most[n],
                         "ratio": ratio(readings[n], readings[twin], "train", args.clocked),
                         "kept_ratio": memory[n] / memory[twin], "peak_ratio": most[n] / most[twin],
                         "graphs": graphs[n][0], "breaks": graphs[n][1]})  # fmt: skip
    return rows


def ratio(this: Readings, other: Readings, mode: str, clocked: str) -> list[float]:
    """Median and quartiles over rounds of the ratio of times within a round."""
    pairs = zip(getattr(this, clocked)[mode], getattr(other, clocked)[mode], strict=True)
    quotients = [a / b for a, b in pairs]
    return [median(quotients), *np.quantile(quotients, [0.25, 0.75]).tolist()]


# -- attention -----------------------------------------------------------------------------------------
def spelled_out(q: Tensor, k: Tensor, v: Tensor, c: float, tau: Tensor) -> Tensor:
    """Centroids (b, L, h, d+1) of values weighted by softmax(-d²/τ), d² = -2/c - 2⟨q, k⟩, matrices and all."""
    q, k, v = (torch.cat([(x.square().sum(-1, keepdim=True) + 1 / c).sqrt(), x], -1) for x in (q, k, v))
    signs = torch.ones(q.shape[-1], device=q.device)
    signs[0] = -1
    distances = -2 / c - 2 * (q * signs) @ k.mT
    later = torch.ones(distances.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    m = (-distances / tau).masked_fill(later, -torch.inf).softmax(-1) @ v
    norm = -(m * signs * m).sum(-1, keepdim=True)
    return (m / (c * norm).sqrt()).transpose(1, 2)


class Attend(nn.Module):
    """One way to attend, of (3, b, h, L, d) queries, keys and values."""

    def __init__(self, way: Callable, tau: Tensor) -> None:
        super().__init__()
        self.way, self.tau = way, tau

    def forward(self, x: Tensor) -> Tensor:
        return self.way(*x.unbind(), self.tau)


WAYS = {
    "one call, Lorentz": lambda q, k, v, tau: lorentz_attention(q, k, v, 1.0, 2 / tau),
    "spelled out, Lorentz": lambda q, k, v, tau: spelled_out(q, k, v, 1.0, tau),
    "one call, flat": lambda q, k, v, tau: F.scaled_dot_product_attention(q, k, v, is_causal=True),
}


def of_attention(size: Size, args: argparse.Namespace) -> list[dict]:
    torch.manual_seed(args.seed)
    shape = (3, size.rows, size.heads, size.context, size.head_dim)
    x = torch.randn(shape, device=args.device, requires_grad=True)
    tau = torch.tensor(float(size.heads * (size.head_dim + 1)) ** 0.5, device=args.device, requires_grad=True)
    ways = {n: Attend(way, tau) for n, way in WAYS.items()}
    leaves = {n: [x, tau] if "Lorentz" in n else [x] for n in ways}
    works = {n: Work(lambda way=way: way(x), leaves[n], ("train",)) for n, way in ways.items()}
    readings = side_by_side(works, args.budget / 2, clock=args.timer)
    memory = {n: kept(way, x) for n, way in ways.items()}
    first, literal, _ = ways
    with torch.no_grad():
        exact = ways[literal](x)
        difference = float((ways[first](x) - exact).abs().max() / exact.abs().max())
    return [
        {"name": n, "ms": 1e3 * readings[n].median("train", args.clocked), "kept": memory[n],
         "ratio": ratio(readings[n], readings[first], "train", args.clocked),
         "kept_ratio": memory[n] / memory[first], "difference": difference}
        for n in ways
    ]  # fmt: skip


# -- decoding ------------------------------------------------------------------------------------------
class Expanding(HyperbolicLatentAttention):
    """Forms keys and values of all that was read anew at every token: what absorbing does away with."""

    def absorbed(self, content, turned, latents, times, mask=None) -> Tensor:
        latent, shared = latents.split([self.latent, self.rotary], -1)
        keys, v = self._keys_and_values(latent[:, 0])
        k = torch.cat([keys, shared.expand(-1, self.heads, -1, -1)], -1)
        q = torch.cat([content, turned], -1)
        o = lorentz_attention(q, k, v, curvature_of(self.manifold), scale_of(self), mask=mask)
        return self.out.of_points(o.flatten(-2))


def decoders(size: Size, args: argparse.Namespace) -> dict[str, HELM]:
    """Dense models that differ in their attention alone."""
    full = size.arm("helm_d", args.seed)
    latent = replace(size.arm("helm_mice", args.seed).config, expert_c=(), gamma=full.config.residual_scale)
    models = {
        "keys and values kept": full,
        "latent kept, expanded": HELM(latent),
        "latent kept, absorbed": HELM(latent),
    }
    for block in models["latent kept, expanded"].blocks:
        block.attention.__class__ = Expanding
    return {name: model.to(args.device).eval() for name, model in models.items()}


@torch.no_grad()
def decode(model: HELM, prompt: Tensor, new: int) -> tuple[Tensor, list]:
    """Last logits and caches, after `new` likeliest tokens."""
    cache, ids = model.new_cache(), prompt
    for _ in range(new):
        logits = model.logits(model.states(ids, cache=cache)[:, -1])
        ids = logits.argmax(-1, keepdim=True)
    return logits, cache


def of_decoding(size: Size, args: argparse.Namespace) -> list[dict]:
    torch.manual_seed(args.seed)
    models, new = decoders(size, args), size.context // 2
    prompt = torch.randint(0, size.vocabulary, (size.rows, size.context - new)).to(args.device)
    works = {n: Work(lambda m=m: decode(m, prompt, new)[0], [], ("forward",)) for n, m in models.items()}
    readings = side_by_side(works, args.budget / 2, clock=args.timer)
    first = next(iter(models))
    return [
        {"name": n, "tokens_per_second": size.rows * new / readings[n].median("forward", args.clocked),
         "cache_bytes": cache_bytes(n, decode(m, prompt[:1], 1)[1], prompt.shape[1]),
         "ratio": ratio(readings[n], readings[first], "forward", args.clocked)}
        for n, m in models.items()
    ]  # fmt: skip


def cache_bytes(name: str, cache: list, tokens: int) -> float:
    """A token, all layers; times of keys and values are kept where maps are absorbed alone."""
    count = 1 if "expanded" in name else None
    return sum(part.nbytes for layer in cache for part in layer.columns[:count]) / tokens


# -- showing -------------------------------------------------------------------------------------------
def spread(found: list[float]) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*found)


def verdict(row: dict) -> str:
    """A sentence: what was asked for, and what came."""
    time, memory = row["ratio"][0], row["kept_ratio"]
    said = [
        f"time {time:.2f} of its twin's ({'held' if time <= MOST_TIME else 'missed'}: at most {MOST_TIME})",
        f"memory kept {memory:.2f} ({'held' if memory <= MOST_MEMORY else 'missed'}: at most {MOST_MEMORY})",
    ]
    said.append(f"{row['breaks']} breaks in its graph (asked for: none)")
    return f"{row['name']}, {row['how']}: {'; '.join(said)}."


def step_table(rows: list[dict], title: str) -> Table:
    heads = ("", "", "ms a step", "time / twin's", "kept, MB", "/ twin's", "peak, MB", "/ twin's")
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        cells = [row["name"], row["how"], f"{row['ms']:.1f}", spread(row["ratio"])]
        for what in ("kept", "peak"):
            cells += [f"{row[what] / MB:.1f}", f"{row[what + '_ratio']:.3f}"]
        table.add_row(*cells)
    return table


def attention_table(rows: list[dict]) -> Table:
    title = f"attention alone; one call and spelled out differ by {rows[0]['difference']:.0e}"
    table = Table("", "ms", "time / one call", "kept, MB", "/ one call", title=title, title_justify="left")
    for row in rows:
        table.add_row(row["name"], f"{row['ms']:.2f}", spread(row["ratio"]), f"{row['kept'] / MB:.2f}",
                      f"{row['kept_ratio']:.2f}")  # fmt: skip
    return table


def decoding_table(rows: list[dict]) -> Table:
    title = "decoding, half of the context as prompt"
    table = Table("", "tokens/s", "time / first", "cache, bytes a token", title=title, title_justify="left")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['tokens_per_second']:,.0f}",
            spread(row["ratio"]),
            f"{row['cache_bytes']:,.0f}",
        )
    return table


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    args.clocked, args.timer = ("cpu", clock) if args.device == "cpu" else ("wall", gpu_clock)
    console, numbers = Console(highlight=False, width=None if sys.stdout.isatty() else 118), []
    for text, size in args.sizes.items():
        rows = []
        for ours, (arm, twin, flat) in PAIRS.items():
            pair = of_pair(size, {ours: arm, twin: flat}, args)
            console.print(step_table(pair, f"{size}{', bf16' if args.bf16 else ''}"))
            for row in pair:
                if row["name"] == ours:
                    console.print(verdict(row), soft_wrap=True)
            rows += pair
        found = {"size": text, "steps": rows, "attention": of_attention(size, args)}
        console.print(attention_table(found["attention"]))
        found["decoding"] = of_decoding(size, args)
        console.print(decoding_table(found["decoding"]))
        numbers.append(found)
    if args.out:
        write_json(args.out, numbers)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="H,D,N,L,V,B", help=Size.__doc__)
    parser.add_argument("--budget", type=float, default=15.0, help="seconds for each pair of rows, about")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="products of the training step in bfloat16")
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="also write the numbers to this JSON file")
    args = parser.parse_args()
    try:
        args.sizes = {text: Size(text) for text in args.sizes}
    except ValueError as e:
        parser.error(str(e))
    return args


if __name__ == "__main__":
    main()
