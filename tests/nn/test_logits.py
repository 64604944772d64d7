"""Cross-entropy in pieces against torch's own, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParameterError
from workbench.manifolds import Lorentz
from workbench.nn.logits import LorentzLogits, chunked_cross_entropy
from workbench.nn.lorentz import lift


def draw(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 20), chunk=st.integers(1, 25), ignored=st.integers(0, 3), seed=st.integers(0, 99))
def test_pieces_give_the_loss_and_gradients_of_the_whole(rows, chunk, ignored, seed):
    x, w = draw(rows, 5, seed=seed).requires_grad_(), draw(7, 5, seed=seed + 1).requires_grad_()
    targets = torch.randint(0, 7, (rows,), generator=torch.Generator().manual_seed(seed))
    targets[: min(ignored, rows - 1)] = -100
    whole = F.cross_entropy(x @ w.T, targets)
    pieces = chunked_cross_entropy(x, w, targets, chunk=chunk)
    torch.testing.assert_close(pieces, whole)
    for one, other in zip(
        torch.autograd.grad(3 * pieces, [x, w]), torch.autograd.grad(3 * whole, [x, w]), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_nothing_to_predict_costs_nothing_and_gives_no_gradient():
    x = draw(3, 5).requires_grad_()
    loss = chunked_cross_entropy(x, draw(7, 5), torch.full((3,), -100))
    loss.backward()
    assert float(loss) == 0 and not x.grad.any()


def test_under_autocast_products_are_bfloat16_and_the_loss_float32():
    x, w = draw(64, 32, dtype=torch.float32).requires_grad_(), draw(50, 32, seed=1, dtype=torch.float32) / 6
    w.requires_grad_()
    targets = torch.arange(64) % 50
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(x, w, targets, chunk=16)
    exact = F.cross_entropy(x @ w.T, targets)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=2e-3)
    for one, other in zip(torch.autograd.grad(loss, [x, w]), torch.autograd.grad(exact, [x, w]), strict=True):
        assert one.dtype == torch.float32
        assert ((one - other).norm() / other.norm()).item() < 1e-2


def test_logits_read_all_coordinates_and_their_loss_is_that_of_the_logits():
    torch.manual_seed(0)
    head = LorentzLogits(Lorentz(0.5), 6, 9).double()
    x, targets = draw(2, 4, 6), torch.arange(8).reshape(2, 4)
    logits = head(x)
    torch.testing.assert_close(logits, lift(x, 0.5) @ head.weight.T)
    torch.testing.assert_close(
        head.loss(x, targets, chunk=3), F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    )


def test_the_loss_compiles_to_one_graph():
    x, w, targets = draw(8, 5).requires_grad_(), draw(7, 5).requires_grad_(), torch.arange(8) % 7
    once = torch.compile(chunked_cross_entropy, fullgraph=True, backend="aot_eager")
    (one,) = torch.autograd.grad(once(x, w, targets, chunk=3), w)
    (other,) = torch.autograd.grad(F.cross_entropy(x @ w.T, targets), w)
    torch.testing.assert_close(one, other)


def test_wrong_shapes_are_named():
    with pytest.raises(ParameterError, match=r"rows are \(3,\) and targets \(4,\)"):
        chunked_cross_entropy(draw(3, 5), draw(7, 5), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ParameterError, match="chunk"):
        chunked_cross_entropy(draw(3, 5), draw(7, 5), torch.zeros(3, dtype=torch.long), chunk=0)
