"""HRQ models: flat space is RQ-VAE, codes and features go round, scale is held, files, bad input."""

import pytest
import torch

from workbench.errors import CheckpointError, DataError, ManifoldError, ParameterError
from workbench.models.hrq import HRQVAE, LAYERS, HRQConfig, HRQTable

SPACES = ("euclidean", "poincare", "lorentz")
pytestmark = pytest.mark.filterwarnings("ignore:.*levels of")


def features(n=80, f=6, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 1


def small(**settings):
    return HRQConfig(**dict(dim=3, levels=2, codebook_size=8, hidden=(16,), radius=None) | settings)


def prepared(config, x=None):
    model = HRQVAE(6, config)
    model.prepare(features() if x is None else x)
    return model


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("space", SPACES)
def test_every_space_and_layer_has_codes_features_and_finite_gradients(space, layers):
    model, x = prepared(small(space=space, layers=layers)).train(), features()
    out = model(x)
    (out.error + out.quantization.sum()).backward()
    assert out.reconstruction.shape == x.shape and out.codes.shape == (80, 2)
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad
    )
    model.eval()
    assert torch.allclose(model(x).reconstruction, model.from_tokens(model.tokenize(x)), rtol=1e-5, atol=1e-5)


def test_the_flat_model_is_a_plain_rq_vae():
    model, x = prepared(small(space="euclidean")).eval(), features()
    z = model.encoder(((x - x.mean(0)) / (x - x.mean(0)).square().mean().sqrt()).float()).double()
    whole, r = torch.zeros_like(z), z
    for book in model.quantizer.codebooks:
        q = book[torch.cdist(r, book).argmin(1)]
        whole, r = whole + q, r - q
    deviation = (x - x.mean(0)).square().mean().sqrt()
    expected = model.decoder(whole.float()).double() * deviation + x.mean(0)
    assert torch.allclose(model(x).reconstruction, expected, atol=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_a_vanishing_curvature_gives_the_flat_reconstruction(layers):
    x, flat = features(), prepared(small(space="euclidean", layers=layers)).eval()
    curved = prepared(small(c=1e-8, layers=layers)).eval()
    assert torch.equal(curved.tokenize(x), flat.tokenize(x))
    assert torch.allclose(curved(x).reconstruction, flat(x).reconstruction, atol=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_the_median_radius_is_held_where_asked_whatever_the_scale_of_the_data(space):
    for scale in (1e-3, 1.0, 1e4):
        model = prepared(small(space=space, radius=0.7), features() * scale)
        radius = model.manifold.dist0(model.encode(features() * scale).detach()).median()
        assert float(radius) == pytest.approx(0.7, rel=1e-3)


@torch.no_grad()
def test_the_scale_follows_an_encoder_that_grows_as_a_moving_average():
    model, x = prepared(small(radius=1.0)).train(), features()
    first = float(model.factor)
    for p in model.encoder[-1].parameters():
        p.mul_(5.0)
    for _ in range(20):
        model(x)
    rest = 0.99**20
    assert float(model.factor) == pytest.approx(first * rest + first / 5 * (1 - rest), rel=1e-3)


def test_a_prefix_of_the_codes_is_a_coarser_reconstruction():
    x = features()
    model = prepared(small()).eval()
    assert model.from_tokens(model.tokenize(x)[:, :1]).shape == x.shape


@pytest.mark.parametrize("layers", LAYERS)
def test_a_file_gives_the_same_model_bit_for_bit(layers, tmp_path):
    model, x = prepared(small(layers=layers, radius=0.5, codebook_size=(8, 4))).eval(), features()
    model.save(tmp_path / "model")
    again = HRQVAE.load(tmp_path / "model")
    assert again.config == model.config
    assert torch.equal(again.tokenize(x), model.tokenize(x))
    assert torch.equal(again(x).reconstruction, model(x).reconstruction)
    with pytest.raises(CheckpointError, match="not a HRQ table"):
        HRQTable.load(tmp_path / "model")


def test_a_table_gives_codes_for_its_nodes_and_comes_back_from_a_file(tmp_path):
    table = HRQTable(40, small(scale=0.5))
    table.quantizer.fit(table.points().detach())
    table.save(tmp_path / "table")
    again = HRQTable.load(tmp_path / "table")
    codes = again.tokenize()
    assert torch.equal(codes, table.tokenize()) and torch.equal(again.tokenize(torch.tensor([3])), codes[3:4])
    near = again.manifold.dist(again.from_tokens(codes), again.points())
    assert float(near.detach().mean()) < float(again.manifold.dist0(again.points()).detach().mean())


def test_seeds_decide_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, other = HRQVAE(6, small()), HRQVAE(6, small()), HRQVAE(6, small(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.encoder[0].weight, b.encoder[0].weight)
    assert not torch.equal(a.encoder[0].weight, other.encoder[0].weight)


def test_bad_input_is_named(tmp_path):
    model = prepared(small())
    wrong = features()
    wrong[3, 1] = torch.nan
    for call, error, text in (
        (lambda: model.tokenize(wrong), DataError, "1 of 80 rows are not, first 3"),
        (lambda: model.tokenize(features(f=5)), DataError, r"\(n, 6\)"),
        (lambda: model.from_tokens(torch.tensor([[0, 8]])), DataError, "from 0 to 7"),
        (lambda: prepared(small(), features(n=5)), DataError, "as many points"),
        (lambda: prepared(small(), torch.ones(20, 6)), DataError, "all 20 are equal"),
        (lambda: HRQTable(20, small()).tokenize(torch.tensor([20])), DataError, "0 to 19"),
        (lambda: small(layers="mobious"), ParameterError, "did you mean 'mobius'"),
        (lambda: small(scale=0.0), ParameterError, "positive"),
        (lambda: small(hidden=(0,)), ParameterError, "hidden"),
        (lambda: HRQVAE(0, small()), ParameterError, "positive whole number"),
        (lambda: HRQVAE(6, small(space="poincaré")), ManifoldError, "poincare"),
        (lambda: HRQVAE.load(tmp_path / "none"), CheckpointError, "no checkpoint"),
    ):
        with pytest.raises(error, match=text):
            call()
