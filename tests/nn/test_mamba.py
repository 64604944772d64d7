"""The Mamba block against its equations written out as loops in float64; decoding, cutting, packing, dtypes."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from workbench.errors import ParameterError
from workbench.nn import Mamba, MambaState

DOUBLE = torch.float64


def block(seed: int = 0, dtype: torch.dtype = DOUBLE, **options) -> Mamba:
    torch.manual_seed(seed)
    return Mamba(**{"d_model": 12, "d_state": 5, "dtype": dtype} | options)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def by_hand(p: dict[str, torch.Tensor], x: torch.Tensor, decay_scale=1.0) -> torch.Tensor:
    """The block on one sequence x (L, m), from the published equations, one time step after another."""
    d, n = p["A_log"].shape
    r = p["dt_proj.weight"].shape[1]
    k = p["conv1d.weight"].shape[2]
    A = -p["A_log"].exp() * decay_scale
    inputs, h, ys = [], torch.zeros(d, n, dtype=DOUBLE), []
    for token in x:
        xz = p["in_proj.weight"] @ token + p.get("in_proj.bias", 0.0)
        inputs.append(xz[:d])
        u = p.get("conv1d.bias", torch.zeros(d, dtype=DOUBLE)).clone()
        for tap in range(k):  # the last tap meets the present
            if len(inputs) - k + tap >= 0:
                u = u + p["conv1d.weight"][:, 0, tap] * inputs[len(inputs) - k + tap]
        u = u / (1 + (-u).exp())
        maps = p["x_proj.weight"] @ u
        dt = torch.log1p((p["dt_proj.weight"] @ maps[:r] + p["dt_proj.bias"]).exp())
        B, C = maps[r : r + n], maps[r + n :]
        h = (dt[:, None] * A).exp() * h + (dt * u)[:, None] * B
        z = xz[d:]
        y = (h @ C + p["D"] * u) * z / (1 + (-z).exp())
        ys.append(p["out_proj.weight"] @ y + p.get("out_proj.bias", 0.0))
    return torch.stack(ys)


CONFIGS = [
    {},
    {"d_state": 1, "d_conv": 1, "expand": 1},
    {"d_conv": 2, "expand": 1.5, "dt_rank": 3, "bias": True, "conv_bias": False, "dt_init": "constant"},
]


@pytest.mark.parametrize("options", CONFIGS)
def test_the_block_is_its_published_equations(options):
    m, x = block(**options), draw(2, 21, 12)
    y = m(x)
    p = dict(m.named_parameters())
    torch.testing.assert_close(y, torch.stack([by_hand(p, row) for row in x]), rtol=1e-11, atol=1e-12)


def test_gradients_are_those_of_the_published_equations():
    m, x = block(), draw(1, 9, 12)
    out = draw(1, 9, 12, seed=1)
    p = dict(m.named_parameters())
    ours = torch.autograd.grad(m(x), list(p.values()), out)
    theirs = torch.autograd.grad(by_hand(p, x[0])[None], list(p.values()), out)
    for name, mine, other in zip(p, ours, theirs, strict=True):
        assert mine.abs().max() > 0, name
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", CONFIGS)
def test_steps_one_after_another_are_the_forward_pass(options):
    m, x = block(**options), draw(2, 11, 12)
    whole, end = m(x, return_state=True)
    state, ys = m.init_state(2), []
    for token in x.unbind(1):
        y, state = m.step(token, state)
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys, 1), whole, rtol=1e-11, atol=1e-12)
    for mine, other in zip(state, end, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)
    assert [s.shape for s in end] == [s.shape for s in m.init_state(2)]
    assert [s.dtype for s in end] == [s.dtype for s in m.init_state(2)]


@pytest.mark.parametrize("cuts", [(1, 19), (2, 1, 17), (16, 4), (7, 13)])
def test_a_sequence_may_be_cut_anywhere_with_gradients_through_the_cut(cuts):
    m, x = block(), draw(2, 20, 12).requires_grad_()
    out = draw(2, 20, 12, seed=1)
    whole = m(x)
    pieces, state = [], None
    for piece in x.split(cuts, 1):
        y, state = m(piece, state=state, return_state=True)
        pieces.append(y)
    cut = torch.cat(pieces, 1)
    torch.testing.assert_close(cut, whole, rtol=1e-11, atol=1e-12)
    inputs = [x, *m.parameters()]
    for mine, other in zip(
        torch.autograd.grad(cut, inputs, out), torch.autograd.grad(whole, inputs, out), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_packed_sequences_equal_separate_ones_in_values_and_gradients():
    m, x = block(), draw(1, 20, 12)
    lengths = (2, 11, 1, 6)
    seq_idx = torch.arange(4).repeat_interleave(torch.tensor(lengths))[None]
    out = draw(1, 20, 12, seed=1)
    packed, end = m(x, seq_idx=seq_idx, return_state=True)
    pieces = [m(piece, return_state=True) for piece in x.split(lengths, 1)]
    apart = torch.cat([y for y, _ in pieces], 1)
    torch.testing.assert_close(packed, apart, rtol=1e-11, atol=1e-12)
    for mine, other in zip(end, pieces[-1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)
    inputs = list(m.parameters())
    grads = (torch.autograd.grad(y, inputs, out) for y in (packed, apart))
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


def test_the_past_does_not_see_the_future_bitwise():
    m, x = block(dtype=torch.float32), draw(2, 40, 12, dtype=torch.float32)
    other = x.clone()
    other[:, 23:] += 1
    with torch.no_grad():
        y, y2 = m(x), m(other)
    assert torch.equal(y[:, :23], y2[:, :23])
    assert (y[:, 23:] != y2[:, 23:]).any(-1).all()


def test_a_state_dict_in_the_published_naming_loads_strictly():
    # The names and shapes of mamba-ssm's Mamba(d_model=64), written down from its source.
    published = {
        "A_log": (128, 16),
        "D": (128,),
        "in_proj.weight": (256, 64),
        "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,),
        "x_proj.weight": (4 + 32, 128),
        "dt_proj.weight": (128, 4),
        "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }
    m = Mamba(64)
    assert {name: tuple(t.shape) for name, t in m.state_dict().items()} == published
    half = {name: torch.full(shape, 0.5, dtype=torch.bfloat16) for name, shape in published.items()}
    m.load_state_dict(half, strict=True)
    assert all(bool((p == 0.5).all()) for p in m.parameters())
    d, n, r, k = 128, 16, 4, 4
    count = 2 * d * 64 + d * k + d + d * (r + 2 * n) + r * d + d + d * n + d + d * 64
    assert sum(p.numel() for p in m.parameters()) == count


def test_parameters_start_as_published():
    m = block(d_model=64, d_state=16, dt_rank="auto", dt_min=0.01, dt_max=0.2, dtype=torch.float32)
    expected = torch.tensor([math.log(i) for i in range(1, 17)]).expand(128, 16)
    torch.testing.assert_close(
        m.A_log.data, expected, rtol=2e-7, atol=0
    )  # to the last bit of float32's logarithm
    assert torch.equal(m.D, torch.ones(128))
    assert m.dt_rank == 4
    dt = F.softplus(m.dt_proj.bias)
    assert dt.min() >= 0.01 * (1 - 1e-4)
    assert dt.max() <= 0.2 * (1 + 1e-4)
    log_uniform = (dt.log() - math.log(0.01)) / math.log(20)
    assert abs(log_uniform.mean() - 0.5) < 4 * (1 / 12 / 128) ** 0.5
    assert m.dt_proj.weight.abs().max() <= 0.5  # 4 ** -0.5
    assert m.dt_proj.weight.abs().max() > 0.48
    constant = block(dt_init="constant", dt_scale=0.5, dt_rank=4).dt_proj.weight
    assert torch.equal(constant, torch.full_like(constant, 0.25))
    floor = F.softplus(block(dt_min=1e-6, dt_max=1e-5, dt_init_floor=1e-3).dt_proj.bias)
    torch.testing.assert_close(floor, torch.full_like(floor, 1e-3))


def test_marks_survive_copies_and_casts():
    for m in (
        block(),
        copy.deepcopy(block()),
        pickle.loads(pickle.dumps(block())),
        block().to(torch.float32),
    ):
        marked = {n for n, p in m.named_parameters() if getattr(p, "_no_weight_decay", False)}
        assert marked == {"A_log", "D"}
        assert m.dt_proj.bias._no_reinit


def test_a_copy_gives_the_same_output_and_shares_nothing():
    m, x = block(), draw(1, 6, 12)
    twin = copy.deepcopy(m)
    assert torch.equal(twin(x), m(x))
    with torch.no_grad():
        twin.D.zero_()
    assert not torch.equal(twin(x), m(x))


def test_cast_to_bfloat16_keeps_decays_and_steps_in_float32():
    m = block(dtype=torch.float32, d_state=16)
    exact, bias = m.A_log.detach().clone(), m.dt_proj.bias.detach().clone()
    m(draw(1, 4, 12, dtype=torch.float32)).sum().backward()
    model = torch.nn.Sequential(m).to(torch.bfloat16)
    assert torch.equal(m.A_log, exact)
    assert torch.equal(m.dt_proj.bias, bias)
    kinds = {name: p.dtype for name, p in m.named_parameters()}
    wide = {"A_log", "D", "dt_proj.bias"}
    assert kinds == {n: torch.float32 if n in wide else torch.bfloat16 for n in kinds}
    assert all(p.grad.dtype == p.dtype for p in m.parameters())
    assert model.double()[0].A_log.dtype == DOUBLE
    assert {p.dtype for p in m.parameters()} == {DOUBLE}


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def test_bfloat16_and_autocast_give_bfloat16_close_to_float32():
    m, x = block(dtype=torch.float32, d_model=32), draw(2, 50, 32, dtype=torch.float32)
    exact = m(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = m(x, return_state=True)
    assert y.dtype == torch.bfloat16
    assert state.ssm.dtype == torch.float32
    assert relative_error(y, exact) < 1e-2
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in m.parameters())
    half = copy.deepcopy(m).to(torch.bfloat16)
    y = half(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert relative_error(y, exact) < 2e-2
    y, state = half.step(x[:, 0].bfloat16(), half.init_state(2))
    assert y.dtype == state.conv.dtype == torch.bfloat16
    assert state.ssm.dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient():
    m, x = block(), draw(2, 20, 12).requires_grad_()
    inputs = [x, *m.parameters()]
    plain = torch.autograd.grad(m(x).square().sum(), inputs)
    again = torch.autograd.grad(checkpoint(m, x, use_reentrant=False).square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_decay_scale_of_one_is_bitwise_plain_mamba():
    m, x = block(dtype=torch.float32), draw(2, 20, 12, dtype=torch.float32)
    plain, _ = m(x, return_state=True)
    for scale in (torch.tensor(1.0), torch.ones(5), torch.ones(24, 1), torch.ones(24, 5)):
        assert torch.equal(m(x, decay_scale=scale), plain)
        y, _ = m.step(x[:, 0], m.init_state(2), decay_scale=scale)
        assert torch.equal(y, m.step(x[:, 0], m.init_state(2))[0])


def test_a_decay_scale_acts_on_the_decay_alone_with_its_gradient():
    m, x = block(), draw(1, 8, 12)
    scale = draw(5, seed=1).exp().requires_grad_()
    y = m(x, decay_scale=scale)
    p = dict(m.named_parameters())
    expected = by_hand(p, x[0], scale)[None]
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-12)
    out = draw(1, 8, 12, seed=2)
    torch.testing.assert_close(
        *(torch.autograd.grad(v, scale, out, retain_graph=True)[0] for v in (y, expected)),
        rtol=1e-9,
        atol=1e-12,
    )
    state, ys = m.init_state(1), []
    for token in x.unbind(1):
        step, state = m.step(token, state, decay_scale=scale)
        ys.append(step)
    torch.testing.assert_close(torch.stack(ys, 1), y, rtol=1e-11, atol=1e-12)
    with pytest.raises(
        ParameterError, match=r"decay_scale should broadcast to .* = \(24, 5\), but has \(24,\)"
    ):
        m(x, decay_scale=torch.ones(24))


@pytest.mark.parametrize(
    ("grad", "backend"),
    [(False, "eager"), (True, "eager"), pytest.param(True, "auto", marks=pytest.mark.slow)],
)
def test_the_block_compiles_into_one_graph(grad, backend):
    m, x = (
        block(dtype=torch.float32, backend=backend),
        draw(2, 20, 12, dtype=torch.float32).requires_grad_(grad),
    )
    torch._dynamo.reset()
    graph = torch.compile(m, fullgraph=True, backend="aot_eager")
    state = m.init_state(2)
    with torch.set_grad_enabled(grad):
        y, end = graph(x, state=state, return_state=True)
        expected, last = m(x, state=state, return_state=True)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(end.ssm, last.ssm, rtol=1e-5, atol=1e-6)
    if grad:
        ours, theirs = (torch.autograd.grad(v.square().sum(), [x, *m.parameters()]) for v in (y, expected))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_named_with_the_shape_it_should_have():
    m = block()
    with pytest.raises(
        ParameterError, match=r"Mamba: x should have shape .* = \(b, L, 12\), but has \(2, 5, 11\)"
    ):
        m(draw(2, 5, 11))
    state = m.init_state(2)
    with pytest.raises(
        ParameterError, match=r"state.ssm should have shape .* \(3, 24, 5\), but has \(2, 24, 5\)"
    ):
        m(draw(3, 5, 12), state=state)
    with pytest.raises(ParameterError, match=r"state.conv should have shape .* \(2, 3, 24\)"):
        m.step(draw(2, 12), MambaState(state.conv[:, 1:], state.ssm))
    with pytest.raises(ParameterError, match="state should be a MambaState, but is Tensor"):
        m(draw(2, 5, 12), state=state.ssm)
    with pytest.raises(ParameterError, match=r"Mamba: x should have shape \(b, d_model\)"):
        m.step(draw(2, 5, 12), state)
    with pytest.raises(ParameterError, match="backend"):
        block(backend="egaer")(draw(1, 5, 12))
    for options, named in [
        ({"d_model": 0}, "d_model should be a positive whole number, but is 0"),
        ({"dt_init": "zeros"}, "dt_init"),
        ({"dt_rank": "full"}, "dt_rank should be a positive whole number, but is 'full'"),
        ({"dt_min": 0.2, "dt_max": 0.1}, "dt_min"),
    ]:
        with pytest.raises(ParameterError, match=named):
            block(**options)
