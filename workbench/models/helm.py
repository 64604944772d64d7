"""HELM: language models on the hyperboloid, dense (HELM-D) and with a mixture of curvatures (HELM-MiCE).

Tokens → points → decoder blocks (attention, then feed-forward or experts, each between a norm and a Lorentzian
residual) → a last map and norm → logits. He et al., *HELM* (arXiv 2505.24722); the bricks stand in `workbench.nn`,
the settings in `helm_config`.

Points are held as their space parts throughout (see `nn.lorentz`). n sequences of length L, vocabulary V.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import CheckpointError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import Lorentz
from workbench.models.helm_config import HELMConfig, preset
from workbench.models.language_model import LanguageModel
from workbench.nn.hmla import HyperbolicLatentAttention, LatentCache
from workbench.nn.hope import HoPE, Rotation
from workbench.nn.hyperbolic_attention import HyperbolicAttention, KeyValueCache, visible
from workbench.nn.logits import LorentzLogits
from workbench.nn.lorentz import (
    HyperbolicFeedForward,
    HyperbolicRMSNorm,
    LorentzEmbedding,
    LorentzLinear,
    LorentzResidual,
)
from workbench.nn.mamba import widened
from workbench.nn.mice import MiCE


class Block(nn.Module):
    """x ⊕ attention(norm(x)), then x ⊕ feed(norm(x)); `feed` is a SwiGLU or a mixture of experts."""

    def __init__(self, config: HELMConfig, manifold: Lorentz, index: int) -> None:
        super().__init__()
        gamma, dim = config.residual_scale, config.dim
        self.attention_norm, self.feed_norm = HyperbolicRMSNorm(dim), HyperbolicRMSNorm(dim)
        self.attention = _attention(config, manifold)
        self.feed = _feed(config, manifold, index)
        flat = config.residual == "sum"
        self.attention_residual = LorentzResidual(manifold, gamma, flat=flat)
        self.feed_residual = LorentzResidual(manifold, gamma, flat=flat)

    def forward(
        self,
        x: Float[Tensor, "n L d"],
        rotation: Rotation,
        mask: Bool[Tensor, "n 1 L K"] | None,
        cache: KeyValueCache | None,
    ) -> tuple[Float[Tensor, "n L d"], Float[Tensor, ""] | None]:
        """The points, and how unevenly the experts are used; None without experts."""
        x = self.attention_residual(x, self.attention(self.attention_norm(x), rotation, mask, cache))
        y, balance = self.feed(self.feed_norm(x)), None
        if isinstance(self.feed, MiCE):
            y, balance = y
        return self.feed_residual(x, y), balance


def _attention(config: HELMConfig, manifold: Lorentz) -> nn.Module:
    if not config.latent:
        how = {name: getattr(config, name) for name in ("sharpness", "scores", "average")}
        return HyperbolicAttention(manifold, config.dim, config.heads, config.head_dim, **how)
    sizes = {name: getattr(config, name) for name in ("latent", "content", "rotary", "value")}
    return HyperbolicLatentAttention(
        manifold, config.dim, config.heads, gain=config.gain, sharpness=config.sharpness, **sizes
    )


def _feed(config: HELMConfig, manifold: Lorentz, index: int) -> nn.Module:
    if not config.expert_c or index < config.dense_layers:
        return HyperbolicFeedForward(manifold, config.dim, config.hidden, gain=config.gain)
    return MiCE(
        manifold,
        config.dim,
        config.expert_hidden,
        config.expert_c,
        active=config.active,
        shared=config.shared,
        learnable=config.learn_expert_c,
        renormalise=config.renormalise,
        gain=config.gain,
        curved=config.curved_experts,
    )


class HELM(LanguageModel):
    """Token ids in, logits of the next token after each of them out.

    >>> model = HELM(preset("mini", vocab_size=512))
    >>> loss = model.loss(ids[:, :-1], ids[:, 1:])  # cross-entropy, and the balancing loss where there are experts
    >>> loss.backward(); optimizer.step(); model.balance_step()
    >>> model.generate([[1, 17, 4]], max_new=8)

    Weights start from the config's seed. `manifold` is the space of the points.
    """

    def __init__(self, config: HELMConfig) -> None:
        super().__init__()
        self.config = config
        self.manifold = Lorentz(config.c, config.learn_c)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.embedding = LorentzEmbedding(
                self.manifold, config.vocab_size, config.dim, as_points=config.embedding == "points"
            )
            self.blocks = nn.ModuleList(Block(config, self.manifold, i) for i in range(config.layers))
            self.last = LorentzLinear(self.manifold, config.dim, config.dim, gain=config.gain)
            self.norm = HyperbolicRMSNorm(config.dim)
            self.head = LorentzLogits(self.manifold, config.dim, config.vocab_size)
        self.hope = HoPE(config.rotated, config.context, config.theta, config.yarn)
        self._penalty: Tensor | None = None

    # -- tokens to states ---------------------------------------------------------------------------------
    def states(
        self,
        ids: Int[Tensor, "n L"],
        mask: Bool[Tensor, "n L"] | None = None,
        *,
        documents: Int[Tensor, "n L"] | None = None,
        cache: list[KeyValueCache] | None = None,
    ) -> Float[Tensor, "n L d"]:
        """The last points, as space parts, of every token and what came before it.

        Args:
            mask: real tokens; padding, left or right, is not seen, may be any number and takes no position.
            documents: numbers of documents packed into a row; nothing crosses from one to another.
            cache: from `new_cache`; ids are then the tokens after those in it. mask, and only it, covers both.

        ParameterError for shapes that differ, more tokens than the context, and (on a CPU, where looking costs
        nothing) ids outside of the vocabulary.
        """
        past = cache[0].length if cache else 0
        self._check(ids, mask, documents, past)
        length = ids.shape[1]
        if mask is None:
            positions = torch.arange(past, past + length, device=ids.device)
        else:
            ids = ids.masked_fill(~mask[:, -length:], 0)
            positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -length:]
        seen = visible(length, past, mask, documents, ids.device)
        x = widened(self.embedding(ids))
        rotation = self.hope(positions, x.dtype)
        penalties = []
        for i, block in enumerate(self.blocks):
            x, balance = block(x, rotation, seen, cache[i] if cache else None)
            penalties += [] if balance is None else [balance]
        self._penalty = torch.stack(penalties).sum() if penalties else None
        return self.norm(widened(self.last(x)))

    def _check(self, ids: Tensor, mask: Tensor | None, documents: Tensor | None, past: int) -> None:
        if ids.ndim != 2 or ids.is_floating_point() or ids.shape[1] == 0:
            raise ParameterError(
                f"ids must be whole numbers of shape (n, L), but came as {tuple(ids.shape)} of {ids.dtype}"
            )
        whole = (ids.shape[0], past + ids.shape[1])
        if mask is not None and (mask.shape != whole or mask.dtype != torch.bool):
            raise ParameterError(
                f"the mask must be boolean of shape {whole}, but came as {tuple(mask.shape)} of {mask.dtype}"
            )
        if documents is not None and (documents.shape != whole or past):
            raise ParameterError(
                f"documents must have the shape {tuple(ids.shape)} of ids, without a cache, but came as "
                f"{tuple(documents.shape)}"
            )
        if whole[1] > self.config.context:
            raise ParameterError(
                f"sequences may have {self.config.context} tokens, the context, but came with {whole[1]}"
            )
        if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
            real = ids if mask is None else ids[mask[:, past:]]
            if real.numel() and not 0 <= int(real.min()) <= int(real.max()) < self.config.vocab_size:
                raise ParameterError(
                    f"ids are from 0 to {self.config.vocab_size - 1}, but came from {int(real.min())} to "
                    f"{int(real.max())}"
                )

    def logits(self, states: Float[Tensor, "... d"]) -> Float[Tensor, "... V"]:
        """Float32 at least."""
        return self.head(states)

    def forward(
        self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"] | None = None
    ) -> Float[Tensor, "n L V"]:
        return self.logits(self.states(ids, mask))

    def cross_entropy(
        self, states: Float[Tensor, "n L d"], targets: Int[Tensor, "n L"], chunk: int = 2048
    ) -> Float[Tensor, ""]:
        """Mean over targets that are not -100, nats; logits of `chunk` rows at a time."""
        return self.head.loss(states, targets, chunk=chunk)

    @property
    def penalty(self) -> Tensor:
        """The balancing loss of the last `states`, config.balance times the sum over layers; 0 without experts."""
        if self._penalty is None:
            return self.head.weight.new_zeros(())
        return self.config.balance * self._penalty

    def __getstate__(self) -> dict:
        """Copies and pickles leave the graph of the last pass behind."""
        return self.__dict__ | {"_penalty": None}

    # -- what is learned ----------------------------------------------------------------------------------
    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def curvatures(self) -> list[nn.Parameter]:
        """Those that are learned: parameters for a lower learning rate and no weight decay."""
        return [p for name, p in self.named_parameters() if name.endswith("log_c")]

    # -- continuations ------------------------------------------------------------------------------------
    def new_cache(self) -> list[KeyValueCache]:
        """An empty cache a layer, for `states`."""
        return [LatentCache() if self.config.latent else KeyValueCache() for _ in self.blocks]

    def generate(
        self, rows: Sequence[Sequence[int]], max_new: int = 16, end: int | None = None, **sampling
    ) -> list[list[int]]:
        """What follows each row: at most max_new tokens, up to `end`, which is left out. sampling: see `stream`."""
        new: list[list[int]] = [[] for _ in rows]
        for tokens in self.stream(rows, max_new, end, **sampling):
            for row, token in zip(new, tokens, strict=True):
                row += [] if token is None else [token]
        return new

    @torch.no_grad()
    def stream(
        self,
        rows: Sequence[Sequence[int]],
        max_new: int = 16,
        end: int | None = None,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[list[int | None]]:
        """The next token of every row, as soon as it is known; None for rows that have ended.

        temperature: 0 takes the likeliest; above, tokens are drawn from softmax(logits / temperature), of the fewest
        tokens whose probabilities reach top_p. In eval mode while it lasts.
        ParameterError for rows that are empty or would go beyond the context, and for nonsense.
        """
        ids, mask = self._rows(rows, max_new)
        if not (temperature >= 0 and 0 < top_p <= 1):
            raise ParameterError(
                f"temperature is at least 0 and top_p in (0, 1], but came as {temperature!r} and {top_p!r}"
            )
        generator = torch.Generator(ids.device).manual_seed(seed)
        cache, was_training = self.new_cache(), self.training
        going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        self.eval()
        try:
            for _ in range(max_new if len(ids) else 0):
                logits = self.logits(self.states(ids, mask, cache=cache)[:, -1])
                token = _draw(logits, temperature, top_p, generator)
                if end is not None:
                    going &= token != end
                yield [t if alive else None for t, alive in zip(token.tolist(), going.tolist(), strict=True)]
                if not going.any():
                    return
                ids = token[:, None]
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        finally:
            self.train(was_training)

    def _rows(self, rows: Sequence[Sequence[int]], max_new: int) -> tuple[Tensor, Tensor]:
        """Rows filled up on the left, and where they are real."""
        device, longest = self.head.weight.device, max(map(len, rows), default=0)
        if max_new < 1 or not all(len(row) for row in rows):
            raise ParameterError(
                f"generation needs rows of one token or more and max_new of at least 1, but came with rows of "
                f"{min(map(len, rows), default=0)} and {max_new!r}"
            )
        # The last token that is made need not be read.
        if longest + max_new - 1 > self.config.context:
            raise ParameterError(
                f"rows of {longest} tokens and {max_new} new ones go beyond the context of {self.config.context}"
            )
        if any(not 0 <= token < self.config.vocab_size for row in rows for token in row):
            raise ParameterError(
                f"ids are from 0 to {self.config.vocab_size - 1}, but others came in the rows"
            )
        ids = [[0] * (longest - len(row)) + list(row) for row in rows]
        mask = [[False] * (longest - len(row)) + [True] * len(row) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    # -- files --------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """One safetensors file, atomically: config and weights."""
        save_tensors(path, self.state_dict(), {"kind": "helm", "config": asdict(self.config)})

    @classmethod
    def load(cls, path: str | Path) -> HELM:
        """Read what `save` wrote, bit for bit, on the CPU and ready to use.

        CheckpointError if it is missing, damaged, of another kind or of another config.
        """
        tensors, about = load_tensors(path)
        if about.get("kind") != "helm":
            raise CheckpointError(f"{path} is a workbench file, but not a HELM")
        try:
            model = cls(HELMConfig(**about["config"]))
            model.to(tensors["head.weight"].dtype)
            model.load_state_dict(tensors)
        except (ValueError, KeyError, TypeError, RuntimeError) as e:
            raise CheckpointError(f"{os.fspath(path)} holds no whole HELM: {e}") from e
        return model.eval()


def _draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """One token a row."""
    if temperature == 0:
        return logits.argmax(-1)
    p, token = (logits / temperature).softmax(-1).sort(-1, descending=True)
    p = p.masked_fill(p.cumsum(-1) - p >= top_p, 0)
    return token.gather(-1, torch.multinomial(p, 1, generator=generator))[:, 0]


__all__ = ["HELM", "HELMConfig", "preset"]
