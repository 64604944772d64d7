"""Sequences of one chunk, whose last state nobody asks for: the same numbers as step by step, with less work."""

import pytest
import torch

from workbench.scan import chunked_ssd, ssd
from workbench.scan.short_ssd import HEADS, suits

N, P, STATE = 5, 4, 3


def arguments(L, h, g, *, skip=True, dtype=torch.float64, seed=0):
    """x, dt, A, B, C, D, each to be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((N, L, h, P), (N, L, h), (h,), (N, L, g, STATE), (N, L, g, STATE), (h,))
    made = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    made[2] = -made[2].abs() * 3
    if not skip:
        made[5] = None
    return [t if t is None else t.requires_grad_() for t in made]


def answers(backend, args, **options):
    """y, and the gradients of a fixed function of it."""
    y = ssd(*args, None, None, True, backend=backend, **options)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    given = [t for t in args if t is not None]
    return [y, *torch.autograd.grad((y * weight).sum(), given)]


@pytest.fixture
def counted(monkeypatch):
    """How often the short form has answered."""
    calls = []
    short = chunked_ssd.short_ssd
    monkeypatch.setattr(chunked_ssd, "short_ssd", lambda *a: calls.append(1) or short(*a))
    return calls


@pytest.mark.parametrize("L", (1, 2, 7, 33))
@pytest.mark.parametrize(("h", "g", "skip"), ((1, 1, True), (2, 1, False), (6, 3, True)))
def test_outputs_and_gradients_are_those_of_the_recurrence(L, h, g, skip, counted):
    args = arguments(L, h, g, skip=skip)
    for got, want in zip(answers("eager", args), answers("reference", args), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)
    assert counted


def test_packed_sequences_do_not_meet(counted):
    args = arguments(9, 2, 1)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2]]).expand(N, -1)
    for got, want in zip(
        answers("eager", args, seq_idx=seq_idx), answers("reference", args, seq_idx=seq_idx), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)
    assert counted


def test_strong_decays_cost_no_digit():
    """A step that forgets everything, beside steps that forget nothing."""
    args = arguments(12, 2, 1, dtype=torch.float32)
    decay = torch.full((N, 12, 2), -0.01)
    decay[:, 5] = -1e4
    got, want = (
        ssd(*(t.detach().to(kind) for t in args[:5]), log_decay=decay.to(kind), backend=backend)
        for kind, backend in ((torch.float32, "eager"), (torch.float64, "reference"))
    )
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_asking_for_the_last_state_changes_no_output(counted):
    args = arguments(7, 2, 1)
    short = ssd(*args, None, None, True, backend="eager")
    assert len(counted) == 1
    y, last = ssd(*args, None, None, True, backend="eager", return_last_state=True)
    assert len(counted) == 1 and last.shape == (N, 2, P, STATE)
    torch.testing.assert_close(y, short, rtol=1e-12, atol=1e-12)


def test_only_one_chunk_without_states_and_with_few_heads_is_short():
    x, start = torch.zeros(1, 8, 2, P), torch.zeros(1, 2, P, STATE)
    assert suits(x, None, None, 8, False) and suits(x, torch.zeros(2), None, 64, False)
    assert not suits(x, None, None, 7, False)  # two chunks
    assert not suits(x, None, start, 64, False) and not suits(x, None, None, 64, True)
    assert not suits(x, torch.zeros(2, P), None, 64, False)  # a skip weight a channel
    assert not suits(torch.zeros(1, 8, HEADS + 1, P), None, None, 64, False)


def test_half_precision_is_as_good_as_its_inputs():
    args = arguments(7, 2, 1, dtype=torch.float32)
    half = [args[0].detach().bfloat16(), args[1].detach(), args[2].detach()]
    half += [args[3].detach().bfloat16(), args[4].detach().bfloat16(), args[5].detach()]
    got = ssd(*half, None, None, True, backend="eager")
    want = ssd(*(t.double() for t in half), None, None, True, backend="reference")
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), want, rtol=0.02, atol=0.02 * float(want.abs().max()))
