"""Recommenders of the next item: one model, of which HMamba, Mamba4Rec, SASRec and GRU4Rec are settings.

Items → tangent vectors at the origin → features → causal encoder → a state after every item → scores of all items.
The parts stand in `hmamba` (Mamba encoder with K(κ), heads) and `baselines` (the other encoders, popularity); how
they are fitted in `workbench.training.recommender`.

Shapes: n sequences of length L, filled up on the right; d = width; V items, numbered from 0.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import CheckpointError, ParameterError, suggest
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import make
from workbench.manifolds.base import checked_curvature
from workbench.manifolds.charts import SPACES
from workbench.models.baselines import GRUEncoder, SASRecEncoder
from workbench.models.catalogue import Catalogue
from workbench.models.hmamba import Head, MambaEncoder, Table
from workbench.models.movable import Movable

CHOICES = {
    "encoder": ("mamba", "gru", "sasrec"),
    "space": tuple(SPACES),
    "start": ("euclidean", "hyperboloid", "tangent"),
    "k_axis": ("none", "state0", "all"),
    "head": ("dot", "half", "lorentz_sq", "dist2", "dist", "official"),
    "user_radius": ("free", "sphere"),
    "dt_init": ("mamba", "zero"),
    "init": ("normal", "torch"),
}
TEMPERATURES = {"lorentz_sq": 2.0, "dist2": 2.0, "dist": 4.0}  # at the start; 1 for the others


@dataclass(frozen=True)
class RecommenderConfig:
    """Which encoder, which geometry, which score.

    encoder: "mamba" (`hmamba.MambaEncoder`), "gru" or "sasrec" (`baselines`).
    space: of items and users, "lorentz", "poincare" (the same model in another chart) or "euclidean"; c: its
        curvature, the sectional curvature is -c; learn_c.
    start: what the encoder sees of an item, "euclidean": its tangent vector as it is; "hyperboloid": the coordinates
        of its point, layer-normalised, among which time, 1 at the beginning, drowns the others (slow to begin);
        "tangent": log₀ of its point, which differs from "euclidean" only by the soft cap and, under a Riemannian
        optimiser, by how it moves.
    k_axis, kappa, learn_kappa: K(κ) of Ā = exp(ΔA ⊙ K(κ)), see `hmamba.MambaEncoder.decay_scale`; only for "mamba".
    head, item_bias, temperature (None: the head's own start), learn_temperature: see `hmamba.Head`.
    user_radius: "free", a linear map after the encoder, radius softly capped; "sphere", the encoder ends in a layer
        norm, so that all users are about as far from the origin, as in the released code.
    radius_cap: limit of radii, in unit curvature; float32 scores are good up to 4. 0: none.
    radius_penalty: weight of the mean length of the entering points (the released code's has 1.0).
    width: d. layers. heads: of attention. state: of the recurrence, a channel. dropout. max_len: of a history.
    dt_init: see `hmamba.MambaEncoder`. init: "normal", N(0, 0.02²) for items and the linear maps of Mamba, as in
        Mamba4Rec; "torch", PyTorch's and Xavier for the items, as in the released HMamba. seed: of the weights.

    ParameterError (or ManifoldError for c and κ) for values that make no sense.
    """

    encoder: str = "mamba"
    space: str = "lorentz"
    start: str = "hyperboloid"
    k_axis: str = "state0"
    kappa: float = 1.0
    learn_kappa: bool = False
    head: str = "lorentz_sq"
    item_bias: bool = True
    temperature: float | None = None
    learn_temperature: bool = True
    c: float = 1.0
    learn_c: bool = False
    user_radius: str = "free"
    radius_cap: float = 4.0
    radius_penalty: float = 0.0
    width: int = 64
    layers: int = 1
    heads: int = 2
    state: int = 32
    dropout: float = 0.2
    max_len: int = 50
    dt_init: str = "mamba"
    init: str = "normal"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k_axis == "channel0":
            raise ParameterError(
                'k_axis="channel0" has no meaning here: the recurrence runs on channels that a linear map has mixed, '
                f"none of which is the time coordinate; take one of {', '.join(CHOICES['k_axis'])}"
            )
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                hint = suggest(value, known)
                raise ParameterError(f"{name} must be one of {', '.join(known)}, but came as {value!r}{hint}")
        for name in ("width", "layers", "heads", "state", "max_len"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
        for name in ("radius_cap", "radius_penalty"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ParameterError(
                    f"{name} must be finite and not negative, but is {getattr(self, name)!r}"
                )
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout is at least 0 and below 1, but came as {self.dropout!r}")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ParameterError(f"temperature must be positive and finite, but is {self.temperature!r}")
        checked_curvature(self.c), checked_curvature(self.kappa)
        self._check_together()

    def _check_together(self) -> None:
        if self.encoder != "mamba" and self.k_axis != "none":
            raise ParameterError(f"K(κ) acts in Mamba: encoder {self.encoder!r} needs k_axis='none'")
        if self.k_axis == "none" and (self.kappa != 1 or self.learn_kappa):
            raise ParameterError(
                "κ has nothing to act on: it needs k_axis 'state0' or 'all', but that is 'none'"
            )
        if self.encoder == "sasrec" and self.width % self.heads:
            raise ParameterError(f"heads should divide width = {self.width}, but is {self.heads}")
        if self.head == "official" and (
            self.space == "euclidean" or self.c != 1 or self.learn_c or self.item_bias
        ):
            raise ParameterError("head='official' knows no other space than c = 1, and no item bias")


_EUCLIDEAN = {"space": "euclidean", "start": "euclidean", "k_axis": "none", "head": "dot"}
_PLAIN = _EUCLIDEAN | {"item_bias": False, "learn_temperature": False}
_RELEASED = {
    "k_axis": "none",
    "item_bias": False,
    "learn_temperature": False,
    "user_radius": "sphere",
    "radius_cap": 0.0,
    "dt_init": "zero",
}

NAMED: dict[str, dict] = {
    "hmamba_full": {"learn_kappa": True},
    "hmamba_full_official": _RELEASED
    | {"head": "official", "radius_penalty": 1.0, "dropout": 0.1, "init": "torch"},
    "hmamba_half": _RELEASED | {"head": "half", "dt_init": "mamba"},
    "mamba4rec": _PLAIN | {"user_radius": "sphere"},
    "sasrec": _PLAIN | {"encoder": "sasrec", "user_radius": "sphere", "layers": 2},
    "gru4rec": _PLAIN | {"encoder": "gru", "user_radius": "free"},
}


def named(name: str, **changes) -> RecommenderConfig:
    """The settings of a model by name, with changes.

    "hmamba_full": exponential map, K(κ) with learned κ, squared Lorentzian distance with bias and temperature, free
    user radius. "hmamba_full_official": what the released code does under that name, its unwritten penalty on
    lengths included. "hmamba_half": the released code's Half, a dot product after log₀ (with Mamba's own start of Δ:
    dt_init="zero" for the released one). "mamba4rec": Algorithm 1's Half, which is Mamba4Rec. "sasrec", "gru4rec".

    ParameterError for a name or a setting that does not exist.
    """
    if name not in NAMED:
        raise ParameterError(f"no recommender {name!r}; there are {', '.join(NAMED)}{suggest(name, NAMED)}")
    unknown = [key for key in changes if key not in RecommenderConfig.__dataclass_fields__]
    if unknown:
        hint = suggest(unknown[0], RecommenderConfig.__dataclass_fields__)
        raise ParameterError(f"a recommender has no setting {unknown[0]!r}{hint}")
    return RecommenderConfig(**NAMED[name] | changes)


class Items(Movable):
    """V items as tangent vectors at the origin, or, under a Riemannian optimiser, as points."""

    def __init__(self, manifold, tangent: Float[Tensor, "V d"]):
        super().__init__()
        object.__setattr__(self, "manifold", manifold)  # the model's own, as in `Head`
        self._hold(tangent)

    def tangents(self, rows: Int[Tensor, "..."] | None = None) -> Float[Tensor, "... d"]:
        x = self.held if rows is None else self.held[rows]
        return x if self.place is None else self.manifold.to_tangent(x)


class Recommender(Catalogue):
    """A sequence of items in, scores of all items after each of them out.

    >>> model = Recommender(named("hmamba_full"), data.n_items).bind(data)
    >>> states = model.states(items, mask)  # (n, L) each
    >>> loss = F.cross_entropy(model.scores(states)[mask_of_targets], targets) + model.penalty
    >>> model.recommend(["Alien (1979)", "Aliens (1986)"], k=3)

    Weights start from the config's seed. `manifold` is the space of the points. Parameters that are treated apart in
    training: `curvatures()` (κ and c), `head.log_temperature`, `bias`.
    ParameterError for n_items below 1.
    """

    def __init__(self, config: RecommenderConfig, n_items: int):
        super().__init__()
        if n_items < 1:
            raise ParameterError(f"a recommender needs at least one item, but n_items is {n_items!r}")
        self.config, self.n_items, self.max_len = config, n_items, config.max_len
        self.manifold = make(config.space, config.c, config.learn_c)
        tau = config.temperature or TEMPERATURES.get(config.head, 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.encoder, self.out = _encoder(config, self.manifold)
            self.items = Items(self.manifold, _start(config, n_items, self.encoder))
        self.head = Head(
            *(
                self.manifold,
                config.head,
                config.user_radius,
                config.radius_cap,
                tau,
                config.learn_temperature,
            )
        )
        self.bias = nn.Parameter(torch.zeros(n_items)) if config.item_bias else None
        self._penalty: Tensor | None = None

    # -- histories to states ------------------------------------------------------------------------------
    def states(self, items: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n L d"]:
        """A representation after every item, of it and those before. What stands where the mask is False (filled up
        on the right) reaches nothing before it, and may be any number.

        ParameterError for shapes that differ, and (on a CPU, where looking costs nothing) for items out of range.
        """
        if items.ndim != 2 or items.shape != mask.shape or mask.dtype != torch.bool:
            raise ParameterError(
                f"items and a mask of the same shape (n, L) are needed, but came as {tuple(items.shape)} and "
                f"{tuple(mask.shape)} of {mask.dtype}"
            )
        items = items.masked_fill(~mask, 0)
        if (
            items.device.type == "cpu"
            and items.numel()
            and not 0 <= items.min() <= items.max() < self.n_items
        ):
            raise ParameterError(
                f"items are numbers from 0 to {self.n_items - 1}, but came from {items.min()} to {items.max()}"
            )
        x = self._features(self.items.tangents(items))
        self._penalty = self._mean_length(x, mask) if self.config.radius_penalty else None
        return self.out(self.encoder(x))

    forward = states

    def _features(self, e: Float[Tensor, "n L d"]) -> Float[Tensor, "n L k"]:
        """What the encoder sees; points in float64, which its layer norm takes in."""
        if self.config.start == "euclidean":
            return e
        points = self.head.item_points(e.double())
        return points if self.config.start == "hyperboloid" else self.manifold.to_tangent(points).to(e.dtype)

    def _mean_length(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean Euclidean length of all coordinates, over items (the released code averages the padding in)."""
        return (torch.linalg.vector_norm(x, dim=-1) * mask).sum() / mask.sum().clamp_min(1)

    @property
    def penalty(self) -> Tensor:
        """radius_penalty times the mean length of the points that entered the last `states`; 0 without one."""
        if self._penalty is None:
            return self.items.held.new_zeros(())
        return self.config.radius_penalty * self._penalty

    # -- states to scores ---------------------------------------------------------------------------------
    def table(self, items: Int[Tensor, "..."] | None = None) -> Table:
        """All items, or these, ready for scoring; make it once where states are scored in blocks."""
        bias = self.bias if items is None or self.bias is None else self.bias[items]
        return self.head.table(self.items.tangents(items), bias)

    def scores(
        self,
        states: Float[Tensor, "... d"],
        items: Int[Tensor, "..."] | None = None,
        table: Table | None = None,
    ) -> Float[Tensor, "... V"]:
        """What training's softmax takes, in the dtype of the states.

        Args:
            items: None: all; (m,): these for every state; (..., m): each state's own.
            table: of all items, where it is at hand.
        """
        if table is None:
            table = self.table(items)
        elif items is not None:
            table = table.pick(items)
        return self.head(states, table)

    def ranking_scores(
        self, states: Float[Tensor, "... d"], table: Table | None = None
    ) -> Float[Tensor, "... V"]:
        """Scores that sort all items as `scores` does, by one matrix product if possible (`hmamba.Head.ranking`)."""
        return self.head.ranking(states, table or self.table())

    # -- points, and what is learned besides ------------------------------------------------------------------
    def item_points(self) -> Float[Tensor, "V k"]:
        """Points of all items for pictures and radii, float64, in coordinates of `manifold`."""
        return self.head.item_points(self.items.tangents().double())

    def user_points(self, states: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        """Points of states, float64."""
        return self.head.state_points(states.double())

    @property
    def kappa(self) -> float:
        """κ of K(κ); 1 where there is none."""
        granularity = getattr(self.encoder, "granularity", None)
        return 1.0 if granularity is None else float(granularity.c.detach())

    def curvatures(self) -> list[nn.Parameter]:
        """Those of κ and c that are learned: parameters for a lower learning rate and no weight decay."""
        return [p for name, p in self.named_parameters() if name.endswith("log_c")]

    # -- files --------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """One safetensors file, atomically: config, weights, and the names and titles of items if bound."""
        about = {
            "kind": "recommender",
            "config": asdict(self.config),
            "n_items": self.n_items,
            "names": self.names,
            "titles": self.titles,
        }
        save_tensors(path, self.state_dict(), about)

    @classmethod
    def load(cls, path: str | Path) -> Recommender:
        """Read what `save` wrote, bit for bit, on the CPU and ready to use.

        CheckpointError if it is missing, damaged or of another kind.
        """
        tensors, about = load_tensors(path)
        if about.get("kind") != "recommender":
            raise CheckpointError(f"{path} is a workbench file, but not a recommender")
        try:
            model = cls(RecommenderConfig(**about["config"]), about["n_items"])
            model.to(tensors.get("items.tangent", tensors.get("items.place")).dtype)
            model.load_state_dict(tensors)
            if about["names"] is not None:
                model._bind(about["names"], about["titles"])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as e:
            raise CheckpointError(f"{os.fspath(path)} holds no whole recommender: {e}") from e
        return model.eval()


def HMambaFull(n_items: int, **changes) -> Recommender:
    """The paper's Full model over this many items: `named("hmamba_full")` with changes."""
    return Recommender(named("hmamba_full", **changes), n_items)


def HMambaHalf(n_items: int, **changes) -> Recommender:
    """The released code's Half: `named("hmamba_half")` with changes. (Algorithm 1's is `named("mamba4rec")`.)"""
    return Recommender(named("hmamba_half", **changes), n_items)


def _encoder(config: RecommenderConfig, manifold) -> tuple[nn.Module, nn.Module]:
    """The encoder, and what follows it: a linear map for a free radius, else at most what makes the width fit."""
    points, sphere = config.start == "hyperboloid", config.user_radius == "sphere"
    enter = manifold.ambient_dim(config.width) if points else config.width
    sizes = {"layers": config.layers, "dropout": config.dropout}
    if config.encoder == "gru":
        encoder = GRUEncoder(enter, config.width, norm=points, **sizes)
        out = nn.Linear(encoder.out_dim, config.width)
        return encoder, nn.Sequential(out, nn.LayerNorm(config.width)) if sphere else out
    if config.encoder == "sasrec":
        encoder = SASRecEncoder(
            *(enter, config.width),
            heads=config.heads,
            max_len=config.max_len,
            norm=points,
            final_norm=sphere,
            **sizes,
        )
    else:
        encoder = MambaEncoder(
            *(enter, config.width),
            state=config.state,
            final_norm=sphere,
            dt_init=config.dt_init,
            k_axis=config.k_axis,
            kappa=config.kappa,
            learn_kappa=config.learn_kappa,
            **sizes,
        )
    return encoder, nn.Identity() if sphere else nn.Linear(config.width, config.width)


@torch.no_grad()
def _start(config: RecommenderConfig, n_items: int, encoder: nn.Module) -> Float[Tensor, "V d"]:
    """Tangent vectors of items at the start; also what `init` and `dt_init` do to the encoder's linear maps."""
    if config.encoder == "mamba":
        for name, part in encoder.named_modules():
            own = name.endswith("dt_proj") and config.dt_init == "mamba"  # Mamba's start of Δ stays
            if isinstance(part, nn.Linear) and not own:
                if config.init == "normal":
                    part.weight.normal_(std=0.02)
                if part.bias is not None:
                    part.bias.zero_()
    e = torch.empty(n_items, config.width)
    return nn.init.xavier_uniform_(e) if config.init == "torch" else e.normal_(std=0.02)
