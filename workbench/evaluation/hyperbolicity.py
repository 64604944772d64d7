"""How tree-like token embeddings are, beside what no structure would give.

Yang et al., *HypLoRA* (arXiv 2410.04010, section 4 and Table 2), measure the Gromov δ of the input embeddings of each
prompt's tokens and read a small value as a tree. It is not one by itself: in many dimensions the distances between
vectors drawn at random are nearly equal, equidistant points are a star, and a star is a tree. So δ stands here
beside nulls that keep more and more of a table, down to all means and covariances of its coordinates. What is left
between the table and a null is what that null has not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from workbench.errors import ParameterError, suggest
from workbench.manifolds import Euclidean, delta_hyperbolicity

NULLS = ("gaussian", "shuffled", "norms", "covariance")
ROWS = 8192  # of a table that are widened to float64 at once


def delta(points: Float[Tensor, "n d"] | NDArray, base: int | None = 0, *, distances: bool = False) -> float:
    """Gromov δ of points by Euclidean distance: the largest defect of the four-point condition.

    With (x|y) = (d(x, w) + d(y, w) − d(x, y))/2 seen from the base point w, the largest
    min((x|z), (z|y)) − (x|y). Exact; float64, O(n²) memory, O(n³) time.

    Args:
        base: which point is w. It sees at least half of the whole δ and mostly nearly all (Fournier et al. 2015).
            None is the maximum over all w, for which O(n⁴) time makes a few hundred points the limit.
        distances: `points` is an (n, n) matrix of distances.

    Fewer than four points, copies of one included, are always a tree: 0.

    Raises:
        ManifoldError: not a matrix of finite numbers, or of distances.
        ParameterError: no point number `base`.
    """
    return _measure(points, base, distances)[0]


def relative_delta(
    points: Float[Tensor, "n d"] | NDArray, base: int | None = 0, *, distances: bool = False
) -> float:
    """2δ/diameter: 0 for a tree, at most 1. It does not change with the scale; otherwise as `delta`."""
    found, diameter = _measure(points, base, distances)
    return 2 * found / diameter if diameter else 0.0


def _measure(points: Tensor | NDArray, base: int | None, distances: bool) -> tuple[float, float]:
    points = torch.as_tensor(points)
    n = len(points) if points.ndim else 0
    if base is not None and not 0 <= base < n:
        raise ParameterError(f"the base point is one of {n} points, counted from 0, but came as {base}")
    if points.ndim == 2 and 0 < n < 4:  # each point once more: a copy changes neither δ nor the diameter
        again = torch.arange(4) % n
        points = points[again][:, again] if distances else points[again]
    found = delta_hyperbolicity(
        points,
        None if distances else Euclidean(),
        method="exact" if base is None else "base_point",
        base=base or 0,
    )
    return found.delta, found.diameter


def effective_dimension(points: Float[Tensor, "n d"] | NDArray) -> float:
    """Participation ratio (Σλ)²/Σλ² of the eigenvalues of the covariance: d for a round cloud, 1 for a line.

    A sample of n points has at most n − 1. 0 for copies of one point.

    Raises:
        ParameterError: not a matrix of at least two points.
    """
    x = torch.as_tensor(points)
    if x.ndim != 2 or len(x) < 2:
        raise ParameterError(f"a matrix of two points or more is needed, but came as {tuple(x.shape)}")
    moments = _moments(x)[1]  # Σλ is its trace, Σλ² its squared Frobenius norm
    trace = float(moments.trace())
    return trace**2 / float(moments.square().sum()) if trace else 0.0


def _moments(table: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of the rows, float64 on the CPU, with no float64 copy of the table."""
    mean = table.detach().mean(0, dtype=torch.float64).cpu()
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for start in range(0, len(table), ROWS):
        part = table.detach()[start : start + ROWS].cpu().double() - mean
        total += part.T @ part
    return mean, total / len(table)


# -- by prompt -------------------------------------------------------------------------------------


class Row(NamedTuple):
    """name: "table" or a null.  mean, sd: of δ_rel over the prompts.  difference, se: mean of table − null over the
    same prompts and its standard error sd/√prompts; NaN for the table itself."""

    name: str
    mean: float
    sd: float
    difference: float
    se: float


@dataclass(frozen=True)
class DeltaByPrompt:
    """δ_rel of each prompt. tokens: how many each has.  table: of its vectors.  nulls: of one draw of each null."""

    tokens: NDArray[np.int64]
    table: NDArray[np.float64]
    nulls: dict[str, NDArray[np.float64]]

    def rows(self) -> list[Row]:
        """The table first, then every null. Prompts share tokens: the standard errors are rather small for them."""
        nan = math.nan
        found = [Row("table", float(self.table.mean()), _sd(self.table), nan, nan)]
        for name, values in self.nulls.items():
            gap = self.table - values
            se = _sd(gap) / math.sqrt(len(gap))
            found.append(Row(name, float(values.mean()), _sd(values), float(gap.mean()), se))
        return found


def _sd(values: NDArray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def delta_by_prompt(
    table: Float[Tensor, "v d"],
    prompts: Sequence[Sequence[int]],
    nulls: Sequence[str] = NULLS,
    seed: int = 0,
    *,
    base: int | None = 0,
    limit: int = 1500,
) -> DeltaByPrompt:
    """δ_rel of each prompt's rows of a table, and of nulls with as many tokens, dimensions and repetitions.

    Hidden states are measured alike: all of them stacked as the table, a prompt a run of its row numbers.

    Args:
        table: one row a token, any float dtype and device.
        prompts: row numbers, special tokens included where the model sees them.
        nulls: for each different token of a prompt instead of its row,
            "gaussian": independent standard normal coordinates;
            "shuffled": each coordinate from another row, so that each keeps its own distribution over the table;
            "norms": a random direction as long as the token's row;
            "covariance": a normal vector of the table's mean and covariance (O(d³) once: a minute for d = 4096).
        base: place in the prompt of the base point, as published the first token; None for all of them.
        limit: longer prompts are cut to the base and a random choice of other tokens.

    Raises:
        ParameterError: no prompts, an empty one, a token or a base that is not there, an unknown null.
    """
    rows = _checked(table, prompts, base)
    for name in nulls:
        if name not in NULLS:
            raise ParameterError(
                f"a null is one of {', '.join(NULLS)}, but came as {name!r}{suggest(name, NULLS)}"
            )
    if limit < 4:
        raise ParameterError(f"limit must be at least 4, but came as {limit}")
    draws = {name: _drawer(name, table) for name in nulls}
    found: dict[str, list[float]] = {name: [] for name in ("table", *nulls)}
    origin = None if base is None else 0
    for number, ids in enumerate(rows):
        rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
        distinct, places = _base_first(ids, base or 0, limit, rng).unique(return_inverse=True)
        vectors = table.detach()[distinct.to(table.device)].cpu().double()
        found["table"].append(relative_delta(vectors[places], origin))
        for name, draw in draws.items():
            found[name].append(relative_delta(draw(vectors, rng)[places], origin))
    values = {name: np.array(column) for name, column in found.items()}
    return DeltaByPrompt(np.array([len(ids) for ids in rows]), values.pop("table"), values)


def _checked(table: Tensor, prompts: Sequence[Sequence[int]], base: int | None) -> list[Tensor]:
    if table.ndim != 2 or not table.is_floating_point():
        raise ParameterError(f"a table is a matrix of floats, but {tuple(table.shape)} of {table.dtype} came")
    rows = [torch.as_tensor(ids, dtype=torch.int64) for ids in prompts]
    if not rows:
        raise ParameterError("at least one prompt is needed, but none came")
    for number, ids in enumerate(rows):
        if ids.ndim != 1 or len(ids) <= (base or 0):
            raise ParameterError(
                f"prompt {number} needs more than {base or 0} tokens in one row, but has {tuple(ids.shape)}"
            )
        if int(ids.min()) < 0 or int(ids.max()) >= len(table):
            raise ParameterError(
                f"prompt {number} has a token that is no row of the table, which has {len(table):,} rows"
            )
    return rows


def _base_first(ids: Tensor, base: int, limit: int, rng: torch.Generator) -> Tensor:
    others = torch.cat([ids[:base], ids[base + 1 :]])
    if len(ids) > limit:
        others = others[torch.randperm(len(others), generator=rng)[: limit - 1]]
    return torch.cat([ids[base : base + 1], others])


def _drawer(name: str, table: Tensor) -> Callable[[Tensor, torch.Generator], Tensor]:
    """From the (m, d) rows of different tokens, as many vectors of a null; float64 on the CPU."""

    def normal(like: Tensor, rng: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=rng, dtype=torch.float64)

    def norms(vectors: Tensor, rng: torch.Generator) -> Tensor:
        drawn = normal(vectors, rng)
        return drawn * (vectors.norm(dim=1) / drawn.norm(dim=1))[:, None]

    def shuffled(vectors: Tensor, rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(table), vectors.shape, generator=rng).to(table.device)
        columns = torch.arange(table.shape[1], device=table.device)
        return table.detach()[chosen, columns].cpu().double()

    if name == "covariance":
        mean, covariance = _moments(table)
        values, axes = torch.linalg.eigh(covariance)
        factor = (axes * values.clamp_min(0).sqrt()).T
        return lambda vectors, rng: mean + normal(vectors, rng) @ factor
    return {"gaussian": normal, "norms": norms, "shuffled": shuffled}[name]
