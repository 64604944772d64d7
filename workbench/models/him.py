"""HiM: names as points of hyperbolic space, in which what is more general lies further in.

Names → word pieces → text encoder → tangent vector at the origin → point; "is x a kind of y?" is read from distance
and radii (`him_losses.subsumption`). *Hierarchical Mamba* (arXiv 2505.18973), whose two variants are one model in two
charts; in flat space the same code is the Euclidean baseline. How it is fitted stands in `workbench.training.him`.

The encoder works in float32; tangent vectors and points are float64.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from workbench.errors import CheckpointError, ParameterError, suggest
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import make, rescale_curvature
from workbench.manifolds.base import Curved, checked_curvature
from workbench.manifolds.charts import SPACES
from workbench.manifolds.numerics import norm, tanhc
from workbench.models import him_losses
from workbench.models.him_released import Released
from workbench.models.text_encoder import EncoderConfig, make_encoder, tokenizer_of
from workbench.models.wordpiece import Tokenizer

Names = str | Sequence[str]


@dataclass(frozen=True)
class HiMConfig:
    """The space, the map into it and the encoder.

    space: "poincare", "lorentz" or "euclidean" (c and radius_cap are not used). c: at the start, if learned.
    dim: of the space; 0 takes the encoder's width, without a linear layer between.
    gamma: what encoder outputs are multiplied by, at the start if learned. Only √c·gamma (`HiM.kappa`) matters.
    radius_cap: radii go smoothly to this limit, in unit curvature; float64 holds a ball to 35 and pairs at 15 well.
    encoder: an `EncoderConfig`, or its values as a dict; its vocab_size follows the tokenizer.
    official: measure as the released code does (see `him_released`), for a lesson only.

    ParameterError (or ManifoldError for c) for values that make no sense.
    """

    space: str = "poincare"
    c: float = 1.0
    learn_curvature: bool = True
    dim: int = 16
    gamma: float = 0.5
    learn_gamma: bool = True
    radius_cap: float = 15.0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    official: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.encoder, dict):  # from JSON and from notebooks
            try:
                object.__setattr__(self, "encoder", EncoderConfig(**self.encoder))
            except TypeError as e:
                raise ParameterError(f"the encoder's settings are not those of EncoderConfig: {e}") from e
        if self.space not in SPACES:
            raise ParameterError(
                f"space must be one of {', '.join(SPACES)}, but came as {self.space!r}{suggest(self.space, SPACES)}"
            )
        checked_curvature(self.c)
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 0:
            raise ParameterError(
                f"dim must be a whole number (0: the encoder's width), but came as {self.dim!r}"
            )
        for name in ("gamma", "radius_cap"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ParameterError(f"{name} must be positive and finite, but came as {value!r}")
        if self.official and self.space == "euclidean":
            raise ParameterError("official=True needs space poincare or lorentz, but came with euclidean")


class Calibrated(NamedTuple):
    """lam: weight of the radii in the score. threshold: the largest score that still counts as subsumption."""

    lam: float
    threshold: float


class Index(NamedTuple):
    """Names of a hierarchy, each once, and their points (n, ambient)."""

    names: tuple[str, ...]
    points: Tensor


class HiM(nn.Module):
    """Names to points.

    >>> model = HiM.load("mammals.him")
    >>> model.encode(["dog", "wolf"]).shape
    torch.Size([2, 16])
    >>> model.subsumption("dog", "mammal") > 0
    True
    >>> model.hypernyms("dog", k=2)
    [('canine', 1.3), ('carnivore', 0.9)]

    tokenizer: by default the one the encoder expects (`tokenizer_of`). The weights start from the config's seed.
    `manifold` is the space of the points; `loss_manifold` and `score_manifold` are what losses and scores measure
    with, the same one unless config.official. ParameterError for a tokenizer that a pretrained encoder does not know.
    """

    def __init__(self, config: HiMConfig | None = None, tokenizer: Tokenizer | None = None):
        super().__init__()
        config = config or HiMConfig()
        self.tokenizer = tokenizer or tokenizer_of(config.encoder)
        encoder = replace(config.encoder, vocab_size=self.tokenizer.vocab_size)
        self.config = config = replace(config, encoder=encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.encoder = make_encoder(encoder)
            self.linear = nn.Linear(self.encoder.out_dim, config.dim) if config.dim else None
        known = getattr(self.encoder, "tokenizer", self.tokenizer)
        if known.fingerprint != self.tokenizer.fingerprint:
            raise ParameterError(
                f"encoder {encoder.pretrained!r} needs its own tokenizer, but another one came"
            )
        self.manifold = make(config.space, config.c, config.learn_curvature)
        start = torch.tensor(math.log(config.gamma), dtype=torch.float64)
        if config.learn_gamma:
            self.log_gamma = nn.Parameter(start)
        else:
            self.register_buffer("log_gamma", start)
        self._calibration: Calibrated | None = None
        self._index: Index | None = None

    # -- pieces to points ---------------------------------------------------------------------------------
    @property
    def gamma(self) -> Float[Tensor, ""]:
        return self.log_gamma.exp()

    @property
    def kappa(self) -> Float[Tensor, ""]:
        """√c·γ (γ in flat space), the one number that curvature and scale amount to: distances in unit curvature
        stay as they are under (c, γ) → (λ²c, γ/λ)."""
        return him_losses.unit(self.manifold) * self.gamma

    @property
    def loss_manifold(self):
        return Released(self.manifold, "loss") if self.config.official else self.manifold

    @property
    def score_manifold(self):
        return Released(self.manifold, "score") if self.config.official else self.manifold

    @property
    def dim(self) -> int:
        """Of the space."""
        return self.config.dim or self.encoder.out_dim

    def head(self, features: Float[Tensor, "n w"]) -> Float[Tensor, "n d"]:
        """Tangent vectors at the origin, float64, of what the encoder gave: γ·linear(features), in a curved space
        with the radius r, in unit curvature, softly capped to cap·tanh(r/cap)."""
        z = features if self.linear is None else self.linear(features)
        v = self.gamma * z.double()
        if not isinstance(self.manifold, Curved):  # flat space has no radius at which digits end
            return v
        return v * tanhc(him_losses.unit(self.manifold) * norm(v) / self.config.radius_cap)

    def tangent(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n d"]:
        """Tangent vectors at the origin, float64: the same ones in both charts."""
        return self.head(self.encoder(ids, mask))

    def points_of(self, v: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The points at distance |v| from the origin in the directions v."""
        return self.manifold.from_tangent(v)

    def forward(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n k"]:
        return self.points_of(self.tangent(ids, mask))

    @torch.no_grad()
    def rescaled(self, c: float) -> HiM:
        """A copy in curvature -c that gives the same distances in unit curvature: γ takes up what c loses.

        ParameterError in flat space.
        """
        if not isinstance(self.manifold, Curved):
            raise ParameterError(f"flat space has no curvature to change to c={c}")
        before, model = float(self.manifold.c), copy.deepcopy(self)
        model.manifold = make(self.config.space, c, self.config.learn_curvature).to(self.log_gamma.device)
        model.log_gamma += math.log(before / c) / 2
        model.config = replace(self.config, c=float(c))
        if self._index is not None:
            moved = rescale_curvature(self._index.points, before, c)
            model._index = Index(self._index.names, moved)
        return model

    # -- names --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def encode(self, names: Names, batch: int = 512, progress: bool = False) -> Float[Tensor, "*n k"]:
        """Float64 points (n, ambient) of names, on the device of the model; of one name, (ambient,).

        Each distinct name is encoded once. Over-long ones are cut, with one warning. DataError for an empty name;
        ParameterError for a batch below 1 or when the weights give NaN.
        """
        if batch < 1:
            raise ParameterError(f"batch must be at least 1, but came as {batch!r}")
        texts = [names] if isinstance(names, str) else list(names)
        ids, mask = self.tokenizer(texts, self.config.encoder.max_tokens)
        if not texts:
            return self.points_of(torch.zeros(0, self.dim, dtype=torch.float64, device=self.log_gamma.device))
        rows, places = torch.unique(2 * ids + mask, dim=0, return_inverse=True)
        points = self._encode_rows(rows // 2, rows % 2 == 1, batch, progress)
        points = points[places.to(points.device)]
        bad = ~torch.isfinite(points).all(-1)
        if bad.any():
            raise ParameterError(
                f"points must be finite, but the weights give NaN for {int(bad.sum())} of {len(texts)} names, "
                f"first {texts[int(bad.nonzero()[0])]!r}"
            )
        return points[0] if isinstance(names, str) else points

    def _encode_rows(self, ids: Tensor, mask: Tensor, batch: int, progress: bool) -> Tensor:
        """Points of rows of pieces, those of like length together."""
        lengths, device, was_training = mask.sum(1), self.log_gamma.device, self.training
        order = lengths.argsort(stable=True)
        out = torch.empty(len(ids), self.manifold.ambient_dim(self.dim), dtype=torch.float64, device=device)
        self.eval()
        try:
            blocks = order.split(batch)
            for rows in tqdm(blocks, desc="encoding", leave=False, disable=not progress):
                longest = int(lengths[rows].max())
                out[rows.to(device)] = self(ids[rows, :longest].to(device), mask[rows, :longest].to(device))
        finally:
            self.train(was_training)
        return out

    def _pair(self, a: Names | Tensor, b: Names | Tensor) -> tuple[Tensor, Tensor, bool]:
        """Points of both, broadcastable, and whether each is only one."""
        x, y = (p if isinstance(p, Tensor) else self.encode(p) for p in (a, b))
        x, y = x.to(self.log_gamma.device), y.to(self.log_gamma.device)
        one = x.ndim == y.ndim == 1
        x, y = torch.atleast_2d(x), torch.atleast_2d(y)
        if len(x) != len(y) and 1 not in (len(x), len(y)):
            raise ParameterError(
                f"as many names or points on both sides, or one, but came {len(x)} and {len(y)}"
            )
        return x, y, one

    @torch.no_grad()
    def distance(self, a: Names | Tensor, b: Names | Tensor) -> float | Float[Tensor, " n"]:
        """Distance in unit curvature between names (or points from `encode`): a float for one pair, else one a row.

        ParameterError for sides of unequal length, unless one of them is a single name.
        """
        x, y, one = self._pair(a, b)
        d = him_losses.distance(self.manifold, x, y)
        return float(d) if one else d

    # -- what is a kind of what ---------------------------------------------------------------------------
    @property
    def calibration(self) -> Calibrated | None:
        """Weight and threshold of the score; set it to anything with the attributes lam and threshold, or None."""
        return self._calibration

    @calibration.setter
    def calibration(self, value) -> None:
        if value is not None:
            value = Calibrated(float(value.lam), float(value.threshold))
            if not all(map(math.isfinite, value)):
                raise ParameterError(f"lam and threshold must be finite, but came as {tuple(value)}")
        self._calibration = value

    def _calibrated(self) -> Calibrated:
        if self._calibration is None:
            raise ParameterError("the model has no threshold yet: fit it, or set model.calibration")
        return self._calibration

    @torch.no_grad()
    def subsumption(self, child: Names | Tensor, parent: Names | Tensor) -> float | Float[Tensor, " n"]:
        """Margin by which child counts as a kind of parent, threshold minus score: > 0 is yes.

        Names or points; one on a side goes with each of the other. ParameterError without calibration.
        """
        lam, threshold = self._calibrated()
        x, y, one = self._pair(child, parent)
        margin = threshold - him_losses.subsumption(self.score_manifold, x, y, lam)
        return float(margin) if one else margin

    def index(self, names: Sequence[str], points: Float[Tensor, "n k"] | None = None) -> None:
        """Remember the names of a hierarchy for `hypernyms`, each once; points: theirs, if already encoded.

        ParameterError when names and points do not go together.
        """
        names = list(names)
        points = self.encode(names) if points is None else points.detach()
        if points.shape != (len(names), self.manifold.ambient_dim(self.dim)):
            raise ParameterError(
                f"an index needs one point a name, but came with {len(names)} names and {tuple(points.shape)}"
            )
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        rows = sorted(first.values())
        points = points[rows].to(self.log_gamma.device, torch.float64)
        self._index = Index(tuple(names[i] for i in rows), points)

    @property
    def indexed(self) -> Index | None:
        """What `index` remembers."""
        return self._index

    @torch.no_grad()
    def hypernyms(self, name: str, k: int = 10) -> list[tuple[str, float]]:
        """The k indexed names that are most surely above a name, best first, with their margins (> 0: believed).

        Only what lies further in than the name counts as above it. ParameterError without index or calibration.
        """
        lam, threshold = self._calibrated()
        if self._index is None:
            raise ParameterError("the model knows no names yet: call model.index(names)")
        names, points = self._index
        x, inner = self.encode(name), self._pieces(name)
        points = points.to(x.device)
        score = him_losses.subsumption(self.score_manifold, x, points, lam)
        above = him_losses.radius(self.manifold, points) < him_losses.radius(self.manifold, x)
        found = []
        for i in score.masked_fill(~above, torch.inf).argsort(stable=True).tolist():
            if len(found) == k or not above[i]:
                break
            if self._pieces(names[i]) != inner:  # the name itself, perhaps in other letters
                found.append((names[i], threshold - float(score[i])))
        return found

    def relation(self, a: str, b: str) -> str:
        """What a is beside b: "broader" (b is a kind of a), "narrower", "same" or "unrelated".

        Where both directions pass the threshold the surer one counts, since of two names at most one is a kind of
        the other; "same" is what has the same words, or a score that cannot tell which is the more general one.
        ParameterError without calibration.
        """
        x = self.encode([a, b])
        narrower, broader = self.subsumption(x, x.flip(0)).tolist()
        if self._pieces(a) == self._pieces(b):
            return "same"
        if max(narrower, broader) <= 0:
            return "unrelated"
        if abs(narrower - broader) < 1e-9:
            return "same"
        return "narrower" if narrower > broader else "broader"

    def _pieces(self, name: str) -> list[int]:
        return self.tokenizer([name], self.config.encoder.max_tokens)[0][0].tolist()

    # -- files --------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """One safetensors file, atomically: config, tokenizer, weights, c and γ, calibration and index."""
        about = {
            "kind": "him",
            "config": asdict(self.config),
            "tokenizer": self.tokenizer.to_json(),
            "fingerprint": self.tokenizer.fingerprint,
            "calibration": self._calibration and self._calibration._asdict(),
            "index": self._index and list(self._index.names),
        }
        tensors = {f"model.{k}": v for k, v in self.state_dict().items()}
        if self._index is not None:
            tensors["index"] = self._index.points
        save_tensors(path, tensors, about)

    @classmethod
    def load(cls, path: str | Path, tokenizer: Tokenizer | None = None) -> HiM:
        """Read what `save` wrote, bit for bit, on the CPU and ready to use.

        CheckpointError if it is missing, damaged, of another kind, or was saved with another tokenizer than the one
        given (none: the one in the file).
        """
        tensors, about = load_tensors(path)
        if about.get("kind") != "him":
            raise CheckpointError(f"{path} is a workbench file, but not a HiM")
        try:
            own = Tokenizer.from_json(about["tokenizer"])
            for other in (own, tokenizer or own):
                if other.fingerprint != about["fingerprint"]:
                    raise CheckpointError(
                        f"its tokenizer is {about['fingerprint'][:12]}…, but {other.fingerprint[:12]}… came"
                    )
            model = cls(HiMConfig(**about["config"]), own)
            prefix = "model."
            model.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
            model.calibration = about["calibration"] and Calibrated(**about["calibration"])
            if about["index"] is not None:
                model.index(about["index"], tensors["index"])
        except (ValueError, KeyError, TypeError, RuntimeError) as e:  # ValueError: ours are among them
            raise CheckpointError(f"{os.fspath(path)} holds no whole HiM: {e}") from e
        return model.eval()
