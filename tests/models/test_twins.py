"""Flat twins: documents in a row do not see each other, the loss is the naive one, experts are what loops say."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from workbench.errors import CheckpointError, ParameterError
from workbench.models.decoder import Decoder
from workbench.models.twins import DeepSeekConfig, DeepSeekTwin, LlamaTwin, Mixture, TwinConfig

SMALL = dict(vocab_size=40, width=32, layers=2, heads=2, hidden=24, context=16, tied=False)
LATENT = dict(latent=10, content=6, rotary=4, value=5, expert_hidden=8)


def llama(**changes) -> LlamaTwin:
    return LlamaTwin(TwinConfig(**SMALL | changes))


def deepseek(**changes) -> DeepSeekTwin:
    return DeepSeekTwin(DeepSeekConfig(**SMALL | LATENT | changes))


TWINS = {"llama": llama, "deepseek": deepseek}
twins = pytest.mark.parametrize("make", TWINS.values(), ids=TWINS)


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(40, shape, generator=torch.Generator().manual_seed(0))


@twins
def test_documents_of_a_row_are_as_if_alone(make):
    model, x = make().double().eval(), ids(1, 12)
    documents = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3])
    together = model.states(x, documents=documents)
    alone = torch.cat([model.states(part) for part in x.split([5, 4, 3], 1)], 1)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)  # angles are whole float32


@twins
def test_one_document_is_plain_causal_attention(make):
    model, x = make().double().eval(), ids(2, 9)
    torch.testing.assert_close(model.states(x, documents=torch.zeros_like(x)), model.states(x))


@twins
def test_the_loss_is_the_mean_cross_entropy_of_all_logits_and_the_penalty(make):
    model, x = make(), ids(3, 9)
    targets = x[:, 1:].clone()
    targets[0, :3] = -100
    found = model.loss(x[:, :-1], targets, chunk=5)
    expected = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), targets.flatten(), ignore_index=-100)
    torch.testing.assert_close(found, expected + model.penalty)
    one, two = (
        torch.autograd.grad(loss, model.layers[0].self_attn.q_proj.weight, retain_graph=True)[0]
        for loss in (found, expected + model.penalty)
    )
    # the penalty of both is that of the last pass; what it adds to the gradient is too small to matter here
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_the_llama_twin_is_the_decoder():
    config = TwinConfig(**SMALL)
    torch.testing.assert_close(LlamaTwin(config)(ids(2, 9)), Decoder(config)(ids(2, 9)), rtol=0, atol=0)
    assert float(llama().penalty) == 0 and llama().curvatures() == []


def test_a_mixture_is_what_a_loop_over_tokens_says_dense_or_sorted():
    config = DeepSeekConfig(**SMALL | LATENT)
    layer = Mixture(config).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(p.ndim))
    x = torch.randn(7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    routing = layer.route(x)
    rows = []
    for t, token in enumerate(x):
        row = layer.shared(token)
        p = torch.softmax(layer.gate @ token, 0)
        best = p.argsort(descending=True)[:2]
        for e in best.tolist():
            gate, up = (layer.up[e] @ token).chunk(2)
            row = row + p[e] / p[best].sum() * (layer.down[e] @ (F.silu(gate) * up))
        rows.append(row)
        assert set(routing.chosen[t].tolist()) == set(best.tolist())
    torch.testing.assert_close(layer(x), torch.stack(rows))
    torch.testing.assert_close(layer._dense(x, routing), layer._sorted(x, routing))


def test_latent_attention_is_what_its_formula_says():
    config = DeepSeekConfig(**SMALL | LATENT)
    model = DeepSeekTwin(config).double()
    attention, x = model.layers[0].self_attn, torch.randn(1, 6, 32, dtype=torch.float64)
    turn = model._turn(torch.zeros(1, 6, dtype=torch.long))  # no angle: nothing is turned
    small, shared = attention.compress(x)[0].split([10, 4], -1)
    small = small * (small.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    heads = []
    for h in range(2):
        q = attention.q_proj(x)[0, :, 10 * h : 10 * h + 10]
        wide = attention.expand(small)[:, 11 * h : 11 * h + 11]
        k = torch.cat([wide[:, :6], shared], -1)
        scores = (q @ k.T / 10**0.5).masked_fill(~torch.ones(6, 6).tril().bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ wide[:, 6:])
    expected = torch.cat(heads, -1) @ attention.o_proj.weight.T
    torch.testing.assert_close(attention(x, turn, None, None, 0)[0], expected)


def test_balancing_moves_tokens_away_from_a_favourite():
    model = deepseek(dense_layers=0).train()
    first = model.mixtures()[0]
    model.states(ids(4, 16))
    load = first.load.clone()
    assert load.sum() == 4 * 16 * 2
    model.balance_step(0.5)
    assert first.bias[load.argmax()] < first.bias[load.argmin()] and abs(float(first.bias.sum())) < 1e-6
    assert first.load.sum() == 0


@twins
def test_a_cache_changes_no_answer(make):
    model = make().eval()
    rows = [ids(1, 5)[0].tolist(), [3, 4]]
    for row, new in zip(rows, model.generate(rows, 6), strict=True):
        for token in new:
            assert int(model(torch.tensor([row]))[0, -1].argmax()) == token
            row = [*row, token]


@twins
def test_a_tiny_twin_learns_by_heart(make):
    model, x = make(), ids(2, 9)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.loss(x[:, :-1], x[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.balance_step()
    assert loss < 0.1


def test_files_and_copies_after_a_pass(tmp_path):
    model = deepseek()
    model.loss(ids(1, 4), ids(1, 4))
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert float(same.penalty) == 0
    model.save(tmp_path / "a")
    torch.testing.assert_close(DeepSeekTwin.load(tmp_path / "a")(ids(1, 4)), model.eval()(ids(1, 4)))
    llama().save(tmp_path / "b")
    assert isinstance(LlamaTwin.load(tmp_path / "b"), LlamaTwin)
    with pytest.raises(CheckpointError, match="deepseek twin"):
        DeepSeekTwin.load(tmp_path / "b")


def test_nonsense_is_refused():
    for changes in ({"rotary": 3}, {"active": 5}, {"latent": 0}, {"dense_layers": 3}, {"balance": -1.0}):
        with pytest.raises(ParameterError, match=next(iter(changes))):
            deepseek(**changes)
    with pytest.raises(ParameterError, match="documents"):
        llama().states(ids(2, 4), documents=torch.zeros(2, 5))
    with pytest.raises(ParameterError, match="16 tokens"):
        llama().states(ids(1, 17), documents=torch.zeros(1, 17))


@twins
def test_the_gain_scales_the_first_weights_of_the_layers_alone(make):
    one, half = make().state_dict(), make(gain=0.5).state_dict()
    for name, value in one.items():
        factor = 0.5 if name.startswith("layers.") and value.ndim > 1 else 1
        torch.testing.assert_close(half[name], factor * value)
    with pytest.raises(ParameterError, match="gain must be positive"):
        make(gain=0.0)
