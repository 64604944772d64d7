"""Riemannian Adam: in flat space it is Adam; points stay on the manifold, the loss falls, runs resume bit for bit."""

import math

import geoopt
import pytest
import torch

from workbench.data import trees
from workbench.errors import CheckpointError, ParameterError
from workbench.manifolds import make
from workbench.models.hrq import HRQVAE, HRQConfig, HRQTable
from workbench.training.hrq import fit_joint, fit_vae
from workbench.training.riemannian import END, RiemannianAdam, make_optimizer, release

pytestmark = pytest.mark.filterwarnings("ignore:.*levels of", "ignore:.*pulled in")
SPACES = ("euclidean", "poincare", "lorentz")
CURVED = SPACES[1:]
TREE = trees.balanced(3, 3)


def small(**settings):
    return HRQConfig(**dict(dim=3, levels=2, codebook_size=8, hidden=(32,), update="gradient") | settings)


def joint(config, optimizer="riemannian", **more):
    return fit_joint(TREE, config, optimizer=optimizer, **dict(epochs=10, batch=40, report=1) | more)


def features():
    return torch.randn(60, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def vae(config, optimizer="riemannian", **more):
    return fit_vae(features(), config, optimizer=optimizer, **dict(steps=30, batch=24, report=1) | more)


def same(a, b):
    states = a.model.state_dict(), b.model.state_dict()
    assert states[0].keys() == states[1].keys() and a.history == b.history
    return all(torch.equal(x, y) for x, y in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize(
    "run, settings",
    [
        (joint, dict(space="euclidean")),
        (joint, dict(space="euclidean", update="ema")),
        (vae, dict(space="euclidean")),
        (vae, dict(space="poincare", update="ema", layers="hnnpp")),
    ],
)
def test_it_is_adam_to_the_last_bit_where_no_parameter_lies_in_a_curved_space(run, settings):
    assert same(run(small(**settings)), run(small(**settings), "adam"))


@pytest.mark.parametrize("space", CURVED)
def test_weights_beside_points_move_as_adam_moves_them(space):
    moved = []
    for name in ("riemannian", "adam"):
        model = HRQVAE(7, small(space=space)).train()
        model.prepare(features())
        optimizer = make_optimizer(name, model, 0.01)
        assert isinstance(optimizer, RiemannianAdam) == (name == "riemannian")
        for _ in range(2):  # of the weights alone: codes that have moved differently change everything after
            optimizer.zero_grad()
            model.decoder(model.encoder(features().float())).square().sum().backward()
            optimizer.step()
        moved.append(torch.cat([p.detach().flatten() for p in model.encoder.parameters()]))
    torch.testing.assert_close(*moved, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("space", CURVED)
def test_the_first_step_goes_a_distance_of_lr_against_the_gradient(space):
    m, lr = make(space, 0.7), 0.05
    generator = torch.Generator().manual_seed(1)
    goal, start = (m.random(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    x = geoopt.ManifoldParameter(start.clone(), manifold=m)
    m.dist2(x, goal).sum().backward()
    RiemannianAdam([x], lr=lr, stabilize=1).step()
    there = m.expmap(start, lr * m.logmap(start, goal) / m.dist(start, goal).unsqueeze(1))
    torch.testing.assert_close(x.detach(), there, rtol=0, atol=1e-7)  # Adam adds 1e-8 to lengths


@pytest.mark.parametrize("space", CURVED)
def test_a_point_put_elsewhere_between_steps_starts_without_momentum(space):
    m = make(space)
    x = geoopt.ManifoldParameter(m.from_tangent(torch.eye(3, dtype=torch.float64)), manifold=m)
    optimizer = RiemannianAdam([x], lr=0.1, stabilize=1)
    for _ in range(3):
        optimizer.zero_grad()
        m.dist0(x).sum().backward()
        optimizer.step()
    far = m.from_tangent(torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64))
    with torch.no_grad():
        x[1] = far
    before = x.detach().clone()
    x.grad = torch.zeros_like(x)
    optimizer.step()
    moved = m.dist(x.detach(), before)
    assert moved[1] < 1e-12 and moved[0] > 0.01 and moved[2] > 0.01


@pytest.mark.parametrize("update", ("ema", "gradient"))
@pytest.mark.parametrize("space", SPACES)
def test_the_contrastive_loss_falls_on_a_small_tree_and_points_stay_on_the_manifold(space, update):
    config = small(space=space, dim=4, scale=0.3, commitment=0.02, update=update)
    seen = []

    def look(trainer, row):
        for name, p in trainer.model.named_parameters():
            if isinstance(p, geoopt.ManifoldParameter):
                trainer.model.manifold.check(p.detach())
                seen.append(name)

    fit = joint(config, epochs=25, batch=60, self_negative=False, lr=0.3, on_report=look)
    loss = [row["contrastive"] for row in fit.history]
    assert sum(loss[-5:]) < 0.8 * sum(loss[:5])
    held = {"place"} | ({f"quantizer.books.{i}.place" for i in range(2)} if update == "gradient" else set())
    assert set(seen) == (set() if space == "euclidean" else held)
    fit.model.manifold.check(fit.model.points().detach())
    for codes in fit.model.quantizer.codebooks:
        fit.model.manifold.check(codes)


def test_ball_and_hyperboloid_walk_the_same_path():
    # Without revivals, which put several codes on one point: rounding then says which of them is the nearest.
    paths = [joint(small(space=space, scale=0.3, revive_below=0.0)) for space in CURVED]
    losses = [torch.tensor([row["loss"] for row in fit.history], dtype=torch.float64) for fit in paths]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)


class Halt(Exception):
    pass


def halting(trainer, row):
    if trainer.step >= 17:
        raise Halt


@pytest.mark.parametrize("space", CURVED)
@pytest.mark.parametrize("run, update", [(joint, "ema"), (joint, "gradient"), (vae, "gradient")])
def test_an_interrupted_run_ends_as_an_uninterrupted_one_bit_for_bit(run, update, space, tmp_path):
    config, path = small(space=space, update=update, revive_below=0.5), tmp_path / "run"
    whole = run(config)
    with pytest.raises(Halt):
        run(config, checkpoint=path, on_report=halting)
    for again in (run(config, checkpoint=path, checkpoint_every=7), run(config, checkpoint=path)):
        assert same(whole, again)


def test_a_checkpoint_of_the_other_optimizer_is_refused(tmp_path):
    for mine, other in (("adam", "riemannian"), ("riemannian", "adam")):
        path = tmp_path / mine
        joint(small(), mine, epochs=1, checkpoint=path)
        with pytest.raises(CheckpointError, match=f"{mine}.*{other}"):
            joint(small(), other, epochs=1, checkpoint=path)


def test_codebooks_are_moved_as_points_and_revived_in_both_ways_of_holding_them():
    fits = [joint(small(revive_below=0.9, decay=0.5), name) for name in ("riemannian", "adam")]
    assert all(fit.revived > 0 and fit.skipped == 0 for fit in fits)
    assert not torch.equal(*(fit.model.quantizer.codebooks[0] for fit in fits))


def test_a_model_saved_while_points_move_is_read_as_it_was(tmp_path):
    model = HRQTable(40, small(space="lorentz"))
    model.quantizer.fit(model.points().detach())
    make_optimizer("riemannian", model, 0.1)
    model.save(tmp_path / "held")
    read = HRQTable.load(tmp_path / "held")
    assert read.tangent is not None and read.place is None
    torch.testing.assert_close(read.points(), model.points(), rtol=1e-13, atol=1e-13)
    release(model)
    assert torch.equal(read.tangent, model.tangent)
    assert all(map(torch.equal, read.quantizer.codebooks, model.quantizer.codebooks))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("lr", (5.0, 1e6))
def test_a_rate_that_is_far_too_high_leaves_everything_finite_and_is_counted(space, lr):
    fit = joint(small(space=space, scale=3.0), lr=lr)
    assert all(torch.isfinite(p).all() for p in fit.model.state_dict().values())
    assert all(math.isfinite(row["loss"]) for row in fit.history if row["loss"] is not None)
    assert (
        space == "euclidean" or float(fit.model.manifold.dist0(fit.model.points().detach()).max()) < END + 1
    )
    assert space == "euclidean" or lr < 100 or fit.clipped > 0


def test_an_unknown_optimizer_is_named_with_what_may_have_been_meant():
    for run in (joint, vae):
        with pytest.raises(ParameterError, match=r"optimizer must be one of.*did you mean 'riemannian'"):
            run(small(), "rieman")
