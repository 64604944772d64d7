"""What tables of tokens and last states look like: effective rank, nulls, and length against frequency and depth.

He et al., *HELM* (arXiv 2505.24722), read longer states of more specific words as a sign that the model has learned a
hierarchy. Specific words are rare, too: `partial_spearman` asks what is left once frequency is taken out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from workbench.data.text import Rows
from workbench.data.wordnet import nouns
from workbench.errors import ParameterError, suggest
from workbench.evaluation.hyperbolicity import NULLS, _drawer

Floats = NDArray[np.float64]


def effective_rank(
    x: Float[Tensor, "n d"] | NDArray, *, of: str = "singular values", centre: bool = True
) -> float:
    """exp of the entropy of a spectrum that is scaled to sum 1: d for a round cloud, 1 for a line, at most n and d.

    Args:
        of: "singular values" of the matrix, as Roy and Vetterli (*The effective rank*, 2007); or "variances", their
            squares, the spectrum of the covariance, which weighs long axes more.
        centre: take the mean row off first.

    ParameterError for another spectrum, and for what is not a matrix of two finite rows or more.
    """
    known = ("singular values", "variances")
    if of not in known:
        raise ParameterError(f"of is one of {', '.join(known)}, but came as {of!r}{suggest(of, known)}")
    x = torch.as_tensor(x).detach().cpu().double()
    if x.ndim != 2 or len(x) < 2 or not torch.isfinite(x).all():
        raise ParameterError(f"a matrix of two finite rows or more is needed, but came as {tuple(x.shape)}")
    values = torch.linalg.svdvals(x - x.mean(0) if centre else x)
    values = values.square() if of == "variances" else values
    if not values.sum() > 0:
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())


def null_table(table: Float[Tensor, "v d"], null: str, seed: int = 0) -> Float[Tensor, "v d"]:
    """As many rows without structure, float64, drawn as the nulls of `hyperbolicity.delta_by_prompt`: "gaussian",
    "shuffled", "norms" or "covariance". ParameterError for another."""
    if null not in NULLS:
        raise ParameterError(
            f"a null is one of {', '.join(NULLS)}, but came as {null!r}{suggest(null, NULLS)}"
        )
    rng = torch.Generator().manual_seed(seed)
    return _drawer(null, table)(table.detach().cpu().double(), rng)


# -- correlations ----------------------------------------------------------------------------------


class Partial(NamedTuple):
    """Rank correlations. raw: of x and y.  rho: with `given` taken out.  low, high: 95 % interval of rho, bootstrap.
    p: share of permutations with a rho as far from 0.  n: of how many."""

    raw: float
    rho: float
    low: float
    high: float
    p: float
    n: int


def partial_spearman(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    given: Float[np.ndarray, " n"],
    *,
    degree: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> Partial:
    """Spearman's correlation of x and y with `given` taken out of both: ranks less their polynomial fit by its ranks.

    degree: 1 is the textbook's; 3 also takes out what rises and falls. draws: of bootstrap and permutation; what is
    permuted are the residuals of x. NaN where nothing is left of one of them.

    ParameterError for lengths that differ, values that are not finite, or too few.
    """
    x, y, z = (np.asarray(v, dtype=np.float64) for v in (x, y, given))
    if not (x.ndim == 1 and x.shape == y.shape == z.shape):
        raise ParameterError(f"three equally long rows are needed, but {x.shape}, {y.shape}, {z.shape} came")
    if len(x) < degree + 4 or not np.isfinite([x, y, z]).all():
        raise ParameterError(f"{degree + 4} or more finite values are needed, but {len(x)} came")
    rng, n = np.random.default_rng(seed), len(x)
    left, right = _residuals(x, y, z, degree)
    rho, raw = _cosine(left, right), float(stats.spearmanr(x, y).statistic)
    if not np.isfinite(rho) or not draws:
        return Partial(raw, rho, np.nan, np.nan, np.nan, n)
    shuffled = [_cosine(rng.permutation(left), right) for _ in range(draws)]
    again = [_cosine(*_residuals(x[i], y[i], z[i], degree)) for i in rng.integers(0, n, (draws, n))]
    low, high = np.nanquantile(again, [0.025, 0.975])
    p = (1 + np.sum(np.abs(shuffled) >= abs(rho))) / (1 + draws)
    return Partial(raw, rho, float(low), float(high), float(p), n)


def _residuals(x: Floats, y: Floats, z: Floats, degree: int) -> tuple[Floats, Floats]:
    x, y, z = (stats.rankdata(v) for v in (x, y, z))
    known = np.polynomial.legendre.legvander(2 * (z - 1) / max(len(z) - 1, 1) - 1, degree)
    pair = np.column_stack([x, y])
    rest = pair - known @ np.linalg.lstsq(known, pair, rcond=None)[0]
    return rest[:, 0], rest[:, 1]


def _cosine(x: Floats, y: Floats) -> float:
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / size) if size > 1e-9 * len(x) else float("nan")


# -- words and states ------------------------------------------------------------------------------


def word_depths(words: Iterable[str]) -> dict[str, int]:
    """Depth in WordNet of the first noun sense of each word that has one (`dog.n.01`): steps from the root."""
    depth = dict(zip(nouns().names, nouns().depth.tolist(), strict=True))
    return {word: depth[f"{word}.n.01"] for word in words if f"{word}.n.01" in depth}


def input_table(model: nn.Module) -> Float[Tensor, "v d"]:
    """The embeddings of all tokens of a HELM, as space parts, or of one of its flat twins."""
    table = model.embedding if hasattr(model, "embedding") else model.embed_tokens
    with torch.no_grad():
        return table(torch.arange(model.config.vocab_size, device=next(model.parameters()).device)).detach()


class States(NamedTuple):
    """Of m tokens in their context. ids: (m,).  before, after: (m, d), the last norm."""

    ids: Int[np.ndarray, " m"]
    before: Tensor
    after: Tensor


@torch.no_grad()
def last_states(model: nn.Module, rows: Rows, most: int = 256, batch: int = 32) -> States:
    """Last states of a HELM (space parts) or a flat twin for the tokens of the first `most` rows, before and after
    the norm in front of the logits, which makes all of them almost equally long. Float32, on the CPU."""
    kept: list[tuple[Tensor, Tensor]] = []
    hook = model.norm.register_forward_hook(
        lambda _, given, made: kept.append((given[0].float().cpu(), made.float().cpu()))
    )
    device = next(model.parameters()).device
    ids, documents = (torch.from_numpy(part[:most, :-1]).long() for part in (rows.ids, rows.documents))
    was_training = model.training
    model.eval()
    try:
        for some, of in zip(ids.split(batch), documents.split(batch), strict=True):
            model.states(some.to(device), documents=of.to(device))
    finally:
        hook.remove()
        model.train(was_training)
    real = documents.flatten() >= 0
    before, after = (torch.cat(part).flatten(0, 1)[real] for part in zip(*kept, strict=True))
    return States(ids.flatten()[real].numpy(), before, after)


def by_token(values: Float[np.ndarray, " m"], ids: Int[np.ndarray, " m"], count: int) -> Floats:
    """Mean over the places of each of `count` tokens; NaN for those that do not occur. (count,)"""
    often = np.bincount(ids, minlength=count)
    total = np.bincount(ids, weights=np.asarray(values, dtype=np.float64), minlength=count)
    return np.where(often > 0, total / np.maximum(often, 1), np.nan)
