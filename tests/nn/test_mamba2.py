"""The Mamba-2 block against its equations written out as loops in float64; decoding, cutting, packing, dtypes."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from workbench.errors import ParameterError
from workbench.nn import Mamba2, MambaState

DOUBLE = torch.float64
SIZES = {"d_model": 12, "d_state": 5, "headdim": 4}  # six heads


def block(seed: int = 0, dtype: torch.dtype = DOUBLE, **options) -> Mamba2:
    torch.manual_seed(seed)
    m = Mamba2(**SIZES | {"dtype": dtype} | options)
    with torch.no_grad():  # a weight of one would hide that it is there, or where
        for p in (m.D, *([] if m.norm is None else [m.norm.weight])):
            p.add_(0.3 * torch.randn_like(p))
    return m


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + (-x).exp())


def by_hand(m: Mamba2, p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The block on one sequence x (L, m), from the published equations: token by token, head by head."""
    h, k = p["A_log"].shape[0], p["conv1d.weight"].shape[2]
    d, n, g, (low, high) = p["out_proj.weight"].shape[1], m.d_state, m.ngroups, m.dt_limit
    width, A = d // h, -p["A_log"].exp()
    D = p["D"].reshape(h, -1)  # (h, 1) or (h, p)
    inputs, S, ys = [], [torch.zeros(width, n, dtype=DOUBLE) for _ in range(h)], []
    for token in x:
        z, xBC, dt = (p["in_proj.weight"] @ token + p.get("in_proj.bias", 0.0)).split([d, d + 2 * g * n, h])
        inputs.append(xBC)
        u = p.get("conv1d.bias", torch.zeros_like(xBC)).clone()
        for tap in range(k):
            if len(inputs) - k + tap >= 0:
                u = u + p["conv1d.weight"][:, 0, tap] * inputs[len(inputs) - k + tap]
        u, B, C = silu(u).split([d, g * n, g * n])
        dt = torch.log1p((dt + p["dt_bias"]).exp()).clamp(low, high)
        y = []
        for i in range(h):
            of = slice((i * g // h) * n, (i * g // h) * n + n)
            v = u[i * width : (i + 1) * width]
            S[i] = (dt[i] * A[i]).exp() * S[i] + torch.outer(dt[i] * v, B[of])
            y.append(S[i] @ C[of] + D[i] * v)
        y = torch.cat(y)
        ys.append(p["out_proj.weight"] @ norm_by_hand(m, p, y, z) + p.get("out_proj.bias", 0.0))
    return torch.stack(ys)


def norm_by_hand(m: Mamba2, p: dict[str, torch.Tensor], y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    if m.norm is None:
        return y * silu(z)
    gate_last = m.norm.norm_before_gate
    y = y if gate_last else y * silu(z)
    y = torch.cat([v / (v.square().mean() + 1e-5).sqrt() for v in y.chunk(m.ngroups)]) * p["norm.weight"]
    return y * silu(z) if gate_last else y


CONFIGS = [
    {},
    {"ngroups": 2, "dt_limit": (0.01, 0.03), "chunk_size": 4},
    {"D_has_hdim": True, "rmsnorm": False, "bias": True, "conv_bias": False, "d_conv": 2},
    {"norm_before_gate": True, "ngroups": 3, "d_conv": 1, "conv_init": 0.5, "expand": 1, "headdim": 2},
]


@pytest.mark.parametrize("options", CONFIGS)
def test_the_block_is_its_published_equations(options):
    m, x = block(**options), draw(2, 21, 12)
    p = dict(m.named_parameters())
    expected = torch.stack([by_hand(m, p, row) for row in x])
    torch.testing.assert_close(m(x), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("options", CONFIGS[:3])
def test_gradients_are_those_of_the_published_equations(options):
    m, x = block(**options), draw(1, 9, 12)
    out = draw(1, 9, 12, seed=1)
    p = dict(m.named_parameters())
    ours = torch.autograd.grad(m(x), list(p.values()), out)
    theirs = torch.autograd.grad(by_hand(m, p, x[0])[None], list(p.values()), out)
    for name, mine, other in zip(p, ours, theirs, strict=True):
        assert mine.abs().max() > 0, name
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("options", CONFIGS)
def test_steps_one_after_another_are_the_forward_pass_the_limit_on_dt_included(options):
    m, x = block(**options), draw(2, 11, 12)
    whole, end = m(x, return_state=True)
    state, ys = m.init_state(2), []
    for token in x.unbind(1):
        y, state = m.step(token, state)
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys, 1), whole, rtol=1e-10, atol=1e-11)
    for mine, other in zip(state, end, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-11)
    assert [s.shape for s in end] == [s.shape for s in m.init_state(2)]
    assert [s.dtype for s in end] == [s.dtype for s in m.init_state(2)]


def test_the_limit_on_dt_matters():
    x = draw(1, 11, 12)
    free, held = (block(dt_limit=limit) for limit in ((0.0, math.inf), (0.01, 0.03)))
    held.load_state_dict(free.state_dict())
    assert (free(x) - held(x)).abs().max() > 1e-3


@pytest.mark.parametrize("cuts", [(1, 19), (2, 1, 17), (16, 4), (7, 13)])
def test_a_sequence_may_be_cut_anywhere_with_gradients_through_the_cut(cuts):
    m, x = block(ngroups=2, chunk_size=8), draw(2, 20, 12).requires_grad_()
    out = draw(2, 20, 12, seed=1)
    whole = m(x)
    pieces, state = [], None
    for piece in x.split(cuts, 1):
        y, state = m(piece, state=state, return_state=True)
        pieces.append(y)
    cut = torch.cat(pieces, 1)
    torch.testing.assert_close(cut, whole, rtol=1e-10, atol=1e-11)
    inputs = [x, *m.parameters()]
    for mine, other in zip(
        torch.autograd.grad(cut, inputs, out), torch.autograd.grad(whole, inputs, out), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [4, 64])
def test_packed_sequences_equal_separate_ones_in_values_and_gradients(chunk_size):
    m, x = block(chunk_size=chunk_size), draw(1, 20, 12)
    lengths = (2, 11, 1, 6)
    seq_idx = torch.arange(4).repeat_interleave(torch.tensor(lengths))[None]
    out = draw(1, 20, 12, seed=1)
    packed, end = m(x, seq_idx=seq_idx, return_state=True)
    pieces = [m(piece, return_state=True) for piece in x.split(lengths, 1)]
    apart = torch.cat([y for y, _ in pieces], 1)
    torch.testing.assert_close(packed, apart, rtol=1e-10, atol=1e-11)
    for mine, other in zip(end, pieces[-1][1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-11)
    inputs = list(m.parameters())
    grads = (torch.autograd.grad(y, inputs, out) for y in (packed, apart))
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_the_past_does_not_see_the_future_bitwise():
    m, x = block(dtype=torch.float32, chunk_size=16), draw(2, 40, 12, dtype=torch.float32)
    other = x.clone()
    other[:, 23:] += 1
    with torch.no_grad():
        y, y2 = m(x), m(other)
    assert torch.equal(y[:, :23], y2[:, :23])
    assert (y[:, 23:] != y2[:, 23:]).any(-1).all()


@pytest.mark.parametrize("wide_D", [False, True])
def test_a_state_dict_in_the_published_naming_loads_strictly(wide_D):
    # The names and shapes of mamba-ssm's Mamba2(d_model=128), written down from its source.
    published = {
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (256,) if wide_D else (4,),
        "in_proj.weight": (2 * 256 + 2 * 128 + 4, 128),
        "conv1d.weight": (512, 1, 4),
        "conv1d.bias": (512,),
        "norm.weight": (256,),
        "out_proj.weight": (128, 256),
    }
    m = Mamba2(128, D_has_hdim=wide_D)
    assert {name: tuple(t.shape) for name, t in m.state_dict().items()} == published
    half = {name: torch.full(shape, 0.5, dtype=torch.bfloat16) for name, shape in published.items()}
    m.load_state_dict(half, strict=True)
    assert all(bool((p == 0.5).all()) for p in m.parameters())
    projections, heads = (2 * 256 + 2 * 128 + 4) * 128 + 128 * 256, 4 + 4 + (256 if wide_D else 4)
    assert sum(p.numel() for p in m.parameters()) == projections + 512 * 5 + 256 + heads


def test_parameters_start_as_published():
    torch.manual_seed(0)
    m = Mamba2(256, headdim=2, A_init_range=(2, 9), dt_min=0.01, dt_max=0.2)
    A = m.A_log.exp()
    assert A.min() >= 2 * (1 - 1e-6)
    assert A.max() <= 9 * (1 + 1e-6)
    assert abs(A.mean() - 5.5) < 4 * 7 * (1 / 12 / 256) ** 0.5
    assert torch.equal(m.D, torch.ones(256))
    assert torch.equal(m.norm.weight, torch.ones(512))
    dt = F.softplus(m.dt_bias)
    assert dt.min() >= 0.01 * (1 - 1e-4)
    assert dt.max() <= 0.2 * (1 + 1e-4)
    log_uniform = (dt.log() - math.log(0.01)) / math.log(20)
    assert abs(log_uniform.mean() - 0.5) < 4 * (1 / 12 / 256) ** 0.5
    weight = Mamba2(64, conv_init=0.01).conv1d.weight
    assert 0.0099 < weight.abs().max() <= 0.01
    assert Mamba2(64, A_init_range=(1, 1)).A_log.abs().max() == 0


def test_marks_survive_copies_and_casts():
    for m in (
        block(),
        copy.deepcopy(block()),
        pickle.loads(pickle.dumps(block())),
        block().to(torch.float32),
    ):
        marked = {n for n, p in m.named_parameters() if getattr(p, "_no_weight_decay", False)}
        assert marked == {"A_log", "D", "dt_bias"}
        assert m.dt_bias._no_reinit


def test_cast_to_bfloat16_keeps_decays_and_steps_in_float32():
    m = block(dtype=torch.float32)
    exact = m.dt_bias.detach().clone()
    torch.nn.Sequential(m).to(torch.bfloat16)
    assert torch.equal(m.dt_bias, exact)
    kinds = {name: p.dtype for name, p in m.named_parameters()}
    wide = {"A_log", "D", "dt_bias"}
    assert kinds == {n: torch.float32 if n in wide else torch.bfloat16 for n in kinds}


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def test_bfloat16_and_autocast_give_bfloat16_close_to_float32():
    m, x = block(dtype=torch.float32, d_model=32), draw(2, 50, 32, dtype=torch.float32)
    exact = m(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = m(x, return_state=True)
    assert y.dtype == torch.bfloat16
    assert state.ssm.dtype == torch.float32
    assert relative_error(y, exact) < 2e-2
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in m.parameters())
    half = copy.deepcopy(m).to(torch.bfloat16)
    y = half(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert relative_error(y, exact) < 3e-2
    y, state = half.step(x[:, 0].bfloat16(), half.init_state(2))
    assert y.dtype == state.conv.dtype == torch.bfloat16
    assert state.ssm.dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient():
    m, x = block(), draw(2, 20, 12).requires_grad_()
    inputs = [x, *m.parameters()]
    plain = torch.autograd.grad(m(x).square().sum(), inputs)
    again = torch.autograd.grad(checkpoint(m, x, use_reentrant=False).square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


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
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(end.ssm, last.ssm, rtol=1e-4, atol=1e-5)
    if grad:
        ours, theirs = (torch.autograd.grad(v.square().sum(), [x, *m.parameters()]) for v in (y, expected))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_named_with_the_shape_it_should_have():
    m = block()
    with pytest.raises(
        ParameterError, match=r"Mamba2: x should have shape .* = \(b, L, 12\), but has \(2, 5, 11\)"
    ):
        m(draw(2, 5, 11))
    state = m.init_state(2)
    with pytest.raises(
        ParameterError, match=r"state.ssm should have shape .* \(3, 6, 4, 5\), but has \(2, 6, 4, 5\)"
    ):
        m(draw(3, 5, 12), state=state)
    with pytest.raises(ParameterError, match=r"state.conv should have shape .* \(2, 3, 34\)"):
        m.step(draw(2, 12), MambaState(state.conv[:, 1:], state.ssm))
    for options, named in [
        ({"headdim": 5}, "headdim should divide d_inner = 24, but is 5"),
        ({"ngroups": 4}, "ngroups should divide the 6 heads, but is 4"),
        ({"A_init_range": (-1, 3)}, "A_init_range"),
        ({"chunk_size": 0}, "chunk_size should be a positive whole number"),
    ]:
        with pytest.raises(ParameterError, match=named):
            block(**options)
