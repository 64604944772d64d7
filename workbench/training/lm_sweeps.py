"""Questions to HELM that a plain training does not answer: plain values in, plain values out, cells of a sweep.

How far apart are the functions of two models with the same weights? Where do tokens go after training? What does a
curvature do beside the scale that puts points as far apart?
"""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.models.helm import HELM
from workbench.nn.lorentz import HyperbolicRMSNorm
from workbench.nn.mice import MiCE
from workbench.training.lm import LMSettings, evaluate, fit_lm
from workbench.training.lm_runs import OF_TRAINING, lm_run, make_arm, texts

ROWS = 16  # of held-out text, for what is asked of untrained models


def logit_gap(
    arm: str, one: dict, other: dict, *, data: str = "wordnet", seed: int = 0, **values
) -> dict[str, float]:
    """How far apart two models with the same first weights are, on held-out text.

    one, other: settings of the arm's config in which they differ; values: what both have, see `make_arm`.

    Returns largest: max |difference| of logits over max |logit|; typical: the same of root mean squares. A constant
    that all logits of a token share changes nothing and is taken out first.

    ParameterError where the settings change the shapes of weights.
    """
    models = [make_arm(arm, seed=seed, **values, **own).eval() for own in (one, other)]
    try:
        weights = {n: p for n, p in models[0].named_parameters() if not n.endswith("log_c")}
        for name, p in models[1].named_parameters():
            p.data.copy_(weights.get(name, p))
    except RuntimeError as e:
        raise ParameterError(f"{one} and {other} must leave the shapes of weights alone, but {e}") from e
    config = models[0].config
    rows = texts(data, config.vocab_size, config.context).valid.ids[:ROWS, :-1]
    with torch.no_grad():
        a, b = (model(torch.from_numpy(rows).long()) for model in models)
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    size = (a - b).abs()
    return {
        "largest": float(size.max() / a.abs().max()),
        "typical": float(size.square().mean().sqrt() / a.square().mean().sqrt()),
    }


def routed_run(arm: str = "helm_mice", *, data: str = "wordnet", **values) -> dict:
    """`lm_run` of a mixture of experts, and where held-out tokens go after it.

    Adds busiest: share of tokens that have the most used expert among theirs (even use: active / experts);
    heaviest: share of all weights that an expert has at most (even: 1 / experts). Means over layers with experts.

    ParameterError for an arm without MiCE, and what `lm_run` raises.
    """
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        row = lm_run(arm, data=data, save=path, **values)
        model = HELM.load(path)
    layers = [m for m in model.modules() if isinstance(m, MiCE)]
    if not layers:
        raise ParameterError(f"routed_run needs an arm whose layers have MiCE, but {arm} has none")
    config = model.config
    ids = texts(data, config.vocab_size, config.context).valid.ids[: 4 * ROWS, :-1]
    shares = _shares(model, layers, torch.from_numpy(ids).long())
    means = torch.tensor(shares).mean(0).tolist()
    return row | dict(zip(("busiest", "heaviest"), means, strict=True))


@torch.no_grad()
def _shares(model: nn.Module, layers: list[MiCE], ids: Tensor) -> list[tuple[float, float]]:
    """Of each layer: share of tokens at its most used expert, and share of weights at its heaviest."""
    found: list[tuple[float, float]] = []

    def watch(layer: MiCE, x: tuple[Tensor]) -> None:
        routing = layer.route(x[0].flatten(0, -2))
        weights = torch.zeros_like(routing.probabilities).scatter(-1, routing.chosen, routing.weights)
        tokens, heavy = (weights > 0).float().mean(0), weights.sum(0) / weights.sum()
        found.append((float(tokens.max()), float(heavy.max())))

    hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
    model.states(ids)
    [hook.remove() for hook in hooks]
    return found


def scaled_run(
    factor: float,
    *,
    arm: str = "helm_d",
    data: str = "wordnet",
    limit: int = 0,
    seed: int = 0,
    device: str = "cpu",
    **values,
) -> dict:
    """A training whose points start at another scale: embeddings, and the factors of all norms.

    In a space of curvature c a point x is what √c x is in a space of curvature 1. So factor √c gives a model of c = 1
    whose embeddings and norms start where isometry puts those of a model of c. values: as of `lm_run`.

    Returns nats a token of validation. ParameterError for a factor that is not positive, and as `lm_run`.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise ParameterError(f"factor must be positive and finite, but came as {factor!r}")
    of_training = {name: values.pop(name) for name in OF_TRAINING & set(values)}
    settings, model = LMSettings(**of_training), make_arm(arm, seed=seed, **values)
    with torch.no_grad():
        model.embedding.weight.mul_(math.sinh(factor) / math.sinh(1))  # from distance 1 to distance `factor`
        for norm in model.modules():
            if isinstance(norm, HyperbolicRMSNorm):
                norm.weight.mul_(factor)
    found = texts(data, model.config.vocab_size, model.config.context, limit=limit)
    fit = fit_lm(model, found.train, settings, seed=seed, device=device, report=settings.steps)
    row = evaluate(fit.model, found.valid, within=settings.within, bf16=settings.bf16)
    return row | {"spikes": fit.spikes, "skipped": fit.skipped, "seconds": fit.seconds}
