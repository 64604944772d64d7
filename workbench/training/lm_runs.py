"""One training of a language model and all that is asked of it, from plain values to plain values: a cell of a sweep.

HELM and its flat twins have equal numbers of parameters: the twin's hidden sizes are what makes them so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from workbench.data import text
from workbench.errors import ParameterError, suggest
from workbench.models.helm import HELM
from workbench.models.helm_config import HELMConfig, spaced
from workbench.models.pieces import Pieces, trained
from workbench.models.twins import DeepSeekConfig, DeepSeekTwin, LlamaTwin, TwinConfig
from workbench.training.lm import LMSettings, evaluate, fit_lm

ARMS = ("helm_d", "llama", "helm_mice", "mice_const", "deepseek")
EXPERTS = 4
# head_dim counts space coordinates; latent: of the arms that have one.
SIZES = {
    "tiny": dict(heads=2, head_dim=8, layers=2, latent=8, vocab_size=300, context=32),
    "mini": dict(heads=4, head_dim=32, layers=4, latent=23, vocab_size=2048, context=128),
    "small": dict(heads=6, head_dim=64, layers=6, latent=65, vocab_size=8192, context=512),
    "medium": dict(heads=12, head_dim=64, layers=12, latent=130, vocab_size=16384, context=1024),
}
OF_TRAINING, OF_HELM, OF_LLAMA, OF_DEEPSEEK = (
    {f.name for f in fields(kind)} - {"seed"} for kind in (LMSettings, HELMConfig, TwinConfig, DeepSeekConfig)
)
OF_SIZE = set(SIZES["tiny"])


class Texts(NamedTuple):
    """A tokenizer, and packed rows to train and to validate on."""

    pieces: Pieces
    train: text.Rows
    valid: text.Rows


def texts(
    data: str, vocab_size: int, context: int, held_out: float = 0.02, split: int = 0, limit: int = 0
) -> Texts:
    """A corpus (`data.text.corpus`) as rows; the tokenizer is trained on its training part. limit: how many documents
    of each part are kept, 0 for all. The last four are remembered."""
    return _texts(data, vocab_size, context, held_out, split, limit)  # one key, however it was called


@lru_cache(maxsize=4)
def _texts(data: str, vocab_size: int, context: int, held_out: float, split: int, limit: int) -> Texts:
    corpus = text.corpus(data, held_out=held_out, seed=split)
    train, valid = (part[: limit or None] for part in (corpus.train, corpus.valid))
    pieces = trained(train, vocab_size)
    return Texts(
        pieces, *(text.rows(part, pieces.encode_all, context, Pieces.END) for part in (train, valid))
    )


def make_arm(arm: str, size: str = "mini", *, seed: int = 0, **values) -> nn.Module:
    """An untrained model: "helm_d", dense; "llama", its flat twin; "helm_mice", experts of curvatures 0.1 to 2;
    "mice_const", the same with all of curvature 1; "deepseek", their flat twin.

    size: "tiny" (for tests), "mini" (1.7 and 2.5 million parameters), "small" (21 and 33), "medium". values: settings
    of the arm's config, or heads, head_dim, layers, latent, vocab_size, context in place of the size's. A twin is as
    large as its HELM of these sizes unless its hidden sizes are given.

    ParameterError for another arm or size, or a setting that the arm has not.
    """
    for name, value, known in (("arm", arm, ARMS), ("size", size, SIZES)):
        if value not in known:
            raise ParameterError(
                f"{name} must be one of {', '.join(known)}, but came as {value!r}{suggest(value, known)}"
            )
    sizes = SIZES[size] | {name: values.pop(name) for name in OF_SIZE & set(values)}
    known = {"llama": OF_LLAMA, "deepseek": OF_DEEPSEEK}.get(arm, OF_HELM)
    if unknown := sorted(set(values) - known):
        raise ParameterError(f"{arm} has no setting {unknown[0]!r}{suggest(unknown[0], known | OF_TRAINING)}")
    if arm in ("llama", "deepseek"):
        return _twin(arm, sizes, values, seed)
    return HELM(_helm_config(arm, sizes, values, seed))


def _helm_config(arm: str, sizes: dict, values: dict, seed: int) -> HELMConfig:
    """As published: width W = heads (head_dim + 1) and hidden 4 W, time counted; experts of half that."""
    h, width = sizes["head_dim"], sizes["heads"] * (sizes["head_dim"] + 1)
    given = {name: sizes[name] for name in ("heads", "layers", "vocab_size", "context")}
    given |= dict(dim=width - 1, hidden=4 * width - 1, seed=seed)
    if arm == "helm_d":
        return HELMConfig(**given | dict(head_dim=h) | values)
    curvatures = spaced(EXPERTS) if arm == "helm_mice" else (1.0,) * EXPERTS
    given |= dict(expert_c=curvatures, expert_hidden=2 * width - 1)
    return HELMConfig(**given | _latent(sizes) | values)


def _latent(sizes: dict) -> dict:
    h = sizes["head_dim"]
    return dict(latent=sizes["latent"], content=h // 2 + 1, rotary=h // 4, value=h // 2)


def _twin(arm: str, sizes: dict, values: dict, seed: int) -> nn.Module:
    given = {name: sizes[name] for name in ("heads", "layers", "vocab_size", "context")}
    given |= dict(width=sizes["heads"] * sizes["head_dim"], tied=False, seed=seed)
    if arm == "llama":
        config = TwinConfig(**given | values)
        if "hidden" not in values:
            target = _count(HELM, _helm_config("helm_d", sizes, {}, seed))
            config = _matched(LlamaTwin, lambda n: replace(config, hidden=n), target)
        return LlamaTwin(config)
    config = DeepSeekConfig(**given | _latent(sizes) | dict(experts=EXPERTS) | values)
    if "hidden" not in values and "expert_hidden" not in values:
        target = _count(HELM, _helm_config("helm_mice", sizes, {}, seed))
        config = _matched(DeepSeekTwin, lambda n: replace(config, hidden=2 * n + 1, expert_hidden=n), target)
        if config.dense_layers:  # in smaller pieces
            config = _matched(DeepSeekTwin, lambda n: replace(config, hidden=n), target)
    return DeepSeekTwin(config)


def _count(kind: type[nn.Module], config) -> int:
    with torch.device("meta"):
        return kind(config).n_parameters


def _matched(kind: type[nn.Module], sized: Callable, target: int):
    """The config whose parameters come nearest to the target; they are linear in its hidden size."""
    one, two = _count(kind, sized(1)), _count(kind, sized(2))
    return sized(max(1, 1 + round((target - one) / (two - one))))


def lm_run(
    arm: str = "helm_d",
    *,
    data: str = "wordnet",
    size: str = "mini",
    held_out: float = 0.02,
    limit: int = 0,
    seed: int = 0,
    split: int = 0,
    report: int = 0,
    device: str = "cpu",
    save: str = "",
    checkpoint: str = "",
    every: int = 0,
    sample: str | None = None,
    **values,
) -> dict:
    """Train one model on a corpus and validate it.

    arm, size: see `make_arm`. data, held_out, limit, split: see `texts`. seed: of model and order of rows. report:
    steps between rows of the history, with validation. save: a file for the model. checkpoint, every: see `fit_lm`.
    sample: a text that the model is to go on with, up to 24 tokens. values: any of `LMSettings` and of the arm's
    config by name, such as lr, steps, batch, layers, vocab_size, gain.

    Returns nats (a token), bits_per_byte, perplexity, all of validation; loss of the last batch; parameters; tokens
    (seen), tokens_per_second, seconds; spikes, skipped; bytes_per_token (validation); peak_mb (of a GPU, else None);
    curvatures, of experts or else of the space, [] in flat space; history where `report` is not 0; sample.

    ParameterError for a value that nothing knows, and all that `make_arm`, `texts` and `fit_lm` raise.
    """
    of_training = {name: values.pop(name) for name in OF_TRAINING & set(values)}
    settings = LMSettings(**of_training)
    model = make_arm(arm, size, seed=seed, **values)
    found = texts(data, model.config.vocab_size, model.config.context, held_out, split, limit)
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    how = dict(
        seed=seed, device=device, report=report or settings.steps, valid=found.valid if report else None
    )
    fit = fit_lm(model, found.train, settings, checkpoint=checkpoint or None, every=every, **how)
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else None
    row = evaluate(fit.model, found.valid, within=settings.within, bf16=settings.bf16)
    row["tokens"] = fit.tokens
    row |= {name: getattr(fit, name) for name in ("seconds", "spikes", "skipped")}
    row |= {"tokens_per_second": fit.tokens / fit.seconds if fit.seconds else None, "peak_mb": peak}
    row |= {"loss": fit.history[-1]["loss"] if fit.history else None, "parameters": model.n_parameters}
    row |= {"bytes_per_token": found.valid.bytes_per_token, "curvatures": _curvatures(model)}
    if save:
        fit.model.save(save)
    if sample is not None:
        row["sample"] = _continued(fit.model, found.pieces, sample)
    return row | ({"history": fit.history} if report else {})


def _curvatures(model: nn.Module) -> list[float]:
    if not isinstance(model, HELM):
        return []
    experts = [layer.feed.curvatures() for layer in model.blocks if hasattr(layer.feed, "curvatures")]
    found = torch.stack(experts).mean(0) if experts else torch.as_tensor(model.manifold.c)[None]
    return [float(c) for c in found.detach()]


def _continued(model: nn.Module, pieces: Pieces, start: str, most: int = 24) -> str:
    row = [Pieces.END, *pieces.encode(start)]
    room = model.config.context - len(row)
    if room < 1:
        raise ParameterError(
            f"sample must leave room in the context of {model.config.context}, but has {len(row)}"
        )
    return pieces.decode(model.generate([row], min(most, room), Pieces.END)[0])
