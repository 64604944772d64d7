"""Items as short tuples of tokens (multitokens), and a transformer that writes the next one token by token.

An item's codes (of a residual quantiser, made unique by `deduplicate`) are its name; the encoder reads the names of
one item or of a history, the decoder writes the name of another, and a trie keeps it to names that exist. Each
position has a vocabulary and an output head of its own. Sources: Rajput et al., *Recommender Systems with Generative
Retrieval* (TIGER, 2023); Piękos, Kayal, Karatzoglou, *Hyperbolic Residual Quantization* (2025), its two tasks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.errors import CheckpointError, DataError, ParameterError, WorkbenchError
from workbench.files import load_tensors, save_tensors

SEARCH_BUDGET = 1 << 22  # entries of the attention tables that a chunk of a beam search may have


@dataclass(frozen=True)
class MultitokenConfig:
    """vocabulary: number of tokens at each position of a name. history: most items the encoder reads.
    dim, heads, hidden: width, attention heads, width of the feed-forward layers. encoder_layers, decoder_layers.
    dropout: in all layers, while training. tied: output heads are the token table itself.

    ParameterError for values that make no sense.
    """

    vocabulary: tuple[int, ...]
    history: int = 1
    dim: int = 64
    heads: int = 4
    hidden: int = 128
    encoder_layers: int = 1
    decoder_layers: int = 1
    dropout: float = 0.1
    tied: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(int(v) for v in self.vocabulary))
        if not self.vocabulary or min(self.vocabulary) < 1:
            raise ParameterError(
                f"vocabulary must be positive whole numbers, one a position, but came as {self.vocabulary}"
            )
        for field in fields(self)[1:7]:
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{field.name} must be a positive whole number, but came as {value!r}")
        if self.dim % self.heads:
            raise ParameterError(f"dim must be a multiple of heads, but came as {self.dim} and {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout must be from 0 to below 1, but came as {self.dropout!r}")

    @classmethod
    def for_codes(cls, codes: Int[Tensor, "n levels"], **changes) -> MultitokenConfig:
        """With vocabularies just large enough for these codes; DataError for codes of another shape."""
        return cls(vocabulary=tuple((_checked(codes).amax(0) + 1).tolist()), **changes)


def _checked(codes: Tensor) -> Tensor:
    codes = torch.as_tensor(codes)
    if codes.ndim != 2 or not codes.numel() or codes.is_floating_point() or bool(codes.min() < 0):
        raise DataError(
            "codes must be whole numbers not below 0 of shape (items, levels), "
            f"got {codes.dtype} {tuple(codes.shape)}"
        )
    return codes.long()


# -- names that exist ----------------------------------------------------------------------------------


class TokenTrie:
    """Which tokens may follow which: a table for each position, from (prefix, token) to the longer prefix.

    Args:
        codes: (N, L) whole numbers; row i is the name of item i.

    Attributes: codes, `vocabulary` (tokens at each position), `tables`: L int tensors [prefixes of length l, tokens],
    -1 where no name goes on; prefixes are numbered by position, 0 is the empty one, and entries of the last table
    are items.

    DataError for codes of another shape, and where two items share a name.
    """

    def __init__(self, codes: Int[Tensor, "n levels"]):
        self.codes = _checked(codes)
        self.vocabulary = tuple((self.codes.amax(0) + 1).tolist())
        node = torch.zeros(len(self.codes), dtype=torch.int64, device=self.codes.device)
        nodes, tables = 1, []
        for token, size in zip(self.codes.unbind(1), self.vocabulary, strict=True):
            known, after = torch.unique(node * size + token, return_inverse=True)
            tables.append(torch.full((nodes, size), -1, dtype=torch.int32, device=node.device))
            tables[-1].view(-1)[known] = torch.arange(len(known), dtype=torch.int32, device=node.device)
            node, nodes = after, len(known)
        if nodes < len(self.codes):
            first = self.codes[(torch.bincount(node) > 1).nonzero()[0] == node]
            raise DataError(
                f"items must have different names, but {len(first)} are named {tuple(first[0].tolist())}: "
                "give the codes through deduplicate"
            )
        item = torch.empty_like(node)
        item[node] = torch.arange(nodes, device=node.device)
        tables[-1] = torch.where(tables[-1] < 0, -1, item[tables[-1].clamp_min(0)]).int()
        self.tables = tables

    def __len__(self) -> int:
        return len(self.codes)

    def to(self, device: torch.device | str) -> TokenTrie:
        """This trie, with its tables moved to a device."""
        self.codes, self.tables = self.codes.to(device), [table.to(device) for table in self.tables]
        return self

    def children(self, level: int, node: Int[Tensor, "..."]) -> Int[Tensor, "... tokens"]:
        """The longer prefix (at the last level: the item) that each token makes of prefixes of length `level`.

        Prefix -1 is none, and has no children.
        """
        return torch.where(node.unsqueeze(-1) < 0, -1, self.tables[level][node.clamp_min(0)].long())

    def item(self, codes: Int[Tensor, "... levels"]) -> Int[Tensor, "..."]:
        """The items of these names; DataError for a name that no item has."""
        codes = torch.as_tensor(codes, device=self.codes.device)
        if codes.ndim == 0 or codes.shape[-1] != len(self.tables) or codes.is_floating_point():
            raise DataError(
                f"a name is {len(self.tables)} whole numbers, got {codes.dtype} of shape {tuple(codes.shape)}"
            )
        node = torch.zeros(codes.shape[:-1], dtype=torch.int64, device=codes.device)
        for level, (token, size) in enumerate(zip(codes.unbind(-1), self.vocabulary, strict=True)):
            within = (token >= 0) & (token < size)
            after = self.children(level, node).gather(-1, token.clamp(0, size - 1).long().unsqueeze(-1))
            node = torch.where(within, after.squeeze(-1), -1)
        if bool((node < 0).any()):
            raise DataError(f"no item is named {tuple(codes[node < 0][0].tolist())}")
        return node

    def tokens(self, items: Int[Tensor, "..."]) -> Int[Tensor, "... levels"]:
        """The names of items; -1 in each place for item -1, which is padding. DataError for an unknown item."""
        items = torch.as_tensor(items, device=self.codes.device)
        if items.numel() and not -1 <= int(items.min()) <= int(items.max()) < len(self):
            raise DataError(
                f"items are numbered from 0 to {len(self) - 1}, got {int(items.min())} to {int(items.max())}"
            )
        return self.codes[items.clamp_min(0)].masked_fill((items < 0).unsqueeze(-1), -1)


# -- the model -----------------------------------------------------------------------------------------


class MultitokenTransformer(nn.Module):
    """Names of items in, the logits of another item's name out.

    Tokens of different positions have rows of their own in one table, and logits of their own.
    """

    def __init__(self, config: MultitokenConfig):
        super().__init__()
        self.config = cfg = config
        self.levels, count = len(cfg.vocabulary), sum(cfg.vocabulary)
        self.register_buffer("offset", torch.tensor([0, *accumulate(cfg.vocabulary[:-1])]), persistent=False)
        self.tokens = nn.Parameter(torch.randn(count, cfg.dim) * cfg.dim**-0.5)
        if not cfg.tied:
            self.head = nn.Parameter(torch.randn(count, cfg.dim) * cfg.dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(count))
        self.begin = nn.Parameter(torch.randn(cfg.dim) * cfg.dim**-0.5)
        self.place = nn.Parameter(torch.randn(cfg.history, cfg.dim) * cfg.dim**-0.5)  # 0: the newest item
        self.step = nn.Parameter(torch.randn(self.levels, cfg.dim) * cfg.dim**-0.5)
        shape = dict(nhead=cfg.heads, dim_feedforward=cfg.hidden, dropout=cfg.dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(cfg.dim, **shape), cfg.encoder_layers, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(cfg.dim, **shape), cfg.decoder_layers)
        self.dropout = nn.Dropout(cfg.dropout)
        for p in [*self.encoder.parameters(), *self.decoder.parameters()]:
            if p.ndim > 1:  # torch makes a stack of copies of one layer
                nn.init.xavier_uniform_(p)

    def encode(self, source: Int[Tensor, "b items levels"]) -> tuple[Tensor, Tensor | None]:
        """Memory (b, items·levels, dim), and which of its places are padding (None where none can be).

        source: names, the oldest first; items of -1 are padding, before or behind the others.
        DataError for more items than the model reads, or none in a row.
        """
        if source.ndim != 3 or source.shape[2] != self.levels or source.shape[1] > self.config.history:
            raise DataError(
                f"a source must be up to {self.config.history} items of {self.levels} tokens, "
                f"got shape {tuple(source.shape)}"
            )
        real = source[..., 0] >= 0
        if not bool(real.any(1).all()):
            raise DataError("a source must hold an item, but one holds only padding")
        recent = (real.flip(1).cumsum(1).flip(1) - 1).clamp_min(0)
        x = F.embedding(source.clamp_min(0) + self.offset, self.tokens) * math.sqrt(self.config.dim)
        x = (x + self.place[recent].unsqueeze(2) + self.step).flatten(1, 2)
        padding = (~real).repeat_interleave(self.levels, 1) if source.shape[1] > 1 else None
        return self.encoder(self.dropout(x), src_key_padding_mask=padding), padding

    def decode(self, memory: Tensor, padding: Tensor | None, prefix: Int[Tensor, "b w j"]) -> Tensor:
        """What follows each of w prefixes and all their beginnings, as (b, w, j + 1, dim).

        The w prefixes of a row lie end to end in one sequence and do not see each other: so keys and values of the
        memory are computed once for all of them.
        """
        b, w, j = prefix.shape
        x = F.embedding(prefix + self.offset[:j], self.tokens)
        x = (
            torch.cat([self.begin.expand(b, w, 1, -1), x], 2) * math.sqrt(self.config.dim)
            + self.step[: j + 1]
        )
        step = torch.arange(w * (j + 1), device=prefix.device)
        beam = step // (j + 1)
        unseen = (beam.unsqueeze(1) != beam) | (step.unsqueeze(1) < step)
        x = self.decoder(
            self.dropout(x.flatten(1, 2)),
            memory,
            tgt_mask=unseen,
            memory_key_padding_mask=padding,
            tgt_is_causal=False,
        )
        return x.view(b, w, j + 1, -1)

    def logits(self, level: int, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... tokens"]:
        """Of the tokens at one position."""
        sizes = self.config.vocabulary
        table = self.tokens if self.config.tied else self.head
        return F.linear(hidden, table.split(sizes)[level], self.bias.split(sizes)[level])

    def forward(
        self,
        source: Int[Tensor, "s items levels"],
        target: Int[Tensor, "b levels"],
        of_source: Int[Tensor, " b"] | None = None,
    ) -> list[Tensor]:
        """Logits (b, tokens) at each position, given what stands before it in the target.

        of_source: which source each target belongs to; without it, each has its own.
        """
        memory, padding = self.encode(source)
        if of_source is not None:
            memory = memory.index_select(0, of_source)
            padding = None if padding is None else padding[of_source]
        hidden = self.decode(memory, padding, target[:, None, :-1]).squeeze(1)
        return [self.logits(level, x) for level, x in enumerate(hidden.unbind(1))]

    def loss(self, source: Tensor, target: Tensor, of_source: Tensor | None = None) -> Tensor:
        """Mean cross entropy a token."""
        logits = self(source, target, of_source)
        return sum(F.cross_entropy(z, t) for z, t in zip(logits, target.unbind(1), strict=True)) / self.levels

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        save_tensors(path, self.state_dict(), {"kind": "multitoken", "config": asdict(self.config)})

    @classmethod
    def load(cls, path: str | Path) -> MultitokenTransformer:
        """Read what `save` wrote; CheckpointError if the file is missing, damaged or of another kind."""
        state, about = load_tensors(path)
        if about.get("kind") != "multitoken":
            raise CheckpointError(f"{path} is a workbench file, but not a multitoken transformer")
        try:
            model = cls(MultitokenConfig(**about["config"]))
            model.load_state_dict(state)
        except (KeyError, TypeError, RuntimeError, WorkbenchError) as e:
            raise CheckpointError(f"{path} holds no whole multitoken transformer: {e}") from e
        return model


# -- search --------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """Items (b, width), the likeliest first, and the log-likelihoods of their names; -1 and -inf behind the last."""

    items: Tensor
    scores: Tensor


@torch.no_grad()
def beam_search(
    model: MultitokenTransformer, source: Int[Tensor, "b items levels"], trie: TokenTrie, width: int = 10
) -> Found:
    """The likeliest items for each source, by names that exist; exact where `width` is the number of items.

    source: as for `MultitokenTransformer.encode` (`trie.tokens(items)`): each source once. A name's score is the
    sum of its tokens' log-probabilities among all tokens of their positions. ParameterError for a width below 1 or
    a trie of other vocabularies than the model's.
    """
    if width < 1:
        raise ParameterError(f"width must be at least 1, got {width}")
    if any(v > m for v, m in zip(trie.vocabulary, model.config.vocabulary, strict=False)) or len(
        trie.vocabulary
    ) != len(model.config.vocabulary):
        raise ParameterError(
            f"the names have vocabularies {trie.vocabulary}, the model knows {model.config.vocabulary}"
        )
    training = model.training
    model.eval()
    length = min(width, len(trie)) * model.levels + source.shape[1] * model.levels
    parts = [_search(model, s, trie, width) for s in source.split(max(1, SEARCH_BUDGET // length**2))]
    model.train(training)
    items, scores = (torch.cat(column) for column in zip(*parts, strict=True))
    return Found(items, scores)


def _search(
    model: MultitokenTransformer, source: Tensor, trie: TokenTrie, width: int
) -> tuple[Tensor, Tensor]:
    b, device = len(source), source.device
    memory, padding = model.encode(source)
    node = torch.zeros(b, 1, dtype=torch.int64, device=device)
    score = torch.zeros(b, 1, device=device)
    prefix = torch.empty(b, 1, 0, dtype=torch.int64, device=device)
    for level, size in enumerate(trie.vocabulary):
        hidden = model.decode(memory, padding, prefix)[:, :, -1]
        gain = model.logits(level, hidden).float().log_softmax(-1)[..., :size]
        child = trie.children(level, node)  # (b, beams, size)
        total = torch.where(child < 0, -torch.inf, score.unsqueeze(-1) + gain).flatten(1)
        ahead = len(trie.tables[level + 1]) if level + 1 < len(trie.tables) else len(trie)
        score, pick = total.topk(min(width, total.shape[1], ahead))
        node = child.flatten(1).gather(1, pick)
        before = prefix.gather(1, (pick // size).unsqueeze(-1).expand(-1, -1, level))
        prefix = torch.cat([before, (pick % size).unsqueeze(-1)], -1)
    rest = width - node.shape[1]
    return F.pad(node, (0, rest), value=-1), F.pad(score, (0, rest), value=-torch.inf)
