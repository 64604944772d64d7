"""Settings of HELM, and those of the published sizes.

All sizes count space coordinates: a released configuration with width 390 = 389 + time has dim 389 here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from workbench.errors import ParameterError, suggest
from workbench.manifolds.base import checked_curvature
from workbench.nn.hope import Yarn, frequencies

CHOICES = {
    "embedding": ("space", "points"),
    "scores": ("lorentz", "dot"),
    "average": ("centroid", "mean"),
    "residual": ("lorentz", "sum"),
}


@dataclass(frozen=True)
class HELMConfig:
    """Which points, which attention, which experts.

    vocab_size. dim: of the points. layers. heads. hidden: of the feed-forward. context: most tokens of a sequence.
    head_dim: of a head's space, where attention is full; all of it is rotated.
    latent: of HMLA's compressed keys and values, 0 for full attention; content, rotary, value: of its heads.
    c: curvature, the sectional curvature is -c; learn_c.
    expert_c: c of every expert, none for the dense model; learn_expert_c; expert_hidden: of each; active, shared;
        dense_layers: how many layers at the beginning have an ordinary feed-forward; renormalise: see `nn.mice.MiCE`.
    balance: weight of the balancing loss.
    gamma: of the residuals; None: as released, 4√(dim+1), with experts √(dim+1).
    gain: Xavier's, of the linear maps that the released code starts so (√2 there; 0.58 is far better for experts).
    embedding: "space", a chart for any optimiser, or "points", for a Riemannian one.
    theta: of HoPE. yarn: None, or `nn.hope.Yarn`'s settings, for a context longer than that of training.
    scores, average, residual, curved_experts: parts put back into flat space, for ablations ("dot", "mean", "sum" and
        False): see `lorentz_attention` (full attention only), `LorentzResidual` and `MiCE`.
    seed: of the weights.

    ParameterError (or ManifoldError for curvatures) for values that make no sense.
    """

    vocab_size: int
    dim: int = 131
    layers: int = 4
    heads: int = 4
    hidden: int = 527
    context: int = 128
    head_dim: int = 32
    latent: int = 0
    content: int = 0
    rotary: int = 0
    value: int = 0
    c: float = 1.0
    learn_c: bool = False
    expert_c: tuple[float, ...] = ()
    learn_expert_c: bool = False
    expert_hidden: int = 0
    active: int = 2
    shared: int = 1
    dense_layers: int = 1
    renormalise: bool = True
    balance: float = 1e-4
    gamma: float | None = None
    gain: float = math.sqrt(2)
    embedding: str = "space"
    theta: float = 10000.0
    yarn: Yarn | None = None
    scores: str = "lorentz"
    average: str = "centroid"
    residual: str = "lorentz"
    curved_experts: bool = True
    seed: int = field(default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "expert_c", tuple(self.expert_c))
        if isinstance(self.yarn, dict):  # from JSON and from notebooks
            object.__setattr__(self, "yarn", Yarn(**self.yarn))
        sizes = ["vocab_size", "dim", "layers", "heads", "hidden", "context"]
        sizes += ["latent", "content", "rotary", "value"] if self.latent else ["head_dim"]
        sizes += ["expert_hidden", "active", "shared"] if self.expert_c else []
        for name in sizes:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
        frequencies(self.rotated, self.theta, self.yarn)
        checked_curvature(self.c), [checked_curvature(c) for c in self.expert_c]
        if self.active > len(self.expert_c) > 0:
            raise ParameterError(
                f"active is at most the number of experts, {len(self.expert_c)}, but is {self.active}"
            )
        if self.expert_c and not 0 <= self.dense_layers <= self.layers:
            raise ParameterError(f"dense_layers is from 0 to {self.layers}, but is {self.dense_layers!r}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ParameterError(
                    f"{name} must be {' or '.join(known)}, but came as {getattr(self, name)!r}"
                )
        if self.latent and (self.scores, self.average) != ("lorentz", "centroid"):
            raise ParameterError(
                f"attention through a latent has Lorentz scores and centroids only, but scores came as "
                f"{self.scores!r} and average as {self.average!r}"
            )
        for name, value in (("gamma", self.residual_scale), ("gain", self.gain)):
            if not (math.isfinite(value) and value > 0):
                raise ParameterError(f"{name} must be positive and finite, but came as {value!r}")
        if not (math.isfinite(self.balance) and self.balance >= 0):
            raise ParameterError(f"balance must be finite and not negative, but came as {self.balance!r}")

    @property
    def rotated(self) -> int:
        """Coordinates of a head that HoPE turns."""
        return self.rotary if self.latent else self.head_dim

    @property
    def residual_scale(self) -> float:
        if self.gamma is not None:
            return self.gamma
        return math.sqrt(self.dim + 1) * (1 if self.expert_c else 4)

    @property
    def sharpness(self) -> float:
        """Of scores, where YaRN stretches the context."""
        return 1.0 if self.yarn is None else self.yarn.sharpness


def spaced(experts: int) -> tuple[float, ...]:
    """Curvatures 0.1 to 2 at equal distances, as the paper has them (sectional curvatures -0.1 to -2)."""
    return tuple(round(0.1 + 1.9 * e / max(experts - 1, 1), 10) for e in range(experts))


_BODY_120M = {"dim": 389, "layers": 6, "heads": 6, "hidden": 1559, "context": 2048, "vocab_size": 128256}

PRESETS: dict[str, dict] = {
    "mini": {"vocab_size": 2048},
    "mini_mice": {"vocab_size": 2048, "latent": 23, "content": 17, "rotary": 8, "value": 16}
    | {"expert_c": spaced(4), "expert_hidden": 263},
    "helm_d_115m": _BODY_120M | {"head_dim": 64, "embedding": "points"},
    "helm_mice_120m": _BODY_120M
    | {"latent": 65, "content": 33, "rotary": 16, "value": 32, "embedding": "points"}
    | {"expert_c": spaced(4), "expert_hidden": 779},
    "helm_mice_1b": {"vocab_size": 128256, "dim": 909, "layers": 16, "heads": 14, "hidden": 3639}
    | {"context": 2048, "latent": 257, "content": 65, "rotary": 64, "value": 64}
    | {"expert_c": spaced(8), "expert_hidden": 1819},
}


def preset(name: str, **changes) -> HELMConfig:
    """The settings of a published size ("helm_d_115m", "helm_mice_120m", "helm_mice_1b") or of one for a CPU ("mini",
    "mini_mice"), with changes.

    ParameterError for a name or a setting that does not exist.
    """
    if name not in PRESETS:
        raise ParameterError(f"no preset {name!r}; there are {', '.join(PRESETS)}{suggest(name, PRESETS)}")
    unknown = [key for key in changes if key not in HELMConfig.__dataclass_fields__]
    if unknown:
        hint = suggest(unknown[0], HELMConfig.__dataclass_fields__)
        raise ParameterError(f"HELM has no setting {unknown[0]!r}{hint}")
    return HELMConfig(**PRESETS[name] | changes)
