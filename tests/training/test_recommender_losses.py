import math

import pytest
import torch
import torch.nn.functional as F

from workbench.models.recommender import Recommender, named
from workbench.training import recommender_losses as losses

V, P = 40, 23
HEADS = ["dot", "half", "lorentz_sq", "dist2", "dist"]


def setting(head="lorentz_sq", seed=0, **changes):
    torch.manual_seed(seed)
    model = Recommender(named("hmamba_full", width=6, state=4, head=head, learn_c=True, **changes), V)
    with torch.no_grad():
        model.items.held.mul_(20)
        model.bias.normal_()
    return model, torch.randn(P, 6, requires_grad=True), torch.randint(V, (P,))


def gradients(model, loss, states):
    wanted = [states, *(p for p in model.parameters() if p.requires_grad)]
    return torch.autograd.grad(loss, wanted, allow_unused=True)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("block", [1, 5 * V, 1 << 19])
def test_softmax_in_blocks_is_cross_entropy_over_all_items(monkeypatch, head, block):
    monkeypatch.setitem(losses.BLOCK, "cpu", block)
    model, states, targets = setting(head)
    found, expected = losses.softmax(model, states, targets), F.cross_entropy(model.scores(states), targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(gradients(model, 3 * found, states), gradients(model, 3 * expected, states), strict=True):
        assert (a is None) == (b is None) or not a.any()
        if b is not None:
            assert torch.allclose(a, b, atol=2e-5 * float(b.abs().max()))


def test_softmax_of_the_released_score_and_without_a_bias_has_the_right_gradient():
    model = Recommender(named("hmamba_full_official", width=6, state=4), V)
    states, targets = torch.randn(P, 6, requires_grad=True), torch.randint(V, (P,))
    found, expected = losses.softmax(model, states, targets), F.cross_entropy(model.scores(states), targets)
    for a, b in zip(
        *(torch.autograd.grad(x, [states, model.items.held]) for x in (found, expected)), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)


def test_losses_have_values_where_no_gradient_is_kept():
    model, states, targets = setting()
    with torch.no_grad():
        assert float(losses.softmax(model, states, targets)) == pytest.approx(
            F.cross_entropy(model.scores(states), targets).item(), rel=1e-6
        )


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_many_draws_with_their_correction_make_the_full_softmax(power):
    model, states, targets = setting()
    weights = torch.rand(V).double() ** power
    weights /= weights.sum()
    m = 400_000
    drawn = torch.multinomial(weights, m, replacement=True)
    found = losses.sampled_softmax(model, states, targets, drawn, (weights[drawn] * m).log().float())
    assert found.item() == pytest.approx(F.cross_entropy(model.scores(states), targets).item(), rel=1e-2)


def test_a_drawn_target_does_not_compete_with_itself():
    model, states, targets = setting()
    s = model.scores(states).detach()
    found = losses.sampled_softmax(model, states, targets, torch.arange(V))
    assert found.item() == pytest.approx(float(F.cross_entropy(s, targets)), rel=1e-5)
    only = torch.full((3,), int(targets[0]))
    alone = losses.sampled_softmax(model, states[:1], targets[:1], only)
    assert alone.item() == 0 and all(g is None or g.isfinite().all() for g in gradients(model, alone, states))


def test_binary_losses_are_what_their_papers_write():
    model, states, targets = setting()
    s = model.scores(states).detach().double()
    right = s[torch.arange(P), targets]
    own = torch.randint(V, (P, 2))
    wrong = s.gather(1, own)
    expected = -(right.sigmoid().log() + (1 - wrong.sigmoid()).log().sum(1)).mean()
    assert float(losses.bce(model, states, targets, own)) == pytest.approx(expected.item(), rel=1e-4)
    drawn = torch.randperm(V)[:10]
    others = (1 - s[:, drawn].sigmoid()).log() * (drawn != targets[:, None])
    alpha = len(drawn) / (V - 1)
    for t in (0.0, 0.75, 1.0):
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        assert beta == pytest.approx({0.0: 1.0, 1.0: alpha}.get(t, beta))
        expected = -((right.sigmoid() ** beta).log() + others.sum(1)).mean()
        found = losses.gbce(model, states, targets, drawn, t)
        assert found.item() == pytest.approx(expected.item(), rel=1e-4) and math.isfinite(found)
