"""HRQ: residual quantisation in hyperbolic space, of features through an autoencoder or of a hierarchy's own points.

Piękos, Kayal, Karatzoglou, *Hyperbolic Residual Quantization* (arXiv 2505.12404). Features → encoder → point of the
manifold → `ResidualQuantizer` → decoder → features (`HRQVAE`, unsupervised); or a table with one point a node
(`HRQTable`, supervised). With space="euclidean" the same code is RQ and RQ-VAE. How they are fitted stands in
`workbench.training.hrq`.

Points are float64; encoder and decoder of layers="tangent" work in the dtype of their weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import CheckpointError, DataError, ParameterError, WorkbenchError, suggest
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import make
from workbench.models.movable import Movable
from workbench.models.residual_quantizer import ResidualQuantizer
from workbench.nn import MobiusActivation, MobiusLinear, PoincareLinear

LAYERS = ("tangent", "mobius", "hnnpp")
FORGET = 0.99  # of the moving average that holds the scale


@dataclass(frozen=True)
class HRQConfig:
    """The space, the codes and, for features, the network.

    space, c: "poincare", "lorentz" or "euclidean" (RQ; c is not used). dim: of the space.
    levels, codebook_size (one number, or one a level), order, lookup, update, decay, commitment, revive_below: see
    `ResidualQuantizer`.
    layers: "tangent" (plain linear layers on tangent vectors at the origin), "mobius" (Ganea et al. 2018) or "hnnpp"
    (Shimizu et al. 2021). hidden: widths of the encoder's layers; the decoder mirrors them.
    radius: keep the median distance of encoded features from the origin here, by a factor that follows a moving
    average; None leaves it to the encoder. scale: that factor where radius is None; for a table, which has no use
    for radius, the deviation of its first tangent vectors.

    ParameterError for values that make no sense.
    """

    dim: int = 4
    space: str = "poincare"
    c: float = 1.0
    levels: int = 3
    codebook_size: int | tuple[int, ...] = 32
    order: str = "left"
    lookup: str = "manifold"
    update: str = "ema"
    decay: float = 0.99
    commitment: float = 0.25
    revive_below: float = 0.03
    layers: str = "tangent"
    hidden: tuple[int, ...] = (128,)
    radius: float | None = 1.0
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "codebook_size"):  # lists come from JSON and from notebooks
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.layers not in LAYERS:
            raise ParameterError(
                f"layers must be one of {', '.join(LAYERS)}, but came as {self.layers!r}"
                + suggest(self.layers, LAYERS)
            )
        if not isinstance(self.hidden, tuple) or not all(isinstance(h, int) and h > 0 for h in self.hidden):
            raise ParameterError(
                f"hidden must be positive whole numbers, one a layer, but came as {self.hidden!r}"
            )
        if not self.scale > 0 or not (self.radius is None or self.radius > 0):
            raise ParameterError(
                f"scale and radius must be positive (radius may be None), "
                f"but came as {self.scale!r} and {self.radius!r}"
            )

    def quantizer(self) -> ResidualQuantizer:
        """A fresh quantiser in a fresh space; raises what those raise."""
        return ResidualQuantizer(
            make(self.space, self.c),
            self.dim,
            self.levels,
            self.codebook_size,
            order=self.order,
            lookup=self.lookup,
            update=self.update,
            decay=self.decay,
            commitment=self.commitment,
            revive_below=self.revive_below,
            seed=self.seed,
        )


def perceptron(manifold, widths: tuple[int, ...], layers: str) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them: of tangent vectors, or of points."""
    linear = {"mobius": MobiusLinear, "hnnpp": PoincareLinear}.get(layers)
    parts: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        if i:
            parts.append(MobiusActivation(manifold) if linear else nn.ReLU())
        parts.append(linear(manifold, a, b) if linear else nn.Linear(a, b))
    return nn.Sequential(*parts)


class HRQOutput(NamedTuple):
    """What a forward pass returns. reconstruction: as the features. codes: (n, levels). error: mean squared error in
    units of the features' variance (NMSE). quantization: (levels,) the quantiser's losses."""

    reconstruction: Tensor
    codes: Tensor
    error: Tensor
    quantization: Tensor


class _Model(nn.Module):
    """Saving and loading, the same for both models."""

    kind: str

    def __init__(self, size: int, config: HRQConfig):
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ParameterError(f"a {self.kind} needs a positive whole number of inputs, but got {size!r}")
        self.size, self.config = size, config
        self.quantizer = config.quantizer()

    @property
    def manifold(self):
        return self.quantizer.manifold

    def own_state(self) -> dict[str, Tensor]:
        """The state without the curvature, which the config holds and every layer shares."""
        return {k: v for k, v in self.state_dict().items() if not k.endswith("fixed_c")}

    def load_own_state(self, state: dict[str, Tensor]) -> None:
        """Take what `own_state` gave; RuntimeError if anything is missing or left over."""
        missing, unexpected = self.load_state_dict(state, strict=False)
        wrong = [name for name in [*missing, *unexpected] if not name.endswith("fixed_c")]
        if wrong:
            raise RuntimeError(f"missing or unexpected: {', '.join(wrong[:3])}")

    def save(self, path: str | Path) -> None:
        """One safetensors file, atomically."""
        about = {"kind": self.kind, "size": self.size, "config": asdict(self.config)}
        save_tensors(path, self.own_state(), about)

    @classmethod
    def load(cls, path: str | Path):
        """Read what `save` wrote, bit for bit; CheckpointError if it is missing, damaged or of another kind."""
        tensors, about = load_tensors(path)
        if about.get("kind") != cls.kind:
            raise CheckpointError(f"{path} is a workbench file, but not a {cls.kind}")
        try:
            model = cls(about["size"], HRQConfig(**about["config"]))
            model.load_own_state(tensors)
        except (WorkbenchError, KeyError, TypeError, RuntimeError) as e:
            raise CheckpointError(f"{path} holds no whole {cls.kind}: {e}") from e
        return model.eval()


class HRQVAE(_Model):
    """Features (n, size) ↔ multitokens (n, levels), through points of a hyperbolic space.

    Features are centred and divided by one number, their deviation, which `prepare` takes from the data; the
    weights start from the config's seed.
    """

    kind = "HRQ-VAE"

    def __init__(self, size: int, config: HRQConfig | None = None):
        config = config or HRQConfig()
        super().__init__(size, config)
        widths = (size, *config.hidden, config.dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.encoder = perceptron(self.manifold, widths, config.layers)
            self.decoder = perceptron(self.manifold, widths[::-1], config.layers)
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))
        self.register_buffer("factor", torch.tensor(config.scale, dtype=torch.float64))

    # -- features to points and back ----------------------------------------------------------------------
    def check(self, x: Float[Tensor, "n f"]) -> Float[Tensor, "n f"]:
        """Features as float64 on the device of the model; DataError for another shape, NaN or infinity."""
        x = torch.as_tensor(x)
        if x.ndim != 2 or x.shape[1] != self.size or not x.is_floating_point():
            raise DataError(
                f"features must be floating point (n, {self.size}), got {x.dtype} {tuple(x.shape)}"
            )
        x = x.to(self.mean)
        bad = ~torch.isfinite(x).all(1)
        if bad.any():
            raise DataError(
                f"features must be finite: {int(bad.sum())} of {len(x)} rows are not, first {int(bad.nonzero()[0])}"
            )
        return x

    def encode(self, x: Float[Tensor, "n f"]) -> Float[Tensor, "n k"]:
        """Points (n, ambient), float64, of checked features."""
        return self._to_point(self._to_tangent((x - self.mean) / self.deviation))

    def _to_tangent(self, x: Tensor) -> Tensor:
        """Tangent vectors of the encoder, before the scale is controlled; x in units of the deviation."""
        if self.config.layers == "tangent":
            return self.encoder(x.to(self.encoder[0].weight.dtype)).double()
        # Divided by √size: many features, each of order 1, would start at the rim.
        point = self.manifold.from_tangent(x / self.size**0.5)
        return self.manifold.to_tangent(self.encoder(point))

    def _to_point(self, t: Tensor) -> Tensor:
        return self.manifold.from_tangent(t * self.factor)

    def decode(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n f"]:
        """Features, float64, of points."""
        return self._from_point(z) * self.deviation + self.mean

    def _from_point(self, z: Tensor) -> Tensor:
        t = self.manifold.to_tangent(z) / self.factor
        if self.config.layers == "tangent":
            return self.decoder(t.to(self.decoder[0].weight.dtype)).double()
        point = self.decoder(self.manifold.from_tangent(t))
        return self.manifold.to_tangent(point) * self.size**0.5

    # -- codes --------------------------------------------------------------------------------------------
    @torch.no_grad()
    def tokenize(self, x: Float[Tensor, "n f"]) -> Int[Tensor, "n levels"]:
        """Codes of features. DataError for another shape, NaN or infinity."""
        return self.quantizer.encode(self.encode(self.check(x)))

    @torch.no_grad()
    def from_tokens(self, codes: Int[Tensor, "n j"]) -> Float[Tensor, "n f"]:
        """Features, float64, of codes or of their first j entries. DataError for entries that are no code."""
        return self.decode(self.quantizer.decode(codes))

    # -- learning -----------------------------------------------------------------------------------------
    @torch.no_grad()
    def prepare(self, x: Float[Tensor, "n f"], rows: Int[Tensor, " k"] | slice = slice(20_000)) -> None:
        """Take mean, deviation and scale from features and fit the first codebooks, by k-means level by level, to
        these rows of them as the untrained encoder sees them.

        DataError for bad features, fewer rows than codes, or rows that are all equal.
        """
        x = self.check(x)
        mean, deviation = x.mean(0), (x - x.mean(0)).square().mean().sqrt()
        if not deviation > 0:
            raise DataError(f"features must differ between rows, but all {len(x)} are equal")
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        t = self._to_tangent((x[rows] - mean) / deviation)
        if self.config.radius is not None:
            self.factor.copy_(self._wanted(t))
        self.quantizer.fit(self._to_point(t))

    def _wanted(self, t: Tensor) -> Tensor:
        return self.config.radius / t.norm(dim=-1).median().clamp_min(1e-12)

    def forward(self, x: Float[Tensor, "n f"]) -> HRQOutput:
        """Reconstruct checked features through their codes; in training scale and codebooks follow."""
        scaled = (x - self.mean) / self.deviation
        t = self._to_tangent(scaled)
        if self.training and self.config.radius is not None:
            self.factor.lerp_(self._wanted(t.detach()), 1 - FORGET)
        quantized, codes, losses = self.quantizer(self._to_point(t))
        out = self._from_point(quantized)
        return HRQOutput(out * self.deviation + self.mean, codes, (out - scaled).square().mean(), losses)


class HRQTable(_Model, Movable):
    """One point for each of `size` nodes, and codes for them; node i is row i."""

    kind = "HRQ table"

    def __init__(self, size: int, config: HRQConfig | None = None):
        config = config or HRQConfig()
        super().__init__(size, config)
        generator = torch.Generator().manual_seed(config.seed)
        start = torch.randn(size, config.dim, generator=generator, dtype=torch.float64)
        self._hold(start * config.scale)

    def points(self, nodes: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n k"]:
        """Float64 points of all nodes, or of these; differentiable in the table."""
        return self.located(nodes)

    @torch.no_grad()
    def tokenize(self, nodes: Int[Tensor, " n"] | None = None) -> Int[Tensor, "n levels"]:
        """Codes of all nodes, or of these. DataError for a node that is not there."""
        if nodes is not None:
            nodes = torch.as_tensor(nodes)
            if bool(((nodes < 0) | (nodes >= self.size)).any()):
                raise DataError(f"nodes are numbered from 0 to {self.size - 1}, got {nodes.tolist()[:5]}")
        return self.quantizer.encode(self.points(nodes))

    @torch.no_grad()
    def from_tokens(self, codes: Int[Tensor, "n j"]) -> Float[Tensor, "n k"]:
        """The points that codes, or their first j entries, stand for. DataError for entries that are no code."""
        return self.quantizer.decode(codes)
