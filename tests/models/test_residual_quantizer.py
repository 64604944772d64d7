"""Residual quantisation: exactness, the flat case against plain RQ, gradients, learning, files, bad input."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import CheckpointError, DataError, ManifoldError, ParameterError
from workbench.manifolds import Euclidean, Lorentz, PoincareBall, make
from workbench.models.residual_quantizer import ResidualQuantizer, compose

SPACES = ("euclidean", "poincare", "lorentz")
pytestmark = pytest.mark.filterwarnings("ignore:.*levels of")
quick = settings(max_examples=15, deadline=None)


def cloud(m, n=300, d=4, seed=0, std=0.6):
    c = float(m.c) or 1.0
    g = torch.Generator().manual_seed(seed)
    return m.random(n, d, std=std / c**0.5, generator=g, dtype=torch.float64)


def fitted(m, x, **settings):
    settings = dict(levels=3, codebook_size=16) | settings
    return ResidualQuantizer(m, m.intrinsic_dim(x.shape[-1]), **settings).fit(x, iterations=5)


# -- exactness ------------------------------------------------------------------------------------------------
@quick
@given(st.sampled_from(SPACES), st.sampled_from((0.1, 1.0, 4.0)), st.integers(0, 1000))
def test_the_error_of_left_is_the_radius_of_the_last_residual_at_every_depth(name, c, seed):
    m = make(name, c)
    x = cloud(m, seed=seed, std=1.0)
    q = fitted(m, x, levels=4)
    codes = q.encode(x)
    left = q.residuals(x, codes)
    for depth in range(1, 5):
        error = m.dist(q.decode(codes[:, :depth]), x)
        assert torch.allclose(error, m.dist0(left[:, depth]), rtol=1e-12, atol=1e-12)


@quick
@given(
    st.sampled_from(SPACES),
    st.sampled_from((0.1, 1.0)),
    st.sampled_from(("left", "coadd")),
    st.integers(0, 99),
)
def test_parts_and_the_last_residual_make_the_point_again(name, c, order, seed):
    m = make(name, c)
    x = cloud(m, seed=seed)
    q = fitted(m, x, order=order)
    codes = q.encode(x)
    parts = [book[codes[:, i]] for i, book in enumerate(q.codebooks)]
    again = compose(m, order, [*parts, q.residuals(x, codes)[:, -1]])
    assert float(m.dist(again, x).max()) < 1e-12


def test_the_papers_order_does_not_make_the_point_again():
    m = PoincareBall()
    x = cloud(m, std=1.0)
    q = fitted(m, x, order="naive")
    codes = q.encode(x)
    parts = [book[codes[:, i]] for i, book in enumerate(q.codebooks)]
    again = compose(m, "naive", [*parts, q.residuals(x, codes)[:, -1]])
    assert float(m.dist(again, x).mean()) > 0.1


def test_first_codes_do_not_depend_on_the_order_and_residual_radii_agree():
    m = PoincareBall()
    x = cloud(m)
    left, right = fitted(m, x), fitted(m, x, order="coadd")
    assert torch.equal(left.encode(x)[:, 0], right.encode(x)[:, 0])
    a, b = (m.dist0(q.residuals(x)[:, 1]) for q in (left, right))
    assert torch.allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("order", ["left", "coadd", "naive"])
def test_both_charts_agree(order):
    ball, sheet = PoincareBall(0.5), Lorentz(0.5)
    v = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = ResidualQuantizer(ball, 3, 3, 8, order=order, seed=1)
    two = ResidualQuantizer(sheet, 3, 3, 8, order=order, seed=1)
    a, b = one.encode(ball.from_tangent(v)), two.encode(sheet.from_tangent(v))
    assert torch.equal(a, b)
    assert torch.allclose(ball.to_tangent(one.decode(a)), sheet.to_tangent(two.decode(b)), atol=1e-12)


# -- the flat case ----------------------------------------------------------------------------------------------
def plain_rq(x: np.ndarray, books: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Residual vector quantisation as in any textbook: codes and the sum of the code vectors."""
    codes, left = [], x.copy()
    for book in books:
        nearest = np.array([np.argmin([np.sum((row - c) ** 2) for c in book]) for row in left])
        codes.append(nearest)
        left = left - book[nearest]
    return np.stack(codes, 1), x - left


@pytest.mark.parametrize("order", ["left", "naive", "coadd", "euclid_arith"])
def test_in_flat_space_it_is_plain_residual_quantisation(order):
    m = Euclidean()
    x = cloud(m, n=120)
    q = fitted(m, x, order=order)
    codes, sums = plain_rq(x.numpy(), [book.numpy() for book in q.codebooks])
    assert (q.encode(x).numpy() == codes).all()
    assert np.allclose(q.decode(q.encode(x)).numpy(), sums, atol=1e-14)
    assert np.allclose(q(x).quantized.detach().numpy(), sums, atol=1e-14)


@pytest.mark.parametrize("order", ["left", "naive", "coadd", "euclid_arith"])
@pytest.mark.parametrize("lookup", ["manifold", "euclidean"])
def test_small_curvature_gives_the_codes_of_flat_space(order, lookup):
    """Ball coordinates are half of tangent lengths: the same figure is half as large there."""
    v = torch.randn(200, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ball = PoincareBall(1e-8)
    flat = fitted(Euclidean(), v)
    curved = fitted(ball, ball.from_tangent(v), order=order, lookup=lookup)
    codes = curved.encode(ball.from_tangent(v))
    assert torch.equal(codes, flat.encode(v))
    assert torch.allclose(ball.to_tangent(curved.decode(codes)), flat.decode(codes), atol=1e-6)


# -- numerics ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", ["left", "naive", "coadd", "euclid_arith"])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_nothing_becomes_nan_at_the_rim_of_the_ball(order, update):
    m = PoincareBall()
    angle = torch.linspace(0, 6.2, 64, dtype=torch.float64)
    x = (torch.stack([angle.cos(), angle.sin()], -1) * (1 - 1e-8)).requires_grad_()
    q = ResidualQuantizer(m, 2, 3, 8, order=order, update=update, max_radius=15.0)
    for _ in range(3):
        out = q(x)
        (m.to_tangent(out.quantized).square().sum() + out.losses.sum()).backward()
        assert all(torch.isfinite(t).all() for t in (out.quantized, out.losses, x.grad))
        assert float(m.check(out.quantized.detach()).norm(dim=-1).max()) < 1
    assert all(torch.isfinite(p.grad).all() for p in q.parameters() if p.requires_grad)
    assert int(q.clipped) >= 3 * 64  # every point of every batch was pulled in, and said so


def test_codes_of_far_points_are_finite_and_good_without_clipping():
    m = PoincareBall()
    x = m.random(400, 2, radius=18.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = fitted(m, x, codebook_size=32)
    assert int(q.clipped) == 0
    error = m.dist(q.decode(q.encode(x)), x)
    assert torch.isfinite(error).all()
    assert float(error.mean()) < 4


def test_float32_points_get_the_codes_of_float64_points_up_to_near_ties():
    m = PoincareBall()
    x = cloud(m, n=3000, d=8).float()
    q = fitted(m, x.double(), codebook_size=64)
    same = (q.encode(x) == q.encode(x.double())).all(-1).double().mean()
    assert same > 0.999


def test_a_model_cast_to_another_dtype_still_quantises_in_float64():
    m = PoincareBall()
    x = cloud(m)
    q = fitted(m, x)
    before = q.encode(x)
    assert torch.equal(q.half().encode(x), before)
    assert all(book.dtype == torch.float64 for book in q.codebooks)
    out = q(x.float())
    assert out.quantized.dtype == torch.float32
    assert out.codes.dtype == torch.int64


def test_shapes_follow_the_points_and_prefixes_are_coarser():
    m = Lorentz()
    x = cloud(m, n=60)
    q = ResidualQuantizer(m, 4, 3, (4, 8, 16)).fit(x)
    out = q(x.reshape(3, 4, 5, 5))
    assert out.quantized.shape == (3, 4, 5, 5)
    assert out.codes.shape == (3, 4, 5, 3)
    assert out.losses.shape == (3,)
    assert [len(book) for book in q.codebooks] == [4, 8, 16]
    assert q.radii(x).shape == (60, 4)
    assert torch.equal(q.get_output_from_indices(out.codes), q.decode(out.codes))
    errors = [float(m.dist(q.decode(q.encode(x)[:, :j]), x).mean()) for j in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    assert q.encode(x[:0]).shape == (0, 3)


# -- gradients --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_passes_straight_through_in_tangent_vectors(name):
    m = make(name)
    x = cloud(m)
    q = fitted(m, x).eval()
    v = m.to_tangent(x).requires_grad_()
    weight = torch.randn(v.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (m.to_tangent(q(m.from_tangent(v)).quantized) * weight).sum().backward()
    assert torch.allclose(v.grad, weight, rtol=1e-6, atol=1e-8)


def test_in_flat_space_the_gradient_is_the_identity_and_only_the_first_commitment_is_not_shared():
    m = Euclidean()
    x = cloud(m).requires_grad_()
    q = fitted(m, x.detach()).eval()
    out = q(x)
    (g,) = torch.autograd.grad(out.quantized.sum(), x, retain_graph=True)
    assert torch.equal(g, torch.ones_like(x))
    (g,) = torch.autograd.grad(out.losses.sum(), x)
    left = q.residuals(x.detach())
    expected = 2 * 0.25 * left[:, 1:].sum(1) / len(x)
    assert torch.allclose(g, expected, atol=1e-14)


@pytest.mark.parametrize("name", SPACES)
def test_losses_are_weighted_squared_distances(name):
    m = make(name)
    x = cloud(m)
    for update, weight in (("ema", 0.4), ("gradient", 1.4)):
        q = fitted(m, x, update=update, commitment=0.4).eval()
        codes = q.encode(x)
        left = q.residuals(x, codes)
        expected = [m.dist2(left[:, i], q.codebooks[i][codes[:, i]]).mean() * weight for i in range(3)]
        assert torch.allclose(q(x).losses, torch.stack(expected), rtol=1e-10)


def test_an_optimiser_lowers_the_error_of_gradient_codebooks():
    m = PoincareBall()
    x = cloud(m)
    q = ResidualQuantizer(m, 4, 3, 16, update="gradient", revive_below=0)
    q.fit(x, iterations=1)
    optimiser = torch.optim.Adam(q.parameters(), lr=0.01)
    errors = []
    for _ in range(40):
        optimiser.zero_grad()
        out = q(x)
        out.losses.sum().backward()
        optimiser.step()
        errors.append(float(m.dist(out.quantized, x).mean()))
    assert errors[-1] < 0.97 * errors[0]


def test_a_learnable_curvature_gets_a_finite_gradient():
    m = PoincareBall(1.0, learnable=True)
    x = cloud(PoincareBall())
    q = ResidualQuantizer(m, 4, 2, 8, update="gradient")
    q(x).losses.sum().backward()
    assert torch.isfinite(m.log_c.grad) and float(m.log_c.grad) != 0


def test_two_batches_may_be_quantised_before_one_backward_pass():
    m = PoincareBall()
    q = ResidualQuantizer(m, 4, 2, 8, update="gradient", revive_below=0.9)
    a = cloud(m).requires_grad_()
    (q(a).losses.sum() + q(cloud(m, seed=1)).losses.sum()).backward()
    assert torch.isfinite(a.grad).all()


# -- learning ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPACES)
def test_moving_averages_are_of_moments_and_codes_their_centroids(name):
    """An independent average: of all batches with weights, the centroid taken once."""
    m = make(name)
    decay = 0.8
    q = ResidualQuantizer(m, 4, 1, 2, decay=decay, revive_below=0)
    first, second = cloud(m, n=50), cloud(m, n=50, seed=1)
    q.fit(first)
    start = q.encode(first)[:, 0]
    q(second)
    now = torch.cat([start, m.dist(second.unsqueeze(1), ResidualQuantizer.fit(
        ResidualQuantizer(m, 4, 1, 2, seed=0), first).codebooks[0]).argmin(-1)])  # fmt: skip
    w = torch.cat([torch.full((50,), decay), torch.full((50,), 1 - decay)]).double()
    x = torch.cat([first, second])
    for j in range(2):
        expected = m.centroid(x[now == j], w[now == j])
        assert float(m.dist(q.codebooks[0][j], expected)) < 1e-9
    assert float(q.books[0].usage.sum()) == pytest.approx(1)


def test_evaluation_changes_nothing_and_training_does():
    m = PoincareBall()
    q = fitted(m, cloud(m)).eval()
    before = {k: v.clone() for k, v in q.state_dict().items()}
    q(cloud(m, seed=1))
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())
    q.train()(cloud(m, seed=1))
    assert not torch.equal(q.books[0].tangent, before["books.0.tangent"])


def test_the_first_training_batch_fits_the_codebooks():
    m = PoincareBall()
    x = cloud(m)
    a, b = ResidualQuantizer(m, 4), ResidualQuantizer(m, 4).fit(x)
    codes = a(x).codes
    assert torch.equal(codes, b.encode(x))
    assert bool(a.fitted)


def test_an_empty_batch_teaches_nothing():
    m = PoincareBall()
    q = fitted(m, cloud(m))
    before = {k: v.clone() for k, v in q.state_dict().items()}
    out = q(torch.zeros(0, 4))
    assert out.codes.shape == (0, 3) and out.losses.tolist() == [0, 0, 0]
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_dead_code_is_put_on_a_residual_of_its_own_level(update):
    m = PoincareBall()
    x = cloud(m)
    q = fitted(m, x, update=update, revive_below=0.5)
    q.books[1].usage[3] = 0.0
    with torch.no_grad():
        q.books[1].tangent[3] = 9.0
    first = q.books[0].points().detach()
    level_two = m.translate_to_origin(x, first[q.encode(x)[:, 0]])
    revived = q.books[1].revive(level_two, 0.5, torch.Generator().manual_seed(0))
    assert revived == 1
    assert float(m.dist(q.codebooks[1][3], level_two).min()) < 1e-9
    assert float(q.books[1].usage[3]) == pytest.approx(1 / 16)


def test_dead_codes_come_back_in_training_and_fresh_ones_are_left_alone():
    m = PoincareBall()
    x = cloud(m)
    q = fitted(m, x, decay=0.5, revive_below=0.2)
    q(x)
    assert int(q.revived) == 0  # usage starts at what k-means left, not at 0
    with torch.no_grad():
        q.books[0].tangent[:8] = 50.0  # beyond every point
        q.books[0].moments[:8] = m.moments(q.books[0].points()[:8]) * 1e-3
        q.books[0].usage[:8] = 0
    q(x)
    assert int(q.revived) == 8
    assert q.stats(q.encode(x)).used[0] == 16


def test_training_is_the_same_run_after_a_file(tmp_path):
    m = PoincareBall()

    def steps(q, which):
        for i in which:
            q(cloud(m, seed=i))

    one = ResidualQuantizer(m, 4, 2, 16, revive_below=0.9, decay=0.7)
    steps(one, range(6))
    two = ResidualQuantizer(m, 4, 2, 16, revive_below=0.9, decay=0.7)
    steps(two, range(3))
    two.save(tmp_path / "q.safetensors")
    two = ResidualQuantizer.load(tmp_path / "q.safetensors")
    steps(two, range(3, 6))
    a, b = one.state_dict(), two.state_dict()
    assert int(one.revived) > 0
    assert all(torch.equal(a[k], b[k]) for k in a)


# -- files ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_file_gives_everything_back_bit_for_bit(name, update, tmp_path):
    m = make(name, 0.3)
    x = cloud(m)
    q = fitted(m, x, update=update, codebook_size=(4, 8, 16))
    q.save(tmp_path / "q.safetensors")
    again = ResidualQuantizer.load(tmp_path / "q.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(q.codebooks, again.codebooks, strict=True))
    assert torch.equal(q.encode(x), again.encode(x))
    assert again.settings() == q.settings()
    state = again.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in q.state_dict().items())


def test_broken_files_are_one_sentence(tmp_path):
    from workbench.files import save_tensors

    path = tmp_path / "other.safetensors"
    save_tensors(path, {"a": torch.zeros(1)}, {"kind": "something"})
    with pytest.raises(CheckpointError, match="not a residual quantiser"):
        ResidualQuantizer.load(path)
    save_tensors(path, {"a": torch.zeros(1)}, {"kind": "residual quantizer", "settings": {"c": 1.0}})
    with pytest.raises(CheckpointError, match="holds no whole residual quantiser"):
        ResidualQuantizer.load(path)


def test_points_beyond_the_capacity_are_told_once():
    m = PoincareBall()
    q = ResidualQuantizer(m, 8, 1, 4)
    with pytest.warns(UserWarning, match="need"):
        q.fit(cloud(m, d=8, std=2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q(cloud(m, d=8, std=2.0))
        ResidualQuantizer(m, 2, 3, 16).fit(cloud(m, d=2))


# -- bad input --------------------------------------------------------------------------------------------------
BALL = PoincareBall()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda q: q.fit(torch.zeros(10, 3)), DataError, "codebook of 16 codes needs as many points or more, got 10"),
        (lambda q: q(torch.zeros(10, 3)), DataError, "codebook of 16 codes needs"),
        (lambda q: q.encode(torch.full((10, 3), torch.nan)), ManifoldError, "NaN or infinity in 10 of 10"),
        (lambda q: q(torch.full((10, 3), torch.inf)), ManifoldError, "NaN or infinity in 10 of 10"),
        (lambda q: q.encode(torch.ones(10, 3)), ManifoldError, r"c\|x\|² must be below 1, got 3"),
        (lambda q: q.encode(torch.zeros(10, 4)), ManifoldError, "have 3 coordinates, got shape"),
        (lambda q: q.encode(torch.zeros(10, 3, dtype=torch.int64)), ManifoldError, "floating point"),
        (lambda q: q.decode(torch.tensor([[0, 16]])), DataError, "codes of level 2 run from 0 to 15, got 16"),
        (lambda q: q.decode(torch.tensor([-1])), DataError, "codes of level 1 run from 0 to 15, got -1"),
        (lambda q: q.decode(torch.tensor([0, 0, 0, 0])), DataError, "from 1 to 3 entries"),
        (lambda q: q.decode(torch.tensor([0.0])), DataError, "whole numbers"),
        (lambda q: ResidualQuantizer(BALL, 0), ParameterError, "dim must be a positive whole number"),
        (lambda q: ResidualQuantizer(BALL, 3, 2, (4, 4, 4)), ParameterError, "2 of them"),
        (lambda q: ResidualQuantizer(BALL, 3, order="lef"), ParameterError, "did you mean 'left'"),
        (lambda q: ResidualQuantizer(BALL, 3, decay=1.0), ParameterError, "decay must be"),
        (lambda q: ResidualQuantizer(BALL, 3, commitment=-1.0), ParameterError, "must not be below 0"),
        (lambda q: ResidualQuantizer(BALL, 3, max_radius=0.0), ParameterError, "max_radius must be positive"),
        (lambda q: ResidualQuantizer(Lorentz(), 3, order="euclid_arith"), ParameterError, "use the ball"),
        (lambda q: ResidualQuantizer(Lorentz(), 3, lookup="euclidean"), ParameterError, "use the ball"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_changes_nothing(call, error, says):
    q = ResidualQuantizer(BALL, 3, 3, 16)
    before = {k: v.clone() for k, v in q.state_dict().items()}
    with pytest.raises(error, match=says) as caught:
        call(q)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in q.state_dict().items())


def test_points_off_the_hyperboloid_are_told():
    q = ResidualQuantizer(Lorentz(), 3)
    with pytest.raises(ManifoldError, match="time coordinate"):
        q.encode(torch.ones(5, 4))
