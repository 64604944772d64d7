"""A decoder of LLaMA's shape, small enough to be trained here: what adapters are put on, and a flat twin.

Its modules bear LLaMA's names, so that an adapter made for one finds its places in the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import CheckpointError, ParameterError
from workbench.files import load_tensors, save_tensors


@dataclass(frozen=True)
class DecoderConfig:
    """width: d. hidden: of the SwiGLU. context: the longest row. theta: base of the rotary angles. tied: the table of
    tokens is the output layer, too. dropout: on what each half of a layer adds. seed: of the weights.

    ParameterError for values that make no sense.
    """

    vocab_size: int
    width: int = 96
    layers: int = 2
    heads: int = 4
    hidden: int = 256
    context: int = 256
    theta: float = 10000.0
    tied: bool = True
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "layers", "heads", "hidden", "context"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
        if self.width % (2 * self.heads):
            raise ParameterError(
                f"each head needs an even number of channels to turn, but width {self.width} "
                f"was to be shared by {self.heads} heads"
            )
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout must be at least 0 and below 1, but came as {self.dropout!r}")
        if not (math.isfinite(self.theta) and self.theta > 0):
            raise ParameterError(f"theta must be positive and finite, but came as {self.theta!r}")

    @property
    def turned(self) -> int:
        """Channels of a head that the rotary angles turn: all."""
        return self.width // self.heads


class Cache:
    """Keys and values of the tokens read so far, by layer, and which of them are real."""

    def __init__(self, layers: int):
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.mask: Bool[Tensor, "n L"] | None = None

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys[layer] is not None:
            k, v = torch.cat([self.keys[layer], k], 2), torch.cat([self.values[layer], v], 2)
        self.keys[layer], self.values[layer] = k, v
        return k, v


def rotated(x: Float[Tensor, "n h L w"], cos: Tensor, sin: Tensor) -> Float[Tensor, "n h L w"]:
    """Channels i and i + w/2 turned by the angle of their place. Su et al., *RoFormer* (2021), halves as in LLaMA."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.heads, d = config.heads, config.width
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, x: Float[Tensor, "n L d"], turn, mask, cache: Cache | None, layer: int):
        n, L, d = x.shape
        q, k, v = (
            p(x).view(n, L, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, *turn), rotated(k, *turn)
        if cache is not None:
            k, v = cache.add(layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(y.transpose(1, 2).reshape(n, L, d))


class SwiGLU(nn.Module):
    """down(silu(gate x) ⊙ up x)."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(config.width, config.hidden, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then SwiGLU, each behind a norm and beside a way through."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.self_attn, self.mlp = Attention(config), SwiGLU(config)
        self.input_layernorm, self.post_attention_layernorm = (
            nn.RMSNorm(config.width, eps=1e-6) for _ in range(2)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "n L d"], turn, mask, cache, layer: int) -> Float[Tensor, "n L d"]:
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), turn, mask, cache, layer))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Decoder(nn.Module):
    """Token ids (n, L) to the logits of the next one.

    >>> Decoder(DecoderConfig(vocab_size=50))(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 50])
    """

    kind, settings = "decoder", DecoderConfig  # of its files

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
            self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
            self.norm = nn.RMSNorm(config.width, eps=1e-6)
            self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self._start(torch.Generator().manual_seed(config.seed))

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        """N(0, 1/width), for LLaMA's 4,096 channels about its 0.02²: with 0.02 a narrow model's sum over layers
        is so faint that an adapter drowns it. What ends in that sum is smaller, as in GPT-2."""
        scale = 1 / math.sqrt(self.config.width)
        for name, p in self.named_parameters():
            if p.ndim > 1:
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                deviation = scale / math.sqrt(2 * self.config.layers) if small else scale
                start = torch.empty(p.shape, device="cpu")  # the same numbers on every device
                p.copy_(start.normal_(0, deviation, generator=generator))

    @property
    def n_parameters(self) -> int:
        """Of all weights, tied ones once."""
        return sum(p.numel() for p in self.parameters())

    def states(
        self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"] | None = None, cache: Cache | None = None
    ) -> Float[Tensor, "n L d"]:
        """States after the last norm; each sees itself and what came before.

        mask: where tokens are real, at any places; others are not seen, and do not count as places. cache: what was
        read before, continued here. ParameterError beyond the context, outside the vocabulary, or for a mask of
        another shape or kind.
        """
        past = 0 if cache is None or cache.mask is None else cache.mask.shape[1]
        self._check(ids, mask, past)
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        if cache is not None:
            real = cache.mask = real if cache.mask is None else torch.cat([cache.mask, real], 1)
        turn = self._turn((real.cumsum(1) - 1).clamp_min(0)[:, past:])
        seen = None if mask is None and cache is None else _seen(real, past)
        return self._through(ids, turn, seen, cache)

    def _through(self, ids: Tensor, turn: tuple[Tensor, Tensor], seen, cache: Cache | None) -> Tensor:
        """All layers and the last norm."""
        x = self.embed_tokens(ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, turn, seen, cache, i)
        return self.norm(x)

    def _check(self, ids: Tensor, mask: Tensor | None, past: int) -> None:
        self._check_shape(ids, mask, past)
        low, high = ids.aminmax()
        if low < 0 or high >= self.config.vocab_size:
            raise ParameterError(
                f"token ids must be from 0 to {self.config.vocab_size - 1}, but {int(low)} to {int(high)} came"
            )

    def _check_shape(self, ids: Tensor, mask: Tensor | None, past: int) -> None:
        """What can be known without looking at the numbers."""
        if ids.ndim != 2 or not ids.numel():
            raise ParameterError(
                f"token ids must be rows (n, L) of at least one, but came as {tuple(ids.shape)}"
            )
        if mask is not None and (mask.shape != ids.shape or mask.dtype != torch.bool):
            raise ParameterError(
                f"the mask must be bool {tuple(ids.shape)}, but came as {mask.dtype} {tuple(mask.shape)}"
            )
        if past + ids.shape[1] > self.config.context:
            raise ParameterError(
                f"rows may have {self.config.context} tokens, but {past + ids.shape[1]} came"
            )

    def _turn(self, places: Int[Tensor, "n L"]) -> tuple[Tensor, Tensor]:
        """Cosine and sine (n, 1, L, w/2) of each channel's angle at its place, whole float32."""
        w = self.config.turned
        rates = self.config.theta ** -(torch.arange(0, w, 2, device=places.device).float() / w)
        angles = (places[..., None] * rates)[:, None]
        dtype = self.embed_tokens.weight.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def logits(self, states: Float[Tensor, "... d"]) -> Float[Tensor, "... V"]:
        return F.linear(states, self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight)

    def forward(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"] | None = None):
        return self.logits(self.states(ids, mask))

    @torch.no_grad()
    def generate(
        self, rows: Sequence[Sequence[int]], max_new: int = 16, end: int | None = None
    ) -> list[list[int]]:
        """The likeliest next token, again and again, after each row; only what was added, without `end`.

        ParameterError for empty rows, ids outside the vocabulary, a max_new that is no whole number from 0, or where
        row and answer would not fit the context (the last token added is not read, and needs no place).
        """
        if isinstance(max_new, bool) or not isinstance(max_new, int) or max_new < 0:
            raise ParameterError(f"max_new must be a whole number from 0, but came as {max_new!r}")
        if not len(rows) or not all(map(len, rows)):
            raise ParameterError("generate needs rows of at least one token, but one came empty, or none")
        longest = max(map(len, rows))
        if longest + max_new > self.config.context + 1:
            raise ParameterError(
                f"row and answer may have {self.config.context + 1} tokens, but {longest} and {max_new} came"
            )
        device, was_training = self.embed_tokens.weight.device, self.training
        ids = torch.tensor([[0] * (longest - len(r)) + list(r) for r in rows], device=device)
        mask = torch.tensor([[False] * (longest - len(r)) + [True] * len(r) for r in rows], device=device)
        self.eval()
        try:
            new = self._continue(ids, mask, max_new, end).tolist()
        finally:
            self.train(was_training)
        return [row[: row.index(end)] if end in row else row for row in new]

    def _continue(self, ids: Tensor, mask: Tensor, max_new: int, end: int | None) -> Int[Tensor, "n new"]:
        cache, new = Cache(self.config.layers), ids.new_zeros(len(ids), 0)
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        while new.shape[1] < max_new and not done.all():
            ids = self.logits(self.states(ids, mask, cache)[:, -1]).argmax(-1, keepdim=True)
            mask = torch.ones_like(ids, dtype=torch.bool)
            new = torch.cat([new, ids], 1)
            done |= ids[:, 0] == (-1 if end is None else end)
        return new

    def save(self, path: str | Path) -> None:
        """One safetensors file, settings within."""
        save_tensors(path, self.state_dict(), {"kind": self.kind, "config": asdict(self.config)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A saved model of this kind in evaluation mode; CheckpointError for a file that holds none."""
        tensors, about = load_tensors(path)
        if about.get("kind") != cls.kind:
            raise CheckpointError(
                f"{path} should hold a {cls.kind}, but holds {about.get('kind', 'something else')!r}"
            )
        try:
            model = cls(cls.settings(**about["config"]))
            model.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError, ParameterError) as e:
            raise CheckpointError(f"{path} holds no whole {cls.kind}: {str(e).splitlines()[0]}") from e
        return model.eval()


def _seen(real: Bool[Tensor, "n L"], past: int) -> Bool[Tensor, "n 1 q L"]:
    """Which keys each query sees: real ones up to itself; itself always, so that no row is empty."""
    L = real.shape[1]
    places = torch.arange(L, device=real.device)
    before = places[past:, None] >= places
    own = places[past:, None] == places
    return (before & real[:, None, :] | own)[:, None]
