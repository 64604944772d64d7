"""One training of HiM and all that is asked of it, from plain values to plain values: a cell of a sweep."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import lru_cache

import torch

from workbench.data import Hierarchy, ontology, registry, trees, wordnet
from workbench.data.tasks import Task, mixed_hop, multi_hop
from workbench.errors import ParameterError, suggest
from workbench.evaluation.hierarchy import depth_correlation
from workbench.evaluation.subsumption import Verdict, baselines, calibrate, evaluate
from workbench.models.him import HiM, HiMConfig
from workbench.models.him_losses import radius
from workbench.models.text_encoder import EncoderConfig, parameters
from workbench.models.wordpiece import Tokenizer
from workbench.training.him import HiMFit, HiMSettings, fit_him

NEGATIVES = ("hard", "matched", "random")
TASKS = {"mixed": mixed_hop, "multi": multi_hop}
DATA = ("mammals", "wordnet", "doid", "foodon", "tree")
EDGE_LISTS = (".tsv", ".csv", ".txt", ".tsv.gz", ".csv.gz", ".txt.gz")
OF_ENCODER, OF_MODEL, OF_TRAINING = (
    {f.name for f in fields(kind)} - {"encoder", "seed", "vocab_size"}
    for kind in (EncoderConfig, HiMConfig, HiMSettings)
)


@lru_cache(maxsize=4)
def hierarchy(data: str) -> Hierarchy:
    """A hierarchy of names by name.

    "mammals": 1,170 synsets of WordNet 3.0; "wordnet": its 74,401 noun classes; "doid": diseases; "foodon": parts of
    FoodOn; "tree": made-up words, four below each, five levels. "wordnet:dog.n.01" or "doid:DOID:162" is the part of
    it below a node, "tree:3x4" a tree of three words below each on four levels. Anything that ends like a file, such
    as "mine.tsv", is an edge list of your own, read once a session: parent, child in each row, without a header.

    ParameterError for another name, DataError for data that are not here.
    """
    if data.endswith(EDGE_LISTS):
        return ontology.read_edges(data, header=False)
    name, _, part = data.partition(":")
    if name == "mammals" and not part:
        return hierarchy("wordnet:mammal.n.01")
    if name == "tree":
        return word_tree(*_sizes(part or "4x5"))
    if name == "wordnet":
        whole = wordnet.nouns(instances=False)
    elif name in ("doid", "foodon"):
        about = dict(parent="parents", child="id", label="label", several=",")
        path = registry.fetch("foodon-modules" if name == "foodon" else name)
        whole = ontology.read_edges(path, **about, drop_self_loops=True)
    else:
        raise ParameterError(
            f"data must be one of {', '.join(DATA)}, but came as {data!r}{suggest(name, DATA)}"
        )
    return whole.subtree(part) if part else whole


def _sizes(text: str) -> tuple[int, int]:
    branching, by, levels = text.partition("x")
    if not (by and branching.isdecimal() and levels.isdecimal() and int(levels)):
        raise ParameterError(f"a tree is given as branching x levels, such as tree:4x5, but came as {text!r}")
    return int(branching), int(levels)


def word_tree(branching: int, levels: int, seed: int = 0) -> Hierarchy:
    """A complete tree of made-up words, all different: nothing but its place in the tree tells what a word means."""
    tree = trees.balanced(branching, levels - 1)
    generator, words = torch.Generator().manual_seed(seed), {}
    while len(words) < len(tree):
        word = "".join(
            "bdfgklmnprstvz"[c] + "aeiou"[v]
            for c, v in zip(
                *(torch.randint(n, (4,), generator=generator).tolist() for n in (14, 5)), strict=True
            )
        )
        words.setdefault(word)
    return Hierarchy.from_edges(tree.edges, tree.names, list(words))


@lru_cache(maxsize=4)
def task(data: str, hop: str = "mixed", train_negatives: str = "hard", seed: int = 0) -> Task:
    """The task of `him_run`; hop "mixed" or "multi" (see `workbench.data.tasks`), hard negatives in its questions."""
    if hop not in TASKS:
        raise ParameterError(
            f"hop must be one of {', '.join(TASKS)}, but came as {hop!r}{suggest(hop, TASKS)}"
        )
    return TASKS[hop](hierarchy(data), train_negatives=train_negatives, seed=seed, name=f"{data}, {hop}-hop")


def him_run(
    *,
    data: str = "mammals",
    hop: str = "mixed",
    train_negatives: str = "hard",
    test_negatives: Sequence[str] = NEGATIVES,
    encoder: str = "mamba2",
    vocabulary: str = "",
    seed: int = 0,
    split: int = 0,
    report: int = 0,
    points: bool = False,
    save: str = "",
    device: str = "cpu",
    **values,
) -> dict:
    """Train one model; ask it about each kind of wrong answers, λ and threshold tuned on validation of that kind.

    seed: of model and batches. split: seed of the held-out pairs and wrong answers. encoder: kind of `EncoderConfig`;
    "minilm", or any other pretrained model as `pretrained`, goes with frozen=True (unsupervised: also steps=0, dim=0,
    space="euclidean"). vocabulary: "" is the encoder's own, "bert" that of BERT (30,522 pieces), else a file for
    `Tokenizer.from_file`. values: any of `HiMConfig`, `HiMSettings` and `EncoderConfig` by name, such as space, dim,
    c, learn_curvature, margin, beta, centripetal, lr, steps, width. save: a file for the model.

    Returns one entry a kind of wrong answers ({f1, precision, recall, accuracy, f1_direct, f1_indirect, hits1,
    valid_f1, lam, threshold}, None where there was no question) and: valid_f1, of the first of them, to choose by;
    depth, rank correlation of radius and depth; radius and radius_max, of all nodes in unit curvature; kappa, c,
    gamma at the end; loss, of the last batch; parameters; seconds (processor, of training and calibrating); history
    where `report` is not 0; points as lists if asked for.

    ParameterError for a value that nothing knows, and all that `fit_him` raises.
    """
    config, settings = _sorted_values(encoder, seed, values)
    asked = task(data, hop, train_negatives, split)
    start = time.process_time()
    own = dict(seed=seed, tokenizer=_tokenizer(vocabulary), device=device)
    fit = fit_him(asked, config, settings, report=report or settings.steps, **own)
    row = {"seconds": time.process_time() - start}
    if save:
        fit.model.save(save)
    row |= {kind: _verdict(fit, asked.offered(kind, split)) for kind in test_negatives}
    row |= {"valid_f1": row[test_negatives[0]]["valid_f1"]} if test_negatives else {}
    row |= _geometry(fit, asked.h) | {"parameters": parameters(fit.model)}
    row |= {"loss": fit.history[-1]["loss"] if fit.history else None}
    row |= {"history": fit.history} if report else {}
    return row | ({"points": fit.points.tolist()} if points else {})


def rules_run(
    *,
    data: str = "mammals",
    hop: str = "mixed",
    test_negatives: Sequence[str] = NEGATIVES,
    split: int = 0,
) -> dict:
    """What rules without a model reach on the same questions: {kind of wrong answers: {rule: figures}}."""
    asked = task(data, hop, "hard", split)
    return {
        kind: {name: _plain(found) for name, found in baselines(asked.offered(kind, split)).items()}
        for kind in test_negatives
    }


def _tokenizer(vocabulary: str) -> Tokenizer | None:
    if not vocabulary:
        return None
    return Tokenizer.from_file(registry.fetch("bert-vocab") if vocabulary == "bert" else vocabulary)


def _sorted_values(encoder: str, seed: int, values: dict) -> tuple[HiMConfig, HiMSettings]:
    known = OF_ENCODER | OF_MODEL | OF_TRAINING
    for name in values:
        if name not in known:
            raise ParameterError(f"a run of HiM has no parameter {name!r}{suggest(name, known)}")
    parts = [{k: v for k, v in values.items() if k in of} for of in (OF_ENCODER, OF_MODEL, OF_TRAINING)]
    if encoder == "minilm":
        parts[0] = {"kind": "pretrained", "pretrained": "minilm"} | parts[0]
    else:
        parts[0] = {"kind": encoder} | parts[0]
    return HiMConfig(encoder=EncoderConfig(**parts[0]), seed=seed, **parts[1]), HiMSettings(**parts[2])


def _plain(found: Verdict) -> dict:
    """JSON has no word for NaN, which stands where there was no question."""
    return {name: None if math.isnan(value) else value for name, value in asdict(found).items()}


def _verdict(fit: HiMFit, asked: Task) -> dict:
    space = fit.model.score_manifold
    tuned = calibrate(fit.points, space, asked.valid)
    found = _plain(evaluate(fit.points, space, tuned, asked.test))
    return found | {"valid_f1": tuned.f1, "lam": tuned.lam, "threshold": tuned.threshold}


@torch.no_grad()
def _geometry(fit: HiMFit, h: Hierarchy) -> dict:
    model: HiM = fit.model
    r = radius(model.manifold, fit.points)
    numbers = {"radius": r.mean(), "radius_max": r.max(), "kappa": model.kappa, "gamma": model.gamma}
    numbers["c"] = model.manifold.c
    depth = depth_correlation(fit.points, model.manifold, h.depth)
    return {"depth": depth, **{name: float(value) for name, value in numbers.items()}}
