"""HypLoRA is LoRA times a gate: against the path through the manifold, LoRA itself and the released code."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workbench.manifolds import Lorentz
from workbench.models.hyplora import DoRALinear, HypLoRALinear, LoRALinear
from workbench.models.hyplora_gate import hyplora_update

D, OUT, R = 12, 9, 3
CASES = [
    {},
    {"K": 0.3, "s": 2.5},
    {"variant": "literal", "K": 2.0, "t_max": 40.0},
    {"s": "learnable", "rescale": False},
]
RELEASED = [
    {"variant": "official"},
    {"variant": "official", "K": 0.5},
    {"variant": "stereographic", "K": 0.5},
]


def layer(kind=HypLoRALinear, seed=0, size=0.5, dtype=torch.float64, d=D, out=OUT, **options):
    """An adapted layer with B away from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = nn.Linear(d, out).to(dtype)
    adapted = kind(base, R, 6, generator=generator, **options)
    B = adapted.hyplora_B if kind is HypLoRALinear else adapted.lora_B
    with torch.no_grad():
        B.copy_(size * torch.randn(B.shape, generator=generator))
    return adapted


def tokens(*shape, seed=1, size=1.0, dtype=torch.float64):
    return size * torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def through_the_manifold(m, x):
    """exp at the origin, BA on the spatial part, log: the update as the paper writes it, with s put in and out."""
    s = m.settings.scale(m.hyplora_s, D)
    K = float(m.K.detach())
    space = Lorentz(1 / K)
    point = space.from_tangent(x / s)
    moved = point[..., 1:] @ m.hyplora_A.mT @ m.hyplora_B.mT
    time = (moved.square().sum(-1, keepdim=True) + K).sqrt()
    back = space.to_tangent(torch.cat([time, moved], -1))
    return m.scaling * back * (s if m.settings.rescale else 1.0)


# -- the formula -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_gate_is_the_path_through_the_hyperboloid(options):
    m, x = layer(**options), tokens(2, 20)
    want = through_the_manifold(m, x)
    assert torch.allclose(m.update(x), want, rtol=1e-12, atol=1e-12 * float(want.detach().abs().max()))


@settings(max_examples=30, deadline=None)
@given(K=st.floats(0.05, 50), size=st.floats(1e-6, 30), grow=st.floats(1e-6, 30), seed=st.integers(0, 99))
def test_it_is_so_at_any_curvature_and_size(K, size, grow, seed):
    m, x = layer(seed=seed, size=grow, K=K, t_max=300.0), tokens(5, seed=seed + 1, size=size)
    want = through_the_manifold(m, x).detach()
    assert torch.allclose(m.update(x), want, rtol=1e-10, atol=1e-12 * float(want.abs().max()))


def test_flat_space_is_lora():
    m, x = layer(K=1e14), tokens(30)
    lora = m.scaling * F.linear(F.linear(x, m.hyplora_A), m.hyplora_B)
    assert torch.allclose(m.update(x), lora, rtol=1e-12)
    assert torch.allclose(m.gate(x), torch.ones(30, dtype=torch.float64), atol=1e-12)


def test_through_the_tangent_space_nothing_but_lora_is_left():
    """exp and log cancel when BA acts on tangent vectors: why the paper acts on coordinates."""
    m, x = layer(), tokens(6)
    space = Lorentz(0.7)
    tangent = space.to_tangent(space.from_tangent(x)) @ m.hyplora_A.mT @ m.hyplora_B.mT
    assert torch.allclose(space.to_tangent(space.from_tangent(tangent)), x @ (m.hyplora_B @ m.hyplora_A).mT)


@pytest.mark.parametrize("options", CASES + RELEASED, ids=str)
def test_the_direction_is_always_loras(options):
    m, x = layer(**options), tokens(50)
    lora = x @ (m.hyplora_B @ m.hyplora_A).mT
    assert torch.allclose(F.cosine_similarity(m.update(x), lora, dim=-1), torch.ones(50, dtype=torch.float64))
    assert torch.allclose(m.update(x), m.scaling * m.gate(x)[:, None] * lora)


def test_the_gate_grows_with_the_input_and_falls_with_the_update():
    """φ = 1 + (‖x‖² - ‖BAx‖²)/(6 s² K) + O(4), which has a term that the paper's appendix E lacks."""
    m, x = layer(K=3.0), tokens(40, size=1e-2)
    y = x @ (m.hyplora_B @ m.hyplora_A).mT
    expected = (x.square().sum(-1) - y.square().sum(-1)) / (6 * D * 3.0)
    assert torch.allclose(m.gate(x) - 1, expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("K", [0.1, 0.5, 1.0, 7.3])
def test_k_starts_exactly_where_it_should(K):
    for dtype in (torch.float32, torch.float64):
        assert layer(K=K, dtype=dtype).K.item() == K


# -- gradients ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", CASES + RELEASED, ids=str)
def test_gradients_are_those_of_finite_differences(options):
    m = layer(size=0.8, **options)
    parts = [m.hyplora_A, m.hyplora_B, m.hyplora_k] + ([m.hyplora_s] if m.hyplora_s is not None else [])

    def update(x, A, B, k, s=None):
        return hyplora_update(x, A, B, k, s, m.settings, m.scaling)

    for size in (0.3, 3.0):
        x = tokens(2, 2, size=size).requires_grad_()
        assert torch.autograd.gradcheck(update, (x, *parts), atol=1e-6, rtol=1e-4)


def test_gradients_keep_their_digits_near_zero():
    """Against autograd through the manifold, which takes series near 0."""
    for size in (1e-9, 1e-5, 1e-3, 1e-2):
        for grow in (1e-6, 1e-2, 1.0):
            m, x = layer(size=grow), tokens(4, size=size).requires_grad_()
            weight = tokens(4, seed=7)[:, :OUT]
            ours = torch.autograd.grad((m.update(x) * weight).sum(), (x, m.hyplora_A, m.hyplora_B))
            path = torch.autograd.grad(
                (through_the_manifold(m, x) * weight).sum(), (x, m.hyplora_A, m.hyplora_B)
            )
            for a, b in zip(ours, path, strict=True):
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-11 * float(b.abs().max()))


def test_beyond_the_limit_the_input_gate_is_constant():
    m, x = layer(t_max=0.5, size=1e-9), tokens(3, size=10.0).requires_grad_()
    assert torch.allclose(m.gate(x), torch.full((3,), math.sinh(0.5) / 0.5, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: layer(t_max=0.5).update(x), x)


def test_at_the_start_gradients_are_loras_times_a():
    """B = 0: the layer is its base, and B's gradient is sinh(t)/t of each token times LoRA's."""
    m, lora = layer(size=0.0, K=1.0), layer(LoRALinear, size=0.0)
    x = F.normalize(tokens(20), dim=-1) * math.sqrt(D)  # t = 1
    assert torch.equal(m(x), m.base_layer(x))
    for each in (m, lora):
        (each(x) * tokens(20, seed=3)[:, :OUT]).sum().backward()
    assert torch.allclose(m.hyplora_B.grad, math.sinh(1.0) * lora.lora_B.grad, rtol=1e-12)
    assert not m.hyplora_A.grad.any()
    assert not m.hyplora_k.grad.any()


@pytest.mark.parametrize("options", CASES + RELEASED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nothing_is_infinite_at_zero_or_at_huge_inputs(options, dtype):
    m = layer(dtype=dtype, **options)
    x = (
        torch.stack([torch.zeros(D), torch.full((D,), 6e4), torch.full((D,), 1e-7)])
        .to(dtype)
        .requires_grad_()
    )
    assert m.hyplora_A.dtype == torch.float32
    y = m.update(x)
    y.sum().backward()
    grads = [p.grad for p in m.parameters() if p.requires_grad]
    if m.settings.variant != "official":  # whose floor makes slopes at 1e-7 that float16 does not hold
        grads.append(x.grad)
    assert all(torch.isfinite(g).all() for g in (y, *grads))
    assert m(x.detach() / 1e3).dtype == dtype
    if dtype == torch.float32 and m.settings.variant in ("exp", "literal"):
        assert torch.isfinite(m.update(torch.full((1, D), 1e15))).all()


def test_autocast_does_not_reach_the_update():
    m, x = layer(dtype=torch.float32), tokens(5, dtype=torch.float32).requires_grad_()
    want = torch.autograd.grad(m.update(x).sum(), m.hyplora_A, retain_graph=True)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m(x)
        update = m.update(x)
        got = torch.autograd.grad(update.sum(), m.hyplora_A)[0]
    assert y.dtype == torch.bfloat16
    assert torch.equal(update, m.update(x))
    assert torch.equal(got, want)


def saved_bytes(m, x):
    """Bytes that the update keeps for its backward pass, each storage once, parameters not counted."""
    own, kept = {p.data_ptr() for p in m.parameters()}, {}

    def pack(t):
        if t.data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        m.update(x).sum()
    return sum(kept.values())


@pytest.mark.parametrize(("d", "dtype"), [(96, torch.float32), (1024, torch.float32), (1024, torch.bfloat16)])
def test_no_more_is_kept_for_the_backward_pass_than_loras(d, dtype):
    x = torch.randn(256, d, dtype=dtype)
    ours = saved_bytes(layer(d=d, out=4 * d, dtype=dtype), x)
    assert ours <= 1.05 * saved_bytes(layer(LoRALinear, d=d, out=4 * d, dtype=dtype), x)


def test_it_compiles_without_a_break():
    torch.compiler.reset()
    m, x = layer(dtype=torch.float32), tokens(4, dtype=torch.float32)
    fast = torch.compile(m, backend="aot_eager", fullgraph=True)
    fast(x).sum().backward()
    slow = copy.deepcopy(m)
    slow.zero_grad()
    slow(x).sum().backward()
    assert torch.allclose(m.hyplora_A.grad, slow.hyplora_A.grad, rtol=1e-5)


# -- the released code -------------------------------------------------------------------------------------
def test_the_released_gate_has_a_dead_zone_above_k_one():
    """Raw K = 1 is K = 1.313: below ‖z‖ = √(K - 1/K) every update has length √K √2e-6, whatever its size."""
    m = layer(variant="official", K=1.0)
    K = math.log1p(math.e) + 1e-6
    assert math.isclose(m.K.item(), K, rel_tol=1e-12)
    assert math.isclose(math.sqrt(K - 1 / K), 0.743, abs_tol=1e-3)
    lengths = [m.update(tokens(5, size=size)).norm(dim=-1) / m.scaling for size in (1e-5, 1e-3, 1e-1)]
    assert torch.allclose(torch.stack(lengths), torch.tensor(math.sqrt(K * 2e-6), dtype=torch.float64))
    assert math.isclose(math.sqrt(K * 2e-6), 0.00162, rel_tol=1e-3)


def test_the_released_gate_has_a_floor_below_k_one():
    m = layer(variant="official", K=0.5)
    lengths = m.update(tokens(50, size=1e-5)).norm(dim=-1) / m.scaling
    assert torch.allclose(lengths, torch.full_like(lengths, 0.2272), rtol=1e-3)


@pytest.mark.parametrize(("K", "times"), [(1.0, 287.0), (0.5, 41919.0)])
def test_the_released_gate_starts_with_gradients_hundreds_of_times_loras(K, times):
    d = 4096
    m, lora = layer(variant="official", K=K, size=0.0, d=d), layer(LoRALinear, size=0.0, d=d)
    x = torch.randn(30, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for each in (m, lora):
        (each(x) * torch.randn(30, OUT, generator=torch.Generator().manual_seed(6))).sum().backward()
    assert math.isclose(float(m.hyplora_B.grad.norm() / lora.lora_B.grad.norm()), times, rel_tol=0.05)


def test_the_released_stereographic_update_is_small_for_large_tokens():
    m = layer(variant="stereographic", K=0.5, size=1e-6)
    size = {n: m.update(F.normalize(tokens(1), dim=-1) * n).norm().item() for n in (1, 10, 64)}
    # 2n/(1 + n²/2)
    assert math.isclose(size[10] / size[1], 0.392 / 1.333, rel_tol=1e-2)
    assert math.isclose(size[64] / size[1], 0.0625 / 1.333, rel_tol=1e-2)


# -- LoRA and DoRA -----------------------------------------------------------------------------------------
def test_dora_is_its_base_at_the_start_and_scales_rows():
    m, x = layer(DoRALinear, size=0.0), tokens(7)
    assert torch.equal(m(x), m.base_layer(x))
    with torch.no_grad():
        m.lora_B.normal_(generator=torch.Generator().manual_seed(2))
        m.lora_magnitude_vector *= 1.5
    whole = m.base_layer.weight + m.scaling * m.lora_B @ m.lora_A
    want = m.lora_magnitude_vector[:, None] * F.normalize(whole, dim=1)
    assert torch.allclose(m(x), F.linear(x, want, m.base_layer.bias))
    assert torch.allclose(m.merged(), want)


def test_rank_stabilised_scaling_divides_by_the_root():
    assert layer(rslora=True).scaling == 6 / math.sqrt(R)
    assert layer().scaling == 6 / R
