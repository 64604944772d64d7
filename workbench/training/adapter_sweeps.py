"""HypLoRA watched closely: what K does during training, and what the gate is before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from workbench.data.arithmetic import Problem
from workbench.models.hyplora_adapters import AdapterConfig, inject
from workbench.models.hyplora_gate import Gate, gate_values
from workbench.training.adapter_runs import (
    TARGETS,
    Solver,
    answered,
    each_input,
    gates,
    hyperbolic,
    parts,
    spread,
)
from workbench.training.fine_tuning import FineTuneSettings, fine_tune

STILL = math.sqrt(2e-6)  # the released code lets no update be shorter than this times √K


def watched_run(
    *,
    base: str = "small",
    data: str = "mawps_asdiv",
    text: str = "gsm8k+mawps_asdiv",
    seed: int = 0,
    split: int = 0,
    base_steps: int = 400,
    device: str = "cpu",
    steps: int = 200,
    batch: int = 32,
    lr: float = 3e-3,
    curvature_lr: float = 1.0,
    every: int = 5,
    **values,
) -> dict:
    """The training of `adapter_run` with HypLoRA, its curvatures looked at every so many steps.

    values: of `AdapterConfig`.

    Returns at, steps done; K and s, {layer: one value each of those}; reach, what K or s is multiplied by if every
    step of Adam is a full one in the same direction; test and other, accuracies; right, a truth value a problem of
    both; phi, phi_cv, phi_layers as `gates` has them; dead, share of tokens, mean over layers, whose update has the
    shortest length that the released code can give (0 for other variants: theirs go to zero with BAx); loss, of the
    last batch; seconds.

    ParameterError as `adapter_run`.
    """
    settings = FineTuneSettings(steps=steps, batch=batch, lr=lr, curvature_lr=curvature_lr)
    config = AdapterConfig(**{"target_modules": TARGETS[base]} | values)
    found = parts(data, split=split)
    solver = Solver(base, text, base_steps, found.train, seed, device)
    layers = inject(solver.model.encoder, config, seed=seed)
    at, path = [], {part: {name: [] for name in layers} for part in ("K", "s")}

    def look(step: int) -> None:
        at.append(step)
        for name, layer in layers.items():
            path["K"][name].append(float(layer.K.detach()))
            sigma = None if layer.hyplora_s is None else layer.hyplora_s.detach()
            path["s"][name].append(float(layer.settings.scale(sigma, layer.in_features)))

    done = iter(range(steps))

    def loss(rows):
        if (step := next(done)) % every == 0:
            look(step)
        return solver.loss(rows)

    fit = fine_tune(solver.model, loss, len(solver.labels), settings, seed=seed, report=max(steps, 1))
    look(steps)
    right = answered(solver, test=found.test, other=found.other)
    moved = sum(settings.rate(step) for step in range(steps)) * curvature_lr
    row = {"at": at, **path, "reach": math.exp(min(moved, 700.0))}
    row |= {name: float(np.mean(value)) for name, value in right.items()}
    row |= {n: v for n, v in gates(solver, found.valid).items() if n != "K"} | {
        "dead": dead(solver, found.valid)
    }
    row |= {"loss": fit.history[-1]["loss"] if fit.history else None, "seconds": fit.seconds}
    return row | {"right": right}


@torch.no_grad()
def dead(solver: Solver, problems: Sequence[Problem]) -> float:
    """Share of tokens of some questions, mean over layers, whose update has the length that the released code's clamp
    gives it, whatever the size of BAx."""
    shares: dict[str, list] = {}

    def look(name, layer, x, mask):
        phi, q = gate_values(x, *layer.parts()[:5])
        still = (phi * q.sqrt() <= 1.001 * STILL * layer.K.sqrt()).squeeze(-1)
        shares.setdefault(name, []).append(still[mask])

    if any(layer.settings.variant != "official" for layer in hyperbolic(solver).values()):
        return 0.0
    each_input(solver, problems, look)
    return float(np.mean([float(torch.cat(v).double().mean()) for v in shares.values()]))


@torch.no_grad()
def first_gates(
    curvatures: Sequence[float],
    scales: Sequence[float],
    *,
    base: str = "small",
    data: str = "mawps_asdiv",
    text: str = "gsm8k+mawps_asdiv",
    split: int = 0,
    base_steps: int = 400,
    device: str = "cpu",
) -> list[dict]:
    """φ before training, where BAx is zero and only |x| counts, over K and s: a row for each pair.

    scales: values of s; 0 stands for √d. A row holds K, s, phi, phi_cv (mean over layers of mean and coefficient of
    variation over the tokens of validation questions), phi_layers {layer: [mean, cv]}, and norms, the same of |x|/√d.
    """
    found = parts(data, split=split)
    solver = Solver(base, text, base_steps, found.train, 0, device)
    inject(solver.model.encoder, AdapterConfig(target_modules=TARGETS[base], r=1))
    seen: dict[str, list] = {}

    def look(name, layer, x, mask):
        n = torch.linalg.vector_norm(x[mask].double(), dim=-1)
        seen.setdefault(name, []).append(n / math.sqrt(layer.in_features))

    each_input(solver, found.valid, look)
    norms = {name: torch.cat(v) for name, v in seen.items()}
    widths = {name: layer.in_features for name, layer in hyperbolic(solver).items()}
    sizes = {name: spread(n) for name, n in norms.items()}
    rows = []
    for s in scales:
        for K in curvatures:
            each = {}
            for name, n in norms.items():
                t = n / ((s / math.sqrt(widths[name]) if s else 1.0) * math.sqrt(K))
                t = t.clamp(1e-150, Gate().t_max)
                each[name] = spread(t.sinh() / t)
            phi, cv = (float(np.mean([pair[k] for pair in each.values()])) for k in (0, 1))
            rows.append({"K": K, "s": s, "phi": phi, "phi_cv": cv, "phi_layers": each, "norms": sizes})
    return rows
