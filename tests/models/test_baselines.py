"""GRU4Rec and SASRec against their definitions, popularity against counting."""

import math

import pytest
import torch
import torch.nn.functional as F

from workbench.data.interactions import synthetic
from workbench.errors import ParameterError
from workbench.models.baselines import GRUEncoder, Popularity, SASRecEncoder
from workbench.models.recommender import Recommender, named


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm(x, layer):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * layer.weight + layer.bias


@torch.no_grad()
def test_gru_is_its_recurrence():
    torch.manual_seed(0)
    encoder = GRUEncoder(4, 3, dropout=0.0).double()
    x, h, expected = randn(2, 7, 4), torch.zeros(2, 6, dtype=torch.float64), []
    W, U = encoder.gru.weight_ih_l0, encoder.gru.weight_hh_l0
    for t in range(7):
        (a, b, c), (p, q, r) = (m.chunk(3, -1) for m in (x[:, t] @ W.T, h @ U.T))
        reset, keep = torch.sigmoid(a + p), torch.sigmoid(b + q)
        h = (1 - keep) * torch.tanh(c + reset * r) + keep * h
        expected.append(h)
    assert torch.allclose(encoder(x), torch.stack(expected, 1))


@torch.no_grad()
def test_sasrec_is_causal_softmax_attention():
    torch.manual_seed(0)
    encoder = SASRecEncoder(6, 6, layers=2, heads=2, dropout=0.0, max_len=9).double()
    x = randn(2, 7, 6)
    h = x * math.sqrt(6) + encoder.positions[:7]
    for block in encoder.blocks:
        q, k, v = F.linear(norm(h, block.norm1), block.qkv.weight, block.qkv.bias).chunk(3, -1)
        heads = []
        for part in (slice(0, 3), slice(3, 6)):
            logits = q[..., part] @ k[..., part].mT / math.sqrt(3)
            logits = logits.masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -math.inf)
            heads.append(logits.softmax(-1) @ v[..., part])
        h = h + F.linear(torch.cat(heads, -1), block.mix.weight, block.mix.bias)
        inner = F.linear(norm(h, block.norm2), block.wide.weight, block.wide.bias).clamp_min(0)
        h = h + F.linear(inner, block.narrow.weight, block.narrow.bias)
    assert torch.allclose(encoder(x), norm(h, encoder.norm))


@pytest.mark.parametrize("name", ["gru4rec", "sasrec", "mamba4rec"])
@torch.no_grad()
def test_the_usual_recommenders_score_by_dot_products_with_their_own_embedding(name):
    model = Recommender(named(name, width=8), 20).eval()
    items = torch.tensor([[1, 2, 3]])
    states = model.states(items, torch.ones_like(items, dtype=torch.bool))
    assert torch.allclose(model.scores(states), states @ model.items.tangent.T, atol=1e-6)
    assert model.curvatures() == []


def test_popularity_ranks_by_counts_whatever_the_history():
    data = synthetic(60, 81, seed=1)
    model = Popularity(data.counts).bind(data)
    best, counts = data.popular(5)
    assert model.recommend([0], k=5, seen=True) == [
        (data.titles[i], float(c)) for i, c in zip(best.tolist(), counts.tolist(), strict=True)
    ]
    assert data.titles[best[0]] not in dict(model.recommend([int(best[0])], k=5))
    items = torch.zeros(3, 4, dtype=torch.long)
    scores = model.score_last(items, torch.ones_like(items, dtype=torch.bool))
    assert scores.shape == (3, 81)
    assert torch.equal(scores[2], torch.tensor(data.counts, dtype=torch.float64))


@pytest.mark.parametrize("counts", [[], [[1, 2]], [1.0, float("nan")]])
def test_popularity_refuses_what_are_no_counts(counts):
    with pytest.raises(ParameterError, match="counts"):
        Popularity(counts)
