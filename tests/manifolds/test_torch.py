"""The spaces inside torch: modules, dtypes, compilation, autocast, geoopt's optimisers, CUDA."""

import copy

import geoopt
import pytest
import torch

from workbench.manifolds import (
    Euclidean,
    Lorentz,
    PoincareBall,
    lorentz_to_poincare,
    make,
    poincare_to_lorentz,
)

CURVED = ("poincare", "lorentz")
ALL = (*CURVED, "euclidean")
gpu = pytest.mark.gpu


class Model(torch.nn.Module):
    """A little of everything a model does with a space."""

    def __init__(self, name, c=0.7, learnable=False):
        super().__init__()
        self.space = make(name, c, learnable)

    def forward(self, v, w):
        m = self.space
        x, y = m.from_tangent(v), m.from_tangent(w)
        z = m.geodesic(0.3, m.add(x, m.neg(y)), m.scale(0.5, y))
        z = m.expmap(z, m.transp(x, z, m.logmap(x, y)))
        middle = m.centroid(z)
        return m.dist(x, z) + m.dist0(z) + m.cdist(x, y).sum(-1) + m.to_tangent(middle).sum()


def inputs(dtype=torch.float64, device="cpu"):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, generator=g, dtype=torch.float64).to(device, dtype) for _ in range(2)]


def gradients(f, v, w, parameters=()):
    v, w = v.clone().requires_grad_(), w.clone().requires_grad_()
    out = f(v, w)
    return [out, *torch.autograd.grad(out.sum(), [v, w, *parameters])]


@pytest.mark.parametrize(("name", "dtype"), (("poincare", torch.float32), ("lorentz", torch.float64)))
def test_everything_traces_as_one_graph(name, dtype):
    model = Model(name, learnable=True)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for ours, theirs in zip(
        gradients(compiled, *inputs(dtype)), gradients(model, *inputs(dtype)), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-5 if dtype == torch.float32 else 1e-11)


def test_one_compiled_function_serves_many_curvatures():
    torch._dynamo.reset()
    compiled = torch.compile(lambda m, v: m.dist0(m.from_tangent(v)), fullgraph=True, backend="eager")
    v, _ = inputs()
    for c in (1.0, 0.3, 7.0, 1e-6):
        for name in CURVED:
            assert torch.allclose(compiled(make(name, c), v), v.norm(dim=-1), rtol=1e-12)


@pytest.mark.parametrize("name", CURVED)
def test_fused_kernels_do_not_undo_the_error_free_sums(name):
    """Near pairs at radius 20."""
    m = make(name, 0.7)
    v, w = inputs()
    v = v / v.norm(dim=-1, keepdim=True) * 20
    x, y = m.from_tangent(v), m.add(m.from_tangent(v), m.from_tangent(0.1 * w))
    torch._dynamo.reset()
    compiled = torch.compile(m.dist, fullgraph=True)
    assert torch.allclose(compiled(x, y), m.dist(x, y), rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
def test_autocast_changes_nothing(name, dtype):
    model = Model(name, learnable=True)
    expected = gradients(model, *inputs(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gradients(model, *inputs(dtype))
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("low", (torch.bfloat16, torch.float16), ids=("bfloat16", "float16"))
def test_low_precision_activations_become_float32_points(name, low):
    m = make(name)
    v = torch.randn(4, 3).to(low)
    x = m.from_tangent(v)
    assert x.dtype == torch.float32
    assert torch.allclose(m.dist0(x), v.float().norm(dim=-1), rtol=1e-4)


@pytest.mark.parametrize("cls", (PoincareBall, Lorentz))
@pytest.mark.parametrize("c", (1e-6, 0.1, 1.0, 1e4))
def test_fixed_curvature_is_exact_through_casts_copies_and_checkpoints(cls, c):
    class Holder(torch.nn.Module):
        def __init__(self, c):
            super().__init__()
            self.space, self.layer = cls(c), torch.nn.Linear(2, 2)

    holder = Holder(c)
    for moved in (holder.half(), holder.to(torch.float32), holder.bfloat16(), copy.deepcopy(holder)):
        assert moved.space.c.dtype == torch.float64
        assert moved.space.c.item() == c
    other = Holder(3.0)
    other.load_state_dict(holder.state_dict())
    assert other.space.c.item() == c
    point = other.space.from_tangent(torch.tensor([0.3 / c**0.5, 0.0], dtype=torch.float64))
    assert torch.allclose(
        other.space.dist0(point) * c**0.5, torch.tensor(0.3, dtype=torch.float64), rtol=1e-14
    )
    assert list(holder.space.parameters()) == []


@pytest.mark.parametrize("cls", (PoincareBall, Lorentz))
def test_learnable_curvature_stays_positive_and_survives_casts(cls):
    m = cls(1e-6, learnable=True)
    assert m.c.item() == pytest.approx(1e-6, rel=1e-14)
    m.half()
    assert m.log_c.dtype == torch.float64
    m = cls(1.0, learnable=True)
    optimiser = torch.optim.SGD(m.parameters(), lr=5.0)
    v = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = cls(0.25)
    start = None
    for _ in range(60):
        optimiser.zero_grad()
        got = m.dist(m.from_tangent(v), m.from_tangent(v.roll(1, 0)))
        want = target.dist(target.from_tangent(v), target.from_tangent(v.roll(1, 0)))
        loss = (got - want).square().mean()
        start = start or loss.item()
        loss.backward()
        optimiser.step()
        assert m.c.item() > 0
    assert loss.item() < 0.02 * start
    again = cls(5.0, learnable=True)
    again.load_state_dict(m.state_dict())
    assert again.c.item() == m.c.item()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("optimiser", (geoopt.optim.RiemannianSGD, geoopt.optim.RiemannianAdam))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=("float32", "float64"))
def test_geoopt_optimisers_reach_the_target_and_stay_on_the_manifold(name, optimiser, dtype):
    m = make(name, 0.7)
    g = torch.Generator().manual_seed(0)
    target = m.random(6, 3, std=2.0, generator=g, dtype=dtype)
    x = geoopt.ManifoldParameter(m.random(6, 3, std=0.1, generator=g, dtype=dtype), manifold=m)
    options = {"momentum": 0.5} if optimiser is geoopt.optim.RiemannianSGD else {}
    steps = optimiser([x], lr=0.1, stabilize=10, **options)
    for _ in range(150):
        steps.zero_grad()
        m.dist2(x, target).sum().backward()
        steps.step()
        assert x.dtype == dtype
    m.check(x.detach())
    assert m.dist(x, target).max() < 0.05


@pytest.mark.parametrize("name", CURVED)
def test_sparse_optimiser_moves_only_the_rows_it_is_given(name):
    m = make(name)
    table = geoopt.ManifoldParameter(m.random(10, 2, dtype=torch.float64), manifold=m)
    before = table.detach().clone()
    steps = geoopt.optim.SparseRiemannianSGD([table], lr=0.1)
    rows = torch.nn.functional.embedding(torch.tensor([1, 4]), table, sparse=True)
    m.dist(rows[0], rows[1]).backward()
    steps.step()
    moved = (table.detach() != before).any(-1)
    assert moved.nonzero().flatten().tolist() == [1, 4]
    m.check(table.detach())
    assert m.dist(table[1], table[4]) < m.dist(before[1], before[4])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    ((PoincareBall(0.7), geoopt.PoincareBall(0.7)), (Lorentz(0.7), geoopt.Lorentz(1 / 0.7))),
)
def test_near_the_origin_everything_agrees_with_geoopt(ours, theirs):
    theirs.double()
    g = torch.Generator().manual_seed(0)
    x, y, z = (ours.random(5, 3, std=0.5, generator=g, dtype=torch.float64) for _ in range(3))
    u = ours.logmap(x, z)
    same = {
        "dist": lambda m: m.dist(x, y, keepdim=True),
        "dist0": lambda m: m.dist0(x),
        "logmap": lambda m: m.logmap(x, y),
        "logmap0": lambda m: m.logmap0(x),
        "expmap": lambda m: m.expmap(x, u),
        "expmap0": lambda m: m.expmap0(ours.logmap0(y)),
        "transp": lambda m: m.transp(x, y, u),
        "transp0": lambda m: m.transp0(y, ours.logmap0(x)),
        "transp0back": lambda m: m.transp0back(x, u),
        "inner": lambda m: m.inner(x, u, u, keepdim=True),
        "egrad2rgrad": lambda m: m.egrad2rgrad(x, z),
        "proju": lambda m: m.proju(x, z),
        "origin": lambda m: m.origin(2, x.shape[-1], dtype=torch.float64),
        "projx": lambda m: m.projx(x),
    }
    if ours.name == "poincare":
        matrix, w = torch.randn(2, 3, generator=g, dtype=torch.float64), torch.rand(5, generator=g).double()
        half = torch.tensor(0.5, dtype=torch.float64)
        same |= {
            "geodesic": lambda m: m.geodesic(half, x, y),
            "lambda_x": lambda m: m.lambda_x(x),
            "mobius_add": lambda m: m.mobius_add(x, y),
            "mobius_sub": lambda m: m.mobius_sub(x, y),
            "mobius_coadd": lambda m: m.mobius_coadd(x, y),
            "mobius_cosub": lambda m: m.mobius_cosub(x, y),
            "mobius_scalar_mul": lambda m: m.mobius_scalar_mul(half, x),
            "mobius_matvec": lambda m: m.mobius_matvec(matrix, x),
            "mobius_pointwise_mul": lambda m: m.mobius_pointwise_mul(y, x),
            "mobius_fn_apply": lambda m: m.mobius_fn_apply(torch.sin, x),
            "mobius_fn_apply_chain": lambda m: m.mobius_fn_apply_chain(x, torch.sin, torch.tanh),
            "gyration": lambda m: m.gyration(x, y, z),
            "dist2plane": lambda m: m.dist2plane(x, y, z, signed=True, scaled=True),
            "weighted_midpoint": lambda m: m.weighted_midpoint(x, w),
        }
    for operation, f in same.items():
        assert torch.allclose(f(ours), f(theirs), rtol=1e-5, atol=1e-7), operation


def test_geoopt_finds_our_subclasses():
    assert isinstance(PoincareBall(), geoopt.PoincareBall)
    assert isinstance(Lorentz(), geoopt.Lorentz)
    assert isinstance(Euclidean(), geoopt.Euclidean)
    assert PoincareBall(4.0).k.item() == -4.0
    assert Lorentz(4.0).k.item() == 0.25


def test_cdist_and_its_gradient_compile_to_matrix_products():
    m = make("lorentz", learnable=True)
    x, y = (m.from_tangent(v).detach() for v in inputs())
    torch._dynamo.reset()
    compiled = torch.compile(m.cdist, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(gradients(compiled, x, y), gradients(m.cdist, x, y), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_cuda_agrees_with_the_cpu_eager_compiled_and_under_autocast(name):
    model = Model(name, learnable=name != "euclidean")
    expected = gradients(model, *inputs())
    model = model.to("cuda")
    torch._dynamo.reset()
    for f in (model, torch.compile(model, fullgraph=True)):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            got = gradients(f, *inputs(device="cuda"))
        for ours, theirs in zip(got, expected, strict=True):
            assert torch.allclose(ours.cpu(), theirs, rtol=1e-9)
    x = poincare_to_lorentz(torch.rand(4, 2, device="cuda") / 2)
    assert lorentz_to_poincare(x).device.type == "cuda"
