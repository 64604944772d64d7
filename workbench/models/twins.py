"""Flat twins of HELM: language models of LLaMA's and of DeepSeek's shape that train and answer as HELM does.

`LlamaTwin` stands beside HELM-D: attention and SwiGLU in Euclidean space. `DeepSeekTwin` stands beside HELM-MiCE:
attention through a latent vector and a mixture of experts, routed and balanced by the very code of MiCE. They are
models of their own rather than HELM with another manifold: HELM's bricks read a time coordinate, its residual and its
centroid normalise, and none of that is left in flat space. Besides, flat models go without the biases that HELM has.

n sequences of length L, width d, h heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.models.decoder import Cache, Decoder, DecoderConfig, SwiGLU, rotated
from workbench.models.language_model import LanguageModel
from workbench.nn.hyperbolic_attention import visible
from workbench.nn.logits import chunked_cross_entropy
from workbench.nn.mice import Router, Routing


@dataclass(frozen=True)
class TwinConfig(DecoderConfig):
    """gain: factor on the first weights of all layers' matrices, as HELM's. The rest as in `DecoderConfig`."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ParameterError(f"gain must be positive and finite, but came as {self.gain!r}")


class LlamaTwin(Decoder, LanguageModel):
    """`Decoder` that reads rows of several documents, as HELM does, and gives its loss in pieces."""

    settings = TwinConfig

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        super()._start(generator)
        for p in self.layers.parameters():
            p *= self.config.gain if p.ndim > 1 else 1

    def states(
        self,
        ids: Int[Tensor, "n L"],
        mask: Bool[Tensor, "n L"] | None = None,
        cache: Cache | None = None,
        *,
        documents: Int[Tensor, "n L"] | None = None,
    ) -> Float[Tensor, "n L d"]:
        """As `Decoder.states`; documents: numbers of those packed into a row, without a mask or a cache. Nothing
        crosses from one to another."""
        if documents is None:
            return super().states(ids, mask, cache)
        if mask is not None or cache is not None or documents.shape != ids.shape:
            raise ParameterError(
                f"documents go without mask and cache and have the shape {tuple(ids.shape)} of ids, but came as "
                f"{tuple(documents.shape)}"
            )
        self._check(ids, None, 0)
        length = ids.shape[1]
        turn = self._turn(torch.arange(length, device=ids.device)[None])
        seen = visible(length, documents=documents, device=ids.device)
        return self._through(ids, turn, seen, None)

    def _check(self, ids: Tensor, mask: Tensor | None, past: int) -> None:
        """All of it where looking costs nothing; a compiled graph or a GPU does not wait for it."""
        looks = ids.device.type == "cpu" and not torch.compiler.is_compiling()
        (super()._check if looks else self._check_shape)(ids, mask, past)

    def cross_entropy(
        self, states: Float[Tensor, "n L d"], targets: Int[Tensor, "n L"], chunk: int = 2048
    ) -> Float[Tensor, ""]:
        """Mean over targets that are not -100, nats; logits of `chunk` rows at a time."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return chunked_cross_entropy(states, weight, targets, chunk=chunk)

    @property
    def penalty(self) -> Tensor:
        """Nothing here that should be balanced: 0."""
        return self.norm.weight.new_zeros(())

    def curvatures(self) -> list[nn.Parameter]:
        """None: flat."""
        return []


@dataclass(frozen=True)
class DeepSeekConfig(TwinConfig):
    """latent: of the compressed keys and values; content, rotary, value: of a head. experts, expert_hidden; active,
    shared: experts a token; dense_layers: how many layers at the beginning have a SwiGLU; renormalise: weights of the
    chosen experts add up to 1; balance: weight of the balancing loss. The rest as in `TwinConfig`.

    ParameterError for values that make no sense.
    """

    latent: int = 23
    content: int = 17
    rotary: int = 8
    value: int = 16
    experts: int = 4
    expert_hidden: int = 128
    active: int = 2
    shared: int = 1
    dense_layers: int = 1
    renormalise: bool = True
    balance: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "latent", "content", "rotary", "value", "experts", "expert_hidden", "active", "shared"
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
        if self.rotary % 2:
            raise ParameterError(f"rotary must be even, channels turn in pairs, but came as {self.rotary}")
        if self.active > self.experts:
            raise ParameterError(
                f"active is at most the number of experts, {self.experts}, but is {self.active}"
            )
        if not 0 <= self.dense_layers <= self.layers:
            raise ParameterError(f"dense_layers is from 0 to {self.layers}, but is {self.dense_layers!r}")
        if not (math.isfinite(self.balance) and self.balance >= 0):
            raise ParameterError(f"balance must be finite and not negative, but came as {self.balance!r}")

    @property
    def turned(self) -> int:
        return self.rotary


class LatentAttention(nn.Module):
    """Causal attention whose keys and values are linear maps of one latent vector a token; one rotated part of the
    key for all heads. DeepSeek-AI, *DeepSeek-V2* (2024), section 2.1, with queries of full rank."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        self.config, d, h = config, config.width, config.heads
        self.q_proj = nn.Linear(d, h * (config.content + config.rotary), bias=False)
        self.compress = nn.Linear(d, config.latent + config.rotary, bias=False)
        self.latent_norm = nn.RMSNorm(config.latent, eps=1e-6)
        self.expand = nn.Linear(config.latent, h * (config.content + config.value), bias=False)
        self.o_proj = nn.Linear(h * config.value, d, bias=False)

    def forward(self, x: Float[Tensor, "n L d"], turn, mask, cache: Cache | None, layer: int):
        c = self.config
        content, turned = self._heads(self.q_proj(x)).split([c.content, c.rotary], -1)
        latent, shared = self.compress(x).split([c.latent, c.rotary], -1)
        keys, v = self._heads(self.expand(self.latent_norm(latent))).split([c.content, c.value], -1)
        turned, shared = rotated(turned, *turn), rotated(shared[:, None], *turn)
        q = torch.cat([content.to(turned.dtype), turned], -1)
        k = torch.cat([keys.to(shared.dtype), shared.expand(-1, c.heads, -1, -1)], -1)
        if cache is not None:
            k, v = cache.add(layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(y.transpose(1, 2).flatten(-2))

    def _heads(self, x: Float[Tensor, "n L k"]) -> Float[Tensor, "n h L w"]:
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)


class Mixture(Router):
    """shared(x) + Σ g_e expert_e(x), every expert a SwiGLU: MiCE in flat space. `balance`: of the last pass."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        inner, d = config.expert_hidden, config.width
        self.shared = SwiGLU(replace(config, hidden=config.shared * inner))
        self.start_router(d, config.experts, config.active, config.renormalise)
        self.up = nn.Parameter(torch.empty(config.experts, 2 * inner, d))
        self.down = nn.Parameter(torch.empty(config.experts, d, inner))
        self.balance: Tensor | None = None

    def __getstate__(self) -> dict:
        """Copies and pickles leave the graph of the last pass behind."""
        return self.__dict__ | {"balance": None}

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        routing = self.route(x)
        self.balance = self.count(routing)
        own = x.device.type == "cpu" and not torch.compiler.is_compiling()
        y = (self._sorted if own else self._dense)(x, routing)
        return (self.shared(x) + y).reshape(shape)

    def _dense(self, x: Float[Tensor, "t d"], routing: Routing) -> Float[Tensor, "t d"]:
        """Every expert at every token: nothing waits for the device."""
        gate, up = torch.bmm(x.expand(self.experts, -1, -1), self.up.mT).chunk(2, -1)
        y = torch.bmm(F.silu(gate) * up, self.down.mT)
        g = torch.zeros_like(routing.probabilities).scatter(-1, routing.chosen, routing.weights)
        return (g.T[..., None] * y).sum(0)

    def _sorted(self, x: Float[Tensor, "t d"], routing: Routing) -> Float[Tensor, "t d"]:
        """Every expert at its own tokens."""
        chosen = routing.chosen.flatten()
        order = chosen.argsort(stable=True)
        tokens = order // self.active
        pieces = []
        for e, some in enumerate(x[tokens].split(torch.bincount(chosen, minlength=self.experts).tolist())):
            gate, up = F.linear(some, self.up[e]).chunk(2, -1)
            pieces.append(F.linear(F.silu(gate) * up, self.down[e]))
        y = torch.cat(pieces) * routing.weights.flatten()[order, None]
        return y.new_zeros(x.shape).index_add(0, tokens, y)


class DeepSeekTwin(LlamaTwin):
    """Token ids to the logits of the next one, through latent attention and mixtures of experts.

    Decoding keeps keys and values of all heads: what a latent cache saves is shown by `nn.hmla`, not here.
    """

    kind, settings = "deepseek twin", DeepSeekConfig

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):
            for i, layer in enumerate(self.layers):
                layer.self_attn = LatentAttention(config)
                if i >= config.dense_layers:
                    layer.mlp = Mixture(config)
        self._start(torch.Generator().manual_seed(config.seed))
        with torch.no_grad():
            for part in self.mixtures():  # what ends in the sum over layers starts smaller, as in `Decoder`
                part.down /= math.sqrt(2 * config.layers)

    def mixtures(self) -> list[Mixture]:
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, Mixture)]

    @property
    def penalty(self) -> Tensor:
        """The balancing loss of the last `states`, config.balance times the sum over layers."""
        found = [part.balance for part in self.mixtures() if part.balance is not None]
        return self.config.balance * torch.stack(found).sum() if found else super().penalty
