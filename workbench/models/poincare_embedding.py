"""Embeddings of a hierarchy's nodes, in any of the three spaces.

The model is a table of points with the names that belong to them; how it is fitted stands in
`workbench.training.embedding`. Sources: Nickel & Kiela, *Poincaré Embeddings for Learning Hierarchical
Representations* (2017) and *Learning Continuous Hierarchies in the Lorentz Model* (2018); Ganea, Bécigneul, Hofmann,
*Hyperbolic Entailment Cones* (2018).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import CheckpointError, DataError, ParameterError, WorkbenchError, suggest
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import make, rescale_curvature
from workbench.manifolds.pairwise import pairwise
from workbench.paths import asset

PRETRAINED = {"wordnet-2d": "wordnet_2d.safetensors", "wordnet-10d": "wordnet_10d.safetensors"}
OBJECTIVES = ("softmax", "cones")
INITS = ("walk", "wedge", "sarkar", "random")
WHOLE = ("dim", "epochs", "batch", "candidates", "seed")
MAY_BE_ZERO = ("candidates", "seed", "burn_in", "hold", "final_lr", "degree_power", "margin")


@dataclass(frozen=True)
class EmbeddingConfig:
    """How to embed a hierarchy. Lengths are in the manifold's own distance.

    dim: dimension of the space.
    objective: "softmax" (Nickel & Kiela 2017, eq. 5) or "cones" (Ganea et al. 2018, eq. 32).
    epochs, lr, hold, final_lr, burn_in: the rate is lr for the share `hold` of the epochs, then falls along a
    cosine to lr·final_lr; lr/10 for the first burn_in epochs.
    batch: sources a step. candidates: nodes they are told apart from, shared by the batch; 0 means all nodes.
    negative_weight: weight of the negatives in the partition function, 1 = the full softmax.
    degree_power: a node in k closure pairs moves at rate lr·k^-degree_power, so that the root does not shake.
    max_step, max_radius: bounds on one step and on the distance to the origin (in the ball never beyond 34/√c,
    where float64 coordinates run out).
    init: "walk" (a random walk down the hierarchy), "wedge" (in two dimensions: angles by leaf counts), "sarkar", or
    "random" (uniform in a cube of side 2e-3, as in the 2017 release). Of "walk" and "sarkar": init_radius, the
    median distance to the origin; of "walk": init_decay, the length of a step relative to that of the level above.
    margin, aperture: of the cones only (γ and K in the paper).
    """

    dim: int = 5
    objective: str = "softmax"
    epochs: int = 130
    lr: float = 0.07
    hold: float = 0.7
    final_lr: float = 0.05
    burn_in: int = 5
    batch: int = 74
    candidates: int = 0
    negative_weight: float = 1.0
    degree_power: float = 0.25
    max_step: float = 0.15
    max_radius: float = 12.0
    init: str = "walk"
    init_radius: float = 0.5
    init_decay: float = 0.7
    margin: float = 0.1
    aperture: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("objective", OBJECTIVES), ("init", INITS)):
            if getattr(self, name) not in known:
                raise ParameterError(
                    f"{name} must be one of {', '.join(known)}, but came as {getattr(self, name)!r}"
                    + suggest(getattr(self, name), known)
                )
        for field in fields(self):
            if field.name in ("objective", "init"):
                continue
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # numpy's numbers are not JSON-able
                value = value.item()
                object.__setattr__(self, field.name, value)
            whole = field.name in WHOLE
            kind = "whole number" if whole else "number"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ParameterError(f"{field.name} must be a {kind}, but came as {value!r}")
            if not (np.isfinite(value) and (value >= 0 if field.name in MAY_BE_ZERO else value > 0)):
                sign = f"a {kind} not below 0" if field.name in MAY_BE_ZERO else f"a positive {kind}"
                raise ParameterError(f"{field.name} must be {sign}, but came as {value!r}")
        if self.hold >= 1:
            raise ParameterError(
                f"hold is a share of the epochs and must be below 1, but came as {self.hold!r}"
            )

    @classmethod
    def for_size(cls, nodes: int, **changes) -> EmbeddingConfig:
        """Settings that work for a hierarchy of this many nodes: up to 4,000 nodes all pairs, for curvature c = 1;
        beyond that sampled candidates, for c = 0.1. (In the softmax of -d the curvature is a temperature: the same
        points at c = 0.1 are √10 times as far apart, and confusions cost more.)

        Raises ParameterError for an unknown setting.
        """
        known = [f.name for f in fields(cls)]
        for name in changes:
            if name not in known:
                raise ParameterError(
                    f"unknown setting {name!r}{suggest(name, known)}; known: {', '.join(known)}"
                )
        large = dict(epochs=60, lr=0.3, burn_in=0, hold=0.5, batch=128, candidates=2048, degree_power=0.25,
                     max_step=0.5, max_radius=50.0, init_radius=6.3, init_decay=0.85)  # fmt: skip
        return replace(cls(**(large if nodes > 4000 else {})), **changes)


class Neighbour(NamedTuple):
    name: str
    distance: float


class PoincareEmbedding:
    """A table of points and the names of the nodes they stand for.

    Attributes:
        names: N node names. manifold: the space. points: (N, ambient) float64 points of it.
        about: JSON-able facts on how the table was made (settings, fingerprint of the hierarchy, scores).
    """

    def __init__(
        self, names: Sequence[str], manifold, points: Float[Tensor, "n k"], about: dict | None = None
    ):
        if len(names) != len(points):
            raise DataError(
                f"an embedding needs one name a point, got {len(names)} names and {len(points)} points"
            )
        self.names, self.manifold, self.about = tuple(names), manifold, dict(about or {})
        self.points = manifold.check(torch.as_tensor(points).detach().to(torch.float64), "points")
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) < len(self.names):
            twice = next(name for i, name in enumerate(self.names) if self._index[name] != i)
            raise DataError(f"an embedding needs one point a name, but {twice!r} stands there twice")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"PoincareEmbedding({len(self):,} points, dim={self.dim}, {self.manifold})"

    @property
    def dim(self) -> int:
        return self.manifold.intrinsic_dim(self.points.shape[-1])

    def index(self, name: str | int) -> int:
        """Row of a node; DataError with the nearest known name if there is none."""
        if isinstance(name, int | np.integer):
            if not 0 <= name < len(self):
                raise DataError(f"node number must be below {len(self)}, got {name}")
            return int(name)
        if name not in self._index:
            raise DataError(f"no node named {name!r}{suggest(name, self.names)}")
        return self._index[name]

    def nearest(self, name: str | int, k: int = 10) -> list[Neighbour]:
        """The k nodes nearest in the true metric, nearest first, the node itself left out."""
        return self._closest(self.index(name), torch.ones(len(self), dtype=torch.bool), k)

    def ancestors(self, name: str | int, k: int = 10) -> list[Neighbour]:
        """The k nearest of the nodes that lie closer to the origin: what the embedding holds for its hypernyms.

        Nickel & Kiela (2017, section 4.1) score "u is a v" by distance and difference of norms alike.
        """
        i = self.index(name)
        radius = self.manifold.dist0(self.points)
        return self._closest(i, radius < radius[i], k)

    def _closest(self, i: int, allowed: Tensor, k: int) -> list[Neighbour]:
        if k < 0:
            raise ParameterError(f"k is a number of nodes to list and must not be below 0, got {k}")
        d = self.manifold.dist(self.points[i], self.points)
        d = torch.where(allowed, d, torch.inf)
        d[i] = torch.inf
        best = d.topk(min(k, len(self)), largest=False)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [Neighbour(self.names[j], value) for j, value in pairs if np.isfinite(value)]

    def to(self, manifold) -> PoincareEmbedding:
        """The same points in the other chart of the same hyperbolic space."""
        if float(manifold.c) != float(self.manifold.c) or "euclidean" in (manifold.name, self.manifold.name):
            raise ParameterError(
                f"points of {self.manifold} have no counterpart in {manifold}: curvatures differ"
            )
        points = manifold.from_tangent(self.manifold.to_tangent(self.points))
        return PoincareEmbedding(self.names, manifold, points, self.about)

    def rescaled(self, c: float) -> PoincareEmbedding:
        """The same figure in curvature -c: all distances times √(c_now / c). Ranks stay as they are."""
        if "euclidean" in self.manifold.name:
            raise ParameterError(f"flat space has no curvature to change to c={c}")
        points = rescale_curvature(self.points, float(self.manifold.c), c)
        return PoincareEmbedding(self.names, make(self.manifold.name, c=c), points, self.about)

    def save(self, path: str | Path, dtype: torch.dtype = torch.float64) -> None:
        """Write one safetensors file, atomically. `dtype=torch.float32` halves it: hyperboloid coordinates are
        stored, which keep 24 bits at every radius. DataError for a name of two lines."""
        if broken := [name for name in self.names if "\n" in name]:
            raise DataError(f"a name to be saved must stand on one line, got {broken[0]!r}")
        names = np.frombuffer(zlib.compress("\n".join(self.names).encode(), 9), dtype=np.uint8)
        tensors = {
            "coordinates": pairwise(self.manifold).encode(self.points).to(dtype),
            "names": torch.from_numpy(names.copy()),
        }
        space = {"kind": "embedding", "manifold": self.manifold.name, "c": float(self.manifold.c)}
        save_tensors(path, tensors, {**self.about, **space})

    @classmethod
    def load(cls, path: str | Path) -> PoincareEmbedding:
        """Read what `save` wrote; CheckpointError if the file is missing, damaged or of another kind."""
        tensors, about = load_tensors(path)
        if about.pop("kind", None) != "embedding" or not {"coordinates", "names"} <= tensors.keys():
            raise CheckpointError(f"{path} is a workbench file, but not an embedding")
        try:
            names = zlib.decompress(tensors["names"].numpy().tobytes()).decode().split("\n")
        except (zlib.error, UnicodeDecodeError) as e:
            raise CheckpointError(f"{path} holds names that cannot be read ({e})") from e
        name, c, coordinates = about.pop("manifold", None), about.pop("c", None), tensors["coordinates"]
        try:
            if coordinates.ndim != 2:
                raise DataError(f"coordinates must be a table, got shape {tuple(coordinates.shape)}")
            manifold = make(name, c=c) if c else make(name)
            return cls(names, manifold, pairwise(manifold).decode(coordinates.double()), about)
        except WorkbenchError as e:
            raise CheckpointError(f"{path} holds no whole embedding: {e}") from e

    @classmethod
    def pretrained(cls, name: str) -> PoincareEmbedding:
        """A table shipped in the package: "wordnet-2d" or "wordnet-10d", all 82,115 nouns of WordNet 3.0."""
        if name not in PRETRAINED:
            known = ", ".join(PRETRAINED)
            raise ParameterError(f"no trained table {name!r}{suggest(name, PRETRAINED)}; there are: {known}")
        return cls.load(asset(PRETRAINED[name]))


def describe(config: EmbeddingConfig) -> dict:
    """The settings as JSON-able facts."""
    return asdict(config)
