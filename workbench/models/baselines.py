"""What a practitioner would take instead of HMamba: popularity, GRU4Rec and SASRec.

GRU4Rec and SASRec are encoders here; embedding, head, losses and training are those of every other recommender
(`recommender.named("gru4rec")`, `named("sasrec")`). Mamba4Rec is `hmamba.MambaEncoder` with a dot product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.errors import ParameterError
from workbench.models.catalogue import Catalogue
from workbench.models.hmamba import EPS, Entrance


class GRUEncoder(nn.Module):
    """Dropout → GRU, 2 width wide (as Mamba inside), `layers` deep. Its last linear map is the recommender's.

    Hidasi et al., *Session-based Recommendations with Recurrent Neural Networks* (ICLR 2016), as in
    RecBole: every position predicts.
    """

    def __init__(self, enter: int, width: int, layers: int = 1, dropout: float = 0.2, norm: bool = False):
        super().__init__()
        self.out_dim = 2 * width
        self.entrance = Entrance(enter, dropout, norm)
        self.gru = nn.GRU(enter, self.out_dim, layers, bias=False, batch_first=True)
        for weight in self.gru.parameters():
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Float[Tensor, "n L e"]) -> Float[Tensor, "n L h"]:
        return self.gru(self.entrance(x, self.gru.weight_ih_l0.dtype))[0]


class SASRecEncoder(nn.Module):
    """√w x + positions → blocks x + attention(LN x), x + W₂ relu(W₁ LN x) → layer norm.

    Positions count from the oldest item of a row; attention is causal and fused.

    Kang & McAuley, *Self-Attentive Sequential Recommendation* (ICDM 2018).
    """

    def __init__(
        self,
        enter: int,
        width: int,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.2,
        max_len: int = 50,
        *,
        norm: bool = False,
        final_norm: bool = True,
    ):
        super().__init__()
        self.out_dim, self.scale = width, 1.0 if norm else math.sqrt(width)
        self.entrance = Entrance(enter, 0.0, norm)
        self.enter = nn.Linear(enter, width) if enter != width else nn.Identity()
        self.positions = nn.Parameter(0.02 * torch.randn(max_len, width))
        self.blocks = nn.ModuleList(_AttentionBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, EPS) if final_norm else nn.Identity()
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "n L e"]) -> Float[Tensor, "n L w"]:
        """ParameterError for sequences longer than max_len."""
        length = x.shape[1]
        if length > len(self.positions):
            raise ParameterError(f"SASRec knows {len(self.positions)} positions, but {length} items came")
        x = self.enter(self.entrance(x, self.positions.dtype)) * self.scale + self.positions[:length]
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _AttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop(self._attend(self.norm1(x)))
        return x + self._drop(self.narrow(self._drop(F.relu(self.wide(self.norm2(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # each (n, heads, L, d)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout * self.training, is_causal=True)
        return self.mix(y.transpose(1, 2).flatten(2))


class Popularity(Catalogue):
    """Every user gets the items that most others took; the same questions as to any recommender.

    counts: (V,) how often each item occurs in training, `Interactions.counts`. ParameterError for anything else than
    one row of finite numbers.
    """

    max_len = 1

    def __init__(self, counts):
        counts = torch.tensor(counts, dtype=torch.float64)
        if counts.ndim != 1 or not len(counts) or not counts.isfinite().all():
            raise ParameterError(
                f"counts must be one finite number an item, but came as {tuple(counts.shape)}"
            )
        super().__init__()
        self.n_items = len(counts)
        self.register_buffer("counts", counts)

    def states(self, items: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n L 1"]:
        """Nothing is remembered of a history: zeros."""
        return self.counts.new_zeros(*items.shape, 1)

    forward = states

    def ranking_scores(self, states: Float[Tensor, "... 1"]) -> Float[Tensor, "... V"]:
        return self.counts.expand(*states.shape[:-1], -1)
